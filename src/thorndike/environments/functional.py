"""Compiled environments: written for one copy as pure functions, run as N copies inside XLA.

Whoever writes one gives spaces, a time limit and three small functions; `Vectorized` adds the rest: the copies, the
time limit, the reset in the very step in which an episode ends, and the scaling of actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax, random

from thorndike.core import Step
from thorndike.environments.boundary import guarded
from thorndike.errors import EnvironmentFault, SettingError, UnsuitableError
from thorndike.spaces import as_choices, check_action_space, stored, to_real

PyTree = Any


@runtime_checkable
class FunctionalEnvironment(Protocol):
    """One copy of a compiled environment: a frozen, hashable dataclass of settings with pure, traceable methods.

    Where a new episode is dear to draw, an attribute `reset_block` says how many to draw at once: then as many blocks
    are drawn as copies have ended. Without it a step that ends any episode draws new ones for all copies.
    """

    observation_space: Any  # gymnasium.spaces
    action_space: Any
    max_steps: int | None  # episodes are truncated after so many steps; None: never

    def initial(self, key: jax.Array) -> PyTree:
        """The state that an episode begins in."""
        ...

    def observe(self, state: PyTree) -> PyTree:
        """What is seen of a state: plain arrays, dicts and tuples, as `observation_space` promises."""
        ...

    def transition(self, state: PyTree, action: PyTree, key: jax.Array) -> tuple[PyTree, jax.Array, jax.Array]:
        """Where an action of `action_space` leads: (state, reward, terminated). The time limit is not its business."""
        ...


class EnvironmentState(NamedTuple):
    """What `Vectorized` keeps of its copies: leaves are [N, ...]."""

    state: PyTree
    steps: jax.Array  # of the running episodes, int32


@dataclass(frozen=True)
class Vectorized:
    """`num_environments` copies of `environment` side by side: a compiled `core.Environment`.

    Equal, and of equal hash, wherever its fields are, so it may be a static argument of a jitted function. Actions
    are canonical: those of a bounded Box lie in [-1, 1] and are scaled here.
    """

    environment: FunctionalEnvironment
    num_environments: int
    restarts: bool = True  # False: a copy whose episode has ended waits in the state before its end
    compiled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        name, limit = type(self.environment).__name__, self.environment.max_steps
        if self.num_environments < 1:
            raise SettingError(f"num_environments must be at least 1, got {self.num_environments}")
        if limit is not None and limit < 1:
            raise SettingError(f"{name}: max_steps must be at least 1 or None, got {limit}")
        try:
            hash(self.environment)
        except TypeError as error:
            raise UnsuitableError(f"{name} must be hashable: make it a frozen dataclass of plain values") from error
        stored(self.observation_space)
        check_action_space(self.action_space)

    @property
    def observation_space(self) -> Any:
        return self.environment.observation_space

    @property
    def action_space(self) -> Any:
        return as_choices(self.environment.action_space)

    @property
    def max_steps(self) -> int | None:
        return self.environment.max_steps

    def close(self) -> None:
        """There is nothing to release."""

    def reset(self, key: jax.Array) -> tuple[EnvironmentState, PyTree]:
        """New episodes in all copies: (env_state, observation [N, ...])."""
        return self._begun(random.split(key, self.num_environments))

    def _begun(self, keys: jax.Array) -> tuple[EnvironmentState, PyTree]:
        """A new episode in each copy, for keys [N]."""
        with guarded(f"{type(self.environment).__name__}.initial"):
            state = jax.tree.map(_strongly_typed, jax.vmap(self.environment.initial)(keys))
        return EnvironmentState(state, jnp.zeros(self.num_environments, jnp.int32)), self._observe(state)

    def step(self, env_state: EnvironmentState, action: PyTree, key: jax.Array) -> tuple[EnvironmentState, Step]:
        """One action [N, ...] for every copy. `key` has two children: 0 moves the copies, 1 resets those that are done.

        An episode may end for both reasons at once; each of the two flags is true to its own.
        """
        keys = random.split(random.fold_in(key, 0), self.num_environments)
        action, real_space = to_real(self.action_space, jnp)(action), self.environment.action_space
        if self.action_space is not real_space:
            action = action.astype(stored(real_space).dtype)
        with guarded(f"{type(self.environment).__name__}.transition"):
            moved = jax.vmap(self.environment.transition)(env_state.state, action, keys)
        state, reward, terminated = self._checked(env_state.state, moved)
        steps, limit = env_state.steps + 1, self.environment.max_steps
        truncated = jnp.zeros_like(terminated) if limit is None else steps >= limit
        done = terminated | truncated
        state = jax.tree.map(_strongly_typed, state)
        reached = EnvironmentState(state, steps), self._observe(state)
        # As numbers: under `vmap` both branches are taken, and JAX's check of keys then sees a key in there used twice.
        reset_key, kind = random.key_data(key), random.key_impl(key)

        def restart():
            fresh = self.reset(random.fold_in(random.wrap_key_data(reset_key, impl=kind), 1))
            return _where(done, fresh, reached)

        if not self.restarts:
            env_state, observation = _where(done, env_state, reached[0]), reached[1]
        elif block := getattr(self.environment, "reset_block", None):
            env_state, observation = self._restarted_in_blocks(reached, done, random.fold_in(key, 1), block)
        else:
            # Most steps end no episode, and drawing new ones costs more than all of CartPole's physics.
            env_state, observation = lax.cond(done.any(), restart, lambda: reached)
        return env_state, Step(observation, reward.astype(jnp.float32), terminated, truncated, reached[1])

    def _restarted_in_blocks(self, reached: Any, done: jax.Array, key: jax.Array, block: int) -> Any:
        """What `reset(key)` gives wherever an episode is done, drawn in as many blocks as that takes."""
        n, block = self.num_environments, min(block, self.num_environments)
        keys, kind = random.key_data(random.split(key, n)), random.key_impl(key)
        # The copies that are done, then n: which is none, and what is written there is dropped.
        order = jnp.nonzero(done, size=n + block, fill_value=n)[0]

        def draw(carry):
            count, kept = carry
            copies = lax.dynamic_slice_in_dim(order, count, block)
            of_copies = random.wrap_key_data(keys[jnp.minimum(copies, n - 1)], impl=kind)
            fresh = Vectorized(self.environment, block)._begun(of_copies)
            return count + block, jax.tree.map(lambda old, new: old.at[copies].set(new, mode="drop"), kept, fresh)

        return lax.while_loop(lambda carry: carry[0] < done.sum(), draw, (jnp.int32(0), reached))[1]

    def _checked(self, before: PyTree, moved: Any) -> tuple[PyTree, jax.Array, jax.Array]:
        """What `transition` gave for all copies; EnvironmentFault where it is not (state, reward, terminated)."""
        name = f"{type(self.environment).__name__}.transition"
        if not isinstance(moved, tuple) or len(moved) != 3:
            given = f"{len(moved)} values" if isinstance(moved, tuple) else type(moved).__name__
            raise EnvironmentFault(f"{name} must return (state, reward, terminated), gave {given}")
        state, reward, terminated = moved
        for what, value in (("reward", reward), ("terminated", terminated)):
            if getattr(value, "shape", None) != (self.num_environments,):
                given = "nothing" if value is None else _text(_of_one(value))
                raise EnvironmentFault(f"{name} must give one number as {what} and no axes, gave {given}")
        if jnp.issubdtype(terminated.dtype, jnp.inexact):
            raise EnvironmentFault(f"{name} must give True or False as terminated, gave {_text(_of_one(terminated))}")
        then, now = _text(_of_one(before)), _text(_of_one(state))
        if then != now:
            raise EnvironmentFault(f"{name} was given the state {then} and made {now} of it")
        return state, reward, terminated.astype(bool)

    def _observe(self, state: PyTree) -> PyTree:
        """Observations [N, ...] in the dtypes that they are stored in; an error where the space promised otherwise."""
        with guarded(f"{type(self.environment).__name__}.observe"):
            observation = jax.vmap(self.environment.observe, axis_size=self.num_environments)(state)
        promised = stored(self.observation_space)
        given = _of_one(observation)
        fits = jax.tree.structure(given) == jax.tree.structure(promised)  # type: ignore[operator]
        if not fits or not all(map(_suits, jax.tree.leaves(given), jax.tree.leaves(promised))):
            name, gave, promises = type(self.environment).__name__, _text(given), _text(promised)
            raise EnvironmentFault(f"{name}.observe gave {gave}, its observation_space promises {promises}")
        return jax.tree.map(lambda promise, x: x.astype(promise.dtype), promised, observation)


def _where(done: jax.Array, one: PyTree, other: PyTree) -> PyTree:
    """`one` for the copies [N] that are done, `other` for those that are not."""
    return jax.tree.map(lambda x, y: jnp.where(done.reshape(-1, *[1] * (x.ndim - 1)), x, y), one, other)


def _of_one(values: PyTree) -> PyTree:
    """Shapes and dtypes of one copy of [N, ...]."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), values)


def _suits(given: jax.ShapeDtypeStruct, promised: jax.ShapeDtypeStruct) -> bool:
    """Whether shapes are the same, and no floats were given where whole numbers or booleans were promised."""
    kinds: list[Any] = [jnp.integer, jnp.bool_] + [jnp.floating] * jnp.issubdtype(promised.dtype, jnp.floating)
    return given.shape == promised.shape and any(jnp.issubdtype(given.dtype, kind) for kind in kinds)


def _text(types: PyTree) -> str:
    return str(jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", types)).replace("'", "")


def _strongly_typed(x: jax.Array) -> jax.Array:
    """A state made of Python numbers is weakly typed, and would be compiled for once more after the first step."""
    return lax.convert_element_type(x, x.dtype)
