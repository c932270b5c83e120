"""Networks that a user made with something else, as recipes: a file for each kind, chosen by what a value is.

A lone Box reaches such a network as it is (an image is not scaled); any other observation as the flat float32 vector
of `observations.features`, unless its source takes any observation as it is. An action mask it never sees, and where
only a part "observation" stands beside that, this is its observation. Gains and initialisations do not apply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from thorndike import masks
from thorndike.errors import SettingError, ThorndikeError
from thorndike.networks.convolutions import with_quick_convolutions
from thorndike.networks.foreign.carries import in_words
from thorndike.networks.foreign.equinox import EquinoxSource
from thorndike.networks.foreign.flax import LinenSource, NnxSource
from thorndike.networks.foreign.haiku import HaikuSource
from thorndike.networks.foreign.keras import KerasSource
from thorndike.networks.foreign.pairs import PairSource
from thorndike.networks.foreign.source import Source
from thorndike.networks.foreign.torch import TorchSource
from thorndike.networks.network import Network
from thorndike.networks.observations import Part, features, parts_of
from thorndike.spaces import stored

SOURCES: tuple[type[Source], ...] = (
    EquinoxSource, KerasSource, TorchSource, NnxSource, LinenSource, HaikuSource, PairSource,
)  # fmt: skip


class ForeignModule(eqx.Module):
    """A user's network with its weights, as the module that algorithms call."""

    parameters: Any
    source: Source = eqx.field(static=True)
    parts: tuple[Part, ...] | None = eqx.field(static=True)  # None: the observation is given as it is

    def __call__(self, observation: Any, *carry: Any) -> Any:
        """Observations [B, ...] to outputs, float32 [B, outputs]; with a memory, also a carry to the next one."""
        observation = masks.seen(observation)
        x = observation if self.parts is None else features(self.parts, observation)
        made = with_quick_convolutions(self.source.apply)(self.parameters, x, *carry)
        if not carry:
            return made.astype(jnp.float32)
        if type(made) is not tuple or len(made) != 2:
            raise SettingError(f"{self.source.title} is given a carry and must give (outputs, carry)")
        return made[0].astype(jnp.float32), made[1]

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
        observation_space = masks.seen(observation_space)
        observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), stored(observation_space))
        as_it_is = self.source.takes_any_observation or isinstance(observation_space, spaces.Box)
        parts = None if as_it_is else parts_of(observation_space)
        seen = observation if parts is None else jax.eval_shape(lambda x: features(parts, x), observation)
        shape = jax.tree.map(lambda x: x.shape[1:], seen)
        carry = self.source.carried(2)
        try:
            example = jax.tree.map(lambda x: np.zeros((1, *x.shape[1:]), x.dtype), seen)
            module = ForeignModule(self.source.parameters(self.weights, key, example, outputs), self.source, parts)
            made = jax.eval_shape(module, observation, *carry)
        except ThorndikeError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise SettingError(
                f"{self.source.title} cannot take observations of shape "
                f"{shape}: {type(error).__name__}: {reason}{self.source.hint(seen)}"
            ) from error
        if carry:
            made, after = made
            if in_words(after) != in_words(*carry):
                raise SettingError(
                    f"{self.source.title} must give a carry like the one that it is "
                    f"given, {in_words(*carry)}, got {in_words(after)}"
                )
        if made.shape != (2, outputs):
            raise SettingError(
                f"{self.source.title} makes {made.shape} of 2 observations of shape "
                f"{shape}, expected {(2, outputs)}: {outputs} outputs for each"
            )
        return module

    def initial_carry(self, n: int) -> Any:
        return self.source.initial_carry(n)

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


def source_of(value: Any, function: Callable | None = None) -> Source | None:
    """What a network of a user's own is a source of; None for what is none. `function` made it, if one did."""
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
