"""A net in numbers: parameters, neurons, connections, multiply-adds, and what crosses between devices."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

from .graph import Graph, Node
from .plan import Plan
from .work import flops


def parameters(graph: Graph) -> int:
    """Learned numbers; those that several layers share count once."""
    return sum(prod(weights.shape) for node in graph.nodes for _, weights in node.owned())


def neurons(node: Node) -> int:
    """Outputs of a layer with weights; other layers have none."""
    return prod(node.shape) if node.weights else 0


def connections(node: Node) -> int:
    """Of one image: weights times the places where each is used, those on padding too.

    A convolution uses its weights, of four dimensions, at every pixel of its output; others use each once.
    """
    learned = [weights for name, weights in node.weights.items() if name != "b" and not weights.counts]
    return sum(prod(weights.shape) * (prod(node.shape[1:]) if len(weights.shape) == 4 else 1) for weights in learned)


def multiply_adds(plan: Plan) -> Counter[str]:
    """By layer, those that are executed forward for one image: taps on padding are left out."""
    counts: Counter[str] = Counter()
    for step in plan.steps:
        if step.phase == "forward":
            counts[step.layer] += flops(step)
    return Counter({name: count // 2 // plan.images for name, count in counts.items()})


@dataclass(frozen=True)
class Crossing:
    """What a step copies from a device to another: the value's name, the layer that wants it, bytes of a minibatch."""

    phase: str
    value: str
    layer: str
    source: int
    target: int
    nbytes: int


def crossings(plan: Plan) -> list[Crossing]:
    return [Crossing(step.phase, step.reads[0].name, step.layer, step.reads[0].device, step.device, step.reads[0].nbytes)
            for step in plan.steps if step.op == "copy"]
