"""convnet-test: how good trained nets are, one by one and averaged."""
from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import __version__
from ..backends import choose_backend
from ..data import Provider, default_provider, format_range, parse_range
from ..data.image import GROUPS
from ..errors import CannotCreate, CommandLineError, DataError, WriteFailed
from ..options import Options, check_precision, precision_doubts
from ..predict import TrainedNet, load_checkpoint, newest_checkpoint
from ..testing import Score, Tested, average, check_net, fit_weights, probs_of, run_test
from . import run_command
from .train import add_options, open_data

OPTIONS = ["data_path", "data_provider", "test_range", "mini", "loader_threads", "backend", "precision", "allow_code"]
SHOWN = 5  # classes, and pairs of them, that are printed


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convnet-test", description="Tests trained nets on data batches, and the average of their probabilities where there are several.",
        epilog="Options of the data that are not given are those of the first net's run. Of what convnet-data made, a range may be a group's "
                                           "name: training, validation or test.")
    parser.add_argument("nets", nargs="+", metavar="NET", help="a checkpoint, a run's folder or a --save-path: its newest checkpoint")
    parser.add_argument("--version", action="version", version=f"convnet {__version__}")
    add_options(parser, OPTIONS)
    parser.add_argument("--multiview-test", action="store_true", help="average over ten views of an image: centre and corners of the crops that "
                                                                      "the net was trained on, and their mirror images")
    parser.add_argument("--weights", metavar="W,W,...", help="weights of the nets in the average; default: equal ones")
    parser.add_argument("--fit-weights", metavar="RANGE", help="find them on these batches, or on this group of them: those that give their labels the largest probabilities")
    parser.add_argument("--topk", type=int, default=5, metavar="K", help="count an answer among the K likeliest as right, beside the likeliest (default 5)")
    parser.add_argument("--per-class", metavar="FILE.csv", help="write the error of each class")
    parser.add_argument("--confusion", metavar="FILE.csv", help="write how many images of each class were taken for which")
    parser.add_argument("--predictions", metavar="FILE", help="write the answers for each image: the likeliest K as .csv, or all probabilities as .npz")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: list[str] | None = None) -> None:
    run_command("convnet-test", lambda: test(argv))


def test(argv: list[str] | None = None) -> int:
    words = vars(build_parser().parse_args(argv))
    asked = argparse.Namespace(**{name: words.pop(name) for name in list(words) if name not in OPTIONS})
    if asked.topk < 1:
        raise CommandLineError(f"--topk {asked.topk}: expected 1 or more")
    if asked.predictions and not asked.predictions.endswith((".csv", ".npz")):
        raise CommandLineError(f"--predictions {asked.predictions}: expected a file name that ends in .csv or .npz")
    weights = given_weights(asked)
    with contextlib.ExitStack() as stack:
        paths, nets = open_nets(stack, asked.nets, words.get("backend"), words.get("precision"), bool(words["allow_code"]))
        group = words.pop("test_range") if words["test_range"] in GROUPS else None
        provider, options = data_of(nets[0], words)
        if group:
            options.test_range = batches_of(provider, group, "--test-range")
        check_alike(paths, nets, provider)
        for path, net in zip(paths, nets, strict=True):
            net.mini = options.mini
            if asked.multiview_test and net.views == 1:
                print(f"{path}: trained on whole images, without crops: it has a single view, which is used", file=sys.stderr)
        if asked.fit_weights:
            if both := sorted({*batches_of(provider, asked.fit_weights, "--fit-weights")} & {*options.test_range}):
                print(f"warning: --fit-weights finds the weights on batches that are tested, {format_range(both)}: the average will look better than it is", file=sys.stderr)
            weights = fitted(nets, provider, batches_of(provider, asked.fit_weights, "--fit-weights"), asked.multiview_test)
        weights = weights if weights is not None else np.full(len(nets), 1 / len(nets))
        scores, kept = measure(nets, provider, options.test_range, asked, weights)
    names = nets[0].class_names or provider.class_names or [str(label) for label in range(scores["average"][-1].classes)]
    last = scores["average"][-1]
    if asked.per_class:
        write_table(asked.per_class, ["label", "class", "images", "errors", "error"],
                    ([label, names[label], images, errors, errors / max(images, 1)]
                     for label, (images, errors) in enumerate(zip(last.images_of.tolist(), last.errors_of.tolist(), strict=True))))
    if asked.confusion:
        write_table(asked.confusion, ["class", *names], ([names[label], *row] for label, row in enumerate(last.confusion().tolist())))
    if asked.predictions:
        write_predictions(Path(asked.predictions), kept, names, paths, weights, asked.topk)
    report = {"nets": paths, "batches": format_range(options.test_range), "images": int(last.images_of.sum()), "weights": weights.tolist(),
              "views": [net.views if asked.multiview_test else 1 for net in nets], "scores": tabulate(scores, asked.multiview_test),
              "classes": [{"class": names[label], "images": int(images), "error": errors / images}
                          for label, (images, errors) in enumerate(zip(last.images_of, last.errors_of, strict=True)) if images],
              "confusions": [{"class": names[label], "taken for": names[other], "images": images} for label, other, images in last.confusions()]}
    print(json.dumps(finite(report), allow_nan=False)) if asked.json else print_report(report)
    return 0


