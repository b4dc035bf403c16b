"""The plan: a net recorded once, as a flat list of steps over symbolic values, then replayed.

A layer's forward and backward call ops on a `Recorder`. A value may be written several times in a plan: the first op
overwrites it, every later one adds to it. Where a layer reads what lives on another device the recorder inserts a
`copy`; nothing else touches two devices.
"""
from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod

import numpy as np

from .backends import ALIGNMENT, Device, Tensor, itemsize, padded, tensor_bytes
from .graph import Graph, Node


@dataclass(eq=False)
class Value:
    """A tensor that a plan reads or writes, before it has an address.

    `root` holds the memory, of which a value may be some rows. Persistent ones (weights, state) outlive the plan
    and have their tensor from the start.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    device: int
    tensor: Tensor | None = None
    persistent: bool = False
    root: Value = None  # type: ignore[assignment]
    first_row: int = 0

    def __post_init__(self):
        self.root = self.root or self

    def slice(self, first: int, last: int) -> Value:
        """Channels `first` to `last`."""
        step = prod(self.shape[1:-1])
        return Value(f"{self.name}[{first}:{last}]", (last - first, *self.shape[1:]), self.dtype, self.device, root=self.root,
                     first_row=self.first_row + first * step)

    def reshaped(self, *shape: int) -> Value:
        return Value(self.name, shape, self.dtype, self.device, root=self.root, first_row=self.first_row)

    @property
    def nbytes(self) -> int:
        return tensor_bytes(self.shape, self.dtype)

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
        shape = "x".join(map(str, self.writes[-1].shape[:-1]))
        return f"gpu {self.device}  {self.op:24}{shape:12}{target:28}{sign} {', '.join(value.name for value in self.reads)}".rstrip()


@dataclass
class Span:
    """When a step of `Plan.traced_run` was reached by its device's queue, started and ended, in seconds.

    `waited_for`: the steps of other devices that had to be done before; without them it starts when it is reached.
    """

    step: Step
    waited_for: list[Step]
    reached: float
    start: float
    end: float


@dataclass
class LayerTensors:
    """What a layer's forward and backward see. Tensors are (channels, height, width, images)."""

    inputs: list[Value]
    acts: Value
    acts_grad: Value | None
    inputs_grad: list[Value | None]  # None where no gradient is wanted
    weights: dict[str, Value]
    weights_grad: dict[str, Value]
    saved: dict[str, Value]
    state: Value
    training: bool
    layer: str
    seed: int

    def random(self, purpose: str) -> dict[str, int]:
        """The key of the generator for this layer's draws."""
        return {"seed": self.seed, "purpose": zlib.crc32(f"{purpose} {self.layer}".encode())}


class Recorder:
    """Stands in for the ops module: a call becomes a step."""

    def __init__(self, signatures: dict[str, str]):
        self._tensors = {op: [word.split(":") for word in text.split() if word.startswith(("In:", "Out:"))] for op, text in signatures.items()}
        self.steps: list[Step] = []
        self.written: set[tuple[int, int, int]] = set()
        self.device, self.layer, self.phase = 0, "", ""

    def at(self, device: int, layer: str, phase: str) -> Recorder:
        self.device, self.layer, self.phase = device, layer, phase
        return self

    def __getattr__(self, op: str):
        return partial(self.record, op)

    def record(self, op: str, *values: Value, **scalars) -> None:
        kinds = [kind for kind, name in self._tensors[op] if name != "workspace"]
        reads = tuple(value for kind, value in zip(kinds, values, strict=True) if kind == "In")
        writes = tuple(value for kind, value in zip(kinds, values, strict=True) if kind == "Out")
        self.append(op, reads, writes, scalars)

    def append(self, op: str, reads: tuple[Value, ...], writes: tuple[Value, ...], scalars: dict) -> None:
        for value in (*reads, *writes):
            assert op == "copy" or value.device == self.device, f"{op} of {self.layer} on {self.device} uses {value.name} on {value.device}"
        adds = tuple(self.is_written(value) and not value.root.persistent for value in writes)
        self.written |= {self._place(value) for value in writes}
        self.steps.append(Step(op, self.device, self.layer, self.phase, reads, writes, adds, scalars))

    @staticmethod
    def _place(value: Value) -> tuple[int, int, int]:
        return id(value.root), value.first_row, prod(value.shape)

    def is_written(self, value: Value) -> bool:
        return self._place(value) in self.written


