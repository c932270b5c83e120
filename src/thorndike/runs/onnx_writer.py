"""A function of JAX as an ONNX model, written from its traced program, operator by operator.

The tables at the end say how each primitive of JAX is written; what is computed of constants alone is computed here.
Shapes are static but for the batch, which every model takes in any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.lax import GatherScatterMode
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from thorndike.errors import UnsuitableError

OPSET, IR_VERSION = 18, 8  # of 2022: what today's runtimes read
BATCH = "batch"
MOST_BYTES = 2**31 - 2**20  # of a protocol buffer, which a model is
MOST_STEPS = 256  # of a loop, which is written out
END = 2**62  # for "to the end of the axis"

Value = str | np.ndarray  # what an array of the program is here: the name of a tensor, or a constant


def model(function: Callable, inputs: Mapping[str, jax.ShapeDtypeStruct], output: str) -> ModelProto:
    """The model of `function`, which takes a dict of batches and gives one array.

    `inputs` are shapes without the batch axis, by name. UnsuitableError names the primitive that cannot be written.
    """
    (batch,) = export.symbolic_shape(BATCH)
    named = dict(sorted(inputs.items()))  # as JAX orders them
    batches = {name: jax.ShapeDtypeStruct((batch, *x.shape), x.dtype) for name, x in named.items()}
    traced = jax.make_jaxpr(function)(batches)
    graph = Graph(batch, next(iter(named)))
    (result,) = graph.run(traced.jaxpr, traced.consts, list(named))
    graph.nodes.append(helper.make_node("Identity", [graph.name(result)], [output]))
    inside = helper.make_graph(
        graph.nodes, "policy", [*map(_described, named, traced.in_avals)], [_described(output, *traced.out_avals)],
        [*graph.initializers.values()],
    )  # fmt: skip
    if sum(len(x.raw_data) for x in graph.initializers.values()) > MOST_BYTES:
        raise UnsuitableError("ONNX files hold at most 2 GB, this policy has more: export it as .stablehlo")
    opset = [helper.make_opsetid("", OPSET)]
    made = helper.make_model(inside, opset_imports=opset, ir_version=IR_VERSION, producer_name="thorndike")
    checker.check_model(made, full_check=True)
    return made


def _described(name: str, aval: Any) -> Any:
    shape = [size if isinstance(size, int) else BATCH for size in aval.shape]
    return helper.make_tensor_value_info(name, _type(aval.dtype), shape)


def _type(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class Graph:
    """The nodes and constants of a model that is being written."""

    def __init__(self, batch: Any, batched: str) -> None:
        """`batch` is the symbolic size, `batched` an input whose first axis has it."""
        self.batch, self.batched = batch, batched
        self.nodes: list[Any] = []
        self.initializers: dict[Any, TensorProto] = {}

    def emit(self, operator: str, *values: Value, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node: the name of its output, or a list of them where there are several."""
        made = [f"{operator.lower()}:{len(self.nodes)}:{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, [*map(self.name, values)], made, **attributes))
        return made[0] if outputs == 1 else made

    def name(self, value: Value) -> str:
        """The name of a tensor; equal constants share one."""
        if isinstance(value, str):
            return value
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self.initializers:
            self.initializers[key] = numpy_helper.from_array(value, f"constant:{len(self.initializers)}")
        return self.initializers[key].name

    def size(self, size: Any) -> Value:
        """The length of an axis as int64[1]."""
        if isinstance(size, int):
            return _whole(size)
        times = size // self.batch
        if not isinstance(times, int) or times * self.batch != size:
            raise _unsuitable(f"a shape of {size}")
        length = self.emit("Shape", self.batched, start=0, end=1)
        return length if times == 1 else self.emit("Mul", length, _whole(times))

    def shape(self, shape: Sequence[Any]) -> Value:
        """A shape as int64[rank]."""
        if all(isinstance(size, int) for size in shape):
            return _whole(*shape)
        return self.emit("Concat", *map(self.size, shape), axis=0)

    def reshape(self, value: Value, shape: Sequence[Any]) -> Value:
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        if isinstance(value, np.ndarray) and -1 not in sizes:
            return value.reshape(sizes)
        simple = sizes.count(-1) <= 1 and 0 not in sizes
        return self.emit("Reshape", value, _whole(*sizes) if simple else self.shape(shape), allowzero=int(not simple))

    def expand(self, value: Value, shape: Sequence[Any]) -> Value:
        return self.emit("Expand", value, self.shape(shape))

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        if list(order) == sorted(order):
            return value
        if isinstance(value, np.ndarray):
            return np.ascontiguousarray(value.transpose(order))
        return self.emit("Transpose", value, perm=[*map(int, order)])

    def cast(self, value: Value, dtype: Any) -> Value:
        return value.astype(dtype) if isinstance(value, np.ndarray) else self.emit("Cast", value, to=_type(dtype))

    def slice(self, value: Value, axes: Sequence[int], starts: Any, ends: Any, steps: Any = None) -> Value:
        steps = [1] * len(axes) if steps is None else steps
        return self.emit("Slice", value, *(_whole(*x) for x in (starts, ends, axes, steps))) if len(axes) else value

    def run(self, program: Jaxpr, constants: Sequence[Any], values: Sequence[Value]) -> list[Value]:
        """Write what `program` computes of `values`: its results."""
        known: dict[Any, Value] = dict(zip(program.constvars, map(_constant, constants), strict=True))
        known |= dict(zip(program.invars, values, strict=True))

        def read(atom: Any) -> Value:
            return known[atom] if not isinstance(atom, Literal) else np.asarray(atom.val, atom.aval.dtype)  # type: ignore[attr-defined]

        for equation in _needed(program):
            results = self.write(equation, [*map(read, equation.invars)])
            known.update(zip(equation.outvars, results, strict=True))
        return [*map(read, program.outvars)]

    def write(self, equation: JaxprEqn, values: list[Value]) -> list[Value]:
        """Write one equation: its results."""
        name, given = equation.primitive.name, equation.params
        inner = next((given[key] for key in INNER if key in given), None) if name in CALLS else None
        if inner is not None:
            program, constants = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
            return self.run(program, constants, values)
        if name not in ALWAYS and _is_constant(equation, values):
            made = equation.primitive.bind(*map(jnp.asarray, values), **given)
            return [*map(_constant, made if equation.primitive.multiple_results else [made])]
        rule = RULES.get(name)
        if rule is None:
            raise _unsuitable(name)
        made = rule(self, equation, *values)
        return made if isinstance(made, list) else [made]


def _needed(program: Jaxpr) -> list[JaxprEqn]:
    """The equations that the results depend on."""
    wanted, needed = set(map(id, program.outvars)), []
    for equation in reversed(program.eqns):
        if any(id(variable) in wanted for variable in equation.outvars):
            wanted.update(map(id, equation.invars))
            needed.append(equation)
    return needed[::-1]


def _is_constant(equation: JaxprEqn, values: list[Value]) -> bool:
    """Whether an equation can be computed here and now."""
    results: list[Any] = [variable.aval for variable in equation.outvars]
    static = all(isinstance(size, int) for aval in results for size in aval.shape)
    return static and not any(isinstance(value, str) for value in values)


def _constant(array: Any) -> Any:
    """An array of NumPy's; a random key, which has none, as it is."""
    return array if jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended) else np.asarray(array)


