"""The command: every field a flag, other libraries' words answered, one line and exit code 2 for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import hypothesis
import numpy as np
import pytest

import thorndike as td
from strategies import CANARY, answer_to_call, answer_to_command, began, calls, commands
from thorndike import algorithms, cli, names, settings, trainer
from thorndike.interface import words
from thorndike.networks import CNN, MLP, Same


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the command asks of `td.train`, instead of training."""
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(td, "train", lambda *a, **k: calls.append((a, k)))

    def ask(line):
        calls.clear()
        assert cli.main(line.split()) == 0
        (algorithm, environment), options = calls[0]
        return algorithm, environment, options

    return ask


def test_without_flags_the_recorded_settings_are_used(asked):
    algorithm, environment, options = asked("train dqn CartPole-v1")
    recorded = settings.RECORDED["dqn", "CartPole-v1"]
    assert algorithm == recorded.algorithm
    assert environment == "CartPole-v1"
    assert options == {
        "steps": recorded.steps,
        "seeds": 1,
        "seed": 0,
        "run_dir": "auto",
        "quiet": False,
        "evaluate_every": None,
        "evaluate_episodes": None,
        "final_episodes": None,
        "evaluation_copies": None,
        "evaluation_environment": None,
        "on_full_disk": "stop",
        "checkpoint_every": None,
        "keep_checkpoints": None,
        "metrics_every": None,
        "record_info": (),
        "workers": 0,
        "worker_timeout": 60.0,
        "on_fault": "raise",
        "max_restarts": 10,
        "overlap": False,
        "ray": None,
        "actors": None,
        "environment_arguments": {},
    }
    assert asked("train dqn gymnasium:CartPole-v1")[0] == recorded.algorithm
    assert asked("train DQN Acrobot-v1 --steps 9")[0] == td.DQN()


FLAGS = {
    "--gamma 0.98": lambda a: a.gamma == 0.98,
    "--gamma=0.98": lambda a: a.gamma == 0.98,
    "--learning-rate 1e-4": lambda a: a.learning_rate == 1e-4,
    "--learning_rate 1e-4": lambda a: a.learning_rate == 1e-4,
    "--memory.capacity 30_000": lambda a: a.memory.capacity == 30_000,
    "--memory.capacity 30k --memory.batch-size 32": lambda a: (a.memory.capacity, a.memory.batch_size) == (30_000, 32),
    "--memory replay": lambda a: type(a.memory) is td.Replay and a.memory.capacity == td.DQN().memory.capacity,
    "--memory prioritized --memory.alpha 0.5": lambda a: a.memory.alpha == 0.5,
    "--memory frames --memory.stack-axis first": lambda a: (
        type(a.memory) is td.FrameReplay and a.memory.stack_axis == "first" and a.memory.window == 5
    ),
    "--memory prioritized_frames --memory.beta 0.5": lambda a: (
        type(a.memory) is td.PrioritizedFrames and (a.memory.beta, a.memory.alpha) == (0.5, 0.6)
    ),
    "--memory.alpha 0.5 --memory prioritized": lambda a: a.memory.alpha == 0.5,
    "--network.sizes 32 16": lambda a: a.network == MLP((32, 16), "tanh", "orthogonal"),
    "--network cnn": lambda a: type(a.network) is CNN,
    "--network lstm --network.size 32": lambda a: (a.network, a.memory.sequence) == (td.LSTM(32), 16),
    "--memory.sequence 4 --network lstm --memory replay": lambda a: (
        a.memory == td.Replay(20_000, 64, window=5, sequence=4, burn_in=8)
    ),
    "--network gru --network.torso.sizes 16": lambda a: a.network == td.GRU(torso=MLP((16,))),
    "--network MinGRU --network.span 9": lambda a: a.network == td.MinGRU(span=9),
    "--network attention --network.window 4": lambda a: a.network == td.Attention(window=4),
    "--network simba --network.blocks 2": lambda a: a.network == td.SimBa(blocks=2),
    "--network.activation relu": lambda a: a.network.activation == "relu",
    "--double false": lambda a: a.double is False,
    "--double true": lambda a: a.double is True,
    "--no-double": lambda a: a.double is False,
    "--loss huber": lambda a: a.loss == "huber",
    "--warmup-steps 1e3": lambda a: a.warmup_steps == 1000,
    "--max-grad-norm inf": lambda a: a.max_grad_norm == float("inf"),
}


