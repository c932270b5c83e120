"""A search for better settings: trials that Optuna chooses, then what it found beside the defaults on fresh seeds."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import jax

from thorndike import environments, machine, persistence, settings
from thorndike.errors import CorruptCheckpointError, EnvironmentFault, RunError, SettingError, ThorndikeError
from thorndike.interface import words
from thorndike.interface.progress import Progress
from thorndike.persistence import empty_folder, folder_of, locked, unused_folder
from thorndike.runs import configuration, folders, schema, settings_files
from thorndike.runs.configuration import ENVIRONMENT, EVALUATION_ENVIRONMENT, Configuration
from thorndike.runs.preparation import check_options
from thorndike.runs.recording import Diverged
from thorndike.runs.train import AUTO, choose, train
from thorndike.sweeps import folder as files
from thorndike.sweeps import grids, spaces
from thorndike.sweeps.folder import Row
from thorndike.sweeps.grids import Entry, Range, Setting
from thorndike.sweeps.study import Study, optuna
from thorndike.sweeps.sweep import OPTIONS, SEEDS, Sweep, options_of, planned, sweep

FORMAT = 1
FILE = folders.SEARCH
TRIALS, CHECK, SETTINGS = "trials", "check", "settings.json"  # what is in a search's folder, beside its study
FRESH = 1_000  # from the first seed of the search to the first that it has not seen
MOST_TRIALS = 10_000
TENTHS = 10  # of a trial: after each it is compared with those before


class Plan(TypedDict):
    """search.json: all that the search follows from."""

    format: int
    run: dict[str, Any]  # the configuration of a trial with the settings by default
    space: dict[str, Any]  # by path, [low, high] of a range, or the values
    ranges: list[str]  # the paths of ranges
    trials: schema.Positive
    fresh_seed: int
    fresh_seeds: schema.Positive
    prune: bool


class Search:
    """A search and what it has found. Printed, it is the comparison on fresh seeds."""

    def __init__(self, folder: Path, plan: Plan, run: Configuration, study: Study, check: Sweep | None) -> None:
        """Made by `tune`, `Search.load` and `Search.resume`."""
        self.folder, self.check = folder, check  # the comparison on fresh seeds, None until it has been made
        self._plan, self._run, self._study = plan, run, study

    @classmethod
    def load(cls, folder: str | Path, **handed_in: Any) -> Search:
        """The search in a folder, as far as it has come; safe on a stranger's. `handed_in` is what `td.load` takes."""
        place = folder_of(folder)
        with locked(_checked(place)):
            return _opened(place, handed_in)[0]

    @classmethod
    def resume(cls, folder: str | Path, *, quiet: bool = False, **handed_in: Any) -> Search:
        """Go on with a search; the trial that was under way begins anew, and the rest is as if it had never stopped.

        `handed_in` is what `td.resume` takes. RunError where the search is complete.
        """
        check_options("stop", None, quiet)
        place = folder_of(folder)
        with locked(_checked(place)):
            search, given = _opened(place, handed_in)
            if search.check is not None and all(row.result or row.failed for row in search.check.table):
                raise RunError(f"{place} is complete: td.Search.load and {SETTINGS} in it have what was found")
            return _go_on(search, given, quiet)

    @property
    def best(self) -> Setting:
        """By path, the values of the trial that did best. RunError where none has come to its end."""
        trial = self._study.best
        if trial is None:
            raise RunError(f"no trial of {self.folder} has come to its end")
        return self._study.setting(trial)

    @property
    def algorithm(self) -> Any:
        """The algorithm with the settings that were found, for `td.train`."""
        return grids.changed(self._run.algorithm, self.best)

    @property
    def trials(self) -> list[dict[str, Any]]:
        """Every trial: `number`, `settings`, `value` (the mean return over its seeds, or None) and `state`."""
        return [
            {
                "number": trial.number,
                "settings": self._study.setting(trial),
                "value": trial.value if self._study.state(trial) == "complete" else None,
                "state": self._study.state(trial),
            }
            for trial in self._study.trials
        ]

    @property
    def lines(self) -> list[str]:
        """What is printed of it."""
        counts = ", ".join(f"{count} {what}" for what, count in self._study.counts().items() if count)
        run, first = self._run, self._plan["fresh_seed"]
        lines = [f"searched with seeds {run.seed} to {run.seed + run.seeds - 1}: trials {counts}"]
        if self.check is None:
            return lines
        lines += [f"on seeds {first} to {first + self._plan['fresh_seeds'] - 1}, which the search has not seen:"]
        lines += [f"  {name:8}  {_told(row)}" for name, row in self._compared.items()]
        lines += [_verdict(**self._compared)]
        return [*lines, *_to_copy(run, self.best, self.folder / SETTINGS)]

    @property
    def _compared(self) -> dict[str, Row]:
        rows = {row.run: row for row in self.check.table} if self.check else {}
        names = sorted(rows)
        return {"found": rows[names[0]], "defaults": rows[names[-1]]}  # one row where both are the same settings

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __repr__(self) -> str:
        return f"<Search for settings of {self._run.algorithm_name} on {self._run.environment} in {self.folder}>"


