"""Twins of Gymnasium's classic control: the same physics, flags and rewards, compiled.

Each follows the source in `gymnasium.envs.classic_control` (1.4) operation by operation, so under x64 the two agree in
every flag. In float32 the comparisons are made to agree as well: see `not_above`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import random


def not_above(limit: float, dtype: Any) -> Any:
    """The largest number of `dtype` that is not above `limit`.

    A float32 exceeds this number exactly if it exceeds `limit` itself, to which Gymnasium compares in float64. The
    nearest float32 may lie above `limit` and would then pass for being within it.
    """
    nearest = np.dtype(dtype).type(limit)
    return nearest if float(nearest) <= limit else np.nextafter(nearest, nearest.dtype.type(-np.inf))


@dataclass(frozen=True)
class CartPole:
    """CartPole-v1: push a cart left or right so that the pole on it stays up. State: x, x_dot, theta, theta_dot."""

    sutton_barto_reward: bool = False  # 0 a step and -1 for falling, instead of 1 a step
    max_steps: int | None = 500

    gravity: ClassVar = 9.8
    mass_pole: ClassVar = 0.1
    total_mass: ClassVar = 0.1 + 1.0
    length: ClassVar = 0.5  # half the pole's
    force: ClassVar = 10.0
    tau: ClassVar = 0.02  # seconds a step
    x_limit: ClassVar = 2.4
    theta_limit: ClassVar = 12 * 2 * math.pi / 360

    observation_space: ClassVar = spaces.Box(
        -np.array([2 * x_limit, np.inf, 2 * theta_limit, np.inf], np.float32),
        np.array([2 * x_limit, np.inf, 2 * theta_limit, np.inf], np.float32),
    )
    action_space: ClassVar = spaces.Discrete(2)

    def initial(self, key: jax.Array) -> jax.Array:
        return random.uniform(key, (4,), minval=-0.05, maxval=0.05)

    def observe(self, state: jax.Array) -> jax.Array:
        return state

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        x, x_dot, theta, theta_dot = state
        force = jnp.where(action == 1, self.force, -self.force)
        cosine, sine = jnp.cos(theta), jnp.sin(theta)
        pole_moment = self.mass_pole * self.length
        push = (force + pole_moment * jnp.square(theta_dot) * sine) / self.total_mass
        theta_acceleration = (self.gravity * sine - cosine * push) / (
            self.length * (4.0 / 3.0 - self.mass_pole * jnp.square(cosine) / self.total_mass)
        )
        x_acceleration = push - pole_moment * theta_acceleration * cosine / self.total_mass
        x, x_dot = x + self.tau * x_dot, x_dot + self.tau * x_acceleration
        theta, theta_dot = theta + self.tau * theta_dot, theta_dot + self.tau * theta_acceleration
        outside = jnp.abs(x) > not_above(self.x_limit, x.dtype)
        fallen = jnp.abs(theta) > not_above(self.theta_limit, x.dtype)
        terminated = outside | fallen
        reward = jnp.where(terminated, -1.0, 0.0) if self.sutton_barto_reward else jnp.ones(())
        return jnp.stack([x, x_dot, theta, theta_dot]), reward, terminated


@dataclass(frozen=True)
class MountainCar:
    """MountainCar-v0: swing a weak car out of a valley; -1 a step until the goal. State: position, velocity."""

    goal_velocity: float = 0.0
    max_steps: int | None = 200

    low: ClassVar = -1.2  # an inelastic wall
    high: ClassVar = 0.6
    max_speed: ClassVar = 0.07
    goal: ClassVar = 0.5

    observation_space: ClassVar = spaces.Box(
        np.array([low, -max_speed], np.float32), np.array([high, max_speed], np.float32)
    )
    action_space: ClassVar = spaces.Discrete(3)

    def initial(self, key: jax.Array) -> jax.Array:
        position = random.uniform(key, minval=-0.6, maxval=-0.4)
        return jnp.stack([position, jnp.zeros_like(position)])

    def observe(self, state: jax.Array) -> jax.Array:
        return state

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        position, velocity = state
        velocity = velocity + ((action - 1) * 0.001 + jnp.cos(3 * position) * -0.0025)
        state = _roll(position, velocity, self.low, self.high, self.max_speed)
        return state, jnp.full((), -1.0), _arrived(state, self.goal, self.goal_velocity)


@dataclass(frozen=True)
class MountainCarContinuous:
    """MountainCarContinuous-v0: 100 for the goal, less a tenth of the force squared. State: position, velocity."""

    goal_velocity: float = 0.0
    max_steps: int | None = 999

    low: ClassVar = -1.2  # an inelastic wall
    high: ClassVar = 0.6
    max_speed: ClassVar = 0.07
    goal: ClassVar = 0.45

    observation_space: ClassVar = spaces.Box(
        np.array([low, -max_speed], np.float32), np.array([high, max_speed], np.float32)
    )
    action_space: ClassVar = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def initial(self, key: jax.Array) -> jax.Array:
        position = random.uniform(key, minval=-0.6, maxval=-0.4)
        return jnp.stack([position, jnp.zeros_like(position)])

    def observe(self, state: jax.Array) -> jax.Array:
        return state

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        position, velocity = state
        force = jnp.clip(action[0], -1.0, 1.0)
        velocity = velocity + (force * 0.0015 - 0.0025 * jnp.cos(3 * position))
        state = _roll(position, velocity, self.low, self.high, self.max_speed)
        terminated = _arrived(state, self.goal, self.goal_velocity)
        # Of the action as given: Gymnasium clips the force, but not what it costs.
        return state, jnp.where(terminated, 100.0, 0.0) - jnp.square(action[0]) * 0.1, terminated


def _roll(position: jax.Array, velocity: jax.Array, low: float, high: float, max_speed: float) -> jax.Array:
    """A mountain car's next state: limited in speed and position, and stopped dead by the wall on the left."""
    velocity = jnp.clip(velocity, -max_speed, max_speed)
    position = jnp.clip(position + velocity, low, high)
    stopped = (position == low) & (velocity < 0)
    return jnp.stack([position, jnp.where(stopped, 0.0, velocity)])


