"""Rerun the learning results: recorded settings against published numbers, over several seeds.

    python benchmarks/learning.py                        every row, seeds 0 to 2 and, tuned on by nobody, 100 to 102
    python benchmarks/learning.py --rows ppo             those rows whose name holds "ppo"
    python benchmarks/learning.py --gymnasium            the CartPole rows on Gymnasium's own environment
    python benchmarks/learning.py --toy-text             toy text against its exact optimum
    python benchmarks/learning.py --families             the algorithms that are children of others, on small tasks
    python benchmarks/learning.py --control --seed 0     continuous control, as `make learning-long`: many hours
    python benchmarks/learning.py --worlds --seed 0      a game and a car, as in docs/worlds.md: most of an hour

Writes benchmarks/results/learning.{json,md}; rows that are not run again stay as they are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from typing import Any

import reporting

FEWEST = 5  # seeds for an interval


@dataclasses.dataclass(frozen=True)
class Row:
    """One result to reach. The gate is for the mean over seeds of the final greedy evaluation."""

    algorithm: str
    environment: str
    steps: int
    gate: float | None  # None: only reported
    source: str  # whose number, and by which protocol
    protocol: str  # "training" (last 100 training episodes) or "evaluation" (greedy, at the end)
    published: tuple[float, float, int] | None  # mean, std over seeds, seeds; None where it is a single run

    @property
    def name(self) -> str:
        return f"{self.algorithm} {self.environment}"


ROWS = [
    Row("dqn", "CartPole-v1", 50_000, 475, "500 ± 0, 5 seeds, RL Zoo's settings, greedy", "evaluation", (500, 0, 5)),
    Row("ppo", "CartPole-v1", 500_000, 475, "490.0 ± 6.1, 3 seeds, CleanRL, training", "training", (490.0, 6.1, 3)),
    Row("ppo", "Acrobot-v1", 500_000, -95, "-86.4 ± 1.3, 3 seeds, CleanRL, training", "training", (-86.4, 1.3, 3)),
    Row("dqn", "MountainCar-v0", 200_000, -110, "-110 counts as solved", "evaluation", None),
    Row("ppo", "MountainCar-v0", 1_000_000, -110, "-110 counts as solved", "evaluation", None),
    Row("reinforce", "CartPole-v1", 500_000, 400, "475 counts as solved", "evaluation", None),
    Row("ppo", "Pendulum-v1", 300_000, -300, "-172, 1 run, RL Zoo with gSDE, 100k steps, greedy", "evaluation", None),
]
TOY_TEXT = [  # seconds each; Taxi without its mask
    Row(algorithm, environment, length, gate, f"{optimum} is the exact optimum", "evaluation", None)
    for environment, gate, optimum, steps in (
        ("FrozenLake-v1", 0.70, 0.744, {"dqn": 100_000, "ppo": 200_000}),
        ("FrozenLake8x8-v1", 0.85, 0.913, {"dqn": 200_000, "ppo": 1_000_000}),
        ("CliffWalking-v1", -14, -13, {"dqn": 100_000, "ppo": 800_000}),
        ("CliffWalkingSlippery-v1", -67, -64.7, {"dqn": 200_000, "ppo": 600_000}),
        ("Taxi-v4", 7.7, 7.93, {"dqn": 200_000, "ppo": 600_000}),
        ("Blackjack-v1", -0.1, -0.043, {"dqn": 200_000, "ppo": 400_000}),
    )
    for algorithm, length in steps.items()
]
FAMILIES = [  # half a minute to two each; published are averages of training
    Row("a2c", "CartPole-v1", 200_000, 475, "496.7, 4 seeds", "evaluation", None),
    Row("a2c", "Acrobot-v1", 300_000, -95, "-84.0, 4 seeds", "evaluation", None),
    Row("reinforce", "Acrobot-v1", 1_000_000, -100, "-100 counts as solved", "evaluation", None),
    Row("discretesac", "CartPole-v1", 200_000, 400, "406, 4 seeds", "evaluation", None),
    Row("discretesac", "Acrobot-v1", 300_000, -100, "-92.6, 4 seeds", "evaluation", None),
    Row("crossq", "Pendulum-v1", 10_000, -170, "-145.7, 4 seeds", "evaluation", None),
    *(
        Row(algorithm, environment, steps, gate, what, "evaluation", None)
        for environment, gate, what, lengths in (
            (
                "CartPole-v1", 475, "475 counts as solved",
                {"c51": 50_000, "qrdqn": 50_000, "iqn": 50_000, "rainbow": 50_000, "pqn": 300_000, "trpo": 100_000,
                 "impala": 200_000},
            ),
            (
                "Acrobot-v1", -100, "-100 counts as solved",
                {"c51": 50_000, "qrdqn": 50_000, "iqn": 50_000, "rainbow": 50_000, "pqn": 300_000, "trpo": 300_000,
                 "impala": 300_000},
            ),
            (
                "Pendulum-v1", -200, "",
                {"trpo": 200_000, "tqc": 10_000, "redq": 10_000, "droq": 5_000, "fasttd3": 150_000},
            ),
        )
        for algorithm, steps in lengths.items()
    ),
]  # fmt: skip
CONTROL = [  # minutes each, those of HalfCheetah and LunarLander an hour and more
    Row("sac", "Pendulum-v1", 20_000, -200, "-157, 1 run, RL Zoo, greedy", "evaluation", None),
    Row("td3", "Pendulum-v1", 20_000, -200, "-152, 1 run, RL Zoo, greedy", "evaluation", None),
    Row("ddpg", "Pendulum-v1", 20_000, -200, "", "evaluation", None),
    Row("sac", "MountainCarContinuous-v0", 50_000, None, "94.5, 1 run, RL Zoo with gSDE, greedy", "evaluation", None),
    Row("td3", "envpool:HalfCheetah-v5", 50_000, 2600, "3313 ± 457, 10 seeds, authors, greedy", "evaluation",
        (3313, 457, 10)),
    Row("sac", "gymnasium:HalfCheetah-v5", 100_000, 5000, "6156 ± 738, 10 seeds (v4), greedy", "evaluation",
        (6156, 738, 10)),
    *(
        Row(algorithm, f"{prefix}:InvertedDoublePendulum-v5", steps, 9_100, "9,360 at most", "evaluation", None)
        for algorithm, prefix, steps in (
            ("ddpg", "gymnasium", 30_000), ("tqc", "gymnasium", 15_000), ("redq", "gymnasium", 10_000),
            ("fasttd3", "envpool", 200_000),
        )
    ),
    Row("droq", "gymnasium:HalfCheetah-v5", 16_700, 3300, "4271 ± 571, 10 seeds (v4), greedy", "evaluation",
        (4271, 571, 10)),
    Row("crossq", "envpool:LunarLanderContinuous-v3", 250_000, 200, "268.9, 4 seeds, 300k, training", "evaluation",
        None),
    Row("ppo", "envpool:HalfCheetah-v5", 1_000_000, 1200, "1443 ± 46, 3 seeds, CleanRL (v4), training", "training",
        (1443, 46, 3)),
]  # fmt: skip
WORLDS = [  # docs/worlds.md
    Row("ppo", "LunarLander-v3", 1_000_000, 200, "242, 1 run, RL Zoo, greedy", "evaluation", None),
    Row("dqn", "envpool:LunarLander-v3", 300_000, 200, "265.9, 4 seeds, with priorities", "evaluation", None),
    Row("pqn", "gymnax:Breakout-MinAtar", 10_000_000, None, "70 ± 0.7 after 100M, 30 seeds", "evaluation", None),
    Row("dqn", "highway-fast-v0", 20_000, 17, "8.6 at random, 12.7 idle, 100 episodes", "evaluation", None),
]
ON_GYMNASIUM = [
    dataclasses.replace(row, environment=f"gymnasium:{row.environment}")
    for row in ROWS
    if row.environment == "CartPole-v1"
]


def main() -> None:
    arguments = parse()
    if arguments.measure:
        print(json.dumps(train(**json.loads(arguments.measure))))
        return
    rows = [row for row in arguments.table if arguments.rows in row.name]
    if not rows:
        sys.exit(f"no row is named '{arguments.rows}': {', '.join(row.name for row in arguments.table)}")
    for first in arguments.seed:
        for row in rows:
            print(f"{row.name}, {row.steps:,} steps, seeds {first} to {first + arguments.seeds - 1} ...", flush=True)
            result = run(row, first, arguments.seeds)
            record(result)
            print(
                f"  {spread(result['evaluation'])} in {result['seconds']['total']:.0f} s: {verdict(result)}", flush=True
            )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="only rows whose name holds this")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 100], help="first seeds, one for each repetition")
    for name, table, what in (
        ("--gymnasium", ON_GYMNASIUM, "the CartPole rows, on Gymnasium's own environment"),
        ("--toy-text", TOY_TEXT, "the rows of toy text, whose optimum is exact"),
        ("--families", FAMILIES, "the rows of the other algorithms, which train quickly"),
        ("--control", CONTROL, "the rows of continuous control, which take longer"),
        ("--worlds", WORLDS, "the rows of docs/worlds.md that no other table has"),
    ):
        parser.add_argument(name, dest="table", action="store_const", const=table, default=ROWS, help=what)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(row: Row, seed: int, seeds: int) -> dict[str, Any]:
    """Train a row's seeds in a process of their own."""
    job = {"algorithm": row.algorithm, "environment": row.environment, "steps": row.steps, "seed": seed, "seeds": seeds}
    summary = reporting.measured([sys.executable, __file__, "--measure", json.dumps(job)])
    return dataclasses.asdict(row) | summary


