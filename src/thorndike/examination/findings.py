"""What was seen of an environment, as sentences: numbers go in, plain words come out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from thorndike.errors import one_line
from thorndike.masks import MASK, nothing_legal
from thorndike.spaces import stored

FAR = 10.0  # an observation beyond it is unscaled
UNEVEN = 100.0  # so are spreads whose ratio is larger
GAMMA = 0.99  # the discount of what is said about rewards
LARGE_RETURN, TINY_RETURN = 1e3, 1e-2
COARSE = 1e6  # beyond it float32 keeps less than a tenth
WIDE = 1e6  # bounds of an action beyond it are none
SLOW = 100.0  # steps a second
ENOUGH = 200  # steps, to say that there is no end
LIKELY_LIMIT = ((50, 2), (10, 3))  # an end after as many steps in so many episodes, and never another
ROUNDING = 1e-8  # relative, beyond float32's own, that a bound may be exceeded by


class Leaf(NamedTuple):
    """One part of an observation that a network sees."""

    name: str  # "observation", or "observation['camera'][0]"
    space: spaces.Space
    path: tuple[str | int, ...]

    @property
    def numbers(self) -> bool:
        """Whether it is numbers, not choices."""
        return isinstance(self.space, spaces.Box)

    @property
    def floating(self) -> bool:
        """Whether `normalize_observations` scales it."""
        return isinstance(self.space, spaces.Box) and self.space.dtype.kind == "f"

    @property
    def image(self) -> bool:
        """Whether networks divide it by 255."""
        return isinstance(self.space, spaces.Box) and self.space.dtype == np.uint8 and len(self.space.shape) in (3, 4)

    def of(self, observation: Any) -> Any:
        for step in self.path:
            observation = observation[step]
        return observation


def leaves_of(space: Any, name: str = "observation", path: tuple[str | int, ...] = ()) -> Iterator[Leaf]:
    """The parts of an observation that networks see: masks are none."""
    if isinstance(space, spaces.Dict):
        children: list[Any] = [(key, space[key]) for key in sorted(space.spaces) if key != MASK]
    elif isinstance(space, spaces.Tuple):
        children = [*enumerate(space.spaces)]
    else:
        yield Leaf(name, space, path)
        return
    for key, child in children:
        yield from leaves_of(child, f"{name}[{key!r}]", (*path, key))


class Ranges:
    """Smallest, largest, mean and spread of each element, merged from batches."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Nothing has been seen yet."""
        self.low, self.high = np.full(shape, np.inf), np.full(shape, -np.inf)
        self.mean, self.squares, self.count = np.zeros(shape), np.zeros(shape), 0

    def take(self, batch: np.ndarray) -> None:
        """See a batch [B, ...] too (Chan et al., 1983)."""
        x = np.asarray(batch, np.float64)
        self.low, self.high = np.minimum(self.low, x.min(0)), np.maximum(self.high, x.max(0))
        mean, n = x.mean(0), len(x)
        total, difference = self.count + n, mean - self.mean
        self.squares = self.squares + ((x - mean) ** 2).sum(0) + difference**2 * self.count * n / total
        self.mean, self.count = self.mean + difference * n / total, total

    @property
    def reach(self) -> np.ndarray:
        """How far from 0 each element goes."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def spread(self) -> np.ndarray:
        """The standard deviation of each element."""
        return np.sqrt(self.squares / max(self.count, 1))


class Seen:
    """What random play has shown: of observations, rewards and ends."""

    def __init__(self, environment: Any) -> None:
        """Nothing yet."""
        self.space, self.n = environment.observation_space, environment.num_environments
        self.actions = environment.action_space
        self.max_steps = environment.max_steps
        self.leaves = [leaf for leaf in leaves_of(self.space) if 0 not in (leaf.space.shape or ())]
        self.ranges = [Ranges(leaf.space.shape or ()) for leaf in self.leaves]
        self.steps = 0  # of each copy
        self.rewards = Ranges(())
        self.returns = 0.0  # the discounted return that is furthest from 0
        self.lengths: list[int] = []  # of the episodes that ended
        self.terminated = self.truncated = 0
        self.stuck = False  # whether an episode went on without a legal action
        self._running, self._length = np.zeros(self.n), np.zeros(self.n, int)

    def take(self, observation: Any, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        """A step [N] and what it led to, [N, ...]."""
        for leaf, ranges in zip(self.leaves, self.ranges, strict=True):
            ranges.take(leaf.of(observation))
        self.steps += 1
        self.rewards.take(np.asarray(reward))
        self._running = GAMMA * self._running + reward
        furthest = float(self._running[np.argmax(np.abs(self._running))])
        self.returns = max(self.returns, furthest, key=abs)
        self._length += 1
        done = terminated | truncated
        self.stuck |= bool((nothing_legal(observation, self.actions) & ~done).any())
        if done.any():
            self.lengths += self._length[done].tolist()
            self.terminated, self.truncated = self.terminated + terminated.sum(), self.truncated + truncated.sum()
            self._running[done], self._length[done] = 0.0, 0


class Report:
    """The sentences and the table, as they are gathered."""

    def __init__(self) -> None:
        """Nothing has been found."""
        self.wrong: list[str] = []
        self.unwise: list[str] = []
        self.facts: dict[str, str] = {}

    def spaces(self, environment: Any) -> None:
        """Say what the spaces are, and what is unwise about the actions."""
        self.observation_space = environment.observation_space
        self.facts["runs"] = "compiled" if environment.compiled else "on the host"
        for leaf in leaves_of(environment.observation_space):
            self.facts[leaf.name] = outline(leaf.space)
        space = environment.action_space
        inner = getattr(environment, "environment", None)
        real = getattr(inner, "action_space", space)
        self.facts["action"] = outline(real) + _canonical(space)
        self.unwise += unwise_actions(space)

    def seen(self, seen: Seen) -> None:
        """Say what random play has shown."""
        for leaf, ranges in zip(seen.leaves, seen.ranges, strict=True):
            if ranges.count and leaf.numbers:
                low, high, still = ranges.low.min(), ranges.high.max(), int((ranges.low == ranges.high).sum())
                said = f"; seen {number(low)} to {number(high)}"
                said += f", {still} of {ranges.low.size} never changed" if still and not leaf.image else ""
                self.facts[leaf.name] += said
        self.facts["reward"] = _rewards(seen)
        self.facts["episodes"] = _episodes(seen)
        self.facts["time limit"] = f"{seen.max_steps:,} steps" if seen.max_steps else "none that is known"
        pairs = list(zip(seen.leaves, seen.ranges, strict=True))
        self.wrong += _no_choices(pairs)
        self.wrong += ["Episodes go on where the action_mask allows nothing: then any action is taken."] * seen.stuck
        for sentences in (_bounds(pairs), _scales(pairs), _precision(pairs), _nothing_seen(seen), _ends(seen)):
            self.unwise += sentences
        self.unwise += _reward_scale(seen)

    def given_as(self, observation: Any) -> None:
        """Say where an observation, as it was handed over, holds other numbers than its space says."""
        for leaf in leaves_of(self.observation_space):
            try:
                dtype = leaf.of(observation).dtype
            except Exception:  # not of that form, or no array: a fault, or a plain number
                continue
            if leaf.numbers and dtype != leaf.space.dtype:
                self.facts[leaf.name] += f"; given as {dtype}"

    def rate(self, steps_per_second: float, how: str, most: bool = True) -> None:
        """Say how many steps a second there are; `most` that training cannot have more."""
        self.facts["steps per second"] = f"{steps_per_second:,.0f}, {how}"
        if most and 0 < steps_per_second < SLOW:
            self.unwise.append(
                f"Its steps are slow: {steps_per_second:,.3g} a second were measured, so that a million take at least "
                f"{1e6 / steps_per_second / 3600:,.1f} hours."
            )

    def warned(self, messages: Sequence[str]) -> None:
        """Pass on what was warned of, each once."""
        for message in dict.fromkeys(messages):
            self.unwise.append(f"It warns: {one_line(message)}")


def number(x: float) -> str:
    """A number as a table shows it."""
    return f"{x:,.4g}" if abs(x) < 1e5 else f"{x:.3g}"


def outline(space: Any) -> str:
    """A space in a few words: "float32[4], -4.8 to 4.8", "choice of 6"."""
    if isinstance(space, spaces.Discrete):
        return f"choice of {space.n}" + (f", counted from {space.start}" if space.start else "")
    if isinstance(space, spaces.MultiDiscrete):
        sizes = np.ravel(space.nvec).tolist()
        return f"{len(sizes)} choices, of {', '.join(map(str, sizes[:8]))}{', ...' * (len(sizes) > 8)}"
    if isinstance(space, spaces.MultiBinary):
        return f"zeros and ones{list(space.shape)}"
    stored_as = stored(space).dtype
    note = f", stored as {stored_as}" if stored_as != space.dtype else ""
    if not space.low.size:
        return f"{space.dtype}{list(space.shape)}{note}"
    low, high = space.low.min(), space.high.max()
    bounded = space.bounded_below & space.bounded_above
    bounds = f"{number(low)} to {number(high)}" if bounded.all() else "partly bounded" if bounded.any() else "unbounded"
    return f"{space.dtype}{list(space.shape)}{note}, {bounds}"


def unwise_actions(space: Any) -> list[str]:
    """What of a space of actions makes learning hard."""
    if isinstance(space, spaces.Discrete) and space.n == 1:
        return ["There is only one action: nothing can be learned of choosing."]
    if not isinstance(space, spaces.Box):
        return []
    free = ~(space.bounded_below & space.bounded_above)
    half_width = np.where(free, 0.0, space.high.astype(float) / 2 - space.low.astype(float) / 2)
    said = []
    if free.any():
        said.append(
            f"{_elements('action', free)} has no bounds on both sides: SAC, TD3 and DDPG need them, and PPO's and "
            "REINFORCE's first actions lie around 0 with a standard deviation of 1. Give the Box finite bounds."
        )
    if (half_width > WIDE).any():
        said.append(
            f"{_elements('action', half_width > WIDE)} is bounded by {number(float(space.high.max()))}: actions are "
            "scaled to their bounds, so that random ones are as large. Give bounds that are meant."
        )
    if (space.low == space.high).any():
        said.append(f"{_elements('action', space.low == space.high)} has a single value: leave it out.")
    return said


def _canonical(space: Any) -> str:
    """How a bounded Box is acted on."""
    if not isinstance(space, spaces.Box) or not (space.bounded_below & space.bounded_above).all():
        return ""
    return "" if (space.low == -1).all() and (space.high == 1).all() else ", acted on in [-1, 1] and scaled to that"


def _elements(name: str, which: np.ndarray) -> str:
    """Those of an array, named: "action[2]", "action (all 6)"."""
    if which.all():
        return name if which.size == 1 else f"{name} (all {which.size})"
    places = [", ".join(map(str, place)) for place in np.argwhere(which).tolist()]
    return f"{name}[{']['.join(places[:1])}]" + (f" and {len(places) - 1} more" if len(places) > 1 else "")


def _rewards(seen: Seen) -> str:
    low, high = float(seen.rewards.low), float(seen.rewards.high)
    if not seen.steps:
        return "none seen"
    if low == high:
        return f"always {number(low)} under random actions" + (
            ": it is sparse" if not low and seen.steps >= ENOUGH else ""
        )
    return f"{number(low)} to {number(high)}, mean {number(float(seen.rewards.mean))}"


def _episodes(seen: Seen) -> str:
    if not seen.lengths:
        return f"none ended within {seen.steps:,} steps"
    low, high = min(seen.lengths), max(seen.lengths)
    length = f"{low:,} steps long" if low == high else f"{low:,} to {high:,} steps long"
    return f"{len(seen.lengths):,} ended: {seen.terminated:,} terminated, {seen.truncated:,} truncated; {length}"


def _no_choices(pairs: list[tuple[Leaf, Ranges]]) -> list[str]:
    """Choices that are none of those there are; copies on the host are stopped at these before."""
    said = []
    for leaf, seen in pairs:
        space: Any = leaf.space
        if leaf.numbers or not seen.count:
            continue
        start = getattr(space, "start", 0)
        count = 2 if isinstance(space, spaces.MultiBinary) else getattr(space, "n", None) or space.nvec
        outside = (seen.low < start) | (seen.high >= start + count)
        if np.any(outside):
            low, high = number(float(seen.low.min())), number(float(seen.high.max()))
            said.append(f"{leaf.name} is no choice of {space}: {low} to {high} was seen.")
    return said


def _bounds(pairs: list[tuple[Leaf, Ranges]]) -> list[str]:
    """Numbers outside of their Box, by more than rounding."""
    said = []
    for leaf, seen in pairs:
        if not leaf.numbers or not seen.count:
            continue
        box: Any = leaf.space
        slack = ROUNDING + 4 * np.finfo(np.float32).eps if leaf.floating else 0.0
        low, high = box.low.astype(float), box.high.astype(float)
        low[low == np.finfo(np.float32).tiny] = -np.inf  # C++'s least float, which EnvPool gives where it means none
        below, above = seen.low < low - slack * np.abs(low), seen.high > high + slack * np.abs(high)
        outside = below | above
        if outside.any():
            excess = np.where(outside, np.maximum(low - seen.low, seen.high - high), -np.inf)
            worst = np.unravel_index(np.argmax(excess), excess.shape)
            numbers = [f"{x[worst]:.6g}" for x in (seen.low, seen.high, low, high)]
            said.append(
                f"{_elements(leaf.name, outside)} leaves its space: {numbers[0]} to {numbers[1]} was seen, its bounds "
                f"are {numbers[2]} to {numbers[3]}. Learning here does not rely on bounds, others' wrappers do."
            )
    return said


def _scales(pairs: list[tuple[Leaf, Ranges]]) -> list[str]:
    """Numbers that are large, or whose spreads differ much, as networks see them."""
    said = []
    floating = [(leaf, seen) for leaf, seen in pairs if leaf.floating and seen.count]
    whole = [
        (leaf, seen) for leaf, seen in pairs if leaf.numbers and not leaf.floating and not leaf.image and seen.count
    ]
    far = _furthest(floating)
    flat = [seen.spread.ravel() for leaf, seen in floating if seen.spread.ndim < 3]  # at an image's border little moves
    spreads = np.concatenate([*flat, np.zeros(0)])
    moving = spreads[spreads > 0]
    least, most = (moving.min(), moving.max()) if moving.size else (1.0, 1.0)
    reasons = [f"{far[0]} goes to {number(far[1])}"] if far and abs(far[1]) > FAR else []
    if most > UNEVEN * least:
        reasons.append(f"the spreads of their elements range from {number(least)} to {number(most)}")
    if reasons:
        said.append(
            f"Observations are unscaled: {', and '.join(reasons)}. Networks learn best from numbers around 1: "
            "normalize_observations=True (--normalize-observations true) scales them."
        )
    large = _furthest(whole)
    if large and abs(large[1]) > FAR:
        said.append(
            f"{large[0]} holds whole numbers and goes to {number(large[1])}: networks see them as they are, and "
            "normalize_observations leaves whole numbers alone. Divide them, or declare them float32."
        )
    return said


def _furthest(pairs: list[tuple[Leaf, Ranges]]) -> tuple[str, float] | None:
    """The element that goes furthest from 0, and how far, with its sign."""
    best: tuple[str, float] | None = None
    for leaf, seen in pairs:
        place = np.unravel_index(np.argmax(seen.reach), seen.reach.shape) if seen.reach.shape else ()
        value = float(max(seen.low[place], seen.high[place], key=abs))
        if best is None or abs(value) > abs(best[1]):
            best = leaf.name + (f"[{', '.join(map(str, place))}]" if place else ""), value
    return best


def _precision(pairs: list[tuple[Leaf, Ranges]]) -> list[str]:
    """Numbers of 64 bits that lose what matters in 32."""
    said = []
    for leaf, seen in pairs:
        if leaf.floating and leaf.space.dtype == np.float64 and seen.count and seen.reach.max() > COARSE:
            far = float(seen.reach.max())
            said.append(
                f"{leaf.name} is float64 and goes to {number(far)}: it is stored as float32, which tells numbers there "
                f"apart only by {number(float(np.spacing(np.float32(far))))}. Subtract what is common, or scale it."
            )
    return said


def _nothing_seen(seen: Seen) -> list[str]:
    """Observations that never change although episodes have several steps."""
    moved = any((ranges.low != ranges.high).any() for ranges in seen.ranges)
    if moved or seen.steps < 20 or (seen.lengths and max(seen.lengths) == 1):
        return []
    return [f"The observation was the same in all {seen.steps * seen.n:,} steps: there is nothing to act upon."]


def _ends(seen: Seen) -> list[str]:
    lengths = set(seen.lengths)
    if not lengths and not seen.max_steps and seen.steps >= ENOUGH:
        return [
            f"No episode ended within {seen.steps:,} random steps, and no time limit is known: returns are counted at "
            "ends. gymnasium.wrappers.TimeLimit, or max_steps of a compiled environment, sets one."
        ]
    if len(lengths) == 1 and not seen.truncated:
        (length,) = lengths
        if any(length >= steps and len(seen.lengths) >= episodes for steps, episodes in LIKELY_LIMIT):
            return [
                f"All {len(seen.lengths)} episodes were terminated after exactly {length:,} steps. If that is a time "
                "limit, say truncated instead: terminated tells learning that nothing of value comes after."
            ]
    return []


def _reward_scale(seen: Seen) -> list[str]:
    size = abs(seen.returns)
    if not (size > LARGE_RETURN or 0 < size < TINY_RETURN) or math.isnan(size):
        return []
    word = "large" if size > LARGE_RETURN else "tiny"
    return [
        f"Rewards are {word}: under random actions they add up to {number(seen.returns)}, discounted by {GAMMA} a "
        "step, and the values of a new network are around 0. normalize_rewards=True (--normalize-rewards true) scales "
        "them."
    ]
