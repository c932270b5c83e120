"""Truncated quantile critics: believe the distribution of returns, but not its upper end."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from thorndike.algorithms.sac import SAC
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.networks import MLP, Network
from thorndike.targets import midpoints, quantile_huber


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

    @property
    def atoms(self) -> int:
        return self.quantiles

    def believed(self, outputs: jax.Array) -> jax.Array:
        """The kN lowest of the atoms of all critics together, [B, kN] (equations 7 and 8)."""
        together = jnp.sort(outputs.swapaxes(0, 1).reshape(outputs.shape[1], -1), axis=1)
        return together[:, : self.num_critics * (self.quantiles - self.top_quantiles_to_drop)]

    def actor_value(self, outputs: jax.Array) -> jax.Array:
        return outputs.mean((0, 2))

    def losses(self, outputs: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The quantile Huber loss (equation 9), the mean over critics and their quantiles."""
        loss = jax.vmap(lambda one: quantile_huber(one, midpoints(self.quantiles), target, 1.0))(outputs)
        loss = loss.mean(0) / self.quantiles
        return 2 * loss, jnp.abs(outputs.mean(2) - target.mean(1)[None]).mean(0)
