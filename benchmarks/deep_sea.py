"""Bootstrapped DQN and DQN in Deep Sea at all of bsuite's sizes, by bsuite's own measure.

    python benchmarks/deep_sea.py                              all 21 sizes from 10 to 50, one seed: some hours
    python benchmarks/deep_sea.py --sizes 10 20 --seeds 3      these sizes, three seeds
    python benchmarks/deep_sea.py --algorithms dqn --jobs 4    four runs side by side

A size is solved at the first episode, of every fiftieth, by which less than 80 % of all episodes so far have missed
the treasure, of at most 10,000 (Osband et al., 2020, "Behaviour suite for reinforcement learning"); a run ends there.
The settings are those of bsuite's agents, and what actions mean is drawn for each cell. Networks see the cell's number,
whose one-hot is looked up instead of multiplied. Writes benchmarks/results/deep_sea.{json,md}; runs that are not made
again stay.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import reporting

SIZES = range(10, 51, 2)
EPISODES = 10_000
EVERY = 50  # episodes between two looks
MISSED = 0.8  # share of the episodes below which a size is solved
MAPPING = 42  # the seed of what actions mean
ALGORITHMS = ("bootstrappeddqn", "dqn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--algorithms", nargs="*", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(dive(**json.loads(given.measure))))
        return
    jobs = [
        {"algorithm": algorithm, "size": size, "seed": seed, "episodes": given.episodes}
        for algorithm in given.algorithms
        for size in given.sizes
        for seed in range(given.seed, given.seed + given.seeds)
    ]
    with ThreadPoolExecutor(given.jobs) as pool:
        for done in as_completed([pool.submit(measured, job) for job in jobs]):
            record(done.result())


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """One run, in a process of its own."""
    return job | reporting.measured([sys.executable, __file__, "--measure", json.dumps(job)])


def record(result: dict[str, Any]) -> None:
    """Write a result down, beside what is known."""
    print(result, flush=True)
    path = reporting.RESULTS / "deep_sea.json"
    known = json.loads(path.read_text())["results"] if path.exists() else []
    same = ("algorithm", "size", "seed")
    kept = [other for other in known if any(other[name] != result[name] for name in same)]
    results = sorted([*kept, result], key=lambda row: tuple(row[name] for name in same))
    reporting.write("deep_sea", {"results": results}, page(results))


def dive(algorithm: str, size: int, seed: int, episodes: int) -> dict[str, Any]:
    """The episode at which a size was solved, None where it was not, and what it took."""
    import thorndike as td

    bsuite = {
        "network": td.MLP((50, 50), activation="relu"), "learning_rate_end": None, "double": False, "loss": "squared",
        "max_grad_norm": math.inf, "target_period": 4, "epsilon_start": 0.05, "epsilon_end": 0.05,
        "num_environments": 1, "rollout_length": 1, "updates_per_rollout": 1, "warmup_steps": 100,
        "memory": td.Replay(10_000, 32),
    }  # fmt: skip
    made = td.BootstrappedDQN() if algorithm == "bootstrappeddqn" else td.DQN(**bsuite)
    found: list[int] = []

    def look(chunk: Any) -> None:
        if chunk.row:
            found.append(treasures(chunk.row))
            if sum(found) > (1 - MISSED) * chunk.steps / size:
                chunk.stop()

    run = td.train(
        made, "DeepSea", episodes * size, seed=seed, metrics_every=EVERY * size, evaluate_every=0, run_dir=None,
        environment_arguments={"size": size, "seed": MAPPING, "one_hot": False}, quiet=True, on_chunk=look,
    )  # fmt: skip
    last = int(run.metrics["steps"].max()) // size
    return {
        "solved": last if sum(found) > (1 - MISSED) * last else None,
        "found": sum(found),
        "played": last,
        "seconds": run.summary["seconds"]["total"],
        "machine": reporting.machine(),
    }


def treasures(row: dict[str, float]) -> int:
    """How many episodes of a row have found the treasure: each return is 1 less for it, and costs at most 0.01."""
    return math.ceil(row["return_mean"] * row["episodes"] - 1e-3) if row["episodes"] else 0


def page(results: list[dict[str, Any]]) -> str:
    """The table, a line for each size."""
    columns = [name for name in ALGORITHMS if any(row["algorithm"] == name for row in results)]
    rows = []
    for size in sorted({row["size"] for row in results}):
        line = [str(size)]
        for name in columns:
            mine = [row for row in results if row["algorithm"] == name and row["size"] == size]
            episodes = [f"{row['solved']:,}" if row["solved"] else f"never ({row['found']} found)" for row in mine]
            line += [", ".join(episodes), f"{sum(row['seconds'] for row in mine):,.0f}"]
        rows.append(line)
    header = ["size", *(word for name in columns for word in (f"{name}, solved at episode, by seed", "seconds"))]
    said = (__doc__ or "").split("\n\n")
    shares = [f"{name}: {share(results, name)}" for name in columns]
    machines = "; ".join(dict.fromkeys(row["machine"] for row in results))
    table = reporting.table(header, rows)
    head = f"# Deep Sea\n\n{said[0]}\n\n{said[2].partition(' Writes ')[0]}\n\nSolved: {'; '.join(shares)}."
    return f"{head}\n\n{table}\n\nRun on {machines}.\n"


def share(results: list[dict[str, Any]], algorithm: str) -> str:
    mine = [row for row in results if row["algorithm"] == algorithm]
    return f"{sum(row['solved'] is not None for row in mine)} of {len(mine)} runs"


if __name__ == "__main__":
    main()
