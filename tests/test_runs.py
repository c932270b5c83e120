"""Runs: what a folder holds, that resuming equals never having stopped, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
import threading
import warnings

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from hostile import rewrite
from thorndike import compilation, hyperparameters, names, settings
from thorndike.interface import console
from thorndike.networks import MLP
from thorndike.optimizers import Optimizer
from thorndike.runs import configuration, records
from thorndike.runs.checkpoints import newest

ALGORITHM = td.DQN(
    network=MLP((8,)),
    num_environments=2,
    rollout_length=4,
    updates_per_rollout=1,
    warmup_steps=16,
    memory=td.Replay(capacity=64, batch_size=8),
)
STEPS = 400  # 50 iterations
OPTIONS = {"quiet": True, "evaluate_episodes": 10, "final_episodes": 10}
PAIR = OPTIONS | {"seeds": 2}  # compiled once for all tests: a lone seed would be another program


class Walk(gymnasium.Env):
    """Stand near 1 on a line: Dict observations with a float64 part, an asymmetric action, truncation only."""

    observation_space = spaces.Dict({"place": spaces.Box(-10, 10, (2,), np.float64), "side": spaces.Discrete(2)})
    action_space = spaces.Box(-1.0, 3.0, (1,), np.float32)

    def __init__(self, length: int = 8):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = float(self.np_random.uniform(-1, 1)), 0
        return self._observed(), {}

    def step(self, action):
        self.place = float(np.clip(self.place + 0.1 * action[0], -10, 10))
        self.steps += 1
        return self._observed(), -abs(self.place - 1), False, self.steps >= self.length, {}

    def _observed(self):
        return {"place": np.array([self.place, 1.0]), "side": int(self.place > 0)}


GRADIENT = td.PPO(network=MLP((8,)), critic_network=None, num_environments=2, rollout_length=8, batch_size=8, epochs=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two seeds, not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return td.train(ALGORITHM, "CartPole-v1", STEPS, seed=3, run_dir=folder, **PAIR)


class Interrupting(console.Silence):
    """A display that sends a signal to this process at a certain chunk."""

    def __init__(self, number, at):
        self.number, self.left = number, at

    def chunk(self, chunk, rate):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)


def interrupted(monkeypatch, number=signal.SIGINT, at=3):
    monkeypatch.setattr(console, "display", lambda story, quiet: Interrupting(number, at))


def same_rows(first, second):
    timeless = [{k: v for k, v in row.items() if k not in ("seconds", "steps_per_second")} for row in first]
    assert timeless == [{k: v for k, v in row.items() if k not in ("seconds", "steps_per_second")} for row in second]


def rows_of(folder):
    return sorted(records.read(folder), key=lambda row: (row["seed"], row["steps"]))


def same_arrays(first, second, seeds):
    for seed in seeds:
        a, b = newest(first / "checkpoints").arrays(seed), newest(second / "checkpoints").arrays(seed)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_run_folder_holds_what_the_design_says(finished):
    folder = finished.folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "summary.json",
    ]
    last = folder / "checkpoints" / "step-000000400"
    kept = [f"best-{best['seed']}-{best['iteration']}.safetensors" for best in finished.summary["best"]]
    assert sorted(path.name for path in last.iterdir()) == [
        *kept,
        "manifest.json",
        "seed-3.safetensors",
        "seed-4.safetensors",
    ]
    summary = json.loads((folder / "summary.json").read_text())
    statistics = {"episodes", "mean", "std", "iqm", "ci95", "episode_std", "per_seed"}
    assert summary.pop("digest")
    assert summary.pop("run") == finished.configuration.id
    assert set(summary) == {
        "algorithm",
        "environment",
        "steps",
        "seeds",
        "evaluation",
        "best",
        "training",
        "seconds",
        "steps_per_second",
    }
    assert (summary["algorithm"], summary["environment"]) == ("dqn", "CartPole-v1")
    assert (summary["steps"], summary["seeds"]) == (400, 2)
    assert set(summary["training"]) == statistics
    assert set(summary["evaluation"]) == statistics | {"unfinished"}
    assert summary["evaluation"]["episodes"] == 20
    assert len(summary["evaluation"]["per_seed"]) == 2
    assert set(summary["seconds"]) == {"compile", "train", "evaluate", "total"}
    assert summary == json.loads(json.dumps(finished.summary))
    config = json.loads((folder / "config.json").read_text())
    single_steps = {"window": 1, "sequence": 1, "burn_in": 0, "stored_carry": True}
    assert config["algorithm"]["memory"] == {"type": "Replay", "capacity": 64, "batch_size": 8} | single_steps
    assert (config["seed"], config["seeds"], config["steps"]) == (3, 2, 400)
    assert config["history"][0]["versions"]["jax"] == jax.__version__


def test_rows_of_metrics_bear_the_words_of_the_design(finished):
    rows = rows_of(finished.folder)
    assert {row["seed"] for row in rows} == {3, 4}
    assert [row["steps"] for row in rows if row["seed"] == 3] == list(range(8, 401, 8))
    assert all({"seconds", "episodes", "steps_per_second"} <= set(row) for row in rows)
    assert all("loss" in row for row in rows if row["steps"] > 16)
    evaluated = [row["steps"] for row in rows if row["seed"] == 3 and "evaluation_mean" in row]
    assert evaluated == list(range(40, 401, 40))  # ten times a run
    metrics = finished.metrics
    assert len(metrics["return_mean"]) == len(rows) == 100
    assert np.isnan(metrics["evaluation_mean"]).sum() == 80


def other(value):
    """Another value than a setting's default, within its limits."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value
    if value is None or isinstance(value, float):
        return value / 2 if value else 0.5
    if isinstance(value, td.Replay):
        return td.Prioritized(capacity=20_480, batch_size=64, window=3, alpha=0.25)
    if isinstance(value, td.Latest):
        return td.Replay(capacity=20_480, sequence=16)
    if isinstance(value, Optimizer):
        return td.SGD(momentum=0.5)
    if isinstance(value, td.RenormalizedMLP):
        return td.RenormalizedMLP((3,))
    return "huber" if value == "squared" else MLP((3,), activation="relu")


@pytest.mark.parametrize("cls", [getattr(td, name) for name in names.ALGORITHMS])
def test_no_setting_changes_by_being_written_and_read(cls):
    changed = {field.name: other(field.default) for field in dataclasses.fields(cls)}
    changed |= {"rescale_values": False} if "rescale_values" in changed else {}  # None, True or False
    changed |= {"munchausen": False} if issubclass(cls, td.C51) else {}  # which it refuses
    changed |= {"policy_delay": 4} if "policy_delay" in changed else {}  # parts of a batch of 64
    changed |= {"intrinsic": td.Counts(bits=3)} if "intrinsic" in changed else {}
    for name in ("learning_rate", "clip_range"):  # a value at most as large as the beginning
        if f"{name}_end" in changed:
            changed[f"{name}_end"] = changed[name] / 4
    algorithm = cls(**changed)
    written = json.loads(json.dumps(hyperparameters.to_json(algorithm)))
    assert hyperparameters.from_json(written, configuration.hyperparameter_classes()) == algorithm


def test_a_loaded_run_is_the_run(finished):
    loaded = td.load(finished.folder)
    assert loaded.summary == finished.summary
    for name, column in finished.metrics.items():
        np.testing.assert_array_equal(loaded.metrics[name], column)
    assert len(loaded.agents) == 2
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    for agent, again in zip(finished.agents, loaded.agents, strict=True):
        np.testing.assert_array_equal(agent.act(observations), again.act(observations))
    assert loaded.evaluate(10) == finished.evaluate(10)


