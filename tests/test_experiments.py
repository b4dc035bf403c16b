"""benchmarks/claims.py and revival.py: that they train what they say, and count right."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import claims  # noqa: E402
import recipes  # noqa: E402
import revival  # noqa: E402

from convnet.errors import CommandLineError, MissingInput  # noqa: E402
from workplace import DATA, HEAD, RATES  # noqa: E402


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """CIFAR-10's files with 12 images in each, whose class is a colour."""
    folder = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        labels = rng.integers(0, 10, 12)
        pixels = rng.integers(0, 30, (12, 3, 1024)) + np.stack([labels * 20, 200 - labels * 20, labels % 2 * 100], axis=1)[..., None]
        np.savez(folder / f"{name}.npz", data=pixels.reshape(12, 3072).astype(np.uint8), labels=labels)
    np.savez(folder / "batches.meta.npz", num_vis=3072, label_names=np.array([f"colour {i}" for i in range(10)]))
    return folder


def program(name: str, *words) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(BENCHMARKS / name), *map(str, words)], capture_output=True, text=True, timeout=300)


# ---- recipes -------------------------------------------------------------------------------------


def wiring(recipe) -> dict[str, str]:
    return {name: keys["inputs"] for name, keys in recipe.layers.items() if "inputs" in keys}


def data(path: Path | None = None):
    return claims.data_of(path and str(path), None, "host")


def test_a_layer_taken_out_is_bridged():
    two = data().recipe(columns=True)
    without = wiring(two.without("conv3a", "conv3b"))
    assert without["fc4a"] == without["fc4b"] == "pool2a,pool2b"
    assert wiring(two.without("conv1a", "conv1b"))["norm1b"] == "data"
    assert two.without("conv3a", "conv3b").layers["fc4a"]["outputs"] == "64"


def test_one_column_is_the_paper_s_one_gpu_net():
    one = claims.one_column(data().recipe(columns=True))
    assert wiring(one) == {"conv1a": "data", "norm1a": "conv1a", "conv2a": "norm1a", "pool2a": "conv2a", "conv3a": "pool2a", "fc4a": "conv3a",
                           "drop4a": "fc4a", "fc5": "drop4a", "probs": "fc5", "logprob": "labels,probs"}
    assert [one.layers[name].get("filters", one.layers[name].get("outputs")) for name in ("conv1a", "conv2a", "conv3a", "fc4a")] == ["16", "32", "128", "128"]
    assert "conv1b" not in one.params


def test_keys_are_changed_where_they_stand():
    base = data().recipe()
    changed = base.everywhere(wc=0, neuron="tanh[1,1]").changed("pool2", sizeX=2)
    assert {changed.params[name]["wc"] for name in ("conv1", "conv2", "fc3", "fc4")} == {"0"} and "wc" not in changed.params["norm1"]
    assert changed.layers["conv2"]["neuron"] == "tanh[1,1]" and "neuron" not in changed.layers["fc4"] and changed.layers["pool2"]["sizeX"] == "2"
    assert base.layers["pool2"]["sizeX"] == "3"


def test_centres_are_seen_by_who_saw_the_crops(cifar):
    base = data(cifar).recipe()
    centred = claims.centred(base, 4)
    assert wiring(centred) == wiring(base) | {"centre": "data", "conv1": "centre"}
    assert centred.words["crop_border"] == "0" and list(centred.layers)[:2] == ["data", "centre"]


def test_a_kitchen_trains_each_recipe_once(capfd):
    recipe = data().recipe().told(epochs=1)
    with recipes.Kitchen(2) as kitchen:
        first, second, again = kitchen.train([(recipe, 1, "a"), (recipe, 2, "a"), (recipe, 1, "a")])
        diverged, = kitchen.train([(recipe.everywhere(epsW=1e6), 1, "too fast")])
        assert first is again and first.path != second.path and first.path.exists()
        assert 0 < first.error <= 1 and diverged.path is None and diverged.error == 1
    assert not first.path.exists()
    assert capfd.readouterr().err.splitlines()[-1] == "too fast, seed 1: diverged"


# ---- claims --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "other", "difference", "verdict"), [
    ([0.10, 0.11, 0.12], [0.12, 0.13, 0.14], "+2.00 ± 0.00 points", "shows"),
    ([0.12, 0.13, 0.14], [0.10, 0.11, 0.12], "-2.00 ± 0.00 points", "the opposite"),
    ([0.10, 0.14, 0.12], [0.13, 0.11, 0.13], "+0.33 ± 1.76 points", "not at this size"),
    ([0.10], [0.13], "+3.00 ± nan points", "one seed: no verdict"),
])
def test_what_a_comparison_shows(ours, other, difference, verdict):
    row = claims.Row("x", ("a", "b"), (ours, other), "error", "", "")
    assert (row.difference, row.verdict) == (difference, verdict)


def test_epochs_are_compared_as_ratios():
    row = claims.Row("x", ("a", "b"), ([1.0, 2.0], [3.0, 6.0]), "epochs", "", "")
    assert row.difference == "3.00 times, to a factor of 1.00" and row.verdict == "shows" and row.column(0) == "1.50 ± 0.71 epochs"


def course(kind: str, costs: list[tuple[float, float]]) -> recipes.Trained:
    history = {"train": [], "test": []} | {kind: [(i / 5, {"logprob": list(cost)}) for i, cost in enumerate(costs, 1)]}
    return recipes.Trained(Path(), {"history": history}, 0.0)


