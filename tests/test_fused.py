"""Fused ops have the very bits of the ops they are made of; and plans fuse what they may, and nothing else."""
from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import convnet
import test_replicas
from convnet.passes import MASKED, PRECISIONS, join_updates
from convnet.recorder import Step, Value
from guarded import Arena
from ops.lrn_pool import split
from small_nets import DATA, LABELS, arrays_for, fc, params_of, section, small_net
from test_ops import CASES
from test_plan import SMALL, open_net, train_some, two_columns

BOTH_WAYS = ((False, True),) * 2  # of adding to what is there, and of rows without padding


def cases(*ops):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES if case.op in ops])


class Calls:
    """Calls ops, one after the other, on guarded tensors of a device."""

    def __init__(self, device, dtype, tight):
        self.device, self.arena, self.dtype, self.tight = device, Arena(device), dtype, tight

    def holding(self, array):
        return self.arena.holding(array, self.dtype, self.tight)

    def __call__(self, op, *tensors, **scalars):
        workspace = []
        if size := getattr(self.device.ops, f"{op}_workspace", None):
            nbytes = size(self.device, *tensors, **scalars)
            workspace = [self.arena.tensor((max(nbytes, 1),), "uint8", pitch=max(nbytes, 1))]
        getattr(self.device.ops, op)(self.device, *tensors, *workspace, **scalars)

    def result(self, tensor):
        self.arena.check_bands()
        return self.device.download(tensor).tobytes()


@cases("conv_bias_forward", "fc_bias_forward")
def test_biases_and_relu_behind_a_product(device, case):
    before = np.random.default_rng(0).standard_normal(case.outputs["acts"])
    for (relu, dtype), add, tight in product(((False, "float32"), (True, "float32"), (True, "float64")), *BOTH_WAYS):
        run = Calls(device, dtype, tight)
        inputs, weights, biases = (run.holding(array) for array in case.inputs.values())
        separate, fused = run.holding(before), run.holding(before)
        scalars = {name: value for name, value in case.scalars.items() if name != "relu"}
        run(case.op.replace("_bias", ""), inputs, weights, separate.adding(add), **scalars)
        run("bias_forward", biases, separate.adding())
        if relu:
            run("neuron_forward", separate, separate, neuron="relu")
        run(case.op, inputs, weights, biases, fused.adding(add), **scalars, relu=relu)
        assert run.result(fused) == run.result(separate)


@cases("lrn_backward", "max_pool_backward")
def test_the_gradient_of_a_relu_below(device, case):
    before = np.random.default_rng(0).standard_normal(case.outputs["inputs_grad"])
    for dtype, add, tight in product(("float32", "float64"), *BOTH_WAYS):
        run = Calls(device, dtype, tight)
        inputs = [run.holding(array) for array in case.inputs.values()]
        separate, fused = run.holding(before), run.holding(before)
        run(case.op, *inputs, separate.adding(add), **case.scalars)
        run("neuron_backward", inputs[0], separate, separate, neuron="relu")
        run(case.op, *inputs, fused.adding(add), **case.scalars, relu=True)
        assert run.result(fused) == run.result(separate)


@cases(*MASKED.values())
def test_the_gradient_of_a_relu_whose_acts_are_read_for_it_alone(device, case):
    before = np.random.default_rng(0).standard_normal(*case.outputs.values())
    for dtype, add, tight in product(("float32", "float64"), *BOTH_WAYS):
        run = Calls(device, dtype, tight)
        *inputs, acts = (run.holding(array) for array in case.inputs.values())
        separate, fused = run.holding(before), run.holding(before)
        run(case.op.replace("_relu", ""), *inputs, separate.adding(add), **case.scalars)
        run("neuron_backward", acts, separate, separate, neuron="relu")
        run(case.op, *inputs, acts, fused.adding(add), **case.scalars)
        assert run.result(fused) == run.result(separate)


