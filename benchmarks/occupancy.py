"""What a multiprocessor of each architecture holds, and how many blocks of a kernel fit on it.

The numbers are those of the CUDA programming guide's tables of technical specifications; tests/test_sass.py compares the
arithmetic with NVIDIA's own cuda_occupancy.h wherever a toolkit is.
"""
from __future__ import annotations

from dataclasses import dataclass

WARP = 32
REGISTERS = 65536  # of a multiprocessor, and the most that a block may have, on every architecture here
QUARTERS = 4  # of a multiprocessor: each has a fourth of the registers, and warps stay on theirs
REGISTER_UNIT = 256  # a warp gets registers in such portions: 8 a thread
SHARED_UNITS = {"75": 256}  # bytes; 128 on all later ones
STATIC_SHARED = 48 << 10  # bytes that a kernel may declare; more must be asked for at its launch


@dataclass(frozen=True)
class Multiprocessor:
    """Limits: threads and blocks of a multiprocessor; shared memory in bytes, of a multiprocessor, of a block that asks
    for the most, and what the system takes from each block's.
    """

    threads: int
    blocks: int
    shared: int
    shared_of_block: int
    reserved: int


MULTIPROCESSORS = {
    "75": Multiprocessor(1024, 16, 64 << 10, 64 << 10, 0),
    "80": Multiprocessor(2048, 32, 164 << 10, 163 << 10, 1 << 10),
    "86": Multiprocessor(1536, 16, 100 << 10, 99 << 10, 1 << 10),
    "89": Multiprocessor(1536, 24, 100 << 10, 99 << 10, 1 << 10),
    "90": Multiprocessor(2048, 32, 228 << 10, 227 << 10, 1 << 10),
    "100": Multiprocessor(2048, 32, 228 << 10, 227 << 10, 1 << 10),
}


def round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def multiprocessor(arch: str) -> Multiprocessor:
    """Of "80" or "90a"; KeyError for one that is not in the table."""
    return MULTIPROCESSORS[arch.rstrip("af")]


def registers_of_block(registers: int, threads: int) -> int:
    """What the hardware sets aside for so many threads: above REGISTERS the launch is refused."""
    warps = round_up(-(-threads // WARP), QUARTERS)
    return warps * round_up(registers * WARP, REGISTER_UNIT)


def blocks_of_multiprocessor(arch: str, registers: int, threads: int, shared: int) -> int:
    """How many blocks of so many threads, with so many registers each and bytes of shared memory, run at once; 0: none can."""
    limits = multiprocessor(arch)
    warps = -(-threads // WARP)
    if shared > limits.shared_of_block or registers_of_block(registers, threads) > REGISTERS:
        return 0
    warps_by_registers = REGISTERS // QUARTERS // round_up(max(registers, 1) * WARP, REGISTER_UNIT) * QUARTERS
    taken = round_up(shared + limits.reserved, SHARED_UNITS.get(arch.rstrip("af"), 128))
    by_shared = limits.shared // taken if taken else limits.blocks
    return min(limits.blocks, limits.threads // WARP // warps, warps_by_registers // warps, by_shared)
