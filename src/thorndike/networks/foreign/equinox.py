"""Equinox modules."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thorndike.networks.foreign.source import Source


class EquinoxSource(Source):
    """An Equinox module, called on one observation at a time: its arrays of floats train, the rest stays.

    With a memory it is called with (observation, carry) and gives (outputs, carry).
    """

    kind = "equinox"

    @staticmethod
    def takes(value: Any) -> bool:
        return isinstance(value, eqx.Module) and callable(value)

    def __init__(self, given: eqx.Module, function: Any = None) -> None:
        super().__init__(given, function)
        arrays, self.rest = eqx.partition(given, eqx.is_inexact_array)
        leaves, self.structure = jax.tree.flatten(arrays)
        self.leaves = tuple(leaves)

    def weights(self, seed: int | None = None) -> Any:
        if seed is None or self.function is None:
            return self.leaves
        return tuple(jax.tree.leaves(eqx.filter(self._made(seed), eqx.is_inexact_array)))

    def parameters(self, weights: Any, key: jax.Array, example: np.ndarray, outputs: int) -> Any:
        return jax.tree.map(jnp.copy, weights)  # training donates its buffers, and these are the user's

    def apply(self, parameters: Any, x: jax.Array, *carry: Any) -> Any:
        return jax.vmap(self.original(parameters))(x, *carry)

    def original(self, parameters: Any) -> Any:
        return eqx.combine(jax.tree.unflatten(self.structure, parameters), self.rest)
