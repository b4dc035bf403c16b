"""Batches of JPEG strings, as the 2012 program and cuda-convnet2 wrote them, as pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from convnet.errors import DataError

LARGEST = 64  # times the pixels that are wanted; more is no batch of them
# What Pillow raises on damaged images, and on those that are too large for it.
PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


def is_jpegs(data: object) -> bool:
    """Whether a batch's data are encoded images: a list of strings (of Python 2: read as text)."""
    return isinstance(data, (list, tuple)) and bool(data) and isinstance(data[0], (bytes, str))


def decode_batch(path: Path, jpegs: Sequence[bytes | str], shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 (values, images) of one file's JPEG strings; the centre of those that are larger.

    Decoded on all cores, each image into its own place. DataError names the first bad image.
    """
    pixels = np.empty((len(jpegs), *shape), np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(partial(_decode, path, jpegs, pixels), range(len(jpegs))):
            pass
    return np.ascontiguousarray(pixels.reshape(len(jpegs), -1).T)


def _decode(path: Path, jpegs: Sequence[bytes | str], pixels: np.ndarray, index: int) -> None:
    channels, height, width = pixels.shape[1:]
    jpeg = jpegs[index]
    try:
        raw = jpeg.encode("latin-1") if isinstance(jpeg, str) else bytes(jpeg)
        with Image.open(io.BytesIO(raw), formats=("JPEG",)) as image:
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
    except (TypeError, *PILLOW_ERRORS) as error:
        raise DataError(
            f"{path}: image {index}: no JPEG that can be read ({error or type(error).__name__}); "
            "make the file again, or fetch it again"
        ) from None
    pixels[index] = array.reshape(height, width, channels).transpose(2, 0, 1)
