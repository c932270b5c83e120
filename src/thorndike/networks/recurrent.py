"""Networks with a memory: a torso sees the observation, a cell remembers, a head makes the outputs.

Torso and head are any networks, of the user's own and with memories of their own too. A recipe is one class: how many
numbers its cell takes of the torso, its weights, its memory, and the cell itself, a function of them.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import lax, random

from thorndike.hyperparameters import hyperparameters, setting
from thorndike.networks.initialization import MAX_UNITS, orthogonalized
from thorndike.networks.mlp import MLP
from thorndike.networks.network import Network
from thorndike.sequences import Unrolled, afresh, before, over_time, step

PyTree = Any


class Cell(eqx.Module):
    """What remembers in a network: a recipe's function `cell`, with weights."""

    weights: PyTree
    recipe: type[Recurrent] = eqx.field(static=True)

    def __call__(self, x: jax.Array, carry: PyTree) -> tuple[jax.Array, PyTree]:
        return self.recipe.cell(self.weights, x, carry)

    def over_time(self, x: jax.Array, carry: PyTree, ended: jax.Array) -> Unrolled:
        return self.recipe.over_time(self.weights, x, carry, ended)


class Carry(NamedTuple):
    """What each part of a network with a memory carries; () for those without one."""

    torso: PyTree
    cell: PyTree
    head: PyTree


class RecurrentNetwork(eqx.Module):
    """torso -> cell -> head: each sees what the one before it has made, and only what remembers goes step by step."""

    torso: Any
    cell: Cell
    head: Any

    def __call__(self, observation: PyTree, carry: Carry) -> tuple[jax.Array, Carry]:
        """Outputs [B, outputs] for one step [B, ...], and the next carry."""
        features, of_torso = step(self.torso, observation, carry.torso)
        hidden, of_cell = step(self.cell, features, carry.cell)
        outputs, of_head = step(self.head, hidden, carry.head)
        return outputs, Carry(of_torso, of_cell, of_head)

    def over_time(self, observation: PyTree, carry: Carry, ended: jax.Array) -> Unrolled:
        """Outputs [T, B, outputs] for sequences [T, B, ...]: see `sequences.over_time`."""
        features = over_time(self.torso, observation, carry.torso, ended)
        hidden = over_time(self.cell, features.outputs, carry.cell, ended)
        outputs = over_time(self.head, hidden.outputs, carry.head, ended)
        parts = features, hidden, outputs
        return Unrolled(
            outputs.outputs, Carry(*(part.before for part in parts)), Carry(*(part.after for part in parts))
        )

    def original(self) -> RecurrentNetwork:
        """What the user gave, with these weights: the module itself."""
        return self


@hyperparameters
class Recurrent(Network):
    """What recipes with a memory have in common. `size`: how many numbers the cell makes of a step.

    A subclass says `inputs`, `init_cell`, `init_memory` and `cell`; `over_time` only where it knows a quicker way.
    """

    size: int = setting(64, low=1, high=MAX_UNITS)
    torso: Network = MLP((64,))
    head: Network = MLP(())

    inputs: ClassVar[int]  # what the torso makes for each of the cell's numbers

    @property
    def fixed(self) -> bool:  # type: ignore[override]
        return self.head.fixed

    @property
    def special(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*self.torso.special, *self.head.special)

    @property
    def noisy(self) -> bool:  # type: ignore[override]
        return self.torso.noisy or self.head.noisy

    def init(self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0) -> RecurrentNetwork:
        """A module (observation [B, ...], carry [B, ...]) -> (outputs [B, outputs], carry); `gain` is the head's."""
        torso_key, cell_key, head_key = random.split(key, 3)
        hidden = spaces.Box(-np.inf, np.inf, (self.size,), np.float32)
        return RecurrentNetwork(
            self.torso.init(torso_key, observation_space, self.inputs * self.size),
            Cell(self.init_cell(cell_key), type(self)),
            self.head.init(head_key, hidden, outputs, gain),
        )

    def initial_carry(self, n: int) -> Carry:
        return Carry(self.torso.initial_carry(n), self.init_memory(n), self.head.initial_carry(n))

    def init_cell(self, key: jax.Array) -> PyTree:
        """The cell's first weights."""
        raise NotImplementedError

    def init_memory(self, n: int) -> PyTree:
        """What the cell carries where an episode begins: zeros [n, ...]."""
        raise NotImplementedError

    @classmethod
    def cell(cls, weights: PyTree, x: jax.Array, carry: PyTree) -> tuple[jax.Array, PyTree]:
        """What the cell makes [B, size] of the torso's outputs [B, inputs * size], and the next carry."""
        raise NotImplementedError

    @classmethod
    def over_time(cls, weights: PyTree, x: jax.Array, carry: PyTree, ended: jax.Array) -> Unrolled:
        """The cell over sequences [T, B, ...], step by step."""
        return over_time(partial(cls.cell, weights), x, carry, ended)


