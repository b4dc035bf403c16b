"""Max- and average-pooling over overlapping windows, clipped to the image."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal


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


def max_pool_backward(inputs, acts, acts_grad, **scalars):
    inputs_grad = np.zeros_like(inputs)
    for (y, x), (down, across) in windows(inputs.shape, acts.shape, **scalars):
        equal = inputs[:, down, across] == acts[:, y, None, x, None]
        inputs_grad[:, down, across] += equal * acts_grad[:, y, None, x, None]
    return inputs_grad


def avg_pool_backward(acts_grad, shape, **scalars):
    inputs_grad = np.zeros(shape)
    for (y, x), (down, across) in windows(shape, acts_grad.shape, **scalars):
        area = (down.stop - down.start) * (across.stop - across.start)
        inputs_grad[:, down, across] += acts_grad[:, y, None, x, None] / area
    return inputs_grad


def apart(*shape):
    """Numbers at least 0.01 from each other within a channel and image, so that no maximum is near a tie."""
    rng = np.random.default_rng(3)
    pixels = shape[1] * shape[2]
    order = rng.permuted(np.tile(np.arange(pixels), (shape[0], shape[3], 1)), axis=2)
    return (order.transpose(0, 2, 1).reshape(shape) - pixels // 2) / 64


def cases(name, shape, acts_shape=None, *, small=False, check=False, **scalars):
    """The four ops on one shape. small: small integers, where everything but a division by 3 is exact."""
    acts_shape = acts_shape or outputs(shape, **scalars)
    inputs = integers(*shape) if small else apart(*shape) if check else normal(*shape)
    acts_grad = integers(*acts_shape, low=-9, high=9, seed=1) if small else normal(*acts_shape, seed=1)
    acts = pool(inputs, acts_shape, np.max, **scalars)
    areas = [(d.stop - d.start) * (a.stop - a.start) for _, (d, a) in windows(shape, acts_shape, **scalars)]
    exact = small and all(area & (area - 1) == 0 for area in areas)
    overlap = (-(-scalars["size"] // scalars["stride"])) ** 2

    def forward(reduce):
        return lambda inputs, **scalars: pool(inputs, acts_shape, reduce, **scalars)

    def backward(acts_grad, **scalars):
        return avg_pool_backward(acts_grad, shape, **scalars)

    def max_magnitude(inputs, acts, acts_grad, **scalars):
        return max_pool_backward(inputs, acts, np.abs(acts_grad), **scalars)

    def cost(reduce):
        return (lambda x: (pool(x, acts_shape, reduce, **scalars) * acts_grad).sum()) if check else None

    ins, outs = {"inputs": inputs}, {"acts": acts_shape}
    grad, ins_grad = {"acts_grad": acts_grad}, {"inputs_grad": shape}
    return [
        Case("max_pool_forward", name, ins, outs, forward(np.max), scalars, exact=True),
        Case("avg_pool_forward", name, ins, outs, forward(np.mean), scalars, sums=max(areas), exact=exact),
        Case("max_pool_backward", name, ins | {"acts": acts} | grad, ins_grad, max_pool_backward, scalars, max_magnitude,
             sums=overlap, exact=small, cost=cost(np.max), at=inputs),
        Case("avg_pool_backward", name, grad, ins_grad, backward, scalars, sums=overlap, exact=exact, cost=cost(np.mean), at=inputs),
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
    *cases("integers-clipped", (3, 7, 5, 3), small=True, size=2, stride=1, start=-1),
    *cases("gradient-overlapping", (2, 6, 5, 3), check=True, size=3, stride=2, start=0),
    *cases("gradient-start-before", (2, 5, 6, 2), check=True, size=3, stride=2, start=-1),
]
