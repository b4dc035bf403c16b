"""Normalizations as layers of a net: what their keys mean, and their gradients."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import ops.lrn
import ops.spatial_norm
from convnet.config import parse_config
from convnet.errors import ConfigError
from convnet.gradcheck import check_gradients
from convnet.layers import LAYERS
from convnet.layers.norm import ContrastNorm
from small_nets import around, arrays_for, gradients_are_right, gradients_of, small_net

PARAMS = {"scale": 0.5, "pow": 0.75, "minDiv": 2}
KINDS = ("cmrnorm", "rnorm", "cnorm")


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("keys", ["type=cmrnorm\nsize=3", "type=cmrnorm\nsize=2\nblocked=1", "type=rnorm\nsize=3", "type=rnorm\nsize=4"])
def test_gradients_are_right(keys, backend, capsys):
    assert gradients_are_right(*around(keys, **PARAMS), backend), capsys.readouterr().out


@dataclass
class NormByMeansOfData(ContrastNorm):
    """cnorm that takes the means of its second input, which is data."""

    input_count = 2

    def shape(self, image, _):
        return image

    def saved(self, image, _):
        return super().saved(image)

    def forward(self, ops, t, training):
        ops.avg_pool_forward(t.inputs[1], t.saved["means"], size=self.size, stride=1, start=-(self.size // 2))
        ops.lcn_forward(t.inputs[0], t.saved["means"], t.saved["denoms"], t.acts, **self.constants(), bias=self.min_div)


def test_gradients_of_contrast_normalization_hold_the_means_constant(monkeypatch, capsys):
    monkeypatch.setitem(LAYERS, "means-of-data", NormByMeansOfData)
    found = []
    for keys, inputs in (("type=means-of-data\nsize=3", "conv1,data"), ("type=cnorm\nsize=3", "conv1")):
        with small_net(*around(keys, inputs, **PARAMS)) as net:
            net.set("conv1.W0", np.eye(3).reshape(3, 1, 1, 3))  # conv1 is data
            net.set("conv1.b", np.zeros(3))
            found.append(gradients_of(net, arrays_for(net)))
            assert inputs == "conv1" or check_gradients(net, arrays_for(net)), capsys.readouterr().out
    same_means, plain = found
    for name, gradient in plain.items():
        assert np.array_equal(gradient, same_means[name]) and gradient.any()


def acts_of_data(keys: str, **own) -> tuple[np.ndarray, np.ndarray]:
    """The data, and what a layer computes of them."""
    with small_net(*around(keys, "data", **own)) as net:
        arrays = arrays_for(net)
        return arrays[0].astype(float), net.test(arrays, ("layer",))[1]["layer"]


def test_the_scale_is_divided_by_the_size_of_the_window():
    pixels, _ = acts_of_data("type=cmrnorm\nsize=3", **PARAMS)
    expected = {
        "cmrnorm": ops.lrn.lrn_forward(pixels, size=3, scale=0.5 / 3, power=0.75, bias=2)[1],
        "rnorm": ops.spatial_norm.spatial_lrn_forward(pixels, size=3, scale=0.5 / 9, power=0.75, bias=2)[1],
        "cnorm": ops.spatial_norm.lcn_forward(pixels, ops.spatial_norm.window_means(pixels, 3), size=3, scale=0.5 / 9, power=0.75, bias=2)[1],
    }
    for kind in KINDS:
        np.testing.assert_allclose(acts_of_data(f"type={kind}\nsize=3", **PARAMS)[1], expected[kind], rtol=1e-12)


def test_the_constant_is_1_where_the_config_says_nothing():
    for kind in KINDS:
        said, default = (acts_of_data(f"type={kind}\nsize=3", scale=0.5, pow=1, **more)[1] for more in ({"minDiv": 1}, {}))
        assert np.array_equal(said, default)


@pytest.mark.parametrize("kind", ["rnorm", "cnorm"])
def test_blocks_are_refused_within_a_map(kind):
    with pytest.raises(ConfigError, match=rf"layers.cfg:\d+: \[layer\] blocked: found 1, expected 0: a layer of type {kind} has a window around each pixel"):
        parse_config(*around(f"type={kind}\nsize=3\nblocked=1", **PARAMS))
    assert parse_config(*around(f"type={kind}\nsize=3\nblocked=0", **PARAMS)).warnings == []
