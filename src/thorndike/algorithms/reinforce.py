"""REINFORCE: make what led to good returns more likely. The file to read first."""

from __future__ import annotations

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
from thorndike.memories import Latest
from thorndike.networks import MLP, Network, Same, check_special, critic_carry, init_value
from thorndike.optimizers import Adam, Optimizer, check_critic_rate, clipped, improved
from thorndike.sequences import first, flat, over_time, remembers, shapes_of_carry, side_by_side
from thorndike.spaces import check_action_space
from thorndike.targets import discounted_returns


class Parameters(NamedTuple):
    network: Any  # observation -> numbers
    head: Head  # those numbers -> a distribution over actions
    baseline: Any  # V(s), what return to expect; () without one

    @property
    def networks(self) -> tuple:
        """Both as one module, to be called by `sequences`."""
        return self.network, self.baseline


class State(NamedTuple):
    parameters: Parameters
    optimizer: Any
    statistics: Any  # what observations and rewards are normalised by

    @property
    def network(self) -> Any:
        return self.parameters.network


class Policy(NamedTuple):
    parameters: Parameters
    explore: jax.Array  # sample an action, or take the most likely one
    observations: Any  # what they are normalised by

    def distribution(self, observation: Any, carry: tuple) -> tuple[Any, tuple]:
        """Over actions [N, ...], for observations [N, ...], and the next carry."""
        observation = normalization.normalize(self.observations, observation)
        (outputs, _), after = sequences.step(self.parameters.networks, observation, carry)
        return self.parameters.head(outputs, masks.of(observation)), after


@hyperparameters
class REINFORCE:
    """The plain policy gradient (Williams, 1992), with a learned baseline to calm it; one step per rollout.

    Bias: an episode still running at a rollout's end counts as truncated there. With a baseline its value stands in
    for the rest. Without one (`baseline_network=None`) an unfinished episode's return is not known, so its steps are
    left out; long episodes are then under-represented, and a `rollout_length` of several episodes keeps that small.
    Networks with a memory learn through the whole rollout.
    """

    network: Network = MLP((64, 64), activation="tanh", initialization="orthogonal")
    baseline_network: Network | None = Same()
    learning_rate: float = setting(1e-3, low=0)
    critic_learning_rate: float | None = setting(None, low=0)  # None: the same
    learning_rate_end: float | None = setting(None, low=0, end_of="learning_rate")  # of a linear fall; None: they stay
    optimizer: Optimizer = Adam()
    gamma: float = setting(0.99, low=0, high=1)  # discount
    ent_coef: float = setting(0.0, low=0)
    vf_coef: float = setting(0.5, low=0)  # of half the mean squared error
    max_grad_norm: float = setting(0.5, above=0, infinite=True)
    normalize_observations: bool = False  # by the mean and variance of all that was seen
    normalize_rewards: bool = False  # by the spread of discounted returns
    clip_rewards: bool = False  # learn from their signs, as usual for Atari games
    num_environments: int = setting(8, low=1, high=2**20)
    rollout_length: int = setting(128, low=1)
    updates_per_rollout: ClassVar[int] = 1
    warmup_steps: ClassVar[int] = 0
    memory: ClassVar[Latest] = Latest()

    def validate(self) -> None:
        check_critic_rate(self, "baseline_network")
        check_special(self)

    def check(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        check_action_space(action_space)
        masks.check(observation_space, action_space)

    def descent(self, fraction: jax.Array | float = 0.0) -> optax.GradientTransformation:
        return clipped(self, fraction, "baseline")

    def init(self, key: jax.Array, observation_space: spaces.Space, action_space: spaces.Space) -> State:
        key_network, key_baseline = random.split(key)
        head = Head.of(action_space)
        network = self.network.init(key_network, observation_space, head.outputs, 0.01)
        baseline = init_value(self, "baseline_network", key_baseline, observation_space)
        parameters = Parameters(network, head, baseline)
        return State(parameters, self.descent().init(parameters), normalization.begin(self, observation_space))

    def policy(self, state: State, fraction: jax.Array, explore: bool = True) -> Policy:
        remembering = state.parameters.baseline if remembers(shapes_of_carry(self.initial_carry)[1]) else ()
        parameters = state.parameters._replace(baseline=remembering)  # it acts along to move its carry
        return Policy(parameters, jnp.asarray(explore), state.statistics.observations)

    def initial_carry(self, n: int) -> tuple:
        return self.network.initial_carry(n), critic_carry(self, "baseline_network", n)

    def act(self, policy: Policy, observation: Any, carry: tuple, key: jax.Array) -> tuple[Any, tuple, dict]:
        distribution, after = policy.distribution(observation, carry)
        return jnp.where(policy.explore, distribution.sample(key), distribution.mode()), after, {"carry": carry}

    def greedy(self, policy: Policy, observation: Any, carry: tuple) -> tuple[Any, tuple]:
        distribution, after = policy.distribution(observation, carry)
        return distribution.mode(), after

    def observe(self, state: State, trajectory: Transition) -> State:
        return state  # `update` sees every trajectory, whole

    def restarted(self, state: State, begun: jax.Array) -> State:
        return state._replace(statistics=normalization.restarted(state.statistics, begun))

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, tuple]:
        """One gradient step on the whole rollout [T, N]."""
        rollout, statistics = normalization.as_acted(state.statistics, batch.steps, self.gamma)
        parameters, optimizer, _, metrics = improved(
            lambda parameters: self.loss(parameters, rollout), state.parameters, state.optimizer, self.descent(fraction)
        )
        return State(parameters, optimizer, statistics), metrics, ()

    def loss(self, parameters: Parameters, rollout: Transition) -> tuple[jax.Array, dict]:
        """-log pi(a|s) (G - V(s)): where the return G was better than expected, raise the action's probability."""
        ended = rollout.terminated | rollout.truncated
        seen = over_time(parameters.networks, rollout.observation, first(rollout.extras["carry"]), ended)
        outputs, value = flat(seen.outputs)
        if self.baseline_network:
            (_, following), _ = side_by_side(parameters.networks, rollout.next_observation, seen.after)
            expected, bootstrap = value[:, 0], following[..., 0]
            known = jnp.ones_like(expected)
        else:
            expected, bootstrap = jnp.zeros(ended.size, jnp.float32), jnp.zeros_like(rollout.reward)
            known = flat(_finished(ended))
        returns = flat(discounted_returns(rollout.reward, rollout.terminated, rollout.truncated, bootstrap, self.gamma))
        surprise = jax.lax.stop_gradient(returns - expected)
        distribution = parameters.head(outputs, masks.of(flat(rollout.observation)))
        policy_loss = -_mean(distribution.log_prob(flat(rollout.action)) * surprise, known)
        value_loss = 0.5 * _mean((expected - jax.lax.stop_gradient(returns)) ** 2, known)
        entropy = distribution.entropy().mean()
        metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy, metrics


def _finished(done: jax.Array) -> jax.Array:
    """[T, N]: 1.0 for the steps of episodes that end within the rollout."""
    return jax.lax.cummax(done.astype(jnp.float32), axis=0, reverse=True)


def _mean(x: jax.Array, known: jax.Array) -> jax.Array:
    return (x * known).sum() / jnp.maximum(known.sum(), 1.0)