def _arrived(state: jax.Array, goal: float, goal_velocity: float) -> jax.Array:
    return (state[0] >= not_above(goal, state.dtype)) & (state[1] >= goal_velocity)


@dataclass(frozen=True)
class Pendulum:
    """Pendulum-v1: swing a pendulum up and hold it there. State: angle (0 is up, unwrapped), angular velocity."""

    g: float = 10.0
    max_steps: int | None = 200

    max_speed: ClassVar = 8.0
    max_torque: ClassVar = 2.0
    dt: ClassVar = 0.05

    observation_space: ClassVar = spaces.Box(
        -np.array([1, 1, max_speed], np.float32), np.array([1, 1, max_speed], np.float32)
    )
    action_space: ClassVar = spaces.Box(-max_torque, max_torque, (1,), np.float32)

    def initial(self, key: jax.Array) -> jax.Array:
        high = jnp.array([math.pi, 1.0])
        return random.uniform(key, (2,), minval=-high, maxval=high)

    def observe(self, state: jax.Array) -> jax.Array:
        theta, theta_dot = state
        return jnp.stack([jnp.cos(theta), jnp.sin(theta), theta_dot])

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        theta, theta_dot = state
        torque = jnp.clip(action[0], -self.max_torque, self.max_torque)
        angle = (theta + math.pi) % (2 * math.pi) - math.pi
        cost = angle**2 + 0.1 * theta_dot**2 + 0.001 * torque**2
        theta_dot = theta_dot + (3 * self.g / 2 * jnp.sin(theta) + 3.0 * torque) * self.dt
        theta_dot = jnp.clip(theta_dot, -self.max_speed, self.max_speed)
        return jnp.stack([theta + theta_dot * self.dt, theta_dot]), -cost, jnp.zeros((), bool)


