"""Adam for an actor and a critic that are trained together."""

from __future__ import annotations

from typing import Any

import jax
import optax

from thorndike.errors import SettingError
from thorndike.schedules import falling


def clipped_adam(
    algorithm: Any, fraction: jax.Array | float, critic: str, eps: float = 1e-8, flat: bool = False
) -> optax.GradientTransformation:
    """Adam on gradients whose norm, of actor and critic together, is clipped.

    The parameters are a named tuple, whose field `critic` has the critic's learning rate. Where that is the actor's,
    `flat` takes all of them as one vector, which is quicker.
    """
    clip = optax.clip_by_global_norm(algorithm.max_grad_norm)
    rate = falling(algorithm.learning_rate, algorithm.learning_rate_end, fraction)
    if algorithm.critic_learning_rate is None:
        optimizer = optax.chain(clip, optax.adam(rate, eps=eps))
        return optax.flatten(optimizer) if flat else optimizer
    critic_rate = falling(algorithm.critic_learning_rate, algorithm.learning_rate_end, fraction)
    parts = {False: optax.adam(rate, eps=eps), True: optax.adam(critic_rate, eps=eps)}

    def is_critic(parameters: Any) -> Any:
        return type(parameters)(*(name == critic for name in parameters._fields))

    return optax.chain(clip, optax.partition(parts, is_critic))


def check_critic_rate(algorithm: Any, field: str) -> None:
    """Raise SettingError where a critic that is none has a learning rate of its own."""
    if getattr(algorithm, field) is None and algorithm.critic_learning_rate is not None:
        raise SettingError(
            f"{type(algorithm).__name__}: critic_learning_rate is of no effect with {field}=None: leave it None too"
        )
