"""Deep Sea, compiled: the smallest world in which acting at random finds nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from thorndike.errors import SettingError, shown

LARGEST = 1_000


@dataclass(frozen=True)
class DeepSea:
    """A row down with every step, one column to the left or to the right; the treasure is found by going right alone.

    From bsuite: Osband et al., "Behaviour suite for reinforcement learning" (2020). Going right costs 0.01 / size, from
    the right-most column it earns 1, and an episode has `size` steps: the best earns 0.99, actions at random find the
    treasure once in 2^size episodes. Which action means right is drawn for each cell. State: row, column.
    """

    size: int = 10  # rows and columns
    seed: int | None = 0  # of what actions mean; None: 1 means right everywhere
    one_hot: bool = True  # observe the cell as a one-hot [size * size], zeros at the end; False: its number

    action_space: ClassVar = spaces.Discrete(2)
    max_steps: ClassVar[None] = None  # an episode ends by itself, after `size` steps

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 2 <= self.size <= LARGEST:
            raise SettingError(f"DeepSea: size must be a whole number from 2 to {LARGEST:,}, got {shown(self.size)}")
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0):
            raise SettingError(f"DeepSea: seed must be a whole number, at least 0, or None, got {shown(self.seed)}")
        if type(self.one_hot) is not bool:
            raise SettingError(f"DeepSea: one_hot must be True or False, got {shown(self.one_hot)}")

    @property
    def observation_space(self) -> Any:
        cells = self.size**2
        return spaces.Box(0.0, 1.0, (cells,), np.float32) if self.one_hot else spaces.Discrete(cells + 1)

    @cached_property
    def right(self) -> np.ndarray:
        """[size, size] the action that leads to the right from each cell."""
        shape = self.size, self.size
        return np.ones(shape, int) if self.seed is None else np.random.default_rng(self.seed).integers(2, size=shape)

    def initial(self, key: jax.Array) -> jax.Array:
        return jnp.zeros(2, jnp.int32)

    def observe(self, state: jax.Array) -> jax.Array:
        cell = state[0] * self.size + state[1]
        if self.one_hot:
            return (jnp.arange(self.size**2, dtype=jnp.int32) == cell).astype(jnp.float32)
        return jnp.minimum(cell, self.size**2)  # one number for the end

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        row, column = state
        right = action == jnp.asarray(self.right, jnp.int32)[row, column]
        treasure = right & (column == self.size - 1)
        reward = jnp.where(treasure, 1.0, 0.0) - jnp.where(right, 0.01 / self.size, 0.0)
        column = jnp.clip(column + jnp.where(right, 1, -1), 0, self.size - 1)
        return jnp.stack([row + 1, column]), reward, row + 1 == self.size


OWN: dict[str, type] = {"DeepSea": DeepSea}
