"""convnet-show: what the pictures show, the pictures, and the report in a browser."""
from __future__ import annotations

import base64
import contextlib
import importlib.util
import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convnet
from convnet import checkpoint, figures, report, show
from convnet.cli.show import distinct, run
from convnet.cli.train import train
from convnet.data import open_provider
from convnet.errors import CannotCreate, CommandLineError, DataError, MissingInput
from convnet.testing import Predictions, predictions
from workplace import DIGITS, TINY, TWO_COLUMNS, on_digits, params

plotted = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed: ./go --with plot pytest")
FILES = ["curves.png", "net.svg", "filters.png", "predictions.png", "nearest.png", "confusion.png"]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def trained(folder: Path, layers: str, *words: str) -> Path:
    (folder / "layers.cfg").write_text(layers)
    (folder / "params.cfg").write_text(params(layers))
    assert train([str(folder / "layers.cfg"), str(folder / "params.cfg"), "--save-path", str(folder / "runs"), *words]) == 0
    return folder / "runs"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A net of two columns, trained on the digits for two epochs."""
    return trained(tmp_path_factory.mktemp("saved"), TWO_COLUMNS, *on_digits("--test-freq", "2"))


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """One trained on random pixels in colour."""
    return trained(tmp_path_factory.mktemp("coloured"), TINY.replace("filters=6", "filters=6\nchannels=3", 1), "--data-provider", "dummy-lr-192",
                   "--epochs", "1", "--backend", "host")


@pytest.fixture(scope="module")
def drawn(saved, tmp_path_factory):
    """The folder of all its figures, and what convnet-show said."""
    folder, out, told = tmp_path_factory.mktemp("drawn"), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
        assert run([str(saved), "--out", str(folder), "--backend", "host", "--images", "5"]) == 0
    return folder, out.getvalue().splitlines(), told.getvalue()


@pytest.fixture
def net(saved):
    with convnet.load(saved, "host") as net:
        yield net


@pytest.fixture(scope="module")
def digits():
    return open_provider("cifar", DIGITS)


def words(saved, tmp_path, *more: str) -> list[str]:
    return [str(saved), "--out", str(tmp_path / "out"), "--backend", "host", *more]


# ---- what is shown -------------------------------------------------------------------------------


def test_a_course_has_all_batches_and_tests(saved):
    header, _ = checkpoint.load(next(saved.glob("*/2.5.ckpt")))
    course = show.course(header, "a run")
    assert course.quantities == ["logprob", "top-1 error"]
    np.testing.assert_allclose(course.train[:, 0], np.arange(1, 11) / 5)
    np.testing.assert_allclose(course.test[:, 0], [0.4, 0.8, 1.2, 1.6, 2.0])
    np.testing.assert_allclose(course.test[-1, 1:], header["test"]["logprob"], rtol=1e-6)
    with pytest.raises(DataError, match="a run: no costs of a run in it"):
        show.course({**header, "history": {"train": [], "test": []}}, "a run")


def test_long_courses_are_shown_as_means_of_neighbours():
    rows = np.arange(2002.0).reshape(1001, 2)
    assert show.thinned(rows[:400]) is not rows and len(show.thinned(rows[:400])) == 400
    short = show.thinned(rows)
    assert len(short) == 334 and short[0].tolist() == [2, 3] and short[-1].tolist() == rows[999:].mean(0).tolist()


def test_filters_of_the_first_layers_by_device(net):
    found = show.filters(net)
    assert [(each.layer, each.devices, each.weights.shape) for each in found] == [("conv1a", (0,), (1, 3, 3, 6)), ("conv1b", (1,), (1, 3, 3, 6))]
    np.testing.assert_array_equal(found[1].weights, net.net.get("conv1b.W0"))


def test_filters_of_a_layer_that_is_asked_for(net):
    np.testing.assert_array_equal(show.filters(net, "conv2a", 1)[0].weights, net.net.get("conv2a.W1"))
    assert show.filters(net, "fc9")[0].weights.shape == (6, 8, 8, 10)
    with pytest.raises(CommandLineError, match="--layer conv3: no such layer; expected one of conv1a"):
        show.filters(net, "conv3")
    with pytest.raises(CommandLineError, match="--layer conv2a --input 2: it has weights for the inputs 0 to 1"):
        show.filters(net, "conv2a", 2)
    with pytest.raises(CommandLineError, match=r"--layer probs --input 0: a layer of type softmax has no filters"):
        show.filters(net, "probs")


@pytest.mark.parametrize(("channels", "colour", "columns", "down"), [(1, False, 10, 4), (3, True, 10, 4), (3, False, 10, 15), (70, False, 20, 0)])
def test_a_mosaic_has_every_weight_in_its_place(channels, colour, columns, down):
    """`down`: pixels from a row of filters to the next."""
    weights = np.random.default_rng(0).standard_normal((channels, 3, 2, 20)).astype(np.float32)
    image, largest = show.mosaic(weights, colour)
    assert largest == np.abs(weights).max() and image.min() >= 0 and image.max() <= 1
    shown = 0.5 + 0.5 * weights[: show.SHOWN] / largest
    for f in range(20):
        y, x = f // columns * down + 1, f % columns * 3 + 1
        for c, channel in enumerate(shown):
            tile = image[y : y + 3, x : x + 2, c] if colour else image[y + 4 * c : y + 4 * c + 3, x : x + 2]
            np.testing.assert_array_equal(tile, channel[..., f])
    assert image.shape[1] == 3 * columns + 1 and len(image) == y + (3 if colour else 4 * len(shown) - 1) + 1


def test_each_filter_by_its_own_scale():
    weights = np.array([1.0, -0.1], np.float32).reshape(1, 1, 1, 2)
    assert show.mosaic(weights, False)[0][1, [1, 3]].tolist() == pytest.approx([1.0, 0.45])
    assert show.mosaic(weights, False, each=True)[0][1, [1, 3]].tolist() == pytest.approx([1.0, 0.0])
    assert show.mosaic(weights * 0, False)[0][1, [1, 3]].tolist() == [0.5, 0.5]  # all weights 0


def test_the_seed_draws_the_images(net, digits):
    answers = predictions(net, digits, [6])
    places = show.chosen(answers, 8, seed=1)
    assert len(set(places)) == 8 and (np.diff(places) > 0).all()
    assert (places == show.chosen(answers, 8, seed=1)).all() and (places != show.chosen(answers, 8, seed=2)).any()
    wrong = show.chosen(answers, 1000, seed=1, only_errors=True)
    np.testing.assert_array_equal(wrong, np.flatnonzero(answers.probs.argmax(0) != answers.labels))
    with pytest.raises(DataError, match="every image of the test range right"):
        show.chosen(Predictions(np.array([0]), np.array([[1.0], [0.0]])), 1, 1, only_errors=True)


def test_images_at_places_of_several_batches(digits):
    found = show.images_at(digits, [2, 6], [3, 299, 300, 596])
    expected = [digits.read(2).data[0][..., 3], digits.read(2).data[0][..., 299], digits.read(6).data[0][..., 0], digits.read(6).data[0][..., 296]]
    np.testing.assert_array_equal(found, np.stack(expected, axis=-1))


def test_the_nearest_images_are_those_of_all_batches(net, digits):
    queries = digits.read(6).data[0][..., :3]
    layers = show.feature_layers(net)
    assert layers == ["conv2a_neuron", "conv2b_neuron"]
    found = show.nearest(net, layers, queries, digits, [1, 3], 5)
    images, labels = (np.concatenate([digits.read(number).data[i] for number in (1, 3)], axis=-1) for i in (0, 1))
    acts, wanted = (np.concatenate([net.acts(layer, pixels) for layer in layers]).reshape(-1, 1, pixels.shape[-1]).astype(np.float64) for pixels in (images, queries))
    distances = np.sqrt(((acts - wanted.transpose(0, 2, 1)) ** 2).sum(0))  # (queries, images)
    order = distances.argsort(axis=1, kind="stable")[:, :5]
    np.testing.assert_allclose(found.distances, np.take_along_axis(distances, order, 1), rtol=1e-5)
    np.testing.assert_array_equal(found.images, images[..., order])
    np.testing.assert_array_equal(found.labels, labels.ravel()[order])


def test_an_image_is_its_own_nearest(net, digits):
    queries = digits.read(3).data[0][..., 5:7]
    found = show.nearest(net, ["probs"], queries, digits, [1, 3], 2)
    np.testing.assert_array_equal(found.images[..., 0], queries)
    assert found.distances[:, 0].tolist() == pytest.approx([0, 0], abs=1e-5)


@pytest.mark.parametrize(("images", "expected"), [
    (np.array([0, 16], np.uint8), [0, 1]),  # digits of 0 to 16
    (np.array([0, 51, 255], np.uint8), [0, 0.2, 1]),
    (np.array([0.25, 1.0], np.float32), [0.25, 1]),
    (np.array([-2, 0, 2], np.float32), [0, 0.5, 1]),
    (np.array([0, 0], np.uint8), [0, 0]),
])
def test_pixels_as_they_are_shown(images, expected):
    np.testing.assert_allclose(show.shown_images(images.reshape(1, 1, 1, -1)).ravel(), expected)


def test_colour_comes_last_and_other_channels_are_averaged():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 2), np.uint8)
    images[0, 0, 0, 0] = 255
    np.testing.assert_allclose(show.shown_images(images), images.transpose(3, 1, 2, 0) / 255)
    assert show.shown_images(np.ones((7, 4, 5, 2))).shape == (2, 4, 5)


def test_runs_are_told_apart_by_the_ends_of_their_paths():
    assert distinct(["a/ConvNet__1/3.5.ckpt"]) == ["3.5.ckpt"]
    assert distinct(["a/ConvNet__1/3.5.ckpt", "a/ConvNet__2/3.5.ckpt"]) == ["ConvNet__1/3.5.ckpt", "ConvNet__2/3.5.ckpt"]


# ---- the command ---------------------------------------------------------------------------------


@plotted
def test_all_figures_and_a_report(drawn):
    folder, out, told = drawn
    assert [Path(line).name for line in out] == [*FILES, "report.html"]
    assert told == ""
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert 300 < picture.width < 1500 and 150 < picture.height < 3000, path
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 10
    text = (folder / "report.html").read_text()
    assert "5 of 297 images of the batches 6" in text and "acts of conv2a_neuron and conv2b_neuron" in text


@plotted
def test_several_runs_in_one_picture(saved, coloured, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "curves", lambda runs: drawn.extend(runs) or b"\x89PNG")
    run([*words(saved, tmp_path, "--figures", "curves"), str(coloured)])
    assert [each.name.split("/")[-1] for each in drawn] == ["2.5.ckpt", "1.1.ckpt"]


@plotted
@pytest.mark.parametrize("more", [(), ("--gray",), ("--norm-filters",), ("--layer", "fc9")])
def test_filters_in_colour_and_gray(coloured, tmp_path, more):
    run(words(coloured, tmp_path, "--figures", "filters", *more))
    with Image.open(tmp_path / "out" / "filters.png") as picture:
        colours = [colour for _, colour in picture.convert("RGB").getcolors(1 << 24)]
    assert any(max(colour) - min(colour) > 60 for colour in colours) == (more in [(), ("--norm-filters",)])


@plotted
def test_without_its_data_a_net_still_has_curves_and_filters(saved, tmp_path, capsys, monkeypatch):
    def gone(*_):
        raise MissingInput("--data-path gone: No such file or directory")

    monkeypatch.setattr("convnet.cli.test.open_data", gone)
    run(words(saved, tmp_path))
    out, told = capsys.readouterr()
    assert [Path(line).name for line in out.splitlines()] == ["curves.png", "net.svg", "filters.png", "report.html"]
    assert "predictions left out: no data; --data-path DIR names them (--data-path gone: No such file or directory)" in told
    assert "Left out: no data" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(MissingInput, match="no data; --data-path DIR names them"):
        run(words(saved, tmp_path, "--figures", "confusion"))


@plotted
@pytest.mark.parametrize(("more", "error", "message"), [
    (("--figures", "curves,faces"), CommandLineError, "no figure faces; expected some of curves, net, filters"),
    (("--images", "0"), CommandLineError, "--images 0: expected 1 or more"),
    (("--figures", "nearest", "--features", "fc7"), CommandLineError, "--features fc7: no such layer; expected one of conv1a, .*did you mean fc9"),
    (("--data-path", "nowhere", "--figures", "nearest"), MissingInput, "nowhere: No such file"),
    (("--figures", "curves", "--out", "/dev/null/x"), CannotCreate, "--out /dev/null/x: Not a directory"),
])
def test_mistakes(saved, tmp_path, more, error, message):
    with pytest.raises(error, match=message):
        run(words(saved, tmp_path, *more))


def test_without_matplotlib_it_says_how_to_get_it(saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(CommandLineError, match=r"matplotlib, which is not installed: \./go --with plot convnet-show"):
        run(words(saved, tmp_path))


@plotted
def test_names_that_look_like_formulas_or_are_long(tmp_path):
    names = ["$\\frac$ {", "a" * 80, "two words " * 9, "<b>"]
    probs = np.random.default_rng(0).dirichlet(np.ones(4), 3).T
    images = np.zeros((3, 4, 4, 3), np.uint8)
    assert figures.predictions(images, np.array([0, 1, 2]), probs, names).startswith(b"\x89PNG")
    assert figures.confusion(np.eye(4, dtype=int), names).startswith(b"\x89PNG")
    assert figures.confusion(np.eye(1000, dtype=int), list(map(str, range(1000)))).startswith(b"\x89PNG")


# ---- the report ----------------------------------------------------------------------------------


class Strict(HTMLParser):
    """Every tag closed in its turn, nothing fetched, nothing run, every link has its end."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.pictures, self.ids, self.links, self.text = [], [], set(), set(), []
        self.feed(text)
        self.close()
        assert not self.open and self.links <= self.ids

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert tag in ("html", "head", "body", "meta", "title", "style", "h1", "h2", "nav", "a", "section", "p", "img", "div", "table", "tr", "th", "td"), tag
        assert len(given) == len(attrs) and not any(name.startswith("on") for name in given)
        if tag == "img":
            kind, data = re.fullmatch(r"data:image/(png|svg\+xml);base64,([A-Za-z0-9+/=]+)", given["src"]).groups()
            assert given["alt"]
            self.pictures.append((kind, base64.b64decode(data, validate=True)))
        else:
            assert "src" not in given
        if "href" in given:
            assert tag == "a" and given["href"].startswith("#")
            self.links.add(given["href"][1:])
        if "id" in given:
            assert given["id"] not in self.ids
            self.ids.add(given["id"])
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@plotted
def test_the_report_holds_its_pictures_and_needs_nothing_else(drawn):
    folder, _, _ = drawn
    text = (folder / "report.html").read_text()
    assert text.startswith("<!DOCTYPE html>") and "default-src 'none'" in text
    assert "url(" not in text and "@import" not in text
    pictures = Strict(text).pictures
    assert [kind for kind, _ in pictures] == ["png", "svg+xml", "png", "png", "png", "png"]
    assert [content for _, content in pictures] == [(folder / name).read_bytes() for name in FILES]


