"""What users hear of a run: `on_chunk` changes nothing, may stop it, and what it raises leaves the run resumable."""

from __future__ import annotations

import json
import shutil
import signal
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thorndike as td
from test_runs import ALGORITHM, GRADIENT, OPTIONS, STEPS, Walk, interrupted, rows_of, same_arrays, same_rows
from thorndike import evaluation, trainer
from thorndike.environments import make
from thorndike.runs.checkpoints import newest

IN_EVERY_MODE = pytest.mark.parametrize(
    ("algorithm", "environment", "steps", "seeds"),
    [(ALGORITHM, "CartPole-v1", STEPS, 2), (GRADIENT, Walk, 320, 2)],
    ids=["compiled", "host"],
)


def trained(folder, algorithm, environment, steps, seeds, on_chunk=None):
    return td.train(algorithm, environment, steps, seeds=seeds, run_dir=folder, on_chunk=on_chunk, **OPTIONS)


def stopping_at(*steps):
    """An `on_chunk` that stops seed i at the first row that ends at step i of `steps`, or after."""

    def on_chunk(chunk):
        if chunk.row and chunk.steps >= steps[chunk.seed]:
            chunk.stop()

    return on_chunk


@IN_EVERY_MODE
def test_a_listener_hears_every_seed_and_changes_nothing(tmp_path, algorithm, environment, steps, seeds):
    heard, agents = [], {}

    def on_chunk(chunk):
        heard.append((chunk.seed, chunk.steps))
        if chunk.row and chunk.steps in (steps // 4, steps):
            first, again, other = chunk.evaluate(2), chunk.evaluate(2), chunk.evaluate(2, seed=1)
            assert first == again
            assert first["episodes"] == 2
            assert first["mean"] != other["mean"]
            agents[chunk.seed, chunk.steps] = chunk.agent(), first["mean"]

    plain = trained(tmp_path / "plain", algorithm, environment, steps, seeds)
    run = trained(tmp_path / "heard", algorithm, environment, steps, seeds, on_chunk)
    assert {seed for seed, _ in heard} == {0, 1}
    for seed in range(seeds):
        mine = [done for one, done in heard if one == seed]
        assert mine == sorted(set(mine))
        assert mine[-1] == steps
    same_arrays(plain.folder, run.folder, range(seeds))
    same_rows(rows_of(plain.folder), rows_of(run.folder))
    observation = run.configuration.observation_space.sample()
    kept, mean = agents[0, steps]
    assert kept.act(observation) == run.agents[0].act(observation)
    assert mean == run.evaluate(2)["per_seed"][0]
    assert "on_chunk" not in (run.folder / "config.json").read_text()


@IN_EVERY_MODE
def test_a_stopped_run_ends_like_any_other_and_goes_on_as_if_it_never_had(
    tmp_path, algorithm, environment, steps, seeds
):
    quarter = steps // 4 // 16 * 16
    run = trained(tmp_path / "run", algorithm, environment, steps, seeds, stopping_at(quarter, 2 * quarter))
    done = {seed: entry["steps"] for seed, entry in newest(run.folder / "checkpoints").seeds.items()}
    assert quarter <= done[0] < done[1] < steps
    assert run.summary["steps"] == done[1]
    assert run.summary["evaluation"]["episodes"] == 20
    assert run.summary["stopped"] == f"stopped by on_chunk at step {done[0]} of seed 0, at step {done[1]} of seed 1"
    assert json.loads((run.folder / "summary.json").read_text())["stopped"] == run.summary["stopped"]
    again = {} if isinstance(environment, str) else {"environment": environment}
    resumed = td.resume(run.folder, quiet=True, **again)
    assert "stopped" not in resumed.summary
    assert resumed.summary["steps"] == steps
    plain = trained(tmp_path / "plain", algorithm, environment, steps, seeds)
    same_arrays(plain.folder, run.folder, range(seeds))
    learned = [[row for row in rows_of(r.folder) if "return_mean" in row] for r in (plain, run)]
    assert [r["return_mean"] for r in learned[0]] == [r["return_mean"] for r in learned[1]]


def test_a_seed_that_was_stopped_stays_so_where_another_is_interrupted(tmp_path, monkeypatch):
    interrupted(monkeypatch, signal.SIGINT, at=10)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, GRADIENT, Walk, 320, 2, stopping_at(64, 400))
    monkeypatch.undo()
    steps = {seed: entry["steps"] for seed, entry in newest(tmp_path / "checkpoints").seeds.items()}
    assert steps[0] == 64
    assert steps[1] < 320
    td.resume(tmp_path, environment=Walk, quiet=True)
    assert {seed: entry["steps"] for seed, entry in newest(tmp_path / "checkpoints").seeds.items()} == {0: 64, 1: 320}


