"""FastTD3: twin delayed deterministic policy gradient for hundreds of copies at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random

from thorndike.algorithms.td3 import TD3, Policy, State
from thorndike.errors import SettingError
from thorndike.hyperparameters import hyperparameters, setting
from thorndike.memories import Replay
from thorndike.networks import MLP, Network
from thorndike.optimizers import AdamW, Optimizer
from thorndike.targets import NStep, check_support, cross_entropy, evenly_spaced, projected


class Carry(NamedTuple):
    """What acting carries through an episode."""

    share: jax.Array  # [N] of the range of exploration noise, in (0, 1]; 0 where an episode begins: none is drawn yet
    network: Any  # what the actor remembers


@hyperparameters
class FastTD3(TD3):
    """TD3 whose critics learn distributions of returns from many copies, each of whose episodes explores otherwise.

    Seo et al. (2025), "FastTD3: simple, fast, and capable reinforcement learning for humanoid control". Critics put out
    how likely each of `atoms` returns from `v_min` to `v_max` is, evenly spaced (Bellemare et al., 2017); targets are
    the distribution of the critic with the least mean, and the actor climbs the least mean. How much noise there is
    when acting is drawn for each episode. Batches are large and updates few: the paper's are of 32,768 steps from 1,024
    copies, with layers of 512, 256, 128 in the actor and 1024, 512, 256 in the critics, on a GPU.
    """

    network: Network = MLP((256, 128), activation="relu", initialization="default")
    critic_network: Network = MLP((256, 256), activation="relu", initialization="default")
    atoms: int = setting(101, low=2)
    v_min: float = -250.0  # returns beyond are learned as these
    v_max: float = 250.0
    learning_rate: float = setting(3e-4, low=0)
    optimizer: Optimizer = AdamW(weight_decay=0.1)
    tau: float = setting(0.1, low=0, high=1)  # share of the networks that enters their targets at each update
    exploration_noise: float = setting(0.4, low=0)  # largest standard deviation, when acting
    exploration_noise_min: float = setting(0.001, low=0)  # and the least: an episode's is drawn between them
    target_noise: float = setting(0.001, low=0)  # standard deviation, in the critics' targets
    normalize_observations: bool = True  # by the mean and variance of all that was seen
    num_environments: int = setting(128, low=1, high=2**20)
    rollout_length: int = setting(1, low=1)
    warmup_steps: int = setting(5_000, low=0)
    memory: Replay = Replay(capacity=1_000_000, batch_size=2 * 1024)

    def validate(self) -> None:
        super().validate()
        check_support(self)
        low, high = self.exploration_noise_min, self.exploration_noise
        if isinstance(low, float) and isinstance(high, float) and low > high:
            raise SettingError(f"FastTD3: exploration_noise_min {low:g} is above exploration_noise {high:g}")

    def policy(self, state: State, fraction: jax.Array, explore: bool = True) -> Policy:
        noise = jnp.asarray([self.exploration_noise_min, self.exploration_noise], jnp.float32)
        return super().policy(state, fraction, explore)._replace(noise=noise if explore else jnp.zeros_like(noise))

    def initial_carry(self, n: int) -> Carry:
        return Carry(jnp.zeros(n, jnp.float32), self.network_carry(n))

    def act(self, policy: Policy, observation: Any, carry: Carry, key: jax.Array) -> tuple[jax.Array, Carry, dict]:
        """As TD3, by the episode's standard deviation, which is drawn with its first step."""
        key_share, key = random.split(key)
        drawn = 1.0 - random.uniform(key_share, carry.share.shape)
        share = jnp.where(carry.share == 0, drawn, carry.share)
        low, high = policy.noise
        action, after = super().greedy(policy, observation, carry.network)
        noise = random.normal(key, action.shape) * jnp.expand_dims(low + share * (high - low), range(1, action.ndim))
        return jnp.clip(action + noise, -1.0, 1.0), Carry(share, after), {"carry": carry.network}

    def greedy(self, policy: Policy, observation: Any, carry: Any) -> tuple[jax.Array, Any]:
        action, after = super().greedy(policy, observation, carry.network if carry else ())
        return action, carry._replace(network=after) if carry else ()

    @property
    def support(self) -> jax.Array:
        """The returns [atoms] that probabilities are of."""
        return evenly_spaced(self.atoms, self.v_min, self.v_max)

    @property
    def outputs_of_critics(self) -> int:
        return self.atoms

    def q(self, outputs: jax.Array) -> jax.Array:
        """The means [critics, B] of the distributions."""
        return jax.nn.softmax(outputs) @ self.support

    def backed_up(self, step: NStep, outputs: jax.Array) -> jax.Array:
        """The distribution [B, atoms] of r + gamma Z'(s', a'), where Z' is of the critic with the least mean."""
        least = self.q(outputs).argmin(0)
        believed = jnp.take_along_axis(jax.nn.softmax(outputs), least[None, :, None], axis=0)[0]
        values = step.reward[:, None] + step.discount[:, None] * self.support[None]
        return projected(believed, values, self.support)

    def errors(self, outputs: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The sum of the critics' cross-entropies, and the mean of their divergences from the target, per sample."""
        loss, divergence = cross_entropy(outputs, target[None])
        return loss.sum(0), divergence.mean(0)

    def climbed(self, critics: Any, carry: Any) -> tuple[Any, Any]:
        """All of them, with what they carry."""
        return critics, carry
