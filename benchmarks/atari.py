"""DQN on an Atari game beside stable-baselines3, for as many steps, one after the other in one run.

The same settings, each library with its own Atari: ours by EnvPool, theirs by ale-py. Written down are steps a second
by the clock, the most memory that the process ever held, and returns: of the last hundred training episodes, and of ten
games by the agent that is left, acting greedily.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import peers
import reporting

SETTINGS = {
    "steps": 200_000, "warmup_steps": 10_000, "capacity": 100_000, "batch_size": 32, "learning_rate": 1e-4,
    "gamma": 0.99, "train_every": 4, "target_period": 1_000, "epsilon_end": 0.01, "exploration_fraction": 0.1,
    "max_grad_norm": 10.0, "seed": 0,
}  # fmt: skip
HERE = Path(__file__).parent / "entrants"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--steps", type=int, default=SETTINGS["steps"])
    given = parser.parse_args()
    job = json.dumps(SETTINGS | {"game": given.game, "steps": given.steps})
    entrants = {
        "thorndike": (sys.executable, "atari_thorndike.py"),
        "stable-baselines3": (peers.pythons()["stable-baselines3"], "atari_baselines.py"),
    }
    results = {}
    for name, (python, script) in entrants.items():
        print(f"{name}: {given.steps:,} steps of {given.game}", flush=True)
        results[name] = reporting.measured([python, str(HERE / script), job])
        print(results[name], flush=True)
    rows = [
        [
            name, f"{x['steps_per_second']:.0f}", f"{x['compile']:.0f} s", f"{x['peak_bytes'] / 1e9:.1f} GB",
            f"{x['training_return']:.1f}", f"{x['evaluation_return']:.1f}",
        ]
        for name, x in results.items()
    ]  # fmt: skip
    ratio = results["thorndike"]["steps_per_second"] / results["stable-baselines3"]["steps_per_second"]
    header = ["", "steps/s", "compiling", "peak memory", "last 100 training episodes", "10 games at the end"]
    text = (
        f"# DQN on {given.game}\n\n{given.steps:,} steps, one after the other on one machine: {reporting.machine()}. "
        f"A batch of 32 every four steps, a memory of {SETTINGS['capacity']:,} steps, one seed.\n\n"
        f"{reporting.table(header, rows)}\n\nthorndike takes {ratio:.2f} times as many steps a second.\n"
    )
    reporting.write("atari", {"settings": json.loads(job), "results": results, "ratio": ratio}, text)
    print(text)


if __name__ == "__main__":
    main()
