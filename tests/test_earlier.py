"""What earlier versions wrote down is read as what it meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from hostile import newest, rewrite
from test_runs import same_arrays
from thorndike.hyperparameters import hyperparameters, setting, to_json
from thorndike.networks import MLP
from thorndike.runs import configuration

SMALL = {"network": MLP((4,)), "num_environments": 2}
MEMORY = td.Replay(sequence=4, burn_in=2)


@hyperparameters
class Mine(td.DQN):
    """A class of the user's own that is one of ours."""


@hyperparameters
class WithBeta(td.DQN):
    """With a number of its own that once bore the name of one of ours."""

    beta: float = setting(0.9, low=0)


@hyperparameters
class Diary(td.Prioritized):
    """A memory of the user's own."""


def read(algorithm, own=(), **earlier):
    """An algorithm as it is written today, but for the `earlier` words of it, read as by a run of then."""
    values = to_json(algorithm) | earlier
    if isinstance(values.get("memory"), dict):
        values["memory"].pop("beta", None)
    return configuration.algorithm_from_json(values, dict(own), Path("run"), 2)


def test_beta_becomes_the_memorys_where_it_had_an_effect():
    weighted = td.Prioritized(beta=0.7)
    assert read(td.DQN(), beta=0.7) == td.DQN(memory=td.Prioritized(20_000, 64, 5, beta=0.7))
    assert read(td.SAC(memory=weighted), beta=0.7) == td.SAC(memory=weighted)
    assert read(td.SAC(), beta=0.7) == td.SAC()
    mine, handed_in = Mine(memory=Diary(beta=0.7)), {"algorithm": Mine, "memory": Diary}
    assert read(mine, handed_in, beta=0.7) == mine
    assert read(WithBeta(beta=0.3, memory=weighted), {"algorithm": WithBeta}) == WithBeta(
        beta=0.3, memory=td.Prioritized()
    )


@pytest.mark.parametrize(("share", "end"), [(1.0, None), (1, None), (0.0, 0.0), (0.5, 5e-4)])
def test_the_end_of_a_schedule_was_a_share_of_its_beginning(share, end):
    assert read(td.TD3(), learning_rate_end=share) == td.TD3(learning_rate_end=end)
    earlier = {"learning_rate_end": share, "clip_range_end": share}
    expected = td.PPO(learning_rate=1e-3, learning_rate_end=end, clip_range_end=None if end is None else share * 0.2)
    assert read(td.PPO(learning_rate=1e-3), **earlier) == expected
    assert read(td.DQN(epsilon_end=0.5), learning_rate_end=share).epsilon_end == 0.5  # a value as ever


def test_a_run_of_an_earlier_version_goes_on_as_if_it_had_been_of_this_one(tmp_path):
    algorithm = td.DQN(
        network=MLP((4,)), learning_rate_end=5e-4, num_environments=2, rollout_length=8, updates_per_rollout=1,
        warmup_steps=16, memory=td.Prioritized(64, 8, beta=0.7),
    )  # fmt: skip
    options = {"evaluate_every": 0, "evaluation_copies": 2, "quiet": True}
    td.train(algorithm, "CartPole-v1", 128, run_dir=tmp_path / "whole", **options)
    td.train(algorithm, "CartPole-v1", 128, run_dir=tmp_path / "run", checkpoint_every=64, **options)
    shutil.rmtree(newest(tmp_path / "run"))
    (tmp_path / "run" / "summary.json").unlink()

    def before(values):
        del values["algorithm"]["memory"]["beta"]
        values["algorithm"] |= {"beta": 0.7, "learning_rate_end": 0.5}
        values["format"] = 2

    rewrite(tmp_path / "run" / "config.json", before)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["format"] == 2
    resumed = td.resume(tmp_path / "run", quiet=True)
    assert resumed.configuration.algorithm == algorithm
    assert json.loads((tmp_path / "run" / "config.json").read_text())["format"] == configuration.FORMAT
    same_arrays(tmp_path / "run", tmp_path / "whole", [0])


def test_an_agent_of_an_earlier_version_is_read(tmp_path):
    agent = td.Agent.load(saved(tmp_path / "agent"))
    assert agent.algorithm == td.DQN(**SMALL, learning_rate_end=None)


def saved(folder):
    """The folder of an agent, as it was written once."""
    algorithm, around = td.DQN(**SMALL), (spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2))
    td.Agent(algorithm, algorithm.init(jax.random.key(0), *around), *around).save(folder)

    def before(values):
        del values["algorithm"]["memory"]["beta"]
        values["algorithm"] |= {"beta": 0.4, "learning_rate_end": 1.0}
        values["format"] = 1

    rewrite(folder / "agent.json", before)
    return folder


@pytest.mark.parametrize("values", [{"beta": 7.0}, {"beta": {"type": "MLP"}}, {"memory": "large", "beta": 0.4}])
def test_what_never_was_a_value_is_refused_as_ever(values):
    with pytest.raises((td.SettingError, ValueError)):
        read(td.DQN(), **values)


def test_a_dueling_network_was_a_recipes_choice():
    """Also in the head of a network with a memory, and whichever the other recipes had chosen."""
    for network, duels in ((MLP((3,)), True), (MLP((3,)), False), (td.GRU(8), True)):
        values = to_json(td.DQN(network=network, memory=MEMORY))
        del values["dueling"]
        recipe = values["network"]
        (recipe["head"] if isinstance(network, td.GRU) else recipe)["head"] = "dueling" if duels else "linear"
        if isinstance(network, td.GRU):
            recipe["torso"]["head"] = "linear"
        again = configuration.algorithm_from_json(values, {}, Path("run"), 3)
        assert again == td.DQN(network=network, memory=MEMORY, dueling=duels)
    values = to_json(td.PPO())
    values["network"]["head"] = "dueling"  # which was taken and of no use
    assert configuration.algorithm_from_json(values, {}, Path("run"), 3) == td.PPO()
