"""Limits on the norms and on the spreads of the columns of weights (SEMANTICS 7.6)."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal


def factor(bad, wanted, measured):
    return np.where(bad & (measured > 0), wanted / np.where(measured > 0, measured, 1), 1)


def limit_norms(state, weights, limit, exactly):
    norms = np.sqrt((weights**2).sum(1, keepdims=True))
    return weights * factor(exactly | (norms > limit), limit, norms) if state[1] == 1 else weights


def limit_spreads(state, weights, least, most):
    spreads = np.sqrt(((weights - weights.mean(1, keepdims=True))**2).sum(1, keepdims=True)) / weights.shape[1]
    return weights * factor(spreads < least, least, spreads) * factor(spreads > most, most, spreads) if state[1] == 1 else weights


def case(reference, name, weights, finite=1, exact=False, **scalars):
    return Case(reference.__name__, name, {"state": np.array([3, finite], np.float64)}, {"weights": weights.shape},
                lambda state, **scalars: reference(state, weights, **scalars), scalars,
                lambda state, **scalars: np.abs(reference(state, weights, **scalars)),
                sums=weights.shape[1], steps=3, exact=exact, initial={"weights": weights}, keep={"state": "float64"}, adds=False)


# Norms 5, 13, 0 and 10, and of the second matrix 5, 10, 20 and 40.
WHOLE = np.array([[[3, 5, 0, 6], [4, 12, 0, 8]], [[0, 0, 0, 0], [5, -10, 20, 40]]], np.float64)
# Spreads 1.5, 0.5, 0 and 0.
SPREAD = np.array([[[3, 1, 0, 7], [-3, 3, 0, 7], [3, 1, 0, 7], [-3, 3, 0, 7]]], np.float64)
SCALES = 2.0 ** integers(129, low=-4, high=4, seed=5)  # so that some columns are beyond a limit and some are not

CASES = [
    case(limit_norms, "within-changes-nothing", integers(2, 7, 33), exact=True, limit=100.0, exactly=False),
    case(limit_norms, "powers-of-two", 4.0 * np.eye(5)[None], exact=True, limit=0.5, exactly=False),
    case(limit_norms, "exactly-powers-of-two", 0.25 * np.eye(5)[None], exact=True, limit=8.0, exactly=True),
    case(limit_norms, "a-column-of-zeros-stays", WHOLE, limit=6.0, exactly=True),
    case(limit_norms, "each-column-of-each-matrix", WHOLE, limit=6.0, exactly=False),
    case(limit_norms, "many-columns", normal(1, 75, 129) * SCALES, limit=8.0, exactly=False),
    case(limit_norms, "exactly-many-columns", normal(1, 75, 129) * SCALES, limit=8.0, exactly=True),
    case(limit_norms, "columns-of-two-whole-blocks", normal(1, 5, 64), limit=8.0, exactly=True),
    case(limit_norms, "many-matrices", normal(17, 27, 5) * SCALES[:5], limit=4.0, exactly=False),
    case(limit_norms, "many-rows", normal(1, 1111, 3), limit=1.0, exactly=False),
    case(limit_norms, "one", np.array([[[-3.0]]]), limit=0.5, exactly=False),
    case(limit_norms, "not-finite-changes-nothing", WHOLE, finite=0, exact=True, limit=0.5, exactly=True),
    case(limit_spreads, "within-changes-nothing", integers(2, 7, 33), exact=True, least=1e-3, most=100.0),
    case(limit_spreads, "powers-of-two", SPREAD[..., 1:], exact=True, least=1.0, most=4.0),
    case(limit_spreads, "above-and-below", SPREAD, least=1.0, most=1.25),
    case(limit_spreads, "many-columns", normal(1, 75, 129) * SCALES, least=0.05, most=0.3),
    case(limit_spreads, "around-another-mean", 3 + normal(2, 75, 9), least=0.01, most=0.05),
    case(limit_spreads, "no-least", normal(3, 11, 129) * SCALES, least=0.0, most=0.3),
    case(limit_spreads, "many-rows", normal(1, 1111, 3), least=0.0, most=0.01),
    case(limit_spreads, "a-column-of-one-weight-stays", normal(1, 1, 40), exact=True, least=1.0, most=2.0),
    case(limit_spreads, "not-finite-changes-nothing", SPREAD, finite=0, exact=True, least=1.0, most=1.25),
]
