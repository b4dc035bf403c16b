"""Limits on weights after their update, wball and wcNorm, and adaptive rates, superEps (SEMANTICS 7.6)."""
from __future__ import annotations

import contextlib

import numpy as np
import pytest

from convnet.backends import Device
from convnet.config import parse_config
from convnet.errors import ConfigError
from convnet.net import DataSpec, Net
from ops import limit, sgd
from small_nets import DATA, LABELS, RATES, arrays_for, fc, section, small_net

COST = section("probs", type="softmax", inputs="fc2") + section("logprob", type="cost.logreg", inputs="labels,probs")
CONV = {"filters": 4, "filterSize": 3, "initW": 0.3, "initB": 0.1, "inputs": "data"}
BACKENDS = pytest.mark.parametrize("backend", ["host", "simt"])
PIXELS = 16  # of the acts of `first`


def layers_of(first="conv", **keys) -> str:
    """data -> first, of that type -> fc2 -> cost"""
    return DATA + LABELS + section("first", **{"type": first, **CONV, **keys}) + fc("fc2", "first", 4) + COST


def params_of(first: str = "", second: str = "", rates: str = RATES) -> str:
    return f"[first]\n{rates}{first}\n[fc2]\n{rates}{second}\n[logprob]\n"


@contextlib.contextmanager
def trained(layers: str, params: str, steps: int = 1, rate: float = 0.1, **kwargs):
    with small_net(layers, params, **kwargs) as net:
        for step in range(steps):
            net.train(arrays_for(net), step, [rate] * len(net.rate_slots))
        yield net


def weights_after(*args, **kwargs) -> dict[str, np.ndarray]:
    with trained(*args, **kwargs) as net:
        return net.tensors()


def norms(weights: np.ndarray, matrices: int = 1) -> np.ndarray:
    return np.sqrt((weights.reshape(matrices, -1, weights.shape[-1])**2).sum(1))


def held(op, weights: np.ndarray, **limits) -> np.ndarray:
    """The op's reference on weights, whose columns are filters."""
    return op((0, 1), weights.reshape(1, -1, weights.shape[-1]), **limits).reshape(weights.shape)


@BACKENDS
def test_the_2012_program_limits_norms_by_wball_times_the_weights_of_a_filter(backend):
    plain, limited = (weights_after(layers_of(), params_of(*keys), backend=backend) for keys in ((), ("wball=0.056", "wball=0.01")))
    for name, size, wball in (("first.W0", 27, 0.056), ("fc2.W0", 64, 0.01)):
        assert (norms(plain[name]) > size * wball).any()
        assert np.allclose(limited[name], held(limit.limit_norms, plain[name], limit=size * wball, exactly=False), rtol=1e-13, atol=0)
    assert (norms(plain["first.W0"]) < 27 * 0.056).any()
    for name in ("first.b", "fc2.b"):
        assert np.array_equal(limited[name], plain[name])


@BACKENDS
def test_cuda_convnet2_sets_norms_to_wball(backend):
    tensors = weights_after(layers_of(sumWidth=3), params_of("wball=3", "wball=0.5"), backend=backend)
    assert np.allclose(norms(tensors["first.W0"]), 3, rtol=1e-13)
    assert np.allclose(norms(tensors["fc2.W0"]), 0.5, rtol=1e-13)


@BACKENDS
@pytest.mark.parametrize(("dialect", "wball"), [("A12", 1.4 / 27), ("V2", 1.4)])
def test_local_layers_limit_the_filters_of_each_pixel(dialect, wball, backend):
    layers = layers_of("local") if dialect == "A12" else layers_of("local", sumWidth=3)
    plain, limited = (weights_after(layers, params_of(key), backend=backend)["first.W0"] for key in ("", f"wball={wball!r}"))
    before, after = norms(plain, PIXELS), norms(limited, PIXELS)
    assert (before > 1.4).any() and (before < 1.4).any()
    assert np.allclose(after, np.minimum(before, 1.4), rtol=1e-13)


