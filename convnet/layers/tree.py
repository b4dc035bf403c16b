"""Fully connected layers whose outputs are the classes of a tree."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field, replace
from itertools import accumulate
from math import prod

import numpy as np

from . import BadKey, Fixed, Shape, Weights, layer
from .weights import WeightLayer


@layer("treefc")
class TreeFc(WeightLayer):
    """A fully connected layer with an output for each class of the data's tree of classes.

    The weights of a class are the sum of its own, W0, and of those of the nodes above it, W1, up to the root. The weights
    of a node above n classes learn with the rate epsW / n and the decay wc / n. There are no schedules for epsW.
    """

    reads_class_tree = True

    class_tree: tuple[int, ...] | None = field(default=None, kw_only=True, repr=False)

    def title(self) -> str:
        return "tree fully-connected layer"

    @property
    def outputs(self) -> int | None:
        """The classes; those of the data."""
        return len(paths(self.class_tree)) if self.class_tree else None

    def shape(self, inputs: Shape) -> Shape:
        if not self.class_tree:
            raise ValueError("a layer of type treefc needs data whose classes are in a tree, and these data have none")
        return (self.outputs, 1, 1)

    def check(self) -> None:
        super().check()
        if self.init_w_func:
            raise BadKey("init_w_func", "a layer of type treefc has no such function, for its weights are those of nodes")
        if any(self.weight_source):
            raise BadKey("weight_source", "a layer of type treefc shares no weights, for they are those of nodes")
        for name in ("wball", "super_eps"):
            if getattr(self, name) not in (0, (0,)):
                self.warnings.append((name, "ignored, as by the 2012 program in a layer of type treefc"))

    def rates(self) -> dict:
        rates = super().rates()
        scheduled = rates["W0"].falls or rates["W0"].noise_stdev > 0
        warning = "a layer of type treefc has no schedules, as in the 2012 program; the rate stays as it is" if scheduled else ""
        own = replace(rates["W0"], kind="const", noise_stdev=0.0, warning=warning)
        return {"W0": own, "W1": replace(own, name=f"{self.name}.W1", warning=""), "b": rates["b"]}

    def weights(self, inputs: Shape) -> dict[str, Weights]:
        rates, nodes = self.rates(), len(self.class_tree)
        own = Weights((prod(inputs), self.outputs), self.init_w[0], 0.0, rates["W0"], self.mom_w[0], self.wc[0], self.update_period)
        above = replace(own, shape=(prod(inputs), nodes - self.outputs), stdev=0.0, rate=rates["W1"], counts="counts")
        return {"W0": own, "W1": above, "b": self.biases(self.outputs, rates["b"])}

    def saved_weights(self, inputs: Shape) -> dict[str, tuple[int, ...]]:
        return {name: (prod(inputs), self.outputs) for name in ("W", "W_grad")}

    def fixed(self, inputs: Shape) -> dict[str, Fixed]:
        """For sum_columns: the nodes above each class, and the classes below each node, and how many those are."""
        above = paths(self.class_tree)
        below: list[list[int]] = [[] for _ in self.class_tree[len(above):]]
        for leaf, path in enumerate(above):
            for node in path:
                below[node].append(leaf)
        lists = {"above": above, "below": below}
        tables = {name: np.array([node for nodes in lists[name] for node in nodes]) for name in lists}
        tables |= {f"{name}_starts": starts(lists[name]) for name in lists} | {"counts": np.diff(starts(below))}
        return {name: Fixed(table.shape, lambda draws, table=table: table, random=False) for name, table in tables.items()}

    def forward(self, ops, t, training: bool) -> None:
        ops.scaled_copy(t.weights["W0"], t.saved["W"], factor=1.0)
        ops.sum_columns(t.weights["W1"], t.fixed["above_starts"], t.fixed["above"], t.saved["W"])
        ops.fc_forward(t.inputs[0], t.saved["W"], t.acts)
        ops.bias_forward(t.weights["b"], t.acts)

    def backward(self, ops, t) -> None:
        ops.bias_backward(t.acts_grad, t.weights_grad["b"])
        ops.fc_backward_weights(t.inputs[0], t.acts_grad, t.saved["W_grad"])
        ops.sum_columns(t.saved["W_grad"], t.fixed["below_starts"], t.fixed["below"], t.weights_grad["W1"])
        ops.scaled_copy(t.saved["W_grad"], t.weights_grad["W0"], factor=1.0)
        if t.inputs_grad[0]:
            ops.fc_backward_data(t.acts_grad, t.saved["W"], t.inputs_grad[0])


def starts(lists: Iterable[list[int]]) -> np.ndarray:
    """Where each list starts when all are put one after the other, and where the last one ends."""
    return np.array([0, *accumulate(map(len, lists))])


def paths(parents: tuple[int, ...]) -> list[list[int]]:
    """The nodes above each class, from its parent to the root; counted from the first node that is no class.

    `parents`: that of each class, then of each node above them; -1 is that of the root.
    """
    inner = set(parents) - {-1}
    classes = len(parents) - len(inner)
    if list(parents).count(-1) != 1 or inner != set(range(classes, len(parents))):
        raise ValueError(f"the data's tree of {len(parents)} nodes: expected the parents of all classes, then those of all nodes above them, "
                         "of which one, the root, has -1")
    result = []
    for leaf in range(classes):
        path: list[int] = []
        node = parents[leaf]
        while node >= 0:
            path.append(node - classes)
            node = parents[node]
            if len(path) > len(inner):
                raise ValueError(f"the data's tree: class {leaf} is below a node that is below itself")
        result.append(path)
    return result
