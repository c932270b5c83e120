"""Ray's actors killed at random, fifty times in a run: the run is the one that nothing happened to."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
import warnings
from importlib.util import find_spec

import jax
import numpy as np
import pytest

import thorndike as td

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.faults,
    pytest.mark.timeout(1800),
]
TIMES = int(os.environ.get("TIMES", 50))
GATE = 400
ALGORITHM = td.PPO(num_environments=8, rollout_length=128, batch_size=256)


def actors() -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "ray::Remote" in line]


def left_of_ray() -> list[str]:
    """Its processes, those apart that are about to end."""
    end = time.monotonic() + 20
    while True:
        listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True).stdout
        found = [line for line in listed.splitlines() if "ray::" in line or "raylet" in line]
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.5)


def trained(on_chunk=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return td.train(
            ALGORITHM, "gymnasium:CartPole-v1", 600_000, ray=True, actors=2, run_dir=None, quiet=True, evaluate_every=0,
            on_chunk=on_chunk,
        )  # fmt: skip


def test_actors_killed_at_random_change_nothing(told):
    assert left_of_ray() == []
    undisturbed, killed, generator = trained(), [], random.Random(0)

    def kill():
        with contextlib.suppress(IndexError, ProcessLookupError):  # none there at this moment
            pid = generator.choice(actors())
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    def on_chunk(chunk):
        if len(killed) < TIMES:
            threading.Timer(generator.uniform(0, 0.1), kill).start()

    run = trained(on_chunk)
    assert len(killed) >= TIMES
    leaves = zip(jax.tree.leaves(run.agent.state), jax.tree.leaves(undisturbed.agent.state), strict=True)
    assert all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves)
    assert run.summary["training"]["mean"] > GATE
    assert left_of_ray() == []
    told("actor of Ray's killed by SIGKILL at any moment: the same run, bit for bit", len(killed), len(killed))
