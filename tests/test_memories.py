"""Memories against a plain record of everything that ever happened."""

from __future__ import annotations

import time
from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax, random

from thorndike.core import Batch, Transition
from thorndike.errors import SettingError
from thorndike.memories import LARGEST_CAPACITY, Latest, Prioritized, Replay
from thorndike.memories.prioritized import _first_above

BATCH = 16
HALF = np.float32(0.5)  # of the run is done
ONE = Transition(  # one step, with every dtype that spaces have
    observation={"image": jax.ShapeDtypeStruct((2,), jnp.uint8), "place": jax.ShapeDtypeStruct((3,), jnp.float32)},
    action=jax.ShapeDtypeStruct((), jnp.int32),
    reward=jax.ShapeDtypeStruct((), jnp.float32),
    terminated=jax.ShapeDtypeStruct((), bool),
    truncated=jax.ShapeDtypeStruct((), bool),
    next_observation={"image": jax.ShapeDtypeStruct((2,), jnp.uint8), "place": jax.ShapeDtypeStruct((3,), jnp.float32)},
    extras={"bits": jax.ShapeDtypeStruct((4,), jnp.int8), "log_prob": jax.ShapeDtypeStruct((), jnp.float32)},
)


def experience(runs, steps, n, seed=0):
    """What `runs` independent runs live through, [runs, steps, N, ...].

    An observation says whose it is: "place" is (copy, episode, global time), and half a step later the true
    successor, which carries the same episode also where it ended.
    """
    rng = np.random.default_rng(seed)
    shape = (runs, steps, n)
    terminated, truncated = rng.random(shape) < 0.15, rng.random(shape) < 0.15
    episode = np.cumsum(terminated | truncated, 1) - (terminated | truncated)
    step, copy = (np.broadcast_to(x, shape) for x in np.meshgrid(np.arange(steps), np.arange(n), indexing="ij"))
    place = np.stack([copy, episode, step], -1).astype(np.float32)
    image = np.stack([step % 256, 255 - copy], -1).astype(np.uint8)
    number = rng.normal(size=shape).astype(np.float32)
    bits = np.repeat((step % 100)[..., None], 4, -1).astype(np.int8)
    return Transition(
        observation={"image": image, "place": place},
        action=(7 * step + copy).astype(np.int32),
        reward=number,
        terminated=terminated,
        truncated=truncated,
        next_observation={"image": image + np.uint8(1), "place": place + np.float32([0, 0, 0.5])},
        extras={"bits": bits, "log_prob": -np.abs(number)},
    )


def new_key(i=0):
    return random.fold_in(random.key(0), i)


def priority_of(step, copy, op):
    """The priority that "learning" at operation `op` gives to the window of a copy that starts at a step."""
    return ((step * 7 + copy * 3 + op * 5) % 13 + 1) / 8


@cache
def player(memory, lengths, cycles, n):
    """Compiled for many runs at once: add, sample and feed back, the trajectories as long as `lengths` in turn.

    Gives every batch, the priorities it was drawn by, and the memory at last.
    """

    def cycle(carry, now):
        state, op = carry
        steps, key = now
        outputs, begin = [], 0
        for i, length in enumerate(lengths):
            state = memory.add(state, jax.tree.map(lambda x, b=begin, t=length: x[b : b + t], steps))
            batch = memory.sample(state, random.fold_in(key, i), HALF)
            outputs.append((batch, getattr(state, "sums", [jnp.zeros(())])[0].reshape(-1)))
            place = batch.steps.observation["place"][0]
            state = memory.feedback(state, batch, priority_of(place[:, 2], place[:, 0], op + i))
            begin += length
        return (state, op + len(lengths)), jax.tree.map(lambda *x: jnp.stack(x), *outputs)

    def play(steps, key):
        steps = jax.tree.map(lambda x: x.reshape(cycles, sum(lengths), *x.shape[1:]), steps)
        first = memory.init(ONE, (max(lengths), n)), jnp.int32(0)
        (state, _), outputs = lax.scan(cycle, first, (steps, random.split(key, cycles)))
        return *jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs), state

    return jax.jit(jax.vmap(play))


