"""Quantile regression DQN: learn the quantiles of what every action returns."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import random

from thorndike.algorithms.dqn import DQN
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.targets import NStep, midpoints, quantile_huber


@hyperparameters
class QRDQN(DQN):
    """DQN whose networks put out quantiles of the return, at the middles of as many equal parts of probability.

    Dabney et al. (2018), "Distributional reinforcement learning with quantile regression" (theirs are 200). All else is
    as in DQN: quantiles may duel, be rescaled, or be of Munchausen's targets. Priorities are errors of the mean.
    """

    loss: ClassVar[Any] = "quantile"  # type: ignore[misc]
    quantiles: int = setting(50, low=1)
    kappa: float = setting(1.0, above=0)  # errors above count as they are, those below by their squares

    @property
    def atoms(self) -> int:
        return self.quantiles

    def q(self, network: Any, outputs: jax.Array) -> jax.Array:
        """The means [B, A] of the quantiles."""
        return self.unscaled(self.of_actions(network, outputs)).mean(-1)

    def losses(self, network: Any, target_network: Any, step: NStep, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Algorithm 1, with the loss of equation 10; and the error of the mean."""
        key_following, key_taken = random.split(key)
        target = self.target(self.best_following(network, target_network, step, key_following), step)
        quantiles = self.taken(network, step, key_taken)
        loss = quantile_huber(quantiles, midpoints(self.quantiles), target, self.kappa)
        return loss, jnp.abs(target.mean(-1) - quantiles.mean(-1))
