"""Networks that a user made with something else, as recipes: a file for each kind, chosen by what a value is.

A lone Box reaches such a network as it is (an image is not scaled); any other observation as the flat float32 vector
of `networks.features`, unless its source takes any observation as it is. Gains and initialisations do not apply to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from thorndike.errors import SettingError, ThorndikeError, shown
from thorndike.networks import NETWORKS, Network, Part, features, parts_of
from thorndike.networks.convolutions import with_quick_convolutions
from thorndike.networks.foreign.equinox import EquinoxSource
from thorndike.networks.foreign.flax import LinenSource, NnxSource
from thorndike.networks.foreign.haiku import HaikuSource
from thorndike.networks.foreign.keras import KerasSource
from thorndike.networks.foreign.pairs import PairSource
from thorndike.networks.foreign.source import Source, made
from thorndike.networks.foreign.torch import TorchSource
from thorndike.spaces import stored

SOURCES: tuple[type[Source], ...] = (
    EquinoxSource, KerasSource, TorchSource, NnxSource, LinenSource, HaikuSource, PairSource,
)  # fmt: skip
KINDS = (
    f"network= takes {'(...), '.join(NETWORKS)}(...), a pair (init, apply), an Equinox, Flax or PyTorch module, "
    "a Keras 3 model, a Haiku Transformed, or a function without arguments that makes one"
)
FRAMEWORKS = {
    "torch": "PyTorch",
    "equinox": "Equinox",
    "flax": "Flax",
    "haiku": "Haiku",
    "keras": "Keras",
    "tensorflow": "TensorFlow",
    "tf_keras": "Keras 2",
}


class ForeignModule(eqx.Module):
    """A user's network with its weights, as the module that algorithms call."""

    parameters: Any
    source: Source = eqx.field(static=True)
    parts: tuple[Part, ...] | None = eqx.field(static=True)  # None: the observation is given as it is

    def __call__(self, observation: Any) -> jax.Array:
        """Observations with one leading batch axis [B, ...] to outputs, float32 [B, outputs]."""
        x = observation if self.parts is None else features(self.parts, observation)
        return with_quick_convolutions(self.source.apply)(self.parameters, x).astype(jnp.float32)

    def original(self) -> Any:
        """What the user gave, with these weights, in its own framework.

        A Keras model, an Equinox, nnx or PyTorch module, a linen module bound to its variables, (transformed,
        parameters) of Haiku, the parameters of a pair.
        """
        return self.source.original(jax.tree.map(jnp.copy, self.parameters))  # training donates its buffers


@jax.tree_util.register_pytree_node_class
class ForeignNetwork(Network):
    """The recipe of a user's own network: static by the identity of what was given, its weights are the leaves."""

    def __init__(self, source: Source, weights: Any = None) -> None:
        self.source, self.weights = source, weights

    @property
    def fixed(self) -> bool:  # type: ignore[override]
        return self.source.fixed

    @property
    def draws(self) -> bool:  # type: ignore[override]
        return self.source.draws

    def init(self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0) -> ForeignModule:
        """The user's network as a module; SettingError where it does not fit the observations or the outputs."""
        observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), stored(observation_space))
        as_it_is = self.source.takes_any_observation or isinstance(observation_space, spaces.Box)
        parts = None if as_it_is else parts_of(observation_space)
        seen = observation if parts is None else jax.eval_shape(lambda x: features(parts, x), observation)
        shape = jax.tree.map(lambda x: x.shape[1:], seen)
        try:
            example = jax.tree.map(lambda x: np.zeros((1, *x.shape[1:]), x.dtype), seen)
            module = ForeignModule(self.source.parameters(self.weights, key, example, outputs), self.source, parts)
            made = jax.eval_shape(module, observation)
        except ThorndikeError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise SettingError(
                f"the {self.source.kind} network {self.source.name} cannot take observations of shape "
                f"{shape}: {type(error).__name__}: {reason}{self.source.hint(seen)}"
            ) from error
        if made.shape != (2, outputs):
            raise SettingError(
                f"the {self.source.kind} network {self.source.name} makes {made.shape} of 2 observations of shape "
                f"{shape}, expected {(2, outputs)}: {outputs} outputs for each"
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
    """A recipe for a user's own network, or for those that a function makes; SettingError for what is none."""
    if isinstance(value, type) and issubclass(value, Network):
        raise SettingError(f"{value.__name__} is a class: give {value.__name__}()")
    source = _source_of(value)
    is_object = not isinstance(value, type) and _framework(type(value))
    if source is None and callable(value) and not is_object and _takes_nothing(value):
        example = made(value, seed=0)
        source = _source_of(example, function=value)
        if source is None:
            raise SettingError(f"the function given as network made {_what(example)}, which is none: {KINDS}")
    if source is None and isinstance(value, type) and (framework := _framework(value)):
        raise SettingError(f"{value.__name__} is a class of {framework}: give a network, {value.__name__}(...)")
    if source is None:
        raise SettingError(f"{KINDS}; got {_what(value)}.{_hint(value)}")
    return ForeignNetwork(source, source.weights())


def _source_of(value: Any, function: Callable | None = None) -> Source | None:
    return next((kind(value, function) for kind in SOURCES if kind.takes(value)), None)


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


def _takes_nothing(value: Callable) -> bool:
    try:
        inspect.signature(value).bind()
        if isinstance(value, type):  # its metaclass may hide what it takes
            inspect.signature(value.__init__).bind(None)  # type: ignore[misc]
    except Exception:  # where it refuses to be looked at too
        return False
    return True


def _framework(kind: type) -> str | None:
    roots = [base.__module__.split(".")[0] for base in kind.__mro__]
    return next((FRAMEWORKS[root] for root in roots if root in FRAMEWORKS), None)


def _what(value: Any) -> str:
    framework = _framework(type(value))
    return f"a {framework} module ({type(value).__name__})" if framework else shown(value, 80)


def _hint(value: Any) -> str:
    if isinstance(value, (tuple, list)) and value and all(isinstance(size, int) for size in value):
        return f" Did you mean MLP(sizes={tuple(value)})?"
    return ""
