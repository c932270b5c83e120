"""EnvPool's environments: Gymnasium's own transitions, known seeds, honest return, and nothing bad let in."""

from __future__ import annotations

import gc
import os
import re
import sys

import envpool
import gymnasium
import jax
import numpy as np
import pytest
from jax import random

from test_gymnasium import canonical_actions, play, same
from thorndike import trainer
from thorndike.algorithms.ppo import PPO
from thorndike.environments import make, record_info, repeating
from thorndike.environments.repeating import episode_seed
from thorndike.errors import (
    CorruptCheckpointError,
    EnvironmentFault,
    MissingExtraError,
    SettingError,
    UnknownNameError,
    UnsuitableError,
)
from thorndike.interface import listing
from thorndike.networks import MLP
from thorndike.spaces import to_real


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file where it stands


def seeds_of(environment):
    run_seed = int(environment.save()["run_seed"])
    return [episode_seed(run_seed, i, 0) for i in range(environment.num_environments)]


# --- what a step is ---------------------------------------------------------------------------------------------------


def put(twin, observation):
    """Set Gymnasium's environment to the state that an observation tells; the place along the track is not told."""
    if hasattr(twin, "model"):
        places = twin.model.nq - 1
        twin.set_state(np.concatenate([[0.0], observation[:places]]), observation[places:])
    else:
        twin.state, twin.steps_beyond_terminated = observation.astype(np.float64), None


@pytest.mark.parametrize(
    ("name", "limit", "steps", "least"),
    [("CartPole-v1", 20, 600, 100), ("Hopper-v5", 20, 600, 100), ("HalfCheetah-v5", 16, 220, 0)],
)
def test_a_step_is_gymnasiums_from_the_same_state_at_and_after_many_ends(name, limit, steps, least):
    """D4: flags exactly, observations and rewards within 1e-6, over at least 100 ends of each kind that there is."""
    n = 8
    environment = make(f"envpool:{name}", n, max_episode_steps=limit)
    environment.reset(random.key(0))
    # The same pool once more: its observations have 64 bits, which MuJoCo's contacts need.
    pool = envpool.make_gymnasium(name, num_envs=n, seed=seeds_of(environment))
    acted_on = pool.reset()[0]
    twin = gymnasium.make(name).unwrapped
    twin.reset(seed=0)
    length, ends, farthest = np.zeros(n, int), np.zeros(3, int), np.zeros(2)
    for action in canonical_actions(environment.action_space, steps, n):
        real = to_real(environment.action_space, np)(action)
        _, outcome = environment.step((), action)
        following = pool.step(real)[0]
        np.testing.assert_array_equal(outcome.next_observation, following.astype(np.float32))
        length += 1
        np.testing.assert_array_equal(outcome.truncated, length >= limit)
        for i in range(n):
            put(twin, acted_on[i])
            expected, reward, terminated, _, _ = twin.step(real[i])
            assert outcome.terminated[i] == terminated
            difference = np.abs(expected - following[i]).max(), abs(reward - outcome.reward[i])
            farthest = np.maximum(farthest, difference)
        done = outcome.terminated | outcome.truncated
        acted_on = following.copy()
        if done.any():
            acted_on[done] = pool.reset(np.flatnonzero(done).astype(np.int32))[0]
            length[done] = 0
        np.testing.assert_array_equal(outcome.observation, acted_on.astype(np.float32))
        ends += [outcome.terminated.sum(), outcome.truncated.sum(), (outcome.terminated & outcome.truncated).sum()]
    assert farthest.max() < 1e-6
    assert ends[0] >= least
    assert ends[1] >= 100
    assert ends[2] >= least / 100  # some by both at once


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("CartPole-v1", 30),
        ("Pendulum-v1", 30),
        ("FrozenLake-v1", 20),
        ("Hopper-v5", 25),
        ("MiniGrid-Empty-5x5-v0", 30),  # observes a dict
        ("RubiksCube-partly-scrambled-v0", 20),  # several choices at once
    ],
)
def test_copies_are_single_environments_that_are_reset_in_the_step_that_ends_an_episode(name, limit):
    n, steps = 3, 200
    environment = make(f"envpool:{name}", n, max_episode_steps=limit)
    _, observation = environment.reset(random.key(3))
    first_seen = jax.tree.map(np.copy, observation)
    actions = canonical_actions(environment.action_space, steps, n)
    outcome = play(environment, actions)
    for i, seed in enumerate(seeds_of(environment)):
        single = envpool.make_gymnasium(name, num_envs=1, seed=[seed], max_episode_steps=limit)
        expected, acted_on = single.reset()[0], jax.tree.map(lambda leaf, i=i: leaf[i], first_seen)
        returns, own_returns = [0.0], [0.0]
        for t in range(steps):
            assert same(acted_on, stored(expected))
            expected, reward, terminated, truncated, _ = single.step(real_action_of(environment, actions[t, i]))
            assert same(row(outcome.next_observation, t, i), stored(expected))
            assert outcome.truncated[t, i] == truncated
            assert outcome.terminated[t, i] == terminated or truncated  # EnvPool tells the one or the other
            returns[-1] += outcome.reward[t, i]
            own_returns[-1] += reward[0]
            if terminated | truncated:
                expected = single.reset()[0]
                returns, own_returns = [*returns, 0.0], [*own_returns, 0.0]
            acted_on = row(outcome.observation, t, i)
        assert len(returns) > 5
        assert returns == own_returns