def train(algorithm: str, environment: str, steps: int, seed: int, seeds: int) -> dict[str, Any]:
    """What the process of one row does: its recorded settings, as `thorndike train` takes them."""
    import thorndike as td
    from thorndike.runs.configuration import versions

    run = td.train(algorithm, environment, steps, seed=seed, seeds=seeds, run_dir=None, quiet=True)
    where = {"machine": reporting.machine(), "versions": versions(), "date": time.strftime("%Y-%m-%d")}
    return run.summary | {"first_seed": seed} | where


def record(result: dict[str, Any]) -> None:
    """Put a result in the place of the one it repeats, and write all of them."""
    path = reporting.RESULTS / "learning.json"
    results = json.loads(path.read_text()) if path.exists() else []
    same = ("algorithm", "environment", "first_seed")
    results = [other for other in results if any(other[key] != result[key] for key in same)] + [result]
    order = [row.name for row in (*ROWS, *ON_GYMNASIUM, *TOY_TEXT, *FAMILIES, *CONTROL, *WORLDS)]
    results.sort(key=lambda r: (r["first_seed"], order.index(f"{r['algorithm']} {r['environment']}")))
    reporting.write("learning", results, report(results))


def parity(result: dict[str, Any]) -> str:
    """How ours stands to the published mean, by its own protocol: allowed is 2.5 standard errors of the difference.

    s is the larger of the two standard deviations over seeds; 4 s above is suspicious too, a bug in rewards perhaps.
    """
    ours = result[result["protocol"]]
    if result["published"] is None or ours["std"] is None:
        return ""
    mean, std, seeds = result["published"]
    s = max(std, ours["std"])
    if ours["mean"] < mean - 2.5 * s * math.sqrt(1 / seeds + 1 / len(ours["per_seed"])):
        return "below what is published"
    return "above what is published: check" if ours["mean"] > mean + 4 * s > mean else "as published"


