"""Compare the speed of training, side by side, with the same hyper-parameters, network and number of updates.

    python benchmarks/speed.py --peers .venv-peers/bin/python            everything, about a quarter of an hour
    python benchmarks/speed.py --peers .venv-peers/bin/python --quick    two short rounds, to look: minutes

Every measurement is a process of its own; entrants take turns (A B C A B C ...), and what counts is the median over
the rounds. Compiling is reported apart. A peer is a script in benchmarks/entrants/ that is given a task as JSON and
prints {"steps_per_second", "compile", "wall_rate"}, and an entry in `entrants`; its packages stand in peers.txt.
Writes benchmarks/results/speed.{json,md}, or speed-quick.{json,md}.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import reporting

SCRIPTS = Path(__file__).parent / "entrants"


@dataclasses.dataclass(frozen=True)
class Task:
    """What is measured. Steps differ by entrant so that each measures for some ten seconds."""

    name: str
    algorithm: str
    settings: dict[str, Any]
    ours: str  # the environment's id here
    theirs: str  # and elsewhere
    steps: dict[str, int]  # by library
    floor: float  # how many times the best peer's rate
    goal: float


CLEANRL = {
    "sizes": [64, 64], "num_environments": 4, "rollout_length": 128, "batch_size": 128, "epochs": 4,
    "learning_rate": 2.5e-4, "learning_rate_end": 0.0, "gamma": 0.99, "gae_lambda": 0.95, "clip_range": 0.2,
    "clip_value": True, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5,
}  # fmt: skip
EIGHT_COPIES = CLEANRL | {"num_environments": 8, "batch_size": 256}
DQN = {
    "sizes": [64, 64], "num_environments": 1, "rollout_length": 1, "updates_per_rollout": 1, "batch_size": 128,
    "capacity": 10_000, "warmup_steps": 128, "learning_rate": 2.5e-4, "gamma": 0.99, "target_period": 500,
    "epsilon_start": 1.0, "epsilon_end": 0.05, "exploration_fraction": 0.5, "max_grad_norm": 10.0,
}  # fmt: skip

TASKS = [
    Task("PPO CartPole, compiled, CleanRL's settings (4 x 128, 4 minibatches of 128, 4 epochs, separate 2x64 tanh)",
         "ppo", CLEANRL, "CartPole-v1", "CartPole-v1", {"thorndike": 500_000, "stable-baselines3": 40_000}, 10, 12),
    Task("DQN CartPole, compiled, 2x64, batch 128, one update a step, one environment",
         "dqn", DQN, "CartPole-v1", "CartPole-v1", {"thorndike": 40_000, "stable-baselines3": 4_000}, 8, 10),
    Task("PPO gymnasium:CartPole-v1, 8 copies x 128, minibatches of 256, 4 epochs, separate 2x64 tanh",
         "ppo", EIGHT_COPIES, "gymnasium:CartPole-v1", "CartPole-v1",
         {"thorndike": 100_000, "stable-baselines3": 50_000}, 2, 3),
]  # fmt: skip
SEEDS = 4
SEEDS_FLOOR, SEEDS_GOAL = 1.6, 1.9  # the rate of four DQN seeds on two cores to that of one


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A library in one configuration."""

    library: str
    note: str
    python: str
    script: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.library}, {self.note}" if self.note else self.library


def entrants(peers: str) -> list[Entrant]:
    """Who takes turns: every peer in each configuration that may be its best."""
    ours = Entrant("thorndike", "", sys.executable, "ours.py", {})
    threads = dict.fromkeys((1, min(2, os.cpu_count() or 1), os.cpu_count() or 1))
    sb3 = [Entrant("stable-baselines3", f"torch threads {n}", peers, "sb3.py", {"threads": n}) for n in threads]
    return [ours, *sb3]


