"""Convolution (Krizhevsky et al. 2012, section 3)."""
from __future__ import annotations

from ..shapes import conv_shape
from . import Shape, describe, key, layer
from .weights import WeightLayer


@layer("conv")
class Conv(WeightLayer):
    """The sum of a convolution of each input, plus biases."""

    input_count = None

    filters: tuple[int, ...] = key(help="number of filters of each group", least=1)
    filter_size: tuple[int, ...] = key(help="height and width of a filter", least=1)
    channels: tuple[int, ...] = key((), "channels of the input; checked where given")
    stride: tuple[int, ...] = key((1,), "pixels from one application of the filter to the next", least=1)
    padding: tuple[int, ...] = key((0,), "pixels of zeros around the image", least=0)
    groups: tuple[int, ...] = key((1,), "convolutions side by side, each of its own channels and filters", least=1)
    filter_channels: tuple[int, ...] = key((), "channels that a filter sees: channels / groups; checked where given")
    shared_biases: bool = key(True, "one bias for a map instead of one for each of its pixels")
    partial_sum: tuple[int, ...] = key((0,), "a tuning knob of the 2012 program; ignored")
    sum_width: tuple[int, ...] = key((0,), "a tuning knob of cuda-convnet2; ignored")

    def title(self) -> str:
        return "convolutional layer"

    def shape(self, *inputs: Shape) -> Shape:
        shapes = []
        for i, (channels, height, width) in enumerate(inputs):
            if self.channels and self.channels[i] != channels:
                raise ValueError(f"channels={self.channels[i]}, but its input {self.inputs[i]} has {channels}")
            if channels % self.groups[i]:
                raise ValueError(f"groups={self.groups[i]}, expected a divisor of the {channels} channels of {self.inputs[i]}")
            if self.filter_channels and self.filter_channels[i] * self.groups[i] != channels:
                raise ValueError(f"filterChannels={self.filter_channels[i]}, expected channels / groups = {channels // self.groups[i]}")
            shapes.append(conv_shape((channels, height, width, 1), self.weight_shape(i, inputs[i]), stride=self.stride[i], padding=self.padding[i])[:3])
        if len(set(shapes)) > 1:
            raise ValueError(f"outputs of {' and '.join(describe(s) for s in shapes)} for its inputs, expected equal ones")
        return shapes[0]

    def weight_shape(self, index: int, shape: Shape) -> tuple[int, ...]:
        size = self.filter_size[index]
        return (shape[0] // self.groups[index], size, size, self.filters[index] * self.groups[index])

    def bias_count(self, *inputs: Shape) -> int:
        filters, height, width = self.shape(*inputs)
        return filters if self.shared_biases else filters * height * width

    def window(self, index: int) -> dict[str, int]:
        return {"stride": self.stride[index], "padding": self.padding[index], "groups": self.groups[index]}

    def forward(self, ops, t, training: bool) -> None:
        for i, images in enumerate(t.inputs):
            ops.conv_forward(images, t.weights[f"W{i}"], t.acts, **self.window(i))
        ops.bias_forward(t.weights["b"], t.acts)

    def backward(self, ops, t) -> None:
        ops.bias_backward(t.acts_grad, t.weights_grad["b"])
        for i, images in enumerate(t.inputs):
            ops.conv_backward_filters(images, t.acts_grad, t.weights_grad[f"W{i}"], **self.window(i))
            if t.inputs_grad[i]:
                ops.conv_backward_data(t.acts_grad, t.weights[f"W{i}"], t.inputs_grad[i], **self.window(i))
