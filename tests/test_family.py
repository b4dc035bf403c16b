"""Config pairs as people of each program wrote them (tests/family): what they mean, and that they train.

The expected numbers are worked out by hand from SEMANTICS, not taken from the program.
"""
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from convnet.cli.check import main as check
from convnet.cli.train import main as train

FAMILY = Path(__file__).parent / "family"
# Pair -> classes, parameters, dialect, shapes and devices of some layers, learning rates at the beginning and the end, warnings in order.
PAIRS = {
    "gradients-2011": (10, 1_950_506, "A12", {
        "conv32": ([16, 32, 32], [0]), "local32_neuron": ([32, 16, 16], [0]), "conv32-2": ([16, 17, 17], [0]), "pool1": ([16, 9, 9], [0]), "fc16c": ([16, 1, 1], [0]),
    }, {"FC10.W1": (1e-4, 1e-4), "fc16c.b": (0.002, 0.002)}, []),
    "cifar-2011": (10, 4_901_258, "V1", {
        "conv1": ([32, 32, 32], [0]), "pool1": ([32, 16, 16], [0]), "local3_dropout": ([64, 16, 16], [0]), "local3_neuron": ([64, 16, 16], [0]),
    }, {"conv1.W0": (0.001, 0.001)}, [r"\[fc64\]: no layer of that name"]),
    "columns-2012": (1000, 396_728, "A12", {
        "conv1a": ([24, 14, 14], [0]), "conv1b": ([24, 14, 14], [1]), "pool1b_neuron": ([24, 7, 7], [1]), "conv2a": ([32, 7, 7], [0]), "cnorm2a": ([32, 7, 7], [0]),
        "hs1b": ([40, 1, 1], [1]), "probs": ([1000, 1, 1], [0]), "logprob": ([3, 1, 1], [0]),
    }, {"conv1a.W0": (0.01, 4e-5), "conv1a.b": (0.02, 8e-5), "conv1b.W0": (0.01, 1e-5), "conv1b.b": (0.02, 2e-5), "conv2b.W1": (0, 0), "fca.W1": (0.01, 0.01)},
        [r"schedB: dexp\[250,0,4\]: parameters without names, read as dexp\[tgtFactor=250,noiseStdev=0,numSteps=4\]",
         r"sched=jdexp\[1000,4\]: an old key, read as schedW=jdexp\[tgtFactor=1000,numSteps=4\] and schedB=jdexp\[tgtFactor=1000,numSteps=4\]", r"wcnorm=0,0: an old key",
         r"schedW: linear\[1,1\]: parameters without names, read as linear\[tgtFactor=1,noiseStdev=1\]", r"\[logprob\] epoch 51= means nothing",
         r"\[logprob\] epoch 68= means nothing", r"learning rate 0 for conv2b.W1"]),
    "tree-2012": (52, 108_020, "A12", {
        "nail": ([3, 16, 16], [0]), "conv1": ([16, 16, 16], [0]), "pool1": ([16, 8, 8], [0]), "fc100": ([52, 1, 1], [0]),
    }, {"fc100.W1": (0.01, 0.01)}, []),
    "tags-2012": (30, 16_806, "A12", {
        "conv1b": ([16, 17, 17], [1]), "sparse": ([16, 9, 9], [1]), "localcombine_neuron": ([8, 3, 3], [1]), "xent": ([3, 1, 1], [1]), "labels": ([30, 1, 1], []),
    }, {"conv1a.b": (0, 0), "sparse.W1": (1e-4, 1e-4)}, [r"learning rate 0 for conv1a.W0", r"no learning rate of weights is above 0.0001"]),
    "differences-2012": (20, 154_670, "A12", {"labels": ([20, 1, 1], []), "diff": ([20, 1, 1], [0])}, {"fc1.W0": (0.001, 0.001)}, []),
    "four-2012": (52, 376_884, "A12", {
        "conv1d": ([8, 15, 15], [3]), "all": ([32, 15, 15], [3]), "fcc": ([13, 1, 1], [2]), "fcd": ([13, 1, 1], [3]), "fc": ([52, 1, 1], [0]), "logprob": ([3, 1, 1], [0]),
    }, {"fca.W0": (0.01, 1e-5), "fca.b": (0.02, 0.02)}, [r"schedW: exp\[1000\]: parameters without names, read as exp\[tgtFactor=1000\]"] * 8),
    "norms-2010": (10, 74_442, "A12", {"pool1": ([32, 15, 15], [0]), "cmnorm1": ([32, 15, 15], [0])}, {"fc10.W0": (0.001, 0.001)}, [
        r"\[rnorm1\] scale= belongs in the params file; taken from here", r"\[rnorm1\] pow= belongs in the params file", r"\[rnorm1\] sizeX= means nothing",
        r"\[cmnorm1\] scale= belongs in the params file", r"\[cmnorm1\] pow= belongs in the params file"]),
    "data-2014": (20, 54_056, "V2", {
        "conv1": ([16, 15, 15], [0, 1]), "pool1": ([16, 7, 7], [0, 1]), "probs": ([20, 1, 1], [0, 1]), "labmat": ([20, 1, 1], []), "xent": ([3, 1, 1], [0, 1]),
    }, {"conv1.W0": (0.02, 8e-5), "fc20.b": (0.04, 0.004)}, []),
    "hybrid-2014": (20, 52_756, "V2", {
        "conv1": ([16, 15, 15], [0, 1, 2, 3]), "fc642": ([16, 1, 1], [2]), "pass": ([64, 1, 1], [0]),
    }, {"conv1.W0": (0.0002, 0.0002), "fc20.b": (0.0004, 0.0004)}, []),
}  # fmt: skip


