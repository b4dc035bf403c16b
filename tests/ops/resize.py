"""Bilinear resizing, and a random size and crop for a minibatch."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal
from .dropout import philox, state_at


def places(pixels, outputs, scale):
    """Where the output pixels lie along one side of the inputs."""
    return np.clip(np.arange(outputs) * scale + (pixels - outputs * scale) / 2, 0, max(0, pixels - 1.01))


def between(inputs, axis, at):
    """The inputs at some places along an axis, between two pixels."""
    first = np.floor(at).astype(int)
    shares = (at - first).reshape([-1 if i == axis else 1 for i in range(4)])
    return (1 - shares) * inputs.take(first, axis) + shares * inputs.take(np.minimum(first + 1, inputs.shape[axis] - 1), axis)


def resized(inputs, outputs, scale):
    down, across = (places(inputs.shape[i], outputs[i - 1], scale) for i in (1, 2))
    return between(between(inputs, 1, down), 2, across)


def case(name, shape, scale, outputs=None):
    outputs = outputs or (int(shape[1] / scale), int(shape[2] / scale))
    return Case("resize", name, {"inputs": normal(*shape)}, {"acts": (shape[0], *outputs, shape[3])}, lambda inputs, scale: resized(inputs, outputs, scale),
                {"scale": scale}, sums=4, steps=2)


def drawn(side, crop, max_scale, step, seed, purpose):
    """Size, scale, top and left."""
    words = [int(word) for word in philox((0, 0, step & 0xFFFFFFFF, step >> 32), (seed, purpose))]
    count = side - int(side / max_scale) + 1
    sums = np.cumsum(np.arange(1, count + 1) ** 2)
    size = crop + int(np.searchsorted(sums, words[0] * 2.0**-32 * sums[-1], side="right"))
    least = max(1.0, side / (size + 1))
    return size, least + words[1] * 2.0**-32 * (side / size - least), *(word * (size - crop + 1) >> 32 for word in words[2:])


def random_scale_crop(inputs, state, crop, max_scale, seed, purpose):
    side = inputs.shape[1]
    size, scale, top, left = drawn(side, crop, max_scale, int(state[0]), seed, purpose)
    image = inputs if size == side else resized(inputs, (size, size), scale)
    return image[:, top : top + crop, left : left + crop]


def random_case(name, shape, crop, max_scale, step, seed=1, purpose=0x9E3779B9, exact=False):
    scalars = {"max_scale": max_scale, "seed": seed, "purpose": purpose}

    def reference(inputs, state, **scalars):
        return random_scale_crop(inputs, state, crop, **scalars)

    return Case("random_scale_crop", name, {"inputs": integers(*shape) if exact else normal(*shape), "state": state_at(step)},
                {"acts": (shape[0], crop, crop, shape[3])}, reference, scalars, sums=4, steps=2, exact=exact, keep={"state": "float64"})


def step_of(wanted, side, crop, max_scale, seed=1, purpose=0x9E3779B9):
    """A step at which the draw is as wanted."""
    return next(step for step in range(1000) if wanted(*drawn(side, crop, max_scale, step, seed, purpose)))


CASES = [case(f"scale{scale:g}", (3, 7, 8, 5), scale) for scale in (0.5, 0.7, 0.9, 1.0, 1.3, 1.5, 2.0)]
CASES += [
    case("one-element", (1, 1, 1, 1), 1.0),
    case("one-pixel-to-four", (2, 1, 1, 3), 0.5),
    case("two-pixels-to-one", (2, 2, 2, 3), 2.0),
    case("two-pixels-to-four", (2, 2, 2, 3), 0.5),
    case("far-from-0", (1, 300, 2, 2), 1.1),
    case("17-channels", (17, 4, 5, 2), 1.3),
    case("129-images", (1, 4, 3, 129), 0.8),
    case("other-outputs", (2, 6, 6, 3), 1.3, (3, 5)),
]
CASES += [random_case(f"step{step}", (3, 12, 12, 5), 8, 1.5, step) for step in range(4)]
CASES += [
    random_case("own-size", (2, 6, 6, 3), 4, 1.5, step_of(lambda size, *_: size == 6, 6, 4, 1.5), exact=True),
    random_case("smallest-size", (2, 12, 12, 3), 6, 2.0, step_of(lambda size, *_: size <= 8, 12, 6, 2.0)),
    random_case("larger-than-the-image", (2, 12, 12, 3), 11, 2.0, step_of(lambda size, *_: size > 12, 12, 11, 2.0)),
    random_case("no-choice", (2, 5, 5, 3), 5, 1.0, 0, exact=True),
    random_case("one-element", (1, 1, 1, 1), 1, 1.5, 0, exact=True),
    random_case("17-channels", (17, 4, 4, 2), 2, 1.5, 1),
    random_case("129-images", (1, 6, 6, 129), 4, 1.6, 3),
    random_case("step-of-33-bits", (1, 9, 9, 3), 6, 1.5, 2**32 + 5),
    random_case("largest-seed", (1, 9, 9, 3), 6, 1.5, 1, seed=2**32 - 1, purpose=2**32 - 1),
]
