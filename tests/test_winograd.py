"""Precision "fast": what takes Winograd's algorithm, that its description is a convolution, what it costs in error, training."""
from __future__ import annotations

import numpy as np
import pytest

from convnet.backends import Device
from convnet.config import read_config
from convnet.net import DataSpec, Net
from convnet.passes import PRECISE
from convnet.predict import TrainedNet, load_checkpoint
from guarded import call
from ops import conv
from workplace import DATA, HEAD, contents, logprobs, newest


def of_products(cases):
    """Those whose results are the products alone: a relu makes zeros of half of them."""
    return [case for case in cases if case.op != "conv_relu_backward_data"]


FAST = of_products(case for case in conv.CASES if case.scalars.get("precision") == "fast")


def identity(array):
    return array


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.id)
def test_the_bound_is_that_of_an_algorithm_that_convolves(case):
    by_tiles = {"conv_forward": conv.winograd_forward(identity), "conv_backward_data": conv.winograd_backward_data(case.outputs.get("images_grad"), identity),
                "conv_backward_filters": conv.winograd_backward_filters(case.outputs.get("filters_grad"), identity)}[case.op]
    expected = case.expected()[0]
    assert np.abs(by_tiles(*case.inputs.values(), **case.scalars) - expected).max() <= 1e-12 * np.abs(expected).max()


def pair(case):
    """The case at precision exact and fast."""
    scalars = {name: value for name, value in case.scalars.items() if name != "precision"}
    return [conv.replace(case, scalars={**scalars, "precision": precision}) for precision in ("exact", "fast")]


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.id)
def test_only_host_is_less_than_exact(device, case):
    exact, fast = (call(device, each, "float32")[0] for each in pair(case))
    assert (exact.tobytes() != fast.tobytes()) == device.backend.startswith("host")


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.id)
def test_exact_is_the_default(device, case):
    exact = pair(case)[0]
    default = conv.replace(exact, scalars={name: value for name, value in exact.scalars.items() if name != "precision"})
    assert call(device, exact, "float32")[0].tobytes() == call(device, default, "float32")[0].tobytes()


@pytest.mark.parametrize(("images", "filters", "options"), [
    ((16, 9, 9, 15), (16, 3, 3), {}), ((16, 9, 9, 17), (16, 3, 3), {"stride": 2}), ((15, 9, 9, 17), (16, 3, 3), {}), ((16, 9, 9, 17), (15, 3, 3), {}), ((16, 9, 9, 17), (16, 3, 2), {}),
    ((16, 9, 9, 17), (16, 6, 6), {}), ((16, 9, 4, 17), (16, 3, 3), {}), ((30, 9, 9, 17), (32, 3, 3), {"groups": 2}),
], ids=["images", "stride", "channels", "filters", "narrow filters", "wide filters", "narrow images", "channels of a group"])
def test_shapes_that_do_not_gain_are_exact(device, images, filters, options):
    for case in conv.cases("", images, filters, **options):
        exact, fast = (call(device, each, "float32")[0] for each in pair(case))
        assert exact.tobytes() == fast.tobytes()


@pytest.mark.parametrize("case", FAST[:6], ids=lambda case: case.id)
def test_bits_do_not_depend_on_threads(case):
    results = []
    for threads in (1, 3):
        with Device("host", threads=threads) as device:
            results.append(call(device, case, "float32")[0].tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("relu", [False, True])
def test_the_error_is_a_few_times_that_of_exact(relu):
    """Root mean square, relative to the sums of absolute products."""
    with Device("host", threads=1) as device:
        for case in of_products(conv.cases("", (64, 13, 13, 16), (32, 3, 3), padding=1)):
            if relu:
                case = conv.replace(case, inputs={name: np.maximum(array, 0) if name == "images" else array for name, array in case.inputs.items()})
            expected = case.expected()[0]
            sizes = case.reference(*(np.abs(array) for array in case.inputs.values()), **case.scalars)
            exact, fast = (np.sqrt(np.mean(((call(device, each, "float32")[0] - expected) / sizes) ** 2)) for each in
                           (conv.replace(each, reference=case.reference) for each in pair(case)))
            assert exact < fast < 8 * exact


NET = DATA + """\
[conv1]
type=conv
inputs=data
filters=16
filterSize=3
padding=1
initW=0.2
neuron=relu
[conv2]
type=conv
inputs=conv1
filters=16
filterSize=3
padding=1
initW=0.1
neuron=relu
""" + HEAD.format("conv2")


def test_a_fast_run_learns_as_an_exact_one_and_goes_on_fast(place):
    place.write(NET)
    exact = logprobs(place.train("--save-path", "exact"))
    fast = logprobs(place.train("--save-path", "fast", "--precision", "fast"))
    assert exact != fast
    np.testing.assert_allclose(fast, exact, rtol=0.01)
    assert fast[-1] < 0.5 * fast[0]
    assert contents("exact")[0]["options"]["precision"] == "exact"
    assert contents("fast")[0]["options"]["precision"] == "fast"
    place.resume("fast", "--epochs", "3")
    with TrainedNet(*load_checkpoint(newest("fast")), "host") as net, TrainedNet(*load_checkpoint(newest("fast")), "host", "exact") as other:
        images = np.random.default_rng(0).integers(0, 256, (*net.shape, 40)).astype(np.uint8)
        assert net.net.precision == "fast"
        probs, others = net.predict(images), other.predict(images)
        assert probs.tobytes() != others.tobytes()
        np.testing.assert_allclose(probs, others, rtol=1e-3, atol=1e-6)


def test_only_steps_that_can_be_less_than_exact_are_told(place):
    place.write(NET)
    data = DataSpec(((1, 8, 8), (1, 1, 1)), (("float32", (1, 8, 8)), ("float32", (1, 1, 1))), None)
    told = set()
    for fuse, images in ((False, 16), (True, 16), (True, 1)):
        with Device("host") as device:
            net = Net(read_config("layers.cfg", "params.cfg"), data, {0: device}, precision="fast", allocate=False, fuse=fuse)
            told |= {step.op for step in net.compile(images, "train").steps if step.scalars.get("precision") == "fast"}
    assert told == PRECISE


def test_what_is_no_precision_is_refused(place):
    place.train("--precision", "coarse", code=2)
    assert "--precision coarse: expected one of exact, fast, bf16x3, tf32, bf16" in place.told


def test_a_backend_without_fast_convolutions_says_so(place):
    place.train("--precision", "fast", "--backend", "simt", "--max-steps", "1")
    assert "--precision fast: backend simt computes exactly; that is for host" in place.told
