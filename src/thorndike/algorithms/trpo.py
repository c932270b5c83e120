"""Trust region policy optimisation: the longest step that leaves the policy near the one that acted."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from gymnasium import spaces
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from thorndike import intrinsic
from thorndike.algorithms.ppo import PPO, Parameters, State
from thorndike.core import Batch, Transition
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.loops import repeat
from thorndike.memories import check_rollout, minibatches
from thorndike.networks import Network, Same
from thorndike.optimizers import Adam, Optimizer, clipped, improved
from thorndike.sequences import flat
from thorndike.targets import standardized


@hyperparameters
class TRPO(PPO):
    """A natural gradient step for each rollout, as long as a limit on the KL divergence allows; a critic beside it.

    Schulman et al. (2015), "Trust region policy optimization", for Discrete, MultiDiscrete and Box actions. The limit
    holds for the divergence as it is measured over the rollout, and a step that does not improve the surrogate is not
    taken. The optimizer, its learning rate, the epochs and minibatches are the critic's alone, which therefore shares
    nothing with the policy.
    """

    critic_network: Network = Same()
    learning_rate: float = setting(1e-3, low=0)
    optimizer: Optimizer = Adam()
    max_kl: float = setting(0.01, above=0)  # of the policy that acted from the one after the step, on average
    cg_steps: int = setting(15, low=1)  # of the conjugate gradient
    cg_damping: float = setting(0.1, low=0)  # added to the Fisher matrix
    line_search_steps: int = setting(10, low=1)  # lengths that are tried before there is no step at all
    line_search_shrink: float = setting(0.8, above=0, high=1)  # of one to the next
    rollout_length: int = setting(256, low=1)
    without: ClassVar[tuple[str, ...]] = (
        "critic_learning_rate", "clip_range", "clip_range_end", "clip_value", "ent_coef", "vf_coef", "target_kl",
    )  # fmt: skip

    def validate(self) -> None:
        check_rollout(self)

    def descent(self, fraction: jax.Array | float = 0.0) -> Any:
        return clipped(self, fraction, flat=True)

    def init(self, key: jax.Array, observation_space: spaces.Space, action_space: spaces.Space) -> State:
        state = super().init(key, observation_space, action_space)
        return state._replace(optimizer=self.descent().init(state.parameters.critic))

    def update(self, state: State, batch: Batch, fraction: jax.Array, key: jax.Array) -> tuple[State, dict, tuple]:
        """One step of the policy on the whole rollout [T, N], then several epochs of the critic."""
        reward, more = intrinsic.found(self, state.intrinsic, batch.steps)
        rows, statistics = self.prepare(state, batch.steps, reward)
        parameters, metrics = self.step(state.parameters, rows)
        orders = minibatches(self, key, rows)

        def fit(carry, order):
            minibatch = jax.tree.map(lambda x: x[:, order], rows)

            def loss(critic):
                value = self.seen(parameters._replace(critic=critic), minibatch)[1]
                return 0.5 * jnp.square(value - flat(minibatch.extras["target"])).mean(), ()

            critic, moments, error, _ = improved(loss, *carry, self.descent(fraction))
            return (critic, moments), error

        first = parameters.critic, state.optimizer
        (critic, moments), errors = repeat(fit, first, orders, orders.shape[0])
        metrics["value_loss"] = errors.mean()
        parameters = parameters._replace(critic=critic)
        state = state._replace(parameters=parameters, optimizer=moments, statistics=statistics)
        return state, metrics | more, ()

    def step(self, parameters: Parameters, rows: Transition) -> tuple[Parameters, dict]:
        """The policy after the step, and what is to be said of it (the paper's appendix C)."""
        vector, rebuild = ravel_pytree((parameters.network, parameters.head))
        advantage = flat(rows.extras["advantage"])
        if self.normalize_advantages:
            advantage = standardized(advantage)

        def policy(vector):
            network, head = rebuild(vector)
            return self.seen(parameters._replace(network=network, head=head), rows)[0]

        old, action = policy(vector), flat(rows.action)
        old_log_prob = old.log_prob(action)

        def surrogate(vector):
            return (jnp.exp(policy(vector).log_prob(action) - old_log_prob) * advantage).mean()  # equation 14

        def kl(vector):
            return old.kl(policy(vector)).mean()

        def fisher(direction):
            return jax.jvp(jax.grad(kl), (vector,), (direction,))[1] + self.cg_damping * direction

        now, gradient = jax.value_and_grad(surrogate)(vector)
        direction, _ = cg(fisher, gradient, maxiter=self.cg_steps)
        curvature = jnp.maximum(direction @ fisher(direction), jnp.finfo(jnp.float32).tiny)
        longest = jnp.sqrt(2 * self.max_kl / curvature) * direction

        none = vector, now, jnp.zeros_like(now)  # a step of no length

        def shorter(search):
            count, size, *_ = search
            tried = vector + size * longest
            better, divergence = surrogate(tried), kl(tried)
            taken = (better > now) & (divergence <= self.max_kl)
            step = jax.tree.map(lambda *x: jnp.where(taken, *x), (tried, better, divergence), none)
            return count + 1, size * self.line_search_shrink, taken, step

        begin = 0, jnp.float32(1), jnp.bool(False), none
        search = lax.while_loop(lambda x: (x[0] < self.line_search_steps) & ~x[2], shorter, begin)
        _, _, taken, (vector, better, divergence) = search
        metrics = {"policy_loss": -better, "entropy": old.entropy().mean(), "kl": divergence, "steps_taken": taken}
        network, head = rebuild(vector)
        return parameters._replace(network=network, head=head), metrics
