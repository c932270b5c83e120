"""The contract: what algorithms, environments and memories offer, and the one loop that joins them.

Acting turns a policy into a trajectory; learning turns a trajectory into a better state. Learning has one
implementation, `learn`. Acting has interchangeable ones, called `unroll`: only they know whether the world is
compiled or on the host. Shapes: a step has none of the axes below, a trajectory is [T, N, ...] (time, copies of
the environment), a batch [T, B, ...] (a window of time, drawn from memory).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import random

from thorndike.episodes import Episodes, count, finite, none_yet
from thorndike.loops import repeat

PyTree = Any
Space = Any  # one of gymnasium.spaces


class Transition(NamedTuple):
    """One step of experience; with leading axes [T, N] a trajectory, [T, B] a batch."""

    observation: PyTree
    action: PyTree
    reward: jax.Array  # raw: scaling and clipping are the algorithm's
    terminated: jax.Array  # the task ended: there is nothing to bootstrap from
    truncated: jax.Array  # the episode was cut short: bootstrap from `next_observation`
    next_observation: PyTree  # what the action led to, before any reset
    extras: PyTree  # what `act` wants `update` to see: log_prob, the carry that it was given, ...; {} if nothing


class Batch(NamedTuple):
    """What a memory gives to learn from: B windows of T steps."""

    steps: Transition  # [T, B, ...]
    weight: jax.Array  # [B] what each window counts in a loss, ready to be multiplied by it
    index: jax.Array  # type: ignore[assignment]  # [B] where the memory has them, for its `feedback`


class Step(NamedTuple):
    """What an environment answers to an action, for all its copies: leaves are [N, ...]."""

    observation: PyTree  # the one to act on next: after the reset, where an episode ended
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_observation: PyTree  # what the action led to, before any reset


class World(Protocol):
    """What learning knows of an environment: its spaces, and how many copies there are."""

    @property
    def num_environments(self) -> int: ...

    @property
    def observation_space(self) -> Space:
        """Of one copy."""

    @property
    def action_space(self) -> Space:
        """Of one copy; a bounded Box is acted on in [-1, 1] and scaled by the environment."""


class Environment(World, Protocol):
    """`num_environments` copies side by side, each reset in the very step in which its episode ends."""

    @property
    def compiled(self) -> bool:
        """Pure and traceable (and hashable), or on the host, where it owes more: `environments.host` says what."""

    @property
    def max_steps(self) -> int | None:
        """After which an episode is truncated; None: never, or that is not known."""

    def reset(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """New episodes everywhere: (env_state, observation [N, ...]). On the host the key fixes every later seed."""

    def step(self, env_state: PyTree, action: PyTree, key: jax.Array) -> tuple[PyTree, Step]:
        """One action for every copy. On the host env_state is ()."""

    def close(self) -> None:
        """Release what the copies hold."""


class Memory(Protocol):
    """What is kept of the experience, and how batches are drawn from it."""

    def init(self, transition: PyTree, shape: tuple[int, int]) -> PyTree:
        """Empty, for one step's shapes (without leading axes) and trajectories of `shape` (T, N).

        Where the state has `steps` [rows, ...] and `size`, rows from `size` on are zeros, and are not saved (nor are
        those of `frames.pixels` from `frames.written` on).
        """

    def add(self, memory: PyTree, trajectory: Transition) -> PyTree: ...

    def sample(self, memory: PyTree, key: jax.Array, fraction: jax.Array) -> Batch:
        """What to learn from next, at this fraction of training."""

    def feedback(self, memory: PyTree, batch: Batch, feedback: PyTree) -> PyTree:
        """Take what `update` says of a batch, priorities or (); most memories have no use for it."""

    def restarted(self, memory: PyTree, begun: jax.Array) -> PyTree:
        """Copies `begun` [N] have left their episodes for new ones: the last step stored of each is a truncation."""


class Algorithm(Protocol):
    """A frozen dataclass: its fields are the hyper-parameters, its methods are pure."""

    @property
    def num_environments(self) -> int:
        """Copies acted in side by side."""

    @property
    def rollout_length(self) -> int:
        """Steps acted in each of them before learning."""

    @property
    def updates_per_rollout(self) -> int:
        """Batches learned from afterwards."""

    @property
    def warmup_steps(self) -> int:
        """First steps: actions uniform over the action space, remembered, not learned from.

        What `act` records of the action that it chose would be of another than the one taken: with a warm-up, its
        extras are `carry` (what it was given) or nothing.
        """

    @property
    def memory(self) -> Memory: ...

    def check(self, observation_space: Space, action_space: Space) -> None:
        """Raise a typed error, before anything is compiled, where the spaces do not suit."""

    def init(self, key: jax.Array, observation_space: Space, action_space: Space) -> PyTree: ...

    def policy(self, state: PyTree, fraction: jax.Array, explore: bool = True) -> PyTree:
        """All that acting needs at this fraction of training, as one pytree."""

    def initial_carry(self, n: int) -> PyTree:
        """What an episode begins with of the policy's memory: zeros [n, ...]; no arrays for feed-forward policies."""

    def act(self, policy: PyTree, observation: PyTree, carry: PyTree, key: jax.Array) -> tuple[PyTree, PyTree, dict]:
        """Actions for observations [N, ...], the next carry, and the extras to remember."""

    def greedy(self, policy: PyTree, observation: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
        """The best actions for observations [N, ...], however much the policy explores, and the next carry."""

    def observe(self, state: PyTree, trajectory: Transition) -> PyTree:
        """The state with what it keeps of all experience: sees every trajectory once, warming up or before learning."""

    def restarted(self, state: PyTree, begun: jax.Array) -> PyTree:
        """Copies `begun` [N] have left their episodes for new ones: what the state has summed over them starts anew."""

    def update(
        self, state: PyTree, batch: Batch, fraction: jax.Array, key: jax.Array
    ) -> tuple[PyTree, dict[str, jax.Array], PyTree]:
        """A better state, metrics, and feedback for the memory.

        That is how wrong it was about each window [B], or about each of the steps [L, B] that it learned from; or ().
        """


class Actor(NamedTuple):
    """Where an unroll stopped, so that the next one can go on."""

    env_state: PyTree
    observation: PyTree
    carry: PyTree
    done: Any  # [N] whether the last step ended an episode, so that the carry starts afresh


class Progress(NamedTuple):
    """Everything a run needs to go on: this is what a checkpoint holds."""

    state: PyTree
    memory: PyTree
    actor: Any  # an Actor; None where it is kept apart, on the host
    episodes: Episodes
    iteration: jax.Array  # uint32, the only counter on the device; steps are counted on the host
    ahead: PyTree = ()  # with overlap, the trajectory acted while the one before it was learned from


class Unroll(Protocol):
    """A way to act for `length` steps: where that stopped, and the trajectory [length, N]."""

    def __call__(
        self, algorithm: Algorithm, environment: Environment, policy: PyTree, actor: Actor, key: jax.Array,
        length: int, uniform: bool = False,
    ) -> tuple[Actor, Transition]: ...  # fmt: skip


def improve(algorithm: Algorithm, state: PyTree, memory: PyTree, fraction: jax.Array, key: jax.Array) -> tuple:
    """Learn from batches of what is remembered: sample, update, feed back, `updates_per_rollout` times."""

    def update(carry, key):
        state, memory = carry
        sample_key, update_key = random.split(key)
        batch = algorithm.memory.sample(memory, sample_key, fraction)
        state, metrics, feedback = algorithm.update(state, batch, fraction, update_key)
        memory = algorithm.memory.feedback(memory, batch, feedback)
        return (state, memory), {name: jnp.mean(x, dtype=jnp.float32) for name, x in metrics.items()}

    keys = random.split(key, algorithm.updates_per_rollout)
    (state, memory), metrics = repeat(update, (state, memory), keys, algorithm.updates_per_rollout)
    return state, memory, jax.tree.map(lambda x: x.mean(0), metrics)


def remember(algorithm: Algorithm, state: PyTree, memory: PyTree, trajectory: Transition) -> tuple:
    """What state and memory keep of a trajectory, whether it is learned from or not."""
    return algorithm.observe(state, trajectory), algorithm.memory.add(memory, trajectory)


def learn(
    algorithm: Algorithm, state: PyTree, memory: PyTree, trajectory: Transition, fraction: jax.Array, key: jax.Array
) -> tuple:
    """Remember a trajectory, then improve the state. Pure, and the same in every mode."""
    state, memory = remember(algorithm, state, memory, trajectory)
    return improve(algorithm, state, memory, fraction, key)


def plan(algorithm: Algorithm, progress: Progress, key: jax.Array, total: jax.Array) -> tuple:
    """What the next iteration acts with: its policy, and the keys of acting and learning."""
    unroll_key, learn_key = random.split(random.fold_in(key, progress.iteration))
    policy = algorithm.policy(progress.state, fraction_done(progress, total))
    return policy, unroll_key, learn_key


def conclude(
    algorithm: Algorithm, progress: Progress, actor: Actor | None, trajectory: Transition, key: jax.Array,
    total: jax.Array, warmup: bool = False,
) -> Progress:  # fmt: skip
    """Learn from what was acted (or, warming up, only remember it) and count its episodes."""
    state, memory, metrics = progress.state, progress.memory, None
    if warmup:
        state, memory = remember(algorithm, state, memory, trajectory)
    else:
        state, memory, metrics = learn(algorithm, state, memory, trajectory, fraction_done(progress, total), key)
    observation, _, reward, terminated, truncated, next_observation, _ = trajectory
    sound = finite(reward, (observation, next_observation))
    episodes = count(progress.episodes, reward, terminated, truncated, sound, progress.iteration, metrics)
    return Progress(state, memory, actor, episodes, progress.iteration + 1)


def iteration(
    algorithm: Algorithm, environment: Environment, unroll: Unroll, progress: Progress, key: jax.Array,
    total: jax.Array, warmup: bool = False,
) -> Progress:  # fmt: skip
    """Policy, unroll, learn: the whole of reinforcement learning, once around."""
    policy, unroll_key, learn_key = plan(algorithm, progress, key, total)
    length = algorithm.rollout_length
    actor, trajectory = unroll(algorithm, environment, policy, progress.actor, unroll_key, length, uniform=warmup)
    return conclude(algorithm, progress, actor, trajectory, learn_key, total, warmup)


def fraction_done(progress: Progress, total: jax.Array) -> jax.Array:
    """The fraction of the run's `total` iterations that lies behind, float32: what schedules take."""
    return progress.iteration.astype(jnp.float32) / total


def start(algorithm: Algorithm, world: World, env_state: PyTree, observation: PyTree, key: jax.Array) -> Progress:
    """The progress of a run that has not begun, from the first observations [N, ...]."""
    init_key, shape_key = random.split(key)
    n, length = world.num_environments, algorithm.rollout_length
    state = algorithm.init(init_key, world.observation_space, world.action_space)
    step = shapes_of_step(algorithm, state, observation, shape_key)
    memory = algorithm.memory.init(step, (length, n))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((length, n, *x.shape), x.dtype), step)
    metrics = jax.eval_shape(learn, algorithm, state, memory, batch, jnp.float32(0), shape_key)[2]
    actor = Actor(env_state, observation, algorithm.initial_carry(n), jnp.zeros(n, bool))
    return Progress(state, memory, actor, none_yet(n, metrics), jnp.uint32(0))


def shapes_of_step(algorithm: Algorithm, state: PyTree, observation: PyTree, key: jax.Array) -> Transition:
    """What is remembered of one step, as shapes without axes, of a policy that acts on observations [N, ...]."""

    def step(state, observation):
        n = len(jax.tree.leaves(observation)[0])
        policy = algorithm.policy(state, jnp.float32(0))
        action, _, extras = algorithm.act(policy, observation, algorithm.initial_carry(n), key)
        flag, number = jnp.zeros(n, bool), jnp.zeros(n, jnp.float32)
        return Transition(observation, action, number, flag, flag, observation, extras)

    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), jax.eval_shape(step, state, observation))
