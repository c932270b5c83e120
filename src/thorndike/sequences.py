"""Networks over time: how any network, with a memory or without, is called on one step, on many, or on sequences.

A network without a memory is `module(observation) -> outputs`, one with a memory `module(observation, carry) ->
(outputs, carry)`. A carry without arrays, such as (), says that there is no memory: that is known before anything is
compiled, so that such networks stay the programs they are. Every episode begins with a carry of zeros.

A tuple of modules is one module: all of them see the observation, and its outputs and its carry are the tuples of
theirs. () is the module that sees nothing. Shapes: a step is [B, ...], a sequence [T, B, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

PyTree = Any


class Unrolled(NamedTuple):
    """A network over sequences; leaves are [T, B, ...], without a memory the carries are ()."""

    outputs: PyTree
    before: PyTree  # the carry that each step was seen with
    after: PyTree  # the carry that each step left, before any reset: `next_observation` is seen with it


def remembers(carry: PyTree) -> bool:
    """Whether a network with this carry has a memory."""
    return bool(jax.tree.leaves(carry))


def shapes_of_carry(initial_carry: Callable[[int], PyTree]) -> PyTree:
    """What an episode begins with, as shapes [1, ...]: settings are looked at without starting JAX's backend."""
    return jax.eval_shape(lambda: initial_carry(1))


def shapes_of_memory(algorithm: Any) -> PyTree:
    """What the acting networks of an algorithm carry, as shapes [1, ...]; its acting may carry more than that."""
    return shapes_of_carry(getattr(algorithm, "network_carry", algorithm.initial_carry))


def step(module: Any, observation: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
    """The outputs for one step [B, ...] seen with a carry [B, ...], and the next carry."""
    if type(module) is tuple:
        several = [step(one, observation, own) for one, own in _each(module, carry)]
        return tuple(outputs for outputs, _ in several), tuple(after for _, after in several)
    return module(observation, carry) if remembers(carry) else (module(observation), carry)


def side_by_side(module: Any, observation: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
    """`step` for [T, B, ...], each step with a carry of its own [T, B, ...], so that none waits for another."""
    leading = jax.tree.leaves(observation)[0].shape[:2]
    seen = step(module, flat(observation), flat(carry))
    return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), seen)


def over_time(module: Any, observation: PyTree, carry: PyTree, ended: jax.Array) -> Unrolled:
    """Sequences [T, B, ...] that begin with a carry [B, ...]; after a step that `ended` [T, B] it starts afresh.

    The only way that goes step after step, and only where there is a memory. A module may have a quicker
    `over_time(observation, carry, ended)` of its own.
    """
    if type(module) is tuple:
        several = [over_time(one, observation, own, ended) for one, own in _each(module, carry)]
        return Unrolled(*(tuple(getattr(one, name) for one in several) for name in Unrolled._fields))
    if not remembers(carry):
        return Unrolled(side_by_side(module, observation, carry)[0], carry, carry)
    if hasattr(module, "over_time"):
        return module.over_time(observation, carry, ended)

    def one(carry, now):
        observation, ended = now
        outputs, after = module(observation, carry)
        return afresh(after, ended), (outputs, after)

    outputs, after = lax.scan(one, carry, (observation, ended))[1]
    return Unrolled(outputs, before(carry, after, ended), after)


def _each(modules: tuple, carry: PyTree) -> Iterator[tuple[Any, PyTree]]:
    """Each module of a tuple with its carry."""
    return zip(modules, carry if remembers(carry) else ((),) * len(modules), strict=True)


def first(rows: PyTree) -> PyTree:
    """The first row of each leaf: of the carries of a sequence [T, B, ...] the one that it begins with, [B, ...]."""
    return jax.tree.map(lambda x: x[0], rows)


def flat(rows: PyTree) -> PyTree:
    """Rows [T, B, ...] as samples [T * B, ...], one row after the other.

    Losses are taken of samples: a sum over [1, B] may differ in its last bit from that over [B].
    """
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)


def afresh(carry: PyTree, ended: jax.Array) -> PyTree:
    """A carry [B, ...], or those of sequences [T, B, ...]: zeros where the episode has `ended` [B] or [T, B]."""

    def one(x):
        return jnp.where(ended.reshape(*ended.shape, *[1] * (x.ndim - ended.ndim)), jnp.zeros_like(x), x)

    return jax.tree.map(one, carry)


def before(first: PyTree, after: PyTree, ended: jax.Array) -> PyTree:
    """The carries [T, B, ...] that steps are seen with: the `first` [B, ...], then what the step before has left."""
    return jax.tree.map(lambda x, later: jnp.concatenate([x[None], later[:-1]]), first, afresh(after, ended))


def cut(rollout: PyTree, length: int) -> PyTree:
    """A rollout [T, N, ...] as sequences of a `length` that T is a multiple of: [length, T / length * N, ...].

    The first row of carries that were cut alike holds the carries that the sequences begin with.
    """

    def one(x):
        parts = x.reshape(-1, length, *x.shape[1:]).swapaxes(0, 1)
        return parts.reshape(length, -1, *x.shape[2:])

    return jax.tree.map(one, rollout)
