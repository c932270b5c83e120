"""What everything is compiled through: numbers that XLA is known to get wrong elsewhere come out right."""

from __future__ import annotations

import os
import subprocess
import sys

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


COMPILING = """
import jax, sys
from thorndike import compilation
folder = compilation.cache_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
assert compilation.jit(lambda x: x * 2 + 1)(3.0) == 7
"""


@pytest.mark.parametrize("cut", [0, 100])
def test_an_entry_of_the_cache_that_was_cut_short_is_made_anew(tmp_path, cut):
    """JAX compiles such a program at every start, and leaves the entry as it is."""

    def started():
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
        subprocess.run([sys.executable, "-W", "error", "-c", COMPILING], env=environment, check=True, timeout=120)
        return {path: path.stat().st_size for path in tmp_path.glob("thorndike/jax/*-cache")}

    first = started()
    assert len(first) > 0
    for path, size in first.items():
        os.truncate(path, min(cut, size - 1))
    assert {path: abs(size - first[path]) < 50 for path, size in started().items()} == dict.fromkeys(first, True)