# ---- what it is given ------------------------------------------------------------------------------------------


def given_weights(asked: argparse.Namespace) -> np.ndarray | None:
    if asked.weights is None:
        return None
    if asked.fit_weights:
        raise CommandLineError("--weights gives the weights, and --fit-weights finds them; expected one of them")
    try:
        weights = np.array([float(word) for word in asked.weights.split(",")])
    except ValueError:
        raise CommandLineError(f"--weights {asked.weights}: expected numbers such as 0.5,0.25,0.25") from None
    if len(weights) != len(asked.nets) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise CommandLineError(f"--weights {asked.weights}: expected {len(asked.nets)} numbers of 0 or more, one for each net, not all 0")
    return weights / weights.sum()


def open_nets(stack: contextlib.ExitStack, texts: list[str], backend: str | None, precision: str | None = None,
              allow_code: bool = False) -> tuple[list[str], list[TrainedNet]]:
    """The newest checkpoint of each, and its net, as precise as it was trained if `precision` is not given."""
    if precision is not None:
        check_precision(precision)
    paths, nets = [], []
    for text in texts:
        path, damaged = newest_checkpoint(Path(text).expanduser())
        for line in damaged:
            print(f"warning: {line}", file=sys.stderr)
        paths.append(str(path))
        nets.append(stack.enter_context(TrainedNet(*load_checkpoint(path), backend or "auto", precision, allow_code)))
    for line in dict.fromkeys(line for net in nets for line in precision_doubts(net.net.precision, choose_backend(backend or "auto"))):
        print(f"warning: {line}", file=sys.stderr)
    return paths, nets


def data_of(net: TrainedNet, words: dict[str, str | None], trains: bool = False) -> tuple[Provider, Options]:
    """The data that the command line names; what it leaves open is as in the net's run. `trains`: the training batches are read too."""
    options = Options()
    options.command(words)
    if options.data_path and not options.data_provider:
        options.data_provider = default_provider(options.data_path)
    options.update(net.header["options"], net.header["commanded"])
    if not trains:
        options.train_range = sorted(set(options.test_range or [])) or None  # that of the net need not be there
    options.check()
    return open_data(net.config, options), options


def batches_of(provider: Provider, text: str, option: str) -> list[int]:
    """`5-6`, or a group of what convnet-data made: `validation`."""
    if text in provider.groups:
        return provider.groups[text]
    numbers = parse_range(text, option)
    missing = [number for number in numbers if provider.numbers is not None and number not in provider.numbers]
    if missing:
        raise CommandLineError(f"{option} {text}: no batch {missing[0]}; there are {format_range(provider.numbers)}")
    return numbers


def check_alike(paths: list[str], nets: list[TrainedNet], provider: Provider) -> None:
    """DataError where nets do not fit the data, or each other."""
    counts, first = [], nets[0]
    for path, net in zip(paths, nets, strict=True):
        try:
            check_net(net, provider)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        for label, (name, other) in enumerate(zip(net.class_names, provider.class_names, strict=False)):
            if name != other:
                raise DataError(f"class {label} is {name} in {path}, and {other} in the data; expected the classes that the net was trained on, in the same order")
        channels, height, width = net.net.graph.by_name[net.probs_layer].shape
        counts.append(channels * height * width)
        if counts[-1] != counts[0] or (net.class_names and first.class_names and net.class_names != first.class_names):
            raise DataError(f"{path}: it tells other classes apart than {paths[0]}: {counts[-1]} and {counts[0]} of them; nets that are averaged need the same, in the same order")


# ---- what it does ----------------------------------------------------------------------------------------------


def fitted(nets: list[TrainedNet], provider: Provider, numbers: list[int], multiview: bool) -> np.ndarray:
    found = [probs_of(batch.labels, batch.probs) for batch in progress(run_test(nets, provider, numbers, multiview), len(numbers), "fit")]
    return fit_weights(np.concatenate(found, axis=1))


