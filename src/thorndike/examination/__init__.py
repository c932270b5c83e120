"""What an environment is like to learn in: what is wrong with it, what is unwise, and what was measured."""

from __future__ import annotations

import math
import re
import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thorndike import environments
from thorndike.environments.boundary import guarded
from thorndike.errors import (
    EnvironmentFault,
    MissingExtraError,
    SettingError,
    ThorndikeError,
    UnknownNameError,
    UnsuitableError,
    one_line,
    shown,
)
from thorndike.examination.findings import Report
from thorndike.interface.listing import aligned
from thorndike.interface.words import whole_number

STEPS = 2_000
SECONDS = 10.0
WIDTH = 110  # characters of a line
WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}  # so that ids can be copied
HEEDED = (UserWarning, RuntimeWarning)
COLORS = re.compile(r"\x1b\[\d*m")


@dataclass(frozen=True, repr=False)
class Examination:
    """What `check` found. It prints itself, in a notebook too."""

    name: str
    wrong: tuple[str, ...]  # learning would fail, or its results would be false
    unwise: tuple[str, ...]  # learning works, and would work better otherwise
    facts: Mapping[str, str]  # what it is, and what was measured

    def __str__(self) -> str:
        verdict = "something is wrong" if self.wrong else "some things are unwise" if self.unwise else "healthy"
        lines = [f"{one_line(self.name)}: {verdict}"]
        for title, sentences in (("WRONG", self.wrong), ("UNWISE", self.unwise)):
            lines += ["", title] if sentences else []
            for sentence in sentences:
                lines += textwrap.wrap(sentence, WIDTH, initial_indent="- ", subsequent_indent="  ", **WHOLE)
        return "\n".join([*lines, "", *aligned(list(self.facts.items()))])

    __repr__ = __str__


def check(
    environment: Any,
    *,
    steps: Any = STEPS,
    seconds: float = SECONDS,
    seed: Any = 0,
    environment_arguments: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Examination:
    """Play in an environment at random, and say what is wrong with it, what is unwise, and what was measured.

    `environment` is whatever `td.train` takes, with the same `arguments` and `environment_arguments`. It is stepped
    `steps` times, or for half of `seconds`, whichever is less; then fresh copies repeat the beginning, alone and side
    by side, which takes the other half at most. An environment object is played in itself.

    Raises UnknownNameError, MissingExtraError or SettingError where there is nothing to examine.
    """
    steps, seed = whole_number(steps, "steps", low=1), whole_number(seed, "seed", high=2**32 - 1)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise SettingError(f"seconds must be a number above 0, got {shown(seconds)}")
    if environment is None:
        raise SettingError("which environment? An id such as 'CartPole-v1', a class, or a function that makes one")
    if environment_arguments is not None and not isinstance(environment_arguments, Mapping):
        raise SettingError(f"environment_arguments must be a dict, got {shown(environment_arguments)}")
    given = {**arguments, **(environment_arguments or {})}
    report = Report()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        name = _examine(environment, given, report, steps, float(seconds), seed)
    report.warned([COLORS.sub("", str(w.message)) for w in caught if issubclass(w.category, HEEDED)])
    if newest := environments.newest_version(name):
        report.facts["newest version"] = newest
    return Examination(name, tuple(report.wrong), tuple(report.unwise), report.facts)


def _examine(environment: Any, arguments: dict[str, Any], report: Report, steps: int, seconds: float, seed: int) -> str:
    """Fill the report, and name the environment; its own faults stand in the report, the caller's are raised."""
    from thorndike.examination import compiled, host

    def make(n: int) -> Any:
        return environments.make(environment, n, **arguments)

    try:
        made = make(1)
    except (UnknownNameError, MissingExtraError, SettingError):
        raise
    except (UnsuitableError, EnvironmentFault) as error:
        report.wrong.append(f"It cannot be trained in: {error}")
        return _name_of(environment)
    name = _name_of(environment, made)
    try:
        report.spaces(made)
        fitting, reason = _fitting(made.observation_space, made.action_space)
        report.facts["algorithms"] = ", ".join(fitting) or "none"
        if not fitting:
            report.wrong.append(f"No algorithm takes it: {reason}")
        elif made.compiled:
            compiled.examine(made, make, report, steps, seconds, seed)
        else:
            host.examine(made, make, report, steps, seconds, seed)
    finally:
        made.close()
    return name


def _name_of(environment: Any, made: Any = None) -> str:
    """An id as it is, a name for anything else."""
    try:
        with guarded("the environment could not be looked at"):
            return environment if isinstance(environment, str) else environments.name_of(environment, made)
    except EnvironmentFault:
        return type(environment).__name__


def _fitting(observation_space: Any, action_space: Any) -> tuple[list[str], str]:
    """The algorithms that take these spaces, and why PPO, which takes most, refuses them."""
    from thorndike import algorithms

    reasons = {}
    for name in algorithms.ALGORITHMS:
        try:
            algorithms.get(name)().check(observation_space, action_space)
        except ThorndikeError as error:
            reasons[name] = str(error)
    return [name for name in algorithms.ALGORITHMS if name not in reasons], reasons.get("ppo", "")
