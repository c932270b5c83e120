"""The same by stable-baselines3's DQN and its SubprocVecEnv; prints JSON."""

from __future__ import annotations

import functools
import json
import sys
import time

import numpy as np
import torch
from slow import Slow
from stable_baselines3 import DQN
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import SubprocVecEnv


def made(seconds: float) -> Monitor:
    return Monitor(Slow(seconds))


def main(job: dict) -> dict:
    environment = SubprocVecEnv([functools.partial(made, job["seconds"])] * job["copies"], start_method="spawn")
    environment.seed(job["seed"])
    environment.reset()
    model = DQN(
        "MlpPolicy", environment, learning_rate=1e-3, buffer_size=100_000, learning_starts=1_000,
        batch_size=job["batch_size"], train_freq=1, gradient_steps=job["copies"],
        target_update_interval=job["target_period"], exploration_fraction=0.2, exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [64, 64], "activation_fn": torch.nn.ReLU}, seed=job["seed"],
    )  # fmt: skip
    began = time.perf_counter()
    model.learn(job["baselines_steps"])
    took = time.perf_counter() - began
    returns = [episode["r"] for episode in model.ep_info_buffer]
    steps = model.num_timesteps
    environment.close()
    return {"steps_per_second": steps / took, "train": took, "training_return": float(np.mean(returns))}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
