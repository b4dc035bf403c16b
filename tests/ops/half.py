"""Half precision, which activities and gradients may travel in; numpy's float16 is the reference."""
from __future__ import annotations

import numpy as np

from . import Case, normal

# What rounding can get wrong: zeros, subnormals, ties, the largest, what is too large, infinity and not a number.
EDGES = np.array([0.0, -0.0, 2**-24, 2**-25, 1.5 * 2**-24, 2**-25 + 2**-40, -(2**-14), 2**-14 - 2**-25, 2**-14 - 2**-24, 1 + 2**-11, 1 + 3 * 2**-11,
                  1 + 2**-11 + 2**-23, 2047.5, 65504, 65519.99, 65520, -65536, 1e30, 1e-30, np.inf, -np.inf, np.nan])
HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)  # every one there is


def to_half(values):
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32).astype(np.float16)


def from_half(halves):
    return halves.astype(np.float64)


def narrowing(name, values, keep=()):
    return Case("to_half", name, {"values": values}, {"halves": values.shape}, to_half, magnitude=lambda values: np.zeros(values.shape),
                exact=True, keep={"halves": "float16", **dict(keep)}, adds=False)


def widening(name, halves, adds=True):
    return Case("from_half", name, {"halves": halves}, {"values": halves.shape}, from_half, magnitude=lambda halves: np.zeros(halves.shape),
                exact=True, keep={"halves": "float16"}, adds=adds)


CASES = [
    narrowing("many", normal(7, 3, 2, 129) * np.exp2(np.arange(-28, 14).reshape(7, 3, 2, 1))),
    narrowing("one-image", normal(5, 1)),
    narrowing("nine-rows", normal(9, 3)),
    narrowing("least-bits-that-are-no-number", np.array([[0x7F800001, 0xFF800001, 0x7F800000]], np.uint32).view(np.float32), {"values": "float32"}),
    narrowing("edges", EDGES.reshape(-1, 1).astype(np.float32).astype(np.float64)),
    widening("odd", normal(3, 5, 129).astype(np.float16)),
    widening("nine-rows", normal(9, 3).astype(np.float16)),
    widening("all", HALVES[~np.isnan(HALVES)].reshape(-1, 35)),
    widening("not-a-number", HALVES[np.isnan(HALVES)].reshape(1, -1), adds=False),
]