def real_action_of(environment, action):
    real = to_real(environment.action_space, np)(action)[None]
    return real.astype(np.int32) if real.dtype.kind == "i" else real


def row(observation, t, i):
    return jax.tree.map(lambda leaf: leaf[t, i], observation)


def stored(observation):
    """What EnvPool shows of a single copy, in 32 bits."""
    return jax.tree.map(lambda x: x[0].astype(np.float32 if x.dtype == np.float64 else x.dtype), observation)


def test_an_episode_that_ends_in_the_step_of_its_time_limit_is_both_terminated_and_truncated():
    def ending(**limit):
        environment = make("envpool:CartPole-v1", 1, **limit)
        environment.reset(random.key(0))
        for length in range(1, 100):
            _, outcome = environment.step((), np.ones(1, np.int32))
            if outcome.terminated[0] or outcome.truncated[0]:
                return length, bool(outcome.terminated[0]), bool(outcome.truncated[0])

    length, *flags = ending()
    assert flags == [True, False]
    assert ending(max_episode_steps=length + 1) == (length, True, False)
    assert ending(max_episode_steps=length) == (length, True, True)
    assert ending(max_episode_steps=length - 1) == (length - 1, False, True)


def test_no_first_observation_is_ever_what_an_action_led_to():
    environment = make("envpool:CartPole-v1", 8, max_episode_steps=15)
    _, first = environment.reset(random.key(1))
    outcome = play(environment, canonical_actions(environment.action_space, 300, 8))
    done = outcome.terminated | outcome.truncated
    firsts = np.concatenate([first, outcome.observation[done]])
    assert np.abs(firsts).max() <= 0.05  # how CartPole begins
    assert len(np.unique(firsts, axis=0)) == len(firsts) == 8 + done.sum() > 150
    reached = {following.tobytes() for following in outcome.next_observation.reshape(-1, 4)}
    assert not reached & {observation.tobytes() for observation in firsts}
    np.testing.assert_array_equal(outcome.observation[~done], outcome.next_observation[~done])


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "MiniGrid-Empty-5x5-v0", "Taxi-v3", "CartPole-v1"])
def test_observations_rewards_and_flags_are_what_the_space_promises_in_32_bits(name):
    environment = make(f"envpool:{name}", 3)
    _, observation = environment.reset(random.key(0))
    _, outcome = environment.step((), canonical_actions(environment.action_space, 1, 3)[0])
    for seen in (observation, outcome.observation, outcome.next_observation):
        matching = jax.tree.map(lambda x, s: (x.shape, x.dtype) == ((3, *s.shape), s.dtype), seen, environment._stored)
        assert all(jax.tree.leaves(matching))
    for leaf, dtype in ((outcome.reward, np.float32), (outcome.terminated, bool), (outcome.truncated, bool)):
        assert (leaf.shape, leaf.dtype) == ((3,), dtype)
    if name.startswith("MiniGrid"):
        assert list(observation) == ["direction", "image", "mission"]


