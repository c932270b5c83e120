"""What a search looks through unless told otherwise: the fields that matter most, of whichever an algorithm has."""

from __future__ import annotations

from typing import Any

from thorndike.sweeps.grids import DIGITS, Entry, Range, paths, value_at

TENFOLD = ("learning_rate",)  # from a tenth of what it is to ten times that
# Ranges of floats cost nothing to compile. Each value of a whole number is a program of its own: there are few.
SPACE: dict[str, Entry] = {
    "gamma": [0.9, 0.95, 0.98, 0.99, 0.995, 0.999],
    "gae_lambda": Range(0.8, 0.99),
    "clip_range": Range(0.1, 0.4),
    "ent_coef": [0.0, 0.001, 0.003, 0.01, 0.03, 0.1],
    "tau": Range(0.002, 0.05),
    "epsilon_end": Range(0.005, 0.1),
    "exploration_fraction": Range(0.1, 0.8),
    "exploration_noise": Range(0.05, 0.5),
    "target_period": [16, 64, 256],
    "memory.batch_size": [32, 64, 128],
}


def default_space(algorithm: Any) -> dict[str, Entry]:
    """By path, where to search for better values of an algorithm's fields; those that are None (off, learned) stay."""
    present = {path: value_at(algorithm, path) for path in paths(algorithm)}
    tenfold = {path: _tenfold(present[path]) for path in TENFOLD if present.get(path)}
    known = {path: entry for path, entry in SPACE.items() if present.get(path) is not None}
    return tenfold | {path: _including(entry, present[path]) for path, entry in known.items()}


def _tenfold(value: float) -> Range:
    return Range(*(float(f"{end:.{DIGITS}g}") for end in (value / 10, value * 10)))


def _including(entry: Entry, value: Any) -> Entry:
    """The entry with what is there by default among its values."""
    return entry if isinstance(entry, Range) or value in entry else sorted([*entry, value])
