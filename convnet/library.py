"""The functions of ops.h on arrays (channels, height, width, images), by their names: see docs/library.md.

What an op reads, writes and means comes from ops.h, through the compiled module's `signatures` and docstrings. The
tables below add what only a caller without a plan needs: shapes of outputs, defaults, which ops work in place.
"""
from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable
from dataclasses import replace
from inspect import Parameter, Signature
from math import prod
from typing import Any

import numpy as np

from . import arrays
from .arrays import Memory, Stream, View
from .backends import BACKENDS, Tensor, choose_backend, cuda_problem, load_module
from .errors import NoSuchDevice
from .passes import ACTIVITIES, ELEMENTWISE, NARROW

Shape = tuple[int, ...]

POOLS = ("max_pool_forward", "maxabs_pool_forward", "avg_pool_forward", "random_pool_forward", "expected_pool_forward")
# Shape of the outputs by the shapes of the inputs `s` and the scalars `k`; of an op that is not here, the first input's.
SHAPES: dict[str, Callable] = {
    **dict.fromkeys(("conv_forward", "conv_bias_forward"), lambda m, s, k: m.conv_shape(s["images"], s["filters"], stride=k["stride"], padding=k["padding"])),
    "local_forward": lambda m, s, k: m.conv_shape(s["images"], s["weights"][1:], stride=k["stride"], padding=k["padding"]),
    "gather_forward": lambda m, s, k: (*s["channels"], *s["inputs"][1:]),
    **dict.fromkeys(("fc_forward", "fc_bias_forward"), lambda m, s, k: (s["weights"][-1], s["inputs"][-1])),
    "fc_backward_data": lambda m, s, k: (s["weights"][0], s["acts_grad"][-1]),
    "conv_relu_backward_data": lambda m, s, k: s["images"],
    **dict.fromkeys(("fc_relu_backward_data", "avg_pool_relu_backward"), lambda m, s, k: s["inputs"]),
    "fc_backward_weights": lambda m, s, k: (prod(s["inputs"][:-1]), prod(s["acts_grad"][:-1])),
    "bias_backward": lambda m, s, k: s["acts_grad"][:1],
    **dict.fromkeys(POOLS, lambda m, s, k: m.pool_shape(s["inputs"], size=k["size"], stride=k["stride"], start=k["start"])),
    "lrn_max_pool_forward": lambda m, s, k: m.pool_shape(s["inputs"], size=k["pool_size"], stride=k["stride"], start=k["start"]),
    "cross_map_max_pool_forward": lambda m, s, k: (m.pool_shape((1, *s["inputs"][:1] * 2, 1), **k)[1], *s["inputs"][1:]),
    "resize": lambda m, s, k: m.resize_shape(s["inputs"], **k),
    "logreg_forward": lambda m, s, k: (3,),
    "logreg_backward": lambda m, s, k: s["probs"],
    "logreg_softmax_backward": lambda m, s, k: s["probs"],
    "sum2_forward": lambda m, s, k: (1,),
    "gsum2_forward": lambda m, s, k: (1,),
    "gsum2_backward_gates": lambda m, s, k: (1, 1, 1, s["inputs"][-1]),
    "gsum2_backward_inputs": lambda m, s, k: s["inputs"],
    "rflickr_forward": lambda m, s, k: (1,),
    "bce_forward": lambda m, s, k: (3,),
    "sum_columns": lambda m, s, k: (*s["inputs"][:-1], s["starts"][0] - 1),
    **dict.fromkeys(("image_forward", "noisy_image_forward"), lambda m, s, k: (*s["mean"], s["pixels"][0])),
}
# Whose shape the caller must give, as shape= or with out=: the inputs do not tell.
UNKNOWN = {"conv_backward_data": "the images'", "conv_backward_filters": "the filters'", "local_backward_data": "the images'",
           "local_backward_weights": "the weights'", "gather_backward": "the inputs'", "bias_forward": "the acts'", "avg_pool_backward": "the inputs'",
           "slice_forward": "the acts'", "slice_backward": "the inputs'", "random_scale_crop": "the acts'"}
