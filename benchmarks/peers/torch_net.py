"""The net of a config as a PyTorch module, made by walking our graph.

Columns: layers that lie side by side, as the paper's on its two GPUs, are one layer here with the channels of all: one
that reads all there is where they read the same, one in groups where each reads its own column. That is how one writes
AlexNet in PyTorch, and what it is fast at.
"""
from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnet.graph import Graph, Node
from convnet.layers.conv import Conv
from convnet.layers.cost import LogisticRegression
from convnet.layers.dropout import Dropout
from convnet.layers.fc import Fc
from convnet.layers.join import Concat, ElementwiseSum
from convnet.layers.neuron import NeuronLayer
from convnet.layers.norm import CrossMapNorm
from convnet.layers.pool import Pool
from convnet.layers.softmax import Softmax

OF_A_COLUMN = (Conv, CrossMapNorm, Pool, NeuronLayer, Dropout)  # those that can be one layer though each reads its own column
Arrays = dict[str, np.ndarray]


# ---- which layers are one ----------------------------------------------------------------------------------------

@dataclass(eq=False)
class Group:
    """Layers that are computed as one; its tensor is their channels, one after the other.

    reads    (group, first channel, last channel) of what it reads
    inputs   the nodes whose channels these are, in that order
    each     every layer reads its own one of `inputs`; else each reads all
    """

    nodes: list[Node]
    reads: list[tuple[Group, int, int]]
    inputs: list[Node]
    each: bool = False

    @property
    def channels(self) -> int:
        return sum(node.shape[0] for node in self.nodes)


def groups_of(graph: Graph, merged: bool) -> list[Group]:
    """All layers, inputs before their readers; columns are merged, or left apart."""
    depth: dict[Node, int] = {}
    for node in graph.nodes:
        depth[node] = 1 + max((depth[source] for source in node.inputs), default=0)
    home: dict[Node, Group] = {}
    for _, level in itertools.groupby(sorted(graph.nodes, key=depth.__getitem__), depth.__getitem__):
        alike: dict = defaultdict(list)
        for node in level:
            alike[likeness(node, home) if merged else node].append(node)
        for nodes in alike.values():
            for group in grouped(nodes, home):
                home |= dict.fromkeys(group.nodes, group)
    return list(dict.fromkeys(home.values()))


def likeness(node: Node, home: dict[Node, Group]):
    """Equal for layers that may be one: equal settings, and the same inputs or columns of the same group."""
    settings = repr(replace(node.layer, name="", inputs=(), gpu=(), where="")), node.shape
    if column := column_of(node, home):
        return settings, column
    side_by_side = isinstance(node.layer, Fc) or (isinstance(node.layer, Conv) and node.layer.groups[0] == 1)
    return (settings, frozenset(node.inputs)) if side_by_side and reads_one_tensor(node) else node


def column_of(node: Node, home: dict[Node, Group]) -> Group | None:
    """The group that a layer reads one column of."""
    if len(node.inputs) != 1 or not isinstance(node.layer, OF_A_COLUMN):
        return None
    group = home[node.inputs[0]]
    return group if len(group.nodes) > 1 else None


def grouped(nodes: list[Node], home: dict[Node, Group]) -> list[Group]:
    """Like layers as one, or each for itself where one of the columns has none."""
    below = column_of(nodes[0], home)
    if not below or len(nodes) == 1:
        return [Group(nodes, *what_is_read(nodes[0], home))]
    reader = {node.inputs[0]: node for node in nodes}
    if len(reader) == len(nodes) == len(below.nodes):
        return [Group([reader[source] for source in below.nodes], [(below, 0, below.channels)], below.nodes, each=True)]
    return [Group([node], *what_is_read(node, home)) for node in nodes]


def what_is_read(node: Node, home: dict[Node, Group]) -> tuple[list[tuple[Group, int, int]], list[Node]]:
    """`reads` and `inputs`: whole tensors where the layer reads all columns, in any order if it has weights."""
    groups = list(dict.fromkeys(home[source] for source in node.inputs))
    inputs = [column for group in groups for column in group.nodes]
    if inputs == node.inputs or (reads_one_tensor(node) and Counter(inputs) == Counter(node.inputs)):
        return [(group, 0, group.channels) for group in groups], inputs
    reads = []
    for source in node.inputs:
        group = home[source]
        first = sum(column.shape[0] for column in group.nodes[: group.nodes.index(source)])
        reads.append((group, first, first + source.shape[0]))
    return reads, node.inputs


