"""convnet-data: batches of folders and archives of images, the same whoever makes them, and what is wrong with a file told."""
from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import pickle
import resource
import struct
import tarfile
import urllib.error
import zlib

import numpy as np
import pytest
from PIL import Image

from convnet.cli.data import main
from convnet.data import color_pca_of, mean_of, open_provider
from convnet.data.decode import BadImage, decode, decode_square
from convnet.data.making import Settings, arrays, make, matlab
from convnet.data.making.ilsvrc import IlsvrcSource
from convnet.data.making.sources import FolderSource, tar_members
from convnet.errors import CannotCreate, DataError, MissingInput

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
COLOURS = {"cherry": (200, 30, 60), "lime": (40, 220, 50), "plum": (90, 20, 120)}


def photograph(colour, number, size=(40, 30)):
    """A picture of about that colour, brighter to the right, another for each number."""
    across, down = np.meshgrid(np.linspace(0.6, 1, size[0]), np.linspace(1, 0.9 - 0.02 * number, size[1]))
    return Image.fromarray((np.array(colour) * (across * down)[..., None]).astype(np.uint8))


def encoded(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def bomb(width=60000, height=60000):
    """A PNG whose header claims so many pixels."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(bytes(99)))


BAD = {"truncated.jpg": encoded(photograph((1, 2, 3), 0))[:-20], "notes.jpg": b"Cherries are red.", "empty.png": b"", "bomb.png": bomb(),
       "animation.gif": encoded(photograph((9, 9, 9), 0), "GIF")}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Ten pictures a class of several sizes and modes, and the BAD ones."""
    for name, colour in COLOURS.items():
        below = tmp_path / "photographs" / name / "some"
        below.mkdir(parents=True)
        for number in range(10):
            image = photograph(colour, number, (20 + 7 * number, 50 - 3 * number))
            image = image.convert("L") if number == 3 else image.convert("CMYK") if number == 4 else image
            (below / f"{number}.jpg").write_bytes(encoded(image, "PNG" if number == 5 else "JPEG"))
    for name, data in BAD.items():
        (tmp_path / "photographs" / "cherry" / name).write_bytes(data)
    (tmp_path / "photographs" / "cherry" / ".hidden").write_text("a dot file")
    return tmp_path / "photographs"


@pytest.fixture
def run(capsys):
    """Runs convnet-data: words -> what it prints; what it says on stderr is in run.told."""
    def run(*words, code=0):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, run.told = capsys.readouterr()
        assert left.value.code == code, (left.value.code, out, run.told)
        assert "Traceback" not in run.told
        return out

    return run


def digests(path):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(path.iterdir()) if file.name != ".lock"}


SMALL = ["--size", 16, "--batch-size", 8]


# ---- folders -------------------------------------------------------------------------------------------


def test_batches_of_a_folder_and_the_report(run, folder, tmp_path):
    out = run("folder", folder, tmp_path / "out", *SMALL)
    rows = [line.split() for line in out.splitlines()]
    assert ["class", "training", "validation"] in rows and ["cherry", "9", "1"] in rows and ["lime", "9", "1"] in rows and ["all", "27", "3"] in rows
    assert "3 converted from CMYK" in out and "3 converted from L\n" in out and "5 not used:" in out
    for name, reason in {"truncated.jpg": "damaged: image file is truncated", "notes.jpg": "not JPEG or PNG", "empty.png": "empty",
                         "bomb.png": "more than 89,000,000 pixels", "animation.gif": "not JPEG or PNG"}.items():
        assert f"  cherry/{name}: {reason}" in out
    provider = open_provider("image", tmp_path / "out")
    assert provider.groups == {"training": [1, 2, 3, 4], "validation": [5]} and provider.class_names == list(COLOURS)
    assert provider.stored == (3, 16, 16) and provider.shapes == ((3, 16, 16), (1, 1, 1))
    for number in provider.numbers:
        pixels, labels = provider.read(number).data
        for image, label in zip(np.moveaxis(pixels, -1, 0), labels.ravel(), strict=True):
            colour = image.mean(axis=(1, 2))
            if np.ptp(colour) > 5:  # not a gray one
                assert colour.argmax() == np.argmax(COLOURS[provider.class_names[int(label)]])


def test_mean_and_colours_are_those_of_what_is_stored(run, folder, tmp_path):
    run("folder", folder, tmp_path / "out", *SMALL)
    provider = open_provider("image", tmp_path / "out")
    assert np.array_equal(provider.mean, mean_of(provider, provider.groups["training"]))
    assert np.array_equal(provider.color_pca, color_pca_of(provider, provider.groups["training"]))


