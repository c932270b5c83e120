"""The numbers that the faults come to, written to benchmarks/results/ once all of them have been through."""

from __future__ import annotations

from pathlib import Path

import pytest

TABLE = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.md"
HEAD = """# Faults

Made by `make faults`. What each of them is, and what is promised: [reliability](../../docs/reliability.md).

| fault | tried | recovered or told |
|---|---:|---:|
"""
_rows: dict[str, tuple[int, int]] = {}


@pytest.fixture
def told():
    """Take down how often a fault was tried, and how often all was as it should be."""

    def tell(fault: str, tried: int, right: int) -> None:
        _rows[fault] = (tried, right)
        assert right == tried, f"{fault}: {right} of {tried}"

    return tell


def pytest_sessionfinish(session, exitstatus):
    whole = session.config.args == [str(Path(__file__).parent.relative_to(session.config.rootpath))]
    whole = whole and not session.config.getoption("-k")
    if _rows and exitstatus == 0 and whole and session.config.getoption("-m") == "faults":
        rows = [f"| {fault} | {tried:,} | {right:,} |\n" for fault, (tried, right) in _rows.items()]
        TABLE.write_text(HEAD + "".join(rows))
