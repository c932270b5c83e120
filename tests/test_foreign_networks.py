"""Networks that users bring: pairs, Equinox modules, Keras models, and the answers to what is none."""

from __future__ import annotations

import os
import random as python_random
from importlib.util import find_spec

os.environ.setdefault("KERAS_BACKEND", "jax")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import random

from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters
from thorndike.networks import MLP, Network
from thorndike.networks.foreign import ForeignNetwork, prepare
from thorndike.networks.foreign.keras import KerasSource

VECTOR = spaces.Box(-1, 1, (4,), np.float32)
IMAGE = spaces.Box(0, 255, (6, 6, 1), np.uint8)
DICT = spaces.Dict(b=spaces.Discrete(2), a=spaces.Box(-1, 1, (2,), np.float32))
ACTIONS = spaces.Discrete(2)
BATCH = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def linear_init(key, observation, outputs):
    return {
        "w": random.normal(key, (observation.shape[1], outputs), jnp.float32),
        "b": jnp.zeros((1, outputs), jnp.float32),
    }


def linear_apply(params, observation):
    return observation @ params["w"] + params["b"]


def equinox_mlp(outputs=2):
    return eqx.nn.MLP(4, outputs, 8, 1, dtype=jnp.float32, key=random.key(0))


def dense_keras(*layers, inputs=(4,), outputs=2):
    import keras

    return keras.Sequential([keras.Input(inputs), *layers, keras.layers.Dense(outputs)])


def keras_model():
    from keras import layers

    return dense_keras(layers.Dense(32, "relu"), layers.Dense(32, "relu"))


def nnx_mlp():
    from flax import nnx

    rngs = nnx.Rngs(0)
    return nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.tanh, nnx.Linear(8, 2, rngs=rngs))


def linen_mlp():
    from flax import linen

    return linen.Sequential([linen.Dense(8), linen.tanh, linen.Dense(2)])


def haiku_mlp():
    import haiku

    return haiku.transform(lambda x: haiku.nets.MLP([8, 2])(x))


@jax.jit
def call(module, batch):
    return module(batch)


def module_of(value, space=VECTOR, outputs=2, seed=0):
    return Network.coerce(value).init(random.key(seed), space, outputs)


@hyperparameters
class Learner:
    """The least that has a network."""

    network: Network = MLP((8,))
    gamma: float = 0.9

    def init(self, key, observation_space, action_space):
        return self.network.init(key, observation_space, int(action_space.n))


GIVEN = {
    "pair": lambda: (linear_init, linear_apply),
    "equinox": equinox_mlp,
    "keras": keras_model,
    "keras function": lambda: keras_model,
    "flax.nnx": nnx_mlp,
    "flax.linen": linen_mlp,
    "haiku": haiku_mlp,
}


INSTALLED = [kind for kind in GIVEN if not kind.startswith(("flax", "haiku")) or find_spec(kind.split(".")[0])]


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.keras] * ("keras" in kind)) for kind in INSTALLED])
def given(request):
    return GIVEN[request.param]()


# What holds for all of them


def test_the_structure_is_known_without_computing_and_compiles_once(given):
    recipe, traces = Network.coerce(given), []
    module = recipe.init(random.key(0), VECTOR, 2)
    shape = jax.eval_shape(lambda recipe, key: recipe.init(key, VECTOR, 2), recipe, random.key(0))
    again = Network.coerce(given).init(random.key(1), VECTOR, 2)
    assert jax.tree.structure(module) == jax.tree.structure(shape) == jax.tree.structure(again)
    assert hash(jax.tree.structure(module)) == hash(jax.tree.structure(again))

    @jax.jit
    def count(module):
        traces.append(module)

    count(module), count(again)
    assert len(traces) == 1


def test_all_leaves_train_and_a_step_changes_the_outputs(given):
    module = module_of(given)
    leaves, gradient = jax.tree.leaves(module), jax.jit(jax.grad(lambda module: (module(BATCH) ** 2).sum()))(module)
    assert all(x.dtype == jnp.float32 for x in leaves)
    assert all(np.any(np.asarray(x) != 0) for x in jax.tree.leaves(gradient))
    moved = jax.tree.map(lambda x, g: x - 0.1 * g, module, gradient)
    assert call(moved, BATCH).shape == (5, 2)
    assert not np.allclose(call(moved, BATCH), call(module, BATCH))


