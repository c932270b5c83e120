"""An agent as a folder: its policy's arrays and what it takes to act by them, no code and no memory.

agent.json           algorithm, spaces, how far training had come, versions; the digest of the arrays and its own
agent.safetensors    what of the algorithm's state its policy and network are made of
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from thorndike import algorithms, persistence, snapshots, spaces
from thorndike.errors import RunError, ThorndikeError, UnsafeCheckpointError, UnsuitableError
from thorndike.hyperparameters import to_json
from thorndike.runs import checkpoints, configuration, schema

FORMAT, EARLIER = 3, (1, 2)  # each one less than the format of runs that had the same words
FILE, ARRAYS = "agent.json", "agent.safetensors"


class ArraysEntry(TypedDict):
    """What is said of the file of arrays."""

    size: int
    sha256: str


class Manifest(TypedDict):
    """What agent.json holds."""

    format: int
    algorithm: dict[str, Any]
    observation_space: dict[str, Any]
    action_space: dict[str, Any]
    fraction: float
    versions: dict[str, str]
    arrays: ArraysEntry


def write(agent: Any, folder: Any) -> Path:
    """Write an agent as `folder`, in the place of an agent that may be there; RunError where anything else is."""
    cls = type(agent.algorithm)
    if cls.__name__.lower() not in algorithms.ALGORITHMS or algorithms.get(cls.__name__) is not cls:
        raise UnsuitableError(f"an agent of {cls.__name__} cannot be saved: loading makes thorndike's algorithms only")
    where = persistence.folder_of(folder)
    with persistence.taking_the_place_of(where, marker=FILE) as made:
        persistence.make_folder(made)
        arrays = snapshots.state_to_arrays(needed(agent.algorithm, agent.state))
        manifest: Manifest = {
            "format": FORMAT,
            "algorithm": to_json(agent.algorithm),
            "observation_space": spaces.describe(agent.observation_space),
            "action_space": spaces.describe(agent.action_space),
            "fraction": float(agent.fraction),
            "versions": configuration.versions(),
            "arrays": persistence.write_arrays(made / ARRAYS, arrays),  # type: ignore[typeddict-item]
        }
        persistence.write_json(made / FILE, persistence.sealed(manifest))
    return where


def read(folder: Any, own: Mapping[str, Any]) -> tuple[Any, Any, Any, Any, float]:
    """Algorithm, state, spaces and fraction of the agent in `folder`; `own` is what the user hands in, by field name.

    The state holds what its policy and network need. RunError or a kind of it where the folder is none of ours.
    """
    where = persistence.folder_of(folder)
    persistence.entries(where)  # of a folder itself, no link to one
    path = where / FILE
    if not persistence.exists(path):
        hint = (
            f": that is a run, td.load({str(where)!r}).agent" if persistence.exists(where / configuration.FILE) else ""
        )
        raise RunError(f"{where} is not an agent's folder, it has no {FILE}{hint}")
    values: Any = persistence.unsealed(persistence.read_json(path), path)
    if values.get("format") not in (*EARLIER, FORMAT):
        raise RunError(f"{path} has format {values.get('format')!r:.40}, this version of thorndike reads {FORMAT}")
    try:
        schema.check(values, Manifest, FILE)
        algorithm = configuration.algorithm_from_json(values["algorithm"], own, where, values["format"] + 1)
        observation_space, action_space = (
            spaces.from_description(values[f"{name}_space"]) for name in ("observation", "action")
        )
        algorithm.check(observation_space, action_space)
        template = jax.eval_shape(lambda key: algorithm.init(key, observation_space, action_space), jax.random.key(0))
        template = needed(algorithm, template)
    except ThorndikeError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise UnsafeCheckpointError(f"{path} is not one that thorndike wrote: {error}") from None
    checkpoints.check_file(where / ARRAYS, values["arrays"])
    arrays = checkpoints.SavedArrays(where / ARRAYS, snapshots.STATE)
    state = snapshots.from_arrays(template, arrays, snapshots.STATE)
    return algorithm, state, observation_space, action_space, values["fraction"]


def needed(algorithm: Any, state: Any) -> Any:
    """A state, of arrays or of shapes, with None for what neither its policy nor its network is made of.

    So optimisers, targets and critics stay behind, of whichever algorithm.
    """

    def used(state: Any) -> Any:
        policies = [algorithm.policy(state, jnp.float32(1), explore) for explore in (False, True)]
        return policies, state.network, state.statistics.observations

    program = jax.make_jaxpr(used)(state).jaxpr
    read = {id(variable) for equation in program.eqns for variable in equation.invars} | set(map(id, program.outvars))
    leaves, structure = jax.tree.flatten(state)
    kept = [x if id(variable) in read else None for x, variable in zip(leaves, program.invars, strict=True)]
    return jax.tree.unflatten(structure, kept)
