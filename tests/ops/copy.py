"""Scaled copies."""
from __future__ import annotations

from . import Case, integers, normal


def scaled_copy(inputs, factor):
    return factor * inputs


def case(name, inputs, factor, exact=False):
    return Case("scaled_copy", name, {"inputs": inputs}, {"acts": inputs.shape}, scaled_copy, {"factor": factor}, lambda x, factor: abs(factor * x),
                exact=exact)


CASES = [
    case("copy", normal(3, 5, 4, 3), 1.0, exact=True),
    case("copy-129-images", normal(7, 3, 2, 129), 1.0, exact=True),
    case("one-element", normal(1, 1, 1, 1), 1.0, exact=True),
    case("halved", normal(17, 2, 3, 5), 0.5, exact=True),
    case("subtracted", integers(3, 2, 3, 5), -3.0, exact=True),
    case("a-third", normal(3, 5, 4, 3), 1 / 3),
    case("in-runs", integers(8, 2, 2, 33), -3.0, exact=True),
    case("matrix", normal(17, 129), 1.0, exact=True),
]
