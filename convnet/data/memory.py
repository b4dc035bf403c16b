"""Data that are read once and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convnet.data.batches import Batch
from convnet.data.provider import Provider
from convnet.errors import OutOfMemory


class InMemory:
    """A provider that keeps the batches it has read, decoded.

    Reading the first one raises OutOfMemory where the machine has no room for as many as there are.
    """

    def __init__(self, provider: Provider):
        self._provider = provider
        self._kept: dict[int, Batch] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def read(self, number: int) -> Batch:
        if number not in self._kept:
            batch = self._provider.read(number)
            if not self._kept:
                self._check(batch)
            for array in batch.data:
                array.flags.writeable = False
            self._kept[number] = batch
        return self._kept[number]

    def _check(self, batch: Batch) -> None:
        count, free = len(self._provider.numbers or ()), available_memory()
        needed = count * sum(array.nbytes for array in batch.data)
        if free is not None and needed > free:
            raise OutOfMemory(
                f"--data-in-memory: {count} batches need {needed / 2**30:.1f} GiB as pixels, and {free / 2**30:.1f} GiB are free; without it "
                "they are read again in every epoch"
            )


def available_memory() -> int | None:
    """Bytes that could be taken without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
