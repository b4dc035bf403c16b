"""Learning rates lowered during a run: --lr-steps, --lr-drop, and --stages."""
from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

import convnet
from convnet.drops import Plateau, factor_at, parse_drop, parse_steps
from convnet.errors import CommandLineError
from convnet.trainer import Trainer
from workplace import DIGITS, RATES, TINY, assert_same_bits, contents, events, logprobs, params

# ---- the rules ----------------------------------------------------------------------------------------------------


def test_steps_are_cumulative():
    steps = parse_steps("23:0.1, 51:.5")
    assert [factor_at(steps, epoch) for epoch in (1, 22, 23, 50, 51, 90)] == [1, 1, 0.1, 0.1, 0.05, 0.05]
    assert parse_steps(None) == parse_steps("") == []


@pytest.mark.parametrize("text", ["23", "23:", "0:0.1", "23:0", "23:-1", "23:0.1,", "a:1", "5:0.1,5:0.1", "9:0.1,5:0.1", "5:1e999", "5:nan"])
def test_steps_that_cannot_be_read(text):
    with pytest.raises(CommandLineError, match=r"--lr-steps .*expected"):
        parse_steps(text)


def test_a_plateau_is_so_many_tests_without_a_new_least():
    plateau = Plateau(patience=2, factor=10, drops=2)
    errors = [0.9, 0.8, 0.8, 0.7, 0.75, 0.7, 0.7, 0.6, 0.6, 0.65, 0.6, 0.6, 0.6]
    assert [plateau.see(error) for error in errors] == [False] * 5 + [True] + [False] * 3 + [True] + [False] * 3
    assert plateau.state() == {"best": 0.6, "waited": 3, "dropped": 2, "scale": 0.01}


def test_the_numbers_of_a_plateau():
    assert parse_drop("plateau") == Plateau(5, 10, 3)
    assert parse_drop("plateau:drops=1,patience=20,factor=2.5") == Plateau(20, 2.5, 1)
    assert parse_drop("none") is parse_drop(None) is None


@pytest.mark.parametrize("text", ["flat", "plateau:", "plateau:patience", "plateau:patience=0", "plateau:patience=1.5", "plateau:factor=1", "plateau:factor=x",
                                  "plateau:drop=3", "plateau:patience=1,patience=2", "plateau:drops=-1"])
def test_a_plateau_that_cannot_be_read(text):
    if text == "plateau:":
        assert parse_drop(text) == Plateau()
    else:
        with pytest.raises(CommandLineError, match="expected plateau or none"):
            parse_drop(text)


# ---- in a run -----------------------------------------------------------------------------------------------------


def test_a_run_with_steps_has_the_bits_of_one_whose_params_were_edited(place):
    place.train("--save-path", "steps", "--epochs", "3", "--lr-steps", "2:0.5,3:0.5", "--log", "log")
    assert [(event["epoch"], event["factor"]) for event in events("rates")] == [(2, 0.5), (3, 0.25)]
    place.train("--save-path", "hand", "--epochs", "1")
    for epoch, rate in ((2, "0.01"), (3, "0.005")):
        Path("params.cfg").write_text(params(TINY, rates=RATES.replace("0.02", rate)))
        place.run("--resume", "hand", "--epochs", str(epoch))
    assert_same_bits("steps", "hand")


def test_steps_hold_in_a_resumed_run(place):
    place.train("--save-path", "whole", "--lr-steps", "2:0.1")
    place.train("--save-path", "parts", "--lr-steps", "2:0.1", "--max-steps", "40")
    place.resume("parts")
    assert_same_bits("whole", "parts")


PLATEAU = ["--lr-drop", "plateau:patience=1,drops=2", "--test-freq", "2", "--epochs", "6"]


@pytest.fixture
def errors(monkeypatch):
    """Test errors by the number of minibatches: they stop improving, so that the rates drop after 24 and after 96 of them."""
    found = {12: 0.5, 24: 0.6, 36: 0.4, 48: 0.39, 60: 0.38, 72: 0.37, 84: 0.36, 96: 0.36, 108: 0.36}

    def test(self, per_batch=False):
        return ({}, 0) if self._signal else ({"logprob": [1.0, found.get(self.position.step, 0.35)]}, 297)

    monkeypatch.setattr(Trainer, "test", test)


