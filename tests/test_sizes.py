"""What a run takes and what the machine has, compared before anything is compiled or allocated."""

from __future__ import annotations

import dataclasses
import os
import shutil

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import random

import thorndike as td
from thorndike import core, machine, trainer
from thorndike.environments import make
from thorndike.errors import SettingError
from thorndike.networks import CNN, MLP
from thorndike.runs import sizes
from thorndike.runs.configuration import Configuration

SMALL = MLP((8,))
CAR = spaces.Box(0, 255, (96, 96, 3), np.uint8), spaces.Box(-1, 1, (3,), np.float32)
VECTOR = spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(2)
SAC = td.SAC(network=CNN((4,), (8,), (4,), (8,)), critic_network=CNN((4,), (8,), (4,), (8,)))
DQN = td.DQN(network=SMALL, num_environments=2, memory=td.Replay(1_000, 8))
PPO = td.PPO(network=SMALL, critic_network=SMALL, num_environments=4, rollout_length=16, batch_size=16)


def configured(algorithm, spaces_, **changes):
    observation_space, action_space = spaces_
    run = Configuration(
        algorithm, "Env-v0", True, {}, True, observation_space, action_space, steps=10_000, seed=0, seeds=1,
        evaluate_every=0, evaluate_episodes=1, final_episodes=1, checkpoint_every=1_000,
    )  # fmt: skip
    return dataclasses.replace(run, **changes)


def with_free(monkeypatch, memory=None, disk=10**15):
    monkeypatch.setattr(machine, "free_memory", lambda: memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(disk, 0, disk))


# What a run takes


@pytest.mark.parametrize("algorithm", [DQN, dataclasses.replace(DQN, memory=td.Prioritized(999, 8, window=3)), PPO])
def test_the_estimate_of_state_and_memory_is_what_a_run_begins_with(algorithm):
    environment = make("CartPole-v1", algorithm.num_environments)
    found = sizes.estimate(algorithm, environment.observation_space, environment.action_space)
    keys = random.split(random.key(0))
    begun = jax.eval_shape(lambda a, b: core.start(algorithm, environment, *environment.reset(a), b), *keys)
    assert found.state == sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(begun.state))
    assert found.memory == sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(begun.memory))
    a_step = 42 + 4 * (algorithm is PPO)  # two observations, action, reward, two flags; of PPO log_prob
    assert found.rollout == trainer.steps_per_iteration(algorithm) * a_step


def test_an_image_memory_too_large_is_refused_with_the_numbers_and_the_capacity_that_fits(monkeypatch):
    """SAC at its default capacity on 96 x 96 x 3 images: 55 GB, of which nothing may be allocated here."""
    with_free(monkeypatch, memory=20_000_000_000)
    with pytest.raises(SettingError) as caught:
        sizes.check(configured(SAC, CAR), None)
    assert str(caught.value) == (
        "SAC needs 55.4 GB of memory, 20.0 GB are free; its memory of 1,000,000 steps takes 55.3 GB: "
        "set memory.capacity to 360,000 or less"
    )
    fitting = dataclasses.replace(SAC, memory=td.Replay(360_000, 256))
    assert sizes.check(configured(fitting, CAR), None) == ""


ATARI = spaces.Box(0, 255, (84, 84, 4), np.uint8), spaces.Discrete(6)


@pytest.mark.parametrize(("plain", "of_frames"), [(td.Replay, td.FrameReplay), (td.Prioritized, td.PrioritizedFrames)])
def test_where_whole_images_do_not_fit_and_their_frames_would_that_is_said(monkeypatch, plain, of_frames):
    with_free(monkeypatch, memory=24_000_000_000)
    whole, frames = (dataclasses.replace(DQN, memory=kind(1_000_000, 32)) for kind in (plain, of_frames))
    with pytest.raises(SettingError) as caught:
        sizes.check(configured(whole, ATARI), None)
    said = r"its memory of 1,000,000 steps takes 56.5 GB: set memory.capacity to 420,000 or less, or store each frame"
    assert f"{said} once: memory={of_frames.__name__}(...) takes 7.5 GB" in str(caught.value)
    assert sizes.check(configured(frames, ATARI), None) == ""
    found = sizes.estimate(frames, *ATARI)
    assert found.memory < 8e9
    with_free(monkeypatch, memory=4_000_000_000)
    with pytest.raises(SettingError, match=r"takes 7.5 GB: set memory.capacity to 530,000 or less$"):
        sizes.check(configured(frames, ATARI), None)


