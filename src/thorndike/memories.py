"""What is kept of the experience, and how batches are drawn from it.

Every memory is `init, add, sample, feedback, restarted` around explicit state. The steps of a batch are trajectories:
[T, B], windows of consecutive steps of one copy of the environment. A window may run past the end of an episode
(formulas stop there), never past the newest step stored.

All of it is written in place where the caller donates the state or carries it through a loop, so that the time of an
`add` or a `sample` does not depend on the capacity, also under `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax, random

from thorndike.core import Algorithm, Batch, Transition
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.schedules import linear
from thorndike.sequences import first, remembers, shapes_of_carry

FAN = 8  # priorities are summed in groups of so many
SMALLEST = 1e-6  # added to priorities, so that none of them is never drawn again
LARGEST_CAPACITY = 2**30  # twice that no longer fits the 32-bit indices
SEQUENCES = {"sequence": 16, "burn_in": 8}  # where a network has a memory and nothing else is said


@hyperparameters
class Latest:
    """Only the newest trajectory, whole: for algorithms that learn from what the present policy did."""

    def init(self, transition: Transition, shape: tuple[int, int]) -> Transition:
        return jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape), x.dtype), transition)

    def add(self, memory: Transition, trajectory: Transition) -> Transition:
        return trajectory

    def sample(self, memory: Transition, key: jax.Array, fraction: jax.Array) -> Batch:
        """All of it [T, N]; `index` is the copy."""
        return _unweighted(memory, jnp.arange(memory.reward.shape[1], dtype=jnp.int32))

    def feedback(self, memory: Transition, batch: Batch, feedback: Any) -> Transition:
        return memory

    def restarted(self, memory: Transition, begun: jax.Array) -> Transition:
        return memory  # the next trajectory replaces all of it


class Ring(NamedTuple):
    """The last steps of N copies, a row for each point in time; the newest row is followed by the oldest."""

    steps: Transition  # [rows, N, ...]
    head: jax.Array  # the row to write next
    size: jax.Array  # rows written, at most all of them


@hyperparameters
class Replay:
    """The last `capacity` steps; batches of windows, every window that is stored whole as likely as any other.

    Lin (1992), "Self-improving reactive agents based on reinforcement learning, planning and teaching". With N copies
    of the environment each keeps its last `capacity // N` steps. Networks with a memory learn from `sequence` steps in
    a row, after a `burn_in` (Kapturowski et al., 2019, "Recurrent experience replay in distributed reinforcement
    learning").
    """

    capacity: int = setting(100_000, low=1, high=LARGEST_CAPACITY)  # steps
    batch_size: int = setting(128, low=1)  # windows in a batch
    window: int = setting(1, low=1)  # the n of n-step returns
    sequence: int = setting(1, low=1)  # steps in a row that a network with a memory learns from
    burn_in: int = setting(0, low=0)  # steps before those, which only warm up what is carried into them
    stored_carry: bool = True  # windows begin with the carry that was acted with; False: with zeros, stored is none

    @property
    def length(self) -> int:
        """Consecutive steps in a window."""
        return self.burn_in + self.sequence + self.window - 1

    def validate(self) -> None:
        length = "window" if self.length == self.window else "burn_in + sequence + window - 1 ="
        for name, number in (("batch_size", self.batch_size), (length, self.length)):
            if number > self.capacity:
                raise SettingError(f"{type(self).__name__}: {name} {number} is larger than capacity {self.capacity}")

    def init(self, transition: Transition, shape: tuple[int, int]) -> Any:
        """An empty ring for one step's shapes and trajectories of `shape` (T, N); SettingError if they do not fit."""
        length, n = shape
        rows = self.capacity // n
        if rows < max(length, self.length):
            raise SettingError(
                f"{type(self).__name__}: capacity {self.capacity} holds {rows} steps of each of {n} environments, "
                f"but a rollout has {length} and a window {self.length}: "
                f"capacity must be at least {n * max(length, self.length)}"
            )
        steps = jax.tree.map(lambda x: jnp.zeros((rows, n, *x.shape), x.dtype), self._kept(transition))
        return Ring(steps, jnp.int32(0), jnp.int32(0))

    def add(self, ring: Any, trajectory: Transition) -> Any:
        """Overwrite the oldest rows with a trajectory [T, N] of at most as many rows as there are."""
        return _write(ring, self._kept(trajectory))

    def sample(self, ring: Any, key: jax.Array, fraction: jax.Array) -> Batch:
        """Windows [length, B], with replacement. Needs `length` rows; before, it gives rows of zeros."""
        rows, n = ring.steps.reward.shape
        count = jnp.maximum(_whole_windows(ring, self.length), 1)
        start = random.randint(key, (self.batch_size,), 0, count, jnp.int32) + (ring.head - ring.size) * n
        index = jnp.mod(start, rows * n)
        return _unweighted(_windows(ring, index, self.length), index)

    def feedback(self, ring: Any, batch: Batch, feedback: Any) -> Any:
        return ring

    def restarted(self, ring: Any, begun: jax.Array) -> Any:
        """The newest step of the copies `begun` [N] becomes a truncation: no return reaches into their new episodes."""
        truncated = ring.steps.truncated.at[ring.head - 1].max(begun)  # row -1 is the last one
        return ring._replace(steps=ring.steps._replace(truncated=truncated))

    def _kept(self, steps: Transition) -> Transition:
        """What is stored of steps."""
        names = [name for name in steps.extras if self.stored_carry or name != "carry"]
        return steps._replace(extras={name: steps.extras[name] for name in names})


class PrioritizedRing(NamedTuple):
    """A ring, and for each of its steps the priority of the window that starts there."""

    steps: Transition
    head: jax.Array
    size: jax.Array
    sums: tuple[jax.Array, ...]  # [groups, FAN]: the priorities, their sums by groups, the sums of those, ...
    highest: jax.Array  # the highest priority so far, the exponent applied


@hyperparameters
class Prioritized(Replay):
    """A replay that draws windows in proportion to how wrong the algorithm was about them.

    Schaul et al. (2016), "Prioritized experience replay", proportional variant: P(i) = p_i^alpha / sum_j p_j^alpha,
    p_i = feedback[i] + 1e-6. A new window gets the highest priority so far. The weights of a batch undo the bias of
    drawing so: (1 / (windows stored * P(i)))^beta, over the batch's largest. Of a sequence, `feedback` is mixed of the
    largest and the mean of its steps.
    """

    alpha: float = setting(0.6, low=0, high=1)  # 0 draws uniformly
    beta: float = setting(0.4, low=0, high=1)  # of the bias that weights undo; it rises to 1 at the end of the run
    eta: float = setting(0.9, low=0, high=1)  # share of the largest in a sequence's feedback, the rest is its mean

    def init(self, transition: Transition, shape: tuple[int, int]) -> PrioritizedRing:
        ring = super().init(transition, shape)
        sums = _no_sums(ring.steps.reward.size)
        return PrioritizedRing(ring.steps, ring.head, ring.size, sums, highest=jnp.float32(1))

    def add(self, ring: PrioritizedRing, trajectory: Transition) -> PrioritizedRing:
        """As in Replay. Which windows are whole changes in the rows written and the `length - 1` before them."""
        length, (rows, n) = len(trajectory.reward), ring.steps.reward.shape
        touched = min(length + self.length - 1, rows)
        offset = jnp.arange(length - touched, length, dtype=jnp.int32)  # 0 is the first row written
        row = jnp.mod(ring.head + offset, rows)
        ring = _write(ring, self._kept(trajectory))
        whole = (offset <= length - self.length) & (offset >= length - ring.size)
        index = row[:, None] * n + jnp.arange(n, dtype=jnp.int32)[None]
        priority = jnp.broadcast_to(jnp.where(whole, ring.highest, 0.0)[:, None], index.shape)
        return ring._replace(sums=_set(ring.sums, index.reshape(-1), priority.reshape(-1)))

    def sample(self, ring: PrioritizedRing, key: jax.Array, fraction: jax.Array) -> Batch:
        """Windows [length, B], the likelier the higher their priority. beta rises linearly (section 3.4)."""
        index, priority, total = _draw(ring.sums, key, self.batch_size)
        index = jnp.minimum(index, ring.steps.reward.size - 1)
        count = _whole_windows(ring, self.length).astype(jnp.float32)
        weight = jnp.where(priority > 0, total / (count * priority), 1.0) ** linear(self.beta, 1.0, fraction)
        return Batch(_windows(ring, index, self.length), weight / weight.max(), index)

    def feedback(self, ring: PrioritizedRing, batch: Batch, feedback: jax.Array) -> PrioritizedRing:
        """The new priorities of a batch sampled since the last `add`: of its windows [B], or of their steps [L, B]."""
        index = batch.index
        if isinstance(feedback, tuple):
            raise SettingError("Prioritized needs an algorithm that reports priorities, such as DQN: use Replay")
        if jnp.shape(feedback) not in (index.shape, (self.sequence, *index.shape)):
            raise SettingError(
                f"Prioritized needs a priority for each of {index.size} windows, got an array {jnp.shape(feedback)}"
            )
        errors = feedback.reshape(-1, index.size)
        feedback = errors.mean(0) + self.eta * (errors.max(0) - errors.mean(0))  # bit for bit the error of one step
        priority = ((feedback + SMALLEST) ** self.alpha).astype(jnp.float32)
        stored = ring.sums[0][index // FAN, index % FAN]
        priority = jnp.where(stored > 0, priority, 0.0)  # nothing brings a window back that is not whole
        sums = _set(ring.sums, index, priority)
        return ring._replace(sums=sums, highest=jnp.maximum(ring.highest, priority.max()))


def shuffled(key: jax.Array, epochs: int, count: int) -> jax.Array:
    """[epochs, count]: each row a shuffled range(count), by sorting random bits that carry their index below.

    Where fewer than 20 random bits would be left above the index, equal ones would keep the old order in a hundredth of
    all pairs and more: there 64 are sorted and the index goes along.
    """
    width = max(count - 1, 1).bit_length()
    if width > 12:
        index = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), (epochs, count))
        return lax.sort((*random.bits(key, (2, epochs, count), jnp.uint32), index), num_keys=2)[2]
    bits = random.bits(key, (epochs, count), jnp.uint32)
    tagged = (bits >> width << width) | jnp.arange(count, dtype=jnp.uint32)[None]
    return (jnp.sort(tagged, axis=-1) & ((1 << width) - 1)).astype(jnp.int32)


