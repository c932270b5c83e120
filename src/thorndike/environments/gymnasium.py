"""Gymnasium environments: copies stepped one after another in this process, every episode's seed known.

Gymnasium promises little and checks less. Here a value that breaks its word is an EnvironmentFault that names copy,
episode seed and step, raised before anything is learned from it.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import jax
import numpy as np

from thorndike import masks, spaces
from thorndike.core import Step
from thorndike.environments import advice, repeating
from thorndike.environments.boundary import PASSING, guarded, told
from thorndike.environments.likeness import UnlikeError, check_alike
from thorndike.environments.masked import MaskFromInfo
from thorndike.environments.old_gym import OldGym, takes_seed
from thorndike.environments.repeating import NotRepeatableError, Repeatable, episode_seed
from thorndike.errors import (
    EnvironmentFault,
    MissingExtraError,
    SettingError,
    UnknownNameError,
    UnsuitableError,
    nearest,
)

PyTree = Any
NOT_ONE = ("num_envs", "num_environments", "initial")  # what has these is several side by side, or compiled


class Gymnasium(Repeatable):
    """Copies of one Gymnasium environment as a `core.Environment`, each reset in the step that ends its episode.

    An episode's reset seed follows from the run's seed, the copy and the number of the episode, so that a running
    episode can be repeated from its seed and its actions: that is what `save` and `restore` do.
    """

    def __init__(self, copies: Sequence[Any], single: bool = False, mask_from_info: bool = False) -> None:
        """`copies`: separate environments with the same spaces. Raises UnsuitableError where the spaces do not suit.

        `single` says that the one copy is the user's own object, of which no more can be made; it is never closed here.
        `mask_from_info` says that `info` tells which actions are legal: that becomes part of the observations.
        """
        self.copies, self.single = list(copies), single
        observation_space, action_space = self.copies[0].observation_space, self.copies[0].action_space
        self._with_mask = MaskFromInfo(observation_space, action_space) if mask_from_info else None
        seen = self._with_mask.observation_space if self._with_mask else observation_space
        super().__init__(len(self.copies), seen, action_space)
        self._masked = masks.masked(self.observation_space)
        self._one_leaf = isinstance(self._stored, jax.ShapeDtypeStruct)
        box = isinstance(self.observation_space, gymnasium.spaces.Box)
        self._box = self._stored if box else jax.ShapeDtypeStruct((), np.dtype(object))
        check_distinct(self)
        self.max_steps = _time_limit(self.copies[0])
        for copy in self.copies[1:]:
            if copy.observation_space != observation_space or copy.action_space != self._real_space:
                raise UnsuitableError("the copies of the environment differ in their spaces")

    def reset(self, key: jax.Array, episodes: np.ndarray | None = None) -> tuple[tuple, PyTree]:
        """New episodes everywhere: ((), observation [N, ...]). The key fixes every later seed too.

        With `episodes` [N] each copy rests after so many: it is neither stepped nor reset, and looks as it did last.
        """
        self._start_with_key(key, episodes)
        nothing = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self._stored)
        self._observation = _stack([self._begin(i) if left else nothing for i, left in enumerate(self._left.tolist())])
        return (), self._observation

    def step(self, env_state: Any, action: Any, key: Any = None) -> tuple[tuple, Step]:
        """One canonical action [N, ...] for every copy; `env_state` and `key` mean nothing here.

        The arrays that are returned are never written again: JAX may go on reading them.
        """
        n, stored = self.num_environments, self._stored
        actions = self._one_by_one(self._handed_over(action))
        reward: Any = np.empty(n, np.float32)
        terminated: Any = np.empty(n, bool)
        truncated: Any = np.empty(n, bool)
        rows: Any = np.empty((n, *stored.shape), stored.dtype) if self._one_leaf else [None] * n
        playing, recording = self._everyone[self._playing].tolist(), bool(self.infos.names)
        if len(playing) < n:
            reward[:], terminated[:], truncated[:] = 0.0, False, False
            rows[:] = self._observation if self._one_leaf else [_row(self._observation, i) for i in range(n)]
        for i in playing:
            self._length[i] += 1
            rows[i], reward[i], terminated[i], truncated[i], info = self._step_copy(i, actions[i])
            if recording and (terminated[i] or truncated[i]):
                self.infos.note(info)
        if self._one_leaf and not np.isfinite(rows).all():
            self._blame(rows)
        following = rows if self._one_leaf else _stack(rows)
        done = terminated | truncated
        self._observation = self._renewed(following, done) if done.any() else following
        return (), Step(self._observation, reward, terminated, truncated, following)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> PyTree:
        """Back to where `save` was called: the observation [N, ...].

        Every running episode is repeated from its seed and its actions. Where that leads elsewhere (hidden state,
        randomness that the seed does not reach) or would take too long, the copy begins its next episode: `restarted`
        [N] says which, `exact` becomes False, and `notes` say why. Raises CorruptCheckpointError for foreign arrays.
        """
        saved = self._start_with_saved(arrays)
        rows = []
        for i, length in enumerate(arrays["length"].tolist()):
            actions = arrays["actions"][max(0, len(arrays["actions"]) - length) :, i]
            try:
                reached = self._repeated(i, length, actions, [leaf[i] for leaf in saved])
            except NotRepeatableError as reason:
                self._give_up(i, str(reason))
                reached = self._begin(i)
            rows.append(reached)
        self._observation = _stack(rows)
        return self._observation

    def put(self, attributes: Mapping[str, Any]) -> None:
        """Have the first copy, a twin's original, stand in the state that these attributes of it describe."""
        for name, value in attributes.items():
            setattr(self.copies[0].unwrapped, name, value)

    def follow(self) -> None:
        """Have MuJoCo's robots drawn by the camera that goes with them, where nothing else was asked for.

        Gymnasium 1.4 draws some, such as HalfCheetah, by one that stands still, and they run out of the picture.
        """
        renderer: Any = getattr(self.copies[0].unwrapped, "mujoco_renderer", None)
        if getattr(renderer, "camera_id", None) == -1 and "trackbodyid" not in (renderer.default_cam_config or {}):
            with contextlib.suppress(KeyError):  # where it has none
                renderer.camera_id = renderer.model.camera("track").id

    def picture(self) -> np.ndarray:
        """What the first copy looks like now: RGB, uint8 [height, width, 3].

        UnsuitableError where it draws nothing; MissingExtraError where it lacks what it draws with.
        """
        copy = self.copies[0]
        name = copy.spec.id if copy.spec else type(copy.unwrapped).__name__
        try:
            with guarded(f"{name}.render"):
                shown = copy.render()
        except EnvironmentFault as fault:
            if isinstance(fault.__cause__, (gymnasium.error.DependencyNotInstalled, ImportError)):
                raise _missing(name, fault.__cause__) from fault
            if not isinstance(fault.__cause__, NotImplementedError):
                raise
            shown = None
        return checked_picture(shown[-1] if isinstance(shown, list) and shown else shown, name)

    @property
    def fps(self) -> float | None:
        """Steps that a second of the environment's own time has, where it says so."""
        said = (self.copies[0].metadata or {}).get("render_fps")
        return float(said) if isinstance(said, (int, float)) and 0 < said < math.inf else None

    def close(self) -> None:
        """Release what the copies hold, with a warning where that fails: it changes nothing any more."""
        copies, self.copies = self.copies, []
        faults = []
        for i, copy in enumerate([] if self.single else copies):
            try:
                with guarded(f"copy {i} could not be closed"):
                    copy.close()
            except EnvironmentFault as fault:
                faults.append(str(fault))
        if faults:
            warnings.warn(faults[0], stacklevel=2)

    def _one_by_one(self, real: np.ndarray) -> list:
        """Actions as the copies take them, one for each; a copy may write into its own."""
        discrete = isinstance(self._real_space, gymnasium.spaces.Discrete)
        return real.tolist() if discrete else list(real.astype(self._real_space.dtype))

    def _begin(self, i: int) -> PyTree:
        """Copy i's episode from its beginning: the first observation."""
        self._length[i], checking = 0, False
        try:
            answer = self.copies[i].reset(seed=self._seed(i))
            checking = True
            if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
                raise ValueError(f"reset must return (observation, info), got {_outline(answer)}")
            observation, info = answer
            observation = self._seen(observation, info)
        except PASSING:
            raise
        except BaseException as error:
            text = told(error, checking)
            if text.startswith("TypeError") and "unexpected keyword argument 'seed'" in text:
                text = "it must accept reset(seed=...), as Gymnasium's environments do"
            raise self._fault(i, text) from error
        if masks.MASK in info and not self._masked and masks.choices_of(self.action_space):
            warnings.warn(
                f"info holds an {masks.MASK}, of which no use is made: with mask_from_info=True among the "
                "environment's arguments no illegal action is taken",
                stacklevel=1,  # one place, so that it is shown once for all that a run makes
            )
        return observation

    def _step_copy(self, i: int, action: Any) -> tuple[Any, float, bool, bool, Any]:
        """One step of copy i, checked, except whether a plain Box is finite: that is cheaper for all copies at once."""
        box, checking = self._box, False
        try:
            answer = self.copies[i].step(action)
            checking = True
            if not isinstance(answer, tuple) or len(answer) != 5:
                expected = "(observation, reward, terminated, truncated, info)"
                raise ValueError(f"step must return {expected}, got {_outline(answer)}")
            observation, reward, terminated, truncated, info = answer
            if type(observation) is not np.ndarray or observation.dtype != box.dtype or observation.shape != box.shape:
                observation = self._seen(observation, info, done=terminated or truncated)
            reward = spaces.plain_reward(reward)
            terminated, truncated = (
                spaces.plain_flag(terminated, "terminated"),
                spaces.plain_flag(truncated, "truncated"),
            )
        except PASSING:
            raise
        except BaseException as error:
            raise self._fault(i, told(error, checking)) from error
        return observation, reward, terminated, truncated, info

    def _seen(self, observation: Any, info: Any, done: bool = False) -> PyTree:
        """What a copy gave as it is stored, with its mask; ValueError where it is none, or leaves nothing to do."""
        if self._with_mask:
            observation = self._with_mask(observation, info, done)
        observation = spaces.plain(self.observation_space, observation)
        if self._masked and not done and masks.nothing_legal(observation, self.action_space):
            raise ValueError(f"no action is legal, {masks.MASK} is {observation[masks.MASK].tolist()!s:.80}")
        return observation

    def _blame(self, rows: np.ndarray) -> None:
        """Raise for the first copy whose observation is not finite."""
        for i, row in enumerate(rows):
            try:
                spaces.plain(self.observation_space, row)
            except ValueError as error:
                raise self._fault(i, str(error)) from error

    def _renewed(self, following: PyTree, done: np.ndarray) -> PyTree:
        """The observations to act on next: where an episode ended, the first of the next one."""
        observation = jax.tree.map(np.copy, following)
        for i in self._ended(np.flatnonzero(done)).tolist():
            first = self._begin(i)
            for leaf, row in zip(jax.tree.leaves(observation), jax.tree.leaves(first), strict=True):
                leaf[i] = row
        return observation

    def _repeated(self, i: int, length: int, actions: np.ndarray, saved: list[np.ndarray]) -> PyTree:
        """Where copy i's episode stands after its actions, or NotRepeatableError."""
        if length > repeating.LONGEST_REPEAT:
            raise NotRepeatableError(f"its {length} steps are too many to be repeated")
        try:
            observation = self._begin(i)
            for action in self._one_by_one(actions):
                self._length[i] += 1
                observation, _, terminated, truncated, _ = self._step_copy(i, action)
                if terminated or truncated:
                    raise NotRepeatableError(f"repeated, it ended after {self._length[i]} of {length} steps")
        except EnvironmentFault as fault:
            raise NotRepeatableError(f"repeating it failed ({fault})") from fault
        if any(x.tobytes() != y.tobytes() for x, y in zip(jax.tree.leaves(observation), saved, strict=True)):
            raise NotRepeatableError(f"repeating its {length} steps led to another observation")
        return observation

    def _seed(self, i: int) -> int:
        return episode_seed(self._run_seed, self.first_copy + i, int(self._episode[i]))

    def _fault(self, i: int, text: str) -> EnvironmentFault:
        moment = f"step {self._length[i]}" if self._length[i] else "reset"
        return EnvironmentFault(f"copy {self.first_copy + i}, episode seed {self._seed(i)}, {moment}: {text}")


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
    named = [getattr(value, name, None) for name in ("observation_space", "action_space")]
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
            near = nearest(word[1], [*also, *_parameters(factory)])
            raise SettingError(f"{name} has no argument '{word[1]}'.{near}") from error
        raise


