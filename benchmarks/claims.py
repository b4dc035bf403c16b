"""What Krizhevsky et al. 2012 claim of their net's parts, tried out: on CIFAR-10 (--data-path), else on the digits.

    python benchmarks/claims.py                       # the list
    python benchmarks/claims.py relu --plot relu.png
    python benchmarks/claims.py --all --seeds 10 --json claims.json
"""
from __future__ import annotations

import argparse
import json
import math
import shlex
import statistics
import sys
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from environment import ROOT, machine, run_through_go

RATES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)  # learning rates to choose from, for figure 1
CHOICE = (101, 102, 103)  # seeds that choose; those that are reported are others
REACHED = 0.25  # training error of figure 1
NETS = 5  # in an average


@dataclass
class Row:
    """A comparison: the paper's way and the other, a number for each seed.

    kind   "error": shares of test images; "epochs": how long something took
    """

    claim: str
    ways: tuple[str, str]
    values: tuple[list[float], list[float]]
    kind: str
    paper: str
    logged: str
    gains: list[float] = field(init=False)

    def __post_init__(self) -> None:
        pairs = list(zip(*self.values, strict=True))
        self.gains = [100 * (b - a) if self.kind == "error" else math.log(b / a) for a, b in pairs]

    @property
    def verdict(self) -> str:
        """Whether the difference is in the paper's direction by more than twice its standard error."""
        if len(self.gains) < 2:
            return "one seed: no verdict"
        mean, error = statistics.mean(self.gains), statistics.stdev(self.gains) / math.sqrt(len(self.gains))
        return "shows" if mean > 2 * error else "the opposite" if mean < -2 * error else "not at this size"

    @property
    def difference(self) -> str:
        mean = statistics.mean(self.gains)
        error = statistics.stdev(self.gains) / math.sqrt(len(self.gains)) if len(self.gains) > 1 else math.nan
        if self.kind == "error":
            return f"{mean:+.2f} ± {error:.2f} points"
        return f"{math.exp(mean):.2f} times, to a factor of {math.exp(error):.2f}"

    def column(self, way: int) -> str:
        values, scale = self.values[way], 100 if self.kind == "error" else 1
        spread = scale * statistics.stdev(values) if len(values) > 1 else math.nan
        unit = "%" if self.kind == "error" else " epochs"
        return f"{scale * statistics.mean(values):.2f} ± {spread:.2f}{unit}"


@dataclass
class Data:
    """What is trained on, and how.

    nets     folders of a net with all of the paper's parts, and of one in two columns
    words    options of convnet-train
    figure1  those that differ for `relu`, which looks at the beginning of the training
    """

    name: str
    path: Path
    nets: tuple[Path, Path]
    words: dict
    figure1: dict

    def recipe(self, columns: bool = False):
        from recipes import Recipe

        return Recipe.read(self.nets[columns], data_path=self.path, test_freq=10**6, **self.words)


class Lab:
    """The data, the seeds, and the kitchen in which nets are trained."""

    def __init__(self, data: Data, seeds: int, kitchen):
        self.data, self.seeds, self.kitchen = data, range(1, seeds + 1), kitchen
        self.base, self.columns = data.recipe(), data.recipe(columns=True)
        self.curves: dict[str, list] = {}  # of figure 1

    def train(self, recipe, what: str, seeds=None) -> list:
        return self.kitchen.train([(recipe, seed, what) for seed in seeds or self.seeds])

    def compare(self, claim: str, ways: tuple[str, str], ours, other, paper: str, logged: str = "none") -> Row:
        nets = self.kitchen.train([(recipe, seed, f"{claim}, {way}") for recipe, way in ((ours, ways[0]), (other, ways[1])) for seed in self.seeds])
        errors = [net.error for net in nets]
        return Row(claim, ways, (errors[: len(self.seeds)], errors[len(self.seeds) :]), "error", paper, logged)


