"""Providers give the data of good files, and say what is wrong with the others, and where."""

from __future__ import annotations

import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from batch_folders import COLUMNS, IMAGES, LABELS, MEAN, PIXELS, folder_maker, refused, write
from convnet.data import (
    Batch,
    Prefetcher,
    Provider,
    format_range,
    mean_of,
    minibatches,
    open_provider,
    parse_range,
)
from convnet.data.order import image_by_image, images_first
from convnet.data.records import read_record
from convnet.errors import CommandLineError, DataError, MissingInput

DIGITS = Path(__file__).parent.parent / "convnet" / "models" / "digits" / "data"
make = pytest.fixture(folder_maker, name="make")


def assert_standard(batch: Batch) -> None:
    pixels, labels = batch.data
    assert pixels.dtype == np.uint8 and np.shares_memory(images_first(pixels), pixels)
    assert np.array_equal(pixels, PIXELS)
    assert labels.dtype == np.float32 and labels.shape == (1, 1, 1, IMAGES)
    assert labels.ravel().tolist() == LABELS
    assert batch.images == IMAGES


# Batch directories.


@pytest.mark.parametrize("form", ["pickle", "npz"])
def test_a_directory_says_what_it_holds(make, form):
    provider = open_provider("cifar", make(form=form))
    assert provider.stored == (3, 4, 4)
    assert provider.shapes == ((3, 4, 4), (1, 1, 1))
    assert provider.classes == 3 and provider.class_names == ["cat", "dog", "fox"]
    assert provider.mean.dtype == np.float32
    assert np.allclose(provider.mean, MEAN.reshape(3, 4, 4))
    assert provider.numbers == [1] and provider.crop_border == 0
    assert_standard(provider.read(1))


@pytest.mark.parametrize(
    "batch",
    {
        "columns": {"data": COLUMNS},
        "columns first in memory": {"data": np.asfortranarray(COLUMNS)},
        "rows, as CIFAR-10's Python files": {"data": np.ascontiguousarray(COLUMNS.T)},
        "other integers": {"data": COLUMNS.astype(np.int64)},
        "array of labels": {"labels": np.array([LABELS], np.float32)},
        "fine labels": {"labels": None, "fine_labels": LABELS},
    }.values(),
)
def test_layouts_of_a_batch_give_the_same(make, batch):
    assert_standard(open_provider("cifar", make(batch=batch)).read(1))


def test_keys_of_bytes_are_read(make, tmp_path):
    make()
    record = {b"data": COLUMNS, b"labels": LABELS}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(record, 4))
    assert_standard(open_provider("cifar", tmp_path).read(1))


def test_floats_stay_floats(make):
    pixels = open_provider("cifar", make(batch={"data": COLUMNS / 2})).read(1).data[0]
    assert pixels.dtype == np.float32 and np.array_equal(pixels, PIXELS / np.float32(2))


def test_parts_are_joined_in_order(make, tmp_path):
    make()
    (tmp_path / "data_batch_1").unlink()
    for part in range(1, 12):  # .10 comes after .9
        record = {"data": COLUMNS + 0 * part, "labels": [part % 3] * IMAGES}
        write(tmp_path / f"data_batch_1.{part}", record, "npz" if part % 2 else "pickle")
    write(tmp_path / "batches.meta", {"num_vis": 48, "num_cases_per_batch": 55})
    batch = open_provider("cifar", tmp_path).read(1)
    assert batch.data[0].shape == (3, 4, 4, 55)
    assert batch.data[1].ravel().tolist() == [p % 3 for p in range(1, 12) for _ in range(IMAGES)]
    (tmp_path / "data_batch_1.5.npz").unlink()
    refused(MissingInput, ["parts 1-4,6-11"], open_provider, "cifar", tmp_path)


def test_the_test_batch_of_cifar_10_comes_last(make, tmp_path):
    make(number=5)
    write(tmp_path / "test_batch", {"data": COLUMNS, "labels": LABELS})
    provider = open_provider("cifar", tmp_path)
    assert provider.numbers == [5, 6]
    assert_standard(provider.read(6))


def test_cropping_changes_the_shape_and_the_mean_and_not_the_batch(make):
    provider = open_provider("cifar", make(), crop_border=1)
    assert provider.shapes[0] == (3, 2, 2) and provider.stored == (3, 4, 4)
    assert np.allclose(provider.mean, MEAN.reshape(3, 4, 4)[:, 1:3, 1:3])
    assert provider.mean.flags.c_contiguous
    assert_standard(provider.read(1))
    refused(CommandLineError, ["--crop-border 2", "4 x 4"], open_provider, "cifar", make(),
            crop_border=2)  # fmt: skip


