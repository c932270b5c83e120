"""Checkpoints: arrays in safetensors files, one a seed, and a manifest with the digest of each.

    checkpoints/step-000050000/{seed-0.safetensors, seed-1.safetensors, best-0-....safetensors, manifest.json}

The number is the mean over seeds of the steps done. A checkpoint appears under its name in one rename, whole; the last
few stay. In each is also, of every seed, the state that did best in an evaluation up to then: whichever checkpoint a
run goes on from, its best is of its own past. Nothing is ever unpickled, evaluated or imported.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np
from safetensors import SafetensorError

from thorndike import persistence
from thorndike.errors import CorruptCheckpointError, RunError, UnsafeCheckpointError, one_line
from thorndike.runs import schema
from thorndike.runs.records import Written

FORMAT = 3
READABLE = (1, 2, 3)  # 1 held every row of a memory, written or not; before 3 nothing tied a checkpoint to its run
KEPT = 3  # unless told otherwise
MANIFEST = "manifest.json"
INCOMING = ".incoming"
DELETED = ".deleted-"
NAME = re.compile(r"step-(\d{9,15})")


class Results(TypedDict):
    """What a seed has come to at its end."""

    recent: list[float]
    evaluated: list[float] | None
    unfinished: NotRequired[int]
    stopped: NotRequired[bool]


class File(TypedDict):
    """A file of arrays, and the moment that they are of."""

    file: str
    size: int
    sha256: str
    steps: int
    iteration: Annotated[int, schema.Range(0, 2**32 - 1)]  # as training counts them


class Best(File):
    """The state that did best in an evaluation, and how it did."""

    mean: float
    episodes: schema.Positive
    unfinished: int


class Entry(File):
    """What a manifest says of a seed."""

    best: NotRequired[Best]
    metrics: NotRequired[Written]  # its lines in metrics.jsonl at this moment
    results: NotRequired[Results]


class Manifest(TypedDict):
    """All that a checkpoint holds beside arrays: enough to load it if everything else were lost."""

    format: int
    steps: int
    iterations: int
    seconds: dict[str, float]
    seeds: dict[str, Entry]
    run: NotRequired[str]  # the id of the run that it belongs to
    configuration: NotRequired[dict[str, Any]]  # as config.json holds it


class Checkpoint:
    """One checkpoint whose bytes are those that were written."""

    def __init__(self, path: Path) -> None:
        """Check every byte; CorruptCheckpointError names the file that differs."""
        self.path = path
        self.manifest = _read_manifest(path)
        for entry in self.seeds.values():
            for file in _files(entry):
                check_file(path / file["file"], file)

    @property
    def seeds(self) -> dict[int, Any]:
        """By seed: file, size, sha256, steps, iteration, and once it has reached its end results."""
        return {int(seed): entry for seed, entry in self.manifest["seeds"].items()}

    @property
    def iterations(self) -> int:
        """Of the whole run, as it was planned when this was saved."""
        return self.manifest["iterations"]

    def arrays(self, seed: int, prefix: str = "") -> SavedArrays:
        """A seed's arrays whose names begin with `prefix`."""
        return SavedArrays(self.path / self.seeds[seed]["file"], prefix)

    def best_arrays(self, seed: int) -> SavedArrays:
        """The state of a seed that did best in an evaluation."""
        return SavedArrays(self.path / self.seeds[seed]["best"]["file"], "")


class SavedArrays(Mapping[str, np.ndarray]):
    """Arrays by name, each read when it is asked for: a large memory is never here twice.

    The file stays open, and so readable even after newer checkpoints have taken its place.
    """

    def __init__(self, path: Path, prefix: str) -> None:
        self.path = path
        with self._readable():
            self.file = persistence.open_arrays(path)
            self.names = [name for name in self.file.keys() if name.startswith(prefix)]  # noqa: SIM118

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        with self._readable():
            return self.file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, TypeError) as error:
            raise CorruptCheckpointError(f"{self.path} is not a safetensors file: {error}") from None


