"""A sweep: many settings of one algorithm, several seeds of each, a run folder for every setting and a table of all."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from thorndike import environments, persistence
from thorndike.errors import RunError, SettingError, UnknownNameError
from thorndike.hyperparameters import to_json
from thorndike.interface import listing, words
from thorndike.interface.progress import Progress
from thorndike.persistence import empty_folder, folder_of, locked, unused_folder, writable
from thorndike.runs import configuration, folders, sizes
from thorndike.runs.configuration import ENVIRONMENT, EVALUATION_ENVIRONMENT, Configuration
from thorndike.runs.load import load
from thorndike.runs.preparation import check_options
from thorndike.runs.run import Run
from thorndike.runs.train import AUTO, Chosen, choose, configured, train
from thorndike.sweeps import folder as files
from thorndike.sweeps import grids
from thorndike.sweeps.elsewhere import Scattered
from thorndike.sweeps.folder import Plan, Row
from thorndike.sweeps.together import Member, Together

SEEDS = 3  # of each setting, unless told otherwise
# Arguments of `train` that a sweep names itself, or has not; all others are each run's, and are handed through.
OF_A_SWEEP = {
    "algorithm", "environment", "steps", "seeds", "seed", "run_dir", "quiet", "on_full_disk", "on_chunk", "network",
    "environment_arguments", "ray", "actors", "arguments",
}  # fmt: skip
OPTIONS = tuple(name for name in inspect.signature(train).parameters if name not in OF_A_SWEEP)


class Sweep:
    """Many settings and what came of them. Printed, it is the table."""

    def __init__(self, folder: Path, plan: Plan, handed_in: Mapping[str, Any] | None = None) -> None:
        """Made by `sweep`, `Sweep.load` and `Sweep.resume`. `handed_in` goes to `td.load` with each run."""
        self.folder = folder
        self._plan, self._handed_in = plan, dict(handed_in or {})

    @classmethod
    def load(cls, folder: str | Path, **handed_in: Any) -> Sweep:
        """The sweep in a folder, as far as it has come; safe on a stranger's. `handed_in` is what `td.load` takes."""
        place = folder_of(folder)
        return cls(place, files.read(place), handed_in)

    @classmethod
    def resume(
        cls, folder: str | Path, *, quiet: bool = False, on_full_disk: words.OnFullDisk = "stop",
        ray: bool | str | None = None, **handed_in: Any,
    ) -> Sweep:  # fmt: skip
        """Go on with what is missing of a sweep; runs that are complete, or have failed, are left as they are.

        `handed_in` is what `td.resume` takes: environments, networks and classes of your own. RunError where nothing is
        missing.
        """
        check_options(on_full_disk, None, quiet)
        return _resumed(cls, folder_of(folder), quiet, on_full_disk, ray, handed_in)

    @property
    def table(self) -> list[Row]:
        """A row for each setting, best first: `run`, `settings`, `result` (mean, std, iqm, ci95 over seeds), `best`."""
        return files.ranked(self._plan)

    @property
    def runs(self) -> list[Run]:
        """The run of every row of the table that has come to its end, read from its folder."""
        return [self._loaded(row) for row in self.table if row.result]

    @property
    def best(self) -> Run:
        """The run of the best setting. RunError where none has come to its end."""
        row = self.table[0]
        if not row.best:
            raise RunError(f"no run of {self.folder} has come to its end")
        return self._loaded(row)

    def _loaded(self, row: Row) -> Run:
        return load(self.folder / row.run, **self._handed_in)

    @property
    def lines(self) -> list[str]:
        """The table as it is printed, with what has to be said of it."""
        return [*listing.aligned(files.table(self._plan)), *files.remarks(self._plan), f"run folders in {self.folder}"]

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __repr__(self) -> str:
        count = len(self._plan["members"])
        return (
            f"<Sweep of {count} settings of {self._plan['algorithm']} on {self._plan['environment']} in {self.folder}>"
        )


