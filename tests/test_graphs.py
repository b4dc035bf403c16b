"""Graphs: what queues are given, captured once and launched; plans that are run so have the bits of those run step by step."""
from __future__ import annotations

import gc
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import test_replicas
from convnet.backends import Capture, Device, cuda_problem
from convnet.errors import CaptureFailed, CommandLineError
from convnet.options import Options, replays
from small_nets import around, arrays_for, small_net
from test_own_layers import LAYER, SWISH
from test_plan import SMALL, open_net, train_some, two_columns
from workplace import TWO_COLUMNS, assert_same_bits

CPUS = ["host", "simt"]
BACKENDS = CPUS + ([] if cuda_problem() else ["cuda"])
SHAPE = (64, 64, 1, 64)


def filled(device, value, shape=SHAPE):
    tensor = device.tensor(shape)
    device.upload(tensor, np.full(shape, value, np.float32))
    return tensor


def add(device, source, target, times=1):
    """Queues target += times * source; with times=0 what takes time alone."""
    device.ops.scaled_copy(device, source, target.adding(), factor=float(times))


def fail(device):
    """Queues an op that a queue of the CPU finds wrong when it gets there."""
    device.ops.scaled_copy(device, device.tensor((1, 1, 1, 5)), device.tensor((1, 1, 1, 4)), factor=1.0)


def is_all(device, tensor, value):
    return (device.download(tensor) == value).all()


TWO_GRAPHS = """
import threading
from convnet.backends import Device, Capture

a, b = (Device("host", index, index, 1) for index in (0, 1))
def graph():
    x, y = (device.tensor((1, 1, 1, 64)) for device in (a, b))
    there, back = a.new_event(), b.new_event()
    def body():
        a.ops.scaled_copy(a, x, x.adding(), factor=0.0)
        a.ops.event_record(a, there), b.ops.event_wait(b, there)
        b.ops.scaled_copy(b, y, y.adding(), factor=0.0)
        b.ops.event_record(b, back), a.ops.event_wait(a, back)
    return Capture([a, b], body)
threads = [threading.Thread(target=lambda made: [made.launch() for _ in range(3000)], args=(graph(),)) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
a.synchronize(), b.synchronize()
"""


# ---- of a backend --------------------------------------------------------------------------------------------


def test_what_is_captured_runs_at_every_launch_and_not_before(device):
    x = filled(device, 1)
    graph = Capture([device], lambda: add(device, x, x))
    assert is_all(device, x, 1)
    for launch in (1, 2, 3):
        graph.launch()
        assert is_all(device, x, 2**launch)
    add(device, x, x)  # the queue is as it was
    assert is_all(device, x, 16)


def test_graphs_of_two_threads_on_the_same_queues_do_not_wait_for_each_other():
    subprocess.run([sys.executable, "-c", TWO_GRAPHS], check=True, timeout=120)


def test_a_launch_comes_behind_what_is_queued_and_before_what_follows(device):
    x, one = filled(device, 1), filled(device, 1)
    graph = Capture([device], lambda: add(device, x, x))
    for _ in range(3):
        add(device, one, x)
        graph.launch()
    assert is_all(device, x, 22)


def test_two_queues_wait_for_each_other_in_every_launch(device):
    """All launches are queued at once: in each the sum of the second queue takes what the first has come to, and no more."""
    with Device(device.backend, 1, 0, 1) as other:
        count, one, total = filled(device, 0), filled(device, 1), filled(other, 0)
        counted, summed = device.new_event(), other.new_event()

        def body():
            for _ in range(10):
                add(device, count, count, times=0)
            add(device, one, count)
            device.ops.event_record(device, counted)
            other.ops.event_wait(other, counted)
            for _ in range(10):
                add(other, total, total, times=0)
            add(other, count, total)
            other.ops.event_record(other, summed)
            device.ops.event_wait(device, summed)

        graph = Capture([device, other], body)
        for _ in range(5):
            graph.launch()
        assert is_all(other, total, 15) and is_all(device, count, 5)


