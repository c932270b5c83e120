"""An agent's greedy policy as a file for other programs: raw observations in, real actions out.

Normalisation, argmax, squashing, scale and start of the actions are in the file, the batch is of any size. What is
exported is held against the agent before it gets its name, and described in contract.json beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces as gym
from jax import export as stablehlo

from thorndike import masks, persistence, spaces
from thorndike.compilation import jit
from thorndike.errors import (
    CorruptCheckpointError,
    MissingExtraError,
    RunError,
    SettingError,
    UnsuitableError,
    shown,
)
from thorndike.normalization import normalize
from thorndike.runs import configuration, schema
from thorndike.sequences import remembers, shapes_of_memory

FORMAT = 1
CONTRACT = "contract.json"
OBSERVATION, ACTION = "observation", "action"  # the names of a lone input, and of the output
CHECKED, PART = 1_000, 100  # observations, and how many at once
TOLERANCE = 1e-4  # of the largest action in a dimension, or of the largest value: float32 differs by a hundredth of it
WIDE = 1e4  # bounds further apart are drawn in as if there were none
PLATFORMS = ("cpu", "cuda", "tpu")


class Parity(TypedDict):
    """How the exported policy compared with the agent."""

    observations: int
    equal: int  # of them, those with the same action to the last bit
    ties: int  # choices that differ between equally good ones
    largest_difference: float  # of numbers in an action


class Exported(TypedDict):
    """What a contract says of one file."""

    algorithm: str
    policy: str  # the SHA-256 of its numbers: the same policy in several formats has one
    sha256: str | dict[str, str]  # of each file, where it is a folder
    parity: Parity
    versions: dict[str, str]


class Contract(TypedDict):
    """What whoever uses the files has to know."""

    format: int
    inputs: dict[str, dict[str, Any]]
    output: dict[str, Any]
    files: dict[str, Exported]


@dataclasses.dataclass(frozen=True)
class Greedy:
    """An agent's greedy choice as a function of batches, with the names and spaces of what it takes and gives."""

    choose: Callable  # from the observations of a batch, as a tree, to actions
    structure: Any  # of such a tree
    inputs: dict[str, jax.ShapeDtypeStruct]  # its leaves by name, without the batch axis
    action: jax.ShapeDtypeStruct  # without it too
    digest: str  # of all numbers in the policy

    @classmethod
    def of(cls, agent: Any) -> Greedy:
        """UnsuitableError where the algorithm has no such choice."""
        algorithm, name = agent.algorithm, type(agent.algorithm).__name__
        if not hasattr(algorithm, "greedy"):
            raise UnsuitableError(f"{name} cannot be exported: give it a method greedy(policy, observation, carry)")
        if remembers(shapes_of_memory(algorithm)):
            raise UnsuitableError("a policy with a memory cannot be exported: agent.save writes it for thorndike")
        policy, to_real = agent.policy(explore=False), spaces.to_real(agent.action_space, jnp)

        def choose(observation):
            return to_real(algorithm.greedy(policy, observation, ())[0])

        leaves, structure = jax.tree.flatten_with_path(spaces.stored(agent.observation_space))
        inputs = {_name(path): leaf for path, leaf in leaves}
        if len(inputs) < len(leaves):
            raise UnsuitableError(f"parts of the observation would have the same name: {', '.join(inputs)}")
        one = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for _, x in leaves])
        action = jax.eval_shape(choose, one)
        digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(policy))).hexdigest()
        return cls(choose, structure, inputs, jax.ShapeDtypeStruct(action.shape[1:], action.dtype), digest)

    def named(self, observation: Any) -> dict[str, Any]:
        """The leaves of a batch of observations by name."""
        return dict(zip(self.inputs, jax.tree.leaves(observation), strict=True))

    def choose_named(self, named: dict[str, Any]) -> Any:
        """`choose`, for the leaves by name."""
        return self.choose(jax.tree.unflatten(self.structure, [named[name] for name in self.inputs]))


