"""Probes: tiny environments whose true values are known, each of which isolates one thing that can be wrong.

An algorithm that is right learns any of them in seconds; one that is not fails at the probe that names its fault. Each
has `solution(gamma)`, the truth about the best policy, and `optimal_return`, the undiscounted return of its episodes
(on average, where they begin differently). With `continuous=True`, where there is that field, a probe is acted on by a
Box(-1, 1, (1,)) instead of a choice of two.

Those that need a memory, P11 and CartPole's position alone, stand apart: what they show does not say what it is worth.
So does P15, masked actions, whose values are known on average alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import random

from thorndike.environments.classic_control import CartPole

PyTree = Any


class Solution(NamedTuple):
    """K observations that the best policy meets, and the truth about each."""

    observation: PyTree  # [K, ...], as they are stored
    value: np.ndarray  # [K], float64; time limits are bootstrapped over, as if there were none
    action: np.ndarray | None  # [K, ...] the best, canonical (a Box's in [-1, 1]); None where any is as good


@dataclass(frozen=True)
class _Probe:
    """What most probes have in common: the ways to act, and no time limit."""

    continuous: bool = False
    max_steps: int | None = None

    @property
    def action_space(self) -> spaces.Space:
        return spaces.Box(-1.0, 1.0, (1,), np.float32) if self.continuous else spaces.Discrete(2)

    def _best(self, ways: Any) -> np.ndarray:
        """The actions that go these ways (-1 or 1), in the action space."""
        ways = np.asarray(ways)
        return _floats(ways)[:, None] if self.continuous else (ways > 0).astype(np.int32)


def _way(action: jax.Array) -> jax.Array:
    """-1 or 1 for a choice of two, the push itself where the actions are continuous."""
    return action[0] if action.ndim else 2.0 * action - 1.0


def _floats(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def _features(count: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (count,), np.float32)


def _either_sign(key: jax.Array, shape: tuple = ()) -> jax.Array:
    return jnp.where(random.bernoulli(key, shape=shape), 1.0, -1.0)


@dataclass(frozen=True)
class ConstantReward(_Probe):
    """P1: one observation, one action, one step, reward 1. Isolates the value's loss and the optimiser."""

    observation_space: ClassVar = _features(1)
    optimal_return: ClassVar = 1.0

    @property
    def action_space(self) -> spaces.Space:
        return super().action_space if self.continuous else spaces.Discrete(1)

    def initial(self, key: jax.Array) -> tuple:
        return ()

    def observe(self, state: tuple) -> jax.Array:
        return jnp.ones(1)

    def transition(self, state: tuple, action: jax.Array, key: jax.Array) -> tuple:
        return (), jnp.ones(()), jnp.ones((), bool)

    def solution(self, gamma: float) -> Solution:
        return Solution(np.ones((1, 1), np.float32), np.ones(1), None)


@dataclass(frozen=True)
class SignedReward(_Probe):
    """P2: one step, whose reward is the observation, -1 or 1. Isolates the gradient through the network."""

    observation_space: ClassVar = _features(1)
    optimal_return: ClassVar = 0.0

    def initial(self, key: jax.Array) -> jax.Array:
        return _either_sign(key, (1,))

    def observe(self, state: jax.Array) -> jax.Array:
        return state

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        return state, state[0], jnp.ones((), bool)

    def solution(self, gamma: float) -> Solution:
        return Solution(_floats([[-1], [1]]), np.array([-1.0, 1.0]), None)


@dataclass(frozen=True)
class LateReward(_Probe):
    """P3: reward 1 at the end of two steps (or `length`), whatever is done. Isolates discounting and bootstrapping."""

    length: int = 2
    optimal_return: ClassVar = 1.0

    @property
    def observation_space(self) -> spaces.Box:
        return _features(self.length)

    def initial(self, key: jax.Array) -> jax.Array:
        return jnp.zeros((), jnp.int32)

    def observe(self, state: jax.Array) -> jax.Array:
        return jax.nn.one_hot(state, self.length)

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        last = state + 1 == self.length
        return state + 1, jnp.where(last, 1.0, 0.0), last

    def solution(self, gamma: float) -> Solution:
        return Solution(
            np.eye(self.length, dtype=np.float32), gamma ** np.arange(self.length)[::-1].astype(float), None
        )


