"""PyTorch modules as networks: what JAX makes of them is what PyTorch makes, outputs and gradients, or they are refused."""

from __future__ import annotations

import copy
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium import spaces
from torch_cases import CASES

from thorndike.errors import SettingError
from thorndike.foreign import prepare, recipe_of
from thorndike.foreign.aten import OPERATORS
from thorndike.foreign.exported import sample, trained
from thorndike.foreign.torch import TorchSource

BATCHES = (1, 3, 128)


def source_of(make, observation):
    torch.manual_seed(0)
    source = TorchSource(make())
    source.parameters(None, None, jax.tree.map(lambda x: np.zeros((1, *x.shape[1:]), x.dtype), observation), 0)
    return source


def tensors(observation):
    """As JAX's tests give them, in the dtypes that PyTorch's users have."""
    return jax.tree.map(lambda x: torch.from_numpy(x.astype(np.int64) if x.dtype == np.int32 else x), observation)


TAKEN = [name for name, case in CASES.items() if not case.refused]
REFUSED = [name for name, case in CASES.items() if case.refused]


@pytest.mark.parametrize("name", TAKEN)
def test_a_module_makes_what_it_makes_in_pytorch_and_has_its_gradients(name):
    case = CASES[name]
    source = source_of(case.make, case.observe(3))
    parameters = source.weights()
    module = copy.deepcopy(source.module)
    double = next(iter(jax.tree.leaves(sample(module, {"x": np.zeros((1, 1), np.float32)})))).dtype == torch.float64
    call = jax.jit(source.apply)
    for batch in BATCHES:
        observation = case.observe(batch)
        given = tensors(observation)
        with torch.no_grad():
            right = module(given.double() if double else given).float().numpy()
        np.testing.assert_allclose(call(parameters, observation), right, rtol=case.tolerance, atol=case.tolerance)
    observation = case.observe(3)
    given = jax.tree.map(lambda x: x.double() if double and x.is_floating_point() else x, tensors(observation))
    inputs = [x.requires_grad_() for x in jax.tree.leaves(given) if x.is_floating_point()]
    outputs = module(given)
    weight = np.cos(np.arange(outputs.numel(), dtype=np.float32)).reshape(outputs.shape)
    wanted = torch.autograd.grad(
        (torch.sin(outputs) * torch.from_numpy(weight)).sum(), [*trained(getattr(module, "_orig_mod", module)).values(), *inputs],
        allow_unused=True,
    )

    leaves, structure = jax.tree.flatten(observation)
    floats = [i for i, x in enumerate(leaves) if x.dtype == np.float32]

    def loss(parameters, values):
        whole = [values[floats.index(i)] if i in floats else x for i, x in enumerate(leaves)]
        outputs = source.apply(parameters, jax.tree.unflatten(structure, whole))
        return (jnp.sin(outputs) * weight).sum().astype(jnp.float32)

    found = jax.tree.leaves(jax.jit(jax.grad(loss, (0, 1)))(parameters, [leaves[i] for i in floats]))
    for ours, theirs in zip(found, wanted, strict=True):
        theirs = np.zeros(ours.shape) if theirs is None else theirs.float().numpy()
        scale = max(1, np.abs(theirs).max())
        np.testing.assert_allclose(np.asarray(ours, np.float32) / scale, theirs / scale, atol=10 * case.tolerance)
