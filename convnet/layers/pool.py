"""Max- and average-pooling over overlapping windows (Krizhevsky et al. 2012, section 3.4)."""
from __future__ import annotations

from ..shapes import pool_shape
from . import Layer, Shape, key, layer


@layer("pool")
class Pool(Layer):
    """Windows of sizeX pixels every stride pixels from start on, clipped to the image."""

    pool: str = key(help="max or avg", choices=("max", "avg"))
    size_x: int = key(help="height and width of a window", least=1)
    stride: int = key(help="pixels from one window to the next", least=1)
    start: int = key(0, "first pixel of the first window")
    outputs_x: int = key(0, "number of windows down and across; 0: as many as cover the image", least=0)
    channels: int = key(0, "channels of the input; checked where given")

    def title(self) -> str:
        return f"{self.pool}-pooling layer"

    def shape(self, image: Shape) -> Shape:
        if self.channels and self.channels != image[0]:
            raise ValueError(f"channels={self.channels}, but its input {self.inputs[0]} has {image[0]}")
        if self.size_x > min(image[1:]):
            raise ValueError(f"sizeX={self.size_x}, expected at most the {min(image[1:])} pixels of {self.inputs[0]}")
        shape = pool_shape((*image, 1), **self.window())[:3]
        return (image[0], self.outputs_x, self.outputs_x) if self.outputs_x else shape

    def window(self) -> dict[str, int]:
        return {"size": self.size_x, "stride": self.stride, "start": self.start}

    def forward(self, ops, t, training: bool) -> None:
        if self.pool == "max":
            ops.max_pool_forward(t.inputs[0], t.acts, **self.window())
        else:
            ops.avg_pool_forward(t.inputs[0], t.acts, **self.window())

    def backward(self, ops, t) -> None:
        if not t.inputs_grad[0]:
            return
        if self.pool == "max":
            ops.max_pool_backward(t.inputs[0], t.acts, t.acts_grad, t.inputs_grad[0], **self.window())
        else:
            ops.avg_pool_backward(t.acts_grad, t.inputs_grad[0], **self.window())
