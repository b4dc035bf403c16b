"""The checkpoints of cuda-convnet, of the 2012 program and of cuda-convnet2 (SEMANTICS 4.4).

A pickle {"model_state": {"layers", "epoch", "batchnum", ...}, "op": the options}, plain, gzipped or in a zip. `layers` are
dicts of config keys and computed values, in a list whose inputs are numbers, or in a dict by name. What the parsers had
computed is turned back into what the config files said.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convnet.errors import DataError, MissingInput
from convnet.layers import LAYERS, Layer
from convnet.legacy.pickles import Foreign, read_pickle

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
MAX_BYTES = 2 << 30  # unpacked; AlexNet with its momenta has half a GB
BLOCK = 1 << 20
SCALED_BY_AREA = ("rnorm", "cnorm")  # their scale is divided by size^2, that of cmrnorm by size


@dataclass
class OldCheckpoint:
    """layers: name -> its dict, in order; inputs are names. options: name -> value, of the program's command line."""

    path: str
    layers: dict[str, dict]
    epoch: int
    batch: int
    options: dict[str, object]

    def text(self, params: bool) -> str:
        """The layers file, or the params file, that the layers were made of."""
        sections = [f"# Written by convnet-convert: what {Path(self.path).name} says of its net."]
        for name, layer in self.layers.items():
            lines = [f"{spelled}={value}" for spelled, value in self.keys(name, layer, params)]
            if lines or not params:
                sections.append("\n".join([f"[{name}]", *lines]))
        return "\n\n".join(sections) + "\n"

    def keys(self, name: str, layer: dict, params: bool) -> list[tuple[str, str]]:
        """Keys and values of a layer that belong into one of the two files."""
        cls = LAYERS.get(layer["type"], Layer)
        keys = [] if params else [("type", layer["type"])]
        for field in dataclasses.fields(cls):
            if not field.metadata.get("key") or field.metadata["params"] != params:
                continue
            spelled = field.name.split("_")[0] + "".join(word.capitalize() for word in field.name.split("_")[1:])
            if spelled in layer:
                try:
                    text = as_text(original_value(layer, spelled))
                except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError):
                    raise DataError(f"{self.path}: layer {name}: {spelled} is {shown(layer[spelled])}, which is no value of that key; "
                                    "give the config files with --layers and --params") from None
                if text is not None:
                    keys.append((spelled, text))
        return keys


def read_checkpoint(path: str | Path) -> OldCheckpoint:
    """DataError where the file is damaged, or holds something else; MissingInput where it cannot be read."""
    record = read_pickle(unpacked(path), foreign=True, name=str(path))
    state = record.get("model_state") if isinstance(record, dict) else None
    if not isinstance(state, dict) or "layers" not in state:
        raise DataError(f"{path}: a pickle, but no checkpoint of cuda-convnet: expected a dict with model_state and in it layers, "
                        f"found {shown(record)}")
    numbers = [state.get(name) for name in ("epoch", "batchnum")]
    if not all(type(number) is int and 0 < number < 10**15 for number in numbers):
        raise DataError(f"{path}: epoch and batchnum are {shown(numbers)}, expected two numbers from 1")
    return OldCheckpoint(str(path), named_layers(path, state["layers"]), *numbers, options_of(record.get("op")))