def test_cifar_cropped_crops_four_pixels(make):
    big = {"data": np.zeros((300, IMAGES), np.uint8)}
    path = make({"num_vis": 300, "data_mean": None}, big)
    assert open_provider("cifar-cropped", path).shapes[0] == (3, 2, 2)
    assert open_provider("cifar-cropped", path, crop_border=1).shapes[0] == (3, 8, 8)


@pytest.mark.parametrize(
    ("meta", "shape"),
    [
        ({"num_vis": 3072}, (3, 32, 32)),
        ({"num_vis": 64}, (1, 8, 8)),
        ({"num_vis": 12, "img_channels": 3}, (3, 2, 2)),
        ({"num_vis": 48, "img_size": 2}, (12, 2, 2)),
        ({"num_vis": 24, "img_height": 2, "img_width": 4}, (3, 2, 4)),
        ({"num_vis": 24, "img_channels": 1, "img_height": 6, "img_width": 4}, (1, 6, 4)),
        ({"num_vis": None, "data_mean": np.zeros((75, 1))}, (3, 5, 5)),
    ],
)
def test_the_meta_file_gives_the_shape_of_images(make, meta, shape):
    assert open_provider("cifar", make({"data_mean": None} | meta)).stored == shape


def test_what_the_meta_file_lacks_comes_from_elsewhere(make):
    path = make({"data_mean": None, "label_names": None, "num_cases_per_batch": None})
    provider = open_provider("cifar", path, net_classes=3)
    assert provider.mean is None and provider.classes == 3 and provider.class_names == []
    assert np.allclose(mean_of(provider, [1]), MEAN.reshape(3, 4, 4))
    assert open_provider("cifar", path).classes is None


def test_labels_can_be_vectors(make):
    provider = open_provider("cifar", make(), label_kind="vector")
    assert provider.shapes[1] == (3, 1, 1)
    labels = provider.read(1).data[1]
    assert labels.shape == (3, 1, 1, IMAGES) and labels.dtype == np.float32
    assert np.array_equal(labels.reshape(3, IMAGES), np.eye(3)[LABELS].T)


def with_nan() -> np.ndarray:
    data = COLUMNS.astype(np.float32)
    data[7, 3] = np.nan
    return data


@pytest.mark.parametrize(
    ("batch", "words"),
    {
        "label too large": ({"labels": [0, 2, 3, 2, 0]}, ["image 2: label 3", "names 3 classes"]),
        "label negative": ({"labels": [0, 2, 1, 2, -1]}, ["image 4: label -1"]),
        "label not whole": ({"labels": [0, 0.5, 1, 2, 0]}, ["image 1: label 0.5", "an integer"]),
        "label NaN": ({"labels": np.full(5, np.nan)}, ["image 0: label nan"]),
        "label infinite": ({"labels": [0, 1, float("inf"), 0, 0]}, ["image 2: label inf"]),
        "label text": ({"labels": ["cat"] * 5}, ["image 0: label 'cat'"]),
        "label bool": ({"labels": [True] * 5}, ["image 0: label True"]),
        "label a list of lists": ({"labels": [[[0]]] * 5}, ["image 0: label [0]"]),
        "label among several": ({"labels": [[0, 3], [1], [2], [0], [1]]}, ["image 0: label 3"]),
        "no label": ({"labels": [[0], [], [2], [0], [1]]}, ["reads one class an image"]),
        "a matrix": ({"labels": np.zeros((3, 5))}, ["labels: a matrix", "reads one class an image"]),
        "a matrix of others": ({"labels": np.zeros((4, 5))}, ["(4, 5)", "3 an image", "names 3 classes"]),
        "label huge": ({"labels": [10**400] * 5}, ["image 0: label 1000"]),
        "labels no list": ({"labels": 3}, ["labels: a int"]),
        "labels missing": ({"labels": None}, ["keys data", "labels or fine_labels"]),
        "too few labels": ({"labels": [0, 1]}, ["data: found (48, 5)", "2 labels"]),
        "too many values": ({"data": np.zeros((50, 5), np.uint8)}, ["(50, 5)", "(48, 5)"]),
        "flat": ({"data": COLUMNS.ravel()}, ["found (240,)"]),
        "data no array": ({"data": [1] * 5}, ["data: found list"]),
        "no JPEG": ({"data": [b"jpeg"] * 5}, ["image 0: no JPEG that can be read"]),
        "data missing": ({"data": None}, ["expected data"]),
        "data text": ({"data": COLUMNS.astype("U3")}, ["data: found <U3", "expected uint8"]),
        "no images": ({"data": COLUMNS[:, :0], "labels": []}, ["(48, 0)"]),
        "NaN": ({"data": with_nan()}, ["image 3: value 7 is nan", "finite"]),
        "too large": ({"data": COLUMNS.astype(np.int16) + 1}, ["is 256", "0 to 255"]),
        "too large for float32": ({"data": COLUMNS * 1e40}, ["image 0", "finite"]),
        "too many images": (
            {"data": np.zeros((48, 6), np.uint8), "labels": [0] * 6},
            ["6 images", "num_cases_per_batch = 5"],
        ),
    }.values(),
)
def test_wrong_batches_are_refused_by_file_and_image(make, batch, words):
    path = make(batch=batch)
    refused(DataError, ["data_batch_1:", *words], open_provider("cifar", path).read, 1)


