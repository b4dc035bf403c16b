"""Costs."""
from __future__ import annotations

from . import Layer, Shape, key, layer


@layer("cost.logreg")
class LogisticRegression(Layer):
    """Multinomial logistic regression: inputs=labels,probs. Reports -log probability, top-1 and top-k errors."""

    needs_params = True
    input_count = 2
    is_cost = True

    coeff: float = key(1.0, "factor of the gradient; the reported cost is not multiplied", params=True)
    topk: int = key(1, "the third number counts a label among the topk likeliest as right", params=True)

    def title(self) -> str:
        return "logistic regression cost"

    def shape(self, labels: Shape, probs: Shape) -> Shape:
        if labels != (1, 1, 1):
            raise ValueError(f"its first input {self.inputs[0]} is {'x'.join(map(str, labels))}, expected labels, one number an image")
        if not 1 <= self.topk <= probs[0]:
            raise ValueError(f"topk={self.topk}, expected 1 to {probs[0]}, the classes of {self.inputs[1]}")
        return (3, 1, 1)

    def names(self) -> list[str]:
        """What the costs are, as far as they are worth printing."""
        return ["logprob", "top-1 error", f"top-{self.topk} error"][: 3 if self.topk > 1 else 2]

    def forward(self, ops, t, training: bool) -> None:
        ops.logreg_forward(*t.inputs, t.acts, topk=self.topk)

    def backward(self, ops, t) -> None:
        if t.inputs_grad[1]:
            ops.logreg_backward(*t.inputs, t.inputs_grad[1], coeff=self.coeff)
