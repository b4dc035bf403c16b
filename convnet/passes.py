"""Passes over the recorded steps."""
from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import prod

from .recorder import Step, Value, tensors_of

# Ops that may write over what they read; and those that take less time than fetching what they computed would.
ELEMENTWISE = {"neuron_forward", "neuron_backward", "dropout", "scaled_copy", "eltmax_forward", "eltmax_backward"}
RECOMPUTED = ELEMENTWISE - {"neuron_backward", "eltmax_backward"} | {"lrn_forward", "spatial_lrn_forward", "max_pool_forward", "avg_pool_forward", "lrn_max_pool_forward"}
# Ops that are told how much rounding they may spend on speed.
PRECISE = {"conv_forward", "conv_bias_forward", "conv_backward_data", "conv_relu_backward_data", "conv_backward_filters",
           "fc_forward", "fc_bias_forward", "fc_backward_data", "fc_relu_backward_data", "fc_backward_weights", "fc_backward_update"}
# How much (Precision in ops.h), and the backends where it is not the same as exact.
PRECISIONS = {"exact": {"host", "simt", "cuda"}, "fast": {"host"}, "bf16x3": {"simt", "cuda"}, "tf32": {"simt", "cuda"}, "bf16": {"simt", "cuda"}}
# Ops that take their activities in bfloat16, and what these are called in ops.h; the filters of conv are read so, too: converted
# once a minibatch, where the weights of an fc layer would take longer to convert than to read.
NARROW = PRECISE | {"local_forward", "local_backward_data", "local_backward_weights",
                    "neuron_forward", "neuron_backward", "scaled_copy", "bias_forward", "bias_backward", "dropout", "image_forward", "noisy_image_forward",
                    "max_pool_forward", "max_pool_backward", "maxabs_pool_forward", "avg_pool_forward", "avg_pool_backward", "avg_pool_relu_backward",
                    "cross_map_max_pool_forward", "cross_map_max_pool_backward", "lrn_forward", "lrn_backward", "lrn_max_pool_forward", "lrn_max_pool_backward",
                    "spatial_lrn_forward", "spatial_lrn_backward", "lcn_forward", "lcn_backward", "blur",
                    "random_pool_forward", "random_pool_backward", "expected_pool_forward", "expected_pool_backward", "noisy_relu",
                    "eltmax_forward", "eltmax_backward", "slice_forward", "slice_backward", "gather_forward", "gather_backward", "logreg_softmax"}
ACTIVITIES = {"images", "images_grad", "inputs", "inputs_grad", "acts", "acts_grad", "saved", "others", "means", "filters"}
# The gradient of a cost -> that of what makes its probabilities, with which scalars; and both in one op.
FUSED_COSTS = {"logreg_backward": ("softmax_backward", set(), "logreg_softmax_backward"),
               "bce_backward": ("neuron_backward", {"logistic"}, "bce_logistic_backward")}

# Channels of a window of response normalization that the kernels slide along: others would compute more than they save.
SLIDING = {3, 5}
# Gradients by what they read first, that of a relu where it made that; and others, with the op that reads its acts, too, last.
OVER_RELU = {"lrn_backward", "max_pool_backward"}
MASKED = {"conv_backward_data": "conv_relu_backward_data", "fc_backward_data": "fc_relu_backward_data", "avg_pool_backward": "avg_pool_relu_backward"}
# The product of a layer -> the same with its biases, and a relu behind them.
BIASED = {"conv_forward": "conv_bias_forward", "fc_forward": "fc_bias_forward"}
# Numbers of a tensor up to which its update is joined with others: what moves for them is 0.4 us of an H100's memory, less than a launch
# takes, and of gradients that wait for the others there are 256 KiB. And how many tensors one launch updates (most_tensors in sgd.h).
SMALL_UPDATE, JOINED = 2**16, 24


