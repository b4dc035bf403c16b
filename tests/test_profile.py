"""--profile, --trace, --timeline: when each step ran, and on which device."""
from __future__ import annotations

import importlib.util
import itertools
import json
import sys

import numpy as np
import pytest

from convnet import timeline
from convnet.cli.train import train
from convnet.config import parse_config
from convnet.errors import CannotCreate, CommandLineError, ConfigError, WriteFailed
from convnet.plan import Span
from convnet.profile import chrome_trace
from convnet.recorder import Step, Value
from convnet.timeline import rows_of
from test_plan import PARAMS, SMALL, TWO_COLUMNS, open_net

IMAGES = 6


def traced(backend, b=1, physical=None):
    """The plan of the two columns, and its spans."""
    net = open_net(backend, parse_config(TWO_COLUMNS.format(b=b), PARAMS), SMALL, physical)
    net.initialise()
    rng = np.random.default_rng(0)
    feeds = {0: rng.integers(0, 256, (3, 14, 14, IMAGES), np.uint8), 1: np.zeros((1, 1, 1, IMAGES), np.float32), "state": net.state(0)}
    plan = net.plan(IMAGES, "train")
    plan.run(feeds)
    before = net.costs(plan)["logprob"]
    spans = plan.traced_run(feeds)
    assert net.costs(plan)["logprob"].tobytes() == before.tobytes()  # it is a run like any other
    for device in net.devices.values():
        device.close()
    return plan, spans


@pytest.fixture(scope="module", params=["host", "simt"])
def columns(request):
    return traced(request.param)


