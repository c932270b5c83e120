"""Environments: `make` turns an id, a class or a function into copies side by side, compiled or on the host."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import TYPE_CHECKING, Any

from thorndike.errors import SettingError

if TYPE_CHECKING:
    from thorndike.core import Environment


def make(environment: Any, num_environments: int, **arguments: Any) -> Environment:
    """`num_environments` copies of an environment, side by side.

    `environment` is an id ("CartPole-v1": its compiled twin where there is one that takes the arguments, else
    Gymnasium's; "gymnasium:ID": Gymnasium's; "envpool:ID": EnvPool's; "my_module:MyEnv-v0": imports the module, which
    registers it), a gymnasium.Env class, a function that makes a gymnasium.Env or a compiled environment, a compiled
    environment or its class, an EnvSpec, or an environment object whose spec is registered. `arguments` go to whatever
    makes it.

    Raises UnknownNameError, SettingError, UnsuitableError, or MissingExtraError with the pip line.
    """
    from thorndike.environments import gymnasium as host
    from thorndike.environments.functional import Vectorized

    if type(num_environments) is not int or num_environments < 1:
        raise SettingError(f"num_environments must be a whole number, at least 1, got {num_environments!r}")
    name = environment if isinstance(environment, str) else name_of(environment)
    if isinstance(environment, str) and environment.startswith("envpool:"):
        from thorndike.environments import envpool

        return envpool.copies_of_id(environment.removeprefix("envpool:"), num_environments, arguments)
    if _is_functional(environment) and not isinstance(environment, type):
        if arguments:
            raise SettingError(f"{name} is made already: give {', '.join(arguments)} where it is made")
        return Vectorized(environment, num_environments)  # type: ignore[return-value]
    factory = _factory_of_id(environment, arguments) if isinstance(environment, str) else None
    factory = factory or host.factory_of_object(environment)
    first = host.create(factory, name, arguments)
    if _is_functional(first):
        return Vectorized(first, num_environments)  # type: ignore[return-value]
    return host.copies_of(factory, first, name, num_environments, arguments)


def twins() -> dict[str, type]:
    """The compiled environments that equal one of Gymnasium's, by its id."""
    from thorndike.environments.classic_control import TWINS

    return dict(TWINS)


def known_ids() -> list[str]:
    """Every id that `make` takes as it is: the twins', and those that Gymnasium knows at this moment."""
    from thorndike.environments.gymnasium import registered

    return sorted({*twins(), *registered()})


def name_of(environment: Any) -> str:
    """A name for run folders: the id without its prefix, or that of the class or function."""
    spec = getattr(environment, "spec", None)
    if isinstance(environment, str):
        name = environment.rpartition(":")[2]
    elif isinstance(environment, functools.partial):
        name = name_of(environment.func)
    elif hasattr(environment, "entry_point"):  # an EnvSpec
        name = environment.id
    elif spec is not None and hasattr(spec, "id"):
        name = spec.id
    else:
        name = getattr(environment, "__name__", type(environment).__name__)
    return re.sub(r"[^\w.-]+", "-", name.replace("<lambda>", "")).strip(".-") or "environment"


def same_instance(first: Environment, second: Environment) -> bool:
    """Whether two sets of copies on the host have an environment in common."""

    def instances(environment: Any) -> set[int]:
        return {id(copy.unwrapped) for copy in getattr(environment, "copies", ())}

    return bool(instances(first) & instances(second))


def _factory_of_id(name: str, arguments: dict[str, Any]) -> Any:
    from thorndike.environments import gymnasium as host

    prefix, _, id = name.partition(":")
    compiled = twins()
    twin = compiled.get(name)
    if twin is not None and arguments.keys() <= {field.name for field in dataclasses.fields(twin)}:
        return twin
    return host.factory_of_id(id if prefix == "gymnasium" else name, list(compiled))


def _is_functional(environment: Any) -> bool:
    return callable(getattr(environment, "transition", None))
