"""The boundary to other people's code: whatever an environment raises becomes one EnvironmentFault in plain words."""

from __future__ import annotations

from types import TracebackType

from thorndike.errors import EnvironmentFault, Terminated, ThorndikeError

PASSING = (KeyboardInterrupt, Terminated)  # these are the user's, wherever they come; `sys.exit()` in a step is not


class guarded:
    """Whatever is raised inside becomes an EnvironmentFault that begins with `what`; our own errors stay.

    No generator under `contextlib.contextmanager`: that lets StopIteration through, whatever is made of it.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and not isinstance(error, (ThorndikeError, *PASSING)):
            raise EnvironmentFault(f"{self.what}: {told(error)}") from error


def told(error: BaseException, checking: bool = False) -> str:
    """An error in one line: "ValueError: engine is cold"; without its kind where `checking` an answer gave it."""
    kind = type(error).__name__
    try:
        text = str(error).strip().partition("\n")[0]
    except Exception:  # it is the environment's own, and may be as broken as the rest
        text = ""
    return text if checking and isinstance(error, ValueError) else f"{kind}: {text}" if text else kind
