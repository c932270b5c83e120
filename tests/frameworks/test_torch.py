"""PyTorch modules as networks: in JAX they make what they make in PyTorch, with its gradients, or are refused."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium import spaces
from torch import nn
from torch_cases import CASES, Forward, Nature, Parts, Transformer, between, dense, frozen, hooked, tied

import thorndike as td
from thorndike import trainer
from thorndike.environments.functional import Vectorized
from thorndike.environments.probes import BlackOrWhite, MatchObservation, MixedSpaces
from thorndike.errors import SettingError
from thorndike.interface import console
from thorndike.networks import Network
from thorndike.networks.foreign import prepare
from thorndike.networks.foreign.aten import OPERATORS
from thorndike.networks.foreign.exported import trained
from thorndike.networks.foreign.torch import TorchSource

VECTOR = spaces.Box(-1, 1, (4,), np.float32)
BATCH = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.manual_seed(0)


def shown(make, observation):
    """The source of a module that has been shown an observation."""
    torch.manual_seed(0)
    source = TorchSource(make())
    source.parameters(None, None, jax.tree.map(lambda x: np.zeros((1, *x.shape[1:]), x.dtype), observation), 0)
    return source


def tensors(observation, module):
    """An observation as PyTorch's users have it: whole numbers of 64 bits, and a module of doubles is given doubles."""
    doubles = {x.dtype for x in module.parameters()} == {torch.float64}
    wide = {np.dtype(np.int32): np.int64, np.dtype(np.float32): np.float64 if doubles else np.float32}
    return jax.tree.map(lambda x: torch.from_numpy(x.astype(wide.get(x.dtype, x.dtype))), observation)


# Every kind of module


TAKEN = [name for name, case in CASES.items() if not case.refused]
REFUSED = [name for name, case in CASES.items() if case.refused]


@cache
def exported(name):
    """A case's source, whose graph is known after the first call, and that as a compiled function."""
    source = shown(CASES[name].make, CASES[name].observe(3))
    return source, jax.jit(source.apply)


def weights_of_outputs(shape):
    """So that every output counts differently."""
    return np.cos(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)


def gradients_in_torch(module, observation):
    given = tensors(observation, module)
    inputs = [x.requires_grad_() for x in jax.tree.leaves(given) if x.is_floating_point()]
    outputs = module(given)
    total = (torch.sin(outputs) * torch.from_numpy(weights_of_outputs(outputs.shape))).sum()
    leaves = [*trained(getattr(module, "_orig_mod", module)).values(), *inputs]
    found = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return [gradient.float().numpy() for gradient in found]


def gradients_in_jax(source, observation):
    floats = jax.tree.map(lambda x: x if x.dtype == np.float32 else None, observation)

    def total(parameters, floats):
        whole = jax.tree.map(lambda x, y: y if x is None else x, floats, observation, is_leaf=lambda x: x is None)
        outputs = source.apply(parameters, whole)
        return (jnp.sin(outputs) * weights_of_outputs(outputs.shape)).sum().astype(jnp.float32)

    gradients = jax.jit(jax.grad(total, (0, 1)))(source.weights(), floats)
    return [np.asarray(x, np.float32) for x in jax.tree.leaves(gradients)]


@pytest.mark.parametrize("name", TAKEN)
def test_a_module_makes_what_it_makes_in_pytorch_and_has_its_gradients(name):
    case, (source, call) = CASES[name], exported(name)
    module = copy.deepcopy(source.module)
    for batch in (1, 3, 128):
        observation = case.observe(batch)
        with torch.no_grad():
            right = module(tensors(observation, module)).float().numpy()
        np.testing.assert_allclose(call(source.weights(), observation), right, rtol=case.tolerance, atol=case.tolerance)
    ours, theirs = gradients_in_jax(source, case.observe(3)), gradients_in_torch(module, case.observe(3))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=10 * case.tolerance * max(1, np.abs(other).max()))


