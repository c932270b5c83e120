"""Dense layers: the recipe `MLP`, and the module that it makes."""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from thorndike.hyperparameters import hyperparameters
from thorndike.networks.initialization import Initialization, check_sizes, dense_shapes, draw_weights
from thorndike.networks.network import Network
from thorndike.networks.noisy import Spread, first_spread
from thorndike.networks.observations import Part, flat, leaf_of, picked_rows, visible_parts, width_of

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu, "elu": jax.nn.elu}
Activation = Literal["tanh", "relu", "gelu", "silu", "elu"]


class Perceptron(eqx.Module):
    """Dense layers over the flat features of an observation.

    The last weight is stored transposed, [outputs, inputs]: a narrow matrix by columns costs a PPO minibatch 4 % more.
    """

    weights: tuple[jax.Array, ...]  # [inputs, outputs] but for the last
    biases: tuple[jax.Array, ...]
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
        for weight, bias in zip(others, self.biases[1:], strict=True):
            x = ACTIVATIONS[self.activation](x) @ weight + bias[None]
        return x

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


@hyperparameters
class MLP(Network):
    """Dense layers of these sizes, then one that makes the outputs.

    `initialization`: "orthogonal" (gain sqrt(2), biases 0) or "default" (weights and biases uniform within
    1 / sqrt(inputs), what PyTorch's layers begin with). `noisy`: weights are drawn anew for every act and update, which
    explores by itself (Fortunato et al., 2018, "Noisy networks for exploration"); the mean weights begin as without.
    """

    sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    initialization: Initialization = "orthogonal"
    noisy: bool = False

    def validate(self) -> None:
        check_sizes("MLP", "sizes", self.sizes)

    def init(self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0) -> Perceptron:
        parts = visible_parts(observation_space)
        shapes = dense_shapes(sum(map(width_of, parts)), self.sizes, outputs)
        weights, biases = draw_weights(key, shapes, self.initialization, gain)
        spread = first_spread(weights, biases) if self.noisy else None
        return Perceptron(weights, biases, parts, self.activation, spread=spread)
