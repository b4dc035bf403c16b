"""What a GPU would run, read off its machine code: registers, spills, and the share of multiply-adds in the inner loops.

    python benchmarks/sass_report.py src/kernels/conv.cu [--arch sm_90] [--tools FOLDER] [--kernels REGEX] [--json]

Needs no GPU: nvcc, and cuobjdump and nvdisasm, which are on PATH or in the folder --tools (from PyPI:
`pip download --no-deps nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`, then `python -m zipfile -e WHEEL FOLDER`).

A loop is the code from a label to a backward branch to it; of those that hold multiply-adds the one with the largest
share of them is shown. Everything between counts: loads, stores, addresses, barriers, and branches rarely taken.
Exits with 1 if a kernel spills.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

MULTIPLY_ADDS = {"FFMA", "FFMA2", "DFMA", "HMMA", "HGMMA"}  # not HFMA2: it is also how constants are moved


@dataclass
class Kernel:
    name: str
    registers: int
    spilled: int  # bytes of local memory and stack
    shared: int  # bytes
    loop: int  # instructions of the densest loop
    multiply_adds: int  # those of them that are
    others: dict[str, int]

    @property
    def share(self) -> float:
        return self.multiply_adds / self.loop if self.loop else 0.0


def run(*command: str | Path) -> str:
    try:
        return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        sys.exit(f"{Path(command[0]).name}: {error.stderr.strip() or error.stdout.strip()}")


def find(tool: str, folder: Path | None) -> str:
    for path in sorted(folder.rglob(tool)) if folder else ():
        path.chmod(0o755)
        return str(path)
    if path := shutil.which(tool):
        return path
    sys.exit(f"{tool}: not found on PATH{f' or in {folder}' if folder else '; give its folder with --tools'}")


def readable(name: str) -> str:
    """Kernel and template arguments, without namespaces and parameters."""
    return re.sub(r"^void |convnet::|\(.*", "", name)


def densest_loop(code: list[tuple[str, str]], labels: dict[str, int]) -> tuple[int, Counter]:
    best: tuple[int, Counter] = (0, Counter())
    for end, (op, operands) in enumerate(code):
        target = re.search(r"\.L_\w+", operands) if op == "BRA" else None
        begin = labels.get(target[0], end) if target else end
        if begin < end:
            counts = Counter(op for op, _ in code[begin : end + 1])
            size, fmas = end + 1 - begin, sum(counts[op] for op in MULTIPLY_ADDS)
            if fmas * max(best[0], 1) > sum(best[1][op] for op in MULTIPLY_ADDS) * size:
                best = size, counts
    return best


def loops_of(disassembly: str) -> dict[str, tuple[int, Counter]]:
    """Mangled name of each kernel -> its densest loop."""
    loops = {}
    for section in re.split(r"\n\s*(?=\.section\s+\.text\.)", disassembly)[1:]:
        code, labels = [], {}
        for line in section.splitlines():
            if label := re.match(r"\s*(\.L_\w+):", line):
                labels[label[1]] = len(code)
            elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)(.*)", line):
                code.append((instruction[1], instruction[2]))
        name = re.match(r"\.section\s+\.text\.(\w+)", section)[1]
        loops[name] = densest_loop(code, labels)
    return loops


def report(source: Path, arch: str, tools: Path | None) -> list[Kernel]:
    cuobjdump, nvdisasm = find("cuobjdump", tools), find("nvdisasm", tools)
    os.environ["PATH"] = f"{Path(nvdisasm).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        includes = Path(__file__).resolve().parent.parent / "src/kernels"
        run("nvcc", "-std=c++20", "-O3", f"-arch={arch}", f"-I{includes}", "-cubin", "-o", cubin, source)
        loops = loops_of(run(nvdisasm, "-c", cubin))
        usage = run(cuobjdump, "--dump-resource-usage", cubin)
    kernels = []
    for name, numbers in re.findall(r"Function (\w+):\s*\n\s*(.*)", usage):
        use = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", numbers)}
        size, counts = loops[name]
        fmas = sum(counts[op] for op in MULTIPLY_ADDS)
        kernels.append(Kernel(name, use["REG"], use["STACK"] + use["LOCAL"], use["SHARED"], size, fmas,
                              {op: n for op, n in counts.most_common() if op not in MULTIPLY_ADDS}))
    names = subprocess.run(["c++filt"], input="\n".join(k.name for k in kernels), capture_output=True, text=True, check=True).stdout.splitlines()
    for kernel, name in zip(kernels, names, strict=True):
        kernel.name = readable(name)
    return sorted(kernels, key=lambda kernel: kernel.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, help=".cu files")
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--tools", type=Path, help="folder with cuobjdump and nvdisasm, if they are not on PATH")
    parser.add_argument("--kernels", default="", help="only kernels whose name matches this expression")
    parser.add_argument("--json", action="store_true", help="one JSON object a kernel, other instructions of the loop included")
    options = parser.parse_args()

    kernels = [k for source in options.sources for k in report(source, options.arch, options.tools) if re.search(options.kernels, k.name)]
    if options.json:
        for kernel in kernels:
            print(json.dumps({"arch": options.arch, **asdict(kernel), "share": round(kernel.share, 4)}))
    else:
        print(f"{options.arch:<68} {'registers':>9} {'spilled':>7} {'shared':>6} {'multiply-adds in the densest loop':>34}")
        for k in kernels:
            loop = f"{k.multiply_adds} of {k.loop} = {k.share:.0%}" if k.multiply_adds else "none"
            print(f"{k.name:<68} {k.registers:>9} {k.spilled:>7} {k.shared:>6} {loop:>34}")
    sys.exit(any(k.spilled for k in kernels))


if __name__ == "__main__":
    main()
