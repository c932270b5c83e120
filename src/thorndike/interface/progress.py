"""What several runs at once show while they go on: a line for each that has ended, and now and then how far all are."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from thorndike.interface.console import GOING_ON, STOPPING, TENTHS, Display, Silence, duration


class Progress:
    """Plain lines, or with `quiet` none."""

    def __init__(self, title: str, total_steps: int, quiet: bool) -> None:
        """Nothing is printed yet. `total_steps` are those of all runs and their seeds."""
        self.title, self.total_steps, self.quiet = title, total_steps, quiet
        self.steps: dict[tuple[str, int], int] = {}  # by run and seed
        self.first: dict[tuple[str, int], int] = {}  # those at the first chunk: more than a few in a resumed run
        self.before = 0  # steps of runs that had ended before
        self.began, self.next, self.stopped, self.why = time.monotonic(), 1 / TENTHS, False, ""

    def say(self, *lines: str) -> None:
        """Print these lines."""
        for line in () if self.quiet else lines:
            print(line, flush=True)

    def start(self, notes: Sequence[str] = ()) -> None:
        """Say what begins."""
        self.began = time.monotonic()
        self.say(self.title, *notes)

    def chunk(self, run: str, chunk: Any) -> None:
        """Take note of a chunk of the run of this name; at every tenth of all steps, say how far they are."""
        self.first.setdefault((run, chunk.seed), chunk.steps)
        self.steps[run, chunk.seed] = chunk.total_steps if chunk.last else chunk.steps
        fraction = (self.before + sum(self.steps.values())) / self.total_steps
        if fraction < self.next or fraction >= 1:
            return
        self.next = (math.floor(fraction * TENTHS + 1e-9) + 1) / TENTHS
        done = sum(self.steps[key] - begun for key, begun in self.first.items())
        passed = time.monotonic() - self.began
        left = passed * self.total_steps * (1 - fraction) / done if done else None
        rate = f"  {done / passed:,.0f} steps/s" if done and passed else ""
        self.say(f"{fraction:4.0%}{rate}  {duration(left)} left")

    def of_run(self) -> Display:
        """What one of the runs is told to show itself by."""
        return _OfRun(self)

    def stopping(self) -> None:
        """A signal has been heard; may be told again and again."""
        if not self.stopped:
            self.say(STOPPING)
        self.stopped = True

    def waiting(self, why: str) -> None:
        """A run waits, or with "" waits no more; may be told again and again."""
        if why != self.why:
            self.say(why or GOING_ON)
        self.why = why


class _OfRun(Silence):
    """One of several runs: silent, but for what it waits for."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def waiting(self, why: str) -> None:
        self.progress.waiting(why)
