"""What is done to an Atari game before an agent sees it, whichever library plays it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from thorndike.errors import SettingError, shown


@dataclass(frozen=True)
class Preprocessing:
    """All that is done to a game before an agent sees it; these are the arguments of "atari:GAME".

    The defaults are those of Mnih et al. (2015), "Human-level control through deep reinforcement learning", but that an
    episode is a whole game; Machado et al. (2018), "Revisiting the Arcade Learning Environment", ask for
    `repeat_action_probability=0.25` and `full_action_space=True`. Rewards are the game's: `clip_rewards` is a setting
    of algorithms, which every report of returns does without.
    """

    noop_max: int = 30  # a game begins with at least one and at most so many steps in which nothing is done
    fire_reset: bool = True  # and, in games that wait for it, with the fire button
    frame_skip: int = 4  # frames that an action is repeated for; the maximum of the last two is seen
    screen_size: int = 84  # of the square that a frame is shrunk to
    grayscale: bool = True
    stack: int = 4  # frames that are seen together, the newest last: observations are [stack, height, width]
    full_action_space: bool = False  # all 18 actions, also those that a game makes no use of
    repeat_action_probability: float = 0.0  # in each frame the last action again, whatever is chosen
    max_frames: int = 108_000  # of a game, half an hour: then it is cut short
    life_loss: bool = False  # in training the loss of a life ends an episode; `game_return` is what games earn

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            fits = type(value) is kind or (kind is float and type(value) is int)
            if not fits or (kind is int and value < 1) or (kind is float and not 0 <= value <= 1):
                expected = {bool: "True or False", int: "a whole number, at least 1", float: "in [0, 1]"}[kind]
                raise SettingError(f"atari: {field.name} must be {expected}, got {shown(value)}")

    @property
    def max_steps(self) -> int:
        return max(1, self.max_frames // self.frame_skip)
