"""Grids of choices, as MiniGrid's and XLand-MiniGrid's, learned from by convolutions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import random

import thorndike as td
from thorndike.runs.preparation import check_suitable

SEEING = td.CNN(channels=(16,), kernels=(3,), strides=(1,), sizes=(32,))


@dataclass(frozen=True)
class Find:
    """Say in which corner of a walled grid the red ball lies, beside a blue one. One step."""

    side: int = 4
    max_steps: ClassVar[int] = 1
    action_space: ClassVar = spaces.Discrete(4)

    @property
    def observation_space(self):
        return spaces.MultiDiscrete(np.broadcast_to(np.array([3, 2]), (self.side, self.side, 2)))

    def initial(self, key):
        return random.permutation(key, self.side * self.side)[:2]  # where the red and the blue ball lie

    def observe(self, state):
        ball = jax.nn.one_hot(state, self.side**2, dtype=jnp.int32).reshape(2, self.side, self.side)
        border = jnp.pad(jnp.zeros((self.side - 2,) * 2, jnp.int32), 1, constant_values=1)
        return jnp.stack([jnp.where(ball.any(0), 2, border), ball[1]], -1)

    def transition(self, state, action, key):
        row, column = jnp.divmod(state[0], self.side)
        corner = 2 * (row >= self.side // 2) + (column >= self.side // 2)
        return state, (action == corner).astype(jnp.float32), jnp.bool_(True)


LEARNERS = {
    "dqn": td.DQN(
        network=SEEING, warmup_steps=500, memory=td.Replay(5_000, 64), num_environments=16, epsilon_end=0.1,
        learning_rate=2e-3,
    ),
    "ppo": td.PPO(
        network=SEEING, num_environments=16, rollout_length=16, batch_size=64, epochs=4, learning_rate=3e-3,
    ),
}  # fmt: skip


STEPS = {"dqn": 4_000, "ppo": 8_000}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_grid_is_learned_from_by_convolutions(name):
    run = td.train(LEARNERS[name], Find, steps=STEPS[name], quiet=True, run_dir=None, evaluate_every=0)
    assert run.evaluate(300)["mean"] > 0.9  # 0.25 at random


def test_what_hardly_suits_convolutions_is_said_once_before_a_run_begins_and_nothing_of_a_grid():
    algorithm = td.PPO(network=td.LSTM(8, torso=SEEING))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_suitable(algorithm, Find().observation_space, Find.action_space)
    with pytest.warns(UserWarning, match=r"the image of shape \(4, 4, 2\) holds numbers without bounds") as told:
        check_suitable(algorithm, spaces.Box(-np.inf, np.inf, (4, 4, 2)), Find.action_space)
    assert len(told) == 1


def test_channels_that_were_found_to_be_first_are_noted_in_the_runs_first_lines(capsys):
    algorithm = td.PPO(network=SEEING, num_environments=2, rollout_length=8, batch_size=8)
    td.train(algorithm, Turned(), steps=16, run_dir=None, evaluate_every=0)
    said = " ".join("".join(capsys.readouterr()).split())
    assert said.count("the image of shape (2, 4, 4) is read with its channels first") == 1


class Turned(Find):
    @property
    def observation_space(self):
        return spaces.MultiDiscrete(np.broadcast_to(np.array([3, 2])[:, None, None], (2, self.side, self.side)))

    def observe(self, state):
        return jnp.moveaxis(super().observe(state), -1, 0)
