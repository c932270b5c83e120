"""Action masks that an environment gives in `info`, as Gymnasium's Taxi does, put where they are honoured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from thorndike.errors import UnsuitableError
from thorndike.masks import MASK, SEEN, choices_of
from thorndike.spaces import as_choices


class MaskFromInfo:
    """Puts `info["action_mask"]` beside an observation, in a Dict whose space is `observation_space`.

    What was no Dict becomes its part "observation". For several choices side by side the mask may be a tuple, as
    Gymnasium's `sample` takes it, or one array.
    """

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        """UnsuitableError where actions are no choices, or observations hold a mask already."""
        sizes = choices_of(as_choices(action_space))
        if sizes is None:
            raise UnsuitableError(f"mask_from_info needs Discrete or MultiDiscrete actions, not {action_space}")
        self._alone = not isinstance(observation_space, spaces.Dict)
        beside = {SEEN: observation_space} if self._alone else dict(observation_space.spaces)
        if MASK in beside:
            raise UnsuitableError(f"mask_from_info is not needed: observations hold an {MASK} already")
        self.observation_space = spaces.Dict({**beside, MASK: spaces.MultiBinary(sum(sizes))})

    def __call__(self, observation: Any, info: Any, done: bool = False) -> dict[str, Any]:
        """An observation with its mask, which may be missing once the episode is done; else ValueError."""
        mask = info.get(MASK) if isinstance(info, Mapping) else None
        if mask is None and not done:
            raise ValueError(f"info has no {MASK!r}, which mask_from_info asks for")
        if mask is None:
            mask = np.zeros(self.observation_space[MASK].shape, np.int8)
        mask = np.concatenate(mask) if isinstance(mask, tuple) else mask
        return {**({SEEN: observation} if self._alone else observation), MASK: mask}
