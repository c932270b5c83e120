"""Runs: train, load and resume them. A run is a folder, or with `run_dir=None` only an object.

config.json      algorithm, every hyper-parameter, environment, seeds, versions
metrics.jsonl    one row a line
checkpoints/     step-000050000/{seed-0.safetensors, ..., manifest.json}
summary.json     once the run has reached its end
"""

from __future__ import annotations

import dataclasses
import inspect
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from thorndike import (
    algorithms,
    checkpoints,
    compilation_cache,
    configuration,
    console,
    environments,
    evaluation,
    interrupts,
    records,
    settings,
    snapshots,
    spaces,
    trainer,
    words,
)
from thorndike.agents import Agent
from thorndike.configuration import Configuration
from thorndike.errors import RunError, SettingError, UnknownNameError, UnsuitableError
from thorndike.persistence import empty_folder, locked, read_json, unused_folder
from thorndike.recording import CHECKPOINTS, SUMMARY, Recording

AUTO = "auto"
TIMES_A_RUN = 10  # evaluations and checkpoints, unless told otherwise


class Run:
    """A run that has reached its end, or as far as its last checkpoint."""

    def __init__(self, configuration: Configuration, environment: Any, folder: Path | None, summary: dict[str, Any],
                 rows: list[dict[str, Any]], agents: list[Agent], stand: list[tuple[int, int]]) -> None:  # fmt: skip
        """Made by `train`, `resume` and `load`; `stand` is the seed and the iteration of each agent."""
        self.configuration = configuration
        self.folder = folder
        self.summary = summary
        self.agents = agents
        self._rows, self._environment, self._stand = rows, environment, stand

    @property
    def agent(self) -> Agent:
        """That of the first seed (which need not be the best)."""
        return self.agents[0]

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Every column of metrics.jsonl as an array, NaN where a row has no such value."""
        return records.columns(self._rows)

    def evaluate(self, episodes: int = 100) -> dict[str, Any]:
        """Greedy episodes of every seed: mean and spread, over several seeds also iqm and a 95 % interval.

        RunError or UnsafeCheckpointError where a loaded run's environment has to be handed in again.
        """
        episodes = words.whole_number(episodes, "episodes", low=1)
        chosen = configuration.trusted_environment(self.configuration, self.folder or Path(), self._environment)
        make = _maker(chosen, self.configuration.environment_arguments)
        _check_spaces(self.configuration, make(1))
        returns = []
        for agent, (seed, iteration) in zip(self.agents, self._stand, strict=True):
            key = evaluation.evaluation_key(seed, iteration)
            returns.append(evaluation.evaluate(agent.algorithm, make, agent.state, key, episodes)[0])
        return evaluation.summarize(returns)

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
    evaluate_episodes: int = 10,
    final_episodes: int = 100,
    checkpoint_every: int | None = None,
    quiet: bool = False,
    network: Any = None,
    environment_arguments: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Run:
    """Train, and come back with a Run.

    `algorithm` is an object, used as it is, or a name, which takes the recorded settings for the pair where there are
    some (then `steps` may be left out). `environment` is an id, a class, a function that makes one, or an object of
    which fresh copies can be made; `arguments` and `environment_arguments` go to it. `steps` and intervals are per
    seed; seeds are seed, seed + 1, ... `evaluate_every` is ten times a run unless given; 0 switches all evaluation
    off. `run_dir` is the folder to write, by default runs/ALGORITHM-ENVIRONMENT-TIME; None writes nothing.

    Raises a ThorndikeError, before anything is compiled, where that cannot work. Ctrl-C and SIGTERM save, then raise
    KeyboardInterrupt or SystemExit(143).
    """
    chosen = _choose(algorithm, environment, steps, network, environment_arguments, arguments)
    run = _configure(chosen, seed, seeds)
    run = dataclasses.replace(
        run,
        evaluate_every=_interval(evaluate_every, "evaluate_every", run),
        checkpoint_every=_interval(checkpoint_every, "checkpoint_every", run),
        evaluate_episodes=words.whole_number(evaluate_episodes, "evaluate_episodes", low=1),
        final_episodes=words.whole_number(final_episodes, "final_episodes", low=1),
    ).begun()
    if run_dir is None:
        return _record(run, chosen.environment, None, quiet)
    if run_dir == AUTO:
        started = time.strftime("%Y%m%d-%H%M%S")
        folder = unused_folder(Path("runs"), f"{run.algorithm_name}-{environments.name_of(environment)}-{started}")
    else:
        folder = empty_folder(Path(run_dir))
    with locked(folder):
        run.write(folder)
        return _record(run, chosen.environment, folder, quiet)


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

    Arguments as those of `train`. A chunk is valid until the next turn of the loop.
    """
    chosen = _choose(algorithm, environment, steps, network, environment_arguments, arguments)
    run = _configure(chosen, seed, seeds)
    make = _maker(chosen.environment, run.environment_arguments)
    copies = run.algorithm.num_environments
    return trainer.train(run.algorithm, lambda: make(copies), run.steps, seed=run.seed, seeds=run.seeds)


