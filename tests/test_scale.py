"""Observations and rewards out of scale: what every algorithm learns of them when it normalises, and keeps doing."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from thorndike import normalization
from thorndike.core import Batch, Transition
from thorndike.environments.classic_control import CartPole, Pendulum
from thorndike.memories import Replay
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


# --- what is drawn ----------------------------------------------------------------------------------------------------

TINY = {"network": MLP((8,)), "memory": Replay(100, 4, window=3), "warmup_steps": 8, "num_environments": 2}
OFF_POLICY = {"dqn": td.DQN(**TINY), "sac": td.SAC(**TINY), "td3": td.TD3(**TINY), "ddpg": td.DDPG(**TINY)}
OBSERVATIONS = spaces.Box(-np.inf, np.inf, (3,), np.float32)


def steps(action_space, length, copies, seed):
    rng = np.random.default_rng(seed)
    shape = (length, copies)
    action = rng.integers(0, 4, shape) if isinstance(action_space, spaces.Discrete) else rng.uniform(-1, 1, (*shape, 2))
    observation = (rng.normal(size=(2, *shape, 3)) * 1000 + 500).astype(np.float32)
    reward, ends = (1e6 * rng.normal(size=shape)).astype(np.float32), rng.random((2, *shape)) < 0.2
    action = action.astype(np.int32 if action.ndim == 2 else np.float32)
    return Transition(observation[0], action, reward, *ends, observation[1], {})


@pytest.mark.parametrize("name", ["dqn", "sac", "td3", pytest.param("ddpg", marks=pytest.mark.full)])  # a TD3
def test_what_is_drawn_is_normalised_by_all_that_is_known_and_each_reward_before_their_sum(name):
    plain = OFF_POLICY[name]
    space = spaces.Discrete(4) if name == "dqn" else spaces.Box(-1, 1, (2,), np.float32)
    normalizing = dataclasses.replace(plain, normalize_observations=True, normalize_rewards=True)
    every = jnp.ones(4), jnp.arange(4)
    update = jax.jit(
        lambda algorithm, state, steps: algorithm.update(
            state, Batch(steps, *every), jnp.float32(0), jax.random.key(0)
        )[1]
    )

    @jax.jit
    def begun(key, same_key):
        state = normalizing.init(key, OBSERVATIONS, space)
        return normalizing.observe(state, steps(space, 50, 2, seed=0)), plain.init(same_key, OBSERVATIONS, space)

    state, plain_state = begun(jax.random.key(0), jax.random.key(0))
    batch = steps(space, 3, 4, seed=1)
    moments, returns = state.statistics.observations, state.statistics.rewards.returns
    mean, spread = np.asarray(moments.mean[0]), np.sqrt(np.asarray(moments.variance[0]))
    by_hand = batch._replace(
        observation=(batch.observation - mean) / spread,
        next_observation=(batch.next_observation - mean) / spread,
        reward=batch.reward / np.sqrt(np.asarray(returns.variance[0])),
    )
    found = update(normalizing, state, batch)
    expected = update(plain, plain_state, by_hand)
    assert abs(by_hand.reward).max() < 10
    for metric in expected:
        np.testing.assert_allclose(found[metric], expected[metric], rtol=1e-3, atol=1e-5, err_msg=metric)


SMALL = {"network": MLP((8,)), "num_environments": 2, "rollout_length": 8}
ON_POLICY = {
    "reinforce": td.REINFORCE(**SMALL), "ppo": td.PPO(**SMALL, batch_size=8), "a2c": td.A2C(**SMALL),
    "trpo": td.TRPO(**SMALL, batch_size=8), "pqn": td.PQN(**SMALL, batch_size=8),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_POLICY)
def test_a_rollout_is_learned_as_it_was_acted_with_rewards_by_all_that_is_known(name):
    plain = ON_POLICY[name]
    normalizing = dataclasses.replace(plain, normalize_observations=True, normalize_rewards=True)
    before, rollout = (steps(spaces.Discrete(4), 8, 2, seed) for seed in (0, 1))

    @partial(jax.jit, static_argnames="seen")
    def learned(algorithm, rollout, seen):
        state = algorithm.init(jax.random.key(0), OBSERVATIONS, spaces.Discrete(4))
        if seen:
            state = state._replace(statistics=normalization.observe(state.statistics, before, algorithm.gamma))
        carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (8, *x.shape)), algorithm.initial_carry(2))
        extras = {"carry": carry, "log_prob": jnp.full((8, 2), -1.4)}
        batch = Batch(rollout._replace(extras=extras), jnp.ones(2), jnp.arange(2))
        after = algorithm.update(state, batch, jnp.float32(0), jax.random.key(0))[0]
        return after.network, state.statistics, after.statistics

    found, acted, known = learned(normalizing, rollout, seen=True)
    mean, spread = np.asarray(acted.observations.mean[0]), np.sqrt(np.asarray(acted.observations.variance[0]))
    assert int(known.observations.seen) == 2 * int(acted.observations.seen) == 32
    by_hand = rollout._replace(
        observation=(rollout.observation - mean) / spread,
        next_observation=(rollout.next_observation - mean) / spread,
        reward=rollout.reward / np.sqrt(np.asarray(known.rewards.returns.variance[0])),
    )
    expected = learned(plain, by_hand, seen=False)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, expected)


# --- at length: learned, where it is not learned without --------------------------------------------------------------

SOFT = td.SAC(
    network=MLP((64, 64), "relu", "default"), learning_rate=2e-3, warmup_steps=500, memory=Replay(20_000, 64),
    num_environments=4, rollout_length=1, updates_per_rollout=4,
)  # fmt: skip
LEARNERS = {"dqn": (td.DQN(), CartPole(), 50_000, 450), "sac": (SOFT, Pendulum(), 20_000, -250)}
CASES = [
    ("dqn", {"factor": 1000.0, "shift": 500.0}, {"normalize_observations": True}),
    ("sac", {"factor": 1000.0, "shift": 100_000.0}, {"normalize_observations": True}),  # rectifiers bear more
    ("dqn", {"reward_factor": 1e6}, {"normalize_rewards": True}),
    ("sac", {"reward_factor": 1e6}, {"normalize_rewards": True}),
]


def greedy_return(algorithm, environment, steps):
    """The mean greedy return of three seeds, in the rewards of the original."""
    run = td.train(
        algorithm, environment, steps, seeds=3, run_dir=None, quiet=True, evaluate_every=steps, final_episodes=50
    )
    return run.summary["evaluation"]["mean"] / environment.reward_factor


@pytest.mark.full
@pytest.mark.parametrize(("name", "changed", "settings"), CASES)
def test_what_is_out_of_scale_is_learned_when_normalised_and_not_without(name, changed, settings):
    algorithm, environment, steps, gate = LEARNERS[name]
    environment = Rescaled(environment, **changed)
    assert greedy_return(dataclasses.replace(algorithm, **settings), environment, steps) >= gate
    assert greedy_return(algorithm, environment, steps) < gate
