"""convnet-data: batches of a folder of images, the same whoever makes them, and what is wrong with a file told."""
from __future__ import annotations

import hashlib
import json
import os
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from convnet.data import color_pca_of, mean_of, open_provider
from convnet.data.batch_file import open_batch, write_batch
from convnet.data.decode import BadImage, decode, decode_square
from convnet.data.making import Settings, make
from convnet.data.making.sources import FolderSource, shuffled
from convnet.errors import CannotCreate, DataError, MissingInput
from data_command import SMALL, DataCommand, encoded, photograph

COLOURS = {"cherry": (200, 30, 60), "lime": (40, 220, 50), "plum": (90, 20, 120)}


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
    return DataCommand(capsys)


def digests(path):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(path.iterdir())}


# ---- folders -------------------------------------------------------------------------------------------


def test_batches_of_a_folder_and_the_report(run, folder, tmp_path):
    out = run("folder", folder, tmp_path / "out", *SMALL)
    rows = [line.split() for line in out.splitlines()]
    assert ["class", "training", "validation"] in rows and ["cherry", "9", "1"] in rows and ["lime", "9", "1"] in rows and ["all", "27", "3"] in rows
    assert "3 converted from CMYK" in out and "3 converted from gray\n" in out and "5 not used:" in out
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
        folder = folder.rename(tmp_path / f"renamed{workers}")
    first = digests(tmp_path / "1")
    assert first == digests(tmp_path / "2") == digests(tmp_path / "3")
    assert set(first) == {"batches.json", "mean.npy", "report.txt", *(f"data_batch_{i}" for i in range(1, 6))}


def test_the_seed_says_the_order_of_the_images(run, folder, tmp_path):
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("folder", folder, tmp_path / name, "--size", 8, "--validation-share", 0, "--seed", seed)
        orders.append(open_provider("image", tmp_path / name).open(1).header["names"])
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2]) != orders[0]
    assert shuffled(range(10), 1, 1) == [0, 6, 5, 3, 4, 9, 7, 8, 2, 1]
    assert shuffled(range(10), 2, 1) == [2, 7, 0, 9, 8, 1, 5, 6, 3, 4]  # with every numpy


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


def test_a_batch_that_was_removed_is_made_again(run, folder, tmp_path):
    run("folder", folder, tmp_path / "out", *SMALL)
    before = digests(tmp_path / "out")
    (tmp_path / "out" / "data_batch_2").unlink()
    run("check", tmp_path / "out", code=66)
    run("folder", folder, tmp_path / "out", *SMALL)
    assert digests(tmp_path / "out") == before


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
    "no images": (["folder", "empty", "out"], 65, "empty: no images to train on"),
    "size": (["folder", "photographs", "out", "--size", "4"], 2, "--size 4: expected 8 to 4096"),
    "quality": (["folder", "photographs", "out", "--quality", "0"], 2, "--quality 0: expected 1 to 100"),
    "target within the source": (["folder", "photographs", "photographs/batches"], 2, "photographs/batches: lies in photographs, whose folders are classes"),
    "share": (["folder", "photographs", "out", "--validation-share", "1"], 2, "invalid share value: '1'"),
    "no command": ([], 2, "COMMAND"),
    "check nothing": (["check", "photographs"], 66, "no data_batch_1"),
}.values())  # fmt: skip
def test_mistakes_are_told(run, folder, monkeypatch, words, code, told):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "empty" / "class").mkdir(parents=True)
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


def rewritten(path, header=(), records=None, labels=None):
    """A batch of the same records and labels, but for these changes, with right checksums."""
    batch = open_batch(path)
    write_batch(path, batch.header | dict(header), batch.read_records() if records is None else records, batch.index["label"].tolist() if labels is None else labels)


@pytest.mark.parametrize(("change", "told"), {
    "another size": ({"header": {"shape": [3, 8, 8]}}, r"data_batch_1: images of shape \[3, 8, 8\], expected \[3, 16, 16\], as batches.json says"),
    "no shape": ({"header": {"shape": [3, 0, 8]}}, "data_batch_1: the header is not one of convnet-data's"),
    "no kind": ({"header": {"kind": "gif"}}, "data_batch_1: the header is not one of convnet-data's"),
    "no names": ({"header": {"names": 3}}, "data_batch_1: the header is not one of convnet-data's"),
    "few names": ({"header": {"names": []}, "records": [b"x"], "labels": [0]}, r"data_batch_1: image 0 \(without a name\): not JPEG or PNG"),
    "raw of another length": ({"header": {"kind": "raw"}}, r"data_batch_1: records of \d+ bytes, expected 768"),
    "no image": ({"records": [b"\xff\xd8\xff rest"], "labels": [0]}, "data_batch_1: image 0 .*a damaged JPEG"),
    "other pixels": ({"records": [encoded(photograph((1, 2, 3), 0, (16, 17)))], "labels": [0]}, "17 x 16 pixels, expected 16 x 16"),
    "a label below 0": ({"records": [b"x"], "labels": [-1]}, "label -1, expected an integer 0 to 2"),
}.values())  # fmt: skip
def test_batches_of_something_else_are_refused(made, change, told):
    rewritten(made / "data_batch_1", **change)
    with pytest.raises(DataError, match=told):
        open_provider("image", made).read(1)


def test_files_that_are_no_batches_are_refused(made):
    provider = open_provider("image", made)
    for number, data in enumerate((b"", b"CNVBAT1", b"PK\3\4 something", b"CNVBAT1\n" + b"\xff" * 8)):
        (made / "data_batch_2").write_bytes(data)
        with pytest.raises(DataError, match="data_batch_2: (found another kind of file|the header is damaged)" if number < 3 else "data_batch_2: the header is damaged"):
            provider.read(2)
    (made / "data_batch_2").unlink()
    with pytest.raises(MissingInput, match="data_batch_2: cannot be read: No such file"):
        provider.read(2)
    with pytest.raises(MissingInput, match="no data_batch_9; there are 1-5"):
        provider.read(9)
    (made / "batches.json").write_text("{")
    with pytest.raises(DataError, match=r"batches.json: found no JSON"):
        open_provider("image", made)


def test_batches_that_were_made_otherwise_are_not_mixed_in(run, folder, made):
    (made / "batches.json").unlink()
    rewritten(made / "data_batch_4", {"made": {}})
    run("folder", folder, made, *SMALL, code=73)
    assert "holds data_batch_1, which convnet-data did not make" in run.told
    (made / "making.json").write_bytes(json.dumps(open_batch(made / "data_batch_1").header["made"]).encode())
    run("folder", folder, made, *SMALL, code=73)
    assert "data_batch_4: was made otherwise, or of other images; remove it" in run.told
    (made / "making.json").write_text("[]")
    run("folder", folder, made, *SMALL, code=65)
    assert "making.json: not what convnet-data wrote; remove it, or give another folder" in run.told


def test_long_reports_are_cut_short_where_they_are_printed(run, tmp_path):
    for label in range(50):
        below = tmp_path / "all" / f"class{label:02}"
        below.mkdir(parents=True)
        (below / "a.png").write_bytes(encoded(photograph((50, 5 * label, 50), 1), "PNG"))
        (below / "b.png").write_bytes(b"no image")
    out = run("folder", tmp_path / "all", tmp_path / "out", *SMALL, "--validation-share", 0)
    assert "... (10 classes more in report.txt)" in out and "50 not used:" in out and "... (30 more in report.txt)" in out
    report = (tmp_path / "out" / "report.txt").read_text()
    assert all(f"class{label:02}/b.png: not JPEG or PNG" in report and f"class{label:02} " in report for label in range(50))


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
