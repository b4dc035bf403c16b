"""Weights in and out: files of other programs to our checkpoints, and our weights to files for other programs.

A layer's weights here have their outputs last (layers/__init__.py); Caffe and PyTorch have them first: (filters, channels, y, x)
and (outputs, inputs). What reads several layers has weights for each of them here, and there weights whose channels are those of all.
"""
from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from . import __version__, checkpoint
from .cfgfile import read_text
from .checkpoint_file import HEADER, MALFORMED
from .config import Config, parse_config
from .errors import CannotCreate, CommandLineError, DataError, MissingInput, WriteFailed
from .formats.caffe import read_caffemodel
from .formats.torch_file import read_state_dict, write_state_dict
from .graph import Graph, Node
from .layers import describe
from .layers.local import Local
from .legacy.checkpoints import GZIP, ZIP, OldCheckpoint, read_checkpoint
from .options import Options
from .predict import MEANING, load_checkpoint, newest_checkpoint
from .trainer import Position

Shapes = tuple[tuple[int, int, int], ...]
KINDS = {"convnet": "a checkpoint of convnet", "cuda-convnet": "a checkpoint of cuda-convnet", "caffe": "a Caffe model", "torch": "a PyTorch state dict",
         "safetensors": "a safetensors file"}


@dataclass
class Converted:
    """A net's weights, momenta and connections as a checkpoint has them, and what happened to them on the way."""

    header: dict
    tensors: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)

    def graph(self) -> Graph:
        header = self.header
        config = parse_config(header["layers_text"], header["params_text"], header["layers_file"], header["params_file"])
        return Graph(config.layers, tuple(tuple(shape) for shape in header["shapes"]), header.get("class_tree"))


# ---- in -----------------------------------------------------------------------------------------------------------------

def kind_of(path: Path) -> str:
    """One of KINDS, by what the file begins with; DataError where it is none of them."""
    try:
        with open(path, "rb") as file:
            begin = file.read(16)
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from None
    if begin.startswith(ZIP):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except MALFORMED as error:
            raise DataError(f"{path}: truncated or damaged, its table of contents cannot be read ({error}); use another file") from None
        if HEADER in names:
            return "convnet"
        return "torch" if any(name.endswith("/data.pkl") for name in names) else "cuda-convnet"
    if begin.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."):
        raise DataError(f"{path}: a file of PyTorch older than 1.6; expected one that a newer torch.save wrote: load and save it there once")
    if begin.startswith((GZIP, b"\x80", b"(")):
        return "cuda-convnet"
    if begin[8:9] == b"{":
        return "safetensors"
    if path.suffix == ".caffemodel" or begin[:1] == b"\n":  # field 1, the name of the net
        return "caffe"
    raise DataError(f"{path}: begins with {begin[:8]!r}; expected one of {', '.join(KINDS.values())}")


def read_weights(path: Path, layers_cfg: str | None, params_cfg: str | None, image: tuple[int, int, int] | None, bgr: bool) -> Converted:
    """`image`: channels, height and width of what the net reads, for files that do not say it; `bgr`: keep the order of Caffe's colours."""
    path = newest(path) if path.is_dir() else path
    kind = kind_of(path)
    if kind == "convnet":
        return Converted(*load_checkpoint(path), [f"{path} is {KINDS[kind]}"])
    if (layers_cfg is None) != (params_cfg is None) or (layers_cfg is None and kind != "cuda-convnet"):
        raise CommandLineError(f"{path} is {KINDS[kind]}: expected its net with --layers layers.cfg --params params.cfg")
    if kind == "cuda-convnet":
        return from_original(read_checkpoint(path), layers_cfg, params_cfg, image)
    config = config_of(read_text(layers_cfg), read_text(params_cfg), layers_cfg, params_cfg)
    if image is None:
        raise CommandLineError(f"{path} is {KINDS[kind]}: expected the size of the images that the net reads, as --image 3x227x227")
    found = pairs(path, read_state_dict(path) if kind == "torch" else read_safetensors(path)) if kind != "caffe" else read_caffemodel(path)
    header = header_of(config, (image, (1, 1, 1)), Options())
    converted = Converted(header, {}, [f"{path} is {KINDS[kind]}"])
    fit(path, converted, found, reverse_colours=kind == "caffe" and not bgr)
    return converted