def tune(
    algorithm: Any,
    environment: Any = None,
    steps: int | None = None,
    *,
    space: Mapping[str, Any] | None = None,
    trials: int = 30,
    seeds: int = SEEDS,
    seed: int = 0,
    fresh_seeds: int = 5,
    fresh_seed: int | None = None,
    prune: bool = True,
    run_dir: str | Path = AUTO,
    quiet: bool = False,
    network: Any = None,
    environment_arguments: Mapping[str, Any] | None = None,
    **options: Any,
) -> Search:
    """Search for better settings with Optuna, and see how they do beside the defaults on seeds that it has not seen.

    `space` says by field where to look, as the `grid` of `td.sweep` does: a range ("1e-5..1e-2"), a list of values, or
    a single value, which is not searched. It is added to the fields that are searched unless told otherwise, or takes
    their place: the learning rate from a tenth of what it is to ten times that, gamma, and a few others.

    The first trial is of the settings by default (recorded ones, for a name). Each trains `seeds` seeds for `steps`,
    and is worth the mean of their final evaluations. With `prune` one ends early whose training returns lie below the
    median of those before it. What was found and the defaults are then trained on `fresh_seeds` other seeds from
    `fresh_seed` on, of which five make an interval. All is in `run_dir`: a run folder for each trial, Optuna's journal,
    a sweep of the comparison, and settings.json for `thorndike train --settings`. All else is as in `td.sweep`.

    MissingExtraError without Optuna; any other ThorndikeError before anything is compiled.
    """
    check_options("stop", None, quiet)
    optuna()
    if run_dir is None:
        raise SettingError("a search is a folder of run folders: run_dir=None is for td.train alone")
    how_often, options = options_of(options)
    chosen = choose(algorithm, environment, steps, network, environment_arguments, options)
    searched, fixed = _space(chosen.algorithm, space or {})
    chosen.algorithm = grids.changed(chosen.algorithm, fixed)
    given = {ENVIRONMENT: chosen.environment, EVALUATION_ENVIRONMENT: how_often.pop("evaluation_environment", None)}
    place = folder_of("runs" if run_dir == AUTO else run_dir)
    (run,) = planned(chosen, [{}], given, seed, seeds, how_often, place)
    fresh = run.seed + FRESH if fresh_seed is None else words.whole_number(fresh_seed, "fresh_seed")
    plan: Plan = {
        "format": FORMAT, "run": run.to_json(), "space": {path: _as_json(entry) for path, entry in searched.items()},
        "ranges": [path for path, entry in searched.items() if isinstance(entry, Range)],
        "trials": words.whole_number(trials, "trials", low=1, high=MOST_TRIALS), "fresh_seed": fresh,
        "fresh_seeds": words.whole_number(fresh_seeds, "fresh_seeds", low=1), "prune": prune,
    }  # fmt: skip
    _check_fresh(run, plan)
    folder = _new_folder(run_dir, run)
    with locked(folder):
        study = Study(folder, searched, run.seed, _first(run.algorithm, searched))
        persistence.make_folder(folder / TRIALS)
        persistence.write_json(folder / FILE, persistence.sealed(plan))
        return _go_on(Search(folder, plan, run, study, None), given, quiet)


