"""What becomes of the chunks that training yields: rows, evaluations, checkpoints, a summary, and the screen.

Nothing here changes a run: evaluations have keys of their own, and whatever is saved is a copy.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError

from thorndike import checkpoints, evaluation, records, snapshots, trainer
from thorndike.checkpoints import Checkpoint
from thorndike.configuration import Configuration
from thorndike.console import Display
from thorndike.errors import RunError
from thorndike.interrupts import Interrupts
from thorndike.persistence import write_json

SUMMARY = "summary.json"
CHECKPOINTS = "checkpoints"


@dataclasses.dataclass
class Outcome:
    """Where one seed stands; the last three once it has reached its end."""

    steps: int
    iteration: int
    recent: list[float] = dataclasses.field(default_factory=list)  # returns of the last 100 training episodes
    evaluated: list[float] | None = None  # returns of the final greedy episodes
    state: Any = None


class Recording:
    """One run as it is followed from chunk to chunk, with or without a folder."""

    def __init__(
        self,
        configuration: Configuration,
        make_environment: Callable[[int], Any],
        folder: Path | None,
        display: Display,
        checkpoint: Checkpoint | None = None,
        rows: list[dict[str, Any]] | None = None,
    ) -> None:
        """Go on from `checkpoint` and the rows up to it, or begin."""
        self.configuration, self.make_environment = configuration, make_environment
        self.folder, self.display = folder, display
        self.rows = rows or []
        self.outcomes = _restored(configuration, checkpoint)
        self.begun = {seed: outcome.steps for seed, outcome in self.outcomes.items()}
        self.before = checkpoint.manifest["seconds"] if checkpoint else {}
        self.began, self.evaluating = time.monotonic(), 0.0
        self.running: set[int] = set()
        self.concurrent = 1  # how many seeds have been under way at once
        self.clocks: dict[int, tuple[dict[str, float], float]] = {}  # by seed: seconds, steps per second
        self.writer = None
        if folder is not None:
            self.writer = checkpoints.Writer(folder / CHECKPOINTS, configuration.chosen_seeds)
            if checkpoint:
                self.writer.go_on_from(checkpoint)

    def follow(self, chunks: Iterator, interrupts: Interrupts) -> bool:
        """Take every chunk; False where a signal ended that early, with everything saved."""
        stopped: set[int] = set()
        try:
            for chunk in chunks:
                if interrupts.pending:
                    self.display.stopping()
                if chunk.seed in stopped:
                    continue
                self.take(chunk)
                # Begin to stop at the first seed, so that seeds that go in step are saved in step.
                if interrupts.pending and (stopped or chunk.seed == min(self.running, default=None)):
                    self.save(chunk)
                    stopped.add(chunk.seed)
                    if stopped >= self.running:
                        self.commit()
                        return False
        finally:
            chunks.close()  # type: ignore[attr-defined]
        return True

    def take(self, chunk: Any) -> None:
        """Evaluate, record, save and show one chunk, as far as each is due."""
        if chunk.seed not in self.running:
            self.note_inexact(chunk)
        self.running.add(chunk.seed)
        self.concurrent = max(self.concurrent, len(self.running))
        self.clocks[chunk.seed] = chunk.seconds, chunk.steps_per_second
        outcome = self.outcomes[chunk.seed] = Outcome(chunk.steps, chunk.iteration)
        self.check_finite(chunk)
        returns = self.evaluate(chunk)
        self.display.chunk(chunk, self.steps_per_second)
        if chunk.row is not None or returns is not None:
            self.record(chunk, returns)
        if chunk.last:
            self.running.discard(chunk.seed)
            outcome.recent = chunk.recent[0].tolist()
            outcome.evaluated = None if returns is None else returns.tolist()
            outcome.state = jax.tree.map(jnp.copy, chunk.progress.state)
        if chunk.last or _due(chunk, self.interval(self.configuration.checkpoint_every)):
            self.save(chunk)
            if self.writer and self.writer.fresh >= self.expected:
                self.commit()

    def note_inexact(self, chunk: Any) -> None:
        """Where an environment could not be brought back to where it was: say so, here and in config.json."""
        notes = getattr(chunk.environment, "notes", [])
        if not notes:
            return
        more = f" (and {len(notes) - 1} more like this, in config.json)" if len(notes) > 1 else ""
        warnings.warn(f"seed {chunk.seed} does not go on exactly as it was: {notes[0]}{more}", stacklevel=2)
        *before, now = self.configuration.history
        now = now | {"inexact": now.get("inexact", []) + [f"seed {chunk.seed}: {note}" for note in notes]}
        self.configuration = dataclasses.replace(self.configuration, history=(*before, now))
        if self.folder is not None:
            self.configuration.write(self.folder)

    def check_finite(self, chunk: Any) -> None:
        """RunError where learning has diverged: going on would only cost time."""
        broken = [name for name, value in (chunk.row or {}).items() if not math.isfinite(value)]
        if broken:
            kept = self.writer.committed if self.writer else None
            raise RunError(
                f"learning has diverged: {', '.join(broken)} not finite at step {chunk.steps:,} of seed {chunk.seed}. "
                f"A smaller learning_rate may help. The last checkpoint: {kept or 'none yet'}"
            )

    @property
    def expected(self) -> set[int]:
        """The seeds whose arrays a checkpoint waits for: those under way."""
        if self.configuration.compiled and jax.default_backend() != "cpu":  # all seeds are one program
            return {seed for seed in self.configuration.chosen_seeds if seed not in self.finished}
        return self.running

    @property
    def finished(self) -> set[int]:
        """The seeds that have reached their end."""
        total = trainer.iterations_for(self.configuration.algorithm, self.configuration.steps)
        return {seed for seed, outcome in self.outcomes.items() if outcome.iteration >= total}

    def interval(self, steps: int) -> int:
        """An interval in steps as one in iterations, 0 for never."""
        if not steps:
            return 0
        return max(1, round(steps / trainer.steps_per_iteration(self.configuration.algorithm)))

    def evaluate(self, chunk: Any) -> np.ndarray | None:
        """Returns of greedy episodes with the policy of this moment, if it is time for some."""
        interval = self.interval(self.configuration.evaluate_every)
        if not interval or not (chunk.last or _due(chunk, interval)):
            return None
        episodes = self.configuration.final_episodes if chunk.last else self.configuration.evaluate_episodes
        began = time.monotonic()
        self.display.evaluating(chunk.seed)
        key = evaluation.evaluation_key(chunk.seed, chunk.iteration)
        algorithm, state = self.configuration.algorithm, chunk.progress.state
        returns, _ = evaluation.evaluate(algorithm, self.make_environment, state, key, episodes)
        self.display.evaluated(chunk.seed, float(returns.mean()))
        self.evaluating += time.monotonic() - began
        return returns

    def record(self, chunk: Any, returns: np.ndarray | None) -> None:
        """One more row of metrics."""
        seconds = round(self.before.get("total", 0.0) + time.monotonic() - self.began, 3)
        row = {"seed": chunk.seed, "steps": chunk.steps, "seconds": seconds}
        measured = dict(chunk.row or {})
        row |= {
            name: measured.pop(name) for name in ("return_mean", "episode_length_mean", "episodes") if name in measured
        }
        if returns is not None:
            row["evaluation_mean"] = float(returns.mean())
        row |= {"steps_per_second": round(chunk.steps_per_second, 1)} | measured
        self.rows.append(row)
        if self.folder is not None:
            records.append(self.folder, row)

    def save(self, chunk: Any) -> None:
        """Write this seed's arrays, to be committed with those of the seeds beside it."""
        if self.writer is None:
            return
        outcome = self.outcomes[chunk.seed]
        about: dict[str, Any] = {"steps": chunk.steps, "iteration": chunk.iteration}
        if chunk.last:
            about["results"] = {"recent": outcome.recent, "evaluated": outcome.evaluated}
        try:
            self.writer.add(chunk.seed, chunk.arrays(copy=False), about)
        except (OSError, SafetensorError) as error:
            raise self.failed(error) from error

    def commit(self) -> None:
        """Make a checkpoint of what has been saved."""
        if self.writer is None:
            return
        total = trainer.iterations_for(self.configuration.algorithm, self.configuration.steps)
        try:
            self.writer.commit(total, {"seconds": self.seconds})
        except OSError as error:
            raise self.failed(error) from error

    def failed(self, error: Exception) -> RunError:
        """The error for a checkpoint that could not be written: training on without any would risk it all."""
        last = self.writer.committed if self.writer else None
        return RunError(f"could not save a checkpoint: {error}. The last one is whole: {last or 'none yet'}")

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
        configuration = self.configuration
        outcomes = [self.outcomes[seed] for seed in configuration.chosen_seeds]
        greedy = [np.array(outcome.evaluated) for outcome in outcomes if outcome.evaluated is not None]
        recent = [np.array(outcome.recent) for outcome in outcomes]
        summary = {
            "algorithm": configuration.algorithm_name,
            "environment": configuration.environment,
            "steps": max(outcome.steps for outcome in outcomes),
            "seeds": configuration.seeds,
            "evaluation": evaluation.summarize(greedy) if greedy else None,
            "training": evaluation.summarize(recent),
            "seconds": self.seconds,
            "steps_per_second": round(self.steps_per_second, 1) or None,
        }
        if self.folder is not None:
            write_json(self.folder / SUMMARY, summary)
        return summary


def _due(chunk: Any, interval: int) -> bool:
    return bool(interval) and chunk.iteration % interval == 0


def _restored(configuration: Configuration, checkpoint: Checkpoint | None) -> dict[int, Outcome]:
    """By seed, where a checkpoint left it; seeds that had reached their end bring their results along."""
    outcomes: dict[int, Outcome] = {}
    if checkpoint is None:
        return outcomes
    for seed, entry in checkpoint.seeds.items():
        outcome = outcomes[seed] = Outcome(entry["steps"], entry["iteration"])
        results = entry.get("results")
        if results:
            arrays = checkpoint.arrays(seed, snapshots.STATE)
            outcome.recent, outcome.evaluated = results["recent"], results["evaluated"]
            outcome.state = snapshots.arrays_to_state(
                configuration.algorithm, configuration.observation_space, configuration.action_space, arrays
            )
    return outcomes