def test_of_seeds_that_are_one_program_each_stops_for_itself():
    steps, plain = {0: 0, 1: 0}, td.REINFORCE(td.MLP((4,)), baseline_network=None, num_environments=1, rollout_length=8)
    for chunk in trainer.train(plain, lambda: make("CartPole-v1", 1), 80, seeds=2, every=[1], parallel="vmap"):
        assert not chunk.stopped
        steps[chunk.seed] = chunk.steps
        if chunk.steps == 24 and chunk.seed == 0:
            chunk.stop()
    assert steps == {0: 24, 1: 80}


def raising(chunk):
    if chunk.steps >= 40:
        raise ValueError("my bug\nin two lines")


@pytest.mark.parametrize(
    ("on_chunk", "answer"),
    [
        (raising, "on_chunk failed at step 48 of seed 1: ValueError: my bug. The last checkpoint is step-000000048"),
        (lambda chunk: chunk.seed == 1, "it returned True, which says nothing here: chunk.stop.. ends the training"),
        (lambda: None, "on_chunk failed at step .* of seed 1: TypeError: .*positional argument"),
        (lambda chunk: chunk.evaluate(0), "on_chunk failed .*: episodes must be at least 1, got 0"),
    ],
    ids=["raises", "answers", "takes nothing", "asks for nonsense"],
)
def test_what_a_listener_raises_ends_the_run_where_it_can_go_on(tmp_path, on_chunk, answer):
    options = OPTIONS | {"seed": 1, "evaluate_every": 40, "checkpoint_every": 0}
    with pytest.raises(td.RunError, match=answer) as caught:
        td.train(GRADIENT, Walk, 64, run_dir=tmp_path, on_chunk=on_chunk, **options)
    assert caught.value.__cause__ is not None
    assert td.resume(tmp_path, environment=Walk, quiet=True).summary["steps"] == 64


def test_what_is_no_function_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(td.SettingError, match="on_chunk must be a function that takes a chunk, got 3"):
        trained(tmp_path / "run", ALGORITHM, "CartPole-v1", STEPS, 1, 3)
    with pytest.raises(td.SettingError, match="on_chunk must be a function"):
        td.resume(tmp_path / "run", on_chunk="print")
    assert not (tmp_path / "run").exists()


def test_a_loop_of_ones_own_gets_the_same_chunks():
    copies = []

    class Counted(Walk):
        def __init__(self):
            super().__init__()
            copies.append(self)

        def close(self):
            copies.remove(self)

    for chunk in td.training(GRADIENT, Counted, 64):
        if chunk.steps >= 32:
            assert chunk.evaluate(2)["mean"] == chunk.evaluate(2)["mean"]
            assert len(copies) == 4  # two to train in and two, made once, to evaluate in
            action = chunk.agent().act({"place": np.zeros(2), "side": 0})
            chunk.stop()
    assert chunk.steps == 32
    assert -1 <= action[0] <= 3
    assert copies == []


def test_the_one_copy_that_there_is_is_not_played_in_behind_the_runs_back():
    alone = td.PPO(network=td.MLP((8,)), critic_network=None, num_environments=1, rollout_length=8, batch_size=8)
    said = []

    def on_chunk(chunk):
        with pytest.raises(td.UnsuitableError, match=r"chunk\.evaluate needs evaluation_environment=") as caught:
            chunk.evaluate(1)
        said.append(str(caught.value))

    environment = gymnasium.wrappers.TransformReward(Walk(), lambda reward: reward)
    for every in (None, 0):
        td.train(alone, environment, 16, run_dir=None, on_chunk=on_chunk, **OPTIONS | {"evaluate_every": every})
    assert said
    environment = gymnasium.wrappers.TransformReward(Walk(), lambda reward: reward)
    options = OPTIONS | {"on_chunk": lambda chunk: said.append(chunk.evaluate(1)["mean"])}
    td.train(alone, environment, 16, run_dir=None, evaluation_environment=Walk, **options)
    assert isinstance(said[-1], float)


def of_one_seed(folder, **options):
    return td.train(GRADIENT, Walk, 320, run_dir=folder, **OPTIONS | {"evaluate_every": 48} | options)


def best_files(folder):
    return {path.name: sorted(p.name for p in path.glob("best-*")) for path in (folder / "checkpoints").iterdir()}