def first_carry(steps: Transition, initial_carry: Callable[[int], Any]) -> Any:
    """What windows [T, B] begin with: the carry [B, ...] that was acted with where it is stored, else zeros."""
    if "carry" in steps.extras:
        return first(steps.extras["carry"])
    return initial_carry(steps.reward.shape[1])


class OffPolicy(Algorithm, Protocol):
    """An algorithm that learns from a replay."""

    @property
    def memory(self) -> Replay: ...


def check_rollout(algorithm: Any) -> None:
    """Raise SettingError where networks or minibatches of an algorithm do not suit its rollouts."""
    name, length, size = type(algorithm).__name__, algorithm.rollout_length, algorithm.batch_size
    steps = length * algorithm.num_environments
    if steps % size:
        rollout = f"{algorithm.num_environments} x {length} = {steps} steps"
        raise SettingError(f"{name}: a rollout of {rollout} does not divide into batch_size {size}")
    if length % algorithm.length or size % algorithm.length:
        raise SettingError(
            f"{name}: rollout_length and batch_size must be multiples of sequence_length {algorithm.length}"
        )
    memory = shapes_of_carry(algorithm.network.initial_carry)
    if remembers(memory) and not algorithm.critic_network and not algorithm.normalize_rewards:
        raise SettingError(
            f"{name}: values drown a memory that they share: give normalize_rewards=True, or a critic_network"
        )


