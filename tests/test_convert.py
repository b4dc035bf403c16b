"""convnet-convert: weights of other programs in, ours out, nothing executed, the same outputs.

The checkpoints in tests/original were written by Python 2.7.18 and numpy 1.16.6 (make_checkpoints.py there).
"""
from __future__ import annotations

import contextlib
import gzip
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import convnet
from convnet import checkpoint
from convnet.cli.convert import convert, main
from convnet.convert import read_weights
from convnet.errors import CommandLineError, ConvnetError, DataError, MissingInput
from convnet.formats.caffe import read_caffemodel
from convnet.formats.torch_file import read_state_dict, write_state_dict
from convnet.legacy import checkpoints
from convnet.legacy.checkpoints import read_checkpoint
from ops.conv import conv_forward
from ops.local import local_forward
from ops.lrn import lrn_forward
from ops.pool import pool

ORIGINAL = Path(__file__).parent / "original"
FILES = ("1.2", "1.2.gz", "1.2.zip")

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
filters=4
filterSize=3
padding=1
initW=0.1
neuron=relu
[conv2]
type=conv
inputs=conv1
filters=3
filterSize=3
groups=2
initW=0.1
[fc3]
type=fc
inputs=conv1,conv2
outputs=5
initW=0.1
[probs]
type=softmax
inputs=fc3
[logprob]
type=cost.logreg
inputs=labels,probs
"""
PARAMS = "".join(f"[{name}]\nepsW=0.1\nepsB=0.1\nmomW=0.9\nmomB=0.9\n" for name in ("conv1", "conv2", "fc3")) + "[logprob]\ncoeff=1\n"
# outputs first, as Caffe and PyTorch have them
SHAPES = {"conv1": ((4, 3, 3, 3), (4,)), "conv2": ((6, 2, 3, 3), (6,)), "fc3": ((5, 4 * 64 + 6 * 36), (5,))}


def random_weights(names=tuple(SHAPES)):
    rng = np.random.default_rng(5)
    return {name: [rng.standard_normal(shape).astype(np.float32) for shape in shapes] for name, shapes in zip(names, SHAPES.values(), strict=True)}


@pytest.fixture
def configs(tmp_path):
    """The options that name the net."""
    (tmp_path / "layers.cfg").write_text(LAYERS)
    (tmp_path / "params.cfg").write_text(PARAMS)
    return ["--layers", str(tmp_path / "layers.cfg"), "--params", str(tmp_path / "params.cfg"), "--image", "3x8x8"]


def matrix(rows, columns, seed):
    """As make_checkpoints.py."""
    return (((np.arange(rows * columns) * 7 + seed) % 17 - 8).reshape(rows, columns) / 8).astype(np.float32)


# ---- the originals' checkpoints ----------------------------------------------------------------------------------------

@pytest.fixture(params=FILES)
def original(request, tmp_path):
    target = tmp_path / "net.ckpt"
    assert convert([str(ORIGINAL / request.param), str(target)]) == 0
    return target


def test_weights_and_momenta_of_the_originals_keep_their_places(original):
    header, tensors = checkpoint.load(original)
    expected = {"conv1.W0": matrix(27, 4, 1).reshape(3, 3, 3, 4), "conv1.b": matrix(4, 1, 6).ravel(), "conv2.W0": matrix(18, 4, 2).reshape(2, 3, 3, 4),
                "conv2.b": matrix(36, 1, 7).ravel(), "local3.W0": matrix(36, 2, 3).reshape(1, 4, 3, 3, 2), "local3.b": matrix(2, 1, 8).ravel(),
                "fc4.W0": matrix(2, 5, 4), "fc4.W1": matrix(36, 5, 5), "fc4.b": matrix(1, 5, 9).ravel()}
    assert tensors.keys() == {*expected, *(f"{name}.inc" for name in expected)}
    for name, values in expected.items():
        np.testing.assert_array_equal(tensors[name], values)
        np.testing.assert_array_equal(tensors[f"{name}.inc"], values / np.float32(64))
    assert header["shapes"] == [[3, 6, 6], [1, 1, 1]]
    assert header["position"] == {"epoch": 1, "index": 2, "image": 0, "step": 0, "sums": {}, "test_due": False}
    assert {name: header["options"][name] for name in ("mini", "epochs", "train_range", "test_range")} == {
        "mini": 16, "epochs": 20, "train_range": [1, 2, 3], "test_range": [4]}


def test_an_imported_net_computes_what_its_formulas_say(original):
    """Against float64 numpy, layer by layer of the net in make_checkpoints.py."""
    images = np.random.default_rng(0).standard_normal((3, 6, 6, 7))
    x = conv_forward(images, matrix(27, 4, 1).reshape(3, 3, 3, 4), stride=1, padding=1, groups=1) + matrix(4, 1, 6).reshape(4, 1, 1, 1)
    x = pool(np.maximum(x, 0), (4, 3, 3, 7), np.max, size=3, stride=2, start=0)
    _, x = lrn_forward(x, 3, 0.25, 0.75, 1.0)
    x = conv_forward(x, matrix(18, 4, 2).reshape(2, 3, 3, 4), stride=1, padding=1, groups=2) + matrix(36, 1, 7).reshape(4, 3, 3, 1)
    x = 2 * np.tanh(0.5 * x)
    local = local_forward(x, matrix(36, 2, 3).reshape(1, 4, 3, 3, 2), stride=1, padding=0, groups=1) + matrix(2, 1, 8).reshape(2, 1, 1, 1)
    x = matrix(2, 5, 4).T @ local.reshape(2, -1) + matrix(36, 5, 5).T @ x.reshape(36, -1) + matrix(1, 5, 9).reshape(5, 1)
    probs = np.exp(x - x.max(0)) / np.exp(x - x.max(0)).sum(0)
    with convnet.load(original, "host") as net:
        np.testing.assert_allclose(net.predict(images.astype(np.float32)), probs, rtol=1e-4, atol=1e-6)


def test_schedules_and_constants_of_the_originals_are_written_as_config(tmp_path):
    text = read_checkpoint(ORIGINAL / "1.2").text(params=True)
    assert "epsB=const[base=0.002]" in text and "scale=0.75\n" in text
    rates = [line for line in text.splitlines() if line.startswith("epsW=dexp[")]
    assert len(rates) == 4 and all(word in rates[0] for word in ("base=0.001", "tgtFactor=10.0", "numSteps=2"))
    layers = read_checkpoint(ORIGINAL / "1.2.gz").text(params=False)
    assert "neuron=tanh[2.0,0.5]" in layers and "filters=2\nfilterSize=3\nchannels=4\nstride=1\npadding=1\ngroups=2" in layers


def test_the_newest_checkpoint_of_a_folder_is_taken(tmp_path):
    for name in ("1.2", "9.3", "10.1"):
        (tmp_path / name).write_bytes((ORIGINAL / "1.2").read_bytes() if name == "10.1" else b"(")
    assert read_weights(tmp_path, None, None, None, False).notes[0].startswith(f"{tmp_path / '10.1'} is a checkpoint of cuda-convnet, 12 layers")


class Calls:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    made = tmp_path / "made"
    record = {"model_state": {"layers": [], "epoch": 1, "batchnum": 1}, "op": Calls(open, str(made), "w")}
    (tmp_path / "1.1").write_bytes(pickle.dumps(record, 2))
    assert read_checkpoint(tmp_path / "1.1").options == {} and not made.exists()


@pytest.mark.parametrize(("record", "words"), [
    ([1, 2], "expected a dict with model_state"), ({"model_state": {"layers": [], "epoch": 0, "batchnum": 1}}, "epoch and batchnum are"),
    ({"model_state": {"layers": 3, "epoch": 1, "batchnum": 1}}, "layers are 3"),
    ({"model_state": {"layers": [{"name": "a", "type": "fc", "inputs": [3]}], "epoch": 1, "batchnum": 1}}, "layer a has inputs"),
    ({"model_state": {"layers": [{"name": "a]"}], "epoch": 1, "batchnum": 1}}, "expected names"),
    ({"model_state": {"layers": [{"name": "a"}], "epoch": 1, "batchnum": 1}}, "layer a has type None")])
def test_other_pickles_are_told(tmp_path, record, words):
    (tmp_path / "1.1").write_bytes(pickle.dumps(record, 2))
    with pytest.raises(DataError, match=words):
        read_checkpoint(tmp_path / "1.1")


def sparse(path, **changes):
    """A checkpoint as of cuda-convnet whose conv layer has random connections; `changes` of that layer."""
    rates = {"momW": [0.9], "momB": 0.9, "wc": [0.0], "epsB": 0.1, "epsW": [0.1], "initB": 0.0, "initW": [0.1]}
    conv = {**rates, "name": "conv", "type": "conv", "inputs": [0], "channels": [4], "filters": 6, "filterSize": [1], "padding": [0], "stride": [1], "groups": [2],
            "randSparse": [True], "filterChannels": [2], "filterConns": [[3, 1, 0, 2]], "sharedBiases": True, "weights": [matrix(2, 6, 0)], "weightsInc": [matrix(2, 6, 1)],
            "biases": matrix(6, 1, 2), "biasesInc": matrix(6, 1, 3), **changes}
    layers = [{"name": "data", "type": "data", "dataIdx": 0, "outputs": 16}, conv, {"name": "cost", "type": "cost.sum2", "inputs": [1], "coeff": 1.0}]
    path.write_bytes(pickle.dumps({"model_state": {"layers": layers, "epoch": 3, "batchnum": 5}}, 2))
    return path


def test_random_connections_are_kept(tmp_path):
    converted = read_weights(sparse(tmp_path / "3.5"), None, None, None, False)
    assert converted.tensors["conv.conns0"].tolist() == [3, 1, 0, 2] and converted.header["shapes"] == ((4, 2, 2),)
    np.testing.assert_array_equal(converted.tensors["conv.W0"], matrix(2, 6, 0).reshape(2, 1, 1, 6))


def test_schedules_beside_the_rates_are_kept(tmp_path):
    dexp = {"type": "dexp", "params": {"tgtFactor": 250.0, "noiseStdev": 0.0, "numSteps": 4}}
    text = read_checkpoint(sparse(tmp_path / "3.5", schedW=[dexp], schedB={"type": "default", "params": {}})).text(params=True)
    assert "epsW=0.1\n" in text and "schedW=dexp[tgtFactor=250.0;noiseStdev=0.0;numSteps=4]\nschedB=default" in text
    rates = {full: weights.rate for node in read_weights(tmp_path / "3.5", None, None, None, False).graph().nodes for full, weights in node.owned()}
    assert rates["conv.W0"].rate(0, 0) == 0.1 and rates["conv.W0"].rate(0.9, 0) == pytest.approx(0.1 / 250)


@pytest.mark.parametrize(("changes", "words"), [
    ({"schedW": [{"type": "exp"}]}, "schedW is"), ({"filterConns": [[3, 1, 0, 4]]}, "not 4 channels from 0 to 3"), ({"filterConns": [7]}, "not 4 channels"), ({"filterConns": None}, "expected filterConns"),
    ({"groups": [0]}, "filters is 6, which is no value"), ({"padding": 3}, "padding is 3"), ({"weights": [np.zeros((2, 6), int)]}, "expected an array of 2x6"),
    ({"biases": None}, "expected an array"), ({"inputs": ["7"]}, "has inputs"), ({"neuron": 3, "channels": np.zeros(2)}, "channels is an array")])
def test_layers_that_nobody_wrote_are_told(tmp_path, changes, words):
    with pytest.raises(DataError, match=words):
        read_weights(sparse(tmp_path / "3.5", **changes), None, None, None, False)


def test_weights_of_another_shape_are_told(tmp_path):
    layers = read_checkpoint(ORIGINAL / "1.2")
    (tmp_path / "layers.cfg").write_text(layers.text(params=False).replace("outputs=5", "outputs=6"))
    (tmp_path / "params.cfg").write_text(layers.text(params=True))
    with pytest.raises(DataError, match="layer fc4: weights W0 has shape 2x5, expected 2x6"):
        read_weights(ORIGINAL / "1.2", str(tmp_path / "layers.cfg"), str(tmp_path / "params.cfg"), None, False)


def test_a_packed_file_is_unpacked_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "MAX_BYTES", 4 << 20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(6 << 20)))
    with pytest.raises(DataError, match="more than 0 GB when unpacked"):
        read_checkpoint(tmp_path / "bomb.gz")


@pytest.mark.parametrize("name", FILES[1:])
def test_a_damaged_packed_file_is_told(tmp_path, name):
    data = (ORIGINAL / name).read_bytes()
    for damaged in (data[:-30], data[:600] + b"?" + data[601:]):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError):
            read_checkpoint(tmp_path / name)


# ---- Caffe --------------------------------------------------------------------------------------------------------------

def message(*fields: tuple[int, bytes | int]) -> bytes:
    """A message of protocol buffers."""
    return b"".join(number(tag << 3) + number(value) if isinstance(value, int) else number(tag << 3 | 2) + number(len(value)) + value for tag, value in fields)


def number(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + number(rest) if rest else bytes([low])


def blob(array: np.ndarray, old: bool) -> bytes:
    data = array.astype("<f4").tobytes()
    if old:
        return message(*zip((1, 2, 3, 4), (1,) * (4 - array.ndim) + array.shape, strict=True), (5, data))
    return message((7, message((1, b"".join(map(number, array.shape))))), (5, data))


def caffemodel(weights: dict, old: bool) -> bytes:
    name, kind, blobs, layer = (4, 5, 6, 2) if old else (1, 2, 7, 100)
    layers = [message((name, b"relu"), (kind, 18 if old else b"ReLU"))]
    layers += [message((name, key.encode()), (kind, 4 if old else b"Convolution"), *((blobs, blob(array, old)) for array in arrays))
               for key, arrays in weights.items()]
    return message((1, b"net"), *((layer, text) for text in layers))


@pytest.mark.parametrize("old", [False, True], ids=["layer", "layers"])
def test_a_caffe_model_gives_a_net_that_reads_red_green_blue(tmp_path, configs, old):
    weights = random_weights()
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights, old))
    assert convert([str(tmp_path / "net.caffemodel"), str(tmp_path / "net.ckpt"), *configs]) == 0
    _, tensors = checkpoint.load(tmp_path / "net.ckpt")
    np.testing.assert_array_equal(tensors["conv1.W0"], weights["conv1"][0].transpose(1, 2, 3, 0)[::-1])
    np.testing.assert_array_equal(tensors["conv2.W0"], weights["conv2"][0].transpose(1, 2, 3, 0))
    np.testing.assert_array_equal(np.concatenate([tensors["fc3.W0"], tensors["fc3.W1"]]), weights["fc3"][0].T)
    np.testing.assert_array_equal(tensors["fc3.b"], weights["fc3"][1])
    assert not tensors["fc3.W1.inc"].any()
    assert convert([str(tmp_path / "net.caffemodel"), str(tmp_path / "net.ckpt"), *configs, "--bgr"]) == 0
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "net.ckpt")[1]["conv1.W0"], weights["conv1"][0].transpose(1, 2, 3, 0))


def test_numbers_of_caffe_may_stand_one_by_one_or_be_doubles(tmp_path):
    one_by_one = b"".join(b"\x2d" + struct.pack("<f", value) for value in (1, 2, 3))
    doubles = message((7, message((1, 3))), (8, struct.pack("<3d", 4, 5, 6)))
    layer = message((1, b"fc"), (7, message((7, message((1, 3)))) + one_by_one), (7, doubles))
    (tmp_path / "net.caffemodel").write_bytes(message((100, layer)))
    first, second = read_caffemodel(tmp_path / "net.caffemodel")["fc"]
    assert first.tolist() == [1, 2, 3] and second.tolist() == [4, 5, 6]


@pytest.mark.parametrize("data", [b"", b"name: 'net'", message((1, b"net")), b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xff" * 20, b"\0\0",
                                  message((100, message((1, b"a"), (7, message((7, message((1, 2**62))), (5, bytes(8))))))),
                                  message((100, message((1, b"a"), (7, message((5, bytes(7)))))))])
def test_other_bytes_are_no_caffe_model(tmp_path, data):
    (tmp_path / "net.caffemodel").write_bytes(data)
    with pytest.raises(DataError, match="expected"):
        read_caffemodel(tmp_path / "net.caffemodel")


# ---- PyTorch ------------------------------------------------------------------------------------------------------------

def state_dict(weights: dict) -> dict:
    return {f"{name}.{which}": array for name, arrays in weights.items() for which, array in zip(("weight", "bias"), arrays, strict=True)}


def test_modules_of_other_names_are_taken_in_their_order(tmp_path, configs):
    weights = random_weights(("features.0", "features.3", "classifier.1"))
    with open(tmp_path / "net.pth", "wb") as file:
        write_state_dict(file, state_dict(weights))
    assert convert([str(tmp_path / "net.pth"), str(tmp_path / "net.ckpt"), *configs]) == 0
    _, tensors = checkpoint.load(tmp_path / "net.ckpt")
    np.testing.assert_array_equal(tensors["conv1.W0"], weights["features.0"][0].transpose(1, 2, 3, 0))
    np.testing.assert_array_equal(tensors["fc3.W1"], weights["classifier.1"][0].T[256:])


def test_modules_in_another_order_are_taken_by_their_shapes(tmp_path, configs):
    state = state_dict(random_weights(("features.0", "features.3", "classifier.1")))
    with open(tmp_path / "net.pth", "wb") as file:
        write_state_dict(file, dict(sorted(state.items())))  # as in safetensors files: classifier before features, bias before weight
    assert convert([str(tmp_path / "net.pth"), str(tmp_path / "net.ckpt"), *configs]) == 0
    _, tensors = checkpoint.load(tmp_path / "net.ckpt")
    np.testing.assert_array_equal(tensors["conv1.W0"], state["features.0.weight"].transpose(1, 2, 3, 0))
    np.testing.assert_array_equal(tensors["fc3.b"], state["classifier.1.bias"])


@pytest.mark.parametrize(("change", "words"), [
    (lambda w: w.pop("fc3"), "has weights for 2 layers"), (lambda w: w["conv2"].__setitem__(0, np.zeros((6, 4, 3, 3), "f4")), "weights 6x4x3x3 .* expected 6x2x3x3"),
    (lambda w: w.update(norm=[np.zeros((2, 2, 2), "f4"), np.zeros(2, "f4")]), "norm.weight.*expected only")])
def test_weights_that_do_not_fit_are_told(tmp_path, configs, change, words):
    weights = random_weights()
    change(weights)
    with open(tmp_path / "net.pth", "wb") as file:
        write_state_dict(file, state_dict(weights))
    with pytest.raises(DataError, match=words):
        convert([str(tmp_path / "net.pth"), str(tmp_path / "net.ckpt"), *configs])
    assert not (tmp_path / "net.ckpt").exists()


def pth(path, record, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", record)
        for name, data in entries.items():
            archive.writestr(f"archive/data/{name}", data)


def tensor(shape=b"(K\x02K\x02t", strides=b"(K\x02K\x01t", kind=b"FloatStorage", key=b"s0", count=b"K\x04") -> bytes:
    """A pickle of {"w": a tensor}."""
    return (b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\n" + kind + b"\nU\x02" + key + b"U\x03cpu" + count + b"tQK\x00"
            + shape + strides + b"\x89NtRs.")


def test_strides_and_types_of_tensors_are_followed(tmp_path):
    pth(tmp_path / "a.pth", tensor(strides=b"(K\x01K\x02t"), s0=np.arange(4, dtype="<f4").tobytes())
    assert read_state_dict(tmp_path / "a.pth")["w"].tolist() == [[0, 2], [1, 3]]
    pth(tmp_path / "a.pth", tensor(kind=b"BFloat16Storage"), s0=struct.pack("<4H", 0x3F80, 0xC000, 0, 0x3F00))
    assert read_state_dict(tmp_path / "a.pth")["w"].tolist() == [[1, -2], [0, 0.5]]


@pytest.mark.parametrize(("record", "words"), [
    (tensor(shape=b"(K\x02K\x03t"), "more than its storage"), (tensor(strides=b"(K\x04K\x01t"), "more than its storage"),
    (tensor(shape=b"(\x8a\x06\0\0\0\0\0\x01K\x02t"), "more than its storage"), (tensor(key=b"s1"), "'s1' is not in the file"),
    (tensor(kind=b"EvilStorage"), "EvilStorage"), (tensor(count=b"K\x05"), "said to have 5 numbers"), (tensor(shape=b"(J\xff\xff\xff\xffK\x02t"), "not those of a tensor"),
    (b"cos\nsystem\n(S'true'\ntR.", "expected a state dict"), (b"}U\x01wcos\nsystem\n(S'true'\ntRs.", "os.system.*expected a tensor"), (b"}.", "expected a state dict")])
def test_hostile_state_dicts_are_refused(tmp_path, record, words):
    pth(tmp_path / "a.pth", record, s0=bytes(16))
    with pytest.raises(DataError, match=words):
        read_state_dict(tmp_path / "a.pth")


def test_a_damaged_state_dict_is_told(tmp_path):
    with open(tmp_path / "a.pth", "wb") as file:
        write_state_dict(file, state_dict(random_weights()))
    data = bytearray((tmp_path / "a.pth").read_bytes())
    data[len(data) // 2] ^= 1  # of a storage: the zip has its CRC
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(DataError, match="CRC"):
        read_state_dict(tmp_path / "a.pth")


# ---- out ----------------------------------------------------------------------------------------------------------------

def test_a_checkpoint_comes_back_from_every_form(original, tmp_path):
    _, tensors = checkpoint.load(original)
    assert convert([str(original), str(tmp_path / "again.ckpt")]) == 0
    assert (tmp_path / "again.ckpt").read_bytes() == original.read_bytes()
    assert convert([str(original), str(tmp_path / "net.npz")]) == 0
    with np.load(tmp_path / "net.npz") as archive:
        assert {name: archive[name].tobytes() for name in archive.files} == {name: array.tobytes() for name, array in tensors.items()}
    assert convert([str(original), str(tmp_path / "net.pth")]) == 0
    state = read_state_dict(tmp_path / "net.pth")
    assert {name: array.shape for name, array in state.items()} == {
        "conv1.weight": (4, 3, 3, 3), "conv1.bias": (4,), "conv2.weight": (4, 2, 3, 3), "conv2.bias": (36,), "local3.weight": (1, 2, 4, 3, 3),
        "local3.bias": (2,), "fc4.weight0": (5, 2), "fc4.weight1": (5, 36), "fc4.bias": (5,)}
    np.testing.assert_array_equal(state["conv1.weight"], tensors["conv1.W0"].transpose(3, 0, 1, 2))
    np.testing.assert_array_equal(state["fc4.weight1"], tensors["fc4.W1"].T)


@pytest.mark.parametrize("layout", ["convnet", "torch"])
def test_safetensors_hold_the_same(tmp_path, layout):
    library = pytest.importorskip("safetensors.numpy")
    assert convert([str(ORIGINAL / "1.2"), str(tmp_path / "net.safetensors"), "--layout", layout]) == 0
    found = library.load_file(tmp_path / "net.safetensors")
    assert found["conv1.weight" if layout == "torch" else "conv1.W0"].shape == ((4, 3, 3, 3) if layout == "torch" else (3, 3, 3, 4))


def test_a_module_of_pytorch_takes_the_state_dict(tmp_path, configs):
    """The same images, the same outputs: in, out, and in PyTorch's own layers."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    module = torch.nn.ModuleDict({"conv1": torch.nn.Conv2d(3, 4, 3, padding=1), "conv2": torch.nn.Conv2d(4, 6, 3, groups=2), "fc3": torch.nn.Linear(472, 5)})
    torch.save(module.state_dict(), tmp_path / "module.pth")
    assert convert([str(tmp_path / "module.pth"), str(tmp_path / "net.ckpt"), *configs]) == 0
    images = np.random.default_rng(1).standard_normal((3, 8, 8, 9)).astype(np.float32)
    with torch.no_grad():
        first = F.relu(module["conv1"](torch.from_numpy(np.moveaxis(images, -1, 0).copy())))
        expected = F.softmax(module["fc3"](torch.cat([first.flatten(1), module["conv2"](first).flatten(1)], 1)), 1).numpy().T
    with convnet.load(tmp_path / "net.ckpt", "host") as net:
        np.testing.assert_allclose(net.predict(images), expected, rtol=1e-4, atol=1e-6)
    assert convert([str(tmp_path / "net.ckpt"), str(tmp_path / "back.pth")]) == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    for name in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc3.bias"):
        assert torch.equal(back[name], module.state_dict()[name])
    assert torch.equal(torch.cat([back["fc3.weight0"], back["fc3.weight1"]], 1), module.state_dict()["fc3.weight"])


