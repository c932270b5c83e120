"""Running moments and reward scales, against NumPy on everything seen, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from thorndike import normalization

CLIP = 10.0
update = jax.jit(normalization.update)
normalize = jax.jit(normalization.normalize, static_argnums=2)


def test_moments_are_numpys_however_the_data_is_split():
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(96, 3)) * [1, 1e-3, 50] + [1e3, 0, -5]).astype(np.float32)
    for parts in ([96], [1, 95], [1] * 4 + [92], [48, 48], [92, 1, 1, 1, 1]):
        moments = normalization.init(jax.ShapeDtypeStruct((3,), jnp.float32))
        for part in np.split(data, np.cumsum(parts)[:-1]):
            moments = update(moments, part)
        assert moments.seen == 96
        np.testing.assert_allclose(moments.mean[0], np.float64(data).mean(0), rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(moments.variance[0], np.float64(data).var(0), rtol=1e-4)


def test_all_leading_axes_are_observations():
    data = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    first = normalization.init(jnp.zeros(2))
    jax.tree.map(np.testing.assert_array_equal, update(first, data), update(first, data.reshape(20, 2)))


def test_only_floating_leaves_are_normalised():
    example = {"image": jnp.zeros((2, 2), jnp.uint8), "inner": (jnp.zeros(3), jnp.int32(0)), "z": jnp.float32(0)}
    batch = jax.tree.map(lambda x: jnp.arange(6 * x.size, dtype=x.dtype).reshape(6, *x.shape), example)
    moments = update(normalization.init(example), batch)
    found = normalize(moments, batch, CLIP)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == jax.tree.map(lambda x: (x.shape, x.dtype), batch)
    np.testing.assert_array_equal(found["image"], batch["image"])
    np.testing.assert_array_equal(found["inner"][1], batch["inner"][1])
    for x in (found["inner"][0], found["z"]):
        np.testing.assert_allclose(x.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(x.std(0), 1, rtol=1e-5)


def test_observations_without_a_floating_leaf_pass_through():
    moments = normalization.init(jax.ShapeDtypeStruct((), jnp.int32))
    batch = jnp.arange(4)
    assert update(moments, batch).seen == 0
    np.testing.assert_array_equal(normalize(moments, batch, CLIP), batch)


def test_ten_million_samples_with_a_large_offset_keep_their_digits():
    """One feature with offset 1e3 and unit scale, one with scale 1e-3: 1,000 updates of 10,000."""
    rng = np.random.default_rng(0)
    pool = (rng.normal(size=(100, 10_000, 2)) * [1, 1e-3] + [1e3, 0]).astype(np.float32)
    first = normalization.init(jnp.zeros(2))

    @jax.jit
    def ten_times_over(pool):
        return lax.scan(lambda m, i: (normalization.update(m, pool[i % 100]), None), first, jnp.arange(1000))[0]

    moments, exact = ten_times_over(pool), np.float64(pool).reshape(-1, 2)
    assert moments.seen == 10_000_000
    assert abs(moments.mean[0][0] - exact[:, 0].mean()) <= 1e-5 * 1e3
    assert abs(moments.mean[0][1] - exact[:, 1].mean()) <= 1e-5 * 1e-3
    np.testing.assert_allclose(moments.variance[0], exact.var(0), rtol=1e-5)
    np.testing.assert_allclose(normalize(moments, pool[0], CLIP).std(0), 1, atol=0.05)


@pytest.mark.parametrize("seen", [2**24, 2**31 - 1, 2**31, 2**32 - 3])
def test_the_count_goes_on_where_float32_and_int32_stop(seen):
    moments = normalization.init(jnp.zeros(1))._replace(seen=jnp.uint32(seen))
    once = update(moments, jnp.full((1, 1), 1e6))
    assert int(once.seen) == seen + 1
    np.testing.assert_allclose(once.mean[0], 1e6 / (seen + 1), rtol=1e-5)


def test_the_count_stops_at_its_largest_instead_of_starting_anew():
    moments = normalization.init(jnp.zeros(1))._replace(seen=jnp.uint32(2**32 - 3))
    for _ in range(2):
        moments = update(moments, jnp.full((5, 1), 1e6))
        assert int(moments.seen) == 2**32 - 1
    np.testing.assert_allclose(moments.mean[0], 2 * 5e6 / 2**32, rtol=1e-5)


def test_before_any_observation_normalising_only_clips():
    x = jnp.array([[-20.0, 0.5, 20.0]])
    np.testing.assert_allclose(normalize(normalization.init(jnp.zeros(3)), x, CLIP), [[-10, 0.5, 10]])


def test_a_constant_feature_is_0():
    moments = update(normalization.init(jnp.zeros(1)), jnp.full((7, 1), 123.4))
    np.testing.assert_array_equal(normalize(moments, jnp.full((2, 1), 123.4), CLIP), 0)


def test_moments_keep_their_structure_and_types():
    """So that they can be carried through a loop, and nothing is compiled twice."""
    moments = normalization.init({"a": jnp.zeros(2), "b": jnp.zeros((), jnp.float16)})
    after = update(moments, {"a": jnp.ones((3, 2)), "b": jnp.ones(3, jnp.float16)})
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), moments)


def discounted_by_hand(reward, done, gamma):
    """R of every step, from its definition: gamma^k times the rewards since the episode began."""
    returns = np.zeros(reward.shape)
    for t, n in np.ndindex(*reward.shape):
        before = np.flatnonzero(done[:t, n])
        begin = before[-1] + 1 if before.size else 0
        returns[t, n] = sum(gamma ** (t - i) * reward[i, n] for i in range(begin, t + 1))
    return returns


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_rewards_are_divided_by_the_spread_of_discounted_returns(gamma):
    rng = np.random.default_rng(0)
    reward, done = rng.normal(1, 3, (40, 3)).astype(np.float32), rng.random((40, 3)) < 0.15
    scale, follow = normalization.init_reward_scale(3), jax.jit(normalization.update_reward_scale)
    for part in (slice(0, 8), slice(8, 16), slice(16, 40)):  # returns go on from one rollout to the next
        scale = follow(scale, reward[part], done[part], gamma)
    returns = discounted_by_hand(np.float64(reward), done, gamma)
    np.testing.assert_allclose(scale.returns.variance[0], returns.var(), rtol=1e-5)
    expected = np.clip(reward / returns.std(), -0.5, 0.5)
    np.testing.assert_allclose(normalization.scale_reward(scale, reward, 0.5), expected, rtol=1e-5)
    assert (np.abs(expected) == 0.5).any()


def test_a_scaled_reward_keeps_its_sign():
    scale = normalization.update_reward_scale(
        normalization.init_reward_scale(1), jnp.full((50, 1), 5, jnp.float32), jnp.zeros((50, 1), bool), 0.99
    )
    assert (normalization.scale_reward(scale, jnp.full((2, 1), 5.0), CLIP) > 0).all()


def test_no_spread_yet_gives_finite_rewards():
    scale = normalization.init_reward_scale(2)
    reward = np.array([[1, 0]], np.float32)
    scale = normalization.update_reward_scale(scale, np.ones_like(reward), reward < 2, 0.9)
    np.testing.assert_array_equal(normalization.scale_reward(scale, reward, CLIP), [[CLIP, 0]])
