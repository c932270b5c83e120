"""Twins of Gymnasium's toy text: the same tables, flags, rewards and spaces, compiled.

Each is a `Tabular`, its `process`, whose tables are built as `gymnasium.envs.toy_text` (1.4) builds its own: the same
ways in the same order. What an episode keeps to itself there (whether a passenger will change their mind, whether a
hand is a natural) is part of the state here, and is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np
from gymnasium import spaces

from thorndike.environments.tabular import Tabular
from thorndike.errors import SettingError, shown

Way = tuple[float, int, float, bool]  # probability, next state, reward, terminated: Gymnasium's words for a transition
Place = tuple[int, int]  # row, column

ROUND = UP, RIGHT, DOWN, LEFT = (-1, 0), (0, 1), (1, 0), (0, -1)  # clockwise

MAPS = {
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": ("SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF", "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"),
}
STANDS = ((0, 0), (0, 4), (4, 0), (4, 3))  # where a taxi's passengers wait and want to go
WALLS = {(0, 1), (1, 1), (3, 0), (3, 2), (4, 0), (4, 2)}  # places with a wall on their right
CARDS = dict.fromkeys(range(1, 10), 1 / 13) | {10: 4 / 13}  # the probability of each value; an ace is 1


class _Twin:
    """What these twins have in common: they are what their `process` is."""

    max_steps: int | None

    @property
    def process(self) -> Tabular:
        raise NotImplementedError

    @property
    def observation_space(self) -> Any:
        return self.process.observation_space

    @property
    def action_space(self) -> Any:
        return self.process.action_space

    def initial(self, key: jax.Array) -> jax.Array:
        return self.process.initial(key)

    def observe(self, state: jax.Array) -> Any:
        return self.process.observe(state)

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        return self.process.transition(state, action, key)

    def posed(self, state: np.ndarray) -> dict[str, Any]:
        """The attributes of Gymnasium's environment that show a state."""
        return {"s": int(state)}


@dataclass(frozen=True)
class FrozenLake(_Twin):
    """FrozenLake-v1: cross the ice to G, round the holes H. Left, down, right, up; State: row * columns + column.

    Slippery ice leads to either side of where one wants to go with half of what `success_rate` leaves.
    """

    desc: Any = None  # rows of S, F, H and G; None: those of `map_name`
    map_name: str | None = "4x4"
    is_slippery: bool = True
    success_rate: float = 1.0 / 3.0
    reward_schedule: tuple[float, ...] = (1, 0, 0)  # for arriving at G, at H, and on any other tile
    max_steps: int | None = 100

    def __post_init__(self) -> None:
        if self.desc is not None:
            letters = np.asarray([list(row) for row in np.asarray(self.desc).astype(str).tolist()], dtype=object)
            if np.ndim(self.desc) == 0 or letters.ndim != 2 or "S" not in letters:
                raise SettingError(f"FrozenLake: desc must be rows of one length with an S, got {shown(self.desc)}")
            object.__setattr__(self, "desc", tuple(map("".join, letters)))
        elif self.map_name not in MAPS:
            names = ", ".join(f"'{name}'" for name in MAPS)
            raise SettingError(f"FrozenLake: map_name must be one of {names}, got {shown(self.map_name)}")
        schedule = np.asarray(self.reward_schedule)
        if schedule.shape != (3,) or schedule.dtype.kind not in "biuf":
            raise SettingError(f"FrozenLake: reward_schedule must be three numbers, got {shown(self.reward_schedule)}")
        object.__setattr__(self, "reward_schedule", tuple(schedule.tolist()))

    @cached_property
    def process(self) -> Tabular:
        desc = MAPS[str(self.map_name)] if self.desc is None else self.desc
        letters = np.array(list(map(list, desc)))
        sideways, goal = (1.0 - self.success_rate) / 2.0, dict(zip("GH", self.reward_schedule, strict=False))

        def ways(place: Place, action: int) -> Iterable[Way]:
            if letters[place] in goal:
                yield 1.0, _number(place, letters.shape), 0, True
                return
            for turn in (-1, 0, 1) if self.is_slippery else (0,):
                probability = 1.0 if not self.is_slippery else sideways if turn else self.success_rate
                reached = _moved(place, (LEFT, DOWN, RIGHT, UP)[(action + turn) % 4], letters.shape)
                letter = letters[reached]
                reward = goal.get(letter, self.reward_schedule[2])
                yield probability, _number(reached, letters.shape), reward, letter in goal

        first = (letters == "S").ravel()
        return _grid("frozen-lake", letters.shape, 4, ways, first / first.sum(), self.max_steps)


