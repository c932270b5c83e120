"""Which environments there are: by family, those that are installed and those one `pip install` away.

What is installed is looked up, not imported. Ids are found out when they are asked for.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from typing import NamedTuple

from thorndike.environments import advice, own, twins
from thorndike.environments.making import ids_of_package, origins
from thorndike.environments.suites import SUITES, Suite
from thorndike.environments.suites import ids as ids_of_suite


class Family(NamedTuple):
    """Environments that come together."""

    name: str
    runs: str  # "compiled", or on the "host"
    example: str  # as it is written
    pip: str  # the line that installs it; "" where it is there
    ids: Callable[[], list[str]]  # all of them, as they are written; imports what it takes
    quick: bool  # whether that takes no import
    pattern: str = r"(?!)"  # a regular expression for the beginnings of ids, where they are not quick to find out

    def bears(self, word: str) -> bool:
        """Whether a person who says `word` may mean all of it."""
        return word.lower() in self.name.lower() or (not self.quick and bool(re.match(self.pattern, word)))


HOST, COMPILED = "host", "compiled"
OF_GYMNASIUM = {  # the package that makes them, a module that they need, the extra that brings it, an example
    "classic control": ("gymnasium.envs.classic_control", "", "", "gymnasium:CartPole-v1"),
    "toy text": ("gymnasium.envs.toy_text", "", "", "gymnasium:FrozenLake-v1"),
    "Box2D": ("gymnasium.envs.box2d", "Box2D", "gymnasium[box2d]", "LunarLander-v3"),
    "MuJoCo": ("gymnasium.envs.mujoco", "mujoco", "gymnasium[mujoco]", "HalfCheetah-v5"),
    "JAX": ("gymnasium.envs.phys2d gymnasium.envs.tabular", "flax", "gymnasium[jax]", "tabular/Blackjack-v0"),
}


def families() -> list[Family]:
    """All families, in the order in which they are shown."""
    known = origins()
    found = [Family("compiled twins", COMPILED, "CartPole-v1", "", lambda: list(twins()), True)]
    found.append(Family("compiled, our own", COMPILED, "DeepSea", "", lambda: list(own()), True))
    for name, (packages, module, extra, example) in OF_GYMNASIUM.items():
        ids = [id for id, origin in known.items() if origin.startswith(tuple(packages.split()))]
        found.append(Family(f"Gymnasium: {name}", HOST, example, _missing(extra, module), _given(_prefixed(ids)), True))
    found += [_of_suite(prefix, suite) for prefix, suite in SUITES.items()]
    pip = _missing("thorndike[envpool]", "envpool")
    found.append(Family("EnvPool", HOST, "envpool:Pong-v5", pip, _of_envpool, False, "envpool:"))
    pip = pip and _missing("thorndike[atari]", "ale_py", "cv2")
    found.append(Family("Atari", HOST, "atari:Breakout", pip, _of_atari, False, "atari:"))
    found += [_of_package(package) for package in advice.PACKAGES if package.module]
    others = [id for id, origin in known.items() if not origin.startswith("gymnasium.") and not advice.package_of(id)]
    if others:
        found.append(Family("registered by others", HOST, sorted(others)[0], "", _given(sorted(others)), True))
    return found


def _of_suite(prefix: str, suite: Suite) -> Family:
    def ids() -> list[str]:
        return [f"{prefix}:{id}" for id in ids_of_suite(prefix)]

    pip = "" if suite.installed else suite.pip
    return Family(f"{prefix}: {suite.brings}", COMPILED, f"{prefix}:{suite.example}", pip, ids, False, f"{prefix}:")


def _of_package(package: advice.Package) -> Family:
    def ids() -> list[str]:
        return list(map(advice.written, ids_of_package(package)))

    pip = _missing(package.pip, package.module, package.also)
    return Family(
        package.name, HOST, advice.written(package.example), pip, ids, False, f"{package.module}|{package.ids}"
    )


def _of_envpool() -> list[str]:
    from thorndike.environments import envpool

    return [f"envpool:{id}" for id in envpool.known_ids()]


def _of_atari() -> list[str]:
    from thorndike.environments import atari

    return [f"atari:{game}" for game in atari.games()]


def _prefixed(ids: list[str]) -> list[str]:
    """Ids as they are written to be Gymnasium's own, where there is a compiled twin."""
    return [f"gymnasium:{id}" if id in twins() else id for id in sorted(ids)]


def _given(ids: list[str]) -> Callable[[], list[str]]:
    return lambda: ids


def _missing(pip: str, *modules: str) -> str:
    """The line that installs what some modules are of; "" where all are there."""
    return "" if all(map(_installed, modules)) else f'pip install "{pip}"'


def _installed(module: str) -> bool:
    """Whether there is such a module, which is not imported; "" is always there."""
    if not module:
        return True
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False
