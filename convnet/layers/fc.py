"""Fully connected layers."""
from __future__ import annotations

from math import prod

from . import Shape, key, layer
from .weights import WeightLayer


@layer("fc")
class Fc(WeightLayer):
    """acts = sum over the inputs of W_i^T inputs_i, plus biases."""

    input_count = None

    outputs: int = key(help="number of units", least=1)

    def title(self) -> str:
        return "fully-connected layer"

    def shape(self, *inputs: Shape) -> Shape:
        return (self.outputs, 1, 1)

    def weight_shape(self, index: int, shape: Shape) -> tuple[int, ...]:
        return (prod(shape), self.outputs)

    def bias_count(self, *inputs: Shape) -> int:
        return self.outputs

    def forward(self, ops, t, training: bool) -> None:
        for i, inputs in enumerate(t.inputs):
            ops.fc_forward(inputs, t.weights[f"W{i}"], t.acts)
        ops.bias_forward(t.weights["b"], t.acts)

    def backward(self, ops, t) -> None:
        ops.bias_backward(t.acts_grad, t.weights_grad["b"])
        for i, inputs in enumerate(t.inputs):
            ops.fc_backward_weights(inputs, t.acts_grad, t.weights_grad[f"W{i}"])
            if t.inputs_grad[i]:
                ops.fc_backward_data(t.acts_grad, t.weights[f"W{i}"], t.inputs_grad[i])


@layer("sfc")
class SplitFc(Fc):
    """`parts` fully connected layers side by side, each of its part of every input, with `outputs` units each."""

    parts: int = key(help="how many; the values of every input are divided equally among them", least=1)

    def title(self) -> str:
        return "split fully-connected layer"

    def shape(self, *inputs: Shape) -> Shape:
        for name, shape in zip(self.inputs, inputs, strict=True):
            if prod(shape) % self.parts:
                raise ValueError(f"parts={self.parts}, but its input {name} has {prod(shape)} values, which are not so many equal parts")
        return (self.outputs * self.parts, 1, 1)

    def bias_count(self, *inputs: Shape) -> int:
        return self.outputs * self.parts

    def split(self, tensor) -> list:
        """The rows of each part: of an input, a gradient, or weights, which are those of all parts one after the other."""
        rows = tensor.reshaped(prod(tensor.shape[:-1]), tensor.shape[-1])
        step = rows.shape[0] // self.parts
        return [rows.slice(first, first + step) for first in range(0, rows.shape[0], step)]

    def forward(self, ops, t, training: bool) -> None:
        for i, inputs in enumerate(t.inputs):
            for tensors in zip(self.split(inputs), self.split(t.weights[f"W{i}"]), self.split(t.acts), strict=True):
                ops.fc_forward(*tensors)
        ops.bias_forward(t.weights["b"], t.acts)

    def backward(self, ops, t) -> None:
        ops.bias_backward(t.acts_grad, t.weights_grad["b"])
        for i, inputs in enumerate(t.inputs):
            for tensors in zip(self.split(inputs), self.split(t.acts_grad), self.split(t.weights_grad[f"W{i}"]), strict=True):
                ops.fc_backward_weights(*tensors)
            if t.inputs_grad[i]:
                for tensors in zip(self.split(t.acts_grad), self.split(t.weights[f"W{i}"]), self.split(t.inputs_grad[i]), strict=True):
                    ops.fc_backward_data(*tensors)