@BACKENDS
def test_spreads_are_limited_before_norms(backend):
    spreads = {"least": 0.055, "most": 0.06}
    plain = weights_after(layers_of(), params_of(), backend=backend)["first.W0"]
    wanted = held(limit.limit_spreads, plain, **spreads)
    for name, key, expected in (("no wball", "", wanted), ("wball", "wball=0.055", held(limit.limit_norms, wanted, limit=0.055 * 27, exactly=False))):
        found = weights_after(layers_of(), params_of(f"wcNormMin=0.055\nwcNormMax=0.06\n{key}"), backend=backend)["first.W0"]
        assert np.allclose(found, expected, rtol=1e-13, atol=0), name
    assert not np.allclose(expected, wanted)


def test_a_least_spread_alone_is_no_limit():
    plain, limited = (weights_after(layers_of(), params_of(key)) for key in ("", "wcNormMin=3"))
    assert all(np.array_equal(plain[name], limited[name]) for name in plain)


def test_frozen_weights_are_not_limited():
    with small_net(layers_of(), params_of("wball=0.001", rates=RATES.replace("epsW=0.1", "epsW=0"))) as net:
        before = net.get("first.W0")
        net.train(arrays_for(net), 0, [0.1] * 4)
        assert np.array_equal(net.get("first.W0"), before)


@BACKENDS
def test_nothing_is_limited_after_a_cost_that_is_not_finite(backend):
    with small_net(layers_of(), params_of("wball=0.001"), backend=backend) as net:
        before = net.get("first.W0")
        images, labels = arrays_for(net)
        net.train((images * np.float32(np.nan), labels), 0, [0.1] * 4)
        assert np.array_equal(net.get("first.W0"), before)


@BACKENDS
@pytest.mark.parametrize("keys", ["wball=0.6", "wcNormMin=0.05\nwcNormMax=0.06"])
def test_replicas_limit_whole_filters(keys, backend):
    """The devices share the rows of an update among them, but a filter is a column."""
    layers = layers_of(sumWidth=3)
    one = weights_after(layers, params_of(keys), steps=2, backend=backend)
    with trained(layers.replace("type=conv", "type=conv\ngpu=0,1").replace("type=fc", "type=fc\ngpu=0,1"), params_of(keys), steps=2, backend=backend) as net:
        for device in (0, 1):
            value = net.persistent[f"first.W0@{device}"]
            assert np.allclose(net.devices[device].download(value.bound()), one["first.W0"], rtol=1e-9, atol=1e-12)


@BACKENDS
def test_replicas_share_out_the_averages_of_the_gradient(backend):
    layers, params = layers_of(), params_of("superEps=0.01")
    one = weights_after(layers, params, steps=2, backend=backend)
    config = parse_config(layers, params)
    for layer in config.layers:
        if not layer.on_host:
            layer.gpu = (0, 1)  # in a file, this would say cuda-convnet2, which has no superEps
    with Device(backend, 0, 0, 1) as first, Device(backend, 1, 1, 1) as second:
        two = Net(config, DataSpec(((3, 6, 6), (1, 1, 1)), (("float32", (3, 6, 6)), ("float32", (1, 1, 1))), None), {0: first, 1: second}, dtype="float64")
        two.initialise()
        for step in range(2):
            two.train(arrays_for(two), step, [0.1] * 4)
        assert all(np.allclose(array, two.get(name), rtol=1e-9, atol=1e-12) for name, array in one.items())


