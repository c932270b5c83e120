"""One measurement of our command from the shell to its end, twice: with nothing kept, and again. Prints JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main(job: dict) -> None:
    command = Path(sys.executable).with_name("thorndike")
    with tempfile.TemporaryDirectory() as folder:
        found = {name: seconds([command, *job["arguments"]], Path(folder), name) for name in ("first", "again")}
    print(json.dumps(found))


def seconds(command: list, folder: Path, name: str) -> float:
    """How long a run takes. What it compiles is kept in `folder`, and only there."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    environment.pop("THORNDIKE_NO_CACHE", None)
    command = [*command, "--run-dir", str(folder / name)]
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


main(json.loads(sys.argv[1]))