def _unsuitable(what: str) -> UnsuitableError:
    return UnsuitableError(
        f"this policy cannot be an ONNX file: thorndike's writer has nothing for JAX's primitive {what}. "
        "Export it as .stablehlo, which takes all of JAX"
    )


def _whole(*numbers: Any) -> np.ndarray:
    return np.array(numbers, np.int64)


def _like(equation: JaxprEqn, number: float) -> np.ndarray:
    """A constant of the dtype of the first operand."""
    return np.array(number, equation.invars[0].aval.dtype)  # type: ignore[attr-defined]


def _shape(atom: Any) -> tuple:
    return atom.aval.shape


# Rules: each writes one kind of equation, from its operands, and gives its results.


def _same(operator: str, **attributes: Any) -> Callable:
    """One operator on the same operands."""
    return lambda graph, equation, *values: graph.emit(operator, *values, **attributes)


def _logical(operator: str) -> Callable:
    """An operator with one name for booleans and another for the bits of whole numbers."""

    def rule(graph, equation, *values):
        boolean = equation.invars[0].aval.dtype == bool
        return graph.emit(operator if boolean else f"Bitwise{operator}", *values)

    return rule


def _reduce(operator: str) -> Callable:
    def rule(graph, equation, x):
        axes = equation.params["axes"]  # of none, ONNX would make all
        return graph.emit(operator, x, _whole(*axes), keepdims=0) if axes else x

    return rule


def _reduce_logical(operator: str) -> Callable:
    def rule(graph, equation, x):
        return graph.cast(_reduce(operator)(graph, equation, graph.cast(x, np.int32)), bool)

    return rule


