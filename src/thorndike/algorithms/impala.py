"""IMPALA's learner: an actor-critic whose targets are right for experience of older policies."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from thorndike import intrinsic, normalization
from thorndike.algorithms.ppo import PPO, Parameters, State
from thorndike.core import Batch, Transition
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories import Latest, Replay, check_replay, check_shared_memory, first_carry
from thorndike.optimizers import Optimizer, RMSProp, check_critic_rate, improved
from thorndike.sequences import over_time, side_by_side
from thorndike.targets import v_trace


@hyperparameters
class IMPALA(PPO):
    """Policy gradients with V-trace targets, for Discrete, MultiDiscrete and Box actions.

    Espeholt et al. (2018), "IMPALA: scalable distributed deep-RL with importance weighted actor-learner architectures".
    Where its actors lag behind its learner, steps here are learned from by a policy that has moved on since it acted:
    for `updates_per_rollout` above 1, and from `memory=Replay(sequence=...)`, which keeps rollouts of older policies.
    The probabilities that were acted with are remembered. `critic_network=None` shares the actor's torso with the
    value. Networks with a memory learn through all steps of a window.
    """

    learning_rate: float = setting(6e-4, low=0)
    optimizer: Optimizer = RMSProp(decay=0.99, eps=0.01)
    gae_lambda: float = setting(1.0, low=0, high=1)
    rho_bar: float = setting(1.0, above=0, infinite=True)  # largest weight of a step: infinite, it is the policy's own
    c_bar: float = setting(1.0, low=0, infinite=True)  # largest weight with which later steps are believed
    ent_coef: float = setting(0.01, low=0)
    max_grad_norm: float = setting(40.0, above=0, infinite=True)
    rollout_length: int = setting(20, low=1)
    updates_per_rollout: int = setting(1, low=1, high=2**20)  # type: ignore[misc]
    memory: Latest | Replay = Latest()  # type: ignore[misc, assignment]
    without: ClassVar[tuple[str, ...]] = (
        "clip_range", "clip_range_end", "clip_value", "target_kl", "epochs", "batch_size", "sequence_length",
        "normalize_advantages",
    )  # fmt: skip

    def validate(self) -> None:
        check_critic_rate(self, "critic_network")
        check_shared_memory(self)
        if isinstance(self.memory, Replay):
            check_replay(self)  # type: ignore[arg-type]
            if self.memory.window > 1 or self.memory.burn_in:
                raise SettingError(
                    f"{type(self).__name__}: all steps of a window are learned from, and its returns are as long as "
                    "it is: give memory=Replay(sequence=...), without a window or a burn-in"
                )

    def observe(self, state: State, trajectory: Transition) -> State:
        state = super().observe(state, trajectory)
        return state._replace(statistics=normalization.observe(state.statistics, trajectory, self.gamma))

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, jax.Array]:
        """One gradient step on windows [T, B], or on the whole rollout."""
        reward, more = intrinsic.found(self, state.intrinsic, batch.steps)
        steps = intrinsic.added(normalization.apply(state.statistics, batch.steps), reward)
        parameters, optimizer, _, (metrics, error) = improved(
            lambda parameters: self.loss(parameters, steps, batch.weight),
            state.parameters, state.optimizer, self.descent(fraction),
        )  # fmt: skip
        return state._replace(parameters=parameters, optimizer=optimizer), metrics | more, error

    def loss(self, parameters: Parameters, steps: Transition, weight: jax.Array) -> tuple[jax.Array, tuple]:  # type: ignore[override]
        """-rho log pi(a|x) (r + gamma v' - V(x)), (v - V(x))^2 and the entropy's bonus (section 4.2)."""
        ends = steps.terminated, steps.truncated
        carry = first_carry(steps, self.initial_carry)
        outputs, _, after = over_time(parameters.networks, steps.observation, carry, ends[0] | ends[1])
        following, _ = side_by_side(parameters.networks, steps.next_observation, after)
        distribution = parameters.distribution(outputs, steps.observation)
        log_prob, value = distribution.log_prob(steps.action), parameters.value(outputs)
        seen = value, parameters.value(following), steps.reward, *ends, log_prob - steps.extras["log_prob"]
        target, advantage = v_trace(*jax.lax.stop_gradient(seen), self.gamma, self.gae_lambda, self.rho_bar, self.c_bar)
        policy_loss = -(weight[None] * log_prob * advantage).mean()
        error, entropy = target - value, (weight[None] * distribution.entropy()).mean()
        value_loss = 0.5 * (weight[None] * jnp.square(error)).mean()
        metrics = {
            "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy, "ratio": jnp.exp(seen[-1]).mean()
        }  # fmt: skip
        return policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy, (metrics, jnp.abs(error))
