"""What a net sees of stored images: random crops and colour noise in training, views in testing."""
from __future__ import annotations

import re
import zlib

import numpy as np
import pytest

import ops.image
from convnet.backends import Device
from convnet.config import parse_config
from convnet.data import Augmentation, color_pca_of, open_provider
from convnet.data.augment import ColorSums, principal_components
from convnet.errors import CommandLineError
from convnet.net import DataSpec, Net
from workplace import DIGITS, assert_same_bits, contents, logprobs

IMAGE, INNER, IMAGES = (3, 9, 8), (3, 6, 5), 7
LAYERS = """\
[data]
type=data
dataIdx=0
[labels]
type=data
dataIdx=1
[seen]
type=href
inputs=data
[fc]
type=fc
inputs=seen
outputs=2
[probs]
type=softmax
inputs=fc
[cost]
type=cost.logreg
inputs=labels,probs
"""
PARAMS = "[fc]\nepsW=0.0001\nepsB=0.0001\nmomW=0.9\nmomB=0.9\nwc=0\n[cost]\n"
RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (*IMAGE, IMAGES), np.uint8)
MEAN = RNG.uniform(0, 255, INNER).astype(np.float32)
PCA = RNG.standard_normal((3, 3)) * 20
LABELS = np.zeros((1, 1, 1, IMAGES), np.float32)


@pytest.fixture
def net_with():
    """Makes nets whose layer `seen` is the mirror image of what the op `image` gives."""
    with Device("host", 0, 0, 2) as device:
        def make(augmentation, dtype="uint8"):
            data = DataSpec((INNER, (1, 1, 1)), ((dtype, IMAGE), ("float32", (1, 1, 1))), MEAN, None, augmentation)
            net = Net(parse_config(LAYERS, PARAMS), data, {0: device}, seed=3, dtype="float64")
            net.initialise()
            return net

        yield make


def trained_on(net, step):
    """What training sees at a step."""
    plan = net.plan(IMAGES, "train", keep=("seen",))
    plan.run({0: PIXELS, 1: LABELS, "state": net.state(step, [0.0, 0.0])})
    plan.synchronize()
    return plan.fetch("seen")[0][:, :, ::-1]


def keys():
    return {"seed": 3, "purpose": zlib.crc32(b"image data"), "first_image": 0}


@pytest.mark.parametrize("view", range(10))
def test_a_view_is_the_centre_or_a_corner_or_its_mirror_image(net_with, view):
    top, left = [(1, 1), (0, 0), (0, 3), (3, 0), (3, 3)][view % 5]
    expected = PIXELS[:, top : top + 6, left : left + 5]
    _, kept = net_with(Augmentation(color_noise=0.1, color_pca=PCA)).test((PIXELS, LABELS), ("seen",), view)
    assert np.array_equal(kept["seen"][:, :, ::-1], (expected[:, :, ::-1] if view >= 5 else expected) - MEAN[..., None].astype(np.float64))


def test_values_have_no_views(net_with):
    with pytest.raises(CommandLineError, match="view 3: only images of uint8 pixels have views; those of this data are float32"):
        net_with(Augmentation(), "float32").compile(IMAGES, "test", view=3)


@pytest.mark.parametrize("images_per_crop", [1, 4])
def test_training_crops_at_random(net_with, images_per_crop):
    net = net_with(Augmentation(images_per_crop))
    for step in (0, 1):
        expected = ops.image.image_forward(np.moveaxis(PIXELS, -1, 0), MEAN, np.array([step]), True, 0, images_per_crop, **keys())
        assert np.array_equal(trained_on(net, step), expected)


@pytest.mark.parametrize(("rule", "scale"), [("program", 1 / 1.5), ("paper", 1)])
def test_colour_noise_follows_the_formula(net_with, rule, scale):
    net = net_with(Augmentation(color_noise=0.5, rule=rule, color_pca=PCA))
    stdevs = np.sqrt((PCA**2).sum(axis=0))
    vectors = PCA / stdevs  # the eigenvectors are its columns
    plain = trained_on(net_with(Augmentation()), 4)
    normals = ops.image.draws(IMAGES, np.array([4]), **keys())[2][:3]
    noise = vectors @ (normals * stdevs[:, None]) if rule == "program" else vectors @ (normals * stdevs[:, None] ** 2 / 255)
    np.testing.assert_allclose(trained_on(net, 4), scale * (plain + 0.5 * noise[:, None, None, :]), rtol=1e-5, atol=1e-4)


def test_noise_is_as_strong_as_asked_for():
    normals = ops.image.draws(20000, np.array([0]), **keys())[2]
    assert abs(np.cov(normals) - np.eye(4)).max() < 0.05 and abs(normals.mean(axis=1)).max() < 0.03


def test_an_odd_border_is_one_wider_right_and_below():
    provider = open_provider("cifar", DIGITS, inner_size=5)
    whole = open_provider("cifar", DIGITS)
    assert provider.shapes[0] == (1, 5, 5) and provider.crop_border == 1 and provider.stored == (1, 8, 8)
    assert np.array_equal(provider.mean, whole.mean[:, 1:6, 1:6])


