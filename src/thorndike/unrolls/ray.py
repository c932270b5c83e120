"""Acting by Ray's actors: copies live in other processes, here or on other machines, and act whole rollouts there.

`RayEnvironment` stands on the learner's side for all of them. Once a rollout it sends the policy (by one `ray.put`),
and joins what the actors answer. An answer brings where the copies stand after it, so that an actor that is lost can be
replaced by another that stands there, and acts the same rollout again with the same policy and key.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import jax
import numpy as np
from jax import random

from thorndike.core import Actor, Algorithm, PyTree, Step, Transition
from thorndike.environments.boundary import told
from thorndike.environments.host import Loss
from thorndike.environments.infos import Infos
from thorndike.errors import EnvironmentFault, MissingExtraError, SettingError, UnsuitableError, shown
from thorndike.unrolls.share import Facts, Remote, Reply

LOCAL = "local"  # the address of a Ray that is started here, and ends with the run
MOST_LOST = 10  # actors lost one after another without a whole rollout in between
CLOSING_SECONDS = 5.0  # that copies have to release what they hold
ON_THIS_MACHINE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: all of it listens on the loopback alone
    "RAY_AUTH_MODE": "token",  # without which nobody gets in; Ray makes one
    "RAY_USAGE_STATS_ENABLED": "0",
}
SETTINGS = ("XLA_FLAGS", "NPROC", "THORNDIKE_NO_CACHE", "XDG_CACHE_HOME")  # of the learner's process, actors take over


class RayEnvironment:
    """`num_environments` copies in `actors` actors: a `HostEnvironment` that brings an unroll of its own.

    Copies have the numbers, and so the seeds, that they have on one machine. One actor acts bit for bit as this process
    would. Actor j of several acts with a key of its own, `fold_in(key, j)`: what they find depends on how many they
    are, and on nothing else.
    """

    compiled = False  # for whoever trains: acting is not inside its programs
    single = False
    lost: Sequence[Loss] = ()  # see HostEnvironment

    def __init__(
        self, environment: Any, num_environments: int, arguments: Mapping[str, Any], address: bool | str = True,
        actors: int | None = None,
    ) -> None:  # fmt: skip
        """Connect to the Ray at `address`; True: the one in use, or one started here, on the loopback alone.

        `environment` and `arguments` as for `environments.make`, which is called in each actor and raises what it
        raises here. `actors` is by default the number of cores Ray has, and at most the number of copies.

        Raises SettingError, MissingExtraError with the pip line, or UnsuitableError for what cannot be sent.
        """
        check(address, actors, num_environments)
        self._ray = _library(address)
        self._owned = _connected(self._ray, address)
        try:
            cores = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
            self.actors = min(cores, num_environments) if actors is None else actors
            self.num_environments = num_environments
            self._borders = _borders(num_environments, self.actors)
            self._lost = self._kinds_of_loss()
            self._environment, self._arguments = self._sent(environment), dict(arguments)
            self._taught: tuple[Any, Any] = (None, None)  # the algorithm they act by, and its policies' structure
            self._lesson: Any = None
            self._stands: list[dict[str, np.ndarray]] = [{} for _ in range(self.actors)]
            self._infos, self._row_begins = Infos(), False
            self._failures = 0
            self.losses: list[str] = []  # what has become of actors that were lost, in words
            self.notes: list[str] = []  # why `restore` could not bring everything back, in words
            self.restarted = np.zeros(num_environments, bool)
            each = int(self.actors <= cores)  # where Ray has too few for all, none is asked for, and they share
            self._actors = [self._started(each) for _ in range(self.actors)]
            self._know(self._all("make", [self._making(j) for j in range(self.actors)])[0])
        except BaseException:
            self.close()
            raise

    def _know(self, facts: Facts) -> None:
        self.observation_space, self.action_space = facts.observation_space, facts.action_space
        self.max_steps, self.compiled_there, self.environment = facts.max_steps, facts.compiled, facts.name

    def reset(self, key: jax.Array, episodes: np.ndarray | None = None) -> tuple[tuple, PyTree]:
        """New episodes everywhere: ((), observation [N, ...])."""
        self.notes, self.restarted = [], np.zeros(self.num_environments, bool)
        self._row_begins = False
        # On the host the key says the run's seed, to which the copies add their numbers.
        keys = self._keys(key) if self.compiled_there else [np.asarray(random.key_data(key))] * self.actors
        shares = [None] * self.actors if episodes is None else self._split(np.asarray(episodes))
        return (), _joined(self._all("reset", list(zip(keys, shares, strict=True))))

    def unroll(
        self, algorithm: Algorithm, environment: Any, policy: PyTree, actor: Actor, key: jax.Array, length: int,
        uniform: bool = False,
    ) -> tuple[Actor, Transition]:  # fmt: skip
        """Act for `length` steps in every copy: where that stopped, and the trajectory [length, N].

        Where an actor was lost and its episodes could not be gone on with, `restarted` says which copies began the
        rollout with new ones.
        """
        self.restarted = np.zeros(self.num_environments, bool)
        self._teach(algorithm, policy)
        leaves = self._ray.put([np.asarray(leaf) for leaf in jax.tree.leaves(policy)])
        parts, keys = self._split(jax.tree.map(np.asarray, actor._replace(env_state=()))), self._keys(key)
        rest = length, uniform, self._row_begins
        answers = self._all("act", [(leaves, parts[j], keys[j], *rest) for j in range(self.actors)])
        self._failures, self._row_begins = 0, False
        self.lost = [Loss(0, self.restarted, self.restarted)] if self.restarted.any() else []
        actors, trajectories = zip(*answers, strict=True)
        return _joined(actors), _joined(trajectories, axis=1)

    def step(self, env_state: PyTree, action: PyTree, key: jax.Array | None = None) -> tuple[tuple, Step]:
        """One action [N, ...] for every copy: a call to every actor, for whoever needs no more than a few."""
        outcomes = self._all("step", [(part,) for part in self._split(np.asarray(action))])
        return (), _joined(outcomes)

    def save(self) -> dict[str, np.ndarray]:
        """What `restore` needs to be here again: of each actor what its copies need."""
        return {f"actor-{j}/{name}": array for j, stand in enumerate(self._stands) for name, array in stand.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> PyTree:
        """Back to where `save` was called, with as many actors: the observation [N, ...]."""
        stands: list[dict[str, np.ndarray]] = [{} for _ in range(self.actors)]
        for j, stand in enumerate(stands):
            beginning = f"actor-{j}/"
            stand |= {name.removeprefix(beginning): x for name, x in arrays.items() if name.startswith(beginning)}
        observations, begun, notes = zip(*self._all("restore", [(stand,) for stand in stands]), strict=True)
        self.restarted, self.notes = np.concatenate(begun), [note for some in notes for note in some]
        return _joined(observations)

    def cut(self, copies: np.ndarray) -> PyTree:
        """End the running episodes of some copies [N] here; what to go on with: the observation [N, ...]."""
        self.restarted = np.array(copies)
        return _joined(self._all("cut", [(part,) for part in self._split(np.asarray(copies))]))

    @property
    def under_way(self) -> np.ndarray:
        """The copies [N] whose running episodes have a step behind them."""
        return np.concatenate(self._all("under_way", [()] * self.actors))

    def record_info(self, names: Sequence[str]) -> None:
        """Note from now on what `info` says under these names at the ends of episodes."""
        self._infos = Infos(names)
        self._all("record_info", [(self._infos.names,)] * self.actors)

    def close_infos(self) -> dict[str, float]:
        """The means, over the copies of all actors, of what was noted since the row began; the next one begins."""
        if not self._infos.names:
            return {}
        sums = [stand["infos"] for stand in self._stands if "infos" in stand]
        self._infos.begin(np.sum(sums, axis=0) if sums else None)
        for stand in self._stands:
            stand |= {"infos": np.zeros_like(stand["infos"])} if "infos" in stand else {}
        self._row_begins = True
        return self._infos.close()

    def close(self) -> None:
        """Release the copies and end the actors; end Ray too, where it was started or connected to here."""
        actors, self._actors = getattr(self, "_actors", []), []
        with suppress(Exception):
            calls = [actor.call.remote("close") for actor in actors]
            if calls:
                self._ray.wait(calls, num_returns=len(calls), timeout=CLOSING_SECONDS)
        for actor in actors:
            with suppress(Exception):
                self._ray.kill(actor)
        if self._owned:
            self._owned = False
            self._ray.shutdown()

    def _all(self, name: str, given: list[tuple]) -> list[Any]:
        """What every actor answers to one call; those that are lost meanwhile are replaced, and asked again."""
        calls = [actor.call.remote(name, *arguments) for actor, arguments in zip(self._actors, given, strict=True)]
        return [self._answer(j, name, given[j], call) for j, call in enumerate(calls)]

    def _answer(self, j: int, name: str, given: tuple, call: Any) -> Any:
        while True:
            try:
                return self._read(j, self._ray.get(call))
            except self._lost as error:
                reached = self._replace(j, error, anew=name == "make")
                if name == "act" and reached is not None:
                    observation, begun, _ = reached
                    part = given[1]
                    given = given[0], part._replace(observation=observation, done=part.done | begun), *given[2:]
                call = self._actors[j].call.remote(name, *given)
            except self._ray.exceptions.RayTaskError as error:
                if name not in ("make", "learn_of"):
                    raise  # with the traceback of there
                reason = str(error).strip().rpartition("\n")[2]
                raise UnsuitableError(f"actor {j} could not take what it was sent: {reason}") from error

    def _read(self, j: int, reply: Reply) -> Any:
        """The answer of actor j. Raises its error; keeps where its copies stand."""
        for said in reply.warned:
            warnings.warn(said, stacklevel=1)  # one place, so that what all actors say is shown once
        if reply.error is not None:
            raise reply.error
        self._stands[j] = reply.stand
        return reply.answer

    def _replace(self, j: int, error: Exception, anew: bool = False) -> Any:
        """Start actor j again where its last answer left it: what `restore` says there, None where nothing had begun.

        Raises EnvironmentFault where actors are lost again and again: what kills them is then the environment, or want
        of memory.
        """
        stand, reached = self._stands[j], None
        while True:
            self._failures += 1
            reason = _reason(error)
            if self._failures > MOST_LOST:
                raise EnvironmentFault(
                    f"actors were lost {MOST_LOST} times without a whole rollout in between, the last with "
                    f"{self._copies(j)}: {reason}"
                ) from error
            with suppress(Exception):
                self._ray.kill(self._actors[j])
            self._actors[j] = self._started(0)  # cores: where a node is lost there may be none left to ask for
            try:
                for name, given in [] if anew else self._history(j, stand):
                    reached = self._read(j, self._ray.get(self._actors[j].call.remote(name, *given)))
                break
            except self._lost as again:
                error = again
        self._note_loss(j, reason, reached if stand else None)
        return reached if stand else None

    def _history(self, j: int, stand: Mapping[str, np.ndarray]) -> Iterator[tuple[str, tuple]]:
        """The calls that bring a new actor to where the old one's last answer left it."""
        yield "make", self._making(j)
        if self._infos.names:
            yield "record_info", (self._infos.names,)
        if self._lesson is not None:
            yield "learn_of", (self._lesson,)
        if stand:
            yield "restore", (stand,)

    def _note_loss(self, j: int, reason: str, reached: Any) -> None:
        what = f"actor {j} with {self._copies(j)} was lost ({reason})"
        notes = reached[2] if reached else []
        if notes:
            first, last = self._borders[j : j + 2]
            self.restarted[first:last] |= reached[1]
            self.notes += notes
        outcome = f"another one took its place: {'; '.join(notes)}" if notes else "another one went on where it stood"
        self.losses.append(f"{what}; {outcome}")
        warnings.warn(f"{self.losses[-1]} (loss {len(self.losses)} of this run)", stacklevel=2)

    def _teach(self, algorithm: Algorithm, policy: PyTree) -> None:
        """Have the actors know the algorithm, and the structure of its policies, whose leaves follow by themselves."""
        taught, structure = self._taught, jax.tree.structure(policy)
        if taught[0] is algorithm and taught[1] == structure:
            return
        lesson = jax.tree.map(np.asarray, algorithm), jax.tree.map(np.asarray, policy)
        try:
            self._lesson = self._ray.put(lesson)
        except Exception as error:
            raise UnsuitableError(f"the algorithm cannot be sent to actors: {told(error)}") from error
        self._all("learn_of", [(self._lesson,)] * self.actors)
        self._taught = algorithm, structure

    def _keys(self, key: jax.Array) -> list[np.ndarray]:
        """The data of each actor's key: of a lone one that is `key` itself."""
        keys = [key] if self.actors == 1 else [random.fold_in(key, j) for j in range(self.actors)]
        return [np.asarray(random.key_data(key)) for key in keys]

    def _split(self, tree: PyTree) -> list[PyTree]:
        """Leaves [N, ...] as the parts [n, ...] of the actors."""
        pairs = zip(self._borders[:-1], self._borders[1:], strict=True)
        return [jax.tree.map(lambda x, a=a, b=b: x[a:b], tree) for a, b in pairs]

    def _making(self, j: int) -> tuple:
        first, last = self._borders[j : j + 2]
        return self._environment, last - first, first, self._arguments

    def _copies(self, j: int) -> str:
        first, last = self._borders[j : j + 2]
        return f"copy {first}" if last - first == 1 else f"copies {first} to {last - 1}"

    def _started(self, cores: int) -> Any:
        """A new actor, which asks for so many cores."""
        asked = self._ray.remote(num_cpus=cores, max_restarts=0, max_task_retries=0)
        return asked(Remote).options(runtime_env=_settings(self.actors > 1)).remote(sys.path)

    def _sent(self, environment: Any) -> Any:
        """The environment as actors take it."""
        try:
            return self._ray.put(environment)
        except Exception as error:
            remedy = "pass a class or a function that makes it"
            raise UnsuitableError(f"the environment cannot be sent to actors, {remedy}: {told(error)}") from error

    def _kinds_of_loss(self) -> tuple[type[Exception], ...]:
        """What Ray raises where an actor, its node, or what it had answered is no more."""
        known = self._ray.exceptions
        return (
            known.RayActorError, known.WorkerCrashedError, known.NodeDiedError, known.ObjectLostError,
            known.OutOfMemoryError, known.LocalRayletDiedError,
        )  # fmt: skip


