"""How environments of Gymnasium's API are found and made: by ids, classes, functions, or from an object's own spec.

JAX is not imported here: worker processes make their copies by this module.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper

from thorndike import spaces
from thorndike.environments import advice
from thorndike.environments.boundary import guarded, told
from thorndike.environments.old_gym import OldGym, takes_seed
from thorndike.errors import (
    EnvironmentFault,
    MissingExtraError,
    SettingError,
    UnknownNameError,
    UnsuitableError,
    nearest,
)

SIDES = ("observation_space", "action_space")
NOT_ONE = ("num_envs", "num_environments", "initial")  # what has these is several side by side, or compiled


def is_environment(value: Any) -> bool:
    """Whether `value` is an environment itself, of Gymnasium's API or the old one, not what makes one."""
    if isinstance(value, gymnasium.Env):
        return True
    return not (isinstance(value, type) or missing_methods(value) or any(hasattr(value, name) for name in NOT_ONE))


def missing_methods(value: Any) -> list[str]:
    """What of `reset` and `step` an object lacks."""
    return [name for name in ("reset", "step") if not callable(getattr(value, name, None))]


def adapted(value: Any, max_steps: int | None = None) -> Any:
    """An environment of the old Gym API, or with its spaces, in an adapter; anything else as it is."""
    named = [getattr(value, name, None) for name in SIDES]
    ours = all(space is None or isinstance(space, gymnasium.Space) for space in named)
    as_it_is = isinstance(value, OldGym) or (isinstance(value, gymnasium.Env) and takes_seed(value.reset) and ours)
    return value if as_it_is or not is_environment(value) else OldGym(value, max_steps)


def registered() -> list[str]:
    """The ids that Gymnasium knows at this moment."""
    return sorted(gymnasium.registry)


def origins() -> dict[str, str]:
    """The module that makes each id that Gymnasium knows; not of those that only say what has become of them."""
    found = {}
    for id, spec in gymnasium.registry.items():
        entry = spec.entry_point
        module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
        if entry is not None and module != "gymnasium.envs":
            found[id] = module
    return found


def ids_of_package(package: advice.Package) -> list[str]:
    """The ids that a well-known package registers, which is imported for it. MissingExtraError where it cannot be."""
    try:
        importlib.import_module(package.module)
    except Exception as error:
        raise MissingExtraError(
            f'{package.module} cannot be imported ({told(error)}): pip install "{package.pip}"'
        ) from error
    return sorted(id for id in origins() if advice.package_of(id) is package)


def factory_of_id(name: str, known: Sequence[str] = ()) -> Callable[..., Any]:
    """A function that makes the environment `name`, "ID" or "module:ID"; the module is imported.

    So is a well-known package that an ID without one belongs to. `known` are further ids to suggest from where the
    name is unknown (UnknownNameError).
    """
    module, _, id = name.rpartition(":")
    package = None if module else advice.package_of(id)
    if module:
        _import(module, id)
    elif package and package.module and id not in gymnasium.registry:
        with contextlib.suppress(ImportError):
            importlib.import_module(package.module)
    if id in gymnasium.registry:
        return partial(_made_of_id, id)
    if package and package not in map(advice.package_of, gymnasium.registry):
        raise MissingExtraError(f"{id} needs a package that is not installed: {advice.to_install(id)}")
    newest = advice.newest_version(id, [*known, *registered()])
    meant = f" Did you mean '{newest}'?" if newest else nearest(id, registered() if module else [*known, *registered()])
    if module:
        raise UnknownNameError(f"the module '{module}' registers no environment '{id}'.{meant}")
    raise UnknownNameError(f"there is no environment '{id}'.{meant}")


def _made_of_id(id: str, **arguments: Any) -> Any:
    """What Gymnasium makes of an id; a class of the old Gym API, which it refuses, is made here."""
    spec = gymnasium.spec(id)
    entry = spec.entry_point
    cls = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    ours = isinstance(cls, type) and issubclass(cls, gymnasium.Env) and takes_seed(cls.reset)
    if ours or not isinstance(cls, type) or missing_methods(cls):
        return gymnasium.make(id, disable_env_checker=True, **arguments)
    limit = arguments.pop("max_episode_steps", spec.max_episode_steps)
    return adapted(cls(**{**spec.kwargs, **arguments}), limit)


