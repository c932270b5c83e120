"""Several runs under way at once: seeds of any of them side by side, each recorded in its own run's folder."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from thorndike import machine, trainer
from thorndike.errors import EnvironmentFault
from thorndike.interface.progress import Progress
from thorndike.interface.words import OnFullDisk
from thorndike.persistence import locked
from thorndike.runs import checkpoints, drive
from thorndike.runs.configuration import Configuration
from thorndike.runs.interrupts import Interrupted, Interrupts
from thorndike.runs.recording import Diverged, Recording
from thorndike.runs.resume import reopened
from thorndike.runs.worlds import Worlds

FAULTS = (Diverged, EnvironmentFault)  # that end a run, and no other beside it


class Member:
    """One run among several: opened when its first seed begins, closed after its last."""

    def __init__(
        self, run: Configuration, checkpoint: checkpoints.Checkpoint | None, folder: Path, given: dict[str, Any]
    ) -> None:
        """Begin it, or go on from `checkpoint`; `given` holds what environments are made from, by argument."""
        self.run, self.checkpoint, self.folder, self.given = run, checkpoint, folder, given
        self.recording: Recording | None = None
        self.worlds: Worlds | None = None
        self.summary: dict[str, Any] | None = None  # once it has come to its end
        self.failed = ""
        self._stack, self._opening, self._left = contextlib.ExitStack(), threading.Lock(), 0

    @property
    def at_rest(self) -> bool:
        """Whether nothing of it is under way that a signal has not halted."""
        return self.recording is None or self.recording.at_rest

    def parts(self, together: Together) -> list[Iterator[tuple[Member, Any]]]:
        """What can be trained apart: a seed each on CPUs; elsewhere, and on the host, all of them."""
        seeds = self.run.chosen_seeds
        apart = self.run.compiled and jax.default_backend() == "cpu"
        groups = [(seed, 1) for seed in seeds] if apart else [(self.run.seed, self.run.seeds)]
        self._left = len(groups)
        return [self._train(together, *group) for group in groups]

    def _train(self, together: Together, seed: int, seeds: int) -> Iterator[tuple[Member, Any]]:
        """Each chunk of these seeds, and None at their end."""
        try:
            with self._opening:
                if self.recording is None and not (self.failed or together.signals.pending):
                    self._open(together)
            if self.recording is not None and self.worlds is not None and not (self.failed or self.recording.owed):
                for chunk in drive.chunks_of(self.recording, self.worlds, seed, seeds):
                    yield self, chunk
        except FAULTS as error:
            self.failed = self.failed or str(error)
        yield self, None

    def _open(self, together: Together) -> None:
        self._stack.enter_context(locked(self.folder))
        self.run, self.worlds, log = reopened(self.run, self.checkpoint, self.folder, self.given, self._stack)
        self.recording = Recording(
            self.run, self.worlds.evaluation, self.folder, together.display.of_run(), together.signals,
            together.on_full_disk, self.checkpoint, log,
        )  # fmt: skip
        self.recording.catch_up()

    def take(self, chunk: Any) -> None:
        """Record a chunk. Of a run that has failed the other seeds end too."""
        try:
            if not self.failed and self.recording is not None:
                self.recording.step(chunk)
        except FAULTS as error:
            self.failed = str(error)
        if self.failed:
            chunk.stop()

    def part_ended(self) -> bool:
        """Note that a part has come to its end; whether it was the last, with which the run is closed."""
        self._left -= 1
        if self._left:
            return False
        if self.recording is not None and self.recording.complete and not self.failed:
            self.summary = self.recording.finish()
        self.close()
        return True

    def close(self) -> None:
        """Let go of the folder, the environments and all that was learned."""
        self.recording = self.worlds = None
        self._stack.close()


class Together:
    """Runs under way at once, with one screen and one ear for signals."""

    def __init__(self, members: Sequence[Member], display: Progress, on_full_disk: OnFullDisk) -> None:
        """Nothing has begun yet."""
        self.members, self.display, self.on_full_disk = members, display, on_full_disk
        self.signals = Interrupts()

    def go_on(self, ended: Callable[[Member], None]) -> bool:
        """Train all of them to their ends, telling of each; False where a signal ended that early, all saved.

        Compiled ones share the cores of a CPU, a thread for each, which takes one seed after another, whichever run's.
        On the host and on accelerators one run follows another.
        """
        chunks = self._chunks()
        try:
            with self.signals:
                for member, chunk in chunks:
                    if chunk is not None:
                        member.take(chunk)
                        self.display.chunk(member.folder.name, chunk)
                    elif member.part_ended() and (member.summary or member.failed):
                        ended(member)
                    if self.signals.pending:
                        self.display.stopping()
                        if all(other.at_rest for other in self.members):
                            break
        except Interrupted:  # while it waited for a full disk
            pass
        finally:
            chunks.close()
            for member in self.members:
                member.close()
        return not self.signals.pending

    def _chunks(self) -> Generator[tuple[Member, Any], None, None]:
        apart = jax.default_backend() == "cpu" and machine.cores() > 1
        shared = [member for member in self.members if apart and member.run.compiled]
        parts = [part for member in shared for part in member.parts(self)]
        if parts:
            yield from trainer.side_by_side(parts)
        rest = (member for member in self.members if member not in shared)
        yield from itertools.chain.from_iterable(part for member in rest for part in member.parts(self))
