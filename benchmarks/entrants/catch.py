"""A light game on images for Gymnasium, so that acting costs little and learning is compared: `catch:Catch-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SIDE, FRAMES = 84, 4
FALL, PUSH, HALF = 4, 6, 7  # pixels a step that the ball falls and the paddle moves; half the paddle's width


class Catch(gymnasium.Env):
    """A ball falls from a random column; a paddle at the bottom goes left, stays or goes right. Caught is 1, missed -1.

    Observations are the last four frames, uint8 [84, 84, 4].
    """

    observation_space = spaces.Box(0, 255, (SIDE, SIDE, FRAMES), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._ball = [0, int(self.np_random.integers(HALF, SIDE - HALF))]
        self._paddle = SIDE // 2
        self._frames = np.repeat(self._frame()[..., None], FRAMES, axis=-1)
        return self._frames, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._paddle = int(np.clip(self._paddle + PUSH * (int(action) - 1), HALF, SIDE - HALF))
        self._ball[0] += FALL
        self._frames = np.concatenate([self._frames[..., 1:], self._frame()[..., None]], axis=-1)
        landed = self._ball[0] >= SIDE - FALL
        caught = abs(self._ball[1] - self._paddle) <= HALF
        return self._frames, (1.0 if caught else -1.0) if landed else 0.0, landed, False, {}

    def _frame(self) -> np.ndarray:
        frame = np.zeros((SIDE, SIDE), np.uint8)
        row, column = self._ball
        frame[row : row + FALL, column - 2 : column + 2] = 255
        frame[-FALL:, self._paddle - HALF : self._paddle + HALF] = 128
        return frame


gymnasium.register("Catch-v0", Catch)
