"""Acting by Ray's actors: one is the run without, several are one for their number, and a lost one loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from jax import random

import thorndike as td
from thorndike.cli import main
from thorndike.environments import make
from thorndike.errors import EnvironmentFault, MissingExtraError, RunError, SettingError, UnsuitableError

ray = pytest.importorskip("ray")

from thorndike.unrolls.ray import RayEnvironment, _borders  # noqa: E402

ON_HOST, COMPILED = "gymnasium:CartPole-v1", "CartPole-v1"


@pytest.fixture(scope="module", autouse=True)
def _one_ray():
    """The user's own Ray, which runs use and leave as it is."""
    ray.init(
        address="local", num_cpus=3, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    yield
    ray.shutdown()


def ppo(**fields):
    return td.PPO(**{"num_environments": 4, "rollout_length": 16, "epochs": 2, "batch_size": 16} | fields)


def dqn(**fields):
    memory = td.Replay(capacity=2_000, batch_size=16)
    return td.DQN(**{"num_environments": 4, "rollout_length": 8, "memory": memory, "warmup_steps": 200} | fields)


def trained(algorithm, environment, steps=1_000, **options):
    return td.train(algorithm, environment, steps, quiet=True, evaluate_every=0, **{"run_dir": None} | options)


def same(one, other) -> bool:
    """Whether two runs have learned the same, bit for bit, and say the same of it."""
    leaves = zip(jax.tree.leaves(one.agent.state), jax.tree.leaves(other.agent.state), strict=True)
    numbers = [[{k: v for k, v in row.items() if "second" not in k} for row in run._rows] for run in (one, other)]
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves) and numbers[0] == numbers[1]


class Fragile(gymnasium.Env):
    """Goes left and right for seven steps, and does to its process what a file says, once, at a step of copy `at`."""

    observation_space = spaces.Box(-100, 100, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, does="", file="", hidden=False):
        self.does, self.file, self.hidden = does, file, hidden

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.x = 0, self.np_random.normal() + (time.perf_counter() % 1 if self.hidden else 0)
        return self.see(), {}

    def step(self, action):
        self.t += 1
        self.x += 1 if action else -1
        if self.file and self.t == 5 and Path(self.file).exists():
            if self.does == "die":
                if not self.hidden or self.x > 0:
                    Path(self.file).unlink(missing_ok=True)
                    os.kill(os.getpid(), signal.SIGKILL)
            elif self.does == "die again":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.does == "raise":
                raise ValueError("engine is cold")
        return self.see(), self.x, False, self.t == 7, {"distance": abs(self.x)}

    def see(self):
        return np.array([self.x, self.t], np.float32)


# --- the same run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "environment"),
    [(ppo(), ON_HOST), (dqn(), ON_HOST), (ppo(), COMPILED)],
    ids=["ppo", "dqn", "compiled"],
)
def test_one_actor_makes_the_run_that_would_have_been_without(algorithm, environment):
    here, there = trained(algorithm, environment), trained(algorithm, environment, ray=True, actors=1)
    assert same(here, there)
    assert there.configuration.actors == 1
    assert there.configuration.compiled == here.configuration.compiled


def test_acting_while_learning_is_the_same_by_an_actor_and_goes_on_exactly(tmp_path):
    here = trained(dqn(), ON_HOST, overlap=True)
    assert same(here, trained(dqn(), ON_HOST, overlap=True, ray=True, actors=1))
    assert not same(here, trained(dqn(), ON_HOST))
    by_two = {"overlap": True, "ray": True, "actors": 2}
    whole = trained(dqn(), ON_HOST, **by_two)
    folder = tmp_path / "run"
    trained(dqn(), ON_HOST, run_dir=folder, checkpoint_every=320, on_chunk=stop_at(640), **by_two)
    assert same(whole, td.resume(folder, quiet=True))


def stop_at(steps):
    def on_chunk(chunk):
        if chunk.steps >= steps:
            chunk.stop()

    return on_chunk


