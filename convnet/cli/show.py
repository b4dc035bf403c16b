"""convnet-show: pictures of trained nets, and a report that has them all."""
from __future__ import annotations

import argparse
import contextlib
import os
import sys
from functools import cached_property
from pathlib import Path

import numpy as np

from .. import __version__, drawing, figures, report, show
from ..data import Provider, format_range
from ..errors import CannotCreate, CommandLineError, ConvnetError, MissingInput
from ..options import Options
from ..predict import TrainedNet, load_checkpoint, newest_checkpoint
from ..profile import write
from ..report import Section, Table
from ..testing import Predictions, Score, check_net, predictions
from . import run_command
from .test import data_of, open_nets
from .train import add_options

OPTIONS = ["data_path", "data_provider", "train_range", "test_range", "mini", "backend", "allow_code"]
FIGURES = ("curves", "net", "filters", "predictions", "nearest", "confusion")
NEAREST = 6  # training images beside each test image, as in the paper
LISTED = 10  # lines of tables in the report


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convnet-show", description="Draws what trained nets have learnt: PNG files, and report.html, which holds them all and needs no network.",
        epilog="Options of the data that are not given are those of the net's run. What cannot be drawn is left out with the reason, unless --figures names it.")
    parser.add_argument("nets", nargs="+", metavar="CHECKPOINT", help="a checkpoint, a run's folder or a --save-path: its newest checkpoint; "
                                                                      "the curves are of all, the other pictures of the first")
    parser.add_argument("--version", action="version", version=f"convnet {__version__}")
    parser.add_argument("--out", default="figures", metavar="DIR", help="folder for the files (default figures); those of an earlier call are replaced")
    parser.add_argument("--figures", metavar="LIST", help=f"some of {','.join(FIGURES)} (default all)")
    add_options(parser, OPTIONS)
    parser.add_argument("--layer", default="", metavar="NAME", help="show the filters of this layer; default: of all that see the images")
    parser.add_argument("--input", type=int, default=0, metavar="I", help="those for its input I (default 0)")
    parser.add_argument("--gray", action="store_true", help="show each channel of filters by itself, not three as red, green and blue")
    parser.add_argument("--norm-filters", action="store_true", help="scale each filter by its own largest weight, not all alike")
    parser.add_argument("--images", type=int, default=8, metavar="N", help="test images to show (default 8)")
    parser.add_argument("--only-errors", action="store_true", help="show test images that the net gets wrong")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which test images are drawn (default 1)")
    parser.add_argument("--features", metavar="LAYER", help="compare images by this layer's acts; default: what the last layer with weights reads")
    return parser


def main(argv: list[str] | None = None) -> None:
    run_command("convnet-show", lambda: run(argv))


def run(argv: list[str] | None = None) -> int:
    words = vars(build_parser().parse_intermixed_args(argv))
    asked = argparse.Namespace(**{name: words.pop(name) for name in list(words) if name not in OPTIONS})
    named = [name.strip() for name in (asked.figures or "").split(",") if name.strip()]
    if unknown := [name for name in named if name not in FIGURES]:
        raise CommandLineError(f"--figures {asked.figures}: no figure {unknown[0]}; expected some of {', '.join(FIGURES)}")
    for name, least in (("images", 1), ("input", 0), ("seed", 0)):
        if getattr(asked, name) < least:
            raise CommandLineError(f"--{name} {getattr(asked, name)}: expected {least} or more")
    figures.check("convnet-show")
    with contextlib.ExitStack() as stack:
        paths, nets = open_nets(stack, asked.nets[:1], words["backend"], allow_code=bool(words["allow_code"]))
        showing = Showing(nets[0], paths[0], asked, words)
        sections = [section_of(showing, name, bool(named)) for name in named or FIGURES]
        title, facts = showing.title(), showing.facts()
    folder = Path(asked.out).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotCreate(f"--out {folder}: {error.strerror}") from None
    for section in sections:
        if section.picture:
            path = folder / f"{section.name}.{'svg' if section.name == 'net' else 'png'}"
            write("--out", str(path), section.picture)
            print(path)
    write("--out", str(folder / "report.html"), report.page(title, facts, sections).encode())
    print(folder / "report.html")
    return 0


def section_of(showing: Showing, name: str, is_asked_for: bool) -> Section:
    """A figure, or why it is left out; the reason is an error where the figure was asked for."""
    try:
        return getattr(showing, f"draw_{name}")()
    except ConvnetError as error:
        if is_asked_for:
            raise
        print(f"{name} left out: {error}", file=sys.stderr)
        return Section(name, TITLES[name], f"Left out: {error}")


TITLES = {"curves": "Cost and error", "net": "The net", "filters": "First-layer filters", "predictions": "Test images and their likeliest classes",
          "nearest": "Nearest training images", "confusion": "Confusion"}


