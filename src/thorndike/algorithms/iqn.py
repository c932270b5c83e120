"""Implicit quantile networks: learn any quantile of what every action returns, by asking for random ones."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from gymnasium import spaces
from jax import random

from thorndike.algorithms.dqn import DQN, duel
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.networks import ImplicitQuantiles, init_implicit
from thorndike.targets import NStep, midpoints, quantile_huber


@hyperparameters
class IQN(DQN):
    """DQN whose networks are asked for quantiles of the return, at random levels tau for every sample.

    Dabney et al. (2018), "Implicit quantile networks for distributional reinforcement learning". `network` makes the
    features of an observation, with a memory or without, and a layer more joins them with tau. Actions, those that are
    taken and the next ones of targets, are chosen by the mean of evenly spaced quantiles; theirs are drawn. All else is
    as in DQN: quantiles may duel, be rescaled, or be of Munchausen's targets. Priorities are errors of the mean.
    """

    loss: ClassVar[Any] = "quantile"  # type: ignore[misc]
    features: int = setting(64, low=1)
    cosines: int = setting(64, low=1)  # that tau is seen by
    num_tau_samples: int = setting(8, low=1)  # N quantiles that learn
    num_tau_prime_samples: int = setting(8, low=1)  # N' of their targets
    num_quantile_samples: int = setting(32, low=1)  # K that actions are chosen by
    kappa: float = setting(1.0, above=0)  # errors above count as they are, those below by their squares

    def init_network(self, key: jax.Array, observation_space: spaces.Space, actions: int) -> ImplicitQuantiles:
        outputs = actions + self.dueling
        return init_implicit(self.network, key, observation_space, outputs, self.features, self.cosines)

    def of_actions(self, network: Any, outputs: jax.Array, tau: Any = None) -> jax.Array:
        """Quantiles [B, A, K] at levels tau [B, K] of features [B, F]; evenly spaced ones if none are said."""
        quantiles = network.quantiles(outputs, midpoints(self.num_quantile_samples) if tau is None else tau)
        return duel(quantiles) if self.dueling else quantiles

    def q(self, network: Any, outputs: jax.Array) -> jax.Array:
        """The means [B, A] of K quantiles (equation 5)."""
        return self.unscaled(self.of_actions(network, outputs)).mean(-1)

    def losses(self, network: Any, target_network: Any, step: NStep, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Equation 3, summed over N quantiles; and the error of the mean."""
        key_following, key_taken, key_tau, key_tau_prime = random.split(key, 4)
        size = step.reward.size
        tau = random.uniform(key_tau, (size, self.num_tau_samples), jnp.float32)
        tau_prime = random.uniform(key_tau_prime, (size, self.num_tau_prime_samples), jnp.float32)
        target = self.target(self.best_following(network, target_network, step, key_following, tau_prime), step)
        quantiles = self.taken(network, step, key_taken, tau)
        return quantile_huber(quantiles, tau, target, self.kappa), jnp.abs(target.mean(-1) - quantiles.mean(-1))
