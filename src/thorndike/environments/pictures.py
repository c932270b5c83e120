"""What an environment looks like: Gymnasium's own pictures, also of the states of its compiled twins."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from thorndike.environments import MASK_FROM_INFO, make, making, twins
from thorndike.environments.boundary import guarded
from thorndike.errors import MissingExtraError, SettingError, UnsuitableError

FPS = 30.0  # where an environment does not say
DRAWN = {"render_mode": "rgb_array"}
OF_TWINS_ALONE = {"max_steps", MASK_FROM_INFO}  # settings that Gymnasium's environments do not have


class Stage(NamedTuple):
    """One copy of an environment that can be drawn."""

    environment: Any  # a core.Environment with one copy
    picture: Callable[[Any], np.ndarray]  # of an env_state (nothing on the host): RGB, uint8 [height, width, 3]
    fps: float  # steps that a second of the environment's own time has


def staged(environment: Any, compiled: bool, arguments: Mapping[str, Any]) -> Stage:
    """One copy of `environment` (as `make` takes it, with `arguments`) on a stage; close its environment afterwards.

    UnsuitableError where it draws nothing; MissingExtraError, with the pip line, where what it draws with is missing.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets whoever imports it, on their screen
    if compiled:
        made: Any = make(environment, 1, **arguments)
        return _stage_of_compiled(made)
    if isinstance(environment, str) and environment.startswith("envpool:"):  # which draws nothing itself
        environment = f"gymnasium:{environment.removeprefix('envpool:')}"
    try:
        made = make(environment, 1, **DRAWN, **arguments)
    except MissingExtraError:
        raise
    except SettingError:  # an object, or one that takes no render_mode: it may draw all the same
        made = make(environment, 1, **arguments)
    made.follow()
    return Stage(made, lambda _: made.picture(), made.fps or FPS)


def _stage_of_compiled(made: Any) -> Stage:
    """Of an environment with `render(state)` its own pictures, of a twin those of Gymnasium."""
    inner = made.environment
    if hasattr(inner, "render"):

        def own(env_state: Any) -> np.ndarray:
            with guarded(f"{type(inner).__name__}.render"):
                return making.checked_picture(inner.render(_first(env_state)), type(inner).__name__)

        return Stage(made, own, FPS)
    id = next((id for id, twin in twins().items() if type(inner) is twin), None)
    if id is None:
        name = type(inner).__name__
        raise UnsuitableError(f"{name} draws nothing: give it render(state), an RGB array uint8 [height, width, 3]")
    settings = {field.name: getattr(inner, field.name) for field in dataclasses.fields(inner)}
    original = make(f"gymnasium:{id}", 1, **DRAWN, **{k: v for k, v in settings.items() if k not in OF_TWINS_ALONE})
    original.reset(jax.random.key(0))

    def of_twin(env_state: Any) -> np.ndarray:
        state = _first(env_state)
        original.put(inner.posed(state) if hasattr(inner, "posed") else {"state": np.asarray(state, np.float64)})  # type: ignore[attr-defined]
        return original.picture()  # type: ignore[attr-defined]

    return Stage(made, of_twin, original.fps or FPS)  # type: ignore[attr-defined]


def _first(env_state: Any) -> Any:
    """The state of the first copy."""
    return jax.tree.map(lambda x: np.asarray(x[0]), env_state.state)