def load(run_dir: str | Path, *, environment: Any = None, network: Any = None, **networks: Any) -> Run:
    """The run in a folder, as far as its newest whole checkpoint. Safe on a folder from a stranger: no code runs.

    `network` (and `critic_network`, ...) is handed in again where it was your own, `environment` where
    `Run.evaluate` should use one that is. RunError or a kind of it where the folder is none of ours.
    """
    folder = Path(run_dir)
    run = configuration.read(folder, _given_networks(network, networks))
    compilation_cache.switch_on()
    checkpoint = checkpoints.newest(folder / CHECKPOINTS)
    if checkpoint is None:
        raise RunError(f"{folder} has no checkpoint yet")
    agents, stand = [], []
    for seed, entry in sorted(checkpoint.seeds.items()):
        arrays = checkpoint.arrays(seed, snapshots.STATE)
        state = snapshots.arrays_to_state(run.algorithm, run.observation_space, run.action_space, arrays)
        fraction = entry["iteration"] / max(1, checkpoint.iterations)
        agents.append(Agent(run.algorithm, state, run.observation_space, run.action_space, fraction))
        stand.append((seed, entry["iteration"]))
    summary = read_json(folder / SUMMARY) if (folder / SUMMARY).is_file() else {}
    return Run(run, environment, folder, summary, records.read(folder), agents, stand)


def resume(
    run_dir: str | Path,
    steps: int | None = None,
    *,
    environment: Any = None,
    network: Any = None,
    quiet: bool = False,
    **networks: Any,
) -> Run:
    """Go on with a run from its newest whole checkpoint, as if it had never stopped; with `steps`, to another end.

    `environment` and `network` are handed in again where they are your own or come from a module of somebody's.
    RunError where the run is complete, in use, or does not fit what is handed in.
    """
    folder = Path(run_dir)
    run = configuration.read(folder, _given_networks(network, networks))
    chosen = configuration.trusted_environment(run, folder, environment)
    with locked(folder):
        run = dataclasses.replace(run, steps=run.steps if steps is None else words.whole_number(steps, "steps", low=1))
        _prepare()
        _check_fits(run, chosen)
        checkpoint = checkpoints.newest(folder / CHECKPOINTS)
        _check_unfinished(run, checkpoint, folder)
        done = {seed: entry["steps"] for seed, entry in checkpoint.seeds.items()} if checkpoint else {}
        rows = records.cut_back(folder, done)
        (folder / SUMMARY).unlink(missing_ok=True)
        run = run.begun()
        run.write(folder)
        return _record(run, chosen, folder, quiet, checkpoint, rows)


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
        cls = algorithms.get(algorithm)
        recorded = settings.recorded(cls.__name__.lower(), environment)
        algorithm = recorded.algorithm if recorded else cls()
    elif isinstance(algorithm, type):
        algorithm = algorithm()
    if not (hasattr(algorithm, "act") and hasattr(algorithm, "update")):
        raise SettingError(f"an algorithm is a name or an object such as td.DQN(), got {algorithm!r}")
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
    return _Chosen(algorithm, environment, configuration.check_arguments({**more, **(given or {})}), steps)


