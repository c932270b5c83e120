"""First weights of all layers of a network, in one draw."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from thorndike.errors import SettingError, UnsuitableError, shown

Initialization = Literal["orthogonal", "default"]
MAX_LAYERS, MAX_UNITS = 100, 2**20  # more is a slip, and would be noticed only after minutes of compiling
MAX_WIDTH = 2**31 - 1  # of features or outputs: what an index can be


def dense_shapes(inputs: int, sizes: tuple[int, ...], outputs: int) -> list[tuple[int, ...]]:
    """The shapes of the weights of dense layers; UnsuitableError where one would be beyond all bounds."""
    if max(inputs, outputs) > MAX_WIDTH:
        what = f"{inputs:,} features of an observation and {outputs:,} outputs"
        raise UnsuitableError(f"no network has {what}: represent such large choices as numbers, in a Box")
    return list(itertools.pairwise((inputs, *sizes, outputs)))


def draw_weights(
    key: jax.Array, shapes: list[tuple[int, ...]], initialization: Initialization, gain: Any
) -> tuple[tuple, tuple]:
    """First weights [..., inputs, outputs] and biases of all layers; the last one scaled by `gain` and transposed.

    They share one draw, because every further one would add a fifth of a second to compiling.
    """
    orthogonal = initialization == "orthogonal"
    draw = random.normal if orthogonal else partial(random.uniform, minval=-1, maxval=1)
    sizes = [math.prod(shape) + shape[-1] for shape in shapes]
    numbers = jnp.split(draw(key, (sum(sizes),), dtype=jnp.float32), np.cumsum(sizes)[:-1])
    layers = [(x[: -n[-1]].reshape(n), x[-n[-1] :]) for x, n in zip(numbers, shapes, strict=True)]
    if orthogonal:
        layers = [(orthogonalized(weight), jnp.zeros_like(bias)) for weight, bias in layers]
    else:
        limits = [1 / math.sqrt(math.prod(shape[:-1])) for shape in shapes]
        layers = [(limit * weight, limit * bias) for limit, (weight, bias) in zip(limits, layers, strict=True)]
    *hidden, (weight, bias) = layers
    if orthogonal:
        hidden = [(math.sqrt(2) * weight, bias) for weight, bias in hidden]
    gain = jnp.broadcast_to(jnp.asarray(gain, jnp.float32), (bias.size,))
    weights, biases = zip(*hidden, (weight.T * gain[:, None], bias * gain), strict=True)
    return weights, biases


def orthogonalized(normal: jax.Array) -> jax.Array:
    """Numbers [..., inputs, outputs] of a normal distribution to a uniformly random orthogonal matrix (gain 1).

    By Gram-Schmidt, each vector taken twice against those before it, which is enough (Giraud et al., 2005). LAPACK's
    QR factorisation is avoided: on CPUs, jaxlib's waits for the very threads that it runs on, and may do so for ever.
    """
    matrix = normal.reshape(-1, normal.shape[-1])
    wide = matrix.shape[0] < matrix.shape[1]
    vectors = matrix if wide else matrix.T

    def against_those_before(i, found):
        vector = vectors[i]
        for _ in range(2):
            vector = vector - (found @ vector) @ found
        return found.at[i].set(vector / jnp.linalg.norm(vector))

    found = lax.fori_loop(0, len(vectors), against_those_before, jnp.zeros_like(vectors))
    return (found if wide else found.T).reshape(normal.shape)


def check_sizes(owner: str, name: str, values: Any) -> None:
    """SettingError where a field of a recipe is no tuple of whole numbers that layers can have."""
    if not isinstance(values, tuple) or not all(type(value) is int and value > 0 for value in values):
        raise SettingError(
            f"{owner}: {name} must be a tuple of whole numbers above 0 such as (64, 64), got {shown(values)}"
        )
    if len(values) > MAX_LAYERS or max(values, default=0) > MAX_UNITS:
        most = f"at most {MAX_LAYERS} layers of at most {MAX_UNITS:,}"
        raise SettingError(f"{owner}: {name} may be {most}, got {len(values):,} of at most {max(values):,}")
