"""Copies in worker processes: the same results, whatever fails; and acting while learning."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from jax import random

import thorndike as td
from failing import Rich, Unmakeable, Walk, WithProcesses
from thorndike import evaluation, trainer
from thorndike.environments import make
from thorndike.environments.repeating import EpisodesLost
from thorndike.environments.workers import Workers
from thorndike.errors import EnvironmentFault, MissingExtraError, SettingError, UnsuitableError

RESTART = partial(Workers, on_fault="restart")
ACTIONS = np.random.default_rng(0).integers(2, size=(60, 5)).astype(np.int32)
LEARNERS = {
    "dqn": td.DQN(
        num_environments=4,
        rollout_length=3,
        warmup_steps=48,
        updates_per_rollout=2,
        exploration_fraction=0.01,
        learning_rate=0.02,
        network=td.MLP((8,)),
    ),
    "ppo": td.PPO(num_environments=4, rollout_length=8, batch_size=16, epochs=1, network=td.MLP((8,))),
    "recurrent ppo": td.PPO(
        num_environments=4, rollout_length=8, batch_size=16, epochs=1, sequence_length=4, network=td.GRU(8)
    ),
}


def play(environment, actions=ACTIONS, episodes=None):
    """Everything that the copies say, as bytes."""
    _, observation = environment.reset(random.key(3), episodes)
    said = [observation]
    for action in actions:
        _, step = environment.step((), action[: environment.num_environments])
        said.append(step)
    return [leaf.tobytes() for leaf in jax.tree.leaves(said)]


def trained(algorithm, environment=Walk, workers=0, overlap=False, steps=240, every=(), saved=None, until=None):
    """The arrays that a run ends with, or is stopped with after so many iterations."""
    arrays = {}
    chunks = trainer.train(
        algorithm,
        lambda: make(environment, algorithm.num_environments, workers=workers),
        steps,
        every=every,
        resume={0: saved} if saved else None,
        overlap=overlap,
    )
    for chunk in chunks:
        arrays = chunk.arrays()
        if until is not None and chunk.iteration >= until:
            break
    chunks.close()
    return arrays


def differing(a, b):
    assert a.keys() == b.keys()
    return [name for name in a if a[name].tobytes() != b[name].tobytes()]


def processes():
    """This process's children, those that Python keeps for itself apart."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    return [line for line in listed.stdout.splitlines() if "spawn_main" in line or "<defunct>" in line]


# --- the same results -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [Walk, Rich], ids=["one array", "parts"])
def test_any_number_of_workers_says_what_one_process_says(environment):
    copies = make(environment, 5)
    copies.record_info(("t",))
    said, infos = play(copies), copies.close_infos()
    for number in (1, 2, 5):
        with_workers = make(environment, 5, workers=number)
        with_workers.record_info(("t",))
        assert with_workers.max_steps == copies.max_steps
        again = play(with_workers)
        if environment is Walk:
            assert again == said
        assert with_workers.close_infos() == infos == {"t_mean": 10.0}
        with_workers.close()
    assert processes() == []


def test_workers_do_not_import_jax():
    environment = make(Rich, 2, workers=1)
    _, observation = environment.reset(random.key(0))
    environment.close()
    assert observation["jax"].tolist() == [0, 0]
    here = make(Rich, 2).reset(random.key(0))[1]
    assert here["jax"].tolist() == [1, 1]


def test_a_copy_at_rest_is_neither_stepped_nor_reset_in_a_worker():
    episodes = np.array([1, 2, 0, 1, 1])
    environment = make(Walk, 5, workers=2)
    assert play(environment, episodes=episodes) == play(make(Walk, 5), episodes=episodes)
    environment.close()


def test_episodes_are_repeated_in_workers_where_a_run_is_resumed():
    environment, other = make(Walk, 5), make(Walk, 5, workers=2)
    play(environment, ACTIONS[:14])
    saved = environment.save()
    observation = environment.restore(saved)
    np.testing.assert_array_equal(other.restore(saved), observation)
    assert other.exact
    assert not other.restarted.any()
    for action in ACTIONS[14:30]:
        a, b = environment.step((), action)[1], other.step((), action)[1]
        assert [x.tobytes() for x in a] == [x.tobytes() for x in b]
    other.close()


