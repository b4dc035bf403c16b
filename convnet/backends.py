"""The backends: cuda | simt | host, their devices, memory and queues.

A backend is a compiled module with the functions of ops.h and runtime.h. `host` is compiled per instruction set;
the best one that the machine has is taken, or the one that CONVNET_ISA names. CONVNET_SIMT_MODULE names the file of
another build of simt, with a sanitizer for example. CONVNET_TILES: see tiles.py.
"""
from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from .errors import CommandLineError, NoSuchDevice, OutOfMemory
from .tiles import TileTable, table_for

ISAS = {"avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma"}, "avx2": {"avx2", "fma"}, "baseline": set()}
BACKENDS = ("cuda", "host", "simt")
ALIGNMENT = 64  # bytes; every tensor of an arena starts on a cache line
LONG_ROW = 512  # bytes, from which on rows do, too: at most an eighth is padding


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor is, its type and shape; the last dimension is the fastest. Owns nothing.

    Rows (all dimensions but the last) are `pitch` elements apart; `add`: an op that writes it adds to it.
    """

    ptr: int
    shape: tuple[int, ...]
    dtype: str = "float32"
    pitch: int = 0
    device: int = 0
    add: bool = False

    @property
    def rows(self) -> int:
        return prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        """Bytes from the first element to the end of the last row, padding included."""
        return self.rows * self.pitch * itemsize(self.dtype)

    def adding(self, add: bool = True) -> Tensor:
        return replace(self, add=add)

    def reshaped(self, *shape: int) -> Tensor:
        assert shape[-1] == self.shape[-1] and prod(shape) == prod(self.shape)
        return replace(self, shape=shape)

    def slice(self, first: int, last: int) -> Tensor:
        """Channels `first` to `last`."""
        step = prod(self.shape[1:-1]) * self.pitch * itemsize(self.dtype)
        return replace(self, ptr=self.ptr + first * step, shape=(last - first, *self.shape[1:]))


def itemsize(dtype: str) -> int:
    return {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2, "uint8": 1}[dtype]


def encoded(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array as memory has it, C-contiguous: bfloat16, which numpy does not know, as the upper halves of float32, rounded to nearest, ties to even."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(array, dtype)
    words = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return np.where(np.isnan(array), 0x7FFF, (words + 0x7FFF + (words >> 16 & 1)) >> 16).astype(np.uint16)


def decoded(array: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers of what `encoded` gave; bfloat16 as float32."""
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else array


