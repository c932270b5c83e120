"""The short run that all faults happen to, and what it comes to."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import thorndike as td
from thorndike.runs import checkpoints, folders, records

NETWORK = td.MLP((4,), initialization="default")  # of few operations: it is traced anew for every run
ALGORITHM = td.PPO(network=NETWORK, critic_network=None, num_environments=2, rollout_length=8, batch_size=16, epochs=1)
INTERVAL, STEPS = 16, 80  # an iteration each: five checkpoints, of which three stay
OPTIONS: dict[str, Any] = {
    "quiet": True, "checkpoint_every": INTERVAL, "evaluate_every": 32, "evaluate_episodes": 1, "final_episodes": 1,
}  # fmt: skip


def train(folder: Path, environment: Any = "CartPole-v1", **more: Any) -> td.Run:
    return td.train(ALGORITHM, environment, STEPS, run_dir=folder, **OPTIONS | more)


def go_on(folder: Path, environment: Any = "CartPole-v1") -> None:
    """What a user does after a fault: resume, or begin again where there is nothing yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*never reached a checkpoint: it begins anew")
        try:
            if (folder / "config.json").exists():
                td.resume(folder, quiet=True)
            else:
                train(folder, environment)
        except td.RunError as error:
            if "is complete" not in str(error):
                raise


def result(folder: Path) -> dict[str, Any]:
    """All that the run comes to, but for times."""
    manifest = json.loads((folder / "checkpoints" / f"step-{STEPS:09d}" / "manifest.json").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "steps_per_second")} for row in records.read(folder)]
    return {
        "arrays": {seed: entry["sha256"] for seed, entry in manifest["seeds"].items()},
        "results": {seed: entry["results"] for seed, entry in manifest["seeds"].items()},
        "rows": rows,
        "summary": {name: summary[name] for name in ("steps", "evaluation", "training")},
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
    }


def saved(folder: Path) -> checkpoints.Checkpoint | None:
    """The newest checkpoint, which is whole and at most one interval behind the rows; nothing is to be warned of."""
    if not (folder / "config.json").exists():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, checkpoint = folders.read(folder, {})
        rows = folders.rows(folder, checkpoint)
    steps = checkpoint.manifest["steps"] if checkpoint else 0
    assert steps >= max((row["steps"] for row in rows), default=0) - INTERVAL
    return checkpoint