@pytest.mark.parametrize("algorithm", LEARNERS.values(), ids=LEARNERS)
def test_a_run_is_the_same_with_workers(algorithm):
    assert differing(trained(algorithm), trained(algorithm, workers=2)) == []


# --- acting while learning --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", LEARNERS.values(), ids=LEARNERS)
def test_a_run_that_overlaps_is_the_same_in_pieces_stopped_resumed_and_with_workers(algorithm):
    whole = trained(algorithm, overlap=True)
    assert differing(whole, trained(algorithm, overlap=True, every=(2,))) == []
    saved = trained(algorithm, overlap=True, every=(3,), until=3)
    assert any(name.startswith("ahead/") for name in saved)
    assert differing(whole, trained(algorithm, overlap=True, workers=2, saved=saved)) == []
    assert differing(whole, trained(algorithm))


def test_overlap_lags_one_rollout_behind_and_no_more():
    """By the definition: rollout k + 1 is acted with the policy of before rollout k was learned from."""
    algorithm = LEARNERS["ppo"]
    trainer.configure()
    environment, total = make(Walk, 4), np.float32(4)
    env_key, _ = random.split(trainer.keys_of(0)[0])
    observation = environment.reset(env_key)[1]
    learning = trainer.Learning(algorithm, algorithm, environment, observation, 0, 4, None)
    learning.go_on(observation, np.zeros(4, bool))
    from thorndike import core
    from thorndike.unrolls import host

    def act(state, iteration, actor):
        progress = learning.progress._replace(state=state, iteration=np.uint32(iteration), actor=None)
        policy, unroll_key, _ = core.plan(learning.algorithm, progress, learning.key, total)
        return host.unroll(learning.algorithm, environment, policy, actor, unroll_key, algorithm.rollout_length)

    actor, trajectory = act(learning.progress.state, 0, learning.progress.actor)
    for k in range(4):
        before = jax.tree.map(np.array, learning.progress.state)
        learning.conclude(actor, trajectory, False)
        if k < 3:
            actor, trajectory = act(before, k + 1, actor)
    state = {f"state/{name}": x for name, x in trainer.to_arrays(learning.progress, None).items()}
    states = {name.removeprefix("state/"): x for name, x in state.items() if name.startswith("state/state/")}
    found = trained(algorithm, overlap=True, steps=4 * 32)
    assert states
    for name, array in states.items():
        np.testing.assert_array_equal(found[name], array)


def test_overlap_is_refused_where_nobody_waits(tmp_path):
    with pytest.raises(SettingError, match="compiled"):
        td.train(td.PPO(), "CartPole-v1", steps=100, overlap=True, run_dir=None)
    with pytest.raises(SettingError, match="True or False"):
        td.train(td.PPO(), Walk, steps=100, overlap="yes", run_dir=None)


def test_a_recorded_run_overlaps_stops_and_goes_on_with_other_workers(tmp_path):
    algorithm = LEARNERS["dqn"]
    folders = [tmp_path / name for name in ("whole", "parts")]
    settings = {"steps": 480, "overlap": True, "quiet": True, "evaluate_every": 0, "checkpoint_every": 120}
    td.train(algorithm, Walk, run_dir=folders[0], workers=1, **settings)
    td.train(algorithm, Walk, run_dir=folders[1], on_chunk=interrupt_at(240), **settings)
    run = td.resume(folders[1], environment=Walk, workers=2, quiet=True)
    assert run.folder == folders[1]
    newest = [sorted((folder / "checkpoints").glob("step-*"))[-1] / "seed-0.safetensors" for folder in folders]
    assert newest[0].read_bytes() == newest[1].read_bytes()


