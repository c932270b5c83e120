"""What is read from a file, held against the kind that it has to be before anything else meets it."""

from __future__ import annotations

import functools
import math
import sys
import types
import typing
from typing import Annotated, Any, NamedTuple

LARGEST = 2**63 - 1
MAX_TEXT = 10_000  # characters


class Range(NamedTuple):
    """The whole numbers from `low` to `high`."""

    low: int = 0
    high: int = LARGEST


Positive = Annotated[int, Range(1)]


def check(value: Any, kind: Any, where: str = "it") -> None:
    """Raise ValueError, naming the place, unless `value` (made by json.loads) is of `kind`.

    Kinds are bool, float (finite; whole numbers too), int (from 0 to 2**63 - 1, or what an `Annotated[int, Range]`
    says), str, None, their unions, list[X], tuple[X, ...] (a list), dict[str, X], a TypedDict (in which further keys
    pass) and Any.
    """
    if kind is Any:
        return
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        _check_any(value, typing.get_args(kind), where)
    elif origin is dict:
        _of(dict, value, where)
        for name, item in value.items():
            check(item, typing.get_args(kind)[1], f"{where}.{name:.40}")
    elif origin in (list, tuple):
        _of(list, value, where)
        for i, item in enumerate(value):
            check(item, typing.get_args(kind)[0], f"{where}[{i}]")
    elif typing.is_typeddict(kind):
        _of(dict, value, where)
        for name, item in _fields(kind).items():
            optional = typing.get_origin(item) is typing.NotRequired
            if name in value:
                check(value[name], typing.get_args(item)[0] if optional else item, f"{where}.{name}")
            elif not optional:
                raise ValueError(f"{where} has no '{name}'")
    else:
        _check_one(value, kind, where)


def _check_any(value: Any, kinds: tuple, where: str) -> None:
    for kind in kinds:
        try:
            return check(value, kind, where)
        except ValueError as error:
            failed = error
    raise failed


def _check_one(value: Any, kind: Any, where: str) -> None:
    if typing.get_origin(kind) is Annotated:
        kind, limits = typing.get_args(kind)
    else:
        limits = Range()
    if kind is float:
        right = type(value) in (int, float) and abs(value) <= sys.float_info.max and not math.isnan(value)
    elif kind is int:
        right = type(value) is int and limits.low <= value <= limits.high
    elif kind is str:
        right = type(value) is str and len(value) <= MAX_TEXT
    else:
        right = value is None if kind in (None, types.NoneType) else type(value) is kind
    if not right:
        raise ValueError(f"{where} is {value!r:.40}")


def _of(kind: type, value: Any, where: str) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{where} is {value!r:.40}")


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)
