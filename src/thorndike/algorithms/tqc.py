"""Truncated quantile critics: believe the distribution of returns, but not its upper end."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from gymnasium import spaces

from thorndike.algorithms.sac import SAC
from thorndike.distributions import Head
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.networks import MLP, Network, critic_outputs, critic_outputs_over_time, init_critics
from thorndike.sequences import Unrolled
from thorndike.targets import NStep, midpoints, quantile_huber


@hyperparameters
class TQC(SAC):
    """SAC whose critics learn quantiles of the return, the highest of which are left out of the targets.

    Kuznetsov et al. (2020), "Controlling overestimation bias with truncated mixture of continuous distributional
    quantile critics". A critic's value is the mean of its quantiles.
    """

    critic_network: Network = MLP((512, 512, 512), activation="relu", initialization="default")
    num_critics: int = setting(5, low=1, high=100)
    quantiles: int = setting(25, low=1, high=10_000)  # of each critic
    top_quantiles_to_drop: int = setting(2, low=0)  # for each critic, of all of them together

    def validate(self) -> None:
        super().validate()
        if self.top_quantiles_to_drop >= self.quantiles:
            raise SettingError(
                f"TQC: top_quantiles_to_drop {self.top_quantiles_to_drop} leaves none of {self.quantiles} quantiles"
            )

    def init_head_and_critics(self, key: jax.Array, observation_space: spaces.Space, action_space: Any) -> tuple:
        critics = init_critics(self, key, observation_space, action_space, self.quantiles)
        return Head.squashed(action_space), critics

    def taken(self, critics: Any, observation: Any, action: Any, carry: Any, ended: jax.Array) -> Unrolled:
        """The quantiles of every critic [critics, L * B, M]."""
        return critic_outputs_over_time(critics, {"action": action, "observation": observation}, carry, ended)

    def judged(self, distribution: Any, critics: Any, observation: Any, carry: Any, key: jax.Array, take: Any) -> tuple:
        action, log_prob = distribution.sample_and_log_prob(key)
        return log_prob, take(critic_outputs(critics, {"action": action, "observation": observation}, carry))

    def believed(self, values: jax.Array) -> jax.Array:
        """The kN lowest of the atoms of all critics together, [B, kN] (equations 7 and 8)."""
        together = jnp.sort(values.swapaxes(0, 1).reshape(values.shape[1], -1), axis=1)
        return together[:, : self.num_critics * (self.quantiles - self.top_quantiles_to_drop)]

    def actor_value(self, values: jax.Array) -> jax.Array:
        return values.mean((0, 2))

    def soft_target(self, step: NStep, value: jax.Array, cost: jax.Array) -> jax.Array:
        return step.reward[:, None] + step.discount[:, None] * (value - cost[:, None])

    def errors(self, values: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Twice the quantile Huber loss (equation 9), the mean over critics and quantiles; and that of mean values."""
        loss = jax.vmap(lambda one: quantile_huber(one, midpoints(self.quantiles), target, 1.0))(values)
        loss = loss.mean(0) / self.quantiles
        return 2 * loss, jnp.abs(values.mean(2) - target.mean(1)[None]).mean(0)
