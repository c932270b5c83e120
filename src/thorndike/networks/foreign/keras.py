"""Keras 3 models of any backend."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thorndike.errors import SettingError
from thorndike.networks.foreign.source import Source, digest

BACKEND = "KERAS_BACKEND"


class KerasSource(Source):
    """A Keras 3 model, or a function that makes one.

    A model starts every seed from its weights, as `fit` does. A function is called once for each seed, and only its
    weights are taken: what it makes first is the structure of them all. Compiled losses and optimisers are not used.

    On Keras's JAX backend the model itself is called while training. On another one its twin is, which a second copy
    of Keras makes on JAX; the weights are then set back into a clone in the model's own backend.
    """

    kind = "keras"
    may_remember = False

    @staticmethod
    def takes(value: Any) -> bool:
        return any(kind.__name__ == "Model" and kind.__module__.startswith("keras.") for kind in type(value).__mro__)

    def __init__(self, given: Any, function: Any = None) -> None:
        super().__init__(given, function)
        self.first: Any = None  # the structure, once it is built for an observation: the user's model
        self.model: Any = None  # and the same on JAX
        self.example: np.ndarray | None = None
        built = function is None and given.built
        self.fixed_values = digest(_values(given.non_trainable_variables)) if built else ""

    @property
    def _identity(self) -> Any:
        return super()._identity, self.fixed_values

    @property
    def name(self) -> str:
        return str(self.given.name if self.function is None else getattr(self.function, "__qualname__", self.function))

    def weights(self, seed: int | None = None) -> Any:
        if self.model is None:
            return None
        model = self.first if seed is None else self._built(self._made(seed))
        return tuple(map(jnp.asarray, _values(model.trainable_variables)))

    def parameters(self, weights: Any, key: jax.Array, example: np.ndarray, outputs: int) -> Any:
        with jax.ensure_compile_time_eval():  # Keras makes its weights on the host, also where JAX is tracing
            if self.model is None:
                self.example = example
                first = self._built(self._made(seed=0))
                model = _on_jax(first)
                _refuse_what_learns_aside(model, example)
                self.first, self.model = first, model
            weights = self.weights() if weights is None else weights
        return jax.tree.map(jnp.copy, weights)  # training donates its buffers, and these are the user's

    def apply(self, parameters: Any, x: jax.Array) -> jax.Array:
        return _call(self.model, parameters, x)[0]

    def original(self, parameters: Any) -> Any:
        """A new model with these weights; where Keras cannot clone the model (no `get_config`), that model itself."""
        with _lock:  # another thread may be calling the twin, the second copy being imported as Keras
            model = self._built(_clone(self.first) if self.function is None else self._made(seed=0))
            fixed = _values(self.first.non_trainable_variables)
            variables = [*model.trainable_variables, *model.non_trainable_variables]
            for variable, value in zip(variables, [*parameters, *fixed], strict=True):
                variable.assign(np.array(value))
        return model

    def _built(self, model: Any) -> Any:
        if not model.built:
            model(self.example)
        return model


_second_copy: dict[str, ModuleType] = {}  # what its import has left in sys.modules, by name
_lock = threading.RLock()


@contextlib.contextmanager
def _keras_on_jax() -> Iterator[ModuleType]:
    """Keras on JAX: the one that is imported where it runs on JAX, otherwise a second copy, in its place meanwhile.

    In its place, since Keras's own functions import Keras when they are called. One thread at a time.
    """
    with _lock:
        import keras

        if keras.backend.backend() == "jax":
            yield keras
            return
        backend, users = os.environ.get(BACKEND), _taken_from_imports()
        os.environ[BACKEND] = "jax"
        sys.modules.update(_second_copy)
        try:
            yield importlib.import_module("keras")
        finally:
            _second_copy.update(_taken_from_imports())
            sys.modules.update(users)
            del os.environ[BACKEND]
            os.environ |= {} if backend is None else {BACKEND: backend}


def _taken_from_imports() -> dict[str, ModuleType]:
    """All modules of the Keras that is imported, taken out of those that Python knows."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "keras"}


def _on_jax(model: Any) -> Any:
    """A model of any backend as one on JAX with its weights: itself, or a twin.

    SettingError for a model with parts that are not Keras's own, which a second copy of Keras does not know.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        return model
    others: list[str] = []
    try:
        config = keras.saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        others += dict.fromkeys(_not_of_keras(config))
        weights = model.get_weights()
        if not others:
            with _keras_on_jax() as second:
                twin = second.saving.deserialize_keras_object(config)
                twin.set_weights(weights)
                return twin
    except Exception:
        others.append("a part of it")
    raise SettingError(
        f"the Keras model {model.name} runs on {backend} and cannot be made again on JAX, where {', '.join(others)} "
        f"is unknown: write os.environ['{BACKEND}'] = 'jax' before Keras is imported, or leave that out"
    )


def _not_of_keras(config: Any) -> Iterator[str]:
    """The names of all classes and functions in a configuration that are not Keras's own."""
    if isinstance(config, dict):
        if "module" in config and str(config["module"]).split(".")[0] != "keras":
            yield config["config"] if config["class_name"] == "function" else config["class_name"]
        if config.get("class_name") == "__lambda__":
            yield "a lambda"
        config = list(config.values())
    if isinstance(config, list | tuple):
        for part in config:
            yield from _not_of_keras(part)


def _clone(model: Any) -> Any:
    """Another model of that structure, compiled alike unless with what Keras cannot write down; itself if it must."""
    import keras

    compiled = model.compiled
    try:
        return keras.models.clone_model(model)
    except Exception:
        model.compiled = False  # a loss of the user's own, which cloning would make again
        try:
            return keras.models.clone_model(model)
        except Exception:
            return model
        finally:
            model.compiled = compiled


def _values(variables: list) -> list[np.ndarray]:
    """Copies of the values of variables of the imported Keras, whose `fit` and `predict` donate their own."""
    import keras

    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def _call(model: Any, parameters: Any, x: jax.Array, training: bool = False) -> tuple[jax.Array, list]:
    """A model on JAX as a pure function: its outputs, and the names of the variables that the call would change."""
    with _keras_on_jax() as keras:
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
