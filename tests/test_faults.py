"""What goes wrong on the way is said plainly, once, and before it can do harm."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import threading
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import endurance
import thorndike as td
from thorndike import algorithms, cli, trainer
from thorndike.environments import make
from thorndike.runs import checkpoints, interrupts

TINY = td.MLP((4,))
PPO = td.PPO(network=TINY, critic_network=TINY, num_environments=2, rollout_length=8, batch_size=16, epochs=1)
QUIET: dict[str, Any] = {"quiet": True, "evaluate_every": 0}


@dataclass(frozen=True)
class Counter:
    """Counts the steps of an episode; `break_at` gives a reward that is no number, `kind` breaks the contract."""

    break_at: int = 1000
    kind: str = ""
    reward: float = 1.0
    max_steps: int | None = 20

    observation_space: ClassVar = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space: ClassVar = gymnasium.spaces.Discrete(2)

    def initial(self, key):
        return jnp.zeros(1)

    def observe(self, state):
        return state

    def transition(self, state, action, key):
        reward = jnp.where(state[0] == self.break_at, jnp.nan, self.reward)
        return {
            "": (state + 1, reward, jnp.zeros((), bool)),
            "four": (state + 1, reward, jnp.zeros((), bool), {}),
            "no reward": (state + 1, None, jnp.zeros((), bool)),
            "long reward": (state + 1, state, jnp.zeros((), bool)),
            "no flag": (state + 1, reward, None),
            "other state": (jnp.zeros(2), reward, jnp.zeros((), bool)),
        }[self.kind]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("four", "must return .state, reward, terminated., gave 4 values"),
        ("no reward", "must give one number as reward and no axes, gave nothing"),
        ("long reward", r"must give one number as reward and no axes, gave float\d\d\[1\]"),
        ("no flag", "as terminated"),
        ("other state", r"was given the state float\d\d\[1\] and made float\d\d\[2\] of it"),
    ],
)
def test_a_transition_that_breaks_the_contract_is_answered_in_words(kind, said):
    with pytest.raises(td.EnvironmentFault, match=rf"Counter\.transition .*{said}|{said}"):
        td.train(PPO, Counter(kind=kind), 100, run_dir=None, **QUIET)


def test_a_reward_that_is_no_number_in_an_evaluation_stops_the_run():
    """Training, in rollouts of 8 steps with episodes of 20, meets step 15 only after the evaluation has."""
    with pytest.raises(td.EnvironmentFault, match="in an evaluation, copy 0, step 16"):
        td.train(PPO, Counter(break_at=15), 16, run_dir=None, quiet=True, evaluate_every=16)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("normalized", [False, True])
def test_rewards_out_of_scale_are_pointed_out_once(normalized):
    algorithm = dataclasses.replace(PPO, normalize_rewards=normalized)
    with (
        contextlib.nullcontext()
        if normalized
        else pytest.warns(UserWarning, match="try normalize_rewards=True") as told
    ):
        td.train(algorithm, Counter(reward=1e7), 64, run_dir=None, **QUIET)
    assert normalized or len(told) == 1


def test_an_evaluation_looks_at_nothing_after_an_episodes_end():
    run = td.train(PPO, Counter(break_at=15, max_steps=10), 16, run_dir=None, quiet=True, evaluate_every=16)
    assert run.summary["evaluation"]["mean"] == 10


class Hidden(gymnasium.Env):
    """Draws what no seed reaches."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    generator = np.random.default_rng()

    def reset(self, *, seed=None, options=None):
        return self.generator.normal(size=1).astype(np.float32), {}

    def step(self, action):
        return self.generator.normal(size=1).astype(np.float32), 0.0, False, False, {}


def test_a_run_that_cannot_go_on_exactly_says_so(tmp_path):
    td.train(PPO, Hidden, 64, run_dir=tmp_path / "run", **QUIET)
    with pytest.warns(UserWarning, match=r"seed 0 does not go on exactly as it was: copy 0 .*and 1 more"):
        td.resume(tmp_path / "run", 96, environment=Hidden, quiet=True)
    history = json.loads((tmp_path / "run" / "config.json").read_text())["history"]
    assert "inexact" not in history[0]
    assert [note[:14] for note in history[1]["inexact"]] == ["seed 0: copy 0", "seed 0: copy 1"]


@pytest.mark.filterwarnings("error")
def test_a_run_that_goes_on_exactly_says_nothing(tmp_path):
    td.train(PPO, "gymnasium:CartPole-v1", 64, run_dir=tmp_path / "run", **QUIET)
    run = td.resume(tmp_path / "run", 96, quiet=True)
    assert "inexact" not in run.configuration.history[-1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dqn CartPol-v1", "Did you mean 'CartPole-v1'"),
        ("dqn Pendulum-v1", "These fit: ppo"),
        ("dqn Acrobot-v1", "--steps 50_000"),
        ("dqn CartPole-v1 --seed 4294967296", "a seed is a whole number"),
        ("dqn CartPole-v1 --network cnn", "CNN needs an image"),
    ],
)
def test_what_cannot_be_is_said_before_a_folder_is_made(line, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *line.split()]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("algorithm", "environment", "fitting"),
    [
        (td.DQN(), "Pendulum-v1", "ppo, reinforce, sac, td3, ddpg, redq, droq, tqc, crossq"),
        (td.SAC(), "CartPole-v1", "dqn, ppo, reinforce"),
        (td.SAC(network=td.CNN()), "Pendulum-v1", ""),
        (td.PPO(network=td.CNN()), "CartPole-v1", ""),
        (td.PPO(critic_network=td.CNN()), "CartPole-v1", ""),
    ],
)
def test_what_is_said_to_fit_fits_and_is_never_what_has_refused(algorithm, environment, fitting):
    with pytest.raises(td.UnsuitableError) as caught:
        td.train(algorithm, environment, 100, run_dir=None, **QUIET)
    said = str(caught.value).partition("These fit: ")[2]
    named = said.split(", ")
    assert set(fitting.split(", ")) <= set(named)
    assert type(algorithm).__name__.lower() not in named
    made = make(environment, 1)
    for name in named if said else ():
        algorithms.get(name)().check(made.observation_space, made.action_space)
    assert "CNN needs an image" in str(caught.value) or said


