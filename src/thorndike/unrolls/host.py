"""Acting where the environment is on the host: a Python loop with one compiled call a step."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jax import random

from thorndike.compilation import jit
from thorndike.core import Actor, Transition
from thorndike.unrolls.compiled import choose


def unroll(
    algorithm, environment, policy, actor: Actor, key, length: int, uniform=False, first=0
) -> tuple[Actor, Transition]:
    """Act for `length` steps in every copy; keys and trajectory as in the compiled unroll, leaves in NumPy.

    `first` is the number of the first step under `key`: unrolls that follow one another are as one long unroll.
    """
    leaves, structure = jax.tree.flatten((algorithm, policy, key))
    act = _compiled_choice(structure, _Space(environment.action_space), uniform)
    observation, carry, done = actor.observation, actor.carry, actor.done
    rows = []
    for t in range(first, first + length):
        action, carry, extras = act(leaves, observation, carry, done, np.int32(t))
        action = np.asarray(action)
        _, outcome = environment.step((), action, None)
        rows.append(
            Transition(
                observation, action, outcome.reward, outcome.terminated, outcome.truncated,
                outcome.next_observation, extras,
            )
        )  # fmt: skip
        observation, done = outcome.observation, outcome.terminated | outcome.truncated
    return Actor((), observation, carry, done), stack(rows)


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