def _configure(chosen: _Chosen, seed: Any, seeds: Any) -> Configuration:
    """The configuration of a run without intervals; its environment is made once, to know its spaces."""
    seeds, seed = words.whole_number(seeds, "seeds", low=1), words.whole_number(seed, "seed")
    trainer.check_seed(seed + seeds - 1)
    _prepare()
    environment = environments.make(chosen.environment, 1, **chosen.arguments)
    try:
        observation_space, action_space = environment.observation_space, environment.action_space
        _check_suitable(chosen, observation_space, action_space)
        if chosen.steps is None:
            raise SettingError("how long? Say it in steps of the environment: steps=50_000 (--steps 50_000)")
        is_id = isinstance(chosen.environment, str)
        return Configuration(
            algorithm=chosen.algorithm,
            environment=chosen.environment if is_id else environments.name_of(chosen.environment),
            environment_is_id=is_id,
            environment_arguments=chosen.arguments,
            compiled=environment.compiled,
            observation_space=observation_space,
            action_space=action_space,
            steps=chosen.steps,
            seed=seed,
            seeds=seeds,
            evaluate_every=0,
            evaluate_episodes=1,
            final_episodes=1,
            checkpoint_every=0,
        )
    finally:
        _close(environment)


def _check_suitable(chosen: _Chosen, observation_space: Any, action_space: Any) -> None:
    """Where the algorithm refuses the spaces, say which others do not; refuse networks that do not fit them."""
    try:
        chosen.algorithm.check(observation_space, action_space)
    except UnsuitableError as error:
        fitting = []
        for name in algorithms.ALGORITHMS:
            other = algorithms.get(name)
            try:
                other().check(observation_space, action_space)
            except UnsuitableError:
                continue
            if other is not type(chosen.algorithm):
                fitting.append(name)
        if not fitting:
            raise
        raise UnsuitableError(f"{error}. These fit: {', '.join(fitting)}") from None
    jax.eval_shape(lambda key: chosen.algorithm.init(key, observation_space, action_space), jax.random.key(0))


def _prepare() -> None:
    """Set JAX up before anything touches it."""
    compilation_cache.switch_on()
    trainer.configure()


