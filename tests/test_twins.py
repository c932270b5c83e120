"""The compiled classic control against the installed Gymnasium: every wall, goal, limit, time limit and first state."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import stats

from thorndike.environments.classic_control import TWINS, MountainCar, Pendulum, not_above
from thorndike.environments.functional import Vectorized

CASES = {
    "CartPole-v1": {},
    "MountainCar-v0": {},
    "MountainCarContinuous-v0": {},
    "Pendulum-v1": {},
    "Acrobot-v1": {},
    "CartPole-v1 sutton_barto_reward": {"sutton_barto_reward": True},
    "MountainCar-v0 goal_velocity": {"goal_velocity": 0.07},
    "MountainCarContinuous-v0 goal_velocity": {"goal_velocity": 0.07},
    "Pendulum-v1 g": {"g": 9.81},
}
IDS = list(TWINS)
TOLERANCE = dict.fromkeys(IDS, 1e-5) | {"Acrobot-v1": 1e-3}  # of float32


class Answers(NamedTuple):
    """What Gymnasium says of each of K states and actions."""

    states: np.ndarray
    actions: np.ndarray
    observations: np.ndarray
    next_states: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray


def ask(environment, states, actions) -> Answers:
    """Put Gymnasium's environment into each state, and step it once."""
    rows = []
    for state, action in zip(states, actions, strict=True):
        environment.state = state.copy()
        environment.steps_beyond_terminated = None
        observation, reward, terminated, truncated, _ = environment.step(action)
        assert not truncated
        rows.append((observation, np.array(environment.state, np.float64), reward, terminated))
    return Answers(states, actions, *(np.array(column) for column in zip(*rows, strict=True)))


def around(*values: float) -> list[float]:
    """Each value with its neighbours, one ulp away in float32 and in float64."""
    near = []
    for value in values:
        for dtype in (np.float32, np.float64):
            x = dtype(value)
            near += [float(x), float(np.nextafter(x, dtype(-np.inf))), float(np.nextafter(x, dtype(np.inf)))]
    return near


def box(environment_id: str) -> np.ndarray:
    """At least 10,000 states on a grid over the whole box, and every product of its special values."""
    theta = 12 * 2 * math.pi / 360
    grids, special = {
        "CartPole-v1": (
            [(-4.8, 4.8, 10), (-8, 8, 10), (-2 * theta, 2 * theta, 10), (-8, 8, 10)],
            [around(-2.4, 2.4, 0), [-1, 0, 1], around(-theta, theta, 0), [-1, 0, 1]],
        ),
        "MountainCar-v0": (
            [(-1.2, 0.6, 101), (-0.07, 0.07, 101)],
            [around(-1.2, 0.5, 0.6), around(-0.07, 0, 0.07)],
        ),
        "MountainCarContinuous-v0": (
            [(-1.2, 0.6, 101), (-0.07, 0.07, 101)],
            [around(-1.2, 0.45, 0.6), around(-0.07, 0, 0.07)],
        ),
        "Pendulum-v1": (
            [(-4 * math.pi, 4 * math.pi, 101), (-8, 8, 101)],
            [around(-math.pi, 0, math.pi), around(-8, 0, 8)],
        ),
        "Acrobot-v1": (
            [(-math.pi, math.pi, 11)] * 2 + [(-4 * math.pi, 4 * math.pi, 9), (-9 * math.pi, 9 * math.pi, 11)],
            [around(-math.pi, 0, math.pi)[::3]] * 2 + [[-4 * math.pi, 0, 4 * math.pi], [-9 * math.pi, 0, 9 * math.pi]],
        ),
    }[environment_id]
    grid = np.array(list(itertools.product(*(np.linspace(*limits) for limits in grids))))
    assert len(grid) >= 10_000
    return np.concatenate([grid.astype(np.float32).astype(np.float64), list(itertools.product(*special))])


def in_float32(values: list[float]) -> list[float]:
    return [x for x in values if float(np.float32(x)) == x]


