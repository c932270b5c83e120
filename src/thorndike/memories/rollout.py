"""Learning from what the present policy did: the newest trajectory, and minibatches of it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, random

from thorndike.core import Batch, Transition
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters
from thorndike.sequences import cut, remembers, shapes_of_carry


@hyperparameters
class Latest:
    """Only the newest trajectory, whole: for algorithms that learn from what the present policy did."""

    def init(self, transition: Transition, shape: tuple[int, int]) -> Transition:
        return jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape), x.dtype), transition)

    def add(self, memory: Transition, trajectory: Transition) -> Transition:
        return trajectory

    def sample(self, memory: Transition, key: jax.Array, fraction: jax.Array) -> Batch:
        """All of it [T, N]; `index` is the copy."""
        copies = memory.reward.shape[1]
        return Batch(memory, jnp.ones(copies, jnp.float32), jnp.arange(copies, dtype=jnp.int32))

    def feedback(self, memory: Transition, batch: Batch, feedback: Any) -> Transition:
        return memory

    def restarted(self, memory: Transition, begun: jax.Array) -> Transition:
        return memory  # the next trajectory replaces all of it


def shuffled(key: jax.Array, epochs: int, count: int) -> jax.Array:
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


def minibatches(algorithm: Any, key: jax.Array, rows: Transition) -> jax.Array:
    """Which of the sequences [L, S] each minibatch of all epochs has: [epochs * minibatches, batch_size / L]."""
    return shuffled(key, algorithm.epochs, rows.reward.shape[1]).reshape(-1, algorithm.batch_size // algorithm.length)


def in_sequences(rollout: Transition, length: int) -> Transition:
    """A rollout [T, N] cut into sequences [length, S], of whose carries only those that they begin with are kept."""
    rows = cut(rollout, length)
    beginning = {"carry": jax.tree.map(lambda x: x[:1], rows.extras["carry"])}
    return rows._replace(extras=rows.extras | beginning)


def check_rollout(algorithm: Any) -> None:
    """Raise SettingError where sequences or minibatches of an algorithm do not suit its rollouts."""
    name, length, size = type(algorithm).__name__, algorithm.rollout_length, algorithm.batch_size
    steps = length * algorithm.num_environments
    if steps % size:
        rollout = f"{algorithm.num_environments} x {length} = {steps} steps"
        raise SettingError(f"{name}: a rollout of {rollout} does not divide into batch_size {size}")
    if length % algorithm.length or size % algorithm.length:
        raise SettingError(
            f"{name}: rollout_length and batch_size must be multiples of sequence_length {algorithm.length}"
        )


def check_shared_memory(algorithm: Any) -> None:
    """Raise SettingError where a network with a memory puts out values of any size beside its policy."""
    memory = shapes_of_carry(algorithm.network.initial_carry)
    if remembers(memory) and not algorithm.critic_network and not algorithm.normalize_rewards:
        name = type(algorithm).__name__
        raise SettingError(
            f"{name}: values drown a memory that they share: give normalize_rewards=True, or a critic_network"
        )
