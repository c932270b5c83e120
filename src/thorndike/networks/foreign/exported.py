"""A PyTorch module as a function of JAX: `torch.export` makes a graph of core ATen of it, which JAX walks.

The only file that imports torch when it is imported itself, which is done where such a module is given.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax
from torch.export import Dim, ExportedProgram, ShapesCollection, export
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import tree_unflatten

from thorndike.networks.foreign.aten import CAST_FIRST, OPERATORS


class CannotTrain(Exception):
    """Why a module cannot be a function of its parameters and the observation alone, and what to do: two sentences."""


ONE_FUNCTION = (
    "Acting and learning must see one function: leave the layer out, or call .eval() on the module, and it stays as it "
    "is then"
)
PREPARED = ("dtype", "layout", "device", "pin_memory", "memory_format")  # arguments that the dtype of a result says
CHECKS = ("_assert", "sym_constrain")  # of what was known before
SYMBOLS = {"sym_max": max, "sym_min": min, "sym_float": float, "sym_int": int, "sym_not": lambda x: not x}


class Exported:
    """A module's graph for inputs of certain shapes, of any batch size: a pure function of arrays."""

    def __init__(self, module: torch.nn.Module, example: tuple) -> None:
        """`module` is on the CPU; `example` the arguments that it takes, pytrees of tensors of at least two copies."""
        program = _exported(module, example)
        self.graph_module = program.graph_module
        _refuse_unknown(self.graph_module.graph)
        _settle_squeezes(self.graph_module.graph)
        self.inputs = _inputs(program, module)
        self.outputs = program.call_spec.out_spec

    def __call__(self, parameters: tuple, *inputs_of_module: Any) -> Any:
        """What the module makes of inputs [B, ...]; the parameters are in the order of `trained`."""
        leaves = map(jnp.asarray, jax.tree.leaves(inputs_of_module))
        inputs = [
            next(leaves) if what is None else parameters[what] if isinstance(what, int) else what
            for what in self.inputs
        ]
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return tree_unflatten(Walk(self.graph_module).run(*inputs, enable_io_processing=False), self.outputs)


class Walk(torch.fx.Interpreter):
    """One walk through a graph; what it finds on the way is its own, so that several threads may trace one graph."""

    extra_traceback = False  # an error's message stays its own

    def run_node(self, n: torch.fx.Node) -> Any:
        """What a node makes, in the dtype that it has in PyTorch, narrowed where JAX knows no 64 bits."""
        dtype = getattr(n.meta.get("val"), "dtype", None)
        dtype = None if dtype is None else dtype_of(dtype)
        if n.op != "call_function":
            result = super().run_node(n)
        elif _name(n).startswith(CHECKS):
            return None
        else:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            kwargs = {name: value for name, value in kwargs.items() if name not in PREPARED}
            if _name(n) in CAST_FIRST:
                args = tuple(x.astype(dtype) if isinstance(x, jax.Array) else x for x in args)
            result = _function(n)(*args, **kwargs)
        return result if dtype is None else jnp.asarray(result, dtype)


def check_gradients(outputs: torch.Tensor) -> None:
    """Refuse outputs whose gradients reach no parameter, or pass through what says itself how they do."""
    if not outputs.requires_grad:
        raise CannotTrain("no gradient reaches its parameters. Look for no_grad, detach and requires_grad")
    seen, left = set(), [outputs.grad_fn]
    while left:
        step = left.pop()
        if step is None or step in seen:
            continue
        if isinstance(step, torch.autograd.function.BackwardCFunction):
            name = type(step).__name__.removesuffix("Backward")
            raise CannotTrain(f"{name} has a gradient of its own, which is not exported. Use x + (y - x).detach()")
        seen.add(step)
        left += [source for source, _ in step.next_functions]


