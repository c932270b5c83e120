"""The algorithms, one file each, reading like its paper."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from thorndike import core, hyperparameters, names, spaces
from thorndike.errors import SettingError, UnknownNameError, nearest, shown

ALGORITHMS = {name.lower(): name for name in names.ALGORITHMS}  # as they are called: "dqn"
OURS = ("carry", "log_prob")  # what the acts of ours record for their updates


def get(name: str) -> type[Any]:
    """The algorithm class of a name, in any case."""
    known = str(name).lower()
    if known not in ALGORITHMS:
        raise UnknownNameError(
            f"unknown algorithm '{name}'.{nearest(known, ALGORITHMS)} There are: {', '.join(ALGORITHMS)}"
        )
    name = ALGORITHMS[known]
    return getattr(importlib.import_module(f"thorndike.algorithms.{names.ALGORITHMS[name]}"), name)


def made(algorithm: Any) -> Any:
    """An algorithm from what a user gives as one: an object as it is, a name or a class with its defaults."""
    algorithm = get(algorithm) if isinstance(algorithm, str) else algorithm
    algorithm = algorithm() if isinstance(algorithm, type) else algorithm
    if not all(hasattr(type(algorithm), part) for part in ("act", "update")):
        raise SettingError(f"an algorithm is a name or an object such as td.DQN(), got {shown(algorithm)}")
    name, parts = type(algorithm).__name__, [*core.Algorithm.__annotations__, *vars(core.Algorithm)]
    for part in parts:
        if not part.startswith("_") and part != "greedy" and not hasattr(algorithm, part):  # only exports need that one
            raise SettingError(f"{name} has no '{part}', which an algorithm has: see thorndike.core.Algorithm")
    _check_methods(algorithm, core.Algorithm)
    _check_methods(algorithm.memory, core.Memory)
    if not dataclasses.is_dataclass(algorithm):
        raise SettingError(f"{name} is no dataclass: write @hyperparameters (of thorndike.hyperparameters) above it")
    hyperparameters.check_registered(algorithm)
    check_noise(algorithm)
    return algorithm


def check_noise(algorithm: Any) -> None:
    """Raise SettingError where an algorithm has noisy networks, and would never draw their noise."""
    for field in dataclasses.fields(algorithm):
        if getattr(getattr(algorithm, field.name), "noisy", False) and not getattr(algorithm, "perturbs", False):
            raise SettingError(
                f"{type(algorithm).__name__} does not explore by noise in its networks: leave noisy=True out of "
                f"{field.name}, or take DQN or one of its family"
            )


def check_learning(algorithm: Any, observation_space: Any, action_space: Any) -> None:
    """Raise SettingError where what an algorithm or a memory of the user's own gives is not what the loop takes.

    Traces an act and an update, of shapes alone: nothing is computed or compiled. Ours are held to it by mypy.
    """
    check_noise(algorithm)
    if not any(":" in hyperparameters.class_name(type(part)) for part in (algorithm, algorithm.memory)):
        return
    name, key, fraction = type(algorithm).__name__, jax.random.key(0), jnp.float32(0)
    n = algorithm.num_environments
    stored = spaces.stored(observation_space)
    observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), stored)
    state = jax.eval_shape(lambda: algorithm.init(key, observation_space, action_space))
    step = core.shapes_of_step(algorithm, state, observation, key)
    if algorithm.warmup_steps and (recorded := sorted(step.extras.keys() - {"carry"})):
        raise SettingError(
            f"{name}.act records {', '.join(recorded)} of the action that it chooses, but those of warm-up are drawn "
            "uniformly instead: set warmup_steps=0"
        )

    def learn(state):
        memory = algorithm.memory.init(step, (algorithm.rollout_length, n))
        batch = algorithm.memory.sample(memory, key, fraction)
        if not isinstance(batch, core.Batch):
            raise SettingError(f"{type(algorithm.memory).__name__}.sample must give a Batch of thorndike.core")
        learned = algorithm.update(state, batch, fraction, key)
        if type(learned) is not tuple or len(learned) != 3:
            given = f"{len(learned)} values" if type(learned) is tuple else spaces.outline(learned)
            raise SettingError(
                f"{name}.update must give (state, metrics, feedback), got {given}: feedback is () or, for a "
                "prioritized memory, how wrong it was about each window of the batch"
            )
        algorithm.memory.feedback(memory, batch, learned[2])

    try:
        jax.eval_shape(learn, state)
    except KeyError as error:
        missing = error.args[0] if error.args else None
        if missing not in OURS or missing in step.extras:
            raise
        there = ", ".join(sorted(step.extras)) or "nothing"
        raise SettingError(
            f"{name}.update looks for '{missing}' among what {name}.act records, which is {there}: an act of "
            "your own adds to the extras of super().act(...)"
        ) from error


def _check_methods(value: Any, protocol: Any) -> None:
    """SettingError where a method takes other arguments than `protocol` says."""
    for name, method in inspect.getmembers(protocol, inspect.isfunction):
        if name.startswith("_") or not hasattr(value, name):
            continue
        _, *arguments = inspect.signature(method).parameters
        try:
            inspect.signature(getattr(value, name)).bind(*arguments)
        except TypeError:
            wrong = f"{type(value).__name__}.{name} must take ({', '.join(arguments)})"
            raise SettingError(f"{wrong}: see thorndike.core.{protocol.__name__}") from None
