"""What environments of the suites share: made once, equal by value, with dtypes that hold still."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import random

from thorndike.errors import SettingError, UnknownNameError, UnsuitableError, nearest, shown

PyTree = Any
NEVER = 2**30  # a time limit that no episode reaches
PLAIN = (bool, int, float, str)  # what an argument may be that a command line, or a file, says


class Made(NamedTuple):
    """What a suite gave for an id. Its objects have hashes of their own kind, so nobody compares them."""

    environment: Any
    observation_space: spaces.Space
    action_space: spaces.Space
    max_steps: int | None
    more: Any = None  # whatever else `begin` and `move` need


class Held(NamedTuple):
    """A state, and what is seen of it: suites compute both at once, some with a key."""

    state: PyTree
    observation: PyTree


@dataclass(frozen=True)
class SuiteEnvironment:
    """One environment of a suite as a compiled one: `id` and the suite's own `arguments` are all that it is.

    A subclass says which ids there are, how one is made, and calls the suite's raw `reset` and `step`: those that
    neither reset by themselves nor end by time. The time limit is ours.
    """

    id: str
    arguments: str = "{}"  # as JSON: has a hash, and tells 1 from 1.0
    made: Made = field(init=False, repr=False, compare=False)

    suite: ClassVar[str]
    time_limit: ClassVar[str]  # the argument that is one

    def __post_init__(self) -> None:
        # Now, and not where JAX traces: arrays that a suite makes for itself would be tracers.
        cls: Any = type(self)
        object.__setattr__(self, "made", _made(cls, self.id, self.arguments))

    @classmethod
    def of(cls, id: str, /, **arguments: Any) -> SuiteEnvironment:
        """The environment of an id and its arguments, which are plain values; SettingError for others."""
        try:
            written = json.dumps(arguments, sort_keys=True)
        except (TypeError, ValueError):
            raise SettingError(f"{cls.suite}:{id} takes numbers, words and lists, got {shown(arguments)}") from None
        return cls(id, written)

    @classmethod
    def ids(cls) -> Collection[str]:
        """Those that can be played."""
        raise NotImplementedError

    @classmethod
    def refused(cls, id: str) -> str:
        """Why one of the suite's ids cannot be played; "" where it can, or where there is no such id."""
        return ""

    @classmethod
    def build(cls, id: str, arguments: dict[str, Any]) -> Made:
        """Make what there is to make; SettingError for arguments that the suite does not have."""
        raise NotImplementedError

    def begin(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """A new episode: (state, observation). Keys are plain numbers here and below: those the suites know."""
        raise NotImplementedError

    def move(self, state: PyTree, action: PyTree, key: jax.Array) -> tuple[PyTree, PyTree, jax.Array, jax.Array]:
        """One step: (state, observation, reward, whether the task itself has ended)."""
        raise NotImplementedError

    @property
    def observation_space(self) -> spaces.Space:
        return self.made.observation_space

    @property
    def action_space(self) -> spaces.Space:
        return self.made.action_space

    @property
    def max_steps(self) -> int | None:
        return self.made.max_steps

    def initial(self, key: jax.Array) -> Held:
        return Held(*self.begin(random.key_data(key)))

    def observe(self, state: Held) -> PyTree:
        return state.observation

    def transition(self, state: Held, action: PyTree, key: jax.Array) -> tuple[Held, jax.Array, jax.Array]:
        given = jax.tree.map(lambda x: x, state.state)  # Brax and Playground write into the dicts they are given
        after, observation, reward, terminated = self.move(given, action, random.key_data(key))
        # Python numbers and promotions inside a suite change dtypes from one step to the next.
        held = jax.tree.map(lambda new, old: jnp.asarray(new).astype(old.dtype), Held(after, observation), state)
        return held, reward, terminated


@functools.lru_cache(maxsize=64)
def _made(cls: Any, id: str, arguments: str) -> Made:
    if reason := cls.refused(id):
        raise UnsuitableError(f"{cls.suite}:{id} {reason}")
    if id not in cls.ids():
        meant = nearest(id, cls.ids()) or f" There are {', '.join(cls.ids())}"
        raise UnknownNameError(f"{cls.suite} has no environment '{id}'.{meant}")
    given = _without_lists(json.loads(arguments))
    if (limit := given.get(cls.time_limit, 1)) is not None and not (type(limit) is int and limit > 0):
        raise SettingError(f"{cls.suite}:{id}: {cls.time_limit} must be a whole number, at least 1, got {shown(limit)}")
    return cls.build(id, given)


def check_arguments(name: str, given: Iterable[str], possible: Collection[str]) -> None:
    """Raise SettingError for the first argument that the environment `name` does not have."""
    for argument in given:
        if argument not in possible:
            there_are = f"there are {', '.join(sorted(possible))}" if possible else "it takes none"
            raise SettingError(f"{name} has no argument '{argument}'.{nearest(argument, possible)} ({there_are})")


def arguments_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that a class or function names, with their defaults."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind in kinds}


def as_defaults(name: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the kinds that their defaults are of; SettingError where one is of another."""
    return {argument: _as_default(f"{name}: {argument}", x, defaults[argument]) for argument, x in given.items()}


def _as_default(name: str, value: Any, default: Any) -> Any:
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "a word"}
    kind, given = type(default), type(value)
    if isinstance(default, (jax.Array, np.ndarray)):
        return jnp.asarray(value, default.dtype)
    if kind not in words or given is kind:
        return value
    if kind is float and given is int:
        return float(value)
    raise SettingError(f"{name} must be {words[kind]}, got {shown(value)}")


def box(low: Any, high: Any, like: Any) -> spaces.Box:
    """A Box with the shape and dtype of an array, or of what is known of one; bounds of 1e30 and more are none."""
    dtype: Any = np.dtype(like.dtype)

    def bound(value: Any) -> np.ndarray:
        if dtype.kind == "f":
            value = np.where(np.abs(value) >= 1e30, np.copysign(np.inf, value), value)
        return np.broadcast_to(value, like.shape).astype(dtype)

    return spaces.Box(bound(low), bound(high), like.shape, dtype)


def space_of(seen: PyTree) -> spaces.Space:
    """A space for what a suite without spaces shows, from shapes and dtypes."""
    if isinstance(seen, Mapping):
        return spaces.Dict({name: space_of(part) for name, part in seen.items()})
    if seen.dtype == bool:
        return box(False, True, seen)
    if np.issubdtype(seen.dtype, np.integer):
        return box(np.iinfo(seen.dtype).min, np.iinfo(seen.dtype).max, seen)
    return box(-np.inf, np.inf, seen)


def _without_lists(value: Any) -> Any:
    """JSON's lists as tuples, which have hashes."""
    if isinstance(value, dict):
        return {name: _without_lists(part) for name, part in value.items()}
    return tuple(map(_without_lists, value)) if isinstance(value, list) else value