def _arg(operator: str) -> Callable:
    def rule(graph, equation, x):
        (axis,) = equation.params["axes"]
        return graph.cast(graph.emit(operator, x, axis=axis, keepdims=0), equation.params["index_dtype"])

    return rule


def _reshape(graph, equation, x, *_):
    return graph.reshape(x, _shape(equation.outvars[0]))


def _broadcast(graph, equation, x, *_):
    shape, axes = _shape(equation.outvars[0]), equation.params["broadcast_dimensions"]
    apart = [1] * len(shape)
    for axis, size in zip(axes, _shape(equation.invars[0]), strict=True):
        apart[axis] = size
    x = x if list(_shape(equation.invars[0])) == apart else graph.reshape(x, apart)
    return x if apart == list(shape) else graph.expand(x, shape)


def _select(graph, equation, which, *cases):
    if equation.invars[0].aval.dtype == bool:
        return graph.emit("Where", which, cases[1], cases[0])
    chosen = cases[-1]
    for i, case in reversed([*enumerate(cases[:-1])]):
        chosen = graph.emit("Where", graph.emit("Equal", which, _like(equation, i)), case, chosen)
    return chosen


def _slice(graph, equation, x):
    given, shape = equation.params, _shape(equation.invars[0])
    starts, ends = given["start_indices"], given["limit_indices"]
    steps = given["strides"] or [1] * len(shape)
    axes = [i for i, n in enumerate(shape) if starts[i] != 0 or ends[i] != n or steps[i] != 1]
    if any(not isinstance(ends[i], int) and ends[i] != shape[i] for i in axes):
        raise _unsuitable("slice of a part of the batch")
    limits = [ends[i] if isinstance(ends[i], int) else END for i in axes]
    return graph.slice(x, axes, [starts[i] for i in axes], limits, [steps[i] for i in axes])


def _dynamic_slice(graph, equation, x, *starts):
    shape, sizes = _shape(equation.invars[0]), equation.params["slice_sizes"]
    axes = [i for i, n in enumerate(shape) if sizes[i] != n]
    if not axes:
        return x
    places = [graph.reshape(graph.cast(starts[i], np.int64), (1,)) for i in axes]
    low, room = _whole(*([0] * len(axes))), _whole(*(shape[i] - sizes[i] for i in axes))
    first = graph.emit("Min", graph.emit("Max", graph.emit("Concat", *places, axis=0), low), room)
    last = graph.emit("Add", first, _whole(*(sizes[i] for i in axes)))
    return graph.emit("Slice", x, first, last, _whole(*axes))


def _pad(graph, equation, x, value):
    config = equation.params["padding_config"]
    if any(between for *_, between in config):
        raise _unsuitable("pad between elements")
    added = [max(side, 0) for side in (*(low for low, *_ in config), *(high for _, high, _ in config))]
    x = graph.emit("Pad", x, _whole(*added), value) if any(added) else x
    axes = [i for i, (low, high, _) in enumerate(config) if low < 0 or high < 0]
    return graph.slice(x, axes, [max(-config[i][0], 0) for i in axes], [min(config[i][1], 0) or END for i in axes])


def _reverse(graph, equation, x):
    axes = equation.params["dimensions"]
    return graph.slice(x, axes, [-1] * len(axes), [-END] * len(axes), [-1] * len(axes))


def _split(graph, equation, x):
    sizes = equation.params["sizes"]
    made = graph.emit("Split", x, _whole(*sizes), outputs=len(sizes), axis=equation.params["axis"])
    return made if len(sizes) > 1 else [made]


def _stack(graph, equation, *values):
    axis, shape = equation.params["axis"], [*_shape(equation.outvars[0])]
    shape[axis] = 1
    return graph.emit("Concat", *(graph.reshape(value, shape) for value in values), axis=axis)


def _iota(graph, equation):
    shape, axis, dtype = (equation.params[name] for name in ("shape", "dimension", "dtype"))
    end = graph.reshape(graph.size(shape[axis]), ())
    numbers = graph.cast(graph.emit("Range", _whole(0).reshape(()), end, _whole(1).reshape(())), dtype)
    return graph.expand(graph.reshape(numbers, [n if i == axis else 1 for i, n in enumerate(shape)]), shape)


def _round(graph, equation, x):
    if equation.params["rounding_method"] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        raise _unsuitable("round away from zero")
    return graph.emit("Round", x)


def _sort(graph, equation, *values):
    axis = equation.params["dimension"]
    if len(values) > 1:
        raise _unsuitable("sort of several arrays")
    length = graph.size(_shape(equation.invars[0])[axis])
    return graph.emit("TopK", values[0], length, outputs=2, axis=axis, largest=0)[:1]


def _top_k(graph, equation, x):
    axis = equation.params.get("axis", -1)
    values, places = graph.emit("TopK", x, _whole(equation.params["k"]), outputs=2, axis=axis)
    return [values, graph.cast(places, equation.outvars[1].aval.dtype)]


def _dot(graph, equation, a, b):
    (of_a, of_b), (batch_a, batch_b) = equation.params["dimension_numbers"]
    rank_a, rank_b = (len(_shape(atom)) for atom in equation.invars)
    if not batch_a and tuple(of_a) == (rank_a - 1,) and len(of_b) == 1 and rank_b == 2:
        made = graph.emit("MatMul", a, graph.transpose(b, (of_b[0], 1 - of_b[0])))
    else:
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        left, right = [""] * rank_a, [""] * rank_b
        for i, j in (*zip(batch_a, batch_b, strict=True), *zip(of_a, of_b, strict=True)):
            left[i] = right[j] = next(letters)
        left, right = ([letter or next(letters) for letter in side] for side in (left, right))
        kept = [left[i] for i in batch_a]
        kept += [letter for i, letter in enumerate(left) if i not in (*batch_a, *of_a)]
        kept += [letter for i, letter in enumerate(right) if i not in (*batch_b, *of_b)]
        made = graph.emit("Einsum", a, b, equation=f"{''.join(left)},{''.join(right)}->{''.join(kept)}")
    dtype = equation.outvars[0].aval.dtype
    return made if equation.invars[0].aval.dtype == dtype else graph.cast(made, dtype)


def _gather(graph, equation, x, places):
    """Slices of length 1 along the axes that are picked from, whole ones along the others."""
    given, shape = equation.params["dimension_numbers"], _shape(equation.invars[0])
    sizes, fills = equation.params["slice_sizes"], equation.params["mode"] == GatherScatterMode.FILL_OR_DROP
    if isinstance(places, np.ndarray) and places.ndim == 1:  # one slice, at a known place
        starts = dict(zip(given.start_index_map, places.tolist(), strict=True))
        axes = [i for i in starts if sizes[i] != shape[i]]
        if all(0 <= starts[i] <= shape[i] - sizes[i] for i in axes):
            ends = [starts[i] + sizes[i] for i in axes]
            x = graph.slice(x, axes, [starts[i] for i in axes], ends)
            return graph.reshape(x, _shape(equation.outvars[0]))
    batch = given.operand_batching_dims
    columns = [k for k, i in enumerate(given.start_index_map) if fills or sizes[i] != shape[i]]
    picked = [given.start_index_map[k] for k in columns]
    rest = [i for i in range(len(shape)) if i not in (*batch, *picked)]
    if any(sizes[i] != 1 for i in picked) or any(sizes[i] != shape[i] for i in rest):
        raise _unsuitable("gather of longer slices")
    rank = len(_shape(equation.invars[1])) - 1  # the last axis holds an index for each axis of the map
    others = [i for i in range(rank) if i not in given.start_indices_batching_dims]
    order = (*given.start_indices_batching_dims, *others)
    places = graph.transpose(graph.cast(places, np.int64), (*order, rank))
    if len(columns) < len(given.start_index_map):
        places = graph.emit("Gather", places, _whole(*columns), axis=rank)
    last = graph.emit("Sub", graph.shape([shape[i] for i in picked]), _whole(1))
    clipped = graph.emit("Min", graph.emit("Max", places, _whole(0)), last)
    made = graph.emit("GatherND", graph.transpose(x, (*batch, *picked, *rest)), clipped, batch_dims=len(batch))
    if fills:
        right = graph.cast(graph.emit("Equal", places, clipped), np.int32)
        inside = graph.cast(graph.emit("ReduceMin", right, _whole(-1), keepdims=0), bool)
        inside = graph.emit("Unsqueeze", inside, _whole(*range(-len(rest), 0))) if rest else inside
        made = graph.emit("Where", inside, made, _filling(equation))
    # It has the axes [*order, *rest]; the result's are others where a slice's length of 1 is kept, or dropped.
    kept = iter([i for i in range(len(shape)) if i not in (*batch, *given.collapsed_slice_dims)])
    before = iter(np.argsort(order).tolist())
    result = _shape(equation.outvars[0])
    axes = [next(kept) if i in given.offset_dims else ~next(before) for i in range(len(result))]
    found = [~i if i < 0 else rank + rest.index(i) for i in axes if i < 0 or i in rest]
    found += [i for i in range(rank + len(rest)) if i not in found]
    return graph.reshape(graph.transpose(made, found), result)


def _filling(equation: JaxprEqn) -> np.ndarray:
    """What a gather gives for a place that is none."""
    value, dtype = equation.params["fill_value"], equation.outvars[0].aval.dtype  # type: ignore[attr-defined]
    if value is None and jnp.issubdtype(dtype, jnp.inexact):
        value = math.nan
    elif value is None:
        value = jnp.iinfo(dtype).min if jnp.issubdtype(dtype, jnp.signedinteger) else jnp.iinfo(dtype).max
    return np.array(value, dtype)


def _convolution(graph, equation, images, kernel):
    given, axes = equation.params, equation.params["dimension_numbers"]
    if {*given["lhs_dilation"], given["batch_group_count"]} != {1}:
        raise _unsuitable("conv_general_dilated with its inputs dilated")
    if any(side < 0 for sides in given["padding"] for side in sides):
        raise _unsuitable("conv_general_dilated with negative padding")
    made = graph.emit(
        "Conv", graph.transpose(images, axes.lhs_spec), graph.transpose(kernel, axes.rhs_spec),
        strides=[*given["window_strides"]], dilations=[*given["rhs_dilation"]], group=given["feature_group_count"],
        pads=[low for low, _ in given["padding"]] + [high for _, high in given["padding"]],
    )  # fmt: skip
    return graph.transpose(made, np.argsort(axes.out_spec))


def _pool(graph, equation, x, operator="MaxPool", **attributes):
    """A window over any axes; those without one become the batch of an image with one channel."""
    given, shape = equation.params, _shape(equation.invars[0])
    if {*given["base_dilation"], *given["window_dilation"]} != {1}:
        raise _unsuitable(f"{equation.primitive.name} with dilations")
    sizes, strides, padding = given["window_dimensions"], given["window_strides"], given["padding"]
    seen = [i for i, size in enumerate(sizes) if (size, strides[i], *padding[i]) != (1, 1, 0, 0)]
    others = [i for i in range(len(shape)) if i not in seen]
    if not seen:
        return x
    images = (math.prod(shape[i] for i in others), 1, *(shape[i] for i in seen))
    flat = graph.reshape(graph.transpose(x, (*others, *seen)), images)
    made = graph.emit(
        operator, flat, kernel_shape=[sizes[i] for i in seen], strides=[strides[i] for i in seen],
        pads=[padding[i][0] for i in seen] + [padding[i][1] for i in seen], **attributes,
    )  # fmt: skip
    result = _shape(equation.outvars[0])
    return graph.transpose(graph.reshape(made, [result[i] for i in (*others, *seen)]), np.argsort((*others, *seen)))


def _pool_sum(graph, equation, x):
    count = math.prod(equation.params["window_dimensions"])
    return graph.emit("Mul", _pool(graph, equation, x, "AveragePool", count_include_pad=1), _like(equation, count))


def _pool_min(graph, equation, x):
    return graph.emit("Neg", _pool(graph, equation, graph.emit("Neg", x)))


def _cumsum(graph, equation, x):
    return graph.emit("CumSum", x, _whole(equation.params["axis"]), reverse=int(equation.params["reverse"]))


def _cond(graph, equation, which, *values):
    if isinstance(which, str):
        raise _unsuitable("cond")
    branches = equation.params["branches"]
    chosen = branches[min(max(int(which), 0), len(branches) - 1)]
    return graph.run(chosen.jaxpr, chosen.consts, values)


def _platform(graph, equation):
    """The program for no platform in particular."""
    return np.array(equation.params["platforms"].index(None), np.int32)


def _scan(graph, equation, *values):
    """A loop of known length, written out."""
    given = equation.params
    length, fixed, carried = given["length"], given["num_consts"], given["num_carry"]
    if not isinstance(length, int) or length > MOST_STEPS:
        raise _unsuitable(f"scan over {length} steps")
    constants, carry, sequences = values[:fixed], values[fixed : fixed + carried], values[fixed + carried :]
    rows: list[Any] = [None] * length
    for i in range(length)[:: -1 if given["reverse"] else 1]:
        now = [graph.emit("Gather", x, np.array(i, np.int64), axis=0) for x in sequences]
        results = graph.run(given["jaxpr"].jaxpr, given["jaxpr"].consts, [*constants, *carry, *now])
        carry, rows[i] = results[:carried], results[carried:]
    shapes = [(1, *_shape(variable)[1:]) for variable in equation.outvars[carried:]]
    columns = zip(*rows, strict=True)
    stacked = [[graph.reshape(x, shape) for x in column] for column, shape in zip(columns, shapes, strict=True)]
    return [*carry, *(graph.emit("Concat", *column, axis=0) for column in stacked)]


# The tables

INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # where a call keeps what it calls
CALLS = {
    "jit", "pjit", "call", "core_call", "closed_call", "checkpoint", "remat", "remat2", "custom_jvp_call",
    "custom_vjp_call", "custom_vjp_call_jaxpr",
}  # fmt: skip
ALWAYS = {"cond", "dim_as_value", "platform_index"}  # by their rule also where all is known

OPERATORS = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "add": "Add", "add_any": "Add", "add_jaxvals": "Add",
    "asin": "Asin", "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh", "ceil": "Ceil", "copy": "Identity",
    "copy_p": "Identity", "cos": "Cos", "cosh": "Cosh", "device_put": "Identity", "div": "Div", "eq": "Equal",
    "erf": "Erf", "exp": "Exp", "floor": "Floor", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual",
    "log": "Log", "logistic": "Sigmoid", "lt": "Less", "max": "Max", "min": "Min", "mul": "Mul", "name": "Identity",
    "neg": "Neg", "optimization_barrier": "Identity", "pow": "Pow", "sharding_constraint": "Identity", "sign": "Sign",
    "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "stop_gradient": "Identity", "sub": "Sub", "tan": "Tan",
    "tanh": "Tanh",
}  # fmt: skip

RULES: dict[str, Callable] = {name: _same(operator) for name, operator in OPERATORS.items()} | {
    "and": _logical("And"),
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "broadcast_in_dim": _broadcast,
    "clamp": lambda graph, equation, low, x, high: graph.emit("Min", graph.emit("Max", x, low), high),
    "concatenate": lambda graph, equation, *x: graph.emit("Concat", *x, axis=equation.params["dimension"]),
    "cond": _cond,
    "conv_general_dilated": _convolution,
    "convert_element_type": lambda graph, equation, x: graph.cast(x, equation.params["new_dtype"]),
    "cumsum": _cumsum,
    "dim_as_value": lambda graph, equation: graph.cast(
        graph.reshape(graph.size(equation.params["dim"]), ()), equation.outvars[0].aval.dtype
    ),
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "erfc": lambda graph, equation, x: graph.emit("Sub", _like(equation, 1), graph.emit("Erf", x)),
    "exp2": lambda graph, equation, x: graph.emit("Pow", _like(equation, 2), x),
    "expm1": lambda graph, equation, x: graph.emit("Sub", graph.emit("Exp", x), _like(equation, 1)),
    "gather": _gather,
    "integer_pow": lambda graph, equation, x: graph.emit("Pow", x, _like(equation, equation.params["y"])),
    "iota": _iota,
    "is_finite": lambda graph, equation, x: graph.emit("Equal", graph.emit("Sub", x, x), _like(equation, 0)),
    "log1p": lambda graph, equation, x: graph.emit("Log", graph.emit("Add", x, _like(equation, 1))),
    "ne": lambda graph, equation, *x: graph.emit("Not", graph.emit("Equal", *x)),
    "not": _logical("Not"),
    "or": _logical("Or"),
    "pad": _pad,
    "platform_index": _platform,
    "reduce_and": _reduce_logical("ReduceMin"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_or": _reduce_logical("ReduceMax"),
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_window_max": _pool,
    "reduce_window_min": _pool_min,
    "reduce_window_sum": _pool_sum,
    "rem": _same("Mod", fmod=1),
    "reshape": _reshape,
    "rev": _reverse,
    "round": _round,
    "rsqrt": lambda graph, equation, x: graph.emit("Reciprocal", graph.emit("Sqrt", x)),
    "scan": _scan,
    "select_n": _select,
    "slice": _slice,
    "sort": _sort,
    "split": _split,
    "square": lambda graph, equation, x: graph.emit("Mul", x, x),
    "squeeze": _reshape,
    "stack": _stack,
    "tile": lambda graph, equation, x: graph.emit("Tile", x, _whole(*equation.params["reps"])),
    "top_k": _top_k,
    "transpose": lambda graph, equation, x: graph.transpose(x, equation.params["permutation"]),
    "xor": _logical("Xor"),
}