def factory_of_object(environment: Any) -> Callable[..., Any]:
    """A function that makes copies of a class, function or EnvSpec."""
    if callable(environment):
        return environment
    if isinstance(environment, gymnasium.envs.registration.EnvSpec):
        return partial(gymnasium.make, environment, disable_env_checker=True)
    name, lacking = type(environment).__name__, " and ".join(missing_methods(environment))
    lacking = f" without {lacking}" * bool(lacking)
    raise SettingError(f"an environment is an id, a class, or a function that makes one, got {name}{lacking}")


def create(factory: Callable[..., Any], name: str, arguments: Mapping[str, Any], also: Iterable[str] = ()) -> Any:
    """What `factory` makes; whatever goes wrong in it becomes a plain error about `name`.

    `also` are arguments that are taken for `name`, though not by `factory`, to suggest from.
    """
    try:
        with guarded(f"{name} could not be made"):
            return adapted(factory(**arguments))
    except EnvironmentFault as fault:
        error = fault.__cause__
        if isinstance(error, (gymnasium.error.DependencyNotInstalled, ImportError)):
            raise _missing(name, error) from error
        word = re.search(r"unexpected keyword argument '(\w+)'", str(fault))
        if isinstance(error, TypeError) and word and word[1] in arguments:
            near = nearest(word[1], [*also, *parameters(factory)])
            raise SettingError(f"{name} has no argument '{word[1]}'.{near}") from error
        raise


def parameters(factory: Callable[..., Any]) -> list[str]:
    """The arguments that a factory takes, by name: of a class those of all its bases, of an id those of its class."""
    made: Any = factory
    names = []
    if isinstance(factory, partial) and factory.func is _made_of_id:
        entry, names = gymnasium.spec(factory.args[0]).entry_point, ["max_episode_steps"]
        made = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    functions = [vars(base).get("__init__") for base in made.__mro__] if isinstance(made, type) else [made]
    for function in filter(callable, functions):
        with contextlib.suppress(TypeError, ValueError):  # of code that is not Python's
            parameters = inspect.signature(function).parameters.values()
            names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [name for name in names if name != "self"]


def draw(environment: Any) -> np.ndarray:
    """What an environment looks like now: RGB, uint8 [height, width, 3].

    UnsuitableError where it draws nothing; MissingExtraError where it lacks what it draws with.
    """
    name = environment.spec.id if environment.spec else type(environment.unwrapped).__name__
    try:
        with guarded(f"{name}.render"):
            shown = environment.render()
    except EnvironmentFault as fault:
        if isinstance(fault.__cause__, (gymnasium.error.DependencyNotInstalled, ImportError)):
            raise _missing(name, fault.__cause__) from fault
        if not isinstance(fault.__cause__, NotImplementedError):
            raise
        shown = None
    return checked_picture(shown[-1] if isinstance(shown, list) and shown else shown, name)


def checked_picture(picture: Any, name: str) -> np.ndarray:
    """What `render` gave, as RGB, uint8 [height, width, 3]; UnsuitableError where it is none."""
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        return picture
    raise UnsuitableError(
        f"{name} draws nothing: with render_mode 'rgb_array' its render() must give an array uint8 [height, width, 3], "
        f"got {spaces.outline(picture)}"
    )


def _missing(name: str, error: BaseException) -> MissingExtraError:
    """What to say where an environment lacks a package."""
    extra = re.search(r"gymnasium\[[\w-]+\]", str(error))
    newest = advice.newest_version(name, registered())
    remedy = f'pip install "{extra[0]}"' if extra else str(error) + f" (there is {newest})" * bool(newest)
    return MissingExtraError(f"{name} needs a package that is not installed: {remedy}")


def remaking(environment: Any) -> Callable[[], gymnasium.Env] | None:
    """A function that makes what `environment` was when it was made; None where its spec does not tell."""
    spec = environment.spec
    if spec is None or spec.id not in gymnasium.registry or any(w.kwargs is None for w in spec.additional_wrappers):
        return None
    return partial(gymnasium.make, spec, disable_env_checker=True)


def check(copy: Any, name: str) -> None:
    """Raise UnsuitableError, with what to write instead, where this is no environment that can be learned in."""
    advice.check_keeps_no_statistics(copy)
    if not isinstance(copy, (gymnasium.Env, OldGym)):
        lacking = " and ".join(missing_methods(copy))
        raise UnsuitableError(
            f"{name} gave {spaces.outline(copy)}{f' without {lacking}' * bool(lacking)}, expected one gymnasium.Env, "
            "or a compiled environment with initial, observe and transition"
        )
    for side in SIDES:
        if not isinstance(getattr(copy, side, None), gymnasium.Space):
            raise UnsuitableError(f"{name} has no {side}: it must be one of gymnasium.spaces")


