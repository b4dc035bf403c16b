"""Every case of every op, on every backend: see tests/ops/__init__.py."""
from __future__ import annotations

import importlib
import pkgutil
import zlib

import numpy as np
import pytest

import ops
from guarded import call

CASES = [case for module in sorted(m.name for m in pkgutil.iter_modules(ops.__path__))
         for case in importlib.import_module(f"ops.{module}").CASES]


def cases(wanted=lambda case: True):
    return pytest.mark.parametrize("case", [pytest.param(c, id=c.id) for c in CASES if wanted(c)])


def check(case, dtype, results, expected=None):
    expected = expected or case.expected()
    for name, result, right, bound in zip(case.outputs, results, expected, case.bound(ops.UNIT[dtype]), strict=True):
        assert result.shape == np.shape(right)
        both_nan = np.isnan(result) & np.isnan(right)
        wrong = ~((result == right) | both_nan) if case.exact else ~(np.abs(result - right) <= bound)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise AssertionError(f"{case.id}: {name}{at} is {result[at]!r}, expected {right[at]!r}, bound {np.broadcast_to(bound, result.shape)[at]:.3g}; "
                                 f"{wrong.sum()} of {wrong.size} wrong")


@cases()
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_value_is_within_the_bound_of_the_arithmetic(device, case, dtype):
    check(case, dtype, call(device, case, dtype))


@cases()
def test_rows_without_padding_give_the_same_bits(device, case):
    for padded, tight in zip(call(device, case, "float32"), call(device, case, "float32", tight=True), strict=True):
        assert padded.tobytes() == tight.tobytes()


@cases(lambda case: case.adds)
def test_adding_equals_the_old_value_plus_the_overwriting_result(device, case):
    rng = np.random.default_rng(zlib.crc32(case.id.encode()))
    before = {name: rng.standard_normal(shape).astype(case.keep.get(name, "float32")) for name, shape in case.outputs.items()}
    overwritten = call(device, case, "float32")
    added = call(device, case, "float32", add=before)
    for old, result, sum_ in zip(before.values(), overwritten, added, strict=True):
        assert (old + result).tobytes() == sum_.tobytes()


@cases(lambda case: case.cost)
def test_gradient_matches_central_differences(device, case):
    gradient = call(device, case, "float64")[0]
    expected = ops.numeric_gradient(case.cost, case.at)
    assert np.abs(gradient - expected).max() <= 1e-8 * np.abs(expected).max()