def fuse_costs(steps: list[Step]) -> list[Step]:
    """Softmax or logistic under its cost alone: one gradient, with nothing divided (SEMANTICS 3.4, 7.3)."""
    readers, writers = defaultdict(list), defaultdict(list)
    for step in steps:
        for value in step.reads:
            readers[value.root].append(step)
        for value in step.writes:
            writers[value.root].append(step)
    fused: dict[Step, Step | None] = {}
    for step in steps:
        if step.op not in FUSED_COSTS:
            continue
        op, scalars, both = FUSED_COSTS[step.op]
        gradient = step.writes[0].root
        if len(writers[gradient]) == len(readers[gradient]) == 1:
            below = readers[gradient][0]
            if below.op == op and scalars <= set(below.scalars.values()):
                fused[step] = None
                fused[below] = replace(below, op=both, reads=step.reads, scalars=step.scalars)
    return replaced(steps, fused)


def fuse_softmax_costs(steps: list[Step]) -> list[Step]:
    """Softmax, its cost, their gradient and the look whether the cost is finite into one step, in the place of the cost, where nobody else has a part in it.

    On a GPU they are four launches in which little is computed; in bfloat16 six, with what converts the inputs and their gradient.
    """
    uses, fused = steps_by_root(steps), {}
    for cost in steps:
        if cost.op != "logreg_forward":
            continue
        (labels, probs), (costs,) = cost.reads, cost.writes
        checks = [step for step in uses[costs.root] if step.op == "check_finite" and step.device == cost.device]
        if [step.op for step in uses[probs.root]] != ["softmax_forward", "logreg_forward", "logreg_softmax_backward"] or len(checks) != 1:
            continue
        softmax, _, backward = uses[probs.root]
        (inputs,), (gradient,), (check,) = softmax.reads, backward.writes, checks
        if (labels.root is backward.reads[0].root and uses[gradient.root][0] is backward and uses[costs.root][0] is cost
                and not any(step.adds[0] for step in (softmax, cost, backward)) and all(map(whole, (probs, inputs, gradient, costs)))):
            fused |= dict.fromkeys((softmax, backward, check))
            fused[cost] = replace(cost, op="logreg_softmax", reads=(labels, inputs), writes=(*check.writes, probs, costs, gradient), adds=(False,) * 4,
                                  scalars=cost.scalars | backward.scalars)
    return replaced(steps, fused)


def fuse_biases(steps: list[Step], keep: set[Value]) -> list[Step]:
    """Biases and relu into a layer's last product, which stores its sums once instead of three times.

    A relu where it would be computed in place: nobody else reads the sums. Other neurons stay: what they take is computing.
    """
    uses = steps_by_root(steps)
    fused: dict[Step, Step | None] = {}
    for bias in steps:
        if bias.op != "bias_forward":
            continue
        (biases,), (sums,) = bias.reads, bias.writes
        place = uses[sums.root].index(bias)
        products, after = uses[sums.root][:place], uses[sums.root][place + 1:]
        if any(step.op not in BIASED or not whole(step.writes[0]) for step in products) or not whole(sums) or biases.shape != sums.shape[:1]:
            continue
        target, relu, last = sums, False, products[-1]
        if (len(after) == 1 and after[0].op == "neuron_forward" and after[0].scalars["neuron"] == "relu" and sums.root not in keep
                and after[0].reads[0].shape == after[0].writes[0].shape == sums.shape and whole(after[0].writes[0])):
            target, relu = after[0].writes[0], True
            fused |= {step: replace(step, writes=(target,)) for step in products}
            fused[after[0]] = None
        fused[last] = replace(last, op=BIASED[last.op], reads=(*last.reads, biases), writes=(target,), scalars=last.scalars | {"relu": relu})
        fused[bias] = None
    return replaced(steps, fused)


def fuse_relus(steps: list[Step], keep: set[Value]) -> list[Step]:
    """The gradient of a relu into the op that computes, alone, that of its acts: what it makes is stored once, and not read again."""
    uses = steps_by_root(steps)
    fused: dict[Step, Step | None] = {}
    for relu in steps:
        if relu.op != "neuron_backward" or relu.scalars["neuron"] != "relu" or relu.adds[0]:
            continue
        (acts, gradient), (target,) = relu.reads, relu.writes
        *others, last, reader = uses[gradient.root]
        if reader is not relu or others or last.adds[0] or gradient.root in keep or not all(map(whole, (acts, gradient, target, last.writes[0]))):
            continue
        if last.op in OVER_RELU and last.reads[0].root is acts.root and whole(last.reads[0]):
            fused[last] = replace(last, writes=(target,), scalars=last.scalars | {"relu": True})
        elif last.op in MASKED:
            fused[last] = replace(last, op=MASKED[last.op], reads=(*last.reads, acts), writes=(target,))
        else:
            continue
        fused[relu] = None
    return replaced(steps, fused)


