"""Small nets of one layer between weights below and above, for tests of layers."""
from __future__ import annotations

import numpy as np

from convnet.backends import Device
from convnet.config import parse_config
from convnet.net import DataSpec, Net

IMAGE = (3, 6, 5)
DATA = DataSpec((IMAGE, (1, 1, 1)), (("uint8", IMAGE), ("float32", (1, 1, 1))), np.full(IMAGE, 127.5, np.float32))
RATES = "epsW=0.01\nepsB=0.01\nmomW=0.9\nmomB=0.9\n"

NET = """
[data]
type=data
dataIdx=0
[labels]
type=data
dataIdx=1
[conv1]
type=conv
inputs=data
filters=3
filterSize=1
initW=0.01
[layer]
inputs={inputs}
{layer}
[fc2]
type=fc
inputs={above}
outputs=4
initW=0.1
[probs]
type=softmax
inputs=fc2
[logprob]
type=cost.logreg
inputs=labels,probs
"""


def config_of(layer: str, params: str = "", inputs: str = "conv1", above: str = "layer"):
    """data -> conv1, a pixel each -> layer -> fc2 -> logprob; of a layer that reads data alone, without conv1.

    `layer` may hold more sections; fc2 reads `above`.
    """
    text = NET.format(layer=layer, inputs=inputs, above=above)
    sections = f"[fc2]\n{RATES}[layer]\n{params}\n[logprob]\n"
    if "conv1" in inputs:
        sections += f"[conv1]\n{RATES}"
    else:
        text = text[: text.index("[conv1]")] + text[text.index("[layer]"):]
    return parse_config(text, sections)


def net_of(*args, dtype: str = "float64", backend: str = "host", **kwargs) -> Net:
    net = Net(config_of(*args, **kwargs), DATA, {0: Device(backend, 0, 0, 1)}, dtype=dtype)
    net.initialise()
    return net


def minibatch(images: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (*IMAGE, images), np.uint8), rng.integers(0, 4, (1, 1, 1, images)).astype(np.float32)


def acts_of(net: Net, name: str = "layer") -> np.ndarray:
    """What a layer computes of `minibatch()` when testing."""
    return net.test(minibatch(), keep=(name,))[1][name]


def gradients(net: Net) -> dict[str, np.ndarray]:
    """Those of all weights, as when testing."""
    plan = net.plan(3, "check")
    plan.run({**dict(enumerate(minibatch())), "state": net.state(0)})
    plan.synchronize()
    return {name: plan.fetch(f"{name}_grad")[0] for name in net.rate_slots}
