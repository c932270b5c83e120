"""Compare the speed of training, side by side, with the same hyper-parameters, network and number of updates.

    python benchmarks/speed.py                        everything, about half an hour
    python benchmarks/speed.py --quick                one short round, to look: minutes
    python benchmarks/speed.py --tasks sac cold       those tasks whose name holds one of these; others stay as they are
    python benchmarks/speed.py --write                measure nothing, write the pages again

Every measurement is a process of its own; entrants take turns (A B C A B C ...), and what counts is the median over
the rounds. Compiling is reported apart. Of each library every configuration plays the first round, the best of them
all the others. What is measured, and what it is held to, stands in tasks.py; the other libraries in peers.txt,
each installed into an environment of its own first; how a task's floating-point limit is found, in limit.py. Writes
benchmarks/results/speed.{json,md,svg}, or speed-quick.*, after every task. Measure with nothing else running.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import chart
import limit
import peers
import reporting
from tasks import LIMIT, OURS, SB3, TASKS, Entrant, Task, entrants

SCRIPTS = Path(__file__).parent / "entrants"
QUICK = 0.2  # share of the steps


def main() -> None:
    arguments = parse()
    if arguments.write:
        write("speed", json.loads((reporting.RESULTS / "speed.json").read_text())["results"])
        return
    rounds, share = (1, QUICK) if arguments.quick else (arguments.rounds, 1.0)
    chosen = [task for task in TASKS if any(part in task.name for part in arguments.tasks or [""])]
    if not chosen:
        sys.exit(f"no task is named so: {', '.join(task.name for task in TASKS)}")
    pythons = peers.pythons()
    versions = {name: packages(python) for name, python in ({OURS: sys.executable} | pythons).items()}
    where = {"machine": reporting.machine(), "rounds": rounds, "quick": arguments.quick, "versions": versions}
    for task in chosen:
        print(f"{task.name}: {task.title}", flush=True)
        result = measured(task, pythons, rounds, share)
        about = {"date": time.strftime("%Y-%m-%d")} | where
        record("speed-quick" if arguments.quick else "speed", result | about)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help=", ".join(task.name for task in TASKS))
    return parser.parse_args()


def measured(task: Task, pythons: dict[str, str], rounds: int, share: float) -> dict[str, Any]:
    """A task's measurements, its floating-point limit, and how it stands to its aims."""
    limits = [aim for aim in task.aims if aim.against == LIMIT]
    before = products(task, pythons) if limits else {}
    found = interleaved(entrants(task, pythons, share), rounds)
    # Once more where much hangs on it: the better of the two counts, which makes the limit higher.
    after = products(task, pythons) if any(aim.floor for aim in limits) else {}
    best = {library: medians(measurements) for library, measurements in leaders(found).items()}
    result: dict[str, Any] = {"task": task.name, "title": task.title, "settings": task.settings}
    if before or after:
        count = limit.per_step(task.algorithm, task.settings, *task.spaces)
        seconds = {product: min(times[product] for times in (before, after) if times) for product in count}
        result["limit"] = limit.steps_per_second(count, seconds)
        result["products"] = [product._asdict() | {"per_step": n, "seconds": seconds[product]}
                              for product, n in count.items()]  # fmt: skip
        best[LIMIT] = {"steps_per_second": result["limit"]}
    values = [(aim, aim.value(best)) for aim in task.aims]
    result["aims"] = [{"name": aim.name, "value": value, "unit": aim.unit, "floor": aim.floor, "goal": aim.goal,
                       "verdict": aim.verdict(value)} for aim, value in values]  # fmt: skip
    for aim in result["aims"]:
        print(
            "  " + f"{aim['name']}: {amount(aim['value'], aim['unit'])} {aim['verdict']}".replace("  ", " "), flush=True
        )
    return result | {"measurements": found}


def interleaved(playing: list[Entrant], rounds: int) -> dict[str, list[dict]]:
    """Measurements by name, everyone's first before anyone's second. Who fails is out, with an error at its end."""
    found: dict[str, list[dict]] = {entrant.name: [] for entrant in playing}
    for number in range(rounds):
        for entrant in playing:
            result = measure(entrant)
            found[entrant.name].append(result)
            shown = [f"{name} {value:,.1f}" for name, value in result.items() if isinstance(value, float)]
            print(f"  {entrant.name}: {result.get('error') or ', '.join(shown)}", flush=True)
        playing = [entrant for entrant in playing if "error" not in found[entrant.name][-1]]
        if number == 0:
            playing = in_front(playing, found)
    return found


