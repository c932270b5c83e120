"""Environments: `make` turns an id, a class or a function into copies side by side, compiled or on the host."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable, KeysView, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thorndike.environments import suites
from thorndike.environments.boundary import PASSING, guarded
from thorndike.errors import SettingError, shown

MASK_FROM_INFO = "mask_from_info"
ATARI = "atari:"

if TYPE_CHECKING:
    from thorndike.core import Environment
    from thorndike.environments.host import HostEnvironment
    from thorndike.environments.workers import Workers


def make(environment: Any, num_environments: int, *, workers: Any = 0, **arguments: Any) -> Environment:
    """`num_environments` copies of an environment, side by side.

    `environment` is an id ("CartPole-v1": its compiled twin where there is one that takes the arguments, else
    Gymnasium's; "DeepSea": a compiled one of our own; "gymnasium:ID": Gymnasium's; "envpool:ID": EnvPool's;
    "atari:GAME": an Atari game; "gymnax:ID", "brax:ID", ...: that of a JAX suite, compiled; "my_module:MyEnv-v0":
    imports the module, which registers it), a gymnasium.Env class, a function that makes a gymnasium.Env or a compiled
    environment, a compiled environment or its class, an EnvSpec, or an environment object: of that, fresh copies where
    they are sure to equal it, else it is itself the one copy (`single`), and asking for more is an error. `arguments`
    go to whatever makes it; `mask_from_info=True` is for one of Gymnasium's that says in `info["action_mask"]` which
    actions are legal, and its twin. Copies on the host are stepped in so many `workers`, processes of their own (an
    `environments.workers.Workers` says more), with the same results.

    Raises UnknownNameError, SettingError, UnsuitableError, MissingExtraError with the pip line, or EnvironmentFault
    for whatever goes wrong inside.
    """
    if type(num_environments) is not int or num_environments < 1:
        raise SettingError(f"num_environments must be a whole number, at least 1, got {shown(num_environments)}")
    with guarded("the environment could not be looked at"):
        name = environment if isinstance(environment, str) else name_of(environment)
    with guarded(f"{name} could not be made"):
        from thorndike.environments.workers import Workers

        workers = workers if isinstance(workers, Workers) else Workers(workers)
        return _made(environment, name, num_environments, arguments, _mask_from_info(arguments), workers)


def check_distinct(*environments: Environment) -> None:
    """Raise SettingError where two copies of what `make` made, for training and evaluation say, are one object."""
    from thorndike.environments import making

    making.check_distinct(one for environment in environments for one in getattr(environment, "copies", ()))


def record_info(environment: Environment, names: Sequence[str]) -> None:
    """Have the copies note what `info` says under `names` at the ends of episodes; SettingError where there is none."""
    from thorndike.environments.host import on_host

    if not names:
        return
    if not on_host(environment):
        raise SettingError(
            f"record_info={shown(tuple(names))}: a compiled environment has no info. Gymnasium's own has "
            "('gymnasium:CartPole-v1')"
        )
    environment.record_info(names)


def twins() -> dict[str, Callable[..., Any]]:
    """What makes the compiled environments that equal one of Gymnasium's, by its id."""
    from thorndike.environments import classic_control, toy_text

    return {**classic_control.TWINS, **toy_text.TWINS}


def own() -> dict[str, Callable[..., Any]]:
    """What makes the compiled environments that equal none of anyone's, by their ids."""
    from thorndike.environments import deep_sea

    return {**deep_sea.OWN}


def known_ids() -> list[str]:
    """Every id that `make` takes as it is: the twins', our own, and those that Gymnasium knows at this moment."""
    from thorndike.environments.making import registered

    return sorted({*twins(), *own(), *registered()})


def newest_version(environment: Any) -> str:
    """The id of the newest version of what an id names; "" where there is no newer one, or it is no id."""
    from thorndike.environments import advice

    id = environment.rpartition(":")[2] if isinstance(environment, str) else ""
    newest = advice.newest_version(id, known_ids())
    return newest if newest and int(newest.rpartition("-v")[2]) > int(id.rpartition("-v")[2]) else ""


