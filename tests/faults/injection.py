"""The disk fails, or the process dies, at the k-th call by which `thorndike.persistence` changes a folder.

A call counts where `persistence` is somewhere in the stack: what JAX, Gymnasium or the tests themselves write does not.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from thorndike import persistence

CALLS = ("open", "write", "fsync", "truncate", "replace", "rename", "mkdir", "unlink", "rmdir")


class Killed(BaseException):
    """The process is no more: whatever it does from here on reaches no disk."""


class Faults:
    """Counts the calls and lets the one with the number `at` (from 0) fail; -1 for none."""

    def __init__(self, at: int = -1, fail: Callable[[], None] | None = None) -> None:
        """`fail` is called in the place of the call, and raises or ends the process; what it writes is cut in half."""
        self.at, self.fail = at, fail
        self.names: list[str] = []  # of the calls so far
        self.dead = False

    @property
    def distinct(self) -> list[int]:
        """The numbers of the calls, but for those that repeat the one before: arrays are many writes to one file."""
        return [k for k, name in enumerate(self.names) if k == 0 or name != self.names[k - 1]]

    def __call__(self, name: str, real: Callable, *arguments: Any, **named: Any) -> Any:
        if not _by_persistence():
            return real(*arguments, **named)
        if self.dead:
            if name == "open":
                raise Killed
            return None
        self.names.append(name)
        if len(self.names) - 1 != self.at:
            return (
                None if name == "fsync" else real(*arguments, **named)
            )  # no power fails here: syncing takes time only
        if name == "write":
            *where, data = arguments
            real(*where, memoryview(data)[: len(data) // 2])
        try:
            self.fail()
        except Killed:
            self.dead = True
            raise

    @contextlib.contextmanager
    def injected(self) -> Iterator[Faults]:
        """Have the calls made through `self`."""
        real = {name: getattr(os, name) for name in CALLS}
        for name, function in real.items():
            setattr(os, name, lambda *a, _name=name, _real=function, **n: self(_name, _real, *a, **n))
        # Files are written by methods of their own.
        persistence.open = lambda *a, **n: _File(open(*a, **n), self)  # noqa: SIM115
        try:
            yield self
        finally:
            del persistence.open
            for name, function in real.items():
                setattr(os, name, function)


class _File:
    """A file whose writing is counted."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def write(self, data: Any) -> Any:
        return self._faults("write", self._file.write, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def disk_says(number: int) -> Callable[[], None]:
    """A failure that refuses with this errno."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def die() -> None:
    """A failure that ends the process, in so far as one test can: nothing that follows reaches the disk."""
    raise Killed


def _by_persistence() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__") == persistence.__name__:
            return True
        frame = frame.f_back
    return False
