"""A Learner in a loop of one's own: what `td.train` learns, whole after a stop, and nothing wrong is taken in."""

from __future__ import annotations

import dataclasses
import signal

import gymnasium
import jax
import numpy as np
import pytest

import thorndike as td
from test_training import ALGORITHMS, assert_equal, environment_of, final
from thorndike import trainer
from thorndike.environments.repeating import Repeatable, episode_seed
from thorndike.errors import EnvironmentFault, OrderError, RunError, SettingError, UnsuitableError
from thorndike.runs import checkpoints

BOX = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
TWO = gymnasium.spaces.Discrete(2)
DAILY = ("dqn n-step prioritized", "ppo", "sac")
CUTTING = ALGORITHMS["dqn n-step prioritized"]  # two environments, rollouts of 3 steps
ONE = td.REINFORCE(network=td.MLP((4,)), baseline_network=None, num_environments=1, rollout_length=4)


class Loop:
    """A hand-written loop over Gymnasium environments, which plays the episodes that a run of that seed plays."""

    def __init__(self, id, n, seed):
        self.environments = [gymnasium.make(id) for _ in range(n)]
        numbering = Repeatable(n, self.environments[0].observation_space, self.environments[0].action_space)
        numbering._start_with_key(jax.random.split(trainer.keys_of(seed)[0])[0])
        self.run_seed, self.episode = numbering._run_seed, [0] * n
        self.observation = np.stack([self.reset(i) for i in range(n)])

    def reset(self, i):
        return self.environments[i].reset(seed=episode_seed(self.run_seed, i, self.episode[i]))[0]

    def step(self, learner):
        action = learner.act(self.observation)
        outcomes = [environment.step(a) for environment, a in zip(self.environments, action, strict=True)]
        following, reward, terminated, truncated, _ = map(np.stack, zip(*outcomes, strict=True))
        learner.observe(reward, following, terminated, truncated)
        self.observation = np.array(following)
        for i in np.flatnonzero(terminated | truncated).tolist():
            self.episode[i] += 1
            self.observation[i] = self.reset(i)


def begin(algorithm, steps, seed=0, observation_space=BOX, action_space=TWO):
    return td.Learner(
        algorithm, observation_space, action_space, steps=steps, seed=seed, num_environments=algorithm.num_environments
    )


def saved_arrays(learner, folder):
    learner.save(folder)
    return dict(checkpoints.newest(folder / "checkpoints").arrays(learner._run.seed))


@pytest.mark.parametrize("stops", [(), (5, 60, 60)], ids=["", "stopped"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in DAILY else pytest.mark.full) for name in ALGORITHMS]
)
def test_the_same_steps_teach_a_learner_what_they_teach_a_run(name, stops, tmp_path):
    """Bit for bit, all that a checkpoint holds; also where it is saved in the middle of rollouts and loaded again."""
    algorithm = ALGORITHMS[name]
    id, steps = environment_of(algorithm), 8 * trainer.steps_per_iteration(algorithm) + 90
    loop = Loop(id, 2, seed=3)
    one = loop.environments[0]
    learner = begin(algorithm, steps, 3, one.observation_space, one.action_space)
    for stop in stops:
        while learner.steps < stop:
            loop.step(learner)
        learner.act(loop.observation)  # whose outcome nobody will see
        learner.save(tmp_path / "run")
        learner = td.Learner.load(tmp_path / "run")
    while not learner.finished:
        loop.step(learner)
    arrays = saved_arrays(learner, tmp_path / "run")
    expected = final(algorithm, steps, "gymnasium:", seed=3)[3]
    ours = {name: x for name, x in expected.items() if not name.startswith(("environment/", "actor/observation"))}
    assert_equal({name: x for name, x in arrays.items() if not name.startswith("actor/observation")}, ours)


def test_a_learner_shows_the_rows_that_a_run_records(tmp_path):
    algorithm = ALGORITHMS["ppo"]
    loop = Loop("CartPole-v1", 2, seed=0)
    one = loop.environments[0]
    learner = begin(algorithm, 200, 0, one.observation_space, one.action_space)
    assert learner.row == {}
    assert learner.recent[0].size == 0
    for _ in range(60):
        loop.step(learner)
    learner.save(tmp_path / "run")
    learner = td.Learner.load(tmp_path / "run")
    while not learner.finished:
        loop.step(learner)
    run = td.train(algorithm, "gymnasium:CartPole-v1", steps=200, evaluate_every=0, run_dir=None, quiet=True)
    assert learner.metrics.keys() == run.metrics.keys() - {"steps_per_second"}
    for name in learner.metrics.keys() - {"seconds"}:
        np.testing.assert_array_equal(learner.metrics[name], run.metrics[name], err_msg=name)
    assert (np.diff(learner.metrics["seconds"]) >= 0).all()
    assert learner.row["steps"] == learner.steps == 224
    assert len(learner.recent[0]) == run.metrics["episodes"].sum()


