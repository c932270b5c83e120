"""Recipes with a memory: what their cells compute, where they begin, and how they are chosen and written down."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import random

import thorndike as td
from remembering import REMEMBERING, Elman, numbers
from thorndike.errors import RunError, SettingError
from thorndike.hyperparameters import from_json, to_json
from thorndike.networks import Network
from thorndike.networks.attention import GATE_BIAS
from thorndike.runs.configuration import algorithm_from_json, hyperparameter_classes
from thorndike.sequences import over_time, step

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
NOTHING_ENDS = jnp.zeros((5, 2), bool)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(weights, xs, carry):
    """Gate by gate: input, forget (with a bias of 1), new, output."""
    hidden, cell = carry
    made = []
    for x in xs:
        gates = np.split(x + hidden @ weights, 4, axis=1)
        cell = sigmoid(gates[1] + 1) * cell + sigmoid(gates[0]) * np.tanh(gates[2])
        hidden = sigmoid(gates[3]) * np.tanh(cell)
        made.append(hidden)
    return made


def gru(weights, xs, hidden):
    """As `torch.nn.GRUCell` says it: r, z, n."""
    w = np.split(weights["weight"], 3, axis=1)
    made = []
    for x in xs:
        i = np.split(x, 3, axis=1)
        r, z = sigmoid(i[0] + hidden @ w[0]), sigmoid(i[1] + hidden @ w[1])
        n = np.tanh(i[2] + r * (hidden @ w[2] + weights["bias"]))
        hidden = (1 - z) * n + z * hidden
        made.append(hidden)
    return made


def min_gru(weights, xs, hidden):
    """Feng et al. (2024), section 3.1."""
    made = []
    for x in xs:
        z, value = np.split(x, 2, axis=1)
        z = sigmoid(z + weights)
        hidden = (1 - z) * hidden + z * value
        made.append(hidden)
    return made


def attention(weights, xs, carry):
    """One layer, one head after another, one step after another: only those of the window are looked at."""

    def normalized(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def gate(weights, x, y):
        r, z, n = np.split(y @ weights.made, 3, axis=1)
        of_x = np.split(x @ weights.given, 2, axis=1)
        z = sigmoid(z + of_x[1] - GATE_BIAS)
        return (1 - z) * x + z * np.tanh(n + (sigmoid(r + of_x[0]) * x) @ weights.new)

    (layer,) = weights
    heads, window = layer.distances.shape[0], layer.distances.shape[1] - 1
    seen, made = [], []
    for x in xs:
        seen = [*seen, x][-window - 1 :]
        found = []
        for h in range(heads):
            at = slice(h * x.shape[1] // heads, (h + 1) * x.shape[1] // heads)
            keys, values = ([normalized(s) @ w[:, at] for s in seen] for w in np.split(layer.keys_values, 2, axis=1))
            query = normalized(x) @ layer.queries[:, at]
            ago = range(len(seen) - 1, -1, -1)
            scores = [
                (query * k).sum(1) / np.sqrt(query.shape[1]) + layer.distances[h, a]
                for k, a in zip(keys, ago, strict=True)
            ]
            weight = np.exp(scores) / np.exp(scores).sum(0)
            found.append(sum(w[:, None] * v for w, v in zip(weight, values, strict=True)))
        y = gate(layer.gates[0], x, np.maximum(np.concatenate(found, axis=1) @ layer.outputs, 0))
        dense = np.maximum(np.maximum(normalized(y) @ layer.dense[0], 0) @ layer.dense[1], 0)
        made.append(gate(layer.gates[1], y, dense))
    return made


DEFINITIONS = {
    "LSTM": (td.LSTM(4, torso=td.MLP(()), head=td.MLP(())), lstm),
    "GRU": (td.GRU(4, torso=td.MLP(()), head=td.MLP(())), gru),
    "MinGRU": (td.MinGRU(4, torso=td.MLP(()), head=td.MLP(())), min_gru),
    "Attention": (td.Attention(4, window=2, heads=2, torso=td.MLP(()), head=td.MLP(())), attention),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_cell_computes_what_its_paper_says(name):
    recipe, definition = DEFINITIONS[name]
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: recipe.init(key, VECTOR, 2), random.key(0))
    module = jax.tree.map(lambda x: draw.normal(0, 0.7, x.shape).astype(np.float32), shapes)
    xs = draw.normal(size=(5, 2, 3)).astype(np.float32)
    carry = recipe.initial_carry(2)
    found = jax.jit(over_time)(module, xs, carry, NOTHING_ENDS).outputs

    torso, head = ((part.weights[0].T, part.biases[0]) for part in (module.torso, module.head))
    inputs = [x.astype(float) @ torso[0] + torso[1] for x in xs]
    hidden = definition(module.cell.weights, inputs, jax.tree.map(lambda x: np.asarray(x, float), carry.cell))
    np.testing.assert_allclose(found, [h @ head[0] + head[1] for h in hidden], rtol=2e-5, atol=2e-5)


def test_recurrent_weights_begin_orthogonal_and_linear_units_keep_for_up_to_their_span():
    for recipe, gates in ((td.LSTM(6), 4), (td.GRU(6), 3)):
        weights = np.asarray(jax.tree.leaves(jax.jit(recipe.init_cell)(random.key(0)))[-1])
        assert weights.shape == (6, gates * 6)
        matrices = np.split(weights, gates, axis=1)
        for matrix in matrices:
            np.testing.assert_allclose(matrix.T @ matrix, np.eye(6), atol=1e-5)
        assert not np.allclose(matrices[0], matrices[1])
    kept = 1 / sigmoid(np.asarray(jax.jit(td.MinGRU(500, span=20).init_cell)(random.key(0))))
    assert 1.999 < kept.min() < 3
    assert 19 < kept.max() < 20.001


def test_the_gain_is_the_heads_and_what_fits_the_head_is_fixed_with_it():
    carry = td.GRU(4).initial_carry(2)

    @jax.jit
    def stepped(key, gain):
        return step(td.GRU(4).init(key, VECTOR, 2, gain), np.ones((2, 3), np.float32), carry)

    small, large = (stepped(random.key(0), gain) for gain in (0.01, 1.0))
    np.testing.assert_allclose(100 * small[0], large[0], rtol=1e-5)
    assert not td.GRU(4).fixed
    assert td.GRU(4).draws


def test_gated_attention_begins_near_what_it_sees_now():
    """What Parisotto et al. (2020) found to make transformers learn: the memory is all but closed at first."""
    recipe = td.Attention(8, window=4, heads=2)
    x = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    hidden, _ = jax.jit(lambda key: recipe.cell(recipe.init_cell(key), x, recipe.init_memory(4)))(random.key(0))
    assert np.abs(hidden - x).mean() < 0.5 * np.abs(x).mean()


@pytest.mark.parametrize("name", [name for name in REMEMBERING if not name.startswith(("a ", "an "))])
def test_a_recipe_is_written_as_json_and_every_carry_is_zeros_for_each_copy(name):
    recipe = REMEMBERING[name]
    assert from_json(to_json(recipe), hyperparameter_classes()) == recipe
    for x in numbers(recipe.initial_carry(5)):
        assert x.shape[0] == 5
        assert not x.any()


def test_what_is_of_the_users_own_inside_a_recipe_is_asked_for_again(tmp_path):
    for recipe in (REMEMBERING["a triple as torso"], td.LSTM(torso=Elman(4))):
        algorithm = td.DQN(network=recipe, memory=td.Replay(sequence=4, burn_in=2))
        with pytest.raises(RunError, match="network of your own as network: hand it in again"):
            algorithm_from_json(to_json(algorithm), {}, tmp_path, False)
        assert algorithm_from_json(to_json(algorithm), {"network": recipe}, tmp_path, False).network == recipe


REFUSED = {
    "no units": (lambda: td.LSTM(0), "LSTM: size must be at least 1"),
    "heads that do not fit": (lambda: td.Attention(30), "Attention: size must be a multiple of heads 4, got 30"),
    "no span": (lambda: td.MinGRU(span=1), "MinGRU: span must be at least 2"),
    "a list for a torso": (lambda: td.GRU(torso=[64, 64]), "Did you mean MLP"),
    "a class for a torso": (lambda: td.GRU(torso=td.MLP), r"MLP is a class: give MLP\(\)"),
    "another library's word": (lambda: td.LSTM(hidden_size=64), "LSTM has no field 'hidden_size': here it is size"),
    "no torso": (lambda: td.LSTM(torso=None), "LSTM: torso must be a Network, got None"),
}


@pytest.mark.parametrize(("make", "answer"), REFUSED.values(), ids=REFUSED.keys())
def test_what_no_recipe_can_be_is_refused_in_one_line(make, answer):
    with pytest.raises((SettingError, td.UnknownNameError), match=answer) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_a_network_without_a_memory_carries_nothing():
    plain = Network.coerce((lambda key, x, outputs: {}, lambda parameters, x: x))
    assert td.MLP().initial_carry(3) == td.CNN().initial_carry(3) == plain.initial_carry(3) == ()
