"""Several accelerators: the seeds of a run, or the copies that one seed acts in, are spread over them."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from thorndike.core import Progress

PyTree = Any
AXIS = "devices"


def spread_seeds(tree: PyTree, seeds: int) -> PyTree:
    """Leaves [S, ...] with an equal share of the seeds on each device; as they are where they cannot be shared out."""
    return jax.device_put(tree, _over(0)) if _shareable(seeds) else tree


def spread_copies(progress: Progress, n: int) -> Progress:
    """The progress of one seed with an equal share of its `n` copies, and of their memory, on each device.

    Weights and their optimisers are on all of them, and XLA sums gradients over the devices. As it is where the copies
    cannot be shared out.
    """
    if not _shareable(n):
        return progress

    def placed(axis):
        def place(leaf):
            has_copies = leaf.ndim > axis and leaf.shape[axis] == n
            return jax.device_put(leaf, _over(axis) if has_copies else _over(None))

        return place

    everywhere = jax.device_put(progress._replace(actor=(), memory=()), _over(None))
    return everywhere._replace(
        actor=jax.tree.map(placed(0), progress.actor), memory=jax.tree.map(placed(1), progress.memory)
    )


def _shareable(count: int) -> bool:
    devices = jax.device_count()
    return devices > 1 and count % devices == 0


def _over(axis: int | None) -> NamedSharding:
    """Over all devices along an axis; None: everything on each of them."""
    mesh = Mesh(jax.devices(), (AXIS,))
    return NamedSharding(mesh, PartitionSpec(*([] if axis is None else [*[None] * axis, AXIS])))
