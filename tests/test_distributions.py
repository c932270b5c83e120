"""Distributions over actions, against float64 formulas, integrals and counts."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium import spaces
from jax import random

from thorndike.distributions import Categorical, Head, MultiCategorical, Normal, TanhNormal
from thorndike.errors import UnsuitableError

LOGITS = np.array([[0.0, 1.0, -2.0, 3.0], [0.5, 0.5, 0.5, 0.5], [60.0, -60.0, 0.0, 1.0]], np.float32)


def new_key():
    """Always the same one, but a new object: no key is used twice."""
    return random.key(0)


def softmax(logits):
    e = np.exp(np.float64(logits) - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_categorical_probabilities_and_entropy_are_those_of_the_softmax():
    distribution, p = Categorical(jnp.asarray(LOGITS)), softmax(LOGITS)
    found = [distribution.log_prob(jnp.full(3, action)) for action in range(4)]
    np.testing.assert_allclose(np.stack(found, -1), np.log(p), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(distribution.entropy(), -(p * np.log(p)).sum(-1), atol=1e-6)
    np.testing.assert_array_equal(distribution.mode(), LOGITS.argmax(-1))
    assert distribution.mode().dtype == distribution.sample(new_key()).dtype == jnp.int32


def test_categorical_samples_follow_the_probabilities():
    logits = LOGITS[0]
    counts = np.bincount(Categorical(jnp.tile(logits, (100_000, 1))).sample(new_key()), minlength=4)
    assert scipy.stats.chisquare(counts, 100_000 * softmax(logits)).pvalue > 1e-3


def test_a_masked_choice_has_probability_0_and_finite_gradients_beside_it():
    logits = jnp.array([[1.0, -jnp.inf, 0.0, -jnp.inf]])
    distribution = Categorical(logits)
    assert jnp.exp(distribution.log_prob(jnp.array([1])))[0] == 0
    assert set(np.unique(Categorical(jnp.tile(logits, (10_000, 1))).sample(new_key()))) == {0, 2}
    np.testing.assert_allclose(distribution.entropy(), scipy.stats.entropy(softmax(np.array([1.0, 0.0]))), rtol=1e-6)

    def total(logits):
        distribution = Categorical(logits)
        return distribution.entropy().sum() + distribution.log_prob(jnp.array([2])).sum()

    assert jnp.isfinite(jax.jit(jax.grad(total))(logits)).all()


def test_multi_categorical_is_the_product_of_its_parts():
    sizes, rng = (2, 3, 4), np.random.default_rng(0)
    logits = rng.normal(size=(5, sum(sizes))).astype(np.float32)
    distribution = MultiCategorical(jnp.asarray(logits), sizes)
    joint = np.array(list(itertools.product(*map(range, sizes))))  # [24, 3]
    found = jax.jit(jax.vmap(lambda action: distribution.log_prob(jnp.tile(action[None], (5, 1)))))(joint)
    p = [softmax(part) for part in np.split(logits, [2, 5], -1)]
    expected = sum(np.log(part[:, joint[:, i]]) for i, part in enumerate(p)).T
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(expected).sum(0), 1)
    np.testing.assert_allclose(distribution.entropy(), -(np.exp(expected) * expected).sum(0), rtol=1e-5)
    np.testing.assert_array_equal(distribution.mode(), np.stack([part.argmax(-1) for part in p], -1))


def test_the_parts_of_a_multi_categorical_are_sampled_independently():
    sample = np.asarray(MultiCategorical(jnp.zeros((40_000, 4)), (2, 2)).sample(new_key()))
    counts = np.bincount(2 * sample[:, 0] + sample[:, 1], minlength=4)
    assert sample.dtype == np.int32
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("event_axes", [0, 1, 2])
def test_normal_is_scipys(event_axes):
    rng = np.random.default_rng(0)
    mean, log_std, action = rng.normal(size=(3, 4, 2, 3)).astype(np.float32)
    distribution = Normal(jnp.asarray(mean), jnp.asarray(log_std), event_axes)
    reference, axes = scipy.stats.norm(np.float64(mean), np.exp(np.float64(log_std))), tuple(range(-event_axes, 0))
    np.testing.assert_allclose(distribution.log_prob(action), reference.logpdf(action).sum(axes), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(distribution.entropy(), reference.entropy().sum(axes), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(distribution.mode(), mean)


def test_normal_samples_are_normal():
    sample = Normal(jnp.full((20_000, 1), 3.0), jnp.full((20_000, 1), -1.0)).sample(new_key())[:, 0]
    assert scipy.stats.kstest(np.asarray(sample), scipy.stats.norm(3, np.exp(-1)).cdf).pvalue > 1e-3


def tanh_normal_log_prob(u, mean, log_std):
    """log N(u) - log(1 - tanh(u)^2), in float64 and with 1 - tanh^2 = 4 / (e^u + e^-u)^2."""
    density = -0.5 * ((u - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    return (density - (np.log(4) - 2 * np.logaddexp(u, -u))).sum(-1)


@pytest.mark.parametrize("mean", [0.0, 3.0, -9.0])
@pytest.mark.parametrize("log_std", [-3.0, 0.0, 2.0])
def test_tanh_normal_is_exact_where_tanh_saturates(mean, log_std):
    u = np.array([0, 1, -1, 5, -5, 10, -10, 20, -20], np.float32)[:, None]
    mean, log_std = np.full_like(u, mean), np.full_like(u, log_std)
    found = TanhNormal(jnp.asarray(mean), jnp.asarray(log_std)).log_prob_before_tanh(jnp.asarray(u))
    expected = tanh_normal_log_prob(np.float64(u), mean, np.float64(log_std))
    assert (np.abs(found - expected) <= 1e-4 * (1 + np.abs(expected))).all()


def test_log_prob_of_a_sample_is_exact_where_tanh_saturates():
    mean = np.array([0, 5, -5, 10, -10, 20, -20], np.float32)[:, None]
    log_std, noise = np.full_like(mean, -1), np.float64(random.normal(new_key(), mean.shape, mean.dtype))
    _, found = TanhNormal(jnp.asarray(mean), jnp.asarray(log_std)).sample_and_log_prob(new_key())
    expected = tanh_normal_log_prob(mean + np.exp(np.float64(log_std)) * noise, mean, np.float64(log_std))
    assert (np.abs(found - expected) <= 1e-4 * (1 + np.abs(expected))).all()


def test_log_prob_of_a_tanh_normals_sample_is_that_of_the_sample():
    key_mean, key_std, key_sample = random.split(new_key(), 3)
    mean, log_std = random.normal(key_mean, (1000, 3)), random.uniform(key_std, (1000, 3), minval=-2, maxval=0)
    distribution = TanhNormal(mean, log_std)
    action, log_prob = distribution.sample_and_log_prob(random.clone(key_sample))
    np.testing.assert_array_equal(action, distribution.sample(key_sample))
    inside = np.asarray(jnp.abs(action).max(-1) < 0.99)
    expected = tanh_normal_log_prob(np.arctanh(np.float64(action)), mean, np.float64(log_std))
    np.testing.assert_allclose(log_prob[inside], expected[inside], atol=1e-3)
    np.testing.assert_allclose(distribution.log_prob(action)[inside], expected[inside], atol=1e-3)
    assert inside.sum() > 500
    np.testing.assert_allclose(distribution.mode(), np.tanh(np.float64(mean)), rtol=1e-5)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.0, -1.0), (-2.0, -0.5), (0.5, 0.3)])
def test_tanh_normals_density_integrates_to_1_and_its_samples_follow_it(mean, log_std):
    edges = np.tanh(np.linspace(-8, 8, 40_001))
    action = jnp.asarray(((edges[1:] + edges[:-1]) / 2)[:, None], jnp.float32)
    distribution = TanhNormal(jnp.full_like(action, mean), jnp.full_like(action, log_std))
    p = np.exp(np.float64(distribution.log_prob(action))) * np.diff(edges)
    assert abs(p.sum() - 1) < 1e-3
    sample = np.asarray(distribution.sample(new_key()))[:, 0]
    law = scipy.stats.norm(mean, np.exp(log_std))
    assert scipy.stats.kstest(np.arctanh(np.float64(sample)), law.cdf).pvalue > 1e-3


def test_nothing_of_a_tanh_normal_is_infinite_at_the_ends_or_at_extreme_parameters():
    mean = jnp.array([[0.0], [100.0], [-100.0], [0.0], [20.0]])
    log_std = jnp.array([[0.0], [1000.0], [-1000.0], [2.0], [-20.0]])

    def total(mean, log_std, action):
        sample, log_prob = TanhNormal(mean, log_std).sample_and_log_prob(new_key())
        return TanhNormal(mean, log_std).log_prob(action).sum() + log_prob.sum() + sample.sum()

    for end in (-1.0, 1.0):
        value, gradient = jax.jit(jax.value_and_grad(total, (0, 1)))(mean, log_std, jnp.full_like(mean, end))
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(x).all() for x in gradient)


def test_a_tanh_normals_gradient_is_that_of_its_reparametrised_sample():
    """d/dmean of log_prob(sample): only the slope of tanh moves, 2 tanh(u); d/dlog_std: -1 + 2 tanh(u) std noise."""
    mean, log_std = jnp.array([[0.3, -0.2]]), jnp.array([[-0.5, 0.1]])

    @jax.jit
    def gradients(mean, log_std):
        return jax.grad(lambda m, s: TanhNormal(m, s).sample_and_log_prob(new_key())[1].sum(), (0, 1))(mean, log_std)

    by_mean, by_std = gradients(mean, log_std)
    action = TanhNormal(mean, log_std).sample(new_key())
    np.testing.assert_allclose(by_mean, 2 * action, rtol=1e-5)
    np.testing.assert_allclose(by_std, -1 + 2 * action * (jnp.arctanh(action) - mean), rtol=1e-4)


SPACES = [
    (spaces.Discrete(5), 5, Categorical),
    (spaces.Discrete(2, start=7), 2, Categorical),
    (spaces.MultiDiscrete([2, 3]), 5, MultiCategorical),
    (spaces.Box(-1, 1, (3,)), 3, Normal),
    (spaces.Box(-np.inf, np.inf, (2, 3)), 6, Normal),
    (spaces.Box(-1, 1, ()), 1, Normal),
]


@pytest.mark.parametrize(("space", "outputs", "kind"), SPACES, ids=lambda x: str(x))
def test_a_head_makes_actions_of_the_spaces_shape(space, outputs, kind):
    head = Head.of(space, initial_log_std=-0.5)
    distribution = jax.jit(lambda head, x: head(x))(head, jnp.ones((4, outputs), jnp.float32))  # it may cross a jit
    assert head.outputs == outputs
    assert isinstance(distribution, kind)
    for action in (distribution.sample(new_key()), distribution.mode()):
        assert action.shape == (4, *space.shape)
        assert action.dtype == (jnp.float32 if kind is Normal else jnp.int32)
        assert distribution.log_prob(action).shape == (4,)
    assert distribution.entropy().shape == (4,)


def test_a_heads_log_std_is_what_trains_and_all_that_does():
    head = Head.of(spaces.Box(-1, 1, (3,)), initial_log_std=-0.5)
    np.testing.assert_array_equal(jax.tree.leaves(head), [[-0.5, -0.5, -0.5]])
    assert jax.tree.leaves(Head.of(spaces.Discrete(3))) == []
    gradient = jax.grad(lambda head: head(jnp.zeros((4, 3))).entropy().mean())(head)
    np.testing.assert_allclose(gradient.log_std, 1)


def test_heads_of_equal_spaces_have_equal_structure():
    first, second, other = (jax.tree.structure(Head.of(spaces.Discrete(n))) for n in (3, 3, 4))
    assert first == second != other


@pytest.mark.parametrize("space", [spaces.MultiBinary(3), spaces.Tuple([spaces.Discrete(2)]), spaces.Text(3)])
def test_a_head_refuses_other_spaces_by_name(space):
    with pytest.raises(UnsuitableError, match=type(space).__name__):
        Head.of(space)
