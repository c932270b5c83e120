"""`make`: whatever names or makes an environment is understood, and whatever does not is answered plainly."""

from __future__ import annotations

import functools
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from jax import random

from thorndike.environments import known_ids, make, name_of, twins
from thorndike.environments.classic_control import CartPole
from thorndike.environments.functional import Vectorized
from thorndike.environments.gymnasium import Gymnasium
from thorndike.errors import (
    EnvironmentFault,
    MissingExtraError,
    SettingError,
    UnknownNameError,
    UnsuitableError,
)


class Small(gymnasium.Env):
    """Observes the size that it was made with."""

    observation_space = spaces.Box(-10, 10, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, size=1.0):
        self.size = size

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([self.size]), {}

    def step(self, action):
        return np.array([self.size]), 0.0, False, False, {}


def broken(error):
    def make_it():
        raise error

    return make_it


def test_an_id_is_its_compiled_twin_where_that_takes_the_arguments_and_else_gymnasiums():
    assert make("CartPole-v1", 3) == Vectorized(CartPole(), 3)
    assert make("CartPole-v1", 3, sutton_barto_reward=True) == Vectorized(CartPole(sutton_barto_reward=True), 3)
    for environment in (make("gymnasium:CartPole-v1", 3), make("CartPole-v1", 3, max_episode_steps=7)):
        assert isinstance(environment, Gymnasium)
        assert environment.num_environments == 3
    assert isinstance(make("FrozenLake-v1", 1), Gymnasium)
    assert set(twins()) <= set(known_ids())
    assert "FrozenLake-v1" in known_ids()


def test_the_time_limit_given_to_gymnasium_holds():
    environment = make("CartPole-v1", 2, max_episode_steps=3)
    environment.reset(random.key(0))
    truncated = [environment.step((), np.array([0, 1]))[1].truncated.tolist() for _ in range(3)]
    assert truncated == [[False, False], [False, False], [True, True]]


@pytest.mark.parametrize(
    ("environment", "compiled"),
    [
        (CartPoleEnv, False),
        (lambda: CartPoleEnv(), False),
        (functools.partial(CartPoleEnv, sutton_barto_reward=True), False),
        (lambda: gymnasium.wrappers.TimeAwareObservation(gymnasium.make("CartPole-v1")), False),
        (gymnasium.spec("CartPole-v1"), False),
        (gymnasium.make("CartPole-v1"), False),
        (gymnasium.wrappers.TimeAwareObservation(gymnasium.make("CartPole-v1")), False),
        (CartPole, True),
        (CartPole(max_steps=3), True),
        (lambda: CartPole(max_steps=3), True),
    ],
)
def test_whatever_can_make_copies_is_taken(environment, compiled):
    made = make(environment, 2)
    assert made.compiled == compiled
    assert made.num_environments == 2
    made.reset(random.key(0))


def test_wrappers_of_a_function_or_of_an_object_stay():
    wrapped = gymnasium.wrappers.TimeAwareObservation(gymnasium.make("CartPole-v1"))
    assert make(wrapped, 1).observation_space.shape == (5,)
    assert make(lambda: gymnasium.wrappers.RescaleObservation(Small(), 0, 1), 1).observation_space.high == 1


def test_arguments_reach_whatever_makes_the_environment():
    for maker in (Small, lambda size: Small(size), functools.partial(Small, size=1)):
        assert make(maker, 2, size=4.0).reset(random.key(0))[1].tolist() == [[4], [4]]
    assert make(CartPole, 2, max_steps=3) == Vectorized(CartPole(max_steps=3), 2)


@pytest.mark.parametrize("environment", ["CartPole-v1", "FrozenLake-v1", Small, CartPole, lambda: Small()])
def test_an_unknown_argument_is_named(environment):
    with pytest.raises(SettingError, match="no argument 'colour'"):
        make(environment, 1, colour=3)


def test_arguments_for_what_is_made_already_are_refused():
    with pytest.raises(SettingError, match="CartPole is made already: give max_steps"):
        make(CartPole(), 1, max_steps=3)


@pytest.mark.parametrize("number", [0, -1, 2.0, True, "3", None])
def test_the_number_of_copies_is_a_whole_one(number):
    with pytest.raises(SettingError, match="num_environments"):
        make("CartPole-v1", number)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cartpole-v1", "'cartpole-v1'. Did you mean 'CartPole-v1'"),
        ("CartPole", "Did you mean 'CartPole-v1'"),
        ("Pendulum-v9", "Did you mean 'Pendulum-v1'"),
        ("gymnasium:FrozenLake", "Did you mean 'FrozenLake"),
        ("no_such_module:X-v0", "no module 'no_such_module'"),
        ("json.nothing:X-v0", "no module 'json.nothing'"),
        ("json:X-v0", "'json' registers no environment 'X-v0'"),
        ("..up:X-v0", "'..up' is not the name of a module"),
        ("", "no environment ''"),
        ("rm -rf /", "no environment 'rm -rf /'"),
    ],
)
def test_an_unknown_id_is_answered_with_what_was_perhaps_meant(name, text):
    with pytest.raises(UnknownNameError) as caught:
        make(name, 1)
    assert text in str(caught.value)


