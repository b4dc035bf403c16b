"""Biases: one for each map (shared) or one for each pixel of each map (unshared)."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal


def cases(name, shape, *, shared, exact=False, check=False):
    count = shape[0] if shared else int(np.prod(shape[:-1]))
    biases = normal(count)
    acts_grad = integers(*shape, seed=1) if exact else normal(*shape, seed=1)

    def forward(biases):
        of_rows = biases.reshape(shape[0], *[1] * (len(shape) - 1)) if shared else biases.reshape(*shape[:-1], 1)
        return np.broadcast_to(of_rows, shape)

    def backward(acts_grad):
        return acts_grad.reshape(count, -1).sum(1)

    cost = (lambda b: (forward(b) * acts_grad).sum()) if check else None
    return [
        Case("bias_forward", name, {"biases": biases}, {"acts": shape}, forward, exact=True),
        Case("bias_backward", name, {"acts_grad": acts_grad}, {"biases_grad": (count,)}, backward,
             sums=acts_grad.size // count, steps=0, exact=exact, cost=cost, at=biases),
    ]


CASES = [
    *cases("shared", (3, 5, 4, 3), shared=True),
    *cases("unshared", (3, 5, 4, 3), shared=False),
    *cases("shared-129-images", (7, 3, 2, 129), shared=True),
    *cases("unshared-129-images", (7, 3, 2, 129), shared=False),
    *cases("one-element", (1, 1, 1, 1), shared=True),
    *cases("one-map", (1, 6, 7, 5), shared=True),
    *cases("fully-connected", (17, 1, 1, 65), shared=True),
    *cases("rank-2", (17, 5), shared=True),
    *cases("shared-1-image", (5, 11, 13, 1), shared=True, exact=True),
    *cases("shared-16-images", (5, 3, 3, 16), shared=True, exact=True),
    *cases("shared-integers", (17, 7, 6, 5), shared=True, exact=True),
    *cases("unshared-integers", (3, 2, 2, 300), shared=False, exact=True),
    *cases("shared-in-parts", (2, 9, 9, 129), shared=True),
    *cases("33-shared-in-parts", (33, 12, 12, 33), shared=True, exact=True),
    *cases("shared-in-parts-of-few-images", (2, 48, 48, 3), shared=True, exact=True),
    *cases("shared-more-images-than-a-block-reads-at-once", (3, 7, 5, 300), shared=True, exact=True),
    *cases("gradient-shared", (3, 5, 4, 3), shared=True, check=True),
    *cases("gradient-unshared", (3, 2, 4, 3), shared=False, check=True),
]
