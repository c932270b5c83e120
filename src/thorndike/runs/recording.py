"""What becomes of the chunks that training yields: rows, evaluations, checkpoints, a summary, and the screen.

Nothing here changes a run: evaluations have keys of their own, and whatever is saved is a copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thorndike import evaluation, normalization, snapshots, trainer
from thorndike.environments.boundary import told
from thorndike.environments.host import on_host
from thorndike.errors import RunError, SettingError, ThorndikeError
from thorndike.interface.console import Display
from thorndike.interface.words import OnFullDisk
from thorndike.persistence import sealed, write_json
from thorndike.runs import checkpoints
from thorndike.runs.checkpoints import Checkpoint
from thorndike.runs.chunks import OnChunk
from thorndike.runs.configuration import Configuration, how_to_resume
from thorndike.runs.interrupts import Interrupted, Interrupts
from thorndike.runs.records import Log

SUMMARY = "summary.json"
CHECKPOINTS = "checkpoints"
FULL = (errno.ENOSPC, errno.EDQUOT)
RETRY_SECONDS = 3.0  # between two attempts to write onto a full disk


@dataclasses.dataclass
class Outcome:
    """Where one seed stands; what follows `iteration` once it has reached its end."""

    steps: int
    iteration: int
    recent: list[float] = dataclasses.field(default_factory=list)  # returns of the last 100 training episodes
    evaluated: list[float] | None = None  # returns of the final greedy episodes
    unfinished: int = 0  # how many of those were cut
    stopped: bool = False  # by `on_chunk`, before all steps were done
    state: Any = None

    @property
    def results(self) -> dict[str, Any]:
        """What a checkpoint's manifest keeps of a seed's end."""
        results = {"recent": self.recent, "evaluated": self.evaluated, "unfinished": self.unfinished}
        return results | {"stopped": True} if self.stopped else results


@dataclasses.dataclass
class Best:
    """The state of a seed that did best in an evaluation, and how it did.

    An evaluation whose episodes all ended is better than any other: the return of a part says little. Of equal ones
    the later is better: it has learned longer.
    """

    steps: int
    iteration: int
    mean: float
    episodes: int
    unfinished: int
    state: Any

    @property
    def rank(self) -> tuple:
        """What is greatest for the best of several."""
        return not self.unfinished, self.mean, self.steps

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint's manifest says of it."""
        return {name: value for name, value in vars(self).items() if name != "state"}


class Diverged(RunError):
    """Learning whose numbers are not finite any more."""


