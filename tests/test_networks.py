"""Networks: features of any space, initialisation, what the modules compute, and what JAX may rely on."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import random

import thorndike as td
from thorndike.errors import SettingError, UnsuitableError
from thorndike.hyperparameters import from_json, to_json
from thorndike.networks import (
    ACTIVATIONS,
    CNN,
    MLP,
    NETWORKS,
    ConvolutionalPerceptron,
    Network,
    Same,
    features,
    parts_of,
)
from thorndike.networks.foreign import ForeignModule
from thorndike.runs.configuration import hyperparameter_classes

VECTOR = spaces.Box(-1, 1, (4,), np.float32)
IMAGE = spaces.Box(0, 255, (12, 10, 3), np.uint8)
SMALL_CNN = CNN(channels=(4, 5), kernels=(3, 2), strides=(2, 1), sizes=(7,))
MIXED = spaces.Dict(
    where=spaces.Box(-1, 1, (2,), np.float32),
    camera=IMAGE,
    kind=spaces.Discrete(3, start=-1),
    pair=spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2))),
)
BATCH = 3


def make(recipe, space, outputs=2, gain=1.0, seed=0):
    """A network as users get it, compiled as a whole."""
    return jax.jit(lambda key: recipe.init(key, space, outputs, gain))(random.key(seed))


def filled(recipe, space, outputs=2, seed=0):
    """A network of random weights, biases too, that costs no compiling."""
    draw = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: recipe.init(key, space, outputs), random.key(0))
    return jax.tree.map(lambda x: draw.normal(0, 0.3, x.shape).astype(np.float32), shapes)


def call(net, batch, axis=None):
    """What a network makes of a batch; with `axis=0`, what each of several does."""
    several = (lambda net: net(batch)) if axis is None else jax.vmap(lambda net: net(batch))
    return np.asarray(jax.jit(several)(net))


def batch_of(space, n=BATCH, seed=0):
    """`n` observations of a space, stacked; dictionaries become plain ones."""
    space.seed(seed)
    samples = [space.sample() for _ in range(n)]
    return stack(space, samples)


def stack(space, samples):
    if isinstance(space, spaces.Dict):
        return {name: stack(space[name], [sample[name] for sample in samples]) for name in space.spaces}
    if isinstance(space, spaces.Tuple):
        return tuple(stack(child, [sample[i] for sample in samples]) for i, child in enumerate(space.spaces))
    return np.stack(samples)


# Features


def flattened(space, x):
    """The definition, number by number, of one observation."""
    if isinstance(space, spaces.Dict):
        return [v for name in sorted(space.spaces) if name != "action_mask" for v in flattened(space[name], x[name])]
    if isinstance(space, spaces.Tuple):
        return [v for child, y in zip(space.spaces, x, strict=True) for v in flattened(child, y)]
    if isinstance(space, spaces.Discrete):
        return [float(int(x) == space.start + i) for i in range(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        choices = zip(space.nvec.ravel(), space.start.ravel(), np.ravel(x), strict=True)
        return [float(int(value) == start + i) for n, start, value in choices for i in range(n)]
    image = space.dtype == np.uint8 and len(space.shape) in (3, 4)
    return [float(value) / (255 if image else 1) for value in np.asarray(x).ravel()]


shapes = st.lists(st.integers(1, 3), max_size=4).map(tuple)
leaves = st.one_of(
    shapes.map(lambda shape: spaces.Box(-2, 2, shape, np.float32)),
    shapes.map(lambda shape: spaces.Box(0, 255, shape, np.uint8)),
    shapes.map(lambda shape: spaces.Box(-9, 9, shape, np.int32)),
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 4), st.integers(-3, 3)),
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(spaces.MultiDiscrete),
    st.just(spaces.MultiDiscrete([[2, 3], [1, 4]], start=[[5, -1], [0, 2]])),
    st.integers(1, 3).map(spaces.MultiBinary),
)
nested = st.recursive(
    leaves,
    lambda child: st.one_of(
        st.dictionaries(st.sampled_from(["b", "a", "Z", "aa"]), child, min_size=1).map(spaces.Dict),
        st.lists(child, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(nested, st.integers(0, 99))
def test_features_are_the_leaves_in_the_documented_order(space, seed):
    space.seed(seed)
    samples = [space.sample() for _ in range(2)]
    made = np.asarray(features(parts_of(space), stack(space, samples)))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, [flattened(space, sample) for sample in samples], rtol=1e-6)


def test_dictionary_keys_are_sorted_whatever_order_they_come_in():
    one = spaces.Dict(b=spaces.Box(0, 9, (1,), np.float32), a=spaces.Box(0, 9, (2,), np.float32))
    other = spaces.Dict([("a", one["a"]), ("b", one["b"])])
    x = {"b": np.array([[1.0]]), "a": np.array([[2.0, 3.0]])}
    assert parts_of(one) == parts_of(other)
    assert np.asarray(features(parts_of(one), x)).tolist() == [[2, 3, 1]]


def test_the_action_mask_is_no_feature():
    masked = spaces.Dict(action_mask=spaces.MultiBinary(2), position=VECTOR)
    plain = spaces.Dict(position=VECTOR)
    assert parts_of(masked) == parts_of(plain)
    assert filled(MLP((5,)), masked, 2).weights[0].shape == (4, 5)


@pytest.mark.parametrize("space", [spaces.Text(5), spaces.Sequence(VECTOR), spaces.Dict(a=spaces.Text(5))])
def test_spaces_without_a_fixed_size_are_refused_by_name(space):
    with pytest.raises(UnsuitableError, match=r"Text|Sequence"):
        make(MLP(), space, 2)


def test_an_observation_without_numbers_is_refused():
    for space in (spaces.Dict(action_mask=spaces.MultiBinary(2)), spaces.Box(0, 1, (0,))):
        with pytest.raises(UnsuitableError, match="nothing to see"):
            make(MLP(), space, 2)


def test_a_critic_of_actions_sees_the_action_before_the_observation():
    space = spaces.Dict(observation=VECTOR, action=spaces.Box(-1, 1, (2,), np.float32))
    critic = filled(MLP((8,)), space, 1)
    assert call(critic, {"observation": jnp.zeros((5, 4)), "action": jnp.ones((5, 2))}).shape == (5, 1)
    assert [part.path for part in critic.parts] == [("action",), ("observation",)]


# Layer normalisation


def layer_normalized(x, scale, offset):
    """The definition, unit by unit of every sample and place."""
    y = np.empty_like(x)
    for i in np.ndindex(x.shape[:-1]):
        y[i] = (x[i] - np.mean(x[i])) / np.sqrt(np.var(x[i]) + 1e-6) * scale + offset
    return y


def test_hidden_layers_are_normalised_before_their_activation():
    net = filled(MLP((6, 5), "tanh", layer_norm=True), VECTOR, 2)
    x = batch_of(VECTOR)
    expected = x.astype(np.float64)
    for weight, bias, norm in zip(net.weights[:-1], net.biases[:-1], net.norms, strict=True):
        expected = np.tanh(layer_normalized(expected @ weight + bias, *norm))
    np.testing.assert_allclose(call(net, x), expected @ net.weights[-1].T + net.biases[-1], rtol=1e-4, atol=1e-5)


def test_convolutions_are_normalised_over_their_channels_at_every_place():
    recipe = dataclasses.replace(SMALL_CNN, channels=(4,), kernels=(3,), strides=(2,), layer_norm=True)
    net, x = filled(recipe, IMAGE, 2), batch_of(IMAGE)
    kernel, bias = (np.asarray(y[0][0], np.float64) for y in (net.kernels, net.kernel_biases))
    seen = np.zeros((BATCH, 5, 4, 4))
    for i, row, column in np.ndindex(seen.shape[:3]):
        patch = x[i, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3] / 255
        seen[i, row, column] = np.einsum("abc,abcd->d", patch, kernel) + bias
    seen = np.maximum(layer_normalized(seen, *net.kernel_norms[0][0]), 0).reshape(BATCH, -1)
    hidden = np.maximum(layer_normalized(seen @ net.weights[0] + net.biases[0], *net.norms[0]), 0)
    np.testing.assert_allclose(call(net, x), hidden @ net.weights[-1].T + net.biases[-1], rtol=1e-3, atol=1e-4)


def test_norms_begin_as_ones_and_zeros_and_are_none_unless_asked_for():
    net = make(dataclasses.replace(SMALL_CNN, layer_norm=True), IMAGE)
    for scale, offset in (*net.norms, *net.kernel_norms[0]):
        assert (np.asarray(scale) == 1).all()
        assert not np.any(offset)
    assert [len(scale) for scale, _ in net.kernel_norms[0]] == [4, 5]
    assert not jax.tree.leaves((make(SMALL_CNN, IMAGE).norms, make(SMALL_CNN, IMAGE).kernel_norms))


# Initialisation


@pytest.mark.parametrize("gain", [0.01, 1.0])
def test_orthogonal_weights_have_their_gains_and_no_biases(gain):
    net = make(MLP((64, 32)), VECTOR, 3, gain)
    first, second, last = (np.asarray(weight, np.float64) for weight in net.weights)
    np.testing.assert_allclose(first @ first.T, 2 * np.eye(4), atol=1e-5)
    np.testing.assert_allclose(second.T @ second, 2 * np.eye(32), atol=1e-5)
    np.testing.assert_allclose(last @ last.T, gain**2 * np.eye(3), atol=1e-5 * gain**2)
    assert all(not np.any(bias) for bias in net.biases)


def test_orthogonal_kernels_are_orthogonal_over_all_their_inputs():
    net = make(SMALL_CNN, IMAGE, 2)
    for kernel in net.kernels[0]:
        flat = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
        np.testing.assert_allclose(flat.T @ flat, 2 * np.eye(kernel.shape[-1]), atol=1e-5)


@pytest.mark.parametrize("initialization", ["orthogonal", "default"])
def test_a_gain_for_each_output_scales_that_output_alone(initialization):
    recipe = MLP((64,), initialization=initialization)
    gains = np.array([0.01, 0.01, 1.0])
    one, scaled = (make(recipe, VECTOR, 3, gain, seed=2) for gain in (1.0, gains))
    np.testing.assert_allclose(scaled.weights[-1], one.weights[-1] * gains[:, None], rtol=1e-6)
    np.testing.assert_allclose(scaled.biases[-1], one.biases[-1] * gains, rtol=1e-6)
    np.testing.assert_array_equal(scaled.weights[0], one.weights[0])


def test_default_layers_are_uniform_within_one_over_the_root_of_their_inputs():
    net = make(MLP((200, 100), initialization="default"), VECTOR, 50)
    for weight, bias, inputs in zip(net.weights, net.biases, (4, 200, 100), strict=True):
        limit = inputs**-0.5
        for x in (np.asarray(weight), np.asarray(bias)):
            assert 0.9 * limit < np.abs(x).max() <= limit
            assert abs(x.std() * np.sqrt(3) / limit - 1) < 0.2
            assert abs(x.mean()) < 0.2 * limit
    recipe, image = CNN((32,), (8,), (4,), (), initialization="default"), spaces.Box(0, 255, (8, 8, 4), np.uint8)
    kernel = make(recipe, image).kernels[0][0]
    assert 0.95 / 16 < np.abs(kernel).max() <= 1 / 16  # 8 x 8 x 4 inputs


def test_layers_and_keys_give_different_weights():
    keys = random.split(random.key(0), 2)
    net, other = jax.jit(lambda keys: [MLP((6, 6, 6)).init(key, VECTOR, 6) for key in keys])(keys)
    assert not np.allclose(net.weights[1], net.weights[2])
    assert not np.allclose(net.weights[0], other.weights[0])


# What the modules compute

NUMPY = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}


def dense(net, x):
    """The definition in float64, from features on."""
    weights = [np.asarray(weight, np.float64) for weight in net.weights]
    for weight, bias in zip(weights[:-1], net.biases[:-1], strict=True):
        x = NUMPY[net.activation](x @ weight + np.asarray(bias))
    return x @ weights[-1].T + np.asarray(net.biases[-1])


def convolved(net, image, i):
    """The definition in float64: every output of every position of one image [height, width, channels]."""
    x = image / 255
    for kernel, bias, stride in zip(net.kernels[i], net.kernel_biases[i], net.strides, strict=True):
        side = kernel.shape[0]
        rows, columns = ((length - side) // stride + 1 for length in x.shape[:2])
        y = np.zeros((rows, columns, kernel.shape[-1]))
        for r in range(rows):
            for c in range(columns):
                patch = x[r * stride : r * stride + side, c * stride : c * stride + side]
                y[r, c] = np.tensordot(patch, np.asarray(kernel, np.float64), 3) + np.asarray(bias)
        x = NUMPY[net.activation](y)
    return x.ravel()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_is_its_definition(activation):
    net = filled(MLP((9, 8), activation=activation), VECTOR, 3)
    x = batch_of(VECTOR)
    np.testing.assert_allclose(call(net, x), dense(net, x), atol=1e-5)


def test_mlp_without_sizes_is_linear():
    net = filled(MLP(()), VECTOR, 3)
    x = batch_of(VECTOR)
    np.testing.assert_allclose(call(net, x), x @ net.weights[0].T + net.biases[0], atol=1e-6)


def test_cnn_is_its_definition_and_joins_the_other_features_in_order():
    net = filled(CNN((4, 5), (3, 2), (2, 1), (7,)), MIXED, 2)
    batch = batch_of(MIXED)
    rows = []
    for i in range(BATCH):
        one = jax.tree.map(lambda x, i=i: x[i], batch)
        rest = spaces.Dict({name: space for name, space in MIXED.spaces.items() if name != "camera"})
        rows.append([*convolved(net, one["camera"], 0), *flattened(rest, one)])  # "camera" sorts first
    np.testing.assert_allclose(call(net, batch), dense(net, np.array(rows)), atol=1e-5)


def test_every_image_has_convolutions_of_its_own():
    pair = spaces.Tuple((IMAGE, spaces.Box(0, 255, (8, 8, 1), np.uint8)))
    net = filled(SMALL_CNN, pair, 2)
    batch = batch_of(pair)
    rows = [[*convolved(net, batch[0][i], 0), *convolved(net, batch[1][i], 1)] for i in range(BATCH)]
    np.testing.assert_allclose(call(net, batch), dense(net, np.array(rows)), atol=1e-5)


@pytest.mark.parametrize("recipe", [MLP((9,)), SMALL_CNN])
def test_bytes_of_an_image_are_divided_by_255_exactly_once(recipe):
    bytes_net = filled(recipe, IMAGE, 2)
    float_net = filled(recipe, spaces.Box(0, 1, IMAGE.shape, np.float32), 2)
    image = batch_of(IMAGE)
    np.testing.assert_allclose(call(bytes_net, image), call(float_net, np.float32(image) / 255), atol=1e-4)
    assert not np.allclose(call(bytes_net, image), call(float_net, np.float32(image)))


# Wide choices: rows of the first weight, looked up

WIDE_SPACES = {
    "alone": (MLP((9, 8)), spaces.Discrete(500, start=-3)),
    "alone and linear": (MLP(()), spaces.Discrete(500)),
    "several": (MLP((9,)), spaces.MultiDiscrete([[300, 2], [3, 400]], start=[[5, -1], [0, 2]])),
    "beside others": (
        MLP((9,)),
        spaces.Dict(a=VECTOR, b=spaces.Discrete(200), c=spaces.Discrete(3), d=spaces.MultiDiscrete([70, 70])),
    ),
    "beside an image": (SMALL_CNN, spaces.Tuple((spaces.Discrete(90), IMAGE, spaces.Discrete(80, start=7), VECTOR))),
}


@pytest.mark.parametrize(("recipe", "space"), WIDE_SPACES.values(), ids=WIDE_SPACES)
def test_looking_up_a_wide_choice_is_the_product_with_its_one_hot(monkeypatch, recipe, space):
    net, batch = filled(recipe, space, 2), batch_of(space, 16)
    target = random.normal(random.key(1), (16, 2))

    def outputs_and_gradient():
        of = jax.grad(lambda net: jnp.square(net(batch) - target).sum())
        return jax.jit(lambda net: (net(batch), of(net)))(net)

    looked_up = outputs_and_gradient()
    text = str(jax.make_jaxpr(lambda net: net(batch))(net))
    assert "gather" in text
    monkeypatch.setattr("thorndike.networks.observations.WIDE", 10**9)
    assert str(jax.make_jaxpr(lambda net: net(batch))(net)) != text
    multiplied = outputs_and_gradient()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), looked_up, multiplied)
    if isinstance(space, spaces.Discrete):
        np.testing.assert_array_equal(looked_up[0], multiplied[0])


def test_a_value_that_is_no_choice_picks_no_row():
    net = filled(MLP(()), spaces.MultiDiscrete([200, 300], start=[5, 0]), 2)
    values = np.array([[4, -1], [205, 300], [-(2**31), 2**31 - 1]], np.int32)
    np.testing.assert_array_equal(call(net, values), np.tile(net.biases[-1], (3, 1)))


def test_narrow_choices_are_multiplied():
    net, batch = filled(MLP((9,)), spaces.MultiDiscrete([3] * 100), 2), np.zeros((4, 100), np.int32)
    assert not any(part.is_wide for part in net.parts)  # a hundred rows each would cost more than the product
    assert not any(part.is_wide for part in filled(MLP((9,)), spaces.Discrete(64), 2).parts)
    assert call(net, batch).shape == (4, 2)


# Two RGB frames, (16, 16, 6), as they may come.
GIVEN = {
    "channels_last": lambda x: x,
    "channels_first": lambda x: x.transpose(0, 3, 1, 2),
    "a stack of channels_last": lambda x: x.reshape(-1, 16, 16, 2, 3).transpose(0, 3, 1, 2, 4),
    "a stack of channels_first": lambda x: x.reshape(-1, 16, 16, 2, 3).transpose(0, 3, 4, 1, 2),
}


@pytest.mark.parametrize("given", GIVEN)
def test_an_image_gives_the_same_wherever_its_channels_are(given):
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, 16, 16, 6), np.uint8)
    expected = call(filled(SMALL_CNN, spaces.Box(0, 255, batch.shape[1:], np.uint8)), batch)
    batch = GIVEN[given](batch)
    for layout in ("auto", given.removeprefix("a stack of ")):
        recipe = dataclasses.replace(SMALL_CNN, layout=layout)
        net = filled(recipe, spaces.Box(0, 255, batch.shape[1:], np.uint8))
        np.testing.assert_allclose(call(net, batch), expected, atol=1e-5)


def layout_of(shape, dtype=np.uint8):
    recipe = CNN((2,), (1,), (1,), ())
    [layout] = jax.eval_shape(lambda key: recipe.init(key, spaces.Box(0, 255, shape, dtype), 2), random.key(0)).layouts
    return layout


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        *[(shape, "channels_first") for shape in ((4, 84, 84), (12, 84, 84), (3, 7, 7), (3, 210, 160), (111, 8, 8))],
        *[(shape, "channels_last") for shape in ((84, 84, 4), (7, 7, 3), (210, 160, 3), (10, 10, 10), (5, 4, 26))],
        ((4, 84, 84, 3), "channels_last"),
        ((4, 1, 84, 84), "channels_first"),
    ],
)
def test_where_the_channels_are_is_told_from_the_shape(shape, layout):
    assert layout_of(shape) == layout


NVEC = np.broadcast_to(np.array([11, 6, 3]), (7, 7, 3))  # MiniGrid's: object, colour, state
GRIDS = {
    "minigrid": spaces.MultiDiscrete(NVEC),
    "with one number of choices": spaces.MultiDiscrete(np.full((5, 5, 2), 14)),
    "with a start": spaces.MultiDiscrete(NVEC, start=np.broadcast_to(np.array([-1, 4, 0]), (7, 7, 3))),
    "with other choices in a cell": spaces.MultiDiscrete(NVEC + np.eye(7, k=1, dtype=int)[..., None]),
    "wide": spaces.MultiDiscrete(np.full((6, 7, 2), 90)),
}


@pytest.mark.parametrize(
    ("kind", "layout"), [*[(kind, "channels_last") for kind in GRIDS], ("with a start", "channels_first")]
)
def test_a_grid_of_choices_is_convolved_as_planes_of_one_hots(kind, layout):
    """The planes are written out by hand, choice by choice, and convolved by the definition in float64."""
    space, axes = GRIDS[kind], (0, 1, 2) if layout == "channels_last" else (2, 0, 1)
    given = spaces.MultiDiscrete(space.nvec.transpose(axes), start=space.start.transpose(axes))
    net, grids = filled(dataclasses.replace(SMALL_CNN, layout=layout), given, 2), batch_of(given)
    rows = []
    for grid in np.asarray(grids).transpose(0, *(1 + np.argsort(axes))):
        planes = []
        for name in range(space.shape[2]):
            low, high = space.start[..., name].min(), (space.start + space.nvec)[..., name].max()
            planes += [grid[..., name] == value for value in range(low, high)]
        rows.append(convolved(net, 255.0 * np.stack(planes, -1), 0))
    np.testing.assert_allclose(call(net, grids), dense(net, np.array(rows)), atol=1e-5)
    gradient = jax.grad(lambda net: net(grids).sum())(net).kernels[0][0]
    assert np.isfinite(gradient).all()
    assert gradient.any()


def test_a_grid_has_convolutions_beside_all_else_and_an_mlp_sees_its_one_hots():
    space = spaces.Dict(image=GRIDS["minigrid"], direction=spaces.Discrete(4), wide=GRIDS["wide"])
    net = make(SMALL_CNN, space, 2)
    assert [kernels[0].shape for kernels in net.kernels] == [(3, 3, 20, 4), (3, 3, 180, 4)]
    assert call(net, batch_of(space)).shape == (BATCH, 2)
    assert make(MLP((5,)), GRIDS["minigrid"], 2).weights[0].shape == (49 * 20, 5)


def test_the_names_of_a_grid_are_where_their_choices_differ():
    for shape in ((7, 7, 3), (3, 7, 3), (2, 9, 9)):
        sizes = np.arange(2, 2 + shape[-1])
        last = spaces.MultiDiscrete(np.broadcast_to(sizes, shape))
        first = spaces.MultiDiscrete(np.broadcast_to(sizes[:, None, None], shape[::-1]))
        recipe = CNN((2,), (1,), (1,), ())
        assert make(recipe, last, 2).layouts == ("channels_last",)
        assert make(recipe, first, 2).layouts == ("channels_first",)


@pytest.mark.parametrize("space", [spaces.Box(0, 1, (10, 10, 4), np.bool_), spaces.MultiBinary((10, 10, 4))])
def test_planes_of_bits_are_taken_as_they_are(space):
    net, x = filled(SMALL_CNN, space, 2), batch_of(space)
    rows = [convolved(net, 255.0 * one, 0) for one in np.asarray(x)]
    np.testing.assert_allclose(call(net, x), dense(net, np.array(rows)), atol=1e-5)


@pytest.mark.parametrize(
    ("space", "notes", "doubts"),
    [
        (IMAGE, "", ""),
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), "(4, 84, 84) is read with its channels first", ""),
        (spaces.Box(-np.inf, np.inf, (9, 9, 4)), "", "(9, 9, 4) holds numbers without bounds"),
        (spaces.Box(0, 1, (2, 2, 4)), "", "(2, 2, 4) is 2 high and 2 wide"),
        (spaces.Dict(a=GRIDS["minigrid"], b=VECTOR), "", ""),
    ],
)
def test_where_channels_were_found_to_be_is_said_and_what_hardly_is_an_image(space, notes, doubts):
    remarks = CNN(channels=(2,), kernels=(2,), strides=(1,)).remarks(space)
    assert len(remarks.notes) == bool(notes)
    assert len(remarks.doubts) == bool(doubts)
    assert notes in " ".join(remarks.notes)
    assert doubts in " ".join(remarks.doubts)
    told = CNN(channels=(2,), kernels=(2,), strides=(1,), layout="channels_first").remarks(IMAGE)
    assert not told.notes


# What JAX may rely on

RECIPES = [MLP(), MLP(()), SMALL_CNN, CNN((4,), (3,), (1,), ())]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_structure_is_hashable_and_known_without_computing(recipe):
    def init(key):
        return recipe.init(key, MIXED, 2, jnp.array([0.01, 1.0]))

    real, shape = jax.jit(init)(random.key(0)), jax.eval_shape(init, random.key(0))
    assert jax.tree.structure(real) == jax.tree.structure(shape)
    assert hash(jax.tree.structure(real)) == hash(jax.tree.structure(jax.eval_shape(init, random.key(1))))
    assert [x.shape for x in jax.tree.leaves(real)] == [x.shape for x in jax.tree.leaves(shape)]
    assert all(x.dtype == jnp.float32 and not x.weak_type for x in jax.tree.leaves(shape))


def test_other_spaces_and_activations_are_other_structures():
    nets = [
        filled(MLP((8,)), spaces.Box(-1, 1, (2, 2), np.float32), 2),
        filled(MLP((8,)), VECTOR, 2),
        filled(MLP((8,)), spaces.Discrete(4), 2),
        filled(MLP((8,)), spaces.Discrete(4, start=1), 2),
        filled(MLP((8,), activation="relu"), VECTOR, 2),
    ]
    assert len({jax.tree.structure(net) for net in nets}) == len(nets)


def test_a_second_network_of_a_recipe_compiles_nothing():
    traces = []

    @jax.jit
    def count(net):
        traces.append(net)

    for seed in (0, 1):
        count(filled(MLP((8,)), VECTOR, seed=seed))
    assert len(traces) == 1


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_gradients_reach_every_leaf(recipe):
    net, batch = filled(recipe, MIXED, 2), batch_of(MIXED, 16)
    target = random.normal(random.key(1), (16, 2))
    gradient = jax.jit(jax.grad(lambda net: ((net(batch) - target) ** 2).mean()))(net)
    assert all(np.all(np.isfinite(x)) and np.any(np.asarray(x) != 0) for x in jax.tree.leaves(gradient))


def test_networks_side_by_side_are_the_networks_alone():
    x = batch_of(VECTOR)
    both = jax.jit(jax.vmap(lambda key: MLP((8,)).init(key, VECTOR, 1)))(random.split(random.key(0), 2))
    outputs = call(both, x, axis=0)
    alone = [call(jax.tree.map(lambda leaf, i=i: leaf[i], both), x) for i in range(2)]
    np.testing.assert_allclose(outputs, alone, atol=1e-5)
    assert not np.allclose(outputs[0], outputs[1])


# What a user may get wrong


@pytest.mark.parametrize(
    ("give", "says"),
    [
        (lambda: MLP(64), "sizes must be a tuple of whole numbers"),
        (lambda: MLP((64, 0)), "sizes must be a tuple of whole numbers"),
        (lambda: MLP((64.0,)), "sizes must be a tuple of whole numbers"),
        (lambda: MLP(activation="rleu"), "Did you mean 'relu'"),
        (lambda: MLP(initialization="defualt"), "Did you mean 'default'"),
        (lambda: CNN(channels=(4,)), "must be of one length, got 1, 3 and 3"),
        (lambda: CNN(strides=(4, 2, 0)), "strides must be a tuple of whole numbers"),
        (lambda: make(CNN(), spaces.Box(0, 255, (10, 10, 4), np.uint8), 2), "read as channels_last, is too small"),
        (
            lambda: make(CNN(), GRIDS["minigrid"], 2),
            r"such as CNN\(channels=\(16,\), kernels=\(3,\), strides=\(1,\), sizes",
        ),
        (lambda: make(CNN(), spaces.Box(0, 1, (2, 2, 4)), 2), r"kernels=\(2,\)"),
        (lambda: layout_of((4, 5, 5)), r'write CNN\(layout="channels_first"\) or'),
        (lambda: layout_of((4, 30, 6)), "cannot tell which axis"),
        (lambda: CNN(layout="NCHW"), "layout must be one of 'auto', 'channels_last', 'channels_first'"),
    ],
)
def test_settings_that_cannot_work_are_answered(give, says):
    with pytest.raises(SettingError, match=says):
        give()


def test_cnn_without_an_image_says_what_to_use():
    with pytest.raises(UnsuitableError, match="use MLP"):
        make(CNN(), VECTOR, 2)


def test_recipes_survive_json_by_name():
    for recipe in (MLP([32], activation="elu"), SMALL_CNN):
        assert from_json(to_json(recipe), NETWORKS) == recipe
        assert isinstance(recipe, Network)
        assert not jax.tree.leaves(recipe)


def test_importing_networks_imports_no_framework():
    code = "import sys, thorndike.networks.foreign; sys.exit(bool({'keras', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_of_lapack_stands_between_a_key_and_the_weights():
    """It waits for the threads that it runs on: two layers of 300 hung in most of the programs that made them."""
    critics = jax.vmap(lambda key: MLP((300, 300)).init(key, spaces.Box(-1, 1, (300,)), 2))
    text = jax.jit(critics).lower(jax.random.split(jax.random.key(0))).as_text()
    assert "lapack" not in text


# --- critics that follow the actor ------------------------------------------------------------------------------------

WITH_CRITIC = {
    "ppo": (td.PPO, lambda state: state.parameters.critic),
    "reinforce": (td.REINFORCE, lambda state: state.parameters.baseline),
    "sac": (td.SAC, lambda state: state.critics),
    "td3": (td.TD3, lambda state: state.critics),
    "ddpg": (td.DDPG, lambda state: state.critics),
}


def critic_of(name, space, **fields):
    cls, critic = WITH_CRITIC[name]
    actions = spaces.Box(-1, 1, (2,), np.float32)
    return critic(jax.eval_shape(lambda key: cls(**fields).init(key, space, actions), random.key(0)))


@pytest.mark.parametrize("name", WITH_CRITIC)
def test_a_critic_is_made_like_the_actor_unless_given(name):
    """It was an MLP over raw pixels beside an actor with convolutions."""
    field = "baseline_network" if name == "reinforce" else "critic_network"
    assert type(critic_of(name, IMAGE, network=SMALL_CNN)) is ConvolutionalPerceptron
    assert critic_of(name, VECTOR, network=MLP((5, 6))).weights[0].shape[-1] == 5
    assert critic_of(name, VECTOR, network=MLP((5, 6)), **{field: MLP((7,))}).weights[0].shape[-1] == 7
    pair = (lambda key, x, outputs: jnp.zeros((x.shape[1], outputs)), lambda w, x: x @ w)
    assert isinstance(critic_of(name, VECTOR, network=pair), ForeignModule)


@pytest.mark.parametrize("name", WITH_CRITIC)
def test_a_network_with_fixed_outputs_cannot_be_followed(name):
    """The default recipe takes its place for numbers; what sees images is for the user to say."""
    outputs = 4 if name == "sac" else 2
    module = eqx.nn.MLP(4, outputs, 3, 1, key=random.key(0))
    assert critic_of(name, VECTOR, network=module).weights[0].shape[-1] == WITH_CRITIC[name][0].network.sizes[0]
    field = "baseline_network" if name == "reinforce" else "critic_network"
    flat = eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(360, outputs, key=random.key(0))])
    with pytest.raises(SettingError, match=rf"such as {field}=CNN\(\)"):
        critic_of(name, IMAGE, network=flat)


def test_an_actor_cannot_follow_itself():
    with pytest.raises(SettingError, match="give the actor's network itself"):
        critic_of("ppo", VECTOR, network=Same())


def test_following_is_recorded_and_a_given_critics_weights_are_data():
    algorithm = td.PPO()
    assert from_json(json.loads(json.dumps(to_json(algorithm))), hyperparameter_classes()) == algorithm
    before = to_json(algorithm) | {"critic_network": to_json(MLP((64, 64)))}  # as recorded before there was Same
    assert from_json(before, hyperparameter_classes()) == td.PPO(critic_network=MLP((64, 64)))
    module = eqx.nn.MLP(4, 1, 3, 1, key=random.key(0))
    leaves = {id(x) for x in jax.tree.leaves(td.PPO(critic_network=module))}
    assert {id(x) for x in jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array))} <= leaves
