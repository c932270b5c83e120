"""Which settings a sweep is made of: values of fields, ranges to draw from, and algorithms that are changed by them."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from thorndike.errors import SettingError, UnknownNameError, nearest, shown
from thorndike.hyperparameters import is_hyperparameters, to_json, unknown_field
from thorndike.interface import words

MOST_SETTINGS = 1_000
DIGITS = 4  # that are kept of a number drawn
ENVIRONMENT_PREFIX = "environment."  # of the paths of its arguments
RANGE = re.compile(r"\s*([^\s,]+?)\.\.([^\s,]+)\s*")

Setting = dict[str, Any]  # by path ("gamma", "memory.batch_size", "environment.gravity"), a value


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included: whole ones where both are whole numbers (int)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(type(end) in (int, float) and math.isfinite(end) for end in (self.low, self.high)):
            raise SettingError(f"a range has two numbers for ends, such as 1e-5..1e-2: got {shown(self)}")
        if not self.low < self.high:
            raise SettingError(f"a range goes from less to more: got {self}")

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def logarithmic(self) -> bool:
        """Whether all orders of magnitude are equally likely: where it is positive and spans ten times or more."""
        return self.low > 0 and self.high >= 10 * self.low

    def draw(self, random: np.random.Generator) -> float:
        """A number of it, of so many digits that it can be copied."""
        if self.logarithmic:
            drawn = math.exp(random.uniform(math.log(self.low), math.log(self.high)))
        else:
            drawn = random.uniform(self.low, self.high)
        return self.nearest(drawn)

    def nearest(self, number: float) -> float:
        """The number of the range that is nearest, whole or of DIGITS digits."""
        rounded = round(number) if self.whole else float(f"{number:.{DIGITS}g}")
        return min(max(rounded, self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


Entry = list | Range


def ends_of(text: str) -> tuple[str, str] | None:
    """The two ends of "1e-5..1e-2" as text; None where it is no range."""
    match = RANGE.fullmatch(text)
    return (match[1], match[2]) if match else None


def entries(grid: Any, algorithm: Any) -> dict[str, Entry]:
    """What a user gives for a grid, by path: a list of values each, or a range.

    Given are lists of values, a single value, or a range as a text ("1e-5..1e-2"). Raises SettingError or
    UnknownNameError.
    """
    if not isinstance(grid, Mapping):
        raise SettingError(f"grid must be a dict such as {{'learning_rate': [1e-4, 1e-3]}}, got {shown(grid)}")
    found: dict[str, Entry] = {}
    for path, given in grid.items():
        present = value_at(algorithm, path) if not of_environment(path) else None
        ends = ends_of(given) if isinstance(given, str) else None
        if isinstance(given, Range):
            found[path] = given
        elif ends:
            found[path] = _range(path, ends, present)
        elif isinstance(given, (list, tuple, range, np.ndarray)):
            found[path] = _values(path, list(given))
        else:
            found[path] = [given]
    return found


def _range(path: str, ends: tuple[str, str], present: Any) -> Range:
    try:
        numbers = [float(words.spelled_out(end)) for end in ends]
    except ValueError:
        raise SettingError(
            f"{path}: a range has two numbers for ends, such as 1e-5..1e-2: got {'..'.join(ends)}"
        ) from None
    of_integers = present is None or (isinstance(present, int) and not isinstance(present, bool))
    whole = of_integers and all(number.is_integer() for number in numbers)
    return Range(*(int(number) if whole else number for number in numbers))


def _values(path: str, values: list) -> list:
    if not values:
        raise SettingError(f"{path} has no values: give one at least")
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    known = [told(value) for value in values]
    if twice := next((value for i, value in enumerate(known) if value in known[:i]), None):
        raise SettingError(f"{path} has the value {shown(twice)} twice")
    return values


def settings_of(entries: Mapping[str, Entry], draws: Any, seed: int) -> list[Setting]:
    """Every setting of a grid, or `draws` of them at random; SettingError where that cannot be meant."""
    ranges = [path for path, entry in entries.items() if isinstance(entry, Range)]
    if draws is None:
        if ranges:
            entry = entries[ranges[0]]
            raise SettingError(f"{ranges[0]} is a range, {entry}: say how many settings to draw, draws=20 (--draws 20)")
        values = [entry for entry in entries.values() if not isinstance(entry, Range)]
        check_count(math.prod(map(len, values)))
        return [dict(zip(entries, chosen, strict=True)) for chosen in itertools.product(*values)]
    count = words.whole_number(draws, "draws", low=1)
    check_count(count)
    if not ranges:
        raise SettingError(
            f"draws={count} without a range to draw from, such as 1e-5..1e-2: without draws, every combination is run"
        )
    random = np.random.default_rng(seed)
    return [{path: _drawn(entry, random) for path, entry in entries.items()} for _ in range(count)]


def _drawn(entry: Entry, random: np.random.Generator) -> Any:
    return entry.draw(random) if isinstance(entry, Range) else entry[int(random.integers(len(entry)))]


def check_count(count: int) -> None:
    """SettingError where there are too many settings."""
    if count > MOST_SETTINGS:
        raise SettingError(
            f"these are {count:,} settings, as many runs: {MOST_SETTINGS:,} at most. Give fewer values, or draw some "
            "of them at random, from a range (draws=20, --draws 20)"
        )


def of_environment(path: Any) -> bool:
    """Whether a path names an argument of the environment."""
    return isinstance(path, str) and path.startswith(ENVIRONMENT_PREFIX)


def value_at(algorithm: Any, path: Any) -> Any:
    """The value of the field at a path; UnknownNameError where there is none."""
    value = algorithm
    for name in str(path).split("."):
        _check_field(value, name, path, algorithm)
        value = getattr(value, name)
    return value


def _check_field(recipe: Any, name: str, path: Any, algorithm: Any) -> None:
    if not is_hyperparameters(recipe):
        raise UnknownNameError(f"{type(algorithm).__name__} has no field '{path}': {shown(recipe)} has no fields")
    if name in (field.name for field in dataclasses.fields(recipe)):
        return
    inner = [known for known in paths(algorithm) if known.rpartition(".")[2] == name]
    if recipe is algorithm and inner:
        raise UnknownNameError(f"{type(algorithm).__name__} has no field '{path}': here it is {inner[0]}")
    said = unknown_field(type(recipe), name)
    near = nearest(str(path), paths(algorithm)) if said.endswith("'.") else ""
    raise UnknownNameError(f"{said}{near}")


def paths(recipe: Any, prefix: str = "") -> Iterable[str]:
    """Every field of an algorithm and of the recipes in it."""
    for field in dataclasses.fields(recipe):
        yield f"{prefix}{field.name}"
        inner = getattr(recipe, field.name)
        if is_hyperparameters(inner):
            yield from paths(inner, f"{prefix}{field.name}.")


def changed(algorithm: Any, setting: Mapping[str, Any]) -> Any:
    """The algorithm with other values at these paths; those of the environment are left out."""
    own: Setting = {}
    inner: dict[str, Setting] = {}
    for path, value in setting.items():
        if of_environment(path):
            continue
        name, dot, rest = path.partition(".")
        if dot:
            inner.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    recipe = dataclasses.replace(algorithm, **own)  # with a recipe whose fields may be among the others
    parts = {}
    for name, values in inner.items():
        value_at(recipe, f"{name}.{next(iter(values))}")
        parts[name] = changed(getattr(recipe, name), values)
    return dataclasses.replace(recipe, **parts) if parts else recipe


def environment_arguments(setting: Mapping[str, Any]) -> dict[str, Any]:
    """What a setting says of the environment, by its argument."""
    return {path.removeprefix(ENVIRONMENT_PREFIX): value for path, value in setting.items() if of_environment(path)}


def told(value: Any) -> Any:
    """A value as JSON can hold it; of what JSON cannot hold, its class's name."""
    try:
        return to_json(value)
    except SettingError:
        return value if isinstance(value, (dict, list)) else shown(value)


def in_words(value: Any) -> str:
    """What `told` gave of a value, for a table."""
    if isinstance(value, dict):
        return str(value.get("type", shown(value, 30))).lower()
    if isinstance(value, list):
        return " ".join(map(in_words, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def as_flags(setting: Mapping[str, Any]) -> str:
    """A setting, as `told` gave its values, as flags to copy into a command."""
    flags = []
    for path, value in setting.items():
        words = in_words(value) if not isinstance(value, float) else repr(value)
        flags.append(f"--{path.replace('_', '-')} {words}")
    return " ".join(flags)
