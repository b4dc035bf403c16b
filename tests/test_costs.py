"""Costs in nets: what they report, their gradients, which of them judges a net."""
from __future__ import annotations

import numpy as np
import pytest

from convnet.config import parse_config
from convnet.errors import ConfigError
from convnet.graph import Graph
from small_nets import (
    DATA,
    LABELS,
    arrays_for,
    fc,
    gradients_are_right,
    params_of,
    section,
    small_net,
)
from workplace import HEAD, newest

PROBS = DATA + LABELS + fc("fc1", "data", 4, neuron="logistic")
LOGISTIC = PROBS + section("cost", type="cost.bce", inputs="labels,fc1")
NETS = {
    "bce": (LOGISTIC, {"coeff": 0.7}),
    "bce with posWeight": (LOGISTIC, {"posWeight": 2.5}),
    "crossent2": (PROBS + section("cost", type="cost.crossent2", inputs="labels,fc1"), {}),
    "bce over what others read": (LOGISTIC + section("more", type="cost.sum2", inputs="fc1"), {"posWeight": 2.5}),
    "bce over softmax": (DATA + LABELS + fc("fc1", "data", 4) + section("probs", type="softmax", inputs="fc1")
                         + section("cost", type="cost.bce", inputs="labels,probs"), {}),
    "rflickr": (DATA + LABELS + fc("fc1", "data", 4, neuron="tanh[2,0.5]") + section("cost", type="cost.rflickr", inputs="labels,fc1"), {"coeff": 0.7}),
    "sum2": (DATA + fc("fc1", "data", 4) + section("cost", type="cost.sum2", inputs="fc1"), {"coeff": 0.3}),
    "gsum2": (DATA + fc("gate", "data", 1, neuron="logistic") + fc("fc1", "data", 4) + section("cost", type="cost.gsum2", inputs="gate,fc1"), {"coeff": 0.3}),
}


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_agree_with_differences(name, backend):
    layers, own = NETS[name]
    assert gradients_are_right(layers, params_of(layers, cost=own), backend, labels=(4, 1, 1))


