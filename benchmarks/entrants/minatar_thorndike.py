"""thorndike on a game of MinAtar: prints a line of JSON."""

from __future__ import annotations

import json
import sys

import thorndike as td


def main(job: dict) -> None:
    settings = dict(job["settings"])
    sizes, steps = tuple(settings.pop("sizes")), job["steps"]
    start = {"activation": "relu", "initialization": "default"}
    network: td.MLP | td.CNN = td.MLP(sizes, **start)
    if job["network"] == "convolution":
        network = td.CNN(channels=(16,), kernels=(3,), strides=(1,), sizes=(128,), **start)
    if job["algorithm"] == "ppo":
        algorithm = td.PPO(network=network, **settings)
    else:
        memory = td.Replay(settings.pop("capacity"), settings.pop("batch_size"))
        fraction = min(1.0, settings.pop("exploration_steps") / steps)
        algorithm = td.DQN(
            network=network,
            memory=memory,
            exploration_fraction=fraction,
            learning_rate_end=None,
            double=False,
            **settings,
        )
    run = td.train(
        algorithm, f"gymnax:{job['game']}-MinAtar", steps, evaluate_every=0, run_dir=None, quiet=True
    )  # fmt: skip
    result = {
        "steps_per_second": run.summary["steps_per_second"],
        "compile": run.summary["seconds"]["compile"],
        "return": run.evaluate(episodes=100)["mean"],
        "training_return": run.summary["training"]["mean"],
    }
    print(json.dumps(result))


main(json.loads(sys.argv[1]))
