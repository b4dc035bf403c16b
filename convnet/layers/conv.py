"""Convolution (Krizhevsky et al. 2012, section 3), and what locally connected layers have in common with it."""
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..shapes import conv_shape
from . import BadKey, Fixed, Limits, Shape, describe, key, layer
from .weights import WeightLayer


@dataclass
class FilterLayer(WeightLayer):
    """The sum over the inputs of what filters see in windows of the images, plus biases.

    The filters of group g read a part of the channels: the g-th or, with randSparse, filterChannels of them at random,
    so that each channel is read equally often. Which, is drawn once and kept as `conns0`, ... of the inputs: group g
    reads conns[g * filterChannels : (g + 1) * filterChannels] (SEMANTICS 1.4).
    """

    input_count = None

    filters: tuple[int, ...] = key(help="number of filters of each group", least=1)
    filter_size: tuple[int, ...] = key(help="height and width of a filter", least=1)
    channels: tuple[int, ...] = key((), "channels of the input; checked where given")
    stride: tuple[int, ...] = key((1,), "pixels from one application of the filter to the next", least=1)
    padding: tuple[int, ...] = key((0,), "pixels of zeros around the image", least=0)
    groups: tuple[int, ...] = key((1,), "how many sets of filters there are, each of which reads a part of the channels", least=1)
    rand_sparse: tuple[bool, ...] = key((False,), "a group reads channels drawn at random instead of neighbouring ones")
    filter_channels: tuple[int, ...] = key((), "channels that a filter reads: channels / groups, or, with randSparse, any number that divides the "
                                               "channels and times groups is a multiple of them", least=1)

    modules_x: tuple[int, ...] = key((0,), "pixels of the output down and across (cuda-convnet2): checked, they follow from the other keys; 0: not given", least=0)
    init_c_func: str = key("", "with randSparse, function of a Python file beside the config that says which channels the groups read, as "
                               "module.function(p1,p2); needs --allow-code. initw.makec(layer) takes them from --init-from")

    def bias_matrix(self, count: int) -> tuple[int, int]:
        return (count, 1)

    def check(self) -> None:
        super().check()
        if self.dialect == "V2":
            if any(self.rand_sparse):
                self.warnings.append(("rand_sparse", "ignored, as by cuda-convnet2"))
            self.rand_sparse, self.filter_channels = (False,) * len(self.inputs), ()
        if self.function("init_c_func", ()) and not any(self.rand_sparse):
            self.warnings.append(("init_c_func", "ignored without randSparse=1"))
        for sparse, groups in zip(self.rand_sparse, self.groups, strict=True):
            if sparse and groups == 1:
                raise BadKey("rand_sparse", "found groups=1, expected several groups, which read different channels")

    def shape(self, *inputs: Shape) -> Shape:
        shapes = [self.shape_of(i, shape) for i, shape in enumerate(inputs)]
        if len(set(shapes)) > 1:
            raise ValueError(f"outputs of {' and '.join(describe(s) for s in shapes)} for its inputs, expected equal ones")
        return shapes[0]

    def shape_of(self, index: int, shape: Shape) -> Shape:
        """What an input of that shape contributes to."""
        if self.channels and self.channels[index] != shape[0]:
            raise ValueError(f"channels={self.channels[index]}, but its input {self.inputs[index]} has {shape[0]}")
        self.check_connections(index, shape[0])
        acts = conv_shape((*shape, 1), self.filter_shape(index, shape), stride=self.stride[index], padding=self.padding[index])[:3]
        if self.modules_x[index] and acts[1:] != (self.modules_x[index],) * 2:
            raise ValueError(f"modulesX={self.modules_x[index]}, expected {acts[1]}, as many as cover {self.inputs[index]}")
        return acts

    def check_connections(self, index: int, channels: int) -> None:
        """ValueError where the groups cannot read the channels of an input equally often."""
        groups, name = self.groups[index], self.inputs[index]
        if self.rand_sparse[index] and self.filter_channels:
            each = self.filter_channels[index]
            if channels % each:
                raise ValueError(f"filterChannels={each}, expected a divisor of the {channels} channels of {name}")
            if groups * each % channels:
                raise ValueError(f"groups={groups} of filterChannels={each} are {groups * each} connections, expected a multiple of the "
                                 f"{channels} channels of {name}")
            return
        if channels % groups:
            raise ValueError(f"groups={groups}, expected a divisor of the {channels} channels of {name}")
        if self.filter_channels and self.filter_channels[index] * groups != channels:
            raise ValueError(f"filterChannels={self.filter_channels[index]}, expected channels / groups = {channels // groups}")

    def filter_shape(self, index: int, shape: Shape) -> tuple[int, ...]:
        """(channels of a group, height, width, filters of all groups)"""
        groups, size = self.groups[index], self.filter_size[index]
        channels = self.filter_channels[index] if self.rand_sparse[index] and self.filter_channels else shape[0] // groups
        return (channels, size, size, self.filters[index] * groups)

    def gathered_shape(self, index: int, shape: Shape) -> Shape:
        """The channels that the groups read, one after the other."""
        return (self.filter_shape(index, shape)[0] * self.groups[index], *shape[1:])

    def fixed(self, *inputs: Shape) -> dict[str, Fixed]:
        connections = {}
        for i, shape in enumerate(inputs):
            if self.rand_sparse[i]:
                count = self.gathered_shape(i, shape)[0]
                function = self.function("init_c_func", (self.groups[i], shape[0], count // self.groups[i]), i)
                connections[f"conns{i}"] = Fixed((count,), partial(permutations, shape[0], count // shape[0]), function)
        return connections

    def saved(self, *inputs: Shape) -> dict[str, Shape]:
        return {f"gathered{i}{grad}": self.gathered_shape(i, shape) for i, shape in enumerate(inputs) if self.rand_sparse[i] for grad in ("", "_grad")}

    def window(self, index: int) -> dict[str, int]:
        return {"stride": self.stride[index], "padding": self.padding[index], "groups": self.groups[index]}

    def products(self, ops) -> tuple:
        """The ops forward, backward by the images, and backward by the weights."""
        raise NotImplementedError

    def forward(self, ops, t, training: bool) -> None:
        multiply, _, _ = self.products(ops)
        for i, images in enumerate(t.inputs):
            if self.rand_sparse[i]:
                ops.gather_forward(images, t.fixed[f"conns{i}"], t.saved[f"gathered{i}"])
                images = t.saved[f"gathered{i}"]
            multiply(images, t.weights[f"W{i}"], t.acts, **self.window(i))
        ops.bias_forward(t.weights["b"], t.acts)

    def backward(self, ops, t) -> None:
        _, backward_data, backward_weights = self.products(ops)
        ops.bias_backward(t.acts_grad, t.weights_grad["b"])
        for i, images in enumerate(t.inputs):
            sparse = self.rand_sparse[i]
            backward_weights(t.saved[f"gathered{i}"] if sparse else images, t.acts_grad, t.weights_grad[f"W{i}"], **self.window(i))
            if not t.inputs_grad[i]:
                continue
            images_grad = t.saved[f"gathered{i}_grad"] if sparse else t.inputs_grad[i]
            backward_data(t.acts_grad, t.weights[f"W{i}"], images_grad, **self.window(i))
            if sparse:
                ops.gather_backward(images_grad, t.fixed[f"conns{i}"], t.inputs_grad[i])


def permutations(channels: int, count: int, draws: np.random.Generator) -> np.ndarray:
    """So many random permutations of the channels, one after the other."""
    return np.concatenate([draws.permutation(channels) for _ in range(count)])


@layer("conv")
class Conv(FilterLayer):
    """The sum of a convolution of each input, plus biases."""

    shared_biases: bool = key(True, "one bias for a map instead of one for each of its pixels")
    partial_sum: tuple[int, ...] = key((0,), "a tuning knob of the 2012 program; ignored")
    sum_width: tuple[int, ...] = key((0,), "a tuning knob of cuda-convnet2; ignored")
    wc_norm_min: tuple[float, ...] = key((0.0,), "where wcNormMax is more than 0: limits of the spread of a filter's weights, which is their standard deviation "
                                                 "/ sqrt(their number)", params=True, least=0)
    wc_norm_max: tuple[float, ...] = key((0.0,), "see wcNormMin; 0: no limits", params=True, least=0)

    def check(self) -> None:
        super().check()
        for least, most in zip(self.wc_norm_min, self.wc_norm_max, strict=True):
            if 0 < most < least:
                raise BadKey("wc_norm_max", f"{most:g}, expected wcNormMin={least:g} or more")

    def title(self) -> str:
        return "convolutional layer"

    def weight_shape(self, index: int, shape: Shape) -> tuple[int, ...]:
        return self.filter_shape(index, shape)

    def bias_count(self, *inputs: Shape) -> int:
        filters, height, width = self.shape(*inputs)
        return filters if self.shared_biases else filters * height * width

    def limits(self, index: int, shape: tuple[int, ...], matrices: int = 1) -> Limits:
        return replace(super().limits(index, shape, matrices), least=self.wc_norm_min[index], most=self.wc_norm_max[index])

    def products(self, ops) -> tuple:
        return ops.conv_forward, ops.conv_backward_data, ops.conv_backward_filters
