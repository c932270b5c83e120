"""Virtual environments for the other libraries, one each, as peers.txt says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LIST = Path(__file__).with_name("peers.txt")
FOLDER = Path(__file__).parents[1] / ".venv-peers"


def pythons(folder: Path = FOLDER) -> dict[str, str]:
    """The Python of every peer, whose packages are installed first where they are not yet.

    An installation that fails is shown and left: what is measured with it fails, and is reported so.
    """
    found = {}
    for name, requirements in wanted().items():
        place = folder / name
        python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        installed = place / "installed.txt"
        if not installed.exists() or installed.read_text() != requirements:
            print(f"installing {name} into {place} (once, some minutes)", flush=True)
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements.split()]
            made = subprocess.run([sys.executable, "-m", "venv", place]).returncode == 0
            if made and subprocess.run(install).returncode == 0:
                installed.write_text(requirements)
        found[name] = str(python)
    return found


def wanted(text: str | None = None) -> dict[str, str]:
    """The requirements of each peer by name: lines `name: requirement requirement`."""
    lines = (LIST.read_text() if text is None else text).splitlines()
    entries = (line.partition(":") for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): requirements.strip() for name, _, requirements in entries}
