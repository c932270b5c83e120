"""Spaces: how observations are stored and checked, how actions are scaled, and how spaces are written and read."""

from __future__ import annotations

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import random

from thorndike.errors import CorruptCheckpointError, UnsuitableError
from thorndike.spaces import (
    MAX_ELEMENTS,
    bounded,
    check_action_space,
    describe,
    from_description,
    plain,
    stored,
    to_real,
    uniform_action,
)

INF = np.inf
BOX = spaces.Box(-INF, INF, (4,))
MIXED = spaces.Box(np.array([-2, -INF, 0, -INF, 3], "f"), np.array([5, INF, INF, 1, 3.5], "f"))


@st.composite
def boxes(draw):
    dtype = np.dtype(draw(st.sampled_from(["float32", "float64", "float16", "uint8", "int64", "int32", "bool"])))
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    if dtype.kind == "f":
        width = 8 * dtype.itemsize
        ends = st.one_of(st.floats(-1e4, 1e4, width=width), st.sampled_from([INF, -INF]))
    elif dtype.kind == "b":
        ends = st.integers(0, 1)
    else:
        limits = np.iinfo(dtype)  # and what 32 bits hold
        ends = st.integers(max(limits.min, -(2**31)), min(limits.max, 2**31 - 1))
    size = int(np.prod(shape))
    pairs = draw(st.lists(st.tuples(ends, ends), min_size=size, max_size=size))
    low = np.array([min(pair) for pair in pairs], dtype).reshape(shape)
    high = np.array([max(pair) for pair in pairs], dtype).reshape(shape)
    if dtype.kind == "f":  # a bound at the wrong infinity is none that a Box may have
        low, high = np.where(low == INF, 0, low).astype(dtype), np.where(high == -INF, 0, high).astype(dtype)
        low, high = np.minimum(low, high), np.maximum(low, high)
    return spaces.Box(low, high, shape, dtype)


counts = st.lists(st.tuples(st.integers(1, 9), st.integers(-5, 5)), min_size=1, max_size=4)
leaves = st.one_of(
    boxes(),
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 50), st.integers(-50, 50)),
    counts.map(lambda c: spaces.MultiDiscrete([n for n, _ in c], start=[s for _, s in c])),
    st.lists(st.integers(1, 3), min_size=1, max_size=2).map(lambda shape: spaces.MultiBinary(tuple(shape))),
)
any_space = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.text(min_size=1, max_size=4), parts, min_size=1, max_size=3).map(spaces.Dict),
    ),
    max_leaves=5,
)


def identical(a, b) -> bool:
    """Equal to the last bit: gymnasium's own `==` on a Box is only close."""
    if type(a) is not type(b) or a != b:
        return False
    if isinstance(a, spaces.Box):
        return np.array_equal(a.low, b.low) and np.array_equal(a.high, b.high)
    if isinstance(a, (spaces.Dict, spaces.Tuple)):
        keys = range(len(a.spaces)) if isinstance(a, spaces.Tuple) else a.spaces
        return all(identical(a[key], b[key]) for key in keys)
    return True


@settings(deadline=None, max_examples=80)
@given(any_space)
def test_a_described_space_is_read_back_identically(space):
    assert identical(from_description(json.loads(json.dumps(describe(space), allow_nan=False))), space)


@settings(deadline=None, max_examples=80)
@given(any_space, st.integers(0, 2**31 - 1))
def test_whatever_a_space_samples_is_stored_as_promised(space, seed):
    space.seed(seed)
    value = plain(space, space.sample())
    promised = stored(space)
    assert jax.tree.structure(value) == jax.tree.structure(promised)
    for leaf, promise in zip(jax.tree.leaves(value), jax.tree.leaves(promised), strict=True):
        assert isinstance(leaf, np.ndarray)
        assert (leaf.shape, leaf.dtype) == (promise.shape, promise.dtype)
        assert leaf.dtype.itemsize <= 4


def test_bounds_beyond_32_bits_are_read_back_too():
    for dtype in ("int64", "uint64", "int8"):
        limits = np.iinfo(dtype)
        space = spaces.Box(limits.min, limits.max - 2, (2,), dtype)
        assert identical(from_description(describe(space)), space)


def test_64_bits_are_stored_in_32_of_the_same_kind_and_narrower_numbers_as_they_are():
    for given_dtype, kept in [("float64", "float32"), ("int64", "int32"), ("uint64", "uint32"), ("uint8", "uint8"),
                              ("float16", "float16"), ("bool", "bool")]:  # fmt: skip
        assert stored(spaces.Box(0, 1, (2,), given_dtype)).dtype == kept
    assert stored(spaces.Discrete(3)) == jax.ShapeDtypeStruct((), np.int32)
    assert stored(spaces.MultiBinary((2, 3))) == jax.ShapeDtypeStruct((2, 3), np.int8)


