"""Files that a disk, a slip of the hand or a stranger has changed: told by name, or nothing they say is changed."""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import thorndike as td
from faults.runs import INTERVAL, STEPS, train
from thorndike.runs import folders

LAST, BEFORE = f"checkpoints/step-{STEPS:09d}", f"checkpoints/step-{STEPS - INTERVAL:09d}"
KINDS = {
    "config.json": "config.json",
    "metrics.jsonl": "metrics.jsonl",
    "summary.json": "summary.json",
    "manifest.json": f"{LAST}/manifest.json",
    "arrays": f"{LAST}/seed-0.safetensors",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two finished runs, and all that is read from the first."""
    ours, theirs = (tmp_path_factory.mktemp("runs") / name for name in ("ours", "theirs"))
    train(ours)
    train(theirs, seed=7)
    read, said = everything(ours)
    assert said == []
    return ours, theirs, read


def everything(folder: Path) -> tuple[Any, list[str]]:
    """All that is read from a run folder, and all that is said of it meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run, checkpoint = folders.read(folder, {})
            arrays = {
                (seed, name): array.tobytes()
                for seed in checkpoint.seeds
                for name, array in checkpoint.arrays(seed).items()
            }
            rows, summary = folders.rows(folder, checkpoint), folders.summary(folder, run.id)
            read = run.to_json(), checkpoint.manifest, arrays, rows, summary
        except td.RunError as error:
            return None, [str(error)]
    return read, [str(warning.message) for warning in caught]


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


DAMAGE = {"bit flips": flip, "cut short": cut}


@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.faults)])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told_or_changes_nothing(kind, damage, times, whole, tmp_path, told):
    folder, _, read = whole
    chance, noticed = random.Random(f"{kind} {damage}"), 0
    for _ in range(times):
        broken = shutil.copytree(folder, tmp_path / "broken")
        DAMAGE[damage](broken / KINDS[kind], chance)
        found, said = everything(broken)
        assert said or found == read, (broken / KINDS[kind]).read_bytes()
        assert all(len(line) < 300 and "\n" not in line for line in said)
        assert not said or any(problem for _, problem in folders.verify(broken))
        noticed += bool(said)
        shutil.rmtree(broken)
    told(f"{damage} of {kind}: {noticed} told, {times - noticed} that change nothing", times, times)


def put(source: str, target: str | None = None, of_theirs: bool = False) -> Callable[[Path, Path], None]:
    """Put a file or folder of this run, or of another, in the place of one that is there or not."""

    def change(ours: Path, theirs: Path) -> None:
        given, path = (theirs if of_theirs else ours) / source, ours / (target or source)
        shutil.rmtree(path, ignore_errors=True)
        (shutil.copytree if given.is_dir() else shutil.copy)(given, path)

    return change


NEVER = "checkpoints/step-000009999"
TAMPERED = {
    "arrays of an older checkpoint": (
        put(f"{BEFORE}/seed-0.safetensors", f"{LAST}/seed-0.safetensors"), "seed-0.safetensors is not as it was written"
    ),
    "the manifest of an older checkpoint": (
        put(f"{BEFORE}/manifest.json", f"{LAST}/manifest.json"), rf"{Path(LAST).name} holds step \d+: it was renamed"
    ),
    "a checkpoint under a higher number": (put(BEFORE, NEVER), r"step-000009999 holds step \d+: it was renamed"),
    "a checkpoint of another run": (put(LAST, of_theirs=True), f"{Path(LAST).name} is of another run"),
    "another run's config.json": (put("config.json", of_theirs=True), "config.json is of another run"),
    "another run's metrics.jsonl": (put("metrics.jsonl", of_theirs=True), "metrics.jsonl is not as it was written"),
    "another run's summary.json": (put("summary.json", of_theirs=True), "summary.json is of another run"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "answer"), TAMPERED.values(), ids=TAMPERED)
def test_what_was_swapped_renamed_or_is_of_another_run_is_refused_by_name(change, answer, whole, tmp_path):
    ours = shutil.copytree(whole[0], tmp_path / "run")
    change(ours, whole[1])
    with pytest.warns(UserWarning, match=answer):
        td.load(ours)
    assert any(problem for _, problem in folders.verify(ours))


def test_arrays_of_two_seeds_that_were_swapped_are_refused_by_name(tmp_path):
    train(tmp_path / "run", seeds=2)
    first, second = (tmp_path / "run" / LAST / f"seed-{seed}.safetensors" for seed in (0, 1))
    first.rename(tmp_path / "third")
    second.rename(first)
    (tmp_path / "third").rename(second)
    with pytest.warns(UserWarning, match=rf"{Path(LAST).name} is corrupted .*seed-0.safetensors"):
        td.load(tmp_path / "run")
