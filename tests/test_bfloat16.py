"""Activities stored in bfloat16: every case of the ops that take them, on the backends that have them; and plans that store them so."""
from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest

import ops
from convnet.backends import Device, choose_backend, decoded, encoded
from convnet.passes import ACTIVITIES, NARROW
from conftest import AVAILABLE
from guarded import call
from test_ops import CASES

BACKENDS = [name for name in AVAILABLE if not name.startswith("host")]


def rounded(array):
    return decoded(encoded(array, "bfloat16"), "bfloat16").astype(np.float64)


def is_narrow(case):
    return case.op in NARROW and case.scalars.get("precision", "exact") in ("exact", "bf16")


@pytest.fixture(params=BACKENDS)
def device(request):
    with Device(choose_backend(request.param), threads=2) as device:
        yield device


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES if is_narrow(case)])
def test_what_is_stored_in_bfloat16_is_computed_in_float32(device, case):
    case = replace(case, inputs={name: rounded(array) if name in ACTIVITIES else array for name, array in case.inputs.items()})
    rng = np.random.default_rng(zlib.crc32(case.id.encode()))
    before = {name: rounded(rng.standard_normal(shape)) for name, shape in case.outputs.items()}
    for add in (None, before) if case.adds else (None,):
        for name, result, right, bound in zip(case.outputs, call(device, case, "bfloat16", add=add), case.expected(), case.bound(ops.UNIT["float32"]), strict=True):
            right = right + add[name] if add else right
            bound = np.zeros_like(right) if case.exact and not add else bound + ops.UNIT["float32"] * np.abs(right)
            low, high = right - bound, right + bound
            if name in ACTIVITIES and name not in case.keep:
                low, high = rounded(low), rounded(high)
            both_nan = np.isnan(result) & np.isnan(right)
            wrong = ~((low <= result) & (result <= high) | both_nan)
            assert not wrong.any(), f"{case.id}: {name} is {result[wrong][0]!r}, expected {low[wrong][0]!r} to {high[wrong][0]!r}; {wrong.sum()} of {wrong.size} wrong"
