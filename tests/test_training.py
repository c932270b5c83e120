"""What training promises: the same run in every mode, however it is cut, stopped, resumed or accompanied."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import subprocess
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import thorndike as td
from thorndike import core, trainer
from thorndike.algorithms.bootstrapped_dqn import BootstrappedDQN
from thorndike.algorithms.dqn import DQN
from thorndike.algorithms.iqn import IQN
from thorndike.algorithms.ppo import PPO
from thorndike.algorithms.qrdqn import QRDQN
from thorndike.algorithms.rainbow import Rainbow
from thorndike.algorithms.reinforce import REINFORCE
from thorndike.algorithms.sac import SAC
from thorndike.algorithms.td3 import DDPG, TD3
from thorndike.environments import make
from thorndike.errors import EnvironmentFault, SettingError
from thorndike.hyperparameters import hyperparameters
from thorndike.intrinsic import RND, Counts
from thorndike.memories import Prioritized, Replay
from thorndike.networks import MLP

SMALL = MLP((16,), activation="tanh", initialization="default")
DROPPING, LAYERS = dataclasses.replace(SMALL, dropout=0.1, layer_norm=True), td.RenormalizedMLP((16,))
NORMALIZED = {"normalize_observations": True, "normalize_rewards": True}
OFF_POLICY = {
    "network": SMALL, "critic_network": SMALL, "warmup_steps": 40, "num_environments": 2, "rollout_length": 3,
    "updates_per_rollout": 2,
}  # fmt: skip
ALGORITHMS = {
    "dqn": DQN(
        network=SMALL, memory=Replay(500, 16), warmup_steps=40, num_environments=2, rollout_length=3,
        updates_per_rollout=2,
    ),
    "dqn n-step prioritized": DQN(
        network=SMALL, memory=Prioritized(500, 16, window=3), warmup_steps=40, num_environments=2, rollout_length=3,
        updates_per_rollout=2, **NORMALIZED,
    ),
    "bootstrapped dqn": BootstrappedDQN(
        network=SMALL, memory=Replay(500, 16), warmup_steps=40, num_environments=2, rollout_length=3,
        updates_per_rollout=2, num_heads=3, mask_probability=0.5,
    ),
    "ppo": PPO(
        network=SMALL, critic_network=SMALL, num_environments=2, rollout_length=16, batch_size=8, epochs=2,
        **NORMALIZED, target_kl=0.05,
    ),
    "dqn counts": DQN(
        network=SMALL, memory=Replay(500, 16), warmup_steps=40, num_environments=2, rollout_length=3,
        updates_per_rollout=2, intrinsic=Counts(bits=6),
    ),
    "ppo rnd": PPO(
        network=SMALL, critic_network=SMALL, num_environments=2, rollout_length=16, batch_size=8, epochs=2,
        intrinsic=RND(network=SMALL, features=4),
    ),
    "reinforce": REINFORCE(network=SMALL, baseline_network=SMALL, num_environments=2, rollout_length=16, **NORMALIZED),
    "sac": SAC(**OFF_POLICY, memory=Replay(500, 16)),
    "sac n-step prioritized": SAC(**OFF_POLICY, **NORMALIZED, memory=Prioritized(500, 16, window=3)),
    "td3": TD3(**OFF_POLICY, memory=Replay(500, 16)),
    "fasttd3": td.FastTD3(**OFF_POLICY, atoms=11, memory=Replay(500, 16)),
    "redq": td.REDQ(**OFF_POLICY, num_critics=3, policy_delay=2, memory=Replay(500, 16)),
    "droq": td.DroQ(**OFF_POLICY | {"critic_network": DROPPING}, policy_delay=2, memory=Replay(500, 16)),
    "tqc": td.TQC(**OFF_POLICY, quantiles=5, policy_delay=1, memory=Replay(500, 16)),
    "sac with smooth noise": SAC(**OFF_POLICY, state_dependent_noise=True, memory=Replay(500, 16)),
    "crossq": td.CrossQ(**OFF_POLICY | {"network": LAYERS, "critic_network": LAYERS}, memory=Replay(500, 15)),
    "ddpg n-step prioritized": DDPG(**OFF_POLICY, **NORMALIZED, memory=Prioritized(500, 16, window=3)),
    "a2c": td.A2C(network=SMALL, num_environments=2, **NORMALIZED),
    "pqn": td.PQN(network=SMALL, num_environments=2, rollout_length=16, batch_size=8, **NORMALIZED),
    "discrete sac": td.DiscreteSAC(**OFF_POLICY, memory=Prioritized(500, 16, window=3)),
    "trpo": td.TRPO(network=SMALL, num_environments=2, rollout_length=16, batch_size=8, epochs=2, **NORMALIZED),
    "impala": td.IMPALA(
        network=SMALL, num_environments=2, memory=Replay(500, 4, sequence=5), updates_per_rollout=2, **NORMALIZED
    ),
}  # fmt: skip
CHOOSING = {"memory": Replay(500, 16), "warmup_steps": 40, "num_environments": 2, "rollout_length": 3,
            "updates_per_rollout": 2}  # fmt: skip
NOISY = dataclasses.replace(SMALL, noisy=True)
ALGORITHMS |= {
    "rainbow": Rainbow(**CHOOSING | {"memory": Prioritized(500, 16, window=3)}, network=NOISY, atoms=5),
    "qrdqn": QRDQN(**CHOOSING, network=SMALL, quantiles=5),
    "iqn, munchausen": IQN(**CHOOSING, network=SMALL, munchausen=True),
}


# Tests of one algorithm follow one another, whose programs they share: other workers compile other ones.
# Those that are another one but for a piece are only resumed every day: it stands for them where only the loop is in
# question.
CHILDREN = (
    "bootstrapped dqn", "redq", "droq", "tqc", "sac with smooth noise", "rainbow", "qrdqn", "iqn, munchausen",
    "dqn counts", "ppo rnd", "fasttd3",
)  # fmt: skip
RELATED = ("a2c", "pqn", "discrete sac", "trpo", "impala")  # these share what they act with and remember with others


def each(*later):
    """All of them, some in `make test-full` alone: those that others stand for."""
    names = [pytest.param(name, marks=pytest.mark.full if name in later else ()) for name in ALGORITHMS]
    return pytest.mark.parametrize("name", names, scope="module")


def environment_of(algorithm, prefix=""):
    """An environment that suits the algorithm."""
    continuous = isinstance(algorithm, SAC | TD3) and not isinstance(algorithm, td.DiscreteSAC)
    return prefix + ("Pendulum-v1" if continuous else "CartPole-v1")


def maker(algorithm, prefix=""):
    return lambda: make(environment_of(algorithm, prefix), algorithm.num_environments)


class OnHost:
    """A compiled environment, stepped from Python one call at a time with the keys of the compiled unroll."""

    compiled = False

    def __init__(self, environment):
        self.environment = environment
        self.num_environments = environment.num_environments
        self.observation_space, self.action_space = environment.observation_space, environment.action_space
        self._step = jax.jit(environment.step)
        self.keys = None

    def reset(self, key):
        self.state, observation = self.environment.reset(key)
        return (), jax.tree.map(np.asarray, observation)

    def step(self, env_state, action, key):
        self.state, outcome = self._step(self.state, action, next(self.keys))
        return (), jax.tree.map(np.asarray, outcome)


def final(algorithm, steps, prefix="", **options):
    """The last chunk's arrays of every seed."""
    arrays = {}
    for chunk in trainer.train(algorithm, maker(algorithm, prefix), steps, **options):
        if chunk.last:
            arrays[chunk.seed] = chunk.arrays()
    return arrays


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@each("qrdqn", "iqn, munchausen", "a2c", "discrete sac", "trpo", "dqn counts")
def test_a_run_resumed_in_the_middle_ends_where_the_uninterrupted_one_does(name):
    algorithm = ALGORITHMS[name]
    per = trainer.steps_per_iteration(algorithm)
    steps, stop = 30 * per, 17
    for chunk in trainer.train(algorithm, maker(algorithm), steps, seed=3, every=[stop]):
        if chunk.iteration == stop:
            saved = chunk.arrays()
        if chunk.last:
            whole = chunk.arrays()
    resumed = final(algorithm, steps, seed=3, resume={3: saved})[3]
    assert_equal(whole, resumed)