def test_an_agent_takes_one_observation_or_a_batch(finished):
    agent = finished.agent
    one = agent.act(np.zeros(4, np.float32))
    assert np.shape(one) == ()
    assert finished.configuration.action_space.contains(one)
    batch = agent.act(np.zeros((3, 4), np.float32))
    assert batch.shape == (3,)
    assert (batch == one).all()
    assert agent.act(np.zeros(4, np.float64)) == one
    explored = {int(agent.act(np.zeros(4, np.float32), explore=True)) for _ in range(200)}
    assert explored == {0, 1}  # epsilon is 0.05 at the end
    for wrong in (np.zeros(5, np.float32), np.zeros((2, 3, 4), np.float32), "no", np.full(4, np.nan, np.float32)):
        with pytest.raises(ValueError):  # noqa: PT011
            agent.act(wrong)
    assert agent.network(np.zeros((3, 4), np.float32)).shape == (3, 2)


@pytest.mark.parametrize(
    ("number", "error", "code"), [(signal.SIGINT, KeyboardInterrupt, None), (signal.SIGTERM, SystemExit, 143)]
)
def test_resuming_after_a_signal_equals_never_having_stopped(tmp_path, monkeypatch, finished, number, error, code):
    folder = tmp_path / "run"
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        interrupted(patch, number, at=30)
        with pytest.raises(error) as caught:
            td.train(ALGORITHM, "CartPole-v1", STEPS, seed=3, run_dir=folder, **PAIR)
    if code:
        assert caught.value.code == code
    else:
        assert f"thorndike resume {folder}" in str(caught.value)
    assert signal.getsignal(number) is before
    assert not (folder / "summary.json").exists()
    stopped = newest(folder / "checkpoints")
    assert 0 < stopped.manifest["steps"] < STEPS
    run = td.resume(folder, quiet=True)
    same_rows(rows_of(folder), rows_of(finished.folder))
    same_arrays(folder, finished.folder, (3, 4))
    assert run.summary["evaluation"] == finished.summary["evaluation"]
    assert run.summary["training"] == finished.summary["training"]
    assert len(json.loads((folder / "config.json").read_text())["history"]) == 2