# ---- the claims ------------------------------------------------------------------------------------------------

def relu(lab: Lab) -> list[Row]:
    """Epochs to 25% training error, ReLU against tanh, each at its own best constant rate, nothing regularised."""
    plain = lab.base.without(*lab.base.of_kind("cmrnorm"), *lab.base.of_kind("dropout")).everywhere(wc=0).told(**lab.data.figure1)
    planned, found = int(plain.words["epochs"]), {}
    for unit, neuron in (("ReLU", "relu"), ("tanh", "tanh[1,1]")):
        with_unit = {rate: plain.everywhere(neuron=neuron, epsW=rate, epsB=rate) for rate in RATES}
        choice = lab.kitchen.train([(recipe, seed, f"{unit} at {rate:g}") for rate, recipe in with_unit.items() for seed in CHOICE])
        epochs = [first_below(each, REACHED, planned) for each in choice]
        tried = {rate: sum(epochs[i * len(CHOICE) : (i + 1) * len(CHOICE)]) for i, rate in enumerate(RATES)}
        best = min(tried, key=tried.get)
        runs = lab.train(with_unit[best], f"{unit} at its best rate, {best:g}")
        lab.curves[f"{unit}, rate {best:g}"] = [each.errors("train") for each in runs]
        found[f"{unit} at {best:g}"] = [first_below(each, REACHED, planned) for each in runs]
    return [Row("relu", tuple(found), tuple(found.values()), "epochs", "6 times (CIFAR-10)", "none")]


def first_below(trained, level: float, never: int) -> float:
    """Epochs until the errors of the data batches that are trained on cross a level, on lines from batch to batch; all of a run that never came there."""
    rows = trained.errors("train")
    at = next((i for i, (_, error) in enumerate(rows) if error <= level), None)
    if at is None:
        return float(never)
    (before, above), (epochs, error) = rows[max(at - 1, 0)], rows[at]
    return float(epochs if at == 0 else before + (epochs - before) * (above - level) / (above - error))


def pooling(lab: Lab) -> list[Row]:
    """Max-pooling over 3x3 pixels, 2 apart, against 2x2."""
    other = lab.base
    for name in lab.base.of_kind("pool"):
        other = other.changed(name, sizeX=2)
    return [lab.compare("pooling", ("windows of 3, 2 apart", "windows of 2"), lab.base, other, "0.4 / 0.3 points", "0.39 / 0.30")]


def lrn(lab: Lab) -> list[Row]:
    """Response normalization across maps, against none."""
    other = lab.base.without(*lab.base.of_kind("cmrnorm"))
    return [lab.compare("lrn", ("LRN", "none"), lab.base, other, "1.4 / 1.2 points; 2 on CIFAR-10", "1.37 / 1.15")]


def dropout(lab: Lab) -> list[Row]:
    """Dropout in the hidden fully connected layer: what it gains, and how much longer it takes to converge."""
    from convnet.data import parse_range

    other = lab.base.without(*lab.base.of_kind("dropout"))
    often = {"test_freq": len(parse_range(lab.base.words["train_range"]))}  # every epoch
    slow, quick = (lab.train(recipe.told(**often), f"{what}, tested often") for recipe, what in ((lab.base, "dropout"), (other, "no dropout")))
    return [lab.compare("dropout", ("dropout", "none"), lab.base, other, "substantial overfitting without, no figure"),
            Row("dropout-time", ("none", "dropout"), ([converged(each) for each in quick], [converged(each) for each in slow]), "epochs", "about 2 times", "none")]


def converged(trained) -> float:
    """Epochs until a test's cost came within 5% of the least of the run."""
    tests = [(epochs, costs["logprob"][0]) for epochs, costs in trained.header["history"]["test"]]
    least = min(cost for _, cost in tests)
    return next(float(epochs) for epochs, cost in tests if cost <= 1.05 * least)