def choices(environment_id: str) -> list:
    if isinstance(TWINS[environment_id].action_space, gymnasium.spaces.Discrete):
        return list(range(TWINS[environment_id].action_space.n))
    largest = {"Pendulum-v1": 2.0, "MountainCarContinuous-v0": 1.0}[environment_id]
    return [np.array([u], np.float64) for u in (-1.25 * largest, -largest, 0.0, 0.375 * largest, largest)]


@pytest.fixture(scope="module", params=CASES)
def asked(request):
    """(id, twin, answers): one step from the whole box, with every action."""
    environment_id, arguments = request.param.split()[0], CASES[request.param]
    states, actions = box(environment_id), choices(environment_id)
    if arguments:  # the physics are seen to by the case without
        states = states[::7]
    states, indices = np.repeat(states, len(actions), axis=0), np.tile(np.arange(len(actions)), len(states))
    environment = gymnasium.make(environment_id, **arguments).unwrapped
    answers = ask(environment, states, [actions[i] for i in indices])
    return environment_id, TWINS[environment_id](**arguments), answers


def step_once(twin, answers: Answers, dtype=np.float32):
    """The twin's (next_state, observation, reward, terminated) for all of the answers' states."""

    def step(state, action):
        state, reward, terminated = twin.transition(state, action, random.key(0))
        return state, twin.observe(state), reward, terminated

    actions = np.array(answers.actions)
    with jax.enable_x64(dtype == np.float64):
        actions = jnp.asarray(actions, dtype if actions.dtype.kind == "f" else jnp.int32)
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(step))(jnp.asarray(answers.states, dtype), actions))


def distance(environment_id: str, twin, answers: Answers) -> np.ndarray:
    """[K] how far each next state is from the nearest threshold of the flag."""
    x, y, *_ = answers.next_states.T
    if environment_id == "CartPole-v1":
        theta = answers.next_states[:, 2]
        return np.minimum(np.abs(np.abs(x) - twin.x_limit), np.abs(np.abs(theta) - twin.theta_limit))
    if environment_id.startswith("MountainCar"):
        return np.minimum(np.abs(x - twin.goal), np.abs(y - twin.goal_velocity))
    if environment_id == "Acrobot-v1":
        return np.abs(-np.cos(x) - np.cos(x + y) - 1.0)
    return np.full(len(x), np.inf)


def test_every_flag_reward_and_observation_is_gymnasiums_in_float64(asked):
    environment_id, twin, answers = asked
    with jax.disable_jit():
        state, observation, reward, terminated = step_once(twin, answers, np.float64)
    assert state.dtype == np.float64
    np.testing.assert_array_equal(terminated, answers.terminated)
    assert answers.terminated.any() != (environment_id == "Pendulum-v1")
    np.testing.assert_allclose(observation, answers.observations, rtol=1e-7, atol=1e-7)
    if environment_id in ("Pendulum-v1", "MountainCarContinuous-v0"):
        np.testing.assert_allclose(reward, answers.rewards, rtol=1e-14)
    else:
        np.testing.assert_array_equal(reward, answers.rewards)
    # Gymnasium's continuous car rounds its state to float32.
    exact = 1e-7 if environment_id == "MountainCarContinuous-v0" else 1e-11
    np.testing.assert_allclose(state, answers.next_states, rtol=exact, atol=exact)


