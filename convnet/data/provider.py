"""What every source of data offers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from convnet.backends import cores
from convnet.data.batches import Batch
from convnet.errors import CommandLineError

LABEL_KINDS = ("index", "vector", "both")


class Provider:
    """Batches by number, and what a net must know of them before it reads one.

    name         as given to --data-provider
    stored       (channels, height, width) of the pixels in a Batch
    shapes       (channels, height, width) per dataIdx as the net sees them, after cropping
    crop_border  pixels cropped off each side by the op `image`, at random in training and in the
                 centre in testing; a Batch keeps them. `crop_to` says it by what is left
    classes      how many, None when nobody said
    class_names  their names, [] when they have none
    mean         float32 (channels, height, width) of the cropped size, the centre of the stored
                 mean; None when there is no mean
    color_pca    float64 (channels, channels): the principal components of the training images' pixels, the largest first,
                 each column an eigenvector times the standard deviation; None when there are none
    numbers      of the batches that exist; None when any number does
    class_tree   the parent of each class, and of each of the groups of classes that are numbered
                 from there on; -1: the root has none. None when the classes are in no tree
    groups       which of them are meant for training, validation and test, by these names, where the data say so
    threads      that decode images, and read ahead: with 0 batches are read when they are due. They are the same for any number
    label_kind   "index": the class of an image, (1, 1, 1); "vector": (classes, 1, 1), a 1 at it;
                 "both": the one as dataIdx 1 and the other as dataIdx 2, as in cuda-convnet2
    """

    def __init__(
        self,
        name: str,
        stored: tuple[int, int, int],
        *,
        crop_border: int = 0,
        classes: int | None = None,
        class_names: Sequence[str] = (),
        mean: np.ndarray | None = None,
        color_pca: np.ndarray | None = None,
        numbers: Sequence[int] | None = None,
        class_tree: tuple[int, ...] | None = None,
        label_kind: str = "index",
    ):
        channels, height, width = stored
        inner = (channels, height - 2 * crop_border, width - 2 * crop_border)
        if crop_border < 0 or min(inner) < 1:
            raise CommandLineError(
                f"--crop-border {crop_border}: the images of {name} are {height} x {width}, "
                f"expected 0 to {(min(height, width) - 1) // 2}"
            )
        if label_kind not in LABEL_KINDS:
            raise ValueError(f"label_kind {label_kind!r}, expected one of {LABEL_KINDS}")
        if label_kind != "index" and classes is None:
            raise CommandLineError(f"{name}: the net reads labels as vectors of unknown length")
        self.name = name
        self.stored = stored
        self.crop_border = crop_border
        self.classes = classes
        self.class_names = list(class_names)
        self.color_pca = color_pca
        self.groups: dict[str, list[int]] = {}
        self.threads = default_threads()
        self.numbers = None if numbers is None else list(numbers)
        self.class_tree = class_tree
        self.label_kind = label_kind
        vector = (classes or 0, 1, 1)
        self.shapes = (inner, *{"index": [(1, 1, 1)], "vector": [vector], "both": [(1, 1, 1), vector]}[label_kind])
        self.stored_mean = None if mean is None else mean.reshape(stored)
        self.mean = None if mean is None else _centre(self.stored_mean, inner)

    def read(self, number: int) -> Batch:
        """The batch; DataError where it is corrupt, MissingInput where there is none."""
        raise NotImplementedError

    def crop_to(self, side: int) -> None:
        """Has the net see squares of that side, as --inner-size says; of an odd border the larger part is right and below."""
        channels, height, width = self.stored
        if not 0 < side <= min(height, width):
            raise CommandLineError(f"--inner-size {side}: the images of {self.name} are {height} x {width}, expected 1 to {min(height, width)}")
        self.crop_border = (height - side) // 2
        self.shapes = ((channels, side, side), *self.shapes[1:])
        self.mean = None if self.stored_mean is None else _centre(self.stored_mean, self.shapes[0])

    def label_arrays(self, labels: np.ndarray | None, vectors: np.ndarray | None = None) -> list[np.ndarray]:
        """Labels (images,) in the forms that the net reads: (1 or classes, 1, 1, images) float32.

        vectors  (classes, images), where the data have their own: an image may be of several classes, or none
        """
        forms = [labels] if self.label_kind != "vector" else []
        if self.label_kind != "index":
            forms.append(np.arange(self.classes)[:, None] == labels if vectors is None else vectors)
        return [np.ascontiguousarray(form, np.float32).reshape(*shape, -1)
                for form, shape in zip(forms, self.shapes[1:], strict=True)]


def default_threads() -> int:
    """Half of the cores, at most 8: on a CPU the net needs them too."""
    return min(8, max(1, cores() // 2))


def mean_of(provider: Provider, numbers: Iterable[int]) -> np.ndarray:
    """The mean image of these batches, float32 of the cropped size, for data that has none stored.

    Sums are exact: integers in int64, floats in float64, image by image in order.
    """
    total, images = 0, 0
    for number in numbers:
        pixels = provider.read(number).data[0]
        exact = np.int64 if pixels.dtype.kind == "u" else np.float64
        total = total + pixels.sum(axis=-1, dtype=exact)
        images += pixels.shape[-1]
    return _centre(total / images, provider.shapes[0])


def _centre(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The part of that shape in the middle of (channels, height, width), as contiguous float32."""
    top, left = (image.shape[1] - shape[1]) // 2, (image.shape[2] - shape[2]) // 2
    return np.ascontiguousarray(image[:, top : top + shape[1], left : left + shape[2]], np.float32)


def square_shape(values: int) -> tuple[int, int, int] | None:
    """The shape of a square image of three channels, or else one, that has so many values."""
    for channels in (3, 1):
        side = math.isqrt(values // channels)
        if channels * side * side == values:
            return channels, side, side
    return None
