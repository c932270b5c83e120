"""One measurement of thorndike, through `td.train`, as a user calls it: prints a line of JSON."""

from __future__ import annotations

import json
import sys

import thorndike as td


def main(job: dict) -> None:
    run = td.train(
        build(job["algorithm"], dict(job["settings"])),
        job["ours"],
        job["steps"],
        seeds=job.get("seeds", 1),
        evaluate_every=0,
        run_dir=None,
        quiet=True,
    )
    seconds = run.summary["seconds"]
    # Beside what is reported, a check upon it: everything but compiling counts here.
    wall_rate = job.get("seeds", 1) * run.summary["steps"] / (seconds["total"] - seconds["compile"])
    result = {
        "steps_per_second": run.summary["steps_per_second"],
        "compile": seconds["compile"],
        "wall_rate": wall_rate,
    }
    print(json.dumps(result))


def build(algorithm: str, settings: dict) -> td.PPO | td.DQN:
    """The task's settings as an algorithm."""
    sizes = tuple(settings.pop("sizes"))
    if algorithm == "ppo":
        network = td.MLP(sizes, activation="tanh", initialization="orthogonal")
        return td.PPO(network=network, critic_network=network, **settings)
    memory = td.Replay(capacity=settings.pop("capacity"), batch_size=settings.pop("batch_size"))
    return td.DQN(
        network=td.MLP(sizes, activation="relu"),
        memory=memory,
        double=False,
        loss="huber",
        learning_rate_end=1.0,
        **settings,
    )


main(json.loads(sys.argv[1]))