class Recording:
    """One run as it is followed from chunk to chunk, with or without a folder."""

    def __init__(
        self,
        configuration: Configuration,
        environment: Any,
        folder: Path | None,
        display: Display,
        interrupts: Interrupts,
        on_full_disk: OnFullDisk = "stop",
        checkpoint: Checkpoint | None = None,
        log: Log | None = None,
        on_chunk: OnChunk | None = None,
    ) -> None:
        """Go on from `checkpoint` and the rows up to it, or begin. Evaluations are played in `environment`."""
        self.on_chunk = on_chunk
        self.configuration, self.environment = configuration, environment
        self.interrupts, self.on_full_disk = interrupts, on_full_disk
        self.plan = None if environment is None else configuration.evaluation_plan(environment)
        self.folder, self.display, self.checkpoint = folder, display, checkpoint
        self.log = log or Log(folder)
        self.outcomes = _restored(configuration, checkpoint)
        self.best = bests(configuration, checkpoint)
        self.begun = {seed: outcome.steps for seed, outcome in self.outcomes.items()}
        self.before = checkpoint.manifest["seconds"] if checkpoint else {}
        self.began, self.evaluating = time.monotonic(), 0.0
        self.running: set[int] = set()
        self.noted: dict[int, int] = {}  # by seed, how many of the environment's notes are written down
        self.concurrent = 1  # how many seeds have been under way at once
        self.clocks: dict[int, tuple[dict[str, float], float]] = {}  # by seed: seconds, steps per second
        self.hinted = False
        self.halted: set[int] = set()  # seeds that a signal has stopped, saved
        self.losses = 0  # of actors, that have been noted
        self.owed: set[int] = set()  # seeds whose newest evaluation a signal kept from its end
        self.writer = None
        if folder is not None:
            with writing(configuration, folder, checkpoint.path if checkpoint else None):
                self.writer = checkpoints.Writer(
                    folder / CHECKPOINTS, configuration.chosen_seeds, configuration.keep_checkpoints
                )
                if checkpoint:
                    self.writer.go_on_from(checkpoint)

    def follow(self, chunks: Iterator) -> bool:
        """Take every chunk; False where a signal ended that early, with everything saved."""
        try:
            self.catch_up()
            for chunk in () if self.owed else chunks:
                self.step(chunk)
                if self.halted and self.at_rest:
                    break
        finally:
            chunks.close()  # type: ignore[attr-defined]
        return self.complete

    def step(self, chunk: Any) -> None:
        """Take one chunk; where a signal has come, save its seed and halt it."""
        if self.interrupts.pending:
            self.display.stopping()
        if chunk.seed in self.halted:
            return
        self.take(chunk)
        # Begin to stop at the first seed, so that seeds that go in step are saved in step.
        first = chunk.seed == min(self.running, default=chunk.seed)
        if self.interrupts.pending and (self.halted or first or chunk.seed in self.owed):
            self.save(chunk)
            self.halted.add(chunk.seed)
            if self.at_rest:
                self.commit()

    @property
    def at_rest(self) -> bool:
        """Whether no seed is under way that is not halted."""
        return self.halted >= self.running

    @property
    def complete(self) -> bool:
        """Whether every seed has reached its end, the final evaluation included."""
        return not self.owed and self.finished >= set(self.configuration.chosen_seeds)

    def take(self, chunk: Any) -> None:
        """Show, record, save and evaluate one chunk, as far as each is due.

        Saved first, then evaluated: whatever happens while an evaluation plays costs nothing of the training.
        """
        self.note_inexact(chunk)
        self.note_lost(chunk)
        self.running.add(chunk.seed)
        self.concurrent = max(self.concurrent, len(self.running))
        self.clocks[chunk.seed] = chunk.seconds, chunk.steps_per_second
        outcome = self.outcomes[chunk.seed] = Outcome(chunk.steps, chunk.iteration)
        self.check_finite(chunk)
        self.display.chunk(chunk, self.steps_per_second)
        if chunk.row is not None:
            self.record(chunk)
        if self.on_chunk is not None:
            self.tell(chunk)
        if chunk.last:
            outcome.stopped = chunk.stopped
            self.running.discard(chunk.seed)
            outcome.recent = chunk.recent[0].tolist()
            outcome.state = jax.tree.map(jnp.copy, chunk.progress.state)
        if chunk.last or _due(chunk.iteration, self.interval(self.configuration.checkpoint_every)):
            self.save(chunk)
            if self.writer and self.writer.fresh >= self.expected:
                self.commit()
        episodes = chunk.progress.episodes
        self.evaluate(chunk.seed, chunk.progress.state, _longest(episodes.lengths, episodes.length))

    def tell(self, chunk: Any) -> None:
        """Call the user's `on_chunk`; whatever it raises ends the run, once the moment is saved."""
        try:
            answer = self.on_chunk(chunk)  # type: ignore[misc]
            if isinstance(answer, (bool, np.bool_)):
                raise SettingError(f"it returned {answer}, which says nothing here: chunk.stop() ends the training")
        except Exception as error:
            self.save(chunk)
            self.commit()
            what = str(error) if isinstance(error, ThorndikeError) else told(error)
            where = f"on_chunk failed at step {chunk.steps:,} of seed {chunk.seed}: {what}"
            raise RunError(f"{where}. {saved_before(self.configuration, self.folder, self.last)}") from error

    def catch_up(self) -> None:
        """Play the evaluations of the moment at which the run was stopped, where it was stopped before their end."""
        if self.checkpoint is None:
            return
        for seed, outcome in self.outcomes.items():
            # A row without the results of a run's end is that of a writer that was killed between the two.
            missing = seed in self.finished or not self.evaluated_at(seed, outcome.steps)
            if outcome.evaluated is None and missing:
                arrays = self.checkpoint.arrays(seed, "episodes/length")
                state = _state(self.configuration, self.checkpoint, seed)
                self.evaluate(seed, state, _longest(*arrays.values()))

    def note_inexact(self, chunk: Any) -> None:
        """Where an environment could not be brought back to where it was: say so, here and in config.json."""
        noted, there = self.noted.get(chunk.seed, 0), chunk.environment.notes if on_host(chunk.environment) else ()
        noted = noted if noted <= len(there) else 0  # a list that has begun anew
        notes = there[noted:]
        if not notes:
            return
        self.noted[chunk.seed] = noted + len(notes)
        more = f" (and {len(notes) - 1} more like this, in config.json)" if len(notes) > 1 else ""
        warnings.warn(f"seed {chunk.seed} does not go on exactly as it was: {notes[0]}{more}", stacklevel=2)
        said = self.configuration.history[-1].get("inexact", [])
        self.amend_history(inexact=said + [f"seed {chunk.seed}: {note}" for note in notes])

    def note_lost(self, chunk: Any) -> None:
        """Where actors were lost and replaced since the last chunk, say so in config.json."""
        losses = getattr(chunk.environment, "losses", [])
        if len(losses) > self.losses:
            said = self.configuration.history[-1].get("lost", [])
            here = f"seed {chunk.seed}, by step {chunk.steps}"
            self.amend_history(lost=said + [f"{here}: {loss}" for loss in losses[self.losses :]])
            self.losses = len(losses)

    def amend_history(self, **said: Any) -> None:
        """Say more about this session in config.json."""
        self.configuration = self.configuration.noting(**said)
        if self.folder is not None:
            self.persist(self.configuration.write, self.folder)

    def check_finite(self, chunk: Any) -> None:
        """RunError where learning has diverged: going on would only cost time."""
        broken = [name for name, value in (chunk.row or {}).items() if not math.isfinite(value)]
        if broken:
            raise Diverged(
                f"learning has diverged: {', '.join(broken)} not finite at step {chunk.steps:,} of seed {chunk.seed}. "
                f"A smaller learning_rate may help. The last checkpoint: {self.last or 'none yet'}"
            )

    @property
    def expected(self) -> set[int]:
        """The seeds whose arrays a checkpoint waits for: those under way."""
        compiled = self.configuration.compiled and not self.configuration.actors
        if compiled and jax.default_backend() != "cpu":  # all seeds are one program
            return {seed for seed in self.configuration.chosen_seeds if seed not in self.finished}
        return self.running

    @property
    def finished(self) -> set[int]:
        """The seeds that have reached their end."""
        total = trainer.iterations_for(self.configuration.algorithm, self.configuration.steps)
        return {seed for seed, outcome in self.outcomes.items() if outcome.stopped or outcome.iteration >= total}

    @property
    def stopped(self) -> dict[int, int]:
        """By seed, the steps after which `on_chunk` has stopped it."""
        return {seed: outcome.steps for seed, outcome in self.outcomes.items() if outcome.stopped}

    def interval(self, steps: int) -> int:
        """An interval in steps as one in iterations, 0 for never."""
        return self.configuration.in_iterations(steps)

    def evaluate(self, seed: int, state: Any, seen: int) -> None:
        """Greedy episodes with the policy of this moment, if it is time for some; `seen` is training's longest one."""
        outcome, interval = self.outcomes[seed], self.interval(self.configuration.evaluation_interval)
        last = seed in self.finished
        if self.plan is None or outcome.iteration == 0 or not (last or _due(outcome.iteration, interval)):
            return
        rows = (row for row in self.log.rows if row["seed"] == seed and "evaluation_steps" in row)
        before = [row for row in rows if row["steps"] < outcome.steps]
        seen = max([seen, *(row["evaluation_longest"] for row in before)])
        chosen: tuple[int, int] | None
        if last:
            plan = dataclasses.replace(self.plan, steps=outcome.steps)
            chosen = plan.at_the_end(sum(row["evaluation_steps"] for row in before), seen)
        else:
            ends = self.configuration.earlier_ends
            used = sum(row["evaluation_steps"] for row in before if row["steps"] not in ends)
            chosen = self.plan.on_the_way(outcome.iteration // interval, used, seen)
        if chosen is None:
            return
        began = time.monotonic()
        self.display.evaluating(seed)
        key = evaluation.evaluation_key(seed, outcome.iteration)
        algorithm = self.configuration.algorithm
        try:
            played = evaluation.evaluate(algorithm, self.environment, state, key, *chosen, pause=self.interrupts.check)
        except Interrupted:
            self.owed.add(seed)
            return
        finally:
            self.evaluating += time.monotonic() - began
        self.display.evaluated(seed, float(played.returns.mean()), played.unfinished)
        # The row comes last: where there is one, a run that goes on from here plays no evaluation again.
        self.keep_the_best(seed, state, played)
        if not self.evaluated_at(seed, outcome.steps):
            self.add_row(seed, outcome.steps, evaluated_columns(played))
        about: dict[str, Any] = {"metrics": self.log.written(seed)}
        if last:
            outcome.evaluated, outcome.unfinished = played.returns.tolist(), played.unfinished
            about["results"] = outcome.results
        if self.writer and self.writer.holds(seed, outcome.iteration):
            self.persist(self.writer.amend, seed, about)

    def keep_the_best(self, seed: int, state: Any, played: evaluation.Played) -> None:
        """Keep the state that was just evaluated, where none before it did better."""
        outcome = self.outcomes[seed]
        mean, episodes = float(played.returns.mean()), len(played.returns)
        new = Best(outcome.steps, outcome.iteration, mean, episodes, played.unfinished, state)
        if seed not in self.best or new.rank >= self.best[seed].rank:
            new.state = jax.tree.map(jnp.copy, state)
            self.best[seed] = new
            if self.writer:
                self.persist(self.writer.keep_best, seed, snapshots.state_to_arrays(new.state), new.about)

    def evaluated_at(self, seed: int, steps: int) -> bool:
        return any(row["seed"] == seed and row["steps"] == steps and "evaluation_mean" in row for row in self.log.rows)

    def record(self, chunk: Any) -> None:
        """The row of metrics that ends with a chunk; once in a run, a hint where rewards are out of scale."""
        measured = dict(chunk.row)
        advice = (
            None
            if self.hinted or getattr(self.configuration.algorithm, "normalize_rewards", False)
            else normalization.hint(measured)
        )
        if advice:
            self.hinted = True
            warnings.warn(advice, stacklevel=2)
        first = ("return_mean", "episode_length_mean", "episodes")
        row = {name: measured.pop(name) for name in first if name in measured}
        self.add_row(chunk.seed, chunk.steps, row | {"steps_per_second": round(chunk.steps_per_second, 1)} | measured)

    def add_row(self, seed: int, steps: int, columns: dict[str, Any]) -> None:
        """One more line of metrics; what is known of the same seed and steps becomes one row."""
        seconds = round(self.before.get("total", 0.0) + time.monotonic() - self.began, 3)
        line = {"seed": seed, "steps": steps, "seconds": seconds, **columns}
        self.persist(self.log.add, line)

    def save(self, chunk: Any) -> None:
        """Write this seed's arrays, to be committed with those of the seeds beside it."""
        if self.writer is None or self.writer.holds(chunk.seed, chunk.iteration):
            return
        written = self.log.written(chunk.seed)
        about: dict[str, Any] = {"steps": chunk.steps, "iteration": chunk.iteration, "metrics": written}
        if chunk.last:
            about["results"] = self.outcomes[chunk.seed].results
        self.persist(self.writer.add, chunk.seed, chunk.arrays(copy=False), about)

    def commit(self) -> None:
        """Make a checkpoint of what has been saved."""
        if self.writer is None:
            return
        total = trainer.iterations_for(self.configuration.algorithm, self.configuration.steps)
        run = {"run": self.configuration.id, "configuration": self.configuration.to_json()}
        self.persist(self.writer.commit, total, run | {"seconds": self.seconds})

    def persist(self, write: Callable[..., Any], *arguments: Any) -> None:
        """Call `write`, which writes into the folder, or none of it: what failed may be called again.

        With `on_full_disk="pause"` it is, until there is room; Interrupted where a signal comes first. RunError where
        the folder cannot be written into: training on without it would risk it all.
        """
        while True:
            try:
                write(*arguments)
                break
            except OSError as error:
                if self.on_full_disk == "stop" or error.errno not in FULL:
                    raise unwritten(error, self.configuration, self.folder, self.last) from error
            self.display.waiting(f"paused until there is room: {self.folder} is on a full disk")
            self.interrupts.check()
            time.sleep(RETRY_SECONDS)
        self.display.waiting("")

    @property
    def last(self) -> Path | None:
        """The last checkpoint."""
        return self.writer.committed if self.writer else None

    @property
    def steps_per_second(self) -> float:
        """Of all seeds together, compiling and evaluating apart."""
        taken = {
            seed: self.outcomes[seed].steps - self.begun.get(seed, 0) for seed in self.clocks if self.clocks[seed][1]
        }
        time_taken = sum(steps / self.clocks[seed][1] for seed, steps in taken.items())
        return self.concurrent * sum(taken.values()) / time_taken if time_taken else 0.0

    @property
    def seconds(self) -> dict[str, float]:
        """What the time went into, sessions before this one included."""
        now = {"evaluate": self.evaluating, "total": time.monotonic() - self.began}
        for name in ("compile", "train"):
            now[name] = sum(seconds[name] for seconds, _ in self.clocks.values()) / self.concurrent
        order = ("compile", "train", "evaluate", "total")
        return {name: round(self.before.get(name, 0.0) + now[name], 3) for name in order}

    def finish(self) -> dict[str, Any]:
        """The summary of a run that has reached its end, written into its folder."""
        if self.stopped:
            self.amend_history(stopped={str(seed): steps for seed, steps in self.stopped.items()})
        configuration = self.configuration
        outcomes = [self.outcomes[seed] for seed in configuration.chosen_seeds]
        greedy = [np.array(outcome.evaluated) for outcome in outcomes if outcome.evaluated is not None]
        recent = [np.array(outcome.recent) for outcome in outcomes]
        summary = {
            "algorithm": configuration.algorithm_name,
            "environment": configuration.environment,
            "steps": max(outcome.steps for outcome in outcomes),
            "seeds": configuration.seeds,
            "evaluation": evaluation.summarize(greedy, sum(o.unfinished for o in outcomes)) if greedy else None,
            "training": evaluation.summarize(recent),
            "seconds": self.seconds,
            "steps_per_second": round(self.steps_per_second, 1) or None,
        }
        if self.best:
            summary["best"] = [{"seed": seed, **self.best[seed].about} for seed in sorted(self.best)]
        if self.stopped:
            summary["stopped"] = _stopped(self.stopped, configuration.seeds)
        if self.folder is not None:
            self.persist(write_json, self.folder / SUMMARY, sealed(summary | {"run": configuration.id}))
        return summary


@contextlib.contextmanager
def writing(run: Configuration, folder: Path | None, last: Path | None) -> Iterator[None]:
    """What the disk refuses as a RunError; `last` is the last checkpoint."""
    try:
        yield
    except OSError as error:
        raise unwritten(error, run, folder, last) from error


def unwritten(error: OSError, run: Configuration, folder: Path | None, last: Path | None) -> RunError:
    """What to say of a disk that refuses: what and why, what is safe, and how to go on."""
    named = f"{Path(error.filename).name} " if isinstance(error.filename, (str, Path)) else ""
    reason = error.strerror or str(error) if folder and folder.is_dir() else "it is gone"
    return RunError(f"could not write {named}into {folder}: {reason}. {saved_before(run, folder, last)}")


def saved_before(run: Configuration, folder: Path | None, last: Path | None) -> str:
    """What an interrupted run has left behind, and how to go on with it."""
    if folder is None:
        return "Nothing was saved (run_dir is None)"
    what = f"The last checkpoint is {last.name}" if last else "There is no checkpoint yet"
    return f"{what}; once that is mended, go on with: {how_to_resume(run, folder)}"


def evaluated_columns(played: evaluation.Played) -> dict[str, Any]:
    """What a row says of an evaluation."""
    return {
        "evaluation_mean": float(played.returns.mean()),
        "evaluation_episodes": len(played.returns),
        "evaluation_unfinished": played.unfinished,
        "evaluation_steps": int(played.lengths.sum()),
        "evaluation_longest": int(played.lengths.max()),
    }


def _stopped(steps: dict[int, int], seeds: int) -> str:
    """What is to be said of the seeds that were stopped, by the steps after which they were."""
    each = (f"at step {done:,}" + f" of seed {seed}" * (seeds > 1) for seed, done in sorted(steps.items()))
    return f"stopped by on_chunk {', '.join(each)}"


def _due(iteration: int, interval: int) -> bool:
    return bool(interval) and iteration % interval == 0


def _longest(*lengths: Any) -> int:
    """The longest of the episodes whose lengths are given."""
    return max(int(np.asarray(x).max()) for x in lengths)


def _restored(configuration: Configuration, checkpoint: Checkpoint | None) -> dict[int, Outcome]:
    """By seed, where a checkpoint left it; seeds that had reached their end bring their results along."""
    outcomes: dict[int, Outcome] = {}
    if checkpoint is None:
        return outcomes
    for seed, entry in checkpoint.seeds.items():
        outcome = outcomes[seed] = Outcome(entry["steps"], entry["iteration"])
        results = entry.get("results")
        if results:
            outcome.recent, outcome.evaluated = results["recent"], results["evaluated"]
            outcome.unfinished = results.get("unfinished", 0)
            # Where the run has come to its end since, it goes on from there.
            outcome.stopped = results.get("stopped", False) and entry["steps"] not in configuration.earlier_ends
            outcome.state = _state(configuration, checkpoint, seed)
    return outcomes


def bests(configuration: Configuration, checkpoint: Checkpoint | None) -> dict[int, Best]:
    """By seed, the best that a checkpoint knows of; of those that were evaluated at all."""
    found = {}
    for seed, entry in checkpoint.seeds.items() if checkpoint else ():
        if best := entry.get("best"):
            state = _state_of(configuration, checkpoint.best_arrays(seed))  # type: ignore[union-attr]
            about = {name: best[name] for name in ("steps", "iteration", "mean", "episodes", "unfinished")}
            found[seed] = Best(**about, state=state)
    return found


def _state(configuration: Configuration, checkpoint: Checkpoint, seed: int) -> Any:
    """The algorithm's state that a checkpoint holds of a seed."""
    return _state_of(configuration, checkpoint.arrays(seed, snapshots.STATE))


def _state_of(configuration: Configuration, arrays: snapshots.Arrays) -> Any:
    return snapshots.arrays_to_state(
        configuration.algorithm, configuration.observation_space, configuration.action_space, arrays
    )