def read_trace(spans):
    """(track, event) for each slice of the trace."""
    events = json.loads(json.dumps(chrome_trace(spans, "two columns"), allow_nan=False))["traceEvents"]
    processes = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    tracks = {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert all(processes[pid] == ("copies" if name.startswith("copies") else "devices") for (pid, _), name in tracks.items())
    assert {event["ph"] for event in events} == {"M", "X"}
    return [(tracks[event["pid"], event["tid"]], event) for event in events if event["ph"] == "X"]


# ---- the trace -----------------------------------------------------------------------------------


def test_every_step_is_once_on_the_track_of_its_device(columns):
    plan, spans = columns
    slices = [(track, event) for track, event in read_trace(spans) if event["cat"] != "wait"]
    expected = [(f"copies to device {step.device}" if step.op == "copy" else f"device {step.device}", step.op) for step in plan.steps]
    assert [(track, event["name"]) for track, event in slices] == expected
    assert {track for track, _ in slices} == {"device 0", "device 1", "copies to device 0", "copies to device 1"}


def test_a_slice_tells_what_the_step_is(columns):
    _, spans = columns
    slices = [event for _, event in read_trace(spans)]
    conv = next(event for event in slices if event["name"] == "conv_bias_forward")
    assert conv["args"]["layer"] == "conv1a" and conv["args"]["phase"] == "forward" and conv["cat"] == "conv"
    assert conv["args"]["reads"][0] == f"data 3x12x12x{IMAGES} float32" and conv["args"]["writes"] == [f"conv1a_neuron 6x12x12x{IMAGES} float32"]
    assert conv["args"]["bytes"] > 0 and conv["args"]["GFLOP/s"] > 0
    copy = next(event for event in slices if event["name"] == "copy")
    assert {copy["args"]["from device"], copy["args"]["to device"]} == {0, 1}


def test_what_a_device_does_is_one_after_the_other(columns):
    _, spans = columns
    assert min(span.reached for span in spans) == 0
    for device in (0, 1):
        own = [span for span in spans if span.step.device == device]
        assert all(span.reached <= span.start <= span.end for span in own)
        assert all(a.end <= b.reached for a, b in itertools.pairwise(own))


def test_a_copy_is_after_its_producer_and_before_its_reader(columns):
    _, spans = columns
    copies = [(i, span) for i, span in enumerate(spans) if span.step.op == "copy"]
    assert len(copies) == 11  # five forward, at conv2, fc3 and fc4, as many backward, and the cost
    for i, copy in copies:
        producer = next(span for span in reversed(spans[:i]) if any(value.root is copy.step.reads[0].root for value in span.step.writes))
        reader = next(span for span in spans[i:] if any(value.root is copy.step.writes[0].root for value in span.step.reads))
        assert any(other.device == producer.step.device for other in copy.waited_for) and producer.end <= copy.start  # or for what came behind it there
        assert copy.end <= reader.start


def test_waiting_is_a_slice_of_its_own(columns):
    _, spans = columns
    waits = {event["args"]["step"]: (track, event) for track, event in read_trace(spans) if event["cat"] == "wait"}
    assert waits.keys() == {i for i, span in enumerate(spans) if span.waited_for}
    for i, (track, event) in waits.items():
        assert track == f"device {spans[i].step.device}" and event["name"].startswith("waits for ")
        assert event["ts"] + event["dur"] == pytest.approx(spans[i].start * 1e6)


def test_one_device_has_one_track_and_waits_for_nobody():
    _, spans = traced("host", b=0, physical={0: 0})
    slices = read_trace(spans)
    assert {track for track, _ in slices} == {"device 0"} and "wait" not in {event["cat"] for _, event in slices}
    assert [row.name for row in rows_of(spans)] == ["device 0"]


# ---- the picture ---------------------------------------------------------------------------------


def made_up():
    """Device 0 computes for 2 s, device 1 copies that for 1 s and computes for 3; then device 0 waits to write there again."""
    first, there = Value("first", (1, 1, 1, 4), "float32", 0), Value("there", (1, 1, 1, 4), "float32", 1)
    make = Step("conv_forward", 0, "conv1", "forward", (), (first,), (False,))
    copy = Step("copy", 1, "fc2", "forward", (first,), (there,), (False,))
    use = Step("fc_forward", 1, "fc2", "backward", (there,), (there,), (False,))
    again = Step("sgd_update", 0, "conv1", "update", (), (first,), (False,))
    return [Span(make, [], 0, 0, 2), Span(copy, [make], 0, 2, 3), Span(use, [], 3, 3, 6), Span(again, [copy], 2, 3, 8)]


def test_rows_tell_who_works_and_who_waits():
    device0, device1, copies = rows_of(made_up())
    assert device0.shares == {"computes": 7 / 8, "copies": 0, "waits": 1 / 8, "idle": 1 / 8}
    assert device1.shares == {"computes": 3 / 8, "copies": 1 / 8, "waits": 2 / 8, "idle": 4 / 8}
    assert [(bar.start, bar.end, bar.kind) for bar in device0.bars] == [(0, 2, "conv"), (3, 8, "update")]
    assert [(bar.start, bar.end, bar.label) for bar in device0.waits] == [(2, 3, "copy of first")]
    assert [(bar.start, bar.end, bar.label) for bar in device1.waits] == [(0, 2, "first")]
    assert [(bar.start, bar.end, bar.lane, bar.label) for bar in copies.bars] == [(2, 3, 1, "first")]
    assert [(phase.kind, phase.start, phase.end) for phase in device0.phases] == [("forward", 0, 2), ("update", 3, 8)]


def test_every_step_of_a_plan_is_a_bar_of_a_known_kind(columns):
    plan, spans = columns
    rows = rows_of(spans)
    assert [row.name for row in rows] == ["device 0", "device 1", "copies"]
    assert sum(len(row.bars) for row in rows) == len(plan.steps)
    assert {bar.kind for row in rows for bar in row.bars} == set(timeline.COLORS) - {"pool"}  # all of this net's are over norms
    assert {bar.kind for row in rows for bar in row.phases} == set(timeline.PHASE_COLORS)
    for row in rows[:2]:
        assert row.shares["waits"] <= row.shares["idle"] + 1e-9 < 1


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed: ./go --with plot pytest")
@pytest.mark.parametrize(("suffix", "beginning"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_picture_is_drawn(suffix, beginning):
    picture = timeline.draw(made_up(), "made up", suffix)
    assert picture.startswith(beginning)
    if suffix == ".png":
        assert int.from_bytes(picture[16:20], "big") == 1600


# ---- the options ---------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs convnet-train on the two columns and random images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layers.cfg").write_text(TWO_COLUMNS.format(b=1))
    (tmp_path / "params.cfg").write_text(PARAMS)
    return lambda *words: train(["layers.cfg", "params.cfg", "--data-provider", "dummy:3x12x12:7", "--mini", "4", "--backend", "host", *words])


def test_trace_alone_writes_the_trace_and_says_who_waits(run, tmp_path, capsys):
    assert run("--trace", "t.json") == 0
    out = capsys.readouterr().out
    assert "one minibatch, all devices at once" in out and "device 1: computes" in out and "of peak" not in out
    assert json.loads((tmp_path / "t.json").read_text())["otherData"]["title"] == "layers.cfg, 4 images, host"


def test_the_table_comes_with_the_trace(run, tmp_path, capsys):
    run("--profile", "--trace", "t.json")
    assert "of peak" in capsys.readouterr().out and (tmp_path / "t.json").exists()


@pytest.mark.parametrize(("words", "error", "message"), [
    (("--trace", "nowhere/t.json"), CannotCreate, "--trace nowhere/t.json: No such file or directory"),
    (("--trace", "/dev/full"), WriteFailed, "--trace /dev/full: No space left on device"),
    (("--timeline", "t.gif"), CommandLineError, "--timeline t.gif: expected a name that ends in .png, .svg, .pdf"),
])
def test_what_cannot_be_written_is_said(run, words, error, message):
    with pytest.raises(error, match=message):
        run(*words)


def test_without_matplotlib_it_says_how_to_get_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(CommandLineError, match=r"matplotlib, which is not installed: \./go --with plot convnet-train"):
        run("--timeline", "t.png")


def test_a_params_file_cannot_ask_for_a_trace(run, tmp_path):
    (tmp_path / "params.cfg").write_text(f"[convnet-train]\ntrace=t.json\n{PARAMS}")
    with pytest.raises(ConfigError, match="trace: no such option"):
        run()
