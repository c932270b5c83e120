"""Soft actor-critic: act as randomly as still pays, and learn from everything remembered."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from gymnasium import spaces
from jax import random

from thorndike import normalization
from thorndike.core import Batch, Transition
from thorndike.distributions import Head
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories import Replay, check_replay
from thorndike.networks import MLP, Network, Same, critic_recipe, critic_values, init_critics
from thorndike.schedules import falling
from thorndike.spaces import check_bounded_actions
from thorndike.targets import NStep, n_step


class State(NamedTuple):
    network: Any  # the actor
    head: Head  # makes a distribution of its outputs
    critics: Any  # Q(s, a), as many as `num_critics`
    target_critics: Any  # following them slowly: what their targets come from
    log_ent_coef: Any  # of the learned temperature; () where it is fixed
    optimizers: tuple  # of the actor, the critics, the temperature
    statistics: Any  # what observations and rewards are normalised by


class Policy(NamedTuple):
    network: Any
    head: Head
    explore: jax.Array  # sample an action, or take the squashed mean
    observations: Any  # what they are normalised by

    def distribution(self, observation: Any) -> Any:
        """Over actions [N, ...], for observations [N, ...]."""
        return self.head(self.network(normalization.normalize(self.observations, observation)))


@hyperparameters
class SAC:
    """Soft actor-critic: an actor that is rewarded for its entropy as well, twin critics, a memory of past steps.

    Haarnoja et al. (2018), "Soft actor-critic algorithms and applications" (its second version: no value network,
    and a temperature that is learned so that the entropy stays at `target_entropy`). For Box actions with bounds.
    """

    network: Network = MLP((256, 256), activation="relu", initialization="default")
    critic_network: Network = Same()
    num_critics: int = setting(2, low=1, high=100)  # the least of their values is the one believed
    learning_rate: float = setting(3e-4, low=0)
    critic_learning_rate: float | None = setting(None, low=0)  # None: the same; the temperature has the actor's
    learning_rate_end: float | None = setting(None, low=0, end_of="learning_rate")  # of a linear fall; None: they stay
    gamma: float = setting(0.99, low=0, high=1)  # discount
    tau: float = setting(0.005, low=0, high=1)  # share of the critics that enters their targets at each update
    ent_coef: float | None = setting(None, low=0)  # temperature: what a unit of entropy is worth; None: learned
    target_entropy: float | None = None  # None: minus the number of the action's dimensions
    normalize_observations: bool = False  # by the mean and variance of all that was seen
    normalize_rewards: bool = False  # by the spread of discounted returns
    num_environments: int = setting(1, low=1, high=2**20)
    rollout_length: int = setting(1, low=1)
    updates_per_rollout: int = setting(1, low=1, high=2**20)
    warmup_steps: int = setting(1_000, low=0)
    memory: Replay = Replay(capacity=1_000_000, batch_size=256)

    def validate(self) -> None:
        check_replay(self)

    def check(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        check_bounded_actions("SAC", action_space)

    def optimizer(self, fraction: jax.Array | float = 0.0, rate: Any = None) -> optax.GradientTransformation:
        rate = self.learning_rate if rate is None else rate
        return optax.adam(falling(rate, self.learning_rate_end, fraction))

    def init(self, key: jax.Array, observation_space: spaces.Space, action_space: Any) -> State:
        key_network, key_critics = random.split(key)
        head = Head.squashed(action_space)
        network = self.network.init(key_network, observation_space, head.outputs)
        recipe = critic_recipe(self, "critic_network", observation_space)
        critics = init_critics(recipe, key_critics, observation_space, action_space, self.num_critics)
        log_ent_coef = jnp.float32(0) if self.ent_coef is None else ()
        optimizers = tuple(self.optimizer().init(trained) for trained in (network, critics, log_ent_coef))
        statistics = normalization.begin(self, observation_space)
        return State(network, head, critics, jax.tree.map(jnp.copy, critics), log_ent_coef, optimizers, statistics)

    def policy(self, state: State, fraction: jax.Array, explore: bool = True) -> Policy:
        return Policy(state.network, state.head, jnp.asarray(explore), state.statistics.observations)

    def initial_carry(self, n: int) -> tuple:
        return ()

    def act(self, policy: Policy, observation: Any, carry: tuple, key: jax.Array) -> tuple[jax.Array, tuple, dict]:
        distribution = policy.distribution(observation)
        return jnp.where(policy.explore, distribution.sample(key), distribution.mode()), carry, {}

    def greedy(self, policy: Policy, observation: Any, carry: tuple) -> tuple[Any, tuple]:
        return policy.distribution(observation).mode(), carry

    def observe(self, state: State, trajectory: Transition) -> State:
        return state._replace(statistics=normalization.observe(state.statistics, trajectory, self.gamma))

    def restarted(self, state: State, begun: jax.Array) -> State:
        return state._replace(statistics=normalization.restarted(state.statistics, begun))

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, jax.Array]:
        """One step of the critics, then of the actor, then of the temperature, on one batch [window, B]."""
        key_next, key_now, key_between = random.split(key, 3)
        ent_coef = jnp.exp(state.log_ent_coef) if self.ent_coef is None else self.ent_coef
        window = normalization.apply(state.statistics, batch.steps)
        step = n_step(self.with_entropy(state, window, ent_coef, key_between), self.gamma)
        target = self.target(state, step, ent_coef, key_next)

        def critic_loss(critics):
            error = critic_values(critics, step.observation, step.action) - target[None]  # [critics, B]
            return 0.5 * (batch.weight * jnp.square(error).sum(0)).mean(), jnp.abs(error).mean(0)

        def actor_loss(network):
            action, log_prob = state.head(network(step.observation)).sample_and_log_prob(key_now)
            value = critic_values(critics, step.observation, action).min(0)
            return (ent_coef * log_prob - value).mean(), (log_prob.mean(), value.mean())

        of_actor, of_critics, of_ent_coef = state.optimizers
        optimizer, critic_optimizer = self.optimizer(fraction), self.optimizer(fraction, self.critic_learning_rate)
        critics, of_critics, loss, error = _improved(critic_loss, state.critics, of_critics, critic_optimizer)
        network, of_actor, _, (log_prob, value) = _improved(actor_loss, state.network, of_actor, optimizer)
        log_ent_coef = state.log_ent_coef
        if self.ent_coef is None:
            excess = -log_prob - self.entropy_aim(state.head)
            log_ent_coef, of_ent_coef, *_ = _improved(
                lambda x: (x * excess, None), log_ent_coef, of_ent_coef, optimizer
            )
        target_critics = optax.incremental_update(critics, state.target_critics, self.tau)
        metrics = {"critic_loss": loss, "value": value, "entropy": -log_prob, "ent_coef": ent_coef}
        optimizers = (of_actor, of_critics, of_ent_coef)
        state = State(network, state.head, critics, target_critics, log_ent_coef, optimizers, state.statistics)
        return state, metrics, error

    def with_entropy(self, state: State, window: Transition, ent_coef: Any, key: jax.Array) -> Transition:
        """Windows [n, B] whose later steps are rewarded for entropy as well: r_k + alpha H(pi(.|s_k)), for 0 < k < n.

        So the soft return goes on beyond its first step (the paper's equation 2, from s_0, a_0 on).
        """
        if len(window.reward) == 1:
            return window
        later = jax.tree.map(lambda x: x[1:].reshape(-1, *x.shape[2:]), window.observation)
        # H is the present actor's, by an action of its own: -log pi of the action stored would reward that the actor
        # has moved away from it, without a limit.
        log_prob = state.head(state.network(later)).sample_and_log_prob(key)[1]
        return window._replace(reward=window.reward.at[1:].add(-ent_coef * log_prob.reshape(window.reward[1:].shape)))

    def target(self, state: State, step: NStep, ent_coef: Any, key: jax.Array) -> jax.Array:
        """[B]: r + gamma (min Q'(s', a') - alpha log pi(a'|s')), a' drawn from the present actor."""
        action, log_prob = state.head(state.network(step.next_observation)).sample_and_log_prob(key)
        value = critic_values(state.target_critics, step.next_observation, action).min(0)
        return step.reward + step.discount * (value - ent_coef * log_prob)

    def entropy_aim(self, head: Head) -> Any:
        return -math.prod(head.sizes) if self.target_entropy is None else self.target_entropy


def _improved(loss: Any, parameters: Any, moments: Any, optimizer: optax.GradientTransformation) -> tuple:
    """One step down a loss with auxiliary outputs: new parameters and moments, the loss, the outputs."""
    (value, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
    change, moments = optimizer.update(gradient, moments)
    return optax.apply_updates(parameters, change), moments, value, outputs
