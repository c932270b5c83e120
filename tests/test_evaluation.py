"""Evaluation belongs to the run: what it may cost, what it counts, and that nothing is lost by it."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import re
import signal
from typing import Any, ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import thorndike as td
from thorndike import evaluation, trainer
from thorndike.environments import make
from thorndike.evaluation import Plan, Played, evaluate, longest_episode, summarize
from thorndike.interface import console
from thorndike.runs import checkpoints, records

TINY = td.MLP((4,))
PPO = td.PPO(network=TINY, critic_network=TINY, num_environments=2, rollout_length=8, batch_size=16, epochs=1)
ALONE = dataclasses.replace(PPO, num_environments=1, batch_size=8)  # one copy of the environment
OFF_POLICY = td.DQN(
    network=TINY, num_environments=1, rollout_length=8, updates_per_rollout=1, warmup_steps=16,
    memory=td.Replay(capacity=128, batch_size=8, window=3),
)  # fmt: skip


class Line(gymnasium.Env):
    """Ends after a number of steps drawn at the reset, or never; counts what is done with all of its kind."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    longest: int | None = 20
    made = stepped = closed = after_the_end = 0

    def __init__(self):
        type(self).made += 1

    def __init_subclass__(cls):
        cls.made = cls.stepped = cls.closed = cls.after_the_end = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length = self.np_random.integers(2, self.longest + 1) if self.longest else np.inf
        self.t = 0
        return self.seen(), {}

    def step(self, action):
        type(self).stepped += 1
        type(self).after_the_end += self.t >= self.length
        self.t += 1
        return self.seen(), 1.0, self.t >= self.length, False, {}

    def close(self):
        type(self).closed += 1

    def seen(self):
        return np.array([self.t / 10], np.float32)


@dataclasses.dataclass(frozen=True)
class CompiledLine:
    """The same, compiled: ends after `length` steps."""

    length: int = 2**30
    max_steps: int | None = None
    observation_space: ClassVar = Line.observation_space
    action_space: ClassVar = Line.action_space

    def initial(self, key):
        return jnp.zeros(1)

    def observe(self, state):
        return state

    def transition(self, state, action, key):
        return state + 1, jnp.float32(1), state[0] + 1 >= self.length


def fresh(name="Fresh", **attributes: Any) -> type[Line]:
    """A `Line` whose counters are its own."""
    return type(name, (Line,), attributes)


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_evaluations_on_the_host_take_no_more_steps_than_training_and_a_quarter_on_the_way():
    """Whatever training has seen (here, the least), and however long the greedy episodes are."""
    cases = itertools.product((10, 97, 1_000, 50_000), (1, 25, 500, 10_000), (0, 1, 9), (1, 30, 10_000))
    for steps, longest, moments, length in cases:
        plan, used, seen = Plan(steps, moments, longest, limited=True), 0, 1
        for moment in range(1, moments + 1):
            chosen = plan.on_the_way(moment, used, seen)
            if chosen is not None:
                episodes, cut = chosen
                assert 1 <= episodes <= 10
                assert 1 <= cut <= longest
                used += episodes * min(length, cut)
                seen = max(seen, min(length, cut))
        assert used <= steps // 4
        episodes, cut = plan.at_the_end(used, seen)
        assert 5 <= episodes <= 100
        assert used + episodes * min(length, cut) <= max(steps, 5)  # five episodes take five steps at least


def test_fewer_episodes_come_before_fewer_evaluations():
    plan = Plan(10_000, 9, 10_000, limited=True)
    assert plan.on_the_way(1, 0, 10)[0] == 10  # 277 steps allowed, 10 x 20 expected
    assert plan.on_the_way(1, 0, 40)[0] == 3
    assert plan.on_the_way(1, 0, 200) is None
    assert plan.on_the_way(2, 0, 200)[0] == 1  # what was not used is still there
    assert plan.at_the_end(0, 10)[0] == 100
    assert plan.at_the_end(0, 5_000) == (5, 2_000)


def test_what_the_user_sets_is_obeyed_and_its_cost_said():
    often = Plan(1_000, 99, 500, limited=True, moments_are_set=True, episodes=10, final_episodes=50)
    assert often.on_the_way(1, 10**6, 500) == (10, 500)
    assert often.at_the_end(10**6, 500) == (50, 500)
    assert often.cost == "evaluation takes at most 520,000 steps, 520.0 times training's"
    assert Plan(1_000, 9, 500, limited=True).cost == "evaluation takes at most 1,000 steps"
    assert Plan(1_000, 9, 500, limited=True, moments_are_set=True).on_the_way(9, 10**6, 500) == (1, 500)


