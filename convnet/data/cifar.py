"""The original's batch directory: `batches.meta` and `data_batch_1`, `data_batch_2`, ...

Each file is a pickle, of Python 2 or 3, or the same content as `.npz` (`data_batch_1.npz`,
`batches.meta.npz`). A batch has

    data     (values, images), one column an image, channel by channel, row by row; or the
             transpose, as CIFAR-10's own Python files; uint8, other integers 0 to 255, or floats.
             Or a list of JPEG strings, of the size in the meta file; of larger ones the centre
    labels   one integer an image, or a list of those that it has, or a matrix (classes, images);
             or fine_labels, as CIFAR-100

The 2012 program's batches of JPEG strings are a tuple (data, sizes, labels). A batch may lie in
parts, `data_batch_1.1`, `data_batch_1.2`, ..., joined in this order, or so in a folder
`data_batch_1`, as cuda-convnet2's. Where CIFAR-10's `test_batch` lies beside the others it is the
batch after the last. The meta file has

    num_vis              values in an image
    data_mean            as many, their mean over the training images; may be absent
    label_names          of the classes; or fine_label_names
    num_cases_per_batch  images in a batch, the last may have fewer
    label_offset         added to all labels; may be absent
    tree, all_wnids      the children of each node of the classes' tree, and the root's number as
                         gproot (the 2012 program's): what treefc needs
    img_channels or num_colors, img_size (the side of a square) or img_height and img_width
                         all optional: else a square of three channels, or else of one
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convnet.data.batches import Batch, format_range
from convnet.data.jpeg import decode_batch, is_jpegs
from convnet.data.labels import REMAKE, LabelRule, Labels, read_class_tree, shown
from convnet.data.order import image_by_image
from convnet.data.provider import Provider, square_shape
from convnet.data.records import read_record
from convnet.errors import CommandLineError, DataError, MissingInput

BATCH_NAME = re.compile(r"data_batch_([0-9]{1,9})(?:\.([0-9]{1,9}))?(\.npz)?")
MAX_LABELS = 2**24  # float32 has every integer up to here


class CifarProvider(Provider):
    def __init__(
        self,
        name: str,
        data_path: Path | None,
        *,
        crop_border: int = 0,
        net_classes: int | None = None,
        label_kind: str = "index",
    ):
        if data_path is None:
            raise CommandLineError(f"--data-provider {name} needs --data-path DIRECTORY")
        self.path = Path(data_path)
        self.files = _find_batches(self.path)
        self.meta = meta = _Meta(_find_meta(self.path))
        named = len(meta.class_names)
        super().__init__(
            name,
            meta.shape,
            crop_border=crop_border,
            classes=named or net_classes,
            class_names=meta.class_names,
            mean=meta.mean,
            numbers=sorted(self.files),
            class_tree=meta.class_tree,
            label_kind=label_kind,
        )
        # Labels are below the smallest of these, and a wrong one is told why.
        limit, reason = min(
            (named or MAX_LABELS, f"{meta.path.name} names {named} classes{REMAKE}"),
            (net_classes or MAX_LABELS, f"the net has {net_classes} outputs, give it more"),
            (MAX_LABELS - 1, f"labels are float32{REMAKE}"),
        )
        self.rule = LabelRule(limit, reason, self.classes, meta.label_offset)

    def read(self, number: int) -> Batch:
        if number not in self.files:
            raise MissingInput(
                f"{self.path}: no data_batch_{number}; there are {format_range(self.numbers)}"
            )
        parts = [self._read_file(path) for path in self.files[number]]
        pixels = _join([pixels for pixels, _ in parts])
        labels = Labels.joined([labels for _, labels in parts])
        if labels.index is None and (self.label_kind != "vector" or labels.vectors is None):
            raise DataError(
                f"{self.files[number][0]}: labels: a matrix, or an image that has none; the net "
                "reads one class an image"
            )
        images = pixels.shape[-1]
        most = self.meta.images_per_batch
        if most is not None and images > most:
            raise DataError(
                f"{self.files[number][0]}: {images} images in the batch, expected at most "
                f"num_cases_per_batch = {most} of {self.meta.path.name}{REMAKE}"
            )
        pixels = image_by_image(pixels.reshape(*self.stored, images), self.threads)
        return Batch(number, (pixels, *self.label_arrays(labels.index, labels.vectors)))

    def _read_file(self, path: Path) -> tuple[np.ndarray, Labels]:
        """Pixels (values, images) and labels of one file."""
        record = read_record(path, ("data", "sizes", "labels"))
        labels = self.rule.read(path, _either(path, record, "labels", "fine_labels"))
        data = _either(path, record, "data")
        if is_jpegs(data):
            if len(data) != len(labels):
                raise DataError(f"{path}: {len(data)} images and {len(labels)} labels{REMAKE}")
            return decode_batch(path, data, self.stored, self.threads), labels
        values, images = self.meta.values, len(labels)
        shape = data.shape if isinstance(data, np.ndarray) else type(data).__name__
        if shape not in ((values, images), (images, values)) or images == 0:
            raise DataError(
                f"{path}: data: found {shape}, expected an array of shape ({values}, {images}) or "
                f"({images}, {values}): {values} values an image (num_vis of "
                f"{self.meta.path.name}) and {images} labels{REMAKE}"
            )
        # Where both fit, the original's own layout: a column an image, but a row in files of features.
        columns = shape == (values, images) and not (values == images and "source_model" in record)
        return _pixels(path, data if columns else data.T), labels


class _Meta:
    """What the meta file says, checked."""

    def __init__(self, path: Path):
        self.path = path
        self.record = read_record(path)
        self.values = self._integer("num_vis") or np.size(self.record.get("data_mean", ()))
        if not self.values:
            raise DataError(f"{path}: no num_vis: images have no size{REMAKE}")
        self.shape = self._shape()  # (channels, height, width)
        self.mean = self._mean()  # the same, or None
        self.class_names = self._class_names()
        self.images_per_batch = self._integer("num_cases_per_batch")
        self.label_offset = self._integer("label_offset", least=-MAX_LABELS) or 0
        self.class_tree = None
        if "tree" in self.record:
            self.class_tree = read_class_tree(path, self.record["tree"], self.record.get("all_wnids"))
            leaves = len(self.class_tree) - len({*self.class_tree} - {-1})
            if self.class_names and leaves != len(self.class_names):
                raise DataError(
                    f"{path}: tree: {leaves} classes, and label_names {len(self.class_names)}{REMAKE}"
                )

    def _integer(self, key: str, least: int = 1) -> int | None:
        """An integer from `least` on, or None when the file has no such key."""
        found = self.record.get(key)
        value = found.item() if isinstance(found, np.ndarray) and found.size == 1 else found
        if value is None:
            return None
        integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not integer or not least <= value < 2**31:
            raise DataError(
                f"{self.path}: {key}: found {shown(value)}, expected an integer from {least} on{REMAKE}"
            )
        return int(value)

    def _shape(self) -> tuple[int, int, int]:
        side = self._integer("img_size")
        height, width = self._integer("img_height") or side, self._integer("img_width") or side
        channels = self._integer("img_channels") or self._integer("num_colors")
        if channels and not (height and width):
            height = width = math.isqrt(self.values // channels)
        if height and width:
            shape = (channels or self.values // (height * width), height, width)
        else:
            shape = square_shape(self.values)
        if shape is None or math.prod(shape) != self.values:
            expected = " x ".join(map(str, shape or ("1 or 3", "side", "side")))
            raise DataError(
                f"{self.path}: num_vis: found {self.values} values an image, expected {expected}; "
                "say img_channels, img_height and img_width in the file"
            )
        return shape

    def _mean(self) -> np.ndarray | None:
        found = self.record.get("data_mean")
        if found is None:
            return None
        good = isinstance(found, np.ndarray) and found.dtype.kind in "iuf"
        if not good or found.size != self.values or not _is_finite(found):
            raise DataError(
                f"{self.path}: data_mean: found {_described(found)}, expected {self.values} finite "
                f"numbers{REMAKE}"
            )
        return found.astype(np.float32).reshape(self.shape)

    def _class_names(self) -> list[str]:
        names = self.record.get("label_names", self.record.get("fine_label_names", []))
        if isinstance(names, np.ndarray):
            names = names.ravel().tolist()
        if not isinstance(names, (list, tuple)) or not all(
            isinstance(name, (str, bytes)) for name in names
        ):
            raise DataError(
                f"{self.path}: label_names: found {_described(names)}, expected texts{REMAKE}"
            )
        return [n if isinstance(n, str) else n.decode("utf-8", "replace") for n in names]


def _find_batches(path: Path) -> dict[int, list[Path]]:
    """The file or the parts of each batch, by its number."""
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise MissingInput(f"--data-path {path}: {error.strerror}; expected a directory") from error
    whole: dict[int, list[Path]] = {}
    parts: dict[int, dict[int, Path]] = {}
    for entry in entries:
        match = BATCH_NAME.fullmatch(entry.name)
        if match and entry.is_dir():  # cuda-convnet2's, of files like the parts of others
            inside = [(BATCH_NAME.fullmatch(file.name), file) for file in sorted(entry.iterdir())]
            inside = {int(m[2]): file for m, file in inside if m and m[1] == match[1] and m[2]}
            parts.setdefault(int(match[1]), {}).update(inside)
            continue
        # A pickle comes before the .npz beside it: sorted so.
        if match and match[2]:
            parts.setdefault(int(match[1]), {}).setdefault(int(match[2]), entry)
        elif match:
            whole.setdefault(int(match[1]), [entry])
    for number, files in parts.items():
        found = sorted(files)
        if not found or found != list(range(found[0], found[0] + len(found))) or found[0] > 1:
            raise MissingInput(
                f"{path}: data_batch_{number} has the parts {format_range(found) or '(none)'}, expected all "
                "from 1 (or 0) on; fetch the missing ones"
            )
        whole.setdefault(number, [files[part] for part in found])
    tests = [entry for entry in entries if entry.name in ("test_batch", "test_batch.npz")]
    if whole and tests:
        whole[max(whole) + 1] = tests[:1]
    if not whole:
        raise MissingInput(f"--data-path {path}: no data_batch_1 or data_batch_1.npz in it")
    return whole


def _find_meta(path: Path) -> Path:
    for name in ("batches.meta", "batches.meta.npz"):
        if (path / name).exists():
            return path / name
    raise MissingInput(
        f"--data-path {path}: no batches.meta (or batches.meta.npz), which says the size of images"
    )


def _either(path: Path, record: dict[str, object], *keys: str) -> object:
    for key in keys:
        if key in record:
            return record[key]
    raise DataError(
        f"{path}: found the keys {', '.join(sorted(map(str, record)))[:200] or '(none)'}, "
        f"expected {' or '.join(keys)}{REMAKE}"
    )


def _pixels(path: Path, found: np.ndarray) -> np.ndarray:
    """uint8 or finite float32 (values, images)."""
    if found.dtype == np.uint8:
        return found
    if found.dtype.kind in "iu":
        good, expected = (found >= 0) & (found <= 255), "0 to 255"
        pixels = found.astype(np.uint8)
    elif found.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is too large for float32 is refused below
            pixels = found.astype(np.float32)
        good, expected = np.isfinite(pixels), "finite float32"
    else:
        raise DataError(f"{path}: data: found {_described(found)}, expected uint8{REMAKE}")
    if not good.all():
        image, value = np.argwhere(~good.T)[0]
        raise DataError(
            f"{path}: image {image}: value {value} is {found[value, image]}, expected {expected}"
            f"{REMAKE}"
        )
    return pixels


def _is_finite(array: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(array.astype(np.float32)).all())


def _join(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        finite = value.dtype.kind != "f" or _is_finite(value)
        return f"{value.dtype} of shape {value.shape}" + ("" if finite else ", not all finite")
    return f"a {type(value).__name__}"
