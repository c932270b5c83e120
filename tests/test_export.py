"""What is exported acts like the agent, says what it is, and takes nothing's place before both are sure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from thorndike import normalization
from thorndike.errors import MissingExtraError, RunError, SettingError, UnsuitableError
from thorndike.runs import export
from thorndike.runs.agents import Agent

FLAT = spaces.Box(-np.inf, np.inf, (3,), np.float64)
IMAGE = spaces.Box(0, 255, (12, 12, 3), np.uint8)
CHOICES, BOX = spaces.Discrete(4, start=3), spaces.Box(-2.0, 5.0, (2,), np.float64)
MIXED = spaces.Dict(
    camera=spaces.Tuple([IMAGE, spaces.MultiBinary(2)]),
    vector=spaces.Box(-1.0, 1.0, (5,)),
    which=spaces.Discrete(100, start=-1),
    action=spaces.MultiDiscrete([3, 2]),
)
TINY, SEEING = td.MLP((8,)), td.CNN((4,), (4,), (2,), (8,))
CASES = {
    "dqn": (td.DQN(network=SEEING), IMAGE, CHOICES),
    "dqn, dueling": (td.DQN(network=td.MLP((8,)), dueling=True), FLAT, CHOICES),
    "ppo, choices of a dict": (td.PPO(network=SEEING, critic_network=None), MIXED, spaces.MultiDiscrete([3, 4])),
    "ppo, normalised": (td.PPO(network=TINY, normalize_observations=True), FLAT, BOX),
    "sac": (td.SAC(network=TINY, normalize_observations=True), MIXED, BOX),
    "crossq": (td.CrossQ(network=td.RenormalizedMLP((8,))), FLAT, BOX),
    "sac, residual": (td.SAC(network=td.SimBa(8)), MIXED, BOX),
    "td3": (td.TD3(network=TINY), spaces.Discrete(9), spaces.Box(-1.0, 1.0, (2, 2))),
}

STABLEHLO = export.FORMATS[".stablehlo"]


def agent_of(algorithm, observation_space, action_space):
    """An untrained agent that has seen observations, where it normalises them."""
    begin = jax.jit(lambda key: algorithm.init(key, observation_space, action_space))  # not one operation at a time
    state = begin(jax.random.key(0))
    if algorithm.normalize_observations:
        seen = jax.tree.map(lambda x: 3 + 2 * x if x.dtype.kind == "f" else x, drawn(observation_space, 50))
        moments = normalization.update(state.statistics.observations, seen)
        state = state._replace(statistics=state.statistics._replace(observations=moments))
    return Agent(algorithm, state, observation_space, action_space)


def drawn(space, count=1_000, moments=()):
    return export.draw(space, moments, np.random.default_rng(1), count)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """By case, the agent and the folder that it is exported into."""
    folder = tmp_path_factory.mktemp("exported")
    agents = {name: agent_of(*case) for name, case in CASES.items()}
    for name, agent in agents.items():
        agent.export(folder / name / "policy.stablehlo")
    return {name: (agent, folder / name) for name, agent in agents.items()}


READER = """
import sys
import jax, numpy as np
from jax import export
for folder in sys.argv[1:]:
    policy = export.deserialize(bytearray(open(folder + "/policy.stablehlo", "rb").read()))
    assert policy.platforms == ("cpu", "cuda", "tpu")
    leaves = [np.load(f"{folder}/{i}.npy") for i in range(len(policy.in_avals))]
    (observation,), _ = jax.tree.unflatten(policy.in_tree, leaves)
    np.save(folder + "/actions.npy", policy.call(observation))
    np.save(folder + "/action.npy", policy.call(jax.tree.map(lambda x: x[:1], observation)))