@dataclass(frozen=True)
class CliffWalking(_Twin):
    """CliffWalking-v1: walk along a cliff; -1 a step, -100 and back to the start for falling. Up, right, down, left.

    State: row * 12 + column. A slippery cliff leads to either side as often as where one wants to go.
    """

    is_slippery: bool = False
    max_steps: int | None = None

    @cached_property
    def process(self) -> Tabular:
        shape, start, goal = (4, 12), 36, 47
        turns = (-1, 0, 1) if self.is_slippery else (0,)

        def ways(place: Place, action: int) -> Iterable[Way]:
            for turn in turns:
                reached = _number(_moved(place, (UP, RIGHT, DOWN, LEFT)[(action + turn) % 4], shape), shape)
                fell = start < reached < goal
                yield 1 / len(turns), start if fell else reached, -100 if fell else -1, reached == goal

        return _grid("cliff-walking", shape, 4, ways, np.eye(48)[start], self.max_steps)


@dataclass(frozen=True)
class Taxi(_Twin):
    """Taxi-v4: drive to a passenger, pick them up, and set them down where they want to go; 20 for that, -1 a step.

    Down, up, right, left, pick up, set down (-10 where there is nothing to do). State: ((row * 5 + column) * 5 +
    passenger) * 4 + destination, the passenger being at one of four stands, or 4 in the taxi. In the rain the taxi
    drifts to either side; a fickle passenger wants to go elsewhere after the first move. With `mask_from_info` what
    Gymnasium says in `info` is part of the observation, as it is on the host: which actions change anything.
    """

    is_rainy: bool = False
    fickle_passenger: bool = False
    rainy_probability: float = 0.8  # of driving where one wants to
    fickle_probability: float = 0.3
    mask_from_info: bool = False
    max_steps: int | None = 200

    @cached_property
    def process(self) -> Tabular:
        numbers = range(500)
        ways = [[self._ways(state, action) for action in range(6)] for state in numbers]
        first = np.array([passenger not in (4, goal) for *_, passenger, goal in map(_taxi, numbers)]) / 300.0
        seen = np.arange(500)
        if self.fickle_passenger:  # 500 more states, in which the passenger will change their mind
            ways += [[_elsewhere(state, outcomes) for outcomes in row] for state, row in enumerate(ways)]
            first = np.concatenate([(1 - self.fickle_probability) * first, self.fickle_probability * first])
            seen = np.tile(seen, 2)
        space: Any = spaces.Discrete(500)
        observations: Any = seen
        if self.mask_from_info:
            space = spaces.Dict(observation=space, action_mask=spaces.MultiBinary(6))
            observations = {
                "action_mask": np.array([_useful(*_taxi(int(state))) for state in seen], np.int8),
                "observation": seen,
            }
        return Tabular("taxi", *_tables(ways), first, self.max_steps, space, observations)

    def _ways(self, state: int, action: int) -> list[Way]:
        row, column, passenger, goal = _taxi(state)
        place, reward, terminated = (row, column), -1, False
        if action < 4:
            turns = ((self.rainy_probability, 0), *[((1.0 - self.rainy_probability) / 2.0, turn) for turn in (-1, 1)])
            if not self.is_rainy:
                turns = ((1.0, 0),)
            ahead = ROUND.index((DOWN, UP, RIGHT, LEFT)[action])
            blocked = _driven(place, ROUND[ahead]) == place  # then there is no drift either
            reached = [place if blocked else _driven(place, ROUND[(ahead + turn) % 4]) for _, turn in turns]
            return [
                (probability, _taxi_number(*to, passenger, goal), -1, False)
                for (probability, _), to in zip(turns, reached, strict=True)
            ]
        if not _useful(row, column, passenger, goal)[action]:
            reward = -10
        elif action == 4:
            passenger = 4
        else:
            passenger = STANDS.index(place)
            reward, terminated = (20, True) if passenger == goal else (-1, False)
        return [(1.0, _taxi_number(row, column, passenger, goal), reward, terminated)]

    def posed(self, state: np.ndarray) -> dict[str, Any]:
        return {"s": int(state) % 500}


