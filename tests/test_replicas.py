"""Layers on several devices: a minibatch split among replicas, passes, shared weights, what crosses in half precision."""
from __future__ import annotations

import numpy as np
import pytest

from convnet.backends import Device
from convnet.config import parse_config
from convnet.errors import ConfigError
from convnet.graph import Graph
from convnet.net import DataSpec, Net

DATA = DataSpec(((3, 8, 8), (1, 1, 1)), (("uint8", (3, 10, 10)), ("float32", (1, 1, 1))), np.full((3, 8, 8), 127.5, np.float32))
STILL = DataSpec(DATA.shapes, (("float32", DATA.shapes[0]), DATA.stored[1]), None)  # with images that no crop is drawn for
LEARNING = "epsW=0.05\nepsB=0.03\nmomW=0.9\nmomB=0.8\nwc=0.001\n"

# {conv}, {fc}: gpu= of the lower and of the upper layers; {more}: of the params of both weight layers.
LAYERS = """
[data]
type=data
dataIdx=0
[labels]
type=data
dataIdx=1
[conv1]
type=conv
inputs=data
filters=5
filterSize=3
padding=1
initW=0.02
neuron=relu
gpu={conv}
[pool1]
type=pool
pool=max
inputs=conv1
sizeX=3
stride=2
[drop1]
type=dropout
inputs=pool1
keep=0.7
[fc2]
type=fc
inputs=drop1
outputs=6
initW=0.2
gpu={fc}
neuron=tanh[1,1]
[fc3]
type=fc
inputs=fc2
outputs=4
initW=0.3
[probs]
type=softmax
inputs=fc3
[logprob]
type=cost.logreg
inputs=labels,probs
"""
PARAMS = "".join(f"[{name}]\n{LEARNING}" for name in ("conv1", "fc2", "fc3")) + "[drop1]\n[logprob]\n"
NO_DROPOUT = PARAMS.replace("[drop1]\n", "[drop1]\nenable=0\n")


def config(conv="0", fc="0", params=PARAMS):
    return parse_config(LAYERS.format(conv=conv, fc=fc), params)


def open_net(config, backend="host", physical=None, data=DATA, **options):
    devices = {index: Device(backend, index, (physical or {}).get(index, index), 1) for index in Graph(config.layers, DATA.shapes).devices}
    net = Net(config, data, devices, **options)
    net.initialise()
    return net


def minibatch(net, images, seed=0):
    rng = np.random.default_rng(seed)
    dtype, shape = net.data.stored[0]
    pixels = rng.integers(0, 256, (*shape, images), np.uint8) if dtype == "uint8" else rng.standard_normal((*shape, images), np.float32)
    return pixels, rng.integers(0, 4, (1, 1, 1, images)).astype(np.float32)


def part(arrays, first, last):
    return tuple(np.ascontiguousarray(array[..., first:last]) for array in arrays)


def train(net, sizes=(12, 12, 5, 12), first=0):
    costs = [net.train(minibatch(net, images, step), step, [0.05] * len(net.rate_slots))["logprob"] for step, images in enumerate(sizes, first)]
    return np.array(costs), net.tensors()


def close(found, expected, tolerance):
    return all(np.abs(found[name] - array).max() <= tolerance * max(np.abs(array).max(), 1e-30) for name, array in expected.items())


@pytest.mark.parametrize("gpu", ["0,1", "0,1,2", "1,0", "0,1,2,3,4,5,6"])
def test_pure_data_parallelism_is_the_run_on_one_device(gpu):
    """In float64, where only the order of the sums of the weights' gradients differs; a minibatch of 5 leaves some of 7 replicas idle."""
    alone_costs, alone = train(open_net(config(), dtype="float64"))
    costs, tensors = train(open_net(config(gpu, gpu), dtype="float64"))
    assert np.abs(costs - alone_costs).max() < 1e-11 and close(tensors, alone, 1e-11)


