"""Layers that join their inputs."""
from __future__ import annotations

import numpy as np
import pytest

from convnet.config import parse_config
from convnet.errors import ConfigError
from small_nets import (
    DATA,
    arrays_for,
    fc,
    gradients_are_right,
    params_of,
    section,
    small_net,
)

PARTS = DATA + fc("fc1", "data", 6) + fc("fc2", "data", 6) + fc("fc3", "data", 6)
COST = section("cost", type="cost.sum2", inputs="joined")
TWO = DATA + fc("fc1", "data", 6) + fc("fc2", "data", 6) + section("joined", type="eltmax", inputs="fc1,fc2") + COST
THREE = PARTS + section("joined", type="eltmax", inputs="fc1,fc2,fc3") + COST
SUM = PARTS + section("joined", type="eltsum", inputs="fc1,fc2,fc3") + COST
NETS = {
    "the larger of two": (TWO, {}),
    "the largest of three": (THREE, {}),
    "three on two devices": (THREE.replace("[fc2]\n", "[fc2]\ngpu=1\n"), {}),
    "a weighted sum": (SUM, {"coeffs": "0.5,-1,2"}),
}


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_agree_with_differences(name, backend):
    layers, own = NETS[name]
    assert gradients_are_right(layers, params_of(layers, joined=own), backend)


@pytest.mark.parametrize("layers", [TWO, THREE], ids=["two", "three"])
def test_the_maximum_is_that_of_all_inputs(layers):
    with small_net(layers, params_of(layers)) as net:
        names = (*net.graph.by_name["joined"].layer.inputs, "joined")
        _, kept = net.test(arrays_for(net), names)
    np.testing.assert_array_equal(np.maximum.reduce([kept[name] for name in names[:-1]]), kept["joined"])


def test_equal_inputs_get_the_full_gradient_each():
    layers = DATA + fc("fc1", "data", 6) + section("joined", type="eltmax", inputs="fc1,fc1") + COST
    alone = DATA + fc("fc1", "data", 6) + COST.replace("joined", "fc1")
    gradients = []
    for text in (layers, alone):
        with small_net(text, params_of(text)) as net:
            plan = net.plan(5, "check")
            plan.run({0: arrays_for(net)[0], "state": net.state(0)})
            plan.synchronize()
            gradients.append(plan.fetch("fc1.W0_grad")[0])
    np.testing.assert_allclose(gradients[0], 2 * gradients[1], rtol=1e-12)


def test_a_maximum_of_one_is_refused():
    layers = DATA + fc("fc1", "data", 6) + section("joined", type="eltmax", inputs="fc1") + COST
    with pytest.raises(ConfigError, match=r"layers.cfg:\d+: \[joined\] inputs: found fc1 alone, expected two inputs or more"):
        parse_config(layers, params_of(layers))


def test_coeffs_stand_in_either_file():
    """The layers file in the 2012 program, the params file in cuda-convnet2."""
    here = parse_config(SUM.replace("type=eltsum\n", "type=eltsum\ncoeffs=0.5,-1,2\n"), params_of(SUM))
    there = parse_config(SUM, params_of(SUM, joined={"coeffs": "0.5,-1,2"}))
    for config in (here, there):
        assert next(layer.coeffs for layer in config.layers if layer.name == "joined") == (0.5, -1.0, 2.0)
        assert config.warnings == []
