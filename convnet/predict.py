"""A trained net by itself: convnet.load(CHECKPOINT), then predict and look inside."""
from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from . import checkpoint
from .backends import Device, choose_backend, cores, load_module
from .cfgfile import suggest
from .config import parse_config
from .errors import DataError, MissingInput
from .graph import Graph
from .net import DataSpec, Net
from .own_kernels import read_sources

MEANING = 1  # of what stands in the header of a checkpoint


def load(path: str | Path, backend: str = "auto", precision: str | None = None, allow_code: bool = False) -> TrainedNet:
    """The net of a checkpoint, or of the newest valid one of a run, or of the newest run in a --save-path.

    precision: see Precision in ops.h; None: as it was trained. allow_code: compile and run the sources of its layers of one's own. Raises MissingInput where there is none, DataError where it is damaged.
    """
    newest, damaged = newest_checkpoint(Path(path))
    for text in damaged:
        warnings.warn(text, stacklevel=3)
    return TrainedNet(*load_checkpoint(newest), backend, precision, allow_code)


def newest_checkpoint(path: Path) -> tuple[Path, list[str]]:
    """The newest valid checkpoint in a run's folder, or in the newest run's below it, and a warning for each damaged one."""
    if path.is_file():
        return path, []
    runs = [path, *sorted((below for below in path.glob("ConvNet__*") if below.is_dir()), reverse=True)] if path.is_dir() else []
    texts: list[str] = []
    for run in runs:
        newest, damaged = checkpoint.newest_valid(run)
        texts += damaged
        if newest:
            return newest, texts
    raise MissingInput("\n".join([*texts, f"{path}: no valid checkpoint there; expected a folder that convnet-train --save-path wrote "
                       "(convnet-convert brings those of other programs in)"]))


def load_checkpoint(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    header, tensors = checkpoint.load(path)
    if header.get("meaning") != MEANING:
        raise DataError(f"{path}: expected a checkpoint of convnet-train of meaning {MEANING}, found {header.get('meaning')}")
    return header, tensors


VIEWS = 10  # the centre, the four corners, and the mirror images of these (Krizhevsky et al. 2012, section 4.1)


class TrainedNet:
    """A net that predicts. Close it, or use it in a `with`, to give its memory back.

    class_names  of the data it was trained on, [] when they had none
    shape        (channels, height, width) of the images it takes, before cropping
    dtype        their type: uint8 where it was trained on pixels, else float32
    views        how many crops of an image `multiview` averages over: 10, or 1 where the net was trained without crops
    probs_layer  the layer whose acts are the probabilities
    header       of its checkpoint: config texts, options, ... (docs/training.md)
    """

    def __init__(self, header: dict, tensors: dict[str, np.ndarray], backend: str = "auto", precision: str | None = None, allow_code: bool = False):
        self.header = header
        self.config = parse_config(header["layers_text"], header["params_text"], header["layers_file"], header["params_file"],
                                   header["options"].get("strict_legacy", False))
        sources = read_sources(self.config.layers, Path(header["layers_file"]).parent, allow_code, header.get("sources", {}))
        shapes = tuple(tuple(shape) for shape in header["shapes"])
        stored = tuple((dtype, tuple(shape)) for dtype, shape in header["stored"])
        self.dtype, self.shape = stored[0]
        self.views = VIEWS if self.shape != shapes[0] else 1
        data = DataSpec(shapes, stored, tensors.get("data.mean"), header.get("class_tree"))
        self.devices = open_devices(choose_backend(backend), Graph(self.config.layers, shapes, data.class_tree).devices)
        self.net = Net(self.config, data, self.devices, header["options"]["seed"], trains=False,
                       precision=precision or header["options"].get("precision", "exact"), sources=sources)
        self.net.load(tensors)
        self.class_names: list[str] = header["class_names"]
        self.probs_layer = self.net.graph.main_cost.inputs[-1].name
        self.mini = header["options"]["mini"]  # more images than it was trained with at a time may not fit

    def close(self) -> None:
        for device in self.devices.values():
            device.close()
        self.devices = {}

    def __enter__(self) -> TrainedNet:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def predict(self, images: np.ndarray, multiview: bool = False) -> np.ndarray:
        """Probabilities (classes, images) for images (channels, height, width, images), or one (channels, height, width).

        The images are as in the data batches: they are cropped, and the mean is subtracted, here. `multiview`: the mean
        over all views, else those of the centre. Raises DataError where shape or type are not those of the net's data.
        """
        return self.predict_views(images)[1] if multiview else self._probs(images, 0)

    def predict_views(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of the centre, and their mean over all views: as `predict` gives them, in one go."""
        centre = self._probs(images, 0)
        return centre, sum((self._probs(images, view) for view in range(1, self.views)), centre) / np.float32(self.views)

    def _probs(self, images: np.ndarray, view: int) -> np.ndarray:
        probs = self.acts(self.probs_layer, images, view)
        return probs.reshape(-1, probs.shape[-1])

    def acts(self, layer: str, images: np.ndarray, view: int = 0) -> np.ndarray:
        """What a layer computes for images: (channels, height, width, images).

        `conv1` is before its neuron, `conv1_neuron` after. `view`: 0 the centre, 1 to 4 the corners, 5 to 9 these mirrored.
        """
        return self.acts_of((layer,), images, view)[layer]

    def acts_of(self, layers: tuple[str, ...], images: np.ndarray, view: int = 0) -> dict[str, np.ndarray]:
        """The same of several layers, by their names, in one go."""
        images = np.asarray(images)
        if images.ndim == 3:
            images = images[..., None]
        names = [node.name for node in self.net.graph.nodes if not node.layer.on_host and not node.layer.is_cost]
        if not self.devices:
            raise ValueError("this net is closed")
        for layer in layers:
            if layer not in names:
                raise ValueError(f"no layer {layer}, expected one of {', '.join(names)}{suggest(layer, names)}")
        if images.shape[:-1] != self.shape or images.size == 0:
            raise DataError(f"images of shape {images.shape}, expected {(*self.shape, 'images')}, one or more")
        if self.dtype == "uint8" and images.dtype != np.uint8:
            raise DataError(f"images of type {images.dtype}, expected uint8, as in the data batches that the net was trained on")
        if not 0 <= view < self.views:
            raise ValueError(f"view {view}, expected 0 to {self.views - 1}")
        parts = [self._acts_of(layers, images[..., i : i + self.mini], view) for i in range(0, images.shape[-1], self.mini)]
        return {layer: np.concatenate([part[layer] for part in parts], axis=-1) for layer in layers}

    def _acts_of(self, layers: tuple[str, ...], images: np.ndarray, view: int) -> dict[str, np.ndarray]:
        labels = [np.zeros((*shape, images.shape[-1]), np.float32) for shape in self.net.data.shapes[1:]]
        return self.net.test((images, *labels), layers, view)[1]


def open_devices(backend: str, indices: list[int]) -> dict[int, Device]:
    """A device for each number that a config uses: the GPU of that number, as far as there are so many, or a share of the cores."""
    there = load_module(backend).device_count() if backend == "cuda" else len(indices)
    threads = max(1, cores() // len(indices))
    return {index: Device(backend, index, index % there, threads) for index in indices}