def test_dict_keys_are_sorted_and_the_start_of_a_discrete_stays_in_observations():
    space = spaces.Dict([("z", spaces.Discrete(3, start=7)), ("a", BOX)])
    assert list(stored(space)) == ["a", "z"]
    value = plain(space, {"z": np.int64(8), "a": np.zeros(4)})
    assert list(value) == ["a", "z"]
    assert value["z"] == 8


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Sequence(BOX), spaces.Graph(BOX, None), None])
def test_a_space_of_another_kind_is_refused_by_name(space):
    for nested in (space, spaces.Dict({"x": space})) if space is not None else (space,):
        for ask in (stored, describe, lambda s: plain(s, {"x": 0})):
            with pytest.raises(UnsuitableError, match=type(space).__name__):
                ask(nested)


def test_integers_that_do_not_fit_into_32_bits_are_refused():
    for space in (spaces.Discrete(5, start=2**31 - 3), spaces.MultiDiscrete([2**31, 2]), spaces.Discrete(2**31)):
        with pytest.raises(UnsuitableError, match="32 bits"):
            stored(space)
    stored(spaces.Discrete(2**31 - 1))


BAD = [
    (BOX, np.ones(5, "f"), r"expected float32\[4\], got float32\[5\]"),
    (BOX, np.ones(1, "f"), r"expected float32\[4\], got float32\[1\]"),
    (BOX, ["1", "2", "3", "4"], r"expected float32\[4\], got list"),
    (BOX, None, "got NoneType"),
    (BOX, "four", "got str"),
    (BOX, [1.0, [2.0]], "got list"),
    (BOX, np.ones(4, complex), "got ndarray"),
    (BOX, np.array([0, 1, np.nan, 0], "f"), r"nan at index \[2\] is not a finite"),
    (BOX, np.array([0, 1, 1e300, 0]), r"inf at index \[2\] is not a finite"),
    (spaces.Box(0, 1, ()), -INF, "-inf is not a finite"),
    (spaces.Box(0, 255, (3,), np.uint8), [300, -1, 256], "expected uint8 numbers, got values from -1 to 300"),
    (spaces.Box(0, 255, (1,), np.uint8), [1.5], r"expected uint8\[1\], got float64\[1\]"),
    (spaces.Box(0, 1, (1,), np.int64), [2**40], "got values from 1099511627776"),
    (spaces.Box(0, 1, (1,), bool), [1], r"expected bool\[1\], got int64\[1\]"),
    (spaces.Discrete(3, start=2), 1, "whole numbers from 2 to 4, got 1"),
    (spaces.Discrete(3, start=2), 5, "whole numbers from 2 to 4, got 5"),
    (spaces.Discrete(3), 1.0, r"got float64\[\]"),
    (spaces.Discrete(3), np.zeros(1, int), r"got int64\[1\]"),
    (spaces.Discrete(3), np.uint64(2**63), "got 9223372036854775808"),
    (spaces.Discrete(3), "1", "got str"),
    (spaces.MultiDiscrete([2, 3], start=[1, 0]), [1, 3], r"got \[1, 3\]"),
    (spaces.MultiBinary(2), [0, 2], r"got \[0, 2\]"),
    (spaces.Dict(a=BOX, b=BOX), {"a": np.ones(4)}, r"without \['b'\]"),
    (spaces.Dict(a=BOX), {"a": np.ones(4), 3: 1}, r"with \['3'\]"),
    (spaces.Dict(a=BOX), np.ones(4), "expected a dict"),
    (spaces.Tuple([BOX]), (np.ones(4), np.ones(4)), "got 2 parts"),
    (spaces.Tuple([BOX]), np.ones((1, 4)), "expected a tuple"),
    (spaces.Dict(a=spaces.Tuple([BOX, BOX])), {"a": (np.ones(4), np.ones(3))}, r"observation\['a'\]\[1\]: expected"),
]


@pytest.mark.parametrize(("space", "value", "text"), BAD)
def test_a_value_that_breaks_its_spaces_word_is_refused_in_plain_text(space, value, text):
    with pytest.raises(ValueError, match=text) as caught:
        plain(space, value)
    assert str(caught.value).startswith("observation")
    assert len(str(caught.value)) < 200


