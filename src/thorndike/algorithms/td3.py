"""Twin delayed deterministic policy gradient, and the deterministic policy gradient that it improves on."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from gymnasium import spaces
from jax import random

from thorndike import masks, normalization, sequences
from thorndike.core import Batch, Transition
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.loops import repeat
from thorndike.memories import Replay, check_parts, check_replay, first_carry, in_parts
from thorndike.networks import (
    MLP,
    Network,
    Same,
    check_special,
    critic_outputs,
    critic_outputs_over_time,
    init_critics,
    init_critics_carry,
)  # fmt: skip
from thorndike.optimizers import Adam, Optimizer, improved
from thorndike.schedules import falling
from thorndike.sequences import Unrolled, first, flat, over_time, shapes_of_carry
from thorndike.spaces import check_bounded_actions
from thorndike.targets import NStep, recalled


class Actor(eqx.Module):
    """mu(s): one action for each observation, in [-1, 1]."""

    network: Any
    shape: tuple[int, ...] = eqx.field(static=True)  # of an action

    def squashed(self, outputs: jax.Array) -> jax.Array:
        """The actions [B, *shape] that the network's outputs mean."""
        return jnp.tanh(outputs).reshape(-1, *self.shape)


class State(NamedTuple):
    actor: Actor
    critics: Any  # Q(s, a), as many as `num_critics`
    target_actor: Actor  # these two follow slowly: what the critics' targets come from
    target_critics: Any
    optimizers: tuple  # of the actor, of the critics
    statistics: Any  # what observations and rewards are normalised by

    @property
    def network(self) -> Any:
        return self.actor.network


class Policy(NamedTuple):
    actor: Actor
    noise: jax.Array  # standard deviation of what is added to actions
    observations: Any  # what they are normalised by


