"""Running moments and reward scales, against NumPy on everything seen, in float64."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import lax

from thorndike import DDPG, DQN, PPO, REINFORCE, SAC, TD3, Replay, normalization
from thorndike.core import Batch, Transition
from thorndike.errors import SettingError

CLIP = 10.0
SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
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


@pytest.mark.parametrize(
    ("row", "off"),
    [
        ({}, None), ({"loss": 0.1, "td_error": 0.3}, None), ({"value_loss": 2e5, "policy_loss": -1e9}, None),
        ({"critic_loss": float("nan")}, None), ({"td_error": 2e6}, "2e+06"), ({"value_loss": 9e12}, "3e+06"),
        ({"critic_loss": 4e8, "td_error": 1.0}, "2e+04"),
    ],
)  # fmt: skip
def test_a_hint_is_given_where_values_are_far_off(row, off):
    found = normalization.hint(row)
    assert found == (off and f"values are off by some {off}: rewards are out of scale for a network, "
                     "try normalize_rewards=True")  # fmt: skip


def steps(length, copies, seed=0):
    rng = np.random.default_rng(seed)
    shape = (length, copies)
    observation = (rng.normal(size=(*shape, 3)) * 100 + 7).astype(np.float32)
    ends = rng.random((2, *shape)) < 0.1
    reward = rng.normal(2, 1e3, shape).astype(np.float32)
    return Transition(observation, np.zeros(shape, np.int32), reward, *ends, observation + 1, {})


def test_a_trajectory_is_normalised_as_it_was_acted_and_known_afterwards():
    """Observations by what was known before, rewards by what is known now."""
    algorithm = PPO(normalize_observations=True, normalize_rewards=True, num_environments=2)
    before = normalization.observe(normalization.begin(algorithm, SPACE), steps(20, 2), 0.9)
    new = steps(30, 2, seed=1)
    found, after = normalization.as_acted(before, new, 0.9)
    seen = np.concatenate([steps(20, 2).observation, new.observation]).reshape(-1, 3)
    np.testing.assert_allclose(after.observations.mean[0], seen.mean(0), rtol=1e-5)
    for name in ("observation", "next_observation"):
        expected = normalize(before.observations, getattr(new, name), CLIP)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-6)
    rewards, done = (
        np.concatenate([getattr(s, name) for s in (steps(20, 2), new)]) for name in ("reward", "truncated")
    )
    done = done | np.concatenate([steps(20, 2).terminated, new.terminated])
    spread = discounted_by_hand(np.float64(rewards), done, 0.9).std()
    np.testing.assert_allclose(found.reward, np.clip(new.reward / spread, -CLIP, CLIP), rtol=1e-4)


def test_where_nothing_is_normalised_there_are_no_statistics_and_steps_pass():
    statistics = normalization.begin(PPO(), SPACE)
    assert jax.tree.leaves(statistics) == []
    new = steps(3, 2)
    found, after = normalization.as_acted(statistics, new, 0.9)
    assert after == statistics
    jax.tree.map(np.testing.assert_array_equal, found, new)
    assert normalization.restarted(statistics, np.ones(2, bool)) == statistics


def test_returns_of_restarted_copies_run_from_0_again():
    statistics = normalization.begin(PPO(normalize_rewards=True, num_environments=2), SPACE)
    unended = steps(5, 2)._replace(terminated=np.zeros((5, 2), bool), truncated=np.zeros((5, 2), bool))
    statistics = normalization.observe(statistics, unended, 0.9)
    anew = normalization.restarted(statistics, np.array([True, False])).rewards
    assert statistics.rewards.running.all()
    np.testing.assert_array_equal(anew.running, statistics.rewards.running * np.array([0, 1]))
    assert anew.returns is statistics.rewards.returns


def test_no_spread_yet_gives_finite_rewards():
    scale = normalization.init_reward_scale(2)
    reward = np.array([[1, 0]], np.float32)
    scale = normalization.update_reward_scale(scale, np.ones_like(reward), reward < 2, 0.9)
    np.testing.assert_array_equal(normalization.scale_reward(scale, reward, CLIP), [[CLIP, 0]])


CLIPPING = {
    "dqn": DQN(num_environments=2, memory=Replay(100, 16)),
    "ppo": PPO(num_environments=2, rollout_length=15, batch_size=10, epochs=1),
    "reinforce": REINFORCE(num_environments=2),
    "sac": SAC(num_environments=2),
    "td3": TD3(num_environments=2),
    "ddpg": DDPG(num_environments=2),
}


@pytest.mark.parametrize("name", CLIPPING)
def test_of_clipped_rewards_only_the_signs_are_learned_from(name):
    algorithm = dataclasses.replace(CLIPPING[name], clip_rewards=True)
    acts = spaces.Discrete(3) if name in ("dqn", "ppo", "reinforce") else spaces.Box(-1, 1, (1,))
    key = jax.random.key(0)

    def updated(factor):
        state = algorithm.init(key, SPACE, acts)
        new = steps(15, 2)
        reward = jnp.round(new.reward / 1e3)  # some are 0
        policy = algorithm.policy(state, jnp.float32(0))
        action, _, extras = jax.vmap(lambda x: algorithm.act(policy, x, (), key))(jnp.asarray(new.observation))
        new = new._replace(action=action, reward=factor * reward if factor else jnp.sign(reward), extras=extras)
        if isinstance(algorithm.memory, Replay):
            new = jax.tree.map(lambda x: x.reshape(1, 30, *x.shape[2:]), new)
        new = jax.tree.map(jnp.asarray, new)
        batch = Batch(new, jnp.ones(new.reward.shape[1]), jnp.arange(new.reward.shape[1]))
        return algorithm.update(state, batch, jnp.float32(0), key)[0]

    once, large, signs = jax.jit(lambda: (updated(1.0), updated(1e3), updated(0.0)))()
    for other in (large, signs):
        jax.tree.map(np.testing.assert_array_equal, once, other)


def test_rewards_are_clipped_or_divided_but_not_both():
    with pytest.raises(SettingError, match="choose normalize_rewards=True or clip_rewards=True, not both"):
        normalization.begin(PPO(normalize_rewards=True, clip_rewards=True), SPACE)
