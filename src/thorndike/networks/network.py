"""What a network is to an algorithm: a recipe, which makes a module for observations and a number of outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
from gymnasium import spaces

from thorndike.errors import SettingError


class Remarks(NamedTuple):
    """Sentences about a recipe and a space."""

    notes: tuple[str, ...] = ()  # what was found out
    doubts: tuple[str, ...] = ()  # what was hardly meant


class Network:
    """A recipe for a network: what an algorithm's field `network` holds.

    A field annotated with it also takes a pair (init, apply), an Equinox, Flax, Haiku, Keras 3 or PyTorch network, or
    a function that makes one: `coerce` turns what a user gives into a recipe.
    """

    coerce: ClassVar[Callable[[Any], Network]]  # `recipes.recipe_of`, which knows all of them and is attached there
    fixed = False  # its outputs are as many as they are, not as many as are asked for
    draws = True  # its first weights come from the key that it is made with
    noisy = False  # it has layers that `noisy.perturbed` draws weights for
    special: tuple[str, ...] = ()  # what it asks of the algorithm that trains it, and not all give: "dropout", ...

    def init(self, key: jax.Array, observation_space: spaces.Space, outputs: int, gain: Any = 1.0) -> eqx.Module:
        """A module from observations with one batch axis to [B, outputs]; its leaves are what trains.

        `gain` scales the last layer: a number, or an array [outputs] with one for each output. With a memory, the
        module takes a carry as well, and also gives the next one: see `thorndike.sequences`.
        """
        raise NotImplementedError

    def remarks(self, observation_space: spaces.Space) -> Remarks:
        """What to tell whoever trains it on observations of this space."""
        return Remarks()

    def initial_carry(self, n: int) -> Any:
        """What the module carries where an episode begins: zeros [n, ...]; () without a memory."""
        return ()


def check_special(algorithm: Any, **given: tuple[str, ...]) -> None:
    """Raise SettingError where a network of `algorithm` asks for more than is `given` to the field it is in."""
    for field, recipe in vars(algorithm).items():
        for word in recipe.special if isinstance(recipe, Network) else ():
            if word not in given.get(field, ()):
                raise SettingError(
                    f"{type(algorithm).__name__}: {field} cannot have {word}, which nothing here would apply"
                )
