"""Convolutions that are quick inside a loop, as all of learning is.

There, XLA for CPUs runs its own some twenty times slower than alone. So on CPUs a convolution is one matrix product;
elsewhere it is XLA's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, jaxpr_as_fun
from jax.extend.core.primitives import closed_call_p, conv_general_dilated_p

Strides = tuple[int, int]


def convolution(
    images: jax.Array, kernel: jax.Array, strides: Strides, as_numbers: Callable[[jax.Array], jax.Array] | None = None
) -> jax.Array:
    """Images [B, height, width, channels] under a kernel [height, width, channels, outputs], without padding.

    Where images are bytes, `as_numbers` makes floats of them, element by element: bytes are quicker to put in order.
    """
    as_numbers = as_numbers or (lambda x: x)

    def by_xla(images, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(as_numbers(images), kernel, strides, "VALID", dimension_numbers=numbers)

    product = partial(_product, strides=strides, as_numbers=as_numbers)
    return lax.platform_dependent(images, kernel, cpu=product, default=by_xla)


def with_quick_convolutions(function: Callable) -> Callable:
    """The same function of trees of arrays, its convolutions being as quick: whatever network one brings.

    That is those of two dimensions without groups and dilations; others stay as they are.
    """

    def call(*arguments: Any) -> Any:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        outputs = jaxpr_as_fun(_quick(traced))(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return call


def _product(
    images: jax.Array, kernel: jax.Array, strides: Strides, as_numbers: Callable[[jax.Array], jax.Array] = lambda x: x
) -> jax.Array:
    """A convolution as one matrix product, of pixels or, where strides do not divide the kernel, of patches."""
    if strides != (1, 1) and kernel.shape[0] % strides[0] == 0 == kernel.shape[1] % strides[1]:
        images, kernel = _space_to_depth(images, kernel, strides)
        if images.dtype == jnp.uint8:
            images = lax.optimization_barrier(images)  # else XLA puts them in order once for each use, as floats
        return _of_pixels(as_numbers(images), kernel)
    return _of_patches(as_numbers(images), kernel, strides)


def _of_patches(images: jax.Array, kernel: jax.Array, strides: Strides) -> jax.Array:
    """Every patch that the kernel meets is a row: what it sees of each of its places is one slice of the images."""
    (height, width, _, outputs), (y, x) = kernel.shape, strides
    rows, columns = _places(images, kernel, strides)
    seen = [
        images[:, i : i + (rows - 1) * y + 1 : y, j : j + (columns - 1) * x + 1 : x]
        for i in range(height)
        for j in range(width)
    ]
    patches = jnp.concatenate(seen, axis=-1).reshape(images.shape[0] * rows * columns, -1)
    return (patches @ kernel.reshape(-1, outputs)).reshape(-1, rows, columns, outputs)


def _of_pixels(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution of stride 1 of images with many channels: every pixel is a row, and meets all of the kernel.

    What it gives to each place is then added up there, which is a slice of rows from another one on. So no patches are
    put together, of which every pixel would be in several; places beyond an edge are computed too, and left out.
    """
    batch, rows, columns, channels = images.shape
    height, width, _, outputs = kernel.shape
    pixels = _sums_of_pixels(images.reshape(-1, channels), kernel, columns)
    return pixels.reshape(batch, rows, columns, outputs)[:, : rows - height + 1, : columns - width + 1]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _sums_of_pixels(pixels: jax.Array, kernel: jax.Array, columns: int) -> jax.Array:
    """[P, outputs] of pixels [P, channels], in rows of so many columns; of the last ones, zeros."""
    count, after = pixels.shape[0], _after(kernel, columns)
    given = (pixels @ _flat(kernel)).reshape(count, len(after), -1)
    whole = count - after[-1]
    sums = sum(lax.slice_in_dim(given[:, i], n, n + whole) for i, n in enumerate(after))
    return jnp.pad(sums, ((0, after[-1]), (0, 0)))


def _sums_forward(pixels: jax.Array, kernel: jax.Array, columns: int) -> tuple:
    return _sums_of_pixels(pixels, kernel, columns), (pixels, kernel)


