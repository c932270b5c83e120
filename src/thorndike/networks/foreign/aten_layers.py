"""The operators of core ATen that are whole layers: products, convolutions, pooling, norms, resampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

# Products


def addmm(bias, x, y, beta=1, alpha=1):
    product = x @ y
    return (bias if beta == 1 else beta * bias) + (product if alpha == 1 else alpha * product)


def trilinear(a, b, c, expand_a, expand_b, expand_c, sum_dims, unroll_dim=1):
    a, b, c = (jnp.expand_dims(x, tuple(dims)) for x, dims in ((a, expand_a), (b, expand_b), (c, expand_c)))
    return (a * b * c).sum(tuple(sum_dims))


# Convolutions


def convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    """[B, channels, ...] under [outputs, channels / groups, ...], or [channels, outputs / groups, ...] transposed."""
    axes = weight.ndim - 2
    stride, padding, dilation, more = (_each(v, axes) for v in (stride, padding, dilation, output_padding))
    numbers = ("NC" + "HWD"[:axes], "OI" + "HWD"[:axes], "NC" + "HWD"[:axes])
    around, spread = [(p, p) for p in padding], [1] * axes
    if transposed:
        inputs, outputs = weight.shape[:2]
        weight = jnp.swapaxes(weight.reshape(groups, inputs // groups, outputs, *weight.shape[2:]), 1, 2)
        weight = jnp.flip(weight.reshape(-1, inputs // groups, *weight.shape[3:]), range(2, axes + 2))
        reach = [d * (size - 1) for d, size in zip(dilation, weight.shape[2:], strict=True)]
        around = [(r - p, r - p + m) for r, p, m in zip(reach, padding, more, strict=True)]
        stride, spread = spread, stride
    x = lax.conv_general_dilated(x, weight, stride, around, spread, dilation, numbers, feature_group_count=groups)
    return x if bias is None else x + _by_channel(bias, x)


def _each(value: Sequence[int], axes: int) -> list[int]:
    """One number for each axis, of which one may stand for all."""
    return [*value] * axes if len(value) == 1 else [*value]


def _by_channel(x: Any, like: Any) -> Any:
    """A vector as long as the channels, shaped to meet [B, channels, ...]."""
    return x.reshape(1, -1, *[1] * (like.ndim - 2))


# Pooling


def max_pool(x, kernel, stride=(), padding=(0,), dilation=(1,), ceil_mode=False):
    if max(dilation) > 1:
        raise NotImplementedError("JAX has no gradient of max pooling with dilation")
    return (_pooled(x, np.asarray(-np.inf, x.dtype), lax.max, *_windows(x, kernel, stride, padding, ceil_mode)),)


def avg_pool(x, kernel, stride=(), padding=(0,), ceil_mode=False, count_include_pad=True, divisor_override=None):
    """The mean of every window; what lies in the padding counts as 0 or not at all, what lies beyond it never does."""
    sizes, strides, around = _windows(x, kernel, stride, padding, ceil_mode)
    zero = np.zeros((), x.dtype)
    total = _pooled(x, zero, lax.add, sizes, strides, around)
    if divisor_override:
        return total / divisor_override
    counted = np.ones(x.shape[-len(sizes) :], x.dtype)
    if count_include_pad:
        edges = _each(padding, len(sizes))
        counted = np.pad(counted, [(p, p) for p in edges], constant_values=1)
        around = [(before - p, after - p) for (before, after), p in zip(around, edges, strict=True)]
    return total / _pooled(jnp.asarray(counted), zero, lax.add, sizes, strides, around)


def _windows(x, kernel, stride, padding, ceil_mode) -> tuple[list, list, list]:
    """Sizes, strides and edges of the windows over the last axes."""
    axes = len(kernel)
    stride, padding, around = _each(stride or kernel, axes), _each(padding, axes), []
    for size, k, s, p in zip(x.shape[-axes:], kernel, stride, padding, strict=True):
        more = 0
        if ceil_mode:  # one more window where it still begins within the image or its first edge
            count = -(-(size + 2 * p - k) // s) + 1
            count -= (count - 1) * s >= size + p
            more = max(0, (count - 1) * s + k - (size + 2 * p))
        around.append((p, p + more))
    return [*kernel], stride, around


def _pooled(x, start, function, sizes, strides, around):
    """`start` is NumPy's: JAX has to know its value to find a derivative."""
    rest = x.ndim - len(sizes)
    ones, none = [1] * rest, [(0, 0)] * rest
    return lax.reduce_window(x, start, function, ones + sizes, ones + strides, none + around)


