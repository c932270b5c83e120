"""MuJoCo Playground, its dm_control suite in MJX: Brax's calls, the time limit being in the configuration."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from gymnasium import spaces
from mujoco_playground import dm_control_suite, locomotion, manipulation

from thorndike.environments.suites.base import PLAIN, Made, SuiteEnvironment, as_defaults, check_arguments, space_of

FIXED = {"action_repeat", "vision", "vision_config"}


class Playground(SuiteEnvironment):
    """`arguments` are those of the configuration that are plain values (`episode_length`, `ctrl_dt`)."""

    suite = "playground"
    time_limit = "episode_length"

    @classmethod
    def ids(cls) -> tuple[str, ...]:
        return dm_control_suite.ALL_ENVS

    @classmethod
    def refused(cls, id: str) -> str:
        fetching = id in (*locomotion.ALL_ENVS, *manipulation.ALL_ENVS)
        return "downloads its robots with git when it is made, which thorndike does not do" if fetching else ""

    @classmethod
    def build(cls, id: str, arguments: dict[str, Any]) -> Made:
        name, configuration = f"{cls.suite}:{id}", dm_control_suite.get_default_config(id)
        possible = {k: v for k, v in configuration.items() if isinstance(v, PLAIN) and k not in FIXED}
        check_arguments(name, arguments, possible)
        if "impl" in possible:
            configuration.impl = "jax"  # its default, Warp, needs CUDA
        configuration.update(as_defaults(name, arguments, possible))
        environment = dm_control_suite.load(id, config=configuration)
        first = jax.eval_shape(environment.reset, jax.random.PRNGKey(0))
        actions = spaces.Box(-1, 1, (environment.action_size,), np.float32)
        return Made(environment, space_of(first.obs), actions, int(configuration.episode_length))

    def begin(self, key: jax.Array) -> tuple:
        state = self.made.environment.reset(key)
        return state, state.obs

    def move(self, state: Any, action: Any, key: jax.Array) -> tuple:
        state = self.made.environment.step(state, action)
        return state, state.obs, state.reward, state.done > 0
