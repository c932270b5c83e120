"""Ctrl-C and SIGTERM: noted when they come, acted on at the next safe point."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from thorndike.errors import Terminated

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Interrupted(Exception):
    """A signal has come, and what is under way is given up."""


class Interrupts:
    """While entered, the first signal only sets `pending`; a second one ends the process as it would have before.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.pending: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pending is not None:
            self.throw(number, "stopped at once by a second signal")
        self.pending = number

    def check(self) -> None:
        """Raise Interrupted where a signal has come."""
        if self.pending is not None:
            raise Interrupted

    def throw(self, number: int, message: str) -> None:
        """KeyboardInterrupt for Ctrl-C, SystemExit(143) for SIGTERM."""
        if number == signal.SIGINT:
            raise KeyboardInterrupt(message)
        raise Terminated(EXIT_CODES[signal.SIGTERM])
