"""Which tile the products of conv, fc and local take on a GPU, and how many blocks, by the rule and by a table: what simt is
asked to launch."""
from __future__ import annotations

import re

import numpy as np
import pytest

from conftest import AVAILABLE
from convnet.backends import Device, load_module
from convnet.passes import PRECISE
from convnet.tiles import TILES as TILES_OF
from guarded import call
from ops import ROUNDED, at_precision, conv, fc, local
from small_nets import around, arrays_for, small_net
from test_bfloat16 import check as check_stored
from test_bfloat16 import of_stored
from test_ops import check as check_value

TILES = {"small": ("Tile<32, 32, 4, 4>", 32, 32, 64, 512), "wide": ("Tile<32, 128, 8, 8>", 32, 128, 64, 512), "mid": ("Tile<48, 128, 12, 8>", 48, 128, 64, 512), "large": ("Tile<64, 128, 8, 8>", 64, 128, 128, 512),
         "tf32": ("MmaTile<Tf32, 128, 128, 64, 64, 4, 2>", 128, 128, 128, 264), "bf16": ("MmaTile<Bf16, 128, 128, 64, 64, 4, 2>", 128, 128, 128, 264),
         "bf16x3": ("MmaTile<Bf16x3, 128, 128, 64, 32, 4, 1>", 128, 128, 256, 264)}  # m, n, threads, blocks wanted
LEAST_WORK = 256  # k of a part
KERNELS = [name for name in AVAILABLE if not name.startswith("host")]