def _adaptive(reduce: Callable) -> Callable:
    """Pooling to a size: every output has its own window, which may overlap its neighbours'."""

    def pool(x, output_size):
        for axis, outputs in enumerate(output_size, x.ndim - len(output_size)):
            size = x.shape[axis]
            bounds = [(i * size // outputs, -(-(i + 1) * size // outputs)) for i in range(outputs)]
            windows = [lax.slice_in_dim(x, start, end, axis=axis) for start, end in bounds]
            x = jnp.concatenate([reduce(window, axis, keepdims=True) for window in windows], axis)
        return x

    return pool


def adaptive_max_pool(x, output_size):
    return (_adaptive(jnp.max)(x, output_size),)


# Norms


def _normalized(x, axes, eps):
    return (x - x.mean(axes, keepdims=True)) * lax.rsqrt(x.var(axes, keepdims=True) + eps)


def layer_norm(x, shape, weight, bias, eps):
    y = _normalized(x, tuple(range(x.ndim - len(shape), x.ndim)), eps)
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias,)


def group_norm(x, weight, bias, batch, channels, pixels, groups, eps):
    y = _normalized(x.reshape(x.shape[0], groups, -1), 2, eps)
    return (_affine(y.reshape(x.shape), weight, bias),)


def batch_statistics_norm(x, weight, bias, training, momentum, eps):
    """What InstanceNorm becomes, all its instances being channels of one; BatchNorm in training is refused before."""
    return (_affine(_normalized(x, (0, *range(2, x.ndim)), eps), weight, bias),)


def batch_norm(x, weight, bias, mean, variance, momentum, eps):
    y = (x - _by_channel(mean, x)) * _by_channel(lax.rsqrt(variance + eps), x)
    return (_affine(y, weight, bias),)


def _affine(x, weight, bias):
    x = x if weight is None else x * _by_channel(weight, x)
    return x if bias is None else x + _by_channel(bias, x)


# Resampling


def upsample_nearest(x, output_size, scale_factors):
    for axis, (outputs, scale) in enumerate(_resampled(x, output_size, scale_factors), 2):
        x = jnp.take(x, np.minimum(np.floor(np.arange(outputs) * scale).astype(int), x.shape[axis] - 1), axis)
    return x


def upsample_bilinear(x, output_size, align_corners, scale_factors):
    for axis, (outputs, scale) in enumerate(_resampled(x, output_size, scale_factors), 2):
        last = x.shape[axis] - 1
        if align_corners:
            places = np.arange(outputs, dtype=np.float32) * np.float32(last / max(outputs - 1, 1))
        else:
            places = np.maximum((np.arange(outputs, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
        low = np.minimum(np.floor(places).astype(int), last)
        share = (places - low).astype(np.float32).reshape(-1, *[1] * (x.ndim - axis - 1)).astype(x.dtype)
        one, other = jnp.take(x, low, axis), jnp.take(x, np.minimum(low + 1, last), axis)
        x = one + share * (other - one)
    return x


def _resampled(x, output_size, scale_factors) -> list[tuple[int, Any]]:
    """Of each spatial axis how long it becomes, and how many old pixels a new one is."""
    if output_size is not None:
        return [(new, np.float32(old / new)) for new, old in zip(output_size, x.shape[2:], strict=True)]
    return [(math.floor(old * f), np.float32(1 / f)) for f, old in zip(scale_factors, x.shape[2:], strict=True)]


OPERATORS: dict[str, Callable] = {
    "mm": jnp.matmul, "bmm": jnp.matmul, "addmm": addmm, "_trilinear": trilinear, "convolution": convolution,
    "max_pool2d_with_indices": max_pool, "max_pool3d_with_indices": max_pool,
    "avg_pool2d": avg_pool, "avg_pool3d": avg_pool,
    "_adaptive_avg_pool2d": _adaptive(jnp.mean), "_adaptive_avg_pool3d": _adaptive(jnp.mean),
    "adaptive_max_pool2d": adaptive_max_pool, "adaptive_max_pool3d": adaptive_max_pool,
    "native_layer_norm": layer_norm, "native_group_norm": group_norm,
    "_native_batch_norm_legit": batch_statistics_norm, "_native_batch_norm_legit_no_training": batch_norm,
    "upsample_nearest2d": upsample_nearest, "upsample_bilinear2d": upsample_bilinear,
}  # fmt: skip