@pytest.mark.parametrize("images", [1, 5, 16, 70])
def test_a_relu_hides_nothing_that_is_not_a_number(device, images):
    special = [1, 0, -0.0, np.nan, np.inf, -np.inf, -1, 1e-40]
    acts, acts_grad = np.resize(special, (21, 1, 1, images)), np.resize([*special[::-1], 2], (3, 1, 1, images))
    for dtype in ("float32", "float64"):
        for op, weights in (("conv", np.ones((21, 1, 1, 3))), ("fc", np.ones((21, 3)))):
            run, scalars = Calls(device, dtype, False), {"stride": 1, "padding": 0, "groups": 1} if op == "conv" else {}
            reads = [run.holding(array) for array in (acts_grad, weights, acts)]
            separate, fused = (run.arena.tensor(acts.shape, dtype) for _ in range(2))
            run(f"{op}_backward_data", *reads[:2], separate, **scalars)
            run("neuron_backward", reads[2], separate, separate, neuron="relu")
            run(f"{op}_relu_backward_data", *reads, fused, **scalars)
            assert np.array_equal(device.download(fused), device.download(separate), equal_nan=True)
            assert np.array_equal(np.signbit(device.download(fused)), np.signbit(device.download(separate)))


def test_rows_of_a_relu_that_are_as_far_apart_are_expected(device):
    acts_grad, weights, inputs_grad = device.tensor((3, 5)), device.tensor((7, 3)), device.tensor((7, 5))
    workspace = device.tensor((4096,), "uint8")
    apart = Arena(device).tensor((7, 5), "float32", pitch=16)
    with pytest.raises(ValueError, match=r"fc_relu_backward_data: expected \(inputs\).pitch == \(inputs_grad\).pitch"):
        device.ops.fc_relu_backward_data(device, acts_grad, weights, apart, inputs_grad, workspace)
        device.synchronize()


@cases("lrn_max_pool_backward")
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("tight", [False, True])
def test_max_pooling_over_normalized_maps(device, case, add, tight):
    lrn, window = split(**case.scalars)
    of_gradient = {name: value for name, value in lrn.items() if name != "bias"}
    random = np.random.default_rng(0)
    for relu, dtype in ((False, "float32"), (True, "float32"), (True, "float64")):
        run = Calls(device, dtype, tight)
        inputs, acts_grad = (run.holding(case.inputs[name]) for name in ("inputs", "acts_grad"))
        norms, denoms, norms_grad = (run.arena.tensor(inputs.shape, dtype, tight) for _ in range(3))
        before = random.standard_normal(acts_grad.shape), random.standard_normal(inputs.shape)
        separate, fused = ([run.holding(array) for array in before] for _ in range(2))
        run("lrn_forward", inputs, denoms, norms, **lrn)
        run("max_pool_forward", norms, separate[0].adding(add), **window)
        run("lrn_max_pool_forward", inputs, fused[0].adding(add), **case.scalars)
        assert run.result(fused[0]) == run.result(separate[0])
        acts = run.arena.tensor(acts_grad.shape, dtype, tight)
        run("max_pool_forward", norms, acts, **window)
        run("max_pool_backward", norms, acts, acts_grad, norms_grad, **window)
        run("lrn_backward", inputs, denoms, norms_grad, separate[1].adding(add), **of_gradient, relu=relu)
        run("lrn_max_pool_backward", inputs, acts, acts_grad, fused[1].adding(add), **case.scalars, relu=relu)
        assert run.result(fused[1]) == run.result(separate[1])