# --- many settings ----------------------------------------------------------------------------------------------------


def test_a_sweep_by_tasks_finds_what_it_finds_here_and_a_setting_that_fails_is_a_row(tmp_path):
    file = tmp_path / "dies"
    file.touch()
    grid = {"learning_rate": [1e-3, 1e-2], "environment.does": ["", "raise"]}
    settings = {
        "grid": grid,
        "seeds": 1,
        "quiet": True,
        "final_episodes": 2,
        "environment_arguments": {"file": str(file)},
    }
    here = td.sweep(ppo(), Fragile, 300, run_dir=tmp_path / "here", **settings)
    there = td.sweep(ppo(), Fragile, 300, run_dir=tmp_path / "there", ray=True, **settings)
    assert [row.settings for row in there.table] == [row.settings for row in here.table]
    assert [row.result for row in there.table] == [row.result for row in here.table]
    assert [bool(row.failed) for row in there.table] == [False, False, True, True]
    assert "engine is cold" in there.table[-1].failed
    assert same(here.best, there.best)


def test_a_sweep_by_tasks_that_is_stopped_goes_on(tmp_path):
    """In a process of its own, which gets the signal of a terminal's Ctrl-C."""
    flags = f"--learning-rate 1e-3,1e-2 --seeds 1 --steps 400_000 --ray --run-dir {tmp_path / 'sweep'}"
    environment = os.environ | {"PYTHONPATH": str(Path(td.__file__).parents[1])}
    command = [sys.executable, "-m", "thorndike", "sweep", "ppo", ON_HOST, *flags.split(), "--evaluate-every", "400000"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not list(tmp_path.glob("sweep/*/checkpoints/step-*")):
        assert time.monotonic() < end
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert "go on with: thorndike resume" in said
    assert any(list(tmp_path.glob("sweep/*/checkpoints/step-*")))


@pytest.mark.parametrize("environment", [ON_HOST, COMPILED])
def test_several_actors_make_one_run_for_their_number(environment):
    runs = [trained(ppo(num_environments=5), environment, ray=True, actors=3) for _ in range(2)]
    assert same(*runs)
    assert not same(runs[0], trained(ppo(num_environments=5), environment))  # whose keys are others


def test_seeds_follow_one_another_in_the_same_actors():
    here, there = (trained(ppo(), ON_HOST, seeds=2, seed=5, **by) for by in ({}, {"ray": True, "actors": 1}))
    for one, other in zip(here.agents, there.agents, strict=True):
        assert all(map(np.array_equal, jax.tree.leaves(one.state), jax.tree.leaves(other.state)))


def test_a_memory_of_networks_crosses_too():
    algorithm = ppo(network=td.GRU(size=8), sequence_length=8, num_environments=8)
    assert same(trained(algorithm, ON_HOST), trained(algorithm, ON_HOST, ray=True, actors=1))


def test_a_network_of_the_user_s_own_crosses_too():
    def init(key, inputs, outputs):
        return {"weights": random.normal(key, (4, 2)) * 0.1}

    def apply(parameters, observation):
        return observation @ parameters["weights"]

    algorithm = dqn(network=(init, apply))
    assert same(trained(algorithm, ON_HOST), trained(algorithm, ON_HOST, ray=True, actors=1))


def test_evaluations_are_played_here_and_are_the_same():
    options = {"evaluate_every": 512, "evaluate_episodes": 4, "final_episodes": 4, "quiet": True, "run_dir": None}
    runs = [td.train(ppo(), ON_HOST, 1_024, **options, **by) for by in ({}, {"ray": True, "actors": 1})]
    assert same(*runs)
    assert runs[0].summary["evaluation"] == runs[1].summary["evaluation"]


def test_copies_keep_the_numbers_and_seeds_that_they_have_on_one_machine():
    here, there = make(ON_HOST, 5), RayEnvironment(ON_HOST, 5, {}, actors=3)
    try:
        assert _borders(5, 3) == [0, 2, 4, 5]
        assert np.array_equal(here.reset(random.key(3))[1], there.reset(random.key(3))[1])
        actions = np.array([0, 1, 1, 0, 1])
        for _ in range(60):  # episodes end meanwhile
            one, other = here.step((), actions)[1], there.step((), actions)[1]
            assert all(map(np.array_equal, one, other))
    finally:
        here.close()
        there.close()


def test_what_info_says_is_one_mean_over_all_actors():
    rows = []
    for by in ({}, {"ray": True, "actors": 1}, {"ray": True, "actors": 2}):
        run = trained(ppo(), lambda: Fragile(), record_info=("distance",), **by)
        rows.append([row["distance_mean"] for row in run._rows])
    assert rows[0] == rows[1]
    assert len(rows[2]) == len(rows[0])


# --- stopping and going on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [ON_HOST, COMPILED])
def test_a_run_that_was_stopped_goes_on_exactly(tmp_path, environment):
    by = {"ray": True, "actors": 3, "run_dir": tmp_path / "run"}

    def stop(chunk):
        if chunk.steps >= 512:
            chunk.stop()

    trained(ppo(), environment, on_chunk=stop, metrics_every=64, **by)
    resumed = td.resume(tmp_path / "run", quiet=True)
    undisturbed = trained(ppo(), environment, metrics_every=64, **by | {"run_dir": None})
    assert same(resumed, undisturbed)
    assert resumed.configuration.actors == 3
    assert json.loads((tmp_path / "run" / "config.json").read_text())["actors"] == 3


def test_a_run_without_actors_is_resumed_without(tmp_path):
    trained(ppo(), ON_HOST, run_dir=tmp_path / "run")
    with pytest.raises(RunError, match="no run by Ray"):
        td.resume(tmp_path / "run", steps=2_000, ray=True, quiet=True)


# --- losses -----------------------------------------------------------------------------------------------------------


def dies(tmp_path, does="die", **more):
    """The arguments of a Fragile that does so once, somewhere in the third rollout or after."""
    return {"environment_arguments": {"does": does, "file": str(tmp_path / "now"), **more}}


def after(steps, tmp_path):
    return lambda chunk: chunk.steps == steps and (tmp_path / "now").touch()


@pytest.mark.parametrize("actors", [1, 2])
def test_an_actor_killed_in_a_rollout_changes_nothing_and_is_noted(tmp_path, actors):
    by = {"ray": True, "actors": actors, "metrics_every": 64}

    def touch(chunk):
        if chunk.steps == 256:
            (tmp_path / "now").touch()

    with pytest.warns(UserWarning, match=r"actor \d with cop.* was lost .*went on where it stood"):
        run = trained(ppo(), Fragile, run_dir=tmp_path / "run", on_chunk=touch, **by, **dies(tmp_path))
    assert not (tmp_path / "now").exists()
    undisturbed = trained(ppo(), Fragile, **by)
    assert same(run, undisturbed)
    history = json.loads((tmp_path / "run" / "config.json").read_text())["history"][-1]
    assert len(history["lost"]) == 1
    assert "seed 0, by step" in history["lost"][0]
    assert "inexact" not in history


def test_an_actor_killed_between_rollouts_changes_nothing():
    by, pids = {"ray": True, "actors": 2, "metrics_every": 64}, []

    def kill(chunk):
        if chunk.steps == 512 and not pids:
            pids.append(ray_workers()[0])
            os.kill(pids[0], signal.SIGKILL)

    with pytest.warns(UserWarning, match="was lost"):
        run = trained(ppo(), COMPILED, on_chunk=kill, **by)
    assert same(run, trained(ppo(), COMPILED, **by))


def test_episodes_that_cannot_be_repeated_begin_anew_and_learning_is_told(tmp_path):
    def touch(chunk):
        if chunk.steps == 256:
            (tmp_path / "now").touch()

    with pytest.warns(UserWarning, match="could not go on with its episode"):
        trained(
            dqn(), Fragile, ray=True, actors=2, on_chunk=touch, run_dir=tmp_path / "run", metrics_every=64,
            **dies(tmp_path, hidden=True),
        )  # fmt: skip
    history = json.loads((tmp_path / "run" / "config.json").read_text())["history"][-1]
    assert "began the next one" in history["lost"][0]


def test_an_environment_that_kills_every_actor_ends_the_run_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr("thorndike.unrolls.ray.MOST_LOST", 3)
    (tmp_path / "now").touch()
    with pytest.warns(UserWarning, match="was lost"), pytest.raises(EnvironmentFault, match="lost 3 times without"):
        trained(ppo(), Fragile, ray=True, actors=1, **dies(tmp_path, "die again"))


def test_an_environment_that_raises_is_told_of_as_here(tmp_path):
    (tmp_path / "now").touch()
    said = []
    for by in ({}, {"ray": True, "actors": 4}):
        with pytest.raises(EnvironmentFault) as fault:
            trained(ppo(), Fragile, **by, **dies(tmp_path, "raise"))
        said.append(str(fault.value))
    assert "copy 0, episode seed" in said[0]
    assert "step 5: ValueError: engine is cold" in said[0]
    assert said[0] == said[1]


# --- what is left behind ----------------------------------------------------------------------------------------------


def ray_workers() -> list[int]:
    """The processes of actors, on this machine, that belong to this test."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in listed if "ray::Remote" in line]


def test_the_user_s_own_ray_is_left_as_it_was():
    trained(ppo(), ON_HOST, ray=True, actors=2)
    assert ray.is_initialized()
    deadline = time.monotonic() + 10
    while ray_workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray_workers() == []


COMMAND = """
import sys
from thorndike.cli import main
sys.exit(main(sys.argv[1:]))
"""


def begun(arguments):
    """The command as a process group of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env=environment,
    )  # fmt: skip


