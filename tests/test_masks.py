"""Action masks: nothing illegal is ever taken or believed, from the definition and in whole runs."""

from __future__ import annotations

import dataclasses
import warnings
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from thorndike import masks, normalization, settings
from thorndike.core import Actor, Batch, Transition
from thorndike.distributions import Head
from thorndike.environments import make
from thorndike.environments.functional import Vectorized
from thorndike.environments.probes import MaskedChoice
from thorndike.errors import EnvironmentFault, SettingError, UnsuitableError
from thorndike.runs.agents import Agent
from thorndike.runs.export import draw
from thorndike.spaces import plain, uniform_action
from thorndike.unrolls import compiled

CHOICES, SIDE_BY_SIDE = spaces.Discrete(4), spaces.MultiDiscrete([3, 2])
SMALL = td.MLP((8,), activation="tanh")
REPLAY = td.Replay(4_000, 16)
DQN = td.DQN(
    network=SMALL, num_environments=4, rollout_length=4, updates_per_rollout=1, warmup_steps=200, memory=REPLAY
)
PPO = td.PPO(network=SMALL, num_environments=4, rollout_length=16, batch_size=32, epochs=2)
REINFORCE = td.REINFORCE(network=SMALL, num_environments=4, rollout_length=16)
A2C = td.A2C(network=SMALL, num_environments=4, rollout_length=16)
PQN = td.PQN(network=SMALL, num_environments=4, rollout_length=16, batch_size=32)
TRPO = td.TRPO(network=SMALL, num_environments=4, rollout_length=16, batch_size=32, epochs=2)
IMPALA = td.IMPALA(network=SMALL, num_environments=4, rollout_length=16)
SAC = td.DiscreteSAC(network=SMALL, num_environments=4, rollout_length=4, warmup_steps=200, memory=REPLAY)
ALL = {
    "dqn": DQN,
    "ppo": PPO,
    "reinforce": REINFORCE,
    "a2c": A2C,
    "pqn": PQN,
    "trpo": TRPO,
    "impala": IMPALA,
    "discretesac": SAC,
}


def observed(mask=4, rest=None):
    rest = spaces.Box(-1, 1, (3,), np.float32) if rest is None else rest
    return spaces.Dict(action_mask=mask if isinstance(mask, spaces.Space) else spaces.MultiBinary(mask), x=rest)


class Strict(gymnasium.Env):
    """The probe on the host: an illegal action is a fault. With `where="info"` the mask stands there."""

    def __init__(self, where="observation", space=None, parts=(20,), legal=5):
        self.where, self.parts, self.legal = where, parts, legal
        self.action_space = space or spaces.Discrete(parts[0], start=3)
        seen = spaces.Box(-1, 1, (1,), np.float32)
        mask = spaces.Box(0, 1, (sum(parts),), np.float32)  # as RLlib's users write it
        self.observation_space = spaces.Dict(action_mask=mask, seen=seen) if where == "observation" else seen

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._answer()

    def step(self, action):
        action = np.ravel(np.asarray(action) - getattr(self.action_space, "start", 0))
        for part, choice in zip(self.mask, action, strict=True):
            if not part[choice]:
                raise ValueError(f"{choice} is illegal")
        self.time += 1
        observation, info = self._answer()
        return observation, float(action[0]), self.time == 4, False, info

    def _answer(self):
        self.mask = [(self.np_random.permutation(n) < min(self.legal, n - 1)).astype(np.int8) for n in self.parts]
        seen = np.array([self.time / 4], np.float32)
        if self.where == "info":
            return seen, {"action_mask": self.mask[0] if len(self.parts) == 1 else tuple(self.mask)}
        return {"action_mask": np.concatenate(self.mask), "seen": seen}, {}


# --- the definition -------------------------------------------------------------------------------------------------


