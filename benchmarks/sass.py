"""Kernels as a GPU would run them, read off their machine code: registers, shared memory, accesses, loops.

From cubins, the machine code of one architecture: those in the built `_cuda` module, or what nvcc makes of a .cu file.
Needs no GPU, but cuobjdump and nvdisasm: `./go --with sass` fetches them, and a whole CUDA toolkit has them.
"""
from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path

import occupancy

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "src" / "kernels"
FLAGS = ["-std=c++20", "-O3", "-lineinfo"]  # as CMakeLists.txt has them
GLOBAL_LOADS = ("LDG", "LDGSTS", "LD")  # LDGSTS: cp.async; LD and ST: the compiler does not know that the memory is global
GLOBAL_STORES = ("STG", "ST")
MULTIPLY_ADDS = {"FFMA", "FFMA2", "DFMA", "HMMA", "HGMMA"}  # not HFMA2: it is also how constants are moved
# Threads of a block where the kernel declares no bounds: the most that a launch can ask for, and what rows_grid() does.
MOST_THREADS = 1024
USUAL_THREADS = 256


class ToolError(Exception):
    """A tool that is not there, or did not do its work: for the user to read."""


@dataclass(frozen=True)
class Instruction:
    op: str  # with its modifiers: LDG.E.128
    operands: str

    @property
    def base(self) -> str:
        return self.op.partition(".")[0]

    @property
    def bytes(self) -> int:
        """That a thread moves, of an access to memory."""
        parts = self.op.split(".")
        return next((size for word, size in (("256", 32), ("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("U8", 1), ("S8", 1)) if word in parts), 4)


@dataclass
class Kernel:
    """One kernel of one architecture.

    threads   of a block at most, by its __launch_bounds__; None: it declares none
    shared    bytes of static shared memory
    stack     bytes of local memory a thread
    launched  threads of the largest block that simt's log of launches has; 0: unknown. dynamic: bytes of shared memory asked for
    code      its instructions; labels: where loops may begin, by name
    """

    arch: str
    name: str
    registers: int
    shared: int
    stack: int
    threads: int | None = None
    launched: int = 0
    dynamic: int = 0
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def registers_of_block(self) -> int:
        """Of the largest block that it may be launched with."""
        return occupancy.registers_of_block(self.registers, self.threads or MOST_THREADS)

    @property
    def blocks(self) -> int:
        """That a multiprocessor holds at once."""
        threads = self.launched or self.threads or USUAL_THREADS
        return occupancy.blocks_of_multiprocessor(self.arch, self.registers, threads, self.shared + self.dynamic)

    @property
    def local_accesses(self) -> int:
        return sum(instruction.base in ("LDL", "STL") for instruction in self.code)

    @cached_property
    def loop(self) -> list[Instruction]:
        """The code from a label to a backward branch to it; of all, the one with the largest share of multiply-adds.

        Everything between counts: loads, stores, addresses, barriers, and branches rarely taken. [] if none has any.
        """
        best: list[Instruction] = []
        for end, instruction in enumerate(self.code):
            target = re.search(r"\.L_\w+", instruction.operands) if instruction.base == "BRA" else None
            begin = self.labels.get(target[0], end) if target else end
            if begin < end and share_of(MULTIPLY_ADDS, self.code[begin : end + 1]) > share_of(MULTIPLY_ADDS, best):
                best = self.code[begin : end + 1]
        return best

    @property
    def share(self) -> float:
        """Of multiply-adds in the loop."""
        return share_of(MULTIPLY_ADDS, self.loop)


def share_of(ops: set[str], code: list[Instruction]) -> float:
    return sum(instruction.base in ops for instruction in code) / len(code) if code else 0.0


def widths(ops: tuple[str, ...], code: list[Instruction]) -> Counter[int]:
    """How many accesses of these instructions move so many bytes a thread."""
    return Counter(instruction.bytes for instruction in code if instruction.base in ops)


# ---- what the tools print ------------------------------------------------------------------------------------------


def parse(arch: str, disassembly: str, usage: str, elf: str) -> list[Kernel]:
    """Kernels of a cubin, by `nvdisasm -c`, `cuobjdump --dump-resource-usage` and `cuobjdump -elf`; names are mangled."""
    kernels = {}
    for name, numbers in re.findall(r"^\s*Function (\S+):\s*\n\s*(.*)", usage, re.M):
        use = {key: int(value) for key, value in re.findall(r"\b(\w+):(\d+)", numbers)}
        kernels[name] = Kernel(arch, name, use["REG"], use["SHARED"], use["STACK"] + use["LOCAL"])
    for section in re.split(r"^\s*(?=\.section\s+\.text\.)", disassembly, flags=re.M)[1:]:
        name = re.match(r"\.section\s+\.text\.([^\s,\"]+)", section)[1]
        if name not in kernels:
            raise ToolError(f"the disassembly has a section {name}, the resource usage no such function")
        kernel = kernels[name]
        for line in section.splitlines():
            if label := re.match(r"\s*(\.L_\w+):", line):
                kernel.labels[label[1]] = len(kernel.code)
            elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)", line):
                kernel.code.append(Instruction(instruction[1], instruction[2]))
    for name, attributes in re.findall(r"^\.nv\.info\.(\S+)\n((?:(?:[ \t].*)?\n)*)", elf, re.M):  # targets of indirect branches end with an empty line
        if bounds := re.search(r"EIATTR_MAX_THREADS\n.*\n\s*Value:\s*(0x[0-9a-f]+) (0x[0-9a-f]+) (0x[0-9a-f]+)", attributes):
            x, y, z = (int(number, 16) for number in bounds.groups())
            kernels[name].threads = x * y * z
    if empty := [name for name, kernel in kernels.items() if not kernel.code]:
        raise ToolError(f"no instructions found of {', '.join(empty)}")
    return list(kernels.values())


def readable(name: str) -> str:
    """Kernel and template arguments, without namespaces and parameters."""
    name = re.sub(r"^void |convnet::|\(anonymous namespace\)::", "", name)
    name = re.sub(r"\((?:Neuron|int|unsigned int|bool)\)", "", name)  # casts of template arguments
    depth = 0
    for at, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            return name[:at]
    return name


def add_launches(kernels: list[Kernel], log: str) -> None:
    """To the kernels, what the file that SIMT_LAUNCHES names has of them, a line for each launch: name, grid, block, dynamic shared memory."""
    launches: dict[str, tuple[int, int]] = {}
    for line in log.splitlines():
        name, _, block, dynamic = line.split("\t")
        threads = prod(map(int, re.findall(r"\d+", block)))
        for key in (name, name.partition("<")[0]) if "::" in name else (name,):  # values of an enum are numbers here, and names there
            most = launches.get(key, (0, 0))
            launches[key] = max(most[0], threads), max(most[1], int(dynamic))
    for kernel in kernels:
        kernel.launched, kernel.dynamic = launches.get(kernel.name) or launches.get(kernel.name.partition("<")[0], (0, 0))


# ---- the tools -----------------------------------------------------------------------------------------------------


def run(*command: str | Path, cwd: Path | None = None, text: str | None = None) -> str:
    try:
        return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, cwd=cwd, input=text).stdout
    except OSError as error:
        raise ToolError(f"{command[0]}: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise ToolError(f"{Path(command[0]).name}: {error.stderr.strip() or error.stdout.strip()}") from None


def in_parallel(work: Callable[..., list[Kernel]], arguments: list[tuple]) -> Iterator[Kernel]:
    """All that `work` finds, in the order of its arguments; the tools are processes of their own."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(lambda each: work(*each), arguments):
            yield from found


class Tools:
    """Where cuobjdump and nvdisasm are: the extra's, those on PATH, or beside nvcc."""

    def __init__(self) -> None:
        sys.path.insert(0, str(ROOT / "build_backend"))
        import cuda_toolkit

        self.nvcc = cuda_toolkit.system_nvcc() or cuda_toolkit.pypi_nvcc()
        nvidia = importlib.util.find_spec("nvidia")  # what the wheels of the extra share
        folders = [f"{path}/cu13/bin" for path in nvidia.submodule_search_locations or ()] if nvidia else []
        self.toolkit = cuda_toolkit.toolkit_root(self.nvcc) if self.nvcc else None
        folders += [f"{self.toolkit}/bin"] if self.toolkit else []
        self.path = os.pathsep.join([*folders, os.environ.get("PATH", "")])

    def find(self, tool: str) -> str:
        if found := shutil.which(tool, path=self.path):
            return found
        raise ToolError(f"{tool}: not found; ./go --with sass python benchmarks/sass_report.py fetches it")

    def kernels(self, arch: str, cubin: Path) -> list[Kernel]:
        """Of one cubin, with readable names."""
        cuobjdump = self.find("cuobjdump")
        found = parse(arch, run(self.find("nvdisasm"), "-c", cubin), run(cuobjdump, "--dump-resource-usage", cubin), run(cuobjdump, "-elf", cubin))
        names = run("c++filt", text="\n".join(kernel.name for kernel in found)).splitlines()
        for kernel, name in zip(found, names, strict=True):
            kernel.name = readable(name)
        return found

    def of_module(self, module: Path, archs: list[str]) -> Iterator[Kernel]:
        """Of the machine code in a library, for these of its architectures."""
        with tempfile.TemporaryDirectory() as folder:
            run(self.find("cuobjdump"), "-xelf", "all", module.resolve(), cwd=Path(folder))
            found = [(re.search(r"\.sm_(\w+)\.", cubin.name)[1], cubin) for cubin in sorted(Path(folder).glob("*.cubin"))]
            yield from in_parallel(self.kernels, [(arch, cubin) for arch, cubin in found if arch in archs])

    def compiled(self, sources: list[Path], archs: list[str]) -> Iterator[Kernel]:
        """Of .cu files, with the flags of the build."""
        if not self.nvcc:
            import cuda_toolkit

            raise ToolError(cuda_toolkit.NO_NVCC)
        with tempfile.TemporaryDirectory() as folder:

            def compile_one(source: Path, arch: str) -> list[Kernel]:
                cubin = Path(folder) / f"{source.stem}.{arch}.cubin"
                run(self.nvcc, *FLAGS, f"-gencode=arch=compute_{arch},code=sm_{arch}", f"-I{KERNELS}", "-cubin", "-o", cubin, source)
                return self.kernels(arch, cubin)

            yield from in_parallel(compile_one, [(source, arch) for arch in archs for source in sources])
