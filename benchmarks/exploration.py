"""What is found with rewards for what is new, and what without: Deep Sea of size 20.

    python benchmarks/exploration.py                  every row, five seeds: some minutes
    python benchmarks/exploration.py --rows ppo       those whose name holds "ppo"

At random the treasure is found once in a million episodes, and an episode that finds it earns 0.99. Returns are raw.
Writes benchmarks/results/exploration.{json,md,svg}.
"""

from __future__ import annotations

import argparse
import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import reporting

import thorndike as td
from thorndike.interface import plot

SIZE, SEEDS = 20, 5
PPO = td.PPO(
    network=td.MLP((64, 64)), num_environments=16, rollout_length=80, epochs=4, batch_size=320, learning_rate=1e-3,
    learning_rate_end=0.0,
)  # fmt: skip
DQN = td.DQN(
    network=td.MLP((64,), activation="relu"), epsilon_start=0.1, epsilon_end=0.0, learning_rate_end=None,
    memory=td.Replay(10_000, 128),
)  # fmt: skip


ROWS = {  # the algorithm, and for how many episodes
    "ppo": (PPO, 20_000),
    "ppo, RND": (dataclasses.replace(PPO, intrinsic=td.RND(learning_rate=3e-3)), 20_000),
    "ppo, counts": (dataclasses.replace(PPO, intrinsic=td.Counts()), 20_000),
    "dqn": (DQN, 5_000),
    "dqn, counts": (dataclasses.replace(DQN, intrinsic=td.Counts()), 5_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    results, drawn = [], []
    for name, (algorithm, episodes) in ROWS.items():
        if given.rows not in name:
            continue
        run = td.train(
            algorithm, "DeepSea", SIZE * episodes, seeds=given.seeds, evaluate_every=SIZE * episodes, run_dir=None,
            environment_arguments={"size": SIZE, "one_hot": False}, quiet=True,
        )  # fmt: skip
        results.append(
            {
                "name": name,
                "steps": SIZE * episodes,
                "found_at": [found_at(run, seed) for seed in run.configuration.chosen_seeds],
                "greedy": run.summary["evaluation"]["per_seed"],
                "training": run.summary["training"]["per_seed"],
                "seconds": run.summary["seconds"]["total"],
                "machine": reporting.machine(),
            }
        )
        print(results[-1], flush=True)
        facts = SimpleNamespace(environment=f"Deep Sea {SIZE}", algorithm_name=name, chosen_seeds=range(given.seeds))
        drawn.append(SimpleNamespace(configuration=facts, metrics=run.metrics))
        reporting.write("exploration", {"results": results}, page(results))
        plot.chart(drawn).save(reporting.RESULTS / "exploration.svg")


def found_at(run: Any, seed: int) -> int | None:
    """The steps by which half the episodes of a row of metrics have found the treasure; None where they never have."""
    mine = run.metrics["seed"] == seed
    good = run.metrics["steps"][mine][run.metrics["return_mean"][mine] > 0.5]
    return int(good.min()) if len(good) else None


def page(results: list[dict[str, Any]]) -> str:
    """The table, a line for each algorithm."""
    rows = []
    for row in results:
        found = [f"{steps / SIZE:,.0f}" if steps else "never" for steps in row["found_at"]]
        rows.append(
            [
                row["name"], f"{row['steps'] / SIZE:,.0f}", ", ".join(found),
                ", ".join(f"{value:.2f}" for value in row["greedy"]), f"{np.mean(row['greedy']):.2f}",
                f"{row['seconds']:,.0f}",
            ]
        )  # fmt: skip
    header = ["", "episodes", "half of them find it from episode, by seed", "greedy return, by seed", "mean", "seconds"]
    said = (__doc__ or "").split("\n\n")
    machines = "; ".join(dict.fromkeys(row["machine"] for row in results))
    table = reporting.table(header, rows)
    picture = "![returns of training episodes](exploration.svg)"
    return f"# Exploration\n\n{said[0]}\n\n{said[2].splitlines()[0]}\n\n{table}\n\n{picture}\n\nRun on {machines}.\n"


if __name__ == "__main__":
    main()
