"""Data batches, their minibatches, and ranges of their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from convnet.errors import CommandLineError

Arrays = tuple[np.ndarray, ...]

MAX_RANGE = 1_000_000  # numbers in one --train-range


@dataclass(frozen=True)
class Batch:
    """A stored file of images, as `Provider.read` gives it.

    `data[0]` are the pixels (channels, height, width, images), uint8 or float32, not cropped;
    `data[1]` the labels, float32: (1, 1, 1, images), or (classes, 1, 1, images) with a 1 at the
    class where the net compares whole vectors. uint8 lie image by image (`order.py`), all others are
    C-contiguous.
    """

    number: int
    data: tuple[np.ndarray, ...]

    @property
    def images(self) -> int:
        return self.data[0].shape[-1]


def minibatches(batch: Batch, images: int) -> Iterator[tuple[int, Arrays]]:
    """(index of the first image, arrays of `images` images, parts of the batch's), the last ones smaller."""
    for start in range(0, batch.images, images):
        yield start, tuple(array[..., start : start + images] for array in batch.data)


def with_following(batch: Batch, images: int) -> Iterator[tuple[Arrays, Arrays | None]]:
    """Minibatches, each with the one that follows it in the batch."""
    return pairwise([*(arrays for _, arrays in minibatches(batch, images)), None])


def parse_range(text: str, option: str = "range") -> list[int]:
    """`1-5`, `6` or `1,3-4` as a list of batch numbers, in the order given."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise CommandLineError(
                f"{option}: found {text!r}, expected batch numbers such as 1-5, 6 or 1,3-4, "
                "the smaller first"
            )
        if len(numbers) + last - first >= MAX_RANGE:
            raise CommandLineError(f"{option}: {text!r} has more than {MAX_RANGE} batches")
        numbers += range(first, last + 1)
    return numbers


def format_range(numbers: Iterable[int]) -> str:
    """[1, 2, 3, 6] as `1-3,6`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)
