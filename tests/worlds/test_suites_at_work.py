"""Environments of the suites as users meet them: equal by value, resumed, named wrongly, given wrong arguments."""

from __future__ import annotations

import functools
import socket
import subprocess

import gymnasium
import jax
import numpy as np
import pytest
from jax import random
from originals import CASES

import thorndike as td
from thorndike import masks, trainer
from thorndike.environments import make, suites
from thorndike.environments.functional import Vectorized
from thorndike.errors import SettingError, UnknownNameError, UnsuitableError
from thorndike.spaces import stored, uniform_action

if not any(suite.installed for suite in suites.SUITES.values()):
    pytest.skip("no suite is installed: make test-worlds", allow_module_level=True)

pytestmark = pytest.mark.keras  # suites promote ranks
INSTALLED = [suite for suite, known in suites.SUITES.items() if known.installed]
DEAR = ("craftax", "brax", "playground")  # to compile
SMALL = td.PPO(
    num_environments=4, rollout_length=8, batch_size=32, epochs=1, network=td.MLP((8,)), critic_network=td.MLP((8,))
)


def needs(suite):
    if suite not in INSTALLED:
        pytest.skip(f"{suite} is not installed")


def cases(*, dear):
    """A case of each suite; the dear ones marked as longer proofs, or not."""
    first = {case.suite: case for case in reversed(CASES)}
    marks = {suite: [pytest.mark.full] for suite in DEAR[:2] if not dear}
    return [pytest.param(case, id=suite, marks=marks.get(suite, [])) for suite, case in first.items()]


@pytest.mark.parametrize("case", cases(dear=True))
def test_two_of_one_id_and_arguments_are_one_program(case):
    needs(case.suite)
    one, other, different = (make(case.name, 3, **arguments) for arguments in (case.arguments, case.arguments, {}))
    assert one == other
    assert hash(one) == hash(other)
    assert one != different
    assert one.environment.made is other.environment.made
    assert "made" not in repr(one)


def test_a_number_and_a_word_and_a_flag_are_different_arguments():
    needs("gymnax")
    made = [make("gymnax:CartPole-v1", 1, length=length) for length in (0.5, 1, 1.0)]
    assert len(set(made)) == 3
    assert make("gymnax:CartPole-v1", 1, length=0.5, tau=0.1) == make("gymnax:CartPole-v1", 1, tau=0.1, length=0.5)


def test_two_runs_compile_once():
    needs("gymnax")
    before = trainer._advance._cache_size()
    for _ in range(2):
        list(trainer.train(SMALL, lambda: make("gymnax:Catch-bsuite", 4, max_steps_in_episode=7), 64))
    assert trainer._advance._cache_size() == before + 1


@pytest.mark.parametrize("case", cases(dear=False))
def test_a_run_that_goes_on_is_the_run_that_never_stopped(case):
    needs(case.suite)

    def run(**more):
        return trainer.train(SMALL, lambda: make(case.name, 4, **case.arguments), 32 * 12, every=(6,), **more)

    middle = last = None
    for chunk in run():
        middle, last = (chunk.arrays() if chunk.iteration == 6 else middle), chunk
    expected = last.arrays()
    for chunk in run(resume={0: middle}):
        last = chunk
    found = last.arrays()
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name].tobytes() != expected[name].tobytes()] == []


@pytest.mark.parametrize("suite", suites.SUITES)
def test_an_unknown_id_is_answered_with_the_nearest_one(suite):
    needs(suite)
    known = suites.ids(suite)
    with pytest.raises(UnknownNameError, match=f"{suite} has no environment 'X{known[0][1:]}'. Did you mean"):
        make(f"{suite}:X{known[0][1:]}", 2)
    with pytest.raises(UnknownNameError, match=f"{suite} has no environment '@'. There are "):
        make(f"{suite}:@", 2)


@pytest.mark.parametrize("case", cases(dear=True))
def test_an_unknown_argument_is_answered_with_those_there_are(case):
    needs(case.suite)
    known = sorted(case.arguments)[0]
    with pytest.raises(
        SettingError, match=rf"{case.name} has no argument '{known}s'. Did you mean '{known}'\? \(there"
    ):
        make(case.name, 2, **{f"{known}s": 3})


@pytest.mark.parametrize("case", cases(dear=True))
def test_a_time_limit_that_is_none_is_answered(case):
    needs(case.suite)
    limit = next(name for name in case.arguments if name == type(make(case.name, 2).environment).time_limit)
    for value in ("many", 0, -3, 2.5):
        with pytest.raises(SettingError, match=rf"{case.name}: {limit} must be a whole number, at least 1, got"):
            make(case.name, 2, **{limit: value})
    with pytest.raises(SettingError, match="takes numbers, words and lists"):
        make(case.name, 2, **{limit: object()})