def test_labels_beyond_the_outputs_of_the_net_are_refused(make):
    read = open_provider("cifar", make(), net_classes=2).read
    refused(DataError, ["image 1: label 2", "0 to 1", "the net has 2 outputs"], read, 1)


@pytest.mark.parametrize(
    ("meta", "words"),
    {
        "no size": ({"num_vis": None, "data_mean": None}, ["no num_vis"]),
        "size not an integer": ({"num_vis": 48.5}, ["num_vis: found 48.5"]),
        "size zero": ({"num_vis": 0}, ["num_vis: found 0"]),
        "not square": ({"num_vis": 50, "data_mean": None}, ["num_vis: found 50", "side x side"]),
        "another side": ({"img_size": 5}, ["found 48", "1 x 5 x 5"]),
        "mean of another size": ({"data_mean": MEAN[:-1]}, ["data_mean", "(47, 1)", "expected 48"]),
        "mean not finite": ({"data_mean": MEAN * np.nan}, ["data_mean", "not all finite"]),
        "mean no array": ({"data_mean": [1, 2]}, ["data_mean: found a list"]),
        "names no list": ({"label_names": 3}, ["label_names: found a int"]),
        "names not text": ({"label_names": [1, 2, 3]}, ["label_names: found a list"]),
    }.values(),
)
def test_wrong_meta_files_are_refused(make, meta, words):
    refused(DataError, ["batches.meta:", *words], open_provider, "cifar", make(meta))


def test_records_that_are_no_dicts_are_refused(make, tmp_path):
    provider = open_provider("cifar", make())
    write(tmp_path / "data_batch_1", [1, 2])
    refused(DataError, ["data_batch_1: a list", "a dict"], provider.read, 1)


def test_what_is_missing_is_named_with_what_there_is(make, tmp_path):
    provider = open_provider("cifar", make())
    refused(MissingInput, ["no data_batch_7", "there are 1"], provider.read, 7)
    refused(CommandLineError, ["needs --data-path"], open_provider, "cifar")
    refused(MissingInput, ["nowhere", "No such file"], open_provider, "cifar", tmp_path / "nowhere")
    (tmp_path / "batches.meta").unlink()
    refused(MissingInput, ["no batches.meta"], open_provider, "cifar", tmp_path)
    (tmp_path / "data_batch_1").unlink()
    refused(MissingInput, ["no data_batch_1"], open_provider, "cifar", tmp_path)
    (tmp_path / "data_batch_0").mkdir()
    refused(MissingInput, ["data_batch_0 has the parts (none)"], open_provider, "cifar", tmp_path)


def test_cut_and_flipped_archives_give_data_or_a_data_error(make, tmp_path):
    random = np.random.default_rng(1)
    provider = open_provider("cifar", make(form="npz"))
    file = tmp_path / "data_batch_1.npz"
    good = file.read_bytes()
    for size in range(len(good)):
        file.write_bytes(good[:size])
        refused(DataError, ["data_batch_1.npz: "], provider.read, 1)
    for _ in range(1000):
        damaged = bytearray(good)
        damaged[random.integers(0, len(good))] ^= 1 << random.integers(0, 8)
        file.write_bytes(damaged)
        try:
            provider.read(1)
        except DataError as error:
            assert "data_batch_1.npz: " in str(error)


