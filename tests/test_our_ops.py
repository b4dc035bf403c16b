"""The calls that op_throughput.py times, at every precision: here on the smallest layers, over simt."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from convnet.backends import Device

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from layers import cases
from op_throughput import PRODUCTS, STORED
from our_ops import OurCase, rounding

SMALL = [case for case in cases() if case.layer in ("cifar-conv3", "cifar-fc", "cifar-norm2", "cifar-pool3")]
BOUNDS = {"exact": 1e-6, "bf16x3": 1e-5, "tf32": 5e-4, "bf16": 1e-2}  # of the largest error, relative to the sum of the absolute products


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("case", [case for case in SMALL if case.op.startswith(PRODUCTS)], ids=lambda case: case.name)
def test_products_have_the_errors_of_their_precision(case, precision):
    with Device("simt", threads=1) as device:
        found = rounding(device, case, 8, precision)
    assert 0 < found["exact rms"] < found["exact max"] < BOUNDS["exact"]
    assert found["exact rms"] <= found[f"{precision} rms"] < found[f"{precision} max"] < BOUNDS[precision]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_all_that_is_timed_runs(case):
    with Device("simt", threads=1) as device:
        for precision in ("exact", "bf16") if case.op.startswith((*PRODUCTS, *STORED)) else ("exact",):
            ours = OurCase(device, case, 8, precision)
            ours()
            assert ours.nbytes > 0 and (ours.device.download(ours.written[0]) != 0).any()
