"""Two thousand configurations at random: each is trained with, or refused by a typed error of one line; none is run."""

from __future__ import annotations

import collections

import pytest
from hypothesis import HealthCheck, given, settings

from strategies import CANARY, answer_to_call, answer_to_command, began, calls, commands
from thorndike import trainer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600), pytest.mark.filterwarnings("ignore")]

EACH = 1_000


@pytest.mark.parametrize(
    ("where", "drawn", "answer"),
    [("by command", commands(), answer_to_command), ("in Python", calls(), answer_to_call)],
)
def test_a_configuration_works_or_is_refused_in_one_line(where, drawn, answer, told, tmp_path, monkeypatch):
    inside = tmp_path / "a" / "b" / "c"  # what a path of `..` reaches is still ours
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    monkeypatch.setattr(trainer, "train", began)
    answers = collections.Counter()

    @settings(deadline=None, max_examples=EACH, database=None, suppress_health_check=list(HealthCheck))
    @given(drawn)
    def draw(configuration):
        answers[answer(configuration)] += 1

    draw()
    assert not list(tmp_path.rglob(CANARY))
    assert answers["began"] > EACH / 20 < answers["refused"]
    told(f"configurations at random, {where}", answers.total(), answers.total())
