"""The numbers that the faults come to, written to benchmarks/results/."""

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
        assert right == tried, f"{fault}: {right} of {tried}"
        _rows[fault] = (tried, right)

    return tell


def pytest_sessionfinish(session):
    """Write the rows of what was tried at length; those of other faults stay as they are."""
    if _rows and session.config.getoption("-m") == "faults":
        lines = TABLE.read_text(encoding="utf-8").removeprefix(HEAD).splitlines() if TABLE.exists() else []
        rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
        rows |= {fault: f"| {fault} | {tried:,} | {right:,} |" for fault, (tried, right) in _rows.items()}
        TABLE.write_text(HEAD + "".join(f"{row}\n" for row in rows.values()), encoding="utf-8")
