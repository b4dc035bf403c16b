"""Gaussian blur."""
from __future__ import annotations

import numpy as np

from . import Case, normal


def weights(size, stdev):
    bell = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * stdev**2))
    return bell / bell.sum()


def blur(inputs, size, stdev):
    _, height, width, _ = inputs.shape
    radius = size // 2
    padded = np.pad(inputs, ((0, 0), (radius, radius), (radius, radius), (0, 0)))
    return sum(down * across * padded[:, i : i + height, j : j + width]
               for i, down in enumerate(weights(size, stdev)) for j, across in enumerate(weights(size, stdev)))


def case(name, shape, size, stdev=1.0, check=False, exact=False):
    inputs = normal(*shape)
    at = normal(*shape, seed=1)
    cost = (lambda x: (blur(x, size, stdev) * inputs).sum()) if check else None
    return Case("blur", name, {"inputs": inputs}, {"acts": shape}, blur, {"size": size, "stdev": stdev},
                sums=2 * size, steps=1, exact=exact, cost=cost, at=at)


CASES = [case(f"size{size}", (3, 11, 10, 5), size) for size in (3, 5, 7, 9)]
CASES += [
    case("wider-than-the-map", (2, 2, 3, 3), 9, stdev=2.0),
    case("one-element", (1, 1, 1, 1), 5),
    case("one-pixel", (2, 3, 4, 3), 1),
    case("largest", (1, 5, 40, 2), 31, stdev=6.0),
    case("17-channels", (17, 4, 3, 2), 3, stdev=0.5),
    case("129-images", (1, 5, 4, 129), 5, stdev=1.5),
    case("two-strips", (1, 4, 5, 300), 5),
    case("no-wider-than-a-pixel", (3, 4, 5, 3), 5, stdev=0.01, exact=True),  # one weight is 1, the others are 0
    case("gradient", (2, 5, 4, 2), 5, check=True),
    case("gradient-wider-than-the-map", (1, 2, 3, 2), 7, check=True),
]
