"""Checkpoints: arrays in safetensors files, one a seed, and a manifest with the digest of each.

    checkpoints/step-000050000/{seed-0.safetensors, seed-1.safetensors, manifest.json}

The number is the mean over seeds of the steps done. A checkpoint appears under its name in one rename, whole; the
last KEPT stay. Nothing is ever unpickled, evaluated or imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from thorndike.errors import CorruptCheckpointError, RunError
from thorndike.persistence import digest, discard, plain, read_json, sync, write_json

FORMAT = 2
READABLE = (1, 2)  # 1 held every row of a memory, written or not
KEPT = 3
MAX_HEADER_BYTES = 16_000_000
MANIFEST = "manifest.json"
INCOMING = ".incoming"
NAME = re.compile(r"step-(\d{9,15})")


class Checkpoint:
    """One checkpoint whose bytes are those that were written."""

    def __init__(self, path: Path) -> None:
        """Check every byte; CorruptCheckpointError names the file that differs."""
        self.path = path
        self.manifest = read_json(path / MANIFEST)
        _check_manifest(path, self.manifest)
        for entry in self.seeds.values():
            _check_file(path / entry["file"], entry)

    @property
    def seeds(self) -> dict[int, dict[str, Any]]:
        """By seed: file, size, sha256, steps, iteration, and once it has reached its end results."""
        return {int(seed): entry for seed, entry in self.manifest["seeds"].items()}

    @property
    def iterations(self) -> int:
        """Of the whole run, as it was planned when this was saved."""
        return self.manifest["iterations"]

    def arrays(self, seed: int, prefix: str = "") -> SavedArrays:
        """A seed's arrays whose names begin with `prefix`."""
        return SavedArrays(self.path / self.seeds[seed]["file"], prefix)


