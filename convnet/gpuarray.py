"""pycuda's GPUArrays and our tensors: the same memory, seen from both sides. The only place that imports pycuda.

    device = convnet.backends.Device("cuda")
    array = to_gpuarray(device.tensor((3, 32, 32, 128)), device)    # kernels of a SourceModule can write it
    tensor = from_gpuarray(array)                                   # and so can our ops

pycuda is needed by those who write their own kernels in Python; nothing else here does. pycuda and our `_cuda` meet
in the device's primary context: take pycuda.autoprimaryctx, or use_pycuda() below. pycuda.autoinit makes a context
of its own, whose memory no op can reach.
"""
from __future__ import annotations

import atexit
import contextlib
import functools
from typing import Any

import numpy as np

from .backends import Device, Tensor
from .errors import NoSuchDevice


def import_pycuda() -> tuple[Any, Any]:
    """pycuda.driver and pycuda.gpuarray."""
    try:
        import pycuda.driver
        import pycuda.gpuarray
    except ImportError as error:  # not installed, or no libcuda.so.1, which comes with the driver
        raise NoSuchDevice(f"pycuda: {error}; ./go --with pycuda COMMAND builds it where there are a driver and nvcc") from error
    return pycuda.driver, pycuda.gpuarray


@functools.cache
def primary_context(device: int) -> Any:
    """The context that `_cuda` works in; kept until the process ends, for it would be destroyed with its last user."""
    driver, _ = import_pycuda()
    driver.init()
    context = driver.Device(device).retain_primary_context()
    atexit.register(context.detach)
    return context


def use_pycuda(device: int = 0) -> Any:
    """pycuda.driver, with the primary context of the device current in this thread."""
    driver, _ = import_pycuda()
    context, current = primary_context(device), driver.Context.get_current()
    if current is None:
        context.push()
        atexit.register(pop_context, driver)  # a context left on pycuda's stack aborts the process
    elif current != context:
        raise ValueError(f"pycuda is using a context that is not the primary one of device {device}, expected the one of "
                         "pycuda.autoprimaryctx (import it in place of pycuda.autoinit) or of convnet.gpuarray.use_pycuda()")
    return driver


def pop_context(driver: Any) -> None:
    with contextlib.suppress(driver.Error):  # the caller has popped it
        driver.Context.pop()


def to_gpuarray(tensor: Tensor, owner: Device) -> Any:
    """The tensor as a GPUArray, without a copy. `owner` is the device whose memory it is: not closed while the array
    is used. Where the tensor's rows are padded, so are the array's: see its `strides`. bfloat16, which numpy does not know, is
    uint16: the upper halves of float32."""
    use_pycuda(owner.physical)
    dtype = "uint16" if tensor.dtype == "bfloat16" else tensor.dtype
    step = np.dtype(dtype).itemsize
    strides = [step]
    for size in (tensor.pitch, *reversed(tensor.shape[1:-1]))[: len(tensor.shape) - 1]:
        strides.insert(0, strides[0] * size)
    return import_pycuda()[1].GPUArray(tensor.shape, dtype, gpudata=tensor.ptr, base=owner, strides=tuple(strides))


def from_gpuarray(array: Any) -> Tensor:
    """The GPUArray as a tensor, without a copy; it lives as long as the array does."""
    shape, strides = tuple(array.shape), tuple(array.strides)
    pitch = strides[-2] // array.dtype.itemsize if len(shape) > 1 else shape[-1]
    expected = [array.dtype.itemsize]
    for size in (pitch, *reversed(shape[1:-1]))[: len(shape) - 1]:
        expected.insert(0, expected[0] * size)
    if strides != tuple(expected) or pitch < shape[-1]:
        raise ValueError(f"a GPUArray of shape {shape} with strides {strides}, expected C order, padded in the last dimension at most")
    return Tensor(int(array.gpudata or 0), shape, array.dtype.name, pitch)


def empty_like(array: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """A new GPUArray, from where the memory of `array` came from."""
    return import_pycuda()[1].GPUArray(shape, np.dtype(dtype), allocator=array.allocator)
