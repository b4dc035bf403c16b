"""Nets that begin with the weights of others: fine-tuning on other classes, and the paper's sixth convolution."""
from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import convnet
import convnet.cli.data
import convnet.cli.test
import convnet.cli.train
from convnet import cli
from convnet.config import read_config
from convnet.data import open_provider
from convnet.graph import Graph
from convnet.initial import Initial, split_init_from
from convnet.options import Options
from workplace import CONV, DATA, DIGITS, HEAD, RATES, contents, params

MODELS = Path(convnet.__file__).parent / "models"
GENTLE = RATES.replace("0.02", "0.005")
FIVE = (DATA + CONV.format(name="conv1", inputs="data", gpu=0) + "[fc8]\ntype=fc\ninputs=conv1\noutputs=16\ninitW=0.02\nneuron=relu\n"
        + HEAD.format("fc8").replace("outputs=10", "outputs=5"))


@pytest.fixture
def halves(place, tmp_path):
    """The digits 0 to 4, and 5 to 9 with labels of 0 to 4: three batches to train on and one to test, each."""
    provider = open_provider("cifar", DIGITS)
    batches = [provider.read(number).data for number in provider.numbers]
    pixels, labels = (np.concatenate([batch[i] for batch in batches], axis=-1) for i in (0, 1))
    for name, first in (("low", 0), ("high", 5)):
        folder = tmp_path / name
        folder.mkdir()
        chosen = np.flatnonzero((labels.ravel() >= first) & (labels.ravel() < first + 5))[:880]
        for number, part in enumerate(np.split(chosen, 4), start=1):
            np.savez(folder / f"data_batch_{number}.npz", data=pixels[..., part].reshape(64, -1), labels=labels.ravel()[part].astype(int) - first)
        np.savez(folder / "batches.meta.npz", num_vis=64, label_names=[str(first + i) for i in range(5)])
    place.write(FIVE, rates=GENTLE)
    return place


def on(name: str, *words: str) -> list[str]:
    return ["--data-path", name, "--train-range", "1-3", "--test-range", "4", "--mini", "20", "--backend", "host", "--test-freq", "3", *words]


def last_error(save_path: str) -> float:
    return contents(save_path)[0]["test"]["logprob"][1]


def test_a_net_is_fine_tuned_on_other_classes(halves):
    """Its features, learnt from 0 to 4 and left as they are, serve 5 to 9 better than random ones do."""
    halves.run(*on("low", "--save-path", "many", "--epochs", "8"))
    many = contents("many")[1]
    frozen = params(FIVE, rates=GENTLE).replace("0.005", "0", 4)
    assert frozen.count("epsW=0\nepsB=0\n") == 2 and "[fc9]\nepsW=0.005" in frozen
    Path("params.cfg").write_text(frozen)
    out = halves.run(*on("high", "--save-path", "tuned", "--epochs", "4", "--init-from", "many:fc9=random"))
    assert re.search(r"^From many/.*\.ckpt: conv1.W0, conv1.b, fc8.W0, fc8.b\nNot from there, but from the seed: fc9.W0: as --init-from says$", out, re.M)
    assert "learning rate 0 for" not in halves.told
    tuned = contents("tuned")[1]
    for name in ("conv1.W0", "fc8.W0"):
        np.testing.assert_array_equal(tuned[name], many[name])
    assert (tuned["fc9.W0"] != many["fc9.W0"]).all() and contents("tuned")[0]["class_names"] == list("56789")
    halves.run(*on("high", "--save-path", "random", "--epochs", "4"))
    assert "learning rate 0 for conv1.W0" in halves.told
    assert last_error("tuned") < 0.8 * last_error("random")


def test_a_last_layer_of_another_size_begins_anew(halves):
    halves.run(*on("low", "--save-path", "many", "--epochs", "1"))
    halves.write(FIVE.replace("outputs=5", "outputs=10"), rates=GENTLE)
    out = halves.train("--save-path", "tuned", "--init-from", "many", "--max-steps", "1")
    assert "fc9.W0: fc9.W0 has shape (16, 5), expected (16, 10)" in out
    np.testing.assert_allclose(contents("tuned")[1]["conv1.W0"], contents("many")[1]["conv1.W0"], atol=0.1)


