"""Running mean and variance as state: what observations and rewards are normalised by.

Nothing here is changed in place and nothing lives in an environment, so the statistics travel with the policy: into
checkpoints, evaluation and workers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

EPSILON = 1e-8  # added to variances before dividing
MOST = 2**32 - 1  # the count stays there, and later values keep that weight


class Moments(NamedTuple):
    """Mean and variance of every floating leaf of an observation; None stands for the other leaves."""

    count: jax.Array  # observations seen, uint32
    mean: Any
    variance: Any


class RewardScale(NamedTuple):
    """The spread of discounted returns, by which rewards are divided."""

    running: jax.Array  # [N] discounted return so far of the running episodes
    returns: Moments


def init(example: Any) -> Moments:
    """No observation yet: mean 0, variance 1, for a pytree of arrays or ShapeDtypeStructs of one observation."""

    def fill(value):
        return jax.tree.map(lambda x: jnp.full(x.shape, value, x.dtype) if _floating(x) else None, example)

    return Moments(jnp.uint32(0), fill(0), fill(1))


def update(moments: Moments, batch: Any) -> Moments:
    """The moments of everything seen before and of a batch with any leading axes (Chan et al., 1983)."""
    mean, structure = jax.tree.flatten(moments.mean, is_leaf=_is_none)
    leaves = structure.flatten_up_to(batch)
    if all(m is None for m in mean):
        return moments
    new = next(x.size // m.size for m, x in zip(mean, leaves, strict=True) if m is not None)
    count = moments.count + jnp.minimum(jnp.uint32(new), jnp.uint32(MOST) - moments.count)
    weight = new / count.astype(jnp.float32)

    def merge(mean, variance, x):
        if mean is None:
            return None, None
        # Sums of deviations from one of the values, not of the values: a large offset costs no digits.
        x = x.reshape(-1, *mean.shape)
        deviation = x - x[:1]
        batch_mean = x[0] + deviation.mean(0)
        difference, share = batch_mean - mean, weight.astype(mean.dtype)
        variance = variance + share * (deviation.var(0) - variance + (1 - share) * difference**2)
        return mean + share * difference, variance

    variances = structure.flatten_up_to(moments.variance)
    merged = [merge(*each) for each in zip(mean, variances, leaves, strict=True)]
    return Moments(count, *(structure.unflatten(side) for side in zip(*merged, strict=True)))


def normalize(moments: Moments, x: Any, clip: float) -> Any:
    """Observations with mean 0 and variance 1, clipped to [-clip, clip]; leaves that are not floating pass."""

    def apply(mean, variance, x):
        if mean is None:
            return x
        centred = x - jnp.broadcast_to(mean, x.shape)
        return jnp.clip(centred * jnp.broadcast_to(lax.rsqrt(variance + EPSILON), x.shape), -clip, clip)

    return jax.tree.map(apply, moments.mean, moments.variance, x, is_leaf=_is_none)


def init_reward_scale(num_environments: int) -> RewardScale:
    """No reward yet, in that many copies of the environment."""
    return RewardScale(jnp.zeros(num_environments, jnp.float32), init(jnp.float32(0)))


def update_reward_scale(scale: RewardScale, reward: jax.Array, done: jax.Array, gamma: Any) -> RewardScale:
    """Follow the discounted returns R_t = gamma R_(t-1) + r_t through rewards [T, N], anew after each `done` [T, N]."""

    def follow(running, step):
        reward, done = step
        running = gamma * running + reward
        return jnp.where(done, 0.0, running), running

    running, returns = lax.scan(follow, scale.running, (reward, done))
    return RewardScale(running, update(scale.returns, returns))


def scale_reward(scale: RewardScale, reward: jax.Array, clip: float) -> jax.Array:
    """Rewards divided by the standard deviation of the discounted return, then clipped; the mean stays where it is.

    As in Engstrom et al. (2020), "Implementation matters in deep policy gradients", and Gymnasium's NormalizeReward.
    """
    return jnp.clip(reward * lax.rsqrt(scale.returns.variance + EPSILON), -clip, clip)


def _floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _is_none(x: Any) -> bool:
    return x is None
