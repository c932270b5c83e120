"""What users hear of a run: `on_chunk` changes nothing, may stop it, and what it raises leaves the run resumable."""

from __future__ import annotations

import json
import signal

import gymnasium
import numpy as np
import pytest

import thorndike as td
from test_runs import ALGORITHM, GRADIENT, OPTIONS, STEPS, Walk, interrupted, rows_of, same_arrays, same_rows
from thorndike import trainer
from thorndike.checkpoints import newest
from thorndike.environments import make

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