@hyperparameters
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997); `torso=MLP(())` is the plain one.

    Its forget gates begin open, with a bias of 1 (Jozefowicz et al., 2015). The torso's last layer is the inputs'
    share of the gates.
    """

    inputs = 4  # gates: input, forget, new value, output

    def init_cell(self, key: jax.Array) -> jax.Array:
        return _orthogonal_gates(key, self.size, 4)

    def init_memory(self, n: int) -> tuple[jax.Array, jax.Array]:
        return jnp.zeros((n, self.size), jnp.float32), jnp.zeros((n, self.size), jnp.float32)

    @classmethod
    def cell(cls, weights: jax.Array, x: jax.Array, carry: PyTree) -> tuple[jax.Array, PyTree]:
        hidden, value = carry
        enter, forget, new, leave = jnp.split(x + hidden @ weights, 4, axis=1)
        value = jax.nn.sigmoid(forget + 1) * value + jax.nn.sigmoid(enter) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(leave) * jnp.tanh(value)
        return hidden, (hidden, value)


@hyperparameters
class GRU(Recurrent):
    """Gated recurrent units (Cho et al., 2014), resetting the recurrent product as cuDNN, PyTorch and Keras do.

    The torso's last layer is the inputs' share of the gates: `torso=MLP(())` is the plain GRU.
    """

    inputs = 3  # reset, update, new value

    def init_cell(self, key: jax.Array) -> dict[str, jax.Array]:
        return {"weight": _orthogonal_gates(key, self.size, 3), "bias": jnp.zeros(self.size, jnp.float32)}

    def init_memory(self, n: int) -> jax.Array:
        return jnp.zeros((n, self.size), jnp.float32)

    @classmethod
    def cell(cls, weights: dict[str, jax.Array], x: jax.Array, carry: jax.Array) -> tuple[jax.Array, jax.Array]:
        reset_x, update_x, new_x = jnp.split(x, 3, axis=1)
        reset_h, update_h, new_h = jnp.split(carry @ weights["weight"], 3, axis=1)
        reset, keep = jax.nn.sigmoid(reset_x + reset_h), jax.nn.sigmoid(update_x + update_h)
        new = jnp.tanh(new_x + reset * (new_h + weights["bias"][None]))
        hidden = (1 - keep) * new + keep * carry
        return hidden, hidden


@hyperparameters
class MinGRU(Recurrent):
    """A linear recurrence, parallel over time: h_t = (1 - z_t) h_(t-1) + z_t v_t, with z and v of the inputs alone.

    The minimal GRU of Feng et al. (2024), "Were RNNs all we needed?". Its gates choose what to keep, which recurrences
    of fixed decays (LRU, S5) cannot, it stays within the range of its inputs, and it needs no complex numbers. As the
    memory is linear, the head has a hidden layer. `span`: the units begin by keeping what they see for 2 to so many
    steps (Tallec and Ollivier, 2018).
    """

    head: Network = MLP((64,))
    span: int = setting(64, low=2)

    inputs = 2  # update, new value

    def init_cell(self, key: jax.Array) -> jax.Array:
        return -jnp.log(random.uniform(key, (self.size,), jnp.float32, minval=1, maxval=self.span - 1))

    def init_memory(self, n: int) -> jax.Array:
        return jnp.zeros((n, self.size), jnp.float32)

    @classmethod
    def cell(cls, weights: jax.Array, x: jax.Array, carry: jax.Array) -> tuple[jax.Array, jax.Array]:
        keep, new = cls._kept_and_new(weights, x)
        hidden = keep * carry + new
        return hidden, hidden

    @classmethod
    def over_time(cls, weights: jax.Array, x: jax.Array, carry: jax.Array, ended: jax.Array) -> Unrolled:
        """Gates of all steps at once; then the recurrence, in log T rounds where there are cores enough for that.

        The first step of an episode keeps nothing: that is all of a reset.
        """
        keep, new = cls._kept_and_new(weights, x)
        new = new.at[0].add(keep[0] * carry)
        keep = keep.at[1:].set(afresh(keep[1:], ended[:-1]))
        hidden = lax.platform_dependent(keep, new, cpu=in_turn, default=in_rounds)
        return Unrolled(hidden, before(carry, hidden, ended), hidden)

    @staticmethod
    def _kept_and_new(weights: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        update, value = jnp.split(x, 2, axis=-1)
        update = jax.nn.sigmoid(update + jnp.expand_dims(weights, range(x.ndim - 1)))
        return 1 - update, update * value


def in_turn(keep: jax.Array, new: jax.Array) -> jax.Array:
    """h_t = keep_t h_(t-1) + new_t from h = 0, [T, ...], step after step: the quickest way on a CPU."""

    def one(hidden, now):
        hidden = now[0] * hidden + now[1]
        return hidden, hidden

    return lax.scan(one, jnp.zeros_like(new[0]), (keep, new))[1]


def in_rounds(keep: jax.Array, new: jax.Array) -> jax.Array:
    """The same in log T rounds (Blelloch, 1990): two steps h -> keep h + new, one after the other, are a third."""

    def joined(first, second):
        return second[0] * first[0], second[0] * first[1] + second[1]

    return lax.associative_scan(joined, (keep, new))[1]


def _orthogonal_gates(key: jax.Array, size: int, gates: int) -> jax.Array:
    """Recurrent weights [size, gates * size], orthogonal for each gate: what is carried neither grows nor fades."""
    draws = random.normal(key, (gates, size, size), jnp.float32)
    return jnp.concatenate([*jax.vmap(orthogonalized)(draws)], axis=1)