def interrupt_at(steps):
    def on_chunk(chunk):
        if chunk.steps >= steps:
            chunk.stop()

    return on_chunk


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "copies", "given", "error", "text"),
    [
        (Walk, 2, {"workers": 3}, SettingError, "too many .* there are 2"),
        ("CartPole-v1", 2, {"workers": 2}, SettingError, "compiled.*gymnasium:CartPole-v1"),
        (Walk(), 1, {"workers": 1}, SettingError, "pass the class or a function"),
        (Walk, 2, {"workers": -1}, SettingError, "workers must be a whole number"),
        (Walk, 2, {"workers": 1.5}, SettingError, "workers must be a whole number"),
        (Walk, 2, {"workers": 1, "worker_timeout": "1m"}, SettingError, "worker_timeout must be a number of seconds"),
        (Walk, 2, {"workers": 1, "on_fault": "ignore"}, SettingError, "'raise' or 'restart'"),
        (Walk, 2, {"on_fault": "restart"}, SettingError, "needs workers"),
        (Unmakeable, 2, {"workers": 1}, EnvironmentFault, "Unmakeable could not be made: FileNotFoundError: no map"),
        ("gymnasium:CartPole-v1", 2, {"workers": 1, "grafity": 9}, SettingError, "no argument 'grafity'"),
        (lambda: 3, 2, {"workers": 1}, UnsuitableError, "expected one gymnasium.Env"),
        (lambda: td.Vectorized, 2, {"workers": 1}, UnsuitableError, "expected one gymnasium.Env"),
    ],
)
def test_what_cannot_work_is_said_at_once(environment, copies, given, error, text):
    algorithm = td.DQN(num_environments=copies, warmup_steps=10)
    with pytest.raises(error, match=text):
        td.train(algorithm, environment, steps=100, run_dir=None, **given)
    assert processes() == []


def test_envpool_steps_by_threads_of_its_own():
    pytest.importorskip("envpool")
    with pytest.raises(SettingError, match="threads of its own"):
        make("envpool:CartPole-v1", 2, workers=2)


# --- faults -----------------------------------------------------------------------------------------------------------

PLACE = r"copy \d, episode seed \d+, step 4"


@pytest.mark.parametrize(
    ("fails", "text"),
    [
        ("raise", f"{PLACE}: RuntimeError: engine is cold"),
        ("die", rf"worker \d \(cop.*\) was killed by SIGKILL at {PLACE}; its last words: the bearings are worn"),
        ("leave", f"left with exit code 3 at {PLACE}"),
        ("hang", f"gave no answer in .* s at {PLACE}"),
        ("reset", "copy 0, episode seed .*, reset: RuntimeError: no fuel"),
    ],
)
def test_a_worker_that_fails_is_named_with_its_place(fails, text):
    environment = make(lambda: Walk(fails), 3, workers=Workers(2, timeout=0.5 if fails == "hang" else 60))
    with pytest.raises(EnvironmentFault, match=text):
        play(environment)
    environment.close()
    assert processes() == []


@pytest.mark.parametrize("fails", ["raise", "die", "hang", "leave", "reset"])
def test_a_worker_that_fails_once_is_started_anew_and_nothing_is_lost(fails, tmp_path):
    undisturbed = play(make(Walk, 3))
    timeout = 1.0 if fails == "hang" else 60.0
    environment = make(lambda: Walk(fails, every=2, once=tmp_path / "once"), 3, workers=RESTART(2, timeout))
    with pytest.warns(UserWarning, match="started anew"):
        assert play(environment) == undisturbed
    assert environment.exact
    environment.close()
    assert processes() == []


def test_a_step_that_always_fails_is_never_learned_from():
    """Copies begin their next episodes instead; the others go on as if nothing had been."""
    environment = make(lambda: Walk("raise", every=3), 5, workers=RESTART(2, max_restarts=100))
    reference = make(Walk, 5)
    _, observation = environment.reset(random.key(3))
    reference.reset(random.key(3))
    doomed = lambda: np.array([environment._seed(i) % 3 == 0 for i in range(5)])  # noqa: E731
    first = doomed()
    assert first.any()
    assert not first.all()
    for t, action in enumerate(ACTIONS[:4]):
        lost = np.zeros(5, bool)
        step = None
        while step is None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    _, step = environment.step((), action)
            except EpisodesLost as fault:
                lost, now = lost | fault.copies, fault.observation
                np.testing.assert_array_equal(now[~lost], observation[~lost])
                np.testing.assert_array_equal(np.any(now != observation, 1), lost)
        expected = reference.step((), action)[1]
        np.testing.assert_array_equal(lost, first if t == 3 else np.zeros(5, bool))
        np.testing.assert_array_equal(step.next_observation[~lost], expected.next_observation[~lost])
        np.testing.assert_array_equal(step.reward[~lost], expected.reward[~lost])
        observation = step.observation
    np.testing.assert_array_equal(environment._length, np.where(first, 1, 4))
    assert not environment.exact
    assert len(environment.notes) == first.sum()
    environment.close()


