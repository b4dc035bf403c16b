"""Stochastic pooling (Zeiler and Fergus 2013): draws by counter, their mean, and both gradients."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal
from .dropout import philox, state_at
from .pool import outputs, windows


def fractions(shape, step, seed, purpose, first_image):
    """A number from 0 on and below 1 for each element, of 24 bits."""
    rows, images = int(np.prod(shape[:-1])), shape[-1]
    row, image = np.meshgrid(np.arange(rows), first_image + np.arange(images), indexing="ij")
    words = np.stack(philox((row // 4, image, int(step) & 0xFFFFFFFF, int(step) >> 32), (seed, purpose)))
    word = np.take_along_axis(words, (row % 4)[None], 0)[0]
    return ((word >> np.uint64(8)) / 2**24).reshape(shape)


def drawn(inputs, acts_shape, state, seed, purpose, first_image, **scalars):
    """((y, x), (down, across), mask) of every window: True at the input it takes."""
    u = fractions(acts_shape, state[0], seed, purpose, first_image)
    for (y, x), (down, across) in windows(inputs.shape, acts_shape, **scalars):
        weights = np.maximum(inputs[:, down, across], 0)
        c, h, w, n = weights.shape
        sums = weights.reshape(c, h * w, n).cumsum(1)
        over = sums > (u[:, y, x] * sums[:, -1])[:, None]
        first = over & (over.cumsum(1) == 1)
        yield (y, x), (down, across), first.reshape(weights.shape)


def random_pool_forward(inputs, state, acts_shape, **scalars):
    acts = np.zeros(acts_shape)
    for (y, x), (down, across), mask in drawn(inputs, acts_shape, state, **scalars):
        acts[:, y, x] = np.where(mask, inputs[:, down, across], 0).sum((1, 2))
    return acts


def random_pool_backward(inputs, state, acts_grad, **scalars):
    inputs_grad = np.zeros_like(inputs)
    for (y, x), (down, across), mask in drawn(inputs, acts_grad.shape, state, **scalars):
        inputs_grad[:, down, across] += mask * acts_grad[:, y, None, x, None]
    return inputs_grad


def expected_pool_forward(inputs, acts_shape, **scalars):
    acts = np.zeros(acts_shape)
    for (y, x), (down, across) in windows(inputs.shape, acts_shape, **scalars):
        weights = np.maximum(inputs[:, down, across], 0)
        total = weights.sum((1, 2))
        acts[:, y, x] = np.divide((weights**2).sum((1, 2)), total, where=total > 0, out=np.zeros_like(total))
    return acts


def expected_pool_backward(inputs, acts, acts_grad, sign=-1, **scalars):
    inputs_grad = np.zeros_like(inputs)
    for (y, x), (down, across) in windows(inputs.shape, acts.shape, **scalars):
        window = inputs[:, down, across]
        total = np.maximum(window, 0).sum((1, 2), keepdims=True)
        slopes = np.divide(2 * window + sign * acts[:, y, None, x, None], total, where=(window > 0) & (total > 0), out=np.zeros_like(window))
        inputs_grad[:, down, across] += acts_grad[:, y, None, x, None] * slopes
    return inputs_grad


def expected_pool_backward_magnitude(inputs, acts, acts_grad, **scalars):
    return expected_pool_backward(inputs, acts, np.abs(acts_grad), sign=1, **scalars)


def cases(name, shape, acts_shape=None, *, small=False, check=False, step=7, seed=1, purpose=0x9E3779B9, first_image=0, **scalars):
    """The four ops on one shape; small: small integers, whose sums are exact."""
    acts_shape = acts_shape or outputs(shape, **scalars)
    inputs = integers(*shape) if small else normal(*shape)
    if check:
        inputs = np.where(np.abs(inputs) < 0.125, 0.125, inputs)  # away from 0, from where an input counts
    acts_grad = integers(*acts_shape, low=-9, high=9, seed=1) if small else normal(*acts_shape, seed=1)
    state, draw = state_at(step), {"seed": seed, "purpose": purpose, "first_image": first_image}
    mean = expected_pool_forward(inputs, acts_shape, **scalars)
    if not check:
        mean = mean.astype(np.float32).astype(np.float64)
    area, overlap = scalars["size"] ** 2, (-(-scalars["size"] // scalars["stride"])) ** 2

    def cost(forward):
        return (lambda x: (forward(x) * acts_grad).sum()) if check else None

    return [
        Case("random_pool_forward", name, {"inputs": inputs, "state": state}, {"acts": acts_shape},
             lambda inputs, state, **k: random_pool_forward(inputs, state, acts_shape, **k), scalars | draw, exact=True, keep={"state": "float64"}),
        Case("random_pool_backward", name, {"inputs": inputs, "state": state, "acts_grad": acts_grad}, {"inputs_grad": shape}, random_pool_backward,
             scalars | draw, lambda inputs, state, acts_grad, **k: random_pool_backward(inputs, state, np.abs(acts_grad), **k), sums=overlap, exact=small,
             keep={"state": "float64"}, cost=cost(lambda x: random_pool_forward(x, state, acts_shape, **scalars, **draw)), at=inputs),
        Case("expected_pool_forward", name, {"inputs": inputs}, {"acts": acts_shape},
             lambda inputs, **k: expected_pool_forward(inputs, acts_shape, **k), scalars, sums=2 * area, steps=1),
        Case("expected_pool_backward", name, {"inputs": inputs, "acts": mean, "acts_grad": acts_grad}, {"inputs_grad": shape}, expected_pool_backward,
             scalars, expected_pool_backward_magnitude, sums=area + overlap, steps=2,
             cost=cost(lambda x: expected_pool_forward(x, acts_shape, **scalars)), at=inputs),
    ]


CASES = [
    *cases("overlapping", (3, 7, 9, 5), size=3, stride=2, start=0),
    *cases("far-edge-clipped", (3, 8, 6, 3), size=3, stride=2, start=0),
    *cases("every-pixel-129-images", (1, 4, 5, 129), size=3, stride=1, start=0),
    *cases("start-before-the-image", (3, 7, 5, 3), size=3, stride=2, start=-1),
    *cases("17-channels", (17, 5, 3, 1), size=3, stride=3, start=0),
    *cases("one-element", (1, 1, 1, 1), size=1, stride=1, start=0),
    *cases("pixels-in-no-window", (3, 7, 8, 3), (3, 3, 3, 3), size=2, stride=3, start=0),
    *cases("more-images-than-a-tile", (1, 3, 3, 300), size=2, stride=1, start=0),
    *cases("integers-and-empty-windows", (3, 7, 9, 65), small=True, size=2, stride=2, start=0),
    *cases("step-of-33-bits", (2, 5, 5, 9), size=3, stride=2, start=0, step=2**32 + 5, seed=2**32 - 1, purpose=2**32 - 1, first_image=9),
    *cases("gradient", (2, 5, 6, 2), check=True, size=3, stride=2, start=-1),
]


def shares_case():
    """A window of 1, 2 and 5 is drawn 20000 times: each input as often as it weighs, within four standard deviations."""
    images = 20000
    inputs = np.broadcast_to(np.array([1.0, 2.0, -3.0, 5.0]).reshape(1, 2, 2, 1), (1, 2, 2, images))
    scalars = {"size": 2, "stride": 2, "start": 0, "seed": 3, "purpose": 4, "first_image": 0}
    acts = random_pool_forward(inputs, state_at(0), (1, 1, 1, images), **scalars)
    for value, share in ((1, 1 / 8), (2, 2 / 8), (5, 5 / 8)):
        assert abs((acts == value).mean() - share) < 4 * np.sqrt(share * (1 - share) / images), "this file's draws are wrong"
    return Case("random_pool_forward", "shares", {"inputs": inputs, "state": state_at(0)}, {"acts": acts.shape},
                lambda inputs, state, **k: random_pool_forward(inputs, state, acts.shape, **k), scalars, exact=True, keep={"state": "float64"})


CASES.append(shares_case())
# What is not a number, or infinite, must not hide behind a draw.
for name, value in (("nan", np.nan), ("infinity", np.inf)):
    window = np.array([1.0, value, 2.0, 3.0]).reshape(1, 2, 2, 1)
    CASES += [Case("random_pool_forward", name, {"inputs": window, "state": state_at(7)}, {"acts": (1, 1, 1, 1)},
                   lambda *_, **__: np.full((1, 1, 1, 1), np.nan), {"size": 2, "stride": 2, "start": 0, "seed": 1, "purpose": 2, "first_image": 0}, exact=True,
                   keep={"state": "float64"}),
              Case("expected_pool_forward", name, {"inputs": window}, {"acts": (1, 1, 1, 1)},
                   lambda *_, **__: np.full((1, 1, 1, 1), np.nan), {"size": 2, "stride": 2, "start": 0}, exact=True)]
