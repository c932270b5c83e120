"""A user's own vector environment, in all three ways in which it may reset its copies."""

from __future__ import annotations

from collections import deque

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from jax import random

import thorndike as td
from thorndike.environments import make
from thorndike.errors import EnvironmentFault, SettingError

MODES = list(AutoresetMode)


class Count(gymnasium.Env):
    """Sees the number of its step and that of its episode; episodes of a few steps end, or are cut, in turn."""

    observation_space = gymnasium.spaces.Box(0, 1e6, (2,))
    action_space = gymnasium.spaces.Discrete(3, start=1)

    def __init__(self, longest=4):
        self.longest, self.episode = longest, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episode = 0, self.episode + 1
        self.length = int(self.np_random.integers(1, self.longest + 1))
        return self.seen(), {}

    def step(self, action):
        assert self.t < self.length, "stepped after its end"
        self.t += 1
        over = self.t == self.length
        return self.seen(), float(action), over and self.t % 2 == 0, over and self.t % 2 == 1, {"length": self.t}

    def seen(self):
        return np.array([self.t, self.episode], np.float32)


class Parts(Count):
    observation_space = gymnasium.spaces.Dict(
        {"n": gymnasium.spaces.Discrete(10), "both": gymnasium.spaces.Tuple((Count.observation_space,) * 2)}
    )

    def seen(self):
        return {"n": self.t, "both": (super().seen(), super().seen() + 1)}


def vector(mode, n=3, kind=Count, **more):
    return SyncVectorEnv([kind] * n, autoreset_mode=mode, **more)


def first_of(observation):
    return observation["both"][0] if isinstance(observation, dict) else observation


@pytest.mark.parametrize("kind", [Count, Parts])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_next_observation_is_what_the_action_led_to_and_no_step_is_a_reset(mode, kind):
    environment = make(lambda: vector(mode, kind=kind), 3)
    environment.record_info(("length",))
    observation = first_of(environment.reset(random.key(1))[1])
    ends = np.zeros(2, int)
    np.testing.assert_array_equal(observation, np.zeros((3, 2)))
    for t in range(200):
        action = np.full(3, t % 3, np.int32)
        step = environment.step((), action)[1]
        following, later = first_of(step.next_observation), first_of(step.observation)
        np.testing.assert_array_equal(following, np.add(observation, (1, 0)))
        done = step.terminated | step.truncated
        np.testing.assert_array_equal(later[done], np.stack([np.zeros(done.sum()), observation[done][:, 1] + 1], 1))
        np.testing.assert_array_equal(later[~done], following[~done])
        np.testing.assert_array_equal(step.reward, t % 3 + 1)  # Discrete counts from its start
        np.testing.assert_array_equal(step.terminated[done], following[done][:, 0] % 2 == 0)
        observation, ends = later, np.add(ends, (step.terminated.sum(), step.truncated.sum()))
    assert (ends > 20).all()
    assert 1 < environment.close_infos()["length_mean"] < 4
    environment.close()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_the_same_key_gives_the_same_run_and_another_key_another(mode):
    def run(key):
        environment = make(lambda: vector(mode), 3)
        environment.reset(random.key(key))
        steps = [environment.step((), np.zeros(3, np.int32))[1] for _ in range(40)]
        return [leaf.tobytes() for leaf in jax.tree.leaves(steps)]

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_it_trains_and_is_evaluated_and_resumes_with_new_episodes(mode, tmp_path):
    algorithm = td.DQN(num_environments=3, warmup_steps=12, network=td.MLP((8,)))

    def made():
        return vector(mode)

    run = td.train(algorithm, made, 60, run_dir=tmp_path / "run", quiet=True, final_episodes=7)
    assert run.summary["evaluation"]["episodes"] == 7
    with pytest.warns(UserWarning, match="cannot step one copy alone"):
        more = td.resume(tmp_path / "run", 120, environment=made, quiet=True)
    assert more.summary["steps"] >= 120


def test_a_function_of_num_envs_is_given_how_many_are_needed():
    def made(num_envs):
        return vector(AutoresetMode.SAME_STEP, num_envs)

    assert make(made, 4).count == 4
    assert make(SyncVectorEnv, 1, env_fns=[Count]).count == 1


def test_an_object_is_trained_in_as_it_is_and_never_closed():
    own = vector(AutoresetMode.DISABLED)
    algorithm = td.DQN(num_environments=3, warmup_steps=12, network=td.MLP((8,)))
    with pytest.raises(SettingError, match="evaluate_every=0"):
        td.train(algorithm, own, 60, run_dir=None, quiet=True)
    td.train(algorithm, own, 60, run_dir=None, quiet=True, evaluate_every=0)
    assert not own.closed


@pytest.mark.parametrize("n", [2, 5])
def test_another_number_of_copies_is_said(n):
    with pytest.raises(SettingError, match="num_envs=3"):
        td.train(td.DQN(num_environments=n, warmup_steps=10), lambda: vector("NextStep"), 60, run_dir=None)


def test_workers_are_not_for_it():
    with pytest.raises(SettingError, match="steps its copies itself"):
        make(vector(AutoresetMode.SAME_STEP), 3, workers=2)


class Broken(VectorEnv):
    """Two copies that break their word in one way each."""

    num_envs = 2
    single_observation_space, single_action_space = Count.observation_space, Count.action_space

    def __init__(self, how, mode="SameStep"):
        self.how, self.metadata = how, {"autoreset_mode": AutoresetMode(mode)}

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros((2, 2), np.float32), {}

    def step(self, actions):
        self.t += 1
        observation, reward = np.full((2, 2), self.t, np.float32), np.zeros(2)
        terminated = np.array([self.t == 3, False])
        if self.how == "nan":
            observation[1, 0] = np.nan
        if self.how == "reward":
            reward = np.zeros(3)
        if self.how == "flags":
            terminated = np.zeros(2)
        return observation, reward, terminated, np.zeros(2, bool), {}


@pytest.mark.parametrize(
    ("how", "mode", "text"),
    [
        ("nan", "SameStep", "copy 1: observation: nan at index"),
        ("reward", "SameStep", "reward: expected a number for each of 2"),
        ("flags", "SameStep", "terminated: expected True or False for each of 2"),
        ("no final observation", "SameStep", "infos must hold 'final_obs'"),
        ("no mask", "NextStep", "must heed options={'reset_mask'"),
    ],
)
def test_what_breaks_its_word_is_named(how, mode, text):
    environment = make(lambda: Broken(how, mode), 2)
    environment.reset(random.key(0))
    with pytest.raises(EnvironmentFault, match=text):
        deque((environment.step((), np.zeros(2, np.int32)) for _ in range(4)), maxlen=0)
