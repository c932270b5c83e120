"""Deep Q-network: learn what every action is worth, and mostly take the best one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from gymnasium import spaces
from jax import random

from thorndike import intrinsic, masks, normalization, sequences
from thorndike.core import Batch, Transition
from thorndike.distributions import Categorical
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.intrinsic import Intrinsic
from thorndike.memories import Prioritized, Replay, check_replay, first_carry
from thorndike.networks import MLP, Network, check_special, is_noisy, noiseless, perturbed
from thorndike.optimizers import Adam, Optimizer, clipped, improved
from thorndike.schedules import linear
from thorndike.sequences import first, flat, over_time, remembers, shapes_of_carry
from thorndike.spaces import check_discrete_actions, uniform_choice
from thorndike.targets import NStep, recalled, signed_hyperbolic, signed_parabolic


class State(NamedTuple):
    network: Any  # Q(s, .), the network being learned
    target_network: Any  # the frozen copy that its targets come from
    optimizer: Any
    updates: jax.Array
    statistics: Any  # what observations and rewards are normalised by
    intrinsic: Any = ()  # what rewards for what is new are made of


class Policy(NamedTuple):
    network: Any
    epsilon: jax.Array  # how often to act at random
    observations: Any  # what they are normalised by


@hyperparameters
class DQN:
    """Q-learning with a neural network, a memory of past steps and a slowly moving target.

    Mnih et al. (2015), "Human-level control through deep reinforcement learning". With `double`, the online network
    chooses the next action and the target network values it (van Hasselt et al., 2016). n-step returns are
    `memory=Replay(window=n)`; prioritized replay (Schaul et al., 2016) is `memory=Prioritized(...)`. With
    `dueling`, networks put out V and advantages (Wang et al., 2016). A network with a memory (Kapturowski et al., 2019,
    "Recurrent experience replay in distributed reinforcement learning") learns from steps in a row,
    `memory=Prioritized(sequence=..., burn_in=...)`. For Discrete actions.

    Networks with noisy layers, `network=MLP(noisy=True)` (Fortunato et al., 2018), are drawn once for each act and, for
    each update, once for what is learned, once for the target and, with `double`, once more to choose the next action.
    They explore by themselves: `epsilon_start=0, epsilon_end=0`.

    With `munchausen` (Vieillard et al., 2020, "Munchausen reinforcement learning"), the policy is a softmax of the
    target network's values, each reward has the log-probability of its action added, and the next value is the
    policy's, with its entropy; `double` is of no effect. In an n-step return that is so of every reward, and the steps
    after the first, which are of actions taken instead of the policy's mean, have those actions' share of the entropy.
    """

    network: Network = MLP((64, 64), activation="tanh", initialization="orthogonal")
    learning_rate: float = setting(1e-3, low=0)
    learning_rate_end: float | None = setting(0.0, low=0, end_of="learning_rate")  # of a linear fall; None: it stays
    optimizer: Optimizer = Adam()
    gamma: float = setting(0.99, low=0, high=1)  # discount
    double: bool = True
    dueling: bool = False  # Q = V + A - mean(A)
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
    munchausen: bool = False
    munchausen_alpha: float = setting(0.9, low=0, high=1)  # share of the log-probability that is added to rewards
    munchausen_temperature: float = setting(0.03, above=0)  # of the policy
    munchausen_clip: float = setting(-1.0, high=0)  # the least that a log-probability counts, times the temperature
    intrinsic: Intrinsic | None = setting(None, recipe=True)  # rewards for what is new beside the environment's
    num_environments: int = setting(8, low=1, high=2**20)
    rollout_length: int = setting(8, low=1)
    updates_per_rollout: int = setting(32, low=1, high=2**20)
    warmup_steps: int = setting(1_000, low=0)
    memory: Replay = Prioritized(capacity=20_000, batch_size=64, window=5)

    special: ClassVar[Mapping[str, tuple[str, ...]]] = {"network": ("noise",)}  # what networks may ask for

    def validate(self) -> None:
        check_replay(self)
        check_special(self, **self.special)
        if self.munchausen and self.rescales:
            raise SettingError(f"{type(self).__name__}: munchausen=True needs values as they are: rescale_values=False")

    def check(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        check_discrete_actions(type(self).__name__, action_space)
        masks.check(observation_space, action_space)

    def descent(self, fraction: jax.Array | float = 0.0) -> optax.GradientTransformation:
        return clipped(self, fraction, flat=True)

    def init(self, key: jax.Array, observation_space: spaces.Space, action_space: Any) -> State:
        network = self.init_network(key, observation_space, int(action_space.n))
        target_network = jax.tree.map(jnp.copy, network)
        statistics = normalization.begin(self, observation_space)
        novelty = intrinsic.begin(self, key, observation_space)
        return State(network, target_network, self.descent().init(network), jnp.uint32(0), statistics, novelty)

    def init_network(self, key: jax.Array, observation_space: spaces.Space, actions: int) -> Any:
        return self.network.init(key, observation_space, (actions + self.dueling) * self.atoms)

    @property
    def atoms(self) -> int:
        """Numbers that are learned of each action: for DQN its value alone."""
        return 1

    def of_actions(self, network: Any, outputs: jax.Array, tau: jax.Array | None = None) -> jax.Array:
        """What a network puts out [B, outputs], for each action: [B, A, atoms].

        `tau` is for those that are asked for quantiles.
        """
        outputs = outputs.reshape(outputs.shape[0], outputs.shape[1] // self.atoms, self.atoms)
        return duel(outputs) if self.dueling else outputs

    def q(self, network: Any, outputs: jax.Array) -> jax.Array:
        """Q(s, .) [B, A], of what a network puts out [B, outputs]; as learned, rescaled or not."""
        return self.of_actions(network, outputs)[..., 0]

    def values(self, policy: Policy, observation: Any, carry: Any) -> tuple[jax.Array, Any]:
        """Q(s, .) [N, A], -inf where an action is not legal, and the next carry."""
        seen = normalization.normalize(policy.observations, observation)
        outputs, after = sequences.step(policy.network, seen, carry)
        return masks.legal(self.q(policy.network, outputs), masks.of(observation)), after

    def policy(self, state: State, fraction: jax.Array, explore: bool = True) -> Policy:
        fallen = jnp.minimum(fraction / self.exploration_fraction, 1.0)
        epsilon = linear(self.epsilon_start, self.epsilon_end, fallen)
        epsilon = epsilon if explore else jnp.zeros_like(epsilon)
        return Policy(state.network if explore else noiseless(state.network), epsilon, state.statistics.observations)

    def network_carry(self, n: int) -> Any:
        """What the network carries where an episode begins; acting may carry more."""
        return self.network.initial_carry(n)

    def initial_carry(self, n: int) -> Any:
        return self.network_carry(n)

    def act(self, policy: Policy, observation: Any, carry: Any, key: jax.Array) -> tuple[jax.Array, Any, dict]:
        """The best legal action or, with probability epsilon, any: [N] int32."""
        if is_noisy(policy.network):
            key, key_noise = random.split(key)
            policy = policy._replace(network=perturbed(policy.network, key_noise))
        q, after = self.values(policy, observation, carry)
        return self.mostly_best(policy, q, observation, key), after, {"carry": carry}

    def mostly_best(self, policy: Policy, q: jax.Array, observation: Any, key: jax.Array) -> jax.Array:
        """The action of the largest value of q [N, A] or, with probability epsilon, any legal one."""
        key_whether, key_which = random.split(key)
        at_random = random.uniform(key_whether, q.shape[:1]) < policy.epsilon
        any_action = uniform_choice(key_which, q.shape[0], q.shape[1], masks.of(observation))
        return jnp.where(at_random, any_action, _best(q))

    def greedy(self, policy: Policy, observation: Any, carry: Any) -> tuple[jax.Array, Any]:
        """The best legal action, by the means of noisy networks."""
        q, after = self.values(policy._replace(network=noiseless(policy.network)), observation, carry)
        return _best(q), after

    @property
    def rescales(self) -> bool:
        """Whether h(Q) is learned instead of Q: a memory's outputs are small, and large values would drown it."""
        return remembers(shapes_of_carry(self.network_carry)) if self.rescale_values is None else self.rescale_values

    def recall(self, state: State, steps: Transition) -> NStep:
        """What windows [T, B] teach, seen with the carries of the online and the target network."""
        networks, carry = (state.network, state.target_network), first_carry(steps, self.network_carry)
        seen = over_time(networks, steps.observation, (carry, carry), steps.terminated | steps.truncated)
        if not self.munchausen:
            return recalled(steps, self.gamma, self.memory, seen)
        policy = self.softmax(self.q(state.target_network, flat(seen.outputs[1])), flat(steps.observation))
        log_prob = policy.log_prob(flat(steps.action)).reshape(steps.reward.shape) * self.munchausen_temperature
        reward = steps.reward + self.munchausen_alpha * jnp.clip(log_prob, self.munchausen_clip, 0.0)
        return recalled(steps._replace(reward=reward), self.gamma, self.memory, seen, reward - log_prob)

    def softmax(self, q: jax.Array, observation: Any) -> Categorical:
        """The policy that Munchausen targets are of."""
        return Categorical(masks.legal(q, masks.of(observation)) / self.munchausen_temperature)

    def taken(self, network: Any, step: NStep, key: Any = None, tau: Any = None) -> jax.Array:
        """What is learned of the actions taken: [L * B, atoms]. The key is for the noise of noisy networks."""
        network = perturbed(network, key)
        outputs = over_time(network, step.observation, first(step.carry[0]), step.ended).outputs
        return pick(self.of_actions(network, flat(outputs), tau), flat(step.action))

    def best_following(self, network: Any, target_network: Any, step: NStep, key: Any = None, tau: Any = None) -> Any:
        """What the target network says of the best next actions: [L * B, atoms]."""
        step = flat(step)
        networks = perturbed((network, target_network), key)
        outputs, _ = sequences.step(networks, step.next_observation, step.next_carry)
        of_actions = self.of_actions(networks[1], outputs[1], tau)
        chooser = 0 if self.double and not self.munchausen else 1
        q = self.q(networks[chooser], outputs[chooser])
        if self.munchausen:
            policy = self.softmax(q, step.next_observation)
            entropy = self.munchausen_temperature * policy.entropy()
            return (policy.probabilities[..., None] * of_actions).sum(1) + entropy[:, None]
        return pick(of_actions, masks.legal(q, masks.of(step.next_observation)).argmax(-1))

    def target(self, following: jax.Array, step: NStep) -> jax.Array:
        """r + gamma z, the sum of n rewards for n-step returns, for each of the next values z [L * B, atoms]."""
        target = flat(step.reward)[:, None] + flat(step.discount)[:, None] * self.unscaled(following)
        return jax.lax.stop_gradient(signed_hyperbolic(target) if self.rescales else target)

    def unscaled(self, values: jax.Array) -> jax.Array:
        """What is learned, in the size of rewards."""
        return signed_parabolic(values) if self.rescales else values

    def td_error(self, network: Any, target_network: Any, step: NStep, keys: Any = (None, None)) -> jax.Array:
        """[L * B]: r + gamma max_a Q'(s', a) - Q(s, a)."""
        target = self.target(self.best_following(network, target_network, step, keys[0]), step)
        return target[:, 0] - self.taken(network, step, keys[1])[:, 0]

    def losses(self, network: Any, target_network: Any, step: NStep, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The loss of each sample [L * B], and how wrong the network was about it, which priorities are made of."""
        error = self.td_error(network, target_network, step, random.split(key))
        return optax.huber_loss(error) if self.loss == "huber" else optax.l2_loss(error), jnp.abs(error)

    def weights(self, batch: Batch, step: NStep) -> jax.Array:
        """What the loss of each sample counts: [L * B], as the memory says."""
        return flat(jnp.broadcast_to(batch.weight[None], step.reward.shape))

    def observe(self, state: State, trajectory: Transition) -> State:
        statistics = normalization.observe(state.statistics, trajectory, self.gamma)
        return state._replace(statistics=statistics, intrinsic=intrinsic.observe(self, state.intrinsic, trajectory))

    def restarted(self, state: State, begun: jax.Array) -> State:
        return state._replace(statistics=normalization.restarted(state.statistics, begun))

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, Any]:
        reward, more = intrinsic.found(self, state.intrinsic, batch.steps)
        step = self.recall(state, intrinsic.added(normalization.apply(state.statistics, batch.steps), reward))
        weight = self.weights(batch, step)

        def loss(network):
            per_sample, error = self.losses(network, state.target_network, step, key)
            return (weight * per_sample).mean(), error

        network, optimizer, value, error = improved(loss, state.network, state.optimizer, self.descent(fraction))
        updates = state.updates + 1
        target_network = optax.periodic_update(network, state.target_network, updates, self.target_period)
        metrics = {"loss": value, "td_error": error.mean(), **more}
        state = State(network, target_network, optimizer, updates, state.statistics, state.intrinsic)
        return state, metrics, error.reshape(step.reward.shape)


def _best(values: jax.Array) -> jax.Array:
    return values.argmax(-1).astype(jnp.int32)


def duel(outputs: jax.Array) -> jax.Array:
    """A value and advantages [B, 1 + A, ...] as what they make of each action [B, A, ...]."""
    value, advantage = outputs[:, :1], outputs[:, 1:]  # Wang et al. (2016), equation 9
    return value + advantage - advantage.mean(1, keepdims=True)


def pick(of_actions: jax.Array, action: jax.Array) -> jax.Array:
    """What there is of each sample's action: [B, A, atoms], [B] -> [B, atoms]."""
    return jnp.take_along_axis(of_actions, action[:, None, None], axis=1)[:, 0]
