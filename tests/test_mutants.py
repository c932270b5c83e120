"""The mutants of `make mutants` stand on the code and the tests as they are: a changed line is seen today, not then."""

from __future__ import annotations

import collections
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "mutants"))

import run
from families import FAMILIES
from table import BUGS

from thorndike.names import ALGORITHMS


def test_every_mutant_changes_one_place_and_names_tests_that_exist():
    assert list(run.misfits()) == []


def test_every_bug_has_mutants_or_a_reason():
    assert [bug.number for bug in BUGS] == list(range(1, 63))
    assert all(bool(bug.mutants) != bool(bug.reason) for bug in BUGS)


def test_every_algorithm_is_broken_in_five_places():
    """Those of DQN, PPO, REINFORCE, SAC, TD3 and DDPG are the bugs of others."""
    broken = collections.Counter(what.partition(": ")[0] for what in FAMILIES)
    assert broken == dict.fromkeys(ALGORITHMS.keys() - {"DQN", "PPO", "REINFORCE", "SAC", "TD3", "DDPG"}, 5)
