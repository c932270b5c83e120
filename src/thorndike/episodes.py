"""What is counted of episodes, from the arrays of a rollout [T, N], raw and in every mode alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thorndike.loops import repeat

RING = 100  # the last returns and lengths that are kept one by one


class Episodes(NamedTuple):
    """Returns and lengths, of the running episodes, of the last finished ones, and summed up for a row of metrics."""

    reward: jax.Array  # [N] return so far of the running episodes
    length: jax.Array  # [N]
    finished: jax.Array  # episodes finished since the run began, uint32
    returns: jax.Array  # [RING] of the last finished ones; episode number i stands at i % RING
    lengths: jax.Array  # [RING]
    row: dict[str, jax.Array]  # sums since the last row: episodes, return, length, learned, and one per metric
    fault: jax.Array  # [3] uint32: 1 where a value was not finite; first such iteration, and t * N + copy in it


def none_yet(n: int, metrics: Iterable[str]) -> Episodes:
    """Episodes of `n` copies that have not begun, and rows with these metrics of learning."""
    row = {name: jnp.float32(0) for name in ("return", "length", *metrics)}
    row |= {"episodes": jnp.uint32(0), "learned": jnp.uint32(0)}
    reward, length = jnp.zeros(n, jnp.float32), jnp.zeros(n, jnp.int32)
    returns, lengths = jnp.zeros(RING, jnp.float32), jnp.zeros(RING, jnp.int32)
    return Episodes(reward, length, jnp.uint32(0), returns, lengths, row, fault=jnp.zeros(3, jnp.uint32))


def count(
    episodes: Episodes,
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    sound: jax.Array,
    iteration: jax.Array,
    metrics: dict[str, jax.Array] | None,
) -> Episodes:
    """Follow the running episodes through a rollout and note those that finish.

    `reward`, the two flags and `sound` (whether all numbers are finite) are of each step, [T, N]. `metrics` are what
    learning from the rollout gave, None where nothing was learned.
    """
    done = terminated | truncated  # [T, N]

    def follow(running, step):
        reward, length = running[0] + step[0], running[1] + 1
        return (jnp.where(step[1], 0.0, reward), jnp.where(step[1], 0, length)), (reward, length)

    running = episodes.reward, episodes.length
    (running_reward, running_length), (returns, lengths) = repeat(follow, running, (reward, done), done.shape[0])
    number = jnp.cumsum(done.reshape(-1), dtype=jnp.uint32)  # of each finished episode, from 1, in order of time
    count = number[-1]
    kept = done.reshape(-1) & (number + RING > count)  # if more finish than the ring holds, the newest stay
    place = jnp.where(kept, (episodes.finished + number - 1) % RING, RING)
    ring = episodes.returns.at[place].set(returns.reshape(-1), mode="drop")
    lengths_ring = episodes.lengths.at[place].set(lengths.reshape(-1), mode="drop")
    sums = {"episodes": count, "return": (returns * done).sum(), "length": (lengths * done).sum().astype(jnp.float32)}
    sums |= {} if metrics is None else {**metrics, "learned": jnp.uint32(1)}
    row = {name: episodes.row[name] + sums[name] if name in sums else episodes.row[name] for name in episodes.row}
    broken = ~sound
    found = jnp.stack([broken.any().astype(jnp.uint32), iteration, jnp.argmax(broken.reshape(-1)).astype(jnp.uint32)])
    fault = jnp.where((episodes.fault[0] == 0) & broken.any(), found, episodes.fault)
    finished = episodes.finished + count
    return Episodes(running_reward, running_length, finished, ring, lengths_ring, row, fault)


def finite(reward: jax.Array, observations: Any) -> jax.Array:
    """[T, N]: whether the reward and every number of the observations, a pytree of [T, N, ...], are finite."""
    finite = jnp.isfinite(reward)
    for x in jax.tree.leaves(observations):
        if jnp.issubdtype(x.dtype, jnp.floating):
            finite &= jnp.isfinite(x).reshape(*finite.shape, -1).all(-1)
    return finite
