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


def convolution(images: jax.Array, kernel: jax.Array, strides: Strides) -> jax.Array:
    """Images [B, height, width, channels] under a kernel [height, width, channels, outputs], without padding."""

    def by_xla(images, kernel):
        return lax.conv_general_dilated(images, kernel, strides, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    return lax.platform_dependent(images, kernel, cpu=partial(_product, strides=strides), default=by_xla)


def with_quick_convolutions(function: Callable) -> Callable:
    """The same function of trees of arrays, its convolutions being as quick: whatever network one brings.

    That is those of two dimensions without groups and dilations; others stay as they are.
    """

    def call(*arguments: Any) -> Any:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        outputs = jaxpr_as_fun(_quick(traced))(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return call


def _product(images: jax.Array, kernel: jax.Array, strides: Strides) -> jax.Array:
    """Every patch that the kernel meets is a row: what it sees of each of its places is one slice of the images."""
    if kernel.shape[0] % strides[0] == 0 == kernel.shape[1] % strides[1]:
        images, kernel, strides = _space_to_depth(images, kernel, strides)
    (height, width, _, outputs), (y, x) = kernel.shape, strides
    rows, columns = _places(images, kernel, strides)
    seen = [
        images[:, i : i + (rows - 1) * y + 1 : y, j : j + (columns - 1) * x + 1 : x]
        for i in range(height)
        for j in range(width)
    ]
    patches = jnp.concatenate(seen, axis=-1).reshape(images.shape[0] * rows * columns, -1)
    return (patches @ kernel.reshape(-1, outputs)).reshape(-1, rows, columns, outputs)


def _space_to_depth(images: jax.Array, kernel: jax.Array, strides: Strides) -> tuple[jax.Array, jax.Array, Strides]:
    """The same convolution with strides of 1, blocks of the strides' size becoming channels: it has fewer slices."""
    (height, width), (y, x), (rows, columns) = kernel.shape[:2], strides, _places(images, kernel, strides)
    images = images[:, : (rows - 1) * y + height, : (columns - 1) * x + width]  # the rest is never met

    def blocks(array):  # [..., height, width, channels]
        *first, height, width, channels = array.shape
        apart = array.reshape(*first, height // y, y, width // x, x, channels)
        return jnp.swapaxes(apart, -4, -3).reshape(*first, height // y, width // x, y * x * channels)

    return blocks(images), jnp.moveaxis(blocks(jnp.moveaxis(kernel, -1, 0)), 0, -1), (1, 1)


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
