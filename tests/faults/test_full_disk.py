"""A full disk is told in one line with what is safe and how to go on; or waited for, where that is asked for."""

from __future__ import annotations

import errno
import os
import shutil
import signal

import pytest

import thorndike as td
from faults.runs import INTERVAL, go_on, result, saved, train
from thorndike import cli, persistence
from thorndike.interface import console
from thorndike.runs import checkpoints, recording


class Disk:
    """Says for some attempts to write a row that it is full, once there is a checkpoint."""

    def __init__(self, attempts: int, number: int = errno.ENOSPC) -> None:
        self.attempts, self.number, self.real = attempts, number, persistence.append

    def append(self, path, data):
        if (path.parent / "checkpoints" / f"step-{2 * INTERVAL:09d}").exists() and self.attempts:
            self.attempts -= 1
            raise OSError(self.number, os.strerror(self.number))
        self.real(path, data)


@pytest.fixture
def disk(monkeypatch):
    def use(*arguments):
        made = Disk(*arguments)
        monkeypatch.setattr(persistence, "append", made.append)
        return made

    monkeypatch.setattr(recording, "RETRY_SECONDS", 0)
    return use


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    train(folder)
    return result(folder)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_is_told_with_what_is_safe_and_how_to_go_on(number, disk, tmp_path, expected):
    disk(1, number)
    with pytest.raises(td.RunError) as caught:
        train(tmp_path / "run")
    assert caught.value.args[0] == (  # whole: what is shown of a long path is cut
        f"could not write into {tmp_path / 'run'}: {os.strerror(number)}. The last checkpoint is step-000000032; "
        f"once that is mended, go on with: thorndike resume {tmp_path / 'run'}"
    )
    assert saved(tmp_path / "run").path.name == "step-000000032"
    go_on(tmp_path / "run")
    assert result(tmp_path / "run") == expected


def test_a_run_that_pauses_says_so_once_and_goes_on_when_there_is_room(disk, tmp_path, expected, capsys):
    disk(5)
    train(tmp_path / "run", quiet=False, on_full_disk="pause")
    said = capsys.readouterr().out
    assert said.count(f"paused until there is room: {tmp_path / 'run'} is on a full disk") == 1
    assert said.count(console.GOING_ON) == 1
    assert result(tmp_path / "run") == expected


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_a_run_pauses_for_room_alone(number, disk, tmp_path):
    disk(1, number)
    with pytest.raises(td.RunError, match=os.strerror(number)):
        train(tmp_path / "run", on_full_disk="pause")


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_the_waiting_and_what_was_saved_is_safe(number, kind, disk, tmp_path, expected, monkeypatch):
    class Interrupting(console.Silence):
        left = 2

        def waiting(self, why):
            self.left -= bool(why)
            if why and not self.left:
                signal.raise_signal(number)

        def stop(self, lines=()):
            self.last_words = [*lines]

    display = Interrupting()
    monkeypatch.setattr(console, "display", lambda story, quiet: display)
    room = disk(-1)
    with pytest.raises(kind) as caught:
        train(tmp_path / "run", on_full_disk="pause")
    assert kind is KeyboardInterrupt or caught.value.code == 143
    assert display.last_words == [
        "stopped while the disk was full. The last checkpoint is step-000000032; once that is mended, go on with: "
        f"thorndike resume {tmp_path / 'run'}"
    ]
    room.attempts = 0
    assert saved(tmp_path / "run").path.name == "step-000000032"
    go_on(tmp_path / "run")
    assert result(tmp_path / "run") == expected


def test_too_little_room_for_a_checkpoint_is_the_same_story(disk, tmp_path, expected, monkeypatch):
    free = [10**9, 10**9, 10**9, 0]  # at the start, and for each checkpoint
    usage = shutil._ntuple_diskusage
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, free.pop(0) if free else 10**9))
    with pytest.raises(td.RunError) as caught:
        train(tmp_path / "run")
    assert (
        "no room for 0 MB and as much again, 0 MB are free. The last checkpoint is step-000000032;"
        in caught.value.args[0]
    )
    go_on(tmp_path / "run")
    assert result(tmp_path / "run") == expected


def test_what_to_do_on_a_full_disk_is_one_of_two_words(tmp_path, capsys):
    with pytest.raises(td.SettingError, match="on_full_disk must be one of 'stop', 'pause', got 'wait'"):
        train(tmp_path / "run", on_full_disk="wait")
    with pytest.raises(td.SettingError, match="on_full_disk must be one of"):
        td.resume(tmp_path / "run", on_full_disk=None)
    assert cli.main(["train", "ppo", "CartPole-v1", "--steps", "100", "--on-full-disk", "wait"]) == 2
    assert "--on-full-disk takes one of stop, pause, got 'wait'" in capsys.readouterr().err
    assert cli.main(["resume", str(tmp_path), "--on-full-disk", "pause"]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_run_that_goes_on_needs_no_room_for_what_it_has(disk, tmp_path, monkeypatch):
    full = disk(1)
    with pytest.raises(td.RunError):
        train(tmp_path / "run")
    assert not full.attempts
    assert len(checkpoints.numbered(tmp_path / "run" / "checkpoints")) == 2
    size = (saved(tmp_path / "run").path / "seed-0.safetensors").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9 * size, 0, int(3.2 * size)))
    td.resume(tmp_path / "run", quiet=True)
