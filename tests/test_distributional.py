"""C51, QR-DQN, IQN, noisy networks and Munchausen targets against their definitions."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import random

import thorndike as td
from test_dqn import ACTIONS, OBSERVATIONS, batch
from thorndike.errors import SettingError
from thorndike.networks import is_noisy, noiseless, perturbed
from thorndike.targets import midpoints, projected, quantile_huber

SMALL = {"network": td.MLP((8,), initialization="default"), "memory": td.Replay(100, 4)}
C51 = td.C51(**SMALL, atoms=7, v_min=-1.0, v_max=1.5)
QRDQN = td.QRDQN(**SMALL, quantiles=5)
IQN = td.IQN(**SMALL, features=6, cosines=5, num_tau_samples=3, num_tau_prime_samples=4, num_quantile_samples=5)
ALL = {"c51": C51, "qrdqn": QRDQN, "iqn": IQN}


def new_key():
    """Always the same one, but a new object: no key is used twice."""
    return random.key(3)


def fresh(algorithm, observations=OBSERVATIONS):
    """A state whose target network is another than the online one, and whose actions differ in worth."""
    init = jax.jit(partial(algorithm.init, observation_space=observations, action_space=ACTIONS))
    state, other = init(random.key(0)), init(random.key(1))
    state, other = (jax.tree.map(lambda x: 3 * x if x.dtype == np.float32 else x, one) for one in (state, other))
    return state._replace(target_network=other.network)


@jax.jit
def losses(algorithm, state, steps, key=None):
    key = new_key() if key is None else key
    return algorithm.losses(state.network, state.target_network, algorithm.recall(state, steps), key)


# --- slow definitions: loops over samples, actions and atoms ----------------------------------------------------------


def h(x):
    return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x


def inverse_h(x):
    return np.sign(x) * (((np.sqrt(1 + 4e-3 * (np.abs(x) + 1 + 1e-3)) - 1) / 2e-3) ** 2 - 1)


def same(x):
    return x


def scales(algorithm):
    return (h, inverse_h) if algorithm.rescale_values else (same, same)


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def of_actions(algorithm, network, observation, tau=None):
    """[A, atoms] for one observation: logits of C51, quantiles of the others."""
    outputs = np.asarray(network(observation[None]))[0].astype(np.float64)
    if isinstance(algorithm, td.IQN):
        rows = np.array([implicit(network, outputs, one) for one in tau]).T
    else:
        atoms = algorithm.atoms
        rows = np.array([outputs[i : i + atoms] for i in range(0, len(outputs), atoms)])
    assert len(rows) == 4 + algorithm.dueling
    if not algorithm.dueling:
        return rows
    return np.array([[rows[0][k] + row[k] - np.mean(rows[1:, k]) for k in range(rows.shape[1])] for row in rows[1:]])


def implicit(network, features, tau):
    """Z_tau of IQN, for one sample: Dabney et al. (2018b), section 3.1 and equation 4."""
    weight, bias = np.asarray(network.weight, np.float64), np.asarray(network.bias, np.float64)
    joined = []
    for j in range(len(bias)):
        phi = sum(math.cos(math.pi * i * tau) * weight[j, i] for i in range(weight.shape[1])) + bias[j]
        joined.append(max(features[j], 0.0) * max(phi, 0.0))
    return np.asarray(network.head(np.array([joined], np.float32)))[0]


def q_of(algorithm, network, observation):
    _, back = scales(algorithm)
    if isinstance(algorithm, td.C51):
        support = np.linspace(algorithm.v_min, algorithm.v_max, algorithm.atoms)
        return np.array([softmax(row) @ back(support) for row in of_actions(algorithm, network, observation)])
    levels = [(k + 0.5) / 5 for k in range(5)]
    return np.array([np.mean(back(row)) for row in of_actions(algorithm, network, observation, levels)])


def defined_return(algorithm, steps, b):
    """The sum of rewards of a sample, the discount of what follows, and that."""
    total, discount = 0.0, 1.0
    for t in range(steps.reward.shape[0]):
        total += discount * float(steps.reward[t, b])
        discount *= algorithm.gamma
        if steps.terminated[t, b] or steps.truncated[t, b]:
            break
    return total, 0.0 if steps.terminated[t, b] else discount, steps.next_observation[t, b]


def defined_losses(algorithm, state, steps, taus, networks=None):
    """Losses and priorities, sample by sample; taus are those drawn for samples and for their targets.

    Networks are those that learn, choose the next action, and say what follows.
    """
    chooser = state.network if algorithm.double else state.target_network
    online, chooser, target_network = networks or (state.network, chooser, state.target_network)
    forth, back = scales(algorithm)
    losses, errors = [], []
    for b in range(steps.reward.shape[1]):
        total, discount, following = defined_return(algorithm, steps, b)
        q = q_of(algorithm, chooser, following)
        here = of_actions(algorithm, online, steps.observation[0, b], taus[0][b])[steps.action[0, b]]
        there = of_actions(algorithm, target_network, following, taus[1][b])[q.argmax()]
        if isinstance(algorithm, td.C51):
            support = np.linspace(algorithm.v_min, algorithm.v_max, algorithm.atoms)
            loss, error = categorical(algorithm, here, there, forth(total + discount * back(support)))
        else:
            target = forth(total + discount * back(there))
            loss, error = quantile(here, taus[0][b], target), abs(target.mean() - here.mean())
        losses.append(loss)
        errors.append(error)
    return losses, errors


def categorical(algorithm, here, there, target):
    """Algorithm 1 of Bellemare et al. (2017)."""
    low, high, n = algorithm.v_min, algorithm.v_max, algorithm.atoms
    spacing, m, probability = (high - low) / (n - 1), np.zeros(n), softmax(there)
    for j in range(n):
        b = (min(max(target[j], low), high) - low) / spacing
        lower, upper = math.floor(b), math.ceil(b)
        if lower == upper:
            m[lower] += probability[j]
        else:
            m[lower] += probability[j] * (upper - b)
            m[upper] += probability[j] * (b - lower)
    log_p = np.log(softmax(here))
    divergence = sum(m[j] * (math.log(m[j]) - log_p[j]) for j in range(n) if m[j] > 0)
    return -m @ log_p, divergence


def quantile(here, tau, target, kappa=1.0):
    """Equation 10 of Dabney et al. (2018a), as in algorithm 1 summed over quantiles, the mean over targets."""
    total = 0.0
    for quantile, level in zip(here, tau, strict=True):
        for sample in target:
            u = sample - quantile
            huber = 0.5 * u**2 if abs(u) <= kappa else kappa * (abs(u) - 0.5 * kappa)
            total += abs(level - (u < 0)) * huber / kappa / len(target)
    return total


def taus_of(algorithm, size, key=None):
    """The levels that an update with this key is of."""
    if isinstance(algorithm, td.IQN):
        *_, here, there = random.split(new_key() if key is None else key, 4)
        return random.uniform(here, (size, 3), jnp.float32), random.uniform(there, (size, 4), jnp.float32)
    return np.tile((np.arange(5) + 0.5) / 5, (size, 1)), [None] * size


VARIANTS = {
    "one-step-double-dueling": {"dueling": True},
    "three-steps": {"double": False, "memory": td.Replay(100, 4, 3)},
    "three-steps-dueling-rescaled": {"dueling": True, "rescale_values": True, "memory": td.Replay(100, 4, 3)},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ALL)
def test_losses_and_priorities_are_their_definitions_on_every_combination_of_ends(name, variant):
    algorithm = dataclasses.replace(ALL[name], **VARIANTS[variant])
    state, steps = fresh(algorithm), batch(algorithm.memory.window, size=8)
    loss, error = losses(algorithm, state, steps)
    expected = defined_losses(algorithm, state, steps, taus_of(algorithm, 8))
    np.testing.assert_allclose(loss, expected[0], rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(error, expected[1], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_learned_by_way_of_the_target(name):
    """Though the quantiles and logits of the next state are compared with those of this one."""
    algorithm = ALL[name]
    state, steps = fresh(algorithm), batch()
    step = algorithm.recall(state, steps)

    def loss(network, target_network):
        return algorithm.losses(network, target_network, step, new_key())[0].sum()

    online, target = jax.jit(jax.grad(loss, argnums=(0, 1)))(state.network, state.target_network)
    assert all(not np.any(x) for x in jax.tree.leaves(target))
    assert any(np.abs(x).max() > 1e-3 for x in jax.tree.leaves(online))


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_the_best_action_is_that_of_the_best_mean(name, rescaled):
    """Of returns as they are, wherever those that are learned are rescaled."""
    algorithm = dataclasses.replace(ALL[name], dueling=True, rescale_values=rescaled)
    state, steps = fresh(algorithm), batch(size=16)
    policy = algorithm.policy(state, jnp.float32(1), explore=False)
    action, _ = jax.jit(algorithm.greedy)(policy, steps.observation[0], ())
    q = [q_of(algorithm, state.network, observation) for observation in steps.observation[0]]
    np.testing.assert_array_equal(action, np.argmax(q, -1))
    np.testing.assert_array_equal(jax.jit(algorithm.act)(policy, steps.observation[0], (), new_key())[0], action)
    found, _ = jax.jit(algorithm.values)(policy, steps.observation[0], ())
    np.testing.assert_allclose(found, q, rtol=1e-4, atol=2e-4 if rescaled else 1e-5)


def test_implicit_quantiles_are_of_what_a_network_with_a_memory_has_seen():
    memory = td.Replay(100, 4, window=2, sequence=3, burn_in=2)
    algorithm = dataclasses.replace(IQN, network=td.GRU(4, torso=td.MLP((3,))), memory=memory)
    state, steps = fresh(algorithm), batch(memory.length)
    found = jax.jit(lambda state: algorithm.taken(state.network, algorithm.recall(state, steps)))(state)
    carry, expected = algorithm.initial_carry(4), []
    step = jax.jit(lambda observation, carry: state.network(observation, carry))
    for t in range(memory.burn_in + memory.sequence):  # no episode ends before the last row
        features, carry = step(steps.observation[t], carry)
        quantiles = algorithm.of_actions(state.network, features)
        expected.append([quantiles[b, steps.action[t, b]] for b in range(4)])
    np.testing.assert_allclose(found.reshape(3, 4, 5), expected[2:], atol=1e-5)


# --- formulas ---------------------------------------------------------------------------------------------------------


def test_projecting_keeps_all_probability_and_the_mean_of_what_is_within():
    support = jnp.linspace(-2.0, 2.0, 9)
    values = np.random.default_rng(0).uniform(-2, 2, (20, 6)).astype(np.float32)
    values[0] = [-2, 2, 0, 0.5, -1.5, 1]  # on atoms
    values[1] = [-9, 9, -2.1, 2.1, 0, 0]  # beyond them
    probability = np.random.default_rng(1).dirichlet(np.ones(6), 20).astype(np.float32)
    found = np.asarray(projected(probability, values, support))
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(found @ support, (probability * np.clip(values, -2, 2)).sum(-1), atol=1e-6)
    assert ((found > 0).sum(-1) <= 12).all()
    np.testing.assert_allclose(found[0][[0, 8, 4, 5, 1, 6]], probability[0], rtol=1e-6)


def test_quantiles_that_regress_are_those_of_the_samples():
    """The loss is least at the samples' own quantiles, in small with any kappa and in the limit of a small one."""
    samples = jnp.sort(random.exponential(random.key(0), (1, 1001), jnp.float32))
    levels = midpoints(4)
    gradient = jax.jit(jax.grad(lambda x: quantile_huber(x, levels, samples, 1e-4).sum()))
    best = jnp.asarray(np.quantile(samples[0], levels[0]))[None].astype(jnp.float32)
    assert np.abs(gradient(best)).max() < 2e-3
    assert np.abs(gradient(best + 0.1)).min() > 2e-3
    np.testing.assert_allclose(levels[0], [0.125, 0.375, 0.625, 0.875])
    loss = quantile_huber(best, levels, samples[:, ::100], 0.3)
    np.testing.assert_allclose(loss[0], quantile(best[0], levels[0], samples[0, ::100], 0.3), rtol=1e-5)


