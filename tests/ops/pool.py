"""Pooling over overlapping windows, clipped to the image; and over windows of channels."""
from __future__ import annotations

import numpy as np

from . import Case, behind_relu, integers, normal


def outputs(shape, size, stride, start):
    return (shape[0], *(-((s - start - size) // -stride) + 1 for s in shape[1:3]), shape[3])


def windows(shape, acts_shape, size, stride, start):
    """((y, x), (slice down, slice across)) of every window."""
    def side(o, pixels):
        return slice(max(0, start + o * stride), min(pixels, start + o * stride + size))
    for y, x in np.ndindex(acts_shape[1:3]):
        yield (y, x), (side(y, shape[1]), side(x, shape[2]))


def pool(inputs, acts_shape, reduce, **scalars):
    acts = np.empty(acts_shape)
    for (y, x), (down, across) in windows(inputs.shape, acts_shape, **scalars):
        acts[:, y, x] = reduce(inputs[:, down, across], axis=(1, 2))
    return acts


def maxabs(window, axis):
    """Of equally far ones the last, row by row."""
    c, h, w, n = window.shape
    backwards = window.reshape(c, h * w, n)[:, ::-1]
    return np.take_along_axis(backwards, np.abs(backwards).argmax(1)[:, None], 1)[:, 0]


def max_pool_backward(inputs, acts, acts_grad, **scalars):
    inputs_grad = np.zeros_like(inputs)
    for (y, x), (down, across) in windows(inputs.shape, acts.shape, **scalars):
        equal = inputs[:, down, across] == acts[:, y, None, x, None]
        inputs_grad[:, down, across] += equal * acts_grad[:, y, None, x, None]
    return inputs_grad


def avg_pool_backward(acts_grad, shape, sum=False, **scalars):
    inputs_grad = np.zeros(shape)
    for (y, x), (down, across) in windows(shape, acts_grad.shape, **scalars):
        area = 1 if sum else (down.stop - down.start) * (across.stop - across.start)
        inputs_grad[:, down, across] += acts_grad[:, y, None, x, None] / area
    return inputs_grad


def apart(*shape):
    """Numbers at least 0.01 from each other within a channel and image, and 0.007 in magnitude, so that no maximum is near a tie."""
    rng = np.random.default_rng(3)
    pixels = shape[1] * shape[2]
    order = rng.permuted(np.tile(np.arange(pixels), (shape[0], shape[3], 1)), axis=2)
    return (order.transpose(0, 2, 1).reshape(shape) - pixels // 2 + 0.25) / 64


def cases(name, shape, acts_shape=None, *, small=False, check=False, **scalars):
    """The ops on one shape. small: small integers, where everything but a division by 3 is exact."""
    acts_shape = acts_shape or outputs(shape, **scalars)
    inputs = integers(*shape) if small else apart(*shape) if check else normal(*shape)
    acts_grad = integers(*acts_shape, low=-9, high=9, seed=1) if small else normal(*acts_shape, seed=1)
    acts, far = (pool(inputs, acts_shape, reduce, **scalars) for reduce in (np.max, maxabs))
    areas = [(d.stop - d.start) * (a.stop - a.start) for _, (d, a) in windows(shape, acts_shape, **scalars)]
    exact = small and all(area & (area - 1) == 0 for area in areas)
    overlap = (-(-scalars["size"] // scalars["stride"])) ** 2

    def forward(reduce):
        return lambda inputs, sum=False, **scalars: pool(inputs, acts_shape, reduce, **scalars)

    def backward(acts_grad, **scalars):
        return avg_pool_backward(acts_grad, shape, **scalars)

    def max_magnitude(inputs, acts, acts_grad, **scalars):
        return max_pool_backward(inputs, acts, np.abs(acts_grad), **scalars)

    def cost(reduce):
        return (lambda x: (pool(x, acts_shape, reduce, **scalars) * acts_grad).sum()) if check else None

    ins, outs = {"inputs": inputs}, {"acts": acts_shape}
    grad, ins_grad = {"acts_grad": acts_grad}, {"inputs_grad": shape}
    shared = Case("avg_pool_backward", name, grad, ins_grad, backward, scalars, sums=overlap, exact=exact, cost=cost(np.mean), at=inputs)
    return [
        Case("max_pool_forward", name, ins, outs, forward(np.max), scalars, exact=True),
        Case("avg_pool_forward", name, ins, outs, forward(np.mean), scalars, sums=max(areas), exact=exact),
        Case("max_pool_backward", name, ins | {"acts": acts} | grad, ins_grad, max_pool_backward, scalars, max_magnitude,
             sums=overlap, exact=small, cost=cost(np.max), at=inputs),
        shared,
        behind_relu(shared, "avg_pool_relu_backward", "inputs", inputs),
        Case("avg_pool_forward", f"{name}-sum", ins, outs, forward(np.sum), scalars | {"sum": True}, sums=max(areas), exact=small),
        Case("avg_pool_backward", f"{name}-sum", grad, ins_grad, backward, scalars | {"sum": True}, sums=overlap, exact=small, cost=cost(np.sum), at=inputs),
        Case("maxabs_pool_forward", name, ins, outs, forward(maxabs), scalars, exact=True),
        Case("max_pool_backward", f"{name}-maxabs", ins | {"acts": far} | grad, ins_grad, max_pool_backward, scalars, max_magnitude,
             sums=overlap, exact=small, cost=cost(maxabs), at=inputs),
    ]


def cross_map_windows(channels, outputs, size, stride, start):
    return [slice(max(0, start + o * stride), min(channels, start + o * stride + size)) for o in range(outputs)]


def cross_map_max(inputs, outputs, **scalars):
    return np.stack([inputs[window].max(0) for window in cross_map_windows(len(inputs), outputs, **scalars)])


def cross_map_max_backward(inputs, acts, acts_grad, **scalars):
    inputs_grad = np.zeros_like(inputs)
    for o, window in enumerate(cross_map_windows(len(inputs), len(acts), **scalars)):
        inputs_grad[window] += (inputs[window] == acts[o]) * acts_grad[o]
    return inputs_grad


def cross_map_cases(name, shape, outputs, *, small=False, check=False, **scalars):
    inputs = integers(*shape) if small else apart(1, *shape[:1], shape[1] * shape[2], shape[3]).reshape(shape) if check else normal(*shape)
    acts = cross_map_max(inputs, outputs, **scalars)
    acts_grad = integers(*acts.shape, low=-9, high=9, seed=1) if small else normal(*acts.shape, seed=1)
    return [
        Case("cross_map_max_pool_forward", name, {"inputs": inputs}, {"acts": acts.shape}, lambda inputs, **k: cross_map_max(inputs, outputs, **k),
             scalars, exact=True),
        Case("cross_map_max_pool_backward", name, {"inputs": inputs, "acts": acts, "acts_grad": acts_grad}, {"inputs_grad": shape}, cross_map_max_backward,
             scalars, lambda inputs, acts, acts_grad, **k: cross_map_max_backward(inputs, acts, np.abs(acts_grad), **k),
             sums=-(-scalars["size"] // scalars["stride"]), exact=small,
             cost=(lambda x: (cross_map_max(x, outputs, **scalars) * acts_grad).sum()) if check else None, at=inputs),
    ]


CASES = [
    *cases("overlapping", (3, 7, 9, 5), size=3, stride=2, start=0),
    *cases("far-edge-clipped", (3, 8, 6, 3), size=3, stride=2, start=0),
    *cases("windows-side-by-side", (7, 6, 4, 3), size=2, stride=2, start=0),
    *cases("every-pixel-129-images", (1, 4, 5, 129), size=3, stride=1, start=0),
    *cases("start-before-the-image", (3, 7, 5, 3), size=3, stride=2, start=-1),
    *cases("same-size", (3, 4, 5, 3), (3, 4, 5, 3), size=3, stride=1, start=-1),
    *cases("start-inside", (3, 9, 7, 1), size=3, stride=2, start=2),
    *cases("17-channels", (17, 5, 3, 1), size=3, stride=3, start=0),
    *cases("one-window", (3, 4, 7, 3), (3, 1, 1, 3), size=7, stride=1, start=0),
    *cases("one-element", (1, 1, 1, 1), size=1, stride=1, start=0),
    *cases("fewer-outputs", (3, 9, 9, 3), (3, 2, 3, 3), size=3, stride=2, start=0),
    *cases("pixels-in-no-window", (3, 7, 8, 3), (3, 3, 3, 3), size=2, stride=3, start=0),
    *cases("more-images-than-a-tile", (1, 3, 3, 300), size=2, stride=1, start=0),
    *cases("many-ties", (3, 7, 9, 5), small=True, size=3, stride=2, start=0),
    *cases("many-ties-start-before", (3, 6, 5, 3), small=True, size=4, stride=2, start=-2),
    *cases("integers", (3, 8, 6, 129), small=True, size=2, stride=2, start=0),
    *cases("one-image-stride-5", (2, 13, 18, 1), (2, 3, 4, 1), small=True, size=3, stride=5, start=-1),
    *cases("window-wider-than-a-row", (2, 5, 3, 2), (2, 1, 1, 2), small=True, size=7, stride=1, start=-1),
    *cases("integers-clipped", (3, 7, 5, 3), small=True, size=2, stride=1, start=-1),
    *cases("gradient-overlapping", (2, 6, 5, 3), check=True, size=3, stride=2, start=0),
    *cases("gradient-start-before", (2, 5, 6, 2), check=True, size=3, stride=2, start=-1),
    *cross_map_cases("overlapping", (7, 3, 2, 5), 3, size=3, stride=2, start=0),
    *cross_map_cases("start-before-the-first", (7, 2, 3, 3), 4, size=3, stride=2, start=-1),
    *cross_map_cases("last-clipped", (8, 1, 1, 129), 3, size=3, stride=3, start=0),
    *cross_map_cases("side-by-side", (6, 4, 3, 3), 3, size=2, stride=2, start=0),
    *cross_map_cases("every-channel", (5, 3, 3, 7), 5, size=3, stride=1, start=-1),
    *cross_map_cases("fewer-channels-than-lines", (2, 5, 3, 2), 1, size=2, stride=2, start=0),
    *cross_map_cases("one-window", (17, 1, 1, 5), 1, size=17, stride=1, start=0),
    *cross_map_cases("one-element", (1, 1, 1, 1), 1, size=1, stride=1, start=0),
    *cross_map_cases("many-ties", (9, 3, 4, 33), 4, small=True, size=3, stride=2, start=0),
    *cross_map_cases("gradient", (7, 2, 3, 2), 3, check=True, size=3, stride=2, start=0),
]

# A channel that the first window ends with: cuda-convnet2's backward pass divides towards 0 and forgets that window.
LAST_OF_THE_FIRST = np.array([0, 0, 1, 0, 0.5]).reshape(5, 1, 1, 1)
CASES.append(Case("cross_map_max_pool_backward", "channel-2-is-in-window-0",
                  {"inputs": LAST_OF_THE_FIRST, "acts": np.ones((2, 1, 1, 1)), "acts_grad": np.array([3.0, 5.0]).reshape(2, 1, 1, 1)},
                  {"inputs_grad": (5, 1, 1, 1)}, lambda *_, **__: np.array([0, 0, 8.0, 0, 0]).reshape(5, 1, 1, 1),
                  {"size": 3, "stride": 2, "start": 0}, exact=True))
# What is not a number must not hide behind one that is, wherever it stands.
for at in range(3):
    window = np.where(np.arange(3) == at, np.nan, np.array([3.0, -4, 2])).reshape(1, 1, 3, 1)
    CASES += [Case(op, f"nan-at-{at}", {"inputs": window}, {"acts": (1, 1, 1, 1)}, lambda *_, **__: np.full((1, 1, 1, 1), np.nan),
                   {"size": 3, "stride": 1, "start": 0}, exact=True) for op in ("max_pool_forward", "maxabs_pool_forward")]
