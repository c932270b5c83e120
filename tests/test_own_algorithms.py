"""Algorithms, memories and recipes of the user's own: they train, are saved, and come back where they are handed in."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from test_runs import OPTIONS, same_arrays
from thorndike import algorithms, cli
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.networks import Network

ROOT = Path(__file__).parents[1]
SMALL = {"network": td.MLP((4,)), "baseline_network": None, "num_environments": 2, "rollout_length": 8}
QUICK = OPTIONS | {"evaluate_every": 0}


@hyperparameters
class Louder(td.REINFORCE):
    """A subclass with a hyper-parameter of its own."""

    volume: float = setting(2.0, low=0)

    def update(self, state, batch, fraction, key):
        steps = batch.steps._replace(reward=self.volume * batch.steps.reward)
        state, metrics, feedback = super().update(state, batch._replace(steps=steps), fraction, key)
        return state, metrics | {"volume": self.volume}, feedback


@hyperparameters
class Forgetful(td.Latest):
    """A memory of one's own."""

    share: float = setting(0.5, low=0, high=1)


@hyperparameters
class Shallow(Network):
    """A recipe of one's own."""

    width: int = setting(3, low=1)

    def init(self, key, observation_space, outputs, gain=1.0):
        return td.MLP((self.width,)).init(key, observation_space, outputs, gain)


class State(NamedTuple):
    weights: jax.Array


@hyperparameters
class Lucky:
    """All that an algorithm has to have, and no more: it acts at random."""

    num_environments: int = 2
    rollout_length: int = 8
    updates_per_rollout: int = 1
    warmup_steps: int = 0
    memory: Any = Forgetful()

    def check(self, observation_space, action_space): ...

    def init(self, key, observation_space, action_space):
        return State(jnp.zeros(int(action_space.n)))

    def policy(self, state, fraction, explore=True):
        return state

    def initial_carry(self, n):
        return ()

    def act(self, policy, observation, carry, key):
        return jax.random.randint(key, observation.shape[:1], 0, len(policy.weights)), carry, {}

    def observe(self, state, trajectory):
        return state

    def restarted(self, state, begun):
        return state

    def update(self, state, batch, fraction, key):
        return State(state.weights + 1), {"weight": state.weights[0]}, ()


CASES = {
    "a subclass": (Louder(volume=3.0, **SMALL), {"algorithm": Louder}),
    "an object": (Louder(volume=3.0, **SMALL), {"algorithm": Louder(volume=7.0)}),
    "a class of one's own": (Lucky(memory=Forgetful(share=0.25)), {"algorithm": Lucky}),
    "a recipe": (td.REINFORCE(**SMALL | {"network": Shallow(width=5)}), {"network": Shallow}),
    "a recipe, as an object": (td.REINFORCE(**SMALL | {"network": Shallow(width=5)}), {"network": Shallow(width=5)}),
}


@pytest.mark.parametrize(("algorithm", "again"), CASES.values(), ids=CASES.keys())
def test_what_is_handed_in_again_comes_back_as_it_was(tmp_path, algorithm, again):
    folder = tmp_path / "run"
    run = td.train(algorithm, "CartPole-v1", 64, run_dir=folder, **QUICK)
    ((name, handed),) = again.items()
    kind = handed if isinstance(handed, type) else type(handed)
    refusal = "an algorithm of your own" if name == "algorithm" else f"a {name} of your own"
    for refused in (td.load, td.resume):
        with pytest.raises(td.RunError, match=f"{refusal}, '{__name__}:{kind.__name__}': hand in its class again"):
            refused(folder)
    loaded = td.load(folder, **again)
    assert loaded.configuration.algorithm == algorithm
    assert type(loaded.configuration.algorithm) is type(algorithm)
    for mine, theirs in zip(jax.tree.leaves(run.agent.state), jax.tree.leaves(loaded.agent.state), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    td.train(algorithm, "CartPole-v1", 128, run_dir=tmp_path / "whole", checkpoint_every=64, **QUICK)
    (tmp_path / "whole" / "summary.json").unlink()
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / "step-000000128")
    resumed = td.resume(tmp_path / "whole", quiet=True, **again)
    plain = td.train(algorithm, "CartPole-v1", 128, run_dir=tmp_path / "plain", **QUICK)
    assert resumed.summary["steps"] == 128
    same_arrays(resumed.folder, plain.folder, [0])


