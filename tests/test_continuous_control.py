"""SAC, TD3 and DDPG: losses, targets, gradients and slow copies against their definitions."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from thorndike.algorithms import td3
from thorndike.algorithms.sac import SAC
from thorndike.algorithms.td3 import DDPG, TD3
from thorndike.core import Batch, Transition
from thorndike.errors import SettingError, UnsuitableError
from thorndike.memories import Prioritized, Replay
from thorndike.networks import MLP

OBSERVATIONS, ACTIONS = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2.0, 5.0, (2,), np.float32)
TINY = MLP((8,), activation="tanh", initialization="default")
# Rates that fall change nothing at the start, and all tests share the programs of those that look at the fall.
SMALL = {"network": TINY, "critic_network": TINY, "warmup_steps": 8, "gamma": 0.9, "learning_rate_end": 0.0}
ALGORITHMS = {
    "sac": SAC(**SMALL, memory=Replay(100, 4)),
    "sac, fixed temperature": SAC(**SMALL, memory=Replay(100, 4), ent_coef=0.3),
    "td3": TD3(**SMALL, memory=Replay(100, 4)),
    "ddpg": DDPG(**SMALL, memory=Replay(100, 4)),
}


def new_key():
    """Always the same one, but a new object: no key is used twice."""
    return jax.random.key(7)


@jax.jit
def updated(algorithm, state, batch, fraction):
    return algorithm.update(state, batch, fraction, new_key())


def update(algorithm, state, steps, fraction=0.0, weight=None):
    weight = np.ones(steps.reward.shape[1], np.float32) if weight is None else weight
    batch = Batch(steps, weight, np.arange(len(weight), dtype=np.int32))
    return updated(algorithm, state, batch, np.float32(fraction))


def batch(window=1, size=4, seed=0):
    """Transitions [window, size]; of four, the last steps are: neither flag, terminated, truncated, both."""
    draw = np.random.default_rng(seed)
    flags = np.arange(size) % 4
    last = (np.arange(window) == window - 1)[:, None]
    return Transition(
        draw.normal(size=(window, size, 3)).astype(np.float32),
        draw.uniform(-1, 1, (window, size, 2)).astype(np.float32),
        draw.normal(size=(window, size)).astype(np.float32),
        last & np.isin(flags, (1, 3))[None],
        last & np.isin(flags, (2, 3))[None],
        draw.normal(size=(window, size, 3)).astype(np.float32),
        {},
    )


@jax.jit
def begun(algorithm, key):
    return algorithm.init(key, OBSERVATIONS, ACTIONS)


def fresh(algorithm, **changed):
    """A state whose target networks differ from what they follow, as after some training."""
    state, other = (begun(algorithm, jax.random.key(i)) for i in (0, 1))
    changed["target_critics"] = other.critics
    if hasattr(state, "target_actor"):
        changed["target_actor"] = other.actor
    return state._replace(**changed)


@jax.jit
def seen_by(network, observation):
    return network(observation)


def q(critics, i, observation, action):
    """One critic's value of one pair, the critic taken out of the batched module."""
    critic = jax.tree.map(lambda x: np.asarray(x)[i], critics)
    seen = {"action": np.asarray(action)[None], "observation": np.asarray(observation)[None]}
    return float(seen_by(critic, seen)[0, 0])


def returns(algorithm, data):
    """By sample: the discounted sum, the discount behind it, and what is observed there; from the definition."""
    window, size = data.reward.shape
    for b in range(size):
        total, discount = 0.0, 1.0
        for t in range(window):
            total += discount * float(data.reward[t, b])
            discount *= algorithm.gamma
            if data.terminated[t, b] or data.truncated[t, b]:
                break
        yield total, 0.0 if data.terminated[t, b] else discount, data.next_observation[t, b]


@jax.jit
def acted(state, observation, key):
    """SAC's actions, and their log-probabilities."""
    return state.head(state.network(observation)).sample_and_log_prob(key)


def sac_target(algorithm, state, data, ent_coef):
    """r_0 + sum_k gamma^k (r_k + alpha H(s_k)) + gamma^n (min Q'(s_n, a_n) + alpha H(s_n)); each H by one sample."""
    following = np.stack([observation for *_, observation in returns(algorithm, data)])
    key, _, between = jax.random.split(new_key(), 3)
    drawn, log_prob = map(np.asarray, acted(state, following, key))
    window, size = data.reward.shape
    entropy = np.zeros((window, size))  # of the states where each step acts, but for the first
    if window > 1:
        later = data.observation[1:].reshape(-1, 3)
        entropy[1:] = -np.asarray(acted(state, later, between)[1]).reshape(window - 1, size)
    target = []
    for b, (total, discount, observation) in enumerate(returns(algorithm, data)):
        for k in range(1, window):
            if (data.terminated | data.truncated)[:k, b].any():
                break
            total += algorithm.gamma**k * ent_coef * entropy[k, b]
        value = min(q(state.target_critics, i, observation, drawn[b]) for i in range(algorithm.num_critics))
        target.append(total + discount * (value - ent_coef * float(log_prob[b])))
    return np.array(target)