@pytest.mark.parametrize("name", REFUSED)
def test_a_module_that_is_no_one_function_is_refused_with_its_layer_and_what_to_do(name):
    case = CASES[name]
    with pytest.raises(SettingError, match=case.refused) as caught:
        exported(name)[0].apply((), case.observe(3))
    assert re.match(r"the PyTorch module \w+ cannot be trained here: ", str(caught.value))


def test_every_operator_that_we_know_is_met_by_a_module():
    met = set()
    for name in TAKEN:
        source, call = exported(name)
        jax.eval_shape(call, source.weights(), CASES[name].observe(3))
        for graph in source.graphs.values():
            targets = [node.target for node in graph.graph_module.graph.nodes if hasattr(node.target, "_schema")]
            met |= {target._schema.name.removeprefix("aten::") for target in targets}
            met |= {str(target).removeprefix("aten.") for target in targets}
    assert OPERATORS.keys() <= met


def test_modules_work_side_by_side_and_in_loops():
    source, call = exported("residual")
    x = CASES["residual"].observe(3)

    def shrinking(parameters):
        def step(parameters, _):
            return jax.tree.map(lambda w: w * 0.9, parameters), source.apply(parameters, x)

        return jax.lax.scan(step, parameters, None, 2)[1]

    two = jax.tree.map(lambda w: jnp.stack([w, w * 1.5]), source.weights())
    np.testing.assert_allclose(jax.jit(jax.vmap(shrinking))(two)[0, 0], call(source.weights(), x), atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere convolutions are XLA's")
def test_convolutions_of_modules_are_as_quick_as_ours():
    recipe = Network.coerce(Nature(2))
    module = recipe.init(jax.random.key(0), spaces.Box(0, 255, (4, 84, 84), np.uint8), 2)
    gradient = jax.jit(jax.grad(lambda module: (module(CASES["Nature CNN on bytes"].observe(2)) ** 2).sum()))
    assert "stablehlo.convolution" not in gradient.lower(module).as_text()


# Given back


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("make", [lambda: between(nn.Tanh()), frozen, tied, lambda: dense().double()])
def test_a_module_is_given_back_as_it_was_with_the_weights_that_it_has_now(make):
    given = make()
    before = copy.deepcopy(given.state_dict())
    module = Network.coerce(given).init(jax.random.key(0), VECTOR, given(tensors(BATCH, given)).shape[1])
    same = module.original()
    assert type(same) is type(given)
    assert same is not given
    assert_equal(same.state_dict(), before)
    moved = jax.tree.map(lambda x: x * 1.5 + 0.01, module)
    with torch.no_grad():
        outputs = moved.original()(tensors(BATCH, given)).float().numpy()
    np.testing.assert_allclose(outputs, moved(BATCH), atol=1e-5)
    assert_equal(given.state_dict(), before)


def test_what_is_frozen_stays_and_tied_weights_train_as_one():
    module = Network.coerce(frozen()).init(jax.random.key(0), VECTOR, 2)
    assert len(jax.tree.leaves(module)) == 3
    moved = jax.tree.map(lambda x: x + 1, module).original()
    assert torch.equal(moved[0].weight, module.original()[0].weight)
    assert not moved[0].weight.requires_grad
    module = Network.coerce(tied()).init(jax.random.key(0), VECTOR, 4)
    assert len(jax.tree.leaves(module)) == 3
    back = module.original()
    assert back.a.weight is back.b.weight


# Algorithms


QUICK = {"num_environments": 2, "rollout_length": 8}
OPTIONS = {"quiet": True, "evaluate_every": 0}
LITTLE = td.Replay(200, 8)


def small(inputs=4, outputs=2):
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


class Critic(nn.Module):
    """Q(s, a): observation and action come as one dictionary."""

    def __init__(self, inputs=4):
        super().__init__()
        self.layers = small(inputs, 1)

    def forward(self, seen):
        return self.layers(torch.cat([seen["observation"], seen["action"]], 1))


ALGORITHMS = {
    "dqn": lambda: (td.DQN(network=small(), memory=LITTLE, warmup_steps=16, **QUICK), "CartPole-v1"),
    "ppo": lambda: (
        td.PPO(network=small(), critic_network=small(outputs=1), batch_size=8, epochs=1, **QUICK), "CartPole-v1"
    ),
    "reinforce": lambda: (td.REINFORCE(network=small, baseline_network=None, **QUICK), "gymnasium:CartPole-v1"),
    "sac": lambda: (
        td.SAC(network=small(3), critic_network=Critic(), num_critics=1, memory=LITTLE, warmup_steps=16, **QUICK),
        "Pendulum-v1",
    ),
    "td3": lambda: (
        td.TD3(network=small(3, 1), memory=LITTLE, warmup_steps=16, normalize_observations=True, **QUICK), "Pendulum-v1"
    ),
}  # fmt: skip


def handed_back(run):
    """A run's module; where observations are normalised, that within."""
    network = run.agent.network
    return network if isinstance(network, nn.Module) else network.network.original()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_trains_a_module_and_hands_it_back(name, tmp_path):
    algorithm, environment = ALGORITHMS[name]()
    given = algorithm.network.source.given
    before = copy.deepcopy(given.state_dict())
    run = td.train(algorithm, environment, 160, run_dir=tmp_path / "run", **OPTIONS)
    back = handed_back(run)
    assert type(back) is nn.Sequential
    assert not torch.equal(back[0].weight, before["0.weight"])
    assert_equal(given.state_dict(), before)
    fields = {field: getattr(algorithm, field, None) for field in ("network", "critic_network")}
    again = td.load(tmp_path / "run", **{field: value for field, value in fields.items() if hasattr(value, "source")})
    assert_equal(handed_back(again).state_dict(), back.state_dict())


def test_a_run_that_is_resumed_is_the_run_that_never_stopped(tmp_path, monkeypatch):
    class Stopping(console.Silence):
        def chunk(self, chunk, rate):
            if chunk.steps >= 100:
                raise KeyboardInterrupt

    def train(folder):
        torch.manual_seed(0)
        return td.train(ALGORITHMS["dqn"]()[0], "CartPole-v1", 320, run_dir=tmp_path / folder, seeds=2, **OPTIONS)

    whole = train("whole")
    with monkeypatch.context() as patch:
        patch.setattr(console, "display", lambda story, quiet: Stopping())
        with pytest.raises(KeyboardInterrupt):
            train("run")
    torch.manual_seed(0)
    resumed = td.resume(tmp_path / "run", network=small(), quiet=True)
    for one, other in zip(whole.agents, resumed.agents, strict=True):
        assert_equal(one.network.state_dict(), other.network.state_dict())


def start(algorithm, seed):
    """What `seed` begins with: a function of observations."""
    prepared = prepare(algorithm, VECTOR, spaces.Discrete(2), seed)
    return prepared.network.init(jax.random.key(seed), VECTOR, 2)


@pytest.mark.parametrize("make", [small, lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2))])
def test_a_function_gives_each_seed_its_own_weights_the_same_every_time(make):
    state = torch.get_rng_state()
    outputs = [np.asarray(start(td.DQN(network=make), seed)(BATCH)) for seed in (3, 4, 3)]
    assert not np.allclose(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_module_starts_every_seed_from_the_weights_it_has_when_training_begins():
    given = small()
    algorithm = td.DQN(network=given)
    with torch.no_grad():
        given[0].weight.mul_(2)
        right = given(torch.from_numpy(BATCH)).numpy()
    for seed in (0, 1):
        np.testing.assert_allclose(start(algorithm, seed)(BATCH), right, atol=1e-5)


def test_a_function_that_imports_torch_itself_gives_the_same_weights_in_every_process():
    code = """
import numpy as np, jax
import thorndike as td
from gymnasium import spaces
from thorndike.networks.foreign import prepare

def make():
    import torch
    return torch.nn.Linear(4, 2)

vector = spaces.Box(-1, 1, (4,), np.float32)
algorithm = td.DQN(network=make)
for seed in (0, 1):
    module = prepare(algorithm, vector, spaces.Discrete(2), seed).network.init(jax.random.key(0), vector, 2)
    print(*np.asarray(module.original().weight.detach()).ravel().tolist())
"""
    root = str(Path(td.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first != second
    torch.manual_seed(0)
    assert [float(x) for x in first.split()] == nn.Linear(4, 2).weight.ravel().tolist()


# Observations


class Named(nn.Module):
    """For MixedSpaces: whole numbers are looked up, flags are multiplied."""

    def __init__(self):
        super().__init__()
        self.bit, self.level, self.out = nn.Embedding(2, 8), nn.Embedding(3, 8), nn.Linear(19, 6)

    def forward(self, seen):
        flags, bit = seen["pair"]
        level = self.level(seen["level"] + 1)
        return self.out(torch.cat([self.bit(bit), level, flags.float()], 1))


class Sees(nn.Module):
    """An image [height, width, 1] of bytes."""

    def __init__(self, outputs=2):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(100, 16), nn.Tanh(), nn.Linear(16, outputs)
        )

    def forward(self, x):
        return self.body(x.permute(0, 3, 1, 2) / 255.0)


@dataclasses.dataclass(frozen=True)
class Sequence(MatchObservation):
    """The observation five times over, four numbers wide."""

    observation_space: ClassVar = spaces.Box(-1, 1, (5, 4), np.float32)

    def observe(self, state):
        return jnp.broadcast_to(super().observe(state), (5, 4))

    def solution(self, gamma):
        solved = super().solution(gamma)
        return solved._replace(observation=np.broadcast_to(solved.observation[:, None], (2, 5, 4)))


FAST = {"gamma": 0.9, "learning_rate": 1e-2, "learning_rate_end": 0.0, "num_environments": 8}
PPO = td.PPO(network=Sees(), critic_network=Sees(1), rollout_length=32, epochs=4, batch_size=64, **FAST)
DQN = td.DQN(
    **FAST, rollout_length=4, updates_per_rollout=4, warmup_steps=64, target_period=10, epsilon_end=0.3,
    memory=td.Replay(4_000, 64),
)  # fmt: skip
LEARNING = {
    "an image by PPO": (lambda: PPO, BlackOrWhite(size=12), 10_000),
    "an image by DQN": (lambda: dataclasses.replace(DQN, network=Sees()), BlackOrWhite(size=12), 8_000),
    "a dictionary": (lambda: dataclasses.replace(DQN, network=Named()), MixedSpaces("nested"), 12_000),
    "a sequence by a transformer": (
        lambda: dataclasses.replace(DQN, network=Transformer(), learning_rate=3e-3), Sequence(), 6_000
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEARNING)
def test_a_module_learns(name):
    make, environment, steps = LEARNING[name]
    algorithm, copies = make(), Vectorized(environment, 8)
    *_, last = trainer.train(algorithm, lambda: copies, steps)
    policy = algorithm.policy(last.progress.state, jnp.float32(1), explore=False)
    best = environment.solution(0.9)
    action = jax.jit(algorithm.act)(policy, best.observation, (), jax.random.key(0))[0]
    np.testing.assert_array_equal(action, best.action)


@pytest.mark.full
def test_dqn_solves_cart_pole_with_a_module_and_pytorch_acts_as_it_does(tmp_path):
    def network():
        return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    algorithm = td.DQN(network=network)
    run = td.train(algorithm, "CartPole-v1", 100_000, seeds=3, run_dir=tmp_path / "run", quiet=True)
    assert min(run.summary["evaluation"]["per_seed"]) >= 475
    for agent in run.agents:
        with torch.no_grad():
            action = agent.network(torch.from_numpy(BATCH)).argmax(1).numpy()
        np.testing.assert_array_equal(action, agent.act(BATCH))


# What does not fit


@pytest.mark.parametrize(
    ("make", "space", "says"),
    [
        (lambda: dense(4, 3), VECTOR, r"makes \(2, 3\) of 2 observations of shape \(4,\), expected \(2, 2\)"),
        (lambda: dense(3, 2), VECTOR, r"shape \(4,\): RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        (lambda: nn.Conv2d(3, 2, 3), spaces.Box(0, 1, (12, 12, 3), np.float32), r"write x.permute\(0, 3, 1, 2\)"),
        (Parts, spaces.Dict(image=VECTOR), "'image': \\(4,\\)"),
        (lambda: nn.Embedding(3, 2), VECTOR, "indices"),
        (lambda: nn.Linear(4, 2, device="meta"), VECTOR, "on the meta device"),
        (lambda: nn.Embedding(3, 2, scale_grad_by_freq=True), spaces.Discrete(3), "gradients of its own"),
        (hooked, VECTOR, "has hooks on gradients"),
        (lambda: nn.MaxPool2d(2, dilation=2), spaces.Box(0, 1, (1, 8, 8), np.float32), "no gradient"),
    ],
)
def test_a_module_that_does_not_fit_is_answered(make, space, says):
    with pytest.raises(SettingError, match=says):
        Network.coerce(make()).init(jax.random.key(0), space, 2)


def test_two_critics_from_one_module_are_refused():
    with pytest.raises(SettingError, match=r"2 equal critics are no better than one.* num_critics=1"):
        td.train(td.SAC(network=small(3), critic_network=Critic()), "Pendulum-v1", 5_000, run_dir=None, quiet=True)


@pytest.mark.parametrize("change", [lambda module: module.eval(), lambda module: module.scale.mul_(2)])
def test_what_does_not_train_may_not_change_after_a_module_was_handed_over(change):
    given = Forward(lambda self, x: self.a(x) * self.scale, a=dense(), scale=torch.ones(1))
    algorithm = td.DQN(network=given)
    change(given)
    with pytest.raises(SettingError, match=r"has changed in what does not train .* hand it over again"):
        start(algorithm, 0)
    start(td.DQN(network=given), 0)


# With a memory


class Remembering(nn.Module):
    """A GRU or LSTM cell between two layers; its carry is that of one copy, without an axis for the batch."""

    def __init__(self, cell=nn.GRUCell, begin=0.0, back=8):
        super().__init__()
        self.cell, self.head, self.begin, self.back = cell(4, 8), nn.Linear(8, 2), begin, back

    def initial_carry(self):
        zeros = torch.full((8,), self.begin)
        return zeros if isinstance(self.cell, nn.GRUCell) else {"hidden": zeros, "cell": zeros.clone()}

    def forward(self, observation, carry):
        if isinstance(self.cell, nn.GRUCell):
            hidden = self.cell(observation, carry)
            return self.head(hidden), hidden[:, : self.back]
        hidden, cell = self.cell(observation, (carry["hidden"], carry["cell"]))
        return self.head(hidden), {"hidden": hidden, "cell": cell}


class Unbegun(nn.Module):
    def forward(self, observation, carry):
        return observation, carry


@pytest.mark.parametrize("cell", [nn.GRUCell, nn.LSTMCell])
def test_a_module_with_a_memory_remembers_as_in_pytorch_and_comes_back(cell):
    module = Remembering(cell)
    recipe = Network.coerce(module)
    network = recipe.init(jax.random.key(0), VECTOR, 2)
    assert all(x.shape == (3, 8) and not x.any() for x in jax.tree.leaves(recipe.initial_carry(3)))
    x, carry = BATCH[:5], jax.tree.map(lambda x: x + BATCH[:5, :1], recipe.initial_carry(5))
    found = jax.jit(lambda network, x, carry: network(x, carry))(network, x, carry)
    expected = module(torch.from_numpy(x), jax.tree.map(lambda x: torch.from_numpy(np.array(x)), carry))
    assert jax.tree.structure(found) == jax.tree.structure(jax.tree.map(lambda x: 0, expected))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-6)
    back = network.original()
    assert type(back) is Remembering
    np.testing.assert_array_equal(back.cell.weight_hh.detach(), module.cell.weight_hh.detach())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Unbegun(), r"give it a method initial_carry\(\)"),
        (lambda: Remembering(begin=1.0), "must make zeros"),
        (lambda: Remembering(back=3), r"given, float32\[2,8\], got float32\[2,3\]"),
    ],
    ids=["no beginning", "ones", "another shape"],
)
def test_half_a_memory_is_refused(make, says):
    with pytest.raises(SettingError, match=says):
        Network.coerce(make()).init(jax.random.key(0), VECTOR, 2)
