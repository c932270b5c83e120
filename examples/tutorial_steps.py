"""From the usual Q-learning tutorial to a program that learns: seven programs, each with one mistake less, and ours.

    python examples/tutorial_steps.py                       all of them, five seeds each: ten minutes or so
    python examples/tutorial_steps.py --programs 1 4        the first and the fourth
    python examples/tutorial_steps.py --each                the seventh with one mistake made again, each in turn
    python examples/tutorial_steps.py --plot curves.svg     the curves too (pip install matplotlib)

What each mistake does: docs/q_learning.md. They are all in `loss` and `play`, marked by their numbers.
"""

import argparse
import itertools
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax

import thorndike as td

ENVIRONMENT, STEPS, BIN = "CartPole-v1", 30_000, 1_000
GAMMA, BATCH, TARGET_PERIOD = 0.99, 64, 100
OPTIMIZER = optax.adam(1e-3)
MENDED = {
    2: "it explores",
    3: "it learns of the action taken",
    4: "nothing comes after an end",
    5: "it replays what it has seen",
    6: "it has a target network",
    7: "a time limit is no end",
}


def network(weights, x):
    """Two hidden layers: observations [B, 4] to action values [B, 2]."""
    for w, b in weights[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = weights[-1]
    return x @ w + b


def first_weights(seed, sizes=(4, 64, 64, 2)):
    generator = np.random.default_rng(seed)
    layers = itertools.pairwise(sizes)
    return [(generator.uniform(-1, 1, (n, m)) / np.sqrt(n), np.zeros(m)) for n, m in layers]


def loss(weights, target_weights, batch, mended):
    """How far Q(s, a) is from the reward and what the next state is worth, over a batch of steps."""
    observation, action, reward, next_observation, end = batch
    q = network(weights, observation)
    next_q = network(target_weights if 6 in mended else weights, next_observation).max(1)
    if 4 in mended:
        next_q = next_q * (1 - end)
    target = jax.lax.stop_gradient(reward + GAMMA * next_q)
    if 3 in mended:
        return jnp.mean((q[jnp.arange(len(action)), action] - target) ** 2)
    return jnp.mean((q[action] - target[:, None]) ** 2)  # actions taken for row numbers: all values learn


@partial(jax.jit, static_argnames="mended")
def improve(weights, target_weights, moments, batch, mended):
    gradient = jax.grad(loss)(weights, target_weights, batch, mended)
    change, moments = OPTIMIZER.update(gradient, moments)
    return optax.apply_updates(weights, change), moments


values = jax.jit(network)


def play(mended, seed):
    """The steps at which episodes ended, and their returns."""
    environment, generator = gymnasium.make(ENVIRONMENT), np.random.default_rng(seed)
    weights = target_weights = jax.tree.map(jnp.float32, first_weights(seed))
    moments = OPTIMIZER.init(weights)
    seen, acted, rewarded = np.zeros((STEPS, 4), "f4"), np.zeros(STEPS, "i4"), np.zeros(STEPS, "f4")
    followed, ended = np.zeros((STEPS, 4), "f4"), np.zeros(STEPS, "f4")
    ends, returns, total = [], [], 0.0
    observation, _ = environment.reset(seed=seed)
    for step in range(STEPS):
        epsilon = max(0.02, 1 - step / 6_000) if 2 in mended else 0.0
        explore = generator.random() < epsilon
        action = int(generator.integers(2) if explore else values(weights, observation[None]).argmax())
        next_observation, reward, terminated, truncated, _ = environment.step(action)
        seen[step], acted[step], rewarded[step], followed[step] = observation, action, reward, next_observation
        ended[step] = terminated if 7 in mended else terminated or truncated
        rows = generator.integers(0, step + 1, BATCH) if 5 in mended else [step]  # else this step alone
        batch = seen[rows], acted[rows], rewarded[rows], followed[rows], ended[rows]
        weights, moments = improve(weights, target_weights, moments, batch, mended)
        if step % TARGET_PERIOD == 0:
            target_weights = weights
        observation, total = next_observation, total + float(reward)
        if terminated or truncated:
            ends.append(step)
            returns.append(total)
            observation, total = environment.reset()[0], 0.0
    return ends, returns


def ours(seed):
    """The same from thorndike's DQN, on the same environment."""
    run = td.train(td.DQN(), f"gymnasium:{ENVIRONMENT}", STEPS, seed=seed, run_dir=None, quiet=True, evaluate_every=0)
    return run.metrics["steps"], run.metrics["return_mean"]


def curve(ends, returns):
    """The mean return of the episodes that ended in each thousand steps; where none did, of those before."""
    ends, returns, found = np.asarray(ends), np.asarray(returns), 0.0
    points = []
    for start in range(0, STEPS, BIN):
        inside = returns[(ends >= start) & (ends < start + BIN) & np.isfinite(returns)]
        found = inside.mean() if len(inside) else found
        points.append(found)
    return points


def plot(path, curves):
    from matplotlib import pyplot

    steps = np.arange(BIN, STEPS + 1, BIN)
    figure, axes = pyplot.subplots(2, (len(curves) + 1) // 2, figsize=(12, 5), sharex=True, sharey=True, squeeze=False)
    for (name, found), axis in zip(curves.items(), axes.ravel(), strict=False):
        axis.plot(steps, np.transpose(found), color="#9bb8d3", linewidth=0.8)
        axis.plot(steps, np.mean(found, 0), color="#1f4e79", linewidth=2)
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    figure.supxlabel(f"steps in {ENVIRONMENT}")
    figure.supylabel("return of an episode (at most 500)")
    figure.tight_layout()
    figure.savefig(path)


def programs(arguments):
    """By name, what each program has mended; None is thorndike's own."""
    if arguments.each:
        return {f"without: {MENDED[k]}": frozenset(MENDED) - {k} for k in MENDED}
    named = {f"{k} {MENDED.get(k, 'the tutorial')}": frozenset(range(2, k + 1)) for k in range(1, 8)} | {
        "8 thorndike": None
    }
    return {name: mended for name, mended in named.items() if int(name[0]) in arguments.programs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, nargs="+", choices=range(1, 9), default=range(1, 9))
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--plot", metavar="FILE")
    arguments = parser.parse_args()
    curves = {}
    print(f"return of an episode over the last {STEPS // 3:,} of {STEPS:,} steps, mean and spread of the seeds")
    for name, mended in programs(arguments).items():
        seeds = range(arguments.seeds)
        curves[name] = [curve(*(ours(seed) if mended is None else play(mended, seed))) for seed in seeds]
        last = np.array(curves[name])[:, -STEPS // BIN // 3 :].mean(1)
        spread = last.std(ddof=min(1, len(last) - 1))
        print(f"{name:42}{last.mean():6.1f} ± {spread:5.1f}   {last.round(1).tolist()}", flush=True)
    if arguments.plot:
        plot(arguments.plot, curves)


if __name__ == "__main__":
    main()
