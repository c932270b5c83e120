"""Atari games by EnvPool: the preprocessing of the literature, lives, and what is reported. ale-py: tests/worlds."""

from __future__ import annotations

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from thorndike import environments, settings
from thorndike.environments import atari
from thorndike.errors import MissingExtraError, SettingError, UnknownNameError

KEY = jax.random.key(3)
NOTHING = np.zeros(1, np.int32)
CNN = td.CNN(channels=(4, 4), kernels=(8, 4), strides=(8, 4), sizes=(8,))
TINY = td.DQN(
    network=CNN, num_environments=2, rollout_length=8, updates_per_rollout=1, warmup_steps=64,
    memory=td.Replay(128, 4),
)  # fmt: skip


def played(environment, steps, seed=0):
    """What so many random steps gave, one Step a row."""
    generator, n = np.random.default_rng(seed), environment.num_environments
    environment.reset(KEY)
    return [
        environment.step((), generator.integers(0, environment.action_space.n, n, np.int32))[1] for _ in range(steps)
    ]


def test_a_game_is_seen_as_four_small_gray_frames():
    game = environments.make("atari:Pong", 2)
    assert game.observation_space.shape == (4, 84, 84)
    assert game.observation_space.dtype == np.uint8
    assert (game.action_space.n, game.max_steps) == (6, 27_000)
    _, observation = game.reset(KEY)
    following = game.step((), np.zeros(2, np.int32))[1].observation
    np.testing.assert_array_equal(following[:, :-1], observation[:, 1:])  # the newest frame is the last


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({"stack": 2}, (2, 84, 84)),
        ({"screen_size": 42}, (4, 42, 42)),
        ({"grayscale": False, "stack": 1}, (3, 84, 84)),
    ],
)
def test_the_preprocessing_is_given_by_arguments(arguments, shape):
    assert environments.make("atari:Breakout", 1, **arguments).observation_space.shape == shape


def test_all_buttons_and_the_limit_of_a_game_are_arguments():
    game = environments.make("atari:Pong", 1, full_action_space=True, max_frames=40)
    assert (game.action_space.n, game.max_steps) == (18, 10)
    game.reset(KEY)
    ends = [game.step((), NOTHING)[1] for _ in range(20)]
    assert [i for i, step in enumerate(ends, 1) if step.truncated[0]] == [10, 20]
    assert not any(step.terminated[0] for step in ends)


def test_an_action_is_repeated_for_as_many_frames_as_are_skipped():
    quick = environments.make("atari:Pong", 1, frame_skip=2, noop_max=1)
    assert quick.max_steps == 54_000


def test_sticky_actions_make_a_game_random():
    """Without them copies with one seed and equal actions are equal; with them the game may do otherwise."""
    plain, sticky = (played(environments.make("atari:Pong", 1, repeat_action_probability=p), 200) for p in (0.0, 0.25))
    assert any((a.observation != b.observation).any() for a, b in zip(plain, sticky, strict=True))


def test_a_lost_life_ends_an_episode_and_the_game_goes_on():
    lives, whole = (environments.make("atari:Breakout", 2, life_loss=flag) for flag in (True, False))
    steps, games = played(lives, 400), played(whole, 400)
    ends, overs = sum(x.terminated.sum() for x in steps), sum(x.terminated.sum() for x in games)
    assert ends > 2 * overs > 0
    for one, other in zip(steps, games, strict=True):  # otherwise the same
        np.testing.assert_array_equal(one.observation, other.observation)
        np.testing.assert_array_equal(one.reward, other.reward)
        np.testing.assert_array_equal(one.terminated | other.terminated, one.terminated)
        lost = one.terminated & ~other.terminated
        np.testing.assert_array_equal(one.observation[lost], one.next_observation[lost])


def test_what_whole_games_earn_is_noted_where_episodes_are_lives():
    lives, whole = (environments.make("atari:Breakout", 2, life_loss=flag) for flag in (True, False))
    played(lives, 600)
    running, finished = np.zeros(2), []
    for step in played(whole, 600):
        running += step.reward
        finished += running[step.terminated].tolist()
        running[step.terminated] = 0
    assert lives.close_infos() == {"game_return_mean": np.mean(finished)}