@dataclass(frozen=True)
class Blackjack(_Twin):
    """Blackjack-v1: stick or hit against a dealer who draws up to 17; 1 for winning, -1 for losing.

    The deck is endless. Seen are the player's sum, the dealer's first card and whether an ace counts 11. `sab`: a
    natural (an ace and a ten) beats all but the dealer's own, as in Sutton and Barto's book; else, with `natural`, it
    earns 1.5 where it wins.
    """

    natural: bool = False
    sab: bool = True  # as the id is registered; the bare class of Gymnasium has False
    max_steps: int | None = None

    @cached_property
    def process(self) -> Tabular:
        sums = [(total, 0) for total in range(4, 32)] + [(total, 1) for total in range(12, 22)]
        hands = [Hand(*hand) for hand in sums] + [NATURAL]
        states = [(hand, card) for hand in hands for card in CARDS]
        number = {state: i for i, state in enumerate(states)}
        first = np.zeros(len(states))
        for (one, p), (two, q), (card, r) in product(CARDS.items(), repeat=3):
            first[number[_dealt(one, two), card]] += p * q * r
        ways: list[list[list[Way]]] = []
        for hand, card in states:
            if hand.total > 21:
                ways.append([[(1.0, number[hand, card], 0, True)]] * 2)
                continue
            hit: list[Way] = []
            for drawn, probability in CARDS.items():
                bust = (more := hand.with_card(drawn)).total > 21
                hit.append((probability, number[more, card], -1 if bust else 0, bust))
            stick = [(p, number[hand, card], reward, True) for reward, p in self._settled(hand, card).items()]
            ways.append([stick, hit])
        space = spaces.Tuple((spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)))
        seen = np.array([(hand.total, card, hand.usable_ace) for hand, card in states], np.int32)
        return Tabular("blackjack", *_tables(ways), first, self.max_steps, space, tuple(seen.T))

    def _settled(self, hand: Hand, card: int) -> dict[float, float]:
        """The probability of each reward for sticking with a hand, by the dealer's first card."""
        rewards: dict[float, float] = {}
        for dealer, probability in _dealers(card).items():
            score = dealer.total if dealer.total <= 21 else 0
            reward = float(hand.total > score) - float(hand.total < score)
            if self.sab and hand == NATURAL and dealer != NATURAL:
                reward = 1.0
            elif not self.sab and self.natural and hand == NATURAL and reward == 1.0:
                reward = 1.5
            rewards[reward] = rewards.get(reward, 0.0) + probability
        return rewards

    def posed(self, state: np.ndarray) -> dict[str, Any]:
        total, card, usable_ace = (int(table[state]) for table in self.process.observations)
        shown = {1: "A", 10: "K"}.get(card, str(card))
        player = [1, total - 11] if usable_ace else [total]
        return {"player": player, "dealer": [card, 10], "dealer_top_card_value_str": shown, "dealer_top_card_suit": "S"}


class Hand(NamedTuple):
    """All that matters of the cards that somebody holds."""

    total: int
    usable_ace: int  # 1 where an ace counts 11
    natural: bool = False  # an ace and a ten, and nothing else

    def with_card(self, card: int) -> Hand:
        total, usable = self.total + card, self.usable_ace
        if card == 1 and not usable and total + 10 <= 21:
            return Hand(total + 10, 1)
        return Hand(total - 10, 0) if usable and total > 21 else Hand(total, usable)


NATURAL = Hand(21, 1, True)


def _dealt(one: int, two: int) -> Hand:
    hand = Hand(0, 0).with_card(one).with_card(two)
    return NATURAL if hand.total == 21 else hand