@pytest.mark.parametrize("name", ["CartPole-v1", "HalfCheetah-v5", "MiniGrid-Empty-5x5-v0"])
def test_arrays_that_were_returned_are_never_written_again(name):
    environment = make(f"envpool:{name}", 2, max_episode_steps=15)
    returned = [environment.reset(random.key(0))[1]]
    kept = jax.tree.map(np.copy, returned)
    for t, action in enumerate(canonical_actions(environment.action_space, 60, 2)):
        returned.append(environment.step((), action)[1] if t % 20 else environment.save())
        kept.append(jax.tree.map(np.copy, returned[-1]))
    returned.append(environment.restore(returned[21]))
    kept.append(jax.tree.map(np.copy, returned[-1]))
    play(environment, canonical_actions(environment.action_space, 60, 2))
    assert same(returned, kept)


# --- seeds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CartPole-v1", "LunarLander-v3", "HalfCheetah-v5"])
def test_the_same_key_gives_the_same_run_with_any_number_of_threads_and_another_key_another(name):
    def run(key, threads=1, environment=None):
        environment = environment or make(f"envpool:{name}", 3, num_threads=threads)
        first = environment.reset(key)[1]
        return environment, (first, play(environment, canonical_actions(environment.action_space, 60, 3)))

    environment, one = run(random.key(5))
    assert same(one, run(random.key(5), threads=3)[1])
    assert same(one, run(random.key(5), environment=environment)[1])  # and again with copies that have been used
    assert not same(one, run(random.key(6))[1])


def test_runs_of_neighbouring_seeds_share_no_episode():
    """EnvPool's own `seed=3` and `seed=4` have all streams but one in common."""
    firsts = []
    for seed in (3, 4):
        environment = make("envpool:CartPole-v1", 8, max_episode_steps=5)
        firsts.append(environment.reset(trainer.keys_of(seed)[0])[1])
        outcome = play(environment, canonical_actions(environment.action_space, 50, 8))
        firsts.append(outcome.observation[outcome.truncated])
    firsts = np.concatenate(firsts)
    assert len(firsts) == 2 * (8 + 8 * 10)
    assert len(np.unique(firsts, axis=0)) == len(firsts)


# --- save and restore -------------------------------------------------------------------------------------------------


REPEATABLE = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "Hopper-v5", "HalfCheetah-v5", "Taxi-v3"]


@pytest.mark.parametrize("name", [*REPEATABLE, "MiniGrid-Empty-Random-6x6-v0"])
def test_a_restored_run_goes_on_exactly(name):
    def fresh():
        return make(f"envpool:{name}", 3, max_episode_steps=35)

    environment = fresh()
    environment.reset(random.key(2))
    actions = canonical_actions(environment.action_space, 200, 3)
    acted_on = play(environment, actions[:83]).observation
    saved = environment.save()
    assert saved["episode"].min() >= 2
    rest = play(environment, actions[83:])
    assert (rest.terminated | rest.truncated).sum() >= 9

    restored = fresh()
    restored.reset(random.key(77))
    observation = restored.restore(saved)
    assert same(observation, jax.tree.map(lambda leaf: leaf[-1], acted_on))
    assert same(restored.save(), saved)
    assert same(play(restored, actions[83:]), rest)
    assert restored.exact
    assert not restored.restarted.any()
    assert restored.notes == []
    assert same(environment.restore(saved), observation)  # and so does one that has long gone on
    assert same(play(environment, actions[83:]), rest)


