"""Runs the cases of all ops on a host backend with tensors that begin or end where a page does, between pages that nobody may touch.

    python tests/at_the_edge.py host_avx512

Prints each call before it is made: after a crash the last one is it. What is read too much lands in lanes that nobody uses, so no
value shows it, and nets have their tensors side by side.
"""
from __future__ import annotations

import ctypes
import mmap
import sys
from math import prod

import numpy as np

from convnet.arrays import Stream
from convnet.backends import Device, Tensor, host_view, itemsize
from convnet.recorder import arguments
from test_ops import CASES

PAGE = mmap.PAGESIZE
mprotect = ctypes.CDLL(None, use_errno=True).mprotect
mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Pages:
    """Memory of one call, to be kept while it runs."""

    def __init__(self, at_begin: bool):
        self.at_begin, self.maps = at_begin, []

    def tensor(self, shape: tuple[int, ...], dtype: str, pitch: int, values: np.ndarray | None = None) -> Tensor:
        nbytes = prod(shape[:-1]) * pitch * itemsize(dtype)
        size = max(1, -(-nbytes // PAGE)) * PAGE
        self.maps.append(mmap.mmap(-1, size + 2 * PAGE))
        first = ctypes.addressof(ctypes.c_char.from_buffer(self.maps[-1])) + PAGE
        for edge in (first - PAGE, first + size):
            assert mprotect(edge, PAGE, 0) == 0, "mprotect failed"
        tensor = Tensor(first if self.at_begin else first + size - nbytes, tuple(shape), dtype, pitch)
        rows = host_view(tensor.ptr, nbytes).view(dtype).reshape(-1, max(pitch, 1))
        rows[:] = 0
        if values is not None and nbytes:
            rows[:, : shape[-1]] = values.reshape(len(rows), -1)
        return tensor


def main(backend: str) -> None:
    device, queue = Device(backend, threads=1), Stream(0, 0)  # the default queue: a call has been made when it returns
    for case in CASES:
        for dtype in ("float32", "float64"):
            for tight, at_begin in ((True, False), (True, True), (False, False)):
                pages = Pages(at_begin)

                def tensor(name, shape, values, dtype=dtype, tight=tight, pages=pages, case=case):
                    kind = case.keep.get(name, dtype)
                    return pages.tensor(shape, kind, shape[-1] if tight else device.pitch(shape[-1], kind), values)

                print(case.id, dtype, "tight" * tight, "begin" if at_begin else "end", flush=True)
                tensors = [tensor(name, array.shape, array) for name, array in case.inputs.items()]
                tensors += [tensor(name, shape, case.initial.get(name)) for name, shape in case.outputs.items()]
                if hasattr(device.ops, f"{case.op}_workspace"):
                    nbytes = max(1, getattr(device.ops, f"{case.op}_workspace")(queue, *tensors, **case.scalars))
                    nbytes = -(-nbytes // 64) * 64
                    tensors.append(pages.tensor((nbytes,), "uint8", nbytes))
                getattr(device.ops, case.op)(queue, *arguments(device.ops.signatures[case.op], tensors), **case.scalars)


if __name__ == "__main__":
    main(sys.argv[1])
