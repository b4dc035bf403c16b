"""The file format of checkpoints: named tensors and a JSON header, no pickle.

An uncompressed zip, so that zipfile and NumPy alone can read it
(`np.load(path)["conv1.weights[0]"]`):

    header.json      what the caller saved, with "format", "version" and the table "tensors":
                     [{"name": ..., "dtype": "<f4", "shape": [...]}, ...]
    NAME.npy         a tensor in C order; letters of the name that mean something in a path are
                     percent-encoded (urllib.parse.quote)

The zip holds a CRC-32 of the header and of each tensor. A file is never trusted: nothing is
allocated before the sizes it claims have been compared with the size it has.
"""

import contextlib
import io
import json
import math
import os
import struct
import zipfile
from itertools import chain
from urllib.parse import quote

import numpy as np

from convnet.errors import DataError, MissingInput, OutOfMemory

FORMAT = "convnet-checkpoint"
VERSION = 1
HEADER = "header.json"

_RESERVED = {"format", "version", "tensors"}
_DTYPES = {"|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"}
_BEGIN = b"PK\x03\x04"  # of every zip file that has entries
_BLOCK = 1 << 20
_MAX_HEADER = 64 << 20  # config texts and the costs of a long run are a few MB
# What zipfile, json and numpy.lib.format raise on bytes that nobody of good will wrote.
MALFORMED = (zipfile.BadZipFile, ValueError, TypeError, KeyError, EOFError, NotImplementedError,
             RuntimeError, OverflowError, SyntaxError, struct.error)


class NewerVersion(DataError):
    """Written by a later convnet; an older checkpoint must not silently take its place."""


# Writing

def pack(header: dict, tensors: dict[str, np.ndarray]) -> tuple[bytes, dict[str, np.ndarray]]:
    """header.json and the arrays as `write` takes them; ValueError or TypeError before any I/O.

    `header` is what JSON can hold (tuples come back as lists, keys as strings) and NumPy scalars.
    """
    if taken := _RESERVED & header.keys():
        raise ValueError(f"checkpoint header: {', '.join(sorted(taken))} is written by save()")
    arrays = {name: _storable(name, value) for name, value in tensors.items()}
    table = [{"name": name, "dtype": array.dtype.str, "shape": list(array.shape)}
             for name, array in arrays.items()]
    text = json.dumps({"format": FORMAT, "version": VERSION, **header, "tensors": table},
                      indent=1, default=_plain)
    return text.encode(), arrays


def write(file, text: bytes, arrays: dict[str, np.ndarray]):
    """The same text and arrays give the same bytes: ZipInfo's date is 1980, not now."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(HEADER), text)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(_entry(name)), "w", force_zip64=True) as entry:
                # asarray keeps the shape (); ascontiguousarray would make it (1,).
                np.lib.format.write_array(entry, np.asarray(array, order="C"), (1, 0),
                                          allow_pickle=False)


def _storable(name: str, value) -> np.ndarray:
    array = np.asarray(value)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype.str not in _DTYPES:
        raise ValueError(f"checkpoint tensor {name}: dtype {array.dtype}; expected a plain number")
    return array


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"checkpoint header: {type(value).__name__} {value!r}: expected what JSON can "
                    "hold; arrays belong among the tensors")


def _entry(name: str) -> str:
    return quote(name, safe="[](),=+@ ") + ".npy"


# Reading

def load(path) -> tuple[dict, dict[str, np.ndarray]]:
    """The header and the tensors as they were saved; DataError says which part is damaged."""
    tensors = {}

    def keep(name, dtype, shape, blocks):
        try:
            tensors[name] = np.empty(shape, dtype)
        except MemoryError as error:
            raise OutOfMemory(f"{path}: tensor {name!r}: {error}; free memory on this machine, or "
                              "load the checkpoint on a larger one") from None
        flat, done = tensors[name].reshape(-1).view(np.uint8), 0
        for block in blocks:
            flat[done:done + len(block)] = np.frombuffer(block, np.uint8)
            done += len(block)

    return _read(path, keep), tensors


def verify(path) -> dict:
    """The header, once every CRC has been checked; DataError as from load, without its memory."""
    def discard(name, dtype, shape, blocks):
        for _ in blocks:
            pass

    return _read(path, discard)


def _read(path, take) -> dict:
    """Checks the whole file; gives each tensor to `take` in blocks; answers with the header."""
    try:
        with open(path, "rb") as file:
            begin = file.read(len(_BEGIN))
            if begin != _BEGIN:
                found = f"it begins with {begin!r}" if begin else "it is empty"
                raise DataError(f"{path}: not a checkpoint of convnet: {found}; expected a zip "
                                f"file, which begins with {_BEGIN!r}; convnet-convert makes one of another program's")
            return _read_zip(path, file, take)
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError) as error:
        raise MissingInput(f"{path}: cannot read this checkpoint: {error.strerror}; expected a "
                           "file EPOCH.BATCH.ckpt") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read to its end: {error.strerror or error}; use "
                        "another checkpoint") from None


def _read_zip(path, file, take) -> dict:
    try:
        archive = zipfile.ZipFile(file)
    except MALFORMED as error:
        raise DataError(f"{path}: truncated or damaged, its table of contents cannot be read "
                        f"({error}); use another checkpoint") from None
    with archive:
        entries = _entries(path, archive, os.fstat(file.fileno()).st_size)
        with _blaming(path, HEADER):
            header, table = _header(path, archive, entries)
        for name, dtype, shape in table:
            info = entries[_entry(name)]
            part = f"tensor {info.filename.removesuffix('.npy')}"
            with _blaming(path, part), archive.open(info) as entry:
                first = _first_block(entry, info.file_size, dtype, shape)
                # Reading to the end is what compares the CRC.
                take(name, dtype, shape, chain([first], iter(lambda: entry.read(_BLOCK), b"")))
    return header


@contextlib.contextmanager
def _blaming(path, part: str):
    try:
        yield
    except DataError:
        raise
    except MALFORMED as error:
        raise DataError(f"{path}: {part}: damaged ({error or type(error).__name__}); use another "
                        "checkpoint") from None


def _entries(path, archive, size: int) -> dict[str, zipfile.ZipInfo]:
    """The zip's entries by name: each stored as it is, together no larger than the file."""
    infos = archive.infolist()
    entries = {info.filename: info for info in infos}
    if len(entries) != len(infos):
        raise DataError(f"{path}: damaged: two entries have one name")
    for info in infos:
        # Bits 3 and 11 of the flags say where the sizes stand and that names are UTF-8.
        if info.compress_type or info.flag_bits & ~0x808 or info.file_size != info.compress_size:
            raise DataError(f"{path}: {info.filename!r}: compressed, encrypted or damaged; "
                            "expected it stored as it is")
    total = sum(info.file_size for info in infos)
    if total > size:
        raise DataError(f"{path}: claims to hold {total} bytes, and has {size}")
    if HEADER not in entries:
        raise DataError(f"{path}: not a checkpoint of convnet: a zip without {HEADER}; "
                        "convnet-convert makes one of another program's")
    return entries


