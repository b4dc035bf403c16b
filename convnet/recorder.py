"""What a plan is made of, values and steps, and the recorder that turns calls of ops into steps."""
from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from math import prod

from .backends import Tensor, itemsize, tensor_bytes


@dataclass(eq=False)
class Value:
    """A tensor that a plan reads or writes, before it has an address.

    `root` holds the memory, of which a value may be some rows. Persistent ones (weights, state) outlive the plan
    and have their tensor from the start; `accumulates`: a persistent one that is summed over minibatches.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    device: int
    tensor: Tensor | None = None
    persistent: bool = False
    accumulates: bool = False
    root: Value = None  # type: ignore[assignment]
    first_row: int = 0

    def __post_init__(self):
        self.root = self.root or self

    def slice(self, first: int, last: int) -> Value:
        """Channels `first` to `last`."""
        step = prod(self.shape[1:-1])
        return Value(f"{self.name}[{first}:{last}]", (last - first, *self.shape[1:]), self.dtype, self.device, root=self.root,
                     first_row=self.first_row + first * step)

    def rows(self, first: int, last: int) -> Value:
        """Rows `first` to `last` of the tensor seen as a matrix; itself where those are all."""
        rows = prod(self.shape[:-1])
        return self if (first, last) == (0, rows) else self.reshaped(rows, self.shape[-1]).slice(first, last)

    def reshaped(self, *shape: int) -> Value:
        return Value(self.name, shape, self.dtype, self.device, root=self.root, first_row=self.first_row)

    @property
    def row_range(self) -> tuple[int, int]:
        """From and to which row of the root it is."""
        return self.first_row, self.first_row + prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        """Bytes of its tensor; before there is one, what that takes at most: rows of few images are shorter on host."""
        return self.bound().nbytes if self.root.tensor else tensor_bytes(self.shape, self.dtype)

    def bound(self) -> Tensor:
        """Its tensor; the root has been given an address."""
        tensor = self.root.tensor
        offset = self.first_row * tensor.pitch * itemsize(self.dtype)
        return replace(tensor, ptr=tensor.ptr + offset, shape=self.shape)


@dataclass(eq=False)
class Step:
    """One recorded call. `adds`: the writes that are added to what is there."""

    op: str
    device: int
    layer: str
    phase: str  # forward, backward, update
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]
    adds: tuple[bool, ...]
    scalars: dict = field(default_factory=dict)
    call: Callable[[], None] | None = None

    def line(self) -> str:
        """The step as a line of the table."""
        target = ", ".join(value.name for value in self.writes)
        sign = "+=" if any(self.adds) else "<-"
        made = self.writes[-1]
        shape = "x".join(map(str, made.shape[1:] if made.dtype == "uint8" else made.shape[:-1]))  # of one image: pixels lie image by image
        sources = ", ".join(value.name for value in self.reads)
        moved = f"  {self.reads[0].nbytes} bytes" if self.op == "copy" else ""
        return f"gpu {self.device}  {self.op:24}{shape:12}{target:27} {sign} {sources}{moved}".rstrip()


@dataclass
class LayerTensors:
    """What a layer's forward and backward see. Tensors are (channels, height, width, images)."""

    inputs: list[Value]
    acts: Value
    acts_grad: Value | None
    inputs_grad: list[Value | None]  # None where no gradient is wanted
    weights: dict[str, Value]
    weights_grad: dict[str, Value]
    fixed: dict[str, Value]
    saved: dict[str, Value]
    state: Value
    training: bool
    layer: str
    seed: int
    first_image: int  # where these images begin in the minibatch

    def key(self, purpose: str) -> dict[str, int]:
        """The key of the generator for this layer's draws."""
        return {"seed": self.seed, "purpose": zlib.crc32(f"{purpose} {self.layer}".encode())}

    def random(self, purpose: str) -> dict[str, int]:
        """The same, and where the counter of draws for each image begins."""
        return self.key(purpose) | {"first_image": self.first_image}


def arguments(signature: str, tensors: Iterable) -> list:
    """The tensors of a step, reads and then writes, as its op takes them: in lists of one length where it takes many (ops.h)."""
    kinds = re.findall(r"(Many<)?(?:In|Out)>?:", signature)
    tensors, lists = list(tensors), sum(map(bool, kinds))
    length = (len(tensors) - len(kinds) + lists) // max(lists, 1)
    rest = iter(tensors)
    return [list(islice(rest, length)) if many else next(rest) for many in kinds]


def tensors_of(signature: str) -> list[list[str]]:
    """In or Out and the name of each tensor that a step of an op has."""
    words = [word.split(":") for word in signature.split() if word.startswith(("In:", "Out:"))]
    return [word for word in words if word[1] != "workspace"]


class Recorder:
    """Stands in for the ops module: a call becomes a step."""

    def __init__(self, signatures: dict[str, str]):
        self._tensors = {op: tensors_of(text) for op, text in signatures.items()}
        self.steps: list[Step] = []
        self.written: dict[Value, list[tuple[int, int]]] = defaultdict(list)  # root -> rows from, to; none twice
        self.device, self.layer, self.phase = 0, "", ""

    def at(self, device: int, layer: str, phase: str) -> Recorder:
        self.device, self.layer, self.phase = device, layer, phase
        return self

    def __getattr__(self, op: str):
        return partial(self.record, op)

    def record(self, op: str, *values: Value, **scalars) -> None:
        kinds = [kind for kind, _ in self._tensors[op]]
        reads = tuple(value for kind, value in zip(kinds, values, strict=True) if kind == "In")
        writes = tuple(value for kind, value in zip(kinds, values, strict=True) if kind == "Out")
        self.append(op, reads, writes, scalars)

    def append(self, op: str, reads: tuple[Value, ...], writes: tuple[Value, ...], scalars: dict) -> None:
        for value in (*reads, *writes):
            assert op == "copy" or value.device == self.device, f"{op} of {self.layer} on {self.device} uses {value.name} on {value.device}"
        adds = tuple(self.is_written(value) and (value.root.accumulates or not value.root.persistent) for value in writes)
        self.mark_written(writes)
        self.steps.append(Step(op, self.device, self.layer, self.phase, reads, writes, adds, scalars))

    def mark_written(self, values: Iterable[Value]) -> None:
        """What is written to these from now on is added."""
        for value in values:
            if not self.is_written(value):
                self.written[value.root].append(value.row_range)

    def is_written(self, value: Value) -> bool:
        """Whether something was written there: at once, or one part after the other."""
        first, last = value.row_range
        count = sum(max(0, min(last, end) - max(first, begin)) for begin, end in self.written[value.root])
        assert count in (0, last - first), f"of {value.name}, {count} of {last - first} rows are written"
        return count > 0
