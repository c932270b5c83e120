"""Policies as ONNX files: what ONNX Runtime makes of them is what the agent does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import lax, nn, random

import thorndike as td
from thorndike.errors import UnsuitableError
from thorndike.runs import export
from thorndike.runs.agents import Agent

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from thorndike.runs import onnx_writer

FLAT, IMAGE = spaces.Box(-np.inf, np.inf, (6,)), spaces.Box(0, 255, (12, 12, 3), np.uint8)
MIXED = spaces.Dict(
    image=IMAGE, vector=spaces.Box(-1.0, 1.0, (5,)), which=spaces.Discrete(100, start=1), pair=spaces.MultiBinary(2)
)
CHOICES, BOX = spaces.Discrete(4, start=3), spaces.Box(-2.0, 5.0, (2,), np.float64)
TINY, SEEING = td.MLP((8,)), td.CNN((4, 4), (4, 3), (2, 1), (8,))


def init(key, observation, outputs):
    return {"kernel": random.normal(key, (2, 2, 3, 4)), "weight": random.normal(key, (100, outputs)) / 10}


def apply(parameters, images):
    x = images.astype(jnp.float32) / 255
    x = lax.conv_general_dilated(x, parameters["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = lax.reduce_window(nn.elu(x), 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID") / 4
    return x.reshape(x.shape[0], -1) @ parameters["weight"]


POLICIES = {
    "dqn": (td.DQN(network=SEEING), IMAGE, CHOICES),
    "dqn, dueling": (td.DQN(network=td.MLP((8,), activation="elu"), dueling=True), FLAT, CHOICES),
    "ppo": (td.PPO(network=TINY), FLAT, CHOICES),
    "ppo, continuous, normalised": (td.PPO(network=TINY, normalize_observations=True), FLAT, BOX),
    "ppo, dict": (td.PPO(network=SEEING, critic_network=None), MIXED, spaces.MultiDiscrete([3, 4])),
    "ppo, wide choices": (td.PPO(network=td.MLP((8,), activation="gelu")), MIXED, BOX),
    "sac": (td.SAC(network=td.MLP((8,), activation="silu"), normalize_observations=True), MIXED, BOX),
    "td3": (td.TD3(network=TINY), spaces.Discrete(9), spaces.Box(-1.0, 1.0, (2, 2))),
    "a network of your own": (td.DQN(network=(init, apply)), IMAGE, CHOICES),
}


def run(path_or_bytes, inputs):
    session = onnxruntime.InferenceSession(path_or_bytes, providers=["CPUExecutionProvider"])
    return session.run(["action"], inputs)[0]


@pytest.mark.parametrize("name", POLICIES)
def test_onnx_runtime_acts_like_the_agent(name, tmp_path):
    algorithm, observation_space, action_space = POLICIES[name]
    state = algorithm.init(random.key(0), observation_space, action_space)
    agent = Agent(algorithm, state, observation_space, action_space)
    path = agent.export(tmp_path / "policy.onnx")
    batch = export.draw(observation_space, (), np.random.default_rng(1), 1_000)
    named = batch if isinstance(batch, dict) else {"observation": batch}
    expected = agent.act(batch)
    found = run(str(path), named)
    assert (found.shape, found.dtype.itemsize) == (expected.shape, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(str(path), {k: x[:1] for k, x in named.items()}), expected[:1], rtol=1e-4, atol=1e-5)
    assert (tmp_path / "contract.json").exists()


WEIGHT = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)
PLACES = np.array([2, 0])


def at_best(x):
    return jnp.take_along_axis(x, x.argmax(1)[:, None], 1)


def pooled(kind, start):
    return lambda x: lax.reduce_window(x, start, kind, (1, 2, 3, 1), (1, 2, 2, 1), "SAME")


def recurrent(x):
    def step(state, now):
        state = jnp.tanh(state * 0.5 + now)
        return state, state.sum()

    return lax.scan(step, jnp.zeros(x.shape[:1]), x.T, reverse=True)[0]


def depthwise(x):
    numbers = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 3, "rhs_dilation": (1, 2)}
    return lax.conv_general_dilated(x, jnp.ones((3, 2, 1, 6)), (1, 1), [(1, 0), (2, 1)], **numbers)


def attended(x):
    x = x.reshape(x.shape[0], 8, -1)
    return jnp.einsum("bij,bjk->bik", nn.softmax(jnp.einsum("bik,bjk->bij", x, x) / 9), x)


def rows(places, **mode):
    return jnp.array(WEIGHT).at[places].get(**mode)


OF_NUMBERS = {
    **{name: getattr(nn, name) for name in (
        "relu", "gelu", "silu", "elu", "softplus", "sigmoid", "leaky_relu", "celu", "selu", "hard_tanh", "hard_swish",
        "mish", "log_sigmoid", "relu6", "soft_sign", "log_softmax", "softmax", "standardize",
    )},
    **{name: getattr(jnp, name) for name in (
        "sin", "cos", "tan", "arctan", "sinh", "cosh", "arcsinh", "tanh", "floor", "ceil", "rint", "sign", "abs", "exp",
        "exp2", "expm1", "square", "isfinite", "isnan",
    )},
    "gelu, exact": lambda x: nn.gelu(x, approximate=False),
    "powers": lambda x: jnp.abs(x) ** 2.5 + x**3 + 1 / (1 + x**2) + jnp.log1p(jnp.abs(x)),
    "remainders": lambda x: jnp.mod(x, 2.0) + jnp.fmod(x, 1.5),
    "statistics": lambda x: x.var(1) + x.max(1) + x.min(1) + x.prod(1) + nn.logsumexp(x, axis=1),
    "any and all": lambda x: (x > 0).any(1) ^ (x > 0).all(1),
    "places": lambda x: jnp.argmin(x, 1) + jnp.argmax(x, 1),
    "sorted": lambda x: jnp.sort(x, axis=1),
    "best": lambda x: lax.top_k(x, 2)[1],
    "sums": lambda x: jnp.cumsum(x, axis=1) + jnp.flip(jnp.cumsum(jnp.flip(x, 1), axis=1), 1),
    "each row at its place": at_best,
    "each row by number": lambda x: x[jnp.arange(x.shape[0]), x.argmax(1)],
    "columns": lambda x: x[:, PLACES],
    "slices": lambda x: x[:, -1] + x[:, ::-1][:, 0] + x[:, 1::2].sum(1),
    "padded": lambda x: lax.pad(x, np.float32(1), ((0, 0, 0), (2, -1, 0))),
    "tiled": lambda x: jnp.tile(x, (1, 2)),
    "stacked": lambda x: jnp.stack([x, 2 * x], 1),
    "chosen": lambda x: lax.select_n(jnp.clip(x.astype(jnp.int32), 0, 2), x, x * 2, x * 3),
    "bounded": lambda x: jnp.where(x > 0, x, -1.0) + jnp.clip(x, -1, 1) + jnp.nan_to_num(x),
    "products": lambda x: (x @ WEIGHT) @ WEIGHT.T,
    "the batch": lambda x: x - x.mean(0, keepdims=True) + x.shape[0],
    "twice the batch": lambda x: jnp.concatenate([x, x], 0).reshape(2, -1, 5).sum(0),
    "at a place that is computed": lambda x: lax.dynamic_slice_in_dim(x, x.sum().astype(jnp.int32), 2, 1),
    "a loop": recurrent,
    "computed again": jax.checkpoint(jnp.sin),
    "what nobody needs": lambda x: (random.normal(random.key(0), x.shape), x * 2)[1],
}  # fmt: skip
OF_IMAGES = {
    "largest": pooled(lax.max, -np.inf),
    "least": pooled(lax.min, np.inf),
    "sums": pooled(lax.add, 0.0),
    "depthwise": depthwise,
    "resized": lambda x: jax.image.resize(x, (x.shape[0], 4, 5, 3), "bilinear"),
    "attended": attended,
    "split": lambda x: jnp.concatenate(jnp.split(x, [1, 2], 2)[::-1], 2),
    "rows each": lambda x: jax.vmap(lambda image: image[image[:, 0, 0].argmax()])(x),
    "columns each": lambda x: jax.vmap(lambda image: image[:, image[0, :, 0].argmax()])(x),
    "places apart": lambda x: x[:, PLACES, :, PLACES],
    "a table of places": lambda x: jnp.take(x, np.array([[2, 0], [1, 1]]), axis=2),
}
OF_CHOICES = {
    "filled": lambda x: rows(x, mode="fill", fill_value=7),
    "filled with nan": lambda x: rows(x, mode="fill"),
    "clipped": lambda x: rows(x, mode="clip"),
    "one-hot": lambda x: nn.one_hot(x, 4),
    "whole": lambda x: x // 2 + x % 3 + ((x & 3) | (x ^ 5)) + ~x,
}
SHAPES = {"numbers": ((5,), np.float32), "images": ((8, 9, 3), np.float32), "choices": ((), np.int32)}
FUNCTIONS = {
    f"{name} of {kind}": (function, *SHAPES[kind])
    for kind, functions in (("numbers", OF_NUMBERS), ("images", OF_IMAGES), ("choices", OF_CHOICES))
    for name, function in functions.items()
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_written_computes_the_same(name):
    function, shape, dtype = FUNCTIONS[name]
    kind = {"x": jax.ShapeDtypeStruct(shape, dtype)}
    model = onnx_writer.model(lambda inputs: function(inputs["x"]), kind, "action").SerializeToString()
    for count in (1, 7):
        spread = 3 if dtype == np.float32 else 9  # choices beyond the ends too
        x = (spread * np.random.default_rng(count).normal(size=(count, *shape))).astype(dtype)
        expected, found = np.asarray(function(jnp.asarray(x))), run(model, {"x": x})
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("primitive", "function"),
    [
        ("fft", lambda x: jnp.fft.rfft(x).real),
        ("cond", lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x)),
        ("random_bits", lambda x: x + random.normal(random.key(0), x.shape)),
        ("while", lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x)),
    ],
)
def test_what_cannot_be_written_is_named_and_stablehlo_is_offered(primitive, function):
    with pytest.raises(UnsuitableError, match=rf"JAX's primitive {primitive}\. Export it as \.stablehlo"):
        onnx_writer.model(lambda inputs: function(inputs["x"]), {"x": jax.ShapeDtypeStruct((5,), np.float32)}, "action")
