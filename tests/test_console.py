"""What the screen says: facts, one plain sentence, and nothing when asked to be quiet."""

from __future__ import annotations

import io
import math
import types

import numpy as np
import pytest

from thorndike.interface import console
from thorndike.interface.console import Story, duration, facts, how_it_goes, over_seeds, sparkline


def chunk(steps, returns=(), row=None, seed=0, seconds=None, total=1000):
    return types.SimpleNamespace(
        seed=seed,
        steps=steps,
        total_steps=total,
        row=row,
        recent=(np.array(returns, float), np.ones(len(returns), int)),
        seconds=seconds or {"compile": 1.0, "train": 1.0},
    )


def story_of(means, seeds=1, threshold=None, total=1000):
    story = Story("dqn CartPole-v1", total, seeds, threshold)
    for i, mean in enumerate(means, 1):
        for seed in range(seeds):
            row = {"return_mean": mean, "episodes": 3, "loss": 0.5}
            story.chunk(chunk(total * i // len(means), [mean], row, seed, total=total), rate=100.0)
    return story


@pytest.mark.parametrize(
    ("curve", "fraction", "threshold", "begins"),
    [
        ([], 0.01, None, "Too early"),
        ([], 0.5, None, "Waiting: no episode has ended"),
        ([20.0, 21.0], 0.02, None, "Too early"),
        (list(range(0, 200, 4)), 0.5, None, "Improving"),
        ([20.0] * 50, 0.5, None, "Flat"),
        ([20.0, 24.0, 18.0] * 20, 0.5, None, "Flat"),
        ([*range(0, 200, 8), *range(200, 0, -8)], 1.0, None, "Fallen: the return was better before (190.4)"),
        ([*range(0, 200, 8), *range(200, 0, -8), *range(0, 100, 4)], 1.0, None, "Improving"),
        ([-1600.0] * 10 + list(-60 * 0.98 ** np.arange(90)), 1.0, None, "Improving"),
        ([*range(0, 200, 8), *[200.0] * 60], 1.0, None, "Steady"),
        ([*range(0, 480, 8), *[480.0] * 30], 1.0, 475, "Solved"),
        ([-500.0] * 30 + [-90.0] * 30, 1.0, -100, "Solved"),
        ([-500.0] * 20 + list(np.linspace(-500, -100, 20)), 0.5, -100, "Improving"),
    ],
)
def test_the_sentence_is_chosen_by_facts(curve, fraction, threshold, begins):
    sentence = how_it_goes(curve, fraction, threshold)
    assert sentence.startswith(begins)
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_the_return_that_is_shown_is_the_one_that_is_judged():
    """The last episodes may be worse, or better, than the newest tenth of the rows."""
    story = story_of([0.0] * 30 + [480.0] * 10, threshold=475)
    story.chunk(chunk(1000, [10.0]), 1.0)
    assert dict(facts(story))["return"] == "480.0"
    assert story.sentence == "Solved: the return is at or above 475."


def test_before_the_first_row_the_episodes_so_far_are_shown():
    story = Story("x", 1000, 1)
    story.chunk(chunk(200, [3.0, 5.0]), 1.0)
    assert dict(facts(story))["return"] == "4.0"
    assert story.sentence == "Too early to tell."


def test_the_story_of_a_resumed_run_begins_with_its_rows():
    rows = [{"seed": 0, "steps": 10 * i, "return_mean": float(i), "loss": 0.5} for i in range(1, 81)]
    rows[-1]["evaluation_mean"] = 70.0
    story = Story("x", 1000, 2, rows=rows)
    assert dict(facts(story))["steps"] == "800 of 1,000 in 1 of 2 seeds"
    story.chunk(chunk(810, [7.0]), 1.0)
    assert story.sentence == "Improving."
    assert story.recent == {0: 76.5}
    shown = dict(facts(story))
    assert (shown["evaluation"], shown["learning"]) == ("70.0", "loss 0.5")


def test_losses_are_shown_first():
    story = Story("x", 1000, 1)
    row = {"return_mean": 1.0, "clip_fraction": 0.1, "entropy": 0.2, "policy_loss": 0.3, "kl": 0.4, "value_loss": 0.5}
    story.chunk(chunk(10, row=row), 1.0)
    assert dict(facts(story))["learning"] == "policy_loss 0.3  value_loss 0.5  clip_fraction 0.1"


def test_the_last_words_say_what_the_time_went_into():
    summary = {"steps": 50048, "seeds": 1, "steps_per_second": 12790.0, "evaluation": None}
    summary["seconds"] = {"total": 17.1, "train": 3.9, "compile": 12.2, "evaluate": 0.1}
    (line,) = console.last_words("x", summary, None)
    assert line == "x: 50,048 steps in 17 s, of which 4 s training (12,790 steps/s), 12 s compiling"
    (line,) = console.last_words("x", summary | {"seeds": 2, "steps_per_second": 25580.0}, None)
    assert line.startswith(
        "x: 50,048 steps in each of 2 seeds in 17 s, of which 4 s training (25,580 steps/s of all seeds)"
    )


def test_the_sparkline_follows_the_curve_and_its_width():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == console.BARS
    assert sparkline([7, 0]) == "█▁"
    assert len(sparkline(range(1000), 40)) == 40
    assert len(set(sparkline([5.0, 5.0, 5.0]))) == 1
    assert sparkline([math.nan, 1.0]) == sparkline([1.0])
    assert sparkline([]) == ""


def test_durations_are_said_as_people_do():
    assert [duration(x) for x in (0.4, 59, 200, 7500)] == ["0 s", "59 s", "3 min 20 s", "2 h 05 min"]
    assert duration(None) == duration(math.inf) == "?"


def test_several_seeds_are_shown_together():
    assert over_seeds({}) == "none yet"
    assert over_seeds({0: 12.25}) == "12.2"
    assert over_seeds({0: 10, 1: 20}) == "15.0 (seeds 10.0 to 20.0)"
    story = story_of([1.0, 2.0], seeds=2)
    story.chunk(chunk(1000, [4.0], {"return_mean": 4.0}, seed=0), 1.0)
    shown = dict(facts(story))
    assert shown["steps"] == "1,000 of 1,000 in 2 of 2 seeds"
    assert shown["return"] == "2.2 (seeds 1.5 to 3.0)"


def test_seeds_that_fare_differently_are_counted():
    story = story_of([480.0] * 20, seeds=2, threshold=475)
    assert story.sentence == "Solved: the return is at or above 475."
    story.chunk(chunk(20, [20.0], {"return_mean": 20.0}, seed=2), 1.0)
    assert story.sentence == "Seeds: 2 solved, 1 too early to tell."


def test_the_panel_tells_the_facts():
    story = story_of(np.linspace(0, 100, 50), threshold=None)
    story.chunk(chunk(500, [90.0], seconds={"compile": 1, "train": 1, "acting": 3.0, "learning": 1.0}), 2000.0)
    story.evaluations[0] = 97.5
    shown = dict(facts(story))
    assert shown["pace"].startswith("2,000 steps/s, ")
    assert shown["time"] == "acting 75%  learning 25%"
    assert shown["evaluation"] == "97.5"
    assert shown["learning"] == "loss 0.5"
    assert "▁" in shown[""]


def test_the_panel_says_that_it_compiles_and_then_how_it_goes():
    from rich.console import Console

    story = Story("dqn CartPole-v1", 1000, 1)
    panel = console.Panel(story)

    def drawn():
        paper = Console(file=io.StringIO(), width=80)
        paper.print(panel.draw())
        return paper.file.getvalue()

    assert "compiling, 0 s" in drawn()
    panel.chunk(chunk(10, [3.0], {"return_mean": 3.0}), 10.0)
    assert "Too early to tell." in drawn()
    assert "dqn CartPole-v1" in drawn()
    panel.evaluating(0)
    assert "evaluating" in drawn()
    panel.waiting("paused for lack of room")
    assert "paused for lack of room" in drawn()
    panel.waiting("")
    assert "paused" not in drawn()
    panel.stopping()
    panel.chunk(chunk(20), 10.0)
    assert "stopping: saving first" in drawn()


def test_the_time_left_counts_from_where_a_resumed_run_began(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    story = Story("x", 1000, 1)
    story.chunk(chunk(500), 0.0)
    assert story.remaining is None
    clock[0] = 10.0
    story.chunk(chunk(600), 10.0)
    assert story.remaining == pytest.approx(40.0)


def test_without_a_terminal_the_first_return_comes_early_and_then_about_ten_lines(capsys):
    lines = console.Lines(Story("dqn CartPole-v1", 1000, 1))
    lines.start()
    lines.chunk(chunk(2), 0.0)
    for steps in range(4, 1001, 2):
        lines.chunk(chunk(steps, [float(steps)], {"return_mean": float(steps)}), 123.0)
    lines.stop(["greedy return 500.0", "run folder runs/x"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "dqn CartPole-v1: 1,000 steps; compiling ..."
    assert "return 4.0" in printed[2]
    assert 12 <= len(printed) <= 16
    assert printed[-3].startswith("100%  step 1,000")
    assert printed[-1] == "run folder runs/x"


def test_the_lines_of_several_seeds_count_all_their_steps(capsys):
    lines = console.Lines(Story("x", 1000, 2))
    lines.start()
    lines.chunk(chunk(1000, seed=0), 1.0)
    lines.chunk(chunk(500, seed=1), 1.0)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("x: 1,000 steps in each of 2 seeds; ")
    assert [line[: line.index(" of all")] for line in printed[1:]] == [" 50%  1,000 steps", " 75%  1,500 steps"]


def test_a_signal_is_acknowledged_once(capsys):
    lines = console.Lines(Story("x", 1000, 1))
    lines.stopping()
    lines.stopping()
    assert capsys.readouterr().out == "stopping: saving first\n"


def test_quiet_prints_nothing(capsys):
    display = console.display(Story("x", 10, 1), quiet=True)
    display.start()
    display.chunk(chunk(5), 1.0)
    display.evaluating(0)
    display.evaluated(0, 1.0, 0)
    display.stopping()
    display.waiting("for room")
    display.stop(["a line"])
    assert capsys.readouterr() == ("", "")


def test_lines_are_used_where_there_is_no_terminal():
    assert isinstance(console.display(Story("x", 10, 1), quiet=False), console.Lines)
