"""What the data provider gives."""
from __future__ import annotations

from dataclasses import dataclass
from math import prod

from . import BadKey, Layer, Shape, key, layer


@layer("data")
class Data(Layer):
    """One of the provider's tensors: 0 the images, 1 the labels."""

    input_count = 0
    on_host = True

    data_idx: int = key(help="which: 0 the images, 1 the labels")
    start: int = key(0, "first of its values to read (cuda-convnet2); of an image they lie channel by channel, row by row", least=0)
    end: int = key(0, "the value after the last; 0: all", least=0)

    def check(self) -> None:
        if self.end and self.end <= self.start:
            raise BadKey("end", f"found {self.end}, expected more than start, which is {self.start}")

    def shape(self, *inputs: Shape) -> Shape:
        raise AssertionError("the provider tells the shape of data")


@dataclass
class Rows(Layer):
    """What `start` and `end` of a data layer leave: a layer behind it. Whole channels stay images."""

    has_gradient = False

    start: int = 0
    end: int = 0

    def title(self) -> str:
        return "layer of a part of the data"

    def shape(self, data: Shape) -> Shape:
        end, plane = self.end or prod(data), prod(data[1:])
        if not self.start < end <= prod(data):
            raise ValueError(f"start={self.start} and end={end}, expected numbers up to {prod(data)}, the values of {self.inputs[0]}")
        count = end - self.start
        return (count // plane, *data[1:]) if self.start % plane == end % plane == 0 else (count, 1, 1)

    def forward(self, ops, t, training: bool) -> None:
        ops.scaled_copy(t.inputs[0].rows(self.start, self.start + prod(t.acts.shape[:-1])).reshaped(*t.acts.shape), t.acts, factor=1.0)

    def backward(self, ops, t) -> None:
        pass