@pytest.mark.parametrize("flags", FLAGS)
def test_every_field_is_a_flag(asked, flags):
    algorithm, *_ = asked(f"train dqn CartPole-v1 {flags}")
    assert FLAGS[flags](algorithm)


OPTIONS = {
    "--steps 50_000": ("steps", 50_000),
    "--steps 1e6": ("steps", 1_000_000),
    "--steps 1M": ("steps", 1_000_000),
    "--steps 1.5M": ("steps", 1_500_000),
    "--total-timesteps 20k": ("steps", 20_000),
    "--total_timesteps=20_000": ("steps", 20_000),
    "-n 100": ("steps", 100),
    "--seeds 3": ("seeds", 3),
    "--seed 100": ("seed", 100),
    "--run-dir here": ("run_dir", "here"),
    "--run-dir none": ("run_dir", None),
    "--quiet": ("quiet", True),
    "--quiet true": ("quiet", True),
    "--evaluate-every 0": ("evaluate_every", 0),
    "--checkpoint-every 1e4": ("checkpoint_every", 10_000),
    "--environment.continuous true": ("environment_arguments", {"continuous": True}),
    "--environment.gravity -9.5 --environment.name moon": ("environment_arguments", {"gravity": -9.5, "name": "moon"}),
    "--environment.size [3,4]": ("environment_arguments", {"size": [3, 4]}),
}


@pytest.mark.parametrize("flags", OPTIONS)
def test_options_of_the_run_are_flags_too(asked, flags):
    *_, options = asked(f"train dqn CartPole-v1 {flags}")
    name, value = OPTIONS[flags]
    assert options[name] == value


def test_the_pair_can_be_named_by_flags(asked):
    assert asked("train dqn --env-id CartPole-v1")[1] == "CartPole-v1"
    assert asked("train --algo ppo --env CartPole-v1")[1] == "CartPole-v1"
    assert asked("train ppo CartPole-v1 --critic-network none")[0].critic_network is None
    assert type(asked("train ppo CartPole-v1 --critic-network cnn")[0].critic_network) is CNN


FOLLOWING = {  # the flags, and what the critic is made by
    "": Same(),
    "--critic-network same": Same(),
    "--network.sizes 8": Same(),
    "--critic-network.sizes 4": MLP((4,), "tanh", "orthogonal"),
    "--critic_network.sizes 4 --network.activation relu": MLP((4,), "relu", "orthogonal"),
    "--critic-network.activation gelu --network.sizes 8 9": MLP((8, 9), "gelu", "orthogonal"),
    "--critic-network mlp": MLP((64, 64), "tanh", "orthogonal"),
    "--network cnn --critic-network.sizes 4": CNN(sizes=(4,), activation="tanh"),
}


@pytest.mark.parametrize("flags", FOLLOWING)
def test_a_critic_is_made_like_the_actor_but_for_its_own_flags(asked, flags):
    assert asked(f"train ppo CartPole-v1 {flags}")[0].critic_network == FOLLOWING[flags]