@pytest.mark.parametrize("steps", [20, 24, 30, 97])
def test_a_plateau_has_the_same_bits_in_a_resumed_run(place, errors, steps):
    out = place.train(*PLATEAU, "--save-path", "whole", "--log", "log")
    assert [(event["step"], event["factor"]) for event in events("rates")] == [(24, 0.1), (96, 0.01)]
    assert "No test of the last 1 was below 0.500000 (--lr-drop, 1 of 2): learning rates are those of the params file times 0.1\n" in out
    place.train(*PLATEAU, "--save-path", "parts", "--max-steps", str(steps))
    place.resume("parts")
    assert_same_bits("whole", "parts")
    assert contents("whole")[0]["plateau"] == contents("parts")[0]["plateau"] == {"best": 0.35, "waited": 5, "dropped": 2, "scale": 0.01}


def test_a_test_that_a_signal_left_out_is_made_up_for(place, errors, monkeypatch):
    place.train(*PLATEAU, "--save-path", "whole")
    saved = Trainer._report

    def then_stop(self, *args):
        saved(self, *args)
        if self.position.step == 24:
            self._note_signal(signal.SIGTERM, None)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_report", then_stop)
        place.train(*PLATEAU, "--save-path", "parts", code=128 + signal.SIGTERM)
    assert contents("parts")[0]["position"]["test_due"] and contents("parts")[0]["plateau"]["dropped"] == 0
    assert place.resume("parts").index("Test output") > 0
    assert_same_bits("whole", "parts")


@pytest.mark.parametrize("rule", ["none", "plateau:factor=2,patience=100"])
def test_rates_that_fell_stay_where_they_are_under_another_rule(place, errors, rule):
    place.train(*PLATEAU, "--save-path", "saved", "--max-steps", "24")
    place.resume("saved", "--lr-drop", rule, "--max-steps", "30")
    assert contents("saved")[0]["plateau"]["scale"] == 0.1


def test_a_real_error_is_what_the_plateau_watches(place):
    out = place.train("--lr-drop", "plateau:patience=1,drops=1", "--test-freq", "1", "--epochs", "4", "--save-path", "saved", "--log", "log")
    tests = [event["costs"]["logprob"][1] for event in events("test")]
    first = next(i for i in range(1, len(tests)) if tests[i] >= min(tests[:i]))
    dropped, = events("rates")
    assert dropped["step"] == events("test")[first]["step"] and len(logprobs(out)) == 20


@pytest.mark.parametrize(("words", "message"), [(["--lr-steps", "2"], "--lr-steps 2: '2', expected an epoch and a factor"),
                                                (["--lr-drop", "slope"], "--lr-drop slope: expected plateau or none")])
def test_mistakes(place, words, message):
    place.train(*words, code=2)
    assert message in place.told


def test_both_may_stand_in_the_params_file(place):
    with open("params.cfg", "a") as file:
        file.write("[convnet-train]\nlr-steps=2:0.1\nlr-drop=plateau\n")
    out = place.train("--max-steps", "1")
    assert re.search(r"^lr-steps +: 2:0.1$", out, re.M) and re.search(r"^lr-drop +: plateau$", out, re.M)


# ---- stages -------------------------------------------------------------------------------------------------------

STAGES = "[high]\nparams=params.cfg\nepochs=2\n[low]\nepochs=1\nparams = below/low.cfg\n"


@pytest.fixture
def staged(place):
    """Two epochs at 0.02, then one at a rate that falls from 0.004 to half of it, with more momentum, and no dropout."""
    low = RATES.replace("epsW=0.02", "epsW=linear[base=0.004;tgtFactor=2]").replace("momW=0.9", "momW=0.95")
    Path("below").mkdir()
    Path("below/low.cfg").write_text(params(TINY, rates=low).replace("[drop1]\n", "[drop1]\nenable=0\n"))
    Path("stages.cfg").write_text(STAGES)
    return place


def in_stages(place, *words: str, code: int = 0) -> str:
    data = ["--data-path", str(DIGITS), "--train-range", "1-5", "--test-range", "6", "--mini", "50", "--backend", "host", "--test-freq", "5"]
    return place.run("layers.cfg", "--stages", "stages.cfg", *data, *words, files=False, code=code)