def test_what_refuses_for_its_settings_is_not_named_for_its_defaults(monkeypatch):
    def check(self, observation_space, action_space):
        if self.num_environments == PPO.num_environments:
            raise td.UnsuitableError("not so many copies")

    monkeypatch.setattr(td.PPO, "check", check)
    with pytest.raises(td.UnsuitableError, match=r"not so many copies. These fit: dqn, c51, .*reinforce"):
        td.train(PPO, "CartPole-v1", 100, run_dir=None, **QUIET)


class Leaves(Hidden):
    """Ends the process in its first step, or tries to."""

    def step(self, action):
        raise SystemExit(0)


def test_an_environment_that_wants_to_exit_ends_the_run_with_a_fault():
    with pytest.raises(td.EnvironmentFault, match=r"copy 0, episode seed \d+, step 1: SystemExit: 0"):
        td.train(PPO, Leaves, 64, run_dir=None, **QUIET)


def test_an_object_that_was_changed_is_trained_in_as_it_is():
    environment = gymnasium.make("CartPole-v1")
    environment.unwrapped.length = 40.0
    with pytest.raises(td.SettingError, match=r"'length' differs.*lambda: make_mine\(\)"):
        td.train(PPO, environment, 64, run_dir=None, **QUIET)


def test_evaluating_in_another_kind_of_environment_is_refused(tmp_path):
    td.train(PPO, "CartPole-v1", 16, run_dir=tmp_path / "run", **QUIET)
    with pytest.raises(td.RunError, match="observation_space"):
        td.load(tmp_path / "run", environment="Acrobot-v1").evaluate(2)
    assert td.load(tmp_path / "run", environment="gymnasium:CartPole-v1").evaluate(2)["episodes"] == 2


def test_learning_that_has_diverged_ends_the_run():
    with pytest.raises(td.RunError, match=r"diverged.*at step 64 of seed 0.*smaller learning_rate"):
        td.train(Diverging(**vars(PPO)), "CartPole-v1", 64, run_dir=None, **QUIET)


class Diverging(td.PPO):
    def update(self, state, batch, fraction, key):
        state, metrics, feedback = super().update(state, batch, fraction, key)
        return state, metrics | {"value_loss": jnp.where(fraction > 0.5, jnp.nan, metrics["value_loss"])}, feedback


jax.tree_util.register_static(Diverging)


def test_a_save_that_fails_ends_the_run_and_says_which_checkpoint_is_whole(tmp_path, monkeypatch):
    save, left = checkpoints.Writer.commit, [1]

    def full(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*arguments)

    monkeypatch.setattr(checkpoints.Writer, "commit", full)
    with pytest.raises(td.RunError) as caught:
        td.train(PPO, Counter(), 64, run_dir=tmp_path / "run", checkpoint_every=16, **QUIET)
    assert "step-000000016" in caught.value.args[0]
    assert not (tmp_path / "run" / "summary.json").exists()


def test_many_seeds_take_one_thread_for_each_core():
    before, most, seen = threading.active_count(), 0, []
    copies = make("CartPole-v1", 2)
    for chunk in trainer.train(PPO, lambda: copies, 16, seeds=12, parallel="threads"):
        most = max(most, threading.active_count())
        seen.append(chunk.seed)
    assert sorted(set(seen)) == list(range(12))
    assert most - before <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ("CartPole-v1", r"thorndike resume \S+run$"),
        ("gymnasium:CartPole-v1", r"thorndike resume \S+run$"),
        (Hidden, r"td\.resume\('\S+run', environment=\.\.\.\)$"),
    ],
)
def test_a_run_that_was_stopped_says_how_exactly_to_go_on(environment, said, tmp_path, monkeypatch):
    interrupt_at_once(monkeypatch)
    with pytest.raises(KeyboardInterrupt, match=said):
        td.train(PPO, environment, 64, run_dir=tmp_path / "run", **QUIET)


def test_an_end_that_is_not_beyond_the_last_checkpoint_is_refused(tmp_path, monkeypatch):
    interrupt_at_once(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        td.train(PPO, "gymnasium:CartPole-v1", 64, run_dir=tmp_path / "run", **QUIET)
    monkeypatch.undo()
    with pytest.raises(td.RunError, match="is at 16 steps already: 16 are not beyond that"):
        td.resume(tmp_path / "run", 16, quiet=True)
    assert td.resume(tmp_path / "run", 32, quiet=True).summary["steps"] == 32


def interrupt_at_once(monkeypatch):
    def enter(self):
        self.pending = signal.SIGINT
        return self

    monkeypatch.setattr(interrupts.Interrupts, "__enter__", enter)


@pytest.mark.parametrize("environment", ["CartPole-v1", "gymnasium:CartPole-v1"])
def test_a_run_that_goes_on_holds_no_more(environment, tmp_path):
    """Counted; `make faults` also weighs the memory, at length."""
    with endurance.held() as found:
        td.train(PPO, environment, 1_920, run_dir=tmp_path / "run", quiet=True, evaluate_every=160, evaluate_episodes=1)
    settled = endurance.settled(found)
    assert len(settled) > 20
    assert endurance.growing(settled) == {}