def padded(images: int, dtype: str) -> int:
    """Pitch of a row of so many images: a multiple of 16 bytes, so that any number is moved in vectors; of long rows, of a cache line.

    Pixels, uint8, are not padded.
    """
    size = itemsize(dtype)
    unit = 1 if dtype == "uint8" else (ALIGNMENT if images * size >= LONG_ROW else 16) // size
    return -(-images // unit) * unit


def tensor_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """What a tensor takes at most, on any device."""
    return prod(shape[:-1]) * padded(shape[-1], dtype) * itemsize(dtype)


def machine_isas() -> list[str]:
    """The instruction sets of the host backend that this machine can run, best first."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return ["baseline"]
    flags: set[str] = set()
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("flags"):
                flags = set(line.split(":", 1)[1].split())
                break
    return [isa for isa, needs in ISAS.items() if needs <= flags]


def host_isa() -> str:
    """The instruction set that `host` runs on; CONVNET_ISA forces one."""
    forced = os.environ.get("CONVNET_ISA", "")
    if not forced:
        return machine_isas()[0]
    if forced not in machine_isas():
        raise CommandLineError(f"CONVNET_ISA={forced}: this machine can run {', '.join(machine_isas())}")
    return forced


@functools.cache
def load_module(name: str):
    """The compiled module of a backend; `name` is cuda, simt, host, or host_ and an instruction set.

    Its measured tiles are read here, once and for all devices (the first one's), so that the table is there before any plan, and
    no workspace and no order of sums changes under one.
    """
    if name == "host":
        name = f"host_{host_isa()}"
    module = import_module(name)
    if not name.startswith("host"):
        module.tile_table = table_for(name, module.device_name(0)) if name == "simt" or module.device_count() else TileTable()
        module.set_tiles(module.tile_table.tiles)
    return module


def import_module(name: str):
    try:
        if name == "simt" and (path := os.environ.get("CONVNET_SIMT_MODULE")):
            spec = importlib.util.spec_from_file_location("convnet._simt", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
        return importlib.import_module(f"convnet._{name}")
    except ImportError as error:
        hint = "CONVNET_CUDA=require ./go convnet-info builds it where nvcc is found" if name == "cuda" else "run the command through ./go, which builds it"
        raise NoSuchDevice(f"backend {name.split('_')[0]}: this installation has no such backend ({error}); {hint}") from None


def tile_table(name: str) -> dict | None:
    """What a log or a result tells of the measured tiles in force; None: there are none, or the backend has no tiles."""
    return getattr(load_module(name), "tile_table", TileTable()).stored()


def cuda_problem() -> str:
    """Why cuda cannot be used here, or "" if it can."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "this machine has no NVIDIA GPU, or no driver for it (libcuda.so.1 is not there)"
    try:
        return "" if load_module("cuda").device_count() > 0 else "no NVIDIA GPU is visible"
    except (NoSuchDevice, RuntimeError) as error:
        return str(error)


def choose_backend(name: str = "auto") -> str:
    if name == "auto":
        return "host" if cuda_problem() else "cuda"
    if name not in BACKENDS and name not in [f"host_{isa}" for isa in ISAS]:
        raise CommandLineError(f"--backend {name}: expected auto, {', '.join(BACKENDS)}")
    if name == "cuda" and (problem := cuda_problem()):
        raise NoSuchDevice(f"--backend cuda: {problem}. Use --backend host to train on the CPU")
    return name


def cores() -> int:
    """How many this process may use: fewer than there are under `taskset` and in containers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Device:
    """A memory and a queue. `index` is the number that configs use, `physical` the GPU's."""

    handle = 0  # until there is a queue

    def __init__(self, backend: str, index: int = 0, physical: int = 0, threads: int = 0):
        self.ops = load_module(backend)
        self.backend, self.index, self.physical = backend.split("_")[0], index, physical
        self.device = physical  # `device` and `handle` are what a stream is to the ops
        threads = threads or cores()
        self.handle = self.ops.stream_create(physical, threads)
        self._buffers: list[int] = []
        self._events: list[int] = []
        self._beside: list[Device] = []
        self._module = backend

    def beside(self) -> Device:
        """Another queue of the same device; it lives as long as the device."""
        self._beside.append(Device(self._module, self.index, self.physical, threads=1))
        return self._beside[-1]

    def close(self) -> None:
        """Ends the queue, and those beside it, and gives the memory back."""
        if self.handle:
            for queue in self._beside:
                queue.close()
            self.ops.stream_destroy(self)
            self.handle = 0
            for ptr in self._buffers:
                self.ops.release(self.physical, ptr)
            for event in self._events:
                self.ops.event_destroy(event)
            self._buffers.clear()
            self._events.clear()

    def __del__(self):
        if not sys.is_finalizing():  # a queue's thread, and a simt queue's stacks, are too much to leave behind
            self.close()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def allocate(self, nbytes: int) -> int:
        """Address of new memory, all bytes 0; it lives as long as the device."""
        free = self.ops.free_memory(self.physical)
        try:
            if nbytes > free:
                raise MemoryError  # Linux would promise the memory and then end the process
            ptr = self.ops.allocate(self.physical, max(nbytes, 1))
        except MemoryError:
            raise OutOfMemory(f"device {self.index} has no {nbytes / 2**20:.0f} MiB: {free / 2**20:.0f} MiB are free; "
                              "a smaller net, or a smaller --mini, takes less") from None
        self._buffers.append(ptr)
        return ptr

    def tensor(self, shape: tuple[int, ...], dtype: str = "float32") -> Tensor:
        """A tensor with memory of its own."""
        return Tensor(self.allocate(tensor_bytes(shape, dtype)), tuple(shape), dtype, self.pitch(shape[-1], dtype), self.index)

    def pitch(self, columns: int, dtype: str) -> int:
        """Elements from a row of so many columns to the next: `padded`, or less.

        On host, rows of less than 16 bytes are only made a power of two: where images are so few, a row of pixels is what is
        worked on in vectors.
        """
        few = self.backend == "host" and dtype != "uint8" and 0 < columns * itemsize(dtype) < 16
        return 1 << (columns - 1).bit_length() if few else padded(columns, dtype)

    def new_event(self) -> int:
        """An event of this device; it lives as long as the device."""
        self._events.append(self.ops.event_create(self.physical))
        return self._events[-1]

    def free(self, ptr: int) -> None:
        """Gives memory of `allocate` back, once the queue is done with it."""
        self.synchronize()
        self._buffers.remove(ptr)
        self.ops.release(self.physical, ptr)

    def upload(self, tensor: Tensor, array: np.ndarray) -> None:
        """Copies `array`, of the tensor's shape, into it, in the order of the queue."""
        rows = encoded(array, tensor.dtype).reshape(tensor.rows, tensor.shape[-1])
        if tensor.pitch != tensor.shape[-1]:
            wide = np.zeros((tensor.rows, tensor.pitch), rows.dtype)  # np.pad takes four times as long
            wide[:, : tensor.shape[-1]] = rows
            rows = wide
        self.ops.upload(self, tensor.ptr, rows.ctypes.data, rows.nbytes)

    def download(self, tensor: Tensor) -> np.ndarray:
        """The tensor's values, once the queue has got there; of bfloat16 in float32."""
        rows = np.empty((tensor.rows, tensor.pitch), "uint16" if tensor.dtype == "bfloat16" else tensor.dtype)
        self.ops.download(self, rows.ctypes.data, tensor.ptr, rows.nbytes)
        return decoded(np.ascontiguousarray(rows[:, : tensor.shape[-1]]), tensor.dtype).reshape(tensor.shape)

    def synchronize(self) -> None:
        self.ops.stream_synchronize(self)


class Capture:
    """What `body` puts into the queues of these devices, recorded; `launch` runs it, as often as one likes, by one call."""

    _graph = 0  # until there is one

    def __init__(self, devices: list[Device], body: Callable[[], None]):
        self._ops = devices[0].ops
        self._graph = self._ops.graph_capture(devices, body)

    def launch(self) -> None:
        self._ops.graph_launch(self._graph)

    def __del__(self):
        if self._graph and not sys.is_finalizing():
            self._ops.graph_destroy(self._graph)


def host_view(ptr: int, nbytes: int) -> np.ndarray:
    """The bytes at an address of the host and simt backends."""
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(ptr), np.uint8)
