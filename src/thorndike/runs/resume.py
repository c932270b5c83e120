"""Resuming: a run goes on from its folder, as if it had never stopped."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from thorndike import environments, persistence, trainer
from thorndike.errors import RunError, shown
from thorndike.interface import words
from thorndike.persistence import folder_of, locked
from thorndike.runs import checkpoints, chunks, configuration, folders, records, sizes
from thorndike.runs.configuration import ENVIRONMENT, EVALUATION_ENVIRONMENT, Configuration
from thorndike.runs.drive import drive
from thorndike.runs.preparation import check_options, prepare
from thorndike.runs.recording import CHECKPOINTS, SUMMARY, writing
from thorndike.runs.run import Run
from thorndike.runs.worlds import Worlds, check_fits, chunk_maker, copies_for, worlds_for


def resume(
    run_dir: str | Path,
    steps: int | None = None,
    *,
    environment: Any = None,
    evaluation_environment: Any = None,
    algorithm: Any = None,
    network: Any = None,
    workers: int | None = None,
    worker_timeout: float | None = None,
    on_fault: words.OnFault | None = None,
    max_restarts: int | None = None,
    quiet: bool = False,
    on_full_disk: words.OnFullDisk = "stop",
    on_chunk: chunks.OnChunk | None = None,
    ray: bool | str | None = None,
    **recipes: Any,
) -> Run:
    """Go on with a run from its newest whole checkpoint, as if it had never stopped; with `steps`, to another end.

    Environments, networks and classes are handed in again, as in `load`, where they are your own or come from a module
    of somebody's.
    `workers` and what is said of them may be others than before, as the results do not depend on them.
    `quiet`, `on_full_disk` and `on_chunk` as in `train`; a run that `on_chunk` had stopped goes on to its planned end.
    A run by Ray goes on by a Ray started here, or at the address `ray`, with as many actors as it has had.
    RunError where the run is complete, in use, or does not fit what is handed in.
    """
    check_options(on_full_disk, on_chunk, quiet)
    folder, own = folder_of(run_dir), words.handed_in(algorithm, network, recipes)
    steps = steps if steps is None else words.whole_number(steps, "steps", low=1)
    handed_in = {ENVIRONMENT: environment, EVALUATION_ENVIRONMENT: evaluation_environment}
    folders.check_is_one(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(folder))
        run, checkpoint = folders.read(folder, own)
        if run.own_loop:
            raise RunError(f"{folder} was learned in {run.environment}: {configuration.how_to_resume(run, folder)}")
        given = {role: configuration.trusted_environment(run, folder, named, role) for role, named in handed_in.items()}
        staff = (("workers", workers), ("worker_timeout", worker_timeout), ("on_fault", on_fault))
        changed: Any = {name: value for name, value in (*staff, ("max_restarts", max_restarts)) if value is not None}
        run = dataclasses.replace(run, steps=steps or run.steps, **changed)
        _check_unfinished(run, checkpoint, folder)
        if ray and not run.actors:
            raise RunError(f"{folder} is no run by Ray: resume it without ray={shown(ray)}")
        run, worlds, log = reopened(run, checkpoint, folder, given, stack, ray)
        return drive(run, given, worlds, folder, quiet, on_full_disk, checkpoint, log, on_chunk)


def reopened(
    run: Configuration, checkpoint: checkpoints.Checkpoint | None, folder: Path, given: dict[str, Any],
    stack: contextlib.ExitStack, ray: Any = None,
) -> tuple[Configuration, Worlds, records.Log]:  # fmt: skip
    """Make ready to go on in a locked folder: the run, its environments, which `stack` closes, and its rows so far."""
    prepare()
    n = run.algorithm.num_environments
    place = (ray or True) if run.actors else None
    copies = copies_for(given[ENVIRONMENT], n, run.environment_arguments, run.processes(n), place, run.actors)
    stack.callback(copies.close)
    check_fits(run, copies)
    environments.record_info(copies, run.record_info)
    run, worlds = worlds_for(run.begun(), given, copies, stack)
    worlds.make_chunk = chunk_maker(run, given, worlds, stack)
    worlds.notes.append(sizes.check(run, folder, len(checkpoints.numbered(folder / CHECKPOINTS))))
    with writing(run, folder, checkpoint.path if checkpoint else None):
        log = folders.cut_back(folder, checkpoint)
        persistence.remove(folder / SUMMARY)
        run.write(folder)
    return run, worlds, log


def _check_unfinished(run: Configuration, checkpoint: checkpoints.Checkpoint | None, folder: Path) -> None:
    """RunError where there is nothing to go on with."""
    if checkpoint is None:
        folders.check_never_saved(run, folder)
        return
    total = trainer.iterations_for(run.algorithm, run.steps)
    entries = checkpoint.seeds.values()
    # A seed that has just reached an end put nearer now has no results: those come with the last step.
    if any(entry["iteration"] > total - ("results" not in entry) for entry in entries):
        steps = max(entry["steps"] for entry in entries)
        raise RunError(f"{folder} is at {steps:,} steps already: {run.steps:,} are not beyond that")
    if folders.is_complete(run, checkpoint, folder):
        raise RunError(f"{folder} is complete: say how far to go on, --steps {2 * run.steps} or steps={2 * run.steps}")