def main() -> None:
    arguments = parse()
    rounds, share = (2, 0.2) if arguments.quick else (arguments.rounds, 1.0)
    results = []
    for task in TASKS:
        if arguments.tasks in task.name:
            print(task.name, flush=True)
            jobs = {entrant.name: (entrant, job(task, entrant, share)) for entrant in entrants(arguments.peers)}
            results.append(compare(task, interleaved(jobs, rounds)))
    if arguments.tasks in "seeds":
        print(f"{SEEDS} DQN seeds", flush=True)
        ours, task = entrants(arguments.peers)[0], TASKS[1]
        jobs = {f"{n} seed{'s' * (n > 1)}": (ours, job(task, ours, share) | {"seeds": n}) for n in (1, SEEDS)}
        results.append(seeds_result(interleaved(jobs, rounds)))
    about = {
        "machine": reporting.machine(), "date": time.strftime("%Y-%m-%d"), "rounds": rounds, "quick": arguments.quick,
        "versions": packages(sys.executable), "peers": packages(arguments.peers),
    }  # fmt: skip
    reporting.write("speed-quick" if arguments.quick else "speed", about | {"results": results}, report(about, results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, help="the Python that has what peers.txt names")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tasks", default="", help='only tasks whose name holds this; "seeds" is one too')
    return parser.parse_args()


def job(task: Task, entrant: Entrant, share: float) -> dict[str, Any]:
    """What a script is given."""
    steps = int(task.steps[entrant.library] * share)
    common = {"algorithm": task.algorithm, "settings": task.settings, "ours": task.ours, "theirs": task.theirs}
    return common | {"steps": steps} | entrant.settings


def interleaved(jobs: dict[str, tuple[Entrant, dict]], rounds: int) -> dict[str, list[dict]]:
    """Measurements by name, everyone's first before anyone's second."""
    found: dict[str, list[dict]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, (entrant, asked) in jobs.items():
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
            command = [entrant.python, str(SCRIPTS / entrant.script), json.dumps(asked)]
            # Programs that were kept from an earlier process would hide what compiling takes.
            result = reporting.measured(command, {"THORNDIKE_NO_CACHE": "1"})
            found[name].append(result | {"load_before": load})
            rates = f"{result['steps_per_second']:,.0f} steps/s ({result['wall_rate']:,.0f} by the clock on the wall)"
            print(f"  {name}: {rates}", flush=True)
    return found


def compare(task: Task, found: dict[str, list[dict]]) -> dict[str, Any]:
    """Ours over the best configuration of each peer."""
    ours = median(found["thorndike"])
    best: dict[str, float] = {}
    for name, measurements in found.items():
        library = name.partition(",")[0]
        if library != "thorndike":
            best[library] = max(best.get(library, 0.0), median(measurements))
    ratios = {library: ours / rate for library, rate in best.items()}
    return {"task": task.name, "settings": task.settings, "ratios": ratios, "floor": task.floor, "goal": task.goal,
            "against": "stable-baselines3", "measurements": found}  # fmt: skip


def seeds_result(found: dict[str, list[dict]]) -> dict[str, Any]:
    """The rate of several seeds, all steps counted, over that of one; by the clock on the wall, compiling apart."""
    one, several = (median(found[f"{n} seed{'s' * (n > 1)}"], "wall_rate") for n in (1, SEEDS))
    return {"task": f"{SEEDS} DQN seeds side by side, all their steps counted, over one seed alone",
            "settings": DQN, "ratios": {"one seed": several / one}, "floor": SEEDS_FLOOR, "goal": SEEDS_GOAL,
            "against": "one seed", "measurements": found}  # fmt: skip


def median(measurements: list[dict], what: str = "steps_per_second") -> float:
    return statistics.median(measurement[what] for measurement in measurements)


def packages(python: str) -> dict[str, str]:
    """The versions of what an entrant's numbers depend on."""
    names = ["thorndike", "jax", "jaxlib", "numpy", "gymnasium", "torch", "stable-baselines3"]
    code = f"""
import json, platform
from importlib import metadata
found = {{"python": platform.python_version()}}
for name in {names!r}:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
    return json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)


def report(about: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """The page that is committed."""
    sections = []
    for result in results:
        ratio = result["ratios"][result["against"]]
        reached = (
            "goal reached" if ratio >= result["goal"] else "floor reached" if ratio >= result["floor"] else "missed"
        )
        rows = []
        for name, measurements in result["measurements"].items():
            rate = "wall_rate" if result["against"] == "one seed" else "steps_per_second"
            rates = [measurement[rate] for measurement in measurements]
            compiling = median(measurements, "compile")
            rows.append([name, f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}",
                         f"{compiling:.1f}" if compiling else ""])  # fmt: skip
        header = ["", "steps/s, median", "lowest to highest", "compiling, s"]
        ratios = ", ".join(f"**{value:.1f}x** {library}" for library, value in result["ratios"].items())
        aims = f"floor {result['floor']:g}x, goal {result['goal']:g}x: {reached}"
        sections.append(f"## {result['task']}\n\n{ratios} ({aims})\n\n{reporting.table(header, rows)}")
    versions = {name: ", ".join(f"{package} {version}" for package, version in about[name].items()) for name in
                ("versions", "peers")}  # fmt: skip
    return SPEED.format(sections="\n\n".join(sections), **about | versions)


SPEED = """# Speed

Steps of the environment per second of training, acting and learning together, with the same hyper-parameters, network
and number of updates. Median of {rounds} runs, each in a process of its own, entrants taking turns; compiling apart
(nothing kept from earlier runs). A peer counts with its best number of threads. Made by `make speed` on {date}.

{machine}

Ours: {versions}. Peers: {peers}.

{sections}
"""


if __name__ == "__main__":
    main()
