"""convnet-test and convnet.testing: views, averages, scores."""
from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import convnet
from convnet.cli.test import main
from convnet.cli.test import test as run
from convnet.data import open_provider
from convnet.errors import CommandLineError, DataError
from convnet.testing import Score, error_of, fit_weights, labels_of, predictions
from workplace import DIGITS, TINY, Workplace, contents, newest, params

# ---- scores and weights -----------------------------------------------------------------------------------------------


def test_errors_count_ties_as_the_cost_does():
    probs = np.array([[0.5, 0.4, 0.25, 0.0], [0.3, 0.4, 0.25, 0.5], [0.2, 0.2, 0.25, 0.5], [0, 0, 0.25, 0]], np.float32)
    labels = np.array([1, 0, 2, 3])
    assert error_of(probs, labels).tolist() == [1, 0.5, 0.75, 1]
    assert error_of(probs, labels, 2).tolist() == [0, 0, 0.5, 1]
    assert error_of(probs, labels, 3).tolist() == [0, 0, 0.25, 0.5]  # of the classes at 0 one of two finds room


def test_scores_are_those_of_the_op():
    rng = np.random.default_rng(3)
    probs = (rng.integers(0, 4, (6, 200)) / 8).astype(np.float32)  # many ties
    labels = rng.integers(0, 6, 200)
    probs[labels, range(200)] += np.float32(1 / 8)  # nothing is -log 0
    for k in (2, 3):
        score = Score(6, k)
        score.add(probs, labels)
        costs = convnet.ops("host").logreg_forward(labels.reshape(1, 1, 1, -1).astype(np.float32), probs.reshape(6, 1, 1, -1), topk=k)
        np.testing.assert_allclose(score.sums, costs, rtol=1e-6)


def test_a_score_is_summed_over_batches():
    rng = np.random.default_rng(1)
    probs, labels = rng.dirichlet(np.ones(7), 40).T.astype(np.float32), rng.integers(0, 6, 40)
    whole, parts = Score(7, 3), Score(7, 3)
    whole.add(probs, labels)
    for part in (slice(0, 11), slice(11, 40)):
        parts.add(probs[:, part], labels[part])
    means = whole.means()
    assert list(means) == ["logprob", "top-1 error", "top-3 error"] and means == pytest.approx(parts.means())
    assert means["logprob"] == pytest.approx(-np.log(probs[labels, range(40)]).mean(), rel=1e-6)
    assert means["top-1 error"] == np.mean(probs.argmax(0) != labels)
    confusion = parts.confusion()
    assert confusion.sum() == 40 and (confusion.sum(1) == parts.images_of).all() and parts.images_of[6] == 0
    assert (confusion.sum(1) - np.diag(confusion) == parts.errors_of).all()
    label, other, images = parts.confusions()[0]
    np.fill_diagonal(confusion, 0)
    assert confusion[label, other] == images == confusion.max()


def test_a_top_k_error_of_all_classes_is_not_told():
    score = Score(5, 5)
    score.add(np.eye(5, dtype=np.float32), np.arange(5))
    assert list(score.means()) == ["logprob", "top-1 error"]


def test_fitted_weights_have_the_least_logprob():
    """Against a grid of the simplex; two nets are noisy copies of the truth, one knows nothing."""
    rng = np.random.default_rng(2)
    probs = np.stack([rng.beta(4, 2, 500), rng.beta(3, 2, 500), rng.beta(1, 9, 500)])
    weights = fit_weights(probs)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    grid = [np.array([a, b, 50 - a - b]) / 50 for a in range(51) for b in range(51 - a)]
    least = min(-np.log(each @ probs).mean() for each in grid)
    assert -np.log(weights @ probs).mean() <= least + 1e-7
    assert weights[2] < 1e-3


