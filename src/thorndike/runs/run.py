"""A run that has come to its end, or as far as its last checkpoint: what it was, what it learned, how well it did."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thorndike import environments, evaluation, trainer
from thorndike.environments import pictures
from thorndike.errors import RunError
from thorndike.interface import words
from thorndike.runs import configuration, records
from thorndike.runs.agents import Agent
from thorndike.runs.configuration import ENVIRONMENT, EVALUATION_ENVIRONMENT, MAX_EPISODES, Configuration
from thorndike.runs.recording import Best
from thorndike.runs.worlds import check_spaces, number_of_copies

if TYPE_CHECKING:
    from thorndike.interface import plot, watch


class Run:
    """A run that has reached its end, or as far as its last checkpoint."""

    def __init__(
        self,
        configuration: Configuration,
        given: dict[str, Any],
        folder: Path | None,
        summary: dict[str, Any],
        rows: list[dict[str, Any]],
        agents: list[Agent],
        stand: list[tuple[int, int]],
        bests: Mapping[int, Best],
    ) -> None:
        """Made by `train`, `resume` and `load`.

        `given` holds what the user handed in to make environments from, by argument; `stand` is the seed and the
        iteration of each agent; `bests` are those in evaluations, by seed.
        """
        self.configuration = configuration
        self.folder = folder
        self.summary = summary
        self.agents = agents
        self._rows, self._given, self._stand, self._bests = rows, given, stand, bests

    @property
    def agent(self) -> Agent:
        """The agent of the first seed (which need not be the best)."""
        return self.agents[0]

    @property
    def best(self) -> Agent:
        """The agent that did best in an evaluation of the run, of all seeds and moments; of equal ones the latest.

        `summary["best"]` says when and how well; as it was chosen for that, `evaluate(best=True)` is the fairer
        number. RunError where nothing was evaluated. Where no evaluation saw all its episodes end, a warning says so.
        """
        best = self._best_of(max(self._bests, key=lambda seed: self._bests[seed].rank, default=-1))
        if best.unfinished:
            warnings.warn(f"{best.unfinished} of the best agent's {best.episodes} episodes were cut", stacklevel=2)
        return self._agent(best)

    def _best_of(self, seed: int) -> Best:
        if seed not in self._bests:
            raise RunError("there is no best agent: no evaluation has been played (evaluate_every=0 switches them off)")
        return self._bests[seed]

    def _agent(self, best: Best) -> Agent:
        run = self.configuration
        fraction = best.iteration / trainer.iterations_for(run.algorithm, run.steps)
        return Agent(run.algorithm, best.state, run.observation_space, run.action_space, fraction)

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Every column of metrics.jsonl as an array, NaN where a row has no such value."""
        return records.columns(self._rows)

    def evaluate(self, episodes: int = 100, *, seed: int = 0, best: bool = False) -> dict[str, Any]:
        """Greedy episodes of every seed: mean and spread, over five seeds or more also iqm and a 95 % interval.

        They are others than those of the final evaluation, and others again with another `seed`. With `best` each
        seed's best agent plays instead of its newest one. `unfinished` of them had not ended after as many steps as an
        episode of training could have had, at most 10,000, and were cut.
        RunError or UnsafeCheckpointError where a loaded run's environment has to be handed in again.
        """
        episodes = words.whole_number(episodes, "episodes", low=1, high=MAX_EPISODES)
        seed = words.whole_number(seed, "seed")
        run = self.configuration
        named, arguments = self._evaluation_environment()
        with contextlib.closing(environments.make(named, number_of_copies(run), **arguments)) as environment:
            check_spaces(run, environment)
            longest = run.evaluation_plan(environment).longest
            played = []
            for agent, (of_seed, iteration) in zip(self.agents, self._stand, strict=True):
                state = agent.state
                if best:
                    state, iteration = self._best_of(of_seed).state, self._best_of(of_seed).iteration
                key = evaluation.evaluation_key(of_seed, iteration, repetition=seed)
                played.append(evaluation.evaluate(run.algorithm, environment, state, key, episodes, longest))
        return evaluation.summarize([each.returns for each in played], sum(each.unfinished for each in played))

    def _evaluation_environment(self) -> tuple[Any, Mapping[str, Any]]:
        """What the environments are made from that episodes are played in, and its arguments."""
        run, where = self.configuration, self.folder or Path()
        chosen = configuration.trusted_environment(run, where, self._given[ENVIRONMENT])
        other = configuration.trusted_environment(
            run, where, self._given[EVALUATION_ENVIRONMENT], EVALUATION_ENVIRONMENT
        )
        if other is None:
            return chosen, environments.to_evaluate_with(chosen, run.environment_arguments)
        return other, environments.ours(run.environment_arguments)

    def watch(
        self, episodes: int = 1, *, seed: int = 0, best: bool = False, fps: float | None = None, live: bool = False
    ) -> watch.Film:
        """A film of the first seed's agent, or with `best` of the best one, as it plays greedy episodes.

        A notebook shows it, `.save("film.webp")` writes it, and with `live` the terminal shows it as it is played,
        until Ctrl-C. Another `seed` gives other episodes. `fps` are the steps that a second shows, by default those of
        the environment's own time. UnsuitableError where the environment draws nothing, MissingExtraError where a
        package is missing.
        """
        from thorndike.interface import watch

        episodes = words.whole_number(episodes, "episodes", low=1, high=MAX_EPISODES)
        key = evaluation.evaluation_key(*self._stand[0], repetition=words.whole_number(seed, "seed"))
        watch.check_fps(fps)
        agent, (named, arguments) = self.best if best else self.agent, self._evaluation_environment()
        stage = pictures.staged(named, self.configuration.compiled, arguments)
        with contextlib.closing(stage.environment):
            check_spaces(self.configuration, stage.environment)
            longest = self.configuration.evaluation_plan(stage.environment).longest
            frames = watch.frames(stage, agent, key, episodes, longest)
            return watch.filmed(frames, fps or stage.fps, live)

    def plot(self, metric: str = "return_mean") -> plot.Chart:
        """The learning curves of a column of `metrics`, with an interval over five seeds or more.

        A notebook shows it, `.save("curves.svg")` (or .png) writes it. SettingError where there is no such column,
        MissingExtraError without matplotlib.
        """
        from thorndike.interface import plot

        return plot.chart([self], metric)

    def __repr__(self) -> str:
        where = f" in {self.folder}" if self.folder else ""
        return f"<Run of {self.configuration.algorithm_name} on {self.configuration.environment}{where}>"
