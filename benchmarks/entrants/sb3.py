"""One measurement of stable-baselines3, in an environment of its own: prints a line of JSON.

The same hyper-parameters, network and number of updates as ours. A short `learn` first warms it up.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env


def main(job: dict) -> None:
    torch.set_num_threads(job["threads"])
    settings = job["settings"]
    environments = make_vec_env(job["theirs"], n_envs=settings["num_environments"], seed=0)
    model = (ppo if job["algorithm"] == "ppo" else dqn)(settings, environments)
    rollout = settings["num_environments"] * settings["rollout_length"]
    model.learn(max(rollout, settings.get("warmup_steps", 0) + 200))
    began = time.perf_counter()
    model.learn(job["steps"], reset_num_timesteps=False)
    seconds = time.perf_counter() - began
    taken = -(-job["steps"] // rollout) * rollout
    print(json.dumps({"steps_per_second": taken / seconds, "compile": 0.0, "wall_rate": taken / seconds}))


def ppo(settings: dict, environments: object) -> PPO:
    rate = settings["learning_rate"]
    falling = settings["learning_rate_end"] == 0
    return PPO(
        "MlpPolicy",
        environments,
        learning_rate=(lambda left: rate * left) if falling else rate,
        n_steps=settings["rollout_length"],
        batch_size=settings["batch_size"],
        n_epochs=settings["epochs"],
        gamma=settings["gamma"],
        gae_lambda=settings["gae_lambda"],
        clip_range=settings["clip_range"],
        clip_range_vf=settings["clip_range"] if settings["clip_value"] else None,
        ent_coef=settings["ent_coef"],
        vf_coef=settings["vf_coef"],
        max_grad_norm=settings["max_grad_norm"],
        policy_kwargs={"net_arch": {"pi": settings["sizes"], "vf": settings["sizes"]}, "activation_fn": torch.nn.Tanh},
        device="cpu",
        seed=0,
    )


def dqn(settings: dict, environments: object) -> DQN:
    return DQN(
        "MlpPolicy",
        environments,
        learning_rate=settings["learning_rate"],
        buffer_size=settings["capacity"],
        learning_starts=settings["warmup_steps"],
        batch_size=settings["batch_size"],
        gamma=settings["gamma"],
        train_freq=settings["rollout_length"],
        gradient_steps=settings["updates_per_rollout"],
        target_update_interval=settings["target_period"],
        exploration_fraction=settings["exploration_fraction"],
        exploration_initial_eps=settings["epsilon_start"],
        exploration_final_eps=settings["epsilon_end"],
        max_grad_norm=settings["max_grad_norm"],
        policy_kwargs={"net_arch": settings["sizes"]},
        device="cpu",
        seed=0,
    )


main(json.loads(sys.argv[1]))
