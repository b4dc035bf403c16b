"""The plan: the steps it records, where it copies, how it shares memory."""
from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from convnet.backends import BACKENDS, Device
from convnet.config import parse_config, read_config
from convnet.net import DataSpec, Net
from convnet.plan import place
from convnet.recorder import Value

ROOT = Path(__file__).parent.parent
ALEXNET = ROOT / "convnet" / "models" / "alexnet"
IMAGENET = DataSpec(((3, 224, 224), (1, 1, 1)), (("uint8", (3, 224, 224)), ("float32", (1, 1, 1))), None)
SMALL = DataSpec(((3, 12, 12), (1, 1, 1)), (("uint8", (3, 14, 14)), ("float32", (1, 1, 1))), np.full((3, 12, 12), 127.5, np.float32))

# Two columns that meet at conv2 and fc3, with every kind of op; gpu= is filled in.
TWO_COLUMNS = """
[data]
type=data
dataIdx=0
[labels]
type=data
dataIdx=1
[conv1a]
type=conv
inputs=data
filters=6
filterSize=3
padding=1
initW=0.2
neuron=relu
gpu=0
[conv1b]
type=conv
inputs=data
filters=6
filterSize=3
padding=1
initW=0.2
neuron=relu
gpu={b}
[norm1a]
type=cmrnorm
inputs=conv1a
size=3
[norm1b]
type=cmrnorm
inputs=conv1b
size=3
[pool1a]
type=pool
pool=max
inputs=norm1a
sizeX=3
stride=2
[pool1b]
type=pool
pool=max
inputs=norm1b
sizeX=3
stride=2
[conv2a]
type=conv
inputs=pool1a,pool1b
filters=5
filterSize=3
initW=0.2
neuron=relu
gpu=0
[conv2b]
type=conv
inputs=pool1a,pool1b
filters=5
filterSize=3
initW=0.2
neuron=relu
gpu={b}
[fc3a]
type=fc
inputs=conv2a,conv2b
outputs=16
initW=0.1
neuron=relu
gpu=0
[fc3b]
type=fc
inputs=conv2a,conv2b
outputs=16
initW=0.1
neuron=relu
gpu={b}
[drop3a]
type=dropout2
inputs=fc3a
keep=0.5
[drop3b]
type=dropout2
inputs=fc3b
keep=0.5
[fc4]
type=fc
inputs=drop3a,drop3b
outputs=7
initW=0.1
gpu=0
[probs]
type=softmax
inputs=fc4
[logprob]
type=cost.logreg
inputs=labels,probs
"""
LEARNING = "epsW=0.05\nepsB=0.05\nmomW=0.9\nmomB=0.9\nwc=0.001\n"
WEIGHT_LAYERS = ("conv1a", "conv1b", "conv2a", "conv2b", "fc3a", "fc3b", "fc4")
PARAMS = "".join(f"[{name}]\n{LEARNING}" for name in WEIGHT_LAYERS)
PARAMS += "".join(f"[norm1{c}]\nscale=0.01\npow=0.75\n[drop3{c}]\nenable=1\n" for c in "ab") + "[logprob]\ncoeff=1\n"


def open_net(backend, config, data, physical=None, **options):
    """The net and its devices; `physical`: logical -> physical, by default each its own."""
    devices = {index: Device(backend, index, (physical or {}).get(index, index), 1) for index in sorted({0, *(physical or {1: 1})})}
    return Net(config, data, devices, **options)


@pytest.fixture(scope="module")
def alexnet_plan():
    net = open_net("host", read_config(ALEXNET / "layers.cfg", ALEXNET / "params.cfg"), IMAGENET, fuse=False)
    yield net.compile(128, "train")
    for device in net.devices.values():
        device.close()


def test_the_plan_of_the_papers_net_is_the_stored_one(alexnet_plan):
    """Before anything is fused, as layers record it. After a change that is meant, write this table there."""
    stored = (ROOT / "tests" / "alexnet_plan.txt").read_text()
    assert alexnet_plan.table() + "\n" == stored