class Tasks:
    """Calls of one function, each in a process of its own that has a core for itself; entered, they begin."""

    def __init__(self, address: bool | str, function: Callable[..., Any], given: Sequence[tuple]) -> None:
        """As `RayEnvironment`, with the arguments of each call."""
        check(address, None, 1)
        self._address, self._function, self._given = address, function, given
        self._pending: dict[Any, int] = {}
        self._cancelled = False

    def __enter__(self) -> Tasks:
        self._ray = _library(self._address)
        self._owned = _connected(self._ray, self._address)
        task = self._ray.remote(num_cpus=1, max_retries=0)(_call).options(runtime_env=_settings(side_by_side=False))
        try:
            for i, arguments in enumerate(self._given):
                self._pending[task.remote(sys.path, [self._sent(arguments)])] = i
        except BaseException:
            self.__exit__()
            raise
        return self

    def _sent(self, arguments: tuple) -> Any:
        try:
            return self._ray.put((self._function, arguments))
        except Exception as error:
            raise UnsuitableError(f"what is handed in cannot be sent to other processes: {told(error)}") from error

    def __exit__(self, *_: object) -> None:
        self.cancel()
        if self._owned:
            self._ray.shutdown()

    @property
    def left(self) -> int:
        """How many calls have not ended."""
        return len(self._pending)

    def ended(self, seconds: float) -> Iterator[tuple[int, Any]]:
        """The calls that end within so many seconds, at least one of them if any does: number and result, or error."""
        for call in self._ray.wait(list(self._pending), timeout=seconds)[0] if self._pending else ():
            i = self._pending.pop(call)
            try:
                yield i, self._ray.get(call)
            except Exception as error:  # Ray's own, and what the call raised
                yield i, error

    def cancel(self) -> None:
        """Have every call be interrupted, as by Ctrl-C, or never begin."""
        if not self._cancelled:
            self._cancelled = True
            for call in self._pending:
                self._ray.cancel(call)


