"""pgx, its games for one player: nothing resets by itself or ends by time, and `max_steps` adds a time limit."""

from __future__ import annotations

import importlib
from typing import Any

import jax
import pgx
from gymnasium import spaces

from thorndike.environments.suites.base import (
    Made,
    SuiteEnvironment,
    arguments_of,
    as_defaults,
    check_arguments,
    space_of,
)
from thorndike.masks import MASK, SEEN

# By id, the class: `pgx.make` takes no arguments.
MINATAR = {
    "minatar-asterix": "MinAtarAsterix",
    "minatar-breakout": "MinAtarBreakout",
    "minatar-freeway": "MinAtarFreeway",
    "minatar-seaquest": "MinAtarSeaquest",
    "minatar-space_invaders": "MinAtarSpaceInvaders",
}


class Pgx(SuiteEnvironment):
    """`arguments` are MinAtar's (`sticky_action_prob`), and `max_steps`; in 2048 observations hold an action mask."""

    suite = "pgx"
    time_limit = "max_steps"

    @classmethod
    def ids(cls) -> list[str]:
        return [*MINATAR, "2048"]

    @classmethod
    def refused(cls, id: str) -> str:
        return "is a game for several players" if id in set(pgx.available_envs()) - set(cls.ids()) else ""

    @classmethod
    def build(cls, id: str, arguments: dict[str, Any]) -> Made:
        name, limit = f"{cls.suite}:{id}", arguments.pop("max_steps", None)
        module = importlib.import_module(f"pgx.minatar.{id.partition('-')[2]}") if id in MINATAR else pgx
        factory = getattr(module, MINATAR[id]) if id in MINATAR else None
        possible = arguments_of(factory) if factory else {}
        check_arguments(name, arguments, {**possible, "max_steps": None})
        environment = factory(**as_defaults(name, arguments, possible)) if factory else pgx.make(id)
        masked = not factory
        n, seen = environment.num_actions, space_of(jax.eval_shape(environment.init, jax.random.PRNGKey(0)).observation)
        if masked:
            seen = spaces.Dict({SEEN: seen, MASK: spaces.MultiBinary(n)})
        return Made(environment, seen, spaces.Discrete(n), limit, masked)

    def begin(self, key: jax.Array) -> tuple:
        state = self.made.environment.init(key)
        return state, _seen(state, self.made.more)

    def move(self, state: Any, action: Any, key: jax.Array) -> tuple:
        state = self.made.environment.step(state, action, key)
        return state, _seen(state, self.made.more), state.rewards[0], state.terminated


def _seen(state: Any, masked: bool) -> Any:
    return {SEEN: state.observation, MASK: state.legal_action_mask} if masked else state.observation
