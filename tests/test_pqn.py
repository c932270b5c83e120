"""PQN's targets and steps from the paper, sample by sample."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from test_ppo import flat, update
from thorndike.core import Transition
from thorndike.errors import SettingError, UnknownNameError, UnsuitableError
from thorndike.memories import shuffled

CHOICES = spaces.Discrete(4)
MASKED = spaces.Dict(action_mask=spaces.MultiBinary(4), x=spaces.Box(-1, 1, (3,), np.float32))
PQN = td.PQN(
    network=td.MLP((8,), "relu", "default", layer_norm=True), num_environments=2, rollout_length=8, batch_size=16,
    epochs=1, gamma=0.9, q_lambda=0.7,
)  # fmt: skip
PLAIN = dataclasses.replace(PQN, optimizer="sgd", learning_rate=1.0, max_grad_norm=float("inf"))


def fresh(algorithm=PLAIN):
    return jax.jit(lambda key: algorithm.init(key, MASKED, CHOICES))(jax.random.key(0))


def steps(seed=0, length=8, copies=2):
    draw = np.random.default_rng(seed)
    shape = length, copies

    def seen():
        mask = np.stack([draw.permutation(4) < 2 for _ in range(length * copies)]).reshape(*shape, 4)
        return {"action_mask": mask.astype(np.int8), "x": draw.normal(size=(*shape, 3)).astype(np.float32)}

    observation, terminated, truncated = seen(), draw.random(shape) < 0.25, draw.random(shape) < 0.25
    action, reward = observation["action_mask"].argmax(-1).astype(np.int32), draw.normal(size=shape)
    return Transition(observation, action, reward.astype(np.float32), terminated, truncated, seen(), {"carry": ()})


def q_of(network, observation):
    return np.asarray(jax.jit(lambda x: network(x))(jax.tree.map(flat, observation)), np.float64)


def targets(algorithm, network, data):
    """The mean of all n-step returns with weights (1 - lambda) lambda^(n-1), each with max Q where it stops."""
    q = q_of(network, data.next_observation)
    best = np.where(flat(data.next_observation["action_mask"]), q, -np.inf).max(-1).reshape(data.reward.shape)
    length, copies = data.reward.shape
    found, lam, gamma = np.zeros((length, copies)), algorithm.q_lambda, algorithm.gamma
    for t, n in np.ndindex(length, copies):
        rewards, left = 0.0, 1.0
        for k in range(t, length):
            rewards += gamma ** (k - t) * float(data.reward[k, n])
            value = rewards + (not data.terminated[k, n]) * gamma ** (k - t + 1) * best[k, n]
            if data.terminated[k, n] or data.truncated[k, n] or k == length - 1:
                found[t, n] += left * value
                break
            found[t, n] += left * (1 - lam) * value
            left *= lam
    return found


@pytest.mark.parametrize("dueling", [False, pytest.param(True, marks=pytest.mark.full)])
def test_an_update_is_one_step_down_the_error_of_q_lambda(dueling):
    """On every combination of ends; nothing illegal is believed; the target has no gradient."""
    algorithm = dataclasses.replace(PLAIN, dueling=dueling)
    state, data = fresh(algorithm), steps()
    ends = {(bool(a), bool(b)) for a, b in zip(data.terminated.ravel(), data.truncated.ravel(), strict=True)}
    assert len(ends) == 4

    def of_actions(outputs):
        return outputs[:, :1] + outputs[:, 1:] - outputs[:, 1:].mean(1, keepdims=True) if dueling else outputs

    target = flat(targets(algorithm, lambda x: of_actions(state.network(x)), data)).astype(np.float32)

    @jax.jit
    @jax.value_and_grad
    def defined(network):
        q = of_actions(network(jax.tree.map(flat, data.observation)))[jnp.arange(16), flat(data.action)]
        return 0.5 * ((target - q) ** 2).mean()

    new, metrics = update(algorithm, state, data, jnp.float32(0), jax.random.key(0))
    loss, gradient = defined(state.network)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    found = jax.tree.map(lambda a, b: np.asarray(a - b), new.network, state.network)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, -b, rtol=1e-3, atol=1e-5), found, gradient)


def test_targets_are_made_once_and_every_sample_is_learned_from_in_each_epoch():
    """Two half batches by SGD: the second is held against the targets of before the first."""
    algorithm = dataclasses.replace(PLAIN, batch_size=8, learning_rate=0.1, learning_rate_end=None)
    state, data = fresh(algorithm), steps(1)
    target, key = flat(targets(algorithm, state.network, data)).astype(np.float32), jax.random.key(3)
    order = np.asarray(shuffled(jax.random.clone(key), 1, 16)).reshape(2, 8)
    network = state.network

    @jax.jit
    @jax.grad
    def gradient(network, half):
        seen = jax.tree.map(lambda x: jnp.asarray(flat(x))[half], data.observation)
        q = network(seen)[jnp.arange(8), jnp.asarray(flat(data.action))[half]]
        return 0.5 * ((jnp.asarray(target)[half] - q) ** 2).mean()

    for half in order:
        network = jax.tree.map(lambda x, d: x - 0.1 * d, network, gradient(network, half))
    new, _ = update(algorithm, state, data, jnp.float32(0), key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), new.network, network)


def test_there_is_neither_a_replay_nor_a_target_network():
    state = fresh(PQN)
    assert not jax.tree.leaves(state.target_network)
    assert PQN.warmup_steps == 0
    for name in ("memory", "target_period", "double", "warmup_steps"):
        with pytest.raises(UnknownNameError, match=f"PQN has no field '{name}'"):
            td.PQN(**{name: 1})
    with pytest.raises(SettingError, match="does not divide into batch_size"):
        td.PQN(batch_size=100)
    with pytest.raises(UnsuitableError, match="PQN needs Discrete actions"):
        PQN.check(MASKED["x"], MASKED["x"])
