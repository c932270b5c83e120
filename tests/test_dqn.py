"""DQN's loss, target, gradient and schedules against their definitions."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from test_continuous_control import returns
from thorndike.algorithms.dqn import DQN
from thorndike.core import Batch, Transition
from thorndike.errors import SettingError, UnknownNameError, UnsuitableError
from thorndike.memories import Replay
from thorndike.networks import MLP

OBSERVATIONS, ACTIONS = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4)
SMALL = DQN(network=MLP((8,), activation="tanh", initialization="default"), memory=Replay(100, 4), target_period=3)


@jax.jit
def update(algorithm, state, steps, fraction, key, weight=None):
    weight = jnp.ones(steps.reward.shape[1]) if weight is None else weight
    return algorithm.update(state, Batch(steps, weight, jnp.arange(len(weight))), fraction, key)


def batch(window=1, size=4, seed=0):
    """Transitions [window, size]; of four, the last steps are: neither flag, terminated, truncated, both."""
    draw = np.random.default_rng(seed)
    flags = np.arange(size) % 4
    last = (np.arange(window) == window - 1)[:, None]
    return Transition(
        draw.normal(size=(window, size, 3)).astype(np.float32),
        draw.integers(0, 4, (window, size)).astype(np.int32),
        draw.normal(size=(window, size)).astype(np.float32),
        last & np.isin(flags, (1, 3))[None],
        last & np.isin(flags, (2, 3))[None],
        draw.normal(size=(window, size, 3)).astype(np.float32),
        {},
    )


def fresh(algorithm=SMALL):
    state = algorithm.init(jax.random.key(0), OBSERVATIONS, ACTIONS)
    return state._replace(target_network=algorithm.init(jax.random.key(1), OBSERVATIONS, ACTIONS).network)


def defined_error(algorithm, state, batch):
    """The TD error of each sample, straight from the definition, sample by sample."""
    errors = []
    for b, (total, discount, following) in enumerate(returns(algorithm, batch)):
        q_next = np.asarray(state.target_network(following[None]))[0]
        chooser = np.asarray(state.network(following[None]))[0] if algorithm.double else q_next
        bootstrap = q_next[chooser.argmax()]
        q = np.asarray(state.network(batch.observation[0, b][None]))[0]
        errors.append(total + discount * bootstrap - q[batch.action[0, b]])
    return np.array(errors)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("loss", ["huber", "squared"])
@pytest.mark.parametrize("window", [1, 3])
def test_loss_is_its_definition_on_every_combination_of_ends(double, loss, window):
    algorithm = dataclasses.replace(SMALL, double=double, loss=loss, memory=Replay(100, 4, window))
    state, data = fresh(algorithm), batch(window)
    error = defined_error(algorithm, state, data)
    small = np.abs(error) <= 1
    huber = np.where(small, 0.5 * error**2, np.abs(error) - 0.5)
    expected = (huber if loss == "huber" else 0.5 * error**2).mean()
    _, metrics, feedback = update(algorithm, state, data, jnp.float32(0), jax.random.key(2))
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(feedback[0], np.abs(error), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["td_error"], np.abs(error).mean(), rtol=1e-5)


def first_gradient(algorithm, state, data, weight=None):
    """The gradient that reaches the optimiser, read off Adam's first moment after one update from rest."""
    algorithm = dataclasses.replace(algorithm, max_grad_norm=float("inf"))
    after, *_ = update(algorithm, state, data, jnp.float32(0), jax.random.key(0), weight)
    moments = [x for x in jax.tree.leaves(after.optimizer) if x.ndim == 1 and x.size > 1]
    return np.asarray(moments[0]) / 0.1


def test_doubling_one_weight_adds_exactly_that_samples_gradient():
    state = fresh()

    def gradient(*weight):
        return first_gradient(SMALL, state, batch(), np.array(weight, np.float32))

    single = gradient(1, 0.5, 0, 0) - gradient(1, 0, 0, 0)
    assert np.abs(single).max() > 1e-3  # or 0 would be compared with 0
    doubled = gradient(1, 1, 0.25, 0.125) - gradient(1, 0.5, 0.25, 0.125)
    np.testing.assert_allclose(doubled, single, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("double", [True, False])
def test_dueling_is_the_value_plus_the_centred_advantages(double):
    """Wang et al. (2016), equation 9, in what is learned, in its targets and in what is acted on."""
    algorithm = dataclasses.replace(SMALL, dueling=True, double=double)
    state, data = fresh(algorithm), batch()

    def q_of(network):
        def q(observation):
            streams = np.asarray(network(observation))
            assert streams.shape[1] == 5  # V comes first
            return np.array([[row[0] + a - np.mean(row[1:]) for a in row[1:]] for row in streams])

        return q

    plain = state._replace(network=q_of(state.network), target_network=q_of(state.target_network))
    error = defined_error(algorithm, plain, data)
    _, _, feedback = update(algorithm, state, data, jnp.float32(0), jax.random.key(2))
    np.testing.assert_allclose(feedback[0], np.abs(error), rtol=1e-4, atol=1e-6)
    policy = algorithm.policy(state, jnp.float32(1), explore=False)
    action, _ = algorithm.greedy(policy, data.observation[0], ())
    np.testing.assert_array_equal(action, plain.network(data.observation[0]).argmax(-1))


def test_gradient_agrees_with_finite_differences():
    state, data = fresh(), batch(size=8)
    observation, action = data.observation[0], data.action[0]

    def q(network):
        return jnp.take_along_axis(network(observation), action[:, None], 1)[:, 0]

    # the target is held still, so that the semi-gradient is a gradient
    target = SMALL.td_error(state.network, state.target_network, SMALL.recall(state, data)) + q(state.network)

    def loss(network):
        return (0.5 * (jax.lax.stop_gradient(target) - q(network)) ** 2).mean()

    expected = np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(jax.grad(loss)(state.network))])
    squared = dataclasses.replace(SMALL, loss="squared")
    np.testing.assert_allclose(first_gradient(squared, state, data), expected, rtol=1e-4, atol=1e-6)


