"""convnet-data: batches of published archives, read where they lie, and what is wrong with them told."""
from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import urllib.error
import zlib

import numpy as np
import pytest

from convnet.data import open_provider
from convnet.data.decode import BadImage
from convnet.data.making import arrays, matlab
from convnet.data.making.ilsvrc import IlsvrcSource
from convnet.data.making.sources import tar_members
from convnet.errors import DataError, MissingInput
from data_command import SMALL, DataCommand, encoded, photograph

# What scipy.io.savemat made, compressed, of three synsets as in the devkit of 2012, and an array beside them.
META_2012 = base64.b85decode(
    'O+i#lK|&xkE-'
    ')ZXK~ybfX>4U6P;6mzW^ZzBIv{Xwb7^=iAVYFxVRU6=Aa8CuAX8y<AWm;~ATl^0FflqYGdeRgATlsAHUIzs0000000000000000000000000000000000000'
    '0000000000000000000000000Bu&4*&oFKLG#$c%0*7U|`t5#=rnX3>-kr!~g-'
    'TP(CvdGeR*t5EobG6{nUI1Lav51fk*`K<w!g92VqkWMF6%@96?EAlwf^!$Em|QA#ngKzdGoF^WK5X>NRSMrKY*QEDDo0EGiHBQLciJ|i_VJ);DwrKBh^GcP_'
    'fH!(f6n1K%{Xu*K+4;z|)7?Cgta6-kQzyYM+07*X!7X8df`UQZzJOd-Jy$%HQaii#i@YC`ubQH=;a|%)+L4odmZ04|{nFHb{DgaHwqMt<nGobq)n|=l~{n*@'
    '1j=kjT=Ww7*{|9^W;@yy_c;{e1jW3Yh$%$!)S1KeYmf-L|@$n8ZV`RoV17-'
    '2<(NAW6w<IdQ*cedb3&c;%0~S;{nBh%~y@@$FR0%H!B>j9?^fMvp=YhH%#)s7p)W~m?q#FRTazt<s0000o0001Zoa19)U<d$WHX!BzVm<~4V1@D-'
    'ftVRegT(SnGE$3xG!GC<FdzUUlxBj`0D<iS+W'
)


@pytest.fixture
def run(capsys):
    return DataCommand(capsys)