def test_the_best_agent_of_a_run_is_kept_beside_the_newest(tmp_path, monkeypatch):
    """Whichever moment is saved: every third evaluation here is, and the best is of another one."""
    scores = iter([1.0, 5.0, 2.0, 5.0, 3.0, 0.0, 4.0])
    played = scored(monkeypatch, lambda state: (next(scores), 0))
    run = of_one_seed(tmp_path / "run", checkpoint_every=144)
    (best,) = run.summary["best"]
    assert (best["steps"], best["mean"], best["episodes"], best["unfinished"]) == (192, 5.0, 10, 0)  # the later of two
    assert best_files(run.folder) == {
        "step-000000144": ["best-0-6.safetensors"],
        "step-000000288": ["best-0-12.safetensors"],
        "step-000000320": ["best-0-12.safetensors"],
    }
    loaded = td.load(run.folder, environment=Walk)
    for found in (run, loaded):
        for mine, kept in zip(jax.tree.leaves(found.best.state), jax.tree.leaves(played[3]), strict=True):
            np.testing.assert_array_equal(mine, kept)
    monkeypatch.undo()
    assert loaded.evaluate(4, best=True) == run.evaluate(4, best=True) != run.evaluate(4)


def scored(monkeypatch, score):
    """Evaluations give `score(state)`: a mean and how many of ten episodes were cut. The states, as they come."""
    played = []

    def evaluate(algorithm, environment, state, *_, **__):
        played.append(jax.tree.map(jnp.copy, state))
        mean, cut = score(state)
        return evaluation.Played(np.full(10, mean), np.full(10, 1), np.arange(10) >= cut)

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    return played


def test_what_did_not_end_is_best_only_where_nothing_did_and_then_says_so(tmp_path, monkeypatch):
    scores = iter([(1.0, 10), (9.0, 1), (2.0, 0), (8.0, 3), (1.0, 0), (0.0, 0), (9.5, 1)])
    scored(monkeypatch, lambda state: next(scores))
    run = of_one_seed(tmp_path / "run")
    assert [(best["steps"], best["mean"]) for best in run.summary["best"]] == [(144, 2.0)]
    assert run.best is not None
    scored(monkeypatch, lambda state: (1.0, 2))
    run = of_one_seed(None)
    with pytest.warns(UserWarning, match="2 of the best agent's 10 episodes were cut"):
        assert run.best is not None


def test_without_evaluations_there_is_no_best(tmp_path):
    run = of_one_seed(tmp_path / "run", evaluate_every=0)
    assert "best" not in run.summary
    for found in (run, td.load(tmp_path / "run", environment=Walk)):
        with pytest.raises(td.RunError, match="no best agent: no evaluation has been played"):
            _ = found.best
        with pytest.raises(td.RunError, match="no best agent"):
            found.evaluate(2, best=True)


