"""Dropout (Hinton et al. 2012)."""
from __future__ import annotations

from . import BadKey, Layer, Shape, key, layer


@layer("hs", "dropout", "dropout2")
class Dropout(Layer):
    """Keeps each unit with probability `keep` in training.

    hs (2012) and dropout2 (cuda-convnet2): when testing, acts are multiplied by keep.
    dropout (cuda-convnet2): acts are divided by keep in training, and left alone when testing.
    """

    needs_params = True

    keep: float = key(0.5, "probability of keeping a unit", either=True)
    enable: bool = key(True, "false: as when testing, in training too", params=True)

    def check(self) -> None:
        if not 0 < self.keep <= 1:
            raise BadKey("keep", f"found {self.keep:g}, expected a number above 0 and up to 1")

    def shape(self, image: Shape) -> Shape:
        return image

    @property
    def inverted(self) -> bool:
        return self.kind == "dropout"

    def draw(self, ops, t, source, target) -> None:
        ops.dropout(source, t.state, target, keep=self.keep, scale=1 / self.keep if self.inverted else 1.0, **t.random("dropout"))

    def forward(self, ops, t, training: bool) -> None:
        if training and self.enable:
            self.draw(ops, t, t.inputs[0], t.acts)
        else:
            ops.scaled_copy(t.inputs[0], t.acts, factor=1.0 if self.inverted else self.keep)

    def backward(self, ops, t) -> None:
        if not t.inputs_grad[0]:
            return
        if t.training and self.enable:
            self.draw(ops, t, t.acts_grad, t.inputs_grad[0])
        else:
            ops.scaled_copy(t.acts_grad, t.inputs_grad[0], factor=1.0 if self.inverted else self.keep)
