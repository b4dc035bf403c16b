"""How many blocks share the sums of a product, which the size of the workspace shows: it decides the order of the sums,
so it may depend on shapes alone, and a change of it is a change of the bits."""
from __future__ import annotations

import numpy as np
import pytest

from conftest import AVAILABLE
from convnet.backends import Device, Tensor


def fours(count):
    return -(-count // 4) * 4


def tiles(count, size):
    return -(-count // size)


def way(m, n, groups, units, unit):
    """The tile and the parts: 512 blocks are wanted; each part has 256 products of a sum or more, and no part of a unit."""
    mid, large = tiles(m, 48) * 48, tiles(m, 64) * 64
    tile, tile_m, tile_n = ("small", 32, 32) if n <= 64 else ("wide", 32, 128) if m <= 32 else ("mid", 48, 128) if 5 * mid < 4 * large else ("large", 64, 128)
    return tile, max(1, min(512 // max(1, tiles(m, tile_m) * tiles(n, tile_n) * groups), units * unit // 256, units))


def problems(count, local):
    """Images, filters, acts, stride, groups; of sizes at which a number more or less tells."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        size = lambda *choices: int(rng.choice(choices))  # noqa: E731
        stride, groups = size(1, 2, 3), size(1, 1, 2)
        channels, filters, images = size(1, 3, 16, 31, 33, 64, 97) * groups, size(1, 3, 32, 35, 64, 129) * groups, size(1, 3, 4, 5, 17, 64)
        down, across, height, width = size(1, 2, 3, 5), size(1, 2, 4, 5), size(5, 6, 9), size(5, 7, 8)
        acts = 1 + tiles(height - down, stride), 1 + tiles(width - across, stride)
        weights = (channels // groups, down, across, filters)
        yield (channels, height, width, images), (acts[0] * acts[1], *weights) if local else weights, (filters, *acts, images), stride, groups


def products(images, filters, acts, stride, groups, local):
    """(m, n, groups, units, unit) of forward, of backward_data and of the weights' gradient."""
    channels, down, across, outputs = filters[-4:]
    taps, pixels, n = tiles(down, stride) * tiles(across, stride), images[1] * images[2], fours(images[3])
    outputs //= groups
    if local:
        return ((outputs, n, groups * acts[1] * acts[2], channels, down * across), (channels, n, groups * pixels, tiles(outputs, 4), 4 * taps),
                (outputs, channels * down * across, groups * acts[1] * acts[2], 1, n))
    area, phases = tiles(images[1], stride) * tiles(images[2], stride), min(stride, images[1]) * min(stride, images[2])
    return ((outputs, acts[1] * acts[2] * n, groups, channels, down * across), (channels, area * n, groups * phases, tiles(outputs, 4), 4 * taps),
            (outputs, channels * down * across, groups, acts[1] * acts[2], n))


KERNELS = pytest.mark.parametrize("backend", [name for name in AVAILABLE if not name.startswith("host")])


@KERNELS
@pytest.mark.parametrize("op", ["conv", "local"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("number", [50, 1000])  # few find most mistakes, and soon
def test_workspaces_hold_the_parts_that_the_shapes_ask_for(backend, op, dtype, number):
    bytes_of = {"float32": 4, "float64": 8}[dtype]
    several = 0
    with Device(backend, threads=1) as device:
        for images, filters, acts, stride, groups in problems(number, op == "local"):
            i, f, a = (Tensor(0, shape, dtype, shape[-1]) for shape in (images, filters, acts))
            calls = {"forward": (i, f, a), "backward_data": (a, f, i), "backward_weights" if op == "local" else "backward_filters": (i, a, f)}
            for (name, tensors), product in zip(calls.items(), products(images, filters, acts, stride, groups, op == "local"), strict=True):
                (tile, count), output = way(*product), tensors[-1].shape
                expected = count * int(np.prod(output[:-1])) * fours(output[-1]) * bytes_of if count > 1 else 0
                found = getattr(device.ops, f"{op}_{name}_workspace")(device, *tensors, stride=stride, padding=0, groups=groups)
                assert found == expected, (name, images, filters, acts, stride, groups)
                assert device.ops.last_tile() == ((f"{op}_{name}", "exact", *product), (tile, count))
                several += count > 1
    assert several > number // 5


@KERNELS
def test_workspaces_of_other_ops(backend):
    def tensor(*shape):
        return Tensor(0, shape, "float32", shape[-1])

    maps, inputs, weights, acts = tensor(3, 5, 4, 7), tensor(1000, 5), tensor(1000, 9), tensor(9, 5)
    norm = {"size": 3, "scale": 0.1, "power": 0.75}
    with Device(backend, threads=1) as device:
        ops = device.ops
        assert ops.spatial_lrn_backward_workspace(device, maps, maps, maps, maps, **norm) == 3 * 5 * 4 * 7 * 4
        assert ops.lcn_backward_workspace(device, maps, maps, maps, maps, maps, **norm) == 3 * 5 * 4 * 7 * 4
        assert ops.bias_backward_workspace(device, maps, tensor(3)) == 0
        labels, costs, state = tensor(1, 1, 1, 7), Tensor(0, (3,), "float64", 3), Tensor(0, (2,), "float64", 2)
        probs = tensor(10, 1, 1, 7)
        assert ops.logreg_forward_workspace(device, labels, probs, costs, topk=1) == 3 * 7 * 8
        assert ops.logreg_softmax_workspace(device, labels, probs, state, probs, costs, probs, topk=1, coeff=1.0) == 3 * 7 * 8
        assert ops.fc_forward_workspace(device, inputs, weights, acts) == way(9, 8, 1, 1000, 1)[1] * 9 * 8 * 4 == 3 * 288
        assert ops.fc_backward_data_workspace(device, acts, weights, inputs) == 0
        assert ops.fc_backward_weights_workspace(device, tensor(9, 1000), tensor(7, 1000), tensor(9, 7)) == 0
