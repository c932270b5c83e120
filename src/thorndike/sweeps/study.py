"""A search by Optuna: which setting to try next, and which trial is not worth going on with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from thorndike import persistence
from thorndike.errors import CorruptCheckpointError, MissingExtraError, ThorndikeError
from thorndike.sweeps.grids import Entry, Range, Setting, in_words, told

FILE = "study.log"
MAX_BYTES = 100_000_000
NAME = "thorndike"
STARTUP, WARMUP = 5, 3  # trials, and tenths of a trial, before any is pruned
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
SAMPLER_SEEDS = 100_003  # by which one search's differ from another's


class Journal:
    """Optuna's journal as its own file backend writes it, a JSON object a line: `optuna-dashboard` reads it too.

    Nothing in it is ever unpickled: Optuna pickles snapshots of a journal alone, and neither backend has any.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there, up to the last whole line: a writer that was killed leaves a part of one."""
        self.path = path
        data = persistence.read(path, MAX_BYTES) if persistence.exists(path) else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            persistence.write(path, whole)
        self.logs = [json.loads(line) for line in whole.splitlines()]

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return iter(self.logs[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        persistence.append(self.path, text.encode())
        self.logs += map(json.loads, text.splitlines())


class Study:
    """The trials of a search, in its folder. The folder is locked: nobody else writes into the journal."""

    def __init__(self, folder: Path, space: Mapping[str, Entry], seed: int, first: Setting) -> None:
        """Go on with the study in `folder`, or begin one whose first trial is `first`.

        MissingExtraError without Optuna, CorruptCheckpointError where the journal is not one.
        """
        self.optuna, self.space, self.seed = optuna(), dict(space), seed
        path = folder / FILE
        with self._journal(path):
            storage = self.optuna.storages.JournalStorage(Journal(path))
            self.study = self.optuna.create_study(
                storage=storage, study_name=NAME, direction="maximize", load_if_exists=True,
                pruner=self.optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=WARMUP),
            )  # fmt: skip
            if not self.study.get_trials(deepcopy=False) and all(map(_holds, self.space.values(), first.values())):
                self.study.enqueue_trial({path: self._label(path, first[path]) for path in self.space})
            self.trials  # noqa: B018 (read once, so that what is no journal is told now)
        self.path = path

    @contextlib.contextmanager
    def _journal(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (ThorndikeError, OSError):
            raise
        except Exception as error:  # whatever Optuna meets in a journal that it has not written
            raise CorruptCheckpointError(f"{path} is no study of Optuna's: {error}") from None

    @property
    def trials(self) -> list[Any]:
        """Optuna's record of every trial, in the order of their numbers: number, state, value, params."""
        waiting = self.optuna.trial.TrialState.WAITING
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != waiting]

    @property
    def unfinished(self) -> list[Any]:
        """Trials whose end was never told: the one that was under way when the search was stopped."""
        states = self.optuna.trial.TrialState
        under_way = [trial for trial in self.trials if trial.state == states.RUNNING]
        return [self.optuna.Trial(self.study, trial._trial_id) for trial in under_way]

    def ask(self) -> Any:
        """A new trial: what it is to try follows from those before it, its number and the seed."""
        number = len(self.trials)
        self.study.sampler = self.optuna.samplers.TPESampler(seed=(self.seed * SAMPLER_SEEDS + number) % 2**32)
        return self.study.ask({path: self._distribution(path) for path in self.space})

    def setting(self, trial: Any) -> Setting:
        """What a trial tries, by path."""
        with self._journal(self.path):
            return {path: self._value(path, trial.params[path]) for path in self.space}

    def tell(self, trial: Any, value: float | None, pruned: bool) -> None:
        """Note how well a trial has done; without a value and not `pruned`, that it has failed."""
        states = self.optuna.trial.TrialState
        state = states.PRUNED if pruned else states.FAIL if value is None else states.COMPLETE
        self.study.tell(trial, None if pruned else value, state=state)

    @property
    def best(self) -> Any:
        """The trial that has done best; None where none has come to its end."""
        done = [trial for trial in self.trials if trial.state == self.optuna.trial.TrialState.COMPLETE]
        with self._journal(self.path):
            return max(done, key=lambda trial: float(trial.value), default=None)

    def same(self, setting: Setting) -> Any:
        """A trial of the very same setting that has come to its end; None where there is none."""
        done = (trial for trial in self.trials if trial.state == self.optuna.trial.TrialState.COMPLETE)
        return next((trial for trial in done if self.setting(trial) == setting), None)

    def state(self, trial: Any) -> str:
        """How far a trial has come, in a word."""
        return STATES.get(trial.state.name, trial.state.name.lower())

    def counts(self) -> dict[str, int]:
        """How many trials have come to their ends, were pruned, and have failed."""
        return {word: sum(self.state(trial) == word for trial in self.trials) for word in STATES.values()}

    def _distribution(self, path: str) -> Any:
        entry, distributions = self.space[path], self.optuna.distributions
        if not isinstance(entry, Range):
            return distributions.CategoricalDistribution([self._label(path, value) for value in entry])
        cls = distributions.IntDistribution if entry.whole else distributions.FloatDistribution
        return cls(entry.low, entry.high, log=entry.logarithmic)

    def _label(self, path: str, value: Any) -> Any:
        """A value as Optuna can hold it: what is no number or word by its place among the values."""
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        entry = self.space[path]
        place = next(i for i, other in enumerate(entry) if told(other) == told(value))  # type: ignore[arg-type]
        return f"{place}: {in_words(told(value))}"

    def _value(self, path: str, label: Any) -> Any:
        entry = self.space[path]
        if isinstance(entry, Range):
            return entry.nearest(label)
        return next(value for value in entry if self._label(path, value) == label)


def _holds(entry: Entry, value: Any) -> bool:
    """Whether a space has a value."""
    if isinstance(entry, Range):
        return isinstance(value, (int, float)) and entry.low <= value <= entry.high
    return any(told(other) == told(value) for other in entry)


def optuna() -> Any:
    """The package, told to be silent. MissingExtraError where it is not installed."""
    try:
        import optuna as package
    except ImportError as error:
        raise MissingExtraError('searching for settings needs Optuna: pip install "thorndike[tune]"') from error
    package.logging.set_verbosity(package.logging.ERROR)
    return package
