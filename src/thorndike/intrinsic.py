"""Intrinsic rewards: what an algorithm's field `intrinsic` takes, a reward for what is new beside the environment's.

It is computed where an algorithm learns, from steps as they are remembered: the rewards and returns that are recorded
stay the environment's. An algorithm with the field has `intrinsic` in its state, () where the field is None, and calls
`begin`, `observe` with each trajectory, before it learns from it, and `found` with the steps that it learns from.

Both rewards are summed into one, with one value and one discount: novelty ends with an episode, as all else does.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import random

from thorndike import normalization
from thorndike.core import Transition
from thorndike.errors import SettingError, shown
from thorndike.hyperparameters import hyperparameters, named, setting
from thorndike.loops import repeat
from thorndike.networks import MLP, Network, Part, features, parts_of
from thorndike.networks.observations import leaf_of
from thorndike.optimizers import Adam, improved
from thorndike.sequences import flat, remembers, shapes_of_carry
from thorndike.spaces import stored

APART = 2**31 - 1  # the child of a key that nothing else is drawn from


class Intrinsic:
    """A recipe for rewards of what is new: `coefficient` times the `bonus` of what an action led to.

    A field annotated with it also takes a name: "rnd", "counts".
    """

    coefficient: float

    def begin(self, key: jax.Array, observation_space: spaces.Space, num_environments: int) -> Any:
        """The state, of nothing seen yet."""
        raise NotImplementedError

    def observe(self, state: Any, observation: Any) -> Any:
        """The state that has seen observations [T, N, ...], each of which is shown once."""
        raise NotImplementedError

    def bonus(self, state: Any, observation: Any) -> jax.Array:
        """How new observations [T, B, ...] are: [T, B]."""
        raise NotImplementedError

    @staticmethod
    def coerce(value: Any) -> Intrinsic:
        """What a user means by `value`. SettingError says what it may be."""
        value = named(value, Intrinsic, INTRINSICS, "intrinsic reward")
        if not isinstance(value, Intrinsic):
            raise SettingError(f"intrinsic= takes td.RND(...), td.Counts(...) or None, got {shown(value)}")
        return value


def begin(algorithm: Any, key: jax.Array, observation_space: spaces.Space) -> Any:
    """What the state of an algorithm keeps for its intrinsic rewards; () without any."""
    if algorithm.intrinsic is None:
        return ()
    key = random.fold_in(random.clone(key), APART)
    return algorithm.intrinsic.begin(key, observation_space, algorithm.num_environments)


def observe(algorithm: Any, state: Any, trajectory: Transition) -> Any:
    """The state that has seen a new trajectory [T, N]."""
    return state if algorithm.intrinsic is None else algorithm.intrinsic.observe(state, trajectory.next_observation)


def found(algorithm: Any, state: Any, steps: Transition) -> tuple[jax.Array | None, dict]:
    """The intrinsic rewards [T, B] of steps as they are remembered, and a metric of them; None without any."""
    if algorithm.intrinsic is None:
        return None, {}
    reward = algorithm.intrinsic.coefficient * algorithm.intrinsic.bonus(state, steps.next_observation)
    return reward, {"intrinsic_reward": reward.mean()}


def added(steps: Transition, reward: jax.Array | None) -> Transition:
    """Steps as they are learned from, with intrinsic rewards where there are any."""
    return steps if reward is None else steps._replace(reward=steps.reward + reward)


class Distilled(NamedTuple):
    """What RND keeps."""

    predictor: Any
    target: Any  # random, and stays so
    optimizer: Any
    observations: Any  # normalization.Moments
    scale: normalization.RewardScale  # of the errors, by the spread of their discounted sums


@hyperparameters
class RND(Intrinsic):
    """How badly a network predicts what a random one says of an observation: it has not seen many like it.

    Burda et al. (2019), "Exploration by random network distillation". Observations are normalised and clipped to
    [-5, 5], and the errors divided by the spread of their discounted sums, which run on from episode to episode. The
    predictor learns from every step once, when it comes, however often a replay gives it. The paper's second value, of
    novelty alone and beyond the ends of episodes, is left out.
    """

    coefficient: float = setting(1.0, low=0)
    network: Network = MLP((64, 64), activation="relu", initialization="orthogonal")  # of the target and the predictor
    features: int = setting(64, low=1, high=2**16)  # numbers that are predicted
    learning_rate: float = setting(1e-3, low=0)
    gamma: float = setting(0.99, low=0, high=1)  # discount of the sums
    batch_size: int = setting(256, low=1)  # observations in a step of the predictor, or as many as a rollout has

    clip: ClassVar[float] = 5.0

    def validate(self) -> None:
        if remembers(shapes_of_carry(self.network.initial_carry)) or not self.network.draws or self.network.fixed:
            raise SettingError("RND: network takes one without a memory, whose first weights are drawn: MLP or CNN")

    def begin(self, key: jax.Array, observation_space: spaces.Space, num_environments: int) -> Distilled:
        predictor, target = (self.network.init(each, observation_space, self.features) for each in random.split(key))
        observations = normalization.init(stored(observation_space))
        scale = normalization.init_reward_scale(num_environments)
        return Distilled(predictor, target, self._descent().init(predictor), observations, scale)

    def observe(self, state: Distilled, observation: Any) -> Distilled:
        state = state._replace(observations=normalization.update(state.observations, observation))
        error = self._error(state, observation)
        never = jnp.zeros(error.shape, bool)
        scale = normalization.update_reward_scale(state.scale, error, never, self.gamma)
        return self._trained(state._replace(scale=scale), observation)

    def bonus(self, state: Distilled, observation: Any) -> jax.Array:
        return normalization.scale_reward(state.scale, self._error(state, observation))

    def _trained(self, state: Distilled, observation: Any) -> Distilled:
        """The predictor one step on for each minibatch; what is left of the rollout after them is left out."""
        seen = flat(self._normalized(state, observation))
        count = jax.tree.leaves(seen)[0].shape[0]
        size = min(self.batch_size, count)
        minibatches = count // size
        order = jnp.arange(minibatches * size).reshape(size, minibatches).T  # of all times and copies in each

        def step(trained, rows):
            drawn = jax.tree.map(lambda x: x[rows], seen)

            def loss(predictor):
                return jnp.square(predictor(drawn) - state.target(drawn)).mean(), None

            return improved(loss, *trained, self._descent())[:2], None

        (predictor, optimizer), _ = repeat(step, (state.predictor, state.optimizer), order, minibatches)
        return state._replace(predictor=predictor, optimizer=optimizer)

    def _error(self, state: Distilled, observation: Any) -> jax.Array:
        leading = jax.tree.leaves(observation)[0].shape[:2]
        seen = flat(self._normalized(state, observation))
        return jnp.square(state.predictor(seen) - state.target(seen)).mean(-1).reshape(leading)

    def _normalized(self, state: Distilled, observation: Any) -> Any:
        return normalization.normalize(state.observations, observation, self.clip)

    def _descent(self) -> Any:
        return Adam().descent(self.learning_rate)


class Cells(eqx.Module):
    """Observations as numbers of cells, which are counted."""

    projection: Any  # [features, bits]; () where observations are few and each is a cell
    parts: tuple[Part, ...] = eqx.field(static=True)

    def __call__(self, observation: Any) -> jax.Array:
        """The cells [B] of observations [B, ...]."""
        if not isinstance(self.projection, tuple):
            bits = features(self.parts, observation) @ self.projection > 0
            return (bits << np.arange(bits.shape[1])[None]).sum(1, dtype=jnp.int32)
        cell = jnp.int32(0)
        for part in self.parts:
            x = leaf_of(part, observation)
            x = x.reshape(x.shape[0], -1).astype(jnp.int32) - np.array(part.start, np.int32)[None]
            for i, size in enumerate(part.choices):
                cell = cell * size + jnp.clip(x[:, i], 0, size - 1)
        return cell


class Counted(NamedTuple):
    """What Counts keeps."""

    cells: Cells
    visits: jax.Array  # [cells] uint32


@hyperparameters
class Counts(Intrinsic):
    """1 / sqrt(n(s)), n the times that a state has been visited: optimism that fades as it should with finitely many.

    Strehl and Littman (2008), "An analysis of model-based interval estimation for Markov decision processes", with
    rewards as Bellemare et al. (2016), "Unifying count-based exploration and intrinsic motivation", give them. Choices
    (Discrete, MultiDiscrete) are counted exactly where there are at most 2^bits combinations. All else is counted by
    the signs of `bits` random projections: SimHash (Tang et al., 2017, "#Exploration"), which tells one-hots and many
    features apart, and a few continuous numbers only by their direction.
    """

    coefficient: float = setting(0.1, low=0)
    bits: int = setting(18, low=1, high=24)

    def begin(self, key: jax.Array, observation_space: spaces.Space, num_environments: int) -> Counted:
        parts = tuple(part for part in parts_of(observation_space) if 0 not in part.shape)
        combinations = math.prod(size for part in parts for size in part.choices)
        if all(part.choices for part in parts) and combinations <= 2**self.bits:
            return Counted(Cells((), parts), jnp.zeros(combinations, jnp.uint32))
        one = jax.tree.map(lambda x: jnp.zeros((1, *x.shape), x.dtype), stored(observation_space))
        width = features(parts, one).shape[1]
        projection = random.normal(key, (width, self.bits), jnp.float32)
        return Counted(Cells(projection, parts), jnp.zeros(2**self.bits, jnp.uint32))

    def observe(self, state: Counted, observation: Any) -> Counted:
        return state._replace(visits=state.visits.at[state.cells(flat(observation))].add(1))

    def bonus(self, state: Counted, observation: Any) -> jax.Array:
        leading = jax.tree.leaves(observation)[0].shape[:2]
        visits = jnp.maximum(state.visits[state.cells(flat(observation))], 1)
        return jax.lax.rsqrt(visits.astype(jnp.float32)).reshape(leading)


INTRINSICS: dict[str, type[Intrinsic]] = {"rnd": RND, "counts": Counts}
