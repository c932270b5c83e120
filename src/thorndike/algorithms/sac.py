"""Soft actor-critic: act as randomly as still pays, and learn from everything remembered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from gymnasium import spaces
from jax import random

from thorndike import masks, normalization, sequences
from thorndike.core import Batch, Transition
from thorndike.distributions import Head
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.loops import repeat
from thorndike.memories import Replay, check_parts, check_replay, first_carry, in_parts
from thorndike.networks import MLP, Network, Same, check_special, critics_with_dropout, dropout_keys
from thorndike.networks.critics import critic_values, critics_over_time, init_critics, init_critics_carry
from thorndike.networks.state_dependent_noise import begin_noise, init_actor, renewed
from thorndike.optimizers import Adam, Optimizer, improved
from thorndike.schedules import falling
from thorndike.sequences import Unrolled, first, flat, over_time, shapes_of_carry
from thorndike.spaces import check_bounded_actions
from thorndike.targets import NStep, recalled


class State(NamedTuple):
    network: Any  # the actor
    head: Head  # makes a distribution of its outputs
    critics: Any  # Q(s, a), as many as `num_critics`
    target_critics: Any  # following them slowly: what their targets come from
    log_ent_coef: Any  # of the learned temperature; () where it is fixed
    optimizers: tuple  # of the actor, the critics, the temperature
    statistics: Any  # what observations and rewards are normalised by
    noise: Any = ()  # what exploration is drawn by, where a rollout has one


class Policy(NamedTuple):
    network: Any
    head: Head
    explore: jax.Array  # sample an action, or take the squashed mean
    observations: Any  # what they are normalised by

    def distribution(self, observation: Any, carry: Any) -> tuple[Any, Any]:
        """Over actions [N, ...], for observations [N, ...], and the next carry."""
        observation = normalization.normalize(self.observations, observation)
        outputs, after = sequences.step(self.network, observation, carry)
        return self.head(outputs, masks.of(observation)), after


@hyperparameters
class SAC:
    """Soft actor-critic: an actor that is rewarded for its entropy as well, twin critics, a memory of past steps.

    Haarnoja et al. (2018), "Soft actor-critic algorithms and applications" (its second version: no value network,
    and a temperature that is learned so that the entropy stays at `target_entropy`). For Box actions with bounds. One
    update draws `memory.batch_size` windows and learns from them in `policy_delay` equal parts, one for each step of
    the critics; the actor and the temperature learn from the last. With `state_dependent_noise` exploration is smooth
    over `rollout_length` steps (Raffin et al., 2021, "Smooth exploration for robotic reinforcement learning").
    Networks with a memory learn from steps in a row, `memory=Replay(sequence=..., burn_in=...)`; critics do not act, so
    that only the burn-in fills their memories.
    """

    network: Network = MLP((256, 256), activation="relu", initialization="default")
    critic_network: Network = Same()
    num_critics: int = setting(2, low=1, high=100)  # the least of their values is the one believed
    learning_rate: float = setting(3e-4, low=0)
    critic_learning_rate: float | None = setting(None, low=0)  # None: the same; the temperature has the actor's
    learning_rate_end: float | None = setting(None, low=0, end_of="learning_rate")  # of a linear fall; None: they stay
    optimizer: Optimizer = Adam()
    gamma: float = setting(0.99, low=0, high=1)  # discount
    tau: float = setting(0.005, low=0, high=1)  # share of the critics that enters their targets at each of their steps
    policy_delay: int = setting(1, low=1, high=2**20)  # steps of the critics for one of the actor
    ent_coef: float | None = setting(None, low=0)  # temperature: what a unit of entropy is worth; None: learned
    target_entropy: float | None = None  # None: minus the number of the action's dimensions
    state_dependent_noise: bool = False  # explore by a function of the state, one for each rollout and copy
    initial_log_std: float = -3.0  # of that function's weights
    normalize_observations: bool = False  # by the mean and variance of all that was seen
    normalize_rewards: bool = False  # by the spread of discounted returns
    clip_rewards: bool = False  # learn from their signs, as usual for Atari games
    num_environments: int = setting(1, low=1, high=2**20)
    rollout_length: int = setting(1, low=1)
    updates_per_rollout: int = setting(1, low=1, high=2**20)
    warmup_steps: int = setting(1_000, low=0)
    memory: Replay = Replay(capacity=1_000_000, batch_size=256)
    special: ClassVar[Mapping[str, tuple[str, ...]]] = {"critic_network": ("dropout",)}  # what networks may ask for

    def validate(self) -> None:
        check_replay(self, shapes_of_carry(partial(init_critics_carry, self)))
        check_parts(self)
        check_special(self, **self.special)

    def check(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        check_bounded_actions(type(self).__name__, action_space)
        masks.check(observation_space, action_space)

    def descent(self, fraction: jax.Array | float = 0.0, rate: Any = None) -> optax.GradientTransformation:
        rate = self.learning_rate if rate is None else rate
        return self.optimizer.descent(falling(rate, self.learning_rate_end, fraction))

    def init(self, key: jax.Array, observation_space: spaces.Space, action_space: Any) -> State:
        key_network, key_critics, *key_noise = random.split(key, 2 + self.state_dependent_noise)
        head, critics = self.init_head_and_critics(key_critics, observation_space, action_space)
        network = init_actor(self, key_network, observation_space, head.outputs)
        log_ent_coef = jnp.float32(0) if self.ent_coef is None else ()
        optimizers = tuple(self.descent().init(trained) for trained in (network, critics, log_ent_coef))
        statistics = normalization.begin(self, observation_space)
        rest = log_ent_coef, optimizers, statistics, begin_noise(key_noise)
        return State(network, head, critics, jax.tree.map(jnp.copy, critics), *rest)

    def init_head_and_critics(self, key: jax.Array, observation_space: spaces.Space, action_space: Any) -> tuple:
        return Head.squashed(action_space), init_critics(self, key, observation_space, action_space)

    def policy(self, state: State, fraction: jax.Array, explore: bool = True) -> Policy:
        network, head = state.head.holding(state.network, state.noise if explore else (), self.num_environments)
        return Policy(network, head, jnp.asarray(explore), state.statistics.observations)

    def initial_carry(self, n: int) -> Any:
        return self.network.initial_carry(n)

    def act(self, policy: Policy, observation: Any, carry: Any, key: jax.Array) -> tuple[jax.Array, Any, dict]:
        distribution, after = policy.distribution(observation, carry)
        return jnp.where(policy.explore, distribution.sample(key), distribution.mode()), after, {"carry": carry}

    def greedy(self, policy: Policy, observation: Any, carry: Any) -> tuple[Any, Any]:
        distribution, after = policy.distribution(observation, carry)
        return distribution.mode(), after

    def observe(self, state: State, trajectory: Transition) -> State:
        statistics = normalization.observe(state.statistics, trajectory, self.gamma)
        return state._replace(statistics=statistics, noise=renewed(state.noise))

    def restarted(self, state: State, begun: jax.Array) -> State:
        return state._replace(statistics=normalization.restarted(state.statistics, begun))

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, jax.Array]:
        """`policy_delay` steps of the critics, each on a part of the batch [T, B], then of actor and temperature."""
        keys = random.split(key, self.policy_delay + 2)
        ent_coef = jnp.exp(state.log_ent_coef) if self.ent_coef is None else self.ent_coef
        optimizer, critic_optimizer = self.descent(fraction), self.descent(fraction, self.critic_learning_rate)
        step = self.recall(state, normalization.apply(state.statistics, batch.steps), ent_coef, keys[-1])
        parts = in_parts((step, jnp.broadcast_to(batch.weight[None], step.reward.shape)), self.policy_delay)

        def critic_step(state, part):
            (step, weight), key = part
            state, loss, error = self.improve_critics(state, step, flat(weight), ent_coef, critic_optimizer, key)
            return state, (loss, error.reshape(weight.shape))

        state, (loss, error) = repeat(critic_step, state, (parts, keys[:-2]), self.policy_delay)
        step, _ = jax.tree.map(lambda x: x[-1], parts)
        state, log_prob, value = self.improve_actor(state, step, ent_coef, optimizer, keys[-2])
        if self.ent_coef is None:
            *others, of_ent_coef = state.optimizers
            excess, log_ent_coef = -log_prob - self.entropy_aim(state.head, step.observation), state.log_ent_coef
            log_ent_coef, of_ent_coef, *_ = improved(lambda x: (x * excess, None), log_ent_coef, of_ent_coef, optimizer)
            state = state._replace(log_ent_coef=log_ent_coef, optimizers=(*others, of_ent_coef))
        metrics = {"critic_loss": loss.mean(), "value": value, "entropy": -log_prob, "ent_coef": ent_coef}
        return state, metrics, jnp.concatenate([*error], axis=1)  # [L, B]

    def improve_critics(self, state: State, step: NStep, weight: Any, ent_coef: Any, optimizer: Any, key: Any) -> tuple:
        """The state after one step of the critics and of those that follow; the loss, and errors [L * B]."""
        key, for_target, for_loss = dropout_keys(state.critics, key, 2)
        thinned = state._replace(target_critics=critics_with_dropout(state.target_critics, for_target))
        target = self.target(thinned, step, ent_coef, key)
        taken = step.observation, step.action, first(step.carry[1]), step.ended

        def critic_loss(critics):
            squared, error = self.errors(self.taken(critics_with_dropout(critics, for_loss), *taken).outputs, target)
            return 0.5 * (weight * squared).mean(), error

        of_actor, moments, of_ent_coef = state.optimizers
        critics, moments, loss, error = improved(critic_loss, state.critics, moments, optimizer)
        following = optax.incremental_update(critics, state.target_critics, self.tau)
        optimizers = of_actor, moments, of_ent_coef
        return state._replace(critics=critics, target_critics=following, optimizers=optimizers), loss, error

    def improve_actor(self, state: State, step: NStep, ent_coef: Any, optimizer: Any, key: jax.Array) -> tuple:
        """The state after one step of the actor; the mean log-probability and value of its actions."""
        key, for_critics = dropout_keys(state.critics, key, 1)
        critics, (carry, critics_carry) = critics_with_dropout(state.critics, for_critics), first(step.carry)

        def actor_loss(network):
            outputs = over_time(network, step.observation, carry, step.ended).outputs
            before = self.taken(critics, step.observation, step.action, critics_carry, step.ended).before
            seen, before = flat((step.observation, before))
            distribution = state.head(flat(outputs), masks.of(seen))
            log_prob, value = self.judged(distribution, critics, seen, before, key, self.actor_value)
            return (ent_coef * log_prob - value).mean(), (log_prob.mean(), value.mean())

        of_actor, *others = state.optimizers
        network, of_actor, _, (log_prob, value) = improved(actor_loss, state.network, of_actor, optimizer)
        return state._replace(network=network, optimizers=(of_actor, *others)), log_prob, value

    def recall(self, state: State, window: Transition, ent_coef: Any, key: jax.Array) -> NStep:
        """What windows [T, B] teach, seen with the carries of the actor and the critics along the actions taken.

        All steps of a return but its first are rewarded for entropy as well: r_k + alpha H(pi(.|s_k)), for 0 < k < n.
        So the soft return goes on beyond its first step (the paper's equation 2, from s_0, a_0 on).
        """
        ended, zeros = window.terminated | window.truncated, init_critics_carry(self, window.reward.shape[1])
        actor = over_time(state.network, window.observation, first_carry(window, self.initial_carry), ended)
        critics, targets = (
            self.taken(critics, window.observation, window.action, zeros, ended)
            for critics in (state.critics, state.target_critics)
        )
        seen = Unrolled((), (actor.before, critics.before), (actor.after, targets.after))
        # H is the present actor's, by an action of its own: -log pi of the action stored would reward that the actor
        # has moved away from it, without a limit.
        later, mask = flat(actor.outputs[1:]), masks.of(flat(jax.tree.map(lambda x: x[1:], window.observation)))
        log_prob = self.log_prob(state.head(later, mask), key)
        soft = window.reward.at[1:].add(-ent_coef * log_prob.reshape(window.reward[1:].shape))
        return recalled(window, self.gamma, self.memory, seen, soft)

    def target(self, state: State, step: NStep, ent_coef: Any, key: jax.Array) -> jax.Array:
        """[L * B]: r + gamma (min Q'(s', a') - alpha log pi(a'|s')), a' drawn from the present actor."""
        step = flat(step)
        carry, critics_carry = step.next_carry
        outputs, _ = sequences.step(state.network, step.next_observation, carry)
        distribution = state.head(outputs, masks.of(step.next_observation))
        seen = state.target_critics, step.next_observation, critics_carry
        log_prob, value = self.judged(distribution, *seen, key, self.believed)
        return self.soft_target(step, value, ent_coef * log_prob)

    def soft_target(self, step: NStep, value: jax.Array, cost: jax.Array) -> jax.Array:
        return step.reward + step.discount * (value - cost)

    def taken(self, critics: Any, observation: Any, action: Any, carry: Any, ended: jax.Array) -> Unrolled:
        """Q(s, a) of every critic [critics, L * B] along sequences [L, B]."""
        return critics_over_time(critics, observation, action, carry, ended)

    def judged(self, distribution: Any, critics: Any, observation: Any, carry: Any, key: jax.Array, take: Any) -> tuple:
        """log pi(a|s) and what one may `take` of Q(s, a): [B] each, by one action for each observation [B, ...]."""
        action, log_prob = distribution.sample_and_log_prob(key)
        return log_prob, take(critic_values(critics, observation, action, carry))

    def believed(self, values: jax.Array) -> jax.Array:
        """What targets take of the critics' values [critics, B, ...]: the least."""
        return values.min(0)

    def actor_value(self, values: jax.Array) -> jax.Array:
        """What the actor climbs of them: the same."""
        return values.min(0)

    def errors(self, values: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of values [critics, B]: the sum of their squares, and the mean of their sizes, for each sample [B]."""
        error = values - target[None]
        return jnp.square(error).sum(0), jnp.abs(error).mean(0)

    def log_prob(self, distribution: Any, key: jax.Array) -> jax.Array:
        """log pi(a|s) [B], of an action drawn."""
        return distribution.sample_and_log_prob(key)[1]

    def entropy_aim(self, head: Head, observation: Any = None) -> Any:
        return -math.prod(head.sizes) if self.target_entropy is None else self.target_entropy
