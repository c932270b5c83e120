"""Files that survive a crash: written whole or not at all, read with limits, and locked while in use."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thorndike.errors import CorruptCheckpointError, RunError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

MAX_JSON_BYTES = 4_000_000
LOCK = ".lock"


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: NumPy numbers as Python's, and None for what is not finite."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write `value` so that `path` holds the old text or the new one, whenever the power fails."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """The same for any text: a temporary file in the same folder, synced, then renamed."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in `path`. CorruptCheckpointError where it is none, or larger than `limit` bytes."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise CorruptCheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > limit:
        raise CorruptCheckpointError(f"{path} is larger than {limit:,} bytes: thorndike did not write that")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CorruptCheckpointError(f"{path} is not a JSON object")
    return value


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file or, so that renames last, to a folder."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot sync a folder, and needs not
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def discard(folder: Path) -> None:
    """Delete a folder; renamed first, so that half a folder is never taken for a whole one."""
    tombstone = folder.with_name(f".deleted-{uuid.uuid4().hex[:8]}")
    os.rename(folder, tombstone)
    sync(folder.parent)
    shutil.rmtree(tombstone, ignore_errors=True)


def empty_folder(folder: Path) -> Path:
    """`folder`, made if it is not there; RunError where there is something in it."""
    with _usable(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            again = f"thorndike resume {folder} goes on with it, or choose another folder"
            raise RunError(f"{folder} exists already: {again}")
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def unused_folder(parent: Path, name: str) -> Path:
    """A new folder of that name in `parent`, numbered if there is one already."""
    for number in range(1, 1000):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        with _usable(folder), contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise RunError(f"{folder} exists already")


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """What the disk refuses (a file where a folder should be, no permission, no space) as a RunError."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null in the name
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{folder} cannot be used as a folder to write into: {reason}") from None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; RunError where another one has it."""
    path = folder / LOCK
    with _usable(folder):
        descriptor = _open_lock(path)
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.strftime("%Y-%m-%d %H:%M:%S")}
        with _usable(folder):
            os.truncate(descriptor, 0)
            os.write(descriptor, json.dumps(owner).encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(descriptor):
            os.close(descriptor)
            raise RunError(f"{path.parent} is in use by {_owner(path)}")
        owner = _read_owner(path)
        if owner and owner.get("host") != socket.gethostname():
            # The kernel's lock may not reach another machine that shares this disk.
            os.close(descriptor)
            raise RunError(f"{path.parent} is in use by {_owner(path)}; delete {path} if that run is over")
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return descriptor
        os.close(descriptor)  # its holder deleted it in this very moment: once more


def _lock(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_owner(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, limit=10_000)
    except CorruptCheckpointError:
        return {}


def _owner(path: Path) -> str:
    owner = _read_owner(path)
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('started')}"
