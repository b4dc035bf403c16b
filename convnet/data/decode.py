"""Image files to pixels: JPEG and PNG, and nothing else, of sizes that a photograph has."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from convnet.data.order import in_threads

MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
MAX_BYTES = 2**27  # of a file
MAX_PIXELS = 89_000_000  # of an image, by its header: 270 MB as red, green and blue; just below Pillow's own limit
TURNS = {  # EXIF's orientation: what shows the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


class BadImage(ValueError):
    """What is wrong with an image file."""


@dataclass(frozen=True)
class Picture:
    """pixels: uint8 (height, width, 3); mode: what they were converted from, "RGB" where from nothing."""

    pixels: np.ndarray
    mode: str


def open_image(data: bytes, formats: tuple[str, ...] = ("JPEG", "PNG")) -> ImageFile.ImageFile:
    """The image in a file of one of these formats, not decoded yet; BadImage where it is none, or too large."""
    if len(data) > MAX_BYTES:
        raise BadImage(f"a file of {len(data):,} bytes, expected at most {MAX_BYTES:,}")
    kind = next((kind for magic, kind in MAGIC.items() if data.startswith(magic)), None)
    if kind not in formats:
        raise BadImage("empty" if not data else f"a {kind}, expected {formats[0]}" if kind else f"not {' or '.join(formats)}")
    try:
        image = Image.open(io.BytesIO(data), formats=[kind])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:  # whose message has the address of our buffer in it
        raise BadImage(f"a damaged {kind}: its header cannot be read") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and others
        raise BadImage(f"a damaged {kind}: {error}") from None
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS:,}")
    return image


def decode(data: bytes) -> np.ndarray:
    """uint8 (height, width, 3) of a JPEG or PNG file; BadImage where it is none, or damaged."""
    return decode_square(data, None).pixels


def decode_square(data: bytes, size: int | None) -> Picture:
    """The square in the middle of an image, its side `size` (None: the whole image as it is), in red, green and blue.

    The shorter side is made `size`, smaller by averages (bilinear with antialiasing), larger by cubics, and the middle of the
    longer one is kept. A camera's note of how it was held (EXIF) is obeyed. Of transparent images, what is seen on white.
    """
    image = open_image(data)
    try:
        mode, turn = image.mode, image.getexif().get(ExifTags.Base.Orientation, 1)
        if size:
            image.draft(None, (2 * size, 2 * size))  # a JPEG of several times the size is decoded at a half, a quarter or an eighth
        image = to_rgb(image)
        if size and image.size != (size, size):
            width, height = image.size
            short = min(width, height)
            left, top = (width - short) / 2, (height - short) / 2
            method = Image.Resampling.BILINEAR if short >= size else Image.Resampling.BICUBIC
            image = image.resize((size, size), method, (left, top, left + short, top + short))
        if turn in TURNS:
            image = image.transpose(TURNS[turn])
        return Picture(np.asarray(image), mode)
    except MemoryError:
        raise
    except Exception as error:
        raise BadImage(f"damaged: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Gray, CMYK, palettes, 16 bits a pixel and transparency as red, green and blue; decodes the image."""
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I"):  # gray of 16 bits
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert("RGB")


def gather(images: int, shape: tuple[int, int, int], read_one: Callable[[int], np.ndarray], threads: int) -> np.ndarray:
    """uint8 (channels, height, width, images), lying image by image, of what read_one gives for each of them, in so many threads.

    Raises what read_one raised for the first image.
    """
    pixels = np.empty((images, *shape), np.uint8)

    def one(image: int) -> None:
        pixels[image] = read_one(image)

    in_threads(one, range(images), threads)
    return np.moveaxis(pixels, 0, -1)


def keep_freed_memory() -> None:
    """Has the C library keep the memory of decoded images for the next ones.

    Otherwise it gives each image's back to the kernel, which fills it with zeros when it is asked for again: JPEGs of
    500 x 375 were decoded at 623 a second and are at 1280. Elsewhere than in glibc nothing happens.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
    except (OSError, AttributeError, TypeError):
        pass