@hyperparameters
class TD3:
    """Deterministic policy gradients that do not believe their critics too early.

    Fujimoto et al. (2018), "Addressing function approximation error in actor-critic methods", with its three ideas:
    the least of two critics is believed, the actor moves once for every `policy_delay` steps of the critics, and the
    critics' targets are blurred over nearby actions. One update draws `memory.batch_size` windows and learns from them
    in `policy_delay` equal parts, one for each step of the critics. For Box actions with bounds; noise is in units of
    half their range. Networks with a memory learn from steps in a row, `memory=Replay(sequence=..., burn_in=...)`;
    critics do not act, so that only the burn-in fills their memories.
    """

    network: Network = MLP((400, 300), activation="relu", initialization="default")
    critic_network: Network = Same()
    num_critics: int = setting(2, low=1, high=100)  # the least of their values is the one believed
    learning_rate: float = setting(1e-3, low=0)
    critic_learning_rate: float | None = setting(None, low=0)  # None: the same
    learning_rate_end: float | None = setting(None, low=0, end_of="learning_rate")  # of a linear fall; None: they stay
    optimizer: Optimizer = Adam()
    gamma: float = setting(0.99, low=0, high=1)  # discount
    tau: float = setting(0.005, low=0, high=1)  # share of the networks that enters their targets at each update
    policy_delay: int = setting(2, low=1, high=2**20)  # steps of the critics for one of the actor
    exploration_noise: float = setting(0.1, low=0)  # standard deviation, when acting
    target_noise: float = setting(0.2, low=0)  # standard deviation, in the critics' targets
    target_noise_clip: float = setting(0.5, low=0, infinite=True)
    normalize_observations: bool = False  # by the mean and variance of all that was seen
    normalize_rewards: bool = False  # by the spread of discounted returns
    clip_rewards: bool = False  # learn from their signs, as usual for Atari games
    num_environments: int = setting(1, low=1, high=2**20)
    rollout_length: int = setting(2, low=1)
    updates_per_rollout: int = setting(1, low=1, high=2**20)
    warmup_steps: int = setting(10_000, low=0)
    memory: Replay = Replay(capacity=1_000_000, batch_size=200)

    def validate(self) -> None:
        check_replay(self, shapes_of_carry(partial(init_critics_carry, self)))
        check_parts(self)
        check_special(self)

    def check(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        check_bounded_actions(type(self).__name__, action_space)
        masks.check(observation_space, action_space)

    def descent(self, fraction: jax.Array | float = 0.0, rate: Any = None) -> optax.GradientTransformation:
        rate = falling(self.learning_rate if rate is None else rate, self.learning_rate_end, fraction)
        return self.optimizer.descent(rate)

    def init(self, key: jax.Array, observation_space: spaces.Space, action_space: Any) -> State:
        key_actor, key_critics = random.split(key)
        size = math.prod(action_space.shape)
        actor = Actor(self.network.init(key_actor, observation_space, size), action_space.shape)
        critics = init_critics(self, key_critics, observation_space, action_space, self.outputs_of_critics)
        target_actor, target_critics = jax.tree.map(jnp.copy, (actor, critics))
        optimizers = self.descent().init(actor), self.descent().init(critics)
        statistics = normalization.begin(self, observation_space)
        return State(actor, critics, target_actor, target_critics, optimizers, statistics)

    def policy(self, state: State, fraction: jax.Array, explore: bool = True) -> Policy:
        noise = jnp.asarray(self.exploration_noise, jnp.float32)
        return Policy(state.actor, noise if explore else jnp.zeros_like(noise), state.statistics.observations)

    def network_carry(self, n: int) -> Any:
        return self.network.initial_carry(n)

    def initial_carry(self, n: int) -> Any:
        return self.network_carry(n)

    def act(self, policy: Policy, observation: Any, carry: Any, key: jax.Array) -> tuple[jax.Array, Any, dict]:
        action, after = self.greedy(policy, observation, carry)
        action = action + policy.noise * random.normal(key, action.shape)
        return jnp.clip(action, -1.0, 1.0), after, {"carry": carry}

    def greedy(self, policy: Policy, observation: Any, carry: Any) -> tuple[jax.Array, Any]:
        observation = normalization.normalize(policy.observations, observation)
        outputs, after = sequences.step(policy.actor.network, observation, carry)
        return policy.actor.squashed(outputs), after

    def observe(self, state: State, trajectory: Transition) -> State:
        return state._replace(statistics=normalization.observe(state.statistics, trajectory, self.gamma))

    def restarted(self, state: State, begun: jax.Array) -> State:
        return state._replace(statistics=normalization.restarted(state.statistics, begun))

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, jax.Array]:
        """`policy_delay` steps of the critics, each on a part of the batch [T, B], then one of the actor."""
        optimizer, critic_optimizer = self.descent(fraction), self.descent(fraction, self.critic_learning_rate)
        step = self.recall(state, normalization.apply(state.statistics, batch.steps))
        drawn = step, jnp.broadcast_to(batch.weight[None], step.reward.shape)
        parts = in_parts(drawn, self.policy_delay)

        def critic_step(carry, part):
            (critics, moments), ((step, weight), key) = carry, part
            target = self.target(state, step, key)

            def loss(critics):
                taken = self.taken(critics, step.observation, step.action, first(step.carry[1]), step.ended)
                per_sample, error = self.errors(taken.outputs, target)
                return (flat(weight) * per_sample).mean(), error.reshape(weight.shape)

            critics, moments, value, error = improved(loss, critics, moments, critic_optimizer)
            return (critics, moments), (value, error)

        of_actor, of_critics = state.optimizers
        parts = parts, random.split(key, self.policy_delay)
        (critics, of_critics), (loss, error) = repeat(
            critic_step, (state.critics, of_critics), parts, self.policy_delay
        )
        step, _ = jax.tree.map(lambda x: x[-1], parts[0])
        actor, of_actor, loss_of_actor, _ = improved(
            lambda actor: (self.actor_loss(actor, critics, step), None), state.actor, of_actor, optimizer
        )
        targets = state.target_actor, state.target_critics
        target_actor, target_critics = optax.incremental_update((actor, critics), targets, self.tau)
        state = State(actor, critics, target_actor, target_critics, (of_actor, of_critics), state.statistics)
        return state, {"critic_loss": loss.mean(), "value": -loss_of_actor}, jnp.concatenate([*error], axis=1)  # [L, B]

    def recall(self, state: State, window: Transition) -> NStep:
        """What windows [T, B] teach, seen with the carries of actors and critics along the actions taken."""
        ended, zeros = window.terminated | window.truncated, init_critics_carry(self, window.reward.shape[1])
        carry, networks = first_carry(window, self.network_carry), (state.actor.network, state.target_actor.network)
        actors = over_time(networks, window.observation, (carry, carry), ended)
        critics, targets = (
            self.taken(critics, window.observation, window.action, zeros, ended)
            for critics in (state.critics, state.target_critics)
        )
        seen = Unrolled((), (actors.before[:1], critics.before), (actors.after[1:], targets.after))
        return recalled(window, self.gamma, self.memory, seen)

    def target(self, state: State, step: NStep, key: jax.Array) -> jax.Array:
        """What the critics are to say of s and a [L * B, ...]: the target actor's action a' follows, blurred."""
        step = flat(step)
        (actor_carry,), critics_carry = step.next_carry
        outputs, _ = sequences.step(state.target_actor.network, step.next_observation, actor_carry)
        action = state.target_actor.squashed(outputs)
        noise = self.target_noise * random.normal(key, action.shape)
        action = jnp.clip(action + jnp.clip(noise, -self.target_noise_clip, self.target_noise_clip), -1.0, 1.0)
        following = {"action": action, "observation": step.next_observation}
        return self.backed_up(step, critic_outputs(state.target_critics, following, critics_carry))

    @property
    def outputs_of_critics(self) -> int:
        return 1

    def taken(self, critics: Any, observation: Any, action: Any, carry: Any, ended: jax.Array) -> Unrolled:
        """What every critic puts out [critics, L * B, outputs] along sequences [L, B]."""
        return critic_outputs_over_time(critics, {"action": action, "observation": observation}, carry, ended)

    def q(self, outputs: jax.Array) -> jax.Array:
        """The values [critics, B] that the critics' outputs mean."""
        return outputs[..., 0]

    def backed_up(self, step: NStep, outputs: jax.Array) -> jax.Array:
        """[B]: r + gamma min Q'(s', a')."""
        return step.reward + step.discount * self.q(outputs).min(0)

    def errors(self, outputs: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of the critics' outputs: the sum of their squared errors, and the mean of their sizes, per sample [B]."""
        error = self.q(outputs) - target[None]
        return jnp.square(error).sum(0), jnp.abs(error).mean(0)

    def climbed(self, critics: Any, carry: Any) -> tuple[Any, Any]:
        """The critics whose least value the actor climbs, with what they carry [L, critics, ...]: the first alone."""
        return jax.tree.map(lambda x: x[:1], critics), jax.tree.map(lambda x: x[:, :1], carry)

    def actor_loss(self, actor: Actor, critics: Any, step: NStep) -> jax.Array:
        """-Q(s, mu(s))."""
        (actor_carry,), critics_carry = first(step.carry)
        critics, carry = self.climbed(critics, critics_carry)
        outputs = over_time(actor.network, step.observation, actor_carry, step.ended).outputs
        before = self.taken(critics, step.observation, step.action, carry, step.ended).before
        chosen = {"action": actor.squashed(flat(outputs)), "observation": flat(step.observation)}
        return -self.q(critic_outputs(critics, chosen, flat(before))).min(0).mean()


@hyperparameters
class DDPG(TD3):
    """Deep deterministic policy gradient: TD3 without its three ideas.

    Lillicrap et al. (2016), "Continuous control with deep reinforcement learning"; its noise is Gaussian here.
    """

    num_critics: int = setting(1, low=1, high=100)
    policy_delay: int = setting(1, low=1, high=2**20)
    target_noise: float = setting(0.0, low=0)
    rollout_length: int = setting(1, low=1)
    memory: Replay = Replay(capacity=1_000_000, batch_size=100)
