"""`make`: whatever names or makes an environment is understood, and whatever does not is answered plainly."""

from __future__ import annotations

import functools
import re
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from jax import random

from thorndike.environments import advice, check_distinct, known_ids, make, name_of, twins
from thorndike.environments.classic_control import CartPole
from thorndike.environments.functional import Vectorized
from thorndike.environments.gymnasium import Gymnasium
from thorndike.errors import (
    EnvironmentFault,
    MissingExtraError,
    SettingError,
    Terminated,
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
    environment = make("gymnasium:CartPole-v1", 3)
    assert isinstance(environment, Gymnasium)
    assert environment.num_environments == 3
    assert isinstance(make("CartPole-v0", 1), Gymnasium)
    assert set(twins()) <= set(known_ids())
    assert "CartPole-v0" in known_ids()


def test_arguments_that_the_compiled_one_does_not_take_lead_to_gymnasiums_with_a_warning():
    with pytest.warns(UserWarning, match=r"CartPole-v1 with render_mode runs on the host.*takes only .*max_steps"):
        assert isinstance(make("CartPole-v1", 3, render_mode="rgb_array"), Gymnasium)


@pytest.mark.filterwarnings("error")
def test_what_was_asked_for_in_words_is_made_without_a_warning():
    make("gymnasium:CartPole-v1", 1, render_mode="rgb_array")
    make("CartPole-v1", 1, max_steps=3)


def test_the_time_limit_given_to_gymnasium_holds():
    environment = make("gymnasium:CartPole-v1", 2, max_episode_steps=3)
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


@pytest.mark.parametrize(
    ("id", "pip", "written"),
    [
        ("MiniGrid-Empty-5x5-v0", "minigrid", "minigrid:MiniGrid-Empty-5x5-v0"),
        ("minigrid:MiniGrid-Empty-5x5-v0", "minigrid", "minigrid:MiniGrid-Empty-5x5-v0"),
        ("BabyAI-GoToObj-v0", "minigrid", "minigrid:BabyAI-GoToObj-v0"),
        ("highway-v0", "highway-env", "highway_env:highway-v0"),
        ("gymnasium:highway-fast-v0", "highway-env", "highway_env:highway-fast-v0"),
        ("BreakoutNoFrameskip-v4", "gymnasium[atari]", "ale_py:BreakoutNoFrameskip-v4"),
        ("Pong-ram-v4", "gymnasium[atari]", "ale_py:Pong-ram-v4"),
        ("ALE/Pong-v5", "gymnasium[atari]", "ale_py:ALE/Pong-v5"),
        ("FetchReach-v3", "gymnasium-robotics", "gymnasium_robotics:FetchReach-v3"),
        ("dm_control/cheetah-run-v0", "shimmy[dm-control]", "shimmy:dm_control/cheetah-run-v0"),
        ("procgen-coinrun-v0", "thorndike[envpool]", "envpool:CoinrunEasy-v0"),
        ("procgen:procgen-coinrun-v0", "thorndike[envpool]", "envpool:CoinrunEasy-v0"),
    ],
)
def test_a_well_known_id_without_its_package_is_answered_with_package_pip_line_and_id(id, pip, written, monkeypatch):
    without_packages(monkeypatch)
    with pytest.raises(MissingExtraError, match=re.escape(f'pip install "{pip}", then write {written}')):
        make(id, 1)


def without_packages(monkeypatch):
    for package in advice.PACKAGES:
        monkeypatch.setitem(sys.modules, package.module or "procgen", None)
    for id in filter(advice.package_of, list(gymnasium.registry)):
        monkeypatch.delitem(gymnasium.registry, id)


def test_a_well_known_id_is_made_as_it_is_where_its_package_is_installed(tmp_path, monkeypatch):
    (tmp_path / "minigrid.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('MiniGrid-Pole-v7', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=4)\n"
    )
    without_packages(monkeypatch)
    monkeypatch.delitem(sys.modules, "minigrid")
    monkeypatch.syspath_prepend(tmp_path)
    assert make("MiniGrid-Pole-v7", 1).num_environments == 1
    with pytest.raises(UnknownNameError, match="Did you mean 'MiniGrid-Pole-v7'"):
        make("MiniGrid-Pole-v6", 1)
    gymnasium.registry.pop("MiniGrid-Pole-v7")


@pytest.mark.parametrize(("id", "there_is"), [("LunarLander-v2", "LunarLander-v3"), ("Hopper-v1", "Hopper-v5")])
def test_an_old_version_is_answered_with_the_one_that_there_is(id, there_is):
    with pytest.raises(UnknownNameError, match=there_is):
        make(id, 1)


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


# --- objects ----------------------------------------------------------------------------------------------------------


class Unrecorded(gymnasium.Wrapper):
    """A wrapper that does not say how to make another of it."""


class Configured(CartPoleEnv):
    """Holds settings in a dict, and a thing that nothing but its class knows from the inside."""

    def __init__(self, opaque=False):
        super().__init__()
        self.config = {"vehicles": [20, {"speed": np.float32(3.0)}]}
        self.maker = lambda: self.config
        self.opaque = memoryview(b"x") if opaque else None

    def reset(self, *, seed=None, options=None):
        self.road = [self, self.config["vehicles"]]
        return super().reset(seed=seed)


@pytest.fixture(autouse=True, scope="module")
def _configured():
    gymnasium.register("Configured-v0", Configured, max_episode_steps=9)
    yield
    gymnasium.registry.pop("Configured-v0")


def changed(id="CartPole-v1", *, wrapped=False, **changes):
    """An object made by Gymnasium, with attributes set afterwards: of the wrapper, or of the environment inside."""
    environment = gymnasium.make(id)
    for name, value in changes.items():
        setattr(environment if wrapped else environment.unwrapped, name, value)
    return environment


def played(environment):
    """The same object after some steps of an episode."""
    environment.reset()
    for _ in range(5):
        environment.step(environment.action_space.sample())
    return environment


def flattened():
    environment = gymnasium.make("HalfCheetah-v5")
    environment.unwrapped.model.opt.gravity[2] = -1.0
    return environment


@pytest.mark.parametrize(
    "environment",
    [
        lambda: gymnasium.make("CartPole-v1"),
        lambda: gymnasium.make("Configured-v0"),
        lambda: gymnasium.make("FrozenLake-v1", is_slippery=False),
        lambda: gymnasium.wrappers.TimeAwareObservation(gymnasium.make("CartPole-v1", max_episode_steps=9)),
        lambda: played(gymnasium.make("CartPole-v1")),
        lambda: played(gymnasium.make("Configured-v0")),
        lambda: changed(gravity=9.8),
        lambda: changed(wrapped=True, _max_episode_steps=7),  # Gymnasium's spec tells it
        lambda: gymnasium.make("HalfCheetah-v5"),
    ],
)
def test_an_object_that_a_fresh_one_equals_is_made_again(environment):
    if environment.__code__.co_consts[-1] == "HalfCheetah-v5":
        pytest.importorskip("mujoco")
    environment = environment()
    made = make(environment, 2)
    assert not made.single
    assert environment.unwrapped not in [copy.unwrapped for copy in made.copies]


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        (lambda: changed(gravity=1.0), "'gravity' differs"),
        (lambda: played(changed(gravity=1.0)), "'gravity' differs"),
        (lambda: changed(wrapped=True, action_space=spaces.Discrete(2, start=1)), "action_space"),
        (lambda: changed(taught=lambda: 3), "differs"),
        (lambda: changed("Configured-v0", config={"vehicles": [20, {"speed": np.float32(2.0)}]}), "'speed'.* differs"),
        (lambda: changed("Configured-v0", maker=lambda: 3), "'maker"),
        (lambda: gymnasium.make("Configured-v0", opaque=True), "'opaque' cannot be compared"),
        (lambda: Unrecorded(gymnasium.make("CartPole-v1")), "not made from a registered id"),
        (lambda: Small(), "not made from a registered id"),
        (flattened, "'(data|model)"),
    ],
)
def test_an_object_that_nothing_is_sure_to_equal_is_itself_the_one_copy(environment, why):
    if environment is flattened:
        pytest.importorskip("mujoco")
    environment = environment()
    made = make(environment, 1)
    assert made.single
    assert made.copies == [environment]
    with pytest.raises(SettingError, match=why) as caught:
        make(environment, 2)
    assert "td.train(..., lambda: make_mine(), ...), " in str(caught.value)
    assert "set num_environments=1" in str(caught.value)


