"""Parallelised Q-network: Q-learning on each rollout as it comes, with neither a replay nor a target network."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from gymnasium import spaces

from thorndike import intrinsic, masks, normalization
from thorndike.algorithms.dqn import DQN, State, pick
from thorndike.core import Batch, Transition
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.loops import repeat
from thorndike.memories import Latest, check_rollout, in_sequences, minibatches
from thorndike.networks import MLP, Network, check_special
from thorndike.optimizers import Optimizer, RAdam, improved
from thorndike.sequences import first, flat, over_time, remembers, shapes_of_carry, side_by_side
from thorndike.targets import lambda_returns


@hyperparameters
class PQN(DQN):
    """Q(lambda) on policy: many copies of the environment in place of a replay, normalised layers of a target network.

    Gallici et al. (2024), "Simplifying deep temporal difference learning". Targets are Peng's lambda-returns of max Q,
    made once for each rollout by the network that acted. For Discrete actions. Networks with a memory learn from
    `sequence_length` steps in a row, which begin with the carry that was acted with.
    """

    network: Network = MLP((128, 128), activation="relu", initialization="default", layer_norm=True)
    learning_rate: float = setting(2.5e-4, low=0)
    optimizer: Optimizer = RAdam()
    q_lambda: float = setting(0.65, low=0, high=1)  # how far returns reach beyond their first step
    epsilon_end: float = setting(0.05, low=0, high=1)
    exploration_fraction: float = setting(0.1, above=0, high=1)
    epochs: int = setting(2, low=1, high=2**20)
    batch_size: int = setting(128, low=1)  # steps in a minibatch
    sequence_length: int = setting(16, low=1)  # steps in a row that a network with a memory learns from
    num_environments: int = setting(32, low=1, high=2**20)
    rollout_length: int = setting(32, low=1)
    updates_per_rollout: ClassVar[int] = 1  # type: ignore[misc]
    warmup_steps: ClassVar[int] = 0  # type: ignore[misc]
    memory: ClassVar[Latest] = Latest()  # type: ignore[misc]
    without: ClassVar[tuple[str, ...]] = (
        "double", "loss", "rescale_values", "target_period", "munchausen", "munchausen_alpha", "munchausen_temperature",
        "munchausen_clip",
    )  # fmt: skip

    def validate(self) -> None:
        check_rollout(self)
        check_special(self)

    @property
    def length(self) -> int:
        """Of the sequences: 1 without a memory, where every step stands for itself."""
        return self.sequence_length if remembers(shapes_of_carry(self.initial_carry)) else 1

    def init(self, key: jax.Array, observation_space: spaces.Space, action_space: Any) -> State:
        network = self.init_network(key, observation_space, int(action_space.n))
        statistics = normalization.begin(self, observation_space)
        novelty = intrinsic.begin(self, key, observation_space)
        return State(network, (), self.descent().init(network), jnp.uint32(0), statistics, novelty)

    def observe(self, state: State, trajectory: Transition) -> State:
        return state._replace(intrinsic=intrinsic.observe(self, state.intrinsic, trajectory))  # `update` sees it whole

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, tuple]:
        """Several epochs over the rollout [T, N], in minibatches drawn anew each epoch."""
        reward, more = intrinsic.found(self, state.intrinsic, batch.steps)
        rows, statistics = self.prepare(state, batch.steps, reward)
        orders = minibatches(self, key, rows)

        def step(carry, order):
            minibatch = jax.tree.map(lambda x: x[:, order], rows)
            network, moments, loss, error = improved(
                lambda network: self.error(network, minibatch), *carry, self.descent(fraction)
            )
            return (network, moments), {"loss": loss, "td_error": error}

        start = state.network, state.optimizer
        (network, moments), metrics = repeat(step, start, orders, orders.shape[0])
        state = State(network, (), moments, state.updates + 1, statistics, state.intrinsic)
        return state, jax.tree.map(lambda x: x.mean(), metrics) | more, ()

    def error(self, network: Any, batch: Transition) -> tuple[jax.Array, jax.Array]:
        """Half the mean squared error of Q(s, a), and the mean of its size, of sequences [L, S]."""
        carry, ended = first(batch.extras["carry"]), batch.terminated | batch.truncated
        outputs = flat(over_time(network, batch.observation, carry, ended).outputs)
        error = flat(batch.extras["target"]) - pick(self.of_actions(network, outputs), flat(batch.action))[:, 0]
        return 0.5 * jnp.square(error).mean(), jnp.abs(error).mean()

    def prepare(self, state: State, steps: Transition, reward: jax.Array | None) -> tuple[Transition, Any]:
        """A rollout with its targets, cut into sequences [L, S]; and the merged statistics.

        R_t = r_t + gamma (lambda R_(t+1) + (1 - lambda) max Q(s_(t+1), .)), the paper's equation for Q(lambda).
        """
        steps, statistics = normalization.as_acted(state.statistics, steps, self.gamma)
        steps = intrinsic.added(steps, reward)
        # What is stored was carried by this very network, so that no step has to wait for another.
        _, after = side_by_side(state.network, steps.observation, steps.extras["carry"])
        outputs, _ = side_by_side(state.network, steps.next_observation, after)
        q = masks.legal(self.q(state.network, flat(outputs)), masks.of(flat(steps.next_observation)))
        best, ends = q.max(-1).reshape(steps.reward.shape), (steps.terminated, steps.truncated)
        target = lambda_returns(best, steps.reward, *ends, self.gamma, self.q_lambda)
        return in_sequences(steps._replace(extras=steps.extras | {"target": target}), self.length), statistics
