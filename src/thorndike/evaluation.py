"""Evaluation: greedy episodes on copies and seeds of their own, how many a run affords, and honest statistics."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from thorndike.compilation import jit
from thorndike.core import Actor, Algorithm, Environment, PyTree
from thorndike.environments.functional import Vectorized
from thorndike.environments.host import HostEnvironment, on_host
from thorndike.episodes import finite
from thorndike.errors import EnvironmentFault
from thorndike.trainer import CHUNK_SECONDS, as_arrays, keys_of
from thorndike.unrolls import compiled, host

COPIES = 10  # of the environment, at most, unless told otherwise
EPISODES, FINAL_EPISODES = 10, 100  # unless told otherwise, where their steps cost little
LEAST_FINAL = 5  # episodes at the end, where steps are dear
SHORT = 50  # steps of an unroll, at most: signals are seen between two
MAX_STEPS = 10_000  # of an episode: what has not ended then is cut, and counted as unfinished
REPETITIONS = 2**31  # more than the batches of an evaluation, which are folded into the same key
RESAMPLES = 10_000  # of the bootstrap
ENOUGH_SEEDS = 5  # for an interval: the bootstrap of fewer is their range


class Played(NamedTuple):
    """What episodes have come to; leaves are [episodes]."""

    returns: np.ndarray
    lengths: np.ndarray
    finished: np.ndarray  # False where an episode was cut: then its return is that of a part

    @property
    def unfinished(self) -> int:
        return int((~self.finished).sum())


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many episodes each evaluation of a run plays, and after how many steps it cuts those that do not end.

    On the host a step of evaluation costs as much as one of training. There, unless the user says otherwise, all
    evaluations together take at most as many steps as training does and those before the final one at most a quarter:
    first their episodes become fewer, then the evaluations. Compiled environments play EPISODES and FINAL_EPISODES.
    """

    steps: int  # of training
    moments: int  # evaluations before the final one
    longest: int  # steps that an episode may take
    limited: bool = False  # whether steps are dear
    moments_are_set: bool = False  # whether the user said how often
    episodes: int | None = None  # as the user said; None: as many as the steps allow
    final_episodes: int | None = None

    def on_the_way(self, moment: int, used: int, seen: int) -> tuple[int, int] | None:
        """Episodes and the steps of each at the `moment`-th evaluation, counted from 1; None: none this time.

        `used` are the steps that evaluations have taken, `seen` is the length of the longest episode so far.
        """
        if not self.limited:
            return self.episodes or EPISODES, self.longest
        quarter, expected = self.steps // 4, min(self.longest, 2 * max(seen, 1))
        allowed = quarter * moment // self.moments - used
        episodes = self.episodes or min(EPISODES, allowed // expected)
        if self.moments_are_set:
            return max(episodes, 1), self.longest
        if episodes < 1 or episodes * expected > allowed:
            return None
        # Episodes may turn out longer than any before: to see their ends, up to half of what is left may go.
        half = (quarter - used) // (2 * episodes)
        return episodes, min(self.longest, max(half, expected))

    def at_the_end(self, used: int, seen: int) -> tuple[int, int]:
        """Episodes and the steps of each in the final evaluation; arguments as above."""
        if self.final_episodes or not self.limited:
            return self.final_episodes or FINAL_EPISODES, self.longest
        left, expected = max(self.steps - used, self.steps // 4), min(self.longest, 2 * max(seen, 1))
        episodes = min(max(left // expected, LEAST_FINAL), FINAL_EPISODES)
        return episodes, min(self.longest, max(left // episodes, 1))

    @property
    def cost(self) -> str:
        """What evaluation may take, in words; "" where its steps cost little."""
        if not self.limited:
            return ""
        way, end = self.steps // 4, (self.final_episodes or 0) * self.longest
        if self.moments_are_set:
            way = self.moments * (self.episodes or EPISODES) * self.longest
        total = way + (end or max(self.steps - way, self.steps // 4))
        times = f", {total / self.steps:.1f} times training's" if total > self.steps else ""
        return f"evaluation takes at most {total:,} steps{times}"


def longest_episode(limit: int | None, steps_of_a_copy: int) -> int:
    """The steps that an episode of an evaluation may take: one of training could have had no more."""
    return min(MAX_STEPS, limit or steps_of_a_copy)


def evaluation_key(seed: int, iteration: int, repetition: int | None = None) -> jax.Array:
    """The key of the evaluation after so many iterations, none of training's; of a `repetition` with other episodes."""
    key = random.fold_in(keys_of(seed)[2], iteration)
    return key if repetition is None else random.fold_in(random.fold_in(key, REPETITIONS), repetition)


def evaluate(
    algorithm: Algorithm,
    environment: Environment,
    state: PyTree,
    key: jax.Array,
    episodes: int,
    max_steps: int = MAX_STEPS,
    pause: Callable[[], None] = lambda: None,
) -> Played:
    """Play greedy episodes in the copies of `environment`, each at most `max_steps` long.

    Which copy plays which episode is settled beforehand: the first episodes to finish would be the short ones. `pause`
    is called between short unrolls; what it raises ends the evaluation.
    """
    algorithm = as_arrays(algorithm)
    policy = _greedy(algorithm, state)
    if on_host(environment):
        return _play_on_host(algorithm, environment, policy, key, episodes, max_steps, pause)
    return _play_compiled(algorithm, environment, policy, key, episodes, max_steps, pause)


@jit
def _greedy(algorithm: Algorithm, state: PyTree) -> PyTree:
    return algorithm.policy(state, jnp.float32(1), explore=False)


def _play_compiled(
    algorithm: Algorithm, environment: Environment, policy: PyTree, key: jax.Array, episodes: int, max_steps: int,
    pause: Callable[[], None],
) -> Played:  # fmt: skip
    """Batches of one episode in every copy."""
    if isinstance(environment, Vectorized):
        # New episodes are of no use here, and in many environments they are half of what is compiled.
        environment = dataclasses.replace(environment, restarts=False)
    batches = [
        _play_batch(algorithm, environment, policy, random.fold_in(key, batch), max_steps, pause)
        for batch in range(-(-episodes // environment.num_environments))
    ]
    return Played(*(np.concatenate(column)[:episodes] for column in zip(*batches, strict=True)))


def _play_batch(
    algorithm: Algorithm, environment: Environment, policy: PyTree, key: jax.Array, max_steps: int,
    pause: Callable[[], None],
) -> Played:  # fmt: skip
    """One episode in every copy: short unrolls until all have ended."""
    reset_key, unroll_key = random.split(key)
    n = environment.num_environments
    env_state, observation = _reset(environment, reset_key)
    actor = Actor(env_state, observation, algorithm.initial_carry(n), np.zeros(n, bool))
    returns, lengths, running = np.zeros(n, np.float64), np.zeros(n, np.int64), np.ones(n, bool)
    for begin in range(0, max_steps, SHORT):
        pause()
        part_key = random.fold_in(unroll_key, begin // SHORT)
        actor, *outcome = _compiled_unroll(algorithm, environment, policy, actor, part_key)
        reward, done, sound = map(np.asarray, outcome)
        for t in range(min(SHORT, max_steps - begin)):
            if not sound[t][running].all():
                copy = int(np.flatnonzero(running & ~sound[t])[0])
                raise EnvironmentFault(
                    "the environment gave a reward or observation that is not finite: in an evaluation, "
                    f"copy {copy}, step {begin + t + 1}"
                )
            returns += np.where(running, reward[t], 0.0)
            lengths += running
            running &= ~done[t]
        if not running.any():
            break
    return Played(returns, lengths, ~running)


@partial(jit, static_argnames="environment")
def _reset(environment: Environment, key: jax.Array) -> tuple[PyTree, PyTree]:
    return environment.reset(key)


@partial(jit, static_argnames=("environment", "length"))
def _compiled_unroll(
    algorithm: Algorithm, environment: Environment, policy: PyTree, actor: Actor, key: jax.Array, length: int = SHORT
) -> tuple[Actor, jax.Array, jax.Array, jax.Array]:
    """Where an unroll stopped; rewards, ends of episodes, and whether all numbers are finite, [length, N]."""
    actor, trajectory = compiled.unroll(algorithm, environment, policy, actor, key, length)
    sound = finite(trajectory.reward, (trajectory.observation, trajectory.next_observation))
    return actor, trajectory.reward, trajectory.terminated | trajectory.truncated, sound


def _play_on_host(
    algorithm: Algorithm, environment: HostEnvironment, policy: PyTree, key: jax.Array, episodes: int, max_steps: int,
    pause: Callable[[], None],
) -> Played:  # fmt: skip
    """Of n copies, copy i plays the episodes i, i + n, ... one after another, and is not stepped after the last."""
    reset_key, unroll_key = random.split(key)
    n = environment.num_environments
    left = np.array([len(range(i, episodes, n)) for i in range(n)])
    observation = environment.reset(reset_key, left)[1]
    actor = Actor((), observation, algorithm.initial_carry(n), np.zeros(n, bool))
    returns, lengths = np.zeros(n, np.float64), np.zeros(n, np.int64)
    ended: list[list[tuple]] = [[] for _ in range(n)]

    def note(copies: np.ndarray, finished: bool) -> None:
        for i in np.flatnonzero(copies):
            ended[i].append((returns[i], lengths[i], finished))
            returns[i], lengths[i] = 0.0, 0
            left[i] -= 1

    steps, unroll_length = 0, 1
    while left.any():
        pause()
        length = min(unroll_length, int(max_steps - lengths.max()))
        began = time.perf_counter()
        actor, trajectory = host.unroll(algorithm, environment, policy, actor, unroll_key, length, first=steps)
        unroll_length = max(1, min(SHORT, int(CHUNK_SECONDS * length / max(time.perf_counter() - began, 1e-6))))
        steps += length
        ends = np.asarray(trajectory.terminated | trajectory.truncated)
        for t, (reward, done) in enumerate(zip(trajectory.reward, ends, strict=True)):
            for loss in environment.lost:
                if loss.step == t:
                    note(loss.copies, finished=False)
            returns += reward
            lengths += left > 0
            broken_off = [loss.under_way for loss in environment.lost if loss.step == t + 1]  # which look like ends
            note(done & ~np.logical_or.reduce([np.zeros(n, bool), *broken_off]), finished=True)
        cut = lengths >= max_steps
        if cut.any():
            note(cut, finished=False)
            actor = actor._replace(observation=environment.cut(cut), done=actor.done | cut)
    in_order = [ended[episode % n][episode // n] for episode in range(episodes)]
    return Played(*map(np.array, zip(*in_order, strict=True)))


class Moment(NamedTuple):
    """Where an episode stands after some steps."""

    env_state: Any  # () on the host; of a compiled environment that has ended, already the next episode's
    total: float  # the return so far
    ended: bool


def play(
    algorithm: Algorithm, environment: Environment, state: PyTree, key: jax.Array, max_steps: int
) -> Iterator[Moment]:
    """Play one greedy episode in the only copy of `environment`, from its beginning to its end, step by step."""
    algorithm = as_arrays(algorithm)
    policy = _greedy(algorithm, state)
    reset_key, unroll_key = random.split(key)
    if on_host(environment):
        env_state, observation = environment.reset(reset_key, np.ones(1, int))
    else:
        env_state, observation = _reset(environment, reset_key)
    actor, total, done = Actor(env_state, observation, algorithm.initial_carry(1), np.zeros(1, bool)), 0.0, False
    yield Moment(env_state, total, done)
    for t in range(max_steps):
        if on_host(environment):
            actor, trajectory = host.unroll(algorithm, environment, policy, actor, unroll_key, 1, first=t)
            reward, ended = trajectory.reward, trajectory.terminated | trajectory.truncated
        else:
            step_key = random.fold_in(unroll_key, t)
            actor, reward, ended, _ = _compiled_unroll(algorithm, environment, policy, actor, step_key, length=1)
        total, done = total + float(reward[0, 0]), bool(ended[0, 0])
        yield Moment(actor.env_state, total, done)
        if done:
            return


def summarize(returns_per_seed: Sequence[np.ndarray], unfinished: int | None = None) -> dict[str, Any]:
    """Statistics of the episodes' returns of several seeds (Agarwal et al., 2021, "Deep RL at the edge").

    `mean`, `std`, `iqm` (interquartile mean) and `ci95` (percentile bootstrap of the iqm) are over the seeds' means;
    `std` is None for one seed, `iqm` and `ci95` are for fewer than ENOUGH_SEEDS. `episode_std` is over all episodes.
    `unfinished`, where given, is how many of them were cut.
    """
    everything = np.concatenate([np.asarray(r, np.float64) for r in returns_per_seed])
    cut = {} if unfinished is None else {"unfinished": unfinished}
    if not everything.size:
        nothing = dict.fromkeys(("mean", "std", "iqm", "ci95", "episode_std"), None)
        return nothing | {"episodes": 0, "per_seed": []} | cut
    means = np.array([np.mean(r) for r in returns_per_seed if len(r)])
    enough = len(means) >= ENOUGH_SEEDS
    return {
        "episodes": int(everything.size),
        **cut,
        "mean": float(means.mean()),
        "std": float(means.std(ddof=1)) if len(means) > 1 else None,
        "iqm": float(interquartile_mean(means)) if enough else None,
        "ci95": [float(x) for x in interval(means[:, None])[:, 0]] if enough else None,
        "episode_std": float(everything.std(ddof=1)) if everything.size > 1 else None,
        "per_seed": [float(x) for x in means],
    }


def interval(values: np.ndarray) -> np.ndarray:
    """The 95 % percentile bootstrap of the interquartile mean over seeds, of [seeds, columns]: bounds [2, columns]."""
    draws = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    return np.stack([np.percentile(interquartile_mean(column[draws]), [2.5, 97.5]) for column in values.T], axis=1)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the middle half along the last axis: a quarter, rounded down, is cut at either end."""
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(-1)
