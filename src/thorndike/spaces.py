"""What Gymnasium's spaces mean here: how observations are stored, how actions are chosen and handed over.

Observations are stored in at most 32 bits, as plain nested dicts (keys sorted) and tuples. Actions are canonical
inside: a choice counts from 0, and a dimension with finite bounds is acted on in [-1, 1].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from thorndike import masks
from thorndike.errors import CorruptCheckpointError, UnsuitableError

if TYPE_CHECKING:  # JAX is imported where it computes: worker processes, which do without it, know spaces too
    import jax

PyTree = Any
Space = Any  # a gymnasium.spaces.Space, whose kinds share no interface to check against
INT32 = np.iinfo(np.int32)
FLOAT32_MAX = float(np.finfo(np.float32).max)
BOOLEANS = (bool, np.bool_)
MAX_ELEMENTS = 2**24  # of all the bounds in one description: more is an attack on memory, not a space
MAX_ACTIONS = 2**20  # numbers in an action
MAX_DEPTH = 32  # of Dicts and Tuples in each other

# The kinds of number (NumPy's letters) that are accepted where a kind was promised.
ACCEPTED = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}


def stored(space: Space, name: str = "observation") -> PyTree:
    """How one value of `space` is stored: a pytree of `jax.ShapeDtypeStruct`.

    Box keeps its shape, and its dtype up to 32 bits; Discrete is an int32, with the values that the environment
    gives (`start` included); MultiDiscrete int32; MultiBinary int8. Raises UnsuitableError for any other space.
    """
    from jax import ShapeDtypeStruct

    if isinstance(space, spaces.Box):
        return ShapeDtypeStruct(space.shape, at_most_32_bits(space.dtype))
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        first, count = (space.start, space.n) if isinstance(space, spaces.Discrete) else (space.start, space.nvec)
        end = np.asarray(first, object) + count
        if np.min(first, initial=0) < INT32.min or np.max(end, initial=0) > INT32.max:
            raise UnsuitableError(f"{name}: {space} does not fit into 32 bits")
        return ShapeDtypeStruct(space.shape, np.dtype(np.int32))
    if isinstance(space, spaces.MultiBinary):
        return ShapeDtypeStruct(space.shape, np.dtype(np.int8))
    if isinstance(space, spaces.Dict):
        if not all(isinstance(key, str) for key in space.spaces):
            raise UnsuitableError(f"the keys of a Dict space must be words, got {list(space.spaces)}")
        return {key: stored(space[key], f"{name}[{key!r}]") for key in sorted(space.spaces)}
    if isinstance(space, spaces.Tuple):
        return tuple(stored(part, f"{name}[{i}]") for i, part in enumerate(space.spaces))
    raise UnsuitableError(
        f"{name}: {type(space).__name__} spaces are not supported "
        "(Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these are)"
    )


def channels_axis(shape: tuple[int, ...]) -> int | None:
    """Where an image's channels are: of its first and last axis the one more unlike the middle one, which is a side.

    None where the first is, but not clearly so. A stack of images has an axis before these three.
    """
    first, middle, last = shape[-3:]
    unlike_first, unlike_last = (max(axis / middle, middle / axis) for axis in (first, last))
    if unlike_first <= unlike_last:
        return len(shape) - 1
    return None if unlike_first < 2 * unlike_last else len(shape) - 3


def plain(space: Space, value: Any, name: str = "observation") -> PyTree:
    """One value of `space` as it is stored: a pytree of NumPy arrays, perhaps the very one that was given.

    Raises ValueError, saying what was expected and what was given, for a wrong shape or kind of number, a missing
    or foreign key, an integer out of range, and a number that is not finite. Finite numbers beyond a Box's bounds
    pass: environments exceed them by rounding, and nothing here relies on them.
    """
    if isinstance(space, spaces.Box):
        return _plain_box(space, value, name)
    if isinstance(space, spaces.Discrete):
        if isinstance(value, (int, np.integer)) and space.start <= value < space.start + space.n:
            return np.array(value, np.int32)
        return _plain_integers((), np.int32, space.start, space.n, value, name)
    if isinstance(space, spaces.MultiDiscrete):
        return _plain_integers(space.shape, np.int32, space.start, space.nvec, value, name)
    if isinstance(space, spaces.MultiBinary):
        return _plain_integers(space.shape, np.int8, 0, 2, value, name)
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name}: expected a dict with the keys {sorted(space.spaces)}, got {outline(value)}")
        if value.keys() != space.spaces.keys():
            missing, extra = space.spaces.keys() - value.keys(), value.keys() - space.spaces.keys()
            given = [f"without {sorted(missing)}"] * bool(missing) + [f"with {sorted(map(str, extra))}"] * bool(extra)
            raise ValueError(f"{name}: expected the keys {sorted(space.spaces)}, got a dict {' and '.join(given)}")
        if masks.masked(space):
            value = {**value, masks.MASK: _plain_mask(value[masks.MASK], f"{name}[{masks.MASK!r}]")}
        return {key: plain(space[key], value[key], f"{name}[{key!r}]") for key in sorted(space.spaces)}
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(space.spaces):
            found = f"{len(value)} parts" if isinstance(value, (tuple, list)) else outline(value)
            raise ValueError(f"{name}: expected a tuple of {len(space.spaces)} parts, got {found}")
        return tuple(plain(part, value[i], f"{name}[{i}]") for i, part in enumerate(space.spaces))
    stored(space, name)  # raises: it says which spaces are supported
    raise AssertionError


def plain_batch(space: Any, stored: PyTree, answer: PyTree, rows: int) -> PyTree:
    """Observations [rows, ...] of `space` as they are stored, or None where something is wrong with them."""
    if isinstance(stored, dict):
        if not isinstance(answer, dict) or answer.keys() != stored.keys():
            return None
        parts = {key: plain_batch(space[key], stored[key], answer[key], rows) for key in stored}
        return None if any(part is None for part in parts.values()) else parts
    if isinstance(stored, tuple):
        if not isinstance(answer, tuple) or len(answer) != len(stored):
            return None
        several = tuple(map(plain_batch, space.spaces, stored, answer, [rows] * len(stored)))
        return None if any(part is None for part in several) else several
    dtype, shape = stored.dtype, (rows, *stored.shape)
    if not isinstance(answer, np.ndarray):
        return None
    if answer.shape != shape:
        if answer.shape != (*shape, 1):  # a lone number, which EnvPool may give as a vector of one
            return None
        answer = answer.reshape(shape)
    if answer.dtype.kind not in ACCEPTED[dtype.kind]:
        return None
    array = answer
    if answer.dtype != dtype:
        with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused as such
            array = answer.astype(dtype)
        if dtype.kind != "f" and (array != answer).any():
            return None
    if dtype.kind == "f":
        return array if np.isfinite(array).all() else None
    if isinstance(space, spaces.Discrete):
        inside = (array >= space.start) & (array < space.start + space.n)
        return array if inside.all() else None
    return array


def plain_reward(value: Any) -> float:
    """A reward, which must be one finite number of float32; ValueError for anything else."""
    if not isinstance(value, float):
        array = as_array(value)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise ValueError(f"reward: expected a number, got {outline(value)}")
        value = float(array.item())
    if not -FLOAT32_MAX <= value <= FLOAT32_MAX:
        raise ValueError(f"reward: {value} is not a finite float32 number")
    return value


def plain_flag(value: Any, name: str) -> bool:
    """Whether an episode has ended; ValueError for anything but one boolean."""
    if type(value) in BOOLEANS:
        return value
    array = as_array(value)
    if array.shape != () or array.dtype.kind != "b":
        raise ValueError(f"{name}: expected True or False, got {outline(value)}")
    return bool(array)


def as_choices(space: Space) -> Space:
    """A space of actions that are whole numbers, each within bounds, as the choices that they are.

    A Box of integers, and MultiBinary, become MultiDiscrete (of a lone number Discrete); any other space is returned.
    """
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiDiscrete(np.full(space.shape, 2))
    if not isinstance(space, spaces.Box) or space.dtype.kind not in "iub" or 0 in space.shape:
        return space
    low, high = space.low.astype(object) + 0, space.high.astype(object) + 0  # Python's integers overflow nowhere
    if np.max(high) >= INT32.max or np.min(low) <= INT32.min or np.max(high - low) >= INT32.max:
        return space
    if space.shape == ():
        return spaces.Discrete(int(high - low) + 1, start=int(low))
    return spaces.MultiDiscrete((high - low + 1).astype(np.int64), start=low.astype(np.int64))


def check_action_space(space: Space) -> None:
    """Raise UnsuitableError unless `space` is Discrete, MultiDiscrete of one axis, or a Box of floats, none empty."""
    if 0 in (space.shape or ()):
        raise UnsuitableError(f"an action must hold a choice or a number, in {space} it holds none")
    if isinstance(space, spaces.Box):
        if space.dtype.kind != "f":
            raise UnsuitableError(f"a Box of actions must hold floats, or whole numbers within bounds, got {space}")
    elif not isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        raise UnsuitableError(
            f"actions from a {type(space).__name__} space are not supported (Discrete, MultiDiscrete and Box are)"
        )
    elif len(space.shape or ()) > 1:
        raise UnsuitableError(f"choices must stand side by side, in one axis, got actions of the shape {space.shape}")
    count = math.prod(space.shape or ())
    if not 1 <= count <= MAX_ACTIONS:
        raise UnsuitableError(f"actions must be of 1 to {MAX_ACTIONS:,} numbers, got {count:,}: {space}")
    stored(space, "action")


def check_bounded_actions(algorithm: str, space: Space) -> None:
    """Raise UnsuitableError unless `space` is a Box of floats with bounds, which is what squashing needs."""
    check_action_space(space)
    if not isinstance(space, spaces.Box) or not bounded(space):
        raise UnsuitableError(f"{algorithm} needs Box actions with finite bounds, this environment has {space}")


def check_discrete_actions(algorithm: str, space: Space) -> None:
    """Raise UnsuitableError unless `space` is Discrete: one choice, each of whose values is learned."""
    if not isinstance(space, spaces.Discrete):
        raise UnsuitableError(f"{algorithm} needs Discrete actions, this environment has {space}")


def bounded(space: spaces.Box) -> bool:
    """Whether every dimension of a Box has two finite bounds."""
    return bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())


def uniform_action(space: Space, key: jax.Array, n: int, mask: jax.Array | None = None) -> jax.Array:
    """Actions [n, ...], uniform over the canonical action space, or over what a mask [n, choices] allows; traceable.

    Raises UnsuitableError for a Box without bounds: there is nothing to be uniform over.
    """
    import jax.numpy as jnp
    from jax import random

    check_action_space(space)
    if isinstance(space, spaces.Discrete):
        return uniform_choice(key, n, int(space.n), mask)
    if isinstance(space, spaces.MultiDiscrete):
        if mask is not None:
            return masks.uniform(key, mask, space.nvec.tolist())
        return random.randint(key, (n, *space.shape), 0, jnp.asarray(space.nvec[None], jnp.int32), jnp.int32)
    if not bounded(space):
        raise UnsuitableError(f"actions cannot be drawn uniformly from {space}: it has infinite bounds")
    return random.uniform(key, (n, *space.shape), jnp.float32, -1.0, 1.0)


def uniform_choice(key: jax.Array, n: int, choices: int, mask: jax.Array | None = None) -> jax.Array:
    """[n] int32, uniform over so many choices, or over those that a mask [n, choices] allows."""
    import jax.numpy as jnp
    from jax import random

    if mask is not None:
        return masks.uniform(key, mask, (choices,))[:, 0]
    return random.randint(key, (n,), 0, choices, jnp.int32)


def to_real(space: Space, xp: Any) -> Callable[[Any], Any]:
    """What turns canonical actions [..., *space.shape] into the environment's; `xp` is numpy or jax.numpy.

    Choices count from `start`. Each dimension with two finite bounds is clipped to [-1, 1] and scaled to them;
    any other passes through, clipped to the one bound that it may have.
    """
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return lambda action: action + start
    if isinstance(space, spaces.MultiDiscrete):
        first = space.start.astype(np.int32)
        return lambda action: action + _aligned(first, action)
    finite = space.bounded_below & space.bounded_above
    some, every = finite.any(), finite.all()
    # Halved before they are added: the widest bounds overflow otherwise. With symmetric bounds this is one exact
    # product, the same in NumPy and in XLA. Clipping to the bounds, below, is clipping to [-1, 1] here.
    low, high = 0.5 * np.where(finite, space.low, -1), 0.5 * np.where(finite, space.high, 1)
    middle, half_width = low + high, high - low
    dtype = space.dtype if xp is np else at_most_32_bits(space.dtype)

    def scaled_and_clipped(action: Any) -> Any:
        if some:
            scaled = _aligned(middle, action) + _aligned(half_width, action) * action
            action = scaled if every else xp.where(_aligned(finite, action), scaled, action)
        action = _clipped(action, _aligned(space.low, action), _aligned(space.high, action), xp)
        return action.astype(dtype)

    return scaled_and_clipped


def as_array(value: Any) -> np.ndarray:
    """`value` as an array: of one object, where it can be none of numbers."""
    try:
        return np.asarray(value)
    except Exception:  # ragged lists, and things that refuse to be arrays: a tensor with a graph, for example
        return np.asarray(None)


def outline(value: Any) -> str:
    """What kind of thing `value` is, in a word or two: "float32[4]", "NoneType"."""
    array = as_array(value)
    return type(value).__name__ if array.dtype.kind not in "biuf" else _text(array.dtype, array.shape)


def describe(space: Space) -> dict[str, Any]:
    """`space` as JSON values, infinities as words; `from_description` is the way back."""
    stored(space)  # raises for a space that is not supported
    kind = {"type": _type_name(space)}
    if isinstance(space, spaces.Box):
        bounds = {"low": _flat(space.low), "high": _flat(space.high)}
        return kind | {"shape": list(space.shape), "dtype": space.dtype.name} | bounds
    if isinstance(space, spaces.Discrete):
        return kind | {"n": int(space.n), "start": int(space.start), "dtype": space.dtype.name}
    if isinstance(space, spaces.MultiDiscrete):
        counts = {"nvec": space.nvec.ravel().tolist(), "start": space.start.ravel().tolist()}
        return kind | {"shape": list(space.shape), "dtype": space.dtype.name} | counts
    if isinstance(space, spaces.MultiBinary):
        return kind | {"shape": list(space.shape)}
    if isinstance(space, spaces.Dict):
        return kind | {"spaces": {key: describe(space[key]) for key in sorted(space.spaces)}}
    return kind | {"spaces": [describe(part) for part in space.spaces]}


def from_description(description: Any) -> Space:
    """The space that `describe` described. Anything else, however hostile, raises CorruptCheckpointError."""
    try:
        return _Reader().read(description, MAX_DEPTH)
    except CorruptCheckpointError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, AssertionError, UnsuitableError) as error:
        raise CorruptCheckpointError(f"not the description of a space: {error!r:.200}") from error


class _Reader:
    """Builds spaces from a description, and counts the elements that they take."""

    def __init__(self) -> None:
        self.elements = 0

    def read(self, description: Any, depth: int) -> Space:
        if not isinstance(description, dict) or depth == 0:
            raise ValueError("nested too deeply" if depth == 0 else f"{type(description).__name__} instead of a dict")
        match description.get("type"):
            case "Box":
                return self.box(description)
            case "Discrete":
                n, start = _whole(description["n"], 1), _whole(description["start"])
                space: Space = spaces.Discrete(n, start=start, dtype=_dtype(description, "iu"))
            case "MultiDiscrete":
                space = self.multi_discrete(description)
            case "MultiBinary":
                space = spaces.MultiBinary(self.shape(description) or (1,))
            case "Dict":
                named = _member(description, "spaces", dict)
                space = spaces.Dict({key: self.read(part, depth - 1) for key, part in named.items()})
            case "Tuple":
                parts = _member(description, "spaces", list)
                space = spaces.Tuple([self.read(part, depth - 1) for part in parts])
            case kind:
                raise ValueError(f"unknown type {kind!r:.50}")
        stored(space)
        return space

    def box(self, description: dict) -> spaces.Box:
        shape, dtype = self.shape(description), _dtype(description, "fiub")
        low, high = (self.numbers(description[side], shape, dtype) for side in ("low", "high"))
        return spaces.Box(low, high, shape, dtype)

    def multi_discrete(self, description: dict) -> spaces.MultiDiscrete:
        shape, dtype = self.shape(description), _dtype(description, "iu")
        counts, start = (self.numbers(description[side], shape, dtype) for side in ("nvec", "start"))
        return spaces.MultiDiscrete(counts, dtype=dtype, start=start)

    def shape(self, description: dict) -> tuple[int, ...]:
        shape = _member(description, "shape", list)
        if len(shape) > MAX_DEPTH:
            raise ValueError(f"{len(shape)} axes")
        sizes = tuple(_whole(size, 0) for size in shape)
        # A side of length 0 must not hide the others' product: NumPy refuses it late.
        self.elements += math.prod(max(size, 1) for size in sizes)
        if self.elements > MAX_ELEMENTS:
            raise ValueError(f"more than {MAX_ELEMENTS} numbers")
        return sizes

    def numbers(self, values: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """One number for all elements, or a flat list of them, exactly representable in `dtype`."""
        items = values if isinstance(values, list) else [values]
        if len(items) != (math.prod(shape) if isinstance(values, list) else 1):
            raise ValueError(f"{len(items)} numbers for the shape {shape}")
        whole = dtype.kind != "f"
        read, wide = (_whole, object) if whole else (_number, np.float64)
        array = np.array([read(item) for item in items], wide)
        with np.errstate(over="ignore"):
            exact = array.astype(dtype)  # Python's whole numbers raise OverflowError by themselves
        if not np.array_equal(exact, array):
            raise ValueError(f"a number that {dtype} cannot hold")
        return exact.reshape(shape) if isinstance(values, list) else np.full(shape, exact[0])


def _member(description: dict, name: str, kind: type) -> Any:
    if not isinstance(description[name], kind):
        raise ValueError(f"'{name}' is a {type(description[name]).__name__}, not a {kind.__name__}")
    return description[name]


def _whole(value: Any, low: int = -(2**63)) -> int:
    if type(value) is not int or not low <= value < 2**64:
        raise ValueError(f"{value!r:.50} is not a whole number in range")
    return value


def _number(value: Any) -> float:
    if value in ("inf", "-inf"):
        return float(value)
    if type(value) not in (int, float) or value != value:
        raise ValueError(f"{value!r:.50} is not a number")
    return float(value)


def _dtype(description: dict, kinds: str) -> np.dtype:
    name = _member(description, "dtype", str)
    known = {np.dtype(letter).name: np.dtype(letter) for letter in "?bBhHiIlLqQefd"}
    if name not in known or known[name].kind not in kinds:
        raise ValueError(f"dtype {name!r:.50}")
    return known[name]


def _type_name(space: Space) -> str:
    kinds = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Dict, spaces.Tuple)
    return next(kind.__name__ for kind in kinds if isinstance(space, kind))


def _flat(bounds: np.ndarray) -> Any:
    """A flat list of numbers, or one where they are all the same; infinities as words."""

    def number(x: Any) -> Any:
        return str(x) if isinstance(x, float) and math.isinf(x) else int(x) if isinstance(x, bool) else x

    values = [number(x) for x in bounds.ravel().tolist()]
    same = values and all(x == values[0] for x in values)
    return values[0] if same else values


def _plain_box(space: spaces.Box, value: Any, name: str) -> np.ndarray:
    dtype = at_most_32_bits(space.dtype)
    array = as_array(value)
    if array.shape != space.shape or array.dtype.kind not in ACCEPTED[dtype.kind]:
        raise ValueError(f"{name}: expected {_text(dtype, space.shape)}, got {outline(value)}")
    if array.dtype != dtype:
        array = _converted(array, dtype, name)
    if dtype.kind == "f" and not np.isfinite(array).all():
        index = np.argwhere(~np.isfinite(array))[0].tolist()
        where = f" at index {index}" if index else ""
        raise ValueError(f"{name}: {array[tuple(index)]}{where} is not a finite {dtype} number")
    return array


def _plain_mask(value: Any, name: str) -> np.ndarray:
    """A mask of any kind of numbers, as 1 for what is legal and 0 for the rest."""
    array = as_array(value)
    if array.dtype.kind not in "biuf" or not ((array == 0) | (array == 1)).all():
        given = str(array.ravel().tolist()) if array.dtype.kind in "biuf" else outline(value)
        raise ValueError(f"{name}: expected 1 for what is legal, 0 for the rest, got {given:.60}")
    return array.astype(np.int8)


def _converted(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    if dtype.kind in "iu" and array.dtype.kind != "b" and array.size:
        low, high, limits = array.min(), array.max(), np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            raise ValueError(f"{name}: expected {dtype} numbers, got values from {low} to {high}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused as such
        return array.astype(dtype)


def _plain_integers(shape: tuple, dtype: Any, start: Any, count: Any, value: Any, name: str) -> np.ndarray:
    array = as_array(value)
    if array.shape != shape or array.dtype.kind not in ACCEPTED["i"]:
        raise ValueError(f"{name}: expected {_text('int', shape)}, got {outline(value)}")
    offset = array - start if array.dtype != np.uint64 else array.astype(object) - start
    if np.any(offset < 0) or np.any(offset >= count):
        expected = f"from {start} to {start + count - 1}" if shape == () else f"in {count} choices counted from {start}"
        raise ValueError(f"{name}: expected whole numbers {expected}, got {array.tolist()}")
    return array.astype(dtype)


def _text(dtype: Any, shape: tuple) -> str:
    return f"{dtype}[{', '.join(map(str, shape))}]"


@functools.lru_cache(maxsize=64)
def at_most_32_bits(dtype: np.dtype) -> np.dtype:
    dtype = np.dtype(dtype)
    return dtype if dtype.itemsize <= 4 else np.dtype(f"{dtype.kind}4")


def _clipped(action: Any, low: Any, high: Any, xp: Any) -> Any:
    return xp.minimum(xp.maximum(action, low), high)  # a third of the time of numpy.clip on so few numbers


def _aligned(constant: np.ndarray, action: Any) -> np.ndarray:
    """A constant of the space's shape with leading axes of length 1, so that it has the action's rank."""
    return constant.reshape((1,) * (action.ndim - constant.ndim) + constant.shape)
