"""What the machine code of every kernel must keep to: one table, with the reason beside each line."""
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import occupancy

from sass import (
    GLOBAL_LOADS,
    GLOBAL_STORES,
    MOST_THREADS,
    MULTIPLY_ADDS,
    Instruction,
    Kernel,
    widths,
)

# The products of tile.cuh whose template argument `Vector` says that they move quads of float32.
TILES = r"^(conv|local|fc)_\w+_kernel<float, Tile<.*>, true(, float)*>$"
DEPTH = 16  # of tile.cuh
SHARES = {(64, 128, 8, 8): 0.80, (48, 128, 12, 8): 0.81, (32, 128, 8, 8): 0.75, (32, 32, 4, 4): 0.58}

# Those of mma_tile.cuh, and what their operands become; of activities that are stored in bfloat16, with filters that are too, or not.
MMA = r"^(conv|fc)_\w+_kernel<(float|bfloat16), MmaTile<.*>, true(, \w+)*>$"
MMA_SHARES = {"Tf32": 0.11, "Bf16": 0.10, "Bf16x3": 0.13}
STORED_SHARE, STORED_BESIDE_FLOAT = 0.17, 0.14

# The element-wise kernels of runs.cuh, where a thread has several neighbours.
RUNS = r"^(neuron_\w+_kernel<\w+|scaled_copy_kernel<)(, )?[48], "


@dataclass(frozen=True)
class Gate:
    """`measure` of every kernel whose name `kernels` finds is within `limit`, a number or a function of the kernel."""

    name: str
    kernels: str
    measure: Callable[[Kernel], float]
    sense: str  # "at most" or "at least"
    limit: float | Callable[[Kernel], float]
    reason: str

    def failure(self, kernel: Kernel) -> str:
        """What is wrong with the kernel, or "" ."""
        if not re.search(self.kernels, kernel.name):
            return ""
        measured, limit = self.measure(kernel), self.limit(kernel) if callable(self.limit) else self.limit
        if measured <= limit if self.sense == "at most" else measured >= limit:
            return ""
        return f"sm_{kernel.arch} {kernel.name}: {self.name}: {figure(measured)}, expected {self.sense} {figure(limit)}: {self.reason}"


def figure(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def narrower(ops: tuple[str, ...], code: list[Instruction]) -> int:
    """Accesses of fewer than 16 bytes a thread."""
    return sum(count for size, count in widths(ops, code).items() if size < 16)


def tile(kernel: Kernel) -> tuple[int, int, int, int]:
    """M, N, ThreadM, ThreadN of tile.cuh."""
    return tuple(map(int, re.search(r"Tile<(\d+), (\d+), (\d+), (\d+)>", kernel.name).groups()))


def mma_tile(kernel: Kernel) -> tuple[str, int, int]:
    """What operands become, WarpM and WarpN of mma_tile.cuh."""
    found = re.search(r"MmaTile<(\w+), \d+, \d+, (\d+), (\d+), ", kernel.name)
    return found[1], int(found[2]), int(found[3])


def mma_share(kernel: Kernel) -> float:
    if "<bfloat16, " in kernel.name:
        return STORED_BESIDE_FLOAT if ", true, float" in kernel.name else STORED_SHARE
    return MMA_SHARES[mma_tile(kernel)[0]]


def mma_products(kernel: Kernel) -> int:
    """Instructions of a warp for one slice: each is for 16 rows, 8 columns, and 8 k or 16."""
    math, rows, columns = mma_tile(kernel)
    return (rows // 16) * (columns // 8) * {"Tf32": 2, "Bf16": 1, "Bf16x3": 3}[math]


def is_launched(kernel: Kernel) -> bool:
    """On GPUs without tensor cores for these types the products of mma_tile.cuh are a trap."""
    return "MmaTile<" not in kernel.name or int(kernel.arch.rstrip("a")) >= 80


def products(kernel: Kernel) -> int:
    """Multiply-adds of a thread for one slice: all of them stand in the loop, unrolled."""
    _, _, rows, columns = tile(kernel)
    return DEPTH * rows * columns


GATES = (
    Gate("accesses to local memory", "", lambda k: k.local_accesses, "at most", 0,
         "what does not fit in registers is written to memory and read back"),
    Gate("bytes of local memory", "", lambda k: k.stack, "at most", 0,
         "registers are spilled, or an array is indexed with what the compiler does not know"),
    Gate("registers of a block", "", lambda k: k.registers_of_block, "at most", occupancy.REGISTERS,
         "the launch would be refused; a kernel without __launch_bounds__ may be launched with 1024 threads"),
    Gate("bytes of static shared memory", "", lambda k: k.shared, "at most", occupancy.STATIC_SHARED,
         "the launch would be refused: more is to be had as DYN_SMEM alone"),
    Gate("bytes of shared memory", "", lambda k: k.shared + k.dynamic, "at most", lambda k: occupancy.multiprocessor(k.arch).shared_of_block,
         "the launch would be refused"),
    Gate("threads of a launch", "", lambda k: k.launched, "at most", lambda k: k.threads or MOST_THREADS,
         "the launch would be refused: __launch_bounds__ promises fewer"),
    Gate("blocks on a multiprocessor", "", lambda k: k.blocks, "at least", 1,
         "the launch would be refused"),
    Gate("blocks on a multiprocessor", TILES, lambda k: k.blocks, "at least", 2,
         "while one block waits at its barrier the other multiplies"),
    Gate("multiply-adds in the loop", TILES, lambda k: sum(op.base in MULTIPLY_ADDS for op in k.loop), "at least", products,
         "the products of a slice are unrolled, so that the sums stay in registers"),
    Gate("share of multiply-adds in the loop", TILES, lambda k: k.share, "at least", lambda k: SHARES[tile(k)],
         "what the kernels have today, rounded down: the rest of the loop is what keeps them from the peak"),
    Gate("narrow loads from global memory", TILES, lambda k: narrower(GLOBAL_LOADS, k.loop), "at most", 0,
         "in the loop each thread fetches quads of 16 bytes"),
    Gate("loads of 16 bytes from global memory", TILES, lambda k: widths(GLOBAL_LOADS, k.loop)[16], "at least", 2,
         "in the loop each thread fetches its share of both matrices"),
    Gate("narrow stores to global memory", TILES, lambda k: narrower(GLOBAL_STORES, k.code), "at most", 0,
         "each thread stores quads of 16 bytes"),
    Gate("stores of 16 bytes to global memory", TILES, lambda k: widths(GLOBAL_STORES, k.code)[16], "at least", 1,
         "each thread stores quads of 16 bytes"),
    Gate("narrow loads from shared memory", TILES, lambda k: narrower(("LDS",), k.loop), "at most", 0,
         "in the loop one load of 16 bytes brings the operands of 16 multiply-adds or more"),
    Gate("narrow loads from global memory", RUNS, lambda k: narrower(GLOBAL_LOADS, k.code), "at most", 0,
         "each thread moves 16 bytes at a time: with less, too little of the memory is busy"),
    Gate("narrow stores to global memory", RUNS, lambda k: narrower(GLOBAL_STORES, k.code), "at most", 0,
         "each thread moves 16 bytes at a time"),
    Gate("products on tensor cores in the loop", MMA, lambda k: sum(op.base == "HMMA" for op in k.loop), "at least", mma_products,
         "the products of a slice are unrolled, so that the sums stay in registers"),
    Gate("share of products on tensor cores in the loop", MMA, lambda k: k.share, "at least", mma_share,
         "what the kernels have today, rounded down; a product keeps the tensor cores busy for several other instructions"),
    Gate("narrow copies to shared memory", MMA, lambda k: narrower(GLOBAL_LOADS, k.loop), "at most", 0,
         "in the loop each thread copies 16 bytes at a time"),
    Gate("blocks on a multiprocessor", MMA, lambda k: k.blocks, "at least", lambda k: 2 if k.arch in ("80", "90a", "100") and mma_tile(k)[0] != "Bf16x3" else 1,
         "while one block waits at its barrier the other multiplies, where shared memory has room for two"),
)


def failures(kernels: list[Kernel]) -> list[str]:
    return [failure for kernel in kernels if is_launched(kernel) for gate in GATES if (failure := gate.failure(kernel))]
