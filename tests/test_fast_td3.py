"""FastTD3 against its definition: distributions of returns, the least critic's, and an episode's own noise."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thorndike as td
from test_continuous_control import (
    ACTIONS,
    OBSERVATIONS,
    TINY,
    batch,
    begun,
    fresh,
    gradient,
    new_key,
    returns,
    seen_by,
    slope,
    update,
)
from thorndike.errors import SettingError
from thorndike.memories import Prioritized, Replay

FAST = td.FastTD3(
    network=TINY, critic_network=TINY, warmup_steps=8, gamma=0.9, learning_rate_end=0.0, atoms=7, v_min=-2.0, v_max=4.0,
    memory=Replay(100, 8), num_environments=4, target_noise=0.2, normalize_observations=False,
)  # fmt: skip
ATOMS = np.linspace(-2, 4, 7)


def distribution(critics, i, observation, action):
    """One critic's probabilities of one pair, the critic taken out of the batched module."""
    critic = jax.tree.map(lambda x: np.asarray(x)[i], critics)
    seen = {"action": np.float32(action)[None], "observation": np.asarray(observation)[None]}
    logits = np.asarray(seen_by(critic, seen)[0], np.float64)
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def spread(chances, values):
    """Chances of returns, as the paper's figure has it: each return is shared by the two atoms around it."""
    found = np.zeros(7)
    for chance, value in zip(chances, np.clip(values, -2, 4), strict=True):
        below = min(int(np.floor(value + 2)), 5)
        found[below + 1] += chance * (value - ATOMS[below])
        found[below] += chance * (ATOMS[below + 1] - value)
    return found


def targets(algorithm, state, data):
    """[B, atoms]"""
    keys = jax.random.split(new_key(), algorithm.policy_delay)
    per_part = data.reward.shape[1] // algorithm.policy_delay
    noise = np.concatenate([jax.random.normal(key, (per_part, 2)) for key in keys])
    found = []
    for b, (total, discount, observation) in enumerate(returns(algorithm, data)):
        action = np.tanh(np.asarray(seen_by(state.target_actor.network, observation[None]))[0])
        action = np.clip(action + np.clip(0.2 * noise[b], -0.5, 0.5), -1, 1)
        both = [distribution(state.target_critics, i, observation, action) for i in range(2)]
        least = min(both, key=lambda chances: chances @ ATOMS)
        found.append(spread(least, total + discount * ATOMS))
    return np.array(found)


@pytest.mark.parametrize("window", [1, 3])
def test_fast_td3_is_its_definition_on_every_combination_of_ends(window):
    algorithm = dataclasses.replace(FAST, memory=Replay(100, 8, window), learning_rate=0.0)
    state, data = fresh(algorithm), batch(window, size=8)
    _, metrics, feedback = update(algorithm, state, data)
    target = targets(algorithm, state, data)
    learned = np.array([
        [distribution(state.critics, i, data.observation[0, b], data.action[0, b]) for b in range(8)] for i in range(2)
    ])  # fmt: skip
    loss = -(target * np.log(learned)).sum(-1)
    entropy = -(target * np.log(np.maximum(target, 1e-30))).sum(-1)
    np.testing.assert_allclose(metrics["critic_loss"], loss.mean(-1).sum(), rtol=1e-5)
    np.testing.assert_allclose(feedback[0], (loss - entropy).mean(0), rtol=1e-3, atol=1e-5)
    seen = data.observation[0, 4:]  # the actor learns from the last part
    action = np.tanh(np.asarray(seen_by(state.network, seen)))
    pairs = zip(seen, action, strict=True)
    value = [min(distribution(state.critics, i, *pair) @ ATOMS for i in range(2)) for pair in pairs]
    np.testing.assert_allclose(metrics["value"], np.mean(value), rtol=1e-4, atol=1e-5)


def test_targets_have_the_mean_of_what_follows_within_the_range_of_returns():
    state, data = fresh(FAST), batch(size=8)
    data.reward[:] *= 0.1
    target = targets(FAST, state, data)
    for b, (total, discount, _) in enumerate(returns(FAST, data)):
        assert abs(target[b].sum() - 1) < 1e-9
        if not discount:
            np.testing.assert_allclose(target[b] @ ATOMS, total, atol=1e-6)