def check_replay(algorithm: OffPolicy, unstored: Any = ()) -> None:
    """Raise SettingError where networks, rollouts or warm-up of an algorithm do not suit its Replay memory.

    `unstored` is what networks carry that do not act, so that it is not in the memory.
    """
    name, memory, copies = type(algorithm).__name__, algorithm.memory, algorithm.num_environments
    rows = memory.capacity // copies
    if rows < max(algorithm.rollout_length, memory.length):
        raise SettingError(
            f"{name}: memory.capacity {memory.capacity} holds {rows} steps of each of {copies} environments, "
            f"fewer than rollout_length {algorithm.rollout_length} or a window's {memory.length}"
        )
    if algorithm.warmup_steps // copies + algorithm.rollout_length < memory.length:
        raise SettingError(
            f"{name}: warmup_steps must fill at least one window of the memory, {memory.length} steps, in every "
            "environment"
        )
    carry = shapes_of_carry(algorithm.initial_carry)
    example = f"memory={type(memory).__name__}({', '.join(f'{field}={steps}' for field, steps in SEQUENCES.items())})"
    if remembers((carry, unstored)) and memory.sequence == 1:
        raise SettingError(f"{name}: a network with a memory learns from steps in a row: give {example}")
    if remembers(unstored if memory.stored_carry else (carry, unstored)) and not memory.burn_in:
        raise SettingError(f"{name}: networks that begin a window with an empty memory need a burn-in: give {example}")


