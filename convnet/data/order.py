"""The order of pixels in memory: image by image, as they are read and as the op `image` takes them."""
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

PIXELS_AT_ONCE = 1024  # of each image, that are put in order while they are in the cache


def images_first(pixels: np.ndarray, threads: int = 1) -> np.ndarray:
    """uint8 (images, channels, height, width), contiguous, of (channels, height, width, images).

    Nothing is copied where they lie image by image; else it is done in so many threads.
    """
    turned = np.moveaxis(pixels, -1, 0)
    if turned.flags.c_contiguous:
        return turned
    images = pixels.shape[-1]
    source, result = pixels.reshape(-1, images), np.empty(turned.shape, np.uint8)

    def some(first: int) -> None:
        result.reshape(images, -1)[:, first : first + PIXELS_AT_ONCE] = source[first : first + PIXELS_AT_ONCE].T

    in_threads(some, range(0, len(source), PIXELS_AT_ONCE), threads)
    return result


def image_by_image(pixels: np.ndarray, threads: int = 1) -> np.ndarray:
    """The same pixels, in the order in which `images_first` need not copy them. Other types than uint8: images fastest."""
    return np.moveaxis(images_first(pixels, threads), 0, -1) if pixels.dtype == np.uint8 else np.ascontiguousarray(pixels)


def in_threads(work: Callable[[int], None], numbers: range, threads: int) -> None:
    """work of each number; raises what it raised for the first."""
    if threads <= 1:
        for number in numbers:
            work(number)
    else:
        with ThreadPoolExecutor(threads, thread_name_prefix="data") as pool:
            for _ in pool.map(work, numbers):
                pass
