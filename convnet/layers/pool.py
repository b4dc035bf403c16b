"""Pooling over overlapping windows (Krizhevsky et al. 2012, section 3.4), of pixels or of channels."""
from __future__ import annotations

from ..shapes import pool_shape
from . import BadKey, Layer, Shape, key, layer


@layer("pool")
class Pool(Layer):
    """Windows of sizeX pixels every stride pixels from start on, clipped to the image.

    max gives the largest input, maxabs the one farthest from 0, avg the mean. rand takes in training one of the inputs
    above 0, each as likely as it is large (Zeiler and Fergus 2013), and gives its mean when testing.
    """

    pool: str = key(help="max, maxabs, avg or rand", choices=("max", "maxabs", "avg", "rand"))
    size_x: int = key(help="height and width of a window", least=1)
    stride: int = key(help="pixels from one window to the next", least=1)
    start: int = key(0, "first pixel of the first window")
    outputs_x: int = key(0, "number of windows down and across; 0: as many as cover the image", least=0)
    channels: int = key(0, "channels of the input; checked where given")
    sum: bool = key(False, "of avg: the sum is not divided")
    do_max: bool = key(False, "of rand: max instead, in training and testing", params=True)

    def title(self) -> str:
        return f"{self.pool}-pooling layer"

    def check(self) -> None:
        for field_name, wanted in (("sum", "avg"), ("do_max", "rand")):
            if getattr(self, field_name) and self.pool != wanted:
                self.warnings.append((field_name, f"means nothing to pool={self.pool}, but to pool={wanted}, and is ignored"))

    def shape(self, image: Shape) -> Shape:
        if self.channels and self.channels != image[0]:
            raise ValueError(f"channels={self.channels}, but its input {self.inputs[0]} has {image[0]}")
        if self.size_x > min(image[1:]):
            raise ValueError(f"sizeX={self.size_x}, expected at most the {min(image[1:])} pixels of {self.inputs[0]}")
        shape = pool_shape((*image, 1), **self.window())[:3]
        return (image[0], self.outputs_x, self.outputs_x) if self.outputs_x else shape

    def window(self) -> dict[str, int]:
        return {"size": self.size_x, "stride": self.stride, "start": self.start}

    @property
    def mode(self) -> str:
        return "max" if self.do_max and self.pool == "rand" else self.pool

    def forward(self, ops, t, training: bool) -> None:
        inputs, window = t.inputs[0], self.window()
        if self.mode == "max":
            ops.max_pool_forward(inputs, t.acts, **window)
        elif self.mode == "maxabs":
            ops.maxabs_pool_forward(inputs, t.acts, **window)
        elif self.mode == "avg":
            ops.avg_pool_forward(inputs, t.acts, **window, sum=self.sum)
        elif training:
            ops.random_pool_forward(inputs, t.state, t.acts, **window, **t.random("pool"))
        else:
            ops.expected_pool_forward(inputs, t.acts, **window)

    def backward(self, ops, t) -> None:
        inputs, inputs_grad, window = t.inputs[0], t.inputs_grad[0], self.window()
        if not inputs_grad:
            return
        if self.mode in ("max", "maxabs"):
            ops.max_pool_backward(inputs, t.acts, t.acts_grad, inputs_grad, **window)
        elif self.mode == "avg":
            ops.avg_pool_backward(t.acts_grad, inputs_grad, **window, sum=self.sum)
        elif t.training:
            ops.random_pool_backward(inputs, t.state, t.acts_grad, inputs_grad, **window, **t.random("pool"))
        else:
            ops.expected_pool_backward(inputs, t.acts, t.acts_grad, inputs_grad, **window)


@layer("cmpool")
class CrossMapPool(Layer):
    """The largest of `size` neighbouring channels, every stride channels from start on, clipped to the channels there are."""

    pool: str = key("max", "max", choices=("max",))
    size: int = key(help="channels in a window", least=1)
    stride: int = key(help="channels from one window to the next", least=1)
    start: int = key(0, "first channel of the first window, 0 or below")
    outputs: int = key(0, "number of windows; 0: as many as cover the channels", least=0)
    channels: int = key(0, "channels of the input; checked where given")

    def title(self) -> str:
        return f"cross-map {self.pool}-pooling layer"

    def check(self) -> None:
        if not -self.size < self.start <= 0:
            raise BadKey("start", f"found {self.start}, expected {1 - self.size} to 0")
        if self.stride > self.size:
            raise BadKey("stride", f"found {self.stride}, expected at most size, which is {self.size}: no channel is left out")

    def shape(self, image: Shape) -> Shape:
        channels = image[0]
        if self.channels and self.channels != channels:
            raise ValueError(f"channels={self.channels}, but its input {self.inputs[0]} has {channels}")
        if self.size > channels:
            raise ValueError(f"size={self.size}, expected at most the {channels} channels of {self.inputs[0]}")
        least, most = pool_shape((1, channels, channels, 1), **self.window())[1], (channels - 1 - self.start) // self.stride + 1
        if self.outputs and not least <= self.outputs <= most:
            raise ValueError(f"outputs={self.outputs}, expected {least} to {most}, as many windows as cover the {channels} channels of "
                             f"{self.inputs[0]} and hold one")
        return (self.outputs or least, *image[1:])

    def window(self) -> dict[str, int]:
        return {"size": self.size, "stride": self.stride, "start": self.start}

    def forward(self, ops, t, training: bool) -> None:
        ops.cross_map_max_pool_forward(t.inputs[0], t.acts, **self.window())

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            ops.cross_map_max_pool_backward(t.inputs[0], t.acts, t.acts_grad, t.inputs_grad[0], **self.window())
