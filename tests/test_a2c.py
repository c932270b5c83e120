"""A2C's returns, loss and steps against the paper's: loops over samples, from its algorithm S3."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thorndike as td
from test_ppo import ACTION_SPACES, SMALL_NETWORK, flat, following_one_another, rollout, start, update
from thorndike.errors import SettingError, UnknownNameError
from thorndike.hyperparameters import hyperparameters

NETWORKS = {"network": SMALL_NETWORK, "critic_network": SMALL_NETWORK}
A2C = td.A2C(**NETWORKS, num_environments=2, rollout_length=8, ent_coef=0.03, vf_coef=0.7)
PLAIN = dataclasses.replace(A2C, optimizer="sgd", learning_rate=1.0, max_grad_norm=float("inf"))


def returns_of(data, value_of_next, gamma):
    """R of each step: rewards up to the end of the episode or the rollout, then V of what follows, if it goes on."""
    length, copies = data.reward.shape
    found = np.zeros((length, copies))
    for t, n in np.ndindex(length, copies):
        for k in range(t, length):
            found[t, n] += gamma ** (k - t) * float(data.reward[k, n])
            if data.terminated[k, n] or data.truncated[k, n] or k == length - 1:
                break
        found[t, n] += (not data.terminated[k, n]) * gamma ** (k - t + 1) * value_of_next[k, n]
    return found


def change(algorithm, state, data):
    """What an update adds to the parameters, and its metrics."""
    after, metrics = update(algorithm, state, data, jnp.float32(0), jax.random.key(1))
    return jax.tree.map(lambda a, b: np.asarray(a - b), after.parameters, state.parameters), metrics


@pytest.mark.parametrize(
    "kind", ["discrete", *(pytest.param(k, marks=pytest.mark.full) for k in list(ACTION_SPACES)[1:])]
)
def test_an_update_is_one_step_down_the_papers_loss(kind):
    """Truncations are bootstrapped over, terminations are not; what is bootstrapped has no gradient."""
    state = start(PLAIN, kind)
    data = following_one_another(rollout(PLAIN, state))
    assert (data.terminated & ~data.truncated).any()
    assert (data.truncated & ~data.terminated).any()
    assert (data.truncated & data.terminated).any() or kind != "discrete"
    critic, head = jax.jit(lambda x: state.parameters.critic(x)), state.parameters.head
    following = np.asarray(critic(flat(data.next_observation)))[:, 0].reshape(data.reward.shape)
    returns = flat(returns_of(data, following, PLAIN.gamma)).astype(np.float32)
    surprise = returns - np.asarray(critic(flat(data.observation)))[:, 0]

    @jax.jit
    @jax.grad
    def gradient(parameters):
        distribution = parameters.head(parameters.network(flat(data.observation)))
        value = parameters.critic(flat(data.observation))[:, 0]
        policy = -(distribution.log_prob(flat(data.action)) * surprise).mean()
        return policy + 0.7 * 0.5 * ((value - returns) ** 2).mean() - 0.03 * distribution.entropy().mean()

    assert head.kind
    found, metrics = change(PLAIN, state, data)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, -b, rtol=1e-3, atol=1e-5), found, gradient(state.parameters)
    )
    assert set(metrics) == {"policy_loss", "value_loss", "entropy"}


def test_rmsprop_steps_as_the_paper_says():
    """g = .99 g + .01 d^2 from 0, and a step of -rate d / sqrt(g + eps)."""
    state = start(A2C)
    data = rollout(A2C, state)
    gradient, _ = change(PLAIN, start(PLAIN), data)  # downwards
    moved, _ = change(dataclasses.replace(A2C, max_grad_norm=float("inf")), state, data)
    expected = jax.tree.map(lambda d: A2C.learning_rate * d / np.sqrt(0.01 * d**2 + 1e-5), gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-6), moved, expected)


def test_it_steps_where_ppo_would_with_one_epoch_of_one_minibatch():
    """Huang et al. (2022), "A2C is a special case of PPO"."""
    shared = {"normalize_advantages": True, "normalize_rewards": True, "gae_lambda": 0.9, "ent_coef": 0.03}
    algorithm = dataclasses.replace(A2C, optimizer=td.Adam(eps=1e-5), **shared)
    ppo = td.PPO(
        **NETWORKS,
        num_environments=2,
        rollout_length=8,
        batch_size=16,
        epochs=1,
        learning_rate=7e-4,
        vf_coef=0.7,
        **shared,
    )
    state = start(algorithm)
    data = rollout(algorithm, state)
    for a, b in zip(*(jax.tree.leaves(change(each, state, data)[0]) for each in (algorithm, ppo)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_what_ppo_does_more_is_no_setting():
    for name in ("epochs", "batch_size", "clip_range", "target_kl", "sequence_length"):
        with pytest.raises(UnknownNameError, match=f"A2C has no field '{name}'"):
            td.A2C(**{name: 1})
        assert not hasattr(A2C, name)
    with pytest.raises(TypeError, match="Wrong cannot be without 'epoch': its parent has no such field"):
        hyperparameters(type("Wrong", (td.PPO,), {"without": ("epoch",)}))
    with pytest.raises(SettingError, match="critic_learning_rate is of no effect"):
        td.A2C(critic_network=None, critic_learning_rate=1e-3)
    with pytest.raises(SettingError, match="values drown a memory"):
        td.A2C(network=td.GRU(4), critic_network=None)
