"""Rainbow: categorical DQN with the five other improvements of DQN at once."""

from __future__ import annotations

from thorndike.algorithms.c51 import C51
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories import Prioritized, Replay
from thorndike.networks import MLP, Network


@hyperparameters
class Rainbow(C51):
    """C51 with what Hessel et al. (2018), "Rainbow: combining improvements in deep reinforcement learning", joined.

    Each part can be left out, as in their ablations:

    - double Q-learning: `double=False`
    - dueling networks: `dueling=False`
    - prioritized replay: `memory=Replay(window=3)`
    - n-step returns: `memory=Prioritized(window=1)`
    - noisy networks: `network=MLP(), epsilon_start=1.0, epsilon_end=0.02`
    - distributions: `DQN` with the other fields of this class, all of which it has but `atoms`, `v_min` and `v_max`
    """

    network: Network = MLP((64, 64), activation="tanh", initialization="orthogonal", noisy=True)
    dueling: bool = True
    epsilon_start: float = setting(0.0, low=0, high=1)
    epsilon_end: float = setting(0.0, low=0, high=1)
    memory: Replay = Prioritized(capacity=20_000, batch_size=64, window=3, alpha=0.5)