def reads_one_tensor(node: Node) -> bool:
    """Whether a layer with weights can read all its inputs as one: the same window and the same update for all."""
    layer = node.layer
    if not isinstance(layer, (Conv, Fc)):
        return False
    windows = zip(layer.filter_size, layer.stride, layer.padding, strict=True) if isinstance(layer, Conv) else []
    updates = {update_of(node, f"W{i}") for i in range(len(node.inputs))}
    grouped = isinstance(layer, Conv) and max(layer.groups) > 1
    return len(node.inputs) == 1 or (len(set(windows)) <= 1 and len(updates) == 1 and not grouped)


def update_of(node: Node, name: str) -> tuple[bool, float, float]:
    """Whether the weights are learned, their momentum and decay."""
    weights = node.weights[name]
    return weights.rate.base > 0, weights.momentum, weights.decay


# ---- layers --------------------------------------------------------------------------------------------------------

def learned(values: np.ndarray, update: tuple[bool, float, float]) -> nn.Parameter:
    """A parameter that knows its update."""
    parameter = nn.Parameter(torch.from_numpy(np.ascontiguousarray(values)), requires_grad=update[0])
    parameter.update = update
    return parameter


class Weighted(nn.Module):
    """A conv or fc layer: one tensor of weights for all that it reads, or one for each of its inputs."""

    def __init__(self, group: Group, arrays: Arrays):
        super().__init__()
        node = group.nodes[0]
        self.is_conv, self.shape = isinstance(node.layer, Conv), node.shape
        weights = [self.weights_of(node, node.inputs if group.each else group.inputs, arrays) for node in group.nodes]
        if group.each or reads_one_tensor(node):
            weights = [[np.concatenate(parts, 1)] for parts in weights]
        self.weights = nn.ParameterList(learned(np.concatenate(parts), update_of(node, f"W{i}")) for i, parts in enumerate(zip(*weights, strict=True)))
        biases = [arrays[f"{node.name}.b"].reshape(node.shape[0], -1) for node in group.nodes]
        biases = np.concatenate(biases)
        self.biases = learned(biases[:, 0] if biases.shape[1] == 1 else biases.reshape(-1, *node.shape[1:]), update_of(node, "b"))
        if self.is_conv:
            layer, columns = node.layer, len(group.nodes) if group.each else 1
            self.windows = [{"stride": layer.stride[i], "padding": layer.padding[i], "groups": columns * layer.groups[i]} for i in range(len(self.weights))]

    @staticmethod
    def weights_of(node: Node, inputs: list[Node], arrays: Arrays) -> list[np.ndarray]:
        """Weights (outputs, channels of the input, ...) of the inputs in this order; ours have the outputs last."""
        left, weights = list(node.inputs), []
        for source in inputs:
            index = left.index(source)
            left[index] = None  # the same layer may be read twice
            weights.append(np.moveaxis(arrays[f"{node.name}.W{index}"], -1, 0))
        return weights

    def forward(self, *inputs: Tensor) -> Tensor:
        if not self.is_conv:
            inputs = [x.flatten(1) for x in inputs]
        if len(self.weights) == 1 < len(inputs):
            inputs = [torch.cat(inputs, 1)]
        shared = self.biases.dim() == 1
        acts = self.apply_weights(0, inputs[0], self.biases if shared else None)
        for i in range(1, len(inputs)):
            acts = acts + self.apply_weights(i, inputs[i], None)
        return acts if shared else acts + self.biases

    def apply_weights(self, index: int, x: Tensor, biases: Tensor | None) -> Tensor:
        weights = self.weights[index]
        if not self.is_conv:
            return F.linear(x, weights, biases)
        window = self.windows[index]
        # The last window may hang over the far edge, where PyTorch has no padding of its own.
        below, right = (reach(size, weights.shape[-1], **window) - have for size, have in zip(self.shape[1:], x.shape[2:], strict=True))
        return F.conv2d(F.pad(x, (0, right, 0, below)) if right > 0 or below > 0 else x, weights, biases, **window)


