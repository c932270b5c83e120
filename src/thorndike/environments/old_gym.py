"""Environments of the old Gym API as Gymnasium's: there `reset` gave only an observation, and `step` four values.

Nothing of the package gym is imported: its objects, and those written by hand, are known by what they can do.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gymnasium import spaces

from thorndike.errors import UnsuitableError

DEEPEST = 100  # wrappers around each other
TRUNCATED = "TimeLimit.truncated"


class OldGym:
    """One environment of the old API, with `reset` and `step` as Gymnasium has them.

    What was `done` is a truncation where `info["TimeLimit.truncated"]` or a TimeLimit wrapper's counter says so;
    otherwise the task has ended. An answer of another form is passed on, for whoever checks it.
    """

    spec = None  # that Gymnasium could make it again by

    def __init__(self, environment: Any, max_steps: int | None = None) -> None:
        """Truncate episodes after `max_steps`. Raises UnsuitableError where its spaces are none."""
        self.env = environment
        self.name = type(self.unwrapped).__name__
        self.observation_space = as_gymnasium(_space(environment, "observation_space", self.name), self.name)
        self.action_space = as_gymnasium(_space(environment, "action_space", self.name), self.name)
        self._limits = [layer for layer in _layers(environment) if _counts(layer)]
        limits = [layer._max_episode_steps for layer in self._limits]
        self.max_steps = min([*limits, *([max_steps] if max_steps else [])], default=None)
        self._own_limit, self._steps = max_steps, 0

    @property
    def unwrapped(self) -> Any:
        """The environment inside all wrappers."""
        return getattr(self.env, "unwrapped", self.env)

    def reset(self, *, seed: int) -> Any:
        """The first observation of a new episode, and an info."""
        self._steps = 0
        seeded = takes_seed(self.env.reset)
        if not seeded and callable(getattr(self.env, "seed", None)):
            self.env.seed(seed)
        answer = self.env.reset(seed=seed) if seeded else self.env.reset()
        pair = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping)
        if not pair or isinstance(self.observation_space, spaces.Tuple):
            return answer, {}
        if not seeded:
            raise TypeError("reset gives (observation, info), as Gymnasium's does: it must accept reset(seed=...) too")
        return answer

    def step(self, action: Any) -> Any:
        """(observation, reward, terminated, truncated, info)."""
        answer = self.env.step(action)
        self._steps += 1
        if isinstance(answer, tuple) and len(answer) == 4:
            _tell(self.name)
            observation, reward, done, info = answer
            cut = info.get(TRUNCATED) if isinstance(info, Mapping) else None
            if cut is None:
                cut = any(layer._elapsed_steps >= layer._max_episode_steps for layer in self._limits)
            answer = observation, reward, False if cut else done, bool(cut and done), info
        if self._own_limit is not None and self._steps >= self._own_limit and len(answer) == 5:
            answer = *answer[:3], True, answer[4]
        return answer

    def close(self) -> None:
        """Release what the environment holds."""
        getattr(self.env, "close", lambda: None)()


def takes_seed(reset: Callable) -> bool:
    """Whether `reset` can be called as Gymnasium's is, `reset(seed=...)`."""
    try:
        parameters = inspect.signature(reset).parameters
    except (TypeError, ValueError):  # of code that is not Python's: it is called to see
        return True
    return "seed" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def as_gymnasium(space: Any, name: str) -> spaces.Space:
    """A space as Gymnasium's: itself, or the equal of one of the package gym. UnsuitableError where it is neither."""
    if isinstance(space, spaces.Space):
        return space
    kinds = [cls.__name__ for cls in type(space).__mro__]
    part = functools.partial(as_gymnasium, name=name)
    try:
        if "Box" in kinds:
            return spaces.Box(space.low, space.high, space.shape, space.dtype)
        if "Discrete" in kinds:
            return spaces.Discrete(int(space.n), start=int(getattr(space, "start", 0)))
        if "MultiDiscrete" in kinds:
            return spaces.MultiDiscrete(space.nvec)
        if "MultiBinary" in kinds:
            return spaces.MultiBinary(space.n)
        if "Dict" in kinds:
            return spaces.Dict({key: part(value) for key, value in space.spaces.items()})
        if "Tuple" in kinds:
            return spaces.Tuple([part(value) for value in space.spaces])
    except (AttributeError, TypeError, ValueError, AssertionError) as error:
        raise UnsuitableError(f"{name}: its {kinds[0]} is no space that can be read: {error}") from error
    raise UnsuitableError(f"{name}: {kinds[0]} is none of gymnasium.spaces, nor of those of the old gym package")


def _space(environment: Any, which: str, name: str) -> Any:
    space = getattr(environment, which, None)
    if space is None:
        raise UnsuitableError(f"{name} has no {which}: it must be one of gymnasium.spaces")
    if inspect.isroutine(space):
        raise UnsuitableError(
            f"{name}.{which} is a method, expected a space: environments of several agents, as PettingZoo's, are not "
            "supported"
        )
    return space


def _layers(environment: Any) -> Iterator[Any]:
    """The wrappers around an environment from the outside, and itself."""
    for _ in range(DEEPEST):
        yield environment
        environment = getattr(environment, "env", None)
        if environment is None:
            return


def _counts(layer: Any) -> bool:
    """Whether this is a TimeLimit, or keeps count as one does."""
    own = getattr(layer, "__dict__", {})
    return isinstance(own.get("_max_episode_steps"), int) and "_elapsed_steps" in own


@functools.cache  # once for each
def _tell(name: str) -> None:
    warnings.warn(
        f"{name} has the old Gym API, where a step says only that an episode is done: a time limit is known by "
        f"info['{TRUNCATED}'] or a TimeLimit wrapper, and every other end counts as terminated",
        stacklevel=2,
    )