def test_what_is_not_legal_is_minus_infinity_in_each_part_and_where_nothing_is_legal_everything_is():
    values, mask = np.arange(10.0).reshape(2, 5), np.array([[1, 0, 1, 0, 1], [0, 0, 0, 1, 0]], bool)
    expected = [[0, -np.inf, 2, -np.inf, 4], [5, 6, 7, 8, -np.inf]]
    np.testing.assert_array_equal(masks.legal(jnp.asarray(values), jnp.asarray(mask), (3, 2)), expected)
    assert masks.legal(values, None) is values
    assert masks.of({"x": 1}) is None
    assert masks.of(np.ones(2)) is None
    np.testing.assert_array_equal(masks.of({"action_mask": np.array([0.0, 1.0])}), [False, True])


@pytest.mark.parametrize(("space", "sizes"), [(CHOICES, (4,)), (SIDE_BY_SIDE, (3, 2))])
def test_a_masked_distribution_is_the_one_over_what_is_left(space, sizes):
    mask = jnp.asarray([True, False, True, True, False][: sum(sizes)])
    logits = jnp.asarray([0.3, 5.0, -1.0, 0.2, 9.0][: sum(sizes)])
    legal, illegal = (jnp.asarray(x if len(sizes) > 1 else x[0]) for x in ([0, 0], [1, 0]))

    @jax.jit
    def looked_at(logits):
        many = Head.of(space)(*(jnp.broadcast_to(x, (4_000, sum(sizes))) for x in (logits, mask)))
        one = Head.of(space)(logits, mask)
        numbers = one.entropy(), one.mode(), one.log_prob(legal), one.log_prob(illegal)
        loss = lambda x: Head.of(space)(x, mask).log_prob(legal) + Head.of(space)(x, mask).entropy()  # noqa: E731
        return many.sample(jax.random.key(0)), numbers, jax.grad(loss)(logits)

    sampled, (found, mode, of_legal, of_illegal), gradient = jax.tree.map(np.asarray, looked_at(logits))
    entropy, begin, sampled = 0.0, 0, sampled.reshape(4_000, -1)
    for i, n in enumerate(sizes):
        left = np.flatnonzero(mask[begin : begin + n])
        p = np.exp(np.asarray(logits, np.float64)[begin + left])
        p /= p.sum()
        entropy -= (p * np.log(p)).sum()
        counts = np.bincount(sampled[:, i], minlength=n) / 4_000
        assert set(np.flatnonzero(counts)) <= set(left)
        np.testing.assert_allclose(counts[left], p, atol=0.03)
        begin += n
    np.testing.assert_allclose(found, entropy, rtol=1e-5)
    assert np.isneginf(of_illegal)
    assert np.isfinite(of_legal)
    assert mode.ravel()[0] == 0
    assert np.isfinite(gradient).all()
    assert (gradient[~np.asarray(mask)] == 0).all()
    assert (gradient != 0).any()


def test_random_actions_are_uniform_over_what_is_legal():
    mask = jnp.broadcast_to(jnp.asarray([True, False, True, True]), (6_000, 4))
    actions = np.asarray(uniform_action(CHOICES, jax.random.key(0), 6_000, mask))
    np.testing.assert_allclose(np.bincount(actions, minlength=4) / 6_000, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.03)
    assert actions.dtype == np.int32
    mask = jnp.broadcast_to(jnp.asarray([False, True, True, True, False]), (6_000, 5))
    pairs = np.asarray(uniform_action(SIDE_BY_SIDE, jax.random.key(0), 6_000, mask))
    np.testing.assert_allclose(np.bincount(pairs[:, 0], minlength=3) / 6_000, [0, 0.5, 0.5], atol=0.03)
    assert (pairs[:, 1] == 0).all()
    assert pairs.shape == (6_000, 2)
    assert pairs.dtype == np.int32