def test_where_steps_draw_random_numbers_the_running_episodes_begin_anew_and_this_is_said():
    environment = make("envpool:LunarLander-v3", 3)
    environment.reset(random.key(0))
    actions = canonical_actions(environment.action_space, 400, 3)
    play(environment, actions[:300])
    saved = environment.save()
    assert saved["episode"].min() >= 1
    restored = make("envpool:LunarLander-v3", 3)
    observation = restored.restore(saved)
    assert not restored.exact
    assert restored.restarted.all()
    assert "copy 2 could not go on with its episode and began the next one" in restored.notes[2]
    assert restored.save()["episode"].tolist() == [e + 1 for e in saved["episode"]]
    assert restored.save()["length"].tolist() == [0, 0, 0]
    assert same(restored.save()["observation"], observation)
    outcome = play(restored, actions[300:])
    again = make("envpool:LunarLander-v3", 3)
    again.restore(saved)
    assert same(outcome, play(again, actions[300:]))  # inexact, but the same at every attempt


def test_a_difference_that_the_present_does_not_show_is_found_and_said():
    """Every episode on the lake begins alike, and where the random numbers stand is not seen."""
    name, actions = "envpool:FrozenLake-v1", canonical_actions(gymnasium.spaces.Discrete(4), 300, 2)
    environment = make(name, 2)
    environment.reset(random.key(0))
    for t in range(300):  # until both stand where every episode begins, and not for the first time
        _, outcome = environment.step((), actions[t])
        saved = environment.save()
        if saved["episode"].all() and not outcome.observation.any():
            break
    assert not saved["observation"].any()
    restored = make(name, 2)
    restored.restore(saved)
    assert not restored.exact
    assert "draws random numbers in its steps" in restored.notes[-1]
    assert not restored.restarted.any()
    assert not same(play(restored, actions), play(environment, actions))  # so it was right to say so


def test_first_episodes_are_restored_exactly_even_where_steps_draw():
    environment = make("envpool:LunarLander-v3", 3)
    environment.reset(random.key(0))
    actions = canonical_actions(environment.action_space, 250, 3)
    play(environment, actions[:40])
    saved = environment.save()
    assert not saved["episode"].any()
    restored = make("envpool:LunarLander-v3", 3)
    restored.restore(saved)
    assert restored.exact
    assert same(play(restored, actions[40:]), play(environment, actions[40:]))


def test_an_episode_that_is_too_long_to_be_repeated_begins_anew_and_the_short_one_goes_on(monkeypatch):
    monkeypatch.setattr(repeating, "LONGEST_REPEAT", 12)
    environment = make("envpool:CartPole-v1", 4)
    environment.reset(random.key(0))
    actions = canonical_actions(environment.action_space, 200, 4)
    for t in range(100):
        environment.step((), actions[t])
        saved = environment.save()
        long = saved["length"] > 12
        if t > 30 and 0 < long.sum() < 4:
            break
    assert len(saved["actions"]) == saved["length"][~long].max()
    rest = play(environment, actions[t + 1 :])
    restored = make("envpool:CartPole-v1", 4)
    restored.restore(saved)
    assert restored.restarted.tolist() == long.tolist()
    assert f"its {saved['length'][long][0]} steps are too many" in restored.notes[0]
    assert len(restored.notes) == long.sum()
    found = play(restored, actions[t + 1 :])
    np.testing.assert_array_equal(found.observation[:, ~long], rest.observation[:, ~long])


