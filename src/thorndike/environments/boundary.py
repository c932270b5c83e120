"""The boundary to other people's code: whatever an environment raises becomes one EnvironmentFault in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from thorndike.errors import EnvironmentFault, Terminated, ThorndikeError

PASSING = (KeyboardInterrupt, Terminated)  # these are the user's, wherever they come; `sys.exit()` in a step is not


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Whatever is raised inside becomes an EnvironmentFault that begins with `what`; our own errors stay."""
    try:
        yield
    except (ThorndikeError, *PASSING):
        raise
    except BaseException as error:
        raise EnvironmentFault(f"{what}: {told(error)}") from error


def told(error: BaseException, checking: bool = False) -> str:
    """An error in one line: "ValueError: engine is cold"; without its kind where `checking` an answer gave it."""
    kind = type(error).__name__
    try:
        text = str(error).strip().partition("\n")[0]
    except Exception:  # it is the environment's own, and may be as broken as the rest
        text = ""
    return text if checking and isinstance(error, ValueError) else f"{kind}: {text}" if text else kind