@cases("logreg_softmax")
@pytest.mark.parametrize("tight", [False, True])
def test_softmax_with_its_cost_and_gradient(device, case, tight):
    topk, coeff = ({name: case.scalars[name]} for name in ("topk", "coeff"))
    for dtype in ("float32", "float64", *("bfloat16",) * (device.backend in PRECISIONS["bf16"])):
        run, computed = Calls(device, dtype, tight), "float32" if dtype == "bfloat16" else dtype
        labels, inputs = run.arena.holding(case.inputs["labels"], computed, tight), run.holding(case.inputs["inputs"])
        made = [[run.arena.holding(case.initial["state"], "float64"), run.arena.tensor(inputs.shape, computed, tight), run.arena.tensor((3,), "float64"),
                 run.arena.tensor(inputs.shape, dtype, tight)] for _ in range(2)]
        run("logreg_softmax", labels, inputs, *made[0], **case.scalars)
        state, probs, costs, gradient = made[1]
        exact, exact_gradient = (inputs, gradient) if dtype == computed else (run.arena.tensor(inputs.shape, computed, tight) for _ in range(2))
        if dtype != computed:
            run("scaled_copy", inputs, exact, factor=1.0)
        run("softmax_forward", exact, probs)
        run("logreg_forward", labels, probs, costs, **topk)
        run("logreg_softmax_backward", labels, probs, exact_gradient, **coeff)
        if dtype != computed:
            run("scaled_copy", exact_gradient, gradient, factor=1.0)
        run("check_finite", costs, state)
        assert [run.result(tensor) for tensor in made[0]] == [run.result(tensor) for tensor in made[1]]


@cases("fc_backward_update")
@pytest.mark.parametrize("tight", [False, True])
def test_an_update_behind_the_product_that_makes_its_gradient(device, case, tight):
    scalars = dict(case.scalars)
    precise = {"precision": scalars.pop("precision")} if "precision" in scalars else {}
    narrow = device.backend in PRECISIONS["bf16"] and precise.get("precision", "bf16") == "bf16"
    for dtype in ("float32", "float64", *("bfloat16",) * narrow):
        run, weights_dtype = Calls(device, dtype, tight), "float32" if dtype == "bfloat16" else dtype
        inputs, acts_grad = (run.holding(case.inputs[name]) for name in ("inputs", "acts_grad"))
        state = run.arena.holding(case.inputs["state"], "float64")
        separate, fused = ([run.arena.holding(array, weights_dtype, tight) for array in case.initial.values()] for _ in range(2))
        gradient = run.arena.tensor(case.outputs["weights"], weights_dtype, tight)
        run("fc_backward_weights", inputs, acts_grad, gradient, **precise)
        run("sgd_update", state, gradient, *separate, **scalars)
        run("fc_backward_update", inputs, acts_grad, state, *fused, **case.scalars)
        assert [run.result(tensor) for tensor in fused] == [run.result(tensor) for tensor in separate]


@cases("sgd_update_many")
@pytest.mark.parametrize("tight", [False, True])
def test_updates_of_several_tensors_in_one_launch(device, case, tight):
    for dtype in ("float32", "float64"):
        run = Calls(device, dtype, tight)
        state = run.arena.holding(case.inputs["state"], "float64")
        gradients = [run.holding(array) for name, array in case.inputs.items() if name != "state"]
        separate, joined = ([run.holding(array) for array in case.initial.values()] for _ in range(2))
        count = len(gradients)
        for i, tensors in enumerate(zip(gradients, separate[:count], separate[count:], strict=True)):
            run("sgd_update", state, *tensors, **{name: values[i] for name, values in case.scalars.items()})
        run("sgd_update_many", state, gradients, joined[:count], joined[count:], **case.scalars)
        assert [run.result(tensor) for tensor in joined] == [run.result(tensor) for tensor in separate]


