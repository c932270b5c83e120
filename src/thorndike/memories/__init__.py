"""What is kept of the experience, and how batches are drawn from it.

Every memory is `init, add, sample, feedback, restarted` around explicit state. The steps of a batch are trajectories:
[T, B], windows of consecutive steps of one copy of the environment. A window may run past the end of an episode
(formulas stop there), never past the newest step stored.

All of it is written in place where the caller donates the state or carries it through a loop, so that the time of an
`add` or a `sample` does not depend on the capacity, also under `vmap`.
"""

from thorndike.memories.frames import FrameReplay, PrioritizedFrames, in_frames
from thorndike.memories.prioritized import Prioritized
from thorndike.memories.replay import (
    LARGEST_CAPACITY,
    SEQUENCES,
    OffPolicy,
    Replay,
    check_parts,
    check_replay,
    first_carry,
    in_parts,
)
from thorndike.memories.rollout import Latest, check_rollout, check_shared_memory, in_sequences, minibatches, shuffled

MEMORIES = {cls.__name__: cls for cls in (Latest, Replay, Prioritized, FrameReplay, PrioritizedFrames)}

__all__ = [
    "LARGEST_CAPACITY",
    "MEMORIES",
    "SEQUENCES",
    "FrameReplay",
    "Latest",
    "OffPolicy",
    "Prioritized",
    "PrioritizedFrames",
    "Replay",
    "check_parts",
    "check_replay",
    "check_rollout",
    "check_shared_memory",
    "first_carry",
    "in_frames",
    "in_parts",
    "in_sequences",
    "minibatches",
    "shuffled",
]