class Endless(gymnasium.Env):
    """Counts its steps, in every part of its observation."""

    observation_space = gymnasium.spaces.Dict(a=BOX, b=gymnasium.spaces.Discrete(5, start=1))
    action_space = gymnasium.spaces.Box(0.0, 4.0, (3,), np.float64)


@pytest.mark.parametrize("axis", [False, True])
def test_one_environment_has_no_leading_axis_unless_it_is_given_one(axis):
    def given(value):
        return np.asarray(value)[None] if axis else value

    learner = begin(ONE, 100, 0, Endless.observation_space, Endless.action_space)
    observation = {"a": given([1.0, 2.0]), "b": given(1)}
    for _ in range(5):
        action = learner.act(observation)
        assert action.shape == ((1, 3) if axis else (3,))
        assert action.dtype == np.float64
        assert (action >= 0).all()
        assert (action <= 4).all()
        learner.observe(given(1), observation, given(False), given(np.bool_(True)))
    assert learner.steps == 5
    assert learner.agent.act({"a": np.zeros(2), "b": 5}).shape == (3,)


@pytest.mark.parametrize(
    ("space", "kind", "dtype"),
    [
        (gymnasium.spaces.Discrete(2, start=7), int, np.int64),
        (gymnasium.spaces.Box(7, 8, (), np.int8), int, np.int64),
        (gymnasium.spaces.MultiDiscrete([2, 2], start=[7, 7]), np.ndarray, np.int64),
        (gymnasium.spaces.Box(7, 8, (2,), np.int8), np.ndarray, np.int64),
        (gymnasium.spaces.Box(7.0, 8.0, ()), np.float32, np.float32),
    ],
)
def test_actions_are_of_the_space(space, kind, dtype, tmp_path):
    learner = begin(ONE, 100, action_space=space)
    for _ in range(2):
        action = learner.act(np.zeros(2))
        assert type(action) is kind
        assert np.asarray(action).dtype == dtype
        assert np.shape(action) == space.shape
        assert np.all((np.asarray(action) >= 7) & (np.asarray(action) <= 8))
        learner.save(tmp_path / "run")
        learner = td.Learner.load(tmp_path / "run")
    assert np.shape(td.load(tmp_path / "run").agent.act(np.zeros(2))) == space.shape


def test_fewer_environments_than_the_algorithm_has_make_rollouts_longer():
    learner = td.Learner("dqn", BOX, TWO, steps=10_000)
    assert (learner.algorithm.num_environments, learner.algorithm.rollout_length) == (1, 64)
    assert td.Learner(td.PPO, BOX, TWO, steps=9_999, num_environments=16).algorithm.rollout_length == 64


GOOD = (np.ones(2), np.zeros((2, 2)), np.zeros(2, bool), np.zeros(2, bool))


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        ((np.array([0, np.nan]), *GOOD[1:]), "environment 1, step 1: reward: nan is not a finite"),
        ((np.array([1e39, 0]), *GOOD[1:]), "environment 0.*not a finite"),
        ((1.0, *GOOD[1:]), "reward: expected 2, one for each environment, got float64"),
        ((GOOD[1], GOOD[0], *GOOD[2:]), r"reward: expected a number, got float64\[2\]; observe\(reward, next_obs"),
        ((GOOD[0], np.zeros((2, 3)), *GOOD[2:]), r"next_observation: expected float32\[2\], got float64\[3\]"),
        ((GOOD[0], np.full((2, 2), np.inf), *GOOD[2:]), "next_observation: inf at index"),
        ((GOOD[0], None, *GOOD[2:]), "next_observation: expected 2, one for each environment, got NoneType"),
        ((*GOOD[:2], [False, 0.5], GOOD[3]), "terminated: expected True or False, got float64"),
        ((*GOOD[:3], [False, None]), "truncated: expected True or False, got NoneType"),
        ((*GOOD[:3], {"x": 1}), "truncated: expected 2, one for each"),
    ],
)
def test_what_is_wrong_is_told_and_changes_nothing(outcome, text, tmp_path):
    learner, untouched = begin(CUTTING, 100), begin(CUTTING, 100)
    for each in (learner, untouched):
        each.act(GOOD[1])
    with pytest.raises(EnvironmentFault, match=text):
        learner.observe(*outcome)
    for each in (learner, untouched):
        each.observe(*GOOD)
    assert learner.steps == 2
    assert_equal(saved_arrays(learner, tmp_path / "a"), saved_arrays(untouched, tmp_path / "b"))