def test_an_event_may_be_recorded_again_in_a_graph_and_stays_the_caller_s_outside(device):
    with Device(device.backend, 1, 0, 1) as other:
        x, y, event = filled(device, 1), filled(other, 0), device.new_event()

        def body():
            for _ in range(2):
                for _ in range(10):
                    add(device, x, x, times=0)
                add(device, x, x)
                device.ops.event_record(device, event)
            other.ops.event_wait(other, event)
            add(other, x, y)

        graph = Capture([device, other], body)
        device.ops.event_record(device, event)
        for launch in (1, 2):
            graph.launch()
            assert is_all(other, y, sum(4**i for i in range(1, launch + 1)))
            device.ops.event_record(device, event)
            other.ops.event_wait(other, event)
        other.synchronize()


@pytest.mark.parametrize("backend", CPUS)
def test_a_failure_in_a_launch_is_raised_by_synchronize_and_its_queue_drops_the_rest(backend):
    with Device(backend, 0, 0, 1) as device, Device(backend, 1, 1, 1) as other:
        x, y, event = filled(device, 1), filled(other, 1), device.new_event()

        def body():
            fail(device)
            add(device, x, x)
            device.ops.event_record(device, event)
            other.ops.event_wait(other, event)
            add(other, y, y)

        graph = Capture([device, other], body)
        for launch in (1, 2):
            graph.launch()
            assert is_all(other, y, 2**launch)  # it has not waited for ever
            with pytest.raises(ValueError, match=r"scaled_copy: acts has shape \(1, 1, 1, 4\), expected \(1, 1, 1, 5\)"):
                device.synchronize()
            device.synchronize()  # reported once
            assert is_all(device, x, 1)
        fail(device)
        graph.launch()  # nor does a launch run behind a failure that nobody has been told of
        with pytest.raises(ValueError, match="scaled_copy"):
            device.synchronize()
        Capture([device], lambda: add(device, x, x)).launch()
        assert is_all(device, x, 2)


def test_a_graph_that_is_given_up_ends_what_it_was_launched_for(device):
    x = filled(device, 1)
    graph = Capture([device], lambda: [add(device, x, x) for _ in range(5)])
    for _ in range(4):
        graph.launch()
    if device.backend == "cuda":
        device.synchronize()
    del graph
    gc.collect()
    assert is_all(device, x, 2**20)


@pytest.mark.parametrize("backend", CPUS)
def test_the_default_queue_runs_at_once_and_is_not_captured(backend):
    with Device(backend, threads=1) as device:
        x, default = filled(device, 1), SimpleNamespace(device=0, handle=0)
        graph = Capture([device], lambda: device.ops.scaled_copy(default, x, x.adding(), factor=1.0))
        assert is_all(device, x, 2)
        graph.launch()
        assert is_all(device, x, 2)
        with pytest.raises(RuntimeError, match="graph_capture: the default queue runs at once and cannot be captured"):
            device.ops.graph_capture([default], lambda: None)


def out_of_graph(device, x):
    event = device.new_event()
    device.ops.event_record(device, event)
    return lambda: device.ops.event_wait(device, event)


def broken(device, x):
    def body():
        add(device, x, x)
        raise KeyError("broken")
    return body


@pytest.mark.parametrize(("body_of", "error", "said"), [
    (broken, KeyError, "broken"),
    (out_of_graph, RuntimeError, "event_wait: the queue is being captured, and the event was not recorded in this graph"),
    (lambda device, x: device.synchronize, RuntimeError, "stream_synchronize: the queue is being captured"),
    (lambda device, x: lambda: device.download(x), RuntimeError, "stream_synchronize: the queue is being captured"),
    (lambda device, x: lambda: device.upload(x, np.zeros(SHAPE)), RuntimeError, "stream_synchronize: the queue is being captured"),
    (lambda device, x: lambda: Capture([device], lambda: None), RuntimeError, "graph_capture: the queue is being captured already"),
], ids=["broken", "event", "synchronize", "download", "upload", "capture"])
@pytest.mark.parametrize("backend", CPUS)
def test_what_cannot_be_captured_is_told_and_the_queue_runs_as_before(backend, body_of, error, said):
    with Device(backend, threads=1) as device:
        x = filled(device, 1)
        with pytest.raises(error, match=said):
            Capture([device], body_of(device, x))
        assert is_all(device, x, 1)
        graph = Capture([device], lambda: add(device, x, x))
        add(device, x, x)
        graph.launch()
        assert is_all(device, x, 4)


