"""Any text is a net or a ConfigError, within a second and 64 MB."""
from __future__ import annotations

import tracemalloc

import pytest

from convnet.cfgfile import MAX_BYTES
from fuzz_config import MEMORY, fuzz, pairs, try_pair

HALF = MAX_BYTES // 2


def test_mutated_pairs_are_nets_or_config_errors():
    good, _ = fuzz(400, seed=5)
    assert 20 < good < 380


LAYERS, PARAMS = pairs()[-1]
LARGE = {
    "continued lines": LAYERS + "[more]\ntype=fc\ninputs=a" + "\n b" * (HALF // 3),
    "sections": "".join(f"[{i}]\n" for i in range(HALF // 9)),
    "layers": "".join(f"[l{i}]\ntype=eltsum\ninputs=l{i - 1}\n" for i in range(1999)),
    "layers that are right": "[l0]\ntype=data\ndataIdx=0\n" + "".join(f"[l{i}]\ntype=eltsum\ninputs=l{i - 1}\n" for i in range(1, 1999)),
    "keys": "[a]\ntype=fc\ninputs=data\n" + "".join(f"k{i}=1\n" for i in range(HALF // 10)),
    "inputs": LAYERS + "[more]\ntype=concat\ninputs=" + "data," * (HALF // 5),
    "commas": LAYERS + "[more]\ntype=fc\noutputs=1\ninputs=data\ninitW=" + "," * HALF,
    "brackets": LAYERS + "[more]\ntype=fc\noutputs=1\ninputs=data\nepsW=" + "[" * HALF,
    "digits": LAYERS + "[more]\ntype=fc\ninputs=data\noutputs=" + "9" * HALF,
    "digits of a schedule": LAYERS + "[more]\ntype=fc\ninputs=data\noutputs=1\nmomW=0\nmomB=0\nepsB=1\nepsW=" + "9" * HALF + "x",
    "a decimal": LAYERS + "[more]\ntype=fc\ninputs=data\noutputs=1\ninitB=0." + "1" * HALF,
    "a neuron": LAYERS + "[more]\ntype=neuron\ninputs=data\nneuron=" + "tanh[" * (HALF // 5),
    "a word": LAYERS + "[more]\ntype=" + "fc" * (HALF // 2),
    "one line": "x" * HALF,
    "bad lines": "[a]\n" + "x\n" * (HALF // 2),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_large_texts_take_neither_time_nor_memory(name):
    try_pair(LARGE[name], PARAMS)
    try_pair(LAYERS, LARGE[name])
    tracemalloc.start()
    try:
        try_untimed(LARGE[name])
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def try_untimed(text: str) -> None:
    """tracemalloc takes time of its own."""
    from convnet.config import parse_config
    from convnet.errors import ConfigError

    with pytest.raises(ConfigError):
        parse_config(text, PARAMS)
