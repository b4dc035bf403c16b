"""Layers that change images: what their keys mean, their gradients, and where those that have none may stand."""
from __future__ import annotations

import numpy as np
import pytest

import ops.blur
import ops.color
import ops.resize
from convnet.errors import ConfigError
from convnet.gradcheck import check_gradients
from convnet.graph import Graph
from layer_net import DATA, IMAGE, acts_of, config_of, gradients, minibatch, net_of

PIXELS = minibatch()[0] - 127.5  # (3, 6, 5, 3)
# keys -> what the layer computes of the pixels
WITH_GRADIENT = {
    "type=blur\nfilterSize=3\nstdev=1.5": lambda: ops.blur.blur(PIXELS, size=3, stdev=1.5),
    "type=blur\nfilterSize=9\nstdev=0.7\nchannels=3": lambda: ops.blur.blur(PIXELS, size=9, stdev=0.7),
    "type=nailbed\nstride=2": lambda: PIXELS[:, 1::2, 0::2],
    "type=nailbed\nstride=3": lambda: PIXELS[:, 1::3, 1::3],
    "type=nailbed\nstride=4": lambda: PIXELS[:, 1::4, 0::4],
    "type=href": lambda: PIXELS[:, :, ::-1],
    "type=crop\nstartX=1\nsizeX=3": lambda: PIXELS[:, 1:4, 1:4],
    "type=crop\nstartX=0\nstartY=2\nsizeX=4": lambda: PIXELS[:, 2:6, 0:4],
}
WITHOUT_GRADIENT = {
    "type=resize\nscale=1.5": lambda: ops.resize.resized(PIXELS, (4, 3), 1.5),
    "type=resize\nscale=0.7": lambda: ops.resize.resized(PIXELS, (8, 7), 0.7),
    "type=rgb2yuv": lambda: ops.color.rgb_to_yuv(PIXELS),
    "type=rgb2lab": lambda: ops.color.rgb_to_lab(PIXELS, center=False),
    "type=rgb2lab\ncenter=1": lambda: ops.color.rgb_to_lab(PIXELS, center=True),
}


@pytest.mark.parametrize("keys", WITH_GRADIENT | WITHOUT_GRADIENT)
def test_acts_are_those_of_the_formula(keys):
    expected = (WITH_GRADIENT | WITHOUT_GRADIENT)[keys]()
    acts = acts_of(net_of(keys, inputs="data"))
    assert acts.shape == expected.shape
    np.testing.assert_allclose(acts, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("keys", WITH_GRADIENT)
def test_gradients_are_right(keys, backend, capsys):
    net = net_of(keys, backend=backend)
    assert gradients(net)["conv1.W0"].any()
    assert check_gradients(net, minibatch()), capsys.readouterr().out


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("keys", WITHOUT_GRADIENT)
def test_what_has_no_gradient_stands_on_what_does_not_learn(keys, backend, capsys):
    net = net_of(f"type=neuron\nneuron=linear[0.003,0.4]\n[top]\ninputs=layer\n{keys}", inputs="data", above="top", backend=backend)
    assert check_gradients(net, minibatch()), capsys.readouterr().out


@pytest.mark.parametrize("keys", [*WITHOUT_GRADIENT, "type=rscale\nmaxScale=1.5"])
def test_what_has_no_gradient_is_refused_above_weights(keys):
    expected = rf"layers.cfg:\d+: \[layer\] inputs=conv1: a layer of type {keys.split()[0][5:]} has no gradient, but there are weights to be learned below it"
    with pytest.raises(ConfigError, match=expected):
        Graph(config_of(keys).layers, DATA.shapes)


def scaling_net(keys="maxScale=1.6"):
    """rscale of a square of 5 pixels."""
    return net_of(f"type=crop\nstartX=0\nsizeX=5\n[scaled]\ntype=rscale\ninputs=layer\n{keys}", inputs="data", above="scaled")


def test_rscale_cuts_the_middle_when_testing():
    assert np.array_equal(acts_of(scaling_net(), "scaled"), PIXELS[:, 1:4, 1:4])
    assert np.array_equal(acts_of(scaling_net("maxScale=1.6\ntgtSize=4"), "scaled"), PIXELS[:, 0:4, 0:4])


def test_rscale_draws_a_size_and_a_crop_for_each_training_step():
    net = scaling_net()
    plan = net.plan(3, "train", keep=("layer", "scaled"))
    scalars = next(step.scalars for step in plan.steps if step.op == "random_scale_crop")
    sizes = set()
    for number in range(8):
        plan.run({**dict(enumerate(minibatch())), "state": net.state(number)})
        plan.synchronize()
        expected = ops.resize.random_scale_crop(plan.fetch("layer")[0], np.array([number]), 3, **scalars)
        np.testing.assert_allclose(plan.fetch("scaled")[0], expected, rtol=1e-12, atol=1e-10)
        sizes.add(ops.resize.drawn(5, 3, step=number, **scalars)[0])
    assert sizes == {4, 5}


ERRORS = {
    "type=blur\nfilterSize=4\nstdev=1": "filterSize: found 4, expected 3, 5, 7 or 9",
    "type=blur\nfilterSize=3\nstdev=0": "stdev: found 0, expected a number above 0",
    "type=blur\nfilterSize=3\nstdev=1\nchannels=2": "channels=2, but its input data has 3",
    "type=nailbed\nstride=0": "stride=0: expected 1 or more",
    "type=crop\nstartX=2\nsizeX=4": "startX=2 and sizeX=4 end at pixel 6, expected at most 5, the width of data",
    "type=crop\nstartX=1\nstartY=3\nsizeX=4": "startY=3 and sizeX=4 end at pixel 7, expected at most 6, the height of data",
    "type=resize\nscale=2.5": "scale: found 2.5, expected 0.5 to 2",
    "type=rscale\nmaxScale=3": "maxScale: found 3, expected 1 to 2",
    "type=rscale\nmaxScale=1.5": "its input data has 6x5 pixels, expected a square",
}


@pytest.mark.parametrize("keys", ERRORS)
def test_errors_say_what_was_expected(keys):
    with pytest.raises(ConfigError) as raised:
        Graph(config_of(keys, inputs="data").layers, DATA.shapes)
    assert f"[layer] {ERRORS[keys]}" in str(raised.value)


def test_rscale_has_its_limits():
    with pytest.raises(ConfigError, match=r"\[scaled\] tgtSize=2, expected 3 to 5: the 5 pixels of layer, and those / maxScale"):
        scaling_net("maxScale=1.6\ntgtSize=2")


def test_colors_are_three():
    shapes = ((2, *IMAGE[1:]), (1, 1, 1))
    with pytest.raises(ConfigError, match=r"\[layer\] its input data has 2 channels, expected 3: red, green and blue"):
        Graph(config_of("type=rgb2yuv", inputs="data").layers, shapes)
