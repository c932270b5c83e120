"""Learning curves: what is drawn of how many seeds, and what is refused."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import thorndike as td
from test_runs import GRADIENT, OPTIONS
from thorndike import cli, evaluation
from thorndike.interface import plot

pytest.importorskip("matplotlib", reason="learning curves need matplotlib")
ROWS = 40


def a_run(algorithm="dqn", environment="CartPole-v1", seeds=(0,), steps=4_000, level=100.0, rows=ROWS):
    """What a chart takes of a run: its metrics, and whose they are."""
    each = np.arange(1, rows + 1) * steps // rows
    metrics = {
        "seed": np.repeat(seeds, rows),
        "steps": np.tile(each, len(seeds)),
        "return_mean": np.concatenate([level + seed + np.linspace(0, 10, rows) for seed in seeds]),
    }
    name = {"environment": environment, "algorithm_name": algorithm, "chosen_seeds": list(seeds)}
    return SimpleNamespace(metrics=metrics, configuration=SimpleNamespace(**name))


def drawn(axes):
    """What a panel shows: label and values of each named curve, how many thin ones, how many bands."""
    named = {line.get_label(): line.get_ydata() for line in axes.lines if not line.get_label().startswith("_")}
    return named, len(axes.lines) - len(named), len(axes.collections)


@pytest.mark.parametrize(("seeds", "thin", "bands"), [(1, 0, 0), (4, 4, 0), (5, 0, 1), (9, 0, 1)])
def test_an_interval_takes_five_seeds(seeds, thin, bands):
    figure = plot.chart([a_run(seeds=range(seeds))]).figure
    named, *rest = drawn(figure.axes[0])
    assert rest == [thin, bands]
    ((label, values),) = named.items()
    assert label.startswith(f"dqn, {seeds} seed")
    assert ("95 % interval" in label) == bool(bands)
    ends = 100.0 + np.arange(seeds)
    middle = evaluation.interquartile_mean(ends) if bands else ends.mean()
    assert values[ROWS // 2] == pytest.approx(middle + 10 * (ROWS // 2) / (ROWS - 1), abs=1e-6)


def test_the_interval_is_that_of_the_summary():
    values = np.random.default_rng(1).normal(size=(7, 3))
    low, high = plot.interval(values)
    for i in range(3):
        assert [low[i], high[i]] == evaluation.summarize([np.array([value]) for value in values[:, i]])["ci95"]


def test_runs_are_grouped_by_algorithm_and_environments_have_panels_of_their_own():
    runs = [a_run(seeds=(0, 1)), a_run("ppo"), a_run(seeds=(2, 3, 4)), a_run("sac", "Pendulum-v1")]
    first, second = plot.chart(runs).figure.axes
    assert list(drawn(first)[0]) == ["dqn, 5 seeds, 95 % interval", "ppo, 1 seed"]
    assert list(drawn(second)[0]) == ["sac, 1 seed"]
    assert (first.get_title(), second.get_title()) == ("CartPole-v1", "Pendulum-v1")
    assert first.get_xlabel() == "steps in the environment, per seed"
    assert first.get_ylabel() == "return of training episodes"


def test_runs_of_other_lengths_meet_on_one_grid_and_nothing_is_made_up_beyond_them():
    curves = [*plot.curves_of(a_run(steps=4_000), "return_mean"), *plot.curves_of(a_run(steps=900), "return_mean")]
    steps, values = plot.on_one_grid(curves)
    assert (steps[0], steps[-1]) == (100, 900)
    assert values.shape == (2, len(steps))
    assert values[1, -1] == 110
    assert values[0, -1] == pytest.approx(np.interp(900, curves[0].steps, curves[0].values))


def test_smoothing_keeps_straight_lines_and_their_length():
    line = np.linspace(0, 1, 200)
    np.testing.assert_allclose(plot.smoothed(line)[2:-2], line[2:-2], atol=1e-12)
    assert plot.smoothed(np.arange(5.0)).tolist() == list(range(5))


def test_a_run_plots_itself_into_files_and_a_notebook(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    run = td.train(GRADIENT, "CartPole-v1", 320, run_dir=folder, **OPTIONS)
    chart = run.plot("evaluation_mean")
    assert chart.figure.axes[0].get_ylabel() == "return of greedy episodes"
    assert chart._repr_svg_().lstrip().startswith("<?xml")
    assert chart.save(tmp_path / "new" / "curves.PNG").read_bytes().startswith(b"\x89PNG")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plot", "run", "run", "--metric", "evaluation_mean"]) == 0
    assert capsys.readouterr().out == "curves.svg\n"
    first = (tmp_path / "curves.svg").read_bytes()
    assert cli.main(["plot", "run", "run", "--metric", "evaluation_mean"]) == 0
    assert (tmp_path / "curves.svg").read_bytes() == first
    capsys.readouterr()
    bad = {
        ("plot",): "which runs?",
        ("plot", "nowhere"): "nowhere is not a run folder",
        ("plot", "run", "--metric", "return_men"): "no metric 'return_men'. Did you mean 'return_mean'?",
        ("plot", "run", "--metric", "seed"): "no metric 'seed'",
        ("plot", "run", "--out", "curves.pdf"): "a picture is a file .svg or .png, got 'curves.pdf'",
        ("plot", "run", "--out", "run/config.json/x.svg"): "cannot be used as a folder",
    }
    for words, answer in bad.items():
        assert cli.main(list(words)) == 2
        said = capsys.readouterr().err
        assert answer in said
        assert len(said.strip().splitlines()) == 1


def test_without_matplotlib_the_line_that_installs_it_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(td.MissingExtraError, match=r'pip install "thorndike\[plot\]"'):
        plot.chart([a_run()])
