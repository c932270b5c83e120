"""Convolutions before dense layers: the recipe `CNN`, and the module that it makes."""

from __future__ import annotations

from functools import partial
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
from thorndike.networks.mlp import ACTIVATIONS, Activation, Norm, Perceptron, init_norms, normalized
from thorndike.networks.network import Network, Remarks
from thorndike.networks.noisy import first_spread
from thorndike.networks.observations import Part, as_numbers, leaf_of, planes, visible_parts, width_of
from thorndike.spaces import channels_axis

Layout = Literal["auto", "channels_last", "channels_first"]


class ConvolutionalPerceptron(Perceptron):
    """Convolutions over every image of an observation, then dense layers over their outputs and the other features."""

    kernels: tuple[tuple[jax.Array, ...], ...]  # for each image in order, [height, width, inputs, outputs]
    kernel_biases: tuple[tuple[jax.Array, ...], ...]
    kernel_norms: tuple[tuple[Norm, ...], ...]
    strides: tuple[int, ...] = eqx.field(static=True)
    layouts: tuple[Layout, ...] = eqx.field(static=True)  # of each image

    def picks(self, part: Part) -> bool:
        return part.is_wide and not _is_seen(part)

    def features(self, part: Part, observation: Any) -> jax.Array:
        if not _is_seen(part):
            return super().features(part, observation)
        image = [part for part in self.parts if _is_seen(part)].index(part)
        layers = self.kernels[image], self.kernel_biases[image], self.kernel_norms[image]
        return self._convolved(part, leaf_of(part, observation), self.layouts[image], layers)

    def _convolved(self, part: Part, x: jax.Array, layout: Layout, layers: tuple[tuple, ...]) -> jax.Array:
        x = _channels_last(x, layout)
        x = planes(_names_last(part, layout), x) if part.is_grid else x
        for i, (kernel, bias, norm, stride) in enumerate(zip(*layers, self.strides, strict=True)):
            numbers = partial(as_numbers, part) if i == 0 else None
            x = convolution(x, kernel, (stride, stride), numbers) + bias[None, None, None]
            x = ACTIVATIONS[self.activation](normalized(x, norm))
        return x.reshape(x.shape[0], -1)


