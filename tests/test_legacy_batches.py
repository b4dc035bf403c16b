"""Batches as the 2012 program and cuda-convnet2 wrote them: JPEG strings, labels of several kinds, the tree of the classes."""
from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batch_folders import LABELS, folder_maker, refused
from convnet.data import Provider, open_provider
from convnet.data.order import images_first
from convnet.errors import DataError, MissingInput
from convnet.legacy.writing import write_pickle

make = pytest.fixture(folder_maker, name="make")

SIZE = 16
SMOOTH = (np.indices((SIZE, SIZE)).sum(axis=0)[None, :, :, None] * 4 + np.arange(3)[:, None, None, None] * 30 + np.arange(4) * 20).astype(np.uint8)  # 3 x 16 x 16 x 4


def jpeg(image: np.ndarray, mode: str = "RGB", form: str = "JPEG") -> bytes:
    """A picture (channels, height, width) as a file of hardly any loss."""
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).convert(mode).save(file, form, **({"quality": 100, "subsampling": 0} if form == "JPEG" else {}))
    return file.getvalue()


JPEGS = [jpeg(SMOOTH[..., i]) for i in range(4)]
IMAGE_META = {"num_vis": 3 * SIZE * SIZE, "data_mean": np.full((3 * SIZE * SIZE, 1), 99.0), "label_names": ["cat", "dog", "fox"], "num_cases_per_batch": None}


@pytest.fixture
def make_jpegs(make, tmp_path):
    """A directory of one batch of JPEG strings: (record, meta) -> path. Strings are Python 2's."""

    def make_jpegs(record, meta=()) -> Path:
        make(IMAGE_META | dict(meta))
        write_pickle(tmp_path / "data_batch_1", record) if isinstance(record, dict) else (tmp_path / "data_batch_1").write_bytes(pickle.dumps(record, 2))
        return tmp_path

    return make_jpegs


def assert_smooth(provider: Provider) -> None:
    pixels, labels = provider.read(1).data
    assert pixels.dtype == np.uint8 and pixels.shape == SMOOTH.shape and np.shares_memory(images_first(pixels), pixels)
    assert np.abs(pixels.astype(int) - SMOOTH).max() <= 3
    assert labels.ravel().tolist() == [0, 2, 1, 2]


def test_jpeg_strings_of_the_2012_program(make_jpegs):
    """A tuple (strings, sizes, labels)."""
    assert_smooth(open_provider("cifar", make_jpegs(([image.decode("latin-1") for image in JPEGS], [(16, 16)] * 4, [0, 2, 1, 2]))))
    assert_smooth(open_provider("cifar", make_jpegs((JPEGS, [(16, 16)] * 4, [[0], [2], [1], [2, 0]]))))


@pytest.mark.parametrize("where", ["in a folder", "beside each other"])
def test_jpeg_strings_of_cuda_convnet2(make, tmp_path, where):
    make(IMAGE_META | {"batch_size": 4, "num_colors": 3, "img_size": SIZE})
    (tmp_path / "data_batch_1").unlink()
    folder = tmp_path / "data_batch_1" if where == "in a folder" else tmp_path
    for part in range(2):
        write_pickle(folder / f"data_batch_1.{part}", {"data": JPEGS[2 * part : 2 * part + 2], "labels": [[0], [2], [1], [2]][2 * part : 2 * part + 2]})
    provider = open_provider("image", tmp_path)
    assert_smooth(provider)
    assert (provider.mean == 99).all() and provider.numbers == [1]
    (folder / "data_batch_1.0").unlink()
    (folder / "data_batch_1.1").rename(folder / "data_batch_1.2")
    refused(MissingInput, ["data_batch_1 has the parts 2"], open_provider, "image", tmp_path)


def test_gray_and_larger_pictures_are_taken(make_jpegs):
    gray = jpeg(SMOOTH[..., 0], "L")
    large = np.pad(SMOOTH[..., 1], ((0, 0), (3, 3), (5, 6)), "edge")
    pixels = open_provider("image", make_jpegs({"data": [gray, jpeg(large), jpeg(SMOOTH[..., 2], "CMYK"), JPEGS[3]], "labels": [0, 2, 1, 2]})).read(1).data[0]
    assert (pixels[0, ..., 0] == pixels[2, ..., 0]).all()  # red and blue
    assert np.abs(pixels[..., 1].astype(int) - SMOOTH[..., 1]).max() <= 3
    one = open_provider("image", make_jpegs({"data": JPEGS, "labels": [0] * 4}, {"num_vis": 256, "data_mean": None})).read(1).data[0]
    assert one.shape == (1, 16, 16, 4)


def bomb(side: int) -> bytes:
    """A JPEG whose header claims more pixels than it has."""
    raw = bytearray(JPEGS[0])
    place = raw.index(b"\xff\xc0") + 5
    raw[place : place + 4] = side.to_bytes(2, "big") * 2
    return bytes(raw)


