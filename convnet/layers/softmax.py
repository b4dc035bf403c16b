"""Softmax."""
from __future__ import annotations

from math import prod

from . import Layer, Shape, layer


@layer("softmax")
class Softmax(Layer):
    """Probabilities of the classes: of all values of its input, which are those of an fc layer as a rule."""

    def shape(self, inputs: Shape) -> Shape:
        return (prod(inputs), 1, 1)

    def forward(self, ops, t, training: bool) -> None:
        ops.softmax_forward(t.inputs[0].reshaped(*t.acts.shape), t.acts)

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            ops.softmax_backward(t.acts, t.acts_grad, t.inputs_grad[0].reshaped(*t.acts.shape))
