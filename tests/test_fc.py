"""Fully connected layers in nets."""
from __future__ import annotations

import numpy as np
import pytest

from convnet.config import parse_config
from convnet.errors import ConfigError
from convnet.graph import Graph
from small_nets import (
    DATA,
    arrays_for,
    fc,
    gradients_are_right,
    params_of,
    section,
    small_net,
)

COST = section("cost", type="cost.sum2", inputs="split")


def split(inputs: str, **keys) -> str:
    return fc("split", inputs, 2, **{"type": "sfc", "parts": 3, **keys})


NETS = {
    "of images": DATA + split("data") + COST,
    "of one input": DATA + fc("fc1", "data", 6) + split("fc1", neuron="tanh[1,1]") + COST,
    "of two inputs": DATA + fc("fc1", "data", 6) + split("data,fc1") + COST,
    "of what others read": DATA + fc("fc1", "data", 6) + split("fc1") + COST + section("more", type="cost.sum2", inputs="fc1"),
    "of what is read twice": DATA + fc("fc1", "data", 6) + split("fc1,fc1") + COST,
    "in one part": DATA + split("data", parts=1) + COST,
    "on another device": DATA + fc("fc1", "data", 6) + split("fc1", gpu=1) + COST,
}


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_agree_with_differences(name, backend):
    assert gradients_are_right(NETS[name], params_of(NETS[name]), backend)


def test_every_part_sees_its_part_of_the_input():
    layers = DATA + fc("fc1", "data", 6) + split("fc1") + COST
    with small_net(layers, params_of(layers)) as net:
        _, kept = net.test(arrays_for(net), ("fc1", "split"))
        weights, biases = net.get("split.W0"), net.get("split.b")
    inputs, acts = kept["fc1"].reshape(6, 5), kept["split"].reshape(6, 5)
    assert weights.shape == (6, 2)
    for part in range(3):
        rows = slice(2 * part, 2 * part + 2)
        np.testing.assert_allclose(acts[rows], weights[rows].T @ inputs[rows] + biases[rows, None], rtol=1e-12)


def test_all_parts_learn():
    layers = DATA + split("data") + COST
    with small_net(layers, params_of(layers)) as net:
        before = net.get("split.W0")
        net.train(arrays_for(net), 0, [0.1, 0.1])
        assert (net.get("split.W0") != before).all()


def test_parts_that_do_not_divide_the_input_are_refused():
    layers = DATA + fc("fc1", "data", 8) + split("fc1") + COST
    with pytest.raises(ConfigError, match=r"\[split\] parts=3, but its input fc1 has 8 values, which are not so many equal parts"):
        Graph(parse_config(layers, params_of(layers)).layers, ((3, 6, 6),))