def ceil_div(a, b):
    return -(-a // b)


@pytest.fixture(autouse=True)
def no_table_is_left():
    yield
    for backend in KERNELS:
        load_module(backend).set_tiles({})


@pytest.fixture(params=["simt"])
def launches(request, tmp_path, monkeypatch):
    """launches(op, shapes of inputs, shape of the output, ...) -> name, grid and threads of the products' kernels."""
    path = tmp_path / "launches"
    monkeypatch.setenv("SIMT_LAUNCHES", str(path))

    def run(op, reads, writes, dtype="float32", **scalars):
        path.write_text("")
        with Device(request.param) as device:
            tensors = [device.tensor(shape, dtype) for shape in (*reads, writes)]
            for tensor in tensors:
                device.upload(tensor, np.zeros(tensor.shape, np.float32))
            workspace = device.tensor((max(1, getattr(device.ops, f"{op}_workspace")(device, *tensors, **scalars)),), "uint8")
            getattr(device.ops, op)(device, *map(device.ops.pack, (*tensors, workspace)), **scalars)
            device.synchronize()
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        return [(name, *(tuple(map(int, re.findall(r"\d+", words))) for words in (grid, block)), int(shared)) for name, grid, block, shared in lines]
    return run


def check(found, tile, m, n, groups, units, unit, inner=1):
    """Of a product (m, n) of each of the groups, which are `inner` times as many as the grid has, over units k of so many each."""
    name, tile_m, tile_n, threads, wanted = TILES[tile]
    tiles = ceil_div(m, tile_m) * ceil_div(n, tile_n)
    parts = max(1, min(wanted // (tiles * groups * inner), units * unit // LEAST_WORK, units))
    kernel, grid, block, shared = found[0]
    assert f"<float, {name}, true" in kernel
    assert grid == (tiles * inner, groups, parts) and block == (threads, 1, 1)
    assert shared == (4 * 16 * 2 * 132 * 4 if name.startswith("Mma") else 0)
    assert [launch[0] for launch in found[1:]] == ["sum_parts_kernel<float>"] * (parts > 1)
    return parts


@pytest.mark.parametrize(("filters", "images", "tile"), [
    (64, 64, "small"), (64, 68, "large"), (32, 68, "wide"), (33, 68, "mid"), (48, 68, "mid"), (49, 68, "large"), (65, 68, "mid"), (96, 68, "mid"), (97, 68, "large"),
    (128, 68, "large"), (129, 68, "mid"), (144, 68, "mid"), (145, 68, "large"), (160, 68, "large"), (240, 68, "large"), (1, 65, "wide"), (5, 61, "small"),
])
def test_exact_products_take_the_tile_that_wastes_least(launches, filters, images, tile):
    assert check(launches("conv_forward", [(8, 1, 1, images), (8, 1, 1, filters)], (filters, 1, 1, images), stride=1, padding=0, groups=1),
                 tile, filters, ceil_div(images, 4) * 4, 1, 8, 1) == 1


@pytest.mark.parametrize("precision", ["tf32", "bf16", "bf16x3"])
@pytest.mark.parametrize(("filters", "images", "taken"), [(32, 68, False), (33, 68, True), (33, 64, False), (260, 132, True)])
def test_rounded_products_take_tensor_cores_unless_the_tile_is_mostly_empty(launches, precision, filters, images, taken):
    tile = precision if taken else "small" if images == 64 else "wide"
    check(launches("conv_forward", [(8, 1, 1, images), (8, 1, 1, filters)], (filters, 1, 1, images), stride=1, padding=0, groups=1, precision=precision),
          tile, filters, images, 1, 8, 1)


@pytest.mark.parametrize(("precision", "tile"), [("exact", "large"), ("tf32", "tf32")])
@pytest.mark.parametrize(("channels", "filter_size", "parts"), [(256, 1, 1), (511, 1, 1), (512, 1, 2), (57, 3, 2), (56, 3, 1), (600, 2, 9)])
def test_the_channels_are_dealt_to_parts_with_work_enough(launches, precision, tile, channels, filter_size, parts):
    shapes = [(channels, filter_size, filter_size, 68), (channels, filter_size, filter_size, 64)], (64, 1, 1, 68)
    assert check(launches("conv_forward", *shapes, stride=1, padding=0, groups=1, precision=precision), tile, 64, 68, 1, channels, filter_size**2) == parts


def test_there_are_no_more_parts_than_fill_a_gpu(launches):
    shapes = [(1100, 1, 1, 68), (1100, 1, 1, 64 * 130)], (64 * 130, 1, 1, 68)
    assert check(launches("conv_forward", *shapes, stride=1, padding=0, groups=1), "large", 64 * 130, 68, 1, 1100, 1) == 3
    assert check(launches("conv_forward", *shapes, stride=1, padding=0, groups=1, precision="tf32"), "tf32", 64 * 130, 68, 1, 1100, 1) == 4
    shapes = [(1100, 1, 1, 8), (1100, 1, 1, 32 * 130)], (32 * 130, 1, 1, 8)
    assert check(launches("conv_forward", *shapes, stride=1, padding=0, groups=1), "small", 32 * 130, 8, 1, 1100, 1) == 3


def test_forward_counts_filters_of_a_group_and_pixels(launches):
    shapes = [(80, 5, 7, 9), (40, 3, 3, 72)], (72, 3, 5, 9)
    assert check(launches("conv_forward", *shapes, stride=1, padding=0, groups=2), "mid", 36, 15 * 12, 2, 40, 9) == 1


def test_backward_data_counts_channels_and_the_pixels_of_the_largest_phase(launches):
    shapes = [(72, 3, 4, 9), (40, 3, 3, 72)], (40, 5, 7, 9)
    assert check(launches("conv_backward_data", *shapes, stride=2, padding=1, groups=1), "mid", 40, 3 * 4 * 12, 1, 18, 16, inner=4) == 1
    shapes = [(160, 3, 4, 9), (80, 3, 3, 160)], (160, 3, 4, 9)
    assert check(launches("conv_backward_data", *shapes, stride=1, padding=1, groups=2), "mid", 80, 3 * 4 * 12, 2, 20, 36) == 2


def test_backward_filters_counts_filters_of_a_group_and_taps(launches):
    shapes = [(16, 5, 7, 9), (72, 5, 7, 9)], (8, 3, 3, 72)
    assert check(launches("conv_backward_filters", *shapes, stride=1, padding=1, groups=2), "mid", 36, 8 * 9, 2, 35, 12) == 1
    shapes = [(8, 5, 7, 33), (64, 5, 7, 33)], (8, 3, 3, 64)
    assert check(launches("conv_backward_filters", *shapes, stride=1, padding=1, groups=1), "large", 64, 8 * 9, 1, 35, 36) == 4


def test_local_has_a_product_for_each_pixel(launches):
    shapes = [(80, 2, 3, 66), (6, 40, 1, 1, 72)], (72, 2, 3, 66)
    window = {"stride": 1, "padding": 0, "groups": 2}
    assert check(launches("local_forward", *shapes, **window), "mid", 36, 68, 2, 40, 1, inner=6) == 1
    assert check(launches("local_backward_data", [(72, 2, 3, 66), (6, 40, 1, 1, 72)], (80, 2, 3, 66), **window), "mid", 40, 68, 2, 9, 4, inner=6) == 1
    assert check(launches("local_backward_weights", [(80, 2, 3, 66), (72, 2, 3, 66)], (6, 40, 1, 1, 72), **window), "small", 36, 40, 2, 1, 68, inner=6) == 1
    shapes = [(520, 1, 2, 8), (2, 520, 1, 1, 1050)], (1050, 1, 2, 8)
    assert check(launches("local_forward", *shapes, stride=1, padding=0, groups=1), "small", 1050, 8, 1, 520, 1, inner=2) == 2
    assert check(launches("local_backward_data", [(1050, 1, 2, 8), (2, 520, 1, 1, 1050)], (520, 1, 2, 8), stride=1, padding=0, groups=1), "small", 520, 8, 1, 263, 4, inner=2) == 4


# ---- by a table --------------------------------------------------------------------------------------------------------

KEY = ("conv_forward", "exact", 36, 180, 2, 40, 9)  # of the shapes below
SHAPES, WINDOW = ([(80, 5, 7, 9), (40, 3, 3, 72)], (72, 3, 5, 9)), {"stride": 1, "padding": 0, "groups": 2}


@pytest.mark.parametrize("tile", TILES_OF["exact"])
@pytest.mark.parametrize("parts", [1, 2, 3, 40])
def test_a_table_decides_what_is_launched(launches, tile, parts):
    load_module("simt").set_tiles({KEY: (tile, parts)})
    kernel, grid, block, _ = (found := launches("conv_forward", *SHAPES, **WINDOW))[0]
    name, m, n, threads, _ = TILES[tile]
    assert f"<float, {name}, true" in kernel and block == (threads, 1, 1)
    assert grid == (ceil_div(36, m) * ceil_div(180, n), 2, parts)
    assert [launch[0] for launch in found[1:]] == ["sum_parts_kernel<float>"] * (parts > 1)


@pytest.mark.parametrize("precision", ROUNDED)
def test_a_rounded_product_is_on_tensor_cores_or_not_as_the_table_has_it(launches, precision):
    for tile in (precision, "small"):
        load_module("simt").set_tiles({(KEY[0], precision, *KEY[2:]): ("mma" if tile == precision else tile, 5)})
        (kernel, grid, *_), _ = launches("conv_forward", *SHAPES, **WINDOW, precision=precision)
        assert f"<float, {TILES[tile][0]}, true" in kernel and grid[2] == 5


def test_a_line_is_for_its_own_product_op_and_precision(launches):
    by_rule = launches("conv_forward", *SHAPES, **WINDOW)
    for i, other in enumerate(("local_forward", "tf32", 37, 184, 1, 41, 8)):
        load_module("simt").set_tiles({(*KEY[:i], other, *KEY[i + 1 :]): ("small", 7)})
        assert launches("conv_forward", *SHAPES, **WINDOW) == by_rule


@pytest.mark.parametrize(("tile", "parts"), [("large", 0), ("large", -1), ("large", 41), ("mma", 1), ("huge", 1)])
def test_a_way_that_cannot_be_is_refused_and_the_table_before_stays(launches, tile, parts):
    load_module("simt").set_tiles({KEY: ("small", 7)})
    with pytest.raises(ValueError):
        load_module("simt").set_tiles({KEY: (tile, parts)})
    assert launches("conv_forward", *SHAPES, **WINDOW)[0][1][2] == 7
    with pytest.raises(ValueError):
        load_module("simt").set_tiles({(*KEY[:5], 2**40, 1): ("small", 65536)})  # more than a grid can have


FORCED = [*conv.cases("odd", (9, 5, 6, 10), (70, 3, 2), stride=2, padding=1, exact=True), *conv.cases("groups", (14, 3, 4, 13), (74, 2, 2), groups=2),
          *fc.cases("odd", (41, 133), (67, 133)), *fc.cases("integers", (70, 5), (35, 5), exact=True),
          *local.cases("odd", (9, 3, 4, 66), (70, 2, 2), padding=1, exact=True), *local.cases("groups", (6, 3, 3, 5), (10, 3, 3), groups=2)]


def key_of(device, case, piece=4):
    """Of the product that the case is; it has been called."""
    if case.op != "fc_backward_update":
        return device.ops.last_tile()[0]
    (inputs, images), (outputs, _) = (array.shape for array in list(case.inputs.values())[:2])
    return ("conv_backward_filters", case.scalars.get("precision", "exact"), outputs, inputs, 1, 1, ceil_div(images, piece) * piece)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("case", FORCED, ids=lambda case: case.id)
def test_every_tile_and_number_of_parts_gives_the_right_values(backend, case):
    with Device(backend, threads=2) as device:
        for precision in ("exact", *ROUNDED) if case.op in PRECISE else ("exact",):
            asked = case if precision == "exact" else at_precision(case, precision)
            call(device, asked, "float32")
            key = key_of(device, asked)
            assert key[1] == precision
            for tile in TILES_OF["exact"] if precision == "exact" else ("small", "mma", "mma_wide"):
                for parts in {parts for parts in (1, 2, 5, key[5]) if parts <= key[5]} if precision in ("exact", "bf16x3") else {min(3, key[5])}:
                    device.ops.set_tiles({key: (tile, parts)})
                    check_value(asked, "float32", call(device, asked, "float32"))
                    assert case.op == "fc_backward_update" or device.ops.last_tile() == (key, (tile, parts))


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("case", [case for case in FORCED if case.op in PRECISE], ids=lambda case: case.id)
def test_so_does_every_tile_of_activities_in_bfloat16(backend, case):
    with Device(backend, threads=2) as device:
        asked, _ = of_stored(at_precision(case, "bf16"))
        call(device, asked, "bfloat16")
        key = key_of(device, asked, piece=8)
        for tile in TILES_OF["bf16"]:
            for parts in {1, min(3, key[5])}:
                device.ops.set_tiles({key: (tile, parts)})
                check_stored(asked, call(device, asked, "bfloat16"))
                assert case.op == "fc_backward_update" or device.ops.last_tile() == (key, (tile, parts))


@pytest.mark.parametrize(("filters", "images", "tile"), [
    (192, 136, "64, 256"), (48, 136, "64, 256"), (64, 136, "64, 256"), (128, 136, "128, 128"), (96, 136, "128, 128"), (320, 136, "128, 128"), (448, 136, "128, 128"),
    (192, 128, "128, 128"), (33, 129, "64, 256"),
])
@pytest.mark.parametrize(("precision", "stored"), [("bf16", "bfloat16"), ("tf32", "float32"), ("bf16x3", "float32"), ("bf16", "float32")])
def test_on_tensor_cores_they_take_the_tile_that_wastes_least(launches, precision, stored, filters, images, tile):
    shapes = [(8, 1, 1, images), (8, 1, 1, filters)], (filters, 1, 1, images)
    if (precision, stored) == ("bf16", "float32"):
        tile = "128, 128"  # the other would spill
    kernel, grid, _, shared = launches("conv_forward", *shapes, stored, stride=1, padding=0, groups=1, precision=precision)[0]
    m, n = map(int, tile.split(", "))
    size, across = (2 if stored == "bfloat16" else 4), (32 if precision == "bf16x3" else 64)
    stages = 3 if m == 64 and size == 4 else 4
    assert f"<{stored.removesuffix('32')}, MmaTile<{precision.capitalize()}, {tile}, 64, {across}, {stages}, {1 if precision == 'bf16x3' else 2}>, true" in kernel
    assert grid == (ceil_div(filters, m) * ceil_div(ceil_div(images, 8) * 8, n), 1, 1) and shared == stages * 16 * (m + n + 32 // size) * size


NET = around("type=conv\nfilters=8\nfilterSize=3\npadding=1\ninitW=0.3")


def one_step(net):
    """The weights after a step, and the bytes of the plan's workspaces."""
    plan = net.plan(5, "train")
    plan.run({**dict(enumerate(arrays_for(net))), "state": net.state(0, [0.1] * len(net.rate_slots))})
    plan.synchronize()
    return {name: net.get(name) for name in net.weight_names()}, plan._workspaces[net.devices[0]]


def test_a_plan_has_the_workspace_that_the_table_asks_for():
    key = ("conv_forward", "exact", 8, 36 * 8, 1, 3, 9)
    with small_net(*NET, backend="simt", dtype="float32") as net:
        by_rule, before = one_step(net)
    load_module("simt").set_tiles({key: ("wide", 3)})
    with small_net(*NET, backend="simt", dtype="float32") as net:
        by_table, after = one_step(net)
        assert before < after == 3 * 8 * 36 * 8 * 4
        for name, weights in by_rule.items():
            np.testing.assert_allclose(by_table[name], weights, rtol=1e-4, atol=1e-6)


def test_a_table_that_changes_under_a_plan_is_told_by_the_op():
    with small_net(*NET, backend="simt", dtype="float32") as net:
        one_step(net)
        load_module("simt").set_tiles({("conv_forward", "exact", 8, 36 * 8, 1, 3, 9): ("wide", 3)})
        with pytest.raises(ValueError, match=r"conv_bias_forward: expected \(workspace\).shape.size"):
            one_step(net)
