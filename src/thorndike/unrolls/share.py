"""Some of a run's copies, held elsewhere: whole rollouts are acted in them with the policy that is sent.

This is what lives in an actor, beside the copies. Arrays cross as NumPy's; nothing here knows how they do.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from thorndike import environments, snapshots
from thorndike.compilation import cache_programs, jit
from thorndike.core import Actor, Algorithm, PyTree, Transition
from thorndike.environments.host import on_host
from thorndike.errors import ThorndikeError, UnsuitableError
from thorndike.unrolls import compiled, host

_unroll = jit(compiled.unroll, static_argnames=("environment", "length", "uniform"))


class Facts(NamedTuple):
    """What whoever trains has to know of copies that it does not hold."""

    observation_space: Any
    action_space: Any
    max_steps: int | None
    compiled: bool
    name: str  # of the environment, where that is a function without one


class Reply(NamedTuple):
    """The answer to one call; where the copies stand after it; and what was to be warned of."""

    answer: Any
    stand: dict[str, np.ndarray]  # what `restore` needs to be here again
    warned: list[str]
    error: ThorndikeError | None  # instead of an answer


class Share:
    """`num_environments` copies, the first of which is number `first` of the run's, compiled or on the host."""

    def __init__(self, environment: Any, num_environments: int, first: int, arguments: Mapping[str, Any]) -> None:
        """As `environments.make`, which raises what it raises."""
        self.environment: Any = environments.make(environment, num_environments, **arguments)
        self.first, self.name = first, environments.name_of(environment, self.environment)
        if on_host(self.environment):
            self.environment.first_copy = first  # type: ignore[attr-defined]
        self.env_state: PyTree = ()
        self.observation: PyTree = None  # what is seen now [n, ...]; None before `reset` or `restore`

    def facts(self) -> Facts:
        made = self.environment
        return Facts(made.observation_space, made.action_space, made.max_steps, made.compiled, self.name)

    def record_info(self, names: tuple[str, ...]) -> None:
        environments.record_info(self.environment, names)

    def learn_of(self, lesson: tuple[Algorithm, PyTree]) -> None:
        """Act by this algorithm from now on, with policies that look like this one."""
        algorithm, policy = lesson
        self.algorithm = jax.tree.map(jnp.asarray, algorithm)
        self.structure = jax.tree.structure(policy)

    def reset(self, key: np.ndarray, episodes: np.ndarray | None) -> PyTree:
        """New episodes everywhere: the observation [n, ...]. As an environment's own, with the data of its key."""
        given = () if episodes is None else (episodes,)
        self.env_state, self.observation = self.environment.reset(random.wrap_key_data(jnp.asarray(key)), *given)
        return self.observation

    def act(
        self, leaves: list[np.ndarray], actor: Actor, key: np.ndarray, length: int, uniform: bool, row_begins: bool
    ) -> tuple[Actor, Transition]:
        """A rollout, with the leaves of a policy and the data of its key: where it stopped, and [length, n, ...]."""
        if row_begins:
            self.environment.close_infos()
        policy = jax.tree.unflatten(self.structure, leaves)
        actor = actor._replace(env_state=self.env_state)
        act = host.unroll if on_host(self.environment) else _unroll
        actor, trajectory = act(
            self.algorithm,
            self.environment,
            policy,
            actor,
            random.wrap_key_data(jnp.asarray(key)),
            length=length,
            uniform=uniform,
        )
        self.env_state, self.observation = actor.env_state, actor.observation
        return actor._replace(env_state=()), trajectory

    def step(self, action: PyTree) -> Any:
        """One action [n, ...] for every copy, on the host: a `Step`."""
        _, outcome = self._of_host("stepped from elsewhere").step((), action, None)
        self.observation = outcome.observation
        return outcome

    def restore(self, stand: Mapping[str, np.ndarray]) -> tuple[PyTree, np.ndarray, list[str]]:
        """Back to where a reply said that the copies stood: observation, copies [n] begun anew, and why."""
        made = self.environment
        if on_host(made):
            self.observation = made.restore(stand)
            return self.observation, made.restarted, list(made.notes)
        template = jax.eval_shape(made.reset, random.key(0))
        self.env_state, self.observation = snapshots.from_arrays(template, stand, snapshots.STATE)
        return self.observation, np.zeros(made.num_environments, bool), []

    def cut(self, copies: np.ndarray) -> PyTree:
        """End the running episodes of some copies [n], on the host: the observation to go on with."""
        self.observation = self._of_host("cut").cut(copies)
        return self.observation

    def under_way(self) -> np.ndarray:
        """The copies [n] whose running episodes have a step behind them, on the host."""
        return self._of_host("asked what they play").under_way

    def close(self) -> None:
        self.environment.close()

    def stand(self) -> dict[str, np.ndarray]:
        """What `restore` needs to be here again; nothing before the first episodes."""
        if self.observation is None:
            return {}
        if on_host(self.environment):
            return self.environment.save()
        return snapshots.state_to_arrays((self.env_state, self.observation))

    def _of_host(self, what: str) -> Any:
        if on_host(self.environment):
            return self.environment
        raise UnsuitableError(f"compiled copies elsewhere cannot be {what}: make them beside")


class Remote:
    """A Share behind one method, which neither raises our errors nor shows warnings, but hands them back."""

    def __init__(self, path: list[str]) -> None:
        """Set JAX up before anything touches it. Modules are looked for at the places of `path` too."""
        sys.path += [place for place in path if place and place not in sys.path]
        cache_programs()
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        self.share: Share | None = None

    def call(self, name: str, *given: Any) -> Reply:
        """What the Share's method `name` answers, `make` first."""
        answer, error = None, None
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("default")
            try:
                if name == "make":
                    self.share = Share(*given)
                    answer = self.share.facts()
                else:
                    answer = jax.tree.map(_portable, getattr(self.share, name)(*given))
            except ThorndikeError as raised:
                error = type(raised)(str(raised))  # without what it came from, which may not be sent
        stand = {} if error or self.share is None else self.share.stand()
        ours = [str(one.message) for one in said if issubclass(one.category, UserWarning)]
        return Reply(answer, stand, ours, error)


def _portable(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf
