"""DQN in CartPole with slow steps by worker processes; prints JSON."""

from __future__ import annotations

import functools
import json
import sys
import time

import numpy as np
from jax import random
from slow import Slow

import thorndike as td
from thorndike import trainer


def main(job: dict) -> dict:
    """Steps a second of random actions, and of a run as users have it; and what was learned."""
    trainer.configure()
    make = functools.partial(Slow, job["seconds"])
    random_rate = rate_of_random_actions(make, job)
    algorithm = td.DQN(
        network=td.MLP((64, 64)),
        num_environments=job["copies"],
        rollout_length=job["rollout_length"],
        updates_per_rollout=job["copies"] * job["rollout_length"],
        target_period=job["target_period"],
        memory=td.Prioritized(20_000, job["batch_size"], window=5),
    )
    run = td.train(
        algorithm, make, job["steps"], seed=job["seed"], workers=job["workers"], overlap=job["overlap"], run_dir=None,
        quiet=True, evaluate_every=job["steps"], final_episodes=20,
    )  # fmt: skip
    seconds = run.summary["seconds"]
    return {
        "random_per_second": random_rate,
        "steps_per_second": run.summary["steps_per_second"],
        "share": run.summary["steps_per_second"] / random_rate,
        "compile": seconds["compile"],
        "train": seconds["train"],
        "training_return": run.summary["training"]["mean"],
        "evaluation_return": run.summary["evaluation"]["mean"],
    }


def rate_of_random_actions(make, job: dict) -> float:
    """Steps a second of all copies, moved by as many workers at random and learned from by nobody."""
    environment = td.make(make, job["copies"], workers=job["workers"])
    environment.reset(random.key(0))
    generator = np.random.default_rng(0)
    actions = generator.integers(2, size=(job["random_steps"] + 10, job["copies"])).astype(np.int32)
    for action in actions[:10]:
        environment.step((), action)
    began = time.perf_counter()
    for action in actions[10:]:
        environment.step((), action)
    took = time.perf_counter() - began
    environment.close()
    return job["random_steps"] * job["copies"] / took


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