def reach(outputs: int, filter_size: int, stride: int, padding: int, groups: int = 1) -> int:
    """Pixels of the image that the windows reach over, with zeros where there are none."""
    return (outputs - 1) * stride + filter_size - 2 * padding


class Pooling(nn.Module):
    def __init__(self, layer: Pool, outputs: tuple[int, int]):
        super().__init__()
        self.first, self.outputs = max(layer.start, 0), outputs
        self.window = {"kernel_size": layer.size_x, "stride": layer.stride, "padding": max(-layer.start, 0), "ceil_mode": True}
        self.function = F.max_pool2d
        if layer.pool == "avg":
            self.function = F.avg_pool2d
            self.window["count_include_pad"] = False

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = x[..., self.first :, self.first :]
        return self.function(x, **self.window)[..., : self.outputs[0], : self.outputs[1]]


class Norm(nn.Module):
    """Response normalization within each of `columns`; `form`: what the sum over the channels is made of.

    module           nn.LocalResponseNorm, as one would write it
    shifts           a sum of shifted tensors
    band             a 1x1 convolution with a band of ones, zero between columns
    band by column   the same as a grouped convolution
    """

    FORMS = ("module", "shifts", "band", "band by column")

    def __init__(self, layer: CrossMapNorm, channels: int, columns: int, form: str):
        super().__init__()
        self.form, self.columns, self.size, self.power, self.bias = form, columns, layer.size, layer.pow, layer.min_div
        self.factor, self.before = layer.scale / layer.size, layer.size // 2
        self.module = nn.LocalResponseNorm(layer.size, layer.scale, layer.pow, layer.min_div)
        c = torch.arange(channels)
        step, column = c - c[:, None], c // (channels // columns)
        band = (step >= -self.before) & (step < layer.size - self.before) & (column == column[:, None])
        if form == "band by column":
            band = torch.cat([band[column == i][:, column == i] for i in range(columns)])
        self.groups = channels // band.shape[1]
        self.register_buffer("band", band[:, :, None, None] * self.factor)
        self.register_buffer("biases", torch.full((channels,), layer.min_div))

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "module":
            n, c, h, w = x.shape
            return self.module(x.reshape(n * self.columns, c // self.columns, h, w)).reshape(n, c, h, w)
        denoms = self.shifts(x * x) if self.form == "shifts" else F.conv2d(x * x, self.band, self.biases, groups=self.groups)
        if self.power == 0.75:  # two roots take less than a power
            root = torch.rsqrt(denoms)
            return x * root * torch.sqrt(root)
        return x * denoms.pow(-self.power)

    def shifts(self, squares: Tensor) -> Tensor:
        columns = squares.unflatten(1, (self.columns, -1))
        channels = columns.shape[2]
        columns = F.pad(columns, (0, 0, 0, 0, self.before, self.size - 1 - self.before))
        total = sum(columns[:, :, i : i + channels] for i in range(self.size))
        return total.flatten(1, 2) * self.factor + self.bias


class Drop(nn.Module):
    def __init__(self, layer: Dropout):
        super().__init__()
        self.keep, self.enable, self.inverted = layer.keep, layer.enable, layer.inverted

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x, 1 - self.keep, self.training and self.enable)
        return x if self.inverted else x * self.keep


NEURONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "ident": lambda x, a, b: x, "logistic": lambda x, a, b: torch.sigmoid(x), "tanh": lambda x, a, b: a * torch.tanh(b * x),
    "softrelu": lambda x, a, b: F.softplus(x, threshold=4), "abs": lambda x, a, b: x.abs(), "square": lambda x, a, b: x * x,
    "sqrt": lambda x, a, b: x.sqrt(), "linear": lambda x, a, b: a * x + b, "brelu": lambda x, a, b: x.clamp(0, a)}


class Function(nn.Module):
    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def concatenated(*inputs: Tensor) -> Tensor:
    alike = len({x.shape[2:] for x in inputs}) == 1
    return torch.cat(inputs if alike else [x.flatten(1)[..., None, None] for x in inputs], 1)


def keeps_logits(node: Node) -> bool:
    """A softmax that only costs read is computed in them."""
    return isinstance(node.layer, Softmax) and all(reader.layer.is_cost for reader in node.readers)