def steps_of(draw, n=16):
    """Transitions [1, n] whose masks allow two of four actions, and after the last step of an episode none."""
    ended = np.arange(n) % 4 == 1

    def seen(some=1):
        allowed = np.stack([draw.permutation(4) < 2 for _ in range(n)]).astype(np.int8)
        return {"action_mask": (allowed * some)[None], "x": draw.normal(size=(1, n, 3)).astype(np.float32)}

    observation, following = seen(), seen(~ended[:, None])
    action = observation["action_mask"].argmax(-1).astype(np.int32)
    reward = draw.normal(size=(1, n)).astype(np.float32)
    return Transition(observation, action, reward, ended[None], np.zeros((1, n), bool), following, {})


@pytest.mark.parametrize("double", [True, False])
def test_dqn_believes_in_no_illegal_action(double):
    algorithm = dataclasses.replace(DQN, double=double, memory=td.Replay(100, 16), gamma=0.9)
    state = algorithm.init(jax.random.key(0), observed(), CHOICES)
    state = state._replace(target_network=algorithm.init(jax.random.key(1), observed(), CHOICES).network)
    steps = steps_of(np.random.default_rng(0))
    update = jax.jit(lambda *given: algorithm.update(*given)[2])
    error = update(state, Batch(steps, jnp.ones(16), jnp.arange(16)), jnp.float32(0), jax.random.key(0))
    following = jax.tree.map(lambda x: x[0], steps.next_observation)
    online, target = (np.asarray(net(following), np.float64) for net in (state.network, state.target_network))
    q = np.asarray(state.network(jax.tree.map(lambda x: x[0], steps.observation)), np.float64)
    for b in range(16):
        allowed = np.flatnonzero(following["action_mask"][b])
        value = 0.0
        if not steps.terminated[0, b]:
            value = target[b, max(allowed, key=lambda a, b=b: (online if double else target)[b, a])]
        expected = abs(steps.reward[0, b] + 0.9 * value - q[b, steps.action[0, b]])
        np.testing.assert_allclose(error[0, b], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["ppo", "reinforce", *(pytest.param(n, marks=pytest.mark.full) for n in ("a2c", "impala"))]
)
def test_policy_gradients_are_those_of_the_masked_policy(name):
    """PPO finds the probabilities that it acted with; REINFORCE's gradient does not touch what was illegal."""
    algorithm, environment = dataclasses.replace(ALL[name], ent_coef=0.1), MaskedChoice()
    world = Vectorized(environment, 4)

    @jax.jit
    def acted_and_learned(key):
        state = algorithm.init(key, environment.observation_space, environment.action_space)
        env_state, observation = world.reset(key)
        actor = Actor(env_state, observation, algorithm.initial_carry(4), jnp.zeros(4, bool))
        policy, length = algorithm.policy(state, jnp.float32(0)), algorithm.rollout_length
        _, steps = compiled.unroll(algorithm, world, policy, actor, key, length)
        rows = algorithm.prepare(state, steps)[0] if name in ("ppo", "a2c") else steps
        more = {"ppo": (0.2,), "impala": (jnp.ones(4),)}.get(name, ())
        gradient, metrics = jax.grad(algorithm.loss, has_aux=True)(state.parameters, rows, *more)
        metrics = metrics[0] if name == "impala" else metrics
        return steps, metrics, gradient.network.biases[-1][:20]

    steps, metrics, gradient = jax.tree.map(np.asarray, acted_and_learned(jax.random.key(0)))
    mask = steps.observation["action_mask"].astype(bool)
    assert np.take_along_axis(mask, steps.action[..., None], -1).all()
    assert metrics["entropy"] < np.log(5) + 1e-5  # over five actions, not twenty
    if name == "ppo":
        assert abs(metrics["kl"]) < 1e-6
        assert metrics["clip_fraction"] == 0
    never = ~mask.any((0, 1))
    assert np.isfinite(gradient).all()
    assert (gradient[never] == 0).all()
    assert (gradient[~never] != 0).all()


