"""convnet-train on the digits, for its tests: config files, a folder to run in, what it leaves there."""
from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convnet
from convnet import checkpoint
from convnet.cli.train import main

DIGITS = Path(convnet.__file__).parent / "models" / "digits" / "data"  # five batches of 300 and one of 297, 8 x 8 pixels
COMMAND = [sys.executable, "-m", "convnet.cli.train"]

DATA = """\
[data]
type=data
dataIdx=0
[labels]
type=data
dataIdx=1
"""
HEAD = """\
[fc9]
type=fc
inputs={}
outputs=10
initW=0.05
[probs]
type=softmax
inputs=fc9
[logprob]
type=cost.logreg
inputs=labels,probs
"""
CONV = """\
[{name}]
type=conv
inputs={inputs}
filters=6
filterSize=3
padding=1
initW=0.2
neuron=relu
gpu={gpu}
"""
TINY = DATA + CONV.format(name="conv1", inputs="data", gpu=0) + """\
[pool1]
type=pool
pool=max
inputs=conv1
sizeX=3
stride=2
[drop1]
type=dropout
inputs=pool1
""" + HEAD.format("drop1")
TWO_COLUMNS = (DATA + CONV.format(name="conv1a", inputs="data", gpu=0) + CONV.format(name="conv1b", inputs="data", gpu=1)
               + CONV.format(name="conv2a", inputs="conv1a,conv1b", gpu=0) + CONV.format(name="conv2b", inputs="conv1a,conv1b", gpu=1)
               + HEAD.format("conv2a,conv2b"))
RATES = "epsW=0.02\nepsB=0.02\nmomW=0.9\nmomB=0.9\nwc=0.001\n"
GENTLE = RATES.replace("0.02", "0.0001")  # for random pixels, which are large

NUMBER = r"\d+\.\d{6}"  # as a cost is printed


def params(layers: str, rates: str = RATES, logprob: str = "") -> str:
    weighted = re.findall(r"\[(\w+)\]\ntype=(?:conv|local|fc)", layers)
    text = "".join(f"[{name}]\n{rates}" for name in weighted)
    return text + ("[drop1]\n" if "[drop1]" in layers else "") + f"[logprob]\n{logprob}"


class Workplace:
    """A folder with the two config files, and the program run in it."""

    def __init__(self, folder: Path, capsys, monkeypatch):
        self.capsys = capsys
        monkeypatch.chdir(folder)
        self.write(TINY)

    def write(self, layers: str, **kwargs) -> None:
        Path("layers.cfg").write_text(layers)
        Path("params.cfg").write_text(params(layers, **kwargs))

    def run(self, *words: str, code: int = 0, files: bool = True) -> str:
        """What the program prints, run in this process; what it says on stderr is in `told`."""
        with pytest.raises(SystemExit) as left:
            main([*(["layers.cfg", "params.cfg"] if files else []), *words])
        out, self.told = self.capsys.readouterr()
        assert left.value.code == code, (left.value.code, out, self.told)
        assert "Traceback" not in self.told
        return out

    def train(self, *words: str, code: int = 0) -> str:
        return self.run(*on_digits(*words), code=code)

    def resume(self, path, *words: str, code: int = 0) -> str:
        return self.run("--resume", str(path), *words, files=False, code=code)


def on_digits(*words: str) -> list[str]:
    """Words of a command that trains on the digits; later ones win."""
    return ["--data-path", str(DIGITS), "--train-range", "1-5", "--test-range", "6", "--mini", "50", "--epochs", "2", "--backend", "host", *words]


@contextlib.contextmanager
def started(*words: str, **kwargs):
    process = subprocess.Popen([*COMMAND, "layers.cfg", "params.cfg", *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    with process:
        try:
            yield process
        finally:
            process.kill()


def newest(save_path: str) -> Path:
    return checkpoint.newest_valid(sorted(Path(save_path).glob("ConvNet__*"))[-1])[0]


def contents(save_path: str) -> tuple[dict, dict[str, np.ndarray]]:
    return checkpoint.load(newest(save_path))


def assert_same_bits(save_path: str, other: str) -> None:
    (header, tensors), (other_header, other_tensors) = contents(save_path), contents(other)
    assert header["position"] == other_header["position"], (header["position"], other_header["position"])
    assert tensors.keys() == other_tensors.keys()
    for name, values in tensors.items():
        np.testing.assert_array_equal(values, other_tensors[name], err_msg=name)


def events(kind: str, path: str = "log") -> list[dict]:
    return [event for line in Path(path).read_text().splitlines() if (event := json.loads(line))["event"] == kind]


def logprobs(text: str) -> list[float]:
    return [float(cost) for cost in re.findall(r"^\d+\.\d+\.\.\. logprob:  ([\d.]+)", text, re.M)]
