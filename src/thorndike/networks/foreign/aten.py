"""The operators of core ATen in JAX: what remains of any PyTorch module once it is exported and decomposed.

A name stands for all its overloads unless one of them has an entry of its own. Arguments are those of ATen's schemas.
Results may be of another dtype than PyTorch's: whoever calls them casts. Gradients are PyTorch's where the two differ
by convention: at bounds, at ties and at norms of 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thorndike.networks.foreign import aten_layers as layers

# One number at a time


def add(x, y, alpha=1):
    return x + (y if alpha == 1 else alpha * y)


def sub(x, y, alpha=1):
    return x - (y if alpha == 1 else alpha * y)


def div(x, y, rounding_mode=None):
    if rounding_mode == "floor":
        return jnp.floor_divide(x, y)
    if rounding_mode == "trunc":
        return jnp.trunc(x / y) if jnp.issubdtype(x.dtype, jnp.floating) else (x - jnp.fmod(x, y)) // y
    return x / y


def power(x, y):
    if isinstance(y, float) and y.is_integer():
        y = int(y)  # a power by whole numbers has derivatives at 0 and below
    return jnp.power(x, y)


def clamp(x, low=None, high=None):
    """At a bound the gradient still passes, as in PyTorch; with `jnp.clip` half of it does."""
    x = x if low is None else jnp.where(x < low, low, x)
    return x if high is None else jnp.where(x > high, high, x)


def hardtanh(x, low=-1.0, high=1.0):
    """At a bound the gradient is 0, other than that of `clamp`."""
    return jnp.where(x <= low, low, jnp.where(x >= high, high, x))


def elu(x, alpha=1.0, scale=1.0, input_scale=1.0):
    return scale * jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x) * input_scale))


ELEMENTWISE: dict[str, Callable] = {
    "abs": jnp.abs, "acos": jnp.acos, "acosh": jnp.acosh, "asin": jnp.asin, "asinh": jnp.asinh, "atan": jnp.atan,
    "atanh": jnp.atanh, "atan2": jnp.atan2, "ceil": jnp.ceil, "cos": jnp.cos, "cosh": jnp.cosh, "erf": lax.erf,
    "exp": jnp.exp, "exp2": jnp.exp2, "expm1": jnp.expm1, "floor": jnp.floor, "fmod": jnp.fmod, "log": jnp.log,
    "log10": jnp.log10, "log1p": jnp.log1p, "log2": jnp.log2, "maximum": jnp.maximum, "minimum": jnp.minimum,
    "mul": jnp.multiply, "neg": jnp.negative, "reciprocal": lambda x: 1 / x, "remainder": jnp.remainder,
    "rsqrt": lax.rsqrt,
    "round": lambda x, decimals=0: jnp.round(x, decimals), "sigmoid": jax.nn.sigmoid, "sign": jnp.sign,
    "sin": jnp.sin, "sinh": jnp.sinh, "sqrt": jnp.sqrt, "tan": jnp.tan, "tanh": jnp.tanh, "trunc": jnp.trunc,
    "add": add, "sub": sub, "div": div, "pow": power, "clamp": clamp, "hardtanh": hardtanh, "elu": elu,
    "relu": jax.nn.relu, "gelu": lambda x, approximate="none": jax.nn.gelu(x, approximate == "tanh"),
    "leaky_relu": lambda x, slope=0.01: jnp.where(x > 0, x, slope * x),
    "eq": jnp.equal, "ne": jnp.not_equal, "lt": jnp.less, "le": jnp.less_equal, "gt": jnp.greater,
    "ge": jnp.greater_equal, "isinf": jnp.isinf, "isnan": jnp.isnan, "where": jnp.where,
    "logical_and": jnp.logical_and, "logical_not": jnp.logical_not, "logical_or": jnp.logical_or,
    "logical_xor": jnp.logical_xor, "bitwise_and": jnp.bitwise_and, "bitwise_not": jnp.bitwise_not,
    "bitwise_or": jnp.bitwise_or, "bitwise_xor": jnp.bitwise_xor,
}  # fmt: skip

# These have the dtype of their result from the start: a sum of bytes is one of wide integers.
CAST_FIRST = {"add", "sub", "mul", "div", "pow", "fmod", "remainder", "atan2", "maximum", "minimum", "sum", "mean",
              "prod", "cumsum"}  # fmt: skip


# Over axes


def _axes(dim: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    """PyTorch's way to name axes, where none are all of them."""
    return dim if isinstance(dim, int) else tuple(dim or ()) or None


