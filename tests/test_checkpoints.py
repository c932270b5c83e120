"""Checkpoints: whole or not there, noticed when damaged, and no code in them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hostile import rewrite
from thorndike import persistence, snapshots
from thorndike.core import Actor, Progress, Transition
from thorndike.errors import CorruptCheckpointError, RunError
from thorndike.memories import Latest, Prioritized, Replay
from thorndike.runs import records
from thorndike.runs.checkpoints import Checkpoint, Writer, newest


def arrays(value: float) -> dict[str, np.ndarray]:
    return {
        "state/weights": np.full((3, 4), value, np.float32),
        "state/transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "memory/flag": np.array(True),
        "iteration": np.array(7, np.uint32),
    }


def about(steps: int) -> dict[str, int]:
    return {"steps": steps, "iteration": steps // 10}


def write(folder, *all_steps, seeds=(0,)) -> Writer:
    writer = Writer(folder, seeds)
    for steps in all_steps:
        for seed in seeds:
            writer.add(seed, arrays(steps + seed), about(steps))
        writer.commit(100, {"seconds": {"total": 1.5}})
    return writer


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back_with_shapes_dtypes_and_order(tmp_path):
    write(tmp_path, 100)
    found = newest(tmp_path)
    assert found.path.name == "step-000000100"
    assert found.iterations == 100
    assert found.seeds[0]["steps"] == 100
    assert found.manifest["seconds"] == {"total": 1.5}
    saved = arrays(100)
    loaded = found.arrays(0)
    assert loaded.keys() == saved.keys()
    for name, array in saved.items():
        assert loaded[name].shape == array.shape
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_arrays_can_be_read_by_prefix(tmp_path):
    write(tmp_path, 100)
    assert set(newest(tmp_path).arrays(0, "state/")) == {"state/weights", "state/transposed"}


def test_the_last_three_checkpoints_stay(tmp_path):
    write(tmp_path, 10, 20, 30, 40, 50)
    assert names(tmp_path) == ["step-000000030", "step-000000040", "step-000000050"]


def test_the_newest_is_told_by_its_number_and_not_by_its_time(tmp_path):
    write(tmp_path, 10, 20, 30)
    os.utime(tmp_path / "step-000000010", (2e9, 2e9))
    assert newest(tmp_path).path.name == "step-000000030"


def test_seeds_one_after_another_keep_those_that_are_done(tmp_path):
    writer = Writer(tmp_path, (0, 1))
    writer.add(0, arrays(1), about(100))
    writer.commit(10, {"seconds": {}})
    assert set(newest(tmp_path).seeds) == {0}
    writer.add(1, arrays(2), about(50))
    writer.commit(10, {"seconds": {}})
    found = newest(tmp_path)
    assert found.path.name == "step-000000075"  # the mean over seeds
    assert found.arrays(0)["state/weights"][0, 0] == 1
    assert found.arrays(1)["state/weights"][0, 0] == 2


def test_a_commit_without_anything_new_makes_no_checkpoint(tmp_path):
    writer = write(tmp_path, 10)
    assert writer.commit(100, {"seconds": {}}) is None
    assert names(tmp_path) == ["step-000000010"]


def test_an_older_array_is_replaced_before_the_commit(tmp_path):
    writer = Writer(tmp_path, (0, 1))
    writer.add(0, arrays(1), about(10))
    writer.add(0, arrays(2), about(20))
    writer.add(1, arrays(3), about(20))
    writer.commit(10, {"seconds": {}})
    assert newest(tmp_path).arrays(0)["state/weights"][0, 0] == 2


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit_manifest(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["iterations"] = 5
    path.write_text(json.dumps(manifest))


def swap(folder):
    first, second = folder / "seed-0.safetensors", folder / "seed-1.safetensors"
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


DAMAGE = {
    "a bit flipped": lambda folder: flip(folder / "seed-0.safetensors"),
    "a bit flipped in the manifest": lambda folder: flip(folder / "manifest.json"),
    "cut short": lambda folder: os.truncate(folder / "seed-0.safetensors", 50),
    "emptied": lambda folder: os.truncate(folder / "seed-0.safetensors", 0),
    "zeroed": lambda folder: (folder / "seed-0.safetensors").write_bytes(
        bytes((folder / "seed-0.safetensors").stat().st_size)
    ),
    "deleted": lambda folder: (folder / "seed-0.safetensors").unlink(),
    "manifest deleted": lambda folder: (folder / "manifest.json").unlink(),
    "manifest emptied": lambda folder: os.truncate(folder / "manifest.json", 0),
    "manifest edited": edit_manifest,
    "files swapped": swap,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_noticed_and_the_one_before_is_used_with_a_warning_that_names_both(tmp_path, damage):
    write(tmp_path, 10, 20, seeds=(0, 1))
    damage(tmp_path / "step-000000020")
    with pytest.warns(UserWarning, match=r"step-000000020 is corrupted .* using step-000000010"):
        found = newest(tmp_path)
    assert found.arrays(0)["state/weights"][0, 0] == 10


def test_every_bit_of_a_manifest_counts(tmp_path):
    write(tmp_path, 10)
    path = tmp_path / "step-000000010" / "manifest.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        data = bytearray(whole)
        data[place] ^= 4
        path.write_bytes(data)
        before = json.loads(whole)
        with contextlib.suppress(CorruptCheckpointError, RunError):
            assert Checkpoint(path.parent).manifest == before  # white space: nothing that was said has changed


def test_no_whole_checkpoint_is_an_error_and_none_at_all_is_none(tmp_path):
    assert newest(tmp_path) is None
    write(tmp_path, 10)
    flip(tmp_path / "step-000000010" / "seed-0.safetensors")
    with pytest.raises(CorruptCheckpointError, match=r"no checkpoint in .* is whole"):
        newest(tmp_path)


def test_going_on_from_an_older_checkpoint_drops_the_damaged_newer_ones(tmp_path):
    write(tmp_path, 10, 20, 30)
    flip(tmp_path / "step-000000030" / "seed-0.safetensors")
    with pytest.warns(UserWarning, match="corrupted"):
        found = newest(tmp_path)
    writer = Writer(tmp_path, (0,))
    writer.go_on_from(found)
    assert names(tmp_path) == ["step-000000010", "step-000000020"]
    writer.add(0, arrays(3), about(30))
    writer.commit(100, {"seconds": {}})
    assert newest(tmp_path).arrays(0)["state/weights"][0, 0] == 3


@pytest.mark.parametrize("call", ["fsync", "replace", "rename", "open"])
def test_wherever_writing_fails_the_one_before_is_whole(tmp_path, monkeypatch, call):
    """E3: the k-th write, sync or rename fails, for every k."""
    real = getattr(os, call)
    for k in range(30):
        folder = tmp_path / f"{call}-{k}"
        writer = write(folder, 10)
        left = [k]

        def failing(*arguments, left=left, **named):
            left[0] -= 1
            if left[0] == -1:
                raise OSError(28, "No space left on device")
            return real(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                writer.add(0, arrays(20), about(20))
                writer.commit(100, {"seconds": {}})
                failed = False
            except OSError:
                failed = True
        assert newest(folder).arrays(0)["state/weights"][0, 0] in (10, 20)
        Writer(folder, (0,))
        assert all(name.startswith("step-") for name in names(folder))
        if not failed:
            assert newest(folder).arrays(0)["state/weights"][0, 0] == 20
            return
    pytest.fail("never got through")


KILLED = """
import os, sys
import numpy as np
from pathlib import Path
from thorndike.runs.checkpoints import Writer
left = int(sys.argv[2])
for name in ("fsync", "replace", "rename"):
    def counted(*arguments, real=getattr(os, name)):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return real(*arguments)
    setattr(os, name, counted)
