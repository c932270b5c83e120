"""The rows of metrics.jsonl: one JSON object a line, appended as a run goes on.

An evaluation is played once its moment is saved, and is a line of its own: lines of one seed and steps are one row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thorndike.errors import RunError
from thorndike.persistence import plain, write_text

FILE = "metrics.jsonl"
MAX_BYTES = 500_000_000
MAX_LINE = 100_000


def append(folder: Path, row: Mapping[str, Any]) -> None:
    """Add one line."""
    with open(folder / FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(plain(dict(row)), allow_nan=False) + "\n")


def merge(rows: list[dict[str, Any]], line: Mapping[str, Any]) -> None:
    """Take a line into the rows: into the newest of its seed where that is of the same steps, else as a new one."""
    newest = next((row for row in reversed(rows) if row["seed"] == line["seed"]), None)
    if newest is not None and newest["steps"] == line["steps"]:
        newest.update(line)
    else:
        rows.append(dict(line))


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows; a last line that a crash left unfinished is passed over. RunError where the file is not ours."""
    path = folder / FILE
    if not path.is_file():
        return []
    if path.stat().st_size > MAX_BYTES:
        raise RunError(f"{path} is larger than {MAX_BYTES:,} bytes: thorndike did not write that")
    rows: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        try:
            row = json.loads(line) if len(line) <= MAX_LINE else None
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not all(isinstance(row.get(name), int) for name in ("seed", "steps")):
            raise RunError(f"{path}, line {number} is not a row of metrics")
        merge(rows, row)
    return rows


def cut_back(folder: Path, steps: Mapping[int, int]) -> list[dict[str, Any]]:
    """Keep the rows of each seed up to its `steps` (none for other seeds), so that going on repeats none of them."""
    rows = [row for row in read(folder) if row["steps"] <= steps.get(row["seed"], -1)]
    write_text(folder / FILE, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Every column as an array, NaN where a row has no such value; seed, steps and episodes are whole numbers."""
    names = dict.fromkeys(name for row in rows for name in row)
    table = {}
    for name in names:
        values = [row.get(name) for row in rows]
        whole = all(isinstance(value, int) for value in values)
        numbers = [value if isinstance(value, (int, float)) else np.nan for value in values]
        table[name] = np.array(numbers, np.int64 if whole else np.float64)
    return table
