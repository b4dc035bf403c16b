"""Neurons in nets: gradients, the noise of nrelu, numbers in brackets."""
from __future__ import annotations

import numpy as np
import pytest

from convnet.layers.neuron import PARAMETERS, parse_neuron
from small_nets import (
    DATA,
    arrays_for,
    fc,
    gradients_are_right,
    params_of,
    section,
    small_net,
)

NUMBERS = {"tanh": "[1.7,0.6]", "linear": "[0.5,-1]", "brelu": "[1.5]", "drelu": "[0.7]", "log": "[20]"}
COST = section("cost", type="cost.sum2", inputs="fc1")
ROOT = (DATA + fc("fc1", "data", 6, neuron="logistic") + section("root", type="neuron", inputs="fc1", neuron="sqrt")  # of what is above 0
        + COST.replace("fc1", "root"))


def net_with(neuron: str) -> str:
    return DATA + fc("fc1", "data", 6, neuron=neuron) + COST


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("kind", PARAMETERS)
def test_gradients_agree_with_differences(kind, backend):
    layers = ROOT if kind == "sqrt" else net_with(kind + NUMBERS.get(kind, ""))
    assert gradients_are_right(layers, params_of(layers), backend)


def acts_of(layers: str, phase: str, step: int = 0, backend: str = "host") -> tuple[np.ndarray, np.ndarray]:
    with small_net(layers, params_of(layers), backend, dtype="float32") as net:
        plan = net.plan(200, phase, ("fc1", "fc1_neuron"))
        plan.run({0: arrays_for(net, images=200)[0], "state": net.state(step)})
        plan.synchronize()
        return plan.fetch("fc1")[0], plan.fetch("fc1_neuron")[0]


def test_nrelu_is_relu_when_testing():
    inputs, acts = acts_of(net_with("nrelu"), "test")
    assert (acts == np.maximum(inputs, 0)).all()


@pytest.mark.parametrize("backend", ["host", "simt"])
def test_the_noise_of_nrelu_is_as_large_as_the_unit(backend):
    inputs, acts = acts_of(net_with("nrelu"), "train", backend=backend)
    assert (acts[inputs <= 0] == 0).all() and (acts >= 0).all()
    ratio = acts[inputs > 0] / inputs[inputs > 0]  # max(0, 1 + a standard normal number)
    assert ratio.size > 400
    assert abs((ratio == 0).mean() - 0.1587) < 0.06  # below -1
    assert abs(np.median(ratio) - 1) < 0.2 and abs((ratio > 2).mean() - 0.1587) < 0.06


def test_the_noise_of_nrelu_is_another_at_every_step():
    first, again, later = (acts_of(net_with("nrelu"), "train", step)[1] for step in (3, 3, 4))
    assert (first == again).all() and (first != later).any()


def test_nrelu_passes_the_gradient_where_it_is_above_0():
    layers = net_with("nrelu")
    with small_net(layers, params_of(layers)) as net:
        plan = net.plan(5, "train", ("fc1_neuron",))
        before = net.get("fc1.b")
        plan.run({0: arrays_for(net)[0], "state": net.state(0, [0.0, 1.0])})
        plan.synchronize()
        np.testing.assert_allclose(before - net.get("fc1.b"), 2 * plan.fetch("fc1_neuron")[0].sum((1, 2, 3)) / 5, rtol=1e-12)


@pytest.mark.parametrize("text, expected", {
    "tanh[1e-3,-2.5E1]": ("tanh", 1e-3, 25.0),
    "brelu[1e+2]": ("brelu", 100.0, 1.0),
    "log[ .5 ]": ("log", 0.5, 1.0),
    "tanh [1, 1]": ("tanh", 1.0, 1.0),
    "drelu[3.]": ("drelu", 3.0, 1.0),
}.items())
def test_numbers_may_be_written_in_any_way(text, expected):
    assert parse_neuron(text) == expected


@pytest.mark.parametrize("text, expected", {
    "drelu": "neuron=drelu, expected 1 numbers in [ ]",
    "drelu[0]": "neuron=drelu[0], expected a number other than 0: it is divided by",
    "nrelu[1]": "neuron=nrelu[1], expected 0 numbers in [ ]",
    "log[a]": "neuron=log[a], expected numbers in [ ]",
}.items())
def test_a_mistake_says_what_was_expected(text, expected):
    with pytest.raises(ValueError) as raised:
        parse_neuron(text)
    assert str(raised.value) == expected
