"""Training: `train` makes a run, `training` a loop that writes nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thorndike import algorithms, environments, settings, trainer
from thorndike.environments.workers import NO_WORKERS, Workers
from thorndike.errors import SettingError, UnknownNameError
from thorndike.interface import words
from thorndike.persistence import empty_folder, folder_of, locked, unused_folder, writable
from thorndike.runs import checkpoints, chunks, configuration, sizes
from thorndike.runs.configuration import (
    ENVIRONMENT,
    EVALUATION_ENVIRONMENT,
    MAX_COPIES,
    MAX_EPISODES,
    MAX_SEEDS,
    Configuration,
)
from thorndike.runs.drive import drive
from thorndike.runs.preparation import (
    check_all_used,
    check_beyond_warmup,
    check_options,
    check_overlap,
    check_suitable,
    prepare,
    remarks,
)
from thorndike.runs.run import Run
from thorndike.runs.worlds import Worlds, chunk_maker, copies_for, is_compiled, worlds_for

AUTO = "auto"


def train(
    algorithm: Any,
    environment: Any = None,
    steps: int | None = None,
    *,
    seeds: int = 1,
    seed: int = 0,
    run_dir: str | Path | None = AUTO,
    evaluate_every: int | None = None,
    evaluate_episodes: int | None = None,
    final_episodes: int | None = None,
    evaluation_copies: int | None = None,
    evaluation_environment: Any = None,
    checkpoint_every: int | None = None,
    keep_checkpoints: int | None = None,
    metrics_every: int | None = None,
    record_info: Sequence[str] = (),
    workers: int = 0,
    worker_timeout: float = NO_WORKERS.timeout,
    on_fault: words.OnFault = "raise",
    max_restarts: int = NO_WORKERS.max_restarts,
    overlap: bool = False,
    quiet: bool = False,
    on_full_disk: words.OnFullDisk = "stop",
    on_chunk: chunks.OnChunk | None = None,
    network: Any = None,
    environment_arguments: Mapping[str, Any] | None = None,
    ray: bool | str | None = None,
    actors: int | None = None,
    **arguments: Any,
) -> Run:
    """Train, and return a Run.

    `algorithm` is an object, used as it is, or a name, which takes the recorded settings for the pair where there are
    some (then `steps` may be left out). `environment` is an id, a class, a function that makes one, or an object of
    which fresh copies can be made; `arguments` and `environment_arguments` go to it. `steps` and intervals are per
    seed; seeds are seed, seed + 1, ... `run_dir` is the folder to write, by default runs/ALGORITHM-ENVIRONMENT-TIME;
    None writes nothing.

    Evaluations come ten times a run unless `evaluate_every` says otherwise; 0 switches all of them off. They play 10
    episodes, at the end 100. On the host, where a step of evaluation costs as much as one of training, these become
    fewer: all together take at most as many steps as training, those on the way at most a quarter. What
    `evaluate_every`, `evaluate_episodes` and `final_episodes` say is obeyed. They play in `evaluation_copies` copies
    (as many as training has, at most ten) of `evaluation_environment`, by default the one trained in.

    Checkpoints come ten times a run unless `checkpoint_every` says otherwise, and the last `keep_checkpoints` (3) stay;
    with each stays, of every seed, the agent that did best in an evaluation: `Run.best`. Rows of metrics are written
    every `metrics_every` steps, at most 200 times a run unless that is given. `record_info=("is_success",)` adds, on
    the host, what `info` says at the ends of episodes: the mean over those of a row, as `is_success_mean`.

    With `workers` the copies on the host are stepped in so many processes of their own, with the same results. A reset
    or step that takes longer than `worker_timeout` seconds (0: any time), a worker that dies and a step that raises end
    the run; with `on_fault="restart"` the worker is started anew, at most `max_restarts` times, its episodes are
    repeated and the step is taken again. With `overlap` each rollout is learned from while the next one is acted, by
    the policy of one rollout before: another run, which is as reproducible.

    `ray=True` has the copies act in actors of a Ray started here (or of one that is in use already), `ray="ADDRESS"` in
    those of a cluster: `actors` of them, by default one for each core that Ray has. They act whole rollouts, learning
    stays here. One actor makes the run that would have been without; what several find depends on their number alone.
    An actor that is lost is replaced, and the run goes on as if nothing had been.

    `on_chunk` is called with every `Chunk`, about twice a second for each seed that is under way: `chunk.row`,
    `chunk.agent()`, `chunk.evaluate(10)`, and `chunk.stop()`, after which the seed is saved and evaluated as at its
    end. What it raises ends the run with a RunError that names it; the moment is saved. It is never recorded.

    Raises a ThorndikeError, before anything is compiled, where that cannot work. Ctrl-C and SIGTERM save, then raise
    KeyboardInterrupt or SystemExit(143). Where the disk is full, RunError says what is safe and how to go on; with
    `on_full_disk="pause"` the run waits until there is room.
    """
    check_options(on_full_disk, on_chunk, quiet)
    chosen = choose(algorithm, environment, steps, network, environment_arguments, arguments)
    options = {
        "evaluate_every": evaluate_every, "evaluate_episodes": evaluate_episodes, "final_episodes": final_episodes,
        "evaluation_copies": evaluation_copies, "checkpoint_every": checkpoint_every,
        "keep_checkpoints": keep_checkpoints, "metrics_every": metrics_every, "record_info": record_info,
        "workers": workers, "worker_timeout": worker_timeout, "on_fault": on_fault, "max_restarts": max_restarts,
        "overlap": overlap, "ray": ray, "actors": actors,
    }  # fmt: skip
    given = {ENVIRONMENT: chosen.environment, EVALUATION_ENVIRONMENT: evaluation_environment}
    with contextlib.ExitStack() as stack:
        run, worlds = configured(chosen, given, seed, seeds, options, stack)
        worlds.make_chunk = chunk_maker(run, given, worlds, stack)
        place = None if run_dir is None else folder_of("runs" if _is_auto(run_dir) else run_dir)
        worlds.notes += [_unplayed(run), sizes.check(run, place), *remarks(run.algorithm, run.observation_space).notes]
        folder = None if run_dir is None else _new_folder(run_dir, run)
        if folder is not None:
            stack.enter_context(locked(folder))
            with writable(folder):
                run.write(folder)
        return drive(run, given, worlds, folder, quiet, on_full_disk, on_chunk=on_chunk)


def training(
    algorithm: Any,
    environment: Any = None,
    steps: int | None = None,
    *,
    seeds: int = 1,
    seed: int = 0,
    workers: int = 0,
    worker_timeout: float = NO_WORKERS.timeout,
    on_fault: words.OnFault = "raise",
    max_restarts: int = NO_WORKERS.max_restarts,
    overlap: bool = False,
    network: Any = None,
    environment_arguments: Mapping[str, Any] | None = None,
    ray: bool | str | None = None,
    actors: int | None = None,
    **arguments: Any,
) -> Iterator[trainer.Chunk]:
    """The chunks of a run, for a loop of your own; nothing is evaluated, shown or written.

    Arguments as those of `train`, chunks as those that its `on_chunk` gets: valid until the loop's next turn.
    """
    chosen = choose(algorithm, environment, steps, network, environment_arguments, arguments)
    with contextlib.ExitStack() as stack:
        staff = Workers(workers, worker_timeout, on_fault, max_restarts)
        run, copies = _configure(chosen, seed, seeds, stack, Elsewhere(staff, overlap, ray, actors))
        sizes.check(run, None)
        kept = stack.pop_all()  # the copies are the loop's from here on: closed at its end
    given = {ENVIRONMENT: chosen.environment, EVALUATION_ENVIRONMENT: None}
    make_chunk = chunk_maker(run, given, Worlds(copies, None, []), kept)
    return _closing(
        kept,
        trainer.train(
            run.algorithm,
            lambda: copies,
            run.steps,
            seed=run.seed,
            seeds=run.seeds,
            overlap=run.overlap,
            make_chunk=make_chunk,
        ),
    )


def _closing(stack: contextlib.ExitStack, chunks: Iterator[trainer.Chunk]) -> Iterator[trainer.Chunk]:
    with stack:
        yield from chunks


@dataclasses.dataclass
class Chosen:
    """What a caller of `train` asked for, in our words."""

    algorithm: Any
    environment: Any
    arguments: dict[str, Any]
    steps: int | None


def choose(algorithm: Any, environment: Any, steps: Any, network: Any, given: Any, more: dict[str, Any]) -> Chosen:
    """Resolve a name to its recorded settings, and every argument to the environment's; refuse what cannot be meant."""
    recorded = None
    if isinstance(algorithm, str):
        recorded = settings.recorded(algorithms.get(algorithm).__name__.lower(), environment)
    algorithm = recorded.algorithm if recorded else algorithms.made(algorithm)
    fields = [field.name for field in dataclasses.fields(algorithm)]
    own = [name for name in inspect.signature(train).parameters if name != "arguments"]
    for name in more:
        answer = words.answer_to_argument(name, own, fields, type(algorithm).__name__)
        if answer:
            raise UnknownNameError(
                f"{answer} (arguments of the environment itself go into environment_arguments={{...}})"
            )
    if environment is None:
        raise SettingError("which environment? An id such as 'CartPole-v1', a class, or a function that makes one")
    if network is not None:
        algorithm = dataclasses.replace(algorithm, network=network)
    steps = recorded.steps if steps is None and recorded else steps
    steps = steps if steps is None else words.whole_number(steps, "steps", low=1)
    arguments = configuration.check_arguments(more) | configuration.check_arguments({} if given is None else given)
    return Chosen(algorithm, environment, arguments, steps)


