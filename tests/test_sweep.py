"""Sweeps: which settings they are made of, that each is the run alone, what they share, and how they go on."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import thorndike as td
from thorndike import cli, persistence
from thorndike.hyperparameters import hyperparameters
from thorndike.interface.progress import Progress
from thorndike.sweeps import folder as files
from thorndike.sweeps import grids
from thorndike.sweeps.grids import Range

PPO = td.PPO(network=td.MLP((4,)), num_environments=2, rollout_length=16, epochs=1, batch_size=32)
STEPS = 256
QUICK = {"evaluate_episodes": 2, "final_episodes": 3, "quiet": True}
RATES = {"learning_rate": [1e-3, 3e-3, 1e-2]}
TIMED = ("seconds", "steps_per_second")


def rows_of(folder):
    """Rows of a run's metrics, by seed, without what a clock says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [{name: value for name, value in row.items() if name not in TIMED} for row in rows]
    return {seed: [row for row in rows if row["seed"] == seed] for seed in {row["seed"] for row in rows}}


def learned(run):
    """Every number that a run's agents have learned."""
    return [np.asarray(x).tolist() for agent in run.agents for x in jax.tree.leaves(agent.state)]


# --- which settings ---------------------------------------------------------------------------------------------------


def settings(grid, draws=None, algorithm=PPO, seed=0):
    return grids.settings_of(grids.entries(grid, algorithm), draws, seed)


def test_a_grid_is_every_combination_of_values():
    made = settings({"learning_rate": [1e-4, 1e-3], "network.sizes": [(8,), (4, 4)], "gamma": 0.9})
    assert made == [
        {"learning_rate": rate, "network.sizes": sizes, "gamma": 0.9}
        for rate, sizes in itertools.product([1e-4, 1e-3], [(8,), (4, 4)])
    ]
    assert settings({}) == [{}]
    changed = grids.changed(PPO, made[-1] | {"environment.gravity": 5})
    wanted = dataclasses.replace(PPO, learning_rate=1e-3, gamma=0.9, network=td.MLP((4, 4)))
    assert changed == wanted
    assert grids.environment_arguments({"environment.gravity": 5, "gamma": 0.9}) == {"gravity": 5}


def test_values_that_only_go_together_are_set_together():
    both = {"batch_size": 40, "rollout_length": 20}
    assert grids.changed(PPO, both) == dataclasses.replace(PPO, **both)
    prioritized = grids.changed(td.DQN(), {"memory": td.Prioritized(), "memory.alpha": 0.3})
    assert prioritized.memory == td.Prioritized(alpha=0.3)


def test_a_range_is_drawn_from_evenly_and_over_tenfolds_in_orders_of_magnitude():
    drawn = settings({"learning_rate": "1e-5..1e-1", "gamma": "0.9..0.99", "epochs": "1..4"}, draws=400)
    rates, gammas, epochs = (np.array([setting[path] for setting in drawn]) for path in drawn[0])
    assert 1e-5 <= rates.min() < 2e-5
    assert 5e-2 < rates.max() <= 1e-1
    assert abs(np.log10(rates).mean() + 3) < 0.2
    assert abs(gammas.mean() - 0.945) < 0.005
    assert {*epochs.tolist()} == {1, 2, 3, 4}
    assert all(type(epoch) is int for epoch in epochs.tolist())
    assert all(float(f"{rate:.4g}") == rate for rate in rates)
    assert Range(1, 5).logarithmic is False
    assert Range(1, 10).logarithmic is True


def test_draws_are_those_of_the_seed():
    grid = {"gamma": "0.9..0.99", "epochs": [1, 2]}
    assert settings(grid, 5, seed=3) == settings(grid, 5, seed=3)
    assert settings(grid, 5, seed=3) != settings(grid, 5, seed=4)


