"""Haiku networks: what `hk.transform` makes of a function."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thorndike.errors import SettingError
from thorndike.networks.foreign.source import Source, check_floats

ONE_FUNCTION = "leave it out, since acting and learning must see one function"


class HaikuSource(Source):
    """A `Transformed`, with or without a key in its `apply`: `init` makes its parameters from each seed's key."""

    kind = "haiku"
    may_remember = False
    draws = True

    @staticmethod
    def takes(value: Any) -> bool:
        kind = type(value)
        return kind.__module__.startswith("haiku.") and kind.__name__ in ("Transformed", "TransformedWithState")

    def __init__(self, given: Any, function: Any = None) -> None:
        super().__init__(given, function)
        if type(given).__name__ == "TransformedWithState":
            raise SettingError(
                "a Haiku TransformedWithState keeps state beside its parameters, which no algorithm here updates: "
                "give hk.transform(...), without layers such as BatchNorm"
            )
        takes_key = list(inspect.signature(given.apply).parameters)[1:2] == ["rng"]
        self.no_key = (None,) if takes_key else ()  # `hk.without_apply_rng` has taken that argument away

    def parameters(self, weights: Any, key: jax.Array, example: np.ndarray, outputs: int) -> Any:
        parameters = self._called(self.given.init, key, jnp.asarray(example))
        check_floats(parameters, "the Haiku network has")
        return parameters

    def apply(self, parameters: Any, x: jax.Array) -> jax.Array:
        return self._called(self.given.apply, parameters, *self.no_key, x)

    def original(self, parameters: Any) -> Any:
        """The pair (transformed, parameters)."""
        return self.given, parameters

    def _called(self, function: Any, *arguments: Any) -> Any:
        """What `function` gives; SettingError, with the innermost module, for random numbers and for state."""
        import haiku

        drawing: list[Any] = []  # modules that are being called, the innermost last
        keeping: list[Any] = []  # the first that was seen to keep state

        def watch(method: Any, arguments: Any, keywords: Any, context: Any) -> Any:
            if context.method_name != "__call__":
                return method(*arguments, **keywords)
            drawing.append(context.module)
            outputs = method(*arguments, **keywords)
            drawing.pop()
            if context.module.state_dict() and not keeping:
                keeping.append(context.module)
            return outputs

        try:
            with haiku.intercept_methods(watch):
                return function(*arguments)
        except ValueError as error:
            why = {"MissingRNGError": ("draws random numbers", drawing), "NonEmptyStateError": ("keeps state", keeping)}
            if type(error).__name__ not in why:
                raise
            what, modules = why[type(error).__name__]
            layer = f"{modules[-1].module_name} ({type(modules[-1]).__name__})" if modules else "in the function itself"
            raise SettingError(f"the Haiku network {what}: {layer}; {ONE_FUNCTION}") from error
