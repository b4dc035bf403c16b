"""The file of a checkpoint: every tensor comes back, every damage is found, nothing is believed."""

import io
import json
import os
import pickle
import random
import tracemalloc
import zipfile

import numpy as np
import pytest

from convnet import checkpoint_file
from convnet.checkpoint import load, save, verify
from convnet.errors import DataError, MissingInput

WEIGHTS = "conv1.weights[0]"


def some_tensors():
    return {WEIGHTS: np.arange(5000, dtype=np.float32).reshape(5, 1000),
            "conv1.biases": np.array([1, -2, np.nan], np.float64)}


def save_some(directory):
    return save(directory, "1.1.ckpt", {"epoch": 1, "layers.cfg": "[é]\n"}, some_tensors())


def flip(path, offset, bit=0):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def damage(path):
    """Flips a bit in the middle of conv1's weights."""
    data = path.read_bytes()
    flip(path, data.index(np.float32(2500).tobytes() + np.float32(2501).tobytes()))


def rewrite(path, header=None, extra=(), **changes):
    """The checkpoint with another header and other entries, CRCs in order: a forgery."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    header = header or json.loads(entries["header.json"])
    header.update(changes)
    entries["header.json"] = json.dumps(header).encode()
    entries.update(extra)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


# What is saved comes back

@pytest.mark.parametrize("array", [
    np.array(3.5),                                             # 0-d
    np.zeros((0, 7), np.float32),                              # empty
    np.arange(256, dtype=np.uint8).reshape(4, 8, 8),
    np.random.default_rng(1).standard_normal((3, 5, 7)),       # float64
    np.array([np.nan, np.inf, -0.0, 1e-45], np.float32),
    np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)[::2, :, ::-1],
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(6, dtype=">i4"),
    np.array([True, False]),
    np.arange(700_000, dtype=np.float32),                      # several blocks
], ids=lambda array: f"{array.dtype}-{array.shape}")
def test_a_tensor_comes_back_bit_for_bit(tmp_path, array):
    path = save(tmp_path, "1.1.ckpt", {}, {"t": array})
    _, tensors = load(path)
    loaded = tensors["t"]
    assert loaded.shape == array.shape
    assert loaded.dtype == array.dtype.newbyteorder("=")
    assert loaded.tobytes() == array.astype(loaded.dtype).tobytes()
    assert loaded.flags.writeable and loaded.flags.c_contiguous


def test_the_header_comes_back_as_it_was(tmp_path):
    header = {"epoch": 3, "costs": [0.5, [1, 2]], "layers.cfg": "[é]\n", "best": None}
    loaded, tensors = load(save(tmp_path, "3.1.ckpt", header, {}))
    assert loaded == header
    assert tensors == {}


def test_numpy_scalars_in_the_header_become_numbers(tmp_path):
    header = {"seed": np.int64(7), "cost": np.float32(0.5), "batch": np.uint8(3)}
    loaded, _ = load(save(tmp_path, "1.1.ckpt", header, {}))
    assert loaded == {"seed": 7, "cost": 0.5, "batch": 3}


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b", "..", "a\\b", "é\n",
                                  "x.npy", "header.json", "a%2Fb"])
def test_any_tensor_name_is_safe_and_comes_back(tmp_path, name):
    path = save(tmp_path, "1.1.ckpt", {}, {name: np.arange(3)})
    assert list(load(path)[1]) == [name]
    with zipfile.ZipFile(path) as archive:
        assert not any("/" in entry or "\\" in entry for entry in archive.namelist())


def test_numpy_alone_can_read_a_checkpoint(tmp_path):
    with np.load(save_some(tmp_path), allow_pickle=False) as arrays:
        assert np.array_equal(arrays[WEIGHTS], some_tensors()[WEIGHTS])
        assert json.loads(arrays["header.json"])["format"] == checkpoint_file.FORMAT


def test_the_same_content_gives_the_same_bytes(tmp_path):
    first = save_some(tmp_path).read_bytes()
    path = save_some(tmp_path)
    assert path.read_bytes() == first
    with zipfile.ZipFile(path) as archive:  # no clock in it
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("array", [np.array([{}]), np.array(["a"]), np.array([1j])])
def test_what_is_no_plain_number_is_refused_before_anything_is_written(tmp_path, array):
    with pytest.raises(ValueError, match=r"tensor t: dtype .* expected a plain number"):
        save(tmp_path, "1.1.ckpt", {}, {"t": array})
    assert os.listdir(tmp_path) == []


def test_the_caller_s_header_cannot_replace_ours(tmp_path):
    with pytest.raises(ValueError, match="version is written by save"):
        save(tmp_path, "1.1.ckpt", {"version": 2}, {})


# Damage is found

def test_a_flipped_bit_is_found_and_its_tensor_named(tmp_path):
    path = save_some(tmp_path)
    damage(path)
    for read in (load, verify):
        with pytest.raises(DataError, match=r"1\.1\.ckpt: tensor conv1\.weights\[0\]: .*CRC"):
            read(path)


def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path):
    path = save(tmp_path, "1.1.ckpt", {"seed": 5}, {"a": np.arange(9.0), "b": np.zeros(0)})
    good, found = path.read_bytes(), 0
    rng = random.Random(1)
    for offset in range(len(good)):
        flip(path, offset, rng.randrange(8))
        try:
            header, tensors = load(path)
        except DataError:
            found += 1
        else:  # in what a zip says of dates and permissions, say
            assert header == {"seed": 5}
            assert np.array_equal(tensors["a"], np.arange(9.0)) and tensors["b"].shape == (0,)
        path.write_bytes(good)
    assert found > len(good) / 2


def test_a_truncated_file_is_found_wherever_it_ends(tmp_path):
    path = save(tmp_path, "1.1.ckpt", {}, {"a": np.arange(9.0)})
    good = path.read_bytes()
    for size in range(len(good)):
        path.write_bytes(good[:size])
        with pytest.raises(DataError, match=r"1\.1\.ckpt"):
            load(path)


def test_a_pickle_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "bomb"),)

    path = tmp_path / "1.1.ckpt"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="not a checkpoint of convnet: it begins with"):
        load(path)
    save(tmp_path, "1.2.ckpt", {}, {"t": np.arange(1)})
    rewrite(tmp_path / "1.2.ckpt", extra={"t.npy": npy(np.array([Bomb()]))})
    with pytest.raises(DataError, match="tensor t"):
        load(tmp_path / "1.2.ckpt")
    assert not (tmp_path / "bomb").exists()


def test_a_missing_file_and_a_directory_are_missing_inputs(tmp_path):
    for path in (tmp_path / "9.9.ckpt", tmp_path):
        with pytest.raises(MissingInput, match="cannot read this checkpoint"):
            load(path)


# Forgeries: every CRC is right

def table(**changes):
    return [{"name": "t", "dtype": "<f4", "shape": [3], **changes}]


@pytest.mark.parametrize("changes, message", [
    ({"format": "other"}, "not a checkpoint: expected format"),
    ({"version": 0}, "format version 0; expected 1"),
    ({"version": "1"}, "format version '1'"),
    ({"tensors": table(shape=[2**61])}, "needs 9223372036854775808 bytes"),
    ({"tensors": table(shape=[0, 2**61])}, "damaged"),
    ({"tensors": table(shape=[10**30])}, "whole numbers"),
    ({"tensors": table(shape=[-3])}, "whole numbers"),
    ({"tensors": table(shape=[3.0])}, "whole numbers"),
    ({"tensors": table(shape=[True] * 3)}, "whole numbers"),
    ({"tensors": table(shape=3)}, "whole numbers"),
    ({"tensors": table(shape=[3, 1])}, r"tensor t: damaged \(holds float32 \(3,\)"),
    ({"tensors": table(dtype="<i4")}, r"tensor t: damaged \(holds float32"),
    ({"tensors": table(dtype="|O")}, "plain number"),
    ({"tensors": table(dtype=[["x", "<f4"]])}, "damaged"),
    ({"tensors": table(name="../t")}, r"not those in the file: '..%2Ft.npy', 't.npy'"),
    ({"tensors": table(name=5)}, "tensor 5"),
    ({"tensors": table() * 2}, "a name twice"),
    ({"tensors": []}, "not those in the file: 't.npy'"),
    ({"tensors": 5}, "damaged"),
    ({"tensors": [5]}, "damaged"),
])
def test_a_header_that_lies_is_refused(tmp_path, changes, message):
    path = save(tmp_path, "1.1.ckpt", {}, {"t": np.zeros(3, np.float32)})
    if "bytes" in message:  # the .npy header tells the same lie
        forged = npy(np.zeros(3, np.float32)).replace(b"(3,), }                  ",
                                                      b"(2305843009213693952,), }")
        rewrite(path, extra={"t.npy": forged}, **changes)
    else:
        rewrite(path, **changes)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("extra, message", [
    ({"../evil": b""}, "not those in the file: '../evil'"),
    ({"t.npy": None}, "not those in the file: 't.npy'"),
    ({"t.npy": b""}, "tensor t: damaged"),
    ({"t.npy": npy(np.zeros(3, np.float32))[:-1]}, "needs 12 bytes, and there are 11"),
    ({"t.npy": npy(np.zeros(3, np.float32)) + b"x"}, "needs 12 bytes, and there are 13"),
    ({"t.npy": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535}, "tensor t: damaged"),
    ({"header.json": b"[" * 100_000}, "header.json: damaged"),
    ({"header.json": b"\xff"}, "header.json: damaged"),
    ({"header.json": b"[]"}, "not a checkpoint"),
    ({"header.json": b'{"format": "convnet-checkpoint", "version": 1}'}, "damaged .'tensors'"),
    ({"header.json": None}, "a zip without header.json"),
])
def test_entries_that_do_not_fit_are_refused(tmp_path, extra, message):
    path = save(tmp_path, "1.1.ckpt", {}, {"t": np.zeros(3, np.float32)})
    rewrite(path, extra=extra)
    with pytest.raises(DataError, match=message):
        load(path)


def test_a_compressed_bomb_is_refused_unopened(tmp_path):
    path = save(tmp_path, "1.1.ckpt", {}, {"t": np.zeros(3, np.float32)})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", bytes(50_000_000))
    with pytest.raises(DataError, match=r"'bomb.npy': compressed"):
        load(path)


def test_two_entries_of_one_name_are_refused(tmp_path):
    path = save(tmp_path, "1.1.ckpt", {}, {"t": np.zeros(3, np.float32)})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("t.npy", npy(np.ones(3, np.float32)))
    with pytest.raises(DataError, match="two entries have one name"):
        load(path)


def test_entries_larger_than_the_file_are_refused(tmp_path):
    path = save(tmp_path, "1.1.ckpt", {}, {"t": np.zeros(3, np.float32)})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the tensor's line in the table of contents
    data[entry + 20:entry + 28] = 2 * (2**31).to_bytes(4, "little")  # both its sizes
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"claims to hold 21474\d+ bytes, and has"):
        load(path)


def test_a_header_beyond_reason_is_refused_unread(tmp_path, monkeypatch):
    path = save(tmp_path, "1.1.ckpt", {"costs": [0.5] * 1000}, {})
    monkeypatch.setattr(checkpoint_file, "_MAX_HEADER", 1000)
    with pytest.raises(DataError, match=r"header\.json: more than 1000 bytes"):
        load(path)