def crops(lab: Lab) -> list[Row]:
    """Crops at random places and mirror images, against the centres alone."""
    border = int(lab.base.words["crop_border"])
    return [lab.compare("crops", ("crops and mirror images", "centres"), lab.base, centred(lab.base, border), "substantial overfitting without, no figure")]


def centred(recipe, border: int):
    """The same net on the centres of the images, cut out by a layer."""
    from recipes import Recipe

    layers = {"data": recipe.layers["data"], "centre": {"type": "crop", "inputs": "data", "startX": str(border), "sizeX": str(32 - 2 * border)}}
    for name, keys in recipe.layers.items():
        inputs = ["centre" if source == "data" else source for source in keys.get("inputs", "").split(",") if source]
        layers.setdefault(name, keys | ({"inputs": ",".join(inputs)} if inputs else {}))
    return Recipe(layers, recipe.params, dict(recipe.words)).told(crop_border=0)


def colour(lab: Lab) -> list[Row]:
    """Colour noise of strength 0.1, against none."""
    return [lab.compare("colour", ("colour noise", "none"), lab.base.told(color_noise=0.1), lab.base, "over 1 point top-1")]


def views(lab: Lab) -> list[Row]:
    """Ten views of a test image averaged, against its centre."""
    tested = [tested_error(lab, [trained], multiview) for trained in lab.train(lab.base, "the net") for multiview in (True, False)]
    return [Row("views", ("ten views", "the centre"), (tested[::2], tested[1::2]), "error", "39.0 to 37.5% / 18.3 to 17.0%", "39.02 to 37.47 / 18.30 to 17.00")]


def columns(lab: Lab) -> list[Row]:
    """Two columns, against one of half the kernels, but for the last convolution and the fully connected layers, which keep their size."""
    one = one_column(lab.columns)
    return [lab.compare("columns", ("two columns", "one of half the kernels"), lab.columns, one, "1.7 / 1.2 points", "1.70 / 1.23")]


def one_column(two):
    """Column a alone; what read both columns is as wide as its two halves were."""
    one = two.unplugged(*(name for name in two.layers if name.endswith("b") and name[:-1] + "a" in two.layers))
    for name, keys in two.layers.items():
        if name in one.layers and name.endswith("a") and "," in keys.get("inputs", ""):
            key = "filters" if keys["type"] == "conv" else "outputs"
            one = one.changed(name, **{key: 2 * int(keys[key].split(",")[0])})
    return one


def layers(lab: Lab) -> list[Row]:
    """Each convolution, against the net without it (and without the normalization and pooling that it alone feeds)."""
    rows = []
    for number in sorted({name.rstrip("ab") for name in lab.columns.of_kind("conv")}):
        other = lab.columns.without(*(name for name in lab.columns.of_kind("conv") if name.rstrip("ab") == number))
        other = other.without(*(name for name, keys in other.layers.items() if keys.get("inputs") == "data" and keys["type"] == "cmrnorm"))
        rows.append(lab.compare(f"layers: {number}", ("all layers", f"without {number}"), lab.columns, other, "about 2 points top-1 each"))
    return rows


def average(lab: Lab) -> list[Row]:
    """The mean of the answers of five nets, against the mean of their errors. Each repetition has five nets of its own."""
    together, single = [], []
    for first in range(1, NETS * len(lab.seeds), NETS):
        nets = lab.train(lab.base, "the net", range(first, first + NETS))
        together.append(tested_error(lab, nets))
        single.append(statistics.mean(tested_error(lab, [net]) for net in nets))
    return [Row("average", (f"{NETS} nets", "one"), (together, single), "error", "40.7 to 38.1% / 18.2 to 16.4%", "40.66 / 18.21 alone")]