class Compiler:
    """Records the steps of one (images, phase) of a graph."""

    def __init__(self, graph: Graph, persistent: dict[str, Value], signatures: dict[str, str], images: int, dtype: str,
                 data_types: dict[int, tuple[str, tuple[int, int, int]]], seed: int, training: bool, augment: bool = False):
        self.graph, self.persistent, self.images, self.dtype, self.seed = graph, persistent, images, dtype, seed
        self.data_types, self.training, self.augment = data_types, training, augment
        self.ops = Recorder(signatures)
        self.values: dict[str, Value] = {}

    def value(self, name: str, shape: Iterable[int], device: int, dtype: str = "") -> Value:
        """The value of that name on that device, made when it is first asked for."""
        key = f"{name}@{device}"
        if key not in self.values:
            self.values[key] = Value(name, (*shape, self.images), dtype or self.dtype, device)
        return self.values[key]

    def acts(self, node: Node) -> Value:
        if node.layer.is_cost:
            key = f"{node.name}@{node.device}"
            return self.values.setdefault(key, Value(node.name, (3,), "float64", node.device))
        return self.value(node.name, node.shape, node.device)

    def gradient(self, node: Node, device: int) -> Value:
        """Where the readers on that device add their share of the gradient of a layer's acts."""
        home = device == node.device
        return self.value(f"{node.name}_grad" if home else f"{node.name}_grad@{device}", node.shape, device)

    def local(self, node: Node, device: int) -> Value:
        """A layer's acts on that device: uploaded or copied there when they are first asked for."""
        if node.layer.on_host:
            return self.image(node, device)
        if node.device == device:
            return self.acts(node)
        value = self.value(f"{node.name}@{device}", node.shape, device)
        if not self.ops.is_written(value):
            self.ops.append("copy", (self.acts(node),), (value,), {})
        return value

    def uploaded(self, node: Node, device: int) -> Value:
        """Where a data layer's tensor is uploaded to: uint8 images become acts by the op `image`."""
        dtype, shape = self.data_types[node.layer.data_idx]
        return self.value(f"{node.name}.pixels", shape, device, "uint8") if dtype == "uint8" else self.value(node.name, node.shape, device)

    def image(self, node: Node, device: int) -> Value:
        value, pixels = self.value(node.name, node.shape, device), self.uploaded(node, device)
        if not self.ops.is_written(value):
            key = {"seed": self.seed, "purpose": zlib.crc32(f"image {node.name}".encode())}
            self.ops.image_forward(pixels, self.persistent[f"mean@{device}"], self.persistent[f"state@{device}"], value, random=self.augment, **key)
        return value

    def tensors(self, node: Node, inputs: list[Value], backward: bool) -> LayerTensors:
        device = node.device
        weights = {name: self.persistent[f"{node.name}.{name}"] for name in node.weights}
        grads = {name: self.weights_gradient(node, name) for name in node.weights} if backward else {}
        inputs_grad = [None if source.layer.on_host else self.gradient(source, device) for source in node.inputs] if backward else []
        acts_grad = self.gradient(node, device) if backward and not node.layer.is_cost else None
        saved = {name: self.value(f"{node.name}.{name}", shape, device) for name, shape in node.saved.items()}
        return LayerTensors(inputs, self.acts(node), acts_grad, inputs_grad, weights, grads, saved, self.persistent[f"state@{device}"],
                            self.training, node.name, self.seed)

    def weights_gradient(self, node: Node, name: str) -> Value:
        key = f"{node.name}.{name}_grad"
        return self.values.setdefault(key, Value(key, node.weights[name].shape, self.dtype, node.device))

    def forward(self) -> None:
        # Uploads come first: they wait for their queue, and would hold up all that is queued after them.
        for device in self.graph.devices:
            self.ops.at(device, "", "forward").append("upload", (), (self.persistent[f"state@{device}"],), {"feed": "state"})
            for node in self.graph.data:
                if any(reader.device == device for reader in node.readers):
                    self.ops.at(device, node.name, "forward").append("upload", (), (self.uploaded(node, device),), {"feed": node.layer.data_idx})
        for node in self.graph.nodes:
            if node.layer.on_host:
                continue
            self.ops.at(node.device, node.name, "forward")
            inputs = [self.local(source, node.device) for source in node.inputs]
            node.layer.forward(self.ops, self.tensors(node, inputs, backward=False), self.training)

    def backward(self) -> None:
        postponed: dict[Node, list[tuple[Node, int]]] = defaultdict(list)
        for node in reversed(self.graph.nodes):
            if not node.layer.on_host and (node.layer.is_cost or self.ops.is_written(self.gradient(node, node.device))):
                self.layer_backward(node, postponed)
            for source, device in postponed[node]:
                self.send_gradient(source, device)

    def layer_backward(self, node: Node, postponed: dict[Node, list[tuple[Node, int]]]) -> None:
        """Records a layer's backward, and the journey home of gradients whose last share on this device it adds."""
        self.ops.at(node.device, node.name, "backward")
        inputs = [self.local(source, node.device) for source in node.inputs]
        node.layer.backward(self.ops, self.tensors(node, inputs, backward=True))
        for source in dict.fromkeys(node.inputs):
            last_share = next(reader for reader in source.readers if reader.device == node.device) is node
            if source.layer.on_host or source.device == node.device or not last_share:
                continue
            first = source.readers[0]
            if len(source.readers) == 2 and first is not node and first.device == source.device:
                # Home has its own share to compute yet, and need not wait; of two shares either may be first.
                postponed[first].append((source, node.device))
            else:
                self.send_gradient(source, node.device)

    def send_gradient(self, node: Node, device: int) -> None:
        """The sum of one device's shares goes to where the layer lives, in reverse file order like all shares."""
        away, home = self.gradient(node, device), self.gradient(node, node.device)
        if not self.ops.is_written(away):
            return
        self.ops.at(node.device, node.name, "backward")
        if not self.ops.is_written(home):
            self.ops.append("copy", (away,), (home,), {})
            return
        arrived = self.value(f"{node.name}_grad@{device}>{node.device}", node.shape, node.device)
        self.ops.append("copy", (away,), (arrived,), {})
        self.ops.scaled_copy(arrived, home, factor=1.0)

    def update(self, rate_slots: dict[str, int]) -> None:
        for node in self.graph.costs:
            for device in self.graph.devices:
                self.ops.at(device, node.name, "update").check_finite(self.local_cost(node, device), self.persistent[f"state@{device}"])
        for node in self.graph.nodes:
            for name, weights in node.weights.items():
                gradient = self.values.get(f"{node.name}.{name}_grad")
                if weights.rate.base <= 0 or gradient is None or not self.ops.is_written(gradient):
                    continue
                full = f"{node.name}.{name}"
                self.ops.at(node.device, node.name, "update").sgd_update(
                    self.persistent[f"state@{node.device}"], gradient, self.persistent[f"{full}.inc"], self.persistent[full],
                    rate_slot=rate_slots[full], momentum=weights.momentum, decay=weights.decay, images=self.images)

    def local_cost(self, node: Node, device: int) -> Value:
        """The costs on that device: every device must know whether they were finite."""
        if device == node.device:
            return self.acts(node)
        key = f"{node.name}@{device}"
        value = self.values.setdefault(key, Value(key, (3,), "float64", device))
        if not self.ops.is_written(value):
            self.ops.append("copy", (self.acts(node),), (value,), {})
        return value


