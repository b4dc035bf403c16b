"""Data of the next minibatch that land while this one is computed: in another queue, taken in order, and with the same bits."""
from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

import test_replicas
from convnet.backends import Device, Tensor, cuda_problem
from convnet.landing import Landing
from convnet.net import Net
from test_graphs import fail, minibatch, same
from test_plan import SMALL, open_net, two_columns
from workplace import TWO_COLUMNS, assert_same_bits

CPUS = ["host", "simt"]
BACKENDS = CPUS + ([] if cuda_problem() else ["cuda"])
SHAPE = (3, 4, 1, 5)
SECONDS = 20  # after which a gate opens by itself, so that a test fails where it would wait for ever


class Gate:
    """Holds up a queue of the CPU until it is opened."""

    def __init__(self, queue):
        self.event = threading.Event()
        self._function = ctypes.CFUNCTYPE(None)(lambda: self.event.wait(SECONDS) and None)
        queue.ops.call(queue, ctypes.cast(self._function, ctypes.c_void_p).value, b"", b"")

    def holds(self, call, seconds=0.2):
        """Whether a call has not returned after so long; opens, and lets it end."""
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(seconds)
        held = thread.is_alive()
        self.event.set()
        thread.join()
        return held


def of(value):
    return np.full(SHAPE, value, np.float32)


@pytest.fixture(params=CPUS)
def device(request):
    with Device(request.param, threads=1) as device:
        yield device


# ---- of a device ---------------------------------------------------------------------------------------------


def test_what_is_uploaded_waits_for_nothing_that_computes(device):
    target, landing, gate = device.tensor(SHAPE), Landing(device), Gate(device)
    assert not gate.holds(lambda: landing.upload([(target, of(1))]), SECONDS / 2)
    landing.take([target])
    assert (device.download(target) == 1).all()


def test_what_landed_is_taken_before_the_next_lands_there(device):
    target, landing, gate = device.tensor(SHAPE), Landing(device), Gate(device)
    landing.upload([(target, of(1))])
    landing.take([target])
    assert gate.holds(lambda: landing.upload([(target, of(2))]))
    assert (device.download(target) == 1).all()
    landing.take([target])
    assert (device.download(target) == 2).all()


class Asynchronous:
    """The upload of a GPU, for a queue of the CPU: it has begun when the call returns, and ends some time later."""

    def __init__(self, queue):
        self.queue, self.gate, self.arrays = queue, None, []

    def __call__(self, tensor, array):
        self.gate = self.gate or Gate(self.queue)
        rows = np.zeros((tensor.rows, tensor.pitch), tensor.dtype)
        rows[:, : tensor.shape[-1]] = array.reshape(tensor.rows, -1)
        self.arrays.append(rows)
        self.queue.ops.copy_bytes(self.queue, tensor.ptr, 0, rows.ctypes.data, 0, rows.nbytes)


def test_it_is_not_taken_before_it_has_landed(device):
    targets, landing = [device.tensor(SHAPE), device.tensor((2, 7))], Landing(device)
    landing.queue.upload = upload = Asynchronous(landing.queue)
    landing.upload([(targets[0], of(1)), (targets[1], np.full((2, 7), 2, np.float32))])
    landing.take(targets)
    assert upload.gate.holds(device.synchronize)
    assert [(device.download(target) == value).all() for target, value in zip(targets, (1, 2), strict=True)] == [True, True]


def test_data_that_are_uploaded_twice_are_the_last(device):
    target, landing = device.tensor(SHAPE), Landing(device)
    for value in (1, 2):
        landing.upload([(target, of(value))])
    landing.take([target])
    assert (device.download(target) == 2).all()


def test_more_data_get_more_room_and_all_keep_apart(device):
    landing, count = Landing(device), len(device._buffers)
    for sizes in ((3,), (3, 1), (200, 7, 64), (1, 1)):
        targets = [device.tensor((size, 5)) for size in sizes]
        landing.upload([(target, np.full(target.shape, i + 1, np.float32)) for i, target in enumerate(targets)])
        landing.take(targets)
        assert [np.unique(device.download(target)).tolist() for target in targets] == [[i + 1] for i in range(len(sizes))]
        count += len(sizes)
    assert len(device._buffers) == count + 1  # one piece of memory, in place of the smaller ones


# ---- of a net ------------------------------------------------------------------------------------------------


@pytest.fixture
def taken(monkeypatch):
    """How many tensors have been taken from where they landed."""
    tensors: list[Tensor] = []
    take = Landing.take

    def noted(self, targets):
        targets = list(targets)
        tensors.extend(targets)
        take(self, targets)

    monkeypatch.setattr(Landing, "take", noted)
    return tensors


def train(net, sizes, ahead, make=minibatch):
    """Costs and tensors; in the order of `sizes`, which the weights are tested with too after each that is negative."""
    arrays = [make(abs(size), step) for step, size in enumerate(sizes)]
    following = [*arrays[1:], None] if ahead else [None] * len(arrays)
    costs = []
    for step, size in enumerate(sizes):
        costs.append(net.train(arrays[step], step, [0.05] * len(net.rate_slots), following[step])["logprob"])
        if size < 0:
            costs.append(net.test(arrays[step])[0]["logprob"])
    return np.array(costs), net.tensors()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("graphs", ["off", "on"])
