"""Attention as a memory: what is carried is a window of the last steps, and each step looks at those of its episode."""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.networks.recurrent import Recurrent
from thorndike.sequences import Unrolled, before

GATE_BIAS = 2.0  # gates begin almost closed, so that what is seen now is learned from before memory is
NORMALIZED = 1e-5  # added to variances before dividing


class Window(NamedTuple):
    """What each layer saw in the last steps, the newest last; zeros from before the episode began."""

    seen: jax.Array  # [B, layers, window, size]
    age: jax.Array  # [B] how many of them are of this episode, int32


class Gate(eqx.Module):
    """Joins what a layer was given with what it made, as a GRU does (Parisotto et al., 2020, section 3.2)."""

    made: jax.Array  # [size, 3 * size] reset, update, new
    given: jax.Array  # [size, 2 * size] reset, update
    new: jax.Array  # [size, size]

    def __call__(self, given: jax.Array, made: jax.Array) -> jax.Array:
        reset_made, update_made, new = jnp.split(made @ self.made, 3, axis=-1)
        reset_given, update_given = jnp.split(given @ self.given, 2, axis=-1)
        reset, update = jax.nn.sigmoid(reset_made + reset_given), jax.nn.sigmoid(update_made + update_given - GATE_BIAS)
        return (1 - update) * given + update * jnp.tanh(new + (reset * given) @ self.new)


class Layer(eqx.Module):
    """Attention to this step and those before it, then two dense layers, each of the two joined by a gate."""

    queries: jax.Array  # [size, size]
    keys_values: jax.Array  # [size, 2 * size]
    outputs: jax.Array  # [size, size]
    dense: tuple[jax.Array, jax.Array]  # [size, 2 * size], [2 * size, size]
    gates: tuple[Gate, Gate]
    distances: jax.Array  # [heads, window + 1] added to the score of so many steps ago

    def __call__(self, x: jax.Array, context: jax.Array, ago: np.ndarray, allowed: jax.Array) -> jax.Array:
        """x [B, T, size] looks at a context [B, K, size], `ago` [T, K] steps ago, where `allowed` [B, T, K]."""
        heads, window = self.distances.shape[0], self.distances.shape[1] - 1

        def split(y):
            return y.reshape(*y.shape[:-1], heads, -1)

        keys, values = jnp.split(_normalized(context) @ self.keys_values, 2, axis=-1)
        queries = split(_normalized(x) @ self.queries)
        score = jnp.einsum("bthd,bkhd->bhtk", queries, split(keys)) / math.sqrt(queries.shape[-1])
        score += self.distances[:, np.clip(ago, 0, window)][None]
        weight = jax.nn.softmax(jnp.where(allowed[:, None], score, -jnp.inf))  # of itself a step may always see
        found = jnp.einsum("bhtk,bkhd->bthd", weight, split(values)).reshape(x.shape)
        x = self.gates[0](x, jax.nn.relu(found @ self.outputs))
        return self.gates[1](x, jax.nn.relu(jax.nn.relu(_normalized(x) @ self.dense[0]) @ self.dense[1]))


@hyperparameters
class Attention(Recurrent):
    """Attention to the last `window` steps: the gated transformer of Parisotto et al. (2020), GTrXL.

    Where it looks depends on how long ago a step was by a learned number for each (Raffel et al., 2020). A layer sees
    `window` steps of the layer below, so that `layers` of them reach as many times further back.
    """

    window: int = setting(16, low=1)
    heads: int = setting(4, low=1)
    layers: int = setting(1, low=1)

    inputs = 1

    def validate(self) -> None:
        if self.size % self.heads:
            raise SettingError(f"Attention: size must be a multiple of heads {self.heads}, got {self.size}")

    def init_cell(self, key: jax.Array) -> tuple[Layer, ...]:
        return tuple(self._layer(key) for key in random.split(key, self.layers))

    def _layer(self, key: jax.Array) -> Layer:
        """Weights with a variance of 1 / inputs, of one draw, because every further one costs time to compile."""
        widths = (1, 2, 1, 2, 3, 2, 1, 3, 2, 1, 2)  # outputs of each matrix, in sizes
        draw = random.normal(key, (self.size, self.size * sum(widths)), jnp.float32) / math.sqrt(self.size)
        *matrices, last = jnp.split(draw, self.size * np.cumsum(widths)[:-1], axis=1)
        queries, keys_values, outputs, first, *gates = matrices
        dense = first, last.reshape(2 * self.size, self.size) / math.sqrt(2)
        distances = jnp.zeros((self.heads, self.window + 1), jnp.float32)
        return Layer(queries, keys_values, outputs, dense, (Gate(*gates[:3]), Gate(*gates[3:])), distances)

    def init_memory(self, n: int) -> Window:
        return Window(jnp.zeros((n, self.layers, self.window, self.size), jnp.float32), jnp.zeros(n, jnp.int32))

    @classmethod
    def cell(cls, weights: tuple[Layer, ...], x: jax.Array, carry: Window) -> tuple[jax.Array, Window]:
        unrolled = cls.over_time(weights, x[None], carry, jnp.zeros((1, len(x)), bool))
        return unrolled.outputs[0], jax.tree.map(lambda x: x[0], unrolled.after)

    @classmethod
    def over_time(cls, weights: tuple[Layer, ...], x: jax.Array, carry: Window, ended: jax.Array) -> Unrolled:
        """All steps at once: what a step may look at is a band, cut off where its episode began."""
        length, window = x.shape[0], carry.seen.shape[2]
        time, place = (np.arange(first, length, dtype=np.int32) for first in (0, -window))  # of steps, of the context
        ago = time[:, None] - place[None]  # [T, window + T]
        begun = _begun(carry.age, ended)  # [T, B]
        near = jnp.asarray((ago >= 0) & (ago <= window))
        allowed = near[None] & (place[None, None] >= begun.T[:, :, None])
        x, contexts = x.swapaxes(0, 1), []
        for i, layer in enumerate(weights):
            contexts.append(jnp.concatenate([carry.seen[:, i], x], axis=1))
            x = layer(x, contexts[-1], ago, allowed)
        latest = time[:, None] + 1 + np.arange(window)[None]  # [T, window] places in the context, once a step is seen
        seen = jnp.moveaxis(jnp.stack(contexts, axis=1)[:, :, latest], 2, 0)  # [T, B, layers, window, size]
        own = (latest - window)[:, None] >= begun[:, :, None]
        seen = jnp.where(own[:, :, None, :, None], seen, 0)
        after = Window(seen, jnp.minimum(time[:, None] + 1 - begun, window))
        return Unrolled(x.swapaxes(0, 1), before(carry, after, ended), after)


def _begun(age: jax.Array, ended: jax.Array) -> jax.Array:
    """The time [T, B] of the first step of each step's episode; of one that began before, minus its age [B]."""
    following = jnp.arange(1, len(ended), dtype=jnp.int32)[:, None]
    begun = jnp.where(ended[:-1], following, -age[None])
    return lax.cummax(jnp.concatenate([-age[None], begun]))


def _normalized(x: jax.Array) -> jax.Array:
    """Layer normalisation without weights (Ba et al., 2016)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + NORMALIZED)
