"""Policies as SavedModels: what TensorFlow makes of them is what the agent does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces
from jax import random

import thorndike as td
from thorndike.errors import RunError
from thorndike.runs import export
from thorndike.runs.agents import Agent

tensorflow = pytest.importorskip("tensorflow")

IMAGE = spaces.Box(0, 255, (12, 12, 3), np.uint8)
SEEING = td.CNN((4,), (4,), (2,), (8,))
POLICIES = {
    "dqn": (td.DQN(network=SEEING), IMAGE, spaces.Discrete(4, start=3)),
    "sac": (
        td.SAC(network=td.MLP((8,)), normalize_observations=True),
        spaces.Dict(camera=spaces.Tuple([IMAGE]), vector=spaces.Box(-1.0, 1.0, (5,))),
        spaces.Box(-2.0, 5.0, (2,), np.float64),
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_tensorflow_acts_like_the_agent(name, tmp_path):
    algorithm, observation_space, action_space = POLICIES[name]
    state = algorithm.init(random.key(0), observation_space, action_space)
    agent = Agent(algorithm, state, observation_space, action_space)
    for _ in range(2):  # the second takes the first one's place
        path = agent.export(tmp_path / "policy.savedmodel")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["contract.json", "policy.savedmodel"]
    contract = json.loads((tmp_path / "contract.json").read_text())
    assert "saved_model.pb" in contract["files"]["policy.savedmodel"]["sha256"]
    batch = export.draw(observation_space, (), np.random.default_rng(1), 1_000)
    act = tensorflow.saved_model.load(str(path)).signatures["serving_default"]
    named = {"camera_0": batch["camera"][0], "vector": batch["vector"]} if name == "sac" else {"observation": batch}
    for count in (1, 1_000):
        some = {key: tensorflow.constant(x[:count]) for key, x in named.items()}
        np.testing.assert_allclose(act(**some)["action"], agent.act(batch)[:count], rtol=1e-4, atol=1e-5)
    (tmp_path / "mine.savedmodel").mkdir()
    (tmp_path / "mine.savedmodel" / "precious").write_text("mine")
    with pytest.raises(RunError, match="not a folder that thorndike wrote"):
        agent.export(tmp_path / "mine.savedmodel")