def npy(code: str, shape: str) -> str:
    return f"{{'descr': '{code}', 'fortran_order': False, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    ("header", "word"),
    [
        (npy("|u1", "(48, 1000000000000)"), "needs 48000000000000 bytes"),
        (npy("<f4", "(48, 5)"), "needs 960 bytes"),
        (npy("|u1", "(48, 10**12)"), "expected an array"),
        (npy("|u1", "(-48, -5)"), "expected an array"),
        (npy("|O", "(1,)"), "expected an array"),
        ("(" * 9000, "expected an array"),
        ("", "expected an array"),
    ],
    ids=range(7),
)
def test_archives_that_lie_are_refused(make, tmp_path, header, word):
    provider = open_provider("cifar", make(form="npz"))
    length = len(header).to_bytes(2, "little")
    with zipfile.ZipFile(tmp_path / "data_batch_1.npz", "w") as archive:
        archive.writestr("data.npy", b"\x93NUMPY\x01\x00" + length + header.encode() + bytes(240))
    refused(DataError, ["data_batch_1.npz: data.npy: ", word], provider.read, 1)


def test_archives_of_objects_are_refused(make):
    provider = open_provider("cifar", make(form="npz"))
    np.savez(provider.path / "data_batch_1.npz", data=np.array([{}], object), labels=LABELS)
    refused(DataError, ["data_batch_1.npz: data.npy"], provider.read, 1)


@pytest.mark.parametrize(
    "array",
    [np.float32(1.5), np.arange(3), np.zeros((0, 5), bool), np.array(["a", "bc"]),
     np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)), np.arange(3, dtype=">i2")],
    ids=str,
)  # fmt: skip
def test_arrays_of_archives_are_those_that_numpy_wrote(tmp_path, array):
    np.savez(tmp_path / "one.npz", array=array)
    read = read_record(tmp_path / "one.npz")["array"]
    assert read.dtype == array.dtype and read.shape == array.shape and read.flags.writeable
    assert np.array_equal(read, array)


# Digits.


def test_the_digits_are_all_there():
    provider = open_provider("cifar", DIGITS)
    assert provider.stored == (1, 8, 8) and provider.numbers == [1, 2, 3, 4, 5, 6]
    assert provider.class_names == list("0123456789")
    batches = [provider.read(number) for number in provider.numbers]
    assert [batch.images for batch in batches] == [300] * 5 + [297]
    assert all(batch.data[0].dtype == np.uint8 for batch in batches)
    assert max(batch.data[0].max() for batch in batches) == 16
    labels = np.concatenate([batch.data[1].ravel() for batch in batches]).astype(int)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    rows = [np.load(DIGITS / f"data_batch_{number}.npz")["rows"] for number in range(1, 7)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(1797))
    assert np.array_equal(provider.mean, mean_of(provider, range(1, 6)))


# Random data.


def test_dummy_images_have_the_shape_asked_for():
    provider = open_provider("dummy:3x5x7:11")
    assert provider.shapes == ((3, 5, 7), (1, 1, 1)) and provider.numbers is None
    assert provider.classes == 11 and np.all(provider.mean == 127.5)
    pixels, labels = provider.read(3).data
    assert pixels.shape == (3, 5, 7, 512) and pixels.dtype == np.uint8
    assert 120 < pixels.mean() < 135
    assert labels.shape == (1, 1, 1, 512) and set(labels.ravel()) == set(range(11))


def test_dummy_values_are_the_original_s():
    provider = open_provider("dummy-lr-10")
    assert provider.shapes == ((10, 1, 1), (1, 1, 1)) and provider.mean is None
    values, labels = provider.read(1).data
    assert values.shape == (10, 1, 1, 512) and values.dtype == np.float32
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.02
    assert set(labels.ravel()) == set(range(10))
    assert open_provider("dummy-lr-3072").stored == (3, 32, 32)
    assert open_provider("dummy-lr-64").stored == (1, 8, 8)


def test_dummy_data_depends_on_seed_and_number_alone():
    def pixels(seed, number):
        return open_provider("dummy:1x4x4", seed=seed, images=9).read(number).data[0].tobytes()

    assert pixels(1, 2) == pixels(1, 2)
    assert len({pixels(1, 2), pixels(2, 1), pixels(1, 1), pixels(2, 2), pixels(-1, 1)}) == 5
    first = open_provider("dummy:1x2x2", images=2).read(1).data[0]
    assert images_first(first).tobytes().hex() == "65007b111531f1ab"  # with every numpy


def test_dummy_classes_and_labels_follow_the_net():
    provider = open_provider("dummy:1x2x2", net_classes=4, label_kind="vector", images=100)
    assert provider.classes == 4 and provider.shapes[1] == (4, 1, 1)
    labels = provider.read(0).data[1]
    assert labels.shape == (4, 1, 1, 100) and np.all(labels.sum(axis=0) == 1)
    assert open_provider("dummy:1x2x2:3", net_classes=4).classes == 3
    assert open_provider("dummy:1x2x2").classes == 10


