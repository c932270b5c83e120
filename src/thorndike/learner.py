"""Learning for whoever owns the loop: a robot, a game engine, a web service.

    learner = td.Learner(td.DQN(), observation_space, action_space, steps=50_000)
    action = learner.act(observation)
    learner.observe(reward, next_observation, terminated, truncated)

What is learned is what `td.train` would have learned from the same steps, bit for bit.
"""

from __future__ import annotations

import dataclasses
import signal
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Discrete

from thorndike import algorithms, persistence, snapshots, spaces, trainer
from thorndike.core import Actor, Algorithm, Space, Transition, World, shapes_of_step
from thorndike.environments.old_gym import as_gymnasium
from thorndike.errors import (
    CorruptCheckpointError,
    EnvironmentFault,
    OrderError,
    RunError,
    SettingError,
    shown,
)
from thorndike.interface import words
from thorndike.networks import foreign
from thorndike.persistence import folder_of, locked, writable
from thorndike.runs import checkpoints, configuration, folders, preparation, records, sizes
from thorndike.runs.agents import Agent, leading_axes, rows_of
from thorndike.runs.configuration import OWN_LOOP, Configuration
from thorndike.runs.interrupts import Interrupts
from thorndike.runs.recording import CHECKPOINTS, writing
from thorndike.unrolls.host import Rollout

ROLLOUT = "rollout/"  # in a checkpoint: the steps that are not yet learned from
ORDER = "observe(reward, next_observation, terminated, truncated)"


class Elsewhere(NamedTuple):
    """What is known of the environments: they are the caller's."""

    num_environments: int
    observation_space: Space
    action_space: Space  # as choices and numbers that are acted on