def test_how_long_it_took():
    assert claims.first_below(course("train", [(2, 0.9), (1, 0.25), (1, 0.3), (1, 0.1)]), 0.25, 8) == pytest.approx(0.4)
    assert claims.first_below(course("train", [(2, 0.9), (1, 0.45), (1, 0.05)]), 0.25, 8) == pytest.approx(0.5)
    assert claims.first_below(course("train", [(2, 0.2)]), 0.25, 8) == pytest.approx(0.2)
    assert claims.first_below(course("train", [(2, 0.9)]), 0.25, 8) == 8
    assert claims.converged(course("test", [(2, 0.5), (1.04, 0.5), (1, 0.5), (1.5, 0.5)])) == 0.4


def test_claims_on_the_digits(tmp_path):
    done = program("claims.py", "columns", "--seeds", 1, "--epochs", 1, "--backend", "host", "--json", tmp_path / "c.json")
    assert done.returncode == 0, done.stderr
    assert "| columns | two columns: " in done.stdout and "1.7 / 1.2 points" in done.stdout and "one seed: no verdict" in done.stdout
    record = json.loads((tmp_path / "c.json").read_text())
    assert len(record["rows"][0]["values"][0]) == 1 and record["machine"]["cores"] >= 1


def test_claims_that_need_colour_or_mirror_images(cifar):
    done = program("claims.py", "crops", "colour", "views", "--seeds", 1, "--epochs", 1, "--data-path", cifar, "--backend", "host")
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[0] for line in done.stdout.splitlines()[-3:]] == ["| crops", "| colour", "| views"]


@pytest.mark.parametrize(("words", "message"), [
    (("colour",), "colour cannot be tried on the digits: they have no colour; --data-path DIR tries it on CIFAR-10"),
    (("maxout",), "no claim maxout; expected some of relu, pooling"),
    (("lrn", "--seeds", "0"), "--seeds 0: expected 1 or more"),
    (("lrn", "--plot", "x.png"), "--plot draws the training errors of the claim relu"),
])
def test_claims_that_are_refused(words, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["claims.py", *words])
    monkeypatch.setattr(claims, "run_through_go", lambda *_: None)
    with pytest.raises(CommandLineError, match=message):
        claims.main()


def test_the_list_of_claims(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["claims.py"])
    assert claims.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(claims.CLAIMS) and sum("Needs --data-path" in line for line in lines) == 3


# ---- revival -------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    """A folder with small nets by the names of the old ones."""
    layers = DATA + HEAD.format("data").replace("initW=0.05", "initW=0.0001")
    for name in ("80sec", "conv-local-11pct"):
        (tmp_path / f"layers-{name}.cfg").write_text(layers)
        (tmp_path / f"layer-params-{name}.cfg").write_text(f"[fc9]\n{RATES.replace('0.02', '1e-8')}[logprob]\n")
    (tmp_path / "layers-other.cfg").write_text(layers)
    return tmp_path


def test_a_folder_of_old_configs_is_trained_as_its_names_say(old, cifar, tmp_path):
    done = program("revival.py", old, "--data-path", cifar, "--backend", "host", "--shorten", 100, "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [["| layers-80sec.cfg", "26% in 80 s"], ["| layers-conv-local-11pct.cfg", "11%"]]
    first, second = json.loads((tmp_path / "r.json").read_text())["results"]
    assert (first["epochs"], first["views"]) == (2, None) and second["epochs"] == 6 and 0 <= second["views"] <= 100
    assert first["verdict"] == "shortened: no answer"
    batches = [line.split("...")[0] for line in done.stderr.splitlines() if "... logprob:" in line]
    long = [f"{epoch}.{batch}" for epoch in range(1, 7) for batch in range(1, 5 if epoch < 4 else 6)]
    assert batches == [f"{epoch}.{batch}" for epoch in (1, 2) for batch in range(1, 6)] + long
    assert "learning rates are those of the params file times 0.1" in done.stderr and "times 0.01" in done.stderr


def test_a_net_that_diverges_does_not_stop_the_others(old, cifar, capsys):
    params = old / "layer-params-80sec.cfg"
    params.write_text(params.read_text().replace("epsW=1e-8", "epsW=1e9"))
    assert revival.main([str(old), "--data-path", str(cifar), "--backend", "host", "--shorten", "500"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows[0].endswith("| diverges |") and rows[1].endswith("| shortened: no answer |")


@pytest.mark.parametrize(("centre", "seconds", "verdict"), [(26.4, 79, "keeps it"), (26.4, 81, "keeps it, but for the time"), (27.0, 10, "misses it by 1.0 points")])
def test_whether_a_name_keeps_its_promise(centre, seconds, verdict):
    assert revival.Result("x", 26, 80, centre, None, seconds, 10).verdict == verdict


def test_old_configs_that_are_not_there(old, tmp_path):
    with pytest.raises(MissingInput, match="convnet-data cifar10 DIR` fetches it"):
        revival.main([str(old)])
    with pytest.raises(CommandLineError, match=r"layers-other.cfg: its name promises no error"):
        (old / "layer-params-other.cfg").touch()
        revival.main([str(old / "layers-other.cfg")])
    with pytest.raises(MissingInput, match=r"layer-params-18pct.cfg: no such file"):
        (old / "layers-18pct.cfg").touch()
        revival.main([str(old / "layers-18pct.cfg")])
