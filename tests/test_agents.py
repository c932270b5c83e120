"""What is handed out as an agent's network is what the agent acts by; what is saved of one is what it acts by too."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from safetensors import safe_open

import thorndike as td
from hostile import rewrite
from thorndike.core import Transition
from thorndike.errors import (
    CorruptCheckpointError,
    RunError,
    ThorndikeError,
    UnknownNameError,
    UnsuitableError,
)
from thorndike.runs.agents import Agent
from thorndike.spaces import to_real

OBSERVATIONS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
DISCRETE, BOX = spaces.Discrete(4), spaces.Box(-2.0, 5.0, (2,), np.float32)
TINY = {"network": td.MLP((8,))}
NORMALIZED = {"normalize_observations": True, "num_environments": 2}


def linear_init(key, observation, outputs):
    return {"w": jax.random.normal(key, (observation.shape[1], outputs))}


def linear(parameters, x):
    return x @ parameters["w"]


def largest(outputs):
    return outputs.argmax(-1)


def squashed(outputs):
    return jnp.tanh(outputs)


CASES = {  # the algorithm, its actions, and how it chooses them greedily
    "dqn": (td.DQN(**TINY), DISCRETE, largest),
    "reinforce": (td.REINFORCE(**TINY), DISCRETE, largest),
    "ppo": (td.PPO(**TINY), DISCRETE, largest),
    "ppo, shared": (td.PPO(**TINY, critic_network=None), DISCRETE, largest),
    "ppo, shared, box": (td.PPO(**TINY, critic_network=None), BOX, lambda outputs: outputs),
    "sac": (td.SAC(**TINY), BOX, lambda outputs: squashed(outputs[:, :2])),
    "td3": (td.TD3(**TINY), BOX, squashed),
    "ddpg": (td.DDPG(**TINY), BOX, squashed),
    "pqn": (td.PQN(**TINY, batch_size=64), DISCRETE, largest),
    "discretesac": (td.DiscreteSAC(**TINY), DISCRETE, largest),
}


def agent_of(algorithm, action_space):
    """An agent after a little experience, without training."""
    state = algorithm.init(jax.random.key(0), OBSERVATIONS, action_space)
    seen, flag = raw_observations(20).reshape(10, 2, 3), np.zeros((10, 2), bool)
    steps = Transition(seen, None, flag.astype(np.float32), flag, flag, seen, {})
    state = algorithm.observe(state, steps)
    if isinstance(algorithm, td.PPO | td.REINFORCE | td.PQN):  # which know it by their updates
        from thorndike import normalization

        state = state._replace(statistics=normalization.observe(state.statistics, steps, 0.9))
    return Agent(algorithm, state, OBSERVATIONS, action_space)


def raw_observations(count):
    return (np.random.default_rng(0).normal(size=(count, 3)) * [1, 30, 0.1] + [500, 0, 0]).astype(np.float32)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_network_handed_out_acts_like_the_agent_on_raw_observations(name, normalized):
    algorithm, action_space, choose = CASES[name]
    agent = agent_of(dataclasses.replace(algorithm, **NORMALIZED) if normalized else algorithm, action_space)
    observation = raw_observations(1000)
    expected = to_real(action_space, np)(np.asarray(choose(agent.network(observation))))
    np.testing.assert_allclose(agent.act(observation), expected, rtol=1e-4, atol=1e-5)
    if action_space is DISCRETE:  # as many outputs as the policy has, no more
        assert agent.network(observation).shape == (1000, 4)


def test_your_own_network_is_handed_back_or_is_behind_what_has_to_be_done_to_observations():
    module = eqx.nn.MLP(3, 4, 8, 1, key=jax.random.key(0))
    alone = agent_of(td.DQN(network=module), DISCRETE).network
    assert type(alone) is eqx.nn.MLP
    behind = agent_of(td.DQN(network=module, **NORMALIZED), DISCRETE).network
    assert type(behind.network.original()) is eqx.nn.MLP
    pair = agent_of(td.REINFORCE(network=(linear_init, linear)), DISCRETE).network
    assert pair["w"].shape == (3, 4)
    pair = agent_of(td.PPO(network=(linear_init, linear), critic_network=None), DISCRETE).network
    assert pair(raw_observations(5)).shape == (5, 4)
    assert pair.network.original()["w"].shape == (3, 5)


@pytest.mark.parametrize("name", CASES)
def test_an_agent_that_was_saved_acts_as_before_and_its_learning_stays_behind(name, tmp_path):
    algorithm, action_space, _ = CASES[name]
    agent = agent_of(dataclasses.replace(algorithm, **NORMALIZED), action_space)
    agent.fraction = 0.5
    for _ in range(2):  # the second takes the first one's place
        agent.save(tmp_path / "new" / "agent")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["agent"]
    loaded = td.Agent.load(str(tmp_path / "new" / "agent"))
    observation = raw_observations(20)
    for explore in (False, True):
        np.testing.assert_array_equal(loaded.act(observation, explore), agent.act(observation, explore))
    np.testing.assert_array_equal(loaded.network(observation), agent.network(observation))
    assert (loaded.algorithm, loaded.fraction) == (agent.algorithm, 0.5)
    names = " ".join(safe_open(tmp_path / "new" / "agent" / "agent.safetensors", framework="numpy").keys())
    assert "network" in names or "actor" in names
    assert not any(word in names for word in ("optimizer", "target", "critic", "baseline", "rewards"))


def test_a_network_of_your_own_is_handed_in_again(tmp_path):
    agent = agent_of(td.DQN(network=(linear_init, linear)), DISCRETE)
    agent.save(tmp_path / "agent")
    with pytest.raises(RunError, match="hand it in again with network="):
        td.Agent.load(tmp_path / "agent")
    loaded = td.Agent.load(tmp_path / "agent", network=(linear_init, linear))
    np.testing.assert_array_equal(loaded.network["w"], agent.network["w"])
    with pytest.raises(CorruptCheckpointError, match="does not fit"):
        td.Agent.load(tmp_path / "agent", network=td.MLP((3,)))
    with pytest.raises(UnknownNameError, match="no argument 'environment'"):
        td.Agent.load(tmp_path / "agent", environment="CartPole-v1")


class Mine(td.DQN):
    pass


def test_an_agent_takes_no_other_s_place_and_what_could_not_be_loaded_is_not_saved(tmp_path):
    agent = agent_of(td.DQN(**TINY), DISCRETE)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(RunError, match="not a folder that thorndike wrote, and stays"):
        agent.save(tmp_path / "run")
    with pytest.raises(RunError, match=r"that is a run, td\.load\("):
        td.Agent.load(tmp_path / "run")
    with pytest.raises(RunError, match=r"has no agent\.json"):
        td.Agent.load(tmp_path / "nothing")
    with pytest.raises(UnsuitableError, match="an agent of Mine cannot be saved"):
        agent_of(Mine(**TINY), DISCRETE).save(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    agent.save(tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "run"]


def manifest(**values):
    return lambda folder, outside: rewrite(folder / "agent.json", lambda found: found.update(values))


def of_algorithm(**values):
    return lambda folder, outside: rewrite(folder / "agent.json", lambda found: found["algorithm"].update(values))


def instead(name, data):
    return lambda folder, outside: (folder / name).write_bytes(data)


def a_link(name):
    return lambda folder, outside: ((folder / name).unlink(), (folder / name).symlink_to(outside))


BOX_OF = {"type": "Box", "dtype": "float32", "low": 0, "high": 1}
HOSTILE = {
    "no JSON": instead("agent.json", b"\xff{"),
    "deep": instead("agent.json", b"[" * 100_000),
    "not sealed": instead("agent.json", b'{"format": 1}'),
    "a format of the future": manifest(format=[99]),
    "a class of somebody's": of_algorithm(type="Popen"),
    "a field of somebody's": of_algorithm(hook="os.system"),
    "code for a number": of_algorithm(gamma="__import__('os')"),
    "absurdly wide": of_algorithm(network={"type": "MLP", "sizes": [2**50]}),
    "an algorithm that does not suit": manifest(action_space={"type": "MultiBinary", "shape": [2]}),
    "a space without end": manifest(observation_space=BOX_OF | {"shape": [2**40]}),
    "other observations": manifest(observation_space=BOX_OF | {"shape": [9]}),
    "no fraction": manifest(fraction="half"),
    "arrays of text": manifest(arrays="agent.safetensors"),
    "arrays of another size": manifest(arrays={"size": 3, "sha256": ""}),
    "other arrays": instead("agent.safetensors", bytes(500)),
    "arrays gone": lambda folder, outside: (folder / "agent.safetensors").unlink(),
    "a link for arrays": a_link("agent.safetensors"),
    "a link for the manifest": a_link("agent.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_answered_in_one_line(name, tmp_path):
    outside = tmp_path / "secret"
    outside.write_text("{}")
    folder = agent_of(td.DQN(**TINY), DISCRETE).save(tmp_path / "agent")
    HOSTILE[name](folder, outside)
    with pytest.raises(ThorndikeError) as caught:
        td.Agent.load(folder)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UnsuitableError) == (name == "an algorithm that does not suit")
    assert outside.read_text() == "{}"
