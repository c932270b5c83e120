"""Brax: what `get_environment` gives neither resets nor ends by time; Brax's wrappers do that, and here we do."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from brax import envs
from gymnasium import spaces

from thorndike.environments.suites.base import (
    Made,
    SuiteEnvironment,
    arguments_of,
    as_defaults,
    check_arguments,
    space_of,
)

LIMIT = 1000  # as Brax's own training has it
NO_TASK = {"fast"}  # what Brax tests itself with


class Brax(SuiteEnvironment):
    """`arguments` are the constructor's (`backend`, `healthy_reward`), and `episode_length`."""

    suite = "brax"
    time_limit = "episode_length"

    @classmethod
    def ids(cls) -> list[str]:
        return sorted(set(envs._envs) - NO_TASK)

    @classmethod
    def build(cls, id: str, arguments: dict[str, Any]) -> Made:
        name, possible = f"{cls.suite}:{id}", arguments_of(envs._envs[id]) | {"episode_length": LIMIT}
        check_arguments(name, arguments, possible)
        arguments = as_defaults(name, {"episode_length": LIMIT, **arguments}, possible)
        limit = arguments.pop("episode_length")
        environment = envs.get_environment(id, **arguments)
        first = jax.eval_shape(environment.reset, jax.random.PRNGKey(0))
        actions = spaces.Box(-1, 1, (environment.action_size,), np.float32)
        return Made(environment, space_of(first.obs), actions, limit)

    def begin(self, key: jax.Array) -> tuple:
        state = self.made.environment.reset(key)
        return state, state.obs

    def move(self, state: Any, action: Any, key: jax.Array) -> tuple:
        state = self.made.environment.step(state, action)
        return state, state.obs, state.reward, state.done > 0
