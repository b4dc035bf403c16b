"""All that README says of the speed of a CPU, in stages, into benchmarks/results/DEVICE/.

    python benchmarks/cpu_report.py                        # all stages that are not finished yet: half an hour on two cores
    python benchmarks/cpu_report.py --budget 540           # begins none that might not end within 9 minutes from now
    python benchmarks/cpu_report.py --list                 # the stages, and what is known of each
    python benchmarks/cpu_report.py --stages 'alexnet' --again

On a machine that does nothing else. Each stage has a time limit and is recorded as it ends (stages.json; what it printed is
in STAGE.txt), so the next call goes on where one was cut off. A stage that has passed or failed is not run again unless a
source file has changed since. Then `shortfalls.py` says where we lose, and `results_table.py --write` puts all into README and
docs/speed.md.
"""
from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

from environment import ROOT, cores, device_folder, device_of, machine, run_through_go
from stages import Report, Stage, print_list, run_and_tell, source_hash

RESULTS = ROOT / "benchmarks" / "results"


def stages(folder: Path, threads: int) -> list[Stage]:
    """They are run in the checkout, from where the paths are: what is stored names no path of the machine."""

    def stage(name: str, limit: float, *arguments: object) -> Stage:
        return Stage(name, [sys.executable, *map(str, arguments), "--backend", "host", "--json", str(folder / f"{name}.json")], limit)

    def ops(name: str, images: int, limit: float, repeats: int) -> Stage:
        """On one core, by processor time."""
        return stage(name, limit, "benchmarks/op_throughput.py", "--images", images, "--threads", 1, "--cpu-time", "--repeats", repeats, "--peer", "torch")

    def net(name: str, model: str, data: str, images: int, limit: float, turns: int, *words: str) -> Stage:
        return stage(name, limit, "benchmarks/train_throughput.py", f"convnet/models/{model}", "--data", data, "--mini", images, "--turns", turns, *words)

    photographs, small, peer, one_device = "dummy:3x224x224", "dummy:3x32x32", ("--peer", "torch"), ("--map", f"1x{threads}")
    on_both = ("--map", f"1x{threads}", "1x1", *([f"2x{threads // 2}"] if threads > 1 else []))
    return [
        ops("ops", 128, 900, 5),
        ops("ops-16", 16, 240, 5),
        ops("ops-1", 1, 240, 5),
        stage("ops-fast", 300, "benchmarks/op_throughput.py", "--ops", "^conv", "--layers", "conv[2-5]", "--precision", "fast", "--threads", 1, "--cpu-time", "--repeats", 5, "--peer", "torch"),
        net("train-alexnet", "alexnet", photographs, 128, 900, 5, *on_both, "--precision", "fast", *peer),
        net("train-alexnet-16", "alexnet", photographs, 16, 240, 7, *one_device, *peer),
        net("train-alexnet-1", "alexnet", photographs, 1, 180, 9, *one_device, *peer),
        net("inference-alexnet", "alexnet", photographs, 128, 240, 5, "--inference", *one_device, *peer),
        net("inference-alexnet-1", "alexnet", photographs, 1, 180, 15, "--inference", *one_device, *peer),
        net("train-cifar-quick", "cifar-quick", small, 128, 180, 25, "--map", f"1x{threads}", "1x1", *peer),
        net("train-cifar-quick-16", "cifar-quick", small, 16, 120, 25, *one_device, *peer),
        net("train-cifar-quick-1", "cifar-quick", small, 1, 120, 25, *one_device, *peer),
        net("input-alexnet", "alexnet", "dummy:3x256x256", 128, 240, 5, "--crop-border", "16", "--color-noise", "0.1", "--on-disk", "512", "--without-input", *one_device),
        net("input-cifar-quick", "cifar-quick", "dummy:3x40x40", 128, 120, 9, "--crop-border", "4", "--color-noise", "0.1", "--on-disk", "5120", "--without-input", *one_device),
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default="", metavar="PATTERN", help="only those whose name matches this regular expression")
    parser.add_argument("--again", action="store_true", help="finished ones too")
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="SECONDS", help="of this call: no stage begins whose limit is beyond it")
    parser.add_argument("--list", action="store_true", help="print the stages and their states")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where DEVICE/ is made (benchmarks/results)")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    if not (arguments.list or arguments.dry_run):
        run_through_go("torch")
    folder = Path(os.path.relpath(arguments.results, ROOT)) / device_folder(device_of(machine(), "host"))
    planned = stages(folder, cores())
    chosen = [stage for stage in planned if re.search(arguments.stages, stage.name)]
    if not chosen:
        sys.exit(f"cpu_report: --stages {arguments.stages}: no such stage; there are {', '.join(stage.name for stage in planned)}")
    report = Report(ROOT / folder, source_hash(), "host", "stages")
    if arguments.dry_run:
        for stage in chosen:
            print(f"{stage.name} (at most {stage.limit:.0f} s): {shlex.join(['python' if word == sys.executable else word for word in stage.command])}")
        return 0
    if arguments.list:
        print_list(report, chosen)
        return 0
    return run_and_tell(report, chosen, arguments.again, arguments.budget, f"{folder}; python benchmarks/shortfalls.py says where we lose, python benchmarks/results_table.py --write puts it into README.md and docs/speed.md")


if __name__ == "__main__":
    sys.exit(main())