def _parameters(factory: Callable[..., Any]) -> list[str]:
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


def copies_of(
    factory: Callable[..., Any], first: Any, name: str, n: int, arguments: Mapping[str, Any], mask_from_info: bool
) -> Gymnasium:
    """`n` copies from a factory, whose first product is there already."""
    copies = [first]
    _check(first, name)
    for _ in range(n - 1):
        copies.append(create(factory, name, arguments))
        _check(copies[-1], name)
    return Gymnasium(copies, mask_from_info=mask_from_info)


def copies_of_object(environment: Any, name: str, n: int, mask_from_info: bool) -> Gymnasium:
    """`n` copies of an object: fresh ones where they are sure to equal it, else the object itself, which is but one.

    Raises SettingError where more than one is asked for and none that is sure to equal it can be made.
    """
    environment = adapted(environment)
    _check(environment, name)
    factory, reason = _remaking(environment), "it is not made from a registered id"
    if factory:
        first = None
        try:
            first = create(factory, name, {})
            check_alike(environment, first)
        except PASSING:
            raise
        except BaseException as error:
            reason = f"{error}, beside a fresh one" if isinstance(error, UnlikeError) else told(error)
            with contextlib.suppress(Exception):
                first.close()  # type: ignore[union-attr]
        else:
            return copies_of(factory, first, name, n, {}, mask_from_info)
    if n > 1:
        id = f"{environment.spec.id!r} if it is unchanged, " if environment.spec else ""
        raise SettingError(
            f"{n} copies of this {name} that are sure to equal it cannot be made ({reason}): pass the class or a "
            f"function that makes it, td.train(..., lambda: make_mine(), ...), {id}or set num_environments=1"
        )
    return Gymnasium([environment], True, mask_from_info)


