"""Environments that fail in worker processes, once or whenever a certain step is taken."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces


class Walk(gymnasium.Env):
    """A walk of ten steps, in which a step in the direction that is seen is worth 1; it fails as it is told to.

    Where `fails` is given, the step `at` of an episode whose seed is a multiple of `every` fails in that way; with a
    file `once` only the first that finds it missing. `seconds` is what every step takes.
    """

    observation_space = spaces.Box(-1, 1, (3,))
    action_space = spaces.Discrete(2)

    def __init__(self, fails="", at=4, every=1, once=None, seconds=0.0):
        self.fails, self.at, self.every, self.seconds = fails, at, every, seconds
        self.once = Path(once) if once else None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.doomed = 0, seed % self.every == 0
        if self.fails == "reset" and self.doomed and self.first():
            raise RuntimeError("no fuel")
        return self.seen(), {}

    def step(self, action):
        self.t += 1
        if self.seconds:
            time.sleep(self.seconds)
        if self.fails and self.t == self.at and self.doomed and self.first():
            self.fail()
        reward = float(action == int(self.observation[0] > 0))
        return self.seen(), reward, self.t >= 10, False, {"t": self.t, "odd": object()}

    def seen(self):
        self.observation = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.observation

    def first(self):
        if self.once is None:
            return True
        try:
            self.once.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def fail(self):
        if self.fails == "die":
            print("the bearings are worn", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fails == "leave":
            os._exit(3)
        if self.fails == "hang":
            time.sleep(3600)
        raise RuntimeError("engine is cold")


class Rich(Walk):
    """Observations in parts, with a mask, and whether this process has imported JAX."""

    observation_space = spaces.Dict(
        {
            "position": spaces.Box(-1, 1, (3,)),
            "counts": spaces.Tuple((spaces.Discrete(11), spaces.Box(0, 255, (2, 2), np.uint8))),
            "action_mask": spaces.MultiBinary(2),
            "jax": spaces.Discrete(2),
        }
    )

    def seen(self):
        picture = np.full((2, 2), self.t, np.uint8)
        mask = np.array([1, self.t % 2], np.int8)
        parts = {"position": super().seen(), "counts": (self.t, picture), "action_mask": mask}
        return parts | {"jax": int("jax" in sys.modules)}


class WithProcesses(Walk):
    """Has a process of multiprocessing's and a program of its own, which it ends when it is closed."""

    def __init__(self, told):
        super().__init__()
        ours = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
        ours.start()
        ours.join()
        self.program = subprocess.Popen(["sleep", "600"])
        Path(told).write_text(str(self.program.pid))

    def close(self):
        self.program.terminate()
        self.program.wait()


class Unmakeable(Walk):
    """Cannot be made."""

    def __init__(self):
        raise FileNotFoundError("no map")
