"""Frames stored once, against memories that store every image whole, and against a plain record of slots."""

from __future__ import annotations

import dataclasses
import time
from functools import cache
from typing import ClassVar, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import lax, random

import thorndike as td
from thorndike import snapshots, trainer
from thorndike.core import Actor, Progress, Transition
from thorndike.environments import make
from thorndike.errors import CorruptCheckpointError, SettingError
from thorndike.hyperparameters import from_json, to_json
from thorndike.memories import in_frames
from thorndike.memories.rings import Rows, stored
from thorndike.runs.configuration import hyperparameter_classes

HALF = np.float32(0.5)  # of the run is done
BATCH = 64
ITEMS = 20_000  # steps drawn and compared in each case: 240,000 in all


def step_of(shape, dtype=jnp.uint8, beside=False):
    """One step's shapes, its image alone or beside another leaf."""
    image, flag = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct((), bool)
    number, whole = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    observation = {"camera": image, "place": jax.ShapeDtypeStruct((3,), jnp.float32)} if beside else image
    return Transition(observation, whole, number, flag, flag, observation, {"carry": (number, number)})


class Case(NamedTuple):
    """A memory, and what it lives through."""

    capacity: int
    copies: int
    lengths: tuple[int, ...]  # of the trajectories, in turn
    shape: tuple[int, ...] = (2, 3, 4)
    stack_axis: str = "last"
    pad: str = "first"  # what an episode's first stack is filled with
    episodes: tuple[int, int] = (1, 12)  # the shortest and the longest
    greys: int = 256  # so many different pixels: with 2 there are many equal frames
    shaken: float = 0.0  # share of steps whose next stack is another one altogether
    restarts: float = 0.0  # share of steps after which a copy is made to begin anew
    beside: bool = False  # whether there is more in an observation
    window: int = 1
    sequence: int = 1
    burn_in: int = 0

    def memory(self, kind):
        fields = {} if kind in (td.Replay, td.Prioritized) else {"stack_axis": self.stack_axis}
        windows = {"window": self.window, "sequence": self.sequence, "burn_in": self.burn_in}
        return kind(self.capacity, min(BATCH, self.capacity), **windows, **fields)

    @property
    def axis(self):
        return {"first": 0, "last": len(self.shape) - 1, "none": None}[self.stack_axis]

    @property
    def stack(self):
        return 1 if self.axis is None else self.shape[self.axis]


CASES = {
    "one-copy": Case(37, 1, (1,), window=3),
    "first-axis": Case(64, 2, (3, 1), (4, 3, 2), "first", "zeros", (2, 40), window=2),
    "colours": Case(100, 3, (4,), (3, 2, 2, 3), "first", "random", beside=True, restarts=0.05),
    "alike": Case(64, 2, (5, 2), (1, 1, 4), greys=2, pad="zeros", restarts=0.1, window=2),
    "one-step": Case(60, 2, (2,), episodes=(1, 1), pad="random"),
    "long": Case(80, 2, (2,), (4, 2, 2), "first", episodes=(70, 200), sequence=4, burn_in=2, window=2),
    "nothing-lost": Case(48, 2, (4, 3), episodes=(100, 300), window=2),
    "no-stacks": Case(50, 1, (3,), shaken=1.0, window=2),
    "single-images": Case(90, 3, (4, 1), (2, 2, 3), "none", shaken=1.0, beside=True),
    "stack-of-one": Case(33, 1, (1, 2), (3, 3, 1), window=5),
    "shaken": Case(200, 4, (1,), (3, 2, 2), "first", shaken=0.1, restarts=0.02, window=5),
    "tiny": Case(6, 2, (1, 3), window=3),
}
QUICK = ["first-axis", "colours", "alike", "shaken"]


def those_of(quick):
    """The names of all cases, of which some belong to the quick tests."""
    return [pytest.param(name, marks=[] if name in quick else [pytest.mark.full]) for name in CASES]