def test_a_convolution_more_on_more_classes_and_back(halves):
    """The paper's recipe at small size: its net, one with another convolution on more classes, and that on the first classes again."""
    halves.run(*on("low", "--save-path", "plain", "--epochs", "3"))
    deeper = FIVE.replace("[fc8]\ntype=fc\ninputs=conv1", CONV.format(name="conv2", inputs="conv1", gpu=0) + "[fc8]\ntype=fc\ninputs=conv2").replace("fc9", "fc10").replace("fc8", "fc9")
    halves.write(deeper.replace("outputs=5", "outputs=10"), rates=GENTLE)
    out = halves.train("--save-path", "pretrained", "--init-from", "plain:fc9=fc8", "--test-freq", "5")
    assert "conv1.W0, conv1.b, fc9.W0 (its fc8.W0), fc9.b (its fc8.b)\n" in out and "from the seed: conv2.W0" in out and "from the seed: fc10.W0" in out
    halves.write(deeper, rates=GENTLE)
    out = halves.run(*on("low", "--save-path", "tuned", "--epochs", "1", "--init-from", "pretrained", "--lr-steps", "1:0.1"))
    assert "conv1.W0, conv1.b, conv2.W0, conv2.b, fc9.W0, fc9.b\nNot from there, but from the seed: fc10.W0" in out
    halves.run(*on("low", "--save-path", "random", "--epochs", "1"))
    assert last_error("tuned") < last_error("random")


# ---- the paper's ----------------------------------------------------------------------------------------------------


def graph_of(model: str) -> Graph:
    config = read_config(MODELS / model / "layers.cfg", MODELS / model / "params.cfg")
    return Graph(config.layers, ((3, 224, 224), (1, 1, 1)))


def taken(model: str, source: str, renamed: dict[str, str]) -> dict[str, str]:
    """Tensors of a model by those that it takes of another's checkpoint; only shapes are looked at."""
    tensors = {full: np.broadcast_to(np.float32(0), weights.shape) for node in graph_of(source).nodes for full, weights in node.owned()}
    initial, graph = Initial(Path(), init_from=source, tensors=tensors, renamed=renamed), graph_of(model)
    initial.check([node.name for node in graph.nodes])
    for node in graph.nodes:
        for full, weights in node.owned():
            initial.values(node.layer, full, weights.function, weights.shape, True)
    return initial.taken


def test_pre_training_on_more_classes_gives_all_but_the_last_layer():
    found = taken("alexnet-six-conv", "alexnet-10184", {})
    layers = {name.split(".")[0] for name in found}
    assert all(name == source for name, source in found.items())
    assert layers == {node.name for node in graph_of("alexnet-six-conv").nodes if node.weights} - {"fc9"} and {"conv6a", "conv6b"} <= layers


def test_a_sixth_convolution_comes_into_the_net_of_five():
    """By the words of the documented command."""
    command = re.search(r"--init-from \S+(:fc7a=\S+)", (MODELS / "alexnet" / "README.md").read_text())
    _, renamed = split_init_from(f"plain{command[1]}")
    layers = {name.split(".")[0]: source.split(".")[0] for name, source in taken("alexnet-10184", "alexnet", renamed).items()}
    same = {f"conv{i}{column}" for i in range(1, 6) for column in "ab"}
    assert layers == {**{name: name for name in same}, "fc7a": "fc6a", "fc7b": "fc6b", "fc8a": "fc7a", "fc8b": "fc7b"}


def test_the_documented_commands_can_be_read():
    """Their options exist and have values that make sense, and the models are there; the data are not."""
    text = (MODELS / "alexnet" / "README.md").read_text()
    parsers = {"convnet-data": cli.data, "convnet-train": cli.train, "convnet-test": cli.test}
    seen = []
    for command in re.findall(r"^(?:for .* do )?(convnet-(?:data|train|test) [^;\n]*)", text, re.M):
        for name, value in re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.M):
            command = command.replace(f"${name}", value)
        program, *words = shlex.split(command.replace("$seed", "1"))
        found = vars(parsers[program].build_parser().parse_args(words))
        seen.append(program)
        if program == "convnet-train":
            assert (MODELS.parent.parent / found["layers_cfg"]).exists() and (MODELS.parent.parent / found["params_cfg"]).exists()
            options = Options()
            options.command({name: found[name] for name in Options.fields()})
            options.check()
            split_init_from(options.init_from or "")
    assert sorted(seen) == ["convnet-data"] * 3 + ["convnet-test"] * 4 + ["convnet-train"] * 4