@pytest.mark.parametrize(("image", "words"), {
    "cut": (JPEGS[0][:-200], ["no JPEG that can be read", "runcated"]),
    "no picture": (b"GIF89a", ["no JPEG that can be read"]),
    "another format": (jpeg(SMOOTH[..., 0], form="PNG"), ["no JPEG that can be read"]),
    "no string": (7, ["no JPEG that can be read"]),
    "beyond latin-1": ("\u20ac", ["no JPEG that can be read"]),
    "small": (jpeg(SMOOTH[:, 1:, :, 0]), ["16 x 15 pixels, expected 16 x 16"]),
    "large": (bomb(1000), ["1000 x 1000 pixels, expected 16 x 16"]),
    "a bomb": (bomb(65000), ["image 1: "]),
}.values())  # fmt: skip
def test_bad_pictures_are_refused_by_file_and_image(make_jpegs, tmp_path, image, words):
    path = make_jpegs({"data": JPEGS, "labels": [0, 2, 1, 2]})
    (path / "data_batch_1").write_bytes(pickle.dumps({"data": [JPEGS[0], image, *JPEGS[2:]], "labels": [0, 2, 1, 2]}, 3))
    refused(DataError, ["data_batch_1: image 1: ", *words], open_provider("image", path).read, 1)


def test_as_many_labels_as_pictures(make_jpegs):
    read = open_provider("image", make_jpegs({"data": JPEGS, "labels": [0, 2, 1]})).read
    refused(DataError, ["data_batch_1: 4 images and 3 labels"], read, 1)


def test_an_image_may_be_of_several_classes_or_none(make):
    several = [[0, 2], [1], [], [2], [0, 1]]
    path = make(batch={"labels": several})
    vectors = open_provider("cifar", path, label_kind="vector").read(1).data[1].reshape(3, 5)
    assert [np.flatnonzero(column).tolist() for column in vectors.T] == several
    path = make(batch={"labels": [[0, 2], [1], [1, 0], [2], [0, 1]]})
    _, index, both = open_provider("cifar", path, label_kind="both").read(1).data
    assert index.ravel().tolist() == [0, 1, 1, 2, 0] and both.sum() == 8  # the first of them, and all


@pytest.mark.parametrize("transposed", [False, True])
def test_labels_may_be_a_matrix_of_numbers(make, transposed):
    matrix = np.random.default_rng(0).standard_normal((3, 5))
    provider = open_provider("cifar", make(batch={"labels": matrix.T if transposed else matrix}), label_kind="vector")
    assert np.array_equal(provider.read(1).data[1].reshape(3, 5), matrix.astype(np.float32))
    path = make(batch={"labels": matrix * np.inf})
    refused(DataError, ["image 0: its labels are not all finite"], open_provider("cifar", path, label_kind="vector").read, 1)


def test_an_offset_of_labels_is_added(make):
    path = make({"label_offset": -1}, {"labels": [1, 3, 2, 3, 1]})
    assert open_provider("cifar", path).read(1).data[1].ravel().tolist() == LABELS
    path = make({"label_offset": -1}, {"labels": [1, 3, 0, 3, 1]})
    refused(DataError, ["image 2: label 0, to which label_offset = -1 is added"], open_provider("cifar", path).read, 1)


# The root 9 has the class 0 and the node 7, which has the classes 2 and 1.
WNIDS = {"gproot": 9, "n01": 0}
TREE = {9: [7, 0], 7: [2, 1], 0: []}


def test_the_tree_of_the_classes_is_read(make):
    assert open_provider("cifar", make({"tree": TREE, "all_wnids": WNIDS})).class_tree == (3, 4, 4, -1, 3)
    named = {"root": ["a", 0], "a": [2, 1]}
    assert open_provider("cifar", make({"tree": named, "all_wnids": {"gproot": "root"}})).class_tree == (3, 4, 4, -1, 3)
    assert open_provider("cifar", make({"tree": {3: [0, 1, 2]}, "all_wnids": {"gproot": 3}})).class_tree == (3, 3, 3, -1)


@pytest.mark.parametrize(("tree", "wnids", "words"), [
    (TREE, None, "tree: a dict, and all_wnids with the root None"),
    ([1, 2], WNIDS, "tree: a list, and all_wnids with the root 9"),
    ({9: 7}, WNIDS, "expected the children of each node"),
    ({9: [7, 0], 7: [2, 0]}, WNIDS, "tree: node 0 below"),
    ({9: [7, 0], 7: [9]}, WNIDS, "tree: node 9 below 7"),
    ({9: [7, 0], 7: [3, 1]}, WNIDS, "expected the labels 0 to 2"),
    ({9: [7, 0], 7: [True, 1]}, WNIDS, "tree: node True below 7"),
    ({9: [0, 1]}, WNIDS, "2 classes, and label_names 3"),
])
def test_what_is_no_tree_of_these_classes_is_refused(make, tree, wnids, words):
    refused(DataError, ["batches.meta: ", words], open_provider, "cifar", make({"tree": tree, "all_wnids": wnids}))