def test_the_size_of_a_checkpoint_of_frames_is_that_of_those_written_and_says_what_it_cannot_know(
    tmp_path, monkeypatch
):
    with_free(monkeypatch)
    run = configured(dataclasses.replace(DQN, memory=td.FrameReplay(100_000, 8)), ATARI, steps=20_000)
    assert sizes.check(run, tmp_path) == "each checkpoint takes up to 154 MB, more where episodes are short"
    assert sizes.check(dataclasses.replace(run, steps=100_000), tmp_path) == "each checkpoint takes up to 755 MB"


def test_seeds_side_by_side_need_their_memories_together(monkeypatch):
    with_free(monkeypatch, memory=100_000_000_000)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    sizes.check(configured(SAC, CAR), None)
    with pytest.raises(
        SettingError, match=r"110\.\d GB of memory for 2 seeds side by side.* memory.capacity to 900,000"
    ):
        sizes.check(configured(SAC, CAR, seeds=5), None)
    sizes.check(configured(SAC, CAR, seeds=5, compiled=False), None)  # one after another on the host


def test_a_rollout_or_networks_too_large_are_refused_by_their_settings(monkeypatch):
    with_free(monkeypatch, memory=1_000_000_000)
    long = dataclasses.replace(PPO, rollout_length=10**7)
    with pytest.raises(SettingError, match=r"10,000,000 steps in 4 environments .* lower rollout_length or num_env"):
        sizes.check(configured(long, VECTOR), None)
    for algorithm in (PPO, DQN):
        wide = dataclasses.replace(algorithm, network=MLP((20_000, 20_000), initialization="default"))
        with pytest.raises(SettingError, match=r"networks and optimizers take .* GB: choose smaller networks"):
            sizes.check(configured(wide, VECTOR), None)


def test_nothing_is_refused_where_nobody_knows_what_is_free(monkeypatch):
    with_free(monkeypatch, memory=None)
    assert sizes.check(configured(SAC, CAR), None) == ""


# Checkpoints


def test_checkpoints_that_the_disk_cannot_hold_are_refused_with_what_to_change(monkeypatch, tmp_path):
    with_free(monkeypatch, disk=50_000_000)
    large = configured(DQN, (CAR[0], VECTOR[1]))  # 1,000 steps of 55 kB, and networks
    with pytest.raises(SettingError) as caught:
        sizes.check(large, tmp_path / "not" / "there")
    said = str(caught.value)
    assert "59 MB each need 294 MB" in said  # three stay, one is being written, and as much stays free
    assert "50 MB are free" in said
    assert all(word in said for word in ("checkpoint_every=0", "memory.capacity", "run_dir"))
    with_free(monkeypatch, disk=120_000_000)
    assert sizes.check(dataclasses.replace(large, checkpoint_every=0), tmp_path) == ""


def test_a_large_checkpoint_is_told_and_counts_only_the_rows_that_a_run_will_write(monkeypatch, tmp_path):
    with_free(monkeypatch)
    large = dataclasses.replace(DQN, memory=td.Replay(10_000, 8))
    run = configured(large, (CAR[0], VECTOR[1]))
    assert sizes.check(run, tmp_path) == "each checkpoint takes up to 557 MB"
    assert sizes.check(dataclasses.replace(run, steps=1_000), tmp_path) == ""
    assert sizes.check(run, None) == ""
    found = sizes.estimate(run.algorithm, run.observation_space, run.action_space)
    evaluated = dataclasses.replace(run, evaluate_every=1_000)  # then it holds the best state beside the newest
    assert sizes.checkpoint_size(evaluated, found) == sizes.checkpoint_size(run, found) + found.state


@pytest.mark.parametrize(("size", "said"), [(55_314_000_000, "55.3 GB"), (1.5e6, "2 MB"), (2e12, "2,000.0 GB")])
def test_sizes_are_said_in_the_unit_that_fits(size, said):
    assert sizes.in_words(size) == said


# What the machine has


