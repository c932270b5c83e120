"""Training: a generator of chunks, and the one place that compiles, threads and places anything on devices.

The caller drives. Between two chunks it may log, evaluate, save, or simply stop; nothing it does changes a run.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent import futures
from functools import partial
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from thorndike import core, devices, machine
from thorndike.compilation import jit
from thorndike.core import Actor, Algorithm, Environment, Progress, PyTree, Transition, World
from thorndike.environments.host import HostEnvironment, on_host
from thorndike.episodes import RING, Episodes
from thorndike.errors import EnvironmentFault, SettingError
from thorndike.networks import foreign
from thorndike.snapshots import AHEAD, ENVIRONMENT, Arrays, from_arrays, to_arrays
from thorndike.unrolls import compiled, host

MAX_ITERATIONS = 2**32 - 1  # the device counts them in 32 bits
ROWS = 200  # rows of metrics a run, at most
CHUNK_SECONDS = 0.5  # what chunks are steered to: often enough for a screen and for signals

T = TypeVar("T")
Parallel = Literal["auto", "threads", "vmap", "sequential"]


@dataclasses.dataclass
class Chunk:
    """What one seed's run has come to. Valid until the next turn of the generator: then its buffers are reused."""

    seed: int
    iteration: int
    iterations: int  # of the whole run
    steps: int
    total_steps: int
    progress: Progress
    environment: Environment
    row: dict[str, float] | None  # metrics of the row that ended with this chunk
    seconds: dict[str, float]  # so far: compile, train; on the host also acting, learning
    steps_per_second: float
    stopped: bool = dataclasses.field(default=False, init=False)

    def stop(self) -> None:
        """End this seed's training here, as if no more steps had been asked for; other seeds go on."""
        self.stopped = True

    @property
    def last(self) -> bool:
        return self.stopped or self.iteration >= self.iterations

    @property
    def recent(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns and lengths of the last finished episodes, at most 100, oldest first."""
        return recent(self.progress.episodes)

    def arrays(self, copy: bool = True) -> dict[str, np.ndarray]:
        """Everything that a checkpoint holds of this seed, by name, on the host.

        Without `copy` they are no more valid than the chunk, and to be let go before the next turn.
        """
        return to_arrays(self.progress, self.environment, copy)


def train(
    algorithm: Algorithm,
    make_environment: Callable[[], Environment],
    steps: int,
    *,
    seed: int = 0,
    seeds: int = 1,
    every: Sequence[int] = (),
    row_every: int = 0,
    lend_every: int = 0,
    resume: Mapping[int, Arrays] | None = None,
    ended: Collection[int] = (),
    parallel: Parallel = "auto",
    overlap: bool = False,
    make_chunk: Callable[..., Chunk] = Chunk,
) -> Iterator[Chunk]:
    """Train seeds `seed`, `seed + 1`, ... side by side, yielding each one's chunks as they come.

    `make_environment` gives `algorithm.num_environments` copies and is called once: on the host one seed follows
    another in them. No chunk crosses a multiple of an interval in `every` (in iterations), rows of metrics end
    at multiples of `row_every` (0: at most ROWS of them a run). At multiples of
    `lend_every`, episodes on the host are cut (a truncation), and until the next turn of the generator the copies are
    the caller's to play in. `resume` holds, by seed, what `Chunk.arrays` gave; seeds that have `ended` are left out. On
    CPUs a thread for each core takes one seed after another; on accelerators all are one `vmap`, which, as the copies
    of a lone seed, is spread over those that there are. With `overlap` each
    rollout on the host is learned from while the next one is acted. `make_chunk` takes the fields of a Chunk.
    """
    environment = make_environment()
    algorithm.check(environment.observation_space, environment.action_space)
    chosen = [s for s in range(seed, seed + seeds) if s not in ended]
    beginnings = [_with_foreign_weights(algorithm, environment, s) for s in chosen]
    if parallel == "auto":
        own_networks = all(beginning is algorithm for beginning in beginnings)
        parallel = _best_parallel(environment, len(chosen), own_networks)
    spread = parallel == "vmap" or jax.default_backend() != "cpu"
    groups = [tuple(chosen)] if parallel == "vmap" else [(s,) for s in chosen]
    runs = []
    for i, group in enumerate(groups):
        saved = [(resume or {}).get(s) for s in group]
        run = _Run(
            algorithm, beginnings[i], environment, steps, group, every, row_every, lend_every, saved, make_chunk,
            overlap, spread,
        )  # fmt: skip
        runs.append(run)
    try:
        if parallel == "threads":
            yield from side_by_side([run.chunks() for run in runs])
        else:
            for run in runs:
                yield from run.chunks()
    finally:
        environment.close()


def configure() -> None:
    """Synchronous dispatch on CPUs, which small calls need; without effect once JAX's backend is up."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def keys_of(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A seed's three keys: of its start, of its iterations, of its evaluations."""
    check_seed(seed)
    start_key, run_key, evaluation_key = random.split(random.key(seed), 3)
    return start_key, run_key, evaluation_key


def check_seed(seed: int) -> None:
    """SettingError for what cannot be a seed."""
    if not 0 <= seed < 2**31:
        raise SettingError(f"a seed is a whole number from 0 to {2**31 - 1}, got {seed}")


def steps_per_iteration(algorithm: Algorithm) -> int:
    return algorithm.rollout_length * algorithm.num_environments


def iterations_for(algorithm: Algorithm, steps: int) -> int:
    """Steps round up to whole iterations."""
    if steps < 1:
        raise SettingError(f"steps must be at least 1, got {steps}")
    each = steps_per_iteration(algorithm)
    if steps > MAX_ITERATIONS * each:
        raise SettingError(
            f"steps must be at most {MAX_ITERATIONS * each:,} where an iteration has {each:,}, got {steps:,}"
        )
    return -(-int(steps) // each)


def warmup_iterations(algorithm: Algorithm) -> int:
    """The iterations that only fill the memory."""
    return -(-algorithm.warmup_steps // steps_per_iteration(algorithm))


def row_length(iterations: int) -> int:
    """The iterations that a row of metrics covers, in a run of so many."""
    return -(-iterations // ROWS)


def recent(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of the last finished episodes, at most 100, oldest first."""
    finished = int(episodes.finished)
    kept = [i % RING for i in range(max(0, finished - RING), finished)]
    return np.asarray(episodes.returns)[kept], np.asarray(episodes.lengths)[kept]


def read_row(row: dict) -> dict[str, float]:
    """What a row of metrics says: the means of sums; what nothing was counted of is left out."""
    row = {name: float(total) for name, total in row.items()}
    episodes, learned = row.pop("episodes"), row.pop("learned")
    returns, lengths = row.pop("return"), row.pop("length")
    means: dict[str, float] = {"episodes": int(episodes)}
    if episodes:
        means |= {"return_mean": returns / episodes, "episode_length_mean": lengths / episodes}
    return means | ({name: total / learned for name, total in row.items()} if learned else {})


def _with_foreign_weights(algorithm: Algorithm, environment: Environment, seed: int) -> Algorithm:
    """The algorithm to begin a seed with: weights that another framework makes are made here, not while tracing."""
    return foreign.prepare(algorithm, environment.observation_space, environment.action_space, seed)


def _best_parallel(environment: Environment, seeds: int, own_networks: bool) -> Parallel:
    if seeds == 1 or not environment.compiled:
        return "sequential"
    if jax.default_backend() != "cpu":
        return "vmap" if own_networks else "sequential"
    return "threads" if machine.cores() > 1 else "sequential"


class _Run:
    """One seed's run (or, under `vmap`, that of several): counts on the host, keeps the clock, cuts into chunks."""

    def __init__(
        self, algorithm: Algorithm, beginning: Algorithm, environment: Environment, steps: int, seeds: tuple[int, ...],
        every: Sequence[int], row_every: int, lend_every: int, saved: list[Arrays | None],
        make_chunk: Callable[..., Chunk], overlap: bool, spread: bool,
    ):  # fmt: skip
        self.environment, self.seeds, self.lend_every, self.make_chunk = environment, seeds, lend_every, make_chunk
        self.stopped: set[int] = set()
        self.total = iterations_for(algorithm, steps)
        self.per_iteration = steps_per_iteration(algorithm)
        self.warmup = min(warmup_iterations(algorithm), self.total)
        self.row_length = row_every or row_length(self.total)
        self.borders = [self.row_length, *(int(interval) for interval in (*every, lend_every) if interval)]
        self.begin: Callable[[], _Compiled | _Host]
        if on_host(environment):
            self.begin = partial(
                _Host, algorithm, beginning, environment, seeds, self.total, saved, self.warmup, overlap
            )
        else:
            self.begin = partial(_Compiled, algorithm, beginning, environment, seeds, self.total, saved, spread)
        self.iteration, self.timed = 0, 0  # iterations done; those of this session that seconds["train"] covers
        self.seconds = {"compile": 0.0, "train": 0.0}

    def chunks(self) -> Iterator[Chunk]:
        """The run. What is run first of each phase is compiling, and is not timed as training."""
        began = time.perf_counter()
        mode, ready = self.begin(), set[bool]()
        self.iteration = mode.iteration
        while self.iteration < self.total and self.stopped < set(self.seeds):
            warmup = self.iteration < self.warmup
            if warmup in ready:
                length, clock = self.next_length(warmup), "train"
                mode.advance(length, warmup)
                self.timed += length
            else:
                length, clock = mode.compile(warmup), "compile"
                ready.add(warmup)
            self.iteration += length
            self.seconds[clock] += time.perf_counter() - began
            lending = self.lend_every and self.iteration % self.lend_every == 0 and self.iteration < self.total
            if length and lending:
                mode.lend()
            if length:
                yield from self.cut(mode)
            if length and lending:
                mode.take_back()
            began = time.perf_counter()

    def next_length(self, warmup: bool) -> int:
        """Iterations to the nearest border, or as many as take about CHUNK_SECONDS."""
        ends = [self.warmup if warmup else self.total]
        ends += [self.iteration + border - self.iteration % border for border in self.borders]
        steered = int(CHUNK_SECONDS * self.timed / self.seconds["train"]) if self.timed else 1
        return min(min(ends) - self.iteration, max(steered, 1))

    def cut(self, mode: _Compiled | _Host) -> Iterator[Chunk]:
        """The chunks, one for each seed that goes on, that end here."""
        row_ended = self.iteration % self.row_length == 0 or self.iteration == self.total
        rate = self.timed * self.per_iteration / self.seconds["train"] if self.timed else 0.0
        ended = mode.close_row() if row_ended else None
        told = mode.close_infos() if row_ended else {}
        for i, seed in enumerate(self.seeds):
            if seed in self.stopped:
                continue
            progress = mode.of_seed(mode.progress, i)
            _check_finite(progress, seed)
            chunk = self.make_chunk(
                seed, self.iteration, self.total, self.iteration * self.per_iteration, self.total * self.per_iteration,
                progress, self.environment, read_row(mode.of_seed(ended, i)) | told if ended else None,
                self.seconds | mode.seconds, rate,
            )  # fmt: skip
            yield chunk
            if chunk.stopped:
                self.stopped.add(seed)


class _Mode:
    """What compiled and host runs share. Their `progress` holds all that changes."""

    several = False
    seconds: dict[str, float]

    def of_seed(self, tree: Any, i: int) -> Any:
        return jax.tree.map(lambda x: x[i], tree) if self.several else tree

    def lend(self) -> None:
        """Make ready for somebody else to play in the copies; states of compiled ones are nobody's to change."""

    def take_back(self) -> None:
        """Go on where `lend` stopped."""

    def close_infos(self) -> dict[str, float]:
        """What the environment has said at the ends of the row's episodes, as means."""
        return {}


class _Compiled(_Mode):
    """A run whose iterations are one program: a loop with a traced number of turns."""

    def __init__(
        self, algorithm: Algorithm, beginning: Algorithm, environment: Environment, seeds: tuple[int, ...],
        total: int, saved: list[Arrays | None], spread: bool = False,
    ):  # fmt: skip
        """`spread` says to use every device that there is."""
        self.several = len(seeds) > 1
        start_keys, run_keys, _ = zip(*(keys_of(seed) for seed in seeds), strict=True)
        # Not by `stack`: JAX's check that no key is used twice takes what that makes for used.
        start_key, self.key = (
            jnp.concatenate([key[None] for key in keys]) if self.several else keys[0] for keys in (start_keys, run_keys)
        )
        self.algorithm, beginning = as_arrays(algorithm), as_arrays(beginning)
        self.environment, self.total, self.seconds = environment, np.float32(total), {}
        if saved[0] is None:
            self.progress = _begin(beginning, environment, start_key)
        else:
            template = _begin.eval_shape(beginning, environment, start_keys[0])
            restored = [from_arrays(template, arrays) for arrays in saved if arrays is not None]
            self.progress = jax.tree.map(lambda *x: jnp.stack(x), *restored) if self.several else restored[0]
        self.iteration = int(np.max(self.progress.iteration))
        if spread and self.several:
            self.progress, self.key = devices.spread_seeds((self.progress, self.key), len(seeds))
        elif spread:
            self.progress = devices.spread_copies(self.progress, environment.num_environments)

    def compile(self, warmup: bool) -> int:
        """No turn of the loop at all: what is left is compiling it."""
        self.advance(0, warmup)
        return 0

    def advance(self, iterations: int, warmup: bool) -> None:
        self.progress = _advance(
            self.algorithm, self.environment, self.progress, self.key, self.total, np.int32(iterations), warmup
        )
        jax.block_until_ready(self.progress.iteration)

    def close_row(self) -> dict:
        ended, self.progress = _closed_row(self.progress)
        return ended


class Learning:
    """A run apart from its world on the host: what to act with next, and what becomes of what was acted.

    Acting is the caller's, all else is one compiled call an iteration.
    """

    def __init__(
        self, algorithm: Algorithm, beginning: Algorithm, world: World, observation: PyTree, seed: int, total: int,
        saved: Arrays | None,
    ):  # fmt: skip
        """Begin, or go on from the arrays `saved`.

        Of the `world` only spaces and the number of copies are looked at, of the `observation` [N, ...] only shapes.
        """
        start_key, self.key, _ = keys_of(seed)
        beginning, start_key = as_arrays(beginning), random.split(start_key)[1]
        self.algorithm, self.total = as_arrays(algorithm), np.float32(total)
        begin = jit(lambda observation: core.start(beginning, world, (), observation, start_key))
        if saved is None:
            progress = begin(observation)
        else:
            template = begin.eval_shape(observation)
            if any(name.startswith(AHEAD) for name in saved):
                template = template._replace(ahead=_rollout_shapes(beginning, template.state, observation, start_key))
            progress = from_arrays(template, saved)
        self.progress = progress._replace(actor=progress.actor._replace(done=np.asarray(progress.actor.done)))
        self.plan = _plan(self.algorithm, self.progress._replace(actor=None), self.key, self.total)

    def go_on(self, observation: PyTree, begun: np.ndarray) -> None:
        """Act on `observation` next, where copies `begun` [N] have left their episodes for new ones."""
        self.break_off(begun)
        actor = self.progress.actor
        self.progress = self.progress._replace(actor=actor._replace(observation=observation, done=actor.done | begun))

    def break_off(self, begun: np.ndarray) -> None:
        """Copies `begun` [N] have left their episodes for new ones: nothing joins the two."""
        ahead = self.progress.ahead
        if begun.any() and ahead:  # which holds their last steps
            truncated = np.array(ahead.truncated)
            truncated[-1] |= begun & ~np.asarray(ahead.terminated[-1])
            self.progress = self.progress._replace(ahead=ahead._replace(truncated=truncated))
        elif begun.any():
            self.progress = _restarted(self.algorithm, self.progress, begun)

    def conclude(self, actor: Actor, trajectory: Transition, warmup: bool) -> None:
        """Learn from a trajectory, which led to `actor`, or warming up only remember it."""
        progress, self.plan = _conclude_and_plan(
            self.algorithm, self.progress._replace(actor=None, ahead=()), trajectory, self.plan[2], self.key,
            self.total, warmup,
        )  # fmt: skip
        jax.block_until_ready(progress.iteration)  # large arrays cross asynchronously, and the call waits for them
        self.progress = progress._replace(actor=actor)

    def plan_ahead(self) -> tuple:
        """What the rollout after the next is acted with, before the next is learned from: its policy and keys."""
        return _plan_ahead(self.algorithm, self.progress._replace(actor=None, ahead=()), self.key, self.total)

    def close_row(self) -> dict:
        """The sums of the row that ends here; the next one starts from zero."""
        ended, self.progress = _closed_row(self.progress)
        return ended


class _Host(_Mode):
    """A run whose environment is on the host: acting is a Python loop."""

    def __init__(
        self, algorithm: Algorithm, beginning: Algorithm, environment: HostEnvironment, seeds: tuple[int, ...],
        total: int, saved: list[Arrays | None], warmup: int = 0, overlap: bool = False,
    ):  # fmt: skip
        """In iterations, `total` and `warmup` are those of the run; `overlap` acts while it learns, see `advance`."""
        self.environment, self.total, self.warmup = environment, total, warmup
        self.second = futures.ThreadPoolExecutor(1) if overlap else None
        self.unroll = getattr(environment, "unroll", host.unroll)  # copies that are elsewhere bring their own
        self.seconds = {"acting": 0.0, "learning": 0.0}
        self.lent: dict[str, np.ndarray] = {}
        env_key, _ = random.split(keys_of(seeds[0])[0])
        observation = environment.reset(env_key)[1]
        self.learning = Learning(algorithm, beginning, environment, observation, seeds[0], total, saved[0])
        if saved[0] is not None:
            names = [name for name in saved[0] if name.startswith(ENVIRONMENT)]
            observation = environment.restore({name.removeprefix(ENVIRONMENT): saved[0][name] for name in names})
        self.learning.go_on(observation, environment.restarted)
        self.iteration = int(self.progress.iteration)

    @property
    def progress(self) -> Progress:
        return self.learning.progress

    def close_row(self) -> dict:
        return self.learning.close_row()

    def lend(self) -> None:
        observation = self.environment.cut(self.environment.under_way)
        self.learning.go_on(observation, self.environment.restarted)
        self.lent = self.environment.save()

    def close_infos(self) -> dict[str, float]:
        means = self.environment.close_infos()
        self.lent = self.environment.save() if self.lent else {}  # lent before the row was closed: it begins a new one
        return means

    def take_back(self) -> None:
        self.learning.go_on(self.environment.restore(self.lent), self.environment.restarted)
        self.lent = {}

    def compile(self, warmup: bool) -> int:
        """The first iteration: what it takes is nearly all compiling."""
        self.advance(1, warmup)
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        return 1

    def advance(self, iterations: int, warmup: bool) -> None:
        """So many rollouts, each acted, then learned from.

        With `overlap` each is learned from while the next one is acted, by the policy from before: it lags one rollout
        behind. Nothing is under way in between: the rollout that was acted ahead is part of the progress.
        """
        for _ in range(iterations):
            if self.second is None:
                actor, trajectory = self.act(self.learning.plan, self.iteration)
                self.break_off_lost()
                self.learn(actor, trajectory, warmup)
            else:
                self.learn_and_act_ahead(self.second, warmup)
            self.iteration += 1

    def act(self, plan: tuple, number: int) -> tuple[Actor, Transition]:
        """Act the rollout of the iteration `number`."""
        began, learning = time.perf_counter(), self.learning
        actor, trajectory = self.unroll(
            learning.algorithm, self.environment, plan[0], learning.progress.actor, plan[1],
            learning.algorithm.rollout_length, uniform=number < self.warmup,
        )  # fmt: skip
        self.seconds["acting"] += time.perf_counter() - began
        return actor, trajectory

    def break_off_lost(self) -> None:
        """Have nothing join what is remembered to a rollout before which copies lost their episodes.

        Those lost on the way are truncations in its trajectory.
        """
        for loss in self.environment.lost:
            if loss.step == 0:
                self.learning.break_off(loss.under_way)

    def learn(self, actor: Actor, trajectory: Transition, warmup: bool) -> None:
        began = time.perf_counter()
        self.learning.conclude(actor, trajectory, warmup)
        self.seconds["learning"] += time.perf_counter() - began

    def learn_and_act_ahead(self, second: futures.Executor, warmup: bool) -> None:
        """Learn from the rollout that was acted ahead, in a thread of its own, and act the next one."""
        learning, number = self.learning, self.iteration
        if not learning.progress.ahead:  # the first one
            actor, trajectory = self.act(learning.plan, number)
            learning.progress = learning.progress._replace(actor=actor, ahead=trajectory)
        actor, trajectory = learning.progress.actor, learning.progress.ahead
        plan = learning.plan_ahead()
        learned = second.submit(self.learn, actor, trajectory, warmup)
        try:
            ahead = self.act(plan, number + 1) if number + 1 < self.total else None
        finally:
            learned.result()
        if ahead:
            self.break_off_lost()
            learning.progress = learning.progress._replace(actor=ahead[0], ahead=ahead[1])


def _closed_row(progress: Progress) -> tuple[dict, Progress]:
    """The sums of the row that ends here; the next one starts from zero."""
    row = progress.episodes.row
    zero = jax.tree.map(jnp.zeros_like, row)
    return jax.tree.map(np.asarray, row), progress._replace(episodes=progress.episodes._replace(row=zero))


def _restarted(algorithm: Algorithm, progress: Progress, begun: np.ndarray) -> Progress:
    """Progress once copies `begun` [N] have left their episodes for new ones: nothing joins the two."""
    episodes = progress.episodes
    reward, length = (jnp.where(begun, 0, x) for x in (episodes.reward, episodes.length))
    return progress._replace(
        state=algorithm.restarted(progress.state, jnp.asarray(begun)),
        memory=algorithm.memory.restarted(progress.memory, jnp.asarray(begun)),
        episodes=episodes._replace(reward=reward, length=length),
    )


@partial(jit, static_argnames="environment")
def _begin(algorithm: Algorithm, environment: Environment, key: jax.Array) -> Progress:
    """The progress of runs that have not begun: of one, or of several for keys [S]."""

    def begin(key):
        env_key, start_key = random.split(key)
        env_state, observation = environment.reset(env_key)
        return core.start(algorithm, environment, env_state, observation, start_key)

    return jax.vmap(begin)(key) if key.ndim else begin(key)


@partial(jit, static_argnames=("environment", "warmup"), donate_argnames="progress")
def _advance(
    algorithm: Algorithm, environment: Environment, progress: Progress, key: jax.Array, total: jax.Array,
    iterations: int, warmup: bool,
) -> Progress:  # fmt: skip
    """So many iterations of one run, or of several for keys [S]."""

    def advance(progress, key):
        def once(_, progress):
            return core.iteration(algorithm, environment, compiled.unroll, progress, key, total, warmup)

        return lax.fori_loop(0, iterations, once, progress)

    return jax.vmap(advance)(progress, key) if key.ndim else advance(progress, key)


_plan = jit(core.plan)


@jit
def _plan_ahead(algorithm: Algorithm, progress: Progress, key: jax.Array, total: jax.Array) -> tuple:
    """What the iteration after the next acts with, in arrays of its own: the buffers of `progress` are about to go."""
    plan = core.plan(algorithm, progress._replace(iteration=progress.iteration + 1), key, total)
    return jax.tree.map(jnp.copy, plan)


def _rollout_shapes(algorithm: Algorithm, state: PyTree, observation: PyTree, key: jax.Array) -> Transition:
    """A rollout [T, N, ...] as shapes."""
    leading = algorithm.rollout_length, algorithm.num_environments
    step = core.shapes_of_step(algorithm, state, observation, key)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype), step)


