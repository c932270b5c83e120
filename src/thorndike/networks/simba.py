"""Residual blocks of dense layers: the recipe `SimBa`, and the module that it makes."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import random

from thorndike.hyperparameters import hyperparameters, setting
from thorndike.networks.initialization import MAX_LAYERS, MAX_UNITS, dense_shapes, orthogonalized
from thorndike.networks.mlp import ACTIVATIONS, Perceptron, init_norms, normalized
from thorndike.networks.network import Network
from thorndike.networks.observations import visible_parts, width_of


class ResidualPerceptron(Perceptron):
    """A linear embedding, blocks that each add to it, and a layer of outputs; all but the first see normalised inputs.

    Weights are those of the embedding, of each block two, and of the outputs; norms those of each block and the last.
    """

    def __call__(self, observation: Any) -> jax.Array:
        embedding, *blocks, last = self.weights
        biases = self.biases[1:-1]
        x = self._first(observation, embedding) + self.biases[0][None]
        for i, norm in enumerate(self.norms[:-1]):
            inner, outer = 2 * i, 2 * i + 1
            wide = ACTIVATIONS[self.activation](normalized(x, norm) @ blocks[inner] + biases[inner][None])
            x = x + wide @ blocks[outer] + biases[outer][None]
        return normalized(x, self.norms[-1]) @ last.T + self.biases[-1][None]


@hyperparameters
class SimBa(Network):
    """Residual blocks with layer normalisation, which larger networks learn better with: for every algorithm.

    Lee et al. (2025), "SimBa: simplicity bias for scaling up parameters in deep reinforcement learning". A block adds
    to its `size` numbers what two layers make of them, normalised, by way of 4 `size` units. Their running
    normalisation of observations is the algorithm's `normalize_observations=True`; their critics are
    SimBa(512, blocks=2).
    """

    size: int = setting(128, low=1, high=MAX_UNITS // 4)
    blocks: int = setting(1, low=0, high=MAX_LAYERS)

    def init(
        self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0
    ) -> ResidualPerceptron:
        """Embedding and outputs are orthogonal, blocks as He et al. (2015) have them; all of one draw."""
        parts = visible_parts(observation_space)
        sizes = (self.size, *[4 * self.size, self.size] * self.blocks)
        shapes = dense_shapes(sum(map(width_of, parts)), sizes, outputs)
        draws = random.normal(key, (sum(map(math.prod, shapes)),), jnp.float32)
        drawn = jnp.split(draws, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
        first, *blocks, last = (x.reshape(shape) for x, shape in zip(drawn, shapes, strict=True))
        blocks = [x * math.sqrt(2 / x.shape[0]) for x in blocks]
        gain = jnp.broadcast_to(jnp.asarray(gain, jnp.float32), (outputs,))
        weights = orthogonalized(first), *blocks, orthogonalized(last).T * gain[:, None]
        biases = tuple(jnp.zeros(shape[1], jnp.float32) for shape in shapes)
        norms = init_norms(True, (self.size,) * (self.blocks + 1))
        return ResidualPerceptron(weights, biases, norms, parts, "relu")
