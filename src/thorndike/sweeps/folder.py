"""What a sweep's folder holds: a run folder for each setting, and sweep.json, which says which is which."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from thorndike import persistence
from thorndike.errors import CorruptCheckpointError, RunError
from thorndike.runs import folders, schema
from thorndike.sweeps.grids import in_words

FORMAT = 1
FILE = folders.SWEEP


class Result(TypedDict):
    """How well a setting did, over its seeds: what `evaluation.summarize` gives."""

    mean: float
    std: float | None
    iqm: float | None
    ci95: list[float] | None
    per_seed: list[float]
    unfinished: NotRequired[int]


class Member(TypedDict):
    """A setting and its run: a folder of that name beside sweep.json."""

    run: str
    settings: dict[str, Any]
    failed: str  # why it will never come to its end; "" where nothing is known to be wrong
    result: Result | None  # None: not known yet


class Plan(TypedDict):
    """sweep.json."""

    format: int
    algorithm: str
    environment: str
    seeds: schema.Positive
    evaluated: bool  # whether results are of greedy episodes
    members: list[Member]


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting and how well it did."""

    run: str  # the name of its folder
    settings: dict[str, Any]
    result: Result | None  # over its seeds: mean, std, per_seed, and from five seeds on iqm and ci95
    failed: str = ""
    best: bool = False

    @property
    def mean(self) -> float | None:
        return self.result["mean"] if self.result else None


def is_one(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return persistence.exists(folder / FILE)


def read(folder: Path) -> Plan:
    """The plan of the sweep in `folder`. CorruptCheckpointError where it is not as it was written."""
    if not is_one(folder):
        raise RunError(f"{folder} is not a sweep: it has no {FILE}")
    path = folder / FILE
    values = persistence.unsealed(persistence.read_json(path), path)
    try:
        schema.check(values, Plan, FILE)
        if values["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT}, which this version of thorndike reads")
        names = [member["run"] for member in values["members"]]
        if not names or not all(name.isascii() and name.isdigit() for name in names) or len({*names}) < len(names):
            raise ValueError("its runs bear other names than thorndike gives")
        if not all(len(member["result"]["ci95"] or "ab") == 2 for member in values["members"] if member["result"]):
            raise ValueError("an interval has other ends than two")
    except ValueError as error:
        raise CorruptCheckpointError(f"{path} is not one that thorndike wrote: {error}") from None
    return values  # type: ignore[return-value]


def write(folder: Path, plan: Plan) -> None:
    """As sweep.json in `folder`, whose members are in the order of the table: best first."""
    with persistence.writable(folder):
        persistence.write_json(folder / FILE, persistence.sealed(plan))


def result_of(summary: dict[str, Any], evaluated: bool) -> Result | None:
    """What a run's summary says of how well it did; None where no episode has ended."""
    result = summary.get("evaluation" if evaluated else "training")
    if not isinstance(result, dict) or result.get("mean") is None:
        return None
    schema.check(result, Result, "its result")
    return {name: result[name] for name in Result.__annotations__ if name in result}  # type: ignore[return-value]


def ranked(plan: Plan) -> list[Row]:
    """The rows of the table, best first; those without a result last."""
    rows = [Row(m["run"], m["settings"], m["result"], m["failed"]) for m in plan["members"]]
    rows.sort(key=lambda row: (row.mean is None, -(row.mean or 0.0), row.run))
    if rows and rows[0].mean is not None:
        rows[0] = dataclasses.replace(rows[0], best=True)
    return rows


def table(plan: Plan) -> list[tuple[str, ...]]:
    """The rows as text, under a heading."""
    names = list(dict.fromkeys(name for member in plan["members"] for name in member["settings"]))
    kind = "greedy return" if plan["evaluated"] else "training return"
    lines: list[tuple[str, ...]] = [("", *names, kind, "std", "iqm", "95 % interval", "run")]
    for row in ranked(plan):
        values = (in_words(row.settings[name]) if name in row.settings else "" for name in names)
        lines.append(("best" if row.best else "", *values, *_numbers(row), row.run))
    return lines


def _numbers(row: Row) -> tuple[str, ...]:
    if row.failed or row.result is None:
        return ("failed" if row.failed else "unfinished", "", "", "")
    result = row.result
    cut = f" ({result['unfinished']} unfinished)" if result.get("unfinished") else ""
    interval = result.get("ci95")
    return (
        f"{result['mean']:,.1f}{cut}",
        _number(result.get("std")),
        _number(result.get("iqm")),
        f"{interval[0]:,.1f} to {interval[1]:,.1f}" if interval else "",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def remarks(plan: Plan) -> list[str]:
    """What has to be said beside the table."""
    said = []
    rows = ranked(plan)
    done = [row for row in rows if row.result]
    for row in rows:
        if row.failed:
            said.append(f"run {row.run} failed: {row.failed}")
    if done and not done[0].result["ci95"]:  # type: ignore[index]
        seeds = plan["seeds"]
        few = "one seed is" if seeds == 1 else f"{seeds} seeds are"
        said.append(f"{few} too few for an interval: that takes five (--seeds 5)")
    elif len(done) > 1:
        low = done[0].result["ci95"][0]  # type: ignore[index]
        level = sum(row.result["ci95"][1] >= low for row in done[1:])  # type: ignore[index]
        if level:
            others = "another's" if level == 1 else f"those of {level} others"
            said.append(f"the interval of the best overlaps {others}: {plan['seeds']} seeds do not tell them apart")
    if len(done) > 1:
        said.append("the best was picked by these very seeds, which flatters it: train it on others (--seed 1000)")
    return said
