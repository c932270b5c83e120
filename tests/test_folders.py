"""Run folders that are not as they were written: told so, used as far as they are whole, and never dangerous."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

import hostile
import thorndike as td
from hostile import newest, rewrite, steps_of
from thorndike import cli, persistence
from thorndike.errors import LONGEST
from thorndike.interface import console
from thorndike.runs import folders
from thorndike.runs.recording import Recording

ALGORITHM = td.REINFORCE(network=td.MLP((4,)), baseline_network=None, num_environments=2, rollout_length=8)
STEPS = 160
RECORDS = "metrics.jsonl", "summary.json"
OPTIONS = {"quiet": True, "evaluate_episodes": 2, "final_episodes": 2, "evaluation_copies": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    td.train(ALGORITHM, "CartPole-v1", STEPS, run_dir=folder, **OPTIONS)
    return folder


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """A run of the same configuration but for its seed's results, so that its files fit in everywhere."""
    folder = tmp_path_factory.mktemp("another") / "run"
    td.train(ALGORITHM, "CartPole-v1", STEPS, run_dir=folder, **OPTIONS)
    return folder


@pytest.fixture
def run(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def untrained(monkeypatch):
    """Instead of training, `train` and `resume` write all that a run writes, once."""

    def drive(run, given, worlds, folder, quiet, on_full_disk="stop", checkpoint=None, log=None, on_chunk=None):
        recording = Recording(run, None, folder, console.Silence(), checkpoint, log)
        recording.add_row(0, 10**6, {"loss": 1.0})
        recording.writer.add(0, {"x": np.zeros(3)}, {"steps": 10**6, "iteration": 1})
        recording.commit()

    for module in ("train", "resume"):
        monkeypatch.setattr(f"thorndike.runs.{module}.drive", drive)


def seen(place):
    """Everything below a place, as far as it can be looked at."""
    found = {}
    for path in sorted(place.rglob("*")):
        status = path.lstat()
        found[path] = status.st_mode, status.st_size, path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
    return found


def told(call) -> list[str]:
    """What a call says, warnings first; a raw error is one of the test."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except td.ThorndikeError as error:
            return [*(str(each.message) for each in caught), str(error)]
    return [str(each.message) for each in caught]


@pytest.mark.parametrize("case", hostile.CASES)
def test_a_hostile_folder_does_no_harm_and_is_answered_in_a_line(tmp_path, run, monkeypatch, untrained, case):
    outside = tmp_path / "outside"
    hostile.prepare_outside(outside)
    monkeypatch.syspath_prepend(outside)
    hostile.CASES[case](run, outside)
    before = seen(outside)
    for call in (
        lambda: td.load(run),
        lambda: folders.verify(run),
        lambda: td.resume(run, 2 * STEPS, quiet=True),
    ):
        began = time.monotonic()
        for line in told(call):
            assert line.isprintable()
            assert len(line) <= LONGEST
        assert time.monotonic() - began < 5  # on a busy machine; a FIFO would be waited for without end
    assert seen(outside) == before


def test_there_are_hostile_folders_enough():
    assert len(hostile.CASES) >= 40


# What is lost of a folder


def loaded(folder):
    """The run in a folder, and what was said on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = td.load(folder)
    return found, [str(each.message) for each in caught]


def same(first, second):
    observations = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    np.testing.assert_array_equal(first.agent.network(observations), second.agent.network(observations))
    return True


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [damage, lambda path: path.unlink(), lambda path: os.truncate(path, 9)])
def test_a_configuration_that_is_lost_is_that_of_the_newest_checkpoint(run, whole, spoil):
    spoil(run / "config.json")
    found, said = loaded(run)
    assert [line for line in said if "config.json is" in line and f"using the copy in {newest(run).name}" in line]
    assert found.configuration == td.load(whole).configuration
    assert same(found, td.load(whole))
    with pytest.warns(UserWarning, match="using the copy"):
        td.resume(run, 2 * STEPS, quiet=True)
    assert loaded(run)[1] == []  # written again