def test_compiled_environments_play_ten_and_a_hundred():
    plan = Plan(1_000, 9, 500)
    assert plan.on_the_way(1, 10**6, 500) == (10, 500)
    assert plan.at_the_end(10**6, 500) == (100, 500)
    assert plan.cost == ""


def test_an_episode_may_take_as_many_steps_as_one_of_training():
    assert longest_episode(None, 1_250) == 1_250
    assert longest_episode(None, 10**6) == 10_000
    assert longest_episode(500, 10) == 500
    assert longest_episode(10**6, 10) == 10_000


@pytest.mark.parametrize("longest", [None, 20], ids=["endless", "short"])
def test_a_run_on_the_host_makes_few_copies_once_and_no_step_too_many(longest):
    kind = fresh(longest=longest)
    run = td.train(PPO, kind, 640, run_dir=None, quiet=True)
    taken = kind.stepped - 640
    assert taken == np.nansum(run.metrics["evaluation_steps"]) <= 640
    assert kind.made == kind.closed == 2 * PPO.num_environments
    assert kind.after_the_end == 0
    greedy = run.summary["evaluation"]
    assert greedy["episodes"] == 5 if longest is None else greedy["episodes"] > 10
    assert greedy["unfinished"] == (5 if longest is None else 0)


def test_programs_of_the_host_are_compiled_once_however_many_evaluations(caplog):
    algorithm = dataclasses.replace(PPO, network=td.MLP((5,)))  # no other test has compiled it
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        td.train(algorithm, fresh(), 640, run_dir=None, quiet=True)
    compiled = re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text)
    assert {name: compiled.count(name) for name in ("act", "_conclude_and_plan", "_greedy")} == {
        "act": 1, "_conclude_and_plan": 1, "_greedy": 1,
    }  # fmt: skip


