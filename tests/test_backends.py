"""Devices: queues, events, memory, and which backend is taken."""
from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from convnet import backends
from convnet.backends import Device, Tensor, choose_backend, machine_isas, padded, tensor_bytes
from convnet.errors import CommandLineError, NoSuchDevice, OutOfMemory


def failing_op(device):
    """Queues an op with a wrong argument; queues on the CPU find it when they get there."""
    acts = device.tensor((1, 1, 1, 4))
    device.ops.scaled_copy(device, device.tensor((1, 1, 1, 5)), acts, factor=1.0)


def test_a_failed_op_is_raised_when_its_queue_is_waited_for():
    with Device("host", threads=1) as device:
        failing_op(device)
        with pytest.raises(ValueError, match=r"scaled_copy: acts has shape \(1, 1, 1, 4\), expected \(1, 1, 1, 5\)"):
            device.synchronize()
        device.synchronize()  # reported once


def test_a_failed_op_does_not_stop_those_who_wait_for_its_queue():
    with Device("host", 0, 0, 1) as failing, Device("host", 1, 1, 1) as waiting:
        event = failing.new_event()
        failing_op(failing)
        failing.ops.event_record(failing, event)
        waiting.ops.event_wait(waiting, event)
        waiting.synchronize()
        with pytest.raises(ValueError, match="scaled_copy"):
            failing.synchronize()


def test_a_queue_beside_another_ends_with_it():
    device = Device("host", threads=1)
    queue, event = device.beside(), device.new_event()
    assert queue.handle not in (0, device.handle)
    device.ops.event_record(queue, event)
    device.ops.event_wait(device, event)
    device.close()
    assert queue.handle == device.handle == 0


def test_an_event_orders_two_queues(device):
    with Device(device.backend, 1, 0, 1) as other:
        source, target = device.tensor((64, 64, 1, 64)), other.tensor((64, 64, 1, 64))
        event = device.new_event()
        for value in range(1, 6):
            device.upload(source, np.full(source.shape, value, np.float32))
            for _ in range(10):
                device.ops.scaled_copy(device, source, source.adding(), factor=0.0)
            device.ops.event_record(device, event)
            other.ops.event_wait(other, event)
            other.ops.copy_bytes(other, target.ptr, other.physical, source.ptr, device.physical, source.nbytes)
            assert (other.download(target) == value).all()


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (1, 1, 1, 1), (9,), (2, 8)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_what_is_uploaded_is_downloaded(device, shape, dtype):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    tensor = device.tensor(shape, dtype)
    device.upload(tensor, values)
    assert (device.download(tensor) == values).all()


def test_rows_are_multiples_of_16_bytes_and_long_ones_of_a_cache_line():
    assert [padded(images, "float32") for images in (1, 4, 5, 127, 128, 129)] == [4, 4, 8, 128, 128, 144]
    assert padded(33, "float64") == 34 and padded(129, "float64") == 136 and padded(129, "uint8") == 129


def test_rows_of_the_host_are_as_short_as_they_can_be():
    with Device("host", threads=1) as device:
        assert [device.pitch(images, "float32") for images in (0, 1, 2, 3, 4, 5, 129)] == [0, 1, 2, 4, 4, 8, 144]
        assert [device.pitch(images, "float64") for images in (1, 2, 3)] == [1, 2, 4] and device.pitch(5, "uint8") == 5
    with Device("simt") as device:
        assert device.pitch(1, "float32") == 4


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8"])
def test_a_tensor_fits_in_what_is_set_aside_for_it(device, dtype):
    for columns in range(1, 300):
        assert replace(Tensor(0, (3, 5, columns), dtype), pitch=device.pitch(columns, dtype)).nbytes <= tensor_bytes((3, 5, columns), dtype)


def test_memory_that_the_machine_does_not_have_is_refused():
    with Device("host", threads=1) as device, pytest.raises(OutOfMemory, match="MiB are free"):
        device.allocate(2**60)


def test_an_unknown_backend_is_named_with_those_there_are():
    with pytest.raises(CommandLineError, match="--backend metal: expected auto, cuda, host, simt"):
        choose_backend("metal")


def test_cuda_without_a_gpu_says_what_to_do(monkeypatch):
    monkeypatch.setattr(backends, "cuda_problem", lambda: "no NVIDIA GPU is visible")
    with pytest.raises(NoSuchDevice, match=r"--backend cuda: no NVIDIA GPU is visible\. Use --backend host"):
        choose_backend("cuda")
    assert choose_backend("auto") == "host"


def test_an_instruction_set_can_be_forced(monkeypatch):
    monkeypatch.setenv("CONVNET_ISA", "baseline")
    assert backends.host_isa() == "baseline"
    monkeypatch.setenv("CONVNET_ISA", "avx1024")
    with pytest.raises(CommandLineError, match=f"this machine can run {machine_isas()[0]}"):
        backends.host_isa()


@pytest.mark.parametrize("isa", machine_isas())
def test_the_forced_instruction_set_is_what_host_runs_on(isa):
    program = "import convnet; print(convnet.ops('host').module.__name__)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, "CONVNET_ISA": isa})
    assert found.stdout == f"convnet._host_{isa}\n"


def test_an_instruction_set_that_the_processor_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(backends, "machine_isas", lambda: ["avx2", "baseline"])
    monkeypatch.setenv("CONVNET_ISA", "avx512")
    with pytest.raises(CommandLineError, match="CONVNET_ISA=avx512: this machine can run avx2, baseline"):
        backends.load_module.__wrapped__("host")


def test_the_loop_is_run_once_for_every_task_by_any_number_of_threads():
    for threads in (1, 2, 5):
        with Device("host", threads=threads) as device:
            sums, ones = ([device.tensor((rows, 64, 64, 8)) for rows in (40, 3)] for _ in range(2))
            for one in ones:
                device.upload(one, np.ones(one.shape))
            for _ in range(200):  # of two lengths in turn: a helper that is late meets the next loop
                for one, total in zip(ones, sums, strict=True):
                    device.ops.scaled_copy(device, one, total.adding(), factor=1.0)
            assert all((device.download(total) == 200).all() for total in sums)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no masks of cores")
def test_threads_are_as_many_as_the_cores_that_the_process_may_use():
    program = "import os, convnet.backends as b; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(b.cores())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "1\n"
