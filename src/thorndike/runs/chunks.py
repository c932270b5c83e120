"""What users hear of a run while it goes on: chunks that can also act and be evaluated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thorndike import evaluation, trainer
from thorndike.interface import words
from thorndike.runs.agents import Agent
from thorndike.runs.configuration import MAX_EPISODES

OnChunk = Callable[["Chunk"], None]


class Place(NamedTuple):
    """Where episodes of evaluation are played."""

    environment: Any
    longest: int  # steps that an episode may take


@dataclasses.dataclass
class Chunk(trainer.Chunk):
    """What one seed's run has come to, as `on_chunk` and the loop over `td.training` get it.

    `seed`, `steps` of `total_steps`, `steps_per_second`, `recent` returns and lengths of training episodes, `progress`,
    and `row`: the metrics of the row that ends with this chunk, else None. Valid until the next one comes.
    """

    algorithm: Any
    place: Callable[[], Place]

    def agent(self) -> Agent:
        """What the seed has learned so far, to keep: it stays as it is now."""
        state = jax.tree.map(jnp.copy, self.progress.state)
        environment, fraction = self.environment, self.iteration / self.iterations
        return Agent(self.algorithm, state, environment.observation_space, environment.action_space, fraction)

    def evaluate(self, episodes: int = 10, *, seed: int = 0) -> dict[str, Any]:
        """Greedy episodes in copies of their own: what `Run.evaluate` says of them. Nothing of the run changes.

        They are others than those of the run's evaluations, and others again with another `seed`. UnsuitableError
        where the environment can only exist once and no `evaluation_environment` was given.
        """
        episodes = words.whole_number(episodes, "episodes", low=1, high=MAX_EPISODES)
        key = evaluation.evaluation_key(self.seed, self.iteration, words.whole_number(seed, "seed"))
        environment, longest = self.place()
        played = evaluation.evaluate(self.algorithm, environment, self.progress.state, key, episodes, longest)
        return evaluation.summarize([played.returns], played.unfinished)
