"""gymnax 1.x: `step_env` gives the task's own end alone, `reset_env` and `step_env` reset nothing by themselves."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnax
import gymnax.environments.spaces
import jax
from gymnasium import spaces
from gymnax.environments.environment import Environment

from thorndike.environments.suites.base import Made, SuiteEnvironment, arguments_of, as_defaults, box, check_arguments
from thorndike.errors import UnsuitableError

if not hasattr(Environment, "is_truncated"):
    raise ImportError(
        "its calls are those before 1.0, which call a time limit an end; popgym-arcade's stable-gymnax writes such "
        'over gymnax: pip uninstall stable-gymnax, pip install --force-reinstall --no-deps "gymnax>=1"'
    )

FETCHING = {"MNISTBandit-bsuite"}


class Gymnax(SuiteEnvironment):
    """`arguments` are the constructor's (`size`) and the parameters' (`max_steps_in_episode`)."""

    suite = "gymnax"
    time_limit = "max_steps_in_episode"

    @classmethod
    def ids(cls) -> list[str]:
        return [id for id in gymnax.registered_envs if id not in FETCHING]

    @classmethod
    def refused(cls, id: str) -> str:
        return "downloads its images when it is made, which thorndike does not do" if id in FETCHING else ""

    @classmethod
    def build(cls, id: str, arguments: dict[str, Any]) -> Made:
        name, (first, default) = f"{cls.suite}:{id}", gymnax.make(id)
        of_parameters = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
        constructor = type(first).__init__
        of_class = {} if constructor is object.__init__ else arguments_of(type(first))
        check_arguments(name, arguments, {**of_class, **of_parameters})
        arguments = as_defaults(name, arguments, {**of_class, **of_parameters})
        environment, parameters = gymnax.make(id, **{k: v for k, v in arguments.items() if k not in of_parameters})
        parameters = parameters.replace(**{k: v for k, v in arguments.items() if k in of_parameters})
        seen = jax.eval_shape(environment.reset_env, jax.random.PRNGKey(0), parameters)[0]
        observations = _space(environment.observation_space(parameters), seen)
        actions = _space(environment.action_space(parameters))
        return Made(environment, observations, actions, int(parameters.max_steps_in_episode), parameters)

    def begin(self, key: jax.Array) -> tuple:
        observation, state = self.made.environment.reset_env(key, self.made.more)
        return state, observation

    def move(self, state: Any, action: Any, key: jax.Array) -> tuple:
        stepped = self.made.environment.step_env(key, state, action, self.made.more)
        observation, state, reward, terminated, _ = stepped
        return state, observation, reward, terminated


def _space(space: Any, seen: Any = None) -> spaces.Space:
    """gymnax's space as Gymnasium's, with the shape and dtype of what is `seen`: some spaces say others."""
    if isinstance(space, gymnax.environments.spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, gymnax.environments.spaces.Box):
        return box(space.low, space.high, space if seen is None else seen)
    if isinstance(space, gymnax.environments.spaces.Dict):
        return spaces.Dict({name: _space(part, seen and seen[name]) for name, part in space.spaces.items()})
    raise UnsuitableError(f"spaces of gymnax's kind {type(space).__name__} are not supported")
