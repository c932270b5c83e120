"""The drive of a run: training goes on chunk by chunk, a recording follows it, a display shows it, signals end it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from thorndike import settings, trainer
from thorndike.errors import EnvironmentFault
from thorndike.interface import console, words
from thorndike.runs import checkpoints, chunks, configuration, interrupts, records
from thorndike.runs.agents import Agent
from thorndike.runs.configuration import ENVIRONMENT, Configuration
from thorndike.runs.recording import Recording, saved_before
from thorndike.runs.run import Run
from thorndike.runs.worlds import Worlds


def drive(
    run: Configuration,
    given: dict[str, Any],
    worlds: Worlds,
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
    progress = chunks_of(recording, worlds, run.seed, run.seeds)
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


def chunks_of(recording: Recording, worlds: Worlds, seed: int, seeds: int) -> Iterator[trainer.Chunk]:
    """The training of `seeds` of a recorded run from `seed` on, from where its checkpoint has left them."""
    run, checkpoint = recording.configuration, recording.checkpoint
    interval = recording.interval(run.evaluation_interval)
    every = [interval, recording.interval(run.checkpoint_every) if recording.folder else 0]
    chosen = set(range(seed, seed + seeds))
    saved = {one: checkpoint.arrays(one) for one in checkpoint.seeds.keys() & chosen} if checkpoint else None
    return trainer.train(
        run.algorithm, lambda: worlds.training, run.steps, seed=seed, seeds=seeds, every=every,
        row_every=recording.interval(run.metrics_every or 0), lend_every=interval if worlds.shared else 0,
        resume=saved, ended=recording.stopped, parallel=_parallel(run, checkpoint), overlap=run.overlap,
        make_chunk=worlds.make_chunk,
    )  # fmt: skip


def _parallel(run: Configuration, checkpoint: checkpoints.Checkpoint | None) -> trainer.Parallel:
    """As training chooses; but seeds that were stopped at different iterations cannot go on as one program."""
    iterations = [checkpoint.seeds.get(seed, {}).get("iteration") for seed in run.chosen_seeds] if checkpoint else []
    return "sequential" if len(set(iterations)) > 1 and jax.default_backend() != "cpu" else "auto"


def _stopped(run: Configuration, recording: Recording, folder: Path | None) -> str:
    steps = max(outcome.steps for outcome in recording.outcomes.values())
    if folder is None:
        return f"stopped at step {steps:,}; nothing was saved (run_dir is None)"
    return f"stopped at step {steps:,} and saved; go on with: {configuration.how_to_resume(run, folder)}"
