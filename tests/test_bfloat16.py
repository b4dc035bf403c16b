"""Activities stored in bfloat16: every case of the ops that take them, on the backends that have them; and plans that store them so."""
from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest

import ops
from conftest import AVAILABLE
from convnet.backends import Device, choose_backend, decoded, encoded
from convnet.passes import ACTIVITIES, MASKED, OVER_RELU
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


def is_stored(case, output):
    return output in ACTIVITIES and output not in case.keep


@pytest.fixture(params=BACKENDS)
def device(request):
    with Device(choose_backend(request.param), threads=2) as device:
        yield device


def check(case, results):
    """Those of a case of numbers that bfloat16 holds: within the bound of float32, and then rounded."""
    for name, result, right, bound in zip(case.outputs, results, case.expected(), case.bound(ops.UNIT["float32"]), strict=True):
        low, high = (right, right) if case.exact else (right - bound, right + bound)
        if is_stored(case, name):
            low, high = rounded(low), rounded(high)
        both_nan = np.isnan(result) & np.isnan(right)
        wrong = ~((low <= result) & (result <= high) | both_nan)
        assert not wrong.any(), f"{case.id}: {name} is {result[wrong][0]!r}, expected {low[wrong][0]!r} to {high[wrong][0]!r}; {wrong.sum()} of {wrong.size} wrong"


# lrn_max_pool's maxima are those of rounded numbers, of which more are equal: below, but where nothing is rounded.
@cases(lambda case: is_narrow(case) and (case.exact or not case.op.startswith("lrn_max_pool")))
def test_what_is_stored_in_bfloat16_is_computed_in_float32(device, case):
    case, before = of_stored(case)
    results = call(device, case, "bfloat16")
    check(case, results)
    if case.adds:
        for name, result, added in zip(case.outputs, results, call(device, case, "bfloat16", add=before), strict=True):
            sum_ = before[name].astype(result.dtype) + result
            assert added.tobytes() == (rounded(sum_).astype(np.float32) if is_stored(case, name) else sum_).tobytes()


@pytest.mark.parametrize("shape", [(3, 2, 2, 5), (8, 2, 2, 33), (4, 2, 2, 128)])
@pytest.mark.parametrize("tight", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_a_copy_converts(device, shape, tight, add):
    values, before = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    for source, target in (("float32", "bfloat16"), ("bfloat16", "float32")):
        run, kept = Calls(device, source, tight), Calls(device, target, tight)
        copy, held = kept.holding(before), rounded(before).astype(np.float32) if target == "bfloat16" else before
        run("scaled_copy", run.holding(values), copy.adding(add), factor=1.0)
        expected = rounded(values).astype(np.float32) + held * add
        assert kept.result(copy) == (rounded(expected).astype(np.float32) if target == "bfloat16" else expected).tobytes()
        run.arena.check_bands()


@cases(lambda case: case.op in OVER_RELU)
def test_the_gradient_of_a_relu_below(device, case):
    case, before = of_stored(case)
    for add in (None, before):
        (gradient,), (fused,) = (call(device, replace(case, scalars=case.scalars | {"relu": relu}), "bfloat16", add=add) for relu in (False, True))
        assert np.array_equal(fused, gradient * (case.inputs["inputs"] > 0))


@cases(lambda case: case.op in MASKED.values() and is_narrow(case))
def test_the_gradient_of_a_relu_whose_acts_are_read_for_it_alone(device, case):
    case, before = of_stored(case)
    *others, (_, acts) = case.inputs.items()
    for add in (None, before):
        (gradient,), (fused,) = (call(device, each, "bfloat16", add=add) for each in (replace(case, op=case.op.replace("_relu", ""), inputs=dict(others)), case))
        assert np.array_equal(fused, gradient * (acts > 0))


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
        separate, fused = wide.arena.tensor(inputs.shape, "float32", tight), run.holding(before)
        wide("lrn_backward", wide_inputs, denoms, norms_grad, separate, **of_gradient, relu=relu and not add)
        run("lrn_max_pool_backward", inputs, acts, acts_grad, fused.adding(add), **case.scalars, relu=relu)
        wide.arena.check_bands()
        expected = rounded(device.download(separate))
        if add:
            expected = rounded(before + expected) * (device.download(inputs) > 0 if relu else 1)
        assert run.result(fused) == expected.astype(np.float32).tobytes()


@cases(is_narrow)
def test_rows_without_padding_give_the_same_bits(device, case):
    for padded, tight in zip(call(device, case, "bfloat16"), call(device, case, "bfloat16", tight=True), strict=True):
        assert padded.tobytes() == tight.tobytes()


@cases(lambda case: case.scalars.get("precision") == "bf16" and "forward" in case.op)  # else k is in pieces of another size
def test_tensor_cores_multiply_what_is_stored_as_they_multiply_what_they_round(device, case):
    case, _ = of_stored(case)
    for name, stored, wide in zip(case.outputs, call(device, case, "bfloat16"), call(device, case, "float32"), strict=True):
        assert stored.astype(np.float64).tobytes() == (rounded(wide) if name in ACTIVITIES else wide.astype(np.float64)).tobytes()


@pytest.mark.parametrize("precision", ["tf32", "bf16x3"])
def test_other_precisions_say_that_they_do_not_take_it(device, precision):
    x, w, y = device.tensor((3, 4, 4, 8), "bfloat16"), device.tensor((3, 3, 3, 5)), device.tensor((5, 2, 2, 8), "bfloat16")
    with pytest.raises(ValueError, match="conv_forward: activities in bfloat16: expected precision bf16 or exact"):
        device.ops.conv_forward_workspace(device, x, w, y, stride=1, padding=0, groups=1, precision=precision)


def test_host_says_that_it_does_not_take_it():
    with Device("host", threads=1) as host, pytest.raises(ValueError, match="neuron_forward: dtype bfloat16, expected float32 or float64"):
        host.ops.neuron_forward(host, host.tensor((1, 1, 1, 8), "bfloat16"), host.tensor((1, 1, 1, 8), "bfloat16"), neuron="relu", a=1.0, b=1.0)
        host.synchronize()


def test_numbers_are_rounded_to_nearest_and_halfway_to_even(device):
    words = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7FFFFF, 0xFF800000, 0x7F800001, 0xFFC00000, 0x00008000, 0x00008001, 0x80000000], np.uint32)
    expected = np.array([0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x3F80, 0x7F80, 0xFF80, 0x7FFF, 0x7FFF, 0x0000, 0x0001, 0x8000], np.uint16)
    values = words.view(np.float32).reshape(1, 1, 1, -1)
    np.testing.assert_array_equal(encoded(values, "bfloat16").ravel(), expected)
    wide, narrow = device.tensor(values.shape), device.tensor(values.shape, "bfloat16")
    device.upload(wide, values)
    device.ops.scaled_copy(device, wide, narrow, factor=1.0)
    assert device.download(narrow).tobytes() == decoded(expected, "bfloat16").tobytes()
