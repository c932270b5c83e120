"""What may be handed to the library, drawn at random: environments that do as they please, and configurations.

The quick suite draws some of each, `make faults` thousands.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st
from jax import random

import thorndike as td
from thorndike.environments import make


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError


class Bare(BaseException):
    """Of no kind that anybody catches."""


class Refusing:
    """Refuses whatever is asked of it, its own attributes too."""

    def fail(self, *_, **__):
        raise RuntimeError("no")

    __array__ = __float__ = __len__ = __iter__ = __getitem__ = __bool__ = __int__ = __index__ = __eq__ = fail
    __getattr__ = __repr__ = __str__ = __call__ = keys = fail
    __hash__ = None  # type: ignore[assignment]


# Made anew at each raise: an exception that was raised before carries its history along.
ERRORS = [
    lambda: ValueError("engine is cold"), lambda: RuntimeError("one\ntwo"), lambda: KeyError("place"), Unspeakable,
    lambda: SystemExit(0), lambda: SystemExit("bye"), lambda: GeneratorExit(), lambda: MemoryError(), StopIteration,
    lambda: RecursionError("maximum recursion depth exceeded"), asyncio.CancelledError, lambda: AssertionError(), Bare,
    lambda: ExceptionGroup("two", [ValueError("a"), OSError("b")]), lambda: OSError(28, "No space left on device"),
    lambda: RuntimeError("\x1b[2J\x00" + "long " * 5000), lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"),
    lambda: ModuleNotFoundError("No module named 'engine'", name="engine"), lambda: td.SettingError("theirs"),
    lambda: TypeError("__init__() got an unexpected keyword argument 'seed'"), lambda: AttributeError("spec"),
    lambda: gymnasium.error.DependencyNotInstalled('run `pip install "gymnasium[box2d]"`'),
]  # fmt: skip
ODD = [
    None, 1, -1.5, np.nan, np.inf, 1e300, "x", (), [], {}, True, np.bool_(True), np.zeros(4), np.zeros(4, "f"),
    np.zeros((2, 2)), np.array([1, "a"], object), {"a": 1}, {"a": np.zeros(2)}, b"", 2**70, object(), jnp.ones(4),
    Refusing(), np.full(4, np.nan, "f"), np.zeros(0, "f"), np.array("2020", "M8"), [[1], [1, 2]], np.float16(1), 1j,
    np.ma.masked, {1: 2, "a": 3}, type, np.array(None), [None] * 4, {"a": Refusing()}, -(2**63), 2**64 - 1,
    np.zeros(4, complex), np.uint64(2**63), np.zeros(4).astype(">f8"), memoryview(b"abcd"), range(4),
]  # fmt: skip

FINE = [
    spaces.Box(-np.inf, np.inf, (4,), np.float32),
    spaces.Box(0, 255, (3,), np.uint8),
    spaces.Dict(a=spaces.Discrete(3)),
    spaces.Tuple([spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3], start=[1, -1])]),
    spaces.Discrete(4, start=-2),
]
ODD_SPACES = [
    None, 3, "Box", spaces.Box, Refusing(), spaces.Discrete(2**31 - 1), spaces.Discrete(2**31), spaces.Discrete(2**62),
    spaces.Discrete(3, start=2**31 - 2), spaces.Discrete(3, start=-(2**40)), spaces.Box(-1, 1, (0,)),
    spaces.Box(-1, 1, ()), spaces.Box(-1, 1, (2, 0)), spaces.Box(-1, np.inf, (2,)), spaces.Box(1, 1, (2,)),
    spaces.Box(-3e38, 3e38, (2,)), spaces.Box(-1e300, 1e300, (2,), np.float64), spaces.Box(0, 1, (2,), bool),
    spaces.Box(-(2**62), 2**62, (2,), np.int64), spaces.Box(0, 2**64 - 1, (2,), np.uint64), spaces.Box(0, 9, (), int),
    spaces.Box(0, 3, (0,), np.int64), spaces.Box(-1, 1, (2,), np.float16), spaces.Dict({}), spaces.Tuple([]),
    spaces.Dict(a=spaces.Tuple([])), spaces.Dict({"a": spaces.Dict({"b": spaces.Box(-1, 1, (0,))})}),
    spaces.Dict({"a/b": spaces.Discrete(2), "a": spaces.Dict(b=spaces.Discrete(2))}), spaces.Text(3),
    spaces.Sequence(spaces.Discrete(2)), spaces.Graph(spaces.Discrete(2), None), spaces.MultiBinary([2, 2]),
    spaces.OneOf([spaces.Discrete(2), spaces.Box(-1, 1)]), spaces.MultiDiscrete([[2, 3], [4, 5]]),
    spaces.MultiDiscrete([2**31, 2]), spaces.MultiDiscrete([1]), spaces.Discrete(1), spaces.Box(0, 1, (2, 3, 4)),
    spaces.Discrete(5, dtype=np.uint8), spaces.MultiBinary(1),
    spaces.Box(np.array([-1, 0], "f"), np.array([-1, 0], "f")),
]  # fmt: skip
ATTRIBUTES = [
    "observation_space", "action_space", "spec", "unwrapped", "np_random", "render_mode", "metadata", "env", "__dict__",
    "reset", "step", "close", "__class__", "__name__", "entry_point", "initial", "observe", "transition", "__eq__",
    "_max_episode_steps", "anything",
]  # fmt: skip


@dataclasses.dataclass
class Behaviour:
    """What one environment does: a value that is an exception's maker is raised, any other is what it says."""

    observation_space: Any
    action_space: Any
    first: Any = None  # what reset does; None: as it should
    script: list = dataclasses.field(default_factory=list)  # what each step does, likewise
    making: Any = None
    closing: Any = None
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)  # what reading them does
    later: dict[str, Any] = dataclasses.field(default_factory=dict)  # likewise, from the second step on
    seeded: bool = True
    length: int = 1000
    wrapped: bool = False
    given: str = "function"  # or "class" or "object": what is handed in