# --- noisy networks ---------------------------------------------------------------------------------------------------

NOISY = td.MLP((6,), initialization="default", noisy=True)
draw = jax.jit(perturbed)


def test_noise_is_factorised_and_as_large_as_its_spread_says():
    """Equations 10 and 11 of Fortunato et al. (2018)."""
    network, plain = (
        jax.jit(partial(recipe.init, observation_space=OBSERVATIONS, outputs=4))(random.key(0))
        for recipe in (NOISY, dataclasses.replace(NOISY, noisy=False))
    )
    assert jax.tree.structure(noiseless(network)) == jax.tree.structure(plain)
    jax.tree.map(np.testing.assert_array_equal, noiseless(network), plain)
    sigmas = zip(network.spread.weights, network.spread.biases, (3, 6), strict=True)
    for weight, bias, inputs in sigmas:  # section 3.2
        np.testing.assert_allclose(weight, 0.5 / math.sqrt(inputs), rtol=1e-6)
        np.testing.assert_allclose(bias, 0.5 / math.sqrt(inputs), rtol=1e-6)
    drawn = draw(network, new_key())
    assert not is_noisy(drawn)
    noises = []
    for i in range(2):
        noise = np.asarray((drawn.weights[i] - network.weights[i]) / network.spread.weights[i], np.float64)
        noise = noise if i == 0 else noise.T  # the last weight is stored transposed
        of_bias = np.asarray((drawn.biases[i] - network.biases[i]) / network.spread.biases[i])
        of_inputs = (noise / of_bias[None]).mean(1)
        np.testing.assert_allclose(noise, np.outer(of_inputs, of_bias), atol=1e-3)
        noises += [*of_inputs, *of_bias]
    assert len(set(np.round(noises, 4))) == 3 + 6 + 6 + 4  # none is another one's
    many = jax.jit(jax.vmap(perturbed, (None, 0)))(network, random.split(new_key(), 500)).biases[0]
    noise = np.asarray(many - network.biases[0][None]) / np.asarray(network.spread.biases[0])
    np.testing.assert_allclose(np.mean(np.sign(noise) * noise**2), 0, atol=0.05)  # f(x) = sgn(x) sqrt|x|, x normal
    np.testing.assert_allclose(np.mean(noise**4), 1, atol=0.1)


