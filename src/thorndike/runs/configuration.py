"""What a run is, as data: all that config.json holds, enough to run it again, and nothing that could run by itself."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
import typing
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from thorndike import algorithms, persistence, spaces, trainer
from thorndike.environments import suites
from thorndike.environments.workers import NO_WORKERS, Workers
from thorndike.errors import RunError, SettingError, ThorndikeError, UnsafeCheckpointError, shown
from thorndike.evaluation import Plan, longest_episode
from thorndike.hyperparameters import class_name, from_json, to_json
from thorndike.runs import checkpoints, earlier, schema

FORMAT = 4
UNSEALED = 1  # the format that bore no digest, and no id of its run
EARLIER = (UNSEALED, 2, 3)  # formats whose algorithms had other words: `earlier` knows which
FILE = "config.json"
ENVIRONMENT, EVALUATION_ENVIRONMENT = "environment", "evaluation_environment"  # what plays which role
OWN_LOOP = "a loop of your own"  # the environment of what a Learner has learned; no class or id has blanks in it
FOREIGN = "foreign"  # the type of what JSON cannot hold: a network or an optimizer of the user's own
SAFE_PREFIXES = ("gymnasium", "envpool", "atari", *suites.SUITES)  # libraries that the user has installed
ROW_MEANS = ("return", "episode_length", "evaluation")  # columns of metrics that end in _mean
MAX_NAME, MAX_NAMES = 100, 100  # of what is recorded of `info`
MAX_SEEDS, MAX_EPISODES, MAX_COPIES = 100_000, 10**6, 2**20
TIMES_A_RUN = 10  # evaluations and checkpoints, unless told otherwise
PACKAGES = ("thorndike", "jax", "jaxlib", "equinox", "optax", "gymnasium", "numpy")


Episodes = Annotated[int, schema.Range(1, MAX_EPISODES)]


class Session(TypedDict):
    """When a run was begun or resumed, to how many steps, and what is to be said of it."""

    at: str
    steps: schema.Positive
    versions: dict[str, str]
    evaluation: NotRequired[str]
    inexact: NotRequired[list[str]]
    lost: NotRequired[list[str]]  # actors that were lost, and replaced
    stopped: NotRequired[dict[str, int]]  # by seed, the steps after which `on_chunk` has stopped it


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One run. Counts of steps are per seed; an interval of 0 means never. Annotations are what a file is held to."""

    algorithm: Any
    environment: str  # an id, or the name of the class or factory
    environment_is_id: bool
    environment_arguments: dict[str, Any]
    compiled: bool  # whether the environment is
    observation_space: Any
    action_space: Any
    steps: schema.Positive
    seed: int
    seeds: Annotated[int, schema.Range(1, MAX_SEEDS)]
    evaluate_every: int | None  # None: ten times a run
    evaluate_episodes: Episodes | None  # None, here and below: as many as the steps of the run afford
    final_episodes: Episodes | None
    checkpoint_every: int
    keep_checkpoints: schema.Positive = checkpoints.KEPT
    metrics_every: schema.Positive | None = None  # steps between two rows of metrics; None: ROWS of them a run
    record_info: tuple[str, ...] = ()  # names in `info` whose values, at the ends of episodes, are metrics
    evaluation_copies: Annotated[int, schema.Range(1, MAX_COPIES)] | None = (
        None  # None: as many as training has, at most ten
    )
    evaluation_environment: str | None = None  # where it is another than trained in
    evaluation_environment_is_id: bool = False
    workers: Annotated[int, schema.Range(0, MAX_COPIES)] = 0  # processes that step the copies on the host
    worker_timeout: float = NO_WORKERS.timeout
    on_fault: str = NO_WORKERS.on_fault
    max_restarts: schema.Positive = NO_WORKERS.max_restarts
    overlap: bool = False  # whether each rollout is learned from while the next one is acted
    actors: Annotated[int, schema.Range(1, MAX_COPIES)] | None = None  # Ray's, among whom copies are shared; None: none
    history: tuple[Session, ...] = ()  # when it was begun, and each time it was resumed
    id: str = ""  # what its checkpoints bear too; "" in runs from before there were any

    @property
    def algorithm_name(self) -> str:
        """As on the command line: "dqn"."""
        return type(self.algorithm).__name__.lower()

    @property
    def own_loop(self) -> bool:
        """Whether the user moved the environment, and a Learner learned."""
        return self.environment == OWN_LOOP and not self.environment_is_id

    @property
    def chosen_seeds(self) -> list[int]:
        """seed, seed + 1, ..."""
        return list(range(self.seed, self.seed + self.seeds))

    @property
    def environments(self) -> dict[str, tuple[str, bool]]:
        """By the argument that takes it, each environment of the run: an id or a name, and whether it is an id."""
        roles = {ENVIRONMENT: (self.environment, self.environment_is_id)}
        if self.evaluation_environment is not None:
            roles[EVALUATION_ENVIRONMENT] = (self.evaluation_environment, self.evaluation_environment_is_id)
        return roles

    @property
    def evaluation_interval(self) -> int:
        """Steps between two evaluations, 0 for none at all."""
        return default_interval(self.algorithm, self.steps) if self.evaluate_every is None else self.evaluate_every

    def processes(self, copies: int) -> Workers:
        """Who steps so many copies of an environment on the host."""
        return Workers(self.workers, self.worker_timeout, self.on_fault, self.max_restarts).of(copies)

    def in_iterations(self, interval: int) -> int:
        """An interval in steps as one in iterations, 0 for never."""
        return max(1, round(interval / trainer.steps_per_iteration(self.algorithm))) if interval else 0

    @property
    def earlier_ends(self) -> set[int]:
        """The steps at which the run had come to an end before it was extended."""
        each = trainer.steps_per_iteration(self.algorithm)
        planned = {each * trainer.iterations_for(self.algorithm, entry["steps"]) for entry in self.history}
        return planned.union(*(entry.get("stopped", {}).values() for entry in self.history))

    def evaluation_plan(self, environment: Any) -> Plan:
        """How much evaluation the run affords in copies of `environment`."""
        each, total = trainer.steps_per_iteration(self.algorithm), trainer.iterations_for(self.algorithm, self.steps)
        interval = max(1, self.in_iterations(self.evaluation_interval))
        return Plan(
            steps=total * each,
            moments=(total - 1) // interval,
            longest=longest_episode(environment.max_steps, total * self.algorithm.rollout_length),
            limited=not environment.compiled,
            moments_are_set=self.evaluate_every is not None,
            episodes=self.evaluate_episodes,
            final_episodes=self.final_episodes,
        )

    def begun(self) -> Configuration:
        """The same with one more entry in its history: now, and with what."""
        entry: Session = {"at": time.strftime("%Y-%m-%d %H:%M:%S"), "steps": self.steps, "versions": versions()}
        return dataclasses.replace(self, history=(*self.history, entry))

    def noting(self, **said: Any) -> Configuration:
        """The same with more said in the newest entry of its history."""
        *before, now = self.history
        return dataclasses.replace(self, history=(*before, typing.cast(Session, now | said)))

    def to_json(self) -> dict[str, Any]:
        """What config.json and every checkpoint hold of a run."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["algorithm"] = to_json(self.algorithm)
        for name in ("observation_space", "action_space"):
            values[name] = spaces.describe(values[name])
        return persistence.plain({"format": FORMAT} | values)

    def write(self, folder: Path) -> None:
        """As config.json in `folder`."""
        persistence.write_json(folder / FILE, persistence.sealed(self.to_json()))


def default_interval(algorithm: Any, steps: int) -> int:
    """Steps between evaluations or checkpoints, ten times a run, at the ends of rows of metrics."""
    total = trainer.iterations_for(algorithm, steps)
    row = trainer.row_length(total)
    return row * max(1, round(total / row / TIMES_A_RUN)) * trainer.steps_per_iteration(algorithm)


def read(folder: Path) -> dict[str, Any]:
    """What config.json in `folder` holds, as JSON; CorruptCheckpointError where it is not as it was written."""
    path = folder / FILE
    values = persistence.read_json(path)
    return values if values.get("format") == UNSEALED and "digest" not in values else persistence.unsealed(values, path)


def from_json_values(values: Mapping[str, Any], own: Mapping[str, Any], folder: Path) -> Configuration:
    """The configuration that `to_json` gave of the run in `folder`.

    `own` is what the user hands in again: `algorithm`, and by field name networks and memories. RunError where some of
    it is missing; UnsafeCheckpointError where it is not one that `to_json` gave.
    """
    written = values.get("format")
    if written not in (*EARLIER, FORMAT):
        raise RunError(f"{folder / FILE} has another format than {FORMAT}, which this version of thorndike reads")
    values = {name: value for name, value in values.items() if name != "format"}
    hints = typing.get_type_hints(Configuration, include_extras=True)
    try:
        for name, value in values.items():
            schema.check(value, hints.get(name, Any), name)
        values["algorithm"] = algorithm_from_json(values["algorithm"], own, folder, written)
        for name in ("observation_space", "action_space"):
            values[name] = spaces.from_description(values[name])
        values["history"] = tuple(values["history"])
        values["record_info"] = tuple(values.get("record_info", ()))
        check_arguments(values["environment_arguments"])
        return Configuration(**values)
    except ThorndikeError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise UnsafeCheckpointError(f"{folder / FILE} is not one that thorndike wrote: {error}") from None


def trusted_environment(configuration: Configuration, folder: Path, named: Any, role: str = ENVIRONMENT) -> Any:
    """What to make environments from: `named` if the user named one, else an id that imports nothing of anyone's.

    None where the run has no environment in this role (evaluations play in the one trained in). UnsafeCheckpointError
    where config.json names a module, RunError where the environment was a class or function.
    """
    if named is not None or role not in configuration.environments:
        return named
    recorded, is_id = configuration.environments[role]
    if configuration.own_loop:
        raise RunError(f"{folder} was learned in {recorded}: name an environment to play in ({role}=..., --{role} ...)")
    again = f"thorndike resume {folder} --{role.replace('_', '-')} ..., or td.load/td.resume(..., {role}=...)"
    if not is_id:
        raise RunError(f"{folder} has an {role} of your own, '{recorded}': hand it in again ({again})")
    if module := module_named(recorded):
        raise UnsafeCheckpointError(
            f"{folder} names the module '{module}', which would run its code. If you trust it, name it again: "
            f"{again.replace('...', recorded, 1)}"
        )
    return recorded


def how_to_resume(configuration: Configuration, folder: Path) -> str:
    """The command or call that goes on with a run, with all that has to be handed in again."""
    values = to_json(configuration.algorithm)
    own = [f"algorithm={type(configuration.algorithm).__name__}"] if is_own(values) else []
    own += [f"{name}=..." for name, value in values.items() if is_foreign(value)]
    own += [f"{name}={value['type'].rpartition(':')[2]}" for name, value in values.items() if is_own(value)]
    if not configuration.own_loop:
        own += [f"{role}=..." for role, (_, is_id) in configuration.environments.items() if not is_id]
    if own or configuration.own_loop:
        call = "td.Learner.load" if configuration.own_loop else "td.resume"
        return f"{call}({', '.join([repr(str(folder)), *own])})"
    modules = {role: id for role, (id, _) in configuration.environments.items() if module_named(id)}
    named = [f" --{role.replace('_', '-')} {id}" for role, id in modules.items()]
    return f"thorndike resume {folder}{''.join(named)}"


def module_named(id: str) -> str:
    """The module that making an environment from its id would import; "" where it is none of anyone's."""
    prefix, _, rest = id.rpartition(":")
    return prefix if prefix not in ("", *SAFE_PREFIXES) or ":" in rest else ""


