"""Random data: for trying a net, timing it, and tests.

`dummy:3x224x224` or `dummy:3x224x224:1000` has uint8 pixels and labels 0 to CLASSES-1 (the
classes of the net when not given, else 10) and the constant mean 127.5. `dummy-lr-D`, the
original's, has D float32 values from 0 to 1 an image and no mean; where D is that of square
images of three channels or one, it has their shape, so that a conv layer can read it, otherwise
(D, 1, 1). As in the original a batch has 512 images, and 10 is the number of classes.

The classes are in a tree of pairs: 0 and 1, 2 and 3, ..., pairs of pairs, up to one root.

There is a batch for every number, and each depends on seed and number alone.
"""

from __future__ import annotations

import math
import re

import numpy as np

from convnet.data.batches import Batch
from convnet.data.provider import Provider, square_shape
from convnet.errors import CommandLineError, MissingInput

IMAGES = 512
CLASSES = 10
MAX_VALUES = 10**9  # in one image
MAX_TREE = 100_000  # classes


class DummyProvider(Provider):
    def __init__(
        self,
        name: str,
        *,
        crop_border: int = 0,
        net_classes: int | None = None,
        label_kind: str = "index",
        seed: int = 0,
        images: int | None = None,
    ):
        stored, classes, self.dtype = _parse(name)
        if crop_border and self.dtype == np.float32:
            raise CommandLineError(f"--crop-border: {name} has values, not pixels; leave it out")
        classes = classes or net_classes or CLASSES
        super().__init__(
            name,
            stored,
            crop_border=crop_border,
            classes=classes,
            class_tree=_tree_of_pairs(classes) if classes <= MAX_TREE else None,
            mean=np.full(stored, 127.5) if self.dtype == np.uint8 else None,
            label_kind=label_kind,
        )
        self.seed = seed
        self.images = images or IMAGES

    def crop_to(self, side: int) -> None:
        if self.dtype == np.float32:
            raise CommandLineError(f"--inner-size: {self.name} has values, not pixels; leave it out")
        super().crop_to(side)

    def read(self, number: int) -> Batch:
        if number < 0:
            raise MissingInput(f"{self.name}: batch {number}, expected a number from 0")
        # Raw numbers of the generator: its distributions may change from numpy to numpy.
        key = np.array([self.seed % 2**64, number], np.uint64)
        draw = np.random.Philox(key=key).random_raw
        labels = draw(self.images) % np.uint64(self.classes)
        count = self.images * math.prod(self.stored)
        if self.dtype == np.uint8:
            pixels = np.moveaxis(draw(-(-count // 8)).view(np.uint8)[:count].reshape(self.images, *self.stored), 0, -1)
        else:
            pixels = ((draw(count) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)).reshape(*self.stored, self.images)
        return Batch(number, (pixels, *self.label_arrays(labels)))


def _tree_of_pairs(classes: int) -> tuple[int, ...]:
    """The parent of each node: two by two, level by level; -1: of the root."""
    parents: list[int] = []
    first, count = 0, classes
    while count > 1 or first == 0:
        parents += [first + count + i // 2 for i in range(count)]
        first, count = first + count, (count + 1) // 2
    return (*parents, -1)


def _parse(name: str) -> tuple[tuple[int, int, int], int | None, type]:
    """(shape, classes or None, type) of `dummy:CxHxW[:CLASSES]` or `dummy-lr-D`."""
    size = "([1-9][0-9]{0,8})"
    if match := re.fullmatch(f"dummy-lr-{size}", name):
        dims = int(match[1])
        return square_shape(dims) or (dims, 1, 1), None, np.float32
    if match := re.fullmatch(f"dummy:{size}x{size}x{size}(?::{size})?", name):
        channels, height, width = map(int, match.groups()[:3])
        if channels * height * width > MAX_VALUES:
            raise CommandLineError(f"--data-provider {name}: an image exceeds {MAX_VALUES} values")
        return (channels, height, width), int(match[4]) if match[4] else None, np.uint8
    raise CommandLineError(
        f"--data-provider: found {name!r}, expected dummy:CHANNELSxHEIGHTxWIDTH[:CLASSES] such as "
        "dummy:3x32x32 or dummy:3x224x224:1000, or dummy-lr-VALUES such as dummy-lr-3072"
    )
