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
import numpy as np
import optax
from jax import lax

from thorndike.core import Transition
from thorndike.errors import SettingError
from thorndike.sequences import Unrolled


class NStep(NamedTuple):
    """What each of several steps in a row led to; leaves are [L, B, ...]."""

    observation: Any
    action: Any
    reward: jax.Array  # discounted sum up to the window's or the episode's end
    discount: jax.Array  # of the value of `next_observation`: gamma^k, and 0 after a termination
    next_observation: Any  # k steps later, where the sum ended
    next_carry: Any  # what networks see it with
    ended: jax.Array  # whether the episode ended with the very step
    carry: Any = ()  # [1, B, ...] what networks see the first step with


def n_step(window: Transition, gamma: Any, n: int, after: Any = (), later_reward: jax.Array | None = None) -> NStep:
    """The n-step returns r_0 + gamma r_1 + ... + gamma^(k-1) r_(k-1), then gamma^k V(s_k), in windows [T, B].

    They are those of all steps that n steps follow from, [T - n + 1, B]. k is n, or fewer where an episode ends before
    (Sutton and Barto, 2018, equation 7.1). Computed from the back: R_t = r_t + gamma R_(t+1), starting anew at every
    end of an episode.

    `after` is what networks carry after each step, [T, B, ...]; `later_reward` [T, B] stands for the rewards of all but
    a return's first step.
    """
    count = window.reward.shape[0] - n + 1
    later = window if later_reward is None else window._replace(reward=later_reward)

    def steps(t):
        """The t-th step of every return; what is carried stands where extras were, of which no return is made."""
        return jax.tree.map(lambda x: x[t : t + count], (later if t else window)._replace(extras=after))

    step = steps(n - 1)
    reward, discount = step.reward, gamma * (1.0 - step.terminated)
    following = step.next_observation, step.extras
    for t in reversed(range(n - 1)):
        step = steps(t)
        done = step.terminated | step.truncated
        reward = step.reward + gamma * jnp.where(done, 0.0, reward)
        discount = gamma * jnp.where(done, 1.0 - step.terminated, discount)
        following = jax.tree.map(partial(_where, done), (step.next_observation, step.extras), following)
    return NStep(step.observation, step.action, reward, discount, *following, step.terminated | step.truncated)


def recalled(steps: Transition, gamma: Any, memory: Any, seen: Unrolled, later_reward: Any = None) -> NStep:
    """What the windows of a Replay [T, B] teach: their `memory.sequence` steps after those that only warm up.

    `seen` has the carries of all the networks that learn from them, over the whole windows.
    """
    returns = n_step(steps, gamma, memory.window, seen.after, later_reward)
    learned = jax.tree.map(lambda x: x[memory.burn_in :], returns)
    return learned._replace(carry=jax.tree.map(lambda x: x[memory.burn_in : memory.burn_in + 1], seen.before))


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


def standardized(advantage: jax.Array) -> jax.Array:
    """Advantages of a minibatch [B] with mean 0 and standard deviation 1."""
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def v_trace(
    values, next_values, reward, terminated, truncated, log_ratio, gamma, gae_lambda, rho_bar, c_bar
) -> tuple[jax.Array, jax.Array]:
    """V-trace targets v_s of every step [T, N], and the advantages of the policy's gradient (Espeholt et al., 2018).

    v_s = V(x_s) + delta_s + gamma c_s (v_(s+1) - V(x_(s+1))) (remark 1), with delta_s = rho_s (r_s + gamma V(x_(s+1)) -
    V(x_s)), rho_s = min(rho_bar, pi / mu) and c_s = lambda min(c_bar, pi / mu) (remark 2). Advantages are rho_s (r_s +
    gamma v_(s+1) - V(x_s)) (section 4.2). `log_ratio` [T, N] is log pi(a|x) - log mu(a|x), of the policy that is
    learned and the one that acted. Where pi is mu, targets are lambda-returns.
    """
    ratio = jnp.exp(log_ratio)
    rho, c = jnp.minimum(rho_bar, ratio), gae_lambda * jnp.minimum(c_bar, ratio)
    going_on = gamma * (1.0 - terminated)

    def back(excess, step):
        value, next_value, reward, going_on, rho, c, done = step
        later = jnp.where(done, 0.0, excess)  # v - V of the next step
        excess = rho * (reward + going_on * next_value - value) + going_on * c * later
        return excess, (value + excess, rho * (reward + going_on * (next_value + later) - value))

    steps = (values, next_values, reward, going_on, rho, c, terminated | truncated)
    return lax.scan(back, jnp.zeros_like(values[0]), steps, reverse=True)[1]