@BACKENDS
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_super_eps_divides_by_the_spread_of_the_gradient(momentum, backend):
    rates = RATES.replace("momW=0.9", f"momW={momentum}")
    with small_net(layers_of(), params_of("superEps=0.01", rates=rates), backend=backend) as net:
        names = ("first.W0.means", "first.W0.squares", "first.W0.inc", "first.W0")
        expected = [net.get(name) for name in names]
        assert not any(array.any() for array in expected[:3])
        for step in range(3):
            plan = net.plan(5, "check")
            plan.run({**dict(enumerate(arrays_for(net))), "state": net.state(0)})
            plan.synchronize()
            gradient = plan.fetch("first.W0_grad")[0]
            expected = sgd.adaptive_update((step, 1, 0.1), gradient, *expected, rate_slot=0, momentum=momentum, decay=0.01, epsilon=0.01, images=5)
            net.train(arrays_for(net), step, [0.1] * 4)
        for name, array in zip(names, expected, strict=True):
            assert np.allclose(net.get(name), array, rtol=1e-9, atol=1e-12), name
        assert "first.b.means" not in net.tensor_names()


@BACKENDS
def test_a_run_with_super_eps_goes_on_as_if_it_had_not_stopped(backend):
    layers, params = layers_of(), params_of("superEps=0.01", "superEps=0.1")
    whole = weights_after(layers, params, steps=4, backend=backend)
    with trained(layers, params, steps=2, backend=backend) as first, small_net(layers, params, backend=backend, seed=2) as second:
        second.load(first.tensors())
        for step in (2, 3):
            second.train(arrays_for(second), step, [0.1] * 4)
        assert all(np.array_equal(array, second.get(name)) for name, array in whole.items())
    assert {"first.W0.means", "first.W0.squares", "fc2.W0.means"} <= whole.keys()


@pytest.mark.parametrize(("layers", "params", "dialect"), [
    (layers_of(), params_of(), "A12"),
    (layers_of(gpu="0"), params_of(), "A12"),
    (layers_of(gpu="0,1"), params_of(), "V2"),
    (layers_of(sumWidth=3), params_of(), "V2"),
    (layers_of(), params_of(rates=RATES.replace("epsW=0.1", "epsW=dexp[base=0.1;tgtFactor=2;numSteps=2]")), "V2"),
    (layers_of() + section("crop", type="crop", inputs="data", sizeX=2, startX=0) + section("c", type="cost.sum2", inputs="crop"), params_of() + "[c]\n", "V2"),
    (layers_of(), params_of("dropout=0.5"), "V1"),
])
def test_the_dialect_is_that_of_2012_unless_something_says_else(layers, params, dialect):
    config = parse_config(layers, params)
    assert config.dialect == dialect and {layer.dialect for layer in config.layers} == {dialect}


def test_super_eps_is_ignored_with_a_warning_where_the_program_did():
    config = parse_config(layers_of(sumWidth=3), params_of("superEps=0.1"))
    assert config.warnings == ["params.cfg:7: [first] superEps: ignored, as by cuda-convnet2"]
    assert "first.W0.means" not in weights_after(layers_of(sumWidth=3), params_of("superEps=0.1"))


def test_random_channels_are_ignored_with_a_warning_where_the_program_did():
    layers = layers_of(groups=3, filterChannels=1, randSparse=1)
    assert "first.conns0" in weights_after(layers, params_of())
    layers = layers.replace("randSparse=1", "randSparse=1\nsumWidth=3")
    assert [text.partition("] ")[2] for text in parse_config(layers, params_of()).warnings] == ["randSparse: ignored, as by cuda-convnet2"]
    assert "first.conns0" not in weights_after(layers, params_of())


@pytest.mark.parametrize(("keys", "expected"), [
    ("wball=-1", "params.cfg:7: [first] wball=-1: expected 0 or more"),
    ("wball=1,2", "params.cfg:7: [first] wball: 2 values for 1 input, expected one for each, or one for all"),
    ("wcNormMin=2\nwcNormMax=1", "params.cfg:8: [first] wcNormMax: 1, expected wcNormMin=2 or more"),
    ("superEps=much", "params.cfg:7: [first] superEps=much: expected a number"),
])
def test_error_names_place_and_way_out(keys, expected):
    with pytest.raises(ConfigError) as caught:
        parse_config(layers_of(), params_of(keys))
    assert str(caught.value) == expected
