"""What is done to images within a net: blurring, cutting, mirroring, resizing, colours."""
from __future__ import annotations

from dataclasses import dataclass

from ..shapes import resize_shape
from . import BadKey, Layer, Shape, key, layer


@dataclass
class ImageLayer(Layer):
    """Maps to maps, channel by channel."""

    channels: int = key(0, "channels of the input; checked where given")

    def shape(self, image: Shape) -> Shape:
        if self.channels and self.channels != image[0]:
            raise ValueError(f"channels={self.channels}, but its input {self.inputs[0]} has {image[0]}")
        return self.map_shape(*image)

    def map_shape(self, channels: int, height: int, width: int) -> Shape:
        return channels, height, width


@layer("blur")
class Blur(ImageLayer):
    """Gaussian blur of each map. Outside the map is 0, so that its edges darken."""

    filter_size: int = key(help="pixels of the filter down and across: 3, 5, 7 or 9")
    stdev: float = key(help="standard deviation of the Gaussian, in pixels")

    def title(self) -> str:
        return "Gaussian blur layer"

    def check(self) -> None:
        if self.filter_size not in (3, 5, 7, 9):
            raise BadKey("filter_size", f"found {self.filter_size}, expected 3, 5, 7 or 9")
        if not self.stdev > 0:
            raise BadKey("stdev", f"found {self.stdev:g}, expected a number above 0")

    def constants(self) -> dict:
        return {"size": self.filter_size, "stdev": self.stdev}

    def forward(self, ops, t, training: bool) -> None:
        ops.blur(t.inputs[0], t.acts, **self.constants())

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            ops.blur(t.acts_grad, t.inputs_grad[0], **self.constants())


@dataclass
class SliceLayer(ImageLayer):
    """Some of the pixels, at equal steps down and across."""

    def slice(self, channels: int, height: int, width: int) -> dict[str, int]:
        """Place of the first pixel, and the steps to the next ones."""
        raise NotImplementedError

    def forward(self, ops, t, training: bool) -> None:
        ops.slice_forward(t.inputs[0], t.acts, **self.slice(*t.inputs[0].shape[:3]))

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            ops.slice_backward(t.acts_grad, t.inputs_grad[0], **self.slice(*t.inputs[0].shape[:3]))