def _call(path: list[str], sent: list) -> Any:
    """What a task does; it is sent a reference, which is read only once modules are looked for at `path` too."""
    import ray

    sys.path += [place for place in path if place and place not in sys.path]
    function, arguments = ray.get(sent[0])
    return function(*arguments)


def _settings(side_by_side: bool) -> dict[str, Any]:
    """The environment variables of a process that Ray starts for us."""
    settings = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    settings |= {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": str(int(jax.config.jax_enable_x64))}  # type: ignore[attr-defined]
    if side_by_side:  # one thread each for XLA: they would be in one another's way
        settings.setdefault("NPROC", "1")
    return {"env_vars": settings}


def check(address: Any, actors: Any, num_environments: int) -> None:
    """SettingError where these cannot be meant."""
    if address is not True and not (isinstance(address, str) and address.strip()):
        raise SettingError(f"ray must be True, for one started here, or an address, got {shown(address)}")
    if actors is not None and (type(actors) is not int or actors < 1):
        raise SettingError(f"actors must be a whole number, at least 1, got {shown(actors)}")
    if actors is not None and actors > num_environments:
        raise SettingError(
            f"{actors} actors have {num_environments} copies to share, which are too few: fewer actors, or more "
            f"num_environments"
        )


def _library(address: bool | str) -> Any:
    if address in (True, LOCAL):
        _stay_on_this_machine()
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError('actors need Ray: pip install "thorndike[ray]"') from error
    return ray


def _stay_on_this_machine() -> None:
    """Have a Ray started here listen on the loopback alone, and ask for a token: it reads that when imported."""
    before = sys.modules.get("ray")
    open_to_others = [name for name in ON_THIS_MACHINE if name not in os.environ]
    if before is not None and open_to_others and not before.is_initialized():
        raise SettingError(
            "ray was imported before, and would listen beyond this machine: start it yourself (ray.init) or set "
            + ", ".join(f"{name}={ON_THIS_MACHINE[name]}" for name in open_to_others)
        )
    if before is None:
        for name in open_to_others:
            os.environ[name] = ON_THIS_MACHINE[name]


def _connected(ray: Any, address: bool | str) -> bool:
    """Have Ray running. True where that was done here, and is to be undone."""
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)  # of its first start it tells all the same
    with _own_signals(), warnings.catch_warnings():
        # JAX's: but what forks here becomes Ray at once.
        warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
        if address in (True, LOCAL):
            ray.init(address=LOCAL, include_dashboard=False, **quiet)
            return True
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SettingError(f"no Ray can be reached at {address}: {told(error)}") from error
    return True


@contextmanager
def _own_signals() -> Iterator[None]:
    """Leave SIGTERM's handler as it is: Ray puts its own in its place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _borders(num_environments: int, actors: int) -> list[int]:
    """Where each actor's copies begin, shared out as evenly as possible; and the end of all."""
    each, more = divmod(num_environments, actors)
    return [j * each + min(j, more) for j in range(actors + 1)]


def _joined(parts: Sequence[PyTree], axis: int = 0) -> PyTree:
    """The actors' parts [n, ...] as leaves [N, ...], in memory of this process."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *parts)


def _reason(error: Exception) -> str:
    """The beginning of what Ray says of a loss: lists of numbers follow."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.90}".removesuffix(".")