class SavedArrays(Mapping[str, np.ndarray]):
    """Arrays by name, each read when it is asked for: a large memory is never here twice.

    The file stays open, and so readable even after newer checkpoints have taken its place.
    """

    def __init__(self, path: Path, prefix: str) -> None:
        self.path = path
        with self._readable():
            self.file = safe_open(path, framework="numpy", backend="pread")
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

    def __init__(self, folder: Path, seeds: Collection[int]) -> None:
        """Write into `folder` (which is cleared of whatever a crash left half done) checkpoints of `seeds`."""
        self.folder, self.seeds = folder, tuple(seeds)
        self.saved: dict[int, dict[str, Any]] = {}  # the newest of each seed, committed or not
        self.fresh: set[int] = set()  # those not committed yet
        self.committed: Path | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in [*folder.glob(".deleted-*"), folder / INCOMING]:
            shutil.rmtree(leftover, ignore_errors=True)

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Begin where `checkpoint` stands: later ones (corrupted, or this would not be the newest) are deleted."""
        for path in _numbered(self.folder):
            if _number(path) > _number(checkpoint.path):
                discard(path)
        self.saved, self.committed = dict(checkpoint.seeds), checkpoint.path

    def add(self, seed: int, arrays: Mapping[str, np.ndarray], about: dict[str, Any]) -> None:
        """Write one seed's arrays; `about` (steps, iteration, ...) goes into the manifest. Nothing is committed yet."""
        incoming = self.folder / INCOMING
        incoming.mkdir(exist_ok=True)
        self._need_space(sum(array.nbytes for array in arrays.values()))
        name = f"seed-{seed}.safetensors"
        path, temporary = incoming / name, incoming / f".{name}"
        save_file({key: np.asarray(array, order="C") for key, array in arrays.items()}, temporary)  # copies nothing
        sync(temporary)
        os.replace(temporary, path)
        self.saved[seed] = plain(about) | {"file": name, "size": path.stat().st_size, "sha256": digest(path)}
        self.fresh.add(seed)

    def commit(self, iterations: int, about: dict[str, Any]) -> Path | None:
        """Make a checkpoint of the newest arrays of every seed: its folder, or None if there is nothing new."""
        if not self.fresh:
            return None
        incoming = self.folder / INCOMING
        for seed, entry in self.saved.items():
            if seed not in self.fresh and self.committed is not None:
                shutil.copyfile(self.committed / entry["file"], incoming / entry["file"])
                sync(incoming / entry["file"])
        steps = sum(entry["steps"] for entry in self.saved.values()) // len(self.seeds)
        manifest = {"format": FORMAT, "steps": steps, "iterations": iterations, **plain(about)}
        manifest["seeds"] = {str(seed): entry for seed, entry in sorted(self.saved.items())}
        write_json(incoming / MANIFEST, _sealed(manifest))
        path = self.folder / f"step-{steps:09d}"
        if path.exists():
            discard(path)
        os.rename(incoming, path)
        sync(self.folder)
        self.committed, self.fresh = path, set()
        for old in _numbered(self.folder)[:-KEPT]:
            discard(old)
        return path

    def holds(self, seed: int, iteration: int) -> bool:
        """Whether the newest arrays of a seed are those of this iteration."""
        return self.saved.get(seed, {}).get("iteration") == iteration

    def amend(self, seed: int, about: dict[str, Any]) -> None:
        """Say more about the newest arrays of a seed, also in the manifest of the checkpoint that has them."""
        self.saved[seed] |= plain(about)
        if self.committed is not None and seed not in self.fresh:
            manifest = read_json(self.committed / MANIFEST)
            manifest["seeds"][str(seed)] |= plain(about)
            write_json(self.committed / MANIFEST, _sealed(manifest))

    def _need_space(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < 2 * size:
            raise RunError(
                f"cannot save a checkpoint of {size / 1e6:,.0f} MB in {self.folder}: {free / 1e6:,.0f} MB are free. "
                f"The last one is whole: {self.committed or 'none yet'}"
            )


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in `folder` that is whole, with a warning where a newer one is not; None if there is none.

    CorruptCheckpointError where there are some and none is whole.
    """
    problems = []
    for path in reversed(_numbered(folder)):
        try:
            checkpoint = Checkpoint(path)
        except CorruptCheckpointError as error:
            problems.append((path, error))
            continue
        for broken, problem in problems:
            warnings.warn(f"checkpoint {broken.name} is corrupted ({problem}); using {path.name} instead", stacklevel=3)
        return checkpoint
    if problems:
        raise CorruptCheckpointError(f"no checkpoint in {folder} is whole: {problems[0][1]}")
    return None


def _numbered(folder: Path) -> list[Path]:
    """The folders of checkpoints, in order of their number (never of their time: clocks jump)."""
    found = [path for path in folder.glob("step-*") if NAME.fullmatch(path.name) and not path.is_symlink()]
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with the digest of all else that it says."""
    body = {name: value for name, value in manifest.items() if name != "digest"}
    return body | {"digest": _digest_of(body)}


def _digest_of(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    if manifest.get("digest") != _sealed(manifest)["digest"]:
        raise CorruptCheckpointError(f"{path.name}/{MANIFEST} is not as it was written")
    if manifest.get("format") not in READABLE:
        raise RunError(f"{path} has format {manifest.get('format')}, this version of thorndike reads up to {FORMAT}")
    if not _is_ours(manifest):
        raise CorruptCheckpointError(f"{path.name}/{MANIFEST} is not one that thorndike wrote")


def _is_ours(manifest: dict[str, Any]) -> bool:
    """Whether all that resuming and evaluating take from a manifest is there, of its kind and within its limits."""
    try:
        return (
            all(_is_count(manifest[name]) for name in ("steps", "iterations"))
            and all(_is_number(value) and value >= 0 for value in manifest["seconds"].values())
            and len(manifest["seeds"]) > 0
            and all(_is_entry(seed, entry) for seed, entry in manifest["seeds"].items())
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return False


def _is_entry(seed: str, entry: dict[str, Any]) -> bool:
    return (
        seed == str(int(seed))
        and _is_count(int(seed))
        and entry["file"] == f"seed-{seed}.safetensors"
        and isinstance(entry["sha256"], str)
        and all(_is_count(entry[name]) for name in ("steps", "size"))
        and _is_count(entry["iteration"], below=2**32)  # as training counts them
        and ("results" not in entry or _are_results(entry["results"]))
    )


def _are_results(results: dict[str, Any]) -> bool:
    recent, evaluated = results["recent"], results["evaluated"]
    numbers = _are_numbers(recent) and (evaluated is None or _are_numbers(evaluated))
    return numbers and _is_count(results.get("unfinished", 0))


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # True is none


def _is_count(value: Any, below: int = 2**63) -> bool:
    return type(value) is int and 0 <= value < below


def _check_file(path: Path, entry: dict[str, Any]) -> None:
    where = f"{path.parent.name}/{path.name}"
    if path.is_symlink() or not path.is_file():
        raise CorruptCheckpointError(f"{where} is missing")
    if path.stat().st_size != entry["size"]:
        raise CorruptCheckpointError(f"{where} has {path.stat().st_size:,} bytes, {entry['size']:,} were written")
    if digest(path) != entry["sha256"]:
        raise CorruptCheckpointError(f"{where} is not as it was written: its SHA-256 differs")
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > min(MAX_HEADER_BYTES, entry["size"]):
        raise CorruptCheckpointError(f"{where} has a header of {header:,} bytes: thorndike did not write that")