@dataclass(frozen=True)
class BestAction(_Probe):
    """P4: one observation, one step; the reward is the way that was chosen, -1 or 1. Isolates the policy's gradient."""

    observation_space: ClassVar = _features(1)
    optimal_return: ClassVar = 1.0

    def initial(self, key: jax.Array) -> tuple:
        return ()

    def observe(self, state: tuple) -> jax.Array:
        return jnp.ones(1)

    def transition(self, state: tuple, action: jax.Array, key: jax.Array) -> tuple:
        return (), _way(action), jnp.ones((), bool)

    def solution(self, gamma: float) -> Solution:
        return Solution(np.ones((1, 1), np.float32), np.ones(1), self._best([1]))


@dataclass(frozen=True)
class MatchObservation(_Probe):
    """P5: one step; reward 1 for going the way that is observed, -1 for the other. Isolates how a batch is aligned."""

    observation_space: ClassVar = _features(1)
    optimal_return: ClassVar = 1.0

    def initial(self, key: jax.Array) -> jax.Array:
        return _either_sign(key, (1,))

    def observe(self, state: jax.Array) -> jax.Array:
        return state

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        return state, state[0] * _way(action), jnp.ones((), bool)

    def solution(self, gamma: float) -> Solution:
        return Solution(_floats([[-1], [1]]), np.ones(2), self._best([-1, 1]))


@dataclass(frozen=True)
class EndlessReward(_Probe):
    """P6: reward 1 for ever, cut short after eight steps. Truncation is no end: the value is 1 / (1 - gamma)."""

    max_steps: int | None = 8
    observation_space: ClassVar = _features(1)

    @property
    def optimal_return(self) -> float:
        return np.inf if self.max_steps is None else float(self.max_steps)

    def initial(self, key: jax.Array) -> tuple:
        return ()

    def observe(self, state: tuple) -> jax.Array:
        return jnp.ones(1)

    def transition(self, state: tuple, action: jax.Array, key: jax.Array) -> tuple:
        return (), jnp.ones(()), jnp.zeros((), bool)

    def solution(self, gamma: float) -> Solution:
        return Solution(np.ones((1, 1), np.float32), np.array([1 / (1 - gamma)]), None)


@dataclass(frozen=True)
class TerminatedOrTruncated(_Probe):
    """P7: two states that earn 1 and lead to a third, worth 2: one terminates there, the other is only cut short.

    All episodes take one step and are truncated after it, begin they in the first, the second or the third state; in
    the first and the third they terminate as well. So the values of the first two differ by gamma * 2.
    """

    max_steps: int | None = 1
    observation_space: ClassVar = _features(3)
    optimal_return: ClassVar = 4 / 3

    def initial(self, key: jax.Array) -> jax.Array:
        return random.randint(key, (), 0, 3)

    def observe(self, state: jax.Array) -> jax.Array:
        return jax.nn.one_hot(state, 3)

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        return jnp.full_like(state, 2), jnp.where(state == 2, 2.0, 1.0), state != 1

    def solution(self, gamma: float) -> Solution:
        return Solution(np.eye(3, dtype=np.float32), np.array([1, 1 + 2 * gamma, 2]), None)


@dataclass(frozen=True)
class ResetSentinel(_Probe):
    """P8: an episode's first observation is 1000 and earns nothing; then 1 is observed, and earned, until the limit.

    The value of observing 1 is 1 / (1 - gamma). It comes out lower wherever the first observation of the next episode
    is taken for what the last step led to. No `next_observation` may ever hold `sentinel`.
    """

    max_steps: int | None = 8
    sentinel: ClassVar = 1000.0
    observation_space: ClassVar = _features(1)

    @property
    def optimal_return(self) -> float:
        return np.inf if self.max_steps is None else self.max_steps - 1.0

    def initial(self, key: jax.Array) -> jax.Array:
        return jnp.full(1, self.sentinel)

    def observe(self, state: jax.Array) -> jax.Array:
        return state

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        return jnp.ones_like(state), jnp.where(state[0] == 1, 1.0, 0.0), jnp.zeros((), bool)

    def solution(self, gamma: float) -> Solution:
        return Solution(np.ones((1, 1), np.float32), np.array([1 / (1 - gamma)]), None)