@pytest.mark.parametrize("physical", [{0: 0}, {0: 0, 1: 0}], ids=["one", "two"])
def test_minibatches_that_were_uploaded_ahead_have_the_bits_of_others(backend, graphs, physical, taken):
    results = []
    for ahead in (False, True):
        net = open_net(backend, two_columns(max(physical)), SMALL, physical, graphs=graphs, ahead=True)
        net.initialise()
        results.append(train(net, (6, 6, 6, 4, 6, 6, 4), ahead))
        # images and labels where conv1a and the cost are, images where conv1b is; not where there is no plan yet, of the first 6 and 4
        assert len(taken) == ahead * 5 * (2 + max(physical))
    assert same(*results)


@pytest.mark.parametrize("conv", ["0,1", "0"])
def test_chunks_of_replicas_that_were_uploaded_ahead_have_the_bits_of_others(conv, taken):
    results = []
    for ahead in (False, True):
        net = test_replicas.open_net(test_replicas.config(conv, "0"), "host", ahead=True)
        results.append(train(net, (6, 6, 6, 3, 6), ahead, lambda images, step, net=net: test_replicas.minibatch(net, images, step)))
    assert same(*results) and taken


def test_a_test_between_two_minibatches_disturbs_neither(taken):
    """What has landed by then is forgotten, and uploaded again where it belongs."""
    results = []
    for ahead in (False, True):
        net = open_net("simt", two_columns(1), SMALL)
        net.initialise()
        results.append(train(net, (5, 5, -5, 5, 5), ahead))
    assert same(*results) and len(taken) == 3 * 3


def test_other_arrays_than_those_that_landed_are_uploaded(taken):
    results = []
    for following in (None, minibatch(5, 8)):
        net = open_net("host", two_columns(1), SMALL, ahead=True)
        net.initialise()
        costs = [net.train(minibatch(5, step), step, [0.05] * len(net.rate_slots), following)["logprob"] for step in range(3)]
        results.append((np.array(costs), net.tensors()))
    assert same(*results) and not taken


def test_what_landed_for_a_plan_is_not_taken_by_another(taken):
    net = open_net("host", two_columns(1), SMALL, ahead=True)
    net.initialise()
    first, second = minibatch(5, 0), minibatch(5, 1)
    for arrays in (first, first):
        net.train(arrays, 0, [0.0] * len(net.rate_slots), second)
    assert net.test(second)[0]["logprob"].tobytes() == net.test((*second,))[0]["logprob"].tobytes() and not taken


def test_an_array_may_be_changed_when_it_was_uploaded(taken):
    """As the loader does that gives a batch's memory to the next."""
    costs = []
    for changed in (False, True):
        net = open_net("host", two_columns(1), SMALL, ahead=True)
        net.initialise()
        first, second = minibatch(5, 0), minibatch(5, 1)
        rates = [0.05] * len(net.rate_slots)
        net.train(first, 0, rates)
        net.train(first, 1, rates, second)
        for array in second * changed:
            array[...] = 0
        costs.append(net.train(second, 2, rates)["logprob"].tobytes())
    assert costs[0] == costs[1] and taken


def test_testing_is_fed_ahead_too(taken):
    results = []
    for ahead in (False, True):
        net = open_net("host", two_columns(1), SMALL, ahead=True)
        net.initialise()
        arrays = [minibatch(5, seed) for seed in range(4)]
        results.append([net.test(arrays[i], ("fc4",), following=arrays[i + 1] if ahead and i < 3 else None)[1]["fc4"].tobytes() for i in range(4)])
    assert results[0] == results[1] and len(set(results[0])) == 4
    assert len(taken) == 3 * 3


def test_a_failing_step_is_raised_in_its_own_minibatch_and_the_next_one_runs(taken):
    net = open_net("host", two_columns(1), SMALL, ahead=True, graphs="off")
    net.initialise()
    rates, arrays = [0.0] * len(net.rate_slots), [minibatch(5, step) for step in range(3)]
    expected = [net.train(arrays[i], 0, rates)["logprob"].tobytes() for i in range(3)]
    plan = net.plan(5, "train")
    plan._calls.insert(1, lambda: fail(net.devices[0]))
    with pytest.raises(ValueError, match="scaled_copy"):
        net.train(arrays[0], 0, rates, arrays[1])
    plan.synchronize()
    plan._calls.pop(1)
    assert [net.train(arrays[i], 0, rates)["logprob"].tobytes() for i in (1, 2)] == expected[1:]
    assert len(taken) == 3


def test_the_memory_of_a_plan_holds_what_lands():
    net, without = (open_net("host", two_columns(1), SMALL, ahead=ahead) for ahead in (True, False))
    plan = net.compile(6, "train")
    pixels, labels = -(-6 * 3 * 14 * 14 // 64) * 64, 64
    assert [kinds["next minibatch"] for kinds in net.memory(plan).values()] == [pixels + labels, pixels]
    assert "next minibatch" not in without.memory(plan)[0]


# ---- in training ---------------------------------------------------------------------------------------------


def test_the_trainer_uploads_ahead_and_no_bit_depends_on_it(place, monkeypatch, taken):
    """On two devices, over the end of a batch and a test."""
    place.write(TWO_COLUMNS)
    words = ("--backend", "simt", "--mini", "20", "--train-range", "1-2", "--test-range", "2", "--test-freq", "1")
    place.train("--max-steps", "17", "--save-path", "ahead", *words)
    # of 15 minibatches of the first batch, 2 of the next and 15 of the test, all but the first, for images and labels and images
    assert len(taken) == 3 * (14 + 1 + 14)
    monkeypatch.setattr(Net, "upload_ahead", lambda *arguments, **words: None)
    count = len(taken)
    place.train("--max-steps", "17", "--save-path", "not", *words)
    assert len(taken) == count
    assert_same_bits("ahead", "not")


def test_on_host_data_go_straight_to_their_place(place, taken):
    place.train("--max-steps", "3")
    assert not taken
