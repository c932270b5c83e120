"""Networks that a user made with something else, as recipes: (init, apply) pairs, Equinox modules, Keras 3 models.

A lone Box reaches such a network as it is (an image is not scaled); any other observation as the flat float32 vector
of `networks.features`. Gains and initialisations do not apply to it.
"""

from __future__ import annotations

import contextlib
import inspect
import random as python_random
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from thorndike.convolutions import with_quick_convolutions
from thorndike.errors import SettingError, ThorndikeError
from thorndike.networks import NETWORKS, Network, Part, features, parts_of
from thorndike.spaces import stored

KINDS = (
    f"network= takes {'(...), '.join(NETWORKS)}(...), a pair (init, apply), an Equinox module, a Keras 3 model, "
    "or a function without arguments that makes a Keras 3 model"
)
FRAMEWORKS = {"torch": "PyTorch", "flax": "Flax", "haiku": "Haiku", "tensorflow": "TensorFlow", "tf_keras": "Keras 2"}


class Source:
    """What a user gave: how to get its weights, call it, and give it back. Equal by the identity of what was given."""

    kind: str
    fixed = True  # its outputs and first weights are what they are

    def __init__(self, given: Any) -> None:
        self.given = given

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.given is other.given

    def __hash__(self) -> int:
        return hash((type(self), id(self.given)))

    @property
    def name(self) -> str:
        return type(self.given).__name__

    def weights(self, seed: int | None = None) -> Any:
        """What a seed starts from, as arrays; None where that needs a key or an observation first."""
        return None

    def parameters(self, weights: Any, key: jax.Array, example: np.ndarray, outputs: int) -> Any:
        """The arrays that train, for an example batch [1, ...] of what the network will see."""
        raise NotImplementedError

    def apply(self, parameters: Any, x: jax.Array) -> jax.Array:
        raise NotImplementedError

    def original(self, parameters: Any) -> Any:
        raise NotImplementedError


class PairSource(Source):
    """`init(key, observation [1, ...], outputs) -> parameters`, `apply(parameters, observation) -> [B, outputs]`."""

    kind = "pair"
    fixed = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PairSource) and self.given == other.given

    def __hash__(self) -> int:
        return hash(self.given)

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


class EquinoxSource(Source):
    """An Equinox module, called on one observation at a time: its arrays of floats train, the rest stays."""

    kind = "equinox"

    def __init__(self, given: eqx.Module) -> None:
        super().__init__(given)
        arrays, self.rest = eqx.partition(given, eqx.is_inexact_array)
        leaves, self.structure = jax.tree.flatten(arrays)
        self.leaves = tuple(leaves)

    def weights(self, seed: int | None = None) -> Any:
        return self.leaves

    def parameters(self, weights: Any, key: jax.Array, example: np.ndarray, outputs: int) -> Any:
        return jax.tree.map(jnp.copy, weights)  # training donates its buffers, and these are the user's

    def apply(self, parameters: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(self.original(parameters))(x)

    def original(self, parameters: Any) -> Any:
        return eqx.combine(jax.tree.unflatten(self.structure, parameters), self.rest)


class KerasSource(Source):
    """A Keras 3 model on the JAX backend, or a function that makes one.

    A model starts every seed from its weights, as `fit` does. A function is called once for each seed, and only its
    weights are taken: what it makes first is the structure of them all. Compiled losses and optimisers are not used.
    """

    kind = "keras"

    def __init__(self, given: Any) -> None:
        super().__init__(given)
        self.model: Any = None  # the structure, once it is built for an observation
        self.example: np.ndarray | None = None

    @property
    def name(self) -> str:
        return str(getattr(self.given, "name", getattr(self.given, "__qualname__", type(self.given).__name__)))

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

        if not is_keras_model(self.given):
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
        if is_keras_model(self.given):
            return _built(self.given, self.example)
        with _keras_seed(seed):
            model = self.given()
            if not is_keras_model(model):
                raise SettingError(f"the function given as network made {_what(model)}, not a Keras 3 model. {KINDS}")
            _check_backend()
            return _built(model, self.example)


class ForeignModule(eqx.Module):
    """A user's network with its weights, as the module that algorithms call."""

    parameters: Any
    source: Source = eqx.field(static=True)
    parts: tuple[Part, ...] | None = eqx.field(static=True)  # None: the observation is a lone Box, and given as it is

    def __call__(self, observation: Any) -> jax.Array:
        """Observations with one leading batch axis [B, ...] to outputs, float32 [B, outputs]."""
        x = observation if self.parts is None else features(self.parts, observation)
        return with_quick_convolutions(self.source.apply)(self.parameters, x).astype(jnp.float32)

    def original(self) -> Any:
        """What the user gave, with these weights: a Keras model, an Equinox module, the parameters of a pair."""
        return self.source.original(self.parameters)


@jax.tree_util.register_pytree_node_class
class ForeignNetwork(Network):
    """The recipe of a user's own network: static by the identity of what was given, its weights are the leaves."""

    def __init__(self, source: Source, weights: Any = None) -> None:
        self.source, self.weights = source, weights

    @property
    def fixed(self) -> bool:  # type: ignore[override]
        return self.source.fixed

    def init(self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0) -> ForeignModule:
        """The user's network as a module; SettingError where it does not fit the observations or the outputs."""
        observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), stored(observation_space))
        parts = None if isinstance(observation_space, spaces.Box) else parts_of(observation_space)
        seen = observation if parts is None else jax.eval_shape(lambda x: features(parts, x), observation)
        try:
            example = np.zeros((1, *seen.shape[1:]), seen.dtype)
            module = ForeignModule(self.source.parameters(self.weights, key, example, outputs), self.source, parts)
            made = jax.eval_shape(module, observation)
        except ThorndikeError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise SettingError(
                f"the {self.source.kind} network {self.source.name} cannot take observations of shape "
                f"{seen.shape[1:]}: {type(error).__name__}: {reason}"
            ) from error
        if made.shape != (2, outputs):
            raise SettingError(
                f"the {self.source.kind} network {self.source.name} makes {made.shape} of 2 observations of shape "
                f"{seen.shape[1:]}, expected {(2, outputs)}: {outputs} outputs for each"
            )
        return module

    def fresh(self, seed: int) -> ForeignNetwork:
        """This recipe with the weights that a seed starts from."""
        return ForeignNetwork(self.source, self.source.weights(seed))

    def to_json(self) -> dict[str, str]:
        """What can be written of it; a network cannot be made again from this."""
        return {"type": "foreign", "kind": self.source.kind, "name": self.source.name}

    def __repr__(self) -> str:
        return f"<{self.source.kind} network {self.source.name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ForeignNetwork) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def tree_flatten(self) -> tuple[tuple, Source]:
        return (self.weights,), self.source

    @classmethod
    def tree_unflatten(cls, source: Source, children: tuple) -> ForeignNetwork:
        return cls(source, *children)


