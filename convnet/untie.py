"""Weights that were shared get a copy each and go their own ways: --conv-to-local and --unshare-weights."""
from __future__ import annotations

import re

import numpy as np

from .cfgfile import suggest
from .config import Config, parse_config
from .errors import CommandLineError
from .graph import Graph
from .layers import Layer


def untied_layers(config: Config, to_local: list[str], unshare: list[str]) -> Config:
    """The config with these changes; the same where there are none. CommandLineError where one cannot be made.

    to_local   conv layers that become local
    unshare    layers that have a copy of the weights they share, as conv2, or as conv2[0] that of one input
    """
    sections = {}  # what they add: a section that appears twice is merged
    for name in to_local:
        layer = layer_of(config, name, f"--conv-to-local {name}")
        if layer.kind != "conv":
            raise CommandLineError(f"--conv-to-local {name}: a layer of type {layer.kind}, expected conv")
        sections[name] = ["type=local"]
    sources: dict[str, list[str]] = {}
    for word in unshare:
        match = re.fullmatch(r"([^\[\]]+)(?:\[(\d{1,9})\])?", word)
        if not match:
            raise CommandLineError(f"--unshare-weights {word}: expected a layer, or one of its inputs, as conv2[0]")
        layer = layer_of(config, match[1], f"--unshare-weights {word}")
        left = sources.setdefault(layer.name, list(getattr(layer, "weight_source", ())))
        inputs = [i for i, source in enumerate(left) if source and match[2] in (None, str(i))]
        if not inputs:
            raise CommandLineError(f"--unshare-weights {word}: no shared weights there; expected a layer with weightSource")
        for i in inputs:
            left[i] = ""
    for name, left in sources.items():
        sections.setdefault(name, []).append(f"weightSource={','.join(left) if any(left) else ''}")
    if not sections:
        return config
    text = "".join(f"\n[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items())
    changed = parse_config(f"{config.layers_text}\n\n# --conv-to-local, --unshare-weights\n{text.lstrip()}", config.params_text, config.layers_file,
                           config.params_file, any(layer.strict_legacy for layer in config.layers))
    changed.options = config.options
    return changed


def layer_of(config: Config, name: str, option: str) -> Layer:
    for layer in config.layers:
        if layer.name == name:
            return layer
    raise CommandLineError(f"{option}: no layer {name} in this net{suggest(name, [layer.name for layer in config.layers])}")


def untied_tensors(before: Graph, after: Graph, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the changed net goes on with. A local layer's filters start without momentum, as in the original."""
    changed = dict(tensors)
    for node in after.nodes:
        for full, weights in node.owned():
            owner = before.by_name[node.name].owners[full.rpartition(".")[2]]
            for name in [full, *(f"{full}.{kept}" for kept in (*weights.kept, "sum"))]:
                if (values := tensors.get(owner + name[len(full):])) is not None:
                    changed[name] = values if values.shape == weights.shape else for_each_pixel(values, weights.shape) * (name == full)
    return changed


def for_each_pixel(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Filters (channels, y, x, filters) as (pixels, channels, y, x, filters); biases of maps as those of their pixels."""
    if values.ndim == 1:
        return np.repeat(values, shape[0] // len(values))
    return np.ascontiguousarray(np.broadcast_to(values, shape))