WRONG = {
    "trian": "unknown verb 'trian'. Did you mean 'train'?",
    "train": "which algorithm?",
    "train dqn": "which environment?",
    "train dnq CartPole-v1": "unknown algorithm 'dnq'. Did you mean 'dqn'?",
    "train dqn CartPol-v1 --steps 5 --run-dir none": "Did you mean 'CartPole-v1'",
    "train dqn CartPole-v1 50_000": "what is '50_000'? A flag begins with --",
    "train dqn CartPole-v1 --gama 0.9": "no flag --gama. Did you mean '--gamma'?",
    "train dqn CartPole-v1 --gamma": "gamma",
    "train dqn CartPole-v1 --gamma abc": "--gamma needs a number, got 'abc'",
    "train sac Pendulum-v1 --ent-coef auto": "--ent-coef needs a number, got 'auto'",
    "train dqn CartPole-v1 --memory.capacity abc": "--memory.capacity needs a whole number, got 'abc'",
    "train dqn CartPole-v1 --network.sizes a b": "--network.sizes cannot take 'a', 'b'",
    "train dqn CartPole-v1 --network.activation rellu": "got 'rellu'. Did you mean 'relu'?",
    "train dqn CartPole-v1 --gamma 1.5": "gamma must be at least 0 and at most 1, got 1.5",
    "train dqn CartPole-v1 --learning-rate -1": "learning_rate must be at least 0, got -1",
    "train dqn CartPole-v1 --learning-rate inf": "learning_rate must be at least 0 and finite, got inf",
    "train dqn CartPole-v1 --loss hubr": "--loss takes one of huber, squared, got 'hubr'. Did you mean 'huber'?",
    "train dqn CartPole-v1 --num-environments 0": "num_environments must be at least 1 and at most 1,048,576, got 0",
    "train dqn CartPole-v1 --steps 0 --run-dir none": "steps must be at least 1, got 0",
    "train dqn CartPole-v1 --steps 1e99 --run-dir none": "steps must be at most 9,007,199,254,740,992, got 1e+99",
    "train dqn CartPole-v1 --steps many": "thorndike: --steps needs a whole number, got 'many'\n",
    "train dqn CartPole-v1 --steps": "thorndike: --steps needs a value\n",
    "train dqn CartPole-v1 --memory prioritised": "Did you mean 'prioritized'?",
    "train dqn CartPole-v1 --memory frame": "Did you mean 'frames'?",
    "train dqn CartPole-v1 --memory frames --memory.stack-axis middle": "takes one of auto, first, last, none",
    "train dqn CartPole-v1 --memory frames --run-dir none": "this observation has 0 ((4,)): use Replay or Prioritized",
    "train dqn CartPole-v1 --memory.batch-size 10 --memory.capacity 5": "thorndike: Prioritized: batch_size 10 is",
    "train dqn CartPole-v1 --batch-size 32": "no flag --batch-size: here it is --memory.batch-size",
    "train dqn CartPole-v1 --buffer-size 5": "no flag --buffer-size: here it is --memory.capacity",
    "train dqn CartPole-v1 --beta 0.5": "no flag --beta: here it is --memory.beta\n",
    "train sac Pendulum-v1 --beta 0.5": "here it is --memory.beta (Prioritized's now: memory=Prioritized(beta=...))\n",
    "train dqn CartPole-v1 --learning-starts 5": "here it is --warmup-steps",
    "train ppo CartPole-v1 --n-steps 5": "here it is --rollout-length\n",
    "train dqn CartPole-v1 --n-steps 5": "here it is --rollout-length, or --memory.window for n-step returns\n",
    "train dqn CartPole-v1 --optimize-memory-usage true": "here it is --memory frames\n",
    "train dqn CartPole-v1 --n-epochs 5": "here it is --epochs, which thorndike train dqn does not have\n",
    "train ppo CartPole-v1 --num_envs 5": "here it is --num-environments",
    "train ppo CartPole-v1 --net-arch 5": "here it is --network.sizes 64 64\n",
    "train ppo CartPole-v1 --anneal-lr true": "here it is --learning-rate-end 0\n",
    "train ppo CartPole-v1 --network.torso lstm": "no flag --network.torso: here it is --network lstm\n",
    "train ppo CartPole-v1 --network.torso.sizes 4": "it belongs to lstm, gru, mingru, attention: --network lstm\n",
    "train ppo CartPole-v1 --network lstm --network.torso cnn": "said in Python, network=td.LSTM(torso=td.CNN())",
    "train ppo CartPole-v1 --critic-network.torso gru": "here it is --critic-network gru\n",
    "train ppo CartPole-v1 --network lstm --network.torso.siz 4": "Did you mean '--network.torso.sizes'?",
    "train dqn CartPole-v1 --nonsense 1": "no flag --nonsense.\n",
    "train dqn CartPole-v1 --bogus 1": "no flag --bogus.\n",
    "train dqn CartPole-v1 --memory same": "one of replay, prioritized, frames, prioritized-frames, got 'same'",
    "train ppo CartPole-v1 --critic-network.size 4": "Did you mean '--critic-network.sizes'?",
    "train ppo CartPole-v1 --network same --steps 5 --run-dir none": "give the actor's network itself",
    "train ppo CartPole-v1 --value-coef 1": "here it is --vf-coef (of half the mean squared error",
    "train dqn Nope-v0 --steps 5 --run-dir none": "there is no environment 'Nope-v0'.\n",
    "train dqn CartPole-v1 --steps 5_000 --run-dir /dev/null/x": "/dev/null/x cannot be used as a folder",
    "train ppo CartPole-v1 --rollout-length 100 --batch-size 64": "does not divide into batch_size 64",
    "train dqn Pendulum-v1 --steps 5 --run-dir none": "These fit: ppo, ",
    "train dqn CartPole-v1 --environment.zebra 1 --run-dir none": "zebra",
    "train dqn FrozenLake-v1 --environment.is-slipery false --steps 9 --run-dir none": "Did you mean 'is_slippery'?",
    "train dqn CartPole-v1 --environment.max-step 5 --steps 9 --run-dir none": "Did you mean 'max_steps'?",
    "train dqn CartPole-v1 --environment.zebra": "needs a value",
    "train dqn CartPole-v1 --steps 9 --environment.num-environments 3": "num_environments is the algorithm's",
    "train dqn CartPole-v1 --num-environments 1000000000": "num_environments must be at least 1 and at most 1,048,576",
    "train sac Pendulum-v1 --num-critics 1000": "num_critics must be at least 1 and at most 100, got 1000",
    "train dqn CartPole-v1 --rollout-length 10000000000": "rollout_length must be at least 1 and at most 2,147,483,647",
    "train dqn CartPole-v1 --network.sizes 1 9999999": "sizes may be at most 100 layers of at most 1,048,576",
    "train dqn CartPole-v1 --steps 9e15 --run-dir none": "steps must be at most 274,877,906,880",
    "train dqn CartPole-v1 --seeds 1e9 --steps 9 --run-dir none": "seeds must be at most 100,000, got 1e+09",
    "verify": "which run?",
    "verify nowhere": "nowhere is not a run folder",
    "resume": "which run?",
    "resume nowhere": "nowhere is not a run folder",
    "resume nowhere --step 5": "Did you mean '--steps'?",
    "evaluate": "which run?",
    "evaluate nowhere": "nowhere is not a run folder",
    "list": "list what?",
    "list algorithm": "Did you mean 'algorithms'?",
    "list algorithms dqn": "what is 'dqn'?",
    "list environments nonsense": "no environments are called 'nonsense'. thorndike list environments shows all",
    "list environments mini grid": "what is 'grid'?",
    "check": "which environment?",
    "check CartPol-v1": "Did you mean 'CartPole-v1'?",
    "check highway-v0": 'pip install "highway-env"',
    "check CartPole-v1 --step 5": "Did you mean '--steps'?",
    "check CartPole-v1 --steps 0": "steps must be at least 1, got 0",
    "list runs": "there is no folder 'runs' here",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_answered_in_one_line_with_exit_code_2(capsys, monkeypatch, tmp_path, line):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("thorndike: ")
    assert err.count("\n") == 1
    assert WRONG[line] in err
    assert list(tmp_path.iterdir()) == []


def test_episodes_that_no_evaluation_will_play_are_told_with_what_leaves_the_final_one(capsys):
    quick = td.PPO(network=td.MLP((4,)), num_environments=2, rollout_length=32, epochs=1)
    for asked in ({"final_episodes": 50}, {"evaluate_episodes": 5}):
        td.train(quick, "CartPole-v1", 64, evaluate_every=0, run_dir=None, **asked)
        assert "plays nothing. evaluate_every=64 leaves only the final one" in capsys.readouterr().out


def test_help_shows_every_flag_with_the_recorded_values(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["train", "dqn", "CartPole-v1", "--help"])
    assert not left.value.code
    out = capsys.readouterr().out
    for text in ("--steps", "--seeds", "--gamma", "--memory.capacity", "--network.sizes", "(default: 0.001)"):
        assert text in out
    recipes = "mlp | cnn | lstm | gru | mingru | attention | simba | renormalizedmlp"
    assert f"--network {recipes}\n" in out
    assert "--memory replay | prioritized | frames | prioritized-frames\n" in out
    assert "--environment.NAME VALUE" in out
    assert "--critic-network" not in out
    with pytest.raises(SystemExit):
        cli.main(["train", "ppo", "--help"])
    out = capsys.readouterr().out
    assert f"--critic-network {recipes} | none | same\n" in out
    assert "--memory" not in out


@pytest.mark.parametrize("line", ["list --help", "list runs -h", "--help", "train --help"])
def test_help_is_printed_with_exit_code_0(capsys, line):
    assert cli.main(line.split()) == 0
    assert capsys.readouterr().out == cli.HELP


def test_help_is_quick_and_imports_no_jax():
    code = "import sys; from thorndike import cli; cli.main(['--help']); sys.exit('jax' in sys.modules)"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "thorndike train ALGORITHM ENVIRONMENT" in done.stdout
    assert time.monotonic() - began < 10


def test_lists(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["list", "algorithms"]) == 0
    assert "\ndqn " in capsys.readouterr().out
    assert cli.main(["list", "environments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:4] == ["compiled", "twins", "11", "CartPole-v1"] for line in lines)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "config.json").write_text("{}")
    (tmp_path / "runs" / "a" / "summary.json").write_text(
        json.dumps({"algorithm": "dqn", "environment": "X\x1b[2J", "steps": 5, "seeds": 1, "evaluation": {"mean": 9.5}})
    )
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "config.json").write_text("nonsense")
    assert cli.main(["list", "runs"]) == 0
    out = capsys.readouterr().out
    assert "9.5" in out
    assert "unreadable" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "strange", [{"evaluation": {"mean": 10**4000}}, {"evaluation": {"mean": 1e300}}, {"algorithm": {"type": 5}}]
)
def test_a_strange_summary_does_not_break_the_list(capsys, monkeypatch, tmp_path, strange):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "config.json").write_text("{}")
    (tmp_path / "runs" / "a" / "summary.json").write_text(json.dumps({"steps": 10**300} | strange))
    assert cli.main(["list", "runs"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < 200


MODULE = """
import gymnasium, numpy as np
from gymnasium import spaces
class Target(gymnasium.Env):
    observation_space = spaces.Dict({"x": spaces.Box(-1, 1, (2,), np.float64)})
    action_space = spaces.Box(-1.0, 3.0, (1,), np.float32)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed); self.t = 0
        return {"x": self.np_random.uniform(-1, 1, 2)}, {}
    def step(self, action):
        self.t += 1
        return {"x": self.np_random.uniform(-1, 1, 2)}, float(-abs(action[0] - 2)), False, self.t >= 4, {}
gymnasium.register("MyTarget-v0", entry_point=Target)
"""


def test_a_run_from_end_to_end_on_a_module_of_the_users(tmp_path):
    """The command as typed: stopped by SIGTERM, refused without the module's name, resumed with it, evaluated."""
    (tmp_path / "my_target.py").write_text(MODULE)

    def command(*arguments):
        return [sys.executable, "-m", "thorndike", *arguments]

    tiny = "--steps 1M --network.sizes 4 --critic-network none --num-environments 2 --rollout-length 8 --batch-size 8"
    line = command("train", "ppo", "my_target:MyTarget-v0", *tiny.split(), "--run-dir", "run", "--epochs", "1")
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    printed = [process.stdout.readline(), process.stdout.readline()]
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "compiling" in printed[0]
    assert out.splitlines()[-1].endswith("go on with: thorndike resume run --environment my_target:MyTarget-v0")
    steps = int(json.loads(sorted(tmp_path.glob("run/checkpoints/*/manifest.json"))[-1].read_text())["steps"])

    refused = subprocess.run(command("resume", "run"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--environment my_target:MyTarget-v0" in refused.stderr

    further = ("--steps", str(steps + 64), "--environment", "my_target:MyTarget-v0")
    resumed = subprocess.run(
        command("resume", "run", *further), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "run folder run" in resumed.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] >= steps + 64
    assert summary["environment"] == "my_target:MyTarget-v0"


@pytest.mark.parametrize(
    ("line", "sizes"),
    [
        pytest.param("ppo CartPole-v1 --batch-size 32 --rollout-length 16", "8", marks=pytest.mark.full),
        # Products this large are divided between XLA's threads.
        ("ppo CartPole-v1 --batch-size 256 --rollout-length 64", "128 128"),
        pytest.param("sac Pendulum-v1 --warmup-steps 64 --rollout-length 16", "8", marks=pytest.mark.full),
    ],
)
def test_two_seeds_in_one_process_write_the_metrics_of_two_processes_bit_for_bit(tmp_path, line, sizes):
    tiny = f"--steps 600 --network.sizes {sizes} --critic-network.sizes {sizes} --evaluate-episodes 2"
    train = [
        sys.executable,
        "-m",
        "thorndike",
        "train",
        *line.split(),
        *tiny.split(),
        "--final-episodes",
        "3",
        "--quiet",
    ]
    for run_dir, chosen in {"both": "--seeds 2", "first": "--seed 0", "second": "--seed 1"}.items():
        subprocess.run([*train, *chosen.split(), "--run-dir", run_dir], cwd=tmp_path, check=True)

    def rows(run_dir, seed):
        written = map(json.loads, (tmp_path / run_dir / "metrics.jsonl").read_text().splitlines())
        timed = ("seconds", "steps_per_second")
        return [{k: v for k, v in row.items() if k not in timed} for row in written if row["seed"] == seed]

    assert any("evaluation_mean" in row for row in rows("both", 1))
    assert rows("both", 0) == rows("first", 0)
    assert rows("both", 1) == rows("second", 1)


def test_whole_numbers_as_people_write_them():
    written = ("50_000", "5e4", "1M", "20k", 7, 7.0, "1.5M")
    assert [words.whole_number(x, "n") for x in written] == [50_000, 50_000, 1_000_000, 20_000, 7, 7, 1_500_000]
    for wrong in ("1.5", "many", None, True, 0.5, float("nan"), float("inf"), "", "1e400"):
        with pytest.raises(td.SettingError):
            words.whole_number(wrong, "n")
    assert words.spelled_out("1e-3") == "1e-3"
    assert words.spelled_out("CartPole-v1") == "CartPole-v1"
    assert words.spelled_out("50_000") == "50_000"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_what_is_wrong_is_one_line_on_any_terminal(encoding):
    wrong = "from thorndike import cli; cli.main('train dqn CartPole-v1 --gamma abc'.split())"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", wrong], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == "thorndike: --gamma needs a number, got 'abc'\n"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("drawn", "answer"), [(commands(), answer_to_command), (calls(), answer_to_call)])
def test_a_configuration_works_or_is_refused_in_one_line(drawn, answer, tmp_path, monkeypatch):
    inside = tmp_path / "a" / "b" / "c"  # what a path of `..` reaches is still ours
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    monkeypatch.setattr(trainer, "train", began)

    @hypothesis.settings(deadline=None, max_examples=25)
    @hypothesis.given(drawn)
    def draw(configuration):
        answer(configuration)

    draw()
    assert not list(tmp_path.rglob(CANARY))


class Refusing:
    """Refuses whatever is asked of it, to show itself too."""

    def fail(self, *_, **__):
        raise RuntimeError

    __repr__ = __str__ = __float__ = __bool__ = __eq__ = fail


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: td.DQN(loss=Refusing()), "loss must be one of .*, got a Refusing"),
        (lambda: td.DQN(loss=np.zeros(2)), "loss must be one of .*, got array"),
        (lambda: td.PPO(gamma=Refusing()), "gamma must be a number, got a Refusing"),
        (lambda: td.train(td.PPO(), "CartPole-v1", Refusing()), "steps must be a whole number, got a Refusing"),
        (lambda: td.train(Refusing(), "CartPole-v1", 1), "an algorithm is a name or an object .*, got a Refusing"),
        (lambda: td.train(td.PPO(), "CartPole-v1", 1, environment_arguments=0.5), "must be a dict .*, got 0.5"),
        (lambda: td.train(td.PPO(), "CartPole-v1", 1, environment_arguments={"n": Refusing()}), "n=a Refusing cannot"),
    ],
)
def test_values_that_are_none_are_refused_whatever_they_are(call, text):
    with pytest.raises(td.SettingError, match=text):
        call()


WORLDS = {"choices": ("CartPole-v1", "gymnasium:Acrobot-v1"), "numbers": ("Pendulum-v1", "gymnasium:Pendulum-v1")}


@pytest.mark.full
@pytest.mark.parametrize("name", [name.lower() for name in algorithms.ALGORITHMS])
def test_the_command_trains_every_algorithm_in_two_worlds(name, tmp_path, monkeypatch, capsys):
    """A compiled one and one of Gymnasium's, by name alone; of the other kind of actions only where it may."""
    monkeypatch.chdir(tmp_path)
    kinds = names.ALGORITHMS[algorithms.ALGORITHMS[name]].actions
    for kind, worlds in WORLDS.items():
        suits = kinds in (kind, "both")
        for world in worlds if suits else worlds[:1]:
            recorded = settings.recorded(name, world)
            algorithm = recorded.algorithm if recorded else algorithms.made(name)
            steps = getattr(algorithm, "warmup_steps", 0) + 200
            assert cli.main(["train", name, world, "--steps", str(steps), "--quiet"]) == (0 if suits else 2)
            if not suits:
                assert f"These fit: {'dqn' if kind == 'choices' else 'ppo'}" in capsys.readouterr().err
