"""What a run holds as named arrays, and back: the inside of a checkpoint, before anything is a file.

Of a memory that fills row by row (FILLING says by which names) only the rows written are held: the others are zeros,
and in a large memory that has just begun to fill they are nearly all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from thorndike.core import Environment, Progress
from thorndike.environments.host import on_host
from thorndike.errors import CorruptCheckpointError

Arrays = Mapping[str, np.ndarray]
STATE, ENVIRONMENT, AHEAD = "state/", "environment/", "ahead/"
# What the names of arrays that fill begin with, and which number says how many of their rows are written.
FILLING = {"memory/steps/": "memory/size", "memory/frames/pixels": "memory/frames/written"}


def to_arrays(progress: Progress, environment: Environment | None, copy: bool = True) -> dict[str, np.ndarray]:
    """Progress by the names of its leaves; a host environment adds what it needs to be here again, if we move it.

    Without `copy` the arrays are, on CPUs, the very buffers of `progress`: to be let go before those are donated.
    """
    ours = environment if environment is not None and on_host(environment) else None
    if ours:
        progress = progress._replace(actor=progress.actor._replace(env_state=()))
    leaves = dict(named(progress))
    arrays = {}
    for name, leaf in leaves.items():
        array, written = np.asarray(_key_data(leaf)), _written(name, leaves)
        array = array if written is None else array[: int(written)]
        arrays[name] = np.array(array) if copy else array
    if ours:
        arrays |= {ENVIRONMENT + name: np.array(x) for name, x in ours.save().items()}
    return arrays


def from_arrays(template: Any, arrays: Arrays, prefix: str = "") -> Any:
    """The pytree of `template` (of shapes and dtypes) from `to_arrays`; anything that does not fit is refused."""
    leaves = []
    for name, like in named(template):
        name = prefix + name
        is_key = jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key)
        expected = jax.eval_shape(random.key_data, like) if is_key else like
        found = arrays.get(name)
        written = _written(name, arrays)
        if found is not None and written is not None:
            found = _with_unwritten(found, expected.shape, written)
        if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
            what = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise CorruptCheckpointError(
                f"the checkpoint does not fit: '{name}' is {what}, expected {expected.dtype}{list(expected.shape)}"
            )
        leaves.append(random.wrap_key_data(jnp.array(found)) if is_key else jnp.array(found))
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def state_to_arrays(state: Any) -> dict[str, np.ndarray]:
    """The algorithm's state alone, by the names that it has in `to_arrays`."""
    return {STATE + name: np.asarray(_key_data(leaf)) for name, leaf in named(state)}


def arrays_to_state(algorithm: Any, observation_space: Any, action_space: Any, arrays: Arrays) -> Any:
    """The algorithm's state alone, without an environment."""
    template = jax.eval_shape(lambda key: algorithm.init(key, observation_space, action_space), random.key(0))
    return from_arrays(template, arrays, STATE)


def _written(name: str, numbers: Mapping[str, Any]) -> Any:
    """How many rows of the array `name` are written, as one of `numbers` says; None where that is all or not known."""
    number = next((number for beginning, number in FILLING.items() if name.startswith(beginning)), "")
    return numbers.get(number)


def _with_unwritten(rows: np.ndarray, shape: tuple[int, ...], written: np.ndarray) -> np.ndarray:
    """A memory's leaf of `shape` from its written rows; as it is, where that is not what `rows` are."""
    if rows.shape[1:] != shape[1:] or not written <= len(rows) < shape[0]:
        return rows
    whole = np.zeros(shape, rows.dtype)
    whole[: len(rows)] = rows
    return whole


def named(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _key_data(leaf: Any) -> Any:
    is_key = jax.dtypes.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)
    return random.key_data(leaf) if is_key else leaf
