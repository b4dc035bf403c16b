"""Response normalization (Krizhevsky et al. 2012, section 3.3): across maps, or within each."""
from __future__ import annotations

from dataclasses import dataclass

from . import BadKey, Layer, Shape, key, layer


@dataclass
class Normalization(Layer):
    """The keys of all normalizations, and the denominators they keep."""

    needs_params = True

    size: int = key(help="side of the window: channels, or pixels down and across", least=1)
    channels: int = key(0, "channels of the input; checked where given")
    blocked: bool = key(False, "cmrnorm only: windows are blocks of `size` channels side by side, and not around each channel")
    scale: float = key(help="alpha times the size of the window", params=True)
    pow: float = key(help="beta", params=True)
    min_div: float = key(1.0, "k, the constant in the denominator", params=True)

    def check(self) -> None:
        if self.blocked:
            raise BadKey("blocked", f"found 1, expected 0: a layer of type {self.kind} has a window around each pixel; blocks are cmrnorm's")

    def shape(self, image: Shape) -> Shape:
        if self.channels and self.channels != image[0]:
            raise ValueError(f"channels={self.channels}, but its input {self.inputs[0]} has {image[0]}")
        return image

    def saved(self, image: Shape) -> dict[str, Shape]:
        return {"denoms": image}

    def constants(self) -> dict:
        return {"size": self.size, "scale": self.scale / self.size**2, "power": self.pow}


@layer("cmrnorm")
class CrossMapNorm(Normalization):
    """acts = inputs / (minDiv + scale / size * sum of the squares of `size` neighbouring channels)^pow.

    The config's scale is divided by size, as in every program of the family: the paper's alpha = 1e-4 with n = 5,
    taken literally, is scale=5e-4.
    """

    def title(self) -> str:
        return "cross-map response-normalization layer"

    def check(self) -> None:
        pass

    def shape(self, image: Shape) -> Shape:
        super().shape(image)
        if not 2 <= self.size <= image[0]:
            raise ValueError(f"size={self.size}, expected 2 to {image[0]}, the channels of {self.inputs[0]}")
        return image

    def constants(self) -> dict:
        return {"size": self.size, "scale": self.scale / self.size, "power": self.pow, "blocked": self.blocked}

    def forward(self, ops, t, training: bool) -> None:
        ops.lrn_forward(t.inputs[0], t.saved["denoms"], t.acts, **self.constants(), bias=self.min_div)

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            ops.lrn_backward(t.inputs[0], t.saved["denoms"], t.acts_grad, t.inputs_grad[0], **self.constants())


@layer("rnorm")
class SameMapNorm(Normalization):
    """acts = inputs / (minDiv + scale / size^2 * sum of the squares of size x size neighbouring pixels of the map)^pow.

    The window starts size / 2 pixels above and left of the pixel, and ends at the image's edge; the config's scale is
    divided by size^2 everywhere.
    """

    def title(self) -> str:
        return "response-normalization layer"

    def forward(self, ops, t, training: bool) -> None:
        ops.spatial_lrn_forward(t.inputs[0], t.saved["denoms"], t.acts, **self.constants(), bias=self.min_div)

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            ops.spatial_lrn_backward(t.inputs[0], t.saved["denoms"], t.acts_grad, t.inputs_grad[0], **self.constants())


@layer("cnorm")
class ContrastNorm(Normalization):
    """Local contrast normalization: rnorm whose squares are of each pixel's difference from the mean of its own window.

    The inputs themselves are divided, not the differences. The gradient holds the means constant, as in every program of
    the family, so `--check-grads` finds the gradients of the layers below it wrong by as much.
    """

    def title(self) -> str:
        return "contrast-normalization layer"

    def saved(self, image: Shape) -> dict[str, Shape]:
        return {"means": image, "denoms": image}

    def forward(self, ops, t, training: bool) -> None:
        ops.avg_pool_forward(t.inputs[0], t.saved["means"], size=self.size, stride=1, start=-(self.size // 2))
        ops.lcn_forward(t.inputs[0], t.saved["means"], t.saved["denoms"], t.acts, **self.constants(), bias=self.min_div)

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            ops.lcn_backward(t.inputs[0], t.saved["means"], t.saved["denoms"], t.acts_grad, t.inputs_grad[0], **self.constants())