def test_an_object_that_was_handed_over_is_never_closed():
    class Closing(Small):
        closed = False

        def close(self):
            self.closed = True

    environment = Closing()
    make(environment, 1).close()
    assert not environment.closed


def test_arguments_for_an_object_are_refused():
    with pytest.raises(SettingError, match="Small is made already: give size"):
        make(Small(), 1, size=3)


def test_one_object_in_two_places_is_found_out():
    one = Small()
    for other in (lambda: one, lambda: Unrecorded(one)):
        with pytest.raises(SettingError, match="a new one at every call"):
            check_distinct(make(lambda: one, 1), make(other, 1))
    check_distinct(make(Small, 2), make(Small, 1), make("CartPole-v1", 2), make(CartPole(), 2))


# --- wrappers that keep statistics ------------------------------------------------------------------------------------


def registered_with_statistics():
    wrapper = gymnasium.wrappers.NormalizeObservation.wrapper_spec()
    gymnasium.register("Shifting-v0", CartPoleEnv, additional_wrappers=(wrapper,))
    return "Shifting-v0"


@pytest.mark.parametrize(
    ("environment", "setting"),
    [
        (lambda: lambda: gymnasium.wrappers.NormalizeObservation(Small()), "normalize_observations=True"),
        (lambda: lambda: Unrecorded(gymnasium.wrappers.NormalizeReward(Small())), "normalize_rewards=True"),
        (lambda: gymnasium.wrappers.NormalizeObservation(Small()), "normalize_observations=True"),
        (lambda: gymnasium.wrappers.NormalizeReward(gymnasium.make("CartPole-v1")), "normalize_rewards=True"),
        (registered_with_statistics, "normalize_observations=True"),
        (
            lambda: lambda: gymnasium.wrappers.vector.NormalizeReward(gymnasium.make_vec("CartPole-v1", 2)),
            "normalize_rewards=True",
        ),
    ],
)
def test_wrappers_whose_statistics_differ_from_copy_to_copy_are_refused(environment, setting):
    environment = environment()
    for n in (1, 2):
        with pytest.raises(UnsuitableError, match=f"Normalize.* keeps statistics.* set {setting}"):
            make(environment, n)
    gymnasium.registry.pop("Shifting-v0", None)


