"""A folder of photographs with one folder a class, for trying convnet-data: python benchmarks/photographs.py OUT [--images 100]

The photographs come inside scikit-image, scikit-learn and matplotlib (`pip install --no-deps` of the three will do: they are
not imported). Each of them is a class, and its images are pieces of it, of several sizes and shapes, some turned by EXIF,
some gray, CMYK or PNG with transparency. Beside them lie a truncated JPEG, a text that is called one, and the header of an
image of 60000 x 60000 pixels.
"""
from __future__ import annotations

import argparse
import importlib.util
import random
import struct
import sys
import zlib
from pathlib import Path

from PIL import Image

PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "brick": ("skimage", "data/brick.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg"),
    "grass": ("skimage", "data/grass.png"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "pagoda": ("sklearn", "datasets/images/china.jpg"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
}


def find(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / name if spec and spec.origin else None
    if path is None or not path.exists():
        sys.exit(f"no {name} of {package}: pip install --no-deps scikit-image scikit-learn matplotlib")
    return path


def piece(photograph: Image.Image, pixels: tuple[int, int], draw: random.Random) -> Image.Image:
    """A part of at least a third of each side, resized to sides of so many pixels."""
    width, height = (draw.randint(side // 3, side * 4 // 5) for side in photograph.size)
    left, top = draw.randint(0, photograph.width - width), draw.randint(0, photograph.height - height)
    return photograph.crop((left, top, left + width, top + height)).resize((draw.randint(*pixels), draw.randint(*pixels)), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, number: int) -> None:
    """Every eleventh gray, thirteenth CMYK, seventeenth a PNG with transparency, nineteenth lying on its side with a note that says so."""
    if number % 11 == 10:
        image.convert("L").save(path.with_suffix(".jpg"), quality=90)
    elif number % 13 == 12:
        image.convert("CMYK").save(path.with_suffix(".jpg"), quality=90)
    elif number % 17 == 16:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save(path.with_suffix(".png"))
    elif number % 19 == 18:
        exif = Image.Exif()
        exif[0x0112] = 6  # turned clockwise by a quarter when shown
        image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), quality=90, exif=exif)
    else:
        image.save(path.with_suffix(".jpg"), quality=90)


def png_bomb(width: int, height: int) -> bytes:
    """A PNG that would be so large, and ends where its pixels would begin."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=100, help="of each class")
    parser.add_argument("--pixels", type=int, nargs=2, default=(70, 400), metavar=("LEAST", "MOST"), help="of their sides")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    for name, where in PHOTOGRAPHS.items():
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(find(*where)) as opened:
            photograph = opened.convert("RGB")
        for number in range(options.images):
            save(piece(photograph, tuple(options.pixels), draw), folder / f"{number:04}", number)
    whole = (options.out / "cat" / "0000.jpg").read_bytes()
    (options.out / "cat" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (options.out / "coffee" / "notes.jpg").write_text("not an image at all\n")
    (options.out / "rocket" / "bomb.png").write_bytes(png_bomb(60000, 60000))
    print(f"{options.out}: {len(PHOTOGRAPHS)} classes of {options.images} images, and three files that are none")


if __name__ == "__main__":
    main()
