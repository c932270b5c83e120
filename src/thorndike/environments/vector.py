"""A user's own vector environment, of Gymnasium's `VectorEnv`: many copies behind one `step`, used as it is.

It may reset copies in the step that ends their episodes (SAME_STEP), in the one after (NEXT_STEP), or never by itself
(DISABLED). Here it is always the first: what an action led to is the true final observation, and no step is a dummy.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from thorndike import spaces
from thorndike.core import Step
from thorndike.environments import advice, making
from thorndike.environments.boundary import guarded
from thorndike.environments.repeating import Repeatable, episode_seed, write
from thorndike.errors import EnvironmentFault, SettingError

PyTree = Any
FINAL = ("final_obs", "final_observation")  # where `infos` holds what a reset in the same step has replaced
FINAL_INFO = "final_info"
NO_MASK = "its reset must heed options={'reset_mask': ...}, or it must be made with autoreset_mode=SAME_STEP"


class Vector(Repeatable):
    """The first `num_environments` copies of a vector environment; what it has beyond these is stepped unseen.

    It is seeded at the beginning, and draws every later episode from that. A copy's episode cannot be repeated alone: a
    run that is resumed begins new ones, and says so.
    """

    def __init__(self, environment: Any, name: str, num_environments: int, owned: bool = True) -> None:
        """`owned` says that it was made here, and is closed here. SettingError where it has too few copies."""
        advice.check_keeps_no_statistics(environment)
        self.environment, self.name, self.owned, self.count = environment, name, owned, int(environment.num_envs)
        self.mode = making.autoreset_mode(environment)
        if self.count < num_environments:
            raise SettingError(
                f"{name} has num_envs={self.count}, {num_environments} copies were asked for: make it with more, or "
                f"set num_environments={self.count}"
            )
        seen, acted = environment.single_observation_space, environment.single_action_space
        making.check_spaces(seen, acted, name)
        super().__init__(num_environments, seen, acted)
        self.single = not owned

    @property
    def copies(self) -> list[Any]:
        """The one object that all copies are behind."""
        return [self.environment]

    @property
    def surplus(self) -> int:
        """How many copies it has beyond those that are used."""
        return self.count - self.num_environments

    def reset(self, key: jax.Array, episodes: np.ndarray | None = None) -> tuple[tuple, PyTree]:
        """New episodes everywhere: ((), observation [N, ...]). The key fixes every later episode too.

        With `episodes` [N] each copy rests after so many: what it does then is not seen.
        """
        self._start_with_key(key, episodes)
        self._observation = self._first()
        return (), self._observation

    def step(self, env_state: Any, action: Any, key: Any = None) -> tuple[tuple, Step]:
        """One canonical action [N, ...] for every copy; `env_state` and `key` mean nothing here."""
        playing = self._left > 0
        real = self._handed_over(action)
        self._length[playing] += 1
        unseen = [real[:1]] * self.surplus
        with guarded(f"{self.name}.step"):
            answer = self.environment.step(np.concatenate([real, *unseen]).astype(self._real_space.dtype))
        if not isinstance(answer, tuple) or len(answer) != 5:
            raise EnvironmentFault(f"{self.name}: step must return five values, of all its copies")
        observation = self._plain(answer[0])
        reward, terminated, truncated = (self._column(answer[k], k) for k in (1, 2, 3))
        done, infos = terminated | truncated, answer[4] if isinstance(answer[4], Mapping) else {}
        following, later = observation, observation
        if done.any() and self.mode == "SAME_STEP":
            following = self._final(observation, done, infos)
        elif done.any():
            later = self._renewed_by_mask(observation, done)
        n = self.num_environments
        following, later, reward, terminated, truncated = jax.tree.map(
            lambda x: x[:n], (following, later, reward, terminated, truncated)
        )
        if not playing.all():
            following, later = (_where(playing, x, self._observation) for x in (following, later))
            columns = (reward, terminated, truncated)
            reward, terminated, truncated = (np.where(playing, x, 0).astype(x.dtype) for x in columns)
        ended = np.flatnonzero(terminated | truncated)
        self._note_infos(ended, infos)
        self._length[self._ended(ended)] = 0
        self._observation = _where(self._left > 0, later, following)
        return (), Step(self._observation, reward, terminated, truncated, following)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> PyTree:
        """New episodes everywhere, as none can be repeated: `restarted` [N] and `notes` say so."""
        self._start_with_saved(arrays)
        for i in range(self.num_environments):
            self._give_up(i, "a vector environment cannot step one copy alone")
        self._observation = self._first()
        return self._observation

    def close(self) -> None:
        """Release what it holds, with a warning where that fails: it changes nothing any more."""
        if not self.owned:
            return
        try:
            with guarded(f"{self.name} could not be closed"):
                self.environment.close()
        except EnvironmentFault as fault:
            warnings.warn(str(fault), stacklevel=2)

    def _first(self) -> PyTree:
        """What is seen of new episodes everywhere, whose seed follows from the run's and how many there have been."""
        self._length[:] = 0
        seed = episode_seed(self._run_seed, self.first_copy, int(self._episode.max())) >> 1  # count more follow
        with guarded(f"{self.name}, seed {seed}, reset"):
            observation = self.environment.reset(seed=seed)[0]
        return jax.tree.map(lambda x: x[: self.num_environments], self._plain(observation))

    def _renewed(self, following: PyTree, done: np.ndarray) -> PyTree:
        """The observations to act on next, where the episodes of some copies are to end."""
        going_on = self._ended(np.flatnonzero(done))
        self._length[going_on] = 0
        everyone = np.concatenate([done, np.zeros(self.count - len(done), bool)])
        return jax.tree.map(lambda x: x[: self.num_environments], self._renewed_by_mask(following, everyone))

    def _renewed_by_mask(self, observation: PyTree, done: np.ndarray) -> PyTree:
        """What is seen once the copies `done` [count] have begun new episodes, and only they."""
        with guarded(f"{self.name}: {NO_MASK}"):
            seen = self.environment.reset(options={"reset_mask": done.copy()})[0]
        later = self._plain(seen)
        still = ~done[: self.num_environments]
        for before, now in zip(jax.tree.leaves(observation), jax.tree.leaves(later), strict=True):
            if (before[: len(still)][still] != now[: len(still)][still]).any():
                raise EnvironmentFault(f"{self.name}: {NO_MASK}")
        return later

    def _final(self, observation: PyTree, done: np.ndarray, infos: Mapping[str, Any]) -> PyTree:
        """What the actions led to, where new episodes are seen already."""
        finals = next((infos[name] for name in FINAL if name in infos), None)
        if finals is None:
            raise EnvironmentFault(f"{self.name}: infos must hold '{FINAL[0]}' where an episode has ended")
        following = jax.tree.map(np.copy, observation)
        for i in map(int, np.flatnonzero(done)):
            if isinstance(finals, Mapping):
                one: Any = jax.tree.map(lambda leaf, i=i: leaf[i], dict(finals))
            else:
                one = finals[i]
            try:
                row = spaces.plain(self.observation_space, one)
            except ValueError as error:
                raise self._fault(i, f"{FINAL[0]}: {error}") from error
            write(following, i, row)
        return following

    def _plain(self, observation: Any) -> PyTree:
        """Observations of all copies as they are stored, in arrays of their own."""
        space, answer = self.observation_space, jax.tree.map(spaces.as_array, observation)
        found = spaces.plain_batch(space, self._stored, answer, self.count)
        if found is not None:
            return jax.tree.map(np.array, found)
        for i in range(self.count):
            try:
                spaces.plain(space, jax.tree.map(lambda leaf, i=i: leaf[i], answer))
            except ValueError as error:
                raise self._fault(i, str(error)) from error
            except (IndexError, TypeError, KeyError):
                break
        raise EnvironmentFault(f"{self.name}: observations [{self.count}, ...] of {space} were expected")

    def _column(self, values: Any, which: int) -> Any:
        """A reward or a flag of every copy."""
        name = ("reward", "terminated", "truncated")[which - 1]
        column = spaces.as_array(values)
        if column.shape != (self.count,) or column.dtype.kind not in ("fiub" if which == 1 else "b"):
            expected = "a number" if which == 1 else "True or False"
            raise EnvironmentFault(f"{self.name}: {name}: expected {expected} for each of {self.count} copies")
        if which > 1:
            return np.array(column)
        column = column.astype(np.float32)
        if not np.isfinite(column).all():
            raise self._fault(int(np.flatnonzero(~np.isfinite(column))[0]), "reward is not a finite float32 number")
        return column

    def _note_infos(self, ended: np.ndarray, infos: Mapping[str, Any]) -> None:
        """What `infos` holds of the copies whose episodes have ended."""
        if not self.infos.names:
            return
        told = infos.get(FINAL_INFO, infos)
        for i in ended:
            columns = {name: x for name, x in told.items() if np.shape(x)[:1] == (self.count,)}
            self.infos.note({name: column[i] for name, column in columns.items()})

    def _fault(self, i: int, text: str) -> EnvironmentFault:
        return EnvironmentFault(f"{self.name}, copy {self.first_copy + i}: {text}")


def _where(chosen: np.ndarray, these: PyTree, those: PyTree) -> PyTree:
    """Rows of `these` for chosen copies [N], of `those` for the others."""
    return jax.tree.map(lambda a, b: np.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), these, those)
