"""Environments for tests of `td.check`: one that is sound, and others that each break one thing."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces


class Sound(gymnasium.Env):
    """A point on a line: it is pushed, drifts at random, and leaves or is stopped."""

    observation_space = spaces.Box(-3.0, 3.0, (2,))
    action_space = spaces.Box(-1.0, 1.0, (1,))
    limit = 60

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.speed, self.steps = self.np_random.uniform(-0.5, 0.5), 0.0, 0
        return self.observation(), {}

    def step(self, action):
        self.speed = 0.9 * self.speed + 0.1 * float(action[0]) + self.noise()
        self.place += self.speed
        self.steps += 1
        terminated = abs(self.place) > 1.5
        self.place = float(np.clip(self.place, -3, 3))
        return self.observation(), self.reward(), terminated, self.steps >= self.limit, {}

    def noise(self):
        return 0.02 * self.np_random.standard_normal()

    def reward(self):
        return 1.0 - abs(self.place)

    def observation(self):
        return np.array([self.place, self.speed], np.float32)


# --- wrong ------------------------------------------------------------------------------------------------------------


class GlobalNumpy(Sound):
    def noise(self):
        return 0.02 * np.random.standard_normal()


class GlobalPython(Sound):
    def noise(self):
        return 0.02 * random.gauss(0, 1)


class Clock(Sound):
    def noise(self):
        return (time.perf_counter_ns() % 1000) / 10_000


class SeedsGlobal(Sound):
    """Right alone; beside another copy both draw from one stream."""

    def reset(self, *, seed=None, options=None):
        np.random.seed(seed)
        return super().reset(seed=seed)

    noise = GlobalNumpy.noise


class SharedList(Sound):
    past: ClassVar[list] = []

    def noise(self):
        self.past.append(self.place)
        return 0.02 * float(np.sin(len(self.past)))


class SharedCounter(Sound):
    count = 0

    def noise(self):
        SharedCounter.count += 1
        return 0.02 * float(np.sin(SharedCounter.count))


class SharedPlace(Sound):
    """The copies stand in one place, which each reset puts anew."""

    shared: ClassVar[dict] = {}

    @property
    def place(self):
        return self.shared["place"]

    @place.setter
    def place(self, value):
        self.shared["place"] = value


class CarriedOver(Sound):
    """Its speed survives the reset."""

    carried = 0.0

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        self.speed = self.carried
        return self.observation(), info

    def step(self, action):
        answer = super().step(action)
        self.carried = self.speed
        return answer


class OwnGenerator(Sound):
    """Its own generator is made once, and never seeded again."""

    def __init__(self):
        self.generator = np.random.default_rng(7)

    def noise(self):
        return 0.02 * self.generator.standard_normal()


class NotANumber(Sound):
    def observation(self):
        return np.array([self.place, np.nan if self.steps == 5 else self.speed], np.float32)


class WrongShape(Sound):
    def observation(self):
        return np.zeros(3, np.float32)


class FloatsForChoices(Sound):
    observation_space = spaces.MultiDiscrete([4, 4])


class RewardOfNone(Sound):
    def reward(self):
        return None


class RewardNaN(Sound):
    def reward(self):
        return float("nan")


class Raises(Sound):
    def reward(self):
        if self.steps == 9:
            raise ZeroDivisionError("division by zero")
        return 0.5


class FourValues(Sound):
    def step(self, action):
        return super().step(action)[:3]


class NothingLegal(Sound):
    observation_space = spaces.Dict(x=spaces.Box(-3.0, 3.0, (2,)), action_mask=spaces.MultiBinary(3))
    action_space = spaces.Discrete(3)

    def step(self, action):
        return super().step([action - 1])

    def observation(self):
        return {"x": super().observation(), "action_mask": np.full(3, self.steps != 7, np.int8)}


class MaskOfWrongShape(NothingLegal):
    observation_space = spaces.Dict(x=spaces.Box(-3.0, 3.0, (2,)), action_mask=spaces.MultiBinary(4))


class OldSpaces(Sound):
    observation_space = spaces.Text(10)


class OnlyOnce(Sound):
    """A second copy may not be made beside the first."""

    there = 0

    def __init__(self):
        if OnlyOnce.there:
            raise OSError("the port is in use")
        OnlyOnce.there += 1

    def close(self):
        OnlyOnce.there = 0


ONE = Sound()


def one_and_the_same():
    return gymnasium.Wrapper(ONE)


# --- unwise -----------------------------------------------------------------------------------------------------------


class Unbounded(Sound):
    action_space = spaces.Box(-np.inf, np.inf, (1,))


class HugeBounds(Sound):
    action_space = spaces.Box(-3e38, 3e38, (1,))

    def step(self, action):
        return super().step(np.sign(action))


class OneAction(Sound):
    action_space = spaces.Discrete(1)

    def step(self, action):
        return super().step([0.0])


class Unscaled(Sound):
    observation_space = spaces.Box(-3000.0, 3000.0, (2,))

    def observation(self):
        return super().observation() * np.float32(1000)


class Uneven(Sound):
    def observation(self):
        return super().observation() * np.array([1.0, 0.001], np.float32)


class Bytes(Sound):
    observation_space = spaces.Box(0, 255, (2,), np.uint8)

    def observation(self):
        return np.clip(128 + 80 * super().observation(), 0, 255).astype(np.uint8)


class Timestamps(Sound):
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def observation(self):
        return np.array([1.7e9 + self.steps, self.place])


class LargeRewards(Sound):
    def reward(self):
        return 1000.0 * super().reward()


class TinyRewards(Sound):
    def reward(self):
        return 1e-6 * super().reward()


class Endless(Sound):
    limit = 10**9

    def step(self, action):
        answer = super().step(action)
        self.place = float(np.clip(self.place, -1.4, 1.4))
        return *answer[:2], False, *answer[3:]


class TerminatedAtTheLimit(Endless):
    def step(self, action):
        answer = super().step(action)
        return *answer[:2], self.steps >= 40, False, {}


class OutOfBounds(Sound):
    observation_space = spaces.Box(-1.0, 1.0, (2,))


class Rewritten(Sound):
    def observation(self):
        if not hasattr(self, "array"):
            self.array = np.zeros(2, np.float32)
        self.array[:] = super().observation()
        return self.array


class Slow(Sound):
    def noise(self):
        time.sleep(0.02)
        return super().noise()


class Blind(Sound):
    def observation(self):
        return np.ones(2, np.float32)


class MaskInInfo(Sound):
    action_space = spaces.Discrete(3)

    def reset(self, **given):
        return super().reset(**given)[0], {"action_mask": np.ones(3, np.int8)}

    def step(self, action):
        return *super().step([action - 1])[:4], {"action_mask": np.ones(3, np.int8)}


# --- compiled ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    """The same, compiled."""

    drift: float = 0.0
    max_steps: ClassVar[int | None] = 60
    observation_space: ClassVar = spaces.Box(-3.0, 3.0, (2,))
    action_space: ClassVar = spaces.Box(-1.0, 1.0, (1,))

    def initial(self, key):
        return jnp.stack([jax.random.uniform(key, minval=-0.5, maxval=0.5), jnp.float32(0)])

    def observe(self, state):
        return jnp.clip(state, -3, 3)

    def transition(self, state, action, key):
        speed = 0.9 * state[1] + 0.1 * action[0] + self.noise(key)
        place = state[0] + speed
        return jnp.stack([place, speed]), 1 - jnp.abs(place), jnp.abs(place) > 1.5

    def noise(self, key):
        return 0.02 * jax.random.normal(key)


@dataclass(frozen=True)
class CompiledByNumpy(Compiled):
    def noise(self, key):
        return 0.02 * np.random.standard_normal()


@dataclass(frozen=True)
class CompiledCounting(Compiled):
    count: ClassVar[list] = [0]

    def noise(self, key):
        self.count[0] += 1
        return 0.01 * self.count[0]


@dataclass(frozen=True)
class CompiledStartByNumpy(Compiled):
    def initial(self, key):
        return jnp.array([np.random.uniform(-0.5, 0.5), 0.0], jnp.float32)


@dataclass(frozen=True)
class CompiledNaN(Compiled):
    def transition(self, state, action, key):
        state, reward, terminated = super().transition(state, action, key)
        return state, jnp.where(jnp.abs(state[0]) > 1, jnp.nan, reward), terminated


@dataclass(frozen=True)
class CompiledDtype(Compiled):
    def transition(self, state, action, key):
        state, reward, terminated = super().transition(state, action, key)
        return state.astype(jnp.float16), reward, terminated


@dataclass(frozen=True)
class CompiledBranch(Compiled):
    def transition(self, state, action, key):
        if state[0] > 0:
            action = -action
        return super().transition(state, action, key)


class CompiledUnhashable(Compiled):
    __hash__ = None  # type: ignore[assignment]


class CompiledByIdentity(Compiled):
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@dataclass(frozen=True)
class CompiledEndless(Compiled):
    max_steps: ClassVar = None

    def transition(self, state, action, key):
        state, reward, _ = super().transition(0.5 * state, action, key)
        return state, reward, jnp.bool_(False)


@dataclass(frozen=True)
class CompiledNoChoice(Compiled):
    observation_space: ClassVar = spaces.Discrete(3)

    def observe(self, state):
        return jnp.int32(jnp.round(4 * jnp.abs(state[0])))


@dataclass(frozen=True)
class CompiledStuck(Compiled):
    observation_space: ClassVar = spaces.Dict(x=spaces.Box(-3.0, 3.0, (2,)), action_mask=spaces.MultiBinary(2))
    action_space: ClassVar = spaces.Discrete(2)

    def observe(self, state):
        return {"x": state, "action_mask": jnp.array([state[0] > 0.3, state[0] < 0.1]).astype(jnp.int8)}

    def transition(self, state, action, key):
        return super().transition(state, 2.0 * action[None] - 1, key)


class CompiledRemembering(Compiled):
    def noise(self, key):
        object.__setattr__(self, "last", 1.0)
        return super().noise(key)