def trained(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that train, each under its first name."""
    return {name: x for name, x in module.named_parameters() if x.requires_grad}


def dtype_of(dtype: torch.dtype) -> np.dtype:
    return jax.dtypes.canonicalize_dtype(str(dtype).removeprefix("torch."))


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor on any device as a copy of its own; NumPy has no bfloat16, JAX has."""
    tensor = tensor.detach().cpu()
    wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return np.array(wide.numpy(), dtype_of(tensor.dtype))


def sample(module: torch.nn.Module, inputs: Any) -> Any:
    """Three of each input as the module would meet them: zeros, whole numbers of 32 bits as the 64 that indices have.

    Floats are float64 for a module that is.
    """
    doubles = all(x.dtype == torch.float64 for x in module.parameters() if x.is_floating_point())

    def zeros(x):
        dtype = {np.dtype(np.int32): np.int64, np.dtype(np.float32): np.float64 if doubles else np.float32}
        return torch.from_numpy(np.zeros((3, *x.shape[1:]), dtype.get(x.dtype, x.dtype)))

    return jax.tree.map(zeros, inputs)


def to_tensor(array: Any) -> torch.Tensor:
    array = np.array(array)
    return torch.from_numpy(array.astype(np.float32) if array.dtype == jnp.bfloat16 else array)


def _exported(module: torch.nn.Module, example: tuple) -> ExportedProgram:
    """The module's graph, its batch size being left open, in core ATen that changes nothing in place."""
    shapes = ShapesCollection()
    for tensor in jax.tree.leaves(example):
        shapes[tensor] = {0: Dim.DYNAMIC}
    with _quiet():
        try:
            program = export(module, example, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            raise CannotTrain(_why_not(error)) from error
        _refuse_what_training_changes(program.graph_module)
        _keep_stopped_gradients(program.graph_module)
        program = program.run_decompositions()
    outputs = program.graph_signature.output_specs
    if changed := [str(output.target) for output in outputs if output.kind is not OutputKind.USER_OUTPUT]:
        layers = [_described(name.rpartition(".")[0], module) for name in changed]
        raise CannotTrain(f"it changes while training: {', '.join(dict.fromkeys(layers))}. {ONE_FUNCTION}")
    return program


def _inputs(program: ExportedProgram, module: torch.nn.Module) -> list[int | np.ndarray | None]:
    """What the graph is given, in order: None for a part of the observation, a parameter's place, or a constant."""
    places = {id(parameter): place for place, parameter in enumerate(trained(module).values())}
    named = dict(module.named_parameters(remove_duplicate=False))  # of tied ones all names
    inputs: list[int | np.ndarray | None] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            inputs.append(None)
        elif id(named.get(spec.target)) in places:
            inputs.append(places[id(named[spec.target])])
        else:
            constants = program.state_dict if spec.target in program.state_dict else program.constants
            inputs.append(to_array(constants[spec.target]))
    return inputs


# What a graph holds


def _name(node: torch.fx.Node) -> str:
    """An operator's name in ATen, without its overload; another function's own."""
    target: Any = node.target
    return target._schema.name.split("::")[1] if _is_operator(node) else getattr(target, "__name__", str(target))


def _is_operator(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload)


def _function(node: torch.fx.Node) -> Any:
    """What computes a node in JAX; None for what nobody knows."""
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return None
    if node.target is _stop_gradient():
        return lax.stop_gradient
    if not _is_operator(node):  # Python's own, on sizes
        return SYMBOLS.get(_name(node), node.target)
    overload = f"{_name(node)}.{node.target._overloadname}"
    return OPERATORS.get(overload, OPERATORS.get(_name(node)))


def _refuse_unknown(graph: torch.fx.Graph) -> None:
    for node in graph.nodes:
        if node.op == "call_function" and not _name(node).startswith(CHECKS) and _function(node) is None:
            raise CannotTrain(
                f"thorndike does not know the operator {_name(node)} of {_layer(node)}. Write it otherwise"
            )
        if _name(node) == "index" and any(x is not None and x.meta["val"].dtype == torch.bool for x in node.args[1]):
            raise CannotTrain(f"{_layer(node)} picks by a mask, so that a shape depends on values. Use torch.where")


def _refuse_what_training_changes(module: torch.fx.GraphModule) -> None:
    """Before decomposing, which turns BatchNorm into what InstanceNorm is, and forgets the dropout of LSTM and GRU."""
    parts = [part for part in module.modules() if isinstance(part, torch.fx.GraphModule)]
    operators = [node for part in parts for node in part.graph.nodes if _is_operator(node)]
    if layers := [_layer(node) for node in operators if _name(node) == "batch_norm" and _arguments(node)["training"]]:
        raise CannotTrain(f"it sees the whole batch and changes while training: {', '.join(layers)}. {ONE_FUNCTION}")
    if layers := [_layer(node) for node in operators if _draws(node)]:
        raise CannotTrain(f"it draws random numbers: {', '.join(dict.fromkeys(layers))}. {ONE_FUNCTION}")


def _draws(node: torch.fx.Node) -> bool:
    """Whether an operator draws random numbers as it is called here: dropout may be off, or between layers of one."""
    if torch.Tag.nondeterministic_seeded not in node.target.tags:
        return False
    given = _arguments(node)
    share = next((given[name] for name in ("p", "dropout", "dropout_p") if name in given), 1.0)
    training = given.get("train", given.get("training", True))
    return bool(share) and training is not False and given.get("num_layers") != 1


def _arguments(node: torch.fx.Node) -> dict[str, Any]:
    """An operator's arguments by name, its defaults included."""
    schema = node.target._schema.arguments
    defaults = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    return defaults | dict(zip([argument.name for argument in schema], node.args, strict=False)) | node.kwargs


def _settle_squeezes(graph: torch.fx.Graph) -> None:
    """Name the axes that PyTorch took away: a batch of one observation keeps its axis, as every other batch does."""
    for node in graph.nodes:
        if _name(node) == "squeeze":
            shape = node.args[0].meta["val"].shape
            dims = node.args[1] if len(node.args) > 1 else range(len(shape))
            dims = [dims] if isinstance(dims, int) else dims
            node.args = (node.args[0], [dim for dim in dims if isinstance(shape[dim], int) and shape[dim] == 1])


def _keep_stopped_gradients(module: torch.fx.GraphModule) -> None:
    """Put an operator of our own where gradients stop: decomposing forgets both detach and no_grad."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "get_attr" and isinstance(
            within := getattr(module, str(node.target), None), torch.fx.GraphModule
        ):
            _keep_stopped_gradients(within)
        if _name(node) in ("detach", "detach_"):
            if _is_written_to(node):
                raise CannotTrain(f"{_layer(node)} changes in place what was detached. Write it without, as in x * 2")
            node.target = _stop_gradient()
        if _name(node) == "wrap_with_set_grad_enabled" and node.args[0] is False:
            for result in list(node.users):
                with graph.inserting_after(result):
                    stopped = graph.call_function(_stop_gradient(), (result,))
                stopped.meta |= result.meta
                result.replace_all_uses_with(stopped, lambda user, stopped=stopped: user is not stopped)
    module.recompile()


def _is_written_to(node: torch.fx.Node) -> bool:
    """Whether a tensor, or a view of it, is changed in place, which the tensor that it was detached from would see."""
    for user in filter(_is_operator, node.users):
        for argument, value in zip(user.target._schema.arguments, user.args, strict=False):
            if value is node and argument.alias_info and (argument.alias_info.is_write or _is_written_to(user)):
                return True
    return False


def _stop_gradient() -> Any:
    if not hasattr(torch.ops.thorndike, "stop_gradient"):

        @torch.library.custom_op("thorndike::stop_gradient", mutates_args=(), schema="(Tensor x) -> Tensor")
        def stop_gradient(x):
            return x.clone()

        @stop_gradient.register_fake
        def _(x):
            return torch.empty_like(x)

    return torch.ops.thorndike.stop_gradient.default


# What is said of it


def _layer(node: torch.fx.Node) -> str:
    """The layer that a node comes from, such as "1 (Dropout)"."""
    path, kind = [*(node.meta.get("nn_module_stack") or {"": ("", "forward")}).values()][-1]
    kind = (kind if isinstance(kind, str) else kind.__qualname__).rpartition(".")[2]
    return f"{path} ({kind})" if path else kind


def _described(path: str, module: torch.nn.Module) -> str:
    kind = type(module.get_submodule(path)).__name__
    return f"{path} ({kind})" if path else kind


def _why_not(error: Exception) -> str:
    """What PyTorch's exporter means, for those that write modules."""
    said = f"{type(error).__name__}: {error}"
    if "ScriptModule" in said:
        return "it is a ScriptModule. Give the module that it was made from"
    if "DataDependent" in said or "data-dependent" in said or "Cannot call numpy" in said or ".item()" in said:
        return "it decides by the values of an observation, or takes them out of PyTorch. Use torch.where and tensors"
    if "Constraints violated" in said or "specialized" in said:
        return "it fixes the size of the batch. Write -1 or x.shape[0] for it, as in x.view(-1, 8)"
    return f"torch.export fails with {said.strip().splitlines()[0]}. Try torch.export.export on it"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What PyTorch warns of, logs and prints while it exports: the error says it, or it has no meaning here."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
