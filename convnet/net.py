"""A net on its devices: weights, momenta, and plans for training, testing and looking inside."""
from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from .backends import ALIGNMENT, Device, Tensor
from .compiler import Compiler
from .config import Config
from .data import NO_AUGMENTATION, Augmentation, Provider
from .errors import CommandLineError, ConfigError, DataError, OutOfMemory
from .graph import Graph
from .initial import Initial
from .landing import Landing, room_for
from .options import replays
from .own_kernels import Libraries
from .plan import Plan
from .recorder import Value

SHARED_OUT = (".inc", ".means", ".squares")  # what updates leave: each device of a replicated layer has some of the rows
STATE_RATES = 2  # state: step number, 1 while all costs were finite, then the learning rates (tensor.h)


@dataclass(frozen=True)
class DataSpec:
    """What a data provider gives a net, by dataIdx.

    shapes   (channels, height, width) as the net sees them, after cropping
    stored   dtype and shape as they are uploaded: uint8 images go through the op `image`
    mean     (channels, height, width) of the cropped images, subtracted from uint8 ones; None: 0
    class_tree  see Provider
    augmentation  of uint8 images in training
    """

    shapes: tuple[tuple[int, int, int], ...]
    stored: tuple[tuple[str, tuple[int, int, int]], ...]
    mean: np.ndarray | None
    class_tree: tuple[int, ...] | None = None
    augmentation: Augmentation = NO_AUGMENTATION

    @classmethod
    def of(cls, provider: Provider, dtype: str, mean: np.ndarray | None, augmentation: Augmentation = NO_AUGMENTATION) -> DataSpec:
        """That of a provider whose images have this type; all else it gives is float32."""
        return cls(provider.shapes, ((dtype, provider.stored), *(("float32", shape) for shape in provider.shapes[1:])), mean,
                   provider.class_tree, augmentation)


