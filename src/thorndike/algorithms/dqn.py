"""Deep Q-network: learn what every action is worth, and mostly take the best one."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from gymnasium import spaces
from jax import random

from thorndike import masks, normalization, sequences
from thorndike.core import Batch, Transition
from thorndike.errors import UnsuitableError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories import Prioritized, Replay, check_replay, first_carry
from thorndike.networks import MLP, Network
from thorndike.schedules import falling, linear
from thorndike.sequences import first, flat, over_time, remembers, shapes_of_carry
from thorndike.spaces import uniform_choice
from thorndike.targets import NStep, recalled, signed_hyperbolic, signed_parabolic


class State(NamedTuple):
    network: Any  # Q(s, .), the network being learned
    target_network: Any  # the frozen copy that its targets come from
    optimizer: Any
    updates: jax.Array
    statistics: Any  # what observations and rewards are normalised by


class Policy(NamedTuple):
    network: Any
    epsilon: jax.Array  # how often to act at random
    observations: Any  # what they are normalised by

    def values(self, observation: Any, carry: Any) -> tuple[jax.Array, Any]:
        """Q(s, .) [N, A], -inf where an action is not legal, and the next carry."""
        q, after = sequences.step(self.network, normalization.normalize(self.observations, observation), carry)
        return masks.legal(q, masks.of(observation)), after


@hyperparameters
class DQN:
    """Q-learning with a neural network, a memory of past steps and a slowly moving target.

    Mnih et al. (2015), "Human-level control through deep reinforcement learning". With `double`, the online network
    chooses the next action and the target network values it (van Hasselt et al., 2016). n-step returns are
    `memory=Replay(window=n)`; prioritized replay (Schaul et al., 2016) is `memory=Prioritized(...)`; dueling
    networks (Wang et al., 2016) are `network=MLP(head="dueling")`. A network with a memory (Kapturowski et al., 2019,
    "Recurrent experience replay in distributed reinforcement learning") learns from steps in a row,
    `memory=Prioritized(sequence=..., burn_in=...)`. For Discrete actions.
    """

    network: Network = MLP((64, 64), activation="tanh", initialization="orthogonal")
    learning_rate: float = setting(1e-3, low=0)
    learning_rate_end: float | None = setting(0.0, low=0, end_of="learning_rate")  # of a linear fall; None: it stays
    gamma: float = setting(0.99, low=0, high=1)  # discount
    double: bool = True
    loss: Literal["huber", "squared"] = "squared"
    rescale_values: bool | None = None  # learn values of any size within a small range; None: where there is a memory
    max_grad_norm: float = setting(10.0, above=0, infinite=True)
    target_period: int = setting(64, low=1)  # updates between two copies into the target network
    epsilon_start: float = setting(1.0, low=0, high=1)  # share of random actions at the start
    epsilon_end: float = setting(0.02, low=0, high=1)
    exploration_fraction: float = setting(0.4, above=0, high=1)  # of the run, over which epsilon falls
    normalize_observations: bool = False  # by the mean and variance of all that was seen
    normalize_rewards: bool = False  # by the spread of discounted returns
    clip_rewards: bool = False  # learn from their signs, as usual for Atari games
    num_environments: int = setting(8, low=1, high=2**20)
    rollout_length: int = setting(8, low=1)
    updates_per_rollout: int = setting(32, low=1, high=2**20)
    warmup_steps: int = setting(1_000, low=0)
    memory: Replay = Prioritized(capacity=20_000, batch_size=64, window=5)

    def validate(self) -> None:
        check_replay(self)

    def check(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        if not isinstance(action_space, spaces.Discrete):
            raise UnsuitableError(f"DQN needs Discrete actions, this environment has {action_space}")
        masks.check(observation_space, action_space)

    def optimizer(self, fraction: jax.Array | float = 0.0) -> optax.GradientTransformation:
        rate = falling(self.learning_rate, self.learning_rate_end, fraction)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.adam(rate)))

    def init(self, key: jax.Array, observation_space: spaces.Space, action_space: Any) -> State:
        network = self.network.init(key, observation_space, int(action_space.n))
        target_network = jax.tree.map(jnp.copy, network)
        statistics = normalization.begin(self, observation_space)
        return State(network, target_network, self.optimizer().init(network), jnp.uint32(0), statistics)

    def policy(self, state: State, fraction: jax.Array, explore: bool = True) -> Policy:
        fallen = jnp.minimum(fraction / self.exploration_fraction, 1.0)
        epsilon = linear(self.epsilon_start, self.epsilon_end, fallen)
        epsilon = epsilon if explore else jnp.zeros_like(epsilon)
        return Policy(state.network, epsilon, state.statistics.observations)

    def initial_carry(self, n: int) -> Any:
        return self.network.initial_carry(n)

    def act(self, policy: Policy, observation: Any, carry: Any, key: jax.Array) -> tuple[jax.Array, Any, dict]:
        """The best legal action or, with probability epsilon, any: [N] int32."""
        q, after = policy.values(observation, carry)
        key_whether, key_which = random.split(key)
        at_random = random.uniform(key_whether, q.shape[:1]) < policy.epsilon
        any_action = uniform_choice(key_which, q.shape[0], q.shape[1], masks.of(observation))
        return jnp.where(at_random, any_action, _best(q)), after, {"carry": carry}

    def greedy(self, policy: Policy, observation: Any, carry: Any) -> tuple[jax.Array, Any]:
        q, after = policy.values(observation, carry)
        return _best(q), after

    @property
    def rescales(self) -> bool:
        """Whether h(Q) is learned instead of Q: a memory's outputs are small, and large values would drown it."""
        return remembers(shapes_of_carry(self.initial_carry)) if self.rescale_values is None else self.rescale_values

    def recall(self, state: State, steps: Transition) -> NStep:
        """What windows [T, B] teach, seen with the carries of the online and the target network."""
        networks, carry = (state.network, state.target_network), first_carry(steps, self.initial_carry)
        seen = over_time(networks, steps.observation, (carry, carry), steps.terminated | steps.truncated)
        return recalled(steps, self.gamma, self.memory, seen)

    def td_error(self, network: Any, target_network: Any, step: NStep) -> jax.Array:
        """[L * B]: r + gamma max_a Q'(s', a) - Q(s, a), the sum of n rewards for n-step returns."""
        q = flat(over_time(network, step.observation, first(step.carry[0]), step.ended).outputs)
        step = flat(step)
        following, _ = sequences.step((network, target_network), step.next_observation, step.next_carry)
        best = masks.legal(following[0 if self.double else 1], masks.of(step.next_observation)).argmax(-1)
        value = _pick(following[1], best)
        target = step.reward + step.discount * (signed_parabolic(value) if self.rescales else value)
        target = signed_hyperbolic(target) if self.rescales else target
        return jax.lax.stop_gradient(target) - _pick(q, step.action)

    def observe(self, state: State, trajectory: Transition) -> State:
        return state._replace(statistics=normalization.observe(state.statistics, trajectory, self.gamma))

    def restarted(self, state: State, begun: jax.Array) -> State:
        return state._replace(statistics=normalization.restarted(state.statistics, begun))

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, jax.Array]:
        step = self.recall(state, normalization.apply(state.statistics, batch.steps))
        weight = flat(jnp.broadcast_to(batch.weight[None], step.reward.shape))

        def loss(network):
            error = self.td_error(network, state.target_network, step)
            per_sample = optax.huber_loss(error) if self.loss == "huber" else optax.l2_loss(error)
            return (weight * per_sample).mean(), error

        (value, error), gradient = jax.value_and_grad(loss, has_aux=True)(state.network)
        change, optimizer = self.optimizer(fraction).update(gradient, state.optimizer)
        network, updates = optax.apply_updates(state.network, change), state.updates + 1
        target_network = optax.periodic_update(network, state.target_network, updates, self.target_period)
        metrics = {"loss": value, "td_error": jnp.abs(error).mean()}
        feedback = jnp.abs(error).reshape(step.reward.shape)
        return State(network, target_network, optimizer, updates, state.statistics), metrics, feedback


def _best(values: jax.Array) -> jax.Array:
    return values.argmax(-1).astype(jnp.int32)


def _pick(values: jax.Array, index: jax.Array) -> jax.Array:
    """values[b, index[b]]: [B, A], [B] -> [B]."""
    return jnp.take_along_axis(values, index[:, None], axis=-1)[:, 0]
