"""What everything is compiled through: numbers that XLA is known to get wrong elsewhere come out right."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thorndike.compilation import jit

GRID = np.random.default_rng(0).standard_normal((64, 64, 2)).astype(np.float32)


def ramps(x, sum=jnp.sum):
    """Two sums over a small axis, each of a constant times a slice: two of Perlin noise's four corners."""
    return sum(GRID * x[:-16, :-16], 2) + sum(GRID * x[16:, 16:], 2)


@pytest.mark.parametrize("copies", [8, 16, 32])
def test_sums_over_many_copies_are_right(copies):
    """jaxlib 0.10 is wrong by up to 10 in every copy from the ninth on, where it compiles as it likes."""
    x = np.random.default_rng(1).standard_normal((copies, 80, 80, 2)).astype(np.float32)
    right = np.stack([ramps(row, np.sum) for row in x])
    np.testing.assert_allclose(jit(jax.vmap(ramps))(x), right, atol=1e-4)


def test_settings_reach_jax():
    """A static argument and a donated one, as training has them."""

    def scaled(x, times):
        return times * x

    x = jnp.arange(3.0)
    assert jit(scaled, static_argnames="times", donate_argnames="x")(x, times=2).tolist() == [0, 2, 4]
    assert x.is_deleted()
