"""Dropout Q-functions: what many critics do for REDQ, two with dropout and layer normalisation do here."""

from __future__ import annotations

import jax

from thorndike.algorithms.sac import SAC
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories import Replay
from thorndike.networks import MLP, Network


@hyperparameters
class DroQ(SAC):
    """SAC that learns many times for each step, with critics that are held back by dropout and layer normalisation.

    Hiraoka et al. (2022), "Dropout Q-functions for doubly efficient reinforcement learning", algorithm 2: units are
    dropped wherever critics are asked, also for targets and by the actor, which climbs the mean of the critics.
    """

    critic_network: Network = MLP((256, 256), "relu", "default", layer_norm=True, dropout=0.01)
    policy_delay: int = setting(20, low=1, high=2**20)
    warmup_steps: int = setting(5_000, low=0)
    memory: Replay = Replay(capacity=1_000_000, batch_size=20 * 256)

    def actor_value(self, values: jax.Array) -> jax.Array:
        return values.mean(0)
