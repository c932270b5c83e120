"""How long matrix products take, with those of JAX, torch and NumPy that can be imported: prints a line of JSON.

Products are repeated in a loop, within one compiled program for JAX, so that the cost of calls does not count.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

REPEATS = 3  # the best of them counts
SECONDS = 0.02  # about what each takes


def main(job: dict) -> None:
    products = [tuple(product) for product in job["products"]]
    found = {}
    for name, measure in (("jax", with_jax), ("torch", with_torch), ("numpy", with_numpy)):
        if importlib.util.find_spec(name):
            found[name] = measure(products)
    print(json.dumps(found))


def operands(kind: str, copies: int, rows: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """What is multiplied, [rows, inputs] and the like, transposed views where the algorithm would have them."""
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal((copies, *shape) if copies > 1 else shape, dtype=np.float32)

    if kind == "forward":
        return normal(rows, inputs), normal(inputs, outputs)
    if kind == "weights":
        return normal(rows, inputs).swapaxes(-1, -2), normal(rows, outputs)
    return normal(rows, outputs), normal(inputs, outputs).swapaxes(-1, -2)


def best(repeat: Callable[[int], object]) -> float:
    """Seconds of one turn of `repeat(turns)`."""
    repeat(1)
    turns = 1
    while (seconds := timed(repeat, turns)) < SECONDS / 2:
        turns = max(2 * turns, min(100 * turns, int(turns * SECONDS / max(seconds, 1e-7))))
    return min(seconds, *(timed(repeat, turns) for _ in range(REPEATS - 1))) / turns


def timed(repeat: Callable[[int], object], turns: int) -> float:
    began = time.perf_counter()
    repeat(turns)
    return time.perf_counter() - began


def with_jax(products: list[tuple]) -> list[float]:
    """All loops are one program, so that there is one compilation; a call turns one of them."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def transposed(kind, a, b):
        """An array has no strides here: what NumPy saw as a transposed view is one within the program."""
        return (a.swapaxes(-1, -2) if kind == "weights" else a), (b.swapaxes(-1, -2) if kind == "inputs" else b)

    def multiply(kind, a, b):
        left, right = transposed(kind, a, b)
        return left @ right

    def turned(kind, a, b, turns):
        def turn(i, _):
            # No turn depends on the last: without the barrier the product would be moved out of the loop.
            left, right, _ = lax.optimization_barrier((a, b, i))
            return multiply(kind, left, right)

        return lax.fori_loop(0, turns, turn, jnp.zeros_like(multiply(kind, a, b)))

    @jax.jit
    def program(pairs, turns):
        return [
            turned(product[0], *pair, turns[i]) for i, (product, pair) in enumerate(zip(products, pairs, strict=True))
        ]

    pairs = [tuple(map(jnp.asarray, transposed(product[0], *operands(*product)))) for product in products]

    def of(i):
        def repeat(turns):
            asked = np.zeros(len(products), np.int32)
            asked[i] = turns
            return jax.block_until_ready(program(pairs, asked))

        return repeat

    return [best(of(i)) for i in range(len(products))]


def with_torch(products: list[tuple]) -> list[float]:
    import torch

    def seconds(product):
        a, b = (torch.from_numpy(x) for x in operands(*product))
        out = a @ b

        def repeat(turns):
            for _ in range(turns):
                torch.matmul(a, b, out=out)

        return best(repeat)

    found = []
    for threads in {1, os.cpu_count() or 1}:
        torch.set_num_threads(threads)
        found.append([seconds(product) for product in products])
    return [min(times) for times in zip(*found, strict=True)]


def with_numpy(products: list[tuple]) -> list[float]:
    def seconds(product):
        a, b = operands(*product)
        out = a @ b

        def repeat(turns):
            for _ in range(turns):
                np.matmul(a, b, out=out)

        return best(repeat)

    return [seconds(product) for product in products]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
