"""Loading: the run that a folder holds, as an object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thorndike import compilation, snapshots
from thorndike.errors import RunError
from thorndike.interface import words
from thorndike.persistence import folder_of
from thorndike.runs import folders
from thorndike.runs.agents import Agent
from thorndike.runs.configuration import ENVIRONMENT, EVALUATION_ENVIRONMENT
from thorndike.runs.recording import bests
from thorndike.runs.run import Run


def load(
    run_dir: str | Path,
    *,
    environment: Any = None,
    evaluation_environment: Any = None,
    algorithm: Any = None,
    network: Any = None,
    **recipes: Any,
) -> Run:
    """The run in a folder, as far as its newest whole checkpoint. Safe on a folder from a stranger: no code runs.

    `network` (and `critic_network`, ...) is handed in again where it was your own, `algorithm` (and `memory`) where its
    class was: give the class, or an object of it; the hyper-parameters are those of the run. `environment` (or
    `evaluation_environment`) is handed in where `Run.evaluate` should use one that is your own. RunError or a kind of
    it where the folder is none of ours.
    """
    folder = folder_of(run_dir)
    run, checkpoint = folders.read(folder, words.handed_in(algorithm, network, recipes))
    compilation.cache_programs()
    if checkpoint is None:
        raise RunError(f"{folder} has no checkpoint yet")
    agents, stand = [], []
    for seed, entry in sorted(checkpoint.seeds.items()):
        arrays = checkpoint.arrays(seed, snapshots.STATE)
        state = snapshots.arrays_to_state(run.algorithm, run.observation_space, run.action_space, arrays)
        fraction = entry["iteration"] / max(1, checkpoint.iterations)
        agents.append(Agent(run.algorithm, state, run.observation_space, run.action_space, fraction))
        stand.append((seed, entry["iteration"]))
    given = {ENVIRONMENT: environment, EVALUATION_ENVIRONMENT: evaluation_environment}
    summary, rows = folders.summary(folder, run.id), folders.rows(folder, checkpoint)
    return Run(run, given, folder, summary, rows, agents, stand, bests(run, checkpoint))
