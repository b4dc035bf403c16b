"""Small nets for the tests of layers: random data, and gradients against differences."""
from __future__ import annotations

import contextlib
import re

import numpy as np

from convnet.backends import Device
from convnet.config import parse_config
from convnet.gradcheck import check_gradients
from convnet.net import DataSpec, Net

DATA = "[data]\ntype=data\ndataIdx=0\n"
LABELS = "[labels]\ntype=data\ndataIdx=1\n"
RATES = "epsW=0.1\nepsB=0.1\nmomW=0.9\nmomB=0.9\nwc=0.01\n"
IMAGES = 5


def section(name: str, **keys) -> str:
    return f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())


def fc(name: str, inputs: str, outputs: int, **keys) -> str:
    return section(name, **{"type": "fc", "inputs": inputs, "outputs": outputs, "initW": 0.3, "initB": 0.1, **keys})


def params_of(layers: str, **own: dict) -> str:
    """The params file of a layers file: rates for what has initial weights, and what `own` has of a layer."""
    text = ""
    for name, body in re.findall(r"\[(\w+)\]\n([^\[]*)", layers):
        text += f"[{name}]\n" + (RATES if "initW" in body else "") + "".join(f"{key}={value}\n" for key, value in own.get(name, {}).items())
    return text


def around(layer: str, inputs: str = "conv1", above: str = "layer", **own) -> tuple[str, str]:
    """Both files of data -> conv1, a pixel each -> layer -> fc2 -> logprob; of a layer that reads data alone, without conv1.

    `layer` is its keys, and may hold more sections; fc2 reads `above`; `own` is what the params file has of it.
    """
    conv1 = section("conv1", type="conv", inputs="data", filters=3, filterSize=1, initW=0.5) * ("conv1" in inputs)
    layers = (f"{DATA}{LABELS}{conv1}[layer]\ninputs={inputs}\n{layer}\n{fc('fc2', above, 4)}{section('probs', type='softmax', inputs='fc2')}"
              + section("logprob", type="cost.logreg", inputs="labels,probs"))
    return layers, params_of(layers, layer=own)


@contextlib.contextmanager
def small_net(layers: str, params: str, backend: str = "host", image=(3, 6, 6), labels=(1, 1, 1), dtype="float64", seed=1, class_tree=None, initial=None,
              **options):
    """An initialised net on devices of its own; `labels` is the shape of the data's second tensor, `options` are those of Net."""
    data = DataSpec((image, labels), (("float32", image), ("float32", labels)), None, class_tree)
    with Device(backend, 0, 0, 2) as first, Device(backend, 1, 1, 1) as second:
        net = Net(parse_config(layers, params), data, {0: first, 1: second}, seed, dtype, **options)
        net.initialise(initial)
        yield net


def arrays_for(net: Net, classes: int = 4, images: int = IMAGES, seed: int = 3) -> tuple[np.ndarray, ...]:
    """Normal images, and labels: the class of each, or where they are vectors ones and zeros."""
    rng = np.random.default_rng(seed)
    image, labels = net.data.shapes
    answers = rng.integers(0, classes if labels == (1, 1, 1) else 2, (*labels, images))
    return rng.standard_normal((*image, images)).astype(np.float32), answers.astype(np.float32)


def gradients_of(net: Net, arrays: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    """Those of all weights, as when testing."""
    plan = net.plan(arrays[0].shape[-1], "check")
    plan.run({**dict(enumerate(arrays)), "state": net.state(0)})
    plan.synchronize()
    return {name: plan.fetch(f"{name}_grad")[0] for name in net.rate_slots}


def gradients_are_right(layers: str, params: str, backend: str, classes: int = 4, **kwargs) -> bool:
    with small_net(layers, params, backend, **kwargs) as net:
        return check_gradients(net, arrays_for(net, classes))