def unpacked(path: str | Path) -> bytes:
    """The bytes of the pickle; of a packed one no more than MAX_BYTES."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from None
    try:
        if data.startswith(GZIP):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                return read_bounded(path, stream)
        if data.startswith(ZIP):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if len(names := archive.namelist()) != 1:
                    raise DataError(f"{path}: a zip of {len(names)} files, expected one, the pickle of a checkpoint")
                with archive.open(names[0]) as stream:
                    return read_bounded(path, stream)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: damaged, it cannot be unpacked ({error or type(error).__name__}); use another checkpoint") from None
    return data


def read_bounded(path: str | Path, stream) -> bytes:
    """All of an unpacking stream, whose checksum is compared at its end."""
    blocks, size = [], 0
    while block := stream.read(BLOCK):
        size += len(block)
        if size > MAX_BYTES:
            raise DataError(f"{path}: more than {MAX_BYTES >> 30} GB when unpacked; expected a checkpoint. Unpack it by hand if it is one")
        blocks.append(block)
    return b"".join(blocks)


def named_layers(path: str | Path, layers: object) -> dict[str, dict]:
    """By name, inputs too; what a layer must have is there."""
    found = list(layers.values()) if isinstance(layers, dict) else layers
    if not isinstance(found, list) or not all(isinstance(layer, dict) for layer in found):
        raise DataError(f"{path}: layers are {shown(layers)}, expected dicts")
    names = [layer.get("name") for layer in found]
    if not all(isinstance(name, str) and name and name.isprintable() and not set(name) & set("[]\n") for name in names) or len(set(names)) < len(names):
        raise DataError(f"{path}: layers are called {shown(names)}, expected names, each once")
    result = {}
    for name, layer in zip(names, found, strict=True):
        inputs = layer.get("inputs", [])
        if not isinstance(layer.get("type"), str) or not isinstance(inputs, list):
            raise DataError(f"{path}: layer {name} has type {shown(layer.get('type'))} and inputs {shown(inputs)}, expected a word and a list")
        named = [names[index] if type(index) is int and 0 <= index < len(names) else index for index in inputs]
        if not all(isinstance(other, str) and other in names for other in named):
            raise DataError(f"{path}: layer {name} has inputs {shown(inputs)}, expected layers: {shown(names)}")
        result[name] = {**layer, "inputs": named} if named else layer
    return result


def options_of(op: object) -> dict[str, object]:
    """Values by name, of an OptionsParser with Options in it; none where it is something else."""
    options = op.state.get("options") if isinstance(op, Foreign) and isinstance(op.state, dict) else None
    if not isinstance(options, dict):
        return {}
    return {name: option.state["value"] for name, option in options.items()
            if isinstance(option, Foreign) and isinstance(option.state, dict) and "value" in option.state}


# ---- what the parsers computed, undone --------------------------------------------------------------------------------

def original_value(layer: dict, key: str) -> object:
    """What a key of the config was given; None where nothing was."""
    value, kind = layer.get(key), layer["type"]
    if key == "padding":  # kept as the coordinate of the first pixel
        return [abs(padding) for padding in value]
    if key == "filters":  # of all groups
        return [layer["weights"][i].shape[1] // groups for i, groups in enumerate(layer.get("groups", [1] * len(layer["weights"])))]
    if key == "scale" and "norm" in kind:  # divided by the pixels or channels that are summed
        return float(f"{value * (layer['size'] ** 2 if kind in SCALED_BY_AREA else layer['size']):.12g}")
    if key == "outputs" and kind == "sfc":
        return value // layer["parts"]
    if key == "outputs" and kind == "cmpool":
        return layer["outputChannels"]
    if key == "neuron":
        numbers = value["params"]
        return value["type"] + (f"[{','.join(as_text(numbers[name]) for name in sorted(numbers))}]" if numbers else "")
    if key == "gpu":
        devices = [device for device in (value if isinstance(value, list) else [value]) if type(device) is int and device >= 0]
        return devices or None
    if key == "weightSource" and not any(value):
        return None
    return value


def as_text(value: object) -> str | None:
    """A value as config files have it: numbers so that they are read as the same, schedules as type[key=value]."""
    if isinstance(value, (list, tuple)):
        return ",".join(as_text(item) for item in value)
    if isinstance(value, dict):
        numbers = ";".join(f"{name}={as_text(number)}" for name, number in value["params"].items())
        return f"{value['type']}[{numbers}]" if numbers else value["type"]
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("a value is no text")
    return value


def shown(value: object) -> str:
    """A value as a message may quote it."""
    if isinstance(value, dict):
        return f"a dict with {', '.join(repr(key)[:40] for key in list(value)[:6])}" if value else "an empty dict"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, list):
        return "[" + ", ".join(shown(item) for item in value[:6]) + (", ...]" if len(value) > 6 else "]")
    return repr(value)[:80]
