"""The original programs' command lines: what they meant, they mean."""
from __future__ import annotations

import io
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convnet
from convnet import checkpoint
from convnet.cli.original import WITHOUT_MEANING, spelled_flags
from convnet.data import open_provider
from convnet.errors import CommandLineError
from convnet.legacy import read_pickle
from convnet.legacy.writing import write_pickle
from workplace import (
    CONV,
    DATA,
    DIGITS,
    HEAD,
    NUMBER,
    RATES,
    TINY,
    assert_same_bits,
    contents,
    logprobs,
    params,
)

OLD = [f"--data-path={DIGITS}", "--data-provider=cifar", "--train-range=1-5", "--test-range=6", "--mini=50", "--epochs=1", "--test-freq=13"]


def costs_of(out: str) -> list[str]:
    """The numbers of the tests in what a run prints."""
    return re.findall(rf"^logprob:  ({NUMBER}, {NUMBER})", out, re.M)


# ---- spellings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "expected"), {
    "--plan": "--plan", "--plan=1": "--plan", "--plan 1": "--plan", "--plan true layers.cfg": "--plan layers.cfg", "--plan layers.cfg": "--plan layers.cfg",
    "--plan=0": "--no-plan", "--plan 0": "--no-plan", "--conserve=1": "--conserve-mem", "--check 0 --mini 1": "--no-check-grads --mini 1",
    "--mini=1 1": "--mini=1 1", "--test=1": "--test=1", "--plan=0 0": "--no-plan 0",
}.items())  # fmt: skip
def test_flags_have_values_as_all_options_of_the_originals(words, expected):
    assert spelled_flags(words.split()) == expected.split()


def test_a_flag_is_0_or_1():
    with pytest.raises(CommandLineError, match="--check-grads=2: expected 0 or 1"):
        spelled_flags(["--check-gr=2"])


def test_a_command_line_of_2011(place):
    new = place.run("layers.cfg", "params.cfg", *OLD, "--save-path", "new", "--backend", "host", files=False)
    old = place.run(*OLD, "--save-path=old", "--layer-def=layers.cfg", "--layer-params=params.cfg", "--test-only=0", "--gpu=0", "--conserve-mem=0",
                    "--backend=host", *(f"--{name}=0" for name in WITHOUT_MEANING), files=False)
    assert logprobs(new) == logprobs(old) and len(logprobs(new)) == 5
    assert_same_bits("new", "old")
    for name, why in WITHOUT_MEANING.items():
        assert place.told.count(f"--{name} is ignored: {why}") == 1


def test_the_folder_of_both_files(place):
    Path("below").mkdir()
    for name in ("layers.cfg", "params.cfg"):
        Path(name).rename(Path("below", name))
    assert place.run(*OLD, "--layer-path=below", "--layer-def=layers.cfg", "--layer-params=params.cfg", "--max-steps=1", "--backend=host", files=False)
    place.run(*OLD, "below/layers.cfg", "--layer-def=layers.cfg", files=False, code=2)
    assert "--layer-def layers.cfg: expected no config file beside it, found below/layers.cfg" in place.told


@pytest.mark.parametrize("name", ["dummy-cn-64", "dummy-ce-64", "dummy-labeled-64", "dummy-lr-64"])
def test_the_random_providers_of_the_originals(place, name):
    place.run("--data-provider", name, "--max-steps", "1", "--backend", "host")


# ---- going on ------------------------------------------------------------------------------------------


def test_params_are_read_again_when_a_run_goes_on(place):
    place.train("--save-path", "saved", "--max-steps", "6")
    before = contents("saved")[1]
    place.run("-f", "saved", "--max-steps", "6", files=False)
    assert "has changed" not in place.told
    assert (contents("saved")[1]["conv1.W0"] != before["conv1.W0"]).any()
    text = Path("params.cfg").read_text()
    Path("params.cfg").write_text(text.replace("epsW=0.02", "epsW=0", 1) + "[convnet-train]\ntest-freq=7\n")
    before = contents("saved")[1]
    out = place.run("--load-file=saved", "--max-steps=6", files=False)
    assert re.search(r"/params.cfg has changed since the checkpoint was written: its params are used", place.told)
    after = contents("saved")[1]
    assert (after["conv1.W0"] == before["conv1.W0"]).all() and (after["fc9.W0"] != before["fc9.W0"]).any()
    assert "test-freq     : 7" in out
    Path("params.cfg").unlink()
    place.run("-f", "saved", "--max-steps", "6", files=False)  # those of the checkpoint
    assert (contents("saved")[1]["conv1.W0"] == before["conv1.W0"]).all()
    Path("gentle.cfg").write_text(text)
    place.run("-f", "saved", "--layer-params=gentle.cfg", "--max-steps=6", files=False)
    assert (contents("saved")[1]["conv1.W0"] != before["conv1.W0"]).any()


