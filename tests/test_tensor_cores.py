"""Precisions "bf16x3", "tf32" and "bf16": what takes tensor cores, what they cost in error, training."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convnet.passes import PRECISE, PRECISIONS
from guarded import call
from ops import ROUNDED, at_precision, conv, fc
from workplace import DATA, HEAD, contents, logprobs

ON_TENSOR_CORES = {name for name, backends in PRECISIONS.items() if "cuda" in backends} - {"exact"}


def results(device, case, dtype="float32"):
    """At precision exact and at the three others."""
    return {precision: call(device, at_precision(case, precision) if precision != "exact" else case, dtype)[0] for precision in ("exact", *ROUNDED)}


def test_every_precision_is_known_to_its_backends():
    assert set(ROUNDED) == ON_TENSOR_CORES and {"host", "simt", "cuda"} == PRECISIONS["exact"]


@pytest.mark.parametrize("case", [*conv.cases("", (37, 3, 3, 9), (45, 3, 3), padding=1), *fc.cases("", (70, 65), (33, 65))], ids=lambda case: case.op)
def test_host_is_exact_and_the_others_round_float32(device, case):
    assert case.op in PRECISE
    singles, doubles = results(device, case), results(device, case, "float64")
    assert len({values.tobytes() for values in singles.values()}) == (1 if device.backend.startswith("host") else 4)
    assert len({values.tobytes() for values in doubles.values()}) == 1


@pytest.mark.parametrize(("op", "images", "filters"), [
    ("conv_forward", (40, 3, 3, 80), (32, 3, 3)), ("conv_forward", (40, 2, 2, 16), (33, 1, 1)), ("conv_backward_data", (32, 3, 3, 40), (40, 3, 3)),
    ("conv_backward_filters", (40, 3, 3, 8), (32, 3, 3)), ("conv_backward_filters", (64, 3, 3, 8), (40, 1, 1)),
], ids=["32 filters", "64 columns", "32 channels", "32 filters' gradients", "64 channels' taps"])
def test_what_would_leave_most_of_a_tile_empty_is_exact(device, op, images, filters):
    case = next(case for case in conv.cases("", images, filters) if case.op == op)
    assert len({values.tobytes() for values in results(device, case).values()}) == 1


def test_the_errors_are_those_of_the_formats(device):
    """Root mean square, relative to the sums of absolute products; an operand is off by at most `unit`."""
    if device.backend.startswith("host"):
        return  # exact: see above
    case = conv.cases("", (64, 7, 7, 16), (48, 3, 3), padding=1)[0]
    expected, sizes = case.expected()[0], case.reference(*map(np.abs, case.inputs.values()), **case.scalars)
    errors = {name: np.sqrt(np.mean(((values - expected) / sizes) ** 2)) for name, values in results(device, case).items()}
    assert errors["exact"] < errors["bf16x3"] < errors["tf32"] < errors["bf16"]
    chain = np.sqrt(case.sums)  # errors of independent operands add up like this
    for name, unit in {"bf16x3": 2.0**-16, "tf32": 2.0**-11, "bf16": 2.0**-8}.items():
        assert errors[name] < unit / np.sqrt(chain)
        if name != "bf16x3":
            assert errors[name] > 0.1 * unit / chain


@pytest.mark.parametrize("precision", ROUNDED)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_so_and_where_it_is(device, precision, value):
    case = conv.cases("", (34, 1, 1, 68), (36, 1, 1), exact=True)[0]
    images = case.inputs["images"].copy()
    images[5, 0, 0, 9] = value
    filters = np.abs(case.inputs["filters"]) + 1
    case = at_precision(replace(case, inputs={"images": images, "filters": filters}), precision)
    acts = call(device, case, "float32")[0]
    there = np.zeros(acts.shape, bool)
    there[..., 9] = True
    assert np.isfinite(acts[~there]).all()
    if precision == "bf16x3" and not device.backend.startswith("host"):
        value = np.nan
    np.testing.assert_array_equal(acts[there], value)


NET = DATA + """\
[conv1]
type=conv
inputs=data
filters=40
filterSize=3
stride=4
initW=0.2
neuron=relu
[conv2]
type=conv
inputs=conv1
filters=40
filterSize=3
padding=1
initW=0.05
neuron=relu
""" + HEAD.format("conv2")


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_run_learns_as_an_exact_one_and_says_how_precise_it_was(place, precision):
    place.write(NET)
    words = ("--backend", "simt", "--train-range", "1-2", "--mini", "150", "--epochs", "1", "--test-freq", "9")
    exact = logprobs(place.train("--save-path", "exact", *words))
    rounded = logprobs(place.train("--save-path", "rounded", "--precision", precision, *words))
    assert exact != rounded
    np.testing.assert_allclose(rounded, exact, rtol=0.02)
    assert contents("rounded")[0]["options"]["precision"] == precision


def test_host_says_that_it_is_exact(place):
    place.write(NET)
    place.train("--precision", "tf32", "--max-steps", "1")
    assert "--precision tf32: backend host" in place.told
