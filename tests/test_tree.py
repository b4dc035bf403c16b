"""treefc: weights of classes that are sums over the nodes of a tree."""
from __future__ import annotations

import numpy as np
import pytest

import convnet
from convnet.config import parse_config
from convnet.data import open_provider
from convnet.errors import ConfigError
from convnet.graph import Graph
from convnet.initial import Initial
from convnet.layers.tree import paths
from small_nets import (
    DATA,
    LABELS,
    RATES,
    arrays_for,
    fc,
    gradients_are_right,
    params_of,
    section,
    small_net,
)
from workplace import contents

# Classes 0 to 4: 0, 1 and 2 below node 5; 3 and 5 below 6; 4 and 6 below 7, the root.
TREE = (5, 5, 5, 6, 7, 6, 7, -1)
ABOVE = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])  # nodes 5 to 7 of each class
TREEFC = section("tree", type="treefc", inputs="data", initW=0.3, initB=0.1)
TOP = section("probs", type="softmax", inputs="tree") + section("cost", type="cost.logreg", inputs="labels,probs")
LAYERS = DATA + LABELS + TREEFC + TOP
ABOVE_FC = DATA + LABELS + fc("fc1", "data", 6) + TREEFC.replace("inputs=data", "inputs=fc1") + TOP


def tree_net(layers=LAYERS, **kwargs):
    return small_net(layers, params_of(layers), class_tree=TREE, **kwargs)


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("layers", [LAYERS, ABOVE_FC], ids=["of images", "of what has a gradient"])
def test_gradients_agree_with_differences(layers, backend):
    assert gradients_are_right(layers, params_of(layers), backend, classes=5, class_tree=TREE)


def test_the_weights_of_a_class_are_the_sum_of_those_above_it():
    with tree_net() as net:
        own, above, biases = (net.get(f"tree.{name}") for name in ("W0", "W1", "b"))
        assert own.shape == (108, 5) and above.shape == (108, 3) and own.std() > 0.2 and not above.any()
        above = np.random.default_rng(5).standard_normal(above.shape)
        net.set("tree.W1", above)
        arrays = arrays_for(net, 5)
        _, kept = net.test(arrays, ("tree",))
    weights = own + above @ ABOVE
    np.testing.assert_allclose(kept["tree"].reshape(5, 5), weights.T @ arrays[0].reshape(108, 5) + biases[:, None], rtol=1e-10)


@pytest.mark.parametrize("backend", ["host", "simt"])
def test_a_node_above_n_classes_goes_an_nth_of_the_way(backend):
    """inc = mom inc - eps / n (grad / images + wc / n w), twice (SEMANTICS 7.5)."""
    with tree_net(backend=backend) as net:
        arrays = arrays_for(net, 5)
        net.set("tree.W1", np.random.default_rng(5).standard_normal((108, 3)))
        names = ("tree.W0", "tree.W1")
        counts = {"tree.W0": np.ones(5), "tree.W1": np.array([3, 4, 5])}
        expected = {name: (net.get(name), np.zeros_like(net.get(name))) for name in names}
        for step in range(2):
            plan = net.plan(5, "check")
            plan.run({**dict(enumerate(arrays)), "state": net.state(0)})
            plan.synchronize()
            for name, (weights, increments) in expected.items():
                gradient = plan.fetch(f"{name}_grad")[0] / 5 + 0.01 / counts[name] * weights
                increments = 0.9 * increments - 0.1 / counts[name] * gradient
                expected[name] = weights + increments, increments
            net.train(arrays, step, [0.1, 0.1, 0.1])
        for name in names:
            np.testing.assert_allclose(net.get(name), expected[name][0], rtol=1e-12)


def test_a_tree_of_one_node_learns_what_fc_learns_at_a_rate_of_its_own():
    """All classes below the root: it moves them together, which softmax does not see."""
    flat = (5, 5, 5, 5, 5, -1)
    plain = LAYERS.replace("treefc", "fc").replace("initW", "outputs=5\ninitW")
    probs = []
    for layers, tree in ((LAYERS, flat), (plain, None)):
        with small_net(layers, params_of(layers).replace("wc=0.01", "wc=0"), class_tree=tree) as net:
            arrays = arrays_for(net, 5)
            for step in range(3):
                net.train(arrays, step, [0.1] * len(net.rate_slots))
            probs.append(net.test(arrays, ("probs",))[1]["probs"])
    np.testing.assert_allclose(probs[0], probs[1], rtol=1e-9)


# ---- the tree -----------------------------------------------------------------------------------------------