# Where shape= may say something else than the rule: inputs of any rank, unshared biases, other numbers of windows.
RESHAPED = {"fc_forward", "fc_bias_forward", "fc_backward_data", "bias_backward", "cross_map_max_pool_forward", "lrn_max_pool_forward", *POOLS}
# Tensors that are not of the call's floating type.
DTYPES = {"state": "float64", "costs": "float64", "pixels": "uint8", "halves": "float16"}
# Ops that read and overwrite what the caller gives.
UPDATES = {"sgd_update", "fc_backward_update", "tree_update", "adaptive_update", "limit_norms", "limit_spreads", "check_finite", "logreg_softmax"}
DEFAULTS = {"stride": 1, "padding": 0, "groups": 1, "start": 0, "a": 1.0, "b": 1.0, "bias": 1.0, "dropout.scale": 1.0, "seed": 0,
            "purpose": 0, "first_image": 0, "random": False, "view": 0, "images_per_crop": 1, "noisy_image_forward.scale": 1.0, "topk": 1, "coeff": 1.0, "factor": 1.0, "momentum": 0.0, "decay": 0.0,
            "blocked": False, "relu": False, "rate_slot": 0, "positive_weight": 1.0, "sum": False, "top": 0, "left": 0, "down": 1, "across": 1,
            "center": False, "exactly": False, "least": 0.0, "precision": "exact"}
# What the parameters mean that ops.h does not have.
ABOUT = {"shape": "OWNER; not needed with out", "out": "where to put the result; of several, a tuple", "add": "the result is added to what out holds",
         "step": "the minibatch's number, where there is no state", "rate": "the learning rate, where there is no state",
         "state": "float64 (step, 1 while all is finite, learning rates...)", "stream": "a CUDA stream to run on; cuda only"}


class Library:
    """The ops of one backend and device; `help(ops.conv_forward)` describes one."""

    def __init__(self, module, backend: str, device: int):
        self.module, self.backend, self.device = module, backend, device
        self.on_gpu = backend == "cuda"
        self._workspaces = threading.local()
        for name, declaration in module.signatures.items():
            if "Many<" not in declaration:  # what plans join; one after the other is the same
                setattr(self, name, Op(self, name, declaration).function())

    def __repr__(self) -> str:
        return f"convnet.ops({self.backend!r}, {self.device})"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"the library has no op {name!r}", name=name, obj=self)  # Python adds "Did you mean"

    def conv_shape(self, images: Shape, filters: Shape, *, stride: int = 1, padding: int = 0) -> Shape:
        """Shape of conv_forward's acts, from the shapes of images and filters."""
        return self.module.conv_shape(images, filters, stride=stride, padding=padding)

    def pool_shape(self, inputs: Shape, *, size: int, stride: int = 1, start: int = 0) -> Shape:
        """Shape of a pooling's acts, from the shape of its inputs."""
        return self.module.pool_shape(inputs, size=size, stride=stride, start=start)

    def resize_shape(self, inputs: Shape, *, scale: float) -> Shape:
        """Shape of resize's acts, from the shape of its inputs."""
        return self.module.resize_shape(inputs, scale=scale)

    def workspace(self, handle: int, nbytes: int) -> Tensor:
        """Scratch memory of this thread and queue: kept, so that it is not asked for at every call."""
        kept = self._workspaces.__dict__
        if handle not in kept or kept[handle].nbytes < nbytes:
            kept[handle] = Memory(self.module, self.device, nbytes)
        return Tensor(kept[handle].ptr, (max(nbytes, 1),), "uint8", max(nbytes, 1))


