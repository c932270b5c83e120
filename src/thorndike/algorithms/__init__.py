"""The algorithms, one file each, reading like its paper."""

from __future__ import annotations

import importlib
from typing import Any

from thorndike.errors import UnknownNameError, nearest

ALGORITHMS = {"dqn": "DQN", "ppo": "PPO", "reinforce": "REINFORCE"}  # the file, and the class in it


def get(name: str) -> type[Any]:
    """The algorithm class of a name, in any case."""
    file = str(name).lower()
    if file not in ALGORITHMS:
        raise UnknownNameError(
            f"unknown algorithm '{name}'.{nearest(file, ALGORITHMS)} There are: {', '.join(ALGORITHMS)}"
        )
    return getattr(importlib.import_module(f"thorndike.algorithms.{file}"), ALGORITHMS[file])
