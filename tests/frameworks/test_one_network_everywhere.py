"""One network, given in every framework that is installed: it trains, comes back there, and is the agent's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flax")  # where it is missing, so are the others: `make test-frameworks`

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import networks

import thorndike as td
from thorndike.errors import RunError

OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (1_000, 4)).astype(np.float32)
QUICK = {"quiet": True, "evaluate_every": 0}

pytestmark = pytest.mark.keras  # frameworks' own layers promote ranks


@pytest.fixture(params=networks.ENTRANTS)
def entrant(request):
    entrant = networks.ENTRANTS[request.param]
    if lacking := networks.missing(request.param):
        pytest.skip(f"{', '.join(lacking)} is not installed")
    if entrant.backend != os.environ["KERAS_BACKEND"]:
        pytest.skip(f"runs with KERAS_BACKEND={entrant.backend}")
    return entrant


def dqn(network):
    """What learns the same whatever the end of the run: nothing in it falls."""
    constant = {"learning_rate_end": None, "epsilon_start": 0.1, "epsilon_end": 0.1}
    return td.DQN(network=network, memory=td.Replay(1_000, 16), warmup_steps=100, **constant)


def outputs(entrant, network):
    return np.asarray(entrant.call(network, OBSERVATIONS))


def test_it_comes_back_in_its_own_framework_with_the_weights_that_act(entrant, tmp_path):
    network = entrant.make()
    run = td.train(dqn(network), "CartPole-v1", 400, seeds=2, run_dir=tmp_path / "run", **QUICK)
    for agent in run.agents:
        np.testing.assert_array_equal(outputs(entrant, agent.network).argmax(1), agent.act(OBSERVATIONS))
    one, other = (outputs(entrant, agent.network) for agent in run.agents)
    assert not np.allclose(one, other)

    with pytest.raises(RunError, match="hand it in again with network="):
        td.load(tmp_path / "run")
    loaded = td.load(tmp_path / "run", network=network)
    np.testing.assert_array_equal(outputs(entrant, loaded.agent.network), one)
    resumed = td.resume(tmp_path / "run", 800, network=network, quiet=True)
    straight = td.train(dqn(network), "CartPole-v1", 800, seeds=2, run_dir=None, **QUICK)
    for agent, twin in zip(resumed.agents, straight.agents, strict=True):
        np.testing.assert_array_equal(outputs(entrant, agent.network), outputs(entrant, twin.network))


def test_a_function_gives_each_seed_weights_of_its_own(entrant):
    def first(seed):
        chunk = next(td.training(dqn(entrant.make), "CartPole-v1", 400, seed=seed))
        return outputs(entrant, chunk.progress.state.network.original())

    one, other, again = map(first, (3, 4, 3))
    assert not np.allclose(one, other)
    np.testing.assert_array_equal(one, again)


LOAD = """
import sys
import keras, numpy as np
assert keras.backend.backend() == "tensorflow"
x = np.load(sys.argv[1] + "/x.npy")
np.save(sys.argv[1] + "/y.npy", keras.models.load_model(sys.argv[1] + "/trained.keras").predict(x, verbose=0))
"""


def test_a_model_trained_here_and_saved_is_the_same_under_tensorflow(tmp_path):
    if lacking := networks.missing("Keras on TensorFlow"):
        pytest.skip(f"{', '.join(lacking)} is not installed")
    run = td.train(dqn(networks.keras_mlp()), "CartPole-v1", 400, run_dir=None, **QUICK)
    run.agent.network.save(tmp_path / "trained.keras")
    np.save(tmp_path / "x.npy", OBSERVATIONS)
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], env=environment, check=True, timeout=300)
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), run.agent.network.predict(OBSERVATIONS, verbose=0), atol=1e-5
    )
