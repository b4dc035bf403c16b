"""Max-pooling over normalized maps: the two ops one after the other."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal
from .lrn import lrn_backward, lrn_forward
from .pool import max_pool_backward, outputs, pool

POOL = {"pool_size": "size", "stride": "stride", "start": "start"}


def split(size, scale, power, bias, relu=False, **window):
    """The scalars of lrn_forward, and of max_pool_forward."""
    return {"size": size, "scale": scale, "power": power, "bias": bias}, {POOL[name]: value for name, value in window.items()}


def lrn_max_pool_forward(inputs, acts_shape, **scalars):
    lrn, window = split(**scalars)
    return pool(lrn_forward(inputs, **lrn)[1], acts_shape, np.max, **window)


def lrn_max_pool_backward(inputs, acts, acts_grad, sign=1, **scalars):
    """sign=-1: all terms taken absolutely."""
    lrn, window = split(**scalars)
    denoms, norms = lrn_forward(inputs, **lrn)
    del lrn["bias"]
    norms_grad = max_pool_backward(norms, acts, acts_grad if sign > 0 else np.abs(acts_grad), **window)
    return lrn_backward(inputs if sign > 0 else np.abs(inputs), denoms, norms_grad, **lrn, sign=-sign)


def sparse(size, *shape):
    """0, 1 and -1, of which the latter are at least `size` channels apart: denominators of 1 + 15 x^2 have roots that are whole numbers."""
    rng = np.random.default_rng(3)
    channels = np.arange(shape[0]).reshape(-1, 1, 1, 1)
    return (channels % size == rng.integers(0, size, (1, *shape[1:]))) * rng.choice([-1.0, 1.0], shape)


def cases(name, shape, size, acts_shape=None, *, power=0.75, small=False, check=False, **window):
    """Both ops on one shape; small: where all of it is exact."""
    acts_shape = acts_shape or outputs(shape, **split(size, 0, 0, 0, **window)[1])
    scalars = {"size": size, "scale": 15.0 if small else 0.3, "power": power, "bias": 1.0, **window}
    inputs = sparse(size, *shape) if small else normal(*shape)
    acts_grad = integers(*acts_shape, low=-9, high=9, seed=1) if small else normal(*acts_shape, seed=1)
    acts = lrn_max_pool_forward(inputs, acts_shape, **scalars)
    overlap = (-(-window["pool_size"] // window["stride"])) ** 2

    def forward(inputs, **scalars):
        return lrn_max_pool_forward(inputs, acts_shape, **scalars)

    def magnitude(*arrays, **scalars):
        return lrn_max_pool_backward(*arrays, **scalars, sign=-1)

    def largest(inputs, **scalars):
        lrn, pool_window = split(**scalars)
        return pool(np.abs(lrn_forward(inputs, **lrn)[1]), acts_shape, np.max, **pool_window)

    return [
        Case("lrn_max_pool_forward", name, {"inputs": inputs}, {"acts": acts_shape}, forward, scalars, largest, sums=size, steps=2, exact=small),
        Case("lrn_max_pool_backward", name, {"inputs": inputs, "acts": acts, "acts_grad": acts_grad}, {"inputs_grad": shape}, lrn_max_pool_backward,
             scalars, magnitude, sums=size * overlap + size + 1, steps=4, exact=small,
             made={"acts": ("lrn_max_pool_forward", ["inputs"], scalars)}, at=inputs,
             cost=(lambda x: (forward(x, **scalars) * acts_grad).sum()) if check else None),
    ]


def sizes(name, shape, *of, **settings):
    return [case for size in of for case in cases(f"{name}-size{size}", shape, size, **settings)]


OVERLAPPING = {"pool_size": 3, "stride": 2, "start": 0}
CASES = [
    *sizes("exact", (11, 7, 9, 5), 5, 4, 3, 9, small=True, **OVERLAPPING),
    *sizes("overlapping", (11, 7, 9, 5), 3, 4, 5, **OVERLAPPING),
    *sizes("one-element", (1, 1, 1, 1), 1, 3, pool_size=1, stride=1, start=0),
    *sizes("several-patches-of-windows", (6, 20, 23, 3), 5, 3, **OVERLAPPING),
    *sizes("36-channels", (36, 4, 3, 3), 5, **OVERLAPPING),
    *sizes("33-images", (7, 5, 5, 33), 5, 2, **OVERLAPPING),
    *sizes("129-images", (3, 6, 4, 129), 3, pool_size=2, stride=2, start=0),
    *sizes("more-images-than-a-tile", (4, 3, 3, 300), 3, pool_size=2, stride=1, start=0),
    *sizes("one-image", (9, 13, 15, 1), 5, 4, **OVERLAPPING),
    *sizes("two-images-start-before", (6, 7, 5, 2), 5, pool_size=3, stride=2, start=-1),
    *sizes("start-before-the-image", (6, 7, 5, 17), 5, 4, pool_size=3, stride=2, start=-1),
    *sizes("start-inside", (5, 9, 7, 6), 3, pool_size=3, stride=2, start=2),
    *sizes("pixels-in-no-window", (5, 7, 8, 5), 5, acts_shape=(5, 3, 3, 5), pool_size=2, stride=3, start=0),
    *sizes("as-many-pixels-as-a-tile-has", (4, 8, 10, 3), 3, pool_size=7, stride=1, start=0),
    *sizes("larger-windows", (4, 11, 12, 3), 5, pool_size=8, stride=1, start=0),
    *sizes("every-pixel", (4, 10, 10, 3), 3, pool_size=1, stride=1, start=0),
    *sizes("power0.6", (7, 5, 5, 3), 5, 4, power=0.6, **OVERLAPPING),
    *sizes("window-wider-than-channels", (2, 5, 4, 3), 9, 7, **OVERLAPPING),
    *sizes("8-channels-a-thread", (10, 16, 16, 512), 5, pool_size=2, stride=2, start=0),
    *sizes("gradient", (7, 5, 6, 2), 5, 4, check=True, **OVERLAPPING),
    *sizes("gradient-one-image", (5, 5, 6, 1), 3, check=True, **OVERLAPPING),
]
