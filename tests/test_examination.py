"""`td.check` and `thorndike check`: what is said of an environment is true, and of a sound one nothing bad is said."""

from __future__ import annotations

import dataclasses
import importlib.util
import time

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from jax import random

import examined
import thorndike as td
from strategies import broken_environments, check_said, environment_of, play_as_told
from thorndike import cli, environments
from thorndike.environments import twins
from thorndike.examination.findings import Ranges, Seen

WRONG = {
    "GlobalNumpy": ("A seed does not repeat an episode", "observation at step 1", "numpy's global generator"),
    "GlobalPython": ("A seed does not repeat an episode", "Python's global random"),
    "Clock": ("A seed does not repeat an episode", "an interrupted run cannot go on"),
    "SharedList": ("A seed does not repeat an episode", "SharedList.past belongs to all copies"),
    "SharedCounter": ("A seed does not repeat an episode", "SharedCounter.count belongs to all copies"),
    "SeedsGlobal": ("Copies are not independent", "numpy's global generator"),
    "SharedPlace": ("Copies are not independent", "SharedPlace.shared belongs to all copies"),
    "one_and_the_same": ("Copies are one and the same", "must make a new one at every call"),
    "CarriedOver": ("An episode depends on those before it", "observation at the first reset (0 and "),
    "OwnGenerator": ("An episode depends on those before it", "observation at step 1"),
    "NotANumber": ("breaks its word", "step 5: observation: nan at index [1] is not a finite float32 number"),
    "WrongShape": ("breaks its word", "reset: observation: expected float32[2], got float32[3]"),
    "FloatsForChoices": ("breaks its word", "expected int[2], got float32[2]"),
    "RewardOfNone": ("breaks its word", "step 1: reward: expected a number, got NoneType"),
    "RewardNaN": ("breaks its word", "reward: nan is not a finite float32 number"),
    "Raises": ("breaks its word", "step 9: ZeroDivisionError: division by zero"),
    "FourValues": ("breaks its word", "step must return (observation, reward, terminated, truncated, info)"),
    "NothingLegal": ("breaks its word", "step 7: no action is legal"),
    "MaskOfWrongShape": ("No algorithm takes it: action_mask must be of shape (3,)",),
    "OldSpaces": ("It cannot be trained in: observation: Text spaces are not supported",),
    "CompiledByNumpy": ("not pure: the same state, action and key gave",),
    "CompiledCounting": ("not pure: the same state, action and key gave",),
    "CompiledStartByNumpy": ("not pure: the same key began episodes that differ",),
    "CompiledNaN": ("The reward is not finite",),
    "CompiledDtype": ("was given the state float", "[2] and made float16[2] of it"),
    "CompiledBranch": ("TracerBoolConversionError",),
    "CompiledUnhashable": ("must be hashable",),
    "CompiledNoChoice": ("observation is no choice of Discrete(3): 0 to ",),
    "CompiledStuck": ("Episodes go on where the action_mask allows nothing",),
    "CompiledRemembering": ("changes its own attributes",),
}
UNWISE = {
    "Unbounded": ("action has no bounds on both sides",),
    "HugeBounds": ("action is bounded by 3e+38",),
    "OneAction": ("There is only one action",),
    "Unscaled": ("Observations are unscaled: observation[0] goes to ", "normalize_observations=True"),
    "Uneven": ("the spreads of their elements range from 0.0001",),
    "Bytes": ("holds whole numbers and goes to ", "declare them float32"),
    "LargeRewards": ("Rewards are large", "normalize_rewards=True"),
    "TinyRewards": ("Rewards are tiny", "normalize_rewards=True"),
    "Endless": ("No episode ended within 1,000 random steps, and no time limit is known",),
    "TerminatedAtTheLimit": ("All 25 episodes were terminated after exactly 40 steps", "say truncated instead"),
    "OutOfBounds": ("observation[0] leaves its space: ", "its bounds are -1 to 1"),
    "Rewritten": ("was written into by its next step",),
    "Blind": ("The observation was the same in all 1,000 steps",),
    "MaskInInfo": ("info holds an action_mask, of which no use is made",),
    "CompiledByIdentity": ("are not equal, or differ in their hash",),
    "CompiledEndless": ("no time limit is known",),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_way_of_being_wrong_is_said_and_no_other(name):
    found = td.check(getattr(examined, name), steps=1_000)
    assert len(found.wrong) == 1, found
    assert all(part in found.wrong[0] for part in WRONG[name]), found.wrong
    assert found.unwise == ()


@pytest.mark.parametrize("name", UNWISE)
def test_each_way_of_being_unwise_is_said_and_no_other(name):
    found = td.check(getattr(examined, name), steps=1_000)
    assert found.wrong == ()
    assert len(found.unwise) == 1, found
    assert all(part in found.unwise[0] for part in UNWISE[name]), found.unwise


SOUND = [
    f"gymnasium:{id}"
    for id in ("FrozenLake-v1", "FrozenLake8x8-v1", "Blackjack-v1", "CartPole-v1", "Acrobot-v1", "MountainCar-v0",
               "MountainCarContinuous-v0", "Pendulum-v1")
]  # fmt: skip


@pytest.mark.parametrize("id", SOUND)
def test_nothing_bad_is_said_of_a_sound_environment(id):
    found = td.check(id)
    assert found.wrong == ()
    assert all(sentence.startswith("Observations are unscaled: observation[") for sentence in found.unwise)
    assert found.facts["resuming"] == "exact"


@pytest.mark.parametrize("id", [pytest.param(id, marks=[pytest.mark.full] * (id != "CartPole-v1")) for id in twins()])
def test_nothing_bad_is_said_of_the_twins(id):
    found = td.check(id)
    assert found.wrong == ()
    true = ("Observations are unscaled: observation[", *("No episode ended", "Rewards are large") * ("Cliff" in id))
    assert all(sentence.startswith(true) for sentence in found.unwise)
    limit = environments.make(id, 1).max_steps
    assert limit is None or found.facts["time limit"] == f"{limit:,} steps"


def test_of_others_only_what_is_true_is_unwise():
    taxi = td.check("gymnasium:Taxi-v4", environment_arguments={"mask_from_info": True})
    assert (taxi.wrong, taxi.unwise) == ((), ())
    (unused,) = td.check("gymnasium:Taxi-v4").unwise
    assert "info holds an action_mask, of which no use is made" in unused
    endless, large = td.check("gymnasium:CliffWalking-v1").unwise
    assert "No episode ended within 2,000 random steps" in endless
    assert "Rewards are large" in large


@pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="MuJoCo is not installed")
def test_half_cheetah_is_unscaled_and_nothing_else():
    found = td.check("HalfCheetah-v4", steps=600)
    assert found.wrong == ()
    (unscaled,) = found.unwise
    assert unscaled.startswith("Observations are unscaled: observation[")
    assert "stored as float32" in found.facts["observation"]
    assert found.facts["newest version"] == "HalfCheetah-v5"


