"""The command: `thorndike train dqn CartPole-v1`, `sweep`, `tune`, `check`, `resume`, `evaluate`, `watch`, `plot`, ...

Every field of an algorithm is a flag, made by tyro from its dataclass; a small pass before it picks recipes
(`--memory prioritized`), reads numbers as people write them (1M) and answers other libraries' words.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Annotated, Any

import thorndike as td
from thorndike.errors import RunError, SettingError, ThorndikeError, UnknownNameError, nearest, one_line, shown
from thorndike.interface.words import RUN_WORDS, OnFault, OnFullDisk, spelled_out

HELP = """thorndike: deep reinforcement learning

  thorndike train ALGORITHM ENVIRONMENT [--steps N] [--seeds N] [--gamma 0.98] [--settings FILE.json] ...
  thorndike sweep ALGORITHM ENVIRONMENT --learning-rate 1e-4,1e-3 [--gamma 0.95..0.999 --draws 20] [--seeds 3] ...
  thorndike tune ALGORITHM ENVIRONMENT [--trials 30] [--seeds 3] [--learning-rate 1e-5..1e-2] ...
  thorndike check ENVIRONMENT [--steps 2000] [--seed 0] [--environment.NAME VALUE]
  thorndike resume RUN | SWEEP | SEARCH [--steps N] [--environment ID]
  thorndike evaluate RUN [--episodes 100] [--best] [--environment ID]
  thorndike watch RUN [--episodes 1] [--best] [--out FILM.webp]
  thorndike plot RUN ... [--metric return_mean] [--out CURVES.svg]
  thorndike verify RUN
  thorndike list algorithms | environments [WORD] | runs

  thorndike train dqn CartPole-v1            an example that takes less than a minute
  thorndike train ppo gymnax:Breakout-MinAtar --environment.max_steps_in_episode 500
  thorndike train ALGORITHM --help           every flag of an algorithm
