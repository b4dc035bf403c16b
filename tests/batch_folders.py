"""Directories of data batches, for tests of providers."""
from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convnet.errors import ConvnetError

IMAGES = 5
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 4, IMAGES), np.uint8)
COLUMNS = PIXELS.reshape(48, IMAGES)  # one column an image
LABELS = [0, 2, 1, 2, 0]
MEAN = COLUMNS.mean(axis=1, keepdims=True)


def write(path: Path, record: dict, form: str = "pickle") -> None:
    if form == "npz":
        np.savez_compressed(path.with_name(path.name + ".npz"), **record)
    else:
        path.write_bytes(pickle.dumps(record, 2))


def folder_maker(tmp_path: Path) -> Callable[..., Path]:
    """A fixture: writes a directory of one batch, with changes to its record or the meta file's."""

    def make(meta=(), batch=(), form="pickle", number=1) -> Path:
        standard = {"num_vis": 48, "data_mean": MEAN, "label_names": ["cat", "dog", "fox"]}
        for name, record in (
            ("batches.meta", standard | {"num_cases_per_batch": IMAGES} | dict(meta)),
            (f"data_batch_{number}", {"data": COLUMNS, "labels": LABELS} | dict(batch)),
        ):
            write(tmp_path / name, {k: v for k, v in record.items() if v is not None}, form)
        return tmp_path

    return make


def refused(error: type[ConvnetError], words: list[str], function, *arguments, **options) -> None:
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    for word in words:
        assert word in str(caught.value)