writer = Writer(Path(sys.argv[1]), (0,))
for steps in range(10, 60, 10):
    writer.add(0, {"x": np.full(9, steps)}, {"steps": steps, "iteration": 1})
    writer.commit(100, {"seconds": {}})
    print(steps, flush=True)
"""


@pytest.mark.parametrize("operations", [0, 5, 9, 12, 16, 25, 33])
def test_a_process_killed_while_saving_loses_at_most_that_checkpoint(tmp_path, operations):
    """E2, at moments that are chosen and so repeatable: before the k-th sync or rename."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(operations)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 9, done.stderr
    committed = [int(line) for line in done.stdout.split()]
    found = newest(tmp_path)
    if committed:
        assert found.arrays(0)["x"][0] >= committed[-1]
    Writer(tmp_path, (0,))
    assert all(name.startswith("step-") for name in names(tmp_path))


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    writer = write(tmp_path, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0))
    with pytest.raises(OSError, match="no room for 0 MB and as much again, 0 MB are free") as caught:
        writer.add(0, arrays(20), about(20))
    assert caught.value.errno == errno.ENOSPC


def test_a_header_larger_than_the_file_is_refused_before_it_is_read(tmp_path):
    write(tmp_path, 10)
    folder = tmp_path / "step-000000010"
    path = folder / "seed-0.safetensors"
    data = (2**40).to_bytes(8, "little") + path.read_bytes()[8:]
    path.write_bytes(data)
    digest = persistence.digest(path)
    rewrite(folder / "manifest.json", lambda manifest: manifest["seeds"]["0"].update(sha256=digest))
    with pytest.raises(CorruptCheckpointError, match="header"):
        Checkpoint(folder)