def test_resuming_on_the_host_equals_never_having_stopped(tmp_path, monkeypatch):
    """Seeds one after another: the first is done when the second is stopped."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    td.train(GRADIENT, Walk, 320, seeds=2, run_dir=whole, **OPTIONS)
    with monkeypatch.context() as patch:
        interrupted(patch, at=30)
        with pytest.raises(KeyboardInterrupt):
            td.train(GRADIENT, Walk, 320, seeds=2, run_dir=parts, **OPTIONS)
    assert newest(parts / "checkpoints").seeds[0]["iteration"] == 20
    with pytest.raises(td.RunError, match="hand it in again"):
        td.resume(parts, quiet=True)
    run = td.resume(parts, environment=Walk, quiet=True)
    same_rows(rows_of(parts), rows_of(whole))
    same_arrays(parts, whole, (0, 1))
    assert run.summary["evaluation"] == json.loads((whole / "summary.json").read_text())["evaluation"]
    action = run.agents[0].act({"place": np.zeros(2), "side": 1})
    assert action.shape == (1,)
    assert -1 <= action[0] <= 3
    batch = {"place": np.zeros((5, 2)), "side": np.ones(5, np.int64)}
    assert run.agent.act(batch).shape == (5, 1)
    loaded = td.load(parts)
    np.testing.assert_array_equal(loaded.agent.act(batch), run.agent.act(batch))
    with pytest.raises(td.RunError, match="hand it in again"):
        loaded.evaluate(10)
    assert td.load(parts, environment=Walk).evaluate(10) == run.evaluate(10)


def test_a_crash_costs_one_interval_and_repeats_no_row(tmp_path, finished):
    folder = tmp_path / "run"

    class Crashing(console.Silence):
        def chunk(self, chunk, rate):
            if chunk.steps >= 250:
                raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "display", lambda story, quiet: Crashing())
        with pytest.raises(RuntimeError):
            td.train(ALGORITHM, "CartPole-v1", STEPS, seed=3, run_dir=folder, **PAIR)
    assert 0 < newest(folder / "checkpoints").manifest["steps"] < 250
    td.resume(folder, quiet=True)
    same_rows(rows_of(folder), rows_of(finished.folder))
    same_arrays(folder, finished.folder, (3, 4))


def test_a_run_that_never_reached_a_checkpoint_begins_anew(tmp_path, finished):
    folder = tmp_path / "run"

    class Crashing(console.Silence):
        def chunk(self, chunk, rate):
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "display", lambda story, quiet: Crashing())
        with pytest.raises(RuntimeError):
            td.train(ALGORITHM, "CartPole-v1", STEPS, seed=3, run_dir=folder, **PAIR)
    with pytest.raises(td.RunError, match="no checkpoint yet"):
        td.load(folder)
    td.resume(folder, quiet=True)
    same_arrays(folder, finished.folder, (3, 4))


def test_a_run_can_be_extended_and_says_so(tmp_path):
    folder = tmp_path / "run"
    td.train(ALGORITHM, "CartPole-v1", 200, run_dir=folder, **PAIR)
    with pytest.raises(td.RunError, match="complete"):
        td.resume(folder)
    with pytest.raises(td.RunError, match="already"):
        td.resume(folder, 100)
    run = td.resume(folder, 300, quiet=True)
    assert run.summary["steps"] == 304
    steps = run.metrics["steps"][run.metrics["seed"] == 0]
    assert list(steps) == sorted(set(steps))
    config = json.loads((folder / "config.json").read_text())
    assert [entry["steps"] for entry in config["history"]] == [200, 300]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, finished):
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, at=80)
        with pytest.raises(KeyboardInterrupt):
            td.train(ALGORITHM, "CartPole-v1", STEPS, seed=3, run_dir=folder, **PAIR)
    damaged = newest(folder / "checkpoints").path
    os.truncate(damaged / "seed-3.safetensors", 100)
    with pytest.warns(UserWarning, match=f"{damaged.name} is corrupted"):
        td.load(folder)
    with pytest.warns(UserWarning, match=f"{damaged.name} is corrupted"):
        td.resume(folder, quiet=True)
    same_rows(rows_of(folder), rows_of(finished.folder))
    same_arrays(folder, finished.folder, (3, 4))


def test_evaluating_and_saving_change_nothing(finished):
    chunks = {}
    for chunk in td.training(ALGORITHM, "CartPole-v1", STEPS, seeds=2, seed=3):
        chunks[chunk.seed] = chunk.arrays() if chunk.last else None
    for seed in (3, 4):
        saved = newest(finished.folder / "checkpoints").arrays(seed)
        for name, array in chunks[seed].items():
            np.testing.assert_array_equal(array, saved[name], err_msg=name)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = td.train(ALGORITHM, "CartPole-v1", 80, run_dir=None, evaluate_every=0, **PAIR)
    assert list(tmp_path.iterdir()) == []
    assert run.folder is None
    assert run.summary["evaluation"] is None
    assert "evaluation_mean" not in run.metrics
    assert run.evaluate(10)["episodes"] == 20


def test_a_folder_names_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [td.train(ALGORITHM, "CartPole-v1", 24, evaluate_every=0, **PAIR).folder for _ in range(2)]
    assert len({*folders}) == 2
    assert all(str(folder).startswith(os.path.join("runs", "dqn-CartPole-v1-")) for folder in folders)


def test_checkpoints_only_at_the_end_when_asked(tmp_path):
    td.train(ALGORITHM, "CartPole-v1", 80, run_dir=tmp_path, checkpoint_every=0, evaluate_every=0, **PAIR)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000080"]


def test_an_environments_fault_leaves_nothing_broken(tmp_path):
    class Failing(Walk):
        def step(self, action):
            if self.place > 1:
                raise ValueError("fell off")
            return super().step(action)

    with pytest.raises(td.EnvironmentFault, match="fell off"):
        td.train(GRADIENT, Failing, 3_200, run_dir=tmp_path / "run", **OPTIONS)
    found = newest(tmp_path / "run" / "checkpoints")
    assert found is None or found.manifest["steps"] > 0
    assert not (tmp_path / "run" / ".lock").exists()
    assert not (tmp_path / "run" / "summary.json").exists()


def test_environment_arguments_reach_the_environment_and_the_record(tmp_path):
    run = td.train(GRADIENT, Walk, 64, length=3, run_dir=tmp_path / "run", **OPTIONS)
    assert set(run.metrics["episode_length_mean"]) == {3.0}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["environment_arguments"] == {"length": 3}
    again = td.train(GRADIENT, Walk, 64, environment_arguments={"length": 3}, run_dir=None, **OPTIONS)
    assert set(again.metrics["episode_length_mean"]) == {3.0}
    with pytest.raises(td.SettingError, match="recorded as JSON"):
        td.train(GRADIENT, Walk, 64, length=object(), run_dir=None)


def test_a_network_of_the_users_own_is_handed_in_again(tmp_path):
    def init(key, observation, outputs):
        return {"w": jax.random.normal(key, (observation.shape[-1], outputs))}

    def apply(parameters, x):
        return x @ parameters["w"]

    plain = td.REINFORCE(baseline_network=None, num_environments=2, rollout_length=8)
    quick = OPTIONS | {"evaluate_every": 0}
    run = td.train(plain, "CartPole-v1", 80, network=(init, apply), run_dir=tmp_path / "run", **quick)
    with pytest.raises(td.RunError, match="network of your own as network"):
        td.load(tmp_path / "run")
    loaded = td.load(tmp_path / "run", network=(init, apply))
    np.testing.assert_array_equal(loaded.agent.network["w"], run.agent.network["w"])
    run = td.resume(tmp_path / "run", 128, network=(init, apply), quiet=True)
    assert run.summary["steps"] == 128


def stranger(folder, finished, **changes):
    """A copy of a finished run whose config.json was changed."""
    shutil.copytree(finished.folder, folder)
    rewrite(folder / "config.json", lambda config: config.update(changes))
    return folder


def test_a_module_named_in_a_run_folder_is_refused_until_named_again(tmp_path, finished, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('code of a stranger ran')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("trap:CartPole-v1", "gymnasium:trap:CartPole-v1"):
        folder = stranger(tmp_path / name.replace(":", "_"), finished, environment=name)
        run = td.load(folder)
        assert run.agent.act(np.zeros(4, np.float32)) in (0, 1)
        with pytest.raises(td.UnsafeCheckpointError, match="trap"):
            run.evaluate(10)
        with pytest.raises(td.UnsafeCheckpointError, match=rf"--environment {name},"):
            td.resume(folder, 480)
        assert "trap" not in sys.modules
        assert td.resume(folder, 480, environment="CartPole-v1", quiet=True).summary["steps"] == 480


HOSTILE = {
    "a class that is not ours": {"algorithm": {"type": "Popen", "args": "true"}},
    "a recipe as algorithm": {"algorithm": {"type": "MLP", "sizes": [3]}},
    "no algorithm": {"algorithm": None},
    "a field that is not there": {"algorithm": {"type": "DQN", "hook": "os.system"}},
    "limits broken": {"algorithm": {"type": "DQN", "gamma": 7}},
    "a list for a number": {"algorithm": {"type": "DQN", "learning_rate": [1, 2]}},
    "recipes for a number": {"algorithm": {"type": "DQN", "learning_rate": {"type": "MLP"}}},
    "text for a recipe": {"algorithm": {"type": "DQN", "memory": "large"}},
    "a space that is not there": {"observation_space": {"type": "Graph"}},
    "an absurd space": {
        "observation_space": {"type": "Box", "shape": [2**40], "dtype": "float32", "low": 0, "high": 1}
    },
    "seeds without end": {"seeds": 10**12},
    "steps as text": {"steps": "many"},
    "negative steps": {"steps": -5},
    "no history": {"history": None},
    "an unknown key": {"callback": "trap"},
    "a format of the future": {"format": 99},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_configuration_from_a_stranger_is_data_or_refused(tmp_path, finished, changes):
    folder = stranger(tmp_path / "run", finished, **changes)
    with pytest.raises(td.ThorndikeError):
        td.load(folder)


def test_a_pickle_in_the_place_of_arrays_is_refused(tmp_path, finished):
    import hashlib
    import pickle

    folder = stranger(tmp_path / "run", finished)
    for checkpoint in (folder / "checkpoints").iterdir():
        path = checkpoint / "seed-3.safetensors"
        path.write_bytes(pickle.dumps({"state/network": [1, 2, 3]}))
        written = {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        rewrite(checkpoint / "manifest.json", lambda manifest, written=written: manifest["seeds"]["3"].update(written))
    with pytest.raises(td.CorruptCheckpointError):
        td.load(folder)


def test_arrays_that_do_not_fit_are_refused(tmp_path, finished):
    config = json.loads((finished.folder / "config.json").read_text())
    config["algorithm"]["network"]["sizes"] = [9]
    folder = stranger(tmp_path / "run", finished, algorithm=config["algorithm"])
    with pytest.raises(td.CorruptCheckpointError, match="does not fit"):
        td.load(folder)


def test_an_environment_of_another_kind_is_refused_on_resume(tmp_path, finished):
    folder = stranger(tmp_path / "run", finished)
    with pytest.raises(td.RunError, match=r"observation_space was .* now it is"):
        td.resume(folder, 480, environment="MountainCar-v0")
    with pytest.raises(td.RunError, match="compiled"):
        td.resume(folder, 480, environment="gymnasium:CartPole-v1")


BAD = {
    "an algorithm misspelt": (lambda: td.train("dqm", "CartPole-v1"), "Did you mean 'dqn'"),
    "an environment misspelt": (lambda: td.train(ALGORITHM, "CartPol-v1", 80), "Did you mean 'CartPole-v1'"),
    "no steps": (lambda: td.train(ALGORITHM, "CartPole-v1"), "steps=50_000"),
    "zero steps": (lambda: td.train(ALGORITHM, "CartPole-v1", 0), "steps must be at least 1, got 0"),
    "half a step": (lambda: td.train(ALGORITHM, "CartPole-v1", 0.5), "steps must be a whole number"),
    "no seeds": (lambda: td.train(ALGORITHM, "CartPole-v1", 80, seeds=0), "seeds must be at least 1"),
    "a negative seed": (lambda: td.train(ALGORITHM, "CartPole-v1", 80, seed=-1), "seed must be at least 0"),
    "their word for steps": (lambda: td.train(ALGORITHM, "CartPole-v1", total_timesteps=80), "here it is steps"),
    "their word for the folder": (lambda: td.train(ALGORITHM, "CartPole-v1", 80, log_dir="x"), "here it is run_dir"),
    "an algorithm's word": (lambda: td.train("ppo", "CartPole-v1", gamma=0.9), r"td.train\(td.PPO\(gamma=...\), ...\)"),
    "their word for an algorithm's": (
        lambda: td.train("dqn", "CartPole-v1", steps=10, lr=0.9),
        r"'lr' is here learning_rate, and belongs to the algorithm: td.train\(td.DQN\(learning_rate=...\), ...\)",
    ),
    "their word for a memory's": (
        lambda: td.train("dqn", "CartPole-v1", steps=10, buffer_size=9),
        r"'buffer_size' is here memory.capacity, .*td.train\(td.DQN\(memory=...\), ...\)",
    ),
    "another algorithm's": (lambda: td.train("dqn", "CartPole-v1", 9, n_epochs=9), "epochs, which DQN does not have"),
    "too many steps": (lambda: td.train(ALGORITHM, "CartPole-v1", 1e99), "steps must be at most 9,007,199,254,740,992"),
    "their word for the environment": (lambda: td.train(ALGORITHM, env="CartPole-v1"), "here it is environment"),
    "no environment": (lambda: td.train(ALGORITHM), "which environment"),
    "their word on resuming": (lambda: td.resume("x", total_timesteps=9), "there is steps"),
    "a slip": (lambda: td.train(ALGORITHM, "CartPole-v1", 80, run_dirr="x"), "Did you mean 'run_dir'"),
    "an argument of nobody": (lambda: td.train(ALGORITHM, "CartPole-v1", 80, zebra=1, run_dir=None), "zebra"),
    "no algorithm at all": (lambda: td.train(3, "CartPole-v1", 80), "an algorithm is a name or an object"),
    "an unsuitable pair": (lambda: td.train(ALGORITHM, "Pendulum-v1", 80), "These fit: ppo, "),
    "not a run folder": (lambda: td.load("nowhere"), "nowhere is not a run folder"),
    "evaluating nothing": (lambda: td.train(ALGORITHM, "CartPole-v1", 80, evaluate_episodes=0), "evaluate_episodes"),
}


@pytest.mark.parametrize(("call", "answer"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_answered_in_one_line_and_writes_nothing(tmp_path, monkeypatch, call, answer):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(td.ThorndikeError, match=answer) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


WRONG_KINDS = {
    "a list for a number": (lambda: td.DQN(learning_rate=[1, 2]), r"learning_rate must be a number, got \[1, 2\]"),
    "text for a number": (lambda: td.DQN(gamma="0.9"), "gamma must be a number, got '0.9'"),
    "a number for a memory": (lambda: td.DQN(memory=5), "memory must be a Replay, got 5"),
    "a memory that keeps nothing": (lambda: td.DQN(memory=td.Latest()), "memory must be a Replay"),
    "a class for a memory": (lambda: td.DQN(memory=td.Replay), "memory must be a Replay"),
    "a dict for a count": (lambda: td.DQN(rollout_length={}), "rollout_length must be a whole number, got {}"),
    "half a count": (lambda: td.DQN(rollout_length=2.5), "rollout_length must be a whole number, got 2.5"),
    "a list for a word": (lambda: td.DQN(loss=["huber"]), "loss must be one of 'huber', 'squared'"),
    "a number for a switch": (lambda: td.DQN(double=5), "double must be True or False, got 5"),
    "text for an optional number": (lambda: td.SAC(ent_coef="auto"), "ent_coef must be a number or None, got 'auto'"),
    "infinite learning": (lambda: td.DQN(learning_rate=float("inf")), "learning_rate must be .*finite, got inf"),
    "learning too large for a float": (lambda: td.DQN(learning_rate=10**400), "learning_rate must be .*finite"),
    "an infinite target": (lambda: td.SAC(target_entropy=float("-inf")), "target_entropy must be finite, got -inf"),
    "a count of many lines": (lambda: td.DQN(rollout_length=np.zeros((30, 30))), "rollout_length must be a whole"),
    "n-step returns": (lambda: td.DQN(n_steps=3), "here it is rollout_length, or memory.window for n-step returns"),
    "n-step returns nowhere": (lambda: td.PPO(n_steps=3), "here it is rollout_length$"),
}


@pytest.mark.parametrize(("call", "answer"), WRONG_KINDS.values(), ids=WRONG_KINDS.keys())
def test_hyperparameters_of_a_wrong_kind_are_answered_in_one_line(call, answer):
    with pytest.raises(td.ThorndikeError, match=answer) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 150


def test_infinity_passes_where_it_turns_something_off():
    infinity = float("inf")
    assert td.PPO(target_kl=infinity, max_grad_norm=infinity).max_grad_norm == infinity
    assert td.TD3(target_noise_clip=infinity).target_noise_clip == infinity


def test_numbers_of_numpy_and_arrays_are_hyperparameters_too():
    algorithm = td.DQN(
        double=np.False_, rollout_length=np.int64(4), gamma=np.float64(0.5), learning_rate=jax.numpy.ones(3)
    )
    assert (algorithm.double, algorithm.rollout_length, algorithm.gamma) == (False, 4, 0.5)
    assert type(algorithm.rollout_length) is int
    assert algorithm.learning_rate.shape == (3,)


def test_a_run_folder_that_exists_is_refused(tmp_path, finished):
    with pytest.raises(td.RunError, match="exists already: thorndike resume"):
        td.train(ALGORITHM, "CartPole-v1", 80, run_dir=finished.folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(td.RunError, match="exists already"):
        td.train(ALGORITHM, "CartPole-v1", 80, run_dir=tmp_path / "file")


def test_a_name_takes_the_recorded_settings_and_an_object_is_used_as_it_is(monkeypatch):
    monkeypatch.setitem(settings.RECORDED, ("dqn", "CartPole-v1"), settings.Recorded(ALGORITHM, 80, "a test"))
    run = td.train("dqn", "CartPole-v1", run_dir=None, evaluate_every=0, **PAIR)
    assert run.configuration.algorithm == ALGORITHM
    assert run.summary["steps"] == 80
    assert settings.recorded("DQN", "gymnasium:CartPole-v1").algorithm == ALGORITHM
    assert settings.recorded("dqn", Walk) is None


def test_every_recorded_setting_names_things_that_exist():
    from thorndike import algorithms, environments
    from thorndike.environments.advice import package_of
    from thorndike.environments.suites import SUITES

    known = {*environments.known_ids(), *(suite.example for suite in SUITES.values())}
    for (algorithm, environment), recorded in settings.RECORDED.items():
        assert type(recorded.algorithm) is algorithms.get(algorithm)
        # A package may not be installed, and a prefix stands for a family.
        assert environment in known or package_of(environment) or environment == environments.ATARI
        assert recorded.steps > 0


def test_what_counts_as_solved_is_what_gymnasium_says():
    for name, threshold in settings.SOLVED_AT.items():
        assert gymnasium.spec(name).reward_threshold == threshold
    assert settings.solved_at("gymnasium:CartPole-v1") == 475
    assert settings.solved_at(Walk) is None


@pytest.mark.full
def test_seeds_as_one_program_are_saved_in_step(tmp_path, monkeypatch):
    """As on an accelerator: all seeds are one `vmap`, and one that is ahead could not go on with the others."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    quick = OPTIONS | {"evaluate_every": 0}
    td.train(ALGORITHM, "CartPole-v1", STEPS, seeds=2, run_dir=whole, **quick)
    with monkeypatch.context() as patch:
        interrupted(patch, at=31)  # in the middle of the two seeds' chunks
        with pytest.raises(KeyboardInterrupt):
            td.train(ALGORITHM, "CartPole-v1", STEPS, seeds=2, run_dir=parts, **quick)
    assert len({entry["iteration"] for entry in newest(parts / "checkpoints").seeds.values()}) == 1
    td.resume(parts, quiet=True)
    same_rows(rows_of(parts), rows_of(whole))
    same_arrays(parts, whole, (0, 1))