"""
CHOICES = {
    "intrinsic": ("rnd", "counts"),
    "memory": ("replay", "prioritized", "frames", "prioritized-frames"),
    "network": ("mlp", "cnn", "lstm", "gru", "mingru", "attention", "simba", "renormalizedmlp"),
    "optimizer": ("adam", "adamw", "radam", "rmsprop", "sgd"),
}
OTHERWISE = {"frames": "FrameReplay", "prioritized-frames": "PrioritizedFrames"}  # classes with other names
UNDERSTOOD = {  # whole flags of other libraries, whatever their dashes
    word: ours for word, ours in RUN_WORDS.items() if ours in ("steps", "environment", "seeds", "run_dir", "algorithm")
}


FOR_A_FLAG = {  # where the answer to another library's word is, in Python, another than a flag
    "anneal_lr": "--learning-rate-end 0",
    "hidden_size": "--network.sizes 64 64, or --network lstm --network.size 64",
    "lstm_hidden_size": "--network lstm --network.size 64",
    "net_arch": "--network.sizes 64 64",
    "optimize_memory_usage": "--memory frames",
    "policy_kwargs": "--network.sizes 64 64 and --network.activation relu",
}
REWORDED = (  # what tyro says, and how it is said here
    (r"part-\d+[\w.-]*: (.*)", r"\1"),
    (r"(--\S+): .*(?:invalid literal for int|\bINT\b).*'([^']*)'\]?", r"\1 needs a whole number, got '\2'"),
    (r"(--\S+): .*could not convert string to float: (.*)", r"\1 needs a number, got \2"),
    (r"(--\S+): Could not find valid parse for arguments: \[(.*)\]", r"\1 cannot take \2"),
    (r"Missing value for argument '(--\S+)'.*", r"\1 needs a value"),
)
NOTATION = """
--gamma 0.95,0.99 are two values, --network.sizes 64 64,128 128 too; --gamma 0.9..0.999 is a range, from which numbers
are drawn: logarithmically where it is positive and spans ten times or more"""
INVALID_CHOICE = re.compile(r"invalid choice '(.*)' for argument '(--\S+)'\. Expected one of \((.*)\)\.")


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """How long, how often and where."""

    steps: int | None = None  # steps in the environment, per seed
    seeds: int = 1  # independent runs: seed, seed + 1, ...
    seed: int = 0
    run_dir: str | None = "auto"  # the folder to write; None writes nothing
    quiet: bool = False  # print nothing
    on_full_disk: OnFullDisk = "stop"  # or pause: wait until there is room
    evaluate_every: int | None = None  # steps between greedy evaluations, 0 for none at all; ten times a run
    evaluate_episodes: int | None = None  # 10 unless given; on the host fewer where those would cost too many steps
    final_episodes: int | None = None  # 100 unless given; on the host as above
    evaluation_copies: int | None = None  # as many as training has, at most ten
    evaluation_environment: str | None = None  # an id, where evaluations play in another environment
    checkpoint_every: int | None = None  # steps between checkpoints, 0 for one at the end; ten times a run
    keep_checkpoints: int | None = None  # the last three unless given
    metrics_every: int | None = None  # steps between rows of metrics; 200 rows a run unless given
    record_info: tuple[str, ...] = ()  # numbers in the environment's info at the ends of episodes: is_success
    workers: int = 0  # processes that step the copies on the host; 0: this one
    worker_timeout: float = 60.0  # seconds that a reset or step in a worker may take; 0: any time
    on_fault: OnFault = "raise"  # or restart: start the worker anew and take the step again
    max_restarts: int = 10  # of workers, in a run
    overlap: bool = False  # on the host: act the next rollout while the last one is learned from
    ray: str | None = None  # act by Ray's actors: on this machine (--ray) or those of a cluster (--ray ADDRESS)
    actors: int | None = None  # how many of them; one for each core that Ray has, unless given


@dataclasses.dataclass(frozen=True)
class SweepOptions(TrainOptions):
    """How many settings and seeds, how long, how often and where."""

    seeds: int = 3  # of each setting: seed, seed + 1, ...
    run_dir: str | None = "auto"  # the folder to write, with a run folder for each setting in it
    draws: int | None = None  # settings drawn at random, of ranges (1e-5..1e-2) and lists of values


@dataclasses.dataclass(frozen=True)
class TuneOptions(TrainOptions):
    """How many trials and seeds, how long, how often and where."""

    trials: int = 30  # settings that are tried, those by default first
    seeds: int = 3  # of each trial: seed, seed + 1, ...
    fresh_seeds: int = 5  # that what was found is compared on with the defaults
    fresh_seed: int | None = None  # the first of them; seed + 1000 unless given
    prune: bool = True  # end trials early whose learning curves lie below the median
    run_dir: str | None = "auto"  # the folder to write, with a run folder for each trial in it


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """How long an environment is played in; --environment.NAME VALUE is an argument of its own."""

    steps: int = 2_000  # random ones
    seconds: float = 10.0  # that the check takes at most; half of them for those steps
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class ResumeOptions:
    """How far to go on, and in what."""

    steps: int | None = None  # per seed, all in all; as far as planned unless given
    environment: str | None = None  # again, where a module makes it: my_module:MyEnv-v0
    evaluation_environment: str | None = None  # likewise
    algorithm: str | None = None  # again, where it is a class of your own: my_module:Mine
    workers: int | None = None  # processes that step the copies on the host; as before unless given, as all below
    worker_timeout: float | None = None  # seconds that a reset or step in a worker may take; 0: any time
    on_fault: OnFault | None = None  # raise, or restart: start the worker anew and take the step again
    max_restarts: int | None = None
    quiet: bool = False  # print nothing
    on_full_disk: OnFullDisk = "stop"  # or pause: wait until there is room
    ray: str | None = None  # where the actors of a run by Ray are: at this address, else on this machine


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """How many greedy episodes, and in what."""

    episodes: int = 100  # of each seed
    seed: int = 0  # another one gives other episodes
    best: bool = False  # those of each seed that did best in an evaluation, instead of the newest
    environment: str | None = None  # again, where a module makes it: my_module:MyEnv-v0
    evaluation_environment: str | None = None  # likewise
    algorithm: str | None = None  # again, where it is a class of your own: my_module:Mine


@dataclasses.dataclass(frozen=True)
class WatchOptions:
    """What to see of the agent, and where."""

    episodes: int = 1
    seed: int = 0  # another one gives other episodes
    best: bool = False  # the agent that did best in an evaluation, instead of the newest
    fps: float | None = None  # steps that a second shows; as many as the environment says unless given
    out: str | None = None  # the film, .webp or .gif; RUN/watch.webp unless given
    environment: str | None = None  # again, where a module makes it: my_module:MyEnv-v0
    evaluation_environment: str | None = None  # likewise
    algorithm: str | None = None  # again, where it is a class of your own: my_module:Mine


@dataclasses.dataclass(frozen=True)
class PlotOptions:
    """What to draw, and where."""

    metric: str = "return_mean"  # a column of metrics.jsonl: evaluation_mean, loss, ...
    out: str = "curves.svg"  # the picture, .svg or .png
    algorithm: str | None = None  # where it is a class of your own: my_module:Mine


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0, 2 for what the user can mend, 130 and 143 for Ctrl-C and SIGTERM.

    `check` leaves with 1 where something is wrong with the environment.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    path = list(sys.path)
    usual, warnings.formatwarning = warnings.formatwarning, lambda said, *_, **__: f"warning: {one_line(str(said))}\n"
    try:
        return run(given)
    except ThorndikeError as error:
        print(f"thorndike: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, `head` perhaps, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        warnings.formatwarning = usual
        sys.path[:] = path


def run(given: list[str]) -> int:
    """Choose the verb."""
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if given[0] == "--version":
        print(td.__version__)
        return 0
    verbs: dict[str, Callable[[list[str]], int]]
    verbs = {"train": train, "resume": resume, "evaluate": evaluate, "watch": watch, "plot": plot}
    verbs |= {"sweep": sweep, "tune": tune, "check": check, "verify": verify, "list": list_}
    if given[0] not in verbs:
        near = nearest(given[0], verbs)
        raise UnknownNameError(f"unknown verb '{given[0]}'.{near} There are: {', '.join(verbs)}")
    return verbs[given[0]](given[1:])


def train(given: list[str]) -> int:
    """`thorndike train ALGORITHM ENVIRONMENT ...`"""
    pair = _pair("train", given)
    if pair is None:
        return 0
    chosen, made, environment_arguments = _made(pair, pair.flags, TrainOptions(steps=pair.steps))
    begin = td.train  # so imported before modules of the user's, here and below
    _import_modules(pair.environment, chosen.evaluation_environment)
    begin(made, pair.environment, environment_arguments=environment_arguments, **dataclasses.asdict(chosen))
    return 0


def sweep(given: list[str]) -> int:
    """`thorndike sweep ALGORITHM ENVIRONMENT --learning-rate 1e-4,1e-3 ...`"""
    pair = _pair("sweep", given)
    if pair is None:
        return 0
    chosen, made, environment_arguments, grid = _gridded(pair, SweepOptions(steps=pair.steps))
    begin = td.sweep
    _import_modules(pair.environment, chosen.evaluation_environment)
    begin(made, pair.environment, grid=grid, environment_arguments=environment_arguments, **dataclasses.asdict(chosen))
    return 0


def tune(given: list[str]) -> int:
    """`thorndike tune ALGORITHM ENVIRONMENT ...`"""
    pair = _pair("tune", given)
    if pair is None:
        return 0
    chosen, made, environment_arguments, space = _gridded(pair, TuneOptions(steps=pair.steps))
    from thorndike.sweeps import grids, spaces

    typed = {flag.lstrip("-").replace("-", "_") for flag, *_ in _grouped(pair.flags)}
    fixed = {path: [grids.value_at(made, path)] for path in spaces.default_space(made) if path in typed - space.keys()}
    begin = td.tune
    _import_modules(pair.environment, chosen.evaluation_environment)
    begin(
        made,
        pair.environment,
        space=space | fixed,
        environment_arguments=environment_arguments,
        **dataclasses.asdict(chosen),
    )
    return 0


@dataclasses.dataclass
class _Pair:
    """What `train`, `sweep` and `tune` begin with."""

    verb: str
    name: str  # of the algorithm, as it was typed
    environment: str | None  # None where only help is asked for
    algorithm: Any  # with the settings that flags change
    steps: int | None  # that belong to those
    flags: list[str]

    @property
    def title(self) -> str:
        return f"thorndike {self.verb} {self.name} {self.environment or 'ENVIRONMENT'}"


def _pair(verb: str, given: list[str]) -> _Pair | None:
    """The algorithm and the environment that are named, and their settings; None where only HELP was asked for."""
    places, flags = _split(_understood(given))
    name, environment = (*_placed(places, flags, ("algorithm", "environment")), None, None)[:2]
    asked = bool({"-h", "--help"} & set(flags))
    if name is None:
        if not asked:
            raise UnknownNameError(f"which algorithm? For example: thorndike {verb} dqn CartPole-v1")
        print(HELP, end="")
        return None
    from thorndike import settings

    cls = _algorithm(name)
    if environment is None and not asked:
        raise UnknownNameError(f"which environment? For example: thorndike {verb} {name} CartPole-v1")
    recorded = None if ":" in name else settings.recorded(cls.__name__, environment)
    algorithm, steps = (recorded.algorithm, recorded.steps) if recorded else (cls(), None)
    if "--settings" in flags:
        algorithm, steps = _from_file(flags, cls, name)
    return _Pair(verb, name, environment, algorithm, steps, flags)


def _from_file(flags: list[str], cls: type, name: str) -> tuple[Any, int | None]:
    """The settings in the file that `--settings` names, which is taken out of `flags`."""
    from thorndike import persistence
    from thorndike.runs import settings_files

    at = flags.index("--settings")
    file = next(iter(flags[at + 1 :]), "--")
    if file.startswith("--"):
        raise SettingError("--settings needs a file, such as settings.json")
    del flags[at : at + 2]
    algorithm, steps = settings_files.read(persistence.folder_of(file))
    if type(algorithm) is not cls:
        raise SettingError(f"{file} has settings of {type(algorithm).__name__.lower()}, not of {name}")
    return algorithm, steps


def _made(pair: _Pair, flags: list[str], options: Any) -> tuple[Any, Any, dict[str, Any]]:
    """The options, the algorithm and the environment's arguments that flags make of those by default."""
    default, flags = _choose_recipes(pair.algorithm, flags)
    flags, environment_arguments = _take_environment_arguments(flags)
    return *_parse(pair.title, flags, options, default), environment_arguments