def test_a_run_in_a_folder_of_its_own_goes_on(place):
    place.train("--save-file", "here", "--max-steps", "6")
    place.train("--save-file", "here", "--max-steps", "6")
    place.train("--save-path", "whole", "--max-steps", "12")
    header, tensors = checkpoint.load(checkpoint.newest_valid("here")[0])
    assert header["position"]["step"] == 12
    assert all((values == tensors[name]).all() for name, values in contents("whole")[1].items())


# ---- tests ---------------------------------------------------------------------------------------------


def test_one_batch_at_a_time(place):
    """The costs of each test are those of one batch; the averages are over as many as there are, also after a resume."""
    words = ["--test-range", "2-4", "--test-freq", "2", "--epochs", "2"]
    out = place.train(*words, "--save-path", "one", "--test-one", "1")
    every = place.train(*words, "--save-path", "all", "--test-one", "0")
    assert_same_bits("one", "all")
    ones = costs_of(out)
    assert len(costs_of(every)) == 5 and len(ones) == 10 and out.count("Averages") == 5
    tests = [tuple(map(float, text.split(", "))) for text in ones]
    for k in range(5):
        recent = [tests[2 * i] for i in range(max(0, k - 2), k + 1)]  # all batches have 300 images
        np.testing.assert_allclose(tests[2 * k + 1], np.mean(recent, axis=0), atol=2e-6)
    single = place.train("--test-range", "4", "--test-freq", "2", "--epochs", "2")
    assert costs_of(single)[2] == ones[4] and costs_of(single)[0] != ones[0]  # the third test is of the third batch

    parts = place.train(*words, "--save-path", "parts", "--test-one=1", "--max-steps", "24")
    parts += place.run("--resume", "parts", files=False)
    assert costs_of(parts) == ones
    out = place.run("--resume", "parts", "--test-only=1", files=False)
    assert "batch 2: " in out and "batch 3: " not in out
    assert "mean over one batch of the test range" in out


def test_predictions_are_written(place):
    place.train("--save-path", "saved", "--epochs", "1")
    out = place.run("-f", "saved", "--test-only=1", "--test-out=preds", "--logreg-name=logprob", "--test-range=5-6", files=False)
    for number, images in ((5, 300), (6, 297)):
        record = read_pickle(Path(f"preds/test_preds_{number}"))
        assert record["data"].shape == (images, 10) and record["data"].dtype == np.float32
        assert record["note"] == "generated from saved"
        batch = open_provider("cifar", DIGITS).read(number)
        with convnet.load("saved", "host") as net:
            np.testing.assert_array_equal(record["data"], net.predict(batch.data[0]).T)
        wrong = (record["data"].argmax(axis=1) != batch.data[1].ravel()).mean()
        assert f"batch {number}: " in out and f"{wrong:.6f} ({images} images)" in out
    place.run("-f", "saved", "--test-only", "--test-out=preds", "--logreg-name=logprop", files=False, code=2)
    assert "--logreg-name logprop: no such cost; expected one of logprob" in place.told


def test_ten_views_are_averaged(place):
    place.train("--save-path", "saved", "--epochs", "2", "--crop-border", "1")
    out = place.run("-f", "saved", "--test-only=1", "--multiview-test=1", "--logreg-name=logprob", "--test-out=preds", "--test-range=5-6", files=False)
    probs, wrong, costs = [], [], []
    for number, images in ((5, 300), (6, 297)):
        batch = open_provider("cifar", DIGITS).read(number)
        labels = batch.data[1].ravel().astype(int)
        with convnet.load("saved", "host") as net:
            probs = net.predict(batch.data[0], multiview=True)
        np.testing.assert_array_equal(read_pickle(Path(f"preds/test_preds_{number}"))["data"], probs.T)
        wrong.append((probs.argmax(axis=0) != labels).sum())
        costs.append(-np.log(probs[labels, range(images)].astype(float)).sum())
        assert f"batch {number}: logprob:  {costs[-1] / images:.6f}, {wrong[-1] / images:.6f} ({images} images)" in out
    assert out.splitlines()[-1] == f"logprob:  {sum(costs) / 597:.6f}, {sum(wrong) / 597:.6f} (mean over the test range, 10 views of each image)"
    place.run("-f", "saved", "--multiview-test=1", "--max-steps=1", files=False)
    assert "tests while training see the centre of each image" in place.told


