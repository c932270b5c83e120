"""Networks: recipes that a user chooses, the modules they make, and observations of any space as features.

The one order of features: dictionary keys sorted, tuples in order, every leaf raveled row by row. A choice
(Discrete, MultiDiscrete) becomes its one-hot, counted from its `start`, and where that is wide, dense layers look up
the row of weights that it picks instead of multiplying; an image (uint8 of three axes, or of four: a stack of them) is
divided by 255; a dictionary's `action_mask` is reserved and never a feature.
"""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import lax, random

from thorndike.errors import SettingError, UnsuitableError, shown
from thorndike.hyperparameters import hyperparameters
from thorndike.networks.convolutions import convolution

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu, "elu": jax.nn.elu}
Activation = Literal["tanh", "relu", "gelu", "silu", "elu"]
Initialization = Literal["orthogonal", "default"]
Layout = Literal["auto", "channels_last", "channels_first"]
MAX_LAYERS, MAX_UNITS = 100, 2**20  # more is a slip, and would be noticed only after minutes of compiling
MAX_WIDTH = 2**31 - 1  # of features or outputs: what an index can be
WIDE = 64  # one-hots up to this wide are multiplied with weights: looking rows up would gain little


class Part(NamedTuple):
    """What a network must know of one leaf of an observation: plain and hashable."""

    path: tuple[str | int, ...]  # where the leaf stands: () for a lone space, ("camera", 0) for a nested one
    shape: tuple[int, ...]
    choices: tuple[int, ...] = ()  # sizes of the one-hots; () where the leaf is numbers
    start: tuple[int, ...] = ()  # the lowest value of each choice
    scaled: bool = False  # divided by 255

    @property
    def is_image(self) -> bool:
        """Whether convolutions may look at it: numbers with axes of height, width and channels, or a stack of such."""
        return len(self.shape) in (3, 4) and not self.choices

    @property
    def is_wide(self) -> bool:
        """Whether one-hots would be wide: then weights are looked up."""
        return sum(self.choices) > WIDE * len(self.choices)


def parts_of(space: spaces.Space, path: tuple[str | int, ...] = ()) -> tuple[Part, ...]:
    """The leaves of an observation space that are features, in their one order.

    Raises:
        UnsuitableError: for a space whose observations have no fixed size.
    """
    if isinstance(space, spaces.Box):
        return (Part(path, space.shape, scaled=space.dtype == np.uint8 and len(space.shape) in (3, 4)),)
    if isinstance(space, spaces.MultiBinary):
        return (Part(path, tuple(space.shape)),)
    if isinstance(space, spaces.Discrete):
        return (Part(path, (), (int(space.n),), (int(space.start),)),)
    if isinstance(space, spaces.MultiDiscrete):
        sizes, start = (tuple(np.ravel(x).tolist()) for x in (space.nvec, space.start))
        return (Part(path, tuple(space.shape), sizes, start),)
    if isinstance(space, spaces.Dict):
        children: list[tuple[str | int, spaces.Space]] = [
            (name, space[name]) for name in sorted(space.spaces) if name != "action_mask"
        ]
    elif isinstance(space, spaces.Tuple):
        children = [*enumerate(space.spaces)]
    else:
        raise UnsuitableError(
            f"a network cannot see observations of {type(space).__name__}: "
            "it takes Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these"
        )
    return tuple(part for name, child in children for part in parts_of(child, (*path, name)))


def features(parts: tuple[Part, ...], observation: Any) -> jax.Array:
    """Observations with one leading batch axis as one flat vector each, float32 [B, F], in the order of `parts`."""
    columns = [_flat(part, _leaf(part, observation)) for part in parts]
    return columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=1)


def _leaf(part: Part, observation: Any) -> jax.Array:
    for step in part.path:
        observation = observation[step]
    return observation


def _flat(part: Part, x: jax.Array) -> jax.Array:
    x = x.reshape(x.shape[0], -1)
    if not part.choices:
        return _numbers(part, x)
    column = np.repeat(np.arange(len(part.choices)), part.choices)
    value = np.concatenate([np.arange(low, low + n) for low, n in zip(part.start, part.choices, strict=True)])
    return (x[:, column] == value[None]).astype(jnp.float32)


