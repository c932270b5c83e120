"""Craftax: `is_game_over` merges the time limit into the end, so it is stepped with a limit that is never reached."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from craftax.craftax_env import make_craftax_env_from_name
from gymnasium import spaces

from thorndike.environments.suites.base import NEVER, Made, SuiteEnvironment, as_defaults, box, check_arguments

IDS = ("Craftax-Symbolic-v1", "Craftax-Classic-Symbolic-v1", "Craftax-Pixels-v1", "Craftax-Classic-Pixels-v1")


class Craftax(SuiteEnvironment):
    """`arguments` are the parameters' (`max_timesteps`). Worlds take thrice as long to draw as a step."""

    suite = "craftax"
    time_limit = "max_timesteps"
    reset_block = 4

    @classmethod
    def ids(cls) -> tuple[str, ...]:
        return IDS

    @classmethod
    def build(cls, id: str, arguments: dict[str, Any]) -> Made:
        environment = make_craftax_env_from_name(id, auto_reset=False)
        parameters, name = environment.default_params, f"{cls.suite}:{id}"
        possible = {field.name: getattr(parameters, field.name) for field in dataclasses.fields(parameters)}
        check_arguments(name, arguments, possible)
        parameters = dataclasses.replace(parameters, **as_defaults(name, arguments, possible))
        endless = dataclasses.replace(parameters, max_timesteps=NEVER)  # the state's count of steps goes by no other
        space = environment.observation_space(parameters)
        seen = jax.eval_shape(environment.reset_env, jax.random.PRNGKey(0), endless)[0]
        actions = spaces.Discrete(int(environment.action_space(parameters).n))
        return Made(environment, box(space.low, space.high, seen), actions, parameters.max_timesteps, endless)

    def begin(self, key: jax.Array) -> tuple:
        observation, state = self.made.environment.reset_env(key, self.made.more)
        return state, observation

    def move(self, state: Any, action: Any, key: jax.Array) -> tuple:
        stepped = self.made.environment.step_env(key, state, action, self.made.more)
        observation, state, reward, terminated, _ = stepped
        return state, observation, reward, terminated