def go_on(folder):
    """In a process of its own: every run saved in `folder`, taken to its end; its leaves' digest by file."""
    digests = {}
    for path in sorted(folder.glob("*.npz")):
        name, prefix = path.stem.split("@")
        with np.load(path) as saved:
            arrays = dict(saved)
        steps = 12 * trainer.steps_per_iteration(ALGORITHMS[name])
        digests[path.stem] = digest(final(ALGORITHMS[name], steps, prefix, seed=3, resume={3: arrays})[3])
    return digests


def elsewhere(folder):
    """What a new process is asked for: the runs of `folder` taken to their end, and one begun anew."""
    return go_on(folder), digest(final(ALGORITHMS["dqn"], 120)[0])


def digest(arrays):
    return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


PREFIXES = ("", "gymnasium:", "envpool:")


@pytest.mark.parametrize(
    ("prefix", "names"),
    [("gymnasium:", ["dqn", "ppo"]), *(pytest.param(p, list(ALGORITHMS), marks=pytest.mark.full) for p in PREFIXES)],
)
def test_in_a_new_process_a_resumed_run_ends_where_the_uninterrupted_one_does_and_a_seed_gives_the_same_parameters(
    prefix, names, tmp_path
):
    """E1, on a compiled environment, on Gymnasium's and on EnvPool's; the seed's whole run is a compiled one."""
    whole = {}
    for name in names:
        algorithm = ALGORITHMS[name]
        steps = 12 * trainer.steps_per_iteration(algorithm)
        case = f"{name}@{prefix}"
        for chunk in trainer.train(algorithm, maker(algorithm, prefix), steps, seed=3, every=[8]):
            if chunk.iteration == 8:
                np.savez(tmp_path / f"{case}.npz", **chunk.arrays())
            if chunk.last:
                whole[case] = digest(chunk.arrays())
    anew = digest(final(ALGORITHMS["dqn"], 120)[0])
    assert in_new_process(f"print(json.dumps(t.elsewhere(pathlib.Path({str(tmp_path)!r}))))") == [whole, anew]