@pytest.mark.parametrize(("change", "said"), [
    ({"weights": []}, "tensors >= 1"), ({"increments": []}, "increments.size"), ({"decay": [0.1]}, "decay.size"),
], ids=["no tensor", "one kind", "one scalar"])
def test_an_update_of_lists_of_other_lengths_is_refused(device, change, said):
    state, *tensors = device.tensor((4,), "float64"), *(device.tensor((3, 5)) for _ in range(6))
    lists = {"weights_grad": tensors[:2], "increments": tensors[2:4], "weights": tensors[4:]}
    scalars = {"rate_slot": [0, 1], "momentum": [0.9] * 2, "decay": [0.0] * 2, "images": [1] * 2}
    with pytest.raises(ValueError, match=f"sgd_update_many: expected .*{said}"):
        device.ops.sgd_update_many(device, state, **lists | scalars | change)
        device.synchronize()


# ---- what plans fuse ------------------------------------------------------------------------------------

COST = section("probs", type="softmax", inputs="fc3") + section("logprob", type="cost.logreg", inputs="labels,probs")


def conv(**keys):
    return section("conv1", type="conv", inputs="data", filters=4, filterSize=3, initW=0.3, **keys)


def steps_of(layers, *names, phase="train", keep=(), images=5, backend="host", **own):
    """The steps of these layers, and of neurons on them, in a plan of data, `layers`, fc3 and the cost."""
    layers = DATA + LABELS + layers + COST
    with small_net(layers, params_of(layers, **own), backend) as net:
        return [step for step in net.compile(images, phase, keep).steps if {*step.layer.removesuffix("_neuron").split(", ")} & {*names}]


def forward(steps):
    return [(step.op, step.scalars["relu"]) if "_bias_" in step.op else step.op for step in steps if step.phase == "forward"]


@pytest.mark.parametrize(("keys", "ops"), [
    ({"neuron": "relu"}, [("conv_bias_forward", True)]),
    ({}, [("conv_bias_forward", False)]),
    ({"neuron": "tanh[1,1]"}, [("conv_bias_forward", False), "neuron_forward"]),
    ({"neuron": "nrelu"}, [("conv_bias_forward", False), "noisy_relu"]),
    ({"neuron": "relu", "sharedBiases": 0}, ["conv_forward", "bias_forward", "neuron_forward"]),
])
def test_biases_and_relu_go_into_the_product_and_nothing_else_does(keys, ops):
    assert forward(steps_of(conv(**keys) + fc("fc3", "conv1", 4), "conv1")) == ops


@pytest.mark.parametrize(("kept", "relu"), [((), True), (("fc2_neuron",), True), (("fc2",), False)])
def test_what_is_kept_is_not_lost_in_a_relu(kept, relu):
    steps = steps_of(fc("fc2", "data", 6, neuron="relu") + fc("fc3", "fc2", 4), "fc2", keep=kept)
    assert forward(steps) == [("fc_bias_forward", relu), "neuron_forward"][: 2 - relu]


def test_a_relu_beside_other_readers_stays():
    layers = (fc("fc2", "data", 6) + section("relu2", type="neuron", inputs="fc2", neuron="relu") + fc("fc3", "relu2", 4)
              + section("more", type="cost.sum2", inputs="fc2"))
    assert forward(steps_of(layers, "fc2", "relu2")) == [("fc_bias_forward", False), "neuron_forward"]


def test_of_several_inputs_the_last_has_the_biases():
    steps = steps_of(fc("fc1", "data", 6) + fc("fc2", "data,fc1,fc1", 6, neuron="relu") + fc("fc3", "fc2", 4), "fc2")
    assert forward(steps) == ["fc_forward", "fc_forward", ("fc_bias_forward", True)]
    assert [step.adds for step in steps if step.phase == "forward"] == [(False,), (True,), (True,)]
    assert len({step.writes[0].root for step in steps if step.phase == "forward"}) == 1


def test_parts_of_a_layer_keep_their_biases_apart():
    layers = section("fc2", type="sfc", parts=2, inputs="data", outputs=3, initW=0.3, neuron="relu") + fc("fc3", "fc2", 4)
    assert forward(steps_of(layers, "fc2")) == ["fc_forward", "fc_forward", "bias_forward", "neuron_forward"]


