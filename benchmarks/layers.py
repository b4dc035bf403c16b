"""The conv layers that are timed: AlexNet's (Krizhevsky et al. 2012, on one GPU's worth of images) and the CIFAR nets'."""
from __future__ import annotations

from dataclasses import dataclass


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


LAYERS = [
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
