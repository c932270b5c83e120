"""Categorical DQN: learn how likely the return of every action is to be this or that, not only its mean."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
from jax import random

from thorndike.algorithms.dqn import DQN
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.targets import NStep, check_support, cross_entropy, evenly_spaced, projected


@hyperparameters
class C51(DQN):
    """DQN whose networks put out a distribution over `atoms` returns from `v_min` to `v_max`, evenly spaced.

    Bellemare et al. (2017), "A distributional perspective on reinforcement learning". All else is as in DQN: logits may
    duel, returns may be of n steps. Priorities are the divergence of what is learned from its target (Hessel et al.,
    2018). With `rescale_values` the atoms are in the small range, `v_min` and `v_max` too.
    """

    loss: ClassVar[Any] = "cross-entropy"  # type: ignore[misc]
    atoms: int = setting(51, low=2)
    v_min: float = -10.0  # returns beyond are learned as these
    v_max: float = 10.0

    def validate(self) -> None:
        super().validate()
        check_support(self)
        if self.munchausen:
            raise SettingError(f"{type(self).__name__}: munchausen=True moves every action's atoms: take DQN or QRDQN")

    @property
    def support(self) -> jax.Array:
        """The returns [atoms] that probabilities are of."""
        return evenly_spaced(self.atoms, self.v_min, self.v_max)

    def q(self, network: Any, outputs: jax.Array) -> jax.Array:
        """The means [B, A] of the distributions."""
        probability = jax.nn.softmax(self.of_actions(network, outputs))
        return (probability * self.unscaled(self.support)[None, None]).sum(-1)

    def losses(self, network: Any, target_network: Any, step: NStep, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The cross-entropy (algorithm 1) and, as how wrong the network was, the Kullback-Leibler divergence."""
        key_following, key_taken = random.split(key)
        following = jax.nn.softmax(self.best_following(network, target_network, step, key_following))
        target = projected(following, self.target(self.support[None], step), self.support)
        return cross_entropy(self.taken(network, step, key_taken), jax.lax.stop_gradient(target))
