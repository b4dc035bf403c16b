"""A directory of checkpoints: written whole or not at all, found again, thinned out, locked.

Each is a file `<epoch>.<batch>.ckpt` in the format of checkpoint_file.py.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import zipfile
from pathlib import Path

import numpy as np

from convnet.checkpoint_file import HEADER, MALFORMED, NewerVersion, load, pack, verify, write
from convnet.errors import CannotCreate, DataError, MissingInput, WriteFailed

__all__ = ["LOCK", "NewerVersion", "checkpoint_name", "checkpoints", "load", "lock", "newest_valid",
           "prune", "save", "verify"]

LOCK = ".lock"  # a file of the directory
_NAME = re.compile(r"(0|[1-9]\d{0,17})\.(0|[1-9]\d{0,17})\.ckpt")
_TEMPORARY = re.compile(r"\..+\.ckpt\.\d+\.tmp")


def checkpoint_name(epoch: int, batch: int) -> str:
    """`<epoch>.<batch>.ckpt`: the original's name, and a suffix that its pickles do not have."""
    return f"{epoch}.{batch}.ckpt"


def checkpoints(directory) -> list[Path]:
    """The files named like checkpoints, newest (epoch, batch) first; valid or not."""
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise MissingInput(f"{directory}: cannot read this directory of checkpoints: "
                           f"{error.strerror}; give the one that --save-path named") from None
    numbered = [(int(m[1]), int(m[2]), m[0]) for m in map(_NAME.fullmatch, names) if m]
    paths = [Path(directory, name) for _, _, name in sorted(numbered, reverse=True)]
    return [path for path in paths if path.is_file()]


def save(directory, name: str, header: dict, tensors: dict[str, np.ndarray]) -> Path:
    """Writes a checkpoint; after a failure the older ones are as they were: WriteFailed says why.

    `header` is what JSON can hold (tuples come back as lists, keys as strings).
    """
    if not name.endswith(".ckpt") or name.startswith(".") or "/" in name:
        raise ValueError(f"checkpoint name {name!r}: expected a file name that ends in .ckpt")
    text, arrays = pack(header, tensors)
    path = Path(directory, name)
    temporary = Path(directory, f".{name}.{os.getpid()}.tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # of a killed run that had our number
        with open(temporary, "xb") as file:
            write(file, text, arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(directory)
    except BaseException as error:  # KeyboardInterrupt too must not leave a temporary file
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        megabytes = (len(text) + sum(array.nbytes for array in arrays.values())) / 1e6
        raise WriteFailed(
            f"{path}: cannot write this checkpoint of {megabytes:.1f} MB: "
            f"{error.strerror or error}; the older checkpoints are as they were: make room there, "
            "then go on from them with --resume") from error
    return path


def _sync_directory(directory):
    """Makes the rename last; some file systems cannot, and say so by EINVAL or ENOTSUP."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def newest_valid(directory) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, and a warning for each newer one that is not."""
    warnings = []
    for path in checkpoints(directory):
        try:
            verify(path)
        except NewerVersion:
            raise
        except DataError as error:
            warnings.append(str(error))
        else:
            return path, warnings
    return None, warnings


def prune(directory, keep: int, best: str | None = None) -> list[Path]:
    """Removes all but the newest `keep` and the one named `best`; answers with what it removed.

    Only files that save() wrote count: regular files, by their names and tables of contents. One
    that is truncated is neither counted nor removed.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: expected 1 or more checkpoints to keep")
    ours = [path for path in checkpoints(directory) if _is_ours(path)]
    removed = []
    for path in ours[keep:]:
        if path.name == best:
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise WriteFailed(f"{path}: cannot remove this old checkpoint: {error.strerror}; "
                              "remove it by hand, or raise --keep") from None
        removed.append(path)
    return removed


def _is_ours(path: Path) -> bool:
    try:
        if path.is_symlink():
            return False
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()[:1] == [HEADER]
    except (OSError, *MALFORMED):
        return False


@contextlib.contextmanager
def lock(directory, other="another --save-path"):
    """Makes the directory and holds it for one run; CannotCreate (73) names who holds it, and that `other` may be given.

    The system frees the lock when the process ends, however it ends; the file `.lock` stays.
    """
    directory = Path(directory)
    with _lock_file(directory, other) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            raise CannotCreate(f"{directory}: in use by {holder}; wait for its end, or give "
                               f"{other}") from None
        except OSError as error:
            raise CannotCreate(f"{file.name}: cannot lock: {error.strerror}; give {other} "
                               "on a file system with locks (flock)") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        _remove_leftovers(directory)
        yield directory


def _lock_file(directory: Path, other: str):
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return open(directory / LOCK, "a+", encoding="utf-8")
    except OSError as error:
        raise CannotCreate(f"{directory}: cannot write in this directory: "
                           f"{error.strerror}; give {other}") from None


def _remove_leftovers(directory: Path):
    """Temporary files of runs that were killed: under the lock nobody can be writing them."""
    for name in os.listdir(directory):
        if _TEMPORARY.fullmatch(name):
            with contextlib.suppress(OSError):
                os.unlink(directory / name)
