"""One measurement of Rejax, in an environment of its own: prints a line of JSON.

The same hyper-parameters, network and number of updates as ours, and likewise no evaluation; `train` is compiled
ahead, which is timed apart.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import optax
from rejax import DQN, PPO, SAC


def main(job: dict) -> None:
    settings = job["settings"]
    warmup = settings.get("warmup_steps", 0)
    rollout = settings["num_environments"] * settings["rollout_length"]
    steps = -(-(job["steps"] + warmup) // rollout) * rollout
    began = time.perf_counter()
    build = {"ppo": ppo, "dqn": dqn, "sac": sac}[job["algorithm"]]
    algorithm = build(
        settings,
        env=job["theirs"],
        total_timesteps=steps,
        eval_freq=steps,
        skip_initial_evaluation=True,
        gamma=settings["gamma"],
        num_envs=settings["num_environments"],
    )
    algorithm = algorithm.replace(eval_callback=lambda *_: ())
    key = jax.random.PRNGKey(0)
    train = jax.jit(algorithm.train).lower(key).compile()
    compiled = time.perf_counter()
    jax.block_until_ready(train(key))
    # Steps of the warm-up do not count, since nothing is learned in them; what they take does.
    rate = (steps - warmup) / (time.perf_counter() - compiled)
    print(json.dumps({"steps_per_second": rate, "compile": compiled - began, "wall_rate": rate}))


def ppo(settings: dict, total_timesteps: int, **common: Any) -> PPO:
    rollout = settings["num_environments"] * settings["rollout_length"]
    minibatches = rollout // settings["batch_size"]
    updates = total_timesteps // rollout * settings["epochs"] * minibatches
    rate = settings["learning_rate"]
    return PPO.create(
        learning_rate=optax.linear_schedule(rate, settings["learning_rate_end"], updates),
        num_steps=settings["rollout_length"],
        num_epochs=settings["epochs"],
        num_minibatches=minibatches,
        gae_lambda=settings["gae_lambda"],
        clip_eps=settings["clip_range"],
        ent_coef=settings["ent_coef"],
        vf_coef=settings["vf_coef"],
        max_grad_norm=settings["max_grad_norm"],
        agent_kwargs={"hidden_layer_sizes": settings["sizes"], "activation": "tanh"},
        total_timesteps=total_timesteps,
        **common,
    )


def replay(settings: dict) -> dict[str, Any]:
    return {
        "learning_rate": settings["learning_rate"],
        "buffer_size": settings["capacity"],
        "fill_buffer": settings["warmup_steps"],
        "batch_size": settings["batch_size"],
        "num_epochs": settings["updates_per_rollout"],
        "agent_kwargs": {"activation": "relu"},
    }


def dqn(settings: dict, **common: Any) -> DQN:
    """Its networks are always 2x64."""
    return DQN.create(
        target_update_freq=settings["target_period"],
        polyak=0.0,
        eps_start=settings["epsilon_start"],
        eps_end=settings["epsilon_end"],
        exploration_fraction=settings["exploration_fraction"],
        max_grad_norm=settings["max_grad_norm"],
        ddqn=False,
        **replay(settings),
        **common,
    )


def sac(settings: dict, **common: Any) -> SAC:
    polyak = 1 - settings["tau"]
    return SAC.create(hidden_layer_sizes=settings["sizes"], polyak=polyak, **replay(settings), **common)


main(json.loads(sys.argv[1]))
