"""Tensors between guard bands: an element nobody wrote is NaN, and a write out of bounds shows.

What is written is full of another NaN than what is read, so that it shows when one band is copied to the other.
"""
from __future__ import annotations

import numpy as np

from convnet.backends import Device, Tensor, encoded, itemsize
from convnet.passes import ACTIVITIES, NARROW
from convnet.recorder import arguments

GUARD = 256  # bytes before and after every tensor
READ, WRITTEN = 0xFFFF, 0x7FFE  # each NaN in every floating type, and in those of 16 bits


class Arena:
    """Hands out guarded tensors of one device and checks their bands."""

    def __init__(self, device: Device):
        self.device, self.tensors = device, []

    def tensor(self, shape: tuple[int, ...], dtype: str, tight: bool = False, fill: int = WRITTEN, pitch: int = 0) -> Tensor:
        """A tensor full of NaN. tight: rows without padding, starting at no multiple of 16 bytes."""
        pitch = pitch or (shape[-1] if tight else self.device.pitch(shape[-1], dtype))
        start = GUARD + (itemsize(dtype) if tight else 0)
        tensor = Tensor(0, tuple(shape), dtype, pitch, self.device.index)
        nbytes = start + tensor.nbytes + GUARD
        base = self.device.allocate(nbytes)
        bands = self.bands(nbytes, fill)
        self.device.ops.upload(self.device, base, bands.ctypes.data, nbytes)
        tensor = Tensor(base + start, tuple(shape), dtype, pitch, self.device.index)
        self.tensors.append((base, start, tensor, fill))
        return tensor

    @staticmethod
    def bands(nbytes: int, fill: int) -> np.ndarray:
        return np.full(nbytes // 2 + 1, fill, "<u2").view(np.uint8)[:nbytes]

    def holding(self, array: np.ndarray, dtype: str, tight: bool = False, fill: int = READ) -> Tensor:
        """A tensor with these values; the columns of padding stay NaN."""
        tensor = self.tensor(array.shape, dtype, tight, fill)
        stored = encoded(array, dtype)
        rows = np.full((tensor.rows, tensor.pitch * itemsize(dtype)), 0xFF, np.uint8).view(stored.dtype)
        rows[:, : array.shape[-1]] = stored.reshape(tensor.rows, array.shape[-1])
        self.device.ops.upload(self.device, tensor.ptr, rows.ctypes.data, rows.nbytes)
        return tensor

    def check_bands(self) -> None:
        for base, start, tensor, fill in self.tensors:
            nbytes = start + tensor.nbytes + GUARD
            bands = self.bands(nbytes, fill)
            found = np.empty(nbytes, np.uint8)
            self.device.ops.download(self.device, found.ctypes.data, base, nbytes)
            assert (found[:start] == bands[:start]).all(), f"something was written before {tensor}"
            assert (found[start + tensor.nbytes :] == bands[start + tensor.nbytes :]).all(), f"something was written after {tensor}"


def make_inputs(ops, stream, case, inputs) -> None:
    """Overwrites those of a case's inputs that an op is to make."""
    tensors = dict(zip(case.inputs, inputs, strict=True))
    for name, (op, reads, scalars) in case.made.items():
        getattr(ops, op)(stream, *(tensors[read] for read in reads), tensors[name], **scalars)


def is_narrow(case) -> bool:
    """Whether `call` may be told that activities are bfloat16."""
    return case.op in NARROW and case.scalars.get("precision", "exact") in ("exact", "bf16")


def call(device: Device, case, dtype: str, *, tight: bool = False, add: dict[str, np.ndarray] | None = None) -> tuple[np.ndarray, ...]:
    """Runs a case; `add`: what the outputs hold before, when the result is to be added. dtype bfloat16: of the activities, beside weights of float32."""
    arena = Arena(device)
    ops = device.ops

    def kind_of(name: str) -> str:
        return case.keep.get(name, dtype if dtype != "bfloat16" or name in ACTIVITIES else "float32")

    # Nothing equals NaN, which hides what is compared out of bounds: tight inputs lie between zeros.
    inputs = [arena.holding(array, kind_of(name), tight, 0 if tight else READ) for name, array in case.inputs.items()]
    make_inputs(ops, device, case, inputs)
    outputs = []
    for name, shape in case.outputs.items():
        before = (add or case.initial).get(name)
        kind = kind_of(name)
        tensor = arena.tensor(shape, kind, tight) if before is None else arena.holding(before, kind, tight, WRITTEN)
        outputs.append(tensor.adding(bool(add)))
    workspace = []
    if hasattr(ops, f"{case.op}_workspace"):
        nbytes = getattr(ops, f"{case.op}_workspace")(device, *inputs, *outputs, **case.scalars)
        workspace = [arena.tensor((max(nbytes, 1),), "uint8", pitch=max(nbytes, 1))]
    getattr(ops, case.op)(device, *arguments(ops.signatures[case.op], [*inputs, *outputs, *workspace]), **case.scalars)
    results = tuple(device.download(tensor) for tensor in outputs)
    arena.check_bands()
    return results
