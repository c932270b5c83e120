"""The algorithms, one file each, reading like its paper."""

from __future__ import annotations

import importlib
from typing import Any

from thorndike.errors import UnknownNameError, nearest

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