def sweep(
    algorithm: Any,
    environment: Any = None,
    steps: int | None = None,
    *,
    grid: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    draws: int | None = None,
    seeds: int = SEEDS,
    seed: int = 0,
    run_dir: str | Path = AUTO,
    quiet: bool = False,
    on_full_disk: words.OnFullDisk = "stop",
    network: Any = None,
    environment_arguments: Mapping[str, Any] | None = None,
    ray: bool | str | None = None,
    **options: Any,
) -> Sweep:
    """Train every setting of a grid, or some drawn at random, with several seeds each; a table of how well they did.

    `grid` says by field which values to try: {"learning_rate": [1e-4, 1e-3], "memory.batch_size": [32, 64],
    "environment.gravity": [9.8, 20]}; a single value holds for all. With `draws`, so many settings are drawn from it
    instead: of a range ("1e-5..1e-2": logarithmic where it is positive and spans ten times or more, whole numbers
    where the field's are) and of lists alike; `seed` decides which. A list of dicts is the settings themselves.

    All else is as in `train`; every setting has the same seeds: seed, seed + 1, ... `run_dir` is the folder to write,
    by default runs/sweep-ALGORITHM-ENVIRONMENT-TIME. In it each setting has a run folder like any other, and sweep.json
    the table. In compiled environments seeds of all settings go side by side, one for each core, and settings that
    differ in floats only share what is compiled; on the host, and on accelerators, one setting follows another.

    With `ray=True` each setting is a task of a Ray started here, with `ray="ADDRESS"` of a cluster, whose machines must
    all reach `run_dir` under the same name: as many at a time as it has cores, on the host too.

    A setting whose learning diverges, or whose environment fails, is a failed row of the table. Raises a
    ThorndikeError, before anything is compiled, where a setting cannot work. Ctrl-C and
    SIGTERM save; `Sweep.resume` goes on.
    """
    check_options(on_full_disk, None, quiet)
    if run_dir is None:
        raise SettingError("a sweep is a folder of run folders: run_dir=None is for td.train alone")
    how_often, options = options_of(options)
    chosen = choose(algorithm, environment, steps, network, environment_arguments, options)
    settings = _settings(grid, chosen.algorithm, draws, words.whole_number(seed, "seed"))
    given = {ENVIRONMENT: chosen.environment, EVALUATION_ENVIRONMENT: how_often.pop("evaluation_environment", None)}
    place = folder_of("runs" if run_dir == AUTO else run_dir)
    runs = planned(chosen, settings, given, seed, seeds, how_often, place)
    folder = _new_folder(run_dir, runs[0])
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(folder))
        plan = _begin(folder, runs, settings)
        members = [
            Member(run, None, folder / member["run"], given) for run, member in zip(runs, plan["members"], strict=True)
        ]
        return _go_on(Sweep(folder, plan, _own(chosen, given)), plan, members, quiet, on_full_disk, ray)