def td3_target(algorithm, state, data):
    key = jax.random.split(new_key(), algorithm.policy_delay)
    per_part = data.reward.shape[1] // algorithm.policy_delay
    noise = np.concatenate([jax.random.normal(k, (per_part, 2)) for k in key])
    target = []
    for b, (total, discount, observation) in enumerate(returns(algorithm, data)):
        action = np.tanh(np.asarray(seen_by(state.target_actor.network, observation[None]))[0])
        blur = np.clip(algorithm.target_noise * noise[b], -algorithm.target_noise_clip, algorithm.target_noise_clip)
        action = np.clip(action + blur, -1, 1).astype(np.float32)
        value = min(q(state.target_critics, i, observation, action) for i in range(algorithm.num_critics))
        target.append(total + discount * value)
    return np.array(target)


def errors(algorithm, state, data, target):
    """[critics, B], for the critics as they are."""
    pairs = [(data.observation[0, b], data.action[0, b]) for b in range(len(target))]
    values = [[q(state.critics, i, *pair) for pair in pairs] for i in range(algorithm.num_critics)]
    return np.array(values) - target


@pytest.mark.parametrize("ent_coef", [None, 0.3])
@pytest.mark.parametrize("window", [1, 3])
def test_sac_is_its_definition_on_every_combination_of_ends(window, ent_coef):
    """A2; known bug 15: the entropy of the next action is masked at terminations, with the value that it belongs to.

    Windows end early here too: what comes after an end is neither rewarded nor valued, its entropy included.
    """
    algorithm = dataclasses.replace(ALGORITHMS["sac"], memory=Replay(100, 4, window), ent_coef=ent_coef)
    data = batch(window)
    if window > 1:
        data.truncated[0, 0] = data.terminated[1, 2] = True
    state = fresh(algorithm) if ent_coef else fresh(algorithm, log_ent_coef=jnp.log(jnp.float32(0.7)))
    after, metrics, feedback = update(algorithm, state, data)
    error = errors(algorithm, state, data, sac_target(algorithm, state, data, ent_coef or 0.7))
    np.testing.assert_allclose(metrics["critic_loss"], 0.5 * np.square(error).mean(-1).sum(), rtol=1e-4)
    np.testing.assert_allclose(feedback[0], np.abs(error).mean(0), rtol=1e-4, atol=1e-5)
    drawn, log_prob = map(np.asarray, acted(state, data.observation[0], jax.random.split(new_key(), 3)[1]))
    np.testing.assert_allclose(metrics["entropy"], -log_prob.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["ent_coef"], ent_coef or 0.7, rtol=1e-6)
    by_pair = [[q(after.critics, i, data.observation[0, b], drawn[b]) for b in range(4)] for i in range(2)]
    np.testing.assert_allclose(metrics["value"], np.min(by_pair, 0).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["td3", "ddpg"])
