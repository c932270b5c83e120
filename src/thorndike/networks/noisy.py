"""Noisy networks: dense layers whose weights are means and spreads of random numbers, drawn anew for every use.

Fortunato et al. (2018), "Noisy networks for exploration", with factorised Gaussian noise. A recipe with `noisy=True`
makes such layers. A module as it is acts by its means; `perturbed` gives it a draw of weights. Which layers are noisy
is known before anything is compiled, so that programs of networks without them stay what they are.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random

SIGMA = 0.5  # spread of first weights, times 1 / sqrt(inputs): section 3.2


class Spread(eqx.Module):
    """The standard deviations of dense layers' weights and biases, which are trained as their means are."""

    weights: tuple[jax.Array, ...]  # as those of a Perceptron
    biases: tuple[jax.Array, ...]


def first_spread(weights: tuple[jax.Array, ...], biases: tuple[jax.Array, ...]) -> Spread:
    """What layers begin with, the last of whose weights is stored transposed."""
    sigmas = [SIGMA / math.sqrt(inputs) for inputs, _ in map(_ends, _forward(weights))]
    return Spread(*(tuple(map(jnp.full_like, values, sigmas)) for values in (weights, biases)))


def perturbed(module: Any, key: jax.Array | None) -> Any:
    """A module, or a tree of them, with weights drawn for each of its noisy layers: equation 10.

    One without such layers is itself, and no key is used; without a key a module is itself too.
    """
    leaves, structure = jax.tree.flatten(module, is_leaf=_is_noisy)
    noisy = [i for i, leaf in enumerate(leaves) if _is_noisy(leaf)]
    if not noisy or key is None:
        return module
    for i, one in zip(noisy, random.split(key, len(noisy)), strict=True):
        leaves[i] = _drawn(leaves[i], one)
    return jax.tree.unflatten(structure, leaves)


def noiseless(module: Any) -> Any:
    """A module, or a tree of them, without its noise."""
    return jax.tree.map(lambda x: dataclasses.replace(x, spread=None) if _is_noisy(x) else x, module, is_leaf=_is_noisy)


def is_noisy(module: Any) -> bool:
    """Whether a module, or one in a tree of them, has noisy layers."""
    return any(map(_is_noisy, jax.tree.leaves(module, is_leaf=_is_noisy)))


def _is_noisy(module: Any) -> bool:
    return isinstance(getattr(module, "spread", None), Spread)


def _drawn(layers: Any, key: jax.Array) -> Any:
    """Layers with weights mu + sigma f(e_inputs) f(e_outputs) and biases mu + sigma f(e_outputs)."""
    sizes = [n for weight in _forward(layers.weights) for n in _ends(weight)]
    normal = random.normal(key, (sum(sizes),), jnp.float32)
    noise = jnp.split(jnp.sign(normal) * jnp.sqrt(jnp.abs(normal)), np.cumsum(sizes)[:-1])
    inputs, outputs = noise[::2], noise[1::2]
    of_weights = [x[:, None] * y[None] for x, y in zip(inputs, outputs, strict=True)]
    noises = [*of_weights[:-1], of_weights[-1].T], outputs
    mus, sigmas = (layers.weights, layers.biases), (layers.spread.weights, layers.spread.biases)
    weights, biases = (
        tuple(mu + sigma * noise for mu, sigma, noise in zip(*values, strict=True))
        for values in zip(mus, sigmas, noises, strict=True)
    )
    return dataclasses.replace(layers, weights=weights, biases=biases, spread=None)


def _forward(weights: tuple[jax.Array, ...]) -> list[jax.Array]:
    """All weights as [inputs, outputs]."""
    return [*weights[:-1], weights[-1].T]


def _ends(weight: jax.Array) -> tuple[int, int]:
    inputs, outputs = weight.shape
    return inputs, outputs
