"""Gymnasium environments: copies of which every episode's seed is known, stepped here or in worker processes."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from gymnasium.spaces import Discrete

from thorndike.core import Step
from thorndike.environments import making
from thorndike.environments.boundary import PASSING, told
from thorndike.environments.copies import COLUMNS, Answer, Copies, Episode
from thorndike.environments.likeness import UnlikeError, check_alike
from thorndike.environments.repeating import EVERYONE, EpisodesLost, Repeatable, among, episode_seed, too_long, write
from thorndike.environments.worker import Order
from thorndike.environments.workers import Crew, Workers
from thorndike.errors import SettingError

PyTree = Any


class Hands(Protocol):
    """Whoever resets and steps copies: `Copies` in this process, or workers."""

    observation_space: Any
    action_space: Any
    max_steps: int | None
    recording: bool
    first: int

    def begin(self, seeds: Mapping[int, int]) -> dict[int, PyTree]: ...

    def step(self, playing: Sequence[int], actions: Sequence[Any], next_seeds: Mapping[int, int]) -> Answer: ...

    def repeat(self, episodes: Mapping[int, Episode]) -> tuple[dict[int, PyTree], dict[int, str]]: ...

    def rest(self, copies: Sequence[int]) -> None: ...

    def close(self) -> list[str]: ...


class Gymnasium(Repeatable):
    """Copies of one Gymnasium environment as a `core.Environment`, each reset in the step that ends its episode.

    An episode's reset seed follows from the run's seed, the copy and the number of the episode, so that a running
    episode can be repeated from its seed and its actions: that is what `save` and `restore` do.
    """

    def __init__(self, hands: Hands, num_environments: int, single: bool = False) -> None:
        """`hands` reset and step so many copies. Raises UnsuitableError where the spaces do not suit.

        `single` says that the one copy is the user's own object, of which no more can be made; it is never closed here.
        """
        self.hands, self.single = hands, single
        super().__init__(num_environments, hands.observation_space, hands.action_space)
        self._discrete = isinstance(self._real_space, Discrete)
        self.max_steps = hands.max_steps
        self._waiting: tuple[list[int], Answer] | None = None  # who has taken a step that others still have to take
        self._next_seeds: dict[int, int] = {}
        self._all = list(range(num_environments))
        making.check_distinct(self.copies)

    @property
    def first_copy(self) -> int:
        """The number of the first copy, where these are a part of all: faults name it, and seeds follow from it."""
        return self.hands.first

    @first_copy.setter
    def first_copy(self, number: int) -> None:
        self.hands.first = number

    @property
    def copies(self) -> list[Any]:
        """The environments themselves; none where they are in worker processes."""
        return self.hands.environments if isinstance(self.hands, Copies) else []

    def reset(self, key: jax.Array, episodes: np.ndarray | None = None) -> tuple[tuple, PyTree]:
        """New episodes everywhere: ((), observation [N, ...]). The key fixes every later seed too.

        With `episodes` [N] each copy rests after so many: it is neither stepped nor reset, and looks as it did last.
        """
        self._start_with_key(key, episodes)
        self._waiting = None
        nothing = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self._stored)
        first = self._begin(np.flatnonzero(self._left))
        self._observation = _stack([first.get(i, nothing) for i in range(self.num_environments)])
        return (), self._observation

    def step(self, env_state: Any, action: Any, key: Any = None) -> tuple[tuple, Step]:
        """One canonical action [N, ...] for every copy; `env_state` and `key` mean nothing here.

        The arrays that are returned are never written again: JAX may go on reading them. Raises EpisodesLost where
        workers were restarted and could not take the step.
        """
        n, playing = self.num_environments, self._playing
        asked = self._all if playing is EVERYONE else playing.tolist()
        before = self._history.pop() if self._waiting else None  # of this very step: who has taken it took that
        answer = self._answer(asked, self._handed_over(action), before)
        if not asked:
            never: Any = np.zeros(n, bool)
            return (), Step(self._observation, never.astype(np.float32), never, never, self._observation)
        self._length[playing] += 1
        for info in answer.infos:
            self.infos.note(info)
        following = answer.following if isinstance(answer.following, np.ndarray) else _stack(answer.following)
        columns: Any = np.array(answer.reward, np.float32), np.array(answer.terminated), np.array(answer.truncated)
        if len(asked) < n:
            still = (self._observation, np.zeros(n, np.float32), *[np.zeros(n, bool)] * 2)
            following, *columns = among(still, playing, (following, *columns))
        over = [i for i, done in zip(asked, answer.over, strict=True) if done] if True in answer.over else []
        self._observation = self._with_first(following, over, answer.first) if over else following
        reward, terminated, truncated = columns
        return (), Step(self._observation, reward, terminated, truncated, following)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> PyTree:
        """Back to where `save` was called: the observation [N, ...].

        Every running episode is repeated from its seed and its actions. Where that leads elsewhere (hidden state,
        randomness that the seed does not reach) or would take too long, the copy begins its next episode: `restarted`
        [N] says which, `exact` becomes False, and `notes` say why. Raises CorruptCheckpointError for foreign arrays.
        """
        saved = self._start_with_saved(arrays)
        self._waiting = None
        self._length = np.array(arrays["length"])
        lengths = dict(enumerate(arrays["length"].tolist()))
        reasons = {i: reason for i, length in lengths.items() if (reason := too_long(length))}
        episodes = {}
        for i in lengths.keys() - reasons.keys():
            actions = self._one_by_one(arrays["actions"][len(arrays["actions"]) - lengths[i] :, i])
            episodes[i] = Episode(self._seed(i), actions, [leaf[i] for leaf in saved])
        self._look_ahead(self._everyone)
        reached, failed = self.hands.repeat(episodes)
        reasons |= failed
        for i, reason in sorted(reasons.items()):
            self._give_up(i, reason)
        reached |= self._begin(sorted(reasons))
        self._observation = _stack([reached[i] for i in range(self.num_environments)])
        return self._observation

    def record_info(self, names: Sequence[str]) -> None:
        super().record_info(names)
        self.hands.recording = bool(names)

    def put(self, attributes: Mapping[str, Any]) -> None:
        """Have the first copy, a twin's original, stand in the state that these attributes of it describe."""
        for name, value in attributes.items():
            setattr(self.copies[0].unwrapped, name, value)

    def follow(self) -> None:
        """Have MuJoCo's robots drawn by the camera that goes with them, where nothing else was asked for.

        Gymnasium 1.4 draws some, such as HalfCheetah, by one that stands still, and they run out of the picture.
        """
        renderer: Any = getattr(self.copies[0].unwrapped, "mujoco_renderer", None)
        if getattr(renderer, "camera_id", None) == -1 and "trackbodyid" not in (renderer.default_cam_config or {}):
            with contextlib.suppress(KeyError):  # where it has none
                renderer.camera_id = renderer.model.camera("track").id

    def picture(self) -> np.ndarray:
        """What the first copy looks like now, as `making.draw` says."""
        return making.draw(self.copies[0])

    @property
    def fps(self) -> float | None:
        """Steps that a second of the environment's own time has, where it says so."""
        said = (self.copies[0].metadata or {}).get("render_fps")
        return float(said) if isinstance(said, (int, float)) and 0 < said < math.inf else None

    def close(self) -> None:
        """Release what the copies hold, with a warning where that fails: it changes nothing any more."""
        if self.single:
            return
        if faults := self.hands.close():
            warnings.warn(faults[0], stacklevel=2)

    def _answer(self, asked: list[int], real: np.ndarray, taken: np.ndarray | None) -> Answer:
        """What the copies asked say to their actions, with what some had said before others were lost."""
        before, self._waiting = self._waiting, None
        playing = asked
        if before is not None:
            playing = [i for i in asked if i not in before[0]]
            real = np.array(real)
            real[before[0]] = taken[before[0]]  # type: ignore[index]
            self._history[-1] = real
        actions = self._one_by_one(real)
        chosen = actions if playing is self._all else [actions[i] for i in playing]
        answer = self.hands.step(playing, chosen, self._next_seeds)
        if before is None and not answer.lost:
            return answer
        said = [i for i in playing if i not in answer.lost]
        if before is not None:
            said, answer = _joined(asked, before, (said, answer))
        if answer.lost:
            self._waiting = said, answer._replace(lost={})
            raise self._lose(answer.lost)
        return answer

    def _lose(self, lost: Mapping[int, PyTree]) -> EpisodesLost:
        """Count the running episodes of some copies as lost, with what these go on with."""
        copies = np.isin(self._everyone, list(lost))
        self.exact = False
        for i in lost:
            self.notes.append(f"copy {self.first_copy + i} could not take step {self._length[i] + 1} of its episode")
        self._observation = self._with_first(self._observation, list(lost), lost)
        return EpisodesLost(copies, self._observation)

    def _one_by_one(self, real: np.ndarray) -> list:
        """Actions as the copies take them, one for each; a copy may write into its own."""
        return real.tolist() if self._discrete else list(real.astype(self._real_space.dtype))

    def _begin(self, copies: Sequence[int] | np.ndarray) -> dict[int, PyTree]:
        """The first observations of the episodes that some copies are about to begin."""
        self._length[copies] = 0
        self._look_ahead(copies)
        return self.hands.begin({i: self._seed(i) for i in map(int, copies)})

    def _renewed(self, following: PyTree, done: np.ndarray) -> PyTree:
        """The observations to act on next: where an episode ended, the first of the next one."""
        going_on = self._ended(np.flatnonzero(done))
        self.hands.rest(np.setdiff1d(np.flatnonzero(done), going_on).tolist())
        return _with(following, self._begin(going_on))

    def _with_first(self, following: PyTree, over: list[int], first: Mapping[int, PyTree]) -> PyTree:
        """The same, where the copies that go on have begun already."""
        going_on = self._ended(over)
        self._length[going_on] = 0
        self._look_ahead(going_on)
        return _with(following, {i: first[i] for i in over if first.get(i) is not None})

    def _look_ahead(self, copies: Sequence[int] | np.ndarray) -> None:
        """Keep by which seeds some copies go on where their episodes end: none where they then rest."""
        for i in map(int, copies):
            self._next_seeds.pop(i, None)
            if self._left[i] > 1:
                self._next_seeds[i] = episode_seed(self._run_seed, self.first_copy + i, int(self._episode[i]) + 1)