class Writer:
    """Collects the arrays of seeds that run side by side, and commits them as one checkpoint."""

    def __init__(self, folder: Path, seeds: Collection[int], kept: int = KEPT) -> None:
        """Write into `folder` (which is cleared of whatever a crash left half done) checkpoints of `seeds`.

        The last `kept` of them stay.
        """
        self.folder, self.seeds, self.kept = folder, tuple(seeds), kept
        self.saved: dict[int, Any] = {}  # the newest of each seed, committed or not
        self.waiting: dict[int, tuple] = {}  # each seed's best since it was last saved
        self.fresh: set[int] = set()  # those not committed yet
        self.committed: Path | None = None
        self.manifest: Mapping[str, Any] = {}  # of that one
        persistence.make_folder(folder)
        for path in persistence.entries(folder):
            if path.name == INCOMING or path.name.startswith(DELETED):
                persistence.remove(path)
        for path in filter(persistence.is_folder, numbered(folder)):
            persistence.clear_leftovers(path)

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Begin where `checkpoint` stands: later ones (corrupted, or this would not be the newest) are deleted.

        So are those that a writer that was killed had no time left to delete.
        """
        for path in numbered(self.folder):
            if number(path) > number(checkpoint.path):
                persistence.discard(path)
        self._keep_the_last()
        self.manifest, self.committed = checkpoint.manifest, checkpoint.path
        self.saved = {int(seed): entry for seed, entry in self.manifest["seeds"].items()}
        files = {file["file"] for entry in self.saved.values() for file in _files(entry)}
        for path in persistence.entries(checkpoint.path):
            if path.name not in (MANIFEST, *files):  # an older best, whose writer was killed
                persistence.remove(path)

    def add(self, seed: int, arrays: Mapping[str, np.ndarray], about: dict[str, Any]) -> None:
        """Write one seed's arrays; `about` (steps, iteration, ...) goes into the manifest. Nothing is committed yet."""
        incoming, before = self.folder / INCOMING, self.saved.get(seed, {})
        persistence.make_folder(incoming)
        entry = self._write(incoming, f"seed-{seed}.safetensors", arrays, about)
        if seed in self.waiting:
            entry["best"] = self._write_best(incoming, seed, *self.waiting[seed])
        elif "best" in before:
            entry["best"] = before["best"]
        self.saved[seed] = entry
        self.fresh.add(seed)
        self.waiting.pop(seed, None)

    def keep_best(self, seed: int, arrays: Mapping[str, np.ndarray], about: dict[str, Any]) -> None:
        """Keep the state of a seed that did best, in its checkpoints from that moment on; `about` as in `add`."""
        if not self.holds(seed, about["iteration"]):
            self.waiting[seed] = arrays, about
            return
        committed = None if seed in self.fresh else self.committed
        folder = committed or self.folder / INCOMING
        best = self._write_best(folder, seed, arrays, about)
        self.amend(seed, {"best": best})
        for path in persistence.entries(folder):
            if path.name.startswith(f"best-{seed}-") and path.name != best["file"]:
                persistence.remove(path)

    def _write_best(self, folder: Path, seed: int, arrays: Mapping[str, np.ndarray], about: dict[str, Any]) -> Any:
        return self._write(folder, f"best-{seed}-{about['iteration']}.safetensors", arrays, about)

    def _write(self, folder: Path, name: str, arrays: Mapping[str, np.ndarray], about: dict[str, Any]) -> Any:
        self._need_space(sum(array.nbytes for array in arrays.values()))
        return persistence.plain(about) | {"file": name} | persistence.write_arrays(folder / name, arrays)

    def commit(self, iterations: int, about: dict[str, Any]) -> Path | None:
        """Make a checkpoint of the newest arrays of every seed: its folder, or None if there is nothing new."""
        if not self.fresh:
            self._keep_the_last()  # where a call before this one has failed at it
            return None
        incoming = self.folder / INCOMING
        files = [file["file"] for entry in self.saved.values() for file in _files(entry)]
        for name in files:
            if self.committed is not None and not persistence.exists(incoming / name):
                persistence.copy(self.committed / name, incoming / name)
        steps = sum(entry["steps"] for entry in self.saved.values()) // len(self.seeds)
        manifest = {"format": FORMAT, "steps": steps, "iterations": iterations, **about}
        manifest["seeds"] = {str(seed): entry for seed, entry in sorted(self.saved.items())}
        persistence.write_json(incoming / MANIFEST, persistence.sealed(manifest))
        path = self.folder / _name(steps)
        if persistence.exists(path):
            persistence.discard(path)
        persistence.rename(incoming, path.name)
        self.manifest, self.committed, self.fresh = manifest, path, set()
        persistence.sync(self.folder)
        self._keep_the_last()
        return path

    def _keep_the_last(self) -> None:
        for old in numbered(self.folder)[: -self.kept]:
            persistence.discard(old)

    def holds(self, seed: int, iteration: int) -> bool:
        """Whether the newest arrays of a seed are those of this iteration."""
        return self.saved.get(seed, {}).get("iteration") == iteration

    def amend(self, seed: int, about: dict[str, Any]) -> None:
        """Say more about the newest arrays of a seed, also in the manifest of the checkpoint that has them."""
        self.saved[seed] |= persistence.plain(about)
        if self.committed is not None and seed not in self.fresh:  # then the manifest has this very entry
            persistence.write_json(self.committed / MANIFEST, persistence.sealed(self.manifest))

    def _need_space(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < 2 * size:
            needed = f"no room for {size / 1e6:,.0f} MB and as much again, {free / 1e6:,.0f} MB are free"
            raise OSError(errno.ENOSPC, needed)


def newest(folder: Path, run: str | None = None) -> Checkpoint | None:
    """The newest checkpoint in `folder` that is whole, with a warning where a newer one is not; None if there is none.

    With `run`, the id of one, those of other runs count as not whole. CorruptCheckpointError where there are some and
    none is whole, RunError where `folder` cannot be read.
    """
    problems = []
    for path in reversed(numbered(folder)):
        try:
            checkpoint = of_run(path, run)
        except (CorruptCheckpointError, UnsafeCheckpointError) as error:
            problems.append((path, error))
            continue
        for broken, problem in problems:
            text = f"checkpoint {broken.name} is corrupted ({problem}); using {path.name} instead"
            warnings.warn(one_line(text), stacklevel=3)
        return checkpoint
    if problems:
        raise CorruptCheckpointError(f"no checkpoint in {folder} is whole: {problems[0][1]}")
    return None


def of_run(path: Path, run: str | None) -> Checkpoint:
    """The checkpoint in `path`; CorruptCheckpointError where it is not whole or, with `run`, of another."""
    checkpoint = Checkpoint(path)
    if run is not None and _run_of(checkpoint.manifest) != run:
        raise CorruptCheckpointError(f"{path.name} is of another run")
    return checkpoint


def run_of_most(folder: Path, also: Mapping[str, Any] | None) -> str | None:
    """The id of the run that most manifests in `folder`, and the configuration `also`, belong to; None for no vote.

    "" is the id of a run from before there were any. Where they are even, the configuration decides.
    """
    votes = Counter() if also is None else Counter([str(also.get("id", ""))])
    for path in numbered(folder):
        with contextlib.suppress(RunError):
            votes[_run_of(_read_manifest(path))] += 1
    return votes.most_common(1)[0][0] if votes else None


def _run_of(manifest: Mapping[str, Any]) -> str:
    return manifest.get("run", "")


def numbered(folder: Path) -> list[Path]:
    """What bears a checkpoint's name, in order of its number (never of its time: clocks jump)."""
    return sorted((path for path in persistence.entries(folder) if NAME.fullmatch(path.name)), key=number)


def number(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _name(steps: int) -> str:
    return f"step-{steps:09d}"


def _read_manifest(path: Path) -> Manifest:
    """What the checkpoint in `path` says of itself, all of it of its kind and within its limits."""
    persistence.entries(path)  # of a folder itself, no link to one
    where = path / MANIFEST
    manifest: Any = persistence.unsealed(persistence.read_json(where), where)
    if manifest.get("format") not in READABLE:
        raise RunError(f"{path} has format {manifest.get('format')}, this version of thorndike reads up to {FORMAT}")
    try:
        schema.check(manifest, Manifest, "manifest")
        for seed, entry in manifest["seeds"].items():
            if not seed.isdecimal() or seed != str(int(seed)) or entry["file"] != f"seed-{seed}.safetensors":
                raise ValueError(f"seed {seed} has the file {entry['file']}")
            best = entry.get("best")
            if best and best["file"] != f"best-{seed}-{best['iteration']}.safetensors":
                raise ValueError(f"seed {seed} has the best file {best['file']}")
        if not manifest["seeds"]:
            raise ValueError("there are no seeds")
    except ValueError as error:
        raise CorruptCheckpointError(f"{where} is not one that thorndike wrote: {error}") from None
    if path.name != _name(manifest["steps"]):
        raise CorruptCheckpointError(f"{path.name} holds step {manifest['steps']:,}: it was renamed")
    return manifest


def _files(entry: Entry) -> list[File]:
    """The files that a checkpoint has of a seed."""
    return [entry, entry["best"]] if "best" in entry else [entry]


def check_file(path: Path, entry: Mapping[str, Any]) -> None:
    """CorruptCheckpointError where a file of arrays has not the size and digest that `entry` says."""
    where = f"{path.parent.name}/{path.name}"
    size = persistence.size(path)
    if size != entry["size"]:
        raise CorruptCheckpointError(f"{where} has {size:,} bytes, {entry['size']:,} were written")
    if persistence.digest(path) != entry["sha256"]:
        raise CorruptCheckpointError(f"{where} is not as it was written: its SHA-256 differs")
    persistence.open_arrays(path)