def tested_error(lab: Lab, nets: list, multiview: bool = False) -> float:
    """The share of test images that the average of the nets' answers gets wrong."""
    import numpy as np

    import convnet
    from convnet.data import open_provider, parse_range
    from convnet.testing import average, error_of, predictions

    provider = open_provider("cifar", lab.data.path, crop_border=int(lab.base.words.get("crop_border", 0)))
    found = []
    for trained in nets:
        with convnet.load(trained.path, lab.base.words["backend"]) as net:
            found.append(predictions(net, provider, parse_range(lab.base.words["test_range"]), multiview))
    probs = average(np.stack([each.probs for each in found]), [1 / len(found)] * len(found))
    return float(error_of(probs, found[0].labels).mean())


CLAIMS: dict[str, Callable[[Lab], list[Row]]] = {
    each.__name__: each for each in (relu, pooling, lrn, dropout, crops, colour, views, columns, layers, average)}
NOT_ON_DIGITS = {
    "crops": "a mirrored digit is no digit, and 8x8 pixels have no border to spare",
    "colour": "they have no colour",
    "views": "a mirrored digit is no digit, and the net sees all 8x8 pixels",
}


# ---- the program -----------------------------------------------------------------------------------------------

def data_of(path: str | None, epochs: int | None, backend: str) -> Data:
    if path is None:  # trained on 300 and tested on 1,497 of them: one error more is 0.07 points
        models = ROOT / "convnet" / "models"
        return Data("the digits", models / "digits" / "data", (models / "digits", models / "digits-two-columns"),
                    {"train_range": "1", "test_range": "2-6", "mini": 50, "epochs": epochs or 100, "backend": backend},
                    {"train_range": "1-5", "test_range": "6", "epochs": min(epochs or 20, 20)})
    nets = ROOT / "benchmarks" / "nets"
    return Data("CIFAR-10", Path(path), (nets / "cifar", nets / "cifar-two-columns"),
                {"train_range": "1-5", "test_range": "6", "mini": 128, "epochs": epochs or 40, "backend": backend, "crop_border": 4}, {"epochs": epochs or 40})


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Tries out what the paper claims of its net's parts.", epilog="Without names: the list of claims.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CLAIMS))
    parser.add_argument("--all", action="store_true", help="all that make sense for the data")
    parser.add_argument("--data-path", metavar="DIR", help="CIFAR-10, as convnet-data cifar10 leaves it; default: the digits that are in the repository")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="nets of each kind (default 5)")
    parser.add_argument("--epochs", type=int, metavar="N", help="default 100 on the digits, 40 on CIFAR-10")
    parser.add_argument("--backend", default="auto", help="of convnet-train")
    parser.add_argument("--jobs", type=int, metavar="N", help="nets that are trained at the same time (default: one on each core, or one on a GPU)")
    parser.add_argument("--json", metavar="FILE", help="write all numbers")
    parser.add_argument("--plot", metavar="FILE.png", help="draw figure 1, the training errors of `relu`")
    return parser


