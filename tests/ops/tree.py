"""Weights on the nodes of a tree: sums of columns, and the update of columns that others share."""
from __future__ import annotations

import itertools

import numpy as np

from . import Case, integers, normal


def sum_columns(inputs, starts, members):
    first, chosen = starts.astype(int), members.astype(int)
    return np.stack([inputs[..., chosen[a:b]].sum(-1) for a, b in itertools.pairwise(first)], -1)


def lists(columns, sums, longest, seed=1):
    """Random lists of columns, empty ones too: starts and members."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest + 1, sums)
    return np.array([0, *lengths.cumsum()], np.float64), rng.integers(0, columns, lengths.sum()).astype(np.float64)


def sums_case(name, shape, sums, longest, exact=False, check=False):
    inputs = integers(*shape) if exact else normal(*shape)
    starts, members = lists(shape[-1], sums, longest)
    return Case("sum_columns", name, {"inputs": inputs, "starts": starts, "members": members}, {"sums": (*shape[:-1], sums)}, sum_columns,
                magnitude=lambda inputs, starts, members: sum_columns(np.abs(inputs), starts, members), sums=longest, steps=0, exact=exact)


def transposed(starts, members, columns):
    """Of the lists of each sum, those of each column: in which sums it is, as often as it is there."""
    sums = np.repeat(np.arange(len(starts) - 1), np.diff(starts).astype(int))
    order = np.argsort(members, kind="stable")
    return np.array([0, *np.bincount(members.astype(int), minlength=columns).cumsum()], np.float64), sums[order].astype(np.float64)


def gradient_case():
    """The gradient of sums of columns is sums of columns again, of the lists the other way round."""
    inputs, sums_grad = normal(3, 7), normal(3, 5, seed=2)
    starts, members = lists(7, 5, 4)
    back = transposed(starts, members, 7)
    return Case("sum_columns", "gradient", {"inputs": sums_grad, "starts": back[0], "members": back[1]}, {"sums": inputs.shape}, sum_columns, sums=20,
                cost=lambda x: (sum_columns(x, starts, members) * sums_grad).sum(), at=inputs,
                magnitude=lambda inputs, starts, members: sum_columns(np.abs(inputs), starts, members))


def missing_case(name, starts, members, expected):
    return Case("sum_columns", name, {"inputs": np.array([[1.0, 2.0, 4.0]]), "starts": np.array(starts, np.float64), "members": np.array(members, np.float64)},
                {"sums": (1, len(starts) - 1)}, lambda *_: np.array([expected], np.float64), exact=True)


def tree_update(state, weights_grad, counts, increments, weights, rate_slot, momentum, decay, images):
    if state[1] != 1:
        return increments, weights
    rate = state[2 + rate_slot]
    increments = momentum * increments - rate / counts * (weights_grad / images + decay / counts * weights)
    return increments, weights + increments


def update_magnitude(state, weights_grad, counts, increments, weights, rate_slot, momentum, decay, images):
    if state[1] != 1:
        return np.abs(increments), np.abs(weights)
    rate = state[2 + rate_slot]
    increments = momentum * np.abs(increments) + rate / counts * (np.abs(weights_grad) / images + decay / counts * np.abs(weights))
    return increments, np.abs(weights) + increments


def update_case(name, shape, state=(3, 1, 0.01), slot=0, momentum=0.9, decay=0.4, images=128, exact=False):
    draw = integers if exact else normal
    weights_grad, increments, weights = 16 * draw(*shape, seed=0), draw(*shape, seed=1), draw(*shape, seed=2)
    counts = 2.0 ** integers(shape[-1], low=0, high=3, seed=4) if exact else integers(shape[-1], low=1, high=1000, seed=4)
    return Case("tree_update", name, {"state": np.array(state, np.float64), "weights_grad": weights_grad, "counts": counts},
                {"increments": shape, "weights": shape},
                lambda state, grad, counts, **scalars: tree_update(state, grad, counts, increments, weights, **scalars),
                {"rate_slot": slot, "momentum": momentum, "decay": decay, "images": images},
                lambda state, grad, counts, **scalars: update_magnitude(state, grad, counts, increments, weights, **scalars),
                sums=4, steps=3, exact=exact, initial={"increments": increments, "weights": weights}, keep={"state": "float64"}, adds=False)


EXACT = {"momentum": 0.5, "decay": 0.25, "images": 4, "exact": True}
CASES = [
    sums_case("few", (3, 7), 5, 4),
    sums_case("more-sums-than-columns", (17, 5), 129, 9),
    sums_case("integers", (7, 33), 40, 12, exact=True),
    sums_case("one-row", (1, 9), 3, 2, exact=True),
    sums_case("more-dimensions", (3, 2, 2, 5), 7, 3, exact=True),
    sums_case("nothing-to-sum", (3, 4), 6, 0, exact=True),
    gradient_case(),
    missing_case("a-member-that-is-not-there", [0, 1, 2, 3], [3, -1, 2], [np.nan, np.nan, 4]),
    missing_case("a-list-beyond-the-end", [0, 2, 5, 1], [0, 1, 2], [3, np.nan, 0]),
    missing_case("a-list-one-beyond-the-end", [0, 2, 4], [0, 1, 2], [3, np.nan]),
    missing_case("a-list-from-before-the-first", [-1, 2, 3], [0, 1, 2], [np.nan, 4]),
    update_case("matrix", (17, 129)),
    update_case("one", (1, 1)),
    update_case("exact", (7, 17), state=(3, 1, 0.5), **EXACT),
    update_case("second-rate", (7, 17), state=(3, 1, 8.0, 0.25), slot=1, **EXACT),
    update_case("not-finite-changes-nothing", (7, 17), state=(3, 0, 0.5), **EXACT),
]