@pytest.mark.parametrize("id", ["CartPole-v1", "FrozenLake-v1", pytest.param("HalfCheetah-v5", marks=pytest.mark.full)])
def test_nothing_is_wrong_with_envpool_s(id):
    pytest.importorskip("envpool")
    found = td.check(f"envpool:{id}", steps=500)
    assert found.wrong == ()
    assert all(sentence.startswith("Observations are unscaled") for sentence in found.unwise)
    assert found.facts["resuming"].startswith("not exact" if id == "FrozenLake-v1" else "exact")


def test_a_sound_environment_of_one_s_own_is_healthy_host_and_compiled():
    found = td.check(examined.Sound)
    assert (found.wrong, found.unwise) == ((), ())
    assert str(found).startswith("Sound: healthy\n")
    assert repr(found) == str(found)
    assert found.facts["starts"] == "differ from seed to seed"
    found = td.check(examined.Compiled(drift=1.0), steps=500)
    assert (found.wrong, found.unwise) == ((), ())
    assert found.facts["algorithms"].startswith("ppo, a2c, trpo, impala, reinforce, sac")


def test_what_is_found_does_not_depend_on_the_seed_or_on_numpy_s_global_state():
    for seed in (1, 2, 10**6):
        np.random.seed(seed % 2**31)
        assert td.check(examined.Sound, seed=seed, steps=300).wrong == ()
        for name in ("GlobalNumpy", "SeedsGlobal", "CarriedOver", "SharedPlace"):
            (sentence,) = td.check(getattr(examined, name), seed=seed, steps=300).wrong
            assert sentence.startswith(WRONG[name][0])


def test_an_environment_that_can_exist_once_is_unwise():
    examined.OnlyOnce.there = 0
    found = td.check(examined.OnlyOnce, steps=300)
    assert found.wrong == ()
    (sentence,) = found.unwise
    assert "A second copy cannot be made beside the first" in sentence
    assert "the port is in use" in sentence


def test_an_object_is_played_in_itself_and_said_to_be_one():
    found = td.check(examined.Sound(), steps=300)
    assert (found.wrong, found.unwise) == ((), ())
    assert found.facts["copies"].startswith("one")
    (sentence,) = td.check(examined.CarriedOver(), steps=300).wrong
    assert sentence.startswith("An episode depends on those before it")


def test_floats_of_64_bits_that_float32_cannot_tell_apart_are_unwise():
    unscaled, coarse = td.check(examined.Timestamps, steps=300).unwise
    assert unscaled.startswith("Observations are unscaled")
    assert "apart only by 128" in coarse


def test_numbers_of_another_dtype_than_promised_are_a_fact():
    class Wide(examined.Sound):
        def observation(self):
            return super().observation().astype(np.float64)

    found = td.check(Wide, steps=300)
    assert (found.wrong, found.unwise) == ((), ())
    assert found.facts["observation"].endswith("given as float64")


