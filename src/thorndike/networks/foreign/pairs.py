"""A pair of functions: how anything that JAX can compute becomes a network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thorndike.networks.foreign.source import Source, check_floats


class PairSource(Source):
    """`init(key, observation [1, ...], outputs) -> parameters`, `apply(parameters, observation) -> [B, outputs]`."""

    kind = "pair"
    fixed, draws = False, True

    @staticmethod
    def takes(value: Any) -> bool:
        return type(value) is tuple and len(value) == 2 and all(map(callable, value))

    @property
    def _identity(self) -> Any:
        return self.given

    @property
    def name(self) -> str:
        return getattr(self.given[1], "__qualname__", type(self.given[1]).__name__)

    def parameters(self, weights: Any, key: jax.Array, example: np.ndarray, outputs: int) -> Any:
        parameters = self.given[0](key, jnp.asarray(example), outputs)
        check_floats(parameters, "the pair given as network has")
        return parameters

    def apply(self, parameters: Any, x: jax.Array) -> jax.Array:
        return self.given[1](parameters, x)

    def original(self, parameters: Any) -> Any:
        return parameters
