"""SAC's family: REDQ, DroQ, TQC and CrossQ against their papers' definitions, and the networks that they ask for."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from test_continuous_control import (
    ACTIONS,
    OBSERVATIONS,
    TINY,
    acted,
    batch,
    begun,
    fresh,
    new_key,
    q,
    returns,
    sac_target,
    seen_by,
    update,
)
from thorndike.algorithms import sac
from thorndike.core import Batch
from thorndike.errors import SettingError
from thorndike.memories import Replay
from thorndike.networks import (
    MLP,
    RenormalizedMLP,
    SimBa,
    critic_outputs,
    critic_values,
    critics_with_dropout,
    with_dropout,
)
from thorndike.networks.renormalized import VARIANCE_FLOOR, Running
from thorndike.targets import midpoints, quantile_huber

WINDOWS = [pytest.param(1, marks=pytest.mark.full), 3]
DROPPING = dataclasses.replace(TINY, layer_norm=True, dropout=0.3)
NORMALIZED = RenormalizedMLP((8,), activation="tanh", renormalize_after=0)
SMALL = {"network": TINY, "critic_network": TINY, "warmup_steps": 8, "gamma": 0.9, "memory": Replay(100, 4)}
REDQ = td.REDQ(**SMALL, num_critics=4, policy_delay=1, ent_coef=0.3)
DROQ = td.DroQ(**SMALL | {"critic_network": DROPPING}, policy_delay=1, ent_coef=0.3)
TQC = td.TQC(**SMALL, num_critics=3, quantiles=4, top_quantiles_to_drop=1, ent_coef=0.3)
CROSSQ = td.CrossQ(
    **SMALL | {"network": NORMALIZED, "critic_network": NORMALIZED}, policy_delay=1, rollout_length=1, ent_coef=0.3
)


@jax.jit
def recalled(algorithm, state, data, key):
    return algorithm.recall(state, data, 0.3, key)


def one_batch():
    return Batch(batch(), np.ones(4, np.float32), np.arange(4))


def ended(window, size=4):
    """Windows with every combination of ends, at the end and before it."""
    data = batch(window, size)
    if window > 1:
        data.truncated[0, 0] = data.terminated[1, 2] = True
    return data


# --- several steps of the critics for one of the actor ----------------------------------------------------------------


def test_each_step_of_the_critics_has_a_part_of_the_batch_and_moves_the_targets_and_the_actor_has_the_last_part():
    algorithm = td.SAC(**SMALL, policy_delay=2, tau=0.3, learning_rate=1e-2, ent_coef=0.3)
    state, data = fresh(algorithm), batch()
    after, metrics, feedback = update(algorithm, state, data, weight=np.float32([1, 0.5, 1, 1]))

    @jax.jit
    def by_hand(expected, step, keys):
        optimizer, losses, errors = algorithm.descent(), [], []
        for i, weight in enumerate(([1, 0.5], [1, 1])):
            part = jax.tree.map(lambda x, i=i: x[:, 2 * i : 2 * i + 2], step)
            made = algorithm.improve_critics(expected, part, jnp.float32(weight), 0.3, optimizer, keys[i])
            expected = made[0]
            losses.append(made[1])
            errors.append(made[2])
        expected, *_ = algorithm.improve_actor(expected, part, 0.3, optimizer, keys[2])
        return expected, jnp.stack(losses), jnp.concatenate(errors)

    keys = jax.random.split(new_key(), 4)
    expected, losses, errors = by_hand(state, recalled(algorithm, state, data, keys[-1]), keys)
    jax.tree.map(
        lambda *x: np.testing.assert_allclose(*x, rtol=1e-4, atol=1e-5),
        (after.network, after.critics, after.target_critics),
        (expected.network, expected.critics, expected.target_critics),
    )
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(feedback[0], errors, rtol=1e-4)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(SettingError, match="does not divide into policy_delay 3"):
        td.SAC(memory=Replay(1000, 100), policy_delay=3)


# --- REDQ and DroQ ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
def test_redq_believes_the_least_of_two_critics_drawn_anew_for_each_target(window):
    """Chen et al. (2021), equation 1: one pair for all samples of a step, and every pair has its turn."""
    algorithm, data = dataclasses.replace(REDQ, memory=Replay(100, 4, window)), ended(window, size=32)
    state = fresh(algorithm)
    state = state._replace(target_critics=jax.tree.map(lambda x: 5 * x, state.target_critics))
    step = recalled(algorithm, state, data, new_key())
    following = np.stack([observation for *_, observation in returns(algorithm, data)])
    target = jax.jit(lambda key: algorithm.target(state, step, 0.3, key))
    drawn = set()
    for seed in range(30):
        key = jax.random.key(seed)
        found = np.asarray(target(key))
        action, log_prob = map(np.asarray, acted(state, following, jax.random.split(jax.random.key(seed))[1]))
        values = np.asarray(critic_values(state.target_critics, following, action))
        pairs = [
            pair
            for pair in itertools.combinations(range(4), 2)
            if np.allclose(
                found, step.reward[0] + step.discount[0] * (values[list(pair)].min(0) - 0.3 * log_prob), atol=1e-5
            )
        ]
        assert len(pairs) == 1
        drawn.add(pairs[0])
    assert len(drawn) == 6


@pytest.mark.parametrize("algorithm", [REDQ, dataclasses.replace(DROQ, critic_network=TINY)], ids=["redq", "droq"])
def test_the_actor_climbs_the_mean_of_all_critics(algorithm):
    state, data = fresh(algorithm), batch()
    after, metrics, _ = update(algorithm, state, data)
    drawn, _ = map(np.asarray, acted(state, data.observation[0], jax.random.split(new_key(), 3)[1]))
    count = algorithm.num_critics
    by_pair = [[q(after.critics, i, data.observation[0, b], drawn[b]) for b in range(4)] for i in range(count)]
    np.testing.assert_allclose(metrics["value"], np.mean(by_pair), rtol=1e-4, atol=1e-5)


def test_droq_without_dropout_has_sacs_targets():
    algorithm = dataclasses.replace(DROQ, critic_network=TINY)
    state, data = fresh(algorithm), batch()
    _, metrics, _ = update(algorithm, state, data)
    target = sac_target(algorithm, state, data, 0.3)
    error = np.array(
        [[q(state.critics, i, data.observation[0, b], data.action[0, b]) for b in range(4)] for i in (0, 1)]
    )
    np.testing.assert_allclose(metrics["critic_loss"], 0.5 * np.square(error - target).mean(-1).sum(), rtol=1e-4)


def test_droqs_units_are_dropped_by_keys_of_their_own_for_targets_losses_and_the_actor(monkeypatch):
    seen = []

    def spy(critics, key):
        seen.append(key)
        return critics_with_dropout(critics, key)

    monkeypatch.setattr(sac, "critics_with_dropout", spy)
    for algorithm in (DROQ, dataclasses.replace(DROQ, critic_network=TINY)):
        jax.eval_shape(
            lambda state, data, a=algorithm: a.update(state, data, 0.0, new_key()), fresh(algorithm), one_batch()
        )
    with_keys, without = seen[:3], seen[3:]
    assert len({id(key) for key in with_keys}) == 3
    assert None not in with_keys
    assert without == [None] * 3


def test_dropout_leaves_out_that_share_of_sums_for_each_critic_by_itself_and_keeps_their_mean():
    space = spaces.Box(-1, 1, (4,), np.float32)
    recipe = MLP((2000,), "relu", "default", dropout=0.25)
    whole = recipe.init(new_key(), space, 1)
    dropping = with_dropout(whole, jax.random.key(1))
    sums = np.full((1, 2000), 0.6, np.float32)
    np.testing.assert_array_equal(whole.hidden(0, sums), sums)
    hidden = np.asarray(dropping.hidden(0, sums))
    np.testing.assert_allclose(np.mean(hidden == 0), 0.25, atol=0.03)
    np.testing.assert_allclose(hidden[hidden != 0], 0.8, rtol=1e-6)
    normalized = with_dropout(
        dataclasses.replace(recipe, layer_norm=True).init(new_key(), space, 1), jax.random.key(1)
    ).hidden(0, sums)
    np.testing.assert_array_equal(np.asarray(normalized) == 0, hidden == 0)  # what is dropped is below the mean then
    deep = with_dropout(MLP((50, 50), "relu", "default", dropout=0.25).init(new_key(), space, 1), jax.random.key(1))
    first, second = (np.asarray(deep.hidden(i, sums[:, :50])) for i in (0, 1))
    assert not np.array_equal(first, second)  # layers of one size drop units of their own
    torso, head = (np.asarray(part.hidden(0, sums)) for part in with_dropout((whole, whole), jax.random.key(1)))
    assert not np.array_equal(torso, head)  # and so do parts of one network
    share = np.mean(hidden == 0)
    np.testing.assert_allclose(np.max(normalized), np.sqrt(share / (1 - share)), rtol=1e-3)  # after it was dropped
    two = jax.tree.map(lambda x: jnp.stack([x, x]), whole)
    seen = np.ones((3, 4), np.float32)
    alike, unlike = (
        jax.vmap(lambda critic: critic(seen))(critics)
        for critics in (two, critics_with_dropout(two, jax.random.key(2)))
    )
    np.testing.assert_array_equal(*np.asarray(alike))
    assert np.unique(np.asarray(unlike)).size == 6  # of each critic, and of each sample


def test_networks_are_refused_where_nobody_would_do_what_they_ask_for():
    dropping, normalized = MLP((8,), dropout=0.1), RenormalizedMLP((8,))
    for make in (
        lambda network: td.DQN(network=network), lambda network: td.PPO(critic_network=network),
        lambda network: td.REINFORCE(baseline_network=network), lambda network: td.TD3(critic_network=network),
        lambda network: td.SAC(network=network),
        lambda network: td.SAC(network=td.GRU(8, torso=network), memory=Replay(sequence=4, burn_in=2)),
    ):  # fmt: skip
        for network, word in ((dropping, "dropout"), (normalized, "batch renormalization")):
            with pytest.raises(SettingError, match=f"network cannot have {word}"):
                make(network)
    with pytest.raises(SettingError, match="CrossQ: critic_network must be RenormalizedMLP"):
        td.CrossQ(critic_network=MLP())
    with pytest.raises(SettingError, match="CrossQ: critic_network cannot have dropout"):
        td.CrossQ(critic_network=dropping)
    with pytest.raises(SettingError, match="target_critics 3 are more"):
        td.REDQ(num_critics=2, target_critics=3)
    with pytest.raises(SettingError, match="leaves none of 4 quantiles"):
        td.TQC(quantiles=4, top_quantiles_to_drop=4)
    with pytest.raises(td.UnknownNameError, match="CrossQ has no field 'tau'"):
        td.CrossQ(tau=0.1)


@pytest.mark.parametrize("name", ["redq", "tqc"])
def test_critics_with_a_memory_see_what_follows_with_their_own_carries(name):
    """Of all critics REDQ's least is SAC's, and of one quantile of one critic TQC's."""
    memory = Replay(100, 4, sequence=3, burn_in=2)
    fields = SMALL | {"network": td.GRU(4, torso=TINY), "memory": memory} | {"critic_network": td.GRU(4, torso=TINY)}
    if name == "redq":
        count, algorithm = 3, td.REDQ(**fields, num_critics=3, target_critics=3, policy_delay=1, ent_coef=0.3)
    else:
        count, algorithm = 1, td.TQC(**fields, num_critics=1, quantiles=1, top_quantiles_to_drop=0, ent_coef=0.3)
    plain = td.SAC(**fields, num_critics=count, ent_coef=0.3)
    data = ended(memory.length)
    carry = jax.tree.map(lambda x: jnp.ones((memory.length, *x.shape)), plain.initial_carry(4))
    data = jax.tree.map(jnp.asarray, data._replace(extras={"carry": carry}))

    @jax.jit
    def targets(key):
        state = plain.init(jax.random.key(0), OBSERVATIONS, ACTIONS)
        step, keys = plain.recall(state, data, 0.3, jax.random.key(1)), jax.random.split(key)
        return plain.target(state, step, 0.3, keys[1 if name == "redq" else 0]), algorithm.target(
            state, step, 0.3, key if name == "redq" else keys[0]
        )

    expected, found = targets(new_key())
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-5, atol=1e-6)