def test_a_memory_of_ones_own_is_handed_in_by_its_class(tmp_path):
    @hyperparameters
    class Diary(td.Replay):
        pages: int = setting(3, low=1)

    small = td.DQN(td.MLP((4,)), num_environments=2, rollout_length=8, updates_per_rollout=1, warmup_steps=16,
                   memory=Diary(capacity=64, batch_size=8, pages=5))  # fmt: skip
    td.train(small, "CartPole-v1", 64, run_dir=tmp_path, **QUICK)
    with pytest.raises(td.RunError, match=r"a memory of your own, .*Diary': hand in its class again, memory=Diary"):
        td.load(tmp_path)
    assert td.load(tmp_path, memory=Diary).configuration.algorithm == small
    assert td.load(tmp_path, algorithm=small).configuration.algorithm == small


def test_a_class_that_bears_the_name_of_one_of_ours_is_not_taken_for_it(tmp_path):
    mine = dataclasses.replace(Louder(**SMALL))
    renamed = hyperparameters(type("REINFORCE", (Louder,), {"__module__": __name__, "__doc__": "Mine."}))
    td.train(renamed(**SMALL), "CartPole-v1", 64, run_dir=tmp_path, **QUICK)
    with pytest.raises(td.RunError, match=f"an algorithm of your own, '{__name__}:REINFORCE'"):
        td.load(tmp_path)
    with pytest.raises(td.RunError, match=f"trained '{__name__}:REINFORCE', the algorithm handed in is Louder"):
        td.load(tmp_path, algorithm=mine)
    with pytest.raises(td.SettingError, match="algorithm= takes the class that was trained, got 'louder'"):
        td.load(tmp_path, algorithm="louder")
    assert isinstance(td.load(tmp_path, algorithm=renamed).configuration.algorithm, renamed)


class Undecorated(td.DQN):
    def update(self, state, batch, fraction, key):
        return super().update(state, batch, fraction, key)


@hyperparameters
class Recording(Lucky):
    """Records what is of the action, and what is not."""

    warmup_steps: int = 16
    what: str = "log_prob"

    def act(self, policy, observation, carry, key):
        action, carry, _ = super().act(policy, observation, carry, key)
        return action, carry, {self.what: jnp.zeros(len(action))}


class Bare:
    act = update = None


@hyperparameters
class Earlier(Lucky):
    """Written for what `update` once gave."""

    def update(self, state, batch, fraction, key):
        return State(state.weights + 1), {"weight": state.weights[0]}


@hyperparameters
class Incurious(Lucky):
    """Never asks whether to explore."""

    def policy(self, state, fraction):
        return state


@hyperparameters
class Undated(td.Replay):
    """Written for what `sample` once took."""

    def sample(self, ring, key):
        return super().sample(ring, key, 0.0)


@hyperparameters
class Unpacked(td.Replay):
    """Gives steps alone."""

    def sample(self, ring, key, fraction):
        return super().sample(ring, key, fraction).steps


@hyperparameters
class Exclusive(td.REINFORCE):
    """Records something of its own, and nothing else."""

    def act(self, policy, observation, carry, key):
        action, after, _ = super().act(policy, observation, carry, key)
        return action, after, {"mood": jnp.zeros(len(observation))}


class Plain(td.Replay):
    pass


BAD = {
    "a subclass without its decorator": (Undecorated, "write @hyperparameters above class Undecorated"),
    "a memory without its decorator": (td.DQN(memory=Plain()), "write @hyperparameters above class Plain"),
    "a class that lacks most": (Bare(), "Bare has no 'num_environments', which an algorithm has"),
    "an update without feedback": (Earlier(), r"Earlier.update must give \(state, metrics, feedback\), got 2 values"),
    "a policy without a word": (Incurious(), r"Incurious.policy must take \(state, fraction, explore\)"),
    "a memory without a word": (td.DQN(memory=Undated()), r"Undated.sample must take \(memory, key, fraction\)"),
    "a batch of steps alone": (td.DQN(memory=Unpacked()), "Unpacked.sample must give a Batch of thorndike.core"),
    "extras of an action that is not taken": (Recording(), "Recording.act records log_prob of the .*warmup_steps=0"),
    "extras instead of ours": (
        Exclusive(),
        r"looks for 'carry' among what Exclusive.act records, which is mood: .*adds",
    ),
    "priorities that nobody gives": (
        Lucky(memory=td.Prioritized(64, 8)),
        "Prioritized needs an algorithm that reports priorities, such as DQN: use Replay",
    ),
}


