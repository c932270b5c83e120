"""Networks over time: step by step, side by side and as a sequence they are one function, whatever remembers."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import lax, random

import thorndike as td
from remembering import REMEMBERING, but_full, numbers
from thorndike.networks import Network
from thorndike.networks.recurrent import in_rounds, in_turn
from thorndike.sequences import Unrolled, afresh, cut, first, over_time, remembers, side_by_side, step

SPACE = spaces.Dict(a=spaces.Box(-1, 1, (2,), np.float32), b=spaces.Box(-1, 1, (1,), np.float32))
LENGTH, COPIES, CHUNK = 8, 3, 4
ENDED = np.zeros((LENGTH, COPIES), bool)
ENDED[[0, 3, 4, 7], [0, 0, 0, 0]] = ENDED[[2, 5], [1, 1]] = True  # twice in a row, at both edges; never in the last


def observations(length=LENGTH):
    draw = np.random.default_rng(0)
    return {name: draw.normal(size=(length, COPIES, n)).astype(np.float32) for name, n in (("a", 2), ("b", 1))}


def drawn(recipe):
    """A module with weights none of which is zero, or like another; NumPy draws them, so that nothing is compiled."""
    draw = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda key: recipe.init(key, SPACE, 2), random.key(0))
    return jax.tree.map(lambda x: draw.normal(0, 0.6, x.shape).astype(x.dtype), shapes)


def step_by_step(module, observation, carry, ended):
    """The definition of `over_time`."""

    def one(carry, now):
        outputs, after = step(module, now[0], carry)
        return afresh(after, now[1]), Unrolled(outputs, carry, after)

    return lax.scan(one, carry, (observation, ended))[1]


@cache
def seen(name):
    """All that the tests look at of a network, made by three programs; its first carry is that of a running episode."""
    recipe = Network.coerce(REMEMBERING[name])
    module, x = drawn(recipe), observations()

    def learned(run):
        """Compiled: a run, and the gradient of a loss of its outputs."""

        def loss(module, *sequence):
            unrolled = run(module, *sequence)
            outputs = unrolled.outputs
            weights = jnp.cos(jnp.arange(outputs.size, dtype=jnp.float32)).reshape(outputs.shape)
            return (outputs * weights).sum(), unrolled

        return jax.jit(jax.grad(loss, has_aux=True))

    def otherwise(module, x, before):
        stored = first(cut(before, CHUNK))
        chunks = over_time(module, *cut((x,), CHUNK), stored, cut(jnp.asarray(ENDED), CHUNK)).outputs
        return side_by_side(module, x, before), chunks

    by_steps = learned(step_by_step)
    _, warm = by_steps(module, x, recipe.initial_carry(COPIES), np.zeros_like(ENDED))
    carry = jax.tree.map(lambda x: x[1], warm.after)
    gradient_of_steps, slow = by_steps(module, x, carry, ENDED)
    gradient, whole = learned(over_time)(module, x, carry, ENDED)
    side, chunks = jax.jit(otherwise)(module, x, whole.before)
    return SimpleNamespace(
        module=module, carry=carry, whole=whole, slow=slow, side=side, chunks=chunks, gradient=gradient,
        gradient_of_steps=gradient_of_steps,
    )  # fmt: skip


def assert_close(found, expected, tolerance=1e-5):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(numbers(found), numbers(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", but_full("GRU", "Attention"))  # they are in "nested" and in the two layers
def test_step_by_step_side_by_side_in_chunks_and_as_a_sequence_a_network_is_one_function(name):
    of = seen(name)
    assert of.whole.outputs.shape == (LENGTH, COPIES, 2)
    assert_close(of.whole, of.slow)
    assert_close(of.side, (of.whole.outputs, of.whole.after))
    assert_close(of.chunks, cut(of.whole.outputs, CHUNK))
    assert all(np.abs(x).max() > 0 for x in numbers(of.carry))


@pytest.mark.parametrize("name", but_full("GRU", "Attention"))  # they are in "nested" and in the two layers
def test_carries_are_those_before_and_after_each_step_and_after_is_before_the_reset(name):
    of = seen(name)
    for begin, before, after in zip(*map(numbers, (of.carry, of.whole.before, of.whole.after)), strict=True):
        np.testing.assert_array_equal(before[0], begin)
        assert not before[1:][ENDED[:-1]].any()
        np.testing.assert_array_equal(before[1:][~ENDED[:-1]], after[:-1][~ENDED[:-1]])
        assert all(x.any() for x in after[ENDED])


@pytest.mark.parametrize("name", but_full("GRU", "Attention"))  # they are in "nested" and in the two layers
def test_gradients_through_a_sequence_are_those_through_its_steps(name):
    of = seen(name)
    largest = max(np.abs(x).max() for x in numbers(of.gradient_of_steps))
    assert_close(
        jax.tree.map(lambda x: x / largest, of.gradient), jax.tree.map(lambda x: x / largest, of.gradient_of_steps)
    )
    assert all(x.any() for x in numbers(of.gradient))


@pytest.mark.parametrize("name", ["LSTM", pytest.param("GRU", marks=pytest.mark.full), "MinGRU", "Attention"])
def test_seeds_side_by_side_begin_and_see_as_the_seed_alone(name):
    recipe, x = REMEMBERING[name], observations()

    def run(key):
        module = recipe.init(key, SPACE, 2)
        return module, over_time(module, x, recipe.initial_carry(COPIES), jnp.asarray(ENDED))

    keys = random.split(random.key(3), 2)
    several, alone = jax.jit(jax.vmap(run))(keys), [jax.jit(run)(key) for key in keys]
    for i in range(2):
        for x, y in zip(numbers(several[0]), numbers(alone[i][0]), strict=True):
            np.testing.assert_array_equal(x[i], y)
        assert_close(jax.tree.map(lambda x, i=i: x[i], several[1]), alone[i][1])


def test_a_tuple_of_modules_is_one_module_and_nothing_sees_nothing():
    x, ended = observations(), jnp.asarray(ENDED)
    alone, plain = seen("LSTM"), drawn(td.MLP((3,)))

    def run(module, plain):
        modules, carry = (module, (plain, ()), ()), (alone.carry, ((), ()), ())
        one = jax.tree.map(lambda x: x[0], x)
        return over_time(modules, x, carry, ended), step(modules, one, carry), jax.vmap(plain)(x)

    whole, one, values = jax.jit(run)(alone.module, plain)
    assert whole.outputs[1][1] == whole.outputs[2] == ()
    assert whole.before[1:] == whole.after[1:] == (((), ()), ())
    assert_close(whole.outputs[0], alone.whole.outputs)
    assert_close((whole.before[0], whole.after[0]), (alone.whole.before, alone.whole.after))
    assert_close(whole.outputs[1][0], values)
    assert_close(one[0][0], alone.whole.outputs[0])
    assert_close(one[1][0], jax.tree.map(lambda x: x[0], alone.whole.after))
    assert over_time((), x, (), ended) == Unrolled((), (), ())


def test_without_a_memory_all_steps_are_one_batch():
    module = jax.jit(lambda key: td.MLP((3,)).init(key, SPACE, 2))(random.key(0))
    x = observations()
    program = jax.make_jaxpr(over_time)(module, x, (), jnp.asarray(ENDED))
    assert not {str(equation.primitive) for equation in program.eqns} & {"scan", "while"}
    flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), x)
    unrolled = over_time(module, x, (), jnp.asarray(ENDED))
    np.testing.assert_array_equal(unrolled.outputs.reshape(-1, 2), module(flat))
    assert unrolled.before == unrolled.after == ()
    assert not remembers(unrolled.before)
    assert remembers(REMEMBERING["Attention"].initial_carry(1))


@pytest.mark.parametrize(("name", "slow"), [("GRU", True), ("MinGRU", False), ("Attention", False)])
def test_on_accelerators_only_what_has_no_quicker_way_goes_step_after_step(name, slow):
    recipe = REMEMBERING[name]
    module = jax.eval_shape(lambda key: recipe.init(key, SPACE, 2), random.key(0))
    carry = recipe.initial_carry(COPIES)
    traced = jax.jit(lambda *given: over_time(*given).outputs).trace(module, observations(), carry, jnp.asarray(ENDED))
    assert ("stablehlo.while" in traced.lower(lowering_platforms=("cuda",)).as_text()) == slow


def test_a_linear_recurrence_is_the_same_in_turn_and_in_rounds():
    """The second is for accelerators, and nothing else here runs it."""
    keep, new = (np.random.default_rng(seed).uniform(-1, 1, (13, 2, 3)).astype(np.float32) for seed in (0, 1))
    hidden, expected = np.zeros((2, 3)), []
    for k, n in zip(keep, new, strict=True):
        hidden = k * hidden + n
        expected.append(hidden)
    for way in (in_turn, in_rounds):
        np.testing.assert_allclose(jax.jit(way)(keep, new), expected, atol=1e-5)


def test_a_rollout_is_cut_into_sequences_of_one_copy_each():
    time, copy = np.meshgrid(np.arange(6), np.arange(2), indexing="ij")
    sequences = cut({"x": np.stack([time, copy], -1)}, 3)["x"]
    np.testing.assert_array_equal(sequences[:, :, 0].T, [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]])
    np.testing.assert_array_equal(sequences[:, :, 1].T, [[0] * 3, [1] * 3, [0] * 3, [1] * 3])
    with pytest.raises(ValueError, match="reshape"):
        cut(time, 4)
