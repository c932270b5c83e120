"""The public JAX suites, "gymnax:CartPole-v1": which there are, and what makes an environment of one.

A suite is imported when one of its environments is asked for, or its ids are.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from thorndike.environments.boundary import guarded
from thorndike.errors import MissingExtraError, UnknownNameError

if TYPE_CHECKING:
    from thorndike.environments.suites.base import SuiteEnvironment


class Suite(NamedTuple):
    """Where the environments of a suite come from; the file here that bears its name has them as `cls`."""

    cls: str
    module: str
    pip: str
    brings: str
    example: str  # one of its ids

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


SUITES = {
    "gymnax": Suite(
        "Gymnax", "gymnax", 'pip install "thorndike[gymnax]"', "classic control, bsuite, MinAtar", "Breakout-MinAtar"
    ),
    "pgx": Suite("Pgx", "pgx", 'pip install "thorndike[pgx]"', "MinAtar, 2048", "minatar-breakout"),
    "jumanji": Suite("Jumanji", "jumanji", 'pip install "thorndike[jumanji]"', "puzzles, packing, routing", "Snake-v1"),
    "xminigrid": Suite(
        "XMiniGrid", "xminigrid", 'pip install "thorndike[xminigrid]"', "MiniGrid's rooms", "MiniGrid-DoorKey-5x5"
    ),
    "craftax": Suite(
        "Craftax",
        "craftax",
        'pip install "thorndike[craftax]"',
        "Crafter, NetHack",
        "Craftax-Symbolic-v1",
    ),
    "brax": Suite("Brax", "brax", 'pip install "thorndike[brax]"', "robots, as in Brax's papers", "ant"),
    "playground": Suite(
        "Playground", "mujoco_playground", 'pip install "thorndike[playground]"', "dm_control in MJX", "CheetahRun"
    ),
    "navix": Suite(
        "Navix", "navix", 'pip install "navix>=4" (Python 3.12)', "MiniGrid's rooms", "Navix-DoorKey-5x5-v0"
    ),
}


def ids(suite: str) -> list[str]:
    """The ids of a suite, without its prefix; the import takes up to some seconds. MissingExtraError without it."""
    cls = _class_of(suite)
    with guarded(f"the ids of {suite} could not be listed"):
        return sorted(cls.ids())


def factory_of_id(suite: str, id: str) -> Callable[..., SuiteEnvironment]:
    """A function that makes the environment of a suite from its arguments."""
    return functools.partial(_class_of(suite).of, id)


def _class_of(suite: str) -> type[SuiteEnvironment]:
    if suite not in SUITES:
        raise UnknownNameError(f"there is no suite '{suite}': there are {', '.join(SUITES)}")
    known = SUITES[suite]
    if not known.installed:
        raise MissingExtraError(f"{suite}'s environments need the package {known.module}: {known.pip}")
    try:
        with guarded(f"{known.module} could not be imported"):
            module: Any = importlib.import_module(f"{__name__}.{suite}")
    except Exception as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        raise MissingExtraError(f"{known.module} could not be imported ({error.__cause__}): {known.pip}") from error
    return getattr(module, known.cls)
