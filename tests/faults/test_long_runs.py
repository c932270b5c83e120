"""Long runs of every algorithm hold at their end what they held once they were under way."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import endurance

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "long-runs.md"
STEEPEST = 1.0  # MiB of resident memory per 100,000 steps
INTRODUCTION = """# Long runs

What a process holds in the last three quarters of a run, with ten evaluations and ten checkpoints: what its resident
memory grows by, and the most arrays of JAX, threads, file descriptors and compiled programs at a time. None of these is
higher through the second half of that time than ever in the first. Tiny networks.
Written by `make faults`: Python {python}, jax {jax}, {cores} cores.

| run | steps | memory | growth in 100,000 steps | arrays | threads | descriptors | programs |
|---|---|---|---|---|---|---|---|
"""


@pytest.fixture(scope="module")
def table():
    """By run, what the process held; written down once all have been played."""
    rows: dict[str, list[endurance.Held]] = {}
    yield rows
    if rows.keys() != endurance.RUNS.keys():
        return
    text = INTRODUCTION.format(python=platform.python_version(), jax=jax.__version__, cores=os.cpu_count())
    for name, found in rows.items():
        settled = endurance.settled(found)
        most = [max(each[i] for each in settled) for i in range(1, len(endurance.Held._fields))]
        counts = " | ".join(map(str, most[1:]))
        text += f"| {name} | {found[-1].steps:,} | {most[0] / endurance.MIB:.0f} MiB | "
        text += f"{endurance.slope(settled):+.2f} MiB | {counts} |\n"
    RESULTS.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", endurance.RUNS)
def test_what_a_run_holds_does_not_grow(name, table, tmp_path):
    played = subprocess.run(
        [sys.executable, endurance.__file__, name, tmp_path / "run"], capture_output=True, text=True, check=False
    )
    assert played.returncode == 0, played.stderr
    found = [endurance.Held(*each) for each in json.loads(played.stdout.splitlines()[-1])]
    table[name] = found
    settled = endurance.settled(found)
    assert len(settled) > 100
    assert endurance.growing(settled) == {}
    assert endurance.slope(settled) <= STEEPEST
