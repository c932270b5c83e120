"""thorndike: deep reinforcement learning, compiled or on any Gymnasium environment, with the same algorithm text.

    import thorndike as td

    run = td.train(td.DQN(), "CartPole-v1", steps=50_000)
    run.agent.act(observation)

Names are imported when they are first used: `import thorndike` itself costs nothing and starts no backend.
"""

# ruff: noqa: F401 (the imports below are for type checkers and editors alone)
# Nothing of others is imported here: under `python -m thorndike` the current folder, whoever's, still leads the path.
from thorndike import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thorndike.algorithms.a2c import A2C
    from thorndike.algorithms.bootstrapped_dqn import BootstrappedDQN
    from thorndike.algorithms.c51 import C51
    from thorndike.algorithms.crossq import CrossQ
    from thorndike.algorithms.discrete_sac import DiscreteSAC
    from thorndike.algorithms.dqn import DQN
    from thorndike.algorithms.droq import DroQ
    from thorndike.algorithms.fast_td3 import FastTD3
    from thorndike.algorithms.impala import IMPALA
    from thorndike.algorithms.iqn import IQN
    from thorndike.algorithms.ppo import PPO
    from thorndike.algorithms.pqn import PQN
    from thorndike.algorithms.qrdqn import QRDQN
    from thorndike.algorithms.rainbow import Rainbow
    from thorndike.algorithms.redq import REDQ
    from thorndike.algorithms.reinforce import REINFORCE
    from thorndike.algorithms.sac import SAC
    from thorndike.algorithms.td3 import DDPG, TD3
    from thorndike.algorithms.tqc import TQC
    from thorndike.algorithms.trpo import TRPO
    from thorndike.environments import make
    from thorndike.environments.functional import Vectorized
    from thorndike.errors import (
        CorruptCheckpointError,
        EnvironmentFault,
        MissingExtraError,
        OrderError,
        RunError,
        SettingError,
        ThorndikeError,
        UnknownNameError,
        UnsafeCheckpointError,
        UnsuitableError,
    )
    from thorndike.examination import Examination, check
    from thorndike.intrinsic import RND, Counts
    from thorndike.learner import Learner
    from thorndike.memories import FrameReplay, Latest, Prioritized, PrioritizedFrames, Replay
    from thorndike.networks import CNN, GRU, LSTM, MLP, Attention, MinGRU, RenormalizedMLP, Same, SimBa
    from thorndike.optimizers import SGD, Adam, AdamW, RAdam, RMSProp
    from thorndike.runs.agents import Agent
    from thorndike.runs.load import load
    from thorndike.runs.resume import resume
    from thorndike.runs.run import Run
    from thorndike.runs.settings_files import load_settings, save_settings
    from thorndike.runs.train import train, training
    from thorndike.sweeps.sweep import Sweep, sweep
    from thorndike.sweeps.tune import Search, tune

_HOMES = {name: f"algorithms.{known.file}" for name, known in names.ALGORITHMS.items()} | {
    "Adam": "optimizers",
    "AdamW": "optimizers",
    "Agent": "runs.agents",
    "Attention": "networks",
    "CNN": "networks",
    "Counts": "intrinsic",
    "Examination": "examination",
    "FrameReplay": "memories",
    "GRU": "networks",
    "LSTM": "networks",
    "Latest": "memories",
    "Learner": "learner",
    "MLP": "networks",
    "MinGRU": "networks",
    "Prioritized": "memories",
    "PrioritizedFrames": "memories",
    "RAdam": "optimizers",
    "RND": "intrinsic",
    "RMSProp": "optimizers",
    "RenormalizedMLP": "networks",
    "Replay": "memories",
    "Run": "runs.run",
    "SGD": "optimizers",
    "Same": "networks",
    "Search": "sweeps.tune",
    "SimBa": "networks",
    "Sweep": "sweeps.sweep",
    "Vectorized": "environments.functional",
    "check": "examination",
    "load": "runs.load",
    "load_settings": "runs.settings_files",
    "make": "environments",
    "resume": "runs.resume",
    "save_settings": "runs.settings_files",
    "sweep": "sweeps.sweep",
    "train": "runs.train",
    "training": "runs.train",
    "tune": "sweeps.tune",
    "CorruptCheckpointError": "errors",
    "EnvironmentFault": "errors",
    "MissingExtraError": "errors",
    "OrderError": "errors",
    "RunError": "errors",
    "SettingError": "errors",
    "ThorndikeError": "errors",
    "UnknownNameError": "errors",
    "UnsafeCheckpointError": "errors",
    "UnsuitableError": "errors",
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name == "__version__":
        from importlib import metadata

        return metadata.version("thorndike")
    if name not in _HOMES:
        from thorndike.errors import nearest

        raise AttributeError(f"thorndike has no '{name}'.{nearest(name, __all__)}")
    import importlib

    value = getattr(importlib.import_module(f"thorndike.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*__all__, "__version__"])
