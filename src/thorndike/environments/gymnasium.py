"""Gymnasium environments: copies stepped one after another in this process, every episode's seed known.

Gymnasium promises little and checks less. Here a value that breaks its word is an EnvironmentFault that names copy,
episode seed and step, raised before anything is learned from it.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import jax
import numpy as np

from thorndike import spaces
from thorndike.core import Step
from thorndike.environments import repeating
from thorndike.environments.repeating import NotRepeatableError, Repeatable, episode_seed
from thorndike.errors import (
    EnvironmentFault,
    MissingExtraError,
    SettingError,
    ThorndikeError,
    UnknownNameError,
    UnsuitableError,
    nearest,
)

PyTree = Any
FLOAT32_MAX = float(np.finfo(np.float32).max)
BOOLEANS = (bool, np.bool_)


class Gymnasium(Repeatable):
    """Copies of one Gymnasium environment as a `core.Environment`, each reset in the step that ends its episode.

    An episode's reset seed follows from the run's seed, the copy and the number of the episode, so that a running
    episode can be repeated from its seed and its actions: that is what `save` and `restore` do.
    """

    def __init__(self, copies: Sequence[gymnasium.Env]) -> None:
        """`copies`: separate environments with the same spaces. Raises UnsuitableError where the spaces do not suit."""
        self.copies = list(copies)
        super().__init__(len(self.copies), self.copies[0].observation_space, self.copies[0].action_space)
        self._single = isinstance(self._stored, jax.ShapeDtypeStruct)
        box = isinstance(self.observation_space, gymnasium.spaces.Box)
        self._box = self._stored if box else jax.ShapeDtypeStruct((), np.dtype(object))
        if len({id(copy.unwrapped) for copy in self.copies}) < self.num_environments:
            raise SettingError("a function that makes an environment must make a new one at every call")
        self.max_steps = _time_limit(self.copies[0])
        for copy in self.copies[1:]:
            if copy.observation_space != self.observation_space or copy.action_space != self.action_space:
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
        rows: Any = np.empty((n, *stored.shape), stored.dtype) if self._single else [None] * n
        playing = range(n) if self._left.all() else self._playing.tolist()
        if len(playing) < n:
            reward[:], terminated[:], truncated[:] = 0.0, False, False
            rows[:] = self._observation if self._single else [_row(self._observation, i) for i in range(n)]
        for i in playing:
            self._length[i] += 1
            rows[i], reward[i], terminated[i], truncated[i] = self._step_copy(i, actions[i])
        if self._single and not np.isfinite(rows).all():
            self._blame(rows)
        following = rows if self._single else _stack(rows)
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

    def close(self) -> None:
        """Release what the copies hold; what goes wrong in that changes nothing any more."""
        while self.copies:
            with contextlib.suppress(Exception):
                self.copies.pop().close()

    def _one_by_one(self, real: np.ndarray) -> list:
        """Actions as the copies take them, one for each; a copy may write into its own."""
        discrete = isinstance(self.action_space, gymnasium.spaces.Discrete)
        return real.tolist() if discrete else list(real.astype(self.action_space.dtype))

    def _begin(self, i: int) -> PyTree:
        """Copy i's episode from its beginning: the first observation."""
        self._length[i] = 0
        try:
            answer = self.copies[i].reset(seed=self._seed(i))
        except Exception as error:
            if isinstance(error, TypeError) and "unexpected keyword argument 'seed'" in str(error):
                raise self._fault(i, "it must accept reset(seed=...), as Gymnasium's environments do") from error
            raise self._fault(i, f"{type(error).__name__}: {error}") from error
        if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
            raise self._fault(i, f"reset must return (observation, info), got {_outline(answer)}")
        try:
            return spaces.plain(self.observation_space, answer[0])
        except ValueError as error:
            raise self._fault(i, str(error)) from error

    def _step_copy(self, i: int, action: Any) -> tuple[Any, float, bool, bool]:
        """One step of copy i, checked, except whether a plain Box is finite: that is cheaper for all copies at once."""
        try:
            answer = self.copies[i].step(action)
        except Exception as error:
            raise self._fault(i, f"{type(error).__name__}: {error}") from error
        if not isinstance(answer, tuple) or len(answer) != 5:
            expected = "(observation, reward, terminated, truncated, info)"
            raise self._fault(i, f"step must return {expected}, got {_outline(answer)}")
        observation, reward, terminated, truncated, _ = answer
        box = self._box
        try:
            if type(observation) is not np.ndarray or observation.dtype != box.dtype or observation.shape != box.shape:
                observation = spaces.plain(self.observation_space, observation)
            if not isinstance(reward, float):
                reward = _number(reward)
            if not -FLOAT32_MAX <= reward <= FLOAT32_MAX:
                raise ValueError(f"reward: {reward} is not a finite float32 number")
            if type(terminated) not in BOOLEANS or type(truncated) not in BOOLEANS:
                terminated, truncated = _flag("terminated", terminated), _flag("truncated", truncated)
        except ValueError as error:
            raise self._fault(i, str(error)) from error
        return observation, reward, terminated, truncated

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
                observation, _, terminated, truncated = self._step_copy(i, action)
                if terminated or truncated:
                    raise NotRepeatableError(f"repeated, it ended after {self._length[i]} of {length} steps")
        except EnvironmentFault as fault:
            raise NotRepeatableError(f"repeating it failed ({fault})") from fault
        if any(x.tobytes() != y.tobytes() for x, y in zip(jax.tree.leaves(observation), saved, strict=True)):
            raise NotRepeatableError(f"repeating its {length} steps led to another observation")
        return observation

    def _seed(self, i: int) -> int:
        return episode_seed(self._run_seed, i, int(self._episode[i]))

    def _fault(self, i: int, text: str) -> EnvironmentFault:
        moment = f"step {self._length[i]}" if self._length[i] else "reset"
        return EnvironmentFault(f"copy {i}, episode seed {self._seed(i)}, {moment}: {text}")


