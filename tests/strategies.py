"""What may be handed to the library, drawn at random: environments that do as they please, and configurations.

The quick suite draws some of each, `make faults` thousands.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import io
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st
from jax import random

import thorndike as td
from thorndike import cli
from thorndike.environments import make
from thorndike.hyperparameters import OTHER_WORDS
from thorndike.interface.words import RUN_WORDS


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


CANARY = "canary"  # a file that no configuration may bring into being
PAYLOADS = [
    f"__import__('pathlib').Path('{CANARY}').touch()", f"$(touch {CANARY})", f"`touch {CANARY}`", f"; touch {CANARY}",
    f"!!python/object/apply:os.system ['touch {CANARY}']", f"{{{{open('{CANARY}', 'w')}}}}", f"${{touch {CANARY}}}",
    f"open('{CANARY}','w')", f"{{\"__reduce__\": \"open('{CANARY}', 'w')\"}}", f"cos\nsystem\n(S'touch {CANARY}'\ntR.",
]  # fmt: skip
TEXTS = [
    "", " ", "-", "--", "---", "=", "a=b", "None", "none", "true", "False", "nan", "inf", "-inf", "0", "1", "-1",
    "0.5", "1e6", "1M", "20k", "1_000", "1e400", "-1e-400", "9" * 30, "0x10", "1,2", "(64, 64)", "[64, 64]", "{}",
    "auto", "relu", "prioritized", "mlp", "cnn", "same", "\u00e9\u4e16\u754c", "\u202e\u0000", "\x1b[2J", "x" * 5_000,
    "\ud800", "../up", "/dev/null", "a/b", "%s%n", "~", "*", "\n", "1e6 ", "\u0661\u0662", "CartPole-v1",
    "http://localhost", "--steps", "-h", *PAYLOADS,
]  # fmt: skip
NUMBERS = [
    0, 1, 2, 3, 7, 64, 1000, 2**16, 2**24, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, 10**30, -1, 0.5, 1e-300, 1e300, -2.5,
]  # fmt: skip
IDS = [
    "CartPole-v1", "Pendulum-v1", "gymnasium:CartPole-v1", "gymnasium:Pendulum-v1", "envpool:CartPole-v1",
    "Acrobot-v1", "CartPole-v0", "cartpole", "CartPol-v1", "ALE/Pong-v5", "minigrid:MiniGrid-Empty-5x5-v0",
    "gymnasium:", ":", "a:b:c", "envpool:Nothing-v0", "no_such_module:X-v0", "..x:Y-v0",
    "gymnasium:gymnasium:CartPole-v1", "phys2d/CartPole-v1",
]  # fmt: skip
ALGORITHMS = [td.DQN, td.PPO, td.REINFORCE, td.SAC, td.TD3, td.DDPG]
RECIPES = [td.MLP, td.CNN, td.Replay, td.Prioritized]
NAMES = sorted({name for cls in [*ALGORITHMS, *RECIPES] for name in cls.__dataclass_fields__})
FLAGS = [
    *NAMES, *(f"{part}.{name}" for part in ("memory", "network", "critic_network") for name in NAMES), *OTHER_WORDS,
    *RUN_WORDS, *(name for name in inspect.signature(td.train).parameters), "environment.continuous", "environment.n",
    "environment.", "environment.num_environments", "environment.g", "help", "version", "config", "h",
]  # fmt: skip


pairs = st.sampled_from([(cls, "Pendulum-v1" if cls in ALGORITHMS[3:] else "CartPole-v1") for cls in ALGORITHMS])


def mostly(usual: Any, other: Any) -> Any:
    """`usual` nine times in ten."""
    return st.integers(0, 9).flatmap(lambda n: other if n == 9 else st.just(usual))


@st.composite
def misspelt(draw: Any, words: Any) -> str:
    """A word, now and then with a letter changed, left out or of the other case."""
    word, at = draw(words), draw(st.integers(0, 8))
    changes = [*[word] * 12, word[:at] + word[at + 1 :], word[:at] + "x" + word[at:], word.upper(), word[: at + 1]]
    return draw(st.sampled_from(changes))


numbers = st.sampled_from(NUMBERS) | st.integers(1, 100) | st.floats(0, 1)
texts = numbers.map(str) | st.sampled_from(TEXTS) | st.text(max_size=20)
flags = misspelt(st.sampled_from(FLAGS)).flatmap(
    lambda name: st.sampled_from([f"--{name.replace('_', '-')}"] * 5 + [f"--{name}", f"--no-{name}", f"-{name}"])
)


@st.composite
def commands(draw: Any) -> list[str]:
    """The words after `thorndike`: mostly a training with some flags."""
    verb = draw(st.sampled_from(["train"] * 12 + ["sweep"] * 3 + ["resume", "evaluate", "list", "verify", "trian"]))
    cls, fitting = draw(pairs)
    places = [draw(misspelt(st.just(cls.__name__.lower()))), draw(mostly(fitting, st.sampled_from(IDS) | texts))][
        : draw(st.sampled_from([2] * 9 + [1, 0]))
    ]
    given = [
        [flag, *draw(st.lists(texts, min_size=draw(mostly(1, st.just(0))), max_size=draw(mostly(1, st.just(2)))))]
        for flag in draw(st.lists(flags, max_size=2))
    ]
    steps = draw(st.sampled_from([[], ["--steps", "50000"], ["--steps=1M"]]))
    return [verb, *places, *steps, *(word for words in given for word in words)]


@st.composite
def calls(draw: Any) -> tuple[type, dict[str, Any], dict[str, Any]]:
    """An algorithm's class, hyper-parameters for it and arguments of `td.train`, of right and wrong kinds."""
    values = numbers | st.sampled_from(NUMBERS) | numbers | st.sampled_from(ODD) | texts | st.lists(numbers, max_size=4)
    recipes = st.tuples(st.sampled_from(RECIPES), named(values))
    cls, fitting = draw(pairs)
    settings = draw(named(values | recipes, tuple(cls.__dataclass_fields__)))
    arguments = draw(
        named(
            values,
            tuple(name for name in inspect.signature(td.train).parameters if name not in ("run_dir", "algorithm")),
        )
    )
    return cls, settings, {"environment": draw(mostly(fitting, st.sampled_from(IDS))), "steps": 50_000} | arguments


