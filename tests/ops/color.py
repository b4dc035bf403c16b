"""Colour spaces."""
from __future__ import annotations

import numpy as np

from . import Case, normal

YUV = np.array([[0.2126, 0.7152, 0.0722], [-0.09991, -0.33609, 0.436], [0.615, -0.55861, -0.05639]])
XYZ = np.array([[0.49, 0.31, 0.2], [0.17697, 0.8124, 0.01063], [0, 0.01, 0.99]])


def times(matrix, inputs):
    return np.tensordot(matrix, inputs, 1)


def rgb_to_yuv(inputs):
    return times(YUV, inputs)


def roots(inputs):
    xyz = times(XYZ, inputs)
    return np.where(xyz > 0.0088564517, np.maximum(xyz, 0) ** 0.3333, 7.787037 * xyz + 0.13793103)


def rgb_to_lab(inputs, center):
    x, y, z = roots(inputs)
    return np.stack([116 * y - 16 - 50 * center, 500 * (x - y), 200 * (y - z)])


def rgb_to_lab_magnitude(inputs, center):
    x, y, z = roots(np.abs(inputs))
    return np.stack([116 * y + 16 + 50 * center, 500 * (x + y), 200 * (y + z)])


def colors(*shape):
    """0 to 1, among them black and what is nearly black, where L*a*b* is a straight line."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.02, 1, (3, *shape)) * rng.choice([0, 0.01, 1], shape, p=[0.1, 0.2, 0.7])
    return values.astype(np.float32).astype(np.float64)


SHAPES = {"plain": (5, 4, 3), "one-pixel": (1, 1, 1), "129-images": (2, 3, 129)}
CASES = [Case("rgb_to_yuv", name, {"inputs": normal(3, *shape)}, {"acts": (3, *shape)}, rgb_to_yuv, magnitude=lambda inputs: times(np.abs(YUV), np.abs(inputs)),
              sums=3) for name, shape in SHAPES.items()]
CASES += [Case("rgb_to_lab", f"{name}{'-centered' * center}", {"inputs": colors(*shape)}, {"acts": (3, *shape)}, rgb_to_lab, {"center": center},
               rgb_to_lab_magnitude, sums=4, steps=1) for name, shape in SHAPES.items() for center in (False, True)]
