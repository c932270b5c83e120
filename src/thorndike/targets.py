"""What values and policies are taught: returns and advantages, one formula each.

Three facts make every formula the same: a sum over time stops where `terminated | truncated`; what comes after is
estimated from `next_observation`, the true successor before any reset; and a termination multiplies that estimate
by zero. A step that is both is a termination. The end of a rollout is treated like a truncation.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from thorndike.core import Transition


class NStep(NamedTuple):
    """What the first step of each window led to; leaves are [B, ...], or [T - n + 1, B, ...] of several steps."""

    observation: Any
    action: Any
    reward: jax.Array  # discounted sum up to the window's or the episode's end
    discount: jax.Array  # of the value of `next_observation`: gamma^k, and 0 after a termination
    next_observation: Any  # k steps later, where the sum ended


def n_step(window: Transition, gamma: Any, n: int | None = None) -> NStep:
    """The n-step return of windows [n, B]: r_0 + gamma r_1 + ... + gamma^(k-1) r_(k-1), then gamma^k V(s_k).

    k is n, or fewer where an episode ends inside the window (Sutton and Barto, 2018, equation 7.1). Computed from
    the back: R_t = r_t + gamma R_(t+1), starting anew at every end of an episode. With an `n`, windows are [T, B] and
    the returns those of all steps that n steps follow from, [T - n + 1, B].
    """
    if n is None:
        return jax.tree.map(lambda x: x[0], n_step(window, gamma, window.reward.shape[0]))
    steps = window.reward.shape[0] - n + 1
    step = _rows(window, n - 1, steps)
    reward, discount, following = step.reward, gamma * (1.0 - step.terminated), step.next_observation
    for t in reversed(range(n - 1)):
        step = _rows(window, t, steps)
        done = step.terminated | step.truncated
        reward = step.reward + gamma * jnp.where(done, 0.0, reward)
        discount = gamma * jnp.where(done, 1.0 - step.terminated, discount)
        following = jax.tree.map(partial(_where, done), step.next_observation, following)
    return NStep(step.observation, step.action, reward, discount, following)


def signed_hyperbolic(x: jax.Array, epsilon: float = 1e-3) -> jax.Array:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x: values of any size in a small range (Pohlen et al., 2018).

    R2D2 (Kapturowski et al., 2019) learns h(Q) with the targets h(r + gamma^n h^-1(Q')).
    """
    return x / (jnp.sqrt(jnp.abs(x) + 1) + 1) + epsilon * x  # without a difference of nearly equal numbers


def signed_parabolic(x: jax.Array, epsilon: float = 1e-3) -> jax.Array:
    """The inverse of `signed_hyperbolic`: sign(x) (((sqrt(1 + 4 epsilon (|x| + 1 + epsilon)) - 1) / 2 epsilon)^2 - 1).

    Computed by way of the root r = (sqrt(...) - 1) / 2 epsilon, without differences of nearly equal numbers.
    """
    above = jnp.abs(x) + 1 + epsilon
    root = 2 * above / (jnp.sqrt(1 + 4 * epsilon * above) + 1)
    return x * (root + 1) / (1 + epsilon * (root + 1))


def discounted_returns(reward, terminated, truncated, bootstrap, gamma) -> jax.Array:
    """The return of every step [T, N]: G_t = r_t + gamma G_(t+1), with `bootstrap` in place of G where a sum stops.

    `bootstrap` [T, N] holds the values of `next_observation` (zeros where there is no estimate); it counts at
    truncations and in the last row, never after a termination.
    """
    return lambda_returns(bootstrap, reward, terminated, truncated, gamma, 1.0)


def lambda_returns(next_values, reward, terminated, truncated, gamma, gae_lambda) -> jax.Array:
    """The lambda-return of every step [T, N], with `next_values` [T, N] the values of `next_observation`.

    G_t = r_t + gamma ((1 - lambda) V(s_(t+1)) + lambda G_(t+1)) (Sutton and Barto, 2018, equation 12.2 made
    recursive): lambda 0 is the one-step target, lambda 1 the Monte Carlo return.
    """

    def back(later, step):
        next_value, reward, terminated, done = step
        later = jnp.where(done, next_value, (1 - gae_lambda) * next_value + gae_lambda * later)
        value = reward + gamma * (1.0 - terminated) * later
        return value, value

    steps = (next_values, reward, terminated, terminated | truncated)
    return lax.scan(back, next_values[-1], steps, reverse=True)[1]


def generalized_advantages(values, next_values, reward, terminated, truncated, gamma, gae_lambda) -> jax.Array:
    """Generalised advantage estimates of every step [T, N] (Schulman et al., 2016, equation 16).

    A_t = delta_t + gamma lambda A_(t+1), with delta_t = r_t + gamma V(s_(t+1)) - V(s_t). `values` and `next_values`
    [T, N] are of `observation` and `next_observation`. Adding `values` gives the lambda-returns, which are V's targets.
    """
    delta = reward + gamma * (1.0 - terminated) * next_values - values

    def back(advantage, step):
        delta, done = step
        advantage = delta + gamma * gae_lambda * jnp.where(done, 0.0, advantage)
        return advantage, advantage

    return lax.scan(back, jnp.zeros_like(delta[0]), (delta, terminated | truncated), reverse=True)[1]


def flat(x: jax.Array) -> jax.Array:
    """Steps [T, N, ...] as samples [T * N, ...]."""
    return x.reshape(-1, *x.shape[2:])


def _rows(window: Transition, first: int, count: int) -> Transition:
    """So many steps of a window; extras stay behind, some of them have no time axis."""
    return jax.tree.map(lambda x: x[first : first + count], window._replace(extras={}))


def _where(flag: jax.Array, here: jax.Array, there: jax.Array) -> jax.Array:
    """`jnp.where` for a flag [B] and values [B, ...]."""
    return jnp.where(flag.reshape(flag.shape + (1,) * (here.ndim - flag.ndim)), here, there)