# ---- ILSVRC --------------------------------------------------------------------------------------------


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def tar_bytes(files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture
def challenge(tmp_path):
    """The files of a challenge with two classes: n01 (ILSVRC2012_ID 1) and n02 (2)."""
    red, green = ([encoded(photograph(colour, number)) for number in range(4)] for colour in ((220, 20, 20), (20, 220, 20)))
    write_tar(tmp_path / "devkit.tar.gz", {"ILSVRC2012_devkit_t12/data/meta.mat": META_2012,
              "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"2\n1\n2\n"}, "w:gz")
    write_tar(tmp_path / "train.tar", {"n02.tar": tar_bytes({f"n02_{i}.JPEG": data for i, data in enumerate(green)}),
                                       "n01.tar": tar_bytes({f"n01_{i}.JPEG": data for i, data in enumerate(red[:3])})})
    write_tar(tmp_path / "val.tar", {"ILSVRC2012_val_00000002.JPEG": red[3], "ILSVRC2012_val_00000001.JPEG": green[0], "ILSVRC2012_val_00000003.JPEG": b"no"})
    return tmp_path


def challenge_words(path, **others):
    files = {"devkit": "devkit.tar.gz", "train": "train.tar", "validation": "val.tar"} | others
    return ["ilsvrc", path / "out", *SMALL, *(word for name, file in files.items() for word in (f"--{name.replace('_', '-')}", path / file))]


def test_a_challenge_is_read_from_its_archives(run, challenge):
    before = sorted(path.name for path in challenge.iterdir())
    out = run(*challenge_words(challenge))
    assert "1 not used:\n  ILSVRC2012_val_00000003.JPEG: not JPEG or PNG" in out
    provider = open_provider("image", challenge / "out")
    assert provider.class_names == ["caf\u00e9 cat", "fox, vulpes"] and provider.meta["wnids"] == ["n01", "n02"]
    assert provider.groups == {"training": [1], "validation": [2]}
    for number, count in ((1, 7), (2, 2)):
        batch = provider.open(number)
        assert len(batch.index) == count
        pixels, labels = provider.read(number).data
        assert np.array_equal(pixels.mean(axis=(1, 2)).argmax(axis=0), labels.ravel())
    assert sorted(path.name for path in challenge.iterdir()) == sorted([*before, "out"])  # nothing was unpacked


def test_tests_of_2010_have_a_truth_of_their_own(run, challenge):
    write_tar(challenge / "test.tar", {"test/ILSVRC2012_test_00000001.JPEG": encoded(photograph((20, 220, 20), 9))})
    run(*challenge_words(challenge, test="test.tar"), code=66)
    assert "ILSVRC2012_test_ground_truth.txt: not there; give --test-truth FILE" in run.told
    (challenge / "truth.txt").write_text("2\n")
    run(*challenge_words(challenge, test="test.tar", test_truth="truth.txt"))
    provider = open_provider("image", challenge / "out")
    assert provider.groups["test"] == [3] and provider.read(3).data[1].ravel().tolist() == [1]


def test_wrong_archives_are_told(run, challenge):
    write_tar(challenge / "other.tar", {"n07.tar": tar_bytes({"n07_1.JPEG": b"x"})})
    run(*challenge_words(challenge, train="other.tar"), code=65)
    assert "other.tar: n07.tar/n07_1.JPEG: the class n07 is not in the devkit" in run.told
    run(*challenge_words(challenge, validation="train.tar"), code=65)
    assert "expected ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00000003.JPEG: the devkit knows 3 images" in run.told
    run(*challenge_words(challenge, devkit="val.tar"), code=66)
    assert "val.tar: no meta.mat in it" in run.told
    write_tar(challenge / "bare.tar", {"meta.mat": META_2012})
    run(*challenge_words(challenge, devkit="bare.tar"), code=66)
    assert "expected the devkit of ILSVRC-2010 or -2012" in run.told
    run(*challenge_words(challenge, train="devkit.tar.gz"), code=65)
    assert "expected an uncompressed tar" in run.told
    run(*challenge_words(challenge, train="nowhere.tar"), code=66)
    assert "nowhere.tar: cannot be read: No such file or directory" in run.told
    whole = (challenge / "train.tar").read_bytes()
    (challenge / "cut.tar").write_bytes(whole[: len(whole) // 3])
    run(*challenge_words(challenge, train="cut.tar"), code=65)
    assert "cut.tar: " in run.told


def test_devkits_that_make_no_sense_are_told(run, challenge, monkeypatch):
    def with_devkit(meta, truth):
        write_tar(challenge / "other.tar", {"meta.mat": meta, "ILSVRC2012_validation_ground_truth.txt": truth})
        run(*challenge_words(challenge, devkit="other.tar"), code=65)
        return run.told

    assert "other.tar: meta.mat: found another kind of file, expected a MAT-file" in with_devkit(b"x" * 200, b"1")
    for line in (b"3", b"0", b"one", b"-1", b"9" * 99):
        assert "ILSVRC2012_validation_ground_truth.txt: found '" in with_devkit(META_2012, b"1\n" + line)
    synsets = matlab.read_structures(META_2012, "synsets")
    for change, told in (({"WNID": np.zeros(3)}, "meta.mat: found the fields ILSVRC2012_ID, WNID"), ({"ILSVRC2012_ID": np.array([[5.0]])}, "the ILSVRC2012_IDs are not 1, 2, 3"),
                         ({"ILSVRC2012_ID": np.array([[-np.inf]])}, "the ILSVRC2012_IDs are not 1, 2, 3")):
        monkeypatch.setattr("convnet.data.making.ilsvrc.read_structures", lambda *_, c=change: [synsets[0], synsets[1] | c])
        assert told in with_devkit(META_2012, b"1")


def test_a_devkit_may_be_unpacked(run, challenge):
    with tarfile.open(challenge / "devkit.tar.gz") as tar:
        for member in tar:
            (challenge / "unpacked" / member.name).parent.mkdir(parents=True, exist_ok=True)
            (challenge / "unpacked" / member.name).write_bytes(tar.extractfile(member).read())
    run(*challenge_words(challenge, devkit="unpacked"))
    assert open_provider("image", challenge / "out").class_names == ["caf\u00e9 cat", "fox, vulpes"]


def test_a_tar_that_lies_about_sizes_is_refused_or_ends(tmp_path):
    good = tar_bytes({"a.JPEG": b"a" * 600, "b.JPEG": b"b" * 600})
    random = np.random.default_rng(3)
    for _ in range(200):
        damaged = bytearray(good)
        for _ in range(3):
            damaged[random.integers(0, 2048)] ^= 1 << random.integers(0, 8)
        (tmp_path / "one.tar").write_bytes(damaged)
        try:
            for _, offset, length in tar_members(tmp_path / "one.tar"):
                assert offset >= 0 and length >= 0
        except (DataError, MissingInput) as error:
            assert "one.tar: " in str(error)


def test_an_image_that_the_archive_ends_in_is_left_out(challenge):
    source = IlsvrcSource(challenge / "devkit.tar.gz", challenge / "train.tar", None, None, None)
    item = source.groups["training"][0]
    os.truncate(challenge / "train.tar", item.place[1] + 10)
    with pytest.raises(BadImage, match="the archive ends within it: 10 of"):
        source.read(item)


def test_mat_files_are_read_packed_and_unpacked():
    packed = matlab.read_structures(META_2012, "synsets")
    assert [(s["ILSVRC2012_ID"].item(), s["WNID"], s["words"]) for s in packed] == [(2, "n02", "fox, vulpes"), (1, "n01", "caf\u00e9 cat"), (1001, "n09", "animal")]
    assert packed[2]["children"].tolist() == [[1, 2]]
    elements = b"".join(zlib.decompress(content) for _, content in matlab._elements(META_2012[128:], "<"))
    unpacked = matlab.read_structures(META_2012[:128] + elements, "synsets")
    assert [s["words"] for s in unpacked] == [s["words"] for s in packed]


def test_damaged_mat_files_give_something_or_are_refused():
    elements = b"".join(zlib.decompress(content) for _, content in matlab._elements(META_2012[128:], "<"))
    random = np.random.default_rng(4)
    for good in (META_2012, META_2012[:128] + elements):
        for _ in range(400):
            damaged = bytearray(good)
            damaged[random.integers(0, len(damaged))] = random.integers(0, 256)
            with contextlib.suppress(matlab.NotMatlab):
                matlab.read_structures(bytes(damaged), "synsets")
    for text in (b"", b"MATLAB", META_2012[:130], bytes(300)):
        with pytest.raises(matlab.NotMatlab):
            matlab.read_structures(text, "synsets")
    with pytest.raises(matlab.NotMatlab, match="no array of structures named classes"):
        matlab.read_structures(META_2012, "classes")
    with pytest.raises(matlab.NotMatlab, match="no array of structures named other"):
        matlab.read_structures(META_2012, "other")


# ---- CIFAR and MNIST -----------------------------------------------------------------------------------


def cifar_files(name, images=20):
    """The members of an archive, as CIFAR's page has them but for the number of images."""
    random = np.random.default_rng(6)

    def batch(count, classes, key):
        return pickle.dumps({b"data": random.integers(0, 256, (count, 3072), np.uint8), key: random.integers(0, classes, count).tolist()}, 2)

    if name == "cifar10":
        files = {f"data_batch_{i}": batch(images, 10, b"labels") for i in range(1, 6)} | {"test_batch": batch(images, 10, b"labels")}
        return {f"cifar-10-batches-py/{n}": d for n, d in (files | {"batches.meta": pickle.dumps({b"label_names": [b"plane"] * 10}, 2)}).items()}
    files = {"train": batch(images, 100, b"fine_labels"), "test": batch(images, 100, b"fine_labels")}
    return {f"cifar-100-python/{n}": d for n, d in (files | {"meta": pickle.dumps({"fine_label_names": ["bee"] * 100}, 2)}).items()}


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_keeps_its_order_and_pixels(run, tmp_path, name):
    files = cifar_files(name)
    write_tar(tmp_path / "archive.tar.gz", files, "w:gz")
    run(name, tmp_path / "out", "--from", tmp_path / "archive.tar.gz", "--batch-size", 20)
    provider = open_provider("cifar-cropped", tmp_path / "out")
    last = 6 if name == "cifar10" else 2
    assert provider.groups == {"training": list(range(1, last)), "test": [last]} and provider.crop_border == 4
    assert provider.shapes[0] == (3, 24, 24) and len(provider.class_names) == (10 if name == "cifar10" else 100)
    second = pickle.loads(files["cifar-10-batches-py/data_batch_2" if name == "cifar10" else "cifar-100-python/test"], encoding="bytes")
    pixels, labels = provider.read(2).data
    assert np.array_equal(pixels.reshape(3072, 20), second[b"data"].T)
    assert labels.ravel().tolist() == second.get(b"labels", second.get(b"fine_labels"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_binary_version_of_cifar_gives_the_same(run, tmp_path, name):
    files, binary = {path.rpartition("/")[2]: data for path, data in cifar_files(name).items()}, {}
    for file, data in files.items():
        record = {key if isinstance(key, str) else key.decode(): value for key, value in pickle.loads(data, encoding="bytes").items()}
        if "meta" in file:
            names = next(value for key, value in record.items() if "names" in key)
            binary["batches.meta.txt" if name == "cifar10" else "fine_label_names.txt"] = b"\n".join(n if isinstance(n, bytes) else n.encode() for n in names)
        else:
            before = b"" if name == "cifar10" else b"\7"  # the coarse label
            binary[f"{file}.bin"] = b"".join(before + bytes([label]) + row.tobytes() for label, row in zip(record.get("labels", record.get("fine_labels")), record["data"], strict=True))
    write_tar(tmp_path / "python.tar.gz", {f"a/{n}": d for n, d in files.items()}, "w:gz")
    write_tar(tmp_path / "binary.tar.gz", {f"b/{n}": d for n, d in binary.items()}, "w:gz")
    for form in ("python", "binary"):
        run(name, tmp_path / form, "--from", tmp_path / f"{form}.tar.gz", "--batch-size", 20)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / form).iterdir()} for form in ("python", "binary"))
    assert first == second and len(first) > 4
    write_tar(tmp_path / "cut.tar", {n: d[:-1] for n, d in binary.items()})
    run(name, tmp_path / "out", "--from", tmp_path / "cut.tar", code=65)
    assert ".bin: " in run.told and f"expected {3073 if name == 'cifar10' else 3074} an image" in run.told


def test_wrong_archives_of_cifar_are_told(run, tmp_path):
    files = cifar_files("cifar10")
    write_tar(tmp_path / "short.tar.gz", {n: d for n, d in files.items() if "_3" not in n}, "w:gz")
    run("cifar10", tmp_path / "out", "--from", tmp_path / "short.tar.gz", code=66)
    assert "short.tar.gz: no data_batch_3 in it; expected the Python or the binary version of cifar10" in run.told
    files["cifar-10-batches-py/data_batch_4"] = pickle.dumps({"data": [1]}, 2)
    write_tar(tmp_path / "wrong.tar.gz", files, "w:gz")
    run("cifar10", tmp_path / "out", "--from", tmp_path / "wrong.tar.gz", code=65)
    assert "data_batch_4: expected data of uint8, 3072 an image, and labels" in run.told
    whole = (tmp_path / "wrong.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    run("cifar10", tmp_path / "out", "--from", tmp_path / "cut.tar.gz", code=65)
    assert "cut.tar.gz: " in run.told


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def digits(tmp_path):
    random = np.random.default_rng(7)
    sets = [random.integers(0, 256, (30, 28, 28), np.uint8), random.integers(0, 10, 30, np.uint8),
            random.integers(0, 256, (10, 28, 28), np.uint8), random.integers(0, 10, 10, np.uint8)]
    for name, array in zip(arrays.MNIST_FILES, sets, strict=True):
        packed = "images" in name
        (tmp_path / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return tmp_path, sets


def test_mnist_is_read_packed_or_not(run, digits):
    path, sets = digits
    run("mnist", path / "out", "--from", path)
    provider = open_provider("image", path / "out")
    assert provider.stored == (1, 28, 28) and provider.groups == {"training": [1], "test": [2]} and provider.class_names == list("0123456789")
    for number, images, labels in ((1, *sets[:2]), (2, *sets[2:])):
        found = provider.read(number).data
        assert np.array_equal(found[0][0], np.moveaxis(images, 0, -1)) and np.array_equal(found[1].ravel(), labels)


def test_files_of_mnist_that_are_something_else_are_told(run, digits):
    path, _ = digits
    (path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros((2, 2), np.uint8)))
    run("mnist", path / "out", "--from", path, code=65)
    assert "t10k-labels-idx1-ubyte: found an array of shape (2, 2), expected 1 dimensions" in run.told
    (path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.full(10, 10, np.uint8)))
    run("mnist", path / "out", "--from", path, code=65)
    assert "mnist: test: labels 10 to 10, expected 0 to 9" in run.told
    (path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(9, np.uint8)))
    run("mnist", path / "out", "--from", path, code=65)
    assert "mnist: test: 9 labels for images (10, 1, 28, 28)" in run.told
    (path / "t10k-labels-idx1-ubyte").unlink()
    run("mnist", path / "out", "--from", path, code=66)
    assert "t10k-labels-idx1-ubyte: cannot be read" in run.told


def test_idx_files_that_lie_are_refused(tmp_path):
    good = idx(np.zeros((3, 2, 2), np.uint8))
    for data in (b"", good[:-1], good + b"x", b"\0\0\x0d" + good[3:], good[:4] + b"\xff" * 12 + good[16:], b"\0\0\x08\xff"):
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(DataError, match="expected an idx file of uint8"):
            arrays.read_idx(tmp_path / "file")
    (tmp_path / "file.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="a damaged gzip file"):
        arrays.read_idx(tmp_path / "file.gz")


def test_archives_are_fetched_and_compared(run, tmp_path, monkeypatch):
    write_tar(tmp_path / "published.tar.gz", cifar_files("cifar10"), "w:gz")
    data = (tmp_path / "published.tar.gz").read_bytes()
    archive = arrays.Archive((tmp_path / "published.tar.gz").as_uri(), hashlib.md5(data).hexdigest())
    monkeypatch.setitem(arrays.ARCHIVES, "cifar10", [archive])
    run("cifar10", tmp_path / "out", "--batch-size", 20)
    assert (tmp_path / "out" / "published.tar.gz").read_bytes() == data and open_provider("image", tmp_path / "out").groups["test"] == [6]
    monkeypatch.setitem(arrays.ARCHIVES, "cifar10", [arrays.Archive(archive.address, "0" * 32)])
    run("cifar10", tmp_path / "other", code=65)
    assert f"published.tar.gz: MD5 {archive.md5}, expected {'0' * 32}: the file is damaged or another one" in run.told


def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(run, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    for name, file in (("cifar10", "cifar-10-python.tar.gz"), ("cifar100", "cifar-100-python.tar.gz"), ("mnist", "t10k-labels-idx1-ubyte.gz")):
        run(name, tmp_path / name, code=66)
        assert "cannot be fetched: Network is unreachable; fetch it elsewhere, put it into" in run.told and f"/{file}  (MD5 " in run.told
