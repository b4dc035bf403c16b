"""Layers that join their inputs."""
from __future__ import annotations

from math import prod

from . import BadKey, Layer, Shape, key, layer, same_shapes


@layer("concat", "pass")
class Concat(Layer):
    """The channels of its inputs, one after the other. pass: cuda-convnet2's word for it."""

    input_count = None

    def title(self) -> str:
        return "concatenation layer"

    def shape(self, *inputs: Shape) -> Shape:
        if len({shape[1:] for shape in inputs}) == 1:
            return (sum(shape[0] for shape in inputs), *inputs[0][1:])
        return (sum(map(prod, inputs)), 1, 1)

    def parts(self, whole, tensors) -> list:
        """The slices of `whole` that hold the tensors."""
        parts, first = [], 0
        for tensor in tensors:
            last = first + prod(tensor.shape[:-1]) // prod(whole.shape[1:-1])
            parts.append(whole.slice(first, last).reshaped(*tensor.shape))
            first = last
        return parts

    def forward(self, ops, t, training: bool) -> None:
        for part, inputs in zip(self.parts(t.acts, t.inputs), t.inputs, strict=True):
            ops.scaled_copy(inputs, part, factor=1.0)

    def backward(self, ops, t) -> None:
        for part, inputs_grad in zip(self.parts(t.acts_grad, t.inputs), t.inputs_grad, strict=True):
            if inputs_grad:
                ops.scaled_copy(part, inputs_grad, factor=1.0)


@layer("eltsum")
class ElementwiseSum(Layer):
    """The sum of its inputs, each times its coefficient."""

    input_count = None

    coeffs: tuple[float, ...] = key((1.0,), "factor of each input", either=True)

    def title(self) -> str:
        return "elementwise sum layer"

    def shape(self, *inputs: Shape) -> Shape:
        return same_shapes(*inputs)

    def forward(self, ops, t, training: bool) -> None:
        for inputs, coeff in zip(t.inputs, self.coeffs, strict=True):
            ops.scaled_copy(inputs, t.acts, factor=coeff)

    def backward(self, ops, t) -> None:
        for inputs_grad, coeff in zip(t.inputs_grad, self.coeffs, strict=True):
            if inputs_grad:
                ops.scaled_copy(t.acts_grad, inputs_grad, factor=coeff)


@layer("eltmax")
class ElementwiseMax(Layer):
    """The largest of its inputs, element by element. Inputs that are equal to it all get its full gradient, as in the original."""

    input_count = None

    def title(self) -> str:
        return "elementwise max layer"

    def check(self) -> None:
        if len(self.inputs) < 2:
            raise BadKey("inputs", f"found {self.inputs[0]} alone, expected two inputs or more")

    def shape(self, *inputs: Shape) -> Shape:
        return same_shapes(*inputs)

    def saved(self, *inputs: Shape) -> dict[str, Shape]:
        """max2, max3, ...: the largest of the first 2, 3, ... inputs; that of all are the acts."""
        return {f"max{i}": inputs[0] for i in range(2, len(inputs))}

    def forward(self, ops, t, training: bool) -> None:
        best = t.inputs[0]
        for inputs, larger in zip(t.inputs[1:], [*t.saved.values(), t.acts], strict=True):
            ops.eltmax_forward(best, inputs, larger)
            best = larger

    def backward(self, ops, t) -> None:
        for inputs, inputs_grad in zip(t.inputs, t.inputs_grad, strict=True):
            if inputs_grad:
                ops.eltmax_backward(inputs, t.acts, t.acts_grad, inputs_grad)