# --- TQC --------------------------------------------------------------------------------------------------------------


def atoms_of(critics, observation, action):
    """Of one pair, by critic."""
    return np.asarray(critic_outputs(critics, {"action": action[None], "observation": observation[None]}))[:, 0].astype(
        np.float64
    )


@pytest.mark.parametrize("window", WINDOWS)
def test_tqc_is_its_definition_on_every_combination_of_ends(window):
    """Kuznetsov et al. (2020), equations 6 to 11, atom by atom: the highest of all critics' atoms are dropped."""
    algorithm, data = dataclasses.replace(TQC, memory=Replay(100, 4, window)), ended(window)
    state = fresh(algorithm)
    after, metrics, feedback = update(algorithm, state, data)
    key, key_actor, between = jax.random.split(new_key(), 3)
    following = np.stack([observation for *_, observation in returns(algorithm, data)])
    drawn, log_prob = map(np.asarray, acted(state, following, key))
    entropy = np.zeros((window, 4))
    if window > 1:
        entropy[1:] = -np.asarray(acted(state, data.observation[1:].reshape(-1, 3), between)[1]).reshape(-1, 4)
    losses, errors = [], []
    for b, (total, discount, observation) in enumerate(returns(algorithm, data)):
        for k in range(1, window):
            if (data.terminated | data.truncated)[:k, b].any():
                break
            total += 0.9**k * 0.3 * entropy[k, b]
        atoms = sorted(atoms_of(state.target_critics, observation, drawn[b]).ravel())[: 3 * (4 - 1)]
        target = [total + discount * (atom - 0.3 * float(log_prob[b])) for atom in atoms]
        quantiles = atoms_of(state.critics, data.observation[0, b], data.action[0, b])
        loss = 0.0
        for critic, m, aim in itertools.product(range(3), range(4), target):
            u = aim - quantiles[critic, m]
            huber = 0.5 * u**2 if abs(u) <= 1 else abs(u) - 0.5
            loss += abs((2 * m + 1) / 8 - (u < 0)) * huber
        losses.append(loss / (3 * 4 * len(target)))
        errors.append(np.abs(quantiles.mean(1) - np.mean(target)).mean())
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(losses), rtol=1e-4)
    np.testing.assert_allclose(feedback[0], errors, rtol=1e-4, atol=1e-5)
    action, _ = map(np.asarray, acted(state, data.observation[0], key_actor))
    value = [atoms_of(after.critics, data.observation[0, b], action[b]).mean() for b in range(4)]
    np.testing.assert_allclose(metrics["value"], np.mean(value), rtol=1e-4, atol=1e-5)


