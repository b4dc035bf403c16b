"""Every key in every type of layer that has it: what the other tests do not show, and that none is left out (docs/coverage.md)."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import key_table
from convnet.backends import Device
from convnet.config import grammar, parse_config
from convnet.data import open_provider
from convnet.errors import ConfigError
from convnet.graph import Graph
from convnet.layers import LAYERS
from convnet.layers.weights import WeightLayer
from convnet.net import DataSpec, Net
from convnet.wanted import label_kind, net_classes
from small_nets import (
    DATA,
    IMAGES,
    LABELS,
    around,
    arrays_for,
    fc,
    gradients_are_right,
    gradients_of,
    params_of,
    section,
    small_net,
)

BACKENDS = pytest.mark.parametrize("backend", ["host", "simt"])
SHAPES = ((3, 6, 6), (1, 1, 1))
TREE = (4, 4, 5, 5, 5, -1)  # two classes below node 4, two below the root, 5
# The keys that a layer of each type must have, on images of 3 x 6 x 6; cuda needs a source too: test_own_layers.py.
NEEDED = {
    "conv": "filters=4\nfilterSize=3", "local": "filters=4\nfilterSize=3", "fc": "outputs=5", "sfc": "outputs=2\nparts=3", "treefc": "",
    "blur": "filterSize=3\nstdev=1", "nailbed": "stride=2", "href": "", "crop": "startX=1\nsizeX=4", "resize": "scale=1.5", "rscale": "maxScale=1.5",
    "rgb2yuv": "", "rgb2lab": "", "concat": "", "pass": "", "eltsum": "", "eltmax": "inputs=data,data", "neuron": "neuron=relu", "softmax": "",
    "cmrnorm": "size=3", "rnorm": "size=3", "cnorm": "size=3", "pool": "pool=max\nsizeX=2\nstride=2", "cmpool": "size=2\nstride=1",
    "hs": "", "dropout": "", "dropout2": "",
}
OWN = {kind: {"scale": 0.5, "pow": 0.75} for kind in ("cmrnorm", "rnorm", "cnorm")}
WEIGHTED = [kind for kind, cls in LAYERS.items() if issubclass(cls, WeightLayer)]
PIXELS_REQUIRED = [kind for kind, cls in LAYERS.items() if "channels" in grammar(cls)[1]]


def keys_of(kind: str, more: str = "") -> str:
    weights = "\ninitW=0.3\ninitB=0.1" if kind in WEIGHTED else ""
    return f"type={kind}\n{NEEDED[kind]}{weights}{more and f'{chr(10)}{more}'}"


def net_with(kind: str, more: str = "", backend: str = "host", **own):
    """data -> a layer of that kind -> fc2 -> logprob."""
    tree = TREE if kind == "treefc" else None
    return small_net(*around(keys_of(kind, more), "data", **{**OWN.get(kind, {}), **own}), backend, class_tree=tree)


# ---- every type -----------------------------------------------------------------------------------------


def test_every_type_has_a_row_and_every_row_a_type():
    assert {*NEEDED} | {"data", "cuda"} == {kind for kind in LAYERS if not kind.startswith("cost.")}


@BACKENDS
@pytest.mark.parametrize("kind", NEEDED)
def test_a_layer_computes_the_same_on_another_device(kind, backend):
    found = []
    for more in ("", "gpu=-1", "gpu=1"):
        with net_with(kind, more, backend) as net:
            arrays = arrays_for(net)
            found.append((net.test(arrays, ("layer",)), gradients_of(net, arrays)))
            assert net.graph.by_name["layer"].devices == ((1,) if more == "gpu=1" else (0,))
    for (costs, kept), gradients in found[1:]:
        assert (costs["logprob"] == found[0][0][0]["logprob"]).all() and (kept["layer"] == found[0][0][1]["layer"]).all()
        assert all((gradients[name] == gradient).all() for name, gradient in found[0][1].items())


@BACKENDS
@pytest.mark.parametrize("kind", [kind for kind in NEEDED if LAYERS[kind].has_gradient and kind not in ("cnorm", "eltmax")])
def test_gradients_of_every_type_agree_with_differences(kind, backend):
    """Those of cnorm, which holds the means constant, and of eltmax, whose equal inputs get it all, have tests of their own."""
    inputs = "conv1,data" if kind in ("concat", "pass", "eltsum") else "conv1"
    tree = TREE if kind == "treefc" else None
    assert gradients_are_right(*around(keys_of(kind), inputs, **OWN.get(kind, {})), backend, class_tree=tree)


@pytest.mark.parametrize("kind", PIXELS_REQUIRED)
def test_channels_are_checked(kind):
    assert Graph(parse_config(*around(keys_of(kind, "channels=3"), "data", **OWN.get(kind, {}))).layers, SHAPES)
    with pytest.raises(ConfigError, match=r"\[layer\] channels=4, but its input data has 3"):
        Graph(parse_config(*around(keys_of(kind, "channels=4"), "data", **OWN.get(kind, {}))).layers, SHAPES)


def test_a_device_below_the_default_is_refused():
    with pytest.raises(ConfigError, match=r"layers.cfg:\d+: \[layer\] gpu=0,-1: expected 0 or more"):
        parse_config(*around(keys_of("fc", "gpu=0,-1"), "data"))


@BACKENDS
@pytest.mark.parametrize("kind", ["concat", "pass"])
@pytest.mark.parametrize(("inputs", "shape"), [("data,conv1,data", (9, 6, 6)), ("data,pixels", (113, 1, 1))])
def test_joined_inputs_lie_one_after_the_other(kind, inputs, shape, backend):
    """Images of one size stay images."""
    layers, _ = around(f"type={kind}", inputs)
    layers = layers.replace("[layer]", f"{fc('pixels', 'data', 5)}[layer]") if "pixels" in inputs else layers
    with small_net(layers, params_of(layers), backend) as net:
        arrays = arrays_for(net)
        kept = net.test(arrays, (*({*inputs.split(",")} - {"data"}), "layer"))[1] | {"data": arrays[0]}
    assert kept["layer"].shape == (*shape, IMAGES)
    expected = np.concatenate([kept[name].reshape(-1, IMAGES) for name in inputs.split(",")])
    np.testing.assert_array_equal(kept["layer"].reshape(expected.shape), expected)


# ---- weights --------------------------------------------------------------------------------------------

RATES = {"epsW": 0.3, "epsB": 0.2, "momW": 0.8, "momB": 0.7, "wc": 0.05}


@BACKENDS
@pytest.mark.parametrize("kind", [kind for kind in WEIGHTED if kind != "treefc"])
def test_updates_are_those_of_the_keys(kind, backend):
    """inc = mom inc - eps (grad / N + wc w), w += inc, twice; biases without wc (SEMANTICS 3.6)."""
    with net_with(kind, backend=backend, **RATES) as net:
        rates = {full: weights.rate.rate(0) for node in net.graph.nodes for full, weights in node.owned()}
        arrays, names = arrays_for(net), ("layer.W0", "layer.b")
        expected = {name: (net.get(name), np.zeros_like(net.get(name))) for name in names}
        for step in range(2):
            gradients = gradients_of(net, arrays)
            net.train(arrays, step, rates.values())
            for name, eps, mom, wc in (("layer.W0", 0.3, 0.8, 0.05), ("layer.b", 0.2, 0.7, 0)):
                values, inc = expected[name]
                inc = mom * inc - eps * (gradients[name] / IMAGES + wc * values)
                expected[name] = values + inc, inc
        for name in names:
            np.testing.assert_allclose(net.get(name), expected[name][0], rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(net.get(f"{name}.inc"), expected[name][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", WEIGHTED)
def test_initial_weights_are_those_of_the_keys(kind):
    with net_with(kind, "initW=0.02\ninitB=-0.7") as net:
        weights = net.get("layer.W0")
        assert abs(weights.std() / 0.02 - 1) < 0.35 and abs(weights.mean()) < 0.01 and (net.get("layer.b") == np.float32(-0.7)).all()


@pytest.mark.parametrize("kind", WEIGHTED)
def test_schedules_are_those_of_the_keys(kind):
    """treefc has none for its weights, as in the 2012 program."""
    own = {**RATES, "schedW": "linear[tgtFactor=10]", "schedB": "exp[tgtFactor=100]"}
    layer = next(layer for layer in parse_config(*around(keys_of(kind), "data", **own)).layers if layer.name == "layer")
    rates = layer.rates()
    assert rates["b"].rate(1) == pytest.approx(0.002) and rates["b"].rate(0.5) == pytest.approx(0.02)
    assert rates["W0"].rate(1) == pytest.approx(0.3 if kind == "treefc" else 0.03) and rates["W0"].rate(0) == 0.3


@pytest.mark.parametrize("kind", WEIGHTED)
def test_updates_wait_for_their_period(kind):
    with net_with(kind, updatePeriod=2, **RATES) as net:
        arrays, before = arrays_for(net), net.get("layer.W0")
        for step in range(2):
            assert (net.get("layer.W0") == before).all()
            net.train(arrays, step, [0.1] * len(net.rate_slots))
        assert (net.get("layer.W0") != before).any()


@BACKENDS
@pytest.mark.parametrize("kind", [kind for kind in WEIGHTED if kind != "treefc"])
def test_weights_are_shared_by_layers_of_one_type(kind, backend):
    keys = keys_of(kind, "weightSource=layer[0]")
    layers, _ = around(keys_of(kind) + f"\n[twin]\ninputs=data\n{keys}\n[both]\ntype=eltsum\ninputs=layer,twin", "data", "both")
    with small_net(layers, params_of(layers), backend) as net:
        arrays = arrays_for(net)
        assert "twin.W0" not in net.rate_slots and "twin.b" in net.rate_slots
        kept = net.test(arrays, ("layer", "twin"))[1]
        assert (kept["layer"] == kept["twin"]).all()
        shared = gradients_of(net, arrays)
    alone = layers.replace("weightSource=layer[0]\n", "")
    with small_net(alone, params_of(alone), backend) as net:
        for name in ("W0", "b"):
            net.set(f"twin.{name}", net.get(f"layer.{name}"))
        gradients = gradients_of(net, arrays)
    np.testing.assert_allclose(shared["layer.W0"], gradients["layer.W0"] + gradients["twin.W0"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "keys", "own"), [
    *((kind, "", {"superMom": 0.5}) for kind in WEIGHTED), ("conv", "partialSum=3", {}), ("conv", "partialSum=0", {}), ("conv", "sumWidth=3", {}),
])
def test_knobs_that_mean_nothing_here_change_nothing(kind, keys, own):
    found = []
    for more, params in (("", {}), (keys, own)):
        texts = around(keys_of(kind, more), "data", **params)
        assert parse_config(*texts).warnings == []
        with net_with(kind, more, **params) as net:
            arrays = arrays_for(net)
            net.train(arrays, 0, [0.1] * len(net.rate_slots))
            found.append(net.get("layer.W0"))
    assert (found[0] == found[1]).all()


def test_inputs_share_their_biases():
    assert next(layer for layer in parse_config(*around("type=fc\noutputs=2\ninitW=1\ninitB=1,1", "data,data")).layers if layer.name == "layer").init_b == (1, 1)
    with pytest.raises(ConfigError, match=r"layers.cfg:\d+: \[layer\] initB: found 1, 2, expected one value: the inputs share the biases"):
        parse_config(*around("type=fc\noutputs=2\ninitW=1\ninitB=1,2", "data,data"))


@pytest.mark.parametrize("kind", ["conv", "local"])
def test_modules_are_checked(kind):
    assert Graph(parse_config(*around(keys_of(kind, "modulesX=4"), "data")).layers, SHAPES)
    with pytest.raises(ConfigError, match=r"\[layer\] modulesX=5, expected 4, as many as cover data"):
        Graph(parse_config(*around(keys_of(kind, "modulesX=5"), "data")).layers, SHAPES)


# ---- data -----------------------------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize(("keys", "shape"), {
    "start=36": (2, 6, 6), "end=72": (2, 6, 6), "start=36\nend=72": (1, 6, 6), "start=30\nend=40": (10, 1, 1), "end=108": (3, 6, 6),
}.items())  # fmt: skip
def test_a_part_of_the_data_is_read(keys, shape, backend):
    layers = DATA.replace("dataIdx=0", f"dataIdx=0\n{keys}") + LABELS + fc("fc1", "data", 4) + section("probs", type="softmax", inputs="fc1") + section(
        "logprob", type="cost.logreg", inputs="labels,probs")
    values = dict(pair.split("=") for pair in keys.split("\n"))
    with small_net(layers, params_of(layers), backend) as net:
        arrays = arrays_for(net)
        assert net.graph.by_name["data_rows"].shape == shape
        acts = net.test(arrays, ("fc1",))[1]["fc1"].reshape(4, IMAGES)
        part = arrays[0].reshape(108, IMAGES)[int(values.get("start", 0)) : int(values.get("end", 108))]
        np.testing.assert_allclose(acts, net.get("fc1.W0").reshape(len(part), 4).T @ part + net.get("fc1.b")[:, None], rtol=1e-10)
        assert np.isfinite(net.train(arrays, 0, [0.1] * len(net.rate_slots))["logprob"]).all()


def test_parts_of_an_image_are_cropped_alike():
    """Two data layers that read one tensor."""
    whole = DATA + DATA.replace("[data]", "[red]").replace("dataIdx=0", "dataIdx=0\nend=64") + LABELS
    layers = whole + section("both", type="concat", inputs="data,red") + fc("fc1", "both", 4) + section("probs", type="softmax", inputs="fc1") + section(
        "logprob", type="cost.logreg", inputs="labels,probs")
    spec = DataSpec(((3, 6, 6), (1, 1, 1)), (("uint8", (3, 8, 8)), ("float32", (1, 1, 1))), np.zeros((3, 6, 6), np.float32))
    with Device("host", threads=1) as device:
        net = Net(parse_config(layers.replace("end=64", "end=36"), params_of(layers)), spec, {0: device})
        net.initialise()
        pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 9), np.uint8)
        plan = net.plan(9, "train", ("both",))
        plan.run({0: pixels, 1: np.zeros((1, 1, 1, 9), np.float32), "state": net.state(3)})
        plan.synchronize()
        acts = plan.fetch("both")[0]
    assert acts.shape == (4, 6, 6, 9) and (acts[0] == acts[3]).all() and len({acts[..., i].tobytes() for i in range(9)}) == 9


@pytest.mark.parametrize(("keys", "message"), {
    "start=200": r"\[data_rows\] start=200 and end=108, expected numbers up to 108, the values of data", "end=200": "start=0 and end=200, expected numbers up to 108",
    "start=9\nend=9": r"layers.cfg:\d+: \[data\] end: found 9, expected more than start, which is 9",
}.items())  # fmt: skip
def test_parts_that_are_not_there(keys, message):
    layers, params = around("type=softmax", "data")
    with pytest.raises(ConfigError, match=message):
        Graph(parse_config(layers.replace("dataIdx=0", f"dataIdx=0\n{keys}"), params).layers, SHAPES)


# ---- dropout, pooling, costs ----------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize("keep", [0.3, 0.9, 1])
@pytest.mark.parametrize("kind", ["hs", "dropout", "dropout2"])
def test_units_are_kept_as_often_as_the_keys_say(kind, keep, backend):
    """hs and dropout2 test with keep times the acts; dropout divides by keep in training (SEMANTICS 3.7). `enable=0`: always as when testing."""
    for enable in (1, 0):
        with net_with(kind, backend=backend, keep=keep, enable=enable) as net:
            images, training = 200, {}
            arrays = arrays_for(net, images=images)
            for phase in ("train", "test"):
                plan = net.plan(images, phase, ("layer",))
                plan.run({**dict(enumerate(arrays)), "state": net.state(5)})
                plan.synchronize()
                training[phase] = plan.fetch("layer")[0] / arrays[0]
        factor = 1 / keep if kind == "dropout" else 1
        np.testing.assert_allclose(training["test"], keep * factor, rtol=1e-6)
        if not enable:
            np.testing.assert_array_equal(training["train"], training["test"])
            continue
        kept = training["train"] != 0
        assert abs(kept.mean() - keep) < 0.02
        np.testing.assert_allclose(training["train"][kept], factor, rtol=1e-6)


def test_keep_may_stand_in_the_layers_file():
    """As in the 2012 program; cuda-convnet2 reads it in the params file."""
    assert next(layer.keep for layer in parse_config(*around("type=hs\nkeep=0.8", "data")).layers if layer.name == "layer") == 0.8


@BACKENDS
@pytest.mark.parametrize("pool", ["max", "maxabs", "avg"])
@pytest.mark.parametrize(("keys", "size", "stride", "start", "outputs"), [
    ("sizeX=3\nstride=2\nstart=-1", 3, 2, -1, 3), ("sizeX=3\nstride=3\nstart=-2", 3, 3, -2, 3), ("sizeX=2\nstride=2\nstart=1", 2, 2, 1, 3),
    ("sizeX=3\nstride=2\noutputsX=2", 3, 2, 0, 2), ("sizeX=4\nstride=1", 4, 1, 0, 3),
])
def test_windows_are_those_of_the_keys(pool, keys, size, stride, start, outputs, backend):
    """[start + stride o, + size), clipped to the image; avg divides by what is left of it (SEMANTICS 1.3, 3.3)."""
    with small_net(*around(f"type=pool\npool={pool}\n{keys}", "data"), backend) as net:
        arrays = arrays_for(net)
        acts = net.test(arrays, ("layer",))[1]["layer"]
    assert acts.shape[1:3] == (outputs, outputs)
    for y in range(outputs):
        for x in range(outputs):
            rows, columns = (slice(max(0, start + stride * o), start + stride * o + size) for o in (y, x))
            window = arrays[0][:, rows, columns].reshape(3, -1, IMAGES).astype(float)
            largest = np.take_along_axis(window, abs(window).argmax(axis=1)[:, None], 1)[:, 0]
            expected = {"max": window.max(axis=1), "maxabs": largest, "avg": window.mean(axis=1)}[pool]
            np.testing.assert_allclose(acts[:, y, x], expected, rtol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind.startswith("cost.")])
def test_a_coefficient_is_of_the_gradient_alone(kind):
    count = {"cost.sum2": ""}.get(kind, "labels,")
    inputs, gate = (count + "fc1", "") if kind != "cost.gsum2" else ("gate,fc1", fc("gate", "data", 1, neuron="logistic"))
    probs = section("probs", type="softmax", inputs="fc1") * (kind == "cost.logreg")
    layers = (DATA + (LABELS if count and not gate else "") + gate + fc("fc1", "data", 4, neuron="logistic" if "logreg" not in kind else "ident") + probs
              + section("cost", type=kind, inputs=inputs.replace("fc1", "probs") if probs else inputs))
    found = []
    for coeff in (1, 0.3):
        with small_net(layers, params_of(layers, cost={"coeff": coeff}), labels=(1, 1, 1) if probs else (4, 1, 1)) as net:
            arrays = arrays_for(net)
            found.append((net.test(arrays)[0]["cost"], gradients_of(net, arrays)))
    assert (found[0][0] == found[1][0]).all()
    for name, gradient in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], 0.3 * gradient, rtol=1e-12)
        assert gradient.any()


@pytest.mark.parametrize("kind", ["cost.crossent2", "cost.bce"])
def test_labels_of_1_count_as_much_as_pos_weight_says(kind):
    """-sum(w t log y + (1 - t) log(1 - y)) (SEMANTICS 7.3)."""
    layers = DATA + LABELS + fc("fc1", "data", 4, neuron="logistic") + section("cost", type=kind, inputs="labels,fc1")
    with small_net(layers, params_of(layers, cost={"posWeight": 2.5}), labels=(4, 1, 1)) as net:
        arrays = arrays_for(net)
        costs, kept = net.test(arrays, ("fc1_neuron",))
    labels, probs = arrays[1], kept["fc1_neuron"]
    np.testing.assert_allclose(costs["cost"][0], -(2.5 * labels * np.log(probs) + (1 - labels) * np.log(1 - probs)).sum(), rtol=1e-10)


def test_labels_may_be_joined_with_what_the_net_computes():
    """As in a net that is trained on squares of differences: their number is that of the layer beside them."""
    layers = (DATA + LABELS + fc("fc1", "data", 7) + section("scaled", type="neuron", inputs="labels", neuron="linear[2,0]")
              + section("difference", type="eltsum", inputs="scaled,fc1", coeffs="1,-1") + section("cost", type="cost.sum2", inputs="difference"))
    config = parse_config(layers, params_of(layers))
    assert net_classes(config) == 7 and label_kind(config) == "vector"
    provider = open_provider("dummy:3x6x6", net_classes=7, label_kind="vector", images=IMAGES)
    assert Graph(config.layers, provider.shapes).by_name["difference"].shape == (7, 1, 1)
    with small_net(layers, params_of(layers), labels=(7, 1, 1)) as net:
        arrays = arrays_for(net)
        costs, kept = net.test(arrays, ("fc1",))
    np.testing.assert_allclose(costs["cost"], ((2 * arrays[1] - kept["fc1"]) ** 2).sum(), rtol=1e-12)


@BACKENDS
def test_softmax_of_maps_is_of_all_their_values(backend):
    layers, params = around("type=softmax", above="layer")
    with small_net(layers, params, backend) as net:
        probs = net.test(arrays_for(net), ("layer",))[1]["layer"]
    assert probs.shape == (108, 1, 1, IMAGES)
    np.testing.assert_allclose(probs.sum(axis=0), 1, rtol=1e-12)
    assert gradients_are_right(layers, params, backend)


# ---- the page -------------------------------------------------------------------------------------------


def test_every_type_and_key_has_a_test_and_every_test_is_there():
    assert key_table.missing() == []


def test_the_page_is_that_of_the_table():
    assert (Path(__file__).parent.parent / "docs" / "coverage.md").read_text() == key_table.page(), "python tests/key_table.py > docs/coverage.md"