def costs_of(net) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and outputs (rows, images), and the numbers of the cost."""
    arrays = arrays_for(net)
    costs, kept = net.test(arrays, (net.graph.main_cost.inputs[-1].name,))
    outputs, = kept.values()
    return arrays[1].reshape(-1, 5), outputs.reshape(-1, 5), costs["cost"]


def test_cross_entropy_reports_wrong_outputs_and_missed_images():
    with small_net(LOGISTIC, params_of(LOGISTIC), labels=(4, 1, 1)) as net:
        labels, probs, costs = costs_of(net)
        cost = net.graph.main_cost.layer
    entropy = -np.where(labels == 1, np.log(probs), np.log(1 - probs)).sum()
    wrong = ((probs > 0.5) != labels).mean(0).sum()
    missed = (labels[probs.argmax(0), range(5)] == 0).sum()
    np.testing.assert_allclose(costs, [entropy, wrong, missed], rtol=1e-12)
    assert cost.names() == ["cross-entropy", "wrong outputs", "missed images"] and cost.score == 1
    assert wrong > 0 and missed > 0


@pytest.mark.parametrize("name, expected", {
    "sum2": lambda labels, x: (x**2).sum(),
    "rflickr": lambda labels, x: np.log(1 + (x - labels) ** 2).sum(),
}.items())
def test_a_cost_without_an_error_rate_is_judged_by_itself(name, expected):
    layers, own = NETS[name]
    with small_net(layers, params_of(layers, cost=own), labels=(4, 1, 1)) as net:
        labels, outputs, costs = costs_of(net)
        cost = net.graph.main_cost.layer
    np.testing.assert_allclose(costs, [expected(labels, outputs)], rtol=1e-12)
    assert len(cost.names()) == 1 and cost.score == 0


def backward_ops(layers: str) -> list[str]:
    with small_net(layers, params_of(layers), labels=(4, 1, 1)) as net:
        return [step.op for step in net.compile(5, "train").steps if step.phase == "backward"]


def test_cross_entropy_over_a_logistic_neuron_alone_is_one_step():
    assert backward_ops(LOGISTIC)[0] == "bce_logistic_backward"


@pytest.mark.parametrize("layers", [
    pytest.param(NETS["bce over what others read"][0], id="others read the probabilities"),
    pytest.param(LOGISTIC.replace("logistic", "softrelu"), id="another neuron"),
    pytest.param(NETS["bce over softmax"][0], id="no neuron"),
])
def test_cross_entropy_over_anything_else_is_two_steps(layers):
    ops = backward_ops(layers)
    assert "bce_backward" in ops and "bce_logistic_backward" not in ops


def test_a_certain_and_wrong_unit_still_learns():
    """In float32 its probability is 1: where only the rounded 1 - p is left, nothing can be divided by it."""
    layers = LOGISTIC.replace("initB=0.1", "initB=30")
    with small_net(layers, params_of(layers), labels=(4, 1, 1), dtype="float32") as net:
        pixels, labels = arrays_for(net)
        plan = net.plan(5, "check")
        plan.run({0: pixels, 1: labels, "state": net.state(0)})
        plan.synchronize()
        np.testing.assert_allclose(plan.fetch("fc1.b_grad")[0], (1 - labels).sum(-1).reshape(-1), rtol=1e-6)


def test_the_cost_that_reads_labels_judges_a_net():
    layers = DATA + LABELS + fc("fc1", "data", 4) + section("small", type="cost.sum2", inputs="fc1") + HEAD.format("fc1").replace("outputs=10", "outputs=4")
    graph = Graph(parse_config(layers, params_of(layers)).layers, ((3, 6, 6), (1, 1, 1)))
    assert [node.name for node in graph.costs] == ["small", "logprob"] and graph.main_cost.name == "logprob"


MISTAKES = {
    "labels of another shape": (LOGISTIC.replace("outputs=4", "outputs=3"), "[cost] inputs of 4x1x1 and 3x1x1, expected equal ones"),
    "a gate of several numbers": (
        NETS["gsum2"][0].replace("outputs=1", "outputs=2"),
        "[cost] its first input gate_neuron is 2x1x1, expected a gate, one number an image"),
    "crossent": (LOGISTIC.replace(".bce", ".crossent"), "type=cost.crossent: it never ran in the originals"),
    "sum": (LOGISTIC.replace("cost.bce", "sum"), "type=sum: it never ran in the originals; expected eltsum"),
    "dce": (LOGISTIC.replace(".bce", ".dce"), "type=cost.dce: its numbers are counts of each class"),
    "tica": (LOGISTIC.replace(".bce", ".tica"), "type=cost.tica: a type that cuda-convnet knows and this program does not have yet"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_the_words_of_the_config(name):
    layers, expected = MISTAKES[name]
    with pytest.raises(ConfigError) as raised:
        Graph(parse_config(layers, params_of(layers)).layers, ((3, 6, 6), (4, 1, 1)))
    assert expected in str(raised.value)


def test_a_run_with_labels_as_vectors_keeps_the_checkpoint_with_the_fewest_wrong_outputs(place):
    digits = DATA + LABELS + fc("fc1", "data", 10, neuron="logistic", initW=0.05) + section("cost", type="cost.bce", inputs="labels,fc1")
    place.write(digits)
    with open("params.cfg", "w") as file:
        file.write("[fc1]\nepsW=0.01\nepsB=0.01\nmomW=0.9\nmomB=0.9\n[cost]\n")
    out = place.train("--save-path", "saved", "--epochs", "4", "--test-freq", "5")
    first, *_, last = [line for line in out.splitlines() if line.startswith("cost:  ")]
    assert [len(line.split(", ")) for line in (first, last)] == [3, 3]
    wrong = [float(line.split(", ")[1]) for line in (first, last)]
    assert wrong[1] < wrong[0] and wrong[1] < 0.1
    assert newest("saved").exists()