def test_an_original_net_computes_the_same_in_pytorch(original, tmp_path):
    """Its own layers, with the tensors of the .pth, on the net of make_checkpoints.py."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    assert convert([str(original), str(tmp_path / "net.pth")]) == 0
    t = torch.load(tmp_path / "net.pth", weights_only=True)
    images = np.random.default_rng(2).standard_normal((3, 6, 6, 5)).astype(np.float32)
    x = F.relu(F.conv2d(torch.from_numpy(np.moveaxis(images, -1, 0).copy()), t["conv1.weight"], t["conv1.bias"], padding=1))
    x = F.local_response_norm(F.max_pool2d(x, 3, 2, ceil_mode=True), 3, 0.75, 0.75, 1.0)
    x = 2 * torch.tanh(0.5 * (F.conv2d(x, t["conv2.weight"], padding=1, groups=2) + t["conv2.bias"].reshape(4, 3, 3)))
    local = torch.einsum("ncyx,fcyx->nf", x, t["local3.weight"][0]) + t["local3.bias"]
    x = F.softmax(F.linear(local, t["fc4.weight0"]) + F.linear(x.flatten(1), t["fc4.weight1"], t["fc4.bias"]), 1)
    with convnet.load(original, "host") as net:
        np.testing.assert_allclose(net.predict(images), x.numpy().T, rtol=1e-4, atol=1e-6)


# ---- the command --------------------------------------------------------------------------------------------------------

def test_what_is_missing_is_asked_for(tmp_path, configs):
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(random_weights(), False))
    for words, error, text in (([], CommandLineError, "--layers layers.cfg"), (configs[:4], CommandLineError, "--image 3x227x227"),
                               ([*configs[:4], "--image", "227"], CommandLineError, "expected channels, height and width")):
        with pytest.raises(error, match=text):
            convert([str(tmp_path / "net.caffemodel"), str(tmp_path / "net.ckpt"), *words])
    with pytest.raises(CommandLineError, match="expected a name that ends in one of"):
        convert([str(ORIGINAL / "1.2"), str(tmp_path / "net.h5")])
    with pytest.raises(MissingInput, match="cannot be read"):
        convert([str(tmp_path / "none"), str(tmp_path / "net.ckpt")])
    (tmp_path / "text").write_text("hello, world")
    with pytest.raises(DataError, match="expected one of a checkpoint of convnet"):
        convert([str(tmp_path / "text"), str(tmp_path / "net.ckpt")])


def test_the_command_says_what_it_wrote(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main([str(ORIGINAL / "1.2"), str(tmp_path / "net.npz")])
    assert left.value.code == 0
    assert "18 tensors, 0.0 MB, read again and found equal" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["net.npz"]


def test_flipped_bytes_in_every_kind_of_file_give_weights_or_an_error(tmp_path, configs):
    """Nothing but our errors, whatever is damaged."""
    with open(tmp_path / "net.pth", "wb") as file:
        write_state_dict(file, state_dict(random_weights()))
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(random_weights(), True))
    rng = np.random.default_rng(4)
    for path in (tmp_path / "net.pth", tmp_path / "net.caffemodel", *(ORIGINAL / name for name in FILES)):
        sample = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(sample)
            for place in rng.integers(0, len(sample), rng.integers(1, 4)):
                damaged[place] = rng.integers(0, 256)
            (tmp_path / f"damaged{path.suffix}").write_bytes(damaged)
            given = configs if path.parent == tmp_path else [None] * 4
            with contextlib.suppress(ConvnetError):
                read_weights(tmp_path / f"damaged{path.suffix}", given[1], given[3], (3, 8, 8) if given[1] else None, False)