def test_statistics_that_no_longer_change_are_taken():
    def fixed():
        environment = gymnasium.wrappers.NormalizeObservation(Small())
        environment.update_running_mean = False
        return environment

    assert make(fixed, 2).num_environments == 2


# --- what goes wrong in between ---------------------------------------------------------------------------------------


def hostile(name, error):
    """A class whose attribute `name` raises."""

    def fail(self, *_):
        raise error

    return type("Hostile", (Small,), {name: fail if name.startswith("__") else property(fail)})


@pytest.mark.parametrize("error", [RuntimeError("engine is cold"), SystemExit(3), KeyError()])
@pytest.mark.parametrize("name", ["__init__", "__getattr__", "unwrapped", "observation_space", "action_space", "spec"])
def test_whatever_is_raised_while_an_environment_is_made_is_a_fault(name, error):
    cls = hostile(name, error)
    cases = [cls, lambda: cls()] if name == "__init__" else [cls, cls()]
    for environment in cases[: 1 if name == "spec" else 2] if name != "spec" else cases[1:]:
        with pytest.raises(EnvironmentFault, match="could not be made: " + type(error).__name__):
            make(environment, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated(143)])
def test_what_the_user_asks_for_passes_the_boundary(error):
    with pytest.raises(type(error)):
        make(hostile("unwrapped", error), 1)


@pytest.mark.parametrize(
    ("environment", "error", "text"),
    [
        (3, SettingError, "got int"),
        (lambda: 3, UnsuitableError, "expected one gymnasium.Env"),
        (dict, UnsuitableError, "dict gave dict without reset and step, expected one gymnasium.Env"),
        (broken(KeyError("map")), EnvironmentFault, "make_it could not be made: KeyError: 'map'"),
        (lambda size: Small(size), EnvironmentFault, "missing 1 required positional argument: 'size'"),
        (gymnasium.Env, UnsuitableError, "no observation_space"),
    ],
)
def test_what_makes_no_environment_is_told_so(environment, error, text):
    with pytest.raises(error) as caught:
        make(environment, 2)
    assert text in str(caught.value)


# --- spaces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["observation_space", "action_space"])
@pytest.mark.parametrize(
    "space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2)), spaces.Graph(spaces.Box(0, 1), None)]
)
def test_spaces_that_are_not_supported_are_refused_by_name_with_a_wrapper_that_helps(side, space):
    unsuitable = type("Unsuitable", (Small,), {side: space})
    wrapper = "TransformAction" if side == "action_space" else "TransformObservation"
    with pytest.raises(UnsuitableError, match=rf"{type(space).__name__}.*{wrapper}\(make_mine\(\), function, space\)"):
        make(unsuitable, 1)