def test_the_quantile_huber_loss_is_least_at_the_quantiles():
    """Of 1, 2, ..., 100 in two equal parts: a quarter below the first, three quarters below the second."""
    samples = jnp.arange(1, 101, dtype=jnp.float32)
    descend = jax.jit(lambda x: jax.lax.fori_loop(0, 3000, lambda _, x: x - 3 * jax.grad(loss)(x), x))

    def loss(x):
        return quantile_huber(x[None], midpoints(2), samples[None], 1.0)[0]

    np.testing.assert_allclose(descend(jnp.float32([50, 50])), [25.5, 75.5], atol=0.6)


# --- CrossQ and batch renormalisation ---------------------------------------------------------------------------------


def layers(module, x, statistics):
    """A renormalised network by hand: what is seen, and by what each layer is normalised."""
    depth = len(module.weights)
    for i in range(depth):
        mean, deviation, ratio, shift = statistics(i, x)
        x = ((x - mean) / deviation * ratio + shift) * np.asarray(module.scales[i]) + np.asarray(module.offsets[i])
        weight = np.asarray(module.weights[i])
        x = x @ (weight if i < depth - 1 else weight.T) + np.asarray(module.biases[i])
        x = np.tanh(x) if i < depth - 1 else x
    return x


def of_batch(module, known):
    """The statistics of batches, corrected as Ioffe (2017) has it, and what is known after it."""

    def statistics(i, x):
        deviation = np.sqrt(x.var(0) + VARIANCE_FLOOR)
        mean, usual = np.asarray(module.running.means[i]), np.sqrt(np.asarray(module.running.variances[i]) + 1e-3)
        known.append((0.99 * mean + 0.01 * x.mean(0), 0.99 * np.asarray(module.running.variances[i]) + 0.01 * x.var(0)))
        corrects = int(module.running.seen) >= module.batches
        ratio, shift = np.clip(deviation / usual, 1 / 3, 3), np.clip((x.mean(0) - mean) / usual, -5, 5)
        return x.mean(0), deviation, ratio if corrects else 1, shift if corrects else 0

    return statistics


