"""convnet-convert: weights of other programs to our checkpoints, and ours to files for other programs."""
from __future__ import annotations

import argparse
import re
from pathlib import Path

from .. import __version__
from ..convert import LAYOUTS, read_weights, write_weights
from ..errors import CommandLineError
from . import run_command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convnet-convert", description="Reads weights, executing nothing of what is read, and writes them in another form.",
        epilog="IN: a checkpoint of convnet, cuda-convnet or cuda-convnet2, a .caffemodel, a .pth or a .safetensors file. "
               "OUT: by its suffix, a checkpoint (.ckpt), .npz, .safetensors, or a state dict for PyTorch (.pth).")
    parser.add_argument("source", metavar="IN", help="the file, or a folder of checkpoints: the newest in it")
    parser.add_argument("target", metavar="OUT", help="what to write; a file of that name is replaced")
    parser.add_argument("--layers", metavar="FILE", help="the net's layers.cfg; cuda-convnet's checkpoints tell it themselves")
    parser.add_argument("--params", metavar="FILE", help="its params.cfg")
    parser.add_argument("--image", metavar="CxHxW", help="size of the images that the net reads, where the file does not tell it")
    parser.add_argument("--layout", choices=LAYOUTS, help="names and order of a .npz or .safetensors file: as a checkpoint has them (convnet, the "
                                                          "default), or as a state dict of PyTorch")
    parser.add_argument("--bgr", action="store_true", help="leave the colours of a Caffe net in its order; without it the net reads red, green, blue")
    parser.add_argument("--version", action="version", version=f"convnet {__version__}")
    return parser


def main(argv: list[str] | None = None) -> None:
    run_command("convnet-convert", lambda: convert(argv))


def convert(argv: list[str] | None = None) -> int:
    options = build_parser().parse_args(argv)
    converted = read_weights(Path(options.source), options.layers, options.params, image_size(options.image), options.bgr)
    for note in converted.notes:
        print(note)
    tensors = write_weights(Path(options.target), converted, options.layout)
    print(f"wrote {options.target}: {len(tensors)} tensors, {sum(tensor.nbytes for tensor in tensors.values()) / 1e6:.1f} MB, read again and found equal")
    return 0


def image_size(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})x([1-9]\d{0,5})", text)
    if not match:
        raise CommandLineError(f"--image {text}: expected channels, height and width, as 3x227x227")
    return tuple(map(int, match.groups()))


if __name__ == "__main__":
    main()
