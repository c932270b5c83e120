"""Dense layers whose inputs are normalised batch by batch: the recipe `RenormalizedMLP`, and the module it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from gymnasium import spaces
from jax import lax

from thorndike.hyperparameters import hyperparameters, setting
from thorndike.networks.initialization import Initialization, check_sizes, dense_shapes, draw_weights
from thorndike.networks.mlp import ACTIVATIONS, Activation
from thorndike.networks.network import Network
from thorndike.networks.observations import Part, features, visible_parts, width_of

RENORMALIZATION = "batch renormalization"
VARIANCE_FLOOR = 1e-3  # added to variances before dividing
LARGEST_RATIO, LARGEST_SHIFT = 3.0, 5.0  # by which a batch is corrected towards what is known of all


class Running(NamedTuple):
    """What is known of the inputs of each layer. No gradient reaches it and no optimizer moves it."""

    means: tuple[jax.Array, ...]
    variances: tuple[jax.Array, ...]
    seen: jax.Array  # batches, uint32


class RenormalizedPerceptron(eqx.Module):
    """Dense layers, each of which sees normalised inputs: by what is known of them or, learning, by those of a batch.

    Batch renormalisation (Ioffe, 2017): a batch is normalised by its own mean and variance, then corrected to what is
    known of all, within limits, so that learning and acting see the same. The first `batches` are not corrected.
    """

    weights: tuple[jax.Array, ...]  # [inputs, outputs] but for the last
    biases: tuple[jax.Array, ...]
    scales: tuple[jax.Array, ...]  # of each layer's inputs
    offsets: tuple[jax.Array, ...]
    running: Any  # Running; () where it is kept apart
    parts: tuple[Part, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    momentum: float = eqx.field(static=True)
    batches: int = eqx.field(static=True)

    def __call__(self, observation: Any) -> jax.Array:
        """Observations with one leading batch axis [B, ...] to outputs [B, outputs], each for itself."""
        means, variances, _ = self.running

        def normalize(i, x):
            return (x - means[i][None]) * lax.rsqrt(variances[i] + VARIANCE_FLOOR)[None]

        return self._outputs(observation, normalize)

    def learning(self, observation: Any) -> tuple[jax.Array, Running]:
        """The outputs of a batch normalised by itself, and what is known with it."""
        means, variances, seen = self.running
        known: list[tuple[jax.Array, jax.Array]] = []

        def normalize(i, x):
            mean, variance = x.mean(0), x.var(0)
            fresh = lax.stop_gradient((mean, variance))
            known.append(jax.tree.map(self._mixed, (means[i], variances[i]), fresh))
            deviation, usual = (jnp.sqrt(v + VARIANCE_FLOOR) for v in (fresh[1], variances[i]))
            ratio = jnp.clip(deviation / usual, 1 / LARGEST_RATIO, LARGEST_RATIO)
            shift = jnp.clip((fresh[0] - means[i]) / usual, -LARGEST_SHIFT, LARGEST_SHIFT)
            corrects = seen >= self.batches
            ratio, shift = jnp.where(corrects, ratio, 1.0), jnp.where(corrects, shift, 0.0)
            x = (x - mean[None]) * lax.rsqrt(variance + VARIANCE_FLOOR)[None]
            return x * ratio[None] + shift[None]

        outputs = self._outputs(observation, normalize)
        known_means, known_variances = zip(*known, strict=True)
        return outputs, Running(known_means, known_variances, seen + 1)

    def _mixed(self, known: jax.Array, fresh: jax.Array) -> jax.Array:
        return self.momentum * known + (1 - self.momentum) * fresh

    def _outputs(self, observation: Any, normalize: Callable[[int, jax.Array], jax.Array]) -> jax.Array:
        x, last = features(self.parts, observation), len(self.weights) - 1
        for i, weight in enumerate((*self.weights[:-1], self.weights[-1].T)):
            x = normalize(i, x) * self.scales[i][None] + self.offsets[i][None]
            x = x @ weight + self.biases[i][None]
            x = x if i == last else ACTIVATIONS[self.activation](x)
        return x

    @property
    def trained(self) -> RenormalizedPerceptron:
        """What an optimizer moves: all but what is known of inputs."""
        return replace(self, running=())

    def knowing(self, running: Running) -> RenormalizedPerceptron:
        """The module with this knowledge of inputs."""
        return replace(self, running=running)

    def original(self) -> RenormalizedPerceptron:
        """What the user gave, with these weights: for our own networks, the module itself."""
        return self


@hyperparameters
class RenormalizedMLP(Network):
    """Dense layers of these sizes, the inputs of each under batch renormalisation (Ioffe, 2017): CrossQ's.

    `momentum` is what stays of running means and variances at each batch; batches are corrected by them once there
    were `renormalize_after`, and are until then normalised by themselves. Other fields are those of `MLP`.
    """

    sizes: tuple[int, ...] = (256, 256)
    activation: Activation = "relu"
    initialization: Initialization = "default"
    momentum: float = setting(0.99, low=0, high=1, static=True)
    renormalize_after: int = setting(100_000, low=0)

    special = (RENORMALIZATION,)

    def validate(self) -> None:
        check_sizes("RenormalizedMLP", "sizes", self.sizes)

    def init(
        self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0
    ) -> RenormalizedPerceptron:
        parts = visible_parts(observation_space)
        inputs = sum(map(width_of, parts))
        weights, biases = draw_weights(key, dense_shapes(inputs, self.sizes, outputs), self.initialization, gain)
        zeros, ones = (tuple(jnp.full(n, x, jnp.float32) for n in (inputs, *self.sizes)) for x in (0, 1))
        running = Running(jax.tree.map(jnp.copy, zeros), jax.tree.map(jnp.copy, ones), jnp.uint32(0))
        return RenormalizedPerceptron(
            weights, biases, ones, zeros, running, parts, self.activation, self.momentum, self.renormalize_after
        )