@pytest.mark.parametrize("file", ["../../secret", "/etc/passwd", "seed-1.safetensors"])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path, file):
    write(tmp_path, 10)
    path = tmp_path / "step-000000010" / "manifest.json"
    rewrite(path, lambda manifest: manifest["seeds"]["0"].update(file=file))
    with pytest.raises(CorruptCheckpointError, match="not one that thorndike wrote"):
        Checkpoint(path.parent)


RESULTS = {"recent": [1.0, 2], "evaluated": None}


def rewritten(folder, change) -> Checkpoint:
    """The checkpoint in `folder` after a stranger's `change` of its manifest, who knows how to make a digest."""
    write(folder, 10)
    path = folder / "step-000000010" / "manifest.json"

    def changed(manifest):
        change(manifest, manifest["seeds"]["0"])

    rewrite(path, changed)
    return Checkpoint(path.parent)


NOT_OURS = {
    "an iteration beyond all counting": lambda manifest, entry: entry.update(iteration=2**70),
    "a negative iteration": lambda manifest, entry: entry.update(iteration=-5),
    "no iteration": lambda manifest, entry: entry.pop("iteration"),
    "true steps": lambda manifest, entry: entry.update(steps=True),
    "half a step": lambda manifest, entry: entry.update(steps=1.5),
    "negative iterations": lambda manifest, entry: manifest.update(iterations=-1),
    "no steps": lambda manifest, entry: manifest.pop("steps"),
    "no seeds": lambda manifest, entry: manifest.update(seeds={}),
    "seeds in a list": lambda manifest, entry: manifest.update(seeds=[entry]),
    "a seed that is no number": lambda manifest, entry: manifest.update(seeds={"zero": entry}),
    "a seed in other digits": lambda manifest, entry: manifest.update(seeds={"00": entry}),
    "no seconds": lambda manifest, entry: manifest.pop("seconds"),
    "seconds as text": lambda manifest, entry: manifest["seconds"].update(total="long"),
    "seconds without end": lambda manifest, entry: manifest["seconds"].update(total=float("inf")),
    "seconds too large for a float": lambda manifest, entry: manifest["seconds"].update(total=10**400),
    "results as text": lambda manifest, entry: entry.update(results="good"),
    "results of nothing": lambda manifest, entry: entry.update(results={}),
    "returns as text": lambda manifest, entry: entry.update(results=RESULTS | {"recent": ["good"]}),
    "no returns": lambda manifest, entry: entry.update(results=RESULTS | {"recent": None}),
    "returns that are no numbers": lambda manifest, entry: entry.update(results=RESULTS | {"recent": [float("nan")]}),
    "one evaluation": lambda manifest, entry: entry.update(results=RESULTS | {"evaluated": 5.0}),
    "nested evaluations": lambda manifest, entry: entry.update(results=RESULTS | {"evaluated": [[5.0]]}),
}


