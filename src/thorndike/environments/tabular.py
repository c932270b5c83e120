"""Small decision processes given outright, whose optimum dynamic programming computes: what algorithms are held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import random

from thorndike.environments.probes import Solution
from thorndike.errors import SettingError

MOST_STEPS = 100_000  # of an episode without a time limit, until its return is given up


@dataclass(frozen=True, eq=False)
class Tabular:
    """A finite decision process from its tables: S states, A actions, and K ways that an action may go.

    What is seen of the states is `observations`, a tree of arrays [S, ...] as `observation_space` promises, by default
    states one-hot. States may look alike: then values are those of a player who knows the state. Two processes are
    equal, and of equal hash, if their tables are. `Tabular.dense` makes one from tables [S, A, S].

    Raises SettingError where a probability is negative or probabilities do not sum to 1.
    """

    name: str
    probability: Any  # [S, A, K]
    next_state: Any  # [S, A, K]
    reward: Any  # [S, A, K]
    terminated: Any  # [S, A, K] bool
    start_probability: Any  # [S]
    max_steps: int | None = None
    observation_space: Any = None
    observations: Any = None

    def __post_init__(self) -> None:
        tables = {"probability": float, "next_state": np.int32, "reward": float, "terminated": bool}
        for table, dtype in (tables | {"start_probability": float}).items():
            object.__setattr__(self, table, _fixed(np.array(getattr(self, table), dtype)))
        for table in ("probability", "start_probability"):
            probability = getattr(self, table)
            if (probability < 0).any() or not np.allclose(probability.sum(-1), 1, rtol=0, atol=1e-9):
                raise SettingError(f"{self.name}: each row of {table} must be probabilities that sum to 1")
        if self.observation_space is None:
            object.__setattr__(self, "observation_space", spaces.Box(0.0, 1.0, (self.states,), np.float32))
            object.__setattr__(self, "observations", np.eye(self.states, dtype=np.float32))
        object.__setattr__(self, "observations", jax.tree.map(_fixed, self.observations))

    @classmethod
    def dense(
        cls,
        name: str,
        transition_probability: np.ndarray,
        reward: np.ndarray,
        terminal: np.ndarray,
        start_probability: np.ndarray,
        max_steps: int | None = None,
    ) -> Tabular:
        """From the probability and the reward [S, A, S] of each transition; arriving in a `terminal` state [S] ends."""
        terminal = np.asarray(terminal, bool)
        following = np.broadcast_to(np.arange(len(terminal)), np.shape(reward))
        reward = np.where(terminal[:, None, None], 0.0, reward)  # nothing is earned after the end
        ends = terminal[following] | terminal[:, None, None]
        return cls(name, transition_probability, following, reward, ends, start_probability, max_steps)

    @cached_property
    def _identity(self) -> tuple:
        tables = (self.probability, self.next_state, self.reward, self.terminated, self.start_probability)
        seen = (repr(self.observation_space), *(array.tobytes() for array in jax.tree.leaves(self.observations)))
        return self.name, self.max_steps, self.reward.shape, *(table.tobytes() for table in tables), *seen

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tabular) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def states(self) -> int:
        return self.reward.shape[0]

    @property
    def actions(self) -> int:
        return self.reward.shape[1]

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(self.actions)

    def initial(self, key: jax.Array) -> jax.Array:
        return _draw(key, jnp.asarray(_cumulative(self.start_probability)))

    def observe(self, state: jax.Array) -> Any:
        return jax.tree.map(lambda table: jnp.asarray(table)[state], self.observations)

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        way = _draw(key, jnp.asarray(_cumulative(self.probability))[state, action])
        return tuple(jnp.asarray(x)[state, action, way] for x in (self.next_state, self.reward, self.terminated))

    def action_values(self, values: np.ndarray, gamma: float) -> np.ndarray:
        """[S, A] what each action earns at once, and `values` [S] of where it leads, unless it ends the episode."""
        after = np.where(self.terminated, 0, np.asarray(values)[self.next_state])
        return (self.probability * (self.reward + gamma * after)).sum(-1)

    def optimal_values(self, gamma: float) -> np.ndarray:
        """[S] the values of the best policy, by policy iteration: exact but for the rounding of float64.

        As if there were no time limit; `gamma` is below 1.
        """
        values = np.zeros(self.states)
        for _ in range(self.states):  # sweeps are cheap, and leave few policies to improve on
            values = self.action_values(values, gamma).max(1)
        choice = self.action_values(values, gamma).argmax(1)
        while True:
            values = self.policy_values(np.eye(self.actions)[choice], gamma)
            action_values = self.action_values(values, gamma)
            better = action_values.max(1) > values + 1e-11 * (1 + np.abs(values).max())
            if not better.any():
                return values
            choice = np.where(better, action_values.argmax(1), choice)

    def policy_values(self, policy: np.ndarray, gamma: float) -> np.ndarray:
        """[S] the values of a policy given as probabilities [S, A], by solving Bellman's linear equations."""
        moves = np.zeros((self.states, self.states))
        at = np.broadcast_to(np.arange(self.states)[:, None, None], self.next_state.shape)
        np.add.at(moves, (at, self.next_state), np.where(self.terminated, 0, policy[..., None] * self.probability))
        earned = (policy * self.action_values(np.zeros(self.states), gamma)).sum(1)
        return np.linalg.solve(np.eye(self.states) - gamma * moves, earned)

    @cached_property
    def optimal_return(self) -> float:
        """The most that an episode earns on average, undiscounted and within its time limit.

        That takes a player who counts the steps; one who does not may earn a little less where the limit is short.
        """
        return self._return(lambda action_values: action_values.max(1))

    def policy_return(self, policy: np.ndarray) -> float:
        """What an episode of a policy [S, A] earns on average, undiscounted and within its time limit."""
        return self._return(lambda action_values: (policy * action_values).sum(1))

    def _return(self, choose: Callable[[np.ndarray], np.ndarray]) -> float:
        """By backward induction from the last step; without a limit until nothing changes, NaN where that never is."""
        values = np.zeros(self.states)
        for _ in range(self.max_steps or MOST_STEPS):
            before, values = values, choose(self.action_values(values, 1.0))
            if self.max_steps is None and np.abs(values - before).max() <= 1e-12 * (1 + np.abs(values).max()):
                return float(self.start_probability @ values)
        return float(self.start_probability @ values) if self.max_steps else float("nan")

    def solution(self, gamma: float) -> Solution:
        """Of all states that an episode can come to act in; of equally good actions the first."""
        acting = self.start_probability > 0
        goes_on = (self.probability > 0) & ~self.terminated
        for _ in range(self.states):
            acting[self.next_state[acting][goes_on[acting]]] = True
        values = self.optimal_values(gamma)
        good = self.action_values(values, gamma) > values[:, None] - 1e-9 * (1 + np.abs(values).max())
        best = good.argmax(1).astype(np.int32)
        return Solution(jax.tree.map(lambda table: table[acting], self.observations), values[acting], best[acting])


