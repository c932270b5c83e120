"""Copies of an environment of Gymnasium's API, stepped one after another, with everything that they answer checked.

Gymnasium promises little and checks less. Here a value that breaks its word is an EnvironmentFault that names copy,
episode seed and step. JAX is not imported: in a worker process copies are stepped by this very class.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box

from thorndike import masks, spaces
from thorndike.environments import infos, making
from thorndike.environments.boundary import PASSING, guarded, told
from thorndike.environments.masked import MaskFromInfo
from thorndike.errors import EnvironmentFault, UnsuitableError

PyTree = Any


class Answer(NamedTuple):
    """What some copies say to one action each: an entry for each of them, in the order in which they were asked."""

    following: Any  # the observations that the actions led to: an array [copies, ...] of a plain Box, else a list
    reward: list[float]
    terminated: list[bool]
    truncated: list[bool]
    over: list[bool]  # whether the copy is done with its episode; a life may end, and the copy goes on
    first: dict[int, PyTree]  # by copy, the first observation of the episode that it has begun instead
    infos: list[dict[str, float | None]]  # of the episodes that are over, where that is recorded
    lost: dict[int, PyTree]  # by copy that could not take its step, what it goes on with: a worker was restarted


COLUMNS = Answer._fields[:5]  # those with an entry for each copy


class Episode(NamedTuple):
    """What a running episode can be repeated by."""

    seed: int
    actions: Sequence[Any]  # in the environment's own terms
    last: list[np.ndarray]  # the leaves of what was seen after them


class Copies:
    """Separate environments with the same spaces, each reset when it is told with which seed."""

    def __init__(self, environments: Sequence[Any], mask_from_info: bool = False, first: int = 0) -> None:
        """`first` is what the number of the first copy is among all of them.

        `mask_from_info` says that `info` tells which actions are legal: that becomes part of the observations. Raises
        UnsuitableError where the spaces do not suit or differ.
        """
        self.environments, self.first, self.recording = list(environments), first, False
        self.at: Any = [0]  # which of them was reset or stepped last: a worker's parent looks at it
        self.action_space = self.environments[0].action_space
        observation_space = self.environments[0].observation_space
        for environment in self.environments[1:]:
            if environment.observation_space != observation_space or environment.action_space != self.action_space:
                raise UnsuitableError("the copies of the environment differ in their spaces")
        self._with_mask = MaskFromInfo(observation_space, self.action_space) if mask_from_info else None
        self.observation_space = self._with_mask.observation_space if self._with_mask else observation_space
        self._choices = spaces.as_choices(self.action_space)
        self._masked = masks.masked(self.observation_space)
        box = self.observation_space if isinstance(self.observation_space, Box) else None
        self._dtype = spaces.at_most_32_bits(box.dtype) if box else None  # of a plain array; None where there is more
        self._shape = box.shape if box else None
        self.max_steps = making.time_limit(self.environments[0])
        self.seeds, self.lengths = [0] * len(self.environments), [0] * len(self.environments)  # of running episodes

    def begin(self, seeds: Mapping[int, int]) -> dict[int, PyTree]:
        """Begin new episodes in some copies, with these seeds: by copy, the first observation."""
        return {i: self.begin_one(i, seed) for i, seed in seeds.items()}

    def step(self, playing: Sequence[int], actions: Sequence[Any], next_seeds: Mapping[int, int]) -> Answer:
        """One action for each of some copies; those whose episodes are over begin the next, if `next_seeds` has one."""
        following: Any = []
        answer = Answer(following, [], [], [], [], {}, [], {})
        for i, action in zip(playing, actions, strict=True):
            observation, reward, terminated, truncated, info = self.step_one(i, action)
            following.append(observation)
            answer.reward.append(reward)
            answer.terminated.append(terminated)
            answer.truncated.append(truncated)
            answer.over.append(bool(terminated or truncated))
            if self.recording and (terminated or truncated):
                answer.infos.append(infos.plain(info))
        following = np.array(following, self._dtype) if self._dtype is not None else list(map(copied, following))
        if self._dtype is not None and not np.isfinite(following).all():
            self._blame(playing, following)
        if True in answer.over:
            for i, over in zip(playing, answer.over, strict=True):
                if over and i in next_seeds:
                    answer.first[i] = self.begin_one(i, next_seeds[i])
        return answer._replace(following=following)

    def repeat(self, episodes: Mapping[int, Episode]) -> tuple[dict[int, PyTree], dict[int, str]]:
        """Have some copies come to where their episodes were: by copy what is seen then, or why that failed."""
        reached, reasons = {}, {}
        for i, episode in episodes.items():
            try:
                reached[i] = self._repeat_one(i, episode)
            except NotRepeatableError as reason:
                reasons[i] = str(reason)
        return reached, reasons

    def _repeat_one(self, i: int, episode: Episode) -> PyTree:
        length = len(episode.actions)
        try:
            observation = self.begin_one(i, episode.seed)
            for action in episode.actions:
                observation, _, terminated, truncated, _ = self.step_one(i, action)
                if terminated or truncated:
                    raise NotRepeatableError(f"repeated, it ended after {self.lengths[i]} of {length} steps")
        except EnvironmentFault as fault:
            raise NotRepeatableError(f"repeating it failed ({fault})") from fault
        if any(x.tobytes() != y.tobytes() for x, y in zip(leaves(observation), episode.last, strict=True)):
            raise NotRepeatableError(f"repeating its {length} steps led to another observation")
        return observation

    def rest(self, copies: Sequence[int]) -> None:
        """Some copies are not stepped any more, though their episodes have not ended."""

    def close(self) -> list[str]:
        """Release what the copies hold; what went wrong in that, in words."""
        environments, self.environments = self.environments, []
        faults = []
        for i, environment in enumerate(environments):
            try:
                with guarded(f"copy {self.first + i} could not be closed"):
                    environment.close()
            except EnvironmentFault as fault:
                faults.append(str(fault))
        return faults

    def begin_one(self, i: int, seed: int) -> PyTree:
        """Copy i's episode from its beginning: the first observation."""
        self.at[0], self.seeds[i], self.lengths[i], checking = i, seed, 0, False
        try:
            answer = self.environments[i].reset(seed=seed)
            checking = True
            if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
                raise ValueError(f"reset must return (observation, info), got {_outline(answer)}")
            observation, info = answer
            observation = self._seen(observation, info)
        except PASSING:
            raise
        except BaseException as error:
            text = told(error, checking)
            if text.startswith("TypeError") and "unexpected keyword argument 'seed'" in text:
                text = "it must accept reset(seed=...), as Gymnasium's environments do"
            raise self.fault(i, text) from error
        if masks.MASK in info and not self._masked and masks.choices_of(self._choices):
            warnings.warn(
                f"info holds an {masks.MASK}, of which no use is made: with mask_from_info=True among the "
                "environment's arguments no illegal action is taken",
                stacklevel=1,  # one place, so that it is shown once for all that a run makes
            )
        return observation

    def step_one(self, i: int, action: Any) -> tuple[Any, float, bool, bool, Any]:
        """One step of copy i, checked, except whether a plain Box is finite: that is cheaper for all copies at once."""
        self.at[0], checking = i, False
        self.lengths[i] += 1
        try:
            answer = self.environments[i].step(action)
            checking = True
            if not isinstance(answer, tuple) or len(answer) != 5:
                expected = "(observation, reward, terminated, truncated, info)"
                raise ValueError(f"step must return {expected}, got {_outline(answer)}")
            observation, reward, terminated, truncated, info = answer
            plain = type(observation) is np.ndarray and observation.dtype == self._dtype
            if not plain or observation.shape != self._shape:
                observation = self._seen(observation, info, done=terminated or truncated)
            reward = spaces.plain_reward(reward)
            terminated, truncated = (
                spaces.plain_flag(terminated, "terminated"),
                spaces.plain_flag(truncated, "truncated"),
            )
        except PASSING:
            raise
        except BaseException as error:
            raise self.fault(i, told(error, checking)) from error
        return observation, reward, terminated, truncated, info

    def fault(self, i: int, text: str) -> EnvironmentFault:
        """What copy i has done wrong, with its place."""
        return EnvironmentFault(f"{place(self.first + i, self.seeds[i], self.lengths[i])}: {text}")

    def _seen(self, observation: Any, info: Any, done: bool = False) -> PyTree:
        """What a copy gave as it is stored, with its mask; ValueError where it is none, or leaves nothing to do."""
        if self._with_mask:
            observation = self._with_mask(observation, info, done)
        observation = spaces.plain(self.observation_space, observation)
        if self._masked and not done and masks.nothing_legal(observation, self._choices):
            raise ValueError(f"no action is legal, {masks.MASK} is {observation[masks.MASK].tolist()!s:.80}")
        return observation

    def _blame(self, copies: Sequence[int], rows: Sequence[Any]) -> None:
        """Raise for the first copy whose observation is not finite."""
        for i, row in zip(copies, rows, strict=True):
            try:
                spaces.plain(self.observation_space, row)
            except ValueError as error:
                raise self.fault(i, str(error)) from error


class NotRepeatableError(Exception):
    """A saved episode that cannot be repeated; the message says why."""


def place(copy: int, seed: int, length: int) -> str:
    """Where a copy is in its episode, in words."""
    return f"copy {copy}, episode seed {seed}, {f'step {length}' if length else 'reset'}"


def leaves(observation: PyTree) -> list[np.ndarray]:
    """The arrays of an observation, in the order that JAX has for them: an observation's keys are sorted."""
    if isinstance(observation, dict):
        return [leaf for part in observation.values() for leaf in leaves(part)]
    if isinstance(observation, tuple):
        return [leaf for part in observation for leaf in leaves(part)]
    return [observation]


def copied(observation: PyTree) -> PyTree:
    """An observation in arrays of its own: an environment may go on writing into what it gave."""
    if isinstance(observation, dict):
        return {name: copied(part) for name, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(map(copied, observation))
    return np.array(observation)


def _outline(answer: Any) -> str:
    return f"{len(answer)} values" if isinstance(answer, tuple) else spaces.outline(answer)