def newest(folder: Path) -> Path:
    """The newest checkpoint in a folder of ours, or of the originals."""
    numbered = [(tuple(map(int, entry.name.split("."))), entry) for entry in folder.iterdir() if re.fullmatch(r"\d{1,15}\.\d{1,15}", entry.name)]
    return max(numbered)[1] if numbered else newest_checkpoint(folder)[0]


def config_of(layers_text: str, params_text: str, layers_file: str, params_file: str) -> Config:
    return parse_config(layers_text, params_text, str(layers_file), str(params_file))


def header_of(config: Config, shapes: Shapes, options: Options, position: Position | None = None) -> dict:
    """As convnet-train writes it; the images are those that the net sees, their mean subtracted."""
    return {"layers_text": config.layers_text, "params_text": config.params_text, "layers_file": config.layers_file, "params_file": config.params_file,
            "convnet": __version__, "meaning": MEANING, "class_names": [], "crop_border": 0, "shapes": shapes,
            "stored": [("float32", shape) for shape in shapes], "position": asdict(position) if position else None, "best": None,
            "options": options.stored(), "commanded": [], "test": {}}


def from_original(old: OldCheckpoint, layers_cfg: str | None, params_cfg: str | None, image: tuple[int, int, int] | None) -> Converted:
    """Of a checkpoint of cuda-convnet: the config files are regenerated where they are not given."""
    if layers_cfg:
        config = config_of(read_text(layers_cfg), read_text(params_cfg), layers_cfg, params_cfg)
    else:
        config = config_of(old.text(params=False), old.text(params=True), f"{old.path}: layers", f"{old.path}: params")
    options, position = options_of(old)
    converted = Converted(header_of(config, data_shapes(old, image), options, position), {}, [f"{old.path} is {KINDS['cuda-convnet']}, {len(old.layers)} layers"])
    converted.notes += config.warnings
    for node in converted.graph().nodes:
        layer = old.layers.get(node.name, {})
        for name, weights in node.weights.items():
            if node.owners[name] != f"{node.name}.{name}":
                continue
            # fc: (inputs, outputs); conv: (channels * filter pixels, filters); local: (pixels * channels * filter pixels, filters)
            rows = (int(np.prod(weights.shape[:-1])), weights.shape[-1])
            for suffix, key in (("", "weights"), (".inc", "weightsInc")):
                matrix = layer.get(key if name != "b" else key.replace("weights", "biases"))
                if name != "b" and isinstance(matrix, list):
                    matrix = matrix[int(name[1:])] if int(name[1:]) < len(matrix) else None
                where = f"{old.path}: layer {node.name}: {key if name != 'b' else 'biases'} {name}"
                if not isinstance(matrix, np.ndarray) or matrix.dtype.kind != "f":
                    raise DataError(f"{where}: expected an array of {describe(rows)}, found none" + ("" if layer else "; there is no layer of that name"))
                if matrix.size != weights.shape[0] if name == "b" else matrix.shape != rows:
                    raise DataError(f"{where} has shape {describe(matrix.shape)}, expected {describe(rows if name != 'b' else weights.shape)}")
                converted.tensors[f"{node.name}.{name}{suffix}"] = np.ascontiguousarray(matrix, np.float32).reshape(weights.shape)
        for name, fixed in node.fixed.items():
            converted.tensors[f"{node.name}.{name}"] = connections(old, node, name, fixed.shape)
    add_sums(converted)
    return converted


