"""Small decision processes given outright, whose optimum dynamic programming computes: what algorithms are held to."""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False)
class Tabular:
    """A finite decision process from its tables; S states, observed one-hot, and A actions.

    Two are equal, and of equal hash, if their tables are. Values are in float64 and of the process without its time
    limit; those of terminal states are 0.

    Raises SettingError where a probability is negative or probabilities do not sum to 1.
    """

    name: str
    transition_probability: Any  # [S, A, S]
    reward: Any  # [S, A, S], of each transition
    terminal: Any  # [S] bool: arriving there ends the episode
    start_probability: Any  # [S]
    max_steps: int | None = None

    def __post_init__(self) -> None:
        tables = {"transition_probability": float, "reward": float, "terminal": bool, "start_probability": float}
        for table, dtype in tables.items():
            array = np.array(getattr(self, table), dtype)
            array.setflags(write=False)
            object.__setattr__(self, table, array)
        for table in ("transition_probability", "start_probability"):
            probability = getattr(self, table)
            if (probability < 0).any() or not np.allclose(probability.sum(-1), 1, rtol=0, atol=1e-9):
                raise SettingError(f"{self.name}: each row of {table} must be probabilities that sum to 1")

    @cached_property
    def _identity(self) -> tuple:
        tables = (self.transition_probability, self.reward, self.terminal, self.start_probability)
        return self.name, self.max_steps, self.reward.shape, *(table.tobytes() for table in tables)

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
    def observation_space(self) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (self.states,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(self.actions)

    def initial(self, key: jax.Array) -> jax.Array:
        return _draw(key, jnp.asarray(_cumulative(self.start_probability)))

    def observe(self, state: jax.Array) -> jax.Array:
        return jax.nn.one_hot(state, self.states)

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        following = _draw(key, jnp.asarray(_cumulative(self.transition_probability))[state, action])
        return following, jnp.asarray(self.reward)[state, action, following], jnp.asarray(self.terminal)[following]

    def action_values(self, values: np.ndarray, gamma: float) -> np.ndarray:
        """[S, A] what each action earns at once, and `values` [S] of where it leads; 0 in terminal states."""
        after = self.reward + gamma * np.where(self.terminal, 0, values)[None, None]
        return np.where(self.terminal[:, None], 0, (self.transition_probability * after).sum(-1))

    def optimal_values(self, gamma: float) -> np.ndarray:
        """[S] the values of the best policy, by policy iteration: exact but for the rounding of float64."""
        choice = np.zeros(self.states, int)
        while True:
            values = self.policy_values(np.eye(self.actions)[choice], gamma)
            action_values = self.action_values(values, gamma)
            better = action_values.max(1) > values + 1e-11 * (1 + np.abs(values).max())
            if not better.any():
                return values
            choice = np.where(better, action_values.argmax(1), choice)

    def policy_values(self, policy: np.ndarray, gamma: float) -> np.ndarray:
        """[S] the values of a policy given as probabilities [S, A], by solving Bellman's linear equations."""
        going_on = ~self.terminal
        moves = np.einsum("sa,sat->st", policy, self.transition_probability) * np.outer(going_on, going_on)
        earned = np.einsum("sa,sa->s", policy, self.action_values(np.zeros(self.states), gamma))
        return np.linalg.solve(np.eye(self.states) - gamma * moves, earned)

    def solution(self, gamma: float) -> Solution:
        """Of all states that an episode can come to act in; of equally good actions the first."""
        reached = self.start_probability > 0
        for _ in range(self.states):
            reached |= self.transition_probability[reached & ~self.terminal].any((0, 1))
        acting = reached & ~self.terminal
        values = self.optimal_values(gamma)
        good = self.action_values(values, gamma) > values[:, None] - 1e-9 * (1 + np.abs(values).max())
        best = good.argmax(1).astype(np.int32)
        return Solution(np.eye(self.states, dtype=np.float32)[acting], values[acting], best[acting])


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
    return Tabular(f"garnet-{seed}", probability, reward, np.zeros(states, bool), start, max_steps)


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
    return Tabular(f"chain-{length}", probability, reward, terminal, ~terminal / (length - 2), max_steps)


def two_states(max_steps: int | None = 8) -> Tabular:
    """Stay or change between a state that earns 1 a step and one that earns 0, for ever but for the time limit."""
    probability = np.array([np.eye(2), np.eye(2)[::-1]]).swapaxes(0, 1)
    reward = np.broadcast_to(np.array([0.0, 1.0])[:, None, None], probability.shape)
    return Tabular("two-states", probability, reward, np.zeros(2, bool), np.full(2, 0.5), max_steps)


def cliff_walking(max_steps: int | None = 100) -> Tabular:
    """CliffWalking: 4 rows of 12, up, right, down, left; -1 a step, -100 and back to the start for the cliff."""
    rows, columns = 4, 12
    states, start = rows * columns, (rows - 1) * columns
    probability, reward = np.zeros((states, 4, states)), np.full((states, 4, states), -1.0)
    for state in range(states):
        for action, move in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1)]):
            following = _moved(state, move, rows, columns)
            fell = start < following < states - 1
            following = start if fell else following
            probability[state, action, following] = 1
            reward[state, action, following] = -100.0 if fell else -1.0
    return Tabular("cliff-walking", probability, reward, np.eye(states)[-1], np.eye(states)[start], max_steps)


def frozen_lake(max_steps: int | None = 100) -> Tabular:
    """FrozenLake, 4x4 and slippery: left, down, right, up, or to either side of it; 1 for the goal, holes are ends."""
    lake = "SFFF" "FHFH" "FFFH" "HFFG"  # fmt: skip
    letters, moves = np.array(list(lake)), [(0, -1), (1, 0), (0, 1), (-1, 0)]
    terminal = np.isin(letters, ["H", "G"])
    probability, reward = np.zeros((16, 4, 16)), np.zeros((16, 4, 16))
    for state in range(16):
        for action in range(4):
            for way in (action - 1, action, action + 1):
                following = state if terminal[state] else _moved(state, moves[way % 4], 4, 4)
                probability[state, action, following] += 1 / 3
    reward[~terminal, :, -1] = 1.0
    return Tabular("frozen-lake", probability, reward, terminal, letters == "S", max_steps)


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
    return Tabular(f"deep-sea-{size}", probability, reward, np.eye(states)[-1], np.eye(states)[0])


def _moved(state: int, move: tuple[int, int], rows: int, columns: int) -> int:
    row, column = divmod(state, columns)
    return int(np.clip(row + move[0], 0, rows - 1) * columns + np.clip(column + move[1], 0, columns - 1))


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
