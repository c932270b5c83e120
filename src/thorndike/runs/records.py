"""The rows of metrics.jsonl: one JSON object a line, appended as a run goes on.

An evaluation is played once its moment is saved, and is a line of its own: lines of one seed and steps are one row. The
file is a record and nothing depends on it: what is damaged is left out, with a warning.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np

from thorndike import persistence
from thorndike.errors import one_line
from thorndike.runs import schema

FILE = "metrics.jsonl"
MAX_BYTES = 500_000_000
MAX_LINE = 100_000
MAX_COLUMNS = 1_000


class Written(TypedDict):
    """The lines of one seed up to a moment: how many, and the SHA-256 of them all."""

    lines: int
    sha256: str


class Row(TypedDict):
    """What resuming takes from a row. All else in it is numbers, or null."""

    seed: int
    steps: int
    evaluation_steps: NotRequired[int]
    evaluation_longest: NotRequired[int]


class Line(NamedTuple):
    """A row, or a part of one, and the very bytes that it was written as."""

    data: bytes
    row: dict[str, Any]


class Log:
    """The rows of a run that is under way, appended to metrics.jsonl where there is a folder."""

    def __init__(self, folder: Path | None = None, lines: Iterable[Line] = ()) -> None:
        """Go on from `lines`, which the file holds already."""
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self._digests: dict[int, Any] = {}
        self._counts: dict[int, int] = {}
        for line in lines:
            self._take(line)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one line."""
        data = _as_line(row)
        if self.folder is not None:
            persistence.append(self.folder / FILE, data)
        self._take(Line(data, dict(row)))

    def written(self, seed: int) -> Written:
        """What a checkpoint notes of a seed's lines, to know them again."""
        digest = self._digests.get(seed) or hashlib.sha256()
        return {"lines": self._counts.get(seed, 0), "sha256": digest.hexdigest()}

    def _take(self, line: Line) -> None:
        merge(self.rows, line.row)
        seed = line.row["seed"]
        self._digests.setdefault(seed, hashlib.sha256()).update(line.data)
        self._counts[seed] = self._counts.get(seed, 0) + 1


def merge(rows: list[dict[str, Any]], line: Mapping[str, Any]) -> None:
    """Take a line into the rows: into the newest of its seed where that is of the same steps, else as a new one."""
    newest = next((row for row in reversed(rows) if row["seed"] == line["seed"]), None)
    if newest is not None and newest["steps"] == line["steps"]:
        newest.update(line)
    else:
        rows.append(dict(line))


def read(folder: Path, written: Mapping[int, Written] | None = None) -> list[dict[str, Any]]:
    """All rows, with a warning that says what is lost, and where a seed's are not those `written` at a checkpoint.

    CorruptCheckpointError where the file cannot be read at all.
    """
    return Log(None, _lines(folder, written or {})).rows


def write(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Log:
    """Make metrics.jsonl of `rows` alone."""
    lines = [Line(_as_line(row), dict(row)) for row in rows]
    persistence.write(folder / FILE, b"".join(line.data for line in lines))
    return Log(folder, lines)


def cut_back(folder: Path, steps: Mapping[int, int], written: Mapping[int, Written] | None = None) -> Log:
    """Keep the lines of each seed up to its `steps` (none of other seeds), so that going on repeats none of them.

    Warnings and errors as those of `read`, and before anything is changed.
    """
    lines = _lines(folder, written or {})
    kept = [line for line in lines if line.row["steps"] <= steps.get(line.row["seed"], -1)]
    persistence.write(folder / FILE, b"".join(line.data for line in kept))
    return Log(folder, kept)


def columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Every column as an array, NaN where a row has no such value; seed, steps and episodes are whole numbers."""
    names = dict.fromkeys(name for row in rows for name in row)
    table = {}
    for name in names:
        values = [row.get(name) for row in rows]
        whole = all(isinstance(value, int) and abs(value) <= schema.LARGEST for value in values)
        numbers = [value if isinstance(value, (int, float)) else np.nan for value in values]
        table[name] = np.array(numbers, np.int64 if whole else np.float64)
    return table


def _as_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(persistence.plain(dict(row)), allow_nan=False).encode() + b"\n"


def _lines(folder: Path, written: Mapping[int, Written]) -> list[Line]:
    """The lines that are whole; a last one that a crash left unfinished is passed over without a word."""
    path = folder / FILE
    ended = persistence.read(path, MAX_BYTES).split(b"\n")[:-1] if persistence.exists(path) else []
    lines = list(_whole(ended))
    if len(lines) < len(ended):
        lost = f"{len(ended) - len(lines):,} of {len(ended):,} lines are damaged"
        warnings.warn(one_line(f"{path}: {lost}, and left out"), stacklevel=4)
    strange = [str(seed) for seed, noted in written.items() if not _are_those(lines, seed, noted)]
    if strange:
        seeds = f"seed{'s' * (len(strange) > 1)} {', '.join(strange)}"
        text = f"{path} is not as it was written: rows of {seeds} may be wrong or missing"
        warnings.warn(one_line(text), stacklevel=4)
    return lines


def _whole(ended: list[bytes]) -> Iterator[Line]:
    columns: set[str] = set()
    for data in ended:
        try:
            row: Any = json.loads(data) if len(data) <= MAX_LINE else None
            schema.check(row, Row, "row")
            schema.check(row, dict[str, float | None], "row")
        except (ValueError, RecursionError):
            continue
        evaluated = {"evaluation_steps", "evaluation_longest"} & row.keys()
        if len(evaluated) != 1 and len(columns | row.keys()) <= MAX_COLUMNS:
            columns |= row.keys()
            yield Line(data + b"\n", row)


def _are_those(lines: list[Line], seed: int, noted: Written) -> bool:
    first = [line.data for line in lines if line.row["seed"] == seed][: noted["lines"]]
    return len(first) == noted["lines"] and hashlib.sha256(b"".join(first)).hexdigest() == noted["sha256"]