def check_arguments(arguments: Any) -> dict[str, Any]:
    """Environment arguments that are the environment's and that config.json can hold; SettingError for any other."""
    if not isinstance(arguments, Mapping):
        raise SettingError(
            f"environment_arguments must be a dict such as {{'continuous': True}}, got {shown(arguments)}"
        )
    for name, value in arguments.items():
        if name == "num_environments":
            raise SettingError("num_environments is the algorithm's: td.DQN(num_environments=...), --num-environments")
        if not isinstance(name, str) or name == ENVIRONMENT:
            raise SettingError(f"{shown(name)} cannot be an argument of an environment: it names something else here")
        try:
            if json.loads(json.dumps(value, allow_nan=False)) == value:
                continue
        except Exception:  # json's own, and whatever a value of the user's raises when it is looked at
            pass
        raise SettingError(
            f"the environment argument {name}={shown(value)} cannot be recorded as JSON: "
            "hand in a function that makes the environment instead"
        )
    return dict(arguments)


def check_record_info(names: Any) -> tuple[str, ...]:
    """The names that `record_info` gives; SettingError for what are none."""
    names = (names,) if isinstance(names, str) else names
    right = isinstance(names, (list, tuple)) and all(isinstance(name, str) and name.isprintable() for name in names)
    if not right or not all(0 < len(name) <= MAX_NAME for name in names) or len(names) > MAX_NAMES:
        raise SettingError(f"record_info must be names such as ('is_success',), got {shown(names)}")
    for name in names:
        if name in ROW_MEANS:
            raise SettingError(f"record_info: '{name}_mean' is a column of every run already")
    return tuple(dict.fromkeys(names))


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def hyperparameter_classes() -> dict[str, type]:
    """The only classes that a config.json can build, by name."""
    from thorndike import intrinsic, memories, networks, optimizers

    kinds: tuple[Mapping[str, Any], ...] = (
        networks.NETWORKS,
        memories.MEMORIES,
        optimizers.OPTIMIZERS,
        intrinsic.INTRINSICS,
    )
    classes: list[type] = [networks.Same, *(cls for known in kinds for cls in known.values())]
    classes += [algorithms.get(name) for name in algorithms.ALGORITHMS]
    return {cls.__name__: cls for cls in classes}