def test_values_of_another_width_or_container_are_taken():
    assert plain(BOX, [0.5, 1.0, 2.0, 3.0]).dtype == np.float32
    assert plain(BOX, jnp.ones(4)).dtype == np.float32
    for whole in ([1, 2, 3, 4], np.array([True, False, True, True])):
        assert plain(BOX, whole).dtype == np.float32
    assert plain(spaces.Box(0, 255, (2,), np.uint8), [0, 255]).tolist() == [0, 255]
    assert plain(spaces.MultiBinary(2), np.array([True, False])).tolist() == [1, 0]
    assert plain(spaces.Discrete(3), np.array(2, np.uint8)) == 2
    assert plain(spaces.Box(-1, 1, (1,)), [50.0]) == 50  # beyond its bounds, but finite


def test_only_what_algorithms_can_choose_from_passes_as_an_action_space():
    for space in (spaces.Discrete(2), spaces.MultiDiscrete([2, 3]), BOX, spaces.Box(0, 1, (2,), np.float64)):
        check_action_space(space)
    for space in (spaces.MultiBinary(2), spaces.Dict(a=BOX), spaces.Tuple([BOX]), spaces.Text(2)):
        with pytest.raises(UnsuitableError, match=type(space).__name__):
            check_action_space(space)
    with pytest.raises(UnsuitableError, match="floats"):
        check_action_space(spaces.Box(0, 3, (2,), np.int32))
    with pytest.raises(UnsuitableError, match="one axis"):
        check_action_space(spaces.MultiDiscrete([[2, 3]]))


def test_a_box_is_bounded_only_if_every_dimension_is_on_both_sides():
    assert bounded(spaces.Box(-2, 5, (3,)))
    assert not bounded(MIXED)
    assert not bounded(BOX)


def scaled_slowly(space, action):
    """Each number by itself, in float64: the definition."""
    real = np.empty(action.shape)
    for index in np.ndindex(action.shape):
        low, high = (float(x[index[action.ndim - space.low.ndim :]]) for x in (space.low, space.high))
        a = float(action[index])
        if np.isfinite([low, high]).all():
            a = low + (min(max(a, -1), 1) + 1) / 2 * (high - low)
        real[index] = min(max(a, low), high)
    return real


@settings(deadline=None, max_examples=100)
@given(boxes().filter(lambda box: box.dtype.kind == "f" and box.dtype != np.float16), st.integers(0, 2**31 - 1))
def test_every_dimension_is_scaled_to_its_own_bounds_and_stays_within_them(space, seed):
    action = np.random.default_rng(seed).normal(size=(2, 3, *space.shape), scale=1.5).astype(np.float32)
    real = to_real(space, np)(action)
    assert real.dtype == space.dtype
    assert all(space.contains(np.asarray(row)) for row in real.reshape(6, *space.shape))
    width = np.where(np.isfinite(space.high - space.low), space.high - space.low, 1).astype(np.float64)
    np.testing.assert_allclose(real, scaled_slowly(space, action), rtol=1e-5, atol=1e-6 * (1 + width.max()))


def test_half_infinite_dimensions_pass_through_up_to_their_bound():
    actions = np.array([[1, 9, -9, 9, 0], [-1, -9, 9, -9, 7], [3, 0.5, 0.5, 0.5, -7]], np.float32)
    expected = np.array([[5, 9, 0, 1, 3.25], [-2, -9, 9, -9, 3.5], [5, 0.5, 0.5, 0.5, 3]], np.float32)
    np.testing.assert_array_equal(to_real(MIXED, np)(actions), expected)
    np.testing.assert_array_equal(jax.jit(to_real(MIXED, jnp))(actions), expected)
    np.testing.assert_array_equal(jax.vmap(to_real(MIXED, jnp))(actions), expected)
    np.testing.assert_array_equal(to_real(BOX, np)(actions[:, :4]), actions[:, :4])


def test_symmetric_bounds_scale_by_one_exact_product_in_numpy_and_xla_alike():
    space, actions = spaces.Box(-0.4, 0.4, (3,)), np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
    np.testing.assert_array_equal(to_real(space, np)(actions), actions * np.float32(0.4))
    np.testing.assert_array_equal(jax.jit(to_real(space, jnp))(actions), actions * np.float32(0.4))


def test_the_widest_bounds_do_not_overflow():
    widest = spaces.Box(-np.finfo("f").max, np.finfo("f").max, (1,))
    assert np.isfinite(to_real(widest, np)(np.ones((1, 1), np.float32))).all()