def fuse_lrn_pools(steps: list[Step], keep: set[Value]) -> list[Step]:
    """Response normalization into the max-pooling that alone reads it: neither norms nor denominators are stored, but made again in backward.

    They are four tensors as large as the inputs, forward and backward, of which each is written and read.
    """
    uses = steps_by_root(steps)
    fused: dict[Step, Step | None] = {}
    for lrn in steps:
        if lrn.op != "lrn_forward" or lrn.scalars["size"] not in SLIDING or lrn.scalars["blocked"]:
            continue
        (inputs,), (denoms, norms) = lrn.reads, lrn.writes
        pools, backward = (uses[value.root][1:] for value in (norms, denoms))
        if not pools or pools[0].op != "max_pool_forward" or {denoms.root, norms.root} & keep or not all(map(whole, (*pools[0].reads, denoms, norms))):
            continue
        pool, *above = pools
        scalars = {**{name: lrn.scalars[name] for name in ("size", "scale", "power", "bias")}, "pool_size": pool.scalars["size"],
                   "stride": pool.scalars["stride"], "start": pool.scalars["start"]}
        if above or backward:
            if [step.op for step in (*above, *backward)] != ["max_pool_backward", "lrn_backward"]:
                continue
            (pool_backward,), (lrn_backward,) = above, backward
            gradient = pool_backward.writes[0]
            if (uses[gradient.root] != [pool_backward, lrn_backward] or gradient.root in keep or pool_backward.adds[0] or pool_backward.scalars.get("relu")
                    or not all(map(whole, (gradient, lrn_backward.reads[0], lrn_backward.reads[2])))):
                continue
            fused[pool_backward] = None
            fused[lrn_backward] = replace(lrn_backward, op="lrn_max_pool_backward", reads=(inputs, *pool_backward.reads[1:]),
                                          scalars=scalars | {"relu": lrn_backward.scalars.get("relu", False)})
        fused[lrn] = None
        fused[pool] = replace(pool, op="lrn_max_pool_forward", reads=(inputs,), scalars=scalars)
    return replaced(steps, fused)


def fuse_updates(steps: list[Step], keep: set[Value], on_host: bool = False) -> list[Step]:
    """SGD into the product that makes the gradient of fc weights, where it is read by nobody else: it is never stored.

    Of large weights that is a third of what an update moves, half a gigabyte of a step of AlexNet's. On host with one image alone, when a step is
    little else: 6 % of AlexNet's. With 16 the pieces of several matrices that the product walks cost more than is saved, 10 % of the step.
    """
    uses = steps_by_root(steps)
    fused: dict[Step, Step | None] = {}
    for update in steps:
        if update.op != "sgd_update":
            continue
        state, gradient = update.reads
        product, *others = uses[gradient.root]
        if ((update.scalars["images"] == 1 or not on_host) and product.op == "fc_backward_weights" and others == [update] and gradient.root not in keep and not gradient.root.persistent
                and gradient.shape == product.writes[0].shape and whole(gradient)):
            fused[product] = None
            fused[update] = replace(update, op="fc_backward_update", reads=(*product.reads, state))
    return replaced(steps, fused)


def join_updates(steps: list[Step], keep: set[Value]) -> list[Step]:
    """SGD of a device's small tensors in one step, in the place of the last of them; up to there nothing uses what the others do."""
    groups: list[list[Step]] = []
    open_groups: dict[int, list[Step]] = {}
    for step in steps:
        open_groups = {device: group for device, group in open_groups.items() if not any(disturbs(step, update) for update in group)}
        if step.op == "sgd_update" and prod(step.writes[-1].shape) <= SMALL_UPDATE:
            if len(open_groups.get(step.device, ())) in (0, JOINED):
                groups.append([])
                open_groups[step.device] = groups[-1]
            open_groups[step.device].append(step)
    fused: dict[Step, Step | None] = {}
    for group in groups:
        if len(group) > 1:
            gradients, increments, weights = zip(*((update.reads[1], *update.writes) for update in group), strict=True)
            scalars = {name: [update.scalars[name] for update in group] for name in group[0].scalars}
            fused |= dict.fromkeys(group)
            fused[group[-1]] = replace(group[-1], op="sgd_update_many", layer=", ".join(dict.fromkeys(update.layer for update in group)),
                                       reads=(group[0].reads[0], *gradients), writes=(*increments, *weights), adds=(False,) * 2 * len(group), scalars=scalars)
    return replaced(steps, fused)


