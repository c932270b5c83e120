"""Implicit quantile networks: quantiles of what actions are worth, at whichever levels tau they are asked for."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import random

from thorndike.networks.initialization import draw_weights
from thorndike.networks.mlp import MLP
from thorndike.networks.network import Network
from thorndike.sequences import Unrolled, over_time, remembers, step


class ImplicitQuantiles(eqx.Module):
    """Z_tau = f(psi(s) * phi(tau)): Dabney et al. (2018), "Implicit quantile networks", section 3.1.

    Called as a network it gives the torso's features; `quantiles` makes the rest of them.
    """

    torso: Any  # what any recipe makes; its outputs go through ReLU, and are psi
    weight: jax.Array  # [features, cosines] of phi
    bias: jax.Array  # [features]
    head: Any  # f, from features to outputs

    def __call__(self, observation: Any, carry: Any = ()) -> Any:
        return step(self.torso, observation, carry) if remembers(carry) else self.torso(observation)

    def over_time(self, observation: Any, carry: Any, ended: jax.Array) -> Unrolled:
        return over_time(self.torso, observation, carry, ended)

    def quantiles(self, features: jax.Array, tau: jax.Array) -> jax.Array:
        """[B, outputs, K] at levels tau [B, K], or the same [1, K] for all, of the torso's features [B, F]."""
        order = jnp.arange(self.weight.shape[1], dtype=jnp.float32)
        cosines = jnp.cos(jnp.pi * order[None, None] * tau[..., None])  # equation 4
        phi = jax.nn.relu(cosines @ self.weight.T + self.bias[None, None])
        joined = jax.nn.relu(features)[:, None] * phi  # [B, K, F]
        return jax.vmap(self.head, 1, 2)(joined)


def init_implicit(
    recipe: Network, key: jax.Array, observation_space: spaces.Space, outputs: int, features: int, cosines: int
) -> ImplicitQuantiles:
    """With a torso that the recipe makes; f has one hidden layer, noisy where the recipe's are."""
    key_torso, key_phi, key_head = random.split(key, 3)
    (weight,), (bias,) = draw_weights(key_phi, [(cosines, features)], "default", 1.0)
    head = MLP((features,), activation="relu", initialization="default", noisy=recipe.noisy)
    joined = spaces.Box(-np.inf, np.inf, (features,), np.float32)
    torso = recipe.init(key_torso, observation_space, features)
    return ImplicitQuantiles(torso, weight, bias, head.init(key_head, joined, outputs))
