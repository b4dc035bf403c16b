"""Weights of Caffe: a NetParameter, in the wire format of protocol buffers, of which this reads what weights need.

    NetParameter       name = 1, layers = 2 (V1LayerParameter), layer = 100 (LayerParameter)
    V1LayerParameter   name = 4, type = 5 (a number), blobs = 6
    LayerParameter     name = 1, type = 2 (a word), blobs = 7
    BlobProto          num, channels, height, width = 1 to 4, data = 5 (floats), shape = 7 (BlobShape: dim = 1), double_data = 8

A message is a row of fields, each a number, a wire type and a value. Every length is compared with the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from ..errors import DataError, MissingInput

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_RANK = 8
LAYER_FIELDS = {2: (4, 5, 6), 100: (1, 2, 7)}  # field of NetParameter -> those of a layer's name, type and blobs


class Damaged(ValueError):
    """Bytes that are no message; the reader adds the file."""


def read_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Name of a layer -> its blobs, of the layers that have some: weights (outputs, channels of a group, height, width) or
    (outputs, inputs), then biases (outputs,)."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from None
    layers: dict[str, list[np.ndarray]] = {}
    try:
        for number, value in fields(memoryview(data)):
            if number not in LAYER_FIELDS or not isinstance(value, memoryview):
                continue
            name, blobs = layer_of(value, *LAYER_FIELDS[number])
            if blobs and name in layers:
                raise Damaged(f"two layers are called {name!r:.60}")
            if blobs:
                layers[name] = blobs
    except (Damaged, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no caffemodel, or damaged: {error}; expected the NetParameter of Caffe in binary form") from None
    if not layers:
        raise DataError(f"{path}: no layer with weights; expected a .caffemodel, as Caffe's snapshots are. A .prototxt has no weights")
    return layers


def layer_of(message: memoryview, name_field: int, type_field: int, blobs_field: int) -> tuple[str, list[np.ndarray]]:
    name, blobs = "", []
    for number, value in fields(message):
        if number == name_field and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == blobs_field and isinstance(value, memoryview):
            blobs.append(blob_of(value, f"layer {name!r:.60}"))
    return name, blobs


def blob_of(message: memoryview, where: str) -> np.ndarray:
    old = [1, 1, 1, 1]
    shape: list[int] | None = None
    parts: list[np.ndarray] = []
    for number, value in fields(message):
        if number in (1, 2, 3, 4) and isinstance(value, int):
            old[number - 1] = value
        elif number == 7 and isinstance(value, memoryview):
            shape = [size for field, sizes in fields(value) if field == 1 for size in (varints(sizes) if isinstance(sizes, memoryview) else [sizes])]
        elif number in (5, 8) and isinstance(value, (memoryview, bytes)):
            dtype = np.dtype("<f4" if number == 5 else "<f8")
            if len(value) % dtype.itemsize:
                raise Damaged(f"{where}: {len(value)} bytes of numbers of {dtype.itemsize}")
            parts.append(np.frombuffer(value, dtype).astype(np.float32))
    values = np.concatenate(parts) if parts else np.empty(0, np.float32)
    shape = old if shape is None else shape
    if len(shape) > MAX_RANK or prod(shape) != values.size:
        raise Damaged(f"{where}: a blob of shape {tuple(shape[:MAX_RANK])} with {values.size} numbers")
    return values.reshape(shape)


# ---- the wire format ------------------------------------------------------------------------------------------------

def fields(message: memoryview) -> Iterator[tuple[int, int | bytes | memoryview]]:
    """(number, value): an int, eight or four bytes, or a view of the bytes of a text, a message or packed numbers."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = varint(message, at)
        elif wire in (FIXED64, FIXED32, BYTES):
            if wire == BYTES:
                size, at = varint(message, at)
            else:
                size = 8 if wire == FIXED64 else 4
            if size > len(message) - at:
                raise Damaged(f"field {number} of {size} bytes, and {len(message) - at} are left")
            value = message[at : at + size] if wire == BYTES else bytes(message[at : at + size])
            at += size
        else:
            raise Damaged(f"wire type {wire} of field {number}, known are 0, 1, 2 and 5")
        if number == 0:
            raise Damaged("field 0")
        yield number, value


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of 64 bits, seven in a byte, and where the next byte is."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise Damaged("it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise Damaged("a number of more than 64 bits")


def varints(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = varint(packed, at)
        yield value