def test_a_missing_package_is_answered_with_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    monkeypatch.setitem(sys.modules, "envpool", None)
    needs_box2d = gymnasium.error.DependencyNotInstalled('run `pip install swig`, `pip install "gymnasium[box2d]"`')
    cases = [
        ("ALE/Pong-v5", "gymnasium[atari]"),
        (broken(needs_box2d), "gymnasium[box2d]"),
        (broken(ModuleNotFoundError("No module named 'flax'")), "flax"),
        ("envpool:CartPole-v1", "pip install \"thorndike[envpool]\", or use 'gymnasium:CartPole-v1'"),
    ]
    for module, name, extra in (("Box2D", "LunarLander-v3", "box2d"), ("mujoco", "HalfCheetah-v5", "mujoco")):
        monkeypatch.setitem(sys.modules, module, None)
        for loaded in [m for m in sys.modules if m.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco"))]:
            monkeypatch.delitem(sys.modules, loaded)
        cases.append((name, f'pip install "gymnasium[{extra}]"'))
    for environment, text in cases:
        with pytest.raises(MissingExtraError) as caught:
            make(environment, 1)
        assert text in str(caught.value)


def test_a_module_named_before_the_colon_is_imported_and_may_register(tmp_path, monkeypatch):
    (tmp_path / "my_worlds.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('MyPole-v0', CartPoleEnv, max_episode_steps=4)\n"
    )
    (tmp_path / "half_there.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownNameError):
        make("MyPole-v0", 1)
    assert make("my_worlds:MyPole-v0", 2).num_environments == 2
    assert isinstance(make("gymnasium:my_worlds:MyPole-v0", 1), Gymnasium)
    with pytest.raises(MissingExtraError, match="'half_there' needs 'no_such_dependency'"):
        make("half_there:X-v0", 1)
    gymnasium.registry.pop("MyPole-v0")


class Unrecorded(gymnasium.Wrapper):
    """A wrapper that does not say how to make another of it."""


@pytest.mark.parametrize("environment", [Small(), CartPoleEnv(), Unrecorded(gymnasium.make("CartPole-v1"))])
def test_an_object_that_cannot_be_made_again_asks_for_its_class(environment):
    with pytest.raises(SettingError, match="pass the class or a function that makes it"):
        make(environment, 1)


@pytest.mark.parametrize(
    ("environment", "error", "text"),
    [
        (3, SettingError, "got int"),
        (lambda: 3, UnsuitableError, "expected one gymnasium.Env"),
        (dict, UnsuitableError, "dict gave dict, expected one gymnasium.Env"),
        (lambda: gymnasium.make_vec("CartPole-v1", 2), UnsuitableError, "gave CartPoleVectorEnv"),
        (broken(KeyError("map")), EnvironmentFault, "make_it could not be made: KeyError: 'map'"),
        (lambda size: Small(size), EnvironmentFault, "missing 1 required positional argument: 'size'"),
        (gymnasium.Env, UnsuitableError, "no observation_space"),
    ],
)
def test_what_makes_no_environment_is_told_so(environment, error, text):
    with pytest.raises(error) as caught:
        make(environment, 2)
    assert text in str(caught.value)


@pytest.mark.parametrize("side", ["observation_space", "action_space"])
@pytest.mark.parametrize(
    "space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2)), spaces.Graph(spaces.Box(0, 1), None)]
)
def test_spaces_that_are_not_supported_are_refused_by_name(side, space):
    unsuitable = type("Unsuitable", (Small,), {side: space})
    with pytest.raises(UnsuitableError, match=type(space).__name__):
        make(unsuitable, 1)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ("CartPole-v1", "CartPole-v1"),
        ("gymnasium:ALE/Pong-v5", "ALE-Pong-v5"),
        ("my_module:MyEnv-v0", "MyEnv-v0"),
        ("x:../../etc", "etc"),
        ("..", "environment"),
        (Small, "Small"),
        (CartPole(), "CartPole"),
        (CartPole, "CartPole"),
        (lambda: Small(), "environment"),
        (functools.partial(functools.partial(Small, 3)), "Small"),
        (broken, "broken"),
        (gymnasium.spec("CartPole-v1"), "CartPole-v1"),
        (gymnasium.make("CartPole-v1"), "CartPole-v1"),
        (Small(), "Small"),
    ],
)
def test_every_environment_has_a_name_fit_for_a_folder(environment, name):
    assert name_of(environment) == name


def test_importing_environments_loads_nothing_heavy():
    script = "import sys, thorndike.environments; print({'jax', 'gymnasium', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "set()", found.stderr