def in_new_process(code):
    """What `code`, which has this file as `t`, prints in a fresh process, read as JSON."""
    script = (
        f"import hashlib, json, pathlib, sys; sys.path[:0] = {sys.path!r}\n"
        "from thorndike import trainer; trainer.configure()\n"
        f"import test_training as t\n{code}"
    )
    return json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


@each(*CHILDREN, *RELATED)
def test_nothing_on_the_way_is_not_a_number(name):
    """A8: a whole short run, every intermediate value checked."""
    with jax.debug_nans(True):
        final(ALGORITHMS[name], 20 * trainer.steps_per_iteration(ALGORITHMS[name]))


@hyperparameters
class Keyed(REINFORCE):
    """Remembers the key that each action was chosen with."""

    def act(self, policy, observation, carry, key):
        action, carry, extras = super().act(policy, observation, carry, random.clone(key))
        return action, carry, extras | {"key": jnp.tile(random.key_data(key)[None], (len(action), 1))}


@pytest.mark.parametrize("prefix", ["", "gymnasium:"])
def test_an_iteration_acts_with_keys_of_the_runs_key_and_its_own_number(prefix):
    """None of them the start's, and no two iterations or steps alike."""
    algorithm, seen = Keyed(network=SMALL, baseline_network=None, num_environments=2, rollout_length=3), []
    for chunk in trainer.train(algorithm, maker(algorithm, prefix), 18, seed=4, every=[1]):
        seen.append(np.asarray(chunk.progress.memory.extras["key"])[:, 0])
    expected = []
    for iteration in range(3):
        unroll_key = random.split(random.fold_in(trainer.keys_of(4)[1], iteration))[0]
        expected.append([random.key_data(random.fold_in(random.fold_in(unroll_key, t), 0)) for t in range(3)])
    np.testing.assert_array_equal(seen, expected)