class Learner:
    """An algorithm that learns in a loop of the caller's own, of one environment or of several side by side.

    Observations and actions are of the spaces (where those hold whole numbers in a Box, or MultiBinary, actions are
    int64); with several environments everything has a leading axis [N].
    """

    def __init__(
        self,
        algorithm: Any,
        observation_space: Any,
        action_space: Any,
        *,
        steps: int | None = None,
        seed: int = 0,
        num_environments: int = 1,
    ) -> None:
        """Begin to learn.

        The spaces are those of one environment, Gymnasium's or old Gym's. `steps`, of all environments together, are
        what is learned from: schedules (exploration, learning rates) run over them, and afterwards the learner only
        acts. Where there are fewer environments than the algorithm has, its rollouts become as much longer, so that it
        learns as often and from as many steps. Raises a ThorndikeError where that cannot work.
        """
        preparation.prepare()
        seed, n = words.whole_number(seed, "seed"), words.whole_number(num_environments, "num_environments", low=1)
        trainer.check_seed(seed)
        algorithm = _for_environments(algorithms.made(algorithm), n)
        world = _world(
            as_gymnasium(observation_space, "observation_space"), as_gymnasium(action_space, "action_space"), n
        )
        preparation.check_suitable(algorithm, world.observation_space, world.action_space)
        if steps is None:
            raise SettingError("how long? Say over how many steps schedules run: td.Learner(..., steps=50_000)")
        steps = words.whole_number(steps, "steps", low=1)
        preparation.check_beyond_warmup(algorithm, steps)
        run = Configuration(
            algorithm=algorithm,
            environment=OWN_LOOP,
            environment_is_id=False,
            environment_arguments={},
            compiled=False,
            observation_space=world.observation_space,
            action_space=world.action_space,
            steps=steps,
            seed=seed,
            seeds=1,
            evaluate_every=0,
            evaluate_episodes=None,
            final_episodes=None,
            checkpoint_every=0,
            id=uuid.uuid4().hex,
        )
        beginning = foreign.prepare(algorithm, world.observation_space, world.action_space, seed)
        self._go_on(run.begun(), world, beginning)

    @classmethod
    def load(
        cls, folder: str | Path, *, steps: int | None = None, algorithm: Any = None, network: Any = None, **recipes: Any
    ) -> Learner:
        """Go on from the newest moment that `save` has written into `folder`, as if it had never stopped.

        The environments may stand where they stood or have begun new episodes: one whose next observation is not the
        last that was observed has left its episode, which then counts as truncated. Networks and classes of your own
        are handed in again; `steps` puts the end elsewhere. Runs no code, as `td.load`. RunError where there is none,
        or one of `td.train`.
        """
        folder = folder_of(folder)
        run, checkpoint = folders.read(folder, words.handed_in(algorithm, network, recipes))
        if not run.own_loop:
            raise RunError(f"{folder} is no learner's, it was trained in {run.environment}: td.resume goes on with it")
        if checkpoint is None or run.seed not in checkpoint.seeds:
            raise RunError(f"{folder} has no checkpoint yet")
        entry = checkpoint.seeds[run.seed]
        run = dataclasses.replace(run, steps=words.whole_number(steps or run.steps, "steps", low=1))
        preparation.check_beyond_warmup(run.algorithm, run.steps)
        if trainer.iterations_for(run.algorithm, run.steps) < entry["iteration"]:
            raise RunError(f"{folder} is at {entry['steps']:,} steps already: {run.steps:,} are not beyond that")
        preparation.prepare()
        learner = cls.__new__(cls)
        world = _world(run.observation_space, run.action_space, run.algorithm.num_environments)
        learner._go_on(run.begun(), world, run.algorithm, checkpoint.arrays(run.seed))
        learner._rows = [row for row in folders.rows(folder, checkpoint) if row["steps"] <= entry["steps"]]
        learner._seconds = checkpoint.manifest["seconds"]["total"]
        return learner

    def _go_on(self, run: Configuration, world: World, beginning: Algorithm, saved: Any = None) -> None:
        sizes.check(run, None)
        self._run, self._world = run, world
        self._total = trainer.iterations_for(run.algorithm, run.steps)
        stored = spaces.stored(world.observation_space)
        unseen = jax.tree.map(lambda x: np.zeros((world.num_environments, *x.shape), x.dtype), stored)
        self._learning = trainer.Learning(run.algorithm, beginning, world, unseen, run.seed, self._total, saved)
        self._iteration = int(self._learning.progress.iteration)
        self._rows: list[dict[str, Any]] = []
        self._began, self._seconds = time.monotonic(), 0.0
        self._to_real = spaces.to_real(world.action_space, np)
        self._alone: bool | None = None  # of the action whose outcome is due: whether it has no leading axis
        self._loaded = saved is not None  # and nothing acted since
        self._begin_rollout(_steps_so_far(self._learning, world, saved) if saved is not None else [])

    @property
    def algorithm(self) -> Algorithm:
        """As it learns: with the number of environments that there are."""
        return self._run.algorithm

    @property
    def steps(self) -> int:
        """Steps observed so far, of all environments together."""
        length = self._iteration * self.algorithm.rollout_length + (0 if self.finished else len(self._rollout.steps))
        return length * self._world.num_environments

    @property
    def finished(self) -> bool:
        """Whether all `steps` are learned from."""
        return self._iteration >= self._total

    @property
    def agent(self) -> Agent:
        """What is learned so far, in a copy that stays as it is."""
        state = jax.tree.map(jnp.copy, self._learning.progress.state)
        fraction = self._iteration / self._total
        return Agent(self.algorithm, state, self._run.observation_space, self._run.action_space, fraction)

    @property
    def row(self) -> dict[str, Any]:
        """The newest row of metrics: steps, mean return, loss and so on; {} before the first."""
        return dict(self._rows[-1]) if self._rows else {}

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Every column of the rows of metrics, at most 200, as an array; NaN where a row has no such value."""
        return records.columns(self._rows)

    @property
    def recent(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns and lengths of the last finished episodes that are learned from, at most 100, oldest first."""
        return trainer.recent(self._learning.progress.episodes)

    def act(self, observation: Any) -> Any:
        """The action to take now, exploring as the algorithm does; with several environments [N, ...].

        After an episode's end the observation is the first of the next one. EnvironmentFault where it is not of the
        space, OrderError where an action's outcome has not been observed.
        """
        if self._alone is not None:
            raise OrderError(f"act was called twice: what the action led to comes between, {ORDER}, or truncate()")
        alone = self._is_alone(observation)
        seen = self._observations(observation, alone, "observation")
        if self._loaded:
            self._leave_episodes_unless_at(seen)
            self._loaded = False
        action = self._rollout.act(seen)
        real = self._to_real(action)
        if not np.isfinite(real).all():
            raise SettingError("an action is not finite: learning has diverged, a smaller learning_rate may help")
        self._alone = alone
        real = real.astype(self._world.action_space.dtype)
        if not alone:
            return real
        return int(real[0]) if isinstance(self._world.action_space, Discrete) else real[0]

    def observe(self, reward: Any, next_observation: Any, terminated: Any, truncated: Any) -> None:
        """What the action of `act` led to; with several environments each [N] or [N, ...].

        `next_observation` is the one before any reset. `terminated`: the task ended, nothing comes after. `truncated`:
        it was cut short, by a time limit say. At a rollout's end this learns, which takes a moment; Ctrl-C waits for
        it. EnvironmentFault where something is not as it should be; then nothing has changed, and `observe` may be
        called again. OrderError where there is no action whose outcome this could be.
        """
        if self._alone is None:
            raise OrderError("observe was called without an action before it: act(observation) comes first")
        alone, rollout = self._alone, self._rollout
        rewards = self._each(reward, alone, "reward", spaces.plain_reward)
        following = self._observations(next_observation, alone, "next_observation")
        flags = {"terminated": terminated, "truncated": truncated}
        ended = [
            np.array(self._each(flag, alone, name, partial(spaces.plain_flag, name=name)))
            for name, flag in flags.items()
        ]
        rollout.observe(np.array(rewards, np.float32), ended[0], ended[1], following)
        self._alone = None
        if self.finished:
            rollout.steps.clear()
        elif len(rollout.steps) == self.algorithm.rollout_length:
            self._learn()

    def truncate(self, environments: Any = None) -> None:
        """Say that running episodes were left for new ones: their last step counts as a truncation.

        Of all environments, or of those [N] that are True. An action whose outcome nobody has seen is forgotten.
        """
        n = self._world.num_environments
        left = np.ones(n, bool) if environments is None else np.asarray(environments)
        if left.shape != (n,) or left.dtype != bool:
            raise SettingError(f"truncate takes True or False for each of {n} environments, got {shown(environments)}")
        self._alone = None
        rollout, learning = self._rollout, self._learning
        if rollout.steps:
            last = rollout.steps[-1]
            rollout.steps[-1] = last._replace(truncated=last.truncated | (left & ~rollout.done))
            rollout.done = rollout.done | left
        else:
            left = left & (np.asarray(learning.progress.episodes.length) > 0)
            learning.go_on(learning.progress.actor.observation, left)
            self._begin_rollout()

    def save(self, folder: str | Path) -> None:
        """Write all of it into a run folder, for `Learner.load`, and for `td.load` as any other run.

        The rollout so far is in it; an action whose outcome was not observed yet is not. A folder keeps the three
        newest moments. RunError where it holds another run, or later moments of this one, or cannot be written.
        """
        folder, run = folder_of(folder), self._run
        with writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if not persistence.exists(folder / configuration.FILE):
                persistence.empty_folder(folder)
            elif configuration.read(folder).get("id") != run.id:
                raise RunError(f"{folder} holds another run: save into a folder of its own")
            before = checkpoints.numbered(folder / CHECKPOINTS)
            with writing(run, folder, before[-1] if before else None):
                writer = checkpoints.Writer(folder / CHECKPOINTS, [run.seed])
                _check_not_later(folder / CHECKPOINTS, run, self.steps)
                run.write(folder)
                log = records.write(folder, self._rows)
                about = {"steps": self.steps, "iteration": self._iteration, "metrics": log.written(run.seed)}
                writer.add(run.seed, self._arrays(), about)
                seconds = {"total": self._seconds_so_far()}
                writer.commit(self._total, {"run": run.id, "configuration": run.to_json(), "seconds": seconds})

    def __repr__(self) -> str:
        return f"<Learner of {self._run.algorithm_name}: {self.steps:,} of {self._run.steps:,} steps>"

    def _begin_rollout(self, steps: Sequence[Transition] = ()) -> None:
        """Act with the policy of now, `steps` of the rollout being acted already."""
        learning, warmup = self._learning, self._warming_up
        policy, key, _ = learning.plan
        self._rollout = Rollout(
            learning.algorithm, self._world.action_space, policy, learning.progress.actor, key, warmup, len(steps)
        )
        self._rollout.steps.extend(steps)

    @property
    def _warming_up(self) -> bool:
        return self._iteration < min(trainer.warmup_iterations(self.algorithm), self._total)

    def _learn(self) -> None:
        """Learn from the rollout. A signal waits meanwhile: between two states there is none that could be saved."""
        with Interrupts() as signals:
            self._learning.conclude(self._actor(), self._rollout.trajectory, self._warming_up)
            self._iteration += 1
            self._begin_rollout()
            if self._iteration % trainer.row_length(self._total) == 0 or self.finished:
                self._rows.append(self._closed_row())
        if signals.pending is not None:
            signal.raise_signal(signals.pending)

    def _closed_row(self) -> dict[str, Any]:
        measured = trainer.read_row(self._learning.close_row())
        broken = [name for name, value in measured.items() if not np.isfinite(value)]
        if broken:
            warnings.warn(
                f"learning has diverged: {', '.join(broken)} not finite; a smaller learning_rate may help", stacklevel=4
            )
        return {"seed": self._run.seed, "steps": self.steps, "seconds": self._seconds_so_far(), **measured}

    def _actor(self) -> Actor:
        """Where acting stands: the observation is the last that was observed."""
        rollout, actor = self._rollout, self._learning.progress.actor
        observation = rollout.steps[-1].next_observation if rollout.steps else actor.observation
        return actor._replace(observation=observation, carry=rollout.carry, done=rollout.done)

    def _arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint holds: the progress, and the rollout so far."""
        arrays = snapshots.to_arrays(self._learning.progress._replace(actor=self._actor()), None, copy=False)
        so_far = self._rollout.trajectory if self._rollout.steps else ()
        return arrays | {ROLLOUT + name: np.asarray(leaf) for name, leaf in snapshots.named(so_far)}

    def _leave_episodes_unless_at(self, observation: Any) -> None:
        """After loading: environments that are not where they stood have left their episodes for new ones."""
        before = jax.tree.leaves(self._actor().observation)
        pairs = [(np.asarray(a), b) for a, b in zip(before, jax.tree.leaves(observation), strict=True)]
        there = [all(a[i].tobytes() == b[i].tobytes() for a, b in pairs) for i in range(self._world.num_environments)]
        self.truncate(~np.array(there))

    def _seconds_so_far(self) -> float:
        return round(self._seconds + time.monotonic() - self._began, 3)

    def _is_alone(self, observation: Any) -> bool:
        """Whether this is one observation without a leading axis."""
        try:
            return self._world.num_environments == 1 and leading_axes(self._world.observation_space, observation) != 1
        except Exception:  # whatever a value raises when its axes are counted: it is refused where it is read
            return True

    def _observations(self, value: Any, alone: bool, name: str) -> Any:
        """Observations [N, ...] as they are stored."""
        space = self._world.observation_space
        each = self._each(value, alone, name, lambda row: spaces.plain(space, row, name))
        return jax.tree.map(lambda *leaves: np.stack(leaves), *each)

    def _each(self, value: Any, alone: bool, name: str, read: Callable[[Any], Any]) -> list:
        """What every environment gives, read one by one."""
        n = self._world.num_environments
        try:
            rows = [value] if alone else rows_of(value)
        except Exception:
            rows = []
        if len(rows) != n:
            raise EnvironmentFault(f"{name}: expected {n}, one for each environment, got {spaces.outline(value)}")
        found = []
        for i, row in enumerate(rows):
            try:
                found.append(read(row))
            except ValueError as error:
                where = f"step {self.steps + 1}" if alone else f"environment {i}, step {self.steps + 1}"
                order = f"; {ORDER} is the order" if name == "reward" else ""
                raise EnvironmentFault(f"{where}: {error}{order}") from error
        return found


def _for_environments(algorithm: Any, n: int) -> Algorithm:
    """The algorithm for `n` environments, with rollouts of as many steps altogether."""
    if algorithm.num_environments == n:
        return algorithm
    length = max(1, round(algorithm.rollout_length * algorithm.num_environments / n))
    return dataclasses.replace(algorithm, num_environments=n, rollout_length=length)


def _world(observation_space: Space, action_space: Space, n: int) -> World:
    """Raise UnsuitableError unless the spaces are of a kind that can be learned in."""
    spaces.stored(observation_space)
    choices = spaces.as_choices(action_space)
    spaces.check_action_space(choices)
    return Elsewhere(n, observation_space, choices)


def _steps_so_far(learning: trainer.Learning, world: World, saved: Any) -> list[Transition]:
    """The steps of a rollout that was saved before its end."""
    reward = saved.get(f"{ROLLOUT}reward")
    if reward is None:
        return []
    progress = learning.progress
    step = shapes_of_step(learning.algorithm, progress.state, progress.actor.observation, jax.random.key(0))
    length, n = len(np.atleast_1d(reward)), world.num_environments
    if not 0 < length < learning.algorithm.rollout_length:
        raise CorruptCheckpointError(f"the checkpoint does not fit: '{ROLLOUT}reward' has {length} steps")
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((length, n, *x.shape), x.dtype), step)
    rollout = jax.tree.map(np.asarray, snapshots.from_arrays(shapes, saved, ROLLOUT))
    return [jax.tree.map(lambda x, t=t: x[t], rollout) for t in range(length)]


def _check_not_later(folder: Path, run: Configuration, steps: int) -> None:
    """RunError where a later moment of the run is in `folder`, which this one would stand behind; broken ones go."""
    later = [path for path in checkpoints.numbered(folder) if checkpoints.number(path) > steps]
    if later:
        newest = checkpoints.newest(folder, run.id)
        if newest is not None and newest.path in later:
            raise RunError(f"{folder.parent} holds a later moment, {newest.path.name}: save into another folder")
        for path in later:
            persistence.discard(path)
