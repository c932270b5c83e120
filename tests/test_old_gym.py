"""Environments of the old Gym API: used as Gymnasium's are, an end by a time limit told from an end of the task."""

from __future__ import annotations

import sys
import types
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from jax import random

import thorndike as td
from thorndike.environments import make, old_gym
from thorndike.errors import EnvironmentFault, SettingError, UnsuitableError

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


class Old:
    """Its task ends at step `ends`; its observation is a number that only the seed decides."""

    observation_space = BOX
    action_space = spaces.Discrete(2)

    def __init__(self, ends=10**9, info=()):
        self.ends, self.info, self.seeds = ends, dict(info), []

    def seed(self, seed):
        self.seeds.append(seed)

    def reset(self):
        self.number, self.steps = (self.seeds[-1] if self.seeds else 0) % 1000 / 1000, 0
        return self.observation()

    def step(self, action):
        self.steps += 1
        return self.observation(), 1.0, self.steps >= self.ends, dict(self.info)

    def observation(self):
        return np.full(2, self.number, np.float32)


class OldTimeLimit:
    """What gym.wrappers.TimeLimit did: in its last years it said so, in its first it did not."""

    def __init__(self, env, limit, told):
        self.env, self._max_episode_steps, self._elapsed_steps, self.told = env, limit, 0, told
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(self):
        self._elapsed_steps = 0
        return self.env.reset()

    def step(self, action):
        self._elapsed_steps += 1
        observation, reward, done, info = self.env.step(action)
        if self._elapsed_steps >= self._max_episode_steps:
            if self.told:
                info["TimeLimit.truncated"] = not done
            done = True
        return observation, reward, done, info


class OldCartPole:
    """CartPole with the old API, and a time limit of its own."""

    def __init__(self):
        self.pole = CartPoleEnv()
        self.observation_space, self.action_space = self.pole.observation_space, self.pole.action_space
        self.chosen = None

    def seed(self, seed):
        self.chosen = seed

    def reset(self):
        self.steps = 0
        return self.pole.reset(seed=self.chosen)[0]

    def step(self, action):
        self.steps += 1
        observation, reward, fallen, _, info = self.pole.step(action)
        out_of_time = self.steps >= 500
        return observation, reward, fallen or out_of_time, {**info, "TimeLimit.truncated": out_of_time and not fallen}


@pytest.fixture(autouse=True)
def _as_if_nothing_was_told():
    old_gym._tell.cache_clear()


def ends(made, steps=6):
    """By step, from 1: (terminated, truncated) where an episode ended."""
    made.reset(random.key(0))
    found = {}
    for t in range(1, steps + 1):
        _, step = made.step((), np.zeros(1, np.int32))
        if step.terminated[0] or step.truncated[0]:
            found[t] = (bool(step.terminated[0]), bool(step.truncated[0]))
    return found


TASK, TIME = (True, False), (False, True)


@pytest.mark.filterwarnings("ignore:.*old Gym API")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (lambda: Old(3), {3: TASK, 6: TASK}),
        (lambda: Old(3, {"TimeLimit.truncated": True}), {3: TIME, 6: TIME}),
        (lambda: Old(3, {"TimeLimit.truncated": np.bool_(False)}), {3: TASK, 6: TASK}),
        (lambda: Old(9, {"TimeLimit.truncated": True}), {}),  # nothing has ended
        (lambda: OldTimeLimit(Old(), 4, told=True), {4: TIME}),
        (lambda: OldTimeLimit(Old(4), 4, told=True), {4: TASK}),
        (lambda: OldTimeLimit(Old(), 4, told=False), {4: TIME}),
        (lambda: OldTimeLimit(Old(3), 4, told=False), {3: TASK, 6: TASK}),
        (lambda: OldTimeLimit(OldTimeLimit(Old(), 5, told=False), 2, told=False), {2: TIME, 4: TIME, 6: TIME}),
    ],
)
def test_an_end_by_a_time_limit_is_a_truncation_and_any_other_a_termination(environment, expected):
    made = make(environment, 1)
    assert ends(made) == expected


@pytest.mark.filterwarnings("ignore:.*old Gym API")
@pytest.mark.parametrize("how", ["object", "class", "function", "id", "id with another limit"])
def test_it_works_wherever_an_environment_of_gymnasium_does(how, monkeypatch):
    module = types.ModuleType("old_module")
    monkeypatch.setitem(sys.modules, "old_module", module)
    id, arguments = "old_module:Old-v0", {}
    if how.startswith("id"):
        gymnasium.register("Old-v0", Old, max_episode_steps=5, kwargs={"ends": 9})
    if how == "id with another limit":
        arguments = {"max_episode_steps": 3, "ends": 2}
    given = {"object": Old(), "class": Old, "function": lambda: Old()}.get(how, id)
    try:
        made = make(given, 1 if how == "object" else 2, **arguments)
    finally:
        gymnasium.registry.pop("Old-v0", None)
    _, first = made.reset(random.key(1))
    assert [copy.env.seeds for copy in made.copies] == [[made._seed(i)] for i in range(made.num_environments)]
    made.step((), np.zeros(made.num_environments, np.int32))
    saved = made.save()
    np.testing.assert_array_equal(made.restore(saved), first)  # repeated from its seed
    assert made.exact
    assert made.max_steps == {"id": 5, "id with another limit": 3}.get(how)
    if how.startswith("id"):
        one = make(Old, 1)
        one.hands.environments = made.copies[:1]
        assert ends(one) == ({5: TIME} if how == "id" else {2: TASK, 4: TASK, 6: TASK})
    if how == "object":
        with pytest.raises(SettingError, match="pass the class or a function"):
            make(given, 2)