def test_fitted_weights_of_equal_nets_are_equal_and_zeros_do_no_harm():
    probs = np.array([[0.5, 0.0, 0.2], [0.5, 0.0, 0.2]])
    assert fit_weights(probs).tolist() == [0.5, 0.5]
    assert fit_weights(np.zeros((2, 3))).tolist() == [0.5, 0.5]
    assert fit_weights(np.array([[0.0, 0.0], [0.5, 0.5]]))[1] == pytest.approx(1, abs=1e-6)


# ---- views ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Small nets on the digits: two on crops, with seeds 1 and 2, one on whole images."""
    folder = tmp_path_factory.mktemp("runs")
    from convnet.cli.train import train
    (folder / "layers.cfg").write_text(TINY)
    (folder / "params.cfg").write_text(params(TINY, logprob="topk=3\n"))
    for name, *words in (("one", "--crop-border", "1"), ("two", "--crop-border", "1", "--seed", "2"), ("whole",)):
        train([str(folder / "layers.cfg"), str(folder / "params.cfg"), "--data-path", str(DIGITS), "--train-range", "1-5", "--test-range", "6", "--mini", "50",
               "--epochs", "2", "--backend", "host", "--save-path", str(folder / name), *words])
    return folder


def report(capsys, *words: str) -> dict:
    capsys.readouterr()
    assert run([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_centre_view_has_the_costs_of_the_runs_own_test(runs, capsys):
    found = report(capsys, str(runs / "one"), "--topk", "3")
    assert list(found["scores"]["0"]["centre"].values()) == pytest.approx(contents(str(runs / "one"))[0]["test"]["logprob"], rel=1e-6)
    assert found["images"] == 297 and found["batches"] == "6" and list(found["scores"]) == ["0"]


def test_views_are_crops_and_mirror_images_averaged(runs, capsys):
    images, labels = open_provider("cifar", DIGITS).read(6).data
    with convnet.load(runs / "one", "host") as net:
        crops = [images[:, top : top + 6, left : left + 6][:, :, ::step] for step in (1, -1) for top, left in ((1, 1), (0, 0), (0, 2), (2, 0), (2, 2))]
        padded = [np.pad(crop, ((0, 0), (1, 1), (1, 1), (0, 0))) for crop in crops]  # whose centre is the crop
        expected = np.mean([net.predict(each) for each in padded], axis=0)
        probs = net.predict(images, multiview=True)
        np.testing.assert_allclose(probs, expected, rtol=1e-5)
        np.testing.assert_array_equal(net.acts("probs", images, 8), net.acts("probs", padded[8]))
        with pytest.raises(ValueError, match="view 10, expected 0 to 9"):
            net.acts("probs", images, 10)
        for each, whole in zip(net.predict_views(images), (net.predict(images), probs), strict=True):
            np.testing.assert_array_equal(each, whole)
        assert np.abs(probs - net.predict(images)).max() > 0.1
    found = report(capsys, str(runs / "one"), "--multiview-test")
    assert found["views"] == [10] and list(found["scores"]["0"]) == ["centre", "all views"]
    assert found["scores"]["0"]["all views"]["top-1 error"] == pytest.approx(np.mean(expected.argmax(0) != labels.ravel()))


def test_a_net_of_whole_images_has_one_view(runs, capsys):
    assert run([str(runs / "whole"), "--multiview-test", "--json"]) == 0
    out, told = capsys.readouterr()
    assert told.endswith("trained on whole images, without crops: it has a single view, which is used\n")
    scores = json.loads(out)["scores"]["0"]
    assert scores["centre"] == scores["all views"]


# ---- averages ------------------------------------------------------------------------------------------------------


def test_nets_are_averaged(runs, capsys, tmp_path):
    names = [str(runs / name) for name in ("one", "two", "whole")]
    found = report(capsys, *names, "--weights", "2,1,1", "--predictions", str(tmp_path / "a.npz"))
    assert found["weights"] == [0.5, 0.25, 0.25] and list(found["scores"]) == ["0", "1", "2", "average"]
    images, labels = open_provider("cifar", DIGITS).read(6).data
    probs = np.zeros((10, 297), np.float32)
    for name, weight in zip(names, (0.5, 0.25, 0.25), strict=True):
        with convnet.load(name, "host") as net:
            probs += weight * net.predict(images)
    with np.load(tmp_path / "a.npz") as saved:
        np.testing.assert_allclose(saved["probs"], probs, rtol=1e-5)
        assert (saved["labels"] == labels.ravel()).all() and (saved["images"] == np.arange(297)).all() and (saved["batches"] == 6).all()
        assert saved["class_names"].tolist() == [str(digit) for digit in range(10)] and saved["weights"].tolist() == [0.5, 0.25, 0.25]
    assert found["scores"]["average"]["centre"]["top-1 error"] == pytest.approx(np.mean(probs.argmax(0) != labels.ravel()))


def test_weights_are_found_on_other_batches(runs, capsys):
    names = [str(runs / "one"), str(runs / "two")]
    assert run([*names, "--fit-weights", "4-5", "--test-range", "5-6"]) == 0
    assert "warning: --fit-weights finds the weights on batches that are tested, 5: the average will look better" in capsys.readouterr().err
    fitted = report(capsys, *names, "--fit-weights", "4-5", "--test-range", "4-5")
    equal = report(capsys, *names, "--test-range", "4-5")
    assert fitted["weights"] != equal["weights"] and sum(fitted["weights"]) == pytest.approx(1)
    assert fitted["scores"]["average"]["centre"]["logprob"] <= equal["scores"]["average"]["centre"]["logprob"]


def test_the_order_of_batches_and_the_size_of_minibatches_do_not_matter(runs, capsys):
    few, many = (report(capsys, str(runs / "one"), "--test-range", numbers, "--mini", mini)["scores"]["0"]["centre"] for numbers, mini in (("1,6", "7"), ("6,1", "300")))
    assert few == pytest.approx(many, rel=1e-6)


# ---- what it prints and writes -----------------------------------------------------------------------------------------


def test_what_is_printed(runs, capsys):
    assert run([str(runs / "one"), str(runs / "two"), "--multiview-test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "297 images of the batches 6" and lines[1].split() == ["views", "logprob", "top-1", "error", "top-5", "error", "weight"]
    assert [line.split()[:2] for line in lines[2:8]] == [[name, views] for name in (str(newest(str(runs / "one"))), str(newest(str(runs / "two"))), "average")
                                                        for views in ("1", "10")]
    assert lines[2].endswith("0.5000") and lines[8].startswith("classes with the largest errors: ") and lines[9].startswith("taken for another most often: ")


def test_tables(runs, capsys, tmp_path):
    paths = {name: str(tmp_path / f"{name}.csv") for name in ("classes", "confusion", "predictions")}
    found = report(capsys, str(runs / "one"), "--per-class", paths["classes"], "--confusion", paths["confusion"], "--predictions", paths["predictions"], "--topk", "2")
    tables = {name: list(csv.reader(Path(path).read_text().splitlines())) for name, path in paths.items()}
    assert tables["classes"][0] == ["label", "class", "images", "errors", "error"] and len(tables["classes"]) == 11
    assert sum(float(row[3]) for row in tables["classes"][1:]) / 297 == pytest.approx(found["scores"]["0"]["centre"]["top-1 error"])
    confusion = np.array([row[1:] for row in tables["confusion"][1:]], int)
    assert tables["confusion"][0][1:] == [str(digit) for digit in range(10)] and confusion.sum() == 297
    header, *rows = tables["predictions"]
    assert header == ["batch", "image", "label", "class", "probability", "class1", "probability1", "class2", "probability2"] and len(rows) == 297
    assert all(float(row[6]) >= float(row[8]) for row in rows)
    assert np.mean([row[3] != row[5] for row in rows]) == pytest.approx(found["scores"]["0"]["centre"]["top-1 error"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.csv", "confusion.csv", "predictions.csv"]


def test_predictions_of_a_net_for_python(runs):
    with convnet.load(runs / "one", "host") as net:
        found = predictions(net, open_provider("cifar", DIGITS), [1, 6], layer="pool1")
        images = np.concatenate([open_provider("cifar", DIGITS).read(number).data[0] for number in (1, 6)], axis=-1)
        np.testing.assert_allclose(found.probs, net.predict(images), rtol=1e-5)
        np.testing.assert_allclose(found.acts, net.acts("pool1", images).reshape(-1, 597), rtol=1e-5)
        assert found.labels.shape == (597,) and predictions(net, open_provider("cifar", DIGITS), [6]).acts is None


def test_labels_may_be_vectors_of_one_class(runs):
    vectors = open_provider("cifar", DIGITS, label_kind="vector", net_classes=10).read(6)
    plain = open_provider("cifar", DIGITS).read(6)
    assert (labels_of(vectors) == plain.data[1].ravel()).all()
    vectors.data[1][:2, ..., 3] = 1
    with pytest.raises(DataError, match=r"batch 6: image 3 has [23] classes, expected one"):
        labels_of(vectors)


# ---- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "message"), [
    (["--weights", "1,2"], "expected 1 numbers of 0 or more"), (["--weights", "x"], "expected numbers such as"), (["--weights", "0"], "not all 0"),
    (["--weights", "1", "--fit-weights", "5"], "expected one of them"), (["--fit-weights", "7-8"], "--fit-weights 7-8: no batch 7; there are 1-6"),
    (["--predictions", "a.txt"], "expected a file name that ends in .csv or .npz"), (["--topk", "0"], "expected 1 or more"), (["--mini", "0"], "--mini 0: expected 1 or more"),
])
def test_words_that_make_no_sense(runs, words, message):
    with pytest.raises(CommandLineError, match=message):
        run([str(runs / "one"), *words])


def test_data_that_do_not_fit(runs):
    with pytest.raises(DataError, match=r"one/.*ckpt: images of shape \(3, 8, 8\) in dummy:3x8x8, but the net takes \(1, 8, 8\)"):
        run([str(runs / "one"), "--data-provider", "dummy:3x8x8"])


def test_nets_of_other_classes_are_not_averaged(runs, tmp_path, capsys, monkeypatch):
    place = Workplace(tmp_path, capsys, monkeypatch)
    place.write(TINY.replace("outputs=10", "outputs=11"))
    place.train("--save-path", "eleven", "--max-steps", "1")
    with pytest.raises(DataError, match="11 and 10 of them"):
        run([str(runs / "one"), "eleven"])


def test_a_net_without_classes_is_refused(tmp_path, capsys, monkeypatch):
    place = Workplace(tmp_path, capsys, monkeypatch)
    (tmp_path / "layers.cfg").write_text("[data]\ntype=data\ndataIdx=0\n[labels]\ntype=data\ndataIdx=1\n[fc]\ntype=fc\ninputs=data\noutputs=2\n"
                                         "[squares]\ntype=cost.sum2\ninputs=fc\n[one]\ntype=cost.sum2\ninputs=labels\n")
    (tmp_path / "params.cfg").write_text("[fc]\nepsW=0\nepsB=0\nmomW=0\nmomB=0\n[squares]\n[one]\n")
    place.train("--save-path", "saved", "--max-steps", "1")
    with pytest.raises(DataError, match=r"the net's cost squares is of type cost\.sum2, which tells no classes apart"):
        run(["saved"])


def test_files_that_cannot_be_written(runs, capsys):
    with pytest.raises(SystemExit) as left:
        main([str(runs / "one"), "--per-class", "nowhere/a.csv"])
    assert left.value.code == 73 and "nowhere/a.csv: No such file" in capsys.readouterr().err
