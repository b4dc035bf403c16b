"""Slices of images: pixels at equal steps."""
from __future__ import annotations

import numpy as np

from . import Case, integers


def pixels(acts_shape, top, left, down, across):
    return np.ix_(top + down * np.arange(acts_shape[1]), left + across * np.arange(acts_shape[2]))


def cases(name, shape, acts_shape, top=0, left=0, down=1, across=1):
    acts_shape = (shape[0], *acts_shape, shape[3])
    scalars = {"top": top, "left": left, "down": down, "across": across}
    inputs, acts_grad = integers(*shape), integers(*acts_shape, seed=1)

    def forward(inputs, **scalars):
        rows, columns = pixels(acts_shape, **scalars)
        return inputs[:, rows, columns]

    def backward(acts_grad, **scalars):
        inputs_grad = np.zeros(shape)
        rows, columns = pixels(acts_shape, **scalars)
        inputs_grad[:, rows, columns] = acts_grad
        return inputs_grad

    return [
        Case("slice_forward", name, {"inputs": inputs}, {"acts": acts_shape}, forward, scalars, exact=True),
        Case("slice_backward", name, {"acts_grad": acts_grad}, {"inputs_grad": shape}, backward, scalars, exact=True,
             cost=lambda x: (forward(x, **scalars) * acts_grad).sum(), at=inputs),
    ]


CASES = [
    *cases("crop", (3, 6, 7, 2), (3, 4), top=2, left=1),
    *cases("mirror-image", (3, 4, 5, 3), (4, 5), left=4, across=-1),
    *cases("every-other-pixel", (2, 5, 6, 3), (3, 3), down=2, across=2),
    *cases("every-third-pixel-inside", (2, 8, 7, 2), (2, 2), top=2, left=1, down=3, across=3),
    *cases("upside-down-in-steps", (1, 7, 5, 2), (3, 2), top=6, left=1, down=-2, across=3),
    *cases("all-pixels", (17, 2, 3, 2), (2, 3)),
    *cases("one-element", (1, 1, 1, 1), (1, 1)),
    *cases("129-images", (1, 3, 2, 129), (2, 1), top=1),
]