def played(memory, lengths, n, runs, seed=0):
    """(what happened, total steps after each operation, batches, priorities, memory): all NumPy, [runs, ops, ...]."""
    cycles = max(2, -(-(2 * (memory.capacity // n) + memory.window) // sum(lengths)))  # more than twice around
    happened = experience(runs, cycles * sum(lengths), n, seed)
    outputs = player(memory, lengths, cycles, n)(happened, random.split(random.key(seed), runs))
    return happened, np.cumsum(cycles * lengths), *jax.tree.map(np.asarray, outputs)


def assert_windows_are_what_happened(memory, n, happened, totals, batches):
    """Every leaf of every window is what happened to one copy in consecutive steps, all still stored."""
    rows, window = memory.capacity // n, memory.window
    for op, total in enumerate(totals):
        batch = jax.tree.map(lambda x, op=op: x[:, op], batches.steps)  # [runs, window, B, ...]
        place = batch.observation["place"]
        if total < window:  # too early to sample: nothing but finite numbers is promised
            assert np.isfinite(place).all()
            continue
        copy, start = place[:, 0, :, 0].astype(int), place[:, 0, :, 2].astype(int)  # [runs, B]
        assert (start >= max(0, total - rows)).all(), "overwritten"
        assert (start <= total - window).all(), "past the write head"
        step = start[:, None] + np.arange(window)[:, None]  # [runs, window, B]
        where = np.arange(len(place))[:, None, None], step, np.broadcast_to(copy[:, None], step.shape)
        jax.tree.map(
            lambda found, all_of_it, w=where: np.testing.assert_array_equal(found, all_of_it[w]), batch, happened
        )
        assert jax.tree.map(lambda x: x.dtype, batch) == jax.tree.map(lambda x: np.dtype(x.dtype), ONE)


def assert_uniform(memory, n, totals, batches):
    """At last, every window that is stored whole is as likely as any other."""
    place = batches.steps.observation["place"][:, -1, 0]
    start, copy = place[..., 2], place[..., 0]
    oldest, newest = max(0, totals[-1] - memory.capacity // n), totals[-1] - memory.window
    index = ((start - oldest) * n + copy).astype(int).reshape(-1)
    counts = np.bincount(index, minlength=(newest - oldest + 1) * n)
    assert len(counts) == (newest - oldest + 1) * n
    assert counts.size == 1 or scipy.stats.chisquare(counts).pvalue > 1e-4


def assert_priorities(memory, n, happened, totals, batches, priorities, alpha):
    """Every row's priority is what learning last said of the window there, the highest so far if nothing was said,
    0 if the window is not whole; and weights and indices say so."""
    rows, window, exponent = memory.capacity // n, memory.window, (memory.beta + 1) / 2
    for run in range(priorities.shape[0]):
        known, highest, before = {}, 1.0, 0  # (step, copy) -> priority, the exponent applied
        for op, total in enumerate(totals):
            whole = range(max(0, total - rows), total - window + 1)
            known = {(s, c): known.get((s, c), highest) for s in whole for c in range(n)}
            expected = np.zeros(priorities.shape[-1])
            for (s, c), priority in known.items():
                expected[(s % rows) * n + c] = priority
            np.testing.assert_allclose(priorities[run, op], expected, rtol=1e-5)
            np.testing.assert_array_equal(priorities[run, op] == 0, expected == 0)
            batch = jax.tree.map(lambda x, op=op, run=run: x[run, op], batches)
            if not known:
                assert np.isfinite(batch.weight).all()
                continue
            place = batch.steps.observation["place"][0].astype(int)
            drawn = [(s, c) for c, _, s in place]
            weight = np.array([sum(known.values()) / (len(known) * known[window]) for window in drawn]) ** exponent
            np.testing.assert_allclose(batch.weight, weight / weight.max(), rtol=1e-5)
            np.testing.assert_array_equal(batch.index, [(s % rows) * n + c for s, c in drawn])
            for s, c in drawn:
                known[s, c] = (priority_of(s, c, op) + 1e-6) ** alpha
                highest = max(highest, known[s, c])
            before = total
        assert before == totals[-1]


# (capacity, window, copies, lengths of the trajectories in turn)
CASES = [
    (1, 1, 1, (1,)),
    (5, 5, 1, (1, 3)),
    (7, 1, 2, (3,)),
    (9, 4, 2, (1, 2)),
    (16, 3, 2, (8,)),
    (17, 2, 3, (1,)),
    (17, 5, 2, (3, 8)),
]
NAMES = ["-".join(map(str, case[:3])) + "-" + "".join(map(str, case[3])) for case in CASES]


IN_FULL = [7, 9]  # capacities of those that say of `Replay` what others say too
WITH_REPLAY = [pytest.param(*case, marks=[pytest.mark.full] * (case[0] in IN_FULL)) for case in CASES]


@pytest.mark.parametrize(("capacity", "window", "n", "lengths"), WITH_REPLAY, ids=NAMES)
def test_replay_gives_back_what_happened(capacity, window, n, lengths):
    memory = Replay(capacity, min(BATCH, capacity), window)
    happened, totals, batches, _, state = played(memory, lengths, n, runs=300)  # 2,100 in all
    assert_windows_are_what_happened(memory, n, happened, totals, batches)
    assert_uniform(memory, n, totals, batches)
    assert jax.tree.map(lambda x: x.dtype, state.steps) == jax.tree.map(lambda x: np.dtype(x.dtype), ONE)
    assert jax.tree.leaves(state.steps)[0].shape[1:3] == (capacity // n, n)


@pytest.mark.parametrize(("capacity", "window", "n", "lengths"), CASES[1::2], ids=NAMES[1::2])
def test_prioritized_gives_back_what_happened_and_knows_every_priority(capacity, window, n, lengths):
    memory = Prioritized(capacity, min(BATCH, capacity), window, alpha=0.7)
    happened, totals, batches, priorities, _ = played(memory, lengths, n, runs=10)
    assert_windows_are_what_happened(memory, n, happened, totals, batches)
    assert_priorities(memory, n, happened, totals, batches, priorities, alpha=0.7)


@pytest.mark.full
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_memory_gives_back_what_happened(data):
    n = data.draw(st.integers(1, 4))
    rows = data.draw(st.integers(1, max(1, 17 // n)))
    window = data.draw(st.integers(1, min(5, rows)))
    lengths = tuple(data.draw(st.lists(st.integers(1, rows), min_size=1, max_size=3)))
    capacity = rows * n + data.draw(st.integers(0, n - 1))  # a part of a row stays unused
    kind = data.draw(st.sampled_from([Replay, Prioritized]))
    memory = kind(capacity, min(BATCH, capacity), window)
    happened, totals, batches, priorities, _ = played(memory, lengths, n, runs=40, seed=data.draw(st.integers(0, 999)))
    assert_windows_are_what_happened(memory, n, happened, totals, batches)
    if kind is Prioritized:
        assert_priorities(memory, n, happened, totals, batches, priorities, alpha=0.6)


def test_latest_is_the_newest_trajectory_whole():
    memory, happened = Latest(), experience(1, 6, 3)
    first, second = (jax.tree.map(lambda x, p=p: jnp.asarray(x[0, p]), happened) for p in (slice(0, 3), slice(3, 6)))
    state = memory.init(ONE, (3, 3))
    same = jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), state, first)
    assert all(jax.tree.leaves(same))
    state = memory.add(memory.add(state, first), second)
    batch = memory.sample(state, new_key(), HALF)
    jax.tree.map(np.testing.assert_array_equal, batch, Batch(second, np.ones(3), np.arange(3)))
    assert memory.feedback(state, batch, ()) is state
    assert memory.restarted(state, jnp.ones(3, bool)) is state


@pytest.mark.parametrize("kind", [Replay, Prioritized])
def test_the_newest_step_of_a_restarted_copy_becomes_a_truncation_wherever_it_is_stored(kind):
    """In every row of the ring, the last one and the first included; nothing else changes."""
    memory, rows = kind(10, 4, window=3), 5

    for count in (1, 4, rows, rows + 1, 2 * rows):
        state = memory.init(ONE, (1, 2))
        happened = jax.tree.map(lambda x: x[0], experience(1, count, 2))
        for t in range(count):
            state, told = life_of(memory)(state, jax.tree.map(lambda x, t=t: x[t : t + 1], happened))
        newest = (count - 1) % rows
        expected = np.array(state.steps.truncated)
        expected[newest, 0] = True
        np.testing.assert_array_equal(told.steps.truncated, expected)
        unchanged = told._replace(steps=told.steps._replace(truncated=state.steps.truncated))
        jax.tree.map(np.testing.assert_array_equal, unchanged, state)


@cache
def life_of(memory):
    """Compiled: a step more, and what is stored after it once copy 0 of two has restarted."""

    def live(state, steps):
        state = memory.add(state, steps)
        return state, memory.restarted(state, jnp.array([True, False]))

    return jax.jit(live)


SMALL = Transition(*[jax.ShapeDtypeStruct((), jnp.float32)] * 3, *[jax.ShapeDtypeStruct((), bool)] * 2,
                   jax.ShapeDtypeStruct((), jnp.float32), {})  # fmt: skip


def windows_at(index):
    """A batch of which a memory is told, by where its windows start."""
    return Batch((), jnp.ones(index.shape), index)


def small_steps(time, n):
    """A trajectory whose observations count the steps: time * n + copy."""
    number, flag = jnp.arange(time * n, dtype=jnp.float32).reshape(time, n), jnp.zeros((time, n), bool)
    return Transition(number, number, number, flag, flag, number + 1, {})


@pytest.mark.parametrize("memory", [Latest(), Replay(12, 4, 2), Prioritized(12, 4, 2)], ids=lambda x: type(x).__name__)
def test_a_batch_has_a_weight_and_an_index_for_each_window_and_its_extras_are_those_remembered(memory):

    @jax.jit
    def sampled(key):
        state = memory.add(memory.init(SMALL, (4, 3)), small_steps(4, 3))
        return state, memory.sample(state, key, HALF)

    state, batch = jax.tree.map(np.asarray, sampled(new_key()))
    assert batch.steps.extras == {}
    assert batch.weight.shape == batch.index.shape == batch.steps.reward.shape[1:]
    np.testing.assert_array_equal(batch.weight, 1)  # nothing has been learned yet: no window is likelier than another
    number = batch.steps.observation[0]
    np.testing.assert_array_equal(
        number, state.steps.observation.reshape(-1)[batch.index] if memory != Latest() else number
    )


@pytest.mark.parametrize(("fraction", "exponent"), [(0.0, 0.4), (0.5, 0.7), (1.0, 1.0)])
def test_weights_undo_more_and_more_of_the_bias_up_to_all_of_it(fraction, exponent):
    """Schaul et al. (2016), section 3.4: the exponent rises from beta to 1."""
    memory, state = prioritized([1.0, 2.0, 5.0], 1.0, batch_size=50)
    batch = sample(memory, state, new_key(), np.float32(fraction))
    expected = (1 / np.array([1.0, 2.0, 5.0])) ** exponent  # over that of the least likely, which is drawn too
    np.testing.assert_allclose(batch.weight, expected[batch.index], rtol=1e-5)
    assert set(batch.index.tolist()) == {0, 1, 2}


@jax.jit
def sample(memory, state, key, fraction):
    return memory.sample(state, key, fraction)


@jax.jit
def learned(memory, priority):
    """After a trajectory of one copy, of whose every step learning has said something."""
    count = len(priority)
    state = memory.add(memory.init(SMALL, (count, 1)), small_steps(count, 1))
    return memory.feedback(state, windows_at(jnp.arange(count)), priority)


def prioritized(priority, alpha, batch_size=10_000, beta=0.4):
    """A memory of one copy in which learning gave step i `priority[i]`."""
    count = len(priority)
    memory = Prioritized(max(count, batch_size), batch_size, alpha=alpha, beta=beta)
    return memory, learned(memory, np.asarray(priority, np.float32))


@pytest.mark.parametrize(("count", "alpha"), [(3, 0.6), (8, 1.0), (50, 0.6), (600, 0.3), (70, 0.0)])
def test_windows_are_drawn_in_proportion_to_their_priorities(count, alpha):
    priority = np.random.default_rng(0).exponential(size=count) + 0.01
    memory, state = prioritized(priority, alpha, beta=1.0)
    batches = [sample(memory, state, new_key(i), HALF) for i in range(10)]  # 10^5 draws
    counts = np.bincount(np.concatenate([batch.steps.observation[0] for batch in batches]).astype(int), minlength=count)
    p = (priority + 1e-6) ** alpha
    p /= p.sum()
    assert scipy.stats.chisquare(counts, counts.sum() * p).pvalue > 1e-3
    drawn = p[batches[0].index]
    np.testing.assert_allclose(batches[0].weight, drawn.min() / drawn, rtol=1e-5)


def test_priorities_of_very_different_sizes_are_respected():
    priority = np.tile([0.0, 1e6, 0.0, 1e-3, 0.0], 60)
    memory, state = prioritized(priority, 1.0)
    drawn = np.concatenate([sample(memory, state, new_key(i), HALF).index for i in range(5)])
    counts = np.bincount(drawn, minlength=300)
    assert counts[priority < 1].sum() == 0
    assert scipy.stats.chisquare(counts[priority > 1]).pvalue > 1e-3


def test_rounding_at_the_very_end_of_a_group_never_draws_a_priority_of_0():
    group = jnp.array([[1.0, 2, 0, 0, 0, 0, 0, 0], [0, 0, 0, 4, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 1]])
    np.testing.assert_array_equal(_first_above(group, jnp.ones(3)), [1, 3, 7])  # the point is the sum itself
    np.testing.assert_array_equal(_first_above(group, jnp.zeros(3)), [0, 3, 1])
    np.testing.assert_array_equal(_first_above(group, jnp.full(3, 0.5)), [1, 3, 7])


def test_a_new_window_gets_the_highest_priority_so_far_with_the_exponent_applied_once():
    memory, state = prioritized([0.25, 0.5, 0.75], 0.5, batch_size=8)
    add = jax.jit(partial(memory.add, trajectory=small_steps(1, 1)))
    np.testing.assert_allclose(add(state).sums[0].reshape(-1)[:4], [0.5, 0.5**0.5, 0.75**0.5, 1], rtol=1e-5)
    feedback = jax.jit(lambda state, priority: memory.feedback(state, windows_at(jnp.array([1])), priority))
    state = feedback(feedback(state, np.array([9.0], np.float32)), np.array([0.04], np.float32))
    np.testing.assert_allclose(add(state).sums[0].reshape(-1)[:4], [0.5, 0.2, 0.75**0.5, 3], rtol=1e-4)
    assert state.highest.dtype == state.sums[0].dtype == jnp.float32


def test_sums_never_drift_from_the_priorities():
    memory, state = prioritized(np.ones(600), 1.0, batch_size=64)

    @jax.jit
    def thousandfold(state):
        def step(state, key):
            state = memory.add(state, small_steps(3, 1))
            batch = memory.sample(state, random.fold_in(key, 0), HALF)
            return memory.feedback(state, batch, random.exponential(random.fold_in(key, 1), (64,)) * 1e3), None

        return lax.scan(step, state, random.split(new_key(), 1000))[0]

    sums = [np.asarray(level) for level in thousandfold(state).sums]
    for below, above in pairwise(sums):
        total = np.float64(below).sum(1)
        np.testing.assert_allclose(above.reshape(-1)[: len(total)], total, rtol=1e-6)
        np.testing.assert_array_equal(above.reshape(-1)[len(total) :], 0)


def test_feedback_brings_back_no_window_that_is_not_whole():
    memory = Prioritized(6, 4, window=2, alpha=1.0)

    @jax.jit
    def state():
        state = memory.add(memory.init(SMALL, (4, 1)), small_steps(4, 1))
        return memory.feedback(state, windows_at(jnp.arange(6)), jnp.full(6, 5.0))

    np.testing.assert_array_equal(np.asarray(state().sums[0]).reshape(-1) > 0, [1, 1, 1, 0, 0, 0, 0, 0])


def test_a_saved_memory_goes_on_as_the_original():
    memory, state = prioritized(np.arange(1.0, 40), 0.6, batch_size=32)
    leaves, structure = jax.tree.flatten(state)
    copy = jax.tree.unflatten(structure, [np.array(x) for x in leaves])

    @jax.jit
    def go_on(state):
        for i in range(3):
            state = memory.add(state, small_steps(2, 1))
            batch = memory.sample(state, new_key(i), HALF)
            state = memory.feedback(state, batch, batch.steps.reward[0])
        return state, batch

    jax.tree.map(np.testing.assert_array_equal, go_on(state), go_on(copy))


@pytest.mark.parametrize("kind", [Replay, Prioritized])
def test_side_by_side_each_memory_is_as_it_is_alone(kind):
    memory, happened = kind(11, 8, 2), experience(3, 7, 2)

    def life(steps, key):
        state = memory.add(memory.init(ONE, (4, 2)), jax.tree.map(lambda x: x[:4], steps))
        state = memory.add(state, jax.tree.map(lambda x: x[4:], steps))
        return memory.sample(state, key, HALF), state

    together, alone = jax.jit(jax.vmap(life))(happened, random.split(new_key(), 3)), jax.jit(life)
    for i, key in enumerate(random.split(new_key(), 3)):
        of_one = alone(jax.tree.map(lambda x, i=i: x[i], happened), key)
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x, y[i]), of_one, together)


def loop(memory, n, copies):
    """Compiled add, sample, feedback in a loop whose carry is donated; with `copies` of it side by side if not 0."""

    def run(state, times):
        def step(i, carry):
            state, signal = carry
            steps = small_steps(2, n)
            state = memory.add(state, steps._replace(reward=steps.reward * signal))
            batch = memory.sample(state, new_key(i), HALF)
            signal = jnp.tanh(batch.steps.reward.mean() + batch.steps.next_observation.mean())
            return memory.feedback(state, batch, jnp.abs(batch.steps.reward[0] - signal)), signal

        return lax.fori_loop(0, times, step, (state, jnp.float32(1)))

    one = jax.eval_shape(lambda: memory.init(SMALL, (2, n)))
    if copies:
        run = jax.vmap(run, (0, None))
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((copies, *x.shape), x.dtype), one)
    return jax.jit(run, donate_argnums=0).lower(one, 1).compile(), one


@pytest.mark.parametrize("copies", [0, 3])
@pytest.mark.parametrize("kind", [Replay, Prioritized])
def test_time_and_space_of_a_step_do_not_grow_with_the_capacity(kind, copies):
    """A memory that is copied anywhere needs room for the copy, and a thousand times the time."""
    space, seconds = [], []
    for capacity in (1_000, 1_000_000):
        compiled, one = loop(kind(capacity, 32, window=2), 2, copies)
        space.append(compiled.memory_analysis().temp_size_in_bytes)
        carry = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), one), None
        taken = []
        for _ in range(3):
            carry = jax.block_until_ready(compiled(carry[0], 20))
            began = time.perf_counter()
            carry = jax.block_until_ready(compiled(carry[0], 200))
            taken.append(time.perf_counter() - began)
        seconds.append(min(taken))
    assert space[1] < space[0] + 100_000
    assert seconds[1] < 25 * seconds[0]


@pytest.mark.parametrize("kind", [Replay, Prioritized])
def test_a_donated_memory_stays_where_it_is(kind):
    memory = kind(1_000, 32)
    state = jax.jit(lambda: memory.init(SMALL, (2, 2)))()
    places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state) if x.size > 1]
    state = jax.jit(memory.add, donate_argnums=0)(state, small_steps(2, 2))
    assert places == [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state) if x.size > 1]


