"""Runs: train, load and resume them. A run is a folder, or with `run_dir=None` only an object.

config.json      algorithm, every hyper-parameter, environment, seeds, versions
metrics.jsonl    one row a line
checkpoints/     step-000050000/{seed-0.safetensors, ..., manifest.json}
summary.json     once the run has reached its end
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import time
import typing
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from thorndike import (
    algorithms,
    compilation,
    environments,
    evaluation,
    persistence,
    settings,
    snapshots,
    spaces,
    trainer,
)
from thorndike.environments import pictures
from thorndike.errors import (
    EnvironmentFault,
    RunError,
    SettingError,
    ThorndikeError,
    UnknownNameError,
    UnsuitableError,
    shown,
)
from thorndike.interface import console, words
from thorndike.persistence import empty_folder, folder_of, locked, unused_folder, writable
from thorndike.runs import checkpoints, chunks, configuration, folders, interrupts, records, sizes
from thorndike.runs.agents import Agent
from thorndike.runs.configuration import (
    ENVIRONMENT,
    EVALUATION_ENVIRONMENT,
    MAX_COPIES,
    MAX_EPISODES,
    MAX_SEEDS,
    Configuration,
)
from thorndike.runs.recording import CHECKPOINTS, SUMMARY, Best, Recording, bests, saved_before, writing

if TYPE_CHECKING:
    from thorndike.interface import plot, watch

AUTO = "auto"


class Run:
    """A run that has reached its end, or as far as its last checkpoint."""

    def __init__(
        self,
        configuration: Configuration,
        given: dict[str, Any],
        folder: Path | None,
        summary: dict[str, Any],
        rows: list[dict[str, Any]],
        agents: list[Agent],
        stand: list[tuple[int, int]],
        bests: Mapping[int, Best],
    ) -> None:
        """Made by `train`, `resume` and `load`.

        `given` holds what the user handed in to make environments from, by argument; `stand` is the seed and the
        iteration of each agent; `bests` are those in evaluations, by seed.
        """
        self.configuration = configuration
        self.folder = folder
        self.summary = summary
        self.agents = agents
        self._rows, self._given, self._stand, self._bests = rows, given, stand, bests

    @property
    def agent(self) -> Agent:
        """That of the first seed (which need not be the best)."""
        return self.agents[0]

    @property
    def best(self) -> Agent:
        """The agent that did best in an evaluation of the run, of all seeds and moments; of equal ones the latest.

        `summary["best"]` says when and how well; as it was chosen for that, `evaluate(best=True)` is the fairer
        number. RunError where nothing was evaluated. Where no evaluation saw all its episodes end, a warning says so.
        """
        best = self._best_of(max(self._bests, key=lambda seed: self._bests[seed].rank, default=-1))
        if best.unfinished:
            warnings.warn(f"{best.unfinished} of the best agent's {best.episodes} episodes were cut", stacklevel=2)
        return self._agent(best)

    def _best_of(self, seed: int) -> Best:
        if seed not in self._bests:
            raise RunError("there is no best agent: no evaluation has been played (evaluate_every=0 switches them off)")
        return self._bests[seed]

    def _agent(self, best: Best) -> Agent:
        run = self.configuration
        fraction = best.iteration / trainer.iterations_for(run.algorithm, run.steps)
        return Agent(run.algorithm, best.state, run.observation_space, run.action_space, fraction)

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Every column of metrics.jsonl as an array, NaN where a row has no such value."""
        return records.columns(self._rows)

    def evaluate(self, episodes: int = 100, *, seed: int = 0, best: bool = False) -> dict[str, Any]:
        """Greedy episodes of every seed: mean and spread, over five seeds or more also iqm and a 95 % interval.

        They are others than those of the final evaluation, and others again with another `seed`. With `best` each
        seed's best agent plays instead of its newest one. `unfinished` of them had not ended after as many steps as an
        episode of training could have had, at most 10,000, and were cut.
        RunError or UnsafeCheckpointError where a loaded run's environment has to be handed in again.
        """
        episodes = words.whole_number(episodes, "episodes", low=1, high=MAX_EPISODES)
        seed = words.whole_number(seed, "seed")
        run = self.configuration
        named, arguments = self._evaluation_environment()
        with contextlib.closing(_make(named, _copies(run), arguments)) as environment:
            _check_spaces(run, environment)
            longest = run.evaluation_plan(environment).longest
            played = []
            for agent, (of_seed, iteration) in zip(self.agents, self._stand, strict=True):
                state = agent.state
                if best:
                    state, iteration = self._best_of(of_seed).state, self._best_of(of_seed).iteration
                key = evaluation.evaluation_key(of_seed, iteration, repetition=seed)
                played.append(evaluation.evaluate(run.algorithm, environment, state, key, episodes, longest))
        return evaluation.summarize([each.returns for each in played], sum(each.unfinished for each in played))

    def _evaluation_environment(self) -> tuple[Any, Mapping[str, Any]]:
        """What to make environments from that episodes are played in, and its arguments."""
        run, where = self.configuration, self.folder or Path()
        chosen = configuration.trusted_environment(run, where, self._given[ENVIRONMENT])
        other = configuration.trusted_environment(
            run, where, self._given[EVALUATION_ENVIRONMENT], EVALUATION_ENVIRONMENT
        )
        return (chosen, run.environment_arguments) if other is None else (other, {})

    def watch(
        self, episodes: int = 1, *, seed: int = 0, best: bool = False, fps: float | None = None, live: bool = False
    ) -> watch.Film:
        """A film of the first seed's agent, or with `best` of the best one, as it plays greedy episodes.

        A notebook shows it, `.save("film.webp")` writes it, and with `live` the terminal shows it as it is played,
        until Ctrl-C. Another `seed` gives other episodes. `fps` are the steps that a second shows, by default those of
        the environment's own time. UnsuitableError where the environment draws nothing, MissingExtraError where a
        package is missing.
        """
        from thorndike.interface import watch

        episodes = words.whole_number(episodes, "episodes", low=1, high=MAX_EPISODES)
        key = evaluation.evaluation_key(*self._stand[0], repetition=words.whole_number(seed, "seed"))
        watch.check_fps(fps)
        agent, (named, arguments) = self.best if best else self.agent, self._evaluation_environment()
        stage = pictures.staged(named, self.configuration.compiled, arguments)
        with contextlib.closing(stage.environment):
            _check_spaces(self.configuration, stage.environment)
            longest = self.configuration.evaluation_plan(stage.environment).longest
            frames = watch.frames(stage, agent, key, episodes, longest)
            return watch.filmed(frames, fps or stage.fps, live)

    def plot(self, metric: str = "return_mean") -> plot.Chart:
        """The learning curves of a column of `metrics`, with an interval over five seeds or more.

        A notebook shows it, `.save("curves.svg")` (or .png) writes it. SettingError where there is no such column,
        MissingExtraError without matplotlib.
        """
        from thorndike.interface import plot

        return plot.chart([self], metric)

    def __repr__(self) -> str:
        where = f" in {self.folder}" if self.folder else ""
        return f"<Run of {self.configuration.algorithm_name} on {self.configuration.environment}{where}>"


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
    quiet: bool = False,
    on_full_disk: words.OnFullDisk = "stop",
    on_chunk: chunks.OnChunk | None = None,
    network: Any = None,
    environment_arguments: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Run:
    """Train, and come back with a Run.

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

    `on_chunk` is called with every `Chunk`, about twice a second for each seed that is under way: `chunk.row`,
    `chunk.agent()`, `chunk.evaluate(10)`, and `chunk.stop()`, after which the seed is saved and evaluated as at its
    end. What it raises ends the run with a RunError that names it; the moment is saved. It is never recorded.

    Raises a ThorndikeError, before anything is compiled, where that cannot work. Ctrl-C and SIGTERM save, then raise
    KeyboardInterrupt or SystemExit(143). Where the disk is full, RunError says what is safe and how to go on; with
    `on_full_disk="pause"` the run waits until there is room.
    """
    _check_on_full_disk(on_full_disk)
    _check_on_chunk(on_chunk)
    _check_quiet(quiet)
    chosen = _choose(algorithm, environment, steps, network, environment_arguments, arguments)
    with contextlib.ExitStack() as stack:
        run, copies = _configure(chosen, seed, seeds, stack)
        run = dataclasses.replace(
            run,
            evaluate_every=_count(evaluate_every, "evaluate_every", low=0),
            evaluate_episodes=_count(evaluate_episodes, "evaluate_episodes", high=MAX_EPISODES),
            final_episodes=_count(final_episodes, "final_episodes", high=MAX_EPISODES),
            evaluation_copies=_count(evaluation_copies, "evaluation_copies", high=MAX_COPIES),
            checkpoint_every=_checkpoint_interval(checkpoint_every, run),
            keep_checkpoints=_count(keep_checkpoints, "keep_checkpoints") or checkpoints.KEPT,
            metrics_every=_count(metrics_every, "metrics_every"),
            record_info=configuration.check_record_info(record_info),
        )
        environments.record_info(copies, run.record_info)
        given = {ENVIRONMENT: chosen.environment, EVALUATION_ENVIRONMENT: evaluation_environment}
        run, worlds = _worlds(run.begun(), given, copies, stack)
        worlds.make_chunk = _make_chunk(run, given, worlds, stack)
        place = None if run_dir is None else folder_of("runs" if _is_auto(run_dir) else run_dir)
        worlds.notes.append(sizes.check(run, place))
        folder = None if run_dir is None else _new_folder(run_dir, run)
        if folder is not None:
            stack.enter_context(locked(folder))
            with writable(folder):
                run.write(folder)
        return _record(run, given, worlds, folder, quiet, on_full_disk, on_chunk=on_chunk)


