"""Compiled environments: whether their functions are pure, whether runs can share a program, and what they show."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from thorndike import masks
from thorndike.compilation import jit
from thorndike.environments.likeness import alike
from thorndike.errors import EnvironmentFault, ThorndikeError
from thorndike.examination.findings import Report, Seen, number
from thorndike.spaces import bounded, uniform_action

COPIES = 16
CHUNK = 50  # steps that one call takes
CLOSE = 1e-3  # what rounding may make of numbers, in one step
PURE = (
    "Random numbers come from the key, and what changes stands in the state: compiled, anything else is computed once "
    "and for all."
)

Make = Callable[[int], Any]


def examine(made: Any, make: Make, report: Report, steps: int, seconds: float, seed: int) -> None:
    """Play in copies that `make` makes, and fill the report. `made` is one copy."""
    try:
        with jax.debug_key_reuse(False):  # to ask twice with one key is the very test
            pure = _purity(made, report, seed)
        if pure:
            _play(make(COPIES), report, steps, seconds / 2, seed)
    except EnvironmentFault as fault:
        report.wrong.append(f"It breaks its word: {fault}")
        return
    _equality(made, make, report)


def _play(environment: Any, report: Report, steps: int, seconds: float, seed: int) -> None:
    """Random play, in chunks of one program."""
    key = random.key(seed)
    seen, began = Seen(environment), time.perf_counter()
    state = jit(environment.reset)(random.fold_in(key, 0))
    program = jit(_chunk, static_argnums=0).lower(environment, state, key).compile()
    report.facts["compiling"] = f"{time.perf_counter() - began:.1f} s, {CHUNK} random steps of {COPIES} copies"
    began, playing = time.perf_counter(), 0.0
    firsts = jax.tree.map(np.asarray, state[1])
    while seen.steps < steps and (time.perf_counter() - began < seconds or not seen.steps):
        before = time.perf_counter()
        state, rows = jax.block_until_ready(program(state, random.fold_in(key, 1 + seen.steps)))
        playing += time.perf_counter() - before
        rows = jax.tree.map(np.asarray, rows)
        if broken := _not_finite(rows):
            report.wrong.append(f"{broken} is not finite, after at most {seen.steps + CHUNK:,} random steps.")
            break
        for t in range(CHUNK):
            seen.take(*jax.tree.map(lambda x, t=t: x[t], rows))
    report.seen(seen)
    if seen.steps:
        rate = seen.steps * COPIES / max(playing, 1e-9)
        report.rate(rate, f"{COPIES} copies on {jax.default_backend()}, compiled; more copies give more")
    same = all(bool((x == x[:1]).all()) for x in jax.tree.leaves(firsts))
    report.facts["starts"] = f"the same in {COPIES} copies" if same else "differ from copy to copy"


def _chunk(environment: Any, state: Any, key: jax.Array) -> Any:
    """Some random steps, and what is seen of them [CHUNK, N, ...]."""

    def step(state: Any, key: jax.Array) -> Any:
        env_state, observation = state
        key_action, key_step = random.split(key)
        action = _random_action(environment, observation, key_action)
        env_state, step = environment.step(env_state, action, key_step)
        return (env_state, step.observation), (step.next_observation, step.reward, step.terminated, step.truncated)

    return lax.scan(step, state, random.split(key, CHUNK))


def _random_action(environment: Any, observation: Any, key: jax.Array) -> Any:
    space, n = environment.action_space, environment.num_environments
    if masks.choices_of(space) is not None or bounded(space):
        return uniform_action(space, key, n, masks.of(observation))
    return random.uniform(key, (n, *space.shape), jnp.float32, -1, 1)


def _not_finite(rows: Any) -> str:
    """What of a chunk is not a number; "" where all are."""
    observation, reward, *_ = rows
    if not np.isfinite(reward).all():
        return "The reward"
    numbers = [x for x in jax.tree.leaves(observation) if x.dtype.kind == "f"]
    return "" if all(np.isfinite(x).all() for x in numbers) else "The observation"


def _purity(made: Any, report: Report, seed: int) -> bool:
    """Whether the same state, action and key give the same, twice as they are and once compiled.

    One step shows it: each call traces every branch anew, that of a reset too, and what is not pure differs in that.
    """
    environment = made.environment
    name, before = type(environment).__name__, _settings(environment)
    keys = random.split(random.key(seed), 3)
    (state, observation), again = made.reset(keys[0]), made.reset(keys[0])
    if where := _differs((state, observation), again, 0.0):
        report.wrong.append(f"{name} is not pure: the same key began episodes that differ, in {where}. {PURE}")
        return False
    action = _random_action(made, observation, keys[1])
    first, second = (made.step(state, action, keys[2]) for _ in range(2))
    if where := _differs(first, second, 0.0):
        report.wrong.append(f"{name} is not pure: the same state, action and key gave {where}. {PURE}")
        return False
    if where := _differs(first, jit(made.step)(state, action, keys[2]), CLOSE):
        report.wrong.append(f"{name} compiled gives another result than as it is: {where}.")
        return False
    if not alike(before, _settings(environment)):
        report.wrong.append(f"{name} changes its own attributes while it is played: what changes belongs in the state.")
    report.facts["purity"] = "the same state, action and key give the same, compiled too"
    return True


def _settings(environment: Any) -> dict[str, Any]:
    """The attributes of an environment as they stand now, one level deep."""
    own = {**getattr(environment, "__dict__", {})}
    return {
        name: list(value) if isinstance(value, list) else dict(value) if isinstance(value, dict) else value
        for name, value in own.items()
    }


def _differs(one: Any, other: Any, tolerance: float) -> str:
    """The first numbers that differ between two pytrees, in words; "" where none do."""
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = (_plain(z) for z in (x, y))
        apart = np.abs(a - b) > tolerance * (1 + np.abs(a)) if a.dtype.kind == "f" else a != b
        apart &= ~(np.isnan(a) & np.isnan(b)) if a.dtype.kind == "f" else True
        if apart.any():
            place = tuple(np.argwhere(apart)[0])
            return f"{number(float(a[place]))} and {number(float(b[place]))}"
    return ""


def _plain(x: Any) -> np.ndarray:
    """A leaf as at least one number; keys as their data."""
    array = random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return np.atleast_1d(np.asarray(array))


def _equality(made: Any, make: Make, report: Report) -> None:
    """Whether two that are made alike are equal, so that what is compiled for one serves the other."""
    try:
        other = make(1)
    except ThorndikeError as error:
        report.wrong.append(f"It cannot be made twice: {error}")
        return
    cls = type(made.environment)
    same = made == other and hash(made) == hash(other)
    if not same or (other.environment is made.environment and cls.__eq__ is object.__eq__):
        report.unwise.append(
            f"Two {cls.__name__} made alike are not equal, or differ in their hash: each run compiles a program of its "
            "own. A frozen dataclass of plain values is equal where its fields are."
        )
