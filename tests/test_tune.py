"""Searches: where they look, what they try, when they give up, how they go on, and what they say of what they found."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
import sys

import pytest

import thorndike as td
from thorndike import cli, persistence
from thorndike.sweeps import spaces, tune
from thorndike.sweeps.grids import Range

PPO = td.PPO(network=td.MLP((4,)), num_environments=2, rollout_length=16, epochs=1, batch_size=32)
STEPS = 256
QUICK = {"seeds": 2, "fresh_seeds": 2, "evaluate_every": STEPS, "final_episodes": 3, "quiet": True}
SPACE = {"learning_rate": "1e-4..1e-1", "gamma": [0.9, 0.99]}
FIXED = {"gae_lambda": 0.9, "clip_range": 0.2, "ent_coef": 0.0}


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search that nothing disturbed."""
    pytest.importorskip("optuna")
    return search(tmp_path_factory.mktemp("searches") / "a")


def search(folder, trials=8, **more):
    given = {"space": SPACE | FIXED} | QUICK | more
    return td.tune(PPO, "CartPole-v1", STEPS, trials=trials, run_dir=folder, **given)


def test_without_a_word_the_fields_that_matter_are_searched():
    space = spaces.default_space(td.DQN())
    assert space["learning_rate"] == Range(1e-4, 1e-2)
    assert space["memory.batch_size"] == [32, 64, 128]
    assert "ent_coef" not in space
    assert spaces.default_space(dataclasses.replace(td.PPO(), ent_coef=0.02))["ent_coef"][-3:] == [0.02, 0.03, 0.1]
    assert "ent_coef" not in spaces.default_space(td.SAC())  # None: it is learned
    assert all(spaces.default_space(cls()) for cls in (td.A2C, td.TD3, td.REINFORCE, td.TRPO, td.PQN))


def test_the_first_trial_is_of_the_settings_by_default_and_the_best_is_found_again(searched):
    first, *_ = searched.trials
    assert first["settings"] == {"learning_rate": PPO.learning_rate, "gamma": PPO.gamma}
    assert [trial["number"] for trial in searched.trials] == list(range(8))
    best = max((trial for trial in searched.trials if trial["state"] == "complete"), key=lambda trial: trial["value"])
    assert searched.best == best["settings"]
    assert searched.algorithm == dataclasses.replace(PPO, gae_lambda=0.9, **best["settings"])
    assert td.load_settings(searched.folder / "settings.json") == searched.algorithm
    for trial in searched.trials:
        run = td.load(searched.folder / "trials" / f"{trial['number']:05}")
        assert run.configuration.algorithm == dataclasses.replace(PPO, gae_lambda=0.9, **trial["settings"])
        assert trial["state"] != "complete" or run.summary["evaluation"]["mean"] == trial["value"]


def test_what_was_found_is_compared_with_the_defaults_on_seeds_that_the_search_has_not_seen(searched):
    runs = {tuple(run.configuration.chosen_seeds) for run in searched.check.runs}
    assert runs == {(1000, 1001)}
    algorithms = [run.configuration.algorithm for run in searched.check.runs]
    assert searched.algorithm in algorithms
    said = str(searched)
    assert "on seeds 1000 to 1001, which the search has not seen:" in said
    assert "too few seeds for an interval" in said
    assert f"thorndike train ppo CartPole-v1 --steps {STEPS} --settings {searched.folder / 'settings.json'}" in said
    assert "--learning-rate" not in said.splitlines()[-1]


def row(low, high, run):
    result = {"mean": (low + high) / 2, "std": 1.0, "iqm": 1.0, "ci95": [low, high], "per_seed": [1.0] * 5}
    return tune.Row(run, {}, result)


def test_the_verdict_says_no_more_than_the_intervals_do():
    assert "is better" in tune._verdict(row(10, 12, "1"), row(5, 9, "2"))
    assert "is worse" in tune._verdict(row(1, 2, "1"), row(5, 9, "2"))
    assert "5 seeds do not tell them apart" in tune._verdict(row(8, 12, "1"), row(5, 9, "2"))
    assert "nothing better" in tune._verdict(row(8, 12, "1"), row(8, 12, "1"))
    without = dataclasses.replace(row(8, 12, "1"), result=row(8, 12, "1").result | {"ci95": None})
    assert "five make an interval" in tune._verdict(without, row(1, 2, "2"))


def test_a_search_that_was_stopped_and_resumed_is_the_one_that_never_stopped(searched, tmp_path, monkeypatch):
    count, watch = itertools.count(1), tune.Watch.__call__

    def chunk(self, told):
        if next(count) == 60:  # in the middle of a trial
            signal.raise_signal(signal.SIGINT)
        watch(self, told)

    monkeypatch.setattr(tune.Watch, "__call__", chunk)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "b")
    stopped = td.Search.load(tmp_path / "b")
    assert 0 < len(stopped.trials) < 8
    assert stopped.trials[-1]["state"] == "running"
    journal = tmp_path / "b" / "study.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code":4,"work')  # as a killed writer leaves it
    resumed = td.Search.resume(tmp_path / "b", quiet=True)
    assert resumed.trials == searched.trials
    assert resumed.check.table == searched.check.table
    with pytest.raises(td.RunError, match="is complete"):
        td.Search.resume(tmp_path / "b")