@pytest.mark.parametrize("compiled", [True, False])
def test_donating_the_module_leaves_the_users_network_alone(given, compiled):
    def start(learner, key):
        return learner.init(key, VECTOR, ACTIONS)

    learner, start = Learner(given), jax.jit(start) if compiled else start
    train = jax.jit(lambda module: jax.tree.map(lambda x: x + 1, module), donate_argnums=0)
    outputs = []
    for _ in range(2):
        module = start(prepare(learner, VECTOR, ACTIONS, 0), random.key(0))
        outputs.append(np.asarray(call(module, BATCH)))
        train(module)
    np.testing.assert_array_equal(*outputs)
    assert all(not x.is_deleted() for x in jax.tree.leaves(given) if isinstance(x, jax.Array))


@pytest.mark.keras
def test_a_prepared_recipe_outlives_what_keras_does_to_its_model():
    model = keras_model()
    prepared = prepare(Learner(model), VECTOR, ACTIONS, 0)
    before = np.asarray(call(prepared.init(random.key(0), VECTOR, ACTIONS), BATCH))
    model.compile("sgd", "mse")
    model.fit(BATCH, np.ones((5, 2), np.float32), verbose=0)  # donates the model's weights
    np.testing.assert_array_equal(call(prepared.init(random.key(0), VECTOR, ACTIONS), BATCH), before)


def test_wrong_outputs_are_answered_with_both_shapes(given):
    if type(given) is tuple:
        given = (given[0], lambda params, x: linear_apply(params, x)[:, :1])
    with pytest.raises(SettingError, match=r"expected \(2, 3\): 3 outputs for each"):
        module_of(given, outputs=3)


def test_observations_that_do_not_fit_are_answered_with_their_shape(given):
    if type(given) is tuple:
        given = (lambda key, x, n: jnp.zeros((4, n)), lambda params, x: x @ params)
    elif Network.coerce(given).draws:
        pytest.skip("its weights take the width of what it sees")
    recipe = Network.coerce(given)
    recipe.init(random.key(0), VECTOR, 2)
    with pytest.raises(SettingError, match=r"cannot take observations of shape \(3,\)"):
        recipe.init(random.key(0), spaces.Box(-1, 1, (3,), np.float32), 2)


def test_a_dictionary_reaches_them_as_the_flat_vector(given):
    module = module_of(given, DICT)
    batch = {"a": BATCH[:, :2], "b": np.array([0, 1, 1, 0, 1], np.int32)}
    flat = np.concatenate([BATCH[:, :2], np.eye(2, dtype=np.float32)[batch["b"]]], 1)
    np.testing.assert_allclose(call(module, batch), module.source.apply(module.parameters, flat), rtol=1e-5)


def test_recipes_compare_by_identity_and_tell_what_they_are(given):
    one, other = Network.coerce(given), Network.coerce(given)
    assert one == other
    assert hash(one) == hash(other)
    assert one != Network.coerce((lambda *_: (), lambda *_: ()))
    assert Network.coerce(one) is one
    assert one.to_json() == {"type": "foreign", "kind": one.source.kind, "name": one.source.name}
    assert one.source.name in repr(one)
    assert Learner(given) == Learner(given)


# Pairs and Equinox


def test_a_pair_draws_from_its_key_and_gives_its_parameters_back():
    pair = (linear_init, linear_apply)
    one, other = module_of(pair, seed=1), module_of(pair, seed=2)
    assert not Network.coerce(pair).fixed
    assert Network.coerce(pair).draws
    assert not np.allclose(call(one, BATCH), call(other, BATCH))
    expected = linear_init(random.key(1), BATCH, 2)
    np.testing.assert_array_equal(call(one, BATCH), linear_apply(expected, BATCH))
    assert set(one.original()) == {"w", "b"}


def test_a_pair_sees_an_image_as_it_is():
    seen = []

    def init(key, observation, outputs):
        seen.append(observation)
        return jnp.ones(outputs)

    module = module_of((init, lambda params, x: x.reshape(x.shape[0], -1)[:, :1] * params[None]), IMAGE)
    assert seen[0].shape == (1, 6, 6, 1)
    assert seen[0].dtype == jnp.uint8
    assert module(np.full((3, 6, 6, 1), 200, np.uint8)).tolist() == [[200.0, 200.0]] * 3


@pytest.mark.parametrize("leaf", [np.arange(2), "word"])
def test_a_pair_whose_parameters_cannot_train_is_answered(leaf):
    with pytest.raises(SettingError, match="cannot train"):
        module_of((lambda *_: {"a": jnp.ones(2), "b": leaf}, linear_apply))


