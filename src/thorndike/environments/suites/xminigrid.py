"""XLand-MiniGrid, its MiniGrid rooms: `step` never resets, discount 0 is the task's own end. Keys are in the state.

What is seen are names of tiles and colours as uint8: choices, not an image.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xminigrid
from gymnasium import spaces
from xminigrid.core.constants import NUM_COLORS, NUM_TILES

from thorndike.environments.suites.base import Made, SuiteEnvironment, as_defaults, check_arguments

NO_NUMBERS = {"render_mode", "ruleset", "grid_type"}  # parameters that are objects, or do nothing here


class XMiniGrid(SuiteEnvironment):
    """`arguments` are the parameters' (`height`, `view_size`, `max_steps`, on which the reward depends)."""

    suite = "xminigrid"
    time_limit = "max_steps"

    @classmethod
    def ids(cls) -> list[str]:
        return [id for id in xminigrid.registered_environments() if id.startswith("MiniGrid-")]

    @classmethod
    def refused(cls, id: str) -> str:
        if id not in set(xminigrid.registered_environments()) - set(cls.ids()):
            return ""
        return "has no task of its own: its rules come from a download, which thorndike does not do"

    @classmethod
    def build(cls, id: str, arguments: dict[str, Any]) -> Made:
        name, (environment, parameters) = f"{cls.suite}:{id}", xminigrid.make(id)
        names = {field.name for field in dataclasses.fields(parameters)} - NO_NUMBERS
        possible = {name: getattr(parameters, name) for name in names}
        check_arguments(name, arguments, possible)
        parameters = parameters.replace(**as_defaults(name, arguments, possible))
        seen = jax.eval_shape(environment.reset, parameters, jax.random.PRNGKey(0)).observation
        tiles = spaces.MultiDiscrete(np.broadcast_to([NUM_TILES, NUM_COLORS], seen.shape))
        actions = spaces.Discrete(int(environment.num_actions(parameters)))
        return Made(environment, tiles, actions, parameters.max_steps, parameters)

    def begin(self, key: jax.Array) -> tuple:
        step = self.made.environment.reset(self.made.more, key)
        return step, step.observation.astype(jnp.int32)

    def move(self, state: Any, action: Any, key: jax.Array) -> tuple:
        step = self.made.environment.step(self.made.more, state, action)
        return step, step.observation.astype(jnp.int32), step.reward, step.discount == 0