def verdict(result: dict[str, Any]) -> str:
    """Whether the mean over seeds reaches the gate."""
    gate = result["gate"]
    if gate is None:
        return "reported"
    return f"{gate:g}: {'passed' if result['evaluation']['mean'] >= gate else '**failed**'}"


def spread(statistics: dict[str, Any]) -> str:
    """Mean ± standard deviation over seeds."""
    std = "" if statistics["std"] is None else f" ± {statistics['std']:.1f}"
    return f"{statistics['mean']:.1f}{std}"


def report(results: list[dict[str, Any]]) -> str:
    """The table that is committed."""
    header = ["algorithm", "environment", "steps", "seeds", "greedy return, mean ± std", "IQM [95 % interval]",
              "per seed", "gate", "last 100 training episodes", "published", "", "steps/s", "seconds"]  # fmt: skip
    rows = []
    for result in results:
        greedy, first = result["evaluation"], result["first_seed"]
        interval = ""
        if greedy["iqm"] is not None and len(greedy["per_seed"]) >= FEWEST:
            interval = f"{greedy['iqm']:.1f} [{greedy['ci95'][0]:.1f}, {greedy['ci95'][1]:.1f}]"
        rows.append(
            [
                result["algorithm"],
                result["environment"],
                f"{result['steps']:,}",
                f"{first} to {first + result['seeds'] - 1}",
                spread(greedy),
                interval,
                ", ".join(f"{mean:.1f}" for mean in greedy["per_seed"]),
                verdict(result),
                spread(result["training"]),
                result["source"],
                parity(result),
                f"{result['steps_per_second']:,.0f}",
                f"{result['seconds']['total']:.0f}",
            ]
        )
    ran_on = dict.fromkeys(f"- {r['machine']}; jax {r['versions']['jax']}; {r['date']}" for r in results)
    return LEARNING.format(table=reporting.table(header, rows), machines="\n".join(ran_on))


LEARNING = """# Learning

Recorded settings, as `thorndike train ALGORITHM ENVIRONMENT` takes them. Greedy return: 100 episodes of the last policy
of each seed (on the host fewer, as many as the run affords), without exploration, on fresh environments; std, IQM
(interquartile mean) and the bootstrap interval are over seeds, the last two from five seeds on. The gate is for the
mean of the greedy return. Where a number is published over several seeds, ours is compared with it by the same
protocol. Seconds are of all seeds together, compilation included. Made by `make learning`.

{table}

Run on:

{machines}
"""


if __name__ == "__main__":
    main()