class Op:
    """One function of ops.h, called with arrays."""

    def __init__(self, library: Library, name: str, declaration: str):
        pairs = [word.rsplit(":", 1) for word in declaration.split()]  # std::uint32_t:seed
        self.library, self.name = library, name
        self.inputs = [n for kind, n in pairs if kind == "In"]
        self.outputs = [n for kind, n in pairs if kind == "Out" and n != "workspace"]
        self.scalars = {n: kind for kind, n in pairs if kind not in ("Stream", "In", "Out")}
        self.arrays = [n for n in self.inputs + self.outputs * (name in UPDATES) if n != "state"]
        self.run = getattr(library.module, name)
        self.workspace_bytes = getattr(library.module, f"{name}_workspace", None)
        self.signature = self._signature()

    def _signature(self) -> Signature:
        scalars = {n: DEFAULTS.get(n, DEFAULTS.get(f"{self.name}.{n}", Parameter.empty)) for n in self.scalars}
        named: dict[str, Any] = {n: default for n, default in scalars.items() if default is Parameter.empty}
        if "state" in self.inputs:
            named |= {"rate": None} if "rate_slot" in self.scalars else {"step": 0}
        named |= scalars
        if "state" in self.inputs + self.outputs:
            named |= {"state": None}
        if self.name in UNKNOWN or self.name in RESHAPED:
            named |= {"shape": None}
        if self.name not in UPDATES:
            named |= {"out": None, "add": False}
        positional = [Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in self.arrays]
        return Signature(positional + [Parameter(n, Parameter.KEYWORD_ONLY, default=d) for n, d in (named | {"stream": None}).items()])

    def function(self) -> Callable:
        def op(*args, **kwargs):
            try:
                bound = self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.name}{self.signature}: {error}") from None
            bound.apply_defaults()
            try:
                return self.call(bound.arguments)
            except ValueError as error:
                raise ValueError(str(error) if str(error).startswith(self.name) else f"{self.name}: {error}") from None

        op.__name__ = op.__qualname__ = self.name
        op.__signature__, op.__doc__ = self.signature, self._doc()
        return op

    def _doc(self) -> str:
        text = (self.run.__doc__ or "").partition("\n\n")[2].strip()  # behind pybind11's own line
        told = [f"{n}: {ABOUT[n]}" for n in self.signature.parameters if n in ABOUT]
        returns = f"Returns {' and '.join(self.outputs)}{', updated in place' * (self.name in UPDATES)}."
        return "\n".join([text, "", returns, *told]).replace("OWNER", UNKNOWN.get(self.name, "that of the result, where it is not the usual one"))

    # ---- one call ------------------------------------------------------------------------------------

    def call(self, given: dict[str, Any]) -> Any:
        scalars = {n: self._scalar(n, kind, given[n]) for n, kind in self.scalars.items()}
        if "state" in given:
            given["state"] = self._state(given, scalars)
        outs = self._outs(given)
        stream = self._stream(given, outs)
        inputs = {n: self._view(n, given[n], stream) for n in self.inputs}
        outputs = {n: self._view(n, array, stream, written=True) for n, array in outs.items() if array is not None}
        activities, others = self._dtypes(inputs | outputs)
        self._check_overlaps(inputs, outputs)
        for name in self.outputs:
            if name not in outputs:
                shape = self._shape(given, inputs, scalars)
                dtype = DTYPES.get(name, activities if name in ACTIVITIES else others)
                array = arrays.empty_like(inputs[self.arrays[0]], shape, dtype, self.library.module, stream.device)
                outputs[name] = self._view(name, array, stream, written=True)
        self._run(stream, inputs, {n: outputs[n] for n in self.outputs}, scalars, bool(given.get("add")))
        results = [outputs[n].array for n in self.outputs]
        return results[0] if len(results) == 1 else tuple(results)

    def _run(self, stream: Stream, inputs: dict[str, View], outputs: dict[str, View], scalars: dict, add: bool) -> None:
        library, module = self.library, self.library.module
        temporary: list[Memory] = []  # tensors on the GPU of arrays that are not

        def tensor(array: View, filled: bool, add: bool = False) -> Tensor:
            if array.on_gpu or not library.on_gpu:
                return array.tensor(array.ptr, add)
            temporary.append(Memory(module, library.device, array.nbytes))
            if filled:
                module.upload(stream, temporary[-1].ptr, array.ptr, array.nbytes)
            return array.tensor(temporary[-1].ptr, add)

        tensors = [tensor(v, True) for v in inputs.values()]
        tensors += (written := [tensor(v, add or self.name in UPDATES, add) for v in outputs.values()])
        if self.workspace_bytes:
            tensors.append(library.workspace(stream.handle, self.workspace_bytes(stream, *tensors, **scalars)))
        self.run(stream, *tensors, **scalars)
        for output, result in zip(outputs.values(), written, strict=True):
            if output.ptr != result.ptr:
                module.download(stream, output.ptr, result.ptr, output.nbytes)
        if temporary or any(v.on_gpu and v.copied for v in inputs.values()):
            module.stream_synchronize(stream)  # before they go

    # ---- its arguments ---------------------------------------------------------------------------------

    def _scalar(self, name: str, kind: str, value: Any) -> Any:
        try:
            if kind in ("Neuron", "Precision") and isinstance(value, str):
                return value  # the module knows which there are
            if kind == "bool":
                return bool(value)
            if kind == "double":
                return float(value)
            low, high = (0, 2**32 - 1) if kind == "std::uint32_t" else (-(2**31), 2**31 - 1)
            if low <= operator.index(value) <= high:
                return operator.index(value)
            wanted = f"{low} to {high}"
        except (TypeError, ValueError):
            wanted = {"double": "a number", "Neuron": "the name of one", "Precision": "the name of one"}.get(kind, "a whole number")
        raise ValueError(f"{name} is {value!r}, expected {wanted}")

    def _state(self, given: dict[str, Any], scalars: dict) -> Any:
        """The caller's state, or one that says what the call needs of it."""
        if given["state"] is not None:
            if given.get("rate") is not None:
                raise ValueError("rate and state are both given, expected one of them")
            return given["state"]
        if "rate_slot" not in scalars:
            return np.array([self._scalar("step", "double", given.get("step", 0)), 1.0])
        if given["rate"] is None:
            raise ValueError("there is neither rate nor state, expected one of them")
        return np.array([0.0, 1.0, *[self._scalar("rate", "double", given["rate"])] * (scalars["rate_slot"] + 1)])

    def _outs(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arrays to write, by the outputs' names; None: a new one."""
        if self.name in UPDATES:
            return {n: given[n] for n in self.outputs}
        out = given["out"]
        if given["add"] and out is None:
            raise ValueError("add adds to what out holds, expected out=")
        outs = (out,) if len(self.outputs) == 1 else (None,) * len(self.outputs) if out is None else out
        if not isinstance(outs, tuple) or len(outs) != len(self.outputs):
            raise ValueError(f"out is {type(out).__name__}, expected the tuple ({', '.join(self.outputs)})")
        return dict(zip(self.outputs, outs, strict=True))

    def _stream(self, given: dict[str, Any], outs: dict[str, Any]) -> Stream:
        if not self.library.on_gpu:
            if given["stream"] is not None:
                raise ValueError(f"stream is given, expected none: backend {self.library.backend} has finished when it returns")
            return Stream(self.library.device, 0)
        if given["stream"] is not None:
            return Stream(self.library.device, arrays.stream_handle(given["stream"]))
        used = (arrays.current_stream(a) for a in [*(given[n] for n in self.arrays), *outs.values()])
        return Stream(self.library.device, next((handle for handle in used if handle is not None), 0))

    def _view(self, name: str, array: Any, stream: Stream, written: bool = False) -> View:
        """The array as it is, or, of an input that no op can read as it is, a copy of it."""
        try:
            found = arrays.view(array, stream)
            if not found.shape:
                raise ValueError("it is a single number, expected an array")
            if found.on_gpu and not self.library.on_gpu:
                raise ValueError("it is on a GPU, expected an array in the CPU's memory; convnet.ops('cuda') takes it as it is")
            if found.device not in (None, self.library.device):
                raise ValueError(f"it is on GPU {found.device}, expected GPU {self.library.device}; convnet.ops('cuda', {found.device}) is for the other")
            if written and not (found.ready and found.writable):
                raise ValueError("expected a C-contiguous array that can be written: the result goes there")
            if found.stream is not None and found.stream != (stream.handle or 1):  # 1: the default one
                self.library.module.stream_synchronize(Stream(stream.device, found.stream))
            return found if found.ready else replace(arrays.view(arrays.contiguous(found), stream), copied=True)
        except ValueError as error:
            raise ValueError(f"{self.name}: {name}: {error}") from error

    def _dtypes(self, views: dict[str, View]) -> tuple[str, str]:
        """The floating types of the call: of its activities, and of all else."""
        if self.name in NARROW and any(found.dtype == "bfloat16" and name in ACTIVITIES for name, found in views.items()):
            for name, found in views.items():
                allowed = ["float32"] * (name not in ACTIVITIES or name == "filters" or self.name == "scaled_copy") + ["bfloat16"] * (name in ACTIVITIES)
                if found.dtype not in ([DTYPES[name]] if name in DTYPES else allowed):
                    raise ValueError(f"{name} is {found.dtype}, expected {DTYPES.get(name, ' or '.join(allowed))} beside activities in bfloat16")
            return "bfloat16", "float32"
        first = None
        for name, found in views.items():
            if name in DTYPES:
                if found.dtype != DTYPES[name]:
                    raise ValueError(f"{name} is {found.dtype}, expected {DTYPES[name]}")
            elif found.dtype not in ("float32", "float64"):
                raise ValueError(f"{name} is {found.dtype}, expected float32 or float64")
            elif first and found.dtype != views[first].dtype:
                raise ValueError(f"{name} is {found.dtype}, expected {views[first].dtype} like {first}")
            first = first or (name if name not in DTYPES else None)
        return (views[first].dtype if first else "float32",) * 2

    def _shape(self, given: dict[str, Any], inputs: dict[str, View], scalars: dict) -> Shape:
        if given.get("shape") is not None:
            try:
                return tuple(operator.index(size) for size in given["shape"])
            except TypeError:
                raise ValueError(f"shape is {given['shape']!r}, expected whole numbers") from None
        if self.name in UNKNOWN:
            raise ValueError(f"the shape of {self.outputs[0]} is not known, expected shape= ({UNKNOWN[self.name]}) or out=")
        shapes = {n: v.shape for n, v in inputs.items()}
        rule = SHAPES.get(self.name)
        return tuple(rule(self.library.module, shapes, scalars)) if rule else shapes[self.arrays[0]]

    def _check_overlaps(self, inputs: dict[str, View], outputs: dict[str, View]) -> None:
        for name, written in outputs.items():
            for other, read in (inputs | outputs).items():
                same = self.name in ELEMENTWISE and written.ptr == read.ptr and written.nbytes == read.nbytes
                if other != name and written.overlaps(read) and not same:
                    raise ValueError(f"{name} is written and shares memory with {other}, expected memory of its own")


@functools.cache
def library(backend: str = "auto", device: int = 0) -> Library:
    """The ops of a backend on a device; the same object every time."""
    if backend not in ("auto", *BACKENDS) and not backend.startswith("host_"):
        raise ValueError(f"backend {backend!r}, expected auto, {', '.join(BACKENDS)}")
    if backend == "cuda" and (problem := cuda_problem()):
        raise NoSuchDevice(f"convnet.ops('cuda'): {problem}. convnet.ops('host') runs on the CPU")
    backend = choose_backend(backend)
    module = load_module(backend)
    if module.device_count() and not 0 <= device < module.device_count():
        raise NoSuchDevice(f"convnet.ops({backend!r}, {device}): there are {module.device_count()} GPUs, expected 0 to {module.device_count() - 1}")
    return Library(module, backend.split("_")[0], device)
