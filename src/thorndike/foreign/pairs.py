"""A pair of functions: how anything that JAX can compute becomes a network."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thorndike.errors import SettingError
from thorndike.foreign.source import Source


class PairSource(Source):
    """`init(key, observation [1, ...], outputs) -> parameters`, `apply(parameters, observation) -> [B, outputs]`."""

    kind = "pair"
    fixed = False

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
        for path, leaf in jax.tree.leaves_with_path(parameters):
            if not eqx.is_inexact_array(leaf):
                where, what = jax.tree_util.keystr(path), getattr(leaf, "dtype", type(leaf).__name__)
                raise SettingError(f"init of the pair given as network must make float arrays only: {where} is {what}")
        return parameters

    def apply(self, parameters: Any, x: jax.Array) -> jax.Array:
        return self.given[1](parameters, x)

    def original(self, parameters: Any) -> Any:
        return parameters
