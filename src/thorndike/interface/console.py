"""What a run shows while it goes on: a live panel, plain lines where there is no terminal, or nothing."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

BARS = "▁▂▃▄▅▆▇█"
REFRESHES = 4  # a second, at most
TENTHS = 10  # plain lines a run, about
LEARNING = 3  # metrics of learning that are shown
HIDDEN = {
    "seed", "steps", "seconds", "return_mean", "episode_length_mean", "episodes", "steps_per_second",
    *(f"evaluation_{name}" for name in ("mean", "episodes", "unfinished", "steps", "longest")),
}  # fmt: skip
APART = {"compile": "compiling", "evaluate": "evaluating"}  # what steps per second leave out
STOPPING = "stopping: saving first"
GOING_ON = "going on"


class Display(Protocol):
    """Told what happens, in this order; each call is short."""

    def start(self) -> None: ...

    def chunk(self, chunk: Any, rate: float) -> None: ...

    def evaluating(self, seed: int) -> None: ...

    def evaluated(self, seed: int, mean: float, unfinished: int) -> None: ...

    def stopping(self) -> None:
        """A signal has been heard; may be told again and again."""
        ...

    def waiting(self, why: str) -> None:
        """The run waits, or with "" waits no more; may be told again and again."""
        ...

    def stop(self, lines: Sequence[str] = ()) -> None:
        """Leave the screen, with some last lines."""
        ...


class Story:
    """The facts of a run so far, as the screen needs them."""

    def __init__(
        self,
        title: str,
        total_steps: int,
        seeds: int,
        threshold: float | None = None,
        rows: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """`total_steps` is per seed; `threshold` the return that counts as solved; `rows` those of a resumed run."""
        self.title, self.total_steps, self.seeds, self.threshold = title, total_steps, seeds, threshold
        self.steps: dict[int, int] = {}
        self.started: dict[int, int] = {}  # steps of each seed at its first chunk: more than 0 in a resumed run
        self.returns: dict[int, list[tuple[float, float]]] = {}  # (fraction, return) of every row, by seed
        self.first_returns: dict[int, float] = {}  # of the episodes before a seed's first row
        self.evaluations: dict[int, float] = {}
        self.unfinished: dict[int, int] = {}  # how many episodes of each seed's evaluation were cut
        self.notes: list[str] = []  # said once, before it begins
        self.learning: dict[str, float] = {}
        self.shares: dict[str, float] = {}
        self.steps_per_second = 0.0
        self.status = "compiling"
        self.stopping = False
        self.waiting = ""  # why the run waits
        self.began = time.monotonic()
        for row in rows:
            self.row(row["seed"], row["steps"], row)

    def row(self, seed: int, steps: int, row: Mapping[str, Any]) -> None:
        """Take note of a row of metrics."""
        self.steps[seed] = steps
        if row.get("return_mean") is not None:
            self.returns.setdefault(seed, []).append((steps / self.total_steps, row["return_mean"]))
        if row.get("evaluation_mean") is not None:
            self.evaluated(seed, row["evaluation_mean"], row.get("evaluation_unfinished") or 0)
        names = [name for name, value in row.items() if name not in HIDDEN and value is not None]
        names.sort(key=lambda name: not name.endswith("loss"))
        self.learning = {name: row[name] for name in names[:LEARNING]} or self.learning

    def evaluated(self, seed: int, mean: float, unfinished: int) -> None:
        """Take note of an evaluation."""
        self.evaluations[seed], self.unfinished[seed] = mean, unfinished

    @property
    def evaluation(self) -> str:
        """What the newest evaluations have given."""
        cut = sum(self.unfinished.values())
        return over_seeds(self.evaluations) + (f" ({cut} unfinished)" if cut else "")

    def chunk(self, chunk: Any, rate: float) -> None:
        """Take note of a chunk, and of the steps per second of all seeds together."""
        if not self.started:
            self.began = time.monotonic()
        self.started.setdefault(chunk.seed, chunk.steps)
        self.steps[chunk.seed] = chunk.steps
        self.steps_per_second = rate
        self.status = ""
        if chunk.row:
            self.row(chunk.seed, chunk.steps, chunk.row)
        if chunk.seed not in self.returns and len(chunk.recent[0]):
            self.first_returns[chunk.seed] = float(np.mean(chunk.recent[0]))
        acting, learning = (chunk.seconds.get(name, 0.0) for name in ("acting", "learning"))
        if acting + learning > 0:
            self.shares = {"acting": acting / (acting + learning), "learning": learning / (acting + learning)}

    @property
    def fraction(self) -> float:
        """Of all seeds' steps together."""
        return sum(self.steps.values()) / (self.total_steps * self.seeds)

    @property
    def remaining(self) -> float | None:
        """Seconds still to go, at the pace since the first chunk."""
        done = sum(self.steps[seed] - begun for seed, begun in self.started.items())
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

    def history(self, seed: int) -> list[float]:
        """A seed's mean returns, row by row: what is both shown and judged."""
        first = [self.first_returns[seed]] if seed in self.first_returns else []
        return [mean for _, mean in self.returns.get(seed, [])] or first

    @property
    def recent(self) -> dict[int, float]:
        """The return of this moment, by seed."""
        return {seed: newest(history) for seed in self.steps if (history := self.history(seed))}

    @property
    def sentence(self) -> str:
        """How it goes: in one seed, or in how many of several."""
        said = [
            how_it_goes(self.history(seed), steps / self.total_steps, self.threshold)
            for seed, steps in self.steps.items()
        ]
        if len(set(said)) <= 1:
            return said[0] if said else how_it_goes([], 0.0)
        verdicts = Counter(sentence.rstrip(".").split(":")[0].lower() for sentence in said)
        return f"Seeds: {', '.join(f'{count} {verdict}' for verdict, count in verdicts.most_common())}."