@pytest.fixture
def a_machine(monkeypatch, tmp_path):
    """A function that writes files of a machine's /proc and /sys/fs/cgroup; cores are 8 unless bound to fewer."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUP", tmp_path / "cgroup")
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


VERSION_2 = {"proc__self__cgroup": "0::/a/b\n"}
VERSION_1 = {"proc__self__cgroup": "7:cpu,cpuacct:/a\n5:memory:/m\n2:freezer:/\n"}
V1_CPU = {"cgroup__cpu__a__cpu_dot_cfs_quota_us": "-1", "cgroup__cpu__a__cpu_dot_cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        (VERSION_2, 8),
        (VERSION_2 | {"cgroup__a__b__cpu_dot_max": "max 100000"}, 8),
        (VERSION_2 | {"cgroup__a__b__cpu_dot_max": "200000 100000"}, 2),
        (VERSION_2 | {"cgroup__a__b__cpu_dot_max": "max 100000", "cgroup__a__cpu_dot_max": "150000 100000"}, 2),
        (VERSION_2 | {"cgroup__cpu_dot_max": "10000 100000"}, 1),
        (VERSION_1 | V1_CPU, 8),
        (VERSION_1 | V1_CPU | {"cgroup__cpu__a__cpu_dot_cfs_quota_us": "300000"}, 3),
    ],
)
def test_cores_are_no_more_than_the_cgroup_has_time_for(a_machine, files, expected):
    a_machine(**files)
    assert machine.cores() == expected


def test_cores_are_those_that_the_process_is_bound_to(a_machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5}, raising=False)
    assert machine.cores() == 2
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert machine.cores() == 3  # Python 3.13 and later, which also knows what -X cpu_count says
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cores() == 1


def test_seeds_have_as_many_threads_as_there_are_cores_to_use(a_machine, monkeypatch):
    environment = make("CartPole-v1", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert trainer._best_parallel(environment, 3, own_networks=True) == "sequential"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert trainer._best_parallel(environment, 3, own_networks=True) == "threads"


AVAILABLE = {"proc__meminfo": "MemTotal:       9000 kB\nMemAvailable:    4000 kB\n"}
V2_MEMORY = {
    "cgroup__a__memory_dot_max": "3000000",
    "cgroup__a__memory_dot_current": "2500000",
    "cgroup__a__memory_dot_stat": "anon 1500000\ninactive_file 700000\nactive_file 300000\n",
}
V1_MEMORY = {
    "cgroup__memory__m__memory_dot_limit_in_bytes": "3000000",
    "cgroup__memory__m__memory_dot_usage_in_bytes": "2500000",
    "cgroup__memory__m__memory_dot_stat": "inactive_file 1\ntotal_inactive_file 900000\ntotal_active_file 100000\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (AVAILABLE, 4_096_000),
        (AVAILABLE | VERSION_2 | V2_MEMORY, 1_500_000),  # of 3 MB, what 1.5 MB of used and not only cached leave
        (AVAILABLE | VERSION_2 | V2_MEMORY | {"cgroup__a__memory_dot_max": "max"}, 4_096_000),
        (AVAILABLE | VERSION_1 | V1_MEMORY, 1_500_000),
        (AVAILABLE | VERSION_2 | V2_MEMORY | {"cgroup__a__memory_dot_current": "9000000"}, 0),
    ],
)
def test_free_memory_is_what_machine_and_cgroup_leave(a_machine, files, expected):
    a_machine(**files)
    assert machine.free_memory() == expected


def test_where_there_is_no_proc_the_system_is_asked_and_may_not_know(a_machine, monkeypatch):
    monkeypatch.setattr(os, "sysconf_names", {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 2}, raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.get, raising=False)
    assert machine.free_memory() == 40_960
    monkeypatch.setattr(os, "sysconf_names", {})
    assert machine.free_memory() is None


def test_this_machine_is_read():
    assert 1 <= machine.cores() <= os.cpu_count()
    assert machine.free_memory() is None or machine.free_memory() > 0
    assert jnp.zeros(1).devices()  # and where training takes place
    assert sizes.free_memory() is None or sizes.free_memory() > 0


# What no run can have


def acting(observation_space, action_space):
    class Environment(gymnasium.Env):
        def reset(self, *, seed=None, options=None):
            return observation_space.sample(), {}

    Environment.observation_space, Environment.action_space = observation_space, action_space
    return Environment


NUMBERS, CHOICE = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)
NEVER = {
    "no action": (NUMBERS, spaces.Box(-1, 1, (0,)), "an action must hold a choice or a number"),
    "an action without end": (NUMBERS, spaces.Box(-1, 1, (2**21,)), "1,048,576 numbers, got 2,097,152"),
    "nothing to see": (spaces.Box(-1, 1, (0,)), CHOICE, "nothing to see"),
    "one choice without end": (spaces.Discrete(2**31 - 1), CHOICE, "GB are free"),
    "choices without end": (spaces.MultiDiscrete([2**30, 2**30]), CHOICE, "no network has 2,147,483,648 features"),
    "actions without end": (NUMBERS, spaces.Discrete(2**31 - 1), "GB are free"),
}


@pytest.mark.parametrize(("observation_space", "action_space", "said"), NEVER.values(), ids=NEVER)
def test_spaces_that_no_network_fits_are_refused_before_anything_is_built(observation_space, action_space, said):
    with pytest.raises(td.ThorndikeError, match=said):
        td.train(PPO, acting(observation_space, action_space), 64, run_dir=None, quiet=True, evaluate_every=0)
