"""convnet-train: what it prints, keeps, resumes and refuses."""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import resource
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest

import convnet
from convnet import checkpoint
from convnet.backends import cuda_problem
from convnet.cli.train import main
from convnet.errors import NoSuchDevice
from convnet.layers.conv import Conv
from convnet.net import Net
from convnet.trainer import Trainer

DIGITS = Path(convnet.__file__).parent / "models" / "digits" / "data"  # five batches of 300 and one of 297, 8 x 8 pixels
COMMAND = [sys.executable, "-m", "convnet.cli.train"]

DATA = """\
[data]
type=data
dataIdx=0
[labels]
type=data
dataIdx=1
"""
HEAD = """\
[fc9]
type=fc
inputs={}
outputs=10
initW=0.05
[probs]
type=softmax
inputs=fc9
[logprob]
type=cost.logreg
inputs=labels,probs
"""
CONV = """\
[{name}]
type=conv
inputs={inputs}
filters=6
filterSize=3
padding=1
initW=0.2
neuron=relu
gpu={gpu}
"""
TINY = DATA + CONV.format(name="conv1", inputs="data", gpu=0) + """\
[pool1]
type=pool
pool=max
inputs=conv1
sizeX=3
stride=2
[drop1]
type=dropout
inputs=pool1
""" + HEAD.format("drop1")
TWO_COLUMNS = (DATA + CONV.format(name="conv1a", inputs="data", gpu=0) + CONV.format(name="conv1b", inputs="data", gpu=1)
               + CONV.format(name="conv2a", inputs="conv1a,conv1b", gpu=0) + CONV.format(name="conv2b", inputs="conv1a,conv1b", gpu=1)
               + HEAD.format("conv2a,conv2b"))
RATES = "epsW=0.02\nepsB=0.02\nmomW=0.9\nmomB=0.9\nwc=0.001\n"
GENTLE = RATES.replace("0.02", "0.0001")  # for random pixels, which are large


def params(layers: str, rates: str = RATES, logprob: str = "") -> str:
    weighted = re.findall(r"\[(\w+)\]\ntype=(?:conv|fc)", layers)
    text = "".join(f"[{name}]\n{rates}" for name in weighted)
    return text + ("[drop1]\n" if "[drop1]" in layers else "") + f"[logprob]\n{logprob}"


class Workplace:
    """A folder with the two config files, and the program run in it."""

    def __init__(self, folder: Path, capsys, monkeypatch):
        self.capsys = capsys
        monkeypatch.chdir(folder)
        self.write(TINY)

    def write(self, layers: str, **kwargs) -> None:
        Path("layers.cfg").write_text(layers)
        Path("params.cfg").write_text(params(layers, **kwargs))

    def run(self, *words: str, code: int = 0, files: bool = True) -> str:
        """What the program prints, run in this process; what it says on stderr is in `told`."""
        with pytest.raises(SystemExit) as left:
            main([*(["layers.cfg", "params.cfg"] if files else []), *words])
        out, self.told = self.capsys.readouterr()
        assert left.value.code == code, (left.value.code, out, self.told)
        assert "Traceback" not in self.told
        return out

    def train(self, *words: str, code: int = 0) -> str:
        return self.run(*on_digits(*words), code=code)

    def resume(self, path, *words: str, code: int = 0) -> str:
        return self.run("--resume", str(path), *words, files=False, code=code)


def on_digits(*words: str) -> list[str]:
    """Words of a command that trains on the digits; later ones win."""
    return ["--data-path", str(DIGITS), "--train-range", "1-5", "--test-range", "6", "--mini", "50", "--epochs", "2", "--backend", "host", *words]


@pytest.fixture
def place(tmp_path, capsys, monkeypatch):
    return Workplace(tmp_path, capsys, monkeypatch)


