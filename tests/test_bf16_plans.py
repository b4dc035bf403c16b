"""Plans at precision bf16: which tensors are stored in bfloat16, what is converted, what becomes of the gradients."""
from __future__ import annotations

import numpy as np
import pytest

from small_nets import DATA, LABELS, arrays_for, fc, gradients_of, params_of, section, small_net
from test_bfloat16 import BACKENDS, rounded
from test_plan import SMALL, open_net, train_some, two_columns

LAYERS = (DATA + LABELS
          + section("conv1", type="conv", inputs="data", filters=16, filterSize=3, padding=1, initW=0.3, initB=0.1, neuron="relu")
          + section("norm1", type="cmrnorm", inputs="conv1", size=5, scale=0.3, pow=0.75)
          + section("pool1", type="pool", inputs="norm1", pool="max", sizeX=3, stride=2)
          + section("conv2", type="conv", inputs="pool1", filters=40, filterSize=3, padding=1, initW=0.1, initB=0.1, neuron="relu")
          + section("pool2", type="pool", inputs="conv2", pool="avg", sizeX=2, stride=1)
          + fc("fc1", "pool2", 32, neuron="tanh[1,1]") + fc("fc2", "fc1", 4)
          + section("probs", type="softmax", inputs="fc2") + section("logprob", type="cost.logreg", inputs="labels,probs"))
PARAMS = params_of(LAYERS)


def bf16_net(**options):
    return small_net(LAYERS, PARAMS, BACKENDS[-1], image=(3, 9, 9), dtype="float32", precision="bf16", **options)


def steps_of(net, phase="train"):
    return net.plan(64, phase).steps


def test_activities_are_stored_in_it_and_weights_and_labels_are_not():
    with bf16_net() as net:
        values = {value.name: value.dtype for step in steps_of(net) for value in (*step.reads, *step.writes)}
    narrow = {name for name, dtype in values.items() if dtype == "bfloat16"}
    assert {"conv1_neuron", "pool1", "conv2_neuron", "pool2", "fc1_neuron", "fc2", "pool1_grad", "conv2_grad", "fc1_grad"} <= narrow
    assert not {"labels", "probs", "conv1.W0", "conv1.b", "fc2.W0", "fc2.W0_grad", "conv2.b_grad", "fc2.W0.inc"} & narrow


def test_what_reads_the_other_type_gets_a_copy_made_once():
    with bf16_net() as net:
        copies, tested = ([(step.reads[0].name, step.writes[0].name) for step in steps_of(net, phase) if step.op == "scaled_copy"] for phase in ("train", "test"))
    assert copies == [("data", "data:bfloat16"), ("conv1.W0", "conv1.W0:bfloat16"), ("conv2.W0", "conv2.W0:bfloat16")]
    assert tested == [*copies, ("fc2", "fc2:float32")]  # for the softmax, which in training is one step with its cost and takes either


def test_half_the_memory_of_activities():
    def arena(precision):
        with small_net(LAYERS, PARAMS, BACKENDS[-1], image=(3, 32, 32), dtype="float32", precision=precision) as net:
            return net.compile(128, "train").arena_bytes[0]
    assert arena("bf16") < 0.6 * arena("exact")


def test_gradients_are_those_of_float32_within_the_rounding():
    with bf16_net() as net, small_net(LAYERS, PARAMS, BACKENDS[-1], image=(3, 9, 9), dtype="float32") as exact:
        arrays = arrays_for(net, images=64)
        stored, right = gradients_of(net, arrays), gradients_of(exact, arrays)
    for name, gradient in right.items():
        error = np.linalg.norm(stored[name] - gradient) / np.linalg.norm(gradient)
        assert 1e-5 < error < 0.1, f"{name}: {error}"


def test_features_and_costs_are_the_same_whether_kept_or_not():
    with bf16_net() as net:
        arrays = arrays_for(net, images=64)
        costs, _ = net.test(arrays)
        kept_costs, features = net.test(arrays, keep=("conv1", "fc1"))
    assert costs["logprob"].tobytes() == kept_costs["logprob"].tobytes()
    assert features["fc1"].dtype == np.float32 and features["fc1"].tobytes() == rounded(features["fc1"]).astype(np.float32).tobytes()


def test_every_mapping_of_the_columns_gives_the_same_bits():
    results = []
    for b, physical in ((1, {0: 0, 1: 1}), (1, {0: 0, 1: 0}), (0, {0: 0})):
        net = open_net(BACKENDS[-1], two_columns(b), SMALL, physical, precision="bf16")
        crossing = {value.dtype for step in net.compile(12, "train").steps if step.op == "copy" and step.phase != "update" for value in (*step.reads, *step.writes)}
        assert crossing == ({"bfloat16"} if b else set())
        results.append(train_some(net, 3))
        for device in net.devices.values():
            device.close()
    for costs, tensors in results[1:]:
        assert costs.tobytes() == results[0][0].tobytes()
        assert {name: values.tobytes() for name, values in tensors.items()} == {name: values.tobytes() for name, values in results[0][1].items()}


@pytest.mark.parametrize("options", [{"conserve_mem": True}, {"graphs": True}], ids=str)
def test_computing_again_and_graphs_change_no_bit(options):
    results = []
    for more in ({}, options):
        net = open_net(BACKENDS[-1], two_columns(0), SMALL, {0: 0}, precision="bf16", **more)
        costs, tensors = train_some(net, 3)
        results.append([costs.tobytes(), *(values.tobytes() for values in tensors.values())])
        net.devices[0].close()
    assert results[0] == results[1]
