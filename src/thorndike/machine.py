"""What this process may use of the machine it runs on: cores and memory, the limits of its container included."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def cores() -> int:
    """The cores that this process is bound to, or as many as its cgroup has time for, if that is less."""
    count = getattr(os, "process_cpu_count", None)  # from Python 3.13 on
    if count is not None:
        bound = count()
    elif hasattr(os, "sched_getaffinity"):
        bound = len(os.sched_getaffinity(0))
    else:
        bound = os.cpu_count()
    return max(1, min([bound or 1, *map(math.ceil, _shares("cpu"))]))


def free_memory() -> int | None:
    """The bytes that this process may still take; None where the system does not say."""
    free = [*_of_machine(), *_left("memory")]
    return max(0, min(free)) if free else None


def _of_machine() -> Iterator[int]:
    """Free memory of the whole machine; where only that is known (macOS), all that it has."""
    for line in _read(PROC / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * 1024
            return
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        if pages in getattr(os, "sysconf_names", {}):
            yield os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
            return


def _left(controller: str) -> Iterator[int]:
    """What each limit of memory leaves; files that are only cached can be dropped, and count as free."""
    for folder in _cgroups(controller):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is None or used is None:
            continue
        held = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
        cached = sum(int(held.get(f"total_{name}", held.get(name, 0))) for name in ("active_file", "inactive_file"))
        yield limit - used + cached


def _shares(controller: str) -> Iterator[float]:
    """Each limit of computing time, in cores."""
    for folder in _cgroups(controller):
        both = _read(folder / "cpu.max").split()
        both = both or [_read(folder / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        if all(text.isdigit() for text in both):  # neither "max" nor -1, which are no limit
            quota, period = map(int, both)
            yield quota / period


def _cgroups(controller: str) -> Iterator[Path]:
    """The folders of this process's cgroup and of all above it, whose limits hold too; of version 2 and 1."""
    for line in _read(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root, own = (CGROUP / controller if controllers else CGROUP), PurePosixPath(path)
        for group in (own, *own.parents):
            yield root / str(group).lstrip("/")


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
