"""DQN where every step of the environment takes its time: copies in worker processes, acting while learning.

CartPole, each step of which sleeps. Written down is how near training comes to the rate of random actions by the same
workers, what was learned, and what stable-baselines3's SubprocVecEnv makes of the first case in the same run.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import peers
import reporting

HERE = Path(__file__).parent / "entrants"
COMMON = {"batch_size": 128, "target_period": 128, "seed": 0, "overlap": True, "random_steps": 500}
CASES = {
    "2 ms, 4 copies, 4 workers": {"seconds": 0.002, "copies": 4, "workers": 4, "rollout_length": 32, "steps": 50_000},
    "20 ms, 16 copies, 8 workers": {"seconds": 0.02, "copies": 16, "workers": 8, "rollout_length": 8, "steps": 40_000},
}
BASELINES_STEPS = 15_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="of every case")
    parser.add_argument("--alone", action="store_true", help="without stable-baselines3")
    given = parser.parse_args()
    results = {}
    for name, case in CASES.items():
        job = COMMON | case | ({"steps": given.steps} if given.steps else {}) | {"baselines_steps": BASELINES_STEPS}
        print(name, flush=True)
        results[name] = {"job": job} | reporting.measured(
            [sys.executable, str(HERE / "slow_thorndike.py"), json.dumps(job)]
        )
        print(results[name], flush=True)
    without = COMMON | CASES["2 ms, 4 copies, 4 workers"] | {"overlap": False, "steps": given.steps or 20_000}
    results["without overlap"] = {"job": without} | reporting.measured(
        [sys.executable, str(HERE / "slow_thorndike.py"), json.dumps(without)]
    )
    print(results["without overlap"], flush=True)
    theirs = None
    if not given.alone:
        python = peers.pythons()["stable-baselines3"]
        first = next(iter(results.values()))["job"]
        theirs = reporting.measured([python, str(HERE / "slow_baselines.py"), json.dumps(first)])
        print(theirs, flush=True)
    write(results, theirs)


def write(results: dict, theirs: dict | None) -> None:
    rows = [
        [
            name, f"{x['random_per_second']:.0f}", f"{x['steps_per_second']:.0f}", f"{100 * x['share']:.0f} %",
            f"{x['job']['steps']:,}", f"{x['training_return']:.0f}", f"{x['evaluation_return']:.0f}",
        ]
        for name, x in results.items()
    ]  # fmt: skip
    header = ["", "random actions, steps/s", "training, steps/s", "share", "steps", "last 100 episodes", "greedy"]
    text = (
        "# Workers, and acting while learning\n\nDQN with two layers of 64, a batch of 128 and one update a step, in "
        f"CartPole whose steps sleep; one seed, {reporting.machine()}. The share is training's rate of that of random "
        f"actions by the same workers.\n\n{reporting.table(header, rows)}\n"
    )
    if theirs is not None:
        ratio = next(iter(results.values()))["steps_per_second"] / theirs["steps_per_second"]
        text += (
            "\nstable-baselines3 with SubprocVecEnv, the first case, in the same run: "
            f"{theirs['steps_per_second']:.0f} steps/s; thorndike takes {ratio:.1f} times as many.\n"
        )
    reporting.write("workers", {"results": results, "stable-baselines3": theirs}, text)
    print(text)


if __name__ == "__main__":
    main()
