"""CrossQ: soft actor-critic without target networks, because batch normalisation keeps its critics steady."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from gymnasium import spaces
from jax import lax

from thorndike.algorithms.sac import SAC, State
from thorndike.core import Transition
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories import Replay
from thorndike.networks import RENORMALIZATION, Network, RenormalizedMLP, Same
from thorndike.optimizers import Adam, Optimizer, improved
from thorndike.sequences import flat
from thorndike.targets import NStep


@hyperparameters
class CrossQ(SAC):
    """SAC whose critics see what was done and what follows as one batch, normalised as one, and so need no targets.

    Bhatt et al. (2024), "CrossQ: batch normalization in deep reinforcement learning for greater sample efficiency and
    simplicity". Actor and critics are `RenormalizedMLP`s; the paper's critics have 2048 units, 256 do as well on small
    tasks and learn many times quicker.
    """

    network: Network = RenormalizedMLP((256, 256))
    critic_network: Network = RenormalizedMLP((2048, 2048))
    learning_rate: float = setting(1e-3, low=0)
    optimizer: Optimizer = Adam(b1=0.5)
    tau: ClassVar[None] = None  # type: ignore[misc]  # nothing follows the critics
    state_dependent_noise: ClassVar[bool] = False  # type: ignore[misc]
    initial_log_std: ClassVar[None] = None  # type: ignore[misc]
    policy_delay: int = setting(3, low=1, high=2**20)
    rollout_length: int = setting(3, low=1)
    warmup_steps: int = setting(5_000, low=0)
    memory: Replay = Replay(capacity=1_000_000, batch_size=3 * 256)
    special: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(("network", "critic_network"), (RENORMALIZATION,))

    def validate(self) -> None:
        super().validate()
        for field in ("network", "critic_network"):
            if not isinstance(getattr(self, field), (RenormalizedMLP, Same)):
                raise SettingError(f"CrossQ: {field} must be RenormalizedMLP(...): without it, nothing keeps it steady")

    def init(self, key: jax.Array, observation_space: spaces.Space, action_space: Any) -> State:
        state = super().init(key, observation_space, action_space)
        trained = state.network.trained, state.critics.trained, state.log_ent_coef
        return state._replace(target_critics=(), optimizers=tuple(map(self.descent().init, trained)))

    def recall(self, state: State, window: Transition, ent_coef: Any, key: jax.Array) -> NStep:
        return super().recall(state._replace(target_critics=state.critics), window, ent_coef, key)

    def improve_critics(self, state: State, step: NStep, weight: Any, ent_coef: Any, optimizer: Any, key: Any) -> tuple:
        """One step of the critics, by what they say themselves of the next actions, in the same batch (section 3)."""
        step = flat(step)
        action, log_prob = state.head(state.network(step.next_observation)).sample_and_log_prob(key)
        now = {"action": step.action, "observation": step.observation}
        following = {"action": action, "observation": step.next_observation}
        both = jax.tree.map(lambda *x: jnp.concatenate(x), now, following)

        def critic_loss(trained):
            critics = trained.knowing(state.critics.running)
            outputs, running = jax.vmap(lambda critic: critic.learning(both))(critics)
            value, next_value = jnp.split(outputs[..., 0], 2, axis=1)  # [critics, L * B]
            target = self.soft_target(step, self.believed(next_value), ent_coef * log_prob)
            squared, error = self.errors(value, lax.stop_gradient(target))
            return 0.5 * (weight * squared).mean(), (error, running)

        of_actor, moments, of_ent_coef = state.optimizers
        trained, moments, loss, (error, running) = improved(critic_loss, state.critics.trained, moments, optimizer)
        optimizers = of_actor, moments, of_ent_coef
        return state._replace(critics=trained.knowing(running), optimizers=optimizers), loss, error

    def improve_actor(self, state: State, step: NStep, ent_coef: Any, optimizer: Any, key: jax.Array) -> tuple:
        """One step of the actor, which learns normalised by the batch; critics say what they say one by one."""
        seen = flat(step.observation)

        def actor_loss(trained):
            outputs, running = trained.knowing(state.network.running).learning(seen)
            log_prob, value = self.judged(state.head(outputs), state.critics, seen, (), key, self.actor_value)
            return (ent_coef * log_prob - value).mean(), (log_prob.mean(), value.mean(), running)

        of_actor, *others = state.optimizers
        trained, of_actor, _, outputs = improved(actor_loss, state.network.trained, of_actor, optimizer)
        log_prob, value, running = outputs
        return state._replace(network=trained.knowing(running), optimizers=(of_actor, *others)), log_prob, value
