"""Recorded hyper-parameters per algorithm and environment, each with the result that it is known to give.

A name on the command line, or given to `td.train`, takes these; an object is used exactly as it is. Keys hold the
environment's id without a prefix: the compiled twin and Gymnasium's own share them. Results of runs that take seconds
are means over dozens of seeds; three do not show what fails in one of ten.
"""

from __future__ import annotations

import dataclasses
from typing import Any

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
from thorndike.core import Algorithm
from thorndike.memories import FrameReplay, Prioritized, Replay
from thorndike.networks import CNN, GRU, MLP, RenormalizedMLP
from thorndike.optimizers import RMSProp


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Settings that work: the algorithm, for how long, and what comes of it."""

    algorithm: Algorithm
    steps: int
    result: str


def recorded(algorithm: str, environment: Any) -> Recorded | None:
    """The settings recorded for an algorithm's name ("dqn") and an environment's id, with any prefix; else None.

    Those of a whole family ("atari:") hold for each of it that has none of its own.
    """
    if not isinstance(environment, str):
        return None
    prefix, colon, id = environment.rpartition(":")
    return RECORDED.get((algorithm.lower(), id)) or RECORDED.get((algorithm.lower(), prefix + colon))


def solved_at(environment: Any) -> float | None:
    """The mean return at which an environment's id counts as solved; None where nobody says."""
    return SOLVED_AT.get(environment.rpartition(":")[2]) if isinstance(environment, str) else None


SOLVED_AT = {
    "CartPole-v1": 475.0, "MountainCar-v0": -110.0, "Acrobot-v1": -100.0, "LunarLander-v3": 200.0,
    "LunarLanderContinuous-v3": 200.0,
    "FrozenLake-v1": 0.70, "FrozenLake8x8-v1": 0.85,
}  # Gymnasium's; that of Taxi-v4 is left out: its 8 lies above the optimum, 7.93  # fmt: skip

# CleanRL's ppo.py, with its learning rate falling to nothing.
CLEANRL_PPO = PPO(
    num_environments=4,
    rollout_length=128,
    epochs=4,
    batch_size=128,
    learning_rate=2.5e-4,
    learning_rate_end=0.0,
    clip_value=True,
    ent_coef=0.01,
)

# Its ppo_continuous_action.py, whose 2048 steps are acted in eight copies.
CLEANRL_MUJOCO = PPO(
    num_environments=8,
    rollout_length=256,
    epochs=10,
    batch_size=64,
    learning_rate_end=0.0,
    clip_value=True,
    normalize_observations=True,
    normalize_rewards=True,
)

# One weight for each state and output: what a Discrete observation makes of a network without hidden layers.
TABLE = MLP((), initialization="default")
TABLE_DQN = DQN(
    network=TABLE,
    learning_rate=3e-2,
    target_period=20,
    num_environments=16,
    rollout_length=4,
    updates_per_rollout=8,
    epsilon_end=0.05,
    memory=Replay(50_000, 128),
)
TABLE_PPO = PPO(
    network=TABLE,
    num_environments=16,
    rollout_length=128,
    epochs=4,
    batch_size=256,
    learning_rate=2e-2,
    learning_rate_end=0.0,
    ent_coef=0.05,
    normalize_rewards=True,
)

CLASSIC_A2C = A2C(
    rollout_length=16,
    learning_rate=4e-3,
    learning_rate_end=0.0,
    gae_lambda=0.95,
    vf_coef=1.0,
    normalize_rewards=True,
)
CLASSIC_IMPALA = IMPALA(
    rollout_length=16,
    optimizer=RMSProp(decay=0.99, eps=1e-5),
    learning_rate=4e-3,
    learning_rate_end=0.0,
    gae_lambda=0.95,
    vf_coef=1.0,
    max_grad_norm=0.5,
    normalize_rewards=True,
)
# The authors' of CartPole, with rewards scaled by what is seen of them instead of by 0.1.
CLASSIC_PQN = PQN(rollout_length=64, epochs=4, learning_rate=5e-4, q_lambda=0.95, normalize_rewards=True)
SMALL_RELU = MLP((64, 64), activation="relu", initialization="default")

