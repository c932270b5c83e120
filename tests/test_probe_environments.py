"""The probes' own truths, held against their behaviour: values by Bellman's equation, best actions by trying all."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import lax, random

from remembering import CueOnHost, position_only_cartpole
from thorndike.environments.functional import Vectorized
from thorndike.environments.probes import PROBES, Cue, PositionOnlyCartPole, ResetSentinel, UnevenLengths
from thorndike.spaces import plain, uniform_action

COPIES, STEPS, GAMMA = 64, 40, 0.9


def cases() -> list:
    """All probes; the continuous variants of those where any action is as good belong to the longer tests."""
    found = []
    for name, variants in PROBES.items():
        for number, probe in enumerate(variants):
            found.append(pytest.param(probe, id=f"{name}-{number}"))
            if hasattr(probe, "continuous"):
                marks = [pytest.mark.full] * (probe.solution(GAMMA).action is None)
                probe = dataclasses.replace(probe, continuous=True)
                found.append(pytest.param(probe, id=f"{name}-{number} continuous", marks=marks))
    return found


class Played(NamedTuple):
    """What came of a probe, [T, N]: the first half of the copies are acted on at their best, the others not always."""

    probe: Any
    solution: Any
    observation: Any
    action: np.ndarray
    outcome: Any


@functools.cache
def play(probe) -> Played:
    environment, solution = Vectorized(probe, COPIES), probe.solution(GAMMA)

    def row(observation):
        """Which of the solution's observations this is."""
        same = jax.tree.map(
            lambda table, x: (table == x[None]).reshape(len(table), -1).all(1), solution[0], observation
        )
        return jnp.stack(jax.tree.leaves(same)).all(0).argmax()

    def step(carry, chosen):
        env_state, observation = carry
        key, action, stray = chosen
        if solution.action is not None:
            best = jnp.asarray(solution.action)[jax.vmap(row)(observation)]
            action = jnp.where(stray.reshape(-1, *[1] * (best.ndim - 1)), action, best)
        env_state, outcome = environment.step(env_state, action, key)
        return (env_state, outcome.observation), (observation, action, outcome)

    actions = uniform_action(probe.action_space, random.key(2), STEPS * COPIES)
    stray = np.random.default_rng(0).random((STEPS, COPIES)) < np.where(np.arange(COPIES) < COPIES // 2, 0, 0.5)
    chosen = random.split(random.key(0), STEPS), actions.reshape(STEPS, COPIES, *actions.shape[1:]), stray
    played = jax.jit(lambda key, chosen: lax.scan(step, environment.reset(key), chosen)[1])(random.key(1), chosen)
    return Played(probe, solution, *jax.tree.map(np.asarray, played))


def found(table, observation) -> np.ndarray:
    """[T, N, K] where an observation is one of the K of a table."""
    rows = [x.reshape(*x.shape[:2], 1, -1) for x in jax.tree.leaves(observation)]
    columns = [x.reshape(len(x), -1) for x in jax.tree.leaves(table)]
    return np.all([(x == column).all(-1) for x, column in zip(rows, columns, strict=True)], axis=0)


def backup(played: Played) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(known, V(observation), r + gamma V(next)) [T, N]: known where the solution speaks of both."""
    _, solution, observation, _, outcome = played
    here, there = found(solution.observation, observation), found(solution.observation, outcome.next_observation)
    known = here.any(-1) & (there.any(-1) | outcome.terminated)
    bootstrap = np.where(outcome.terminated, 0, GAMMA * (there @ solution.value))
    return known, here @ solution.value, outcome.reward + bootstrap


@pytest.mark.parametrize("probe", cases())
def test_the_best_policys_values_obey_bellmans_equation_and_its_return_is_the_optimum(probe):
    played = play(probe)
    known, value, expected = (x[:, : COPIES // 2] for x in backup(played))
    assert known.mean() > (0.8 if isinstance(probe, ResetSentinel) else 0.999)
    np.testing.assert_allclose(value[known], expected[known], rtol=1e-5, atol=1e-5)

    outcome = played.outcome
    done = outcome.terminated | outcome.truncated
    rewards = [np.split(outcome.reward[:, i], np.flatnonzero(done[:, i]) + 1)[:-1] for i in range(COPIES // 2)]
    if isinstance(probe, UnevenLengths):  # of all that finish in a fixed time, short episodes are too many
        rewards = [episodes[:1] for episodes in rewards]
    returns = np.array([episode.sum() for episodes in rewards for episode in episodes])
    error = 4 * returns.std() / np.sqrt(len(returns)) + 1e-5
    assert abs(returns.mean() - probe.optimal_return) < error


@pytest.mark.parametrize("probe", cases())
def test_no_other_action_is_worth_more(probe):
    played = play(probe)
    solution = played.solution
    known, value, expected = backup(played)
    assert (expected <= value + 1e-5)[known].all()
    if solution.action is None:
        np.testing.assert_allclose(expected[known], value[known], rtol=1e-5)
        return
    best = solution.action[found(solution.observation, played.observation).argmax(-1)]
    right = np.isclose(played.action, best, atol=0.01).reshape(*known.shape, -1).all(-1)
    assert (known & ~right).any()
    assert (expected < value - 1e-6)[known & ~right].all()


@pytest.mark.parametrize("probe", cases())
def test_observations_and_solutions_are_what_the_space_promises(probe):
    _, solution, observation, _, _ = play(probe)
    seen, known = jax.tree.map(lambda x: x[0, 0], observation), jax.tree.map(lambda x: x[0], solution.observation)
    for one in (seen, known):
        kept = plain(probe.observation_space, one)
        assert jax.tree.map(lambda x: x.dtype, kept) == jax.tree.map(lambda x: x.dtype, one)
    assert solution.value.dtype == np.float64
    count = len(solution.value)
    assert all(len(x) == count for x in jax.tree.leaves((solution.observation, solution.action)))
    if solution.action is not None and isinstance(probe.action_space, spaces.Box):
        assert (np.abs(solution.action) <= 1).all()
    elif solution.action is not None:
        assert all(probe.action_space.contains(action) for action in solution.action)
    assert dataclasses.replace(probe) == probe
    assert hash(dataclasses.replace(probe)) == hash(probe)


def test_the_endless_reward_is_cut_short_after_eight_steps_and_never_ends():
    outcome = play(PROBES["P6"][0]).outcome
    np.testing.assert_array_equal(outcome.truncated[:, 0], np.arange(1, STEPS + 1) % 8 == 0)
    assert not outcome.terminated.any()
    np.testing.assert_allclose(PROBES["P6"][0].solution(0.99).value, 100)


def test_the_same_trajectory_is_worth_gamma_times_the_rest_more_if_it_is_only_cut_short():
    probe = PROBES["P7"][0]
    ended, cut, rest = probe.solution(GAMMA).value
    assert cut - ended == pytest.approx(GAMMA * rest)
    _, _, observation, _, outcome = play(probe)
    assert outcome.truncated.all()
    np.testing.assert_array_equal(outcome.terminated, observation[..., 1] == 0)
    np.testing.assert_array_equal(outcome.next_observation, np.broadcast_to([0, 0, 1], observation.shape))


def test_a_reset_sentinel_is_acted_on_but_nothing_ever_leads_to_it():
    probe = PROBES["P8"][0]
    _, _, observation, _, outcome = play(probe)
    assert (observation == probe.sentinel).mean() == pytest.approx(1 / 8)
    assert (outcome.observation == probe.sentinel).sum() == outcome.truncated.sum()
    np.testing.assert_array_equal(outcome.next_observation, 1)


def test_a_lopsided_actions_optimum_is_reached_through_the_real_bounds():
    for probe in PROBES["P10"]:
        rewards = play(probe).outcome.reward
        np.testing.assert_allclose(rewards[:, : COPIES // 2], 1, atol=1e-6)
        assert rewards.min() < -0.5


def test_images_are_all_black_or_all_white():
    images = play(PROBES["P12"][0]).observation.reshape(-1, 36 * 36)
    assert images.dtype == np.uint8
    assert set(np.unique(images)) == {0, 255}
    assert (images.std(1) == 0).all()


def test_uneven_lengths_are_uniform_and_every_copy_has_its_own():
    done = play(PROBES["P16"][0]).outcome.terminated
    assert len({done[:, i].tobytes() for i in range(COPIES)}) == COPIES
    first = done.argmax(0) + 1
    assert set(first) == set(range(1, 9))


@pytest.mark.parametrize("continuous", [False, True])
def test_the_cue_pays_whoever_remembers_it_and_nobody_else(continuous):
    environment = Vectorized(Cue(continuous=continuous), COPIES)

    def step(carry, key):
        env_state, observation, cue = carry
        cue = jnp.where(observation[:, 0] != 0, observation[:, 0], cue)
        remembering = jnp.arange(COPIES) < COPIES // 2
        way = jnp.where(remembering, cue, 1.0)
        action = way[:, None] if continuous else (way > 0).astype(jnp.int32)
        env_state, outcome = environment.step(env_state, action, key)
        return (env_state, outcome.observation, cue), (observation, outcome)

    def play(key):
        return lax.scan(step, (*environment.reset(key), jnp.zeros(COPIES)), random.split(key, 40))[1]

    observation, outcome = jax.tree.map(np.asarray, jax.jit(play)(random.key(0)))
    paid = outcome.terminated
    np.testing.assert_array_equal(np.flatnonzero(paid[:, 0]), [7, 15, 23, 31, 39])
    np.testing.assert_array_equal(observation[..., 1] == 1, paid)
    assert (observation[::8, :, 0] != 0).all()
    assert not np.delete(observation[..., 0], np.s_[::8], 0).any()
    assert not outcome.reward[~paid].any()
    reward = outcome.reward[paid].reshape(5, COPIES)
    assert (reward[:, : COPIES // 2] == Cue.optimal_return).all()
    assert abs(reward[:, COPIES // 2 :].mean()) < 0.3


def test_the_worlds_on_the_host_are_those_that_are_compiled():
    cue, cartpole = CueOnHost(), position_only_cartpole()
    observation, _ = cue.reset(seed=0)
    shown, rewards = observation[0], []
    for _ in range(8):
        observation, reward, terminated, _, _ = cue.step(int(shown > 0))
        rewards.append(reward)
    assert (rewards, terminated) == ([0.0] * 7 + [1.0], True)
    assert cartpole.observation_space == PositionOnlyCartPole.observation_space
    hidden, _ = cartpole.reset(seed=0)
    full = cartpole.unwrapped.state
    np.testing.assert_array_equal(hidden, np.float32([full[0], full[2]]))
    np.testing.assert_array_equal(PositionOnlyCartPole().observe(jnp.float32(full)), hidden)
