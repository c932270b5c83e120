"""What a run shows while it goes on: a live panel, plain lines where there is no terminal, or nothing."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

BARS = "▁▂▃▄▅▆▇█"
REFRESHES = 4  # a second, at most
TENTHS = 10  # plain lines a run, about
LOSSES = 3  # of them shown
HIDDEN = {"seed", "steps", "seconds", "return_mean", "episode_length_mean", "episodes", "steps_per_second"}


class Display(Protocol):
    """Told what happens, in this order; each call is short."""

    def start(self) -> None: ...

    def chunk(self, chunk: Any, rate: float) -> None: ...

    def evaluating(self, seed: int) -> None: ...

    def evaluated(self, seed: int, mean: float) -> None: ...

    def stop(self, lines: Sequence[str] = ()) -> None:
        """Leave the screen, with some last lines."""
        ...


class Story:
    """The facts of a run so far, as the screen needs them."""

    def __init__(self, title: str, total_steps: int, seeds: int, threshold: float | None = None) -> None:
        """`total_steps` is per seed; `threshold` the return at which the task counts as solved."""
        self.title, self.total_steps, self.seeds, self.threshold = title, total_steps, seeds, threshold
        self.steps: dict[int, int] = {}
        self.started: dict[int, int] = {}  # steps of each seed when it was first seen: more than 0 in a resumed run
        self.returns: dict[int, list[tuple[float, float]]] = {}  # (fraction, return) of every row, by seed
        self.recent: dict[int, float] = {}
        self.evaluations: dict[int, float] = {}
        self.losses: dict[str, float] = {}
        self.shares: dict[str, float] = {}
        self.steps_per_second = 0.0
        self.status = "compiling (first time only)"
        self.began = time.monotonic()

    def chunk(self, chunk: Any, rate: float) -> None:
        """Take note of a chunk, and of the steps per second of all seeds together."""
        if not self.started:
            self.began = time.monotonic()
        self.started.setdefault(chunk.seed, chunk.steps)
        self.steps[chunk.seed] = chunk.steps
        self.steps_per_second = rate
        self.status = ""
        returns = chunk.recent[0]
        if len(returns):
            self.recent[chunk.seed] = float(np.mean(returns))
        if chunk.row:
            mean = chunk.row.get("return_mean")
            if mean is not None:
                self.returns.setdefault(chunk.seed, []).append((chunk.steps / self.total_steps, mean))
            learned = [(name, value) for name, value in chunk.row.items() if name not in HIDDEN]
            self.losses = dict(learned[:LOSSES]) or self.losses
        acting, learning = (chunk.seconds.get(name, 0.0) for name in ("acting", "learning"))
        if acting + learning > 0:
            self.shares = {name: chunk.seconds[name] / (acting + learning) for name in ("acting", "learning")}

    @property
    def fraction(self) -> float:
        """Of all seeds' steps together."""
        return sum(self.steps.values()) / (self.total_steps * self.seeds)

    @property
    def remaining(self) -> float | None:
        """Seconds still to go, at the pace since the first chunk."""
        done = sum(self.steps[seed] - self.started[seed] for seed in self.steps)
        left = self.total_steps * self.seeds - sum(self.steps.values())
        return left * (time.monotonic() - self.began) / done if done else None

    @property
    def curve(self) -> list[float]:
        """The mean return over seeds at every row; where a seed has none yet, over the others."""
        rows: dict[float, list[float]] = {}
        for history in self.returns.values():
            for fraction, value in history:
                rows.setdefault(fraction, []).append(value)
        return [sum(rows[fraction]) / len(rows[fraction]) for fraction in sorted(rows)]

    @property
    def sentence(self) -> str:
        """How it goes."""
        furthest = max(self.steps.values(), default=0) / self.total_steps
        return how_it_goes(self.curve, furthest, self.threshold)


