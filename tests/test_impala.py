"""IMPALA: its loss from the paper, and values of the present policy from what an older one did."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, random

import thorndike as td
from test_ppo import SMALL_NETWORK, flat, rollout, start
from thorndike import normalization
from thorndike.core import Actor, Batch
from thorndike.environments.functional import Vectorized
from thorndike.environments.tabular import garnet
from thorndike.errors import SettingError, UnknownNameError
from thorndike.unrolls import compiled

IMPALA = td.IMPALA(
    network=SMALL_NETWORK, critic_network=SMALL_NETWORK, num_environments=2, rollout_length=8, gae_lambda=0.9,
    c_bar=0.8, rho_bar=1.1, ent_coef=0.03, vf_coef=0.7,
)  # fmt: skip
PLAIN = dataclasses.replace(IMPALA, optimizer="sgd", learning_rate=1.0, max_grad_norm=float("inf"))


def test_an_update_is_one_step_down_the_papers_loss():
    """Samples count by their weights; neither targets nor ratios have a gradient."""
    noise = np.random.default_rng(0)

    def away(size):
        """A state whose policy is not nearly uniform: its entropy has a slope."""
        state = start(PLAIN)
        moved = jax.tree.map(lambda x: x + noise.normal(0, size, x.shape).astype(np.float32), state.parameters)
        return state._replace(parameters=moved)

    older, state = away(0.3), away(0.5)
    data, weight = rollout(PLAIN, older), np.array([0.5, 1.5], np.float32)
    value, following = (
        np.asarray(jax.jit(lambda x: state.parameters.critic(x))(flat(x)))[:, 0].reshape(8, 2)
        for x in (data.observation, data.next_observation)
    )
    logits = np.asarray(jax.jit(lambda x: state.parameters.network(x))(flat(data.observation)), np.float64)
    log_prob = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    log_prob = log_prob[np.arange(16), flat(data.action)].reshape(8, 2)
    ratio = np.exp(log_prob - np.asarray(data.extras["log_prob"], np.float64))
    assert ratio.min() < 0.8
    assert ratio.max() > 1.1
    target, advantage = np.zeros((2, 8, 2))
    for n in range(2):
        later = 0.0  # v - V of the next step
        for t in reversed(range(8)):
            done = data.terminated[t, n] or data.truncated[t, n]
            goes_on, later = PLAIN.gamma * (not data.terminated[t, n]), 0.0 if done else later
            rho, c = min(1.1, ratio[t, n]), 0.9 * min(0.8, ratio[t, n])
            advantage[t, n] = rho * (data.reward[t, n] + goes_on * (following[t, n] + later) - value[t, n])
            later = rho * (data.reward[t, n] + goes_on * following[t, n] - value[t, n]) + goes_on * c * later
            target[t, n] = value[t, n] + later
    weights = np.tile(weight, 8)

    @jax.jit
    @jax.grad
    def gradient(parameters):
        distribution = parameters.head(parameters.network(flat(data.observation)))
        values = parameters.critic(flat(data.observation))[:, 0]
        policy = -(weights * distribution.log_prob(flat(data.action)) * flat(advantage.astype(np.float32))).mean()
        error = (weights * (values - flat(target.astype(np.float32))) ** 2).mean()
        return policy + 0.7 * 0.5 * error - 0.03 * (weights * distribution.entropy()).mean()

    batch = Batch(data, jnp.asarray(weight), jnp.arange(2))
    new, metrics, feedback = jax.jit(PLAIN.update)(state, batch, jnp.float32(0), jax.random.key(0))
    found = jax.tree.map(lambda a, b: np.asarray(a - b), new.parameters, state.parameters)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, -b, rtol=1e-3, atol=1e-5), found, gradient(state.parameters)
    )
    np.testing.assert_allclose(feedback, np.abs(target - value), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(metrics["ratio"], ratio.mean(), rtol=1e-4)


def test_every_step_is_known_once_and_windows_are_normalised_by_what_is_known():
    state, data = start(PLAIN), rollout(PLAIN, start(PLAIN))
    algorithm = dataclasses.replace(PLAIN, normalize_observations=True, normalize_rewards=True)
    known = jax.jit(algorithm.observe)(start(algorithm), data)
    moments, scale = known.statistics
    assert moments.seen == scale.returns.seen == 16
    np.testing.assert_allclose(moments.mean[0], flat(data.observation).mean(0), rtol=1e-4, atol=1e-6)

    def stepped(algorithm, state, data):
        batch = Batch(data, jnp.ones(2, jnp.float32), jnp.arange(2))
        return jax.jit(algorithm.update)(state, batch, jnp.float32(0), jax.random.key(0))[0].parameters

    found = stepped(algorithm, known, data)
    expected = stepped(PLAIN, state, normalization.apply(known.statistics, data))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    assert not np.allclose(found.critic.biases[-1], stepped(PLAIN, state, data).critic.biases[-1], atol=1e-3)


TABLE, GAMMA = td.MLP((), initialization="default"), 0.9  # of one-hot states


@pytest.mark.parametrize(
    ("rho_bar", "c_bar", "memory"),
    [
        (1.0, 1.0, td.Latest()),
        *(pytest.param(*case, marks=pytest.mark.full) for case in (
            (float("inf"), 1.0, td.Latest()),
            (0.5, 0.5, td.Latest()),
            (1.0, 1.0, td.Replay(8_000, 16, sequence=20)),
        )),
    ],
    ids=str,
)  # fmt: skip
def test_values_become_those_of_the_present_policy_whichever_has_acted(rho_bar, c_bar, memory):
    """Theorem 1: those of min(rho_bar mu, pi), normalised; of pi itself where rho_bar is infinite."""
    environment = garnet(0)
    algorithm = td.IMPALA(
        network=TABLE, critic_network=TABLE, num_environments=16, rollout_length=20, gamma=GAMMA, optimizer="sgd",
        learning_rate=0.0, critic_learning_rate=5.0, learning_rate_end=0.0, ent_coef=0.0, vf_coef=1.0, rho_bar=rho_bar,
        c_bar=c_bar, memory=memory, max_grad_norm=float("inf"),
    )  # fmt: skip
    world, draw = Vectorized(environment, 16), np.random.default_rng(1)
    state = algorithm.init(random.key(0), environment.observation_space, environment.action_space)
    present, older = (
        jax.tree.map(lambda x: draw.normal(0, 0.7, x.shape).astype(np.float32), state.network) for _ in range(2)
    )
    acting = state._replace(parameters=state.parameters._replace(network=older))
    state = state._replace(parameters=state.parameters._replace(network=present))

    @jax.jit
    def learned(state, key):
        policy = algorithm.policy(acting, jnp.float32(0))
        actor = Actor(*world.reset(key), algorithm.initial_carry(16), jnp.zeros(16, bool))
        shapes = jax.eval_shape(lambda a: compiled.unroll(algorithm, world, policy, a, key, 20)[1], actor)
        memory = algorithm.memory.init(
            jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), shapes), (20, 16)
        )

        def iterate(loop, i):
            state, memory, actor = loop
            one, two, three = random.split(random.fold_in(key, i), 3)
            actor, steps = compiled.unroll(algorithm, world, policy, actor, one, 20)
            memory = algorithm.memory.add(memory, steps)
            batch = algorithm.memory.sample(memory, two, jnp.float32(0))
            state, metrics, _ = algorithm.update(state, batch, i / 2_000, three)
            return (state, memory, actor), metrics["ratio"]

        (state, *_), ratio = lax.scan(iterate, (state, memory, actor), jnp.arange(2_000))
        return state, ratio

    after, ratio = learned(state, random.key(3))
    pi, mu = (np.asarray(jax.nn.softmax(net(environment.observations))) for net in (present, older))
    np.testing.assert_array_equal(after.network.weights[0], present.weights[0])
    believed = np.minimum(rho_bar * mu, pi)
    truth = environment.policy_values(believed / believed.sum(1, keepdims=True), GAMMA)
    others = environment.policy_values(mu, GAMMA)
    found = np.asarray(after.parameters.critic(environment.observations))[:, 0]
    assert np.abs(truth - others).max() > 0.2  # or both would do
    np.testing.assert_allclose(found, truth, atol=0.08)
    assert np.abs(ratio - 1).mean() > 0.001


@pytest.mark.full
def test_a_replay_remembers_the_probabilities_that_were_acted_with(tmp_path):
    algorithm = dataclasses.replace(IMPALA, memory=td.Replay(64, 4, sequence=8), updates_per_rollout=2)
    run = td.train(algorithm, "CartPole-v1", 400, run_dir=tmp_path / "run", quiet=True, evaluate_every=0)
    assert td.load(tmp_path / "run").configuration.algorithm == algorithm
    assert np.isfinite(run.metrics["policy_loss"]).all()


def test_what_cannot_work_is_refused_with_a_reason():
    for wrong in ({"window": 2}, {"burn_in": 4}):
        with pytest.raises(SettingError, match="all steps of a window are learned from"):
            td.IMPALA(memory=td.Replay(1_000, 4, sequence=8, **wrong))
    with pytest.raises(SettingError, match="must fill at least one window"):
        td.IMPALA(memory=td.Replay(1_000, 4, sequence=21))
    with pytest.raises(UnknownNameError, match="IMPALA has no field 'epochs'"):
        td.IMPALA(epochs=2)
