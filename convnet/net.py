"""A net on its devices: weights, momenta, and plans for training, testing and looking inside."""
from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .backends import ALIGNMENT, Device, Tensor, padded
from .config import Config
from .data import Provider
from .errors import CommandLineError, DataError, OutOfMemory
from .graph import Graph
from .plan import Compiler, Plan, Value

STATE_RATES = 2  # state: step number, 1 while all costs were finite, then the learning rates (tensor.h)


@dataclass(frozen=True)
class DataSpec:
    """What a data provider gives a net, by dataIdx.

    shapes   (channels, height, width) as the net sees them, after cropping
    stored   dtype and shape as they are uploaded: uint8 images go through the op `image`
    mean     (channels, height, width) of the cropped images, subtracted from uint8 ones; None: 0
    """

    shapes: tuple[tuple[int, int, int], ...]
    stored: tuple[tuple[str, tuple[int, int, int]], ...]
    mean: np.ndarray | None

    @classmethod
    def of(cls, provider: Provider, dtype: str, mean: np.ndarray | None) -> DataSpec:
        """That of a provider whose images have this type; all else it gives is float32."""
        return cls(provider.shapes, ((dtype, provider.stored), *(("float32", shape) for shape in provider.shapes[1:])), mean)


class Net:
    """`devices`: by the numbers that the config uses."""

    def __init__(self, config: Config, data: DataSpec, devices: dict[int, Device], seed: int = 1, dtype: str = "float32"):
        self.config, self.data, self.devices, self.seed, self.dtype = config, data, devices, seed, dtype
        self.graph = Graph(config.layers, data.shapes)
        self.rate_slots = self.graph.rate_slots()
        self.persistent: dict[str, Value] = {}
        self._plans: dict[tuple, Plan] = {}
        self._arenas: dict[int, tuple[int, int]] = {}  # device -> address, bytes
        self._allocate()

    # ---- what stays: weights, momenta, state and mean -------------------------------------------------------

    def _allocate(self) -> None:
        """One allocation a device for everything that outlives a plan."""
        values: dict[int, list[Value]] = {device: [] for device in self.devices}
        for node in self.graph.nodes:
            for name, weights in node.weights.items():
                for full in (f"{node.name}.{name}", f"{node.name}.{name}.inc"):
                    self._keep(full, weights.shape, self.dtype, node.device, values)
        mean_shape = self.data.shapes[0]
        for device in self.devices:
            self._keep(f"state@{device}", (STATE_RATES + len(self.rate_slots),), "float64", device, values)
            self._keep(f"mean@{device}", mean_shape, self.dtype, device, values)
        for device, kept in values.items():
            sizes = [-(-value.nbytes // ALIGNMENT) * ALIGNMENT for value in kept]
            address = self.devices[device].allocate(sum(sizes))
            for value, size in zip(kept, sizes, strict=True):
                value.tensor = Tensor(address, value.shape, value.dtype, padded(value.shape[-1], value.dtype), device)
                address += size
        if self.data.mean is not None:
            for device in self.devices:
                self._upload(self.persistent[f"mean@{device}"], self.data.mean)

    def _keep(self, name: str, shape: tuple[int, ...], dtype: str, device: int, values: dict[int, list[Value]]) -> None:
        self.persistent[name] = Value(name, tuple(shape), dtype, device, persistent=True)
        values[device].append(self.persistent[name])

    def _upload(self, value: Value, array: np.ndarray) -> None:
        self.devices[value.device].upload(value.bound(), array)

    def weight_names(self) -> list[str]:
        """Learned tensors, layer.W0, layer.b, in the order of the config."""
        return list(self.rate_slots)

    def initialise(self) -> None:
        """Random weights from the seed: each tensor's own stream, so that a net is a function of config and seed."""
        for node in self.graph.nodes:
            for name, weights in node.weights.items():
                full = f"{node.name}.{name}"
                values = np.full(weights.shape, weights.constant, np.float32)
                if weights.stdev:
                    key = np.array([self.seed, zlib.crc32(f"weights {full}".encode())], np.uint64)
                    draws = np.random.Generator(np.random.Philox(key=key)).standard_normal(weights.shape, np.float32)
                    values += np.float32(weights.stdev) * draws
                self._upload(self.persistent[full], values)
                self._upload(self.persistent[f"{full}.inc"], np.zeros(weights.shape, np.float32))

    def get(self, name: str) -> np.ndarray:
        """A learned tensor, layer.W0, or its momentum, layer.W0.inc."""
        value = self.persistent[name]
        return self.devices[value.device].download(value.bound())

    def set(self, name: str, array: np.ndarray) -> None:
        value = self.persistent[name]
        if array.shape != value.shape:
            raise DataError(f"{name} has shape {array.shape}, expected {value.shape}: the weights are of another net")
        self._upload(value, array)

    def tensors(self) -> dict[str, np.ndarray]:
        """All weights and momenta."""
        return {full: self.get(full) for name in self.rate_slots for full in (name, f"{name}.inc")}

    def load(self, tensors: dict[str, np.ndarray]) -> None:
        """Weights and momenta of a checkpoint."""
        for name in self.rate_slots:
            for full in (name, f"{name}.inc"):
                if full not in tensors:
                    raise DataError(f"{full} is missing: the weights are of another net")
                self.set(full, tensors[full])

    # ---- plans ------------------------------------------------------------------------------------------------

    def plan(self, images: int, phase: str, keep: tuple[str, ...] = ()) -> Plan:
        """The plan for so many images, made when it is first asked for.

        phase: train (forward, backward, update; augmented), test (forward), or check (forward as when testing, and
        backward; the gradients of the weights are kept).
        keep: layers whose acts can be fetched.
        """
        key = (images, phase, keep)
        if key not in self._plans:
            self._plans[key] = self.compile(images, phase, keep)
            self._bind(self._plans[key])
        return self._plans[key]

    def compile(self, images: int, phase: str, keep: tuple[str, ...] = ()) -> Plan:
        """A plan without memory."""
        signatures = next(iter(self.devices.values())).ops.signatures
        data_types = dict(enumerate(self.data.stored))
        training = phase == "train"
        compiler = Compiler(self.graph, self.persistent, signatures, images, self.dtype, data_types, self.seed, training, augment=training)
        compiler.forward()
        kept = [compiler.acts(node) for node in self.graph.costs]
        for name in keep:
            if name not in self.graph.by_name or self.graph.by_name[name].layer.on_host:
                raise CommandLineError(f"no layer {name}; expected one of {', '.join(n.name for n in self.graph.nodes if not n.layer.on_host)}")
            kept.append(compiler.acts(self.graph.by_name[name]))
        if phase != "test":
            compiler.backward()
        if phase == "train":
            compiler.update(self.rate_slots)
        if phase == "check":
            kept += [compiler.weights_gradient(node, name) for node in self.graph.nodes for name in node.weights]
        return Plan(compiler.ops.steps, kept, self.devices, images)

    def _bind(self, plan: Plan) -> None:
        """Gives a plan the arenas; where they are too small, larger ones, which moves every other plan too."""
        for device, nbytes in plan.arena_bytes.items():
            address, size = self._arenas.get(device, (0, -1))
            if nbytes > size:
                if address:
                    self.devices[device].free(address)
                self._plans = {key: other for key, other in self._plans.items() if other is plan}
                self._arenas[device] = (self.devices[device].allocate(nbytes), nbytes)
        plan.bind({device: address for device, (address, _) in self._arenas.items()})

    def memory(self, plan: Plan) -> dict[int, dict[str, int]]:
        """Bytes by device and kind that a plan needs beside what is there already."""
        table = {}
        for device in self.devices:
            weights = sum(value.nbytes for value in self.persistent.values() if value.device == device)
            table[device] = {"weights and momenta": weights, "activities and gradients": plan.arena_bytes[device]}
        return table

    def check_memory(self, plan: Plan) -> None:
        """Raises OutOfMemory, saying what takes how much, where a plan would not fit."""
        by_physical: dict[int, int] = {}
        for device, nbytes in plan.arena_bytes.items():
            physical = self.devices[device].physical
            by_physical[physical] = by_physical.get(physical, 0) + nbytes
        for physical, needed in by_physical.items():
            free = next(iter(self.devices.values())).ops.free_memory(physical)
            if needed > free:
                lines = [f"device {device}: " + ", ".join(f"{kind} {nbytes / 2**20:.0f} MiB" for kind, nbytes in kinds.items())
                         for device, kinds in self.memory(plan).items()]
                raise OutOfMemory("\n".join([f"this net at {plan.images} images needs {needed / 2**20:.0f} MiB more, and {free / 2**20:.0f} MiB are free",
                                             *lines, f"A smaller minibatch takes less: --mini {max(1, plan.images // 2)}"]))

    # ---- running ------------------------------------------------------------------------------------------------

    def state(self, step: int, rates: Iterable[float] | None = None) -> np.ndarray:
        rates = list(rates) if rates is not None else [0.0] * len(self.rate_slots)
        return np.array([step, 1.0, *rates], np.float64)

    def costs(self, plan: Plan) -> dict[str, np.ndarray]:
        """Name of a cost -> its numbers, summed over the images of the last run. Waits for all devices."""
        plan.synchronize()
        return {node.name: plan.fetch(node.name) for node in self.graph.costs}

    def train(self, arrays: tuple[np.ndarray, ...], step: int, rates: Iterable[float]) -> dict[str, np.ndarray]:
        """One minibatch: forward, backward, update. Returns its costs; the update was skipped if one is not finite."""
        plan = self.plan(arrays[0].shape[-1], "train")
        plan.run({**dict(enumerate(arrays)), "state": self.state(step, rates)})
        return self.costs(plan)

    def test(self, arrays: tuple[np.ndarray, ...], keep: tuple[str, ...] = ()) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Forward as when testing: the costs, and the acts of the layers in `keep`."""
        plan = self.plan(arrays[0].shape[-1], "test", keep)
        plan.run({**dict(enumerate(arrays)), "state": self.state(0)})
        costs = self.costs(plan)
        return costs, {name: plan.fetch(name) for name in keep}

    def first_not_finite(self, arrays: tuple[np.ndarray, ...], step: int) -> str:
        """The first step of a training minibatch, run again, with an output that is infinite or not a number.

        The weights are still those that the minibatch was run with, since the update was skipped.
        """
        plan = self.plan(arrays[0].shape[-1], "train")
        plan.feeds = {**dict(enumerate(arrays)), "state": self.state(step)}
        for i, at in enumerate(plan.steps):
            at.call()
            for value in at.writes:
                device = self.devices[value.device]
                device.synchronize()
                if value.dtype != "uint8" and not np.isfinite(device.download(value.bound())).all():
                    return f"{i}, {at.op} of {at.layer} ({value.name})"
        return "none of those run again"
