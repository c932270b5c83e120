"""Processes killed by SIGKILL, at calls by which they save and delete and at any moment; each run comes back whole."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from faults.runs import result, saved

ENVIRONMENTS = {"compiled": "CartPole-v1", "Gymnasium": "gymnasium:CartPole-v1", "EnvPool": "envpool:CartPole-v1"}
KILLS = int(os.environ.get("KILLS", 50))
TESTS = Path(__file__).parents[1]


class Processes:
    """Makes processes that train, or go on, and are killed."""

    def __init__(self, environment: str) -> None:
        paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "faults.killed", environment],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip

    def run(self, folder: Path, **doom: Any) -> dict[str, Any]:
        """One process from its beginning to its end: what ended it, and the calls it made if it came to its own end."""
        print(json.dumps({"folder": str(folder), **doom}), file=self.server.stdin, flush=True)
        ended = json.loads(self.server.stdout.readline())
        assert ended["signal"] in (0, 9)
        assert ended["signal"] or ended["status"] == 0
        return ended

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        with self.server:  # closes its pipes, and waits
            self.server.stdin.close()


@pytest.mark.faults
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_a_run_comes_back_however_often_it_is_killed(kind, tmp_path, told):
    if kind == "EnvPool":
        pytest.importorskip("envpool")
    chance, killed, in_saving = random.Random(kind), 0, 0
    with Processes(ENVIRONMENTS[kind]) as processes:
        names = processes.run(tmp_path / "unbroken")["names"]
        expected = result(tmp_path / "unbroken")
        distinct = [k for k in range(1, len(names)) if names[k] != names[k - 1]]
        while killed < KILLS:
            folder, steps = tmp_path / str(killed), 0
            for _ in range(chance.randint(1, 3)):
                at_a_call = chance.random() < 0.6
                doom = {"call": chance.choice(distinct)} if at_a_call else {"seconds": chance.uniform(0, 0.5)}
                ended = processes.run(folder, **doom)
                if not ended["signal"]:
                    break
                killed += 1
                in_saving += at_a_call
                checkpoint = saved(folder)
                assert checkpoint is None or checkpoint.manifest["steps"] >= steps
                steps = checkpoint.manifest["steps"] if checkpoint else 0
            processes.run(folder)
            assert result(folder) == expected, folder
    told(
        f"SIGKILL, {kind}: {in_saving} at a call that saves or deletes, {killed - in_saving} at any moment",
        killed,
        killed,
    )
