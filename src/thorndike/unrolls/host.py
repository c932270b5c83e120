"""Acting where the environment is on the host: a Python loop with one compiled call a step."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jax import random

from thorndike.compilation import jit
from thorndike.core import Actor, Algorithm, PyTree, Space, Transition
from thorndike.environments.host import HostEnvironment, Loss
from thorndike.environments.repeating import EpisodesLost
from thorndike.unrolls.compiled import choose


class Rollout:
    """A rollout in the making, for whoever moves the environment: `act`, then `observe`, step by step.

    Keys and transitions are those of the compiled unroll, leaves in NumPy.
    """

    def __init__(
        self, algorithm: Algorithm, action_space: Space, policy: PyTree, actor: Actor, key: jax.Array,
        uniform: bool = False, first: int = 0,
    ) -> None:  # fmt: skip
        """`first` is the number of the first step under `key`: rollouts that follow one another are as a long one."""
        self._leaves, structure = jax.tree.flatten((algorithm, policy, key))
        self._choose = _compiled_choice(structure, _Space(action_space), uniform)
        self._number = first
        self.carry, self.done = actor.carry, actor.done
        self.steps: list[Transition] = []  # leaves [N, ...]
        self.lost: list[Loss] = []

    def act(self, observation: Any) -> np.ndarray:
        """Canonical actions [N, ...] for observations [N, ...]."""
        number = np.int32(self._number)
        action, carry, extras = self._choose(self._leaves, observation, self.carry, self.done, number)
        action = np.asarray(action)
        self._chosen = observation, action, carry, extras
        return action

    def observe(self, reward: Any, terminated: Any, truncated: Any, next_observation: Any) -> None:
        """What the environment answered to the actions of `act`, each [N] or [N, ...]."""
        observation, action, carry, extras = self._chosen
        step = Transition(observation, action, reward, terminated, truncated, next_observation, extras)
        self.steps.append(step)
        self.carry, self.done = carry, terminated | truncated
        self._number += 1

    def lose(self, copies: np.ndarray) -> None:
        """Copies [N] have begun new episodes instead of taking the step of `act`, which is to be asked again.

        What they did before is cut short there: a truncation of their last step.
        """
        self.lost.append(Loss(len(self.steps), copies, copies & ~np.asarray(self.done)))
        self.done = np.asarray(self.done) | copies
        if self.steps:
            last = self.steps[-1]
            self.steps[-1] = last._replace(
                truncated=np.asarray(last.truncated) | (copies & ~np.asarray(last.terminated))
            )

    @property
    def trajectory(self) -> Transition:
        """All steps so far, [T, N, ...]."""
        return stack(self.steps)


def unroll(
    algorithm: Algorithm, environment: HostEnvironment, policy: PyTree, actor: Actor, key: jax.Array,
    length: int, uniform: bool = False, first: int = 0,
) -> tuple[Actor, Transition]:  # fmt: skip
    """Act for `length` steps in every copy: where that stopped, and the trajectory [length, N]; `first` as above."""
    rollout = Rollout(algorithm, environment.action_space, policy, actor, key, uniform, first)
    observation = actor.observation
    for _ in range(length):
        outcome = None
        while outcome is None:
            try:
                _, outcome = environment.step((), rollout.act(observation), None)
            except EpisodesLost as lost:
                rollout.lose(lost.copies)
                observation = lost.observation
        rollout.observe(outcome.reward, outcome.terminated, outcome.truncated, outcome.next_observation)
        observation = outcome.observation
    environment.lost = rollout.lost
    return Actor((), observation, rollout.carry, rollout.done), rollout.trajectory


def stack(rows: list[Transition]) -> Transition:
    """Steps [N, ...] to a trajectory [T, N, ...]."""
    columns = zip(*map(jax.tree.leaves, rows), strict=True)
    return jax.tree.unflatten(jax.tree.structure(rows[0]), [np.stack(column) for column in columns])


class _Space:
    """A space by its value: Gymnasium's have no hash."""

    def __init__(self, space: Any) -> None:
        self.space = space

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Space) and self.space == other.space

    def __hash__(self) -> int:
        return hash((type(self.space), self.space.shape))


@functools.lru_cache(maxsize=16)
def _compiled_choice(structure: Any, action_space: _Space, uniform: bool) -> Any:
    """`choose` as one compiled call on leaves: their structure is looked up once a rollout, not once a step.

    Whatever environment is acted in, the program is the same: evaluations use that of training.
    """

    @jit
    def act(leaves, observation, carry, done, t):
        algorithm, policy, key = jax.tree.unflatten(structure, leaves)
        actor = Actor((), observation, carry, done)
        return choose(algorithm, action_space.space, policy, actor, random.fold_in(key, t), uniform)

    return act