def test_whole_ends_of_a_field_of_floats_are_a_range_of_floats():
    (entry,) = grids.entries({"max_grad_norm": "1..5"}, PPO).values()
    assert not entry.whole


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ({"grid": {"learning_rat": [1.0]}}, "no field 'learning_rat'. Did you mean 'learning_rate'"),
        ({"grid": {"lr": [1.0]}}, "here it is learning_rate"),
        ({"grid": {"sizes": [(4,)]}}, "here it is network.sizes"),
        ({"grid": {"network.size": [4]}}, "Did you mean 'sizes'"),
        ({"grid": {"gamma.x": [4]}}, "has no fields"),
        ({"grid": {"gamma": [0.9, 1.5]}}, "gamma must be at least 0 and at most 1, got 1.5"),
        ({"grid": {"gamma": []}}, "gamma has no values"),
        ({"grid": {"gamma": [0.9, 0.9]}}, "gamma has the value 0.9 twice"),
        ({"grid": {"gamma": "0.9..0.99"}}, "say how many settings to draw"),
        ({"grid": {"gamma": "0.99..0.9"}, "draws": 3}, "from less to more"),
        ({"grid": {"gamma": "0.9..much"}, "draws": 3}, "two numbers for ends"),
        ({"grid": {"gamma": [0.9]}, "draws": 3}, "draws=3 without a range"),
        ({"grid": {"gamma": "0.9..0.99"}, "draws": 0}, "draws must be at least 1"),
        ({"grid": {"gamma": "0.9..0.99"}, "draws": 5_000}, "these are 5,000 settings, as many runs: 1,000 at most"),
        ({"grid": {"gamma": list(np.linspace(0, 1, 40)), "epochs": list(range(1, 41))}}, "1,600 settings"),
        ({"grid": [{"gamma": 0.9}], "draws": 2}, "draws are made from a dict"),
        ({"grid": [0.9]}, "a dict for each"),
        ({"grid": 0.9}, "grid must be a dict"),
        ({"grid": {"batch_size": [32, 33]}}, "does not divide into batch_size 33"),
        ({"grid": {"environment.zebra": [1, 2]}}, "zebra"),
        ({"grid": {}, "run_dir": None}, "a sweep is a folder"),
        ({"grid": {}, "on_chunk": print}, "no argument 'on_chunk' for several runs"),
        ({"grid": {}, "total_timesteps": 5}, "here it is steps"),
    ],
)
def test_what_cannot_be_swept_is_answered_before_anything_is_written(call, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(td.ThorndikeError, match=text):
        td.sweep(PPO, "CartPole-v1", STEPS, **call)
    assert list(tmp_path.iterdir()) == []


# --- what comes of them -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Three learning rates with two seeds each."""
    folder = tmp_path_factory.mktemp("sweeps") / "rates"
    return td.sweep(PPO, "CartPole-v1", STEPS, grid=RATES, seeds=2, run_dir=folder, **QUICK)


def test_every_setting_is_the_run_that_it_would_be_alone(swept):
    for row, run in zip(swept.table, swept.runs, strict=True):
        algorithm = dataclasses.replace(PPO, **row.settings)
        alone = td.train(algorithm, "CartPole-v1", STEPS, seeds=2, run_dir=swept.folder.with_name(row.run), **QUICK)
        assert run.configuration.algorithm == algorithm
        assert rows_of(run.folder) == rows_of(alone.folder)
        assert learned(run) == learned(alone)
        assert run.summary["evaluation"] == alone.summary["evaluation"]
        assert row.mean == alone.summary["evaluation"]["mean"]
        history = run.configuration.history
        assert [entry["steps"] for entry in history] == [STEPS]


def test_the_table_is_in_the_order_of_the_means_and_names_the_best(swept):
    means = [row.mean for row in swept.table]
    assert means == sorted(means, reverse=True)
    assert [row.best for row in swept.table] == [True, False, False]
    assert swept.best.summary["evaluation"]["mean"] == means[0]
    lines = str(swept).splitlines()
    assert lines[0].split() == ["learning_rate", "greedy", "return", "std", "iqm", "95", "%", "interval", "run"]
    assert lines[1].split()[:3] == ["best", f"{swept.table[0].settings['learning_rate']:g}", f"{means[0]:,.1f}"]
    assert "2 seeds are too few for an interval: that takes five (--seeds 5)" in lines
    again = td.Sweep.load(swept.folder)
    assert again.table == swept.table
    written = persistence.read_json(swept.folder / "sweep.json")
    assert [member["run"] for member in written["members"]] == [row.run for row in swept.table]
    assert "rates" in repr(again)


def test_five_seeds_have_an_interval(tmp_path):
    sweep = td.sweep(PPO, "CartPole-v1", 64, grid={"gamma": [0.9, 0.99]}, seeds=5, run_dir=tmp_path / "a", **QUICK)
    assert sweep.table[0].result["ci95"] == sweep.best.summary["evaluation"]["ci95"]
    low, high = sweep.table[0].result["ci95"]
    assert f"{low:,.1f} to {high:,.1f}" in str(sweep)
    assert "too few" not in str(sweep)


def test_settings_that_differ_in_floats_and_their_seeds_compile_once(tmp_path):
    """What one run of one seed compiles is all that a sweep over floats, with several seeds, compiles."""
    grid = {"learning_rate": [2e-3, 3e-3, 4e-3], "gamma": [0.9, 0.8], "gae_lambda": [0.7]}
    jax.clear_caches()
    with compilations() as compiled:
        td.train(dataclasses.replace(PPO, gamma=0.7), "CartPole-v1", STEPS, run_dir=tmp_path / "one", **QUICK)
        once = len(compiled)
        td.sweep(PPO, "CartPole-v1", STEPS, grid=grid, seeds=2, seed=5, run_dir=tmp_path / "all", **QUICK)
        assert once > 5
        assert len(compiled) == once
        td.train(dataclasses.replace(PPO, epochs=2), "CartPole-v1", STEPS, run_dir=None, **QUICK)
        assert len(compiled) > once  # what is no float is another program, and would be seen


@contextlib.contextmanager
def compilations():
    """A list that grows with every program that XLA is given."""
    compiled = []

    def note(event, *_, **__):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def test_a_setting_that_diverges_is_a_failed_row_and_the_others_go_on(tmp_path, capsys):
    grid = {"learning_rate": [1e-3, 1e36]}
    unlimited = dataclasses.replace(PPO, max_grad_norm=float("inf"))
    sweep = td.sweep(
        unlimited, "CartPole-v1", STEPS, grid=grid, seeds=2, run_dir=tmp_path / "a", **QUICK | {"quiet": False}
    )
    good, bad = sweep.table
    assert good.best
    assert bad.result is None
    assert "learning has diverged" in bad.failed
    assert "failed" in capsys.readouterr().out
    assert [run.configuration.algorithm.learning_rate for run in sweep.runs] == [1e-3]
    with pytest.raises(td.RunError, match="is complete"):
        td.Sweep.resume(tmp_path / "a")
    with pytest.raises(td.RunError, match=r"every run of .* has failed.*diverged"):
        td.sweep(unlimited, "CartPole-v1", STEPS, grid={"learning_rate": 1e36}, run_dir=tmp_path / "b", **QUICK)


def test_on_the_host_one_setting_follows_another_and_arguments_of_the_environment_are_swept(tmp_path):
    grid = {"environment.max_episode_steps": [5, 9]}
    sweep = td.sweep(PPO, "gymnasium:CartPole-v1", 64, grid=grid, seeds=2, run_dir=tmp_path / "a", **QUICK)
    assert [row.settings for row in sweep.table] == [{"environment.max_episode_steps": n} for n in (9, 5)]
    assert [row.mean for row in sweep.table] == [9.0, 5.0]
    alone = td.train(PPO, "gymnasium:CartPole-v1", 64, seeds=2, run_dir=tmp_path / "b", max_episode_steps=9, **QUICK)
    assert rows_of(sweep.best.folder) == rows_of(alone.folder)


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [1, 15])
def test_a_sweep_that_was_stopped_and_resumed_is_the_one_that_never_stopped(swept, chunks, tmp_path, monkeypatch):
    count, show = itertools.count(1), Progress.chunk

    def chunk(self, *told):
        show(self, *told)
        if next(count) == chunks:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "chunk", chunk)
    with pytest.raises(KeyboardInterrupt, match=f"go on with: thorndike resume {tmp_path}"):
        td.sweep(PPO, "CartPole-v1", STEPS, grid=RATES, seeds=2, run_dir=tmp_path / "a", **QUICK)
    assert next(count) <= chunks + 5  # no more than the other thread's chunks, each saved
    assert any(row.result is None for row in td.Sweep.load(tmp_path / "a").table)
    resumed = td.Sweep.resume(tmp_path / "a", quiet=True)
    assert resumed.table == swept.table
    for ours, theirs in zip(resumed.runs, swept.runs, strict=True):
        assert rows_of(ours.folder) == rows_of(theirs.folder)
        assert learned(ours) == learned(theirs)