def registered() -> list[str]:
    """The ids that Gymnasium knows at this moment."""
    return sorted(gymnasium.registry)


def factory_of_id(name: str, known: Sequence[str] = ()) -> Callable[..., gymnasium.Env]:
    """A function that makes the environment `name`, "ID" or "module:ID"; the module is imported.

    `known` are further ids to suggest from where the name is unknown (UnknownNameError).
    """
    module, _, id = name.rpartition(":")
    if module:
        _import(module)
    elif id.startswith("ALE/"):
        with contextlib.suppress(ImportError):
            importlib.import_module("ale_py")  # importing it registers its environments
    if id in gymnasium.registry:
        return partial(gymnasium.make, id, disable_env_checker=True)
    if id.startswith("ALE/") and not any(other.startswith("ALE/") for other in gymnasium.registry):
        raise MissingExtraError(f'{id} needs a package that is not installed: pip install "gymnasium[atari]"')
    if module:
        raise UnknownNameError(f"the module '{module}' registers no environment '{id}'.{nearest(id, registered())}")
    raise UnknownNameError(f"there is no environment '{id}'.{nearest(id, [*known, *registered()])}")


def factory_of_object(environment: Any) -> Callable[..., Any]:
    """A function that makes copies of a class, function, EnvSpec, or environment whose spec is registered."""
    if callable(environment):
        return environment
    if isinstance(environment, gymnasium.envs.registration.EnvSpec):
        return partial(gymnasium.make, environment, disable_env_checker=True)
    name = type(environment).__name__
    if not isinstance(environment, gymnasium.Env):
        raise SettingError(f"an environment is an id, a class, or a function that makes one, got {name}")
    spec = environment.spec
    if spec is None or spec.id not in gymnasium.registry or any(w.kwargs is None for w in spec.additional_wrappers):
        raise SettingError(f"copies of this {name} cannot be made: pass the class or a function that makes it")
    return partial(gymnasium.make, spec, disable_env_checker=True)


def create(factory: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> Any:
    """What `factory` makes; whatever goes wrong in it becomes a plain error about `name`."""
    try:
        return factory(**arguments)
    except ThorndikeError:
        raise
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        extra = re.search(r"gymnasium\[[\w-]+\]", str(error))
        remedy = f'pip install "{extra[0]}"' if extra else str(error)
        raise MissingExtraError(f"{name} needs a package that is not installed: {remedy}") from error
    except Exception as error:
        word = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and word and word[1] in arguments:
            raise SettingError(f"{name} has no argument '{word[1]}'") from error
        raise EnvironmentFault(f"{name} could not be made: {type(error).__name__}: {error}") from error


def copies_of(factory: Callable[..., Any], first: Any, name: str, n: int, arguments: Mapping[str, Any]) -> Gymnasium:
    """`n` copies from a factory, whose first product is there already."""
    copies = [first, *(create(factory, name, arguments) for _ in range(n - 1))]
    for copy in copies:
        if not isinstance(copy, gymnasium.Env):
            raise UnsuitableError(
                f"{name} gave {spaces.outline(copy)}, expected one gymnasium.Env, "
                "or a compiled environment with initial, observe and transition"
            )
        for side in ("observation_space", "action_space"):
            if not isinstance(getattr(copy, side, None), gymnasium.Space):
                raise UnsuitableError(f"{name} has no {side}: it must be one of gymnasium.spaces")
    return Gymnasium(copies)


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
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
    return min(limits, default=None)


def _row(batch: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[i], batch)


def _stack(rows: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def _number(value: Any) -> float:
    array = spaces.as_array(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise ValueError(f"reward: expected a number, got {spaces.outline(value)}")
    return float(array.item())


def _flag(name: str, value: Any) -> bool:
    array = spaces.as_array(value)
    if array.shape != () or array.dtype.kind != "b":
        raise ValueError(f"{name}: expected True or False, got {spaces.outline(value)}")
    return bool(array)


def _outline(answer: Any) -> str:
    return f"{len(answer)} values" if isinstance(answer, tuple) else spaces.outline(answer)
