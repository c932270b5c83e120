"""Distributions over actions, and the head that makes one of a network's outputs.

All of them are pytrees with `sample(key)`, `log_prob(action)`, `mode()` and, where a formula exists, `entropy()` and
`kl(other)`, the divergence KL(self || other) from another one of its kind.
Parameters have leading batch axes; the log-probability of an action is one number however many parts it has.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from gymnasium import spaces
from jax import random

from thorndike import masks
from thorndike.errors import UnsuitableError

LOG_STD_LIMITS = (-20.0, 2.0)  # of a squashed Gaussian, as in the authors' code of SAC


class Categorical(eqx.Module):
    """One of `logits.shape[-1]` choices; a logit of -inf makes a choice impossible."""

    logits: jax.Array  # [..., choices]

    @property
    def probabilities(self) -> jax.Array:
        return jax.nn.softmax(self.logits)

    def sample(self, key: jax.Array) -> jax.Array:
        return random.categorical(key, self.logits).astype(jnp.int32)

    def log_prob(self, action: jax.Array) -> jax.Array:
        chosen = action[..., None] == jnp.arange(self.logits.shape[-1]).reshape((1,) * action.ndim + (-1,))
        return jnp.where(chosen, jax.nn.log_softmax(self.logits), 0.0).sum(-1)

    def entropy(self) -> jax.Array:
        log_prob = jax.nn.log_softmax(self.logits)
        return -(jnp.exp(log_prob) * jnp.where(jnp.isneginf(log_prob), 0.0, log_prob)).sum(-1)

    def kl(self, other: Categorical) -> jax.Array:
        log_prob, others = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        never = jnp.isneginf(log_prob)  # there nothing diverges
        return (jnp.exp(log_prob) * (jnp.where(never, 0.0, log_prob) - jnp.where(never, 0.0, others))).sum(-1)

    def mode(self) -> jax.Array:
        return self.logits.argmax(-1).astype(jnp.int32)


class MultiCategorical(eqx.Module):
    """Independent choices side by side: their log-probabilities and entropies add up. Actions are [..., parts]."""

    logits: jax.Array  # [..., sum(sizes)]
    sizes: tuple[int, ...] = eqx.field(static=True)

    @property
    def parts(self) -> list[Categorical]:
        return [Categorical(logits) for logits in masks.parts_of(self.logits, self.sizes)]

    def sample(self, key: jax.Array) -> jax.Array:
        keys = random.split(key, len(self.sizes))
        return jnp.stack([part.sample(key) for part, key in zip(self.parts, keys, strict=True)], -1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        return jnp.stack([part.log_prob(action[..., i]) for i, part in enumerate(self.parts)]).sum(0)

    def entropy(self) -> jax.Array:
        return jnp.stack([part.entropy() for part in self.parts]).sum(0)

    def kl(self, other: MultiCategorical) -> jax.Array:
        return jnp.stack([part.kl(its) for part, its in zip(self.parts, other.parts, strict=True)]).sum(0)

    def mode(self) -> jax.Array:
        return jnp.stack([part.mode() for part in self.parts], -1)


class Normal(eqx.Module):
    """Independent Gaussians; the last `event_axes` axes make up one action."""

    mean: jax.Array
    log_std: jax.Array  # of the same shape
    event_axes: int = eqx.field(static=True, default=1)
    noise: jax.Array | None = None  # that is held, in place of a new one for each sample

    def sample(self, key: jax.Array) -> jax.Array:
        if self.noise is not None:
            return self.mean + self.noise
        return self.mean + jnp.exp(self.log_std) * random.normal(key, self.mean.shape, self.mean.dtype)

    def log_prob(self, action: jax.Array) -> jax.Array:
        noise = (action - self.mean) * jnp.exp(-self.log_std)
        return _total(_log_density(noise, self.log_std), self.event_axes)

    def entropy(self) -> jax.Array:
        return _total(self.log_std + 0.5 * math.log(2 * math.pi * math.e), self.event_axes)

    def kl(self, other: Normal) -> jax.Array:
        spread = jnp.exp(self.log_std - other.log_std)
        distance = (self.mean - other.mean) * jnp.exp(-other.log_std)
        return _total(0.5 * (spread**2 + distance**2 - 1) + other.log_std - self.log_std, self.event_axes)

    def mode(self) -> jax.Array:
        return self.mean


class TanhNormal(eqx.Module):
    """Gaussians squashed by tanh into (-1, 1) (Haarnoja et al., 2018, appendix C); `event_axes` as in Normal.

    `log_std` is clipped to LOG_STD_LIMITS. The entropy has no closed form: -log_prob of a sample estimates it.
    """

    mean: jax.Array  # before the squashing
    log_std: jax.Array  # of the same shape
    event_axes: int = eqx.field(static=True)
    noise: jax.Array | None = None  # as in Normal

    def __init__(self, mean: jax.Array, log_std: jax.Array, event_axes: int = 1, noise: jax.Array | None = None):
        self.mean, self.noise = mean, noise
        self.log_std = jnp.clip(log_std, *LOG_STD_LIMITS)
        self.event_axes = event_axes

    def sample(self, key: jax.Array) -> jax.Array:
        if self.noise is not None:
            return jnp.tanh(self.mean + self.noise)
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """An action and its log-probability, exact also where tanh saturates; differentiable in mean and log_std."""
        noise = random.normal(key, self.mean.shape, self.mean.dtype)
        u = self.mean + jnp.exp(self.log_std) * noise
        return jnp.tanh(u), _total(_log_density(noise, self.log_std) - _log_slope(u), self.event_axes)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Of an action in [-1, 1]. At the ends, the nearest number inside stands in: prefer `sample_and_log_prob`."""
        edge = 1.0 - jnp.finfo(action.dtype).epsneg
        return self.log_prob_before_tanh(jnp.arctanh(jnp.clip(action, -edge, edge)))

    def log_prob_before_tanh(self, u: jax.Array) -> jax.Array:
        """Of the action tanh(u)."""
        noise = (u - self.mean) * jnp.exp(-self.log_std)
        return _total(_log_density(noise, self.log_std) - _log_slope(u), self.event_axes)

    def mode(self) -> jax.Array:
        """The squashed mean (its median), which is what one acts with when not exploring."""
        return jnp.tanh(self.mean)


