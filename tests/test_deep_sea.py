"""Deep Sea against its definition, and against tables that were written apart from it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from thorndike.environments import catalogue, known_ids, make
from thorndike.environments.deep_sea import DeepSea
from thorndike.environments.functional import Vectorized
from thorndike.environments.tabular import deep_sea
from thorndike.errors import SettingError, UnknownNameError


def defined(environment, actions):
    """An episode by the words of the paper: cells, rewards and ends, step by step."""
    size, column, steps = environment.size, 0, []
    for row, action in enumerate(actions):
        reward = 0.0
        if action == environment.right[row][column]:
            reward -= 0.01 / size
            if column == size - 1:
                reward += 1.0
            column = min(column + 1, size - 1)
        else:
            column = max(column - 1, 0)
        steps.append((row + 1, column, reward, row + 1 == size))
    return steps


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("one_hot", [True, False])
def test_episodes_are_what_the_definition_says(seed, one_hot):
    environment = DeepSea(size=5, seed=seed, one_hot=one_hot)
    copies = 32
    actions = np.random.default_rng(1).integers(2, size=(5, copies))
    actions[:, 0] = [environment.right[i, i] for i in range(5)]  # the way to the treasure
    expected = [defined(environment, column) for column in actions.T]
    many = Vectorized(environment, copies)
    env_state, observation = jax.jit(many.reset)(random.key(0))
    start = np.eye(25, dtype=np.float32)[0] if one_hot else 0
    np.testing.assert_array_equal(observation, np.broadcast_to(start, observation.shape))
    step = jax.jit(many.step)
    for t in range(5):
        env_state, outcome = step(env_state, jnp.asarray(actions[t], jnp.int32), random.key(t))
        cells = np.array([row * 5 + column for row, column, _, _ in (steps[t] for steps in expected)])
        seen = (np.arange(25) == cells[:, None]).astype(np.float32) if one_hot else np.minimum(cells, 25)
        np.testing.assert_array_equal(outcome.next_observation, seen)
        np.testing.assert_allclose(outcome.reward, [steps[t][2] for steps in expected], rtol=1e-6)
        np.testing.assert_array_equal(outcome.terminated, [steps[t][3] for steps in expected])
        assert not np.any(outcome.truncated)
    assert all(environment.observation_space.contains(x) for x in np.asarray(outcome.next_observation))
    np.testing.assert_array_equal(outcome.observation, np.broadcast_to(start, observation.shape))  # begun anew


def test_it_is_the_process_of_its_tables_and_earns_099_at_best():
    environment, process = DeepSea(size=6, seed=1), deep_sea(6, seed=1)
    assert process.optimal_return == pytest.approx(0.99)
    earned = process.action_values(np.zeros(37), 1.0)
    cells = np.stack(np.divmod(np.arange(36), 6), -1).astype(np.int32)
    for action in range(2):
        move = jax.vmap(lambda state, action=action: environment.transition(state, jnp.int32(action), random.key(0)))
        following, reward, terminated = map(np.asarray, move(cells))
        np.testing.assert_allclose(reward, earned[:36, action], rtol=1e-6)
        np.testing.assert_array_equal(terminated, cells[:, 0] == 5)
        to = np.where(terminated, 36, following[:, 0] * 6 + following[:, 1])
        np.testing.assert_array_equal(to, process.probability[:36, action].argmax(-1))


def test_only_one_way_leads_to_the_treasure():
    """Of all 2^5 ways; its value is what the tables' dynamic programming says."""
    environment = DeepSea(size=5, seed=3)
    returns = {
        actions: sum(reward for _, _, reward, _ in defined(environment, actions)) for actions in np.ndindex(*[2] * 5)
    }
    best = max(returns, key=returns.get)
    assert best == tuple(environment.right[i, i] for i in range(5))
    assert returns[best] == pytest.approx(0.99)
    assert sum(value > 0 for value in returns.values()) == 1
    gamma = 0.9
    values = deep_sea(5, seed=3).optimal_values(gamma)
    discounted = [gamma**t * reward for t, (_, _, reward, _) in enumerate(defined(environment, best))]
    assert values[0] == pytest.approx(sum(discounted))


def test_it_is_found_by_its_id_and_listed():
    assert make("DeepSea", 3, size=8, seed=2) == Vectorized(DeepSea(8, 2), 3)
    assert make("DeepSea", 1) == Vectorized(DeepSea(), 1)
    assert "DeepSea" in known_ids()
    (family,) = [family for family in catalogue.families() if family.quick and "DeepSea" in family.ids()]
    assert family.runs == "compiled"
    assert DeepSea(seed=None).right.all()
    with pytest.raises(UnknownNameError, match="Did you mean 'DeepSea'"):
        make("DeepSee", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1}, "size must be a whole number from 2 to 1,000, got 1"),
        ({"size": 10.0}, "size must be a whole number"),
        ({"size": True}, "size must be a whole number"),
        ({"seed": -1}, "seed must be a whole number, at least 0, or None, got -1"),
        ({"one_hot": 1}, "one_hot must be True or False"),
        ({"seeds": 3}, "has no argument 'seeds'. Did you mean 'seed'"),
    ],
)
def test_arguments_are_looked_at(arguments, message):
    with pytest.raises(SettingError, match=message):
        make("DeepSea", 1, **arguments)
