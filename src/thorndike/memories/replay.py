"""Experience replay: the last steps, drawn uniformly; and what algorithms that learn from a replay ask of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import random

from thorndike.core import Algorithm, Batch, Transition
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories.rings import Rows, Storage, stored, whole_windows
from thorndike.sequences import first, remembers, shapes_of_memory

LARGEST_CAPACITY = 2**30  # twice that no longer fits the 32-bit indices
SEQUENCES = {"sequence": 16, "burn_in": 8}  # where a network has a memory and nothing else is said


@hyperparameters
class Replay:
    """The last `capacity` steps; batches of windows, every window that is stored whole as likely as any other.

    Lin (1992), "Self-improving reactive agents based on reinforcement learning, planning and teaching". With N copies
    of the environment each keeps its last `capacity // N` steps. Networks with a memory learn from `sequence` steps in
    a row, after a `burn_in` (Kapturowski et al., 2019, "Recurrent experience replay in distributed reinforcement
    learning").
    """

    capacity: int = setting(100_000, low=1, high=LARGEST_CAPACITY)  # steps
    batch_size: int = setting(128, low=1)  # windows in a batch
    window: int = setting(1, low=1)  # the n of n-step returns
    sequence: int = setting(1, low=1)  # steps in a row that a network with a memory learns from
    burn_in: int = setting(0, low=0)  # steps before those, which only warm up what is carried into them
    stored_carry: bool = True  # windows begin with the carry that was acted with; False: with zeros, stored is none

    @property
    def length(self) -> int:
        """Consecutive steps in a window."""
        return self.burn_in + self.sequence + self.window - 1

    @property
    def storage(self) -> Storage:
        """How steps are stored: as they are."""
        return Rows()

    def validate(self) -> None:
        length = "window" if self.length == self.window else "burn_in + sequence + window - 1 ="
        for name, number in (("batch_size", self.batch_size), (length, self.length)):
            if number > self.capacity:
                raise SettingError(f"{type(self).__name__}: {name} {number} is larger than capacity {self.capacity}")

    def init(self, transition: Transition, shape: tuple[int, int]) -> Any:
        """An empty ring for one step's shapes and trajectories of `shape` (T, N); SettingError if they do not fit."""
        length, n = shape
        rows = self.capacity // n
        if rows < max(length, self.length):
            raise SettingError(
                f"{type(self).__name__}: capacity {self.capacity} holds {rows} steps of each of {n} environments, "
                f"but a rollout has {length} and a window {self.length}: "
                f"capacity must be at least {n * max(length, self.length)}"
            )
        return self.storage.empty(self._kept(transition), rows, n, max(length, self.length))

    def add(self, ring: Any, trajectory: Transition) -> Any:
        """Overwrite the oldest rows with a trajectory [T, N] of at most as many rows as there are."""
        return self.storage.write(ring, self._kept(trajectory))

    def sample(self, ring: Any, key: jax.Array, fraction: jax.Array) -> Batch:
        """Windows [length, B], with replacement. Needs `length` rows; before, it gives rows of zeros."""
        rows, n = ring.steps.reward.shape
        count = jnp.maximum(whole_windows(ring, self.length), 1)
        start = random.randint(key, (self.batch_size,), 0, count, jnp.int32) + (ring.head - stored(ring)) * n
        index = jnp.mod(start, rows * n)
        return Batch(self.storage.windows(ring, index, self.length), jnp.ones(index.shape, jnp.float32), index)

    def feedback(self, ring: Any, batch: Batch, feedback: Any) -> Any:
        return ring

    def restarted(self, ring: Any, begun: jax.Array) -> Any:
        """The newest step of the copies `begun` [N] becomes a truncation: no return reaches into their new episodes."""
        truncated = ring.steps.truncated.at[ring.head - 1].max(begun)  # row -1 is the last one
        return ring._replace(steps=ring.steps._replace(truncated=truncated))

    def _kept(self, steps: Transition) -> Transition:
        """What is stored of steps."""
        names = [name for name in steps.extras if self.stored_carry or name != "carry"]
        return steps._replace(extras={name: steps.extras[name] for name in names})


def first_carry(steps: Transition, initial_carry: Callable[[int], Any]) -> Any:
    """What windows [T, B] begin with: the carry [B, ...] that was acted with where it is stored, else zeros."""
    if "carry" in steps.extras:
        return first(steps.extras["carry"])
    return initial_carry(steps.reward.shape[1])


class OffPolicy(Algorithm, Protocol):
    """An algorithm that learns from a replay."""

    @property
    def memory(self) -> Replay: ...


def check_replay(algorithm: OffPolicy, unstored: Any = ()) -> None:
    """Raise SettingError where networks, rollouts or warm-up of an algorithm do not suit its Replay memory.

    `unstored` is what networks carry that do not act, so that it is not in the memory.
    """
    name, memory, copies = type(algorithm).__name__, algorithm.memory, algorithm.num_environments
    rows = memory.capacity // copies
    if rows < max(algorithm.rollout_length, memory.length):
        raise SettingError(
            f"{name}: memory.capacity {memory.capacity} holds {rows} steps of each of {copies} environments, "
            f"fewer than rollout_length {algorithm.rollout_length} or a window's {memory.length}"
        )
    if algorithm.warmup_steps // copies + algorithm.rollout_length < memory.length:
        raise SettingError(
            f"{name}: warmup_steps must fill at least one window of the memory, {memory.length} steps, in every "
            "environment"
        )
    carry = shapes_of_memory(algorithm)
    example = f"memory={type(memory).__name__}({', '.join(f'{field}={steps}' for field, steps in SEQUENCES.items())})"
    if remembers((carry, unstored)) and memory.sequence == 1:
        raise SettingError(f"{name}: a network with a memory learns from steps in a row: give {example}")
    if remembers(unstored if memory.stored_carry else (carry, unstored)) and not memory.burn_in:
        raise SettingError(f"{name}: networks that begin a window with an empty memory need a burn-in: give {example}")


def check_parts(algorithm: Any) -> None:
    """Raise SettingError where a batch does not divide into parts, one for each step of the critics."""
    if algorithm.memory.batch_size % algorithm.policy_delay:
        raise SettingError(
            f"{type(algorithm).__name__}: memory.batch_size {algorithm.memory.batch_size} does not divide into "
            f"policy_delay {algorithm.policy_delay} parts, one for each step of the critics"
        )


def in_parts(batch: Any, parts: int) -> Any:
    """Windows [T, B, ...] in equal parts, to learn from one after the other: [parts, T, B / parts, ...]."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0], parts, -1, *x.shape[2:]).swapaxes(0, 1), batch)
