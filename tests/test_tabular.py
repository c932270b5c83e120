"""Decision processes against Gymnasium's tables, sampling against probabilities, optima against slow definitions."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import stats

from thorndike.environments.functional import Vectorized
from thorndike.environments.tabular import (
    LinearQuadratic,
    Tabular,
    chain,
    cliff_walking,
    deep_sea,
    frozen_lake,
    garnet,
    two_states,
)
from thorndike.errors import SettingError

PROCESSES = [
    garnet(0),
    garnet(7),
    chain(),
    two_states(),
    cliff_walking(),
    frozen_lake(),
    deep_sea(6),
    deep_sea(5, seed=3),
]
NAMES = [process.name for process in PROCESSES]


@pytest.mark.parametrize(
    ("process", "gym_id"), [(frozen_lake(), "FrozenLake-v1"), (cliff_walking(), "CliffWalking-v1")]
)
def test_tables_are_gymnasiums(process, gym_id):
    theirs = gymnasium.make(gym_id).unwrapped
    probability, reward = np.zeros(process.reward.shape), np.zeros(process.reward.shape)
    for state, actions in theirs.P.items():
        for action, outcomes in actions.items():
            for p, following, r, terminated in outcomes:
                probability[state, action, following] += p
                reward[state, action, following] = r
                assert terminated == process.terminal[following]
    inside = ~process.terminal
    np.testing.assert_allclose(process.transition_probability[inside], probability[inside], atol=1e-12)
    possible = (probability > 0) & inside[:, None, None]
    np.testing.assert_array_equal(process.reward[possible], reward[possible])
    np.testing.assert_array_equal(process.start_probability, theirs.initial_state_distrib)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
def test_optimal_values_are_those_of_value_iteration(process, gamma):
    values = np.zeros(process.states)
    for _ in range(int(np.log(1e-11) / np.log(gamma)) if gamma else 1):
        following = values
        for state in range(process.states):
            if not process.terminal[state]:
                bootstrapped = process.reward[state] + gamma * np.where(process.terminal, 0, values)
                best = (process.transition_probability[state] * bootstrapped).sum(-1).max()
                following = np.where(np.arange(process.states) == state, best, following)
        values = following
    np.testing.assert_allclose(process.optimal_values(gamma), values, atol=1e-8)


@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
def test_policy_values_obey_bellmans_equation_and_the_best_policys_are_optimal(process):
    gamma = 0.95
    policy = np.random.default_rng(1).dirichlet(np.ones(process.actions), process.states)
    values = process.policy_values(policy, gamma)
    expected = np.zeros(process.states)
    for s in np.flatnonzero(~process.terminal):
        for a in range(process.actions):
            for t in range(process.states):
                after = 0 if process.terminal[t] else gamma * values[t]
                expected[s] += (
                    policy[s, a] * process.transition_probability[s, a, t] * (process.reward[s, a, t] + after)
                )
    np.testing.assert_allclose(values, expected, atol=1e-10)
    beyond = np.where(process.terminal, 99, values)  # what lies beyond an end counts for nothing
    np.testing.assert_array_equal(process.action_values(beyond, gamma), process.action_values(values, gamma))
    optimal = process.optimal_values(gamma)
    assert (values <= optimal + 1e-10).all()
    greedy = np.eye(process.actions)[process.action_values(optimal, gamma).argmax(1)]
    np.testing.assert_allclose(process.policy_values(greedy, gamma), optimal, atol=1e-9)


@pytest.mark.parametrize("process", [garnet(3), frozen_lake(), chain()], ids=["garnet", "frozen-lake", "chain"])
def test_transitions_are_drawn_with_their_probabilities(process):
    draws = 4000

    def outcomes(state, action, key):
        return jax.vmap(process.transition, in_axes=(None, None, 0))(state, action, random.split(key, draws))

    pairs = np.indices((process.states, process.actions)).reshape(2, -1).T
    keys = random.split(random.key(0), len(pairs))
    following, reward, terminated = jax.jit(jax.vmap(outcomes))(pairs[:, 0], pairs[:, 1], keys)
    p_values = []
    for (state, action), drawn in zip(pairs, np.asarray(following), strict=True):
        probability = process.transition_probability[state, action]
        counts = np.bincount(drawn, minlength=process.states)
        assert counts[probability == 0].sum() == 0
        if (probability > 0).sum() > 1:
            p_values.append(stats.chisquare(counts[probability > 0], draws * probability[probability > 0]).pvalue)
    assert min(p_values) > 1e-3 / len(p_values)
    index = (*pairs.T[..., None], np.asarray(following))
    np.testing.assert_allclose(reward, process.reward[index], rtol=1e-6)
    np.testing.assert_array_equal(terminated, process.terminal[following])
    starts = np.asarray(jax.jit(jax.vmap(process.initial))(random.split(random.key(1), draws)))
    expected = process.start_probability
    counts = np.bincount(starts, minlength=process.states)
    assert counts[expected == 0].sum() == 0
    assert (expected > 0).sum() == 1 or stats.chisquare(
        counts[expected > 0], draws * expected[expected > 0]
    ).pvalue > 1e-3


def test_the_treasure_of_the_deep_sea_is_found_by_its_solution_alone():
    process, gamma = deep_sea(6, seed=1), 0.97
    assert process.start_probability @ process.optimal_values(gamma) == pytest.approx(
        gamma**5 - sum(0.01 / 6 * gamma**t for t in range(6))
    )
    solution, environment = process.solution(gamma), Vectorized(process, 1)
    assert len(solution.value) == 6 * 7 / 2
    env_state, observation = jax.jit(environment.reset)(random.key(0))
    step, earned = jax.jit(environment.step), []
    for t in range(6):
        row = int(np.flatnonzero((solution.observation == np.asarray(observation)).all(1))[0])
        env_state, outcome = step(env_state, jnp.asarray(solution.action[row : row + 1]), random.key(t))
        observation = outcome.observation
        earned.append(float(outcome.reward[0]))
        assert bool(outcome.terminated[0]) == (t == 5)
    assert sum(earned) == pytest.approx(0.99)


def test_a_time_limit_makes_a_difference_that_no_tolerance_hides():
    """Values of the first eight steps alone lie far below those that bootstrap over the limit."""
    process, gamma = two_states(), 0.95
    within = np.zeros(2)
    for _ in range(process.max_steps):
        within = process.action_values(within, gamma).max(1)
    assert (process.optimal_values(gamma) - within).min() > 10 * 0.05 / (1 - gamma) * 0.6


def test_processes_are_equal_and_hash_by_their_tables():
    assert garnet(0) == garnet(0)
    assert hash(garnet(0)) == hash(garnet(0))
    assert garnet(0) != garnet(1)
    assert garnet(0) != garnet(0, max_steps=9)
    assert Vectorized(chain(), 3) == Vectorized(chain(), 3)
    with pytest.raises(ValueError, match="read-only"):
        garnet(0).reward[0] = 1


def test_probabilities_that_do_not_sum_to_one_are_refused():
    good = two_states()
    for broken in (0.9 * good.transition_probability, 2 * np.eye(2)[:, None] - good.transition_probability):
        with pytest.raises(SettingError, match="two: each row of transition_probability"):
            Tabular("two", broken, good.reward, good.terminal, good.start_probability)


@pytest.mark.parametrize("gamma", [0.9, 0.99])
def test_the_linear_quadratic_optimum_obeys_bellmans_equation_on_a_grid(gamma):
    system = LinearQuadratic()
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)  # exact: values are quadratic
    weights = weights / weights.sum()
    actions = np.linspace(-3, 3, 6001)
    for x in (-1.0, -0.3, 0.0, 0.7):
        following = system.a * x + system.b * actions[:, None] + system.noise * nodes
        action_values = -(system.q * x**2 + system.r * actions**2) + gamma * system.value(following, gamma) @ weights
        assert system.value(x, gamma) == pytest.approx(action_values.max(), abs=1e-6)
        assert actions[action_values.argmax()] == pytest.approx(-system.gain(gamma) * x, abs=1e-3)


def test_a_linear_policys_value_is_what_following_it_earns():
    system, gamma, gain, copies, steps = LinearQuadratic(max_steps=None), 0.9, 0.9, 2000, 100

    def step(state, key):
        state, reward, _ = jax.vmap(system.transition)(state, -gain * state, random.split(key, copies))
        return state, reward

    x = 0.8
    _, rewards = jax.jit(lambda state: jax.lax.scan(step, state, random.split(random.key(0), steps)))(
        jnp.full((copies, 1), x)
    )
    returns = gamma ** np.arange(steps) @ np.asarray(rewards, np.float64)
    assert abs(returns.mean() - system.value(x, gamma, gain)) < 4 * returns.std() / np.sqrt(copies)
    assert system.value(x, gamma, gain) < system.value(x, gamma)
    assert system.value(x, gamma, gain=-1.0) == -np.inf