# ---- passes over the steps ------------------------------------------------------------------------------------

def fuse_softmax_cost(steps: list[Step]) -> list[Step]:
    """Softmax under logistic regression alone: one gradient, with nothing divided (SEMANTICS 3.4)."""
    readers, writers = defaultdict(list), defaultdict(list)
    for step in steps:
        for value in step.reads:
            readers[value.root].append(step)
        for value in step.writes:
            writers[value.root].append(step)
    fused: dict[Step, Step | None] = {}
    for step in steps:
        if step.op != "logreg_backward":
            continue
        gradient = step.writes[0].root
        if len(writers[gradient]) == 1 and len(readers[gradient]) == 1 and readers[gradient][0].op == "softmax_backward":
            softmax = readers[gradient][0]
            fused[step] = None
            fused[softmax] = replace(softmax, op="logreg_softmax_backward", reads=step.reads, scalars=step.scalars)
    return [fused.get(step, step) for step in steps if fused.get(step, step) is not None]


def drop_unread(steps: list[Step], keep: set[Value]) -> list[Step]:
    """Without the steps whose results nobody reads: the gradients of frozen weights, and of what is below them."""
    wanted, kept = set(keep), []
    for step in reversed(steps):
        if any(value.root.persistent or value.root in wanted for value in step.writes):
            kept.append(step)
            wanted |= {value.root for value in step.reads}
    return kept[::-1]