def test_the_dummies_have_a_tree_of_pairs():
    provider = open_provider("dummy:1x2x2:5")
    assert provider.class_tree == (5, 5, 6, 6, 7, 8, 8, 9, 10, 10, -1)
    assert paths(provider.class_tree) == [[0, 3, 5], [0, 3, 5], [1, 3, 5], [1, 3, 5], [2, 4, 5]]
    assert open_provider("dummy:1x2x2:1").class_tree == (1, -1)


@pytest.mark.parametrize("tree, expected", [
    ((2, 2, -1, -1), "expected the parents of all classes, then those of all nodes above them, of which one, the root, has -1"),
    ((-1, 0, 0), "expected the parents of all classes, then those of all nodes above them"),
    ((3, 3, 3, 4, 3, -1), "expected the parents of all classes"),
    ((2, 2, 3, 2, 5, -1), "expected the parents of all classes"),
    ((4, 4, 6, 6, 5, 4, -1), "class 0 is below a node that is below itself"),
    ((), "expected the parents of all classes"),
])
def test_what_is_no_tree_is_refused(tree, expected):
    with pytest.raises(ValueError, match=expected):
        paths(tree)


def test_data_without_a_tree_are_refused():
    with pytest.raises(ConfigError, match=r"\[tree\] a layer of type treefc needs data whose classes are in a tree, and these data have none"):
        Graph(parse_config(LAYERS, params_of(LAYERS)).layers, ((3, 6, 6), (1, 1, 1)))


def test_a_schedule_is_told_to_be_without_effect():
    params = params_of(LAYERS, tree={"schedW": "exp[tgtFactor=10,noiseStdev=0.5]"})
    config = parse_config(LAYERS, params)
    assert [warning.partition("] ")[2] for warning in config.warnings] == [
        "schedW: a layer of type treefc has no schedules, as in the 2012 program; the rate stays as it is"]
    Graph(config.layers, ((3, 6, 6), (1, 1, 1)), TREE)
    rates = next(layer.rates() for layer in config.layers if layer.name == "tree")
    assert [rates[name].rate(0.9) for name in ("W0", "W1")] == [0.1, 0.1]


def test_a_run_on_dummy_data_can_be_resumed_and_predicts(place):
    place.write(LAYERS)
    with open("params.cfg", "w") as file:
        file.write(f"[tree]\n{RATES.replace('0.1', '0.001')}[cost]\n")
    dummy = ("--data-provider", "dummy-lr-108", "--mini", "50", "--backend", "host", "--save-path")
    place.run(*dummy, "whole", "--max-steps", "12")
    place.run(*dummy, "parts", "--max-steps", "5")
    place.resume("parts", "--max-steps", "7")
    whole, parts = contents("whole"), contents("parts")
    assert whole[0]["class_tree"] == list(open_provider("dummy-lr-108").class_tree)
    assert whole[1]["tree.W1"].any() and all((parts[1][name] == values).all() for name, values in whole[1].items())
    with convnet.load("whole") as net:
        probs = net.predict(np.zeros((3, 6, 6), np.float32))
    assert probs.shape == (10, 1) and abs(probs.sum() - 1) < 1e-5


def test_what_the_2012_program_does_not_do_to_a_tree():
    config = parse_config(LAYERS, params_of(LAYERS, tree={"wball": 1, "superEps": 0.1}))
    assert [text.split("] ")[1] for text in config.warnings] == [f"{name}: ignored, as by the 2012 program in a layer of type treefc" for name in ("wball", "superEps")]
    with pytest.raises(ConfigError, match=r"layers.cfg:9: \[tree\] initWFunc: a layer of type treefc has no such function"):
        parse_config(LAYERS.replace("type=treefc", "type=treefc\ninitWFunc=initw.makew(tree)"), params_of(LAYERS))
    with pytest.raises(ConfigError, match=r"layers.cfg:9: \[tree\] weightSource: a layer of type treefc shares no weights"):
        parse_config(LAYERS.replace("type=treefc", "type=treefc\nweightSource=tree[0]"), params_of(LAYERS))


def test_a_warm_start_takes_weights_but_not_the_tree(tmp_path):
    with tree_net(seed=7) as net:
        tensors = net.tensors() | {"tree.below": np.zeros(0)}
    initial = Initial(tmp_path, init_from="old.ckpt", tensors=tensors)
    with tree_net(initial=initial) as net:
        assert np.array_equal(net.get("tree.W0"), tensors["tree.W0"])
        assert net.get("tree.below").any()
    assert list(initial.taken) == ["tree.W0", "tree.W1", "tree.b"] and not initial.left