@dataclass(frozen=True)
class Acrobot:
    """Acrobot-v1: swing the tip of two links above a line; -1 a step until then. State: two angles, two velocities.

    The dynamics are those of Sutton and Barto's book, integrated by one Runge-Kutta step of fourth order.
    """

    max_steps: int | None = 500

    dt: ClassVar = 0.2
    gravity: ClassVar = 9.8
    mass: ClassVar = 1.0  # of either link, as are its length and moment of inertia
    centre: ClassVar = 0.5  # of a link's mass, along it
    max_speeds: ClassVar = (4 * math.pi, 9 * math.pi)

    observation_space: ClassVar = spaces.Box(
        -np.array([1, 1, 1, 1, *max_speeds], np.float32), np.array([1, 1, 1, 1, *max_speeds], np.float32)
    )
    action_space: ClassVar = spaces.Discrete(3)

    def initial(self, key: jax.Array) -> jax.Array:
        return random.uniform(key, (4,), minval=-0.1, maxval=0.1)

    def observe(self, state: jax.Array) -> jax.Array:
        theta1, theta2, velocity1, velocity2 = state
        return jnp.stack([jnp.cos(theta1), jnp.sin(theta1), jnp.cos(theta2), jnp.sin(theta2), velocity1, velocity2])

    def transition(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        torque = (action - 1).astype(state.dtype)
        k1 = self._derivative(state, torque)
        k2 = self._derivative(state + self.dt / 2 * k1, torque)
        k3 = self._derivative(state + self.dt / 2 * k2, torque)
        k4 = self._derivative(state + self.dt * k3, torque)
        theta1, theta2, velocity1, velocity2 = state + self.dt / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        theta1, theta2 = _wrapped(theta1), _wrapped(theta2)
        velocity1 = jnp.clip(velocity1, -self.max_speeds[0], self.max_speeds[0])
        velocity2 = jnp.clip(velocity2, -self.max_speeds[1], self.max_speeds[1])
        terminated = -jnp.cos(theta1) - jnp.cos(theta2 + theta1) > 1.0
        reward = jnp.where(terminated, 0.0, -1.0)
        return jnp.stack([theta1, theta2, velocity1, velocity2]), reward, terminated

    def _derivative(self, state: jax.Array, torque: jax.Array) -> jax.Array:
        """The equations of motion; terms that are 1 (masses, lengths, moments of inertia) are left out."""
        theta1, theta2, velocity1, velocity2 = state
        centre, gravity = self.centre, self.gravity
        cosine, sine = jnp.cos(theta2), jnp.sin(theta2)
        d1 = centre**2 + (1 + centre**2 + 2 * centre * cosine) + 1 + 1
        d2 = (centre**2 + centre * cosine) + 1
        phi2 = centre * gravity * jnp.cos(theta1 + theta2 - math.pi / 2)
        phi1 = (
            -centre * velocity2**2 * sine
            - 2 * centre * velocity2 * velocity1 * sine
            + (centre + 1) * gravity * jnp.cos(theta1 - math.pi / 2)
            + phi2
        )
        acceleration2 = (torque + d2 / d1 * phi1 - centre * velocity1**2 * sine - phi2) / (centre**2 + 1 - d2**2 / d1)
        acceleration1 = -(d2 * acceleration2 + phi1) / d1
        return jnp.stack([velocity1, velocity2, acceleration1, acceleration2])


def _wrapped(angle: jax.Array) -> jax.Array:
    """The angle in [-pi, pi], less as many whole turns as it takes (Gymnasium takes them off one by one)."""
    turns = jnp.ceil((jnp.abs(angle) - math.pi) / (2 * math.pi))
    return angle - jnp.sign(angle) * turns * (2 * math.pi)


TWINS: dict[str, type] = {
    "Acrobot-v1": Acrobot,
    "CartPole-v1": CartPole,
    "MountainCar-v0": MountainCar,
    "MountainCarContinuous-v0": MountainCarContinuous,
    "Pendulum-v1": Pendulum,
}
