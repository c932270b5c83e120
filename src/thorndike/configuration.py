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

from thorndike import algorithms, persistence, schema, spaces, trainer
from thorndike.errors import RunError, SettingError, ThorndikeError, UnsafeCheckpointError, shown
from thorndike.evaluation import Plan, longest_episode
from thorndike.hyperparameters import from_json, to_json

FORMAT = 2
UNSEALED = 1  # the format that bore no digest, and no id of its run
FILE = "config.json"
ENVIRONMENT, EVALUATION_ENVIRONMENT = "environment", "evaluation_environment"  # what plays which role
OWN_LOOP = "a loop of your own"  # the environment of what a Learner has learned; no class or id has blanks in it
FOREIGN = "foreign"  # the type of what JSON cannot hold: a network of the user's own
SAFE_PREFIXES = ("gymnasium", "envpool")
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
    evaluation_copies: Annotated[int, schema.Range(1, MAX_COPIES)] | None = (
        None  # None: as many as training has, at most ten
    )
    evaluation_environment: str | None = None  # where it is another than trained in
    evaluation_environment_is_id: bool = False
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

    def in_iterations(self, interval: int) -> int:
        """An interval in steps as one in iterations, 0 for never."""
        return max(1, round(interval / trainer.steps_per_iteration(self.algorithm))) if interval else 0

    @property
    def earlier_ends(self) -> set[int]:
        """The steps at which the run had come to an end before it was extended."""
        each = trainer.steps_per_iteration(self.algorithm)
        ends = (trainer.iterations_for(self.algorithm, entry["steps"]) for entry in self.history)
        return {end * each for end in ends}

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


def from_json_values(values: Mapping[str, Any], networks: Mapping[str, Any], folder: Path) -> Configuration:
    """The configuration that `to_json` gave of the run in `folder`; `networks` are the user's own, by field name.

    RunError where a network is missing; UnsafeCheckpointError where it names what is not ours.
    """
    if values.get("format") not in (UNSEALED, FORMAT):
        raise RunError(f"{folder / FILE} has another format than {FORMAT}, which this version of thorndike reads")
    values = {name: value for name, value in values.items() if name != "format"}
    hints = typing.get_type_hints(Configuration, include_extras=True)
    try:
        for name, value in values.items():
            schema.check(value, hints.get(name, Any), name)
        values["algorithm"] = _algorithm_from_json(values["algorithm"], networks, folder)
        for name in ("observation_space", "action_space"):
            values[name] = spaces.from_description(values[name])
        values["history"] = tuple(values["history"])
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
    own = _foreign(to_json(configuration.algorithm))
    if not configuration.own_loop:
        own += [role for role, (_, is_id) in configuration.environments.items() if not is_id]
    if own or configuration.own_loop:
        call = "td.Learner.load" if configuration.own_loop else "td.resume"
        return f"{call}({', '.join([repr(str(folder)), *(f'{name}=...' for name in own)])})"
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
    from thorndike import memories, networks

    classes = [networks.MLP, networks.CNN, networks.Same, memories.Latest, memories.Replay, memories.Prioritized]
    classes += [algorithms.get(name) for name in algorithms.ALGORITHMS]
    return {cls.__name__: cls for cls in classes}


def _algorithm_from_json(values: dict[str, Any], networks: Mapping[str, Any], folder: Path) -> Any:
    if not isinstance(values, dict) or str(values.get("type")) not in algorithms.ALGORITHMS.values():
        raise ValueError(f"{values!r:.80} is no algorithm")
    foreign = _foreign(values)
    for name in foreign:
        if name not in networks:
            raise RunError(f"{folder} trained a network of your own as {name}: hand it in again with {name}=...")
    ours = {name: value for name, value in values.items() if name not in foreign}
    return dataclasses.replace(from_json(ours, hyperparameter_classes()), **networks)


def _foreign(values: Mapping[str, Any]) -> list[str]:
    """The fields of an algorithm, as JSON values, that hold a network of the user's own."""
    return [name for name, value in values.items() if isinstance(value, dict) and value.get("type") == FOREIGN]
