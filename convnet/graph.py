"""Layers in order, with their shapes, the devices of their replicas, and who owns which weights."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import lcm, prod

from .errors import ConfigError
from .layers import Fixed, Layer, Shape, Weights

MAX_VALUES = 2**40  # of a tensor


@dataclass(eq=False)
class Node:
    """A layer in its place: what it reads, who reads it, and a device for each of its replicas.

    owners: name of a learned tensor, W0 -> whose it is, layer.W0; another's where weights are shared.
    """

    layer: Layer
    inputs: list[Node]
    shape: Shape
    devices: tuple[int, ...]
    weights: dict[str, Weights]
    fixed: dict[str, Fixed]
    saved: dict[str, Shape]
    saved_weights: dict[str, tuple[int, ...]]
    learns: bool = False  # it, or a layer below it
    owners: dict[str, str] = field(default_factory=dict)
    readers: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def replicas(self) -> int:
        return len(self.devices)

    def device(self, chunk: int) -> int:
        """Where the layer is computed for a chunk of the minibatch."""
        return self.devices[chunk % len(self.devices)]

    def owned(self) -> Iterator[tuple[str, Weights]]:
        """The learned tensors that are its own, layer.W0."""
        for name, weights in self.weights.items():
            if self.owners[name] == f"{self.name}.{name}":
                yield self.owners[name], weights

    def shards(self, shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
        """(device, first row, last row) of a learned tensor: each device sums and updates its share of the rows."""
        devices, rows = list(dict.fromkeys(self.devices)), prod(shape[:-1])
        size = -(-rows // len(devices))
        shards = [(device, i * size, min((i + 1) * size, rows)) for i, device in enumerate(devices)]
        return [shard for shard in shards if shard[1] < shard[2]]


class Graph:
    """`data_shapes`: (channels, height, width) of the provider's tensors, by dataIdx; `class_tree`: see Provider.

    A layer on several devices has a replica on each. The minibatch is split into as many chunks as the most replicated
    layer has replicas, and trained with in passes, as in cuda-convnet2: a layer with the fewest replicas runs in every
    pass, one with a times as many in every a-th, forward at the first of the a passes and backward at the last. Chunk c
    is computed by replica c mod replicas.
    """

    def __init__(self, layers: list[Layer], data_shapes: tuple[Shape, ...], class_tree: tuple[int, ...] | None = None):
        self.nodes: list[Node] = []
        self.by_name: dict[str, Node] = {}
        errors: list[str] = []
        failed: set[str] = set()  # what reads one of these is not told about it again
        for layer in layers:
            if failed & set(layer.inputs):
                failed.add(layer.name)
                continue
            if layer.reads_class_tree:
                layer.class_tree = class_tree
            inputs = [self.by_name[name] for name in layer.inputs]
            try:
                node = self._node(layer, inputs, data_shapes)
                for name, weights in node.weights.items():
                    node.owners[name] = self._owner(node, name, weights)
            except ValueError as error:
                errors.append(f"{layer.where}: [{layer.name}] {error}")
                failed.add(layer.name)
                continue
            for source in dict.fromkeys(inputs):
                source.readers.append(node)
            self.by_name[layer.name] = node
            self.nodes.append(node)
        if errors:
            raise ConfigError("\n".join(errors))
        self.computed = [node for node in self.nodes if not node.layer.on_host]
        self._count_passes()

    def _node(self, layer: Layer, inputs: list[Node], data_shapes: tuple[Shape, ...]) -> Node:
        shapes = [source.shape for source in inputs]
        if layer.on_host:
            if not 0 <= layer.data_idx < len(data_shapes):
                raise ValueError(f"dataIdx={layer.data_idx}: the data have {len(data_shapes)} tensors, expected 0 to {len(data_shapes) - 1}")
            return Node(layer, [], data_shapes[layer.data_idx], (), {}, {}, {}, {})
        devices = layer.gpu or next((source.devices for source in inputs if source.devices), (0,))
        for source in inputs:
            if source.replicas % len(devices):
                raise ValueError(f"gpu={listed(devices)}: {len(devices)} replicas, but its input {source.name} has {source.replicas}, "
                                 "expected as many, or a divisor of them")
        learners = [source.name for source in inputs if source.learns]
        if learners and not layer.has_gradient:
            raise ValueError(f"inputs={','.join(learners)}: a layer of type {layer.kind} has no gradient, but there are weights to be learned below it; "
                             "expected none")
        shape = layer.shape(*shapes)  # first of all: it finds what is wrong with the inputs
        weights = layer.weights(*shapes)
        if (largest := max(prod(shape), *(prod(w.shape) for w in weights.values()), 0)) > MAX_VALUES:
            raise ValueError(f"a tensor of {largest} values, expected at most {MAX_VALUES}")
        return Node(layer, inputs, shape, devices, weights, layer.fixed(*shapes), layer.saved(*shapes), layer.saved_weights(*shapes),
                    bool(weights or learners))

    def _owner(self, node: Node, name: str, weights: Weights) -> str:
        """Whose weights a layer's are; ValueError where the two cannot share."""
        if not weights.source:
            return f"{node.name}.{name}"
        source_name, _, source_weights = weights.source.rpartition(".")
        source = node if source_name == node.name else self.by_name.get(source_name)
        told = f"weightSource={source_name}[{source_weights[1:]}]"
        if source is None:
            raise ValueError(f"{told}: no layer of that name above it")
        if source_weights not in source.owners:  # of itself, those before this one
            raise ValueError(f"{told}: {source_name} has no such weights" + (" before these" if source is node else ""))
        for what, own, other in (("type", node.layer.kind, source.layer.kind), ("gpu", listed(node.devices), listed(source.devices)),
                                 ("shape", listed(weights.shape), listed(source.weights[source_weights].shape))):
            if own != other:
                raise ValueError(f"{told}: layers share weights of one {what}, but {node.name} has {what} {own} and {source_name} {other}")
        return source.owners[source_weights]

    def _count_passes(self) -> None:
        counts = [node.replicas for node in self.computed] or [1]
        self.chunks, self.least = max(counts), min(counts)
        for node in self.computed:
            where, told = f"{node.layer.where}: [{node.name}]", f"gpu={listed(node.devices)}: {node.replicas} replicas"
            if self.chunks % node.replicas or node.replicas % self.least:
                raise ConfigError(f"{where} {told} in a net whose layers have {self.least} to {self.chunks}, "
                                  f"expected a divisor of {self.chunks} and a multiple of {self.least}")
            for full, weights in node.owned():
                period = self.update_period(node, weights)
                if period % self.period(node) or (period % self.passes and self.passes % period):
                    raise ConfigError(f"{where} updatePeriod={weights.period} for {full}: expected a multiple of {self.period(node)}, "
                                      f"that divides the {self.passes} passes of a minibatch or is a multiple of them")

    @property
    def passes(self) -> int:
        """Passes of a minibatch."""
        return self.chunks // self.least

    def period(self, node: Node) -> int:
        """A layer runs in every so-many-th pass."""
        return node.replicas // self.least

    def update_period(self, node: Node, weights: Weights) -> int:
        """Passes from one update of some weights to the next: as few as there can be, or what the config says."""
        return max(weights.period, self.period(node))

    def minibatches(self, node: Node, weights: Weights) -> int:
        """Minibatches whose gradients are summed for one update."""
        return max(1, self.update_period(node, weights) // self.passes)

    @property
    def cycle(self) -> int:
        """Minibatches after which the updates are as at first."""
        return lcm(*(self.minibatches(node, weights) for node in self.nodes for _, weights in node.owned()))

    def forward_chunks(self, node: Node, index: int) -> range:
        """What a layer computes in a pass."""
        period = self.period(node)
        first = index // period * node.replicas
        return range(first, first + node.replicas) if index % period == 0 else range(0)

    def backward_chunks(self, node: Node, index: int) -> range:
        return self.forward_chunks(node, index + 1 - self.period(node))

    @property
    def devices(self) -> list[int]:
        """The devices that the net uses."""
        return sorted({device for node in self.nodes for device in node.devices})

    @property
    def data(self) -> list[Node]:
        return [node for node in self.nodes if node.layer.on_host]

    @property
    def costs(self) -> list[Node]:
        return [node for node in self.nodes if node.layer.is_cost]

    @property
    def main_cost(self) -> Node:
        """The cost that tells how good the net is: the first that compares something with labels, else the first."""
        return next((node for node in self.costs if node.layer.label_kind), self.costs[0])

    def rate_slots(self) -> dict[str, int]:
        """Name of a learned tensor, layer.W0 -> where its learning rate stands among all."""
        names = [full for node in self.nodes for full, _ in node.owned()]
        return {name: slot for slot, name in enumerate(names)}


def listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))
