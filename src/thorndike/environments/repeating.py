"""What copies on the host need to come back to where they were: seeds, and the running episodes' actions.

A running episode can be repeated from its reset and its actions. This module keeps both, writes them down and checks
them when they are read; how an episode is reset and stepped is for the environments to know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np

from thorndike import spaces
from thorndike.environments.infos import Infos
from thorndike.errors import CorruptCheckpointError, SettingError

PyTree = Any
ENDLESS = 2**62  # episodes
EVERYONE = slice(None)
LONGEST_REPEAT = 20_000  # steps: a longer episode cannot be repeated, and starts anew when a run is resumed


class Repeatable:
    """The half of a `HostEnvironment` that knows which seeds and actions have led to where it is."""

    compiled = False
    single = False  # whether there is but one of it, which serves training and evaluation alike
    lost: Sequence[Any] = ()  # see HostEnvironment
    first_copy = 0  # the number of the first copy, where these are a part of all

    def __init__(self, num_environments: int, observation_space: Any, action_space: Any) -> None:
        """Raises UnsuitableError where the spaces do not suit."""
        self.num_environments = num_environments
        self.observation_space, self.action_space = observation_space, spaces.as_choices(action_space)
        spaces.check_action_space(self.action_space)
        self._real_space = action_space
        self._stored, self._to_real = spaces.stored(observation_space), spaces.to_real(self.action_space, np)
        self._everyone = np.arange(num_environments, dtype=np.int32)
        self._observation: PyTree = None  # [N, ...] what is seen now
        self.max_steps: int | None = None  # of an episode, where that is known
        self.infos = Infos()  # what is recorded of `info`, at the ends of episodes
        self._start(0)

    def save(self) -> dict[str, np.ndarray]:
        """What `restore` needs to be here again: seeds, the running episodes' actions, and what is seen now."""
        longest = _longest(self._length)
        actions = np.array(list(self._history)[len(self._history) - longest :], self._action_dtype)
        arrays = {
            "run_seed": np.array(self._run_seed, np.uint64),
            "episode": self._episode.copy(),
            "length": self._length.copy(),
            "actions": actions.reshape(longest, self.num_environments, *self.action_space.shape),
        }
        arrays |= {name: np.array(leaf) for name, leaf in _named(self._observation)}
        return arrays | self.infos.save()

    def cut(self, copies: np.ndarray) -> PyTree:
        """End the running episodes of some copies [N] here; what they go on with: the observation [N, ...]."""
        self.restarted = np.array(copies)
        self._observation = self._renewed(self._observation, copies)
        return self._observation

    def record_info(self, names: Sequence[str]) -> None:
        """Note from now on what `info` says under these names at the ends of episodes."""
        self.infos = Infos(names)

    def close_infos(self) -> dict[str, float]:
        """The means of what was noted since the row began; the next one begins."""
        return self.infos.close()

    @property
    def under_way(self) -> np.ndarray:
        """The copies [N] whose running episodes have a step behind them."""
        return self._length > 0

    def _renewed(self, following: PyTree, done: np.ndarray) -> PyTree:
        """The observations to act on next: where an episode ended, the first of the next one."""
        raise NotImplementedError

    @property
    def _action_dtype(self) -> np.dtype:
        return self.action_space.dtype if isinstance(self.action_space, gymnasium.spaces.Box) else np.dtype(np.int32)

    def _start(self, run_seed: int, episodes: np.ndarray | None = None) -> None:
        """Before the first episodes of a seed; each copy rests after so many `episodes` [N], or never."""
        self._run_seed = run_seed
        self.infos.begin()
        self._left = np.full(self.num_environments, ENDLESS) if episodes is None else np.array(episodes)
        self.exact = True  # whether every restored episode went on where it had stopped
        self.notes: list[str] = []  # why not, in words
        self.restarted = np.zeros(self.num_environments, bool)  # the copies that `restore` or `cut` began anew
        self._episode = np.zeros(self.num_environments, np.int64)  # numbers of the running episodes
        self._length = np.zeros(self.num_environments, np.int64)  # steps of the running episodes
        self._history: deque = deque(maxlen=LONGEST_REPEAT)  # the last actions [N, ...], as they were handed over

    def _start_with_key(self, key: jax.Array, episodes: np.ndarray | None = None) -> None:
        words = np.asarray(jax.random.key_data(key), np.uint64).ravel()[-2:]
        self._start(int.from_bytes(words.astype(">u4").tobytes(), "big"), episodes)

    def _start_with_saved(self, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Take over what `save` gave, and say what was seen then: its leaves [N, ...]."""
        self._check_saved(arrays)
        self._start(int(arrays["run_seed"]))
        self._episode = np.array(arrays["episode"])
        self._history.extend(np.array(arrays["actions"]))
        self.infos.begin(arrays.get("infos"))
        return [arrays[name] for name, _ in _named(self._stored)]

    def _handed_over(self, action: Any) -> np.ndarray:
        """Canonical actions [N, ...] in the environment's own terms; they are remembered, so do not write into them."""
        action, box = np.asarray(action), isinstance(self.action_space, gymnasium.spaces.Box)
        if action.shape != (self.num_environments, *self.action_space.shape):
            raise SettingError(f"actions [{self.num_environments}, ...] are needed, got {list(action.shape)}")
        if action.dtype.kind not in ("fiu" if box else "iu"):
            raise SettingError(f"actions for {self.action_space} must be numbers of its kind, got {action.dtype}")
        real = self._to_real(action)
        if box and not np.isfinite(real).all():
            raise SettingError("an action is not finite: learning has diverged, a smaller learning_rate may help")
        self._history.append(real)
        return real

    @property
    def _playing(self) -> Any:
        """An index of the copies that are not at rest; `EVERYONE` itself where none is."""
        playing = self._left > 0
        return EVERYONE if playing.all() else np.flatnonzero(playing)

    def _ended(self, copies: Sequence[int] | np.ndarray) -> np.ndarray:
        """Count the episodes of some copies as ended; those of the copies that go on with another one."""
        self._episode[copies] += 1
        self._left[copies] -= 1
        return np.asarray(copies)[self._left[copies] > 0]

    def _seed(self, i: int) -> int:
        """The reset seed of copy i's episode, that it plays or is about to begin."""
        return episode_seed(self._run_seed, self.first_copy + i, int(self._episode[i]))

    def _give_up(self, i: int, reason: str) -> None:
        """Note that copy `i` goes on with its next episode; to begin that is left to the caller."""
        self.exact = False
        self.restarted[i] = True
        self.notes.append(
            f"copy {self.first_copy + i} could not go on with its episode and began the next one: {reason}"
        )
        self._episode[i] += 1
        self._length[i] = 0

    def _check_saved(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Raise CorruptCheckpointError unless `arrays` are of the kind that `save` gives."""
        n = self.num_environments
        expected = {"run_seed": ((), np.uint64), "episode": ((n,), np.int64), "length": ((n,), np.int64)}
        expected |= {name: ((n, *leaf.shape), leaf.dtype) for name, leaf in _named(self._stored)}
        for name, (shape, dtype) in expected.items():
            found = arrays.get(name)
            if found is None or found.shape != shape or found.dtype != dtype:
                raise CorruptCheckpointError(f"the checkpoint does not fit this environment: '{name}'")
        longest, actions = _longest(arrays["length"]), arrays.get("actions")
        shape = (longest, n, *self.action_space.shape)
        if actions is None or actions.shape != shape or actions.dtype != self._action_dtype:
            raise CorruptCheckpointError("the checkpoint does not fit this environment: 'actions'")
        if min(arrays["length"].min(), arrays["episode"].min()) < 0:
            raise CorruptCheckpointError("the checkpoint counts episodes or steps below zero")


class EpisodesLost(Exception):
    """Copies have begun new episodes instead of taking a step; the others have taken it, and wait for them.

    The next `step` asks for actions on `observation` [N, ...]: those of `copies` [N] are taken, with which the step is
    complete.
    """

    def __init__(self, copies: np.ndarray, observation: PyTree) -> None:
        super().__init__("copies have begun new episodes instead of taking a step")
        self.copies, self.observation = copies, observation


def too_long(length: int) -> str:
    """Why an episode of so many steps cannot be repeated; "" where it can."""
    return f"its {length} steps are too many to be repeated" * (length > LONGEST_REPEAT)


def episode_seed(run_seed: int, copy: int, episode: int) -> int:
    """The reset seed, of 31 bits, of one episode: SplitMix64 (Steele et al., 2014) over the three numbers in turn."""
    x = 0
    for part in (run_seed, copy, episode):
        x = (x + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        x ^= x >> 31
    return x >> 33


def among(still: PyTree, copies: np.ndarray, rows: PyTree) -> PyTree:
    """What all copies give, [N, ...]: some give `rows`, the others what they gave before."""
    everyone = jax.tree.map(lambda row, leaf: np.array(leaf, row.dtype), rows, still)
    write(everyone, copies, rows)
    return everyone


def write(observation: PyTree, copies: Any, rows: PyTree) -> None:
    """Put what some copies, or one, give into the leaves [N, ...] of an observation."""
    for leaf, row in zip(jax.tree.leaves(observation), jax.tree.leaves(rows), strict=True):
        leaf[copies] = row


def _longest(lengths: np.ndarray) -> int:
    """The length of the longest of the running episodes that can be repeated."""
    return max((length for length in lengths.tolist() if length <= LONGEST_REPEAT), default=0)


def _named(observation: PyTree) -> Iterator[tuple[str, Any]]:
    """The leaves by name: "observation", or "observation/position" and so on."""
    for path, leaf in jax.tree_util.tree_flatten_with_path({"observation": observation})[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf
