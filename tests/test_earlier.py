"""What earlier versions wrote down is read as what it meant."""

from __future__ import annotations

from pathlib import Path

import pytest

import thorndike as td
from thorndike import configuration
from thorndike.hyperparameters import hyperparameters, setting, to_json
from thorndike.networks import MLP

SMALL = {"network": MLP((4,)), "num_environments": 2}


@hyperparameters
class Mine(td.DQN):
    """A class of the user's own that is one of ours."""


@hyperparameters
class WithBeta(td.DQN):
    """With a number of its own that once bore the name of one of ours."""

    beta: float = setting(0.9, low=0)


@hyperparameters
class Diary(td.Prioritized):
    """A memory of the user's own."""


def read(algorithm, own=(), **earlier):
    """An algorithm as it is written today, but for the `earlier` words of it, read as by a run of then."""
    values = to_json(algorithm) | earlier
    if isinstance(values.get("memory"), dict):
        values["memory"].pop("beta", None)
    return configuration.algorithm_from_json(values, dict(own), Path("run"), True)


def test_beta_becomes_the_memorys_where_it_had_an_effect():
    weighted = td.Prioritized(beta=0.7)
    assert read(td.DQN(), beta=0.7) == td.DQN(memory=td.Prioritized(20_000, 64, 5, beta=0.7))
    assert read(td.SAC(memory=weighted), beta=0.7) == td.SAC(memory=weighted)
    assert read(td.SAC(), beta=0.7) == td.SAC()
    mine, handed_in = Mine(memory=Diary(beta=0.7)), {"algorithm": Mine, "memory": Diary}
    assert read(mine, handed_in, beta=0.7) == mine
    assert read(WithBeta(beta=0.3, memory=weighted), {"algorithm": WithBeta}) == WithBeta(
        beta=0.3, memory=td.Prioritized()
    )


@pytest.mark.parametrize("values", [{"beta": 7.0}, {"beta": {"type": "MLP"}}, {"memory": "large", "beta": 0.4}])
def test_what_never_was_a_value_is_refused_as_ever(values):
    with pytest.raises((td.SettingError, ValueError)):
        read(td.DQN(), **values)
