"""State dicts of PyTorch: .pth files as torch.save writes them since 1.6, read and written without PyTorch.

A zip with entries stored as they are: FOLDER/data.pkl, a pickle of a dict whose tensors are calls of
torch._utils._rebuild_tensor_v2((reference to a storage), offset, shape, strides, ...), and FOLDER/data/KEY, the numbers of a
storage. The pickle is read by the inert reader; only these calls mean something here.
"""

from __future__ import annotations

import struct
import zipfile
from math import prod
from pathlib import Path

import numpy as np

from ..checkpoint_file import MALFORMED
from ..errors import DataError, MissingInput
from ..legacy.pickles import PERSISTENT, Foreign, read_pickle

STORAGES = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bfloat16", "LongStorage": "i8", "IntStorage": "i4",
            "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "b1"}
MAX_PICKLE = 64 << 20
MAX_RANK = 16
MAX_SHARING = 4  # tied weights and float32 of bfloat16 are larger than the file; a bomb is thousands of times
FOLDER = "archive"


# ---- reading ----------------------------------------------------------------------------------------------------------

def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Name -> tensor. Of a training checkpoint, what is under `state_dict` or `model`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive, Path(path).stat().st_size)
    except DataError:
        raise
    except MALFORMED as error:
        raise DataError(f"{path}: damaged ({error or type(error).__name__}); expected a zip, as torch.save writes it") from None
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror or error}") from None


def _read(path: str | Path, archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    entries = {info.filename: info for info in archive.infolist()}
    for info in entries.values():
        if info.compress_type or info.file_size != info.compress_size:
            raise DataError(f"{path}: {info.filename!r:.80} is compressed or damaged; expected it stored as it is, as torch.save writes it")
    if sum(info.file_size for info in archive.infolist()) > size:
        raise DataError(f"{path}: its entries claim more than the {size} bytes that it has")
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1 or entries[pickles[0]].file_size > MAX_PICKLE:
        raise DataError(f"{path}: expected one entry FOLDER/data.pkl of at most {MAX_PICKLE >> 20} MB, found {len(pickles)}; is this a state dict?")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder").strip() != b"little":
        raise DataError(f"{path}: written by a machine with the other order of bytes; expected the little-endian one")
    record = read_pickle(archive.read(pickles[0]), foreign=True, name=f"{path}: {pickles[0]}")
    for wrapper in ("state_dict", "model"):
        if isinstance(record, dict) and isinstance(record.get(wrapper), dict):
            record = record[wrapper]
    if not isinstance(record, dict) or not record:
        raise DataError(f"{path}: holds {record!r:.80}; expected a state dict: torch.save(module.state_dict(), PATH)")
    storages: dict[str, np.ndarray] = {}
    tensors: dict[str, np.ndarray] = {}
    for name, value in record.items():
        if not isinstance(name, str):
            raise DataError(f"{path}: a key {name!r:.40} of the state dict is no text")
        try:
            tensors[name] = _tensor(archive, entries, folder, value, storages)
        except MALFORMED as error:
            raise DataError(f"{path}: tensor {name!r:.80}: {error or type(error).__name__}") from None
        if sum(tensor.nbytes for tensor in tensors.values()) > MAX_SHARING * size:
            raise DataError(f"{path}: its tensors are more than {MAX_SHARING} times the file; expected tensors with storages of their own")
    return tensors


def _tensor(archive, entries, folder: str, value: object, storages: dict[str, np.ndarray]) -> np.ndarray:
    """The array of one call; ValueError and its like where it is none."""
    if isinstance(value, Foreign) and value.name == "torch._utils._rebuild_parameter" and value.arguments:
        value = value.arguments[0]
    if not isinstance(value, Foreign) or value.name != "torch._utils._rebuild_tensor_v2" or len(value.arguments or ()) < 4:
        raise ValueError(f"is {value!r:.80}, expected a tensor")
    storage, offset, shape, strides = value.arguments[:4]
    if not all(type(numbers) is tuple and len(numbers) <= MAX_RANK and all(type(n) is int and 0 <= n < 2**48 for n in numbers)
               for numbers in (shape, strides, (offset,))) or len(shape) != len(strides):
        raise ValueError("offset, shape or strides are not those of a tensor")
    flat = _storage(archive, entries, folder, storage, storages)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if prod(shape) > flat.size or (prod(shape) and last >= flat.size):
        raise ValueError(f"shape {shape} from number {offset} on is more than its storage has, {flat.size} numbers")
    if not prod(shape):
        return np.empty(shape, flat.dtype)
    steps = tuple(stride * flat.itemsize for stride in strides)
    return np.array(np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False), order="C")


def _storage(archive, entries, folder: str, reference: object, storages: dict[str, np.ndarray]) -> np.ndarray:
    """The numbers of a storage, read once; the zip has their CRC."""
    known = isinstance(reference, Foreign) and reference.name == PERSISTENT and type(reference.arguments[0]) is tuple and len(reference.arguments[0]) == 5
    if not known:
        raise ValueError("its storage is not of this file")
    _, kind, key, _, count = reference.arguments[0]
    name = kind.name.removeprefix("torch.") if isinstance(kind, Foreign) else ""
    if name not in STORAGES:
        raise ValueError(f"its numbers are of the type {name[:40]!r}, known are {', '.join(STORAGES)}")
    if not isinstance(key, str) or f"{folder}data/{key}" not in entries:
        raise ValueError(f"its storage {key!r:.40} is not in the file")
    if key not in storages:
        data = archive.read(f"{folder}data/{key}")
        half = STORAGES[name] == "bfloat16"
        dtype = np.dtype("<u2" if half else "<" + STORAGES[name])
        if len(data) % dtype.itemsize or count != len(data) // dtype.itemsize:
            raise ValueError(f"its storage is said to have {count!r:.40} numbers, and there are {len(data)} bytes")
        flat = np.frombuffer(data, dtype)
        # bfloat16 is the upper half of a float32
        storages[key] = (flat.astype("<u4") << 16).view("<f4") if half else flat
    return storages[key]


# ---- writing ----------------------------------------------------------------------------------------------------------

def write_state_dict(file, tensors: dict[str, np.ndarray]) -> None:
    """As torch.save(OrderedDict of float32 tensors); torch.load(..., weights_only=True) reads it. Equal tensors give equal bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{FOLDER}/data.pkl"), _pickled({name: array.shape for name, array in tensors.items()}))
        archive.writestr(zipfile.ZipInfo(f"{FOLDER}/byteorder"), "little")
        for i, array in enumerate(tensors.values()):
            with archive.open(zipfile.ZipInfo(f"{FOLDER}/data/{i}"), "w", force_zip64=True) as entry:
                entry.write(np.ascontiguousarray(array, "<f4").tobytes())
        archive.writestr(zipfile.ZipInfo(f"{FOLDER}/version"), "3\n")


def _pickled(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The pickle of protocol 2 that rebuilds tensor i, contiguous, of storage i."""
    ordered = b"ccollections\nOrderedDict\n)R"
    parts = [b"\x80\x02", ordered, b"("]
    for i, (name, shape) in enumerate(shapes.items()):
        strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
        storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(str(i)) + _text("cpu") + _number(prod(shape)) + b"tQ"
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(", storage, _number(0), _numbers(shape), _numbers(strides), b"\x89", ordered, b"tR"]
    return b"".join([*parts, b"u."])


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _number(number: int) -> bytes:
    return b"J" + struct.pack("<i", number) if number < 2**31 else b"\x8a\x08" + struct.pack("<q", number)


def _numbers(numbers) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"