def main() -> int:
    asked = build_parser().parse_args()
    run_through_go(*(["plot"] if asked.plot else []))
    from recipes import Kitchen

    from convnet.backends import choose_backend, cores
    from convnet.errors import CommandLineError
    from convnet.profile import write

    names = list(CLAIMS) if asked.all else asked.names
    if unknown := [name for name in names if name not in CLAIMS]:
        raise CommandLineError(f"no claim {unknown[0]}; expected some of {', '.join(CLAIMS)}")
    for name in ("seeds", "epochs", "jobs"):
        if (given := getattr(asked, name)) is not None and given < 1:
            raise CommandLineError(f"--{name} {given}: expected 1 or more")
    data = data_of(asked.data_path, asked.epochs, asked.backend)
    refused = {name: reason for name, reason in NOT_ON_DIGITS.items() if asked.data_path is None}
    if not names:
        for name, claim in CLAIMS.items():
            print(f"{name:10} {claim.__doc__}" + (f" Needs --data-path: of the digits, {refused[name]}." if name in refused else ""))
        return 0
    for name in set(asked.names) & set(refused):
        raise CommandLineError(f"{name} cannot be tried on the digits: {refused[name]}; --data-path DIR tries it on CIFAR-10 (convnet-data cifar10 fetches that)")
    if asked.plot and "relu" not in names:
        raise CommandLineError("--plot draws the training errors of the claim relu; name it too")
    left_out = {name: refused[name] for name in names if name in refused}
    record = {"command": shlex.join(["python", "benchmarks/claims.py", *sys.argv[1:]]), "machine": machine(), "data": data.name,
              "training": data.words | {"seeds": asked.seeds}, "rows": [], "refused": left_out}
    print(heading(data, asked.seeds), flush=True)
    with Kitchen(asked.jobs or (1 if choose_backend(asked.backend) == "cuda" else cores())) as kitchen:
        lab = Lab(data, asked.seeds, kitchen)
        for name in (name for name in names if name not in refused):
            for row in CLAIMS[name](lab):  # each is told and kept when it is there: all of them take a while
                print(line_of(row), flush=True)
                record["rows"].append(asdict(row) | {"difference": row.difference, "verdict": row.verdict})
            if asked.json:
                write("--json", asked.json, (json.dumps(record, indent=1, default=str) + "\n").encode())
            if asked.plot and name == "relu":
                write("--plot", asked.plot, figure1(lab.curves, data.name))
    for name, reason in left_out.items():
        print(f"| {name} | | | | | | not tried: {reason} |")
    return 0


def heading(data: Data, seeds: int) -> str:
    """The beginning of the table, in Markdown."""
    return (f"On {data.name}: trained on batches {data.words['train_range']}, tested on {data.words['test_range']}, {data.words['epochs']} epochs, {seeds} seeds. Mean ± standard\n"
            "deviation over the seeds; of a difference ± its standard error, from nets of the same seed. It *shows* where it is in the paper's\n"
            "direction by more than twice that.\n\n"
            "| claim | the paper's way | the other | difference | the paper, top-1 / top-5 | its program's log | here |\n|---|---|---|---|---|---|---|")


def line_of(row: Row) -> str:
    ways = [f"{way}: {row.column(i)}" for i, way in enumerate(row.ways)]
    return f"| {row.claim} | {ways[0]} | {ways[1]} | {row.difference} | {row.paper} | {row.logged} | {row.verdict} |"


def figure1(curves: dict[str, list], name: str) -> bytes:
    """Training errors over the epochs: thin for each seed, thick for their mean; the paper's figure 1."""
    import numpy as np
    from matplotlib.ticker import PercentFormatter

    from convnet.figures import new_figure, png, tidy

    figure = new_figure(8, 5)
    axis = figure.subplots()
    for (unit, runs), color, style in zip(curves.items(), ("#1f5fa8", "#c8553d"), ("-", "--"), strict=True):
        for run in runs:
            axis.plot(run[:, 0], run[:, 1], color=color, linewidth=0.7, alpha=0.4, linestyle=style)
        mean = np.mean([run[: min(map(len, runs))] for run in runs], axis=0)
        axis.plot(mean[:, 0], mean[:, 1], color=color, linewidth=2.4, linestyle=style, label=unit)
    axis.axhline(REACHED, color="#888", linewidth=0.9, linestyle=":")
    axis.annotate(f"{REACHED:.0%}", (1, REACHED), (-4, 3), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", color="#666")
    tidy(axis)
    axis.set_ylim(0, 1)
    axis.set_xlim(left=0)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_xlabel("epochs")
    axis.set_ylabel("training error rate")
    axis.set_title("\n".join(textwrap.wrap(f"{name}: units compared, each at its best learning rate, {len(next(iter(curves.values())))} seeds", 80)), loc="left", fontsize=11)
    axis.legend(frameon=False)
    return png(figure)


if __name__ == "__main__":
    run_through_go()
    from convnet.cli import run_command

    run_command("claims.py", main)