def how_it_goes(curve: Sequence[float], fraction: float, threshold: float | None = None) -> str:
    """One plain sentence on the returns so far: the newest fifth of them against what came before, and the best."""
    if not curve:
        return "No episode has ended yet." if fraction > 0.1 else "Too early to tell."
    fifth = max(2, len(curve) // 5)
    now = float(np.mean(curve[-fifth:]))
    if threshold is not None and now >= threshold:
        return f"Solved: the return is at or above {threshold:g}."
    if len(curve) < 10 or fraction < 0.05:
        return "Too early to tell."
    means = [float(np.mean(curve[i : i + fifth])) for i in range(len(curve) - fifth + 1)]
    before, best, worst = float(np.mean(curve[-3 * fifth : -fifth])), max(means), min(means)
    swing = best - worst
    if swing <= 0.01 * max(1.0, abs(best)):
        return "Flat: the return has not moved since the start."
    if best - now > 0.4 * swing:
        return f"Falling: the return was better before ({best:.4g})."
    if now - before > 0.05 * swing:
        return "Improving."
    return "Steady: the return has stopped rising for now."


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The curve as small bars, averaged down to `width`."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    if len(known) > width:
        known = [float(np.mean(part)) for part in np.array_split(known, width)]
    low, high = min(known), max(known)
    if high == low:
        return BARS[len(BARS) // 2] * len(known)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in known)


def duration(seconds: float | None) -> str:
    """As a person says it: 45 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def over_seeds(values: dict[int, float]) -> str:
    """One number, or the mean over seeds and the range."""
    numbers = list(values.values())
    if not numbers:
        return "none yet"
    mean = f"{np.mean(numbers):,.1f}"
    return mean if len(numbers) == 1 else f"{mean} (seeds {min(numbers):,.1f} to {max(numbers):,.1f})"


def last_words(title: str, summary: dict[str, Any], folder: Any) -> list[str]:
    """A run's end in a few lines."""
    seeds = f" in each of {summary['seeds']} seeds" if summary["seeds"] > 1 else ""
    rate = f", {summary['steps_per_second']:,.0f} steps/s" if summary["steps_per_second"] else ""
    lines = [f"{title}: {summary['steps']:,} steps{seeds} in {duration(summary['seconds']['total'])}{rate}"]
    greedy = summary["evaluation"]
    if greedy:
        interval = f", 95 % interval {greedy['ci95'][0]:,.1f} to {greedy['ci95'][1]:,.1f}" if greedy["ci95"] else ""
        lines.append(f"greedy return {greedy['mean']:,.1f} over {greedy['episodes']} episodes{interval}")
    return lines + ([f"run folder {folder}"] if folder else [])


def display(story: Story, quiet: bool) -> Display:
    """The panel in a terminal, lines elsewhere, silence on request."""
    if quiet:
        return Silence()
    drawable = sys.stdout.isatty() and "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
    return Panel(story) if drawable else Lines(story)


class Silence:
    """Shows nothing."""

    def start(self) -> None: ...

    def chunk(self, chunk: Any, rate: float) -> None: ...

    def evaluating(self, seed: int) -> None: ...

    def evaluated(self, seed: int, mean: float) -> None: ...

    def stop(self, lines: Sequence[str] = ()) -> None: ...


class Lines:
    """A line for the first return, then one for about every tenth of the run."""

    def __init__(self, story: Story) -> None:
        """Nothing is printed yet."""
        self.story, self.next, self.first_return = story, 0.0, False

    def start(self) -> None:
        story = self.story
        of_seeds = f", {story.seeds} seeds" if story.seeds > 1 else ""
        print(f"{story.title}: {story.total_steps:,} steps{of_seeds}; {story.status} ...", flush=True)

    def chunk(self, chunk: Any, rate: float) -> None:
        story = self.story
        story.chunk(chunk, rate)
        first_return = bool(story.recent) and not self.first_return
        if story.fraction < self.next and not first_return:
            return
        self.first_return |= first_return
        self.next = (math.floor(story.fraction * TENTHS + 1e-9) + 1) / TENTHS
        print(f"{self._progress()}  {story.sentence}", flush=True)

    def _progress(self) -> str:
        story = self.story
        parts = [
            f"{story.fraction:4.0%}  step {max(story.steps.values()):,}",
            f"return {over_seeds(story.recent)}",
            f"evaluation {over_seeds(story.evaluations)}" if story.evaluations else "",
            f"{story.steps_per_second:,.0f} steps/s" if story.steps_per_second else "",
            f"{duration(story.remaining)} left" if story.remaining is not None and story.fraction < 1 else "",
        ]
        return "  ".join(part for part in parts if part)

    def evaluating(self, seed: int) -> None: ...

    def evaluated(self, seed: int, mean: float) -> None:
        self.story.evaluations[seed] = mean

    def stop(self, lines: Sequence[str] = ()) -> None:
        for line in lines:
            print(line, flush=True)


class Panel:
    """A panel that a thread of rich redraws REFRESHES times a second, so that it lives on while XLA compiles."""

    def __init__(self, story: Story) -> None:
        """Nothing is drawn yet."""
        from rich.live import Live

        self.story = story
        self.lock = threading.Lock()  # the story is told in one thread and drawn in another
        self.live = Live(get_renderable=self.draw, refresh_per_second=REFRESHES)

    def start(self) -> None:
        self.live.start()

    def chunk(self, chunk: Any, rate: float) -> None:
        with self.lock:
            self.story.chunk(chunk, rate)

    def evaluating(self, seed: int) -> None:
        self.story.status = "evaluating"

    def evaluated(self, seed: int, mean: float) -> None:
        with self.lock:
            self.story.evaluations[seed], self.story.status = mean, ""

    def stop(self, lines: Sequence[str] = ()) -> None:
        self.story.status = ""
        self.live.stop()
        for line in lines:
            self.live.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def draw(self) -> Any:
        """The panel of this moment."""
        with self.lock:
            return self._draw(self.story)

    def _draw(self, story: Story) -> Any:
        from rich.panel import Panel as Frame
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        for name, value in facts(story):
            table.add_row(name, value)
        if story.steps:
            table.add_row("", ProgressBar(total=1.0, completed=story.fraction, width=44))
        since = "" if story.steps else f", {duration(time.monotonic() - story.began)}"
        table.add_row("", story.status + since if story.status else story.sentence)
        return Frame(table, title=story.title, title_align="left", border_style="cyan", width=76)


def facts(story: Story) -> list[tuple[str, str]]:
    """The rows of the panel: what, and how much."""
    if not story.steps:
        return [("steps", f"0 of {story.total_steps:,}")]
    rows = [("steps", _steps(story))]
    pace = f"{story.steps_per_second:,.0f} steps/s" if story.steps_per_second else "measuring"
    rows.append(("pace", f"{pace}, {duration(story.remaining)} left" if story.fraction < 1 else pace))
    rows.append(("return", over_seeds(story.recent)))
    if story.curve:
        rows.append(("", sparkline(story.curve, 44)))
    if story.evaluations:
        rows.append(("evaluation", over_seeds(story.evaluations)))
    if story.losses:
        rows.append(("learning", "  ".join(f"{name} {value:.3g}" for name, value in story.losses.items())))
    if story.shares:
        rows.append(("time", "  ".join(f"{name} {share:.0%}" for name, share in story.shares.items())))
    return rows


def _steps(story: Story) -> str:
    low, high = min(story.steps.values()), max(story.steps.values())
    done = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    seeds = f" in {len(story.steps)} of {story.seeds} seeds" if story.seeds > 1 else ""
    return f"{done} of {story.total_steps:,}{seeds}"
