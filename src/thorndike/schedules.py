"""Hyper-parameters that change over a run, as a function of the fraction of it that is done."""

from __future__ import annotations

from typing import Any


def linear(start: Any, end: Any, fraction: Any) -> Any:
    """From `start` at fraction 0 to `end` at fraction 1."""
    return start + fraction * (end - start)


def falling(start: Any, end: Any, fraction: Any) -> Any:
    """From `start` at fraction 0 to exactly `end` at fraction 1; `start` throughout where `end` is None."""
    return start if end is None else start * (1.0 - fraction) + end * fraction