def name_of(environment: Any, made: Any = None) -> str:
    """A name for run folders: the id without its prefix, or that of the class or function.

    Of a lambda, which has none, the name of what `made`, its product here, holds.
    """
    if isinstance(environment, str):
        name = environment.rpartition(":")[2]
    elif isinstance(environment, functools.partial):
        name = name_of(environment.func, made)
    else:
        spec = environment if _attribute(environment, "entry_point") else _attribute(environment, "spec")
        names = (_attribute(spec, "id"), _attribute(environment, "__name__"))
        name = next((given for given in names if given and isinstance(given, str)), type(environment).__name__)
    name = re.sub(r"[^\w.-]+", "-", name.replace("<lambda>", "")).strip(".-")
    if name or made is None:
        return name or "environment"
    one = _attribute(made, "environment") or next(iter(_attribute(made, "copies") or ()), None)
    return name_of(_attribute(one, "unwrapped") or one)


def _attribute(value: Any, name: str) -> Any:
    """None where there is no such attribute, or a property of the environment's own fails: `make` will meet it too."""
    try:
        return getattr(value, name, None)
    except PASSING:
        raise
    except BaseException:
        return None


def ours(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of an environment's arguments that are for `make` itself: they hold for whatever it is evaluated in too."""
    return {name: value for name, value in arguments.items() if name == MASK_FROM_INFO}


def to_evaluate_with(environment: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an environment trained in, less those that are for training alone."""
    if not isinstance(environment, str) or not environment.startswith(ATARI):
        return dict(arguments)
    from thorndike.environments.atari import TRAINING_ONLY

    return {name: value for name, value in arguments.items() if name not in TRAINING_ONLY}


def takes_workers(environment: Any) -> bool:
    """Whether copies can be stepped by worker processes: of what is compiled already, or EnvPool's, they cannot."""
    if isinstance(environment, str):
        from thorndike.environments import atari

        in_threads = environment.startswith("envpool:") or (environment.startswith(ATARI) and atari.by_envpool())
        return not in_threads and not _is_twin_of(environment, {}) and environment not in own()
    from thorndike.environments import making

    return not making.is_compiled(environment)


def _mask_from_info(arguments: dict[str, Any]) -> bool:
    """The flag among the arguments, which it is taken from."""
    value = arguments.pop(MASK_FROM_INFO, False)
    if not isinstance(value, bool):
        raise SettingError(f"{MASK_FROM_INFO} must be True or False, got {shown(value)}")
    return value


def _made(
    environment: Any, name: str, n: int, arguments: dict[str, Any], mask_from_info: bool, workers: Workers
) -> Environment:
    from thorndike.environments import gymnasium as host
    from thorndike.environments import making

    if isinstance(environment, str) and environment.startswith(("envpool:", ATARI)):
        if mask_from_info:
            raise SettingError(f"{MASK_FROM_INFO} is for Gymnasium's environments, {environment} is none of these")
        return _of_another_library(environment, n, arguments, workers)
    is_one = not isinstance(environment, type) and (
        making.is_compiled(environment) or making.is_environment(environment) or making.is_vector(environment)
    )
    if is_one and arguments:
        raise SettingError(f"{name} is made already: give {', '.join(arguments)} where it is made")
    if is_one and making.is_environment(environment):
        return host.copies_of_object(environment, name, n, mask_from_info, workers)
    return _of_factory(environment, is_one, name, n, arguments, mask_from_info, workers)


def _of_another_library(environment: str, n: int, arguments: dict[str, Any], workers: Workers) -> HostEnvironment:
    """Copies that are not made one by one: EnvPool's, and Atari's games."""
    from thorndike.environments import atari, envpool

    if environment.startswith(ATARI):
        return atari.copies_of_id(environment.removeprefix(ATARI), n, arguments, workers)
    workers.refuse(environment, envpool.IN_THREADS)
    return envpool.copies_of_id(environment.removeprefix("envpool:"), n, arguments)


def _of_factory(
    environment: Any, is_one: bool, name: str, n: int, arguments: dict[str, Any], mask_from_info: bool, workers: Workers
) -> Environment:
    """Copies of what an id, a class or a function makes, or of something compiled or a vector that is there already."""
    from thorndike.environments import gymnasium as host
    from thorndike.environments import making, vector
    from thorndike.environments.functional import Vectorized
    from thorndike.environments.worker import Order

    factory: Any = None  # of what is made already there is none
    if not is_one and _is_twin_of(environment, arguments):
        factory = twins()[environment]
    elif isinstance(environment, str) and environment in own():
        factory = own()[environment]
    elif not is_one:
        is_id = isinstance(environment, str)
        factory = _factory_of_id(environment) if is_id else making.factory_of_object(environment)
    if mask_from_info and factory in twins().values() and MASK_FROM_INFO in _taken_by(factory):
        arguments, mask_from_info = arguments | {MASK_FROM_INFO: True}, False
    also = _taken_by(twins()[name]) if name in twins() else []
    if making.is_vector(factory or environment):
        workers.refuse(name, "it is a vector environment, and steps its copies itself")
    elif factory is None or making.is_compiled(factory) or factory in [*twins().values(), *own().values()]:
        workers.refuse(name, f"it is compiled, and needs none{_on_host(environment)}")
    if callable(environment) and not is_one and "num_envs" in making.parameters(factory):
        arguments = {"num_envs": n} | arguments  # of a vector environment
    if workers.number:
        return host.copies_elsewhere(Order(factory, name, arguments, mask_from_info, also=tuple(also)), n, workers)
    first = making.create(factory, name, arguments, also) if factory else environment
    if making.is_compiled(first) and mask_from_info:
        raise SettingError(
            f"{MASK_FROM_INFO} is for Gymnasium's environments: {name} is compiled and has no info, it can put "
            "action_mask into its observations"
        )
    if making.is_compiled(first):
        return Vectorized(first, n)
    if making.is_vector(first):
        if mask_from_info:
            raise SettingError(f"{MASK_FROM_INFO} is for environments with one copy: {name} is a vector environment")
        return vector.Vector(first, name, n, owned=not is_one)
    copies: HostEnvironment = host.copies_of(factory, first, name, n, arguments, mask_from_info)
    if isinstance(environment, str) and name in twins():
        foreign = [argument for argument in arguments if argument not in also]
        reason = f"the compiled one takes only {', '.join(also)}" if foreign else "it draws maps at random"
        warnings.warn(
            f"{name} with {', '.join(foreign or arguments)} runs on the host, as Gymnasium's: {reason}",
            stacklevel=1,  # one place, so that it is shown once for all that a run makes
        )
    return copies


def _on_host(environment: Any) -> str:
    """How what is compiled is had on the host."""
    return f" ('gymnasium:{environment}' is Gymnasium's own)" if environment in twins() else ""


def _is_twin_of(name: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether `name` is an id whose compiled twin makes of these arguments what Gymnasium would."""
    from thorndike.environments.toy_text import random_map

    twin = twins().get(name) if isinstance(name, str) else None
    return twin is not None and arguments.keys() <= _taken_by(twin) and not random_map(name, arguments)


def _taken_by(twin: Callable[..., Any]) -> KeysView[str]:
    return inspect.signature(twin).parameters.keys()


def _factory_of_id(name: str) -> Any:
    from thorndike.environments import making

    prefix, _, id = name.partition(":")
    if prefix in suites.SUITES:
        return suites.factory_of_id(prefix, id)
    return making.factory_of_id(id if prefix == "gymnasium" else name, [*twins(), *own()])
