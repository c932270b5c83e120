"""Haiku networks: what hk.transform makes, and what is refused of it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from gymnasium import spaces

haiku = pytest.importorskip("haiku")

from thorndike.errors import SettingError
from thorndike.networks import Network

VECTOR = spaces.Box(-1, 1, (4,), np.float32)
BATCH = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)

pytestmark = pytest.mark.keras  # Haiku's own layers promote ranks


class Noisy(haiku.Module):
    def __call__(self, x):
        return haiku.dropout(haiku.next_rng_key(), 0.5, haiku.Linear(2)(x))


def mlp(x):
    return haiku.nets.MLP([8, 2])(x)


def module_of(value, outputs=2, seed=0):
    return Network.coerce(value).init(jax.random.key(seed), VECTOR, outputs)


@jax.jit
def call(module, batch):
    return module(batch)


@pytest.mark.parametrize("without_key", [False, True])
def test_a_transformed_draws_from_its_key_and_is_given_back_with_its_parameters(without_key):
    given = haiku.without_apply_rng(haiku.transform(mlp)) if without_key else haiku.transform(mlp)
    no_key = () if without_key else (None,)
    one, other = module_of(given, seed=1), module_of(given, seed=2)
    assert not np.allclose(call(one, BATCH), call(other, BATCH))
    expected = given.apply(given.init(jax.random.key(1), BATCH[:1]), *no_key, BATCH)
    np.testing.assert_allclose(call(one, BATCH), expected, atol=1e-6)
    transformed, parameters = jax.tree.map(lambda x: x * 1.5, one).original()
    assert transformed is given
    tripled = jax.tree.map(lambda x: x * 1.5, one)
    np.testing.assert_allclose(transformed.apply(parameters, *no_key, BATCH), call(tripled, BATCH), atol=1e-6)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (lambda: haiku.transform(lambda x: Noisy()(x)), r"draws random numbers: noisy \(Noisy\); leave it out"),
        (
            lambda: haiku.without_apply_rng(haiku.transform(lambda x: Noisy()(x))),
            r"draws random numbers: noisy \(Noisy\); leave it out",
        ),
        (
            lambda: haiku.transform(lambda x: mlp(haiku.dropout(haiku.next_rng_key(), 0.5, x))),
            "draws random numbers: in the function itself",
        ),
        (
            lambda: haiku.transform(lambda x: haiku.BatchNorm(True, True, 0.9)(mlp(x), is_training=True)),
            "keeps state: batch_norm/.*leave it out",
        ),
        (lambda: haiku.transform_with_state(mlp), r"TransformedWithState keeps state.*give hk.transform\(...\)"),
        (lambda: haiku.transform(haiku.nets.MLP), "cannot take observations"),
        (lambda: haiku.transform(lambda x: haiku.Linear(3)(x)), r"makes \(2, 3\) of 2 observations"),
        (lambda: haiku.Linear, r"Linear is a class of Haiku: give a network, Linear\("),
        (lambda: haiku.multi_transform(lambda: (mlp, mlp)), r"a Haiku module \(MultiTransformed\)"),
    ],
)
def test_what_cannot_be_taken_is_answered_with_what_to_do(value, says):
    with pytest.raises(SettingError, match=says):
        module_of(value())


def test_a_function_may_make_one():
    assert type(module_of(lambda: haiku.transform(mlp)).original()[0]).__name__ == "Transformed"