def named(values: Any, names: Any = tuple(NAMES)) -> Any:
    return st.dictionaries(misspelt(st.sampled_from(names)), values, max_size=2)


def made(value: Any) -> Any:
    """What a class and its settings, or such inside of settings, make."""
    if isinstance(value, tuple) and len(value) == 2 and any(value[0] is cls for cls in RECIPES + ALGORITHMS):
        return value[0](**{name: made(item) for name, item in value[1].items()})
    return value


class Began(Exception):
    """Training would begin here."""


def began(*_: Any, **__: Any) -> None:
    """Stands in for `trainer.train`."""
    raise Began


def answer_to_command(words: list[str]) -> str:
    """How the command answers: "began", "asked" (for help or a list) or "refused" in one short line; no other way."""
    said, shown = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
        try:
            code = cli.main(list(words))
        except Began:
            return "began"
        except SystemExit as leaving:
            code = leaving.code
    assert code in (0, 2)
    if code == 0:
        return "asked"
    *_, line = said.getvalue().splitlines()  # after warnings, which are lines of their own
    assert line.startswith("thorndike: ")
    assert len(line.removeprefix("thorndike: ")) < 300
    assert all(len(other) < 320 for other in said.getvalue().splitlines())
    return "refused"


def answer_to_call(call: tuple[type, dict[str, Any], dict[str, Any]]) -> str:
    """How `td.train` answers: "began" or "refused" in one short line; no other way."""
    cls, settings, arguments = call
    try:
        td.train(made((cls, settings)), **{"run_dir": None, "quiet": True} | arguments)
    except Began:
        return "began"
    except td.ThorndikeError as error:
        check_said(error)
        return "refused"
    raise AssertionError("it trained")
