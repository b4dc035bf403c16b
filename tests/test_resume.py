"""convnet-train's checkpoints: what is kept, what stops a run, and how it goes on."""
from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from convnet import checkpoint, trainer
from convnet.trainer import Trainer
from workplace import (
    COMMAND,
    DIGITS,
    NUMBER,
    RATES,
    TINY,
    assert_same_bits,
    contents,
    events,
    logprobs,
    newest,
    on_digits,
    params,
    started,
)


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


def test_the_checkpoint_has_the_costs_of_the_whole_run(place):
    out = place.train("--test-freq", "2", "--save-path", "parts", "--max-steps", "14") + place.resume("parts")
    history = contents("parts")[0]["history"]
    assert [epochs for epochs, _ in history["train"]] == [pytest.approx(n / 5) for n in range(1, 11)]
    assert [round(costs["logprob"][0], 6) for _, costs in history["train"]] == pytest.approx(logprobs(out), abs=2e-6)
    assert [epochs for epochs, _ in history["test"]] == [pytest.approx(n / 5) for n in (2, 4, 6, 8, 10)]
    assert history["test"][-1][1]["logprob"] == pytest.approx(contents("parts")[0]["test"]["logprob"], rel=1e-6)


def test_of_a_long_run_the_checkpoint_has_means_of_neighbours(place, monkeypatch):
    monkeypatch.setattr(trainer, "MOST_ROWS", 4)
    costs = logprobs(place.train("--save-path", "saved"))
    rows = contents("saved")[0]["history"]["train"]
    assert [epochs for epochs, _ in rows] == pytest.approx([1.2, 1.6, 1.8, 2.0])  # ten batches: four, two and two joined, ...
    joined = [(np.mean(costs[:4]) + np.mean(costs[4:6])) / 2, np.mean(costs[6:8]), *costs[8:]]
    assert [row[1]["logprob"][0] for row in rows] == pytest.approx(joined, abs=2e-6)


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