@pytest.mark.parametrize(("name", "lost"), [("summary.json", "no summary"), ("metrics.jsonl", "not as it was written")])
@pytest.mark.parametrize("spoil", [damage, lambda path: os.truncate(path, 30), lambda path: path.write_bytes(b"\0\n")])
def test_records_that_are_lost_cost_a_warning_and_nothing_else(run, whole, name, lost, spoil):
    spoil(run / name)
    found, said = loaded(run)
    assert any(lost in line for line in said)
    assert same(found, td.load(whole))


def test_a_folder_from_before_there_were_digests_is_read(run, whole):
    path = run / "config.json"
    config = json.loads(path.read_text())
    for name in ("id", "digest"):
        del config[name]
    path.write_text(json.dumps(config | {"format": 1}))
    for step in steps_of(run):
        rewrite(step / "manifest.json", as_before)
    summary = json.loads((run / "summary.json").read_text())
    del summary["digest"], summary["run"]
    (run / "summary.json").write_text(json.dumps(summary))
    found, said = loaded(run)
    assert said == []
    assert found.summary == summary
    assert same(found, td.load(whole))


def as_before(manifest):
    manifest["format"] = 2
    for name in ("run", "configuration"):
        del manifest[name]
    for entry in manifest["seeds"].values():
        del entry["metrics"]


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "seed-0.safetensors", *RECORDS])
def test_no_flipped_bit_is_silent(run, name):
    """Told, or harmless: what is read is what was written."""
    path = next(path for path in run.rglob(name) if path.parent in (run, newest(run)))
    data, rng = path.read_bytes(), random.Random(0)

    def read():
        configuration, checkpoint = folders.read(run, {})
        found = checkpoint.manifest, folders.rows(run, checkpoint), folders.summary(run, configuration.id)
        return configuration.to_json(), *found

    undamaged = read()
    for _ in range(50):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        found = []
        assert told(lambda: found.append(read())) or found[0] == undamaged  # noqa: B023


# Whose a folder is


def test_a_checkpoint_of_another_run_is_passed_over_by_name(run, another, whole):
    shutil.copytree(newest(another), run / "checkpoints" / "step-000000999")
    rewrite(run / "checkpoints" / "step-000000999" / "manifest.json", lambda manifest: manifest.update(steps=999))
    found, said = loaded(run)
    assert len(said) == 1
    assert "step-000000999 is of another run" in said[0]
    assert same(found, td.load(whole))


def test_an_old_checkpoint_under_a_higher_number_is_passed_over(run, whole):
    shutil.copytree(steps_of(run)[0], run / "checkpoints" / "step-000000999")
    found, said = loaded(run)
    assert len(said) == 1
    assert "step-000000999 holds step 128: it was renamed" in said[0]
    assert same(found, td.load(whole))


def test_the_configuration_of_another_run_loses_against_the_checkpoints(run, another, whole):
    shutil.copy(another / "config.json", run / "config.json")
    found, said = loaded(run)
    assert len(said) == 1
    assert "config.json is of another run than its checkpoints: using the copy in" in said[0]
    assert found.configuration.id == td.load(whole).configuration.id


def test_the_summary_of_another_run_is_left_out(run, another):
    shutil.copy(another / "summary.json", run / "summary.json")
    found, said = loaded(run)
    assert found.summary == {}
    assert "summary.json is of another run" in said[0]


def test_metrics_of_another_run_are_told_by_their_digest(run, another):
    shutil.copy(another / "metrics.jsonl", run / "metrics.jsonl")
    assert "metrics.jsonl is not as it was written: rows of seed 0" in loaded(run)[1][0]


def test_a_run_of_nothing_but_foreign_checkpoints_is_refused(run, another):
    for step in steps_of(run)[1:]:
        shutil.rmtree(step)
    shutil.rmtree(newest(run))
    shutil.copytree(newest(another), run / "checkpoints" / newest(another).name)
    with pytest.raises(
        td.CorruptCheckpointError, match=r"no checkpoint in .* is whole: step-000000160 is of another run"
    ):
        td.load(run)