# ---- features ------------------------------------------------------------------------------------------

LEARNER = DATA + HEAD.format("data")


def test_features_are_batches_that_a_net_is_trained_on(place):
    place.train("--save-path", "saved", "--epochs", "2")
    out = place.run("-f", "saved", "--write-features=pool1", "--feature-path=features", "--test-range=1-6", files=False)
    assert out.splitlines()[-6:] == [f"Wrote feature file features/data_batch_{n}" for n in range(1, 7)]
    source, features = open_provider("cifar", DIGITS), open_provider("cifar", "features")
    assert features.stored == (6, 4, 4) and features.numbers == [1, 2, 3, 4, 5, 6] and features.mean is None
    assert features.class_names == list("0123456789")
    with convnet.load("saved", "host") as net:
        for number in (1, 6):
            pixels, labels = features.read(number).data
            np.testing.assert_array_equal(pixels, net.acts("pool1", source.read(number).data[0]))
            np.testing.assert_array_equal(labels, source.read(number).data[1])
    record = read_pickle(Path("features/data_batch_6"))
    assert record["data"].shape == (297, 96) and record["labels"].shape == (1, 297) and record["labels"].dtype == np.float32
    assert read_pickle(Path("features/batches.meta"))["num_vis"] == 96

    place.write(LEARNER)
    out = place.run("--data-path", "features", "--train-range", "1-5", "--test-range", "6", "--epochs", "3", "--backend", "host")
    assert float(costs_of(out)[-1].split(", ")[1]) < 0.2


def test_as_many_features_as_images_are_rows(tmp_path):
    square = np.arange(16, dtype=np.float32).reshape(4, 4)
    write_pickle(tmp_path / "batches.meta", {"num_vis": 4, "img_channels": 1, "img_height": 2, "img_width": 2})
    for number, more in ((1, {}), (2, {"source_model": "saved"})):
        write_pickle(tmp_path / f"data_batch_{number}", {"data": square, "labels": [0, 1, 2, 3], **more})
    provider = open_provider("cifar", tmp_path)
    columns, rows = (provider.read(number).data[0].reshape(4, 4) for number in (1, 2))
    assert (columns == square).all() and (rows == square.T).all()


@pytest.mark.parametrize(("words", "code", "message"), [
    (["--write-features=conv9", "--feature-path=f", "-f", "saved"], 2, "no layer conv9; expected one of conv1, conv1_neuron"),
    (["--write-features=conv1", "--feature-path=f"], 2, "--write-features needs --resume DIR"),
    (["--write-features=conv1", "-f", "saved"], 2, "--write-features LAYER needs --feature-path DIR"),
    (["--write-features=conv1", "--feature-path=params.cfg/f", "-f", "saved"], 74, "params.cfg/f/data_batch_6: cannot write: Not a directory"),
    (["--logreg-name=logprob", "-f", "saved"], 2, "--logreg-name logprob: says which cost --test-out DIR writes; expected that too"),
])
def test_what_features_need(place, words, code, message):
    place.train("--save-path", "saved", "--max-steps", "1")
    place.run(*words, files=False, code=code)
    assert message in place.told


def test_pickles_are_those_of_python_2(tmp_path):
    """Our inert reader and Python's own read back what is written, and no name of a newer numpy is in it."""
    record = {"data": np.arange(6, dtype=np.float32).reshape(2, 3), "bytes": np.arange(3, dtype=np.uint8), "doubles": np.array([1.5]), "names": ["cat", "dog"],
              "note": "text", "number": -7, "mean": 0.25, "empty": np.zeros((0, 4), np.float32), "none": []}
    write_pickle(tmp_path / "file", record)
    raw = (tmp_path / "file").read_bytes()
    assert b"numpy._core" not in raw and raw[:2] == b"\x80\x02" and [path.name for path in tmp_path.iterdir()] == ["file"]
    for read in (read_pickle(tmp_path / "file"), pickle.loads(raw, encoding="latin1")):
        assert read.keys() == record.keys()
        for name, value in record.items():
            np.testing.assert_array_equal(read[name], value)
            assert getattr(read[name], "dtype", None) == getattr(value, "dtype", None)
    with pytest.raises(TypeError, match="set: expected text, a number"):
        write_pickle(tmp_path / "other", {"a": set()})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ---- pixels --------------------------------------------------------------------------------------------


