"""Graphs: what queues are given, captured once and launched."""
from __future__ import annotations

import gc
from types import SimpleNamespace

import numpy as np
import pytest

from convnet.backends import Device, Graph

CPUS = ["host", "simt"]
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


# ---- of a backend --------------------------------------------------------------------------------------------


def test_what_is_captured_runs_at_every_launch_and_not_before(device):
    x = filled(device, 1)
    graph = Graph([device], lambda: add(device, x, x))
    assert is_all(device, x, 1)
    for launch in (1, 2, 3):
        graph.launch()
        assert is_all(device, x, 2**launch)
    add(device, x, x)  # the queue is as it was
    assert is_all(device, x, 16)


def test_a_launch_comes_behind_what_is_queued_and_before_what_follows(device):
    x, one = filled(device, 1), filled(device, 1)
    graph = Graph([device], lambda: add(device, x, x))
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

        graph = Graph([device, other], body)
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

        graph = Graph([device, other], body)
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

        graph = Graph([device, other], body)
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
        Graph([device], lambda: add(device, x, x)).launch()
        assert is_all(device, x, 2)


def test_a_graph_that_is_given_up_ends_what_it_was_launched_for(device):
    x = filled(device, 1)
    graph = Graph([device], lambda: [add(device, x, x) for _ in range(5)])
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
        graph = Graph([device], lambda: device.ops.scaled_copy(default, x, x.adding(), factor=1.0))
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
    (lambda device, x: lambda: Graph([device], lambda: None), RuntimeError, "graph_capture: the queue is being captured already"),
], ids=["broken", "event", "synchronize", "download", "upload", "capture"])
@pytest.mark.parametrize("backend", CPUS)
def test_what_cannot_be_captured_is_told_and_the_queue_runs_as_before(backend, body_of, error, said):
    with Device(backend, threads=1) as device:
        x = filled(device, 1)
        with pytest.raises(error, match=said):
            Graph([device], body_of(device, x))
        assert is_all(device, x, 1)
        graph = Graph([device], lambda: add(device, x, x))
        add(device, x, x)
        graph.launch()
        assert is_all(device, x, 4)