@pytest.mark.parametrize("seeded", [False, True])
def test_answers_of_the_new_api_are_taken_as_they_are(seeded, recwarn):
    """As those of gym 0.26, or of an environment that knows no Gymnasium."""

    class New(Old):
        def reset(self, *, seed=None, options=None):
            self.seeds.append(seed)
            return super().reset(), {}

        def step(self, action):
            return (*super().step(action)[:2], False, True, {})

    class Unseeded(New):
        def reset(self):
            return Old.reset(self), {}

    if seeded:
        assert ends(make(New, 1), 2) == {1: TIME, 2: TIME}
        assert not recwarn.list
    else:
        with pytest.raises(EnvironmentFault, match=r"it must accept reset\(seed=...\) too"):
            ends(make(Unseeded, 1))


def test_a_subclass_of_gymnasium_s_with_the_old_methods_is_adapted():
    half_moved = type("HalfMoved", (Old, gymnasium.Env), {})
    with pytest.warns(UserWarning, match=r"HalfMoved has the old Gym API.*info\['TimeLimit.truncated'\]"):
        assert ends(make(half_moved, 1), 1) == {}


def test_the_note_comes_once():
    made = make(Old, 2)
    made.reset(random.key(0))
    with pytest.warns(UserWarning, match="Old has the old Gym API"):
        made.step((), np.zeros(2, np.int32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ends(make(Old, 1))


def of_old_package(kind, **attributes):
    """A space as the package gym has it: known by the name of its class."""
    space = type(kind, (), {"__module__": f"gym.spaces.{kind.lower()}"})()
    space.__dict__ |= attributes
    return space


DISCRETE = of_old_package("Discrete", n=np.int64(3), shape=(), dtype=np.dtype(np.int64))


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        (BOX, BOX),
        (
            of_old_package("Box", low=BOX.low, high=BOX.high, shape=(2,), dtype=np.dtype(np.float32)),
            spaces.Box(-1, 1, (2,)),
        ),
        (DISCRETE, spaces.Discrete(3)),
        (of_old_package("Discrete", n=3, start=2), spaces.Discrete(3, start=2)),
        (of_old_package("MultiDiscrete", nvec=np.array([2, 3])), spaces.MultiDiscrete([2, 3])),
        (of_old_package("MultiBinary", n=4), spaces.MultiBinary(4)),
        (of_old_package("Dict", spaces={"a": DISCRETE, "b": BOX}), spaces.Dict(a=spaces.Discrete(3), b=BOX)),
        (of_old_package("Tuple", spaces=[DISCRETE, BOX]), spaces.Tuple([spaces.Discrete(3), BOX])),
    ],
)
def test_spaces_of_the_old_package_are_read_without_it(old, expected):
    assert old_gym.as_gymnasium(old, "It") == expected
    assert "gym" not in sys.modules


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"observation_space": lambda self, agent: BOX}, "observation_space is a method, expected a space.*PettingZoo"),
        ({"action_space": None}, "has no action_space"),
        ({"action_space": of_old_package("Graph")}, "Graph is none of gymnasium.spaces"),
        ({"action_space": of_old_package("Discrete")}, "its Discrete is no space that can be read"),
        ({"step": None}, "without step, expected one gymnasium.Env"),
        ({"reset": lambda self: None}, "reset: observation: expected float32.*got NoneType"),
        ({"step": lambda self, action: None}, "step 1: step must return .*got NoneType"),
        ({"step": lambda self, action: (1, 2, 3)}, "step must return .*got 3 values"),
        ({"step": lambda self, action: (np.zeros(2), 1.0, 1, {})}, "terminated: expected True or False, got int64"),
        ({"seed": lambda self, seed: 1 / 0}, "ZeroDivisionError"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*old Gym API")
def test_the_error_names_what_is_wrong(change, text):
    with pytest.raises((UnsuitableError, EnvironmentFault), match=text):
        ends(make(type("Wrong", (Old,), change), 1))


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.*old Gym API")
def test_dqn_solves_cartpole_in_the_old_api(tmp_path):
    run = td.train(td.DQN(), OldCartPole, steps=50_000, seeds=3, run_dir=tmp_path / "run", quiet=True)
    assert run.summary["evaluation"]["mean"] >= 475