def test_a_run_in_stages_has_the_bits_of_one_whose_params_were_exchanged_by_hand(staged):
    out = in_stages(staged, "--save-path", "stages", "--log", "log")
    assert "Stage high: params.cfg, epochs 1 to 2\n" in out and "Stage low: below/low.cfg, epochs 3 to 3\n" in out and "epochs        : 3\n" in out
    assert [(event["name"], event["epoch"], event["step"]) for event in events("stage")] == [("high", 1, 0), ("low", 3, 60)]
    staged.train("--save-path", "hand", "--test-freq", "5")
    text = Path("below/low.cfg").read_text()
    rates = [0.004 * (1 - p) + p * 0.002 for p in (0.0, 0.2, 0.4, 0.6, 0.8)]
    for batch, rate in enumerate(rates, start=1):
        Path("params.cfg").write_text(text.replace("linear[base=0.004;tgtFactor=2]", repr(rate)))
        staged.run("--resume", "hand", "--epochs", "3", "--max-steps", "6", "--test-freq", "5")
        assert contents("hand")[0]["position"]["step"] == 60 + 6 * batch
    assert_same_bits("stages", "hand")


@pytest.mark.parametrize("steps", [50, 60, 70], ids=["in the first stage", "between stages", "in the second"])
def test_stages_in_a_resumed_run(staged, steps):
    in_stages(staged, "--save-path", "whole")
    in_stages(staged, "--save-path", "parts", "--max-steps", str(steps))
    for path in ("stages.cfg", "below/low.cfg", "params.cfg"):
        Path(path).unlink()  # all is in the checkpoint
    staged.resume("parts")
    assert_same_bits("whole", "parts")
    assert contents("parts")[0]["params_file"] == "below/low.cfg"
    with convnet.load("parts", "host") as net:
        assert net.net.graph.by_name["drop1"].layer.enable is False


def test_stages_may_be_changed_when_resuming(staged):
    in_stages(staged, "--save-path", "saved", "--max-steps", "70")
    Path("stages.cfg").write_text(STAGES + "[more]\nparams=params.cfg\nepochs=1\n")
    assert "Stage more: params.cfg, epochs 4 to 4" in staged.resume("saved", "--stages", "stages.cfg")
    assert contents("saved")[0]["position"]["step"] == 120
    out = staged.run("--resume", "saved", "--epochs", "5")  # two config files in place of the stages
    assert "Stage" not in out and contents("saved")[0]["stages"] == []


def test_options_of_later_stages_are_told_to_be_ignored(staged):
    with open("params.cfg", "a") as file:
        file.write("[convnet-train]\nkeep=3\nepochs=9\n")
    with open("below/low.cfg", "a") as file:
        file.write("[convnet-train]\nkeep=3\nepochs=8\nseed=5\n")
    out = in_stages(staged, "--max-steps", "1")
    assert "epochs        : 3" in out and "keep          : 3" in out
    assert [line for line in staged.told.splitlines() if "ignored" in line] == [
        "warning: below/low.cfg:19: [convnet-train] seed: ignored; the options of a run are those of its first stage"]


@pytest.mark.parametrize(("text", "message"), [
    ("", "stages.cfg: no stages; expected a section for each"),
    ("[a]\nparams=params.cfg\n", "stages.cfg:1: [a] expected both params=FILE and epochs=N"),
    ("[a]\nparams=params.cfg\nepochs=0\n", "stages.cfg:3: [a] epochs=0: expected a number of 1 or more"),
    ("[a]\nparams=params.cfg\nepoch=1\n", "stages.cfg:3: [a] epoch: expected params=FILE and epochs=N; did you mean epochs?"),
    ("[a]\nparams=other.cfg\nepochs=1\n", "other.cfg: cannot read this config file"),
    ("[a]\nparams=params.cfg\nepochs=1\n[b]\nparams=super.cfg\nepochs=1\n", "super.cfg: with params.cfg before it in a run, expected the same superEps"),
])
def test_stages_that_cannot_be_read(staged, text, message):
    Path("super.cfg").write_text(params(TINY, rates=RATES + "updatePeriod=2\n"))
    Path("stages.cfg").write_text(text)
    in_stages(staged, code=66 if "other" in text else 78)
    assert message in staged.told


def test_what_stages_exclude(staged):
    for words in (["--epochs", "3"], ["--lr-steps", "2:0.1"], ["--lr-drop", "plateau"]):
        in_stages(staged, *words, code=2)
        assert f"{words[0]}: the stages of this run say" in staged.told
    staged.run("--stages", "stages.cfg", code=2)
    assert "expected one config file, convnet-train layers.cfg --stages FILE" in staged.told
    staged.run("--stages", "stages.cfg", files=False, code=2)
    assert "expected a config file" in staged.told