def _space(algorithm: Any, given: Mapping[str, Any]) -> tuple[dict[str, Entry], Setting]:
    """Where to search, and what single values the user has set instead."""
    entries = grids.entries(given, algorithm)
    for path in entries:
        if grids.of_environment(path):
            raise SettingError(f"{path} is the environment's: a search looks for settings of the algorithm")
    fixed = {path: entry[0] for path, entry in entries.items() if isinstance(entry, list) and len(entry) == 1}
    searched = {path: entry for path, entry in (spaces.default_space(algorithm) | entries).items() if path not in fixed}
    if not searched:
        raise SettingError("there is nothing to search: every field has a single value")
    return searched, fixed


def _first(algorithm: Any, searched: Mapping[str, Entry]) -> Setting:
    return {path: grids.value_at(algorithm, path) for path in searched}


def _as_json(entry: Entry) -> list:
    return [entry.low, entry.high] if isinstance(entry, Range) else [grids.told(value) for value in entry]


def _check_fresh(run: Configuration, plan: Plan) -> None:
    """SettingError where the fresh seeds are not."""
    first, count = plan["fresh_seed"], plan["fresh_seeds"]
    if first < run.seed + run.seeds and run.seed < first + count:
        raise SettingError(
            f"the fresh seeds {first} to {first + count - 1} overlap those of the search, {run.seed} to "
            f"{run.seed + run.seeds - 1}: what was picked by a seed looks better on it"
        )


def _new_folder(run_dir: str | Path, run: Configuration) -> Path:
    if run_dir != AUTO:
        return empty_folder(folder_of(run_dir))
    name = f"tune-{run.algorithm_name}-{environments.name_of(run.environment)}-{time.strftime('%Y%m%d-%H%M%S')}"
    return unused_folder(Path("runs"), name)


def _checked(folder: Path) -> Path:
    if not persistence.exists(folder / FILE):
        raise RunError(f"{folder} is not a search: it has no {FILE}")
    return folder


def _opened(folder: Path, handed_in: Mapping[str, Any]) -> tuple[Search, dict[str, Any]]:
    """The search in a folder, and what its environments are made from. Nothing of a stranger's is run."""
    path, own = folder / FILE, dict(handed_in)
    given = {role: own.pop(role, None) for role in (ENVIRONMENT, EVALUATION_ENVIRONMENT)}
    own = words.handed_in(own.pop("algorithm", None), own.pop("network", None), own)
    values: Any = persistence.unsealed(persistence.read_json(path), path)
    try:
        schema.check(values, Plan, FILE)
        if values["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT}, which this version of thorndike reads")
        run = configuration.from_json_values(values["run"], own, folder)
        searched: dict[str, Entry] = {}
        for path_of_field, entry in values["space"].items():
            grids.value_at(run.algorithm, path_of_field)
            schema.check(entry, list[Any], path_of_field)
            known = configuration.value_from_json(entry)
            searched[path_of_field] = Range(*known) if path_of_field in values["ranges"] else list(known)
    except (SettingError, LookupError, TypeError, ValueError) as error:
        raise CorruptCheckpointError(f"{path} is not one that thorndike wrote: {error}") from None
    study = Study(folder, searched, run.seed, _first(run.algorithm, searched))
    check = Sweep.load(folder / CHECK, **handed_in) if files.is_one(folder / CHECK) else None
    made = {role: configuration.trusted_environment(run, folder, named, role) for role, named in given.items()}
    return Search(folder, values, run, study, check), made


