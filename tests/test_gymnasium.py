"""Gymnasium environments: the same transitions as single ones, known seeds, exact return, and nothing bad let in."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from jax import random

from strategies import broken_environments, canonical_actions, play_as_told
from thorndike import episodes
from thorndike.environments import make, name_of, repeating
from thorndike.environments.copies import Copies
from thorndike.environments.gymnasium import episode_seed
from thorndike.errors import (
    CorruptCheckpointError,
    EnvironmentFault,
    SettingError,
    Terminated,
    UnsuitableError,
)
from thorndike.spaces import to_real

CLASSIC = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0"]


def play(environment, actions):
    """Every Step of the actions [T, N, ...], as one with leaves [T, N, ...]."""
    outcomes = [environment.step((), action, None)[1] for action in actions]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *outcomes)


def same(a, b) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


class Sentinel(gymnasium.Env):
    """Shows (copy, episode, t) and ends by either flag or both, after a length that the seed draws."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(3, start=5)
    copies = 0

    def __init__(self):
        self.copy, self.episode = Sentinel.copies, -1
        Sentinel.copies += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        self.length, self.ending = self.np_random.integers(1, 6), self.np_random.integers(3)
        return self.see(), {}

    def step(self, action):
        assert action in (5, 6, 7)
        assert type(action) is int
        self.t += 1
        done = bool(self.t >= self.length)
        return self.see(), float(action), done and self.ending != 0, done and self.ending != 1, {}

    def see(self):
        return np.array([self.copy, self.episode, self.t], np.float32)