def measure(nets: list[TrainedNet], provider: Provider, numbers: list[int], asked: argparse.Namespace,
            weights: np.ndarray) -> tuple[dict[str, list[Score]], list[tuple[Tested, np.ndarray]]]:
    """The scores of each net and of the average: [centre] or [centre, all views]; and the batches with the average, if they are to be written."""
    scores: dict[str, list[Score]] = {}
    kept = []
    for batch in progress(run_test(nets, provider, numbers, asked.multiview_test), len(numbers), "test"):
        for view, probs in enumerate([batch.centre, batch.probs][: 1 + asked.multiview_test]):
            mean = average(probs, weights)
            for name, each in [*((str(net), each) for net, each in enumerate(probs)), ("average", mean)]:
                rows = scores.setdefault(name, [])
                if len(rows) == view:
                    rows.append(Score(probs.shape[1], asked.topk))
                rows[view].add(each, batch.labels)
        if asked.predictions:
            kept.append((batch.number, batch.labels, mean))
    return scores, kept


def progress(batches, count: int, what: str):
    return tqdm(batches, total=count, desc=what, unit=" batches", leave=False, disable=None)


def tabulate(scores: dict[str, list[Score]], multiview: bool) -> dict[str, dict[str, dict[str, float]]]:
    """Name -> view -> numbers; the average only where it is one of several."""
    views = ["centre", "all views"] if multiview else ["centre"]
    return {name: {view: score.means() for view, score in zip(views, rows, strict=True)} for name, rows in scores.items()
            if name != "average" or len(scores) > 2}


def finite(value: Any) -> Any:
    """As JSON can hold it: null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def print_report(report: dict) -> None:
    paths, scores = report["nets"], report["scores"]
    print(f"{report['images']} images of the batches {report['batches']}")
    named = {name: "average" if name == "average" else paths[int(name)] for name in scores}
    width = max(map(len, named.values()))
    columns = list(scores["0"]["centre"])
    print(" " * width + "  views" + "".join(f"  {column:>11}" for column in columns) + ("  weight" if len(paths) > 1 else ""))
    for name, rows in scores.items():
        for view, means in rows.items():
            views = 1 if view == "centre" else max(report["views"]) if name == "average" else report["views"][int(name)]
            weight = f"  {report['weights'][int(name)]:6.4f}" if len(paths) > 1 and name != "average" else ""
            print(f"{named[name]:{width}}  {views:5}" + "".join(f"  {means[column]:11.6f}" for column in columns) + weight)
    worst = sorted((each for each in report["classes"] if each["error"] > 0), key=lambda each: -each["error"])[:SHOWN]
    if worst:
        print("classes with the largest errors: " + ", ".join(f"{each['class']} ({each['error']:.1%} of {each['images']})" for each in worst))
        print("taken for another most often: " + ", ".join(f"{each['class']} for {each['taken for']} ({each['images']})" for each in report["confusions"][:SHOWN]))


# ---- files -----------------------------------------------------------------------------------------------------


def write_table(path: str, header: list[str], rows) -> None:
    def write(target: Path) -> None:
        with open(target, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(header)
            table.writerows(rows)

    write_whole(Path(path), write)


def write_predictions(path: Path, kept: list[tuple[int, np.ndarray, np.ndarray]], names: list[str], paths: list[str], weights: np.ndarray, k: int) -> None:
    """.npz: batches, images, labels (images,), probs (classes, images), class_names, nets, weights. .csv: a row an image."""
    batches = np.concatenate([np.full(len(labels), number) for number, labels, _ in kept])
    images = np.concatenate([np.arange(len(labels)) for _, labels, _ in kept])
    labels, probs = np.concatenate([labels for _, labels, _ in kept]), np.concatenate([probs for _, _, probs in kept], axis=1)
    if path.suffix == ".npz":
        def write(target: Path) -> None:
            with open(target, "wb") as file:
                np.savez(file, batches=batches, images=images, labels=labels, probs=probs, class_names=np.array(names), nets=np.array(paths), weights=weights)

        write_whole(path, write)
        return
    k = min(k, len(names))
    best = np.argsort(-probs, axis=0, kind="stable")[:k]
    header = ["batch", "image", "label", "class", "probability", *(f"{what}{i + 1}" for i in range(k) for what in ("class", "probability"))]
    given = probs_of(labels, probs)
    write_table(str(path), header, (
        [batches[i], images[i], labels[i], names[labels[i]], given[i], *(word for label in best[:, i] for word in (names[label], probs[label, i]))]
        for i in range(len(labels))))


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """A file that is there is replaced by a complete one, or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        kind = CannotCreate if not temporary.exists() else WriteFailed
        raise kind(f"{path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