@partial(jit, static_argnames="warmup", donate_argnames="progress")
def _conclude_and_plan(
    algorithm: Algorithm, progress: Progress, trajectory: Transition, learn_key: jax.Array, run_key: jax.Array,
    total: jax.Array, warmup: bool,
) -> tuple[Progress, tuple]:  # fmt: skip
    """Learning, and in the same call the policy and keys of the next rollout."""
    progress = core.conclude(algorithm, progress, None, trajectory, learn_key, total, warmup)
    return progress, core.plan(algorithm, progress, run_key, total)


def side_by_side(runs: Sequence[Iterator[T]]) -> Iterator[T]:
    """What all `runs` yield (chunks), as it comes.

    A thread for each core takes one run after another; it waits while what it has made is in the caller's hands.
    """
    waiting_runs: queue.SimpleQueue = queue.SimpleQueue()
    for run in runs:
        waiting_runs.put(run)
    ready: queue.SimpleQueue = queue.SimpleQueue()
    stopped = threading.Event()

    def work() -> None:
        try:
            while (run := _next(waiting_runs)) is not None and not stopped.is_set():
                for chunk in run:
                    released = threading.Event()
                    ready.put((chunk, released))
                    released.wait()
                    if stopped.is_set():
                        return
            ready.put((None, None))
        except BaseException as error:  # it is the caller's to see
            ready.put((error, None))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(len(runs), machine.cores()))]
    waiting = None
    try:
        for thread in threads:
            thread.start()
        running = len(threads)
        while running:
            item, waiting = ready.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
                continue
            yield item
            waiting.set()
    finally:
        stopped.set()
        _release(threads, ready, waiting)


def _next(waiting: queue.SimpleQueue) -> Any:
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return None


def _release(threads: list[threading.Thread], ready: queue.SimpleQueue, waiting: threading.Event | None) -> None:
    """Let every thread come to its end, so that none computes behind the caller's back."""
    if waiting is not None:
        waiting.set()
    while any(thread.is_alive() for thread in threads):
        try:
            _, released = ready.get(timeout=0.05)
        except queue.Empty:
            continue
        if released is not None:
            released.set()


def as_arrays(algorithm: Algorithm) -> Algorithm:
    """The algorithm with its float fields as float32 arrays, put on the device once and not at every call."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) if isinstance(x, float) else jnp.asarray(x), algorithm)


def _check_finite(progress: Progress, seed: int) -> None:
    """Raise where an environment has given a value that is not finite."""
    found, iteration, place = (int(x) for x in progress.episodes.fault)
    if not found:
        return
    n = progress.episodes.reward.shape[0]
    raise EnvironmentFault(
        f"the environment gave a reward or observation that is not finite: seed {seed}, copy {place % n}, "
        f"in rollout {iteration} at its step {place // n}; nothing was saved from it"
    )