def test_replicas_have_equal_weights():
    net = open_net(config("0,1,2", "0,1,2"))
    train(net)
    for name in net.rate_slots:
        copies = [net.devices[device].download(net.persistent[f"{name}@{device}"].bound()) for device in range(3)]
        assert copies[0].tobytes() == copies[1].tobytes() == copies[2].tobytes(), name


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize(("conv", "fc"), [("0,1", "0,1"), ("0,1,2,3", "0,1"), ("0,1,2", "1")])
def test_replicas_on_one_physical_device_give_the_same_bits(backend, conv, fc):
    sizes = (12, 5) if backend == "simt" else (12, 12, 5, 1)
    apart = train(open_net(config(conv, fc), backend), sizes)
    together = train(open_net(config(conv, fc), backend, dict.fromkeys(range(4), 0)), sizes)
    assert apart[0].tobytes() == together[0].tobytes()
    assert all(tensor.tobytes() == together[1][name].tobytes() for name, tensor in apart[1].items())


def by_hand(net, conv_layers, passes, sizes):
    """What cuda-convnet2 does with more replicas of the convolutional layers than of the others, on one device.

    A minibatch is trained with in passes, each on a part of it. The upper layers are updated after every pass, with the
    images of that pass; the convolutional ones after the last, with all. Without dropout and random crops.
    """
    weights = {full: w for node in net.graph.nodes for full, w in node.owned()}
    costs = []

    def update(name, gradient, images):
        w, inc = net.get(name), net.get(f"{name}.inc")
        inc = weights[name].momentum * inc - 0.05 * gradient / images - weights[name].decay * 0.05 * w
        net.set(f"{name}.inc", inc)
        net.set(name, w + inc)

    for step, images in enumerate(sizes):
        arrays, size = minibatch(net, images, step), -(-images // passes)
        total, sums = 0, {}
        for first in range(0, images, size):
            count = min(size, images - first)
            plan = net.plan(count, "check")
            plan.run({**dict(enumerate(part(arrays, first, first + count))), "state": net.state(step)})
            total = total + net.costs(plan)["logprob"]
            gradients = {name: plan.fetch(f"{name}_grad")[0] for name in weights}
            for name, gradient in gradients.items():
                if name.startswith(conv_layers):
                    sums[name] = sums.get(name, 0) + gradient
                else:
                    update(name, gradient, count)
        for name, gradient in sums.items():
            update(name, gradient, images)
        costs.append(total)
    return np.array(costs), net.tensors()


@pytest.mark.parametrize(("conv", "fc", "passes"), [("0,1", "0", 2), ("0,1,2", "1", 3), ("0,1,2,3", "0", 4)])
def test_a_hybrid_runs_the_passes_of_cuda_convnet2(conv, fc, passes):
    sizes = (12, 12, 7)
    right_costs, right = by_hand(open_net(config(params=NO_DROPOUT), data=STILL, dtype="float64"), "conv", passes, sizes)
    costs, tensors = train(open_net(config(conv, fc, NO_DROPOUT), data=STILL, dtype="float64"), sizes)
    assert np.abs(costs - right_costs).max() < 1e-11 and close(tensors, right, 1e-11)


def test_in_a_hybrid_the_convolutional_layers_run_once_and_the_others_in_every_pass():
    steps = open_net(config("0,1", "0"), fuse=False).compile(12, "train").steps
    order = [(step.op, step.writes[0].name) for step in steps if step.op in ("conv_forward", "fc_forward", "conv_backward_filters")]
    assert order == [("conv_forward", "conv1/0"), ("conv_forward", "conv1/1"), ("fc_forward", "fc2/0"), ("fc_forward", "fc3/0"),
                     ("fc_forward", "fc2/1"), ("fc_forward", "fc3/1"), ("conv_backward_filters", "conv1.W0_grad"), ("conv_backward_filters", "conv1.W0_grad")]
    updates = [step.layer for step in steps if step.op == "sgd_update"]
    assert updates == ["fc3", "fc3", "fc2", "fc2", "fc3", "fc3", "fc2", "fc2", "conv1", "conv1", "conv1"]  # each rows of W0, and b


@pytest.mark.parametrize("gpu", ["0", "0,1"])
def test_a_period_of_updates_sums_the_gradients_of_several_minibatches(gpu):
    """Three minibatches of 4 with updatePeriod=3 are one of 12."""
    slow = NO_DROPOUT.replace(LEARNING, LEARNING + "updatePeriod=3\n")
    whole = open_net(config(params=NO_DROPOUT), data=STILL, dtype="float64")
    thirds = open_net(config(gpu, gpu, slow), data=STILL, dtype="float64", mini=4)
    rates = [0.05] * len(whole.rate_slots)
    for step in range(0, 9, 3):
        arrays, before = minibatch(whole, 12, step), thirds.tensors()
        whole.train(arrays, step, rates)
        for i in range(3):
            assert all(thirds.get(name).tobytes() == before[name].tobytes() for name in whole.tensor_names())
            thirds.train(part(arrays, 4 * i, 4 * i + 4), step + i, rates)
        assert close(thirds.tensors(), whole.tensors(), 1e-11)


def test_a_run_goes_on_between_two_minibatches_of_one_update():
    slow = config("0,1", "0,1", PARAMS.replace(LEARNING, LEARNING + "updatePeriod=3\n"))
    straight, resumed = open_net(slow, mini=12), open_net(slow, mini=12)
    train(straight, [12] * 4)
    resumed.load(straight.tensors())
    assert {name.rpartition(".")[2] for name in straight.tensor_names()} == {"W0", "b", "inc", "sum"}
    costs, resumed_costs = (train(net, [12] * 4, first=4)[0] for net in (straight, resumed))
    assert np.abs(costs - resumed_costs).max() < 1e-4 * costs.max()


# ---- shared weights ------------------------------------------------------------------------------------------

SHARED = LAYERS.replace("[pool1]", "[twin]\ntype=conv\ninputs=data\nfilters=5\nfilterSize=3\npadding=1\ninitW=0.9\nneuron=relu\nweightSource={source}\ngpu={twin}\n[pool1]")
SHARED = SHARED.replace("[pool1]\ntype=pool\npool=max\ninputs=conv1", "[sum]\ntype=eltsum\ninputs=conv1,twin\n[pool1]\ntype=pool\npool=max\ninputs=sum")


def shared(source="conv1[0]", twin="0"):
    return parse_config(SHARED.format(conv="0", fc="0", source=source, twin=twin), PARAMS + f"[twin]\n{LEARNING}")


def test_a_layer_uses_the_weights_of_another():
    net = open_net(shared())
    assert "twin.W0" not in net.rate_slots and "twin.b" in net.rate_slots
    train(net)
    steps = net.compile(12, "train").steps
    assert [step.adds for step in steps if step.op == "conv_backward_filters"] == [(False,), (True,)]
    assert [value.name for step in steps for value in step.writes].count("conv1.W0.inc") == 1


def test_the_gradient_of_shared_weights_is_that_of_both_uses():
    from convnet.gradcheck import check_gradients
    net = open_net(shared(), dtype="float64")
    assert check_gradients(net, minibatch(net, 4))


@pytest.mark.parametrize(("source", "twin", "message"), [
    ("conv1[0]", "1", "layers.cfg:17: [twin] weightSource=conv1[0]: layers share weights of one gpu, but twin has gpu 1 and conv1 0"),
    ("conv1[1]", "0", "layers.cfg:17: [twin] weightSource=conv1[1]: conv1 has no such weights"),
    ("twin[0]", "0", "layers.cfg:17: [twin] weightSource=twin[0]: twin has no such weights before these"),
    ("conv9", "0", "layers.cfg:17: [twin] weightSource=conv9[0]: no layer of that name above it"),
    ("conv1[", "0", "layers.cfg:25: [twin] weightSource: conv1[: expected a layer and one of its inputs, as conv1[0]"),
])
def test_weights_that_cannot_be_shared_are_refused(source, twin, message):
    with pytest.raises(ConfigError) as caught:
        Graph(shared(source, twin).layers, DATA.shapes)
    assert message in str(caught.value)


# ---- what crosses --------------------------------------------------------------------------------------------

def test_activities_and_gradients_cross_in_half_precision_where_the_config_says_so():
    half = PARAMS.replace("[drop1]\n", "[drop1]\nquantF=half\nquantB=half\n")
    nets = [open_net(config("0", "1", params)) for params in (PARAMS, half)]
    plain, narrow = (net.compile(12, "train").steps for net in nets)
    moved = [{step.reads[0].name: step.reads[0].nbytes for step in steps if step.op == "copy" and step.phase != "update"} for steps in (plain, narrow)]
    assert moved[0] == {"drop1": 5 * 4 * 4 * 12 * 4, "drop1_grad@1": 5 * 4 * 4 * 12 * 4}
    assert moved[1] == {"drop1.half": 5 * 4 * 4 * 16 * 2, "drop1_grad@1.half": 5 * 4 * 4 * 16 * 2}  # rows of 16 bytes' multiples
    costs, half_costs = (train(net)[0] for net in nets)
    assert 0 < np.abs(costs - half_costs).max() < 1e-3 * costs.max()


# Four readers of conv1, on devices that are filled in: the order of the sum of their gradients must not depend on them.
FOUR_READERS = LAYERS[: LAYERS.index("[pool1]")] + "".join(
    f"[fc{name}]\ntype=fc\ninputs={inputs}\noutputs=4\ninitW=0.3\ngpu={{{name}}}\n" for name, inputs in
    (("a", "conv1"), ("b", "conv1,conv1"), ("c", "conv1"), ("d", "conv1"))) + """
[sum]
type=eltsum
inputs=fca,fcb,fcc,fcd
gpu=0
[probs]
type=softmax
inputs=sum
[logprob]
type=cost.logreg
inputs=labels,probs
"""


@pytest.mark.parametrize("places", [(0, 1, 0, 1), (1, 0, 1, 1), (1, 1, 0, 0), (2, 1, 2, 1), (1, 2, 0, 2)])
def test_the_sum_of_many_gradients_does_not_depend_on_the_devices(places):
    def run(places):
        params = "".join(f"[{name}]\n{LEARNING}" for name in ("conv1", "fca", "fcb", "fcc", "fcd")) + "[logprob]\n"
        layers = parse_config(FOUR_READERS.format(conv=0, fc=0, **dict(zip("abcd", places, strict=True))), params)
        return train(open_net(layers))
    costs, tensors = run((0, 0, 0, 0))
    other_costs, other = run(places)
    assert costs.tobytes() == other_costs.tobytes()
    assert all(tensor.tobytes() == other[name].tobytes() for name, tensor in tensors.items())


# ---- what cannot be ------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("conv", "fc", "message"), [
    ("0", "0,1", "layers.cfg:27: [fc2] gpu=0,1: 2 replicas, but its input drop1 has 1, expected as many, or a divisor of them"),
    ("0,1,2", "0,1", "layers.cfg:27: [fc2] gpu=0,1: 2 replicas, but its input drop1 has 3, expected as many, or a divisor of them"),
])
def test_numbers_of_replicas_that_do_not_fit_are_refused(conv, fc, message):
    with pytest.raises(ConfigError) as caught:
        Graph(config(conv, fc).layers, DATA.shapes)
    assert message in str(caught.value)


def test_a_period_that_does_not_fit_the_passes_is_refused():
    params = PARAMS.replace("[conv1]\n", "[conv1]\nupdatePeriod=3\n")
    with pytest.raises(ConfigError, match=r"\[conv1\] updatePeriod=3 for conv1.W0: expected a multiple of 2, that divides the 2 passes"):
        Graph(config("0,1", "0", params).layers, DATA.shapes)


def test_pass_joins_like_concat():
    text = LAYERS.replace("inputs=drop1\noutputs=6", "inputs=both\noutputs=6").replace("[fc2]", "[both]\ntype={kind}\ninputs=drop1,drop1\n[fc2]")
    results = [train(open_net(parse_config(text.format(conv=0, fc=0, kind=kind), PARAMS))) for kind in ("pass", "concat")]
    assert results[0][0].tobytes() == results[1][0].tobytes()