BOX = spaces.Box(0, 1, (2,))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"observation_space": spaces.Dict(image=BOX, mission=spaces.Text(9), at=BOX)},
            r"observation\['mission'\].*FilterObservation\(make_mine\(\), \['at', 'image'\]\)",
        ),
        (
            {"action_space": spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 0], [0, 1]])},
            r"\(2, 2\).*TransformAction\(make_mine\(\), lambda a: a.reshape\(2, 2\), "
            r"gymnasium.spaces.MultiDiscrete\(\[2, 3, 4, 5\], start=\[0, 0, 0, 1\]\)\)",
        ),
        (
            {"action_space": spaces.Box(0, 3, (2, 3), np.int8)},
            r"lambda a: a.reshape\(2, 3\), .*\(\[4, 4, 4, 4, 4, 4\]\)",
        ),
        ({"action_space": spaces.Dict(a=BOX)}, r"Dict space.*TransformAction\(make_mine\(\), function, space\)"),
        ({"action_space": spaces.Box(-(2**31), 2**31 - 1, (2,), np.int32)}, "whole numbers within bounds"),
        ({"observation_space": None}, "has no observation_space"),
    ],
)
def test_spaces_that_do_not_fit_are_answered_with_the_line_that_helps(change, text):
    with pytest.raises(UnsuitableError, match=text):
        make(type("Unsuitable", (Small,), change), 1)


def test_the_line_that_helps_names_the_id():
    gymnasium.register("Speaking-v0", type("Speaking", (Small,), {"observation_space": spaces.Text(3)}))
    with pytest.raises(UnsuitableError, match=r"TransformObservation\(gymnasium.make\('Speaking-v0'\), "):
        make("Speaking-v0", 1)
    gymnasium.registry.pop("Speaking-v0")


@pytest.mark.parametrize(
    ("space", "choices", "dtype"),
    [
        (spaces.Box(-1, 2, (3,), np.int8), spaces.MultiDiscrete([4, 4, 4], start=[-1, -1, -1]), np.int8),
        (spaces.Box(2, 5, (), np.int64), spaces.Discrete(4, start=2), np.int64),
        (spaces.MultiBinary(3), spaces.MultiDiscrete([2, 2, 2]), np.int8),
    ],
)
def test_whole_numbers_within_bounds_are_acted_on_as_choices_and_arrive_as_what_they_are(space, choices, dtype):
    taken = []

    class Counting(Small):
        action_space = space

        def step(self, action):
            taken.append(action)
            return super().step(action)

    environment = make(Counting, 2)
    assert environment.action_space == choices
    environment.reset(random.key(0))
    last = np.broadcast_to(np.int32(choices.nvec - 1 if space.shape else choices.n - 1), (2, *space.shape))
    environment.step((), last)
    for action in taken:
        assert space.contains(np.asarray(action))
        assert action.dtype == dtype
        np.testing.assert_array_equal(action, getattr(space, "high", 1))


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


@pytest.mark.parametrize(
    ("make_it", "name"),
    [
        (lambda: gymnasium.make("CartPole-v1"), "CartPole-v1"),
        (lambda: CartPoleEnv(), "CartPoleEnv"),
        (lambda: gymnasium.wrappers.TimeLimit(CartPoleEnv(), 9), "CartPoleEnv"),
        (functools.partial(lambda steps: CartPole(max_steps=steps), 9), "CartPole"),
        (lambda: gymnasium.make("MountainCar-v0", max_episode_steps=9), "MountainCar-v0"),
    ],
)
def test_what_a_lambda_makes_gives_it_its_name(make_it, name):
    made = make(make_it, 1)
    assert name_of(make_it) == "environment"
    assert name_of(make_it, made) == name
    assert name_of("Own-v0", made) == "Own-v0"
    made.close()


@pytest.mark.parametrize(
    ("environment", "arguments", "meant"),
    [
        ("FrozenLake-v1", {"is_slipery": False}, "is_slippery"),
        ("CartPole-v1", {"max_step": 5}, "max_steps"),
        ("gymnasium:CartPole-v1", {"suton_barto_reward": True}, "sutton_barto_reward"),
        ("gymnasium:CartPole-v1", {"max_episode_step": 5}, "max_episode_steps"),
        (CartPoleEnv, {"render_mod": None}, "render_mode"),
        (CartPole, {"max_step": 5}, "max_steps"),
        (lambda gravity=9.8: CartPoleEnv(), {"gravty": 1.0}, "gravity"),
    ],
)
def test_an_argument_that_is_almost_one_is_answered_with_it(environment, arguments, meant):
    with pytest.raises(SettingError, match=rf"has no argument '{next(iter(arguments))}'\. Did you mean '{meant}'\?"):
        make(environment, 1, **arguments)


def test_importing_environments_loads_nothing_heavy():
    script = "import sys, thorndike.environments; print({'jax', 'gymnasium', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "set()", found.stderr
