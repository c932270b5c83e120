"""A trained policy, ready to act: raw observations in, real actions out."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces as gym
from jax import random

from thorndike import masks, spaces
from thorndike.compilation import jit
from thorndike.errors import UnsuitableError
from thorndike.normalization import normalize
from thorndike.sequences import afresh, remembers, shapes_of_memory


class Normalized(eqx.Module):
    """A network behind the normalisation of the observations that it was trained on."""

    network: Any
    moments: Any

    def __call__(self, observation: Any, *carry: Any) -> Any:
        return self.network(normalize(self.moments, observation), *carry)


class Agent:
    """What one seed has learned. Normalisation, exploration and the action's scale are inside."""

    def __init__(self, algorithm: Any, state: Any, observation_space: Any, action_space: Any, fraction: float = 1.0):
        """`fraction` of the training done says how much `act(explore=True)` explores."""
        self.algorithm = algorithm
        self.state = state
        self.observation_space = observation_space
        self.action_space = action_space
        self.fraction = fraction
        self._policies: dict[bool, Any] = {}
        self._calls = 0
        self._to_real = spaces.to_real(action_space, np)

    def act(self, observation: Any, explore: bool = False) -> Any:
        """The action for one observation of the space, or actions [B, ...] for a batch [B, ...] of them.

        The best action, or with `explore` one as in training. ValueError where the observation is not of the space,
        UnsuitableError where the agent has a memory: then a `player` acts.
        """
        if remembers(shapes_of_memory(self.algorithm)):
            raise UnsuitableError("this agent has a memory: player = agent.player(), one for each episode, acts for it")
        return self.player(explore).act(observation)

    def player(self, explore: bool = False) -> Player:
        """The agent at the beginning of an episode, or of several: it remembers them as far as they have gone."""
        return Player(self, explore)

    @property
    def network(self) -> Any:
        """From batches [B, ...] of raw observations to the outputs that the agent chooses its actions by.

        They are action values (with distributions: logits of atoms, quantiles, or IQN's features), logits, means, or
        (SAC) means and log_stds before tanh. This is the trained network itself, your own object if you handed one in,
        unless more has to be done than it does: where observations are normalised it is a `Normalized`, and with PPO's
        shared torso a `FirstOutputs`, each around their `network`, whose `original()` is your own object again. With a
        memory it takes (observation, carry), and gives the next carry too.
        """
        network = self.state.network
        if self.moments:
            return Normalized(network, self.moments)
        return network.original() if hasattr(network, "original") else network

    @property
    def moments(self) -> Any:
        """What observations are normalised by; () where they are not."""
        return getattr(getattr(self.state, "statistics", ()), "observations", ())

    def export(self, path: str | os.PathLike) -> Path:
        """Write the greedy policy for other programs: .onnx, .stablehlo (for JAX) or .savedmodel (for TensorFlow).

        It takes batches of raw observations, of any size and in at most 32 bits: inputs are named after the parts of
        the observation ("image", "camera_0"; "observation" where it has none), the output is "action". contract.json
        beside it has shapes, dtypes, ranges, versions and digests. Before the file gets its name it is held against
        this agent on 1,000 observations; what was there is replaced only then. MissingExtraError where a package is
        missing, UnsuitableError where the format has nothing for the policy, RunError where contract.json is another's.
        """
        from thorndike.runs.export import export

        cpu = jax.devices("cpu")[0]  # accelerators multiply in fewer digits, unless told otherwise
        with jax.default_device(cpu):
            spaces = self.observation_space, self.action_space
            return export(Agent(self.algorithm, jax.device_put(self.state, cpu), *spaces, self.fraction), path)

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the policy as a folder that `Agent.load` reads: arrays and JSON with digests, no code and no memory.

        An agent that is there already is replaced once the new one is whole. RunError where anything else is there.
        """
        from thorndike.runs import agent_folders

        return agent_folders.write(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike, network: Any = None, **recipes: Any) -> Agent:
        """The agent that `save` wrote. Safe on a folder from a stranger: no code runs.

        `network` (and `critic_network`, ...) is handed in again where it was your own. `state` holds what acting needs,
        and None for the rest. RunError or a kind of it where the folder is none of ours.
        """
        from thorndike.interface.words import handed_in
        from thorndike.runs import agent_folders

        return cls(*agent_folders.read(folder, handed_in(None, network, recipes)))

    def policy(self, explore: bool) -> Any:
        """All that acting needs, as one pytree."""
        if explore not in self._policies:
            self._policies[explore] = _policy(self.algorithm, self.state, jnp.float32(self.fraction), explore)
        return self._policies[explore]


class Player:
    """An agent in the midst of an episode, or of several side by side; `carry` is what it remembers of them."""

    def __init__(self, agent: Agent, explore: bool = False) -> None:
        self.agent, self.explore = agent, explore
        self.carry: Any = None  # before the first step
        self._episodes = 0

    def act(self, observation: Any, begins: Any = False) -> Any:
        """The action for the next observation of the episode, or actions [B, ...] for those of B episodes.

        `begins` says whether (or which, [B]) episodes begin anew with it. ValueError where the observation is not of
        the space, or of another number of episodes than before.
        """
        agent = self.agent
        axes = leading_axes(agent.observation_space, observation)
        if axes not in (0, 1):
            given = spaces.outline(observation)
            raise ValueError(f"neither one observation of {agent.observation_space} nor a batch of them: {given}")
        rows = [observation] if axes == 0 else rows_of(observation)
        checked = [spaces.plain(agent.observation_space, row) for row in rows]
        batch = jax.tree.map(lambda *leaves: np.stack(leaves), *checked)
        if masks.nothing_legal(batch, agent.action_space).any():
            raise ValueError(f"no action is legal: {masks.MASK} is 0 everywhere, as after the end of an episode")
        if self.carry is None:
            self.carry, self._episodes = agent.algorithm.initial_carry(len(rows)), len(rows)
        if len(rows) != self._episodes:
            one = "one episode" if self._episodes == 1 else f"{self._episodes} episodes"
            raise ValueError(f"this player is in {one}, got observations of {len(rows)}: make another player for those")
        begins = np.asarray(begins)
        if begins.shape not in ((), (len(rows),)) or begins.dtype != bool:
            given = f"{begins.dtype}{list(begins.shape)}"
            raise ValueError(f"begins takes True or False, or one for each of {len(rows)} episodes, got {given}")
        agent._calls += 1
        policy, call = agent.policy(self.explore), np.uint32(agent._calls)
        begins = np.broadcast_to(begins, len(rows))
        action, self.carry = _act(agent.algorithm, policy, batch, self.carry, begins, call)
        action = agent._to_real(np.asarray(action))
        return action if axes == 1 else action[0]


@partial(jit, static_argnames="explore")
def _policy(algorithm: Any, state: Any, fraction: jax.Array, explore: bool) -> Any:
    return algorithm.policy(state, fraction, explore)


@jit
def _act(algorithm: Any, policy: Any, observation: Any, carry: Any, begins: jax.Array, call: jax.Array) -> tuple:
    """Actions and the next carry, what is carried starting afresh in the episodes that begin."""
    key = random.fold_in(random.key(0), call)
    return algorithm.act(policy, observation, afresh(carry, begins), key)[:2]


def leading_axes(space: Any, observation: Any) -> int:
    """How many axes stand before those of the space: 0 is one observation, 1 a batch; -1 where they do not fit."""
    if isinstance(space, gym.Dict):
        if not isinstance(observation, dict):
            return 1 if isinstance(observation, (list, tuple)) else -1
        name = next(iter(space.spaces))
        return leading_axes(space[name], observation[name]) if name in observation else 0
    if isinstance(space, gym.Tuple):
        return leading_axes(space[0], observation[0]) if isinstance(observation, tuple) and len(observation) else -1
    return np.ndim(observation) - len(space.shape or ())


def rows_of(batch: Any) -> list:
    """A batch as its observations, one by one."""
    if isinstance(batch, dict):
        columns = {name: rows_of(value) for name, value in batch.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(batch, tuple):
        return list(zip(*map(rows_of, batch), strict=True))
    return list(batch)