@pytest.mark.parametrize(("algorithm", "answer"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_trained_is_answered_in_one_line(tmp_path, algorithm, answer):
    with pytest.raises(td.SettingError, match=answer):
        td.train(algorithm, "CartPole-v1", 2_000, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("harmless", [{"what": "carry"}, {"warmup_steps": 0}])
def test_extras_that_are_those_of_the_step_are_recorded_warming_up_or_not(harmless):
    algorithms.check_learning(Recording(**harmless), spaces.Box(-1, 1, (3,)), spaces.Discrete(2))


MODULE = """
import thorndike as td
from thorndike import cli
from thorndike.hyperparameters import hyperparameters, setting

print("imported")

@hyperparameters
class Mine(td.REINFORCE):
    "A subclass."

    volume: float = setting(2.0, low=0)
"""


def test_the_command_takes_a_class_where_it_is_named_and_only_there(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    flags = ["--steps", "64", "--run-dir", "run", "--quiet", "true", "--evaluate-every", "0", "--rollout-length", "8"]
    flags += ["--num-environments", "2", "--baseline-network", "none", "--network.sizes", "4", "--volume", "5"]
    assert cli.main(["train", "own_module:Mine", "CartPole-v1", *flags]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())["algorithm"]
    assert (config["type"], config["volume"]) == ("own_module:Mine", 5.0)
    monkeypatch.delitem(sys.modules, "own_module")
    capsys.readouterr()
    assert cli.main(["evaluate", "run", "--episodes", "2"]) == 2
    assert "--algorithm own_module:Mine" in capsys.readouterr().err
    assert "own_module" not in sys.modules
    assert cli.main(["evaluate", "run", "--episodes", "2", "--algorithm", "own_module:Mine"]) == 0
    assert capsys.readouterr().out.startswith("imported")
    assert cli.main(["resume", "run", "--steps", "96", "--algorithm", "own_module:Mine", "--quiet", "true"]) == 0
    for wrong, answer in (("own_module:Other", "has no such class"), ("nowhere:Mine", "could not be imported")):
        assert cli.main(["train", wrong, "CartPole-v1", "--steps", "64"]) == 2
        said = capsys.readouterr().err
        assert answer in said
        assert len(said.strip().splitlines()) == 1


def test_the_current_folder_is_on_the_path_only_while_a_named_module_is_imported(tmp_path, monkeypatch):
    (tmp_path / "named_alone.py").write_text("import thorndike\n\n\nclass Mine(thorndike.DQN):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert cli._algorithm("named_alone:Mine").__name__ == "Mine"
    assert sys.path == before


TYPED = """
from typing import Any

import jax

import thorndike as td
from thorndike.core import Algorithm, Batch, Memory
from thorndike.hyperparameters import hyperparameters


@hyperparameters
class Mine(td.DQN):
    def update(self, state: Any, batch: Batch, fraction: jax.Array, key: jax.Array) -> Any:
        return super().update(state, batch, fraction, key)


algorithm: Algorithm = Mine()
memory: Memory = td.Prioritized()
"""


@pytest.mark.full
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("", ""), ("fraction: jax.Array, ", ""), ("-> Any", "-> tuple[Any, dict]"), ("td.Prioritized()", "td.DQN()")],
)
def test_a_checker_of_types_says_what_breaks_the_contract(tmp_path, right, wrong):
    (tmp_path / "mine.py").write_text(TYPED.replace(right, wrong))
    options = [
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--disable-error-code=override",
        "--disable-error-code=misc",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(tmp_path / "mine.py")], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"MYPYPATH": str(ROOT / "src")},
    )  # fmt: skip
    broken = [line for line in done.stdout.splitlines() if "mine.py" in line and "Incompatible types in assign" in line]
    assert len(broken) == (right != ""), done.stdout
