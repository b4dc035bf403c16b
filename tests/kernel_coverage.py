"""Coverage of the kernels by the tests of the ops: lines and branches by file and by function.

    ./go python tests/kernel_coverage.py            builds simt with --coverage, runs the tests, prints the table
    ./go python tests/kernel_coverage.py --again    prints the table of the last run

Counted is what the C++ compiler makes code of in src/kernels/*.cu, *.cuh and *.h: kernels, their launchers, and the formulas and
checks that they share with the host. A template counts as covered where one of its instances is. Branches of exceptions are left out. Lines
that nothing runs are listed; exit status 1 if they are more than 2%, or if a test fails.
"""
from __future__ import annotations

import argparse
import collections
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from simt_build import BUILDS, ROOT, build_simt

HERE = Path(__file__).resolve().parent
KERNELS = ROOT / "src" / "kernels"
# Those of the ops, and those of layers that show what an op refuses.
TESTS = ["test_ops.py", "test_backends.py", "test_bfloat16.py", "test_constraints.py", "test_costs.py", "test_fc.py", "test_fused.py", "test_layers_image.py", "test_layers_norm.py",
         "test_library.py", "test_local.py", "test_neurons.py", "test_pool.py", "test_refusals.py", "test_tree.py", "test_workspaces.py"]
FLAGS = "-O1 -ffp-contract=off --coverage"
WANTED = 0.98


@dataclass
class Counts:
    """Of one file: executions by line; the branches of a line; the lines of each function."""

    lines: collections.Counter = field(default_factory=collections.Counter)
    branches: dict[int, list[bool]] = field(default_factory=dict)
    functions: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, entry: dict) -> None:
        """One translation unit's view of the file, with an entry for each instance of a template."""
        for line in entry["lines"]:
            number = line["line_number"]
            self.lines[number] += line["count"]
            taken = [branch["count"] > 0 for branch in line["branches"] if not branch["throw"]]
            known = self.branches.setdefault(number, [])
            known += [False] * (len(taken) - len(known))
            for i, was in enumerate(taken):
                known[i] |= was
        for function in entry["functions"]:
            name = name_of(function["demangled_name"])
            if name:
                first, last = self.functions.get(name, (function["start_line"], function["end_line"]))
                self.functions[name] = min(first, function["start_line"]), max(last, function["end_line"])

    def ratio(self, numbers) -> tuple[int, int, int, int]:
        """Lines run, lines, branches taken, branches; of these lines."""
        numbers = [number for number in numbers if number in self.lines]
        branches = [taken for number in numbers for taken in self.branches[number]]
        return sum(self.lines[number] > 0 for number in numbers), len(numbers), sum(branches), len(branches)


def name_of(demangled: str) -> str:
    """Of a function, without template arguments, parameters and namespace; "" for a lambda, which belongs to what holds it."""
    if "lambda" in demangled:
        return ""
    bare = demangled
    while (fewer := re.sub(r"<[^<>]*>", "", bare)) != bare:
        bare = fewer
    name = bare.split("(")[0].split()[-1]
    return name.removeprefix("convnet::").replace("{anonymous}::", "") if name else ""


def measure(tests: list[str]) -> None:
    """Runs the tests on a build that counts."""
    module = build_simt("coverage", FLAGS, link_flags="--coverage")
    for old in (BUILDS / "coverage").rglob("*.gcda"):
        old.unlink()
    environment = {**os.environ, "CONVNET_SIMT_MODULE": str(module)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "simt", *(str(HERE / name) for name in tests)]
    if subprocess.run(command, cwd=ROOT, env=environment).returncode:
        raise SystemExit("a test failed: no coverage")


def collect() -> dict[str, Counts]:
    """What gcov makes of the counters, by file of src/kernels."""
    gcov = shutil.which("gcov")
    if gcov is None:
        raise SystemExit("gcov was not found; it comes with g++")
    found: dict[str, Counts] = collections.defaultdict(Counts)
    counters = [path for path in (BUILDS / "coverage" / "CMakeFiles" / "_simt.dir").rglob("*.gcda")]
    if not counters:
        raise SystemExit("there are no counters; run without --again")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([gcov, "--json-format", "--branch-probabilities", "--demangled-names", *map(str, counters)], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for path in Path(folder).glob("*.gcov.json.gz"):
            report = json.loads(gzip.decompress(path.read_bytes()))
            for entry in report["files"]:
                file = (Path(report["current_working_directory"]) / entry["file"]).resolve()
                if file.parent == KERNELS and file.suffix in (".cu", ".cuh", ".h"):
                    found[file.name].add(entry)
    return dict(sorted(found.items()))


def row(name: str, counts: tuple[int, int, int, int]) -> str:
    run, lines, taken, branches = counts
    of_branches = f"{taken:6} of {branches:<5}{taken / branches:7.1%}" if branches else ""
    return f"{name:46}{run:6} of {lines:<5}{run / max(1, lines):7.1%}  {of_branches}"


def print_table(files: dict[str, Counts]) -> float:
    """Prints it; gives the share of the lines that were run."""
    print(f"\n{'':46}{'lines':>21}  {'branches':>21}")
    totals = [0, 0, 0, 0]
    holes = []
    for name, file in files.items():
        counts = file.ratio(list(file.lines))
        totals = [a + b for a, b in zip(totals, counts, strict=True)]
        print(row(name, counts))
        for function, (first, last) in sorted(file.functions.items(), key=lambda entry: entry[1]):
            print(row(f"    {function}", file.ratio(range(first, last + 1))))
        source = (KERNELS / name).read_text().splitlines()
        holes += [f"{name}:{number}: {source[number - 1].strip()}" for number in sorted(file.lines) if not file.lines[number]]
    kernels = [file.ratio(list(file.lines)) for name, file in files.items() if name.endswith(".cuh")]
    print(row("device code (*.cuh)", tuple(map(sum, zip(*kernels, strict=True)))))
    print(row("all", tuple(totals)))
    if holes:
        print("\nNothing runs:", *holes, sep="\n    ")
    return totals[0] / max(1, totals[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--again", action="store_true", help="the table of the last run")
    options = parser.parse_args()
    if not options.again:
        measure(TESTS)
    share = print_table(collect())
    print(f"\n{share:.2%} of the lines, expected {WANTED:.0%}")
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
