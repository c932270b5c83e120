"""Bootstrapped DQN's heads, priors, masks and acting against their definitions."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import random

from test_continuous_control import returns
from test_dqn import ACTIONS, OBSERVATIONS, batch, update
from thorndike import sequences
from thorndike.algorithms.bootstrapped_dqn import BootstrappedDQN
from thorndike.algorithms.dqn import DQN
from thorndike.core import Batch
from thorndike.errors import SettingError
from thorndike.memories import Replay
from thorndike.networks import GRU, MLP, Network
from thorndike.runs.agents import Agent

HEADS = 3
SMALL = BootstrappedDQN(
    network=MLP((8,), activation="tanh", initialization="default"), memory=Replay(100, 4), num_heads=HEADS,
    prior_scale=2.0, target_period=3,
)  # fmt: skip


def fresh(algorithm=SMALL, actions=ACTIONS):
    state = algorithm.init(random.key(0), OBSERVATIONS, actions)
    return state._replace(target_network=algorithm.init(random.key(1), OBSERVATIONS, actions).network)


def head_of(heads, k):
    """Q_k as a function of numpy arrays, with its prior added by hand."""
    one = jax.tree.map(lambda x: x[k], heads.each)
    return lambda x: np.asarray(one.network(x)) + float(one.scale) * np.asarray(one.prior(x))


def defined_errors(algorithm, state, data):
    """The TD error of each head and sample, [K, B], straight from the definition."""
    errors = np.zeros((algorithm.num_heads, data.reward.shape[1]))
    for k in range(algorithm.num_heads):
        online, target = head_of(state.network, k), head_of(state.target_network, k)
        for b, (total, discount, following) in enumerate(returns(algorithm, data)):
            best = (online if algorithm.double else target)(following[None])[0].argmax()
            bootstrap = target(following[None])[0][best]
            errors[k, b] = total + discount * bootstrap - online(data.observation[0, b][None])[0][data.action[0, b]]
    return errors


@pytest.mark.parametrize(
    ("double", "window", "loss"), [(False, 1, "squared"), (True, 3, "huber"), (True, 1, "squared")]
)
def test_the_loss_is_the_sum_over_heads_that_each_learn_from_targets_of_their_own(double, window, loss):
    algorithm = dataclasses.replace(SMALL, double=double, loss=loss, memory=Replay(100, 4, window))
    state, data = fresh(algorithm), batch(window)
    errors = defined_errors(algorithm, state, data)
    small = np.abs(errors) <= 1
    losses = np.where(small | (loss == "squared"), 0.5 * errors**2, np.abs(errors) - 0.5)
    weight = np.array([1, 0.5, 0.25, 2], np.float32)
    _, metrics, feedback = update(algorithm, state, data, jnp.float32(0), random.key(2), weight)
    np.testing.assert_allclose(metrics["loss"], (losses * weight).sum(0).mean(), rtol=1e-5)
    np.testing.assert_allclose(feedback[0], np.abs(errors).mean(0), rtol=1e-5)


def gradients(algorithm, state, data, index=None):
    """By head, what reaches the optimiser: read off Adam's first moment after one update from rest."""
    index = jnp.arange(4) if index is None else index
    learn = jax.jit(lambda state: algorithm.update(state, Batch(data, jnp.ones(4), index), 0.0, random.key(0)))
    after = learn(state)[0]
    moments = [x for x in jax.tree.leaves(after.optimizer) if x.ndim > 1]
    first = moments[: len(moments) // 2]
    return [np.concatenate([np.ravel(x[k]) / 0.1 for x in first]) for k in range(algorithm.num_heads)], after


def test_each_head_gets_the_gradient_of_its_own_loss_alone_and_priors_get_none():
    state, data = fresh(), batch()
    found, after = gradients(SMALL, state, data)
    for k in range(HEADS):
        errors = defined_errors(SMALL, state, data)[k]
        one = jax.tree.map(lambda x, k=k: x[k], state.network.each)
        target = errors + head_of(state.network, k)(data.observation[0])[np.arange(4), data.action[0]]

        def loss(network, one=one, target=target):
            q = network(data.observation[0]) + one.scale * one.prior(data.observation[0])
            return 0.5 * ((target - q[np.arange(4), data.action[0]]) ** 2).mean()

        expected = np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.grad(loss)(one.network))])
        np.testing.assert_allclose(found[k], expected, rtol=1e-4, atol=1e-6)
    for frozen in ("prior", "scale"):
        old, new = (jax.tree.leaves(getattr(x.network.each, frozen)) for x in (state, after))
        assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))
    assert not np.array_equal(*(jax.tree.leaves(x.network.each.network)[0] for x in (state, after)))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_no_optimizer_moves_priors(optimizer):
    algorithm = dataclasses.replace(SMALL, optimizer=optimizer, learning_rate=0.1)
    state = fresh(algorithm)
    after = update(algorithm, state, batch(), jnp.float32(0), random.key(0))[0]
    pairs = zip(*(jax.tree.leaves(x.network.each.prior) for x in (state, after)), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_heads_and_priors_are_all_drawn_apart():
    state = SMALL.init(random.key(0), OBSERVATIONS, ACTIONS)
    drawn = [
        np.asarray(x.weights[0][k]) for x in (state.network.each.network, state.network.each.prior) for k in range(3)
    ]
    assert len({x.tobytes() for x in drawn}) == 2 * HEADS


def test_a_head_is_drawn_with_the_first_step_and_acts_for_the_whole_episode():
    state, n = fresh(), 3_000
    policy = SMALL.policy(state, jnp.float32(0))
    observation = np.random.default_rng(0).normal(size=(2, n, 3)).astype(np.float32)
    carry = SMALL.initial_carry(n)
    action, carry, extras = SMALL.act(policy, observation[0], carry, random.key(0))
    assert jax.tree.leaves(extras) == []
    head = np.asarray(carry.head)
    np.testing.assert_allclose(np.bincount(head, minlength=HEADS + 1) / n, [0, *[1 / HEADS] * HEADS], atol=0.04)
    by_head = [head_of(state.network, k) for k in range(HEADS)]
    for t in range(2):
        best = np.stack([q(observation[t]).argmax(-1) for q in by_head])
        np.testing.assert_array_equal(action, best[head - 1, np.arange(n)])
        if not t:
            action, carry, _ = SMALL.act(policy, observation[1], carry, random.key(1))
    np.testing.assert_array_equal(carry.head, head)
    ended = np.arange(n) < 1_000
    _, again, _ = SMALL.act(policy, observation[0], sequences.afresh(carry, ended), random.key(2))
    np.testing.assert_array_equal(again.head[1_000:], head[1_000:])
    assert 0.6 < np.mean(np.asarray(again.head[:1_000]) != head[:1_000]) < 0.73  # 2 / 3


def test_evaluations_act_by_the_mean_of_the_heads():
    state, observation = fresh(), np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    mean = np.mean([head_of(state.network, k)(observation) for k in range(HEADS)], 0)
    policy = SMALL.policy(state, jnp.float32(0), explore=False)
    np.testing.assert_array_equal(
        SMALL.act(policy, observation, SMALL.initial_carry(50), random.key(0))[0], mean.argmax(-1)
    )
    np.testing.assert_array_equal(SMALL.greedy(policy, observation, ())[0], mean.argmax(-1))
    agent = Agent(SMALL, state, OBSERVATIONS, ACTIONS)
    assert agent.act(observation[0]) == mean[0].argmax()


def test_only_legal_actions_are_taken_and_count_in_targets():
    space = spaces.Dict({"action_mask": spaces.MultiBinary(4), "observation": OBSERVATIONS})
    state = SMALL.init(random.key(0), space, ACTIONS)
    draw = np.random.default_rng(0)
    mask = np.eye(4, dtype=np.int8)[draw.integers(4, size=40)]
    seen = {"action_mask": mask, "observation": draw.normal(size=(40, 3)).astype(np.float32)}
    for explore in (True, False):
        policy = SMALL.policy(state, jnp.float32(0), explore)
        action, _, _ = SMALL.act(policy, seen, SMALL.initial_carry(40), random.key(0))
        np.testing.assert_array_equal(action, mask.argmax(-1))


def test_each_head_learns_from_the_same_share_of_the_memory_at_every_draw():
    algorithm = dataclasses.replace(SMALL, mask_probability=0.5, num_heads=6)
    steps = batch(size=4)
    index = jnp.arange(2_000)
    step = algorithm.recall(fresh(algorithm), jax.tree.map(lambda x: np.repeat(x, 500, axis=1), steps))
    weight = np.asarray(algorithm.weights(Batch(steps, jnp.full(2_000, 0.5), index), step))
    assert set(np.unique(weight)) == {0.0, 0.5}
    np.testing.assert_allclose((weight > 0).mean(0), 0.5, atol=0.05)
    assert len({column.tobytes() for column in weight.T}) == 6
    backwards = algorithm.weights(Batch(steps, jnp.full(2_000, 0.5), index[::-1]), step)
    np.testing.assert_array_equal(backwards, weight[::-1])
    in_a_row = algorithm.weights(Batch(steps, jnp.full(2_000, 0.5), index), step._replace(reward=jnp.ones((3, 2_000))))
    np.testing.assert_array_equal(in_a_row.reshape(3, 2_000, 6), np.stack([weight] * 3))  # all steps of a window
    state = fresh(algorithm)
    alone, _ = gradients(algorithm, state, steps)
    learned = (
        np.asarray(algorithm.weights(Batch(steps, jnp.ones(4), jnp.arange(4)), algorithm.recall(state, steps))) > 0
    )
    full, _ = gradients(dataclasses.replace(algorithm, mask_probability=1.0), state, steps)
    for k in range(6):
        assert np.array_equal(alone[k], full[k]) == learned[:, k].all()
        assert np.any(alone[k]) == learned[:, k].any()


REMEMBERING = {"network": GRU(4, torso=MLP((3,))), "memory": Replay(200, 4, sequence=4, burn_in=2), "warmup_steps": 20}


def test_what_heads_remember_is_their_own_and_which_one_acts_is_not_stored():
    algorithm = dataclasses.replace(SMALL, **REMEMBERING)
    carry = algorithm.initial_carry(2)
    assert {x.shape[:2] for x in jax.tree.leaves(carry.network)} == {(2, HEADS)}
    state = algorithm.init(random.key(0), OBSERVATIONS, ACTIONS)
    policy = algorithm.policy(state, jnp.float32(0))
    _, after, extras = algorithm.act(policy, np.ones((2, 3), np.float32), carry, random.key(0))
    assert jax.tree.structure(extras["carry"]) == jax.tree.structure(carry.network)
    for x in jax.tree.leaves(after.network):
        assert not np.array_equal(x[:, 0], x[:, 1])
    with pytest.raises(SettingError, match="learns from steps in a row"):
        dataclasses.replace(algorithm, memory=Replay(200, 4))


class Same(Network):
    """The recipe of a network that begins the same every time."""

    draws = False

    def __hash__(self):
        return 1


def test_equal_heads_and_odd_settings_are_refused():
    with pytest.raises(SettingError, match="20 equal heads explore no more than one"):
        BootstrappedDQN(network=Same())
    assert BootstrappedDQN(network=Same(), num_heads=1).num_heads == 1
    for wrong in ({"num_heads": 0}, {"prior_scale": -1}, {"mask_probability": 0}, {"mask_probability": 1.5}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            BootstrappedDQN(**wrong)


@pytest.mark.parametrize("remembering", [False, True])
def test_one_head_without_a_prior_is_dqn(remembering):
    """The same losses, from the same weights, of a network with a memory too."""
    more = REMEMBERING if remembering else {"network": SMALL.network, "memory": SMALL.memory}
    algorithm = dataclasses.replace(SMALL, num_heads=1, prior_scale=0.0, **more)
    plain = DQN(double=False, max_grad_norm=float("inf"), **more)
    state, data = fresh(algorithm), batch(6 if remembering else 1)
    network, target = (
        jax.tree.map(lambda x: x[0], heads.each.network) for heads in (state.network, state.target_network)
    )
    twin = plain.init(random.key(0), OBSERVATIONS, ACTIONS)._replace(network=network, target_network=target)

    def loss(algorithm, state):
        carry = jax.tree.map(lambda x: jnp.full((6, *x.shape), 0.3, x.dtype), algorithm.network_carry(4))
        return update(algorithm, state, data._replace(extras={"carry": carry}), jnp.float32(0), random.key(2))[1][
            "loss"
        ]

    np.testing.assert_allclose(loss(algorithm, state), loss(plain, twin), rtol=1e-5)
