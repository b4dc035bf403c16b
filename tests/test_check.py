"""convnet-check: what it says of a net is what training does."""
from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from convnet.backends import Device
from convnet.cli.check import check
from convnet.cli.train import train
from convnet.config import read_config
from convnet.errors import CannotCreate, CommandLineError, ConfigError
from convnet.net import DataSpec, Net
from convnet.reference import reference

MODELS = Path(__file__).parents[1] / "convnet" / "models"


def files(name):
    return [str(MODELS / name / "layers.cfg"), str(MODELS / name / "params.cfg")]


@pytest.fixture(autouse=True)
def no_memory(monkeypatch):
    """Nothing is allocated by a check."""
    monkeypatch.setattr(Device, "allocate", lambda self, nbytes: pytest.fail("memory was allocated"))


def facts(capsys, name, *options):
    assert check([*files(name), "--backend", "host", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def edited(tmp_path, name, layers=(), params=()):
    """The files of a model with changes."""
    paths = []
    for path, changes in zip(files(name), (layers, params), strict=True):
        text = Path(path).read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        paths.append(tmp_path / Path(path).name)
        paths[-1].write_text(text)
    return [*map(str, paths), "--backend", "host"]


def test_every_layer_has_its_shape_weights_devices_and_rates(capsys):
    layers = {layer["name"]: layer for layer in facts(capsys, "alexnet", "--epochs", "90")["layers"]}
    conv3b = layers["conv3b"]
    assert (conv3b["type"], conv3b["devices"], conv3b["shape"]) == ("conv", [1], [192, 13, 13])
    assert conv3b["weights"] == {"W0": [128, 3, 3, 192], "W1": [128, 3, 3, 192], "b": [192]}
    assert conv3b["rates"]["W1"] == {"start": 0.01, "end": 0.01, "schedule": "const[base=0.01]"}
    assert conv3b["connections"] == 2 * 128 * 9 * 192 * 13 * 13 > conv3b["multiply_adds"] > 0
    assert layers["data"]["devices"] == [] and layers["pool1a"]["weights"] == {}


def test_a_schedule_has_its_rates_at_both_ends(capsys):
    rate = facts(capsys, "digits", "--data-provider", "dummy:1x8x8")["layers"][2]["rates"]["W0"]
    assert (rate["start"], rate["end"]) == pytest.approx((0.02, 0.0002))


def test_rates_that_a_run_lowers(capsys):
    words = ["alexnet", "--lr-steps", "1:0.5,23:0.1,51:0.1,999:0.1", "--lr-drop", "plateau", "--mini", "2"]
    rate = next(layer for layer in facts(capsys, *words)["layers"] if layer["name"] == "fc8")["rates"]["W0"]
    assert (rate["start"], rate["end"]) == pytest.approx((0.005, 0.00005))
    assert check([*files(words[0]), "--backend", "host", *words[1:]]) == 0
    assert "learning rates, over 90 epochs, with --lr-steps 1:0.5,23:0.1,51:0.1,999:0.1, before --lr-drop plateau:\n" in capsys.readouterr().out


def test_the_paper_net_has_60_million_parameters_and_650_thousand_neurons(capsys):
    found = facts(capsys, "alexnet")
    assert (found["totals"]["parameters"], found["totals"]["neurons"]) == (60_965_224, 659_272)
    assert found["data"]["shapes"] == [[3, 224, 224], [1, 1, 1]] and not found["data"]["given"]
    forward = [crossing for crossing in found["crossings"] if crossing["phase"] == "forward"]
    assert [crossing["value"] for crossing in forward] == ["pool2b", "pool2a", "pool5b", "pool5a", "drop6b", "drop6a", "drop7b"]
    assert forward[0]["nbytes"] == 128 * 13 * 13 * 128 * 4


def test_the_memory_is_what_training_takes(capsys, monkeypatch):
    found = facts(capsys, "digits", "--mini", "50", "--data-provider", "dummy:1x8x8")
    monkeypatch.undo()
    data = DataSpec(((1, 8, 8), (1, 1, 1)), (("uint8", (1, 8, 8)), ("float32", (1, 1, 1))), None)
    with Device("host") as device:
        net = Net(read_config(*files("digits")), data, {0: device}, mini=50)
        assert found["memory"] == {"0": net.memory(net.plan(50, "train"))[0]}


def test_the_page_says_the_same(capsys):
    assert check([*files("digits-two-columns"), "--backend", "host"]) == 0
    page = capsys.readouterr().out
    for words in ("dialect V2", "memory for minibatches of", "what crosses between devices", "learning rates, over 60 epochs", "rules:"):
        assert words in page


def test_rates_and_readers_that_are_probably_not_meant_are_told(capsys, tmp_path):
    paths = edited(tmp_path, "alexnet", [("[pool1a]\n", "[twice]\ntype=concat\ninputs=conv1a,act1\n[act1]\ntype=neuron\nneuron=abs\ninputs=conv1a\n[pool1a]\n")],
                   [("epsW=0.01", "epsW=0.00001")])
    text = Path(paths[0]).read_text().replace("[twice]\ntype=concat\ninputs=conv1a,act1\n", "")
    text = text.replace("[probs]", "[sum]\ntype=cost.sum2\ninputs=act1\n[probs]")
    Path(paths[0]).write_text(text)
    Path(paths[1]).write_text(Path(paths[1]).read_text() + "[sum]\ncoeff=1\n")
    assert check([*paths, "--json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any("no learning rate of weights is above 1e-05" in text for text in warnings)
    assert any("[conv1a_neuron] is read by act1 (neuron), and by norm1a as it is before that" in text for text in warnings)


def test_a_net_that_fits_no_image_says_why(tmp_path):
    with pytest.raises(ConfigError, match=r"layers.cfg:\d+: \[conv2\] channels=31, but its input norm1 has 32"):
        check(edited(tmp_path, "digits", [("channels=32\nfilters=64", "channels=31\nfilters=64")], [("data-path=data", "")]))


def test_the_picture_has_a_box_for_each_layer_with_weights_and_arrows_across(tmp_path):
    picture = tmp_path / "net.svg"
    assert check([*files("alexnet"), "--backend", "host", "--svg", str(picture)]) == 0
    root = ElementTree.fromstring(picture.read_text())
    names = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text") if element.get("class") is None]
    assert {"data", "conv1a", "conv5b", "fc6a", "fc8", "128 \N{MULTIPLICATION SIGN} 27 \N{MULTIPLICATION SIGN} 27"} <= set(names)
    classes = [element.get("class") for element in root.iter()]
    assert (classes.count("box"), classes.count("crossing")) == (16, 7)


def test_the_picture_of_replicas_shows_their_acts_cross_to_a_layer_on_one_device(tmp_path):
    picture = tmp_path / "net.svg"
    paths = edited(tmp_path, "digits", [("type=conv\n", "type=conv\ngpu=0,1\n"), ("type=fc\n", "type=fc\ngpu=0\n")], [("data-path=data", "")])
    assert check([*paths, "--svg", str(picture)]) == 0
    classes = [element.get("class") for element in ElementTree.fromstring(picture.read_text()).iter()]
    assert (classes.count("box"), classes.count("arrow"), classes.count("crossing")) == (1 + 2 + 2 + 1 + 1, 2 + 2 + 1 + 1, 1)


def test_strict_legacy_refuses_old_spellings(capsys, tmp_path):
    paths = edited(tmp_path, "digits", params=[("epsW=exp[base=0.02;tgtFactor=100]", "epsW=0.02\nschedW=exp[100]"), ("data-path=data", "")])
    assert check([*paths, "--json"]) == 0
    assert "schedW: exp[100]: parameters without names, read as exp[tgtFactor=100]" in json.loads(capsys.readouterr().out)["warnings"][0]
    for command in (check, train):
        with pytest.raises(ConfigError, match=r"schedW: exp\[100\]: parameters without names, which the released program refuses too"):
            command([*paths, "--strict-legacy"])


def test_a_picture_that_cannot_be_written(tmp_path):
    with pytest.raises(CannotCreate, match="--svg"):
        check([*files("alexnet"), "--backend", "host", "--svg", str(tmp_path)])


HALVES = """
[data]
type=data
dataIdx=0
[labels]
type=data
dataIdx=2
[half1]
type=fc
inputs=data
outputs=3
neuron=logistic
[half2]
type=fc
inputs=data
outputs=4
neuron=logistic
[both]
type=concat
inputs=half1,half2
[cost]
type=cost.bce
inputs=labels,both
"""


def test_a_third_tensor_is_the_matrix_of_labels(capsys, tmp_path, monkeypatch):
    """cuda-convnet2's dataIdx=2; as wide as what the cost compares it with."""
    rates = "epsW=0.1\nepsB=0.1\nmomW=0\nmomB=0\n"
    paths = [tmp_path / "layers.cfg", tmp_path / "params.cfg"]
    paths[0].write_text(HALVES)
    paths[1].write_text(f"[half1]\n{rates}[half2]\n{rates}[cost]\n")
    command = [*map(str, paths), "--backend", "host", "--data-provider", "dummy:1x4x4", "--mini", "8"]
    assert check([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["shapes"] == [[1, 4, 4], [1, 1, 1], [7, 1, 1]]
    monkeypatch.undo()
    assert train([*command, "--max-steps", "1"]) == 0


def test_the_reference_is_printed(capsys):
    assert check(["--reference"]) == 0
    assert capsys.readouterr().out == reference() + "\n"


def test_one_file_is_not_a_net():
    with pytest.raises(CommandLineError, match="expected two config files"):
        check(["layers.cfg"])