NOISES = {
    "cnn": (td.CNN((2,), (2,), (1,), (5,), noisy=True), spaces.Box(0, 255, (6, 6, 3), np.uint8), 2),
    "in a recurrent network": (td.GRU(4, torso=NOISY, head=td.MLP((), noisy=True)), OBSERVATIONS, 3),
}


@pytest.mark.parametrize(("recipe", "space", "layers"), NOISES.values(), ids=NOISES)
def test_every_dense_layer_has_noise_of_its_own(recipe, space, layers):
    assert recipe.noisy
    network = jax.jit(lambda key: recipe.init(key, space, 4))(random.key(0))
    drawn = draw(network, new_key())
    assert is_noisy(network)
    assert not is_noisy(drawn)
    assert jax.tree.structure(noiseless(network)) == jax.tree.structure(drawn)
    assert sum(moved(network, drawn)) == 2 * layers


def moved(network, drawn):
    """Which leaves noise has moved."""
    pairs = zip(jax.tree.leaves(noiseless(network)), jax.tree.leaves(drawn), strict=True)
    return [not np.array_equal(*pair) for pair in pairs]


def test_implicit_quantiles_are_noisy_behind_the_levels_too():
    """Both layers of the torso and both after it; what levels are seen by is not."""
    algorithm = dataclasses.replace(IQN, network=NOISY)
    network = jax.jit(lambda key: algorithm.init_network(key, OBSERVATIONS, 4))(random.key(0))
    drawn = draw(network, new_key())
    assert sum(moved(network.torso, drawn.torso)) == 2 * 2
    assert sum(moved(network.head, drawn.head)) == 2 * 2
    assert sum(moved(network, drawn)) == 2 * 4