def life(case, cycles, seed):
    """What happens, [steps, N, ...], and which copies [steps, N] are made to begin anew, each after a trajectory."""
    rng, n, steps = np.random.default_rng(seed), case.copies, cycles * sum(case.lengths)
    shape = case.shape if case.axis is None else case.shape[: case.axis] + case.shape[case.axis + 1 :]
    begun = rng.random((steps, n)) < case.restarts
    begun[np.setdiff1d(np.arange(steps), np.cumsum(case.lengths * cycles) - 1)] = False

    def frame():
        return rng.integers(0, case.greys, shape, dtype=np.uint8)

    def beginning():
        new = frame()
        pads = {"first": lambda: new, "zeros": lambda: np.zeros_like(new), "random": frame}
        return [pads[case.pad]() for _ in range(case.stack - 1)] + [new]

    def observation(stacks, place):
        images = np.stack([x[0] if case.axis is None else np.stack(x, case.axis) for x in stacks])
        return {"camera": images, "place": place} if case.beside else images

    now, left, rows = [beginning() for _ in range(n)], rng.integers(*case.episodes, n, endpoint=True), []
    for t in range(steps):
        left -= 1
        after = [beginning() if rng.random() < case.shaken else [*stack[1:], frame()] for stack in now]
        place = np.stack([[t, i, left[i]] for i in range(n)]).astype(np.float32)
        number, kind, ended = rng.normal(size=n).astype(np.float32), rng.integers(0, 3, n), left <= 0
        rows.append(
            Transition(
                observation(now, place), rng.integers(0, 9, n).astype(np.int32), number, ended & (kind != 1),
                ended & (kind != 0), observation(after, place + 1), {"carry": (number, -number)},
            )
        )  # fmt: skip
        now = after
        for i in np.flatnonzero(ended | begun[t]):
            now[i], left[i] = beginning(), rng.integers(*case.episodes, endpoint=True)
    return jax.tree.map(lambda *x: np.stack(x), *rows), begun


@cache
def player(case, kind, plain_kind):
    """Compiled: a memory of frames and a plain one, and what they give after each trajectory."""
    memory, plain = case.memory(kind), case.memory(plain_kind)

    def cycle(carry, now):
        (state, whole), (steps, begun, key), outputs, begin = carry, now, [], 0
        for i, end in enumerate(np.cumsum(case.lengths)):
            trajectory = jax.tree.map(lambda x, a=begin, b=end: x[a:b], steps)
            state, whole = memory.add(state, trajectory), plain.add(whole, trajectory)
            state, whole = memory.restarted(state, begun[end - 1]), plain.restarted(whole, begun[end - 1])
            batch, drawn = (x.sample(y, random.fold_in(key, i), HALF) for x, y in ((memory, state), (plain, whole)))
            there = Rows().windows(whole, batch.index, memory.length)  # what the other has where this one was drawn
            sums = state.sums[0].reshape(-1) if kind is td.PrioritizedFrames else ()
            if kind is td.PrioritizedFrames:
                state = memory.feedback(state, batch, priority_at(batch.index))
            outputs.append((batch, there, drawn, stored(state), whole.size, sums))
            begin = end
        return (state, whole), jax.tree.map(lambda *x: jnp.stack(x), *outputs)

    def play(steps, begun, key):
        cycles = len(begun) // sum(case.lengths)
        both = jax.tree.map(lambda x: x.reshape(cycles, sum(case.lengths), *x.shape[1:]), (steps, begun))
        one, shape = step_of(case.shape, beside=case.beside), (max(case.lengths), case.copies)
        states = memory.init(one, shape), plain.init(one, shape)
        states, outputs = lax.scan(cycle, states, (*both, random.split(key, cycles)))
        return states, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)

    return jax.jit(play)


def priority_at(index):
    return (index * 7 % 13 + 1) / 8.0


def stacks_of(case, happened):
    """The stacks before and after every step, each [steps, N, stack, F]: by the definition."""
    for observation in (happened.observation, happened.next_observation):
        images = observation["camera"] if case.beside else observation
        frames = images[:, :, None] if case.axis is None else np.moveaxis(images, 2 + case.axis, 2)
        yield frames.reshape(*frames.shape[:3], -1)


