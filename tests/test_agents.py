"""What is handed out as an agent's network is what the agent acts by."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from thorndike.agents import Agent
from thorndike.core import Transition
from thorndike.spaces import to_real

OBSERVATIONS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
DISCRETE, BOX = spaces.Discrete(4), spaces.Box(-2.0, 5.0, (2,), np.float32)
TINY = {"network": td.MLP((8,))}
NORMALIZED = {"normalize_observations": True, "num_environments": 2}


def linear_init(key, observation, outputs):
    return {"w": jax.random.normal(key, (observation.shape[1], outputs))}


def linear(parameters, x):
    return x @ parameters["w"]


def largest(outputs):
    return outputs.argmax(-1)


def squashed(outputs):
    return jnp.tanh(outputs)


CASES = {  # the algorithm, its actions, and how it chooses them greedily
    "dqn": (td.DQN(**TINY), DISCRETE, largest),
    "reinforce": (td.REINFORCE(**TINY), DISCRETE, largest),
    "ppo": (td.PPO(**TINY), DISCRETE, largest),
    "ppo, shared": (td.PPO(**TINY, critic_network=None), DISCRETE, largest),
    "ppo, shared, box": (td.PPO(**TINY, critic_network=None), BOX, lambda outputs: outputs),
    "sac": (td.SAC(**TINY), BOX, lambda outputs: squashed(outputs[:, :2])),
    "td3": (td.TD3(**TINY), BOX, squashed),
    "ddpg": (td.DDPG(**TINY), BOX, squashed),
}


def agent_of(algorithm, action_space):
    """An agent after a little experience, without training."""
    state = algorithm.init(jax.random.key(0), OBSERVATIONS, action_space)
    seen, flag = raw_observations(20).reshape(10, 2, 3), np.zeros((10, 2), bool)
    steps = Transition(seen, None, flag.astype(np.float32), flag, flag, seen, {})
    state = algorithm.observe(state, steps)
    if isinstance(algorithm, td.PPO | td.REINFORCE):  # which know it by their updates
        from thorndike import normalization

        state = state._replace(statistics=normalization.observe(state.statistics, steps, 0.9))
    return Agent(algorithm, state, OBSERVATIONS, action_space)


def raw_observations(count):
    return (np.random.default_rng(0).normal(size=(count, 3)) * [1, 30, 0.1] + [500, 0, 0]).astype(np.float32)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_network_handed_out_acts_like_the_agent_on_raw_observations(name, normalized):
    algorithm, action_space, choose = CASES[name]
    agent = agent_of(dataclasses.replace(algorithm, **NORMALIZED) if normalized else algorithm, action_space)
    observation = raw_observations(1000)
    expected = to_real(action_space, np)(np.asarray(choose(agent.network(observation))))
    np.testing.assert_allclose(agent.act(observation), expected, rtol=1e-4, atol=1e-5)
    if action_space is DISCRETE:  # as many outputs as the policy has, no more
        assert agent.network(observation).shape == (1000, 4)


def test_your_own_network_is_handed_back_or_is_behind_what_has_to_be_done_to_observations():
    module = eqx.nn.MLP(3, 4, 8, 1, key=jax.random.key(0))
    alone = agent_of(td.DQN(network=module), DISCRETE).network
    assert type(alone) is eqx.nn.MLP
    behind = agent_of(td.DQN(network=module, **NORMALIZED), DISCRETE).network
    assert type(behind.network.original()) is eqx.nn.MLP
    pair = agent_of(td.REINFORCE(network=(linear_init, linear)), DISCRETE).network
    assert pair["w"].shape == (3, 4)
    pair = agent_of(td.PPO(network=(linear_init, linear), critic_network=None), DISCRETE).network
    assert pair(raw_observations(5)).shape == (5, 4)
    assert pair.network.original()["w"].shape == (3, 5)
