"""The floating-point limit of a task: how many steps a second its matrix products alone would leave time for.

What acting and learning must multiply per step of the environment is counted from the layers' shapes, as if all
else (activations, losses, optimisers, memories, environments, calls) took no time:

    steps/s = 1 / sum over products of (how many of it per step) x (seconds that it takes)

A dense layer [inputs, outputs] on a batch of `rows` is up to three products of equally many multiply-adds,
rows x inputs x outputs: forward x W, the gradient of its weights x' d, and, but for a first layer, that of its
inputs d W'. Per step of the environment, with N copies, rollouts of T steps and batches of B:

    PPO    the actor forward on N rows, 1/N times; the critic forward on the whole rollout, 1/(T N) times;
           epochs/B times forward and backward through actor and critic on B rows
    DQN    the network forward on N rows, 1/N times; for each update on B rows: the network forward and backward,
           the target network forward
    SAC    the actor forward on N rows, 1/N times; for each update on B rows: the actor (for the next action) and the
           target critics forward, the critics forward and backward, the actor forward and backward, the critics
           forward and backward to the action alone, without gradients of weights
    TD3    the actor forward on N rows, 1/N times; for each step of the critics on B rows: the target actor and the
           target critics forward, the critics forward and backward; once in `policy_delay` of them: the actor
           forward and backward, one critic forward and backward to the action alone

Twin critics are two products side by side, which a machine may do on two cores. The seconds are measured in the
same session by entrants/run_products.py, on all cores, with JAX, NumPy and torch, and the best of these counts.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any, NamedTuple


class Product(NamedTuple):
    """One of a layer's three products, for as many layers of this shape as there are `copies`, side by side."""

    kind: str  # "forward", "weights" or "inputs"
    copies: int
    rows: int
    inputs: int
    outputs: int

    @property
    def operations(self) -> int:
        """Floating-point operations: a multiply-add is two."""
        return 2 * self.copies * self.rows * self.inputs * self.outputs


Count = dict[Product, float]


class Network(NamedTuple):
    """Dense layers, and as many of them as there are `copies`."""

    layers: tuple[tuple[int, int], ...]
    copies: int = 1

    @classmethod
    def of(cls, inputs: int, sizes: list[int], outputs: int, copies: int = 1) -> Network:
        return cls(tuple(itertools.pairwise((inputs, *sizes, outputs))), copies)

    def forward(self, rows: int) -> Count:
        return dict(Counter(Product("forward", self.copies, rows, *layer) for layer in self.layers))

    def backward(self, rows: int) -> Count:
        """Gradients of all weights, and of the inputs of all layers but the first."""
        weights = Counter(Product("weights", self.copies, rows, *layer) for layer in self.layers)
        return dict(weights + Counter(Product("inputs", self.copies, rows, *layer) for layer in self.layers[1:]))

    def backward_to_inputs(self, rows: int, wanted: int) -> Count:
        """Gradients of the inputs of all layers, of the first only for the `wanted` ones."""
        layers = (wanted, self.layers[0][1]), *self.layers[1:]
        return dict(Counter(Product("inputs", self.copies, rows, *layer) for layer in layers))


def per_step(algorithm: str, settings: dict[str, Any], observation: int, outputs: int) -> Count:
    """How many of which products a step of the environment needs; `outputs` are the actions or their dimensions."""
    return {"ppo": _ppo, "dqn": _dqn, "sac": _sac, "td3": _td3}[algorithm](settings, observation, outputs)


def steps_per_second(count: Count, seconds: dict[Product, float]) -> float:
    return 1 / sum(number * seconds[product] for product, number in count.items())


def _ppo(settings: dict[str, Any], observation: int, outputs: int) -> Count:
    copies, batch = settings["num_environments"], settings["batch_size"]
    rollout = copies * settings["rollout_length"]
    actor = Network.of(observation, settings["sizes"], outputs)
    critic = Network.of(observation, settings["sizes"], 1)
    learned = [network.forward(batch) for network in (actor, critic)]
    learned += [network.backward(batch) for network in (actor, critic)]
    acted = (1 / copies, actor.forward(copies)), (1 / rollout, critic.forward(rollout))
    return _sum(*acted, *((settings["epochs"] / batch, part) for part in learned))


def _dqn(settings: dict[str, Any], observation: int, outputs: int) -> Count:
    copies, batch = settings["num_environments"], settings["batch_size"]
    network = Network.of(observation, settings["sizes"], outputs)
    learned = network.forward(batch), network.backward(batch), network.forward(batch)
    updates = settings["updates_per_rollout"] / (copies * settings["rollout_length"])
    return _sum((1 / copies, network.forward(copies)), *((updates, part) for part in learned))


def _sac(settings: dict[str, Any], observation: int, outputs: int) -> Count:
    copies, batch = settings["num_environments"], settings["batch_size"]
    actor = Network.of(observation, settings["sizes"], 2 * outputs)
    critics = Network.of(observation + outputs, settings["sizes"], 1, copies=2)
    of_critics = actor.forward(batch), critics.forward(batch), critics.forward(batch), critics.backward(batch)
    of_actor = (
        actor.forward(batch), critics.forward(batch), critics.backward_to_inputs(batch, outputs), actor.backward(batch)
    )  # fmt: skip
    updates = settings["updates_per_rollout"] / (copies * settings["rollout_length"])
    return _sum((1 / copies, actor.forward(copies)), *((updates, part) for part in of_critics + of_actor))


def _td3(settings: dict[str, Any], observation: int, outputs: int) -> Count:
    """One step of the critics for every step of the environment."""
    copies, batch = settings["num_environments"], settings["batch_size"]
    actor = Network.of(observation, settings["sizes"], outputs)
    critics = Network.of(observation + outputs, settings["sizes"], 1, copies=2)
    critic = critics._replace(copies=1)
    of_critics = actor.forward(batch), critics.forward(batch), critics.forward(batch), critics.backward(batch)
    of_actor = (
        actor.forward(batch), critic.forward(batch), critic.backward_to_inputs(batch, outputs), actor.backward(batch)
    )  # fmt: skip
    seldom = ((1 / settings["policy_delay"], part) for part in of_actor)
    return _sum((1 / copies, actor.forward(copies)), *((1, part) for part in of_critics), *seldom)


def _sum(*parts: tuple[float, Count]) -> Count:
    """Counts, each times a number, added up."""
    total: Count = {}
    for times, count in parts:
        for product, number in count.items():
            total[product] = total.get(product, 0.0) + times * number
    return total
