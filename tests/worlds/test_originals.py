"""Every suite's environments move as the suite's own raw step does, and end where and as it says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, random
from originals import CASES, original

from thorndike import compilation, masks
from thorndike.environments import make, suites
from thorndike.spaces import to_real, uniform_action

if not any(suite.installed for suite in suites.SUITES.values()):
    pytest.skip("no suite is installed: make test-worlds", allow_module_level=True)

pytestmark = pytest.mark.keras  # suites promote ranks


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_moves_and_ends_as_the_suites_own_step_does(case):
    if not case.installed:
        pytest.skip(f"{case.suite} is not installed")
    environment, key = make(case.name, case.copies, **case.arguments), random.key(1)
    first, actions, ours = jax.tree.map(np.asarray, rolled(environment, key, case.steps, case.legal))
    reset, step = (compilation.jit(jax.vmap(f)) for f in original(case, environment.environment.made))
    state, observation = reset(plain(random.fold_in(key, case.steps), case.copies))
    same(first, observation, case.within)
    lengths, ends = np.zeros(case.copies, int), {"terminated": 0, "truncated": 0}
    for t in range(case.steps):
        step_key = random.fold_in(random.fold_in(key, t), 1)
        action = to_real(environment.action_space, jnp)(actions[t])
        theirs = step(state, action, plain(random.fold_in(step_key, 0), case.copies))
        mine = jax.tree.map(lambda x, t=t: x[t], ours)
        same(mine.next_observation, theirs.observation, case.within)
        same(mine.reward, theirs.reward, case.within)
        lengths += 1
        done = mine.terminated | mine.truncated
        np.testing.assert_array_equal(mine.truncated, lengths >= environment.max_steps)
        own = mine.terminated if case.suite == "pgx" else done  # pgx has no time limit
        np.testing.assert_array_equal(np.asarray(theirs.done), own)
        if theirs.truncated is not None and case.suite != "pgx":  # some say either where both are true
            np.testing.assert_array_equal(
                np.asarray(theirs.truncated) & ~mine.terminated, mine.truncated & ~mine.terminated
            )
        ends["terminated"] += int(mine.terminated.sum())
        ends["truncated"] += int((mine.truncated & ~mine.terminated).sum())
        lengths[done] = 0
        state, observation = theirs.state, theirs.observation
        if done.any():
            fresh = reset(plain(random.fold_in(step_key, 1), case.copies))
            state, observation = where(done, fresh, (state, observation))
        same(mine.observation, observation, case.within)
    assert all(ends[kind] >= 20 for kind in case.ends), ends
    assert case.steps * case.copies >= 1000


def rolled(environment, key, length, legal):
    """The first observation [N], and with random actions so many actions and steps, [T, N]."""

    copies = environment.num_environments

    @compilation.jit
    def roll(key):
        def step(carry, t):
            env_state, observation = carry
            step_key = random.fold_in(key, t)
            mask = masks.of(observation) if legal else None
            action = uniform_action(environment.action_space, random.fold_in(step_key, 0), copies, mask)
            env_state, outcome = environment.step(env_state, action, random.fold_in(step_key, 1))
            return (env_state, outcome.observation), (action, outcome)

        env_state, observation = environment.reset(random.fold_in(key, length))
        return observation, *lax.scan(step, (env_state, observation), jnp.arange(length))[1]

    return roll(key)


def plain(key, copies):
    return random.key_data(random.split(key, copies))


def where(done, fresh, reached):
    def chosen(new, old):
        return jnp.where(done.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(chosen, fresh, reached)


def same(ours, theirs, within):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float64), np.asarray(y, np.float64), rtol=0, atol=within)