def _reduction(function: Callable) -> Callable:
    return lambda x, dim=None, keepdim=False: function(x, axis=_axes(dim), keepdims=keepdim)


def _best(where: Callable) -> Callable:
    """The best along an axis and where it stands: the gradient goes there."""

    def best(x, dim, keepdim=False):
        index = where(x, axis=dim, keepdims=True)
        value = jnp.take_along_axis(x, index, dim)
        return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))

    return best


def var(x, dim=None, correction=1, keepdim=False):
    return jnp.var(x, _axes(dim), ddof=1 if correction is None else correction, keepdims=keepdim)


def var_mean(x, dim=None, correction=1, keepdim=False):
    return var(x, dim, correction, keepdim), jnp.mean(x, _axes(dim), keepdims=keepdim)


def vector_norm(x, ord=2, dim=None, keepdim=False):
    axes, size = _axes(dim), jnp.abs(x)
    if ord == math.inf:
        return jnp.max(size, axes, keepdims=keepdim)
    if ord == -math.inf:
        return jnp.min(size, axes, keepdims=keepdim)
    if ord == 0:
        return jnp.sum(size != 0, axes, keepdims=keepdim)
    if ord == 1:
        return jnp.sum(size, axes, keepdims=keepdim)
    total = jnp.sum(power(size, float(ord)), axes, keepdims=keepdim)
    return jnp.where(total > 0, jnp.power(jnp.where(total > 0, total, 1), 1 / ord), 0)


def sort(x, dim=-1, descending=False, stable=None):
    index = jnp.argsort(x, dim, descending=descending, stable=True)
    return jnp.take_along_axis(x, index, dim), index


def topk(x, k, dim=-1, largest=True, sorted=True):
    return tuple(lax.slice_in_dim(y, 0, k, axis=dim) for y in sort(x, dim, descending=largest))


REDUCTIONS: dict[str, Callable] = {
    "sum": _reduction(jnp.sum), "mean": _reduction(jnp.mean), "prod": _reduction(jnp.prod), "any": _reduction(jnp.any),
    "amax": _reduction(jnp.max), "amin": _reduction(jnp.min), "argmax": _reduction(jnp.argmax),
    "argmin": _reduction(jnp.argmin), "max": jnp.max, "max.dim": _best(jnp.argmax), "min": jnp.min,
    "min.dim": _best(jnp.argmin), "var": var, "var_mean": var_mean, "linalg_vector_norm": vector_norm,
    "cumsum": jnp.cumsum, "sort": sort, "topk": topk, "_softmax": lambda x, dim, half_to_float: jax.nn.softmax(x, dim),
    "_log_softmax": lambda x, dim, half_to_float: jax.nn.log_softmax(x, dim),
}  # fmt: skip


# Shapes and places


def _at(x: jax.Array, dim: int, index: Any) -> tuple:
    """What to index `x` with to reach one index, or slice, of an axis."""
    return (slice(None),) * (dim % x.ndim) + (index,)


def _along(index: jax.Array, dim: int) -> tuple:
    """What to index an array with, where `index` holds the places along one axis and its own are those of the rest."""
    places = list(jnp.meshgrid(*map(jnp.arange, index.shape), indexing="ij", sparse=True))
    places[dim] = index
    return tuple(places)


def _indices(indices: Sequence[jax.Array | None]) -> tuple:
    return tuple(slice(None) if index is None else index for index in indices)


def expand(x, size, implicit=False):
    missing = len(size) - x.ndim
    return jnp.broadcast_to(x, [x.shape[i - missing] if n == -1 else n for i, n in enumerate(size)])