def test_a_sweep_that_was_killed_goes_on_and_repeats_no_run_that_is_complete(tmp_path):
    """By the command, as it is typed."""
    line = "sweep ppo CartPole-v1 --learning-rate 1e-3,1e-2 --network.sizes 4 --num-environments 2 --rollout-length 16"
    more = f"--batch-size 32 --epochs 1 --steps {20 * STEPS} --seeds 2 --evaluate-episodes 2 --final-episodes 3"
    line = [sys.executable, "-m", "thorndike", *line.split(), *more.split(), "--run-dir"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    killed = subprocess.Popen([*line, "a"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    for printed in killed.stdout:
        if printed.startswith("1 of 2"):
            killed.kill()
            break
    killed.communicate()
    done = list((tmp_path / "a").glob("*/summary.json"))
    assert len(done) == 1
    before = {path: path.stat().st_mtime_ns for path in done}
    assert cli.main(["resume", str(tmp_path / "a"), "--quiet"]) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert cli.main([*line[3:], str(tmp_path / "b"), "--quiet"]) == 0
    assert files.read(tmp_path / "a") == files.read(tmp_path / "b")
    for name in ("1", "2"):
        assert rows_of(tmp_path / "a" / name) == rows_of(tmp_path / "b" / name)


def test_classes_and_environments_of_ones_own_are_handed_in_again(tmp_path):
    @hyperparameters
    class Mine(td.PPO):
        pass

    algorithm = Mine(**{field.name: getattr(PPO, field.name) for field in dataclasses.fields(PPO)})
    made = lambda: __import__("gymnasium").make("CartPole-v1")  # noqa: E731
    sweep = td.sweep(algorithm, made, 64, grid={"gamma": [0.9, 0.8]}, seeds=1, run_dir=tmp_path / "a", **QUICK)
    assert type(sweep.best.agent.algorithm) is Mine
    with pytest.raises(td.RunError, match="hand in its class again"):
        td.Sweep.load(tmp_path / "a").runs  # noqa: B018
    assert len(td.Sweep.load(tmp_path / "a", algorithm=Mine, environment=made).runs) == 2


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [td.load, td.resume])
def test_a_sweep_is_no_run_and_says_what_takes_it(swept, call):
    with pytest.raises(td.RunError, match=r"is a sweep: td\.Sweep\.load and thorndike resume take it"):
        call(swept.folder)


def test_a_run_of_a_sweep_is_a_run_like_any_other(swept, tmp_path, capsys):
    place = swept.best.folder
    assert cli.main(["verify", str(place)]) == 0
    assert cli.main(["evaluate", str(place), "--episodes", "2"]) == 0
    assert cli.main(["list", "runs", str(swept.folder)]) == 0
    assert cli.main(["list", "runs", str(swept.folder.parent)]) == 0
    assert "a sweep: thorndike list runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        {"members": []},
        {"members": [{"run": "../1", "settings": {}, "failed": "", "result": None}]},
        {"members": [{"run": "1", "settings": {}, "failed": "", "result": {"mean": "a"}}]},
        {"members": [{"run": "1", "settings": {}, "failed": "", "result": None}] * 2},
        {"members": [{"run": "²", "settings": {}, "failed": "", "result": None}]},
        {"members": "all"},
        {"format": 99},
        {"seeds": -1},
    ],
)
def test_what_thorndike_did_not_write_is_refused(swept, change, tmp_path):
    values = {
        name: value for name, value in persistence.read_json(swept.folder / "sweep.json").items() if name != "digest"
    }
    persistence.write_json(tmp_path / "sweep.json", persistence.sealed(values | change))
    with pytest.raises(td.CorruptCheckpointError, match=r"sweep\.json is not one that thorndike wrote"):
        td.Sweep.load(tmp_path)
    persistence.write_json(tmp_path / "sweep.json", values | {"digest": "0"})
    with pytest.raises(td.CorruptCheckpointError, match="not as it was written"):
        td.Sweep.resume(tmp_path)


