"""Flax networks: nnx and linen modules as they come, and what is refused of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("flax")

from flax import linen, nnx

import thorndike as td
from thorndike.errors import SettingError
from thorndike.networks import Network, critic_recipe

VECTOR = spaces.Box(-1, 1, (4,), np.float32)
BATCH = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)

pytestmark = pytest.mark.keras  # Flax's own layers promote ranks


class Nnx(nnx.Module):
    def __init__(self, layer=None):
        rngs = nnx.Rngs(0)
        self.first, self.last = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
        self.extra = layer(rngs) if layer else nnx.relu

    def __call__(self, x):
        return self.last(self.extra(self.first(x)))


class Linen(linen.Module):
    layer: str = ""

    @linen.compact
    def __call__(self, x):
        x = linen.Dense(8)(x)
        if self.layer == "noise":
            x = x + jax.random.normal(self.make_rng("noise"), x.shape)
        elif self.layer == "count":
            self.param("count", lambda key: jnp.arange(3))
        elif self.layer:
            off = {"Dropout": {"rate": 0.5, "deterministic": False}, "BatchNorm": {"use_running_average": False}}
            x = getattr(linen, self.layer)(**off.get(self.layer, {}))(x)
        return linen.Dense(2)(x)


class Nested(linen.Module):
    def setup(self):
        self.torso = Linen("Dropout")

    def __call__(self, x):
        return self.torso(x)


NNX_LAYERS = {
    "BatchNorm": lambda rngs: nnx.BatchNorm(8, rngs=rngs),
    "Dropout": lambda rngs: nnx.Dropout(0.5, rngs=rngs),
}


def module_of(value, outputs=2, seed=0):
    return Network.coerce(value).init(jax.random.key(seed), VECTOR, outputs)


@jax.jit
def call(module, batch):
    return module(batch)


@pytest.mark.parametrize("name", NNX_LAYERS)
def test_nnx_layers_that_change_are_refused_in_training_and_taken_in_evaluation(name):
    module = Nnx(NNX_LAYERS[name])
    with pytest.raises(SettingError, match=rf"change while training: extra \({name}\). Call .eval\(\) on it"):
        module_of(module)
    module.eval()
    np.testing.assert_allclose(call(module_of(module), BATCH), module(BATCH), atol=1e-6)


def test_nnx_is_given_back_as_a_module_of_its_class_and_the_given_one_stays():
    given = Nnx()
    before = given(BATCH)
    back = jax.tree.map(lambda x: x * 1.5, module_of(given)).original()
    assert type(back) is Nnx
    np.testing.assert_array_equal(back.first.kernel[...], given.first.kernel[...] * 1.5)
    back.first.kernel[...] = back.first.kernel[...] * 2  # the user's to go on with
    np.testing.assert_array_equal(given(BATCH), before)


def test_nnx_statistics_that_changed_since_are_seen():
    given = nnx.Sequential(nnx.Linear(4, 2, rngs=nnx.Rngs(0)), nnx.BatchNorm(2, rngs=nnx.Rngs(0)))
    given.eval()
    before = call(module_of(given), BATCH)
    given.layers[1].mean[...] = jnp.ones(2)
    after = call(module_of(given), BATCH)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, given(BATCH), atol=1e-6)


def test_nnx_starts_from_the_weights_it_has_when_training_begins():
    given = Nnx()
    recipe = Network.coerce(given)
    given.first.kernel[...] = given.first.kernel[...] * 2
    module = recipe.fresh(0).init(jax.random.key(0), VECTOR, 2)
    np.testing.assert_allclose(call(module, BATCH), given(BATCH), atol=1e-6)


def test_linen_draws_its_weights_from_the_key_and_is_given_back_bound():
    given = Linen("LayerNorm")
    one, other = module_of(given, seed=1), module_of(given, seed=2)
    assert not np.allclose(call(one, BATCH), call(other, BATCH))
    expected = given.apply(given.init(jax.random.key(1), BATCH[:1]), BATCH)
    np.testing.assert_allclose(call(one, BATCH), expected, atol=1e-6)
    module, variables = one.original().unbind()
    assert module == given
    np.testing.assert_allclose(module.apply(variables, BATCH), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (lambda: Linen("Dropout"), r"Dropout_0 \(Dropout\) draws random numbers: make it deterministic"),
        (Nested, r"Dropout_0 \(Dropout\) draws random numbers"),
        (lambda: Linen("noise"), r"\(Linen\) draws random numbers"),
        (lambda: Linen("BatchNorm"), "keeps batch_stats beside its params, in BatchNorm_0: leave those out"),
        (lambda: Linen("count"), r"cannot train: \['count'\] is int32"),
        (lambda: Linen().bind(Linen().init(jax.random.key(0), BATCH)), r"bound to weights.*module.unbind\(\)\[0\]"),
        (lambda: linen.Dense(3), r"makes \(2, 3\) of 2 observations"),
        (lambda: nnx.Linear(4, 3, rngs=nnx.Rngs(0)), r"makes \(2, 3\) of 2 observations"),
    ],
)
def test_what_cannot_be_taken_is_answered_with_what_to_do(value, says):
    with pytest.raises(SettingError, match=says):
        module_of(value())


@pytest.mark.parametrize("kind", [linen.Dense, nnx.Linear])
def test_a_class_instead_of_a_network_is_answered(kind):
    with pytest.raises(SettingError, match=rf"{kind.__name__} is a class of Flax: give a network, {kind.__name__}\("):
        module_of(kind)


def test_a_class_that_takes_nothing_makes_one():
    assert type(module_of(Linen).original()) is Linen
    assert type(module_of(Nnx).original()) is Nnx


def test_twin_critics_of_a_linen_module_differ_and_those_of_an_nnx_module_are_refused():
    actions = spaces.Box(-1, 1, (2,), np.float32)
    actor = td.MLP((8,))
    state = td.SAC(network=actor, critic_network=linen.Dense(1)).init(jax.random.key(0), VECTOR, actions)
    one, other = jax.tree.leaves(state.critics)[1]
    assert not np.allclose(one, other)
    critic = nnx.Linear(6, 1, rngs=nnx.Rngs(0))
    with pytest.raises(SettingError, match="2 equal critics are no better than one"):
        td.SAC(network=actor, critic_network=critic).init(jax.random.key(0), VECTOR, actions)


@pytest.mark.parametrize("network", [lambda: linen.Dense(2), Nnx])
def test_the_critic_beside_a_network_with_outputs_of_its_own_is_the_default_one(network):
    assert critic_recipe(td.PPO(network=network()), "critic_network", VECTOR) == td.PPO.network


class NnxGRU(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.cell, self.head = nnx.GRUCell(4, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

    def initial_carry(self):
        return jnp.zeros(8, jnp.float32)

    def __call__(self, observation, carry):
        carry, hidden = self.cell(carry, observation)
        return self.head(hidden), carry


class LinenGRU(linen.Module):
    def initial_carry(self):
        return jnp.zeros(8, jnp.float32)

    @linen.compact
    def __call__(self, observation, carry):
        carry, hidden = linen.GRUCell(8)(carry, observation)
        return linen.Dense(2)(hidden), carry


@pytest.mark.parametrize("make", [NnxGRU, LinenGRU])
def test_modules_with_a_memory_remember_and_come_back(make):
    recipe = Network.coerce(make())
    network = recipe.init(jax.random.key(0), VECTOR, 2)
    carry = recipe.initial_carry(5)
    assert carry.shape == (5, 8)
    outputs, after = jax.jit(lambda network, x, carry: network(x, carry))(network, BATCH, carry + BATCH[:, :1])
    expected = network.original()(jnp.asarray(BATCH), carry + BATCH[:, :1])
    np.testing.assert_allclose(outputs, expected[0], atol=1e-6)
    np.testing.assert_allclose(after, expected[1], atol=1e-6)
    with pytest.raises(SettingError, match="takes a carry and has nothing to begin with"):
        Network.coerce(nnx.GRUCell(4, 2, rngs=nnx.Rngs(0)))