def at_precision(steps: list[Step], precision: str) -> list[Step]:
    """What an op that can be less than exact is told (ops.h, Precision)."""
    return [replace(step, scalars={**step.scalars, "precision": precision}) if step.op in PRECISE else step for step in steps]


def store_narrow(steps: list[Step], keep: set[Value], signatures: dict[str, str]) -> list[Step]:
    """Activities and their gradients in bfloat16, where the ops that write them can (NARROW), and steps that convert them for those that read the other type.

    Labels and other data stay as they were uploaded, but for a copy that is read by such ops alone.
    """
    def wanted(step: Step) -> list[bool | None]:
        """Of the reads and the writes: whether they must be narrow; None: they may be either."""
        if step.op in ("copy", "scaled_copy"):
            return [None] * len((*step.reads, *step.writes))
        if step.op not in NARROW:
            return [False] * len((*step.reads, *step.writes))
        return [name in ACTIVITIES for _, name in tensors_of(signatures[step.op])]

    def is_activity(root: Value) -> bool:
        return root.dtype == "float32" and not root.persistent

    same: dict[Value, Value] = {}  # what a copy between devices has brought -> what it is a copy of
    written, read = defaultdict(set), defaultdict(set)
    for step in steps:
        if step.op == "copy":
            same[step.writes[0].root] = same.get(step.reads[0].root, step.reads[0].root)
    for step in steps:
        for i, (value, narrow) in enumerate(zip((*step.reads, *step.writes), wanted(step), strict=True)):
            if narrow is not None:
                (read if i < len(step.reads) else written)[same.get(value.root, value.root)].add(narrow)
    values = {value for step in steps for value in (*step.reads, *step.writes)} | keep
    roots = {value.root for value in values if is_activity(value.root) and (written[same.get(value.root, value.root)] or read[same.get(value.root, value.root)]) == {True}}
    for value in values:
        if value.root in roots:
            value.dtype = value.root.dtype = "bfloat16"

    converted: dict[Value, Value] = {}  # root -> the same in the other type, until it is written again
    result: list[Step] = []

    def other(value: Value) -> Value:
        dtype = "float32" if value.dtype == "bfloat16" else "bfloat16"
        return Value(f"{value.name}:{dtype}", value.shape, dtype, value.device)

    def convert(step: Step, source: Value, target: Value, add: bool = False) -> Step:
        return Step("scaled_copy", step.device, step.layer, step.phase, (source,), (target,), (add,), {"factor": 1.0})

    for step in steps:
        mismatched = [narrow is not None and value.dtype in ("float32", "bfloat16") and narrow != (value.dtype == "bfloat16")
                      for value, narrow in zip((*step.reads, *step.writes), wanted(step), strict=True)]
        reads, writes, adds, after = list(step.reads), list(step.writes), list(step.adds), []
        for i, value in enumerate(step.reads):
            if mismatched[i]:
                if value.root not in converted:
                    converted[value.root] = other(value.root)
                    result.append(convert(step, value.root, converted[value.root]))
                there = converted[value.root]
                reads[i] = replace(value, name=f"{value.name}:{there.dtype}", dtype=there.dtype, root=there)
        for i, value in enumerate(step.writes):
            if mismatched[len(reads) + i]:
                writes[i], adds[i] = other(value), False
                after.append(convert(step, writes[i], value, step.adds[i]))
            converted.pop(value.root, None)
        result += [replace(step, reads=tuple(reads), writes=tuple(writes), adds=tuple(adds)), *after]
    return result


def drop_unread(steps: list[Step], keep: set[Value]) -> list[Step]:
    """Without the steps whose results nobody reads: the gradients of frozen weights, and of what is below them."""
    wanted, kept = set(keep), []
    for step in reversed(steps):
        if any(value.root.persistent or value.root in wanted for value in step.writes):
            kept.append(step)
            wanted |= {value.root for value in step.reads}
    return kept[::-1]


