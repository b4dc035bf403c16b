"""CIFAR-10, CIFAR-100 and MNIST from the files that are published, as pixels in their order."""

from __future__ import annotations

import hashlib
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from tqdm import tqdm

from convnet.data.batch_file import replacing
from convnet.data.making.sources import Item, Source, read_small_files
from convnet.errors import DataError, MissingInput
from convnet.legacy.pickles import read_pickle

CIFAR_BYTES = 3 * 32 * 32
MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class Archive:
    """A published file: where it is, and its MD5 as published beside it."""

    address: str
    md5: str

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]


TORONTO = "https://www.cs.toronto.edu/~kriz"
MNIST_MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist"
ARCHIVES = {
    "cifar10": [Archive(f"{TORONTO}/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a")],
    "cifar100": [Archive(f"{TORONTO}/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85")],
    "mnist": [
        Archive(f"{MNIST_MIRROR}/{MNIST_FILES[0]}.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        Archive(f"{MNIST_MIRROR}/{MNIST_FILES[1]}.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        Archive(f"{MNIST_MIRROR}/{MNIST_FILES[2]}.gz", "9fb629c4189551a2d022fa330f9573f3"),
        Archive(f"{MNIST_MIRROR}/{MNIST_FILES[3]}.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ],
}


class ArraySource(Source):
    """Images that are all in memory. sets: group -> uint8 (images, channels, height, width) and labels; place: group and number."""

    encoded = shuffled = False

    def __init__(self, name: str, sets: dict[str, tuple[np.ndarray, Sequence[int]]], class_names: Sequence[str]):
        self.pixels = {group: pixels for group, (pixels, _) in sets.items()}
        self.shape = next(iter(self.pixels.values())).shape[1:]
        groups = {group: [Item(f"{group}/{i}", int(label), (group, i)) for i, label in enumerate(labels)] for group, (_, labels) in sets.items()}
        for group, (pixels, labels) in sets.items():
            if len(pixels) != len(labels) or pixels.shape[1:] != self.shape:
                raise DataError(f"{name}: {group}: {len(labels)} labels for images {pixels.shape}")
            if min(labels) < 0 or max(labels) >= len(class_names):
                raise DataError(f"{name}: {group}: labels {min(labels)} to {max(labels)}, expected 0 to {len(class_names) - 1}")
        super().__init__(groups, class_names, {"name": name})

    def read(self, item: Item) -> bytes:
        group, number = item.place
        return self.pixels[group][number].tobytes()

    def fingerprint(self) -> str:
        digest = hashlib.sha256(Source.fingerprint(self).encode())
        for pixels in self.pixels.values():
            digest.update(np.ascontiguousarray(pixels))
        return digest.hexdigest()


# ---- CIFAR -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cifar:
    """What is where in a published archive: files of training images, then the one of test images, and the names of the classes."""

    files: tuple[str, ...]
    meta: str
    labels: str
    names: str
    label_bytes: int  # before each image of the binary version, the last the class

    @property
    def binary(self) -> tuple[str, ...]:
        return tuple(f"{file}.bin" for file in self.files)


CIFARS = {
    "cifar10": Cifar((*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"), "batches.meta", "labels", "label_names", 1),
    "cifar100": Cifar(("train", "test"), "meta", "fine_labels", "fine_label_names", 2),
}


def cifar(name: str, archive: Path) -> ArraySource:
    """name: cifar10 or cifar100; the archive of the Python or the binary version, or the folder it was unpacked to."""
    form = CIFARS[name]
    names_file = "batches.meta.txt" if name == "cifar10" else "fine_label_names.txt"
    found = read_small_files(archive, [], [*form.files, form.meta, *form.binary, names_file])
    binary = form.binary[0] in found
    missing = [file for file in ((*form.binary, names_file) if binary else (*form.files, form.meta)) if file not in found]
    if missing:
        raise MissingInput(f"{archive}: no {missing[0]} in it; expected the Python or the binary version of {name}")
    if binary:
        sets = [_binary_images(found[file], form.label_bytes, f"{archive}: {file}") for file in form.binary]
        names = found[names_file].decode("utf-8", "replace").split()
    else:
        sets = [_pickled_images(_dict(found[file], f"{archive}: {file}"), form.labels, f"{archive}: {file}") for file in form.files]
        names = _dict(found[form.meta], f"{archive}: {form.meta}").get(form.names)
        if not isinstance(names, list) or not all(isinstance(text, (str, bytes)) for text in names):
            raise DataError(f"{archive}: {form.meta}: no {form.names}; is it the Python version of the archive?")
        names = [text if isinstance(text, str) else text.decode("utf-8", "replace") for text in names]
    training = np.concatenate([data for data, _ in sets[:-1]]), [label for _, labels in sets[:-1] for label in labels]
    return ArraySource(name, {"training": training, "test": sets[-1]}, names)


def _pickled_images(record: dict, key: str, where: str) -> tuple[np.ndarray, list[int]]:
    data, labels = record.get("data"), record.get(key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != CIFAR_BYTES \
            or not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{where}: expected data of uint8, {CIFAR_BYTES} an image, and {key}")
    return data.reshape(-1, 3, 32, 32), labels


def _binary_images(data: bytes, label_bytes: int, where: str) -> tuple[np.ndarray, list[int]]:
    length = label_bytes + CIFAR_BYTES
    if not data or len(data) % length:
        raise DataError(f"{where}: {len(data):,} bytes, expected {length} an image")
    rows = np.frombuffer(data, np.uint8).reshape(-1, length)
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32), rows[:, label_bytes - 1].tolist()


def _dict(data: bytes, name: str) -> dict:
    record = read_pickle(data, name=name)
    if not isinstance(record, dict):
        raise DataError(f"{name}: a {type(record).__name__}, expected a dict")
    return {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in record.items()}


# ---- MNIST -------------------------------------------------------------------------------------------------


def mnist(folder: Path) -> ArraySource:
    """The four idx files, packed with gzip or not."""
    arrays = [read_idx(next((path for path in (folder / f"{name}.gz", folder / name) if path.exists()), folder / name)) for name in MNIST_FILES]
    for name, array, rank in zip(MNIST_FILES, arrays, (3, 1, 3, 1), strict=True):
        if array.ndim != rank or not len(array):
            raise DataError(f"{folder}: {name}: found an array of shape {array.shape}, expected {rank} dimensions")
    sets = {"training": (arrays[0][:, None], arrays[1].tolist()), "test": (arrays[2][:, None], arrays[3].tolist())}
    return ArraySource("mnist", sets, "0123456789")


def read_idx(path: Path) -> np.ndarray:
    """uint8 array of an idx file: two zeros, the type 8, the rank, sizes in 4 bytes each, big end first, and the values."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from None
    if path.suffix == ".gz":
        unpacker = zlib.decompressobj(wbits=31)
        try:
            data = unpacker.decompress(data, 2**28)
        except zlib.error as error:
            raise DataError(f"{path}: a damaged gzip file: {error}") from None
    rank = data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    shape = tuple(np.frombuffer(data[4 : 4 + 4 * rank], ">u4").tolist())
    if not rank or len(shape) != rank or prod(shape) != len(data) - 4 - 4 * rank:
        raise DataError(f"{path}: {len(data)} bytes, expected an idx file of uint8" + (f" with {prod(shape)} values" if len(shape) == rank > 0 else ""))
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


# ---- fetching ----------------------------------------------------------------------------------------------


def fetch(name: str, folder: Path) -> list[Path]:
    """The published files of a data set in that folder, fetched where they are not there yet, their checksums compared.

    MissingInput where there is no network says what to fetch and where to put it; DataError names a wrong file.
    """
    paths = []
    for archive in ARCHIVES[name]:
        path = folder / archive.name
        if not path.exists():
            try:
                download(archive.address, path)
            except OSError as error:
                wanted = "\n".join(f"  {a.address}  (MD5 {a.md5})" for a in ARCHIVES[name])
                raise MissingInput(f"{archive.address}: cannot be fetched: {getattr(error, 'reason', error)}; fetch it elsewhere, put it into {folder} "
                                   f"and give the same command again:\n{wanted}") from None
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.md5(file.read()).hexdigest()
        if found != archive.md5:
            raise DataError(f"{path}: MD5 {found}, expected {archive.md5}: the file is damaged or another one; remove it, and it is fetched again")
        paths.append(path)
    return paths


def download(address: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(address, timeout=30) as answer, replacing(path) as file:
        size = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=size or None, unit="B", unit_scale=True, desc=path.name, disable=None, leave=False) as bar:
            while block := answer.read(1 << 20):
                file.write(block)
                bar.update(len(block))
        if size and file.tell() != size:
            raise OSError(f"{file.tell():,} of {size:,} bytes arrived")