def test_target_network_is_the_online_one_of_the_last_period_in_every_leaf():
    """A2t: a hard copy every `target_period` updates, and none in between, however many copies act."""
    algorithm = dataclasses.replace(SMALL, num_environments=SMALL.target_period)
    state = algorithm.init(jax.random.key(0), OBSERVATIONS, ACTIONS)
    online, target = jax.tree.leaves(state.network), jax.tree.leaves(state.target_network)
    assert not {x.unsafe_buffer_pointer() for x in online} & {x.unsafe_buffer_pointer() for x in target}
    held = state.network
    for k in range(1, 8):
        state, *_ = update(algorithm, state, batch(seed=k), jnp.float32(0), jax.random.key(k))
        if k % 3 == 0:
            held = state.network
        for a, b in zip(jax.tree.leaves(state.target_network), jax.tree.leaves(held), strict=True):
            np.testing.assert_array_equal(a, b)
        if k % 3:
            pairs = zip(jax.tree.leaves(state.target_network), jax.tree.leaves(state.network), strict=True)
            assert any(not np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_batches_are_finite(size):
    state, metrics, _ = update(SMALL, fresh(), batch(size=size), jnp.float32(0), jax.random.key(0))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))


def test_epsilon_falls_linearly_over_its_fraction_and_acts_that_often():
    algorithm = dataclasses.replace(SMALL, exploration_fraction=0.5, epsilon_start=1.0, epsilon_end=0.1)
    state = fresh(algorithm)
    for fraction, epsilon in [(0.0, 1.0), (0.25, 0.55), (0.5, 0.1), (1.0, 0.1)]:
        np.testing.assert_allclose(algorithm.policy(state, jnp.float32(fraction)).epsilon, epsilon, rtol=1e-6)
    assert algorithm.policy(state, jnp.float32(0), explore=False).epsilon == 0
    observation = jnp.zeros((20_000, 3))
    policy = algorithm.policy(state, jnp.float32(0.25))
    action, _, _ = algorithm.act(policy, observation, (), jax.random.key(4))
    greedy = int(state.network(observation[:1]).argmax())
    share = np.bincount(np.asarray(action), minlength=4) / 20_000
    expected = np.full(4, 0.55 / 4) + 0.45 * (np.arange(4) == greedy)
    np.testing.assert_allclose(share, expected, atol=0.015)


def test_the_learning_rate_scales_the_step_and_falls_linearly_to_its_end():
    def change(rate, fraction):
        state = fresh()
        algorithm = dataclasses.replace(SMALL, learning_rate=rate, learning_rate_end=0.0)
        after, *_ = update(algorithm, state, batch(), jnp.float32(fraction), jax.random.key(0))
        pairs = zip(*map(jax.tree.leaves, (after.network, state.network)), strict=True)
        return np.concatenate([np.ravel(a - b) for a, b in pairs])

    whole = change(1e-3, 0.0)
    for rate, fraction, share in [(2e-3, 0.0, 2), (1e-3, 0.25, 0.75), (1e-3, 1.0, 0)]:
        np.testing.assert_allclose(change(rate, fraction), share * whole, rtol=1e-2, atol=2e-6)


def test_what_cannot_work_is_refused_with_a_reason():
    with pytest.raises(UnsuitableError, match="Discrete"):
        SMALL.check(OBSERVATIONS, spaces.Box(-1, 1, (1,)))
    with pytest.raises(SettingError, match="gamma must be at least 0 and at most 1"):
        DQN(gamma=1.5)
    with pytest.raises(SettingError, match="learning_rate"):
        DQN(learning_rate=-1)
    with pytest.raises(SettingError, match="num_environments"):
        DQN(num_environments=0)
    with pytest.raises(SettingError, match="holds 2 steps"):
        DQN(num_environments=8, memory=Replay(16, 4))
    with pytest.raises(SettingError, match="warmup_steps"):
        DQN(warmup_steps=0, rollout_length=1, memory=Replay(1000, 4, window=3))
    with pytest.raises(UnknownNameError, match=r"memory\.capacity"):
        DQN(buffer_size=10)
    with pytest.raises(UnknownNameError, match=r"memory\.beta \(Prioritized's now: memory=Prioritized\(beta=\.\.\.\)"):
        DQN(beta=0.5)
    with pytest.raises(UnknownNameError, match="Did you mean 'gamma'"):
        DQN(gama=0.9)
    with pytest.raises(SettingError, match="'huber', 'squared'"):
        DQN(loss="hubert")
