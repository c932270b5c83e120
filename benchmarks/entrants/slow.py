"""CartPole with a simulator that takes its time: every step sleeps, as one does that waits for another process."""

from __future__ import annotations

import time

import gymnasium


class Slow(gymnasium.Wrapper):
    def __init__(self, seconds: float) -> None:
        super().__init__(gymnasium.make("CartPole-v1", disable_env_checker=True))
        self.seconds = seconds

    def step(self, action):
        time.sleep(self.seconds)
        return self.env.step(action)
