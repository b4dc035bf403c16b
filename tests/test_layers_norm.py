"""Normalizations as layers of a net: what their keys mean, and their gradients."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import ops.lrn
import ops.spatial_norm
from convnet.errors import ConfigError
from convnet.gradcheck import check_gradients
from convnet.layers import LAYERS
from convnet.layers.norm import ContrastNorm
from layer_net import acts_of, config_of, gradients, minibatch, net_of

PARAMS = "scale=0.5\npow=0.75\nminDiv=2"
KINDS = ("cmrnorm", "rnorm", "cnorm")


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("keys", ["type=cmrnorm\nsize=3", "type=cmrnorm\nsize=2\nblocked=1", "type=rnorm\nsize=3", "type=rnorm\nsize=4"])
def test_gradients_are_right(keys, backend, capsys):
    assert check_gradients(net_of(keys, PARAMS, backend=backend), minibatch()), capsys.readouterr().out


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
    same_means = net_of("type=means-of-data\nsize=3", PARAMS, inputs="conv1,data")
    net = net_of("type=cnorm\nsize=3", PARAMS)
    for one in (net, same_means):
        one.set("conv1.W0", np.eye(3).reshape(3, 1, 1, 3))  # conv1 is data
    for name, gradient in gradients(net).items():
        assert np.array_equal(gradient, gradients(same_means)[name]) and gradient.any()
    assert check_gradients(same_means, minibatch()), capsys.readouterr().out


def test_the_scale_is_divided_by_the_size_of_the_window():
    pixels = minibatch()[0] - 127.5
    expected = {
        "cmrnorm": ops.lrn.lrn_forward(pixels, size=3, scale=0.5 / 3, power=0.75, bias=2)[1],
        "rnorm": ops.spatial_norm.spatial_lrn_forward(pixels, size=3, scale=0.5 / 9, power=0.75, bias=2)[1],
        "cnorm": ops.spatial_norm.lcn_forward(pixels, ops.spatial_norm.window_means(pixels, 3), size=3, scale=0.5 / 9, power=0.75, bias=2)[1],
    }
    for kind in KINDS:
        np.testing.assert_allclose(acts_of(net_of(f"type={kind}\nsize=3", PARAMS, inputs="data")), expected[kind], rtol=1e-12)


def test_the_constant_is_1_where_the_config_says_nothing():
    for kind in KINDS:
        said, default = (acts_of(net_of(f"type={kind}\nsize=3", f"scale=0.5\npow=1\n{more}", inputs="data")) for more in ("minDiv=1", ""))
        assert np.array_equal(said, default)


@pytest.mark.parametrize("kind", ["rnorm", "cnorm"])
def test_blocks_are_refused_within_a_map(kind):
    with pytest.raises(ConfigError, match=rf"layers.cfg:\d+: \[layer\] blocked: found 1, expected 0: a layer of type {kind} has a window around each pixel"):
        config_of(f"type={kind}\nsize=3\nblocked=1", PARAMS)
    assert config_of(f"type={kind}\nsize=3\nblocked=0", PARAMS).warnings == []
