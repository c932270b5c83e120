"""Action masks: which choices are legal now, read from an observation and applied in one place.

A Dict observation's `action_mask` holds a 1 for each legal choice and a 0 for each other one: [choices] for Discrete
actions, for MultiDiscrete ones those of all parts, one part after the other. It is never a feature. Where it holds no 1
at all, as after the last step of an episode, every choice counts as legal: nothing depends on it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from thorndike.errors import UnsuitableError

if TYPE_CHECKING:  # JAX is imported where it computes: worker processes, which do without it, know masks too
    import jax

MASK = "action_mask"
SEEN = "observation"  # what stands beside a mask that was put there: a network sees it alone


def of(observation: Any) -> jax.Array | None:
    """Which choices are legal in observations [..., choices], as booleans; None where nothing is said."""
    return observation[MASK] != 0 if masked(observation) else None


def legal(values: jax.Array, mask: jax.Array | None, sizes: Sequence[int] | None = None) -> jax.Array:
    """Values of choices [..., choices], logits or action values, -inf for those that are not legal.

    `sizes` are those of the parts, where several choices are made side by side.
    """
    import jax.numpy as jnp

    if mask is None:
        return values
    possible = [part | ~part.any(-1, keepdims=True) for part in parts_of(mask, sizes or values.shape[-1:])]
    return jnp.where(jnp.concatenate(possible, -1), values, -jnp.inf)


def count(mask: jax.Array) -> jax.Array:
    """How many choices masks [..., choices] allow, [...] float32: all of them where they hold no 1."""
    import jax.numpy as jnp

    return jnp.isfinite(legal(jnp.zeros(mask.shape, jnp.float32), mask)).sum(-1, dtype=jnp.float32)


def uniform(key: jax.Array, mask: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Actions [n, parts] int32, uniform over what masks [n, choices] allow."""
    import jax.numpy as jnp
    from jax import random

    logits = legal(jnp.zeros(mask.shape, jnp.float32), mask, sizes)
    keys = random.split(key, len(sizes))
    parts = zip(keys, parts_of(logits, sizes), strict=True)
    return jnp.stack([random.categorical(key, part).astype(jnp.int32) for key, part in parts], -1)


def parts_of(choices: Any, sizes: Sequence[int]) -> list[Any]:
    """Arrays of all choices [..., choices] as one for each of the parts, whose sizes these are."""
    return [choices[..., end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


def without(observation: Any) -> Any:
    """An observation, or a Dict space, without its mask."""
    if isinstance(observation, spaces.Dict):
        return spaces.Dict(without(observation.spaces))
    if not masked(observation):
        return observation
    return {name: value for name, value in observation.items() if name != MASK}


def seen(observation: Any) -> Any:
    """What a network sees of an observation, or of a space: no mask, and only SEEN where that is all there is else."""
    rest = without(observation)
    return rest[SEEN] if masked(observation) and set(rest) == {SEEN} else rest


def masked(space: Any) -> bool:
    """Whether observations, or those of a space, hold a mask."""
    names = space.spaces if isinstance(space, spaces.Dict) else space  # `in` a space is for its members
    return isinstance(names, Mapping) and MASK in names


def choices_of(action_space: spaces.Space) -> tuple[int, ...] | None:
    """How many choices each part of an action has; None where actions are no choices."""
    if isinstance(action_space, spaces.Discrete):
        return (int(action_space.n),)
    if isinstance(action_space, spaces.MultiDiscrete) and action_space.nvec.ndim == 1:
        return tuple(int(n) for n in action_space.nvec)
    return None


def check(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Raise UnsuitableError where observations hold a mask that cannot be honoured."""
    if nested := [path for path in _paths(observation_space) if len(path) > 1]:
        where = ".".join(map(str, nested[0]))
        raise UnsuitableError(f"{MASK} must stand at the top of a Dict observation, here it is {where}")
    if not masked(observation_space):
        return
    sizes, shape = choices_of(action_space), observation_space[MASK].shape  # type: ignore[index]
    if sizes is None:
        raise UnsuitableError(f"{MASK} needs Discrete or MultiDiscrete actions, this environment has {action_space}")
    if shape != (sum(sizes),):
        raise UnsuitableError(
            f"{MASK} must be of shape ({sum(sizes)},), one for each choice of {action_space}, it is of shape {shape}"
        )


def nothing_legal(observation: Any, action_space: spaces.Space) -> np.ndarray:
    """Of which observations [...] a part of the action has no legal choice."""
    mask = of(observation)
    if mask is None:
        return np.zeros((), bool)
    return ~np.all([part.any(-1) for part in parts_of(mask, choices_of(action_space) or mask.shape[-1:])], axis=0)


def _paths(space: Any, path: tuple = ()) -> list[tuple]:
    """Where masks stand in a space."""
    if isinstance(space, spaces.Dict):
        children: Any = space.spaces.items()
    elif isinstance(space, spaces.Tuple):
        children = enumerate(space.spaces)
    else:
        return []
    return [
        found
        for name, child in children
        for found in ([(*path, name)] if name == MASK else _paths(child, (*path, name)))
    ]