def test_what_a_checkpoint_says_is_text_to_the_report():
    evil = "</p><script>alert(1)</script>&amp;\"'"
    parsed = Strict(report.page(evil, [("name", evil)], [report.Section("net", "The net", evil, tables=[report.Table((evil,), [(evil,)])])]))
    assert "".join(parsed.text).count(evil) == 6


@plotted
@pytest.mark.skipif(BROWSER is None, reason="no browser here; the strict parse above stands in for it (apt install chromium)")
def test_a_browser_shows_every_picture(drawn, tmp_path):
    folder, _, _ = drawn
    shot = tmp_path / "shot.png"
    subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb", "--window-size=1700,6000",
                    f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", (folder / "report.html").as_uri()],
                   check=True, capture_output=True, timeout=120)
    with Image.open(shot) as picture:
        seen = np.asarray(picture.convert("RGB"))
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        busiest = (np.diff(pixels.astype(int), axis=1) != 0).any(-1).sum(1).argmax()
        assert any(pixels[busiest].tobytes() in row.tobytes() for row in seen), path.name


@plotted
def test_a_picture_is_a_png(saved):
    header, _ = checkpoint.load(next(saved.glob("*/2.5.ckpt")))
    with Image.open(io.BytesIO(figures.curves([show.course(header, "$a$")] * 12))) as picture:
        assert picture.format == "PNG"
