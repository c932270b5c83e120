"""What a user's network with a memory carries: found out, and checked, when it is handed over."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thorndike.errors import SettingError, shown


class Given(NamedTuple):
    """The functions that say whether a network has a memory."""

    call: Callable[..., Any]  # takes a carry as its last argument where there is a memory
    others: int  # arguments of `call` without it
    initial_carry: Callable[[], Any] | None  # makes the carry of one copy
    missing: str = "a method initial_carry() that makes the zeros of one copy"


def carry_of(given: Given, whose: str) -> Any:
    """The shapes of what one copy of a network carries; () where it has no memory.

    SettingError for half a memory, and for one that begins with something else than zeros.
    """
    if given.initial_carry is None:
        if not _takes(given.call, given.others) and _takes(given.call, given.others + 1):
            raise SettingError(f"{whose} takes a carry and has nothing to begin with: give it {given.missing}")
        return ()
    if not _takes(given.call, given.others + 1):
        raise SettingError(
            f"{whose} has an initial_carry but takes no carry: (observation, carry) -> (outputs, carry) is expected"
        )
    try:
        carry = jax.tree.map(_as_array, given.initial_carry())
    except SettingError:
        raise
    except Exception as error:
        raise SettingError(f"initial_carry of {whose} raised {shown(error)}") from error
    if not jax.tree.leaves(carry):
        raise SettingError(f"initial_carry of {whose} makes no arrays: leave it out where nothing is remembered")
    if any(x.any() for x in jax.tree.leaves(carry)):
        raise SettingError(
            f"initial_carry of {whose} must make zeros, with which every episode begins: add any other beginning when "
            "it is called"
        )
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)), carry)


def in_words(carry: Any) -> str:
    """The dtypes and shapes in a carry, such as "(float32[2,16], float32[2,16])"."""
    return str(jax.tree.map(lambda x: f"{x.dtype}{[*x.shape]}".replace(" ", ""), carry)).replace("'", "")


def _as_array(x: Any) -> np.ndarray:
    array = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)  # a tensor of PyTorch may want a gradient
    if not (array.dtype == bool or jnp.issubdtype(array.dtype, jnp.number)):
        raise SettingError(f"a carry is made of arrays, got {shown(x)}")
    return array


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function may be called with so many arguments; True where it cannot be looked at."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True
