"""The runs of a sweep as tasks of Ray's, one for each setting, on this machine or those of a cluster.

A task goes on with a run's folder as `resume` does: all machines must reach the folder under the same name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from thorndike.errors import ThorndikeError
from thorndike.interface.progress import Progress
from thorndike.runs import folders, interrupts
from thorndike.runs.resume import resume
from thorndike.sweeps.together import FAULTS, Member
from thorndike.unrolls.ray import Tasks

HEARD_EVERY = 0.5  # seconds between two looks for signals


class Scattered:
    """Runs that are trained where Ray has room, as many at a time as it has cores."""

    def __init__(self, members: Sequence[Member], display: Progress, address: bool | str, handed_in: Mapping) -> None:
        """Nothing has begun yet. `handed_in` is what `resume` is given with each run."""
        self.members, self.display, self.address, self.handed_in = members, display, address, dict(handed_in)
        self.signals = interrupts.Interrupts()

    def go_on(self, ended: Callable[[Member], None]) -> bool:
        """Train all of them to their ends, telling of each; False where a signal ended that early, all saved."""
        given = [(str(member.folder.resolve()), self.handed_in) for member in self.members]
        with self.signals, Tasks(self.address, train_there, given) as tasks:
            while tasks.left:
                for i, failed in tasks.ended(HEARD_EVERY):
                    self._close(self.members[i], failed, ended)
                if self.signals.pending:
                    self.display.stopping()
                    tasks.cancel()
        return not self.signals.pending

    def _close(self, member: Member, failed: Any, ended: Callable[[Member], None]) -> None:
        """Note how a task has ended: with a text where its run failed, with an error where it was lost or cancelled."""
        if isinstance(failed, BaseException):
            if self.signals.pending:
                return
            failed = f"its task was lost: {type(failed).__name__}"
        member.failed = failed
        if not failed:
            member.summary = folders.summary(member.folder, member.run.id)
        ended(member)


def train_there(folder: str, handed_in: dict[str, Any]) -> str:
    """Train a run in its folder to its end; what it failed of, or ""."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "it begins anew", of what has never begun
        try:
            resume(Path(folder), quiet=True, **handed_in)
        except FAULTS as error:
            return str(error)
        except ThorndikeError as error:
            return f"{type(error).__name__}: {error}"
    return ""
