"""Every command of docs/elsewhere.md, run as it is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

PAGE = Path(__file__).parents[2] / "docs" / "elsewhere.md"
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
BLOCKS = [block for language, block in FENCED if not language and "HEAD:" not in block]


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0][:60] for block in BLOCKS])
def test_commands_run_as_they_are_printed(block, tmp_path):
    assert "thorndike" in block
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(tmp_path),  # where Ray keeps a token
    }
    command = ["bash", "-euo", "pipefail", "-c", block]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "greedy return" in done.stdout
