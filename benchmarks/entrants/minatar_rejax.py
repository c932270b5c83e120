"""Rejax on a game of MinAtar: prints a line of JSON. What it has no words for is put in: convolutions, sizes of DQN."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import optax
from flax import linen as nn
from rejax import DQN, PPO
from rejax.evaluate import evaluate
from rejax.networks import DiscretePolicy, EpsilonGreedyPolicy


class Torso(nn.Module):
    sizes: tuple[int, ...]
    convolution: bool

    @nn.compact
    def __call__(self, x):
        if self.convolution:
            x = nn.relu(nn.Conv(16, (3, 3), padding="VALID")(x))
        x = x.reshape(x.shape[0], -1)
        for size in (128,) if self.convolution else self.sizes:
            x = nn.relu(nn.Dense(size)(x))
        return x


class Policy(DiscretePolicy):
    convolution: bool = False

    def setup(self):
        self.features = Torso(self.hidden_layer_sizes, self.convolution)
        self.action_logits = nn.Dense(self.action_dim)


class Value(nn.Module):
    sizes: tuple[int, ...]
    convolution: bool

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(Torso(self.sizes, self.convolution)(x)).squeeze(1)


class Values(nn.Module):
    sizes: tuple[int, ...]
    convolution: bool
    action_dim: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.action_dim)(Torso(self.sizes, self.convolution)(x))

    def take(self, x, action):
        return jax.numpy.take_along_axis(self(x), action[:, None], axis=1).squeeze(1)


def main(job: dict) -> None:
    settings, steps = job["settings"], job["steps"]
    rollout = settings["num_environments"] * settings["rollout_length"]
    steps = -(-steps // rollout) * rollout
    sizes, convolution = tuple(settings["sizes"]), job["network"] == "convolution"
    common = {
        "env": f"{job['game']}-MinAtar", "total_timesteps": steps, "eval_freq": steps, "gamma": settings["gamma"],
        "skip_initial_evaluation": True, "num_envs": settings["num_environments"],
        "max_grad_norm": settings["max_grad_norm"],
    }  # fmt: skip
    algorithm = (ppo if job["algorithm"] == "ppo" else dqn)(settings, steps, rollout, common)
    n = algorithm.env.action_space(algorithm.env_params).n
    if job["algorithm"] == "ppo":
        actor, critic = Policy(n, sizes, nn.relu, convolution), Value(sizes, convolution)
        algorithm = algorithm.replace(actor=actor, critic=critic)
    else:
        algorithm = algorithm.replace(agent=EpsilonGreedyPolicy(Values)(sizes, convolution, n))
    algorithm = algorithm.replace(eval_callback=lambda *_: ())
    key = jax.random.PRNGKey(0)
    began = time.perf_counter()
    train = jax.jit(algorithm.train).lower(key).compile()
    compiled = time.perf_counter()
    state, _ = jax.block_until_ready(train(key))
    rate = steps / (time.perf_counter() - compiled)
    play = jax.jit(
        lambda state, key: evaluate(algorithm.make_act(state), key, algorithm.env, algorithm.env_params, 100)
    )
    returns = play(state, key)[1]
    print(json.dumps({"steps_per_second": rate, "compile": compiled - began, "return": float(returns.mean())}))


def ppo(settings: dict, steps: int, rollout: int, common: dict[str, Any]) -> PPO:
    minibatches = rollout // settings["batch_size"]
    updates = steps // rollout * settings["epochs"] * minibatches
    return PPO.create(
        learning_rate=optax.linear_schedule(settings["learning_rate"], settings["learning_rate_end"], updates),
        num_steps=settings["rollout_length"], num_epochs=settings["epochs"], num_minibatches=minibatches,
        gae_lambda=settings["gae_lambda"], clip_eps=settings["clip_range"], ent_coef=settings["ent_coef"],
        vf_coef=settings["vf_coef"], **common,
    )  # fmt: skip


def dqn(settings: dict, steps: int, rollout: int, common: dict[str, Any]) -> DQN:
    return DQN.create(
        learning_rate=settings["learning_rate"], buffer_size=settings["capacity"], fill_buffer=settings["warmup_steps"],
        batch_size=settings["batch_size"], num_epochs=settings["updates_per_rollout"], polyak=0.0, ddqn=False,
        target_update_freq=settings["target_period"] * rollout, eps_start=settings["epsilon_start"],
        eps_end=settings["epsilon_end"], exploration_fraction=min(1.0, settings["exploration_steps"] / steps), **common,
    )  # fmt: skip


main(json.loads(sys.argv[1]))
