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
from thorndike.runs import checkpoints, chunks, configuration, folders, sizes
from thorndike.runs.configuration import ENVIRONMENT, EVALUATION_ENVIRONMENT, Configuration
from thorndike.runs.drive import drive
from thorndike.runs.preparation import check_options, prepare
from thorndike.runs.recording import CHECKPOINTS, SUMMARY, writing
from thorndike.runs.run import Run
from thorndike.runs.worlds import check_fits, chunk_maker, copies_for, worlds_for


def resume(
    run_dir: str | Path,
    steps: int | None = None,
    *,
    environment: Any = None,
    evaluation_environment: Any = None,
    algorithm: Any = None,
    network: Any = None,
    quiet: bool = False,
    on_full_disk: words.OnFullDisk = "stop",
    on_chunk: chunks.OnChunk | None = None,
    ray: bool | str | None = None,
    **recipes: Any,
) -> Run:
    """Go on with a run from its newest whole checkpoint, as if it had never stopped; with `steps`, to another end.

    Environments, networks and classes are handed in again, as in `load`, where they are your own or come from a module
    of somebody's.
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
        run = dataclasses.replace(run, steps=steps or run.steps)
        _check_unfinished(run, checkpoint, folder)
        prepare()
        place = _place(run, ray, folder)
        copies = copies_for(given[ENVIRONMENT], run.algorithm, run.environment_arguments, place, run.actors)
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
        return drive(run, given, worlds, folder, quiet, on_full_disk, checkpoint, log, on_chunk)


def _place(run: Configuration, ray: Any, folder: Path) -> Any:
    """Where the actors of a run are to be; None for a run without any."""
    if ray and not run.actors:
        raise RunError(f"{folder} is no run by Ray: resume it without ray={shown(ray)}")
    return (ray or True) if run.actors else None


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
    done = len(entries) == run.seeds and all(entry["iteration"] >= total for entry in entries)
    if done and persistence.exists(folder / SUMMARY):
        raise RunError(f"{folder} is complete: say how far to go on, --steps {2 * run.steps} or steps={2 * run.steps}")