@pytest.mark.parametrize("change", NOT_OURS.values(), ids=NOT_OURS.keys())
def test_a_manifest_whose_content_is_not_ours_is_refused_when_it_is_read(tmp_path, change):
    with pytest.raises(CorruptCheckpointError, match=r"not one that thorndike wrote|not a JSON object"):
        rewritten(tmp_path, change)


def test_a_manifest_may_hold_the_results_of_a_seed(tmp_path):
    results = RESULTS | {"evaluated": [3.5]}
    found = rewritten(tmp_path, lambda manifest, entry: entry.update(results=results))
    assert found.seeds[0]["results"] == results


@pytest.mark.parametrize("text", ["", "[1]", "[" * 100_000, '{"a": ', '"text"', "\x00\xff"])
def test_json_that_is_not_an_object_is_refused(tmp_path, text):
    (tmp_path / "file.json").write_text(text, encoding="latin1")
    with pytest.raises(CorruptCheckpointError):
        persistence.read_json(tmp_path / "file.json")


def test_json_is_read_only_up_to_a_limit(tmp_path):
    (tmp_path / "file.json").write_text('{"a": "' + "x" * 1000 + '"}')
    with pytest.raises(CorruptCheckpointError, match="larger than 100 bytes"):
        persistence.read_json(tmp_path / "file.json", limit=100)


def test_what_is_not_finite_is_written_as_null(tmp_path):
    persistence.write_json(tmp_path / "file.json", {"a": np.float32("nan"), "b": [float("inf"), np.int64(3)]})
    assert persistence.read_json(tmp_path / "file.json") == {"a": None, "b": [None, 3]}


def test_a_second_process_is_refused_while_the_first_holds_the_folder(tmp_path):
    code = "import sys; from pathlib import Path; from thorndike.persistence import locked\n"
    code += "with locked(Path(sys.argv[1])): pass"
    with persistence.locked(tmp_path):
        with pytest.raises(RunError, match=f"in use by process {os.getpid()} on"), persistence.locked(tmp_path):
            pass
        other = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
        assert f"in use by process {os.getpid()} on" in other.stderr
    assert names(tmp_path) == []
    other = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert other.returncode == 0, other.stderr


@pytest.mark.parametrize("name", ["file/sub", "file/sub/deeper", "x" * 300, "null\0"])
def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path, name):
    (tmp_path / "file").write_text("")
    folder = tmp_path / name
    with pytest.raises(RunError, match="cannot be used as a folder") as caught:
        persistence.empty_folder(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="cannot be used as a folder"):
        persistence.unused_folder(folder, "run")
    with pytest.raises(RunError, match="cannot be used as a folder"), persistence.locked(folder):
        pass


def test_an_error_while_a_folder_is_locked_stays_what_it_is(tmp_path):
    with pytest.raises(OSError, match="mine"), persistence.locked(tmp_path):
        raise OSError("mine")


def test_the_lock_of_a_process_that_died_is_taken_over(tmp_path):
    code = "import os, sys; from pathlib import Path; from thorndike.persistence import locked\n"
    code += "with locked(Path(sys.argv[1])): os._exit(9)"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert names(tmp_path) == [".lock"]
    with persistence.locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_the_lock_of_another_machine_is_respected(tmp_path):
    (tmp_path / ".lock").write_text('{"pid": 1, "host": "elsewhere", "started": "yesterday"}')
    with (
        pytest.raises(RunError, match="in use by process 1 on elsewhere since yesterday"),
        persistence.locked(tmp_path),
    ):
        pass


