"""convnet-train: what it prints, logs and refuses."""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
from pathlib import Path

import numpy as np
import pytest

from convnet.backends import cuda_problem
from convnet.cli.train import main
from convnet.errors import NoSuchDevice
from convnet.layers.conv import Conv
from convnet.net import Net
from workplace import (
    COMMAND,
    DIGITS,
    GENTLE,
    NUMBER,
    RATES,
    TINY,
    TWO_COLUMNS,
    assert_same_bits,
    contents,
    events,
    logprobs,
    on_digits,
    params,
)

SCIENTIFIC = r"\d\.\d{6}e[+-]\d\d"


# ---- what it prints -----------------------------------------------------------------------------


def test_lines_have_the_originals_form(place):
    out = place.train("--epochs", "1", "--test-freq", "3", "--save-path", "saved").splitlines()
    assert "Initialized convolutional layer 'conv1' on device 0, producing 8x8 6-channel output" in out
    assert "Initialized max-pooling layer 'pool1' on device 0, producing 4x4 6-channel output" in out
    assert "Initialized data layer 'data', producing 64 outputs" in out
    assert "Initialized logistic regression cost 'logprob' on device 0" in out
    assert "mini          : 50" in out and "keep          : 2     [DEFAULT]" in out
    first = next(i for i, line in enumerate(out) if line.startswith("1.1..."))
    batch = rf"logprob:  {NUMBER}, {NUMBER} \(\d+\.\d{{3}} sec\)"
    test = ["======================Test output======================", rf"logprob:  {NUMBER}, {NUMBER}", "-" * 55,
            rf"Layer 'conv1' weights\[0\]: {SCIENTIFIC} \[{SCIENTIFIC}\] \[{SCIENTIFIC}\]", rf"Layer 'conv1' biases: {SCIENTIFIC} \[{SCIENTIFIC}\]",
            rf"Layer 'fc9' weights\[0\]: {SCIENTIFIC} \[{SCIENTIFIC}\] \[{SCIENTIFIC}\]", rf"Layer 'fc9' biases: {SCIENTIFIC} \[{SCIENTIFIC}\]",
            "-" * 55, r"Saved checkpoint to saved/ConvNet__[-_.\d]+/1\.{}\.ckpt", rf"{'=' * 55} \(\d+\.\d{{3}} sec\)"]
    expected = [rf"1\.{n}\.\.\. {batch}" for n in (1, 2, 3)] + test + [rf"1\.{n}\.\.\. {batch}" for n in (4, 5)] + test
    for line, pattern in zip(out[first:], expected, strict=True):
        assert re.fullmatch(pattern.replace(r"\.{}\.", r"\.[35]\."), line), (line, pattern)


def test_a_third_number_for_topk(place):
    place.write(TINY, logprob="topk=3\n")
    out = place.train("--max-steps", "6")
    values = re.search(rf"1\.1\.\.\. logprob:  ({NUMBER}), ({NUMBER}), ({NUMBER}) ", out)
    assert 0 < float(values[3]) < float(values[2]) <= 1


def test_stopping_in_a_batch_tells_the_costs_so_far(place):
    out = place.train("--max-steps", "8")
    assert re.search(rf"^1\.2, 100 of 300 images: logprob:  {NUMBER}, {NUMBER} \(\d+\.\d{{3}} sec\)$", out, re.M)


def test_it_learns(place):
    costs = logprobs(place.train("--epochs", "4"))
    assert costs[-1] < 0.6 * costs[0]