def test_what_was_saved_elsewhere_leads_elsewhere_and_is_said():
    environment = make("envpool:CartPole-v1", 2)
    environment.reset(random.key(0))
    play(environment, np.array([[0, 1], [1, 0]] * 12, np.int32))  # balanced for a while
    saved = environment.save()
    assert saved["length"].tolist() == [24, 24]
    for change, text in (
        ({"actions": np.ones_like(saved["actions"])}, r"repeated, it ended after (9|10|11) of 24 steps"),
        ({"observation": saved["observation"] * 2}, "repeating its 24 steps led to another observation"),
        ({"run_seed": saved["run_seed"] + np.uint64(1)}, "copy 1 could not go on with its episode"),
    ):
        restored = make("envpool:CartPole-v1", 2)
        restored.restore(saved | change)
        assert re.search(text, restored.notes[1])
        assert restored.restarted.all()


def test_arrays_that_are_not_from_such_an_environment_are_refused():
    environment = make("envpool:CartPole-v1", 2)
    environment.reset(random.key(0))
    play(environment, canonical_actions(environment.action_space, 5, 2))
    saved = environment.save()
    for change in (
        {"episode": saved["episode"][:1]},
        {"actions": saved["actions"][:, :1]},
        {"length": -saved["length"]},
    ):
        with pytest.raises(CorruptCheckpointError):
            environment.restore(saved | change)


def test_a_run_of_ppo_resumed_in_the_middle_ends_where_the_uninterrupted_one_does():
    """E1 within one process."""
    small = MLP((16,), activation="tanh", initialization="default")
    algorithm = PPO(
        network=small, critic_network=small, num_environments=3, rollout_length=16, batch_size=12, epochs=2,
        normalize_observations=True,
    )  # fmt: skip

    def chunks(**options):
        copies = lambda: make("envpool:CartPole-v1", 3)  # noqa: E731
        return {c.iteration: c.arrays() for c in trainer.train(algorithm, copies, 30 * 48, seed=3, **options)}

    whole = chunks(every=[17])
    saved, last = whole[17], whole[30]
    resumed = chunks(resume={3: saved})[30]
    assert saved["environment/episode"].min() >= 2
    assert last.keys() == resumed.keys()
    for name in last:
        np.testing.assert_array_equal(last[name], resumed[name], err_msg=name)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "error", "text"),
    [
        ("cartpole-v1", {}, UnknownNameError, "EnvPool has no environment 'cartpole-v1'. Did you mean 'CartPole-v1'?"),
        ("", {}, UnknownNameError, "EnvPool has no environment ''"),
        ("CartPole-v1", {"colour": 3}, SettingError, "CartPole-v1 has no argument 'colour'"),
        ("CartPole-v1", {"reward_threshold": "high"}, SettingError, "cannot be made with {'reward_threshold': 'high'}"),
        ("CartPole-v1", {"seed": 3}, SettingError, "'seed' cannot be given to CartPole-v1: seeds follow from the run"),
        ("CartPole-v1", {"num_envs": 3}, SettingError, "the number of copies is num_environments"),
        ("CartPole-v1", {"batch_size": 1}, SettingError, "stepped together"),
        ("CartPole-v1", {"max_episode_steps": 0}, SettingError, "max_episode_steps must be a whole number, at least 1"),
        ("CartPole-v1", {"max_episode_steps": 2.5}, SettingError, "got 2.5"),
        ("Go9x9-v1", {}, UnsuitableError, "for 2 players, only one is supported"),
    ],
)
def test_what_cannot_be_made_is_answered_plainly(name, arguments, error, text):
    with pytest.raises(error) as caught:
        make(f"envpool:{name}", 2, **arguments)
    assert text in str(caught.value)


def test_a_missing_package_is_answered_with_the_pip_line_and_gymnasiums_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    line = 'needs EnvPool, which is not installed: pip install "thorndike[envpool]"'
    with pytest.raises(MissingExtraError) as caught:
        make("envpool:CartPole-v1", 1)
    assert str(caught.value) == f"envpool:CartPole-v1 {line}, or use 'gymnasium:CartPole-v1'"
    with pytest.raises(MissingExtraError) as caught:
        make("envpool:WalkerRun-v1", 1)
    assert str(caught.value) == f"envpool:WalkerRun-v1 {line}"


