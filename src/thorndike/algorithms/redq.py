"""Randomized ensembled double Q-learning: soft actor-critic with many critics, which learn many times for each step."""

from __future__ import annotations

from typing import Any

import jax
from jax import random

from thorndike.algorithms.sac import SAC, State
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories import Replay
from thorndike.targets import NStep


@hyperparameters
class REDQ(SAC):
    """SAC whose targets believe the least of a few of many critics, drawn anew for each of their steps.

    Chen et al. (2021), "Randomized ensembled double Q-learning: learning fast without a model", algorithm 1: the
    critics learn `policy_delay` times for each step of the environment, then the actor once, by the mean of them all.
    """

    num_critics: int = setting(10, low=1, high=100)
    target_critics: int = setting(2, low=1, high=100)  # of them drawn for a target, whose least is the one believed
    policy_delay: int = setting(20, low=1, high=2**20)
    warmup_steps: int = setting(5_000, low=0)
    memory: Replay = Replay(capacity=1_000_000, batch_size=20 * 256)

    def validate(self) -> None:
        super().validate()
        if self.target_critics > self.num_critics:
            raise SettingError(f"REDQ: target_critics {self.target_critics} are more than num_critics")

    def target(self, state: State, step: NStep, ent_coef: Any, key: jax.Array) -> jax.Array:
        """Equation 1: the least is over a random set of the critics."""
        key_drawn, key = random.split(key)
        drawn = random.permutation(key_drawn, self.num_critics)[: self.target_critics]
        actor_carry, carry = step.next_carry
        critics = jax.tree.map(lambda x: x[drawn], state.target_critics)
        step = step._replace(next_carry=(actor_carry, jax.tree.map(lambda x: x[:, :, drawn], carry)))
        return super().target(state._replace(target_critics=critics), step, ent_coef, key)

    def actor_value(self, values: jax.Array) -> jax.Array:
        return values.mean(0)