def _rows(part: Part, x: jax.Array) -> jax.Array:
    """The rows that choices pick of a weight, [B, choices]; beyond the last one for a value that is no choice."""
    sizes, start = np.array(part.choices)[None], np.array(part.start)[None]
    choice = x.reshape(x.shape[0], -1) - start
    begin = np.cumsum(sizes, axis=1) - sizes
    return jnp.where((choice >= 0) & (choice < sizes), choice + begin, sizes.sum())


def _numbers(part: Part, x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return x / 255 if part.scaled else x


class Perceptron(eqx.Module):
    """Dense layers over the flat features of an observation.

    The last weight is stored transposed, [outputs, inputs]: a narrow matrix by columns costs a PPO minibatch 4 % more.
    """

    weights: tuple[jax.Array, ...]  # [inputs, outputs] but for the last
    biases: tuple[jax.Array, ...]
    parts: tuple[Part, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    dueling: bool = eqx.field(static=True)

    def features(self, part: Part, observation: Any) -> jax.Array:
        """A part's features [B, F]; of a wide one, the rows that it picks."""
        x = _leaf(part, observation)
        return _rows(part, x) if part.is_wide else _flat(part, x)

    def __call__(self, observation: Any) -> jax.Array:
        """Observations with one leading batch axis [B, ...] to outputs [B, outputs]."""
        first, *others = (*self.weights[:-1], self.weights[-1].T)
        x = self._first(observation, first) + self.biases[0][None]
        for weight, bias in zip(others, self.biases[1:], strict=True):
            x = ACTIVATIONS[self.activation](x) @ weight + bias[None]
        if not self.dueling:
            return x
        value, advantage = x[:, :1], x[:, 1:]  # Wang et al. (2016), equation 9
        return value + advantage - advantage.mean(1, keepdims=True)

    def _first(self, observation: Any, weight: jax.Array) -> jax.Array:
        """All features times a weight [inputs, outputs]: one product or, where some are looked up, a sum over parts."""
        columns = [self.features(part, observation) for part in self.parts]
        if not any(part.is_wide for part in self.parts):
            return (columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=1)) @ weight
        widths = [_width(part) if part.is_wide else x.shape[1] for part, x in zip(self.parts, columns, strict=True)]
        terms = [
            block.at[x].get(mode="fill", fill_value=0).sum(1) if part.is_wide else x @ block
            for part, x, block in zip(self.parts, columns, jnp.split(weight, np.cumsum(widths)[:-1]), strict=True)
        ]
        return sum(terms[1:], terms[0])

    def original(self) -> Perceptron:
        """What the user gave, with these weights: for our own networks, the module itself."""
        return self


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
        return self._convolved(part, _leaf(part, observation), *stack)

    def _convolved(self, part: Part, x: jax.Array, layout: Layout, kernels: tuple, biases: tuple) -> jax.Array:
        x = _numbers(part, _channels_last(x, layout))
        for kernel, bias, stride in zip(kernels, biases, self.strides, strict=True):
            x = ACTIVATIONS[self.activation](convolution(x, kernel, (stride, stride)) + bias[None, None, None])
        return x.reshape(x.shape[0], -1)


class Network:
    """A recipe for a network: what an algorithm's field `network` holds.

    A field annotated with it also takes a pair (init, apply), an Equinox, Flax, Haiku, Keras 3 or PyTorch network, or
    a function that makes one: see `thorndike.networks.foreign`.
    """

    fixed = False  # its outputs are as many as they are, not as many as are asked for
    draws = True  # its first weights come from the key that it is made with

    def init(self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0) -> eqx.Module:
        """A module from observations with one batch axis to [B, outputs]; its leaves are what trains.

        `gain` scales the last layer: a number, or an array [outputs] with one for each output.
        """
        raise NotImplementedError

    @classmethod
    def coerce(cls, value: Any) -> Network:
        """The recipe that a user means by `value`; SettingError says what a network may be."""
        from thorndike.networks.foreign import recipe_of

        return value if isinstance(value, Network) else recipe_of(value)


@hyperparameters
class MLP(Network):
    """Dense layers of these sizes, then one that makes the outputs.

    `initialization`: "orthogonal" (gain sqrt(2), biases 0) or "default" (weights and biases uniform within
    1 / sqrt(inputs), what PyTorch's layers begin with). `head`: "linear", or "dueling" (Wang et al., 2016):
    Q = V + A - mean(A).
    """

    sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    initialization: Initialization = "orthogonal"
    head: Literal["linear", "dueling"] = "linear"

    def validate(self) -> None:
        _check_whole("MLP", "sizes", self.sizes)

    def init(self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0) -> Perceptron:
        parts = _features_of(observation_space)
        weights, biases = _drawn(self, key, _dense_shapes(self, sum(map(_width, parts)), outputs), gain)
        return Perceptron(weights, biases, parts, self.activation, self.head == "dueling")


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
            _check_whole("CNN", name, getattr(self, name))
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            raise SettingError(
                "CNN: channels, kernels and strides must be of one length, "
                f"got {len(self.channels)}, {len(self.kernels)} and {len(self.strides)}"
            )

    def init(
        self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0
    ) -> ConvolutionalPerceptron:
        parts = _features_of(observation_space)
        images = [part for part in parts if part.is_image]
        if not images:
            raise UnsuitableError(
                "CNN needs an image, a Box of shape (height, width, channels) or (channels, height, width) with 1 "
                f"channel for gray, got {observation_space}: use MLP"
            )
        convolutions, inputs = [], sum(_width(part) for part in parts if not part.is_image)
        layouts = tuple(_layout(part.shape) if self.layout == "auto" else self.layout for part in images)
        for part, layout in zip(images, layouts, strict=True):
            shapes, outputs_of_image = self._convolutions(part, layout)
            convolutions += shapes
            inputs += outputs_of_image
        weights, biases = _drawn(self, key, [*convolutions, *_dense_shapes(self, inputs, outputs)], gain)
        depth, first = len(self.channels), len(convolutions)
        stacks = [slice(i, i + depth) for i in range(0, first, depth)] if depth else [slice(0, 0)] * len(images)
        return ConvolutionalPerceptron(
            weights[first:], biases[first:], parts, self.activation, self.head == "dueling",
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
                    f"with strides {self.strides}: give smaller ones, or another layout"
                )
        return shapes, height * width * inputs


@hyperparameters
class Same(Network):
    """For a critic or a baseline: the recipe of the algorithm's own `network`, so that it sees what the actor sees."""

    def init(self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0) -> eqx.Module:
        raise SettingError("Same() makes a critic like the actor: give the actor's network itself, such as MLP()")


def critic_recipe(algorithm: Any, field: str, observation_space: spaces.Space) -> Any:
    """What a critic is made by: the recipe in that field of `algorithm` or, where that is Same(), in its `network`.

    A user's network with fixed outputs cannot be followed: the default recipe takes its place, but for images.

    Raises:
        SettingError: where such a network looks at images.
    """
    given = getattr(algorithm, field)
    if not isinstance(given, Same):
        return given
    if not algorithm.network.fixed:
        return algorithm.network
    if any(part.is_image for part in parts_of(observation_space)):
        raise SettingError(
            f"a critic cannot be made like {algorithm.network!r}, whose outputs are fixed, and these observations hold "
            f"images: say what it is to be, such as {field}=CNN()"
        )
    return type(algorithm).network


class FirstOutputs(eqx.Module):
    """A network without its last outputs: a policy's, where the last one is the value."""

    network: Any
    count: int = eqx.field(static=True)

    def __call__(self, observation: Any) -> jax.Array:
        return self.network(observation)[:, : self.count]


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


def init_critics(
    recipe: Network, key: jax.Array, observation_space: spaces.Space, action_space: Any, count: int
) -> Any:
    """`count` networks Q(s, a) as one module, whose leaves have them along their first axis.

    They see Dict(action, observation). Raises SettingError for a recipe that would make all of them the same.
    """
    if count > 1 and not recipe.draws:
        raise SettingError(
            f"{recipe!r} begins with the same weights every time, and {count} equal critics are no better than one: "
            "give a pair (init, apply) as critic_network, or num_critics=1"
        )
    canonical = spaces.Box(-1.0, 1.0, action_space.shape, np.float32)
    seen = spaces.Dict({"action": canonical, "observation": observation_space})
    return jax.vmap(lambda key: recipe.init(key, seen, 1))(random.split(key, count))


def critic_values(critics: Any, observation: Any, action: jax.Array) -> jax.Array:
    """Q(s, a) of every critic: [critics, B] for observations and canonical actions [B, ...]."""
    seen = {"action": action, "observation": observation}
    return jax.vmap(lambda critic: critic(seen)[:, 0])(critics)


def init_value(algorithm: Any, field: str, key: jax.Array, observation_space: spaces.Space) -> Any:
    """V(s) [B, 1], made as that field of `algorithm` says; () where it says None."""
    recipe = critic_recipe(algorithm, field, observation_space)
    return recipe.init(key, observation_space, 1) if recipe else ()


def _features_of(space: spaces.Space) -> tuple[Part, ...]:
    parts = tuple(part for part in parts_of(space) if 0 not in part.shape)
    if not parts:
        raise UnsuitableError(f"there is nothing to see in an observation of {space}")
    return parts


def _width(part: Part) -> int:
    return sum(part.choices) or math.prod(part.shape)


def _dense_shapes(recipe: MLP | CNN, inputs: int, outputs: int) -> list[tuple[int, ...]]:
    if max(inputs, outputs) > MAX_WIDTH:
        what = f"{inputs:,} features of an observation and {outputs:,} outputs"
        raise UnsuitableError(f"no network has {what}: represent such large choices as numbers, in a Box")
    return list(itertools.pairwise((inputs, *recipe.sizes, outputs + (recipe.head == "dueling"))))


def _drawn(recipe: MLP | CNN, key: jax.Array, shapes: list[tuple[int, ...]], gain: Any) -> tuple[tuple, tuple]:
    """First weights [..., inputs, outputs] and biases of all layers; the last one scaled by `gain` and transposed.

    They share one draw, because every further one would add a fifth of a second to compiling.
    """
    orthogonal = recipe.initialization == "orthogonal"
    draw = random.normal if orthogonal else partial(random.uniform, minval=-1, maxval=1)
    sizes = [math.prod(shape) + shape[-1] for shape in shapes]
    numbers = jnp.split(draw(key, (sum(sizes),), dtype=jnp.float32), np.cumsum(sizes)[:-1])
    layers = [(x[: -n[-1]].reshape(n), x[-n[-1] :]) for x, n in zip(numbers, shapes, strict=True)]
    if orthogonal:
        layers = [(_orthogonal(weight), jnp.zeros_like(bias)) for weight, bias in layers]
    else:
        limits = [1 / math.sqrt(math.prod(shape[:-1])) for shape in shapes]
        layers = [(limit * weight, limit * bias) for limit, (weight, bias) in zip(limits, layers, strict=True)]
    *hidden, (weight, bias) = layers
    if orthogonal:
        hidden = [(math.sqrt(2) * weight, bias) for weight, bias in hidden]
    gain = jnp.broadcast_to(jnp.asarray(gain, jnp.float32), (bias.size - (recipe.head == "dueling"),))
    if recipe.head == "dueling":
        gain = jnp.concatenate([gain.mean(keepdims=True), gain])  # V comes first
    weights, biases = zip(*hidden, (weight.T * gain[:, None], bias * gain), strict=True)
    return weights, biases


def _orthogonal(normal: jax.Array) -> jax.Array:
    """Numbers [..., inputs, outputs] of a normal distribution to a uniformly random orthogonal matrix (gain 1).

    By Gram-Schmidt, each vector taken twice against those before it, which is enough (Giraud et al., 2005). LAPACK's
    QR factorisation is avoided: on CPUs, jaxlib's waits for the very threads that it runs on, and may do so for ever.
    """
    matrix = normal.reshape(-1, normal.shape[-1])
    wide = matrix.shape[0] < matrix.shape[1]
    vectors = matrix if wide else matrix.T

    def against_those_before(i, found):
        vector = vectors[i]
        for _ in range(2):
            vector = vector - (found @ vector) @ found
        return found.at[i].set(vector / jnp.linalg.norm(vector))

    found = lax.fori_loop(0, len(vectors), against_those_before, jnp.zeros_like(vectors))
    return (found if wide else found.T).reshape(normal.shape)


def _check_whole(owner: str, name: str, values: Any) -> None:
    if not isinstance(values, tuple) or not all(type(value) is int and value > 0 for value in values):
        raise SettingError(
            f"{owner}: {name} must be a tuple of whole numbers above 0 such as (64, 64), got {shown(values)}"
        )
    if len(values) > MAX_LAYERS or max(values, default=0) > MAX_UNITS:
        most = f"at most {MAX_LAYERS} layers of at most {MAX_UNITS:,}"
        raise SettingError(f"{owner}: {name} may be {most}, got {len(values):,} of at most {max(values):,}")


NETWORKS: dict[str, type[Network]] = {"MLP": MLP, "CNN": CNN}