def algorithm_from_json(values: Any, own: Mapping[str, Any], folder: Path, written: int = FORMAT) -> Any:
    """The algorithm that `to_json` gave for a file of the format `written`.

    Classes that are not ours are those the user hands in: none is looked up.

    ValueError where it is no algorithm, RunError where something of the user's own is missing.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{values!r:.80} is no algorithm")
    classes, kind, given = hyperparameter_classes(), str(values.get("type")), dict(own)
    algorithm = given.pop("algorithm", None)
    if algorithm is None and kind not in algorithms.ALGORITHMS.values():
        if not is_own(values):
            raise ValueError(f"{values!r:.80} is no algorithm")
        raise RunError(f"{folder} trained an algorithm of your own, '{kind}': hand in its class again ({_again(kind)})")
    if algorithm is not None:
        classes |= _classes_of(algorithm, kind, folder)
    values = earlier.in_todays_words(values, classes[kind], written)
    ours = dict(values)
    for name, value in values.items():
        handed_in = given.get(name)
        if is_own(value) and isinstance(handed_in, type):
            classes[value["type"]] = given.pop(name)
        elif is_own(value) and handed_in is None and value["type"] not in classes:
            kind = value["type"].rpartition(":")[2]
            raise RunError(
                f"{folder} has a {name} of your own, '{value['type']}': hand in its class again, {name}={kind}"
            )
        elif is_foreign(value) and handed_in is None:
            what = "a network" if name.endswith("network") else f"an {name}"
            raise RunError(f"{folder} trained {what} of your own as {name}: hand it in again with {name}=...")
        if name in given:
            del ours[name]
    return dataclasses.replace(from_json(ours, classes), **given)


def value_from_json(value: Any) -> Any:
    """A field's value that `to_json` gave, of our own classes alone. A list becomes a tuple."""
    return from_json(value, hyperparameter_classes())