def test_noise_is_drawn_for_each_act_and_left_out_when_greedy():
    algorithm = td.DQN(**SMALL | {"network": NOISY}, epsilon_start=0.0, epsilon_end=0.0)
    state, observation = fresh(algorithm), np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    policy = algorithm.policy(state, jnp.float32(0))
    best = np.asarray(state.network(observation)).argmax(-1)
    act = jax.jit(algorithm.act)
    actions = [np.asarray(act(policy, observation, (), key)[0]) for key in random.split(new_key(), 3)]
    assert len({action.tobytes() for action in [*actions, best]}) == 4
    np.testing.assert_array_equal(algorithm.greedy(policy, observation, ())[0], best)
    still = algorithm.policy(state, jnp.float32(0), explore=False)
    np.testing.assert_array_equal(algorithm.act(still, observation, (), new_key())[0], best)


@pytest.mark.parametrize("double", [True, False])
def test_the_target_the_choice_and_what_is_learned_have_noise_of_their_own(double):
    """Fortunato et al. (2018), section 3.1: epsilon, epsilon' and, for the choice of double learning, epsilon''."""
    algorithm = td.DQN(**SMALL | {"network": NOISY}, double=double)
    state, steps = fresh(algorithm), batch(size=8)
    _, error = losses(algorithm, state, steps)
    key_following, key_taken = random.split(new_key())
    online = draw(state.network, key_taken)
    choice, target = draw((state.network, state.target_network), key_following)
    pairs = ((online, state.network), (choice, state.network), (target, state.target_network))
    noises = [np.asarray((drawn.biases[0] - mean.biases[0]) / mean.spread.biases[0]) for drawn, mean in pairs]
    assert all(np.abs(noises[i] - noises[j]).min() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))
    expected = []
    for b in range(8):
        total, discount, following = defined_return(algorithm, steps, b)
        q = np.asarray((choice if double else target)(following[None]))[0]
        best = np.asarray(target(following[None]))[0][q.argmax()]
        expected.append(
            total + discount * best - np.asarray(online(steps.observation[0, b][None]))[0][steps.action[0, b]]
        )
    np.testing.assert_allclose(error, np.abs(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["rainbow", "qrdqn", "iqn"])
def test_the_losses_of_noisy_networks_are_their_definition(name):
    """Rainbow's six parts at once, and the same of quantiles: what is learned has none of the noise of its target."""
    rainbow = td.Rainbow(network=NOISY, memory=td.Replay(100, 4, 3), atoms=7, v_min=-1.0, v_max=1.5)
    more = {"network": NOISY, "dueling": True, "memory": rainbow.memory}
    algorithm = rainbow if name == "rainbow" else dataclasses.replace(ALL[name], **more)
    state, steps = fresh(algorithm), batch(3, size=8)
    loss, error = losses(algorithm, state, steps, new_key())
    key_following, key_taken, *_ = random.split(new_key(), 4 if name == "iqn" else 2)
    networks = draw(state.network, key_taken), *draw((state.network, state.target_network), key_following)
    expected = defined_losses(algorithm, state, steps, taus_of(algorithm, 8, new_key()), networks)
    np.testing.assert_allclose(loss, expected[0], rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(error, expected[1], rtol=2e-4, atol=1e-5)


def test_the_spread_of_noise_is_learned():
    algorithm = td.DQN(**SMALL | {"network": NOISY})
    state, steps = fresh(algorithm), batch()
    step = algorithm.recall(state, steps)
    gradient = jax.jit(
        jax.grad(lambda network: algorithm.losses(network, state.target_network, step, new_key())[0].sum())
    )
    assert all(np.abs(x).max() > 1e-4 for x in jax.tree.leaves(gradient(state.network).spread))


def test_without_noisy_layers_no_key_is_used():
    algorithm = td.DQN(**SMALL)
    state, steps = fresh(algorithm), batch()
    first, second = (losses(algorithm, state, steps, key)[0] for key in random.split(new_key()))
    np.testing.assert_array_equal(first, second)
    programs = [
        str(jax.make_jaxpr(one.act)(one.policy(fresh(one), jnp.float32(0)), steps.observation[0], (), new_key()))
        for one in (algorithm, td.DQN(**SMALL | {"network": NOISY}))
    ]
    plain, noisy = (program.count("random_split") for program in programs)
    assert noisy == plain + 2  # for the act, and for the layers
    assert perturbed(state.network, new_key()) is state.network


@pytest.mark.parametrize("kind", ["PPO", "SAC", "REINFORCE"])
def test_noise_that_would_never_be_drawn_is_refused(kind):
    environment = "Pendulum-v1" if kind == "SAC" else "CartPole-v1"
    for network in (NOISY, td.GRU(4, torso=NOISY)):
        algorithm = getattr(td, kind)
        memory = {"memory": td.Replay(sequence=4, burn_in=2)} if kind == "SAC" else {}
        with pytest.raises(SettingError, match=f"{kind}: network cannot have noise"):
            td.train(algorithm(network=network, **memory), environment, 10, quiet=True, run_dir=None)
    with pytest.raises(SettingError, match=f"{kind}: network cannot have noise"):
        td.train(kind.lower(), environment, 10, network=NOISY, quiet=True, run_dir=None)


# --- Munchausen -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("kind", [td.DQN, td.QRDQN], ids=["dqn", "qrdqn"])
def test_munchausen_targets_are_their_definition(kind, window):
    """Vieillard et al. (2020), equation 1; of n steps, each with its own bonus and its own share of entropy."""
    more = {"quantiles": 5} if kind is td.QRDQN else {}
    algorithm = kind(
        **SMALL | {"memory": td.Replay(100, 4, window)}, **more, munchausen=True, munchausen_temperature=0.5,
        munchausen_alpha=0.8, munchausen_clip=-0.4,
    )  # fmt: skip
    space = spaces.Dict({"action_mask": spaces.MultiBinary(4), "observation": OBSERVATIONS})
    state, plain = fresh(algorithm, space), batch(window, size=8)
    draw = np.random.default_rng(5)
    legal, legal_next = (draw.integers(0, 2, (window, 8, 4)).astype(np.int8) for _ in range(2))
    np.put_along_axis(legal, plain.action[..., None], 1, -1)
    legal_next[..., 0] = 1
    steps = plain._replace(
        observation={"action_mask": legal, "observation": plain.observation},
        next_observation={"action_mask": legal_next, "observation": plain.next_observation},
    )

    def rows_of(network, observation):
        seen = {"action_mask": np.ones((1, 4), np.int8), "observation": observation[None]}
        return np.asarray(network(seen), np.float64).reshape(4, -1)

    def policy(observation, mask):
        q = rows_of(state.target_network, observation).mean(-1)
        return softmax(np.where(mask, q / 0.5, -np.inf))

    expected, clipped = [], 0
    for b in range(8):
        target, discount = 0.0, 1.0
        for t in range(window):
            chosen = math.log(policy(plain.observation[t, b], legal[t, b])[plain.action[t, b]])
            clipped += 0.5 * chosen < -0.4
            reward = float(plain.reward[t, b]) + 0.8 * max(0.5 * chosen, -0.4) - (0.5 * chosen if t else 0)
            target += discount * reward
            discount *= algorithm.gamma
            if plain.terminated[t, b] or plain.truncated[t, b]:
                break
        target = np.full(algorithm.atoms, target)
        if not plain.terminated[t, b]:
            chances, following = policy(plain.next_observation[t, b], legal_next[t, b]), plain.next_observation[t, b]
            for a in range(4):
                if chances[a] > 0:
                    z = rows_of(state.target_network, following)[a]
                    target += discount * chances[a] * (z - 0.5 * math.log(chances[a]))
        expected.append(target)
    assert 0 < clipped < 8 * window

    @jax.jit
    def target(state):
        step = algorithm.recall(state, steps)
        return algorithm.target(algorithm.best_following(state.network, state.target_network, step), step)

    found = target(state)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


REFUSED = {
    "an empty range": (lambda: td.C51(v_min=1.0, v_max=1.0), "v_min must be below v_max"),
    "one atom": (lambda: td.C51(atoms=1), "atoms must be at least 2"),
    "another loss": (lambda: td.C51(loss="huber"), "C51 has no field 'loss'"),
    "atoms that move": (lambda: td.Rainbow(munchausen=True), "moves every action's atoms"),
    "rescaled Munchausen": (lambda: td.DQN(munchausen=True, rescale_values=True), "rescale_values=False"),
}


@pytest.mark.parametrize(("make", "answer"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_with_a_reason(make, answer):
    with pytest.raises(td.ThorndikeError, match=answer):
        make()


def test_rainbow_has_six_parts_and_is_without_one_still_rainbow():
    """What its docstring says of each part."""
    whole = td.Rainbow()
    assert isinstance(whole, td.C51)
    assert whole.double
    assert whole.dueling
    assert isinstance(whole.memory, td.Prioritized)
    assert whole.memory.window == 3
    assert whole.network.noisy
    assert whole.epsilon_start == whole.epsilon_end == 0  # noise explores
    parts = [
        {"double": False}, {"dueling": False}, {"memory": td.Replay(20_000, 64, window=3)},
        {"memory": td.Prioritized(20_000, 64)}, {"network": td.MLP(), "epsilon_start": 1.0, "epsilon_end": 0.02},
    ]  # fmt: skip
    for part in parts:
        td.Rainbow(**part)
    own = {"atoms", "v_min", "v_max"}
    fields = {field.name: getattr(td.Rainbow(), field.name) for field in dataclasses.fields(td.Rainbow)}
    td.DQN(**{name: value for name, value in fields.items() if name not in own})
