"""The last steps of N copies of the environment in rows: how they are written, and how windows of them are read."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from thorndike.core import Transition
from thorndike.errors import SettingError


class Ring(NamedTuple):
    """The last steps of N copies, a row for each point in time; the newest row is followed by the oldest."""

    steps: Transition  # [rows, N, ...]
    head: jax.Array  # the row to write next
    size: jax.Array  # rows written, at most all of them
    frames: Any = ()  # what the images of the rows are made of, where they are stored apart: `frames.Frames`


class Storage(Protocol):
    """How a ring holds steps. A ring may be any named tuple that has the fields of Ring."""

    def empty(self, step: Transition, rows: int, n: int, length: int) -> Ring:
        """For one step's shapes; the newest `length` rows, and as long a trajectory, always fit."""

    def write(self, ring: Any, trajectory: Transition) -> Any:
        """The trajectory [T, N] in the rows from `head` on, around the end if need be."""

    def windows(self, ring: Any, start: jax.Array, window: int) -> Transition:
        """The steps [window, B] from `start` [B] on, which counts row * N + copy."""

    def forgets(self, ring: Any, length: int) -> int:
        """How many rows a trajectory of `length` can cost beside those that it overwrites, at most."""


class Rows:
    """Steps as they are."""

    def empty(self, step: Transition, rows: int, n: int, length: int) -> Ring:
        steps = jax.tree.map(lambda x: jnp.zeros((rows, n, *x.shape), x.dtype), step)
        return Ring(steps, jnp.int32(0), jnp.int32(0))

    def write(self, ring: Any, trajectory: Transition) -> Any:
        rows, length = len(ring.steps.reward), len(trajectory.reward)
        if length > rows:
            raise SettingError(f"a trajectory of {length} steps does not fit a memory of {rows}: raise capacity")
        row = jnp.mod(ring.head + jnp.arange(length, dtype=jnp.int32), rows)

        def put(stored, new):
            return stored.at[row].set(jnp.asarray(new, stored.dtype), unique_indices=True, mode="promise_in_bounds")

        head, size = (ring.head + length) % rows, jnp.minimum(ring.size + length, rows)
        return ring._replace(steps=jax.tree.map(put, ring.steps, trajectory), head=head, size=size)

    def windows(self, ring: Any, start: jax.Array, window: int) -> Transition:
        rows, n = ring.steps.reward.shape
        index = jnp.mod(start[None] + n * jnp.arange(window, dtype=jnp.int32)[:, None], rows * n)

        def take(stored):
            return stored.reshape(rows * n, *stored.shape[2:]).at[index].get(mode="promise_in_bounds")

        return jax.tree.map(take, ring.steps)

    def forgets(self, ring: Any, length: int) -> int:
        return 0


def stored(ring: Any) -> jax.Array:
    """How many of the newest rows are there to be drawn."""
    return ring.frames.rows if ring.frames else ring.size


def whole_windows(ring: Any, window: int) -> jax.Array:
    """How many windows are stored from their first step to their last."""
    return jnp.maximum(stored(ring) - window + 1, 0) * ring.steps.reward.shape[1]
