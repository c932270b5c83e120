"""What comes before a run: JAX is set up, and what cannot work is refused."""

from __future__ import annotations

import dataclasses
import typing
import warnings
from collections.abc import Iterator
from typing import Any

import jax

from thorndike import algorithms, compilation, trainer
from thorndike.errors import SettingError, UnsuitableError, shown
from thorndike.interface import words
from thorndike.networks.network import Network, Remarks


def prepare() -> None:
    """Set JAX up before anything touches it."""
    compilation.cache_programs()
    trainer.configure()


def check_suitable(algorithm: Any, observation_space: Any, action_space: Any) -> None:
    """Where the algorithm refuses the spaces, say which others do not; refuse networks that do not fit them.

    UserWarning where a network hardly suits the observations.
    """
    try:
        algorithm.check(observation_space, action_space)
    except UnsuitableError as error:
        fitting = []
        for name in algorithms.ALGORITHMS:
            other = algorithms.get(name)
            try:
                other().check(observation_space, action_space)
            except UnsuitableError:
                continue
            if other is not type(algorithm):
                fitting.append(name)
        if not fitting:
            raise
        raise UnsuitableError(f"{error}. These fit: {', '.join(fitting)}") from None
    jax.eval_shape(lambda key: algorithm.init(key, observation_space, action_space), jax.random.key(0))
    algorithms.check_learning(algorithm, observation_space, action_space)
    for doubt in remarks(algorithm, observation_space).doubts:
        warnings.warn(doubt, stacklevel=2)


def remarks(algorithm: Any, observation_space: Any) -> Remarks:
    """What the networks of an algorithm have to say of what they see: each sentence once."""
    said = [network.remarks(observation_space) for network in _networks_in(algorithm)]
    notes, doubts = ((dict.fromkeys(line for one in said for line in one[i])) for i in (0, 1))
    return Remarks(tuple(notes), tuple(doubts))


def _networks_in(recipe: Any) -> Iterator[Network]:
    """The networks among the fields of an algorithm, and of one another, that see its observations."""
    for field in dataclasses.fields(recipe) if dataclasses.is_dataclass(recipe) else ():
        value = getattr(recipe, field.name)
        if isinstance(value, Network) and field.name != "head":  # which sees what a cell made
            yield value
            yield from _networks_in(value)


def check_beyond_warmup(algorithm: Any, steps: int) -> None:
    """SettingError where a run would end before it learns anything."""
    if algorithm.warmup_steps and trainer.iterations_for(algorithm, steps) <= trainer.warmup_iterations(algorithm):
        raise SettingError(
            f"{steps:,} steps are all warm-up, in which nothing is learned: {type(algorithm).__name__}'s warmup_steps "
            f"is {algorithm.warmup_steps:,}. Give more steps, or a smaller warmup_steps"
        )


def check_overlap(overlap: Any, environment: Any) -> None:
    """SettingError where acting cannot overlap learning."""
    if not isinstance(overlap, bool):
        raise SettingError(f"overlap must be True or False, got {shown(overlap)}")
    if overlap and environment.compiled:
        raise SettingError("overlap is for environments on the host: this one is compiled, nobody waits for it")


def check_all_used(environment: Any) -> None:
    """SettingError where a vector environment has more copies than the algorithm acts in."""
    if surplus := getattr(environment, "surplus", 0):
        used = environment.num_environments
        raise SettingError(
            f"the vector environment has num_envs={used + surplus}: set num_environments to that, not {used}"
        )


def check_options(on_full_disk: Any, on_chunk: Any, quiet: Any) -> None:
    """SettingError where one of these arguments of `train` and `resume` cannot be meant."""
    choices = typing.get_args(words.OnFullDisk)
    if not isinstance(on_full_disk, str) or on_full_disk not in choices:
        raise SettingError(f"on_full_disk must be one of {', '.join(map(repr, choices))}, got {shown(on_full_disk)}")
    if on_chunk is not None and not callable(on_chunk):
        raise SettingError(f"on_chunk must be a function that takes a chunk, got {shown(on_chunk)}")
    if not isinstance(quiet, bool):
        raise SettingError(f"quiet must be True or False, got {shown(quiet)}")
