"""One network in every framework: the same DQN on CartPole-v1 learns with each, and how fast beside our own MLP.

    make networks                            all that are installed, seeds 0 to 2, ten pairs; an hour
    make networks ARGS="--only Keras"        some of them, which writes nothing

Run by the Python of .venv-frameworks. Writes benchmarks/results/networks.{json,md}. Rates are compared in pairs of runs
one right after the other, ours and theirs by turns first, each in a process of its own; what counts is the median of
their ratios. Keras models of another backend are measured in processes where Keras has that backend.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import reporting

INPUTS, SIZES, OUTPUTS = 4, (32, 32), 2
STEPS = 100_000
GATE, SPEED = 475, 0.85
OURS = "our own MLP"


def own_mlp() -> Any:
    import thorndike as td

    return td.MLP(SIZES, activation="relu", initialization="default")


def pair() -> Any:
    import jax
    import jax.numpy as jnp

    def init(key, observation, outputs):
        sizes = (observation.shape[1], *SIZES, outputs)
        keys = jax.random.split(key, len(sizes) - 1)
        glorot = jax.nn.initializers.glorot_uniform()
        layers = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return [(glorot(k, (m, n), jnp.float32), jnp.zeros((1, n), jnp.float32)) for k, m, n in layers]

    def apply(parameters, x):
        *hidden, (weight, bias) = parameters
        for w, b in hidden:
            x = jax.nn.relu(x @ w + b)
        return x @ weight + bias

    return init, apply


def equinox_mlp() -> Any:
    import equinox as eqx
    import jax

    key = jax.random.key(np.random.randint(2**31))
    return eqx.nn.MLP(INPUTS, OUTPUTS, SIZES[0], len(SIZES), key=key)


def nnx_mlp() -> Any:
    from flax import nnx

    rngs = nnx.Rngs(np.random.randint(2**31))
    layers: list[Any] = []
    for inputs, outputs in zip((INPUTS, *SIZES[:-1]), SIZES, strict=True):
        layers += [nnx.Linear(inputs, outputs, rngs=rngs), nnx.relu]
    return nnx.Sequential(*layers, nnx.Linear(SIZES[-1], OUTPUTS, rngs=rngs))


def linen_mlp() -> Any:
    from flax import linen

    hidden = [layer for size in SIZES for layer in (linen.Dense(size), linen.relu)]
    return linen.Sequential([*hidden, linen.Dense(OUTPUTS)])


def haiku_mlp() -> Any:
    import haiku

    return haiku.transform(lambda x: haiku.nets.MLP([*SIZES, OUTPUTS])(x))


def keras_mlp() -> Any:
    import keras
    from keras.layers import Dense

    return keras.Sequential([keras.Input((INPUTS,)), *(Dense(size, "relu") for size in SIZES), Dense(OUTPUTS)])


def torch_mlp() -> Any:
    from torch import nn

    hidden = [
        layer
        for inputs, outputs in zip((INPUTS, *SIZES[:-1]), SIZES, strict=True)
        for layer in (nn.Linear(inputs, outputs), nn.ReLU())
    ]
    return nn.Sequential(*hidden, nn.Linear(SIZES[-1], OUTPUTS))


class Entrant(NamedTuple):
    """A framework's network: what makes it, and what calls it there once it is handed back."""

    make: Callable[[], Any]
    call: Callable[[Any, np.ndarray], Any]
    needs: tuple[str, ...]
    backend: str = "jax"  # Keras's


def _pair_call(parameters: Any, x: np.ndarray) -> Any:
    _, apply = pair()
    return apply(parameters, x)


def _equinox_call(module: Any, x: np.ndarray) -> Any:
    import jax

    return jax.vmap(module)(x)


def _haiku_call(given_back: Any, x: np.ndarray) -> Any:
    transformed, parameters = given_back
    return transformed.apply(parameters, None, x)


def _keras_call(model: Any, x: np.ndarray) -> Any:
    return model.predict(x, verbose=0)


def _torch_call(module: Any, x: np.ndarray) -> Any:
    import torch

    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def _itself(network: Any, x: np.ndarray) -> Any:
    return network(x)


ENTRANTS = {
    "pair": Entrant(pair, _pair_call, ()),
    "Equinox": Entrant(equinox_mlp, _equinox_call, ()),
    "flax.nnx": Entrant(nnx_mlp, _itself, ("flax",)),
    "flax.linen": Entrant(linen_mlp, _itself, ("flax",)),
    "Haiku": Entrant(haiku_mlp, _haiku_call, ("haiku",)),
    "Keras": Entrant(keras_mlp, _keras_call, ("keras",)),
    "Keras on TensorFlow": Entrant(keras_mlp, _keras_call, ("keras", "tensorflow"), "tensorflow"),
    "Keras on torch": Entrant(keras_mlp, _keras_call, ("keras", "torch"), "torch"),
    "PyTorch": Entrant(torch_mlp, _torch_call, ("torch",)),
}


