"""Response normalization (Krizhevsky et al. 2012, section 3.3)."""
from __future__ import annotations

from . import Layer, Shape, key, layer


@layer("cmrnorm")
class CrossMapNorm(Layer):
    """acts = inputs / (minDiv + scale / size * sum of the squares of `size` neighbouring channels)^pow.

    The config's scale is divided by size, as in every program of the family: the paper's alpha = 1e-4 with n = 5,
    taken literally, is scale=5e-4.
    """

    needs_params = True

    size: int = key(help="channels in the window")
    channels: int = key(0, "channels of the input; checked where given")
    blocked: bool = key(False, "windows are blocks of `size` channels side by side, and not around each channel")
    scale: float = key(help="alpha times size", params=True)
    pow: float = key(help="beta", params=True)
    min_div: float = key(1.0, "k, the constant in the denominator", params=True)

    def title(self) -> str:
        return "cross-map response-normalization layer"

    def shape(self, image: Shape) -> Shape:
        if self.channels and self.channels != image[0]:
            raise ValueError(f"channels={self.channels}, but its input {self.inputs[0]} has {image[0]}")
        if not 2 <= self.size <= image[0]:
            raise ValueError(f"size={self.size}, expected 2 to {image[0]}, the channels of {self.inputs[0]}")
        return image

    def saved(self, image: Shape) -> dict[str, Shape]:
        return {"denoms": image}

    def constants(self) -> dict:
        return {"size": self.size, "scale": self.scale / self.size, "power": self.pow, "blocked": self.blocked}

    def forward(self, ops, t, training: bool) -> None:
        ops.lrn_forward(t.inputs[0], t.saved["denoms"], t.acts, **self.constants(), bias=self.min_div)

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            ops.lrn_backward(t.inputs[0], t.saved["denoms"], t.acts_grad, t.inputs_grad[0], **self.constants())
