"""Locally connected layers: convolutions that share nothing between the pixels."""
from __future__ import annotations

from math import prod

from . import Limits, Shape, layer
from .conv import FilterLayer


@layer("local")
class Local(FilterLayer):
    """As conv, but each pixel of a map has filters and a bias of its own."""

    def title(self) -> str:
        return "locally-connected layer"

    def weight_shape(self, index: int, shape: Shape) -> tuple[int, ...]:
        """(pixels of acts, channels of a group, height, width, filters of all groups)"""
        _, height, width = self.shape_of(index, shape)
        return (height * width, *self.filter_shape(index, shape))

    def bias_count(self, *inputs: Shape) -> int:
        return prod(self.shape(*inputs))

    def limits(self, index: int, shape: tuple[int, ...], matrices: int = 1) -> Limits:
        """Each pixel's filters are a matrix of their own."""
        return super().limits(index, shape, shape[0])

    def products(self, ops) -> tuple:
        return ops.local_forward, ops.local_backward_data, ops.local_backward_weights
