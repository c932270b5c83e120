"""Workers killed, hanging and raising, fifty times each, and killed parents: nothing changes, nothing is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import thorndike as td
from thorndike import trainer
from thorndike.environments import make
from thorndike.environments.workers import Workers

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
TIMES = int(os.environ.get("TIMES", 50))
STEPS = int(os.environ.get("STEPS", 120_000))
# What CartPole is solved by in a minute, so that a run of it has a gate.
ALGORITHM = td.DQN(num_environments=4, warmup_steps=1_000)
GATE = 400


class Flaky(gymnasium.Wrapper):
    """CartPole whose steps fail as they are told to, in episodes whose seed is new to the folder `told`."""

    def __init__(self, fails: str, told: Path, share: int) -> None:
        super().__init__(gymnasium.make("CartPole-v1", disable_env_checker=True))
        self.fails, self.told, self.share = fails, told, share

    def reset(self, *, seed=None, options=None):
        self.mark, self.t = (self.told / str(seed)) if seed % self.share == 0 else None, 0
        return self.env.reset(seed=seed)

    def step(self, action):
        self.t += 1
        if self.mark is not None and self.t == 5 and (self.fails == "always" or not self.mark.exists()):
            if not self.mark.exists() and len(list(self.told.iterdir())) >= TIMES:
                self.mark = None
                return self.env.step(action)
            self.mark.touch()
            if self.fails == "hang":
                time.sleep(3600)
            raise RuntimeError("engine is cold")
        return self.env.step(action)


def trained(environment, workers, while_it_goes=lambda environment: None):
    """The arrays at the end of a run, and the mean return of its last thirty episodes."""
    copies = make(environment, ALGORITHM.num_environments, workers=workers)
    while_it_goes(copies)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chunk = None
        for chunk in trainer.train(ALGORITHM, lambda: copies, STEPS):
            returns, arrays = chunk.recent[0], chunk.arrays() if chunk.last else None
    return arrays, float(np.mean(returns[-30:]))


@pytest.fixture(autouse=True)
def _own_temporary_files(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture(scope="module")
def undisturbed():
    arrays, mean = trained("gymnasium:CartPole-v1", 0)
    assert mean > GATE
    return arrays


def check_same(arrays, undisturbed):
    assert [name for name in arrays if arrays[name].tobytes() != undisturbed[name].tobytes()] == []


def workers_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "multiprocessing.spawn" in line]


def left_behind() -> set[str]:
    """Shared memory and temporary files."""
    return {f"{folder}/{name}" for folder in ("/dev/shm", tempfile.gettempdir()) for name in os.listdir(folder)}


def test_workers_killed_at_random_change_nothing(undisturbed, told):
    before, killed = left_behind(), []

    def begin(environment):
        def kill():
            generator = random.Random(0)
            while len(killed) < TIMES:
                time.sleep(generator.uniform(0.1, 0.6))
                with contextlib.suppress(IndexError, ProcessLookupError):  # none there at this moment
                    pid = generator.choice(workers_of(os.getpid()))
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        threading.Thread(target=kill, daemon=True).start()

    arrays, _ = trained("gymnasium:CartPole-v1", Workers(2, on_fault="restart", max_restarts=10_000), begin)
    assert len(killed) >= TIMES
    check_same(arrays, undisturbed)
    assert workers_of(os.getpid()) == []
    assert left_behind() <= before
    told("worker killed by SIGKILL at any moment: the same run, bit for bit", len(killed), len(killed))


@pytest.mark.parametrize("fails", ["raise", "hang"])
def test_steps_that_fail_once_change_nothing(fails, undisturbed, tmp_path, told):
    before = left_behind()
    workers = Workers(2, timeout=0.5, on_fault="restart", max_restarts=10_000)
    arrays, _ = trained(lambda: Flaky(fails, tmp_path, 3), workers)
    assert len(list(tmp_path.iterdir())) == TIMES
    check_same(arrays, undisturbed)
    assert workers_of(os.getpid()) == []
    assert left_behind() <= before
    does = {"raise": "raises", "hang": "hangs"}[fails]
    told(f"a step that {does} once in a worker: the same run, bit for bit", TIMES, TIMES)


def test_a_run_some_of_whose_episodes_always_fail_learns_all_the_same(tmp_path, told):
    workers = Workers(2, on_fault="restart", max_restarts=10_000)
    _, mean = trained(lambda: Flaky("always", tmp_path, 3), workers)
    assert len(list(tmp_path.iterdir())) == TIMES
    assert mean > GATE
    assert workers_of(os.getpid()) == []
    told("a step that always fails in a worker: the episode is lost, the run learns", TIMES, TIMES)


SCRIPT = """
import sys, time
import thorndike as td
algorithm = td.DQN(num_environments=4, warmup_steps=100)
td.train(algorithm, "gymnasium:CartPole-v1", 10**6, workers=2, overlap=True, run_dir=sys.argv[1], quiet=True)
"""


def test_parents_killed_at_random_leave_nothing_behind(tmp_path, told):
    script, generator = tmp_path / "script.py", random.Random(0)
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(td.__file__).parents[1])}
    before = left_behind()
    for turn in range(TIMES):
        parent = subprocess.Popen([sys.executable, script, tmp_path / f"run-{turn}"], env=environment)
        end = time.monotonic() + 60
        while len(workers := workers_of(parent.pid)) < 2 + (turn % 2) * 2:  # half of them once evaluation's are there
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(generator.uniform(0, 2))
        workers = workers_of(parent.pid)
        parent.kill()
        parent.wait()
        end = time.monotonic() + 10
        while [pid for pid in workers if os.path.exists(f"/proc/{pid}")]:
            assert time.monotonic() < end, "a worker has outlived its parent"
            time.sleep(0.02)
    assert left_behind() - before == set()
    told("parent of workers killed by SIGKILL: no process, shared memory or temporary file left", TIMES, TIMES)
