"""Proximal policy optimisation: several epochs of cautious policy-gradient steps on each rollout."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from gymnasium import spaces
from jax import lax, random

from thorndike import intrinsic, masks, normalization, sequences
from thorndike.core import Batch, Transition
from thorndike.distributions import Head
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.intrinsic import Intrinsic
from thorndike.memories import Latest, check_rollout, check_shared_memory, in_sequences, minibatches
from thorndike.networks import MLP, FirstOutputs, Network, Same, check_special, critic_carry, init_value
from thorndike.networks.state_dependent_noise import begin_noise, init_actor, renewed
from thorndike.optimizers import Adam, Optimizer, check_critic_rate, clipped
from thorndike.schedules import falling
from thorndike.sequences import first, flat, over_time, remembers, shapes_of_carry, side_by_side
from thorndike.spaces import check_action_space
from thorndike.targets import generalized_advantages, standardized


class Parameters(NamedTuple):
    network: Any  # the actor; with a shared torso its last output is the value
    head: Head  # makes a distribution of the network's outputs
    critic: Any  # V(s); () with a shared torso

    @property
    def networks(self) -> tuple:
        """Both as one module, to be called by `sequences`."""
        return self.network, self.critic

    def distribution(self, outputs: tuple, observation: Any) -> Any:
        """Over the actions that observations allow, of what the networks put out for them."""
        return self.head(outputs[0][..., : self.head.outputs], masks.of(observation))

    def value(self, outputs: tuple) -> jax.Array:
        """V(s), of what the networks put out."""
        return outputs[1 if self.critic else 0][..., -1]


class State(NamedTuple):
    parameters: Parameters
    optimizer: Any
    statistics: Any  # what observations and rewards are normalised by
    intrinsic: Any = ()  # what rewards for what is new are made of
    noise: Any = ()  # what exploration is drawn by, where a rollout has one

    @property
    def network(self) -> Any:
        network, head, critic = self.parameters
        return network if critic else FirstOutputs(network, head.outputs)


class Policy(NamedTuple):
    parameters: Parameters
    observations: Any  # what they are normalised by
    explore: jax.Array  # sample, or take the mode


@hyperparameters
class PPO:
    """Clipped policy gradients with generalised advantages, for Discrete, MultiDiscrete and Box actions.

    Schulman et al. (2017), "Proximal policy optimization algorithms", with the details of Huang et al. (2022),
    "The 37 implementation details of PPO". `critic_network=None` shares the actor's torso with the value. `target_kl`
    is the KL divergence, estimated on a minibatch before its step, above which that step and the rest of the rollout
    are left out; SB3 and Spinning Up stop at 1.5 times theirs, so that their 0.02 is 0.03 here. Networks with a memory
    learn from `sequence_length` steps in a row, which begin with the carry that was acted with. With
    `state_dependent_noise` exploration is a function of the state, one for each rollout and copy (Raffin et al., 2021).
    """

    network: Network = MLP((64, 64), activation="tanh", initialization="orthogonal")
    critic_network: Network | None = Same()
    learning_rate: float = setting(3e-4, low=0)
    critic_learning_rate: float | None = setting(None, low=0)  # None: the same
    learning_rate_end: float | None = setting(None, low=0, end_of="learning_rate")  # of a linear fall; None: they stay
    optimizer: Optimizer = Adam(eps=1e-5)
    gamma: float = setting(0.99, low=0, high=1)  # discount
    gae_lambda: float = setting(0.95, low=0, high=1)
    clip_range: float = setting(0.2, above=0)
    clip_range_end: float | None = setting(None, low=0, end_of="clip_range")  # as above
    clip_value: bool = False  # clip the value's step as well
    ent_coef: float = setting(0.0, low=0)
    vf_coef: float = setting(0.5, low=0)  # of half the mean squared error, as in CleanRL: SB3's 0.5 is 1.0 here
    max_grad_norm: float = setting(0.5, above=0, infinite=True)
    initial_log_std: float = 0.0  # of Box actions
    state_dependent_noise: bool = False  # whose log_std that is then
    target_kl: float | None = setting(None, above=0, infinite=True)  # a rollout is left before a step beyond it
    epochs: int = setting(10, low=1, high=2**20)
    batch_size: int = setting(64, low=1)  # steps in a minibatch
    sequence_length: int = setting(16, low=1)  # steps in a row that a network with a memory learns from
    normalize_advantages: bool = True  # per minibatch
    normalize_observations: bool = False  # by the mean and variance of all that was seen
    normalize_rewards: bool = False  # by the spread of discounted returns
    clip_rewards: bool = False  # learn from their signs, as usual for Atari games
    intrinsic: Intrinsic | None = setting(None, recipe=True)  # rewards for what is new beside the environment's
    num_environments: int = setting(8, low=1, high=2**20)
    rollout_length: int = setting(128, low=1)
    updates_per_rollout: ClassVar[int] = 1
    warmup_steps: ClassVar[int] = 0
    memory: ClassVar[Latest] = Latest()

    def validate(self) -> None:
        check_critic_rate(self, "critic_network")
        check_shared_memory(self)
        check_rollout(self)
        check_special(self)

    @property
    def length(self) -> int:
        """Of the sequences: 1 without a memory, where every step stands for itself."""
        return self.sequence_length if remembers(shapes_of_carry(self.initial_carry)) else 1

    def check(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        check_action_space(action_space)
        masks.check(observation_space, action_space)

    def descent(self, fraction: jax.Array | float = 0.0) -> optax.GradientTransformation:
        return clipped(self, fraction, "critic", flat=True)

    def init(self, key: jax.Array, observation_space: spaces.Space, action_space: spaces.Space) -> State:
        key_network, key_critic, *key_noise = random.split(key, 2 + self.state_dependent_noise)
        head, values = Head.of(action_space, self.initial_log_std, self.state_dependent_noise), not self.critic_network
        network = init_actor(self, key_network, observation_space, head.outputs, gain=0.01, values=int(values))
        parameters = Parameters(network, head, init_value(self, "critic_network", key_critic, observation_space))
        statistics = normalization.begin(self, observation_space)
        novelty, noise = intrinsic.begin(self, key, observation_space), begin_noise(key_noise)
        return State(parameters, self.descent().init(parameters), statistics, novelty, noise)

    def policy(self, state: State, fraction: jax.Array, explore: bool = True) -> Policy:
        remembering = state.parameters.critic if remembers(shapes_of_carry(self.initial_carry)[1]) else ()
        network, head, _ = state.parameters
        network, head = head.holding(network, state.noise if explore else (), self.num_environments)
        parameters = Parameters(network, head, remembering)  # that critic acts along to move its carry
        return Policy(parameters, state.statistics.observations, jnp.asarray(explore))

    def initial_carry(self, n: int) -> tuple:
        return self.network.initial_carry(n), critic_carry(self, "critic_network", n)

    def act(self, policy: Policy, observation: Any, carry: tuple, key: jax.Array) -> tuple[Any, tuple, dict]:
        distribution, after = self.distribution(policy, observation, carry)
        action = jnp.where(policy.explore, distribution.sample(key), distribution.mode())
        return action, after, {"log_prob": distribution.log_prob(action), "carry": carry}

    def greedy(self, policy: Policy, observation: Any, carry: tuple) -> tuple[Any, tuple]:
        distribution, after = self.distribution(policy, observation, carry)
        return distribution.mode(), after

    def distribution(self, policy: Policy, observation: Any, carry: tuple) -> tuple[Any, tuple]:
        """Over actions [N, ...], for observations [N, ...] as they come, and the next carry."""
        observation = normalization.normalize(policy.observations, observation)
        outputs, after = sequences.step(policy.parameters.networks, observation, carry)
        return policy.parameters.distribution(outputs, observation), after

    def seen(self, parameters: Parameters, batch: Transition) -> tuple[Any, jax.Array]:
        """The distributions over actions and the values [L * S] of sequences [L, S]."""
        carry, ended = first(batch.extras["carry"]), batch.terminated | batch.truncated
        outputs = flat(over_time(parameters.networks, batch.observation, carry, ended).outputs)
        return parameters.distribution(outputs, flat(batch.observation)), parameters.value(outputs)

    def loss(self, parameters: Parameters, batch: Transition, clip_range: jax.Array) -> tuple[jax.Array, dict]:
        """The clipped surrogate, equation 9 of the paper, with its metrics, of sequences [L, S]."""
        distribution, value = self.seen(parameters, batch)
        extras = flat(batch.extras)
        log_ratio = distribution.log_prob(flat(batch.action)) - extras["log_prob"]
        ratio, advantage, target = jnp.exp(log_ratio), extras["advantage"], extras["target"]
        if self.normalize_advantages:
            advantage = standardized(advantage)
        clipped = jnp.clip(ratio, 1 - clip_range, 1 + clip_range)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
        value_error = (value - target) ** 2
        if self.clip_value:
            near = extras["value"] + jnp.clip(value - extras["value"], -clip_range, clip_range)
            value_error = jnp.maximum(value_error, (near - target) ** 2)
        value_loss, entropy = 0.5 * value_error.mean(), distribution.entropy().mean()
        metrics = {
            "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy,
            "kl": (ratio - 1 - log_ratio).mean(),  # Schulman's estimate, low in variance
            "clip_fraction": (jnp.abs(ratio - 1) > clip_range).mean(),
        }  # fmt: skip
        return policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy, metrics

    def observe(self, state: State, trajectory: Transition) -> State:
        # `update` sees every trajectory, whole.
        novelty = intrinsic.observe(self, state.intrinsic, trajectory)
        return state._replace(intrinsic=novelty, noise=renewed(state.noise))

    def restarted(self, state: State, begun: jax.Array) -> State:
        return state._replace(statistics=normalization.restarted(state.statistics, begun))

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, Any]:
        """Several epochs over the rollout [T, N], in minibatches drawn anew each epoch."""
        reward, more = intrinsic.found(self, state.intrinsic, batch.steps)
        rows, statistics = self.prepare(state, batch.steps, reward)
        orders = minibatches(self, key, rows)
        clip_range = falling(self.clip_range, self.clip_range_end, fraction)

        def step(loop):
            i, parameters, moments, totals, _ = loop
            minibatch = jax.tree.map(lambda x: x[:, orders[i]], rows)
            gradient, metrics = jax.grad(self.loss, has_aux=True)(parameters, minibatch, clip_range)
            change, changed = self.descent(fraction).update(gradient, moments, parameters)
            stepped, near = (optax.apply_updates(parameters, change), changed), True
            if self.target_kl is not None:
                near = metrics["kl"] <= self.target_kl
                stepped = jax.tree.map(lambda *x: jnp.where(near, *x), stepped, (parameters, moments))
            return i + 1, *stepped, jax.tree.map(jnp.add, totals, metrics), near

        names = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction")
        loop = (0, state.parameters, state.optimizer, dict.fromkeys(names, jnp.float32(0)), True)
        seen, parameters, moments, totals, _ = lax.while_loop(lambda x: (x[0] < len(orders)) & x[-1], step, loop)
        state = state._replace(parameters=parameters, optimizer=moments, statistics=statistics)
        return state, jax.tree.map(lambda total: total / seen, totals) | more, ()

    def prepare(self, state: State, steps: Transition, reward: Any = None) -> tuple[Transition, Any]:
        """A rollout with its advantages and value targets, cut into sequences [L, S]; and the merged statistics."""
        steps, statistics = normalization.as_acted(state.statistics, steps, self.gamma)
        steps = intrinsic.added(steps, reward)
        parameters, ends = state.parameters, (steps.terminated, steps.truncated)
        # What is stored was carried by these very parameters, so that no step has to wait for another.
        outputs, after = side_by_side(parameters.networks, steps.observation, steps.extras["carry"])
        following, _ = side_by_side(parameters.networks, steps.next_observation, after)
        value, next_value = parameters.value(outputs), parameters.value(following)
        advantage = generalized_advantages(value, next_value, steps.reward, *ends, self.gamma, self.gae_lambda)
        extras = steps.extras | {"value": value, "advantage": advantage, "target": advantage + value}
        return in_sequences(steps._replace(extras=extras), self.length), statistics