def tenth(curve: Sequence[float]) -> int:
    """A tenth of the rows, but two at least."""
    return max(2, len(curve) // 10)


def newest(curve: Sequence[float]) -> float:
    """The mean of the newest tenth of the rows."""
    return float(np.mean(curve[-tenth(curve) :]))


def how_it_goes(curve: Sequence[float], fraction: float, threshold: float | None = None) -> str:
    """One plain sentence on one seed's returns, of which the newest tenth is what is shown beside it.

    They are flat where no two tenths differ by more than five standard errors, with neighbouring rows for a measure of
    chance. They improve where the newest two fifths have risen by a fiftieth or more, and steadily: their correlation
    with time is above 2 / sqrt(rows).
    """
    if not curve:
        return "Waiting: no episode has ended yet." if fraction > 0.1 else "Too early to tell."
    now = newest(curve)
    if threshold is not None and now >= threshold:
        return f"Solved: the return is at or above {threshold:g}."
    if len(curve) < 10 or fraction < 0.05:
        return "Too early to tell."
    n = tenth(curve)
    tenths = np.convolve(curve, np.ones(n) / n, "valid")
    best, swing = float(tenths.max()), float(np.ptp(tenths))
    noise = float(np.std(np.diff(curve))) / math.sqrt(2 * n)
    if swing <= max(5 * noise, 0.01 * abs(best), 1e-6):
        return "Flat: no change beyond chance since the start."
    late = np.array(curve[-max(20, 4 * n) :])
    risen = now - float(late[:n].mean()) > 0.02 * abs(now)
    if risen and np.corrcoef(np.arange(len(late)), late)[0, 1] > 2 / math.sqrt(len(late)):
        return "Improving."
    if best - now > 0.5 * swing:
        return f"Fallen: the return was better before ({best:,.1f})."
    return "Steady: no clear rise lately."


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
    seconds = summary["seconds"]
    seeds = f" in each of {summary['seeds']} seeds" if summary["seeds"] > 1 else ""
    together = " of all seeds" if summary["seeds"] > 1 else ""
    rate = f" ({summary['steps_per_second']:,.0f} steps/s{together})" if summary["steps_per_second"] else ""
    spent = [f"{duration(seconds['train'])} training{rate}"] if rate else []
    spent += [f"{duration(seconds[name])} {doing}" for name, doing in APART.items() if round(seconds[name])]
    of_which = f", of which {', '.join(spent)}" if spent else ""
    lines = [f"{title}: {summary['steps']:,} steps{seeds} in {duration(seconds['total'])}{of_which}"]
    if "stopped" in summary:
        lines.append(summary["stopped"])
    greedy = summary["evaluation"]
    if greedy:
        interval = f", 95 % interval {greedy['ci95'][0]:,.1f} to {greedy['ci95'][1]:,.1f}" if greedy["ci95"] else ""
        cut = f", {greedy['unfinished']} of them unfinished" if greedy["unfinished"] else ""
        lines.append(f"greedy return {greedy['mean']:,.1f} over {greedy['episodes']} episodes{cut}{interval}")
        if summary["seeds"] > 1 and not greedy["ci95"]:
            lines.append(f"{summary['seeds']} seeds are too few for an interval: that takes five")
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

    def evaluated(self, seed: int, mean: float, unfinished: int) -> None: ...

    def stopping(self) -> None: ...

    def waiting(self, why: str) -> None: ...

    def stop(self, lines: Sequence[str] = ()) -> None: ...


class Lines:
    """A line for the first return, then one for about every tenth of the run."""

    def __init__(self, story: Story) -> None:
        """Nothing is printed yet."""
        self.story, self.next, self.first_return = story, 0.0, False

    def start(self) -> None:
        story = self.story
        of_seeds = f" in each of {story.seeds} seeds" if story.seeds > 1 else ""
        print(f"{story.title}: {story.total_steps:,} steps{of_seeds}; {story.status} ...", flush=True)
        for note in story.notes:
            print(note, flush=True)

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
        steps = sum(story.steps.values())
        parts = [
            f"{story.fraction:4.0%}  " + (f"step {steps:,}" if story.seeds == 1 else f"{steps:,} steps of all seeds"),
            f"return {over_seeds(story.recent)}",
            f"evaluation {story.evaluation}" if story.evaluations else "",
            f"{story.steps_per_second:,.0f} steps/s" if story.steps_per_second else "",
            f"{duration(story.remaining)} left" if story.remaining is not None and story.fraction < 1 else "",
        ]
        return "  ".join(part for part in parts if part)

    def evaluating(self, seed: int) -> None: ...

    def evaluated(self, seed: int, mean: float, unfinished: int) -> None:
        self.story.evaluated(seed, mean, unfinished)

    def stopping(self) -> None:
        if not self.story.stopping:
            print(STOPPING, flush=True)
        self.story.stopping = True

    def waiting(self, why: str) -> None:
        if why != self.story.waiting:
            print(why or GOING_ON, flush=True)
        self.story.waiting = why

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
        for note in self.story.notes:
            self.live.console.print(note, highlight=False, markup=False, soft_wrap=True)

    def chunk(self, chunk: Any, rate: float) -> None:
        with self.lock:
            self.story.chunk(chunk, rate)

    def evaluating(self, seed: int) -> None:
        self.story.status = "evaluating"

    def evaluated(self, seed: int, mean: float, unfinished: int) -> None:
        with self.lock:
            self.story.evaluated(seed, mean, unfinished)
            self.story.status = ""

    def stopping(self) -> None:
        self.story.stopping = True

    def waiting(self, why: str) -> None:
        self.story.waiting = why

    def stop(self, lines: Sequence[str] = ()) -> None:
        self.story.status, self.story.waiting, self.story.stopping = "", "", False
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
        since = "" if story.started else f", {duration(time.monotonic() - story.began)}"
        how = story.waiting or (story.status + since if story.status else story.sentence)
        table.add_row("", STOPPING if story.stopping else how)
        return Frame(table, title=story.title, title_align="left", border_style="cyan", width=76)


def facts(story: Story) -> list[tuple[str, str]]:
    """The rows of the panel: what, and how much."""
    if not story.steps:
        return [("steps", f"0 of {story.total_steps:,}")]
    rows = [("steps", _steps(story))]
    pace = f"{story.steps_per_second:,.0f} steps/s" if story.steps_per_second else "measuring"
    left = story.remaining if story.fraction < 1 else None
    rows.append(("pace", pace if left is None else f"{pace}, {duration(left)} left"))
    rows.append(("return", over_seeds(story.recent)))
    if story.curve:
        rows.append(("", sparkline(story.curve, 44)))
    if story.evaluations:
        rows.append(("evaluation", story.evaluation))
    if story.learning:
        rows.append(("learning", "  ".join(f"{name} {value:.3g}" for name, value in story.learning.items())))
    if story.shares:
        rows.append(("time", "  ".join(f"{name} {share:.0%}" for name, share in story.shares.items())))
    return rows


def _steps(story: Story) -> str:
    low, high = min(story.steps.values()), max(story.steps.values())
    done = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    seeds = f" in {len(story.steps)} of {story.seeds} seeds" if story.seeds > 1 else ""
    return f"{done} of {story.total_steps:,}{seeds}"
