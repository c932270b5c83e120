"""Keras 3 models on the JAX backend."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thorndike.errors import SettingError
from thorndike.foreign.source import Source, made


class KerasSource(Source):
    """A Keras 3 model on the JAX backend, or a function that makes one.

    A model starts every seed from its weights, as `fit` does. A function is called once for each seed, and only its
    weights are taken: what it makes first is the structure of them all. Compiled losses and optimisers are not used.
    """

    kind = "keras"

    @staticmethod
    def takes(value: Any) -> bool:
        return any(kind.__name__ == "Model" and kind.__module__.startswith("keras.") for kind in type(value).__mro__)

    def __init__(self, given: Any, function: Any = None) -> None:
        super().__init__(given, function)
        _check_backend()
        self.model: Any = None  # the structure, once it is built for an observation
        self.example: np.ndarray | None = None

    @property
    def name(self) -> str:
        return str(self.given.name if self.function is None else getattr(self.function, "__qualname__", self.function))

    def weights(self, seed: int | None = None) -> Any:
        if self.model is None:
            return None
        model = self._made(seed) if seed is not None else self.model
        return tuple(
            jnp.copy(variable.value) for variable in model.trainable_variables
        )  # fit and predict donate theirs

    def parameters(self, weights: Any, key: jax.Array, example: np.ndarray, outputs: int) -> Any:
        with jax.ensure_compile_time_eval():  # Keras makes its weights on the host, also where JAX is tracing
            if self.model is None:
                self.example = example
                self.model = self._made(seed=0)
                _refuse_what_learns_aside(self.model, example)
            weights = self.weights() if weights is None else weights
        return jax.tree.map(jnp.copy, weights)  # training donates its buffers, and these are the user's

    def apply(self, parameters: Any, x: jax.Array) -> jax.Array:
        return _call(self.model, parameters, x)[0]

    def original(self, parameters: Any) -> Any:
        """A new model with these weights; a model that Keras cannot clone (no `get_config`) is itself given them."""
        import keras

        if self.function is not None:
            model = self._made(seed=0)
        else:
            try:
                model = _built(keras.models.clone_model(self.model), self.example)
            except Exception:
                model = self.model
        for variable, value in zip(model.trainable_variables, parameters, strict=True):
            variable.assign(jnp.copy(value))
        for variable, fixed in zip(model.non_trainable_variables, self.model.non_trainable_variables, strict=True):
            variable.assign(jnp.copy(fixed.value))
        return model

    def _made(self, seed: int) -> Any:
        """The model given, or another one of the function's from this seed; built."""
        return _built(self.given if self.function is None else made(self.function, seed), self.example)


def _check_backend() -> None:
    import keras

    if keras.backend.backend() != "jax":
        raise SettingError(
            f"this Keras model runs on {keras.backend.backend()}: write os.environ['KERAS_BACKEND'] = 'jax' "
            "before the first import of keras, or set KERAS_BACKEND=jax"
        )


def _built(model: Any, example: np.ndarray | None) -> Any:
    if not model.built:
        model(example)
    return model


def _call(model: Any, parameters: Any, x: jax.Array, training: bool = False) -> tuple[jax.Array, list]:
    """A Keras model as a pure function: its outputs, and the names of the variables that the call would change."""
    import keras

    others = model.non_trainable_variables
    fixed = [jnp.asarray(variable.value) for variable in others]
    variables = zip([*model.trainable_variables, *others], [*parameters, *fixed], strict=True)
    with keras.StatelessScope(state_mapping=list(variables)) as scope:
        outputs = model(x, training=training)
    values = [scope.get_current_value(variable) for variable in others]
    return outputs, [v.path for v, old, new in zip(others, fixed, values, strict=True) if new is not old]


def _refuse_what_learns_aside(model: Any, example: np.ndarray) -> None:
    """Refuse layers that change variables while training, and losses of the model's own: neither would be honoured."""
    changed: list[str] = []

    def call(parameters: Any, x: jax.Array) -> jax.Array:
        outputs, names = _call(model, parameters, x, training=True)
        changed.extend(names)
        return outputs

    jax.eval_shape(call, [variable.value for variable in model.trainable_variables], jnp.asarray(example))
    layers = [layer for layer in model._flatten_layers() if any(v.path in changed for v in layer.variables)]
    innermost = [layer for layer in layers if not any(x in layers for x in layer._flatten_layers(include_self=False))]
    if changed:
        raise SettingError(
            f"the Keras model {model.name} has layers that change while training: "
            f"{', '.join(f'{layer.name} ({type(layer).__name__})' for layer in innermost)}. "
            "Leave them out: acting and learning must see one function"
        )
    if model.losses:
        raise SettingError(
            f"the Keras model {model.name} has losses of its own (a regularizer, add_loss), which no algorithm here "
            "adds to its loss: take them out"
        )