def files(name: str) -> list[str]:
    return [str(FAMILY / f"{name}.{kind}.cfg") for kind in ("layers", "params")]


def run(command, words: list[str], capsys) -> tuple[str, str]:
    with pytest.raises(SystemExit) as left:
        command(words)
    out, told = capsys.readouterr()
    assert left.value.code == 0, told
    return out, told


def test_every_pair_has_a_row():
    assert {path.name for path in FAMILY.iterdir()} == {Path(file).name for name in PAIRS for file in files(name)}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_the_family_means_what_it_meant(name, capsys):
    classes, parameters, dialect, layers, rates, warnings = PAIRS[name]
    facts = json.loads(run(check, [*files(name), "--data-provider", f"dummy:3x32x32:{classes}", "--epochs", "90", "--json"], capsys)[0])
    assert facts["dialect"] == dialect and facts["totals"]["parameters"] == parameters
    by_name = {layer["name"]: layer for layer in facts["layers"]}
    assert {layer: (by_name[layer]["shape"], by_name[layer]["devices"]) for layer in layers} == layers
    found = {tensor: tuple(by_name[tensor.split(".")[0]]["rates"][tensor.split(".")[1]][end] for end in ("start", "end")) for tensor in rates}
    assert {tensor: pytest.approx(pair, rel=1e-9) for tensor, pair in rates.items()} == found
    assert len(facts["warnings"]) == len(warnings) and all(re.search(*pair) for pair in zip(warnings, facts["warnings"], strict=True)), facts["warnings"]


def halves(text: str) -> str:
    """Every section in two places: keys and, after all others, the rest of them."""
    first, second = [], []
    for section in re.split(r"(?m)^(?=\[)", text):
        lines = section.splitlines()
        middle = len(lines) // 2 if lines and lines[0].startswith("[") and lines[0] != "[DEFAULT]" else len(lines)
        first += lines[:middle]
        second += [lines[0], *lines[middle:]] if middle < len(lines) else []
    return "\n".join([*first, *second])


RESPELLED = {
    "DOS line ends": lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n"),
    "blanks around =": lambda text: re.sub(r"(?m)^(\w+) *[=:]", r"\1 \t = \t", text),
    "colons": lambda text: re.sub(r"(?m)^(\w+) *=", r"\1: ", text),
    "capitals": lambda text: re.sub(r"(?m)^(\w+) *(?==)", lambda key: key[0].upper(), text),
    "comments": lambda text: re.sub(r"(?m)^(\w+ *[=:][^;\r\n]*)$", "\\1 ; was 0.01\n# x=1\n; [y]\nrem z\n", text),
    "a byte order mark, blanks at the ends": lambda text: "\ufeff" + re.sub(r"(?m)(?<=.)$", " \t", text.replace("\r", "")),
    "sections in two places": halves,
    "a second copy of the file": lambda text: f"{text}\n{text}",
}


@pytest.mark.parametrize("how", RESPELLED)
@pytest.mark.parametrize("name", ["gradients-2011", "columns-2012", "norms-2010", "data-2014"])
def test_a_pair_respelled_means_the_same(name, how, capsys, tmp_path):
    found = []
    for change in (str, RESPELLED[how]):
        for file, written in zip(files(name), (tmp_path / "layers.cfg", tmp_path / "params.cfg"), strict=True):
            written.write_bytes(change(Path(file).read_text()).encode())
        words = [str(tmp_path / "layers.cfg"), str(tmp_path / "params.cfg"), "--data-provider", f"dummy:3x32x32:{PAIRS[name][0]}", "--epochs", "90", "--json"]
        facts = json.loads(run(check, words, capsys)[0])
        found.append((facts["layers"], facts["totals"], facts["memory"], facts["dialect"], [text.partition("] ")[2] for text in facts["warnings"]]))
    assert found[0][:4] == found[1][:4]
    assert sorted(map(str.lower, found[0][4])) == sorted(map(str.lower, found[1][4]))


@pytest.mark.parametrize(("name", "backend"), [*((name, "host") for name in PAIRS), *((name, "simt") for name in ("columns-2012", "tree-2012", "tags-2012", "hybrid-2014"))])
def test_a_pair_of_the_family_trains_a_step(name, backend, capsys):
    """Without the number of classes too, which the net tells, but for a tree's."""
    words = [*files(name), "--data-provider", "dummy:3x32x32", "--mini", "4", "--max-steps", "1", "--backend", backend, "--init-from", "random"]
    out, told = run(train, words, capsys)
    assert re.search(r"^1\.1, 4 of 512 images: \w+:  \d", out, re.M), out
    assert "Traceback" not in told
