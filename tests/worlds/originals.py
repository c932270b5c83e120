"""What the suites themselves do: the original `reset` and `step` of each, with whatever the suite says of an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thorndike.environments import suites


class Answer(NamedTuple):
    """What an original step has given of one copy."""

    state: Any
    observation: Any
    reward: jax.Array
    done: jax.Array  # for whichever reason
    truncated: jax.Array | None  # None where the suite does not say


class Original(NamedTuple):
    """A suite's own calls, for keys that are plain numbers. None of them resets by itself."""

    reset: Callable[[Any], tuple[Any, Any]]  # (state, observation)
    step: Callable[[Any, Any, Any], Answer]


class Case(NamedTuple):
    """An environment, with a time limit so short that episodes end for both reasons."""

    name: str
    arguments: dict[str, Any]
    ends: tuple[str, ...] = ("terminated", "truncated")  # that random actions come to
    legal: bool = True  # whether those are legal
    steps: int = 150
    copies: int = 8
    within: float = 0.0  # what numbers may differ by: two programs that are compiled apart round floats apart

    @property
    def suite(self) -> str:
        return self.name.partition(":")[0]

    @property
    def installed(self) -> bool:
        return suites.SUITES[self.suite].installed

    def __str__(self) -> str:
        return self.name


ZOMBIES = {"spawn_zombie_base_chance": 1.0, "spawn_zombie_night_chance": 1.0}  # else nobody dies in short episodes
CASES = [
    Case("gymnax:CartPole-v1", {"max_steps_in_episode": 20}, within=1e-6),
    Case("gymnax:Breakout-MinAtar", {"max_steps_in_episode": 12}),
    Case("gymnax:UmbrellaChain-bsuite", {"max_steps_in_episode": 10, "n_distractor": 3}, ("terminated",)),  # uses keys
    Case("gymnax:Pendulum-v1", {"max_steps_in_episode": 20}, ("truncated",), within=1e-5),
    Case("pgx:minatar-breakout", {"max_steps": 12}),
    Case("pgx:2048", {"max_steps": 130}, steps=700),
    Case("jumanji:Snake-v1", {"time_limit": 15}, legal=False),
    Case("jumanji:Tetris-v0", {"time_limit": 8, "num_rows": 8, "num_cols": 6}),  # one mask for both choices together
    Case("jumanji:Cleaner-v0", {"time_limit": 10}, ("truncated",)),  # a mask for each of three choices
    Case("jumanji:Maze-v0", {"time_limit": 20}, steps=600),
    Case("xminigrid:MiniGrid-EmptyRandom-5x5", {"max_steps": 20}, steps=250),
    Case("craftax:Craftax-Classic-Symbolic-v1", {"max_timesteps": 40, **ZOMBIES}, within=6e-8, steps=250),
    Case("brax:inverted_pendulum", {"episode_length": 8}),
    Case("playground:CartpoleBalance", {"episode_length": 40}, ("truncated",), within=1e-5),
    Case("navix:Navix-Empty-Random-5x5-v0", {"max_steps": 20}, steps=250),
]


def original(case: Case, made: Any) -> Original:
    """The suite's own calls for what it has `made` for a case."""
    return globals()[f"_{case.suite}"](made.environment, made.more, made.max_steps)


def _gymnax(environment, parameters, limit):
    def step(state, action, key):
        observation, state, reward, terminated, _ = environment.step_env(key, state, action, parameters)
        truncated = environment.is_truncated(state, parameters)
        return Answer(state, observation, reward, terminated | truncated, truncated)

    return Original(lambda key: environment.reset_env(key, parameters)[::-1], step)


def _craftax(environment, endless, limit):
    parameters = endless.replace(max_timesteps=limit)

    def step(state, action, key):
        observation, state, reward, done, _ = environment.step(key, state, action, parameters)
        return Answer(state, observation, reward, done, None)

    return Original(lambda key: environment.reset(key, parameters)[::-1], step)


def _pgx(environment, masked, limit):
    def seen(state):
        if not masked:
            return state.observation
        return {"observation": state.observation, "action_mask": state.legal_action_mask}

    def step(state, action, key):
        state = environment.step(state, action, key)
        return Answer(state, seen(state), state.rewards[0], state.terminated, jnp.bool_(False))

    def reset(key):
        state = environment.init(key)
        return state, seen(state)

    return Original(reset, step)


def _jumanji(environment, parts, limit):
    def seen(observation):
        plain = observation._asdict()
        if "step_count" in plain:
            plain["step_count"] = plain["step_count"] / limit
        plain = {name: part._asdict() if hasattr(part, "_asdict") else part for name, part in plain.items()}
        return plain | {"action_mask": plain["action_mask"].reshape(-1)}

    def reset(key):
        state, step = environment.reset(key)
        return state, seen(step.observation)

    def step(state, action, key):
        if parts.joint:
            action = jnp.stack(jnp.unravel_index(action, parts.joint))
        state, step = environment.step(state, action)
        return Answer(state, seen(step.observation), step.reward, step.last(), None)

    return Original(reset, step)


def _xminigrid(environment, parameters, limit):
    def reset(key):
        step = environment.reset(parameters, key)
        return step, step.observation

    def step(state, action, key):
        step = environment.step(parameters, state, action)
        return Answer(step, step.observation, step.reward, step.last(), step.last() & (step.discount != 0))

    return Original(reset, step)


def _navix(environment, names, limit):
    def reset(key):
        step = environment.reset(key)
        return step, step.observation

    def step(state, action, key):
        step = environment.step(state, action)
        return Answer(step, step.observation, step.reward, step.is_done(), step.is_truncation())

    return Original(reset, step)


def _brax(environment, more, limit):
    from brax.envs.wrappers.training import EpisodeWrapper

    wrapped = EpisodeWrapper(environment, limit, 1)

    def reset(key):
        state = wrapped.reset(key)
        return state, state.obs

    def step(state, action, key):
        state = wrapped.step(state, action)
        return Answer(state, state.obs, state.reward, state.done > 0, state.info["truncation"] > 0)

    return Original(reset, step)


_playground = _brax
