"""Two functions, or three with a memory: how anything that JAX can compute becomes a network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thorndike.errors import SettingError
from thorndike.networks.foreign.carries import Given, in_words
from thorndike.networks.foreign.source import Source, check_floats


class PairSource(Source):
    """`init(key, observation [1, ...], outputs) -> parameters`, `apply(parameters, observation) -> [B, outputs]`.

    With a memory it is a triple: `apply(parameters, observation, carry) -> (outputs, carry)`, and
    `initial_carry(n) -> zeros [n, ...]`.
    """

    kind = "pair"
    fixed, draws = False, True

    @staticmethod
    def takes(value: Any) -> bool:
        return type(value) is tuple and len(value) in (2, 3) and all(map(callable, value))

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

    def apply(self, parameters: Any, x: jax.Array, *carry: Any) -> Any:
        return self.given[1](parameters, x, *carry)

    def _given_memory(self) -> Given:
        missing = "a third function, initial_carry(n), that makes zeros [n, ...]"
        return Given(self.given[1], 2, self._one_carry if len(self.given) == 3 else None, missing)

    def _one_carry(self) -> Any:
        """The carry of one copy, of two that are made."""
        carry = jax.tree.map(np.asarray, self.given[2](2))
        if any(x.shape[:1] != (2,) for x in jax.tree.leaves(carry)):
            raise SettingError(f"initial_carry(2) of {self.title} must make arrays [2, ...], got {in_words(carry)}")
        return jax.tree.map(lambda x: x[0], carry)

    def original(self, parameters: Any) -> Any:
        return parameters
