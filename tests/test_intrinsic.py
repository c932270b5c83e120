"""Rewards for what is new against their definitions, and what algorithms make of them."""

from __future__ import annotations

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import random

import thorndike as td
from test_dqn import ACTIONS, OBSERVATIONS, batch, defined_error
from test_dqn import SMALL as DQN_
from thorndike import cli, core, intrinsic, names
from thorndike.core import Batch, Transition
from thorndike.environments.classic_control import CartPole
from thorndike.environments.deep_sea import DeepSea
from thorndike.environments.functional import Vectorized
from thorndike.errors import SettingError, UnknownNameError
from thorndike.hyperparameters import from_json, to_json
from thorndike.networks import GRU, MLP
from thorndike.runs.configuration import hyperparameter_classes

TINY = MLP((8,), activation="tanh", initialization="default")
RND = td.RND(coefficient=0.5, network=TINY, features=5, gamma=0.9, batch_size=8)
PPO_ = td.PPO(network=TINY, num_environments=2, rollout_length=8, batch_size=8, epochs=2)


def observations(t, n, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=(t, n, 3))).astype(np.float32)


def normalized_by_hand(seen, x):
    flat = seen.reshape(-1, 3)
    return np.clip((x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-8), -5, 5)


def errors_by_hand(state, x):
    flat = x.reshape(-1, 3)
    return np.square(np.asarray(state.predictor(flat)) - np.asarray(state.target(flat))).mean(-1).reshape(x.shape[:2])


def test_rnds_reward_is_the_error_over_the_spread_of_its_discounted_sums():
    """Through two rollouts: what is normalised by, and what the sums run on with, are of all that was seen."""
    observe = jax.jit(RND.observe)
    state, rollouts = (
        RND.begin(random.key(0), OBSERVATIONS, 2),
        [observations(40, 2, seed, scale=3.0) for seed in (0, 1)],
    )
    rollouts[1][2, 1] = 100.0  # far beyond five standard deviations
    running, sums = np.zeros(2), []
    for i, rollout in enumerate(rollouts):
        seen = normalized_by_hand(np.concatenate(rollouts[: i + 1]), rollout)
        for row in errors_by_hand(state, seen):  # of the predictor that has not learned from them yet
            running = 0.9 * running + row
            sums.append(running)
        state = observe(state, rollout)
    expected = np.clip(errors_by_hand(state, seen) / np.sqrt(np.var(sums) + 1e-8), -10, 10)
    np.testing.assert_allclose(RND.bonus(state, rollouts[1]), expected, rtol=1e-3)