def _interval(steps: Any, name: str, run: Configuration) -> int:
    """An interval in steps: as given, or ten times a run at the ends of rows of metrics."""
    if steps is not None:
        return words.whole_number(steps, name)
    total = trainer.iterations_for(run.algorithm, run.steps)
    row = -(-total // trainer.ROWS)
    return row * max(1, round(total / row / TIMES_A_RUN)) * trainer.steps_per_iteration(run.algorithm)


def _record(
    run: Configuration,
    environment: Any,
    folder: Path | None,
    quiet: bool,
    checkpoint: checkpoints.Checkpoint | None = None,
    rows: list[dict[str, Any]] | None = None,
) -> Run:
    """Train as configured, recording into `folder` if there is one."""
    total_steps = trainer.iterations_for(run.algorithm, run.steps) * trainer.steps_per_iteration(run.algorithm)
    title = f"{run.algorithm_name} {run.environment}"
    story = console.Story(title, total_steps, run.seeds, settings.solved_at(environment), rows or [])
    display = console.display(story, quiet)
    make = _maker(environment, run.environment_arguments)
    recording = Recording(run, make, folder, display, checkpoint, rows)
    every = [recording.interval(run.evaluate_every), recording.interval(run.checkpoint_every) if folder else 0]
    saved = {seed: checkpoint.arrays(seed) for seed in checkpoint.seeds} if checkpoint else None
    chunks = trainer.train(
        run.algorithm, lambda: make(run.algorithm.num_environments), run.steps,
        seed=run.seed, seeds=run.seeds, every=every, resume=saved, parallel=_parallel(run, checkpoint),
    )  # fmt: skip
    last_words: list[str] = []
    with interrupts.Interrupts() as signals:
        display.start()
        try:
            if not recording.follow(chunks, signals):
                last_words = [_stopped(run, recording, folder)]
                signals.throw(signals.pending or signal.SIGINT, last_words[0])
            summary = recording.finish()
            last_words = console.last_words(title, summary, folder)
        finally:
            display.stop(last_words)
    outcomes = [recording.outcomes[seed] for seed in run.chosen_seeds]
    agents = [Agent(run.algorithm, outcome.state, run.observation_space, run.action_space) for outcome in outcomes]
    stand = [(seed, recording.outcomes[seed].iteration) for seed in run.chosen_seeds]
    return Run(run, environment, folder, summary, recording.rows, agents, stand)


def _parallel(run: Configuration, checkpoint: checkpoints.Checkpoint | None) -> trainer.Parallel:
    """As training chooses; but seeds that were stopped at different iterations cannot go on as one program."""
    iterations = [checkpoint.seeds.get(seed, {}).get("iteration") for seed in run.chosen_seeds] if checkpoint else []
    return "sequential" if len(set(iterations)) > 1 and jax.default_backend() != "cpu" else "auto"


def _stopped(run: Configuration, recording: Recording, folder: Path | None) -> str:
    steps = max(outcome.steps for outcome in recording.outcomes.values())
    if folder is None:
        return f"stopped at step {steps:,}; nothing was saved (run_dir is None)"
    return f"stopped at step {steps:,} and saved; go on with: {configuration.how_to_resume(run, folder)}"


def _maker(environment: Any, arguments: Mapping[str, Any]) -> Any:
    """A function of a number of copies that makes them."""
    return lambda copies: environments.make(environment, copies, **arguments)


def _close(environment: Any) -> None:
    getattr(environment, "close", lambda: None)()


def _check_fits(run: Configuration, environment: Any) -> None:
    """RunError where the environment handed in is not of the kind that the run was trained in."""
    made = environments.make(environment, 1, **run.environment_arguments)
    _check_spaces(run, made)
    if made.compiled != run.compiled:
        kinds = {True: "compiled", False: "on the host"}
        raise RunError(f"the environment was {kinds[run.compiled]}, the one handed in is {kinds[made.compiled]}")


def _check_spaces(run: Configuration, made: Any) -> None:
    """RunError where an environment, closed hereafter, has other spaces than the run was trained in."""
    _close(made)
    for name in ("observation_space", "action_space"):
        now, then = spaces.describe(getattr(made, name)), spaces.describe(getattr(run, name))
        if now != then:
            raise RunError(f"the environment does not fit this run: its {name} was {then}, now it is {now}")


def _check_unfinished(run: Configuration, checkpoint: checkpoints.Checkpoint | None, folder: Path) -> None:
    """RunError where there is nothing to go on with."""
    if checkpoint is None:
        return
    total = trainer.iterations_for(run.algorithm, run.steps)
    entries = checkpoint.seeds.values()
    # A seed that has just reached an end put nearer now has no results: those come with the last step.
    if any(entry["iteration"] > total - ("results" not in entry) for entry in entries):
        steps = max(entry["steps"] for entry in entries)
        raise RunError(f"{folder} is at {steps:,} steps already: {run.steps:,} are not beyond that")
    done = len(entries) == run.seeds and all(entry["iteration"] >= total for entry in entries)
    if done and (folder / SUMMARY).exists():
        raise RunError(f"{folder} is complete: say how far to go on, --steps {2 * run.steps} or steps={2 * run.steps}")


def _given_networks(network: Any, networks: dict[str, Any]) -> dict[str, Any]:
    for name in networks:
        if not name.endswith("network"):
            ours = words.RUN_WORDS.get(name, "environment=, network= and the like that are handed in again")
            raise UnknownNameError(f"no argument '{name}': there is {ours}")
    return {name: value for name, value in {"network": network, **networks}.items() if value is not None}