def recipe_of(value: Any) -> ForeignNetwork:
    """A recipe for a user's own network; SettingError for what is none."""
    if isinstance(value, eqx.Module) and callable(value):
        source: Source = EquinoxSource(value)
        return ForeignNetwork(source, source.weights())
    if isinstance(value, tuple) and len(value) == 2 and all(map(callable, value)):
        return ForeignNetwork(PairSource(value))
    if is_keras_model(value):
        _check_backend()
        return ForeignNetwork(KerasSource(value))
    if isinstance(value, type) and issubclass(value, Network):
        raise SettingError(f"{value.__name__} is a class: give {value.__name__}()")
    if callable(value) and not _framework(value) and _takes_nothing(value):
        return ForeignNetwork(KerasSource(value))
    raise SettingError(f"{KINDS}; got {_what(value)}.{_hint(value)}")


def prepare(algorithm: Any, observation_space: spaces.Space, action_space: spaces.Space, seed: int) -> Any:
    """The same hyper-parameters, every foreign network in them with the weights that `seed` starts from.

    To be called on the host, before `init` is compiled: a Keras model is built here for the observations it will see.
    """

    def is_foreign(value: Any) -> bool:
        return isinstance(value, ForeignNetwork)

    if not any(map(is_foreign, jax.tree.leaves(algorithm, is_leaf=is_foreign))):
        return algorithm
    jax.eval_shape(lambda key: algorithm.init(key, observation_space, action_space), jax.random.key(0))
    return jax.tree.map(lambda x: x.fresh(seed) if is_foreign(x) else x, algorithm, is_leaf=is_foreign)


def is_keras_model(value: Any) -> bool:
    """Whether `value` is a model of Keras 3, told without importing Keras."""
    return any(kind.__name__ == "Model" and kind.__module__.startswith("keras.") for kind in type(value).__mro__)


def _check_backend() -> None:
    import keras

    if keras.backend.backend() != "jax":
        raise SettingError(
            f"this Keras model runs on {keras.backend.backend()}: write os.environ['KERAS_BACKEND'] = 'jax' "
            "before the first import of keras, or set KERAS_BACKEND=jax"
        )


@contextlib.contextmanager
def _keras_seed(seed: int) -> Iterator[None]:
    """Keras draws unseeded initial weights from global generators: seeded inside, then left as they were."""
    import keras

    states = python_random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed % 2**32)
    try:
        yield
    finally:
        python_random.setstate(states[0])
        np.random.set_state(states[1])


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


def _takes_nothing(value: Callable) -> bool:
    try:
        inspect.signature(value).bind()
    except (TypeError, ValueError):
        return False
    return True


def _framework(value: Any) -> str | None:
    roots = [kind.__module__.split(".")[0] for kind in type(value).__mro__]
    return next((FRAMEWORKS[root] for root in roots if root in FRAMEWORKS), None)


def _what(value: Any) -> str:
    framework = _framework(value)
    return f"a {framework} module ({type(value).__name__})" if framework else f"{value!r:.80}"


def _hint(value: Any) -> str:
    if _framework(value) == "Flax":
        return " A Flax module m is the pair (lambda key, observation, outputs: m.init(key, observation), m.apply)"
    if isinstance(value, (tuple, list)) and value and all(isinstance(size, int) for size in value):
        return f" Did you mean MLP(sizes={tuple(value)})?"
    return ""