def test_rnd_gets_used_to_what_it_has_seen_and_its_target_stays():
    old, new = observations(50, 2) - 1.0, observations(50, 2, seed=1) + 1.0
    state = before = RND.observe(RND.begin(random.key(0), OBSERVATIONS, 2), np.concatenate([old, new]))
    observe, error = jax.jit(RND.observe), lambda state, x: np.asarray(RND._error(state, x)).mean()
    for _ in range(60):
        state = observe(state, old)
    assert error(state, old) < 0.2 * error(before, old)
    assert error(state, new) > 2 * error(state, old)
    for a, b in zip(*(jax.tree.leaves(x.target) for x in (before, state)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_rnds_predictor_takes_one_step_for_each_minibatch_and_learns_from_every_observation():
    state, seen = RND.begin(random.key(0), OBSERVATIONS, 2), observations(8, 2)
    after = RND.observe(state, seen)
    assert int(after.optimizer[0].count) == 2
    whole = dataclasses.replace(RND, batch_size=1_000)  # as many as there are: the gradient of all of them
    first = jax.tree.leaves(whole.observe(state, seen).optimizer[0].mu)[0] / 0.1
    x = normalized_by_hand(seen, seen).reshape(-1, 3)

    def loss(predictor):
        return jnp.square(predictor(x) - state.target(x)).mean()

    np.testing.assert_allclose(first, jax.tree.leaves(jax.grad(loss)(state.predictor))[0], rtol=1e-3, atol=1e-6)


CHOICES = spaces.Dict({"a": spaces.Discrete(3, start=2), "b": spaces.MultiDiscrete([2, 4])})


@pytest.mark.parametrize("kind", ["discrete", "dict", "one-hot"])
def test_counts_are_those_of_a_dictionary(kind):
    draw = np.random.default_rng(0)
    if kind == "discrete":
        space, seen = spaces.Discrete(7), draw.integers(7, size=(3, 5, 4)).astype(np.int32)
        names = seen
    elif kind == "one-hot":
        space, names = DeepSea(size=6).observation_space, draw.integers(37, size=(3, 5, 4))  # 36 is the end: zeros
        seen = np.eye(37, 36, dtype=np.float32)[names]
    else:
        seen = {"a": draw.integers(2, 5, size=(3, 5, 4)), "b": draw.integers([2, 4], size=(3, 5, 4, 2))}
        space, seen = CHOICES, jax.tree.map(lambda x: x.astype(np.int32), seen)
        names = seen["a"] * 100 + seen["b"][..., 0] * 10 + seen["b"][..., 1]
    recipe = td.Counts()
    state, visits = recipe.begin(random.key(0), space, 4), Counter()
    assert len(state.visits) == {"discrete": 7, "dict": 24, "one-hot": 2**18}[kind]
    for t in range(3):
        rollout = jax.tree.map(lambda x, t=t: x[t], seen)
        state = recipe.observe(state, rollout)
        visits.update(names[t].ravel().tolist())
        expected = np.vectorize(lambda name: visits[name] ** -0.5)(names[t])
        np.testing.assert_allclose(recipe.bonus(state, rollout), expected, rtol=1e-6)


def test_what_was_never_seen_counts_as_seen_once():
    recipe = td.Counts()
    state = recipe.begin(random.key(0), spaces.Discrete(3), 1)
    np.testing.assert_array_equal(recipe.bonus(state, np.array([[2]], np.int32)), [[1.0]])


@pytest.mark.parametrize("settings", [{}, {"clip_rewards": True}, {"memory": td.Replay(100, 4, window=3)}])
def test_dqn_learns_from_both_rewards(settings):
    """The bonus of each step of a window is added to its own reward, once that has been clipped."""
    algorithm = dataclasses.replace(DQN_, **settings, intrinsic=RND, num_environments=4)
    data = batch(algorithm.memory.window)
    state = algorithm.observe(algorithm.init(random.key(0), OBSERVATIONS, ACTIONS), data)
    bonus = np.asarray(RND.bonus(state.intrinsic, data.next_observation))
    reward = np.sign(data.reward) if algorithm.clip_rewards else data.reward
    expected = defined_error(algorithm, state, data._replace(reward=reward + 0.5 * bonus))
    one = Batch(data, jnp.ones(4), jnp.arange(4))
    after, metrics, error = jax.jit(algorithm.update)(state, one, jnp.float32(0), random.key(1))
    np.testing.assert_allclose(error[0], np.abs(expected), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["intrinsic_reward"], 0.5 * bonus.mean(), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after.intrinsic, state.intrinsic)  # it learns what is new, not again


def rollout(t=8, n=2):
    draw = np.random.default_rng(0)
    flags = draw.random(size=(2, t, n)) < 0.2
    extras = {"log_prob": np.full((t, n), -0.7, np.float32), "carry": ((), ())}
    action = draw.integers(0, 4, (t, n)).astype(np.int32)
    reward = draw.normal(size=(t, n)).astype(np.float32)
    return Transition(observations(t, n), action, reward, *flags, observations(t, n, 1), extras)


@pytest.mark.parametrize("normalize_rewards", [False, True])
def test_ppos_advantages_are_of_both_rewards(normalize_rewards):
    algorithm, steps = dataclasses.replace(PPO_, intrinsic=RND, normalize_rewards=normalize_rewards), rollout()
    state = algorithm.init(random.key(0), OBSERVATIONS, ACTIONS)
    state = algorithm.observe(state, steps)
    reward, metrics = intrinsic.found(algorithm, state.intrinsic, steps)
    np.testing.assert_allclose(reward, 0.5 * RND.bonus(state.intrinsic, steps.next_observation), rtol=1e-6)
    rows, _ = algorithm.prepare(state, steps, reward)
    plain = dataclasses.replace(algorithm, intrinsic=None)
    without, _ = plain.prepare(state, steps)
    scaled = without.reward + np.asarray(reward).reshape(1, -1)
    np.testing.assert_allclose(rows.reward, scaled, rtol=1e-5, atol=1e-6)
    unscaled = dataclasses.replace(plain, normalize_rewards=False)
    summed = steps._replace(reward=np.asarray(scaled).reshape(steps.reward.shape))
    expected, _ = unscaled.prepare(state._replace(statistics=state.statistics._replace(rewards=())), summed)
    np.testing.assert_allclose(rows.extras["advantage"], expected.extras["advantage"], rtol=1e-4, atol=1e-5)
    update = jax.jit(algorithm.update)
    _, found, _ = update(state, Batch(steps, jnp.ones(2), jnp.arange(2)), jnp.float32(0), random.key(1))
    np.testing.assert_allclose(found["intrinsic_reward"], metrics["intrinsic_reward"], rtol=1e-5)
    assert int(state.intrinsic.optimizer[0].count) == 2  # 16 observations in minibatches of 8


@pytest.mark.parametrize("algorithm", [DQN_, PPO_])
def test_without_any_nothing_is_kept_or_told(algorithm):
    state = jax.eval_shape(lambda: algorithm.init(random.key(0), OBSERVATIONS, ACTIONS))
    assert state.intrinsic == ()
    assert intrinsic.found(algorithm, (), rollout()) == (None, {})


def test_recorded_returns_stay_the_environments():
    """Even where the bonus is a hundred times as large."""
    algorithm = dataclasses.replace(PPO_, intrinsic=td.Counts(coefficient=100.0))
    run = td.train(
        algorithm, "DeepSea", 160, environment_arguments={"size": 4, "one_hot": False}, run_dir=None, quiet=True,
        evaluate_every=0,
    )  # fmt: skip
    assert np.nanmax(run.metrics["return_mean"]) <= 0.99
    assert np.nanmax(run.metrics["intrinsic_reward"]) > 1


def test_its_numbers_are_data_and_it_is_written_down_and_read():
    algorithm = dataclasses.replace(PPO_, intrinsic=td.RND(coefficient=0.25))
    assert 0.25 in jax.tree.leaves(algorithm)
    for recipe in (td.RND(coefficient=0.25, network=TINY), td.Counts(bits=4), None):
        chosen = dataclasses.replace(PPO_, intrinsic=recipe)
        assert from_json(to_json(chosen), hyperparameter_classes()) == chosen


def test_it_is_named_or_given_and_anything_else_is_answered():
    assert td.DQN(intrinsic="rnd").intrinsic == td.RND()
    assert td.PPO(intrinsic="Counts").intrinsic == td.Counts()
    with pytest.raises(UnknownNameError, match="Did you mean 'counts'"):
        td.PPO(intrinsic="count")
    for wrong, message in ((td.RND, r"give RND\(\)"), (0.5, r"takes td\.RND")):
        with pytest.raises(SettingError, match=message):
            td.PPO(intrinsic=wrong)
    with pytest.raises(SettingError, match="without a memory"):
        td.RND(network=GRU())


def test_the_command_takes_it_and_its_settings():
    default, flags = cli._choose_recipes(td.PPO(), ["--intrinsic", "rnd", "--intrinsic.coefficient", "0.5"])
    (made,) = cli._parse("thorndike train ppo", flags, default)
    assert made.intrinsic == td.RND(coefficient=0.5)
    assert cli._choose_recipes(made, ["--intrinsic", "none"])[0].intrinsic is None
    (plain,) = cli._parse("thorndike train ppo", [], td.PPO())
    assert plain.intrinsic is None


OF_THEIR_OWN = ("A2C", "TRPO", "IMPALA", "PQN")  # updates, or what they observe


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in OF_THEIR_OWN else pytest.mark.full) for name in names.ALGORITHMS],
)
def test_whoever_has_the_field_rewards_what_is_new(name):
    """Their own updates and observations of trajectories, too, of those that have replaced their parent's."""
    cls = getattr(td, name)
    if "intrinsic" not in {field.name for field in dataclasses.fields(cls)}:
        return
    algorithm = cls(intrinsic=td.Counts())
    n, length = algorithm.num_environments, algorithm.rollout_length
    world = Vectorized(CartPole(), n)

    def learned(key):
        env_state, observation = world.reset(key)
        progress = core.start(algorithm, world, env_state, observation, random.clone(key))
        step = core.shapes_of_step(algorithm, progress.state, observation, random.clone(key))
        rollout = jax.tree.map(lambda x: jnp.zeros((length, n, *x.shape), x.dtype), step)
        return core.learn(algorithm, progress.state, progress.memory, rollout, jnp.float32(0), random.clone(key))

    state, _, metrics = jax.eval_shape(learned, random.key(0))
    assert "intrinsic_reward" in metrics
    observed = jax.make_jaxpr(lambda state, trajectory: algorithm.observe(state, trajectory).intrinsic.visits)
    space, actions = world.observation_space, world.action_space
    state = algorithm.init(random.key(0), space, actions)
    seen = np.zeros((3, 2, 4), np.float32)
    flag, number = np.zeros((3, 2), bool), np.zeros((3, 2), np.float32)
    trajectory = Transition(seen, np.zeros((3, 2), np.int32), number, flag, flag, seen, {})
    assert "scatter" in str(observed(state, trajectory)), "nothing that was visited is counted"