def below(above):
    """Data, fc1 of a relu, what reads it, and the ops of the gradients between them."""
    layers = section("conv1", type="conv", inputs="data", filters=4, filterSize=3, initW=0.3, neuron="relu") + above
    own = {"above": {"scale": 0.1, "pow": 0.75}} if "cmrnorm" in above else {}
    return [(step.op, step.scalars.get("relu")) for step in steps_of(layers, "conv1", "above", "more", **own)
            if step.phase == "backward" and not step.op.endswith(("_filters", "_weights")) and not step.op.startswith("bias")]


POOL = section("above", type="pool", pool="max", inputs="conv1", sizeX=2, stride=2)
READ = fc("fc3", "above", 4)


@pytest.mark.parametrize(("above", "ops"), [
    (POOL + READ, [("max_pool_backward", True)]),
    (section("above", type="cmrnorm", inputs="conv1", size=3) + READ, [("lrn_backward", True)]),
    (section("above", type="pool", pool="avg", inputs="conv1", sizeX=2, stride=2) + READ, [("avg_pool_relu_backward", None)]),
    (section("above", type="conv", inputs="conv1", filters=3, filterSize=2, initW=0.3) + READ, [("conv_relu_backward_data", None)]),
    (fc("above", "conv1", 6) + READ, [("fc_relu_backward_data", None)]),
    (section("above", type="local", inputs="conv1", filters=3, filterSize=2, initW=0.3) + READ, [("local_backward_data", None), ("neuron_backward", None)]),
    (section("above", type="sfc", parts=2, inputs="conv1", outputs=3, initW=0.3) + READ, [("fc_backward_data", None)] * 2 + [("neuron_backward", None)]),
    (POOL + fc("fc3", "above,conv1", 4), [("max_pool_backward", None), ("neuron_backward", None)]),
    (POOL + READ + section("more", type="cost.sum2", inputs="conv1"), [("scaled_copy", None), ("max_pool_backward", None), ("neuron_backward", None)]),
    (fc("above", "conv1,conv1", 6) + READ, [("fc_backward_data", None)] * 2 + [("neuron_backward", None)]),
], ids=["pool", "lrn", "avg pool", "conv", "fc", "no such op", "parts of the gradient", "added to before", "another's", "twice the same"])
def test_the_gradient_of_a_relu_goes_into_what_makes_that_of_its_acts(above, ops):
    assert below(above) == ops


NORM = section("norm1", type="cmrnorm", inputs="conv1", size=3)
NORM_POOL = NORM + section("pool1", type="pool", pool="max", inputs="norm1", sizeX=2, stride=2)
BOTH, APART = ["lrn_max_pool_forward", "lrn_max_pool_backward"], ["lrn_forward", "max_pool_forward", "max_pool_backward", "lrn_backward"]


def norms_and_pools(layers, **settings):
    conv1 = section("conv1", type="conv", inputs="data", filters=4, filterSize=3, initW=0.3, neuron="relu")
    steps = steps_of(conv1 + layers, "norm1", "pool1", "more", norm1={"scale": 0.1, "pow": 0.75}, **settings)
    return [step for step in steps if "lrn" in step.op or "pool" in step.op]


@pytest.mark.parametrize(("layers", "keep", "ops"), [
    (NORM_POOL + fc("fc3", "pool1", 4), (), BOTH),
    (NORM_POOL + fc("fc3", "pool1", 4), ("pool1",), BOTH),
    (NORM_POOL + fc("fc3", "pool1", 4), ("norm1",), APART),
    (NORM_POOL + fc("fc3", "pool1,norm1", 4), (), APART),
    (NORM_POOL.replace("size=3", "size=4") + fc("fc3", "pool1", 4), (), APART),
    (NORM_POOL.replace("size=3", "size=3\nblocked=1") + fc("fc3", "pool1", 4), (), APART),
    (NORM_POOL.replace("pool=max", "pool=avg") + fc("fc3", "pool1", 4), (), [op.replace("max", "avg") for op in APART]),
    (NORM + fc("fc3", "norm1", 4), (), ["lrn_forward", "lrn_backward"]),
], ids=["alone", "the pool is kept", "the norms are kept", "read by another", "of an even size", "blocks", "not a maximum", "no pool"])
def test_normalization_goes_into_the_max_pooling_that_alone_reads_it(layers, keep, ops):
    assert [step.op for step in norms_and_pools(layers, keep=keep)] == ops