def _go_on(search: Search, given: dict[str, Any], quiet: bool) -> Search:
    """The trials that are missing, then the comparison; each is told, and at the end what was found."""
    run, study, plan = search._run, search._study, search._plan
    title = f"search for settings of {run.algorithm_name} on {run.environment}: {plan['trials']} trials, {run.seeds} "
    display = Progress(f"{title}seeds each, {run.steps:,} steps a seed", 1, quiet)
    display.start([f"searched: {', '.join(f'{path} {_said(entry)}' for path, entry in study.space.items())}"])
    try:
        begun = study.unfinished
        while begun or len(study.trials) < plan["trials"]:
            trial = begun.pop(0) if begun else study.ask()
            display.say(_try(search, trial, given))
        display.say(f"training what was found, and the settings by default, on {plan['fresh_seeds']} fresh seeds")
        _compare(search, given)
    except (KeyboardInterrupt, SystemExit):
        display.say(f"stopped; go on with: {_how_to_resume(run, search.folder)}")
        raise
    display.say(*search.lines)
    return search


def _try(search: Search, trial: Any, given: dict[str, Any]) -> str:
    """Train one trial, from its beginning, and tell the study; a line on it."""
    run, study = search._run, search._study
    folder = search.folder / TRIALS / f"{trial.number:05}"
    persistence.remove(folder)
    setting = study.setting(trial)
    line = f"{trial.number + 1} of {search._plan['trials']}  {_flags(setting)}  "
    if known := study.same(setting):
        study.tell(trial, known.value, pruned=False)
        return f"{line}return {known.value:,.1f}, as before"
    watch = Watch(trial, run) if search._plan["prune"] else None
    value, how = None, ""
    try:
        algorithm = grids.changed(run.algorithm, setting)
        done = train(
            algorithm, given[ENVIRONMENT], run.steps, seeds=run.seeds, seed=run.seed, run_dir=folder, quiet=True,
            environment_arguments=run.environment_arguments, on_chunk=watch, **_options(run, given),
        )  # fmt: skip
        result = files.result_of(done.summary, bool(run.evaluation_interval))
        value = result["mean"] if result else None
        how = "failed: no episode has ended" if value is None else f"return {value:,.1f}"
    except (Diverged, EnvironmentFault, SettingError) as error:
        how = f"failed: {error}"
    except RunError:
        if watch is None or not watch.pruned:
            raise
        how = f"pruned after {watch.told} tenths"
    study.tell(trial, value, pruned=watch is not None and watch.pruned)
    best = study.best
    best_so_far = ", the best so far" if best is not None and best.number == trial.number else ""
    return f"{line}{how}{best_so_far}"


def _flags(setting: Setting) -> str:
    return grids.as_flags({path: grids.told(value) for path, value in setting.items()})


class Pruned(ThorndikeError):
    """A trial that is not worth going on with."""


