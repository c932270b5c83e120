"""Hyper-parameters as data: frozen dataclasses that are pytrees, whose float fields are the leaves."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
import sys
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, TypeVar, dataclass_transform

import jax
import numpy as np

from thorndike.errors import SettingError, UnknownNameError, nearest, shown

T = TypeVar("T")

LARGEST_COUNT = 2**31 - 1  # what a whole number on the device can be

OR = ", or "  # between two answers to one word
# Where theirs hides something, ours differs: the answer to a word from another library.
OTHER_WORDS = {
    "anneal_lr": "learning_rate_end=0",
    "beta": "memory.beta (Prioritized's now: memory=Prioritized(beta=...))",
    "buffer_size": "memory.capacity",
    "burn_in": "memory.burn_in",
    "clip_coef": "clip_range",
    "end_e": "epsilon_end",
    "entropy_coef": "ent_coef",
    "exploration_final_eps": "epsilon_end",
    "exploration_initial_eps": "epsilon_start",
    "gradient_steps": "updates_per_rollout",
    "hidden_size": "size, or sizes, or network (for example network=LSTM(size=64))",
    "lam": "gae_lambda",
    "learning_starts": "warmup_steps",
    "lr": "learning_rate",
    "lstm_hidden_size": "network (for example network=LSTM(size=64))",
    "n_envs": "num_environments",
    "n_epochs": "epochs",
    "n_steps": "rollout_length, or memory.window for n-step returns",
    "net_arch": "network (for example network=MLP(sizes=(64, 64)))",
    "norm_adv": "normalize_advantages",
    "num_envs": "num_environments",
    "num_minibatches": "batch_size (rollout_length * num_environments / minibatches)",
    "num_steps": "rollout_length",
    "optimize_memory_usage": "memory (for stacked images memory=FrameReplay(...))",
    "pi_lr": "learning_rate",
    "policy_kwargs": "network",
    "policy_lr": "learning_rate",
    "q_lr": "critic_learning_rate",
    "sequence_length": "memory.sequence",
    "start_e": "epsilon_start",
    "target_network_frequency": "target_period (counted in updates)",
    "target_update_interval": "target_period (counted in updates)",
    "train_freq": "rollout_length",
    "train_frequency": "rollout_length",
    "update_epochs": "epochs",
    "vf_lr": "critic_learning_rate",
    "value_coef": "vf_coef (of half the mean squared error: SB3's 0.5 is 1.0 here)",
}


def setting(
    default: Any, *, low: float = -math.inf, high: float = math.inf, above: float = -math.inf, infinite: bool = False,
    end_of: str = "", static: bool = False, recipe: bool = False,
) -> Any:  # fmt: skip
    """A field with limits: `low <= value <= high` and `value > above`, checked when a user constructs the class.

    Infinity passes only where it is said to mean something. What the field `end_of` falls to over a run, and with it
    those that end in its name (critic_learning_rate), is no larger than they are. A float that is `static` is part of
    the program: it cannot be swept over. What is a `recipe` is made of hyper-parameters wherever it is not None.
    """
    limits = {"low": low, "high": high, "above": above, "infinite": infinite, "end_of": end_of, "static": static}
    limits |= {"recipe": recipe}
    return dataclasses.field(default=default, metadata=limits)


@dataclass_transform(frozen_default=True)
def hyperparameters(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a pytree.

    Fields annotated `float` (or `float | None`) are leaves, unless `static`: `vmap` can sweep over them, and another
    value costs no compilation. Fields whose default is itself made of hyper-parameters are subtrees, and so are those
    that are said to be a `recipe`. All else is static and must be hashable. On construction a list becomes a tuple, an
    int given for a float a float, kinds and limits are checked (of Python numbers only: tracers and arrays pass), and a
    method `validate`, if there is one, is called.

    A class that a field is annotated with may have a `coerce(value)` that turns what a user gives into one of it.
    Names in a class variable `without` are fields of its parent that it does not have.
    """
    _leave_out(cls, vars(cls).get("without", ()))
    hints = typing.get_type_hints(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _converted(getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, value)
            _check_kind(type(self).__name__, field, value, hints[field.name])
            _check_limits(type(self).__name__, field, value)
            _check_end(self, field, value)
        if all(not isinstance(value, jax.core.Tracer) for value in jax.tree.leaves(self)):
            getattr(self, "validate", lambda: None)()

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    cls = dataclasses.dataclass(frozen=True)(cls)
    _answer_unknown_words(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    swept = {f.name for f in fields if float in _alternatives(hints[f.name]) and not f.metadata.get("static")}
    data = tuple(f.name for f in fields if f.name in swept or f.metadata.get("recipe") or is_hyperparameters(f.default))
    static = tuple(f.name for f in fields if f.name not in data)
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in data)

    def flatten(self: T) -> tuple[tuple, tuple]:
        values = self.__dict__
        return tuple(values[name] for name in data), tuple(values[name] for name in static)

    def flatten_with_keys(self: T) -> tuple[tuple, tuple]:
        children, fixed = flatten(self)
        return tuple(zip(keys, children, strict=True)), fixed

    def unflatten(fixed: tuple, children: Any) -> T:
        # Not through the constructor: JAX puts all kinds of placeholders where the numbers were.
        self = object.__new__(cls)
        self.__dict__.update(zip(static, fixed, strict=True))
        self.__dict__.update(zip(data, children, strict=True))
        return self

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def _leave_out(cls: type, names: Collection[str]) -> None:
    """Make `cls` a class without these fields of its parent: asked for one, its objects raise AttributeError."""

    def absent(name: str) -> property:
        def get(self: Any) -> Any:
            raise AttributeError(f"{type(self).__name__} has no field '{name}'")

        return property(get)

    for name in names:
        if name not in getattr(cls, "__dataclass_fields__", ()):
            raise TypeError(f"{cls.__name__} cannot be without '{name}': its parent has no such field")
        cls.__annotations__[name] = ClassVar[Any]  # which dataclasses takes for no field
        setattr(cls, name, absent(name))


def is_hyperparameters(value: Any) -> bool:
    """Whether `value` is an instance of a class that `hyperparameters` made."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type) and hasattr(value, "__post_init__")


def named(value: Any, kind: type, known: Mapping[str, type], what: str) -> Any:
    """What a user's name for `what`, one of a kind, stands for; anything else as it is.

    Raises UnknownNameError for a name that is not `known`, SettingError for a class in place of one of it.
    """
    if isinstance(value, str):
        if value.lower() not in known:
            near = nearest(value.lower(), known)
            raise UnknownNameError(f"unknown {what} '{value}'.{near} There are: {', '.join(known)}")
        return known[value.lower()]()
    if isinstance(value, type) and issubclass(value, kind):
        raise SettingError(f"{value.__name__} is a class: give {value.__name__}()")
    return value


def to_json(value: Any) -> Any:
    """Hyper-parameters as JSON values: {"type": class name, field: value, ...}; infinities as strings."""
    if hasattr(value, "to_json"):  # a network of the user's own says only what it is
        return value.to_json()
    if is_hyperparameters(value):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": class_name(type(value))} | fields
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return to_json(value.item())
    raise SettingError(f"{type(value).__name__} cannot be written as JSON: give a plain value")


def class_name(cls: type) -> str:
    """What a class is written down as: "DQN", or "my_module:Mine" for one that is not of this package."""
    return cls.__name__ if cls.__module__.startswith("thorndike.") else f"{cls.__module__}:{cls.__name__}"


def check_registered(value: Any) -> None:
    """SettingError where `value`, or a recipe in it, is of a class that lacks its `hyperparameters`."""
    for part in (value, *(getattr(value, field.name) for field in dataclasses.fields(value))):
        if is_hyperparameters(part) and jax.tree_util.all_leaves([part]):
            name = type(part).__name__
            raise SettingError(
                f"{name} is not ready to be trained with: write @hyperparameters above class {name} "
                "(from thorndike.hyperparameters import hyperparameters)"
            )


def from_json(value: Any, classes: Mapping[str, type]) -> Any:
    """What `to_json` wrote, built from `classes` (by name) alone: no other name is ever looked up."""
    if isinstance(value, dict):
        fields = {name: from_json(item, classes) for name, item in value.items() if name != "type"}
        kind = str(value.get("type"))
        if kind not in classes:
            raise UnknownNameError(f"unknown kind of hyper-parameters '{kind}'.{nearest(kind, classes)}")
        return classes[kind](**fields)
    if isinstance(value, list):
        return tuple(from_json(item, classes) for item in value)
    return float(value) if value in ("inf", "-inf", "nan") else value


def _alternatives(hint: Any) -> tuple:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _converted(value: Any, hint: Any) -> Any:
    alternatives = _alternatives(hint)
    if isinstance(value, np.generic):
        value = value.item()
    if float in alternatives and isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # an int too large
            return math.inf if abs(value) == value else -math.inf
    for alternative in alternatives:
        if hasattr(alternative, "coerce") and value is not None:
            return alternative.coerce(value)
    if isinstance(value, list) and any(typing.get_origin(kind) is tuple for kind in alternatives):
        return tuple(value)
    return value


def _check_kind(owner: str, field: dataclasses.Field, value: Any, hint: Any) -> None:
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        if type(value) not in map(type, choices) or value not in choices:
            near = nearest(value, map(str, choices)) if isinstance(value, str) else ""
            raise SettingError(
                f"{owner}: {field.name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}.{near}"
            )
    elif not any(_is_of(value, kind) for kind in _alternatives(hint)):
        raise SettingError(f"{owner}: {field.name} must be {_kind_name(hint)}, got {shown(value)}")


def _is_of(value: Any, kind: Any) -> bool:
    if kind is float:  # or an array of them, to sweep over
        return hasattr(type(value), "dtype") or (isinstance(value, numbers.Real) and not isinstance(value, bool))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return (
        isinstance(value, kind) if isinstance(kind, type) and kind is not Any else True
    )  # of tuples `validate` knows more


def _check_limits(owner: str, field: dataclasses.Field, value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    low, above = (field.metadata.get(name, -math.inf) for name in ("low", "above"))
    high = field.metadata.get("high", math.inf)
    if isinstance(value, int):  # in a field of whole numbers: all others hold floats by now
        high = min(high, LARGEST_COUNT)
    largest = math.inf if field.metadata.get("infinite") else sys.float_info.max
    within = low <= value <= high and (value > above or above == -math.inf)  # NaN is neither
    if not within or not -largest <= value <= largest:
        parts = [f"above {above:g}"] * (above > -math.inf)
        parts += [f"at least {low:g}"] * (low > -math.inf)
        parts += [f"at most {high:,}" if isinstance(high, int) else f"at most {high:g}"] * (high < math.inf)
        parts += ["finite"] * within
        raise SettingError(f"{owner}: {field.name} must be {' and '.join(parts) or 'a number'}, got {shown(value)}")


def _check_end(owner: Any, field: dataclasses.Field, value: Any) -> None:
    fallen = field.metadata.get("end_of")
    for name in [other.name for other in dataclasses.fields(owner) if fallen and other.name.endswith(fallen)]:
        start = getattr(owner, name)
        if isinstance(start, float) and isinstance(value, float) and value > start:
            raise SettingError(
                f"{type(owner).__name__}: {field.name} is what {name} falls to, at most its {start:g}, got "
                f"{shown(value)}; None: it stays"
            )


def _kind_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "a word", type(None): "None"}
    return " or ".join(names.get(kind, f"a {getattr(kind, '__name__', kind)}") for kind in _alternatives(hint))


def _answer_unknown_words(cls: type) -> None:
    construct: Any = cls.__init__  # type: ignore[misc]
    names = [field.name for field in dataclasses.fields(cls)]

    def __init__(self, *args: Any, **fields: Any) -> None:
        for name in fields:
            if name not in names:
                raise UnknownNameError(unknown_field(cls, name))
        construct(self, *args, **fields)

    __init__.__wrapped__ = construct  # type: ignore[attr-defined]
    __init__.__doc__ = construct.__doc__
    cls.__init__ = __init__  # type: ignore[misc]


def unknown_field(cls: type, name: str) -> str:
    """The one-line answer to a field that `cls` does not have."""
    names = [field.name for field in dataclasses.fields(cls)]
    ours = in_our_words(name, names, cls.__name__)
    if ours:
        return f"{cls.__name__} has no field '{name}': here it is {ours}"
    return f"{cls.__name__} has no field '{name}'.{nearest(name, names)}"


def in_our_words(name: str, fields: Collection[str], owner: str) -> str | None:
    """What another library's word is called among the `fields` of `owner`; None where it is nobody's word."""
    if name not in OTHER_WORDS:
        return None
    ours = OTHER_WORDS[name].split(OR)
    fitting = [word for word in ours if first_word(word).partition(".")[0] in fields]
    return OR.join(fitting) if fitting else f"{ours[0]}, which {owner} does not have"


def first_word(answer: str) -> str:
    """The field that an answer begins with: "learning_rate_end" of "learning_rate_end=0"."""
    return re.split("[^a-z_.]", answer)[0]
