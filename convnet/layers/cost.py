"""Costs: sums over the images, each a few float64 numbers, of which the first is what training makes small."""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from . import Layer, Shape, describe, key, layer


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
