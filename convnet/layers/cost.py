"""Costs: sums over the images, each a few float64 numbers, of which the first is what training makes small."""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from . import Layer, Shape, describe, key, layer, same_shapes


@dataclass
class Cost(Layer):
    """What every cost has. Its shape is (how many numbers its op writes, 1, 1)."""

    needs_params = True
    is_cost = True
    label_kind: ClassVar[str] = ""  # of the labels that its first input holds, "index" or "vector"; "": it reads none
    score: ClassVar[int] = 0  # which of its numbers tells how good a net is: the checkpoint where it is least is the best

    coeff: float = key(1.0, "factor of the gradient; the reported cost is not multiplied", params=True)

    def names(self) -> list[str]:
        """What its numbers are, as far as they are worth printing."""
        raise NotImplementedError


@layer("cost.logreg")
class LogisticRegression(Cost):
    """Multinomial logistic regression: inputs=labels,probs. Reports -log probability, top-1 and top-k errors."""

    input_count = 2
    label_kind = "index"
    score = 1

    topk: int = key(1, "the third number counts a label among the topk likeliest as right", params=True)

    def title(self) -> str:
        return "logistic regression cost"

    def shape(self, labels: Shape, probs: Shape) -> Shape:
        if labels != (1, 1, 1):
            raise ValueError(f"its first input {self.inputs[0]} is {describe(labels)}, expected labels, one number an image")
        if not 1 <= self.topk <= probs[0]:
            raise ValueError(f"topk={self.topk}, expected 1 to {probs[0]}, the classes of {self.inputs[1]}")
        return (3, 1, 1)

    def names(self) -> list[str]:
        return ["logprob", "top-1 error", f"top-{self.topk} error"][: 3 if self.topk > 1 else 2]

    def forward(self, ops, t, training: bool) -> None:
        ops.logreg_forward(*t.inputs, t.acts, topk=self.topk)

    def backward(self, ops, t) -> None:
        if t.inputs_grad[1]:
            ops.logreg_backward(*t.inputs, t.inputs_grad[1], coeff=self.coeff)


@layer("cost.crossent2", "cost.bce")
class BinaryCrossEntropy(Cost):
    """Cross-entropy of labels that are 0 or 1 for each output by itself: inputs=labels,probs, mostly of logistic neurons.

    Reports the sum over the outputs, the share of outputs on the wrong side of 1/2, and the share of images whose
    likeliest output has the label 0.
    """

    input_count = 2
    label_kind = "vector"
    score = 1

    pos_weight: float = key(1.0, "how much more a label of 1 counts than one of 0", params=True)

    def title(self) -> str:
        return "binary cross-entropy cost"

    def shape(self, labels: Shape, probs: Shape) -> Shape:
        same_shapes(labels, probs)
        return (3, 1, 1)

    def names(self) -> list[str]:
        return ["cross-entropy", "wrong outputs", "missed images"]

    def forward(self, ops, t, training: bool) -> None:
        ops.bce_forward(*t.inputs, t.acts, positive_weight=self.pos_weight)

    def backward(self, ops, t) -> None:
        if t.inputs_grad[1]:
            ops.bce_backward(*t.inputs, t.inputs_grad[1], coeff=self.coeff, positive_weight=self.pos_weight)


@layer("cost.rflickr")
class RobustRegression(Cost):
    """log(1 + (outputs - labels)^2), summed over the outputs: inputs=labels,outputs. What is far off counts for little."""

    input_count = 2
    label_kind = "vector"

    def title(self) -> str:
        return "robust regression cost"

    def shape(self, labels: Shape, outputs: Shape) -> Shape:
        same_shapes(labels, outputs)
        return (1, 1, 1)

    def names(self) -> list[str]:
        return ["robust squares"]

    def forward(self, ops, t, training: bool) -> None:
        ops.rflickr_forward(*t.inputs, t.acts)

    def backward(self, ops, t) -> None:
        if t.inputs_grad[1]:
            ops.rflickr_backward(*t.inputs, t.inputs_grad[1], coeff=self.coeff)


@layer("cost.sum2")
class SumOfSquares(Cost):
    """The sum of the squares of its input."""

    def title(self) -> str:
        return "sum-of-squares cost"

    def shape(self, inputs: Shape) -> Shape:
        return (1, 1, 1)

    def names(self) -> list[str]:
        return ["squares"]

    def forward(self, ops, t, training: bool) -> None:
        ops.sum2_forward(t.inputs[0], t.acts)

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            ops.scaled_copy(t.inputs[0], t.inputs_grad[0], factor=2 * self.coeff)


@layer("cost.gsum2")
class GatedSumOfSquares(Cost):
    """The sum of the squares of its second input, those of an image times the gate that its first input is: inputs=gates,outputs."""

    input_count = 2

    def title(self) -> str:
        return "gated sum-of-squares cost"

    def shape(self, gates: Shape, inputs: Shape) -> Shape:
        if gates != (1, 1, 1):
            raise ValueError(f"its first input {self.inputs[0]} is {describe(gates)}, expected a gate, one number an image")
        return (1, 1, 1)

    def names(self) -> list[str]:
        return ["gated squares"]

    def forward(self, ops, t, training: bool) -> None:
        ops.gsum2_forward(*t.inputs, t.acts)

    def backward(self, ops, t) -> None:
        gates, inputs = t.inputs
        if t.inputs_grad[0]:
            ops.gsum2_backward_gates(inputs, t.inputs_grad[0], coeff=self.coeff)
        if t.inputs_grad[1]:
            ops.gsum2_backward_inputs(gates, inputs, t.inputs_grad[1], coeff=self.coeff)
