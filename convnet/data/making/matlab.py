"""MATLAB's level 5 MAT-files, as much of them as the devkits' meta.mat need: one array of structures with texts and numbers.

After the format's description, "MAT-File Format" of MathWorks. Nothing is executed and no size is believed.
"""

from __future__ import annotations

import struct
import zlib
from math import prod

import numpy as np

MAX_BYTES = 2**28  # of an unpacked element
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # miINT8, ...
MATRIX, COMPRESSED, UTF8, UTF16 = 14, 15, 16, 17
STRUCT, CHAR = 2, 4  # classes of arrays
NUMERIC = range(6, 16)  # mxDOUBLE_CLASS to mxUINT64_CLASS


class NotMatlab(ValueError):
    """What is not as expected in a MAT-file."""


def read_structures(data: bytes, name: str) -> list[dict[str, object]]:
    """The structures of the array of that name: field -> text (of one row) or array of numbers; of other fields, None.

    Raises NotMatlab.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise NotMatlab("found another kind of file, expected a MAT-file of level 5 (what MATLAB writes but for -v7.3)")
    try:
        for kind, content in _elements(data[128:], order):
            if kind == COMPRESSED:
                unpacker = zlib.decompressobj()
                content = unpacker.decompress(content, MAX_BYTES)
                if unpacker.unconsumed_tail:
                    raise NotMatlab(f"an element of more than {MAX_BYTES:,} bytes")
                kind, content = next(_elements(content, order), (0, b""))
            if kind == MATRIX:
                found, value = _array(content, order, depth=0)
                if found == name and isinstance(value, list):
                    return value
    except (struct.error, zlib.error, ValueError, IndexError, StopIteration) as error:
        raise error if isinstance(error, NotMatlab) else NotMatlab(f"a damaged MAT-file: {error}") from None
    raise NotMatlab(f"no array of structures named {name} in it")


def _elements(data: bytes, order: str):
    """(type, content) of the elements that follow each other."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # a small one: size, type and four bytes
            kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            end = start + size + (0 if kind == COMPRESSED else -size % 8)
        if start + size > len(data) or (end - start < size):
            raise NotMatlab(f"an element of {size} bytes where {len(data) - start} are left")
        yield kind, data[start : start + size]
        at = end


def _array(content: bytes, order: str, depth: int) -> tuple[str, object]:
    """Name and value of an array: a list of dicts, a text, numbers, or None where it is something else."""
    parts = _elements(content, order)
    flags = _numbers(next(parts), order)
    shape = tuple(_numbers(next(parts), order).tolist())
    name = next(parts)[1].decode("latin-1")
    kind = int(flags[0]) & 0xFF
    if kind == STRUCT and depth == 0:
        length = int(_numbers(next(parts), order)[0])
        names = next(parts)[1]
        if not 0 < length <= 64 or not names:
            raise NotMatlab("an array of structures without fields")
        fields = [names[i : i + length].rstrip(b"\0").decode("latin-1") for i in range(0, len(names), length)]
        values = [_array(part, order, depth + 1)[1] for _, part in parts]
        if min(shape, default=0) < 0 or len(values) != prod(shape) * len(fields):
            raise NotMatlab(f"{len(values)} values in {shape} structures of {len(fields)} fields")
        return name, [dict(zip(fields, values[i : i + len(fields)], strict=True)) for i in range(0, len(values), len(fields))]
    if kind == CHAR:
        code, text = next(parts, (UTF8, b""))
        if code in (UTF8, UTF16):
            return name, text.decode("utf-8" if code == UTF8 else "utf-16-le" if order == "<" else "utf-16-be", "replace")
        return name, "".join(map(chr, _numbers((code, text), order).tolist()))
    if kind in NUMERIC:
        numbers = _numbers(next(parts, (9, b"")), order)
        return name, numbers.reshape(shape, order="F")
    return name, None


def _numbers(element: tuple[int, bytes], order: str) -> np.ndarray:
    kind, content = element
    if kind not in NUMBERS:
        raise NotMatlab(f"found data of type {kind}, expected numbers")
    return np.frombuffer(content, f"{order}{NUMBERS[kind]}")
