"""Noise that depends on the state: an actor's network with features that exploration is a function of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from gymnasium import spaces
from jax import lax, random

from thorndike.sequences import remembers, step

FEATURES = 64
VARIANCE_FLOOR = 1e-6


class StateDependentNoise(eqx.Module):
    """A network that puts out means and features, as one that puts out means and log_stds.

    Raffin et al. (2021), "Smooth exploration for robotic reinforcement learning": the noise is theta^T z(s), linear in
    features z, with theta ~ N(0, sigma^2); so actions are Gaussian, with the variance z(s)^2 sigma^2 (equation 9). No
    gradient passes through the features. Who acts holds a theta for each copy, and the noise is put out as well.
    """

    network: Any
    log_std: jax.Array  # of theta, [features, actions]
    theta: jax.Array | None = None  # [N, features, actions]

    def __call__(self, observation: Any, carry: Any = ()) -> Any:
        outputs, after = step(self.network, observation, carry)
        features, actions = self.log_std.shape
        mean, z, others = jnp.split(outputs, (actions, actions + features), axis=1)
        z = lax.stop_gradient(z)
        variance = jnp.square(z) @ jnp.exp(2 * self.log_std)
        parts = [mean, 0.5 * jnp.log(variance + VARIANCE_FLOOR)]
        if self.theta is not None:
            parts.append((z[:, :, None] * self.theta).sum(1))
        outputs = jnp.concatenate([*parts, others], axis=1)
        return (outputs, after) if remembers(carry) else outputs

    def holding(self, noise: jax.Array, n: int) -> StateDependentNoise:
        """The network with a theta for each of n copies, drawn by what `begin` or `renewed` gave."""
        drawn = random.normal(_keys(noise)[1], (n, *self.log_std.shape), jnp.float32)
        return replace(self, theta=drawn * jnp.exp(self.log_std)[None])


def init_actor(
    algorithm: Any, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: float = 1.0, values: int = 0
) -> Any:
    """The actor of `algorithm`, for a head that reads so many outputs; `values` follow them, with a gain of 1."""
    noisy = algorithm.state_dependent_noise
    count, features = (outputs // 2, FEATURES) if noisy else (outputs, 0)
    gains = jnp.append(jnp.full(count, gain), jnp.ones(features + values))
    network = algorithm.network.init(key, observation_space, gains.size, gains)
    if not noisy:
        return network
    return StateDependentNoise(network, jnp.full((features, count), algorithm.initial_log_std, jnp.float32))


def begin_noise(keys: list) -> Any:
    """What a state remembers to draw noise by, of one key or none."""
    return random.key_data(keys[0]) if keys else ()


def renewed(noise: Any) -> Any:
    """The same for another draw."""
    return random.key_data(_keys(noise)[0]) if jax.tree.leaves(noise) else noise


def _keys(noise: jax.Array) -> jax.Array:
    return random.split(random.wrap_key_data(noise))
