"""PPO and DQN on the games of MinAtar, compiled, beside Rejax: steps a second, compiling, and returns.

Equal settings, one seed, one after the other; a dense network and a convolution of 16 kernels of 3x3 before a dense
layer of 128. Ours on gymnax 1, theirs on the gymnax that they take: the games are the same. Returns are of a hundred
episodes: the last ones of training, and after it, as each library plays then (Rejax's PPO draws actions, ours takes the
likeliest; neither DQN explores much). Programs of ours that were compiled before come from the cache.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import peers
import reporting

GAMES = ("Breakout", "Freeway", "Asterix", "SpaceInvaders")
PPO = {
    "num_environments": 64, "rollout_length": 128, "epochs": 4, "batch_size": 1024, "learning_rate": 5e-4,
    "learning_rate_end": 0.0, "gamma": 0.99, "gae_lambda": 0.95, "clip_range": 0.2, "ent_coef": 0.01, "vf_coef": 0.5,
    "max_grad_norm": 0.5, "sizes": [64, 64],
}  # fmt: skip
DQN = {
    "num_environments": 128, "rollout_length": 1, "updates_per_rollout": 1, "batch_size": 64, "capacity": 100_000,
    "warmup_steps": 10_000, "learning_rate": 1e-4, "gamma": 0.99, "target_period": 125, "epsilon_start": 1.0,
    "epsilon_end": 0.01, "exploration_steps": 250_000, "max_grad_norm": 0.5, "sizes": [128, 128, 128, 128],
}  # fmt: skip
SETTINGS = {"ppo": PPO, "dqn": DQN}
WHY_NOT_FIVE_TIMES = """\
DQN with a convolution was to be five times as fast. A network sees 0.34 million multiplications and additions a step;
128 steps are acted and 64 learned from, with five passes, which is 1.2 million for each step of the environment. At
114,070 steps/s that is 134 thousand million a second on these two cores; five times Rejax would be 200, and faster than
the dense network. Rejax, which learns from so few steps here, loses less by its convolutions than in PPO."""
HERE = Path(__file__).parent / "entrants"
# By algorithm and network: steps of ours, and of theirs where theirs would take too long.
STEPS = {
    ("ppo", "dense"): (5_000_000, 5_000_000), ("dqn", "dense"): (4_000_000, 1_000_000),
    ("ppo", "convolution"): (2_000_000, 100_000), ("dqn", "convolution"): (1_000_000, 300_000),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="*", default=GAMES)
    parser.add_argument("--algorithms", nargs="*", default=list(SETTINGS))
    parser.add_argument("--networks", nargs="*", default=["dense", "convolution"])
    parser.add_argument("--share", type=float, default=1.0, help="of the steps")
    given = parser.parse_args()
    rejax = peers.pythons()["rejax"]
    results: list[dict[str, Any]] = []
    for algorithm in given.algorithms:
        for network in given.networks:
            for game in given.games:
                for library, python, script, steps in (
                    ("thorndike", sys.executable, "minatar_thorndike.py", STEPS[algorithm, network][0]),
                    ("rejax", rejax, "minatar_rejax.py", STEPS[algorithm, network][1]),
                ):
                    job = {"game": game, "algorithm": algorithm, "network": network, "settings": SETTINGS[algorithm]}
                    job["steps"] = int(steps * given.share)
                    measured = reporting.measured([python, str(HERE / script), json.dumps(job)])
                    results.append({"library": library, **job, **measured})
                    print(library, algorithm, network, game, measured, flush=True)
    reporting.write("minatar", {"results": results}, page(results))


def page(results: list[dict[str, Any]]) -> str:
    """The table, a row for each pair of measurements."""
    rows = []
    for ours, theirs in zip(results[::2], results[1::2], strict=True):
        rows.append(
            [
                ours["algorithm"].upper(), ours["network"], ours["game"],
                *(f"{x['steps_per_second']:,.0f}" for x in (ours, theirs)),
                f"{ours['steps_per_second'] / theirs['steps_per_second']:.2f}x",
                *(f"{x['compile']:.0f}" for x in (ours, theirs)),
                *(f"{x['steps'] / 1e6:g}M" for x in (ours, theirs)),
                *(f"{value:.1f}" for value in (ours["training_return"], ours["return"], theirs["return"])),
            ]
        )  # fmt: skip
    header = [
        "", "network", "game", "steps/s", "Rejax", "ratio", "compiling, s", "Rejax", "steps", "Rejax",
        "return in training", "after", "Rejax, after",
    ]  # fmt: skip
    text = (__doc__ or "").split("\n\n")
    table = reporting.table(header, rows)
    ran_on = f"{reporting.machine()}; one run each."
    return "\n\n".join(["# MinAtar", text[0], text[1], ran_on, table, WHY_NOT_FIVE_TIMES]) + "\n"


if __name__ == "__main__":
    main()