@hyperparameters
class CNN(Network):
    """Convolutions, then dense layers; as in DQN (Mnih et al., 2015) unless told otherwise.

    Images are [height, width, channels] or [channels, height, width]: `layout` says which, and "auto" tells it from the
    shape, the channels being the axis whose length is unlike the others (84, 84, 4). A fourth axis before them is a
    stack of frames, which joins the channels. A grid of choices, a MultiDiscrete [height, width, names], is seen as
    planes of one-hots. In a Dict or Tuple every image has convolutions of its own, and the other leaves join their
    outputs, in the one order of features. The other fields are those of `MLP`; `layer_norm` normalises a convolution's
    outputs over its channels.
    """

    channels: tuple[int, ...] = (32, 64, 64)
    kernels: tuple[int, ...] = (8, 4, 3)  # their sides
    strides: tuple[int, ...] = (4, 2, 1)
    sizes: tuple[int, ...] = (512,)
    activation: Activation = "relu"
    initialization: Initialization = "orthogonal"
    layout: Layout = "auto"
    layer_norm: bool = False
    noisy: bool = False  # the dense layers

    def validate(self) -> None:
        for name in ("channels", "kernels", "strides", "sizes"):
            check_sizes("CNN", name, getattr(self, name))
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            raise SettingError(
                "CNN: channels, kernels and strides must be of one length, "
                f"got {len(self.channels)}, {len(self.kernels)} and {len(self.strides)}"
            )

    @property
    def special(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("noise",) * self.noisy

    def init(
        self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0
    ) -> ConvolutionalPerceptron:
        parts = visible_parts(observation_space)
        images = [part for part in parts if _is_seen(part)]
        if not images:
            raise UnsuitableError(
                "CNN needs an image, a Box of shape (height, width, channels) or (channels, height, width) with 1 "
                "channel for gray, or a grid, a MultiDiscrete of shape (height, width, names), got "
                f"{observation_space}: use MLP"
            )
        convolutions, inputs = [], sum(width_of(part) for part in parts if not _is_seen(part))
        layouts = tuple(map(self._layout_of, images))
        for part, layout in zip(images, layouts, strict=True):
            kernels, outputs_of_image = self._convolutions(part, layout)
            convolutions += kernels
            inputs += outputs_of_image
        shapes = [*convolutions, *dense_shapes(inputs, self.sizes, outputs)]
        weights, biases = draw_weights(key, shapes, self.initialization, gain)
        depth, first = len(self.channels), len(convolutions)
        stacks = [slice(i, i + depth) for i in range(0, first, depth)] if depth else [slice(0, 0)] * len(images)
        return ConvolutionalPerceptron(
            weights[first:], biases[first:], init_norms(self.layer_norm, self.sizes), parts, self.activation,
            tuple(weights[i] for i in stacks), tuple(biases[i] for i in stacks),
            (init_norms(self.layer_norm, self.channels),) * len(images), self.strides, layouts,
            spread=first_spread(weights[first:], biases[first:]) if self.noisy else None,
        )  # fmt: skip

    def remarks(self, observation_space: spaces.Space) -> Remarks:
        """Where channels were found to be first, and what is called an image but hardly is one."""
        images = [part for part in visible_parts(observation_space) if _is_seen(part)]
        notes, doubts = [], []
        for part in images:
            layout, name = self._layout_of(part), f"the image of shape {part.shape}"
            height, width, _ = _shape_channels_last(part, layout)
            if self.layout == "auto" and layout == "channels_first":
                notes.append(f"{name} is read with its channels first: CNN(layout=...) says otherwise")
            space: Any = leaf_of(part, observation_space)
            unbounded = isinstance(space, spaces.Box) and not (space.bounded_below.all() and space.bounded_above.all())
            if unbounded or min(height, width) < 3:
                small = f"is {height} high and {width} wide, too little for convolutions to move on"
                reason = "holds numbers without bounds, as images seldom do" if unbounded else small
                doubts.append(f"CNN: {name} {reason}: MLP takes such numbers one by one")
        return Remarks(tuple(notes), tuple(doubts))

    def _layout_of(self, part: Part) -> Layout:
        return _layout(part) if self.layout == "auto" else self.layout

    def _convolutions(self, part: Part, layout: Layout) -> tuple[list[tuple[int, ...]], int]:
        """The shapes of the kernels for one image, and how many numbers they make of it."""
        height, width, inputs = _shape_channels_last(part, layout)
        shapes: list[tuple[int, ...]] = []
        for channels, side, stride in zip(self.channels, self.kernels, self.strides, strict=True):
            shapes.append((side, side, inputs, channels))
            height, width, inputs = (height - side) // stride + 1, (width - side) // stride + 1, channels
            if min(height, width) < 1:
                raise SettingError(
                    f"CNN: an image of shape {part.shape}, read as {layout}, is too small for kernels {self.kernels} "
                    f"with strides {self.strides}: give smaller ones, such as {_small(part, layout)}, or another layout"
                )
        return shapes, height * width * inputs


def _is_seen(part: Part) -> bool:
    """Whether convolutions look at a part."""
    return part.is_image or part.is_grid


def _small(part: Part, layout: Layout) -> str:
    """A CNN for an image that is too small for others, as one writes it."""
    side = min(3, *_shape_channels_last(part, layout)[:2])
    return f"CNN(channels=(16,), kernels=({side},), strides=(1,), sizes=(128,))"


def _layout(part: Part) -> Layout:
    """Where an image's channels are. Raises SettingError where its shape does not tell.

    A grid's names are where their numbers of choices differ, or else the same.
    """
    shape = part.shape
    if part.is_grid:
        choices = np.stack([np.array(part.choices), np.array(part.start)]).reshape(2, *shape)
        differ_first, differ_last = ((choices != choices.take([0], axis)).any() for axis in (1, 3))
        if differ_first != differ_last:
            return "channels_first" if differ_first else "channels_last"
    axis = channels_axis(shape)
    if axis is None:
        raise SettingError(
            f"CNN cannot tell which axis of an image of shape {shape} holds its channels: write "
            'CNN(layout="channels_first") or CNN(layout="channels_last")'
        )
    return "channels_last" if axis == len(shape) - 1 else "channels_first"


def _shape_channels_last(part: Part, layout: Layout) -> tuple[int, int, int]:
    """Height, width and channels of what convolutions see of an image, or of a grid."""
    see = jax.eval_shape(lambda x: _channels_last(x, layout), np.empty((1, *part.shape)))
    if part.is_grid:
        see = jax.eval_shape(lambda x: planes(_names_last(part, layout), x), see)
    _, height, width, channels = see.shape
    return height, width, channels


def _names_last(part: Part, layout: Layout) -> Part:
    """A grid's description for the order of axes that convolutions see."""
    if layout == "channels_last":
        return part
    start, choices = (np.moveaxis(np.reshape(x, part.shape), 0, -1) for x in (part.start, part.choices))
    return part._replace(
        shape=start.shape, start=tuple(start.ravel().tolist()), choices=tuple(choices.ravel().tolist())
    )


def _channels_last(x: jax.Array, layout: Layout) -> jax.Array:
    """Images [B, ...] as [B, height, width, channels], the frames of a stack being so many more channels."""
    channels = x.ndim - (1 if layout == "channels_last" else 3)
    axes = (*range(1, x.ndim - 3), channels)  # a stack's, where there is one, and the channels'
    x = jnp.moveaxis(x, axes, range(-len(axes), 0))
    return x.reshape(*x.shape[:3], -1)
