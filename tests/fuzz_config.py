"""Mutated config pairs through the parser and the graph: nothing may come out but a net or a ConfigError.

`PYTHONPATH=tests python tests/fuzz_config.py 100000 [SEED]` runs so many, and tells the slowest and the most memory.
"""
from __future__ import annotations

import random
import resource
import sys
import time
from pathlib import Path

from convnet.config import parse_config
from convnet.errors import ConfigError
from convnet.graph import Graph

MODELS, FAMILY = Path(__file__).parents[1] / "convnet" / "models", Path(__file__).parent / "family"
SECONDS, MEMORY = 1.0, 64 * 2**20  # that one pair may take
IMAGES = (((3, 224, 224), (1, 1, 1)), ((1, 8, 8), (1, 1, 1)), ((3, 32, 32), (1, 1, 1)), ((3, 32, 32), (20, 1, 1)), None)  # None: the parser alone
WORDS = ["", "0", "-1", "1", "7", "1e9", "1e-400", "1e400", "nan", "99999999999999999999", "2147483647", "1_0", "٣", "0.1,0.2", ",", "[", "]", "[0", "=", ":",
         " ;", "#", "\0", "\x85", "\r", "%(x)s", "dexp[base=0.1;tgtFactor=250;numSteps=4]", "dexp[250,0,4]", "exp[0]", "linear[base=1e308;tgtFactor=1e-308]",
         "tanh[1,2]", "relu", "true", "conv1[0]", "data", "labels", "0,1", "[DEFAULT]", "[convnet-train]", "sched=exp[9]", "wcnorm=1", "type=pool", "type=treefc",
         "type=cost.bce", "inputs=data", "gpu=1", "gpu=0,1,2,3", "gpu=-1", "start=9", "end=1024", "modulesX=9", "  more", "x" * 300]


def mutate(text: str, draw: random.Random) -> str:
    """A few small faults: of characters, of words, of lines, of values, and sometimes of size."""
    for _ in range(draw.randint(1, 6)):
        lines = text.split("\n")
        line = draw.randrange(len(lines))
        at = draw.randint(0, len(text))
        kind = draw.randrange(8)
        if kind == 0:
            text = text[:at] + draw.choice(WORDS) + text[at + draw.randint(0, 4):]
        elif kind == 1:
            text = text[:at] + chr(draw.choice((draw.randrange(128), draw.randrange(0x3000)))) + text[at + 1:]
        elif kind == 2:
            lines[line] = lines[line].partition("=")[0] + "=" + draw.choice(WORDS)
        elif kind == 3:
            lines.insert(line, draw.choice(WORDS))
        elif kind == 4:
            del lines[line]
        elif kind == 5:
            lines.insert(draw.randrange(len(lines)), lines[line])
        elif kind == 6:
            lines[line] = lines[line].partition("=")[0] + "=" + draw.choice(lines).partition("=")[2]
        elif draw.randrange(20) == 0:
            lines[line] = lines[line] + draw.choice(WORDS) * draw.choice((100, 10_000))
        if kind > 1:
            text = "\n".join(lines)
    return text


def pairs() -> list[tuple[str, str]]:
    """Those of the family first, then our models."""
    found = [*sorted(FAMILY.glob("*.layers.cfg")), *sorted(MODELS.glob("*/layers.cfg"))]
    return [(path.read_text(), path.with_name(path.name.replace("layers", "params")).read_text()) for path in found]


def try_pair(layers: str, params: str, images=None, strict: bool = False) -> bool:
    """Whether it is a net; the assertion fails where it takes too long or anything but a ConfigError is raised."""
    start = time.process_time()
    try:
        layers = parse_config(layers, params, strict_legacy=strict).layers
        if images:
            Graph(layers, images)
        good = True
    except ConfigError as error:
        good = False
        assert str(error) and "\0" not in str(error)
    took = time.process_time() - start
    assert took < SECONDS, f"{took:.2f} s"
    return good


def fuzz(count: int, seed: int) -> tuple[int, float]:
    """How many of the mutated pairs are nets, and the longest time that one took."""
    draw, originals, good, slowest = random.Random(seed), pairs(), 0, 0.0
    for i in range(count):
        layers, params = draw.choice(originals)
        if draw.random() < 0.7:
            layers = mutate(layers, draw)
        if draw.random() < 0.5:
            params = mutate(params, draw)
        start = time.process_time()
        try:
            good += try_pair(layers, params, draw.choice(IMAGES), strict=i % 4 == 0)
        except BaseException:
            print(f"pair {i} of seed {seed}:", layers, "-" * 20, params, sep="\n", file=sys.stderr)
            raise
        slowest = max(slowest, time.process_time() - start)
    return good, slowest


if __name__ == "__main__":
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = int(sys.argv[1])
    good, slowest = fuzz(count, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{count} pairs, {good} of them nets, the others a ConfigError; the slowest took {slowest:.3f} s, memory grew by {grown:.1f} MiB")
    sys.exit(grown * 2**20 > MEMORY)
