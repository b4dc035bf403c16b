"""Fully connected layers."""
from __future__ import annotations

import numpy as np

from . import ROUNDED, Case, at_precision, behind_relu, integers, normal
from .sgd import EXACT, STATE, magnitude, sgd_update


def as_rows(array):
    """All dimensions but the images are one."""
    return array.reshape(-1, array.shape[-1])


def fc_forward(shape):
    return lambda inputs, weights: (weights.T @ as_rows(inputs)).reshape(shape)


def fc_bias_forward(shape):
    def forward(inputs, weights, biases, relu):
        acts = (weights.T @ as_rows(inputs) + biases[:, None]).reshape(shape)
        return np.maximum(acts, 0) if relu else acts
    return forward


def fc_backward_data(shape):
    return lambda acts_grad, weights: (weights @ as_rows(acts_grad)).reshape(shape)


def fc_backward_weights(inputs, acts_grad):
    return as_rows(inputs) @ as_rows(acts_grad).T


def update_case(name, inputs, acts_grad, exact=False, state=(3, 1, 0.5)):
    """fc_backward_update of some weights."""
    shape = (as_rows(inputs).shape[0], as_rows(acts_grad).shape[0])
    increments, weights = ((integers if exact else normal)(*shape, seed=seed) for seed in (5, 6))

    def updated(update):
        return lambda inputs, acts_grad, state, **scalars: update(state, fc_backward_weights(inputs, acts_grad), increments, weights, **scalars)

    def sizes(inputs, acts_grad, state, **scalars):
        return updated(magnitude)(np.abs(inputs), np.abs(acts_grad), state, **scalars)

    scalars = {"momentum": 0.9, "decay": 0.004, "images": inputs.shape[-1]} | {key: EXACT[key] for key in ("momentum", "decay", "images") if exact}
    return Case("fc_backward_update", name, {"inputs": inputs, "acts_grad": acts_grad, "state": np.array(state, np.float64)},
                {"increments": shape, "weights": shape}, updated(sgd_update), {"rate_slot": 0, **scalars}, sizes, sums=inputs.shape[-1] + 4, exact=exact,
                initial={"increments": increments, "weights": weights}, keep=STATE, adds=False)


def cases(name, inputs, acts, exact=False, check=False):
    """Forward, that with biases and relu, both backwards, that of the inputs of a relu, and an update, of inputs (..., images) and acts (..., images)."""
    I, O, images = int(np.prod(inputs[:-1])), int(np.prod(acts[:-1])), inputs[-1]
    values = integers if exact else normal
    x, w, d, b = values(*inputs, seed=1), values(I, O, seed=2), values(*acts, seed=3), values(O, seed=4)
    forward = fc_forward(acts)

    def cost_of_inputs(at):
        return (forward(at, w) * d).sum()

    def cost_of_weights(at):
        return (forward(x, at) * d).sum()

    data = Case("fc_backward_data", name, {"acts_grad": d, "weights": w}, {"inputs_grad": inputs}, fc_backward_data(inputs),
                sums=O, exact=exact, cost=cost_of_inputs if check else None, at=x)
    return [
        Case("fc_forward", name, {"inputs": x, "weights": w}, {"acts": acts}, forward, sums=I, exact=exact),
        Case("fc_bias_forward", name, {"inputs": x, "weights": w, "biases": b}, {"acts": acts}, fc_bias_forward(acts), {"relu": True},
             sums=I + 1, exact=exact, adds=False),
        data,
        behind_relu(data, "fc_relu_backward_data", "inputs", x),
        Case("fc_backward_weights", name, {"inputs": x, "acts_grad": d}, {"weights_grad": (I, O)}, fc_backward_weights,
             sums=images, exact=exact, cost=cost_of_weights if check else None, at=w),
        update_case(name, x, d, exact),
    ]


IN_PARTS = [cases("65-images-inputs-in-parts", (600, 65), (40, 65), exact=True), cases("65-images-outputs-in-parts", (40, 65), (600, 65), exact=True)]
CASES = [case for group in (
    cases("one-of-everything", (1, 1), (1, 1)),
    cases("1-image", (17, 1), (7, 1)),
    cases("3-images", (7, 3), (17, 3), exact=True),
    cases("5-images", (33, 5), (31, 5)),
    cases("129-images", (17, 129), (10, 129)),
    cases("128-images-64-outputs", (24, 128), (64, 128), exact=True),
    cases("1-input", (1, 9), (5, 9)),
    cases("1-output", (9, 6), (1, 6), exact=True),
    cases("pixels-are-inputs", (3, 5, 2, 7), (10, 7)),
    cases("acts-with-pixels", (2, 3, 3, 4), (13, 1, 1, 4), exact=True),
    cases("1000-inputs", (1000, 3), (10, 3)),
    cases("3000-inputs", (3000, 4), (40, 4), exact=True),
    cases("1000-outputs", (10, 4), (1000, 4)),
    cases("1-image-integers", (300, 1), (35, 1), exact=True),
    cases("2-images", (75, 2), (1100, 2), exact=True),
    cases("7-images", (130, 7), (17, 7), exact=True),
    cases("15-images", (40, 15), (33, 15), exact=True),
    cases("17-images", (37, 17), (70, 17), exact=True),
    cases("33-images", (19, 33), (3, 33), exact=True),
    cases("40-images-100-outputs", (70, 40), (100, 40), exact=True),
    cases("1-image-1-output", (33, 1), (1, 1), exact=True),
    cases("1-image-2000-inputs", (2000, 1), (50, 1), exact=True),
    cases("64-images-2-parts", (600, 64), (64, 64), exact=True),
    cases("over-a-tile", (70, 65), (130, 65)),
    *IN_PARTS,
    cases("300-images", (35, 300), (37, 300), exact=True),
    cases("gradient", (5, 3), (4, 3), check=True),
    cases("gradient-pixels", (3, 2, 3, 5), (7, 5), check=True),
) for case in group]
CASES += [update_case("whole-tiles-of-outputs", integers(70, 4, seed=1), integers(64, 4, seed=2), exact=True)]
CASES += [update_case("not-finite-changes-nothing", integers(7, 3), integers(17, 3), exact=True, state=(3, 0, 0.5))]
CASES += [at_precision(case, precision) for precision in ROUNDED for group in (cases("tensor-cores", (70, 65), (130, 65)), *IN_PARTS) for case in group]