def _gridded(pair: _Pair, options: Any) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """As `_made`, with the first value of each flag that has several; and the grid that all of them are.

    Every value is read as `train` reads it: `--network.sizes 64 64,128 128` are two.
    """
    from thorndike.sweeps import grids

    several: dict[str, list[list[str]]] = {}
    ranges, first, names = set(), [], {field.name for field in dataclasses.fields(options)}
    for flag, *words in _grouped(pair.flags):
        name, text = flag.lstrip("-").replace("-", "_"), " ".join(words)
        ends = grids.ends_of(text) if name not in names else None
        parts = list(ends) if ends else _parts(flag, text) if name not in names else []
        if len(parts) > 1:
            several[flag] = [[spelled_out(word) for word in part.split()] for part in parts]
            ranges |= {flag} if ends else set()
        first += [flag, *(several[flag][0] if flag in several else words)]
    chosen, made, environment_arguments = _made(pair, first, options)
    grid: dict[str, Any] = {}
    for flag, alternatives in several.items():
        path, values = flag.removeprefix("--").replace("-", "_"), []
        for words in alternatives:
            _, algorithm, arguments = _made(pair, _with(first, flag, words), options)
            argument = path.removeprefix(grids.ENVIRONMENT_PREFIX)
            values.append(arguments[argument] if grids.of_environment(path) else grids.value_at(algorithm, path))
        grid[path] = grids.Range(*values) if flag in ranges else values
        environment_arguments.pop(path.removeprefix(grids.ENVIRONMENT_PREFIX), None)
    return chosen, made, environment_arguments, grid


