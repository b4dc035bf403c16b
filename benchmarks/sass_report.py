"""The static gates: what a GPU would run, read off its machine code, and held to the limits in sass_gates.py.

    ./go --with sass python benchmarks/sass_report.py                 # the architectures that _cuda was built for
    ./go --with sass python benchmarks/sass_report.py --arch all      # all that we name; compiles what is not built
    python benchmarks/sass_report.py FILE.cu --arch 90a --kernels forward

Needs no GPU: cuobjdump and nvdisasm, which the extra `sass` brings and a CUDA toolkit has, and nvcc for what is compiled.
--launches FILE: what `SIMT_LAUNCHES=FILE ./go pytest tests/test_ops.py tests/test_bfloat16.py -k simt` has seen of blocks and dynamic shared memory.

A row is a kernel. Of one architecture it has registers, threads of a block (by __launch_bounds__; "any": it has none; 64/128:
it was launched with 64), bytes of shared and local memory, blocks that a multiprocessor holds at once (as launched; of 256
threads where nothing is known), accesses to global memory by the bytes that a thread moves, and the share of multiply-adds in the densest loop. Of
several it has registers, blocks, and that share. Exits with 1 if a gate is not kept.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from pathlib import Path

from sass_gates import GATES, failures

from sass import (
    GLOBAL_LOADS,
    GLOBAL_STORES,
    KERNELS,
    ROOT,
    Kernel,
    ToolError,
    Tools,
    add_launches,
    widths,
)

sys.path.insert(0, str(ROOT / "build_backend"))
from cuda_toolkit import ARCHITECTURES


def built() -> tuple[Path | None, list[str]]:
    """The _cuda module and the architectures whose machine code it holds."""
    try:
        from convnet import _build_info

        module = importlib.util.find_spec("convnet._cuda")
    except ImportError:
        return None, []
    archs = [arch.removesuffix("-real") for arch in _build_info.cuda["architectures"] if arch.endswith("-real")]
    return (Path(module.origin), archs) if module else (None, [])


def gather(tools: Tools, sources: list[Path], wanted: list[str]) -> list[Kernel]:
    """Kernels of these architectures (by default those that are built, else all): from the module, and from nvcc."""
    module, archs = (None, []) if sources else built()
    wanted = list(ARCHITECTURES) if wanted == ["all"] else wanted or archs or list(ARCHITECTURES)
    read = [arch for arch in wanted if arch in archs]
    kernels = list(tools.of_module(module, read)) if read else []
    if lacking := sorted(set(read) - {kernel.arch for kernel in kernels}):
        raise ToolError(f"{module}: no machine code for {', '.join(lacking)} in it")
    compiled = [arch for arch in wanted if arch not in archs]
    return kernels + list(tools.compiled(sources or sorted(KERNELS.glob("*.cu")), compiled))


def by_width(ops: tuple[str, ...], kernel: Kernel) -> str:
    """16x10 4x1: ten of 16 bytes, one of 4."""
    return " ".join(f"{size}x{count}" for size, count in sorted(widths(ops, kernel.code).items(), reverse=True)) or "-"


def share(kernel: Kernel) -> str:
    return f"{kernel.share:.0%}" if kernel.loop else "-"


def full_table(kernels: list[Kernel]) -> list[list[str]]:
    rows = [[f"sm_{kernels[0].arch}", "registers", "threads", "shared", "local", "blocks", "loads", "stores", "multiply-adds"]]
    for k in kernels:
        loop = f"{share(k)} of {len(k.loop)}" if k.loop else "-"
        rows.append([k.name, str(k.registers), f"{k.launched}/" * bool(k.launched) + str(k.threads or "any"), str(k.shared + k.dynamic), str(k.stack), str(k.blocks),
                     by_width(GLOBAL_LOADS, k), by_width(GLOBAL_STORES, k), loop])
    return rows


def wide_table(kernels: list[Kernel], archs: list[str]) -> list[list[str]]:
    rows = [["registers, blocks, multiply-adds", *(f"sm_{arch}" for arch in archs)]]
    cells = {(k.name, k.arch): f"{k.registers:3} {k.blocks:2} {share(k):>4}" for k in kernels}
    return rows + [[name, *(cells.get((name, arch), "-") for arch in archs)] for name in dict.fromkeys(k.name for k in kernels)]


def print_rows(rows: list[list[str]]) -> None:
    lengths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join([f"{row[0]:<{lengths[0]}}", *(f"{cell:>{length}}" for cell, length in zip(row[1:], lengths[1:], strict=True))]))


def record(kernel: Kernel) -> dict:
    """Of the JSON file."""
    accesses = {name: dict(widths(ops, kernel.code)) for name, ops in (("loads", GLOBAL_LOADS), ("stores", GLOBAL_STORES))}
    return {"arch": kernel.arch, "name": kernel.name, "registers": kernel.registers, "threads": kernel.threads, "launched": kernel.launched,
            "shared": kernel.shared, "dynamic": kernel.dynamic,
            "local": kernel.stack, "local_accesses": kernel.local_accesses, "blocks": kernel.blocks, **accesses,
            "loop": len(kernel.loop), "share": round(kernel.share, 4)}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, help=".cu files to compile, in place of all kernels")
    parser.add_argument("--arch", nargs="+", default=[], metavar="ARCH", help=f"all, or some of {' '.join(ARCHITECTURES)}")
    parser.add_argument("--kernels", default="", metavar="PATTERN", help="only kernels whose name matches this regular expression")
    parser.add_argument("--launches", type=Path, metavar="FILE", help="simt's log of launches, to be held against the bounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and what fails")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.arch) - {"all", *ARCHITECTURES}):
        parser.error(f"--arch {' '.join(unknown)}: expected all, or some of {' '.join(ARCHITECTURES)}")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    kernels = [k for k in gather(Tools(), arguments.sources, arguments.arch) if re.search(arguments.kernels, k.name)]
    if not kernels:
        raise ToolError(f"--kernels {arguments.kernels}: no such kernel")
    if arguments.launches:
        add_launches(kernels, arguments.launches.read_text())
    kernels.sort(key=lambda k: (k.name, ARCHITECTURES.index(k.arch)))
    archs = [arch for arch in ARCHITECTURES if any(k.arch == arch for k in kernels)]
    print_rows(full_table(kernels) if len(archs) == 1 else wide_table(kernels, archs))
    failing = failures(kernels)
    if arguments.json:
        arguments.json.write_text(json.dumps({"kernels": [record(k) for k in kernels], "failures": failing}, indent=1) + "\n")
    for failure in failing:
        print(f"FAILED {failure}")
    print(f"{len(kernels)} kernels, {len(GATES)} gates, {len(failing)} failures, on {' '.join(f'sm_{arch}' for arch in archs)}")
    return 1 if failing else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ToolError as error:
        print(f"sass_report: {error}", file=sys.stderr)
        sys.exit(2)