def _fixed(array: np.ndarray) -> np.ndarray:
    """An array that nobody can change: processes are compared by their tables."""
    array = np.array(array)
    array.setflags(write=False)
    return array


def _cumulative(probability: np.ndarray) -> np.ndarray:
    """Sums along the last axis, past 1 from the last possible outcome on, so that rounding leaves no gap below 1."""
    total = np.cumsum(probability, -1)
    return np.where(total > 1 - 1e-9, 2.0, total).astype(np.float32)


def _draw(key: jax.Array, cumulative: jax.Array) -> jax.Array:
    return (random.uniform(key, dtype=jnp.float32) >= cumulative).sum(dtype=jnp.int32)


def garnet(seed: int, states: int = 10, actions: int = 3, branching: int = 3, max_steps: int | None = 100) -> Tabular:
    """A random process without an end: each action leads to `branching` states and earns a number in [0, 1].

    After Archibald, McKinnon and Thomas, "On the generation of Markov decision processes" (1995).
    """
    generator = np.random.default_rng(seed)
    probability = np.zeros((states, actions, states))
    for row in probability.reshape(-1, states):
        cuts = np.sort(generator.uniform(size=branching - 1))
        row[generator.choice(states, branching, replace=False)] = np.diff(cuts, prepend=0.0, append=1.0)
    reward = np.broadcast_to(generator.uniform(size=(states, actions, 1)), probability.shape)
    start = np.full(states, 1 / states)
    return Tabular.dense(f"garnet-{seed}", probability, reward, np.zeros(states, bool), start, max_steps)


def chain(length: int = 7, slip: float = 0.1, max_steps: int | None = 100) -> Tabular:
    """A row of states: left or right, the other way with probability `slip`; the left end earns 0.1, the right end 1.

    Both ends are terminal, and episodes begin anywhere between them.
    """
    probability, reward = np.zeros((length, 2, length)), np.zeros((length, 2, length))
    for state in range(length):
        for action, (likely, unlikely) in enumerate([(state - 1, state + 1), (state + 1, state - 1)]):
            probability[state, action, np.clip(likely, 0, length - 1)] += 1 - slip
            probability[state, action, np.clip(unlikely, 0, length - 1)] += slip
    reward[..., 0], reward[..., -1] = 0.1, 1.0
    terminal = np.isin(np.arange(length), [0, length - 1])
    return Tabular.dense(f"chain-{length}", probability, reward, terminal, ~terminal / (length - 2), max_steps)


