"""Two queues of a device (--streams 2): what runs beside the rest, and that every step waits for what it has to."""
from __future__ import annotations

import itertools

import pytest

import test_replicas
from convnet.backends import cuda_problem
from convnet.errors import CommandLineError
from convnet.options import Options
from convnet.plan import BEHIND, Regions
from convnet.timeline import rows_of
from convnet.work import flops
from test_graphs import fail, feeds_of, minibatch, same
from test_plan import SMALL, open_net, train_some, two_columns
from workplace import TWO_COLUMNS, assert_same_bits

BACKENDS = ["simt"] + ([] if cuda_problem() else ["cuda"])
HYBRID = ("0,1", "0")


def one_device(**options):
    net = open_net("simt", two_columns(0), SMALL, {0: 0}, streams=2, **options)
    net.initialise()
    return net


def orders(plan):
    """Step -> all that are surely done before it: what its queue had before, what it waits for, and what was done before those."""
    before, last = {}, {}
    for step in plan.steps:
        ends = [*plan._waits[step], *[last[queue] for queue in [plan.queue(step)] if queue in last]]
        before[step] = set(ends).union(*(before[end] for end in ends))
        last[plan.queue(step)] = step
    return before


@pytest.mark.parametrize("open_some", [
    one_device, lambda: one_device(conserve_mem=True), lambda: one_device(precision="bf16"), lambda: open_net("simt", two_columns(1), SMALL, streams=2),
    lambda: test_replicas.open_net(test_replicas.config(*HYBRID), "simt", streams=2),
], ids=["one", "conserve-mem", "bf16", "two", "hybrid"])
def test_steps_that_share_memory_are_in_order(open_some):
    """All pairs of which one writes what the other uses; uploads are there when the queues begin."""
    plan = open_some().plan(12, "train")
    before, regions = orders(plan), {step: Regions.of(step) for step in plan.steps}
    shared = [(first, second) for first, second in itertools.combinations(plan.steps, 2) if first not in plan._uploads and regions[first].meet(regions[second])]
    crossing = [(first, second) for first, second in shared if plan.queue(first) is not plan.queue(second)]
    assert len(crossing) > 10
    assert not [(first.line(), second.line()) for first, second in shared if first not in before[second]]


def test_a_plan_of_one_queue_waits_as_copies_need_it():
    """For what is copied, and before what was copied is overwritten; nothing waits within a device."""
    net = open_net("simt", two_columns(1), SMALL)
    plan = net.plan(12, "train")
    waits = [(step, other) for step in plan.steps for other in plan._waits[step]]
    assert waits and all("copy" in (step.op, other.op) and plan.queue(step) is not plan.queue(other) for step, other in waits)
    assert all(plan._waits[step] for step in plan.steps if step.op == "copy")


def test_what_only_updates_wait_for_runs_beside():
    plan = one_device().plan(12, "train")
    aside = {step.op for step in plan.steps if plan.queue(step) is not plan.devices[0]}
    rest = {step.op for step in plan.steps if plan.queue(step) is plan.devices[0]}
    assert {"conv_backward_filters", "bias_backward", "fc_backward_update", "sgd_update_many"} <= aside
    assert {"conv_backward_data", "fc_backward_data", "lrn_max_pool_backward", "logreg_softmax"} <= rest
    assert not aside & rest and not {op for op in aside if "forward" in op}
    assert sum(map(flops, plan._aside)) > 0.2 * sum(map(flops, plan.steps))


def test_the_rest_waits_for_no_step_beside_but_those_far_behind():
    """Its gradients stay where they are for some steps more."""
    for plan in (one_device().plan(12, "train"), test_replicas.open_net(test_replicas.config(*HYBRID), "simt", streams=2).plan(12, "train")):
        for device in plan.devices:
            aside = [step for step in plan.steps if step in plan._aside and step.device == device]
            place = {step: plan.steps.index(step) for step in plan.steps}
            for step in plan.steps:
                for other in set(plan._waits[step]) & set(aside) if step not in plan._aside and step.op != "copy" else ():
                    if not {value.root for value in other.writes} & {value.root for value in step.reads}:
                        assert sum(place[other] < place[late] < place[step] for late in aside) >= BEHIND - 1


def test_a_test_has_nothing_to_run_beside():
    plan = one_device().plan(12, "test")
    assert not plan._aside and not any(plan._waits.values())


def test_each_queue_has_a_workspace_of_its_own():
    plan = one_device().plan(12, "train")
    values = max(plan.offsets[value] + value.nbytes for value in plan.offsets)
    sizes = [plan._workspaces[queue] for queue in (plan.devices[0], plan._beside[0])]
    assert min(sizes) > 0 and values + sum(sizes) <= plan.arena_bytes[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"graphs": "off"}, {"conserve_mem": True}, {"precision": "bf16"}], ids=str)
@pytest.mark.parametrize("physical", [{0: 0}, {0: 0, 1: 0}], ids=["one", "two-of-one"])
def test_no_bit_depends_on_how_many_queues_there_are(backend, options, physical):
    results = [train_some(open_net(backend, two_columns(max(physical)), SMALL, physical, streams=streams, **options), 4) for streams in (1, 2)]
    assert same(*results)


def test_nor_in_the_passes_of_a_hybrid():
    results = [test_replicas.train(test_replicas.open_net(test_replicas.config(*HYBRID), "simt", streams=streams), (12, 12, 7)) for streams in (1, 2)]
    assert same(*results)


def test_a_step_that_fails_beside_the_others_is_raised():
    net = one_device(graphs="off")
    plan, feeds = net.plan(6, "train"), feeds_of(net, minibatch(6))
    plan._calls.append(lambda: fail(plan._beside[0]))
    plan.run(feeds)
    with pytest.raises(ValueError, match="scaled_copy"):
        plan.synchronize()
    plan.synchronize()


def test_a_trace_has_a_row_for_each_queue():
    net = one_device()
    plan, feeds = net.plan(6, "train"), feeds_of(net, minibatch(6))
    plan.run(feeds)
    rows = rows_of(plan.traced_run(feeds))
    assert [row.name for row in rows] == ["device 0", "device 0, beside"]
    assert len(rows[1].bars) == len(plan._aside) and rows[1].waits
    assert all(0 < row.shares["computes"] < 1 for row in rows)


def test_host_has_one_queue():
    net = open_net("host", two_columns(0), SMALL, {0: 0}, streams=2)
    net.initialise()
    plan = net.plan(6, "train")
    assert {plan.queue(step) for step in plan.steps} == {net.devices[0]}


def test_another_number_is_refused():
    options = Options()
    options.command({"streams": 3})
    with pytest.raises(CommandLineError, match="--streams 3: expected 1 or 2"):
        options.check()


def test_the_trainer_takes_it_and_no_bit_depends_on_it(place):
    place.write(TWO_COLUMNS)
    for name, streams in (("one", "1"), ("two", "2")):
        place.train("--max-steps", "2", "--save-path", name, "--backend", "simt", "--streams", streams)
    assert_same_bits("one", "two")
