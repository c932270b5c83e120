"""Q-learning with your own Keras model: print how it goes, solve CartPole, save the model."""

import os

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported

import keras
from keras.layers import Dense

import thorndike as td

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((4,)), Dense(32, "relu"), Dense(32, "relu"), Dense(2)])

algorithm = td.DQN(network=model, epsilon_end=0.01, exploration_fraction=0.1)
for chunk in td.training(algorithm, "CartPole-v1", steps=200_000):
    returns, _ = chunk.recent  # of the last 100 episodes
    if chunk.row and "loss" in chunk.row:
        episode, loss = chunk.progress.episodes.finished, chunk.row["loss"]
        print(f"episode {episode:5}   steps {chunk.steps:6}   return {returns.mean():5.1f}   loss {loss:.4f}")
    if len(returns) == 100 and returns.mean() >= 475:  # solved
        break

trained = chunk.progress.state.network.original()  # a Keras model again
trained.save("cartpole.keras")
