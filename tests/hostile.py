"""Run folders as a stranger, a bad disk or a slip of the hand would leave them; made by code, each from a whole one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a sealed JSON file and seal it again; what `change` returns, if anything, takes its place."""
    value = json.loads(path.read_text())
    value.pop("digest", None)
    value = change(value) or value
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(value | {"digest": digest}))
