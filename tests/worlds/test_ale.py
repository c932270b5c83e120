"""Atari games by ale-py: prepared as EnvPool prepares them, to the last pixel."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from thorndike.environments import atari
from thorndike.environments.preprocessing import Preprocessing
from thorndike.environments.workers import NO_WORKERS, Workers

pytest.importorskip("ale_py")
pytest.importorskip("cv2")
KEY = jax.random.key(1)


def pictures(copies, steps=12):
    """The newest frames of a game in which nothing is done."""
    _, observation = copies.reset(KEY)
    seen = [observation[0, -1]]
    for _ in range(steps):
        seen.append(copies.step((), np.zeros(1, np.int32))[1].observation[0, -1])
    return seen


@pytest.mark.parametrize("game", ["Breakout", "Pong", "Seaquest"])
def test_a_frame_is_the_one_that_envpool_gives(game):
    """Games begin after different numbers of frames, so that one of a few is the same."""
    pytest.importorskip("envpool")
    given = Preprocessing(noop_max=1, fire_reset=False)
    ours, theirs = pictures(atari._by_ale(game, 1, given)), pictures(atari._by_envpool(game, 1, given))
    for frame in theirs[4:9]:
        assert any((frame == other).all() for other in ours)


def test_arguments_reach_ale_py():
    given = Preprocessing(stack=2, screen_size=42, full_action_space=True, max_frames=40)
    copies = atari._by_ale("Pong", 2, given)
    assert copies.observation_space.shape == (2, 42, 42)
    assert (copies.action_space.n, copies.max_steps) == (18, 10)
    copies.reset(KEY)
    ends = [copies.step((), np.zeros(2, np.int32))[1].truncated.all() for _ in range(20)]
    assert [i for i, end in enumerate(ends, 1) if end] == [10, 20]


def test_a_lost_life_ends_an_episode_the_game_goes_on_and_resumes():
    lives, whole = (atari._by_ale("Breakout", 1, Preprocessing(life_loss=flag)) for flag in (True, False))
    lives.record_info((atari.GAME_RETURN,))
    generator, ends = np.random.default_rng(0), np.zeros(2, int)
    for copies in (lives, whole):
        copies.reset(KEY)
    for _ in range(400):
        action = generator.integers(0, 4, 1, np.int32)
        one, other = lives.step((), action)[1], whole.step((), action)[1]
        np.testing.assert_array_equal(one.observation, other.observation)
        ends += one.terminated[0], other.terminated[0]
    assert ends[0] > 2 * ends[1] > 0
    again = atari._by_ale("Breakout", 1, Preprocessing(life_loss=True))
    again.record_info((atari.GAME_RETURN,))
    again.restore(lives.save())
    assert again.exact
    action = np.ones(1, np.int32)
    for a, b in zip(lives.step((), action)[1], again.step((), action)[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_games_are_the_same_in_workers():
    said = []
    for workers in (NO_WORKERS, Workers(2)):
        copies = atari._by_ale("Breakout", 2, Preprocessing(life_loss=True), workers)
        copies.reset(KEY)
        steps = [copies.step((), np.full(2, t % 4, np.int32))[1] for t in range(150)]
        said.append([leaf.tobytes() for leaf in jax.tree.leaves(steps)])
        assert any(step.terminated.any() for step in steps)
        copies.close()
    assert said[0] == said[1]
