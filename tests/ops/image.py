"""Pixels as the net sees them: crop, mirror, minus mean."""
from __future__ import annotations

import numpy as np

from . import Case, integers
from .dropout import philox, state_at
from .softmax import rounded


def image_forward(pixels, mean, state, random, seed, purpose, first_image, sign=-1):
    (_, height, width), images = mean.shape, pixels.shape[-1]
    down, right = pixels.shape[1] - height, pixels.shape[2] - width
    acts = np.empty((*mean.shape, images))
    for n in range(images):
        top, left, mirrored = down // 2, right // 2, False
        if random:
            words = [int(word) for word in philox((0, first_image + n, int(state[0]) & 0xFFFFFFFF, int(state[0]) >> 32), (seed, purpose))]
            top, left, mirrored = words[0] * (down + 1) >> 32, words[1] * (right + 1) >> 32, words[2] & 1
        seen = pixels[:, top : top + height, left : left + width, n].astype(np.float64)
        acts[..., n] = (seen[:, :, ::-1] if mirrored else seen) + sign * mean
    return acts


def case(name, pixels, height, width, random, mean=None, step=7, seed=1, purpose=0x85EBCA6B, first_image=0):
    shape = (pixels[0], height, width, pixels[3])
    exact = mean is None
    mean = integers(*shape[:3], low=0, high=255, seed=1) if exact else mean
    return Case("image_forward", f"{name}-{'random' if random else 'centre'}",
                {"pixels": np.random.default_rng(0).integers(0, 256, pixels).astype(np.uint8), "mean": mean, "state": state_at(step)},
                {"acts": shape}, image_forward, {"random": random, "seed": seed, "purpose": purpose, "first_image": first_image},
                lambda *inputs, **scalars: image_forward(*inputs, **scalars, sign=1), exact=exact, keep={"pixels": "uint8", "state": "float64"})


CASES = [case(*shape, random) for random in (False, True) for shape in (
    ("border-2", (3, 9, 8, 5), 5, 4),
    ("odd-border", (1, 8, 7, 3), 5, 4),
    ("other-border-across", (3, 5, 9, 4), 4, 4),
    ("no-border", (7, 3, 4, 3), 3, 4),
    ("one-pixel", (1, 3, 3, 1), 1, 1),
    ("129-images", (3, 6, 6, 129), 4, 4),
)]
CASES += [
    case("mean-of-fractions", (3, 7, 7, 5), 5, 5, True, mean=rounded(np.random.default_rng(4).uniform(0, 255, (3, 5, 5)))),
    case("second-half-of-a-minibatch", (1, 9, 9, 33), 5, 5, True, first_image=33),
    case("step-of-33-bits", (1, 9, 9, 33), 5, 5, True, step=2**32 + 5),
    case("largest-seed", (1, 9, 9, 33), 5, 5, True, seed=2**32 - 1, purpose=2**32 - 1),
]