def test_a_sweep_in_use_is_left_alone(swept):
    with persistence.locked(swept.folder), pytest.raises(td.RunError, match="in use"):
        td.Sweep.resume(swept.folder)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the command asks of `td.sweep`, instead of training."""
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(td, "sweep", lambda *a, **k: calls.append((a, k)))

    def ask(line):
        calls.clear()
        assert cli.main(line.split()) == 0
        (algorithm, _), options = calls[0]
        return algorithm, options

    return ask


GRIDS = {
    "--learning-rate 1e-4,3e-4": {"learning_rate": [1e-4, 3e-4]},
    "--learning_rate=1e-4, 3e-4 --gamma 0.9": {"learning_rate": [1e-4, 3e-4]},
    "--memory.batch-size 32,64": {"memory.batch_size": [32, 64]},
    "--memory.capacity 20k,1e5": {"memory.capacity": [20_000, 100_000]},
    "--network.sizes 64 64,128 128,32": {"network.sizes": [(64, 64), (128, 128), (32,)]},
    "--double true,false": {"double": [True, False]},
    "--loss huber,squared": {"loss": ["huber", "squared"]},
    "--memory replay,prioritized": {"memory": [td.Replay(20_000, 64, window=5), td.Prioritized(20_000, 64, window=5)]},
    "--max-grad-norm 1,inf": {"max_grad_norm": [1.0, float("inf")]},
    "--learning-rate 1e-5..1e-2 --draws 5": {"learning_rate": Range(1e-5, 1e-2)},
    "--memory.batch-size 16..256 --draws 5": {"memory.batch_size": Range(16, 256)},
    "--environment.max_steps 50,100": {"environment.max_steps": [50, 100]},
    "--environment.size [3,4],[5,6]": {"environment.size": [[3, 4], [5, 6]]},
    "--gamma 0.9": {},
}


@pytest.mark.parametrize("flags", GRIDS)
def test_values_with_commas_between_them_are_a_grid(asked, flags):
    algorithm, options = asked(f"sweep dqn CartPole-v1 {flags} --seeds 4")
    assert options["grid"] == GRIDS[flags]
    assert options["seeds"] == 4
    assert options["steps"] == 50_000
    assert options["environment_arguments"] == {}
    for path, values in options["grid"].items():
        if isinstance(values, list) and not grids.of_environment(path):
            assert grids.value_at(algorithm, path) == values[0]


WRONG = {
    "sweep": "which algorithm? For example: thorndike sweep dqn CartPole-v1",
    "sweep dqn": "which environment? For example: thorndike sweep dqn CartPole-v1",
    "swep dqn": "Did you mean 'sweep'?",
    "sweep dnq CartPole-v1": "Did you mean 'dqn'?",
    "sweep dqn CartPole-v1 --lr 1e-4,1e-3": "no flag --lr: here it is --learning-rate",
    "sweep dqn CartPole-v1 --learning-rat 1e-4,1e-3": "Did you mean '--learning-rate'?",
    "sweep dqn CartPole-v1 --batch-size 32,64": "here it is --memory.batch-size",
    "sweep dqn CartPole-v1 --gamma 0.9,abc": "--gamma needs a number, got 'abc'",
    "sweep dqn CartPole-v1 --gamma 0.9,1.5": "gamma must be at least 0 and at most 1, got 1.5",
    "sweep dqn CartPole-v1 --gamma 0.9,": "--gamma has a comma with no value beside it",
    "sweep dqn CartPole-v1 --gamma 0.9..0.99": "say how many settings to draw, draws=20 (--draws 20)",
    "sweep dqn CartPole-v1 --gamma 0.9..0.99,1": "values with commas between them or one range, not both",
    "sweep dqn CartPole-v1 --gamma 0.9,0.8 --draws 5": "draws=5 without a range to draw from",
    "sweep dqn CartPole-v1 --gamma 0.9..0.99 --draws 1M": "these are 1,000,000 settings, as many runs",
    "sweep dqn CartPole-v1 --steps 10,20": "--steps needs a whole number, got '10,20'",
    "sweep dqn CartPole-v1 --gamma 0.9,0.8 --run-dir none": "a sweep is a folder of run folders",
    "resume nowhere": "nowhere is not a run folder",
    "train dqn CartPole-v1 --settings": "--settings needs a file",
    "train dqn CartPole-v1 --settings nowhere.json": "nowhere.json is missing",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_answered_in_one_line(capsys, monkeypatch, tmp_path, line):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("thorndike: ")
    assert err.count("\n") == 1
    assert WRONG[line] in err
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_goes_on_to_the_end_that_it_has(swept, capsys):
    assert cli.main(["resume", str(swept.folder), "--steps", "9"]) == 2
    assert "--steps is for one run" in capsys.readouterr().err


# --- settings as a file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [PPO, td.DQN(memory=td.Prioritized(20_000)), td.SAC()])
def test_settings_come_back_from_their_file(algorithm, tmp_path):
    path = td.save_settings(tmp_path / "a" / "settings.json", algorithm, environment="CartPole-v1", steps=64)
    assert td.load_settings(path) == algorithm


def test_the_command_trains_with_a_file_of_settings_and_flags_change_it_further(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(td, "train", lambda *a, **k: calls.append((a, k)))
    path = td.save_settings(tmp_path / "settings.json", PPO, steps=640)
    assert cli.main(["train", "ppo", "CartPole-v1", "--settings", str(path), "--gamma", "0.5"]) == 0
    (algorithm, _), options = calls[0]
    assert algorithm == dataclasses.replace(PPO, gamma=0.5)
    assert options["steps"] == 640
    assert cli.main(["train", "dqn", "CartPole-v1", "--settings", str(path)]) == 2


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '{"format": 1}', '{"format": 1, "algorithm": 5}', '{"format": 1, "algorithm": {}}',
        '{"format": 2, "algorithm": {"type": "DQN"}}', '{"format": 1, "algorithm": {"type": "MLP"}}',
        '{"format": 1, "algorithm": {"type": "os:system"}}', '{"format": 1, "algorithm": {"type": "DQN", "gamma": 9}}',
        '{"format": 1, "algorithm": {"type": "DQN", "gama": 0.9}}', '{"format": 1, "algorithm": {"type": ["DQN"]}}',
        '{"format": 1, "algorithm": {"type": "DQN", "network": {"type": "foreign"}}}',
        '{"format": 1, "algorithm": {"type": "DQN", "network": {"type": "os:system"}}}',
        '{"format": 1, "algorithm": {"type": "DQN", "network": {"type": "MLP", "sizes": "__import__"}}}',
        '{"format": 1, "algorithm": {"type": "DQN", "gamma": NaN}}',
        '{"format": 1, "algorithm": {"type": "DQN"}, "x": 1}',
        '{"format": 1, "algorithm": {"type": "DQN"}, "steps": -1}', "[" * 100_000, '{"a":' * 90 + "1" + "}" * 90,
        '{"format": 1, "algorithm": {"type": "DQN", "memory": {"type": "DQN"}}}',
        '{"format": 1, "algorithm": {"type": "DQN", "type ": 1, "memory": [[[]]]}}',
    ],
)  # fmt: skip
def test_a_hostile_file_of_settings_is_answered(text, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(td.ThorndikeError):
        td.load_settings(path)


def test_a_file_that_leaves_fields_out_has_the_others_by_default(tmp_path):
    (tmp_path / "s.json").write_text('{"format": 1, "algorithm": {"type": "DQN", "gamma": 0.9}}')
    assert td.load_settings(tmp_path / "s.json") == td.DQN(gamma=0.9)


def test_a_network_of_ones_own_is_not_written_into_a_file(tmp_path):
    own = td.PPO(network=(lambda key, x, n: {}, lambda p, x: x))
    with pytest.raises(td.SettingError, match="cannot be written as JSON"):
        td.save_settings(tmp_path / "s.json", own)
    with pytest.raises(td.SettingError, match=r"\.json"):
        td.save_settings(tmp_path / "s.txt", PPO)


def test_help_names_the_verbs_and_takes_no_time(capsys):
    began = time.monotonic()
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "thorndike sweep ALGORITHM ENVIRONMENT" in out
    assert "thorndike tune ALGORITHM ENVIRONMENT" in out
    assert time.monotonic() - began < 1


# --- the page ---------------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", re.findall("^thorndike (?:sweep|tune) .*", PAGE, re.M))
def test_every_command_of_the_page_is_understood(line, monkeypatch):
    begun = []
    for verb in ("sweep", "tune"):
        monkeypatch.setattr(td, verb, lambda *a, **k: begun.append((a, k)))
    assert cli.main(line.split()[1:]) == 0
    assert len(begun) == 1


def test_the_example_of_the_page_runs(monkeypatch, tmp_path):
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    sweep = td.sweep

    def shortly(algorithm, environment, steps, **more):
        return sweep(algorithm, environment, 1_100, **QUICK | more)

    monkeypatch.setattr(td, "sweep", shortly)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    exec(compile(example, "sweeps.md", "exec", dont_inherit=True), names)
    assert len(names["sweep"].table) == 4


def test_without_evaluations_the_table_is_of_training_returns(tmp_path):
    sweep = td.sweep(
        PPO,
        "CartPole-v1",
        STEPS,
        grid={"gamma": [0.9, 0.8]},
        seeds=1,
        run_dir=tmp_path / "a",
        evaluate_every=0,
        quiet=True,
    )
    assert "training return" in str(sweep)
    assert sweep.table[0].mean == max(run.summary["training"]["mean"] for run in sweep.runs)
