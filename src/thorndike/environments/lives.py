"""Atari games of which the loss of a life ends an episode, while the game goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thorndike.environments.copies import Answer, Copies

GAME_RETURN = "game_return"  # what a whole game has earned, where episodes are lives


class Games:
    """The running games of N copies whose lives are episodes: how many lives are left, and what was earned."""

    def __init__(self, n: int) -> None:
        self.lost = np.zeros(n, bool)  # the copies that lost a life in the step behind them
        self._lives, self._earned = np.zeros(n, int), np.zeros(n)

    def begin(self, copies: Any) -> None:
        """New games in some copies; how many lives they have is seen at their first step."""
        self._lives[copies] = self._earned[copies] = 0

    def follow(self, copies: Any, lives: Any, reward: Any) -> Any:
        """One step of some copies, after which so many lives are left: what their games have earned so far."""
        self.lost[copies] = lives < self._lives[copies]
        self._lives[copies] = lives
        self._earned[copies] += reward
        return self._earned[copies]


class CopiesOfLives(Copies):
    """Copies of a game of ale-py: a lost life is a terminated step, and nothing begins anew."""

    def __init__(self, environments: Sequence[Any], mask_from_info: bool = False, first: int = 0) -> None:
        super().__init__(environments, mask_from_info, first)
        self._games = Games(len(self.environments))

    def begin_one(self, i: int, seed: int) -> Any:
        self._games.begin(i)
        return super().begin_one(i, seed)

    def step(self, playing: Sequence[int], actions: Sequence[Any], next_seeds: Mapping[int, int]) -> Answer:
        self._games.lost[:] = False
        answer = super().step(playing, actions, next_seeds)
        lost = self._games.lost[list(playing)].tolist()
        return answer._replace(terminated=[a or b for a, b in zip(answer.terminated, lost, strict=True)])

    def step_one(self, i: int, action: Any) -> tuple[Any, float, bool, bool, Any]:
        observation, reward, terminated, truncated, info = super().step_one(i, action)
        earned = self._games.follow(i, info["lives"], reward)
        return observation, reward, terminated, truncated, {**info, GAME_RETURN: earned}