def test_normalization_and_its_pool_are_one_step_in_a_test_too():
    layers = NORM_POOL + fc("fc3", "pool1", 4)
    assert [step.op for step in norms_and_pools(layers, phase="test")] == BOTH[:1]
    assert [step.op for step in norms_and_pools(layers, phase="test", keep=("norm1",))] == APART[:2]


def test_under_frozen_weights_there_is_only_its_forward_pass():
    frozen = section("conv1", type="conv", inputs="data", filters=4, filterSize=3, initW=0.3, neuron="relu")
    steps = steps_of(frozen + NORM_POOL + fc("fc3", "pool1", 4), "norm1", "pool1", norm1={"scale": 0.1, "pow": 0.75}, conv1={"epsW": 0, "epsB": 0})
    assert [step.op for step in steps] == BOTH[:1]


def costs_of(layers, **settings):
    return [step.op for step in steps_of(layers, "probs", "logprob", "more", **settings)]


def test_softmax_is_one_step_with_its_cost_and_gradient():
    assert costs_of(fc("fc3", "data", 4)) == costs_of(fc("fc3", "data", 4), keep=("probs", "logprob")) == ["logreg_softmax"]
    assert costs_of(fc("fc3", "data", 4), phase="test") == ["softmax_forward", "logreg_forward"]


@pytest.mark.parametrize("more", [{"type": "cost.logreg", "inputs": "labels,probs"}, {"type": "cost.sum2", "inputs": "probs"}], ids=["two costs of classes", "another cost"])
def test_a_softmax_with_other_readers_stays(more):
    ops = [step.op for step in steps_of_net(fc("fc3", "data", 4), below=section("more", **more))]
    assert ops.count("softmax_forward") == ops.count("logreg_forward") - (more["type"] == "cost.logreg") == 1 and "logreg_softmax" not in ops


def test_a_gradient_of_the_inputs_with_another_part_stays():
    """Which of two costs is first in backward is the order of the layers: only the first overwrites."""
    ops = [[step.op for step in steps_of_net(fc("fc3", "data", 4) + above, below=below)] for more in [section("more", type="cost.sum2", inputs="fc3")]
           for above, below in ((more, ""), ("", more))]
    assert ["logreg_softmax" in found for found in ops] == [True, False]


def test_other_devices_look_at_the_cost_themselves():
    steps = [step for step in open_net("host", two_columns(1), SMALL).compile(8, "train").steps if step.layer == "logprob"]
    assert sorted((step.op, step.device) for step in steps) == [("check_finite", 1), ("copy", 1), ("logreg_softmax", 0)]


def updates(steps, *layers):
    """The products that make the gradients of these layers' weights, and what updates them."""
    return [step.op for step in steps if "weights" in step.op or ("update" in step.op and {f"{name}.W0" for name in layers} & {value.name for value in step.writes})]


def test_an_update_goes_into_the_product_that_makes_its_gradient():
    layers = fc("fc2", "data", 6, neuron="relu") + fc("fc3", "fc2", 4)
    for name in ("fc2", "fc3"):
        assert updates(steps_of(layers, name), name) == ["fc_backward_weights", "sgd_update_many"]
        for steps in (steps_of(layers, name, images=1), steps_of(layers, name, backend="simt")):
            assert updates(steps, name) == ["fc_backward_update"]
            assert not any("W0_grad" in value.name for step in steps for value in (*step.reads, *step.writes))


