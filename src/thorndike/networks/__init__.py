"""Networks: recipes that a user chooses, the modules they make, and observations of any space as features."""

from thorndike.networks.attention import Attention
from thorndike.networks.cnn import CNN, ConvolutionalPerceptron
from thorndike.networks.critics import (
    FirstOutputs,
    Same,
    critic_carry,
    critic_outputs,
    critic_outputs_over_time,
    critic_recipe,
    critic_values,
    critics_over_time,
    critics_with_dropout,
    init_choice_critics,
    init_critics,
    init_critics_carry,
    init_value,
)  # fmt: skip
from thorndike.networks.implicit import ImplicitQuantiles, init_implicit
from thorndike.networks.mlp import ACTIVATIONS, MLP, Perceptron, dropout_keys, with_dropout
from thorndike.networks.network import Network, check_special
from thorndike.networks.noisy import is_noisy, noiseless, perturbed
from thorndike.networks.observations import Part, features, parts_of
from thorndike.networks.recipes import NETWORKS, recipe_of
from thorndike.networks.recurrent import GRU, LSTM, MinGRU
from thorndike.networks.renormalized import RENORMALIZATION, RenormalizedMLP
from thorndike.networks.simba import SimBa
from thorndike.networks.state_dependent_noise import StateDependentNoise

__all__ = [
    "ACTIVATIONS", "CNN", "GRU", "LSTM", "MLP", "NETWORKS", "RENORMALIZATION", "Attention",
    "ConvolutionalPerceptron", "FirstOutputs", "ImplicitQuantiles", "MinGRU", "Network", "Part", "Perceptron",
    "RenormalizedMLP", "Same", "SimBa", "StateDependentNoise", "check_special", "critic_carry", "critic_outputs",
    "critic_outputs_over_time", "critic_recipe", "critic_values", "critics_over_time", "critics_with_dropout",
    "dropout_keys", "features", "init_choice_critics", "init_critics", "init_critics_carry", "init_implicit",
    "init_value", "is_noisy", "noiseless", "parts_of", "perturbed", "recipe_of", "with_dropout",
]  # fmt: skip