def rows_kept(case, happened, slots):
    """After every trajectory, how many rows have their frames in the last `slots` of every copy, counted one by one."""
    before, after = stacks_of(case, happened)
    total, last = np.zeros(case.copies, int), np.zeros_like(before[0])
    first, kept, ends = [], [], np.cumsum(case.lengths * (len(before) // sum(case.lengths)))
    for t in range(len(before)):
        begins = np.zeros(case.copies, int)
        for i in range(case.copies):
            total[i] += 0 if (before[t, i] == last[i]).all() else case.stack
            begins[i] = total[i] - case.stack
            total[i] += 1 if (before[t, i, 1:] == after[t, i, :-1]).all() else case.stack
        last = after[t]
        first.append(begins)
        if t + 1 in ends:
            there = (np.array(first) >= total - slots).all(1)[-(case.capacity // case.copies) :]
            assert there[-1]
            assert (np.diff(there.astype(int)) >= 0).all()
            kept.append(there.sum())
    return np.array(kept), ends


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert jax.tree.map(lambda x: x.dtype, one) == jax.tree.map(lambda x: x.dtype, other)


def check_life(case, kind, plain_kind, items, seed=0):
    """A long life: at least so many windows drawn equal the plain memory's, and what is forgotten is what must be."""
    memory = case.memory(kind)
    size = memory.batch_size * memory.length * len(case.lengths)
    cycles = max(-(-items // size), -(-5 * case.capacity // sum(case.lengths) // case.copies))
    happened, begun = life(case, cycles, seed)
    (state, whole), found = player(case, kind, plain_kind)(happened, begun, random.key(seed))
    batch, there, drawn, rows, whole_rows, sums = jax.tree.map(np.asarray, found)
    expected, totals = rows_kept(case, happened, state.frames.pixels.shape[0])
    np.testing.assert_array_equal(rows, expected)
    ready = rows >= memory.length
    assert ready[-1]
    assert_same(jax.tree.map(lambda x: x[ready], batch.steps), jax.tree.map(lambda x: x[ready], there))
    if kind is td.FrameReplay:
        nothing_lost = ready & (rows == whole_rows)
        assert_same(jax.tree.map(lambda x: x[nothing_lost], batch), jax.tree.map(lambda x: x[nothing_lost], drawn))
    age = np.mod(totals[:, None] - 1 - batch.index // case.copies, case.capacity // case.copies)  # 0: the newest row
    assert (age < rows[:, None])[ready].all(), "frames overwritten"
    assert (age >= memory.length - 1)[ready].all(), "past the write head"
    assert_same(state.steps.extras, whole.steps.extras)
    if kind is td.PrioritizedFrames:
        check_priorities(case, memory, batch.index, rows, totals, sums)
    return ready.sum() * size // len(case.lengths), (rows / whole_rows)[-len(rows) // 4 :].min()


def check_priorities(case, memory, index, rows, totals, sums):
    """0 wherever a window is not whole or its frames are gone, else what learning said last, or the highest so far."""
    every, n, known, highest = case.capacity // case.copies, case.copies, {}, np.float32(1)
    for op, total in enumerate(totals):
        whole = range(total - rows[op], total - memory.length + 1)
        known = {(s, i): known.get((s, i), highest) for s in whole for i in range(n)}
        expected = np.zeros_like(sums[op])
        for (s, i), priority in known.items():
            expected[s % every * n + i] = priority
        np.testing.assert_allclose(sums[op], expected, rtol=1e-5)
        np.testing.assert_array_equal(sums[op] == 0, expected == 0)
        at = {s % every * n + i: (s, i) for s, i in known}
        for k in index[op] if known else ():
            known[at[k]] = (priority_at(k) + 1e-6) ** memory.alpha
            highest = max(highest, known[at[k]])


@pytest.mark.parametrize("name", those_of(QUICK))
def test_what_is_drawn_of_frames_is_what_is_drawn_of_whole_images(name):
    """Also what is forgotten, one row after another, is what no longer has its frames, and nothing else."""
    drawn, _ = check_life(CASES[name], td.FrameReplay, td.Replay, ITEMS)
    assert drawn >= 0.9 * ITEMS


@pytest.mark.parametrize("name", those_of(["colours", "nothing-lost"]))
def test_priorities_of_frames_are_zero_where_frames_are_gone_and_else_as_ever(name):
    check_life(CASES[name], td.PrioritizedFrames, td.Prioritized, 6_000, seed=1)


# What an observation may be


def kinds(stack_axis="auto"):
    return [kind(100, 8, stack_axis=stack_axis) for kind in (td.FrameReplay, td.PrioritizedFrames)]


def held(memory, shape, **of_step):
    """The shape of the frames [slots, N, F] that a memory of 100 steps in two copies begins with."""
    return jax.eval_shape(lambda: memory.init(step_of(shape, **of_step), (1, 2))).frames.pixels.shape


AXES = {
    ((84, 84, 4), "auto"): 4,
    ((4, 84, 84), "auto"): 4,  # EnvPool, FrameStackObservation
    ((4, 84, 84, 3), "auto"): 4,
    ((4, 3, 84, 84), "auto"): 4,
    ((84, 84, 1), "auto"): 1,
    ((84, 84, 3), "last"): 3,
    ((84, 84, 3), "none"): 1,
    ((12, 84, 84), "first"): 12,
    ((6, 6, 6), "first"): 6,
    ((84, 84, 3, 4), "last"): 4,
}


@pytest.mark.parametrize(("shape", "stack_axis"), AXES)
def test_which_axis_has_the_frames_is_told_by_the_shape_or_said(shape, stack_axis):
    stack = AXES[shape, stack_axis]
    for memory in kinds(stack_axis):
        assert held(memory, shape)[1:] == (2, np.prod(shape) // stack)
        assert held(memory, shape, beside=True) == held(memory, shape)


@pytest.mark.parametrize("shape", [(84, 84, 3), (3, 84, 84), (6, 4, 4), (4, 6, 6)])
def test_an_image_that_may_be_of_colours_or_frames_is_asked_about(shape):
    for memory in kinds():
        said = rf"{type(memory).__name__} cannot tell where an image of shape .* stack_axis=\"none\" where it has"
        with pytest.raises(SettingError, match=said):
            held(memory, shape)


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (jax.ShapeDtypeStruct((4,), jnp.float32), r"this observation has 0 \(\(4,\)\): use Replay or Prioritized"),
        ((jax.ShapeDtypeStruct((9, 9, 4), jnp.uint8),) * 2, r"this observation has 2 \(\(9, 9, 4\), \(9, 9, 4\)\)"),
    ],
)
def test_anything_but_one_image_is_refused(observation, said):
    for memory in kinds():
        with pytest.raises(SettingError, match=said):
            memory.init(step_of((9, 9, 4))._replace(observation=observation, next_observation=observation), (1, 1))


def test_settings_are_those_of_a_replay_and_the_axis():
    for memory in kinds():
        assert isinstance(memory, td.Replay)
        with pytest.raises(SettingError, match="stack_axis must be one of 'auto', 'first', 'last', 'none', got 'lats'"):
            dataclasses.replace(memory, stack_axis="lats")
        with pytest.raises(SettingError, match="was made for trajectories shorter than one of 50 steps"):
            memory.add(lived(memory, trajectory(1, 2)), trajectory(50, 2))
        assert from_json(to_json(memory), hyperparameter_classes()) == memory
    assert isinstance(kinds()[1], td.Prioritized)
    assert in_frames(td.Prioritized(500, 4, 3, alpha=0.1)) == td.PrioritizedFrames(500, 4, 3, alpha=0.1)
    assert in_frames(td.FrameReplay()) is in_frames(td.PPO().memory) is None


def trajectory(time, n, shape=(4, 9, 9), dtype=np.uint8, seed=0):
    """Of episodes that last: a frame more at each step."""
    frames = np.random.default_rng(seed).integers(0, 256, (time + shape[0], n, *shape[1:])).astype(dtype)
    images = np.stack([np.stack(frames[t : t + shape[0]], 1) for t in range(time + 1)])
    number, flag = np.arange(time * n, dtype=np.float32).reshape(time, n), np.zeros((time, n), bool)
    return Transition(images[:-1], number.astype(np.int32), number, flag, flag, images[1:], {"carry": (number, number)})


def lived(memory, steps, each=None):
    """A memory after a trajectory, in pieces of `each` steps."""
    n, time = steps.reward.shape[1], len(steps.reward)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), steps)
    state = jax.jit(lambda: memory.init(one, (each or 1, n)))()
    add = jax.jit(memory.add)
    for begin in range(0, time, each or time):
        state = add(state, jax.tree.map(lambda x, a=begin: x[a : a + (each or time)], steps))
    return state


def test_frames_of_any_dtype_come_back_and_so_do_black_ones():
    for dtype in (np.float32, np.int16, bool):
        steps = trajectory(20, 2, dtype=dtype)
        steps = jax.tree.map(lambda x: np.concatenate([np.zeros_like(x[:5]), x]), steps)  # as the memory begins
        steps = steps._replace(reward=np.arange(50, dtype=np.float32).reshape(25, 2))
        memory = td.FrameReplay(60, 40)
        batch = jax.jit(memory.sample)(lived(memory, steps, 5), random.key(0), HALF)
        at = np.unravel_index(np.asarray(batch.steps.reward[0], int), (25, 2))
        assert_same(jax.tree.map(np.asarray, batch.steps.observation[0]), steps.observation[at])
        assert_same(jax.tree.map(np.asarray, batch.steps.next_observation[0]), steps.next_observation[at])


# What it takes


def bytes_of(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("shape", [(84, 84, 4), (4, 84, 84)])
def test_a_million_stacks_of_four_take_less_than_8_gb_and_all_of_them_are_remembered(shape):
    step = step_of(shape)._replace(extras={})
    for kind in (td.FrameReplay, td.PrioritizedFrames):
        for n in (1, 8):
            memory = kind(1_000_000, 32)
            state = jax.eval_shape(lambda m=memory, n=n: m.init(step, (4, n)))
            assert bytes_of(state) < 7.6e9
            slots = state.frames.pixels.shape[0]
            assert slots * n >= 1_000_000 * 17 / 16  # a frame a step, and one more for every sixteenth
    assert bytes_of(jax.eval_shape(lambda: td.Replay(1_000_000, 32).init(step, (4, 1)))) > 56e9


@pytest.mark.parametrize("length", [200, 64, 8, 1])
def test_short_episodes_cost_steps_that_are_remembered(length):
    """Beside a frame for each of its steps, an episode takes its first stack."""
    case = Case(800, 1, (50,), (4, 1, 1), "first", "random", episodes=(length, length))
    happened, _ = life(case, 48, seed=0)
    state = lived(case.memory(td.FrameReplay), happened, 50)
    expected = len(state.frames.pixels) / (1 + 4 / length)
    assert int(state.frames.rows) == pytest.approx(min(800, expected), abs=4)


def loop(memory, n, copies):
    """Compiled add, sample, feedback in a loop whose carry is donated; with `copies` of it side by side if not 0."""
    steps = trajectory(2, n)

    def run(state, times):
        def step(i, carry):
            state, signal = carry
            image = steps.next_observation + jnp.asarray(signal, jnp.uint8)
            state = memory.add(state, steps._replace(next_observation=image))
            batch = memory.sample(state, random.fold_in(random.key(0), i), HALF)
            signal = batch.steps.next_observation.mean() + batch.steps.observation.mean()
            return memory.feedback(state, batch, jnp.abs(batch.steps.reward[0] - signal)), signal

        return lax.fori_loop(0, times, step, (state, jnp.float32(1)))

    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), steps)
    one = jax.eval_shape(lambda: memory.init(one, (2, n)))
    if copies:
        run = jax.vmap(run, (0, None))
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((copies, *x.shape), x.dtype), one)
    return jax.jit(run, donate_argnums=0).lower(one, 1).compile(), one


@pytest.mark.parametrize("copies", [0, 3])
@pytest.mark.parametrize("kind", [td.FrameReplay, td.PrioritizedFrames])
def test_time_and_space_of_a_step_do_not_grow_with_the_capacity(kind, copies):
    space, seconds = [], []
    for capacity in (1_000, 300_000):
        compiled, one = loop(kind(capacity, 32, window=2), 2, copies)
        space.append(compiled.memory_analysis().temp_size_in_bytes)
        carry, taken = (jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), one), None), []
        for _ in range(3):
            began = time.perf_counter()
            carry = jax.block_until_ready(compiled(carry[0], 100))
            taken.append(time.perf_counter() - began)
        seconds.append(min(taken))
    assert space[1] < space[0] + 100_000
    assert seconds[1] < 25 * seconds[0]


