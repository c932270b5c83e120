"""Whether two environments hold the same data, so that the one may stand for the other.

Nothing is proven by what a class says of itself (`==`, a state to copy it by): settings that were changed after an
environment was made may be missing there. So attributes are compared one by one, down to plain values.
"""

from __future__ import annotations

import enum
import functools
import random
import types
from collections import deque
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np
from gymnasium import spaces

VALUES = (bool, int, float, complex, str, bytes, type(None), np.generic, np.dtype, PurePath, enum.Enum, types.CodeType)
# What no step depends on: notes of how a thing was made, and a space's generator, which serves its `sample()` alone.
IGNORED = {"spec", "_cached_spec", "_saved_kwargs"}
IGNORED_OF_A_SPACE = {"_np_random"}


class UnlikeError(Exception):
    """Two environments that differ, or that cannot be compared; the message says where, and which of the two."""


class _Ordinary:
    """Its instances are as large as those of any class in Python: what is larger may hold more than attributes."""


def check_alike(environment: Any, fresh: Any) -> None:
    """Raise UnlikeError unless two environments are alike, as they stand or after a reset of both with one seed."""
    try:
        _compare(environment, fresh, "", {})
    except UnlikeError:  # perhaps an episode has been played: a reset ends that, and changes no setting
        for one in (environment, fresh):
            one.reset(seed=0)
        _compare(environment, fresh, "", {})


def alike(a: Any, b: Any) -> bool:
    """Whether two values hold the same data; False also where they cannot be compared."""
    try:
        _compare(a, b, "", {})
    except UnlikeError:
        return False
    return True


def _compare(a: Any, b: Any, path: str, seen: dict[tuple[int, int], Any]) -> None:
    a, b = _unchecked(a), _unchecked(b)
    if a is b or (id(a), id(b)) in seen:
        return
    seen[id(a), id(b)] = a, b  # kept, lest another object comes to the same place in memory
    if type(a) is not type(b):
        raise UnlikeError(f"'{path}' differs")
    if isinstance(a, VALUES):
        if a != b and (a == a or b == b):  # two NaN are the same
            raise UnlikeError(f"'{path}' differs")
        return
    ours, theirs = list(_parts(a, path)), list(_parts(b, path))
    if [name for name, _ in ours] != [name for name, _ in theirs]:
        raise UnlikeError(f"'{path}' differs")
    for (name, x), (_, y) in zip(ours, theirs, strict=True):
        _compare(x, y, name, seen)


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All that `value` consists of, by name. UnlikeError where it may hold more than can be seen."""
    inner = _inner(value)
    if isinstance(value, dict):
        yield from ((f"{path}[{key!r:.40}]", part) for key, part in value.items())
        yield from ((path, key) for key in value)
    elif isinstance(value, (list, tuple, deque)):
        yield from ((f"{path}[{i}]", part) for i, part in enumerate(value))
    elif inner is not None:
        yield path, inner
    elif type(value).__basicsize__ != _Ordinary.__basicsize__ or not hasattr(value, "__dict__"):
        raise UnlikeError(f"'{path}' cannot be compared")
    ignored = IGNORED_OF_A_SPACE if isinstance(value, spaces.Space) else IGNORED
    attributes = getattr(value, "__dict__", {})
    for name in sorted(attributes, key=lambda name: (name.startswith("_"), name)):  # settings are named first
        part = attributes[name]
        if name not in ignored:
            yield (f"{path}.{name}" if path else name).removeprefix("env."), part


def _inner(value: Any) -> Any:
    """What an array, a set, a generator or a function consists of, as values or lists; None for anything else."""
    if isinstance(value, np.ndarray):
        return [value.dtype, value.shape, value.tolist() if value.dtype.hasobject else value.tobytes()]
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__code__, value.__defaults__, value.__kwdefaults__, cells]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    state = type(value).__getstate__
    if (
        state is not object.__getstate__
        and not isinstance(state, types.FunctionType)
        and not hasattr(value, "__dict__")
    ):
        return value.__getstate__()  # of a class not written in Python, MuJoCo's for example: all its bytes
    return None


def _unchecked(value: Any) -> Any:
    """What is inside of Gymnasium's checker, which looks on and changes nothing."""
    while type(value).__name__ == "PassiveEnvChecker":
        value = value.env
    return value
