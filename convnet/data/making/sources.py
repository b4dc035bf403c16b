"""Where the images of a data set are: a folder with one folder a class, or archives, which are read where they lie."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnet.data.decode import MAX_BYTES, BadImage
from convnet.errors import DataError, MissingInput

MAX_SMALL = 2**28  # bytes of a file that is read whole from an archive


class Item(NamedTuple):
    """An image of a source. place: what the source reads it by."""

    name: str
    label: int
    place: object


def printable(name: str) -> str:
    """A name without what would steer a terminal, or is no text: in messages, reports and batches."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


class Source:
    """groups       the images for training, validation and test
    class_names  of the labels
    encoded      whether the images are files to be decoded; else they are pixels, of `shape`
    shuffled     whether batches get them in random order
    about        what batches.json tells of how they were made; also: what else it tells
    """

    encoded = True
    shuffled = True
    shape: tuple[int, int, int] = (0, 0, 0)

    def __init__(self, groups: dict[str, list[Item]], class_names: Sequence[str], about: dict):
        self.groups = {group: items for group, items in groups.items() if items}
        self.class_names, self.about, self.also = [printable(name) for name in class_names], about, {}
        if "training" not in self.groups:
            raise DataError(f"{about['name']}: no images to train on")

    def read(self, item: Item) -> bytes:
        """The file, or the pixels, of an image. BadImage where it cannot be read."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Of names, labels and places: another for other images."""
        digest = hashlib.sha256()
        for group, items in self.groups.items():
            for item in items:
                digest.update(repr((group, *item)).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


# ---- folders ---------------------------------------------------------------------------------------------


class FolderSource(Source):
    """A folder with one folder a class, of any depth below. Names that begin with a dot are left out.

    validation        another such folder, or None
    validation_share  where there is none: the share of each class's images that is kept for it
    """

    def __init__(self, folder: Path, validation: Path | None, validation_share: float, seed: int):
        self.roots = [folder, validation or folder]
        classes = class_folders(folder)
        training = list(folder_items(folder, classes, 0))
        if validation:
            unknown = sorted(set(class_folders(validation)) - set(classes))
            if unknown:
                raise DataError(f"{validation}: found the class {unknown[0]}, which {folder} has not; expected the same folders in both")
            held = list(folder_items(validation, classes, 1))
        else:
            held = choose_share(training, len(classes), validation_share, seed)
            chosen = {item.place for item in held}
            training = [item for item in training if item.place not in chosen]
        if not training:
            raise DataError(f"{folder}: no images to train on")
        # Without the folders' names: the same images elsewhere give the same bytes.
        super().__init__({"training": training, "validation": held}, classes, {"name": "folder", "validation": "folder" if validation else validation_share})

    def read(self, item: Item) -> bytes:
        root, name, _ = item.place
        try:
            if not (self.roots[root] / name).is_file():  # a pipe would never end
                raise BadImage("not a file")
            with open(self.roots[root] / name, "rb") as file:
                return file.read(MAX_BYTES + 1)
        except OSError as error:
            raise BadImage(f"cannot be read: {error.strerror}") from None


def class_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise MissingInput(f"{folder}: {error.strerror}; expected a folder with one folder a class") from None
    if not names:
        raise DataError(f"{folder}: no folders in it; expected one a class, with its images")
    return names


def folder_items(folder: Path, classes: list[str], root: int) -> Iterator[Item]:
    """Place: which folder, the name below it, and the file's size."""
    for label, name in enumerate(classes):
        for path, below, files in os.walk(folder / name):
            below[:] = sorted(entry for entry in below if not entry.startswith("."))
            for file in sorted(files):
                if not file.startswith("."):
                    full = Path(path, file)
                    relative = full.relative_to(folder).as_posix()
                    yield Item(printable(relative), label, (root, relative, full.stat().st_size if full.exists() else 0))


def choose_share(items: list[Item], classes: int, share: float, seed: int) -> list[Item]:
    """Of each class that share, rounded, in random order; one image at least stays."""
    by_class: list[list[Item]] = [[] for _ in range(classes)]
    for item in shuffled(items, seed, 0):
        by_class[item.label].append(item)
    return [item for members in by_class for item in members[: min(len(members) - 1, round(share * len(members)))] if members]


def shuffled(items: Sequence[Item], seed: int, stream: int) -> list[Item]:
    """In random order, the same with every numpy: by raw numbers of the generator."""
    keys = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(len(items))
    return [items[i] for i in np.argsort(keys, kind="stable")]


# ---- archives ----------------------------------------------------------------------------------------------


class TarSource(Source):
    """Images within uncompressed tars. Place: the tar, where in it the file begins, and its length."""

    def __init__(self, groups: dict[str, list[Item]], class_names: Sequence[str], about: dict, tars: list[Path]):
        super().__init__(groups, class_names, about)
        self.files = [os.open(path, os.O_RDONLY) for path in tars]

    def read(self, item: Item) -> bytes:
        tar, offset, length = item.place
        if length > MAX_BYTES:
            raise BadImage(f"a file of {length:,} bytes, expected at most {MAX_BYTES:,}")
        data = os.pread(self.files[tar], length, offset)
        if len(data) != length:
            raise BadImage(f"the archive ends within it: {len(data):,} of {length:,} bytes")
        return data


def tar_members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and length of the files in an uncompressed tar, and of those in tars within it, named NAME.tar/FILE.

    Only headers are read. Raises MissingInput and DataError.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            for member in _files(tar):
                if not member.name.endswith(".tar"):
                    yield printable(member.name), member.offset_data, member.size
                    continue
                with tarfile.open(fileobj=tar.extractfile(member), mode="r:") as inner:
                    for image in _files(inner):
                        yield printable(f"{member.name}/{image.name}"), member.offset_data + image.offset_data, image.size
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except tarfile.TarError as error:
        raise DataError(f"{path}: {error}; expected an uncompressed tar: is it complete, and the right one?") from None


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        tar.members = []  # else it keeps them all
        if member.isreg() and not member.issparse():
            yield member


def read_small_files(path: Path, needed: Sequence[str], others: Sequence[str] = ()) -> dict[str, bytes]:
    """The files of these names (without folders) in a tar, compressed or not, or in a folder; the archive is read once, as a stream.

    Raises MissingInput where one is missing that is needed, DataError where the archive is damaged.
    """
    found: dict[str, bytes] = {}
    wanted = {*needed, *others}
    try:
        if path.is_dir():
            files = [file for name in sorted(wanted) for file in sorted(path.rglob(name))[:1]]
            found = {file.name: file.read_bytes() for file in files}
        else:
            with tarfile.open(path, "r|*") as tar:
                for member in tar:
                    name = member.name.rpartition("/")[2]
                    if name in wanted and name not in found and member.isreg():
                        if member.size > MAX_SMALL:
                            raise DataError(f"{path}: {member.name} has {member.size:,} bytes, expected at most {MAX_SMALL:,}")
                        found[name] = tar.extractfile(member).read()
    except (OSError, EOFError) as error:
        raise MissingInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except (tarfile.TarError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {error}; is the archive complete, and the right one?") from None
    missing = [name for name in needed if name not in found]
    if missing:
        raise MissingInput(f"{path}: no {missing[0]} in it")
    return found