@layer("nailbed")
class Nailbed(SliceLayer):
    """One of every `stride` pixels down and across; as many are left out before the first as after the last."""

    stride: int = key(help="pixels from one to the next", least=1)

    def title(self) -> str:
        return "bed-of-nails layer"

    def map_shape(self, channels: int, height: int, width: int) -> Shape:
        return channels, -(height // -self.stride), -(width // -self.stride)

    def slice(self, channels: int, height: int, width: int) -> dict[str, int]:
        _, down, across = self.map_shape(channels, height, width)
        top, left = (height - self.stride * (down - 1)) // 2, (width - self.stride * (across - 1)) // 2
        return {"top": top, "left": left, "down": self.stride, "across": self.stride}


@layer("href")
class Reflection(SliceLayer):
    """The image mirrored, left for right."""

    def title(self) -> str:
        return "horizontal reflection layer"

    def slice(self, channels: int, height: int, width: int) -> dict[str, int]:
        return {"top": 0, "left": width - 1, "down": 1, "across": -1}


@layer("crop")
class Crop(SliceLayer):
    """A square of the image."""

    size_x: int = key(help="height and width of the square", least=1)
    start_x: int = key(help="its first column", least=0)
    start_y: int = key(-1, "its first row; -1: startX", least=-1)

    def title(self) -> str:
        return "cropping layer"

    def top(self) -> int:
        return self.start_x if self.start_y < 0 else self.start_y

    def map_shape(self, channels: int, height: int, width: int) -> Shape:
        for name, start, pixels, side in (("startX", self.start_x, width, "width"), ("startY", self.top(), height, "height")):
            if start + self.size_x > pixels:
                raise ValueError(f"{name}={start} and sizeX={self.size_x} end at pixel {start + self.size_x}, expected at most {pixels}, the {side} of {self.inputs[0]}")
        return channels, self.size_x, self.size_x

    def slice(self, channels: int, height: int, width: int) -> dict[str, int]:
        return {"top": self.top(), "left": self.start_x, "down": 1, "across": 1}


@dataclass
class NoGradient(ImageLayer):
    """Between the data and what learns: `Graph` refuses it elsewhere."""

    has_gradient = False

    def backward(self, ops, t) -> None:
        pass


@layer("resize")
class Resize(NoGradient):
    """The image smaller by `scale`, pixels interpolated between four. No gradient passes through it."""

    scale: float = key(help="pixels of the input for one of the output, 0.5 to 2")

    def title(self) -> str:
        return "resize layer"

    def check(self) -> None:
        if not 0.5 <= self.scale <= 2:
            raise BadKey("scale", f"found {self.scale:g}, expected 0.5 to 2")

    def map_shape(self, channels: int, height: int, width: int) -> Shape:
        shape = resize_shape((channels, height, width, 1), scale=self.scale)[:3]
        if not all(shape):
            raise ValueError(f"scale={self.scale:g} leaves nothing of the {height}x{width} pixels of {self.inputs[0]}")
        return shape

    def forward(self, ops, t, training: bool) -> None:
        ops.resize(t.inputs[0], t.acts, scale=self.scale)


@layer("rscale")
class RandomScale(NoGradient):
    """In training, the images of a minibatch smaller by a random scale, the same for all, and a random square of them.

    When testing, the square in the middle of the image. Small scales are likelier. No gradient passes through it.
    """

    max_scale: float = key(help="pixels of the input for one of the output, at most; 1 to 2")
    tgt_size: int = key(0, "height and width of the square; 0: those of the image / maxScale", least=0)

    def title(self) -> str:
        return "random scale layer"

    def check(self) -> None:
        if not 1 <= self.max_scale <= 2:
            raise BadKey("max_scale", f"found {self.max_scale:g}, expected 1 to 2")

    def map_shape(self, channels: int, height: int, width: int) -> Shape:
        if height != width:
            raise ValueError(f"its input {self.inputs[0]} has {height}x{width} pixels, expected a square")
        smallest = int(height / self.max_scale)
        size = self.tgt_size or smallest
        if not smallest <= size <= height:
            raise ValueError(f"tgtSize={size}, expected {smallest} to {height}: the {height} pixels of {self.inputs[0]}, and those / maxScale")
        return channels, size, size

    def forward(self, ops, t, training: bool) -> None:
        if training:
            ops.random_scale_crop(t.inputs[0], t.state, t.acts, max_scale=self.max_scale, **t.key("rscale"))
        else:
            border = (t.inputs[0].shape[1] - t.acts.shape[1]) // 2
            ops.slice_forward(t.inputs[0], t.acts, top=border, left=border, down=1, across=1)


@dataclass
class ColorLayer(NoGradient):
    """Red, green and blue to other channels."""

    def map_shape(self, channels: int, height: int, width: int) -> Shape:
        if channels != 3:
            raise ValueError(f"its input {self.inputs[0]} has {channels} channels, expected 3: red, green and blue")
        return channels, height, width


@layer("rgb2yuv")
class Yuv(ColorLayer):
    """Red, green and blue as brightness and two colour differences, YUV. No gradient passes through it."""

    def title(self) -> str:
        return "RGB-to-YUV layer"

    def forward(self, ops, t, training: bool) -> None:
        ops.rgb_to_yuv(t.inputs[0], t.acts)


@layer("rgb2lab")
class Lab(ColorLayer):
    """Red, green and blue, each from 0 to 1 and no mean subtracted, as L*a*b*. No gradient passes through it."""

    center: bool = key(False, "50 is subtracted from L")

    def title(self) -> str:
        return "RGB-to-LAB layer"

    def forward(self, ops, t, training: bool) -> None:
        ops.rgb_to_lab(t.inputs[0], t.acts, center=self.center)
