"""The examples in the documentation run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import thorndike as td

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", (DOCS / "environments.md").read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_an_environment_from_the_documentation_trains(example, monkeypatch):
    train = td.train

    def shortly(algorithm, environment, steps):
        return train(algorithm, environment, steps=1, evaluate_every=0, run_dir=None, quiet=True)

    monkeypatch.setattr(td, "train", shortly)
    names = {"__name__": "example"}
    exec(compile(EXAMPLES[example], f"environments.md, example {example}", "exec", dont_inherit=True), names)
    assert names["run"].summary["steps"] > 0