def test_training_on_an_odd_border_sees_the_mean_of_the_centre(place):
    costs = logprobs(place.train("--inner-size", "5", "--save-path", "odd"))
    assert costs[-1] < costs[0]
    assert contents("odd")[1]["data.mean"].shape == (1, 5, 5)
    assert "batch 6: logprob: " in place.resume("odd", "--test-only")


# ---- principal components -------------------------------------------------------------------------------


def test_components_are_those_of_numpy():
    for size in (1, 2, 3, 4):
        for _ in range(20):
            root = RNG.standard_normal((size, size)) * RNG.uniform(0.1, 100, size)
            covariance = root @ root.T
            found = principal_components(covariance.tolist())
            np.testing.assert_allclose(found @ found.T, covariance, rtol=1e-9, atol=1e-9 * np.abs(covariance).max())
            np.testing.assert_allclose((found**2).sum(axis=0), np.linalg.eigvalsh(covariance)[::-1], rtol=1e-6, atol=1e-9 * np.abs(covariance).max())
            assert (found[np.abs(found).argmax(axis=0), range(size)] > 0).all()


def test_one_colour_has_one_component():
    assert np.array_equal(principal_components([[4.0, 0, 0], [0, 0, 0], [0, 0, 9.0]]), [[0, 2, 0], [0, 0, 0], [3, 0, 0]])


def test_sums_of_colours_are_exact():
    pixels = RNG.integers(0, 256, (3, 2**14 + 17), np.uint8)
    sums = ColorSums(3)
    sums.add(pixels[:, :100])
    rest = ColorSums(3)
    rest.add(pixels[:, 100:])
    sums.merge(rest)
    whole = pixels.astype(np.int64)
    assert sums.pixels == 2**14 + 17 and sums.sums == whole.sum(axis=1).tolist() and sums.products == (whole @ whole.T).tolist()
    np.testing.assert_allclose(sums.covariance(), np.cov(whole, bias=True), rtol=1e-12)


def test_components_of_batches_are_those_of_their_pixels():
    pca = color_pca_of(open_provider("cifar", DIGITS), [1, 2])
    pixels = np.concatenate([open_provider("cifar", DIGITS).read(number).data[0] for number in (1, 2)], axis=-1)
    assert pca.shape == (1, 1) and pca[0, 0] == pytest.approx(pixels.std())


def test_floats_are_not_cropped(place, tmp_path):
    pixels = RNG.random((64, 20)).astype(np.float32)
    np.savez(tmp_path / "batches.meta.npz", num_vis=64, label_names=[str(label) for label in range(10)])
    np.savez(tmp_path / "data_batch_1.npz", data=pixels, labels=np.zeros(20, int))
    place.train("--data-path", str(tmp_path), "--train-range", "1", "--test-range", "1", "--crop-border", "1", code=2)
    assert "--crop-border, --inner-size: only images of uint8 pixels are cropped; those of cifar are float32" in place.told


# ---- convnet-train ------------------------------------------------------------------------------------------


def test_a_resumed_run_with_colour_noise_has_the_bits_of_one_left_alone(place):
    words = ["--crop-border", "1", "--color-noise", "0.1", "--images-per-crop", "32", "--test-freq", "2"]
    whole = place.train(*words, "--save-path", "whole")
    first = place.train(*words, "--save-path", "parts", "--max-steps", "13")
    rest = place.resume("parts")
    assert logprobs(first + rest) == logprobs(whole)
    assert_same_bits("whole", "parts")
    assert contents("parts")[1]["data.color_pca"].shape == (1, 1)
    assert logprobs(place.train("--crop-border", "1", "--images-per-crop", "32")) != logprobs(whole)


@pytest.mark.parametrize(("words", "told"), {
    "strength": (["--color-noise", "-1"], r"--color-noise -1\.0: expected 0 or more"),
    "infinite": (["--color-noise", "inf"], "--color-noise inf: expected a number"),
    "no number": (["--color-noise", "much"], "--color-noise much: expected a number"),
    "rule": (["--color-noise", "0.1", "--noise-rule", "caffe"], "--noise-rule caffe: expected program or paper"),
    "images": (["--images-per-crop", "0"], "--images-per-crop 0: expected 1 or more"),
    "values": (["--data-provider", "dummy-lr-64", "--color-noise", "0.1"], "--color-noise: only images of uint8 pixels have colours; those of dummy-lr-64 are float32"),
    "no crops of values": (["--data-provider", "dummy-lr-64", "--inner-size", "6"], "--inner-size: dummy-lr-64 has values, not pixels; leave it out"),
    "channels": (["--data-provider", "dummy:5x8x8", "--color-noise", "0.1"], "the images of dummy:5x8x8 have 5 channels, expected at most 4"),
}.values())  # fmt: skip
def test_what_augmentation_cannot_be_is_told(place, words, told):
    place.train(*words, code=2)
    assert re.search(told, place.told)