def update_early(steps: list[Step]) -> list[Step]:
    """Updates as soon as nothing needs the old weights, so that gradients need not be kept to the end."""
    order: list[Step] = []
    for step in steps:
        place = len(order)
        if step.phase == "update":
            sources, targets = ({value.root for value in values} for values in (step.reads, step.writes))
            while place and not reads(order[place - 1], targets) and not any(value.root in sources | targets for value in order[place - 1].writes):
                place -= 1
        order.insert(place, step)
    return order


def only_for_updates(steps: list[Step]) -> set[Step]:
    """The gradients of weights, and the updates: what writes nothing that a later step of forward or backward reads."""
    aside, needed = set(), set()
    for step in reversed(steps):
        if step.phase != "forward" and step.op != "copy" and not any(value.root in needed for value in step.writes):
            aside.add(step)
        if step.phase != "update":
            needed |= {value.root for value in step.reads}
    return aside


def recompute(steps: list[Step], keep: set[Value]) -> list[Step]:
    """What is cheap to compute is not kept from forward to backward, but computed again (--conserve-mem).

    Where what it was computed from is still there: from the last layer to the first, the outputs of a forward step that
    backward reads are made anew before the first step that does.
    """
    for step in reversed([step for step in steps if step.phase == "forward" and step.op in RECOMPUTED]):
        outputs = {value.root for value in step.writes}
        at = next((i for i, later in enumerate(steps) if later.phase == "backward" and reads(later, outputs)), None)
        if at is None or outputs & keep or not all(whole(value) for later in steps for value in (*later.reads, *later.writes) if value.root in outputs):
            continue
        if sum(any(value.root in outputs for value in other.writes) for other in steps) > 1:
            continue
        if not all(value.root.persistent or any(reads(later, {value.root}) for later in steps[at:]) for value in step.reads):
            continue
        anew = {root: replace(root, root=None) for root in outputs}
        again = replace(step, phase="backward", writes=tuple(anew[value.root] for value in step.writes))
        renewed = [replace(later, reads=tuple(anew.get(value.root, value) for value in later.reads)) if reads(later, outputs) else later for later in steps[at:]]
        steps = [*steps[:at], again, *renewed]
    return steps


def work_in_place(steps: list[Step], keep: set[Value]) -> None:
    """An element-wise op overwrites an input that no later step reads."""
    values, first_write, last_use = defaultdict(set), {}, {}
    for i, step in enumerate(steps):
        for value in (*step.reads, *step.writes):
            values[value.root].add(value)
            last_use[value.root] = i
        for value in step.writes:
            first_write.setdefault(value.root, i)
    for i, step in enumerate(steps):
        if step.op not in ELEMENTWISE:
            continue
        target = step.writes[0]
        for source in reversed(step.reads):
            if (first_write[target.root] == i and last_use[source.root] == i and whole(target) and whole(source) and source.shape == target.shape
                    and source.dtype == target.dtype and not source.root.persistent and not target.root.persistent and source.root not in keep):
                last_use[source.root] = last_use[target.root]
                merged = values.pop(target.root) | {target.root}
                for value in merged:
                    value.root = source.root
                values[source.root] |= merged
                break


def steps_by_root(steps: list[Step]) -> dict[Value, list[Step]]:
    """Tensor -> the steps that read or write it, in order."""
    uses: dict[Value, list[Step]] = defaultdict(list)
    for step in steps:
        for root in {value.root for value in (*step.reads, *step.writes)}:
            uses[root].append(step)
    return uses


def replaced(steps: list[Step], fused: dict[Step, Step | None]) -> list[Step]:
    """The steps, with others in place of some; None: nothing."""
    return [step for step in (fused.get(step, step) for step in steps) if step]


def reads(step: Step, roots: set[Value]) -> bool:
    return any(value.root in roots for value in step.reads)


def disturbs(step: Step, other: Step) -> bool:
    """Whether the other step, moved behind this one, might do something else."""
    touched, written = ({value.root for value in values} for values in ((*step.reads, *step.writes), step.writes))
    return any(value.root in touched for value in other.writes) or any(value.root in written for value in other.reads)


def whole(value: Value) -> bool:
    """Not some rows of a larger tensor, nor the tensor seen in another shape."""
    return value.shape == value.root.shape
