"""convnet-data: makes data batches of images, and looks at those that are there."""
from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from .. import __version__
from ..backends import cores
from ..data import open_provider
from ..data.image import GROUPS, read_meta
from ..data.making import Report, Settings, make
from ..data.making.arrays import ARCHIVES, cifar, fetch, mnist
from ..data.making.ilsvrc import IlsvrcSource
from ..data.making.sources import FolderSource, Source
from ..errors import CommandLineError
from . import run_command

MOST_CLASSES = 40  # in the report that is printed; all are in report.txt
SMALLEST, LARGEST = 8, 4096  # pixels of a side


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="convnet-data", description="Makes data batches of images. The same command goes on where it was stopped.")
    parser.add_argument("--version", action="version", version=f"convnet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    folder = commands.add_parser("folder", help="of a folder with one folder a class")
    folder.add_argument("source", metavar="SOURCE", help="folder with one folder a class, JPEG and PNG files below it")
    add_target(folder)
    folder.add_argument("--validation", metavar="DIR", help="another such folder, for validation")
    folder.add_argument("--validation-share", type=share, default=0.1, metavar="S", help="without it: the share of each class that is kept for validation (default 0.1)")

    ilsvrc = commands.add_parser("ilsvrc", help="of ImageNet's challenge, ILSVRC-2010 or -2012")
    add_target(ilsvrc)
    ilsvrc.add_argument("--devkit", required=True, metavar="FILE", help="the devkit's archive, or the folder it was unpacked to")
    ilsvrc.add_argument("--train", required=True, metavar="TAR", help="the tar of training images, with a tar for each class in it")
    ilsvrc.add_argument("--validation", metavar="TAR", help="the tar of validation images")
    ilsvrc.add_argument("--test", metavar="TAR", help="the tar of test images, of 2010")
    ilsvrc.add_argument("--test-truth", metavar="FILE", help="their classes, where they are not in the devkit")

    for command in (folder, ilsvrc):
        command.add_argument("--size", type=int, default=Settings.size, metavar="N", help=f"pixels of a side; the shorter one becomes this, of the longer the middle is kept (default {Settings.size})")
        command.add_argument("--raw", action="store_true", help="store pixels, not JPEG files: five to ten times the space, nothing to decode")
        command.add_argument("--quality", type=int, default=Settings.quality, metavar="N", help=f"of the JPEG files, 1 to 100 (default {Settings.quality})")
        command.add_argument("--batch-size", type=int, default=Settings.batch_size, metavar="N", help=f"images in a batch (default {Settings.batch_size})")
        command.add_argument("--seed", type=int, default=Settings.seed, metavar="N", help=f"of the order of the images (default {Settings.seed})")
        command.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read")
    for name, kind in (("cifar10", "CIFAR-10"), ("cifar100", "CIFAR-100"), ("mnist", "MNIST")):
        command = commands.add_parser(name, help=f"of {kind}, which is fetched")
        add_target(command)
        what = "folder with its four idx files" if name == "mnist" else "the archive of its Python or binary version, or the folder it was unpacked to"
        command.add_argument("--from", dest="source", metavar="PATH", help=f"{what}; nothing is fetched then")
        command.add_argument("--batch-size", type=int, default=10000, metavar="N", help="images in a batch (default 10000)")
    check = commands.add_parser("check", help="reads all batches of a folder, and compares checksums")
    check.add_argument("target", metavar="DIR")
    return parser


def add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="DIR", help="folder for the batches")
    parser.add_argument("--workers", type=int, default=cores(), metavar="N", help="threads (default: as many as cores); the batches are the same for any number")


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError(text)
    return value


def main(argv: list[str] | None = None) -> None:
    run_command("convnet-data", lambda: data(argv))


def data(argv: list[str] | None = None) -> int:
    words = build_parser().parse_args(argv)
    warnings.filterwarnings("ignore", module="PIL")  # of damaged images the report tells
    target = Path(words.target)
    if words.command == "check":
        return check(target)
    settings = read_settings(words)
    report = make(open_source(words, settings), target, settings)
    print(report.text(MOST_CLASSES))
    print(f"\n{target}: {told_groups(target)}. To train on them:")
    print(f"  convnet-train LAYERS_CFG PARAMS_CFG --data-path {target}")
    return 0


def read_settings(words: argparse.Namespace) -> Settings:
    limits = {"size": (SMALLEST, LARGEST), "quality": (1, 100), "batch_size": (1, 2**20), "seed": (0, 2**32 - 1), "workers": (1, 1024)}
    given = {name: value for name, value in vars(words).items() if name in limits}
    for name, value in given.items():
        least, most = limits[name]
        if not least <= value <= most:
            raise CommandLineError(f"--{name.replace('_', '-')} {value}: expected {least} to {most}")
    raw = getattr(words, "raw", True)  # sets of small images are not compressed
    return Settings(**given, kind="raw" if raw else "jpeg", strict=getattr(words, "strict", False))


def open_source(words: argparse.Namespace, settings: Settings) -> Source:
    def path(text: str | None) -> Path | None:
        return Path(text).expanduser() if text else None

    if words.command == "folder":
        for folder in filter(None, (path(words.source), path(words.validation))):
            if folder.resolve() in (target := path(words.target).resolve(), *target.parents):
                raise CommandLineError(f"{words.target}: lies in {folder}, whose folders are classes; expected a folder elsewhere")
        return FolderSource(path(words.source), path(words.validation), words.validation_share, settings.seed)
    if words.command == "ilsvrc":
        return IlsvrcSource(*(path(getattr(words, name)) for name in ("devkit", "train", "validation", "test", "test_truth")))
    source = path(words.source)
    if source is None:
        files = fetch(words.command, Path(words.target))
        source = files[0] if len(ARCHIVES[words.command]) == 1 else files[0].parent
    return mnist(source) if words.command == "mnist" else cifar(words.command, source)


def told_groups(target: Path) -> str:
    meta = read_meta(target)
    return ", ".join(f"{meta['images'][group]:,} images for {group} in {len(meta['groups'][group])} batch{'es' * (len(meta['groups'][group]) > 1)}"
                     for group in GROUPS if group in meta["groups"])


def check(target: Path) -> int:
    provider = open_provider("image", target)
    report = Report(provider.class_names)
    for number in provider.numbers:
        provider.read(number)
        report.add(provider.open(number))
    print(report.text(MOST_CLASSES))
    print(f"\n{target}: {told_groups(target)}; all checksums are right")
    return 0


if __name__ == "__main__":
    main()
