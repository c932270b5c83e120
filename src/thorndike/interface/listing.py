"""The small tables of `thorndike list`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thorndike import names, persistence
from thorndike.errors import RunError, ThorndikeError, UnknownNameError, nearest, one_line

if TYPE_CHECKING:
    from thorndike.environments.catalogue import Family

SHOWN = 4  # algorithms of a family
Table = list[tuple[str, ...]]
WITH_A_WORD = "thorndike list environments WORD shows every id: thorndike list environments mujoco"


def aligned(table: Table) -> list[str]:
    """Rows of text in columns, which any screen can show; a row of one cell stands between tables of their own."""
    lines = []
    for alone, rows in itertools.groupby(([*map(one_line, row)] for row in table), key=lambda row: len(row) == 1):
        block = list(rows)
        widths = [0] if alone else [max(map(len, column)) for column in zip(*block, strict=True)]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in block]
    return lines


def algorithms() -> Table:
    """The chooser: name, what it decides, what its steps cost, whether it takes a memory, and when to pick it."""
    rows: Table = [("algorithm", "actions", "steps", "memory", "pick it")]
    for name, known in names.ALGORITHMS.items():
        rows.append((name.lower(), known.actions, known.steps, "yes" if known.memory else "no", known.pick))
    return rows


def environments(word: str | None = None) -> Table:
    """The families of environments; or of those that `word` names, or whose ids hold it, every id."""
    from thorndike.environments.catalogue import families

    known = families()
    if word is not None:
        return _found(word, known)
    rows: Table = [("installed", "ids", "for example", "runs", "recorded settings")]
    for family in known:
        if not family.pip:
            ids = family.ids() if family.quick else []
            number = f"{len(ids):,}" if ids else "many"
            rows.append((family.name, number, family.example, family.runs, _recorded(ids)))
    rows += [("",), ("one install away", "for example", "runs", "install")]
    rows += [(family.name, family.example, family.runs, family.pip) for family in known if family.pip]
    return [*rows, ("",), (WITH_A_WORD,)]


def _found(word: str, known: list[Family]) -> Table:
    """Every id of the families that are named so, else every id that has `word` in it."""
    meant = [family for family in known if family.bears(word)]
    rows: Table = [("environment", "runs", "recorded settings")]
    for family in meant or known:
        if family.pip:
            rows += [(family.example, family.runs, f"not installed: {family.pip}")] if meant else []
            continue
        if not meant and not family.quick and family.name != "EnvPool":  # whose packages are slow to import, one by one
            continue
        ids = family.ids()
        named = ids if word.lower() in family.name.lower() else [id for id in ids if word.lower() in id.lower()]
        rows += [(id, family.runs, ", ".join(_algorithms(id))) for id in named]
    if len(rows) == 1:
        near = nearest(word, [family.name for family in known])
        raise UnknownNameError(f"no environments are called '{word}'.{near} thorndike list environments shows all")
    return rows


def _algorithms(id: str) -> list[str]:
    """Those that have recorded settings for an id, with any prefix."""
    from thorndike.settings import RECORDED

    return [algorithm for algorithm, of in RECORDED if of in (id.rpartition(":")[2], id.partition(":")[0] + ":")]


def _recorded(ids: list[str]) -> str:
    """The algorithms that have recorded settings for some of these ids, and how many there are where they are many."""
    having = {name for id in ids for name in _algorithms(id)}
    found = [name.lower() for name in names.ALGORITHMS if name.lower() in having]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def runs(folder: str = "runs") -> Table:
    """The run folders in a folder: what, how far, and how good."""
    if not persistence.folder_of(folder).is_dir():
        raise RunError(f"there is no folder '{folder}' here: thorndike train ... makes one")
    rows: Table = [("run", "algorithm", "environment", "steps", "seeds", "greedy return")]
    for path in sorted(Path(folder).iterdir()):
        if persistence.exists(path / "config.json"):
            rows.append((str(path), *_described(path)))
        elif persistence.exists(path / "sweep.json"):
            rows.append((str(path), *_holder(path / "sweep.json"), f"a sweep: thorndike list runs {path}"))
        elif persistence.exists(path / "search.json"):
            about = _holder(path / "search.json")
            rows.append((str(path), *about, f"a search: thorndike list runs {path / 'trials'}"))
    return rows


def _holder(file: Path) -> Sequence[str]:
    """What the file of a sweep or a search says of its runs: algorithm, environment, nothing of steps, seeds."""
    try:
        values = persistence.read_json(file)
    except ThorndikeError as error:
        return (f"unreadable: {error}", "", "", "")
    run = values.get("run")
    run = run if isinstance(run, dict) else values  # a search has the configuration of its trials in it
    algorithm = run.get("algorithm")
    name = str(algorithm.get("type", "?")).lower() if isinstance(algorithm, dict) else algorithm
    return tuple(str(cell)[:60] for cell in (name, run.get("environment"), "", run.get("seeds")))


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