@pytest.mark.parametrize("window", [1, 3])
def test_td3_is_its_definition_on_every_combination_of_ends(name, window):
    """A2: with a learning rate of 0 both parts of the batch are held against the same critics."""
    algorithm = dataclasses.replace(ALGORITHMS[name], memory=Replay(100, 4, window), learning_rate=0.0)
    state, data = fresh(algorithm), batch(window)
    _, metrics, feedback = update(algorithm, state, data)
    error = errors(algorithm, state, data, td3_target(algorithm, state, data))
    np.testing.assert_allclose(metrics["critic_loss"], np.square(error).mean(-1).sum(), rtol=1e-4)
    np.testing.assert_allclose(feedback[0], np.abs(error).mean(0), rtol=1e-4, atol=1e-5)
    action = np.tanh(np.asarray(seen_by(state.network, data.observation[0])))[-4 // algorithm.policy_delay :]
    seen = data.observation[0][-len(action) :]
    by_first = [q(state.critics, 0, *pair) for pair in zip(seen, action, strict=True)]
    np.testing.assert_allclose(metrics["value"], np.mean(by_first), rtol=1e-4, atol=1e-5)


def test_td3_blurs_every_action_of_a_target_by_itself_and_by_no_more_than_the_clip(monkeypatch):
    """Known bug 27: one vector of noise for the whole batch, and out of scale."""
    algorithm = dataclasses.replace(ALGORITHMS["td3"], target_noise=0.4, target_noise_clip=0.5)
    state = fresh(algorithm)
    same = jax.tree.map(lambda x: np.repeat(x[:, :1], 2000, 1), batch(size=1))
    seen = {}

    def spy(critics, following, carry):
        seen["action"] = following["action"]
        return jnp.zeros((2, len(seen["action"]), 1))

    monkeypatch.setattr(td3, "critic_outputs", spy)

    @jax.jit
    def noise_of(state):
        algorithm.target(state, algorithm.recall(state, same), new_key())
        return seen["action"] - jnp.tanh(state.target_actor.network(same.next_observation[0]))

    noise = np.asarray(noise_of(state))
    assert np.abs(noise).max() <= 0.5 + 1e-6
    np.testing.assert_allclose(np.mean(np.abs(noise) >= 0.5 - 1e-6), math.erfc(0.5 / 0.4 / math.sqrt(2)), atol=0.03)
    assert np.unique(noise[:, 0]).size > 1000
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.1


@jax.jit
def valued(critics, seen):
    """[critics, B]"""
    return jax.vmap(lambda critic: critic(seen)[:, 0])(critics)


def gradient(moments):
    """The gradient that reached Adam at its first step, as one vector."""
    return np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(moments[0].mu)]) / 0.1


def slope(loss, tree, rng, step=1e-3):
    """A directional derivative by central differences, and the direction."""
    leaves, structure = jax.tree.flatten(tree)
    direction = [rng.normal(size=x.shape).astype(np.float32) for x in leaves]
    moved = [
        jax.tree.unflatten(structure, [np.asarray(x) + sign * step * d for x, d in zip(leaves, direction, strict=True)])
        for sign in (1, -1)
    ]
    return (loss(moved[0]) - loss(moved[1])) / (2 * step), np.concatenate([d.reshape(-1) for d in direction])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradients_agree_with_finite_differences_of_the_definitions(name):
    algorithm = dataclasses.replace(ALGORITHMS[name], learning_rate=0.0)
    if name == "td3":  # several steps of the critics would blend their gradients in Adam's moment
        algorithm = dataclasses.replace(algorithm, policy_delay=1)
    state, data = fresh(algorithm), batch()
    after, *_ = update(algorithm, state, data)
    observation, action = data.observation[0], data.action[0]

    def values(critics, action):
        return np.asarray(valued(critics, {"action": action, "observation": observation}), np.float64)

    if name.startswith("sac"):
        ent_coef = 0.3 if "fixed" in name else 1.0
        target = sac_target(algorithm, state, data, ent_coef)

        def critic_loss(critics):
            return 0.5 * np.square(values(critics, action) - target).mean(-1).sum()

        def actor_loss(network):
            key = jax.random.split(new_key(), 3)[1]
            drawn, log_prob = acted(state._replace(network=network), observation, key)
            return (ent_coef * np.asarray(log_prob, np.float64) - values(state.critics, drawn).min(0)).mean()

        actor, of_actor, of_critics = state.network, *after.optimizers[:2]
    else:
        target = td3_target(algorithm, state, data)

        def critic_loss(critics):
            return np.square(values(critics, action) - target).mean(-1).sum()

        def actor_loss(actor):
            return -values(state.critics, np.tanh(np.asarray(seen_by(actor.network, observation))))[0].mean()

        actor, (of_actor, of_critics) = state.actor, after.optimizers
    rng = np.random.default_rng(0)
    for loss, tree, moments in ((critic_loss, state.critics, of_critics), (actor_loss, actor, of_actor)):
        for _ in range(3):
            expected, direction = slope(loss, tree, rng)
            np.testing.assert_allclose(gradient(moments) @ direction, expected, rtol=2e-2, atol=2e-4)


