"""Everything that only a GPU can tell, in stages, into benchmarks/results/DEVICE/.

    python benchmarks/gpu_report.py                        # all stages that are not finished yet
    python benchmarks/gpu_report.py --budget 540           # begins none that might not end within 9 minutes from now
    python benchmarks/gpu_report.py --list                 # the stages, and what is known of each
    python benchmarks/gpu_report.py --stages 'check' --again
    python benchmarks/gpu_report.py --installed --stages test-ops    # with the convnet that this Python has, not built anew

Each stage has a time limit and is recorded as it ends (report.json; what it printed is in STAGE.txt), so the next call
goes on where one was cut off. A stage that has passed or failed is not run again unless a source file has changed
since. Calls for other stages may run at the same time: those that tell what is right do not disturb each other. Needs nvcc, and no network where this Python has what the build and the tests import; elsewhere ./go fetches it.
Exits with 1 if a stage fails, and with 3 if not all are finished.
"""
from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import re
import shlex
import sys
from pathlib import Path

from environment import ROOT, device_folder, gpu
from stages import Report, Stage, print_list, run_and_tell, source_hash

RESULTS = ROOT / "benchmarks" / "results"
PRECISIONS = ("bf16x3", "tf32", "bf16")  # beside exact
NEEDED = ("scikit_build_core", "pybind11", "numpy", "PIL", "tqdm", "pytest")  # to build and to test


def environment(peer: bool) -> tuple[list[str], list[str]]:
    """The command that builds, and how a Python that has what was built is called."""
    wanted = NEEDED + (("torch",) if peer else ())
    if all(importlib.util.find_spec(module) for module in wanted):
        options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--config-settings=build-dir=build/gpu_report"]
        return [sys.executable, "-m", "pip", "install", *options, "--editable", "."], [sys.executable]
    go = [sys.executable, "go", "--with", "torch,sass" if peer else "sass"]
    return [*go, "convnet-info"], [*go, "python"]


def stages(folder: Path, images: int, peer: bool, installed: bool = False) -> list[Stage]:
    """In the order in which they are run: what says that the kernels are right comes before how fast they are.

    They are run in the checkout, from where the paths are: what is stored names no path of the machine.
    """
    build, python = ([], [sys.executable]) if installed else environment(peer)
    against = ["--peer", "torch"] if peer else []
    pytest = ["-m", "pytest", "-q", *["-n", "auto"] * bool(python == [sys.executable] and importlib.util.find_spec("xdist"))]

    def stage(name: str, limit: float, *arguments: object) -> Stage:
        return Stage(name, [*python, *map(str, arguments)], limit, after="" if installed else "build")

    def train(model: str, *words: str, data: str = "dummy:3x224x224", name: str = "", images: int = images) -> Stage:
        name = name or f"train-{model}"
        return stage(name, 420, "benchmarks/train_throughput.py", f"convnet/models/{model}", "--data", data, "--mini", images,
                     "--backend", "cuda", *words, "--json", folder / f"{name}.json")

    def graphs(model: str, *words: str, data: str = "dummy:3x224x224") -> Stage:
        """The first mapping run step by step beside itself run by CUDA graphs, which auto does not take: a stage of its own, for it may fail."""
        return train(model, *words, "--graphs", "off", "on", data=data, name=f"train-{model}-graphs")

    def ops(precision: str, name: str) -> Stage:
        return stage(name, 420, "benchmarks/op_throughput.py", "--backend", "cuda", "--images", images, "--precision", precision, *against, "--json", folder / f"{name}.json")

    return [
        *([] if installed else [Stage("build", build, 480, always=True)]),
        stage("machine", 60, "-m", "convnet.cli.info", "--json"),
        stage("test-ops", 300, *pytest, "tests/test_ops.py", "-k", "cuda"),
        stage("test-rest", 480, *pytest, "--ignore=tests/test_ops.py", "-k", "cuda"),
        stage("ptx", 180, "tests/ptx/conformance.py", "--json", folder / "ptx.json"),
        *(stage(tool, 300, "benchmarks/sanitize.py", tool) for tool in ("memcheck", "racecheck", "initcheck", "synccheck")),
        stage("sass", 240, "benchmarks/sass_report.py", "--json", folder / "sass.json"),
        ops("exact", "ops"),
        *(ops(precision, f"ops-{precision}") for precision in PRECISIONS),
        stage("tune", 480, "benchmarks/tune.py", "--images", images, "--output", folder / "tiles.json"),  # goes on where it was cut off
        train("alexnet", "--map", "1x1", "2x1", "--precision", *PRECISIONS, *against),  # both columns on one GPU, as one device and as two
        train("alexnet", "--map", "1x1", "--precision", *PRECISIONS, *against, name="train-alexnet-large", images=8 * images),
        train("alexnet", "--map", "1x1", "--inference", "--precision", "bf16", *against, name="inference-alexnet-large", images=8 * images),
        train("alexnet-one-gpu", "--map", "1x1", "--precision", *PRECISIONS, *against),
        graphs("cifar-quick", "--map", "1x1", data="dummy:3x32x32"),
        graphs("alexnet", "--map", "2x1"),  # two queues: what one waits for of the other is in the graph
        *(train("alexnet", "--map", mapping, "--graphs", "on", "--streams", "1", "2", name=f"train-alexnet-streams-{mapping}") for mapping in ("1x1", "2x1")),
    ]