def training(
    algorithm: Any,
    environment: Any = None,
    steps: int | None = None,
    *,
    seeds: int = 1,
    seed: int = 0,
    network: Any = None,
    environment_arguments: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Iterator[trainer.Chunk]:
    """The chunks of a run, for a loop of your own; nothing is evaluated, shown or written.

    Arguments as those of `train`, chunks as those that its `on_chunk` gets: valid until the loop's next turn.
    """
    chosen = _choose(algorithm, environment, steps, network, environment_arguments, arguments)
    with contextlib.ExitStack() as stack:
        run, copies = _configure(chosen, seed, seeds, stack)
        sizes.check(run, None)
        kept = stack.pop_all()  # the copies are the loop's from here on: closed at its end
    given = {ENVIRONMENT: chosen.environment, EVALUATION_ENVIRONMENT: None}
    make_chunk = _make_chunk(run, given, _Worlds(copies, None, []), kept)
    return _closing(
        kept,
        trainer.train(run.algorithm, lambda: copies, run.steps, seed=run.seed, seeds=run.seeds, make_chunk=make_chunk),
    )


def _closing(stack: contextlib.ExitStack, chunks: Iterator[trainer.Chunk]) -> Iterator[trainer.Chunk]:
    with stack:
        yield from chunks


def load(
    run_dir: str | Path,
    *,
    environment: Any = None,
    evaluation_environment: Any = None,
    algorithm: Any = None,
    network: Any = None,
    **recipes: Any,
) -> Run:
    """The run in a folder, as far as its newest whole checkpoint. Safe on a folder from a stranger: no code runs.

    `network` (and `critic_network`, ...) is handed in again where it was your own, `algorithm` (and `memory`) where its
    class was: give the class, or an object of it; the hyper-parameters are those of the run. `environment` (or
    `evaluation_environment`) is handed in where `Run.evaluate` should use one that is your own. RunError or a kind of
    it where the folder is none of ours.
    """
    folder = folder_of(run_dir)
    run, checkpoint = folders.read(folder, words.handed_in(algorithm, network, recipes))
    compilation.cache_programs()
    if checkpoint is None:
        raise RunError(f"{folder} has no checkpoint yet")
    agents, stand = [], []
    for seed, entry in sorted(checkpoint.seeds.items()):
        arrays = checkpoint.arrays(seed, snapshots.STATE)
        state = snapshots.arrays_to_state(run.algorithm, run.observation_space, run.action_space, arrays)
        fraction = entry["iteration"] / max(1, checkpoint.iterations)
        agents.append(Agent(run.algorithm, state, run.observation_space, run.action_space, fraction))
        stand.append((seed, entry["iteration"]))
    given = {ENVIRONMENT: environment, EVALUATION_ENVIRONMENT: evaluation_environment}
    summary, rows = folders.summary(folder, run.id), folders.rows(folder, checkpoint)
    return Run(run, given, folder, summary, rows, agents, stand, bests(run, checkpoint))


def resume(
    run_dir: str | Path,
    steps: int | None = None,
    *,
    environment: Any = None,
    evaluation_environment: Any = None,
    algorithm: Any = None,
    network: Any = None,
    quiet: bool = False,
    on_full_disk: words.OnFullDisk = "stop",
    on_chunk: chunks.OnChunk | None = None,
    **recipes: Any,
) -> Run:
    """Go on with a run from its newest whole checkpoint, as if it had never stopped; with `steps`, to another end.

    Environments, networks and classes are handed in again, as in `load`, where they are your own or come from a module
    of somebody's.
    `quiet`, `on_full_disk` and `on_chunk` as in `train`; a run that `on_chunk` had stopped goes on to its planned end.
    RunError where the run is complete, in use, or does not fit what is handed in.
    """
    _check_on_full_disk(on_full_disk)
    _check_on_chunk(on_chunk)
    _check_quiet(quiet)
    folder, own = folder_of(run_dir), words.handed_in(algorithm, network, recipes)
    steps = steps if steps is None else words.whole_number(steps, "steps", low=1)
    handed_in = {ENVIRONMENT: environment, EVALUATION_ENVIRONMENT: evaluation_environment}
    folders.check_is_one(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(folder))
        run, checkpoint = folders.read(folder, own)
        if run.own_loop:
            raise RunError(f"{folder} was learned in {run.environment}: {configuration.how_to_resume(run, folder)}")
        given = {role: configuration.trusted_environment(run, folder, named, role) for role, named in handed_in.items()}
        run = dataclasses.replace(run, steps=steps or run.steps)
        _check_unfinished(run, checkpoint, folder)
        prepare()
        copies = _make(given[ENVIRONMENT], run.algorithm.num_environments, run.environment_arguments)
        stack.callback(copies.close)
        _check_fits(run, copies)
        environments.record_info(copies, run.record_info)
        run, worlds = _worlds(run.begun(), given, copies, stack)
        worlds.make_chunk = _make_chunk(run, given, worlds, stack)
        worlds.notes.append(sizes.check(run, folder, len(checkpoints.numbered(folder / CHECKPOINTS))))
        with writing(run, folder, checkpoint.path if checkpoint else None):
            log = folders.cut_back(folder, checkpoint)
            persistence.remove(folder / SUMMARY)
            run.write(folder)
        return _record(run, given, worlds, folder, quiet, on_full_disk, checkpoint, log, on_chunk)


@dataclasses.dataclass
class _Chosen:
    """What a caller of `train` asked for, in our words."""

    algorithm: Any
    environment: Any
    arguments: dict[str, Any]
    steps: int | None


def _choose(algorithm: Any, environment: Any, steps: Any, network: Any, given: Any, more: dict[str, Any]) -> _Chosen:
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
    return _Chosen(algorithm, environment, arguments, steps)


def _configure(chosen: _Chosen, seed: Any, seeds: Any, stack: contextlib.ExitStack) -> tuple[Configuration, Any]:
    """The configuration of a run without intervals, and the copies that it trains in, which `stack` closes."""
    seeds = words.whole_number(seeds, "seeds", low=1, high=MAX_SEEDS)
    seed = words.whole_number(seed, "seed")
    trainer.check_seed(seed + seeds - 1)
    prepare()
    copies = _make(chosen.environment, chosen.algorithm.num_environments, chosen.arguments)
    stack.callback(copies.close)
    check_suitable(chosen.algorithm, copies.observation_space, copies.action_space)
    if chosen.steps is None:
        raise SettingError("how long? Say it in steps of the environment: steps=50_000 (--steps 50_000)")
    check_beyond_warmup(chosen.algorithm, chosen.steps)
    is_id = isinstance(chosen.environment, str)
    run = Configuration(
        algorithm=chosen.algorithm,
        environment=chosen.environment if is_id else environments.name_of(chosen.environment),
        environment_is_id=is_id,
        environment_arguments=chosen.arguments,
        compiled=copies.compiled,
        observation_space=copies.observation_space,
        action_space=copies.action_space,
        steps=chosen.steps,
        seed=seed,
        seeds=seeds,
        evaluate_every=0,
        evaluate_episodes=None,
        final_episodes=None,
        checkpoint_every=0,
        id=uuid.uuid4().hex,
    )
    return run, copies


def check_beyond_warmup(algorithm: Any, steps: int) -> None:
    """SettingError where a run would end before it learns anything."""
    if algorithm.warmup_steps and trainer.iterations_for(algorithm, steps) <= trainer.warmup_iterations(algorithm):
        raise SettingError(
            f"{steps:,} steps are all warm-up, in which nothing is learned: {type(algorithm).__name__}'s warmup_steps "
            f"is {algorithm.warmup_steps:,}. Give more steps, or a smaller warmup_steps"
        )


@dataclasses.dataclass
class _Worlds:
    """The copies of environments that a run plays in."""

    training: Any
    evaluation: Any  # None where nothing is evaluated; those of training where there can be no others
    notes: list[str]  # what is to be said of them
    make_chunk: Callable[..., trainer.Chunk] = trainer.Chunk

    @property
    def shared(self) -> bool:
        return self.evaluation is self.training


def _worlds(
    run: Configuration, given: Mapping[str, Any], training: Any, stack: contextlib.ExitStack
) -> tuple[Configuration, _Worlds]:
    """The copies for evaluations beside those of training, and the configuration that says which those are."""
    other = given[EVALUATION_ENVIRONMENT]
    if other is not None:
        is_id = isinstance(other, str)
        run = dataclasses.replace(
            run,
            evaluation_environment=other if is_id else environments.name_of(other),
            evaluation_environment_is_id=is_id,
        )
    if not run.evaluation_interval:
        return run, _Worlds(training, None, [])
    made, reason = _to_evaluate_in(run, given, training, stack)
    if made is not training:
        return run, _Worlds(training, made, [])
    note = "evaluations play in the one copy that there is, and cut its running episode (a truncation)"
    return run.noting(evaluation=f"{note}: {reason}"), _Worlds(training, training, [note])


def _to_evaluate_in(
    run: Configuration, given: Mapping[str, Any], training: Any, stack: contextlib.ExitStack
) -> tuple[Any, str]:
    """Copies for evaluations, which `stack` closes; or `training`, and why there can be no others."""
    other = given[EVALUATION_ENVIRONMENT]
    if other is None:
        made, reason = _beside(run, given[ENVIRONMENT], training)
    else:
        made, reason = _make(other, _copies(run), {}), ""
    if made is not training:
        stack.callback(made.close)
    if other is not None:
        _check_spaces(run, made, "the evaluation_environment")
    return made, reason


def _make_chunk(
    run: Configuration, given: Mapping[str, Any], worlds: _Worlds, stack: contextlib.ExitStack
) -> Callable[..., trainer.Chunk]:
    """What makes the chunks that users get: they play in the copies for evaluations, or in some made when asked."""

    @functools.cache
    def place() -> chunks.Place:
        made, reason = worlds.evaluation, worlds.notes[0] if worlds.shared else ""
        if made is None:
            made, reason = _to_evaluate_in(run, given, worlds.training, stack)
        if made is worlds.training:
            raise UnsuitableError(f"chunk.evaluate needs evaluation_environment=..., another than trained in: {reason}")
        return chunks.Place(made, run.evaluation_plan(made).longest)

    return functools.partial(chunks.Chunk, algorithm=run.algorithm, place=place)


def _beside(run: Configuration, environment: Any, training: Any) -> tuple[Any, str]:
    """Copies of the environment trained in for evaluations: new ones, or `training` where it can only exist once."""
    try:
        made = _make(environment, _copies(run), run.environment_arguments)
        environments.check_distinct(training, made)
    except ThorndikeError as error:
        alone = not training.compiled and training.num_environments == 1
        if alone and run.evaluation_copies is None:
            return training, str(error)
        remedy = "evaluate_every=0 does without, num_environments=1 lets one copy serve training and evaluation in turn"
        raise type(error)(f"copies for evaluations cannot be made: {error} ({remedy})") from error
    return made, ""


def _copies(run: Configuration) -> int:
    """How many copies evaluations play in."""
    most = evaluation.COPIES
    return run.evaluation_copies or (most if run.compiled else min(most, run.algorithm.num_environments))


def check_suitable(algorithm: Any, observation_space: Any, action_space: Any) -> None:
    """Where the algorithm refuses the spaces, say which others do not; refuse networks that do not fit them."""
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


def prepare() -> None:
    """Set JAX up before anything touches it."""
    compilation.cache_programs()
    trainer.configure()


def _count(value: Any, name: str, low: int = 1, high: int = words.MOST) -> int | None:
    return None if value is None else words.whole_number(value, name, low, high)


def _check_on_full_disk(value: Any) -> None:
    choices = typing.get_args(words.OnFullDisk)
    if not isinstance(value, str) or value not in choices:
        raise SettingError(f"on_full_disk must be one of {', '.join(map(repr, choices))}, got {shown(value)}")


def _check_on_chunk(value: Any) -> None:
    if value is not None and not callable(value):
        raise SettingError(f"on_chunk must be a function that takes a chunk, got {shown(value)}")


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


def _check_quiet(value: Any) -> None:
    if not isinstance(value, bool):
        raise SettingError(f"quiet must be True or False, got {shown(value)}")


def _record(
    run: Configuration,
    given: dict[str, Any],
    worlds: _Worlds,
    folder: Path | None,
    quiet: bool,
    on_full_disk: words.OnFullDisk,
    checkpoint: checkpoints.Checkpoint | None = None,
    log: records.Log | None = None,
    on_chunk: chunks.OnChunk | None = None,
) -> Run:
    """Train as configured, recording into `folder` if there is one."""
    total_steps = trainer.iterations_for(run.algorithm, run.steps) * trainer.steps_per_iteration(run.algorithm)
    title = f"{run.algorithm_name} {run.environment}"
    story = console.Story(
        title, total_steps, run.seeds, settings.solved_at(given[ENVIRONMENT]), log.rows if log else []
    )
    display = console.display(story, quiet)
    signals = interrupts.Interrupts()
    recording = Recording(run, worlds.evaluation, folder, display, signals, on_full_disk, checkpoint, log, on_chunk)
    story.notes = [note for note in (recording.plan.cost if recording.plan else "", *worlds.notes) if note]
    interval = recording.interval(run.evaluation_interval)
    every = [interval, recording.interval(run.checkpoint_every) if folder else 0]
    saved = {seed: checkpoint.arrays(seed) for seed in checkpoint.seeds} if checkpoint else None
    progress = trainer.train(
        run.algorithm, lambda: worlds.training, run.steps, seed=run.seed, seeds=run.seeds, every=every,
        row_every=recording.interval(run.metrics_every or 0), lend_every=interval if worlds.shared else 0,
        resume=saved, ended=recording.stopped, parallel=_parallel(run, checkpoint), make_chunk=worlds.make_chunk,
    )  # fmt: skip
    last_words: list[str] = []
    with signals:
        display.start()
        try:
            if recording.follow(progress):
                summary = recording.finish()
                last_words = console.last_words(title, summary, folder)
            else:
                last_words = [_stopped(run, recording, folder)]
        except EnvironmentFault as fault:
            raise EnvironmentFault(f"{fault}. {saved_before(run, folder, recording.last)}") from fault
        except interrupts.Interrupted:
            last_words = [f"stopped while the disk was full. {saved_before(run, folder, recording.last)}"]
        finally:
            display.stop(last_words)
        if signals.pending:
            signals.throw(signals.pending, last_words[0])
    outcomes = [recording.outcomes[seed] for seed in run.chosen_seeds]
    agents = [Agent(run.algorithm, outcome.state, run.observation_space, run.action_space) for outcome in outcomes]
    stand = [(seed, recording.outcomes[seed].iteration) for seed in run.chosen_seeds]
    return Run(recording.configuration, given, folder, summary, recording.log.rows, agents, stand, recording.best)


def _parallel(run: Configuration, checkpoint: checkpoints.Checkpoint | None) -> trainer.Parallel:
    """As training chooses; but seeds that were stopped at different iterations cannot go on as one program."""
    iterations = [checkpoint.seeds.get(seed, {}).get("iteration") for seed in run.chosen_seeds] if checkpoint else []
    return "sequential" if len(set(iterations)) > 1 and jax.default_backend() != "cpu" else "auto"


def _stopped(run: Configuration, recording: Recording, folder: Path | None) -> str:
    steps = max(outcome.steps for outcome in recording.outcomes.values())
    if folder is None:
        return f"stopped at step {steps:,}; nothing was saved (run_dir is None)"
    return f"stopped at step {steps:,} and saved; go on with: {configuration.how_to_resume(run, folder)}"


def _make(environment: Any, copies: int, arguments: Mapping[str, Any]) -> Any:
    return environments.make(environment, copies, **arguments)


def _check_fits(run: Configuration, made: Any) -> None:
    """RunError where the environment handed in is not of the kind that the run was trained in."""
    _check_spaces(run, made)
    if made.compiled != run.compiled:
        kinds = {True: "compiled", False: "on the host"}
        raise RunError(f"the environment was {kinds[run.compiled]}, the one handed in is {kinds[made.compiled]}")


def _check_spaces(run: Configuration, made: Any, what: str = "the environment") -> None:
    """RunError where an environment has other spaces than the run is trained in."""
    for name in ("observation_space", "action_space"):
        now, then = spaces.describe(getattr(made, name)), spaces.describe(getattr(run, name))
        if now != then:
            raise RunError(f"{what} does not fit this run: its {name} was {then!s:.90}, now it is {now!s:.90}")


def _check_unfinished(run: Configuration, checkpoint: checkpoints.Checkpoint | None, folder: Path) -> None:
    """RunError where there is nothing to go on with."""
    if checkpoint is None:
        folders.check_never_saved(run, folder)
        return
    total = trainer.iterations_for(run.algorithm, run.steps)
    entries = checkpoint.seeds.values()
    # A seed that has just reached an end put nearer now has no results: those come with the last step.
    if any(entry["iteration"] > total - ("results" not in entry) for entry in entries):
        steps = max(entry["steps"] for entry in entries)
        raise RunError(f"{folder} is at {steps:,} steps already: {run.steps:,} are not beyond that")
    done = len(entries) == run.seeds and all(entry["iteration"] >= total for entry in entries)
    if done and persistence.exists(folder / SUMMARY):
        raise RunError(f"{folder} is complete: say how far to go on, --steps {2 * run.steps} or steps={2 * run.steps}")