@dataclass(frozen=True)
class DelayedReward(_Probe):
    """P9: `length` steps, at whose end the mean of the ways taken (-1 or 1) is earned. Isolates n-step returns."""

    length: int = 5
    optimal_return: ClassVar = 1.0

    @property
    def observation_space(self) -> spaces.Box:
        return _features(self.length + 1)  # one-hot: steps taken; the sum of their ways, divided by the length

    def initial(self, key: jax.Array) -> tuple:
        return jnp.zeros((), jnp.int32), jnp.zeros(())

    def observe(self, state: tuple) -> jax.Array:
        steps, total = state
        return jnp.append(jax.nn.one_hot(steps, self.length), total / self.length)

    def transition(self, state: tuple, action: jax.Array, key: jax.Array) -> tuple:
        steps, total = state[0] + 1, state[1] + _way(action)
        last = steps == self.length
        return (steps, total), jnp.where(last, total / self.length, 0.0), last

    def solution(self, gamma: float) -> Solution:
        steps = np.arange(self.length)
        observation = np.column_stack([np.eye(self.length), steps / self.length]).astype(np.float32)
        return Solution(observation, gamma ** steps[::-1].astype(float), self._best(np.ones(self.length)))


@dataclass(frozen=True)
class LopsidedAction:
    """P10: one step with an action in [-2, 5], best at `optimum`: 4.5, or -2 on the edge. Isolates action scaling."""

    optimum: float = 4.5
    max_steps: int | None = None
    observation_space: ClassVar = _features(1)
    action_space: ClassVar = spaces.Box(-2.0, 5.0, (1,), np.float32)
    optimal_return: ClassVar = 1.0

    def initial(self, key: jax.Array) -> tuple:
        return ()

    def observe(self, state: tuple) -> jax.Array:
        return jnp.ones(1)

    def transition(self, state: tuple, action: jax.Array, key: jax.Array) -> tuple:
        return (), 1.0 - jnp.square((action[0] - self.optimum) / 3.5), jnp.ones((), bool)

    def solution(self, gamma: float) -> Solution:
        return Solution(np.ones((1, 1), np.float32), np.ones(1), _floats([[(self.optimum - 1.5) / 3.5]]))


@dataclass(frozen=True)
class BlackOrWhite(_Probe):
    """P12: one step on a uint8 image, all 0 (go -1) or all 255 (go 1). The right way earns 0 on black and 1 on white,
    the wrong one 2 less. Isolates the path of images."""

    size: int = 36  # of either side, in pixels
    optimal_return: ClassVar = 0.5

    @property
    def observation_space(self) -> spaces.Box:
        return spaces.Box(0, 255, (self.size, self.size, 1), np.uint8)

    def initial(self, key: jax.Array) -> jax.Array:
        return random.bernoulli(key)

    def observe(self, state: jax.Array) -> jax.Array:
        return jnp.full((self.size, self.size, 1), jnp.where(state, 255, 0), jnp.uint8)

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        right = jnp.where(state, 1.0, -1.0) * _way(action)
        return state, right - 1.0 + state, jnp.ones((), bool)

    def solution(self, gamma: float) -> Solution:
        images = np.zeros((2, self.size, self.size, 1), np.uint8)
        images[1] = 255
        return Solution(images, np.array([0.0, 1.0]), self._best([-1, 1]))