def test_what_a_family_of_environments_needs_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool.toy_text", None)
    with pytest.raises(MissingExtraError, match=r"Catch-v0 needs something that is not installed: .*envpool\.toy_text"):
        make("envpool:Catch-v0", 1)


@pytest.mark.parametrize(
    ("name", "action", "text"),
    [
        ("Pendulum-v1", np.array([[0], [np.nan]], np.float32), "diverged"),
        ("Pendulum-v1", np.array([[0], [np.inf]], np.float32), None),  # beyond the bounds: clipped, as anywhere
        ("Pendulum-v1", np.zeros((1, 1), np.float32), r"actions \[2, ...\] are needed, got \[1, 1\]"),
        ("Pendulum-v1", np.zeros(2, np.float32), r"got \[2\]"),
        ("Hopper-v5", np.zeros((2, 2), np.float32), r"got \[2, 2\]"),
        ("Pendulum-v1", np.zeros((2, 1), bool), "got bool"),
        ("Pendulum-v1", np.array([["0"], ["1"]]), "got <U1"),
        ("CartPole-v1", np.zeros(3, np.int32), r"got \[3\]"),
        ("CartPole-v1", np.zeros(2, np.float32), "must be numbers of its kind, got float32"),
        ("CartPole-v1", np.array([0, 2]), r"count from 0 to below 2, got \[0, 2\]"),
        ("CartPole-v1", np.array([-1, 0]), r"count from 0 to below 2, got \[-1, 0\]"),
        ("CartPole-v1", np.array([0, 1], np.int64), None),
    ],
)
def test_actions_of_a_wrong_shape_kind_or_value_are_refused(name, action, text):
    environment = make(f"envpool:{name}", 2)
    environment.reset(random.key(0))
    if text is None:
        environment.step((), action)
    else:
        with pytest.raises(SettingError, match=text):
            environment.step((), action)


class Tampered:
    """A pool whose every reset, and whose third step, is changed: `change(observation, reward)` gives both anew."""

    def __init__(self, pool, change):
        self.pool, self.change, self.steps = pool, change, 0

    def step(self, message):
        self.steps += 1
        observation, reward, *flags = self.pool.step(message)
        if self.steps == 3:
            observation, reward = self.change(observation, reward)
        return observation, reward, *flags

    def reset(self, copies):
        observation, info = self.pool.reset(copies)
        return self.change(observation, np.zeros(2))[0], info


def changed(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


def observing(index, value, key=None):
    def change(observation, reward):
        if key is not None:
            return observation | {key: changed(observation[key], index, value)}, reward
        return changed(observation, index, value), reward

    return change


def rewarding(value):
    return lambda observation, reward: (observation, changed(reward, 1, value))


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("CartPole-v1", observing((1, 2), np.nan), r"observation: nan at index \[2\] is not a finite float32 number"),
        ("Hopper-v5", observing((1, 0), 1e39), r"observation: inf at index \[0\]"),
        ("CartPole-v1", rewarding(np.nan), "reward: nan is not a finite float32 number"),
        ("CartPole-v1", rewarding(-np.inf), "reward: -inf is not"),
        ("Taxi-v3", observing(1, 500), "observation: expected whole numbers from 0 to 499, got 500"),
        ("MiniGrid-Empty-5x5-v0", observing(1, -1, "direction"), r"observation\['direction'\]: expected whole numbers"),
    ],
)
def test_an_answer_that_breaks_its_word_is_named_by_copy_seed_episode_and_step(name, change, text):
    environment = make(f"envpool:{name}", 2)
    environment.reset(random.key(0))
    environment._pool = Tampered(environment._pool, change)
    actions = np.zeros((3, 2, *environment.action_space.shape), environment._action_type)
    play(environment, actions[:2])
    with pytest.raises(EnvironmentFault, match=text) as caught:
        environment.step((), actions[2])
    assert str(caught.value).startswith(f"copy 1, seed {seeds_of(environment)[1]}, episode 0, step 3: ")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda observation, reward: (observation[:, :3], reward), r"expected float32\[4\], got float32\[3\]"),
        (lambda observation, reward: (observation.astype(complex), reward), r"expected float32\[4\], got ndarray"),
        (lambda observation, reward: (observation[:1], reward), "copy 1.* observation: there is none"),
        (lambda observation, reward: ({"a": observation}, reward), "expected float32.*got dict"),
        (lambda observation, reward: (observation, reward[:1]), r"reward: expected float32\[2\], got float32\[1\]"),
    ],
)
def test_an_answer_of_a_wrong_shape_or_kind_is_refused(change, text):
    environment = make("envpool:CartPole-v1", 2)
    environment.reset(random.key(0))
    environment._pool = Tampered(environment._pool, change)
    play(environment, np.zeros((2, 2), np.int32))
    with pytest.raises(EnvironmentFault, match=text):
        environment.step((), np.zeros(2, np.int32))