def options_of(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of `options` says how often things happen, and what goes to the environment.

    UnknownNameError for an argument of `train` that is of a run alone, unless it is as by default.
    """
    how_often = {name: value for name, value in options.items() if name in OPTIONS}
    rest = {name: value for name, value in options.items() if name not in OPTIONS}
    for name, parameter in inspect.signature(train).parameters.items():
        if rest.pop(name, parameter.default) is not parameter.default:
            raise UnknownNameError(f"no argument '{name}' for several runs: td.train takes it, for one")
    return how_often, rest


def _settings(grid: Any, algorithm: Any, draws: Any, seed: int) -> list[grids.Setting]:
    """The settings that are asked for. Raises SettingError or UnknownNameError."""
    if not isinstance(grid, (list, tuple)):
        return grids.settings_of(grids.entries(grid, algorithm), draws, seed)
    if draws is not None:
        raise SettingError("draws are made from a dict of ranges and values; a list of settings is run as it is")
    if not grid or not all(isinstance(setting, Mapping) for setting in grid):
        raise SettingError("a list of settings has a dict for each of them, such as {'learning_rate': 1e-3}")
    grids.check_count(len(grid))
    for setting in grid:
        for path in setting:
            if not grids.of_environment(path):
                grids.value_at(algorithm, path)
    return [dict(setting) for setting in grid]


def planned(
    chosen: Chosen, settings: Sequence[grids.Setting], given: dict[str, Any], seed: Any, seeds: Any,
    how_often: dict[str, Any], place: Path,
) -> list[Configuration]:  # fmt: skip
    """The configuration of each setting's run. What cannot work is refused, once for all that differ in floats."""
    checked: dict[Any, Configuration] = {}
    runs = []
    for setting in settings:
        algorithm = grids.changed(chosen.algorithm, setting)
        arguments = chosen.arguments | configuration.check_arguments(grids.environment_arguments(setting))
        kind = jax.tree.structure(algorithm), json.dumps(arguments, sort_keys=True)
        if kind not in checked:
            one = dataclasses.replace(chosen, algorithm=algorithm, arguments=arguments)
            with contextlib.ExitStack() as stack:
                run, _ = configured(one, given, seed, seeds, how_often, stack)
            sizes.check(run, place)
            checked[kind] = dataclasses.replace(run, history=())  # it has not begun
        runs.append(dataclasses.replace(checked[kind], algorithm=algorithm, id=uuid.uuid4().hex))
    return runs


def _new_folder(run_dir: str | Path, run: Configuration) -> Path:
    if run_dir != AUTO:
        return empty_folder(folder_of(run_dir))
    name = f"sweep-{run.algorithm_name}-{environments.name_of(run.environment)}-{time.strftime('%Y%m%d-%H%M%S')}"
    return unused_folder(Path("runs"), name)


def _begin(folder: Path, runs: Sequence[Configuration], settings: Sequence[grids.Setting]) -> Plan:
    """Write what every run will be, and last what the sweep is."""
    names = [f"{number:0{len(str(len(runs)))}}" for number in range(1, len(runs) + 1)]
    with writable(folder):
        for name, run in zip(names, runs, strict=True):
            persistence.make_folder(folder / name)
            run.write(folder / name)
    told = [{path: grids.told(value) for path, value in setting.items()} for setting in settings]
    members: list[files.Member] = [
        {"run": name, "settings": setting, "failed": "", "result": None}
        for name, setting in zip(names, told, strict=True)
    ]
    first = runs[0]
    plan: Plan = {
        "format": files.FORMAT, "algorithm": first.algorithm_name, "environment": first.environment,
        "seeds": first.seeds, "evaluated": bool(first.evaluation_interval), "members": members,
    }  # fmt: skip
    files.write(folder, plan)
    return plan


def _own(chosen: Chosen, given: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be handed in again where a run of the sweep is loaded: all that is not ours, and what names it."""
    own: dict[str, Any] = {role: made for role, made in given.items() if made is not None}
    values = to_json(chosen.algorithm)
    if configuration.is_own(values):
        own["algorithm"] = chosen.algorithm
    foreign = (name for name, value in values.items() if configuration.is_own(value) or configuration.is_foreign(value))
    return own | {name: getattr(chosen.algorithm, name) for name in foreign}


def _resumed(
    cls: type[Sweep], folder: Path, quiet: bool, on_full_disk: words.OnFullDisk, ray: Any, handed_in: dict[str, Any]
) -> Sweep:
    """What `Sweep.resume` does."""
    own = dict(handed_in)
    given = {role: own.pop(role, None) for role in (ENVIRONMENT, EVALUATION_ENVIRONMENT)}
    own = words.handed_in(own.pop("algorithm", None), own.pop("network", None), own)
    files.read(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(folder))
        plan = files.read(folder)  # once more: nobody else changes it now
        members = []
        for member in plan["members"]:
            place = folder / member["run"]
            run, checkpoint = folders.read(place, own)
            if member["failed"] or folders.is_complete(run, checkpoint, place):
                if not member["failed"]:
                    member["result"] = files.result_of(folders.summary(place, run.id), plan["evaluated"])
                continue
            if checkpoint is None:
                with (
                    warnings.catch_warnings()
                ):  # "it begins anew": nothing that was trained and can be had again is lost
                    warnings.simplefilter("ignore")
                    folders.check_never_saved(run, place)
            made = {role: configuration.trusted_environment(run, place, named, role) for role, named in given.items()}
            members.append(Member(run, checkpoint, place, made))
        if not members:
            raise RunError(f"{folder} is complete: td.Sweep.load and {files.FILE} in it have the table")
        return _go_on(cls(folder, plan, handed_in), plan, members, quiet, on_full_disk, ray)


def _go_on(
    made: Sweep, plan: Plan, members: Sequence[Member], quiet: bool, on_full_disk: words.OnFullDisk, ray: Any
) -> Sweep:
    """Train what is missing, noting each result in sweep.json; then print the table."""
    folder, count = made.folder, len(plan["members"])
    by_name = {member["run"]: member for member in plan["members"]}
    run = members[0].run
    title = f"sweep of {run.algorithm_name} on {run.environment}: {count} settings, {run.seeds} seeds each"
    title += f", {run.steps:,} steps a seed" + (f"; {len(members)} left" if len(members) < count else "")
    display = Progress(title, sum(member.run.steps * member.run.seeds for member in members), quiet)

    def ended(member: Member) -> None:
        entry = by_name[member.folder.name]
        entry["failed"] = member.failed
        entry["result"] = files.result_of(member.summary, plan["evaluated"]) if member.summary else None
        files.write(folder, plan)
        row = next(row for row in files.ranked(plan) if row.run == entry["run"])
        left = sum(other["result"] is None and not other["failed"] for other in plan["members"])
        how = f"failed: {row.failed}" if row.failed else f"return {row.mean or 0:,.1f}" + ", the best so far" * row.best
        display.say(f"{count - left} of {count}  {grids.as_flags(row.settings)}  {how}")

    together: Together | Scattered = Together(members, display, on_full_disk)
    if ray:
        together = Scattered(members, display, ray, made._handed_in)
    display.start()
    if not together.go_on(ended):
        last = f"stopped and saved; go on with: {_how_to_resume(run, folder)}"
        display.say(last)
        together.signals.throw(together.signals.pending or 0, last)
    plan["members"] = [by_name[row.run] for row in files.ranked(plan)]
    files.write(folder, plan)
    failed = [member["failed"] for member in plan["members"]]
    if all(failed):
        raise RunError(f"every run of {folder} has failed. The first: {failed[0]}")
    display.say(*made.lines)
    return made


def _how_to_resume(run: Configuration, folder: Path) -> str:
    return configuration.how_to_resume(run, folder).replace("td.resume(", "td.Sweep.resume(")
