"""PPO with a GRU on POPGym's RepeatFirst (Morad et al., 2023): remember one card of four for a whole episode.

    python benchmarks/repeat_first.py                 a million steps, three seeds: a quarter of an hour
    python benchmarks/repeat_first.py --steps 4_000_000     as many as were published

Writes benchmarks/results/repeat_first.{json,md}. POPGym counts the best mean return of a run; ours is the last.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import reporting
from gymnasium import spaces

import thorndike as td

PUBLISHED, GATE = 0.811, 0.75
ALGORITHM = td.PPO(
    network=td.GRU(128, torso=td.MLP((64,), activation="relu"), head=td.MLP((64,), activation="relu")),
    learning_rate=1e-3,
    learning_rate_end=0.0,
    epochs=10,
    batch_size=2048,
    sequence_length=64,
    num_environments=64,
    rollout_length=128,
    normalize_rewards=True,
    ent_coef=0.01,
)


class Cards(NamedTuple):
    """Where an episode is: the suits in the order in which they are dealt, and how many are."""

    suits: jax.Array  # [52] int32
    dealt: jax.Array  # int32


@dataclasses.dataclass(frozen=True)
class RepeatFirst:
    """A deck is dealt card by card, and the suit of the first one is to be named at each: 1/51 if right, else -1/51."""

    decks: int = 1
    max_steps = None
    observation_space = spaces.Discrete(4)
    action_space = spaces.Discrete(4)

    @property
    def cards(self) -> int:
        return 52 * self.decks

    def initial(self, key: jax.Array) -> Cards:
        return Cards(jax.random.permutation(key, jnp.arange(self.cards, dtype=jnp.int32) % 4), jnp.int32(0))

    def observe(self, state: Cards) -> jax.Array:
        return state.suits[state.dealt]

    def transition(self, state: Cards, action: Any, key: jax.Array) -> tuple[Cards, jax.Array, jax.Array]:
        reward = jnp.where(action == state.suits[0], 1.0, -1.0) / (self.cards - 1)
        dealt = state.dealt + 1
        return Cards(state.suits, dealt), reward.astype(jnp.float32), dealt >= self.cards - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=lambda text: int(text.replace("_", "")), default=1_000_000)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    run = td.train(
        ALGORITHM, RepeatFirst(), given.steps, seeds=given.seeds, run_dir=None, evaluate_every=given.steps // 4
    )
    seconds, result = run.summary["seconds"], run.summary["evaluation"]
    rate = given.seeds * given.steps / (seconds["total"] - seconds["compile"])
    row = [
        f"{given.steps:,}", f"{result['mean']:.3f}", ", ".join(f"{x:.3f}" for x in result["per_seed"]),
        f"{rate:,.0f}", f"{seconds['compile']:.0f} s", f"{PUBLISHED} ({GATE})",
    ]  # fmt: skip
    header = ["steps", "greedy return", "seeds", "steps/s, all seeds", "compiling", "published, after 4,000,000 (gate)"]
    text = f"# PPO with a GRU on RepeatFirst, one deck\n\n{reporting.table(header, [row])}\n\n{reporting.machine()}.\n"
    reporting.write("repeat_first", {"steps": given.steps, "evaluation": result, "seconds": seconds}, text)
    print(text)


if __name__ == "__main__":
    main()
