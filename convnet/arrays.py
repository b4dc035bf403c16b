"""Arrays of other libraries as tensors, and new arrays of the same kind. Nothing is copied here unless asked for.

On the CPU: numpy, and what shares memory with it (torch). On a GPU: DLPack and `__cuda_array_interface__`, which are
what torch, cupy, jax, numba and pycuda speak. A library is imported only when the caller brings its arrays.
"""
from __future__ import annotations

import ctypes
import sys
import weakref
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .backends import Tensor, itemsize

DLPACK_CPU, DLPACK_CUDA = {1}, {2, 13}  # 13: managed memory
DTYPE_NAMES = {np.dtype(name): name for name in ("float32", "float64", "float16", "uint8")}  # dtype.name takes microseconds
DLPACK_CODES = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}


class Stream(NamedTuple):
    """What an op takes for a stream; on the CPU handle 0 runs at once, on all cores."""

    device: int
    handle: int


@dataclass(slots=True)
class View:
    """Where a caller's array is and what it holds. `ready`: an op can use it as it is; `holder` keeps it alive."""

    array: Any
    ptr: int
    shape: tuple[int, ...]
    dtype: str
    ready: bool
    on_gpu: bool = False
    device: int | None = None
    stream: int | None = None  # the queue that may still be writing it
    writable: bool = True
    copied: bool = False
    holder: Any = None

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * itemsize(self.dtype)

    def tensor(self, ptr: int, add: bool) -> Tensor:
        """What it holds as a tensor, where its memory or a copy of it is."""
        return Tensor(ptr, self.shape, self.dtype, self.shape[-1], add=add)

    def overlaps(self, other: View) -> bool:
        return self.ptr < other.ptr + other.nbytes and other.ptr < self.ptr + self.nbytes


class Memory:
    """Memory of a backend, given back with the object; to other libraries an array, where it has a shape."""

    def __init__(self, module, device: int, nbytes: int, shape: tuple[int, ...] = (), dtype: str = "uint8"):
        try:
            self.ptr = module.allocate(device, max(nbytes, 1))
        except MemoryError:
            free = module.free_memory(device)
            raise MemoryError(f"device {device} has no {nbytes / 2**20:.0f} MiB: {free / 2**20:.0f} MiB are free") from None
        self.nbytes, self.shape, self.dtype = nbytes, shape, np.dtype(dtype)
        weakref.finalize(self, module.release, device, self.ptr).atexit = False

    @property
    def __cuda_array_interface__(self) -> dict:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.ptr, False), "strides": None, "stream": None, "version": 3}


def library_of(array: Any) -> str:
    """numpy, torch, cupy, ...: the package that an array comes from."""
    return type(array).__module__.partition(".")[0]


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None, step: int) -> bool:
    """strides and step are in the same unit, bytes or elements."""
    for size, stride in zip(reversed(shape), reversed(strides or ()), strict=False):
        if size > 1 and stride != step:
            return 0 in shape
        step *= size
    return True


def view(array: Any, stream: Stream) -> View:
    """How an op sees an array that it will use in this stream."""
    if isinstance(array, np.ndarray):
        return view_numpy(array)
    try:
        place = array.__dlpack_device__() if hasattr(array, "__dlpack_device__") else None
        if place and place[0] in DLPACK_CUDA:
            return view_dlpack(array, stream, place[1])
        if hasattr(array, "__cuda_array_interface__"):
            return view_cuda_array(array, stream)
        if hasattr(array, "__array__"):
            return view_numpy(array)
        if place and place[0] in DLPACK_CPU:
            return view_numpy(array, np.from_dlpack(array))
    except (RuntimeError, BufferError, TypeError) as error:  # a torch tensor with a gradient, for one
        raise ValueError(f"{library_of(array)} does not lend its memory: {error}") from error
    raise ValueError(f"it is {type(array).__name__}, expected an array: numpy's, or one with DLPack or __cuda_array_interface__")