def test_settings_that_cannot_work_are_refused_in_plain_words():
    for kind in (Replay, Prioritized):
        with pytest.raises(SettingError, match="batch_size 128 is larger than capacity 100"):
            kind(100, 128)
        with pytest.raises(SettingError, match="window 9 is larger than capacity 8"):
            kind(8, 4, 9)
        with pytest.raises(SettingError, match=r"burn_in \+ sequence \+ window - 1 = 10 is larger than capacity 8"):
            kind(8, 4, 3, sequence=6, burn_in=2)
        with pytest.raises(SettingError, match="capacity must be"):
            kind(LARGEST_CAPACITY + 1)
        for shape, needed in (((5, 4), 20), ((1, 5), 15)):
            with pytest.raises(SettingError, match=f"capacity must be at least {needed}"):
                kind(14, 4, 3).init(SMALL, shape)
    with pytest.raises(SettingError, match="alpha must be"):
        Prioritized(alpha=1.5)


def test_a_trajectory_longer_than_the_memory_is_refused():
    memory = Replay(6, 2)
    with pytest.raises(SettingError, match="does not fit"):
        memory.add(memory.init(SMALL, (3, 2)), small_steps(4, 2))


def test_prioritized_says_what_an_algorithm_without_priorities_can_use():
    with pytest.raises(SettingError, match="use Replay"):
        Prioritized().feedback((), windows_at(jnp.arange(3)), ())
    with pytest.raises(SettingError, match=r"needs a priority for each of 3 windows, got an array \(3, 1\)"):
        Prioritized().feedback((), windows_at(jnp.arange(3)), jnp.ones((3, 1)))


def test_a_memorys_numbers_are_static_but_for_its_exponents():
    assert jax.tree.leaves(Replay()) == jax.tree.leaves(Latest()) == []
    assert jax.tree.leaves(Prioritized(alpha=0.5, beta=0.25, eta=0.75)) == [0.5, 0.25, 0.75]
    assert isinstance(Prioritized(), Replay)  # it fits wherever an algorithm asks for a replay
