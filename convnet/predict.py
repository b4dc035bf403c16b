"""A trained net by itself: convnet.load(CHECKPOINT), then predict and look inside."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from . import checkpoint
from .backends import Device, choose_backend
from .config import parse_config
from .errors import DataError, MissingInput
from .graph import Graph
from .net import DataSpec, Net


def load(path: str | Path, backend: str = "auto") -> TrainedNet:
    """The net of a checkpoint, or of the newest valid one in a run's folder.

    Raises MissingInput where there is none, DataError where it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        newest, warnings = checkpoint.newest_valid(path)
        if newest is None:
            raise MissingInput("\n".join([*warnings, f"{path}: no valid checkpoint there"]))
        path = newest
    return TrainedNet(*checkpoint.load(path), backend)


class TrainedNet:
    """A net that predicts. Close it, or use it in a `with`, to give its memory back.

    class_names  of the data it was trained on, [] when they had none
    shape        (channels, height, width) of the images it takes, before cropping
    """

    def __init__(self, header: dict, tensors: dict[str, np.ndarray], backend: str = "auto"):
        config = parse_config(header["layers_text"], header["params_text"], header["layers_file"], header["params_file"])
        shapes = tuple(tuple(shape) for shape in header["shapes"])
        stored = tuple((dtype, tuple(shape)) for dtype, shape in header["stored"])
        name = choose_backend(backend)
        self.devices = {index: Device(name, index, 0) for index in Graph(config.layers, shapes).devices}
        self.net = Net(config, DataSpec(shapes, stored, tensors.get("data.mean")), self.devices, header["options"]["seed"])
        self.net.load(tensors)
        self.class_names: list[str] = header["class_names"]
        self.dtype, self.shape = stored[0]

    def close(self) -> None:
        for device in self.devices.values():
            device.close()

    def __enter__(self) -> TrainedNet:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (classes, images) for images (channels, height, width, images), or one (channels, height, width).

        The images are as in the data batches: the mean is subtracted, and the centre cropped, here.
        """
        cost = self.net.graph.costs[0]
        probs = self.acts(cost.inputs[-1].name, images)
        return probs.reshape(-1, probs.shape[-1])

    def acts(self, layer: str, images: np.ndarray) -> np.ndarray:
        """What a layer computes for images: (channels, height, width, images).

        `conv1` is before its neuron, `conv1_neuron` after.
        """
        images = np.asarray(images)
        if images.ndim == 3:
            images = images[..., None]
        if images.shape[:-1] != self.shape:
            raise DataError(f"images of shape {images.shape}, expected {(*self.shape, 'images')}")
        if self.dtype == "uint8" and images.dtype != np.uint8:
            raise DataError(f"images of type {images.dtype}, expected uint8, as in the data batches that the net was trained on")
        labels = [np.zeros((*shape, images.shape[-1]), np.float32) for shape in self.net.data.shapes[1:]]
        _, kept = self.net.test((np.ascontiguousarray(images), *labels), (layer,))
        return kept[layer]