@pytest.mark.parametrize("kind", [[], ["--raw"]], ids=["jpeg", "raw"])
def test_the_bytes_are_the_same_for_any_number_of_workers(run, folder, tmp_path, kind):
    for workers in (1, 2, 3):
        run("folder", folder, tmp_path / str(workers), *SMALL, *kind, "--workers", workers)
    first = digests(tmp_path / "1")
    assert first == digests(tmp_path / "2") == digests(tmp_path / "3")
    assert set(first) == {"batches.json", "mean.npy", "report.txt", *(f"data_batch_{i}" for i in range(1, 6))}
    run("folder", folder, tmp_path / "other", *SMALL, *kind, "--seed", 2)
    assert first["data_batch_1"] != digests(tmp_path / "other")["data_batch_1"]


def test_a_raw_batch_has_the_pixels_of_before_the_jpeg(run, folder, tmp_path):
    run("folder", folder, tmp_path / "raw", *SMALL, "--raw")
    run("folder", folder, tmp_path / "jpeg", *SMALL, "--quality", 100)
    raw, jpeg = (open_provider("image", tmp_path / name).read(1).data[0].astype(int) for name in ("raw", "jpeg"))
    assert raw.shape == jpeg.shape and 0 < np.abs(raw - jpeg).max() < 40
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*/some/*.jpg")}
    names = open_provider("image", tmp_path / "raw").open(1).header["names"]
    expected = np.stack([decode_square(files[name], 16).pixels.transpose(2, 0, 1) for name in names], axis=-1)
    assert np.array_equal(raw, expected)


def test_what_was_interrupted_goes_on(run, folder, tmp_path, monkeypatch):
    run("folder", folder, tmp_path / "whole", *SMALL)
    read, calls = FolderSource.read, []

    def interrupted(self, item):
        calls.append(item.name)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return read(self, item)

    monkeypatch.setattr(FolderSource, "read", interrupted)
    run("folder", folder, tmp_path / "parts", *SMALL, "--workers", 1, code=130)
    monkeypatch.setattr(FolderSource, "read", lambda self, item: calls.append(item.name) or read(self, item))
    there = {name for name in digests(tmp_path / "parts") if name.startswith("data_batch")}
    assert there and not (tmp_path / "parts" / "batches.json").exists()
    calls.clear()
    run("folder", folder, tmp_path / "parts", *SMALL, "--workers", 2)
    assert len(calls) == 35 - 8 * len(there)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    calls.clear()
    assert "27 images for training" in run("folder", folder, tmp_path / "parts", *SMALL)  # once more: nothing to do
    assert not calls


def test_a_full_disk_leaves_what_is_whole(run, folder, tmp_path):
    run("folder", folder, tmp_path / "whole", *SMALL)
    sizes = {name: (tmp_path / "whole" / name).stat().st_size for name in digests(tmp_path / "whole")}
    least = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(size for name, size in sizes.items() if name.startswith("data")) - 100, least[1]))
    try:
        run("folder", folder, tmp_path / "parts", *SMALL, "--workers", 1, code=74)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, least)
    assert "cannot write: File too large" in run.told
    there = digests(tmp_path / "parts")
    assert "making.json" in there and not any(name.endswith(".part") for name in there) and len(there) < len(sizes)
    run("folder", folder, tmp_path / "parts", *SMALL)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


def test_other_batches_are_not_overwritten(run, folder, tmp_path):
    run("folder", folder, tmp_path / "out", *SMALL)
    before = digests(tmp_path / "out")
    run("folder", folder, tmp_path / "out", "--size", 20, "--batch-size", 8, code=73)
    assert "out: holds other batches, with size 16 in place of 20; give another folder" in run.told
    (folder / "lime" / "new.jpg").write_bytes(encoded(photograph((1, 2, 3), 1)))
    run("folder", folder, tmp_path / "out", *SMALL, code=73)
    assert "holds other batches, of other images" in run.told
    assert digests(tmp_path / "out") == before
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "data_batch_1").write_text("of somebody else")
    run("folder", folder, tmp_path / "old", *SMALL, code=73)
    assert "holds data_batch_1, which convnet-data did not make" in run.told


def test_strict_stops_at_a_bad_image(run, folder, tmp_path):
    run("folder", folder, tmp_path / "out", *SMALL, "--strict", code=65)
    assert any(f"cherry/{name}: " in run.told for name in BAD)
    for name in BAD:
        (folder / "cherry" / name).unlink()
    run("folder", folder, tmp_path / "out2", *SMALL, "--strict")


def test_a_validation_folder_of_its_own(run, folder, tmp_path):
    held = tmp_path / "held"
    for name in ("lime", "plum"):
        (held / name).mkdir(parents=True)
        (held / name / "a.png").write_bytes(encoded(photograph(COLOURS[name], 3), "PNG"))
    out = run("folder", folder, tmp_path / "out", *SMALL, "--validation", held)
    assert ["all", "30", "2"] in [line.split() for line in out.splitlines()]
    provider = open_provider("image", tmp_path / "out")
    assert sorted(provider.read(provider.groups["validation"][0]).data[1].ravel()) == [1, 2]
    (held / "mango").mkdir()
    run("folder", folder, tmp_path / "out2", *SMALL, "--validation", held, code=65)
    assert "held: found the class mango, which" in run.told


def test_no_validation_where_none_is_wanted(run, folder, tmp_path):
    run("folder", folder, tmp_path / "out", *SMALL, "--validation-share", 0)
    assert list(open_provider("image", tmp_path / "out").groups) == ["training"]


def test_names_that_are_no_text_do_no_harm(run, tmp_path):
    below = os.fsencode(tmp_path) + b"/all/caf\xe9\x1b[31m"
    os.makedirs(below)
    for number in range(3):
        with open(below + b"/\xff\n%d.jpg" % number, "wb") as file:
            file.write(encoded(photograph((9, 99, 199), number)))
    os.mkfifo(below + b"/pipe")
    os.symlink("nowhere", below + b"/link")
    out = run("folder", tmp_path / "all", tmp_path / "out", *SMALL)
    assert "caf??[31m/pipe: not a file" in out and "caf??[31m/link: not a file" in out and "\x1b" not in out
    provider = open_provider("image", tmp_path / "out")
    assert provider.class_names == ["caf??[31m"] and len(provider.open(1).index) == 3
    assert set(provider.open(1).header["names"]) == {f"caf??[31m/??{number}.jpg" for number in range(3)}


@pytest.mark.parametrize(("words", "code", "told"), {
    "nothing there": (["folder", "nowhere", "out"], 66, "nowhere: No such file or directory; expected a folder with one folder a class"),
    "no classes": (["folder", "photographs/lime/some", "out"], 65, "no folders in it"),
    "size": (["folder", "photographs", "out", "--size", "4"], 2, "--size 4: expected 8 to 4096"),
    "quality": (["folder", "photographs", "out", "--quality", "0"], 2, "--quality 0: expected 1 to 100"),
    "target within the source": (["folder", "photographs", "photographs/batches"], 2, "photographs/batches: lies in photographs, whose folders are classes"),
    "share": (["folder", "photographs", "out", "--validation-share", "1"], 2, "invalid share value: '1'"),
    "no command": ([], 2, "COMMAND"),
    "check nothing": (["check", "photographs"], 66, "no data_batch_1"),
}.values())  # fmt: skip
def test_mistakes_are_told(run, folder, monkeypatch, words, code, told):
    monkeypatch.chdir(folder.parent)
    run(*words, code=code)
    assert told in run.told


def test_a_folder_without_a_readable_image_is_refused(run, tmp_path):
    (tmp_path / "all" / "bad").mkdir(parents=True)
    (tmp_path / "all" / "bad" / "notes.jpg").write_text("no image")
    run("folder", tmp_path / "all", tmp_path / "out", *SMALL, code=65)
    assert "none of the images could be read" in run.told and "bad/notes.jpg: not JPEG or PNG" in run.told


# ---- single images -------------------------------------------------------------------------------------


def test_the_middle_of_the_image_is_kept():
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, :20, 0], image[:, 20:40, 1], image[:, 40:, 2] = 250, 250, 250
    found = decode_square(encoded(Image.fromarray(image), "PNG"), 10).pixels
    assert found.shape == (10, 10, 3) and (found[:, 1:-1] == (0, 250, 0)).all()
    assert decode_square(encoded(Image.fromarray(image[:, 20:40]), "PNG"), 40).pixels.shape == (40, 40, 3)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photograph_is_turned_as_the_camera_was_held(turn):
    upright = np.zeros((24, 24, 3), np.uint8)
    upright[:12, :12, 0] = 240  # red at the top left
    upright[12:, :12, 2] = 240  # blue below
    # How an image lies in a file with that note, by EXIF's table.
    lying = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2), 6: np.rot90(upright),
             7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1)}[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    found = decode_square(encoded(Image.fromarray(np.ascontiguousarray(lying)), quality=95, subsampling=0, exif=exif), 24).pixels
    assert np.abs(found.astype(int) - upright).max() < 60


def test_modes_become_red_green_and_blue():
    gradient = Image.linear_gradient("L").resize((16, 16))
    colour = Image.merge("RGB", [gradient, gradient.rotate(90), gradient.rotate(180)])
    assert np.array_equal(decode(encoded(colour, "PNG")), np.asarray(colour))
    assert np.array_equal(decode(encoded(gradient, "PNG")), np.asarray(gradient.convert("RGB")))
    deep = Image.fromarray(np.asarray(gradient).astype(np.uint16) * 257)
    assert np.array_equal(decode(encoded(deep, "PNG")), np.asarray(gradient.convert("RGB")))
    seen_through = colour.copy()
    seen_through.putalpha(0)
    assert (decode(encoded(seen_through, "PNG")) == 255).all()
    palette = colour.quantize(16)
    assert np.array_equal(decode(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    assert decode_square(encoded(colour.convert("CMYK")), 16).mode == "CMYK"


def test_damaged_images_are_bad_or_decoded():
    random = np.random.default_rng(2)
    for good in (encoded(photograph((200, 100, 50), 1)), encoded(photograph((200, 100, 50), 1), "PNG")):
        for _ in range(300):
            damaged = bytearray(good[: random.integers(1, len(good) + 1)] if random.random() < 0.3 else good)
            for _ in range(random.integers(1, 4)):
                damaged[random.integers(0, len(damaged))] = random.integers(0, 256)
            try:
                assert decode_square(bytes(damaged), 8).pixels.shape == (8, 8, 3)
            except BadImage as error:
                assert "0x" not in str(error)  # no address of this process: reports are the same every time


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


def test_wrong_archives_of_cifar_are_told(run, tmp_path):
    files = cifar_files("cifar10")
    write_tar(tmp_path / "short.tar.gz", {n: d for n, d in files.items() if "_3" not in n}, "w:gz")
    run("cifar10", tmp_path / "out", "--from", tmp_path / "short.tar.gz", code=66)
    assert "short.tar.gz: no data_batch_3 in it" in run.told
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


# ---- batches that are damaged ----------------------------------------------------------------------------


@pytest.fixture
def made(folder, tmp_path):
    make(FolderSource(folder, None, 0.1, 1), tmp_path / "out", Settings(size=16, batch_size=8))
    return tmp_path / "out"


def test_check_reads_everything(run, made):
    out = run("check", made)
    assert "27 images for training in 4 batches, 3 images for validation in 1 batch; all checksums are right" in out and "5 not used" in out
    batch = made / "data_batch_3"
    data = bytearray(batch.read_bytes())
    data[-50] ^= 1
    batch.write_bytes(data)
    run("check", made, code=65)
    assert "data_batch_3: image " in run.told and "its checksum differs" in run.told


def test_damaged_batches_give_their_images_or_a_data_error(made):
    provider = open_provider("image", made)
    good = (made / "data_batch_1").read_bytes()
    expected = provider.read(1).data[0]
    random = np.random.default_rng(8)
    for number in range(400):
        damaged = bytearray(good)
        if number % 4 == 0:
            damaged = damaged[: random.integers(0, len(good))]
        else:
            damaged[random.integers(0, len(good) if number % 2 else 900)] ^= 1 << random.integers(0, 8)
        (made / "data_batch_1").write_bytes(damaged)
        with pytest.raises(DataError, match="data_batch_1: "):
            provider.read(1)
    (made / "data_batch_1").write_bytes(good)
    assert np.array_equal(provider.read(1).data[0], expected)


@pytest.mark.parametrize(("key", "value"), [("version", 2), ("shape", [3, 16]), ("shape", "3x16x16"), ("class_names", []), ("class_names", [1]),
                                            ("groups", {"training": "4-1"}), ("groups", {"other": "1"}), ("color_pca", [[1.0]]), ("kind", "bmp")])
def test_wrong_meta_files_are_refused(made, key, value):
    meta = json.loads((made / "batches.json").read_text())
    (made / "batches.json").write_text(json.dumps(meta | {key: value}))
    with pytest.raises(DataError, match=r"batches\.json: "):
        open_provider("image", made)


def test_a_wrong_mean_is_refused(made):
    np.save(made / "mean.npy", np.zeros((3, 16, 15), np.float32))
    with pytest.raises(DataError, match=r"mean\.npy: found float32 of shape \(3, 16, 15\), expected finite float32 of shape \(3, 16, 16\)"):
        open_provider("image", made)
    (made / "mean.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"mean\.npy: "):
        open_provider("image", made)
    (made / "mean.npy").unlink()
    with pytest.raises(MissingInput, match=r"mean\.npy: cannot be read"):
        open_provider("image", made)


def test_labels_beyond_the_outputs_of_the_net_are_refused(made):
    with pytest.raises(DataError, match=r"label 2, expected an integer 0 to 1: there are 3 classes, and the net has outputs for 2"):
        open_provider("image", made, net_classes=2).read(1)


def test_two_cannot_make_the_same_batches(made, folder):
    from convnet.checkpoint import lock

    with lock(made), pytest.raises(CannotCreate, match=r"in use by process .*; wait for its end, or give another folder"):
        make(FolderSource(folder, None, 0.1, 1), made, Settings(size=16, batch_size=8))