def test_choices_count_from_start_at_the_environments_border():
    choices = np.array([0, 1, 2], np.int32)
    np.testing.assert_array_equal(to_real(spaces.Discrete(3, start=-5), np)(choices), [-5, -4, -3])
    pairs = np.array([[0, 0], [1, 4]], np.int32)
    space = spaces.MultiDiscrete([2, 5], start=[10, -1])
    for xp in (np, jnp):
        real = to_real(space, xp)(xp.asarray(pairs))
        assert real.dtype == np.int32
        np.testing.assert_array_equal(real, [[10, -1], [11, 3]])


def test_uniform_actions_are_canonical_and_cover_the_space():
    choices = uniform_action(spaces.Discrete(3, start=7), random.key(0), 300)
    assert choices.dtype == jnp.int32
    assert np.bincount(choices, minlength=3).min() > 70
    pairs = np.asarray(uniform_action(spaces.MultiDiscrete([2, 4], start=[5, 5]), random.key(0), 400))
    assert len(np.unique(pairs, axis=0)) == 8
    assert pairs.min() == 0
    values = np.asarray(uniform_action(spaces.Box(3, 9, (2, 2)), random.key(0), 500))
    assert values.shape == (500, 2, 2)
    assert -1 <= values.min() < -0.95
    assert 0.95 < values.max() <= 1
    assert abs(values.mean()) < 0.1
    for unsuitable in (BOX, MIXED, spaces.MultiBinary(2)):
        with pytest.raises(UnsuitableError):
            uniform_action(unsuitable, random.key(0), 3)


def nested(depth):
    description = describe(spaces.Discrete(2))
    for _ in range(depth):
        description = {"type": "Tuple", "spaces": [description]}
    return description


def but(**changes):
    return {"type": "Box", "shape": [2], "dtype": "float32", "low": -1.0, "high": 1.0} | changes


HOSTILE = [
    None, [], 3, "Box", {}, {"type": "Text"}, {"type": ["Box"]}, {"type": "__import__"}, {"type": "Box"},
    but(shape=[10**9, 10**9]), but(shape=[MAX_ELEMENTS + 1]), but(shape=[0, 10**12]), but(shape=[-1]), but(shape=2),
    but(shape=[1] * 100), but(shape=[True]), but(shape="2"), but(dtype="object"), but(dtype="O"), but(dtype=[1]),
    but(dtype="float128"), but(dtype=None), but(low="nan"), but(low=float("nan")), but(low=None), but(low=[1.0]),
    but(low=[[1.0, 2.0]]), but(low=2.0), but(low="-inf", dtype="uint8"), but(low=-1, high=300, dtype="uint8"),
    but(low=10**400), but(low=True), but(high=1e300), but(low={"a": 1}),
    {"type": "Discrete", "n": 0, "start": 0, "dtype": "int64"}, {"type": "Discrete", "n": 2**70, "start": 0},
    {"type": "Discrete", "n": 2.0, "start": 0, "dtype": "int64"}, {"type": "Discrete", "n": 2, "dtype": "int64"},
    {"type": "Discrete", "n": 2**31, "start": 0, "dtype": "int64"},
    {"type": "Discrete", "n": 300, "start": 0, "dtype": "float32"},
    {"type": "MultiDiscrete", "shape": [2], "dtype": "int64", "nvec": [1], "start": [0, 0]},
    {"type": "MultiDiscrete", "shape": [2], "dtype": "int64", "nvec": [0, 1], "start": [0, 0]},
    {"type": "MultiDiscrete", "shape": [1], "dtype": "int8", "nvec": [300], "start": [0]},
    {"type": "MultiBinary", "shape": [10**12]}, {"type": "MultiBinary", "n": 3},
    {"type": "Dict", "spaces": [1]}, {"type": "Dict", "spaces": {"a": 3}}, {"type": "Tuple", "spaces": {"a": 3}},
    {"type": "Tuple", "spaces": [but(shape=[MAX_ELEMENTS // 2]), but(shape=[MAX_ELEMENTS // 2]), but()]},
    nested(40),
]  # fmt: skip


@pytest.mark.parametrize("description", HOSTILE)
def test_a_hostile_description_is_refused(description):
    with pytest.raises(CorruptCheckpointError) as caught:
        from_description(description)
    assert len(str(caught.value)) < 300


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("float32"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
fields = st.fixed_dictionaries(
    {"type": st.sampled_from(["Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple"])},
    optional=dict.fromkeys(["shape", "dtype", "low", "high", "n", "start", "nvec", "spaces"], values),
)


@settings(deadline=None, max_examples=300)
@given(fields)
def test_any_document_is_a_space_or_a_typed_error(description):
    with contextlib.suppress(CorruptCheckpointError):
        stored(from_description(description))
