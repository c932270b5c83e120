"""What a run holds as named arrays, and back: the inside of a checkpoint, before anything is a file."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from thorndike.core import Environment, Progress
from thorndike.errors import CorruptCheckpointError

Arrays = dict[str, np.ndarray]
STATE, ENVIRONMENT = "state/", "environment/"


def to_arrays(progress: Progress, environment: Environment) -> Arrays:
    """Progress by the names of its leaves; a host environment adds what it needs to be here again."""
    if not environment.compiled:
        progress = progress._replace(actor=progress.actor._replace(env_state=()))
    named = {name: np.array(_key_data(leaf)) for name, leaf in _named(progress)}
    if not environment.compiled:
        named |= {ENVIRONMENT + name: np.array(x) for name, x in environment.save().items()}  # type: ignore[attr-defined]
    return named


def from_arrays(template: Any, arrays: Arrays, prefix: str = "") -> Any:
    """The pytree of `template` (of shapes and dtypes) from `to_arrays`; anything that does not fit is refused."""
    leaves = []
    for name, like in _named(template):
        name = prefix + name
        is_key = jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key)
        expected = jax.eval_shape(random.key_data, like) if is_key else like
        found = arrays.get(name)
        if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
            what = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise CorruptCheckpointError(
                f"the checkpoint does not fit: '{name}' is {what}, expected {expected.dtype}{list(expected.shape)}"
            )
        leaves.append(random.wrap_key_data(jnp.array(found)) if is_key else jnp.array(found))
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def arrays_to_state(algorithm: Any, observation_space: Any, action_space: Any, arrays: Arrays) -> Any:
    """The algorithm's state alone, without an environment."""
    template = jax.eval_shape(lambda key: algorithm.init(key, observation_space, action_space), random.key(0))
    return from_arrays(template, arrays, STATE)


def _named(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _key_data(leaf: Any) -> Any:
    is_key = jax.dtypes.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)
    return random.key_data(leaf) if is_key else leaf
