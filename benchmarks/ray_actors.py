"""What rollouts by Ray's actors cost and give: PPO on HalfCheetah-v5, with its recorded settings.

    python benchmarks/ray_actors.py                      without Ray, and by 1, 2 and 3 actors on this machine
    python benchmarks/ray_actors.py --actors 4 8         by so many, beside the run without
    python benchmarks/ray_actors.py --address HOST:PORT  by actors of a cluster
    python benchmarks/ray_actors.py --learn --seed 0     one actor for each core, through all 1,000,000 steps

Writes benchmarks/results/ray.{json,md}; rows that are not run again stay as they are. Each row is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import reporting

ENVIRONMENT, STEPS = "gymnasium:HalfCheetah-v5", 40_960  # 20 rollouts of 2,048
LEARNED_IN, LEARNED_STEPS = "envpool:HalfCheetah-v5", 1_000_000  # as the row of `make learning-long`
FAR = 100  # actors of the estimate


def main() -> None:
    arguments = parse()
    if arguments.measure:
        job = json.loads(arguments.measure)
        print(json.dumps(learned(**job) if job.pop("learn") else measured(**job)))
        return
    where: dict[str, Any] = {"address": arguments.address, "seed": arguments.seed, "learn": arguments.learn}
    jobs = [where | {"actors": actors} for actors in ([None] if arguments.learn else [0, *arguments.actors])]
    for job in jobs:
        what = "a whole run" if arguments.learn else f"{job['actors']} actors"
        print(f"{what} ...", flush=True)
        result = reporting.measured([sys.executable, __file__, "--measure", json.dumps(job)])
        print(f"  {result['steps_per_second']:,.0f} steps/s", flush=True)
        record("learned" if arguments.learn else "measured", result)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--address", default="", help="of a Ray that is there already")
    parser.add_argument("--learn", action="store_true", help="the learning result instead of the costs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(actors: int, address: str, seed: int) -> dict[str, Any]:
    """Rates of a short run, and what each of its rollouts took; 0 actors: without Ray."""
    import thorndike as td

    costs: dict[str, list[float]] = {
        name: [] for name in ("policy_bytes", "put", "trajectory_bytes", "unroll", "fetch")
    }
    if actors:
        watch(costs)
    last = []
    run = td.train(
        "ppo", ENVIRONMENT, STEPS, seed=seed, run_dir=None, quiet=True, evaluate_every=0, on_chunk=last.append,
        **by(actors, address),
    )  # fmt: skip
    seconds, algorithm = last[-1].seconds, run.configuration.algorithm
    timed = max(1, last[-1].iterations - 1)  # the first one compiles
    return {
        "actors": actors,
        "environment": ENVIRONMENT,
        "steps": algorithm.rollout_length * algorithm.num_environments,
        "steps_per_second": last[-1].steps_per_second,
        "acting": seconds["acting"] / timed,
        "learning": seconds["learning"] / timed,
        **{name: statistics.median(values[1:]) for name, values in costs.items() if values},
        **told(),
    }


def watch(costs: dict[str, list[float]]) -> None:
    """Note what crosses, and how long that takes, at every rollout from now on."""
    import jax

    from thorndike.unrolls.ray import RayEnvironment, _library

    ray = _library(True)

    act, put = RayEnvironment.unroll, ray.put
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731

    def timed_put(value: Any) -> Any:
        began = time.perf_counter()
        reference = put(value)
        if isinstance(value, list):  # the leaves of a policy
            costs["put"].append(time.perf_counter() - began)
            costs["policy_bytes"].append(size(value))
        return reference

    def timed_act(self: Any, *given: Any, **more: Any) -> Any:
        began = time.perf_counter()
        actor, trajectory = act(self, *given, **more)
        costs["unroll"].append(time.perf_counter() - began)
        costs["trajectory_bytes"].append(size(trajectory))
        # Fetched once more from where it was made: a copy through the object store, without the acting.
        began = time.perf_counter()
        ray.get(put(trajectory))
        jax.tree.map(lambda leaf: leaf.copy(), trajectory)
        costs["fetch"].append(time.perf_counter() - began)
        return actor, trajectory

    RayEnvironment.unroll, ray.put = timed_act, timed_put  # type: ignore[method-assign]


def learned(actors: int | None, address: str, seed: int) -> dict[str, Any]:
    """The learning result: the recorded settings to their end."""
    import thorndike as td

    run = td.train(
        "ppo", LEARNED_IN, LEARNED_STEPS, seed=seed, run_dir=None, quiet=True, ray=address or True, actors=actors
    )
    return run.summary | {"actors": run.configuration.actors, "seed": seed, "environment": LEARNED_IN} | told()


def by(actors: int, address: str) -> dict[str, Any]:
    return {"ray": address or True, "actors": actors} if actors else {}


def told() -> dict[str, Any]:
    from thorndike.runs.configuration import versions

    return {"machine": reporting.machine(), "versions": versions(), "date": time.strftime("%Y-%m-%d")}


def record(kind: str, result: dict[str, Any]) -> None:
    """Put a result in the place of the one it repeats, and write all of them."""
    path = reporting.RESULTS / "ray.json"
    results = json.loads(path.read_text()) if path.exists() else {"measured": [], "learned": []}
    key = "actors" if kind == "measured" else "seed"
    kept = [other for other in results[kind] if other[key] != result[key]]
    results[kind] = sorted([*kept, result], key=lambda one: one[key])
    reporting.write("ray", results, report(results))


def report(results: dict[str, Any]) -> str:
    """The page that is committed."""
    header = ["actors", "steps/s", "acting, ms a rollout", "learning, ms a rollout", "the learner learns",
              "policy", "put, ms", "trajectory", "fetch, ms"]  # fmt: skip
    rows = []
    for one in results["measured"]:
        share = one["learning"] / (one["acting"] + one["learning"])
        row = [str(one["actors"] or "none, here"), f"{one['steps_per_second']:,.0f}", ms(one["acting"])]
        row += [ms(one["learning"]), f"{share:.0%} of the time"]
        if one["actors"]:
            row += [kb(one["policy_bytes"]), ms(one["put"]), kb(one["trajectory_bytes"]), ms(one["fetch"])]
        rows.append(row + [""] * (len(header) - len(row)))
    seeds = [
        f"- seed {one['seed']}, {one['actors']} actors: greedy return {one['evaluation']['mean']:.1f}, last 100 "
        f"episodes of training {one['training']['mean']:.1f}, {one['steps_per_second']:,.0f} steps/s, "
        f"{one['seconds']['total']:.0f} s"
        for one in results["learned"]
    ]
    all_of_them = [*results["measured"], *results["learned"]]
    ran_on = dict.fromkeys(f"- {r['machine']}; jax {r['versions']['jax']}; {r['date']}" for r in all_of_them)
    return PAGE.format(
        table=reporting.table(header, rows), estimate=estimate(results["measured"]), machines="\n".join(ran_on),
        learned="\n".join(seeds) or "Not run.", environment=LEARNED_IN, steps=f"{LEARNED_STEPS:,}",
    )  # fmt: skip


def estimate(results: list[dict[str, Any]]) -> str:
    """What FAR actors would give, each with the copies that all of them share here, by the costs of one."""
    one = next((result for result in results if result["actors"] == 1), None)
    if one is None:
        return "There is no row of one actor to reckon from."
    bytes_in = one["trajectory_bytes"] * FAR
    taken = one["fetch"] * FAR
    learning = one["learning"] * FAR
    total = one["acting"] + taken + learning
    return (
        f"{FAR} actors with {one['steps']:,} steps each would bring {bytes_in / 1e6:,.0f} MB a rollout. Acting takes "
        f"as long as with one ({ms(one['acting'])} ms), fetching {FAR} times as long ({ms(taken)} ms), and so does "
        f"learning, by one process ({ms(learning)} ms): {one['steps'] * FAR / total:,.0f} steps/s, of which the "
        f"learner would spend {learning / total:.0%} learning. What is left to gain by more actors ends where learning "
        f"and fetching, {(one['learning'] + one['fetch']) * 1e3:,.1f} ms for {one['steps']:,} steps, take all "
        f"the time: at {one['steps'] / (one['learning'] + one['fetch']):,.0f} steps/s. An environment whose steps take "
        "longer moves that end further away."
    )


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f}"


def kb(size: float) -> str:
    return f"{size / 1e3:,.0f} kB"


PAGE = """# Rollouts by Ray's actors

PPO on Gymnasium's HalfCheetah-v5 with its recorded settings: eight copies, rollouts of 256 steps in each, shared out
among the actors; learning is in one process. `put` is sending the policy, once a rollout; `fetch` is a trajectory
through Ray's object store and its copy. Medians over the rollouts of a short run; the rest of acting is the
environment, the calls and the waiting for the slowest actor. Made by `make ray`.

{table}

## On paper: a hundred actors

{estimate}

## Learning

{environment}, {steps} steps, one actor for each core (`make ray ARGS=--learn`); what is published, and the run without
Ray, stand in [learning.md](learning.md).

{learned}

Run on:

{machines}
"""


if __name__ == "__main__":
    main()
