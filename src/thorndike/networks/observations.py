"""Observations of any space as the features that a network sees.

The one order of features: dictionary keys sorted, tuples in order, every leaf raveled row by row. A choice
(Discrete, MultiDiscrete) becomes its one-hot, counted from its `start`, and where that is wide, dense layers look up
the row of weights that it picks instead of multiplying; convolutions see a grid of choices as planes of one-hots. An
image (uint8 of three axes, or of four: a stack of them) is divided by 255; a dictionary's `action_mask` is reserved and
never a feature.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from thorndike.errors import UnsuitableError
from thorndike.masks import MASK

WIDE = 64  # one-hots up to this wide are multiplied with weights: looking rows up would gain little


class Part(NamedTuple):
    """What a network must know of one leaf of an observation: plain and hashable."""

    path: tuple[str | int, ...]  # where the leaf stands: () for a lone space, ("camera", 0) for a nested one
    shape: tuple[int, ...]
    choices: tuple[int, ...] = ()  # sizes of the one-hots; () where the leaf is numbers
    start: tuple[int, ...] = ()  # the lowest value of each choice
    scaled: bool = False  # divided by 255

    @property
    def is_image(self) -> bool:
        """Whether convolutions may look at it: numbers with axes of height, width and channels, or a stack of such."""
        return len(self.shape) in (3, 4) and not self.choices

    @property
    def is_grid(self) -> bool:
        """Whether it is choices with axes of height, width and names: of each cell what lies there, its colour, ..."""
        return len(self.shape) == 3 and bool(self.choices)

    @property
    def is_wide(self) -> bool:
        """Whether one-hots would be wide: then weights are looked up."""
        return sum(self.choices) > WIDE * len(self.choices)


def parts_of(space: spaces.Space, path: tuple[str | int, ...] = ()) -> tuple[Part, ...]:
    """The leaves of an observation space that are features, in their one order.

    Raises:
        UnsuitableError: for a space whose observations have no fixed size.
    """
    if isinstance(space, spaces.Box):
        return (Part(path, space.shape, scaled=space.dtype == np.uint8 and len(space.shape) in (3, 4)),)
    if isinstance(space, spaces.MultiBinary):
        return (Part(path, tuple(space.shape)),)
    if isinstance(space, spaces.Discrete):
        return (Part(path, (), (int(space.n),), (int(space.start),)),)
    if isinstance(space, spaces.MultiDiscrete):
        sizes, start = (tuple(np.ravel(x).tolist()) for x in (space.nvec, space.start))
        return (Part(path, tuple(space.shape), sizes, start),)
    if isinstance(space, spaces.Dict):
        children: list[tuple[str | int, spaces.Space]] = [
            (name, space[name]) for name in sorted(space.spaces) if name != MASK
        ]
    elif isinstance(space, spaces.Tuple):
        children = [*enumerate(space.spaces)]
    else:
        raise UnsuitableError(
            f"a network cannot see observations of {type(space).__name__}: "
            "it takes Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these"
        )
    return tuple(part for name, child in children for part in parts_of(child, (*path, name)))


def visible_parts(space: spaces.Space) -> tuple[Part, ...]:
    """Those of `parts_of` that hold anything; UnsuitableError where none does."""
    parts = tuple(part for part in parts_of(space) if 0 not in part.shape)
    if not parts:
        raise UnsuitableError(f"there is nothing to see in an observation of {space}")
    return parts


def features(parts: tuple[Part, ...], observation: Any) -> jax.Array:
    """Observations with one leading batch axis as one flat vector each, float32 [B, F], in the order of `parts`."""
    columns = [flat(part, leaf_of(part, observation)) for part in parts]
    return columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=1)


def leaf_of(part: Part, observation: Any) -> jax.Array:
    """The leaf of an observation that a part describes."""
    for step in part.path:
        observation = observation[step]
    return observation


def flat(part: Part, x: jax.Array) -> jax.Array:
    """A batch of leaves as features [B, width]: numbers as they are, choices as one-hots."""
    x = x.reshape(x.shape[0], -1)
    if not part.choices:
        return as_numbers(part, x)
    column = np.repeat(np.arange(len(part.choices)), part.choices)
    value = np.concatenate([np.arange(low, low + n) for low, n in zip(part.start, part.choices, strict=True)])
    return (x[:, column] == value[None]).astype(jnp.float32)


def planes(part: Part, x: jax.Array) -> jax.Array:
    """A batch of grids [B, height, width, names] as one-hots [B, height, width, planes], one name after the other.

    A name has as many planes as it has values in all cells together.
    """
    low, size = (np.array(values).reshape(-1, part.shape[-1]) for values in (part.start, part.choices))
    ranges = [np.arange(begin, end) for begin, end in zip(low.min(0), (low + size).max(0), strict=True)]
    name = np.repeat(np.arange(len(ranges)), [len(values) for values in ranges])
    return (x[..., name] == np.concatenate(ranges)[None, None, None]).astype(jnp.float32)


def picked_rows(part: Part, x: jax.Array) -> jax.Array:
    """The rows that choices pick of a weight, [B, choices]; beyond the last one for a value that is no choice."""
    sizes, start = np.array(part.choices)[None], np.array(part.start)[None]
    choice = x.reshape(x.shape[0], -1) - start
    begin = np.cumsum(sizes, axis=1) - sizes
    return jnp.where((choice >= 0) & (choice < sizes), choice + begin, sizes.sum())


def as_numbers(part: Part, x: jax.Array) -> jax.Array:
    """A batch of leaves that hold numbers, of any shape, as float32; the bytes of an image divided by 255."""
    x = x.astype(jnp.float32)
    return x / 255 if part.scaled else x


def width_of(part: Part) -> int:
    """How many features a part has."""
    return sum(part.choices) or math.prod(part.shape)
