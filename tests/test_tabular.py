"""Decision processes: sampling against probabilities, optima against slow definitions."""

from __future__ import annotations

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
    deep_sea,
    garnet,
    two_states,
)
from thorndike.environments.toy_text import CliffWalking, FrozenLake
from thorndike.errors import SettingError

PROCESSES = [
    garnet(0),
    garnet(7),
    chain(),
    two_states(),
    CliffWalking().process,
    FrozenLake().process,
    deep_sea(6),
    deep_sea(5, seed=3),
]
NAMES = [process.name for process in PROCESSES]


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.97])
@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
def test_optimal_values_are_those_of_value_iteration(process, gamma):
    values = np.zeros(process.states)
    for _ in range(int(np.log(1e-11) / np.log(gamma)) if gamma else 1):
        values = np.array([max(worth(process, values, s, a, gamma) for a in range(process.actions))
                           for s in range(process.states)])  # fmt: skip
    np.testing.assert_allclose(process.optimal_values(gamma), values, atol=1e-8)


def worth(process, values, state, action, gamma):
    """What an action earns on average, way by way, and is followed by."""
    at = state, action
    following = np.where(process.terminated[at], 0, values[process.next_state[at]])
    return float(process.probability[at] @ (process.reward[at] + gamma * following))


@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
def test_policy_values_obey_bellmans_equation_and_the_best_policys_are_optimal(process):
    gamma = 0.95
    policy = np.random.default_rng(1).dirichlet(np.ones(process.actions), process.states)
    values = process.policy_values(policy, gamma)
    expected = [
        sum(policy[s, a] * worth(process, values, s, a, gamma) for a in range(process.actions))
        for s in range(process.states)
    ]
    np.testing.assert_allclose(values, expected, atol=1e-10)
    optimal = process.optimal_values(gamma)
    assert (values <= optimal + 1e-10).all()
    greedy = np.eye(process.actions)[process.action_values(optimal, gamma).argmax(1)]
    np.testing.assert_allclose(process.policy_values(greedy, gamma), optimal, atol=1e-9)


@pytest.mark.parametrize("process", [garnet(0), chain(), deep_sea(5, seed=3)], ids=lambda process: process.name)
def test_a_process_from_dense_tables_ends_where_it_arrives_in_a_terminal_state(process):
    """Of a chain: both ends; nothing is earned in them, and what lies beyond counts for nothing."""
    terminal = {"chain-7": [0, 6], "deep-sea-5": [25], "garnet-0": []}[process.name]
    np.testing.assert_array_equal(process.next_state, np.broadcast_to(np.arange(process.states), process.reward.shape))
    arriving, beyond = process.terminated[..., terminal], process.terminated[terminal]
    assert arriving.all()
    assert beyond.all()
    assert not process.reward[terminal].any()
    assert process.terminated.sum() == arriving.sum() + beyond.sum() - process.terminated[terminal][..., terminal].sum()
    values = process.optimal_values(0.9)
    assert not values[terminal].any()
    elsewhere = np.where(np.isin(np.arange(process.states), terminal), 99, values)
    np.testing.assert_array_equal(process.action_values(elsewhere, 0.9), process.action_values(values, 0.9))


def test_returns_are_undiscounted_and_end_at_the_time_limit():
    stay = np.tile([1.0, 0.0], (2, 1))
    assert two_states(max_steps=8).policy_return(stay) == 0.5 * 8
    assert two_states(max_steps=8).optimal_return == 0.5 * 8 + 0.5 * 7  # from the worse one a change and 7 steps
    assert np.isnan(two_states(max_steps=None).optimal_return)
    assert deep_sea(6, seed=1).optimal_return == pytest.approx(0.99)
    process = chain(5, slip=0.0, max_steps=None)
    assert process.optimal_return == 1
    right_but_from_the_first = np.eye(2)[[1, 0, 1, 1, 1]]
    assert process.policy_return(right_but_from_the_first) == pytest.approx((0.1 + 1 + 1) / 3)


@pytest.mark.parametrize("process", [garnet(3), FrozenLake().process, chain()], ids=["garnet", "frozen-lake", "chain"])
def test_transitions_are_drawn_with_their_probabilities(process):
    draws = 4000

    def outcomes(state, action, key):
        return jax.vmap(process.transition, in_axes=(None, None, 0))(state, action, random.split(key, draws))

    pairs = np.indices((process.states, process.actions)).reshape(2, -1).T
    keys = random.split(random.key(0), len(pairs))
    following, reward, terminated = jax.jit(jax.vmap(outcomes))(pairs[:, 0], pairs[:, 1], keys)
    p_values = []
    for (state, action), drawn in zip(pairs, np.asarray(following), strict=True):
        probability = np.bincount(process.next_state[state, action], process.probability[state, action], process.states)
        counts = np.bincount(drawn, minlength=process.states)
        assert counts[probability == 0].sum() == 0
        if (probability > 0).sum() > 1:
            p_values.append(stats.chisquare(counts[probability > 0], draws * probability[probability > 0]).pvalue)
    assert min(p_values) > 1e-3 / len(p_values)
    earned = np.full((*process.reward.shape[:2], process.states), np.nan)
    ended = np.zeros(earned.shape, bool)
    for at in np.argwhere(process.probability > 0):
        arriving = *at[:2], process.next_state[tuple(at)]
        earned[arriving], ended[arriving] = process.reward[tuple(at)], process.terminated[tuple(at)]
    index = (*pairs.T[..., None], np.asarray(following))
    np.testing.assert_allclose(reward, earned[index], rtol=1e-6)
    np.testing.assert_array_equal(terminated, ended[index])
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
    for broken in (0.9 * good.probability, 2 * np.eye(2)[:, None] - good.probability):
        with pytest.raises(SettingError, match="two: each row of probability"):
            Tabular("two", broken, good.next_state, good.reward, good.terminated, good.start_probability)


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
