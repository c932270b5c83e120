"""PPO's loss, epochs and schedules against their definitions; REINFORCE's beside it."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium import spaces

from thorndike import memories, normalization
from thorndike.algorithms.ppo import PPO
from thorndike.algorithms.reinforce import REINFORCE
from thorndike.core import Batch, Transition
from thorndike.errors import SettingError, UnknownNameError, UnsuitableError
from thorndike.networks import MLP
from thorndike.targets import discounted_returns, lambda_returns

OBSERVATIONS = spaces.Box(-1, 1, (3,), np.float32)
SMALL_NETWORK = MLP((8,), activation="tanh", initialization="orthogonal")
# A rate that falls changes nothing at the start, and all tests share the programs of those that look at the fall.
SMALL = PPO(
    network=SMALL_NETWORK, critic_network=SMALL_NETWORK, num_environments=2, rollout_length=8, batch_size=16, epochs=1,
    learning_rate_end=0.0,
)  # fmt: skip
SMALL_REINFORCE = REINFORCE(network=SMALL_NETWORK, baseline_network=SMALL_NETWORK, learning_rate_end=0.0)
ACTION_SPACES = {
    "discrete": spaces.Discrete(4),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "box": spaces.Box(-2, 5, (2,), np.float32),
}


@jax.jit
def update(algorithm, state, steps, fraction, key):
    """A better state, and metrics: there is nothing that a memory could be told."""
    copies = steps.reward.shape[1]
    state, metrics, feedback = algorithm.update(
        state, Batch(steps, jnp.ones(copies), jnp.arange(copies)), fraction, key
    )
    assert feedback == ()
    return state, metrics


@jax.jit
def acted(algorithm, state, observation, key):
    action, _, extras = algorithm.act(algorithm.policy(state, jnp.float32(0)), observation, (), key)
    return action, extras


def rollout(algorithm, state, seed=0, length=8, copies=2):
    """A trajectory [T, N] acted by the algorithm itself, with ends of both kinds in it."""
    draw = np.random.default_rng(seed)
    shape = (length, copies)
    observation = draw.normal(size=(*shape, 3)).astype(np.float32)
    action, extras = acted(algorithm, state, observation.reshape(-1, 3), jax.random.key(seed))
    action, extras = jax.tree.map(lambda x: np.asarray(x).reshape(*shape, *x.shape[1:]), (action, extras))
    terminated, truncated = draw.random(shape) < 0.2, draw.random(shape) < 0.2
    reward, following = draw.normal(size=shape).astype(np.float32), draw.normal(size=(*shape, 3)).astype(np.float32)
    data = Transition(observation, action, reward, terminated, truncated, following, extras)
    return jax.tree.map(jnp.asarray, data)


@partial(jax.jit, static_argnames="kind")
def begun(algorithm, key, kind):
    return algorithm.init(key, OBSERVATIONS, ACTION_SPACES[kind])


def start(algorithm, kind="discrete"):
    return begun(algorithm, jax.random.key(0), kind)


@pytest.mark.parametrize(
    ("kind", "critic"),
    [
        *((kind, SMALL_NETWORK) for kind in ACTION_SPACES),
        ("box", None),
        *(pytest.param(kind, None, marks=pytest.mark.full) for kind in ("discrete", "multidiscrete")),
    ],
)
def test_the_ratio_is_exactly_one_on_the_first_minibatch(kind, critic):
    algorithm = dataclasses.replace(SMALL, critic_network=critic)
    state = start(algorithm, kind)
    _, metrics = update(algorithm, state, rollout(algorithm, state), jnp.float32(0), jax.random.key(1))
    np.testing.assert_allclose(metrics["kl"], 0, atol=1e-6)
    assert metrics["clip_fraction"] == 0


class Batched(NamedTuple):
    observation: np.ndarray
    action: np.ndarray
    log_prob: np.ndarray
    value: np.ndarray
    advantage: np.ndarray
    target: np.ndarray
    ended: np.ndarray


def test_the_loss_is_its_definition():
    algorithm = dataclasses.replace(SMALL, clip_value=True, ent_coef=0.01)
    state = start(algorithm)
    draw = np.random.default_rng(0)
    b = 4
    batch = Batched(
        draw.normal(size=(b, 3)).astype(np.float32), np.array([0, 1, 2, 3], np.int32),
        np.log(np.array([0.1, 0.3, 0.25, 0.5], np.float32)), draw.normal(size=b).astype(np.float32),
        np.array([1.0, -2.0, 0.5, 3.0], np.float32), draw.normal(size=b).astype(np.float32), np.zeros(b, bool),
    )  # fmt: skip
    extras = {"carry": (), "log_prob": batch.log_prob, "value": batch.value}
    extras |= {"advantage": batch.advantage, "target": batch.target}
    steps = Transition(batch.observation, batch.action, (), batch.ended, batch.ended, (), extras)
    steps = jax.tree.map(lambda x: x[None], steps)
    loss, metrics = jax.jit(algorithm.loss)(state.parameters, steps, jnp.float32(0.2))

    outputs = np.asarray(state.parameters.network(batch.observation), np.float64)
    log_probs = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
    value = np.asarray(state.parameters.critic(batch.observation), np.float64)[:, 0]
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    policy_terms, value_terms, kl, clipped = [], [], [], []
    for i in range(b):
        ratio = np.exp(log_probs[i, batch.action[i]] - batch.log_prob[i])
        policy_terms.append(-min(ratio * advantage[i], np.clip(ratio, 0.8, 1.2) * advantage[i]))
        near = batch.value[i] + np.clip(value[i] - batch.value[i], -0.2, 0.2)
        value_terms.append(0.5 * max((value[i] - batch.target[i]) ** 2, (near - batch.target[i]) ** 2))
        kl.append(ratio - 1 - np.log(ratio))
        clipped.append(abs(ratio - 1) > 0.2)
    entropy = -(np.exp(log_probs) * log_probs).sum(1).mean()
    np.testing.assert_allclose(metrics["policy_loss"], np.mean(policy_terms), rtol=1e-5)
    np.testing.assert_allclose(metrics["value_loss"], np.mean(value_terms), rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], np.mean(kl), rtol=1e-4)
    np.testing.assert_allclose(metrics["clip_fraction"], np.mean(clipped))
    np.testing.assert_allclose(loss, np.mean(policy_terms) + 0.5 * np.mean(value_terms) - 0.01 * entropy, rtol=1e-5)


def test_the_loss_has_the_gradient_of_finite_differences():
    state = start(SMALL)
    samples, _ = jax.jit(SMALL.prepare)(state, rollout(SMALL, state))
    samples = samples._replace(extras=samples.extras | {"log_prob": samples.extras["log_prob"] - 0.05})
    flat, rebuild = jax.flatten_util.ravel_pytree(state.parameters)
    direction = jax.random.normal(jax.random.key(0), flat.shape)

    @jax.jit
    @jax.value_and_grad
    def along(x):
        return SMALL.loss(rebuild(flat + x * direction), samples, jnp.float32(0.2))[0]

    step = 1e-3
    numeric = (along(step)[0] - along(-step)[0]) / (2 * step)
    np.testing.assert_allclose(along(0.0)[1], numeric, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("count", [1, 7, 64, 1000])
def test_every_sample_is_used_once_an_epoch_in_a_fresh_order(count):
    orders = np.asarray(memories.shuffled(jax.random.key(0), 3, count))
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(count), (3, 1)))
    if count > 7:
        assert len({row.tobytes() for row in orders}) == 3


@pytest.mark.parametrize("count", [2**12, 2**13, 2**17, 2**20])
def test_a_large_rollout_is_shuffled_as_well_as_a_small_one(count):
    """Random bits that shared 32 with the index left 12 at 2^20: minibatches were runs of the rollout's order."""
    size = 256
    orders = np.asarray(memories.shuffled(jax.random.key(2), 2**20 // count, count))
    np.testing.assert_array_equal(np.bincount(orders.reshape(-1), minlength=count), len(orders))
    means = orders.reshape(-1, size).mean(1)  # of a minibatch's places in the rollout
    spread = np.sqrt((count**2 - 1) / (12 * size) * (1 - (size - 1) / (count - 1)))
    np.testing.assert_allclose(means.std() / spread, 1, atol=0.05)
    blocks = np.bincount(orders[:, : count // 2].reshape(-1) // (count // 64), minlength=64)
    assert scipy.stats.chisquare(blocks).pvalue > 1e-3
    neighbours = (np.diff(orders.reshape(-1, size), axis=1) > 0).mean()  # as often upwards as downwards
    assert abs(neighbours - 0.5) < 0.003


def test_the_orders_are_uniform():
    orders = np.asarray(memories.shuffled(jax.random.key(1), 6000, 6))
    first = np.bincount(orders[:, 0], minlength=6)
    assert (first > 850).all()
    assert (first < 1150).all()


def change(algorithm, fraction):
    state = start(algorithm)
    after, _ = update(algorithm, state, rollout(algorithm, state), jnp.float32(fraction), jax.random.key(1))
    pairs = zip(jax.tree.leaves(after.parameters), jax.tree.leaves(state.parameters), strict=True)
    return np.concatenate([np.ravel(np.asarray(a) - b) for a, b in pairs])


@pytest.mark.parametrize("algorithm", [SMALL, SMALL_REINFORCE], ids=["ppo", "reinforce"])
def test_the_learning_rate_falls_linearly_to_its_end(algorithm):
    algorithm = dataclasses.replace(algorithm, learning_rate=1e-2, learning_rate_end=0.0)
    whole = change(algorithm, 0.0)
    for fraction, left in [(0.25, 0.75), (0.5, 0.5), (1.0, 0.0)]:
        np.testing.assert_allclose(change(algorithm, fraction), left * whole, rtol=1e-3, atol=1e-7)
    constant = dataclasses.replace(algorithm, learning_rate_end=None)
    np.testing.assert_allclose(change(constant, 1.0), whole, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("algorithm", "critic"), [(SMALL, "critic"), (SMALL_REINFORCE, "baseline")], ids=["ppo", "reinforce"]
)
def test_the_critic_may_have_a_learning_rate_of_its_own(algorithm, critic):
    """Both parts then step as they would with either rate for both: norms are clipped together as ever."""
    both = {"learning_rate": 1e-2, "learning_rate_end": 5e-3}
    slow = stepped(dataclasses.replace(algorithm, **both), 0.5)
    quick = stepped(dataclasses.replace(algorithm, learning_rate=3e-2, learning_rate_end=5e-3), 0.5)
    apart = stepped(dataclasses.replace(algorithm, critic_learning_rate=3e-2, **both), 0.5)
    for name, expected in (("network", slow), (critic, quick)):
        for a, b in zip(*(jax.tree.leaves(getattr(x, name)) for x in (apart, expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)
    frozen = stepped(dataclasses.replace(algorithm, learning_rate=0.0, critic_learning_rate=3e-2), 0.5)
    jax.tree.map(np.testing.assert_array_equal, frozen.network, start(algorithm).parameters.network)


def stepped(algorithm, fraction):
    """The parameters after an update."""
    state = start(algorithm)
    return update(algorithm, state, rollout(SMALL, start(SMALL)), jnp.float32(fraction), jax.random.key(1))[
        0
    ].parameters


def test_the_clip_range_falls_linearly_to_its_end():
    algorithm = dataclasses.replace(SMALL, epochs=4, learning_rate=0.05, learning_rate_end=None, clip_range_end=0.0)
    state = start(algorithm)
    data = rollout(algorithm, state)
    shares = [
        float(update(algorithm, state, data, jnp.float32(f), jax.random.key(1))[1]["clip_fraction"]) for f in (0, 0.999)
    ]
    assert shares[1] > shares[0]


def test_a_rollout_is_left_before_the_step_of_a_minibatch_too_far_from_the_policy_that_acted():
    eager = dataclasses.replace(SMALL, learning_rate=0.3, epochs=6)
    cautious = dataclasses.replace(eager, target_kl=1e-4)
    # the first minibatch has no divergence yet; the second shows the first step's, and takes none of its own
    state = start(eager)
    data = rollout(eager, state)
    stopped, metrics = update(cautious, state, data, jnp.float32(0), jax.random.key(1))
    once, _ = update(dataclasses.replace(eager, epochs=1), state, data, jnp.float32(0), jax.random.key(1))
    went_on, _ = update(eager, state, data, jnp.float32(0), jax.random.key(1))
    assert [int(x) for x in jax.tree.leaves(stopped.optimizer) if x.ndim == 0] == [1]
    assert [int(x) for x in jax.tree.leaves(went_on.optimizer) if x.ndim == 0] == [6]
    for a, b in zip(jax.tree.leaves(stopped.parameters), jax.tree.leaves(once.parameters), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert metrics["kl"] > 1e-4 / 2  # the mean over the minibatches looked at: the one that stopped it too


@pytest.mark.parametrize("batch_size", [1, 2])
def test_tiny_minibatches_are_finite(batch_size):
    algorithm = dataclasses.replace(SMALL, batch_size=batch_size)
    state = start(algorithm)
    after, metrics = update(algorithm, state, rollout(algorithm, state), jnp.float32(0), jax.random.key(1))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after, metrics)))


def test_an_update_uses_the_statistics_that_were_acted_with_and_keeps_the_merged_ones():
    algorithm = dataclasses.replace(SMALL, normalize_observations=True, normalize_rewards=True)
    state = start(algorithm)
    data = rollout(algorithm, state)
    samples, statistics = jax.jit(algorithm.prepare)(state, data)
    np.testing.assert_allclose(
        samples.observation[0],
        normalization.normalize(state.statistics.observations, data.observation.reshape(-1, 3)),
        rtol=1e-6,
    )
    after, metrics = update(algorithm, state, data, jnp.float32(0), jax.random.key(1))
    np.testing.assert_allclose(metrics["kl"], 0, atol=1e-6)
    for a, b in zip(jax.tree.leaves(after.statistics), jax.tree.leaves(statistics), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(after.statistics), jax.tree.leaves(state.statistics), strict=True)
    )


def following_one_another(data):
    """The trajectory in which, where an episode goes on, the successor is acted on next."""
    goes_on = ~(data.terminated | data.truncated)[:-1, :, None]
    following = np.where(goes_on, data.observation[1:], data.next_observation[:-1])
    return data._replace(next_observation=np.concatenate([following, data.next_observation[-1:]]))


@jax.jit
def seen(network, observation):
    return network(observation)


def flat(x):
    return x.reshape(-1, *x.shape[2:])


def test_a_rollouts_targets_are_lambda_returns_and_its_advantages_what_those_are_above_the_values():
    """V is asked of the true successors, whatever is acted on next; both change with the rollout."""
    state, prepare = start(SMALL), jax.jit(SMALL.prepare)
    for seed in (0, 1):
        data = rollout(SMALL, state, seed)
        data = following_one_another(data)
        samples, _ = prepare(state, data)
        value, following = (
            np.asarray(seen(state.parameters.critic, flat(x)))[:, 0] for x in (data.observation, data.next_observation)
        )
        expected = flat(jax.jit(lambda_returns)(
            following.reshape(data.reward.shape), data.reward, data.terminated, data.truncated, SMALL.gamma,
            SMALL.gae_lambda,
        ))  # fmt: skip
        np.testing.assert_allclose(samples.extras["value"][0], value, rtol=1e-6)
        np.testing.assert_allclose(samples.extras["target"][0], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(samples.extras["advantage"][0], expected - value, rtol=1e-4, atol=1e-5)


def test_reinforces_policy_and_baseline_learn_from_losses_of_their_own():
    """The policy from what the return is above the baseline, the baseline from its error; neither from the other's."""
    algorithm = dataclasses.replace(SMALL_REINFORCE, vf_coef=0.7)
    state, acted = start(algorithm), start(SMALL)
    data = rollout(SMALL, acted)._replace(extras={"carry": ()})
    gradient, _ = jax.jit(jax.grad(algorithm.loss, has_aux=True))(state.parameters, data)
    observation, baseline = flat(data.observation), state.parameters.baseline
    bootstrap = np.asarray(seen(baseline, flat(data.next_observation))).reshape(data.reward.shape)
    ends = data.terminated, data.truncated
    returns = flat(np.asarray(jax.jit(discounted_returns)(data.reward, *ends, bootstrap, algorithm.gamma)))
    surprise = returns - np.asarray(seen(baseline, observation))[:, 0]

    def policy_loss(network):
        log_prob = jax.nn.log_softmax(network(observation))
        return -(jnp.take_along_axis(log_prob, flat(data.action)[:, None], 1)[:, 0] * surprise).mean()

    def value_loss(baseline):
        return 0.7 * 0.5 * ((baseline(observation)[:, 0] - returns) ** 2).mean()

    for part, loss in (("network", policy_loss), ("baseline", value_loss)):
        expected = jax.jit(jax.grad(loss))(getattr(state.parameters, part))
        for a, b in zip(*map(jax.tree.leaves, (getattr(gradient, part), expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_reinforce_gradient_is_the_score_times_the_return():
    algorithm = REINFORCE(network=SMALL_NETWORK, baseline_network=None, max_grad_norm=float("inf"))
    state = start(algorithm)
    acted = start(SMALL)
    data = rollout(SMALL, acted)._replace(extras={"carry": ()})
    (_, metrics), gradient = jax.jit(jax.value_and_grad(algorithm.loss, has_aux=True))(state.parameters, data)
    known = 0
    length, copies = data.reward.shape
    done = data.terminated | data.truncated
    weights = []
    for n in range(copies):
        for t in range(length):
            ends = [k for k in range(t, length) if done[k, n]]
            if ends:
                total = sum(algorithm.gamma ** (k - t) * float(data.reward[k, n]) for k in range(t, ends[0] + 1))
                weights.append((t, n, total))
                known += 1

    time, copy, value = (np.array(x) for x in zip(*weights, strict=True))

    def defined(parameters):
        log_prob = jax.nn.log_softmax(parameters.network(data.observation[time, copy]))
        return -(log_prob[np.arange(known), data.action[time, copy]] * value.astype(np.float32)).sum() / known

    loss, expected = jax.jit(jax.value_and_grad(defined))(state.parameters)
    np.testing.assert_allclose(metrics["policy_loss"], loss, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_what_cannot_work_is_refused_with_a_reason():
    with pytest.raises(SettingError, match="does not divide"):
        PPO(num_environments=4, rollout_length=10, batch_size=16)
    with pytest.raises(SettingError, match="critic_learning_rate is of no effect with critic_network=None"):
        PPO(critic_network=None, critic_learning_rate=1e-3)
    with pytest.raises(SettingError, match="critic_learning_rate is of no effect with baseline_network=None"):
        REINFORCE(baseline_network=None, critic_learning_rate=1e-3)
    for once_a_share in ({"learning_rate_end": 1.0}, {"clip_range_end": 0.5}):
        with pytest.raises(SettingError, match=r"_end is what .* falls to, at most its [\d.]+, got .*; None: it stays"):
            PPO(**once_a_share)
    with pytest.raises(SettingError, match=r"falls to, at most its 0\.001, got 0\.01"):
        PPO(learning_rate=0.1, critic_learning_rate=1e-3, learning_rate_end=1e-2)
    with pytest.raises(UnknownNameError, match="critic_learning_rate"):
        PPO(vf_lr=1e-3)
    with pytest.raises(UnknownNameError, match="rollout_length"):
        PPO(n_steps=10)
    with pytest.raises(UnsuitableError, match="MultiBinary"):
        SMALL.check(OBSERVATIONS, spaces.MultiBinary(3))