@contextlib.contextmanager
def started(*words: str, **kwargs):
    process = subprocess.Popen([*COMMAND, "layers.cfg", "params.cfg", *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    with process:
        try:
            yield process
        finally:
            process.kill()


def newest(save_path: str) -> Path:
    return checkpoint.newest_valid(sorted(Path(save_path).glob("ConvNet__*"))[-1])[0]


def contents(save_path: str) -> tuple[dict, dict[str, np.ndarray]]:
    return checkpoint.load(newest(save_path))


def assert_same_bits(save_path: str, other: str) -> None:
    (header, tensors), (other_header, other_tensors) = contents(save_path), contents(other)
    assert header["position"] == other_header["position"]
    assert tensors.keys() == other_tensors.keys()
    for name, values in tensors.items():
        np.testing.assert_array_equal(values, other_tensors[name], err_msg=name)


def events(kind: str, path: str = "log") -> list[dict]:
    return [event for line in Path(path).read_text().splitlines() if (event := json.loads(line))["event"] == kind]


def logprobs(text: str) -> list[float]:
    return [float(cost) for cost in re.findall(r"^\d+\.\d+\.\.\. logprob:  ([\d.]+)", text, re.M)]


# ---- what it prints -----------------------------------------------------------------------------


NUMBER = r"\d+\.\d{6}"
SCIENTIFIC = r"\d\.\d{6}e[+-]\d\d"


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
    assert re.search(r"^ *\d+  gpu 0  conv_forward +6x8x8 +conv1 +<- data, conv1.W0$", out, re.M)
    assert "sgd_update" in out and "..." not in out


def test_profile_alone_profiles_the_plan(place):
    out = place.train("--profile")
    assert "GFLOP/s" in out and "conv_forward" in out and "images/s" in out


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


# ---- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 6, 33], ids=["in mid-batch", "between batches", "in the second epoch"])
def test_a_resumed_run_has_the_bits_of_one_left_alone(place, steps):
    noisy = RATES.replace("epsW=0.02", "epsW=0.02\nschedW=dexp[tgtFactor=9,noiseStdev=0.3,numSteps=3]")
    place.write(TINY, rates=noisy)
    words = ["--crop-border", "1", "--seed", "7", "--mini", "40", "--test-freq", "2"]
    whole = place.train(*words, "--save-path", "whole")
    first = place.train(*words, "--save-path", "parts", "--max-steps", str(steps))
    rest = place.resume("parts", "--max-steps", "4")
    rest += place.resume("parts")
    assert logprobs(first + rest) == logprobs(whole)
    assert_same_bits("whole", "parts")


def test_killed_in_mid_epoch(place):
    place.train("--save-path", "whole", "--max-steps", "45")
    with started(*on_digits("--save-path", "parts", "--test-freq", "2")) as process:
        for line in process.stdout:
            if line.startswith("1.3..."):
                process.kill()
                break
        assert process.wait() == -signal.SIGKILL
    step = contents("parts")[0]["position"]["step"]
    assert step in (12, 24)  # the second, if it got that far
    place.resume("parts", "--max-steps", str(45 - step))
    assert_same_bits("whole", "parts")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(place, number):
    with started(*on_digits("--save-path", "parts", "--epochs", "1000")) as process:
        for line in process.stdout:
            if line.startswith("1.2..."):
                process.send_signal(number)
                break
        assert process.wait(timeout=20) == 128 + number
        told = process.stderr.read()
    step = contents("parts")[0]["position"]["step"]
    assert "to save and stop after this minibatch" in told
    assert f"stopped by signal {int(number)} after {step} minibatches; --resume parts/ConvNet__" in told
    place.train("--save-path", "whole", "--epochs", "1000", "--max-steps", str(step))
    assert_same_bits("whole", "parts")


def test_ctrl_c_twice_stops_at_once(place, monkeypatch):
    def impatient(self, *_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.6)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        raise AssertionError("still here")

    monkeypatch.setattr(Trainer, "test", impatient)
    place.train("--test-freq", "1", "--save-path", "saved", code=130)
    assert "interrupted" in place.told and not list(Path("saved").glob("*/*.ckpt"))


def test_a_damaged_newest_checkpoint_gives_way(place):
    place.train("--save-path", "saved", "--test-freq", "1", "--max-steps", "18")
    path = newest("saved")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    place.train("--save-path", "whole", "--test-freq", "1", "--max-steps", "14", "--keep", "1")
    out = place.resume("saved", "--max-steps", "2", "--keep", "1")
    assert "Resuming from" in out and "1.2.ckpt" in out
    assert "1.3.ckpt: tensor" in place.told and "set aside as" in place.told
    assert sorted(p.name for p in path.parent.iterdir()) == [".lock", "1.2.ckpt", "1.3.ckpt", "1.3.ckpt.damaged"]
    assert_same_bits("saved", "whole")


def test_the_newest_and_the_best_are_kept(place):
    place.train("--save-path", "saved", "--test-freq", "1", "--keep", "3", "--epochs", "3", "--log", "log")
    header, _ = contents("saved")
    errors = [event["costs"]["logprob"][1] for event in events("test")]
    best = int(np.argmin(errors))
    assert header["best"] == [min(errors), f"{best // 5 + 1}.{best % 5 + 1}.ckpt"]
    kept = {path.name for path in newest("saved").parent.glob("*.ckpt")}
    assert kept == {"3.3.ckpt", "3.4.ckpt", "3.5.ckpt", header["best"][1]}


def test_resuming_with_another_mini_skips_and_repeats_no_image(place):
    place.train("--save-path", "saved", "--max-steps", "2", "--mini", "50")
    place.resume("saved", "--mini", "64", "--max-steps", "1")
    assert contents("saved")[0]["position"]["image"] == 164
    out = place.resume("saved", "--max-steps", "3")
    assert contents("saved")[0]["position"]["image"] == 0 and len(logprobs(out)) == 1  # 64, 64 and 8 images


def test_resuming_a_run_that_is_done(place):
    place.train("--save-path", "saved", "--epochs", "1")
    assert "All 1 epochs are done; --epochs 2 would train longer" in place.resume("saved")
    assert len(logprobs(place.resume("saved", "--epochs", "2"))) == 5


@pytest.mark.parametrize(("train_range", "trained"), [("1-2", "2.1 2.2"), ("4-5", "1.4 1.5 2.4 2.5"), ("1,3,5", "1.3 1.5 2.1 2.3 2.5")])
def test_resuming_with_other_batches(place, train_range, trained):
    place.train("--save-path", "saved", "--max-steps", "14")  # in the third batch
    out = place.resume("saved", "--train-range", train_range)
    assert re.findall(r"^(\d\.\d)\.\.\.", out, re.M) == trained.split()
    assert contents("saved")[0]["position"]["epoch"] == 3


def test_resuming_with_a_changed_params_file(place):
    place.train("--save-path", "saved", "--max-steps", "6", "--epochs", "3")
    before = contents("saved")[1]["fc9.W0"]
    text = params(TINY, rates=RATES.replace("epsW=0.02", "epsW=0"))
    Path("params.cfg").write_text(text + "[convnet-train]\nepochs=9\ntest-freq=7\n")
    Path("layers.cfg").write_text(TINY + "# another line\n")
    out = place.run("--resume", "saved", "--max-steps", "6")
    assert "layers.cfg has changed since the checkpoint was written: the layers of the checkpoint are used" in place.told
    assert "epochs        : 3" in out and "test-freq     : 7" in out  # the first run's command line, then the file
    np.testing.assert_array_equal(contents("saved")[1]["fc9.W0"], before)


def test_options_of_the_first_run_hold_in_another_folder(place, monkeypatch, tmp_path):
    (tmp_path / "data").symlink_to(DIGITS)
    place.train("--save-path", "saved", "--max-steps", "1", "--data-path", "data")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    place.resume("../saved", "--max-steps", "1")


def test_an_older_file_is_resumed_in_a_folder_of_its_own(place):
    place.train("--save-path", "saved", "--test-freq", "1", "--max-steps", "18", "--keep", "3")
    first = newest("saved").parent
    before = sorted(path.read_bytes() for path in first.glob("*.ckpt"))
    place.resume(first / "1.1.ckpt", "--max-steps", "3")
    assert "1.3.ckpt is newer than" in place.told
    assert sorted(path.read_bytes() for path in first.glob("*.ckpt")) == before
    assert contents("saved")[0]["position"]["step"] == 9
    place.resume(newest("saved"), "--max-steps", "1")  # the newest of its folder: goes on there
    assert len(list(Path("saved").iterdir())) == 2


def test_runs_of_one_second_have_folders_of_their_own(place):
    for _ in range(3):
        place.train("--save-path", "saved", "--max-steps", "1")
    assert len(list(Path("saved").glob("ConvNet__*/1.1.ckpt"))) == 3


def test_testing_a_checkpoint(place):
    trained = place.train("--save-path", "saved", "--epochs", "1")
    cost = re.search(rf"output=+\n(logprob:  {NUMBER}, {NUMBER})\n", trained)[1]
    out = place.resume("saved", "--test-only", "--log", "log")
    assert out.splitlines() == [f"batch 6: {cost} (297 images)", f"{cost} (mean over the test range)"]
    assert events("test")[0]["step"] == 30
    assert len(list(Path("saved").iterdir())) == 1


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
    assert "--gpu 0: the config uses devices 0 to 1, expected 2 numbers, as --gpu 0,0" in place.told


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


def test_a_folder_in_use(place):
    place.train("--save-path", "saved", "--max-steps", "1")
    with checkpoint.lock(newest("saved").parent):
        place.resume("saved", code=73)
    assert f"in use by process {os.getpid()} on" in place.told


def test_a_full_disk_leaves_the_old_checkpoint(place):
    place.train("--save-path", "saved", "--max-steps", "6")
    before = newest("saved").read_bytes()
    words = [*COMMAND, "--resume", "saved", "--max-steps", "6"]
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)))
    assert done.returncode == 74, done.stderr
    assert "1.2.ckpt: cannot write this checkpoint of" in done.stderr and "Traceback" not in done.stderr
    assert newest("saved").read_bytes() == before
    assert not list(newest("saved").parent.glob(".*.tmp"))


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