def check_distinct(environments: Iterable[Any]) -> None:
    """Raise SettingError where two of them are the same object inside."""
    inside = [id(environment.unwrapped) for environment in environments]
    if len(set(inside)) < len(inside):
        raise SettingError("a function that makes an environment must make a new one at every call")


def check_spaces(observation_space: Any, action_space: Any, name: str) -> None:
    """Raise UnsuitableError, with what to write instead, where nothing here can be learned with these spaces."""
    id = name.removeprefix("gymnasium:")
    known = id.rpartition(":")[2] in gymnasium.registry
    maker = f"gymnasium.make({id if ':' in id else advice.written(id)!r})" if known else "make_mine()"
    for check, advised, space in (
        (spaces.stored, advice.for_observations, observation_space),
        (spaces.check_action_space, advice.for_actions, spaces.as_choices(action_space)),
    ):
        try:
            check(space)
        except UnsuitableError as error:
            raise UnsuitableError(f"{error}; {advised(space, maker)}") from None


def is_vector(value: Any) -> bool:
    """Whether this is a vector environment, or the class of one."""
    kind = value if isinstance(value, type) else type(value)
    return issubclass(kind, gymnasium.vector.VectorEnv)


def autoreset_mode(environment: Any) -> str:
    """When a vector environment resets copies whose episodes have ended; Gymnasium's default where it does not say."""
    said = (environment.metadata or {}).get("autoreset_mode", gymnasium.vector.AutoresetMode.NEXT_STEP)
    return gymnasium.vector.AutoresetMode(said).name


def is_compiled(value: Any) -> bool:
    """Whether this is an environment in JAX, or the class of one."""
    return all(callable(getattr(value, method, None)) for method in ("initial", "observe", "transition"))


def packed(order: Any, factory: Callable[..., Any]) -> tuple[CloudpickleWrapper, str | None]:
    """An order whose `factory` is to be called in a process of its own, and a folder to look for modules in.

    Classes and functions of a script go by their code, an id with what is registered for it. The folder is where a
    module of the user's own was found that is on no path.
    """
    named = factory.args[0] if isinstance(factory, partial) and factory.func is _made_of_id else None
    spec = gymnasium.spec(named) if named else None
    entry: Any = spec.entry_point if spec else factory
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    return CloudpickleWrapper((order, spec)), _folder_of(module)  # type: ignore[arg-type]


def unpacked(wrapped: Any) -> Any:
    """The order, in the process that it was sent to."""
    order, spec = wrapped.fn
    if spec is not None:
        gymnasium.registry.setdefault(spec.id, spec)
    return order


def _folder_of(module: str | None) -> str | None:
    """The folder that the package of an imported module lies in, where that is on no path."""
    file = getattr(sys.modules.get((module or "").partition(".")[0]), "__file__", None)
    if module == "__main__" or not file:
        return None
    path = Path(file).resolve()
    folder = path.parent.parent if path.stem == "__init__" else path.parent
    return None if folder in [Path(entry).resolve() for entry in sys.path] else str(folder)


def _import(module: str, id: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            if advice.package_of(id):
                raise MissingExtraError(
                    f"{module}:{id} needs a package that is not installed: {advice.to_install(id)}"
                ) from error
            raise UnknownNameError(f"there is no module '{error.name}' to import environments from") from error
        raise MissingExtraError(f"the module '{module}' needs '{error.name}', which is not installed") from error
    except (ValueError, TypeError) as error:  # "", "..x": no name of a module
        raise UnknownNameError(f"'{module}' is not the name of a module") from error


def time_limit(environment: Any) -> int | None:
    """The steps after which a wrapper cuts an episode, the least where there are several; None without one."""
    limits = []
    while isinstance(environment, gymnasium.Wrapper):
        if isinstance(environment, gymnasium.wrappers.TimeLimit):
            limits.append(environment._max_episode_steps)
        environment = environment.env
    if isinstance(environment, OldGym) and environment.max_steps is not None:
        limits.append(environment.max_steps)
    return min(limits, default=None)
