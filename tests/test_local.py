"""Layers with filters: what they share between pixels, and which channels their groups read."""
from __future__ import annotations

import numpy as np
import pytest

from convnet import checkpoint, load
from convnet.backends import Device
from convnet.config import parse_config
from convnet.errors import DataError
from convnet.net import DataSpec, Net
from workplace import CONV, DATA, HEAD, TINY, assert_same_bits, contents, newest, params

IMAGE, LABEL = (4, 6, 5), (1, 1, 1)
FILTERS = """\
[{name}]
type={kind}
inputs={inputs}
filters={filters}
filterSize=3
padding=1
initW=0.1
{keys}
"""


def filters(name, inputs, kind="conv", filters=2, keys=""):
    return FILTERS.format(name=name, inputs=inputs, kind=kind, filters=filters, keys=keys)


BELOW = filters("below", "data", filters=8, keys="neuron=relu")
SPARSE = "groups=4\nrandSparse=1\nfilterChannels=4"  # each of the 8 channels is read twice
NETS = {
    "local": BELOW + filters("top", "below", "local"),
    "local with groups and a stride": BELOW + filters("top", "below", "local", keys="groups=2\nstride=2"),
    "local of two inputs": BELOW + filters("top", "below,data", "local", keys="groups=2,1\nfilters=2,4"),
    "conv with unshared biases": BELOW + filters("top", "below", keys="sharedBiases=0"),
    "sparse conv": BELOW + filters("top", "below", keys=SPARSE),
    "sparse local": BELOW + filters("top", "below", "local", keys=SPARSE),
    "sparse of some inputs": BELOW + filters("top", "below,data,below", keys="groups=4,1,2\nfilters=2,8,4\nrandSparse=1,0,1\nfilterChannels=2,4,4"),
}


@pytest.fixture
def make():
    """Nets over images of 4 x 6 x 5 whose layer `top` is read by an fc."""
    devices = []

    def make(layers: str, backend: str = "host", seed: int = 1) -> Net:
        text = DATA + layers + HEAD.format("top")
        devices.append(Device(backend, threads=1))
        net = Net(parse_config(text, params(text)), DataSpec((IMAGE, LABEL), (("float32", IMAGE), ("float32", LABEL)), None), {0: devices[-1]}, seed)
        net.initialise()
        return net

    yield make
    for device in devices:
        device.close()


def data(images=5):
    rng = np.random.default_rng(0)
    return rng.standard_normal((*IMAGE, images)).astype(np.float32), rng.integers(0, 10, (*LABEL, images)).astype(np.float32)


def acts(net: Net) -> np.ndarray:
    return net.test(data(), ("top",))[1]["top"]


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_the_cost(place, name, backend):
    layers = NETS[name]
    place.write(DATA + layers + HEAD.format("top"))
    out = place.run("--data-provider", "dummy:4x6x6", "--check-grads", "--mini", "3", "--backend", backend)
    weights = layers.count("[") + layers.count(",data") + layers.count(",below") + 1  # one for each input, and that of fc9
    assert f"ALL {weights + layers.count('[') + 1} TESTS PASSED" in out, out


