"""Files of a run folder: the one place that opens, writes, renames and deletes them.

They are written whole or not at all, read with limits, and locked while in use. What is opened is the regular file, and
what is entered the folder, that has to be there: a link, a FIFO or a device in its place is refused untouched. (Whoever
changes the folder in the very same moment is not held off by that.)
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import socket
import stat
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from thorndike.errors import CorruptCheckpointError, RunError, SettingError, UnsafeCheckpointError, shown

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

MAX_JSON_BYTES = 32_000_000  # a manifest with the results of some 5,000 seeds
MAX_DEPTH = 64  # of JSON objects and lists in each other
MAX_HEADER_BYTES = 4_000_000  # of a file of arrays: some 30,000 of them
BLOCK = 2**20  # bytes that are copied at a time
LOCK = ".lock"
LEFTOVER = re.compile(r"\.[\w-]+\.(json|jsonl|safetensors)\.[0-9a-f]{8}")  # a file whose writer was killed
NEVER_WAIT = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
IN_USE = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK)


# Doors


def opened(path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """The descriptor of the regular file `path`, made where `flags` say so.

    UnsafeCheckpointError where something else is in its place or, to be written into, a file that has other names too.
    """
    with contextlib.suppress(FileNotFoundError):
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeCheckpointError(f"{path} is {_kind(status)} where a file belongs: thorndike did not make that")
        if flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink > 1:
            raise UnsafeCheckpointError(f"{path} has other names (hard links) that would be written into as well")
    return os.open(path, flags | NEVER_WAIT, mode)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[io.BufferedReader]:
    """The file `path`; CorruptCheckpointError where it cannot be read."""
    try:
        with open(opened(path), "rb") as file:
            yield file
    except FileNotFoundError:
        raise CorruptCheckpointError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise CorruptCheckpointError(f"{path} cannot be read: {_reason(error)}") from None


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    """A new file, which takes the place of `path` in one rename once the disk holds it; or else is gone again."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def entries(folder: Path) -> list[Path]:
    """What is in a folder, in order; nothing where there is none. RunError where it is a link or cannot be read."""
    try:
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode):
            raise UnsafeCheckpointError(f"{folder} is {_kind(status)} where a folder belongs")
        return sorted(folder / name for name in os.listdir(folder))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} cannot be read: {_reason(error)}") from None


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder itself, no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether anything is there, be it a link that leads nowhere."""
    return os.path.lexists(path)


def _kind(status: os.stat_result) -> str:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file", stat.S_IFIFO: "a FIFO"}
    return kinds.get(stat.S_IFMT(status.st_mode), "a device or socket")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


# JSON


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
    text = json.dumps(plain(value), indent=2, allow_nan=False) + "\n"
    if len(text) > MAX_JSON_BYTES:
        raise RunError(f"{path} would take {len(text):,} bytes, more than the {MAX_JSON_BYTES:,} that are read back")
    write(path, text.encode())


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in `path`. CorruptCheckpointError where it is none, or larger than `limit` bytes."""
    data = read(path, limit)
    try:
        value = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not _is_shallow(value):
        raise CorruptCheckpointError(f"{path} is not a JSON object")
    return value


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object with the digest of all else that it says."""
    body = {name: item for name, item in plain(dict(value)).items() if name != "digest"}
    return body | {"digest": hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()}


def unsealed(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What was sealed; CorruptCheckpointError where `value`, read from `path`, is not as it was written."""
    if value.get("digest") != sealed(value)["digest"]:
        raise CorruptCheckpointError(f"{path} is not as it was written")
    return {name: item for name, item in value.items() if name != "digest"}


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        children = [item.values() if isinstance(item, dict) else item for item in level]
        level = [child for items in children for child in items if isinstance(child, (dict, list))]
        if not level:
            return True
    return False


# Bytes