# ---- of a plan -----------------------------------------------------------------------------------------------


def same(first, second):
    """Costs and tensors."""
    return first[0].tobytes() == second[0].tobytes() and all(tensor.tobytes() == second[1][name].tobytes() for name, tensor in first[1].items())


def feeds_of(net, arrays, step=0):
    return {**dict(enumerate(arrays)), "state": net.state(step, [0.05] * len(net.rate_slots))}


def minibatch(images, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (3, 14, 14, images), np.uint8), rng.integers(0, 7, (1, 1, 1, images)).astype(np.float32)


def captured(net):
    return [bool(plan._graph) for plan in net._plans.values()]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("physical", [{0: 0}, {0: 0, 1: 0}, {0: 0, 1: 1}], ids=["one", "two-of-one", "two"])
def test_replayed_minibatches_have_the_bits_of_those_run_step_by_step(backend, physical):
    """With dropout, random crops and copies between devices; of two sizes, the larger of which is run a first, a captured and a replayed time."""
    if backend == "cuda" and len(set(physical.values())) > 1:
        pytest.skip("there may be one GPU alone")
    results = {}
    for graphs in ("off", "on"):
        net = open_net(backend, two_columns(max(physical)), SMALL, physical, graphs=graphs)
        results[graphs] = train_some(net, 7)
        assert captured(net) == [graphs == "on"] * 2
    assert same(results["off"], results["on"])


@pytest.mark.parametrize("backend", CPUS)
@pytest.mark.parametrize(("conv", "fc"), [("0,1", "0,1"), ("0,1", "0")])
def test_replayed_chunks_have_the_bits_of_those_run_step_by_step(backend, conv, fc):
    """A minibatch split among replicas, as many passes or more: each device is fed by several uploads."""
    results = {}
    for graphs in ("off", "on"):
        net = test_replicas.open_net(test_replicas.config(conv, fc), backend, graphs=graphs)
        results[graphs] = test_replicas.train(net, (6, 6, 6, 3))
    assert same(results["off"], results["on"])
    assert captured(net) == [True, False]


@pytest.mark.parametrize("backend", BACKENDS)
def test_layers_of_ones_own_are_replayed(backend):
    results = {}
    for graphs in ("off", "on"):
        with small_net(*around(LAYER), backend=backend, dtype="float32", sources={"swish.cu": SWISH}, graphs=graphs) as net:
            costs = [net.train(arrays_for(net, seed=step), step, [0.1] * len(net.rate_slots))["logprob"] for step in range(4)]
            results[graphs] = np.array(costs), net.tensors()
            assert captured(net) == [graphs == "on"]
    assert same(results["off"], results["on"])


def test_testing_is_replayed_with_what_is_kept():
    results = {}
    for graphs in ("off", "on"):
        net = open_net("host", two_columns(1), SMALL, graphs=graphs)
        net.initialise()
        results[graphs] = [net.test(minibatch(5, seed), ("fc4",))[1]["fc4"] for seed in range(4)]
        assert captured(net) == [graphs == "on"]
    assert [acts.tobytes() for acts in results["off"]] == [acts.tobytes() for acts in results["on"]]
    assert len({acts.tobytes() for acts in results["on"]}) == 4  # each of its own images


def test_a_replay_makes_no_call_for_each_step():
    net = open_net("host", two_columns(1), SMALL, graphs="on")
    net.initialise()
    arrays = minibatch(6)
    costs = [net.test(arrays)[0]["logprob"] for _ in range(2)]
    net.plan(6, "test")._calls[:] = [lambda: pytest.fail("called")]
    assert net.test(arrays)[0]["logprob"].tobytes() == costs[0].tobytes() == costs[1].tobytes()


def test_a_plan_that_a_larger_one_has_moved_is_captured_anew():
    results = {}
    for graphs in ("off", "on"):
        net = open_net("host", two_columns(1), SMALL, graphs=graphs)
        net.initialise()
        sizes = (4, 4, 4, 12, 12, 12, 4, 4, 4)
        costs = [net.train(minibatch(images, step), step, [0.05] * len(net.rate_slots))["logprob"] for step, images in enumerate(sizes)]
        results[graphs] = np.array(costs), net.tensors()
    assert same(results["off"], results["on"])


