"""Q-learning with your own PyTorch model: print how it goes, solve CartPole, save the weights."""

import torch
from torch.nn import Linear, ReLU, Sequential

import thorndike as td

torch.manual_seed(0)
model = Sequential(Linear(4, 32), ReLU(), Linear(32, 32), ReLU(), Linear(32, 2))

algorithm = td.DQN(network=model, epsilon_end=0.01, exploration_fraction=0.1)
for chunk in td.training(algorithm, "CartPole-v1", steps=200_000):
    returns, _ = chunk.recent  # of the last 100 episodes
    if chunk.row and "loss" in chunk.row:
        episode, loss = chunk.progress.episodes.finished, chunk.row["loss"]
        print(f"episode {episode:5}   steps {chunk.steps:6}   return {returns.mean():5.1f}   loss {loss:.4f}")
    if len(returns) == 100 and returns.mean() >= 475:  # solved
        break

trained = chunk.progress.state.network.original()  # a PyTorch module again
torch.save(trained.state_dict(), "cartpole.pt")
