"""Critics and baselines: what they are made by, V(s), and several Q(s, a) side by side."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import random

from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters
from thorndike.networks.mlp import with_dropout
from thorndike.networks.network import Network
from thorndike.networks.observations import parts_of
from thorndike.sequences import Unrolled, flat, over_time, remembers, shapes_of_carry, step


@hyperparameters
class Same(Network):
    """The recipe of the algorithm's own `network`, for a critic or a baseline that sees what the actor sees."""

    def init(self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0) -> eqx.Module:
        raise SettingError("Same() makes a critic like the actor: give the actor's network itself, such as MLP()")


def critic_recipe(algorithm: Any, field: str, observation_space: spaces.Space) -> Any:
    """The recipe of a critic: the one in that field of `algorithm` or, where that is Same(), in its `network`.

    A user's network with fixed outputs cannot be followed: the default recipe takes its place.

    Raises:
        SettingError: where such a network looks at images, or remembers, as the default recipe does not.
    """
    recipe = _critic_recipe(algorithm, field)
    if isinstance(getattr(algorithm, field), Same) and algorithm.network.fixed:
        if any(part.is_image for part in parts_of(observation_space)):
            why, instead = "these observations hold images", "CNN()"
        elif remembers(shapes_of_carry(algorithm.network.initial_carry)):
            why, instead = "it has a memory", "LSTM()"
        else:
            return recipe
        raise SettingError(
            f"a critic cannot be made like {algorithm.network!r}, whose outputs are fixed, and {why}: "
            f"say what it is to be, such as {field}={instead}"
        )
    return recipe


def critic_carry(algorithm: Any, field: str, n: int) -> Any:
    """What a critic carries where an episode begins: zeros [n, ...]; () without a memory or without a critic."""
    recipe = _critic_recipe(algorithm, field)
    return recipe.initial_carry(n) if recipe else ()


def _critic_recipe(algorithm: Any, field: str) -> Any:
    given = getattr(algorithm, field)
    if not isinstance(given, Same):
        return given
    return type(algorithm).network if algorithm.network.fixed else algorithm.network


def init_value(algorithm: Any, field: str, key: jax.Array, observation_space: spaces.Space) -> Any:
    """V(s) [B, 1], made as that field of `algorithm` says; () where it says None."""
    recipe = critic_recipe(algorithm, field, observation_space)
    return recipe.init(key, observation_space, 1) if recipe else ()


def init_critics(
    algorithm: Any, key: jax.Array, observation_space: spaces.Space, action_space: Any, outputs: int = 1
) -> Any:
    """The critics Q(s, a) of `algorithm`, `num_critics` as one module: its leaves have them along their first axis.

    They see Dict(action, observation). Raises SettingError for a recipe that would make all of them the same.
    """
    canonical = spaces.Box(-1.0, 1.0, action_space.shape, np.float32)
    recipe = critic_recipe(algorithm, "critic_network", observation_space)
    return _several(
        algorithm, recipe, key, spaces.Dict({"action": canonical, "observation": observation_space}), outputs
    )


def init_choice_critics(algorithm: Any, key: jax.Array, observation_space: spaces.Space, choices: int) -> Any:
    """The same for actions that are one of so many choices: Q(s, .), which see the observation alone."""
    recipe = critic_recipe(algorithm, "critic_network", observation_space)
    return _several(algorithm, recipe, key, observation_space, choices)


def _several(algorithm: Any, recipe: Any, key: jax.Array, seen: spaces.Space, outputs: int) -> Any:
    count = algorithm.num_critics
    if count > 1 and not recipe.draws:
        raise SettingError(
            f"{recipe!r} begins with the same weights every time, and {count} equal critics are no better than one: "
            "give a pair (init, apply) as critic_network, or num_critics=1"
        )
    return jax.vmap(lambda key: recipe.init(key, seen, outputs))(random.split(key, count))


def init_critics_carry(algorithm: Any, n: int) -> Any:
    """What the critics of `algorithm` carry where an episode begins: zeros [n, critics, ...]; () without a memory."""
    carry = critic_carry(algorithm, "critic_network", n)
    return jax.tree.map(lambda x: jnp.repeat(x[:, None], algorithm.num_critics, axis=1), carry)


def critic_values(critics: Any, observation: Any, action: jax.Array, carry: Any = ()) -> jax.Array:
    """Q(s, a) of every critic: [critics, B] for observations and canonical actions [B, ...].

    Each is seen with a carry of its own, [B, critics, ...].
    """
    return critic_outputs(critics, {"action": action, "observation": observation}, carry)[..., 0]


def critic_outputs(critics: Any, seen: Any, carry: Any = ()) -> jax.Array:
    """What every critic puts out of what it sees [B, ...]: [critics, B, outputs]."""
    return jax.vmap(lambda critic, carry: step(critic, seen, carry)[0], in_axes=(0, 1))(critics, carry)


def critics_over_time(critics: Any, observation: Any, action: jax.Array, carry: Any, ended: jax.Array) -> Unrolled:
    """Q(s, a) of every critic [critics, T * B] along sequences [T, B]; what they carry is [T, B, critics, ...]."""
    unrolled = critic_outputs_over_time(critics, {"action": action, "observation": observation}, carry, ended)
    return unrolled._replace(outputs=unrolled.outputs[..., 0])


def critic_outputs_over_time(critics: Any, seen: Any, carry: Any, ended: jax.Array) -> Unrolled:
    """What every critic puts out along sequences [T, B], [critics, T * B, outputs]; carries as above."""

    def outputs(critic, carry):
        unrolled = over_time(critic, seen, carry, ended)
        return unrolled._replace(outputs=flat(unrolled.outputs))

    return jax.vmap(outputs, in_axes=(0, 1), out_axes=Unrolled(0, 2, 2))(critics, carry)


def critics_with_dropout(critics: Any, key: jax.Array | None) -> Any:
    """Critics whose units are dropped at random, of each others; the critics themselves without a key."""
    if key is None:
        return critics
    return jax.vmap(with_dropout)(critics, random.split(key, jax.tree.leaves(critics)[0].shape[0]))


class FirstOutputs(eqx.Module):
    """A network without its last outputs: a policy's, where the last one is the value."""

    network: Any
    count: int = eqx.field(static=True)

    def __call__(self, observation: Any, carry: Any = ()) -> Any:
        outputs, after = step(self.network, observation, carry)
        outputs = outputs[:, : self.count]
        return (outputs, after) if remembers(carry) else outputs
