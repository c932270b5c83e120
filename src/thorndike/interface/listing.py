"""The small tables of `thorndike list`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thorndike import persistence
from thorndike.errors import RunError, ThorndikeError, one_line

Table = list[tuple[str, ...]]


def aligned(table: Table) -> list[str]:
    """Rows of text in columns, which any screen can show."""
    table = [tuple(map(one_line, row)) for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]


def algorithms() -> Table:
    """Name, and what it is."""
    from thorndike import algorithms as known

    rows: Table = [("algorithm", "what it is")]
    for name in known.ALGORITHMS:
        rows.append((name, (known.get(name).__doc__ or "").strip().split("\n")[0]))
    return rows


def environments() -> Table:
    """Id, where it runs, and the algorithms that have recorded settings for it."""
    from thorndike import environments as known
    from thorndike.settings import RECORDED

    twins = known.twins()
    rows: Table = [("environment", "runs", "recorded settings")]
    for environment in dict.fromkeys([*twins, *sorted(known.known_ids())]):
        names = [algorithm for algorithm, of in RECORDED if of == environment]
        rows.append((environment, "compiled" if environment in twins else "on the host", ", ".join(names)))
    rows.append(("envpool:ID", "on the host: EnvPool's, in C++", ""))
    return rows


def runs(folder: str = "runs") -> Table:
    """The run folders in a folder: what, how far, and how good."""
    if not persistence.folder_of(folder).is_dir():
        raise RunError(f"there is no folder '{folder}' here: thorndike train ... makes one")
    rows: Table = [("run", "algorithm", "environment", "steps", "seeds", "greedy return")]
    for path in sorted(Path(folder).iterdir()):
        if persistence.exists(path / "config.json"):
            rows.append((str(path), *_described(path)))
    return rows


def _described(path: Path) -> Sequence[str]:
    try:
        summary = path / "summary.json"
        values = persistence.read_json(summary if persistence.exists(summary) else path / "config.json")
    except ThorndikeError as error:
        return (f"unreadable: {error}", "", "", "", "")
    algorithm = values.get("algorithm")
    name = str(algorithm.get("type", "?")).lower() if isinstance(algorithm, dict) else algorithm
    evaluation = values.get("evaluation")
    mean = evaluation.get("mean") if isinstance(evaluation, dict) else None
    if "history" in values:
        result = "unfinished"
    elif isinstance(mean, int):  # which thorndike never writes, and may be too large for a float
        result = str(mean)
    else:
        result = f"{mean:,.1f}" if isinstance(mean, float) else "not evaluated"
    row = (name, values.get("environment"), values.get("steps"), values.get("seeds"), result)
    return tuple(str(cell)[:60] for cell in row)
