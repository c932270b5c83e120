"""Dense layers: the recipe `MLP`, and the module that it makes."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import lax, random

from thorndike.hyperparameters import hyperparameters, setting
from thorndike.networks.initialization import Initialization, check_sizes, dense_shapes, draw_weights
from thorndike.networks.network import Network
from thorndike.networks.noisy import Spread, first_spread
from thorndike.networks.observations import Part, flat, leaf_of, picked_rows, visible_parts, width_of

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu, "elu": jax.nn.elu}
Activation = Literal["tanh", "relu", "gelu", "silu", "elu"]


Norm = tuple[jax.Array, ...]  # a scale and an offset for each of a layer's units; () where none are normalised
VARIANCE_FLOOR = 1e-6  # added to variances before dividing


def init_norms(layer_norm: bool, sizes: tuple[int, ...]) -> tuple[Norm, ...]:
    """What hidden layers of these sizes are normalised with: scales of 1, offsets of 0."""
    return tuple((jnp.ones(n, jnp.float32), jnp.zeros(n, jnp.float32)) if layer_norm else () for n in sizes)


def normalized(x: jax.Array, norm: Norm) -> jax.Array:
    """Layer normalisation of [B, ..., units] over the units (Ba et al., 2016); `x` itself without a norm."""
    if not norm:
        return x
    scale, offset = (jnp.expand_dims(each, range(x.ndim - 1)) for each in norm)
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return centred * lax.rsqrt(variance + VARIANCE_FLOOR) * scale + offset


class Perceptron(eqx.Module):
    """Dense layers over the flat features of an observation.

    The last weight is stored transposed, [outputs, inputs]: a narrow matrix by columns costs a PPO minibatch 4 % more.
    """

    weights: tuple[jax.Array, ...]  # [inputs, outputs] but for the last
    biases: tuple[jax.Array, ...]
    norms: tuple[Norm, ...]  # of each hidden layer
    parts: tuple[Part, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    spread: Spread | None = eqx.field(default=None, kw_only=True)  # of noisy layers

    def picks(self, part: Part) -> bool:
        """Whether a part's weights are looked up."""
        return part.is_wide

    def features(self, part: Part, observation: Any) -> jax.Array:
        """A part's features [B, F]; the rows that it picks, where weights are looked up."""
        x = leaf_of(part, observation)
        return picked_rows(part, x) if self.picks(part) else flat(part, x)

    def __call__(self, observation: Any) -> jax.Array:
        """Observations with one leading batch axis [B, ...] to outputs [B, outputs]."""
        first, *others = (*self.weights[:-1], self.weights[-1].T)
        x = self._first(observation, first) + self.biases[0][None]
        for i, (weight, bias) in enumerate(zip(others, self.biases[1:], strict=True)):
            x = self.hidden(i, x) @ weight + bias[None]
        return x

    def hidden(self, i: int, x: jax.Array) -> jax.Array:
        """What the units of a hidden layer make [B, units] of their sums."""
        return ACTIVATIONS[self.activation](normalized(x, self.norms[i]))

    def _first(self, observation: Any, weight: jax.Array) -> jax.Array:
        """All features times a weight [inputs, outputs]: one product or, where some are looked up, a sum over parts."""
        columns = [self.features(part, observation) for part in self.parts]
        if not any(self.picks(part) for part in self.parts):
            return (columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=1)) @ weight
        widths = [
            width_of(part) if self.picks(part) else x.shape[1] for part, x in zip(self.parts, columns, strict=True)
        ]
        terms = [
            block.at[x].get(mode="fill", fill_value=0).sum(1) if self.picks(part) else x @ block
            for part, x, block in zip(self.parts, columns, jnp.split(weight, np.cumsum(widths)[:-1]), strict=True)
        ]
        return sum(terms[1:], terms[0])

    def original(self) -> Perceptron:
        """What the user gave, with these weights: for our own networks, the module itself."""
        return self


class DropoutPerceptron(Perceptron):
    """Dense layers whose sums are dropped at random where there is a key for it: see `with_dropout`."""

    dropout: float = eqx.field(static=True, kw_only=True)  # the share of them
    key: jax.Array | None = eqx.field(default=None, kw_only=True)

    def hidden(self, i: int, x: jax.Array) -> jax.Array:
        if self.key is not None:
            kept = random.bernoulli(random.fold_in(self.key, i), 1 - self.dropout, x.shape)
            x = jnp.where(kept, x / (1 - self.dropout), 0.0)
        return super().hidden(i, x)


def dropout_keys(module: Any, key: jax.Array, count: int) -> tuple:
    """A key for all else, then so many for dropout: the key itself and Nones for a module without."""
    if not any(isinstance(part, DropoutPerceptron) for part in _perceptrons(module)):
        return key, *[None] * count
    return tuple(random.split(key, count + 1))


def with_dropout(module: Any, key: jax.Array) -> Any:
    """The module with units dropped at random, by a key, wherever it drops any."""
    parts, structure = jax.tree.flatten(module, is_leaf=lambda x: isinstance(x, Perceptron))
    return jax.tree.unflatten(structure, [_dropping(part, random.fold_in(key, i)) for i, part in enumerate(parts)])


def _perceptrons(module: Any) -> list:
    return jax.tree.leaves(module, is_leaf=lambda x: isinstance(x, Perceptron))


def _dropping(part: Any, key: jax.Array) -> Any:
    return dataclasses.replace(part, key=key) if isinstance(part, DropoutPerceptron) else part


@hyperparameters
class MLP(Network):
    """Dense layers of these sizes, then one that makes the outputs.

    `initialization`: "orthogonal" (gain sqrt(2), biases 0) or "default" (weights and biases uniform within
    1 / sqrt(inputs), what PyTorch's layers begin with). `layer_norm` normalises hidden layers before their activation
    (Ba et al., 2016, "Layer normalization"). `dropout` is the share of units that are left out at random wherever
    critics learn (Srivastava et al., 2014), before they are normalised; who acts uses all of them. `noisy`: weights are
    drawn anew for every act and update, which explores by itself (Fortunato et al., 2018, "Noisy networks for
    exploration"); the mean weights begin as without.
    """

    sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    initialization: Initialization = "orthogonal"
    layer_norm: bool = False
    dropout: float = setting(0.0, low=0, high=0.99, static=True)
    noisy: bool = False

    def validate(self) -> None:
        check_sizes("MLP", "sizes", self.sizes)

    @property
    def special(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("dropout",) * bool(self.dropout) + ("noise",) * self.noisy

    def init(self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0) -> Perceptron:
        parts = visible_parts(observation_space)
        shapes = dense_shapes(sum(map(width_of, parts)), self.sizes, outputs)
        weights, biases = draw_weights(key, shapes, self.initialization, gain)
        fields = weights, biases, init_norms(self.layer_norm, self.sizes), parts, self.activation
        spread = first_spread(weights, biases) if self.noisy else None
        cls = partial(DropoutPerceptron, dropout=self.dropout) if self.dropout else Perceptron
        return cls(*fields, spread=spread)
