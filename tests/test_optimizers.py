"""Optimizers: by name, by optax, in every algorithm, in what is saved and handed in again."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces

import thorndike as td
from thorndike import hyperparameters, names
from thorndike.errors import RunError, SettingError, UnknownNameError
from thorndike.optimizers import OPTIMIZERS, Optimizer

SMALL = td.DQN(td.MLP((4,)), num_environments=2, rollout_length=8, updates_per_rollout=1, warmup_steps=16)
QUICK = {"quiet": True, "evaluate_every": 0}


def run_of(optimizer, rate, gradients, start=0.0):
    """The parameter after each of these gradients."""
    transformation = Optimizer.coerce(optimizer).descent(rate)
    x, found = jnp.float32(start), []
    state = transformation.init(x)
    for gradient in gradients:
        change, state = transformation.update(jnp.float32(gradient), state, x)
        x = optax.apply_updates(x, change)
        found.append(float(x))
    return np.array(found)


def test_rmsprop_is_that_of_a3c():
    """g = alpha g + (1 - alpha) d^2, theta -= rate d / sqrt(g + eps): Mnih et al. (2016), equation S3."""
    gradients, x, mean, expected = [1.0, -3.0, 0.5], 0.0, 0.0, []
    for gradient in gradients:
        mean = 0.9 * mean + 0.1 * gradient**2
        x -= 0.01 * gradient / np.sqrt(mean + 1e-3)
        expected.append(x)
    np.testing.assert_allclose(run_of(td.RMSProp(decay=0.9, eps=1e-3), 0.01, gradients), expected, rtol=1e-5)


def test_adamw_decays_weights_and_adam_does_not():
    still = [0.0, 0.0]
    np.testing.assert_allclose(run_of(td.AdamW(weight_decay=0.1), 0.5, still, 1.0), [0.95, 0.95**2], rtol=1e-6)
    np.testing.assert_array_equal(run_of("adam", 0.5, still, 1.0), [1.0, 1.0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_scales_every_step_and_may_be_traced(name):
    gradients = [0.3, -1.0, 2.0]
    twice = jax.jit(lambda rate: Optimizer.coerce(name).descent(rate).update(jnp.float32(1), state)[0])
    state = Optimizer.coerce(name).descent(0.1).init(jnp.float32(0))
    if name != "adamw":
        np.testing.assert_allclose(run_of(name, 0.02, gradients), 2 * run_of(name, 0.01, gradients), rtol=1e-5)
        np.testing.assert_allclose(twice(jnp.float32(0.2)), 2 * twice(jnp.float32(0.1)), rtol=1e-6)


@pytest.mark.parametrize(
    "given", [optax.lion, partial(optax.adamw, weight_decay=0.5), optax.sgd(0.1)], ids=["function", "partial", "whole"]
)
def test_a_users_own_is_used_as_it_is(given):
    algorithm = td.PPO(optimizer=given)
    parameters = {"x": jnp.ones(3)}
    whole = given if hasattr(given, "update") else given(3e-4)
    assert jax.tree.structure(algorithm.optimizer.descent(3e-4).init(parameters)) == jax.tree.structure(
        whole.init(parameters)
    )
    assert hash(jax.tree.structure(algorithm)) == hash(jax.tree.structure(td.PPO(optimizer=given)))


@pytest.mark.parametrize("name", names.ALGORITHMS)
def test_every_algorithm_descends_with_the_optimizer_that_it_is_given(name):
    """With a rate of 1 and no clipping, SGD moves the parameters by the gradient itself: by a thousand of a 1000th."""
    cls = getattr(td, name)
    box, choices = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2)
    for actions in (box, choices):
        algorithm = cls(optimizer="sgd")
        try:
            algorithm.check(box, actions)
        except td.UnsuitableError:
            continue
        state = jax.eval_shape(lambda a=algorithm, b=actions: a.init(jax.random.key(0), box, b))
        moments = [x for x in jax.tree.leaves(getattr(state, "optimizers", None) or state.optimizer) if x.ndim]
        assert not moments, "SGD remembers nothing, so another optimizer is at work"
        return
    raise AssertionError("no action space suits")


def test_words_and_objects_that_are_no_optimizer_are_answered():
    with pytest.raises(UnknownNameError, match="Did you mean 'rmsprop'"):
        td.DQN(optimizer="rmsprob")
    with pytest.raises(SettingError, match=r"Adam is a class: give Adam\(\)"):
        td.DQN(optimizer=td.Adam)
    for wrong in (3, lambda: None, lambda rate: rate):
        with pytest.raises(SettingError, match="optimizer= takes a name"):
            td.DQN(optimizer=wrong)


def test_an_optimizer_comes_back_with_the_run_and_ones_own_is_handed_in_again(tmp_path):
    algorithm = hyperparameters.dataclasses.replace(SMALL, optimizer=td.RMSProp(decay=0.5))
    td.train(algorithm, "CartPole-v1", 64, run_dir=tmp_path / "named", **QUICK)
    assert td.load(tmp_path / "named").configuration.algorithm == algorithm
    own = hyperparameters.dataclasses.replace(SMALL, optimizer=optax.lion)
    td.train(own, "CartPole-v1", 64, run_dir=tmp_path / "own", **QUICK)
    with pytest.raises(RunError, match=r"trained an optimizer of your own as optimizer: hand it in again with optimiz"):
        td.load(tmp_path / "own")
    assert td.load(tmp_path / "own", optimizer=optax.lion).configuration.algorithm == own
    assert td.resume(tmp_path / "own", steps=128, optimizer=optax.lion, quiet=True).summary["steps"] == 128
