"""NAVIX: without its automatic reset a step's type is 2 at the task's own end, 1 at the limit. Keys are in the state.

Symbols are names of things, colours and states as uint8: choices, not an image.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import navix
import numpy as np
from gymnasium import spaces

from thorndike.environments.suites.base import Made, SuiteEnvironment, box, check_arguments
from thorndike.errors import SettingError, nearest

OBSERVATIONS = (
    "symbolic",
    "symbolic_first_person",
    "rgb",
    "rgb_first_person",
    "categorical",
    "categorical_first_person",
)
POSSIBLE = ("max_steps", "observation_fn")


class Navix(SuiteEnvironment):
    """`arguments` are `max_steps`, on which some rewards depend, and `observation_fn`, a name in navix.observations."""

    suite = "navix"
    time_limit = "max_steps"

    @classmethod
    def ids(cls) -> list[str]:
        return sorted(navix.registry())

    @classmethod
    def build(cls, id: str, arguments: dict[str, Any]) -> Made:
        name = f"{cls.suite}:{id}"
        check_arguments(name, arguments, POSSIBLE)
        if "observation_fn" in arguments:
            chosen = arguments["observation_fn"]
            if chosen not in OBSERVATIONS:
                raise SettingError(f"{name}: there is no observation_fn {chosen!r}.{nearest(chosen, OBSERVATIONS)}")
            arguments["observation_fn"] = getattr(navix.observations, chosen)
        environment = navix.make(id, disable_autoreset=True, **arguments)
        seen = environment.observation_space
        names = isinstance(seen, navix.spaces.Discrete) and int(seen.maximum) < 255
        count = int(seen.maximum) + 1 if names else 0
        observations = (
            spaces.MultiDiscrete(np.full(seen.shape, count)) if names else box(seen.minimum, seen.maximum, seen)
        )
        actions = spaces.Discrete(int(environment.action_space.maximum) + 1)
        return Made(environment, observations, actions, environment.max_steps, names)

    def begin(self, key: jax.Array) -> tuple:
        step = self.made.environment.reset(key)
        return step, self._seen(step)

    def move(self, state: Any, action: Any, key: jax.Array) -> tuple:
        step = self.made.environment.step(state, action)
        return step, self._seen(step), step.reward, step.is_termination()

    def _seen(self, step: Any) -> jax.Array:
        return step.observation.astype(jnp.int32) if self.made.more else step.observation