def test_other_arenas_are_those_of_the_next_capture():
    net = open_net("host", two_columns(1), SMALL, graphs="on")
    net.initialise()
    plan, feeds = net.plan(6, "test"), feeds_of(net, minibatch(6))

    def costs():
        plan.run(feeds)
        return net.costs(plan)["logprob"]

    expected = [costs() for _ in range(3)][-1]
    plan.bind({index: device.allocate(plan.arena_bytes[index]) for index, device in net.devices.items()})
    assert not plan._graph
    for _ in range(3):
        assert (costs() == expected).all()
    assert plan._graph


def test_a_captured_plan_can_be_traced_and_replayed_again():
    net = open_net("host", two_columns(1), SMALL, graphs="on")
    net.initialise()
    plan, feeds = net.plan(6, "test"), feeds_of(net, minibatch(6))
    costs = []
    for traced in (False, False, True, False, True):
        spans = plan.traced_run(feeds) if traced else plan.run(feeds)
        assert not traced or [span.step for span in spans] == plan.steps
        costs.append(net.costs(plan)["logprob"].tobytes())
    assert plan._graph and len(set(costs)) == 1


@pytest.mark.parametrize("graphs", ["off", "on"])
def test_a_step_that_fails_is_raised_and_a_later_run_works(graphs):
    """The same whether steps are replayed or not."""
    net = open_net("host", two_columns(1), SMALL, graphs=graphs)
    net.initialise()
    plan, feeds = net.plan(6, "train"), feeds_of(net, minibatch(6))
    before = net.tensors()
    plan._calls.insert(1, lambda: fail(net.devices[0]))
    for _ in range(3):
        plan.run(feeds)
        with pytest.raises(ValueError, match="scaled_copy"):
            plan.synchronize()
        plan.synchronize()
    assert bool(plan._graph) == (graphs == "on")
    assert all(net.get(f"{layer}.W0").tobytes() == before[f"{layer}.W0"].tobytes() for layer in ("conv1a", "fc4"))  # of the device that failed
    net.load(before)
    plan.bind({device: address for device, (address, _) in net._arenas.items()})
    costs = []
    for _ in range(3):
        net.load(before)
        plan.run(feeds)
        costs.append(net.costs(plan)["logprob"].tobytes())
    assert len(set(costs)) == 1


def test_a_capture_that_fails_names_the_option_and_runs_go_on_without():
    net = open_net("host", two_columns(1), SMALL, graphs="on")
    net.initialise()
    plan, feeds = net.plan(6, "test"), feeds_of(net, minibatch(6))
    plan.run(feeds)
    expected = net.costs(plan)["logprob"]
    plan._calls.append(net.devices[1].synchronize)
    for _ in range(2):
        with pytest.raises(CaptureFailed, match=r"6 images could not be captured in a graph \(stream_synchronize: .*--graphs off runs them one by one"):
            plan.run(feeds)
    plan.graphs = False
    plan.run(feeds)
    assert (net.costs(plan)["logprob"] == expected).all()


# ---- the option ----------------------------------------------------------------------------------------------


def test_auto_is_on_but_on_cuda():
    assert [replays("auto", backend) for backend in ("host", "simt", "cuda")] == [True, True, False]
    assert replays("on", "cuda") and not replays("off", "host")


def test_another_word_is_refused():
    options = Options()
    options.command({"graphs": "always"})
    with pytest.raises(CommandLineError, match="--graphs always: expected auto, on, off"):
        options.check()


def test_the_trainer_takes_it_and_no_bit_depends_on_it(place, monkeypatch):
    made = []
    capture = Capture.__init__
    monkeypatch.setattr(Capture, "__init__", lambda self, *arguments: made.append(self) or capture(self, *arguments))
    place.write(TWO_COLUMNS)
    place.train("--max-steps", "8", "--save-path", "off", "--graphs", "off")
    assert not made
    place.train("--max-steps", "8", "--save-path", "auto")
    assert made
    assert_same_bits("off", "auto")