def _grouped(flags: list[str]) -> Iterable[list[str]]:
    """Each flag with the words after it."""
    group: list[str] = []
    for word in flags:
        if word.startswith("--") and group:
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _parts(flag: str, text: str) -> list[str]:
    """What commas divide, but for those inside of brackets (`--environment.size [3,4],[5,6]`)."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise SettingError(f"{flag} has a comma with no value beside it: {shown(text)}")
    if len(parts) > 1 and any(".." in part for part in parts):
        raise SettingError(f"{flag} takes values with commas between them or one range, not both: {shown(text)}")
    return parts


def _with(flags: list[str], flag: str, words: list[str]) -> list[str]:
    """The flags, one of them with other words after it."""
    return [word for group in _grouped(flags) for word in ([flag, *words] if group[0] == flag else group)]


def check(given: list[str]) -> int:
    """`thorndike check ENVIRONMENT ...`; 1 where something is wrong with it."""
    places, flags = _split(_understood(given))
    places = _placed(places, flags, ("environment",))
    flags, environment_arguments = _take_environment_arguments(flags)
    (options,) = _parse("thorndike check ENVIRONMENT", flags, CheckOptions())
    if not places:
        raise UnknownNameError("which environment? For example: thorndike check my_module:MyEnv-v0")
    examine = td.check
    _import_modules(places[0])
    found = examine(places[0], environment_arguments=environment_arguments, **dataclasses.asdict(options))
    print(found)
    return 1 if found.wrong else 0


def resume(given: list[str]) -> int:
    """`thorndike resume RUN ...`"""
    places, flags = _split(_understood(given))
    (options,) = _parse("thorndike resume RUN", flags, ResumeOptions())
    if not places:
        raise UnknownNameError("which run? For example: thorndike resume runs/dqn-CartPole-v1-...")
    _only(places, 1)
    go_on, given_again = _goes_on(places[0]), dataclasses.asdict(options)
    if go_on == td.Search.resume:
        del given_again["on_full_disk"]
    if go_on != td.resume:
        if given_again.pop("steps") is not None:
            raise SettingError(
                f"{places[0]} holds several runs, which go on to the ends they have: --steps is for one run"
            )
        given_again = {name: value for name, value in given_again.items() if value is not None}
    _import_modules(options.environment, options.evaluation_environment)
    if options.algorithm is not None:
        given_again["algorithm"] = _algorithm(options.algorithm)
    go_on(places[0], **given_again)
    return 0


def _goes_on(place: str) -> Callable[..., Any]:
    """What goes on with a folder, by what it holds."""
    from thorndike import persistence
    from thorndike.runs import folders

    folder = persistence.folder_of(place)
    if persistence.exists(folder / folders.SWEEP):
        return td.Sweep.resume
    return td.Search.resume if persistence.exists(folder / folders.SEARCH) else td.resume


def evaluate(given: list[str]) -> int:
    """`thorndike evaluate RUN ...`"""
    run, options = _loaded("evaluate", given, EvaluateOptions())
    for name, value in run.evaluate(options.episodes, seed=options.seed, best=options.best).items():
        if value is not None:
            numbers = value if isinstance(value, list) else [value]
            print(f"{name:12} {'  '.join(f'{number:,.6g}' for number in numbers)}")
    return 0


def watch(given: list[str]) -> int:
    """`thorndike watch RUN ...`"""
    run, options = _loaded("watch", given, WatchOptions())
    from thorndike.interface import watch as films

    out = run.folder / films.FILE if options.out is None else options.out
    films.check_name(out)
    live = sys.stdout.isatty()
    film = run.watch(options.episodes, seed=options.seed, best=options.best, fps=options.fps, live=live)
    print(f"{film}: {film.save(out)}")
    return 0


def plot(given: list[str]) -> int:
    """`thorndike plot RUN ...`"""
    places, flags = _split(_understood(given))
    (options,) = _parse("thorndike plot RUN ...", flags, PlotOptions())
    if not places:
        raise UnknownNameError("which runs? For example: thorndike plot runs/dqn-CartPole-v1-... runs/ppo-...")
    from thorndike.interface import plot as charts

    charts.check_name(options.out)
    loaded = [td.load(place, algorithm=_algorithm(options.algorithm)) for place in places]
    print(charts.chart(loaded, options.metric).save(options.out))
    return 0


def _loaded(verb: str, given: list[str], options: Any) -> tuple[Any, Any]:
    """The run that a command names, and its flags."""
    places, flags = _split(_understood(given))
    (options,) = _parse(f"thorndike {verb} RUN", flags, options)
    if not places:
        raise UnknownNameError(f"which run? For example: thorndike {verb} runs/dqn-CartPole-v1-...")
    _only(places, 1)
    load = td.load
    _import_modules(options.environment, options.evaluation_environment)
    run = load(
        places[0],
        environment=options.environment,
        evaluation_environment=options.evaluation_environment,
        algorithm=_algorithm(options.algorithm),
    )
    return run, options


def verify(given: list[str]) -> int:
    """`thorndike verify RUN`"""
    places, flags = _split(given)
    if not places or flags:
        raise UnknownNameError("which run? For example: thorndike verify runs/dqn-CartPole-v1-...")
    _only(places, 1)
    from thorndike import persistence
    from thorndike.interface import listing
    from thorndike.runs import folders

    found = folders.verify(persistence.folder_of(places[0]))
    for line in listing.aligned([(name, problem or "whole") for name, problem in found]):
        print(line)
    broken = [name for name, problem in found if problem]
    if broken:
        raise RunError(f"not whole: {', '.join(broken)}")
    return 0


def list_(given: list[str]) -> int:
    """`thorndike list algorithms | environments | runs`"""
    from thorndike.interface import listing

    tables = {"algorithms": listing.algorithms, "environments": listing.environments, "runs": listing.runs}
    places, flags = _split(given)
    if {"-h", "--help"} & set(flags):
        print(HELP, end="")
        return 0
    if not places or places[0] not in tables or flags:
        near = nearest(places[0], tables) if places else ""
        raise UnknownNameError(f"list what? {', '.join(tables)}.{near}")
    _only(places, 1 if places[0] == "algorithms" else 2)
    for line in listing.aligned(tables[places[0]](*places[1:])):
        print(line)
    return 0


def _import_modules(*ids: str | None) -> None:
    """Import the modules that the command line names (my_module:MyEnv-v0), which may lie in the current folder.

    Naming them is the consent to run them. For nothing else is that folder looked into, and last even here.
    """
    from thorndike.runs.configuration import module_named

    for id in ids:
        module = module_named(id or "").removeprefix("gymnasium:")
        if not module:
            continue
        with contextlib.suppress(Exception, SystemExit):  # making the environment will meet it again, and answers it
            _imported(module)


def _imported(module: str) -> ModuleType:
    """Import one module, looked for in the current folder too; where that fails the folder stays on the path."""
    sys.path.append(os.getcwd())
    found = importlib.import_module(module)
    sys.path.pop()
    return found


def _algorithm(name: str | None) -> Any:
    """The class that the command line names: one of ours, or module:Class, whose module is imported as above."""
    from thorndike import algorithms

    if name is None or ":" not in name:
        return name if name is None else algorithms.get(name)
    module, _, named = name.partition(":")
    try:
        cls = getattr(_imported(module), named, None)
    except (Exception, SystemExit) as error:
        raise UnknownNameError(f"{name}: the module could not be imported: {type(error).__name__}: {error}") from error
    if not isinstance(cls, type) or not hasattr(cls, "update"):
        raise UnknownNameError(f"{name} is no algorithm: {module} has no such class with act, update and the rest")
    return cls


def _only(places: list[str], count: int) -> None:
    if len(places) > count:
        raise UnknownNameError(f"what is '{places[count]}'? A flag begins with --")


def _understood(given: list[str]) -> list[str]:
    """`--flag=value` in two, other libraries' names of a run's own flags in ours, numbers in digits."""
    words = []
    for word in given:
        name, equals, value = word.partition("=")
        words += [name, value] if word.startswith("--") and equals else [word]
    if "--ray" in words and (words[words.index("--ray") + 1 :] or ["--"])[0].startswith("--"):
        words.insert(words.index("--ray") + 1, "local")  # Ray's own word for one started here
    result = []
    for word in words:
        name = word[2:].replace("-", "_")
        if word.startswith("--") and name in UNDERSTOOD:
            word = "--" + UNDERSTOOD[name].replace("_", "-")
        elif word == "-n":
            word = "--steps"
        result.append(spelled_out(word))
    return result


def _split(given: list[str]) -> tuple[list[str], list[str]]:
    """The words before the first flag, and the rest."""
    first = next((i for i, word in enumerate(given) if word.startswith("-")), len(given))
    return given[:first], given[first:]


def _placed(places: list[str], flags: list[str], names: tuple[str, ...]) -> list[str]:
    """The words at their places; those missing are taken out of `flags`, where they may be named instead."""
    _only(places, len(names))
    places = list(places)
    for name in names[len(places) :]:
        flag = f"--{name}"
        if flag not in flags[:-1]:
            break
        at = flags.index(flag)
        places.append(flags[at + 1])
        del flags[at : at + 2]
    return places


def _take_environment_arguments(flags: list[str]) -> tuple[list[str], dict[str, Any]]:
    """`--environment.continuous true`: the flags without them, and them as JSON literals (else as text)."""
    rest, arguments = [], {}
    words = iter(flags)
    for word in words:
        if not word.startswith("--environment."):
            rest.append(word)
            continue
        value = next(words, None)
        name = word.removeprefix("--environment.").replace("-", "_")
        if value is None or value.startswith("--"):
            raise SettingError(f"{word} needs a value, for example {word} true")
        try:
            arguments[name] = json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
        except ValueError:
            arguments[name] = value
    return rest, arguments


def _choose_recipes(algorithm: Any, flags: list[str]) -> tuple[Any, list[str]]:
    """`--memory prioritized`, `--critic-network none`: the algorithm with these, and the other flags.

    A critic of the same recipe as the actor gets one of its own where a flag (`--critic-network.sizes 64 64`) changes
    it: the actor's, changed by the actor's flags as well. A network that remembers learns from steps in a row: a replay
    of single steps then begins as one of sequences, which flags change further.
    """
    rest: list[str] = []
    chosen: dict[str, Any] = {}
    words = iter(flags)
    fields = {field.name for field in dataclasses.fields(algorithm)}
    for word in words:
        name = word[2:].replace("-", "_")
        kind = name.rpartition("_")[2]
        if not word.startswith("--") or name not in fields or kind not in CHOICES:
            rest.append(word)
            continue
        present = getattr(algorithm, name)
        present = chosen.get("network", algorithm.network) if _is_same(present) else present
        chosen[name] = _recipe(word, next(words, ""), kind, present)
    if "memory" in fields:
        chosen["memory"] = _in_sequences(chosen.get("memory", algorithm.memory), chosen.values())
    algorithm = dataclasses.replace(algorithm, **chosen)
    for name in fields:
        prefix = f"{_flag(name)}."
        if _is_same(getattr(algorithm, name)) and any(word.replace("_", "-").startswith(prefix) for word in rest):
            algorithm = dataclasses.replace(algorithm, **{name: algorithm.network})
            rest = [*_of_actor(rest, prefix), *rest]
    return algorithm, rest


def _in_sequences(memory: Any, recipes: Iterable[Any]) -> Any:
    """A replay of single steps as one of sequences, where a network of these recipes has a memory."""
    from thorndike.memories import SEQUENCES
    from thorndike.networks import Network
    from thorndike.sequences import remembers, shapes_of_carry

    networks = [recipe for recipe in recipes if isinstance(recipe, Network)]
    if getattr(memory, "sequence", None) == 1 and any(remembers(shapes_of_carry(x.initial_carry)) for x in networks):
        return dataclasses.replace(memory, **SEQUENCES)
    return memory


def _is_same(recipe: Any) -> bool:
    from thorndike.networks import Same

    return isinstance(recipe, Same)


def _of_actor(flags: list[str], prefix: str) -> list[str]:
    """The flags of the actor's network with their values, as flags of another."""
    chosen, taken = [], False
    for word in flags:
        taken = word.startswith("--network.") if word.startswith("--") else taken
        chosen += [word.replace("--network.", prefix)] if taken else []
    return chosen