def test_rows_of_metrics_survive_a_crash_in_the_last_line_and_are_cut_back_by_seed(tmp_path):
    log = records.Log(tmp_path)
    for seed in (0, 1):
        for steps in (10, 20, 30):
            log.add({"seed": seed, "steps": steps, "return_mean": float("nan") if steps == 10 else 1.0})
    with open(tmp_path / records.FILE, "a") as file:
        file.write('{"seed": 0, "st')
    assert len(records.read(tmp_path)) == 6
    kept = records.cut_back(tmp_path, {0: 20}).rows
    assert [(row["seed"], row["steps"]) for row in kept] == [(0, 10), (0, 20)]
    assert records.read(tmp_path) == kept
    columns = records.columns(kept)
    assert columns["steps"].dtype == np.int64
    np.testing.assert_array_equal(columns["return_mean"], [np.nan, 1.0])


DAMAGED_LINES = [
    "[1, 2]",
    '{"seed": 0}',
    '{"seed": 0, "steps": 1.5}',
    '{"seed": 0, "steps": 9, "loss": "x"}',
    "\x00",
    "",
]


@pytest.mark.parametrize("damaged", DAMAGED_LINES)
def test_lines_of_metrics_that_are_damaged_are_left_out_with_a_warning(tmp_path, damaged):
    (tmp_path / records.FILE).write_text(f'{{"seed": 0, "steps": 1}}\n{damaged}\n{{"seed": 0, "steps": 2}}\n')
    with pytest.warns(UserWarning, match="1 of 3 lines are damaged, and left out"):
        assert [row["steps"] for row in records.read(tmp_path)] == [1, 2]


def test_a_line_that_was_changed_into_another_is_told_by_its_digest(tmp_path):
    log = records.Log(tmp_path)
    for steps in (10, 20):
        log.add({"seed": 0, "steps": steps, "return_mean": 1.0})
    written = {0: log.written(0)}
    log.add({"seed": 0, "steps": 30})
    log.add({"seed": 1, "steps": 30})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(records.read(tmp_path, written)) == 4  # whatever comes later
        assert records.cut_back(tmp_path, {0: 20}).written(0) == written[0]
        records.read(tmp_path, written)
    path = tmp_path / records.FILE
    path.write_bytes(path.read_bytes().replace(b'"return_mean": 1.0', b'"return_mean": 3.0', 1))
    with pytest.warns(UserWarning, match="not as it was written: rows of seed 0 may be wrong"):
        records.read(tmp_path, written)


# Of a memory, the rows written


class Compiled:
    compiled = True


def remembering(memory, added: int, rollout=(4, 2)) -> Progress:
    """Progress whose memory has been given `added` trajectories of 4 steps in 2 copies."""
    number, flag = jnp.arange(1.0, 9).reshape(rollout), jnp.ones(rollout, bool)
    images = jnp.full((*rollout, 10, 10), 7, jnp.uint8)
    trajectory = Transition(images, number, number, flag, flag, images + 1, {"log_prob": -number})
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), trajectory)
    kept = memory.init(one, rollout)
    for i in range(added):
        kept = memory.add(kept, trajectory._replace(reward=number + 10 * i))
    return Progress({"weights": jnp.ones(3)}, kept, Actor((), number, (), flag), (), jnp.uint32(added))


MEMORIES = {
    "latest": Latest(),
    "replay": Replay(1_000, 8),
    "prioritized": Prioritized(1_000, 8, window=3),
    "full": Replay(16, 8),
}


def saved(progress, folder):
    """What a checkpoint of `progress` gives back, and the size of its file."""
    writer = Writer(folder, (0,))
    writer.add(0, snapshots.to_arrays(progress, Compiled, copy=False), about(10))
    writer.commit(100, {"seconds": {}})
    return newest(folder).arrays(0), newest(folder).seeds[0]["size"]


