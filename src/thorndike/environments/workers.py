"""Copies in worker processes: spread over them, asked all at once, and begun again where a process fails.

Processes are spawned: to fork one that has JAX's threads can hang. They hold environments, and nothing of JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
import types
import warnings
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import connection
from typing import Any

import numpy as np

from thorndike import errors
from thorndike.environments import making, worker
from thorndike.environments.copies import COLUMNS, Answer, Episode, leaves, place
from thorndike.environments.repeating import too_long
from thorndike.environments.worker import Order, Told
from thorndike.errors import EnvironmentFault, SettingError, UnsuitableError, shown

PyTree = Any
Seeds = Mapping[int, int]  # by copy
MAKING = 10  # times the time limit: what is made may load gigabytes
GOODBYE = 5.0  # seconds that a worker has to close its copies
TRIES = 3  # at a step, before its copy is given up: a process may be killed for reasons of others
LINES = 3  # of a worker's last words that are repeated


@dataclasses.dataclass(frozen=True)
class Workers:
    """In how many processes copies are stepped, and what is done where one of these fails."""

    number: int = 0  # none: in this process
    timeout: float = 60.0  # seconds that a reset or a step may take; 0: any time
    on_fault: str = "raise"  # or restart: start the process anew, repeat its episodes and take the step again
    max_restarts: int = 10

    def __post_init__(self) -> None:
        for name, low in (("number", 0), ("timeout", 0), ("max_restarts", 1)):
            value, kinds = getattr(self, name), (int, float) if name == "timeout" else (int,)
            if type(value) not in kinds or not low <= value < float("inf"):
                what = "a number of seconds" if name == "timeout" else "a whole number"
                said = {"number": "workers", "timeout": "worker_timeout"}.get(name, name)
                raise SettingError(f"{said} must be {what}, at least {low}, got {shown(value)}")
        if self.on_fault not in ("raise", "restart"):
            raise SettingError(f"on_fault must be 'raise' or 'restart', got {shown(self.on_fault)}")
        if self.on_fault == "restart" and not self.number:
            raise SettingError("on_fault='restart' needs workers: only a process of its own can be started anew")

    def refuse(self, name: str, why: str) -> None:
        """SettingError where there are to be workers, and this environment has no use for them."""
        if self.number:
            raise SettingError(f"workers={self.number} is nothing for {name}: {why}")

    def of(self, copies: int) -> Workers:
        """As many at most as there are copies."""
        return dataclasses.replace(self, number=min(self.number, copies))


NO_WORKERS = Workers()


class Crew:
    """Copies in worker processes: what `Copies` does, with the same results."""

    def __init__(self, order: Order, n: int, workers: Workers) -> None:
        """Start the processes, which make `n` copies in all. Raises what making them raises."""
        if workers.number > n:
            raise SettingError(
                f"workers={workers.number} is too many for the environment's copies, of which there are {n}: set "
                f"num_environments to {workers.number} or more"
            )
        self._order, self._workers, self._restarts = making.packed(order, order.factory), workers, 0
        self._running: dict[int, _Running] = {}
        shares = np.array_split(np.arange(n), workers.number)
        self._staff = [_Process(k, range(int(share[0]), int(share[-1]) + 1)) for k, share in enumerate(shares)]
        self._place = {i: one for one in self._staff for i in one.copies}
        self._recording, self.first = False, 0
        self._finalizer = weakref.finalize(self, _kill, self._staff)
        try:
            made = self._make(self._staff)
            if any(other[:2] != made[0][:2] for other in made):
                raise UnsuitableError("the copies of the environment differ in their spaces")
            self.observation_space, self.action_space, self.max_steps = made[0]
            making.check_spaces(self.observation_space, self.action_space, order.name)
        except _Failure as failure:
            self.close()
            raise EnvironmentFault(f"{order.name} could not be made: {failure}") from None
        except BaseException:
            self.close()
            raise

    @property
    def recording(self) -> bool:
        """Whether what `info` says at the ends of episodes is wanted."""
        return self._recording

    @recording.setter
    def recording(self, value: bool) -> None:
        self._recording = value
        asked: dict[_Process, tuple] = dict.fromkeys(self._staff, (value,))
        for one, answer in self._ask(asked, "record", dict.fromkeys(asked, 1)).items():
            if isinstance(answer, _Failure):
                self._anew(one, answer, set(one.copies), Counter())

    def begin(self, seeds: Mapping[int, int]) -> dict[int, PyTree]:
        """As `Copies.begin`."""
        asked = {one: ({i - one.first: seeds[i] for i in mine},) for one, mine in self._shares(seeds)}
        found = self._ask(asked, "begin", {one: len(given[0]) for one, given in asked.items()})
        rows = {}
        for one, answer in found.items():
            if isinstance(answer, _Failure):
                answer = self._recovered(one, answer, "begin", asked[one], len(asked[one][0]))
            for i, row in _numbered(answer, one).items():
                rows[i], self._running[i] = row, _Running(seeds[i], row)
        return rows

    def step(self, playing: Sequence[int], actions: Sequence[Any], next_seeds: Mapping[int, int]) -> Answer:
        """As `Copies.step`; `lost` are copies whose step could not be taken, though their worker was started anew."""
        chosen = dict(zip(playing, actions, strict=True))
        shares = self._shares(playing)
        asked = {one: _step_of(one, mine, chosen, next_seeds) for one, mine in shares}
        found = self._ask(asked, "step", {one: 2 * len(mine) for one, mine in shares})
        parts = []
        for one, mine in shares:
            answer = found[one]
            if isinstance(answer, _Failure):
                answer = self._stepped_again(one, answer, mine, chosen, next_seeds)
            else:
                answer = answer._replace(first=_numbered(answer.first, one))
            taken = [i for i in mine if i not in answer.lost]
            self._follow(taken, chosen, answer, next_seeds)
            parts.append(answer)
        return _together(parts)

    def repeat(self, episodes: Mapping[int, Episode]) -> tuple[dict[int, PyTree], dict[int, str]]:
        """As `Copies.repeat`."""
        asked = {one: ({i - one.first: episodes[i] for i in mine},) for one, mine in self._shares(episodes)}
        effort = {one: sum(len(episode.actions) + 1 for episode in given[0].values()) for one, given in asked.items()}
        found = self._ask(asked, "repeat", effort)
        reached: dict[int, PyTree] = {}
        reasons: dict[int, str] = {}
        for one, answer in found.items():
            if isinstance(answer, _Failure):
                answer = self._recovered(one, answer, "repeat", asked[one], effort[one])
            reached |= _numbered(answer[0], one)
            reasons |= _numbered(answer[1], one)
        for i, row in reached.items():
            seed, actions, _ = episodes[i]
            self._running[i] = _Running(seed, row, list(actions), len(actions))
        return reached, reasons

    def rest(self, copies: Sequence[int]) -> None:
        """As `Copies.rest`: there is nothing more to repeat of them."""
        for i in copies:
            self._running.pop(int(i), None)

    def close(self) -> list[str]:
        """As `Copies.close`; ends the processes too."""
        faults: list[str] = []
        there, end = [one for one in self._staff if one.process is not None], time.monotonic() + GOODBYE
        for one in there:
            one.ask("close")
        for one in there:
            faults += one.dismiss(max(0.0, end - time.monotonic()))
        _kill(self._staff)
        return faults

    def _shares(self, copies: Any) -> list[tuple[_Process, list[int]]]:
        """The processes that some copies are in, each with its share of them."""
        shares: dict[_Process, list[int]] = {}
        for i in copies:
            shares.setdefault(self._place[i], []).append(i)
        return list(shares.items())

    def _make(self, staff: Sequence[_Process]) -> list[Any]:
        """Start some processes, and let them make their copies."""
        wrapped, folder = self._order
        for one in staff:
            one.start()
            if folder is not None:
                one.ask("look", folder)
            one.ask("make", wrapped)
        made = []
        for one in staff:
            if folder is not None:
                one.answer(self._limit(MAKING))
            made.append(one.answer(self._limit(MAKING)))
        return made

    def _limit(self, times: int) -> float | None:
        return self._workers.timeout * times or None

    def _ask(self, asked: Mapping[_Process, tuple], name: str, effort: Mapping[_Process, int]) -> dict[_Process, Any]:
        """The answers of several processes that work side by side; where one failed, a _Failure that knows its place.

        `effort` is how many resets and steps each of them is asked for.
        """
        began = time.monotonic()
        for one, given in asked.items():
            one.ask(name, *given)
        found: dict[_Process, Any] = {}
        for one in asked:
            limit = self._limit(effort[one])
            try:
                found[one] = one.answer(None if limit is None else max(0.0, began + limit - time.monotonic()))
            except _Failure as failure:
                running = self._running.get(failure.copy)
                where = place(failure.copy, running.seed, running.length + 1) if running and name == "step" else ""
                failure.where = where or (f"copy {failure.copy}, {name}" if failure.copy >= 0 else name)
                found[one] = failure
        failed = [answer for answer in found.values() if isinstance(answer, _Failure)]
        if failed and self._workers.on_fault == "raise":
            raise EnvironmentFault(str(failed[0]))
        return found

    def _recovered(self, one: _Process, failure: _Failure, name: str, given: tuple, effort: int) -> Any:
        """What a process says to a request in which it failed, once it is started anew."""
        beginning, blamed = {i + one.first for i in given[0]}, Counter[int]()
        while True:
            lost = self._anew(one, failure, set(one.copies) - beginning, blamed)
            if lost:
                raise EnvironmentFault(f"{failure}; it was started anew, but {next(iter(lost.values()))}")
            answer = self._ask({one: given}, name, {one: effort})[one]
            if not isinstance(answer, _Failure):
                return answer
            failure = answer

    def _stepped_again(
        self,
        one: _Process,
        failure: _Failure,
        mine: list[int],
        chosen: Mapping[int, Any],
        next_seeds: Seeds,
    ) -> Answer:
        """What a process says to the actions at which it failed, once it is started anew.

        A copy at which it fails time and again, or whose episode cannot be repeated, begins its next episode instead.
        """
        lost: set[int] = set()
        blamed = Counter([failure.copy])
        while True:
            lost |= self._anew(one, failure, set(one.copies) - lost, blamed).keys()
            seeds = {i - one.first: next_seeds[i] for i in lost if i in next_seeds}
            begun = self._ask({one: (seeds,)}, "begin", {one: len(seeds)})[one]
            left = [i for i in mine if i not in lost]
            answer = begun
            if not isinstance(begun, _Failure):
                given = _step_of(one, left, chosen, next_seeds)
                answer = self._ask({one: given}, "step", {one: 2 * len(left)})[one]
            if not isinstance(answer, _Failure):
                break
            failure = answer
            blamed[failure.copy] += 1
            lost |= {failure.copy} if blamed[failure.copy] >= TRIES and failure.copy in mine else set()
        first = _numbered(begun, one)
        for i in lost:
            self._running.pop(i, None)
            if i in first:
                self._running[i] = _Running(next_seeds[i], first[i])
        return answer._replace(first=_numbered(answer.first, one), lost={i: first.get(i) for i in sorted(lost)})

    def _anew(self, one: _Process, failure: _Failure, copies: set[int], blamed: Counter[int]) -> dict[int, str]:
        """Start a failed process anew and repeat the running episodes of some of its copies: why some cannot be."""
        again = {i: self._running[i] for i in sorted(copies) if i in self._running}
        lost = {i: reason for i, running in again.items() if (reason := too_long(running.length))}
        while True:
            self._restarts += 1
            if self._restarts > self._workers.max_restarts:
                most = self._workers.max_restarts
                raise EnvironmentFault(f"{failure}; all restarts are used up (max_restarts={most})")
            warnings.warn(f"{failure}; worker {one.number} is started anew", stacklevel=2)
            if one.process is not None and not failure.silent:  # it lives, and may have processes of its own to end
                one.ask("close")
                one.dismiss(GOODBYE)
            one.kill()
            try:
                self._make([one])
                if self._recording:
                    one.ask("record", True)
                    one.answer(self._limit(1))
                episodes = {i - one.first: running.episode for i, running in again.items() if i not in lost}
                one.ask("repeat", episodes)
                effort = sum(len(episode.actions) + 1 for episode in episodes.values())
                return lost | _numbered(one.answer(self._limit(effort))[1], one)
            except _Failure as another:
                failure = another
                blamed[failure.copy] += 1
                if blamed[failure.copy] >= TRIES and failure.copy in again:
                    lost[failure.copy] = f"repeating the episode of copy {failure.copy} failed"

    def _follow(
        self, taken: list[int], chosen: Mapping[int, Any], answer: Answer, next_seeds: Mapping[int, int]
    ) -> None:
        """Keep what the running episodes could be repeated by."""
        for k, i in enumerate(taken):
            if i in answer.first:
                self._running[i] = _Running(next_seeds[i], answer.first[i])
            elif answer.over[k]:
                self._running.pop(i, None)
            else:
                self._running[i].follow(chosen[i], answer.following[k])


class _Running:
    """A running episode, as far as it could be repeated in another process."""

    def __init__(self, seed: int, last: PyTree, actions: list[Any] | None = None, length: int = 0) -> None:
        self.seed, self.last, self.actions, self.length = seed, last, actions or [], length

    def follow(self, action: Any, last: PyTree) -> None:
        """One more step; actions of what has become too long to be repeated are not kept."""
        self.length += 1
        self.last = last
        if too_long(self.length):
            self.actions = []
        else:
            self.actions.append(action)

    @property
    def episode(self) -> Episode:
        """What it can be repeated by."""
        return Episode(self.seed, self.actions, leaves(self.last))


class _Failure(Exception):
    """A worker that died, hangs or raised; as text, with its place and its last words."""

    def __init__(self, what: str, copy: int, silent: bool = False, words: Sequence[str] = ()) -> None:
        """`silent` says that the worker itself has not told what it was at."""
        self.what, self.copy, self.silent, self.words, self.where = what, copy, silent, list(words), ""

    def __str__(self) -> str:
        said = f"; its last words: {' | '.join(self.words)}" if self.words else ""
        return self.what + f" at {self.where}" * bool(self.silent and self.where) + said


class _Process:
    """One worker, seen from here."""

    def __init__(self, number: int, copies: range) -> None:
        self.number, self.copies, self.first = number, copies, copies.start
        self.process: Any = None
        self.owing = 0  # answers to what was asked

    def start(self) -> None:
        """A fresh process, that waits for what it is to make. Raises _Failure where the system gives none."""
        context = multiprocessing.get_context("spawn")
        self.line, theirs = context.Pipe()
        heard, words = context.Pipe(duplex=False) if os.name == "posix" else (None, None)
        self.at, self.words, self.owing = context.RawArray("i", [-1]), deque[str](maxlen=LINES), 0
        self._poll, self._listener = None, None
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(self.line, select.POLLIN)
        given = (theirs, words, self.at, self.first, len(self.copies))
        process = context.Process(target=worker.main, args=given, daemon=True, name=f"thorndike-{self.number}")
        try:
            with _apart():
                process.start()
        except OSError as error:
            for end in filter(None, (self.line, heard)):
                end.close()
            raise _Failure(f"{self._name} could not be started: {error}", -1) from error
        finally:
            for end in filter(None, (theirs, words)):
                end.close()
        self.process = process
        if heard is not None:
            self._listener = threading.Thread(target=_listen, args=(heard, self.words), daemon=True)
            self._listener.start()

    def ask(self, name: str, *given: Any) -> None:
        """Send a request; where nobody is there any more, `answer` says so."""
        self.owing += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, OSError):
            self.line.send((name, *given))

    def answer(self, limit: float | None) -> Any:
        """What the process says to the next of the requests, in so many seconds. Raises _Failure, or its own error."""
        try:
            if not self._heard(limit):
                self.kill()
                raise _Failure(f"{self._name} gave no answer in {limit:.3g} s", self._at, True, self.words)
            answer = self.line.recv()
            self.owing -= 1
        except (EOFError, OSError):
            how = "has ended before"
            if self.process is not None:
                self.process.join(GOODBYE)
                how = _how_it_ended(self.process.exitcode)
                self.kill()  # and hear all that it said
            raise _Failure(f"{self._name} {how}", self._at, True, self.words) from None
        if isinstance(answer, Told) and answer.kind != "EnvironmentFault":
            raise getattr(errors, answer.kind)(answer.text)
        if isinstance(answer, Told):
            raise _Failure(answer.text, self._at)
        return answer

    def _heard(self, limit: float | None) -> bool:
        """Whether there is an answer within so many seconds; `Connection.poll` is five times as slow."""
        if self._poll is None:
            return self.line.poll(limit)
        return bool(self._poll.poll(None if limit is None else min(math.ceil(1_000 * limit), 2**31 - 1)))

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        if self.process is None:
            return
        self.line.close()
        self.process.kill()
        self.process.join()
        self.process.close()
        self.process = None
        if self._listener is not None:
            self._listener.join(GOODBYE)

    def dismiss(self, seconds: float) -> list[str]:
        """Let the copies be closed, in so many seconds: what went wrong in that. The process has then to be killed."""
        end = time.monotonic() + seconds
        try:
            while self.owing > 1:  # answers to what was asked before an error or a signal
                self.answer(max(0.0, end - time.monotonic()))
            return self.answer(max(0.0, end - time.monotonic()))
        except (_Failure, errors.ThorndikeError):
            return []  # what has died needs no closing

    @property
    def _at(self) -> int:
        """The copy that was reset or stepped last, -1 where none was."""
        return self.first + int(self.at[0]) if self.at[0] >= 0 else -1

    @property
    def _name(self) -> str:
        first, last = self.copies[0], self.copies[-1]
        return f"worker {self.number} (cop{'y' if first == last else 'ies'} {first}{f' to {last}' * (last > first)})"


def _step_of(
    one: _Process, copies: Sequence[int], chosen: Mapping[int, Any], next_seeds: Mapping[int, int]
) -> tuple[list[int], list[Any], dict[int, int]]:
    """What is asked of a process: which of its copies take which actions, and what comes after."""
    seeds = {i - one.first: next_seeds[i] for i in copies if i in next_seeds}
    return [i - one.first for i in copies], [chosen[i] for i in copies], seeds


def _numbered(found: Mapping[int, Any], one: _Process) -> dict[int, Any]:
    """What a process says of its copies, by their numbers among all."""
    return {one.first + i: value for i, value in found.items()}


def _together(answers: Sequence[Answer]) -> Answer:
    """The answers of several processes as one."""
    if len(answers) < 2:
        return answers[0] if answers else Answer([], [], [], [], [], {}, [], {})
    plain = all(isinstance(answer.following, np.ndarray) and len(answer.following) for answer in answers)
    rows: Any = [answer.following for answer in answers]
    following = np.concatenate(rows) if plain else [row for part in rows for row in part]
    columns: Any = {name: [x for answer in answers for x in getattr(answer, name)] for name in COLUMNS[1:]}
    first = {i: row for answer in answers for i, row in answer.first.items()}
    lost = {i: row for answer in answers for i, row in answer.lost.items()}
    infos = [x for answer in answers for x in answer.infos]
    return Answer(following, **columns, first=first, infos=infos, lost=lost)


def _listen(heard: connection.Connection, words: deque[str]) -> None:
    """Pass on what a worker says on its stderr, and keep the end of it."""
    with heard:
        while said := os.read(heard.fileno(), 65_536).decode(errors="replace"):
            words.extend(line.strip() for line in said.splitlines() if line.strip())
            with contextlib.suppress(Exception):  # a stderr that is closed
                sys.stderr.write(said)


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "closed its pipe"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Start a process that does not run the user's script again, nor anything in the current folder."""
    script, safe = sys.modules["__main__"], os.environ.get("PYTHONSAFEPATH")
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        if safe is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = safe


def _kill(staff: Sequence[_Process]) -> None:
    for one in staff:
        one.kill()