def copies_of(
    factory: Callable[..., Any], first: Any, name: str, n: int, arguments: Mapping[str, Any], mask_from_info: bool
) -> Gymnasium:
    """`n` copies from a factory, whose first product is there already."""
    making.check(first, name)
    making.check_spaces(first.observation_space, first.action_space, name)
    copies = [first]
    for _ in range(n - 1):
        copies.append(making.create(factory, name, arguments))
        making.check(copies[-1], name)
    return Gymnasium(Copies(copies, mask_from_info), n)


def copies_elsewhere(order: Order, n: int, workers: Workers) -> Gymnasium:
    """`n` copies in worker processes."""
    return Gymnasium(Crew(order, n, workers), n)


def copies_of_object(environment: Any, name: str, n: int, mask_from_info: bool, workers: Workers) -> Gymnasium:
    """`n` copies of an object: fresh ones where they are sure to equal it, else the object itself, which is but one.

    Raises SettingError where more than one is asked for and none that is sure to equal it can be made.
    """
    environment = making.adapted(environment)
    making.check(environment, name)
    making.check_spaces(environment.observation_space, environment.action_space, name)
    factory, reason = making.remaking(environment), "it is not made from a registered id"
    if factory:
        first = None
        try:
            first = making.create(factory, name, {})
            check_alike(environment, first)
        except PASSING:
            raise
        except BaseException as error:
            reason = f"{error}, beside a fresh one" if isinstance(error, UnlikeError) else told(error)
            with contextlib.suppress(Exception):
                first.close()  # type: ignore[union-attr]
        else:
            if workers.number:
                first.close()
                return copies_elsewhere(Order(factory, name, {}, mask_from_info), n, workers)
            return copies_of(factory, first, name, n, {}, mask_from_info)
    if n > 1 or workers.number:
        id = f"{environment.spec.id!r} if it is unchanged, " if environment.spec else ""
        raise SettingError(
            f"{n} copies of this {name} that are sure to equal it cannot be made ({reason}): pass the class or a "
            f"function that makes it, td.train(..., lambda: make_mine(), ...), {id}or set num_environments=1, workers=0"
        )
    return Gymnasium(Copies([environment], mask_from_info), 1, single=True)


def _with(observation: PyTree, rows: Mapping[int, PyTree]) -> PyTree:
    """Observations [N, ...] with other rows for some copies, in arrays of their own."""
    observation = jax.tree.map(np.copy, observation)
    for i, row in rows.items():
        write(observation, i, row)
    return observation


def _joined(asked: list[int], *parts: tuple[list[int], Answer]) -> tuple[list[int], Answer]:
    """What copies have said in several turns, in the order in which all were asked."""
    answers = [answer for _, answer in parts]
    lost = answers[-1].lost
    where = {i: (answer, k) for copies, answer in parts for k, i in enumerate(copies) if i not in lost}
    said = [i for i in asked if i in where]
    columns: Any = {name: [getattr(where[i][0], name)[where[i][1]] for i in said] for name in COLUMNS}
    first = {i: row for answer in answers for i, row in answer.first.items()}
    return said, Answer(**columns, first=first, infos=[x for answer in answers for x in answer.infos], lost=lost)


def _stack(rows: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
