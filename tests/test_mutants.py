"""The mutants of `make mutants` stand on the code and the tests as they are: a changed line is seen today, not then."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "mutants"))

import run
from table import BUGS


def test_every_mutant_changes_one_place_and_names_tests_that_exist():
    assert list(run.misfits()) == []


def test_every_bug_has_mutants_or_a_reason():
    assert [bug.number for bug in BUGS] == list(range(1, 63))
    assert all(bool(bug.mutants) != bool(bug.reason) for bug in BUGS)