@dataclass(frozen=True)
class MixedSpaces:
    """P13: one step; a bit and a level (0, 1 or 2) are observed through some space, and each is to be named.

    Either name that is right earns 0.5, and the level is earned on top. `continuous`: the names are numbers from -0.5
    to 0.5, and being beside them costs. Isolates the handling of spaces.
    """

    kind: Literal["dict", "tuple", "multi_discrete", "multi_binary", "nested"] = "dict"
    multi_discrete_actions: bool = False  # name bit and level apart, instead of by 3 * bit + level
    continuous: bool = False
    max_steps: int | None = None
    optimal_return: ClassVar = 2.0

    @property
    def observation_space(self) -> spaces.Space:
        bit, one_hot = spaces.Discrete(2), spaces.Box(0.0, 1.0, (3,), np.float32)
        flags = spaces.MultiBinary(3)
        return {
            "dict": spaces.Dict({"level": one_hot, "bit": bit}),
            "tuple": spaces.Tuple((bit, one_hot)),
            "multi_discrete": spaces.MultiDiscrete([2, 3]),
            "multi_binary": spaces.MultiBinary(4),
            "nested": spaces.Dict({"pair": spaces.Tuple((flags, bit)), "level": spaces.Discrete(3, start=-1)}),
        }[self.kind]

    @property
    def action_space(self) -> spaces.Space:
        if self.continuous:
            return spaces.Box(-1.0, 1.0, (2,), np.float32)
        return spaces.MultiDiscrete([2, 3]) if self.multi_discrete_actions else spaces.Discrete(6)

    def initial(self, key: jax.Array) -> jax.Array:
        return random.randint(key, (), 0, 6)

    def observe(self, state: jax.Array) -> PyTree:
        bit, level = state // 3, state % 3
        flags = (level == jnp.arange(3)).astype(jnp.int8)
        return {
            "dict": {"bit": bit, "level": flags.astype(jnp.float32)},
            "tuple": (bit, flags.astype(jnp.float32)),
            "multi_discrete": jnp.stack([bit, level]),
            "multi_binary": jnp.append(flags, bit.astype(jnp.int8)),
            "nested": {"level": level - 1, "pair": (flags, bit)},
        }[self.kind]

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        if self.continuous:
            beside = action - 0.5 * jnp.stack([2 * (state // 3) - 1, state % 3 - 1])
            return state, 1.0 - 0.5 * jnp.square(beside).sum() + state % 3, jnp.ones((), bool)
        bit, level = action if self.multi_discrete_actions else (action // 3, action % 3)
        right = 0.5 * (bit == state // 3) + 0.5 * (level == state % 3)
        return state, right + state % 3, jnp.ones((), bool)

    def solution(self, gamma: float) -> Solution:
        states = np.arange(6, dtype=np.int32)
        apart = np.stack([states // 3, states % 3], -1)
        names = (
            _floats(0.5 * (apart * [2, 1] - 1)) if self.continuous else apart if self.multi_discrete_actions else states
        )
        observations = jax.tree.map(np.asarray, jax.vmap(self.observe)(jnp.asarray(states)))
        return Solution(observations, 1.0 + states % 3, names)


@dataclass(frozen=True)
class UnevenScales(_Probe):
    """P14: one step; 1000 plus a sign that is earned, beside 0.001 times the way to go. Isolates normalisation."""

    observation_space: ClassVar = _features(2)
    optimal_return: ClassVar = 1.0

    def initial(self, key: jax.Array) -> jax.Array:
        return _either_sign(key, (2,))

    def observe(self, state: jax.Array) -> jax.Array:
        return jnp.stack([1000 + state[0], 0.001 * state[1]])

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        return state, state[0] + state[1] * _way(action), jnp.ones((), bool)

    def solution(self, gamma: float) -> Solution:
        signs = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
        observation = _floats([1000, 0]) + _floats([1, 0.001]) * _floats(signs)
        return Solution(observation, 1.0 + signs[:, 0], self._best(signs[:, 1]))


@dataclass(frozen=True)
class UnevenLengths(_Probe):
    """P16: reward 1 a step; each episode lasts 1 to `longest` steps, drawn anew. Isolates the copies' bookkeeping."""

    longest: int = 8

    @property
    def observation_space(self) -> spaces.Box:
        return _features(self.longest)

    @property
    def optimal_return(self) -> float:
        return (1 + self.longest) / 2

    def initial(self, key: jax.Array) -> jax.Array:
        return random.randint(key, (), 1, self.longest + 1)

    def observe(self, state: jax.Array) -> jax.Array:
        return jax.nn.one_hot(state - 1, self.longest)

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        return state - 1, jnp.ones(()), state == 1

    def solution(self, gamma: float) -> Solution:
        value = np.cumsum(gamma ** np.arange(self.longest, dtype=float))
        return Solution(np.eye(self.longest, dtype=np.float32), value, None)


@dataclass(frozen=True)
class Cue(_Probe):
    """P11: -1 or 1 is shown at the first of `length` steps, and the last one earns 1 for going that way, -1 for the
    other. Isolates memory: without one, nothing is earned on average."""

    length: int = 8
    observation_space: ClassVar = _features(2)  # the cue, or 0; whether this is the last step
    optimal_return: ClassVar = 1.0

    def initial(self, key: jax.Array) -> tuple:
        return _either_sign(key), jnp.zeros((), jnp.int32)

    def observe(self, state: tuple) -> jax.Array:
        cue, time = state
        return jnp.stack([jnp.where(time == 0, cue, 0.0), jnp.where(time == self.length - 1, 1.0, 0.0)])

    def transition(self, state: tuple, action: jax.Array, key: jax.Array) -> tuple:
        cue, time = state
        last = time == self.length - 1
        return (cue, time + 1), jnp.where(last, cue * _way(action), 0.0), last


class Choice(NamedTuple):
    """What MaskedChoice is in."""

    legal: jax.Array  # [choices]
    way: jax.Array  # -1 or 1
    time: jax.Array


@dataclass(frozen=True)
class MaskedChoice:
    """P15: in each of `length` steps only `legal` of `choices` are legal, drawn anew. A legal action earns its number,
    counted from 1, or from the other end where that is shown, over `choices`; an illegal one costs 100. Isolates masks.
    """

    choices: int = 20
    legal: int = 5
    length: int = 4
    max_steps: ClassVar = None

    @property
    def observation_space(self) -> spaces.Dict:
        return spaces.Dict(action_mask=spaces.MultiBinary(self.choices), observation=_features(1 + self.length))

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(self.choices)

    @property
    def optimal_return(self) -> float:
        """Each step earns the greatest of the legal numbers."""
        return self.length * (self.choices + 1) * self.legal / (self.legal + 1) / self.choices

    def initial(self, key: jax.Array) -> Choice:
        return self._drawn(key, jnp.zeros((), jnp.int32))

    def observe(self, state: Choice) -> PyTree:
        time = jax.nn.one_hot(state.time, self.length)
        return {"action_mask": state.legal, "observation": jnp.concatenate([state.way[None], time])}

    def transition(self, state: Choice, action: jax.Array, key: jax.Array) -> tuple:
        number = jnp.where(state.way > 0, action + 1, self.choices - action)
        reward = jnp.where(state.legal[action], number / self.choices, -100.0)
        return self._drawn(key, state.time + 1), reward, state.time == self.length - 1

    def _drawn(self, key: jax.Array, time: jax.Array) -> Choice:
        legal_key, way_key = random.split(key)
        return Choice(random.permutation(legal_key, self.choices) < self.legal, _either_sign(way_key), time)


@dataclass(frozen=True)
class PositionOnlyCartPole(CartPole):
    """CartPole-v1 without its velocities: only a memory knows which way cart and pole are moving."""

    observation_space: ClassVar = spaces.Box(CartPole.observation_space.low[::2], CartPole.observation_space.high[::2])

    def observe(self, state: jax.Array) -> jax.Array:
        return state[::2]


PROBES: dict[str, tuple] = {
    "P1": (ConstantReward(),),
    "P2": (SignedReward(),),
    "P3": (LateReward(),),
    "P4": (BestAction(),),
    "P5": (MatchObservation(),),
    "P6": (EndlessReward(),),
    "P7": (TerminatedOrTruncated(),),
    "P8": (ResetSentinel(),),
    "P9": (DelayedReward(),),
    "P10": (LopsidedAction(4.5), LopsidedAction(-2.0)),
    "P12": (BlackOrWhite(),),
    "P13": (
        MixedSpaces("dict"),
        MixedSpaces("tuple"),
        MixedSpaces("multi_discrete"),
        MixedSpaces("multi_binary"),
        MixedSpaces("nested"),
        MixedSpaces("dict", multi_discrete_actions=True),
    ),
    "P14": (UnevenScales(),),
    "P16": (UnevenLengths(),),
}
