"""The policy gradient in a loop of your own, with your own PyTorch network: episode, steps, return, loss."""

import gymnasium
import torch
from torch.nn import Linear, Sequential, Tanh

import thorndike as td

torch.manual_seed(0)
model = Sequential(Linear(4, 64), Tanh(), Linear(64, 64), Tanh(), Linear(64, 2))  # logits of the two actions

environment = gymnasium.make("CartPole-v1")
algorithm = td.REINFORCE(
    network=model, baseline_network=td.MLP(), learning_rate=3e-3, learning_rate_end=0.0, ent_coef=0.01
)
learner = td.Learner(algorithm, environment.observation_space, environment.action_space, steps=500_000)

episode = 0
while not learner.finished:
    observation, _ = environment.reset(seed=episode)
    terminated = truncated = False
    total = 0.0
    while not (terminated or truncated):
        action = learner.act(observation)
        observation, reward, terminated, truncated, _ = environment.step(action)
        learner.observe(reward, observation, terminated, truncated)
        total += reward
    episode += 1
    if "policy_loss" in learner.row:
        loss = learner.row["policy_loss"]
        print(f"episode {episode:5}   steps {learner.steps:6}   return {total:5.1f}   loss {loss:7.4f}")
    if len(learner.recent[0]) == 100 and learner.recent[0].mean() >= 475:  # solved
        break

trained = learner.agent.network  # your PyTorch module again, with the trained weights in it
torch.save(trained.state_dict(), "cartpole.pt")