def _unweighted(steps: Transition, index: jax.Array) -> Batch:
    """A batch whose windows all count alike."""
    return Batch(steps, jnp.ones(index.shape, jnp.float32), index)


def _write(ring: Any, trajectory: Transition) -> Any:
    """The trajectory [T, N] in the rows from `head` on, around the end if need be."""
    rows, length = len(ring.steps.reward), len(trajectory.reward)
    if length > rows:
        raise SettingError(f"a trajectory of {length} steps does not fit a memory of {rows}: raise capacity")
    row = jnp.mod(ring.head + jnp.arange(length, dtype=jnp.int32), rows)

    def put(stored, new):
        return stored.at[row].set(jnp.asarray(new, stored.dtype), unique_indices=True, mode="promise_in_bounds")

    head, size = (ring.head + length) % rows, jnp.minimum(ring.size + length, rows)
    return ring._replace(steps=jax.tree.map(put, ring.steps, trajectory), head=head, size=size)


def _whole_windows(ring: Any, window: int) -> jax.Array:
    """How many windows are stored from their first step to their last."""
    return jnp.maximum(ring.size - window + 1, 0) * ring.steps.reward.shape[1]


def _windows(ring: Any, start: jax.Array, window: int) -> Transition:
    """The steps [window, B] from `start` [B] on, which counts row * N + copy."""
    rows, n = ring.steps.reward.shape
    index = jnp.mod(start[None] + n * jnp.arange(window, dtype=jnp.int32)[:, None], rows * n)

    def take(stored):
        return stored.reshape(rows * n, *stored.shape[2:]).at[index].get(mode="promise_in_bounds")

    return jax.tree.map(take, ring.steps)


def _no_sums(count: int) -> tuple[jax.Array, ...]:
    """Zeros for `count` priorities: groups of FAN, level after level, until a single group is left."""
    levels: list[jax.Array] = []
    while not levels or count > 1:
        count = -(-count // FAN)
        levels.append(jnp.zeros((count, FAN), jnp.float32))
    return tuple(levels)


def _set(sums: tuple[jax.Array, ...], index: jax.Array, priority: jax.Array) -> tuple[jax.Array, ...]:
    """The priorities at `index` [K], and above them the sums of their groups, added up anew so that none drifts."""
    changed = []
    for level in sums:
        group = index // FAN
        level = level.at[group, index % FAN].set(priority, mode="promise_in_bounds")
        changed.append(level)
        index, priority = group, level[group].sum(1)
    return tuple(changed)


def _draw(sums: tuple[jax.Array, ...], key: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Indices [count] in proportion to their priorities, those priorities, and the sum of all.

    From the single group on top down to the priorities, each level with a random number of its own: one number for
    all of them would have too few digits for a million priorities.
    """
    fractions = random.uniform(key, (len(sums), count), jnp.float32)
    index = jnp.zeros(count, jnp.int32)
    for level, fraction in zip(reversed(sums), fractions, strict=True):
        group = level[index]  # [count, FAN]
        child = _first_above(group, fraction)
        index = index * FAN + child
    priority = jnp.take_along_axis(group, child[:, None], 1)[:, 0]
    return index, priority, sums[-1].sum()


def _first_above(group: jax.Array, fraction: jax.Array) -> jax.Array:
    """In each group [count, FAN], the member at that fraction of its sum; never one of priority 0 beside others.

    Written as a maximum over scores: the first member whose running sum is above the point scores highest. Should
    rounding leave none above it, the last of the members that are not 0 does.
    """
    running = jnp.cumsum(group, 1)
    order = jnp.arange(FAN, dtype=jnp.int32)[None]
    above = running > (fraction * running[:, -1])[:, None]
    score = jnp.where(group > 0, jnp.where(above, 2 * FAN - order, order), 0).max(1)
    return jnp.where(score > FAN, 2 * FAN - score, score)