def check_support(algorithm: Any) -> None:
    """Raise SettingError where the range of returns that an algorithm learns is none."""
    low, high = algorithm.v_min, algorithm.v_max
    if np.any(np.asarray(low) >= np.asarray(high)):
        raise SettingError(f"{type(algorithm).__name__}: v_min must be below v_max, got {low} and {high}")


def evenly_spaced(count: int, low: Any, high: Any) -> jax.Array:
    """The returns [count] from `low` to `high` that a categorical distribution of returns is over."""
    share = jnp.arange(count, dtype=jnp.float32) / (count - 1)
    return (1 - share) * low + share * high


def projected(probability: jax.Array, values: jax.Array, support: jax.Array) -> jax.Array:
    """A distribution over `values` [B, K] as one over evenly spaced atoms `support` [A].

    Bellemare et al. (2017), equation 7. The probability [B, K] of a value goes to the two atoms beside it, to the
    nearer one the more; beyond the ends it goes to the last one. So the mean stays, but for what lies beyond.
    """
    values = jnp.clip(values, support[0], support[-1])
    distance = jnp.abs(values[:, None] - support[None, :, None]) / (support[1] - support[0])  # [B, A, K]
    return (jnp.clip(1.0 - distance, 0.0, 1.0) * probability[:, None]).sum(-1)


def cross_entropy(logits: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of logits [..., A] against probabilities [..., A]: the cross-entropy, and the Kullback-Leibler divergence.

    Their gradients are the same; the divergence, which is 0 where the distributions are equal, says how wrong they are.
    """
    loss = -(target * jax.nn.log_softmax(logits)).sum(-1)
    divergence = lax.stop_gradient(loss) - jax.scipy.special.entr(target).sum(-1)
    return loss, jnp.maximum(divergence, 0.0)


def midpoints(count: int) -> jax.Array:
    """The levels [1, count] of `count` quantiles of equal probability (Dabney et al., 2018a, lemma 2)."""
    return (jnp.arange(count, dtype=jnp.float32)[None] + 0.5) / count


def quantile_huber(quantiles: jax.Array, tau: jax.Array, samples: jax.Array, kappa: Any) -> jax.Array:
    """The loss [B] of `quantiles` [B, N] at levels tau against samples [B, M] of what they are quantiles of.

    The sum over quantiles of the mean over samples of |tau - 1(u < 0)| L(u) / kappa, where L is Huber's loss and u a
    sample minus a quantile: equation 10 of Dabney et al. (2018a), "Distributional reinforcement learning with quantile
    regression", divided by kappa as in equation 3 of (2018b), which makes no difference at its usual 1.
    """
    error = samples[:, None] - quantiles[:, :, None]  # [B, N, M]
    asymmetry = jnp.abs(tau[:, :, None] - (error < 0))
    return (asymmetry * optax.huber_loss(error, delta=kappa) / kappa).mean(-1).sum(-1)


def _where(flag: jax.Array, here: jax.Array, there: jax.Array) -> jax.Array:
    """`jnp.where` for a flag [B] and values [B, ...]."""
    return jnp.where(flag.reshape(flag.shape + (1,) * (here.ndim - flag.ndim)), here, there)
