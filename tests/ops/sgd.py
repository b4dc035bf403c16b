"""SGD with momentum and weight decay (SEMANTICS 3.6), and the check that all costs were finite."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal

STATE = {"state": "float64"}


def sgd_update(state, weights_grad, increments, weights, rate_slot, momentum, decay, images):
    if state[1] != 1:
        return increments, weights
    rate = state[2 + rate_slot]
    increments = momentum * increments - rate * weights_grad / images - decay * rate * weights
    return increments, weights + increments


def magnitude(state, weights_grad, increments, weights, rate_slot, momentum, decay, images):
    if state[1] != 1:
        return np.abs(increments), np.abs(weights)
    rate = state[2 + rate_slot]
    increments = momentum * np.abs(increments) + rate * np.abs(weights_grad) / images + decay * rate * np.abs(weights)
    return increments, np.abs(weights) + increments


def update_case(name, shape, state=(3, 1, 0.01), slot=0, momentum=0.9, decay=0.004, images=128, exact=False):
    draw = (lambda seed: integers(*shape, seed=seed)) if exact else (lambda seed: normal(*shape, seed=seed))
    weights_grad, increments, weights = 16 * draw(0), draw(1), draw(2)
    return Case("sgd_update", name, {"state": np.array(state, np.float64), "weights_grad": weights_grad}, {"increments": shape, "weights": shape},
                lambda state, grad, **scalars: sgd_update(state, grad, increments, weights, **scalars),
                {"rate_slot": slot, "momentum": momentum, "decay": decay, "images": images},
                lambda state, grad, **scalars: magnitude(state, grad, increments, weights, **scalars),
                sums=4, steps=1, exact=exact, initial={"increments": increments, "weights": weights}, keep=STATE, adds=False)


def many(function):
    """Of one tensor: of several, the first outputs before the second ones."""
    def of_many(state, grads, increments, weights, **scalars):
        results = [function(state, *tensors, **{name: values[i] for name, values in scalars.items()})
                   for i, tensors in enumerate(zip(grads, increments, weights, strict=True))]
        return tuple(result[i] for i in range(2) for result in results)
    return of_many


def many_case(name, *shapes, state=(3, 1, 0.01, 0.02), exact=False):
    """Of tensors of these shapes; no two neighbours have the same scalars."""
    draw, count = integers if exact else normal, len(shapes)
    grads, increments, weights = ([draw(*shape, seed=3 * i + seed) for i, shape in enumerate(shapes)] for seed in range(3))
    scalars = {"rate_slot": (0, 1), "momentum": (0.5, 0.25, 0.75), "decay": (0.0, 0.25, 0.5), "images": (4, 4, 2)} if exact else {
        "rate_slot": (1, 0), "momentum": (0.9, 0.9, 0.8), "decay": (0.004, 0.0), "images": (128, 128, 128, 3)}
    named = {f"{kind} {i}": array for kind, arrays in (("increments", increments), ("weights", weights)) for i, array in enumerate(arrays)}
    return Case("sgd_update_many", name, {"state": np.array(state, np.float64), **{f"weights_grad {i}": array for i, array in enumerate(grads)}},
                {name: array.shape for name, array in named.items()},
                lambda state, *grads, **scalars: many(sgd_update)(state, grads, increments, weights, **scalars),
                {name: [values[i % len(values)] for i in range(count)] for name, values in scalars.items()},
                lambda state, *grads, **scalars: many(magnitude)(state, grads, increments, weights, **scalars),
                sums=4, steps=1, exact=exact, initial=named, keep=STATE, adds=False)


def adaptive_update(state, weights_grad, means, squares, increments, weights, rate_slot, momentum, decay, epsilon, images):
    if state[1] != 1:
        return means, squares, increments, weights
    rate, g = state[2 + rate_slot], weights_grad / images
    means = momentum * means + (1 - momentum) * g
    squares = momentum * squares + (1 - momentum) * g**2
    increments = momentum * increments - rate * g / np.sqrt(np.maximum(squares - means**2, 0) + epsilon) - decay * rate * weights
    return means, squares, increments, weights + increments


def adaptive_magnitude(state, weights_grad, means, squares, increments, weights, rate_slot, momentum, decay, epsilon, images):
    """A rounding error of the variance, relative to the squares, is half as large in its root relative to that."""
    if state[1] != 1:
        return tuple(map(np.abs, (means, squares, increments, weights)))
    new_means, new_squares, *_ = adaptive_update(state, weights_grad, means, squares, increments, weights, rate_slot, momentum, decay, epsilon, images)
    rate, g = state[2 + rate_slot], np.abs(weights_grad) / images
    variance = np.maximum(new_squares - new_means**2, 0) + epsilon
    means = momentum * np.abs(means) + (1 - momentum) * g
    step = rate * g / np.sqrt(variance) * (1 + (new_squares + means**2) / variance)
    increments = momentum * np.abs(increments) + step + decay * rate * np.abs(weights)
    return means, new_squares, increments, np.abs(weights) + increments


def adaptive_case(name, shape, state=(3, 1, 0.01), slot=0, momentum=0.9, decay=0.004, epsilon=0.01, images=128, first=False, exact=False, squares=None):
    """`first`: the averages are still 0, as at the first update; else squares are more than means^2, as they are later, or given."""
    draw = integers if exact else normal
    weights_grad, increments, weights = images * draw(*shape, seed=0), draw(*shape, seed=1), draw(*shape, seed=2)
    means = np.zeros(shape) if first else draw(*shape, seed=3)
    squares = means**2 + (0 if first else draw(*shape, seed=4)**2) if squares is None else np.full(shape, squares)
    initial = {"means": means, "squares": squares, "increments": increments, "weights": weights}
    before = tuple(initial.values())
    return Case("adaptive_update", name, {"state": np.array(state, np.float64), "weights_grad": weights_grad}, dict.fromkeys(initial, shape),
                lambda state, grad, **scalars: adaptive_update(state, grad, *before, **scalars),
                {"rate_slot": slot, "momentum": momentum, "decay": decay, "epsilon": epsilon, "images": images},
                lambda state, grad, **scalars: adaptive_magnitude(state, grad, *before, **scalars),
                sums=5, steps=3, exact=exact, initial=initial, keep=STATE, adds=False)


def check_finite(values, initial):
    state = initial.copy()
    if not np.isfinite(values).all():
        state[1] = 0
    return state


def finite_case(name, values, initial=(5, 1, 0.1), keep="float32"):
    initial = np.array(initial, np.float64)
    return Case("check_finite", name, {"values": values}, {"state": initial.shape}, lambda values: check_finite(values, initial), exact=True,
                initial={"state": initial}, keep={**STATE, **({"values": "float64"} if keep == "float64" else {})}, adds=False)


def but(array, value, *index):
    array = array.copy()
    array[index] = value
    return array


EXACT = {"momentum": 0.5, "decay": 0.25, "images": 4, "exact": True}
CASES = [update_case(name, shape) for name, shape in
         {"conv": (3, 5, 5, 7), "fc": (17, 129), "biases": (33,), "one": (1, 1), "shared-biases": (5,), "in-runs": (32, 33)}.items()]
CASES += [
    update_case("exact", (7, 17), state=(3, 1, 0.5), **EXACT),
    update_case("exact-in-runs", (64, 4), state=(3, 1, 0.5), **EXACT),
    update_case("second-rate", (7, 17), state=(3, 1, 8.0, 0.25), slot=1, **EXACT),
    update_case("rate-0", (7, 17), state=(3, 1, 0.0), **EXACT),
    update_case("no-decay", (7, 17), decay=0.0),
    update_case("last-minibatch-of-3", (7, 17), images=3),
    update_case("not-finite-changes-nothing", (7, 17), state=(3, 0, 0.5), **EXACT),
    many_case("one", (7, 17)),
    many_case("of-several-kinds", (3, 5, 5, 7), (33,), (17, 129), (1, 1), (5,)),
    many_case("the-largest-last", (5,), (2, 3), (300,), (7, 257)),
    many_case("one-more-than-a-block", (257,), (256,)),
    many_case("one-without-numbers", (5,), (0, 3), (3, 0), (4, 2)),
    many_case("exact", (7, 17), (300,), (2, 2, 2, 5), state=(3, 1, 0.5, 0.25), exact=True),
    many_case("as-many-as-there-may-be", *((i % 5 + 1, i + 1) for i in range(24))),
    many_case("not-finite-changes-nothing", (7, 17), (33,), state=(3, 0, 0.5, 0.5), exact=True),
    adaptive_case("conv", (3, 5, 5, 7)),
    adaptive_case("fc", (17, 129)),
    adaptive_case("one", (1, 1)),
    adaptive_case("first-update", (7, 17), first=True),
    adaptive_case("a-variance-below-0-counts-as-0", (7, 17), squares=0.0),
    adaptive_case("second-rate", (7, 17), state=(3, 1, 8.0, 0.25), slot=1, decay=0.0),
    adaptive_case("first-update-exact", (7, 17), state=(3, 1, 0.5), first=True, exact=True, momentum=0.0, decay=0.25, epsilon=0.25, images=4),
    adaptive_case("not-finite-changes-nothing", (7, 17), state=(3, 0, 0.5), exact=True),
    finite_case("finite", normal(3)),
    finite_case("was-not-finite-before", normal(3), initial=(5, 0, 0.1)),
    finite_case("largest-and-least", np.array([3.4e38, -3.4e38, 1e-45, 0.0])),
    finite_case("costs-in-float64", np.array([1e300, 2.0, 3.0]), keep="float64"),
    finite_case("infinite-cost-in-float64", np.array([np.inf, 2.0, 3.0]), keep="float64"),
    finite_case("infinity", but(normal(17, 129), np.inf, 16, 128)),
    finite_case("minus-infinity", but(normal(3, 2, 2, 5), -np.inf, 0, 0, 0, 0)),
    finite_case("nan", but(normal(17, 129), np.nan, 8, 33)),
    finite_case("nothing-is-finite", np.full((40, 40), np.nan)),
]
