"""Convolutions: ours equal XLA's in outputs and gradients, alone, side by side and in loops, in users' networks too."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, random

from thorndike.networks.convolutions import convolution, with_quick_convolutions


def reference(images, kernel, strides):
    return lax.conv_general_dilated(images, kernel, strides, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def numbers(*shapes):
    draw = np.random.default_rng(0)
    return [draw.standard_normal(shape).astype(np.float32) for shape in shapes]


def outputs_and_gradients(convolve, images, kernel):
    """What comes out, and the gradients of a sum in which every output counts differently."""

    def total(images, kernel):
        outputs = convolve(images, kernel)
        return (outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)).sum(), outputs

    (_, outputs), gradients = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(images, kernel)
    return outputs, *gradients


def assert_equal(one, other):
    for x, y in zip(one, other, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5 * np.abs(y).max())


SHAPES = {
    "kernel twice the stride": ((8, 8), (4, 4)),
    "kernel the stride": ((4, 4), (4, 4)),
    "stride 1": ((3, 3), (1, 1)),
    "stride that does not divide": ((3, 3), (2, 2)),
    "neither square": ((4, 3), (2, 1)),
    "one side divides": ((4, 3), (2, 2)),
    "whole image": ((9, 8), (9, 8)),
    "stride beyond the kernel": ((2, 2), (3, 3)),
    "one point": ((1, 1), (2, 2)),
}


@pytest.mark.parametrize(("sides", "strides"), SHAPES.values(), ids=SHAPES)
def test_a_convolution_equals_xlas_in_outputs_and_gradients(sides, strides):
    images, kernel = numbers((2, 9, 8, 3), (*sides, 3, 4))
    ours, theirs = (
        outputs_and_gradients(partial(f, strides=strides), images, kernel) for f in (convolution, reference)
    )
    assert_equal(ours, theirs)


def test_bytes_become_numbers_after_they_were_put_in_order():
    _, kernel = numbers((1,), (4, 4, 3, 5))
    images = np.random.default_rng(1).integers(0, 256, (2, 12, 8, 3), np.uint8)

    def halves(x):
        return x.astype(jnp.float32) / 2

    ours = outputs_and_gradients(
        lambda x, kernel: x * convolution(images, kernel, (4, 2), halves), np.float32(2), kernel
    )
    right = outputs_and_gradients(
        lambda x, kernel: x * reference(halves(images), kernel, (4, 2)), np.float32(2), kernel
    )
    assert_equal(ours, right)


def several(f, images, kernel):
    """Two kernels side by side, as twin critics are, on the same images."""
    return jax.vmap(partial(f, images, strides=(2, 2)))(kernel)


def repeated(f, images, kernel):
    """A loop over minibatches, as learning is."""
    return lax.scan(lambda _, x: (None, f(x[None], kernel[0], (2, 2))), None, images)[1]


@pytest.mark.parametrize("usage", [several, repeated])
def test_a_convolution_equals_xlas_side_by_side_and_in_loops(usage):
    images, kernel = numbers((3, 9, 8, 2), (2, 4, 4, 2, 5))
    ours, theirs = partial(usage, convolution), partial(usage, reference)
    right = outputs_and_gradients(theirs, images, kernel)
    for function in (ours, with_quick_convolutions(theirs)):
        assert_equal(outputs_and_gradients(function, images, kernel), right)


def convolutions_in(f, *arguments):
    """How many XLA is given, of the program for this machine."""
    return jax.jit(f).lower(*arguments).as_text().count("stablehlo.convolution")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere they are XLA's")
def test_on_cpus_no_convolution_is_left_in_a_program():
    """XLA runs one in a loop some twenty times slower than alone."""
    images, kernel = numbers((2, 9, 8, 2), (4, 4, 2, 5))

    def gradient(f):
        return jax.grad(lambda kernel: f(images, kernel, (2, 2)).sum())

    assert convolutions_in(gradient(reference), kernel) == 1
    assert convolutions_in(gradient(convolution), kernel) == 0


# In a traced function of anyone's


ORDERS = [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("NHWC", "OIHW", "NCHW")]


def user_s(images, kernel, order=ORDERS[0], strides=(2, 1), **settings):
    """Something around the convolution, some of it compiled, and a derivative of its own (relu)."""
    axes = {"N": 3, "H": 10, "W": 9, "C": 4} | {"I": settings.pop("inputs", 4), "O": 6} | {"h": 4, "w": 3}
    images = images.reshape([axes[axis] for axis in order[0]])
    kernel = kernel.reshape([axes[axis.lower() if axis in "HW" else axis] for axis in order[1]])

    @jax.jit
    def layer(images):
        convolved = lax.conv_general_dilated(
            images, kernel, window_strides=strides, dimension_numbers=order, **{"padding": "SAME"} | settings
        )
        return jax.nn.relu(convolved + 0.1)

    return {"features": layer(jnp.tanh(images)), "images": images}["features"]


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        *[({"order": order}, 0) for order in ORDERS],
        ({"padding": ((2, 1), (0, 3))}, 0),
        ({"rhs_dilation": (2, 1)}, 1),
        ({"feature_group_count": 2, "inputs": 2}, 1),
    ],
    ids=str,
)
def test_a_traced_function_keeps_its_numbers_with_quick_convolutions(settings, left):
    images, kernel = numbers((3 * 10 * 9 * 4,), (4 * 3 * settings.get("inputs", 4) * 6,))
    function = partial(user_s, **settings)
    quick = with_quick_convolutions(function)
    assert_equal(outputs_and_gradients(quick, images, kernel), outputs_and_gradients(function, images, kernel))
    if jax.default_backend() == "cpu":
        assert convolutions_in(quick, images, kernel) == left


def test_a_function_without_convolutions_stays_the_program_it_was():
    def function(tree, x):
        return {"out": jax.nn.relu(x @ tree["w"]), "same": x}

    tree, x = {"w": jnp.ones((3, 2))}, jnp.ones((4, 3))
    assert str(jax.make_jaxpr(with_quick_convolutions(function))(tree, x)) == str(jax.make_jaxpr(function)(tree, x))
    assert with_quick_convolutions(function)(tree, x).keys() == {"out", "same"}


def test_quick_convolutions_work_side_by_side_with_randomness_and_without_compiling():
    images, kernel = numbers((2, 6, 6, 1), (2, 3, 3, 1, 4))

    def noisy(images, kernel, key):
        return reference(images, kernel, (1, 1)) * random.bernoulli(key, 0.5, (4,))[None, None, None]

    quick = with_quick_convolutions(noisy)
    together = jax.vmap(quick, (None, 0, None))(images, kernel, random.key(0))
    np.testing.assert_allclose(together, [noisy(images, one, random.key(0)) for one in kernel], atol=1e-5)