def test_a_search_stopped_in_its_comparison_goes_on_with_that(searched, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "sweep", stop)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "b")
    monkeypatch.undo()
    assert td.Search.load(tmp_path / "b").check is None
    assert cli.main(["resume", str(tmp_path / "b"), "--quiet"]) == 0
    assert td.Search.load(tmp_path / "b").check.table == searched.check.table


class Trial:
    """A trial of a study that gives up once a report is below 10."""

    def __init__(self):
        self.reports = []

    def report(self, value, step):
        self.reports.append((step, value))

    def should_prune(self):
        return self.reports[-1][1] < 10


def watched(pairs, seeds=2):
    """What a trial is told of chunks (seed, steps, return), and whether it was given up."""
    run = type("Run", (), {"seed": 0, "seeds": seeds, "compiled": True})
    watch = tune.Watch(Trial(), run)
    for seed, steps, value in pairs:
        chunk = type("Chunk", (), {"seed": seed, "steps": steps, "total_steps": 100, "last": steps == 100})
        chunk.row = {"return_mean": value} if value is not None else {}
        try:
            watch(chunk)
        except tune.Pruned:
            break
    return watch.trial.reports, watch.pruned


def test_a_tenth_is_told_once_all_seeds_beside_each_other_are_past_it(monkeypatch):
    monkeypatch.setattr(tune.machine, "cores", lambda: 2)
    first = [(0, 10, 20.0), (0, 20, 40.0), (0, 30, 60.0)]
    second = [(1, 10, 30.0), (1, 20, 50.0), (1, 30, 70.0)]
    assert watched(first) == ([], False)
    told = [(1, 25.0), (2, 45.0)]
    assert watched([*first, *second]) == (told, False)
    assert watched([*second, *first]) == (told, False)
    mixed = [pair for both in zip(first, second, strict=True) for pair in both]
    assert watched(mixed) == (told, False)
    assert watched([*mixed, (2, 10, 0.0)], seeds=3) == (told, False)  # which begins later
    assert watched([(0, 5, 4.0), (0, 10, 8.0), (0, 20, 90.0)], seeds=1) == ([(1, 6.0)], True)
    assert watched([(0, 10, None), (0, 20, 50.0), (0, 30, 50.0)], seeds=1) == ([(2, 50.0)], False)


def test_a_trial_that_the_study_gives_up_ends_there_and_without_prune_none_is(optuna, tmp_path, monkeypatch):
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda self: self.number == 1)
    found = search(tmp_path / "a", trials=3)
    assert [trial["state"] for trial in found.trials] == ["complete", "pruned", "complete"]
    assert [trial["value"] is None for trial in found.trials] == [False, True, False]
    assert "2 complete, 1 pruned" in str(found)
    steps = td.load(found.folder / "trials" / "00001").metrics["steps"]
    assert 0 < max(steps) < STEPS
    assert [trial["state"] for trial in search(tmp_path / "b", trials=3, prune=False).trials] == ["complete"] * 3


def test_what_has_been_tried_is_not_trained_again(optuna, tmp_path, monkeypatch):
    trained, train = [], tune.train
    monkeypatch.setattr(tune, "train", lambda *a, **k: trained.append(a) or train(*a, **k))
    found = search(tmp_path / "a", trials=6, space={"gamma": [0.9, 0.99], "learning_rate": 3e-4} | FIXED)
    assert len(trained) == 2
    values = {trial["settings"]["gamma"]: trial["value"] for trial in found.trials}
    assert [values[trial["settings"]["gamma"]] for trial in found.trials] == [t["value"] for t in found.trials]


def test_a_trial_that_cannot_work_has_failed_and_the_search_goes_on(optuna, tmp_path):
    space = {"batch_size": [32, 33], "learning_rate": 1e-3, "gamma": 0.9} | FIXED
    found = td.tune(PPO, "CartPole-v1", 64, space=space, trials=4, run_dir=tmp_path / "a", **QUICK)
    states = {trial["settings"]["batch_size"]: trial["state"] for trial in found.trials}
    assert states == {32: "complete", 33: "failed"}
    assert found.best == {"batch_size": 32}
    assert "nothing better than the settings by default" in str(found)


