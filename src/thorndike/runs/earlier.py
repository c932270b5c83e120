"""What earlier versions wrote down of an algorithm, in today's words."""

from __future__ import annotations

import dataclasses
from typing import Any

from thorndike import algorithms


def in_todays_words(values: dict[str, Any], cls: Any) -> dict[str, Any]:
    """The JSON values of an algorithm of class `cls`, as they would be written today.

    `beta` was a field of the algorithm, whatever its memory: it is Prioritized's. What a schedule ends at was a share
    of what it begins with: it is a value, and None where it stays. Algorithms of the user's own that are none of ours
    are as they were.
    """
    if not issubclass(cls, tuple(map(algorithms.get, algorithms.ALGORITHMS))):
        return values
    values = dict(values)
    if "beta" not in {field.name for field in dataclasses.fields(cls)} and "beta" in values:
        beta, memory = values.pop("beta"), values.get("memory")
        if isinstance(memory, dict) and "alpha" in memory:  # Prioritized, or a class of the user's own that is one
            values["memory"] = memory | {"beta": beta}
    for name in ("learning_rate", "clip_range"):
        share = values.get(f"{name}_end")
        if isinstance(share, (int, float)):
            values[f"{name}_end"] = None if share == 1 else share * values[name]
    return values