def test_local_with_the_same_filters_everywhere_is_a_convolution(make):
    shared, local = make(BELOW + filters("top", "below", keys="stride=2")), make(BELOW + filters("top", "below", "local", keys="stride=2"))
    for name in shared.weight_names():
        value = shared.get(name)
        if name == "top.W0":
            value = np.broadcast_to(value, local.get(name).shape)
        elif name == "top.b":
            value = np.repeat(np.arange(2, dtype=np.float32), local.get(name).size // 2)
            shared.set(name, np.arange(2, dtype=np.float32))
        local.set(name, value)
    assert acts(local).shape == (2, 4, 3, 5)
    np.testing.assert_allclose(acts(local), acts(shared), rtol=1e-5, atol=1e-5)


def test_pixels_of_local_learn_apart(make):
    net = make(BELOW + filters("top", "below", "local"))
    net.set("top.W0", np.zeros((30, 8, 3, 3, 2), np.float32))
    net.train(data(), 0, [0.1] * len(net.rate_slots))
    moved = net.get("top.W0")
    assert len(np.unique(np.abs(moved).max((1, 2, 3)), axis=0)) == 30
    corner = moved[0]  # sees 2 x 2 pixels
    assert (corner[:, 0] == 0).all() and (corner[:, :, 0] == 0).all() and (corner[:, 1:, 1:] != 0).any()


def test_it_says_what_it_is(place):
    place.write(DATA + filters("top", "data", "local", keys="neuron=relu") + HEAD.format("top"))
    out = place.train("--max-steps", "1")
    assert "Initialized locally-connected layer 'top' on device 0, producing 8x8 2-channel output" in out


# ---- randSparse -----------------------------------------------------------------------------------------


def sparse(keys=SPARSE, kind="conv"):
    return BELOW + filters("top", "below", kind, keys=keys)


def test_each_permutation_has_every_channel_once(make):
    conns = make(sparse()).get("top.conns0")
    assert conns.shape == (16,)
    for part in (conns[:8], conns[8:]):
        assert sorted(part) == list(range(8))
    assert (conns[:8] != conns[8:]).any() and (conns[:8] != np.arange(8)).any()


def test_connections_are_a_function_of_seed_and_name(make):
    conns = make(sparse()).get("top.conns0")
    assert (conns == make(sparse(), "simt").get("top.conns0")).all()
    assert (conns != make(sparse(), seed=2).get("top.conns0")).any()
    other = make(BELOW + filters("other", "below", keys=SPARSE) + filters("top", "other"))
    assert (conns != other.get("other.conns0")).any()


def test_without_filter_channels_a_group_reads_its_share(make):
    net = make(sparse("groups=2\nrandSparse=1"))
    assert net.get("top.W0").shape == (4, 3, 3, 4) and sorted(net.get("top.conns0")) == list(range(8))


@pytest.mark.parametrize("kind", ["conv", "local"])
def test_channels_in_order_are_those_of_plain_groups(make, kind):
    plain, chosen = make(sparse("groups=2", kind)), make(sparse("groups=2\nrandSparse=1", kind))
    chosen.set("top.conns0", np.arange(8))
    assert acts(chosen).tobytes() == acts(plain).tobytes()
    for net in (plain, chosen):
        net.train(data(), 0, [0.1] * len(net.rate_slots))
    for name, value in plain.tensors().items():
        assert chosen.get(name).tobytes() == value.tobytes(), name


def test_a_group_reads_the_channels_that_it_is_connected_to(make):
    net = make(sparse())
    filters_of_group = net.get("top.W0")[..., 2:4]  # the second of four
    only = np.zeros_like(net.get("top.W0"))
    only[..., 2:4] = filters_of_group
    net.set("top.W0", only)
    conns = net.get("top.conns0")[4:8].astype(int)
    below = net.test(data(), ("below_neuron",))[1]["below_neuron"]
    found = acts(net)
    assert (found[[0, 1, 4, 5, 6, 7]] == 0).all()
    centre = np.einsum("cijn,cijf->fn", below[conns, 1:4, 1:4], filters_of_group, dtype=np.float64)
    np.testing.assert_allclose(found[2:4, 2, 2], centre, rtol=1e-5, atol=1e-5)


SPARSE_TINY = TINY.replace("[pool1]", CONV.format(name="conv2", inputs="conv1", gpu=0) + "groups=4\nrandSparse=1\nfilterChannels=3\n[pool1]").replace(
    "inputs=conv1\nsizeX", "inputs=conv2\nsizeX").replace("type=dropout", "type=hs")  # cuda-convnet2, which has dropout, has no random channels


def test_connections_are_kept_with_the_weights(place):
    place.write(SPARSE_TINY)
    place.train("--save-path", "whole", "--max-steps", "12")
    place.train("--save-path", "parts", "--max-steps", "6")
    conns = contents("parts")[1]["conv2.conns0"]
    assert sorted(conns[:6]) == sorted(conns[6:]) == list(range(6))
    place.resume("parts", "--max-steps", "6")
    assert_same_bits("whole", "parts")
    place.resume("parts", "--max-steps", "1", "--seed", "5")
    assert (contents("parts")[1]["conv2.conns0"] == conns).all()


def test_a_checkpoint_without_connections_is_of_another_net(place):
    place.write(SPARSE_TINY)
    place.train("--save-path", "saved", "--max-steps", "1")
    header, tensors = checkpoint.load(newest("saved"))
    del tensors["conv2.conns0"]
    path = checkpoint.save(newest("saved").parent, "9.9.ckpt", header, tensors)
    with pytest.raises(DataError, match=r"conv2\.conns0 is missing: the weights are of another net"):
        load(path)
