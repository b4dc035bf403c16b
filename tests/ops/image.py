"""Pixels as the net sees them: crop, mirror, minus mean, colour noise."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal
from .dropout import philox, state_at
from .softmax import rounded

CORNERS = {0: None, 1: (0, 0), 2: (0, 1), 3: (1, 0), 4: (1, 1)}  # (bottom, right)


def words(place, image, state, seed, purpose):
    return [int(word) for word in philox((place, image, int(state[0]) & 0xFFFFFFFF, int(state[0]) >> 32), (seed, purpose))]


def image_forward(pixels, mean, state, random, view, images_per_crop, seed, purpose, first_image, sign=-1):
    (_, height, width), images = mean.shape, len(pixels)
    down, right = pixels.shape[2] - height, pixels.shape[3] - width
    acts = np.empty((*mean.shape, images))
    for n in range(images):
        if random:
            draw = words(0, (first_image + n) // images_per_crop, state, seed, purpose)
            top, left, mirrored = draw[0] * (down + 1) >> 32, draw[1] * (right + 1) >> 32, draw[2] & 1
        else:
            corner, mirrored = CORNERS[view % 5], view >= 5
            top, left = (corner[0] * down, corner[1] * right) if corner else (down // 2, right // 2)
        seen = pixels[n, :, top : top + height, left : left + width].astype(np.float64)
        acts[..., n] = (seen[:, :, ::-1] if mirrored else seen) + sign * mean
    return acts


def draws(images, state, seed, purpose, first_image):
    """(4, images): radius and angle of each normal number, and the four numbers."""
    draw = np.array([words(1, first_image + n, state, seed, purpose) for n in range(images)], np.uint64).T
    radius = np.sqrt(-2 * np.log(((draw[[0, 0, 2, 2]] >> np.uint64(9)) + 0.5) / 2**23))
    angle = 2 * np.pi * ((draw[[1, 1, 3, 3]] >> np.uint64(8)) / 2**24)
    odd = np.array([0, 1, 0, 1], bool)[:, None]
    return radius, angle, radius * np.where(odd, np.sin(angle), np.cos(angle))


def noisy_image_forward(pixels, mean, colors, state, scale, images_per_crop, **keys):
    seen = image_forward(pixels, mean, state, True, 0, images_per_crop, **keys)
    normals = draws(len(pixels), state, **keys)[2][: colors.shape[1]]
    return scale * (seen + (colors @ normals)[:, None, None, :])


def noisy_magnitude(pixels, mean, colors, state, scale, images_per_crop, **keys):
    """The angle is rounded, and so are sine and cosine, even where they are near 0."""
    seen = image_forward(pixels, mean, state, True, 0, images_per_crop, **keys, sign=1)
    radius, angle, _ = draws(len(pixels), state, **keys)
    return scale * (seen + (np.abs(colors) @ (radius * (1 + angle))[: colors.shape[1]])[:, None, None, :])


def arrays(pixels, height, width, mean=None, step=7):
    mean = integers(pixels[1], height, width, low=0, high=255, seed=1) if mean is None else mean
    return {"pixels": np.random.default_rng(0).integers(0, 256, pixels).astype(np.uint8), "mean": mean, "state": state_at(step)}


KEEP = {"pixels": "uint8", "state": "float64"}
KEYS = {"seed": 1, "purpose": 0x85EBCA6B, "first_image": 0}


def case(name, pixels, height, width, random, view=0, images_per_crop=1, mean=None, step=7, **keys):
    kind = "random" if random else f"view-{view}"
    return Case("image_forward", f"{name}-{kind}", arrays(pixels, height, width, mean, step), {"acts": (pixels[1], height, width, pixels[0])}, image_forward,
                {"random": random, "view": view, "images_per_crop": images_per_crop, **KEYS, **keys},
                lambda *inputs, **scalars: image_forward(*inputs, **scalars, sign=1), exact=mean is None, keep=KEEP)


def noisy_case(name, pixels, height, width, components=3, scale=1.0, images_per_crop=1, step=7, **keys):
    inputs = arrays(pixels, height, width, step=step)
    inputs = {"pixels": inputs["pixels"], "mean": inputs["mean"], "colors": 12 * normal(pixels[1], components, seed=2), "state": inputs["state"]}
    return Case("noisy_image_forward", name, inputs, {"acts": (pixels[1], height, width, pixels[0])}, noisy_image_forward,
                {"scale": scale, "images_per_crop": images_per_crop, **KEYS, **keys}, noisy_magnitude, sums=2 + components, steps=4, keep=KEEP)


SHAPES = (
    ("border-2", (5, 3, 9, 8), 5, 4),
    ("odd-border", (3, 1, 8, 7), 5, 4),
    ("other-border-across", (4, 3, 5, 9), 4, 4),
    ("no-border", (3, 7, 3, 4), 3, 4),
    ("one-pixel", (1, 1, 3, 3), 1, 1),
    ("129-images", (129, 3, 6, 6), 4, 4),
    ("lines-of-two-tiles", (37, 2, 5, 41), 4, 37),
)
CASES = [case(*shape, random) for random in (False, True) for shape in SHAPES]
CASES += [case("corners", (5, 3, 8, 7), 5, 4, False, view) for view in range(1, 10)]
CASES += [
    case("mean-of-fractions", (5, 3, 7, 7), 5, 5, True, mean=rounded(np.random.default_rng(4).uniform(0, 255, (3, 5, 5)))),
    case("tall", (3, 2, 20, 4), 17, 2, True),
    case("second-half-of-a-minibatch", (33, 1, 9, 9), 5, 5, True, first_image=33),
    case("32-images-a-crop", (70, 1, 9, 9), 5, 5, True, images_per_crop=32),
    case("second-half-of-32-images-a-crop", (33, 1, 9, 9), 5, 5, True, images_per_crop=32, first_image=33),
    case("step-of-33-bits", (33, 1, 9, 9), 5, 5, True, step=2**32 + 5),
    case("largest-seed", (33, 1, 9, 9), 5, 5, True, seed=2**32 - 1, purpose=2**32 - 1),
]
CASES += [noisy_case(*shape) for shape in SHAPES]
CASES += [
    noisy_case("scaled", (5, 3, 9, 8), 5, 4, scale=1 / 1.1),
    noisy_case("one-component", (5, 1, 9, 8), 5, 4, components=1),
    noisy_case("four-components", (5, 2, 9, 8), 5, 4, components=4),
    noisy_case("32-images-a-crop", (70, 3, 7, 7), 5, 5, images_per_crop=32, first_image=35),
    noisy_case("step-of-33-bits", (5, 3, 7, 7), 5, 5, step=2**32 + 5, seed=2**32 - 1, purpose=2**32 - 1),
]