@pytest.mark.parametrize("name", ["sac", "td3", "ddpg"])
def test_doubling_one_weight_doubles_that_samples_part_of_the_loss(name):
    algorithm = dataclasses.replace(ALGORITHMS[name], learning_rate=0.0)
    state = fresh(algorithm)
    loss = [
        float(update(algorithm, state, batch(), weight=np.array(w, np.float32))[1]["critic_loss"])
        for w in ([1, 1, 1, 1], [1, 1, 0.5, 1], [1, 1, 0, 1])
    ]
    assert abs(loss[0] - loss[2]) > 1e-3
    np.testing.assert_allclose(loss[0] - loss[1], loss[1] - loss[2], rtol=1e-3)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_targets_follow_slowly_in_every_leaf_and_share_no_buffer(name):
    """A2t."""
    algorithm = dataclasses.replace(ALGORITHMS[name], tau=0.25)
    state = algorithm.init(jax.random.key(0), OBSERVATIONS, ACTIONS)  # a compiled one shares nothing by itself
    followed = ["critics"] + ["actor"] * hasattr(state, "actor")
    for part in followed:
        online, target = (jax.tree.leaves(getattr(state, prefix + part)) for prefix in ("", "target_"))
        assert not {x.unsafe_buffer_pointer() for x in online} & {x.unsafe_buffer_pointer() for x in target}
    expected = {part: jax.tree.map(np.asarray, getattr(state, f"target_{part}")) for part in followed}
    for k in range(5):
        state, *_ = update(algorithm, state, batch(seed=k))
        for part in followed:
            expected[part] = jax.tree.map(
                lambda old, new: np.float32(0.75) * old + np.float32(0.25) * np.asarray(new),
                expected[part],
                getattr(state, part),
            )
            found = getattr(state, f"target_{part}")
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found, expected[part])


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_the_two_critics_differ_at_the_start_and_stay_different(name):
    """Known bug 26."""
    algorithm = ALGORITHMS[name]
    state = begun(algorithm, jax.random.key(0))
    for _ in range(3):
        for leaf in jax.tree.leaves(state.critics):
            assert not np.array_equal(*np.asarray(leaf))
        state, *_ = update(algorithm, state, batch())


@pytest.mark.parametrize("size", [1, *(pytest.param(size, marks=pytest.mark.full) for size in (2, 3))])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_small_batches_are_finite(name, size):
    size *= getattr(ALGORITHMS[name], "policy_delay", 1)
    state, metrics, _ = update(ALGORITHMS[name], fresh(ALGORITHMS[name]), batch(size=size))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)) if x.dtype.kind == "f")


def test_the_temperature_rises_where_entropy_is_below_its_aim_and_falls_above():
    """Haarnoja et al. (2018), equation 18; known bug 37: it must go on after a state is restored, so it is in it."""
    for aim, sign in ((100.0, 1), (-100.0, -1)):
        algorithm = dataclasses.replace(ALGORITHMS["sac"], target_entropy=aim, learning_rate=1e-2)
        state, *_ = update(algorithm, fresh(algorithm), batch())
        np.testing.assert_allclose(state.log_ent_coef, sign * 1e-2, rtol=1e-3)
    assert ALGORITHMS["sac"].entropy_aim(fresh(ALGORITHMS["sac"]).head) == -2
    fixed = ALGORITHMS["sac, fixed temperature"]
    assert update(fixed, fresh(fixed), batch())[0].log_ent_coef == ()


@pytest.mark.parametrize("name", ["td3", "ddpg"])
def test_exploration_is_around_the_action_and_inside_the_bounds(name):
    algorithm = dataclasses.replace(ALGORITHMS[name], exploration_noise=0.3)
    state, observation = fresh(algorithm), np.tile(np.array([[0.1, -0.2, 0.3]], np.float32), (20_000, 1))
    act = jax.jit(lambda policy: algorithm.act(policy, observation, (), new_key())[0])
    greedy, action = (
        np.asarray(act(algorithm.policy(state, jnp.float32(0), explore=explore))) for explore in (False, True)
    )
    assert np.unique(greedy, axis=0).shape[0] == 1
    assert np.abs(action).max() <= 1
    np.testing.assert_allclose(np.mean(action - greedy, 0), 0, atol=0.01)
    np.testing.assert_allclose(np.std(action - greedy, 0), 0.3, atol=0.02)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_actions_have_the_shape_of_their_space(name):
    algorithm = dataclasses.replace(ALGORITHMS[name], num_environments=1)
    space = spaces.Box(-1, 1, (2, 3), np.float32)

    def acted(key):
        state = algorithm.init(key, OBSERVATIONS, space)
        return algorithm.act(algorithm.policy(state, jnp.float32(0)), jnp.zeros((5, 3)), (), new_key())

    action, _, extras = jax.eval_shape(acted, jax.random.key(0))
    assert action.shape == (5, 2, 3)
    assert not jax.tree.leaves(extras)