def test_outside_the_main_thread_signals_are_left_alone():
    result = []

    def work():
        run = td.train(ALGORITHM, "CartPole-v1", 80, run_dir=None, evaluate_every=0, **PAIR)
        result.append(run.summary["steps"])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert result == [80]


def test_the_compilation_cache_is_used_only_where_it_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compilation._private_folder()
    assert folder == tmp_path / "thorndike" / "jax"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert compilation._private_folder() is None
    folder.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    assert compilation._private_folder() is None


def test_names_of_the_package_are_what_its_table_says():
    import thorndike

    for name in thorndike.__all__:
        assert getattr(thorndike, name) is not None
    assert dir(thorndike) == sorted([*thorndike.__all__, "__version__"])
    with pytest.raises(AttributeError, match="Did you mean 'train'"):
        thorndike.trian  # noqa: B018


def test_importing_the_package_imports_neither_jax_nor_a_backend():
    import subprocess

    code = "import sys, thorndike; assert 'jax' not in sys.modules; import thorndike.trainer, jax\n"
    code += (
        "from jax._src import xla_bridge; thorndike.DQN(); assert not xla_bridge._backends; print(thorndike.trainer)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_warning_is_shown_where_nothing_is_wrong(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        td.train(ALGORITHM, "CartPole-v1", 80, run_dir=tmp_path / "run", **PAIR)
        td.load(tmp_path / "run")