def _sums_backward(columns: int, kept: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Written out: what JAX derives from slices are sums over arrays of zeros."""
    pixels, kernel = kept
    count, after = pixels.shape[0], _after(kernel, columns)
    later = jnp.pad(gradient, ((after[-1], 0), (0, 0)))
    each = jnp.stack([lax.slice_in_dim(later, after[-1] - n, after[-1] - n + count) for n in after], axis=1)
    each = each.reshape(count, -1)
    height, width, channels, outputs = kernel.shape
    of_kernel = jnp.moveaxis((pixels.T @ each).reshape(channels, height, width, outputs), 0, 2)
    return each @ _flat(kernel).T, of_kernel


_sums_of_pixels.defvjp(_sums_forward, _sums_backward)


def _flat(kernel: jax.Array) -> jax.Array:
    """[channels, height * width * outputs]"""
    return jnp.moveaxis(kernel, 2, 0).reshape(kernel.shape[2], -1)


def _after(kernel: jax.Array, columns: int) -> list[int]:
    """How many pixels after the first of a patch each of its places is."""
    height, width = kernel.shape[:2]
    return [i * columns + j for i in range(height) for j in range(width)]


def _space_to_depth(images: jax.Array, kernel: jax.Array, strides: Strides) -> tuple[jax.Array, jax.Array]:
    """The same convolution with strides of 1, blocks of the strides' size becoming channels: it has fewer slices."""
    (height, width), (y, x), (rows, columns) = kernel.shape[:2], strides, _places(images, kernel, strides)
    images = images[:, : (rows - 1) * y + height, : (columns - 1) * x + width]  # the rest is never met

    def blocks(array):  # [..., height, width, channels]
        *first, height, width, channels = array.shape
        apart = array.reshape(*first, height // y, y, width // x, x, channels)
        return jnp.swapaxes(apart, -4, -3).reshape(*first, height // y, width // x, y * x * channels)

    return blocks(images), jnp.moveaxis(blocks(jnp.moveaxis(kernel, -1, 0)), 0, -1)


def _places(images: jax.Array, kernel: jax.Array, strides: Strides) -> tuple[int, int]:
    """How many rows and columns of places the kernel takes."""
    rows, columns = ((images.shape[i + 1] - kernel.shape[i]) // strides[i] + 1 for i in (0, 1))
    return rows, columns


def _quick(traced: ClosedJaxpr) -> ClosedJaxpr:
    """A traced program and all within it, every convolution replaced that can be."""
    return ClosedJaxpr(traced.jaxpr.replace(eqns=[*map(_quick_equation, traced.jaxpr.eqns)]), traced.consts)


def _quick_equation(equation: JaxprEqn) -> JaxprEqn:
    if equation.primitive is conv_general_dilated_p and _is_plain(equation):
        convolved = jax.make_jaxpr(partial(_convolved, equation))(*(x.aval for x in equation.invars))
        return equation.replace(primitive=closed_call_p, params={"call_jaxpr": convolved})
    within = {name: _quick(x) for name, x in equation.params.items() if isinstance(x, ClosedJaxpr)}
    return equation.replace(params=equation.params | within)


def _is_plain(equation: JaxprEqn) -> bool:
    """Whether a convolution is of two dimensions, without groups and dilations and in one dtype."""
    given = equation.params
    ones = (*given["lhs_dilation"], *given["rhs_dilation"], given["feature_group_count"], given["batch_group_count"])
    arrays: list[Any] = [x.aval for x in (*equation.invars, *equation.outvars)]
    return len(given["window_strides"]) == 2 and set(ones) == {1} and len({x.dtype for x in arrays}) == 1


def _convolved(equation: JaxprEqn, images: jax.Array, kernel: jax.Array) -> jax.Array:
    """What a plain convolution makes, with its own padding and order of axes."""
    given = equation.params
    numbers = given["dimension_numbers"]

    def product(images, kernel):
        (top, bottom), (left, right) = given["padding"]
        images = jnp.moveaxis(images, numbers.lhs_spec, (0, 3, 1, 2))
        images = lax.pad(
            images, jnp.zeros((), images.dtype), ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0))
        )
        kernel = jnp.moveaxis(kernel, numbers.rhs_spec, (3, 2, 0, 1))
        return jnp.moveaxis(_product(images, kernel, given["window_strides"]), (0, 3, 1, 2), numbers.out_spec)

    def by_xla(images, kernel):
        return equation.primitive.bind(images, kernel, **given)

    return lax.platform_dependent(images, kernel, cpu=product, default=by_xla)