def test_other_arguments_are_of_the_kind_of_their_defaults():
    needs("gymnax")
    with pytest.raises(SettingError, match=r"gymnax:CartPole-v1: length must be a number, got 'long'"):
        make("gymnax:CartPole-v1", 2, length="long")
    with pytest.raises(SettingError, match=r"gymnax:Breakout-MinAtar: use_minimal_action_set must be True or False"):
        make("gymnax:Breakout-MinAtar", 2, use_minimal_action_set=1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gymnax:MNISTBandit-bsuite", "downloads its images"),
        ("jumanji:Sokoban-v0", "downloads its levels"),
        ("jumanji:Connector-v3", "several agents"),
        ("jumanji:MultiCVRP-v0", "mask that does not fit"),
        ("playground:Go1JoystickFlatTerrain", "downloads its robots with git"),
        ("playground:PandaPickCube", "downloads its robots with git"),
        ("pgx:go_9x9", "several players"),
        ("xminigrid:XLand-MiniGrid-R1-9x9", "no task of its own"),
    ],
)
def test_what_cannot_be_played_or_fetches_from_the_network_is_refused_by_name(name, reason):
    suite, _, id = name.partition(":")
    needs(suite)
    with pytest.raises(UnsuitableError, match=f"{name} .*{reason}"):
        make(name, 2)
    assert id not in suites.ids(suite)


@pytest.mark.parametrize(
    "suite", [pytest.param(suite, marks=[pytest.mark.full] * (suite in DEAR)) for suite in INSTALLED]
)
def test_every_id_is_made_without_the_network_and_keeps_to_its_spaces(suite, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("asked for the network, or for another program")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    for id in suites.ids(suite):
        if "Pixels" in id or id == "swimmer":  # textures take minutes; Brax's swimmer fails in Brax, on this JAX
            continue
        environment = make(f"{suite}:{id}", 2)
        masks.check(environment.observation_space, environment.action_space)
        shapes = jax.eval_shape(functools.partial(moved, environment), random.key(0))
        expected = jax.tree.map(lambda x: (2, *x.shape), stored(environment.observation_space))
        assert jax.tree.map(lambda x: x.shape, shapes) == expected


def moved(environment, key):
    env_state, observation = environment.reset(key)
    action = uniform_action(environment.action_space, key, 2, masks.of(observation))
    return environment.step(env_state, action, key)[1].next_observation


@pytest.mark.parametrize(
    ("name", "arguments", "check"),
    [
        ("gymnax:FrozenLake-misc", {"desc": ["SF", "FG"]}, lambda made: made.observation_space.n == 4),
        ("gymnax:DeepSea-bsuite", {"size": 4}, lambda made: made.observation_space.shape == (4, 4)),
        ("gymnax:Acrobot-v1", {"available_torque": [-2, 0, 2]}, lambda made: made.made.more.available_torque[2] == 2.0),
        ("pgx:minatar-breakout", {"use_minimal_action_set": False}, lambda made: made.action_space.n == 6),
        ("jumanji:Snake-v1", {"num_rows": 5}, lambda made: made.observation_space["grid"].shape == (5, 12, 5)),
        ("xminigrid:MiniGrid-Empty-5x5", {"view_size": 3}, lambda made: made.observation_space.shape == (3, 3, 2)),
        ("playground:CartpoleBalance", {"episode_length": 9}, lambda made: made.max_steps == 9),
    ],
)
def test_arguments_reach_the_suite(name, arguments, check):
    needs(name.partition(":")[0])
    assert check(make(name, 2, **arguments).environment)


def test_names_are_choices_and_counts_are_shares():
    needs("jumanji")
    needs("xminigrid")
    tiles = make("xminigrid:MiniGrid-Empty-5x5", 2).observation_space
    assert isinstance(tiles, gymnasium.spaces.MultiDiscrete)
    cube = make("jumanji:RubiksCube-v0", 2)
    assert cube.observation_space["cube"] == gymnasium.spaces.MultiDiscrete(np.full((6, 3, 3), 6))
    assert cube.observation_space["step_count"].high == 1
    assert cube.reset(random.key(0))[1]["step_count"].tolist() == [0, 0]


def test_a_run_of_an_id_with_arguments_goes_on_and_is_loaded_from_its_folder(tmp_path):
    needs("gymnax")
    limit = {"max_steps_in_episode": 9}
    more = {"environment_arguments": limit, "run_dir": tmp_path / "run", "quiet": True, "evaluate_every": 0}
    run = td.train(SMALL, "gymnax:CartPole-v1", steps=64, **more)
    again = td.resume(run.folder, steps=128, quiet=True)
    assert again.summary["steps"] == 128
    assert td.load(run.folder).evaluate(4)["mean"] <= 9


def test_a_suites_environment_is_taken_as_an_object_too():
    needs("gymnax")
    from thorndike.environments.suites.gymnax import Gymnax

    assert make(Gymnax.of("Catch-bsuite"), 2) == Vectorized(Gymnax("Catch-bsuite"), 2) == make("gymnax:Catch-bsuite", 2)
    assert make(Gymnax("DeepSea-bsuite"), 2).environment.made.more.max_steps_in_episode == 8
