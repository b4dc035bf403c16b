"""The ops that are timed: those of AlexNet (Krizhevsky et al. 2012), its two columns as one net, and of the CIFAR nets."""
from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import prod


@dataclass(frozen=True)
class ConvLayer:
    """One conv layer: a square image, square filters. `padding` and `groups` as in layers.cfg."""

    name: str
    channels: int
    size: int
    filters: int
    filter_size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def acts_size(self) -> int:
        return 1 + -(-(self.size + 2 * self.padding - self.filter_size) // self.stride)

    def images_shape(self, images: int) -> tuple[int, ...]:
        return (self.channels, self.size, self.size, images)

    @property
    def filters_shape(self) -> tuple[int, ...]:
        return (self.channels // self.groups, self.filter_size, self.filter_size, self.filters)

    def acts_shape(self, images: int) -> tuple[int, ...]:
        return (self.filters, self.acts_size, self.acts_size, images)

    @property
    def scalars(self) -> dict[str, int]:
        return {"stride": self.stride, "padding": self.padding, "groups": self.groups}

    def flops(self, images: int) -> int:
        """Multiplications and additions of each of the three ops; taps on the padding are none."""
        first = [y * self.stride - self.padding for y in range(self.acts_size)]
        taps = sum(max(0, min(self.size, v + self.filter_size) - max(0, v)) for v in first)  # along one dimension
        return 2 * taps**2 * self.channels // self.groups * self.filters * images


CONVS = [
    ConvLayer("alexnet-conv1", 3, 224, 96, 11, stride=4),
    ConvLayer("alexnet-conv2", 96, 27, 256, 5, padding=2, groups=2),
    ConvLayer("alexnet-conv3", 256, 13, 384, 3, padding=1),
    ConvLayer("alexnet-conv4", 384, 13, 384, 3, padding=1, groups=2),
    ConvLayer("alexnet-conv5", 384, 13, 256, 3, padding=1, groups=2),
    # layers-80sec.cfg and layers-18pct.cfg
    ConvLayer("cifar-conv1", 3, 32, 32, 5, padding=2),
    ConvLayer("cifar-conv2", 32, 16, 32, 5, padding=2),
    ConvLayer("cifar-conv3", 32, 8, 64, 5, padding=2),
]


@dataclass(frozen=True)
class Case:
    """An op, or a forward op and its backward together, on a layer.

    shape     (channels, height, width) of the layer's inputs
    settings  what else there is to say; peers/torch_ops.py reads it too
    flops     multiplications and additions that are executed for an image; 0: not counted
    """

    layer: str
    op: str
    shape: tuple[int, int, int]
    settings: dict = field(default_factory=dict)
    flops: int = 0

    @property
    def name(self) -> str:
        return f"{self.layer} {self.op}"


def cases() -> list[Case]:
    """All of them, layer by layer."""
    found = [Case(layer.name, op, layer.images_shape(1)[:3], {**asdict(layer), "acts_size": layer.acts_size}, layer.flops(1))
             for layer in CONVS for op in ("conv_forward", "conv_backward_data", "conv_backward_filters")]
    for layer, shape, outputs in (("alexnet-fc6", (256, 6, 6), 4096), ("alexnet-fc7", (4096, 1, 1), 4096), ("alexnet-fc8", (4096, 1, 1), 1000), ("cifar-fc", (64, 4, 4), 10)):
        found += [Case(layer, op, shape, {"outputs": outputs}, 2 * prod(shape) * outputs) for op in ("fc_forward", "fc_backward_data", "fc_backward_weights")]
    norms = (("alexnet-norm1", (96, 55, 55)), ("alexnet-norm2", (256, 27, 27)), ("cifar-norm1", (32, 16, 16)), ("cifar-norm2", (64, 8, 8)))
    found += [Case(layer, "lrn", shape, {"size": 5}) for layer, shape in norms]
    found += [Case(layer, "lrn_max_pool", shape, {"size": 5, "pool_size": 3, "stride": 2}) for layer, shape in norms[:2]]
    pools = (("alexnet-pool1", (96, 55, 55)), ("alexnet-pool2", (256, 27, 27)), ("alexnet-pool5", (256, 13, 13)), ("cifar-pool1", (32, 32, 32)),
             ("cifar-pool2", (32, 16, 16)), ("cifar-pool3", (64, 8, 8)))
    found += [Case(layer, op, shape, {"size": 3, "stride": 2}) for op in ("max_pool", "avg_pool") for layer, shape in pools]
    found += [Case(layer, "relu", shape) for layer, shape in (("alexnet-conv1", (96, 55, 55)), ("alexnet-conv3", (384, 13, 13)), ("cifar-conv2", (32, 16, 16)))]
    found.append(Case("alexnet-fc6", "dropout", (4096, 1, 1)))
    found += [Case(layer, "softmax_cost", (classes, 1, 1)) for layer, classes in (("alexnet-fc8", 1000), ("cifar-fc", 10))]
    found += [Case(layer, "sgd", shape) for layer, shape in (("alexnet-fc6", (9216, 1, 4096)), ("alexnet-conv3", (256, 9, 384)), ("cifar-conv2", (32, 25, 32)))]
    return found