def _name(path: tuple) -> str:
    """A leaf's name, one that every format takes: "image", "camera_0", "observation_0" of a lone Tuple."""
    if not path:
        return OBSERVATION
    words = (str(getattr(step, "key", getattr(step, "idx", step))) for step in path)
    name = re.sub(r"[^a-zA-Z0-9_]", "_", "_".join(words))
    return name if name.isidentifier() and name != ACTION else f"{OBSERVATION}_{name}"


def export(agent: Any, path: str | os.PathLike) -> Path:
    """Write the agent's greedy policy to `path`, in the format that its ending names, and describe it beside it."""
    where = persistence.folder_of(path)
    made = FORMATS.get(where.suffix.lower())
    if made is None:
        raise SettingError(f"{shown(str(path))} names no format: let it end in {', '.join(FORMATS)}")
    versions, greedy = configuration.versions() | made.versions(where.suffix), Greedy.of(agent)
    contract = _contract(where.parent / CONTRACT, agent, greedy)
    batch = draw(agent.observation_space, agent.moments, np.random.default_rng(0), CHECKED)
    if masks.masked(batch):
        batch[masks.MASK][masks.nothing_legal(batch, agent.action_space)] = 1
    with persistence.taking_the_place_of(where, made.marker) as temporary:
        made.write(greedy, temporary)
        parity = compare(agent, batch, in_parts(made.load(greedy, temporary), batch))
        contract["files"][where.name] = {
            "algorithm": type(agent.algorithm).__name__, "policy": greedy.digest, "sha256": _digest(temporary),
            "parity": parity, "versions": versions,
        }  # fmt: skip
    with persistence.writable(where.parent):
        persistence.write_json(where.parent / CONTRACT, persistence.sealed(contract))
    return where


def _contract(path: Path, agent: Any, greedy: Greedy) -> Contract:
    """What is to be known of a policy, with the files beside `path` that are known already.

    RunError where what is there describes others.
    """
    leaves = zip(greedy.inputs.items(), _leaves(agent.observation_space), strict=True)
    interface = {
        "format": FORMAT,
        "inputs": {name: _described(x, space) for (name, x), space in leaves},
        "output": {"name": ACTION} | _described(greedy.action, agent.action_space),
    }
    contract: Any = persistence.plain(interface) | {"files": {}}
    if persistence.exists(path):
        try:
            found = persistence.unsealed(persistence.read_json(path), path)
            schema.check(found, Contract, CONTRACT)
        except (CorruptCheckpointError, ValueError):
            raise RunError(f"{path} is not as thorndike wrote it, and stays: export into another folder") from None
        if any(found[name] != contract[name] for name in interface):
            raise RunError(f"{path} is of a policy with other observations or actions: export into another folder")
        files = {name: about for name, about in found["files"].items() if persistence.exists(path.parent / name)}
        contract["files"] = files
    return contract


def _described(x: jax.ShapeDtypeStruct, space: Any) -> dict[str, Any]:
    return {"shape": ["batch", *x.shape], "dtype": x.dtype.name, "space": spaces.describe(space)}


def _digest(path: Path) -> str | dict[str, str]:
    if not persistence.is_folder(path):
        return persistence.digest(path)
    files = [file for file in sorted(path.rglob("*")) if not persistence.is_folder(file)]
    return {file.relative_to(path).as_posix(): persistence.digest(file) for file in files}


# The check