@cache
def _dealers(card: int) -> dict[Hand, float]:
    """The probabilities of what the dealer has at last, by their first card."""
    playing: dict[Hand, float] = {}
    settled: dict[Hand, float] = {}
    for second, probability in CARDS.items():
        hand = _dealt(card, second)
        playing[hand] = playing.get(hand, 0.0) + probability
    while playing:
        hand = min(playing, key=lambda hand: hand.total - 10 * hand.usable_ace)  # nothing leads to it any more
        likely = playing.pop(hand)
        if hand.total >= 17:
            settled[hand] = likely
            continue
        for drawn, probability in CARDS.items():
            more = hand.with_card(drawn)
            playing[more] = playing.get(more, 0.0) + likely * probability
    return settled


def _taxi(state: int) -> tuple[int, int, int, int]:
    """Row, column, passenger and destination."""
    row, column, passenger, goal = np.unravel_index(state, (5, 5, 5, 4))
    return int(row), int(column), int(passenger), int(goal)


def _taxi_number(row: int, column: int, passenger: int, goal: int) -> int:
    return ((row * 5 + column) * 5 + passenger) * 4 + goal


def _driven(place: Place, move: Place) -> Place:
    """Where a taxi comes that nothing but walls keeps from moving."""
    row, column = place
    walled = (move == RIGHT and place in WALLS) or (move == LEFT and (row, column - 1) in WALLS)
    return place if walled else _moved(place, move, (5, 5))


def _useful(row: int, column: int, passenger: int, goal: int) -> list[int]:
    """Of each action of a taxi whether it changes anything: 0 or 1."""
    place = (row, column)
    moves = [int(_driven(place, move) != place) for move in (DOWN, UP, RIGHT, LEFT)]
    return [*moves, int(passenger < 4 and STANDS[passenger % 4] == place), int(passenger == 4 and place in STANDS)]


def _elsewhere(state: int, outcomes: Sequence[Way]) -> list[Way]:
    """The ways of an action while the passenger may yet change their mind, as they do once the taxi moves with them."""
    row, column, passenger, goal = _taxi(state)
    ways: list[Way] = []
    for probability, following, reward, terminated in outcomes:
        moved = _taxi(following)[:2] != (row, column)
        if passenger == 4 and moved:
            others = [following - goal + other for other in range(4) if other != goal]
            ways += [(probability / 3, other, reward, terminated) for other in others]
        else:
            ways.append((probability, following + 500, reward, terminated))
    return ways


def _moved(place: Place, move: Place, shape: Place) -> Place:
    """A step on a grid, at whose edges one stays."""
    row, column = (int(np.clip(at + by, 0, size - 1)) for at, by, size in zip(place, move, shape, strict=True))
    return row, column


def _number(place: Place, shape: Place) -> int:
    return place[0] * shape[1] + place[1]


def _grid(
    name: str,
    shape: Place,
    actions: int,
    ways: Callable[[Place, int], Iterable[Way]],
    first: np.ndarray,
    max_steps: int | None,
) -> Tabular:
    """The process of a grid whose states are its places, seen as numbers."""
    rows = [[[*ways(place, action)] for action in range(actions)] for place in np.ndindex(*shape)]
    states = len(rows)
    return Tabular(name, *_tables(rows), first, max_steps, spaces.Discrete(states), np.arange(states, dtype=np.int32))


def _tables(rows: Sequence[Sequence[Sequence[Way]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The ways of each state's actions as four tables [S, A, K], filled up with ways that are never taken."""
    most = max(len(ways) for row in rows for ways in row)
    filled = [[[*ways, *[(0.0, 0, 0.0, False)] * (most - len(ways))] for ways in row] for row in rows]
    probability, following, reward, terminated = np.moveaxis(np.array(filled, float), -1, 0)
    return probability, following, reward, terminated


TWINS: dict[str, Callable[..., Any]] = {
    "Blackjack-v1": Blackjack,
    "CliffWalking-v1": CliffWalking,
    "CliffWalkingSlippery-v1": partial(CliffWalking, is_slippery=True),
    "FrozenLake-v1": FrozenLake,
    "FrozenLake8x8-v1": partial(FrozenLake, map_name="8x8", max_steps=200),
    "Taxi-v4": Taxi,
}


def random_map(id: str, arguments: Mapping[str, Any]) -> bool:
    """Whether these arguments have Gymnasium draw a frozen lake, which differs from copy to copy."""
    return id.startswith("FrozenLake") and arguments.get("desc") is None and arguments.get("map_name", "") is None
