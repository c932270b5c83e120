"""Keras models of another backend than JAX: a second copy of Keras trains a twin, and nobody else notices.

Keras has one backend in a process: KERAS_BACKEND=tensorflow (or torch) pytest tests/frameworks/test_keras_backends.py
"""

from __future__ import annotations

import os
import sys
import threading

import jax
import numpy as np
import pytest
from gymnasium import spaces

BACKEND = os.environ["KERAS_BACKEND"]
if BACKEND == "jax":
    pytest.skip("runs with KERAS_BACKEND=tensorflow or torch", allow_module_level=True)
pytest.importorskip("keras")
pytest.importorskip(BACKEND)

import keras
from keras import layers

import thorndike as td
from thorndike.environments.probes import BlackOrWhite
from thorndike.errors import SettingError
from thorndike.networks import Network

VECTOR = spaces.Box(-1, 1, (4,), np.float32)
IMAGE = spaces.Box(0, 255, (6, 6, 1), np.uint8)
BATCH = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
PICTURES = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 1), np.uint8)

pytestmark = pytest.mark.keras


@keras.utils.register_keras_serializable()
class Mine(layers.Layer):
    def call(self, x):
        return x


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def double(x):
    return 2 * x


def sequential(*inner, inputs=(4,)):
    return keras.Sequential([keras.Input(inputs), *inner, layers.Dense(2)])


def attention():
    inputs = keras.Input((4,))
    x = layers.Reshape((4, 2))(layers.Dense(8, "gelu")(inputs))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    return keras.Model(inputs, layers.Dense(2)(layers.GRU(4)(x)))


def partly_frozen():
    model = sequential(layers.Normalization(mean=1.0, variance=4.0), layers.Dense(3), layers.Dense(3))
    model.layers[1].trainable = False
    return model


def image():
    return sequential(layers.Rescaling(1 / 255), layers.Conv2D(2, 3), layers.Flatten(), inputs=(6, 6, 1))


def without_input():
    return keras.Sequential([layers.Dense(8, "relu"), layers.Dense(2)])


def compiled():
    model = sequential(layers.Dense(8, "relu"))
    model.compile("sgd", lambda truth, predicted: (truth - predicted) ** 2)
    return model


def module_of(value, space=VECTOR):
    return Network.coerce(value).init(jax.random.key(0), space, 2)


def state_of_keras():
    modules = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "keras"}
    return modules, os.environ.get("KERAS_BACKEND"), keras.backend.backend()


@jax.jit
def call(module, batch):
    return module(batch)


@pytest.mark.parametrize("make", [attention, partly_frozen, image, without_input, compiled])
def test_the_twin_is_the_model_and_a_clone_in_its_own_backend_comes_back(make):
    given = make()
    space, batch = (IMAGE, PICTURES) if make is image else (VECTOR, BATCH)
    module = module_of(given, space)
    before = given.predict(batch, verbose=0)
    np.testing.assert_allclose(call(module, batch), before, atol=1e-5)
    trained = jax.tree.map(lambda x: x * 1.2 + 0.01, module)
    back = trained.original()
    assert back is not given
    assert type(back) is type(given)
    np.testing.assert_allclose(back.predict(batch, verbose=0), call(trained, batch), atol=1e-5)
    np.testing.assert_array_equal(given.predict(batch, verbose=0), before)


def test_the_given_model_is_fitted_as_ever_and_keras_is_as_it_was():
    modules = state_of_keras()
    given = sequential(layers.Dense(8, "relu"))
    algorithm = td.DQN(network=given, memory=td.Replay(1_000, 16), warmup_steps=100)
    run = td.train(algorithm, "CartPole-v1", 400, seeds=2, run_dir=None, quiet=True, evaluate_every=0)
    assert all(modules[0][name] is module for name, module in state_of_keras()[0].items() if name in modules[0])
    assert state_of_keras()[1:] == modules[1:]
    given.compile("sgd", "mse")
    given.fit(BATCH, np.ones((5, 2), np.float32), verbose=0)
    back = run.agent.network
    back.compile("sgd", "mse")
    back.fit(BATCH, np.ones((5, 2), np.float32), verbose=0)
    assert type(sequential()) is type(given)


def test_two_threads_may_call_models_at_once():
    modules = [module_of(sequential(layers.Dense(size))) for size in (3, 4)]
    outputs: dict = {}

    def work(i):
        outputs[i] = np.asarray(jax.jit(lambda x: modules[i](x))(BATCH))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, module in enumerate(modules):
        np.testing.assert_allclose(outputs[i], module.original().predict(BATCH, verbose=0), atol=1e-5)
    assert keras.backend.backend() == BACKEND


@pytest.mark.parametrize(
    ("make", "unknown"),
    [
        (lambda: sequential(Mine()), "Mine"),
        (Own, "Own"),
        (lambda: sequential(layers.Dense(3, activation=double)), "double"),
        (lambda: sequential(layers.Dense(3, activation=lambda x: 2 * x)), "a part of it"),
        (lambda: sequential(layers.Lambda(lambda x: 2 * x)), "a lambda"),
    ],
)
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_what_a_second_copy_cannot_know_is_named_with_what_to_do(make, unknown):
    with pytest.raises(SettingError, match=rf"runs on {BACKEND} and.*where {unknown} is unknown: write os.environ"):
        module_of(make())
    assert keras.backend.backend() == BACKEND


@pytest.mark.parametrize("name", ["BatchNormalization", "Dropout"])
def test_layers_that_change_while_training_are_refused_by_name(name):
    layer = getattr(layers, name)(*([0.5] if name == "Dropout" else []))
    with pytest.raises(SettingError, match=f"change while training: .*{name}"):
        module_of(sequential(layer))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.keras is of TensorFlow")
def test_the_keras_of_tensorflow_is_the_same():
    import tensorflow as tf

    given = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(8, "relu"), tf.keras.layers.Dense(2)])
    module = module_of(given)
    np.testing.assert_allclose(module.original().predict(BATCH, verbose=0), call(module, BATCH), atol=1e-5)


def sees(outputs):
    keras.utils.set_random_seed(outputs)
    inner = [layers.Rescaling(1 / 255), layers.Conv2D(4, 3, 2, activation="tanh"), layers.Flatten()]
    return keras.Sequential([keras.Input((12, 12, 1)), *inner, layers.Dense(16, "tanh"), layers.Dense(outputs)])


FAST = {"gamma": 0.9, "learning_rate": 1e-2, "learning_rate_end": 0.0, "num_environments": 8}


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_a_model_learns_from_images(name):
    if name == "ppo":
        critic = FAST | {"critic_network": sees(1), "epochs": 4, "batch_size": 64, "learning_rate": 3e-3}
        algorithm, steps = td.PPO(network=sees(2), rollout_length=32, **critic), 20_000
    else:
        replay = {"warmup_steps": 64, "target_period": 10, "epsilon_end": 0.3, "memory": td.Replay(4_000, 64)}
        algorithm, steps = td.DQN(network=sees(2), rollout_length=4, updates_per_rollout=4, **replay, **FAST), 8_000
    environment = BlackOrWhite(size=12)
    run = td.train(algorithm, environment, steps=steps, evaluate_every=0, quiet=True, run_dir=None)
    best = environment.solution(0.9)
    np.testing.assert_array_equal(run.agent.act(best.observation), best.action)
