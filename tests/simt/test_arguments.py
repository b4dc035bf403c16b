"""What simt's launch checks: pointers against the device's allocations. Errors name the kernel, and the process lives on."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convnet.arrays import Stream
from convnet.backends import Device, Tensor


@pytest.fixture
def simt():
    with Device("simt", threads=1) as device:
        yield device


def copy(device, source, target):
    device.ops.scaled_copy(device, source, target, factor=2.0)
    device.synchronize()


def test_a_tensor_in_memory_of_the_host_is_refused(simt):
    array, target = np.ones((4, 16), np.float32), simt.tensor((4, 16))
    with pytest.raises(RuntimeError, match=r"^scaled_copy_kernel<1, float, float>: invalid launch: argument 0 is 256 bytes at 0x\w+, which is in no allocation of the device$"):
        copy(simt, Tensor(array.ctypes.data, (4, 16), pitch=16), target)
    source = simt.tensor((4, 16))
    simt.upload(source, array)
    copy(simt, source, target)
    assert (simt.download(target) == 2).all()


def test_a_tensor_that_reaches_over_the_end_of_its_allocation_is_refused(simt):
    source, target = simt.tensor((5, 16)), simt.tensor((4, 16))
    longer = replace(target, shape=(5, 16))
    with pytest.raises(RuntimeError, match=r"argument 1 is 320 bytes at 0x[0-9a-f]+, which is 0 bytes into an allocation of 256$"):
        copy(simt, source, longer)
    with pytest.raises(RuntimeError, match=r"argument 1 is 256 bytes at 0x[0-9a-f]+, which is 64 bytes into an allocation of 256$"):
        copy(simt, source.slice(1, 5), longer.slice(1, 5))


def test_a_tensor_in_memory_that_was_given_back_is_refused(simt):
    source, target = simt.tensor((4, 16)), simt.tensor((4, 16))
    simt.free(source.ptr)
    with pytest.raises(RuntimeError, match=r"argument 0 is 256 bytes at 0x[0-9a-f]+, which is in no allocation of the device"):
        copy(simt, source, target)


def test_pointers_in_structs_are_found(simt):
    gates, inputs, costs = simt.tensor((1, 1, 1, 16)), simt.tensor((4, 1, 1, 16)), simt.tensor((1,), "float64")
    simt.free(gates.ptr)  # a field of the kernel's argument 0
    with pytest.raises(RuntimeError, match=r"^sum_terms_kernel<Gsum2Term<float> ?>: invalid launch: argument 0 is"):
        simt.ops.gsum2_forward(simt, gates, inputs, costs)
        simt.synchronize()


def test_pointers_in_an_array_of_structs_are_found(simt):
    state, *tensors = simt.tensor((3,), "float64"), *(simt.tensor((4, 16)) for _ in range(6))
    simt.free(tensors[5].ptr)  # the weights of the second tensor
    scalars = {"rate_slot": [0, 0], "momentum": [0.9] * 2, "decay": [0.0] * 2, "images": [1, 1]}
    with pytest.raises(RuntimeError, match=r"^sgd_update_many_kernel<float>: invalid launch: argument 1 is 256 bytes"):
        simt.ops.sgd_update_many(simt, state, tensors[:2], tensors[2:4], tensors[4:], **scalars)
        simt.synchronize()


def test_arrays_of_a_caller_are_taken_and_what_is_no_memory_is_not(simt):
    array, target = np.ones((4, 16), np.float32), np.zeros((4, 16), np.float32)
    queue = Stream(0, 0)  # at once: what convnet.ops runs on
    source, copied = (Tensor(a.ctypes.data, (4, 16), pitch=16) for a in (array, target))
    simt.ops.scaled_copy(queue, source, copied, factor=3.0)
    assert (target == 3).all()
    with pytest.raises(RuntimeError, match=r"argument 0 is 256 bytes at 0x40, where there is no memory"):
        simt.ops.scaled_copy(queue, replace(source, ptr=64), copied, factor=3.0)
