"""EnvPool's environments: copies stepped together in C++, each reset in the very step that ends its episode.

EnvPool promises speed and checks nothing. Here actions are checked on the way in, and observations and rewards on the
way out, for all copies at once. What differs from Gymnasium is mended: the reset is no step of its own, and an episode
that ends by itself in the very step of its time limit is both terminated and truncated.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np

from thorndike import spaces
from thorndike.core import Step
from thorndike.environments import repeating
from thorndike.environments.boundary import PASSING, guarded, told
from thorndike.environments.making import registered
from thorndike.environments.repeating import EVERYONE, Repeatable, among, episode_seed, write
from thorndike.errors import (
    EnvironmentFault,
    MissingExtraError,
    SettingError,
    UnknownNameError,
    UnsuitableError,
    nearest,
)

PyTree = Any
NO_LIMIT = 2**31 - 1  # EnvPool's word for it
PROBE = 200  # steps of each half of `_steps_leave_traces`

# Families whose originals are cut short by Gymnasium's TimeLimit, from outside, and know nothing of the limit. Others
# keep time themselves, or show it: MiniGrid's rewards depend on it.
CUT_FROM_OUTSIDE = {
    "envpool.box2d",
    "envpool.classic_control",
    "envpool.mujoco.gym",
    "envpool.mujoco.robotics",
    "envpool.toy_text",
}
# Families whose step takes less time than waking a second thread.
LIGHT = {"envpool.classic_control", "envpool.minigrid", "envpool.toy_text"}
# What thorndike gives to `envpool.make` itself, and where it is said instead.
IN_THREADS = "EnvPool steps its copies in threads of its own"  # why there are no worker processes
OURS = {
    "num_envs": "the number of copies is num_environments",
    "seed": "seeds follow from the run's seed",
    "env_seed": "seeds follow from the run's seed",
    "batch_size": "all copies are stepped together",
    "max_num_players": "there is one player",
    "env_type": "the interface is Gymnasium's",
    "gym_reset_return_info": "the interface is Gymnasium's",
}


class EnvPool(Repeatable):
    """Copies of one EnvPool environment as a `core.Environment`.

    EnvPool takes one seed per copy, when the pool is made: `reset` and `restore` make a new one. Each copy then draws
    from its own stream for good, so that the number of its resets says where in the stream its episode began.
    """

    def __init__(self, id: str, num_environments: int, arguments: Mapping[str, Any]) -> None:
        """`arguments` are those of `envpool.make`, among them `max_episode_steps` and `num_threads`."""
        self._id, self._arguments = id, dict(arguments)
        spec = self._made("make_spec", num_environments)
        if spec.config.max_num_players != 1:
            raise UnsuitableError(f"{id} is for {spec.config.max_num_players} players, only one is supported")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium's, on the precision of bounds that EnvPool gives it
            observation_space, action_space = spec.gymnasium_observation_space, spec.gymnasium_action_space
        super().__init__(num_environments, observation_space, action_space)
        self._continuous = isinstance(self.action_space, gymnasium.spaces.Box)
        self._action_name, array = list(spec.action_array_spec.items())[-1]
        self._action_type, self._action_shape = array.dtype, [size for size in array.shape if size != -1]
        limit, family = spec.config.max_episode_steps, _family(id)
        self.max_steps = limit if 0 < limit < NO_LIMIT else None
        self._limit = limit if family in CUT_FROM_OUTSIDE and limit > 0 else NO_LIMIT
        if self._limit < NO_LIMIT:
            # EnvPool drops `terminated` in the step of the time limit. So its own comes too late, and ours holds.
            self._arguments["max_episode_steps"] = limit + 1
        self._arguments.setdefault("num_threads", 1 if family in LIGHT else 0)  # 0: as many as there are cores
        self._pool: Any = None

    def reset(self, key: jax.Array, episodes: np.ndarray | None = None) -> tuple[tuple, PyTree]:
        """New episodes everywhere: ((), observation [N, ...]). The key fixes every later episode too.

        With `episodes` [N] each copy rests after so many: it is neither stepped nor reset, and looks as it did last.
        """
        self._start_with_key(key, episodes)
        self._pool = self._pool_of(self._seeds())
        self._observation = self._first(self._everyone)
        return (), self._observation

    def step(self, env_state: Any, action: Any, key: Any = None) -> tuple[tuple, Step]:
        """One canonical action [N, ...] for every copy; `env_state` and `key` mean nothing here.

        The arrays that are returned are never written again: JAX may go on reading them.
        """
        real = self._handed_over(action)
        if not self._continuous:
            self._check_choices(real)
        copies = self._playing
        self._length[copies] += 1
        numbers = self._everyone[copies]
        answer, reward, terminated, truncated, info = self._stepped(real[copies], numbers)
        following = self._plain(answer, numbers)
        if reward.shape != numbers.shape or not np.isfinite(reward).all():
            self._blame(reward, numbers)
        truncated = truncated | (self._length[copies] >= self._limit)
        if self.infos.names:
            columns = {name: x for name, x in info.items() if isinstance(x, np.ndarray) and len(x) == len(numbers)}
            for row in np.flatnonzero(terminated | truncated):
                self.infos.note({name: column[row] for name, column in columns.items()})
        if copies is not EVERYONE:
            still = self._observation, np.zeros(self.num_environments), *[self._left < 0] * 2
            following, reward, terminated, truncated = among(still, numbers, (following, reward, terminated, truncated))
        done = terminated | truncated
        self._observation = self._renewed(following, done) if done.any() else following
        return (), Step(self._observation, reward, terminated, truncated, following)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> PyTree:
        """Back to where `save` was called: the observation [N, ...].

        A new pool of the same seeds resets every copy as often as it had been reset, and repeats the actions of its
        running episode. Where that leads elsewhere or would take too long, the copy begins its next episode:
        `restarted` [N] says which, `exact` becomes False, and `notes` say why. Where the environment draws random
        numbers in its steps, earlier episodes have moved the stream by more than their resets: the present may be the
        same, but not what is to come, and this is found out and noted too. Raises CorruptCheckpointError for foreign
        arrays.
        """
        saved = self._start_with_saved(arrays)
        self._pool = self._pool_of(self._seeds())
        observation = jax.tree.map(
            lambda leaf: np.zeros((self.num_environments, *leaf.shape), leaf.dtype), self._stored
        )
        for episode in range(int(self._episode.max()) + 1):
            due = np.flatnonzero(self._episode >= episode)
            write(observation, due, self._first(due))
        reasons = self._repeat(arrays["length"], arrays["actions"], observation)
        for i in range(self.num_environments):
            if any(a[i].tobytes() != b[i].tobytes() for a, b in zip(jax.tree.leaves(observation), saved, strict=True)):
                reasons.setdefault(i, f"repeating its {self._length[i]} steps led to another observation")
        if self._episode.any() and len(reasons) < self.num_environments and self._steps_leave_traces():
            self.exact = False
            self.notes.append(
                "the environment draws random numbers in its steps, and those of past episodes are not repeated: "
                "the episodes to come may be others than without the interruption"
            )
        for i, reason in sorted(reasons.items()):
            self._give_up(i, reason)
            write(observation, [i], self._first([i]))
        self._observation = observation
        return observation

    def close(self) -> None:
        """Release the copies and their threads; `reset` makes new ones."""
        self._pool = None

    def _seeds(self) -> list[int]:
        return [episode_seed(self._run_seed, self.first_copy + i, 0) for i in range(self.num_environments)]

    def _pool_of(self, seeds: list[int]) -> Any:
        pool = self._made("make_gymnasium", len(seeds), seed=seeds)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as for the spec
            _ = pool.observation_space  # which is made, with those warnings, when it is first asked for
        return pool

    def _made(self, maker: str, n: int, **more: Any) -> Any:
        """What EnvPool's `maker` makes; whatever goes wrong in it becomes a plain error."""
        try:
            return getattr(_library(self._id), maker)(self._id, num_envs=n, **self._arguments, **more)
        except ImportError as error:
            raise MissingExtraError(f"{self._id} needs something that is not installed: {error}") from error
        except (TypeError, ValueError, AssertionError) as error:
            word = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if word and word[1] in self._arguments:
                taken = _library(self._id).make_spec(self._id).config._fields
                near = nearest(word[1], [name for name in taken if name not in OURS])
                raise SettingError(f"{self._id} has no argument '{word[1]}'.{near}") from error
            raise SettingError(f"{self._id} cannot be made with {self._arguments}: {error!s:.200}") from error
        except Exception as error:
            raise EnvironmentFault(f"{self._id} could not be made: {told(error)}") from error

    def _message(self, real: np.ndarray, copies: np.ndarray) -> dict[str, np.ndarray]:
        """Actions for some copies as EnvPool takes them: it reads other types and shapes as if they were these."""
        action = np.ascontiguousarray(real, self._action_type).reshape(len(copies), *self._action_shape)
        return {"env_id": copies, "players.env_id": copies, self._action_name: action}

    def _check_choices(self, real: np.ndarray) -> None:
        space = self.action_space
        count = space.n if isinstance(space, gymnasium.spaces.Discrete) else space.nvec
        chosen = real - space.start
        if (chosen.astype(np.uint64) >= count).any():  # those below 0 have become the largest of all
            raise SettingError(f"actions must count from 0 to below {count}, got {chosen.tolist()}")

    def _first(self, copies: Sequence[int] | np.ndarray) -> PyTree:
        """The first observations of new episodes of some copies, in the order given."""
        self._length[copies] = 0
        with guarded(f"copies {list(copies)}, run seed {self._run_seed}, reset"):
            answer = self._pool.reset(np.asarray(copies, np.int32))[0]
        return self._plain(answer, copies)

    def _stepped(self, real: np.ndarray, copies: np.ndarray) -> tuple:
        """What EnvPool answers to actions for some copies; a failure in there is that of all of them."""
        try:
            return self._pool.step(self._message(real, copies))
        except PASSING:
            raise
        except BaseException as error:
            where = f"copies {copies.tolist()}, run seed {self._run_seed}, steps {self._length[copies].tolist()}"
            raise EnvironmentFault(f"{where}: {told(error)}") from error

    def _renewed(self, following: PyTree, done: np.ndarray) -> PyTree:
        """The observations to act on next: where an episode ended, the first of the next one."""
        going_on = self._ended(np.flatnonzero(done))
        observation = jax.tree.map(np.copy, following)
        if len(going_on):
            write(observation, going_on, self._first(going_on))
        return observation

    def _plain(self, answer: PyTree, copies: Sequence[int] | np.ndarray) -> PyTree:
        """Observations of some copies as they are stored. Raises EnvironmentFault for the first that is not right."""
        observation = spaces.plain_batch(self.observation_space, self._stored, answer, len(copies))
        if observation is not None:
            return observation
        for row, i in enumerate(copies):
            try:
                spaces.plain(self.observation_space, jax.tree.map(lambda leaf, row=row: leaf[row], answer))
            except ValueError as error:
                raise self._fault(int(i), str(error)) from error
            except IndexError as error:
                raise self._fault(int(i), "observation: there is none") from error
        raise self._fault(int(copies[0]), f"observation: one of {self.observation_space} was expected")

    def _blame(self, reward: np.ndarray, copies: np.ndarray) -> None:
        """Raise for the first of some copies whose reward is not right."""
        if reward.shape != copies.shape:
            raise self._fault(int(copies[0]), f"reward: expected float32[{len(copies)}], got {spaces.outline(reward)}")
        row = int(np.flatnonzero(~np.isfinite(reward))[0])
        raise self._fault(int(copies[row]), f"reward: {reward[row]} is not a finite float32 number")

    def _repeat(self, lengths: np.ndarray, actions: np.ndarray, observation: PyTree) -> dict[int, str]:
        """Take the actions of the running episodes again, writing into `observation`; by copy, why it cannot be."""
        reasons = {
            int(i): f"its {lengths[i]} steps are too many to be repeated"
            for i in np.flatnonzero(lengths > repeating.LONGEST_REPEAT)
        }
        begin = np.where(lengths > repeating.LONGEST_REPEAT, NO_LIMIT, len(actions) - lengths)
        for t, real in enumerate(actions):
            copies = self._everyone[begin <= t]
            self._length[copies] += 1
            answer, _, terminated, truncated, _ = self._stepped(real[copies], copies)
            write(observation, copies, self._plain(answer, copies))
            for i in copies[terminated | truncated].tolist():
                reasons[i] = f"repeated, it ended after {self._length[i]} of {lengths[i]} steps"
                begin[i] = NO_LIMIT
        return reasons

    def _steps_leave_traces(self) -> bool:
        """Whether an episode's steps change later episodes, as they do where they draw from the copy's random stream.

        Of two copies with the same seed, one acts through some episodes and the other is only reset as often: do both
        go on alike?
        """
        pool, generator = self._pool_of(self._seeds()[:1] * 2), np.random.default_rng(0)
        acting, waiting, both = (np.array(copies, np.int32) for copies in ([0], [1], [0, 1]))
        for copy in (acting, waiting):
            pool.reset(copy)
        for _ in range(PROBE):
            action = _random_action(self.action_space, generator)[None]
            _, _, terminated, truncated, _ = pool.step(self._message(action, acting))
            if terminated | truncated:
                for copy in (acting, waiting):
                    pool.reset(copy)
        seen = [pool.reset(both)[0]]
        for _ in range(PROBE):
            action = _random_action(self.action_space, generator)
            answer, reward, terminated, truncated, _ = pool.step(self._message(np.stack([action, action]), both))
            seen.append((answer, reward, terminated, truncated))
            if (terminated | truncated).any():
                seen.append(pool.reset(both)[0])
        return any(leaf[0].tobytes() != leaf[1].tobytes() for leaf in jax.tree.leaves(seen))

    def _fault(self, i: int, text: str) -> EnvironmentFault:
        moment = f"step {self._length[i]}" if self._length[i] else "reset"
        seed = episode_seed(self._run_seed, self.first_copy + i, 0)
        return EnvironmentFault(
            f"copy {self.first_copy + i}, seed {seed}, episode {self._episode[i]}, {moment}: {text}"
        )