def view_numpy(array: Any, values: np.ndarray | None = None) -> View:
    values = np.asarray(array) if values is None else values
    ready = values.flags.c_contiguous and values.flags.aligned and values.dtype.isnative
    return View(array, values.ctypes.data, values.shape, DTYPE_NAMES.get(values.dtype) or values.dtype.name, ready, writable=values.flags.writeable, holder=values)


def view_cuda_array(array: Any, stream: Stream) -> View:
    if library_of(array) == "pycuda":
        from . import gpuarray

        gpuarray.use_pycuda(stream.device)
    facts = array.__cuda_array_interface__
    dtype = np.dtype(facts["typestr"])
    ready = dtype.isnative and is_contiguous(facts["shape"], facts.get("strides"), dtype.itemsize)
    return View(array, facts["data"][0] or 0, tuple(facts["shape"]), dtype.name, ready, True, None, facts.get("stream"), not facts["data"][1], holder=array)


class DLTensor(ctypes.Structure):
    """dlpack.h; a DLManagedTensor starts with it."""

    _fields_ = (("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("rank", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64))


def view_dlpack(array: Any, stream: Stream, device: int) -> View:
    """The capsule is never marked as used: it gives the memory back when it goes, with the view."""
    capsule = array.__dlpack__(stream=stream.handle or 1)  # 1: the default queue. The array's library makes ours wait for its own
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = DLTensor.from_address(pointer(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.rank])
    strides = tuple(tensor.strides[: tensor.rank]) if tensor.strides else None
    dtype = f"{DLPACK_CODES.get(tensor.code, 'type')}{tensor.bits}"
    ready = is_contiguous(shape, strides, 1) and tensor.lanes == 1
    return View(array, (tensor.data or 0) + tensor.byte_offset, shape, dtype, ready, True, device, holder=capsule)


def current_stream(array: Any) -> int | None:
    """The queue that the array's library is using now, where it has such a thing."""
    match library_of(array):
        case "torch" if array.is_cuda:
            return sys.modules["torch"].cuda.current_stream(array.device).cuda_stream
        case "cupy":
            return sys.modules["cupy"].cuda.get_current_stream(array.device.id).ptr
    return None


def stream_handle(stream: Any) -> int:
    """The cudaStream_t of an int, or of a stream of pycuda, torch, cupy, numba or cuda.core."""
    if hasattr(stream, "__cuda_stream__"):
        stream = stream.__cuda_stream__
        stream = (stream() if callable(stream) else stream)[1]
    for name in ("cuda_stream", "ptr", "handle"):
        stream = getattr(stream, name, stream)
    stream = getattr(stream, "value", stream)
    if not isinstance(stream, int) or isinstance(stream, bool) or stream < 0:
        raise ValueError(f"stream is {stream!r}, expected a CUDA stream: its address, or one of pycuda, torch or cupy")
    return stream


def contiguous(found: View) -> Any:
    """A copy that an op can use, of the same kind."""
    if not found.on_gpu:
        return np.require(found.holder, np.dtype(found.dtype), ["C", "A"])
    match library_of(found.array):
        case "torch":
            return found.array.contiguous()
        case "cupy":
            return sys.modules["cupy"].ascontiguousarray(found.array)
    raise ValueError("it has gaps or another order, expected a C-contiguous array")


def empty_like(model: View, shape: tuple[int, ...], dtype: str, module, device: int) -> Any:
    """A new array of the model's kind and on its side; of a kind of our own where its library is not one we know."""
    match library_of(model.array):
        case "torch":
            torch = sys.modules["torch"]
            return torch.empty(shape, dtype=getattr(torch, dtype), device=model.array.device)
        case "cupy":
            cupy = sys.modules["cupy"]
            with cupy.cuda.Device(device):
                return cupy.empty(shape, dtype)
        case "pycuda":
            from . import gpuarray

            return gpuarray.empty_like(model.array, shape, dtype)
    return Memory(module, device, prod(shape) * itemsize(dtype), shape, dtype) if model.on_gpu else np.empty(shape, dtype)
