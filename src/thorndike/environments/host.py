"""What an environment on the host owes, beside what every environment does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard

import jax
import numpy as np

from thorndike.core import Environment, Step

PyTree = Any


class Loss(NamedTuple):
    """Copies that began new episodes instead of taking a step, as their workers had failed."""

    step: int  # of the unroll, counted from 0
    copies: np.ndarray  # [N]
    under_way: np.ndarray  # [N] those of them whose episodes had a step behind them


class HostEnvironment(Environment, Protocol):
    """An environment on the host, which can come back to where its running episodes were."""

    lost: Sequence[Loss]
    """What was lost in the last unroll."""

    @property
    def restarted(self) -> np.ndarray:
        """The copies [N] that the last `restore` or `cut` has begun anew."""

    @property
    def under_way(self) -> np.ndarray:
        """The copies [N] whose running episodes have a step behind them."""

    @property
    def notes(self) -> Sequence[str]:
        """Why `restore` could not bring everything back as it was, in words."""

    def reset(self, key: jax.Array, episodes: np.ndarray | None = None) -> tuple[PyTree, PyTree]:
        """As above. With `episodes` [N] each copy rests after so many: it is neither stepped nor reset."""

    def step(self, env_state: PyTree, action: PyTree, key: jax.Array | None = None) -> tuple[PyTree, Step]:
        """As above, without a use for the key."""

    def save(self) -> dict[str, np.ndarray]:
        """What `restore` needs to be here again."""

    def restore(self, arrays: Mapping[str, np.ndarray]) -> PyTree:
        """Back to where `save` was called: the observation [N, ...]."""

    def cut(self, copies: np.ndarray) -> PyTree:
        """End the running episodes of some copies [N] here; what to go on with: the observation [N, ...]."""

    def record_info(self, names: Sequence[str]) -> None:
        """Note from now on what `info` says under these names at the ends of episodes."""

    def close_infos(self) -> dict[str, float]:
        """The means of what was noted since this was last asked, or saved before and restored."""


def on_host(environment: Environment) -> TypeGuard[HostEnvironment]:
    """Whether an environment is on the host, and so a HostEnvironment."""
    return not environment.compiled
