"""Atari games as the literature plays them: "atari:Breakout", by EnvPool or ale-py, whichever is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from thorndike.core import Step
from thorndike.environments import envpool, making
from thorndike.environments.copies import Copies
from thorndike.environments.envpool import EnvPool
from thorndike.environments.gymnasium import Gymnasium, copies_elsewhere
from thorndike.environments.host import HostEnvironment
from thorndike.environments.lives import GAME_RETURN, CopiesOfLives, Games
from thorndike.environments.preprocessing import Preprocessing
from thorndike.environments.worker import Order
from thorndike.environments.workers import NO_WORKERS, Workers
from thorndike.errors import MissingExtraError, SettingError, UnknownNameError, nearest

TRAINING_ONLY = ("life_loss",)  # arguments that evaluations do without: they play whole games


def copies_of_id(game: str, n: int, arguments: Mapping[str, Any], workers: Workers = NO_WORKERS) -> HostEnvironment:
    """`n` copies of a game, such as "Breakout"; `arguments` are those of `Preprocessing`.

    Raises MissingExtraError, UnknownNameError or SettingError.
    """
    known = [field.name for field in dataclasses.fields(Preprocessing)]
    for name in arguments:
        if name not in known:
            raise SettingError(f"atari:{game} has no argument '{name}'.{nearest(name, known)}")
    preprocessing = Preprocessing(**arguments)
    game = _registered(game)
    copies: HostEnvironment
    if by_envpool():
        workers.refuse(f"atari:{game}", envpool.IN_THREADS)
        copies = _by_envpool(game, n, preprocessing)
    elif importlib.util.find_spec("ale_py"):
        copies = _by_ale(game, n, preprocessing, workers)
    else:
        raise MissingExtraError(f'atari:{game} needs EnvPool or ale-py: pip install "thorndike[atari]"')
    if preprocessing.life_loss:
        copies.record_info((GAME_RETURN,))
    return copies


def by_envpool() -> bool:
    """Whether games are played by EnvPool, which is preferred to ale-py."""
    return importlib.util.find_spec("envpool") is not None


def games() -> list[str]:
    """The names of all games, as "atari:NAME" takes them; none where neither EnvPool nor ale-py is installed."""
    if by_envpool():
        return sorted(id.removesuffix("-v5") for id in envpool.ids_of("envpool.atari"))
    if importlib.util.find_spec("ale_py"):
        from thorndike.environments import ale

        return ale.games()
    return []


def _registered(game: str) -> str:
    """The name of a game as it is registered: "space_invaders", "SpaceInvadersNoFrameskip-v4" are SpaceInvaders."""
    known = games()
    plain = {_plain(name): name for name in known}
    name = game.removeprefix("ALE/").partition("-v")[0].removesuffix("NoFrameskip").removesuffix("Deterministic")
    if known and _plain(name) not in plain:
        raise UnknownNameError(f"there is no Atari game '{game}'.{nearest(name, known)}")
    return plain.get(_plain(name), name)


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


class PoolOfLives(EnvPool):
    """A game of EnvPool in which the loss of a life ends an episode; the game goes on with the next one."""

    def __init__(self, id: str, num_environments: int, arguments: Mapping[str, Any]) -> None:
        super().__init__(id, num_environments, arguments)
        self._games = Games(num_environments)

    def step(self, env_state: Any, action: Any, key: Any = None) -> tuple[tuple, Step]:
        return (), _ended_by(self._games, super().step, action)

    def _first(self, copies: Any) -> Any:
        self._games.begin(copies)
        return super()._first(copies)

    def _stepped(self, real: np.ndarray, copies: np.ndarray) -> tuple:
        observation, reward, terminated, truncated, info = super()._stepped(real, copies)
        earned = self._games.follow(copies, info["lives"], reward)
        return observation, reward, terminated, truncated, {**info, GAME_RETURN: earned}


def _ended_by(games: Games, step: Callable[..., tuple[tuple, Step]], action: Any) -> Step:
    """A step, terminated also where a life was lost: of that game, nothing begins anew."""
    games.lost[:] = False
    _, outcome = step((), action)
    return outcome._replace(terminated=outcome.terminated | games.lost)


def _by_envpool(game: str, n: int, given: Preprocessing) -> EnvPool:
    arguments = {
        "noop_max": given.noop_max,
        "use_fire_reset": given.fire_reset,
        "frame_skip": given.frame_skip,
        "img_height": given.screen_size,
        "img_width": given.screen_size,
        "gray_scale": given.grayscale,
        "stack_num": given.stack,
        "full_action_space": given.full_action_space,
        "repeat_action_probability": float(given.repeat_action_probability),
        "max_episode_steps": given.max_steps,
    }
    return (PoolOfLives if given.life_loss else EnvPool)(f"{game}-v5", n, arguments)


def _by_ale(game: str, n: int, given: Preprocessing, workers: Workers = NO_WORKERS) -> Gymnasium:
    from thorndike.environments import ale

    kind = CopiesOfLives if given.life_loss else Copies
    if workers.number:
        return copies_elsewhere(Order(partial(ale.wrapped, game, given), f"atari:{game}", {}, kind=kind), n, workers)
    copies = [making.create(partial(ale.wrapped, game, given), f"atari:{game}", {}) for _ in range(n)]
    return Gymnasium(kind(copies), n)
