"""Activities stored in bfloat16: every case of the ops that take them, on the backends that have them; and plans that store them so."""
from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest

import ops
from conftest import AVAILABLE
from convnet.backends import Device, choose_backend, decoded, encoded
from convnet.passes import ACTIVITIES, OVER_RELU
from guarded import call, is_narrow
from ops.lrn_pool import split
from test_fused import Calls
from test_ops import CASES

BACKENDS = [name for name in AVAILABLE if not name.startswith("host")]


def rounded(array):
    return decoded(encoded(array, "bfloat16"), "bfloat16").astype(np.float64)


def cases(wanted):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES if wanted(case)])


def of_stored(case):
    """The case with inputs that can be stored in bfloat16, and something to add its outputs to."""
    rng = np.random.default_rng(zlib.crc32(case.id.encode()))
    before = {name: rounded(rng.standard_normal(shape)) for name, shape in case.outputs.items()}
    return replace(case, inputs={name: rounded(array) if name in ACTIVITIES else array for name, array in case.inputs.items()}), before


@pytest.fixture(params=BACKENDS)
def device(request):
    with Device(choose_backend(request.param), threads=2) as device:
        yield device


# lrn_max_pool's maxima are those of rounded numbers, of which more are equal: below, but where nothing is rounded.
@cases(lambda case: is_narrow(case) and (case.exact or not case.op.startswith("lrn_max_pool")))
def test_what_is_stored_in_bfloat16_is_computed_in_float32(device, case):
    case, before = of_stored(case)
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


@cases(lambda case: case.op in OVER_RELU)
def test_the_gradient_of_a_relu_below(device, case):
    case, before = of_stored(case)
    for add in (None, before):
        (gradient,), (fused,) = (call(device, replace(case, scalars=case.scalars | {"relu": relu}), "bfloat16", add=add) for relu in (False, True))
        assert np.array_equal(fused, gradient * (case.inputs["inputs"] > 0))


@cases(lambda case: case.op == "lrn_max_pool_backward")
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("tight", [False, True])
def test_max_pooling_over_normalized_maps(device, case, add, tight):
    """Forward as the two ops; backward as they are in float32, on what is stored in bfloat16: between them nothing is rounded."""
    lrn, window = split(**case.scalars)
    of_gradient = {name: value for name, value in lrn.items() if name != "bias"}
    run, wide = Calls(device, "bfloat16", tight), Calls(device, "float32", tight)
    inputs, acts_grad = (run.holding(case.inputs[name]) for name in ("inputs", "acts_grad"))
    norms, denoms, norms_grad = run.arena.tensor(inputs.shape, "bfloat16", tight), *(wide.arena.tensor(inputs.shape, "float32", tight) for _ in range(2))
    run("lrn_forward", inputs, denoms, norms, **lrn)
    before = np.random.default_rng(0).standard_normal(acts_grad.shape)
    separate, acts = (run.holding(before) for _ in range(2))
    run("max_pool_forward", norms, separate.adding(add), **window)
    run("lrn_max_pool_forward", inputs, acts.adding(add), **case.scalars)
    assert run.result(acts) == run.result(separate)

    run("max_pool_forward", norms, acts, **window)
    before = rounded(np.random.default_rng(1).standard_normal(inputs.shape))
    wide_inputs, wide_norms, wide_acts, wide_acts_grad = (wide.holding(device.download(tensor)) for tensor in (inputs, norms, acts, acts_grad))
    wide("max_pool_backward", wide_norms, wide_acts, wide_acts_grad, norms_grad, **window)
    for relu in (False, True):
        separate, fused = wide.holding(before), run.holding(before)
        wide("lrn_backward", wide_inputs, denoms, norms_grad, separate.adding(add), **of_gradient, relu=relu)
        run("lrn_max_pool_backward", inputs, acts, acts_grad, fused.adding(add), **case.scalars, relu=relu)
        wide.arena.check_bands()
        assert run.result(fused) == rounded(device.download(separate)).astype(np.float32).tobytes()