class Head(eqx.Module):
    """Makes a distribution over the actions of a space out of a network's outputs.

    Discrete and MultiDiscrete read the outputs as logits. A Box reads them as the means of a Gaussian in the
    canonical action space ([-1, 1] where it is bounded), whose `log_std` is a trained array of its own; without one, as
    means and log_stds, and where noise is `held`, as that too. Squashed, all of it is of what goes through tanh.
    """

    log_std: jax.Array | None
    kind: str = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)  # choices of each part; of a Box its shape
    held: bool = eqx.field(static=True, default=False)

    @classmethod
    def of(cls, action_space: spaces.Space, initial_log_std: float = 0.0, by_state: bool = False) -> Head:
        """The head for a Discrete, one-dimensional MultiDiscrete or Box space; UnsuitableError for any other.

        With `by_state` a network puts out log_stds, for a Box alone.
        """
        if by_state and not isinstance(action_space, spaces.Box):
            raise UnsuitableError(f"noise that depends on the state is for Box actions, here they are {action_space}")
        if isinstance(action_space, spaces.Discrete):
            return cls(None, "categorical", (int(action_space.n),))
        if isinstance(action_space, spaces.MultiDiscrete) and action_space.nvec.ndim == 1:
            return cls(None, "multi_categorical", tuple(int(n) for n in action_space.nvec))
        if isinstance(action_space, spaces.Box):
            shape = tuple(int(n) for n in action_space.shape)
            return cls(None if by_state else jnp.full(shape, initial_log_std, jnp.float32), "normal", shape)
        raise UnsuitableError(f"actions must be Discrete, MultiDiscrete or Box, this environment has {action_space}")

    @classmethod
    def squashed(cls, action_space: spaces.Box) -> Head:
        """The head whose actions are within a bounded Box however the network is."""
        return cls(None, "tanh_normal", tuple(int(n) for n in action_space.shape))

    @property
    def outputs(self) -> int:
        """How many outputs the network needs."""
        if self.kind in ("categorical", "multi_categorical"):
            return sum(self.sizes)
        return math.prod(self.sizes) * (1 if self.log_std is not None else 3 if self.held else 2)

    def holding(self, network: Any, noise: Any, n: int) -> tuple[Any, Head]:
        """An actor and its head, to act in n copies with one noise each; themselves where there is none to draw."""
        if not jax.tree.leaves(noise):
            return network, self
        return network.holding(noise, n), dataclasses.replace(self, held=True)

    def __call__(self, outputs: jax.Array, mask: jax.Array | None = None) -> Any:
        """The distribution for network outputs [..., outputs], over the choices that a mask [..., outputs] allows."""
        if self.kind == "categorical":
            return Categorical(masks.legal(outputs, mask))
        if self.kind == "multi_categorical":
            return MultiCategorical(masks.legal(outputs, mask, self.sizes), self.sizes)
        shape = outputs.shape[:-1] + self.sizes
        if self.log_std is None:
            parts = (x.reshape(shape) for x in jnp.split(outputs, 3 if self.held else 2, -1))
            mean, log_std, *noise = parts
            return (TanhNormal if self.kind == "tanh_normal" else Normal)(mean, log_std, len(self.sizes), *noise)
        mean = outputs.reshape(shape)
        log_std = jnp.broadcast_to(jnp.asarray(self.log_std), mean.shape)
        return Normal(mean, log_std, len(self.sizes))


def _total(x: jax.Array, event_axes: int) -> jax.Array:
    return x.sum(tuple(range(-event_axes, 0)))


def _log_density(noise: jax.Array, log_std: jax.Array) -> jax.Array:
    """Of a Gaussian, at `noise` standard deviations from its mean."""
    return -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)


def _log_slope(u: jax.Array) -> jax.Array:
    """log(1 - tanh(u)^2), without the cancellation that makes it -inf for |u| > 9."""
    return 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
