"""Prioritized experience replay: the steps that surprised are drawn the more often."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random

from thorndike.core import Batch, Transition
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories.replay import Replay
from thorndike.memories.rings import stored, whole_windows
from thorndike.schedules import linear

FAN = 8  # priorities are summed in groups of so many
SMALLEST = 1e-6  # added to priorities, so that none of them is never drawn again


class PrioritizedRing(NamedTuple):
    """A ring, and for each of its steps the priority of the window that starts there."""

    steps: Transition
    head: jax.Array
    size: jax.Array
    sums: tuple[jax.Array, ...]  # [groups, FAN]: the priorities, their sums by groups, the sums of those, ...
    highest: jax.Array  # the highest priority so far, the exponent applied
    frames: Any = ()


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
        return PrioritizedRing(ring.steps, ring.head, ring.size, sums, jnp.float32(1), ring.frames)

    def add(self, ring: PrioritizedRing, trajectory: Transition) -> PrioritizedRing:
        """As in Replay. Which windows are whole changes in the rows written and the `length - 1` before them.

        The oldest rows before those may have been forgotten.
        """
        length, rows = len(trajectory.reward), len(ring.steps.reward)
        touched = min(length + self.length - 1, rows)
        offset = jnp.arange(length - touched, length, dtype=jnp.int32)  # 0 is the first row written
        most = min(self.storage.forgets(ring, length), rows - touched)
        oldest = jnp.maximum(-stored(ring), length - rows) + jnp.arange(most, dtype=jnp.int32)
        oldest = jnp.minimum(oldest, length - touched - 1)
        index, index_of_oldest = (_steps_at(ring, ring.head + x) for x in (offset, oldest))
        ring = self.storage.write(ring, self._kept(trajectory))
        whole = (offset <= length - self.length) & (offset >= length - stored(ring))
        priority = jnp.broadcast_to(jnp.where(whole, ring.highest, 0.0)[:, None], index.shape)
        forgotten = (oldest < length - stored(ring))[:, None]
        kept = jnp.where(forgotten, 0.0, _priorities(ring.sums, index_of_oldest))
        index, priority = jnp.concatenate([index, index_of_oldest]), jnp.concatenate([priority, kept])
        return ring._replace(sums=_set(ring.sums, index.reshape(-1), priority.reshape(-1)))

    def sample(self, ring: PrioritizedRing, key: jax.Array, fraction: jax.Array) -> Batch:
        """Windows [length, B], the likelier the higher their priority. beta rises linearly (section 3.4)."""
        index, priority, total = _draw(ring.sums, key, self.batch_size)
        index = jnp.minimum(index, ring.steps.reward.size - 1)
        count = whole_windows(ring, self.length).astype(jnp.float32)
        weight = jnp.where(priority > 0, total / (count * priority), 1.0) ** linear(self.beta, 1.0, fraction)
        return Batch(self.storage.windows(ring, index, self.length), weight / weight.max(), index)

    def feedback(self, ring: PrioritizedRing, batch: Batch, feedback: jax.Array) -> PrioritizedRing:
        """The new priorities of a batch sampled since the last `add`: of its windows [B], or of their steps [L, B]."""
        index = batch.index
        if isinstance(feedback, tuple):
            raise SettingError(
                "Prioritized needs an algorithm that reports priorities, such as DQN: use Replay (or FrameReplay)"
            )
        if jnp.shape(feedback) not in (index.shape, (self.sequence, *index.shape)):
            raise SettingError(
                f"Prioritized needs a priority for each of {index.size} windows, got an array {jnp.shape(feedback)}"
            )
        errors = feedback.reshape(-1, index.size)
        feedback = errors.mean(0) + self.eta * (errors.max(0) - errors.mean(0))  # bit for bit the error of one step
        priority = ((feedback + SMALLEST) ** self.alpha).astype(jnp.float32)
        present = _priorities(ring.sums, index)
        priority = jnp.where(present > 0, priority, 0.0)  # nothing brings a window back that is not whole
        sums = _set(ring.sums, index, priority)
        return ring._replace(sums=sums, highest=jnp.maximum(ring.highest, priority.max()))


def _steps_at(ring: PrioritizedRing, row: jax.Array) -> jax.Array:
    """The indices [K, N] of the steps in rows [K], which are counted around the ring."""
    rows, n = ring.steps.reward.shape
    return jnp.mod(row, rows)[:, None] * n + jnp.arange(n, dtype=jnp.int32)[None]


def _priorities(sums: tuple[jax.Array, ...], index: jax.Array) -> jax.Array:
    return sums[0][index // FAN, index % FAN]


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