# What is missing


def unreadable(path):
    path.chmod(0)
    if os.access(path, os.R_OK):  # nothing is unreadable to root
        pytest.skip("run as root")


def gone(path):
    shutil.rmtree(path)


def emptied(path):
    gone(path)
    path.mkdir()


@pytest.mark.parametrize("lose", [gone, emptied, unreadable])
def test_checkpoints_that_are_gone_are_not_taken_for_none_yet(run, lose):
    (run / "summary.json").unlink()
    lose(run / "checkpoints")
    before = (run / "metrics.jsonl").read_bytes()
    for call in (lambda: td.load(run), lambda: td.resume(run, 2 * STEPS, quiet=True)):
        with pytest.raises(td.RunError, match="checkpoint"):
            call()
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_listing_that_fails_is_no_empty_folder(run, monkeypatch):
    """As on a disk that is not there for a moment."""

    def failing(path):
        raise PermissionError(13, "Permission denied")

    before = (run / "metrics.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", failing)
        with pytest.raises(td.RunError, match="Permission denied"):
            td.resume(run, 2 * STEPS, quiet=True)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_run_killed_before_its_first_checkpoint_begins_anew(run, untrained):
    (run / "summary.json").unlink()
    emptied(run / "checkpoints")
    first = (run / "metrics.jsonl").read_bytes().split(b"\n")[0]
    (run / "metrics.jsonl").write_bytes(first + b"\n")
    with pytest.warns(UserWarning, match="never reached a checkpoint: it begins anew"):
        td.resume(run, quiet=True)


# Beginnings and ends


def test_a_folder_that_holds_only_what_a_killed_beginning_left_is_trained_into(tmp_path, untrained, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", ".config.json.0123abcd"):
        (folder / name).write_text("")
    with pytest.raises(td.RunError, match="not a run folder"):
        td.resume(folder)
    td.train(ALGORITHM, "CartPole-v1", STEPS, run_dir=folder, **OPTIONS)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "config.json", "metrics.jsonl"]


def test_what_killed_writers_left_is_gone_once_the_run_is_resumed(run):
    left = [run / ".metrics.jsonl.0123abcd", newest(run) / ".manifest.json.0123abcd", run / "checkpoints" / ".incoming"]
    left[2].mkdir()
    for path in (*left[:2], left[2] / "seed-0.safetensors"):
        path.write_text("half")
    (run / ".notes.txt.12345678").write_text("the user's own")
    left.append(run / "checkpoints" / ".deleted-0123abcd")
    left[-1].symlink_to(run)
    td.resume(run, STEPS + 16, quiet=True)
    assert not any(map(os.path.lexists, left))
    assert (run / ".notes.txt.12345678").exists()