def test_a_resumed_run_has_the_best_of_its_own_past(tmp_path, monkeypatch):
    """A crash takes the newest checkpoint, and with it a best one that lies after the moment to go on from."""
    plain = of_one_seed(tmp_path / "plain", checkpoint_every=96)
    run = of_one_seed(tmp_path / "run", checkpoint_every=96)
    shutil.rmtree(run.folder / "checkpoints" / "step-000000320")
    (run.folder / "summary.json").unlink()
    before = newest(run.folder / "checkpoints").seeds[0]["best"]
    assert before["steps"] <= 288
    (run.folder / "checkpoints" / "step-000000288" / "best-0-0.safetensors").write_bytes(b"of a writer that was killed")
    resumed = td.resume(run.folder, environment=Walk, quiet=True)
    assert resumed.summary["best"] == plain.summary["best"]
    assert best_files(run.folder) == best_files(plain.folder)
    for a, b in zip(jax.tree.leaves(resumed.best.state), jax.tree.leaves(plain.best.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_best_of_several_seeds_is_over_all_of_them(tmp_path):
    run = trained(tmp_path / "run", ALGORITHM, "CartPole-v1", STEPS, 2)
    means = {best["seed"]: best["mean"] for best in run.summary["best"]}
    rows = rows_of(run.folder)
    assert means == {s: max(r.get("evaluation_mean", 0) for r in rows if r["seed"] == s) for s in (0, 1)}
    seed = max(means, key=means.get)
    loaded = td.load(run.folder)
    files = newest(run.folder / "checkpoints").best_arrays(seed)
    for found in (run, loaded):
        weights = jax.tree.leaves(found.best.state.network)
        assert any(np.array_equal(weights[0], array) for array in files.values())
    assert run.evaluate(3, best=True) == loaded.evaluate(3, best=True)
    flipped = (
        run.folder / "checkpoints" / "step-000000400" / newest(run.folder / "checkpoints").seeds[0]["best"]["file"]
    )
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 1
    flipped.write_bytes(data)
    with pytest.warns(UserWarning, match="step-000000400 is corrupted"):
        td.load(run.folder)


def test_how_many_checkpoints_and_rows_there_are_is_a_setting(tmp_path):
    run = of_one_seed(tmp_path / "run", checkpoint_every=32, keep_checkpoints=2, metrics_every=64, evaluate_every=0)
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == ["step-000000288", "step-000000320"]
    assert list(run.metrics["steps"]) == [64, 128, 192, 256, 320]
    plain = of_one_seed(tmp_path / "plain", checkpoint_every=32, evaluate_every=0)
    assert len(list((plain.folder / "checkpoints").iterdir())) == 3
    assert list(plain.metrics["steps"]) == list(range(16, 321, 16))
    same_arrays(run.folder, plain.folder, [0])
    td.resume(run.folder, 400, environment=Walk, quiet=True)
    assert len(list((run.folder / "checkpoints").iterdir())) == 2
    assert list(td.load(run.folder).metrics["steps"][-2:]) == [384, 400]
    for name in ("keep_checkpoints", "metrics_every"):
        with pytest.raises(td.SettingError, match=f"{name} must be at least 1, got 0"):
            of_one_seed(None, **{name: 0})


class Telling(Walk):
    """Says at the end of an episode of a length of its own how long it was, and more."""

    def reset(self, *, seed=None, options=None):
        self.length = 3 + seed % 5
        return super().reset(seed=seed)

    def step(self, action):
        *answer, _ = super().step(action)
        done = self.steps >= self.length
        info = {"steps": np.int64(self.steps), "odd": self.steps % 2 == 1, "text": "far", "nothing": np.nan}
        return *answer, info if done else {"steps": 1e9}


def test_what_info_says_at_the_ends_of_episodes_is_a_metric(tmp_path, monkeypatch):
    names = ("steps", "odd")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = td.train(GRADIENT, Telling, 320, run_dir=tmp_path / "run", record_info=names, metrics_every=48, **OPTIONS)
    rows = [row for row in rows_of(run.folder) if row.get("episodes")]
    assert len(rows) > 5
    for row in rows:
        assert row["steps_mean"] == pytest.approx(row["episode_length_mean"], rel=1e-6)
        assert 0 <= row["odd_mean"] <= 1
        assert row["odd_mean"] * row["episodes"] == pytest.approx(round(row["odd_mean"] * row["episodes"]))
    interrupted(monkeypatch, signal.SIGINT, at=8)  # in the middle of a row
    with pytest.raises(KeyboardInterrupt):
        td.train(GRADIENT, Telling, 320, run_dir=tmp_path / "cut", record_info=names, metrics_every=48, **OPTIONS)
    monkeypatch.undo()
    td.resume(tmp_path / "cut", environment=Telling, quiet=True)
    same_rows(rows_of(tmp_path / "cut"), rows_of(run.folder))


def test_where_one_copy_serves_both_what_evaluations_say_is_not_recorded():
    alone = td.PPO(network=td.MLP((8,)), critic_network=None, num_environments=1, rollout_length=8, batch_size=8)
    environment = gymnasium.wrappers.TransformReward(Telling(), lambda reward: reward)
    run = td.train(alone, environment, 160, run_dir=None, record_info="steps", metrics_every=24, **OPTIONS)
    learned = [i for i, episodes in enumerate(run.metrics["episodes"]) if episodes > 0]
    assert len(learned) > 3
    for i in learned:
        assert run.metrics["steps_mean"][i] == pytest.approx(run.metrics["episode_length_mean"][i], rel=1e-6)


def test_a_name_that_never_comes_is_said_once(tmp_path):
    with pytest.warns(UserWarning, match="record_info") as caught:
        run = td.train(
            GRADIENT, Telling, 160, run_dir=tmp_path, record_info=["step", "text", "nothing", "odd"], **OPTIONS
        )
    said = [str(warning.message) for warning in caught]
    assert len(said) == 3
    assert "'step' in info has never been there. Did you mean 'steps'? (there is 'steps', 'odd', 'text'" in said[0]
    assert all("is no plain number" in line for line in said[1:])
    assert {name for name in run.metrics if name.endswith("_mean")} == {
        "return_mean", "episode_length_mean", "evaluation_mean", "odd_mean",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (("is_success",), r"record_info=\('is_success',\): a compiled environment has no info"),
        (3, "record_info must be names such as"),
        (("",), "record_info must be names such as"),
        (("return",), "'return_mean' is a column of every run already"),
    ],
)
def test_what_cannot_be_recorded_is_refused(names, answer):
    with pytest.raises(td.SettingError, match=answer):
        td.train(ALGORITHM, "CartPole-v1", 400, run_dir=None, record_info=names)