def connections(old: OldCheckpoint, node: Node, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Which channels the groups of a layer read."""
    index, kept = name.removeprefix("conns"), old.layers.get(node.name, {}).get("filterConns")
    if not index.isdecimal() or not isinstance(kept, list) or int(index) >= len(kept):
        raise DataError(f"{old.path}: layer {node.name}: expected filterConns for its {name}, found none")
    channels = node.inputs[int(index)].shape[0]
    values = kept[int(index)]
    values = values.tolist() if isinstance(values, np.ndarray) and values.ndim == 1 else values
    if not isinstance(values, list) or len(values) != shape[0] or not all(type(value) is int and 0 <= value < channels for value in values):
        raise DataError(f"{old.path}: layer {node.name}: its filterConns for input {index} are not {shape[0]} channels from 0 to {channels - 1}")
    return np.array(values, np.float32)


def data_shapes(old: OldCheckpoint, image: tuple[int, int, int] | None) -> Shapes:
    """(channels, height, width) of the data by dataIdx: square images, as the originals had, in the channels that their reader expects."""
    shapes = [(1, 1, 1)]
    for layer in (layer for layer in old.layers.values() if layer["type"] == "data"):
        index, outputs = layer.get("dataIdx"), layer.get("outputs")
        if type(index) is not int or not 0 <= index < 64 or type(outputs) is not int or not 0 < outputs < 2**31:
            raise DataError(f"{old.path}: a data layer has dataIdx={index!r:.40} and {outputs!r:.40} outputs, expected numbers")
        shapes += [(1, 1, 1)] * (index + 1 - len(shapes))
        shapes[index] = (outputs, 1, 1)
    readers = [layer for layer in old.layers.values() if any(old.layers[name]["type"] == "data" for name in layer.get("inputs", []))]
    channels = [count[0] if isinstance(count, list) and count else count for count in (layer.get("channels") for layer in readers)]
    for count in (*channels, 3, 1):
        side = round((shapes[0][0] / count) ** 0.5) if type(count) is int and count > 0 else 0
        if side and count * side * side == shapes[0][0]:
            shapes[0] = (count, side, side)
            break
    return (image or shapes[0], *shapes[1:])


def options_of(old: OldCheckpoint) -> tuple[Options, Position]:
    """The options that mean the same in convnet-train, and where the run goes on."""
    options = Options()
    for name, theirs in (("mini", "minibatch_size"), ("epochs", "num_epochs"), ("test_freq", "testing_freq")):
        if type(number := old.options.get(theirs)) is int and 0 < number < 2**31:
            setattr(options, name, number)
    for name, theirs in (("train_range", "train_batch_range"), ("test_range", "test_batch_range")):
        numbers = old.options.get(theirs)
        if isinstance(numbers, list) and numbers and all(type(n) is int and 0 <= n < 10**9 for n in numbers) and sorted(set(numbers)) == numbers:
            setattr(options, name, numbers)
    options.train_range = options.train_range if old.batch in (options.train_range or []) else [old.batch]
    done = options.train_range.index(old.batch) + 1
    last = done == len(options.train_range)
    return options, Position(epoch=old.epoch + last, index=0 if last else done)


def pairs(path: Path, tensors: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Weights and biases by module, of a state dict whose names end in .weight and .bias."""
    found: dict[str, list[np.ndarray]] = {}
    for name, tensor in tensors.items():
        module, _, which = name.removeprefix("module.").rpartition(".")
        if which not in ("weight", "bias") or tensor.ndim not in ((1,) if which == "bias" else (2, 4)):
            raise DataError(f"{path}: tensor {name!r:.80} of shape {describe(tensor.shape) or 'one number'}: expected only .weight and .bias of "
                            "convolutions and fully connected layers; the config language has no other layers with weights")
        found.setdefault(module, []).insert(0 if which == "weight" else 1, tensor)  # safetensors files are in the order of the alphabet
    for module, tensors in found.items():
        if tensors[0].ndim == 1:
            raise DataError(f"{path}: {module[:60]!r} has a .bias and no .weight")
    return found


def outputs_first(node: Node) -> tuple[int, ...]:
    """The shape of a layer's weights in those programs, of all its inputs."""
    shapes = [node.weights[f"W{i}"].shape for i in range(len(node.inputs))]
    return (shapes[0][-1], sum(shape[0] for shape in shapes), *shapes[0][1:-1])


def matched(path: Path, nodes: list[Node], found: dict[str, list[np.ndarray]]) -> list[str]:
    """Whose weights each layer takes: by name; where the names are others, in the order of the file; where that does not fit, by
    shape, if no two are alike."""
    if {node.name for node in nodes} == found.keys():
        return [node.name for node in nodes]
    if len(nodes) != len(found):
        raise DataError(f"{path} has weights for {len(found)} layers: {', '.join(found)}; the config has {len(nodes)}: {', '.join(n.name for n in nodes)}")
    of_shape = {weights.shape: name for name, (weights, *_) in found.items()}
    wanted = [outputs_first(node) for node in nodes]
    return [of_shape[shape] for shape in wanted] if len(of_shape) == len(found) and set(wanted) == of_shape.keys() else list(found)


def fit(path: Path, converted: Converted, found: dict[str, list[np.ndarray]], reverse_colours: bool) -> None:
    """Gives the layers of the net their weights; every shape is compared."""
    graph = converted.graph()
    nodes = [node for node in graph.nodes if node.weights]
    for node in nodes:
        if node.fixed or isinstance(node.layer, Local) or any(owner != f"{node.name}.{name}" for name, owner in node.owners.items()):
            raise DataError(f"{path}: for layer {node.name}: a layer of type {node.layer.kind} has weights that such files cannot hold; expected conv or fc, "
                            "neither shared nor sparse")
    for node, theirs in zip(nodes, matched(path, nodes, found), strict=True):
        where = f"{path}: {theirs}, for layer {node.name}"
        weights, *biases = found[theirs]
        shapes = [node.weights[f"W{i}"].shape for i in range(len(node.inputs))]
        expected = outputs_first(node)
        if weights.ndim == 4 and weights.shape[:2] == (1, 1) and len(expected) == 2:
            weights = weights[0, 0]  # as Caffe once kept matrices
        if weights.shape != expected or len(biases) > 1 or any(bias.size != node.weights["b"].shape[0] for bias in biases):
            raise DataError(f"{where}: weights {describe(weights.shape)} and biases {' and '.join(describe(b.shape) for b in biases) or 'none'}, "
                            f"expected {describe(expected)} and {describe(node.weights['b'].shape)}")
        if any(shape[1:-1] != shapes[0][1:-1] for shape in shapes) or (len(shapes) > 1 and max(getattr(node.layer, "groups", (1,))) > 1):
            raise DataError(f"{where}: its inputs have filters of different sizes, or groups; expected one input")
        first = 0
        for i, shape in enumerate(shapes):
            own = np.moveaxis(weights[:, first : first + shape[0]], 0, -1)
            first += shape[0]
            if reverse_colours and node.inputs[i].layer.on_host and shape[0] == 3:
                own = own[::-1]
                converted.notes.append(f"{node.name} reads red, green, blue now: Caffe's images are blue, green, red")
            converted.tensors |= learned(f"{node.name}.W{i}", own)
        converted.tensors |= learned(f"{node.name}.b", biases[0].reshape(-1) if biases else np.zeros(node.weights["b"].shape))
        converted.notes.append(f"{node.name}: {describe(weights.shape)} of {theirs}")
    add_sums(converted)


def learned(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """A learned tensor and its momentum, which is 0."""
    return {name: np.array(values, np.float32, order="C"), f"{name}.inc": np.zeros(values.shape, np.float32)}


def add_sums(converted: Converted) -> None:
    """Gradients that are summed over several minibatches: of none yet."""
    graph = converted.graph()
    for node in graph.nodes:
        for full, weights in node.owned():
            if graph.minibatches(node, weights) > 1:
                converted.tensors[f"{full}.sum"] = np.zeros(weights.shape, np.float32)


# ---- out ----------------------------------------------------------------------------------------------------------------

LAYOUTS = ("convnet", "torch")
SUFFIXES = {".ckpt": "convnet", ".npz": "convnet", ".safetensors": "convnet", ".pth": "torch", ".pt": "torch"}  # -> the layout it has by default


def torch_layout(converted: Converted) -> dict[str, np.ndarray]:
    """A state dict: LAYER.weight (outputs first), LAYER.bias; of layers with several inputs LAYER.weight0, ..."""
    state = {}
    for node in converted.graph().nodes:
        for name in node.weights:
            array = converted.tensors[node.owners[name]]
            if name == "b":
                state[f"{node.name}.bias"] = array
            else:
                key = "weight" if len(node.inputs) == 1 else f"weight{name[1:]}"
                state[f"{node.name}.{key}"] = np.moveaxis(array, -1, 1 if isinstance(node.layer, Local) else 0)
        state |= {f"{node.name}.{name}": converted.tensors[f"{node.name}.{name}"] for name in node.fixed}
    return {name: np.ascontiguousarray(array, np.float32) for name, array in state.items()}


def write_weights(path: Path, converted: Converted, layout: str | None) -> dict[str, np.ndarray]:
    """Writes a file of the kind that its suffix says, whole or not at all, and reads it again; answers with what is in it."""
    if path.suffix not in SUFFIXES:
        raise CommandLineError(f"{path}: expected a name that ends in one of {', '.join(SUFFIXES)}")
    layout = layout or SUFFIXES[path.suffix]
    if layout != SUFFIXES[path.suffix] and path.suffix != ".safetensors" and path.suffix != ".npz":
        raise CommandLineError(f"--layout {layout}: a file {path.suffix} has the layout {SUFFIXES[path.suffix]}")
    tensors = torch_layout(converted) if layout == "torch" else converted.tensors
    if not path.parent.is_dir():
        raise CannotCreate(f"{path}: there is no folder {path.parent}; expected one to write into")
    if path.suffix == ".ckpt":
        checkpoint.save(path.parent, path.name, converted.header, tensors)
        _, again = load_checkpoint(path)
    elif path.suffix == ".npz":
        atomically(path, lambda file: np.savez(file, **tensors))
        with np.load(path, allow_pickle=False) as archive:
            again = {name: archive[name] for name in archive.files}
    elif path.suffix == ".safetensors":
        save = safetensors().save
        atomically(path, lambda file: file.write(save(dict(tensors), {"format": "pt" if layout == "torch" else "convnet"})))
        again = read_safetensors(path)
    else:
        atomically(path, lambda file: write_state_dict(file, tensors))
        again = read_state_dict(path)
    for name in tensors.keys() | again.keys():
        if name not in again or name not in tensors or again[name].shape != tensors[name].shape or again[name].tobytes() != tensors[name].tobytes():
            raise WriteFailed(f"{path}: {name} is not what was written when it is read again; is the disk sound?")
    return tensors


def atomically(path: Path, write: Callable) -> None:
    """Under another name until it is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        raise WriteFailed(f"{path}: cannot be written: {error.strerror or error}") from None


def safetensors():
    """The library, which is an extra."""
    try:
        import safetensors.numpy
    except ImportError:
        raise CommandLineError("safetensors files need the library of that name: pip install convnet[safetensors], or ./go --with safetensors") from None
    return safetensors.numpy


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    library = safetensors()
    try:
        return library.load_file(path)
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # the library has a class of its own, and raises others
        raise DataError(f"{path}: no safetensors file, or damaged: {error}") from None
