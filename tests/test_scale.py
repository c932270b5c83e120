"""Observations and rewards out of scale: what every algorithm learns of them when it normalises, and keeps doing."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from thorndike.environments.classic_control import CartPole, Pendulum
from thorndike.memories import Prioritized, Replay
from thorndike.networks import MLP


@dataclasses.dataclass(frozen=True)
class Rescaled:
    """An environment whose observations are multiplied and shifted, and whose rewards are multiplied."""

    environment: Any
    factor: float = 1.0
    shift: float = 0.0
    reward_factor: float = 1.0

    @property
    def observation_space(self):
        return spaces.Box(-np.inf, np.inf, self.environment.observation_space.shape, np.float32)

    @property
    def action_space(self):
        return self.environment.action_space

    @property
    def max_steps(self):
        return self.environment.max_steps

    def initial(self, key):
        return self.environment.initial(key)

    def observe(self, state):
        return self.factor * self.environment.observe(state) + self.shift

    def transition(self, state, action, key):
        state, reward, terminated = self.environment.transition(state, action, key)
        return state, self.reward_factor * reward, terminated


# --- at length: learned, where it is not learned without --------------------------------------------------------------

SOFT = td.SAC(
    network=MLP((64, 64), "relu", "default"), learning_rate=2e-3, warmup_steps=500, memory=Replay(20_000, 64),
    num_environments=4, rollout_length=1, updates_per_rollout=4,
)  # fmt: skip
LEARNERS = {"dqn": (td.DQN(), CartPole(), 50_000, 450), "sac": (SOFT, Pendulum(), 20_000, -250)}
SCALES = {
    "observations": ({"factor": 1000.0, "shift": 500.0}, {"normalize_observations": True}),
    "rewards": ({"reward_factor": 1e6}, {"normalize_rewards": True}),
}


def greedy_return(algorithm, environment, steps):
    """The mean greedy return of three seeds, in the rewards of the original."""
    run = td.train(algorithm, environment, steps, seeds=3, run_dir=None, quiet=True, evaluate_every=steps, final_episodes=50)
    return run.summary["evaluation"]["mean"] / environment.reward_factor


@pytest.mark.full
@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("scale", SCALES)
def test_what_is_out_of_scale_is_learned_when_normalised_and_not_without(scale, name):
    algorithm, environment, steps, gate = LEARNERS[name]
    changed, settings = SCALES[scale]
    environment = Rescaled(environment, **changed)
    assert greedy_return(dataclasses.replace(algorithm, **settings), environment, steps) >= gate
    assert greedy_return(algorithm, environment, steps) < gate
