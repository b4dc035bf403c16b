"""Costs that are sums over elements (SEMANTICS 7.3), and their gradients."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal
from .softmax import rounded, rows_of


def sum2_forward(inputs):
    return np.array([(inputs**2).sum()])


def gsum2_forward(gates, inputs):
    return np.array([(gates * inputs**2).sum()])


def gsum2_backward_gates(inputs, coeff):
    return coeff * (rows_of(inputs) ** 2).sum(0).reshape(1, 1, 1, -1)


def gsum2_backward_inputs(gates, inputs, coeff):
    return 2 * coeff * gates * inputs


def rflickr_forward(targets, inputs):
    return np.array([np.log(1 + (inputs - targets) ** 2).sum()])


def rflickr_backward(targets, inputs, coeff):
    return 2 * coeff * (inputs - targets) / (1 + (inputs - targets) ** 2)


def rflickr_backward_magnitude(targets, inputs, coeff):
    """The difference is rounded as its terms are large."""
    return 2 * abs(coeff) * (np.abs(inputs) + np.abs(targets)) / (1 + (inputs - targets) ** 2)


def safe_log(p):
    return np.log(p, where=p > 0, out=np.full(p.shape, -50.0))


def safe_inverse(p):
    return np.where(p > 0, 1 / np.maximum(p, 2.0**-126), 0)


def entropy(targets, probs, positive_weight):
    return -(positive_weight * targets * safe_log(probs) + (1 - targets) * safe_log(1 - probs)).sum()


def bce_forward(targets, probs, positive_weight):
    t, p = rows_of(targets), rows_of(probs)
    likeliest = p == p.max(0)
    return np.array([entropy(targets, probs, positive_weight), ((p > 0.5) != t).sum() / len(p),
                     (1 - (t * likeliest).sum(0) / likeliest.sum(0)).sum()])


def bce_forward_magnitude(targets, probs, positive_weight):
    """A share is measured by what it is a share of."""
    costs = bce_forward(targets, probs, positive_weight)
    return np.array([costs[0], costs[1], np.where(costs[2] > 0, probs.shape[-1], 0)])


def bce_backward(targets, probs, coeff, positive_weight, sign=-1):
    return coeff * ((1 - targets) * safe_inverse(1 - probs) + sign * positive_weight * targets * safe_inverse(probs))


def bce_backward_magnitude(targets, probs, coeff, positive_weight):
    """1 - p is rounded to a number near 1, where it is near 0."""
    return abs(coeff) * ((1 - targets) * safe_inverse(1 - probs) + positive_weight * targets * safe_inverse(probs))


def bce_logistic_backward(targets, probs, coeff, positive_weight, sign=-1):
    return coeff * ((1 - targets) * probs + sign * positive_weight * targets * (1 - probs))


def bce_logistic_backward_magnitude(targets, probs, coeff, positive_weight):
    return bce_logistic_backward(targets, probs, abs(coeff), positive_weight, sign=1)


def logistic(x):
    return 1 / (1 + np.exp(-x))


FLOAT64 = {"costs": "float64"}


def square_cases(name, shape, exact=False, check=False, coeff=1.0):
    """sum2 and gsum2."""
    x = integers(*shape) if exact else normal(*shape)
    gates = integers(1, 1, 1, shape[-1], seed=1) if exact else normal(1, 1, 1, shape[-1], seed=1)

    def cost(of):
        return of if check else None

    return [
        Case("sum2_forward", name, {"inputs": x}, {"costs": (1,)}, sum2_forward, sums=x.size, exact=exact, keep=FLOAT64),
        Case("gsum2_forward", name, {"gates": gates, "inputs": x}, {"costs": (1,)}, gsum2_forward, sums=x.size, exact=exact, keep=FLOAT64),
        Case("gsum2_backward_gates", name, {"inputs": x}, {"gates_grad": gates.shape}, gsum2_backward_gates, {"coeff": coeff},
             sums=x.size // shape[-1], exact=exact, cost=cost(lambda g: coeff * gsum2_forward(g, x)[0]), at=gates),
        Case("gsum2_backward_inputs", name, {"gates": gates, "inputs": x}, {"inputs_grad": shape}, gsum2_backward_inputs, {"coeff": coeff},
             exact=exact, cost=cost(lambda x: coeff * gsum2_forward(gates, x)[0]), at=x),
    ]


def rflickr_cases(name, shape, coeff=1.0, check=False, apart=1.0):
    targets, x = normal(*shape, seed=1), apart * normal(*shape)
    ins = {"targets": targets, "inputs": rounded(x)}
    return [
        Case("rflickr_forward", name, ins, {"costs": (1,)}, rflickr_forward, sums=x.size, steps=2, keep=FLOAT64),
        Case("rflickr_backward", name, ins, {"inputs_grad": shape}, rflickr_backward, {"coeff": coeff}, rflickr_backward_magnitude, sums=2, steps=1,
             cost=(lambda x: coeff * rflickr_forward(targets, x)[0]) if check else None, at=x),
    ]


def bce_cases(name, shape, coeff=1.0, positive_weight=1.0, probs=None, targets=None, check=False):
    """`check`: probabilities between 0.2 and 0.8, where their cost's higher derivatives are small enough for differences."""
    x = normal(*shape)
    if targets is None:
        targets = integers(*shape, low=0, high=1, seed=1)
    if probs is None:
        probs = np.random.default_rng(3).uniform(0.2, 0.8, shape) if check else rounded(logistic(2 * x))
    scalars, ins = {"positive_weight": positive_weight}, {"targets": targets, "probs": probs}
    slopes = {"coeff": coeff, **scalars}
    return [
        Case("bce_forward", name, ins, {"costs": (3,)}, bce_forward, scalars, bce_forward_magnitude, sums=probs.size, steps=2, keep=FLOAT64),
        Case("bce_backward", name, ins, {"probs_grad": shape}, bce_backward, slopes, bce_backward_magnitude, sums=2, steps=2,
             cost=(lambda p: coeff * entropy(targets, p, positive_weight)) if check else None, at=probs),
        Case("bce_logistic_backward", name, {"targets": targets, "probs": logistic(x) if check else probs}, {"inputs_grad": shape},
             bce_logistic_backward, slopes, bce_logistic_backward_magnitude, sums=2,
             cost=(lambda x: coeff * entropy(targets, logistic(x), positive_weight)) if check else None, at=x),
    ]