def configured(
    chosen: Chosen, given: dict[str, Any], seed: Any, seeds: Any, options: dict[str, Any], stack: contextlib.ExitStack
) -> tuple[Configuration, Worlds]:
    """The configuration of a run that begins now, and the environments that it plays in, which `stack` closes.

    `options` are the arguments of `train` that say how often things happen; what is left out is as by default.
    """
    said = options.get
    none = NO_WORKERS
    workers = Workers(
        said("workers", none.number), said("worker_timeout", none.timeout), said("on_fault", none.on_fault),
        said("max_restarts", none.max_restarts),
    )  # fmt: skip
    elsewhere = Elsewhere(workers, said("overlap", False), said("ray"), said("actors"))
    run, copies = _configure(chosen, seed, seeds, stack, elsewhere)
    run = dataclasses.replace(
        run,
        evaluate_every=_count(said("evaluate_every"), "evaluate_every", low=0),
        evaluate_episodes=_count(said("evaluate_episodes"), "evaluate_episodes", high=MAX_EPISODES),
        final_episodes=_count(said("final_episodes"), "final_episodes", high=MAX_EPISODES),
        evaluation_copies=_count(said("evaluation_copies"), "evaluation_copies", high=MAX_COPIES),
        checkpoint_every=_checkpoint_interval(said("checkpoint_every"), run),
        keep_checkpoints=_count(said("keep_checkpoints"), "keep_checkpoints") or checkpoints.KEPT,
        metrics_every=_count(said("metrics_every"), "metrics_every"),
        record_info=configuration.check_record_info(said("record_info", ())),
    )
    environments.record_info(copies, run.record_info)
    return worlds_for(run.begun(), given, copies, stack)


