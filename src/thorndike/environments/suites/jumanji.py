"""Jumanji: an environment as it is made neither resets nor hides its end, but calls its time limit one, as most do.

So one without a limit is stepped beside it and asked for the end; XLA computes once what the two have in common.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jumanji
import numpy as np
from gymnasium import spaces
from jumanji import specs

from thorndike.environments.suites.base import (
    NEVER,
    PLAIN,
    Made,
    SuiteEnvironment,
    arguments_of,
    as_defaults,
    box,
    check_arguments,
    space_of,
)
from thorndike.errors import UnsuitableError
from thorndike.masks import MASK

COUNTER = "step_count"  # up to 4000: neither a one-hot of 4000 nor a number that drowns all others
# Whole numbers in these parts are names (of colours, digits, places), not amounts.
NAMES = {"board", "blocks", "colors", "cube", "current_node_index", "grid", "machines_job_ids", "node_types",
         "ops_machine_ids", "positions", "puzzle", "trajectory"}  # fmt: skip
SEVERAL = "gives a reward to each of several agents, only one is supported"
REFUSED = {
    "Sokoban": "downloads its levels when it is made, which thorndike does not do",
    "Connector": SEVERAL, "LevelBasedForaging": SEVERAL, "SearchAndRescue": SEVERAL,
    "MultiCVRP": "has an action mask that does not fit its actions",
}  # fmt: skip


class Parts(NamedTuple):
    """What `move` needs beside the environment."""

    endless: Any  # the environment without a time limit
    joint: tuple[int, ...]  # sizes of the choices that are made as one; () where they are made side by side
    counted: float  # the most that COUNTER comes to


class Jumanji(SuiteEnvironment):
    """`arguments` are the constructor's that are plain values (`time_limit`, `num_rows`). Most have action masks."""

    suite = "jumanji"
    time_limit = "time_limit"

    @classmethod
    def ids(cls) -> list[str]:
        return [id for id in jumanji.registered_environments() if not cls.refused(id)]

    @classmethod
    def refused(cls, id: str) -> str:
        return REFUSED.get(id.rpartition("-v")[0], "") if id in jumanji.registered_environments() else ""

    @classmethod
    def build(cls, id: str, arguments: dict[str, Any]) -> Made:
        name, environment = f"{cls.suite}:{id}", jumanji.make(id)
        possible = {k: v for k, v in arguments_of(type(environment)).items() if isinstance(v, PLAIN)}
        limit = getattr(environment, "time_limit", None)
        if limit is not None:
            possible["time_limit"] = int(limit)
        check_arguments(name, arguments, possible)
        arguments = as_defaults(name, arguments, possible)
        environment = jumanji.make(id, **arguments)
        endless = environment if limit is None else jumanji.make(id, **{**arguments, "time_limit": NEVER})
        limit = None if limit is None else int(environment.time_limit)
        sizes = _sizes(environment.action_spec)
        seen = spaces.Dict({part: _space(spec, part) for part, spec in _parts(environment.observation_spec).items()})
        counted = 1.0
        if COUNTER in seen.spaces:
            counted = float(limit or np.max(environment.observation_spec.step_count.maximum))
            seen = spaces.Dict({**seen.spaces, COUNTER: spaces.Box(0, 1, (), np.float32)})
        joint = sizes if len(sizes) > 1 and MASK in seen.spaces and seen[MASK].shape == sizes else ()
        if MASK in seen.spaces:
            mask = spaces.MultiBinary(math.prod(seen[MASK].shape or ()))
            seen = spaces.Dict({**seen.spaces, MASK: mask})
        one = joint or len(sizes) == 1
        actions = spaces.Discrete(math.prod(sizes)) if one else spaces.MultiDiscrete(np.array(sizes))
        return Made(environment, seen, actions, limit, Parts(endless, joint, counted))

    def begin(self, key: jax.Array) -> tuple:
        state, step = self.made.environment.reset(key)
        return state, self._seen(step.observation)

    def move(self, state: Any, action: Any, key: jax.Array) -> tuple:
        environment, parts = self.made.environment, self.made.more
        if parts.joint:
            action = jnp.stack(jnp.unravel_index(action, parts.joint))
        after, step = environment.step(state, action)
        end = step if parts.endless is environment else parts.endless.step(state, action)[1]
        return after, self._seen(step.observation), step.reward, end.last() & (end.discount == 0)

    def _seen(self, observation: Any) -> dict[str, Any]:
        seen = _as_dicts(observation)
        if MASK in seen:
            seen[MASK] = seen[MASK].reshape(-1)
        if COUNTER in seen:
            seen[COUNTER] = seen[COUNTER] / self.made.more.counted
        return seen


def _sizes(spec: Any) -> tuple[int, ...]:
    """How many choices each part of an action has."""
    if not isinstance(spec, (specs.DiscreteArray, specs.MultiDiscreteArray)):
        raise UnsuitableError(f"actions of jumanji's kind {type(spec).__name__} are not supported")
    return tuple(np.ravel(spec.num_values).tolist())


def _parts(spec: Any) -> dict[str, Any]:
    """The specs that one for a whole observation is made of, by name."""
    return {name: part for name, part in vars(spec).items() if isinstance(part, specs.Spec)}


def _space(spec: Any, name: str) -> spaces.Space:
    if isinstance(spec, specs.DiscreteArray):
        nowhere = name == "position"  # -1 before TSP's first city, which its spec does not say
        return spaces.Discrete(int(spec.num_values) + nowhere, start=-int(nowhere))
    if isinstance(spec, specs.BoundedArray):
        if name in NAMES and np.issubdtype(spec.dtype, np.integer) and np.max(spec.maximum - spec.minimum) > 1:
            low, high = (np.broadcast_to(bound, spec.shape).astype(int) for bound in (spec.minimum, spec.maximum))
            return spaces.MultiDiscrete(high - low + 1, start=low)
        return box(spec.minimum, spec.maximum, spec)
    if isinstance(spec, specs.Array):
        return space_of(spec)
    return spaces.Dict({part: _space(inner, part) for part, inner in _parts(spec).items()})


def _as_dicts(seen: Any) -> Any:
    """jumanji's NamedTuples and dataclasses as plain dicts."""
    if hasattr(seen, "_asdict"):
        return {name: _as_dicts(part) for name, part in seen._asdict().items()}
    if hasattr(seen, "__dataclass_fields__"):
        return {name: _as_dicts(getattr(seen, name)) for name in seen.__dataclass_fields__}
    return seen