def _remaking(environment: Any) -> Callable[[], gymnasium.Env] | None:
    """A function that makes what `environment` was when it was made; None where its spec does not tell."""
    spec = environment.spec
    if spec is None or spec.id not in gymnasium.registry or any(w.kwargs is None for w in spec.additional_wrappers):
        return None
    return partial(gymnasium.make, spec, disable_env_checker=True)


def check_distinct(*environments: Any) -> None:
    """Raise SettingError where two copies, of one or several `environments`, are the same object inside."""
    copies = [copy for environment in environments if isinstance(environment, Gymnasium) for copy in environment.copies]
    if len({id(copy.unwrapped) for copy in copies}) < len(copies):
        raise SettingError("a function that makes an environment must make a new one at every call")


def _check(copy: Any, name: str) -> None:
    """Raise UnsuitableError, with what to write instead, where this is no environment that can be learned in."""
    advice.check_keeps_no_statistics(copy)
    if not isinstance(copy, (gymnasium.Env, OldGym)):
        lacking = " and ".join(missing_methods(copy))
        raise UnsuitableError(
            f"{name} gave {spaces.outline(copy)}{f' without {lacking}' * bool(lacking)}, expected one gymnasium.Env, "
            "or a compiled environment with initial, observe and transition"
        )
    id = name.removeprefix("gymnasium:")
    known = id.rpartition(":")[2] in gymnasium.registry
    maker = f"gymnasium.make({id if ':' in id else advice.written(id)!r})" if known else "make_mine()"
    for side, check, advised in (
        ("observation_space", spaces.stored, advice.for_observations),
        ("action_space", spaces.check_action_space, advice.for_actions),
    ):
        space = getattr(copy, side, None)
        if not isinstance(space, gymnasium.Space):
            raise UnsuitableError(f"{name} has no {side}: it must be one of gymnasium.spaces")
        space = spaces.as_choices(space) if side == "action_space" else space
        try:
            check(space)
        except UnsuitableError as error:
            raise UnsuitableError(f"{error}; {advised(space, maker)}") from None


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


def _time_limit(environment: Any) -> int | None:
    """The steps after which a wrapper cuts an episode, the least where there are several; None without one."""
    limits = []
    while isinstance(environment, gymnasium.Wrapper):
        if isinstance(environment, gymnasium.wrappers.TimeLimit):
            limits.append(environment._max_episode_steps)
        environment = environment.env
    if isinstance(environment, OldGym) and environment.max_steps is not None:
        limits.append(environment.max_steps)
    return min(limits, default=None)


def _row(batch: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[i], batch)


def _stack(rows: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def _outline(answer: Any) -> str:
    return f"{len(answer)} values" if isinstance(answer, tuple) else spaces.outline(answer)