def module_of(group: Group, arrays: Arrays, lrn: str) -> nn.Module:
    """What a group computes of the tensors that it reads."""
    node = group.nodes[0]
    match node.layer:
        case Conv() | Fc():
            return Weighted(group, arrays)
        case Pool() as layer:
            return Pooling(layer, node.shape[1:])
        case CrossMapNorm() as layer:
            return Norm(layer, group.channels, len(group.nodes), lrn)
        case NeuronLayer() as layer:
            kind, a, b = layer.constants().values()
            source = node.inputs[0]
            if kind == "relu":
                return nn.ReLU(inplace=isinstance(source.layer, (Conv, Fc)) and len(source.readers) == 1)
            return Function(lambda x: NEURONS[kind](x, a, b))
        case Dropout() as layer:
            return Drop(layer)
        case Concat():
            return Function(concatenated)
        case ElementwiseSum() as layer:
            return Function(lambda *inputs: sum(coeff * x for coeff, x in zip(layer.coeffs, inputs, strict=True)))
        case Softmax():
            return nn.Identity() if keeps_logits(node) else nn.Softmax(1)
        case LogisticRegression():
            probs = node.inputs[1]
            return Function((lambda labels, x: F.cross_entropy(x, labels)) if keeps_logits(probs) else (lambda labels, x: F.nll_loss(x.log(), labels)))
    raise SystemExit(f"torch_net: {node.layer.where}: [{node.name}] type={node.layer.kind}: PyTorch's net has no such layer yet")


class TorchNet(nn.Module):
    """`arrays`: weights by our names; `lrn`: one of Norm.FORMS. Of the data's tensors, by dataIdx, it computes the costs, each the mean over the images."""

    def __init__(self, graph: Graph, arrays: Arrays, lrn: str, merged: bool):
        super().__init__()
        groups = groups_of(graph, merged)
        self.layers = nn.ModuleList(nn.Identity() if group.nodes[0].layer.on_host else module_of(group, arrays, lrn) for group in groups)
        place = {group: i for i, group in enumerate(groups)}
        self.reads = [[(place[source], *(() if last - first == source.channels else (first, last))) for source, first, last in group.reads] for group in groups]
        self.data = {i: group.nodes[0].layer.data_idx for group, i in place.items() if group.nodes[0].layer.on_host}
        costs = {i: group.nodes[0] for group, i in place.items() if group.nodes[0].layer.is_cost}
        self.costs = {node.name: i for i, node in costs.items()}
        self.coeffs = [node.layer.coeff for node in costs.values()]
        # What the costs judge: the layer, and where it is read.
        self.scores = {}
        for i, node in costs.items():
            probs, read = node.inputs[1], self.reads[i][1]
            source, read = (probs.inputs[0], self.reads[read[0]][0]) if keeps_logits(probs) else (probs, read)
            self.scores[source.name] = read
        self.has_columns, self.has_norms = any(len(group.nodes) > 1 for group in groups), any(isinstance(layer, Norm) for layer in self.layers)

    @staticmethod
    def part(values: list[Tensor], group: int, *channels: int) -> Tensor:
        return values[group][:, slice(*channels)] if channels else values[group]

    def values(self, data: tuple[Tensor, ...]) -> list[Tensor]:
        """What every group computes."""
        values: list[Tensor] = []
        for i, (layer, reads) in enumerate(zip(self.layers, self.reads, strict=True)):
            values.append(data[self.data[i]] if i in self.data else layer(*(self.part(values, *read) for read in reads)))
        return values

    def forward(self, *data: Tensor) -> list[Tensor]:
        values = self.values(data)
        return [values[i] for i in self.costs.values()]


def image_size(graph: Graph) -> tuple[int, int]:
    """Height and width at which the images are handed in: with the zeros on the far sides that all their readers want."""
    images = next(node for node in graph.data if node.layer.data_idx == 0)
    wanted = set()
    for node in images.readers:
        if isinstance(node.layer, Conv):
            layer, i = node.layer, node.inputs.index(images)
            wanted.add(tuple(reach(size, layer.filter_size[i], layer.stride[i], layer.padding[i]) for size in node.shape[1:]))
        else:
            wanted.add(images.shape[1:])
    return wanted.pop() if len(wanted) == 1 else images.shape[1:]