def with_limits(planned: list[Stage], limits: list[str]) -> list[Stage]:
    """STAGE=SECONDS, or SECONDS for all."""
    for text in limits:
        name, _, seconds = text.rpartition("=")
        if name and name not in [stage.name for stage in planned]:
            sys.exit(f"gpu_report: --limit {text}: no such stage; there are {', '.join(stage.name for stage in planned)}")
        if not re.fullmatch(r"\d+(\.\d+)?", seconds):
            sys.exit(f"gpu_report: --limit {text}: expected STAGE=SECONDS, or SECONDS")
        planned = [dataclasses.replace(stage, limit=float(seconds)) if name in ("", stage.name) else stage for stage in planned]
    return planned


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default="", metavar="PATTERN", help="only those whose name matches this regular expression")
    parser.add_argument("--again", action="store_true", help="finished ones too")
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="SECONDS", help="of this call: no stage begins whose limit is beyond it")
    parser.add_argument("--limit", action="append", default=[], metavar="[STAGE=]SECONDS", help="another time limit for a stage, or for all; may be repeated")
    parser.add_argument("--images", type=int, default=128, metavar="N", help="minibatch of the benchmarks (128)")
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="without PyTorch")
    parser.add_argument("--installed", action="store_true", help="build nothing: with the convnet that this Python can import")
    parser.add_argument("--list", action="store_true", help="print the stages and their states")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where DEVICE/ is made (benchmarks/results)")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    device = gpu()
    if not (device or arguments.list or arguments.dry_run):
        sys.exit("gpu_report: no GPU here (nvidia-smi does not name one). --dry-run prints what would be run where there is one")
    folder = Path(os.path.relpath(arguments.results, ROOT)) / (device_folder(device["name"]) if device else "no-gpu")
    planned = with_limits(stages(folder, arguments.images, arguments.peer, arguments.installed), arguments.limit)
    chosen = [stage for stage in planned if re.search(arguments.stages, stage.name)]
    if not chosen:
        sys.exit(f"gpu_report: --stages {arguments.stages}: no such stage; there are {', '.join(stage.name for stage in planned)}")
    report = Report(ROOT / folder, source_hash())
    if not device:
        print("no GPU here (nvidia-smi does not name one)")
    if arguments.dry_run:
        for stage in chosen:
            print(f"{stage.name} (at most {stage.limit:.0f} s): {shlex.join(stage.command)}")
        return 0
    if arguments.list:
        print_list(report, chosen)
        return 0
    os.environ.setdefault("CONVNET_CUDA", "require")  # of the build: without _cuda there is nothing to do here
    os.environ.setdefault("CONVNET_TILES", "off")  # by the rule, unless the caller names a table
    chosen = [stage for stage in planned if stage in chosen or stage.always]
    return run_and_tell(report, chosen, arguments.again, arguments.budget, f"{folder}; python benchmarks/results_table.py --write puts it into README.md and docs/speed.md")


if __name__ == "__main__":
    sys.exit(main())