def test_equinox_is_called_per_sample_and_given_back_with_new_weights():
    given = equinox_mlp()
    module = module_of(given)
    np.testing.assert_allclose(call(module, BATCH), [given(x) for x in BATCH], atol=1e-6)
    doubled = jax.tree.map(lambda x: 2 * x, module).original()
    assert type(doubled) is eqx.nn.MLP
    np.testing.assert_array_equal(doubled.layers[0].weight, 2 * given.layers[0].weight)
    assert Network.coerce(given).fixed
    assert not Network.coerce(given).draws


def test_an_equinox_function_gives_each_seed_its_own_weights_the_same_every_time():
    def make():
        return eqx.nn.MLP(4, 2, 8, 1, dtype=jnp.float32, key=random.key(np.random.randint(2**31)))

    outputs = [
        np.asarray(call(prepare(Learner(make), VECTOR, ACTIONS, seed).init(random.key(0), VECTOR, ACTIONS), BATCH))
        for seed in (3, 4, 3)
    ]
    assert not np.allclose(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


# Keras


@pytest.mark.keras
def test_keras_is_what_predict_says():
    model = keras_model()
    np.testing.assert_allclose(call(module_of(model), BATCH), model.predict(BATCH, verbose=0), atol=1e-6)


@pytest.mark.keras
def test_a_keras_model_without_an_input_is_built_for_the_observations():
    import keras

    model = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    recipe = Network.coerce(model)
    module = jax.jit(lambda key: recipe.init(key, VECTOR, 2))(random.key(0))
    assert model.built
    np.testing.assert_allclose(call(module, BATCH), model.predict(BATCH, verbose=0), atol=1e-6)


@pytest.mark.keras
def test_a_keras_model_gets_images_as_they_are():
    from keras import layers

    model = dense_keras(layers.Rescaling(1 / 255), layers.Conv2D(2, 3), layers.Flatten(), inputs=(6, 6, 1))
    image = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 1), np.uint8)
    np.testing.assert_allclose(call(module_of(model, IMAGE), image), model.predict(image, verbose=0), atol=1e-5)


def equinox_cnn():
    scale, flatten = eqx.nn.Lambda(lambda x: jnp.moveaxis(x / 255, -1, 0)), eqx.nn.Lambda(jnp.ravel)
    return eqx.nn.Sequential([scale, eqx.nn.Conv2d(1, 2, 3, 2, 1, dtype=jnp.float32, key=random.key(0)), flatten])


def keras_cnn():
    from keras import layers

    rest = [layers.Rescaling(1 / 255), layers.Conv2D(2, 3, 2, padding="same", activation="relu"), layers.Flatten()]
    return dense_keras(*rest, inputs=(6, 6, 1), outputs=18)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere convolutions are XLA's")
@pytest.mark.parametrize("make", [equinox_cnn, pytest.param(keras_cnn, marks=pytest.mark.keras)])
def test_a_users_convolutions_are_as_quick_as_ours_and_give_the_same(make):
    image = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 1), np.uint8)
    given = make()
    module = module_of(given, IMAGE, 18)
    right = given.predict(image, verbose=0) if make is keras_cnn else jax.vmap(given)(image)
    np.testing.assert_allclose(call(module, image), right, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda module: (module(image) ** 2).sum()))
    assert "stablehlo.convolution" not in gradient.lower(module).as_text()


@pytest.mark.keras
def test_a_keras_model_starts_every_seed_from_the_weights_it_has_when_training_begins():
    model = keras_model()
    learner = Learner(model)
    prepare(learner, VECTOR, ACTIONS, 0)
    for variable in model.trainable_variables:
        variable.assign(variable.value * 2)
    start = jax.jit(lambda learner, key: learner.init(key, VECTOR, ACTIONS))
    for seed in (0, 1):
        module = start(prepare(learner, VECTOR, ACTIONS, seed), random.key(seed))
        np.testing.assert_allclose(call(module, BATCH), model.predict(BATCH, verbose=0), atol=1e-5)


@pytest.mark.keras
def test_a_keras_function_gives_each_seed_its_own_weights_the_same_every_time():
    before = python_random.getstate()
    start = jax.jit(lambda learner, key: learner.init(key, VECTOR, ACTIONS))
    outputs = []
    for seed in (3, 4, 3):
        prepared = prepare(Learner(keras_model), VECTOR, ACTIONS, seed)
        outputs.append(np.asarray(start(prepared, random.key(seed))(BATCH)))
    assert not np.allclose(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])
    assert start._cache_size() == 1
    assert python_random.getstate() == before


