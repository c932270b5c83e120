"""Environments on the host: what their copies do alone, again, beside each other, and what they hand out.

They are played through the very boundary that training plays them through, so that what it finds fault with is found
here in the same words.
"""

from __future__ import annotations

import copy
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from thorndike import environments, masks
from thorndike.core import Step
from thorndike.environments.boundary import PASSING, guarded
from thorndike.environments.gymnasium import Gymnasium
from thorndike.environments.likeness import alike
from thorndike.errors import EnvironmentFault, SettingError, ThorndikeError
from thorndike.examination.findings import Report, Seen, number

REPEATED = 300  # steps, at most, that are played again
STARTS = 4  # seeds whose first observations are compared
EXTREME = 0.1  # of random actions that stand at their bounds, where policies stand often
ALMOST = 1e-5  # a difference, of a number's size, that rounding may make
MUTABLE = (list, dict, set, deque, np.ndarray, np.random.Generator, np.random.RandomState, random.Random)
PARTS = {  # of a step, in the order in which they are compared
    "next_observation": "observation",
    "reward": "reward",
    "terminated": "terminated",
    "truncated": "truncated",
    "observation": "observation after the reset",
}
CONSEQUENCE = "results cannot be repeated, and an interrupted run cannot go on as it would have"

Make = Callable[[int], Any]


class Play(NamedTuple):
    """The beginning of a run of play, so that it can be repeated."""

    key: jax.Array
    first: Any  # the observation [1, ...] after the reset
    actions: list[np.ndarray]
    steps: list[Step]


class Difference(NamedTuple):
    """Where two plays part."""

    text: str
    rounding: bool  # whether it is as small as rounding makes it


