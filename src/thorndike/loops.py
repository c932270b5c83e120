"""One loop for all that is done step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def repeat(step: Callable, carry: Any, xs: Any, length: int) -> tuple[Any, Any]:
    """`lax.scan`, but no loop at all around a single repetition."""
    if length > 1:
        return lax.scan(step, carry, xs, length)
    carry, y = step(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda y: jnp.asarray(y)[None], y)