@pytest.mark.keras
@pytest.mark.parametrize("make", [keras_model, lambda: keras_model], ids=["model", "function"])
def test_keras_is_given_back_as_a_model_of_its_own_that_can_be_saved(make, tmp_path):
    import keras

    given = make()
    module = jax.tree.map(lambda x: x * 1.5 + 0.01, module_of(given))
    model = module.original()
    assert model is not given
    assert model is not module.source.model
    np.testing.assert_allclose(model.predict(BATCH, verbose=0), call(module, BATCH), atol=1e-5)
    model.save(tmp_path / "trained.keras")
    loaded = keras.models.load_model(tmp_path / "trained.keras")
    np.testing.assert_array_equal(loaded.predict(BATCH, verbose=0), model.predict(BATCH, verbose=0))


@pytest.mark.keras
def test_a_model_compiled_with_a_loss_of_ones_own_is_left_alone():
    model = keras_model()
    model.compile("sgd", lambda truth, predicted: predicted)
    before = model.predict(BATCH, verbose=0)
    back = jax.tree.map(lambda x: x * 1.5 + 0.01, module_of(model)).original()
    assert back is not model
    assert model.compiled
    np.testing.assert_array_equal(model.predict(BATCH, verbose=0), before)


@pytest.mark.keras
def test_what_does_not_train_is_part_of_the_program():
    import keras

    model = dense_keras(keras.layers.Dense(3, trainable=False))
    before, frozen = call(module_of(model), BATCH), model.layers[0].kernel
    frozen.assign(frozen.value * 2)
    after = call(module_of(model), BATCH)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, model.predict(BATCH, verbose=0), atol=1e-6)


@pytest.mark.keras
@pytest.mark.parametrize("name", ["BatchNormalization", "Dropout", "GaussianNoise", "SpectralNormalization"])
def test_layers_that_change_while_training_are_refused_by_name(name):
    from keras import layers

    layer = getattr(layers, name)
    arguments = {"BatchNormalization": (), "SpectralNormalization": (layers.Dense(3),)}.get(name, (0.5,))
    with pytest.raises(SettingError, match=f"change while training: .*{name}"):
        module_of(dense_keras(layers.Dense(3), layer(*arguments)))


@pytest.mark.keras
def test_layers_whose_state_stays_are_taken_and_their_weights_do_not_train():
    from keras import layers

    frozen, normalized = layers.Dense(3, trainable=False), layers.BatchNormalization(trainable=False)
    model = dense_keras(layers.Normalization(mean=1.0, variance=4.0), frozen, normalized, layers.LayerNormalization())
    module = module_of(model)
    assert len(jax.tree.leaves(module)) == len(model.trainable_variables) == 4
    np.testing.assert_allclose(call(module, BATCH), model.predict(BATCH, verbose=0), atol=1e-5)
    back = jax.tree.map(lambda x: x + 1, module).original()
    np.testing.assert_array_equal(back.layers[1].get_weights()[0], frozen.get_weights()[0])


@pytest.mark.keras
def test_a_keras_model_with_losses_of_its_own_is_refused():
    from keras import layers

    with pytest.raises(SettingError, match="losses of its own"):
        module_of(dense_keras(layers.Dense(3, kernel_regularizer="l2")))


# What is no network


def layer_of(module):
    """Stands for another framework's layer, which may not be installed here."""
    base = type("Module", (), {"__module__": module, "__call__": lambda self, *x: x})
    return type("Net", (base,), {})()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (layer_of("tensorflow.python.module.module"), r"a TensorFlow module \(Net\)"),
        (layer_of("haiku._src.module"), r"a Haiku module \(Net\)"),
        (eqx.nn.MLP, r"MLP is a class of Equinox: give a network, MLP\(...\)"),
        ((64, 64), r"Did you mean MLP\(sizes=\(64, 64\)\)"),
        (MLP, r"give MLP\(\)"),
        ("mlp", "got 'mlp'"),
        (3, "got 3"),
        (lambda x: x, "without arguments that makes one"),
        ((linear_init, linear_apply, 3), "pair"),
    ],
)
def test_what_is_no_network_is_answered_with_what_is(value, says):
    with pytest.raises(SettingError, match=says):
        Network.coerce(value)


# With a memory


def remember(params, observation, carry):
    return linear_apply(params, observation + carry), carry + observation


def zeros(n):
    return jnp.zeros((n, 4), jnp.float32)


class Remembering(eqx.Module):
    weight: jax.Array
    begin: float = 0.0
    back: int = 4

    def initial_carry(self):
        return jnp.full(4, self.begin, jnp.float32)

    def __call__(self, observation, carry):
        return (observation + carry) @ self.weight, carry[: self.back]


class Forgetful(eqx.Module):
    weight: jax.Array

    def initial_carry(self):
        return jnp.zeros(4, jnp.float32)

    def __call__(self, observation):
        return observation @ self.weight


