"""What `Vectorized` promises of its copies: flags, resets, randomness, types, and errors that say what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import lax, random

from thorndike.environments.classic_control import CartPole, Pendulum
from thorndike.environments.functional import FunctionalEnvironment, Vectorized
from thorndike.environments.tabular import LinearQuadratic
from thorndike.errors import EnvironmentFault, SettingError, UnsuitableError


@dataclass(frozen=True)
class Diary:
    """Episodes with a random name that last 3 to 10 steps: every observation says of which episode and step it is."""

    max_steps: int | None = 7
    observation_space: ClassVar = spaces.Dict(
        {
            "name": spaces.Box(0, 2**31 - 1, (), np.int32),
            "time": spaces.Tuple((spaces.Discrete(100), spaces.Box(0, 99, (2,)))),
        }
    )
    action_space: ClassVar = spaces.Discrete(3, start=5)

    def initial(self, key):
        name_key, length_key = random.split(key)
        name = (random.bits(name_key) >> 1).astype(jnp.int32)
        length = (3 + random.bits(length_key) % 8).astype(jnp.int32)
        return {"name": name, "step": jnp.int32(0), "length": length}

    def observe(self, state):
        return {"name": state["name"], "time": (state["step"], jnp.full(2, state["step"], jnp.float32))}

    def transition(self, state, action, key):
        state = state | {"step": state["step"] + 1}
        return state, action + 0.5, state["step"] == state["length"]


@partial(jax.jit, static_argnums=(0, 2))
def run(environment: Vectorized, key, length: int):
    """(observations [T, N] acted on, steps [T, N]) with all actions 1."""
    space = environment.action_space
    action = jnp.ones((environment.num_environments, *space.shape), jnp.int32 if space.dtype.kind == "i" else None)

    def step(carry, t):
        env_state, observation = carry
        env_state, outcome = environment.step(env_state, action, random.fold_in(key, t))
        return (env_state, outcome.observation), (observation, outcome)

    return lax.scan(step, environment.reset(random.fold_in(key, length)), jnp.arange(length))[1]


@pytest.fixture(scope="module")
def diary():
    return jax.tree.map(np.asarray, run(Vectorized(Diary(), 5), random.key(0), 300))


def test_copies_restart_exactly_where_an_episode_ended(diary):
    _, outcome = diary
    done = outcome.terminated | outcome.truncated
    assert done.sum() > 5 * 300 / 8
    np.testing.assert_array_equal(outcome.observation["time"][0] == 0, done)


def test_next_observation_is_what_the_action_led_to_and_never_a_reset(diary):
    observation, outcome = diary
    np.testing.assert_array_equal(outcome.next_observation["name"], observation["name"])
    np.testing.assert_array_equal(outcome.next_observation["time"][0], observation["time"][0] + 1)
    running = ~(outcome.terminated | outcome.truncated)
    for following, true in zip(*map(jax.tree.leaves, (outcome.observation, outcome.next_observation)), strict=True):
        np.testing.assert_array_equal(following[running], true[running])
    for acted_on, following in zip(jax.tree.leaves(observation), jax.tree.leaves(outcome.observation), strict=True):
        np.testing.assert_array_equal(acted_on[1:], following[:-1])


def test_truncation_comes_at_the_limit_alone_whether_or_not_the_task_ended(diary):
    _, outcome = diary
    step = outcome.next_observation["time"][0]
    np.testing.assert_array_equal(outcome.truncated, step == 7)
    assert (outcome.terminated & outcome.truncated).any()
    assert (outcome.terminated & ~outcome.truncated).any()
    assert (~outcome.terminated & outcome.truncated).any()


def test_without_a_limit_nothing_is_truncated():
    _, outcome = run(Vectorized(Diary(max_steps=None), 4), random.key(1), 100)
    assert not outcome.truncated.any()
    assert int(outcome.next_observation["time"][0].max()) == 10


def test_every_copy_and_every_episode_draws_its_own_randomness(diary):
    observation, outcome = diary
    names = observation["name"][observation["time"][0] == 0]
    assert len(np.unique(names)) == len(names) > 100
    lengths = np.bincount(outcome.next_observation["time"][0][outcome.terminated], minlength=8)
    assert (lengths[3:8] > 0).all()


def test_moving_and_resetting_draw_different_numbers():
    @dataclass(frozen=True)
    class Draw:
        """Draws from its key and from some that are split off it, for which JAX may have used the same numbers."""

        max_steps: int | None = 1
        observation_space: ClassVar = spaces.Box(0.0, 1.0, (5,))
        action_space: ClassVar = spaces.Discrete(2)

        def initial(self, key):
            return jax.vmap(random.uniform)(jnp.append(random.split(key, 4), key))

        def observe(self, state):
            return state

        def transition(self, state, action, key):
            return self.initial(key), 0.0, False

    with jax.debug_key_reuse(False):
        _, outcome = run(Vectorized(Draw(), 4), random.key(0), 20)
    drawn = np.concatenate([np.ravel(outcome.observation), np.ravel(outcome.next_observation)])
    assert len(np.unique(drawn)) >= len(drawn) - 1  # 800 floats of 23 bits: hardly any two are alike


@pytest.mark.parametrize("environment", [Diary(), LinearQuadratic()])
def test_a_run_depends_on_its_key_alone_beside_others_or_not(environment):
    environment, keys = Vectorized(environment, 3), random.split(random.key(3), 2)
    runs = [run(environment, key, 60) for key in keys]
    together = jax.jit(jax.vmap(lambda key: run(environment, key, 60)))(keys)
    for i, alone in enumerate(runs):
        for x, y in zip(*map(jax.tree.leaves, (alone, together)), strict=True):
            np.testing.assert_allclose(x, y[i], rtol=1e-5, atol=1e-5)
    assert not np.array_equal(*(jax.tree.leaves(one)[0] for one in runs))


@dataclass(frozen=True)
class DearDiary(Diary):
    reset_block: int = 2


@pytest.mark.parametrize("block", [2, 50])
def test_new_episodes_drawn_in_blocks_are_those_drawn_all_at_once(diary, block):
    in_blocks = run(Vectorized(DearDiary(reset_block=block), 5), random.key(0), 300)
    for x, y in zip(*map(jax.tree.leaves, (diary, in_blocks)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_new_episodes_drawn_in_blocks_beside_other_runs_are_those_of_the_run_alone():
    keys, environment = random.split(random.key(0), 2), Vectorized(DearDiary(), 5)
    together = jax.jit(jax.vmap(lambda key: run(environment, key, 30)))(keys)
    for i, key in enumerate(keys):
        for x, y in zip(*map(jax.tree.leaves, (run(environment, key, 30), together)), strict=True):
            np.testing.assert_array_equal(x, y[i])


def test_no_more_blocks_are_drawn_than_copies_have_ended():
    drawn = []

    @dataclass(frozen=True)
    class Noted(DearDiary):
        def initial(self, key):
            jax.debug.callback(lambda: drawn.append(1))  # once for all copies that are drawn together
            return super().initial(key)

    outcome = jax.block_until_ready(run(Vectorized(Noted(), 5), random.key(0), 40))[1]
    ended = np.asarray(outcome.terminated | outcome.truncated).sum(1)
    jax.effects_barrier()
    assert {0, 1, 3} <= set(ended)
    assert len(drawn) == 1 + np.ceil(ended / 2).sum()


def test_without_restarts_first_episodes_are_the_same_and_their_ends_are_waited_at(diary):
    _, outcome = diary
    waiting = run(Vectorized(Diary(), 5, restarts=False), random.key(0), 300)[1]
    done = outcome.terminated | outcome.truncated
    for copy, end in enumerate(done.argmax(0)):
        until = slice(0, end + 1)
        for x, y in zip(
            *map(jax.tree.leaves, (outcome._replace(observation=()), waiting._replace(observation=()))), strict=True
        ):
            np.testing.assert_array_equal(x[until, copy], y[until, copy])
        after = jax.tree.map(lambda x, at=(slice(end, None), copy): x[at], waiting)
        assert (after.terminated | after.truncated).all()
        for x, y in zip(*map(jax.tree.leaves, (after.observation, after.next_observation)), strict=True):
            np.testing.assert_array_equal(x, y)
            assert (x == x[:1]).all()


def test_it_is_hashable_and_equal_by_value():
    def make(n=4, **arguments):
        return Vectorized(CartPole(**arguments), n)

    assert make() == make()
    assert hash(make()) == hash(make())
    assert len({make(), make(5), make(max_steps=9), Vectorized(Pendulum(), 4)}) == 4

    reset = jax.jit(Vectorized.reset, static_argnums=0)
    reset(make(), random.key(0))
    reset(make(), random.key(1))
    assert reset._cache_size() == 1
    reset(make(5), random.key(1))
    assert reset._cache_size() == 2


def test_choices_count_from_the_start_of_their_space(diary):
    np.testing.assert_array_equal(diary[1].reward, 6.5)


def test_a_state_may_hold_a_random_key():
    @dataclass(frozen=True)
    class Keyed(LinearQuadratic):
        def initial(self, key):
            return super().initial(random.fold_in(key, 0)), random.fold_in(key, 1)

        def observe(self, state):
            return state[0]

        def transition(self, state, action, key):
            moved, reward, terminated = super().transition(state[0], action, random.fold_in(state[1], 0))
            return (moved, random.fold_in(state[1], 1)), reward, terminated

    with jax.debug_key_reuse(False):  # JAX takes a key that `where` has chosen for used
        _, outcome = run(Vectorized(Keyed(max_steps=3), 4), random.key(0), 9)
    assert len(np.unique(outcome.next_observation)) == 9 * 4


def test_numbers_have_32_bits_and_strong_types_even_under_x64():
    @dataclass(frozen=True)
    class Numbers:
        """A state of plain Python numbers, and answers of whatever type."""

        max_steps: int | None = None
        observation_space: ClassVar = spaces.Box(-9.0, 9.0, (), np.float64)
        action_space: ClassVar = spaces.Discrete(2)

        def initial(self, key):
            return 0.0

        def observe(self, state):
            return state * 2

        def transition(self, state, action, key):
            return state + 1, action, state > 3

    def check():
        environment = Vectorized(Numbers(), 2)
        env_state, observation = environment.reset(random.key(0))
        step = jax.jit(environment.step)
        for t in range(3):
            env_state, outcome = step(env_state, jnp.ones(2, jnp.int32), random.key(t))
        assert step._cache_size() == 1
        assert observation.dtype == outcome.observation.dtype == outcome.next_observation.dtype == jnp.float32
        assert outcome.reward.dtype == jnp.float32
        assert outcome.terminated.dtype == outcome.truncated.dtype == bool
        assert not any(x.weak_type for x in jax.tree.leaves((env_state, outcome)))

    for x64 in (False, True):
        with jax.enable_x64(x64):
            check()


@dataclass(frozen=True)
class DearCartPole(CartPole):
    reset_block: ClassVar = 2


@pytest.mark.parametrize("environment", [CartPole(), LinearQuadratic(), DearCartPole()])
def test_no_key_is_used_twice_beside_other_runs_or_not(environment):
    environment = Vectorized(environment, 2)

    def two_steps(key):
        reset_key, *keys = random.split(key, 3)
        env_state, _ = environment.reset(reset_key)
        for key in keys:
            env_state, _ = environment.step(env_state, jnp.zeros((2, *environment.action_space.shape), int), key)
        return env_state

    with jax.debug_key_reuse(True):
        jax.eval_shape(jax.jit(two_steps), random.key(0))
        jax.jit(jax.vmap(two_steps)).lower(random.split(random.key(0), 3))


@dataclass(frozen=True)
class Liar:
    """Promises two floats, observes `given`."""

    given: str
    max_steps: int | None = None
    observation_space: ClassVar = spaces.Box(-1.0, 1.0, (2,))
    action_space: ClassVar = spaces.Discrete(2)

    def initial(self, key):
        return jnp.zeros(())

    def observe(self, state):
        wrong = {"shape": jnp.zeros(3), "kind": jnp.zeros(2, complex), "structure": {"a": jnp.zeros(2)}}
        return wrong[self.given]

    def transition(self, state, action, key):
        return state, 0.0, False


@pytest.mark.parametrize("given", ["shape", "kind", "structure"])
def test_observations_that_break_the_promise_of_their_space_are_an_error(given):
    with pytest.raises(EnvironmentFault, match=r"Liar\.observe gave .* promises float32\[2\]"):
        Vectorized(Liar(given), 2).reset(random.key(0))


@dataclass(frozen=True)
class Odd:
    """Sees a count and a flag, and fails where it is told to."""

    failing: str = ""
    flag: Any = False
    seen: type = int
    max_steps: int | None = None
    observation_space: ClassVar = spaces.Box(-1.0, 1.0, (2,))
    action_space: ClassVar = spaces.Box(2, 5, (2,), np.int8)

    def initial(self, key):
        self.fail_in("initial")
        return jnp.zeros(2, jnp.int8)

    def observe(self, state):
        self.fail_in("observe")
        return state.astype(self.seen)

    def transition(self, state, action, key):
        self.fail_in("transition")
        return action, 0, self.flag

    def fail_in(self, method):
        if method == self.failing:
            raise KeyError(method)


def step_of(environment):
    state, _ = environment.reset(random.key(0))
    return environment.step(state, jnp.zeros((2, 2), jnp.int32), random.key(0))[1]


@pytest.mark.parametrize("method", ["initial", "observe", "transition"])
def test_whatever_a_method_raises_is_a_fault_of_that_method(method):
    with pytest.raises(EnvironmentFault, match=rf"Odd\.{method}: KeyError: '{method}'"):
        step_of(Vectorized(Odd(method), 2))


@pytest.mark.parametrize("seen", [int, bool, jnp.uint8])
def test_whole_numbers_and_booleans_are_taken_for_floats(seen):
    assert step_of(Vectorized(Odd(seen=seen), 2)).observation.dtype == jnp.float32


def test_floats_are_not_taken_for_a_flag():
    with pytest.raises(EnvironmentFault, match=r"must give True or False as terminated, gave float\d\d"):
        step_of(Vectorized(Odd(flag=0.0), 2))


def test_whole_numbers_within_bounds_are_acted_on_as_choices_in_their_own_type():
    environment = Vectorized(Odd(), 2)
    assert environment.action_space == spaces.MultiDiscrete([4, 4], start=[2, 2])
    np.testing.assert_array_equal(step_of(environment).observation, 2)


def test_settings_that_cannot_work_are_refused_at_once():
    @dataclass(frozen=True)
    class Unhashable(CartPole):
        table: Any = field(default_factory=lambda: [1, 2])

    with pytest.raises(SettingError, match="num_environments"):
        Vectorized(CartPole(), 0)
    with pytest.raises(SettingError, match="max_steps"):
        Vectorized(CartPole(max_steps=0), 2)
    with pytest.raises(UnsuitableError, match="hashable"):
        Vectorized(Unhashable(), 2)


def test_functional_environments_are_told_apart_from_others():
    assert isinstance(CartPole(), FunctionalEnvironment)
    assert not isinstance(spaces.Discrete(2), FunctionalEnvironment)
