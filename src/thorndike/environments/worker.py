"""What runs in a worker process: a share of the copies is made, then reset and stepped as the parent says.

JAX is not imported here. The parent is the only one that is listened to, over a pipe that no other process has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing import connection, current_process, parent_process
from typing import Any, NamedTuple

from thorndike.environments import making
from thorndike.environments.copies import Copies
from thorndike.errors import SettingError, ThorndikeError


class Order(NamedTuple):
    """How the copies are made."""

    factory: Callable[..., Any]
    name: str
    arguments: Mapping[str, Any]
    mask_from_info: bool = False
    kind: type[Copies] = Copies
    also: tuple[str, ...] = ()  # arguments that are taken for the name, though not by the factory


class Made(NamedTuple):
    """What the parent has to know of the copies."""

    observation_space: Any
    action_space: Any
    max_steps: int | None


class Told(NamedTuple):
    """An error, as it crosses to the parent."""

    kind: str  # its class, if that is one of ours
    text: str


def main(line: connection.Connection, last_words: connection.Connection | None, at: Any, first: int, n: int) -> None:
    """Make the copies that the first message orders, and answer to every message until the parent hangs up.

    What goes to stderr goes to `last_words`; `at` [1] tells which copy is being reset or stepped.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # which reach every process of a terminal: they are the parent's
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which processes of the environment's own would inherit
    # Or multiprocessing lets an environment have no processes: this one ends with its parent all the same.
    current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    os.environ.pop("PYTHONSAFEPATH", None)  # it was set for the start of this process
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if last_words is not None:
        os.dup2(last_words.fileno(), 2)
    copies, path, answer = None, list(sys.path), None  # type: Any, list[str], Any
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            try:
                name, *given = line.recv()
                if name == "look":  # for what is in the next message
                    sys.path.append(given[0])
                    answer = None
                elif name == "make":
                    copies = _made(making.unpacked(given[0]), first, n)
                    sys.path[:] = path
                    answer = Made(copies.observation_space, copies.action_space, copies.max_steps)
                    copies.at = at
                elif name == "record":
                    copies.recording, answer = given[0], None
                else:
                    answer = getattr(copies, name)(*given)
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise
            except BaseException as error:
                line.send(_told(error))
            else:
                line.send(answer)


def _told(error: BaseException) -> Told:
    if isinstance(error, ThorndikeError):
        return Told(type(error).__name__, str(error))
    return Told("EnvironmentFault", f"{type(error).__name__}: {error}")


def _made(order: Order, first: int, n: int) -> Copies:
    environments = []
    for _ in range(n):
        environments.append(making.create(order.factory, order.name, order.arguments, order.also))
        if making.is_compiled(environments[-1]):
            raise SettingError(f"{order.name} is compiled: workers are for environments on the host")
        making.check(environments[-1], order.name)
    return order.kind(environments, order.mask_from_info, first)


def _leave_with_parent() -> None:
    """End this process when the parent ends, whatever a copy is doing."""
    connection.wait([parent_process().sentinel])  # type: ignore[union-attr]
    os._exit(1)