def test_labels_can_be_numbers_and_vectors_beside_them():
    provider = open_provider("dummy:1x2x2", net_classes=4, label_kind="both", images=100)
    assert provider.shapes[1:] == ((1, 1, 1), (4, 1, 1))
    _, labels, vectors = provider.read(0).data
    assert labels.shape == (1, 1, 1, 100) and vectors.shape == (4, 1, 1, 100)
    assert np.array_equal(vectors.argmax(axis=0), labels[0])


@pytest.mark.parametrize(
    "name",
    ["dummy", "dummy:", "dummy:3x32", "dummy:0x2x2", "dummy:3x-1x2", "dummy:3x32x32:", "dummy-lr-",
     "dummy:3x32x32:0", "dummy-lr-0", "dummy:99999x99999x99999", "jpeg", ""],
)  # fmt: skip
def test_unknown_providers_are_refused(name):
    refused(CommandLineError, ["--data-provider"], open_provider, name)


def test_values_are_not_cropped():
    refused(CommandLineError, ["--crop-border"], open_provider, "dummy-lr-12", crop_border=1)
    assert open_provider("dummy:3x8x8", crop_border=1).shapes[0] == (3, 6, 6)


# Ranges, minibatches, reading ahead.


def test_ranges_are_parsed_and_printed():
    assert parse_range("1-5") == [1, 2, 3, 4, 5]
    assert parse_range("6") == [6]
    assert parse_range(" 1, 3-4 ") == [1, 3, 4]
    assert format_range([1, 2, 3, 6, 8, 9]) == "1-3,6,8-9"
    assert format_range([]) == ""


@pytest.mark.parametrize("text", ["", "1-", "-1", "5-1", "a", "1,,2", "1-2-3", "1-99999999"])
def test_wrong_ranges_are_refused(text):
    refused(CommandLineError, ["--train-range", repr(text)], parse_range, text, "--train-range")


def test_minibatches_cover_the_batch_and_the_last_is_smaller():
    batch = open_provider("dummy:1x2x3", images=10).read(1)
    parts = list(minibatches(batch, 4))
    assert [start for start, _ in parts] == [0, 4, 8]
    assert [part[0].shape for _, part in parts] == [(1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 2)]
    for index, whole in enumerate(batch.data):
        assert all(np.shares_memory(part[index], whole) for _, part in parts)
        assert np.array_equal(np.concatenate([part[index] for _, part in parts], axis=-1), whole)


def test_pixels_are_put_image_by_image():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 5), np.uint8)
    for threads in (1, 3):
        first = images_first(pixels, threads)
        assert first.flags.c_contiguous and np.array_equal(first, np.moveaxis(pixels, -1, 0))
        lying = image_by_image(pixels, threads)
        assert np.array_equal(lying, pixels) and np.shares_memory(images_first(lying[..., 1:4]), lying)  # no copy where none is needed
    assert np.array_equal(images_first(pixels[..., 2:4]), np.moveaxis(pixels[..., 2:4], -1, 0))
    values = pixels.astype(np.float32)
    assert image_by_image(values).flags.c_contiguous and np.array_equal(image_by_image(values), values)


class Slow(Provider):
    """Batches that wait until they are let go, and fail at number 3."""

    def __init__(self):
        super().__init__("slow", (1, 1, 1))
        self.started: list[int] = []
        self.go = threading.Event()

    def read(self, number):
        self.started.append(number)
        assert self.go.wait(10)
        if number == 3:
            raise DataError("data_batch_3: bad")
        return Batch(number, (np.zeros((1, 1, 1, 1)),))


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_one_batch_is_read_ahead_in_order():
    provider = Slow()
    provider.go.set()
    seen = []
    with Prefetcher(provider, iter([5, 1, 2])) as batches:
        for batch in batches:
            seen.append(batch.number)
            assert len(provider.started) <= len(seen) + 1
        assert list(batches) == []
    assert seen == [5, 1, 2] == provider.started
    assert not readers()


def test_an_error_is_raised_where_its_batch_was_due():
    provider = Slow()
    provider.go.set()
    with Prefetcher(provider, [1, 3, 4]) as batches:
        assert next(batches).number == 1
        with pytest.raises(DataError, match="data_batch_3: bad"):
            next(batches)
    assert provider.started == [1, 3]
    assert not readers()


def test_leaving_early_leaves_no_thread():
    provider = Slow()
    with Prefetcher(provider, range(100)) as batches:
        assert len(readers()) == 1
        provider.go.set()
        next(batches)
    assert not readers()
    assert len(provider.started) <= 2