@pytest.mark.parametrize(("keys", "own", "ops"), [
    ({"weightSource": "fc2"}, {}, ["fc_backward_weights"] * 2 + ["sgd_update_many"]),
    ({}, {"fc2": {"updatePeriod": 2}}, ["fc_backward_weights"]),
    ({}, {"fc2": {"superEps": 0.1}}, ["fc_backward_weights", "adaptive_update"]),
], ids=["shared", "summed", "adaptive"])
def test_an_update_of_another_gradient_stays(keys, own, ops):
    shared = fc("fc1", "data", 6, **keys) if keys else fc("fc1", "data", 6)
    layers = fc("fc2", "data", 6) + shared + fc("fc3", "fc2,fc1", 4)
    names = ("fc1", "fc2") if keys else ("fc2",)
    assert updates(steps_of(layers, *names, images=1, **own), *names) == ops


def joined(steps):
    """Of each step that updates by SGD: its tensors."""
    return [[value.name for value in step.writes if not value.name.endswith(".inc")] for step in steps if step.op.startswith("sgd_update")]


def steps_of_net(layers, below="", **options):
    layers = DATA + LABELS + layers + COST + below
    with small_net(layers, params_of(layers), **options) as net:
        return net.compile(5, "train").steps


def test_small_tensors_are_updated_together_and_large_ones_where_their_gradients_end():
    steps = steps_of_net(conv() + fc("fc2", "conv1", 1024) + fc("fc3", "fc2", 4))  # 64 by 1024: no more than what is small
    assert joined(steps) == [["conv1.W0", "conv1.b", "fc2.W0", "fc2.b", "fc3.W0", "fc3.b"]]
    last = next(step for step in steps if step.op == "sgd_update_many")
    assert steps[-1] is last and last.layer == "conv1, fc2, fc3"
    assert last.scalars == {"rate_slot": list(range(6)), "momentum": [0.9] * 6, "decay": [0.01, 0.0] * 3, "images": [5] * 6}
    steps = steps_of_net(conv() + fc("fc2", "conv1", 1025) + fc("fc3", "fc2", 4))
    assert joined(steps) == [["fc2.W0"], ["conv1.W0", "conv1.b", "fc2.b", "fc3.W0", "fc3.b"]]
    at = next(i for i, step in enumerate(steps) if step.op == "sgd_update")
    assert any(step.op == "conv_backward_filters" for step in steps[at:])


def test_one_step_updates_24_tensors():
    layers = "".join(fc(f"fc{i}", f"fc{i - 1}" if i > 4 else "data", 4) for i in range(4, 17)) + fc("fc3", "fc16", 4)
    assert [len(names) for names in joined(steps_of_net(layers))] == [4, 24]  # the gradients of the last layers come first


def test_updates_of_two_devices_stay_apart():
    steps = steps_of_net(fc("fc1", "data", 4) + fc("fc2", "fc1", 4, gpu=1) + fc("fc3", "fc2", 4, gpu=0))
    assert sorted(joined(steps)) == [["fc1.W0", "fc1.b", "fc3.W0", "fc3.b"], ["fc2.W0", "fc2.b"]]
    for step in steps:
        assert not step.op.startswith("sgd_update") or {value.device for value in (*step.reads, *step.writes)} == {step.device}


def test_an_update_does_not_move_behind_what_reads_the_new_weights():
    layers = DATA + LABELS + fc("fc1", "data", 6) + fc("fc2", "fc1", 6) + fc("fc3", "fc2", 4) + COST
    with small_net(layers, params_of(layers, fc2={"wball": 0.1})) as net:
        steps = net.compile(5, "train").steps
    assert joined(steps) == [["fc2.b", "fc3.W0", "fc3.b"], ["fc1.W0", "fc1.b", "fc2.W0"]]
    assert [step.op for step in steps[-2:]] == ["sgd_update_many", "limit_norms"]