class Witness:
    """Stands between the boundary and a copy of a Gymnasium environment, and sees what is handed over."""

    def __init__(self, environment: Any) -> None:
        """Nothing has been seen yet."""
        self.environment = environment
        self.seconds, self.steps = 0.0, 0
        self.rewritten = ""  # when an observation was written into later, in words
        self.given: Any = None  # the last observation
        self._copy: Any = None  # as it was then

    def __getattr__(self, name: str) -> Any:
        return getattr(self.environment, name)

    def reset(self, **given: Any) -> Any:
        return self._seen(self._timed(self.environment.reset, **given), "reset")

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._seen(self._timed(self.environment.step, action), "step")

    def _timed(self, function: Callable, *given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            self.seconds += time.perf_counter() - began

    def _seen(self, answer: Any, moment: str) -> Any:
        before, kept = self.given, self._copy
        if not self.rewritten and kept is not None and not _same_arrays(before, kept):
            self.rewritten = moment
        self.given = answer[0] if isinstance(answer, tuple) and answer else None
        self._copy = None if self.rewritten else _copied(self.given)
        return answer


def examine(made: Any, make: Make, report: Report, steps: int, seconds: float, seed: int) -> None:
    """Play in `made`, one copy, then in others that `make` makes, and fill the report."""
    witness = None
    if isinstance(made, Gymnasium):
        witness = made.copies[0] = Witness(made.copies[0])
    seen, began = Seen(made), time.perf_counter()
    play, fault = _played(made, seen, steps, seconds / 2, seed)
    took = time.perf_counter() - began
    if fault:
        report.wrong.append(f"It breaks its word under random actions: {fault}")
    report.seen(seen)
    if witness:
        report.given_as(witness.given)
    if witness and witness.steps:
        report.rate(witness.steps / max(witness.seconds, 1e-9), "one copy, its resets included")
    elif seen.steps:
        report.rate(seen.steps / max(took, 1e-9), "one copy: EnvPool is quicker with many", most=False)
    if play is not None and play.steps:
        affordable = int(seen.steps * (seconds / 2) / max(4 * took, 1e-9))
        count = max(1, min(len(play.steps), affordable))
        short = play._replace(actions=play.actions[:count], steps=play.steps[:count])
        _compare(made, make, short, report, seed, fault is None and took < seconds / 4)
        if fault is None:
            _starts(made, report, seed)
    if witness and witness.rewritten:
        report.unwise.append(
            f"An observation that it gave was written into by its next {witness.rewritten}: whoever keeps it holds "
            "another one. Training here copies each at once; return a new array, or a copy, for other loops."
        )


def _played(made: Any, seen: Seen, steps: int, seconds: float, seed: int) -> tuple[Play | None, str | None]:
    """Random play: its beginning, and what went wrong."""
    generator, key = np.random.default_rng(seed), jax.random.key(seed)
    end = time.perf_counter() + seconds
    play = None
    try:
        _, observation = made.reset(key)
        play = Play(key, observation, [], [])
        while seen.steps < steps and (time.perf_counter() < end or not seen.steps):
            action = random_action(made.action_space, generator, observation)
            _, step = made.step((), action)
            observation = step.observation
            seen.take(step.next_observation, step.reward, step.terminated, step.truncated)
            if len(play.steps) < REPEATED:
                play.actions.append(action)
                play.steps.append(step)
    except (EnvironmentFault, SettingError) as error:
        return play, str(error)
    return play, None


def random_action(space: Any, generator: np.random.Generator, observation: Any) -> np.ndarray:
    """A canonical action [1, ...], legal where a mask says what is; some of a Box stand at its bounds."""
    sizes = masks.choices_of(space)
    if sizes is None:
        action = generator.uniform(-1, 1, (1, *space.shape))
        extreme = generator.random(action.shape) < EXTREME
        return np.where(extreme, np.sign(action), action).astype(np.float32)
    mask = masks.of(observation)
    if mask is None:
        chosen = [int(generator.integers(size)) for size in sizes]
    else:
        parts = masks.parts_of(np.asarray(mask)[0], sizes)
        chosen = [int(generator.choice(np.flatnonzero(part))) if part.any() else 0 for part in parts]
    return np.array(chosen, np.int32).reshape(1, *space.shape)


def _compare(made: Any, make: Make, play: Play, report: Report, seed: int, resumable: bool) -> None:
    """Repeat the beginning in a fresh copy, in one beside another, and in the copy that has played already."""
    saved = made.save() if resumable else None
    again = _repeated(made, play) if isinstance(made, Gymnasium) else None
    difference = None
    if getattr(made, "single", False):
        report.facts["copies"] = "one: the object itself, of which no other is sure to equal it"
    else:
        difference = _with_copies(made, make, play, report, seed, saved)
    if again and difference is None:
        _say(
            report,
            f"An episode depends on those before it: after them, the same seed and actions give another {again.text} "
            "than at first. reset must begin anew: evaluation plays in copies with a past of their own.",
            again.rounding,
        )


def _with_copies(made: Any, make: Make, play: Play, report: Report, seed: int, saved: Any) -> Difference | None:
    """Repeat the beginning in other copies; where a fresh one differs already."""
    try:
        fresh = make(1)
    except ThorndikeError as error:
        report.facts["copies"] = "one"
        report.unwise.append(
            f"A second copy cannot be made beside the first: {error}. Only num_environments=1 works, and evaluations "
            "cut the episode that is played."
        )
        return None
    try:
        with guarded("copies could not be compared"):
            environments.check_distinct(made, fresh)
            same = fresh.observation_space == made.observation_space and fresh.action_space == made.action_space
        if not same:
            report.wrong.append("Copies differ in their spaces.")
            return None
        watched = _Watched(fresh)
        difference = _repeated(fresh, play)
        reason = watched.reason()
        if difference:
            _say(
                report,
                f"A seed does not repeat an episode: in a fresh copy the same seed and actions give another "
                f"{difference.text}{reason}: {CONSEQUENCE}.",
                difference.rounding,
            )
            return difference
    except SettingError as error:
        report.wrong.append(f"Copies are one and the same: {error}.")
        return Difference("", False)
    except EnvironmentFault as fault:
        report.wrong.append(f"It breaks its word: {fault}")
        return None
    finally:
        fresh.close()
    if _beside(make, play, report, seed) is None and saved is not None:
        _resumed(make, saved, report)
    return None


def _beside(make: Make, play: Play, report: Report, seed: int) -> Difference | None:
    """Repeat the beginning in the first of two copies, the other of which acts otherwise."""
    try:
        pair = make(2)
    except ThorndikeError as error:
        report.unwise.append(f"Two copies more cannot be made beside the first: {error}")
        return None
    try:
        watched = _Watched(pair)
        difference = _repeated(pair, play, np.random.default_rng(seed + 1))
        reason = watched.reason()
    except EnvironmentFault as fault:
        report.wrong.append(f"It breaks its word: {fault}")
        return None
    finally:
        pair.close()
    if difference:
        _say(
            report,
            f"Copies are not independent: beside another copy the same seed and actions give another "
            f"{difference.text}{reason}: {CONSEQUENCE}.",
            difference.rounding,
        )
    return difference


def _resumed(make: Make, saved: dict[str, np.ndarray], report: Report) -> None:
    """Go on in a fresh copy where the play had stopped, as a resumed run does."""
    try:
        fresh = make(1)
    except ThorndikeError as error:
        report.facts["resuming"] = f"fails: {error}"
        return
    try:
        fresh.restore(saved)
        report.facts["resuming"] = "exact" if fresh.exact else f"not exact: {'; '.join(fresh.notes)}"
    except ThorndikeError as error:
        report.facts["resuming"] = f"fails: {error}"
    finally:
        fresh.close()


def _starts(made: Any, report: Report, seed: int) -> None:
    """Whether seeds differ in where episodes begin."""
    try:
        firsts = [made.reset(jax.random.key(seed + 1 + i))[1] for i in range(STARTS)]
    except EnvironmentFault as fault:
        report.wrong.append(f"It breaks its word when it is reset again: {fault}")
        return
    same = all(_same_arrays(first, firsts[0]) for first in firsts[1:])
    report.facts["starts"] = f"the same for {STARTS} seeds" if same else "differ from seed to seed"


def _say(report: Report, sentence: str, rounding: bool) -> None:
    if rounding:
        report.unwise.append(f"{sentence} The difference is as small as rounding makes it.")
    else:
        report.wrong.append(sentence)


def _repeated(copies: Any, play: Play, others: np.random.Generator | None = None) -> Difference | None:
    """Where the first of `copies` parts from a play, given the same key and actions; `others` act for the rest."""
    n = copies.num_environments
    try:
        _, observation = copies.reset(play.key)
        if difference := _difference(play.first, observation, "observation at the first reset"):
            return difference
        for t, (action, expected) in enumerate(zip(play.actions, play.steps, strict=True)):
            rows = [action]
            for i in range(1, n):
                of_copy = jax.tree.map(lambda x, i=i: x[i : i + 1], observation)
                rows.append(random_action(copies.action_space, others, of_copy))  # type: ignore[arg-type]
            _, step = copies.step((), np.concatenate(rows))
            observation = step.observation
            for part, name in PARTS.items():
                if difference := _difference(getattr(expected, part), getattr(step, part), f"{name} at step {t + 1}"):
                    return difference
    except EnvironmentFault as fault:
        return Difference(f"end ({fault})", False)
    return None


def _difference(mine: Any, theirs: Any, what: str) -> Difference | None:
    """What differs between a value [1, ...] and the first row of another [N, ...]; None where nothing does."""
    for x, y in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(x)[0], np.asarray(y)[0]
        if a.tobytes() != b.tobytes():
            place = tuple(np.argwhere(np.atleast_1d(a != b))[0]) if (a != b).any() else (0,)
            values = tuple(np.atleast_1d(z)[place] for z in (a, b))
            words = [number(float(v)) if a.dtype.kind == "f" else str(v) for v in values]
            told = f" ({words[0]} and {words[1]})" if words[0] != words[1] else ""
            close = a.dtype.kind == "f" and bool(np.allclose(a, b, rtol=ALMOST, atol=ALMOST))
            return Difference(f"{what}{told}", close)
    return None


class _Watched:
    """What may explain a difference: randomness that all share, and data that all copies hold."""

    def __init__(self, copies: Any) -> None:
        """Note how all that is shared stands."""
        inner = copies.copies[0] if isinstance(copies, Gymnasium) else None
        with guarded("copies could not be compared"):
            self._class = type(getattr(inner, "unwrapped", inner))
        self._held = {name: _deep_copy(value) for name, value in _held_by(self._class).items()}
        self._numpy, self._python = _numpy_state(), random.getstate()

    def reason(self) -> str:
        """What has changed since, in words: "" where nothing has."""
        reasons = ["it draws from numpy's global generator, not from self.np_random"] * (_numpy_state() != self._numpy)
        reasons += ["it draws from Python's global random, not from self.np_random"] * (
            random.getstate() != self._python
        )
        now = _held_by(self._class)
        changed = [name for name, before in self._held.items() if name in now and not alike(now[name], before)]
        reasons += [f"{self._class.__name__}.{name} belongs to all copies at once, and is changed" for name in changed]
        return f" ({'; '.join(reasons)})" if reasons else ""


def _held_by(cls: type) -> dict[str, Any]:
    """What can be changed and belongs to a class itself, not to its instances."""
    own = [vars(base) for base in cls.__mro__ if base.__module__.partition(".")[0] != "gymnasium"]
    named = {name: value for members in reversed(own) for name, value in members.items()}
    ours = (str, int, float, *MUTABLE)
    return {
        name: value
        for name, value in named.items()
        if isinstance(value, ours) and not name.startswith("__") and name != "metadata"
    }


def _deep_copy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except PASSING:
        raise
    except Exception:
        return value


def _numpy_state() -> tuple:
    kind, numbers, *rest = np.random.get_state()
    return kind, np.asarray(numbers).tobytes(), *rest


def _copied(observation: Any) -> Any:
    """Arrays of an observation as they are now; None where it holds none, or is of another kind."""
    if isinstance(observation, np.ndarray):
        return observation.copy()
    if isinstance(observation, dict):
        return {name: _copied(value) for name, value in observation.items()}
    if isinstance(observation, (tuple, list)):
        return [_copied(value) for value in observation]
    return None


def _same_arrays(value: Any, kept: Any) -> bool:
    """Whether arrays are what they were."""
    if isinstance(kept, np.ndarray) and isinstance(value, np.ndarray):
        return value.dtype.hasobject or value.tobytes() == kept.tobytes()
    if isinstance(kept, dict) and isinstance(value, dict):
        return all(_same_arrays(value.get(name), part) for name, part in kept.items())
    if isinstance(kept, (list, tuple)) and isinstance(value, (list, tuple)):
        return len(value) == len(kept) and all(map(_same_arrays, value, kept))
    return True
