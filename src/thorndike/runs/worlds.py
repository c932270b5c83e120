"""The environments that a run plays in: copies to train in, and others beside them for evaluations."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from thorndike import environments, evaluation, spaces, trainer
from thorndike.environments.workers import NO_WORKERS, Workers
from thorndike.errors import RunError, SettingError, ThorndikeError, UnsuitableError, shown
from thorndike.runs import chunks
from thorndike.runs.configuration import ENVIRONMENT, EVALUATION_ENVIRONMENT, Configuration


@dataclasses.dataclass
class Worlds:
    """The environments that a run plays in, each of them several copies side by side."""

    training: Any
    evaluation: Any  # None where nothing is evaluated; those of training where there can be no others
    notes: list[str]  # what is to be said of them
    make_chunk: Callable[..., trainer.Chunk] = trainer.Chunk

    @property
    def shared(self) -> bool:
        return self.evaluation is self.training


def copies_for(
    environment: Any, n: int, arguments: Mapping[str, Any], workers: Workers, ray: Any = None, actors: Any = None
) -> Any:
    """The `n` copies that a run trains in: here, in `workers`, or where `ray` says, shared out among `actors`."""
    if ray is None or ray is False:
        if actors is not None:
            raise SettingError(f"actors={shown(actors)} are Ray's: ray=True, or ray='ADDRESS'")
        return environments.make(environment, n, workers=workers, **arguments)
    workers.refuse("a run by Ray", "its actors hold the copies")
    from thorndike.unrolls.ray import RayEnvironment

    return RayEnvironment(environment, n, arguments, ray, actors)


def is_compiled(copies: Any) -> bool:
    """Whether the environment is, wherever its copies are."""
    return getattr(copies, "compiled_there", copies.compiled)


def worlds_for(
    run: Configuration, given: Mapping[str, Any], training: Any, stack: contextlib.ExitStack
) -> tuple[Configuration, Worlds]:
    """The environments of a run that trains in `training`, and its configuration, which says where evaluations play."""
    other = given[EVALUATION_ENVIRONMENT]
    if other is not None:
        is_id = isinstance(other, str)
        run = dataclasses.replace(
            run,
            evaluation_environment=other if is_id else environments.name_of(other),
            evaluation_environment_is_id=is_id,
        )
    if not run.evaluation_interval:
        return run, Worlds(training, None, [])
    made, reason = _to_evaluate_in(run, given, training, stack)
    if other is not None and not isinstance(other, str):
        run = dataclasses.replace(run, evaluation_environment=environments.name_of(other, made))
    if made is not training:
        return run, Worlds(training, made, [])
    note = "evaluations play in the one copy that there is, and cut its running episode (a truncation)"
    return run.noting(evaluation=f"{note}: {reason}"), Worlds(training, training, [note])


def _to_evaluate_in(
    run: Configuration, given: Mapping[str, Any], training: Any, stack: contextlib.ExitStack
) -> tuple[Any, str]:
    """Copies for evaluations, which `stack` closes; or `training`, and why there can be no others."""
    other = given[EVALUATION_ENVIRONMENT]
    if other is None:
        made, reason = _beside(run, given[ENVIRONMENT], training)
    else:
        arguments = environments.ours(run.environment_arguments)
        made, reason = _copies_beside(run, other, arguments), ""
    if made is not training:
        stack.callback(made.close)
    if other is not None:
        check_spaces(run, made, "the evaluation_environment")
    return made, reason


def _beside(run: Configuration, environment: Any, training: Any) -> tuple[Any, str]:
    """Copies of the environment trained in for evaluations: new ones, or `training` where it can only exist once."""
    try:
        arguments = environments.to_evaluate_with(environment, run.environment_arguments)
        made = _copies_beside(run, environment, arguments)
        environments.check_distinct(training, made)
    except ThorndikeError as error:
        alone = not training.compiled and training.num_environments == 1
        if alone and run.evaluation_copies is None:
            return training, str(error)
        remedy = "evaluate_every=0 does without, num_environments=1 lets one copy serve training and evaluation in turn"
        raise type(error)(f"copies for evaluations cannot be made: {error} ({remedy})") from error
    return made, ""


def _copies_beside(run: Configuration, environment: Any, arguments: Mapping[str, Any]) -> Any:
    """Copies for evaluations, stepped by as many workers as training's where these can be."""
    n = number_of_copies(run)
    workers = run.processes(n) if environments.takes_workers(environment) else NO_WORKERS
    return environments.make(environment, n, workers=workers, **arguments)


def number_of_copies(run: Configuration) -> int:
    """How many copies of an environment evaluations play in."""
    most = evaluation.COPIES
    return run.evaluation_copies or (most if run.compiled else min(most, run.algorithm.num_environments))


def chunk_maker(
    run: Configuration, given: Mapping[str, Any], worlds: Worlds, stack: contextlib.ExitStack
) -> Callable[..., trainer.Chunk]:
    """What makes the chunks that users get: they play where evaluations do, or in environments made when asked."""

    @functools.cache
    def place() -> chunks.Place:
        made, reason = worlds.evaluation, worlds.notes[0] if worlds.shared else ""
        if made is None:
            made, reason = _to_evaluate_in(run, given, worlds.training, stack)
        if made is worlds.training:
            raise UnsuitableError(f"chunk.evaluate needs evaluation_environment=..., another than trained in: {reason}")
        return chunks.Place(made, run.evaluation_plan(made).longest)

    return functools.partial(chunks.Chunk, algorithm=run.algorithm, place=place)


def check_fits(run: Configuration, made: Any) -> None:
    """RunError where the environment handed in is not of the kind that the run was trained in."""
    check_spaces(run, made)
    if is_compiled(made) != run.compiled:
        kinds = {True: "compiled", False: "on the host"}
        raise RunError(f"the environment was {kinds[run.compiled]}, the one handed in is {kinds[is_compiled(made)]}")


def check_spaces(run: Configuration, made: Any, what: str = "the environment") -> None:
    """RunError where an environment has other spaces than the run is trained in."""
    for name in ("observation_space", "action_space"):
        now, then = spaces.describe(getattr(made, name)), spaces.describe(getattr(run, name))
        if now != then:
            raise RunError(f"{what} does not fit this run: its {name} was {then!s:.90}, now it is {now!s:.90}")