def test_a_number_instead_of_the_mean_image(place):
    place.train("--save-path", "mean", "--max-steps", "2")
    place.train("--save-path", "scalar", "--max-steps", "2", "--scalar-mean=4.5", "--crop-border=1")
    place.train("--save-path", "none", "--max-steps", "2", "--scalar-mean=-1")
    assert_same_bits("mean", "none")
    assert (contents("scalar")[1]["data.mean"] == 4.5).all() and contents("scalar")[1]["data.mean"].shape == (1, 6, 6)
    place.run("-f", "scalar", "--max-steps", "1", files=False)
    assert (contents("scalar")[1]["data.mean"] == 4.5).all()
    place.run("-f", "scalar", "--max-steps", "1", "--scalar-mean=-1", files=False)
    assert (contents("scalar")[1]["data.mean"] == contents("mean")[1]["data.mean"][:, 1:7, 1:7]).all()
    place.run("--data-provider", "dummy-lr-64", "--scalar-mean=1", code=2)
    assert "--scalar-mean: dummy-lr-64 has values, not pixels" in place.told


def test_the_side_of_the_crops(place):
    place.train("--save-path", "border", "--crop-border", "1", "--max-steps", "3")
    place.train("--save-path", "side", "--inner-size=6", "--max-steps", "3")
    assert_same_bits("border", "side")
    place.run("-f", "side", "--max-steps", "3", files=False)
    for words, message in ((["--inner-size=9"], "--inner-size 9: the images of cifar are 8 x 8, expected 1 to 8"),
                           (["--inner-size=6", "--crop-border=1"], "--inner-size 6: expected no --crop-border beside it")):
        place.train(*words, code=2)
        assert message in place.told


# ---- batches of JPEG strings -----------------------------------------------------------------------------

TREEFC = DATA + """\
[tree]
type=treefc
inputs=data
initW=0.001
[probs]
type=softmax
inputs=tree
[logprob]
type=cost.logreg
inputs=labels,probs
"""
SEVERAL = DATA + """\
[fc9]
type=fc
inputs=data
outputs=4
initW=0.001
neuron=logistic
[logprob]
type=cost.crossent2
inputs=labels,fc9
"""


@pytest.mark.parametrize("layers", [TREEFC, SEVERAL], ids=["a tree of classes", "several classes an image"])
def test_batches_of_the_2012_program_train_its_nets(place, layers):
    """Pictures of one colour a class, in JPEG strings; classes 0 and 1 below node 5, 2 and 3 below 6, all below 9."""
    colours, rng = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [220, 220, 40]]), np.random.default_rng(0)
    for number in (1, 2):
        classes = rng.integers(0, 4, 40)
        pictures = []
        for label in classes:
            file = io.BytesIO()
            Image.fromarray((colours[label] + rng.integers(-20, 20, (8, 8, 3))).astype(np.uint8)).save(file, "JPEG")
            pictures.append(file.getvalue())
        Path(f"data_batch_{number}").write_bytes(pickle.dumps((pictures, [(8, 8)] * 40, [[int(label)] for label in classes]), 2))
    write_pickle(Path("batches.meta"), {"num_vis": 192, "data_mean": np.full((192, 1), 110.0), "label_names": list("abcd"), "batch_size": 40,
                                        "tree": {9: [5, 6], 5: [0, 1], 6: [2, 3]}, "all_wnids": {"gproot": 9}})
    place.write(layers)
    Path("params.cfg").write_text(f"[{'tree' if layers is TREEFC else 'fc9'}]\n{RATES.replace('0.02', '0.0005')}[logprob]\n")
    out = place.run("--data-path=.", "--data-provider=inet-lr-cropped-jpeg", "--crop-border=1", "--train-range=1", "--test-range=2", "--mini=20", "--epochs=15",
                    "--backend=host")
    last = re.findall(r"^logprob:  (.*)$", out, re.M)[-1].split(", ")
    assert float(last[1]) < 0.05  # wrong classes, or wrong outputs


# ---- weights of their own ------------------------------------------------------------------------------

