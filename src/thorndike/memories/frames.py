"""Replays of images that are stacks of frames: every frame is stored once, and stacks are put together when drawn."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from thorndike.core import Transition
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters
from thorndike.memories.prioritized import Prioritized
from thorndike.memories.replay import Replay
from thorndike.memories.rings import Ring, Rows, Storage
from thorndike.spaces import channels_axis

StackAxis = Literal["auto", "first", "last", "none"]
SPARE = 16  # steps for each of which there is room for a frame more, for what begins episodes
COLOURS = 3


class Frames(NamedTuple):
    """The last frames of N copies. A stack is a frame and those before it: a ring's rows hold the newest one's slot."""

    pixels: jax.Array  # [slots, N, F]: flat, whole frames are copied
    head: jax.Array  # [N] the slot to write next
    written: jax.Array  # slots written of any copy, at most all of them
    rows: jax.Array  # the ring's newest rows, those whose frames are all here
    last: Any  # [N, ...] the next_observation of the newest row


@hyperparameters
class FrameReplay(Replay):
    """A replay that stores every frame of stacked images once: an eighth of the bytes for stacks of four.

    Nothing is assumed of the stacks. Where an observation is not the one before it moved on by a frame (an episode
    begins, or it is no stack) it is stored whole, which takes as many frames. There is room for one frame a step and a
    sixteenth more: while episodes are shorter than about 16 stacks, fewer than `capacity` steps are remembered.
    `stack_axis` says where an image's frames are: "first" (4, 84, 84), "last" (84, 84, 4), or "none" for images that
    are no stacks, each of which is then stored once. "auto" tells the first two from the shape.
    """

    stack_axis: StackAxis = "auto"

    @property
    def storage(self) -> Storage:
        """How steps are stored: images as frames."""
        return Stacks(self.stack_axis, type(self).__name__)


@hyperparameters
class PrioritizedFrames(Prioritized):
    """A FrameReplay that draws windows in proportion to how wrong the algorithm was about them, as Prioritized does."""

    stack_axis: StackAxis = "auto"

    @property
    def storage(self) -> Storage:
        """How steps are stored: images as frames."""
        return Stacks(self.stack_axis, type(self).__name__)


def in_frames(memory: Any) -> Any:
    """A plain replay as one that stores frames; None for any other memory."""
    kinds: dict[type, type] = {Replay: FrameReplay, Prioritized: PrioritizedFrames}
    kind = kinds.get(type(memory))
    return kind and kind(**{field.name: getattr(memory, field.name) for field in dataclasses.fields(memory)})


@dataclasses.dataclass(frozen=True)
class Stacks(Rows):
    """Steps whose one image is stored as frames, which `ring.frames` holds; all else as it is."""

    stack_axis: StackAxis
    owner: str  # the memory's name, for what it says

    def empty(self, step: Transition, rows: int, n: int, length: int) -> Ring:
        """Any `length` rows fit: each has at most two stacks of its own."""
        image = jax.tree.leaves(step.observation)[self._place(step.observation, 0)]
        stack = self._length(image.shape)
        slots = max(rows + rows // SPARE + 2 * stack, 2 * stack * length)
        slot = jax.ShapeDtypeStruct((), jnp.int32)
        both = (self._with_image(x, slot, 0) for x in (step.observation, step.next_observation))
        observation, next_observation = both
        ring = super().empty(step._replace(observation=observation, next_observation=next_observation), rows, n, length)
        pixels = jnp.zeros((slots, n, math.prod(image.shape) // stack), image.dtype)
        last = jax.tree.map(lambda x: jnp.zeros((n, *x.shape), x.dtype), step.observation)
        return ring._replace(frames=Frames(pixels, jnp.zeros(n, jnp.int32), jnp.int32(0), jnp.int32(0), last))

    def write(self, ring: Any, trajectory: Transition) -> Any:
        """Stacks that are not the last ones moved on by a frame are written whole: any will do."""
        frames, length, rows = ring.frames, len(trajectory.reward), len(ring.steps.reward)
        slots, n, _ = frames.pixels.shape
        most = self.forgets(ring, length)
        if most > slots:
            raise SettingError(f"{self.owner} was made for trajectories shorter than one of {length} steps")
        fresh, images = self._fresh(frames, trajectory)
        count = jnp.cumsum(fresh.reshape(-1, n), 0, dtype=jnp.int32)
        slot = jnp.mod(frames.head[None] + count - 1, slots).reshape(fresh.shape)  # of the newest frame so far
        put = jnp.where(fresh, slot, slots), jnp.arange(n, dtype=jnp.int32)[None, None]  # `slots` is nowhere
        pixels = frames.pixels.at[put].set(images, mode="drop")

        place, stack = self._place(frames.last, 1), fresh.shape[1] // 2
        observation = self._with_image(trajectory.observation, slot[:, stack - 1], 2)
        next_observation = self._with_image(trajectory.next_observation, slot[:, -1], 2)
        oldest = jnp.arange(min(most, rows), dtype=jnp.int32) - frames.rows  # 0 is the first row written
        row = jnp.mod(ring.head + oldest, rows)
        ring = super().write(ring, trajectory._replace(observation=observation, next_observation=next_observation))
        newest = jax.tree.leaves(ring.steps.observation)[place][row]  # read before it is written, all would be copied
        behind = jnp.mod(frames.head[None] - newest + stack - 2, slots) + 1  # frames since their first one, it included
        gone = (behind + count[-1:] > slots).any(1) | (oldest < length - rows)
        kept = frames.rows + length - (gone & (oldest < 0)).sum(dtype=jnp.int32)
        end = frames.head + count[-1]
        written = jnp.minimum(jnp.maximum(frames.written, end.max()), slots)
        last = jax.tree.map(lambda x, like: jnp.asarray(x[-1], like.dtype), trajectory.next_observation, frames.last)
        return ring._replace(frames=Frames(pixels, jnp.mod(end, slots), written, kept, last))

    def windows(self, ring: Any, start: jax.Array, window: int) -> Transition:
        steps, copy = super().windows(ring, start, window), jnp.mod(start, ring.frames.pixels.shape[1])
        place = self._place(ring.frames.last, 1)

        def whole(observation):
            leaves, structure = jax.tree.flatten(observation)
            leaves[place] = self._stacks(ring.frames, leaves[place], copy)
            return jax.tree.unflatten(structure, leaves)

        return steps._replace(observation=whole(steps.observation), next_observation=whole(steps.next_observation))

    def forgets(self, ring: Any, length: int) -> int:
        """As many as frames are written: no two rows begin with the same."""
        image = jax.tree.leaves(ring.frames.last)[self._place(ring.frames.last, 1)]
        return 2 * self._length(image.shape[1:]) * length

    def _fresh(self, frames: Frames, trajectory: Transition) -> tuple[jax.Array, jax.Array]:
        """Of each step's two stacks the frames [T, 2 * stack, N, F], and which of them [T, 2 * stack, N] are new."""
        trees, place = (frames.last, trajectory.observation, trajectory.next_observation), self._place(frames.last, 1)
        last, before, after = (jnp.asarray(jax.tree.leaves(x)[place], frames.pixels.dtype) for x in trees)
        known = (before == jnp.concatenate([last[None], after[:-1]])).all(range(2, before.ndim))
        old, new = self._apart(before), self._apart(after)
        moved = (old[:, 1:] == new[:, :-1]).all((1, 3))
        stack = old.shape[1]
        fresh = [*[~known] * stack, *[~moved] * (stack - 1), jnp.ones_like(moved)]
        return jnp.stack(fresh, 1), jnp.concatenate([old, new], 1)

    def _stacks(self, frames: Frames, slot: jax.Array, copy: jax.Array) -> jax.Array:
        """The stacks [T, B, ...] that end in slots [T, B], of copies [B]."""
        slots, n, size = frames.pixels.shape
        shape = jax.tree.leaves(frames.last)[self._place(frames.last, 1)].shape[1:]
        before = jnp.arange(1 - self._length(shape), 1, dtype=jnp.int32)[None, None]
        index = jnp.mod(slot[..., None] + before, slots) * n + copy[None, :, None]
        parts = frames.pixels.reshape(slots * n, size).at[index].get(mode="promise_in_bounds")
        return self._together(parts, shape)

    def _apart(self, x: jax.Array) -> jax.Array:
        """Images [T, N, ...] as their frames [T, stack, N, F]."""
        axis = self._axis(x.shape[2:])
        frames = x[:, None] if axis is None else jnp.moveaxis(x, 2 + axis, 1)
        return frames.reshape(*frames.shape[:3], -1)

    def _together(self, frames: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Frames [T, B, stack, F] as images [T, B, ...] of that shape."""
        axis = self._axis(shape)
        if axis is None:
            return frames.reshape(*frames.shape[:2], *shape)
        frames = frames.reshape(*frames.shape[:3], *shape[:axis], *shape[axis + 1 :])
        return jnp.moveaxis(frames, 2, 2 + axis)

    def _length(self, shape: tuple[int, ...]) -> int:
        """How many frames an image has."""
        axis = self._axis(shape)
        return 1 if axis is None else shape[axis]

    def _axis(self, shape: tuple[int, ...]) -> int | None:
        """Which axis of an image its frames are along; None where there is one frame. SettingError if that is open."""
        if self.stack_axis == "none":
            return None
        if self.stack_axis != "auto":
            return 0 if self.stack_axis == "first" else len(shape) - 1
        axis = channels_axis(shape) if len(shape) == 3 else 0
        if axis is None or (len(shape) == 3 and shape[axis] == COLOURS):
            raise SettingError(
                f'{self.owner} cannot tell where an image of shape {shape} has its frames: write stack_axis="first" or '
                'stack_axis="last", or stack_axis="none" where it has colours and no frames'
            )
        return axis

    def _place(self, observation: Any, axes: int) -> int:
        """Which leaf of an observation, with so many axes before its own, is the image."""
        shapes = [x.shape[axes:] for x in jax.tree.leaves(observation)]
        images = [i for i, shape in enumerate(shapes) if len(shape) in (3, 4)]
        if len(images) != 1:
            raise SettingError(
                f"{self.owner} stores the frames of one image, and this observation has {len(images)} "
                f"({', '.join(map(str, shapes))}): use Replay or Prioritized"
            )
        return images[0]

    def _with_image(self, observation: Any, image: Any, axes: int) -> Any:
        """An observation with another image, or what stands for it."""
        leaves, structure = jax.tree.flatten(observation)
        leaves[self._place(observation, axes)] = image
        return jax.tree.unflatten(structure, leaves)
