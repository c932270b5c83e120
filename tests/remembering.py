"""Networks with a memory, small ones of every kind, and worlds on the host that need one."""

from __future__ import annotations

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import random

import thorndike as td
from thorndike.hyperparameters import hyperparameters
from thorndike.networks.recurrent import Recurrent


@hyperparameters
class Elman(Recurrent):
    """A recipe of a user's own: Elman (1990)."""

    inputs = 1

    def init_cell(self, key):
        return random.normal(key, (self.size, self.size), jnp.float32) / self.size

    def init_memory(self, n):
        return jnp.zeros((n, self.size), jnp.float32)

    @classmethod
    def cell(cls, weights, x, carry):
        hidden = jnp.tanh(x + carry @ weights)
        return hidden, hidden


def init(key, observation, outputs):
    shapes = (observation.shape[1], 4), (4, 4), (4, outputs)
    keys = random.split(key, len(shapes))
    return [random.normal(key, shape, jnp.float32) / 2 for key, shape in zip(keys, shapes, strict=True)]


def apply(parameters, observation, carry):
    inputs, recurrent, outputs = parameters
    hidden = jnp.tanh(observation @ inputs + carry["hidden"] @ recurrent)
    return hidden @ outputs, {"hidden": hidden}


def initial_carry(n):
    return {"hidden": jnp.zeros((n, 4), jnp.float32)}


class EquinoxGRU(eqx.Module):
    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear

    def __init__(self, inputs=3, outputs=2, size=4):
        keys = random.split(random.key(9))
        self.cell = eqx.nn.GRUCell(inputs, size, dtype=jnp.float32, key=keys[0])
        self.head = eqx.nn.Linear(size, outputs, dtype=jnp.float32, key=keys[1])

    def initial_carry(self):
        return jnp.zeros(self.cell.hidden_size, jnp.float32)

    def __call__(self, observation, carry):
        carry = self.cell(observation, carry)
        return self.head(carry), carry


REMEMBERING = {
    "LSTM": td.LSTM(4, torso=td.MLP((3,))),
    "GRU": td.GRU(4),
    "MinGRU": td.MinGRU(4, span=5, head=td.MLP((3,))),
    "Attention": td.Attention(4, window=3, heads=2),
    "Attention of two layers": td.Attention(4, window=3, heads=2, layers=2),
    "nested": td.GRU(4, torso=td.MinGRU(3), head=td.LSTM(3)),
    "a recipe of one's own": Elman(4),
    "a triple": (init, apply, initial_carry),
    "an Equinox module": EquinoxGRU(),
    "a triple as torso": td.MinGRU(2, torso=(init, apply, initial_carry)),
}


def but_full(*names):
    """All of them as a test's parameters, some of them in `make test-full` alone: those that others stand for."""
    return [pytest.param(name, marks=[pytest.mark.full] * (name in names)) for name in REMEMBERING]


class CueOnHost(gymnasium.Env):
    """The probe `Cue` as an environment of Gymnasium."""

    def __init__(self, length=8, continuous=False):
        self.length = length
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32) if continuous else spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cue, self.time = self.np_random.choice([-1.0, 1.0]), 0
        return self._seen(), {}

    def step(self, action):
        way = action[0] if isinstance(self.action_space, spaces.Box) else 2 * action - 1
        self.time += 1
        last = self.time == self.length
        return self._seen(), float(self.cue * way) if last else 0.0, last, False, {}

    def _seen(self):
        return np.array([self.cue if self.time == 0 else 0, self.time == self.length - 1], np.float32)


def position_only_cartpole(**arguments):
    """Gymnasium's CartPole-v1 without its velocities."""
    environment = gymnasium.make("CartPole-v1", **arguments)
    space = environment.observation_space
    seen = spaces.Box(space.low[::2], space.high[::2])
    return gymnasium.wrappers.TransformObservation(environment, lambda observation: observation[::2], seen)


def numbers(tree):
    """The leaves of a tree as NumPy arrays."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
