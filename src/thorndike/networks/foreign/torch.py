"""PyTorch modules."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import jax
import jax.numpy as jnp

from thorndike.errors import SettingError
from thorndike.networks.foreign.carries import Given
from thorndike.networks.foreign.source import Source, called, seeded


class TorchSource(Source):
    """A torch.nn.Module, or a function that makes one, in the mode (training or not) in which it is handed over.

    It is given any observation as it is: a dictionary as its one argument, choices as int64, images as they come. A
    module starts every seed from its weights. A function is called once for each seed, and only the weights that train
    are taken: what it makes first is the structure of them all. With a memory, `forward(observation, carry)` gives
    (outputs, carry), and `initial_carry()` the zeros of one copy.
    """

    kind = "torch"
    takes_any_observation = True

    @staticmethod
    def takes(value: Any) -> bool:
        module = ("torch.nn.modules.module", "Module")
        return any((kind.__module__, kind.__name__) == module for kind in type(value).__mro__)

    def __init__(self, given: Any, function: Any = None) -> None:
        super().__init__(given, function)
        if any(parameter.is_meta for parameter in given.parameters()):
            raise SettingError(
                f"the PyTorch module {self.name} is on the meta device, without weights: make it elsewhere"
            )
        if any(getattr(parameter, "_backward_hooks", None) for parameter in given.parameters()):
            raise SettingError(
                f"the PyTorch module {self.name} has hooks on gradients, which would not run: remove them"
            )
        self.fixed_values = _fixed_values(given) if function is None else ""
        self.module: Any = None  # the structure: a module of its own, once an observation is known
        self.example: Any = None
        self.graphs: dict[Any, Any] = {}  # by the form of the observations

    @property
    def _identity(self) -> Any:  # what does not train is part of the program
        return super()._identity, self.fixed_values

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", type(_plain(self.given)).__name__)

    def weights(self, seed: int | None = None) -> Any:
        from thorndike.networks.foreign.exported import to_array, trained

        if self.module is None:
            return None
        module = self.module if seed is None else self._made(seed)
        return tuple(map(to_array, trained(_plain(module)).values()))

    def parameters(self, weights: Any, key: jax.Array, example: Any, outputs: int) -> Any:
        if self.module is None:
            self.example = example
            self.module = self._made(seed=0)
        weights = self.weights() if weights is None else weights
        return jax.tree.map(jnp.copy, weights)  # training donates its buffers

    def apply(self, parameters: Any, x: Any, *carry: Any) -> Any:
        leaves, structure = jax.tree.flatten(x)
        form = structure, *((leaf.shape[1:], leaf.dtype) for leaf in leaves)
        if form not in self.graphs:
            self.graphs[form] = self._exported(x, *carry)
        return self.graphs[form](parameters, x, *carry)

    def _given_memory(self) -> Given:
        return super()._given_memory()._replace(call=_plain(self.given).forward)

    def original(self, parameters: Any) -> Any:
        """A copy of the module, or of the function's first one, with these weights."""
        import torch

        from thorndike.networks.foreign.exported import to_tensor, trained

        module = copy.deepcopy(self.module)
        with torch.no_grad():
            for parameter, value in zip(trained(_plain(module)).values(), parameters, strict=True):
                parameter.copy_(to_tensor(value))
        return module

    def hint(self, observation: Any) -> str:
        shapes = [x.shape[1:] for x in jax.tree.leaves(observation)]
        if any(len(shape) == 3 and shape[2] < min(shape[:2]) for shape in shapes):
            return ". PyTorch's convolutions want channels first: write x.permute(0, 3, 1, 2) in forward"
        return ""

    def _made(self, seed: int) -> Any:
        """A copy of the module given, or another one of the function's from this seed; its lazy layers initialised."""
        if self.function is None and _fixed_values(self.given) != self.fixed_values:
            raise SettingError(
                f"the PyTorch module {self.name} has changed in what does not train (buffers, frozen parameters, "
                "train or eval) since it was handed over: hand it over again"
            )
        import torch

        from thorndike.networks.foreign.exported import sample

        with seeded(seed):
            module = _copy(self.given) if self.function is None else called(self.function)
            if any(map(_is_lazy, module.parameters())):
                with torch.no_grad():
                    module(*sample(module, (self.example, *self.carried(1))))
        return module

    def _exported(self, *inputs: Any) -> Any:
        """The module as a function of JAX for inputs like these; SettingError where it cannot be one."""
        import torch

        from thorndike.networks.foreign.exported import CannotTrain, Exported, check_gradients, sample

        module, shown = (_copy(_plain(self.module)).cpu() for _ in range(2))
        batch = sample(module, inputs)

        def outputs_of(made: Any) -> torch.Tensor:
            outputs = made[0] if len(inputs) == 2 and isinstance(made, tuple) else made
            if not isinstance(outputs, torch.Tensor):
                raise CannotTrain(f"it makes a {type(outputs).__name__}. Return one tensor of outputs")
            return outputs

        try:
            with torch.enable_grad():
                outputs = outputs_of(shown(*batch))  # raises PyTorch's own words where the shapes do not fit
                graph = Exported(module, batch)
                check_gradients(outputs)
                if not torch.allclose(outputs, outputs_of(shown(*batch)), equal_nan=True):
                    raise CannotTrain("it remembers: a second call gives other outputs. Keep nothing in forward")
                return graph
        except CannotTrain as error:
            raise SettingError(f"the PyTorch module {type(module).__name__} cannot be trained here: {error}") from error


def _plain(module: Any) -> Any:
    """What torch.compile was given, of what it made."""
    return getattr(module, "_orig_mod", module)


def _is_lazy(parameter: Any) -> bool:
    return type(parameter).__name__.startswith("Uninitialized")


def _copy(module: Any) -> Any:
    try:
        return copy.deepcopy(module)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise SettingError(f"the PyTorch module {type(module).__name__} cannot be copied: {reason}") from error


def _fixed_values(module: Any) -> str:
    """A digest of all that does not train: buffers, frozen parameters, and which layers are in training."""
    from thorndike.networks.foreign.exported import to_array

    digest = hashlib.sha256(repr([layer.training for layer in module.modules()]).encode())
    frozen = {name: x for name, x in module.named_parameters() if not x.requires_grad}
    for name, tensor in [*frozen.items(), *module.named_buffers()]:
        if not _is_lazy(tensor):
            digest.update(name.encode() + to_array(tensor).tobytes())
    return digest.hexdigest()