def read(path: Path, limit: int) -> bytes:
    """All of a file of at most `limit` bytes; CorruptCheckpointError where it is larger or cannot be read."""
    with _reading(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CorruptCheckpointError(f"{path} is larger than {limit:,} bytes: thorndike did not write that")
    return data


def write(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds all of the old or all of the new, whenever the power fails."""
    with _writing(path) as file:
        file.write(data)


def append(path: Path, data: bytes) -> None:
    """Add `data` to the end of a file, which is made if it is not there; where that fails, none of it is added."""
    with open(opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(file.fileno(), size)
            raise


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
    with _reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(path: Path) -> int:
    """How many bytes a file has."""
    with _reading(path) as file:
        return os.fstat(file.fileno()).st_size


def copy(source: Path, target: Path) -> None:
    """A second file of the same bytes; what fails in writing it is no fault of the first."""
    with _writing(target) as written:
        for block in _blocks(source):
            written.write(block)


def _blocks(path: Path) -> Iterator[bytes]:
    with _reading(path) as file:
        while block := file.read(BLOCK):
            yield block


# Arrays


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write a safetensors file, straight from the arrays' own memory; its size and SHA-256.

    The digest is of what was to be written, not of what the disk then gives back.
    """
    ordered = sorted(arrays.items(), key=lambda named: (-named[1].dtype.itemsize, named[0]))  # each at its alignment
    flat = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for _, array in ordered]
    header, end = {}, 0
    for (name, array), data in zip(ordered, flat, strict=True):
        header[name] = {"dtype": _letters(array.dtype), "shape": array.shape, "data_offsets": [end, end + data.nbytes]}
        end += data.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise RunError(f"{path} would have a header of {len(text):,} bytes: these are too many arrays")
    digest, total = hashlib.sha256(), 0
    with _writing(path) as file:
        parts: list[bytes | memoryview] = [len(text).to_bytes(8, "little"), text, *flat]
        for part in parts:
            file.write(part)
            digest.update(part)
            total += len(part)
    return {"size": total, "sha256": digest.hexdigest()}


def open_arrays(path: Path) -> Any:
    """A safetensors file, each array of which is read when it is asked for. CorruptCheckpointError where it is none."""
    with _reading(path) as file:
        header = int.from_bytes(file.read(8), "little")
    if header > MAX_HEADER_BYTES:
        raise CorruptCheckpointError(f"{path} has a header of {header:,} bytes: thorndike did not write that")
    try:
        return safe_open(path, framework="numpy", backend="pread")
    except (SafetensorError, OSError) as error:
        raise CorruptCheckpointError(f"{path} is not a safetensors file: {error}") from None


def _letters(dtype: np.dtype) -> str:
    """A dtype as safetensors names it: F32, U8, BOOL, BF16."""
    if dtype.name == "bfloat16":
        return "BF16"
    if dtype.kind not in "fiub" or dtype.byteorder == ">":
        raise RunError(f"arrays of {dtype} cannot be saved")
    return "BOOL" if dtype.kind == "b" else f"{dtype.kind.upper()}{8 * dtype.itemsize}"


# Folders


def folder_of(run_dir: Any) -> Path:
    """The path of a run folder, there or not; RunError for what can be none."""
    if not isinstance(run_dir, str | os.PathLike):
        raise RunError(f"{shown(run_dir)} cannot be used as a folder: give a path")
    try:
        folder = Path(run_dir)
        str(folder).encode()  # a name of undecodable bytes could be shown nowhere
        with contextlib.suppress(FileNotFoundError):
            os.lstat(folder)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{run_dir!s:.80} cannot be used as a folder: {_reason(error)}") from None
    return folder


def file_of(what: str, endings: Iterable[str], path: Any) -> Path:
    """The path of a file outside any run, which ends in one of `endings`; SettingError for what can be none."""
    path = folder_of(path)
    if path.suffix.lower() not in endings:
        raise SettingError(f"a {what} is a file {' or '.join(endings)}, got {path.name!r}")
    return path


def write_anywhere(path: Path, data: bytes) -> Path:
    """Write a file outside any run, its folder too where that is missing."""
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, data)
    return path