def compare(agent: Any, batch: Any, found: np.ndarray) -> Parity:
    """How actions `found` for a batch of observations compare with the agent's; UnsuitableError where they differ.

    Numbers may differ by TOLERANCE of their dimension's range (or largest value, without bounds), choices only where
    the agent values both alike, by TOLERANCE of the largest value: then rounding decides, here and there.
    """
    expected = in_parts(agent.act, batch)
    if not np.isfinite(expected).all():
        raise UnsuitableError("the agent's own actions are not finite numbers: there is nothing to export")
    difference = np.abs(found.astype(np.float64) - expected).reshape(len(expected), -1)
    equal = (found == expected.astype(found.dtype)).reshape(difference.shape).all(1)
    if isinstance(agent.action_space, gym.Box):
        largest = np.abs(expected).reshape(difference.shape).max(0)
        width = (agent.action_space.high.astype(np.float64) - agent.action_space.low).ravel()
        alike = (difference <= TOLERANCE * np.where(np.isfinite(width), width, largest)).all(1)
    else:
        alike = equal | _tied(agent, batch, expected, found)
    if not alike.all():
        raise UnsuitableError(
            f"what was exported differs from the agent in {(~alike).sum():,} of {len(alike):,} actions, by up to "
            f"{difference.max():.2g}, and was not kept"
        )
    ties = 0 if isinstance(agent.action_space, gym.Box) else int((~equal).sum())
    return {
        "observations": len(equal), "equal": int(equal.sum()), "ties": ties,
        "largest_difference": float(difference.max()),
    }  # fmt: skip


