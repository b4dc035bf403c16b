"""convnet-predict: what a trained net sees in photographs."""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from .. import __version__
from ..backends import choose_backend
from ..data.decode import MAX_BYTES, BadImage, decode_square
from ..errors import CommandLineError, DataError, MissingInput
from ..options import check_precision, precision_doubts
from ..predict import TrainedNet, load_checkpoint, newest_checkpoint
from . import run_command

SUFFIXES = (".jpg", ".jpeg", ".png")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convnet-predict", description="Prints the likeliest classes of photographs, by a trained net.",
        epilog="Photographs are JPEG or PNG files. Each is made as large as the images that the net was trained on: the shorter side is "
               "resized, and the middle of the longer one is kept.")
    parser.add_argument("net", metavar="NET", help="a checkpoint, a run's folder or a --save-path: its newest checkpoint")
    parser.add_argument("files", nargs="+", metavar="FILE|DIR", help="photographs, and folders of them")
    parser.add_argument("--version", action="version", version=f"convnet {__version__}")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="how many classes to print (default 5)")
    parser.add_argument("--multiview-test", action="store_true", help="average over ten views of a photograph, where the net was trained on crops")
    parser.add_argument("--backend", default="auto", help="auto, cuda, host or simt (default auto)")
    parser.add_argument("--precision", metavar="NAME", help="exact, fast, bf16x3, tf32 or bf16, as in convnet-train (default: as the net was trained)")
    parser.add_argument("--allow-code", action="store_true", help="compile and run the sources of the net's layers of type cuda")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line for each file")
    return parser


def main(argv: list[str] | None = None) -> None:
    run_command("convnet-predict", lambda: predict(argv))


def predict(argv: list[str] | None = None) -> int:
    asked = build_parser().parse_args(argv)
    if asked.top < 1:
        raise CommandLineError(f"--top {asked.top}: expected 1 or more")
    if asked.precision is not None:
        check_precision(asked.precision)
    files = find_files(asked.files)
    path, damaged = newest_checkpoint(Path(asked.net).expanduser())
    for line in damaged:
        print(f"warning: {line}", file=sys.stderr)
    bad = 0
    with TrainedNet(*load_checkpoint(path), asked.backend, asked.precision, asked.allow_code) as net:
        for line in precision_doubts(net.net.precision, choose_backend(asked.backend)):
            print(f"warning: {line}", file=sys.stderr)
        if net.dtype != "uint8" or net.shape[0] not in (1, 3):
            raise DataError(f"{path}: the net was trained on {net.dtype} numbers of shape {net.shape}; expected one for pixels, of one channel or three")
        for group in (files[i : i + net.mini] for i in range(0, len(files), net.mini)):
            images, errors = read_images(group, net.shape)
            probs = net.predict(np.stack(images, axis=-1), asked.multiview_test) if images else None
            column = iter(range(len(images)))
            for file in group:
                if file in errors:
                    print(f"{file}: {errors[file]}", file=sys.stderr)
                show(file, errors.get(file) or likeliest(net, probs[:, next(column)], asked.top), asked.json)
            bad += len(errors)
    if bad:
        raise DataError(f"{bad} of {len(files)} files could not be read")
    return 0


def find_files(words: list[str]) -> list[Path]:
    """The files, and those in the folders whose names end as those of photographs do; in order, each once."""
    files: dict[Path, None] = {}
    for word in words:
        path = Path(word)
        found = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file()) if path.is_dir() else [path]
        if not found:
            raise MissingInput(f"{path}: no {', '.join(SUFFIXES)} in this folder")
        files.update(dict.fromkeys(found))
    return list(files)


def read_images(files: list[Path], shape: tuple[int, int, int]) -> tuple[list[np.ndarray], dict[Path, str]]:
    """Those that can be read, as uint8 (channels, height, width), and what is wrong with the others."""
    images, errors = [], {}
    for file in files:
        try:
            with open(file, "rb") as stream:
                images.append(as_stored(decode_square(stream.read(MAX_BYTES + 1), max(shape[1:])).pixels, shape))
        except OSError as error:
            errors[file] = error.strerror or str(error)
        except BadImage as error:
            errors[file] = str(error)
    return images, errors


def as_stored(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Red, green and blue (side, side, 3) as data batches of this shape have them: gray where it has one channel, its middle where it is no square."""
    channels, height, width = shape
    if channels == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    top, left = (len(pixels) - height) // 2, (len(pixels) - width) // 2
    return pixels[top : top + height, left : left + width].transpose(2, 0, 1)


def likeliest(net: TrainedNet, probs: np.ndarray, top: int) -> list[dict]:
    """The classes of the largest probabilities, largest first."""
    labels = np.argsort(-probs, kind="stable")[:top].tolist()
    return [{"class": net.class_names[label] if net.class_names else str(label), "label": label, "probability": float(probs[label])} for label in labels]


def show(file: Path, found: list[dict] | str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"file": str(file), **({"error": found} if isinstance(found, str) else {"likeliest": found})}))
    elif not isinstance(found, str):
        print("\n".join([str(file), *(f"  {each['probability']:8.4f}  {each['class']}" for each in found)]))


if __name__ == "__main__":
    main()