def make_folder(folder: Path) -> None:
    """Make a folder if it is not there. RunError where something else is in its place."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    entries(folder)


def rename(folder: Path, name: str) -> Path:
    """Give a folder another name beside it, which nothing has yet; it lasts once the folder above is synced."""
    renamed = folder.with_name(name)
    os.rename(folder, renamed)
    return renamed


def discard(path: Path) -> None:
    """Delete a folder; renamed first, so that half a folder is never taken for a whole one."""
    renamed = rename(path, f".deleted-{uuid.uuid4().hex[:8]}")
    sync(path.parent)
    remove(renamed)


def remove(path: Path) -> None:
    """Delete a file, a link (not what it leads to) or a folder with all that is in it, as far as that can be."""
    if is_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def taking_the_place_of(path: Path, marker: str = "") -> Iterator[Path]:
    """A path beside `path` for a file or, with `marker`, a folder: it gets its name once it is whole, or is gone again.

    It may take the place of one like it: of a file, or of a folder that is empty or has `marker` in it. RunError where
    something else is there, or the disk refuses.
    """
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    wanted, there = ("a folder", is_folder(path)) if marker else ("a file", exists(path) and not is_folder(path))
    if exists(path) and not (there and (not marker or exists(path / marker) or not entries(path))):
        raise RunError(f"{path} is not {wanted} that thorndike wrote, and stays as it is: choose another name")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with writable(path):
            yield temporary
            for made in sorted(temporary.rglob("*")):
                sync(made)
            if marker and exists(path):
                discard(path)  # no rename puts a folder in the place of another
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        remove(temporary)


def clear_leftovers(folder: Path) -> None:
    """Delete what a writer that was killed has left half done in `folder`."""
    for name in os.listdir(folder):
        if LEFTOVER.fullmatch(name):
            remove(folder / name)


def empty_folder(folder: Path) -> Path:
    """`folder`, made if it is not there; RunError where there is more in it than a killed beginning of a run."""
    with writable(folder):
        taken = exists(folder) and not folder.is_dir()
        if taken or (folder.is_dir() and not all(map(_is_leftover, os.listdir(folder)))):
            again = f"thorndike resume {folder} goes on with it, or choose another folder"
            raise RunError(f"{folder} exists already: {again}")
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_leftover(name: str) -> bool:
    return name == LOCK or LEFTOVER.fullmatch(name) is not None


def unused_folder(parent: Path, name: str) -> Path:
    """A new folder of that name in `parent`, numbered if there is one already."""
    for number in range(1, 1000):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        with writable(folder), contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise RunError(f"{folder} exists already")


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """What the disk refuses (a file where a folder should be, no permission, no space) as a RunError."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null in the name
        raise RunError(f"{folder} cannot be used as a folder to write into: {_reason(error)}") from None


# Locks


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process, and clear it of leftovers; RunError where another one has it."""
    path = folder / LOCK
    with writable(folder):
        descriptor = _open_lock(path)
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.strftime("%Y-%m-%d %H:%M:%S")}
        with writable(folder):
            os.truncate(descriptor, 0)
            os.write(descriptor, json.dumps(owner).encode())
            clear_leftovers(folder)
        yield
    finally:
        try:
            with contextlib.suppress(OSError):
                path.unlink()
        finally:
            os.close(descriptor)


def _open_lock(path: Path) -> int:
    while True:
        descriptor = opened(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _take_lock(descriptor, path)
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == os.lstat(path).st_ino:
                    return descriptor
        except BaseException:  # Ctrl-C too: while it is open, nobody else can have it
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder deleted it in this very moment: once more


def _take_lock(descriptor: int, path: Path) -> None:
    if not _lock(descriptor, path):
        raise RunError(f"{path.parent} is in use by {_owner(path)}")
    owner = _read_owner(path)
    if owner and owner.get("host") != socket.gethostname():
        # The kernel's lock may not reach another machine that shares this disk.
        raise RunError(f"{path.parent} is in use by {_owner(path)}; delete {path} if that run is over")


def _lock(descriptor: int, path: Path) -> bool:
    """Whether nobody else holds the lock; on a disk that knows no locks, nobody can say, and we go on."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in IN_USE:
            return False
        warnings.warn(
            f"{path.parent} is on a disk without locks ({_reason(error)}): see to it that no other process uses it",
            stacklevel=6,
        )
    return True


def _read_owner(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, limit=10_000)
    except RunError:
        return {}


def _owner(path: Path) -> str:
    owner = _read_owner(path)
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('started')}"