class Wordy(Remembering):
    def initial_carry(self):
        return "zeros"


class Unbegun(eqx.Module):
    weight: jax.Array

    def __call__(self, observation, carry):
        return (observation + carry) @ self.weight, carry


def failing(n):
    raise RuntimeError("no zeros here")


WEIGHT = jnp.ones((4, 2), jnp.float32)
HALF_A_MEMORY = {
    "a pair that takes a carry": ((linear_init, remember), r"begin with: give it a third function, initial_carry\(n\)"),
    "a triple that takes none": ((linear_init, linear_apply, zeros), "has an initial_carry but takes no carry"),
    "ones": ((linear_init, remember, lambda n: 1 + zeros(n)), "must make zeros, with which every episode begins"),
    "nothing": ((linear_init, remember, lambda n: ()), "makes no arrays: leave it out"),
    "no arrays": ((linear_init, remember, lambda n: "zeros"), r"must make arrays \[2, ...\]"),
    "one for all": ((linear_init, remember, lambda n: jnp.zeros(4)), r"must make arrays \[2, ...\], got float32\[4\]"),
    "an error": ((linear_init, remember, failing), r"initial_carry of .* raised RuntimeError\('no zeros here'\)"),
    "a module without a beginning": (Unbegun(WEIGHT), r"give it a method initial_carry\(\)"),
    "a module without a carry": (Forgetful(WEIGHT), "has an initial_carry but takes no carry"),
    "a module that begins with ones": (Remembering(WEIGHT, begin=1.0), "must make zeros"),
    "words": (Wordy(WEIGHT), "a carry is made of arrays, got 'zeros'"),
    "a cell alone": (eqx.nn.GRUCell(4, 2, dtype=jnp.float32, key=random.key(0)), "takes a carry and has nothing"),
}
ODD_CARRIES = {
    "outputs alone": ((linear_init, lambda p, x, c: linear_apply(p, x), zeros), r"must give \(outputs, carry\)"),
    "a carry of another shape": (Remembering(WEIGHT, back=3), r"given, float32\[2,4\], got float32\[2,3\]"),
    "another structure": (
        (linear_init, lambda p, x, c: (linear_apply(p, x), (c, c)), zeros),
        r"given, float32\[2,4\], got \(float32\[2,4\], float32\[2,4\]\)",
    ),
    "another dtype": (
        (linear_init, lambda p, x, c: (linear_apply(p, x), c.astype(jnp.int32)), zeros), r"got int32\[2,4\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("value", "says"), HALF_A_MEMORY.values(), ids=HALF_A_MEMORY.keys())
def test_half_a_memory_is_refused_when_it_is_handed_over(value, says):
    with pytest.raises(SettingError, match=says) as refusal:
        Network.coerce(value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("value", "says"), ODD_CARRIES.values(), ids=ODD_CARRIES.keys())
def test_a_carry_unlike_the_one_given_is_refused_before_anything_is_compiled(value, says):
    with pytest.raises(SettingError, match=says):
        module_of(value)


def test_a_triple_and_an_equinox_module_remember_and_come_back_as_they_were_given():
    x, carry = BATCH[:3], jnp.asarray(BATCH[2:])
    triple, module = module_of((linear_init, remember, zeros)), module_of(Remembering(WEIGHT))
    outputs, after = jax.jit(lambda m, x, c: m(x, c))(triple, x, carry)
    np.testing.assert_allclose(outputs, (x + carry) @ triple.parameters["w"] + triple.parameters["b"], rtol=1e-6)
    np.testing.assert_array_equal(after, x + carry)
    outputs, after = jax.jit(lambda m, x, c: m(x, c))(module, x, carry)
    np.testing.assert_allclose(outputs, (x + carry) @ WEIGHT, rtol=1e-6)
    back = jax.tree.map(lambda x: x + 1, module).original()
    assert type(back) is Remembering
    np.testing.assert_array_equal(back.weight, WEIGHT + 1)


def test_a_function_that_fails_is_answered_with_its_error():
    def network():
        raise RuntimeError("no weights here")

    with pytest.raises(SettingError, match=r"given as network raised RuntimeError\('no weights here'\)"):
        Learner(network)


def test_a_function_that_makes_something_else_is_answered():
    with pytest.raises(SettingError, match="made 3, which is none"):
        module_of(lambda: 3)


def test_hyperparameters_without_foreign_networks_are_left_alone():
    learner = Learner()
    assert prepare(learner, VECTOR, ACTIONS, 0) is learner
    assert isinstance(Learner((linear_init, linear_apply)).network, ForeignNetwork)
    assert not KerasSource.takes(learner)
