"""The names of the algorithms, and the file that each is in."""

ALGORITHMS = {
    "DQN": "dqn", "C51": "c51", "QRDQN": "qrdqn", "IQN": "iqn", "Rainbow": "rainbow", "PPO": "ppo",
    "REINFORCE": "reinforce", "SAC": "sac", "TD3": "td3", "DDPG": "td3",
}  # fmt: skip
