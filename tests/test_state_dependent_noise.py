"""Exploration as a function of the state: its Gaussian, its log-probabilities, and how long it is held."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from thorndike.core import Transition
from thorndike.networks import StateDependentNoise

OBSERVATIONS, ACTIONS = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2.0, 5.0, (2,), np.float32)
TINY = td.MLP((8,), activation="tanh", initialization="default")
COPIES = 2000
SAC = td.SAC(
    network=TINY, state_dependent_noise=True, initial_log_std=-1.0, num_environments=COPIES, warmup_steps=COPIES,
    memory=td.Replay(COPIES * 4, 8),
)  # fmt: skip
PPO = td.PPO(
    network=TINY, state_dependent_noise=True, initial_log_std=-1.0, num_environments=COPIES, rollout_length=2,
    batch_size=COPIES,
)  # fmt: skip
SHARED = td.PPO(
    network=TINY, state_dependent_noise=True, critic_network=None, num_environments=COPIES, rollout_length=2,
    batch_size=COPIES,
)  # fmt: skip
ALL = {"sac": SAC, "ppo": PPO, "ppo, shared": SHARED}


@jax.jit
def begun(algorithm):
    """A state with log_stds and outputs that differ from one another."""
    state = algorithm.init(jax.random.key(0), OBSERVATIONS, ACTIONS)
    network = actor_of(state)
    log_std = network.log_std + jax.random.uniform(jax.random.key(1), network.log_std.shape)
    changed = StateDependentNoise(network.network, log_std)
    if isinstance(algorithm, td.SAC):
        return state._replace(network=changed)
    return state._replace(parameters=state.parameters._replace(network=changed))


def actor_of(state):
    return state.parameters.network if hasattr(state, "parameters") else state.network


@jax.jit
def acted(algorithm, state, observation, key):
    policy = algorithm.policy(state, jnp.float32(0))
    carry = algorithm.initial_carry(len(observation))
    action, _, extras = algorithm.act(policy, observation, carry, key)
    greedy, _ = algorithm.greedy(policy, observation, carry)
    return action, extras.get("log_prob"), greedy


def by_hand(state, observation):
    """Means, and standard deviations from the features, of one observation."""
    network = actor_of(state)
    outputs = np.asarray(network.network(observation[:1]))[0]
    mean, z = outputs[:2], outputs[2:66]
    return mean, np.sqrt((z[:, None] ** 2 * np.exp(2 * np.asarray(network.log_std))).sum(0))


def in_real(name, action):
    """Before the squashing, where there is one."""
    return np.arctanh(np.asarray(action, np.float64)) if name == "sac" else np.asarray(action)


SEEN = np.tile(np.float32([[0.3, -0.2, 0.5]]), (COPIES, 1))


@pytest.mark.parametrize("name", ALL)
def test_over_copies_actions_are_gaussian_with_the_variance_of_the_features_and_one_copy_holds_its_noise(name):
    algorithm = ALL[name]
    state = begun(algorithm)
    mean, std = by_hand(state, SEEN)
    first, log_prob, greedy = acted(algorithm, state, SEEN, jax.random.key(2))
    again, *_ = acted(algorithm, state, SEEN, jax.random.key(3))
    np.testing.assert_array_equal(first, again)  # the key of a step has no part in it
    np.testing.assert_allclose(in_real(name, greedy), np.tile(mean, (COPIES, 1)), atol=1e-5)
    noise = in_real(name, first) - mean
    np.testing.assert_allclose(noise.mean(0), 0, atol=4 * std.max() / np.sqrt(COPIES))
    np.testing.assert_allclose(noise.std(0), std, rtol=0.07)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.1
    if log_prob is not None:
        density = -0.5 * (noise / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
        np.testing.assert_allclose(log_prob, density.sum(1), rtol=1e-3, atol=1e-3)
    other, *_ = acted(algorithm, state, -SEEN, jax.random.key(2))  # tanh's features are odd but for biases
    assert np.abs(np.corrcoef((in_real(name, other) - in_real(name, other).mean(0)).T, noise.T)[0, 2]) > 0.1
    flags = np.zeros((1, COPIES), bool)
    steps = Transition(SEEN[None], first[None], flags.astype(np.float32), flags, flags, SEEN[None], {})
    following = jax.jit(algorithm.observe)(state, steps)
    anew, *_ = acted(algorithm, following, SEEN, jax.random.key(2))
    assert abs(np.corrcoef((in_real(name, anew) - mean)[:, 0], noise[:, 0])[0, 1]) < 0.1


@pytest.mark.parametrize("name", ["ppo", "ppo, shared"])
def test_what_ppo_learns_from_has_the_probabilities_that_it_was_acted_with_and_its_value_stays(name):
    algorithm = ALL[name]
    state, observation = begun(algorithm), np.random.default_rng(0).normal(size=(COPIES, 3)).astype(np.float32)
    action, log_prob, _ = acted(algorithm, state, observation, jax.random.key(2))
    parameters = state.parameters
    outputs = (parameters.network(observation), parameters.critic(observation) if parameters.critic else ())
    np.testing.assert_allclose(parameters.distribution(outputs, observation).log_prob(action), log_prob, atol=1e-4)
    value = parameters.network.network(observation)[:, -1] if name == "ppo, shared" else outputs[1][:, 0]
    np.testing.assert_array_equal(parameters.value(outputs), value)
    assert outputs[0].shape[1] == 4 + (name == "ppo, shared")


def test_the_spread_is_learned_and_no_gradient_passes_through_the_features():
    state = begun(SAC)

    def loss(network):
        return state.head(network(SEEN[:4])).sample_and_log_prob(jax.random.key(5))[1].sum()

    slope = jax.jit(jax.grad(loss))(state.network)
    assert np.all(np.asarray(slope.log_std) != 0)
    assert np.any(np.asarray(slope.network.weights[-1])[:2])
    assert not np.any(np.asarray(slope.network.weights[-1])[2:])


def test_it_is_for_numbers_alone():
    with pytest.raises(td.UnsuitableError, match="is for Box actions"):
        td.PPO(state_dependent_noise=True).init(jax.random.key(0), OBSERVATIONS, spaces.Discrete(2))
    with pytest.raises(td.UnknownNameError, match="CrossQ has no field"):
        td.CrossQ(state_dependent_noise=True)


@pytest.mark.parametrize("prefix", ["", pytest.param("gymnasium:", marks=pytest.mark.full)])
def test_a_run_explores_smoothly_in_both_modes(prefix):
    ppo = td.PPO(network=TINY, state_dependent_noise=True, num_environments=2, rollout_length=8, batch_size=8, epochs=1)
    run = td.train(ppo, f"{prefix}Pendulum-v1", 64, run_dir=None, quiet=True, evaluate_every=0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.agent.state))
