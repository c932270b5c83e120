"""Critics and baselines: what they are made by, V(s), and several Q(s, a) side by side."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
from gymnasium import spaces
from jax import random

from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters
from thorndike.networks.network import Network
from thorndike.networks.observations import parts_of


@hyperparameters
class Same(Network):
    """The recipe of the algorithm's own `network`, for a critic or a baseline that sees what the actor sees."""

    def init(self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0) -> eqx.Module:
        raise SettingError("Same() makes a critic like the actor: give the actor's network itself, such as MLP()")


def critic_recipe(algorithm: Any, field: str, observation_space: spaces.Space) -> Any:
    """The recipe of a critic: the one in that field of `algorithm` or, where that is Same(), in its `network`.

    A user's network with fixed outputs cannot be followed: the default recipe takes its place, but for images.

    Raises:
        SettingError: where such a network looks at images.
    """
    given = getattr(algorithm, field)
    if not isinstance(given, Same):
        return given
    if not algorithm.network.fixed:
        return algorithm.network
    if any(part.is_image for part in parts_of(observation_space)):
        raise SettingError(
            f"a critic cannot be made like {algorithm.network!r}, whose outputs are fixed, and these observations hold "
            f"images: say what it is to be, such as {field}=CNN()"
        )
    return type(algorithm).network


def init_value(algorithm: Any, field: str, key: jax.Array, observation_space: spaces.Space) -> Any:
    """V(s) [B, 1], made as that field of `algorithm` says; () where it says None."""
    recipe = critic_recipe(algorithm, field, observation_space)
    return recipe.init(key, observation_space, 1) if recipe else ()


def init_critics(
    recipe: Network, key: jax.Array, observation_space: spaces.Space, action_space: Any, count: int
) -> Any:
    """`count` networks Q(s, a) as one module, whose leaves have them along their first axis.

    They see Dict(action, observation). Raises SettingError for a recipe that would make all of them the same.
    """
    if count > 1 and not recipe.draws:
        raise SettingError(
            f"{recipe!r} begins with the same weights every time, and {count} equal critics are no better than one: "
            "give a pair (init, apply) as critic_network, or num_critics=1"
        )
    canonical = spaces.Box(-1.0, 1.0, action_space.shape, np.float32)
    seen = spaces.Dict({"action": canonical, "observation": observation_space})
    return jax.vmap(lambda key: recipe.init(key, seen, 1))(random.split(key, count))


def critic_values(critics: Any, observation: Any, action: jax.Array) -> jax.Array:
    """Q(s, a) of every critic: [critics, B] for observations and canonical actions [B, ...]."""
    seen = {"action": action, "observation": observation}
    return jax.vmap(lambda critic: critic(seen)[:, 0])(critics)


class FirstOutputs(eqx.Module):
    """A network without its last outputs: a policy's, where the last one is the value."""

    network: Any
    count: int = eqx.field(static=True)

    def __call__(self, observation: Any) -> jax.Array:
        return self.network(observation)[:, : self.count]
