"""Settings that a search finds for PPO on Pendulum-v1, beside its defaults, on ten seeds that it has not seen.

    python benchmarks/tune.py                    some minutes
    python benchmarks/tune.py --trials 10        a shorter search

The defaults are those of `td.PPO()`, with which it hardly learns there. Writes benchmarks/results/tune.{json,md}.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import reporting

import thorndike as td
from thorndike.hyperparameters import to_json

ENVIRONMENT, STEPS, SEEDS, FRESH = "Pendulum-v1", 100_000, 2, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    given = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = td.tune(
            td.PPO(), ENVIRONMENT, STEPS, trials=given.trials, seeds=SEEDS, fresh_seeds=FRESH,
            run_dir=Path(folder) / "search",
        )  # fmt: skip
        lines = [line for line in found.lines if not line.startswith("thorndike ")]  # those name the folder
        data = {
            "trials": found.trials,
            "found": found.best,
            "algorithm": to_json(found.algorithm),
            "compared": [{"settings": row.settings, "result": row.result} for row in found.check.table],
            "seconds": time.perf_counter() - began,
            "machine": reporting.machine(),
        }
    values = "\n".join(f"- `{path}` {value}" for path, value in data["found"].items())
    printed = "\n".join(lines)
    text = (
        f"# Searching for settings\n\n{(__doc__ or '').split(chr(10))[0]} {given.trials} trials of {SEEDS} seeds and "
        f"{STEPS:,} steps each.\n\n```\n{printed}\n```\n\nFound:\n\n{values}\n\n{data['seconds']:,.0f} seconds in all. "
        f"Run on {data['machine']}.\n"
    )
    print(text)
    reporting.write("tune", data, text)


if __name__ == "__main__":
    main()
