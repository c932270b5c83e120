"""Acting where the environment is compiled too: one scan, and no host."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import random

from thorndike import masks
from thorndike.core import Actor, Algorithm, Environment, PyTree, Space, Transition
from thorndike.loops import repeat
from thorndike.sequences import afresh
from thorndike.spaces import uniform_action


def unroll(
    algorithm: Algorithm, environment: Environment, policy: PyTree, actor: Actor, key: jax.Array,
    length: int, uniform: bool = False,
) -> tuple[Actor, Transition]:  # fmt: skip
    """Act for `length` steps in every copy: where that stopped, and the trajectory [length, N]."""

    def step(actor, t):
        step_key = random.fold_in(key, t)
        action, carry, extras = choose(algorithm, environment.action_space, policy, actor, step_key, uniform)
        env_state, outcome = environment.step(actor.env_state, action, random.fold_in(step_key, 1))
        transition = Transition(
            actor.observation, action, outcome.reward, outcome.terminated, outcome.truncated,
            outcome.next_observation, extras,
        )  # fmt: skip
        return Actor(env_state, outcome.observation, carry, outcome.terminated | outcome.truncated), transition

    return repeat(step, actor, jnp.arange(length), length)


def choose(
    algorithm: Algorithm, action_space: Space, policy: PyTree, actor: Actor, step_key: jax.Array, uniform: bool
) -> tuple[PyTree, PyTree, dict]:
    """The actions of one step, the recurrent state starting afresh wherever an episode has just ended.

    The key of a step has two children: 0 chooses the action, 1 moves the environment.
    """
    act_key = random.fold_in(step_key, 0)
    action, carry, extras = algorithm.act(policy, actor.observation, afresh(actor.carry, actor.done), act_key)
    if uniform:
        mask = masks.of(actor.observation)
        action = uniform_action(action_space, random.fold_in(step_key, 2), actor.done.shape[0], mask)
    return action, carry, extras
