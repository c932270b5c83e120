"""How everything here is compiled, and where compiled programs are kept between processes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jaxlib

OFF = "THORNDIKE_NO_CACHE"
LOOKED_AT = ".looked-at"  # its time is that of the last start
MIN_SECONDS = 0.1  # of compiling, for a program to be kept

# On CPUs jaxlib 0.10 gives wrong sums from some 16 rows on, where its YNNPACK library fuses one with what it adds up.
# That library keeps the matrix products alone: it is right about them, and DQN is 7 % slower without.
# Every backend knows the option, and only CPUs heed it: so no backend has to be started to decide.
ONLY_PRODUCTS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
OPTIONS = ONLY_PRODUCTS if jaxlib.version.__version_info__ < (0, 11) else {}


def jit(function: Callable, **settings: Any) -> Any:
    """`jax.jit` as every program of this package is compiled: without what the installed XLA is known to get wrong.

    `settings` are those of `jax.jit`. JAX refuses to call such a function inside another compiled one.
    """
    return jax.jit(function, compiler_options=OPTIONS, **settings)


def cache_programs() -> Path | None:
    """Let JAX keep what it compiles; None where that is switched off, already set, or the folder not private."""
    if os.environ.get(OFF) or jax.config.values["jax_compilation_cache_dir"]:
        return None
    folder = _private_folder()
    if folder is None:
        return None
    _remove_unreadable(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder


def _remove_unreadable(folder: Path) -> None:
    """Delete the entries that a crash has cut short: JAX would compile those programs at every start, for ever.

    It replaces no entry that is there. Each is looked at once, at the first start after it was written.
    """
    stamp = folder / LOOKED_AT
    try:
        from jax._src.compilation_cache import decompress_executable

        before = stamp.stat().st_mtime_ns if stamp.exists() else 0
        stamp.touch(mode=0o600)
        for path in folder.glob("*-cache"):
            if path.stat().st_mtime_ns >= before and not _passes(decompress_executable, path.read_bytes()):
                path.unlink()
    except (OSError, ImportError):
        return  # a full disk, another process that does the same, another JAX: then all is as it was


def _passes(function: Callable, data: bytes) -> bool:
    try:
        function(data)
    except Exception:  # of whichever library compresses
        return False
    return True


def _private_folder() -> Path | None:
    """Programs in it are run as they are: it must be the user's, and nobody else may write into it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "thorndike" / "jax"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except (OSError, RuntimeError):
        return None
    if os.name == "nt":
        return folder
    private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return folder if private else None