def known_to(module, seed=0):
    """The module as after some learning: with statistics and scales of its own, in every leaf."""
    draw = np.random.default_rng(seed)

    def drawn(x):
        return jnp.asarray(draw.uniform(0.5, 1.5, x.shape), jnp.float32)

    running = Running(*jax.tree.map(drawn, module.running[:2]), jnp.full_like(module.running.seen, 7))
    parts = (module.scales, module.offsets)
    scales, offsets = jax.tree.map(drawn, parts)
    return dataclasses.replace(module, running=running, scales=scales, offsets=offsets)


@pytest.mark.parametrize("after", [7, 8])
def test_a_batch_is_normalised_by_itself_and_corrected_to_what_is_known(after):
    recipe = RenormalizedMLP((8, 6), activation="tanh", renormalize_after=after)
    module = known_to(recipe.init(new_key(), spaces.Box(-1, 1, (3,), np.float32), 2))
    x = 3 * np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
    x += np.float32([[4, 9, -9]])  # corrections meet their limits
    outputs, running = jax.jit(lambda module: module.learning(x))(module)
    known = []
    np.testing.assert_allclose(outputs, layers(module, x, of_batch(module, known)), rtol=1e-3, atol=1e-4)
    for i, (mean, variance) in enumerate(known):
        np.testing.assert_allclose(running.means[i], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(running.variances[i], variance, rtol=1e-4, atol=1e-5)
    assert running.seen == 8

    def as_known(i, _):
        return np.asarray(running.means[i]), np.sqrt(np.asarray(running.variances[i]) + VARIANCE_FLOOR), 1, 0

    acting = module.knowing(running)
    together, alone = jax.jit(lambda module: (module(x), module(x[:1])))(acting)
    np.testing.assert_allclose(together, layers(acting, x, as_known), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-5)


def test_gradients_pass_through_a_batchs_own_statistics_and_not_through_its_correction():
    """Ioffe (2017), section 3: r and d are constants of a step."""
    recipe = RenormalizedMLP((8, 6), activation="tanh", renormalize_after=0)
    module = known_to(recipe.init(new_key(), spaces.Box(-1, 1, (3,), np.float32), 2))
    draw = np.random.default_rng(1)
    x, cotangent = draw.normal(size=(16, 3)).astype(np.float32), draw.normal(size=(16, 2)).astype(np.float32)
    corrections, usual = [], of_batch(module, [])
    layers(module, x, lambda i, x: corrections.append(usual(i, x)[2:]) or usual(i, x))
    slope = jax.jit(jax.grad(lambda module: (module.learning(x)[0] * cotangent).sum()))(
        module.trained.knowing(module.running._replace(seen=jnp.float32(7)))
    )

    def loss(moved):
        statistics = lambda i, x: (x.mean(0), np.sqrt(x.var(0) + VARIANCE_FLOOR), *corrections[i])  # noqa: E731
        return (layers(moved, x.astype(np.float64), statistics) * cotangent).sum()

    for layer in range(3):
        direction = draw.normal(size=module.weights[layer].shape)
        weights = [np.asarray(w, np.float64) for w in module.weights]
        ends = []
        for sign in (1, -1):
            weights[layer] = np.asarray(module.weights[layer], np.float64) + sign * 1e-4 * direction
            ends.append(loss(dataclasses.replace(module, weights=tuple(weights))))
        expected = (ends[0] - ends[1]) / 2e-4
        np.testing.assert_allclose((np.asarray(slope.weights[layer]) * direction).sum(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("window", WINDOWS)
def test_crossqs_critics_see_what_was_done_and_what_follows_as_one_batch(window):
    algorithm, data = dataclasses.replace(CROSSQ, memory=Replay(100, 4, window)), ended(window)
    state = begun(algorithm, new_key())
    state = state._replace(network=known_to(state.network), critics=known_to(state.critics, 1))
    after, metrics, feedback = update(algorithm, state, data)
    key, key_actor, between = jax.random.split(new_key(), 3)
    step = recalled(algorithm, state, data, between)
    following = np.stack([observation for *_, observation in returns(algorithm, data)])
    action, log_prob = map(np.asarray, acted(state, following, key))  # by what the actor knows
    now = np.concatenate([data.action[0], data.observation[0]], 1)
    both = np.concatenate([now, np.concatenate([action, following], 1)])
    critics = [jax.tree.map(lambda x, i=i: x[i], state.critics) for i in range(2)]
    known = [[], []]
    q_now, q_next = np.split(
        np.array([layers(critic, both, of_batch(critic, known[i]))[:, 0] for i, critic in enumerate(critics)]),
        2,
        axis=1,
    )
    target = step.reward[0] + step.discount[0] * (q_next.min(0) - 0.3 * log_prob)
    error = q_now - np.asarray(target)[None]
    np.testing.assert_allclose(metrics["critic_loss"], 0.5 * np.square(error).mean(-1).sum(), rtol=1e-3)
    np.testing.assert_allclose(feedback[0], np.abs(error).mean(0), rtol=1e-3, atol=1e-4)
    for i in range(2):
        for layer, (mean, variance) in enumerate(known[i]):
            np.testing.assert_allclose(after.critics.running.means[layer][i], mean, rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(after.critics.running.variances[layer][i], variance, rtol=1e-3, atol=1e-5)
    of_actor = []
    outputs = layers(state.network, data.observation[0], of_batch(state.network, of_actor))
    drawn, _ = state.head(jnp.float32(outputs)).sample_and_log_prob(key_actor)
    values = np.asarray(critic_values(after.critics, data.observation[0], drawn))
    np.testing.assert_allclose(metrics["value"], values.min(0).mean(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after.network.running.means[1], of_actor[1][0], rtol=1e-3, atol=1e-5)
    assert after.target_critics == ()


def test_no_optimizer_knows_what_is_known_of_inputs_and_targets_have_no_gradient():
    """Weights that decay beside the gradient would take it along."""
    algorithm = dataclasses.replace(CROSSQ, optimizer=td.AdamW(weight_decay=10.0), gamma=0.0)
    state = begun(algorithm, new_key())
    count = len(jax.tree.leaves(state.critics.trained))
    assert len(jax.tree.leaves(state.optimizers[1])) == 2 * count + 1
    assert {x.shape for x in jax.tree.leaves(state.critics.trained)} >= {(2, 5), (2, 5, 8), (2, 1, 8)}
    after, *_ = update(algorithm, state, batch())
    assert after.critics.running.seen.tolist() == [1, 1]
    assert after.network.running.seen == 1
    # the slope of the loss: that of the error of what was done alone, targets as they are
    algorithm = dataclasses.replace(CROSSQ, learning_rate=0.0)
    state, data = begun(algorithm, new_key()), batch()
    after, *_ = update(algorithm, state, data)
    key = jax.random.split(new_key(), 3)[0]
    step = recalled(algorithm, state, data, new_key())
    action, log_prob = acted(state, data.next_observation[0], key)
    both = {
        "action": np.concatenate([data.action[0], action]),
        "observation": np.concatenate([data.observation[0], data.next_observation[0]]),
    }

    def values(trained):
        critics = trained.knowing(state.critics.running)
        return jax.vmap(lambda critic: critic.learning(both)[0][:, 0])(critics)

    @jax.jit
    def slope_of(trained):
        value = jax.lax.stop_gradient(values(trained)[:, 4:].min(0))
        target = step.reward[0] + step.discount[0] * (value - 0.3 * log_prob)
        return 0.5 * jnp.square(values(trained)[:, :4] - target[None]).mean(1).sum()

    slope = jax.jit(jax.grad(slope_of))(state.critics.trained)
    found = jax.tree.map(lambda x: x / (1 - 0.5), after.optimizers[1][0].mu)
    jax.tree.map(lambda *x: np.testing.assert_allclose(*x, rtol=1e-3, atol=1e-5), found, slope)


# --- residual blocks --------------------------------------------------------------------------------------------------


def test_simba_is_its_definition():
    module = SimBa(6, blocks=2).init(new_key(), spaces.Box(-1, 1, (3,), np.float32), 2)
    draw = np.random.default_rng(0)
    module = jax.tree.map(lambda x: draw.normal(size=x.shape).astype(np.float32), module)
    x = draw.normal(size=(5, 3)).astype(np.float32)
    weights, biases = module.weights, module.biases

    def norm(x, i):
        scale, offset = module.norms[i]
        return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6) * scale + offset

    hidden = x @ weights[0] + biases[0]
    for block in range(2):
        wide = np.maximum(norm(hidden, block) @ weights[1 + 2 * block] + biases[1 + 2 * block], 0)
        assert wide.shape == (5, 24)
        hidden = hidden + wide @ weights[2 + 2 * block] + biases[2 + 2 * block]
    np.testing.assert_allclose(seen_by(module, x), norm(hidden, 2) @ weights[-1].T + biases[-1], rtol=1e-3, atol=1e-4)


def test_simba_begins_as_its_authors_have_it():
    module = SimBa(64).init(new_key(), spaces.Box(-1, 1, (64,), np.float32), 3, gain=0.5)
    np.testing.assert_allclose(module.weights[0].T @ module.weights[0], np.eye(64), atol=1e-4)
    np.testing.assert_allclose(np.std(module.weights[1]), np.sqrt(2 / 64), rtol=0.03)
    np.testing.assert_allclose(np.std(module.weights[2]), np.sqrt(2 / 256), rtol=0.03)
    np.testing.assert_allclose(module.weights[3] @ module.weights[3].T, 0.25 * np.eye(3), atol=1e-4)
    assert not any(np.any(bias) for bias in module.biases)


@pytest.mark.full
@pytest.mark.parametrize("algorithm", [td.DQN, td.PPO, td.REINFORCE, td.SAC, td.TD3, td.REDQ, td.DroQ, td.TQC])
def test_every_algorithm_learns_with_simba(algorithm):
    fields = {"critic_network": SimBa(8)} if algorithm in (td.DroQ, td.TQC) else {}
    fields |= {} if algorithm in (td.PPO, td.REINFORCE) else {"warmup_steps": 100}
    environment = "CartPole-v1" if algorithm in (td.DQN, td.PPO, td.REINFORCE) else "Pendulum-v1"
    made = algorithm(network=SimBa(8), normalize_observations=True, **fields)
    run = td.train(made, environment, 2_000 if environment == "CartPole-v1" else 120, run_dir=None, quiet=True)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.agent.state))
