"""ale-py's Atari games, prepared by Gymnasium's wrappers."""

from __future__ import annotations

from typing import Any

import ale_py
import gymnasium
from gymnasium import wrappers

from thorndike.environments.preprocessing import Preprocessing

SPARE = 1_000  # frames that a game may have beyond its limit, for those before the agent's first


def games() -> list[str]:
    """The names of all games."""
    gymnasium.register_envs(ale_py)
    return sorted(id.split("/")[1].removesuffix("-v5") for id in gymnasium.registry if id.startswith("ALE/"))


def wrapped(game: str, given: Preprocessing) -> gymnasium.Env:
    """One copy of a game, wrapped from the inside out."""
    gymnasium.register_envs(ale_py)
    environment: Any = gymnasium.make(
        f"ALE/{game}-v5",
        disable_env_checker=True,
        frameskip=1,
        full_action_space=given.full_action_space,
        repeat_action_probability=float(given.repeat_action_probability),
        max_num_frames_per_episode=given.max_frames + SPARE,
    )
    environment = wrappers.AtariPreprocessing(
        environment,
        noop_max=given.noop_max,
        frame_skip=given.frame_skip,
        screen_size=given.screen_size,
        grayscale_obs=given.grayscale,
    )
    if given.fire_reset and environment.unwrapped.get_action_meanings()[1:2] == ["FIRE"]:
        environment = FireReset(environment)
    environment = wrappers.FrameStackObservation(environment, given.stack)
    return wrappers.TimeLimit(environment, given.max_steps)


class FireReset(gymnasium.Wrapper):
    """Begins a game with the fire button, without which some stand still."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.env.reset(seed=seed, options=options)
        observation, _, _, _, info = self.env.step(1)
        return observation, info