def test_the_papers_net_copies_activities_at_layers_3_6_7_and_8_and_nowhere_else(alexnet_plan):
    copies = [step for step in alexnet_plan.steps if step.op == "copy"]
    forward = {(step.reads[0].name, step.layer) for step in copies if step.phase == "forward"}
    assert forward == {("pool2b", "conv3a"), ("pool2a", "conv3b"), ("pool5b", "fc6a"), ("pool5a", "fc6b"),
                       ("drop6b", "fc7a"), ("drop6a", "fc7b"), ("drop7b", "fc8")}
    backward = {step.reads[0].name for step in copies if step.phase == "backward"}
    assert backward == {"pool2b_grad@0", "pool2a_grad@1", "pool5b_grad@0", "pool5a_grad@1", "drop6b_grad@0", "drop6a_grad@1", "drop7b_grad@0"}
    # and the three numbers of the cost, so that both devices know whether to update
    assert [step.reads[0].name for step in copies if step.phase == "update"] == ["logprob"]


def test_a_step_reads_only_what_lives_on_its_device(alexnet_plan):
    for step in alexnet_plan.steps:
        if step.op != "copy":
            assert {value.device for value in (*step.reads, *step.writes)} == {step.device}


def two_columns(b):
    return parse_config(TWO_COLUMNS.format(b=b), PARAMS)


def train_some(net, updates):
    """Costs and weights after some minibatches of fixed random images, the last one smaller."""
    net.initialise()
    rng = np.random.default_rng(0)
    costs = []
    for step in range(updates):
        images = 9 if step % 3 else 12
        arrays = (rng.integers(0, 256, (3, 14, 14, images), np.uint8), rng.integers(0, 7, (1, 1, 1, images)).astype(np.float32))
        costs.append(net.train(arrays, step, [0.05] * len(net.rate_slots))["logprob"])
    return np.array(costs), net.tensors()


@pytest.mark.parametrize(("backend", "updates"), [("host", 20), ("simt", 3)])
def test_every_mapping_of_the_columns_gives_the_same_bits(backend, updates):
    results = []
    for b, physical in ((1, {0: 0, 1: 1}), (1, {0: 0, 1: 0}), (0, {0: 0})):
        net = open_net(backend, two_columns(b), SMALL, physical)
        results.append(train_some(net, updates))
        for device in net.devices.values():
            device.close()
    for costs, tensors in results[1:]:
        assert costs.tobytes() == results[0][0].tobytes()
        for name, tensor in tensors.items():
            assert tensor.tobytes() == results[0][1][name].tobytes(), name


def test_the_cost_falls():
    net = open_net("host", two_columns(1), SMALL)
    net.initialise()
    rng = np.random.default_rng(0)
    arrays = (rng.integers(0, 256, (3, 14, 14, 16), np.uint8), rng.integers(0, 7, (1, 1, 1, 16)).astype(np.float32))
    costs = [net.train(arrays, 0, [0.005] * len(net.rate_slots))["logprob"][0] for _ in range(60)]
    assert costs[-1] < 0.5 * costs[0]


def test_frozen_weights_cost_nothing():
    frozen = PARAMS.replace(f"[conv1a]\n{LEARNING}", "[conv1a]\n" + LEARNING.replace("epsW=0.05", "epsW=0").replace("epsB=0.05", "epsB=0"))
    steps = open_net("host", parse_config(TWO_COLUMNS.format(b=1), frozen), SMALL).compile(8, "train").steps
    assert not [step for step in steps if step.layer in ("conv1a", "conv1a_neuron", "norm1a") and step.phase != "forward"]
    assert [step for step in steps if step.op == "conv_backward_filters" and step.layer == "conv1b"]


def test_testing_has_no_backward_and_no_update():
    steps = open_net("host", two_columns(1), SMALL).compile(8, "test").steps
    assert {step.phase for step in steps} == {"forward"}
    assert [step.op for step in steps if step.layer == "drop3a"] == ["scaled_copy"]


def test_values_alive_at_the_same_time_do_not_overlap(alexnet_plan):
    for device in alexnet_plan.devices:
        spans = [(alexnet_plan.offsets[value], alexnet_plan.offsets[value] + value.nbytes, *alexnet_plan._lifetimes[value])
                 for value in alexnet_plan.offsets if value.device == device]
        for i, (start, end, first, last) in enumerate(spans):
            for other_start, other_end, other_first, other_last in spans[:i]:
                assert end <= other_start or other_end <= start or last < other_first or other_last < first


