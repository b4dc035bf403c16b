"""What a net wants of its data, as its config tells: how many classes, the form of the labels, the size of images."""
from __future__ import annotations

from .config import Config
from .data import open_provider
from .data.provider import square_shape
from .errors import ConfigError
from .graph import Graph
from .layers import Layer
from .layers.weights import WeightLayer


def net_classes(config: Config) -> int | None:
    """How many numbers the net compares with an image's labels: the outputs of the layers under its cost, or of those that it adds to the labels."""
    outputs: dict[str, int | None] = {}
    compared: list[int | None] = []
    labels = label_layers(config)
    for layer in config.layers:
        below = [outputs[name] for name in layer.inputs]
        if hasattr(layer, "outputs"):
            outputs[layer.name] = layer.outputs and layer.outputs * getattr(layer, "parts", 1)
        elif joins_elements(layer):
            outputs[layer.name] = next(filter(None, below), None)
            compared += [outputs[layer.name]] * bool(labels & {*layer.inputs})
        elif None in below or not below or isinstance(layer, WeightLayer):
            outputs[layer.name] = None
        else:
            outputs[layer.name] = sum(below) if layer.kind in ("concat", "pass") else below[0]
    counts = [outputs[layer.inputs[-1]] for layer in config.layers if layer.is_cost and layer.label_kind]
    return next(filter(None, counts + compared), None)


def joins_elements(layer: Layer) -> bool:
    """Whether it takes inputs of one size, element by element."""
    return layer.kind in ("eltsum", "eltmax") and len(layer.inputs) > 1


def label_layers(config: Config) -> set[str]:
    """The names of the data's second tensor, and of what is made of it alone."""
    names: set[str] = set()
    for layer in config.layers:
        if (layer.on_host and layer.data_idx == 1) or (len(layer.inputs) == 1 and layer.inputs[0] in names):
            names.add(layer.name)
    return names


def label_kind(config: Config) -> str:
    """The form in which the net reads the labels, the data's second tensor; both, where a layer asks for a third."""
    if any(layer.on_host and layer.data_idx == 2 for layer in config.layers):
        return "both"
    labels = label_layers(config)
    kinds = [layer.label_kind for layer in config.layers if layer.is_cost and layer.inputs[0] in labels]
    kinds += ["vector" for layer in config.layers if joins_elements(layer) and labels & {*layer.inputs}]
    return "vector" if "vector" in kinds else "index"


def suitable_provider(config: Config) -> str:
    """Random images of a size that the net takes, found by trying; ConfigError, that of the likeliest size, where none fits."""
    channels = next((layer.channels[0] for layer in config.layers if getattr(layer, "channels", ()) and isinstance(layer, WeightLayer)), 3)
    large = any(getattr(layer, "stride", (1,))[0] > 2 for layer in config.layers if isinstance(layer, WeightLayer))
    errors = []
    for size in ((224, 227, 256) if large else (32, 24, 28, 64, 8, 224)):
        # values from 0 to 1 suit any initial weights; noise of 8 bits is too much for a net that is meant for smaller numbers
        values = channels * size * size
        name = f"dummy-lr-{values}" if square_shape(values) == (channels, size, size) else f"dummy:{channels}x{size}x{size}"
        try:
            provider = open_provider(name, net_classes=net_classes(config), label_kind=label_kind(config))
            Graph(config.layers, provider.shapes, provider.class_tree)
            return name
        except ConfigError as error:
            errors.append(error)
    raise errors[0]
