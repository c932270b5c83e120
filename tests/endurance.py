"""What a run holds while it goes on: memory, arrays, threads, descriptors and compiled programs, chunk by chunk.

As a script it plays one of `RUNS` and prints one line of JSON, for a test to judge: `python endurance.py NAME FOLDER`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

import thorndike as td
from thorndike.runs import recording

COMPILED, HOST = 1_000_000, 200_000  # steps
MIB = 2**20
OF_COMPILING = "/jax/core/compile/backend_compile_duration"  # one event a program, also where the cache has it


class Held(NamedTuple):
    """What the process held once `steps` were taken, recorded, saved and evaluated."""

    steps: int
    memory: int  # bytes, resident
    arrays: int  # of JAX, alive
    threads: int
    descriptors: int
    programs: int  # compiled so far


@contextlib.contextmanager
def held() -> Iterator[list[Held]]:
    """What the process holds after each chunk of the runs inside."""
    found: list[Held] = []
    programs = 0

    def count(event: str, *_: Any, **__: Any) -> None:
        nonlocal programs
        programs += event == OF_COMPILING

    take = recording.Recording.take

    def taken(self: Any, chunk: Any) -> None:
        take(self, chunk)
        gc.collect()
        with open("/proc/self/statm") as file:
            memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        threads, descriptors = (len(os.listdir(f"/proc/self/{kind}")) for kind in ("task", "fd"))
        found.append(Held(chunk.steps, memory, len(jax.live_arrays()), threads, descriptors, programs))

    jax.monitoring.register_event_duration_secs_listener(count)
    gc.freeze()  # what is there already need not be looked through at each chunk
    try:
        with mock.patch.object(recording.Recording, "take", taken):
            yield found
    finally:
        gc.unfreeze()
        jax.monitoring.unregister_event_duration_listener(count)


def settled(found: list[Held]) -> list[Held]:
    """Without the first quarter, in which everything is compiled, allocated and filled for the first time, and the end.

    The last chunk holds the final evaluation, which comes once.
    """
    return [each for each in found if found[-1].steps / 4 < each.steps < found[-1].steps]


def slope(found: list[Held]) -> float:
    """MiB that the resident memory grows per 100,000 steps: the median of all pairs' slopes (Theil and Sen).

    Pairs nearer than a quarter of the time say more of the allocator than of a leak.
    """
    steps, memory = (np.array([each[i] for each in found], float) for i in (0, 1))
    apart, grown = steps[None] - steps[:, None], memory[None] - memory[:, None]
    far = apart >= (steps[-1] - steps[0]) / 4
    return float(np.median(grown[far] / apart[far])) * 1e5 / MIB


def growing(found: list[Held]) -> dict[str, tuple[int, int]]:
    """What was counted higher through most of the second half than ever in the first: its name, and the two counts.

    What grows does not come down again; with several seeds a single count depends on where the other threads are.
    """
    half = len(found) // 2
    counts = {name: ([getattr(each, name) for each in part] for part in (found[:half], found[half:]))
              for name in ("arrays", "threads", "descriptors", "programs")}  # fmt: skip
    compared = {name: (max(first), int(np.median(second))) for name, (first, second) in counts.items()}
    return {name: (before, after) for name, (before, after) in compared.items() if after > before}


TINY = td.MLP((8,))
ON_POLICY: dict[str, Any] = {"network": TINY, "num_environments": 8}
FEW = (
    2  # copies on the host: the actions that are kept, of 20,000 steps of each, are all there before a quarter is over
)
OFF_POLICY = ON_POLICY | {"rollout_length": 64, "updates_per_rollout": 1, "warmup_steps": 1000}
REPLAY, PRIORITIZED = td.Replay(4096, 32), td.Prioritized(4096, 32)
ALGORITHMS: dict[str, tuple[Any, str]] = {
    "dqn": (td.DQN(**OFF_POLICY, memory=REPLAY), "CartPole-v1"),
    "dqn prioritized": (td.DQN(**OFF_POLICY, memory=PRIORITIZED), "CartPole-v1"),
    "ppo": (td.PPO(**ON_POLICY, rollout_length=128, batch_size=256, epochs=1), "CartPole-v1"),
    "reinforce": (td.REINFORCE(**ON_POLICY), "CartPole-v1"),
    "sac": (td.SAC(**OFF_POLICY, memory=REPLAY), "Pendulum-v1"),
    "td3": (td.TD3(**OFF_POLICY | {"updates_per_rollout": 2}, memory=REPLAY), "Pendulum-v1"),
    "ddpg": (td.DDPG(**OFF_POLICY, memory=REPLAY), "Pendulum-v1"),
}


def few(algorithm: Any) -> Any:
    """The same in fewer copies, which on the host are stepped one by one."""
    return dataclasses.replace(algorithm, num_environments=FEW)


RUNS: dict[str, tuple[Any, str, int, int]] = {  # algorithm, environment, steps, seeds
    **{f"{name}, compiled": (algorithm, id, COMPILED, 1) for name, (algorithm, id) in ALGORITHMS.items()},
    **{
        f"{name}, Gymnasium": (few(algorithm), f"gymnasium:{id}", HOST, 1)
        for name, (algorithm, id) in ALGORITHMS.items()
    },
    "ppo, EnvPool": (few(ALGORITHMS["ppo"][0]), "envpool:CartPole-v1", HOST, 1),
    "dqn, compiled, two seeds side by side": (ALGORITHMS["dqn"][0], "CartPole-v1", COMPILED, 2),
}

if __name__ == "__main__":
    name, folder = sys.argv[1:]
    algorithm, environment, steps, seeds = RUNS[name]
    with held() as found:
        td.train(algorithm, environment, steps, seeds=seeds, run_dir=folder, quiet=True)
    print(json.dumps(found))