@pytest.mark.parametrize(
    "observation", [np.zeros(2), np.zeros((3, 2)), [[1, 2], [3]], None, "ab", np.full((2, 2), np.nan)]
)
def test_a_wrong_observation_to_act_on_is_told_and_another_may_follow(observation):
    learner = begin(CUTTING, 100)
    with pytest.raises(EnvironmentFault, match=r"observation: "):
        learner.act(observation)
    learner.act(GOOD[1])


def test_calls_in_a_wrong_order_are_told():
    learner = begin(CUTTING, 100)
    with pytest.raises(OrderError, match=r"act\(observation\) comes first"):
        learner.observe(*GOOD)
    learner.act(GOOD[1])
    with pytest.raises(OrderError, match="act was called twice"):
        learner.act(GOOD[1])
    learner.observe(*GOOD)
    with pytest.raises(OrderError, match="comes first"):
        learner.observe(*GOOD)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((td.DQN(), BOX, TWO, {}), SettingError, "how long"),
        ((td.DQN(), BOX, TWO, {"steps": 500}), SettingError, "all warm-up"),
        ((td.DQN(), BOX, TWO, {"steps": 0}), SettingError, "steps must be at least 1"),
        ((td.DQN(), BOX, TWO, {"steps": 5000, "seed": -1}), SettingError, "seed"),
        ((td.DQN(), BOX, TWO, {"steps": 5000, "num_environments": 0}), SettingError, "num_environments must be"),
        ((td.DQN(), BOX, BOX, {"steps": 5000}), UnsuitableError, "DQN needs Discrete actions"),
        ((td.DQN(), 4, TWO, {"steps": 5000}), UnsuitableError, "observation_space: int is none of gymnasium.spaces"),
        ((td.DQN(), gymnasium.spaces.Text(3), TWO, {"steps": 5000}), UnsuitableError, "Text spaces"),
        ((td.DQN(), BOX, gymnasium.spaces.Dict(), {"steps": 5000}), UnsuitableError, "Dict"),
        ((3, BOX, TWO, {"steps": 5000}), SettingError, "an algorithm is"),
    ],
)
def test_what_cannot_be_learned_is_refused(arguments, error, text):
    *positional, named = arguments
    with pytest.raises(error, match=text):
        td.Learner(*positional, **named)


def play(learner, numbers, ends=()):
    """Observations that are numbers, one after another; at those of `ends` all episodes end."""
    for number in numbers:
        learner.act(np.full((2, 2), number, np.float32))
        learner.observe([1.0, 1.0], np.full((2, 2), number + 1, np.float32), [number in ends] * 2, [False] * 2)


@pytest.mark.parametrize("how", ["truncated", "loaded elsewhere", "loaded there", "of one", "twice"])
@pytest.mark.parametrize("length", [4, 6])  # in the middle of a rollout, and at its end
def test_episodes_that_were_left_end_where_they_were_left(how, length, tmp_path):
    learner = begin(CUTTING, 200)
    play(learner, range(length))
    learner.act(np.full((2, 2), length))
    following = 100
    if how.startswith("loaded"):
        learner.save(tmp_path / "run")
        learner = td.Learner.load(tmp_path / "run")
        following = 100 if how == "loaded elsewhere" else length
    else:
        for _ in range(2 if how == "twice" else 1):
            learner.truncate([True, False] if how == "of one" else None)
    play(learner, range(following, following + 12 - length))
    arrays = saved_arrays(learner, tmp_path / "end")
    expected = np.zeros((12, 2), bool)
    expected[length - 1] = {"loaded there": [False, False], "of one": [True, False]}.get(how, [True, True])
    np.testing.assert_array_equal(arrays["memory/steps/truncated"], expected)
    length_now = np.where(expected[length - 1], 12 - length, 12)
    np.testing.assert_array_equal(arrays["episodes/length"], length_now)


def test_there_is_nothing_to_truncate_before_the_first_step_and_after_an_end(tmp_path):
    learner = begin(CUTTING, 200)
    learner.truncate()
    play(learner, range(6), ends=(2, 5))
    learner.truncate()
    play(learner, range(3))
    arrays = saved_arrays(learner, tmp_path / "run")
    assert not arrays["memory/steps/truncated"].any()
    assert len(arrays["memory/steps/truncated"]) == 9
    for wrong in ([True], [0, 1], "both", 1.0):
        with pytest.raises(SettingError, match="True or False for each of 2 environments"):
            learner.truncate(wrong)


