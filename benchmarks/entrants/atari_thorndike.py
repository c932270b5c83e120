"""thorndike's DQN on an Atari game: prints a line of JSON."""

from __future__ import annotations

import json
import resource
import sys

import thorndike as td


def main(job: dict) -> None:
    algorithm = td.DQN(
        network=td.CNN(initialization="default"), learning_rate=job["learning_rate"], learning_rate_end=None,
        gamma=job["gamma"], double=False, loss="huber", max_grad_norm=job["max_grad_norm"], clip_rewards=True,
        target_period=job["target_period"] // job["train_every"], epsilon_end=job["epsilon_end"],
        exploration_fraction=job["exploration_fraction"], num_environments=1, rollout_length=job["train_every"],
        updates_per_rollout=1, warmup_steps=job["warmup_steps"],
        memory=td.FrameReplay(job["capacity"], job["batch_size"]),
    )  # fmt: skip
    run = td.train(
        algorithm, f"atari:{job['game']}", job["steps"], seed=job["seed"], evaluate_every=0, run_dir=None, quiet=True
    )
    seconds = run.summary["seconds"]
    result = {
        "steps_per_second": run.summary["steps"] / (seconds["total"] - seconds["compile"]),
        "compile": seconds["compile"],
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "training_return": run.summary["training"]["mean"],
        "evaluation_return": run.evaluate(episodes=10)["mean"],
    }
    print(json.dumps(result))


main(json.loads(sys.argv[1]))
