"""convnet-predict: photographs to classes."""
from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

import convnet
from convnet.cli.data import data
from convnet.cli.predict import main
from convnet.cli.test import test as run
from convnet.cli.train import train
from convnet.errors import CommandLineError, DataError
from workplace import CONV, DATA, HEAD, params

COLORS = {"blue": (50, 60, 210), "green": (40, 180, 60), "red": (200, 40, 40)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A net that tells red, green and blue images of 12x12 pixels apart, trained on crops of 8x8 pixels."""
    folder = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(1)
    for number in (1, 2):
        labels = rng.integers(0, 3, 150)
        pixels = np.array(list(COLORS.values()))[labels].T[:, None, None] + rng.normal(0, 30, (3, 12, 12, 150))
        np.savez(folder / f"data_batch_{number}.npz", data=pixels.clip(0, 255).astype(np.uint8).reshape(-1, 150), labels=labels)
    np.savez(folder / "batches.meta.npz", num_vis=432, label_names=list(COLORS))
    layers = DATA + CONV.format(name="conv1", inputs="data", gpu=0).replace("initW=0.2", "initW=0.01") + HEAD.format("conv1").replace("outputs=10", "outputs=3")
    (folder / "layers.cfg").write_text(layers.replace("initW=0.05", "initW=0.001"))
    (folder / "params.cfg").write_text(params(layers, rates="epsW=0.0001\nepsB=0.0001\nmomW=0.9\nmomB=0.9\n"))
    train([str(folder / "layers.cfg"), str(folder / "params.cfg"), "--data-path", str(folder), "--train-range", "1", "--test-range", "2", "--mini", "25", "--epochs", "4",
           "--crop-border", "2", "--backend", "host", "--save-path", str(folder / "runs")])
    return folder / "runs"


@pytest.fixture
def photos(tmp_path):
    """A red JPEG that lies across, a small green PNG, a blue one of which the middle alone is blue, and things that are no photographs."""
    rng = np.random.default_rng(2)

    def picture(color: str, height: int, width: int) -> np.ndarray:
        return (np.array(COLORS[color]) + rng.normal(0, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)

    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    Image.fromarray(picture("red", 60, 90)).save(folder / "a.jpg", quality=95)
    Image.fromarray(picture("green", 7, 9)).save(folder / "b.PNG")
    middle = picture("red", 100, 300)
    middle[:, 100:200] = picture("blue", 100, 100)
    Image.fromarray(middle).save(folder / "below" / "c.jpeg", quality=95)
    (folder / "notes.txt").write_text("not looked at")
    return folder


def told(capsys, *words, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert left.value.code == code, (left.value.code, out, err)
    assert "Traceback" not in err
    return out, err


def found(capsys, *words, code: int = 0) -> dict[str, list[dict]]:
    out, _ = told(capsys, *words, "--json", code=code)
    return {os.path.basename(each["file"]): each.get("likeliest") or each["error"] for each in map(json.loads, out.splitlines())}


def test_a_folder_of_photographs(trained, photos, capsys):
    names = {name: likeliest[0]["class"] for name, likeliest in found(capsys, trained, photos).items()}
    assert names == {"a.jpg": "red", "b.PNG": "green", "c.jpeg": "blue"}


def test_what_is_printed(trained, photos, capsys):
    out, err = told(capsys, trained, photos / "a.jpg", photos / "a.jpg", "--top", "2")
    lines = out.splitlines()
    assert lines[0] == str(photos / "a.jpg") and len(lines) == 3 and err == ""  # a file that is named twice is looked at once
    assert lines[1].split()[1] == "red" and 0.5 < float(lines[1].split()[0]) <= 1


def test_probabilities_are_those_of_the_net(trained, photos, capsys):
    with Image.open(photos / "b.PNG") as image:
        pixels = np.asarray(image.resize((12, 12), Image.Resampling.BICUBIC, (1, 0, 8, 7))).transpose(2, 0, 1)
    with convnet.load(trained, "host") as net:
        centre, ten = (net.predict(pixels, multiview).ravel() for multiview in (False, True))
    for words, probs in (([], centre), (["--multiview-test"], ten)):
        likeliest = found(capsys, trained, photos / "b.PNG", *words)["b.PNG"]
        assert [each["label"] for each in likeliest] == np.argsort(-probs).tolist()
        assert [each["probability"] for each in likeliest] == pytest.approx(sorted(probs, reverse=True), rel=1e-5)
    assert (centre != ten).any()


def test_bad_files_are_named_and_the_others_go_on(trained, photos, capsys):
    whole = (photos / "a.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("hello")
    (photos / "empty.png").write_bytes(b"")
    out, err = told(capsys, trained, photos, photos / "none.jpg", "--top", "1", code=65)
    assert [os.path.basename(line) for line in out.splitlines()[::2]] == ["a.jpg", "b.PNG", "c.jpeg"]
    problems = [line.split(": ", 1) for line in err.splitlines()[:-1]]
    assert [os.path.basename(name) for name, _ in problems] == ["cut.jpg", "empty.png", "text.jpg", "none.jpg"]
    assert "JPEG" in problems[2][1] and problems[3][1] == "No such file or directory"
    assert err.splitlines()[-1] == "convnet-predict: 4 of 7 files could not be read"
    assert isinstance(found(capsys, trained, photos, code=65)["text.jpg"], str)


def test_a_folder_of_photographs_becomes_batches_that_a_net_is_tested_on(trained, tmp_path, capsys):
    rng = np.random.default_rng(4)
    for color, pixels in COLORS.items():
        (tmp_path / "folder" / color).mkdir(parents=True)
        for number in range(10):
            image = (np.array(pixels) + rng.normal(0, 20, (20, 20, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "folder" / color / f"{number}.jpg", quality=95)

    def made(name: str) -> list[str]:
        data(["folder", str(tmp_path / "folder"), str(tmp_path / name), "--size", "12", "--batch-size", "8", "--validation-share", "0.4"])
        return [str(trained), "--data-path", str(tmp_path / name)]

    words = made("batches")
    for group, images, batches in (("validation", 12, "4-5"), ("training", 18, "1-3")):
        capsys.readouterr()
        run([*words, "--test-range", group, "--fit-weights", "training", "--multiview-test", "--json"])
        report = json.loads(capsys.readouterr().out)
        assert (report["images"], report["batches"], report["views"]) == (images, batches, [10])
        assert report["scores"]["0"]["all views"]["top-1 error"] == 0
    with pytest.raises(CommandLineError, match="--test-range: found 'test', expected batch numbers"):
        run([*words, "--test-range", "test"])
    (tmp_path / "folder" / "red").rename(tmp_path / "folder" / "crimson")
    with pytest.raises(DataError, match=r"class 1 is green in .*ckpt, and crimson in the data"):
        run([*made("others"), "--test-range", "training"])


def test_an_image_bomb_is_refused(trained, tmp_path, capsys):
    """A PNG that says it has 60,000 x 60,000 pixels."""
    Image.new("1", (8, 8)).save(tmp_path / "bomb.png")
    data = bytearray((tmp_path / "bomb.png").read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    (tmp_path / "bomb.png").write_bytes(data)
    _, err = told(capsys, trained, tmp_path / "bomb.png", code=65)
    assert "bomb.png: " in err and "1 of 1 files could not be read" in err


def test_mistakes(trained, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "no .jpg, .jpeg, .png in this folder" in told(capsys, trained, tmp_path / "empty", code=66)[1]
    assert "--top 0: expected 1 or more" in told(capsys, trained, photos, "--top", "0", code=2)[1]
    assert "no valid checkpoint there" in told(capsys, tmp_path / "empty", photos, code=66)[1]


def test_a_net_of_gray_images(photos, tmp_path, capsys):
    digits = os.path.join(os.path.dirname(convnet.__file__), "models", "digits")
    train([os.path.join(digits, "layers.cfg"), os.path.join(digits, "params.cfg"), "--max-steps", "1", "--backend", "host", "--save-path", str(tmp_path / "runs")])
    likeliest = found(capsys, tmp_path / "runs", photos / "a.jpg")["a.jpg"]
    with Image.open(photos / "a.jpg") as image:
        image.draft(None, (16, 16))
        pixels = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR, (image.width / 6, 0, image.width * 5 / 6, image.height)).convert("L"))[None]
    with convnet.load(tmp_path / "runs", "host") as net:
        assert likeliest[0]["probability"] == pytest.approx(net.predict(pixels).max(), rel=1e-5)


def test_a_net_of_other_numbers_is_refused(photos, tmp_path, capsys):
    (tmp_path / "layers.cfg").write_text(DATA + HEAD.format("data"))
    (tmp_path / "params.cfg").write_text("[fc9]\nepsW=0\nepsB=0\nmomW=0\nmomB=0\n[logprob]\n")
    train([str(tmp_path / "layers.cfg"), str(tmp_path / "params.cfg"), "--data-provider", "dummy-lr-7", "--max-steps", "1", "--backend", "host", "--save-path", str(tmp_path / "runs")])
    _, err = told(capsys, tmp_path / "runs", photos / "a.jpg", code=65)
    assert "the net was trained on float32 numbers of shape (7, 1, 1); expected one for pixels" in err
