"""Flax modules: nnx, which hold their weights, and linen, whose weights come from a key."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thorndike.errors import SettingError
from thorndike.networks.foreign.source import Source, check_floats, digest


class NnxSource(Source):
    """An nnx module, called as it is: its `nnx.Param` train, everything else stays.

    A module starts every seed from its weights; a function that makes one is called once for each seed.
    """

    kind = "flax"

    @staticmethod
    def takes(value: Any) -> bool:
        return _is_module(value, "flax.nnx")

    def __init__(self, given: Any, function: Any = None) -> None:
        from flax import nnx

        super().__init__(given, function)
        self.definition, parameters, self.rest = nnx.split(given, nnx.Param, ...)
        self.structure = jax.tree.structure(parameters)
        self.fixed_values = digest(map(_numbers, jax.tree.leaves(self.rest))) if function is None else ""

    @property
    def _identity(self) -> Any:
        return super()._identity, self.fixed_values, None if self.function else self.definition

    def weights(self, seed: int | None = None) -> Any:
        from flax import nnx

        module = self.given if seed is None else self._made(seed)
        return tuple(jnp.copy(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))

    def parameters(self, weights: Any, key: jax.Array, example: np.ndarray, outputs: int) -> Any:
        check_floats(jax.tree.unflatten(self.structure, weights), f"the Flax module {self.name} has")
        self._refuse_what_changes(weights, example)
        return jax.tree.map(jnp.copy, weights)  # training donates its buffers, and these are the user's

    def apply(self, parameters: Any, x: jax.Array, *carry: Any) -> Any:
        return self.original(parameters)(x, *carry)

    def original(self, parameters: Any) -> Any:
        from flax import nnx

        return nnx.merge(self.definition, jax.tree.unflatten(self.structure, parameters), self.rest, copy=True)

    def _refuse_what_changes(self, weights: Any, example: np.ndarray) -> None:
        """Refuse layers that a call changes, by statistics or by drawing random numbers."""
        from flax import nnx

        changed: list[str] = []

        def call(parameters: Any, x: jax.Array) -> jax.Array:
            module = self.original(parameters)
            before = dict(nnx.to_flat_state(nnx.state(module)))
            values = {path: variable.get_value() for path, variable in before.items()}
            outputs = module(x, *self.carried(len(x)))
            layers = dict(nnx.iter_modules(module))
            for path, variable in nnx.to_flat_state(nnx.state(module)):
                if path in values and variable.get_value() is not values[path]:
                    layer = max((at for at in layers if at == path[: len(at)]), key=len)
                    changed.append(f"{'.'.join(map(str, layer))} ({type(layers[layer]).__name__})".strip())
            return outputs

        jax.eval_shape(call, weights, jnp.asarray(example))
        if changed:
            raise SettingError(
                f"the Flax module {self.name} has layers that change while training: "
                f"{', '.join(dict.fromkeys(changed))}. Call .eval() on it, or leave them out: acting and learning "
                "must see one function"
            )


class LinenSource(Source):
    """A linen module, not bound: `init` makes its params from each seed's key, and nothing else may train or change."""

    kind = "flax"
    draws = True

    @staticmethod
    def takes(value: Any) -> bool:
        return _is_module(value, "flax.linen")

    def __init__(self, given: Any, function: Any = None) -> None:
        super().__init__(given, function)
        if given.scope is not None:
            raise SettingError(
                f"the Flax module {self.name} is bound to weights, and training makes its own: give the module alone, "
                "module.unbind()[0]"
            )

    def parameters(self, weights: Any, key: jax.Array, example: np.ndarray, outputs: int) -> Any:
        variables = dict(self.given.init(key, jnp.asarray(example), *self.carried(len(example))))
        parameters = variables.pop("params", {})
        for collection, layers in variables.items():
            raise SettingError(
                f"the Flax module {self.name} keeps {collection} beside its params, in {', '.join(layers)}: "
                "leave those out (LayerNorm can be in BatchNorm's place): acting and learning must see one function"
            )
        check_floats(parameters, f"the Flax module {self.name} has")
        return parameters

    def apply(self, parameters: Any, x: jax.Array, *carry: Any) -> Any:
        from flax import linen

        with linen.intercept_methods(_refuse_randomness):
            return self.given.apply({"params": parameters}, x, *carry)

    def original(self, parameters: Any) -> Any:
        """The module bound to these weights; `unbind()` gives (module, variables)."""
        return self.given.bind({"params": parameters})


def _is_module(value: Any, package: str) -> bool:
    kinds = type(value).__mro__
    return callable(value) and any(kind.__name__ == "Module" and kind.__module__.startswith(package) for kind in kinds)


def _numbers(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _refuse_randomness(method: Any, arguments: Any, keywords: Any, context: Any) -> Any:
    """Call one method of a linen module; SettingError, with the innermost layer, where it asks for random numbers."""
    from flax.errors import InvalidRngError

    try:
        return method(*arguments, **keywords)
    except InvalidRngError as error:
        layer = context.module
        raise SettingError(
            f"the Flax layer {layer.name or 'given'} ({type(layer).__name__}) draws random numbers: make it "
            "deterministic (deterministic=True), or leave it out: acting and learning must see one function"
        ) from error