def pad(x, pad, value=0.0):
    """`pad` holds how much before and after each axis, the last axis first."""
    around = [(before, after, 0) for before, after in zip(pad[::2], pad[1::2], strict=True)][::-1]
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0)] * (x.ndim - len(around)) + around)


def split(x, sizes, dim=0):
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [lax.slice_in_dim(x, end - size, end, axis=dim) for size, end in zip(sizes, ends, strict=True)]


def unfold(x, dim, size, step):
    """Windows of an axis, as a last axis."""
    places = np.arange(0, x.shape[dim] - size + 1, step)[:, None] + np.arange(size)
    return jnp.moveaxis(jnp.take(x, places, dim), dim % x.ndim + 1, -1)


def slice_scatter(x, source, dim=0, start=None, end=None, step=1):
    return x.at[_at(x, dim, slice(start, end, step))].set(source)


def scatter(x, dim, index, source):
    return x.at[_along(index, dim)].set(source[tuple(map(slice, index.shape))])


def scatter_add(x, dim, index, source):
    return x.at[_along(index, dim)].add(source[tuple(map(slice, index.shape))])


def index_put(x, indices, values, accumulate=False):
    if indices[0] is not None and indices[0].dtype == bool and values.ndim == 0:  # x[mask] = number
        mask = jnp.expand_dims(indices[0], tuple(range(indices[0].ndim, x.ndim)))
        return jnp.where(mask, x + values if accumulate else values, x)
    places = x.at[_indices(indices)]
    return places.add(values) if accumulate else places.set(values)


def embedding(weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    if scale_grad_by_freq:
        raise NotImplementedError("Embedding with scale_grad_by_freq has gradients of its own: leave it out")
    rows = weight[indices]
    if padding_idx < 0:
        return rows
    return jnp.where((indices == padding_idx)[..., None], lax.stop_gradient(rows), rows)  # that row does not train


SHAPES: dict[str, Callable] = {
    "view": lambda x, size: x.reshape(size), "permute": lambda x, dims: jnp.transpose(x, dims), "expand": expand,
    "squeeze": lambda x, dims: jnp.squeeze(x, tuple(dims)), "unsqueeze": jnp.expand_dims, "cat": jnp.concatenate,
    "split_with_sizes": split, "constant_pad_nd": pad, "repeat": jnp.tile, "unfold": unfold,
    "flip": lambda x, dims: jnp.flip(x, tuple(dims)),
    "slice": lambda x, dim=0, start=None, end=None, step=1: x[_at(x, dim, slice(start, end, step))],
    "select": lambda x, dim, index: lax.index_in_dim(x, index, dim, keepdims=False),
    "index_select": lambda x, dim, index: jnp.take(x, index, dim),
    "gather": lambda x, dim, index, sparse_grad=False: x[_along(index, dim)],
    "index": lambda x, indices: x[_indices(indices)], "index_put": index_put, "embedding": embedding,
    "diagonal": lambda x, offset=0, dim1=0, dim2=1: jnp.diagonal(x, offset, dim1, dim2),
    "slice_scatter": slice_scatter, "scatter.src": scatter, "scatter_add": scatter_add,
    "scatter.value": lambda x, dim, index, value: x.at[_along(index, dim)].set(value),
    "sym_size": lambda x, dim: x.shape[dim],
}  # fmt: skip


# New arrays, and copies

NEW: dict[str, Callable] = {
    "full": jnp.full, "full_like": lambda x, value: jnp.full(x.shape, value), "empty": jnp.zeros,
    "empty_permuted": lambda size, layout: jnp.zeros(size), "scalar_tensor": jnp.asarray, "arange": jnp.arange,
    "copy": lambda x, source, non_blocking=False: jnp.broadcast_to(source, x.shape), "clone": lambda x: x,
    "_to_copy": lambda x: x,
}  # fmt: skip

OPERATORS = ELEMENTWISE | REDUCTIONS | SHAPES | NEW | layers.OPERATORS
