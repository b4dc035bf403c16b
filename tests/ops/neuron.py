"""The nonlinearities of the config language."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal

# x, a, b -> f(x)
VALUES = {
    "ident": lambda x, a, b: x,
    "relu": lambda x, a, b: np.maximum(0, x),
    "logistic": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "tanh": lambda x, a, b: a * np.tanh(b * x),
    "softrelu": lambda x, a, b: np.where(x > 4, x, np.log1p(np.exp(np.minimum(x, 4)))),
    "abs": lambda x, a, b: np.abs(x),
    "square": lambda x, a, b: x**2,
    "sqrt": lambda x, a, b: np.sqrt(x),
    "linear": lambda x, a, b: a * x + b,
    "brelu": lambda x, a, b: np.minimum(a, np.maximum(0, x)),
    "drelu": lambda x, a, b: x - a * np.tanh(x / a),
    "log": lambda x, a, b: np.log(a + x),
}

# saved, a, b -> f'(x): the inputs x are saved for those in SAVES_INPUTS, else the acts y
SLOPES = {
    "ident": lambda y, a, b: np.ones_like(y),
    "relu": lambda y, a, b: y > 0,
    "logistic": lambda y, a, b: y * (1 - y),
    "tanh": lambda y, a, b: a * b * (1 - (y / a) ** 2),
    "softrelu": lambda x, a, b: np.where(x > 4, 1, 1 / (1 + np.exp(-x))),
    "abs": lambda x, a, b: np.where(x > 0, 1, -1),
    "square": lambda x, a, b: 2 * x,
    "sqrt": lambda y, a, b: 1 / (2 * y),
    "linear": lambda y, a, b: np.full_like(y, a),
    "brelu": lambda y, a, b: (y > 0) & (y < a),
    "drelu": lambda x, a, b: np.tanh(x / a) ** 2,
    "log": lambda x, a, b: 1 / (a + x),
}
SAVES_INPUTS = {"abs", "square", "softrelu", "drelu", "log"}


def neuron_forward(inputs, neuron, a=1.0, b=1.0):
    return VALUES[neuron](inputs, a, b)


def neuron_backward(saved, acts_grad, neuron, a=1.0, b=1.0):
    return acts_grad * SLOPES[neuron](saved, a, b)


def forward_magnitude(inputs, neuron, a=1.0, b=1.0):
    terms = {"drelu": lambda x: np.abs(x) + np.abs(a * np.tanh(x / a)), "log": lambda x: 1 + np.abs(np.log(a + x))}
    return terms[neuron](inputs) if neuron in terms else neuron_forward(np.abs(inputs), neuron, abs(a), abs(b))


def backward_magnitude(saved, acts_grad, neuron, a=1.0, b=1.0):
    terms = {"logistic": lambda y: y * (1 + y), "tanh": lambda y: abs(a * b) * (1 + (y / a) ** 2), "softrelu": lambda x: np.ones_like(x)}
    return np.abs(acts_grad) * np.abs(terms[neuron](saved) if neuron in terms else SLOPES[neuron](saved, a, b))


def rounded(array):
    return array.astype(np.float32).astype(np.float64)


def cases(name, neuron, inputs, exact=False, exact_backward=None, **ab):
    """Both directions on the same inputs."""
    scalars = {"neuron": neuron, **ab}
    acts_grad = integers(*inputs.shape, low=-9, high=9, seed=1) if exact else normal(*inputs.shape, seed=1)
    saved = inputs if neuron in SAVES_INPUTS else rounded(neuron_forward(inputs, **scalars))
    name, outputs = f"{neuron}-{name}", {"acts": inputs.shape}
    return [
        Case("neuron_forward", name, {"inputs": inputs}, outputs, neuron_forward, scalars, forward_magnitude, steps=3, exact=exact),
        Case("neuron_backward", name, {"saved": saved, "acts_grad": acts_grad}, {"inputs_grad": inputs.shape}, neuron_backward, scalars,
             backward_magnitude, steps=3, exact=exact if exact_backward is None else exact_backward),
    ]


def gradient_case(neuron, inputs, **ab):
    """The gradient by central differences; inputs at least 4h = 0.004 from every kink."""
    scalars = {"neuron": neuron, **ab}
    acts_grad = normal(*inputs.shape, seed=1)
    saved = inputs if neuron in SAVES_INPUTS else neuron_forward(inputs, **scalars)
    return Case("neuron_backward", f"{neuron}-gradient", {"saved": saved, "acts_grad": acts_grad}, {"inputs_grad": inputs.shape}, neuron_backward,
                scalars, backward_magnitude, steps=4, cost=lambda x: (neuron_forward(x, **scalars) * acts_grad).sum(), at=inputs)


def away_from(points, inputs, by=0.01):
    for point in points:
        inputs = np.where(np.abs(inputs - point) < by, point + by * np.where(inputs < point, -1, 1), inputs)
    return rounded(inputs)


PLAIN, WIDE = normal(3, 5, 4, 3), 4 * normal(7, 2, 3, 5)
SQUARES = integers(3, 5, 4, 3, low=1, high=30) ** 2
AB = {"tanh": {"a": 1.7159, "b": 0.6666}, "linear": {"a": 0.3, "b": 1.7}, "brelu": {"a": 1.25}, "drelu": {"a": 0.7}, "log": {"a": 1.5}}
KINKS = {"relu": [0], "abs": [0], "brelu": [0, 1.25], "softrelu": [4]}

CASES = []
for kind in VALUES:
    inputs = np.abs(WIDE) + 0.1 if kind in ("sqrt", "log") else WIDE
    CASES += cases("plain", kind, rounded(inputs), **AB.get(kind, {}))
    CASES += cases("in-runs", kind, rounded(np.resize(inputs, (8, 2, 2, 33))), **AB.get(kind, {}))
    CASES += [gradient_case(kind, away_from(KINKS.get(kind, []), inputs[:, :, :, :2]), **AB.get(kind, {}))]

# Small integers, with zeros, on which the arithmetic is exact.
WHOLE = integers(3, 5, 4, 3)
for kind in ("ident", "relu", "abs", "square"):
    CASES += cases("integers", kind, WHOLE, exact=True)
CASES += cases("integers", "linear", WHOLE, exact=True, a=2.0, b=-3.0)
CASES += cases("integers", "brelu", WHOLE, exact=True, a=2.0)
CASES += cases("integers", "sqrt", SQUARES, exact=True, exact_backward=False)

for shape in ((1, 1, 1, 1), (17, 1, 1, 5), (2, 3, 1, 129), (17, 65)):
    name = "x".join(map(str, shape))
    CASES += cases(name, "relu", integers(*shape), exact=True)
    CASES += cases(name, "logistic", normal(*shape))

# Far out nothing overflows, and softrelu is the identity from 4 on, but not at 4.
FAR = np.array([-700, -60, -20, -4, 3.9999, 4, 4.0001, 20, 60, 700]).reshape(10, 1, 1, 1)
for kind in ("logistic", "tanh", "softrelu", "drelu"):
    CASES += cases("far", kind, rounded(FAR))