def test_gradients_agree_with_finite_differences_of_the_definition():
    algorithm = dataclasses.replace(FAST, learning_rate=0.0, policy_delay=1, optimizer="adam")
    state, data = fresh(algorithm), batch(size=8)
    after, *_ = update(algorithm, state, data)
    target = targets(algorithm, state, data)
    observation, action = data.observation[0], data.action[0]

    @jax.jit
    def logits(critics, action):
        return jax.vmap(lambda critic: critic({"action": action, "observation": observation}))(critics)

    def critic_loss(critics):
        log_chance = np.asarray(jax.nn.log_softmax(logits(critics, action)), np.float64)
        return -(target * log_chance).sum(-1).mean(-1).sum()

    def actor_loss(actor):
        chance = jax.nn.softmax(logits(state.critics, jnp.tanh(seen_by(actor.network, observation))))
        return -(np.asarray(chance, np.float64) @ ATOMS).min(0).mean()

    of_actor, of_critics = after.optimizers
    rng = np.random.default_rng(0)
    for loss, tree, moments in ((critic_loss, state.critics, of_critics), (actor_loss, state.actor, of_actor)):
        for _ in range(3):
            expected, direction = slope(loss, tree, rng)
            np.testing.assert_allclose(gradient(moments) @ direction, expected, rtol=2e-2, atol=2e-4)


def test_an_episode_has_one_noise_and_the_next_one_another():
    algorithm = dataclasses.replace(FAST, exploration_noise_min=0.1, exploration_noise=0.3)
    observation = np.tile(np.array([[0.1, -0.2, 0.3]], np.float32), (20_000, 1))
    state = begun(FAST, jax.random.key(0))

    @jax.jit
    def acted(carry, key):
        action, carry, extras = algorithm.act(algorithm.policy(state, jnp.float32(0)), observation, carry, key)
        return action - algorithm.greedy(algorithm.policy(state, jnp.float32(0)), observation, carry)[0], carry, extras

    keys = jax.random.split(jax.random.key(1), 3)
    first, carry, extras = acted(algorithm.initial_carry(20_000), keys[0])
    second, same, _ = acted(carry, keys[1])
    np.testing.assert_array_equal(carry.share, same.share)
    assert not jax.tree.leaves(extras)  # what is learned from does not know the noise
    for noise in (first, second):
        standard = np.asarray(noise) / (0.1 + 0.2 * np.asarray(carry.share))[:, None]
        np.testing.assert_allclose(standard.std(0), 1, atol=0.03)
        assert abs(np.corrcoef(standard.T)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.03
    np.testing.assert_allclose(np.histogram(carry.share, 10, (0.0, 1.0))[0], 2000, atol=250)
    _, other, _ = acted(algorithm.initial_carry(20_000), keys[2])
    assert np.mean(np.isclose(other.share, carry.share)) < 0.01


def test_evaluations_have_no_noise():
    state, observation = begun(FAST, jax.random.key(0)), np.ones((4, 3), np.float32)
    policy = FAST.policy(state, jnp.float32(0), explore=False)
    action, *_ = FAST.act(policy, observation, FAST.initial_carry(4), new_key())
    np.testing.assert_array_equal(action, FAST.greedy(policy, observation, ())[0])
    np.testing.assert_allclose(action, np.tanh(seen_by(state.network, observation)), rtol=1e-6)


def test_an_actor_with_a_memory_explores_and_learns_from_what_it_remembered():
    algorithm = td.FastTD3(
        network=td.GRU(8), critic_network=td.GRU(8), atoms=11, v_min=-20.0, v_max=0.0, num_environments=4,
        warmup_steps=200, memory=Prioritized(400, 8, sequence=4, burn_in=2), rollout_length=2,
    )  # fmt: skip
    run = td.train(algorithm, "Pendulum-v1", 600, run_dir=None, quiet=True, evaluate_every=0)
    assert np.isfinite(run.metrics["critic_loss"][-1])


def test_what_cannot_work_is_refused_with_a_reason():
    with pytest.raises(SettingError, match=r"FastTD3: v_min must be below v_max, got 1.0 and 1.0"):
        td.FastTD3(v_min=1.0, v_max=1.0)
    with pytest.raises(SettingError, match=r"exploration_noise_min 0\.5 is above exploration_noise 0.4"):
        td.FastTD3(exploration_noise_min=0.5)
    with pytest.raises(SettingError, match="does not divide into policy_delay 2"):
        td.FastTD3(memory=Replay(1000, 101))
    assert FAST.init(new_key(), OBSERVATIONS, ACTIONS).critics is not None
