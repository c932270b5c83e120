"""What the sources of networks have in common: one for each kind of network that users bring."""

from __future__ import annotations

import contextlib
import hashlib
import random as python_random
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thorndike.errors import SettingError, ThorndikeError, shown
from thorndike.networks.foreign.carries import Given, carry_of


class Source:
    """What a user gave: how to get its weights, call it, and give it back. Equal by the identity of what was given."""

    kind: str
    fixed = True  # its outputs are as many as they are
    draws = False  # its first weights come from the key that it is made with
    may_remember = True  # with a memory it has a method `initial_carry() -> zeros of one copy`, and takes a carry
    takes_any_observation = False  # as it is, a dictionary or a choice too; else as one flat vector, but for a lone Box

    @staticmethod
    def takes(value: Any) -> bool:
        """Whether `value` is a network of this kind, told without importing its framework."""
        raise NotImplementedError

    def __init__(self, given: Any, function: Callable | None = None) -> None:
        """`given` is a network; where a function made it, that `function` makes another one for each seed.

        SettingError where it has half a memory.
        """
        self.given, self.function = given, function
        self.carry = carry_of(self._given_memory(), self.title) if self.may_remember else ()  # of one copy, shapes

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> int:
        return id(self.given if self.function is None else self.function)

    @property
    def name(self) -> str:
        return type(self.given).__name__

    @property
    def title(self) -> str:
        return f"the {self.kind} network {self.name}"

    def _made(self, seed: int) -> Any:
        """The network given, or another one of the function's from this seed."""
        return self.given if self.function is None else made(self.function, seed)

    def weights(self, seed: int | None = None) -> Any:
        """What a seed starts from, as arrays; None where that needs a key or an observation first."""
        return None

    def parameters(self, weights: Any, key: jax.Array, example: Any, outputs: int) -> Any:
        """The arrays that train, for an example batch [1, ...] of what the network will see."""
        raise NotImplementedError

    apply: Callable[..., Any]  # (parameters, x) -> outputs; with a memory (parameters, x, carry) -> (outputs, carry)

    def _given_memory(self) -> Given:
        return Given(self.given.__call__, 1, getattr(self.given, "initial_carry", None))

    def initial_carry(self, n: int) -> Any:
        """Zeros [n, ...], what an episode begins with; () without a memory."""
        return jax.tree.map(lambda x: jnp.zeros((n, *x.shape), x.dtype), self.carry)

    def carried(self, n: int) -> tuple[Any, ...]:
        """The arguments after the observation of n copies: their carry, or none without a memory."""
        return (self.initial_carry(n),) if jax.tree.leaves(self.carry) else ()

    def original(self, parameters: Any) -> Any:
        raise NotImplementedError

    def hint(self, observation: Any) -> str:
        """What to try where these observations did not fit, to end an error with."""
        return ""


def digest(arrays: Iterable[Any]) -> str:
    """A name for the values of these arrays: of those that do not train, which are part of a compiled program."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def check_floats(parameters: Any, whose: str) -> None:
    """SettingError where a leaf of `parameters` is no array of floats, and so cannot train."""
    for path, leaf in jax.tree.leaves_with_path(parameters):
        if not eqx.is_inexact_array(leaf):
            where, what = jax.tree_util.keystr(path), getattr(leaf, "dtype", type(leaf).__name__)
            raise SettingError(f"{whose} parameters other than float arrays, which cannot train: {where} is {what}")


def made(function: Callable, seed: int) -> Any:
    """What a user's function makes with this seed, whichever generator its framework draws first weights from.

    SettingError where it fails.
    """
    with seeded(seed):
        return called(function)


def called(function: Callable) -> Any:
    """What a user's function makes; SettingError where it fails."""
    try:
        return function()
    except ThorndikeError:
        raise
    except Exception as error:
        raise SettingError(f"the function given as network raised {shown(error)}") from error


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Every global generator that first weights may come from: seeded inside, then left as it was.

    A framework that nobody has imported has drawn nothing yet.
    """
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    states = python_random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    python_random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch:
        torch.manual_seed(seed)
    if keras:
        keras.utils.set_random_seed(seed % 2**32)
    try:
        yield
    finally:
        python_random.setstate(states[0])
        np.random.set_state(states[1])
        if torch:
            torch.set_rng_state(states[2])