class Net:
    """`devices`: by the numbers that the config uses; `mini`: images of a full minibatch; `allocate`: False where it is only looked at;
    `trains`: False where it only predicts, and has no momenta; `precision`: of ops that can be less than exact (ops.h);
    `fuse`: see Plan; `graphs`: auto, on or off, see options.replays; `streams`: queues of a device, 1 or 2,
    of host always 1, whose queue has all cores; `sources`: texts of those that layers of one's own name (own_kernels.read_sources);
    `ahead`: whether the next minibatch is uploaded while this one is computed; None: but on host, where the same cores
    do both, and a step of cifar-quick takes 1 % longer with 128 images, 4 % with one."""

    def __init__(self, config: Config, data: DataSpec, devices: dict[int, Device], seed: int = 1, dtype: str = "float32", mini: int = 128,
                 conserve_mem: bool = False, allocate: bool = True, trains: bool = True, precision: str = "exact",
                 fuse: bool = True, sources: Mapping[str, str] | None = None, graphs: str = "auto", ahead: bool | None = None, streams: int = 1):
        self.config, self.data, self.devices, self.seed, self.dtype, self.mini, self.conserve_mem = config, data, devices, seed, dtype, mini, conserve_mem
        backend = next(iter(devices.values())).backend
        self.fuse, self.graphs = fuse, replays(graphs, backend)
        self._beside = {index: device.beside() for index, device in devices.items()} if streams > 1 and backend != "host" else {}
        self.libraries = Libraries(sources or {}, backend)
        self.graph = Graph(config.layers, data.shapes, data.class_tree)
        self.rate_slots = self.graph.rate_slots()
        self.trains, self.precision = trains, precision
        self.persistent: dict[str, Value] = {}
        self._plans: dict[tuple, Plan] = {}
        self._arenas: dict[int, tuple[int, int]] = {}  # device -> address, bytes
        self.ahead = backend != "host" if ahead is None else ahead
        self._landings: dict[int, Landing] = {}
        self._landed: tuple[Plan, tuple[np.ndarray, ...]] | None = None  # whose data are in the landings, and which
        values = self._values()
        if allocate:
            self._allocate(values)

    # ---- what stays: weights, momenta, state and mean -------------------------------------------------------

    def _values(self) -> dict[int, list[Value]]:
        """Everything that outlives a plan, by device."""
        values: dict[int, list[Value]] = {device: [] for device in self.devices}
        for node in self.graph.nodes:
            for full, weights in node.owned():
                summed = [f"{full}.sum"] if self.trains and self.graph.minibatches(node, weights) > 1 else []
                for device in dict.fromkeys(node.devices):
                    for name in (full, *summed):
                        self._keep(f"{name}@{device}", weights.shape, self.dtype, device, values).accumulates = name != full
                for device, first, last in node.shards(weights.shape):
                    for name in weights.kept if self.trains else ():
                        self._keep(f"{full}.{name}@{device}", self.persistent[f"{full}@{device}"].rows(first, last).shape, self.dtype, device, values)
            for name, fixed in node.fixed.items():
                for device in dict.fromkeys(node.devices):
                    self._keep(f"{node.name}.{name}@{device}", fixed.shape, self.dtype, device, values)
        mean_shape = self.data.shapes[0]
        for device in self.devices:
            self._keep(f"state@{device}", (STATE_RATES + len(self.rate_slots),), "float64", device, values)
            self._keep(f"mean@{device}", mean_shape, self.dtype, device, values)
            if self.data.augmentation.colors is not None:
                self._keep(f"colors@{device}", self.data.augmentation.colors.shape, self.dtype, device, values)
        return values

    def _allocate(self, values: dict[int, list[Value]]) -> None:
        """One allocation a device."""
        for device, kept in values.items():
            sizes = [-(-value.nbytes // ALIGNMENT) * ALIGNMENT for value in kept]
            address = self.devices[device].allocate(sum(sizes))
            for value, size in zip(kept, sizes, strict=True):
                value.tensor = Tensor(address, value.shape, value.dtype, self.devices[device].pitch(value.shape[-1], value.dtype), device)
                address += size
        for name, array in (("mean", self.data.mean), ("colors", self.data.augmentation.colors)):
            if array is not None:
                for device in self.devices:
                    self._upload(self.persistent[f"{name}@{device}"], array)

    def _keep(self, key: str, shape: tuple[int, ...], dtype: str, device: int, values: dict[int, list[Value]]) -> Value:
        name = key.rpartition("@")[0] if "." in key else key
        self.persistent[key] = Value(name, tuple(shape), dtype, device, persistent=True)
        values[device].append(self.persistent[key])
        return self.persistent[key]

    def _upload(self, value: Value, array: np.ndarray) -> None:
        self.devices[value.device].upload(value.bound(), array)

    def weight_names(self) -> list[str]:
        """Learned tensors, layer.W0, layer.b, in the order of the config."""
        return list(self.rate_slots)

    def initialise(self, initial: Initial | None = None) -> None:
        """What `initial` has, else random weights from the seed: each tensor's own stream, so that a net is a function of config and seed."""
        initial = initial or Initial(Path(self.config.layers_file).parent)
        initial.check([node.name for node in self.graph.nodes])
        tensors = [weights for node in self.graph.nodes for weights in (*node.weights.values(), *node.fixed.values())]
        by_name = not any(tensor.function and tensor.function.built_in for tensor in tensors)  # else these say what is taken
        for node in self.graph.nodes:
            for full, weights in node.owned():
                values = initial.values(node.layer, full, weights.function, weights.shape, by_name)
                if values is None:
                    values = np.full(weights.shape, weights.constant, np.float32)
                    if weights.stdev:
                        values += np.float32(weights.stdev) * self._draws(full).standard_normal(weights.shape, np.float32)
                self.set(full, values)
                for name in weights.kept:
                    self.set(f"{full}.{name}", np.zeros(weights.shape, np.float32))
            for name, fixed in node.fixed.items():
                full = f"{node.name}.{name}"
                values = initial.values(node.layer, full, fixed.function, fixed.shape, by_name) if fixed.random else None
                self.set(full, fixed.draw(self._draws(full)) if values is None else values)

    def _draws(self, name: str) -> np.random.Generator:
        """The stream of a tensor."""
        return np.random.Generator(np.random.Philox(key=np.array([self.seed, zlib.crc32(f"weights {name}".encode())], np.uint64)))

    def _places(self, name: str) -> tuple[tuple[int, ...], list[Value]]:
        """Shape of a tensor that outlives plans, and its values: whole on every device, or rows of it on each."""
        full = name.rpartition(".")[0] if name.endswith((*SHARED_OUT, ".sum")) else name
        layer, _, kind = full.rpartition(".")
        node = self.graph.by_name[layer]
        shape = (node.weights | node.fixed)[kind].shape
        return shape, [self.persistent[key] for device in dict.fromkeys(node.devices) if (key := f"{name}@{device}") in self.persistent]

    def get(self, name: str) -> np.ndarray:
        """A learned tensor, layer.W0, its momentum, layer.W0.inc, averages of its gradient, layer.W0.means and .squares, the sum of its
        gradients since the last update, layer.W0.sum, or a fixed tensor, layer.conns0."""
        shape, values = self._places(name)
        arrays = [self.devices[value.device].download(value.bound()) for value in values]
        if name.endswith(SHARED_OUT):
            return np.concatenate(arrays).reshape(shape) if len(arrays) > 1 else arrays[0].reshape(shape)
        return sum(arrays[1:], arrays[0]) if name.endswith(".sum") else arrays[0]

    def set(self, name: str, array: np.ndarray) -> None:
        shape, values = self._places(name)
        if array.shape != shape:
            raise DataError(f"{name} has shape {array.shape}, expected {shape}: the weights are of another net")
        first = 0
        for i, value in enumerate(values):
            if name.endswith(SHARED_OUT):
                rows = prod(value.shape[:-1])
                self._upload(value, array.reshape(-1, shape[-1])[first : first + rows].reshape(value.shape))
                first += rows
            else:
                self._upload(value, np.zeros_like(array) if name.endswith(".sum") and i else array)

    def tensor_names(self, graph: Graph | None = None) -> list[str]:
        """What a run goes on with: all weights and what updates left, what is fixed, and sums of gradients that are not complete."""
        learned, graph = [], graph or self.graph
        for node in graph.nodes:
            for full, weights in node.owned():
                summed = ("sum",) if graph.minibatches(node, weights) > 1 else ()
                learned += [full, *(f"{full}.{name}" for name in (*weights.kept, *summed) if self.trains)]
        return learned + [f"{node.name}.{name}" for node in graph.nodes for name in node.fixed]

    def tensors(self) -> dict[str, np.ndarray]:
        return {name: self.get(name) for name in self.tensor_names()}

    def load(self, tensors: dict[str, np.ndarray]) -> None:
        """What `tensors` gave, of a checkpoint."""
        for name in self.tensor_names():
            if name not in tensors:
                raise DataError(f"{name} is missing: the weights are of another net")
            self.set(name, tensors[name])

    def under(self, config: Config) -> Graph:
        """The graph of the same layers with other params; ConfigError where these need other tensors, as superEps does."""
        graph = Graph(config.layers, self.data.shapes, self.data.class_tree)
        if other := set(self.tensor_names(graph)) ^ set(self.tensor_names()):
            raise ConfigError(f"{config.params_file}: with {self.config.params_file} before it in a run, expected the same superEps and updatePeriod: "
                              f"one has {min(other)}, the other not")
        return graph

    def change_params(self, config: Config) -> None:
        """Goes on with the same layers, tensors and memory under another params file; plans are made anew."""
        self.graph, self.config = self.under(config), config
        self._plans.clear()

    # ---- plans ------------------------------------------------------------------------------------------------

    def plan(self, images: int, phase: str, keep: tuple[str, ...] = (), step: int = 0, view: int = 0) -> Plan:
        """The plan for so many images, made when it is first asked for.

        phase: train (forward, backward, update; augmented), test (forward), or check (forward as when testing, and
        backward; the gradients of the weights are kept).
        keep: layers whose acts can be fetched.
        step: of the run; it matters where gradients are summed over several minibatches.
        view: what is seen of uint8 images when testing: 0 the centre, 1 to 4 the corners, 5 to 9 these mirrored.
        """
        key = self._key(images, phase, keep, step, view)
        if key not in self._plans:
            self._plans[key] = self.compile(*key)
            self._bind(self._plans[key])
        return self._plans[key]

    def _key(self, images: int, phase: str, keep: tuple[str, ...], step: int, view: int) -> tuple:
        return images, phase, keep, step % self.graph.cycle if phase == "train" else 0, view

    def compile(self, images: int, phase: str, keep: tuple[str, ...] = (), position: int = 0, view: int = 0) -> Plan:
        """A plan without memory."""
        names = [node.name for node in self.graph.computed]
        for name in keep:
            if name not in names:
                raise CommandLineError(f"no layer {name}; expected one of {', '.join(names)}")
        if view and self.data.stored[0][0] != "uint8":
            raise CommandLineError(f"view {view}: only images of uint8 pixels have views; those of this data are {self.data.stored[0][0]}")
        signatures = next(iter(self.devices.values())).ops.signatures
        compiler = Compiler(self.graph, self.persistent, signatures, images, self.dtype, dict(enumerate(self.data.stored)), self.seed, position, self.mini,
                            view, self.data.augmentation)
        steps = compiler.record(phase, self.rate_slots)
        wanted = [node.name for node in self.graph.costs] + list(keep)
        kept = {name: [compiler.acts(self.graph.by_name[name], chunk) for chunk in compiler.filled(range(self.graph.chunks))] for name in wanted}
        if phase == "check":
            kept |= {f"{full}_grad": [compiler.weights_gradient(full, device) for device in dict.fromkeys(node.devices)]
                     for node in self.graph.nodes for full, _ in node.owned()}
        return Plan(steps, kept, self.devices, images, self.conserve_mem, self.precision, self.fuse, self.libraries, self.graphs, self._beside)

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
            if self.ahead:
                table[device]["next minibatch"] = self._landing_bytes(plan, device)
        return table

    @staticmethod
    def _landing_bytes(plan: Plan, device: int) -> int:
        return sum(room_for(step.writes[0] for step in plan.data(device)))

    def check_memory(self, plan: Plan) -> None:
        """Raises OutOfMemory, saying what takes how much, where a plan would not fit."""
        by_physical: dict[int, int] = {}
        for device, nbytes in plan.arena_bytes.items():
            physical = self.devices[device].physical
            by_physical[physical] = by_physical.get(physical, 0) + nbytes + self.ahead * self._landing_bytes(plan, device)
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
        return {node.name: sum(plan.fetch(node.name)) for node in self.graph.costs}

    def run(self, plan: Plan, arrays: tuple[np.ndarray, ...], state: np.ndarray) -> None:
        """Queues a run on these arrays, from where they have landed if they were uploaded ahead."""
        landed, self._landed = self._landed, None
        ahead = landed is not None and landed[0] is plan and landed[1] is arrays
        plan.run({**dict(enumerate(arrays)), "state": state}, self._landings if ahead else None)

    def upload_ahead(self, arrays: tuple[np.ndarray, ...], phase: str, keep: tuple[str, ...] = (), step: int = 0, view: int = 0) -> None:
        """Uploads the data of the next run while the devices compute, where its plan is there already: a new one might move what they compute on."""
        plan = self._plans.get(self._key(arrays[0].shape[-1], phase, keep, step, view))
        if plan and self.ahead:
            self._landings = self._landings or {index: Landing(device) for index, device in self.devices.items()}
            plan.upload_ahead(dict(enumerate(arrays)), self._landings)
            self._landed = plan, arrays

    def train(self, arrays: tuple[np.ndarray, ...], step: int, rates: Iterable[float], following: tuple[np.ndarray, ...] | None = None) -> dict[str, np.ndarray]:
        """One minibatch: forward, backward, update. Returns its costs; the update was skipped if one is not finite.

        following: the arrays of the next call, which are uploaded meanwhile.
        """
        plan = self.plan(arrays[0].shape[-1], "train", step=step)
        self.run(plan, arrays, self.state(step, rates))
        if following:
            self.upload_ahead(following, "train", step=step + 1)
        return self.costs(plan)

    def test(self, arrays: tuple[np.ndarray, ...], keep: tuple[str, ...] = (), view: int = 0,
             following: tuple[np.ndarray, ...] | None = None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Forward as when testing, on a view of the images (see `plan`): the costs, and the acts of the layers in `keep`. following: see `train`."""
        plan = self.plan(arrays[0].shape[-1], "test", keep, view=view)
        self.run(plan, arrays, self.state(0))
        if following:
            self.upload_ahead(following, "test", keep, view=view)
        costs = self.costs(plan)
        return costs, {name: np.concatenate(plan.fetch(name), axis=-1) for name in keep}

    def first_not_finite(self, arrays: tuple[np.ndarray, ...], step: int) -> str:
        """The first step of a training minibatch, run again, with an output that is infinite or not a number.

        The weights are still those that the minibatch was run with, since the update was skipped.
        """
        plan = self.plan(arrays[0].shape[-1], "train", step=step)
        plan.feeds = {**dict(enumerate(arrays)), "state": self.state(step)}
        for i, at in enumerate(plan.steps):
            at.call()
            for value in at.writes:
                device = self.devices[value.device]
                device.synchronize()
                if value.dtype != "uint8" and not np.isfinite(device.download(value.bound())).all():
                    return f"{i}, {at.op} of {at.layer} ({value.name})"
        return "none of those run again"