@pytest.mark.parametrize("kind", [td.FrameReplay, td.PrioritizedFrames])
def test_a_donated_memory_stays_where_it_is(kind):
    memory = kind(1_000, 32)
    steps = trajectory(2, 2)
    state = lived(memory, steps)
    large = [x for x in jax.tree.leaves(state) if x.size >= 500]
    places = [x.unsafe_buffer_pointer() for x in large]
    state = jax.jit(memory.add, donate_argnums=0)(state, steps)
    assert places == [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state) if x.size >= 500]


@pytest.mark.parametrize("kind", [td.FrameReplay, td.PrioritizedFrames])
def test_side_by_side_each_memory_is_as_it_is_alone(kind):
    case = CASES["shaken"]
    memory, lives = case.memory(kind), [life(case, 7, seed)[0] for seed in range(3)]

    def live(steps, key):
        state = memory.init(step_of(case.shape), (4, case.copies))
        for begin, end in ((0, 4), (4, 7)):
            state = memory.add(state, jax.tree.map(lambda x, a=begin, b=end: x[a:b], steps))
        return memory.sample(state, key, HALF), state

    keys = random.split(random.key(0), 3)
    together, alone = jax.jit(jax.vmap(live))(jax.tree.map(lambda *x: np.stack(x), *lives), keys), jax.jit(live)
    for i, steps in enumerate(lives):
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x, y[i]), alone(steps, keys[i]), together)


