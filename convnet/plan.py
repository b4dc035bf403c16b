"""The plan: the steps of a net with addresses, to be replayed any number of times; captured in a graph, by one call."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from .backends import ALIGNMENT, Capture, Device, Tensor, cores
from .data.order import images_first
from .errors import CaptureFailed
from .landing import Landing
from .own_kernels import FUNCTIONS, Libraries
from .passes import (
    PRECISIONS,
    at_precision,
    drop_unread,
    fuse_biases,
    fuse_costs,
    fuse_lrn_pools,
    fuse_relus,
    fuse_softmax_costs,
    fuse_updates,
    join_updates,
    only_for_updates,
    recompute,
    store_narrow,
    update_early,
    work_in_place,
)
from .recorder import Step, Value, arguments

# By how many of its steps a queue beside may fall behind before the other one waits for the memory of one: a layer or two,
# for which AlexNet's activities take a tenth more.
BEHIND = 6


@dataclass
class Span:
    """When a step of `Plan.traced_run` was reached by its queue, started and ended, in seconds.

    `waited_for`: the steps of other queues that had to be done before; without them it starts when it is reached.
    `beside`: it ran in the second queue of its device.
    """

    step: Step
    waited_for: list[Step]
    reached: float
    start: float
    end: float
    beside: bool = False


@dataclass
class Regions:
    """The addresses that a step reads and writes, each from and to."""

    reads: list[tuple[int, int]]
    writes: list[tuple[int, int]]

    @classmethod
    def of(cls, step: Step) -> Regions:
        def region(value: Value) -> tuple[int, int]:
            tensor = value.bound()
            return tensor.ptr, tensor.ptr + tensor.nbytes

        return cls([*map(region, step.reads)], [*map(region, step.writes)])

    def meet(self, other: Regions) -> bool:
        """Whether one writes what the other uses."""
        return any(start < other_end and other_start < end for written, used in ((self.writes, other.reads + other.writes), (self.reads, other.writes))
                   for start, end in written for other_start, other_end in used)


def fed(step: Step, feeds: dict) -> np.ndarray:
    """What an upload brings, in the order of its tensor."""
    array = feeds[step.scalars["feed"]][..., slice(*step.scalars.get("images", (None,)))]
    return images_first(array, cores()) if step.writes[0].dtype == "uint8" else array


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
    """Steps with addresses, to be run any number of times.

    keep: values that can be fetched after a run, by name; several where the devices, or the chunks of the minibatch, have one each.
    conserve: compute again in backward what needs no more than that (--conserve-mem); precision: of ops that can be less than exact.
    fuse: small steps into the large ones before or after them; the same bits in any case. libraries: of layers of one's own.
    graphs: from the second run on, all but the uploads is one graph of the backend (--graphs).
    beside: a second queue of each device, in which what only updates wait for runs beside the rest (--streams 2); none: one queue a device.
    """

    def __init__(self, steps: list[Step], keep: dict[str, list[Value]], devices: dict[int, Device], images: int, conserve: bool = False,
                 precision: str = "exact", fuse: bool = True, libraries: Libraries | None = None, graphs: bool = False,
                 beside: dict[int, Device] | None = None):
        self.devices, self.images, self.kept, self.libraries, self.graphs = devices, images, keep, libraries, graphs
        device = next(iter(devices.values()))
        self.steps = drop_unread(fuse_costs(steps), self._kept_roots())
        if fuse:
            self.steps = fuse_softmax_costs(self.steps)
            for fusing in (fuse_biases, fuse_relus, partial(fuse_updates, on_host=device.backend == "host"), fuse_lrn_pools, join_updates):
                self.steps = fusing(self.steps, self._kept_roots())
        self.steps = update_early(self.steps)
        if precision != "exact":
            self.steps = at_precision(self.steps, precision)
        if precision == "bf16" and device.backend in PRECISIONS[precision]:
            self.steps = store_narrow(self.steps, {value for values in self.kept.values() for value in values}, device.ops.signatures)
        if conserve:
            self.steps = recompute(self.steps, self._kept_roots())
        work_in_place(self.steps, self._kept_roots())
        self._uploads = [step for step in self.steps if step.op == "upload"]
        self._beside = beside or {}
        self._aside = only_for_updates(self.steps) if beside else set()
        self._lifetimes = self._find_lifetimes()
        self._workspaces = {queue: self._workspace_bytes(queue) for queue in self.queues()}
        self._workspace_offsets: dict[Device, int] = {}  # behind the values
        self.offsets: dict[Value, int] = {}
        self.arena_bytes: dict[int, int] = {}
        for device in devices:
            offsets, total = place([(value, *life) for value, life in self._lifetimes.items() if value.device == device])
            self.offsets |= offsets
            for queue in (queue for queue in self.queues() if queue.index == device):
                self._workspace_offsets[queue] = total
                total += self._workspaces[queue]
            self.arena_bytes[device] = total
        self._calls: list[Callable[[], None]] = []
        self._graph: Capture | None = None
        self._runs = 0  # since it has these addresses
        self.feeds: dict = {}

    def queues(self) -> list[Device]:
        """One of each device, then those beside."""
        return [*self.devices.values(), *self._beside.values()]

    def queue(self, step: Step) -> Device:
        """In which a step runs."""
        return (self._beside if step in self._aside else self.devices)[step.device]

    def _kept_roots(self) -> set[Value]:
        return {value.root for values in self.kept.values() for value in values}

    def _find_lifetimes(self) -> dict[Value, tuple[int, int]]:
        lives: dict[Value, tuple[int, int]] = {}
        for i, step in enumerate(self.steps):
            for value in (*step.reads, *step.writes):
                if not value.root.persistent:
                    lives[value.root] = (lives.get(value.root, (i, i))[0], i)
        aside = [i for i, step in enumerate(self.steps) if step in self._aside]
        for at, i in enumerate(aside):
            last = aside[at + BEHIND] if at + BEHIND < len(aside) else len(self.steps)
            for value in (*self.steps[i].reads, *self.steps[i].writes):
                if value.root in lives:
                    lives[value.root] = (lives[value.root][0], max(lives[value.root][1], last))
        for root in self._kept_roots() & lives.keys():
            lives[root] = (lives[root][0], len(self.steps))
        return lives

    def _workspace_bytes(self, queue: Device) -> int:
        sizes = [0]
        for step in self.steps:
            if self.queue(step) is queue and hasattr(queue.ops, f"{step.op}_workspace"):
                shapes = [Tensor(0, value.shape, value.dtype, queue.pitch(value.shape[-1], value.dtype)) for value in (*step.reads, *step.writes)]
                sizes.append(getattr(queue.ops, f"{step.op}_workspace")(queue, *shapes, **step.scalars))
        return -(-max(sizes) // ALIGNMENT) * ALIGNMENT

    def bind(self, arenas: dict[int, int]) -> None:
        """Gives every value its address in its device's arena, and makes the calls."""
        for value, offset in self.offsets.items():
            address = arenas[value.device] + offset
            value.tensor = Tensor(address, value.shape, value.dtype, self.devices[value.device].pitch(value.shape[-1], value.dtype), value.device)
        for step in self.steps:
            step.call = self._call(step, arenas)
        self._waits, self._records = self._events()
        assert self.steps[: len(self._uploads)] == self._uploads  # they come first (Compiler.uploads): what a graph reads lies there before it is launched
        self._calls, self._graph, self._runs = self.calls(self.steps[len(self._uploads):]), None, 0

    def calls(self, steps: list[Step]) -> list[Callable[[], None]]:
        """What queues some of the steps, each behind those of other queues that it waits for. The queues beside begin and end with the others."""
        calls = [call for index, beside in self._beside.items() for call in self._behind(beside, self.devices[index])]
        for step in steps:
            queue = self.queue(step)
            calls += [partial(queue.ops.event_wait, queue, self._records[other][0]) for other in self._waits[step]]
            calls.append(step.call)
            calls += [partial(queue.ops.event_record, queue, event) for event in self._records[step]]
        return calls + [call for index, beside in self._beside.items() for call in self._behind(self.devices[index], beside)]

    @staticmethod
    def _behind(queue: Device, other: Device) -> list[Callable[[], None]]:
        """What makes a queue wait for all that is in another."""
        event = other.new_event()
        return [partial(other.ops.event_record, other, event), partial(queue.ops.event_wait, queue, event)]

    def _call(self, step: Step, arenas: dict[int, int]) -> Callable[[], None]:
        device = self.queue(step)
        if step.op == "upload":
            target = step.writes[0].bound()
            return lambda: device.upload(target, fed(step, self.feeds))
        if step.op == "copy":
            source, target = step.reads[0].bound(), step.writes[0].bound()
            return partial(device.ops.copy_bytes, device, target.ptr, device.physical, source.ptr, self.devices[source.device].physical, source.nbytes)
        tensors = [value.bound() for value in step.reads] + [value.bound().adding(add) for value, add in zip(step.writes, step.adds, strict=True)]
        if step.op in FUNCTIONS:
            return self.libraries.call(step, device, tensors)
        if hasattr(device.ops, f"{step.op}_workspace"):
            size = self._workspaces[device]
            tensors.append(Tensor(arenas[step.device] + self._workspace_offsets[device], (size,), "uint8", size, step.device))
        packed = arguments(device.ops.signatures[step.op], map(device.ops.pack, tensors))
        return partial(getattr(device.ops, step.op), device, *packed, **step.scalars)

    def _events(self) -> tuple[dict[Step, list[Step]], dict[Step, list[int]]]:
        """Which steps of other queues each step waits for, and the events of those waited for.

        In each of them it is the last one that wrote what the step uses, or used what it writes, by the addresses: memory that is used
        again orders steps, too. What is done when something else is that a queue has waited for is not waited for again.
        """
        waits, records = defaultdict(list), defaultdict(list)
        users: dict[tuple[int, Device], list[Step]] = defaultdict(list)  # of a device's memory, by queue
        number: dict[Step, int] = {}  # in its queue, from 1
        done: dict[Step, dict[Device, int]] = {}  # up to which number each queue is, when this step is
        reached: dict[Device, dict[Device, int]] = defaultdict(dict)  # the same of the last step of a queue
        regions = {step: Regions.of(step) for step in self.steps}
        for i, step in enumerate(self.steps):
            if i == len(self._uploads):
                reached |= {beside: dict(reached[self.devices[index]]) for index, beside in self._beside.items()}
            queue, memories = self.queue(step), {value.device for value in (*step.reads, *step.writes)}
            known = dict(reached[queue])
            for (memory, other), earlier in users.items():
                if memory in memories and other is not queue:
                    new = [before for before in earlier if number[before] > known.get(other, 0)]
                    if met := next((before for before in reversed(new) if regions[step].meet(regions[before])), None):
                        waits[step].append(met)
                        known = {other: max(known.get(other, 0), done[met].get(other, 0)) for other in known.keys() | done[met].keys()}
            number[step] = known[queue] = known.get(queue, 0) + 1
            done[step] = reached[queue] = known
            for memory in memories:
                users[memory, queue].append(step)
        for step in {other for others in waits.values() for other in others}:
            records[step] = [self.devices[step.device].new_event()]
        return waits, records

    def data(self, device: int) -> list[Step]:
        """The uploads of a device that can be made ahead: all but that of the state."""
        return [step for step in self._uploads if step.device == device and step.scalars["feed"] != "state"]

    def upload_ahead(self, feeds: dict, landings: dict[int, Landing]) -> None:
        """Brings the data of the next run near to each device, while it computes."""
        for device, landing in landings.items():
            landing.upload([(step.writes[0].bound(), fed(step, feeds)) for step in self.data(device)])

    def run(self, feeds: dict, landings: dict[int, Landing] | None = None) -> None:
        """Queues all steps. `feeds`: dataIdx -> array (channels, height, width, images), "state" -> (k,) float64.

        landings: where the data have been uploaded ahead.
        The first run has the steps queued one by one: what CUDA does when a kernel or a copy is first used cannot be captured.
        """
        self.feeds = feeds
        for device, landing in (landings or {}).items():
            landing.take(step.writes[0].bound() for step in self.data(device))
        for step in self._uploads:
            if not landings or step.scalars["feed"] == "state":
                step.call()
        if self.graphs and self._runs == 1:
            self._graph = self._capture()
        if self._graph:
            self._graph.launch()
        else:
            self._queue()
        self._runs += 1

    def _queue(self) -> None:
        for call in self._calls:
            call()

    def _capture(self) -> Capture:
        try:
            return Capture(self.queues(), self._queue)
        except RuntimeError as error:
            raise CaptureFailed(f"the steps of {self.images} images could not be captured in a graph ({error}); --graphs off runs them one by one") from error

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
            queue = self.queue(step)
            queue.ops.event_record(queue, reached)
            for other in self._waits[step]:
                queue.ops.event_wait(queue, self._records[other][0])
            queue.ops.event_record(queue, start)
            step.call()
            queue.ops.event_record(queue, end)
            for event in self._records[step]:
                queue.ops.event_record(queue, event)
        self.synchronize()
        times = np.array([[self.devices[step.device].ops.event_seconds(origins[clocks[step.device]], event) for event in events]
                          for step, events in zip(self.steps, marks, strict=True)])
        return [Span(step, self._waits[step], *row, beside=step in self._aside) for step, row in zip(self.steps, (times - times.min()).tolist(), strict=True)]

    def fetch(self, name: str) -> list[np.ndarray]:
        """Kept values of the last run, once their devices have got there; those of chunks in the order of the images."""
        return [self.devices[value.device].download(value.bound()) for value in self.kept[name]]

    def synchronize(self) -> None:
        """Waits for all devices; raises what a step raised. No queue starts the next run before all are done."""
        for queue in self.queues():
            queue.synchronize()

    def table(self) -> str:
        """The steps as text, one a line, and what crosses between devices."""
        lines = [f"{i:4}  {step.line()}" for i, step in enumerate(self.steps)]
        for phase in ("forward", "backward", "update"):
            if moved := [step.reads[0].nbytes for step in self.steps if step.op == "copy" and step.phase == phase]:
                lines.append(f"{phase}: {len(moved)} copies between devices, {sum(moved)} bytes")
        return "\n".join(lines)
