"""What predict.py makes of machine code and a plan, without a GPU: the arithmetic, and that every step of a net finds its kernel."""
from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from convnet.recorder import Step, Value
from convnet.work import bytes_moved, flops

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import predict  # noqa: E402
from predict import Product, clocks_of, kernel_of  # noqa: E402

from test_sass import MMA, MMA_LOOP, sound  # noqa: E402

GPU = predict.Gpu("90a", 10, 1e9, {"Tf32": 6.0, "Bf16": 6.0}, 1e12, {"exact": 5e12, "tf32": 40e12, "bf16x3": 30e12, "bf16": 80e12})
CIFAR = (BENCHMARKS.parent / "convnet" / "models" / "cifar-quick", "dummy:3x32x32", 128)
EVERY = [f"{name}_kernel<float, {tile}, true>" for name in (*predict.KERNELS.values(), "fc_backward_update")
         for tile in ("Tile<64, 128, 8, 8>", "Tile<48, 128, 12, 8>", "Tile<32, 128, 8, 8>", "Tile<32, 32, 4, 4>", "MmaTile<Tf32, 128, 128, 64, 64, 4, 2>", "MmaTile<Tf32, 64, 256, 64, 64, 3, 2>")]
EVERY += [name.replace("<float, Tile", "<bfloat16, Tile").replace("<float, MmaTile<Tf32", "<bfloat16, MmaTile<Bf16") for name in EVERY]


def test_a_product_has_blocks_for_each_tile_group_and_part_and_slices_of_its_share_of_k():
    product = Product(130, 257, 2, 100, "large", 3)
    assert (product.blocks, product.slices) == (3 * 3 * 2 * 3, 3)


def test_the_multiprocessor_with_the_most_blocks_issues_the_loop_once_for_each_warp_and_slice():
    kernel = sound(arch="90a")
    assert clocks_of(kernel, Product(64, 128, 11, 160, "large", 1), GPU) == (2 * 10 * len(kernel.loop), "issue")  # 11 blocks on 10; 4 warps, 4 quarters
    twice = sound(arch="90a", loop={"FFMA": 2048, "IADD3": 90})
    assert clocks_of(twice, Product(64, 128, 10, 160, "large", 1), GPU)[0] == 10 * len(twice.loop) / 2  # two slices in a turn of the loop


@pytest.mark.parametrize(("others", "limit"), [(100, "tensor cores"), (400, "issue")])
def test_tensor_cores_decide_where_they_take_longer_than_what_else_is_issued(others, limit):
    kernel = sound(**MMA, arch="90a", loop={**MMA_LOOP, "IMAD": others})
    assert clocks_of(kernel, Product(128, 128, 1, 32, "mma", 1), GPU) == (2 * max(64 * 6.0, len(kernel.loop)), limit)


@pytest.mark.parametrize("precision", ["exact", "tf32", "bf16"])
def test_every_product_of_a_training_step_finds_its_kernel_and_no_step_is_faster_than_its_bytes(precision):
    kernels = [sound(name=name, arch="90a", loop=MMA_LOOP if "Tf32" in name else {"HMMA": 32, "IMAD": 90} if "Mma" in name else {"FFMA": 1024, "IADD3": 90}) for name in EVERY]
    rows = predict.predict(GPU, kernels, *CIFAR, precision)
    assert {row.step.layer for row in rows if flops(row.step)} >= {"conv1", "conv2", "conv3", "fc4"}
    for row in rows:
        assert row.seconds >= row.floor >= bytes_moved(row.step) / GPU.bandwidth and row.seconds >= bytes_moved(row.step) / GPU.bandwidth / predict.REACHED
        assert row.limit == "bytes" or flops(row.step)
    lines = predict.table(rows, precision, by_step=False)
    assert lines[0][0] == precision and lines[-1][:2] == ["all", str(len(rows))] and {line[0] for line in lines[1:-1]} == {row.step.op for row in rows}


def test_a_kernel_that_is_not_there_is_named():
    step = Step("conv_forward", 0, "conv9", "forward", (Value("x", (3, 8, 8, 128), "float32", 0),), (), ())
    with pytest.raises(predict.ToolError, match=re.escape("no kernel of sm_90a for conv_forward of conv9: ^conv_forward_kernel<float, Tile<48")):
        kernel_of([sound(arch="90a")], step, Product(48, 128, 1, 16, "mid", 1), "exact")


def test_rows_that_are_no_whole_pieces_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["predict.py", "--images", "100"])
    with pytest.raises(SystemExit):
        predict.main()
    assert "--images 100: expected a multiple of 8" in capsys.readouterr().err
