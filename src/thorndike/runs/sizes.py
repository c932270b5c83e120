"""How much memory and disk a run takes: told from shapes before anything is compiled, refused where it is too much."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random

from thorndike import core, machine, spaces, trainer
from thorndike.core import Algorithm
from thorndike.errors import SettingError
from thorndike.memories import FrameReplay, PrioritizedFrames, in_frames
from thorndike.runs.configuration import Configuration

LARGE = 100e6  # bytes of a checkpoint that is worth a word


class Sizes(NamedTuple):
    """Bytes that training one seed holds at once."""

    state: int  # weights, their optimisers, statistics
    memory: int
    rollout: int  # what was acted and is not yet in the memory
    batch: int  # what is learned from at a time, as float32

    @property
    def total(self) -> int:
        return sum(self)


def estimate(algorithm: Algorithm, observation_space: Any, action_space: Any) -> Sizes:
    """What one seed takes, from shapes alone: nothing is computed or allocated.

    State and memory are exact. Gradients, activations and what the environment itself holds are not counted.
    """
    length, n, key = algorithm.rollout_length, algorithm.num_environments, random.key(0)
    one = spaces.stored(observation_space)
    observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), one)
    state = jax.eval_shape(lambda: algorithm.init(key, observation_space, action_space))
    step = core.shapes_of_step(algorithm, state, observation, key)
    memory = jax.eval_shape(lambda: algorithm.memory.init(step, (length, n)))
    batch = jax.eval_shape(algorithm.memory.sample, memory, key, jnp.float32(0))
    elements = jax.tree.leaves(jax.tree.map(lambda x: x.size, batch))
    return Sizes(_bytes(state), _bytes(memory), length * n * _bytes(step), 4 * sum(elements))


def check(run: Configuration, folder: Path | None, kept: int = 0) -> str:
    """Refuse a run that the free memory, or the disk that `folder` is or will be on, cannot hold.

    `kept` checkpoints are there already. Gives what is to be said of its checkpoints if they are large, else "".
    Raises SettingError.
    """
    sizes = estimate(run.algorithm, run.observation_space, run.action_space)
    check_memory(run, sizes, _side_by_side(run), free_memory())
    if folder is None:
        return ""
    size = checkpoint_size(run, sizes)
    check_disk(run, size, folder, kept)
    return f"each checkpoint takes up to {in_words(size)}{_beside_short_episodes(run)}" if size > LARGE else ""


def check_memory(run: Configuration, sizes: Sizes, seeds: int, free: int | None) -> None:
    """SettingError where `seeds` side by side need more than `free` bytes; the setting that most of it is due to."""
    algorithm: Any = run.algorithm
    needed = seeds * sizes.total
    if free is None or needed <= free:
        return
    capacity, rollout = getattr(algorithm.memory, "capacity", None), sizes.rollout + sizes.batch
    rest = sizes.total - sizes.memory
    fitting = _rounded_down(capacity * (free / seeds - rest) / sizes.memory) if capacity else 0
    if fitting:
        cure = (
            f"its memory of {capacity:,} steps takes {in_words(sizes.memory)}: "
            f"set memory.capacity to {fitting:,} or less{_as_frames(run)}"
        )
    elif sizes.state > rollout:
        cure = f"its networks and optimizers take {in_words(sizes.state)}: choose smaller networks"
    else:
        cure = (
            f"a rollout of {algorithm.rollout_length:,} steps in {algorithm.num_environments:,} environments takes "
            f"{in_words(rollout)}: lower rollout_length or num_environments"
        )
    together = f" for {seeds} seeds side by side" if seeds > 1 else ""
    raise SettingError(
        f"{type(algorithm).__name__} needs {in_words(needed)} of memory{together}, {in_words(free)} are free; {cure}"
    )


def check_disk(run: Configuration, size: int, folder: Path, kept: int) -> None:
    """SettingError where the checkpoints, of up to `size` bytes each, will not fit beside the `kept` that are there."""
    beside = min(run.keep_checkpoints + 1, math.ceil(run.steps / run.checkpoint_every)) if run.checkpoint_every else 1
    beside = max(1, beside - kept)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(there).free, (beside + 1) * size  # as much as a checkpoint stays free
    if needed > free:
        fewer = "checkpoint_every=0 saves only the last, " if beside > 1 else ""
        smaller = "a smaller memory.capacity makes them smaller, " if hasattr(run.algorithm.memory, "capacity") else ""
        raise SettingError(
            f"checkpoints of up to {in_words(size)} each need {in_words(needed)} in {folder}, {in_words(free)} are "
            f"free: {fewer}{smaller}run_dir may be on another disk"
        )


def checkpoint_size(run: Configuration, sizes: Sizes) -> int:
    """Bytes of the run's last checkpoint: of a memory, only the rows that are written by then; its best state too."""
    steps = trainer.iterations_for(run.algorithm, run.steps) * trainer.steps_per_iteration(run.algorithm)
    written = min(1.0, steps / getattr(run.algorithm.memory, "capacity", steps))
    states = 2 if run.evaluation_interval else 1
    return run.seeds * (states * sizes.state + round(written * sizes.memory))


def _as_frames(run: Configuration) -> str:
    """What a replay of whole images would take as one of frames; "" where it is none, or frames are not told apart."""
    memory = in_frames(run.algorithm.memory)
    if memory is None:
        return ""
    algorithm: Any = run.algorithm
    try:
        sizes = estimate(dataclasses.replace(algorithm, memory=memory), run.observation_space, run.action_space)
    except SettingError:
        return ""
    return f", or store each frame once: memory={type(memory).__name__}(...) takes {in_words(sizes.memory)}"


def _beside_short_episodes(run: Configuration) -> str:
    """What has to be added where only part of a memory of frames will be written."""
    memory = run.algorithm.memory
    stores_frames = isinstance(memory, (FrameReplay, PrioritizedFrames)) and run.steps < memory.capacity
    return ", more where episodes are short" if stores_frames else ""


def free_memory() -> int | None:
    """Bytes that are free where training takes place: on the accelerator, or in this process's reach."""
    if jax.default_backend() == "cpu":
        return machine.free_memory()
    held = jax.devices()[0].memory_stats() or {}
    return held["bytes_limit"] - held["bytes_in_use"] if "bytes_limit" in held else None


def in_words(size: float) -> str:
    """55_300_000_000 as "55.3 GB"."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def _side_by_side(run: Configuration) -> int:
    """How many seeds train at a time."""
    if not run.compiled or run.actors:
        return 1
    return min(run.seeds, machine.cores()) if jax.default_backend() == "cpu" else run.seeds


def _bytes(tree: Any) -> int:
    return sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def _rounded_down(number: float) -> int:
    """To two digits, never below 0."""
    if number < 1:
        return 0
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return int(number // unit * unit)
