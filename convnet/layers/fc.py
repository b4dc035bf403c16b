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