def test_a_progress_bar_on_a_terminal_only(place):
    place.write(TINY, rates=GENTLE)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    words = on_digits("--data-provider", "dummy-lr-256", "--backend", "simt", "--mini", "16", "--max-steps", "32")  # slow enough for the bar to move
    process = subprocess.Popen([*COMMAND, "layers.cfg", "params.cfg", *words], stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert process.wait() == 0
    assert re.search(rb"\r1\.1: .*/512 \[00:0\d<00:0\d, .* images/s, minibatch \d", shown), shown
    assert "\r" not in place.train("--max-steps", "6") and "images/s" not in place.told


def test_a_reader_that_goes_away_is_no_error(place):
    words = shlex.join([*COMMAND, "layers.cfg", "params.cfg", *on_digits("--epochs", "1000")])
    done = subprocess.run(["bash", "-c", f"{words} | head -2; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 141 and len(done.stdout.splitlines()) == 2
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_the_log_is_a_json_object_a_line(place):
    place.write(TINY.replace("padding=1", "paddin=1"))
    place.train("--max-steps", "8", "--log", "log", "--save-path", "saved", "--test-freq", "1")
    kinds = [json.loads(line)["event"] for line in Path("log").read_text().splitlines()]
    assert kinds == ["start", "warning", "train", "test", "checkpoint", "train", "checkpoint", "end"]
    start, = events("start")
    assert start["backend"] == "host" and start["options"]["mini"] == 50 and start["devices"].keys() == {"0"}
    assert {"convnet", "commit", "numpy", "python", "isa"} <= start.keys()
    trained = [(event["epoch"], event["batch"], event["step"], event["images"], len(event["costs"]["logprob"])) for event in events("train")]
    assert trained == [(1, 1, 6, 300, 2), (1, 2, 8, 100, 2)]
    assert Path(events("checkpoint")[-1]["path"]).exists() and events("end")[0]["reason"] == "done"
    place.train("--max-steps", "1", "--log", "log")
    assert len(events("start")) == 2  # a log is added to


def test_the_plan(place):
    out = place.train("--plan")
    assert re.search(r"^ *\d+  gpu 0  conv_bias_forward +6x8x8 +conv1(_neuron)? +<- data, conv1.W0, conv1.b$", out, re.M)
    assert "sgd_update" in out and "..." not in out


def test_profile_alone_profiles_the_plan(place):
    out = place.train("--profile")
    assert "GFLOP/s" in out and "conv_bias_forward" in out and "images/s" in out


# ---- gradients, backends, devices -----------------------------------------------------------------


@pytest.mark.parametrize("backend", ["host", "simt"])
def test_check_grads(place, backend):
    out = place.train("--check-grads", "--mini", "3", "--backend", backend)
    assert out.count("  ok") == 4 and "ALL 4 TESTS PASSED" in out


def test_check_grads_finds_a_wrong_gradient(place, monkeypatch):
    right = Conv.backward

    def wrong(self, ops, t):
        right(self, ops, t)
        ops.bias_backward(t.acts_grad, t.weights_grad["b"])  # added once more

    monkeypatch.setattr(Conv, "backward", wrong)
    out = place.train("--check-grads", "--mini", "3", code=1)
    assert "1 of 4 TESTS FAILED" in out and re.search(r"^conv1\.b .* FAILED$", out, re.M)


def test_host_and_simt_agree(place):
    place.write(TWO_COLUMNS.replace("initW=0.2", "initW=0.05"), rates=GENTLE)
    costs = []
    for backend in ("host", "simt"):
        place.run("--data-provider", "dummy:1x8x8", "--mini", "20", "--max-steps", "3", "--backend", backend, "--save-path", backend)
        costs.append(contents(backend)[0]["position"]["sums"]["logprob"][0] / 60)
    assert costs[0] > 2
    np.testing.assert_allclose(costs[0], costs[1], rtol=1e-5)


def test_devices_and_threads_change_no_bits(place, monkeypatch):
    place.write(TWO_COLUMNS)
    place.train("--max-steps", "8", "--save-path", "two", "--gpu", "0,1")
    place.train("--max-steps", "8", "--save-path", "one", "--gpu", "0,0")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    place.train("--max-steps", "8", "--save-path", "thread")
    assert_same_bits("two", "one")
    assert_same_bits("two", "thread")


def test_gradients_of_several_minibatches_are_summed_and_survive_a_resume(place):
    """Two steps of 30 images with --wupdate-freq 2; the run that stops between them goes on with the sum."""
    place.train("--max-steps", "2", "--mini", "30", "--wupdate-freq", "2", "--save-path", "straight")
    place.train("--max-steps", "1", "--mini", "30", "--wupdate-freq", "2", "--save-path", "stopped")
    _, half = contents("stopped")
    assert not half["conv1.W0.inc"].any() and half["conv1.W0.sum"].any()
    place.run("--resume", "stopped", "--max-steps", "1", files=False)
    _, tensors = contents("straight")
    assert tensors["conv1.W0.inc"].any()
    assert_same_bits("straight", "stopped")


# ---- options ---------------------------------------------------------------------------------------


def test_the_params_file_alone_is_enough(place, monkeypatch, tmp_path):
    (tmp_path / "data").symlink_to(DIGITS)
    (tmp_path / "below").mkdir()
    with open("params.cfg", "a") as file:
        file.write("[convnet-train]\ndata-path=data\ntrain-range=1-5\ntest-range=6\nMini=100\nsave-path=saved\nmax-steps=4\nbackend=host\n")
    monkeypatch.chdir(tmp_path / "below")
    out = place.run("../layers.cfg", "../params.cfg", "--mini", "60", files=False)
    assert "mini          : 60" in out  # the command line wins
    assert contents("../saved")[0]["position"]["image"] == 240


def test_a_minibatch_may_be_larger_than_a_batch(place):
    assert len(logprobs(place.train("--mini", "1000", "--max-steps", "2"))) == 2


MISTAKES = {
    "no files": ([], 2, "expected two config files: convnet-train layers.cfg params.cfg"),
    "one file": (["layers.cfg"], 2, "expected two config files"),
    "an unknown option": (["layers.cfg", "params.cfg", "--minibatch", "3"], 2, "unrecognized arguments: --minibatch"),
    "a negative number": (["layers.cfg", "params.cfg", "--mini", "-5"], 2, "--mini -5: expected 1 or more"),
    "no number": (["layers.cfg", "params.cfg", "--epochs", "many"], 2, "--epochs many: expected a whole number"),
    "a falling range": (["layers.cfg", "params.cfg", "--train-range", "5-1"], 2, "--train-range: found '5-1', expected batch numbers"),
    "an unordered range": (["layers.cfg", "params.cfg", "--train-range", "3,1-2"], 2, "--train-range 3,1,2: expected each batch once, in rising order"),
    "no devices": (["layers.cfg", "params.cfg", "--gpu", "-1"], 2, "--gpu -1: expected numbers of devices such as 0,1"),
    "an unknown backend": (["layers.cfg", "params.cfg", "--data-provider", "dummy:1x8x8", "--backend", "tpu"], 2, "--backend tpu: expected auto"),
    "an unknown provider": (["layers.cfg", "params.cfg", "--data-provider", "imagenet"], 2, "--data-provider imagenet needs --data-path"),
    "no ranges": (["layers.cfg", "params.cfg", "--data-path", str(DIGITS)], 2, "expected --train-range and --test-range, as 1-5 and 6;"),
    "a test of nothing": (["layers.cfg", "params.cfg", "--test-only"], 2, "--test-only needs --resume DIR"),
    "a batch that is not there": (["layers.cfg", "params.cfg", *on_digits("--test-range", "9")], 66, "has no batch 9, but 1-6"),
    "no such config": (["no.cfg", "params.cfg"], 66, "no.cfg: cannot read this config file"),
    "no such data": (["layers.cfg", "params.cfg", *on_digits("--data-path", "nowhere")], 66, "--data-path nowhere: No such file"),
    "nothing to resume": (["--resume", "nowhere"], 66, "nowhere: no valid checkpoint there"),
    "a folder for the log": (["layers.cfg", "params.cfg", *on_digits("--log", ".")], 73, "--log .: Is a directory"),
    "a file for the checkpoints": (["layers.cfg", "params.cfg", *on_digits("--save-path", "params.cfg")], 73, "--save-path params.cfg: cannot make a folder there"),
    "no room for the log": (["layers.cfg", "params.cfg", *on_digits("--log", "/dev/full")], 74, "--log /dev/full: No space left on device"),
    "images of another shape": (["layers.cfg", "params.cfg", "--data-provider", "dummy:1x1x1"], 78, "layers.cfg:16: [pool1] sizeX=3, expected at most the 1 pixels of conv1_neuron"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_have_a_message_and_an_exit_code(place, name):
    words, code, message = MISTAKES[name]
    place.run(*words, files=False, code=code)
    assert message in place.told


def test_too_few_devices(place):
    place.write(TWO_COLUMNS)
    place.train("--gpu", "0", code=2)
    assert "[conv1b] gpu=1 is beyond it; the config uses devices 0 to 1, expected 2 numbers, as --gpu 0,0" in place.told


@pytest.mark.skipif(not cuda_problem(), reason="there is a GPU")
def test_no_gpu(place):
    place.train("--backend", "cuda", code=NoSuchDevice.exit_code)
    assert "--backend cuda" in place.told and "--backend host" in place.told


def test_config_errors(place):
    place.write(TINY.replace("type=pool", "type=poool"))
    place.train(code=78)
    assert place.told == "convnet-train: layers.cfg:17: [pool1] type=poool: no such layer type; did you mean pool?\n"
    place.write(TINY)
    with open("params.cfg", "a") as file:
        file.write("[convnet-train]\nmini=some\n")
    place.run(code=78)
    assert "params.cfg:16: [convnet-train] mini some: expected a whole number" in place.told


def test_bad_data(place, tmp_path):
    for path in DIGITS.glob("*.npz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "data_batch_2.npz"
    broken.write_bytes(broken.read_bytes()[:3000])
    place.train("--data-path", str(tmp_path), code=65)
    assert "data_batch_2.npz" in place.told


def test_no_data_says_which_commands_would_run(place):
    place.write(TINY.replace("initW=0.2", "initW=0.01"), rates=GENTLE)
    place.run(code=66)
    commands = re.findall(r"convnet-train (layers.cfg .*)", place.told)
    assert len(commands) == 2
    random, real = (shlex.split(command) for command in commands)
    place.run(*random, "--backend", "host", files=False)
    assert real[real.index("--data-path") + 1] == "DIR"
    place.run(*(str(DIGITS) if word == "DIR" else word for word in real), "--max-steps", "2", "--backend", "host", files=False)


def test_too_large_for_the_memory(place):
    place.write(TINY.replace("filters=6", "filters=1000").replace("sizeX=3\nstride=2", "sizeX=64\nstride=64"))
    place.run("--data-provider", "dummy:1x512x512", "--mini", "512", "--backend", "host", code=71)
    assert re.search(r"this net at 512 images needs \d+ MiB more, and \d+ MiB are free", place.told)
    assert "weights and momenta" in place.told and "--mini 256" in place.told


# ---- what goes wrong while it runs -----------------------------------------------------------------


def test_a_cost_that_is_not_finite_stops_the_run(place):
    place.train("--save-path", "saved", "--max-steps", "6")
    before = contents("saved")[1]
    text = params(TINY, rates=RATES.replace("epsW=0.02", "epsW=1e30"))
    Path("params.cfg").write_text(text)
    place.run("--resume", "saved", "--log", "log", code=3)
    assert re.search(r"the cost logprob is not finite in epoch 1, batch 2, images 50 to 99, minibatch 8; the first step whose output is not finite is "
                     r"\d+, \w+ of \w+ \(.*\)\. The weights were not updated with it; the last good checkpoint is saved/.*/1\.1\.ckpt", place.told)
    assert "not finite" in events("end")[0]["reason"]
    after = contents("saved")[1]
    assert all((after[name] == before[name]).all() for name in before)


def test_weights_of_a_bad_minibatch_are_not_updated(place, monkeypatch):
    seen = []
    original = Net.first_not_finite

    def spy(self, arrays, step):
        first = original(self, arrays, step)
        seen.append(self.tensors())
        return first

    monkeypatch.setattr(Net, "first_not_finite", spy)
    place.write(TINY, rates=RATES.replace("epsW=0.02", "epsW=1e30"))
    place.train("--save-path", "saved", "--max-steps", "1")
    place.resume("saved", code=3)
    saved = contents("saved")[1]
    assert all((seen[0][name] == saved[name]).all() for name in seen[0])


def test_weights_that_are_not_finite_are_not_saved(place):
    place.write(TINY, rates=RATES.replace("epsW=0.02", "epsW=1e39"))
    place.train("--save-path", "saved", "--max-steps", "1", code=3)
    assert "is not finite: nothing is saved; no checkpoint had been written" in place.told
    assert not list(Path("saved").glob("*/*.ckpt"))


def test_no_room_for_what_is_printed(place):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "layers.cfg", "params.cfg", *on_digits("--max-steps", "1")], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 74 and done.stderr.splitlines()[-1] == "convnet-train: cannot write: No space left on device"


def test_our_own_bugs_ask_for_a_report(place, monkeypatch, capsys):
    monkeypatch.setattr("convnet.cli.train.choose_backend", lambda _: 1 / 0)
    with pytest.raises(SystemExit) as left:
        main(["layers.cfg", "params.cfg", *on_digits()])
    told = capsys.readouterr().err
    assert left.value.code == 70 and "ZeroDivisionError" in told and "this is a bug of convnet's" in told


def test_version_and_help(capsys):
    for word, expected in (("--version", "convnet "), ("--help", "--data-provider")):
        with pytest.raises(SystemExit) as left:
            main([word])
        assert left.value.code == 0 and expected in capsys.readouterr().out
