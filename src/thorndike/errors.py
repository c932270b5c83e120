"""Every error that is the user's to mend: typed, one plain sentence, with what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST = 280  # characters of a message: a screen shows it whole, "thorndike: " before it


class ThorndikeError(Exception):
    """The base of all errors below: catch it to catch them all. What it says is one line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class UnknownNameError(ThorndikeError, LookupError):
    """A name (of an algorithm, environment, field, verb) that does not exist."""


class SettingError(ThorndikeError, ValueError):
    """A hyper-parameter or an argument with a value that cannot work."""


class UnsuitableError(ThorndikeError, TypeError):
    """An algorithm and an environment, or a policy and a kind of file, that do not go together."""


class MissingExtraError(ThorndikeError, ImportError):
    """An optional package is needed; the message holds the pip line."""


class OrderError(ThorndikeError, RuntimeError):
    """Calls in an order that means nothing: an outcome without an action before it."""


class EnvironmentFault(ThorndikeError, RuntimeError):
    """An environment broke its own word: NaN, a wrong shape or kind, a failure inside `step`."""


class RunError(ThorndikeError):
    """A run folder that cannot be used as asked: it exists already, is in use, or is none."""


class CorruptCheckpointError(RunError):
    """A checkpoint whose bytes are not those that were written."""


class UnsafeCheckpointError(RunError):
    """A run folder that asks for something that loading never does."""


class Terminated(SystemExit):
    """The end that SIGTERM asks for: no boundary holds it up, as it does an environment's own `sys.exit()`."""


def one_line(text: str) -> str:
    """`text`, whoever wrote it, as one line that any screen can show: no control characters, the middle cut."""
    words = " ".join(text.split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    if len(shown) <= LONGEST:
        return shown
    return f"{shown[: LONGEST // 2]} ... {shown[-(LONGEST - LONGEST // 2 - 5) :]}"


def shown(value: Any, most: int = 60) -> str:
    """Any value, whatever it does when it is asked to show itself, for a place in a line of an error."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        return f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def nearest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"`, or an empty string where nothing is near."""
    folded = {candidate.lower(): candidate for candidate in known}
    match = difflib.get_close_matches(str(name).lower(), folded, n=1, cutoff=0.65)
    return f" Did you mean '{folded[match[0]]}'?" if match else ""
