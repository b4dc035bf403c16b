"""Pickles as Python 2 and its numpy wrote them, so that the originals' programs read what we write."""
from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import numpy as np

from convnet.errors import WriteFailed

LARGEST = 2**31 - 1  # bytes of a string


def write_pickle(path: Path, record: dict) -> None:
    """Writes texts, numbers, arrays, and lists and dicts of them, in protocol 2; the file appears whole or not at all.

    WriteFailed where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.writelines(pickled(record))
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WriteFailed(f"{path}: cannot write: {error.strerror}") from None


def pickled(value: object) -> list[bytes]:
    """The parts of a pickle, one after the other."""
    return [b"\x80\x02", *parts(value), b"."]


def parts(value: object) -> list[bytes]:
    """What puts a value on the stack."""
    if isinstance(value, dict):
        return [b"}(", *(part for pair in value.items() for item in pair for part in parts(item)), b"u"]
    if isinstance(value, list):
        return [b"](", *(part for item in value for part in parts(item)), b"e"]
    if isinstance(value, np.ndarray):
        return array(value)
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return string(value)
    if isinstance(value, (int, np.integer)) and -(2**31) <= value < 2**31:
        return [b"J" + struct.pack("<i", value)]
    if isinstance(value, float):
        return [b"G" + struct.pack(">d", value)]
    raise TypeError(f"{type(value).__name__}: expected text, a number below 2**31, an array, or a list or dict of them")


def string(value: bytes) -> list[bytes]:
    if len(value) > LARGEST:
        raise WriteFailed(f"an array of {len(value)} bytes: a pickle of Python 2 holds {LARGEST}; expected a smaller batch")
    return [b"T" + struct.pack("<i", len(value)), value]


def array(value: np.ndarray) -> list[bytes]:
    """numpy.core.multiarray._reconstruct(ndarray, (0,), "b"), and its state: (1, shape, type, columns first, bytes)."""
    value = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    order = b"<" if value.dtype.itemsize > 1 else b"|"
    return [b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01(", *(part for size in value.shape for part in parts(size)), b"t",
            b"cnumpy\ndtype\n", *string(value.dtype.str[1:].encode()), b"K\x00K\x01\x87R(K\x03", *string(order), b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89", *string(value.tobytes()), b"tb"]
