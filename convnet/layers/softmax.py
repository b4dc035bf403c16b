"""Softmax."""
from __future__ import annotations

from . import Layer, Shape, layer


@layer("softmax")
class Softmax(Layer):
    """Probabilities of the classes."""

    def shape(self, inputs: Shape) -> Shape:
        if inputs[1:] != (1, 1):
            raise ValueError(f"its input {self.inputs[0]} is {'x'.join(map(str, inputs))}, expected one value for each class, as of an fc layer")
        return inputs

    def forward(self, ops, t, training: bool) -> None:
        ops.softmax_forward(t.inputs[0], t.acts)

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            ops.softmax_backward(t.acts, t.acts_grad, t.inputs_grad[0])