def copies_of_id(id: str, n: int, arguments: Mapping[str, Any]) -> EnvPool:
    """`n` copies of the environment that EnvPool calls `id`; `arguments` go to `envpool.make`.

    Raises MissingExtraError, UnknownNameError, SettingError or UnsuitableError.
    """
    known = _library(id).list_all_envs()
    if id not in known:
        raise UnknownNameError(f"EnvPool has no environment '{id}'.{nearest(id, known)}")
    for word in arguments:
        if word in OURS:
            raise SettingError(f"'{word}' cannot be given to {id}: {OURS[word]}")
    limit = arguments.get("max_episode_steps", 1)
    if type(limit) is not int or not 1 <= limit < NO_LIMIT:
        raise SettingError(f"max_episode_steps must be a whole number, at least 1, got {limit!r}")
    return EnvPool(id, n, arguments)


def known_ids() -> list[str]:
    """Every id that EnvPool has; MissingExtraError where it is not installed."""
    return sorted(_library("").list_all_envs())


def _library(id: str) -> Any:
    try:
        import envpool
    except ImportError as error:
        other = next((f", or use 'gymnasium:{name}'" for name in (id, f"ALE/{id}") if name in registered()), "")
        raise MissingExtraError(
            f'envpool:{id} needs EnvPool, which is not installed: pip install "thorndike[envpool]"{other}'
        ) from error
    return envpool


def ids_of(family: str) -> list[str]:
    """All environments of a part of EnvPool."""
    from envpool.registration import registry

    return [id for id in registry.specs if _family(id) == family]


def _family(id: str) -> str:
    """The part of EnvPool that an environment belongs to, "envpool.classic_control" for example."""
    from envpool.registration import registry

    return registry.specs[id][0]


def _random_action(space: Any, generator: np.random.Generator) -> np.ndarray:
    """Any action in the environment's own terms; without bounds, one around 0."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return np.asarray(generator.integers(space.n) + space.start)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return generator.integers(space.nvec) + space.start
    return spaces.to_real(space, np)(generator.uniform(-1, 1, space.shape))
