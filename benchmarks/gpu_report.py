"""Everything that only a GPU can tell, into one folder: the tests and the convolution benchmark on `cuda`.

    python benchmarks/gpu_report.py [FOLDER]

Writes tests.json, conv.json and machine.json as it goes, so that what was measured before a cut is there.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from environment import run_through_go

ROOT = Path(__file__).parent.parent


def run(name: str, command: list[str], folder: Path) -> int:
    """Runs a command of the checkout; its output goes to NAME.txt and what came of it to NAME.json."""
    start = time.time()
    with open(folder / f"{name}.txt", "w") as output:
        code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT).returncode
    lines = (folder / f"{name}.txt").read_text().splitlines()
    report = {"command": command, "exit": code, "seconds": round(time.time() - start, 1), "last_line": lines[-1] if lines else ""}
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"{name}: {report['last_line']} ({report['seconds']} s)", flush=True)
    return code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "benchmarks" / "results" / time.strftime("gpu-%Y-%m-%d"))
    parser.add_argument("--images", default="128", help="minibatch of the benchmark (default 128)")
    parser.add_argument("--peer", choices=("torch",), help="compare with PyTorch in the same run")
    arguments = parser.parse_args()

    run_through_go(*([arguments.peer] if arguments.peer else []))
    from convnet.backends import cuda_problem
    if problem := cuda_problem():
        sys.exit(f"gpu_report: {problem}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    run("machine", [sys.executable, "-m", "convnet.cli.info", "--json"], arguments.folder)
    failed = run("tests", [sys.executable, "-m", "pytest", "-q", "-k", "cuda"], arguments.folder)
    bench = [sys.executable, "benchmarks/conv_throughput.py", "--backend", "cuda", "--images", arguments.images, "--json", str(arguments.folder / "conv-times.json")]
    failed |= run("conv", bench + (["--peer", arguments.peer] if arguments.peer else []), arguments.folder)
    sys.exit(failed)


if __name__ == "__main__":
    main()