def _recipe(flag: str, choice: str, kind: str, present: Any) -> Any:
    """A recipe by its name, keeping what it has in common with the one it replaces."""
    names, word = CHOICES[kind], choice.lower().replace("_", "-")
    if word == "none" and kind in ("network", "intrinsic"):
        return None
    if word not in (*names, *(("same",) if kind == "network" else ())):
        options = ", ".join(names)
        raise UnknownNameError(f"{flag} takes one of {options}, got '{choice}'.{nearest(choice, names)}")
    cls = _class_of(word)
    shared = {(field.name, field.type) for field in dataclasses.fields(cls)}
    kept = dataclasses.fields(present) if present is not None else ()
    return cls(**{field.name: getattr(present, field.name) for field in kept if (field.name, field.type) in shared})


def _parse(title: str, flags: list[str], *defaults: Any) -> tuple[Any, ...]:
    """The dataclasses given as defaults, changed by flags; whatever is wrong as an error of one line."""
    import tyro

    no_prefix = tyro.conf.arg(name="")
    parts = [_as_it_is(part) for part in defaults]
    notation = NOTATION if isinstance(defaults[0], SweepOptions | TuneOptions) else ""
    fields: list[Any] = [
        (f"part_{i}", Annotated[type(part), no_prefix], dataclasses.field(default=part)) for i, part in enumerate(parts)
    ]
    cls = dataclasses.make_dataclass("Flags", fields)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            result: Any = tyro.cli(
                cls, prog=title, description=_described(defaults[-1]) + notation, args=_booleans(flags),
                config=(tyro.conf.AvoidSubcommands,), return_unknown_args=True,
            )  # fmt: skip
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise SettingError(_one_line(said.getvalue())) from None
    parsed, unknown = result
    if unknown:
        verb = " ".join(title.split()[:3]).removesuffix(" RUN")
        raise UnknownNameError(_answer(unknown, list(_flags_of(defaults)), verb))
    values = (getattr(parsed, name) for name, *_ in fields)
    return tuple(type(part)(**vars(value)) for part, value in zip(defaults, values, strict=True))