# Acrobot's end is seldom found: returns are of five steps, and a temperature that is learned would begin at 1, where
# entropy is worth more than the end.
CLASSIC_DISCRETE_SAC = DiscreteSAC(
    network=SMALL_RELU,
    num_environments=8,
    rollout_length=4,
    updates_per_rollout=8,
    memory=Replay(100_000, 64, window=5),
    learning_rate=1e-3,
    learning_rate_end=0.0,
    ent_coef=0.01,
)
SMALL_REDQ = REDQ(
    network=SMALL_RELU,
    num_critics=5,
    learning_rate=1e-3,
    policy_delay=4,
    warmup_steps=500,
    memory=Replay(20_000, 4 * 128),
)

# Smaller networks and batches than on a GPU; rewards are normalised, so that returns are a few times 1.
CLASSIC_FAST_TD3 = FastTD3(
    network=MLP((128, 64), activation="relu", initialization="default"),
    critic_network=MLP((128, 128), activation="relu", initialization="default"),
    atoms=51,
    v_min=-10.0,
    v_max=10.0,
    learning_rate=1e-3,
    gamma=0.97,
    normalize_rewards=True,
    num_environments=64,
    memory=Replay(200_000, 2 * 512),
)

RECORDED: dict[tuple[str, str], Recorded] = {
    ("dqn", "CartPole-v1"): Recorded(DQN(), steps=50_000, result="greedy mean 498 of 500 over seeds"),
    ("bootstrappeddqn", "CartPole-v1"): Recorded(
        BootstrappedDQN(
            network=MLP((64, 64)),
            learning_rate_end=0.0,
            double=True,
            num_heads=5,
            prior_scale=1.0,
            max_grad_norm=10.0,
            target_period=64,
            num_environments=8,
            rollout_length=8,
            updates_per_rollout=16,
            warmup_steps=1_000,
            memory=Replay(20_000, 64, window=5),
        ),
        steps=60_000,
        result="greedy mean 494 of 500 over 5 seeds, the worst 472",
    ),
    # bsuite's, for any size: larger ones take more steps.
    ("bootstrappeddqn", "DeepSea"): Recorded(
        BootstrappedDQN(), steps=5_000, result="greedy mean 0.99 over 5 seeds, the optimum, at size 10"
    ),
    ("ppo", "CartPole-v1"): Recorded(CLEANRL_PPO, steps=500_000, result="greedy mean 500 of 500 over seeds"),
    ("ppo", "Acrobot-v1"): Recorded(CLEANRL_PPO, steps=500_000, result="greedy mean -83 over seeds"),
    ("dqn", "MountainCar-v0"): Recorded(
        DQN(
            normalize_observations=True,
            normalize_rewards=True,
            target_period=500,
            exploration_fraction=0.6,
            memory=Prioritized(50_000, 64, window=5),
        ),
        steps=200_000,
        result="greedy mean -99.6 over 16 seeds, the worst -102",
    ),
    # RL Zoo's, with longer rollouts, larger minibatches and a learning rate that falls.
    ("ppo", "MountainCar-v0"): Recorded(
        PPO(
            num_environments=16,
            rollout_length=128,
            epochs=4,
            batch_size=256,
            learning_rate=1e-3,
            learning_rate_end=0.0,
            gae_lambda=0.98,
            ent_coef=0.01,
            vf_coef=1.0,
            normalize_observations=True,
            normalize_rewards=True,
        ),
        steps=1_000_000,
        result="greedy mean -106 over 12 seeds, the worst -111",
    ),
    # RL Zoo without generalised state-dependent exploration; its vf_coef 0.5 is 1.0 here.
    ("ppo", "Pendulum-v1"): Recorded(
        PPO(
            num_environments=4,
            rollout_length=1024,
            epochs=10,
            batch_size=64,
            learning_rate=1e-3,
            gamma=0.9,
            vf_coef=1.0,
        ),
        steps=300_000,
        result="greedy mean -189 over seeds, 1 of 18 at -366; -172 in RL Zoo's run with state-dependent exploration",
    ),
    # As good without noise that depends on the state, at a standard deviation of 1: 94.3 over 5 seeds.
    ("ppo", "MountainCarContinuous-v0"): Recorded(
        PPO(
            network=MLP((64, 64), activation="tanh", initialization="default"),
            num_environments=4,
            rollout_length=64,
            epochs=10,
            batch_size=64,
            learning_rate=3e-4,
            gamma=0.999,
            gae_lambda=0.9,
            clip_range=0.1,
            vf_coef=0.38,
            max_grad_norm=5.0,
            state_dependent_noise=True,
            initial_log_std=-1.0,
            normalize_observations=True,
            normalize_rewards=True,
        ),
        steps=100_000,
        result="greedy mean 94.3 over 8 seeds, the worst 93.3; over 5 through Gymnasium 94.3, the worst 94.0",
    ),
    # As for MountainCar-v0: all normalised, returns of five steps, priorities.
    ("dqn", "LunarLander-v3"): Recorded(
        DQN(
            network=MLP((128, 128), activation="relu", initialization="default"),
            learning_rate=1e-3,
            target_period=500,
            epsilon_end=0.02,
            exploration_fraction=0.3,
            num_environments=8,
            rollout_length=4,
            updates_per_rollout=16,
            warmup_steps=5_000,
            normalize_observations=True,
            normalize_rewards=True,
            memory=Prioritized(100_000, 128, window=5),
        ),
        steps=300_000,
        result="greedy mean 243 over 5 seeds, the worst 225",
    ),
    # RL Zoo's; its vf_coef 0.5 is 1.0 here.
    ("ppo", "LunarLander-v3"): Recorded(
        PPO(
            num_environments=16,
            rollout_length=1024,
            epochs=4,
            batch_size=64,
            learning_rate=3e-4,
            gamma=0.999,
            gae_lambda=0.98,
            ent_coef=0.01,
            vf_coef=1.0,
        ),
        steps=1_000_000,
        result="greedy mean 261 over seeds; 242 in RL Zoo's run",
    ),
    ("reinforce", "CartPole-v1"): Recorded(
        REINFORCE(learning_rate=3e-3, learning_rate_end=0.0, ent_coef=0.01),
        steps=500_000,
        result="greedy mean 498 of 500 over seeds",
    ),
    # Without normalised rewards one seed of ten finds no end.
    ("reinforce", "Acrobot-v1"): Recorded(
        REINFORCE(learning_rate=3e-3, learning_rate_end=0.0, ent_coef=0.05, normalize_rewards=True),
        steps=1_000_000,
        result="greedy mean -84.5 over 20 seeds, the worst -88.8",
    ),
    ("a2c", "CartPole-v1"): Recorded(CLASSIC_A2C, steps=200_000, result="greedy mean 500 of 500 over 5 seeds"),
    ("a2c", "Acrobot-v1"): Recorded(
        CLASSIC_A2C, steps=300_000, result="greedy mean -83.3 over 5 seeds, the worst -84.7"
    ),
    ("impala", "CartPole-v1"): Recorded(
        dataclasses.replace(CLASSIC_IMPALA, learning_rate=2e-3, updates_per_rollout=2),
        steps=200_000,
        result="greedy mean 500 of 500 over 5 seeds",
    ),
    ("impala", "Acrobot-v1"): Recorded(
        CLASSIC_IMPALA, steps=300_000, result="greedy mean -86.6 over 5 seeds, the worst -91.4"
    ),
    ("discretesac", "CartPole-v1"): Recorded(
        dataclasses.replace(CLASSIC_DISCRETE_SAC, memory=Replay(100_000, 64), ent_coef=None, target_entropy=0.3),
        steps=200_000,
        result="greedy mean 440 of 500 over 5 seeds, the worst 323",
    ),
    ("discretesac", "Acrobot-v1"): Recorded(
        CLASSIC_DISCRETE_SAC, steps=300_000, result="greedy mean -84.6 over 6 seeds, the worst -88.4"
    ),
    ("trpo", "Acrobot-v1"): Recorded(
        TRPO(batch_size=128), steps=200_000, result="greedy mean -81.9 over 5 seeds, the worst -86.2"
    ),
    ("trpo", "Pendulum-v1"): Recorded(
        TRPO(num_environments=4, rollout_length=512, batch_size=128, gamma=0.9),
        steps=200_000,
        result="greedy mean -177 over 5 seeds, the worst -184",
    ),
    ("pqn", "CartPole-v1"): Recorded(
        CLASSIC_PQN, steps=300_000, result="greedy mean 471 of 500 over 6 seeds, 1 of them at 325, the others at 500"
    ),
    ("pqn", "Acrobot-v1"): Recorded(
        CLASSIC_PQN, steps=300_000, result="greedy mean -85.1 over 5 seeds, the worst -87.2"
    ),
    # The authors', who train for 100 million steps.
    ("pqn", "Breakout-MinAtar"): Recorded(
        PQN(
            network=CNN(channels=(16,), kernels=(3,), strides=(1,), sizes=(128,), layer_norm=True),
            num_environments=128,
            rollout_length=32,
            epochs=2,
            batch_size=128,
            learning_rate=2.5e-4,
            learning_rate_end=0.0,
            q_lambda=0.65,
            epsilon_end=0.01,
            exploration_fraction=0.4,
        ),
        steps=10_000_000,
        result="greedy mean 27.5, one seed; 70 was published after ten times as many steps",
    ),
    ("trpo", "CartPole-v1"): Recorded(TRPO(), steps=100_000, result="greedy mean 500 of 500 over 6 seeds"),
    # RL Zoo's, with fewer random steps first.
    ("sac", "Pendulum-v1"): Recorded(
        SAC(learning_rate=1e-3, warmup_steps=500, memory=Replay(20_000, 256)),
        steps=20_000,
        result="greedy mean -141 over seeds; -157 in RL Zoo's run",
    ),
    ("td3", "Pendulum-v1"): Recorded(
        TD3(gamma=0.98, warmup_steps=2_000, memory=Replay(20_000, 200)),
        steps=20_000,
        result="greedy mean -143 over seeds; -152 in RL Zoo's run",
    ),
    ("ddpg", "Pendulum-v1"): Recorded(
        DDPG(gamma=0.98, warmup_steps=2_000, memory=Replay(20_000, 100)),
        steps=20_000,
        result="greedy mean -149 over seeds",
    ),
    ("redq", "Pendulum-v1"): Recorded(
        SMALL_REDQ, steps=10_000, result="greedy mean -130 over 5 seeds, of 30 episodes each"
    ),
    ("droq", "Pendulum-v1"): Recorded(
        DroQ(
            network=SMALL_RELU,
            critic_network=dataclasses.replace(SMALL_RELU, layer_norm=True, dropout=0.01),
            learning_rate=1e-3,
            policy_delay=4,
            warmup_steps=500,
            memory=Replay(20_000, 4 * 128),
        ),
        steps=5_000,
        result="greedy mean -144 over 5 seeds, of 30 episodes each",
    ),
    ("tqc", "Pendulum-v1"): Recorded(
        TQC(
            network=SMALL_RELU,
            critic_network=SMALL_RELU,
            num_critics=2,
            learning_rate=1e-3,
            warmup_steps=500,
            memory=Replay(20_000, 128),
        ),
        steps=10_000,
        result="greedy mean -131 over 5 seeds, of 30 episodes each",
    ),
    ("crossq", "Pendulum-v1"): Recorded(
        CrossQ(
            network=RenormalizedMLP((64, 64)),
            critic_network=RenormalizedMLP((256, 256)),
            warmup_steps=500,
            memory=Replay(20_000, 3 * 128),
        ),
        steps=10_000,
        result="greedy mean -149 over 5 seeds, of 30 episodes each",
    ),
    ("fasttd3", "Pendulum-v1"): Recorded(CLASSIC_FAST_TD3, steps=150_000, result="greedy mean -146 over 3 seeds"),
    ("crossq", "LunarLanderContinuous-v3"): Recorded(
        CrossQ(
            network=RenormalizedMLP((256, 256)),
            critic_network=RenormalizedMLP((256, 256)),
            memory=Replay(250_000, 3 * 256),
        ),
        steps=250_000,
        result="greedy mean 283 over 3 seeds, the worst 280; 269 after 300,000 steps published",
    ),
    # A double pendulum that stands for all of its 1,000 steps returns 9,360.
    ("ddpg", "InvertedDoublePendulum-v5"): Recorded(
        DDPG(network=SMALL_RELU, learning_rate_end=0.0, warmup_steps=1_000, memory=Replay(50_000, 128)),
        steps=30_000,
        result="greedy mean 9357 over 5 seeds, the worst 9354",
    ),
    ("tqc", "InvertedDoublePendulum-v5"): Recorded(
        TQC(
            network=SMALL_RELU,
            critic_network=MLP((128, 128), activation="relu", initialization="default"),
            learning_rate=1e-3,
            warmup_steps=1_000,
            memory=Replay(50_000, 128),
        ),
        steps=15_000,
        result="greedy mean 9360 over 5 seeds, all of them",
    ),
    ("redq", "InvertedDoublePendulum-v5"): Recorded(
        dataclasses.replace(SMALL_REDQ, warmup_steps=1_000, memory=Replay(50_000, 4 * 128)),
        steps=10_000,
        result="greedy mean 9358 over 5 seeds, the worst 9354",
    ),
    ("fasttd3", "InvertedDoublePendulum-v5"): Recorded(
        dataclasses.replace(CLASSIC_FAST_TD3, gamma=0.99),
        steps=200_000,
        result="greedy mean 9359 over 5 seeds, the worst 9357",
    ),
    # The authors'.
    ("td3", "HalfCheetah-v5"): Recorded(
        TD3(), steps=100_000, result="greedy mean 3717 over seeds at 50,000 steps; 5403 at 100,000 in the authors' runs"
    ),
    # Those that the published 6156 ± 738 was made with.
    ("sac", "HalfCheetah-v5"): Recorded(
        SAC(learning_rate=1e-3, warmup_steps=5_000), steps=100_000, result="greedy mean 6601 over seeds"
    ),
    # Those that the published 4271 ± 571 was made with.
    ("droq", "HalfCheetah-v5"): Recorded(
        DroQ(learning_rate=1e-3), steps=16_700, result="greedy mean 4504 over 3 seeds; 4271 over 10 published"
    ),
    ("ppo", "HalfCheetah-v5"): Recorded(
        CLEANRL_MUJOCO,
        steps=1_000_000,
        result="greedy mean 2480 over seeds that differ by 1110; CleanRL's training episodes 1443",
    ),
    ("ppo", "Hopper-v5"): Recorded(
        CLEANRL_MUJOCO, steps=1_000_000, result="greedy mean 2244 over 2 seeds, 1522 and 2967"
    ),
    # Those of any game: RL Zoo's with one copy, and CleanRL's ppo_atari.py.
    ("dqn", "atari:"): Recorded(
        DQN(
            network=CNN(initialization="default"),
            learning_rate=1e-4,
            learning_rate_end=None,
            double=False,
            loss="huber",
            target_period=250,
            epsilon_end=0.01,
            exploration_fraction=0.1,
            clip_rewards=True,
            num_environments=1,
            rollout_length=4,
            updates_per_rollout=1,
            warmup_steps=100_000,
            memory=FrameReplay(100_000, 32),
        ),
        steps=10_000_000,
        result="RL Zoo's settings for every game; never run to their end here",
    ),
    ("ppo", "atari:"): Recorded(
        PPO(
            network=CNN(),
            critic_network=None,
            learning_rate=2.5e-4,
            learning_rate_end=0.0,
            clip_range=0.1,
            clip_value=True,
            ent_coef=0.01,
            epochs=4,
            batch_size=256,
            clip_rewards=True,
        ),
        steps=10_000_000,
        result="CleanRL's settings for every game; never run to their end here",
    ),
    # R2D2's (Kapturowski et al., 2019) on a small scale, for --environment.max_steps 250, MiniGrid's own limit.
    ("dqn", "MiniGrid-DoorKey-5x5"): Recorded(
        DQN(
            network=GRU(64, torso=MLP((128,), activation="relu")),
            learning_rate=3e-4,
            learning_rate_end=None,
            epsilon_end=0.05,
            exploration_fraction=0.6,
            num_environments=32,
            rollout_length=16,
            updates_per_rollout=8,
            target_period=400,
            warmup_steps=20_000,
            memory=Prioritized(400_000, 32, window=5, sequence=16, burn_in=8),
        ),
        steps=1_000_000,
        result="greedy mean 0.96 of at most 1 in 2 of 3 seeds, the third had found nothing by 690,000 steps",
    ),
    # highway-env's own, of its script for SB3.
    ("dqn", "highway-fast-v0"): Recorded(
        DQN(
            network=MLP((256, 256), activation="relu", initialization="default"),
            learning_rate=5e-4,
            learning_rate_end=None,
            gamma=0.8,
            double=False,
            loss="huber",
            target_period=50,
            epsilon_end=0.05,
            exploration_fraction=0.1,
            num_environments=1,
            rollout_length=1,
            updates_per_rollout=1,
            warmup_steps=200,
            memory=Replay(15_000, 32),
        ),
        steps=20_000,
        result="greedy mean 18 of 30 over seeds; 8.6 at random, 12.7 without doing anything",
    ),
    # Discounted returns of CartPole-v1 are from 0 to 100, those of Acrobot-v1 from -100 to 0.
    ("c51", "CartPole-v1"): Recorded(
        C51(v_min=0.0, v_max=100.0), steps=50_000, result="greedy mean 499 of 500 over 5 seeds"
    ),
    ("iqn", "CartPole-v1"): Recorded(
        IQN(num_quantile_samples=16), steps=50_000, result="greedy mean 500 of 500 over 5 seeds"
    ),
    ("rainbow", "CartPole-v1"): Recorded(
        Rainbow(v_min=0.0, v_max=100.0, memory=Prioritized(20_000, 64, window=5)),
        steps=50_000,
        result="greedy mean 500 of 500 over 5 seeds",
    ),
    ("iqn", "Acrobot-v1"): Recorded(
        IQN(num_quantile_samples=16, normalize_rewards=True),
        steps=50_000,
        result="greedy mean -82 over 5 seeds, the worst -86",
    ),
    ("qrdqn", "Acrobot-v1"): Recorded(
        QRDQN(normalize_rewards=True), steps=50_000, result="greedy mean -89 over 5 seeds, the worst -97"
    ),
    ("qrdqn", "CartPole-v1"): Recorded(QRDQN(), steps=50_000, result="greedy mean 500 of 500 over 5 seeds"),
    ("c51", "Acrobot-v1"): Recorded(
        C51(v_min=-100.0, v_max=0.0), steps=50_000, result="greedy mean -85 over 5 seeds, the worst -93"
    ),
    ("rainbow", "Acrobot-v1"): Recorded(
        Rainbow(v_min=-100.0, v_max=0.0, memory=Prioritized(20_000, 64, window=5)),
        steps=50_000,
        result="greedy mean -86 over 5 seeds, the worst -94",
    ),
    # Toy text. The optimum is exact: within the time limit, by a player who counts the steps.
    ("dqn", "FrozenLake-v1"): Recorded(
        dataclasses.replace(TABLE_DQN, gamma=0.999),
        steps=100_000,
        result="greedy mean 0.740 over 16 seeds, the optimum is 0.744",
    ),
    ("ppo", "FrozenLake-v1"): Recorded(
        dataclasses.replace(TABLE_PPO, gamma=0.999),
        steps=200_000,
        result="greedy mean 0.734 over 16 seeds, the optimum is 0.744",
    ),
    ("dqn", "FrozenLake8x8-v1"): Recorded(
        dataclasses.replace(TABLE_DQN, gamma=0.999),
        steps=200_000,
        result="greedy mean 0.889 over 16 seeds, the optimum is 0.913",
    ),
    ("ppo", "FrozenLake8x8-v1"): Recorded(
        dataclasses.replace(TABLE_PPO, gamma=0.999, num_environments=64, batch_size=1024),
        steps=1_000_000,
        result="greedy mean 0.887 over 8 seeds, the optimum is 0.913",
    ),
    ("dqn", "CliffWalking-v1"): Recorded(
        TABLE_DQN, steps=100_000, result="greedy mean -13.1 over 16 seeds, 1 of them at -15; the optimum is -13"
    ),
    ("ppo", "CliffWalking-v1"): Recorded(
        dataclasses.replace(TABLE_PPO, gamma=0.999), steps=800_000, result="greedy mean -13 over 8 seeds, the optimum"
    ),
    ("dqn", "CliffWalkingSlippery-v1"): Recorded(
        TABLE_DQN, steps=200_000, result="greedy mean -65.2 over 8 seeds, the optimum is -64.7"
    ),
    ("ppo", "CliffWalkingSlippery-v1"): Recorded(
        dataclasses.replace(TABLE_PPO, gamma=0.999),
        steps=600_000,
        result="greedy mean -64.8 over 8 seeds, the optimum is -64.7",
    ),
    ("dqn", "Taxi-v4"): Recorded(
        TABLE_DQN, steps=200_000, result="greedy mean 7.93 over 16 seeds, the optimum, with the mask and without"
    ),
    ("ppo", "Taxi-v4"): Recorded(
        TABLE_PPO, steps=600_000, result="greedy mean 7.92 over 16 seeds, 7.93 with the mask; the optimum is 7.93"
    ),
    ("dqn", "Blackjack-v1"): Recorded(
        dataclasses.replace(TABLE_DQN, network=MLP((64,)), learning_rate=1e-3, target_period=100, gamma=1.0),
        steps=200_000,
        result="greedy mean -0.046 over 16 seeds, the optimum is -0.043",
    ),
    ("ppo", "Blackjack-v1"): Recorded(
        dataclasses.replace(
            TABLE_PPO, network=MLP((64, 64)), learning_rate=2.5e-3, ent_coef=0.01, gamma=1.0, normalize_rewards=False
        ),
        steps=400_000,
        result="greedy mean -0.045 over 16 seeds, the optimum is -0.043",
    ),
}