def test_normalisation_leaves_a_mask_as_it_is_whatever_its_numbers():
    space = observed(spaces.Box(0, 1, (4,), np.float32))
    statistics = normalization.begin(dataclasses.replace(PPO, normalize_observations=True), space)
    assert [x.shape for x in statistics.observations.mean] == [(3,)]
    batch = {"action_mask": np.eye(4, dtype=np.float32)[:2], "x": np.array([[1, 2, 3], [3, 2, 1]], np.float32)}
    moments = normalization.update(statistics.observations, batch)
    seen = normalization.normalize(moments, batch)
    np.testing.assert_array_equal(seen["action_mask"], batch["action_mask"])
    assert not np.array_equal(seen["x"], batch["x"])
    assert list(seen) == ["x", "action_mask"]


def test_an_export_is_held_against_the_agent_on_masks_that_are_some():
    space = observed(spaces.Box(0, 1, (4,), np.float32))
    moments = normalization.Moments(jnp.uint32(9), (np.full(3, 0.5, np.float32),), (np.full(3, 1e-8, np.float32),))
    drawn = draw(space, moments, np.random.default_rng(0), 50)
    assert set(np.unique(drawn["action_mask"])) == {0, 1}
    np.testing.assert_allclose(drawn["x"], 0.5, atol=0.1)


def test_a_network_of_ones_own_sees_the_observation_beside_the_mask():
    shapes = []

    def apply(parameters, x):
        shapes.append(jax.tree.map(np.shape, x))
        return x.reshape(len(x), -1) @ parameters

    pair = (lambda key, x, outputs: jnp.ones((x[0].size, outputs)), apply)
    image = spaces.Box(0, 255, (4, 4, 3), np.uint8)
    alone = spaces.Dict(action_mask=spaces.MultiBinary(4), observation=image)
    for space, shape in ((alone, (4, 4, 3)), (observed(rest=image), (48,))):
        dataclasses.replace(DQN, network=pair).init(jax.random.key(0), space, CHOICES)
        assert shapes[-1][1:] == shape


# --- whole runs -----------------------------------------------------------------------------------------------------


RUNS = [("dqn", "info"), ("ppo", "observation"), ("reinforce", "observation")]
RUNS += [pytest.param(name, "observation", marks=pytest.mark.full) for name in list(ALL)[3:]]


@pytest.mark.parametrize(("name", "where"), RUNS)
def test_a_run_takes_no_illegal_action(name, where):
    """In warm-up, at random, in training and in evaluation: the environment would raise."""
    arguments = {"where": where} | ({"mask_from_info": True} if where == "info" else {})
    run = td.train(
        ALL[name], Strict, steps=600, environment_arguments=arguments, evaluate_every=300, quiet=True, run_dir=None
    )
    assert run.evaluate(3)["unfinished"] == 0
    environment = Strict(where)
    observation, info = environment.reset(seed=0)
    seen = observation if where == "observation" else {"observation": observation, **info}
    for explore in (False, True):
        assert environment.mask[0][run.agent.act(seen, explore=explore) - 3]


def test_choices_side_by_side_have_a_mask_each_and_a_memory_goes_with_them():
    recurrent = dataclasses.replace(REINFORCE, network=td.GRU(4), baseline_network=None)
    environment = partial(Strict, "info", SIDE_BY_SIDE, (3, 2), 2)
    td.train(
        recurrent, environment, steps=300, environment_arguments={"mask_from_info": True}, evaluate_every=0,
        quiet=True, run_dir=None,
    )  # fmt: skip


def test_a_learner_in_a_loop_of_ones_own_honours_it():
    environment = Strict()
    learner = td.Learner(DQN, environment.observation_space, environment.action_space, steps=600)
    observation, _ = environment.reset(seed=0)
    for _ in range(400):
        observation, reward, terminated, truncated, _ = environment.step(learner.act(observation))
        learner.observe(reward, observation, terminated, truncated)
        if terminated:
            observation, _ = environment.reset()