def test_values_that_are_no_numbers_are_searched_too(optuna, tmp_path):
    sizes = [(4,), (4, 4)]
    space = {"network.sizes": sizes, "learning_rate": 3e-4, "gamma": 0.9} | FIXED
    found = td.tune(PPO, "CartPole-v1", 64, space=space, trials=3, run_dir=tmp_path / "a", **QUICK)
    assert {trial["settings"]["network.sizes"] for trial in found.trials} <= {*sizes}
    assert td.Search.load(tmp_path / "a").trials == found.trials


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ({"space": {"gama": [0.9, 0.8]}}, "Did you mean 'gamma'"),
        ({"space": {"environment.max_steps": [5, 6]}}, "is the environment's"),
        ({"space": dict.fromkeys(spaces.default_space(PPO), 0.5)}, "there is nothing to search"),
        ({"fresh_seed": 1}, "the fresh seeds 1 to 2 overlap those of the search, 0 to 1"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"run_dir": None}, "a search is a folder"),
        ({"total_timesteps": 5}, "here it is steps"),
    ],
)
def test_what_cannot_be_searched_is_answered_before_anything_is_written(optuna, call, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(td.ThorndikeError, match=text):
        td.tune(PPO, "CartPole-v1", STEPS, **QUICK | call)
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_the_pip_line_is_the_answer(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["tune", "dqn", "CartPole-v1"]) == 2
    assert capsys.readouterr().err.endswith('pip install "thorndike[tune]"\n')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "journal",
    [
        b"nonsense\n",
        b"[]\n",
        b'{"op_code": 99, "worker_id": "a"}\n',
        b'{"op_code": 0, "worker_id": "a", "study_name": "thorndike", "directions": [7]}\n',
        b"\x80\x04cos\nsystem\n(S'true'\ntR.\n",
    ],
)
def test_a_journal_that_is_none_is_refused_and_nothing_in_it_runs(searched, journal, tmp_path):
    (tmp_path / "search.json").write_bytes((searched.folder / "search.json").read_bytes())
    (tmp_path / "study.log").write_bytes(journal)
    with pytest.raises(td.CorruptCheckpointError, match=r"study\.log is no study of Optuna's"):
        td.Search.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 9},
        {"run": {}},
        {"space": {"gamma": [[1, 2], "x"]}, "ranges": ["gamma"]},
        {"space": {"nothing": [1, 2]}},
        {"space": {"network": [{"type": "os:system"}]}},
        {"trials": "many"},
        {"ranges": 5},
    ],
)
def test_a_plan_that_thorndike_did_not_write_is_refused(searched, change, tmp_path):
    values = persistence.unsealed(persistence.read_json(searched.folder / "search.json"), tmp_path)
    persistence.write_json(tmp_path / "search.json", persistence.sealed(values | change))
    with pytest.raises(td.RunError, match=r"is not one that thorndike wrote|another format"):
        td.Search.load(tmp_path)


def test_optuna_reads_the_journal_as_its_own(searched, optuna):
    backend = optuna.storages.journal.JournalFileBackend(str(searched.folder / "study.log"))
    study = optuna.load_study(study_name="thorndike", storage=optuna.storages.JournalStorage(backend))
    assert [trial.number for trial in study.trials] == [trial["number"] for trial in searched.trials]
    assert study.best_value == max(trial["value"] for trial in searched.trials if trial["value"] is not None)
    for line in (searched.folder / "study.log").read_text().splitlines():
        assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize("call", [td.load, td.resume, td.Sweep.load])
def test_a_search_is_no_run(searched, call):
    with pytest.raises(td.RunError, match=r"is a search|is not a sweep"):
        call(searched.folder)


def test_a_search_is_in_the_list_of_runs(searched, capsys):
    assert cli.main(["list", "runs", str(searched.folder.parent)]) == 0
    out = capsys.readouterr().out
    assert " ppo " in out
    assert f"a search: thorndike list runs {searched.folder / 'trials'}" in out


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the command asks of `td.tune`, instead of searching."""
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(td, "tune", lambda *a, **k: calls.append((a, k)))

    def ask(line):
        assert cli.main(line.split()) == 0
        (algorithm, _), options = calls.pop()
        return algorithm, options

    return ask


def test_flags_with_ranges_say_where_to_search_and_single_values_where_not(asked):
    line = "tune dqn CartPole-v1 --learning-rate 1e-5..1e-3 --gamma 0.9 --loss huber,squared --double false --trials 5"
    algorithm, options = asked(line)
    assert options["space"] == {"learning_rate": Range(1e-5, 1e-3), "loss": ["huber", "squared"], "gamma": [0.9]}
    assert (algorithm.gamma, algorithm.double) == (0.9, False)
    assert (options["trials"], options["seeds"], options["fresh_seeds"], options["steps"]) == (5, 3, 5, 50_000)


WRONG = {
    "tune": "which algorithm? For example: thorndike tune dqn CartPole-v1",
    "tune dqn": "which environment?",
    "tune dqn CartPole-v1 --trails 5": "Did you mean '--trials'?",
    "tune dqn CartPole-v1 --learning-rate 1..x": "--learning-rate needs a number, got 'x'",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_answered_in_one_line(capsys, monkeypatch, tmp_path, line):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    assert WRONG[line] in capsys.readouterr().err
