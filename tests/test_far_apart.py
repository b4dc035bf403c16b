"""Every op on tensors whose first and last elements are more than 2^31 apart: in address space, not in memory.

Only the pages of the rows themselves are ever touched. An index that has lost its upper bits lands in what lies around
the rows, on zeros or where nobody looks, so that values show it.
"""
from __future__ import annotations

import mmap

import numpy as np
import pytest

from convnet.arrays import Stream
from convnet.backends import Device, Tensor, itemsize, load_module
from convnet.recorder import arguments
from guarded import call, make_inputs
from test_ops import CASES, cases

MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python 3.12 has no name for it
MOST_PITCH = 2**28 - 64  # conv counts rows and pitches in 32 bits and says so of more: conv_launch.cuh
SPAN = 2**33  # elements from the first row to the last, where there are rows enough
ROOM = 2**31  # elements before the first row, where a negative index ends


class FarTensor:
    """A tensor of NaN, its rows so far apart that together they span up to SPAN elements."""

    def __init__(self, shape: tuple[int, ...], dtype: str):
        rows, images = int(np.prod(shape[:-1])), shape[-1]
        pitch = max(min(SPAN // max(rows, 1), MOST_PITCH) // 64, -(-images // 64)) * 64
        nbytes = (ROOM + max(rows * pitch, 2**32)) * itemsize(dtype)
        self.memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        self.memory.madvise(mmap.MADV_NOHUGEPAGE)
        elements = np.frombuffer(self.memory, dtype)[ROOM:]
        self.rows = np.lib.stride_tricks.as_strided(elements, (rows, images), (pitch * itemsize(dtype), itemsize(dtype)))
        self.rows.view(f"u{itemsize(dtype)}")[...] = 2 ** (8 * itemsize(dtype)) - 1
        self.tensor = Tensor(elements.ctypes.data, tuple(shape), dtype, pitch)
        self.is_far = (rows - 1) * pitch + images > 2**31


def far_call(ops, case) -> tuple[list[np.ndarray], bool]:
    """The outputs of a case on such tensors, and whether one of them reaches over 2^31 elements."""
    queue, tensors = Stream(0, 0), []
    for name, shape in [*((name, array.shape) for name, array in case.inputs.items()), *case.outputs.items()]:
        tensors.append(FarTensor(shape, case.keep.get(name, "float32")))
        values = case.inputs.get(name, case.initial.get(name)) if len(tensors) <= len(case.inputs) else case.initial.get(name)
        if values is not None:
            tensors[-1].rows[...] = values.reshape(tensors[-1].rows.shape)
    given = [far.tensor for far in tensors]
    make_inputs(ops, queue, case, given[: len(case.inputs)])
    if hasattr(ops, f"{case.op}_workspace"):
        scratch = np.empty(max(getattr(ops, f"{case.op}_workspace")(queue, *given, **case.scalars), 1) + 64, np.uint8)
        scratch = scratch[-scratch.ctypes.data % 64 :]
        given.append(Tensor(scratch.ctypes.data, scratch.shape, "uint8", scratch.size))
    getattr(ops, case.op)(queue, *arguments(ops.signatures[case.op], given), **case.scalars)
    outputs = tensors[len(case.inputs) :]
    results = [far.rows.reshape(shape) for far, shape in zip(outputs, case.outputs.values(), strict=True)]
    return results, any(far.is_far for far in tensors)


@cases()
@pytest.mark.parametrize("backend", ["host", "simt"])
def test_rows_far_apart_give_the_same_bits(backend, case):
    with Device(backend, threads=1) as device:
        near = call(device, case, "float32")
    for expected, found in zip(near, far_call(load_module(backend), case)[0], strict=True):
        assert expected.tobytes() == found.tobytes()


def test_every_op_has_a_case_of_more_than_2_31_elements():
    ops = load_module("host")
    far = {case.op for case in CASES if far_call(ops, case)[1]}
    assert {case.op for case in CASES} - far == set()