def two_states(max_steps: int | None = 8) -> Tabular:
    """Stay or change between a state that earns 1 a step and one that earns 0, for ever but for the time limit."""
    probability = np.array([np.eye(2), np.eye(2)[::-1]]).swapaxes(0, 1)
    reward = np.broadcast_to(np.array([0.0, 1.0])[:, None, None], probability.shape)
    return Tabular.dense("two-states", probability, reward, np.zeros(2, bool), np.full(2, 0.5), max_steps)


def deep_sea(size: int, seed: int | None = None) -> Tabular:
    """DeepSea: a row down with every step; the treasure is found only by going right `size` times.

    Going right costs 0.01 / size, from the right-most column it earns 1. The action for right is 1 or, with a seed,
    drawn for each cell. From bsuite: Osband et al., "Behaviour Suite for Reinforcement Learning" (2019).
    """
    states = size * size + 1  # the last is the end
    right = np.ones(states, int) if seed is None else np.random.default_rng(seed).integers(2, size=states)
    probability, reward = np.zeros((states, 2, states)), np.zeros((states, 2, states))
    probability[-1, :, -1] = 1
    for row in range(size):
        for column in range(size):
            state = row * size + column
            for action in range(2):
                goes_right = action == right[state]
                below = (row + 1) * size + np.clip(column + (1 if goes_right else -1), 0, size - 1)
                probability[state, action, below if row + 1 < size else states - 1] = 1
                if goes_right:
                    reward[state, action] = -0.01 / size + (column == size - 1)
    return Tabular.dense(f"deep-sea-{size}", probability, reward, np.eye(states)[-1], np.eye(states)[0])


@dataclass(frozen=True)
class LinearQuadratic:
    """A linear system x' = a x + b u + noise, of cost q x^2 + r u^2 a step: its best policy is u = -gain x.

    Values are of the process without its time limit and with unbounded actions. Along the best policy the bounds
    [-3, 3] are not reached but by rare noise, as episodes begin in [-1, 1].
    """

    a: float = 1.0
    b: float = 0.5
    q: float = 1.0
    r: float = 0.1
    noise: float = 0.05  # standard deviation
    max_steps: int | None = 20

    observation_space: ClassVar = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space: ClassVar = spaces.Box(-3.0, 3.0, (1,), np.float32)

    def initial(self, key: jax.Array) -> jax.Array:
        return random.uniform(key, (1,), minval=-1.0, maxval=1.0)

    def observe(self, state: jax.Array) -> jax.Array:
        return state

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        reward = -(self.q * jnp.square(state[0]) + self.r * jnp.square(action[0]))
        following = self.a * state + self.b * action + self.noise * random.normal(key, (1,))
        return following, reward, jnp.zeros((), bool)

    def riccati(self, gamma: float) -> float:
        """What the best policy's discounted cost is per x^2: the fixed point of Riccati's equation, to 1e-15."""
        cost, change = self.q, np.inf
        while change > 1e-15 * cost:
            gained = (gamma * self.a * self.b * cost) ** 2 / (self.r + gamma * self.b**2 * cost)
            following = self.q + gamma * self.a**2 * cost - gained
            cost, change = following, abs(following - cost)
        return cost

    def gain(self, gamma: float) -> float:
        """The best policy is u = -gain x."""
        cost = self.riccati(gamma)
        return gamma * self.a * self.b * cost / (self.r + gamma * self.b**2 * cost)

    def value(self, x: Any, gamma: float, gain: float | None = None) -> Any:
        """The value of x under u = -gain x, by default the best; -inf where that gain's cost is without bound."""
        gain = self.gain(gamma) if gain is None else gain
        remaining = 1 - gamma * (self.a - self.b * gain) ** 2
        cost = (self.q + self.r * gain**2) / remaining if remaining > 0 else np.inf
        return -cost * (np.square(x) + self.noise**2 * gamma / (1 - gamma))

    def solution(self, gamma: float) -> Solution:
        """At eleven points of [-1, 1], where episodes begin."""
        x = np.linspace(-1, 1, 11)
        action = -self.gain(gamma) * x / self.action_space.high[0]
        return Solution(x.astype(np.float32)[:, None], self.value(x, gamma), action.astype(np.float32)[:, None])
