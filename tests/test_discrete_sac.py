"""Discrete SAC against the paper: expectations over choices, written out choice by choice."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from thorndike.core import Batch, Transition
from thorndike.errors import UnsuitableError

CHOICES = spaces.Discrete(4)
OBSERVATIONS = spaces.Dict(action_mask=spaces.MultiBinary(4), x=spaces.Box(-1, 1, (3,), np.float32))
TINY = td.MLP((8,), "tanh", "default")
SAC = td.DiscreteSAC(
    network=TINY, critic_network=TINY, warmup_steps=8, gamma=0.9, memory=td.Replay(100, 4), learning_rate_end=0.0
)


@jax.jit
def updated(algorithm, state, batch):
    return algorithm.update(state, batch, jnp.float32(0), jax.random.key(0))


def steps(window=1, size=8, masked=True, seed=0):
    """[window, size]; of four windows the last steps are: neither flag, terminated, truncated, both."""
    draw = np.random.default_rng(seed)
    flags, last = np.arange(size) % 4, (np.arange(window) == window - 1)[:, None]

    def seen():
        mask = np.stack([draw.permutation(4) < draw.integers(1, 4) for _ in range(window * size)]) | (not masked)
        return {
            "action_mask": mask.reshape(window, size, 4).astype(np.int8),
            "x": draw.normal(size=(window, size, 3)).astype(np.float32),
        }

    observation = seen()
    action = observation["action_mask"].argmax(-1).astype(np.int32)
    terminated, truncated = (last & np.isin(flags, kinds)[None] for kinds in ((1, 3), (2, 3)))
    reward = draw.normal(size=(window, size)).astype(np.float32)
    data = Transition(observation, action, reward, terminated, truncated, seen(), {})
    if window > 1:
        data.truncated[0, 0] = data.terminated[0, 1] = True
    return data


def fresh(algorithm=SAC, **changed):
    begin = jax.jit(lambda key: algorithm.init(key, OBSERVATIONS, CHOICES))
    return begin(jax.random.key(0))._replace(target_critics=begin(jax.random.key(1)).critics, **changed)


def policy_of(state, observation):
    """pi(.|s) and log pi(.|s) in float64, over what is legal: 0 for the rest."""
    logits = np.asarray(jax.jit(lambda x: state.network(x))(observation), np.float64)
    probability = np.exp(logits) * observation["action_mask"]
    probability /= probability.sum(-1, keepdims=True)
    return probability, np.log(np.where(probability > 0, probability, 1.0))


def values_of(critics, observation):
    """[critics, B, A]."""
    return np.asarray(jax.jit(jax.vmap(lambda critic: critic(observation)))(critics), np.float64)


def at(observation, t, b):
    return {name: x[t, b][None] for name, x in observation.items()}


def defined_target(algorithm, state, data, ent_coef):
    """Sums over choices of pi(a|s') (min Q'(s', a) - alpha log pi(a|s')), and alpha H on the way there."""
    window, size = data.reward.shape
    target = np.zeros(size)
    for b in range(size):
        discount = 1.0
        for t in range(window):
            target[b] += discount * float(data.reward[t, b])
            if t:
                probability, log_prob = policy_of(state, at(data.observation, t, b))
                target[b] -= discount * ent_coef * sum(probability[0, a] * log_prob[0, a] for a in range(4))
            discount *= algorithm.gamma
            if data.terminated[t, b] or data.truncated[t, b]:
                break
        if not data.terminated[t, b]:
            following = at(data.next_observation, t, b)
            probability, log_prob = policy_of(state, following)
            least = values_of(state.target_critics, following)[:, 0].min(0)
            target[b] += discount * sum(probability[0, a] * (least[a] - ent_coef * log_prob[0, a]) for a in range(4))
    return target


@pytest.mark.parametrize(("window", "ent_coef"), [(1, None), (3, 0.3)])
def test_an_update_is_its_definition_on_every_combination_of_ends(window, ent_coef):
    algorithm = dataclasses.replace(
        SAC, memory=td.Replay(100, 4, window), ent_coef=ent_coef, optimizer="sgd", learning_rate=0.1
    )
    data, weight = steps(window), np.linspace(0.5, 1.5, 8).astype(np.float32)
    state = fresh(algorithm) if ent_coef else fresh(algorithm, log_ent_coef=jnp.log(jnp.float32(0.7)))
    alpha = ent_coef or 0.7
    target = defined_target(algorithm, state, data, alpha)
    after, metrics, feedback = updated(algorithm, state, Batch(data, weight, np.arange(8)))
    first = jax.tree.map(lambda x: x[0], data.observation)
    taken = values_of(state.critics, first)[:, np.arange(8), data.action[0]]
    error = taken - target
    np.testing.assert_allclose(metrics["critic_loss"], 0.5 * (weight * np.square(error).sum(0)).mean(), rtol=1e-4)
    np.testing.assert_allclose(feedback[0], np.abs(error).mean(0), rtol=1e-4, atol=1e-5)
    probability, log_prob = policy_of(state, first)
    least = values_of(after.critics, first).min(0)
    np.testing.assert_allclose(metrics["entropy"], -(probability * log_prob).sum(-1).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["value"], (probability * least).sum(-1).mean(), rtol=1e-4, atol=1e-5)
    mask = jnp.asarray(first["action_mask"])

    def actor_loss(network):
        logits = jnp.where(mask == 1, network(first), -1e9)
        log_prob = jax.nn.log_softmax(logits)
        return (jnp.exp(log_prob) * (alpha * log_prob - least.astype(np.float32))).sum(-1).mean()

    gradient = jax.jit(jax.grad(actor_loss))(state.network)
    moved = jax.tree.map(lambda a, b: np.asarray(a - b) / 0.1, after.network, state.network)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, -b, rtol=1e-3, atol=1e-5), moved, gradient)
    if ent_coef is None:  # more entropy than aimed at lowers the temperature
        aim = 0.98 * np.mean(np.log(first["action_mask"].sum(-1)))
        excess = float(metrics["entropy"]) - aim
        np.testing.assert_allclose((after.log_ent_coef - state.log_ent_coef) / 0.1, -excess, rtol=1e-3, atol=1e-5)
    critics = jax.tree.map(lambda new, old: 0.995 * old + 0.005 * new, after.critics, state.target_critics)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.target_critics, critics)


def test_the_entropy_aimed_at_is_a_share_of_the_most_that_legal_choices_have():
    state, data = fresh(), steps(size=6)
    half = dataclasses.replace(SAC, target_entropy=0.5)
    expected = 0.5 * np.mean([math.log(x.sum()) for x in data.observation["action_mask"][0]])
    np.testing.assert_allclose(half.entropy_aim(state.head, data.observation), expected, rtol=1e-5)
    free = {"x": data.observation["x"]}
    np.testing.assert_allclose(half.entropy_aim(state.head, free), 0.5 * math.log(4), rtol=1e-6)
    nothing = {"action_mask": np.zeros((1, 2, 4), np.int8)}
    np.testing.assert_allclose(half.entropy_aim(state.head, nothing), 0.5 * math.log(4), rtol=1e-6)


def test_acting_draws_from_the_masked_policy_and_greedy_takes_its_most_likely_choice():
    state, data = fresh(), steps(size=1)
    first = jax.tree.map(lambda x: np.repeat(x[0], 8_000, 0), data.observation)
    probability, _ = policy_of(state, jax.tree.map(lambda x: x[0], data.observation))

    @partial(jax.jit, static_argnums=0)
    def act(explore):
        return SAC.act(SAC.policy(state, jnp.float32(0), explore), first, (), jax.random.key(1))[0]

    share = np.bincount(np.asarray(act(True)), minlength=4) / 8_000
    np.testing.assert_allclose(share, probability[0], atol=0.03)
    assert (np.asarray(act(False)) == probability[0].argmax()).all()


def test_continuous_actions_and_several_choices_are_refused():
    for space in (spaces.Box(-1, 1, (2,), np.float32), spaces.MultiDiscrete([2, 2])):
        with pytest.raises(UnsuitableError, match="DiscreteSAC needs Discrete actions"):
            SAC.check(OBSERVATIONS["x"], space)
