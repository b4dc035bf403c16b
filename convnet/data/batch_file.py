"""A stored data batch: records of images, each with a checksum, an index before them, and a header that says what they are.

    8 bytes   b"CNVBAT1\\n"
    4         length of the header, 4 its CRC-32
    header    JSON: kind "jpeg" (records are JPEG files) or "raw" (uint8, channel by channel, row by row), shape (channels,
              height, width), names (of the images), and what made the batch adds
    4         number of images, 4 the CRC-32 of the index
    index     for each image its place in the file (8 bytes), length (4), CRC-32 (4) and label (4)
    records

All numbers are little-endian.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from convnet.errors import DataError, MissingInput

MAGIC = b"CNVBAT1\n"
INDEX = np.dtype([("place", "<u8"), ("length", "<u4"), ("crc", "<u4"), ("label", "<i4")])
PREFIX = struct.Struct("<II")
MAX_HEADER = 2**28
KINDS = ("jpeg", "raw")
REMAKE = "is the file complete? convnet-data makes it again where it is removed"


@dataclass(frozen=True)
class BatchFile:
    """A batch as it lies in its file. version: another one where the file has been written since."""

    path: Path
    header: dict
    index: np.ndarray  # of type INDEX
    version: tuple[int, int]

    def read_records(self, check: bool = True) -> list[memoryview]:
        """All records, parts of one buffer; `check`: their checksums are compared. Raises DataError and MissingInput."""
        try:
            with self.path.open("rb") as file:
                contents = memoryview(file.read())
        except OSError as error:
            raise MissingInput(f"{self.path}: cannot be read: {error.strerror}") from error
        records = []
        for image, (place, length, crc, _) in enumerate(self.index.tolist()):
            record = contents[place : place + length]
            if len(record) != length or (check and zlib.crc32(record) != crc):
                raise DataError(f"{self.path}: image {image} ({self.name(image)}) is damaged: its checksum differs; {REMAKE}")
            records.append(record)
        return records

    def read_values(self, check: bool = True) -> np.ndarray:
        """uint8 (images, values of an image) of a batch of kind raw: the file's bytes as they are, if its records lie one behind the other."""
        records, places = self.read_records(check), self.index["place"].astype(np.int64)
        if (np.diff(places) == self.index["length"][:-1]).all() and len(records):
            return np.frombuffer(records[0].obj, np.uint8, int(self.index["length"].sum()), places[0]).reshape(len(records), -1)
        return np.stack([np.frombuffer(record, np.uint8) for record in records])

    def name(self, image: int) -> str:
        names = self.header.get("names", [])
        return str(names[image]) if image < len(names) else "without a name"


def write_batch(path: Path, header: dict, records: list[bytes], labels: list[int]) -> None:
    """Writes a batch under another name and renames it, so that a file of that name is whole."""
    text = json.dumps(header, ensure_ascii=False, sort_keys=True).encode()
    index = np.zeros(len(records), INDEX)
    index["length"] = [len(record) for record in records]
    index["crc"] = [zlib.crc32(record) for record in records]
    index["label"] = labels
    start = len(MAGIC) + 2 * PREFIX.size + len(text) + index.nbytes
    index["place"] = start + np.cumsum(index["length"], dtype=np.uint64) - index["length"]
    raw = index.tobytes()
    with replacing(path) as file:
        file.writelines([MAGIC, PREFIX.pack(len(text), zlib.crc32(text)), text, PREFIX.pack(len(records), zlib.crc32(raw)), raw, *records])


class replacing:
    """A file written under another name; it gets its own when the `with` ends well, after all bytes are on the disk."""

    def __init__(self, path: Path):
        self.path, self.part = path, path.with_name(path.name + ".part")

    def __enter__(self):
        self.file = self.part.open("wb")
        return self.file

    def __exit__(self, kind, *_) -> None:
        try:
            with self.file:
                if kind is None:
                    self.file.flush()
                    os.fsync(self.file.fileno())
            if kind is None:
                os.replace(self.part, self.path)
        finally:
            self.part.unlink(missing_ok=True)  # it is there after a failure only


def open_batch(path: Path) -> BatchFile:
    """Header and index, checked against the size of the file. Raises DataError and MissingInput."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            if file.read(len(MAGIC)) != MAGIC:
                raise DataError(f"{path}: found another kind of file, expected a batch of convnet-data")
            header = _read_part(path, file, size, "header", 1)
            raw = _read_part(path, file, size, "index", INDEX.itemsize)
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from error
    try:
        header = json.loads(header)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("kind") not in KINDS or not _is_shape(header.get("shape")) or not isinstance(header.get("names", []), list):
        raise DataError(f"{path}: the header is not one of convnet-data's; {REMAKE}")
    index = np.frombuffer(raw, INDEX)
    ends = index["place"] + index["length"]
    if len(index) and (index["place"].max() > size or ends.max() != size):
        raise DataError(f"{path}: {size} bytes, expected {ends.max()}; {REMAKE}")
    if header["kind"] == "raw" and (index["length"] != prod(header["shape"])).any():
        raise DataError(f"{path}: records of {index['length'].max()} bytes, expected {prod(header['shape'])}: the shape is {header['shape']}")
    return BatchFile(path, header, index, (status.st_mtime_ns, size))


def _read_part(path: Path, file, size: int, what: str, itemsize: int) -> bytes:
    """A part with its count and checksum before it; no count is believed beyond the size of the file."""
    prefix = file.read(PREFIX.size)
    count, crc = PREFIX.unpack(prefix) if len(prefix) == PREFIX.size else (0, 1)
    length = count * itemsize
    data = file.read(length) if length <= min(size, MAX_HEADER) else b""
    if len(data) != length or zlib.crc32(data) != crc:
        raise DataError(f"{path}: the {what} is damaged; {REMAKE}")
    return data


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and 0 < n < 2**16 for n in shape)
