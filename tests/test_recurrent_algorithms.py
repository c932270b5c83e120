"""Networks with a memory in every algorithm: what is learned from is what was acted, step by step."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from remembering import REMEMBERING, CueOnHost, but_full, position_only_cartpole
from thorndike import core, evaluation, names, snapshots, trainer
from thorndike.core import Actor, Batch, Transition
from thorndike.environments import make
from thorndike.environments.functional import Vectorized
from thorndike.environments.probes import Cue, PositionOnlyCartPole
from thorndike.networks import Network
from thorndike.runs.agents import Agent
from thorndike.sequences import first, over_time, step
from thorndike.targets import signed_hyperbolic, signed_parabolic
from thorndike.unrolls import compiled, host

OBSERVATIONS, CHOICES = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2)
TINY = td.GRU(4, torso=td.MLP((3,)))
PPO = td.PPO(network=TINY, num_environments=3, rollout_length=8, batch_size=12, sequence_length=4, epochs=1)
REPLAY = {"num_environments": 2, "rollout_length": 8, "updates_per_rollout": 2, "warmup_steps": 32}
DQN = td.DQN(network=TINY, memory=td.Prioritized(256, 4, window=2, sequence=4, burn_in=2), **REPLAY)
SAC = td.SAC(network=TINY, memory=td.Replay(256, 4, window=2, sequence=4, burn_in=2), **REPLAY)
ALL = {
    "ppo": PPO,
    "reinforce": td.REINFORCE(network=TINY, num_environments=3, rollout_length=8),
    "dqn": DQN,
    "sac": SAC,
    "td3": td.TD3(network=TINY, memory=SAC.memory, **REPLAY),
    "a2c": td.A2C(network=TINY, num_environments=3, rollout_length=8),
    "trpo": td.TRPO(network=TINY, num_environments=3, rollout_length=8, batch_size=12, sequence_length=4, epochs=1),
    "impala": td.IMPALA(network=TINY, num_environments=3, rollout_length=8, memory=td.Replay(256, 4, sequence=6)),
    "pqn": td.PQN(network=TINY, num_environments=3, rollout_length=8, batch_size=12, sequence_length=4, epochs=1),
    "discretesac": td.DiscreteSAC(network=TINY, memory=SAC.memory, **REPLAY),
    "iqn": td.IQN(network=TINY, memory=DQN.memory, **REPLAY),
    "rainbow": td.Rainbow(network=td.GRU(4, torso=td.MLP((3,), noisy=True)), memory=DQN.memory, **REPLAY),
}
RELATED = ("a2c", "trpo", "impala", "pqn", "discretesac")  # to those above: they act alike


call = jax.jit(step)


def drawn(init, seed=1, size=0.5):
    """What `init` would make, with numbers that NumPy draws: nothing is compiled for it."""
    draw = np.random.default_rng(seed)
    floats = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(
        lambda x: (draw.normal(0, size, x.shape) if floats(x) else np.zeros(x.shape)).astype(x.dtype),
        jax.eval_shape(init),
    )


@dataclasses.dataclass(frozen=True)
class Walk:
    """Random observations; episodes end at random, or are cut short after three steps."""

    max_steps: int = 3
    observation_space: ClassVar = OBSERVATIONS
    action_space: ClassVar = CHOICES

    def initial(self, key):
        return jax.random.normal(key, (3,), jnp.float32)

    def observe(self, state):
        return state

    def transition(self, state, action, key):
        return jax.random.normal(key, (3,), jnp.float32), jnp.float32(1), state[0] > 0.8


# --- acting and learning see the same -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", but_full("GRU", "MinGRU", "Attention of two layers", "a recipe of one's own", "a triple as torso")
)  # carries of every kind stay: a pair, a window with its age, carries in carries, and those of one's own networks
def test_the_log_probabilities_that_ppo_learns_from_are_those_acted_with_and_targets_see_the_carry_after_a_step(name):
    recipe = Network.coerce(REMEMBERING[name])
    algorithm = dataclasses.replace(PPO, network=recipe, critic_network=recipe, gae_lambda=0.0, gamma=1.0)
    if recipe.fixed:  # outputs are as many as they are
        algorithm = dataclasses.replace(algorithm, critic_network=TINY)
    environment = Vectorized(Walk(), 3)

    state = drawn(lambda: algorithm.init(jax.random.key(0), OBSERVATIONS, CHOICES))

    def everything(state, key):
        policy = algorithm.policy(state, jnp.float32(0))
        actor = Actor(*environment.reset(key), algorithm.initial_carry(3), jnp.zeros(3, bool))
        _, steps = compiled.unroll(algorithm, environment, policy, actor, key, 13)
        steps = jax.tree.map(lambda x: x[5:], steps)  # so that episodes are under way
        samples, _ = algorithm.prepare(state, steps)
        begin, ended = first(samples.extras["carry"]), samples.terminated | samples.truncated
        outputs = over_time(state.parameters.networks, samples.observation, begin, ended).outputs
        log_prob = state.parameters.distribution(outputs, samples.observation).log_prob(samples.action)

        def following(observation, carry, next_observation):
            _, after = step(state.parameters.networks, observation, carry)
            return state.parameters.value(step(state.parameters.networks, next_observation, after)[0])

        rows = steps.observation, steps.extras["carry"], steps.next_observation
        return samples, log_prob, steps, jax.lax.map(lambda row: following(*row), rows)

    samples, log_prob, steps, next_value = jax.jit(everything)(state, jax.random.key(0))
    assert steps.terminated.any()
    assert (steps.truncated & ~steps.terminated).any()
    np.testing.assert_allclose(log_prob, samples.extras["log_prob"], atol=1e-5)
    target = np.where(steps.terminated, steps.reward, steps.reward + next_value)
    in_time = np.concatenate(
        [samples.extras["target"][:, :3], samples.extras["target"][:, 3:]]
    )  # one sequence after the other
    np.testing.assert_allclose(in_time, target, atol=1e-5)


@pytest.mark.parametrize(("name", "shape"), [("ppo", (4, 6)), ("trpo", (4, 6)), ("pqn", (4, 6)), ("a2c", (8, 3))])
def test_a_memory_learns_from_rollouts_in_sequences_or_from_the_whole(name, shape):
    algorithm, environment = ALL[name], Vectorized(Walk(), 3)

    def learned(key):
        key_state, key_reset, key = jax.random.split(key, 3)
        state = algorithm.init(key_state, OBSERVATIONS, CHOICES)
        actor = Actor(*environment.reset(key_reset), algorithm.initial_carry(3), jnp.zeros(3, bool))
        _, steps = compiled.unroll(algorithm, environment, algorithm.policy(state, jnp.float32(0)), actor, key, 8)
        return algorithm.prepare(state, steps, None)[0].reward

    assert jax.eval_shape(learned, jax.random.key(0)).shape == shape


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.full if n in RELATED else ()) for n in ALL])
def test_an_action_comes_with_the_carry_before_it_and_leaves_that_after_it(name):
    algorithm = ALL[name]
    space = spaces.Box(-1, 1, (2,), np.float32) if name in ("sac", "td3") else CHOICES
    state = drawn(lambda: algorithm.init(jax.random.key(0), OBSERVATIONS, space))
    carry = drawn(lambda: algorithm.initial_carry(3), 2)
    observation = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)

    @jax.jit
    def act(state, carry):
        policy = algorithm.policy(
            state, jnp.float32(0), explore=name != "rainbow"
        )  # by its means, not a draw of weights
        return algorithm.act(policy, observation, carry, jax.random.key(0))[1:]

    after, extras = act(state, carry)
    jax.tree.map(np.testing.assert_array_equal, extras["carry"], carry)
    after, carry = (of[0] if type(of) is tuple else of for of in (after, carry))  # of the actor
    expected = call(state.network, observation, carry)[1]
    jax.tree.map(lambda *x: np.testing.assert_allclose(*x, rtol=1e-5, atol=1e-6), after, expected)


# --- DQN, sample by sample --------------------------------------------------------------------------------------------


def windows(length, size, actions, carry, seed=0):
    """Steps [length, size] with ends of both kinds among them."""
    draw = np.random.default_rng(seed)
    terminated, truncated = draw.random((2, length, size)) < 0.15
    return Transition(
        draw.normal(size=(length, size, 3)).astype(np.float32), actions(draw),
        draw.normal(size=(length, size)).astype(np.float32), terminated, truncated,
        draw.normal(size=(length, size, 3)).astype(np.float32), carry,
    )  # fmt: skip


def walked(network, data, b, carry):
    """What a network gives of each step of window b, and what it carries after each: step by step."""
    outputs, after = [], []
    for t in range(len(data.reward)):
        output, carry = call(network, data.observation[t, b][None], carry)
        outputs.append(np.asarray(output)[0])
        after.append(carry)
        if data.terminated[t, b] or data.truncated[t, b]:
            carry = jax.tree.map(np.zeros_like, carry)
    return outputs, after


def summed(data, b, first, n, gamma):
    """The discounted rewards from step `first` on, the last step of them, and the discount of what comes after."""
    total, discount = 0.0, 1.0
    for t in range(first, first + n):
        total += discount * float(data.reward[t, b])
        discount *= gamma
        if data.terminated[t, b] or data.truncated[t, b]:
            break
    return total, t, 0.0 if data.terminated[t, b] else discount


@pytest.mark.parametrize(
    ("network", "settings", "stored"),
    [
        (td.LSTM(4), {}, True),
        (TINY, {}, False),
        (td.Attention(4, window=3, heads=2), {"double": False}, True),
        (TINY, {"rescale_values": False}, True),
        (td.MLP((4,)), {}, True),
    ],
    ids=["lstm", "gru, from zeros", "attention, not double", "not rescaled", "mlp"],
)
def test_dqns_errors_are_their_definition_in_every_step_of_a_window(network, settings, stored):
    """Burn-in, n-step returns, ends inside: each sample by itself, from the definition."""
    memory = td.Replay(100, 5, window=3, sequence=4, burn_in=2, stored_carry=stored)
    algorithm = dataclasses.replace(DQN, network=network, memory=memory, gamma=0.9, **settings)
    carry = drawn(lambda: algorithm.initial_carry(memory.length * 5), 3)
    carry = jax.tree.map(lambda x: x.reshape(memory.length, 5, *x.shape[1:]), carry)
    carry = jax.tree.map(lambda x: x + (x.dtype.kind == "i"), carry)  # attention has seen one step
    data = windows(memory.length, 5, lambda draw: draw.integers(0, 2, (8, 5)).astype(np.int32), {"carry": carry})
    data = data if stored else data._replace(extras={})

    init = lambda: algorithm.init(jax.random.key(0), OBSERVATIONS, CHOICES)  # noqa: E731
    state = drawn(init, 1)._replace(target_network=drawn(init, 2).network)

    @jax.jit
    def errors(state):
        return algorithm.td_error(state.network, state.target_network, algorithm.recall(state, data))

    found = errors(state)
    h, inverse = map(jax.jit, (signed_hyperbolic, signed_parabolic)) if algorithm.rescales else [lambda x: x] * 2
    expected = np.zeros((4, 5))
    for b in range(5):
        begin = jax.tree.map(lambda x, b=b: x[0, b][None], carry) if stored else algorithm.initial_carry(1)
        q, after = walked(state.network, data, b, begin)
        _, target_after = walked(state.target_network, data, b, begin)
        for i in range(4):
            total, last, discount = summed(data, b, 2 + i, 3, 0.9)
            following = data.next_observation[last, b][None]
            target_q = np.asarray(call(state.target_network, following, target_after[last])[0])[0]
            chooser = call(state.network, following, after[last])[0][0] if algorithm.double else target_q
            value = float(inverse(jnp.float32(target_q[np.argmax(chooser)])))
            expected[i, b] = float(h(jnp.float32(total + discount * value))) - q[2 + i][data.action[2 + i, b]]
    np.testing.assert_allclose(found.reshape(4, 5), expected, atol=1e-5)
    assert (data.terminated[2:] | data.truncated[2:]).any()


# --- SAC and TD3, sample by sample ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_recurrent_critics_learn_along_the_actions_taken_what_new_ones_are_worth(name):
    memory = td.Replay(100, 4, window=2, sequence=3, burn_in=2)
    algorithm = dataclasses.replace(ALL[name], memory=memory, gamma=0.9, learning_rate=0.0, num_critics=2)
    if name == "sac":
        algorithm = dataclasses.replace(algorithm, ent_coef=0.3)
    else:
        algorithm = dataclasses.replace(algorithm, target_noise=0.0, policy_delay=2)
    box = spaces.Box(-1, 1, (2,), np.float32)
    carry = drawn(lambda: algorithm.initial_carry(4), 3)
    stored = {"carry": jax.tree.map(lambda x: np.repeat(x[None], 6, 0), carry)}
    data = windows(6, 4, lambda draw: draw.uniform(-1, 1, (6, 4, 2)).astype(np.float32), stored, seed=3)
    key = lambda: jax.random.key(5)  # always the same one, but a new object: no key is used twice  # noqa: E731
    init = lambda: algorithm.init(key(), OBSERVATIONS, box)  # noqa: E731
    state, other = drawn(init, 2), drawn(init, 4)
    state = state._replace(**{name: getattr(other, name) for name in state._fields if name.startswith("target")})
    state = state._replace(optimizers=jax.tree.map(np.zeros_like, state.optimizers))

    @jax.jit
    def updated(state, key):
        batch = Batch(jax.tree.map(jnp.asarray, data), jnp.array([1, 0.5, 1, 1], jnp.float32), jnp.arange(4))
        return algorithm.update(state, batch, jnp.float32(0), key)[1:]

    metrics, feedback = updated(state, key())
    critic = [
        [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(2)] for tree in (state.critics, state.target_critics)
    ]
    actors = (state.network, state.network) if name == "sac" else (state.actor.network, state.target_actor.network)
    zeros = TINY.initial_carry(1)

    def walked_critic(module, b):
        q, after = [], [zeros]
        for t in range(6):
            x = {"action": data.action[t, b][None], "observation": data.observation[t, b][None]}
            value, carry = call(module, x, after[-1])
            q.append((float(value[0, 0]), carry))
            ended = data.terminated[t, b] or data.truncated[t, b]
            after.append(jax.tree.map(np.zeros_like, carry) if ended else carry)
        return q

    outputs = np.zeros((6, 4, 4 if name == "sac" else 2), np.float32)  # of the actor, at every step
    following = np.zeros((3, 4, outputs.shape[-1]), np.float32)  # at the end of every return
    total, discount, ends = np.zeros((3, 3, 4))
    for b in range(4):
        begin = jax.tree.map(lambda x, b=b: x[b][None], carry)
        outputs[:, b], _ = walked(actors[0], data, b, begin)
        _, after = walked(actors[1], data, b, begin)
        for i in range(3):
            total[i, b], last, discount[i, b] = summed(data, b, 2 + i, 2, 0.9)
            ends[i, b] = last
            following[i, b] = call(actors[1], data.next_observation[last, b][None], after[last])[0][0]
    if name == "sac":
        key_next, _, key_between = jax.random.split(key(), 3)
        action, log_prob = map(np.asarray, state.head(following).sample_and_log_prob(key_next))
        between = np.asarray(state.head(outputs[1:]).sample_and_log_prob(key_between)[1])
        for i, b in np.ndindex(3, 4):
            if ends[i, b] == 3 + i:  # the second step counts, with its entropy
                total[i, b] -= 0.9 * 0.3 * between[2 + i, b]
        entropy = -0.3 * log_prob
    else:
        action, entropy = np.tanh(following), np.zeros((3, 4))
    error = np.zeros((2, 3, 4))
    for b in range(4):
        online, target = ([walked_critic(module, b) for module in modules] for modules in critic)
        for i in range(3):
            last = int(ends[i, b])
            x = {"action": action[i, b][None], "observation": data.next_observation[last, b][None]}
            value = min(
                float(call(module, x, run[last][1])[0][0, 0]) for module, run in zip(critic[1], target, strict=True)
            )
            aim = total[i, b] + discount[i, b] * (value + entropy[i, b])
            error[:, i, b] = [run[2 + i][0] - aim for run in online]
    loss = (np.array([1, 0.5, 1, 1]) * np.square(error).sum(0)).mean() * (0.5 if name == "sac" else 1)
    np.testing.assert_allclose(metrics["critic_loss"], loss, rtol=1e-4)
    np.testing.assert_allclose(feedback, np.abs(error).mean(0), rtol=1e-4, atol=1e-5)


# --- runs -------------------------------------------------------------------------------------------------------------


def arrays_of(algorithm, environment, steps, **options):
    """Everything that a checkpoint holds at the end, of each seed; with `every`, at that iteration instead."""
    found = {}
    make_copies = lambda: make(environment, algorithm.num_environments)  # noqa: E731
    for chunk in trainer.train(algorithm, make_copies, steps, seed=3, **options):
        if chunk.last or chunk.iteration in options.get("every", ()):
            found.setdefault(chunk.seed, chunk.arrays())
            if set(found) == set(range(3, 3 + options.get("seeds", 1))) and not chunk.last:
                break
    return found


def assert_equal(found, expected, tolerance=0):
    assert found.keys() == expected.keys()
    for name, x in found.items():
        np.testing.assert_allclose(x, expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


# What TD3 carries is stored like what SAC carries; on the host DQN's actor goes on like PPO's.
RUNS = [(name, "compiled") for name in ("ppo", "reinforce", "dqn", "sac")] + [("ppo", "host")]
RUNS += [("impala", "compiled")]
RUNS += [
    pytest.param(*run, marks=pytest.mark.full)
    for run in (
        ("td3", "compiled"),
        ("dqn", "host"),
        ("iqn", "compiled"),
        ("rainbow", "compiled"),
        *((name, "compiled") for name in RELATED if name != "impala"),
    )
]


@pytest.mark.parametrize(("name", "mode"), RUNS)
def test_a_recurrent_run_that_was_stopped_goes_on_as_if_it_never_had(name, mode):
    """E1: what is carried is in the checkpoint, of the episodes under way and of what is remembered."""
    continuous = name in ("sac", "td3")
    environment = Cue(length=5, continuous=continuous) if mode == "compiled" else CueOnHost
    steps = 8 * trainer.steps_per_iteration(ALL[name])
    whole = arrays_of(ALL[name], environment, steps)[3]
    half = arrays_of(ALL[name], environment, steps, every=(5,))[3]
    carries = [part for part in whole if "carry" in part]
    assert any(part.startswith("actor/") for part in carries)
    assert any(not np.array_equal(half[part], whole[part]) for part in carries)
    assert_equal(arrays_of(ALL[name], environment, steps, resume={3: half})[3], whole)


def test_recurrent_seeds_side_by_side_are_the_seed_alone():
    environment, steps = Cue(length=5), 4 * trainer.steps_per_iteration(PPO)
    alone = arrays_of(PPO, environment, steps)[3]
    threads = arrays_of(PPO, environment, steps, seeds=2, parallel="threads")
    assert_equal(threads[3], alone)
    together = arrays_of(PPO, environment, steps, seeds=2, parallel="vmap")
    assert_equal(together[3], alone, 1e-4)
    assert_equal(together[4], threads[4], 1e-4)


# Bootstrapped DQN's acting carries the head of the episode, FastTD3's how much noise there is in it.
@pytest.mark.parametrize("name", [name for name in names.ALGORITHMS if name not in ("BootstrappedDQN", "FastTD3")])
def test_without_a_memory_nothing_is_carried(name):
    algorithm = td.PQN(batch_size=32) if name == "PQN" else getattr(td, name)()
    space = spaces.Box(-1, 1, (1,), np.float32) if name in ("SAC", "TD3", "DDPG") else CHOICES
    algorithm = dataclasses.replace(algorithm, num_environments=1)
    assert not jax.tree.leaves(algorithm.initial_carry(2))
    key = jax.random.key(0)
    state = jax.eval_shape(lambda key: algorithm.init(key, OBSERVATIONS, space), key)
    policy = jax.eval_shape(lambda state: algorithm.policy(state, jnp.float32(0)), state)
    shapes = jax.eval_shape(
        lambda state: core.shapes_of_step(algorithm, state, np.zeros((1, 3), np.float32), key), state
    )
    named = [name for name, _ in snapshots.named(shapes)]
    assert not [name for name in named if "carry" in name]
    assert not getattr(getattr(policy, "parameters", None), "critic", ())


def test_a_player_acts_as_the_evaluation_does_and_keeps_several_episodes_apart():
    environment = make(CueOnHost, 3)
    state = drawn(lambda: PPO.init(jax.random.key(0), environment.observation_space, CHOICES), 0, size=2.0)
    policy = PPO.policy(state, jnp.float32(1), explore=False)
    observation = environment.reset(jax.random.key(1))[1]
    actor = Actor((), observation, PPO.initial_carry(3), np.zeros(3, bool))
    _, steps = host.unroll(PPO, environment, policy, actor, jax.random.key(2), 20)
    agent = Agent(PPO, state, environment.observation_space, environment.action_space)
    done, player, alone = np.ones(3, bool), agent.player(), agent.player()
    for t in range(20):
        np.testing.assert_array_equal(player.act(steps.observation[t], begins=done), steps.action[t])
        assert alone.act(steps.observation[t, 1], begins=bool(done[1])) == steps.action[t, 1]
        done = steps.terminated[t] | steps.truncated[t]
    assert len({tuple(row) for row in steps.action.T}) > 1  # or nothing was to be kept apart
    again = agent.player()
    assert again.act(steps.observation[0, 0]) == steps.action[0, 0]
    with pytest.raises(ValueError, match="this player is in one episode, got observations of 3: make another"):
        again.act(steps.observation[0])
    with pytest.raises(ValueError, match="begins takes True or False, or one for each of 1 episodes"):
        again.act(steps.observation[0, 0], begins=[True, False])
    with pytest.raises(td.UnsuitableError, match=r"player = agent.player\(\), one for each episode"):
        agent.act(steps.observation[0, 0])
    outputs, carry = agent.network(steps.observation[0], PPO.initial_carry(3)[0])
    assert outputs.shape == (3, 2)
    assert jax.tree.structure(carry) == jax.tree.structure(PPO.initial_carry(3)[0])
    environment.close()


def test_a_recurrent_agent_is_saved_with_all_that_acts(tmp_path):
    run = td.train(PPO, Cue(length=5), 96, run_dir=tmp_path / "run", quiet=True, evaluate_every=0)
    loaded = td.Agent.load(run.agent.save(tmp_path / "agent"))
    mine, theirs, draw = run.agent.player(), loaded.player(), np.random.default_rng(0)
    for _ in range(6):
        observation = draw.normal(size=(4, 2)).astype(np.float32)
        np.testing.assert_array_equal(mine.act(observation), theirs.act(observation))
    assert td.load(tmp_path / "run", environment=Cue(length=5)).evaluate(5)["mean"] == run.evaluate(5)["mean"]


REFUSED = {
    "dqn without sequences": (lambda: td.DQN(network=TINY), r"give memory=Prioritized\(sequence=16, burn_in=8\)"),
    "sac without sequences": (lambda: td.SAC(network=TINY), r"give memory=Replay\(sequence=16, burn_in=8\)"),
    "a critic alone remembers": (lambda: td.TD3(critic_network=TINY), "learns from steps in a row"),
    "zeros without a burn-in": (
        lambda: td.DQN(network=TINY, memory=td.Replay(sequence=4, stored_carry=False)),
        "begin a window with an empty memory need a burn-in",
    ),
    "critics from zeros without a burn-in": (
        lambda: td.SAC(network=TINY, memory=td.Replay(sequence=4)),
        "begin a window with an empty memory need a burn-in",
    ),
    "a memory drowned in values": (
        lambda: td.PPO(network=TINY, critic_network=None),
        r"give normalize_rewards=True, or a critic_network",
    ),
    "sequences that do not divide": (
        lambda: td.PPO(network=TINY, rollout_length=100, batch_size=100),
        "multiples of sequence_length 16",
    ),
    "another library's word": (lambda: td.DQN(burn_in=3), r"here it is memory\.burn_in"),
}


@pytest.mark.parametrize(("make_algorithm", "answer"), REFUSED.values(), ids=REFUSED)
def test_what_a_memory_cannot_learn_from_is_refused_with_what_to_write(make_algorithm, answer):
    with pytest.raises(td.ThorndikeError, match=answer) as caught:
        make_algorithm()
    assert "\n" not in str(caught.value)


def test_a_critic_that_cannot_follow_a_memory_is_asked_for():
    fixed = REMEMBERING["an Equinox module"]
    with pytest.raises(td.SettingError, match=r"such as critic_network=LSTM\(\)"):
        td.PPO(network=fixed).init(jax.random.key(0), OBSERVATIONS, CHOICES)


# --- learning ---------------------------------------------------------------------------------------------------------


def networks(size):
    torso = td.MLP((size,))
    return {
        "mlp": td.MLP((size, size)),
        "lstm": td.LSTM(size, torso=torso),
        "gru": td.GRU(size, torso=torso),
        "mingru": td.MinGRU(size, torso=torso),
        "attention": td.Attention(size, window=8, heads=2, torso=torso),
    }


CHOOSING = {"dqn": td.DQN, "c51": partial(td.C51, v_min=-2.0, v_max=2.0), "qrdqn": td.QRDQN, "iqn": td.IQN}


def learner(name, kind, size=32):
    """An algorithm as the cue needs it."""
    network = networks(size)[kind]
    if name == "ppo":
        rate = 1e-3 if kind == "attention" else 2e-3  # at which it misses the cue on 2 of 6 seeds
        return td.PPO(
            network=network, num_environments=16, rollout_length=64, epochs=4, batch_size=256, learning_rate=rate,
            learning_rate_end=0.0, ent_coef=0.01,
        )  # fmt: skip
    if name == "pqn":
        return td.PQN(
            network=network, num_environments=16, rollout_length=32, epochs=4, sequence_length=16, learning_rate=2e-3,
            q_lambda=0.9, exploration_fraction=0.5, epsilon_end=0.01,
        )  # fmt: skip
    if name == "trpo":
        return td.TRPO(network=network, num_environments=16, rollout_length=64, epochs=4, batch_size=256, max_kl=0.02)
    if name in ("a2c", "impala"):
        rollout = {"num_environments": 16, "rollout_length": 32, "learning_rate": 3e-3, "learning_rate_end": 0.0}
        return (td.A2C if name == "a2c" else td.IMPALA)(network=network, optimizer="adam", **rollout)
    if name == "reinforce":
        return td.REINFORCE(
            network=network, num_environments=16, rollout_length=64, learning_rate=3e-3, learning_rate_end=0.0,
            ent_coef=0.01,
        )  # fmt: skip
    sequence = {} if kind == "mlp" else {"sequence": 12, "burn_in": 4}
    memory = td.Replay(20_000, 32, **sequence)
    if name in CHOOSING:
        return CHOOSING[name](
            network=network, memory=memory, num_environments=16, rollout_length=4, updates_per_rollout=4,
            warmup_steps=1_000, target_period=50,
        )  # fmt: skip
    return td.SAC(
        network=network, memory=memory, num_environments=8, rollout_length=1, updates_per_rollout=2, warmup_steps=1_000,
        learning_rate=1e-3,
    )  # fmt: skip


def greedy_return(algorithm, environment, steps, seed=0):
    """The mean of 100 greedy episodes after training."""
    copies = lambda n=algorithm.num_environments: make(environment, n)  # noqa: E731
    for chunk in trainer.train(algorithm, copies, steps, seed=seed):
        if chunk.last:
            key = evaluation.evaluation_key(seed, chunk.iteration)
            return evaluation.evaluate(algorithm, copies(100), chunk.progress.state, key, 100).returns.mean()
    raise AssertionError("no last chunk")


def test_ppo_with_an_lstm_remembers_the_cue():
    assert greedy_return(learner("ppo", "lstm"), Cue(), 30_000) >= 0.95


LEARN = [
    *(("ppo", kind, 60_000) for kind in ("lstm", "gru", "mingru", "attention")),
    *(("reinforce", kind, 150_000) for kind in ("lstm", "gru")),
    *(("dqn", kind, 40_000) for kind in ("lstm", "gru")),
    *((name, "lstm", 40_000) for name in ("c51", "qrdqn", "iqn")),
    ("sac", "lstm", 16_000),
    ("a2c", "lstm", 150_000),
    ("trpo", "lstm", 100_000),
    ("impala", "lstm", 150_000),
    ("pqn", "lstm", 100_000),
]


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "kind", "steps"), LEARN)
def test_the_cue_is_remembered(name, kind, steps, seed):
    assert greedy_return(learner(name, kind), Cue(continuous=name == "sac"), steps, seed) >= 0.95


@pytest.mark.full
@pytest.mark.parametrize(("name", "steps"), [("ppo", 60_000), ("reinforce", 60_000), ("dqn", 40_000), ("sac", 10_000)])
def test_without_a_memory_the_cue_stays_chance(name, steps):
    assert greedy_return(learner(name, "mlp"), Cue(continuous=name == "sac"), steps) <= 0.3


CARTPOLE = {
    "ppo": (
        td.PPO(
            network=td.LSTM(64), num_environments=16, rollout_length=64, epochs=4, batch_size=256, learning_rate=1e-3,
            learning_rate_end=0.0, normalize_rewards=True,
        ),
        300_000,
    ),
    "dqn": (
        td.DQN(
            network=td.LSTM(32, torso=td.MLP((32,))), memory=td.Replay(20_000, 32, window=3, sequence=8, burn_in=4),
            num_environments=16, rollout_length=4, updates_per_rollout=4, warmup_steps=1_000, target_period=50,
            normalize_rewards=True,
        ),
        200_000,
    ),
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("host", [False, True], ids=["compiled", "host"])
@pytest.mark.parametrize("name", CARTPOLE)
def test_cartpole_is_balanced_without_seeing_velocities(name, host, seed):
    algorithm, steps = CARTPOLE[name]
    environment = position_only_cartpole if host else PositionOnlyCartPole()
    assert greedy_return(algorithm, environment, steps, seed) >= 450
