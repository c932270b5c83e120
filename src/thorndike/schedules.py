"""Hyper-parameters that change over a run, as a function of the fraction of it that is done."""

from __future__ import annotations

from typing import Any


def linear(start: Any, end: Any, fraction: Any) -> Any:
    """From `start` at fraction 0 to `end` at fraction 1."""
    return start + fraction * (end - start)


def falling(start: Any, share: Any, fraction: Any) -> Any:
    """From `start` at fraction 0 to `share` of it at fraction 1, as `learning_rate_end` and `clip_range_end` say."""
    return start * linear(1.0, share, fraction)
