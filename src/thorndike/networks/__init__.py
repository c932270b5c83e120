"""Networks: recipes that a user chooses, the modules they make, and observations of any space as features."""

from thorndike.networks.attention import Attention
from thorndike.networks.cnn import CNN, ConvolutionalPerceptron
from thorndike.networks.critics import (
    FirstOutputs,
    Same,
    critic_carry,
    critic_recipe,
    critic_values,
    critics_over_time,
    init_critics,
    init_critics_carry,
    init_value,
)  # fmt: skip
from thorndike.networks.implicit import ImplicitQuantiles, init_implicit
from thorndike.networks.mlp import ACTIVATIONS, MLP, Perceptron
from thorndike.networks.network import Network
from thorndike.networks.noisy import is_noisy, noiseless, perturbed
from thorndike.networks.observations import Part, features, parts_of
from thorndike.networks.recipes import NETWORKS, recipe_of
from thorndike.networks.recurrent import GRU, LSTM, MinGRU

__all__ = [
    "ACTIVATIONS", "CNN", "GRU", "LSTM", "MLP", "NETWORKS", "Attention", "ConvolutionalPerceptron", "FirstOutputs",
    "ImplicitQuantiles", "MinGRU", "Network", "Part", "Perceptron", "Same", "critic_carry", "critic_recipe",
    "critic_values", "critics_over_time", "features", "init_critics", "init_critics_carry", "init_implicit",
    "init_value", "is_noisy", "noiseless", "parts_of", "perturbed", "recipe_of",
]  # fmt: skip