def missing(name: str) -> list[str]:
    """The packages that an entrant needs and that are not installed here."""
    return [package for package in ENTRANTS[name].needs if not find_spec(package)]


def algorithm(network: Any) -> Any:
    import thorndike as td

    return td.DQN(network=network)


def main() -> None:
    arguments = parse()
    if arguments.measure:
        print(json.dumps(train(**json.loads(arguments.measure))))
        return
    chosen = [name for name in ENTRANTS if arguments.only in name]
    if not chosen:
        sys.exit(f"no entrant is named '{arguments.only}': {', '.join(ENTRANTS)}")
    results = {}
    for name in chosen:
        if lacking := missing(name):
            print(f"{name}: left out, {', '.join(lacking)} is not installed", flush=True)
            continue
        print(f"{name} ...", flush=True)
        results[name] = measure(name, arguments.seeds, arguments.pairs)
        print(f"  {told(results[name])}", flush=True)
    if not arguments.only:
        reporting.write("networks", results, report(results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only entrants whose name holds this; nothing is written")
    parser.add_argument("--seeds", type=int, default=3, help="how many learn")
    parser.add_argument("--pairs", type=int, default=10, help="of runs to compare rates in")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(name: str, seeds: int, pairs: int) -> dict[str, Any]:
    """What an entrant learns, and its rate over ours in every pair."""
    learned = run(name, seeds, evaluate=True)
    ratios = []
    for i in range(pairs):
        order = (OURS, name) if i % 2 else (name, OURS)
        rates = {entrant: run(entrant, 1, evaluate=False)["steps_per_second"] for entrant in order}
        ratios.append(rates[name] / rates[OURS])
    return learned | {"ratios": ratios}


def run(name: str, seeds: int, evaluate: bool) -> dict[str, Any]:
    """One run in a process of its own, Keras having the entrant's backend there."""
    job = json.dumps({"name": name, "seeds": seeds, "evaluate": evaluate})
    os.environ["KERAS_BACKEND"] = ENTRANTS[name].backend if name in ENTRANTS else "jax"
    return reporting.measured([sys.executable, __file__, "--measure", job])


def train(name: str, seeds: int, evaluate: bool) -> dict[str, Any]:
    """What the process of one run does; every seed begins with weights of its own."""
    import thorndike as td
    from thorndike.runs.configuration import versions

    network = own_mlp() if name == OURS else ENTRANTS[name].make
    more = {} if evaluate else {"evaluate_every": 0}
    run = td.train(algorithm(network), "CartPole-v1", STEPS, seeds=seeds, run_dir=None, quiet=True, **more)
    where = {"machine": reporting.machine(), "versions": versions(), "date": time.strftime("%Y-%m-%d")}
    return run.summary | where


def told(result: dict[str, Any]) -> str:
    """A result in a line."""
    evaluation, ratio = result["evaluation"], statistics.median(result["ratios"])
    return f"greedy {evaluation['mean']:.1f}, {ratio:.0%} of our speed"


def report(results: dict[str, Any]) -> str:
    """The page of a whole run."""
    rows = []
    for name, result in results.items():
        evaluation, ratios = result["evaluation"], result["ratios"]
        ratio = statistics.median(ratios)
        reached = evaluation["mean"] >= GATE and ratio >= SPEED
        rows.append(
            [
                name,
                f"{evaluation['mean']:.1f}",
                ", ".join(f"{seed:.0f}" for seed in evaluation["per_seed"]),
                f"{ratio:.0%} ({min(ratios):.0%} to {max(ratios):.0%})",
                "yes" if reached else "NO",
            ]
        )
    header = ["network", "greedy return", "of each seed", "steps/s over our MLP's: median (range)", "both reached"]
    any_result = next(iter(results.values()))
    return (
        "# One network in every framework\n\n"
        f"DQN on CartPole-v1, {STEPS:,} steps, a network {INPUTS}-{'-'.join(map(str, SIZES))}-{OUTPUTS} as each "
        f"framework writes it, every seed from weights of its own. To reach: {GATE} of 500, and {SPEED:.0%} of the "
        f"speed of `td.MLP` with the same layers, by the median over {len(any_result['ratios'])} pairs of runs one "
        "right after the other.\n\n"
        f"{reporting.table(header, rows)}\n\n"
        f"{any_result['date']}, {any_result['machine']}, JAX {any_result['versions']['jax']}. "
        "Written by `make networks`.\n"
    )


if __name__ == "__main__":
    main()
