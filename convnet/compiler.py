"""The compiler: has the layers of a graph record their steps, and inserts what moves tensors between devices."""
from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from math import prod

from .data.augment import NO_AUGMENTATION, Augmentation
from .graph import Graph, Node
from .layers import Limits, Weights
from .recorder import LayerTensors, Recorder, Step, Value


class Compiler:
    """Records the steps of one (images, phase) of a graph.

    persistent   by name and device, layer.W0@0: weights, momenta, state, mean
    data_types   by dataIdx: dtype and shape as uploaded
    position     of this minibatch among those whose gradients are summed for an update; mini: images of each of them
    view         that testing sees of uint8 images (ops.h, image_forward); augmentation: what training sees
    """

    def __init__(self, graph: Graph, persistent: dict[str, Value], signatures: dict[str, str], images: int, dtype: str,
                 data_types: dict[int, tuple[str, tuple[int, int, int]]], seed: int, position: int = 0, mini: int = 0,
                 view: int = 0, augmentation: Augmentation = NO_AUGMENTATION):
        self.graph, self.persistent, self.images, self.dtype, self.seed = graph, persistent, images, dtype, seed
        self.data_types, self.position, self.mini = data_types, position, mini
        self.view, self.augmentation = view, augmentation
        self.training = False
        size = -(-images // graph.chunks)
        self.bounds = [(min(i * size, images), min((i + 1) * size, images)) for i in range(graph.chunks)]
        self.ops = Recorder(signatures)
        self.values: dict[str, Value] = {}
        self.updates: Counter[str] = Counter()

    def record(self, phase: str, rate_slots: dict[str, int]) -> list[Step]:
        """train: forward, backward, update; check: forward as when testing, and backward; test: forward."""
        self.training = phase == "train"
        if self.training:
            for node in self.graph.nodes:
                for full, weights in node.owned():
                    if self.position % self.graph.minibatches(node, weights):
                        self.ops.mark_written(self.weights_gradient(full, device) for device in node.devices)
        self.uploads()
        for index in range(self.graph.passes):
            self.forward(index)
            if phase != "test":
                self.backward(index)
            if phase == "train":
                self.update(index, rate_slots)
        return self.ops.steps

    # ---- values ----------------------------------------------------------------------------------------------

    def filled(self, chunks: Iterable[int]) -> list[int]:
        """Those chunks that have images: a small minibatch does not fill all."""
        return [chunk for chunk in chunks if self.bounds[chunk][0] < self.bounds[chunk][1]]

    def label(self, node: Node, chunk: int) -> str:
        return node.name if self.graph.chunks == 1 else f"{node.name}/{chunk}"

    def value(self, name: str, shape: Iterable[int], device: int, chunk: int) -> Value:
        """The value of that name on that device, made when it is first asked for."""
        first, last = self.bounds[chunk]
        return self.values.setdefault(f"{name}@{device}", Value(name, (*shape, last - first), self.dtype, device))

    def acts(self, node: Node, chunk: int) -> Value:
        return self.acts_on(node, chunk, node.device(chunk))

    def acts_on(self, node: Node, chunk: int, device: int) -> Value:
        """Where a layer's acts are on a device: its own, or the copy."""
        name = self.label(node, chunk) + ("" if device == node.device(chunk) else f"@{device}")
        if node.layer.is_cost:
            return self.values.setdefault(f"{name}@{device}", Value(name, node.shape[:1], "float64", device))
        return self.value(name, node.shape, device, chunk)

    def gradient(self, node: Node, chunk: int) -> Value:
        """The gradient of a layer's acts, where the layer lives."""
        return self.value(f"{self.label(node, chunk)}_grad", node.shape, node.device(chunk), chunk)

    def shares(self, source: Node, chunk: int) -> list[tuple[Node, int, int]]:
        """Who adds to the gradient of a layer's acts, in the order of the sum: (reader, which of its inputs, device)."""
        return [(reader, i, reader.device(chunk)) for reader in reversed(source.readers) for i, read in enumerate(reader.inputs) if read is source]

    def share(self, source: Node, chunk: int, node: Node, index: int) -> tuple[Value, bool]:
        """Where a reader adds its share of that gradient, and whether the value is then complete, ready to be sent home.

        On another device, the first shares of the sum are added up there; a later one travels alone, so that the
        order of the sum is the same on any devices.
        """
        home, order = source.device(chunk), self.shares(source, chunk)
        devices = [device for _, _, device in order]
        place, device = order.index((node, index, node.device(chunk))), node.device(chunk)
        if device == home:
            return self.gradient(source, chunk), False
        first = next((i for i, other in enumerate(devices) if other != devices[0]), len(devices))
        number = "" if place < first or devices.count(device) == 1 else f".{place}"
        return self.value(f"{self.label(source, chunk)}_grad@{device}{number}", source.shape, device, chunk), place >= first - 1

    def weights_gradient(self, full: str, device: int) -> Value:
        """The gradient of a learned tensor, layer.W0, by what one device has seen since the last update."""
        if (total := f"{full}.sum@{device}") in self.persistent:
            return self.persistent[total]
        part = self.updates[full]
        return self.of_weights(f"{full}_grad" + (f"/{part}" if part else ""), self.persistent[f"{full}@{device}"].shape, device)

    def of_weights(self, name: str, shape: tuple[int, ...], device: int) -> Value:
        """The value of that name, which has no images; made when it is first asked for."""
        return self.values.setdefault(f"{name}@{device}", Value(name, shape, self.dtype, device))

    def tensors(self, node: Node, chunk: int, backward: bool) -> LayerTensors:
        device = node.device(chunk)
        inputs = [self.local(source, chunk, device) for source in node.inputs]
        weights = {name: self.persistent[f"{full}@{device}"] for name, full in node.owners.items()}
        grads = {name: self.weights_gradient(full, device) for name, full in node.owners.items()} if backward else {}
        inputs_grad = [None if source.layer.on_host else self.share(source, chunk, node, i)[0] for i, source in enumerate(node.inputs)] if backward else []
        acts_grad = self.gradient(node, chunk) if backward and not node.layer.is_cost else None
        fixed = {name: self.persistent[f"{node.name}.{name}@{device}"] for name in node.fixed}
        saved = {name: self.value(f"{self.label(node, chunk)}.{name}", shape, device, chunk) for name, shape in node.saved.items()}
        saved |= {name: self.of_weights(f"{self.label(node, chunk)}.{name}", shape, device) for name, shape in node.saved_weights.items()}
        return LayerTensors(inputs, self.acts(node, chunk), acts_grad, inputs_grad, weights, grads, fixed, saved, self.persistent[f"state@{device}"],
                            self.training, node.name, self.seed, self.bounds[chunk][0])

    # ---- between devices -------------------------------------------------------------------------------------

    def carry(self, source: Value, target: Value, quantizer: str) -> None:
        """Copies a value to another device, in half precision if the config says so; adds it to what is there."""
        layer, phase = self.ops.layer, self.ops.phase
        if quantizer == "half" and self.dtype == "float32":
            narrow = Value(f"{source.name}.half", source.shape, "float16", source.device)
            arrived = Value(f"{narrow.name}@{target.device}", source.shape, "float16", target.device)
            self.ops.at(source.device, layer, phase).to_half(source, narrow)
            self.ops.at(target.device, layer, phase).append("copy", (narrow,), (arrived,), {})
            self.ops.from_half(arrived, target)
        elif self.ops.is_written(target):
            arrived = Value(f"{source.name}>{target.device}", source.shape, source.dtype, target.device)
            self.ops.at(target.device, layer, phase).append("copy", (source,), (arrived,), {})
            self.ops.scaled_copy(arrived, target, factor=1.0)
        else:
            self.ops.at(target.device, layer, phase).append("copy", (source,), (target,), {})

    def local(self, node: Node, chunk: int, device: int) -> Value:
        """A layer's acts on that device: made of what was uploaded, or copied there, when they are first asked for."""
        if node.layer.on_host:
            return self.image(node, chunk, device)
        value = self.acts_on(node, chunk, device)
        if device != node.device(chunk) and not self.ops.is_written(value):
            self.carry(self.acts(node, chunk), value, node.layer.quant_f)
        return value

    def send_home(self, source: Node, chunk: int, share: Value) -> None:
        """A share of a gradient, or the sum of the first ones, goes to where the layer lives."""
        if self.ops.is_written(share):
            self.ops.at(source.device(chunk), source.name, "backward")
            self.carry(share, self.gradient(source, chunk), source.layer.quant_b)

    # ---- forward ---------------------------------------------------------------------------------------------

    def uploads(self) -> None:
        """They come first: they wait for their queue, and would hold up all that is queued after them."""
        for device in self.graph.devices:
            self.ops.at(device, "", "forward").append("upload", (), (self.persistent[f"state@{device}"],), {"feed": "state"})
            for node in self.graph.data:
                for chunk in self.filled(range(self.graph.chunks)):
                    if any(reader.device(chunk) == device for reader in node.readers):
                        scalars = {"feed": node.layer.data_idx, "images": self.bounds[chunk]}
                        self.ops.at(device, node.name, "forward").append("upload", (), (self.uploaded(node, chunk, device),), scalars)

    def uploaded(self, node: Node, chunk: int, device: int) -> Value:
        """Where a data layer's tensor is uploaded to: uint8 images, (images, channels, height, width), become acts by the op `image`."""
        dtype, shape = self.data_types[node.layer.data_idx]
        name, (first, last) = self.label(node, chunk), self.bounds[chunk]
        if dtype == "uint8":
            return self.values.setdefault(f"{name}.pixels@{device}", Value(f"{name}.pixels", (last - first, *shape), dtype, device))
        return self.value(name, node.shape, device, chunk)

    def image(self, node: Node, chunk: int, device: int) -> Value:
        value, pixels = self.value(self.label(node, chunk), node.shape, device, chunk), self.uploaded(node, chunk, device)
        if not self.ops.is_written(value):
            mean, state = self.persistent[f"mean@{device}"], self.persistent[f"state@{device}"]
            first = next(data for data in self.graph.data if data.layer.data_idx == node.layer.data_idx)  # all of one tensor are cropped alike
            scalars = {"seed": self.seed, "purpose": zlib.crc32(f"image {first.name}".encode()), "first_image": self.bounds[chunk][0],
                       "images_per_crop": self.augmentation.images_per_crop}
            if self.training and f"colors@{device}" in self.persistent:
                self.ops.noisy_image_forward(pixels, mean, self.persistent[f"colors@{device}"], state, value, scale=self.augmentation.scale, **scalars)
            else:
                self.ops.image_forward(pixels, mean, state, value, random=self.training, view=self.view, **scalars)
        return value

    def forward(self, index: int) -> None:
        for node in self.graph.computed:
            for chunk in self.filled(self.graph.forward_chunks(node, index)):
                self.ops.at(node.device(chunk), node.name, "forward")
                node.layer.forward(self.ops, self.tensors(node, chunk, backward=False), self.training)

    # ---- backward --------------------------------------------------------------------------------------------

    def backward(self, index: int) -> None:
        postponed: dict[tuple[Node, int], list[tuple[Node, Value]]] = defaultdict(list)
        for node in reversed(self.graph.computed):
            for chunk in self.filled(self.graph.backward_chunks(node, index)):
                if node.layer.is_cost or self.ops.is_written(self.gradient(node, chunk)):
                    self.layer_backward(node, chunk, postponed)
                for source, share in postponed[node, chunk]:
                    self.send_home(source, chunk, share)

    def layer_backward(self, node: Node, chunk: int, postponed: dict[tuple[Node, int], list[tuple[Node, Value]]]) -> None:
        """Records a layer's backward, and the journey home of the gradients that it completes on another device."""
        self.ops.at(node.device(chunk), node.name, "backward")
        node.layer.backward(self.ops, self.tensors(node, chunk, backward=True))
        for i, source in enumerate(node.inputs):
            if source.layer.on_host:
                continue
            share, complete = self.share(source, chunk, node, i)
            if not complete:
                continue
            last, _, device = (order := self.shares(source, chunk))[-1]
            if len(order) == 2 and last is not node and device == source.device(chunk) and last.replicas == node.replicas:
                # Home has its own share to compute yet, and need not wait; of two shares either may be first.
                postponed[last, chunk].append((source, share))
            else:
                self.send_home(source, chunk, share)

    # ---- update ----------------------------------------------------------------------------------------------

    def update(self, index: int, rate_slots: dict[str, int]) -> None:
        for node in self.graph.costs:
            for chunk in self.filled(self.graph.backward_chunks(node, index)):
                for device in self.graph.devices:  # every device must know whether the costs were finite
                    self.ops.at(device, node.name, "update").check_finite(self.local(node, chunk, device), self.persistent[f"state@{device}"])
        for node in self.graph.nodes:
            for full, weights in node.owned():
                passes = self.graph.update_period(node, weights)
                if weights.rate.base > 0 and (self.position * self.graph.passes + index + 1) % passes == 0:
                    self.update_weights(node, full, weights, index, rate_slots[full])

    def update_weights(self, node: Node, full: str, weights: Weights, index: int, rate_slot: int) -> None:
        """Each device of a replicated layer sums and updates a share of the rows, and gives them to the others."""
        devices = list(dict.fromkeys(node.devices))
        gradients = {device: self.weights_gradient(full, device) for device in devices}
        written = [device for device in devices if self.ops.is_written(gradients[device])]
        if not written:
            return
        for device, first, last in node.shards(weights.shape):
            self.ops.at(device, node.name, "update")
            gradient = gradients[device].rows(first, last)
            for other in written:
                if other != device:
                    self.carry(gradients[other].rows(first, last), gradient, "default")
            updated = self.persistent[f"{full}@{device}"].rows(first, last)
            op, more, scalars = "sgd_update", [], {}
            if weights.counts:
                op, more = "tree_update", [self.persistent[f"{node.name}.{weights.counts}@{device}"]]
            elif weights.epsilon:
                op, scalars = "adaptive_update", {"epsilon": weights.epsilon}
            kept = [self.persistent[f"{full}.{name}@{device}"] for name in weights.kept]
            self.ops.record(op, self.persistent[f"state@{device}"], gradient, *more, *kept, updated, rate_slot=rate_slot, momentum=weights.momentum,
                            decay=weights.decay, **scalars, images=self.images_of_update(node, weights, index))
            for other in devices:
                if other != device:
                    self.ops.at(other, node.name, "update").append("copy", (updated,), (self.persistent[f"{full}@{other}"].rows(first, last),), {})
        for device in devices:
            self.limit(node, full, weights.limits, device)
        self.updates[full] += 1

    def limit(self, node: Node, full: str, limits: Limits, device: int) -> None:
        """Holds the columns of weights within their limits: of all rows, which every device has."""
        whole, state = self.persistent[f"{full}@{device}"], self.persistent[f"state@{device}"]
        columns = whole.reshaped(limits.matrices, prod(whole.shape[:-1]) // limits.matrices, whole.shape[-1])
        self.ops.at(device, node.name, "update")
        if limits.most:
            self.ops.limit_spreads(state, columns, least=limits.least, most=limits.most)
        if limits.norm:
            self.ops.limit_norms(state, columns, limit=limits.norm, exactly=limits.exactly)

    def images_of_update(self, node: Node, weights: Weights, index: int) -> int:
        """How many images' gradients are summed: of the passes since the last update, or of several minibatches."""
        if (count := self.graph.minibatches(node, weights)) > 1:
            return count * self.mini
        passes = self.graph.update_period(node, weights)
        return self.bounds[(index + 1) * self.graph.least - 1][1] - self.bounds[(index + 1 - passes) * self.graph.least][0]