def _as_it_is(part: Any) -> Any:
    """`part`, of a class that annotates each field that holds a dataclass as that one.

    Of `Network | None` tyro makes a single flag, of the recipe that is there one for each of its fields.
    """
    held = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    annotations = {name: type(value) for name, value in held.items() if dataclasses.is_dataclass(value)}
    cls = type(type(part).__name__, (type(part),), {"__annotations__": annotations, "__doc__": type(part).__doc__})
    return cls(**held)


def _described(part: Any) -> str:
    """What stands above the flags: what an algorithm is, and the flags that tyro does not know of."""
    lines = [(type(part).__doc__ or "").strip().split("\n")[0]]
    for field in dataclasses.fields(part):
        names = CHOICES.get(field.name.rpartition("_")[2], ())
        none = ("none",) if names and "None" in str(field.type) else ()
        same = ("same",) if names and _is_same(field.default) else ()
        lines += [f"{_flag(field.name)} {' | '.join((*names, *none, *same))}"] if names else []
    if len(lines) > 1:
        lines.append("--environment.NAME VALUE: an argument of the environment")
    return "\n".join(lines)


def _booleans(flags: list[str]) -> list[str]:
    """`--double false` as tyro's `--no-double`, and `--run-dir none` as `None`."""
    result: list[str] = []
    for word in flags:
        if word.lower() in ("true", "false") and result and result[-1].startswith("--"):
            if word.lower() == "false":
                prefix, dot, name = result[-1][2:].rpartition(".")
                result[-1] = f"--{prefix}{dot}no-{name}"
            continue
        result.append("None" if word.lower() == "none" else word)
    return result