class Showing:
    """A net, and what its figures share; each figure is a method."""

    def __init__(self, net: TrainedNet, path: str, asked: argparse.Namespace, words: dict[str, str | None]):
        self.net, self.path, self.asked, self.words = net, path, asked, words

    @cached_property
    def data(self) -> tuple[Provider, Options]:
        """The provider and the options, ranges above all. Raises MissingInput where the data are not known or not there."""
        try:
            provider, options = data_of(self.net, self.words, trains=True)
        except MissingInput as error:
            raise MissingInput(f"no data: {error}" if self.words["data_path"] else f"no data; --data-path DIR names them ({str(error).splitlines()[0]})") from None
        check_net(self.net, provider)
        self.net.mini = options.mini
        return provider, options

    @cached_property
    def answers(self) -> Predictions:
        provider, options = self.data
        return predictions(self.net, provider, options.test_range)

    @cached_property
    def names(self) -> list[str]:
        provider, _ = self.data
        known = self.net.class_names or provider.class_names
        return [*known, *(str(number) for number in range(len(known), len(self.answers.probs)))]

    @cached_property
    def test_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the images that are shown, and the images."""
        provider, options = self.data
        places = show.chosen(self.answers, self.asked.images, self.asked.seed, self.asked.only_errors)
        return places, show.images_at(provider, options.test_range, places)

    def title(self) -> str:
        return f"{Path(self.net.config.layers_file).parent.name or Path(self.net.config.layers_file).name}: {os.path.join(*Path(self.path).parts[-2:])}"

    def facts(self) -> list[tuple[str, object]]:
        net, header = self.net, self.net.header
        parameters = sum(int(np.prod(weights.shape)) for node in net.net.graph.nodes for _, weights in node.owned())
        place = header.get("position") or {}
        facts = [("checkpoint", self.path), ("config", f"{net.config.layers_file}, {net.config.params_file}"),
                 ("images", "\N{MULTIPLICATION SIGN}".join(map(str, net.shape)) + f" {net.dtype}"), ("parameters", f"{parameters:,}"),
                 ("devices", ", ".join(map(str, net.net.graph.devices)))]
        if place:
            facts.append(("trained for", f"{place['step']:,} minibatches of {net.header['options']['mini']} images, seed {net.header['options']['seed']}"))
        return [*facts, ("written by", f"convnet {header['convnet']}")]

    # ---- the figures ---------------------------------------------------------------------------------------------

    def draw_curves(self) -> Section:
        headers = {self.path: self.net.header}
        for text in self.asked.nets[1:]:
            path, _ = newest_checkpoint(Path(text).expanduser())
            headers[str(path)] = load_checkpoint(path)[0]
        runs = [show.course(header, name) for header, name in zip(headers.values(), distinct(list(headers)), strict=True)]
        return self.section("curves", "Thin lines are the training batches as they were trained on, with dropout and crops; thick ones the test range. "
                            "Of long runs, means of neighbouring batches.", figures.curves(runs))

    def draw_net(self) -> Section:
        return self.section("net", "Layers with weights, a row for each device. Red arrows go from one device to another.", drawing.draw(self.net.net.graph).encode())

    def draw_filters(self) -> Section:
        asked = self.asked
        layers = show.filters(self.net, asked.layer, asked.input)
        return self.section("filters", f"Weights of {', '.join(found.layer for found in layers)}, by device, as in the paper's figure 3.",
                            figures.filters(layers, asked.gray, asked.norm_filters))

    def draw_predictions(self) -> Section:
        places, images = self.test_images
        answers = self.answers
        score = Score(len(answers.probs))
        score.add(answers.probs, answers.labels)
        _, options = self.data
        means = ", ".join(f"{name} {value:.2%}" if "error" in name else f"{name} {value:.4f}" for name, value in score.means().items())
        which = "drawn at random among those that the net gets wrong" if self.asked.only_errors else "drawn at random"
        seen = ", by their centre" if self.net.views > 1 else ""
        return self.section("predictions", f"{len(places)} of {len(answers.labels)} images of the batches {format_range(options.test_range)}, {which}. "
                            f"Over all of them{seen}: {means}.", figures.predictions(images, answers.labels[places], answers.probs[:, places], self.names))

    def draw_nearest(self) -> Section:
        provider, options = self.data
        places, images = self.test_images
        layers = show.feature_layers(self.net, self.asked.features)
        found = show.nearest(self.net, layers, images, provider, options.train_range, NEAREST)
        same = np.mean(found.labels == self.answers.labels[places][:, None])
        return self.section("nearest", f"The images of the batches {format_range(options.train_range)} whose acts of {' and '.join(layers)} are nearest to those of the test image; "
                            f"{same:.0%} of them are of its class.", figures.nearest(images, self.answers.labels[places], found, self.names))

    def draw_confusion(self) -> Section:
        answers, names = self.answers, self.names
        score = Score(len(answers.probs))
        score.add(answers.probs, answers.labels)
        pairs = [(names[label], names[other], images) for label, other, images in score.confusions()[:LISTED]]
        errors = score.errors_of / np.maximum(score.images_of, 1)
        worst = [(names[label], score.images_of[label], f"{errors[label]:.2%}") for label in (-errors).argsort(kind="stable")[:LISTED] if score.images_of[label]]
        return self.section("confusion", "Row: the class of an image; column: the likeliest class to the net. The colour's scale is stretched at its lower end.",
                            figures.confusion(score.confusion(), names), Table(("class", "images", "error"), worst), Table(("class", "taken for", "images"), pairs))

    def section(self, name: str, text: str, picture: bytes, *tables: Table) -> Section:
        return Section(name, TITLES[name], text, picture, list(tables))


def distinct(paths: list[str]) -> list[str]:
    """The ends of paths, as long as they must be to tell them apart."""
    for length in range(1, max(len(Path(path).parts) for path in paths) + 1):
        ends = [os.path.join(*Path(path).parts[-length:]) for path in paths]
        if len(set(ends)) == len(ends):
            return ends
    return paths


if __name__ == "__main__":
    main()