@pytest.mark.parametrize("name", ["sac", "td3", "ddpg"])
def test_the_learning_rates_fall_to_their_end(name):
    """Of every network, and of the temperature. Adam's first steps are as large as they, whatever the gradient."""
    algorithm = dataclasses.replace(ALGORITHMS[name], learning_rate=1e-4, learning_rate_end=5e-5)

    def learned(state):
        return state.network, state.critics, getattr(state, "log_ent_coef", ())

    def sizes(fraction):
        state = fresh(algorithm)
        after, *_ = update(algorithm, state, batch(), fraction)
        return jax.tree.map(lambda a, b: np.median(np.abs(np.asarray(a) - b)), learned(after), learned(state))

    whole = sizes(0.0)
    for fraction, share in [(0.5, 0.75), (1.0, 0.5)]:
        for size, of_whole in zip(*map(jax.tree.leaves, (sizes(fraction), whole)), strict=True):
            np.testing.assert_allclose(size, share * of_whole, rtol=0.05)


@pytest.mark.parametrize("name", ["sac", "td3", "ddpg"])
def test_the_critics_may_have_a_learning_rate_of_their_own(name):
    """They then learn as if it were everybody's, and it falls to the same end, 0; the actor has its own."""

    def after(fraction, **rates):
        algorithm = dataclasses.replace(ALGORITHMS[name], **rates)
        return update(algorithm, fresh(algorithm), batch(), fraction)[0]

    for fraction in (0.0, 0.75):
        apart = after(fraction, learning_rate=0.0, critic_learning_rate=1e-2)
        expected = after(fraction, learning_rate=1e-2)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), apart.critics, expected.critics)
        jax.tree.map(np.testing.assert_array_equal, apart.network, fresh(ALGORITHMS[name]).network)


@pytest.mark.parametrize("cls", [SAC, TD3, DDPG])
def test_what_cannot_work_is_refused_with_a_reason(cls):
    for space in (
        spaces.Discrete(3),
        spaces.Box(-np.inf, np.inf, (1,)),
        spaces.Box(np.float32([0, 0]), np.float32([1, np.inf])),
    ):
        with pytest.raises(UnsuitableError, match=f"{cls.__name__} needs Box actions with finite bounds"):
            cls().check(OBSERVATIONS, space)
    with pytest.raises(SettingError, match="holds 2 steps"):
        cls(num_environments=8, memory=Replay(16, 4), rollout_length=3)
    with pytest.raises(SettingError, match="tau must be at least 0 and at most 1"):
        cls(tau=2.0)
    with pytest.raises(SettingError, match="warmup_steps"):
        cls(warmup_steps=0, rollout_length=1, memory=Replay(1000, 4, window=3))


def test_other_refusals():
    with pytest.raises(SettingError, match="does not divide into policy_delay 2"):
        TD3(memory=Replay(1000, 101))
    with pytest.raises(UnsuitableError, match=r"These fit: ppo, a2c, .*sac, tqc, .*td3, ddpg"):
        td.train(td.DQN(), "Pendulum-v1", 100, run_dir=None, quiet=True)
    with pytest.raises(UnsuitableError, match=r"These fit: dqn, c51, .*ppo, "):
        td.train("sac", "CartPole-v1", 100, run_dir=None, quiet=True)


def test_equal_critics_are_refused():
    import equinox as eqx

    critic = eqx.nn.MLP(5, 1, 8, 1, key=jax.random.key(0))
    with pytest.raises(SettingError, match="2 equal critics"):
        dataclasses.replace(ALGORITHMS["sac"], critic_network=critic).init(new_key(), OBSERVATIONS, ACTIONS)
    alone = dataclasses.replace(ALGORITHMS["ddpg"], critic_network=critic)
    assert np.isfinite(update(alone, fresh(alone), batch())[1]["critic_loss"])


def test_a_pair_of_functions_may_be_actor_and_critic():
    def init(key, observation, outputs):
        return {"w": jax.random.normal(key, (observation.shape[1], outputs)) / 3}

    pair = (init, lambda parameters, x: x @ parameters["w"])
    algorithm = dataclasses.replace(ALGORITHMS["td3"], network=pair, critic_network=pair)
    state = fresh(algorithm)
    assert [x.shape for x in jax.tree.leaves(state.critics)] == [(2, 5, 1)]
    _, metrics, _ = update(algorithm, state, batch())
    assert np.isfinite(metrics["critic_loss"])


@pytest.mark.parametrize("name", ["ddpg", *(pytest.param(name, marks=pytest.mark.full) for name in ("td3", "sac"))])
def test_n_step_windows_and_priorities_go_together_with_every_algorithm(name):
    """A short run on Pendulum with both; the priorities that come back are those of the batch."""
    algorithm = dataclasses.replace(
        ALGORITHMS[name], memory=Prioritized(200, 16, window=3), num_environments=2, rollout_length=4, warmup_steps=40
    )
    run = td.train(algorithm, "Pendulum-v1", 400, run_dir=None, quiet=True, evaluate_every=0)
    assert np.isfinite(run.metrics["critic_loss"][-1])