assert "thorndike" not in sys.modules
"""


def test_stablehlo_acts_like_the_agent_in_a_process_that_imports_jax_alone(exported):
    for agent, folder in exported.values():
        for i, leaf in enumerate(jax.tree.leaves(drawn(agent.observation_space))):
            np.save(folder / f"{i}.npy", leaf)
    command = [sys.executable, "-c", READER, *(str(folder) for _, folder in exported.values())]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    for agent, folder in exported.values():
        expected, found = agent.act(drawn(agent.observation_space)), np.load(folder / "actions.npy")
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.load(folder / "action.npy"), expected[:1], rtol=1e-5, atol=1e-5)


def test_the_contract_says_what_is_beside_it(exported):
    folder = exported["sac"][1]
    contract = json.loads((folder / "contract.json").read_text())
    assert list(contract["inputs"]) == ["observation_action", "camera_0", "camera_1", "vector", "which"]
    assert contract["inputs"]["camera_0"]["shape"] == ["batch", 12, 12, 3]
    assert contract["inputs"]["which"]["space"] == {"type": "Discrete", "n": 100, "start": -1, "dtype": "int64"}
    assert contract["output"] | {"space": None} == {
        "name": "action",
        "shape": ["batch", 2],
        "dtype": "float32",
        "space": None,
    }
    assert contract["output"]["space"]["high"] == 5.0
    about = contract["files"]["policy.stablehlo"]
    assert about["sha256"] == hashlib.sha256((folder / "policy.stablehlo").read_bytes()).hexdigest()
    assert about["parity"]["observations"] == 1_000
    assert about["parity"]["largest_difference"] < 1e-4
    assert about["versions"]["jax"] == jax.__version__
    assert list(json.loads((exported["td3"][1] / "contract.json").read_text())["inputs"]) == ["observation"]


def test_files_of_one_interface_share_a_contract_and_others_are_refused(exported, tmp_path):
    agent = exported["dqn, dueling"][0]
    for name in ("a.stablehlo", "b.STABLEHLO", "a.stablehlo"):
        agent.export(tmp_path / "new" / name)
    contract = tmp_path / "new" / "contract.json"
    assert list(json.loads(contract.read_text())["files"]) == ["a.stablehlo", "b.STABLEHLO"]
    (tmp_path / "new" / "b.STABLEHLO").unlink()
    before = contract.read_bytes()
    with pytest.raises(RunError, match="other observations or actions: export into another folder"):
        exported["td3"][0].export(tmp_path / "new" / "c.stablehlo")
    assert contract.read_bytes() == before
    agent.export(tmp_path / "new" / "a.stablehlo")
    assert list(json.loads(contract.read_text())["files"]) == ["a.stablehlo"]
    for theirs in ("mine", "{}", before.decode().replace('"dtype": "int32"', '"dtype": "int64"')):
        contract.write_text(theirs)
        with pytest.raises(RunError, match="not as thorndike wrote it, and stays"):
            agent.export(tmp_path / "new" / "a.stablehlo")
        assert contract.read_text() == theirs


def other(change):
    """What writes a policy as it is, and loads it as one that acts otherwise."""
    made = STABLEHLO
    return made._replace(load=lambda greedy, path: lambda batch: change(np.array(made.load(greedy, path)(batch))))


def test_what_differs_from_the_agent_takes_nothing_s_place(exported, tmp_path, monkeypatch):
    agent, path = exported["ppo, normalised"][0], tmp_path / "policy.stablehlo"
    path.write_text("the one before")
    monkeypatch.setitem(export.FORMATS, ".stablehlo", other(lambda action: action + 0.01))
    with pytest.raises(UnsuitableError, match=r"differs from the agent in 1,000 of 1,000 actions, by up to 0.01"):
        agent.export(path)
    assert path.read_text() == "the one before"
    assert os.listdir(tmp_path) == ["policy.stablehlo"]
    monkeypatch.setitem(export.FORMATS, ".stablehlo", other(lambda action: action + 1e-5))
    agent.export(path)
    assert sorted(os.listdir(tmp_path)) == ["contract.json", "policy.stablehlo"]


def test_a_choice_may_differ_only_where_the_agent_values_both_alike(exported):
    agent = exported["ppo, choices of a dict"][0]
    batch = drawn(MIXED, 20)
    expected = agent.act(batch)
    with pytest.raises(UnsuitableError, match="differs from the agent in 20 of 20"):
        export.compare(agent, batch, (expected + 1) % [3, 4])
    indifferent = Agent(agent.algorithm, jax.tree.map(jnp.zeros_like, agent.state), MIXED, agent.action_space)
    parity = export.compare(indifferent, batch, (indifferent.act(batch) + 1) % [3, 4])
    assert (parity["equal"], parity["ties"]) == (0, 20)
    biased = jax.tree.map(jnp.zeros_like, agent.state)
    network = biased.parameters.network
    biases = (network.biases[0], network.biases[1].at[0].set(1.0))
    network = dataclasses.replace(network, biases=biases)
    biased = biased._replace(parameters=biased.parameters._replace(network=network))
    found = np.tile([0, 1], (20, 1))  # the second choice is open, the first is not
    biased = Agent(agent.algorithm, biased, MIXED, agent.action_space)
    assert export.compare(biased, batch, found)["ties"] == 20
    with pytest.raises(UnsuitableError):
        export.compare(biased, batch, 1 - found)


@pytest.mark.parametrize("name", CASES)
def test_greedy_is_what_an_agent_does_without_exploring(exported, name):
    agent = exported[name][0]
    batch = drawn(agent.observation_space, 20)
    greedy = agent.algorithm.greedy(agent.policy(explore=True), batch, ())[0]
    calm = agent.algorithm.act(agent.policy(explore=False), batch, (), jax.random.key(0))[0]
    np.testing.assert_array_equal(greedy, calm)


def test_observations_are_drawn_across_the_space_or_what_was_seen():
    wide = spaces.Box(np.float32([-4.8, -3e38, 5e6]), np.float32([4.8, 3e38, np.inf]))
    space = spaces.Dict(a=wide, b=spaces.Box(-(2**31), 2**31 - 1, (2,), np.int32), c=IMAGE, d=spaces.MultiBinary(3))
    batch = drawn(space)
    a = batch["a"].astype(np.float64)
    assert space.contains(jax.tree.map(lambda x: x[0], batch))
    assert np.ptp(a[:, 0]) > 9
    assert 1 < a[:, 1].std() < 100
    assert (a[:, 2] >= 5e6).all()
    assert len(np.unique(batch["c"])) == 256
    assert len(np.unique(batch["b"])) > 10
    seen = normalization.Moments(jnp.uint32(9), (jnp.array([1.0, 1e4, 6e6]),), (jnp.array([0.01, 1e6, 1.0]),))
    a = drawn(space, moments=seen)["a"].astype(np.float64)
    assert 5e3 < a[:, 1].mean() < 15e3
    assert a[:, 0].std() < 1


def test_what_cannot_be_exported_is_said_in_one_line(exported, tmp_path, monkeypatch):
    agent = exported["dqn, dueling"][0]

    def refused(kind, words, name="policy.stablehlo", agent=agent):
        with pytest.raises(kind, match=words) as caught:
            agent.export(tmp_path / "out" / name)
        assert "\n" not in str(caught.value)

    refused(SettingError, r"let it end in \.onnx, \.stablehlo, \.savedmodel", "policy.tflite")
    refused(SettingError, "let it end in", "policy")
    (tmp_path / "out" / "full.stablehlo").mkdir(parents=True)
    refused(RunError, "is not a file that thorndike wrote", "full.stablehlo")
    spaces_of = agent.observation_space, agent.action_space
    remembering = td.DQN(network=td.GRU(2), memory=td.Replay(1_000, 8, sequence=4))
    refused(UnsuitableError, "with a memory cannot be exported", agent=Agent(remembering, None, *spaces_of))
    mine = type("Mine", (), {"policy": agent.algorithm.policy, "initial_carry": lambda self, n: ()})()
    refused(UnsuitableError, r"Mine cannot be exported: give it a method greedy\(", agent=Agent(mine, None, *spaces_of))
    broken = jax.tree.map(lambda x: x * np.nan if x.dtype == np.float32 else x, exported["td3"][0].state)
    broken = Agent(CASES["td3"][0], broken, *CASES["td3"][1:])
    refused(UnsuitableError, "not finite", agent=broken)
    same = spaces.Dict({"a b": FLAT, "a_b": FLAT})
    refused(UnsuitableError, "same name", agent=agent_of(td.DQN(network=TINY), same, CHOICES))
    for package, ending in (("onnxruntime", "onnx"), ("tensorflow", "savedmodel")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, "onnx", None)
        extra = {"onnx": "onnx"}.get(ending, "tensorflow")
        refused(MissingExtraError, rf'pip install "thorndike\[{extra}\]"', f"policy.{ending}")
    assert os.listdir(tmp_path / "out") == ["full.stablehlo"]
