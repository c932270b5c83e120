"""What a field `network` takes: our recipes, and whatever a user's own network is made with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from thorndike.errors import SettingError, shown
from thorndike.networks.attention import Attention
from thorndike.networks.cnn import CNN
from thorndike.networks.foreign import ForeignNetwork, source_of
from thorndike.networks.foreign.source import made
from thorndike.networks.mlp import MLP
from thorndike.networks.network import Network
from thorndike.networks.recurrent import GRU, LSTM, MinGRU
from thorndike.networks.renormalized import RenormalizedMLP
from thorndike.networks.simba import SimBa

NETWORKS: dict[str, type[Network]] = {
    cls.__name__: cls for cls in (MLP, SimBa, CNN, LSTM, GRU, MinGRU, Attention, RenormalizedMLP)
}
KINDS = (
    "network= takes MLP(...), CNN(...), LSTM(...) and such, a pair (init, apply), an Equinox, Flax or PyTorch module, "
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


def recipe_of(value: Any) -> Network:
    """The recipe that a user means by `value`: a recipe itself, a network of any kind, or a function that makes one.

    SettingError says what a network may be.
    """
    if isinstance(value, Network):
        return value
    if isinstance(value, type) and issubclass(value, Network):
        raise SettingError(f"{value.__name__} is a class: give {value.__name__}()")
    source = source_of(value)
    is_object = not isinstance(value, type) and _framework(type(value))
    if source is None and callable(value) and not is_object and _takes_nothing(value):
        example = made(value, seed=0)
        source = source_of(example, function=value)
        if source is None:
            raise SettingError(f"the function given as network made {_what(example)}, which is none: {KINDS}")
    if source is None and isinstance(value, type) and (framework := _framework(value)):
        raise SettingError(f"{value.__name__} is a class of {framework}: give a network, {value.__name__}(...)")
    if source is None:
        raise SettingError(f"{KINDS}; got {_what(value)}.{_hint(value)}")
    return ForeignNetwork(source, source.weights())


# Attached here, so that neither the class nor what is made of it needs to know all that may be given for it.
Network.coerce = recipe_of


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
