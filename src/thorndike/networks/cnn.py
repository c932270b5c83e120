"""Convolutions before dense layers: the recipe `CNN`, and the module that it makes."""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from thorndike.errors import SettingError, UnsuitableError
from thorndike.hyperparameters import hyperparameters
from thorndike.networks.convolutions import convolution
from thorndike.networks.initialization import Initialization, check_sizes, dense_shapes, draw_weights
from thorndike.networks.mlp import ACTIVATIONS, Activation, Perceptron
from thorndike.networks.network import Network
from thorndike.networks.observations import Part, as_numbers, leaf_of, visible_parts, width_of

Layout = Literal["auto", "channels_last", "channels_first"]


class ConvolutionalPerceptron(Perceptron):
    """Convolutions over every image of an observation, then dense layers over their outputs and the other features."""

    kernels: tuple[tuple[jax.Array, ...], ...]  # for each image in order, [height, width, inputs, outputs]
    kernel_biases: tuple[tuple[jax.Array, ...], ...]
    strides: tuple[int, ...] = eqx.field(static=True)
    layouts: tuple[Layout, ...] = eqx.field(static=True)  # of each image

    def features(self, part: Part, observation: Any) -> jax.Array:
        if not part.is_image:
            return super().features(part, observation)
        image = [part for part in self.parts if part.is_image].index(part)
        stack = self.layouts[image], self.kernels[image], self.kernel_biases[image]
        return self._convolved(part, leaf_of(part, observation), *stack)

    def _convolved(self, part: Part, x: jax.Array, layout: Layout, kernels: tuple, biases: tuple) -> jax.Array:
        x = as_numbers(part, _channels_last(x, layout))
        for kernel, bias, stride in zip(kernels, biases, self.strides, strict=True):
            x = ACTIVATIONS[self.activation](convolution(x, kernel, (stride, stride)) + bias[None, None, None])
        return x.reshape(x.shape[0], -1)


@hyperparameters
class CNN(Network):
    """Convolutions, then dense layers; as in DQN (Mnih et al., 2015) unless told otherwise.

    Images are [height, width, channels] or [channels, height, width]: `layout` says which, and "auto" tells it from the
    shape, the channels being the axis whose length is unlike the others (84, 84, 4). A fourth axis before them is a
    stack of frames, which joins the channels. In a Dict or Tuple every image has convolutions of its own, and the
    other leaves join their outputs, in the one order of features. The other fields are those of `MLP`.
    """

    channels: tuple[int, ...] = (32, 64, 64)
    kernels: tuple[int, ...] = (8, 4, 3)  # their sides
    strides: tuple[int, ...] = (4, 2, 1)
    sizes: tuple[int, ...] = (512,)
    activation: Activation = "relu"
    initialization: Initialization = "orthogonal"
    head: Literal["linear", "dueling"] = "linear"
    layout: Layout = "auto"

    def validate(self) -> None:
        for name in ("channels", "kernels", "strides", "sizes"):
            check_sizes("CNN", name, getattr(self, name))
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            raise SettingError(
                "CNN: channels, kernels and strides must be of one length, "
                f"got {len(self.channels)}, {len(self.kernels)} and {len(self.strides)}"
            )

    def init(
        self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0
    ) -> ConvolutionalPerceptron:
        parts = visible_parts(observation_space)
        images = [part for part in parts if part.is_image]
        if not images:
            raise UnsuitableError(
                "CNN needs an image, a Box of shape (height, width, channels) or (channels, height, width) with 1 "
                f"channel for gray, got {observation_space}: use MLP"
            )
        convolutions, inputs = [], sum(width_of(part) for part in parts if not part.is_image)
        layouts = tuple(_layout(part.shape) if self.layout == "auto" else self.layout for part in images)
        for part, layout in zip(images, layouts, strict=True):
            kernels, outputs_of_image = self._convolutions(part, layout)
            convolutions += kernels
            inputs += outputs_of_image
        dueling = self.head == "dueling"
        shapes = [*convolutions, *dense_shapes(inputs, self.sizes, outputs, dueling)]
        weights, biases = draw_weights(key, shapes, self.initialization, gain, dueling)
        depth, first = len(self.channels), len(convolutions)
        stacks = [slice(i, i + depth) for i in range(0, first, depth)] if depth else [slice(0, 0)] * len(images)
        return ConvolutionalPerceptron(
            weights[first:], biases[first:], parts, self.activation, dueling,
            tuple(weights[i] for i in stacks), tuple(biases[i] for i in stacks), self.strides, layouts,
        )  # fmt: skip

    def _convolutions(self, part: Part, layout: Layout) -> tuple[list[tuple[int, ...]], int]:
        """The shapes of the kernels for one image, and how many numbers they make of it."""
        _, height, width, inputs = jax.eval_shape(lambda x: _channels_last(x, layout), np.empty((1, *part.shape))).shape
        shapes: list[tuple[int, ...]] = []
        for channels, side, stride in zip(self.channels, self.kernels, self.strides, strict=True):
            shapes.append((side, side, inputs, channels))
            height, width, inputs = (height - side) // stride + 1, (width - side) // stride + 1, channels
            if min(height, width) < 1:
                raise SettingError(
                    f"CNN: an image of shape {part.shape}, read as {layout}, is too small for kernels {self.kernels} "
                    f"with strides {self.strides}: give smaller ones, such as CNN((16,), (3,), (1,), (128,)), "
                    "or another layout"
                )
        return shapes, height * width * inputs


def _layout(shape: tuple[int, ...]) -> Layout:
    """Where an image's channels are: of its first and last axis the one more unlike the middle one, which is a side.

    Raises SettingError where the first is, but not clearly so.
    """
    first, middle, last = shape[-3:]
    unlike_first, unlike_last = (max(axis / middle, middle / axis) for axis in (first, last))
    if unlike_first <= unlike_last:
        return "channels_last"
    if unlike_first < 2 * unlike_last:
        raise SettingError(
            f"CNN cannot tell which axis of an image of shape {shape} holds its channels: write "
            'CNN(layout="channels_first") or CNN(layout="channels_last")'
        )
    return "channels_first"


def _channels_last(x: jax.Array, layout: Layout) -> jax.Array:
    """Images [B, ...] as [B, height, width, channels], the frames of a stack being so many more channels."""
    channels = x.ndim - (1 if layout == "channels_last" else 3)
    axes = (*range(1, x.ndim - 3), channels)  # a stack's, where there is one, and the channels'
    x = jnp.moveaxis(x, axes, range(-len(axes), 0))
    return x.reshape(*x.shape[:3], -1)
