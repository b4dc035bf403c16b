"""Where we lose: every measured value below its target, or below PyTorch at its best.

    python benchmarks/shortfalls.py [--all] [DEVICE ...]

Reads benchmarks/results/DEVICE/*.json. The targets are the table TARGETS below. Of several that a value falls under, the
highest counts.
"""
from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from environment import ROOT
from timing import spread

RESULTS = ROOT / "benchmarks" / "results"
COLUMNS = {"share": "of the peak", "as written": "times as fast as PyTorch as written", "best": "times as fast as PyTorch at its best",
           "cores": "times as fast on two cores as on one", "input": "of a step for its input"}


@dataclass(frozen=True)
class Value:
    """kind: ops, train, inference or input; what: layer and op, or the model; spread: half the distance of the quartiles of what it was made of, relative."""

    kind: str
    what: str
    images: int
    threads: int
    column: str
    value: float
    spread: float

    def __str__(self) -> str:
        number = f"{self.value:.1%}" if self.column in ("share", "input") else f"{self.value:.2f}"
        return f"{self.kind} {self.what}, {self.images} image{'s' * (self.images > 1)}, {self.threads} thread{'s' * (self.threads > 1)}: {number} ± {self.spread:.1%} {COLUMNS[self.column]}"


@dataclass(frozen=True)
class Target:
    """`what` is a regular expression; images and threads: 0 for any. limit: at least that, of the input at most."""

    kind: str
    what: str
    column: str
    limit: float
    images: int = 0
    threads: int = 0

    def is_of(self, value: Value) -> bool:
        return (self.kind, self.column) == (value.kind, value.column) and bool(re.search(self.what, value.what)) and all(
            wanted in (0, found) for wanted, found in ((self.images, value.images), (self.threads, value.threads)))

    def is_met(self, value: Value) -> bool:
        return value.value < self.limit if self.column == "input" else value.value >= self.limit

    def __str__(self) -> str:
        number = f"{self.limit:.0%}" if self.column in ("share", "input") else f"{self.limit:g}"
        return f"{'less than' if self.column == 'input' else 'at least'} {number}"


TARGETS = [
    Target("ops", r"^(alexnet-conv[2-5]|cifar-conv\d) conv_", "share", 0.88, images=128, threads=1),
    Target("ops", r"^alexnet-conv1 conv_(forward|backward_filters)", "best", 1.5, images=128),
    Target("ops", r"^alexnet-fc[678] fc_", "share", 0.85, images=128),
    Target("ops", r" (lrn|max_pool|avg_pool|lrn_max_pool)$", "as written", 3, images=128),
    Target("train", r"^alexnet$", "best", 1.7, images=128, threads=2),
    Target("train", r"^alexnet$", "as written", 4.5, images=128, threads=2),
    Target("train", r"^alexnet fast$", "best", 2.0, images=128, threads=2),
    Target("ops", r"^alexnet-conv[345] conv_.* fast$", "best", 1.4, images=128, threads=1),
    Target("train", r"^cifar-quick$", "best", 1.4, images=128, threads=2),
    Target("train", r"^cifar-quick$", "as written", 2.8, images=128, threads=2),
    Target("inference", r"^alexnet$", "best", 1.2, images=1),
    Target("inference", r"^alexnet$", "best", 1.7, images=128),
    Target("train", r"^(alexnet|cifar-quick)$", "cores", 1.9, images=128),
    Target("input", "", "input", 0.02),
    *(Target(kind, "", "best", 1.0) for kind in ("ops", "train", "inference")),  # whatever the minibatch
]


def values_of(name: str, result: dict) -> Iterator[Value]:
    """All that a stored result says."""
    kind = re.match("[a-z]*", name)[0]
    if kind == "ops":
        for row in result["rows"]:
            fast = result.get("precision") == "fast"
            about = (kind, f"{row['layer']} {row['op']}" + " fast" * fast, result["images"], result["threads"])
            if row["flops"] and not fast:  # which executes fewer than are counted
                yield Value(*about, "share", row["share"], row["spread"])
            for column, ratio in row.get("ratios", {}).items():
                way = {"as written": "as written", "best": row["best"]}[column]
                yield Value(*about, column, ratio, row["spread"] + spread(row["times"].get(way, [1.0])))
    elif kind in ("train", "inference"):
        seconds = {name: row["seconds"] for name, row in result["rows"].items()}
        ours = {name: times for name, times in seconds.items() if re.fullmatch(r"\d+x\d+", name)}
        threads = threads_of(next(iter(ours)))
        about = (kind, result["model"], result["images"])
        fastest = min((times for name, times in ours.items() if threads_of(name) == threads), key=statistics.median)
        if "torch at its best" in seconds:
            written, best = seconds["torch as written"], seconds["torch at its best"]
            for name in seconds:
                if name.endswith(" fast"):
                    yield Value(kind, f"{result['model']} fast", result["images"], threads, "best", *ratio_of(min(written, best, key=statistics.median), seconds[name]))
            yield Value(*about, threads, "as written", *ratio_of(written, fastest))
            yield Value(*about, threads, "best", *ratio_of(min(written, best, key=statistics.median), fastest))  # the search can be mistaken
        if {"1x1", "1x2"} <= ours.keys():
            yield Value(*about, 2, "cores", *ratio_of(ours["1x1"], ours["1x2"]))
    elif kind == "input":
        mapping = next(iter(result["rows"]))
        yield Value(kind, result["model"], result["images"], threads_of(mapping), "input", result["input"]["share"], spread(result["rows"][mapping]["seconds"]))


def threads_of(mapping: str) -> int:
    devices, threads = map(int, mapping.split("x"))
    return devices * threads


def ratio_of(theirs: list[float], ours: list[float]) -> tuple[float, float]:
    return statistics.median(theirs) / statistics.median(ours), spread(theirs) + spread(ours)


def judged(values: list[Value]) -> Iterator[tuple[Value, Target]]:
    """Those that have a target, with the highest that they fall under."""
    for value in values:
        targets = [target for target in TARGETS if target.is_of(value)]
        if targets:
            yield value, max(targets, key=lambda target: target.limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs="*", metavar="DEVICE", help="folders of benchmarks/results (default: all)")
    parser.add_argument("--all", action="store_true", help="print what reaches its target too")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the folders are (benchmarks/results)")
    arguments = parser.parse_args()
    folders = [arguments.results / name for name in arguments.devices] or sorted(path for path in arguments.results.iterdir() if path.is_dir())
    for folder in folders:
        if not folder.is_dir():
            sys.exit(f"shortfalls: {folder}: no such folder; there are {', '.join(sorted(path.name for path in arguments.results.iterdir()))}")
        values = [value for path in sorted(folder.glob("*.json")) for value in values_of(path.stem, json.loads(path.read_text()))]
        found = list(judged(values))
        lost = [pair for pair in found if not pair[1].is_met(pair[0])]
        print(f"{folder.name}: {len(found) - len(lost)} of {len(found)} values reach their targets" + (", these do not:" if lost else ""))
        for value, target in found if arguments.all else lost:
            print(f"  {value}, expected {target}" + (" (reached)" if target.is_met(value) else ""))
        for target in TARGETS:
            if not any(target.is_of(value) for value in values):
                print(f"  not measured: {target.kind} {target.what or 'of any net'}, {target.images or 'any'} images, {target} {COLUMNS[target.column]}")


if __name__ == "__main__":
    main()
