"""Files of named values: pickles (`convnet.legacy`), and `.npz` archives of the same content.

An `.npz` is a zip of `.npy` arrays, as `numpy.savez` and `savez_compressed` write it, each stored
under the key that the pickle has; text is an array of text, a number an array of rank 0. It is
read here and not by `numpy.load`, which allocates whatever size an array's header claims.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from convnet.errors import DataError, MissingInput
from convnet.legacy.pickled_numpy import PLAIN_TYPE, Refusal, check_contents
from convnet.legacy.pickles import read_pickle

NPY_HEADER = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|\x02\x00....)"
    rb"\{'descr': '([<>|]%s)', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,18}L?(?:, |,(?=\))|(?=\))))*)\), \} *\n" % PLAIN_TYPE.encode(),
    re.DOTALL,
)
# What zipfile raises on damaged archives, and numpy on shapes beyond its limits.
NPZ_ERRORS = (
    Refusal, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, MemoryError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


def read_record(path: Path, fields: tuple[str, ...] = ()) -> dict[str, object]:
    """The dict in a pickle, or the arrays of an `.npz`; keys that are bytes become text.

    fields  names of what may also stand in a tuple
    """
    record = _read_npz(path) if path.suffix == ".npz" else read_pickle(path)
    if fields and isinstance(record, tuple) and len(record) == len(fields):
        return dict(zip(fields, record, strict=True))
    if not isinstance(record, dict):
        raise DataError(f"{path}: a {type(record).__name__}, expected a dict with named values")
    return {k.decode("latin-1") if isinstance(k, bytes) else k: v for k, v in record.items()}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from error
    member = "the archive"
    arrays = {}
    with file:
        try:
            with zipfile.ZipFile(file) as archive:
                for member in archive.namelist():
                    arrays[member.removesuffix(".npy")] = read_npy(archive.read(member))
        except NPZ_ERRORS as error:
            raise DataError(
                f"{path}: {member}: {error or type(error).__name__}; expected an .npz of arrays: "
                "is the file complete, and the right one?"
            ) from error
    return arrays


def read_npy(raw: bytes) -> np.ndarray:
    """An array behind the header that numpy writes; any other header is refused."""
    match = NPY_HEADER.match(raw)
    if not match:
        raise Refusal(f"found {raw[:60]!r}, expected an array of bool, int, uint, float or text")
    code, fortran, sizes = (part.decode() for part in match.groups())
    shape = tuple(int(size) for size in re.findall("[0-9]+", sizes))
    contents = raw[match.end() :]
    check_contents(shape, np.dtype(code), contents)
    flat = np.frombuffer(contents, code).copy()  # a copy, to be writable
    return flat.reshape(shape, order="F" if fortran == "True" else "C")