def test_a_conv_layer_becomes_local_and_computes_the_same(place):
    for start in ("checkpoint", "new"):
        if start == "checkpoint":
            place.train("--save-path", "conv", "--max-steps", "6")
            shared, own = contents("conv")[1], ["-f", "conv"]
        else:
            own = ["layers.cfg", "params.cfg", f"--data-path={DIGITS}", "--train-range=1-5", "--test-range=6", "--mini=50", "--backend=host"]
        first = place.run(*own, "--save-path", f"conv-{start}", "--max-steps=1", files=False)
        out = place.run(*own, "--save-path", f"local-{start}", "--conv-to-local=conv1", "--max-steps=1", files=False)
        assert "Initialized locally-connected layer 'conv1'" in out
        np.testing.assert_allclose(*([float(re.search(r"images: logprob:  ([\d.]+)", text)[1])] for text in (first, out)), rtol=1e-5)
    tensors = contents("local-checkpoint")[1]
    assert tensors["conv1.W0"].shape == (64, 1, 3, 3, 6) and tensors["conv1.b"].shape == (384,)
    assert np.ptp(tensors["conv1.W0"], axis=0).any()  # a step on, the pixels have gone their own ways
    frozen = params(TINY, rates=RATES.replace("0.02", "0"))
    Path("still.cfg").write_text(frozen)
    place.run("-f", "conv", "--save-path", "still", "--layer-params=still.cfg", "--conv-to-local=conv1", "--max-steps=1", files=False)
    still = contents("still")[1]
    assert all((still["conv1.W0"][pixel] == shared["conv1.W0"]).all() for pixel in range(64))
    assert (still["conv1.b"].reshape(6, 64) == shared["conv1.b"][:, None]).all() and not still["conv1.W0.inc"].any()
    assert (still["fc9.W0.inc"] == shared["fc9.W0.inc"]).all()
    place.run("-f", "local-checkpoint", "--max-steps=1", files=False)  # as a local layer
    assert contents("local-checkpoint")[1]["conv1.W0"].shape == (64, 1, 3, 3, 6)
    with convnet.load("local-checkpoint", "host") as net:
        assert net.acts("conv1", open_provider("cifar", DIGITS).read(6).data[0]).shape == (6, 8, 8, 297)


SHARING = (DATA + CONV.format(name="conv1", inputs="data", gpu=0) + CONV.format(name="conv2", inputs="conv1,conv1", gpu=0)
           + CONV.format(name="conv3", inputs="conv2,conv2", gpu=0).replace("initW", "weightSource=conv2,conv3[0]\ninitW") + HEAD.format("conv3"))


@pytest.mark.parametrize(("unshare", "left"), [("conv3", {}), ("conv3[1]", {"conv3.W0": "conv2.W0"}), ("conv3[0]", {"conv3.W1": "conv3.W0"})])
def test_weights_are_shared_no_more(place, unshare, left):
    place.write(SHARING, rates=RATES.replace("0.02", "0.002"))
    place.train("--save-path", "shared", "--max-steps", "3")
    before = contents("shared")[1]
    assert "conv3.W0" not in before
    Path("still.cfg").write_text(params(SHARING, rates=RATES.replace("0.02", "0")))
    place.run("-f", "shared", "--save-path", "still", "--layer-params=still.cfg", f"--unshare-weights={unshare}", "--max-steps=1", files=False)
    place.run("-f", "shared", "--save-path", "own", f"--unshare-weights={unshare}", "--max-steps=2", files=False)
    still, after = contents("still")[1], contents("own")[1]
    for name in ("conv3.W0", "conv3.W1"):
        assert (name in after) == (name not in left)
        if name in after:
            assert (still[name] == before["conv2.W0"]).all() and (still[f"{name}.inc"] == before["conv2.W0.inc"]).all()
            assert (after[name] != after["conv2.W0"]).any()


@pytest.mark.parametrize(("word", "message"), [
    ("--conv-to-local=fc9", "--conv-to-local fc9: a layer of type fc, expected conv"),
    ("--conv-to-local=conv9", "--conv-to-local conv9: no layer conv9 in this net; did you mean conv1?"),
    ("--unshare-weights=conv1", "--unshare-weights conv1: no shared weights there; expected a layer with weightSource"),
    ("--unshare-weights=conv1[x]", "--unshare-weights conv1[x]: expected a layer, or one of its inputs, as conv2[0]"),
    ("--unshare-weights=fc8", "--unshare-weights fc8: no layer fc8 in this net; did you mean fc9?"),
])
def test_weights_that_cannot_be_untied(place, word, message):
    place.train(word, code=2)
    assert message in place.told