def test_a_run_whose_masks_are_from_info_is_resumed_bit_for_bit_and_evaluated_elsewhere(tmp_path):
    arguments = {"where": "info", "mask_from_info": True}
    options = {"environment_arguments": arguments, "quiet": True, "evaluate_every": 0}
    whole = td.train(REINFORCE, Strict, steps=384, run_dir=tmp_path / "whole", **options)
    td.train(
        REINFORCE, Strict, steps=384, run_dir=tmp_path / "cut", checkpoint_every=192, **options,
        on_chunk=lambda chunk: chunk.stop() if chunk.steps >= 192 else None,
        evaluation_environment=lambda: Strict("info", legal=3),
    )  # fmt: skip
    run = td.resume(tmp_path / "cut", environment=Strict, evaluation_environment=lambda: Strict("info"), quiet=True)
    for one, other in zip(*(jax.tree.leaves(each.agent.state) for each in (whole, run)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert run.evaluate(2)["episodes"] == 2


def reached(algorithm, environment, steps, seeds):
    """The greedy return of each of several seeds."""
    run = td.train(algorithm, environment, steps=steps, seeds=seeds, quiet=True, run_dir=None, evaluate_every=0)
    return run.evaluate(500)["per_seed"]


@pytest.mark.full
@pytest.mark.parametrize("name", ALL)
def test_the_optimum_of_twenty_actions_of_which_fifteen_are_illegal_is_reached(name):
    wide = {"network": td.MLP((64,), activation="tanh"), "learning_rate": 3e-3, "gamma": 0.9, "num_environments": 8}
    changes = {
        "dqn": {"warmup_steps": 1_000, "updates_per_rollout": 8, "rollout_length": 8, "memory": td.Replay(20_000, 64)},
        "ppo": {"rollout_length": 64, "batch_size": 128, "epochs": 4, "learning_rate_end": 0.0},
        "reinforce": {"rollout_length": 64, "learning_rate_end": 0.0},
        "a2c": {"rollout_length": 16, "learning_rate_end": 0.0},
        "pqn": {"rollout_length": 32, "batch_size": 64, "epsilon_end": 0.02, "q_lambda": 0.3},
        "trpo": {"rollout_length": 64, "batch_size": 64, "epochs": 5, "max_kl": 0.03},
        "impala": {"rollout_length": 16, "learning_rate_end": 0.0},
        "discretesac": {
            "warmup_steps": 1_000,
            "updates_per_rollout": 8,
            "rollout_length": 8,
            "memory": td.Replay(20_000, 64),
            "ent_coef": 0.01,
        },
    }[name]
    algorithm = dataclasses.replace(ALL[name], **wide | changes)
    off_policy, long = {"dqn": 60_000, "discretesac": 60_000}, {"reinforce": 400_000, "a2c": 400_000, "impala": 400_000}
    steps = (off_policy | long).get(name, 200_000)
    for mean in reached(algorithm, MaskedChoice(), steps, seeds=3):
        assert mean >= 0.95 * MaskedChoice().optimal_return


class SideBySide:
    """The probe twice, each choice with a mask of its own: what both earn on average."""

    one, max_steps = MaskedChoice(choices=6, legal=2), None
    observation_space = spaces.Dict(
        action_mask=spaces.MultiBinary(12), observation=spaces.Box(-np.inf, np.inf, (10,), np.float32)
    )
    action_space = spaces.MultiDiscrete([6, 6])

    def initial(self, key):
        return tuple(map(self.one.initial, jax.random.split(key)))

    def observe(self, states):
        seen = [self.one.observe(state) for state in states]
        return {name: jnp.concatenate([x[name] for x in seen]) for name in seen[0]}

    def transition(self, states, action, key):
        keys = jax.random.split(key)
        moved = [self.one.transition(states[i], action[i], keys[i]) for i in range(2)]
        reward = (moved[0][1] + moved[1][1]) / 2
        return (moved[0][0], moved[1][0]), jnp.where(reward < 0, -1e9, reward), moved[0][2]  # one is seen in any mean


@pytest.mark.parametrize("name", ["a2c", *(pytest.param(n, marks=pytest.mark.full) for n in ("ppo", "trpo", "impala"))])
def test_of_choices_side_by_side_none_illegal_is_taken(name):
    run = td.train(ALL[name], SideBySide(), steps=640, quiet=True, run_dir=None, evaluate_every=0)
    assert min(run.metrics["return_mean"]) > 0
    assert run.evaluate(20)["mean"] > 0


@pytest.mark.full
@pytest.mark.parametrize("name", ["ppo", "a2c", "trpo", "impala"])
def test_the_optimum_of_choices_side_by_side_is_reached(name):
    changes = {"rollout_length": 16, "learning_rate": 3e-3, "gamma": 0.9, "num_environments": 8}
    changes |= {"trpo": {"rollout_length": 64, "max_kl": 0.03, "epochs": 5}, "ppo": {"rollout_length": 64}}.get(
        name, {}
    )
    algorithm = dataclasses.replace(ALL[name], network=td.MLP((64,), activation="tanh"), **changes)
    for mean in reached(algorithm, SideBySide(), 300_000, seeds=3):
        assert mean >= 0.95 * SideBySide.one.optimal_return


@pytest.mark.full
def test_taxi_is_solved_by_the_mask_in_its_info():
    recorded = settings.RECORDED["ppo", "Taxi-v4"]
    taxi = next(name for name in ("Taxi-v4", "Taxi-v3") if name in gymnasium.registry)
    for seed in range(3):
        run = td.train(
            recorded.algorithm, taxi, steps=recorded.steps, seed=seed, run_dir=None, evaluate_every=0,
            environment_arguments={"mask_from_info": True}, quiet=True,
        )  # fmt: skip
        assert run.evaluate(200)["mean"] >= 7.5  # the optimum is 7.9 on average


# --- what cannot be meant -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observations", "actions", "says"),
    [
        (observed(4), spaces.Box(-1, 1, (4,), np.float32), "action_mask needs Discrete or MultiDiscrete actions"),
        (observed(3), CHOICES, r"must be of shape \(4,\), one for each choice"),
        (observed(spaces.MultiBinary((2, 3))), SIDE_BY_SIDE, r"must be of shape \(5,\)"),
        (
            spaces.Dict(a=observed(4)),
            CHOICES,
            r"must stand at the top of a Dict observation, here it is a\.action_mask",
        ),
        (spaces.Tuple([observed(4)]), CHOICES, r"here it is 0\.action_mask"),
    ],
)
def test_a_mask_that_cannot_be_honoured_is_refused(observations, actions, says):
    fitting = [td.PPO(), td.REINFORCE()] + [td.DQN()] * isinstance(actions, spaces.Discrete)
    fitting = [td.PPO(), td.SAC(), td.TD3(), td.DDPG()] if isinstance(actions, spaces.Box) else fitting
    for algorithm in fitting:
        with pytest.raises(UnsuitableError, match=says):
            algorithm.check(observations, actions)


def test_by_hand_any_numbers_do_as_a_mask_and_one_that_allows_nothing_is_refused():
    algorithm, space = dataclasses.replace(REINFORCE, baseline_network=None), observed()
    agent = Agent(algorithm, algorithm.init(jax.random.key(0), space, CHOICES), space, CHOICES)
    for kind in (bool, np.int8, np.int64, np.float64):
        assert agent.act({"action_mask": np.array([0, 0, 1, 0], kind), "x": np.zeros(3, np.float32)}) == 2
    for mask in ([0, 0, 0, 0], [2, 0, 0, 0], [0, 1, 0]):
        with pytest.raises(ValueError, match=r"no action is legal|got \[2, 0, 0, 0\]|expected int\[4\]"):
            agent.act({"action_mask": np.array(mask), "x": np.zeros(3, np.float32)})


class Stuck(Strict):
    """After its first step nothing is legal, and the episode goes on."""

    def step(self, action):
        self.time, self.mask = 1, [np.zeros(20, np.int8)]
        return {"action_mask": self.mask[0], "seen": np.zeros(1, np.float32)}, 0.0, False, False, {}


def test_masks_that_hold_no_mask_are_faults():
    with pytest.raises(ValueError, match="expected 1 for what is legal, 0 for the rest, got"):
        plain(observed(spaces.Box(0, 1, (4,), np.float32)), {"action_mask": np.full(4, 0.5), "x": np.zeros(3)})
    with pytest.raises(EnvironmentFault, match="no action is legal, action_mask is"):
        make(Strict, 2, legal=0).reset(jax.random.key(0))
    copies = make(Stuck, 1)
    copies.reset(jax.random.key(0))
    with pytest.raises(EnvironmentFault, match="step 1: no action is legal, action_mask is"):
        copies.step((), np.zeros(1, np.int32))


class Forgetful(Strict):
    """Gives its masks for so many steps."""

    def __init__(self, until):
        super().__init__("info")
        self.until = until

    def _answer(self):
        observation, info = super()._answer()
        return observation, info if self.time < self.until else {}


def test_a_mask_may_be_missing_after_the_last_step_and_only_there():
    copies = make(Forgetful, 1, until=4, mask_from_info=True)
    _, observation = copies.reset(jax.random.key(0))
    for _ in range(9):
        action = observation["action_mask"].argmax(-1).astype(np.int32)
        _, answer = copies.step((), action)
        observation = answer.observation
        if answer.terminated[0]:
            assert not answer.next_observation["action_mask"].any()
            assert observation["action_mask"].any()
    copies = make(Forgetful, 1, until=2, mask_from_info=True)
    _, observation = copies.reset(jax.random.key(0))
    action = observation["action_mask"].argmax(-1).astype(np.int32)
    observation = copies.step((), action)[1].observation
    with pytest.raises(EnvironmentFault, match=r"step 2: .*info has no 'action_mask'"):
        copies.step((), observation["action_mask"].argmax(-1).astype(np.int32))


def test_the_flag_is_said_where_it_helps_and_refused_where_it_cannot():
    with pytest.warns(UserWarning, match="info holds an action_mask, of which no use is made"):
        make(Strict, 1, where="info").reset(jax.random.key(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(Strict, 1, where="info", mask_from_info=True).reset(jax.random.key(0))
        make(Strict("info"), 1, mask_from_info=True).reset(jax.random.key(0))
    with pytest.raises(SettingError, match="CartPole-v1 is compiled and has no info"):
        make("CartPole-v1", 1, mask_from_info=True)
    with pytest.raises(SettingError, match="mask_from_info must be True or False, got 'yes'"):
        make(Strict, 1, mask_from_info="yes")
    with pytest.raises(UnsuitableError, match="hold an action_mask already"):
        make(Strict, 1, mask_from_info=True)
    with pytest.raises(UnsuitableError, match="mask_from_info needs Discrete or MultiDiscrete actions"):
        make("gymnasium:Pendulum-v1", 1, mask_from_info=True)


def test_the_probe_is_what_it_says():
    probe = MaskedChoice()
    assert probe.optimal_return == pytest.approx(3.5)
    world = Vectorized(probe, 512)
    step = jax.jit(world.step)
    state, observation = jax.jit(world.reset)(jax.random.key(0))
    assert (np.asarray(observation["action_mask"]).sum(-1) == 5).all()
    way, numbers = np.asarray(observation["observation"])[:, :1], np.arange(1, 21)
    worth = np.where(way > 0, numbers, numbers[::-1]) / 20
    best = np.where(observation["action_mask"], worth, 0)
    _, answer = step(state, jnp.asarray(best.argmax(-1), jnp.int32), jax.random.key(1))
    np.testing.assert_allclose(answer.reward, best.max(-1), rtol=1e-6)
    assert answer.reward.mean() == pytest.approx(3.5 / 4, abs=0.02)
    illegal = np.asarray(observation["action_mask"]).argmin(-1).astype(np.int32)
    _, answer = step(state, jnp.asarray(illegal), jax.random.key(1))
    assert (answer.reward == -100).all()
