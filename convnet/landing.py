"""Where the data of the next minibatch land while a device computes this one."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from .backends import ALIGNMENT, Device, Tensor
from .recorder import Value


def room_for(tensors: Iterable[Tensor | Value]) -> list[int]:
    """Bytes that each takes there."""
    return [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors]


class Landing:
    """Memory of a device beside its arena, and a queue of its own for what is uploaded there.

    A run takes it from there by a copy within the device: microseconds of a GPU, where the way to the device takes milliseconds. So
    the data are where they always are when it computes, and a captured graph finds them.
    """

    def __init__(self, device: Device):
        self.device, self.queue = device, device.beside()
        self._landed, self._taken = device.new_event(), device.new_event()
        self._address, self._bytes = 0, 0
        self._tensors: list[Tensor] = []

    def upload(self, data: list[tuple[Tensor, np.ndarray]]) -> None:
        """Brings here what a run will take to these tensors, once what landed before is taken. Then the arrays may be used again."""
        self.queue.ops.event_wait(self.queue, self._taken)
        sizes = room_for(tensor for tensor, _ in data)
        if sum(sizes) > self._bytes:
            if self._bytes:
                self.device.free(self._address)
            self._address, self._bytes = self.device.allocate(sum(sizes)), sum(sizes)
        self._tensors = [replace(tensor, ptr=self._address + sum(sizes[:i])) for i, (tensor, _) in enumerate(data)]
        for tensor, (_, array) in zip(self._tensors, data, strict=True):
            self.queue.upload(tensor, array)
        self.queue.ops.event_record(self.queue, self._landed)

    def take(self, targets: Iterable[Tensor]) -> None:
        """Queues the copies of what was uploaded last, when it has landed."""
        ops, physical = self.device.ops, self.device.physical
        ops.event_wait(self.device, self._landed)
        for tensor, target in zip(self._tensors, targets, strict=True):
            ops.copy_bytes(self.device, target.ptr, physical, tensor.ptr, physical, tensor.nbytes)
        ops.event_record(self.device, self._taken)