def _header(path, archive, entries) -> tuple[dict, list]:
    """What was saved as header, and (name, dtype, shape) of each tensor, both checked."""
    if entries[HEADER].file_size > _MAX_HEADER:
        raise DataError(f"{path}: {HEADER}: more than {_MAX_HEADER} bytes")
    header = json.loads(archive.read(entries[HEADER]).decode())
    if not isinstance(header, dict) or header.pop("format", None) != FORMAT:
        raise DataError(f"{path}: {HEADER}: not a checkpoint: expected format {FORMAT!r}")
    version = header.pop("version", None)
    if isinstance(version, int) and version > VERSION:
        raise NewerVersion(f"{path}: format version {version}; this convnet reads up to {VERSION}: "
                           "use the convnet that wrote it, or a newer one")
    if version != VERSION:
        raise DataError(f"{path}: {HEADER}: format version {version!r}; expected {VERSION}")

    table = [(row["name"], row["dtype"], row["shape"]) for row in header.pop("tensors")]
    for name, dtype, shape in table:
        if not isinstance(name, str) or dtype not in _DTYPES or not _is_shape(shape):
            raise DataError(f"{path}: {HEADER}: tensor {name!r:.80} of dtype {dtype!r:.80} and "
                            f"shape {shape!r:.80}: expected a plain number and whole numbers")
    listed = [HEADER, *(_entry(name) for name, _, _ in table)]
    if sorted(listed) != sorted(entries):
        odd = sorted(set(listed) ^ set(entries)) or ["a name twice"]
        raise DataError(f"{path}: the tensors listed in {HEADER} are not those in the file: "
                        f"{', '.join(map(repr, odd[:3]))}")
    return header, table


def _is_shape(shape) -> bool:
    return isinstance(shape, list) and all(type(n) is int and 0 <= n < 2**62 for n in shape)


def _first_block(entry, size: int, dtype: str, shape: list) -> bytes:
    """The tensor's first bytes, once its .npy header and its size agree with the table."""
    block = io.BytesIO(entry.read(4096))
    if np.lib.format.read_magic(block) != (1, 0):
        raise ValueError("not in the .npy format 1.0")
    found = np.lib.format.read_array_header_1_0(block)
    if found != (tuple(shape), False, np.dtype(dtype)):
        raise ValueError(f"holds {found[2]} {found[0]}; {HEADER} says {dtype} {tuple(shape)}")
    needs, has = math.prod(shape) * np.dtype(dtype).itemsize, size - block.tell()
    if needs != has:
        raise ValueError(f"{dtype} {tuple(shape)} needs {needs} bytes, and there are {has}")
    return block.read()
