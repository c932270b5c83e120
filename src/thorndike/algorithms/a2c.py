"""Advantage actor-critic: one plain policy-gradient step on each short rollout."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from thorndike import intrinsic
from thorndike.algorithms.ppo import PPO, Parameters, State
from thorndike.core import Batch, Transition
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories import check_shared_memory
from thorndike.optimizers import Optimizer, RMSProp, check_critic_rate, improved
from thorndike.sequences import flat, remembers, shapes_of_carry
from thorndike.targets import standardized


@hyperparameters
class A2C(PPO):
    """The synchronous advantage actor-critic, for Discrete, MultiDiscrete and Box actions.

    Mnih et al. (2016), "Asynchronous methods for deep reinforcement learning": n-step returns of each rollout, one
    gradient step on all of it. Its workers are copies of the environment here, whose gradients are averaged. A
    `gae_lambda` below 1 makes lambda-returns of the n-step ones (Schulman et al., 2016). `critic_network=None` shares
    the actor's torso with the value, as in the paper. Networks with a memory learn through the whole rollout.
    """

    learning_rate: float = setting(7e-4, low=0)
    optimizer: Optimizer = RMSProp(decay=0.99, eps=1e-5)
    gae_lambda: float = setting(1.0, low=0, high=1)
    ent_coef: float = setting(0.01, low=0)
    normalize_advantages: bool = False
    rollout_length: int = setting(5, low=1)
    without: ClassVar[tuple[str, ...]] = (
        "clip_range", "clip_range_end", "clip_value", "target_kl", "epochs", "batch_size", "sequence_length",
    )  # fmt: skip

    def validate(self) -> None:
        check_critic_rate(self, "critic_network")
        check_shared_memory(self)

    @property
    def length(self) -> int:
        return self.rollout_length if remembers(shapes_of_carry(self.initial_carry)) else 1

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, tuple]:
        """One gradient step on the whole rollout [T, N]."""
        reward, more = intrinsic.found(self, state.intrinsic, batch.steps)
        rows, statistics = self.prepare(state, batch.steps, reward)
        parameters, optimizer, _, metrics = improved(
            lambda parameters: self.loss(parameters, rows), state.parameters, state.optimizer, self.descent(fraction)
        )
        state = state._replace(parameters=parameters, optimizer=optimizer, statistics=statistics)
        return state, metrics | more, ()

    def loss(self, parameters: Parameters, rollout: Transition) -> tuple[jax.Array, dict]:  # type: ignore[override]
        """-log pi(a|s) (R - V(s)), (R - V(s))^2 and the entropy's bonus: the paper's section 4 and algorithm S3."""
        distribution, value = self.seen(parameters, rollout)
        advantage, target = flat(rollout.extras["advantage"]), flat(rollout.extras["target"])
        if self.normalize_advantages:
            advantage = standardized(advantage)
        policy_loss = -(distribution.log_prob(flat(rollout.action)) * advantage).mean()
        value_loss, entropy = 0.5 * jnp.square(value - target).mean(), distribution.entropy().mean()
        metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy, metrics