def _one_line(box: str) -> str:
    """What tyro says in a box, as one line without it, in our words where we have some."""
    lines = [line.strip("│ ").strip() for line in box.splitlines()]
    inside = [line for line in lines if line and line[0] not in "╭╰"]
    if set("".join(inside[1:2])) == {"-"}:  # without a frame, where the terminal knows no UTF-8: a title comes first
        inside = inside[2:]
    end = next((i for i, line in enumerate(inside) if set(line) <= {"─", "-"}), len(inside))
    text = " ".join(inside[:end]).removeprefix("Error parsing ")
    if choice := INVALID_CHOICE.fullmatch(text):
        given, flag, known = choice[1], choice[2], re.findall("'(.*?)'", choice[3])
        return f"{flag} takes one of {', '.join(known)}, got '{given}'.{nearest(given, known)}"
    for theirs, ours in REWORDED:
        text = re.sub(f"^{theirs}$", ours, text)
    return text


def _flags_of(values: Iterable[Any], prefix: str = "") -> Iterable[str]:
    for value in values:
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            if dataclasses.is_dataclass(inner):
                yield from _flags_of([inner], f"{prefix}{field.name}.")
            else:
                yield f"{prefix}{field.name}"


def _answer(unknown: list[str], known: list[str], verb: str) -> str:
    """The line for a flag that does not exist, the first of what tyro does not know."""
    from thorndike.hyperparameters import OR, first_word, in_our_words

    word = unknown[0]
    if not word.startswith("-"):
        return f"what is '{word}'? A flag begins with --"
    name = word.lstrip("-").replace("-", "_")
    if of_another := _of_another_recipe(name, unknown[1:2], known):
        return f"no flag {word}: {of_another}"
    nested = [flag for flag in known if flag.rpartition(".")[2] == name]
    top = {flag.partition(".")[0] for flag in known}
    ours = nested[0] if nested else in_our_words(name, top, verb) or RUN_WORDS.get(name)
    if ours is None:
        return f"no flag {word}.{nearest(word, map(_flag, known))}"
    firsts = [(first_word(part), part) for part in ours.split(OR)]
    flags = OR.join(_flag(first) + part.removeprefix(first) for first, part in firsts)
    return f"no flag {word}: here it is {FOR_A_FLAG.get(name, flags)}"


def _of_another_recipe(name: str, value: list[str], known: list[str]) -> str:
    """What to say of `network.torso`, where a recipe has no such field but others do; "" of any other name."""
    field, _, part = name.partition(".")
    kind, part = field.rpartition("_")[2], part.partition(".")[0]
    own = [flag.removeprefix(f"{field}.").partition(".")[0] for flag in known if flag.startswith(f"{field}.")]
    if kind not in CHOICES or not own or (part not in own and nearest(part, own)):
        return ""
    if part in own and name != f"{field}.{part}":
        return ""
    if part in own:
        return f"which recipe stands there is said in Python, {field}=td.LSTM({part}=td.CNN()) for example"
    if value and value[0].lower() in CHOICES[kind]:
        return f"here it is {_flag(field)} {value[0].lower()}"
    having = [choice for choice in CHOICES[kind] if part in {f.name for f in dataclasses.fields(_class_of(choice))}]
    return f"it belongs to {', '.join(having)}: {_flag(field)} {having[0]}" if having else ""


def _class_of(choice: str) -> Any:
    """The recipe that a word stands for, in any case."""
    word = choice.lower()
    return getattr(td, OTHERWISE.get(word) or next(name for name in td.__all__ if name.lower() == word))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
