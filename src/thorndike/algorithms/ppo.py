"""Proximal policy optimisation: several epochs of cautious policy-gradient steps on each rollout."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from gymnasium import spaces
from jax import lax, random

from thorndike import normalization
from thorndike.core import Batch, Transition
from thorndike.distributions import Head
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories import Latest
from thorndike.networks import MLP, FirstOutputs, Network, Same, init_value
from thorndike.optimizers import check_critic_rate, clipped_adam
from thorndike.schedules import falling
from thorndike.spaces import check_action_space
from thorndike.targets import flat, generalized_advantages


class Parameters(NamedTuple):
    network: Any  # the actor; with a shared torso its last output is the value
    head: Head  # makes a distribution of the network's outputs
    critic: Any  # V(s); () with a shared torso


class State(NamedTuple):
    parameters: Parameters
    optimizer: Any
    statistics: Any  # what observations and rewards are normalised by

    @property
    def network(self) -> Any:
        network, head, critic = self.parameters
        return network if critic else FirstOutputs(network, head.outputs)


class Policy(NamedTuple):
    parameters: Parameters
    observations: Any  # what they are normalised by
    explore: jax.Array  # sample, or take the mode


class Samples(NamedTuple):
    """What the epochs go over, each leaf [S, ...] with S = T * N."""

    observation: Any
    action: Any
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    target: jax.Array


@hyperparameters
class PPO:
    """Clipped policy gradients with generalised advantages, for Discrete, MultiDiscrete and Box actions.

    Schulman et al. (2017), "Proximal policy optimization algorithms", with the details of Huang et al. (2022),
    "The 37 implementation details of PPO". `critic_network=None` shares the actor's torso with the value. `target_kl`
    is the KL divergence, estimated on a minibatch before its step, above which that step and the rest of the rollout
    are left out; SB3 and Spinning Up stop at 1.5 times theirs, so that their 0.02 is 0.03 here.
    """

    network: Network = MLP((64, 64), activation="tanh", initialization="orthogonal")
    critic_network: Network | None = Same()
    learning_rate: float = setting(3e-4, low=0)
    critic_learning_rate: float | None = setting(None, low=0)  # None: the same
    learning_rate_end: float | None = setting(None, low=0, end_of="learning_rate")  # of a linear fall; None: they stay
    gamma: float = setting(0.99, low=0, high=1)  # discount
    gae_lambda: float = setting(0.95, low=0, high=1)
    clip_range: float = setting(0.2, above=0)
    clip_range_end: float | None = setting(None, low=0, end_of="clip_range")  # as above
    clip_value: bool = False  # clip the value's step as well
    ent_coef: float = setting(0.0, low=0)
    vf_coef: float = setting(0.5, low=0)  # of half the mean squared error, as in CleanRL: SB3's 0.5 is 1.0 here
    max_grad_norm: float = setting(0.5, above=0, infinite=True)
    target_kl: float | None = setting(None, above=0, infinite=True)  # a rollout is left before a step beyond it
    epochs: int = setting(10, low=1, high=2**20)
    batch_size: int = setting(64, low=1)  # of a minibatch
    normalize_advantages: bool = True  # per minibatch
    normalize_observations: bool = False  # by the mean and variance of all that was seen
    normalize_rewards: bool = False  # by the spread of discounted returns
    num_environments: int = setting(8, low=1, high=2**20)
    rollout_length: int = setting(128, low=1)
    updates_per_rollout: ClassVar[int] = 1
    warmup_steps: ClassVar[int] = 0
    memory: ClassVar[Latest] = Latest()

    def validate(self) -> None:
        check_critic_rate(self, "critic_network")
        samples = self.rollout_length * self.num_environments
        if samples % self.batch_size:
            rollout = f"{self.num_environments} x {self.rollout_length} = {samples} steps"
            raise SettingError(f"PPO: a rollout of {rollout} does not divide into batch_size {self.batch_size}")

    def check(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        check_action_space(action_space)

    def optimizer(self, fraction: jax.Array | float = 0.0) -> optax.GradientTransformation:
        return clipped_adam(self, fraction, "critic", eps=1e-5, flat=True)

    def init(self, key: jax.Array, observation_space: spaces.Space, action_space: spaces.Space) -> State:
        key_network, key_critic = random.split(key)
        head = Head.of(action_space)
        gain = jnp.full(head.outputs + 1, 0.01).at[-1].set(1.0)  # small for the policy, 1 for the value
        gain = gain[:-1] if self.critic_network else gain
        network = self.network.init(key_network, observation_space, gain.size, gain)
        critic = init_value(self, "critic_network", key_critic, observation_space)
        parameters = Parameters(network, head, critic)
        return State(parameters, self.optimizer().init(parameters), normalization.begin(self, observation_space))

    def policy(self, state: State, fraction: jax.Array, explore: bool = True) -> Policy:
        return Policy(state.parameters._replace(critic=()), state.statistics.observations, jnp.asarray(explore))

    def initial_carry(self, n: int) -> tuple:
        return ()

    def act(self, policy: Policy, observation: Any, carry: tuple, key: jax.Array) -> tuple[Any, tuple, dict]:
        distribution = self.distribution(policy.parameters, observation, policy.observations)
        action = jnp.where(policy.explore, distribution.sample(key), distribution.mode())
        return action, carry, {"log_prob": distribution.log_prob(action)}

    def greedy(self, policy: Policy, observation: Any, carry: tuple) -> tuple[Any, tuple]:
        return self.distribution(policy.parameters, observation, policy.observations).mode(), carry

    def distribution(self, parameters: Parameters, observation: Any, moments: Any = ()) -> Any:
        """Over actions [S, ...], for observations [S, ...] yet to be normalised by `moments`."""
        observation = normalization.normalize(moments, observation)
        return parameters.head(parameters.network(observation)[:, : parameters.head.outputs])

    def value(self, parameters: Parameters, observation: Any) -> jax.Array:
        """V(s): [S] for (normalised) observations [S, ...]."""
        return (parameters.critic or parameters.network)(observation)[:, -1]

    def loss(self, parameters: Parameters, batch: Samples, clip_range: jax.Array) -> tuple[jax.Array, dict]:
        """The clipped surrogate, equation 9 of the paper, with its metrics."""
        distribution = self.distribution(parameters, batch.observation)
        value = self.value(parameters, batch.observation)
        log_ratio = distribution.log_prob(batch.action) - batch.log_prob
        ratio, advantage = jnp.exp(log_ratio), batch.advantage
        if self.normalize_advantages:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = jnp.clip(ratio, 1 - clip_range, 1 + clip_range)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
        value_error = (value - batch.target) ** 2
        if self.clip_value:
            near = batch.value + jnp.clip(value - batch.value, -clip_range, clip_range)
            value_error = jnp.maximum(value_error, (near - batch.target) ** 2)
        value_loss, entropy = 0.5 * value_error.mean(), distribution.entropy().mean()
        metrics = {
            "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy,
            "kl": (ratio - 1 - log_ratio).mean(),  # Schulman's estimate, low in variance
            "clip_fraction": (jnp.abs(ratio - 1) > clip_range).mean(),
        }  # fmt: skip
        return policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy, metrics

    def observe(self, state: State, trajectory: Transition) -> State:
        return state  # `update` sees every trajectory, whole

    def restarted(self, state: State, begun: jax.Array) -> State:
        return state._replace(statistics=normalization.restarted(state.statistics, begun))

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, tuple]:
        """Several epochs over the rollout [T, N], in minibatches drawn anew each epoch."""
        samples, statistics = self.prepare(state, batch.steps)
        orders = _orders(key, self.epochs, samples.advantage.size).reshape(-1, self.batch_size)
        clip_range = falling(self.clip_range, self.clip_range_end, fraction)

        def step(loop):
            i, parameters, moments, totals, _ = loop
            minibatch = jax.tree.map(lambda x: x[orders[i]], samples)
            gradient, metrics = jax.grad(self.loss, has_aux=True)(parameters, minibatch, clip_range)
            change, changed = self.optimizer(fraction).update(gradient, moments)
            stepped, near = (optax.apply_updates(parameters, change), changed), True
            if self.target_kl is not None:
                near = metrics["kl"] <= self.target_kl
                stepped = jax.tree.map(lambda *x: jnp.where(near, *x), stepped, (parameters, moments))
            return i + 1, *stepped, jax.tree.map(jnp.add, totals, metrics), near

        names = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction")
        loop = (0, state.parameters, state.optimizer, dict.fromkeys(names, jnp.float32(0)), True)
        seen, parameters, moments, totals, _ = lax.while_loop(lambda x: (x[0] < len(orders)) & x[-1], step, loop)
        return State(parameters, moments, statistics), jax.tree.map(lambda total: total / seen, totals), ()

    def prepare(self, state: State, steps: Transition) -> tuple[Samples, Any]:
        """Advantages and value targets of a rollout, flattened to [S, ...]; and the merged statistics."""
        steps, statistics = normalization.as_acted(state.statistics, steps, self.gamma)
        shape, ends = steps.reward.shape, (steps.terminated, steps.truncated)
        observation, following = jax.tree.map(flat, (steps.observation, steps.next_observation))
        value = self.value(state.parameters, observation)
        values, next_values = value.reshape(shape), self.value(state.parameters, following).reshape(shape)
        advantage = flat(generalized_advantages(values, next_values, steps.reward, *ends, self.gamma, self.gae_lambda))
        action, log_prob = flat(steps.action), flat(steps.extras["log_prob"])
        return Samples(observation, action, log_prob, value, advantage, advantage + value), statistics


def _orders(key: jax.Array, epochs: int, count: int) -> jax.Array:
    """[epochs, count]: each row a shuffled range(count), by sorting random bits that carry their index below.

    Where fewer than 20 random bits would be left above the index, equal ones would keep the old order in a hundredth of
    all pairs and more: there 64 are sorted and the index goes along.
    """
    width = max(count - 1, 1).bit_length()
    if width > 12:
        index = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), (epochs, count))
        return lax.sort((*random.bits(key, (2, epochs, count), jnp.uint32), index), num_keys=2)[2]
    bits = random.bits(key, (epochs, count), jnp.uint32)
    tagged = (bits >> width << width) | jnp.arange(count, dtype=jnp.uint32)[None]
    return (jnp.sort(tagged, axis=-1) & ((1 << width) - 1)).astype(jnp.int32)
