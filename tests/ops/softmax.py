"""Softmax over the rows of each image, and its gradient."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal


def rows_of(tensor):
    return tensor.reshape(-1, tensor.shape[-1])


def softmax_forward(inputs):
    exponentials = np.exp(inputs - rows_of(inputs).max(0))
    return exponentials / rows_of(exponentials).sum(0)


def softmax_forward_magnitude(inputs):
    """An error of x - max, which is as large as rounding makes it, is an error of the exponential relative to itself."""
    acts, distance = softmax_forward(inputs), rows_of(inputs).max(0) - inputs
    return acts * (1 + distance + rows_of(acts * distance).sum(0))


def softmax_backward(acts, acts_grad, sign=-1):
    return acts * (acts_grad + sign * rows_of(acts_grad * acts).sum(0))


def softmax_backward_magnitude(acts, acts_grad):
    return softmax_backward(np.abs(acts), np.abs(acts_grad), sign=1)


def rounded(array):
    return array.astype(np.float32).astype(np.float64)


def forward_case(name, inputs):
    return Case("softmax_forward", name, {"inputs": inputs}, {"acts": inputs.shape}, softmax_forward, {}, softmax_forward_magnitude,
                sums=rows_of(inputs).shape[0], steps=3)


def backward_case(name, shape, check=False):
    inputs, acts_grad = normal(*shape), normal(*shape, seed=1)
    acts = softmax_forward(inputs)
    cost = (lambda x: (softmax_forward(x) * acts_grad).sum()) if check else None
    return Case("softmax_backward", name, {"acts": acts if check else rounded(acts), "acts_grad": acts_grad}, {"inputs_grad": shape},
                softmax_backward, {}, softmax_backward_magnitude, sums=rows_of(inputs).shape[0] + 1, steps=1, cost=cost, at=inputs)


SHAPES = {"1-class": (1, 1, 1, 3), "3-classes": (3, 1, 1, 1), "7-classes": (7, 1, 1, 5), "17-classes": (17, 1, 1, 129),
          "100-classes": (100, 1, 1, 33), "pixels": (3, 5, 3, 7), "rank-2": (10, 8)}
CASES = [forward_case(name, 3 * normal(*shape)) for name, shape in SHAPES.items()]
CASES += [
    forward_case("large", rounded(3000 * integers(17, 1, 1, 5, low=-1, high=1) + 5 * normal(17, 1, 1, 5))),
    forward_case("all-far-below-0", rounded(normal(7, 1, 1, 5) - 1000)),
    forward_case("equal", np.full((7, 1, 1, 3), 1e30)),
    forward_case("one-likely", np.where(np.arange(40).reshape(40, 1, 1, 1) == np.arange(40), 3000.0, 0.0)),
]
CASES += [backward_case(name, shape) for name, shape in SHAPES.items()]
CASES += [backward_case("gradient", (7, 1, 1, 3), check=True), backward_case("gradient-many-rows", (40, 1, 1, 2), check=True)]