def test_the_cost_is_said_before_the_run_begins(capsys):
    td.train(PPO, fresh(longest=None), 320, run_dir=None, evaluate_every=160, evaluate_episodes=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "evaluation takes at most 400 steps, 1.2 times training's"
    assert "unfinished" in lines[-1]


# --- what it counts ---------------------------------------------------------------------------------------------------


def state_of(algorithm, environment):
    return algorithm.init(jax.random.key(0), environment.observation_space, environment.action_space)


@pytest.mark.parametrize(("copies", "episodes"), [(3, 7), (4, 2), (1, 5)])
def test_every_copy_plays_its_share_and_then_rests(copies, episodes):
    kind = fresh()
    environment = make(kind, copies)
    played = evaluate(PPO, environment, state_of(PPO, environment), jax.random.key(1), episodes)
    assert played.finished.all()
    np.testing.assert_array_equal(played.returns, played.lengths)
    assert kind.stepped == played.lengths.sum()
    assert kind.after_the_end == 0
    assert len(set(played.lengths.tolist())) > 1


def test_the_cut_into_unrolls_changes_nothing(monkeypatch):
    environment = make(fresh(), 3)
    state = state_of(PPO, environment)
    whole = evaluate(PPO, environment, state, jax.random.key(1), 7)
    monkeypatch.setattr(evaluation, "SHORT", 1)
    again = evaluate(PPO, environment, state, jax.random.key(1), 7)
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", [fresh(longest=None), CompiledLine(), "envpool:CartPole-v1"], ids=str)
def test_what_does_not_end_is_cut_and_counted_as_unfinished(kind):
    if kind == "envpool:CartPole-v1":
        pytest.importorskip("envpool")
    environment = make(kind, 2)
    played = evaluate(PPO, environment, state_of(PPO, environment), jax.random.key(1), 5, max_steps=7)
    np.testing.assert_array_equal(played.lengths, 7)
    assert played.unfinished == 5


def test_what_ends_in_its_last_step_is_finished():
    environment = make(CompiledLine(length=7), 2)
    played = evaluate(PPO, environment, state_of(PPO, environment), jax.random.key(1), 3, max_steps=7)
    assert played.unfinished == 0


def test_episodes_that_were_cut_are_recorded_and_shown(tmp_path, capsys):
    run = td.train(PPO, fresh(longest=None), 320, run_dir=tmp_path / "run")
    assert run.summary["evaluation"]["unfinished"] == run.summary["evaluation"]["episodes"] == 5
    assert records.read(tmp_path / "run")[-1]["evaluation_unfinished"] == 5
    assert "over 5 episodes, 5 of them unfinished" in capsys.readouterr().out
    assert td.load(tmp_path / "run", environment=fresh(longest=None)).evaluate(3)["unfinished"] == 3


def test_evaluating_again_plays_other_episodes():
    run = td.train(PPO, fresh(), 160, run_dir=None, quiet=True, final_episodes=20)
    again = run.evaluate(20)
    assert again["episodes"] == 20
    assert again == run.evaluate(20)
    assert len({tuple(each["per_seed"]) for each in (again, run.evaluate(20, seed=1), run.summary["evaluation"])}) == 3


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One step long: its reward is a number drawn at the reset, and 1 more for action 1."""

    max_steps: int | None = None
    observation_space: ClassVar = Line.observation_space
    action_space: ClassVar = Line.action_space

    def initial(self, key):
        return jax.random.uniform(key, (1,))

    def observe(self, state):
        return state

    def transition(self, state, action, key):
        return state, state[0] + action, jnp.bool_(True)


class DrawnOnHost(Line):
    """The same, on the host."""

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        self.drawn = self.np_random.uniform()
        return self.seen(), info

    def step(self, action):
        return self.seen(), self.drawn + action, True, False, {}


def likelier(parameters, x):
    return jnp.tile(parameters["logits"], (len(x), 1))


@pytest.mark.parametrize("kind", [Drawn(), DrawnOnHost], ids=["compiled", "host"])
def test_every_episode_is_greedy_and_another_one(kind):
    """Action 1 is hardly likelier than action 0, and always taken; four batches of three draw anew."""
    network = (lambda key, seen, outputs: {"logits": jnp.array([[0.0, 0.1, 0.0]])}, likelier)
    algorithm = dataclasses.replace(PPO, network=network, critic_network=None)
    environment = make(kind, 3)
    returns = evaluate(algorithm, environment, state_of(algorithm, environment), jax.random.key(1), 12).returns
    assert ((returns >= 1) & (returns < 2)).all()  # and nothing after the end is counted
    assert len(np.unique(returns)) == 12


def test_no_key_of_an_evaluation_is_one_of_training_or_of_another_evaluation():
    numbers = [(seed, iteration) for seed in (0, 1, 7) for iteration in (1, 2, 30)]
    keys = [evaluation.evaluation_key(*each, again) for each in numbers for again in (None, 0, 1)]
    for seed, iteration in numbers:
        start_key, run_key, _ = trainer.keys_of(seed)
        keys += [jax.random.fold_in(key, iteration) for key in (start_key, run_key)]
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == len(keys)


@pytest.mark.parametrize("seeds", [10, 23])
def test_statistics_over_seeds_are_their_definitions(seeds):
    rng = np.random.default_rng(seeds)
    returns = [rng.gamma(2.0, size=int(count)) for count in rng.integers(3, 9, seeds)]
    found, means = summarize(returns), np.array([each.mean() for each in returns])
    np.testing.assert_allclose(found["mean"], means.mean())
    np.testing.assert_allclose(found["std"], np.sqrt(np.square(means - means.mean()).sum() / (seeds - 1)))
    np.testing.assert_allclose(found["episode_std"], np.concatenate(returns).std(ddof=1))
    np.testing.assert_allclose(found["iqm"], scipy.stats.trim_mean(means, 0.25))
    resampled = scipy.stats.trim_mean(rng.choice(means, (20_000, seeds)), 0.25, axis=1)
    within = (found["ci95"][0] <= resampled) & (resampled <= found["ci95"][1])
    assert abs(within.mean() - 0.95) < 0.02  # of other resamples


def test_an_interval_takes_five_seeds(capsys):
    few, enough = (summarize([np.arange(3.0) + i for i in range(seeds)]) for seeds in (4, 5))
    assert (few["iqm"], few["ci95"]) == (None, None)
    assert few["std"] > 0
    assert enough["ci95"][0] < enough["iqm"] == enough["mean"] < enough["ci95"][1]
    td.train(PPO, CompiledLine(length=3), 32, seeds=2, run_dir=None, evaluate_every=32)
    assert "2 seeds are too few for an interval" in capsys.readouterr().out


# --- nothing is lost --------------------------------------------------------------------------------------------------


class DuringEvaluation(console.Silence):
    """A display that sends a signal when a certain evaluation begins."""

    def __init__(self, number, at):
        self.number, self.left = number, at

    def evaluating(self, seed):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)


def timeless(folder):
    rows = sorted(records.read(folder), key=lambda row: (row["seed"], row["steps"]))
    return [{k: v for k, v in row.items() if k not in ("seconds", "steps_per_second")} for row in rows]


def same_run(first, second):
    assert timeless(first) == timeless(second)
    a, b = (checkpoints.newest(folder / "checkpoints") for folder in (first, second))
    assert {s: e.get("results") for s, e in a.seeds.items()} == {s: e.get("results") for s, e in b.seeds.items()}
    for seed in a.seeds:
        arrays = b.arrays(seed)
        for name, array in a.arrays(seed).items():
            np.testing.assert_array_equal(array, arrays[name], err_msg=name)


@pytest.fixture(scope="module", params=["host", "compiled"])
def whole(request, tmp_path_factory):
    """A run that was never stopped, of two seeds: how to make it, and its folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    kind = fresh() if request.param == "host" else CompiledLine(length=9)
    arguments = {"steps": 160, "seeds": 2, "quiet": True, "final_episodes": 4, "evaluate_every": 48}
    td.train(PPO, kind, run_dir=folder, **arguments)
    return kind, arguments, folder


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
@pytest.mark.parametrize("at", [1, 4, 5, 8])  # on the way, at the end; the last at the end of all
def test_a_signal_during_an_evaluation_stops_at_once_and_loses_nothing(tmp_path, monkeypatch, whole, number, error, at):
    if number == signal.SIGTERM and at not in (4, 8):
        pytest.skip("the signal's number changes nothing else")
    kind, arguments, folder = whole
    with monkeypatch.context() as patch:
        patch.setattr(console, "display", lambda story, quiet: DuringEvaluation(number, at))
        with pytest.raises(error) as caught:
            td.train(PPO, kind, run_dir=tmp_path / "run", **arguments)
    assert "td.resume" in str(caught.value.args[0]) if error is KeyboardInterrupt else caught.value.code == 143
    assert not (tmp_path / "run" / "summary.json").exists()
    run = td.resume(tmp_path / "run", environment=kind, quiet=True)
    same_run(tmp_path / "run", folder)
    assert run.summary["evaluation"]["episodes"] == 8


def test_a_signal_after_the_end_is_not_lost(tmp_path, monkeypatch):
    class AtTheVeryEnd(console.Silence):
        def evaluated(self, seed, mean, unfinished):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(console, "display", lambda story, quiet: AtTheVeryEnd())
    with pytest.raises(SystemExit):
        td.train(PPO, fresh(), 32, run_dir=tmp_path / "run", quiet=True, evaluate_every=32)
    assert (tmp_path / "run" / "summary.json").exists()


class Failing(Line):
    def step(self, action):
        raise ValueError("the level is missing")


def test_what_fails_in_an_evaluation_finds_its_moment_saved_and_says_how_to_go_on(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(td.EnvironmentFault, match="level is missing") as caught:
        td.train(PPO, fresh(), 160, run_dir=folder, quiet=True, evaluation_environment=Failing, evaluate_every=48)
    saved = checkpoints.newest(folder / "checkpoints")
    assert saved.manifest["steps"] == 48
    assert f"The last checkpoint is {saved.path.name};" in caught.value.args[0]
    assert f"td.resume('{folder}', environment=..., evaluation_environment=...)" in caught.value.args[0]
    run = td.resume(folder, environment=Line, evaluation_environment=Line, quiet=True)
    straight = td.train(PPO, fresh(), 160, run_dir=tmp_path / "straight", quiet=True, evaluate_every=48)
    assert timeless(folder) == timeless(tmp_path / "straight")
    assert run.summary["evaluation"] == straight.summary["evaluation"]


def test_a_fault_without_a_folder_says_that_nothing_was_saved():
    with pytest.raises(td.EnvironmentFault, match="Nothing was saved"):
        td.train(PPO, Failing, 32, run_dir=None, quiet=True)


# --- where it plays ---------------------------------------------------------------------------------------------------


def test_another_environment_than_trained_in(tmp_path):
    longer = fresh("Longer", longest=60)
    run = td.train(PPO, Line, 320, run_dir=tmp_path / "run", quiet=True, evaluation_environment=longer)
    assert run.summary["evaluation"]["mean"] > 20 > run.summary["training"]["mean"]
    assert run.evaluate(20)["mean"] > 20
    loaded = td.load(tmp_path / "run", environment=Line)
    with pytest.raises(td.RunError) as caught:
        loaded.evaluate(20)
    assert "has an evaluation_environment of your own, 'Longer': hand it in again" in caught.value.args[0]
    assert td.load(tmp_path / "run", environment=Line, evaluation_environment=longer).evaluate(20) == run.evaluate(20)
    with pytest.raises(td.RunError, match="the evaluation_environment does not fit"):
        td.train(PPO, Line, 320, run_dir=None, quiet=True, evaluation_environment="CartPole-v1")


def single(**attributes: Any) -> type[Line]:
    """A kind of which only one may be open at a time."""

    def __init__(self):
        if type(self).made > type(self).closed:
            raise OSError("the port is in use")
        Line.__init__(self)

    return fresh("Single", __init__=__init__, **attributes)


@pytest.mark.parametrize("algorithm", [ALONE, OFF_POLICY], ids=["ppo", "dqn"])
def test_the_only_copy_of_an_environment_serves_training_and_evaluation_in_turn(tmp_path, capsys, algorithm):
    kind = single()
    run = td.train(algorithm, kind, 320, run_dir=tmp_path / "whole", seeds=2)
    assert kind.made == kind.closed == 1
    assert kind.after_the_end == 0
    assert run.summary["evaluation"]["episodes"] >= 10
    assert capsys.readouterr().out.count("evaluations play in the one copy that there is") == 1
    assert "port is in use" in run.configuration.history[-1]["evaluation"]


def test_copies_that_evaluation_cannot_have_are_missed_at_once():
    kind = fresh("Scarce", __init__=lambda self: scarce(self))

    def scarce(self):
        if type(self).made == PPO.num_environments:
            raise OSError("no more licences")
        Line.__init__(self)

    with pytest.raises(
        td.EnvironmentFault, match=r"for evaluations cannot be made: .*no more licences.*evaluate_every=0"
    ):
        td.train(PPO, kind, 320, run_dir=None, quiet=True)
    assert (kind.made, kind.closed, kind.stepped) == (2, 2, 0)


@pytest.mark.parametrize("stop_at", [2, 5])
def test_a_run_with_the_only_copy_resumes_exactly(tmp_path, monkeypatch, stop_at):
    td.train(OFF_POLICY, single(), 320, run_dir=tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(console, "display", lambda story, quiet: DuringEvaluation(signal.SIGINT, stop_at))
        with pytest.raises(KeyboardInterrupt):
            td.train(OFF_POLICY, single(), 320, run_dir=tmp_path / "parts", quiet=True)
    td.resume(tmp_path / "parts", environment=single(), quiet=True)
    same_run(tmp_path / "parts", tmp_path / "whole")


def test_an_evaluation_in_the_only_copy_cuts_the_running_episode_as_a_truncation():
    algorithm = dataclasses.replace(OFF_POLICY, warmup_steps=0)
    kind = single(longest=None)
    for chunk in trainer.train(algorithm, lambda: make(kind, 1), 64, lend_every=4):
        steps = chunk.progress.memory.steps
        cut = np.flatnonzero(np.asarray(steps.truncated)[:, 0]).tolist()
        assert cut == ([31] if chunk.iteration >= 4 else [])
        if chunk.iteration == 4:
            evaluate(algorithm, chunk.environment, chunk.progress.state, jax.random.key(0), 3, max_steps=5)
    assert not np.asarray(steps.terminated).any()
    seen = np.asarray(steps.observation)[:64, 0, 0] * 10
    np.testing.assert_allclose(seen, [*range(32), *range(32)], atol=1e-4)


def test_a_function_that_always_gives_the_same_environment_is_known_at_once(tmp_path):
    environment = Line()
    with pytest.raises(td.SettingError, match="a new one at every call"):
        td.train(PPO, lambda: environment, 320, run_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    run = td.train(ALONE, lambda: environment, 320, run_dir=None, quiet=True)  # one copy is all that is needed
    assert run.summary["evaluation"]["episodes"] >= 5


@pytest.mark.filterwarnings("error")
def test_an_object_that_cannot_be_made_again_trains_and_is_evaluated_itself():
    environment = fresh()()
    environment.longest = 7  # no second one would have it
    run = td.train(ALONE, environment, 320, run_dir=None, quiet=True)
    assert np.nanmax(run.metrics["evaluation_longest"]) <= 7
    assert (type(environment).made, type(environment).closed) == (1, 0)
    with pytest.raises(td.SettingError, match="num_environments=1"):
        td.train(PPO, environment, 320, run_dir=None, quiet=True)


# --- what cannot learn ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [td.train, td.training])
def test_a_run_that_would_end_in_its_warm_up_is_refused(start):
    with pytest.raises(td.SettingError, match=r"16 steps are all warm-up.*DQN's warmup_steps is 16"):
        start(OFF_POLICY, Line, 16)


def test_played_episodes_count_those_that_were_cut():
    assert Played(np.zeros(3), np.zeros(3), np.array([True, False, False])).unfinished == 2
