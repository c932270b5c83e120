"""One measurement of stable-baselines3, sb3-contrib or SBX, whose classes are built alike: prints a line of JSON.

The same hyper-parameters, network and number of updates as ours. A short `learn` first warms it up; for SBX, whose
programs are compiled in it, it is what is reported as compiling.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

MODULES = {"stable-baselines3": "stable_baselines3", "sb3-contrib": "sb3_contrib", "sbx": "sbx"}


def main(job: dict) -> None:
    if "threads" in job:
        torch.set_num_threads(job["threads"])
    settings, library = job["settings"], job["library"]
    environments = make_vec_env(
        job["theirs"],
        n_envs=settings["num_environments"],
        seed=0,
        vec_env_cls=SubprocVecEnv if job.get("subprocesses") else DummyVecEnv,
    )
    recurrent = settings.get("recurrent")
    kind = getattr(importlib.import_module(MODULES[library]), "Recurrent" * bool(recurrent) + job["algorithm"].upper())
    policy = "CnnPolicy" if settings.get("image") else "MlpLstmPolicy" if recurrent else "MlpPolicy"
    model = kind(policy, environments, seed=0, **arguments(library, job["algorithm"], settings))
    rollout = settings["num_environments"] * settings.get("rollout_length", 1)
    began = time.perf_counter()
    model.learn(max(rollout, settings.get("warmup_steps", 0) + 20))
    compiled, before = time.perf_counter(), model.num_timesteps
    model.learn(job["steps"], reset_num_timesteps=False)
    rate = (model.num_timesteps - before) / (time.perf_counter() - compiled)
    environments.close()
    compiling = compiled - began if library == "sbx" else 0.0
    print(json.dumps({"steps_per_second": rate, "compile": compiling, "wall_rate": rate}))


def arguments(library: str, algorithm: str, settings: dict) -> dict[str, Any]:
    found = {"ppo": ppo, "dqn": dqn, "sac": sac, "td3": td3}[algorithm](settings)
    if library in ("stable-baselines3", "sb3-contrib"):
        return found | {"device": "cpu"}
    found.pop("max_grad_norm" if algorithm == "dqn" else "", None)  # SBX's DQN does not clip
    return found


def ppo(settings: dict) -> dict[str, Any]:
    """The activation is tanh in both, unless another one is asked for or convolutions look at an image."""
    sizes = {"pi": settings["sizes"], "vf": settings["sizes"]}
    network: dict[str, Any] = {"net_arch": sizes}
    if settings.get("recurrent"):  # actor and critic have an LSTM each
        network |= {"lstm_hidden_size": settings["sizes"][0]}
    rate = settings["learning_rate"]
    return {
        "learning_rate": (lambda left: rate * left) if settings["learning_rate_end"] == 0 else rate,
        "n_steps": settings["rollout_length"],
        "batch_size": settings["batch_size"],
        "n_epochs": settings["epochs"],
        "gamma": settings["gamma"],
        "gae_lambda": settings["gae_lambda"],
        "clip_range": settings["clip_range"],
        "clip_range_vf": settings["clip_range"] if settings["clip_value"] else None,
        "ent_coef": settings["ent_coef"],
        "vf_coef": settings["vf_coef"],
        "max_grad_norm": settings["max_grad_norm"],
        "policy_kwargs": convolutions(settings, share_features_extractor=False) or network,
    }


def convolutions(settings: dict, **others: Any) -> dict[str, Any]:
    """For images, the network of Mnih et al. (2015) with one dense layer of this size, as ours; else nothing."""
    [size] = settings["sizes"] if settings.get("image") else [0]
    return {"features_extractor_kwargs": {"features_dim": size}, "net_arch": [], **others} if size else {}


def replay(settings: dict) -> dict[str, Any]:
    """What the three that remember share: one update for every step unless told otherwise, and ReLU."""
    return {
        "learning_rate": settings["learning_rate"],
        "buffer_size": settings["capacity"],
        "learning_starts": settings["warmup_steps"],
        "batch_size": settings["batch_size"],
        "gamma": settings["gamma"],
        "train_freq": settings.get("rollout_length", 1),
        "gradient_steps": settings.get("updates_per_rollout", 1),
        "policy_kwargs": convolutions(settings) or {"net_arch": settings["sizes"]},
    }


def dqn(settings: dict) -> dict[str, Any]:
    return replay(settings) | {
        "target_update_interval": settings["target_period"],
        "exploration_fraction": settings["exploration_fraction"],
        "exploration_initial_eps": settings["epsilon_start"],
        "exploration_final_eps": settings["epsilon_end"],
        "max_grad_norm": settings["max_grad_norm"],
    }


def sac(settings: dict) -> dict[str, Any]:
    return replay(settings) | {"tau": settings["tau"], "ent_coef": "auto"}


def td3(settings: dict) -> dict[str, Any]:
    noise = settings["exploration_noise"] * np.ones(6)
    return replay(settings) | {
        "tau": settings["tau"],
        "policy_delay": settings["policy_delay"],
        "action_noise": NormalActionNoise(np.zeros_like(noise), noise),
        "target_policy_noise": settings["target_noise"],
        "target_noise_clip": settings["target_noise_clip"],
    }


if __name__ == "__main__":  # copies in processes of their own import this file
    main(json.loads(sys.argv[1]))
