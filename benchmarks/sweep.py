"""A sweep of three learning rates with four seeds each beside twelve seeds of one setting: DQN on CartPole-v1.

    python benchmarks/sweep.py                   a minute or two; and a sweep of five seeds, which have intervals
    python benchmarks/sweep.py --steps 5_000     shorter ones

Each is measured in a process of its own that compiles all it needs, three times in turn; the ratio is of the medians.
Writes benchmarks/results/sweep.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import reporting

RATES = [3e-4, 1e-3, 3e-3]
SWEEP, ONE, FIVE = "3 learning rates x 4 seeds", "12 seeds of one setting", "3 learning rates x 5 seeds"
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--measure", choices=(SWEEP, ONE, FIVE), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measured(given.measure, given.steps)))
        return
    os.environ["THORNDIKE_NO_CACHE"] = "1"  # what earlier processes have compiled would hide what compiling takes
    results: dict[str, list[dict[str, Any]]] = {SWEEP: [], ONE: [], FIVE: []}
    for name in [SWEEP, ONE] * ROUNDS + [FIVE]:
        command = [sys.executable, __file__, "--measure", name, "--steps", str(given.steps)]
        results[name].append(reporting.measured(command))
        print(f"{name}: {results[name][-1]['seconds']:.1f} s, {results[name][-1]['programs']} programs", flush=True)
    data = {"steps": given.steps, "machine": reporting.machine(), "results": results}
    text = page(data)
    print(text)
    reporting.write("sweep", data, text)


def measured(name: str, steps: int) -> dict[str, Any]:
    """What one of them takes, and how many programs it gives XLA to compile."""
    import jax

    import thorndike as td

    programs: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: programs.append(event) if event.endswith("backend_compile_duration") else None
    )
    with tempfile.TemporaryDirectory() as folder:
        place, table = Path(folder) / "measured", []
        began, worked = time.perf_counter(), time.process_time()
        if name == ONE:
            td.train(td.DQN(), "CartPole-v1", steps, seeds=12, run_dir=place, quiet=True)
        else:
            seeds = 4 if name == SWEEP else 5
            grid = {"learning_rate": RATES}
            sweep = td.sweep(td.DQN(), "CartPole-v1", steps, grid=grid, seeds=seeds, run_dir=place, quiet=True)
            table = sweep.lines[:-1]  # the last one names the folder
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
        return {"seconds": seconds, "cpu_seconds": cpu, "programs": len(programs), "table": table}


def page(data: dict[str, Any]) -> str:
    """What was measured, and the tables of the sweeps."""
    results = data["results"]
    seconds = {name: statistics.median(one["seconds"] for one in of) for name, of in results.items()}
    columns = {"seconds": "{:.1f}", "cpu_seconds": "{:.1f}", "programs": "{}"}
    rows = [
        [name, *(", ".join(how.format(one[column]) for one in of) for column, how in columns.items())]
        for name, of in results.items()
    ]
    table = reporting.table(["", "seconds", "CPU seconds of all cores", "programs compiled"], rows)
    printed = "\n\n".join("\n".join(results[name][0]["table"]) for name in (SWEEP, FIVE))
    said = (__doc__ or "").split("\n\n")
    ratio = f"The sweep takes {seconds[SWEEP] / seconds[ONE]:.2f} of the time of as many seeds of one setting."
    return (
        f"# Sweeps\n\n{said[0]} {data['steps']:,} steps a seed.\n\n{table}\n\n{ratio}\n\n```\n{printed}\n```\n\n"
        f"{said[2].splitlines()[0]}\n\nRun on {data['machine']}.\n"
    )


if __name__ == "__main__":
    main()