def test_the_time_it_takes_is_bounded_and_slow_steps_are_said():
    began = time.monotonic()
    found = td.check(examined.Slow, seconds=1.5)
    assert time.monotonic() - began < 3.0
    (slow,) = found.unwise
    assert "Its steps are slow" in slow
    assert found.wrong == ()


def test_two_choices_at_once_dicts_and_tuples_are_looked_into():
    class Nested(examined.Sound):
        observation_space = spaces.Dict(a=spaces.Tuple([spaces.Box(-99.0, 99.0, (2,)), spaces.Discrete(3)]))
        action_space = spaces.MultiDiscrete([3, 3])

        def step(self, action):
            return super().step([action[0] - 1])

        def observation(self):
            return {"a": (np.float32([20 * self.place, 0]), 1)}

    found = td.check(Nested, steps=300)
    assert found.wrong == ()
    (sentence,) = found.unwise
    assert "observation['a'][0][0] goes to " in sentence
    assert found.facts["observation['a'][1]"] == "choice of 3"
    assert "1 of 2 never changed" in found.facts["observation['a'][0]"]


def test_ranges_are_those_of_all_numbers_at_once():
    numbers = np.random.default_rng(0).normal(1e4, [1.0, 50.0], (300, 2))
    ranges = Ranges((2,))
    for part in np.split(numbers, [1, 7, 200]):
        ranges.take(part)
    np.testing.assert_allclose(ranges.mean, numbers.mean(0), rtol=1e-12)
    np.testing.assert_allclose(ranges.spread, numbers.std(0), rtol=1e-9)
    np.testing.assert_array_equal(ranges.low, numbers.min(0))
    np.testing.assert_array_equal(ranges.reach, numbers.max(0))


def test_returns_and_lengths_are_counted_for_each_copy():
    environment = td.make("CartPole-v1", 2)
    environment.reset(random.key(0))
    seen = Seen(environment)
    ends = np.array([[0, 0], [1, 0], [0, 1]], bool)
    for end in ends:
        seen.take(np.zeros((2, 4), np.float32), np.array([1.0, -2.0]), end, np.zeros(2, bool))
    assert seen.lengths == [2, 3]
    assert seen.returns == pytest.approx(-2 * (1 + 0.99 + 0.99**2))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"environment": None}, td.SettingError),
        ({"environment": "CartPol-v1"}, td.UnknownNameError),
        ({"environment": "highway-v0"}, td.MissingExtraError),
        ({"environment": "CartPole-v1", "steps": 0}, td.SettingError),
        ({"environment": "CartPole-v1", "steps": "many"}, td.SettingError),
        ({"environment": "CartPole-v1", "seconds": float("nan")}, td.SettingError),
        ({"environment": "CartPole-v1", "seconds": "10"}, td.SettingError),
        ({"environment": "CartPole-v1", "seed": -1}, td.SettingError),
        ({"environment": "FrozenLake-v1", "environment_arguments": {"slip": 1}}, td.SettingError),
        ({"environment": "FrozenLake-v1", "environment_arguments": [1]}, td.SettingError),
        ({"environment": 5}, td.SettingError),
    ],
)
def test_what_cannot_be_examined_is_the_caller_s_error(arguments, error):
    with pytest.raises(error):
        td.check(**arguments)


def test_the_command_leaves_with_1_only_where_something_is_wrong(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import gymnasium, examined\n"
        "gymnasium.register('Mine-v0', entry_point=examined.Raises)\n"
        "gymnasium.register('Big-v0', entry_point=examined.Unscaled)\n"
    )
    assert cli.main(["check", "mine:Mine-v0"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("mine:Mine-v0: something is wrong\n\nWRONG\n- It breaks its word")
    assert cli.main(["check", "mine:Big-v0", "--steps", "1e2", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "\nUNWISE\n- Observations are unscaled" in out
    assert "WRONG" not in out
    assert max(map(len, out.splitlines())) < 130
    assert cli.main(["check", "FrozenLake-v1", "--environment.is-slippery", "false", "--seconds", "2"]) == 0
    assert capsys.readouterr().out.startswith("FrozenLake-v1: healthy\n")


@settings(deadline=None, max_examples=15, database=None, suppress_health_check=list(HealthCheck))
@given(broken_environments())
def test_environments_that_do_as_they_please_end_in_a_report_or_in_a_typed_error(behaviour):
    try:
        found = td.check(environment_of(behaviour), steps=30)
    except td.ThorndikeError as error:
        check_said(error)
        return
    assert str(found).replace("\n", "").isprintable()
    assert found.wrong or play_as_told(behaviour) is None


def test_what_is_found_is_frozen():
    found = td.check("FrozenLake-v1", steps=10)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.wrong = ()
    assert isinstance(found, td.Examination)


def test_environments_are_closed_but_for_an_object_of_the_user_s():
    closed = []

    class Closing(examined.Sound):
        def close(self):
            closed.append(self)

    td.check(Closing, steps=50)
    assert len(closed) >= 4
    closed.clear()
    td.check(Closing(), steps=50)
    assert closed == []
