"""Batches of JPEG strings, as the 2012 program and cuda-convnet2 wrote them, as pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from convnet.data.decode import BadImage, gather, open_image
from convnet.data.order import images_first
from convnet.errors import DataError

LARGEST = 64  # times the pixels that are wanted; more is no batch of them


def is_jpegs(data: object) -> bool:
    """Whether a batch's data are encoded images: a list of strings (of Python 2: read as text)."""
    return isinstance(data, (list, tuple)) and bool(data) and isinstance(data[0], (bytes, str))


def decode_batch(
    path: Path, jpegs: Sequence[bytes | str], shape: tuple[int, int, int], threads: int
) -> np.ndarray:
    """uint8 (values, images) of one file's JPEG strings; the centre of those that are larger.

    DataError names the first bad image.
    """
    pixels = gather(len(jpegs), shape, partial(_decode, path, jpegs, shape), threads)
    return images_first(pixels).reshape(len(jpegs), -1).T


def _decode(
    path: Path, jpegs: Sequence[bytes | str], shape: tuple[int, int, int], index: int
) -> np.ndarray:
    channels, height, width = shape
    jpeg = jpegs[index]
    try:
        image = open_image(jpeg.encode("latin-1") if isinstance(jpeg, str) else bytes(jpeg), ("JPEG",))
        across, down = image.size
        if not width <= across or not height <= down or across * down > LARGEST * height * width:
            raise DataError(
                f"{path}: image {index}: {across} x {down} pixels, expected {width} x {height} "
                "(num_vis of the meta file), or somewhat more"
            )
        left, top = (across - width) // 2, (down - height) // 2
        colours = image.convert("RGB" if channels == 3 else "L")
        array = np.asarray(colours.crop((left, top, left + width, top + height)))
    except DataError:
        raise
    except (BadImage, OSError, SyntaxError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: image {index}: no JPEG that can be read ({error or type(error).__name__}); "
            "make the file again, or fetch it again"
        ) from None
    return array.reshape(height, width, channels).transpose(2, 0, 1)