def in_session(session: int) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "sid,args"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in listed if line.split()[0] == str(session)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_leaves_nothing_behind(tmp_path, number, code):
    """Ctrl-C reaches every process of the terminal's group, Ray's too."""
    flags = "--steps 1M --ray --actors 2 --num-environments 4 --rollout-length 16 --batch-size 64 --evaluate-every 0"
    process = begun(
        ["train", "ppo", ON_HOST, *flags.split(), "--metrics-every", "64", "--run-dir", str(tmp_path / "run")]
    )
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 90
    while not (metrics.exists() and metrics.read_text().count("\n") > 3) and time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == code, said
    assert "saved; go on with" in said
    assert "was lost" not in said
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert in_session(process.pid) == []


# --- what cannot be meant ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ray": True, "actors": 5}, "5 actors have 4 copies"),
        ({"ray": True, "actors": 0}, "at least 1"),
        ({"ray": True, "actors": 2.0}, "whole number"),
        ({"ray": 3}, "must be True"),
        ({"ray": ""}, "must be True"),
        ({"actors": 2}, "are Ray's"),
    ],
)
def test_what_cannot_be_meant_is_answered(options, words):
    with pytest.raises(SettingError, match=words):
        trained(ppo(), ON_HOST, **options)


def test_where_ray_is_missing_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'pip install "thorndike\[ray\]"'):
        trained(ppo(), ON_HOST, ray=True)


def test_an_environment_that_cannot_be_sent_is_answered():
    import threading

    environment = Fragile()
    environment.lock = threading.Lock()
    with pytest.raises(UnsuitableError, match="cannot be sent"):
        trained(ppo(num_environments=1), environment, ray=True)


def test_errors_of_making_are_those_that_are_raised_here():
    with pytest.raises(td.UnknownNameError, match="there is no environment 'CartPol-v1'"):
        trained(ppo(), "CartPol-v1", ray=True)


def test_the_command_takes_ray_without_an_address(capsys, tmp_path):
    flags = "--ray --actors 5 --num-environments 4 --steps 100"
    assert main(["train", "ppo", ON_HOST, *flags.split()]) == 2
    assert "5 actors have 4 copies" in capsys.readouterr().err