def test_memory_is_shared_by_lifetime():
    values = [Value(str(i), (1, 1, 1, 16), "float32", 0) for i in range(10)]
    _, total = place([(value, i, i + 1) for i, value in enumerate(values)])
    assert total == 2 * 64


def test_the_papers_net_fits_in_the_memory_it_had(alexnet_plan):
    assert max(alexnet_plan.arena_bytes.values()) < 3 * 2**30


def test_conserving_memory_gives_the_same_bits():
    results = []
    for conserve in (False, True):
        net = open_net("host", two_columns(1), SMALL, conserve_mem=conserve)
        results.append((train_some(net, 4), net.plan(12, "train")))
    ((costs, tensors), plan), ((lean_costs, lean_tensors), lean) = results
    assert costs.tobytes() == lean_costs.tobytes()
    assert all(tensor.tobytes() == lean_tensors[name].tobytes() for name, tensor in tensors.items())
    again = ["lrn_max_pool_forward" in {step.op for step in made.steps if step.phase == "backward"} for made in (plan, lean)]
    assert again == [False, True]


def test_the_papers_net_takes_a_quarter_less_when_memory_is_conserved(alexnet_plan):
    net = open_net("host", read_config(ALEXNET / "layers.cfg", ALEXNET / "params.cfg"), IMAGENET, conserve_mem=True)
    assert max(net.compile(128, "train").arena_bytes.values()) < 0.75 * max(alexnet_plan.arena_bytes.values())


def test_a_neuron_overwrites_what_only_it_reads(alexnet_plan):
    for step in alexnet_plan.steps:
        if step.op == "neuron_forward":
            assert step.writes[0].root is step.reads[0].root, step.line()


def test_what_is_to_be_looked_at_is_not_overwritten():
    net = open_net("host", two_columns(1), SMALL)
    net.initialise()
    rng = np.random.default_rng(0)
    arrays = (rng.integers(0, 256, (3, 14, 14, 6), np.uint8), np.zeros((1, 1, 1, 6), np.float32))
    _, kept = net.test(arrays, ("conv1a", "conv1a_neuron"))
    assert kept["conv1a"].min() < 0 and (np.maximum(kept["conv1a"], 0) == kept["conv1a_neuron"]).all()


def test_weights_are_updated_before_the_gradients_of_all_are_there(alexnet_plan):
    phases = [step.phase for step in alexnet_plan.steps]
    assert phases.index("update") < len(phases) - phases[::-1].index("backward")


def test_softmax_under_logistic_regression_alone_has_one_gradient(alexnet_plan):
    ops = [step.op for step in alexnet_plan.steps]
    assert "logreg_softmax_backward" in ops and "softmax_backward" not in ops


def test_a_cost_that_is_not_finite_leaves_the_weights_as_they_were():
    net = open_net("host", two_columns(1), SMALL)
    net.initialise()
    net.set("fc4.b", np.full(7, np.nan, np.float32))
    before = net.tensors()
    arrays = (np.zeros((3, 14, 14, 4), np.uint8), np.zeros((1, 1, 1, 4), np.float32))
    costs = net.train(arrays, 0, [0.1] * len(net.rate_slots))
    assert not np.isfinite(costs["logprob"][0])
    for name, tensor in net.tensors().items():
        assert tensor.tobytes() == before[name].tobytes(), name
    assert "bias_forward of fc4" in net.first_not_finite(arrays, 0)


@pytest.mark.parametrize(("folder", "words"), [
    ("src", r"pybind11|Python\.h"),                              # kernels never see Python
    ("convnet/layers", r"\.(device|stream|ptr|handle)\b|backends"),   # layers never see devices
])
def test_rooms_do_not_see_into_each_other(folder, words):
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in (".py", ".h", ".cuh", ".cu", ".cpp"):
            assert not re.search(words, path.read_text()), path


def test_the_plan_never_sees_layer_types():
    from convnet.layers import LAYERS
    text = (ROOT / "convnet" / "plan.py").read_text()
    for kind in LAYERS.keys() - set(BACKENDS):  # cuda is both
        assert f'"{kind}"' not in text
