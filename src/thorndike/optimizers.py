"""Optimizers: what an algorithm's field `optimizer` takes, and how algorithms descend with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import optax

from thorndike.errors import SettingError, shown
from thorndike.hyperparameters import hyperparameters, named, setting
from thorndike.schedules import falling


class Optimizer:
    """A rule that makes steps of gradients, for any learning rate.

    A field annotated with it also takes a name ("rmsprop"), a function of a learning rate that gives an optax
    transformation (`optax.lion`, `partial(optax.adamw, weight_decay=0.01)`), or such a transformation itself.
    """

    elementwise: ClassVar[bool] = True  # each parameter moves as if it were alone: all may be taken as one vector
    rule: ClassVar[Callable[..., optax.GradientTransformation]]

    def descent(self, rate: Any) -> optax.GradientTransformation:
        """Steps of this size down gradients; a rate that changes over a run is a traced number."""
        return type(self).rule(rate, **vars(self))

    @staticmethod
    def coerce(value: Any) -> Optimizer:
        """What a user means by `value`. SettingError says what an optimizer may be."""
        value = named(value, Optimizer, OPTIMIZERS, "optimizer")
        return value if isinstance(value, Optimizer) else Own(value)


@hyperparameters
class Adam(Optimizer):
    """Kingma and Ba (2015), "Adam: a method for stochastic optimization"."""

    rule = staticmethod(optax.adam)

    b1: float = setting(0.9, low=0, high=1, static=True)  # of the mean of gradients
    b2: float = setting(0.999, low=0, high=1, static=True)  # of the mean of their squares
    eps: float = setting(1e-8, low=0, static=True)


@hyperparameters
class AdamW(Optimizer):
    """Adam whose weights decay beside it (Loshchilov and Hutter, 2019, "Decoupled weight decay regularization")."""

    rule = staticmethod(optax.adamw)

    b1: float = setting(0.9, low=0, high=1, static=True)
    b2: float = setting(0.999, low=0, high=1, static=True)
    eps: float = setting(1e-8, low=0, static=True)
    weight_decay: float = setting(1e-2, low=0, static=True)  # times the learning rate, at each step


@hyperparameters
class RAdam(Optimizer):
    """Adam that waits until it knows a variance (Liu et al., 2020, "On the variance of the adaptive learning rate")."""

    rule = staticmethod(optax.radam)

    b1: float = setting(0.9, low=0, high=1, static=True)
    b2: float = setting(0.999, low=0, high=1, static=True)
    eps: float = setting(1e-8, low=0, static=True)


@hyperparameters
class RMSProp(Optimizer):
    """Gradients over the root of the mean of their squares and eps (Tieleman and Hinton, 2012), as A3C and DQN have it.

    `centered` subtracts the square of their mean before (Graves, 2013).
    """

    rule = staticmethod(optax.rmsprop)

    decay: float = setting(0.99, low=0, high=1, static=True)
    eps: float = setting(1e-5, low=0, static=True)  # beneath the root
    centered: bool = False
    momentum: float | None = setting(None, low=0, high=1, static=True)


@hyperparameters
class SGD(Optimizer):
    """The gradient itself, with momentum where it is given."""

    rule = staticmethod(optax.sgd)

    momentum: float | None = setting(None, low=0, high=1, static=True)
    nesterov: bool = False


@hyperparameters
class Own(Optimizer):
    """What the user gave: a function of a learning rate, or a transformation that has a rate of its own."""

    elementwise = False

    given: Any = None

    def validate(self) -> None:
        try:
            fits = all(hasattr(self.descent(1e-3), part) for part in ("init", "update"))
        except Exception:  # whatever a function raises that is none of a learning rate
            fits = False
        if not fits:
            raise SettingError(
                f"optimizer= takes a name ({', '.join(OPTIMIZERS)}), td.Adam(...) and such, an optax transformation or "
                f"a function that makes one of a learning rate, got {shown(self.given)}"
            )

    def descent(self, rate: Any) -> optax.GradientTransformation:
        """A transformation that is given whole is used as it is: the algorithm's learning rates are not."""
        whole = hasattr(self.given, "init") and hasattr(self.given, "update")
        return self.given if whole else self.given(rate)

    def to_json(self) -> dict[str, Any]:
        return {"type": "foreign", "optimizer": getattr(self.given, "__name__", type(self.given).__name__)}


OPTIMIZERS: dict[str, type[Optimizer]] = {cls.__name__.lower(): cls for cls in (Adam, AdamW, RAdam, RMSProp, SGD)}


def clipped(
    algorithm: Any, fraction: jax.Array | float, critic: str = "", flat: bool = False
) -> optax.GradientTransformation:
    """The algorithm's optimizer, at this fraction of a run, on gradients whose norm all together is clipped.

    The parameters may be a named tuple, whose field `critic` has the critic's learning rate. Where that is the actor's,
    `flat` takes all of them as one vector, which is quicker.
    """
    clip, optimizer = optax.clip_by_global_norm(algorithm.max_grad_norm), algorithm.optimizer
    own = optimizer.descent(falling(algorithm.learning_rate, algorithm.learning_rate_end, fraction))
    if not critic or algorithm.critic_learning_rate is None:
        whole = optax.chain(clip, own)
        return optax.flatten(whole) if flat and optimizer.elementwise else whole
    critic_rate = falling(algorithm.critic_learning_rate, algorithm.learning_rate_end, fraction)
    parts = {False: own, True: optimizer.descent(critic_rate)}

    def is_critic(parameters: Any) -> Any:
        return type(parameters)(*(name == critic for name in parameters._fields))

    return optax.chain(clip, optax.partition(parts, is_critic))


def improved(
    loss: Callable[[Any], tuple[jax.Array, Any]], parameters: Any, moments: Any, optimizer: optax.GradientTransformation
) -> tuple[Any, Any, jax.Array, Any]:
    """One step down a loss, which gives something else beside its value: new parameters and moments, and these two."""
    (value, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
    change, moments = optimizer.update(gradient, moments, parameters)
    return optax.apply_updates(parameters, change), moments, value, outputs


def check_critic_rate(algorithm: Any, field: str) -> None:
    """Raise SettingError where a critic that is none has a learning rate of its own."""
    if getattr(algorithm, field) is None and algorithm.critic_learning_rate is not None:
        raise SettingError(
            f"{type(algorithm).__name__}: critic_learning_rate is of no effect with {field}=None: leave it None too"
        )
