"""One measurement of thorndike, through `td.train`, as a user calls it: prints a line of JSON."""

from __future__ import annotations

import json
import sys

import thorndike as td


def main(job: dict) -> None:
    settings = job["settings"]
    seeds, warmup = job.get("seeds", 1), settings.get("warmup_steps", 0)
    run = td.train(
        build(job["algorithm"], dict(settings)),
        job["ours"],
        job["steps"] + warmup,
        seeds=seeds,
        evaluate_every=0,
        run_dir=None,
        quiet=True,
    )
    seconds = run.summary["seconds"]
    # Steps of the warm-up do not count, since nothing is learned in them; what they take does.
    result = {
        "steps_per_second": run.summary["steps_per_second"] - seeds * warmup / seconds["train"],
        "compile": seconds["compile"],
        # Beside what is reported, a check upon it: everything but compiling counts here.
        "wall_rate": seeds * (run.summary["steps"] - warmup) / (seconds["total"] - seconds["compile"]),
    }
    print(json.dumps(result))


def build(algorithm: str, settings: dict) -> td.PPO | td.DQN | td.SAC | td.TD3:
    """The task's settings as an algorithm."""
    sizes, image = tuple(settings.pop("sizes")), settings.pop("image", False)
    if recurrent := settings.pop("recurrent", None):
        network = getattr(td, recurrent)(sizes[0], torso=td.MLP(()), head=td.MLP(sizes, activation="tanh"))
        return td.PPO(network=network, critic_network=network, sequence_length=16, **settings)
    if algorithm == "ppo":
        network = td.CNN(sizes=sizes) if image else td.MLP(sizes, activation="tanh", initialization="orthogonal")
        return td.PPO(network=network, critic_network=network, **settings)
    dense = td.MLP(sizes, activation="relu", initialization="default")
    network = td.CNN(sizes=sizes, initialization="default") if image else dense
    capacity, batch_size = settings.pop("capacity"), settings.pop("batch_size")
    if algorithm == "dqn":
        memory = td.Replay(capacity, batch_size)
        return td.DQN(network=network, memory=memory, double=False, loss="huber", learning_rate_end=None, **settings)
    if algorithm == "sac":
        return td.SAC(network=network, critic_network=network, memory=td.Replay(capacity, batch_size), **settings)
    # An update is `policy_delay` steps of the critics, each on so much of what it draws: one for each step acted.
    delay = settings["policy_delay"]
    memory = td.Replay(capacity, delay * batch_size)
    rhythm = {"rollout_length": delay, "updates_per_rollout": 1, "memory": memory}
    return td.TD3(network=network, critic_network=network, **rhythm, **settings)


main(json.loads(sys.argv[1]))
