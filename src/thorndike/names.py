"""The algorithms by name: the file that each is in, and what to choose one by.

Nothing is imported here, not even from the standard library: whoever's folder Python runs in may lead the path.
"""


class Known:
    """What the chooser says of an algorithm.

    `file`: in algorithms/. `actions`: "choices" (Discrete), "numbers" (a Box with bounds) or "both". `steps`: "dear"
    where they are learned from again and again, "cheap" where once. `pick`: when to. `memory`: whether networks with a
    memory learn by it.
    """

    def __init__(self, file: str, actions: str, steps: str, pick: str, memory: bool = True) -> None:
        self.file, self.actions, self.steps, self.pick, self.memory = file, actions, steps, pick, memory


ALGORITHMS = {
    "DQN": Known("dqn", "choices", "dear", "first, for choices"),
    "C51": Known("c51", "choices", "dear", "where returns vary much and their range is known"),
    "QRDQN": Known("qrdqn", "choices", "dear", "where returns vary much, of any range"),
    "IQN": Known("iqn", "choices", "dear", "as QRDQN, for a little more learned of each step, and a slower one"),
    "Rainbow": Known("rainbow", "choices", "dear", "for the most of each step, images above all"),
    "BootstrappedDQN": Known("bootstrapped_dqn", "choices", "dear", "where rewards lie many right choices away"),
    "PQN": Known("pqn", "choices", "cheap", "for choices where steps are cheap: no replay to keep, no target network"),
    "DiscreteSAC": Known("discrete_sac", "choices", "dear", "where choices should stay as random as pays"),
    "PPO": Known("ppo", "both", "cheap", "first, where steps are cheap: it asks for little tuning"),
    "A2C": Known("a2c", "both", "cheap", "where rollouts have to be short, or to compare with"),
    "TRPO": Known("trpo", "both", "cheap", "where a policy must never move far in one step"),
    "IMPALA": Known("impala", "both", "cheap", "where acting lags behind learning: it corrects for an older policy"),
    "REINFORCE": Known("reinforce", "both", "cheap", "to read: the plainest policy gradient"),
    "SAC": Known("sac", "numbers", "dear", "first, for numbers"),
    "TQC": Known("tqc", "numbers", "dear", "where SAC believes its critics too much"),
    "REDQ": Known("redq", "numbers", "dear", "where a step costs more than twenty updates of ten critics"),
    "DroQ": Known("droq", "numbers", "dear", "where a step costs more than twenty updates"),
    "CrossQ": Known("crossq", "numbers", "dear", "for few updates a step: no target networks", memory=False),
    "TD3": Known("td3", "numbers", "dear", "where SAC's random actions do harm"),
    "FastTD3": Known("fast_td3", "numbers", "cheap", "where hundreds of copies step at once, and numbers are chosen"),
    "DDPG": Known("td3", "numbers", "dear", "to compare with: TD3 mends its faults"),
}
