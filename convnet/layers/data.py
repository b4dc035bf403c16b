"""What the data provider gives."""
from __future__ import annotations

from . import Layer, Shape, key, layer


@layer("data")
class Data(Layer):
    """One of the provider's tensors: 0 the images, 1 the labels."""

    input_count = 0
    on_host = True

    data_idx: int = key(help="which: 0 the images, 1 the labels")

    def shape(self, *inputs: Shape) -> Shape:
        raise AssertionError("the provider tells the shape of data")