class Noting:
    """Memory and algorithm in one, whose state is the keys that it was given."""

    updates_per_rollout = 3
    memory = property(lambda self: self)

    def sample(self, memory, key, fraction):
        return random.key_data(key)

    def update(self, state, batch, fraction, key):
        keys, count = state
        return (keys.at[count].set(jnp.stack([batch, random.key_data(key)])), count + 1), {}, ()

    def feedback(self, memory, batch, feedback):
        return memory


def test_every_update_of_a_rollout_draws_and_learns_with_keys_of_its_own():
    first = jnp.zeros((3, 2, 2), jnp.uint32), 0
    (keys, count), _, _ = core.improve(Noting(), first, (), jnp.float32(0), random.key(0))
    assert count == 3
    assert len(np.unique(np.asarray(keys).reshape(6, 2), axis=0)) == 6


def test_every_program_is_compiled_once_over_a_run_with_a_shorter_last_chunk_and_evaluations(caplog):
    algorithm = dataclasses.replace(ALGORITHMS["dqn"], gamma=0.93, network=MLP((7,)))
    steps = 43 * trainer.steps_per_iteration(algorithm)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        td.train(
            algorithm, "CartPole-v1", steps, evaluate_every=steps // 4, evaluate_episodes=3, final_episodes=20,
            run_dir=None, quiet=True,
        )  # fmt: skip
    compiled = re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text)
    counts = {name: compiled.count(name) for name in ("_begin", "_advance", "_reset", "_compiled_unroll", "_greedy")}
    assert counts == {"_begin": 1, "_advance": 2, "_reset": 1, "_compiled_unroll": 1, "_greedy": 1}  # 2: warm-up too


@each(*CHILDREN, *RELATED)
def test_a_run_does_not_depend_on_how_it_is_cut_into_chunks(name):
    algorithm = ALGORITHMS[name]
    steps = 30 * trainer.steps_per_iteration(algorithm)
    assert_equal(final(algorithm, steps)[0], final(algorithm, steps, every=[4, 7])[0])


