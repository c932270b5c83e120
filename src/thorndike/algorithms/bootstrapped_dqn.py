"""Bootstrapped DQN: many networks that differ where nothing was seen, one of which is believed for a whole episode."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from gymnasium import spaces
from jax import random

from thorndike import masks, normalization, sequences
from thorndike.algorithms.dqn import DQN, State
from thorndike.core import Batch
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories import Replay
from thorndike.networks import MLP, Network
from thorndike.optimizers import clipped
from thorndike.sequences import remembers
from thorndike.targets import NStep


class Head(eqx.Module):
    """Q_k(s, .) = f(s) + beta p(s): f is trained, the prior p stays as it was drawn (Osband et al., 2018, algorithm 1).

    With a memory it carries what the two carry.
    """

    network: Any
    prior: Any
    scale: jax.Array  # beta

    def __call__(self, observation: Any, carry: Any = ()) -> Any:
        (outputs, prior), after = sequences.step((self.network, self.prior), observation, carry)
        outputs = outputs + jax.lax.stop_gradient(self.scale * prior)
        return (outputs, after) if remembers(carry) else outputs


class Heads(eqx.Module):
    """K heads as one module, which have their leaves along the first axis: outputs [B, K, outputs]."""

    each: Head

    def __call__(self, observation: Any, carry: Any = ()) -> Any:
        def one(head, carry):
            return sequences.step(head, observation, carry)

        outputs, after = jax.vmap(one, in_axes=(0, 1), out_axes=1)(self.each, carry)
        return (outputs, after) if remembers(carry) else outputs


class Policy(NamedTuple):
    network: Heads
    epsilon: jax.Array  # how often to act at random
    observations: Any  # what they are normalised by
    explore: jax.Array  # one head acts, or the mean of all


class Carry(NamedTuple):
    """What acting carries through an episode."""

    head: jax.Array  # [N] which one acts, from 1 on; 0 where an episode begins: none is drawn yet
    network: Any  # what the heads remember, [N, K, ...]


@hyperparameters
class BootstrappedDQN(DQN):
    """Deep exploration: each episode follows one of `num_heads` DQNs, which agree only about what they have learned.

    Osband et al. (2016), "Deep exploration via bootstrapped DQN", with the prior networks of Osband et al. (2018),
    "Randomized prior functions for deep reinforcement learning". Heads share nothing but the batch; each has targets of
    its own. Evaluations act by the mean of the heads. By `mask_probability` each head learns from a share of the steps,
    the same ones whenever they are drawn: masks are drawn from a step's place in the memory, so that none is stored.
    The settings are those of bsuite's agent (Osband et al., 2020).
    """

    network: Network = MLP((50, 50), activation="relu", initialization="orthogonal")
    learning_rate_end: float | None = setting(None, low=0, end_of="learning_rate")  # of a linear fall; None: it stays
    double: bool = False
    loss: Literal["huber", "squared"] = "squared"
    num_heads: int = setting(20, low=1, high=10_000)
    prior_scale: float = setting(5.0, low=0)  # what the outputs of priors are multiplied by
    mask_probability: float = setting(1.0, above=0, high=1, static=True)  # with which a head learns from a step
    max_grad_norm: float = setting(float("inf"), above=0, infinite=True)  # of all heads together
    target_period: int = setting(4, low=1)  # updates between two copies into the target network
    epsilon_start: float = setting(0.0, low=0, high=1)  # share of random actions at the start
    epsilon_end: float = setting(0.0, low=0, high=1)
    num_environments: int = setting(1, low=1, high=2**20)
    rollout_length: int = setting(1, low=1)
    updates_per_rollout: int = setting(1, low=1, high=2**20)
    warmup_steps: int = setting(128, low=0)
    memory: Replay = Replay(capacity=10_000, batch_size=128)

    special: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # heads explore by what they differ in

    def validate(self) -> None:
        super().validate()
        if self.num_heads > 1 and not self.network.draws:
            raise SettingError(
                f"{self.network!r} begins with the same weights every time, and {self.num_heads} equal heads explore "
                "no more than one: give a pair (init, apply) as network"
            )

    def descent(self, fraction: jax.Array | float = 0.0) -> optax.GradientTransformation:
        trained = Heads(Head(True, False, False))  # type: ignore[arg-type]
        return optax.partition({True: clipped(self, fraction), False: optax.set_to_zero()}, lambda _: trained)

    def init_network(self, key: jax.Array, observation_space: spaces.Space, actions: int) -> Heads:
        def head(key):
            network, prior = (DQN.init_network(self, each, observation_space, actions) for each in random.split(key))
            return Head(network, prior, jnp.asarray(self.prior_scale, jnp.float32))

        return Heads(jax.vmap(head)(random.split(key, self.num_heads)))

    def policy(self, state: State, fraction: jax.Array, explore: bool = True) -> Any:
        return Policy(*super().policy(state, fraction, explore), jnp.asarray(explore))

    def network_carry(self, n: int) -> Any:
        carry = self.network.initial_carry(n)
        of_head = (carry, carry) if remembers(carry) else ()
        return jax.tree.map(lambda x: jnp.repeat(x[:, None], self.num_heads, axis=1), of_head)

    def initial_carry(self, n: int) -> Carry:
        return Carry(jnp.zeros(n, jnp.int32), self.network_carry(n))

    def of_heads(self, policy: Any, observation: Any, carry: Any) -> tuple[jax.Array, Any]:
        """Q_k(s, .) of every head [N, K, A], and what they carry on."""
        seen = normalization.normalize(policy.observations, observation)
        outputs, after = sequences.step(policy.network, seen, carry)
        return jax.vmap(partial(self.q, policy.network), in_axes=1, out_axes=1)(outputs), after

    def values(self, policy: Any, observation: Any, carry: Any) -> tuple[jax.Array, Any]:
        """The mean of the heads [N, A], -inf where an action is not legal, and the next carry."""
        q, after = self.of_heads(policy, observation, carry.network if carry else ())
        return masks.legal(q.mean(1), masks.of(observation)), carry._replace(network=after) if carry else ()

    def act(self, policy: Any, observation: Any, carry: Carry, key: jax.Array) -> tuple[jax.Array, Carry, dict]:
        """The best legal action of the episode's head, which is drawn with its first step."""
        key_head, key_action = random.split(key)
        drawn = random.randint(key_head, carry.head.shape, 1, self.num_heads + 1, jnp.int32)
        head = jnp.where(carry.head == 0, drawn, carry.head)
        q, after = self.of_heads(policy, observation, carry.network)
        believed = jnp.take_along_axis(q, head[:, None, None] - 1, axis=1)[:, 0]
        q = masks.legal(jnp.where(policy.explore, believed, q.mean(1)), masks.of(observation))
        return self.mostly_best(policy, q, observation, key_action), Carry(head, after), {"carry": carry.network}

    def losses(self, network: Heads, target_network: Heads, step: NStep, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of each sample the losses of the heads [L * B, K], so that their mean is the sum over heads.

        Each head learns as DQN does. How wrong they were is on average [L * B].
        """
        carried = NStep._make((*[None] * 5, 2, None, 2))  # carries are [L, B, K, ...], all else is for each head
        each = jax.vmap(partial(DQN.losses, self), in_axes=(0, 0, carried, None), out_axes=1)
        per_sample, error = each(network.each, target_network.each, step, key)
        return per_sample * self.num_heads, error.mean(1)

    def weights(self, batch: Batch, step: NStep) -> jax.Array:
        """[L * B, K], 0 for the windows that a head does not learn from."""
        weight = super().weights(batch, step)[:, None]
        if self.mask_probability == 1:
            return weight

        def learns(index):
            key = random.fold_in(random.key(0), index)
            return random.bernoulli(key, self.mask_probability, (self.num_heads,))

        mask = jax.vmap(learns)(batch.index)  # [B, K]
        return weight * jnp.tile(mask, (step.reward.shape[0], 1))
