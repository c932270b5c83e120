"""A thousand environments that do as they please: each plays on, or ends in a typed error of one line."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings

import thorndike as td
from strategies import broken_environments, check_said, environment_of, play_as_told

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600), pytest.mark.filterwarnings("ignore")]

TINY = td.MLP((4,))
PPO = td.PPO(network=TINY, critic_network=TINY, num_environments=2, rollout_length=4, batch_size=8, epochs=1)
ALONE = dataclasses.replace(PPO, num_environments=1, batch_size=4)  # where one object is all there is
PLAYED, TRAINED = 1_000, 100


def at_most(examples: int) -> settings:
    return settings(deadline=None, max_examples=examples, database=None, suppress_health_check=list(HealthCheck))


def test_playing_succeeds_or_ends_in_a_typed_error(told):
    outcomes = []

    @at_most(PLAYED)
    @given(broken_environments())
    def play(behaviour):
        outcomes.append(play_as_told(behaviour))

    play()
    assert PLAYED > 3 * outcomes.count(None) > PLAYED / 3  # some are fine, most are not
    told("environments that do as they please, 20 steps of each", len(outcomes), len(outcomes))


def test_whatever_playing_ends_in_an_examination_says_too(told):
    examined = []

    @at_most(PLAYED // 4)
    @given(broken_environments())
    def examine(behaviour):
        try:
            wrong = td.check(environment_of(behaviour), steps=30).wrong
        except td.ThorndikeError as error:
            check_said(error)
        else:
            assert wrong or play_as_told(behaviour) is None
        examined.append(behaviour)

    examine()
    told("the same, examined", len(examined), len(examined))


def test_training_succeeds_or_ends_in_a_typed_error(told):
    trained = []

    @at_most(TRAINED)
    @given(broken_environments())
    def train(behaviour):
        algorithm, environment = ALONE if behaviour.given == "object" else PPO, environment_of(behaviour)
        try:
            td.train(algorithm, environment, 40, run_dir=None, quiet=True, evaluate_every=20, final_episodes=1)
        except td.ThorndikeError as error:
            check_said(error)
        trained.append(behaviour)

    train()
    told("the same, trained in and evaluated", len(trained), len(trained))
