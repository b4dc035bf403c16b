"""Our ops on random numbers, as calls that are timed: what `layers.cases()` lists."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from layers import Case, ConvLayer

from convnet.backends import Device, Tensor
from convnet.passes import ACTIVITIES, PRECISIONS

RATE_SLOT, STATE = 0, np.array([1.0, 1.0, 1e-6])  # step, all is finite, a learning rate


class OurCase:
    """The calls of a case in the memory of a device. nbytes: of all tensors that they read and write; written: by the last call.

    precision: of a product; at bf16 activities are stored so, as a net's are; `of` is applied to the random numbers.
    """

    def __init__(self, device: Device, case: Case, images: int, precision: str = "exact", dtype: str = "float32", of: Callable = np.asarray):
        self.device, self.case, self.images, self.nbytes, self.precision, self.dtype = device, case, images, 0, precision, dtype
        self._stored = "bfloat16" if precision == "bf16" and device.backend in PRECISIONS[precision] else dtype
        self._calls: list[Callable] = []
        self._random = of(np.random.default_rng(0).standard_normal(1_000_003, np.float32)).astype(dtype)
        getattr(self, f"_{case.op}" if hasattr(self, f"_{case.op}") else f"_{case.op.partition('_')[0]}")()

    def __call__(self) -> None:
        for call in self._calls:
            call()

    def result(self) -> np.ndarray:
        self()
        return self.device.download(self.written[-1])

    # ---- the ops ---------------------------------------------------------------------------------------------------

    def _conv(self) -> None:
        layer = ConvLayer(**{name: value for name, value in self.case.settings.items() if name != "acts_size"})
        shapes = {"images": layer.images_shape(self.images), "filters": layer.filters_shape, "acts": layer.acts_shape(self.images)}
        reads = {"conv_forward": ("images", "filters"), "conv_backward_data": ("acts", "filters"), "conv_backward_filters": ("images", "acts")}
        self._product(shapes, reads[self.case.op], **layer.scalars, precision=self.precision)

    def _fc(self) -> None:
        inputs, outputs = (*self.case.shape, self.images), self.case.settings["outputs"]
        shapes = {"inputs": inputs, "weights": (int(np.prod(self.case.shape)), outputs), "acts": (outputs, 1, 1, self.images)}
        reads = {"fc_forward": ("inputs", "weights"), "fc_backward_data": ("acts", "weights"), "fc_backward_weights": ("inputs", "acts")}
        self._product(shapes, reads[self.case.op], precision=self.precision)

    def _product(self, shapes: dict[str, tuple[int, ...]], reads: tuple[str, ...], **scalars: object) -> None:
        written = next(name for name in shapes if name not in reads)
        stored = ACTIVITIES - {"filters"} if written == "filters" else ACTIVITIES  # their gradient is float32
        tensors = {name: (self._activity if name in stored else self._tensor)(*shape) for name, shape in shapes.items()}
        self._op(self.case.op, [tensors[name] for name in reads], [tensors[written]], **scalars)

    def _lrn(self) -> None:
        x, acts, acts_grad, x_grad = self._likes(4)
        denoms = self._tensor(*x.shape)
        words = {"size": self.case.settings["size"], "scale": 1e-4 / self.case.settings["size"], "power": 0.75}
        self._op("lrn_forward", [x], [denoms, acts], bias=2.0, **words)
        self._op("lrn_backward", [x, denoms, acts_grad], [x_grad], **words)

    def _lrn_max_pool(self) -> None:
        x, x_grad = self._likes(2)
        settings = self.case.settings
        window = {"stride": settings["stride"], "start": 0}
        acts, acts_grad = (self._activity(*self.device.ops.pool_shape(x.shape, size=settings["pool_size"], **window)) for _ in range(2))
        words = {**settings, **window, "scale": 1e-4 / settings["size"], "power": 0.75, "bias": 2.0}
        self._op("lrn_max_pool_forward", [x], [acts], **words)
        self._op("lrn_max_pool_backward", [x, acts, acts_grad], [x_grad], **words)

    def _max_pool(self) -> None:
        x, x_grad = self._likes(2)
        window = {**self.case.settings, "start": 0}
        acts, acts_grad = (self._activity(*self.device.ops.pool_shape(x.shape, **window)) for _ in range(2))
        self._op("max_pool_forward", [x], [acts], **window)
        self._op("max_pool_backward", [x, acts, acts_grad], [x_grad], **window)

    def _avg_pool(self) -> None:
        x, x_grad = self._likes(2)
        window = {**self.case.settings, "start": 0}
        acts, acts_grad = (self._activity(*self.device.ops.pool_shape(x.shape, **window)) for _ in range(2))
        self._op("avg_pool_forward", [x], [acts], **window)
        self._op("avg_pool_backward", [acts_grad], [x_grad], **window)

    def _relu(self) -> None:
        x, acts_grad = self._likes(2)  # in place, as the plan has it
        self._op("neuron_forward", [x], [x], neuron="relu")
        self._op("neuron_backward", [x, acts_grad], [acts_grad], neuron="relu")

    def _dropout(self) -> None:
        x, acts_grad = self._likes(2)
        words = {"keep": 0.5, "scale": 1.0, "seed": 1, "purpose": 1, "first_image": 0}
        self._op("dropout", [x, self._state()], [x], **words)
        self._op("dropout", [acts_grad, self._state()], [acts_grad], **words)

    def _softmax_cost(self) -> None:
        x, x_grad = self._likes(2)
        labels, probs, costs = self._tensor(1, 1, 1, self.images), self._tensor(*self.case.shape, self.images), self.device.tensor((3,), "float64")
        self.device.upload(labels, np.arange(self.images).reshape(labels.shape) % self.case.shape[0])
        self._op("logreg_softmax", [labels, x], [self._state(), probs, costs, x_grad], topk=1, coeff=1.0)  # one op, as a plan has it

    def _sgd(self) -> None:
        gradient, increments, weights = (self._tensor(*self.case.shape) for _ in range(3))
        self._op("sgd_update", [self._state(), gradient], [increments, weights], rate_slot=RATE_SLOT, momentum=0.9, decay=5e-4, images=self.images)

    # ---- what they are made of ---------------------------------------------------------------------------------------

    def _op(self, name: str, reads: list[Tensor], writes: list[Tensor], **scalars: object) -> None:
        ops, tensors, self.written = self.device.ops, [*reads, *writes], writes
        self.nbytes += sum(tensor.nbytes for tensor in tensors)
        if workspace := getattr(ops, f"{name}_workspace", None):
            tensors.append(self.device.tensor((max(workspace(self.device, *tensors, **scalars), 1),), "uint8"))
        self._calls.append(partial(getattr(ops, name), self.device, *map(ops.pack, tensors), **scalars))

    def _tensor(self, *shape: int, dtype: str = "") -> Tensor:
        tensor = self.device.tensor(shape, dtype or self.dtype)
        self.device.upload(tensor, np.resize(self._random, shape))
        return tensor

    def _likes(self, count: int) -> list[Tensor]:
        """Activities of the shape of the case's inputs."""
        return [self._activity(*self.case.shape, self.images) for _ in range(count)]

    def _activity(self, *shape: int) -> Tensor:
        return self._tensor(*shape, dtype=self._stored)

    def _state(self) -> Tensor:
        state = self.device.tensor(STATE.shape, "float64")
        self.device.upload(state, STATE)
        return state


def rounding(device: Device, case: Case, images: int, precision: str) -> dict[str, float]:
    """Errors of a product against float64, relative to the sums of the absolute products: root mean square and largest."""
    right, sizes = (OurCase(device, case, images, dtype="float64", of=of).result() for of in (np.asarray, np.abs))
    found = {}
    for name in dict.fromkeys(("exact", precision)):
        errors = np.divide(OurCase(device, case, images, name).result() - right, sizes, where=sizes > 0, out=np.zeros_like(sizes))
        found |= {f"{name} rms": float(np.sqrt(np.mean(errors**2))), f"{name} max": float(np.abs(errors).max())}
    return found