# Checkpoints


@pytest.mark.parametrize("steps", [0, 3, 30, 60, 200])
@pytest.mark.parametrize("name", ["no-stacks", "shaken", "long"])
def test_a_memory_comes_back_bit_for_bit_from_its_written_rows_and_frames_alone(name, steps):
    """Also where rows have been forgotten before all of them were written once."""
    case = CASES[name]
    memory = case.memory(td.PrioritizedFrames)
    happened, _ = life(case, 210 // sum(case.lengths), seed=0)
    state = lived(memory, jax.tree.map(lambda x: x[:steps], happened), 1)
    progress = Progress((), state, Actor((), (), (), ()), (), jnp.uint32(steps))
    arrays = snapshots.to_arrays(progress, None)
    written = int(state.frames.written)
    assert len(arrays["memory/frames/pixels"]) == written
    assert len(arrays["memory/steps/reward"]) == min(steps, case.capacity // case.copies)
    assert bool(written) == bool(steps)
    back = snapshots.from_arrays(jax.eval_shape(lambda: progress), arrays)
    jax.tree.map(np.testing.assert_array_equal, back, progress)
    with pytest.raises(CorruptCheckpointError, match=r"'memory/frames/pixels' is uint8"):
        snapshots.from_arrays(
            jax.eval_shape(lambda: progress), arrays | {"memory/frames/pixels": np.zeros((999, 1, 1), np.uint8)}
        )


# Runs


@dataclasses.dataclass(frozen=True)
class Falling:
    """A bright pixel falls through four columns, the last four pictures of it being seen; below it, 1 is right."""

    max_steps: int | None = 9
    observation_space: ClassVar = spaces.Box(0, 255, (10, 10, 4), np.uint8)
    action_space: ClassVar = spaces.Discrete(2)

    def initial(self, key):
        place = random.randint(key, (2,), 0, 10, jnp.int32)
        return place, jnp.repeat(self.picture(place)[..., None], 4, -1)

    def picture(self, place):
        return jnp.zeros((10, 10), jnp.uint8).at[place[0], place[1]].set(255)

    def observe(self, state):
        return state[1]

    def transition(self, state, action, key):
        place = jnp.stack([(state[0][0] + 1) % 10, jnp.clip(state[0][1] + 2 * action - 1, 0, 9)])
        stack = jnp.concatenate([state[1][..., 1:], self.picture(place)[..., None]], -1)
        return (place, stack), (place[1] == 5).astype(jnp.float32), random.bernoulli(key, 0.05)


class Pixels(gymnasium.Env):
    """The same on the host, a picture at a time."""

    observation_space = spaces.Box(0, 255, (10, 10), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.left = self.np_random.integers(0, 10, 2), 9
        return self.picture(), {}

    def picture(self):
        picture = np.zeros((10, 10), np.uint8)
        picture[tuple(self.place)] = 255
        return picture

    def step(self, action):
        self.place, self.left = (
            np.array([(self.place[0] + 1) % 10, np.clip(self.place[1] + 2 * action - 1, 0, 9)]),
            self.left - 1,
        )
        ended = bool(self.np_random.random() < 0.05)
        return self.picture(), float(self.place[1] == 5), ended, self.left == 0, {}


def stacked():
    return gymnasium.wrappers.FrameStackObservation(Pixels(), 4)


LEARNER = td.DQN(
    network=td.MLP((8,), initialization="default"), num_environments=3, rollout_length=2, updates_per_rollout=2,
    warmup_steps=12, target_period=5,
)  # fmt: skip
WORLDS = {"compiled": Falling, "on the host": lambda: stacked}
MEMORIES = {"uniform": (td.FrameReplay, td.Replay), "prioritized": (td.PrioritizedFrames, td.Prioritized)}


def arrays_of(memory, world, iterations, **options):
    """The arrays of a run at its end, and after 40 iterations."""
    learner, saved = dataclasses.replace(LEARNER, memory=memory), None
    steps = iterations * trainer.steps_per_iteration(learner)
    for chunk in trainer.train(learner, lambda: make(WORLDS[world](), 3), steps, seed=3, every=[40], **options):
        saved = chunk.arrays() if chunk.iteration == 40 else saved
    return chunk.arrays(), saved


RUNS = [("compiled", "uniform"), ("on the host", "prioritized")]
RUNS += [
    pytest.param(*run, marks=pytest.mark.full) for run in (("compiled", "prioritized"), ("on the host", "uniform"))
]


@pytest.mark.parametrize(("world", "memory"), RUNS)
def test_a_run_that_stores_frames_resumes_bit_for_bit_and_is_the_run_that_stores_images(world, memory):
    """Episodes end on either side of where it is resumed, and the memory has gone around by then."""
    kind, plain = (kind(150, 8, window=3) for kind in MEMORIES[memory])
    whole, saved = arrays_of(kind, world, 70)
    assert saved["memory/size"] == 50 > saved["memory/frames/rows"]
    resumed, _ = arrays_of(kind, world, 70, resume={3: saved})
    assert_same(resumed, whole)
    frames, images = (arrays_of(memory, world, 14)[0] for memory in (kind, plain))  # nothing is forgotten yet
    assert frames["memory/frames/rows"] == frames["memory/size"] == 28
    for name in frames:
        if not name.startswith("memory/"):
            np.testing.assert_array_equal(frames[name], images[name], err_msg=name)
