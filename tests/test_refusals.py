"""What ops refuse: each message says what was found and what was expected."""
from __future__ import annotations

import re

import pytest

from convnet.backends import Device, choose_backend

IMAGES, FILTERS, ACTS = (4, 5, 5, 3), (4, 3, 3, 6), (6, 3, 3, 3)
CONV = {"stride": 1, "padding": 0, "groups": 1}
POOL = {"size": 2, "stride": 2, "start": 0}
SLICE = {"top": 0, "left": 0, "down": 1, "across": 1}


@pytest.mark.parametrize(("op", "shapes", "scalars", "message"), [
    ("max_pool_forward", [(1, 4, 4, 2), (1, 2, 2, 2)], {**POOL, "size": 0}, "size 0 and stride 2, expected at least 1"),
    ("max_pool_forward", [(1, 4, 4, 2), (1, 2, 2, 2)], {**POOL, "stride": 0}, "size 2 and stride 0, expected at least 1"),
    ("max_pool_forward", [(1, 4, 4, 2), (1, 9, 2, 2)], POOL, "9 windows of 2 pixels from 0 in steps of 2 do not all meet an image of 4 pixels"),
    ("max_pool_forward", [(1, 4, 4, 2), (1, 2, 2, 2)], {**POOL, "start": -2}, "2 windows of 2 pixels from -2 in steps of 2 do not all meet an image of 4 pixels"),
    ("cross_map_max_pool_forward", [(4, 2, 2, 2), (5, 2, 2, 2)], POOL, "5 windows of 2 channels from 0 in steps of 2 do not all meet an image of 4 channels"),
    ("slice_forward", [(1, 4, 4, 2), (1, 2, 2, 2)], {**SLICE, "down": 0}, "2 pixels down from 0 in steps of 0, expected steps other than 0 and pixels from 0 to 3"),
    ("slice_forward", [(1, 4, 4, 2), (1, 2, 2, 2)], {**SLICE, "left": 3}, "2 pixels across from 3 in steps of 1, expected steps other than 0 and pixels from 0 to 3"),
    ("slice_forward", [(1, 4, 4, 2), (1, 2, 2, 2)], {**SLICE, "across": -1}, "2 pixels across from 0 in steps of -1, expected steps other than 0 and pixels from 0 to 3"),
    ("bias_forward", [(5,), (3, 2, 2, 2)], {}, "biases have shape (5,) and acts (3, 2, 2, 2), expected a bias per channel or per row"),
    ("blur", [(1, 3, 3, 2), (1, 3, 3, 2)], {"size": 2, "stdev": 1.0}, "size 2, expected an odd number from 1 to 31"),
    ("blur", [(1, 3, 3, 2), (1, 3, 3, 2)], {"size": 33, "stdev": 1.0}, "size 33, expected an odd number from 1 to 31"),
    ("conv_forward_workspace", [(4, 5, 5, 0), FILTERS, (6, 3, 3, 0)], CONV, "nothing to do for images of shape (4, 5, 5, 0)"),
    ("conv_forward_workspace", [IMAGES, (4, 3, 3, 0), ACTS], CONV, "nothing to do for filters of shape (4, 3, 3, 0)"),
    ("conv_forward_workspace", [IMAGES, FILTERS, ACTS], {**CONV, "groups": 4}, "4 channels and 6 filters cannot be divided into 4 groups"),
    ("conv_forward_workspace", [IMAGES, FILTERS, ACTS], {**CONV, "groups": 0}, "4 channels and 6 filters cannot be divided into 0 groups"),
    ("conv_forward_workspace", [IMAGES, FILTERS, ACTS], {**CONV, "groups": 2}, "filters of 4 channels, expected 2: those of the images, divided by the groups"),
    ("local_forward_workspace", [IMAGES, (8, *FILTERS), ACTS], CONV, "weights of 8 pixels, expected 9: those of the acts"),
])
def test_shapes_and_numbers_that_do_not_fit(device, op, shapes, scalars, message):
    with pytest.raises(ValueError, match=f"^{op.removesuffix('_workspace')}: {re.escape(message)}$"):
        getattr(device.ops, op)(device, *(device.tensor(shape) for shape in shapes), **scalars)
        device.synchronize()


@pytest.mark.parametrize(("op", "shapes", "scalars", "message"), [
    ("scaled_copy", [(3, 2), (3, 2)], {"factor": 1.0}, "dtype uint8, expected float32 or float64"),
    ("conv_forward_workspace", [IMAGES, FILTERS, ACTS], CONV, "images is uint8, expected float32, float64 or bfloat16"),
])
def test_types_that_there_are_no_kernels_for(device, op, shapes, scalars, message):
    with pytest.raises(ValueError, match=f"^{op.removesuffix('_workspace')}: {re.escape(message)}$"):
        getattr(device.ops, op)(device, *(device.tensor(shape, "uint8") for shape in shapes), **scalars)
        device.synchronize()


LRN = {"size": 3, "scale": 0.1, "power": 0.75, "bias": 1.0, "blocked": False}


def test_sums_beside_activities_of_bfloat16_are_of_float32(device):
    with pytest.raises(ValueError, match=r"^lrn_forward: denoms is bfloat16, expected float32$"):
        device.ops.lrn_forward(device, *(device.tensor(IMAGES, "bfloat16") for _ in range(3)), **LRN)
        device.synchronize()


def test_host_has_no_activities_of_bfloat16():
    with Device(choose_backend("host")) as host, pytest.raises(ValueError, match=r"^lrn_forward: dtype bfloat16, expected float32 or float64$"):
        host.ops.lrn_forward(host, *(host.tensor(IMAGES, dtype) for dtype in ("bfloat16", "float32", "bfloat16")), **LRN)
        host.synchronize()