def test_restarts_are_counted_and_end():
    environment = make(lambda: Walk("raise"), 2, workers=RESTART(1, max_restarts=2))
    with pytest.warns(UserWarning, match="started anew"), pytest.raises(EnvironmentFault, match="max_restarts=2"):
        play(environment)
    environment.close()


@pytest.mark.parametrize("overlap", [False, True])
def test_a_run_goes_on_where_steps_fail_and_what_it_learned_from_is_whole(overlap):
    """No transition joins two episodes: the first component says which step of which episode was seen."""
    algorithm = td.DQN(
        num_environments=3, rollout_length=2, warmup_steps=12, updates_per_rollout=1, network=td.MLP((8,)),
        memory=td.Replay(2_000, 8),
    )  # fmt: skip
    workers = RESTART(1, max_restarts=1_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arrays = trained(algorithm, lambda: Counted("raise", every=4), workers, overlap, steps=180)
    seen, following = (arrays[f"memory/steps/{name}"] for name in ("observation", "next_observation"))
    seen, following = seen.reshape(-1, 3, 3), following.reshape(-1, 3, 3)
    ended = (arrays["memory/steps/terminated"] | arrays["memory/steps/truncated"]).reshape(-1, 3)
    assert (following[..., 0] == seen[..., 0] + 1).all()  # the next step
    assert (following[..., 1] == seen[..., 1]).all()  # of the same episode
    np.testing.assert_array_equal(ended[:-1], (seen[1:, :, 1] != seen[:-1, :, 1]))
    truncated = arrays["memory/steps/truncated"].reshape(-1, 3)
    assert (seen[truncated][:, 0] == 2).all()  # the last before the fourth
    assert truncated.sum() > 3


class Counted(Walk):
    """Sees how many steps it has taken, and the number of its episode."""

    observation_space = gymnasium.spaces.Box(-1e9, 1e9, (3,))

    def seen(self):
        self.observation = np.array([self.t, self.np_random_seed % 1_000_003, 0], np.float32)
        return self.observation


def test_an_evaluation_counts_an_episode_that_failed_as_unfinished():
    algorithm = td.PPO(num_environments=2, rollout_length=8, batch_size=16, epochs=1, network=td.MLP((8,)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = td.train(
            algorithm, lambda: Walk("raise", every=2), 32, run_dir=None, quiet=True, workers=1, on_fault="restart",
            max_restarts=1_000, evaluate_every=32, final_episodes=12,
        )  # fmt: skip
    evaluation = run.summary["evaluation"]
    assert evaluation["episodes"] == 12
    assert 0 < evaluation["unfinished"] < 12


def test_an_episode_that_ended_before_one_that_fails_at_once_is_counted_as_it_was():
    workers = RESTART(1, max_restarts=1_000)
    algorithm = LEARNERS["ppo"]
    state = algorithm.init(random.key(0), Walk.observation_space, Walk.action_space)
    environment = make(lambda: Walk("raise", at=1, every=2), 3, workers=workers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        played = evaluation.evaluate(algorithm, environment, state, random.key(1), 20, 100)
    assert 0 < played.unfinished < 20
    np.testing.assert_array_equal(played.lengths, np.where(played.finished, 10, 0))
    assert (played.returns[~played.finished] == 0).all()
    assert (environment._left == 0).all()
    environment.close()


def test_a_copy_that_was_cut_and_rests_is_not_repeated():
    environment = make(Walk, 2, workers=RESTART(1))
    environment.reset(random.key(0), np.array([1, 2]))
    environment.step((), np.zeros(2, np.int32))
    environment.cut(np.array([True, False]))
    assert list(environment.hands._running) == [1]
    for one in environment.hands._staff:
        os.kill(one.process.pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match="started anew"):
        environment.step((), np.zeros(2, np.int32))
    assert environment._left.tolist() == [0, 2]
    environment.close()


def test_long_waits_and_answers_that_nobody_has_read_are_no_fault():
    environment = make(Walk, 2, workers=Workers(1, timeout=1e9))
    play(environment)
    environment.hands._staff[0].ask("begin", {0: 1})  # as an error or a signal leaves it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environment.close()
    assert processes() == []


# --- nothing is left behind, nothing else is run ----------------------------------------------------------------------

SCRIPT = """
import os, sys, time
import gymnasium, numpy as np
import thorndike as td
from gymnasium import spaces

class Mine(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        time.sleep(0.002)
        return np.zeros(2, np.float32), 1.0, False, self.np_random.random() < 0.1, {}

gymnasium.register("Mine-v0", Mine)
print("once", 0, flush=True)
"""


def test_a_script_needs_no_guard_and_its_classes_and_ids_are_known_to_workers(tmp_path):
    ends = "td.train(td.DQN(num_environments=2, warmup_steps=10), {}, steps=60, workers=2, run_dir=None, quiet=True)\n"
    path = tmp_path / "script.py"
    path.write_text(SCRIPT + ends.format("Mine") + ends.format("'Mine-v0'"))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("once") == 1


def test_the_command_s_module_is_found_by_workers_and_nothing_else_in_the_folder_is_run(tmp_path):
    (tmp_path / "my_module.py").write_text(SCRIPT.replace("print(", "(lambda *a, **k: None)("))
    for name in ("pickle", "multiprocessing", "numpy", "struct", "gymnasium", "flax"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger was run')")
    flags = "--steps 60 --num-environments 2 --warmup-steps 10 --workers 2 --run-dir none --quiet"
    command = [sys.executable, "-m", "thorndike", "train", "dqn", "my_module:Mine-v0", *flags.split()]
    environment = os.environ | {"PYTHONPATH": str(Path(td.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "stranger" not in done.stdout + done.stderr


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    path = tmp_path / "script.py"
    algorithm = "td.DQN(num_environments=2, warmup_steps=10)"
    train = f"td.train({algorithm}, Mine, steps=10**6, workers=2, run_dir=None, quiet=True)\n"
    path.write_text(
        SCRIPT.replace("time.sleep(0.002)", "os.write(1, b'step %d\\n' % os.getpid()); time.sleep(0.5)") + train
    )
    shared = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    parent = subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    workers: set[int] = set()
    while len(workers) < 2:
        word, pid = parent.stdout.readline().split()
        workers |= {int(pid)} if word == "step" else set()
    parent.kill()
    parent.wait()
    end = time.monotonic() + 10
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < end, "a worker has outlived its parent"
        time.sleep(0.05)
    if shared:
        assert set(os.listdir("/dev/shm")) <= shared


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_environment_may_have_processes_which_it_can_end(tmp_path):
    told = tmp_path / "pid"
    environment = make(partial(WithProcesses, told), 1, workers=1)
    pid = int(told.read_text())
    assert alive(pid)
    began = time.monotonic()
    environment.close()
    assert time.monotonic() - began < 4
    assert not alive(pid)


def test_signals_of_a_terminal_are_left_to_the_parent():
    """Ctrl-C reaches every process of a terminal: workers go on, so that the run can be saved."""
    environment = make(Walk, 2, workers=2)
    said = play(environment, ACTIONS[:5])
    for one in environment.hands._staff:
        os.kill(one.process.pid, signal.SIGINT)
        os.kill(one.process.pid, signal.SIGTERM)
    assert play(environment, ACTIONS[:5]) == said
    environment.close()


def test_an_extra_that_is_missing_in_a_worker_is_named():
    with pytest.raises(MissingExtraError, match="is not installed"):
        make(partial(importing, "no_such_simulator"), 1, workers=1)


def importing(name):
    raise ImportError(f"No module named {name!r}: it is not installed")
