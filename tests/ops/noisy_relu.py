"""Relu with noise (Nair and Hinton 2010)."""
from __future__ import annotations

import numpy as np

from . import Case, normal
from .dropout import philox, state_at


def radius_and_angle(shape, step, seed, purpose, first_image):
    """Of the pair of normal numbers that each element's is one of, with whether it is the second."""
    rows, images = int(np.prod(shape[:-1])), shape[-1]
    row, image = np.meshgrid(np.arange(rows), np.arange(images), indexing="ij")
    words = np.stack(philox((row // 4, first_image + image, int(step) & 0xFFFFFFFF, int(step) >> 32), (seed, purpose)))
    first, second = (np.take_along_axis(words, (row % 4 // 2 * 2 + i)[None], 0)[0] for i in (0, 1))
    radius = np.sqrt(-2 * np.log(((first >> np.uint64(9)) + 0.5) / 2**23))
    angle = 2 * np.pi * ((second >> np.uint64(8)) / 2**24)
    return radius.reshape(shape), angle.reshape(shape), (row % 2 == 1).reshape(shape)


def noise(shape, step, seed, purpose, first_image):
    radius, angle, second = radius_and_angle(shape, step, seed, purpose, first_image)
    return radius * np.where(second, np.sin(angle), np.cos(angle))


def noisy_relu(inputs, state, seed, purpose, first_image):
    r = np.maximum(0, inputs)
    return np.maximum(0, r + r * noise(inputs.shape, state[0], seed, purpose, first_image))


def magnitude(inputs, state, seed, purpose, first_image):
    """The angle is rounded, and so are sine and cosine, even where they are near 0."""
    radius, angle, _ = radius_and_angle(inputs.shape, state[0], seed, purpose, first_image)
    return np.maximum(0, inputs) * (1 + radius * (1 + angle))


def case(name, shape, step=7, seed=1, purpose=0x9E3779B9, first_image=0):
    return Case("noisy_relu", name, {"inputs": normal(*shape), "state": state_at(step)}, {"acts": shape}, noisy_relu,
                {"seed": seed, "purpose": purpose, "first_image": first_image}, magnitude, sums=2, steps=4, keep={"state": "float64"})


DRAWS = noise((100, 1000), 0, 3, 4, 0).reshape(-1)
for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
    assert abs((DRAWS**power).mean() - moment) < 4 * np.sqrt((DRAWS ** (2 * power)).mean() / DRAWS.size), "this file's noise is not normal"
assert abs(np.corrcoef(DRAWS.reshape(100, 1000)) - np.eye(100)).max() < 5 / np.sqrt(1000), "numbers of one draw depend on each other"

CASES = [case(f"{c}x{h}x{w}x{n}", (c, h, w, n)) for c, h, w, n in ((1, 1, 1, 1), (3, 1, 1, 3), (7, 3, 2, 5), (17, 1, 1, 129), (16, 2, 2, 64))]
CASES += [
    case("33-rows", (33, 1, 1, 2)),
    case("step-0", (9, 1, 1, 17), step=0),
    case("step-of-33-bits", (9, 1, 1, 17), step=2**32 + 5),
    case("largest-seed", (9, 1, 1, 17), seed=2**32 - 1, purpose=2**32 - 1, first_image=9),
    case("rank-2", (13, 9)),
    Case("noisy_relu", "nan", {"inputs": np.full((3, 1, 1, 5), np.nan), "state": state_at(7)}, {"acts": (3, 1, 1, 5)},
         lambda inputs, state, **_: inputs, {"seed": 1, "purpose": 2, "first_image": 0}, exact=True, keep={"state": "float64"}),
]
