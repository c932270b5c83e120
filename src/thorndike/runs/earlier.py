"""What earlier versions wrote down of an algorithm, in today's words."""

from __future__ import annotations

import dataclasses
from typing import Any

from thorndike import algorithms

SHARES, HEADS = 2, 3  # the last formats in which ends of schedules were shares, and in which recipes chose their heads


def in_todays_words(values: dict[str, Any], cls: Any, written: int) -> dict[str, Any]:
    """The JSON values of an algorithm of class `cls`, of a file of the format `written`, as they would be today.

    `beta` was a field of the algorithm, whatever its memory: it is Prioritized's. What a schedule ends at was a share
    of what it begins with: it is a value, and None where it stays. A dueling network was a recipe's choice: it is the
    algorithm's. Algorithms of the user's own that are none of ours are as they were.
    """
    if written > HEADS or not issubclass(cls, tuple(map(algorithms.get, algorithms.ALGORITHMS))):
        return values
    values = dict(values)
    if written <= SHARES:
        if "beta" not in {field.name for field in dataclasses.fields(cls)} and "beta" in values:
            beta, memory = values.pop("beta"), values.get("memory")
            if isinstance(memory, dict) and "alpha" in memory:  # Prioritized, or a class of the user's own that is one
                values["memory"] = memory | {"beta": beta}
        for name in ("learning_rate", "clip_range"):
            share = values.get(f"{name}_end")
            if isinstance(share, (int, float)):
                values[f"{name}_end"] = None if share == 1 else share * values[name]
    if "dueling" in {field.name for field in dataclasses.fields(cls)} and _duels(values.get("network")):
        values["dueling"] = True
    return {name: _without_choice_of_head(value) for name, value in values.items()}


def _duels(recipe: Any) -> bool:
    """Whether a network's last layers were those of a dueling network."""
    return isinstance(recipe, dict) and (recipe.get("head") == "dueling" or _duels(recipe.get("head")))


def _without_choice_of_head(recipe: Any) -> Any:
    """A recipe without the word that said which head it has; a memory's head is a recipe of its own."""
    if not isinstance(recipe, dict):
        return recipe
    return {
        name: _without_choice_of_head(value)
        for name, value in recipe.items()
        if not (name == "head" and isinstance(value, str))
    }
