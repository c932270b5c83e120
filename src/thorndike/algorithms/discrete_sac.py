"""Soft actor-critic over choices: what is a sample for continuous actions is an expectation here."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from gymnasium import spaces

from thorndike import masks
from thorndike.algorithms.sac import SAC
from thorndike.distributions import Categorical, Head
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.networks import critic_outputs, critic_outputs_over_time, init_choice_critics
from thorndike.sequences import Unrolled, flat
from thorndike.spaces import check_discrete_actions


@hyperparameters
class DiscreteSAC(SAC):
    """Soft actor-critic for Discrete actions: critics with a value for each, and no action drawn to learn from.

    Christodoulou (2019), "Soft actor-critic for discrete action settings". Its target entropy is a share of the largest
    that there is, log A for A choices; where actions are masked, A is the number of those that are legal.
    """

    target_entropy: float = setting(0.98, low=0, high=1)  # share of log A
    state_dependent_noise: ClassVar[bool] = False  # type: ignore[misc]
    initial_log_std: ClassVar[float] = 0.0  # type: ignore[misc]

    def check(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        check_discrete_actions("DiscreteSAC", action_space)
        masks.check(observation_space, action_space)

    def init_head_and_critics(self, key: jax.Array, observation_space: spaces.Space, action_space: Any) -> tuple:
        head = Head.of(action_space)
        return head, init_choice_critics(self, key, observation_space, head.outputs)

    def taken(self, critics: Any, observation: Any, action: Any, carry: Any, ended: jax.Array) -> Unrolled:
        seen = critic_outputs_over_time(critics, observation, carry, ended)  # [critics, L * B, A]
        return seen._replace(outputs=jnp.take_along_axis(seen.outputs, flat(action)[None, :, None], axis=2)[..., 0])

    def judged(self, distribution: Any, critics: Any, observation: Any, carry: Any, key: jax.Array, take: Any) -> tuple:
        """The expectations of log pi(a|s) and of min Q(s, a) over the actor's actions: [B] each (equations 10, 12)."""
        value = critic_outputs(critics, observation, carry).min(0)
        return -distribution.entropy(), (distribution.probabilities * value).sum(-1)

    def log_prob(self, distribution: Categorical, key: jax.Array) -> jax.Array:
        return -distribution.entropy()

    def entropy_aim(self, head: Head, observation: Any = None) -> Any:
        mask = masks.of(flat(observation))
        choices = jnp.float32(head.outputs) if mask is None else masks.count(mask)
        return self.target_entropy * jnp.log(choices).mean()