def _classes_of(algorithm: Any, kind: str, folder: Path) -> dict[str, type]:
    """By the names they are recorded as, the class of an algorithm handed in and those of the recipes it holds."""
    cls = algorithm if isinstance(algorithm, type) else type(algorithm)
    if not dataclasses.is_dataclass(cls) or not hasattr(cls, "update"):
        raise SettingError(f"algorithm= takes the class that was trained, got {shown(algorithm)}")
    if cls.__name__ != kind.rpartition(":")[2]:
        raise RunError(f"{folder} trained '{kind}', the algorithm handed in is {cls.__name__}")
    held = [getattr(algorithm, field.name, None) for field in dataclasses.fields(cls)]
    recipes = [type(value) for value in held if dataclasses.is_dataclass(value) and not isinstance(value, type)]
    return {class_name(recipe): recipe for recipe in recipes} | {kind: cls}


def _again(kind: str) -> str:
    """How a class is handed in again."""
    module, _, name = kind.rpartition(":")
    in_a_command = f", or --algorithm {kind}" if module != "__main__" else ""
    return f"td.load/td.resume(..., algorithm={name}){in_a_command}"


def is_own(value: Any) -> bool:
    """Whether JSON values are those of a class that is not of this package."""
    return isinstance(value, dict) and ":" in str(value.get("type"))


def is_foreign(value: Any) -> bool:
    """Whether JSON values stand for a network or an optimizer of the user's own, or for one made of such."""
    if not isinstance(value, dict):
        return False
    return value.get("type") == FOREIGN or any(is_own(part) or is_foreign(part) for part in value.values())