def test_a_game_of_lives_resumes_where_it_was():
    one = environments.make("atari:Breakout", 2, life_loss=True)
    played(one, 60)
    arrays = one.save()
    other = environments.make("atari:Breakout", 2, life_loss=True)
    other.restore(arrays)
    assert other.exact
    generator = np.random.default_rng(5)
    for _ in range(150):
        action = generator.integers(0, 4, 2, np.int32)
        for a, b in zip(one.step((), action)[1], other.step((), action)[1], strict=True):
            np.testing.assert_array_equal(a, b)
    assert one.close_infos() == other.close_infos()


def test_evaluations_play_whole_games():
    arguments = {"life_loss": True, "stack": 2}
    assert environments.to_evaluate_with("atari:Breakout", arguments) == {"stack": 2}
    assert environments.to_evaluate_with("Mine-v0", arguments) == arguments
    run = td.train(
        TINY, "atari:Breakout", steps=160, run_dir=None, evaluate_every=80, evaluate_episodes=1,
        environment_arguments={"life_loss": True, "max_frames": 400},
    )  # fmt: skip
    played = run.evaluate(episodes=1)
    assert played["mean"] == int(played["mean"])


def test_returns_are_reported_as_the_game_gives_them_where_rewards_are_clipped():
    def trained(clip_rewards):
        return td.train(
            dataclasses.replace(TINY, clip_rewards=clip_rewards), "atari:Qbert", steps=256, run_dir=None,
            evaluate_every=0, environment_arguments={"max_frames": 200},
        ).metrics  # fmt: skip

    clipped, raw = trained(True)["return_mean"], trained(False)["return_mean"]
    first = np.isfinite(raw).argmax()  # before anything was learned
    assert clipped[first] == raw[first] > 1


@pytest.mark.parametrize(
    ("id", "arguments", "error", "words"),
    [
        ("atari:Breakot", {}, UnknownNameError, "there is no Atari game 'Breakot'. Did you mean 'Breakout'?"),
        ("atari:Pong", {"frame_skipp": 2}, SettingError, "has no argument 'frame_skipp'. Did you mean 'frame_skip'?"),
        ("atari:Pong", {"frame_skip": 0}, SettingError, "frame_skip must be a whole number, at least 1, got 0"),
        ("atari:Pong", {"life_loss": 1}, SettingError, "life_loss must be True or False, got 1"),
        ("atari:Pong", {"repeat_action_probability": 2}, SettingError, "repeat_action_probability must be in .*got 2"),
        ("atari:Pong", {"mask_from_info": True}, SettingError, "mask_from_info is for Gymnasium's"),
    ],
)
def test_mistakes_are_told_apart(id, arguments, error, words):
    with pytest.raises(error, match=words):
        environments.make(id, 1, **arguments)


@pytest.mark.parametrize(
    "name", ["space_invaders", "SpaceInvaders", "SpaceInvadersNoFrameskip-v4", "ALE/SpaceInvaders-v5"]
)
def test_a_game_is_known_by_the_names_of_other_libraries(name):
    assert environments.make(f"atari:{name}", 1).action_space.n == 6


def test_without_a_library_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "thorndike\[atari\]"'):
        environments.make("atari:Pong", 1)


def test_every_game_of_envpool_is_listed():
    assert {"Pong", "Breakout", "MontezumaRevenge"} < set(atari.games())


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_every_game_has_recorded_settings(name):
    recorded = settings.recorded(name, "atari:Qbert")
    assert recorded.algorithm.clip_rewards
    assert isinstance(recorded.algorithm.network, td.CNN)
    assert settings.recorded(name, "envpool:Qbert-v5") is None
    recorded.algorithm.check(*(environments.make("atari:Qbert", 1).observation_space, spaces.Discrete(6)))
