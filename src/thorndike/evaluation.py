"""Evaluation: greedy episodes on copies and seeds of their own, and honest statistics over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from thorndike.compilation import jit
from thorndike.core import Actor, Environment, finite
from thorndike.errors import EnvironmentFault
from thorndike.trainer import as_arrays, keys_of
from thorndike.unrolls import compiled, host

COPIES = 10  # episodes played side by side
SHORT = 50  # steps of an unroll: how far one batch of episodes may overshoot its last end
MAX_STEPS = 10_000  # of an episode, where the environment itself has no limit
RESAMPLES = 10_000  # of the bootstrap


def evaluation_key(seed: int, iteration: int) -> jax.Array:
    """The key of the evaluation after so many iterations; none of training's."""
    return random.fold_in(keys_of(seed)[2], iteration)


def evaluate(
    algorithm: Any,
    make_environment: Callable[[int], Environment],
    state: Any,
    key: jax.Array,
    episodes: int,
    max_steps: int = MAX_STEPS,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths [episodes] of greedy episodes.

    Every copy plays one episode and is not looked at after it: the first episodes to finish would be the short ones.
    """
    algorithm = as_arrays(algorithm)
    environment = make_environment(COPIES)
    policy = _greedy(algorithm, state)
    try:
        batches = [
            _play(algorithm, environment, policy, random.fold_in(key, batch), max_steps)
            for batch in range(-(-episodes // COPIES))
        ]
    finally:
        getattr(environment, "close", lambda: None)()
    returns, lengths = (np.concatenate(column)[:episodes] for column in zip(*batches, strict=True))
    return returns, lengths


@jit
def _greedy(algorithm: Any, state: Any) -> Any:
    return algorithm.policy(state, jnp.float32(1), explore=False)


def _play(algorithm, environment, policy, key, max_steps) -> tuple[np.ndarray, np.ndarray]:
    """One episode in every copy: short unrolls until all have ended."""
    reset_key, unroll_key = random.split(key)
    n = environment.num_environments
    if environment.compiled:
        env_state, observation = _reset(environment, reset_key)
        unroll = _unroll
    else:
        env_state, observation = environment.reset(reset_key)
        unroll = _host_unroll
    actor = Actor(env_state, observation, algorithm.initial_carry(n), np.zeros(n, bool))
    returns, lengths, running = np.zeros(n, np.float64), np.zeros(n, np.int64), np.ones(n, bool)
    for part in range(-(-max_steps // SHORT)):
        actor, reward, done, sound = unroll(algorithm, environment, policy, actor, random.fold_in(unroll_key, part))
        for t in range(SHORT):
            if not sound[t][running].all():
                copy = int(np.flatnonzero(running & ~sound[t])[0])
                raise EnvironmentFault(
                    "the environment gave a reward or observation that is not finite: in an evaluation, "
                    f"copy {copy}, step {part * SHORT + t + 1}"
                )
            returns += np.where(running, reward[t], 0.0)
            lengths += running
            running &= ~done[t]
        if not running.any():
            break
    return returns, lengths


@partial(jit, static_argnames="environment")
def _reset(environment, key):
    return environment.reset(key)


@partial(jit, static_argnames="environment")
def _compiled_unroll(algorithm, environment, policy, actor, key):
    actor, trajectory = compiled.unroll(algorithm, environment, policy, actor, key, SHORT)
    return actor, trajectory.reward, trajectory.terminated | trajectory.truncated, finite(trajectory)


def _unroll(*arguments):
    actor, *outcome = _compiled_unroll(*arguments)
    return actor, *map(np.asarray, outcome)


def _host_unroll(algorithm, environment, policy, actor, key):
    """The boundary of an environment on the host lets nothing pass that is not finite."""
    actor, trajectory = host.unroll(algorithm, environment, policy, actor, key, SHORT)
    done = trajectory.terminated | trajectory.truncated
    return actor, trajectory.reward, done, np.ones_like(done)


def summarize(returns_per_seed: Sequence[np.ndarray]) -> dict[str, Any]:
    """Statistics of the episodes' returns of several seeds (Agarwal et al., 2021, "Deep RL at the edge").

    `mean`, `std`, `iqm` (interquartile mean) and `ci95` (percentile bootstrap of the iqm) are over the seeds' means;
    the last three are None where there are too few seeds to give them. `episode_std` is over all episodes.
    """
    everything = np.concatenate([np.asarray(r, np.float64) for r in returns_per_seed])
    if not everything.size:
        return dict.fromkeys(("mean", "std", "iqm", "ci95", "episode_std"), None) | {"episodes": 0, "per_seed": []}
    means = np.array([np.mean(r) for r in returns_per_seed if len(r)])
    several = len(means) > 1
    draws = np.random.default_rng(0).integers(0, len(means), (RESAMPLES, len(means)))
    interval = np.percentile(interquartile_mean(means[draws]), [2.5, 97.5])
    return {
        "episodes": int(everything.size),
        "mean": float(means.mean()),
        "std": float(means.std(ddof=1)) if several else None,
        "iqm": float(interquartile_mean(means)) if several else None,
        "ci95": [float(x) for x in interval] if several else None,
        "episode_std": float(everything.std(ddof=1)) if everything.size > 1 else None,
        "per_seed": [float(x) for x in means],
    }


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the middle half along the last axis: a quarter, rounded down, is cut at either end."""
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(-1)
