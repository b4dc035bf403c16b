"""The nets that we ship: each parses, plans at 128 images, and is as large as convnet/models/README.md says.

`PYTHONPATH=tests python tests/test_models.py` prints the rows of that table, for after a change that is meant.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from convnet.backends import Device
from convnet.census import connections, crossings, neurons, parameters
from convnet.census import multiply_adds as executed
from convnet.cli.train import train
from convnet.config import parse_config, read_config
from convnet.graph import Graph
from convnet.net import DataSpec, Net

MODELS = Path(__file__).parents[1] / "convnet" / "models"
NETS = sorted(path.parent.name for path in MODELS.glob("*/layers.cfg"))
IMAGES = 128


def data_of(name):
    size = {"caffe-alexnet": 227, "photographs": 56, "cifar-quick": 32}.get(name, 224)
    image = (1, 8, 8) if name.startswith("digits") else (3, size, size)
    label = (1, 1, 1)
    return DataSpec((image, label), (("uint8", image), ("float32", label)), None)


def config_of(name):
    return read_config(MODELS / name / "layers.cfg", MODELS / name / "params.cfg")


@dataclass
class Facts:
    """What the table says of a net; multiply-adds and copied bytes are those of one image."""

    parameters: int
    neurons: int  # outputs of the layers with weights
    multiply_adds: dict[int, int]  # by device; taps on padding are counted
    without_padding: int
    meet: list[str]  # layers that read what lives on the other device
    copied: dict[str, int]  # bytes of the copies of activities forward, of their gradients backward
    memory: dict[int, int]  # bytes by device

    def cells(self):
        """The cells of the table that must be equal, and the last one, which is a bound."""
        by_device = " + ".join(f"{count / 1e6:.1f}" for count in self.multiply_adds.values())
        copied = " + ".join(f"{count:,}" for count in self.copied.values()) if self.meet else "-"
        return [
            f"{self.parameters:,}",
            f"{self.neurons:,}",
            f"{sum(self.multiply_adds.values()):,}",
            f"{self.without_padding:,}",
            by_device,
            ", ".join(self.meet) or "-",
            copied,
            " + ".join(f"{two_digits_up(nbytes / 2**20):g}" for nbytes in self.memory.values()),
        ]


def two_digits_up(number):
    unit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return round(math.ceil(number / unit) * unit, 6)


@functools.cache
def facts(name):
    config, data = config_of(name), data_of(name)
    graph = Graph(config.layers, data.shapes)
    learners = [node for node in graph.nodes if node.weights]
    multiply_adds = dict.fromkeys(graph.devices, 0)
    for node in learners:
        multiply_adds[node.device(0)] += connections(node)
    with contextlib.ExitStack() as stack:
        devices = {i: stack.enter_context(Device("host_baseline", i, i, 1)) for i in graph.devices}
        net = Net(config, data, devices, allocate=False)
        plan = net.compile(IMAGES, "train")
        memory = {device: sum(kinds.values()) for device, kinds in net.memory(plan).items()}
    copies = crossings(plan)
    copied = {
        phase: sum(copy.nbytes for copy in copies if copy.phase == phase) // IMAGES
        for phase in ("forward", "backward")
    }
    # fc6a and fc6b are layer fc6
    meet = dict.fromkeys(re.sub(r"(\d)[ab]$", r"\1", copy.layer) for copy in copies if copy.phase == "forward")
    return Facts(
        parameters(graph),
        sum(map(neurons, learners)),
        multiply_adds,
        executed(plan).total(),
        list(meet),
        copied,
        memory,
    )


def table():
    """Name of a net -> its cells in convnet/models/README.md, behind what it is."""
    lines = (MODELS / "README.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| [")
    ]
    return {re.match(r"\[(.+?)\]", row[0])[1]: row[2:] for row in rows}


def test_every_net_has_its_row():
    assert sorted(table()) == NETS


@pytest.mark.parametrize("name", NETS)
def test_the_files_are_read_without_a_warning(name):
    assert config_of(name).warnings == []


@pytest.mark.parametrize("name", NETS)
def test_the_numbers_of_a_net_are_those_of_the_readme(name):
    assert facts(name).cells()[:-1] == table()[name][:-1]


@pytest.mark.parametrize("name", NETS)
def test_the_memory_of_a_net_is_within_that_of_the_readme(name):
    """A bound, so that a plan may come to need less. The paper had 3 GB a device."""
    bounds = [float(word) * 2**20 for word in table()[name][-1].split(" + ")]
    assert len(bounds) == len(facts(name).memory)
    for nbytes, bound in zip(facts(name).memory.values(), bounds, strict=True):
        assert nbytes <= bound < 3e9


@pytest.mark.parametrize("name", NETS)
def test_the_page_of_a_net_tells_what_it_costs(name):
    page = (MODELS / name / "README.md").read_text()
    assert f"{facts(name).parameters:,}" in page
    assert f"{sum(facts(name).multiply_adds.values()) / 1e6:.1f} million multiply-adds" in page


READINGS = {
    "half the kernels in conv layers 1 to 4": {},
    "half in conv layers 1 to 5": {"conv5": "filters=128"},
    "half in conv layers 1 to 4, and a column's 2048 hidden units": {
        "fc6": "outputs=2048",
        "fc7": "outputs=2048",
    },
    "no kernels left out": {
        "conv1": "filters=96",
        "conv2": "filters=256",
        "conv3": "filters=384",
        "conv4": "filters=384",
    },
}


@pytest.mark.parametrize("reading", READINGS)
def test_one_reading_of_the_one_gpu_net_has_the_59_8_million_parameters_of_its_config(reading):
    folder = MODELS / "alexnet-one-gpu"
    layers = re.sub(r"(?m)^channels=(?!3$).*\n", "", (folder / "layers.cfg").read_text())
    for section, line in READINGS[reading].items():
        key = line.split("=")[0]
        layers = re.sub(rf"(\[{section}\][^\[]*?\n){key}=\d+", rf"\g<1>{line}", layers)
    config = parse_config(layers, (folder / "params.cfg").read_text())
    count = parameters(Graph(config.layers, data_of("alexnet-one-gpu").shapes))
    assert (round(count / 1e6, 1) == 59.8) == (READINGS[reading] == {})
    assert re.search(rf"\| {reading} \| +{count:,} \|", (folder / "README.md").read_text())


def test_the_10184_class_net_is_the_six_conv_net_with_more_classes():
    few, many = (
        [
            line
            for line in (MODELS / name / "layers.cfg").read_text().splitlines()
            if line[:1] != "#"
        ]
        for name in ("alexnet-six-conv", "alexnet-10184")
    )
    changed = [pair for pair in zip(few, many, strict=True) if pair[0] != pair[1]]
    assert changed == [("outputs=1000", "outputs=10184")]


def test_two_columns_learn_the_digits(capsys):
    """At most 6 of the 297 are wrong after 60 epochs; after 4, well under a fifth."""
    files = [str(MODELS / "digits-two-columns" / name) for name in ("layers.cfg", "params.cfg")]
    assert train([*files, "--epochs", "4", "--backend", "host"]) == 0
    tests = re.findall(r"Test output=+\n *logprob: +[\d.]+, ([\d.]+)", capsys.readouterr().out)
    assert float(tests[-1]) < 0.2


if __name__ == "__main__":
    for name in NETS:
        print(f"| [{name}]({name}/README.md) | | {' | '.join(facts(name).cells())} |")