# ---- memory and execution ---------------------------------------------------------------------------------------

def place(values: list[tuple[Value, int, int]]) -> tuple[dict[Value, int], int]:
    """Offsets for (value, first step, last step) such that values alive at the same time do not overlap; and the total.

    The largest first, each as low as it fits.
    """
    offsets: dict[Value, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    for value, first, last in sorted(values, key=lambda item: (-item[0].nbytes, item[1], item[0].name)):
        size = -(-value.nbytes // ALIGNMENT) * ALIGNMENT
        offset = 0
        for start, end, begins, ends in sorted(placed):
            if begins <= last and first <= ends and start < offset + size:
                offset = max(offset, end)
        offsets[value] = offset
        placed.append((offset, offset + size, first, last))
    return offsets, max((end for _, end, _, _ in placed), default=0)


class Plan:
    """Steps with addresses, to be run any number of times. `keep`: values that can be fetched after a run."""

    def __init__(self, steps: list[Step], keep: Iterable[Value], devices: dict[int, Device], images: int):
        self.devices, self.images = devices, images
        self.kept = {value.name: value for value in keep}
        self.steps = drop_unread(fuse_softmax_cost(steps), {value.root for value in self.kept.values()})
        self._lifetimes = self._find_lifetimes()
        self._workspaces = {device: self._workspace_bytes(device) for device in devices}
        self.offsets: dict[Value, int] = {}
        self.arena_bytes: dict[int, int] = {}
        for device in devices:
            offsets, total = place([(value, *life) for value, life in self._lifetimes.items() if value.device == device])
            self.offsets |= offsets
            self.arena_bytes[device] = total + self._workspaces[device]
        self._calls: list[Callable[[], None]] = []
        self.feeds: dict = {}

    def _find_lifetimes(self) -> dict[Value, tuple[int, int]]:
        lives: dict[Value, tuple[int, int]] = {}
        for i, step in enumerate(self.steps):
            for value in (*step.reads, *step.writes):
                if not value.root.persistent:
                    lives[value.root] = (lives.get(value.root, (i, i))[0], i)
        for value in self.kept.values():
            if value.root in lives:
                lives[value.root] = (lives[value.root][0], len(self.steps))
        return lives

    def _workspace_bytes(self, device: int) -> int:
        ops = self.devices[device].ops
        sizes = [0]
        for step in self.steps:
            if step.device == device and hasattr(ops, f"{step.op}_workspace"):
                shapes = [Tensor(0, value.shape, value.dtype, padded(value.shape[-1], value.dtype)) for value in (*step.reads, *step.writes)]
                sizes.append(getattr(ops, f"{step.op}_workspace")(self.devices[device], *shapes, **step.scalars))
        return -(-max(sizes) // ALIGNMENT) * ALIGNMENT

    def bind(self, arenas: dict[int, int]) -> None:
        """Gives every value its address in its device's arena, and makes the calls."""
        for value, offset in self.offsets.items():
            address = arenas[value.device] + offset
            value.tensor = Tensor(address, value.shape, value.dtype, padded(value.shape[-1], value.dtype), value.device)
        for step in self.steps:
            step.call = self._call(step, arenas)
        self._waits, self._records = self._events()
        self._calls = []
        for step in self.steps:
            device = self.devices[step.device]
            self._calls += [partial(device.ops.event_wait, device, self._records[other][0]) for other in self._waits[step]]
            self._calls.append(step.call)
            self._calls += [partial(device.ops.event_record, device, event) for event in self._records[step]]

    def _call(self, step: Step, arenas: dict[int, int]) -> Callable[[], None]:
        device = self.devices[step.device]
        if step.op == "upload":
            target = step.writes[0].bound()
            return lambda: device.upload(target, self.feeds[step.scalars["feed"]])
        if step.op == "copy":
            source, target = step.reads[0].bound(), step.writes[0].bound()
            return partial(device.ops.copy_bytes, device, target.ptr, device.physical, source.ptr, self.devices[source.device].physical, source.nbytes)
        tensors = [value.bound() for value in step.reads] + [value.bound().adding(add) for value, add in zip(step.writes, step.adds, strict=True)]
        if hasattr(device.ops, f"{step.op}_workspace"):
            size = self._workspaces[step.device]
            tensors.append(Tensor(arenas[step.device] + self.arena_bytes[step.device] - size, (size,), "uint8", size, step.device))
        return partial(getattr(device.ops, step.op), device, *map(device.ops.pack, tensors), **step.scalars)

    def _events(self) -> tuple[dict[Step, list[Step]], dict[Step, list[int]]]:
        """Which steps wait for which, and the events of those waited for.

        A copy waits for what it reads to be written; whoever next writes over that memory waits for the copy.
        """
        waits: dict[Step, list[Step]] = defaultdict(list)
        for i, copy in enumerate(self.steps):
            if copy.op != "copy":
                continue
            source = copy.reads[0].root
            producer = max((j for j in range(i) if any(v.root is source for v in self.steps[j].writes)), default=None)
            if producer is not None:
                waits[copy].append(self.steps[producer])
            for later in self.steps[i + 1:]:
                if later.device == source.device and any(self._overlap(value.root, source) for value in later.writes):
                    waits[later].append(copy)
                    break
        records: dict[Step, list[int]] = defaultdict(list)
        for step in {other for others in waits.values() for other in others}:
            records[step] = [self.devices[step.device].new_event()]
        return waits, records

    def _overlap(self, a: Value, b: Value) -> bool:
        if a.device != b.device or a not in self.offsets or b not in self.offsets:
            return a is b
        return self.offsets[a] < self.offsets[b] + b.nbytes and self.offsets[b] < self.offsets[a] + a.nbytes

    def run(self, feeds: dict) -> None:
        """Queues all steps. `feeds`: dataIdx -> array (channels, height, width, images), "state" -> (k,) float64."""
        self.feeds = feeds
        for call in self._calls:
            call()

    def traced_run(self, feeds: dict) -> list[Span]:
        """A `run` with events around every step; waits for all devices. The first step is reached at 0.

        On cuda, events of two GPUs cannot be compared: each GPU's times count from an event of its own, recorded while
        all queues are empty. So they are off by what it takes to record one, some microseconds.
        """
        marks = [[self.devices[step.device].new_event() for _ in ("reached", "start", "end")] for step in self.steps]
        self.synchronize()
        clocks = {index: device.physical if device.backend == "cuda" else 0 for index, device in self.devices.items()}
        origins: dict[int, int] = {}
        for index, device in self.devices.items():
            if clocks[index] not in origins:
                origins[clocks[index]] = device.new_event()
                device.ops.event_record(device, origins[clocks[index]])
        self.synchronize()  # of two worker threads, the other could else be at its first step before this event
        self.feeds = feeds
        for step, (reached, start, end) in zip(self.steps, marks, strict=True):
            device = self.devices[step.device]
            device.ops.event_record(device, reached)
            for other in self._waits[step]:
                device.ops.event_wait(device, self._records[other][0])
            device.ops.event_record(device, start)
            step.call()
            device.ops.event_record(device, end)
            for event in self._records[step]:
                device.ops.event_record(device, event)
        self.synchronize()
        times = np.array([[self.devices[step.device].ops.event_seconds(origins[clocks[step.device]], event) for event in events]
                          for step, events in zip(self.steps, marks, strict=True)])
        return [Span(step, self._waits[step], *row) for step, row in zip(self.steps, (times - times.min()).tolist(), strict=True)]

    def fetch(self, name: str) -> np.ndarray:
        """A kept value of the last run, once its device has got there."""
        value = self.kept[name]
        return self.devices[value.device].download(value.bound())

    def synchronize(self) -> None:
        """Waits for all devices; raises what a step raised. No queue starts the next run before all are done."""
        for device in self.devices.values():
            device.synchronize()

    def table(self) -> str:
        """The steps as text, one a line."""
        return "\n".join(f"{i:4}  {step.line()}" for i, step in enumerate(self.steps))