# The other SAC remembers more, and DDPG is TD3 with other settings.
@each("sac", "crossq", "ddpg n-step prioritized", *CHILDREN, *RELATED)
def test_the_compiled_and_the_host_loop_are_the_same_run(name):
    """D6: what is remembered is equal bit for bit, what is learned to rounding."""
    algorithm = ALGORITHMS[name]
    environment = make(environment_of(algorithm), algorithm.num_environments)
    total = np.float32(100)
    _, key, _ = trainer.keys_of(5)
    arrays = trainer.as_arrays(algorithm)
    compiled_progress = trainer._begin(arrays, environment, trainer.keys_of(5)[0])
    host_progress = jax.tree.map(jnp.copy, compiled_progress)
    twin = OnHost(environment)
    twin.state = host_progress.actor.env_state
    actor = jax.tree.map(np.asarray, host_progress.actor._replace(env_state=()))
    host_progress = host_progress._replace(actor=None)
    warmup = -(-algorithm.warmup_steps // trainer.steps_per_iteration(algorithm))
    for i in range(warmup + 10):
        warming = i < warmup
        compiled_progress = trainer._advance(arrays, environment, compiled_progress, key, total, np.int32(1), warming)
        policy, unroll_key, learn_key = trainer._plan(arrays, host_progress, key, total)
        twin.keys = (jax.random.fold_in(jax.random.fold_in(unroll_key, t), 1) for t in range(algorithm.rollout_length))
        actor, trajectory = trainer.host.unroll(
            arrays, twin, policy, actor, unroll_key, algorithm.rollout_length, uniform=warming
        )
        host_progress, _ = trainer._conclude_and_plan(arrays, host_progress, trajectory, learn_key, key, total, warming)
    # jitted alone or inside a loop, an environment's own arithmetic may differ in the last bit
    for a, b in zip(jax.tree.leaves(compiled_progress.memory), jax.tree.leaves(host_progress.memory), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(compiled_progress.state), jax.tree.leaves(host_progress.state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_a_seed_among_others_is_the_seed_alone(name):
    algorithm = ALGORITHMS[name]
    steps = 20 * trainer.steps_per_iteration(algorithm)
    together = final(algorithm, steps, seed=1, seeds=3, parallel="threads")
    assert sorted(together) == [1, 2, 3]
    assert_equal(together[2], final(algorithm, steps, seed=2)[2])
    assert not np.array_equal(together[1]["episodes/returns"], together[2]["episodes/returns"])


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_seeds_under_vmap_are_the_seeds_alone_to_rounding(name):
    if name == "dqn" and jax.config.jax_debug_key_reuse:
        pytest.skip("JAX's check takes any scan over split keys under vmap for a second use")
    algorithm = ALGORITHMS[name]
    steps = (10 + algorithm.warmup_steps // trainer.steps_per_iteration(algorithm)) * (
        trainer.steps_per_iteration(algorithm)
    )
    together = final(algorithm, steps, seed=1, seeds=2, parallel="vmap")
    alone = final(algorithm, steps, seed=2)[2]
    for leaf in alone:
        if leaf.startswith("state/"):
            np.testing.assert_allclose(together[2][leaf], alone[leaf], rtol=1e-5, atol=1e-5, err_msg=leaf)


def test_three_learning_rates_cost_one_compilation_and_each_reaches_the_optimiser():
    algorithm = ALGORITHMS["reinforce"]
    first = final(algorithm, 64)[0]
    compilations = trainer._advance._cache_size()
    others = [final(dataclasses.replace(algorithm, learning_rate=rate), 64)[0] for rate in (1e-2, 0.0)]
    assert trainer._advance._cache_size() == compilations
    weights = next(name for name in first if name.startswith("state/parameters/network"))
    assert len({arrays[weights].tobytes() for arrays in (first, *others)}) == 3


def test_steps_are_counted_on_the_host_and_beyond_32_bits():
    algorithm = ALGORITHMS["reinforce"]
    chunk = next(trainer.train(algorithm, maker(algorithm), 2**36))
    assert chunk.total_steps == 2**36
    assert chunk.steps == chunk.iteration * 32


@pytest.mark.parametrize("copies", [1, 3, pytest.param(8, marks=pytest.mark.full)])
def test_environment_steps_equal_reported_steps_and_rows_cover_every_episode(copies):
    """A7 and D4: with totals that no rollout divides."""
    algorithm = dataclasses.replace(ALGORITHMS["reinforce"], num_environments=copies)
    rows, episodes = [], 0
    for chunk in trainer.train(algorithm, maker(algorithm), 1001):
        assert chunk.steps == chunk.iteration * 16 * copies
        if chunk.row:
            rows.append(chunk.row)
        last = chunk
    assert last.steps == -(-1001 // (16 * copies)) * 16 * copies
    counted = last.progress.episodes
    episodes = sum(row["episodes"] for row in rows)
    assert episodes == int(counted.finished)
    finished_steps = sum(row["episodes"] * row.get("episode_length_mean", 0) for row in rows)
    assert round(finished_steps) + int(counted.length.sum()) == last.steps
    returns, lengths = last.recent
    np.testing.assert_array_equal(returns, lengths)  # CartPole's reward is 1


def test_a_value_that_is_not_finite_stops_a_compiled_run_with_its_place():
    algorithm = dataclasses.replace(ALGORITHMS["reinforce"], rollout_length=4)
    with pytest.raises(EnvironmentFault, match=r"seed 0, copy 1, in rollout 2 at its step 3"):
        for _ in trainer.train(algorithm, lambda: Breaking(make("CartPole-v1", 2)), 1000):
            pass


@dataclasses.dataclass(frozen=True)
class Breaking:
    """Copy 1 gives NaN as its twelfth reward."""

    environment: object
    compiled = True
    num_environments = 2
    max_steps = None

    def close(self):
        pass

    @property
    def observation_space(self):
        return self.environment.observation_space

    @property
    def action_space(self):
        return self.environment.action_space

    def reset(self, key):
        state, observation = self.environment.reset(key)
        return (state, jnp.int32(0)), observation

    def step(self, env_state, action, key):
        state, count = env_state
        state, step = self.environment.step(state, action, key)
        reward = step.reward.at[1].add(jnp.where(count == 11, jnp.nan, 0))
        return (state, count + 1), step._replace(reward=reward)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if "prioritized" in name])
def test_every_step_is_known_once_to_what_normalises_warming_up_included(name):
    algorithm = ALGORITHMS[name]
    *_, last = trainer.train(algorithm, maker(algorithm), 90)
    ring, (moments, scale) = last.progress.memory, last.progress.state.statistics
    steps = jax.tree.map(lambda x: np.asarray(x)[: int(ring.size)], ring.steps)
    seen = steps.observation.reshape(90, -1)
    assert moments.seen == scale.returns.seen == 90
    np.testing.assert_allclose(moments.mean[0], seen.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moments.variance[0], seen.var(0), rtol=1e-4)
    running, returns = np.zeros(2), []
    for reward, terminated, truncated in zip(steps.reward, steps.terminated, steps.truncated, strict=True):
        returns.append(algorithm.gamma * running + reward)
        running = np.where(terminated | truncated, 0, returns[-1])
    np.testing.assert_allclose(scale.returns.variance[0], np.var(returns), rtol=1e-4)


class Forgetful(gymnasium.Env):
    """An endless environment whose observations no seed repeats: a copy that is restored begins anew."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.random.default_rng().normal(size=2).astype(np.float32), {}

    def step(self, action):
        return self.reset()[0], 1.0, False, False, {}


def test_no_stored_window_and_no_running_return_joins_the_episodes_around_a_restart():
    algorithm = ALGORITHMS["dqn n-step prioritized"]

    def run(resume=None):
        return trainer.train(algorithm, lambda: make(Forgetful, 2), 60, every=(5,), resume=resume)

    saved = next(chunk.arrays() for chunk in run() if chunk.iteration == 5)
    *_, last = run({0: saved})
    ring = last.progress.memory
    steps = jax.tree.map(lambda x: np.asarray(x)[: int(ring.size)], ring.steps)  # [30, 2]
    joined = (steps.next_observation[:-1] == steps.observation[1:]).all(-1)
    np.testing.assert_array_equal(joined, ~steps.truncated[:-1])
    assert np.argwhere(~joined).tolist() == [[14, 0], [14, 1]]
    running = sum(np.float64(algorithm.gamma) ** k for k in range(15))  # of the 15 steps since
    np.testing.assert_allclose(last.progress.state.statistics.rewards.running, running, rtol=1e-5)


@pytest.mark.parametrize(("steps", "seed"), [(0, 0), (10, -1), (10, 2**31)])
def test_impossible_runs_are_refused(steps, seed):
    with pytest.raises(SettingError):
        next(trainer.train(ALGORITHMS["reinforce"], maker(ALGORITHMS["reinforce"]), steps, seed=seed))
