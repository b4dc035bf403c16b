"""Layers in order, with their shapes and devices."""
from __future__ import annotations

from dataclasses import dataclass, field

from .errors import ConfigError
from .layers import Layer, Shape, Weights


@dataclass(eq=False)
class Node:
    """A layer in its place: what it reads, and who reads it."""

    layer: Layer
    inputs: list[Node]
    shape: Shape
    device: int
    weights: dict[str, Weights]
    saved: dict[str, Shape]
    readers: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.layer.name


class Graph:
    """`data_shapes`: (channels, height, width) of the provider's tensors, by dataIdx."""

    def __init__(self, layers: list[Layer], data_shapes: tuple[Shape, ...]):
        self.nodes: list[Node] = []
        by_name: dict[str, Node] = {}
        for layer in layers:
            inputs = [by_name[name] for name in layer.inputs]
            try:
                node = self._node(layer, inputs, data_shapes)
            except ValueError as error:
                raise ConfigError(f"{layer.where}: [{layer.name}] {error}") from None
            for source in dict.fromkeys(inputs):
                source.readers.append(node)
            by_name[layer.name] = node
            self.nodes.append(node)
        self.by_name = by_name

    def _node(self, layer: Layer, inputs: list[Node], data_shapes: tuple[Shape, ...]) -> Node:
        shapes = [source.shape for source in inputs]
        if layer.on_host:
            if not 0 <= layer.data_idx < len(data_shapes):
                raise ValueError(f"dataIdx={layer.data_idx}: the data have {len(data_shapes)} tensors, expected 0 to {len(data_shapes) - 1}")
            return Node(layer, [], data_shapes[layer.data_idx], -1, {}, {})
        device = layer.gpu if layer.gpu >= 0 else next((source.device for source in inputs if not source.layer.on_host), 0)
        return Node(layer, inputs, layer.shape(*shapes), device, layer.weights(*shapes), layer.saved(*shapes))

    @property
    def devices(self) -> list[int]:
        """The devices that the net uses."""
        return sorted({node.device for node in self.nodes if not node.layer.on_host})

    @property
    def data(self) -> list[Node]:
        return [node for node in self.nodes if node.layer.on_host]

    @property
    def costs(self) -> list[Node]:
        return [node for node in self.nodes if node.layer.is_cost]

    def rate_slots(self) -> dict[str, int]:
        """Name of a learned tensor, layer.W0 -> where its learning rate stands among all."""
        names = [f"{node.name}.{name}" for node in self.nodes for name in node.weights]
        return {name: slot for slot, name in enumerate(names)}