def test_a_disk_without_locks_is_gone_on_with_and_said(tmp_path, monkeypatch):
    def refusing(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(persistence.fcntl, "flock", refusing)
    with pytest.warns(UserWarning, match=r"a disk without locks \(No locks available\)"), persistence.locked(tmp_path):
        pass


@pytest.mark.parametrize("place", ["x" * 5_000, "undecodable\udcff", "null\0", "file/below", 5, None])
@pytest.mark.parametrize("call", [td.load, td.resume, "train"])
def test_what_can_be_no_folder_is_answered_in_a_line(tmp_path, monkeypatch, untrained, place, call):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    if call == "train":
        if place is None:
            return
        call = lambda place: td.train(ALGORITHM, "CartPole-v1", STEPS, run_dir=place, **OPTIONS)  # noqa: E731
    with pytest.raises(td.RunError) as caught:
        call(place)
    assert len(str(caught.value)) <= LONGEST


def test_a_run_whose_folder_is_deleted_says_so(tmp_path):
    folder = tmp_path / "run"

    class Deleting(console.Silence):
        def chunk(self, chunk, rate):
            shutil.rmtree(folder, ignore_errors=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "display", lambda story, quiet: Deleting())
        with pytest.raises(td.RunError, match=r"could not write metrics.jsonl into .*: it is gone"):
            td.train(ALGORITHM, "CartPole-v1", STEPS, run_dir=folder, **OPTIONS)


def test_a_line_that_could_not_be_written_whole_is_not_there_in_part(tmp_path, monkeypatch):
    path = tmp_path / "file"
    persistence.append(path, b"first\n")
    real = os.fstat
    descriptor = os.open("/dev/full", os.O_WRONLY) if os.path.exists("/dev/full") else pytest.skip("no /dev/full here")
    os.close(descriptor)
    monkeypatch.setattr(persistence, "open", limited, raising=False)
    with pytest.raises(OSError, match="No space left"):
        persistence.append(path, b"second\n")
    assert real(os.open(path, os.O_RDONLY)).st_size == 6


def limited(descriptor, *arguments, **named):
    """A file on a disk with room for three more bytes."""
    file = open(descriptor, *arguments, **named)  # noqa: SIM115

    class Limited:
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: file.close()  # noqa: E731
        fileno = file.fileno

        def write(self, data):
            return file.write(data[:3])

    return Limited()


# The command


def test_verify_names_every_file_and_what_is_wrong_with_it(run, capsys):
    assert cli.main(["verify", str(run)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    names = ["config.json", *(f"checkpoints/{step.name}" for step in steps_of(run)), "metrics.jsonl", "summary.json"]
    assert [line.split()[0] for line in out.splitlines()] == names
    for path in (run / "config.json", run / "metrics.jsonl", run / "summary.json", steps_of(run)[1] / "manifest.json"):
        damage(path)
    before = seen(run)
    assert cli.main(["verify", str(run)]) == 2
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines() if line.endswith("whole")] == [names[1], names[3]]
    assert err.count("\n") == 1
    assert "not whole: config.json, checkpoints/step-000000144, metrics.jsonl, summary.json" in err
    assert seen(run) == before


CANARIES = ("tyro", "jax", "json", "typing", "dataclasses", "numpy", "rich", "safetensors", "my_env", "trap", "torch")
VERBS = {
    "--help": 0,
    "list algorithms": 0,
    "list runs .": 0,
    "train reinforce CartPole-v1 --steps nonsense": 2,
    "evaluate . --episodes 1": 0,
    "verify .": 0,
    "resume .": 2,
}


@pytest.fixture(scope="module")
def trapped(tmp_path_factory, whole):
    """A run folder in which modules lie that tell when they are imported."""
    folder = tmp_path_factory.mktemp("trapped") / "run"
    shutil.copytree(whole, folder)
    for name in CANARIES:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'canary')!r}, 'w').close()\nraise SystemExit(99)\n")
    return folder


THE_COMMAND = "import sys; from thorndike.cli import main; sys.exit(main())"


@pytest.mark.parametrize("line", VERBS)
@pytest.mark.parametrize("start", [["-m", "thorndike"], ["-P", "-c", THE_COMMAND]], ids=["-m", "command"])
def test_no_module_of_a_strangers_folder_is_imported(trapped, start, line):
    done = subprocess.run(
        [sys.executable, *start, *line.split()], cwd=trapped, capture_output=True, text=True, check=False
    )
    assert not (trapped / "canary").exists()
    assert done.returncode == VERBS[line], done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_that_is_named_is_found_in_the_current_folder_and_only_while_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "my_own_env.py").write_text("import sys, my_own_helper\nlast = sys.path[-1]\n")
    (tmp_path / "my_own_helper.py").write_text("")
    (tmp_path / "colorsys.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    cli._import_modules("my_own_env:X-v0", None, "gymnasium:CartPole-v1")
    assert sys.modules["my_own_env"].last == str(tmp_path)
    assert sys.path == before
    for name in ("my_own_env", "my_own_helper"):
        del sys.modules[name]