def test_nor_behind_what_writes_what_it_reads():
    state, *values = (Value(name, (4,), "float32", 0, persistent=True) for name in ("state", "a_grad", "a.inc", "a", "b_grad", "b.inc", "b"))
    first, last = (Step("sgd_update", 0, "fc", "update", (state, gradient), (increments, weights), (False, False), {"rate_slot": 0})
                   for gradient, increments, weights in (values[:3], values[3:]))
    for written, steps in ((state, 3), (values[0], 3), (values[3], 2)):
        between = Step("check_finite", 0, "cost", "update", (), (written,), (False,))
        assert len(join_updates([first, between, last], set())) == steps


def test_nor_behind_another_update_of_them():
    """In the two passes of a hybrid."""
    net = test_replicas.open_net(test_replicas.config("0,1", "0"))
    steps = net.compile(12, "train").steps
    of_first = [names for names in joined(steps) if names[0].startswith("fc")]
    assert of_first == [["fc2.W0", "fc2.b", "fc3.W0", "fc3.b"]] * 2


def test_gradients_that_are_checked_are_stored():
    assert updates(steps_of(fc("fc3", "data", 4), "fc3", phase="check", images=1)) == ["fc_backward_weights"]


def test_biases_and_relu_follow_a_fast_convolution():
    random = np.random.default_rng(1)
    images, filters, biases = (random.standard_normal(shape, np.float32) for shape in ((16, 13, 13, 16), (16, 3, 3, 20), (20,)))
    ops, how = convnet.ops("host"), {"padding": 1, "precision": "fast"}
    sums = ops.conv_forward(images, filters, **how)
    assert (sums != ops.conv_forward(images, filters, padding=1)).any()
    acts = np.maximum(sums + biases[:, None, None, None], 0)
    assert ops.conv_bias_forward(images, filters, biases, relu=True, **how).tobytes() == acts.tobytes()


@pytest.mark.parametrize(("backend", "minibatches"), [("host", 20), ("simt", 3)])
@pytest.mark.parametrize("conserve", [False, True])
def test_fusing_changes_no_bits(backend, minibatches, conserve):
    (costs, tensors), (other_costs, other_tensors) = (
        train_some(open_net(backend, two_columns(1), SMALL, fuse=fuse, conserve_mem=conserve), minibatches) for fuse in (True, False))
    assert costs.tobytes() == other_costs.tobytes()
    assert {name: tensor.tobytes() for name, tensor in tensors.items()} == {name: tensor.tobytes() for name, tensor in other_tensors.items()}


def test_fusing_changes_no_bits_of_replicas():
    """In the passes of a hybrid, the upper layers are updated twice a minibatch."""
    results = [test_replicas.train(test_replicas.open_net(test_replicas.config("0,1", "0"), fuse=fuse), (12, 12, 7)) for fuse in (True, False)]
    (costs, tensors), (other_costs, other_tensors) = results
    assert costs.tobytes() == other_costs.tobytes()
    assert all(tensor.tobytes() == other_tensors[name].tobytes() for name, tensor in tensors.items())


@pytest.mark.parametrize("neuron", ["relu", "softrelu", "abs", "tanh[1,1]", "linear[2,1]"])
def test_fusing_changes_no_bits_whatever_the_neuron(neuron):
    layers = DATA + LABELS + conv(neuron=neuron) + fc("fc2", "conv1,data", 6, neuron=neuron) + fc("fc3", "fc2,conv1", 4) + COST
    results = []
    for fuse in (True, False):
        with small_net(layers, params_of(layers), dtype="float32", fuse=fuse) as net:
            costs = [net.train(arrays_for(net, images=images), images, [0.1] * len(net.rate_slots))["logprob"].tobytes() for images in (1, 5, 129)]
            results.append((costs, {name: tensor.tobytes() for name, tensor in net.tensors().items()}))
    assert results[0] == results[1]