def raises(value: Any) -> bool:
    return any(value is error for error in ERRORS)


def _do(value: Any) -> Any:
    if raises(value):
        raise value()
    return value


def environment_of(behaviour: Behaviour) -> Any:
    """What does as `behaviour` says, in the form in which it is handed in."""

    class Wild(gymnasium.Env):
        def __init__(self):
            self.observation_space, self.action_space = behaviour.observation_space, behaviour.action_space
            self.t, self.ready = 0, True
            _do(None if behaviour.given == "object" else behaviour.making)

        def __getattribute__(self, name):
            own = object.__getattribute__(self, "__dict__")
            if own.get("ready") and name in behaviour.attributes:
                return _do(behaviour.attributes[name])
            if own.get("t", 0) > 1 and name in behaviour.later:
                return _do(behaviour.later[name])
            return super().__getattribute__(name)

        def fine(self):
            return behaviour.observation_space.sample()

        def reset(self, **arguments):
            if not behaviour.seeded and "seed" in arguments:
                raise TypeError("Wild.reset() got an unexpected keyword argument 'seed'")
            return (self.fine(), {}) if behaviour.first is None else _do(behaviour.first)

        def step(self, action):
            own = object.__getattribute__(self, "__dict__")
            own["t"] += 1
            does = behaviour.script[own["t"] - 1] if own["t"] <= len(behaviour.script) else None
            return (self.fine(), 1.0, own["t"] % behaviour.length == 0, False, {}) if does is None else _do(does)

        def close(self):
            _do(behaviour.closing)

    def make() -> Any:
        odd = not (behaviour.making is None or raises(behaviour.making) or behaviour.given == "object")
        made = behaviour.making if odd else Wild()
        return gymnasium.wrappers.TimeLimit(made, 7) if behaviour.wrapped else made

    return {"function": make, "class": Wild}.get(behaviour.given) or make()


def canonical_actions(space, steps, n, seed=0):
    """Random canonical actions [steps, N, ...]."""
    generator = np.random.default_rng(seed)
    if isinstance(space, spaces.Discrete):
        return generator.integers(0, space.n, (steps, n)).astype(np.int32)
    if isinstance(space, spaces.MultiDiscrete):
        return generator.integers(0, space.nvec, (steps, n, *space.shape)).astype(np.int32)
    return generator.uniform(-1.2, 1.2, (steps, n, *space.shape)).astype(np.float32)


def play_as_told(behaviour: Behaviour, steps: int = 20) -> td.ThorndikeError | None:
    """The typed error of one line that an environment ends in; None where all goes well."""
    try:
        environment = make(environment_of(behaviour), 1 if behaviour.given == "object" else 2)
        try:
            environment.reset(random.key(0))
            for action in canonical_actions(environment.action_space, steps, environment.num_environments):
                environment.step((), action)
            environment.restore(environment.save())
            environment.cut(environment.under_way)
        finally:
            environment.close()
    except td.ThorndikeError as error:
        check_said(error)
        return error
    return None


def check_said(error: td.ThorndikeError) -> None:
    """Assert that an error is one short line for any screen."""
    assert len(str(error)) < 300
    assert str(error).isprintable()


odd = st.sampled_from(ODD)
errors = st.sampled_from(ERRORS)
answers = st.one_of(odd, st.tuples(odd, odd, odd, odd, odd), st.tuples(odd, odd), st.lists(odd, max_size=6).map(tuple))


reads = st.dictionaries(st.sampled_from(ATTRIBUTES), errors | odd | st.sampled_from(ODD_SPACES), min_size=1, max_size=2)
FAULTS = {
    "observation_space": st.sampled_from(ODD_SPACES),
    "action_space": st.sampled_from(FINE + ODD_SPACES),
    "first": answers | errors,
    "script": st.lists(st.none() | st.none() | answers | errors, max_size=20),
    "making": errors | odd,
    "closing": errors,
    "attributes": reads,
    "later": reads,
    "seeded": st.just(False),
}


@st.composite
def broken_environments(draw: Any) -> Behaviour:
    """Up to three faults in an environment that is otherwise fine: with more, the first one hides the others."""
    faults = draw(st.lists(st.sampled_from(sorted(FAULTS)), max_size=3, unique=True))
    sound = {
        "observation_space": draw(st.sampled_from(FINE)),
        "action_space": spaces.Discrete(2),
        "length": draw(st.sampled_from([1, 3, 1000])),
        "wrapped": draw(st.booleans()),
        "given": draw(st.sampled_from(["function", "class", "object"])),
    }
    return Behaviour(**sound | {name: draw(FAULTS[name]) for name in faults})