def _tied(agent: Any, batch: Any, expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """[B]: whether the agent values both choices alike."""
    network = getattr(agent.state, "network", None)
    if network is None or not (expected != found).any():
        return np.zeros(len(expected), bool)
    values = in_parts(lambda part: _valued(agent.algorithm, network, normalize(agent.moments, part)), batch)
    space = agent.action_space
    sizes, start = (np.ravel(x) for x in ((space.n if isinstance(space, gym.Discrete) else space.nvec), space.start))
    first = np.cumsum(sizes) - sizes - start
    a, b = (np.take_along_axis(values, action.reshape(len(values), -1) + first, 1) for action in (expected, found))
    return (np.abs(a - b) <= TOLERANCE * np.abs(values).max()).all(1)


def _valued(algorithm: Any, network: Any, observation: Any) -> jax.Array:
    """What choices are made by, [B, choices]."""
    outputs = network(observation)
    return algorithm.q(network, outputs) if hasattr(algorithm, "q") else outputs


def in_parts(function: Callable, batch: Any) -> np.ndarray:
    """What a function makes of a batch, some hundred observations at a time: images are large."""
    count = len(jax.tree.leaves(batch)[0])
    parts = [jax.tree.map(lambda x, i=i: x[i : i + PART], batch) for i in range(0, count, PART)]
    return np.concatenate([np.asarray(function(part)) for part in parts])


def draw(space: Any, moments: Any, rng: np.random.Generator, count: int) -> Any:
    """Observations of `space` [count, ...] as they are stored: across what was seen in training, where that is kept.

    Else across the bounds, or without them around the middle in spreads from 0.1 to 10. Masks allow half of all.
    """
    if masks.masked(space):
        kind = spaces.stored(space)[masks.MASK]
        mask = rng.integers(0, 2, (count, *kind.shape)).astype(kind.dtype)
        return draw(masks.without(space), moments, rng, count) | {masks.MASK: mask}
    seen = iter(zip(moments.mean, moments.variance, strict=True) if moments else ())
    leaves = []
    for leaf, kind in zip(_leaves(space), jax.tree.leaves(spaces.stored(space)), strict=True):
        low, high = _bounds(leaf)
        numbers = rng.normal(size=(count, *kind.shape)) * 10 ** rng.uniform(-1, 1, (count, *kind.shape))
        if moments and jnp.issubdtype(kind.dtype, jnp.floating):
            mean, variance = map(np.asarray, next(seen))
            numbers = mean + np.sqrt(variance) * numbers
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                narrow = high - low <= WIDE
                across = low + (high - low) * rng.uniform(size=numbers.shape)
            numbers = np.where(narrow, across, numbers)
        numbers = np.clip(numbers, low, high)
        leaves.append((numbers if kind.dtype.kind == "f" else np.rint(numbers)).astype(kind.dtype))
    return jax.tree.unflatten(jax.tree.structure(spaces.stored(space)), leaves)


def _leaves(space: Any) -> list[Any]:
    """The spaces without parts in `space`, in the order in which observations are stored."""
    if isinstance(space, gym.Dict):
        return [leaf for name in sorted(space.spaces) for leaf in _leaves(space[name])]
    if isinstance(space, gym.Tuple):
        return [leaf for part in space.spaces for leaf in _leaves(part)]
    return [space]


def _bounds(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """The least and greatest values of a space without parts."""
    if isinstance(space, gym.Box):
        return space.low.astype(np.float64), space.high.astype(np.float64)
    if isinstance(space, gym.MultiBinary):
        return np.zeros(space.shape), np.ones(space.shape)
    count = space.n if isinstance(space, gym.Discrete) else space.nvec
    return np.asarray(space.start, np.float64), np.asarray(space.start + count - 1, np.float64)


# The formats: each a function that writes, and one that gives what was written as a function of a batch


def _write_stablehlo(greedy: Greedy, path: Path) -> None:
    (batch,) = stablehlo.symbolic_shape("batch")
    batches = [jax.ShapeDtypeStruct((batch, *x.shape), x.dtype) for x in greedy.inputs.values()]
    exported = stablehlo.export(jit(greedy.choose), platforms=PLATFORMS)(jax.tree.unflatten(greedy.structure, batches))
    persistence.write(path, bytes(exported.serialize()))


def _load_stablehlo(greedy: Greedy, path: Path) -> Callable:
    return stablehlo.deserialize(bytearray(persistence.read(path, persistence.size(path)))).call


def _write_onnx(greedy: Greedy, path: Path) -> None:
    from thorndike.runs import onnx_writer

    model = onnx_writer.model(greedy.choose_named, greedy.inputs, ACTION)
    persistence.write(path, model.SerializeToString())


def _load_onnx(greedy: Greedy, path: Path) -> Callable:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        persistence.read(path, persistence.size(path)), options, providers=["CPUExecutionProvider"]
    )
    return lambda batch: session.run([ACTION], greedy.named(batch))[0]


def _write_savedmodel(greedy: Greedy, path: Path) -> None:
    import tensorflow
    from jax.experimental import jax2tf

    converted = jax2tf.convert(
        lambda named: greedy.choose_named(named),  # a function, which can be hashed
        polymorphic_shapes=["(batch, ...)"], with_gradient=False, native_serialization_platforms=PLATFORMS,
    )  # fmt: skip
    kinds = {name: tensorflow.TensorSpec((None, *x.shape), x.dtype.name, name) for name, x in greedy.inputs.items()}
    module = tensorflow.Module()
    module.act = tensorflow.function(lambda named: {ACTION: converted(named)}, input_signature=[kinds], autograph=False)
    tensorflow.saved_model.save(module, str(path), signatures={"serving_default": module.act})


def _load_savedmodel(greedy: Greedy, path: Path) -> Callable:
    import tensorflow

    act = tensorflow.saved_model.load(str(path)).signatures["serving_default"]
    return lambda batch: act(**{name: tensorflow.constant(x) for name, x in greedy.named(batch).items()})[ACTION]


class Format(NamedTuple):
    """A kind of file: how it is written, and how it is loaded as a function of a batch."""

    write: Callable
    load: Callable
    marker: str = ""  # the file that its folder has, where it is one
    extra: str = ""  # what to install
    packages: tuple[str, ...] = ()  # that come with it

    def versions(self, ending: str) -> dict[str, str]:
        """Of the packages; MissingExtraError where one is missing."""
        try:
            return {name: importlib.import_module(name).__version__ for name in self.packages}
        except ImportError as error:
            raise MissingExtraError(
                f'{ending} needs {" and ".join(self.packages)}: pip install "thorndike[{self.extra}]" ({error})'
            ) from error


FORMATS = {
    ".onnx": Format(_write_onnx, _load_onnx, extra="onnx", packages=("onnx", "onnxruntime")),
    ".stablehlo": Format(_write_stablehlo, _load_stablehlo, extra="stablehlo", packages=("flatbuffers",)),
    ".savedmodel": Format(_write_savedmodel, _load_savedmodel, "saved_model.pb", "tensorflow", ("tensorflow",)),
}
