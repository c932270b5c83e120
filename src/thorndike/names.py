"""The names of the algorithms, and the file that each is in."""

ALGORITHMS = {
    "DQN": "dqn", "PPO": "ppo", "REINFORCE": "reinforce", "SAC": "sac", "TD3": "td3", "DDPG": "td3",
    "A2C": "a2c", "PQN": "pqn", "DiscreteSAC": "discrete_sac", "TRPO": "trpo", "IMPALA": "impala",
}  # fmt: skip
