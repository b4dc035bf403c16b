"""A trained net by itself: convnet.load(CHECKPOINT)."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convnet
from convnet import checkpoint
from convnet.cli.train import main
from convnet.data import open_provider
from convnet.errors import DataError, MissingInput

DIGITS = Path(convnet.__file__).parent / "models" / "digits"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Where a digits net was trained for two epochs."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.raises(SystemExit) as left:
        main([*(str(DIGITS / name) for name in ("layers.cfg", "params.cfg")), "--epochs", "2", "--test-freq", "5", "--crop-border", "1",
              "--backend", "host", "--save-path", str(folder)])
    assert left.value.code == 0
    return folder


@pytest.fixture
def net(saved):
    with convnet.load(saved, "host") as net:
        yield net


@pytest.fixture(scope="module")
def batch():
    return open_provider("cifar", DIGITS / "data").read(6)


def test_predictions_have_the_error_that_the_test_had(saved, net, batch):
    images, labels = batch.data
    probs = net.predict(images)
    assert probs.shape == (10, 297) and probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(0), 1, rtol=1e-5)
    header, _ = checkpoint.load(next(saved.glob("*/2.5.ckpt")))
    logprob, error = header["test"]["logprob"]
    assert np.mean(probs.argmax(0) != labels.ravel()) == pytest.approx(error)
    assert -np.log(probs[labels.ravel().astype(int), range(297)]).mean() == pytest.approx(logprob, rel=1e-5)
    assert error < 0.7  # it has learnt something


def test_what_it_says_of_itself(net):
    assert net.shape == (1, 8, 8) and net.dtype == "uint8" and net.class_names == [str(digit) for digit in range(10)]


def test_an_image_alone_is_as_among_others(net, batch):
    images = batch.data[0]
    np.testing.assert_allclose(net.predict(images[..., 7]), net.predict(images)[:, 7:8], rtol=1e-5)


def test_acts_before_and_after_the_neuron(net, batch):
    images = batch.data[0][..., :5]
    before, after = net.acts("conv1", images), net.acts("conv1_neuron", images)
    assert before.shape == (32, 6, 6, 5)
    np.testing.assert_array_equal(np.maximum(before, 0), after)
    assert (before < 0).any()


def test_a_net_that_only_predicts_has_no_momenta(saved, net):
    _, tensors = checkpoint.load(next(saved.glob("*/2.5.ckpt")))
    assert "conv1.W0.inc" in tensors and "conv1.W0.inc" not in net.net.tensor_names()
    weights = sum(tensor.nbytes for name, tensor in tensors.items() if name.endswith((".W0", ".b")))
    taken = net.net.memory(net.net.plan(1, "test"))[0]["weights and momenta"]
    assert weights <= taken < 1.1 * weights


def test_all_backends_agree(saved, net, batch):
    images = batch.data[0][..., :3]
    with convnet.load(saved, "simt") as other:
        np.testing.assert_allclose(other.predict(images), net.predict(images), rtol=1e-4, atol=1e-7)


def test_a_folder_of_runs_a_run_and_a_file(saved, net, batch):
    images = batch.data[0][..., :3]
    for path in (next(saved.iterdir()), next(saved.glob("*/2.5.ckpt")), str(saved)):
        with convnet.load(path, "host") as same:
            np.testing.assert_array_equal(same.predict(images), net.predict(images))


def test_a_damaged_newest_gives_way_with_a_warning(saved, tmp_path):
    for path in saved.glob("*/*.ckpt"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "2.5.ckpt").write_bytes(b"PK\x03\x04")
    with pytest.warns(UserWarning, match=r"2.5.ckpt: truncated or damaged"), convnet.load(tmp_path, "host") as net:
        assert net.shape == (1, 8, 8)


def test_mistakes(net, saved, tmp_path, batch):
    images = batch.data[0]
    with pytest.raises(DataError, match=r"images of shape \(1, 6, 6, 297\), expected \(1, 8, 8, 'images'\)"):
        net.predict(images[:, 1:7, 1:7])
    with pytest.raises(DataError, match="one or more"):
        net.predict(images[..., :0])
    with pytest.raises(DataError, match=r"images of type float64, expected uint8"):
        net.predict(images / 16)
    with pytest.raises(ValueError, match=r"no layer conv3, expected one of conv1, conv1_neuron, .*did you mean conv"):
        net.acts("conv3", images)
    with pytest.raises(MissingInput, match="no valid checkpoint there"):
        convnet.load(tmp_path)
    checkpoint.save(tmp_path, "1.1.ckpt", {"of": "another program"}, {})
    with pytest.raises(DataError, match=r"1.1.ckpt: expected a checkpoint of convnet-train"):
        convnet.load(tmp_path)


def test_a_closed_net_says_so(saved, batch):
    with convnet.load(saved, "host") as net:
        pass
    with pytest.raises(ValueError, match="closed"):
        net.predict(batch.data[0])


def test_a_net_that_nobody_closes_ends_with_python(saved):
    program = f"import convnet, numpy; print(convnet.load({str(saved)!r}).predict(numpy.zeros((1, 8, 8), numpy.uint8)).shape)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(10, 1)\n", "")