@pytest.mark.parametrize("added", [0, 1, 3])
@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
def test_a_memory_comes_back_bit_for_bit_from_a_file_of_its_written_rows_alone(tmp_path, memory, added):
    progress = remembering(memory, added)
    found, size = saved(progress, tmp_path)
    back = snapshots.from_arrays(jax.eval_shape(lambda: progress), found)
    assert jax.tree.structure(back) == jax.tree.structure(progress)
    jax.tree.map(np.testing.assert_array_equal, back, progress)
    if hasattr(progress.memory, "size"):
        a_step = sum(x.nbytes for x in jax.tree.leaves(progress.memory.steps)) / progress.memory.steps.reward.size
        rest = sum(x.nbytes for x in jax.tree.leaves(progress.memory._replace(steps=())))
        assert size < 2 * int(progress.memory.size) * a_step + rest + 2_000  # the header, names and numbers


def test_a_checkpoint_from_before_with_every_row_is_read_as_well():
    progress = remembering(MEMORIES["replay"], 2)
    whole = {name: np.asarray(leaf) for name, leaf in snapshots.named(progress)}
    assert whole["memory/steps/observation"].shape == (500, 2, 10, 10)
    back = snapshots.from_arrays(jax.eval_shape(lambda: progress), whole)
    jax.tree.map(np.testing.assert_array_equal, back, progress)


@pytest.mark.parametrize("rows", [3, 501])
def test_rows_that_are_fewer_than_were_written_or_more_than_there_are_do_not_fit(rows):
    progress = remembering(MEMORIES["replay"], 1)
    arrays = snapshots.to_arrays(progress, Compiled) | {"memory/steps/reward": np.zeros((rows, 2), np.float32)}
    with pytest.raises(CorruptCheckpointError, match=r"'memory/steps/reward' is float32"):
        snapshots.from_arrays(jax.eval_shape(lambda: progress), arrays)


def test_arrays_are_copied_where_they_are_to_be_kept_and_only_there():
    progress = remembering(MEMORIES["replay"], 1)
    buffer = progress.memory.steps.observation.unsafe_buffer_pointer()
    for copy in (True, False):
        array = snapshots.to_arrays(progress, Compiled, copy=copy)["memory/steps/observation"]
        assert (array.ctypes.data == buffer) != copy


def test_arrays_are_read_one_by_one_and_stay_readable_once_their_checkpoint_is_gone(tmp_path):
    writer = write(tmp_path, 10)
    found = newest(tmp_path).arrays(0)
    for steps in (20, 30, 40):
        writer.add(0, arrays(steps), about(steps))
        writer.commit(100, {"seconds": {}})
    assert "step-000000010" not in names(tmp_path)
    assert found["state/weights"][0, 0] == 10
    assert found["state/weights"] is not found["state/weights"]
    assert "memory/none" not in found


def test_a_checkpoint_of_the_format_before_is_read(tmp_path):
    write(tmp_path, 10)
    folder = tmp_path / "step-000000010"
    rewrite(folder / "manifest.json", lambda manifest: manifest.update(format=1))
    assert Checkpoint(folder).arrays(0)["state/weights"][0, 0] == 10
    rewrite(folder / "manifest.json", lambda manifest: manifest.update(format=99))
    with pytest.raises(RunError, match="has format 99, this version of thorndike reads up to 3"):
        Checkpoint(folder)


@pytest.mark.parametrize("where", [(persistence, "_read_owner"), (Path, "unlink")], ids=["taking it", "leaving it"])
def test_a_folder_is_free_again_whenever_ctrl_c_comes(where, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*where, interrupted)
        with pytest.raises(KeyboardInterrupt), persistence.locked(tmp_path):
            pass
    with persistence.locked(tmp_path):
        pass
