"""Running mean and variance as state: what observations and rewards are normalised by, in every algorithm.

Nothing here is changed in place and nothing lives in an environment, so the statistics travel with the policy: into
checkpoints, evaluation and workers. Where nothing is normalised, () stands for the statistics: it stays as it is, and
values pass.

An algorithm has the fields `normalize_observations`, `normalize_rewards` and `clip_rewards`, and `Statistics` in its
state. Whoever learns from a trajectory as it comes calls `as_acted`; whoever draws from a memory calls `observe` for
each trajectory and `apply` for what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from thorndike import masks
from thorndike.core import Transition
from thorndike.errors import SettingError
from thorndike.spaces import stored

CLIP = 10.0  # normalised values stay within -10 and 10: a rare one does not tear at the weights
EPSILON = 1e-8  # added to variances before dividing
LARGE_ERROR = 1e4  # of values: networks that begin with outputs around 1 are long on their way there
MOST = 2**32 - 1  # the count stays there, and later values keep that weight


class Moments(NamedTuple):
    """Mean and variance of the floating leaves of an observation, in the order of its leaves."""

    seen: jax.Array  # how many observations, uint32
    mean: tuple[jax.Array, ...]
    variance: tuple[jax.Array, ...]


class RewardScale(NamedTuple):
    """The spread of discounted returns, by which rewards are divided."""

    running: jax.Array  # [N] discounted return so far of the running episodes
    returns: Moments


class Signs(NamedTuple):
    """In place of a scale: of rewards only the signs are learned from."""


class Statistics(NamedTuple):
    """What the state of an algorithm keeps to normalise by; () for what it does not normalise."""

    observations: Any  # Moments
    rewards: Any  # a RewardScale, or Signs


def begin(algorithm: Any, observation_space: Any) -> Statistics:
    """Nothing seen yet, of what `normalize_observations`, `normalize_rewards` and `clip_rewards` ask for."""
    if algorithm.normalize_rewards and algorithm.clip_rewards:
        raise SettingError(f"{type(algorithm).__name__}: choose normalize_rewards=True or clip_rewards=True, not both")
    observations = init(stored(observation_space)) if algorithm.normalize_observations else ()
    rewards: Any = Signs() if algorithm.clip_rewards else ()
    if algorithm.normalize_rewards:
        rewards = init_reward_scale(algorithm.num_environments)
    return Statistics(observations, rewards)


def observe(statistics: Statistics, trajectory: Transition, gamma: Any) -> Statistics:
    """The statistics of all that was seen before and of a new trajectory [T, N]."""
    done = trajectory.terminated | trajectory.truncated
    rewards = update_reward_scale(statistics.rewards, trajectory.reward, done, gamma)
    return Statistics(update(statistics.observations, trajectory.observation), rewards)


def apply(statistics: Statistics, batch: Transition) -> Transition:
    """Steps with any leading axes, their observations and (each for itself, before any sum) rewards normalised."""
    return batch._replace(
        observation=normalize(statistics.observations, batch.observation),
        next_observation=normalize(statistics.observations, batch.next_observation),
        reward=scale_reward(statistics.rewards, batch.reward),
    )


def as_acted(statistics: Statistics, trajectory: Transition, gamma: Any) -> tuple[Transition, Statistics]:
    """A new trajectory [T, N] normalised to learn from at once, and the statistics with what is new in it.

    Observations are normalised as they were when acted on, so that log-probabilities stay what they were. Rewards are
    scaled by all that is known of them: the first ones would else have no scale at all.
    """
    known = observe(statistics, trajectory, gamma)
    return apply(Statistics(statistics.observations, known.rewards), trajectory), known


def restarted(statistics: Statistics, begun: jax.Array) -> Statistics:
    """The statistics once copies `begun` [N] have left their episodes for new ones: their returns run from 0 again."""
    if not statistics.rewards:
        return statistics
    running = jnp.where(begun, 0.0, statistics.rewards.running)
    return statistics._replace(rewards=statistics.rewards._replace(running=running))


def init(example: Any) -> Moments:
    """No observation yet: mean 0, variance 1, for a pytree of arrays or ShapeDtypeStructs of one observation."""
    leaves = _floating_leaves(example)
    mean, variance = (tuple(jnp.full(x.shape, value, x.dtype) for x in leaves) for value in (0, 1))
    return Moments(jnp.uint32(0), mean, variance)


def update(moments: Moments, batch: Any) -> Moments:
    """The moments of everything seen before and of a batch with any leading axes (Chan et al., 1983)."""
    if not moments:
        return moments
    leaves = _floating_leaves(batch)
    if not leaves:
        return moments
    new = leaves[0].size // moments.mean[0].size
    seen = moments.seen + jnp.minimum(jnp.uint32(new), jnp.uint32(MOST) - moments.seen)
    weight = new / seen.astype(jnp.float32)

    def merge(mean, variance, x):
        # Sums of deviations from one of the values, not of the values: a large offset costs no digits.
        x = x.reshape(-1, *mean.shape)
        deviation = x - x[:1]
        difference, share = x[0] + deviation.mean(0) - mean, weight.astype(mean.dtype)
        spread = deviation.var(0) + (1 - share) * difference**2
        return mean + share * difference, (1 - share) * variance + share * spread

    merged = [merge(*each) for each in zip(moments.mean, moments.variance, leaves, strict=True)]
    return Moments(seen, tuple(mean for mean, _ in merged), tuple(variance for _, variance in merged))


def normalize(moments: Moments, x: Any, clip: float = CLIP) -> Any:
    """Observations with mean 0 and variance 1, clipped to [-clip, clip]; masks, and what is not floating, pass."""
    if not moments:
        return x
    statistics = iter(zip(moments.mean, moments.variance, strict=True))

    def apply(x):
        if not _floating(x):
            return x
        mean, variance = next(statistics)
        scale = lax.rsqrt(variance + EPSILON)
        return jnp.clip((x - jnp.broadcast_to(mean, x.shape)) * jnp.broadcast_to(scale, x.shape), -clip, clip)

    normalized = jax.tree.map(apply, masks.without(x))
    return {**normalized, masks.MASK: x[masks.MASK]} if masks.masked(x) else normalized


def init_reward_scale(num_environments: int) -> RewardScale:
    """No reward yet, in that many copies of the environment."""
    return RewardScale(jnp.zeros(num_environments, jnp.float32), init(jnp.float32(0)))


def update_reward_scale(scale: RewardScale, reward: jax.Array, done: jax.Array, gamma: Any) -> RewardScale:
    """Follow the discounted returns R_t = gamma R_(t-1) + r_t through rewards [T, N], anew after each `done` [T, N]."""
    if not scale:
        return scale

    def follow(running, step):
        reward, done = step
        running = gamma * running + reward
        return jnp.where(done, 0.0, running), running

    running, returns = lax.scan(follow, scale.running, (reward, done))
    return RewardScale(running, update(scale.returns, returns))


def scale_reward(scale: Any, reward: jax.Array, clip: float = CLIP) -> jax.Array:
    """Rewards divided by the standard deviation of the discounted return, then clipped; the mean stays where it is.

    As in Engstrom et al. (2020), "Implementation matters in deep policy gradients", and Gymnasium's NormalizeReward.
    With `Signs` it is -1, 0 or 1, as in Mnih et al. (2015), "Human-level control through deep reinforcement learning".
    """
    if isinstance(scale, Signs):
        return jnp.sign(reward)
    if not scale:
        return reward
    return jnp.clip(reward * lax.rsqrt(scale.returns.variance[0] + EPSILON), -clip, clip)


def hint(row: Mapping[str, float]) -> str | None:
    """One line where the losses in a row of metrics say that rewards are out of scale; None where they do not."""
    squared = max(row.get("value_loss", 0.0), row.get("critic_loss", 0.0))
    error = max(row.get("td_error", 0.0), math.sqrt(max(squared, 0.0)))
    if not error > LARGE_ERROR:
        return None
    return f"values are off by some {error:.0e}: rewards are out of scale for a network, try normalize_rewards=True"


def _floating_leaves(observation: Any) -> list[Any]:
    return [x for x in jax.tree.leaves(masks.without(observation)) if _floating(x)]


def _floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
