"""Learning curves: runs grouped by algorithm, with intervals over seeds where there are enough of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from thorndike import persistence
from thorndike.errors import MissingExtraError, SettingError, nearest
from thorndike.evaluation import ENOUGH_SEEDS, interquartile_mean, interval

FORMATS = (".svg", ".png")
POINTS = 200  # of a curve over several runs
SMOOTHED = 1 / 50  # of the run, over which noisy columns are averaged
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d")  # Okabe and Ito's, of all eyes
LABELS = {
    "return_mean": "return of training episodes",
    "evaluation_mean": "return of greedy episodes",
    "episode_length_mean": "length of training episodes (steps)",
    "steps_per_second": "steps per second",
    "seconds": "time (s)",
}


class Run(Protocol):
    """What is taken of a run."""

    configuration: Any

    @property
    def metrics(self) -> dict[str, np.ndarray]: ...


class Curve(NamedTuple):
    """One seed's values; both are [rows]."""

    steps: np.ndarray
    values: np.ndarray


class Chart:
    """Learning curves as a picture. A notebook shows it; `save` writes it as SVG or PNG."""

    def __init__(self, figure: Any) -> None:
        """`figure` is matplotlib's, to be changed at will."""
        self.figure = figure

    def save(self, path: str | Path) -> Path:
        """Write the picture, .svg or .png."""
        path = check_name(path)
        return persistence.write_anywhere(path, self._drawn(path.suffix.lower()[1:]))

    def _drawn(self, kind: str) -> bytes:
        data = io.BytesIO()
        with _matplotlib().rc_context({"svg.hashsalt": "thorndike"}):  # with it, and no date, the same bytes each time
            self.figure.savefig(data, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        return data.getvalue()

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return self._drawn("svg").decode()


def check_name(path: str | Path) -> Path:
    """The path of a picture; SettingError where it can be none."""
    return persistence.file_of("picture", FORMATS, path)


def chart(runs: Sequence[Run], metric: str = "return_mean") -> Chart:
    """The curves of a column of metrics over steps: one for each algorithm, a panel for each environment.

    Seeds of all runs of an algorithm count alike. From five on their interquartile mean is drawn, with its 95 %
    bootstrap interval at every point; of fewer there is no interval, and each is a thin line beside their mean. Values
    are averaged over a fiftieth of the run. SettingError where a run has no such column, MissingExtraError without
    matplotlib.
    """
    panels: dict[str, dict[str, list[Curve]]] = {}
    for run in runs:
        groups = panels.setdefault(run.configuration.environment, {})
        groups.setdefault(run.configuration.algorithm_name, []).extend(curves_of(run, metric))
    matplotlib = _matplotlib()
    figure = matplotlib.figure.Figure(figsize=(6.4 * len(panels), 4.0), layout="constrained")
    places = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (environment, groups) in zip(places, panels.items(), strict=True):
        for i, (name, curves) in enumerate(groups.items()):
            _draw(axes, name, curves, COLORS[i % len(COLORS)])
        axes.set(title=environment, xlabel="steps in the environment, per seed", ylabel=LABELS.get(metric, metric))
        _dress(matplotlib, axes)
    return Chart(figure)


def curves_of(run: Run, metric: str) -> list[Curve]:
    """Each seed's values of a column, where it has some; SettingError where none has."""
    metrics = run.metrics
    if metric not in metrics or metric in ("seed", "steps"):
        known = [name for name in metrics if name not in ("seed", "steps")]
        raise SettingError(f"{run!r} has no metric '{metric}'.{nearest(metric, known)} There are: {', '.join(known)}")
    curves = []
    for seed in run.configuration.chosen_seeds:
        rows = (metrics["seed"] == seed) & np.isfinite(metrics[metric])
        order = np.argsort(metrics["steps"][rows], kind="stable")
        curves.append(Curve(metrics["steps"][rows][order], metrics[metric][rows][order].astype(float)))
    return [curve for curve in curves if len(curve.steps)]


def on_one_grid(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Steps [points] that all curves reach, and their values [curves, points] there, linear in between."""
    low, high = max(curve.steps[0] for curve in curves), min(curve.steps[-1] for curve in curves)
    same = all(np.array_equal(curve.steps, curves[0].steps) for curve in curves)
    steps = curves[0].steps if same else np.linspace(low, max(low, high), POINTS)
    return steps, np.stack([np.interp(steps, curve.steps, curve.values) for curve in curves])


def smoothed(values: np.ndarray) -> np.ndarray:
    """Means over a window of SMOOTHED of the last axis, shorter at its ends."""
    n = values.shape[-1]
    half = int(n * SMOOTHED / 2)
    total = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, -1)], -1)
    first, last = np.maximum(np.arange(n) - half, 0), np.minimum(np.arange(n) + half + 1, n)
    return (total[..., last] - total[..., first]) / (last - first)


def _draw(axes: Any, name: str, curves: Sequence[Curve], color: str) -> None:
    """One algorithm's curves."""
    if not curves:
        axes.plot([], [], color=color, label=f"{name} (no values yet)")
        return
    steps, values = on_one_grid([Curve(curve.steps, smoothed(curve.values)) for curve in curves])
    seeds = f"{len(values)} seed{'s' * (len(values) > 1)}"
    if len(values) >= ENOUGH_SEEDS:
        low, high = interval(values)
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        middle = interquartile_mean(values.T)
        axes.plot(steps, middle, color=color, linewidth=1.8, label=f"{name}, {seeds}, 95 % interval")
        return
    if len(values) > 1:
        axes.plot(steps, values.T, color=color, linewidth=0.7, alpha=0.5)
    axes.plot(steps, values.mean(0), color=color, linewidth=1.8, label=f"{name}, {seeds}")


def _dress(matplotlib: Any, axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#d0d7de", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6))
    axes.legend(frameon=False, fontsize=9)


def _matplotlib() -> Any:
    try:
        import matplotlib.figure
        import matplotlib.ticker
    except ImportError as error:
        raise MissingExtraError('learning curves need matplotlib: pip install "thorndike[plot]"') from error
    return matplotlib
