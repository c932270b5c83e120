"""The algorithms, one file each, reading like its paper."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from thorndike import core, hyperparameters
from thorndike.errors import SettingError, UnknownNameError, nearest, shown

ALGORITHMS = {"dqn": "DQN", "ppo": "PPO", "reinforce": "REINFORCE", "sac": "SAC", "td3": "TD3", "ddpg": "DDPG"}
FILES = {"ddpg": "td3"}  # where it is another than the name


def get(name: str) -> type[Any]:
    """The algorithm class of a name, in any case."""
    known = str(name).lower()
    if known not in ALGORITHMS:
        raise UnknownNameError(
            f"unknown algorithm '{name}'.{nearest(known, ALGORITHMS)} There are: {', '.join(ALGORITHMS)}"
        )
    module = importlib.import_module(f"thorndike.algorithms.{FILES.get(known, known)}")
    return getattr(module, ALGORITHMS[known])


def made(algorithm: Any) -> Any:
    """An algorithm from what a user gives as one: an object as it is, a name or a class with its defaults."""
    algorithm = get(algorithm) if isinstance(algorithm, str) else algorithm
    algorithm = algorithm() if isinstance(algorithm, type) else algorithm
    if not (hasattr(algorithm, "act") and hasattr(algorithm, "update")):
        raise SettingError(f"an algorithm is a name or an object such as td.DQN(), got {shown(algorithm)}")
    name, parts = type(algorithm).__name__, [*core.Algorithm.__annotations__, *vars(core.Algorithm)]
    for part in parts:
        if not part.startswith("_") and part != "greedy" and not hasattr(algorithm, part):  # only exports need that one
            raise SettingError(f"{name} has no '{part}', which an algorithm has: see thorndike.core.Algorithm")
    if not dataclasses.is_dataclass(algorithm):
        raise SettingError(f"{name} is no dataclass: write @hyperparameters (of thorndike.hyperparameters) above it")
    hyperparameters.check_registered(algorithm)
    return algorithm
