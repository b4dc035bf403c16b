"""Layers that change images: what their keys mean, their gradients, and where those that have none may stand."""
from __future__ import annotations

import numpy as np
import pytest

import ops.blur
import ops.color
import ops.resize
from convnet.config import parse_config
from convnet.errors import ConfigError
from convnet.gradcheck import check_gradients
from convnet.graph import Graph
from small_nets import IMAGES, around, arrays_for, gradients_are_right, gradients_of, small_net

IMAGE = (3, 6, 5)
SHAPES = (IMAGE, (1, 1, 1))
with small_net(*around("type=href", "data"), image=IMAGE) as any_net:
    PIXELS = arrays_for(any_net)[0].astype(float)
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


def acts_of(texts: tuple[str, str], name: str = "layer") -> np.ndarray:
    with small_net(*texts, image=IMAGE) as net:
        return net.test(arrays_for(net), (name,))[1][name]


@pytest.mark.parametrize("keys", WITH_GRADIENT | WITHOUT_GRADIENT)
def test_acts_are_those_of_the_formula(keys):
    expected = (WITH_GRADIENT | WITHOUT_GRADIENT)[keys]()
    acts = acts_of(around(keys, "data"))
    assert acts.shape == expected.shape
    np.testing.assert_allclose(acts, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("keys", WITH_GRADIENT)
def test_gradients_are_right(keys, backend, capsys):
    with small_net(*around(keys), backend, image=IMAGE) as net:
        assert gradients_of(net, arrays_for(net))["conv1.W0"].any()
        assert check_gradients(net, arrays_for(net)), capsys.readouterr().out


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("keys", WITHOUT_GRADIENT)
def test_what_has_no_gradient_stands_on_what_does_not_learn(keys, backend, capsys):
    texts = around(f"type=neuron\nneuron=linear[0.2,0.4]\n[top]\ninputs=layer\n{keys}", "data", "top")
    assert gradients_are_right(*texts, backend, image=IMAGE), capsys.readouterr().out


@pytest.mark.parametrize("keys", [*WITHOUT_GRADIENT, "type=rscale\nmaxScale=1.5"])
def test_what_has_no_gradient_is_refused_above_weights(keys):
    expected = rf"layers.cfg:\d+: \[layer\] inputs=conv1: a layer of type {keys.split()[0][5:]} has no gradient, but there are weights to be learned below it"
    with pytest.raises(ConfigError, match=expected):
        Graph(parse_config(*around(keys)).layers, SHAPES)


def scaling(keys="maxScale=1.6") -> tuple[str, str]:
    """rscale of a square of 5 pixels."""
    return around(f"type=crop\nstartX=0\nsizeX=5\n[scaled]\ntype=rscale\ninputs=layer\n{keys}", "data", "scaled")


def test_rscale_cuts_the_middle_when_testing():
    assert np.array_equal(acts_of(scaling(), "scaled"), PIXELS[:, 1:4, 1:4])
    assert np.array_equal(acts_of(scaling("maxScale=1.6\ntgtSize=4"), "scaled"), PIXELS[:, 0:4, 0:4])


def test_rscale_draws_a_size_and_a_crop_for_each_training_step():
    sizes = set()
    with small_net(*scaling(), image=IMAGE) as net:
        plan = net.plan(IMAGES, "train", keep=("layer", "scaled"))
        scalars = next(step.scalars for step in plan.steps if step.op == "random_scale_crop")
        for number in range(8):
            plan.run({**dict(enumerate(arrays_for(net))), "state": net.state(number)})
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
        Graph(parse_config(*around(keys, "data")).layers, SHAPES)
    assert f"[layer] {ERRORS[keys]}" in str(raised.value)


def test_rscale_has_its_limits():
    with pytest.raises(ConfigError, match=r"\[scaled\] tgtSize=2, expected 3 to 5: the 5 pixels of layer, and those / maxScale"):
        Graph(parse_config(*scaling("maxScale=1.6\ntgtSize=2")).layers, SHAPES)


def test_colors_are_three():
    shapes = ((2, *IMAGE[1:]), (1, 1, 1))
    with pytest.raises(ConfigError, match=r"\[layer\] its input data has 2 channels, expected 3: red, green and blue"):
        Graph(parse_config(*around("type=rgb2yuv", "data")).layers, shapes)