class Nested(gymnasium.Env):
    """A nested observation, several choices at once, and an action buffer that it scribbles over."""

    observation_space = spaces.Dict(
        {
            "place": spaces.Box(-1e6, 1e6, (2,), np.float64),
            "rest": spaces.Tuple([spaces.Discrete(7, start=1), spaces.Box(0, 255, (2, 2), np.uint8)]),
        }
    )
    action_space = spaces.MultiDiscrete([3, 4], start=[1, -1])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.t = self.np_random.normal(size=2), 0
        return self.see(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.place, self.t = self.place * 0.9 + action, self.t + 1
        action[:] = 99
        return self.see(), self.place.sum(), np.False_, np.bool_(self.t == 6), {}

    def see(self):
        image = np.full((2, 2), self.t, np.uint8)
        return {"rest": (1 + self.t, image), "place": self.place}


class OneBuffer(gymnasium.Env):
    """Returns the same array at every step, written anew: as some environments do for speed."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(np.array([-2, 0], "f"), np.array([5, 1], "f"))

    def __init__(self):
        self.buffer = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.buffer[:] = self.np_random.normal(size=2)
        return self.buffer, {}

    def step(self, action):
        assert action.dtype == np.float32
        assert self.action_space.contains(action)
        self.buffer += action
        action *= 0
        return self.buffer, self.buffer[0], False, bool(self.buffer[1] > 3), {}


@pytest.mark.parametrize(("name", "steps"), [("CartPole-v1", 250), ("Pendulum-v1", 1100), ("Acrobot-v1", 320)])
def test_copies_are_exactly_single_environments_and_reset_in_the_step_that_ends_an_episode(name, steps):
    limit = {"max_episode_steps": 50} if name == "Acrobot-v1" else {}
    n, key = 2, random.key(3)
    environment = make(f"gymnasium:{name}", n, **limit)
    _, observation = environment.reset(key)
    actions = canonical_actions(environment.action_space, steps, n)
    outcome = play(environment, actions)
    run_seed = int(environment.save()["run_seed"])
    for i in range(n):
        single, episode, acted_on = gymnasium.make(name, **limit), 0, observation[i]
        expected = single.reset(seed=episode_seed(run_seed, i, episode))[0]
        for t in range(steps):
            np.testing.assert_array_equal(acted_on, expected)
            real = to_real(environment.action_space, np)(actions[t, i])
            expected, reward, terminated, truncated, _ = single.step(real)
            np.testing.assert_array_equal(outcome.next_observation[t, i], expected)
            assert outcome.reward[t, i] == np.float32(reward)
            assert (outcome.terminated[t, i], outcome.truncated[t, i]) == (terminated, truncated)
            if terminated or truncated:
                episode += 1
                expected = single.reset(seed=episode_seed(run_seed, i, episode))[0]
            acted_on = outcome.observation[t, i]
        assert episode >= 5


def test_the_returns_that_are_counted_are_those_that_the_environment_sums():
    sums = []

    class Summing(gymnasium.Wrapper):
        def step(self, action):
            answer = self.env.step(action)
            self.sum += answer[1]
            if answer[2] or answer[3]:
                sums.append(self.sum)
            return answer

        def reset(self, **arguments):
            self.sum = 0.0
            return self.env.reset(**arguments)

    n = 3
    environment = make(lambda: Summing(Sentinel()), n)
    environment.reset(random.key(0))
    outcome = play(environment, canonical_actions(environment.action_space, 60, n))
    counted = jax.jit(episodes.count)(
        episodes.none_yet(n, ()), outcome.reward, outcome.terminated, outcome.truncated,
        np.ones_like(outcome.truncated), jnp.uint32(0), None,
    )  # fmt: skip
    assert len(sums) > 3 * 5
    assert counted.finished == len(sums)
    np.testing.assert_array_equal(counted.returns[: len(sums)], sums)


def test_next_observation_is_what_the_action_led_to_and_never_a_reset():
    n, steps, first = 4, 80, Sentinel.copies
    environment = make(Sentinel, n)
    _, before = environment.reset(random.key(1))
    outcome = play(environment, canonical_actions(environment.action_space, steps, n))
    endings = set()
    for t in range(steps):
        for i in range(n):
            after, then = outcome.next_observation[t, i], outcome.observation[t, i]
            assert after.tolist() == [first + i, before[i, 1], before[i, 2] + 1]
            ending = (outcome.terminated[t, i], outcome.truncated[t, i])
            endings.add(ending)
            assert then.tolist() == ([first + i, before[i, 1] + 1, 0] if any(ending) else after.tolist())
        before = outcome.observation[t]
    assert len(endings) == 4
    assert before[:, 1].min() >= 5


@pytest.mark.parametrize("made", ["gymnasium:CartPole-v1", "gymnasium:Pendulum-v1", Nested])
def test_the_same_key_gives_the_same_run_and_another_key_another(made):
    def run(key, fresh=None):
        environment = fresh or make(made, 3)
        first = environment.reset(key)[1]
        return environment, (first, play(environment, canonical_actions(environment.action_space, 40, 3)))

    environment, one = run(random.key(5))
    assert same(one, run(random.key(5))[1])
    assert same(one, run(random.key(5), environment)[1])  # and again with copies that have been used
    assert not same(one, run(random.key(6))[1])


def test_no_two_copies_begin_alike():
    _, observation = make("gymnasium:CartPole-v1", 16).reset(random.key(0))
    assert len(np.unique(observation, axis=0)) == 16


def test_seeds_are_distinct_31_bit_numbers_that_never_change():
    grid = [(run, copy, episode) for run in (0, 1, 2, 2**63, 2**64 - 1) for copy in range(8) for episode in range(50)]
    seeds = {episode_seed(*place) for place in grid}
    assert len(seeds) == len(grid)
    assert all(0 <= seed < 2**31 for seed in seeds)
    # A saved run depends on these numbers.
    assert [episode_seed(*place) for place in ((0, 0, 0), (1, 2, 3), (2**64 - 1, 7, 10**6))] == [
        297876190,
        896699104,
        1439391741,
    ]


def test_the_whole_key_counts():
    environment = make("gymnasium:CartPole-v1", 1)
    seeds = set()
    for data in ([0, 1], [1, 0], [0, 0], [2**32 - 1, 0]):
        environment.reset(random.wrap_key_data(jnp.array(data, jnp.uint32)))
        seeds.add(int(environment.save()["run_seed"]))
    assert seeds == {1, 2**32, 0, (2**32 - 1) << 32}


@pytest.mark.parametrize("made", [f"gymnasium:{name}" for name in CLASSIC] + [Nested, OneBuffer])
def test_a_restored_run_goes_on_exactly(made):
    limit = {"max_episode_steps": 100} if isinstance(made, str) else {}

    def fresh():
        return make(made, 3, **limit)

    environment = fresh()
    environment.reset(random.key(2))
    actions = canonical_actions(environment.action_space, 250, 3)
    acted_on = play(environment, actions[:83]).observation
    saved = environment.save()
    rest = play(environment, actions[83:])
    assert (rest.terminated | rest.truncated).any()

    restored = fresh()
    restored.reset(random.key(77))
    observation = restored.restore(saved)
    assert same(observation, jax.tree.map(lambda leaf: leaf[-1], acted_on))
    assert same(restored.save(), saved)
    assert same(play(restored, actions[83:]), rest)
    assert restored.exact
    assert not restored.restarted.any()
    assert restored.notes == []
    assert same(environment.restore(saved), observation)  # and so does one that has long gone on
    assert same(play(environment, actions[83:]), rest)


def test_a_run_is_restored_exactly_in_another_process(tmp_path):
    script = f"""
import hashlib, sys, jax, numpy as np
from thorndike.environments import make
digest = hashlib.sha256()
for name in {CLASSIC}:
    with np.load(rf"{tmp_path}/{{name}}.npz") as file:
        arrays = dict(file)
    actions = arrays.pop("to_come")
    environment = make("gymnasium:" + name, 2)
    environment.restore(arrays)
    assert environment.exact
    for action in actions:
        for leaf in environment.step((), action)[1]:
            digest.update(leaf.tobytes())
print(digest.hexdigest())
"""
    digest = hashlib.sha256()
    for name in CLASSIC:
        environment = make(f"gymnasium:{name}", 2)
        environment.reset(random.key(4))
        actions = canonical_actions(environment.action_space, 90, 2)
        play(environment, actions[:60])
        np.savez(tmp_path / f"{name}.npz", to_come=actions[60:], **environment.save())
        for action in actions[60:]:
            for leaf in environment.step((), action)[1]:
                digest.update(leaf.tobytes())
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == digest.hexdigest(), found.stderr


class Entropy(Nested):
    """Draws from a generator that no seed reaches."""

    def step(self, action):
        self.place = self.place + np.random.default_rng().normal(size=2)
        return super().step(action)


def test_an_episode_that_cannot_be_repeated_begins_anew_and_this_is_said():
    environment = make(Entropy, 2)
    environment.reset(random.key(0))
    actions = canonical_actions(environment.action_space, 30, 2)
    play(environment, actions[:8])
    saved = environment.save()
    restored = make(Entropy, 2)
    observation = restored.restore(saved)
    assert not restored.exact
    assert restored.restarted.all()
    assert len(restored.notes) == 2
    assert "copy 1" in restored.notes[1]
    assert "led to another observation" in restored.notes[1]
    np.testing.assert_array_equal(observation["rest"][0], [1, 1])  # the first of an episode
    assert restored.save()["episode"].tolist() == [e + 1 for e in saved["episode"]]
    assert restored.save()["length"].tolist() == [0, 0]
    play(restored, actions[8:])


def test_a_repeated_episode_that_fails_or_ends_early_begins_anew():
    class Fragile(Sentinel):
        wear = 0

        def step(self, action):
            if Fragile.wear == 1:
                raise OSError("disk")
            observation, reward, _, truncated, info = super().step(action)
            return observation, reward, Fragile.wear == 2, truncated and False, info

    environment = make(Fragile, 2)
    environment.reset(random.key(0))
    play(environment, canonical_actions(environment.action_space, 10, 2))
    for wear, text in ((1, "OSError: disk"), (2, "ended after 1 of 10 steps")):
        Fragile.wear = wear
        restored = make(Fragile, 2)
        restored.restore(environment.save())
        assert text in restored.notes[0]


def test_an_episode_that_is_too_long_to_be_repeated_begins_anew_and_the_short_one_goes_on(monkeypatch):
    monkeypatch.setattr(repeating, "LONGEST_REPEAT", 20)

    class Uneven(OneBuffer):
        def step(self, action):
            observation, reward, *_ = super().step(action)
            return observation, reward, False, bool(Uneven.made[0] is self and observation[0] > 8), {}

    def fresh():
        Uneven.made = [Uneven(), Uneven()]
        made = iter(Uneven.made)
        return make(lambda: next(made), 2)

    environment = fresh()
    environment.reset(random.key(0))
    actions = canonical_actions(environment.action_space, 100, 2)
    play(environment, actions[:50])
    saved = environment.save()
    assert 0 < saved["length"][0] <= 20
    assert saved["length"][1] == 50
    assert len(saved["actions"]) == saved["length"][0]
    assert len(environment._history) == 20  # however long a run is, no more is kept
    rest = play(environment, actions[50:])
    restored = fresh()
    restored.restore(saved)
    assert restored.restarted.tolist() == [False, True]
    assert "50 steps are too many" in restored.notes[0]
    np.testing.assert_array_equal(play(restored, actions[50:]).observation[:, 0], rest.observation[:, 0])


def test_arrays_that_are_not_from_such_an_environment_are_refused():
    environment = make("gymnasium:CartPole-v1", 2)
    environment.reset(random.key(0))
    play(environment, canonical_actions(environment.action_space, 5, 2))
    saved = environment.save()
    changes = [
        {"episode": saved["episode"][:1]},
        {"length": saved["length"] + 1},
        {"length": -saved["length"]},
        {"episode": saved["episode"] - 1},
        {"run_seed": np.int64(3)},
        {"observation": saved["observation"].astype(np.float64)},
        {"observation": saved["observation"][:, :3]},
        {"actions": saved["actions"].astype(np.float32)},
        {"actions": saved["actions"][:, :1]},
    ]
    for arrays in [saved | change for change in changes] + [{k: v for k, v in saved.items() if k != d} for d in saved]:
        with pytest.raises(CorruptCheckpointError):
            environment.restore(arrays)
    with pytest.raises(CorruptCheckpointError):
        make("gymnasium:CartPole-v1", 3).restore(saved)


@pytest.mark.parametrize("made", [OneBuffer, Nested, "gymnasium:CartPole-v1"])
def test_arrays_that_were_returned_are_never_written_again(made):
    environment = make(made, 2)
    returned = [environment.reset(random.key(0))[1]]
    kept = jax.tree.map(np.copy, returned)
    for t, action in enumerate(canonical_actions(environment.action_space, 60, 2)):
        returned.append(environment.step((), action)[1] if t % 20 else environment.save())
        kept.append(jax.tree.map(np.copy, returned[-1]))
    returned.append(environment.restore(returned[21]))
    kept.append(jax.tree.map(np.copy, returned[-1]))
    play(environment, canonical_actions(environment.action_space, 60, 2))
    assert same(returned, kept)


def test_rewards_and_flags_come_as_float32_and_bool():
    environment = make(Nested, 3)
    environment.reset(random.key(0))
    _, outcome = environment.step((), np.zeros((3, 2), np.int32))
    for leaf, dtype in ((outcome.reward, np.float32), (outcome.terminated, bool), (outcome.truncated, bool)):
        assert (leaf.shape, leaf.dtype) == ((3,), dtype)


class Broken(gymnasium.Env):
    """Answers as it is told, in its third step."""

    action_space = spaces.Discrete(2)

    def __init__(self, space=None, **changes):
        self.observation_space = space or spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.changes, self.t = changes, 0

    def fine(self):
        return self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        self.t = 0
        if "first" in self.changes:
            return self.changes["first"]
        return self.fine(), {}

    def step(self, action):
        self.t += 1
        answer = {"observation": self.fine(), "reward": 1.0, "terminated": False, "truncated": False, "info": {}}
        changes = self.changes if self.t == 3 else {}
        if "error" in changes:
            raise changes["error"]
        return changes["answer"] if "answer" in changes else tuple(changes.get(name, answer[name]) for name in answer)


class Graph:
    """Refuses to be a number, as a tensor with a graph does."""

    def fail(self, *_, **__):
        raise RuntimeError("can't call numpy() on a tensor that requires grad")

    __array__ = __float__ = __len__ = __iter__ = __getitem__ = __bool__ = __int__ = __index__ = fail


class Exits(Graph):
    def __array__(self, *_, **__):
        sys.exit(5)


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError


PIXELS, DICT = spaces.Box(0, 255, (3,), np.uint8), spaces.Dict(a=spaces.Discrete(3))
FAULTS = [
    ({"error": ValueError("engine is cold")}, "ValueError: engine is cold"),
    ({"error": SystemExit(3)}, "SystemExit: 3"),
    ({"error": Unspeakable()}, "Unspeakable$"),
    ({"error": RuntimeError("first line\nsecond line")}, "RuntimeError: first line$"),
    ({"observation": Graph()}, "observation: expected float32.*, got Graph"),
    ({"observation": Exits()}, "SystemExit: 5"),
    ({"space": DICT, "observation": Graph()}, "observation: expected a dict .*, got Graph"),
    ({"space": DICT, "observation": {"a": Graph()}}, "observation.*got Graph"),
    ({"reward": Graph()}, "reward: expected a number, got Graph"),
    ({"reward": Exits()}, "SystemExit: 5"),
    ({"terminated": Graph()}, "terminated: expected True or False, got Graph"),
    ({"answer": Graph()}, "step must return .*, got Graph"),
    ({"observation": np.array([0, np.nan, 0, 0], "f")}, r"observation: nan at index \[1\]"),
    ({"observation": np.array([0, 0, 0, 1e39])}, "observation: inf"),
    ({"observation": np.zeros(5, "f")}, r"expected float32\[4\], got float32\[5\]"),
    ({"observation": np.zeros(1, "f")}, r"expected float32\[4\], got float32\[1\]"),
    ({"observation": np.zeros(4, complex)}, r"expected float32\[4\], got ndarray"),
    ({"observation": None}, "got NoneType"),
    ({"space": PIXELS, "observation": np.array([300, -1, 256])}, "from -1 to 300"),
    ({"space": PIXELS, "observation": np.zeros(3)}, r"expected uint8\[3\], got float64\[3\]"),
    ({"space": DICT, "observation": {"a": 1, "b": 2}}, r"with \['b'\]"),
    ({"space": DICT, "observation": {}}, r"without \['a'\]"),
    ({"space": DICT, "observation": {"a": 3}}, r"observation\['a'\]: .* from 0 to 2, got 3"),
    ({"reward": None}, "reward: expected a number, got NoneType"),
    ({"reward": np.nan}, "reward: nan"),
    ({"reward": np.float32(-np.inf)}, "reward: -inf"),
    ({"reward": 1e300}, r"reward: 1e\+300"),
    ({"reward": np.zeros(2)}, r"reward: expected a number, got float64\[2\]"),
    ({"reward": "1"}, "reward: expected a number, got str"),
    ({"reward": 1j}, "reward: expected a number, got complex"),
    ({"terminated": "yes"}, "terminated: expected True or False, got str"),
    ({"terminated": None}, "terminated: expected True or False, got NoneType"),
    ({"truncated": 1}, r"truncated: expected True or False, got int64\[\]"),
    ({"truncated": np.array([True])}, r"truncated: expected True or False, got bool\[1\]"),
    ({"answer": (np.zeros(4, "f"), 1.0, False, {})}, "step must return .*, got 4 values"),
    ({"answer": 3}, r"step must return .*, got int64\[\]"),
]


@pytest.mark.parametrize(("changes", "text"), FAULTS)
def test_a_step_that_breaks_its_word_is_named_by_copy_seed_and_step(changes, text):
    made = iter([Broken(changes.get("space")), Broken(**changes)])
    environment = make(lambda: next(made), 2)
    environment.reset(random.key(0))
    environment.step((), np.zeros(2, np.int32))
    environment.step((), np.zeros(2, np.int32))
    seed = episode_seed(int(environment.save()["run_seed"]), 1, 0)
    with pytest.raises(EnvironmentFault, match=text) as caught:
        environment.step((), np.zeros(2, np.int32))
    assert str(caught.value).startswith(f"copy 1, episode seed {seed}, step 3: ")
    assert caught.value.__cause__ is changes.get("error", caught.value.__cause__)


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (Graph(), r"reset must return \(observation, info\), got Graph"),
        ((Graph(), {}), "got Graph"),
        ((Exits(), {}), "SystemExit: 5"),
        (np.zeros(4, "f"), r"reset must return \(observation, info\)"),
        ((np.zeros(4, "f"),), "got 1 values"),
        ((np.zeros(4, "f"), None), "reset must return"),
        ((np.zeros(3, "f"), {}), r"got float32\[3\]"),
        ((np.full(4, np.nan, "f"), {}), "nan"),
    ],
)
def test_a_reset_that_breaks_its_word_is_named(first, text):
    with pytest.raises(EnvironmentFault, match=rf"^copy 0, episode seed \d+, reset: .*{text}"):
        make(lambda: Broken(first=first), 2).reset(random.key(0))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated(143)])
def test_the_users_own_signals_pass(error):
    environment = make(lambda: Broken(error=error), 1)
    environment.reset(random.key(0))
    with pytest.raises(type(error)):
        play(environment, np.zeros((3, 1), np.int32))


@pytest.mark.parametrize("given", [np.arange(4), np.arange(4, dtype=np.uint8), np.array([True, False, True, True])])
def test_whole_numbers_and_booleans_are_taken_for_floats(given):
    environment = make(lambda: Broken(observation=given, first=(given, {}), reward=np.int64(2)), 1)
    assert environment.reset(random.key(0))[1].dtype == np.float32
    outcome = play(environment, np.zeros((3, 1), np.int32))
    np.testing.assert_array_equal(outcome.next_observation[2, 0], given)
    assert outcome.next_observation.dtype == np.float32


def test_an_observation_that_changes_its_shape_at_a_later_reset_is_named():
    class Changing(Sentinel):
        def reset(self, **arguments):
            observation, info = super().reset(**arguments)
            return (observation if self.episode < 2 else observation[:2]), info

    environment = make(Changing, 1)
    environment.reset(random.key(0))
    with pytest.raises(EnvironmentFault, match=r"reset: observation: expected float32\[3\], got float32\[2\]"):
        play(environment, canonical_actions(environment.action_space, 50, 1))


def test_an_environment_without_seeds_is_told_what_to_accept():
    class Old(Broken):
        def reset(self):
            return self.fine(), {}

    with pytest.raises(EnvironmentFault, match=r"must accept reset\(seed=\.\.\.\)"):
        make(Old, 1).reset(random.key(0))


def test_unusual_but_honest_answers_are_taken():
    honest = {"reward": np.array([2]), "terminated": np.False_, "truncated": jnp.array(False), "info": None}
    environment = make(lambda: Broken(observation=[0.0, 1.0, 2.0, 3.0], **honest), 1)
    environment.reset(random.key(0))
    outcome = play(environment, np.zeros((4, 1), np.int32))
    np.testing.assert_array_equal(outcome.next_observation[2, 0], [0, 1, 2, 3])
    assert outcome.reward[2, 0] == 2


def test_actions_that_are_not_finite_or_too_few_are_refused():
    environment = make("gymnasium:Pendulum-v1", 2)
    environment.reset(random.key(0))
    with pytest.raises(SettingError, match="diverged"):
        environment.step((), np.array([[0], [np.nan]], np.float32))
    with pytest.raises(SettingError, match=r"actions \[2, ...\] are needed, got \[1, 1\]"):
        environment.step((), np.zeros((1, 1), np.float32))


def test_copies_with_other_spaces_or_one_environment_for_all_are_refused():
    with pytest.raises(UnsuitableError, match="differ in their spaces"):
        Copies([Broken(), Broken(PIXELS)])
    one = Broken()
    with pytest.raises(SettingError, match="a new one at every call"):
        make(lambda: one, 2)


def test_closing_reaches_every_copy():
    closed = []

    class Closing(Broken):
        def close(self):
            closed.append(self)
            raise SystemExit(7) if len(closed) == 1 else OSError("already gone")

    with pytest.warns(UserWarning, match="copy 0 could not be closed: SystemExit: 7"):
        make(Closing, 3).close()
    assert len(closed) == 3


@pytest.mark.filterwarnings("ignore:copy . could not be closed")
@settings(deadline=None, max_examples=200)
@given(broken_environments())
def test_whatever_an_environment_does_the_run_succeeds_or_ends_in_a_typed_error(behaviour):
    play_as_told(behaviour)


def test_an_environment_that_stops_iterating_while_it_is_made_is_named():
    """What is raised inside of a generator that guards it comes out as it went in."""

    def made():
        raise StopIteration("no more of them")

    with pytest.raises(EnvironmentFault, match=r"^made could not be made: StopIteration: no more of them"):
        make(made, 1)


def test_a_name_that_is_none_is_not_taken_for_one():
    class Named(Broken):
        __name__ = 3

    assert name_of(Named()) == "Named"


@pytest.mark.parametrize("empty", [spaces.MultiDiscrete([]), spaces.Box(-1, 1, (0,)), spaces.Box(0, 3, (0,), np.int64)])
def test_actions_that_hold_nothing_are_refused(empty):
    class Idle(Broken):
        action_space = empty

    with pytest.raises(UnsuitableError, match="an action must hold a choice or a number"):
        make(Idle, 1)