def measure(entrant: Entrant) -> dict[str, Any]:
    load = {"load_before": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
    command = [entrant.python, str(SCRIPTS / entrant.script), json.dumps(entrant.job)]
    # Programs that thorndike kept from an earlier process would hide what compiling takes.
    return reporting.tried(command, {"THORNDIKE_NO_CACHE": "1"} | entrant.environment) | load


def in_front(playing: list[Entrant], found: dict[str, list[dict]]) -> list[Entrant]:
    """Each library in the configuration that came first in the first round."""
    best: dict[str, Entrant] = {}
    for entrant in playing:
        other = best.setdefault(entrant.library, entrant)
        if standing(found[entrant.name]) > standing(found[other.name]):
            best[entrant.library] = entrant
    return [entrant for entrant in playing if best[entrant.library] is entrant]


def standing(measurements: list[dict]) -> tuple[int, float]:
    """What a configuration is chosen by: rounds played, and the rate."""
    rates = [measurement["steps_per_second"] for measurement in measurements if "steps_per_second" in measurement]
    return len(rates), statistics.median(rates) if rates else 0.0


def products(task: Task, pythons: dict[str, str]) -> dict[limit.Product, float]:
    """Seconds of each matrix product of a task: the best of JAX, NumPy and torch, where one could be measured."""
    asked = list(limit.per_step(task.algorithm, task.settings, *task.spaces))
    times: list[list[float]] = []
    for python in (sys.executable, pythons[SB3]):
        command = [python, str(SCRIPTS / "run_products.py"), json.dumps({"products": asked})]
        found = reporting.tried(command, {})
        if "error" in found:
            print(f"  matrix products: {found['error']}", flush=True)
        else:
            times += found.values()
    return {product: min(seconds) for product, seconds in zip(asked, zip(*times, strict=True), strict=False)}


def leaders(found: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """The measurements of each library's best configuration: the one that played all rounds."""
    best: dict[str, list[dict]] = {}
    for name in sorted(found, key=lambda name: standing(found[name])):
        whole = [measurement for measurement in found[name] if "error" not in measurement]
        if whole:
            best[name.partition(",")[0]] = whole
    in_order = dict.fromkeys(name.partition(",")[0] for name in found)
    return {library: best[library] for library in in_order if library in best}


def medians(measurements: list[dict]) -> dict[str, float]:
    return {what: statistics.median(each[what] for each in measurements) for what in measurements[0]}


def packages(python: str) -> dict[str, str]:
    """The versions of what an entrant's numbers depend on."""
    names = ["thorndike", "stable-baselines3", "sbx-rl", "rejax", "gymnax", "jax", "jaxlib", "flax", "torch", "numpy",
             "gymnasium", "envpool", "mujoco"]  # fmt: skip
    code = f"""
import json, platform
from importlib import metadata
found = {{"python": platform.python_version()}}
for name in {names!r}:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
    try:
        return json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return {}


def record(name: str, result: dict[str, Any]) -> None:
    """Put a result in the place of the one it repeats, and write all of them."""
    path = reporting.RESULTS / f"{name}.json"
    results = json.loads(path.read_text())["results"] if path.exists() else []
    by_name = {other["task"]: other for other in results} | {result["task"]: result}
    write(name, [by_name[task.name] for task in TASKS if task.name in by_name])


def write(name: str, results: list[dict[str, Any]]) -> None:
    reporting.write(name, {"results": results}, report(name, results))
    (reporting.RESULTS / f"{name}.svg").write_text(chart.bars(groups(results)))


def groups(results: list[dict[str, Any]]) -> list[tuple[str, list[chart.Bar]]]:
    """The chart's: of every task that has rates, each library with its best configuration, ours first."""
    found = []
    for result in results:
        rates = {library: [measurement[rate_of(result)] for measurement in measurements]
                 for library, measurements in leaders(result["measurements"]).items()
                 if rate_of(result) in measurements[0]}  # fmt: skip
        bars = [chart.Bar(library, statistics.median(x), min(x), max(x)) for library, x in rates.items()]
        if OURS in rates:
            found.append((result["title"], sorted(bars, key=lambda bar: bar.name != OURS)))
    return found


def rate_of(result: dict[str, Any]) -> str:
    """The clock on the wall counts where several seeds run side by side."""
    return "wall_rate" if result["task"] == "dqn-seeds" else "steps_per_second"


def report(name: str, results: list[dict[str, Any]]) -> str:
    """The page that is committed."""
    header = ["task", "thorndike against", "reached", "floor", "goal", ""]
    rows = []
    for result in results:
        for aim in result["aims"]:
            amounts = [amount(aim[key], aim["unit"]) for key in ("value", "floor", "goal")]
            wanted = [f"at most {text}" if aim["unit"] == "s" else text for text in amounts[1:]]
            rows.append(
                [result["task"], aim["name"], f"**{amounts[0]}**" if amounts[0] else "", *wanted, aim["verdict"]]
            )
    sections = "\n\n".join(section(result) for result in results)
    return SPEED.format(name=name, summary=reporting.table(header, rows), sections=sections, ran_on=ran_on(results))


def section(result: dict[str, Any]) -> str:
    """A task's own part of the page."""
    keys = {rate_of(result): "steps/s", "compile": "compiling, s"}
    if result["task"] == "cold-start":
        keys = {"first": "first, s", "again": "again, s"}
    header = ["", *(f"{title}: median (lowest to highest)" for title in keys.values()), "runs"]
    rows = []
    for name, measurements in result["measurements"].items():
        errors = [measurement["error"] for measurement in measurements if "error" in measurement]
        whole = [measurement for measurement in measurements if "error" not in measurement]
        cells = [spread([measurement[key] for measurement in whole]) for key in keys]
        rows.append([name, *cells, f"{len(whole)}" + "".join(f"; failed: {error}" for error in errors)])
    if "limit" in result:
        rows.append([LIMIT, f"{result['limit']:,.0f}", "", ""])
    notes = "".join(f"\n- {note}." for task in TASKS if task.name == result["task"] for note in task.notes)
    return f"## {result['title']}\n\n{reporting.table(header, rows)}" + (f"\n{notes}" if notes else "")


def spread(values: list[float]) -> str:
    if not any(values):
        return ""
    digits = 0 if min(values) > 50 else 1
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def amount(value: float | None, unit: str) -> str:
    """What was reached or is wanted, in words."""
    if value is None:
        return ""
    return f"{value:.0f} %" if unit == "%" else f"{value:.3g} s" if unit == "s" else f"{value:.3g}x"


def ran_on(results: list[dict[str, Any]]) -> str:
    """On what machine, when, how often and with which versions; once for all tasks where that is the same."""
    found: dict[str, list[str]] = {}
    for result in results:
        lines = [f"{result['machine']}; {result['date']}; rounds: {result['rounds']}"]
        lines += [f"  - {library}: {', '.join(f'{package} {version}' for package, version in versions.items())}"
                  for library, versions in result["versions"].items()]  # fmt: skip
        found.setdefault("\n".join(lines), []).append(result["task"])
    if len(found) == 1:
        return f"- {next(iter(found))}"
    return "\n".join(f"- {', '.join(names)}: {text}" for text, names in found.items())


SPEED = """# Speed

Steps of the environment per second of training, acting and learning together, with the same hyper-parameters, network
and number of updates. Every measurement is a process of its own, entrants take turns, the median counts; compiling is
apart (nothing kept from earlier runs). Every library counts with its best configuration, chosen in the first round;
"XLA threads 1" is what the variable `NPROC=1` does (docs/performance.md). The floating-point limit is the rate that the
matrix products of acting and learning alone would leave, at the pace that the best of JAX, NumPy and torch reaches for
these very shapes in the same session (benchmarks/limit.py). Made by `make speed`.

![Steps per second, the longest bar of each task being the fastest]({name}.svg)

{summary}

{sections}

## Run on

{ran_on}
"""


if __name__ == "__main__":
    main()