def test_a_reset_that_breaks_its_word_is_named():
    environment = make("envpool:CartPole-v1", 2, max_episode_steps=2)
    environment.reset(random.key(0))
    environment._pool = Tampered(environment._pool, observing((1, 0), np.nan))
    with pytest.raises(EnvironmentFault, match=r"^copy 1, seed \d+, episode 1, reset: observation: nan at index \[0\]"):
        play(environment, np.zeros((2, 2), np.int32))


# --- around it --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="only Linux lists what a process holds")
def test_making_and_closing_pools_leaves_no_thread_or_file_behind():
    def held():
        return sum(len(os.listdir(f"/proc/self/{what}")) for what in ("task", "fd"))

    environments = []  # still held: it is `close` that releases

    def use():
        environment = make("envpool:HalfCheetah-v5", 10, num_threads=2)
        environments.append(environment)
        for seed in range(3):
            environment.reset(random.key(seed))
            environment.step((), np.zeros((10, 6), np.float32))
        environment.close()
        environment.close()  # twice is no harm

    use()
    gc.collect()  # what earlier tests have left
    before = held()
    for _ in range(5):
        use()
    assert held() <= before


def test_environments_of_envpool_are_mentioned_where_environments_are_listed():
    assert any(row[0] == "EnvPool" and "envpool:Pong-v5" in row for row in listing.environments())


class Cold:
    """A pool that fails."""

    def reset(self, copies):
        raise RuntimeError("engine is cold")

    step = reset


def test_whatever_the_pool_raises_is_a_fault():
    environment = make("envpool:CartPole-v1", 2)
    environment.reset(random.key(0))
    environment.step((), np.zeros(2, np.int32))
    seed = int(environment.save()["run_seed"])
    environment._pool = Cold()
    with pytest.raises(EnvironmentFault, match=rf"copies \[0, 1\], run seed {seed}, steps \[2, 2\]: .*engine is cold"):
        environment.step((), np.zeros(2, np.int32))
    environment._pool_of = lambda seeds: Cold()
    with pytest.raises(EnvironmentFault, match="reset: RuntimeError: engine is cold"):
        environment.reset(random.key(0))


def test_what_info_says_at_the_ends_of_episodes_is_recorded_of_each_copy():
    environment = make("envpool:CartPole-v1", 5)
    record_info(environment, ["elapsed_step", "no such name"])
    environment.reset(random.key(0))
    lengths, running = [], np.zeros(5, int)
    for t in range(60):
        _, outcome = environment.step((), np.array([0, 1, 0, 1, 1]) if t % 3 else np.ones(5, int), None)
        running += 1
        done = outcome.terminated | outcome.truncated
        lengths += running[done].tolist()
        running[done] = 0
    assert len(lengths) > 10
    with pytest.warns(UserWarning, match="'no such name' in info has never been there"):
        assert environment.infos.close() == {"elapsed_step_mean": pytest.approx(np.mean(lengths))}
    assert environment.infos.close() == {}