def test_after_its_steps_a_learner_only_acts(tmp_path):
    learner = begin(CUTTING, 60)
    play(learner, range(30))
    assert learner.finished
    assert learner.steps == 60
    before = saved_arrays(learner, tmp_path / "run")
    play(learner, range(10))
    assert learner.steps == 60
    assert not learner._rollout.steps
    assert_equal(before, saved_arrays(learner, tmp_path / "again"))
    with pytest.raises(RunError, match="50 are not beyond that"):
        td.Learner.load(tmp_path / "run", steps=50)
    learner = td.Learner.load(tmp_path / "run", steps=90)
    play(learner, range(6))
    assert not learner.finished
    assert learner.steps == 72


def test_a_folder_is_a_run_folder_and_never_of_two(tmp_path):
    learner = begin(CUTTING, 60)
    play(learner, range(25))
    learner.save(tmp_path / "a/b")
    run = td.load(tmp_path / "a/b")
    greedy = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    np.testing.assert_array_equal(run.agent.act(greedy), learner.agent.act(greedy))
    with pytest.raises(RunError, match=r"learned in a loop of your own: td.Learner.load\("):
        td.resume(tmp_path / "a/b", environment="CartPole-v1")
    with pytest.raises(RunError, match="in a loop of your own: name an environment to play in"):
        run.evaluate(1)
    for folder in ("a", "c"):
        if folder == "c":
            begin(CUTTING, 60).save(tmp_path / "c")
        with pytest.raises(RunError, match=r"another run|exists already"):
            learner.save(tmp_path / folder)
    behind = td.Learner.load(tmp_path / "a/b")
    play(learner, range(3))
    learner.save(tmp_path / "a/b")
    play(behind, range(1))
    with pytest.raises(RunError, match="a later moment, step-000000056"):
        behind.save(tmp_path / "a/b")
    for path in (tmp_path / "a/b/checkpoints/step-000000056").glob("*.safetensors"):
        path.write_bytes(b"")  # then it is none that is whole, and no hindrance
    with pytest.warns(UserWarning, match="corrupted"):
        behind.save(tmp_path / "a/b")
    assert td.Learner.load(tmp_path / "a/b").steps == 52


@pytest.mark.parametrize("what", ["missing", "a run's", "empty", "a rollout of another"])
def test_what_is_no_learner_s_folder_is_refused(what, tmp_path):
    if what == "a run's":
        td.train(
            ALGORITHMS["reinforce"], "CartPole-v1", steps=1, run_dir=tmp_path / "run", quiet=True, evaluate_every=0
        )
    if what == "empty":
        (tmp_path / "run").mkdir()
    if what == "a rollout of another":
        learner = begin(CUTTING, 60)
        play(learner, range(2))
        learner._rollout.steps *= 2
        learner.save(tmp_path / "run")
    with pytest.raises(RunError, match=r"no learner's|not a run folder|does not fit"):
        td.Learner.load(tmp_path / "run")


def test_a_signal_waits_until_there_is_something_whole_to_save(monkeypatch, tmp_path):
    conclude = trainer._conclude_and_plan
    learner, untouched = begin(CUTTING, 60), begin(CUTTING, 60)
    play(untouched, range(24))
    play(learner, range(23))

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return conclude(*arguments)

    monkeypatch.setattr(trainer, "_conclude_and_plan", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    try:
        with pytest.raises(KeyboardInterrupt):
            play(learner, [23])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert_equal(saved_arrays(learner, tmp_path / "a"), saved_arrays(untouched, tmp_path / "b"))


def test_an_agent_stays_as_it_was_while_the_learner_goes_on():
    learner = begin(CUTTING, 100)
    play(learner, range(24))
    agent = learner.agent
    before = [np.array(leaf) for leaf in jax.tree.leaves(agent.state.network)]
    play(learner, range(24))
    for leaf, old, new in zip(
        jax.tree.leaves(agent.state.network), before, jax.tree.leaves(learner.agent.state.network), strict=True
    ):
        np.testing.assert_array_equal(leaf, old)
        assert (np.asarray(new) != old).any()


def test_learning_that_has_diverged_is_told():
    learner = begin(dataclasses.replace(ONE, learning_rate=3e38), 100)
    with pytest.warns(UserWarning, match=r"learning has diverged: .*policy_loss.* not finite"):
        play_one(learner, 40)  # how soon differs by processor


def play_one(learner, steps):
    """So many steps of one environment, of which each is an episode."""
    for _ in range(steps):
        learner.act(np.ones(2))
        learner.observe(1.0, np.ones(2), False, True)
