"""What both benchmarks tell about where and with what they ran, and how they write it down."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TIMEOUT = 120  # seconds of one measurement
# What a shell may have set that would slow some down: kernels of OpenBLAS chosen by hand, sources that are compiled
# anew at every start; and programs of JAX that were kept, which would hide what compiling takes.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE", "JAX_COMPILATION_CACHE_DIR")


def machine() -> str:
    """The machine in words: processor, cores, memory, system, Python."""
    memory = ""
    if hasattr(os, "sysconf"):
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return f"{_processor()}, {os.cpu_count()} cores{memory}, {platform.system()}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def measured(command: list[str]) -> dict[str, Any]:
    """Run a command in a process of its own; the JSON object that it prints last. What it says beside is shown."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def tried(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """As `measured`, but with nothing shown, and {"error": its last line} where that fails."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=kept | environment, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {TIMEOUT} s"}
    except OSError as error:
        return {"error": f"{Path(command[0]).name}: {error.strerror}"}
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"error": said[-1].replace("|", "/").replace(f"{ROOT}{os.sep}", "")}
    return json.loads(done.stdout.strip().splitlines()[-1])


def write(name: str, data: Any, markdown: str, folder: Path = RESULTS) -> None:
    """`name`.json and `name`.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
