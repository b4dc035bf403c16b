"""Batches that convnet-data made: `batches.json`, `mean.npy`, and `data_batch_1`, `data_batch_2`, ... (`batch_file.py`).

batches.json says the shape of the images, the names of the classes, which batches are for training, validation and testing,
the principal components of the training images' colours, and how all this was made (docs/data.md).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from convnet.data.batch_file import KINDS, BatchFile, open_batch
from convnet.data.batches import Batch, format_range, parse_range
from convnet.data.decode import BadImage, decode, gather, keep_freed_memory
from convnet.data.provider import Provider
from convnet.data.records import read_npy
from convnet.errors import CommandLineError, DataError, MissingInput
from convnet.legacy.pickled_numpy import Refusal

META, MEAN = "batches.json", "mean.npy"
VERSION = 1
GROUPS = ("training", "validation", "test")


class ImageProvider(Provider):
    def __init__(self, name: str, data_path: Path, *, crop_border: int = 0, net_classes: int | None = None, label_kind: str = "index"):
        self.path = data_path
        self.meta = meta = read_meta(data_path)
        super().__init__(
            name,
            tuple(meta["shape"]),
            crop_border=crop_border,
            classes=len(meta["class_names"]),
            class_names=meta["class_names"],
            mean=_read_mean(data_path / MEAN, tuple(meta["shape"])),
            color_pca=np.array(meta["color_pca"], np.float64),
            numbers=[number for numbers in meta["groups"].values() for number in numbers],
            label_kind=label_kind,
        )
        self.groups = meta["groups"]
        self.label_limit = min(self.classes, net_classes or self.classes)
        self._checked: set[tuple[int, tuple[int, int]]] = set()  # batches whose checksums were compared: once is enough, and takes a third of the time of reading
        keep_freed_memory()

    def read(self, number: int) -> Batch:
        batch = self.open(number)
        labels = batch.index["label"]
        wrong = np.flatnonzero((labels < 0) | (labels >= self.label_limit))
        if len(wrong):
            raise DataError(
                f"{batch.path}: image {wrong[0]} ({batch.name(wrong[0])}): label {labels[wrong[0]]}, expected an integer 0 to "
                f"{self.label_limit - 1}: there are {self.classes} classes, and the net has outputs for {self.label_limit}"
            )
        check = (number, batch.version) not in self._checked
        if batch.header["kind"] == "raw":
            pixels = np.moveaxis(batch.read_values(check).reshape(-1, *self.stored), 0, -1)
        else:
            records = batch.read_records(check)
            pixels = gather(len(records), self.stored, lambda image: pixels_of(batch, image, records[image]), self.threads)
        self._checked.add((number, batch.version))
        return Batch(number, (pixels, *self.label_arrays(labels)))

    def open(self, number: int) -> BatchFile:
        if number not in self.numbers:
            raise MissingInput(f"{self.path}: no data_batch_{number}; there are {format_range(self.numbers)}")
        batch = open_batch(self.path / f"data_batch_{number}")
        if tuple(batch.header["shape"]) != self.stored:
            raise DataError(f"{batch.path}: images of shape {batch.header['shape']}, expected {list(self.stored)}, as {META} says")
        return batch


def pixels_of(batch: BatchFile, image: int, record: memoryview) -> np.ndarray:
    """uint8 (channels, height, width) of a record; DataError where it is damaged."""
    shape = tuple(batch.header["shape"])
    if batch.header["kind"] == "raw":
        return np.frombuffer(record, np.uint8).reshape(shape)
    return decode_record(bytes(record), shape, f"{batch.path}: image {image} ({batch.name(image)})")


def decode_record(record: bytes, shape: tuple[int, int, int], where: str) -> np.ndarray:
    """uint8 (channels, height, width) of a JPEG or PNG file that has this shape; else DataError, with `where` before it."""
    try:
        pixels = decode(record).transpose(2, 0, 1)
    except BadImage as error:
        raise DataError(f"{where}: {error}") from error
    if pixels.shape != shape:
        raise DataError(f"{where}: {pixels.shape[1]} x {pixels.shape[2]} pixels, expected {shape[1]} x {shape[2]}")
    return pixels


def is_made(path: Path) -> bool:
    """Whether convnet-data made this folder."""
    return (path / META).exists()


def read_meta(path: Path) -> dict:
    """batches.json, checked; "groups" as lists of numbers. Raises DataError and MissingInput."""
    file = path / META
    try:
        meta = json.loads(file.read_bytes())
    except OSError as error:
        raise MissingInput(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: found no JSON ({error}); make it again with convnet-data") from error
    if not isinstance(meta, dict) or meta.get("version") != VERSION:
        raise DataError(f"{file}: expected what convnet-data wrote, of version {VERSION}")
    channels = meta["shape"][0] if isinstance(meta.get("shape"), list) and meta["shape"] else 0
    checks = {
        "shape": lambda v: isinstance(v, list) and len(v) == 3 and all(type(n) is int and 0 < n < 2**16 for n in v),
        "kind": lambda v: v in KINDS,
        "class_names": lambda v: isinstance(v, list) and v and all(isinstance(name, str) for name in v),
        "groups": lambda v: isinstance(v, dict) and set(v) <= set(GROUPS) and all(isinstance(text, str) for text in v.values()),
        "color_pca": lambda v: isinstance(v, list) and len(v) == channels
        and all(isinstance(row, list) and len(row) == channels and all(isinstance(n, float) for n in row) for row in v),
    }  # fmt: skip
    for key, check in checks.items():
        if not check(meta.get(key)):
            raise DataError(f"{file}: {key}: found {str(meta.get(key))[:60]}, expected what convnet-data wrote; make it again")
    try:
        meta["groups"] = {name: parse_range(text, f"{file}: {name}") for name, text in meta["groups"].items()}
    except CommandLineError as error:
        raise DataError(str(error)) from error
    return meta


def _read_mean(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    try:
        mean = read_npy(path.read_bytes())
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from error
    except (Refusal, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    if mean.shape != shape or mean.dtype != np.float32 or not np.isfinite(mean).all():
        raise DataError(f"{path}: found {mean.dtype} of shape {mean.shape}, expected finite float32 of shape {shape}; make it again with convnet-data")
    return mean