def columns(*images):
    return np.array(images, np.float64).T.reshape(len(images[0]), 1, 1, len(images))


def known_costs(name, targets, probs, expected):
    """The costs as they were worked out by hand."""
    return Case("bce_forward", name, {"targets": columns(*targets), "probs": columns(*probs)}, {"costs": (3,)},
                lambda targets, probs, positive_weight: np.array(expected), {"positive_weight": 1.0}, exact=True, keep=FLOAT64)


SHAPES = {"one-element": (1, 1, 1, 1), "pixels": (3, 5, 4, 3), "17-rows": (17, 1, 1, 5), "129-images": (7, 2, 3, 129), "70-rows": (70, 1, 1, 33)}
CASES = [case for name, shape in SHAPES.items() for group in (square_cases, rflickr_cases, bce_cases) for case in group(name, shape)]
CASES += [
    *square_cases("integers", (7, 3, 5, 65), exact=True),
    *square_cases("integers-coeff", (40, 1, 1, 5), exact=True, coeff=-2.0),
    *square_cases("gradient", (3, 2, 2, 5), check=True, coeff=0.7),
    *rflickr_cases("coeff", (9, 1, 1, 7), coeff=-0.3),
    *rflickr_cases("far-off", (9, 1, 1, 7), apart=1e4),
    *rflickr_cases("gradient", (5, 2, 1, 3), coeff=0.7, check=True),
    *bce_cases("coeff", (9, 1, 1, 7), coeff=-0.3),
    *bce_cases("positive-weight", (9, 1, 1, 37), positive_weight=3.5),
    *bce_cases("soft-targets", (9, 1, 1, 7), targets=rounded(np.random.default_rng(4).uniform(0, 1, (9, 1, 1, 7)))),
    *bce_cases("probs-0-and-1", (9, 1, 1, 7), probs=integers(9, 1, 1, 7, low=0, high=1)),
    *bce_cases("tiny-probs", (2, 1, 1, 2), probs=rounded(np.array([1e-44, 1e-30, 1e-38, 1e-20]).reshape(2, 1, 1, 2))),
    *bce_cases("all-equally-likely", (9, 1, 1, 7), probs=np.full((9, 1, 1, 7), 0.25)),
    *bce_cases("70-rows-equally-likely", (70, 1, 1, 7), probs=np.full((70, 1, 1, 7), 0.25)),
    *bce_cases("gradient", (5, 2, 1, 3), coeff=0.7, positive_weight=2.5, check=True),
    known_costs("certain-and-right", [(0, 1), (1, 0)], [(0, 1), (1, 0)], (0, 0, 0)),
    known_costs("certain-and-wrong", [(0, 1), (1, 0)], [(1, 0), (0, 1)], (200, 2, 2)),
    known_costs("likeliest-of-three-labels", [(1, 1, 0, 0), (0, 1, 1, 0)], [(1, 0, 0, 0), (1, 0, 0, 0)], (200, 1, 1)),
    known_costs("ties-share", [(1, 0, 0, 0), (1, 1, 0, 0)], [(1, 1, 0, 0), (1, 1, 1, 1)], (150, 0.75, 1)),
]