class Watch:
    """The learning curve of a trial, told to the study tenth by tenth: what is handed to `train` as `on_chunk`.

    It is the mean over the seeds that begin first, side by side, of their training returns: of each tenth of a trial
    once all of them are past it, so that no thread's pace decides.
    """

    def __init__(self, trial: Any, run: Configuration) -> None:
        """Nothing has been seen yet."""
        together = run.seeds if jax.default_backend() != "cpu" else min(run.seeds, machine.cores())
        self.trial, self.pruned, self.told = trial, False, 0
        self.curves: dict[int, dict[int, list[float]]] = {
            seed: {} for seed in range(run.seed, run.seed + (together if run.compiled else 1))
        }
        self.reached = dict.fromkeys(self.curves, 0)

    def __call__(self, chunk: Any) -> None:
        """Take note of a chunk; raise Pruned where the study gives the trial up."""
        if self.pruned:
            raise Pruned("given up")
        if chunk.seed not in self.curves or chunk.row is None:
            return
        tenth = min(TENTHS - 1, (chunk.steps - 1) * TENTHS // chunk.total_steps)
        if "return_mean" in chunk.row:
            self.curves[chunk.seed].setdefault(tenth, []).append(chunk.row["return_mean"])
        self.reached[chunk.seed] = TENTHS if chunk.last else tenth
        while self.told < min(self.reached.values()) and not chunk.last:
            returns = [curve.get(self.told) for curve in self.curves.values()]
            self.told += 1
            if all(returns):
                with warnings.catch_warnings():  # a trial that begins anew says again what it has said
                    warnings.simplefilter("ignore")
                    self.trial.report(sum(sum(r) / len(r) for r in returns if r) / len(returns), self.told)
                self.pruned = self.trial.should_prune()
            if self.pruned:
                raise Pruned("given up")


def _compare(search: Search, given: dict[str, Any]) -> None:
    """Train what was found and the defaults on fresh seeds, and write what was found."""
    run, plan, folder = search._run, search._plan, search.folder / CHECK
    found = search.algorithm
    with contextlib.suppress(SettingError):  # of a class or network of the user's own there is no such file
        settings_files.save_settings(search.folder / SETTINGS, found, environment=run.environment, steps=run.steps)
    if search.check is not None:
        if not all(row.result or row.failed for row in search.check.table):
            search.check = Sweep.resume(folder, quiet=True, **_handed_in(given))
        return
    persistence.remove(folder)  # one that was killed before it had begun
    defaults = _first(run.algorithm, search.best)
    both = [search.best] if found == run.algorithm else [search.best, defaults]
    search.check = sweep(
        run.algorithm, given[ENVIRONMENT], run.steps, grid=both, seeds=plan["fresh_seeds"], seed=plan["fresh_seed"],
        run_dir=folder, quiet=True, environment_arguments=run.environment_arguments, **_options(run, given),
    )  # fmt: skip


def _options(run: Configuration, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `train` that each run of a search has."""
    own = {name: getattr(run, name) for name in OPTIONS if name != EVALUATION_ENVIRONMENT}
    return own | {EVALUATION_ENVIRONMENT: given[EVALUATION_ENVIRONMENT]}


def _handed_in(given: Mapping[str, Any]) -> dict[str, Any]:
    return {role: made for role, made in given.items() if made is not None}


def _told(row: Row) -> str:
    """How well a setting did, in words."""
    if row.result is None:
        return f"failed: {row.failed}" if row.failed else "unfinished"
    ends = row.result["ci95"]
    interval = f", 95 % interval {ends[0]:,.1f} to {ends[1]:,.1f}" if ends else ", too few seeds for an interval"
    return f"return {row.result['mean']:,.1f}{interval}"


def _verdict(found: Row, defaults: Row) -> str:
    """What the comparison says, and no more than that."""
    if found.run == defaults.run:
        return "the search has found nothing better than the settings by default"
    if not found.result or not defaults.result:
        return "there is nothing to compare"
    ours, theirs = found.result["ci95"], defaults.result["ci95"]
    if not ours or not theirs:
        return "whether that is more than chance, so few seeds do not show: five make an interval (--fresh-seeds 5)"
    if ours[0] > theirs[1]:
        return "what was found is better: the intervals do not overlap"
    if ours[1] < theirs[0]:
        return "what was found is worse than the settings by default: it was good on the seeds of the search alone"
    return f"the intervals overlap: {len(found.result['per_seed'])} seeds do not tell them apart"


def _to_copy(run: Configuration, found: Setting, file: Path) -> list[str]:
    """Commands that train with what was found: by flags, where it begins with the same settings, and by file."""
    if not persistence.exists(file):
        return []
    if not run.environment_is_id:
        return [f"td.train(td.load_settings({str(file)!r}), ...) trains with it"]
    command = f"thorndike train {run.algorithm_name} {run.environment} --steps {run.steps}"
    command += "".join(
        f" --environment.{name} {json.dumps(value)}" for name, value in run.environment_arguments.items()
    )
    recorded = settings.recorded(run.algorithm_name, run.environment)
    by_default = recorded.algorithm if recorded else type(run.algorithm)()
    return [f"{command} {_flags(found)}"] * (run.algorithm == by_default) + [f"{command} --settings {file}"]


def _said(entry: Entry) -> str:
    return str(entry) if isinstance(entry, Range) else ",".join(grids.in_words(grids.told(value)) for value in entry)


def _how_to_resume(run: Configuration, folder: Path) -> str:
    return configuration.how_to_resume(run, folder).replace("td.resume(", "td.Search.resume(")
