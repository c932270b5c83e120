"""Whatever call of a run fails or is its last: what was saved loads, the error says so, and the rest comes back."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import thorndike as td
from faults.injection import Faults, Killed, die, disk_says
from faults.runs import go_on, result, saved, train
from thorndike.runs import recording

FAILURES = {name: disk_says(getattr(errno, name)) for name in ("ENOSPC", "EDQUOT", "EIO", "EROFS")} | {"a kill": die}
SOME = [("ENOSPC", 3, 0), ("a kill", 3, 1)]  # failure, every how many calls, from which on
ALL = [pytest.param(name, 1, 0, marks=[pytest.mark.faults, pytest.mark.timeout(3_000)]) for name in FAILURES]


@pytest.fixture(scope="module", autouse=True)
def _unsynced():
    """Syncing takes time only, where no power fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """What the run comes to that nothing happens to, and the calls it makes."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    with Faults().injected() as faults:
        train(folder)
    return result(folder), faults


@pytest.fixture(scope="module")
def half(tmp_path_factory, unbroken):
    """A run that was killed while it saved for the fourth time, and the calls that resuming it makes."""
    folder, again = (tmp_path_factory.mktemp("half") / name for name in ("run", "again"))
    renames = [k for k, name in enumerate(unbroken[1].names) if name == "rename"]
    _, error = failing(renames[3], die, train, folder)
    assert isinstance(error, Killed)
    shutil.copytree(folder, again)
    with Faults().injected() as faults:
        td.resume(again, quiet=True)
    assert result(again) == unbroken[0]
    return folder, faults


def failing(k: int, failure: Callable, do: Callable, *arguments: Any, **more: Any) -> tuple[Faults, Any]:
    """The calls of `do`, whose k-th fails, and the error that came of it."""
    faults = Faults(k, failure)
    gc.freeze()  # collecting shall not look through all that was there before
    try:
        with faults.injected(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a config.json that could not be opened: using its copy
            do(*arguments, **more)
    except td.RunError as error:
        return faults, error
    except Killed as error:
        error.__traceback__ = error.__context__ = None
        gc.collect()  # the files that the dead process had open: closing them is no later test's affair
        return faults, error
    finally:
        gc.unfreeze()
    return faults, None


def chosen(faults: Faults, step: int, start: int) -> list[int]:
    return (list(range(len(faults.names))) if step == 1 else faults.distinct)[start::step]


def check_error(error: Any, folder: Path, checkpoint: Any) -> None:
    """It names the folder and, once something was trained, the last checkpoint and the line that goes on."""
    if isinstance(error, Killed):
        return
    said = str(error)
    assert str(folder) in said
    if "cannot be used as a folder to write into" not in said and "cannot be read" not in said:
        assert (
            f"The last checkpoint is {checkpoint.path.name}; " if checkpoint else "There is no checkpoint yet" in said
        )
        assert said.endswith(f"go on with: thorndike resume {folder}")


def check_recovers(error: Any, folder: Path, expected: dict[str, Any]) -> None:
    """All that is promised of a run to which `error` has happened."""
    if error is not None:
        check_error(error, folder, saved(folder))
        go_on(folder)
        assert result(folder) == expected
        return
    done = result(folder)
    # What could not be deleted stays, and is no reason to stop.
    done["files"] = [
        name
        for name in done["files"]
        if name != ".lock" and ".deleted-" not in name and ("/best-" not in name or name in expected["files"])
    ]
    assert done == expected


@pytest.mark.parametrize(("failure", "step", "start"), [*SOME, *ALL])
def test_a_run_comes_back_whatever_call_fails(failure, step, start, unbroken, tmp_path, told):
    expected, faults = unbroken
    calls = chosen(faults, step, start)
    for k in calls:
        broken, error = failing(k, FAILURES[failure], train, tmp_path / str(k))
        try:
            assert broken.names[: k + 1] == faults.names[: k + 1]
            check_recovers(error, tmp_path / str(k), expected)
        except BaseException as wrong:
            wrong.add_note(f"call {k}, {faults.names[k]}, ended in {error!r}")
            raise
        shutil.rmtree(tmp_path / str(k))
    told(f"{failure} at a call of a run", len(calls), len(calls))


@pytest.mark.parametrize(("failure", "step", "start"), [*SOME, *ALL])
def test_a_resumed_run_comes_back_whatever_call_fails(failure, step, start, unbroken, half, tmp_path, told):
    folder, faults = half
    calls = chosen(faults, step, start)
    for k in calls:
        shutil.copytree(folder, tmp_path / str(k))
        _, error = failing(k, FAILURES[failure], td.resume, tmp_path / str(k), quiet=True)
        try:
            check_recovers(error, tmp_path / str(k), unbroken[0])
        except BaseException as wrong:
            wrong.add_note(f"call {k}, {faults.names[k]}, ended in {error!r}")
            raise
        shutil.rmtree(tmp_path / str(k))
    told(f"{failure} at a call of a resumed run", len(calls), len(calls))


@pytest.mark.parametrize(("step", "start"), [(5, 2), pytest.param(1, 0, marks=pytest.mark.faults)])
def test_a_run_that_pauses_goes_on_whatever_call_found_no_room(step, start, unbroken, tmp_path, monkeypatch, told):
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0)
    expected, faults = unbroken
    began = faults.names.index("mkdir", 5)  # of checkpoints/: what comes before is no part of training
    calls = [k for k in chosen(faults, step, start) if k > began]
    for k in calls:
        _, error = failing(k, FAILURES["ENOSPC"], train, tmp_path / str(k), on_full_disk="pause")
        # No disk is too full to read: where a file is opened for that, the run ends as at any unreadable one.
        assert error is None or "cannot be read" in str(error), (k, faults.names[k])
        check_recovers(error, tmp_path / str(k), expected)
    told("no room, with on_full_disk=pause", len(calls), len(calls))
