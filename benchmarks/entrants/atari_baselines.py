"""stable-baselines3's DQN on an Atari game: prints a line of JSON."""

from __future__ import annotations

import json
import resource
import sys
import time

import ale_py
import gymnasium
import numpy as np
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack

gymnasium.register_envs(ale_py)


def made(game: str, seed: int, training: bool) -> VecFrameStack:
    """Without its loss of lives: an episode is a game, as in ours."""
    arguments = {"terminal_on_life_loss": False, "clip_reward": training}
    environments = make_atari_env(f"{game}NoFrameskip-v4", n_envs=1, seed=seed, wrapper_kwargs=arguments)
    return VecFrameStack(environments, n_stack=4)


def main(job: dict) -> None:
    model = DQN(
        "CnnPolicy", made(job["game"], job["seed"], training=True), seed=job["seed"], device="cpu",
        learning_rate=job["learning_rate"], buffer_size=job["capacity"], learning_starts=job["warmup_steps"],
        batch_size=job["batch_size"], gamma=job["gamma"], train_freq=job["train_every"], gradient_steps=1,
        target_update_interval=job["target_period"], exploration_fraction=job["exploration_fraction"],
        exploration_final_eps=job["epsilon_end"], max_grad_norm=job["max_grad_norm"],
    )  # fmt: skip
    began = time.perf_counter()
    model.learn(job["steps"])
    result = {
        "steps_per_second": job["steps"] / (time.perf_counter() - began),
        "compile": 0.0,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "training_return": float(np.mean([episode["r"] for episode in model.ep_info_buffer])),
        "evaluation_return": float(evaluate_policy(model, made(job["game"], 10_000, training=False), 10)[0]),
    }
    print(json.dumps(result))


main(json.loads(sys.argv[1]))
