"""What environments say in `info` when an episode ends, as means over the episodes of a row of metrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thorndike.errors import nearest


class Infos:
    """Sums of the plain numbers that `info` holds under some names."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        """Nothing has been noted yet."""
        self.names = tuple(names)
        self._others: dict[str, None] = {}  # what else there was
        self._found: set[str] = set()
        self._missed: set[str] = set()  # those of which it has been said
        self.begin()

    def begin(self, sums: np.ndarray | None = None) -> None:
        """Start a row anew, or go on with the `sums` that `save` gave."""
        fits = sums is not None and sums.shape == (len(self.names), 2) and sums.dtype == np.float64
        self._sums = np.array(sums) if fits else np.zeros((len(self.names), 2))  # of each name: sum, episodes
        self._ended = 0

    def note(self, info: Any) -> None:
        """Take what is said at the end of an episode."""
        info = info if isinstance(info, Mapping) else {}
        self._ended += 1
        self._others |= dict.fromkeys(map(str, info))
        for i, name in enumerate(self.names):
            number = _number(info.get(name))
            if number is not None:
                self._found.add(name)
                self._sums[i] += number, 1

    def close(self) -> dict[str, float]:
        """The means of the row that ends here, of names that were there; a name that has never been is said once."""
        if self._ended:
            self._say_missing()
        means = {f"{name}_mean": total / n for name, (total, n) in zip(self.names, self._sums, strict=True) if n}
        self.begin()
        return means

    def save(self) -> dict[str, np.ndarray]:
        """What `begin` needs to go on."""
        return {"infos": self._sums.copy()} if self.names else {}

    def _say_missing(self) -> None:
        for name in self.names:
            if name in self._found | self._missed:
                continue
            self._missed.add(name)
            there = ", ".join(repr(other) for other in self._others) or "nothing"
            what = (
                "is no plain number" if name in self._others else f"has never been there.{nearest(name, self._others)}"
            )
            warnings.warn(
                f"record_info: at the end of an episode '{name}' in info {what} (there is {there:.120})", stacklevel=2
            )


def plain(info: Any) -> dict[str, float | None]:
    """What an `info` holds as plain numbers by name; None in the place of anything else."""
    return {str(name): _number(value) for name, value in info.items()} if isinstance(info, Mapping) else {}


def _number(value: Any) -> float | None:
    """A plain number as a float; None for anything else."""
    try:
        array = np.asarray(value)
        number = float(array) if array.shape == () and array.dtype.kind in "biuf" else math.nan
    except Exception:  # whatever a value of somebody's raises when it is looked at
        return None
    return number if math.isfinite(number) else None
