"""The names of the algorithms, and the file that each is in."""

ALGORITHMS = {
    "DQN": "dqn", "PPO": "ppo", "REINFORCE": "reinforce", "SAC": "sac", "TD3": "td3", "DDPG": "td3",
    "REDQ": "redq",
    "DroQ": "droq",
    "TQC": "tqc",
    "CrossQ": "crossq",
}  # fmt: skip
