"""What a run folder holds, which run that is of, and how much of it is whole.

Arrays and the configuration decide what a run is: with the newest checkpoint that is whole both are there, since its
manifest has the configuration too. Rows and summary are records: what is lost of them is said, and no error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thorndike import persistence, trainer
from thorndike.errors import CorruptCheckpointError, RunError, one_line
from thorndike.runs import checkpoints, configuration, records
from thorndike.runs.checkpoints import Checkpoint
from thorndike.runs.configuration import Configuration
from thorndike.runs.recording import CHECKPOINTS, SUMMARY

SWEEP, SEARCH = "sweep.json", "search.json"  # what folders hold that have run folders in them


def check_is_one(folder: Path) -> None:
    """RunError where `folder` is no run folder."""
    if not persistence.exists(folder / configuration.FILE) and not persistence.is_folder(folder / CHECKPOINTS):
        kinds = {SWEEP: ("a sweep", "td.Sweep"), SEARCH: ("a search", "td.Search")}
        for file, (what, cls) in kinds.items():
            if persistence.exists(folder / file):
                raise RunError(f"{folder} is {what}: {cls}.load and thorndike resume take it, all else one of its runs")
        raise RunError(f"{folder} is not a run folder: it has no {configuration.FILE}")


def read(folder: Path, own: Mapping[str, Any]) -> tuple[Configuration, Checkpoint | None]:
    """The run in `folder`, and its newest checkpoint that is whole, if it has any.

    A folder is of the run that most of its checkpoints are of. Those of another are passed over, and in the place of a
    config.json that is damaged or of another, the checkpoint's copy is used; with a warning each. `own` is what the
    user hands in again, as for `configuration.from_json_values`. RunError or a kind of it where nothing is whole, or it
    is not what thorndike writes.
    """
    check_is_one(folder)
    values, problem = _own_configuration(folder)
    run = checkpoints.run_of_most(folder / CHECKPOINTS, values)
    if values is not None and _id(values) != run:
        problem = f"{folder / configuration.FILE} is of another run than its checkpoints"
    checkpoint = checkpoints.newest(folder / CHECKPOINTS, run)
    if problem:
        values = checkpoint.manifest.get("configuration") if checkpoint else None
    if values is None:
        raise CorruptCheckpointError(problem)
    if problem and checkpoint:
        warnings.warn(one_line(f"{problem}: using the copy in {checkpoint.path.name}"), stacklevel=3)
    found = configuration.from_json_values(values, own, folder)
    if checkpoint:
        _check_seeds(checkpoint, found)
    return found, checkpoint


def is_complete(run: Configuration, checkpoint: Checkpoint | None, folder: Path) -> bool:
    """Whether every seed has come to its end, and the result is written."""
    total = trainer.iterations_for(run.algorithm, run.steps)
    ended = [entry["iteration"] >= total for entry in checkpoint.seeds.values()] if checkpoint else []
    return len(ended) == run.seeds and all(ended) and persistence.exists(folder / SUMMARY)


def rows(folder: Path, checkpoint: Checkpoint | None) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, as far as they are whole."""
    try:
        return records.read(folder, _written(checkpoint))
    except CorruptCheckpointError as error:
        warnings.warn(f"no row of metrics is read: {error}", stacklevel=3)
        return []


def summary(folder: Path, run: str | None) -> dict[str, Any]:
    """What summary.json holds; nothing where there is none, or none that is whole and of the run with this id."""
    path = folder / SUMMARY
    if not persistence.exists(path):
        return {}
    try:
        values = persistence.read_json(path)
        if run:  # those of runs from before there were ids are not sealed
            values = persistence.unsealed(values, path)
            if values.pop("run", run) != run:
                raise CorruptCheckpointError(f"{path} is of another run")
        return values
    except CorruptCheckpointError as error:
        warnings.warn(f"there is no summary: {error}", stacklevel=3)
        return {}


def cut_back(folder: Path, checkpoint: Checkpoint | None) -> records.Log:
    """The rows to go on from `checkpoint` with; those after it are deleted."""
    done = {seed: entry["steps"] for seed, entry in checkpoint.seeds.items()} if checkpoint else {}
    return records.cut_back(folder, done, _written(checkpoint))


def check_never_saved(run: Configuration, folder: Path) -> None:
    """RunError where a run without a checkpoint has had one, which is lost: beginning anew would lose its rows too."""
    found = rows(folder, None)
    ends = {row["seed"]: row["steps"] for row in found}
    missing = bool(found) and not persistence.is_folder(folder / CHECKPOINTS)
    first = run.in_iterations(run.checkpoint_every) * trainer.steps_per_iteration(run.algorithm)
    beyond = bool(found) and 0 < first < min(ends.values())
    if missing or beyond or persistence.exists(folder / SUMMARY):
        raise RunError(
            f"the checkpoints of {folder} are gone, its {len(found):,} rows of metrics say that it had some: put them "
            f"back, or begin anew in another folder"
        )
    if found:
        warnings.warn(one_line(f"{folder} never reached a checkpoint: it begins anew"), stacklevel=3)


def verify(folder: Path) -> list[tuple[str, str]]:
    """Every file of a run, and what is wrong with it: "" where it is whole. Nothing is changed."""
    check_is_one(folder)
    values, problem = _own_configuration(folder)
    run = checkpoints.run_of_most(folder / CHECKPOINTS, values)
    if values is not None and _id(values) != run:
        problem = "it is of another run than its checkpoints"
    found, newest = [(configuration.FILE, problem)], None
    for path in checkpoints.numbered(folder / CHECKPOINTS):
        try:
            newest, problem = checkpoints.of_run(path, run), ""
        except RunError as error:
            problem = str(error)
        found.append((f"{CHECKPOINTS}/{path.name}", problem))
    found.append((records.FILE, _said(lambda: rows(folder, newest))))
    found.append((SUMMARY, _said(lambda: summary(folder, run))))
    return [(name, problem) for name, problem in found if problem or persistence.exists(folder / name)]


def _own_configuration(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """What config.json holds, or why it cannot be used."""
    try:
        return configuration.read(folder), ""
    except CorruptCheckpointError as error:
        return None, str(error)


def _check_seeds(checkpoint: Checkpoint, run: Configuration) -> None:
    """CorruptCheckpointError where a checkpoint holds seeds that the run has not, or other moments than it says."""
    if not checkpoint.seeds.keys() <= set(run.chosen_seeds):
        raise CorruptCheckpointError(f"{checkpoint.path} has other seeds than {configuration.FILE}")
    for seed, entry in checkpoint.seeds.items():
        saved = checkpoint.arrays(seed, "iteration").get("iteration")
        if saved is not None and not np.array_equal(saved, entry["iteration"]):
            raise CorruptCheckpointError(f"{checkpoint.path} says of seed {seed} another iteration than its arrays")


def _id(values: Mapping[str, Any]) -> str:
    return str(values.get("id", ""))


def _written(checkpoint: Checkpoint | None) -> dict[int, records.Written]:
    seeds = checkpoint.seeds.items() if checkpoint else ()
    return {seed: entry["metrics"] for seed, entry in seeds if "metrics" in entry}


def _said(look: Callable[[], Any]) -> str:
    """What a reader says is wrong."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            look()
        except RunError as error:
            return str(error)
    return "; ".join(str(warning.message) for warning in caught)