class Elsewhere(NamedTuple):
    """Where and when is acted, as the caller of `train` says."""

    workers: Workers
    overlap: Any
    ray: Any
    actors: Any


def _configure(
    chosen: Chosen, seed: Any, seeds: Any, stack: contextlib.ExitStack, elsewhere: Elsewhere
) -> tuple[Configuration, Any]:
    """The configuration of a run without intervals, and the environments that it trains in, which `stack` closes."""
    seeds = words.whole_number(seeds, "seeds", low=1, high=MAX_SEEDS)
    seed = words.whole_number(seed, "seed")
    trainer.check_seed(seed + seeds - 1)
    prepare()
    workers, overlap, ray, actors = elsewhere
    n = chosen.algorithm.num_environments
    copies = copies_for(chosen.environment, n, chosen.arguments, workers, ray, actors)
    stack.callback(copies.close)
    check_overlap(overlap, copies)
    check_all_used(copies)
    check_suitable(chosen.algorithm, copies.observation_space, copies.action_space)
    if chosen.steps is None:
        raise SettingError("how long? Say it in steps of the environment: steps=50_000 (--steps 50_000)")
    check_beyond_warmup(chosen.algorithm, chosen.steps)
    is_id = isinstance(chosen.environment, str)
    run = Configuration(
        algorithm=chosen.algorithm,
        environment=chosen.environment if is_id else environments.name_of(chosen.environment, copies),
        environment_is_id=is_id,
        environment_arguments=chosen.arguments,
        compiled=is_compiled(copies),
        observation_space=copies.observation_space,
        action_space=copies.action_space,
        steps=chosen.steps,
        seed=seed,
        seeds=seeds,
        evaluate_every=0,
        evaluate_episodes=None,
        final_episodes=None,
        checkpoint_every=0,
        workers=workers.number,
        worker_timeout=float(workers.timeout),
        on_fault=workers.on_fault,
        max_restarts=workers.max_restarts,
        overlap=overlap,
        actors=getattr(copies, "actors", None),
        id=uuid.uuid4().hex,
    )
    return run, copies


def _count(value: Any, name: str, low: int = 1, high: int = words.MOST) -> int | None:
    return None if value is None else words.whole_number(value, name, low, high)


def _unplayed(run: Configuration) -> str:
    """What is to be said where a number of episodes is asked for, and no evaluation that could play them; else ""."""
    for name, episodes in (("final_episodes", run.final_episodes), ("evaluate_episodes", run.evaluate_episodes)):
        if run.evaluate_every == 0 and episodes:
            return (
                f"evaluate_every=0 switches every evaluation off, the final one too: {name}={episodes} plays nothing. "
                f"evaluate_every={run.steps} leaves only the final one"
            )
    return ""


def _checkpoint_interval(steps: Any, run: Configuration) -> int:
    if steps is None:
        return configuration.default_interval(run.algorithm, run.steps)
    return words.whole_number(steps, "checkpoint_every")


def _new_folder(run_dir: str | Path, run: Configuration) -> Path:
    if not _is_auto(run_dir):
        return empty_folder(folder_of(run_dir))
    name = environments.name_of(run.environment)
    return unused_folder(Path("runs"), f"{run.algorithm_name}-{name}-{time.strftime('%Y%m%d-%H%M%S')}")


def _is_auto(run_dir: Any) -> bool:
    return isinstance(run_dir, str) and run_dir == AUTO