def test_float32_agrees_but_within_1e5_of_a_threshold(asked):
    environment_id, twin, answers = asked
    representable = (answers.states == answers.states.astype(np.float32)).all(1)
    answers = Answers(*(np.array(column)[representable] for column in answers))
    _, observation, reward, terminated = step_once(twin, answers)
    assert observation.dtype == reward.dtype == np.float32
    clear = distance(environment_id, twin, answers) > 1e-5
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(terminated[clear], answers.terminated[clear])
    tolerance = TOLERANCE[environment_id]
    np.testing.assert_allclose(observation, answers.observations, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(reward[clear], answers.rewards[clear], rtol=1e-5, atol=1e-5)


def test_float32_is_exact_at_cartpoles_limits_with_zero_velocity():
    theta_limit = 12 * 2 * math.pi / 360
    values = in_float32(around(2.4, -2.4, theta_limit, -theta_limit))
    states = np.array([[x, 0, 0, 0] for x in values] + [[0, 0, x, 0] for x in values])
    answers = ask(gymnasium.make("CartPole-v1").unwrapped, np.repeat(states, 2, 0), [0, 1] * len(states))
    assert 0 < answers.terminated.sum() < len(answers.terminated)
    np.testing.assert_array_equal(step_once(TWINS["CartPole-v1"](), answers)[-1], answers.terminated)


@pytest.mark.parametrize("environment_id", ["MountainCar-v0", "MountainCarContinuous-v0"])
def test_float32_is_exact_at_the_mountain_cars_wall_and_goal(environment_id):
    goal = TWINS[environment_id].goal
    positions = in_float32(around(-1.2, goal, 0.6))
    states = np.array(list(itertools.product(positions, np.float32([-0.07, -0.01, 0, 0.01, 0.07]).tolist())))
    actions = choices(environment_id)
    states, indices = np.repeat(states, len(actions), axis=0), np.tile(np.arange(len(actions)), len(states))
    answers = ask(gymnasium.make(environment_id).unwrapped, states, [actions[i] for i in indices])
    state, _, reward, terminated = step_once(TWINS[environment_id](), answers)
    at_wall = answers.next_states[:, 0].astype(np.float32) == np.float32(-1.2)
    assert at_wall.any()
    assert (answers.next_states[at_wall, 1] == 0).all()
    np.testing.assert_array_equal(state[at_wall], answers.next_states[at_wall].astype(np.float32))
    np.testing.assert_array_equal(terminated, answers.terminated)
    np.testing.assert_allclose(reward, answers.rewards, rtol=1e-6)


def test_a_limit_is_rounded_so_that_comparisons_mean_the_same_in_float32():
    for limit in (2.4, 12 * 2 * math.pi / 360, 0.45, 0.5, 0.6, 0.07, -1.2):
        constant = not_above(limit, np.float32)
        assert constant.dtype == np.float32
        assert float(constant) <= limit < float(np.nextafter(constant, np.float32(np.inf)))
        assert not_above(limit, np.float64) == limit


@pytest.mark.parametrize("environment_id", IDS)
def test_spaces_and_time_limit_are_gymnasiums(environment_id):
    environment, twin = gymnasium.make(environment_id), TWINS[environment_id]()
    assert twin.observation_space == environment.observation_space
    assert twin.action_space == environment.action_space
    assert twin.max_steps == environment.spec.max_episode_steps


def controller(environment_id: str, reach: bool):
    """Actions that keep an episode going to its time limit or, with `reach`, that end it before."""
    return {
        "CartPole-v1": lambda o: 0 if reach else int(o[2] + 0.3 * o[3] + 0.02 * o[0] + 0.05 * o[1] > 0),
        "MountainCar-v0": lambda o: (2 if o[1] >= 0 else 0) if reach else 1,
        "MountainCarContinuous-v0": lambda o: np.sign(o[1:2]) if reach else np.zeros(1, np.float32),
        "Pendulum-v1": lambda o: np.array([2.0 * np.sin(5 * o[2])], np.float32),
        "Acrobot-v1": lambda o: (2 if o[4] < 0 else 0) if reach else 1,
    }[environment_id]


@pytest.mark.parametrize("reach", [False, True])
@pytest.mark.parametrize("environment_id", IDS)
def test_a_whole_episode_is_gymnasiums_step_by_step_to_its_last_flag(environment_id, reach):
    environment, choose = gymnasium.make(environment_id), controller(environment_id, reach)
    observation, _ = environment.reset(seed=4)
    rows, done = [], False
    while not done:
        before, action = np.array(environment.unwrapped.state, np.float64), choose(observation)
        observation, reward, terminated, truncated, _ = environment.step(action)
        after = np.array(environment.unwrapped.state, np.float64)
        rows.append((before, action, observation, after, reward, terminated))
        done = terminated or truncated
    answers = Answers(*(np.array(column) for column in zip(*rows, strict=True)))
    twin = TWINS[environment_id]()
    assert truncated == (len(rows) == twin.max_steps)
    assert terminated == (reach and environment_id != "Pendulum-v1")
    _, observations, rewards, flags = step_once(twin, answers)
    np.testing.assert_array_equal(flags, answers.terminated)
    tolerance = TOLERANCE[environment_id]
    np.testing.assert_allclose(observations, answers.observations, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(rewards, answers.rewards, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("limit", [1, 7, 200])
def test_truncation_comes_at_the_limit_and_not_a_step_before_or_after(limit):
    environment = Vectorized(Pendulum(max_steps=limit), 2)
    gym = gymnasium.make("Pendulum-v1", max_episode_steps=limit)

    def step(env_state, t):
        env_state, outcome = environment.step(env_state, jnp.zeros((2, 1)), random.fold_in(random.key(0), t))
        return env_state, outcome.truncated

    env_state, _ = environment.reset(random.key(1))
    truncated = np.asarray(jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(2 * limit + 1)))(env_state)[1])
    theirs = []
    while len(theirs) < 2 * limit + 1:
        gym.reset()
        while len(theirs) < 2 * limit + 1 and not (theirs[-1:] == [True] and gym._elapsed_steps == limit):
            theirs.append(gym.step(np.zeros(1, np.float32))[3])
    np.testing.assert_array_equal(truncated, np.array([theirs, theirs]).T)


def test_an_episode_may_end_for_both_reasons_in_one_step():
    twin = MountainCar(max_steps=1)
    environment = Vectorized(twin, 2)
    env_state, _ = environment.reset(random.key(0))
    env_state = env_state._replace(state=jnp.array([[0.49, 0.05], [-0.5, 0.0]]))
    _, outcome = jax.jit(environment.step)(env_state, jnp.array([2, 2]), random.key(1))
    assert outcome.terminated.tolist() == [True, False]
    assert outcome.truncated.tolist() == [True, True]


@pytest.mark.parametrize("environment_id", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_actions_in_minus_one_to_one_reach_the_real_bounds(environment_id):
    twin = TWINS[environment_id]()
    environment = Vectorized(twin, 5)
    env_state, _ = environment.reset(random.key(0))
    canonical = jnp.array([[-3.0], [-1.0], [0.5], [1.0], [3.0]])
    _, outcome = jax.jit(environment.step)(env_state, canonical, random.key(1))
    gym = gymnasium.make(environment_id).unwrapped
    real = np.clip(np.asarray(canonical), -1, 1) * twin.action_space.high
    answers = ask(gym, np.asarray(env_state.state, np.float64), list(real))
    np.testing.assert_allclose(outcome.next_observation, answers.observations, atol=1e-6)
    np.testing.assert_allclose(outcome.reward, answers.rewards, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("environment_id", IDS)
def test_first_states_are_distributed_as_gymnasiums(environment_id):
    count = 10_000
    gym = gymnasium.make(environment_id).unwrapped
    gym.reset(seed=3)
    theirs = np.array([gym.reset()[0] for _ in range(count)])
    environment = Vectorized(TWINS[environment_id](), count)
    ours = np.asarray(jax.jit(environment.reset)(random.key(3))[1])
    assert ours.dtype == np.float32
    for mine, other in zip(ours.T, theirs.T, strict=True):
        if np.ptp(other) == 0:
            np.testing.assert_array_equal(mine, other)
            continue
        assert stats.ks_2samp(mine, other).pvalue > 1e-3
        slack = np.ptp(other) * 2e-3
        assert abs(mine.min() - other.min()) < slack
        assert abs(mine.max() - other.max()) < slack
    if np.ptp(ours[:, -1]) > 0:
        assert abs(np.corrcoef(ours[:, 0], ours[:, -1])[0, 1]) < 0.05
